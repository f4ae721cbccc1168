/*
 * options.c - "-o KEY[=VALUE],..." into struct options.
 *
 * One table says what each key is; one setter for each kind of value says what it takes. No message
 * repeats the value of a key that is unknown or holds a secret: 'pasword=...' is a misspelling of
 * that too.
 *
 * A profile is a set of values for keys that were not given, wherever they stand: so what was given
 * is remembered, behind the struct options that the others see.
 */
#include "lunfs/config.h"

#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

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

struct key;
typedef bool setter(
    struct options *options, const struct key *key, const char *value, GError **error);

static setter set_true, set_false, set_string, set_duration, set_interval, set_patience, set_uid,
    set_gid, set_umask, set_digest, set_log_level, set_profile, set_cache, set_cache_size,
    set_readahead, pass_on, drop, refuse_secret;

enum takes { NO_VALUE, A_VALUE, MAYBE_A_VALUE };

struct key {
	const char *name;
	enum takes takes;
	setter *set;
	size_t offset; /* of the field in struct options, where the setter serves several */
};

#define FIELD(member) offsetof(struct options, member)

/* clang-format off */
static const struct key keys[] = {
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
	{"initiator_name",    A_VALUE,  set_string,   FIELD(initiator_name)},
	{"username",          A_VALUE,  set_string,   FIELD(username)},
	{"password_file",     A_VALUE,  set_string,   FIELD(password_file)},
	{"username_in",       A_VALUE,  set_string,   FIELD(username_in)},
	{"password_in_file",  A_VALUE,  set_string,   FIELD(password_in_file)},
	{"loglevel",          A_VALUE,  set_log_level, 0},
	{"cache",             A_VALUE,  set_cache,    0},
	{"cache_size",        A_VALUE,  set_cache_size, 0},
	{"dirty_expire",      A_VALUE,  set_duration, FIELD(dirty_expire)},
	{"readahead",         A_VALUE,  set_readahead, 0},

	{"password",    MAYBE_A_VALUE, refuse_secret, 0},
	{"password_in", MAYBE_A_VALUE, refuse_secret, 0},

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

/* The gateway's guide, "Customizing Your Linux iSCSI Settings": it may take minutes to answer. */
static const struct preset {
	const char *key;
	unsigned milliseconds;
} aws_presets[] = {
    {"replacement_timeout", 600 * SECOND},
    {"noop_out_interval", 60 * SECOND},
    {"noop_out_timeout", 600 * SECOND},
    {"command_timeout", 600 * SECOND},
};

const char *cache_mode_name(enum cache_mode mode)
{
	static const char *const names[] = {
	    [CACHE_WRITEBACK] = "writeback",
	    [CACHE_WRITETHROUGH] = "writethrough",
	    [CACHE_NONE] = "none",
	};

	return names[mode];
}

/* What options_new() makes. */
struct parsed_options {
	struct options options; /* the first member */
	bool given[G_N_ELEMENTS(keys)];
	bool aws;
};

__attribute__((format(printf, 2, 3))) static bool fail(GError **error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (error)
		*error = g_error_new_valist(LUNFS_ERROR, LUNFS_ERROR_USAGE, format, arguments);
	va_end(arguments);
	return false;
}

static bool set_true(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	(void)value;
	(void)error;
	G_STRUCT_MEMBER(bool, options, key->offset) = true;
	return true;
}

static bool set_false(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	(void)value;
	(void)error;
	G_STRUCT_MEMBER(bool, options, key->offset) = false;
	return true;
}

static bool set_string(
    struct options *options, const struct key *key, const char *value, GError **error)
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
    struct options *options, const struct key *key, const char *value, GError **error)
{
	unsigned milliseconds;
	if (!duration_parse(value, &milliseconds) || milliseconds == 0)
		return fail(error,
		    "option '%s': '%s' is not a time like 15s, 500ms, 2m or 1h, above 0 and up to "
		    "24h",
		    key->name, value);
	G_STRUCT_MEMBER(unsigned, options, key->offset) = milliseconds;
	return true;
}

static bool set_interval(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	unsigned milliseconds;
	if (!duration_parse(value, &milliseconds))
		return fail(error,
		    "option '%s': '%s' is not a time like 5s, 500ms, 2m or 1h, up to 24h, nor 0 "
		    "for never",
		    key->name, value);
	G_STRUCT_MEMBER(unsigned, options, key->offset) = milliseconds;
	return true;
}

static bool set_patience(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	unsigned milliseconds = OPTIONS_INFINITY;

	if (strcmp(value, "infinity") != 0 && !duration_parse(value, &milliseconds))
		return fail(error,
		    "option '%s': '%s' is not a time like 120s, 2m or 1h, up to 24h, nor 0 to fail "
		    "at once, nor 'infinity'",
		    key->name, value);
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
    struct options *options, const struct key *key, const char *value, GError **error)
{
	if (id_parse(value, &options->uid))
		return true;
	const struct passwd *entry = getpwnam(value);
	if (!entry)
		return fail(error, "option '%s': there is no user '%s': give a name or a number",
		    key->name, value);
	options->uid = entry->pw_uid;
	return true;
}

