/*
 * config_values.c - the values that only a [target] has, and a section's name: what may be written,
 * and what is written for the user.
 */
#include "config_file.h"
#include "common.h"

#include <string.h>

#define fail(error, ...) config_fail(error, LUNFS_ERROR_FAILED, __VA_ARGS__)

#define LUN_MOST        16383u
#define NAME_MOST_BYTES 128

/* ';' is GKeyFile's, ',' and blanks are what people write. */
static const char separators[] = ";, \t";

/* ---- portal= ---- */

static bool has_portal(const GPtrArray *portals, const struct source *source)
{
	for (unsigned i = 0; i < portals->len; i++) {
		const struct portal *portal = g_ptr_array_index(portals, i);

		if (portal->port == source->port && strcmp(portal->host, source->host) == 0)
			return true;
	}
	return false;
}

static bool add_portal(GPtrArray *portals, const char *word, GError **error)
{
	g_autofree char *shown = config_shown(word);
	struct source *source = NULL;
	bool added = false;

	/* 'lunfs discover' and iscsiadm print HOST:PORT,TPGT. */
	if (strspn(word, G_CSET_DIGITS) == strlen(word))
		return fail(error,
		    "'%s' is a number, no host: a portal is HOST[:PORT], without the group behind "
		    "a ','",
		    shown);
	if (strstr(word, "://") || strchr(word, '@'))
		return fail(error, "a portal is HOST[:PORT], not a URL, and a user is given with "
		                   "username=");
	source = source_parse_portal(word, error);
	if (source) {
		if (!has_portal(portals, source))
			portals_add(portals, source->host, source->port);
		added = true;
	}
	source_free(source);
	return added;
}

GPtrArray *config_parse_portals(const char *text, GError **error)
{
	g_autoptr(GPtrArray) portals = portals_new();
	g_auto(GStrv) words = g_strsplit_set(text, separators, -1);

	for (char **word = words; *word; word++) {
		if (**word && !add_portal(portals, *word, error))
			return NULL;
	}
	if (portals->len > 0)
		return g_steal_pointer(&portals);
	fail(error, "it names no portal: write HOST[:PORT]");
	return NULL;
}

/* ---- luns= ---- */

/* A number or FIRST-LAST. */
static bool mark_luns(bool *marked, const char *word, GError **error)
{
	const char *dash = strchr(word, '-');
	g_autofree char *start = dash ? g_strndup(word, (gsize)(dash - word)) : g_strdup(word);
	guint64 first, last;

	if (!g_ascii_string_to_unsigned(start, 10, 0, LUN_MOST, &first, NULL) ||
	    !g_ascii_string_to_unsigned(
	        dash ? dash + 1 : start, 10, first, LUN_MOST, &last, NULL)) {
		g_autofree char *shown = config_shown(word);
		return fail(error,
		    "'%s' is neither a number from 0 to %u nor a range like 0-3: write a list like "
		    "0-3;7",
		    shown, LUN_MOST);
	}
	for (guint64 lun = first; lun <= last; lun++)
		marked[lun] = true;
	return true;
}

GArray *config_parse_luns(const char *text, GError **error)
{
	bool marked[LUN_MOST + 1] = {false};
	g_auto(GStrv) words = g_strsplit_set(text, separators, -1);
	GArray *luns;

	for (char **word = words; *word; word++) {
		if (**word && !mark_luns(marked, *word, error))
			return NULL;
	}
	luns = g_array_new(FALSE, FALSE, sizeof(uint16_t));
	for (unsigned lun = 0; lun <= LUN_MOST; lun++) {
		uint16_t number = (uint16_t)lun;

		if (marked[lun])
			g_array_append_val(luns, number);
	}
	if (luns->len > 0)
		return luns;
	g_array_unref(luns);
	fail(error, "it names no LUN: write a list like 0-3;7, or leave it out for all");
	return NULL;
}

/* ---- names ---- */

static bool is_taken(const char *name)
{
	static const char *const words[] = {"all", "by-path", "by-id", "mount", "umount", "unmount",
	    "discover", "status", "top", "check", "reload", "rescan", "import", "help", "version"};

	for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
		if (strcmp(name, words[i]) == 0)
			return true;
	}
	return false;
}

