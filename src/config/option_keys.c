/*
 * option_keys.c - the one table of keys, for "-o" and for a configuration file: what each is, and a
 * setter for each kind of value.
 *
 * A setter's message says what is wrong with the value; who calls it names the key before it.
 */
#include "option_keys.h"
#include "common.h"

#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>

#define fail(error, ...) config_fail(error, LUNFS_ERROR_USAGE, __VA_ARGS__)

#define SECOND 1000u
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define CACHE_SIZE_MIN (UINT64_C(4) << 20)
#define READAHEAD_MIN  (UINT64_C(4) << 10)
#if SIZE_MAX > UINT32_MAX
#define SIZE_LIMIT      (UINT64_C(1) << 40)
#define SIZE_LIMIT_TEXT "1024G"
#else
#define SIZE_LIMIT      (UINT64_C(1) << 30)
#define SIZE_LIMIT_TEXT "1G"
#endif

typedef option_setter setter;

static setter set_true, set_false, set_switch, set_string, set_name, set_duration, set_interval,
    set_patience, set_uid, set_gid, set_umask, set_digest, set_log_level, set_profile, set_cache,
    set_cache_size, set_readahead, pass_on, drop, set_secret;

#define FIELD(member) offsetof(struct options, member)

/* clang-format off */
static const struct option_key keys[] = {
	{"ro",                NO_VALUE, set_true,     FIELD(read_only)},
	{"rw",                NO_VALUE, set_false,    FIELD(read_only)},
	{"shared",            NO_VALUE, set_true,     FIELD(shared)},
	{"allow_other",       NO_VALUE, set_true,     FIELD(allow_other)},
	{"allow_root",        NO_VALUE, set_true,     FIELD(allow_root)},
	{"uid",               A_VALUE,  set_uid,      0},
	{"gid",               A_VALUE,  set_gid,      0},
	{"umask",             A_VALUE,  set_umask,    0},
	{"login_timeout",     A_VALUE,  set_duration, FIELD(login_timeout)},
	{"command_timeout",   A_VALUE,  set_duration, FIELD(command_timeout)},
	{"noop_out_interval", A_VALUE,  set_interval, FIELD(noop_out_interval)},
	{"noop_out_timeout",  A_VALUE,  set_interval, FIELD(noop_out_timeout)},
	{"replacement_timeout", A_VALUE, set_patience, FIELD(replacement_timeout)},
	{"profile",           A_VALUE,  set_profile,  0},
	{"header_digest",     A_VALUE,  set_digest,   0},
	{"initiator_name",    A_VALUE,  set_name,     FIELD(initiator_name)},
	{"username",          A_VALUE,  set_string,   FIELD(username)},
	{"password_file",     A_VALUE,  set_string,   FIELD(password_file)},
	{"username_in",       A_VALUE,  set_string,   FIELD(username_in)},
	{"password_in_file",  A_VALUE,  set_string,   FIELD(password_in_file)},
	{"loglevel",          A_VALUE,  set_log_level, 0},
	{"cache",             A_VALUE,  set_cache,    0},
	{"cache_size",        A_VALUE,  set_cache_size, 0},
	{"dirty_expire",      A_VALUE,  set_duration, FIELD(dirty_expire)},
	{"readahead",         A_VALUE,  set_readahead, 0},

	{"weak_secrets",      MAYBE_A_VALUE, set_switch, FIELD(weak_secrets)},

	{"password",    A_SECRET, set_secret, FIELD(password)},
	{"password_in", A_SECRET, set_secret, FIELD(password_in)},

	/* Flags of the mount, which libfuse and fusermount3 know. */
	{"suid",    NO_VALUE, pass_on, 0}, {"nosuid",  NO_VALUE, pass_on, 0},
	{"dev",     NO_VALUE, pass_on, 0}, {"nodev",   NO_VALUE, pass_on, 0},
	{"exec",    NO_VALUE, pass_on, 0}, {"noexec",  NO_VALUE, pass_on, 0},
	{"atime",   NO_VALUE, pass_on, 0}, {"noatime", NO_VALUE, pass_on, 0},
	{"async",   NO_VALUE, pass_on, 0}, {"sync",    NO_VALUE, pass_on, 0},
	{"dirsync", NO_VALUE, pass_on, 0},

	/* Words of fstab, mount(8) and systemd, and flags that libfuse rejects and that change nothing here. */
	{"defaults", NO_VALUE, drop, 0},
	{"auto",     NO_VALUE, drop, 0}, {"noauto",      NO_VALUE, drop, 0},
	{"nofail",   NO_VALUE, drop, 0}, {"_netdev",     NO_VALUE, drop, 0},
	{"users",    NO_VALUE, drop, 0}, {"nousers",     NO_VALUE, drop, 0},
	{"user",     MAYBE_A_VALUE, drop, 0}, {"nouser", NO_VALUE, drop, 0},
	{"owner",    NO_VALUE, drop, 0}, {"noowner",     NO_VALUE, drop, 0},
	{"group",    NO_VALUE, drop, 0}, {"nogroup",     NO_VALUE, drop, 0},
	{"diratime", NO_VALUE, drop, 0}, {"nodiratime",  NO_VALUE, drop, 0},
	{"relatime", NO_VALUE, drop, 0}, {"norelatime",  NO_VALUE, drop, 0},
	{"lazytime", NO_VALUE, drop, 0}, {"nolazytime",  NO_VALUE, drop, 0},
	{"strictatime", NO_VALUE, drop, 0}, {"nostrictatime", NO_VALUE, drop, 0},
	{"silent",   NO_VALUE, drop, 0}, {"loud",        NO_VALUE, drop, 0},
	{"comment",  A_VALUE,  drop, 0},
	{"default_permissions", NO_VALUE, drop, 0}, /* always on */
};
/* clang-format on */