static bool set_gid(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	if (id_parse(value, &options->gid))
		return true;
	const struct group *entry = getgrnam(value);
	if (!entry)
		return fail(error, "option '%s': there is no group '%s': give a name or a number",
		    key->name, value);
	options->gid = entry->gr_gid;
	return true;
}

static bool set_umask(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	guint64 mask;
	if (!g_ascii_string_to_unsigned(value, 8, 0, 0777, &mask, NULL))
		return fail(error, "option '%s': '%s' is not an octal number from 0 to 777",
		    key->name, value);
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
    struct options *options, const struct key *key, const char *value, GError **error)
{
	for (unsigned mode = CACHE_WRITEBACK; mode <= CACHE_NONE; mode++) {
		if (strcmp(value, cache_mode_name(mode)) == 0) {
			options->cache = mode;
			return true;
		}
	}
	return fail(
	    error, "option '%s': '%s' is none of writeback, writethrough, none", key->name, value);
}

static bool set_cache_size(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	uint64_t bytes;
	if (!size_parse(value, &bytes) || bytes < CACHE_SIZE_MIN)
		return fail(error,
		    "option '%s': '%s' is not a size like 64M or 1G, from 4M to " SIZE_LIMIT_TEXT
		    ", nor a number of bytes; for no cache give cache=none",
		    key->name, value);
	options->cache_size = bytes;
	return true;
}

static bool set_readahead(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	uint64_t bytes = OPTIONS_AUTO;
	if (strcmp(value, "auto") != 0 &&
	    (!size_parse(value, &bytes) || (bytes != 0 && bytes < READAHEAD_MIN)))
		return fail(error,
		    "option '%s': '%s' is neither auto, nor 0 for none, nor a size like 512K or 8M "
		    "from 4K to " SIZE_LIMIT_TEXT,
		    key->name, value);
	options->readahead = bytes;
	return true;
}

static bool set_digest(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	bool crc32c = g_ascii_strcasecmp(value, "crc32c") == 0;
	if (!crc32c && g_ascii_strcasecmp(value, "none") != 0)
		return fail(
		    error, "option '%s': '%s' is neither none nor crc32c", key->name, value);
	options->header_digest = crc32c;
	return true;
}

static bool set_log_level(
    struct options *options, const struct key *key, const char *value, GError **error)
{
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
	return fail(
	    error, "option '%s': '%s' is none of error, warning, info, debug", key->name, value);
}

static bool set_profile(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	if (strcmp(value, "aws") != 0)
		return fail(error, "option '%s': there is no profile '%s': the one there is is aws",
		    key->name, value);
	((struct parsed_options *)options)->aws = true;
	return true;
}

static bool pass_on(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	(void)value;
	(void)error;
	char *before = options->fuse_options;
	options->fuse_options =
	    before ? g_strconcat(before, ",", key->name, NULL) : g_strdup(key->name);
	g_free(before);
	return true;
}

static bool drop(struct options *options, const struct key *key, const char *value, GError **error)
{
	(void)options;
	(void)key;
	(void)value;
	(void)error;
	return true;
}

static bool refuse_secret(
    struct options *options, const struct key *key, const char *value, GError **error)
{
	(void)options;
	(void)value;
	bool mutual = strcmp(key->name, "password_in") == 0;
	return fail(error,
	    "option '%s' would show the secret to everybody: write it into a file and give -o "
	    "%s_file=FILE, "
	    "or set the environment variable %s",
	    key->name, key->name,
	    mutual ? "LIBISCSI_CHAP_TARGET_PASSWORD" : "LIBISCSI_CHAP_PASSWORD");
}

/* Levenshtein's distance, as one row of the table that moves down. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t width = strlen(b);
	g_autofree size_t *row = g_new(size_t, width + 1);
	for (size_t j = 0; j <= width; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];
		row[0] = i + 1;
		for (size_t j = 0; j < width; j++) {
			size_t replaced = diagonal + (a[i] != b[j]);
			diagonal = row[j + 1];
			row[j + 1] = MIN(replaced, MIN(row[j], row[j + 1]) + 1);
		}
	}
	return row[width];
}

/* The key that name most likely means, or NULL. A short name is close to everything. */
static const struct key *nearest_key(const char *name)
{
	size_t length = strlen(name);
	size_t limit = length <= 3 ? 1 : length <= 7 ? 2 : 3;
	const struct key *nearest = NULL;
	for (size_t i = 0; i < G_N_ELEMENTS(keys) && length <= 64; i++) {
		size_t distance = edit_distance(name, keys[i].name);
		if (distance <= limit) {
			nearest = &keys[i];
			limit = distance - 1;
		}
	}
	return nearest;
}