static const char *name_fault(const char *name)
{
	size_t length = strlen(name);

	if (length == 0)
		return "it is empty";
	if (!g_utf8_validate(name, -1, NULL))
		return "it is not UTF-8";
	if (length > NAME_MOST_BYTES)
		return "it is longer than 128 bytes";
	if (*name == '.' || *name == '-')
		return "it begins with a '.' or a '-'";
	if (*name == ' ' || name[length - 1] == ' ')
		return "a blank begins or ends it";
	for (const char *c = name; *c; c = g_utf8_next_char(c)) {
		if (g_unichar_iscntrl(g_utf8_get_char(c)))
			return "it holds a control character";
		if (strchr("/:[]", *c))
			return "it holds one of / : [ ]";
	}
	return is_taken(name) ? "the word has a meaning for lunfs" : NULL;
}

char *config_name_fault(const char *name)
{
	const char *reason = name_fault(name);
	g_autofree char *shown = NULL;

	if (!reason)
		return NULL;
	shown = g_utf8_validate(name, -1, NULL) ? config_shown(name) : g_strdup("?");
	return g_strdup_printf(
	    "'%s' cannot be a target's name, which is its directory's, too: %s", shown, reason);
}

char *config_suggest_name(const char *iqn, GHashTable *taken)
{
	const char *colon = strrchr(iqn, ':');
	g_autofree char *valid = g_utf8_make_valid(iqn, -1);
	g_autofree char *name = g_strdup(colon ? colon + 1 : iqn);
	g_autofree char *base = NULL;

	if (!name_fault(name) && !g_hash_table_contains(taken, name)) {
		g_hash_table_add(taken, g_strdup(name));
		return g_steal_pointer(&name);
	}
	for (char *c = valid; *c; c++) {
		if (strchr("/:[] ", *c) || g_ascii_iscntrl(*c))
			*c = '-';
	}
	/* Where it is cut, room stays for a number. */
	if (strlen(valid) > NAME_MOST_BYTES - 8) {
		valid[NAME_MOST_BYTES - 8] = '\0';
		base = g_utf8_make_valid(valid, -1);
	}
	const char *start = base ? base : valid;
	start += strspn(start, ".-");
	g_free(name);
	name = g_strdup(start);
	for (unsigned i = 2; name_fault(name) || g_hash_table_contains(taken, name); i++) {
		g_free(name);
		name = g_strdup_printf("%s-%u", *start ? start : "target", i);
	}
	g_hash_table_add(taken, g_strdup(name));
	return g_steal_pointer(&name);
}

/* ---- a section as text ---- */

/* What a target reported may be anything, and must not begin a line of its own. */
static void append_line(GString *text, const char *before, const char *between, const char *value)
{
	g_autofree char *plain = g_utf8_make_valid(value, -1);

	for (char *c = plain; *c; c++) {
		if (g_ascii_iscntrl(*c))
			*c = '?';
	}
	g_string_append_printf(text, "%s%s%s\n", before, between, plain);
}

char *config_format_section(
    const char *name, const GPtrArray *portals, const char *iqn, const char *const *extra)
{
	g_autoptr(GString) text = g_string_new(NULL);
	g_autoptr(GString) list = g_string_new(NULL);

	for (const char *const *pair = extra; pair && pair[0]; pair += 2) {
		if (strcmp(pair[0], "#") == 0)
			append_line(text, "#", " ", pair[1]);
	}
	g_string_append_printf(text, "[target %s]\n", name);
	for (unsigned i = 0; i < portals->len; i++) {
		const struct portal *portal = g_ptr_array_index(portals, i);
		g_autofree char *word = portal_format(portal->host, portal->port);

		g_string_append_printf(list, "%s%s", i > 0 ? ", " : "", word);
	}
	append_line(text, "portal", "=", list->str);
	append_line(text, "iqn", "=", iqn);
	for (const char *const *pair = extra; pair && pair[0]; pair += 2) {
		if (strcmp(pair[0], "#") != 0)
			append_line(text, pair[0], "=", pair[1]);
	}
	return g_strdup(text->str);
}
