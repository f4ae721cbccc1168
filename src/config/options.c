/*
 * options.c - "-o KEY[=VALUE],..." into struct options; layers of them.
 *
 * option_keys.c says what each key takes. No message repeats the value of a key that is unknown or
 * holds a secret: 'pasword=...' is a misspelling of that too.
 *
 * A profile is a set of values for keys that were not given, wherever they stand; and what a later
 * layer gives goes before what an earlier one gave and it excludes. So what was given is remembered
 * with its layer, behind the struct options that the others see.
 */
#include "nearest.h"
#include "common.h"
#include "option_keys.h"
#include "places.h"

#include <string.h>
#include <unistd.h>

#define fail(error, ...) config_fail(error, LUNFS_ERROR_USAGE, __VA_ARGS__)

#define SECOND 1000u

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

void secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	g_free(secret);
}

/* ---- layers ---- */

static unsigned char *given(struct options *options, const char *name)
{
	return &((struct parsed_options *)options)->given[option_key_index(option_key_find(name))];
}

void options_next_layer(struct options *options)
{
	struct parsed_options *parsed = (struct parsed_options *)options;

	if (parsed->layer < UINT8_MAX)
		parsed->layer++;
}

/* A secret's two keys are one: the later one counts. */
static void give_instead(struct options *options, const char *name)
{
	if (strcmp(name, "password") == 0)
		g_clear_pointer(&options->password_file, g_free);
	else if (strcmp(name, "password_file") == 0)
		g_clear_pointer(&options->password, secret_free);
	else if (strcmp(name, "password_in") == 0)
		g_clear_pointer(&options->password_in_file, g_free);
	else if (strcmp(name, "password_in_file") == 0)
		g_clear_pointer(&options->password_in, secret_free);
}

static void remember(struct options *options, const struct option_key *key)
{
	struct parsed_options *parsed = (struct parsed_options *)options;

	parsed->given[option_key_index(key)] = parsed->layer;
	give_instead(options, key->name);
}

bool options_give(
    struct options *options, const struct option_key *key, const char *value, GError **error)
{
	remember(options, key);
	return option_set_in_file(options, key, value, error);
}

static void apply_profile(struct parsed_options *parsed)
{
	for (size_t i = 0; parsed->aws && i < G_N_ELEMENTS(aws_presets); i++) {
		const struct option_key *key = option_key_find(aws_presets[i].key);
		if (!parsed->given[option_key_index(key)])
			G_STRUCT_MEMBER(unsigned, &parsed->options, key->offset) =
			    aws_presets[i].milliseconds;
	}
}

/* What other hosts write makes what is cached wrong, and nobody tells. */
static bool apply_shared(struct options *options, GError **error)
{
	unsigned char cache = *given(options, "cache");

	if (!options->shared) {
		if (!cache)
			options->cache = CACHE_WRITEBACK;
		return true;
	}
	if (cache >= *given(options, "shared") && options->cache != CACHE_NONE)
		return fail(error,
		    "options 'shared' and 'cache=%s' exclude each other: what other hosts write "
		    "would not be seen: leave one of them out",
		    cache_mode_name(options->cache));
	options->cache = CACHE_NONE;
	return true;
}

static bool apply_allow(struct options *options, GError **error)
{
	unsigned char other = *given(options, "allow_other"), root = *given(options, "allow_root");

	if (!options->allow_other || !options->allow_root)
		return true;
	if (other == root)
		return fail(error, "options 'allow_other' and 'allow_root' exclude each other: "
		                   "leave one of them out");
	options->allow_root = root > other;
	options->allow_other = other > root;
	return true;
}

bool options_finish(struct options *options, const char **key, GError **error)
{
	apply_profile((struct parsed_options *)options);
	*key = "noop_out_timeout";
	if (options->noop_out_interval != 0 && options->noop_out_timeout == 0)
		return fail(error, "option 'noop_out_timeout' must be above 0 unless "
		                   "'noop_out_interval' is 0, for no keepalive");
	*key = "allow_root";
	if (!apply_allow(options, error))
		return false;
	*key = "shared";
	return apply_shared(options, error);
}

/* ---- "-o" ---- */