const char *cache_mode_name(enum cache_mode mode)
{
	static const char *const names[] = {
	    [CACHE_WRITEBACK] = "writeback",
	    [CACHE_WRITETHROUGH] = "writethrough",
	    [CACHE_NONE] = "none",
	};

	return names[mode];
}

static bool set_true(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)value;
	(void)error;
	G_STRUCT_MEMBER(bool, options, key->offset) = true;
	return true;
}

static bool set_false(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)value;
	(void)error;
	G_STRUCT_MEMBER(bool, options, key->offset) = false;
	return true;
}

static bool set_string(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)error;
	char **field = G_STRUCT_MEMBER_P(options, key->offset);
	g_free(*field);
	*field = g_strdup(value);
	return true;
}

/* "15" and "15s" are seconds; ms, m and h are known too. In milliseconds; at most a day. */
static bool duration_parse(const char *text, unsigned *milliseconds)
{
	static const struct {
		const char *suffix;
		unsigned factor;
	} units[] = {{"", SECOND}, {"ms", 1}, {"s", SECOND}, {"m", MINUTE}, {"h", HOUR}};

	size_t digits = strspn(text, G_CSET_DIGITS);
	g_autofree char *number = g_strndup(text, digits);
	for (size_t i = 0; i < G_N_ELEMENTS(units); i++) {
		guint64 count;
		if (strcmp(text + digits, units[i].suffix) != 0)
			continue;
		if (!g_ascii_string_to_unsigned(number, 10, 0, DAY / units[i].factor, &count, NULL))
			return false;
		*milliseconds = (unsigned)count * units[i].factor;
		return true;
	}
	return false;
}

static bool set_duration(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	unsigned milliseconds;
	if (!duration_parse(value, &milliseconds) || milliseconds == 0)
		return fail(error,
		    "'%s' is not a time like 15s, 500ms, 2m or 1h, above 0 and up to "
		    "24h",
		    value);
	G_STRUCT_MEMBER(unsigned, options, key->offset) = milliseconds;
	return true;
}

static bool set_interval(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	unsigned milliseconds;
	if (!duration_parse(value, &milliseconds))
		return fail(error,
		    "'%s' is not a time like 5s, 500ms, 2m or 1h, up to 24h, nor 0 "
		    "for never",
		    value);
	G_STRUCT_MEMBER(unsigned, options, key->offset) = milliseconds;
	return true;
}

