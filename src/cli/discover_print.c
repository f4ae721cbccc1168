/*
 * discover_print.c - what 'lunfs discover' found: as lines and a table, as JSON, as sections of a
 * configuration.
 *
 * What targets call themselves and their LUNs is shown as one line of text, whatever it is.
 */
#include <inttypes.h>
#include <string.h>

#include "discover.h"
#include "lunfs/import.h"
#include "lunfs/printable.h"

/* Has the LUN a size that means something? */
static bool has_size(const struct lun_info *info)
{
	return scsi_type_is_block(info->type) && info->fault[0] == '\0';
}

/* ---- the table ---- */

enum column { LUN, TYPE, SIZE, VENDOR, PRODUCT, SERIAL, PROTECTED, NOTE, COLUMNS };

static const char *const heads[COLUMNS + 1] = {
    "LUN", "TYPE", "SIZE", "VENDOR", "PRODUCT", "SERIAL", "PROTECTED", "NOTE"};

static char *cell(const char *text)
{
	return text[0] != '\0' ? printable(text) : g_strdup("-");
}

/* GLib puts a no-break space before the unit, which awk and cut do not take for one. */
static char *format_size(uint64_t bytes)
{
	g_autofree char *size = g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
	g_auto(GStrv) parts = g_strsplit(size, "\u00a0", -1);

	return g_strjoinv(" ", parts);
}

static char **table_row(const struct lun_info *info)
{
	char **row = g_new0(char *, COLUMNS + 1);
	bool sized = has_size(info);

	row[LUN] = g_strdup_printf("%u", (unsigned)info->lun);
	row[TYPE] = cell(scsi_type_name(info->type));
	row[SIZE] = sized ? format_size(info->blocks * info->block_size) : cell("");
	row[VENDOR] = cell(info->vendor);
	row[PRODUCT] = cell(info->product);
	row[SERIAL] = cell(info->serial);
	row[PROTECTED] = cell(!sized ? "" : info->write_protected ? "yes" : "no");
	row[NOTE] = sized                    ? g_strdup("")
	            : info->fault[0] != '\0' ? g_strdup_printf("fault: %s", info->fault)
	                                     : g_strdup("not shown yet");
	return row;
}

static void append_row(GString *text, char *const *row, const size_t *widths)
{
	GString *line = g_string_new(NULL);

	for (unsigned i = 0; i < COLUMNS; i++) {
		size_t padding = widths[i] - (size_t)g_utf8_strlen(row[i], -1);
		bool right = i == LUN || i == SIZE;

		g_string_append_printf(line, "  %*s%s%*s", right ? (int)padding : 0, "", row[i],
		    right ? 0 : (int)padding, "");
	}
	while (line->len > 0 && line->str[line->len - 1] == ' ')
		g_string_truncate(line, line->len - 1);
	g_string_append_printf(text, "%s\n", line->str);
	g_string_free(line, TRUE);
}

/* Of a target that told its LUNs; a line each, under a header. */
static void append_table(GString *text, const struct luns *luns)
{
	g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func((GDestroyNotify)g_strfreev);
	size_t widths[COLUMNS] = {0};
	unsigned count;
	const struct lun_info *infos = luns_list(luns, &count);

	if (count == 0)
		return;
	g_ptr_array_add(rows, g_strdupv((char **)heads));
	for (unsigned i = 0; i < count; i++)
		g_ptr_array_add(rows, table_row(&infos[i]));
	for (unsigned i = 0; i < rows->len; i++) {
		char *const *row = g_ptr_array_index(rows, i);

		for (unsigned k = 0; k < COLUMNS; k++)
			widths[k] = MAX(widths[k], (size_t)g_utf8_strlen(row[k], -1));
	}
	for (unsigned i = 0; i < rows->len; i++) {
		char **row = g_ptr_array_index(rows, i);
		bool notes = widths[NOTE] > strlen(heads[NOTE]);

		if (i == 0 && !notes)
			row[NOTE][0] = '\0';
		append_row(text, row, widths);
	}
}

