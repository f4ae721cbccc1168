/*
 * import.c - open-iscsi's settings as a configuration of lunfs.
 *
 * The records of one target become one section, with its portals in their order; of settings that
 * differ between them the first record's count, as a session here uses one portal at a time. A
 * record holds all its settings, so iscsid.conf only tells what nodes that are made later get: that
 * is what [defaults] are for. Whatever cannot be said in a configuration is said in a comment.
 */
#include <string.h>
#include <sys/stat.h>

#include "import.h"
#include "lunfs/config.h"
#include "lunfs/import.h"
#include "lunfs/printable.h"

#define SECRET_LENGTH_WEAK 12
#define OWN_INITIATOR_NAME "/etc/iscsi/initiatorname.iscsi"

struct writer {
	const struct import_source *source;
	GPtrArray *sections;           /* of struct import_section */
	GPtrArray *left_out;           /* of char *: comments on records that became none */
	struct import_section *conf;   /* what iscsid.conf says, or NULL */
	struct import_chap chap;       /* of [defaults] */
	char *values[IMPORT_SETTINGS]; /* the same; NULL: built in */
	GString *text;
	bool has_secrets;
};

/* ---- records into sections ---- */

static struct import_section *find_section(const struct writer *writer, const char *iqn)
{
	for (unsigned i = 0; i < writer->sections->len; i++) {
		struct import_section *section = g_ptr_array_index(writer->sections, i);

		if (strcmp(section->iqn, iqn) == 0)
			return section;
	}
	return NULL;
}

bool import_portal_valid(const char *host, uint16_t port)
{
	g_autofree char *text = portal_format(host, port);
	struct source *source = source_parse_portal(text, NULL);
	bool valid = source != NULL && source->user == NULL && strcmp(source->host, host) == 0;

	source_free(source);
	return valid;
}

static void add_record(struct writer *writer, const struct import_record *record)
{
	struct import_section *section;

	if (record->iqn == NULL || !initiator_name_valid(record->iqn)) {
		import_comment(writer->left_out, "%s: '%s' is not an iSCSI name: left out",
		    record->file->path, record->iqn != NULL ? record->iqn : "");
		return;
	}
	if (record->host == NULL || !import_portal_valid(record->host, record->port)) {
		import_comment(writer->left_out, "%s: '%s' is not an address: left out",
		    record->file->path, record->host != NULL ? record->host : "");
		return;
	}
	section = find_section(writer, record->iqn);
	if (section == NULL) {
		section = import_section_new(record->iqn);
		g_ptr_array_add(writer->sections, section);
	}
	import_section_add(section, record);
}

static void name_sections(struct writer *writer)
{
	g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (unsigned i = 0; i < writer->sections->len; i++) {
		struct import_section *section = g_ptr_array_index(writer->sections, i);

		section->name = config_suggest_name(section->iqn, taken);
	}
}

/* ---- what goes to [defaults] ---- */

static const struct import_section *section_at(const struct writer *writer, unsigned i)
{
	return g_ptr_array_index(writer->sections, i);
}

/* What all sections have, where there is more than one; else what iscsid.conf has. */
static void find_default(struct writer *writer, size_t setting)
{
	bool common = writer->sections->len > 1;
	const char *value = writer->conf != NULL ? writer->conf->values[setting] : NULL;

	for (unsigned i = 1; i < writer->sections->len; i++)
		common &= strcmp(import_section_value(section_at(writer, 0), setting),
		              import_section_value(section_at(writer, i), setting)) == 0;
	if (common && value != NULL &&
	    strcmp(value, import_section_value(section_at(writer, 0), setting)) != 0)
		import_comment(writer->conf->comments,
		    "%s: nodes that open-iscsi makes from now on would have %s",
		    import_settings[setting].to, value);
	if (common)
		value = import_section_value(section_at(writer, 0), setting);
	if (import_settings[setting].moves &&
	    g_strcmp0(value, import_settings[setting].initial) != 0)
		writer->values[setting] = g_strdup(value);
}

static void find_default_chap(struct writer *writer)
{
	bool common = writer->sections->len > 1;
	const struct import_chap *conf = writer->conf != NULL ? &writer->conf->chap : NULL;

	for (unsigned i = 1; i < writer->sections->len; i++)
		common &=
		    import_chap_equal(&section_at(writer, 0)->chap, &section_at(writer, i)->chap);
	if (common)
		writer->chap = section_at(writer, 0)->chap;
	else if (conf != NULL && writer->sections->len == 0)
		writer->chap = *conf;
	if (conf != NULL && conf->username != NULL && !import_chap_equal(conf, &writer->chap))
		import_comment(writer->conf->comments,
		    "%s = %s: only nodes that open-iscsi makes from now on would have it and its "
		    "secret",
		    IMPORT_USERNAME, conf->username);
}