static bool set_patience(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	unsigned milliseconds = OPTIONS_INFINITY;

	if (strcmp(value, "infinity") != 0 && !duration_parse(value, &milliseconds))
		return fail(error,
		    "'%s' is not a time like 120s, 2m or 1h, up to 24h, nor 0 to fail "
		    "at once, nor 'infinity'",
		    value);
	G_STRUCT_MEMBER(unsigned, options, key->offset) = milliseconds;
	return true;
}

/* The largest number is what chown(2) takes for "leave it". */
static bool id_parse(const char *text, unsigned *id)
{
	guint64 number;
	if (!g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX - 1, &number, NULL))
		return false;
	*id = (unsigned)number;
	return true;
}

static bool set_uid(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	if (id_parse(value, &options->uid))
		return true;
	const struct passwd *entry = getpwnam(value);
	if (!entry)
		return fail(error, "there is no user '%s': give a name or a number", value);
	options->uid = entry->pw_uid;
	return true;
}

static bool set_gid(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	if (id_parse(value, &options->gid))
		return true;
	const struct group *entry = getgrnam(value);
	if (!entry)
		return fail(error, "there is no group '%s': give a name or a number", value);
	options->gid = entry->gr_gid;
	return true;
}

static bool set_umask(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	guint64 mask;
	if (!g_ascii_string_to_unsigned(value, 8, 0, 0777, &mask, NULL))
		return fail(error, "'%s' is not an octal number from 0 to 777", value);
	options->umask = (mode_t)mask;
	return true;
}

/* "4194304", "4096K", "4M": bytes, and powers of 1024. */
static bool size_parse(const char *text, uint64_t *bytes)
{
	static const struct {
		const char *suffix;
		unsigned shift;
	} units[] = {{"", 0}, {"K", 10}, {"M", 20}, {"G", 30}};

	size_t digits = strspn(text, G_CSET_DIGITS);
	g_autofree char *number = g_strndup(text, digits);
	for (size_t i = 0; i < G_N_ELEMENTS(units); i++) {
		guint64 count;
		if (g_ascii_strcasecmp(text + digits, units[i].suffix) != 0)
			continue;
		if (!g_ascii_string_to_unsigned(
		        number, 10, 0, SIZE_LIMIT >> units[i].shift, &count, NULL))
			return false;
		*bytes = count << units[i].shift;
		return true;
	}
	return false;
}

static bool set_cache(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	for (unsigned mode = CACHE_WRITEBACK; mode <= CACHE_NONE; mode++) {
		if (strcmp(value, cache_mode_name(mode)) == 0) {
			options->cache = mode;
			return true;
		}
	}
	return fail(error, "'%s' is none of writeback, writethrough, none", value);
}

static bool set_cache_size(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	uint64_t bytes;
	if (!size_parse(value, &bytes) || bytes < CACHE_SIZE_MIN)
		return fail(error,
		    "'%s' is not a size like 64M or 1G, from 4M to " SIZE_LIMIT_TEXT
		    ", nor a number of bytes; for no cache give cache=none",
		    value);
	options->cache_size = bytes;
	return true;
}

static bool set_readahead(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	uint64_t bytes = OPTIONS_AUTO;
	if (strcmp(value, "auto") != 0 &&
	    (!size_parse(value, &bytes) || (bytes != 0 && bytes < READAHEAD_MIN)))
		return fail(error,
		    "'%s' is neither auto, nor 0 for none, nor a size like 512K or 8M "
		    "from 4K to " SIZE_LIMIT_TEXT,
		    value);
	options->readahead = bytes;
	return true;
}

static bool set_digest(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	bool crc32c = g_ascii_strcasecmp(value, "crc32c") == 0;
	if (!crc32c && g_ascii_strcasecmp(value, "none") != 0)
		return fail(error, "'%s' is neither none nor crc32c", value);
	options->header_digest = crc32c;
	return true;
}

static bool set_log_level(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	static const char *const names[] = {
	    [LOG_ERRORS] = "error",
	    [LOG_WARNINGS] = "warning",
	    [LOG_INFOS] = "info",
	    [LOG_DEBUGS] = "debug",
	};
	for (unsigned level = LOG_ERRORS; level <= LOG_DEBUGS; level++) {
		if (strcmp(value, names[level]) == 0) {
			options->log_level = level;
			return true;
		}
	}
	return fail(error, "'%s' is none of error, warning, info, debug", value);
}