char *discover_format_lines(const struct discover *discover)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < discover->found->len; i++) {
		const struct found *found = g_ptr_array_index(discover->found, i);
		g_autofree char *name = printable(found->name);

		for (unsigned k = 0; k < found->portals->len; k++) {
			const struct discovered_portal *portal =
			    g_ptr_array_index(found->portals, k);
			g_autofree char *address = portal_format(portal->host, portal->port);
			g_autofree char *shown = printable(address);

			g_string_append_printf(
			    text, "%s,%u %s\n", shown, (unsigned)portal->tpgt, name);
		}
		if (found->luns != NULL)
			append_table(text, found->luns);
	}
	return g_string_free(text, FALSE);
}

/* ---- JSON ---- */

/* A string or, for NULL, null. */
static void json_string(GString *json, const char *name, const char *value)
{
	if (value == NULL) {
		g_string_append_printf(json, "\"%s\": null", name);
		return;
	}
	g_autofree char *valid = g_utf8_make_valid(value, -1);

	g_string_append_printf(json, "\"%s\": \"", name);
	for (const char *c = valid; *c != '\0'; c++) {
		if (*c == '"' || *c == '\\')
			g_string_append_c(json, '\\');
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			g_string_append_printf(json, "\\u%04x", (unsigned)*c);
		else
			g_string_append_c(json, *c);
	}
	g_string_append_c(json, '"');
}

static void json_portal(GString *json, const char *host, uint16_t port)
{
	json_string(json, "address", host);
	g_string_append_printf(json, ", \"port\": %u", (unsigned)port);
}

static void json_lun(GString *json, const struct lun_info *info)
{
	static const char *const names[] = {
	    "type", "vendor", "product", "revision", "serial", "wwid", "fault"};
	const char *values[] = {scsi_type_name(info->type), info->vendor, info->product,
	    info->revision, info->serial, info->wwid, info->fault[0] != '\0' ? info->fault : NULL};

	g_string_append_printf(json, "{\"lun\": %u", (unsigned)info->lun);
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_string_append(json, ", ");
		json_string(json, names[i], values[i]);
	}
	if (has_size(info))
		g_string_append_printf(json,
		    ", \"size\": %" PRIu64 ", \"block_size\": %u, \"write_protected\": %s",
		    info->blocks * info->block_size, (unsigned)info->block_size,
		    info->write_protected ? "true" : "false");
	else
		g_string_append(
		    json, ", \"size\": null, \"block_size\": null, \"write_protected\": null");
	g_string_append_c(json, '}');
}

static void json_luns(GString *json, const struct found *found)
{
	unsigned count = 0;
	const struct lun_info *infos = found->luns != NULL ? luns_list(found->luns, &count) : NULL;

	g_string_append(json, ",\n     ");
	json_string(json, "error",
	    found->luns == NULL ? "it was not asked, as the others took too long"
	                        : luns_error(found->luns));
	g_string_append(json, ",\n     \"luns\": [");
	for (unsigned i = 0; i < count; i++) {
		g_string_append(json, i > 0 ? ",\n       " : "\n       ");
		json_lun(json, &infos[i]);
	}
	g_string_append_c(json, ']');
}

static void json_target(GString *json, const struct discover *discover, const struct found *found)
{
	g_string_append(json, "{");
	json_string(json, "name", found->name);
	g_string_append(json, ",\n     \"portals\": [");
	for (unsigned i = 0; i < found->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(found->portals, i);

		g_string_append(json, i > 0 ? ", {" : "{");
		json_portal(json, portal->host, portal->port);
		g_string_append_printf(json, ", \"tpgt\": %u}", (unsigned)portal->tpgt);
	}
	g_string_append_c(json, ']');
	if (discover->with_luns)
		json_luns(json, found);
	g_string_append_c(json, '}');
}

char *discover_format_json(const struct discover *discover)
{
	GString *json = g_string_new("{\"asked\": [");

	for (unsigned i = 0; i < discover->asked->len; i++) {
		const struct asked *asked = g_ptr_array_index(discover->asked, i);

		g_string_append(json, i > 0 ? ",\n    {" : "\n    {");
		json_portal(json, asked->source->host, asked->source->port);
		g_string_append(json, ", ");
		json_string(json, "error", asked->error);
		g_string_append_c(json, '}');
	}
	g_string_append(json, "],\n \"targets\": [");
	for (unsigned i = 0; i < discover->found->len; i++) {
		g_string_append(json, i > 0 ? ",\n    " : "\n    ");
		json_target(json, discover, g_ptr_array_index(discover->found, i));
	}
	g_string_append(json, "]}\n");
	return g_string_free(json, FALSE);
}

