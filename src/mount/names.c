/*
 * names.c - file names from what targets say of themselves, as udev makes them.
 *
 * It owns no state. What it writes follows systemd's path_id and scsi_id, its rules for persistent
 * storage, and those of sg3-utils; where these let something through that a directory of ours
 * cannot hold (a '/' in a target's name, terminal controls in UTF-8) it is replaced as the rest is.
 */
#include "names.h"

#include <limits.h>
#include <string.h>

/* Of a hash at the end of a name that was cut: 64 bits. */
#define HASH_DIGITS 16
/* Of the one that tells equal names apart. */
#define APART_DIGITS 8

static bool is_plain(char c)
{
	return g_ascii_isalnum(c) || (c != '\0' && strchr("#+-.:=@_", c) != NULL);
}

/* Bytes of the printable character beyond ASCII that text begins with; 0: there is none. */
static size_t wide_length(const char *text)
{
	gunichar c = g_utf8_get_char_validated(text, -1);

	if ((signed char)*text >= 0 || c == (gunichar)-1 || c == (gunichar)-2 ||
	    !g_unichar_isprint(c))
		return 0;
	return (size_t)(g_utf8_next_char(text) - text);
}

/* ---- what every name must be ---- */

/* The length of name up to which it may be cut: characters and "\x2f" stay whole. */
static size_t whole_length(const char *name, size_t most)
{
	while (most > 0 && ((unsigned char)name[most] & 0xc0) == 0x80)
		most--;
	for (size_t back = 1; back < 4 && back <= most; back++)
		if (name[most - back] == '\\')
			return most - back;
	return most;
}

/* Takes name; what it returns can stand in a directory. */
static char *name_fit(char *name)
{
	size_t length = strlen(name);

	if (length == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		g_free(name);
		return g_strnfill(MAX(length, 1), '_');
	}
	if (length <= NAME_MAX)
		return name;

	g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, name, -1);
	size_t kept = whole_length(name, NAME_MAX - HASH_DIGITS - 1);
	char *cut = g_strdup_printf("%.*s~%.*s", (int)kept, name, HASH_DIGITS, hash);
	g_free(name);
	return cut;
}

char *names_apart(const char *name, const char *key)
{
	g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, key, -1);
	size_t kept = strlen(name);

	if (kept > NAME_MAX - APART_DIGITS - 1)
		kept = whole_length(name, NAME_MAX - APART_DIGITS - 1);
	return name_fit(g_strdup_printf("%.*s~%.*s", (int)kept, name, APART_DIGITS, hash));
}

/* ---- udev's two ways ---- */

/* As in links: '_' for what is not allowed, and for a run of blanks; none at the ends. */
static char *link_name(const char *text)
{
	g_autofree char *stripped = g_strstrip(g_strdup(text));
	GString *name = g_string_new(NULL);

	for (const char *p = stripped; *p;) {
		size_t length = is_plain(*p) ? 1 : wide_length(p);

		/* "\x2f", encoded by somebody else, is let through */
		if (p[0] == '\\' && p[1] == 'x')
			length = 2;
		if (length > 0) {
			g_string_append_len(name, p, (gssize)length);
			p += length;
		} else {
			size_t blanks = strspn(p, " \t\n\v\f\r");

			g_string_append_c(name, '_');
			p += MAX(blanks, 1);
		}
	}
	return name_fit(g_string_free(name, FALSE));
}

char *names_escape(const char *text)
{
	/* no text has a byte 0 */
	GString *name = g_string_new(*text ? NULL : "\\x00");

	for (const char *p = text; *p;) {
		size_t length = is_plain(*p) && !(p == text && *p == '.') ? 1 : wide_length(p);

		if (length > 0) {
			g_string_append_len(name, p, (gssize)length);
			p += length;
		} else {
			g_string_append_printf(name, "\\x%02x", (unsigned char)*p++);
		}
	}
	return name_fit(g_string_free(name, FALSE));
}

/* ---- by-path ---- */

char *names_by_path(const char *host, uint16_t port, const char *iqn, uint16_t lun)
{
	g_autofree char *address = g_strdup(host + (host[0] == '['));
	char number[32];

	if (host[0] == '[' && g_str_has_suffix(address, "]"))
		address[strlen(address) - 1] = '\0';
	/* the kernel's number of a LUN is its first two bytes in REPORT LUNS, addressing method and
	 * all */
	if (lun < 256)
		g_snprintf(number, sizeof number, "%u", lun);
	else
		g_snprintf(number, sizeof number, "0x%04x%012x", 0x4000u | lun, 0);

	g_autofree char *text =
	    g_strdup_printf("ip-%s:%u-iscsi-%s-lun-%s", address, port, iqn, number);
	return link_name(text);
}

/* ---- by-id ---- */

G_GNUC_PRINTF(2, 3) static void add(GPtrArray *names, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	g_autofree char *text = g_strdup_vprintf(format, args);
	va_end(args);
	g_autofree char *name = link_name(text);
	if (!g_ptr_array_find_with_equal_func(names, name, g_str_equal, NULL))
		g_ptr_array_add(names, g_steal_pointer(&name));
}

/* The text after the prefix, where it has that prefix. */
static const char *after(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0 ? text + strlen(prefix) : NULL;
}

char **names_by_id(const struct lun_info *info)
{
	GPtrArray *names = g_ptr_array_new();
	const char *naa = after(info->wwid, "naa."), *eui = after(info->wwid, "eui."),
	           *t10 = after(info->wwid, "t10.");

	if (naa) {
		add(names, "wwn-0x%s", naa);
		add(names, "scsi-3%s", naa);
	} else if (eui) {
		/* of these udev makes no wwn- */
		add(names, "scsi-2%s", eui);
	} else if (t10) {
		add(names, "scsi-1%s", t10);
	} else if (info->serial[0]) {
		/* scsi_id's last resort takes the fields of INQUIRY as wide as they are */
		add(names, "scsi-S%-8s%-16s%s", info->vendor, info->product, info->serial);
	}
	if (info->serial[0])
		add(names, "scsi-S%s_%s_%s", info->vendor, info->product, info->serial);
	g_ptr_array_add(names, NULL);
	return (char **)g_ptr_array_free(names, FALSE);
}
