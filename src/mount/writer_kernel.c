/*
 * writer_kernel.c - does the kernel's own initiator have a LUN?
 *
 * It owns no state: it walks SYSFS/class/iscsi_session/sessionN/device/targetH:C:T/H:C:T:L, where
 * block/sdX is what the kernel made of the LUN. Files there answer from memory.
 */
#include "writer.h"

#include <glib.h>
#include <string.h>

/* What stands in a file of sysfs, blanks at the ends off; NULL: nothing does. */
G_GNUC_PRINTF(1, 2) static char *attribute(const char *format, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, format);
	g_autofree char *path = g_strdup_vprintf(format, args);
	va_end(args);
	return g_file_get_contents(path, &text, NULL, NULL) ? g_strstrip(text) : NULL;
}

/* Names in a directory that start so; NULL-terminated, maybe empty. */
static char **entries(const char *directory, const char *prefix)
{
	GDir *dir = g_dir_open(directory, 0, NULL);
	GPtrArray *names = g_ptr_array_new();

	for (const char *name; dir && (name = g_dir_read_name(dir));)
		if (g_str_has_prefix(name, prefix))
			g_ptr_array_add(names, g_strdup(name));
	if (dir)
		g_dir_close(dir);
	g_ptr_array_add(names, NULL);
	return (char **)g_ptr_array_free(names, FALSE);
}

/* The kernel's wwid as ours has it: of a T10 designator each run of blanks is one '_'. */
static bool wwid_equal(const struct lun_info *info, const char *kernel)
{
	g_auto(GStrv) words = g_strsplit_set(kernel, " ", -1);
	g_autoptr(GString) text = g_string_new(NULL);

	for (char **word = words; *word; word++)
		if (**word)
			g_string_append_printf(text, "%s%s", text->len > 0 ? "_" : "", *word);
	return strcmp(text->str, info->wwid) == 0;
}

/* Is H:C:T:L, one of the session's, this LUN? */
static bool device_is(
    const char *path, const char *hctl, const struct lun_info *info, bool same_target)
{
	const char *colon = strrchr(hctl, ':');
	guint64 number;

	if (same_target && colon &&
	    g_ascii_string_to_unsigned(colon + 1, 10, 0, UINT16_MAX, &number, NULL)) {
		/* of the flat addressing method the kernel keeps the bits in the number */
		if (number >> 14 == 1)
			number &= 0x3fff;
		if (number == info->lun)
			return true;
	}
	if (lun_identity_is_weak(info))
		return false;
	g_autofree char *wwid = attribute("%s/wwid", path);
	return wwid && wwid_equal(info, wwid);
}

/* Its block device that may be written to, or NULL. */
static char *device_writable(const char *path)
{
	g_autofree char *block = g_build_filename(path, "block", NULL);
	g_auto(GStrv) names = entries(block, "");

	for (char **name = names; *name; name++) {
		g_autofree char *ro = attribute("%s/%s/ro", block, *name);

		if (!ro || strcmp(ro, "0") == 0)
			return g_build_filename("/dev", *name, NULL);
	}
	return NULL;
}

static char *session_device(const char *session, const struct lun_info *info, const char *target)
{
	g_autofree char *name = attribute("%s/targetname", session);
	bool same_target = name && g_ascii_strcasecmp(name, target) == 0;
	g_autofree char *device = g_build_filename(session, "device", NULL);
	g_auto(GStrv) targets = entries(device, "target");

	for (char **at = targets; *at; at++) {
		g_autofree char *parent = g_build_filename(device, *at, NULL);
		g_auto(GStrv) luns = entries(parent, "");

		for (char **hctl = luns; *hctl; hctl++) {
			g_autofree char *path = g_build_filename(parent, *hctl, NULL);

			if (!g_ascii_isdigit(**hctl) || !device_is(path, *hctl, info, same_target))
				continue;
			char *found = device_writable(path);
			if (found)
				return found;
		}
	}
	return NULL;
}

char *writer_kernel_device(const char *sysfs, const struct lun_info *info, const char *target)
{
	g_autofree char *class = g_build_filename(sysfs, "class", "iscsi_session", NULL);
	g_auto(GStrv) sessions = entries(class, "session");

	for (char **name = sessions; *name; name++) {
		g_autofree char *session = g_build_filename(class, *name, NULL);
		char *found = session_device(session, info, target);

		if (found)
			return found;
	}
	return NULL;
}