/* What lunfs finds by itself, as any user, need not be said. */
static void find_initiator_name(struct writer *writer, GPtrArray *comments)
{
	const char *name = writer->source->initiator_name;
	g_autofree char *text = NULL;
	struct stat st;

	if (name == NULL)
		return;
	if (!initiator_name_valid(name)) {
		import_comment(comments, "InitiatorName=%s: not an iSCSI name: left out", name);
		return;
	}
	g_autofree char *line = g_strdup_printf("InitiatorName=%s", name);
	if (stat(OWN_INITIATOR_NAME, &st) == 0 && (st.st_mode & S_IROTH) != 0 &&
	    g_file_get_contents(OWN_INITIATOR_NAME, &text, NULL, NULL)) {
		g_auto(GStrv) lines = g_strsplit_set(text, "\r\n", -1);

		if (g_strv_contains((const char *const *)lines, line))
			return;
	}
	import_comment(comments, "initiator_name: from %s, which %s",
	    writer->source->initiator_path,
	    strcmp(writer->source->initiator_path, OWN_INITIATOR_NAME) == 0
	        ? "ordinary users may not read"
	        : "lunfs does not look at by itself");
	g_free(writer->values[IMPORT_SETTING_NAME]);
	writer->values[IMPORT_SETTING_NAME] = g_strdup(name);
}

static bool has_comment(const struct import_section *section, const char *text)
{
	return g_ptr_array_find_with_equal_func(section->comments, text, g_str_equal, NULL);
}

static bool is_common(const struct writer *writer, const char *text)
{
	for (unsigned i = 0; i < writer->sections->len; i++)
		if (!has_comment(section_at(writer, i), text))
			return false;
	return writer->sections->len > 1;
}

/* ---- the text ---- */

static void write_comments(GString *text, const GPtrArray *comments)
{
	for (unsigned i = 0; i < comments->len; i++)
		g_string_append_printf(
		    text, "# %s\n", (const char *)g_ptr_array_index(comments, i));
}

static void add_extra(GPtrArray *extra, const char *key, const char *value)
{
	if (value == NULL)
		return;
	g_ptr_array_add(extra, (gpointer)key);
	g_ptr_array_add(extra, (gpointer)value);
}

static bool is_weak(const char *secret)
{
	return secret != NULL && strlen(secret) < SECRET_LENGTH_WEAK;
}

static void add_chap(struct writer *writer, GPtrArray *extra, const struct import_chap *chap)
{
	add_extra(extra, "username", chap->username);
	add_extra(extra, "password", chap->password);
	add_extra(extra, "username_in", chap->username_in);
	add_extra(extra, "password_in", chap->password_in);
	if (is_weak(chap->password) || is_weak(chap->password_in))
		add_extra(extra, "weak_secrets", "yes");
	writer->has_secrets |= chap->password != NULL;
}

static void write_defaults(struct writer *writer)
{
	g_autoptr(GPtrArray) extra = g_ptr_array_new();

	for (size_t i = 0; i < IMPORT_SETTINGS; i++)
		add_extra(extra, import_settings[i].to, writer->values[i]);
	add_chap(writer, extra, &writer->chap);
	if (extra->len == 0)
		return;
	g_string_append(writer->text, "[defaults]\n");
	for (unsigned i = 0; i < extra->len; i += 2)
		g_string_append_printf(writer->text, "%s=%s\n",
		    (const char *)g_ptr_array_index(extra, i),
		    (const char *)g_ptr_array_index(extra, i + 1));
}

static void write_section(struct writer *writer, const struct import_section *section)
{
	g_autoptr(GPtrArray) extra = g_ptr_array_new();

	for (unsigned i = 0; i < section->comments->len; i++) {
		const char *text = g_ptr_array_index(section->comments, i);

		if (!is_common(writer, text))
			add_extra(extra, "#", text);
	}
	for (size_t i = 0; i < IMPORT_SETTINGS; i++) {
		const char *value = import_section_value(section, i);
		const char *in_force =
		    writer->values[i] != NULL ? writer->values[i] : import_settings[i].initial;

		if (value[0] != '\0' && strcmp(value, in_force) != 0)
			add_extra(extra, import_settings[i].to, value);
	}
	if (!import_chap_equal(&section->chap, &writer->chap))
		add_chap(writer, extra, &section->chap);
	g_ptr_array_add(extra, NULL);
	g_autofree char *lines = config_format_section(
	    section->name, section->portals, section->iqn, (const char *const *)extra->pdata);
	g_string_append_printf(writer->text, "\n%s", lines);
	explicit_bzero(lines, strlen(lines));
}