static bool set_profile(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)key;
	if (strcmp(value, "aws") != 0)
		return fail(error, "there is no profile '%s': the one there is is aws", value);
	((struct parsed_options *)options)->aws = true;
	return true;
}

static bool pass_on(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)value;
	(void)error;
	char *before = options->fuse_options;
	options->fuse_options =
	    before ? g_strconcat(before, ",", key->name, NULL) : g_strdup(key->name);
	g_free(before);
	return true;
}

static bool drop(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)options;
	(void)key;
	(void)value;
	(void)error;
	return true;
}

/* In place of what was there, which is wiped. */
static bool set_secret(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	(void)error;
	char **field = G_STRUCT_MEMBER_P(options, key->offset);
	secret_free(*field);
	*field = g_strdup(value);
	return true;
}

static bool set_name(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	if (!initiator_name_valid(value))
		return fail(error,
		    "'%s' is no iSCSI name: write one like iqn.2026-11.org.example:host", value);
	return set_string(options, key, value, error);
}

bool option_switch_parse(const char *text, bool *on)
{
	static const char *const words[][3] = {{"no", "false", "0"}, {"yes", "true", "1"}};

	for (unsigned i = 0; i < 2 * 3; i++) {
		if (g_ascii_strcasecmp(text, words[i / 3][i % 3]) == 0) {
			*on = i / 3;
			return true;
		}
	}
	return false;
}

/* "weak_secrets" alone is yes. */
static bool set_switch(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	bool on = true;

	if (value && !option_switch_parse(value, &on))
		return fail(error, "'%s' is neither yes nor no", value);
	G_STRUCT_MEMBER(bool, options, key->offset) = on;
	return true;
}

/* Takes a word out of the list. */
static void pass_no_longer(struct options *options, const char *word)
{
	g_auto(GStrv) words =
	    g_strsplit(options->fuse_options ? options->fuse_options : "", ",", -1);
	g_autoptr(GString) left = g_string_new(NULL);

	for (char **each = words; *each; each++) {
		if (strcmp(*each, word) != 0)
			g_string_append_printf(left, "%s%s", left->len > 0 ? "," : "", *each);
	}
	g_free(options->fuse_options);
	options->fuse_options = left->len > 0 ? g_strdup(left->str) : NULL;
}

/* "nosuid=no" is "suid", "sync=no" is "async"; only dirsync has no opposite. */
static void pass_switch(struct options *options, const struct option_key *key, bool on)
{
	const char *name = key->name;
	g_autofree char *opposite = strcmp(name, "sync") == 0      ? g_strdup("async")
	                            : strcmp(name, "async") == 0   ? g_strdup("sync")
	                            : g_str_has_prefix(name, "no") ? g_strdup(name + strlen("no"))
	                                                           : g_strconcat("no", name, NULL);
	const struct option_key *other = option_key_find(opposite);

	pass_no_longer(options, name);
	pass_no_longer(options, opposite);
	if (on)
		pass_on(options, key, NULL, NULL);
	else if (other)
		pass_on(options, other, NULL, NULL);
}

bool option_set_in_file(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	bool on;

	if (key->takes != NO_VALUE)
		return key->set(options, key, value, error);
	if (!option_switch_parse(value, &on))
		return fail(
		    error, "it is neither yes nor no: write %s=yes or %s=no", key->name, key->name);
	if (key->set == pass_on)
		pass_switch(options, key, on);
	else
		G_STRUCT_MEMBER(bool, options, key->offset) = on == (key->set == set_true);
	return true;
}

bool option_key_is_for_files(const struct option_key *key)
{
	return key->set != drop;
}

const struct option_key *option_key_at(size_t i)
{
	G_STATIC_ASSERT(G_N_ELEMENTS(keys) <= OPTION_KEYS_MOST);
	return i < G_N_ELEMENTS(keys) ? &keys[i] : NULL;
}

size_t option_key_index(const struct option_key *key)
{
	return (size_t)(key - keys);
}

const struct option_key *option_key_find(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		if (strcmp(name, keys[i].name) == 0)
			return &keys[i];
	}
	return NULL;
}