static bool fail_unknown(const char *name, GError **error)
{
	struct nearest nearest = nearest_to(name);
	const struct option_key *key;

	for (size_t i = 0; (key = option_key_at(i)) != NULL; i++)
		nearest_offer(&nearest, key->name);
	if (!nearest.found)
		return fail(error, "unknown option '%s': 'lunfs --help' lists them", name);
	return fail(error, "unknown option '%s': did you mean '%s%s'?", name, nearest.found,
	    option_key_find(nearest.found)->takes == A_SECRET ? "_file" : "");
}

static bool fail_secret(const char *name, GError **error)
{
	bool mutual = strcmp(name, "password_in") == 0;

	return fail(error,
	    "option '%s' would show the secret to everybody: write it into a file and give -o "
	    "%s_file=FILE, "
	    "or set the environment variable %s",
	    name, name, mutual ? "LIBISCSI_CHAP_TARGET_PASSWORD" : "LIBISCSI_CHAP_PASSWORD");
}

/* One KEY or KEY=VALUE; item is cut apart. */
static bool parse_item(struct options *options, char *item, GError **error)
{
	if (g_str_has_prefix(item, "x-") || g_str_has_prefix(item, "X-"))
		return true;
	char *value = strchr(item, '=');
	if (value)
		*value++ = '\0';

	const struct option_key *key = option_key_find(item);
	if (!key)
		return fail_unknown(item, error);
	if (key->takes == A_SECRET)
		return fail_secret(key->name, error);
	if (key->takes == NO_VALUE && value)
		return fail(error, "option '%s' takes no value: write it without '='", key->name);
	if (key->takes == A_VALUE && (!value || !*value))
		return fail(
		    error, "option '%s' needs a value: write %s=VALUE", key->name, key->name);
	remember(options, key);
	if (key->set(options, key, value, error))
		return true;
	g_prefix_error(error, "option '%s': ", key->name);
	return false;
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
	const char *key;

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
	return options_finish(options, &key, error);
}

/* ---- paths ---- */

/* systemd puts a service's credentials into a directory of its own, and names them without one. */
static char *anchor(char *path, const char *directory)
{
	const char *credentials = g_getenv("CREDENTIALS_DIRECTORY");
	g_autofree char *home = NULL;
	g_autofree char *credential = NULL;
	char *anchored;

	if (!path || g_path_is_absolute(path))
		return path;
	if (credentials && g_path_is_absolute(credentials) && !strchr(path, '/'))
		credential = g_build_filename(credentials, path, NULL);
	if (g_str_has_prefix(path, "~/"))
		home = place_home();
	if (credential && access(credential, F_OK) == 0)
		anchored = g_steal_pointer(&credential);
	else
		anchored = home ? g_build_filename(home, path + 2, NULL)
		                : g_build_filename(directory, path, NULL);
	g_free(path);
	return anchored;
}

void options_anchor_paths(struct options *options, const char *directory)
{
	options->password_file = anchor(options->password_file, directory);
	options->password_in_file = anchor(options->password_in_file, directory);
}

/* ---- the struct ---- */

struct options *options_new(void)
{
	struct parsed_options *parsed = g_new0(struct parsed_options, 1);
	struct options *options = &parsed->options;
	parsed->layer = 1;
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

struct options *options_copy(const struct options *options)
{
	struct parsed_options *parsed =
	    g_memdup2((const struct parsed_options *)options, sizeof(struct parsed_options));
	struct options *copy = &parsed->options;
	char **const texts[] = {&copy->initiator_name, &copy->username, &copy->password_file,
	    &copy->username_in, &copy->password_in_file, &copy->password, &copy->password_in,
	    &copy->fuse_options};

	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
		*texts[i] = g_strdup(*texts[i]);
	options_next_layer(copy);
	return copy;
}

bool options_equal(const struct options *a, const struct options *b)
{
	return a->read_only == b->read_only && a->shared == b->shared && a->cache == b->cache &&
	       a->dirty_expire == b->dirty_expire && a->readahead == b->readahead &&
	       a->uid == b->uid && a->gid == b->gid && a->umask == b->umask &&
	       a->login_timeout == b->login_timeout && a->command_timeout == b->command_timeout &&
	       a->noop_out_interval == b->noop_out_interval &&
	       a->noop_out_timeout == b->noop_out_timeout &&
	       a->replacement_timeout == b->replacement_timeout &&
	       a->header_digest == b->header_digest &&
	       g_strcmp0(a->initiator_name, b->initiator_name) == 0;
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
	secret_free(options->password);
	secret_free(options->password_in);
	g_free(options->fuse_options);
	g_free((struct parsed_options *)options);
}