/* ---- configuration ---- */

static void add_key(GPtrArray *extra, const char *key, const char *value)
{
	if (value == NULL)
		return;
	g_ptr_array_add(extra, g_strdup(key));
	g_ptr_array_add(extra, g_strdup(value));
}

/* A relative one would be another file elsewhere. */
static void add_path(GPtrArray *extra, const char *key, const char *path)
{
	g_autofree char *absolute = path != NULL ? g_canonicalize_filename(path, NULL) : NULL;

	add_key(extra, key, absolute);
}

/*
 * What was given for the login: names and files of secrets. A secret from the environment is not
 * written down, and its user is only told of: without a secret the section would not do.
 */
static void add_credentials(
    const struct discover *discover, const struct found *found, GPtrArray *extra)
{
	const struct options *given = discover->given;
	const struct credentials *used = found->asked->plan->portal->credentials;
	const char *user = given->username != NULL ? given->username : found->asked->source->user;

	if (discover->secret_of_environment && given->password_file == NULL &&
	    used->username != NULL) {
		add_key(extra, "#",
		    "its CHAP secret came from the environment: add username= and password_file=");
		return;
	}
	add_key(extra, "username", user);
	add_path(extra, "password_file", given->password_file);
	if (discover->secret_in_of_environment && given->password_in_file == NULL &&
	    used->username_in != NULL) {
		add_key(extra, "#",
		    "the secret of mutual CHAP came from the environment: add username_in= and "
		    "password_in_file=");
		return;
	}
	add_key(extra, "username_in", given->username_in);
	add_path(extra, "password_in_file", given->password_in_file);
}

static void add_table(GPtrArray *extra, const struct luns *luns)
{
	GString *table = g_string_new(NULL);

	append_table(table, luns);
	g_auto(GStrv) lines = g_strsplit(table->str, "\n", -1);
	for (char **line = lines; *line != NULL && **line != '\0'; line++)
		add_key(extra, "#", *line);
	g_string_free(table, TRUE);
}

/* What may stand in a section of the portals; NULL where none may. */
static GPtrArray *portals_to_write(const struct found *found)
{
	g_autoptr(GPtrArray) all = found_portals(found);
	GPtrArray *portals = portals_new();

	for (unsigned i = 0; i < all->len; i++) {
		const struct portal *portal = g_ptr_array_index(all, i);

		if (import_portal_valid(portal->host, portal->port))
			portals_add(portals, portal->host, portal->port);
	}
	return portals;
}

static void append_section(
    GString *text, const struct discover *discover, const struct found *found, GHashTable *taken)
{
	g_autoptr(GPtrArray) extra = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) portals = portals_to_write(found);

	if (!initiator_name_valid(found->name) || portals->len == 0) {
		g_autofree char *shown = printable(found->name);

		g_string_append_printf(text,
		    "# '%s' is left out: %s cannot stand in a configuration\n", shown,
		    portals->len > 0 ? "such a name" : "its portals");
		return;
	}
	if (found->luns != NULL)
		add_table(extra, found->luns);
	add_credentials(discover, found, extra);
	add_key(extra, "initiator_name", discover->given->initiator_name);
	add_key(extra, "header_digest", discover->given->header_digest ? "crc32c" : NULL);
	g_ptr_array_add(extra, NULL);
	g_autofree char *name = config_suggest_name(found->name, taken);
	g_autofree char *section =
	    config_format_section(name, portals, found->name, (const char *const *)extra->pdata);
	g_string_append(text, section);
}

char *discover_format_config(const struct discover *discover)
{
	g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < discover->found->len; i++) {
		if (i > 0)
			g_string_append_c(text, '\n');
		append_section(text, discover, g_ptr_array_index(discover->found, i), taken);
	}
	return g_string_free(text, FALSE);
}
