/*
 * import_section.c - what open-iscsi's settings mean for lunfs: of a target's records, or of
 * iscsid.conf. What cannot be carried over becomes a comment.
 */
#include <string.h>

#include "import.h"
#include "lunfs/config.h"
#include "lunfs/printable.h"

#define DAY_SECONDS   86400
#define CHAP_TEXT_MAX 255

/* ---- single settings ---- */

static bool seconds_parse(const char *value, gint64 *seconds)
{
	return g_ascii_string_to_signed(value, 10, INT32_MIN, INT32_MAX, seconds, NULL);
}

static char *format_seconds(gint64 seconds, const char **note)
{
	if (seconds > DAY_SECONDS)
		*note = "24h is the longest that there is";
	return g_strdup_printf("%" G_GINT64_FORMAT "s", MIN(seconds, DAY_SECONDS));
}

static char *convert_time(const char *value, const char **note)
{
	gint64 seconds;

	if (seconds_parse(value, &seconds) && seconds > 0)
		return format_seconds(seconds, note);
	*note = "not a time above 0: left out";
	return NULL;
}

static char *convert_interval(const char *value, const char **note)
{
	gint64 seconds;

	if (seconds_parse(value, &seconds) && seconds >= 0)
		return format_seconds(seconds, note);
	*note = "not a time: left out";
	return NULL;
}

static char *convert_patience(const char *value, const char **note)
{
	gint64 seconds;

	if (!seconds_parse(value, &seconds)) {
		*note = "not a time: left out";
		return NULL;
	}
	if (seconds < 0)
		return g_strdup("infinity");
	if (seconds > DAY_SECONDS)
		*note = "24h is the longest that there is, or 'infinity'";
	return g_strdup_printf("%" G_GINT64_FORMAT "s", MIN(seconds, DAY_SECONDS));
}

static char *convert_digest(const char *value, const char **note)
{
	if (strcmp(value, "None") == 0 || strcmp(value, "None,CRC32C") == 0)
		return g_strdup("none");
	if (strcmp(value, "CRC32C") == 0)
		return g_strdup("crc32c");
	if (strcmp(value, "CRC32C,None") == 0) {
		*note = "a target without it refuses the login: then leave header_digest out";
		return g_strdup("crc32c");
	}
	*note = "not a digest: left out";
	return NULL;
}

static char *convert_name(const char *value, const char **note)
{
	if (initiator_name_valid(value))
		return g_strdup(value);
	*note = "not an iSCSI name: left out";
	return NULL;
}

const struct import_setting import_settings[IMPORT_SETTINGS] = {
    {IMPORT_REPLACEMENT_TIMEOUT, "replacement_timeout", "120s", convert_patience, true},
    {IMPORT_LOGIN_TIMEOUT, "login_timeout", "15s", convert_time, true},
    {IMPORT_NOOP_INTERVAL, "noop_out_interval", "5s", convert_interval, true},
    {IMPORT_NOOP_TIMEOUT, "noop_out_timeout", "5s", convert_time, true},
    {IMPORT_HEADER_DIGEST, "header_digest", "none", convert_digest, true},
    {IMPORT_INITIATOR_NAME, "initiator_name", "", convert_name, false},
};
void import_comment(GPtrArray *comments, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	g_autofree char *text = g_strdup_vprintf(format, arguments);
	va_end(arguments);
	g_ptr_array_add(comments, printable(text));
}

/* ---- from a file into a section ---- */

static void take_settings(struct import_section *section, const struct import_file *file)
{
	for (size_t i = 0; i < IMPORT_SETTINGS; i++) {
		const char *value = import_value(file, import_settings[i].from), *note = NULL;

		if (value == NULL)
			continue;
		section->values[i] = import_settings[i].convert(value, &note);
		if (note != NULL)
			import_comment(
			    section->comments, "%s = %s: %s", import_settings[i].from, value, note);
	}
}

/* Why it cannot stand in a configuration, or NULL. */
static const char *chap_text_fault(const char *text)
{
	size_t length = strlen(text);

	for (const char *c = text; *c != '\0'; c++)
		if (g_ascii_iscntrl(*c))
			return "it has a control character";
	if (!g_utf8_validate(text, -1, NULL))
		return "it is not UTF-8";
	if (g_ascii_isspace(text[0]) || g_ascii_isspace(text[length - 1]))
		return "it has a blank at an end";
	return length > CHAP_TEXT_MAX ? "it is longer than 255 bytes" : NULL;
}

/* One direction; false where there is none to be used. */
static bool take_chap_pair(struct import_section *section, const struct import_file *file,
    const char *user_key, const char *secret_key, const char **user, const char **secret)
{
	const char *name = import_value(file, user_key), *value = import_value(file, secret_key);
	const char *fault;

	if (name == NULL && value == NULL)
		return false;
	if (value == NULL) {
		import_comment(section->comments, "%s = %s: there is no %s: left out", user_key,
		    name, secret_key);
	} else if (name == NULL) {
		import_comment(
		    section->comments, "%s: there is no %s: left out", secret_key, user_key);
	} else if ((fault = chap_text_fault(name)) != NULL) {
		import_comment(section->comments, "%s: %s: left out", user_key, fault);
	} else if ((fault = chap_text_fault(value)) != NULL) {
		import_comment(section->comments,
		    "%s = %s: its secret cannot stand here: %s: put it into a file that is yours "
		    "alone and name that with password_file=",
		    user_key, name, fault);
	} else {
		*user = name;
		*secret = value;
		return true;
	}
	return false;
}