/* Credentials of discoveries belong to no target: 'lunfs discover' takes them. */
static void comment_discovery(const struct import_file *conf, GPtrArray *comments)
{
	static const char *const users[] = {"username", "username_in"};
	static const char *const files[] = {"password_file", "password_in_file"};

	for (size_t i = 0; i < G_N_ELEMENTS(users); i++) {
		g_autofree char *key = g_strconcat("discovery.sendtargets.auth.", users[i], NULL);
		const char *user = import_value(conf, key);

		if (user != NULL)
			import_comment(comments,
			    "%s = %s: lunfs discover PORTAL -o %s=%s,%s=FILE, with the secret of "
			    "%s in FILE",
			    key, user, users[i], user, files[i], conf->path);
	}
}

static void write_head(struct writer *writer, const GPtrArray *comments)
{
	const struct import_source *source = writer->source;
	GString *text = writer->text;

	g_string_append(text, "# Made by 'lunfs import' from");
	if (source->conf != NULL) {
		g_autofree char *path = printable(source->conf->path);
		g_string_append_printf(text, " %s,", path);
	}
	if (source->initiator_path != NULL) {
		g_autofree char *path = printable(source->initiator_path);
		g_string_append_printf(text, " %s,", path);
	}
	g_string_append_printf(text, " %u records of nodes.\n", source->records->len);
	if (writer->has_secrets)
		g_string_append(text, "# There are secrets in it: lunfs refuses it unless it is "
		                      "yours alone (chmod 600).\n");
	write_comments(text, comments);
	for (unsigned i = 0; i < writer->sections->len && i < 1; i++) {
		const GPtrArray *of_first = section_at(writer, i)->comments;

		for (unsigned k = 0; k < of_first->len; k++) {
			const char *of_all = g_ptr_array_index(of_first, k);

			if (is_common(writer, of_all))
				g_string_append_printf(text, "# All targets: %s\n", of_all);
		}
	}
	write_comments(text, writer->left_out);
}

static void write_all(struct writer *writer)
{
	g_autoptr(GPtrArray) comments = g_ptr_array_new_with_free_func(g_free);
	GString *body = g_string_new(NULL), *head = g_string_new(NULL);

	for (size_t i = 0; i < IMPORT_SETTINGS; i++)
		find_default(writer, i);
	find_default_chap(writer);
	find_initiator_name(writer, comments);
	if (writer->conf != NULL)
		comment_discovery(writer->source->conf, comments);
	for (unsigned i = 0; writer->conf != NULL && i < writer->conf->comments->len; i++) {
		const char *text = g_ptr_array_index(writer->conf->comments, i);

		if (!is_common(writer, text))
			g_ptr_array_add(comments, g_strdup(text));
	}
	writer->text = body;
	write_defaults(writer);
	for (unsigned i = 0; i < writer->sections->len; i++)
		write_section(writer, section_at(writer, i));
	writer->text = head;
	write_head(writer, comments);
	if (body->len > 0 && body->str[0] != '\n')
		g_string_append_c(head, '\n');
	g_string_append_len(head, body->str, (gssize)body->len);
	explicit_bzero(body->str, body->len);
	g_string_free(body, TRUE);
}

struct import *import_open_iscsi(const char *path, GPtrArray *troubles, GError **error)
{
	struct import_source *source = import_read(path, troubles, error);

	if (source == NULL)
		return NULL;
	struct import *import = g_new0(struct import, 1);
	struct writer writer = {.source = source,
	    .sections = g_ptr_array_new_with_free_func(import_section_free),
	    .left_out = g_ptr_array_new_with_free_func(g_free)};
	if (source->conf != NULL) {
		writer.conf = import_section_new(source->conf->path);
		import_section_take(writer.conf, source->conf);
	}
	for (unsigned i = 0; i < source->records->len; i++)
		add_record(&writer, g_ptr_array_index(source->records, i));
	name_sections(&writer);
	write_all(&writer);
	import->text = g_string_free(writer.text, FALSE);
	import->has_secrets = writer.has_secrets;
	g_ptr_array_unref(writer.sections);
	g_ptr_array_unref(writer.left_out);
	import_section_free(writer.conf);
	for (size_t i = 0; i < IMPORT_SETTINGS; i++)
		g_free(writer.values[i]);
	import_source_free(source);
	return import;
}

void import_free(struct import *import)
{
	if (import == NULL)
		return;
	explicit_bzero(import->text, strlen(import->text));
	g_free(import->text);
	g_free(import);
}