static bool fail_unknown(const char *name, GError **error)
{
	const struct key *nearest = nearest_key(name);
	if (!nearest)
		return fail(error, "unknown option '%s': 'lunfs --help' lists them", name);
	return fail(error, "unknown option '%s': did you mean '%s%s'?", name, nearest->name,
	    nearest->set == refuse_secret ? "_file" : "");
}

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		if (strcmp(name, keys[i].name) == 0)
			return &keys[i];
	}
	return NULL;
}

/* One KEY or KEY=VALUE; item is cut apart. */
static bool parse_item(struct options *options, char *item, GError **error)
{
	if (g_str_has_prefix(item, "x-") || g_str_has_prefix(item, "X-"))
		return true;
	char *value = strchr(item, '=');
	if (value)
		*value++ = '\0';

	const struct key *key = find_key(item);
	if (!key)
		return fail_unknown(item, error);
	if (key->takes == NO_VALUE && value)
		return fail(error, "option '%s' takes no value: write it without '='", key->name);
	if (key->takes == A_VALUE && (!value || !*value))
		return fail(
		    error, "option '%s' needs a value: write %s=VALUE", key->name, key->name);
	((struct parsed_options *)options)->given[key - keys] = true;
	return key->set(options, key, value, error);
}

static void apply_profile(struct parsed_options *parsed)
{
	for (size_t i = 0; parsed->aws && i < G_N_ELEMENTS(aws_presets); i++) {
		const struct key *key = find_key(aws_presets[i].key);
		if (!parsed->given[key - keys])
			G_STRUCT_MEMBER(unsigned, &parsed->options, key->offset) =
			    aws_presets[i].milliseconds;
	}
}

static bool was_given(const struct options *options, const char *name)
{
	return ((const struct parsed_options *)options)->given[find_key(name) - keys];
}

/* What other hosts write makes what is cached wrong, and nobody tells. */
static bool apply_shared(struct options *options, GError **error)
{
	if (!options->shared)
		return true;
	if (was_given(options, "cache") && options->cache != CACHE_NONE)
		return fail(error,
		    "options 'shared' and 'cache=%s' exclude each other: what other hosts write "
		    "would not be seen: leave one of them out",
		    cache_mode_name(options->cache));
	options->cache = CACHE_NONE;
	return true;
}

/* The next item, without the '\' before a comma, and *text moves behind it. Empty ones do no harm.
 */
static char *next_item(const char **text)
{
	GString *item = g_string_new(NULL);
	const char *c = *text;
	for (; *c && *c != ','; c++) {
		if (c[0] == '\\' && c[1] == ',')
			c++;
		g_string_append_c(item, *c);
	}
	*text = *c ? c + 1 : c;
	return g_string_free(item, FALSE);
}

bool options_parse(struct options *options, const char *text, GError **error)
{
	for (const char *c = text; *c; c++) {
		if (g_ascii_iscntrl(*c))
			return fail(
			    error, "the options hold a control character: check their quoting");
	}
	while (*text) {
		g_autofree char *item = next_item(&text);
		if (*item && !parse_item(options, item, error))
			return false;
	}
	apply_profile((struct parsed_options *)options);
	if (options->noop_out_interval != 0 && options->noop_out_timeout == 0)
		return fail(error, "option 'noop_out_timeout' must be above 0 unless "
		                   "'noop_out_interval' is 0, for no keepalive");
	if (options->allow_other && options->allow_root)
		return fail(error, "options 'allow_other' and 'allow_root' exclude each other: "
		                   "leave one of them out");
	return apply_shared(options, error);
}

struct options *options_new(void)
{
	struct parsed_options *parsed = g_new0(struct parsed_options, 1);
	struct options *options = &parsed->options;
	*options = (struct options){
	    .uid = getuid(),
	    .gid = getgid(),
	    .umask = 077,
	    .login_timeout = 15 * SECOND,
	    .command_timeout = 30 * SECOND,
	    .noop_out_interval = 5 * SECOND,
	    .noop_out_timeout = 5 * SECOND,
	    .replacement_timeout = 120 * SECOND,
	    .cache = CACHE_WRITEBACK,
	    .cache_size = UINT64_C(64) << 20,
	    .dirty_expire = 5 * SECOND,
	    .readahead = OPTIONS_AUTO,
	};
	return options;
}

void options_free(struct options *options)
{
	if (!options)
		return;
	g_free(options->initiator_name);
	g_free(options->username);
	g_free(options->password_file);
	g_free(options->username_in);
	g_free(options->password_in_file);
	g_free(options->fuse_options);
	g_free((struct parsed_options *)options);
}