static void take_chap(struct import_section *section, const struct import_file *file)
{
	struct import_chap *chap = &section->chap;
	const char *method = import_value(file, IMPORT_AUTH_METHOD);
	bool out = take_chap_pair(
	    section, file, IMPORT_USERNAME, IMPORT_PASSWORD, &chap->username, &chap->password);
	bool in = take_chap_pair(section, file, IMPORT_USERNAME_IN, IMPORT_PASSWORD_IN,
	    &chap->username_in, &chap->password_in);

	if (in && !out) {
		import_comment(section->comments,
		    "%s = %s: mutual CHAP needs username and password, too: left out",
		    IMPORT_USERNAME_IN, chap->username_in);
		chap->username_in = chap->password_in = NULL;
	}
	if (in && out && strcmp(chap->password, chap->password_in) == 0)
		import_comment(section->comments,
		    "the secrets of both directions are equal, which lunfs refuses, as it proves "
		    "nothing: change one of them, here and at the target");
	if (out && g_strcmp0(method, "None") == 0)
		import_comment(section->comments,
		    "%s = None: open-iscsi uses the secret all the same", IMPORT_AUTH_METHOD);
	if (!out && g_strcmp0(method, "CHAP") == 0)
		import_comment(section->comments,
		    "%s = CHAP: there is no secret that could be used", IMPORT_AUTH_METHOD);
}

static void take_comments(struct import_section *section, const struct import_file *file)
{
	for (unsigned i = 0; i < file->keys->len; i++) {
		const char *key = g_ptr_array_index(file->keys, i);
		const char *value = import_value(file, key);
		const char *reason = value != NULL ? import_key_reason(key, value) : NULL;

		if (reason != NULL && import_key_is_secret(key))
			import_comment(section->comments, "%s: %s", key, reason);
		else if (reason != NULL)
			import_comment(section->comments, "%s = %s: %s", key, value, reason);
	}
	if (file->cut_off)
		import_comment(section->comments,
		    "%s ends without '# END RECORD': some of it may be lost", file->path);
}

static void take_startup(struct import_section *section, const struct import_file *file)
{
	const char *startup = import_value(file, IMPORT_STARTUP);

	if (g_strcmp0(startup, "manual") == 0)
		import_comment(section->comments,
		    "%s = manual: 'lunfs mount all' mounts it all the same", IMPORT_STARTUP);
	else if (startup != NULL)
		import_comment(section->comments,
		    "%s = %s: /etc/fstab or a systemd unit mounts it at boot, see lunfs(1)",
		    IMPORT_STARTUP, startup);
}

/* What another record of the same target says of what is carried over. */
static void compare_records(struct import_section *section, const struct import_record *other)
{
	static const char *const keys[] = {IMPORT_USERNAME, IMPORT_PASSWORD, IMPORT_USERNAME_IN,
	    IMPORT_PASSWORD_IN, IMPORT_STARTUP};
	const struct import_record *first = g_ptr_array_index(section->records, 0);
	g_autofree char *portal = portal_format(other->host, other->port);

	for (size_t i = 0; i < IMPORT_SETTINGS + G_N_ELEMENTS(keys); i++) {
		const char *key =
		    i < IMPORT_SETTINGS ? import_settings[i].from : keys[i - IMPORT_SETTINGS];
		const char *value = import_value(other->file, key);

		if (g_strcmp0(value, import_value(first->file, key)) == 0)
			continue;
		if (import_key_is_secret(key))
			import_comment(section->comments,
			    "%s has another %s: the first portal's counts", portal, key);
		else
			import_comment(section->comments,
			    "%s has %s = %s: the first portal's counts", portal, key,
			    value != NULL ? value : "<empty>");
	}
}

/* ---- sections ---- */

void import_section_free(gpointer data)
{
	struct import_section *section = data;

	if (section == NULL)
		return;
	g_free(section->iqn);
	g_free(section->name);
	g_ptr_array_unref(section->records);
	g_ptr_array_unref(section->portals);
	g_ptr_array_unref(section->comments);
	for (size_t i = 0; i < IMPORT_SETTINGS; i++)
		g_free(section->values[i]);
	g_free(section);
}

struct import_section *import_section_new(const char *iqn)
{
	struct import_section *section = g_new0(struct import_section, 1);

	section->iqn = g_strdup(iqn);
	section->records = g_ptr_array_new();
	section->portals = portals_new();
	section->comments = g_ptr_array_new_with_free_func(g_free);
	return section;
}

static void add_portal(GPtrArray *portals, const struct import_record *record)
{
	for (unsigned i = 0; i < portals->len; i++) {
		const struct portal *portal = g_ptr_array_index(portals, i);

		if (strcmp(portal->host, record->host) == 0 && portal->port == record->port)
			return;
	}
	portals_add(portals, record->host, record->port);
}

const char *import_section_value(const struct import_section *section, size_t setting)
{
	const char *value = section->values[setting];

	return value != NULL ? value : import_settings[setting].initial;
}

bool import_chap_equal(const struct import_chap *a, const struct import_chap *b)
{
	return g_strcmp0(a->username, b->username) == 0 &&
	       g_strcmp0(a->password, b->password) == 0 &&
	       g_strcmp0(a->username_in, b->username_in) == 0 &&
	       g_strcmp0(a->password_in, b->password_in) == 0;
}

void import_section_take(struct import_section *section, const struct import_file *file)
{
	take_settings(section, file);
	take_chap(section, file);
	take_comments(section, file);
}

void import_section_add(struct import_section *section, const struct import_record *record)
{
	g_ptr_array_add(section->records, (gpointer)record);
	if (section->records->len == 1) {
		take_startup(section, record->file);
		import_section_take(section, record->file);
	} else {
		compare_records(section, record);
	}
	add_portal(section->portals, record);
}
