/*
 * mounted.c - the lunfs mounts of this machine, as the kernel lists them, and how to detach one.
 *
 * Nothing here touches a mounted file system: its process may be dead or silent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lunfs/mount.h"

#define TYPE "fuse.lunfs"

#define HELPER "/sbin/umount." TYPE
#define UTAB   "/run/mount/utab"
/* What a line of utab is there for: an option that is nobody's. */
#define REGISTERED "x-lunfs"

void mounted_free(gpointer data)
{
	struct mounted *mounted = data;

	if (mounted == NULL)
		return;
	g_free(mounted->mountpoint);
	g_free(mounted->source);
	g_free(mounted);
}

/* A line of proc(5)'s mountinfo: "36 35 0:52 / /mnt rw - fuse.lunfs SOURCE rw,user_id=0,..." */
static struct mounted *mounted_parse(const char *line)
{
	const char *tail = strstr(line, " - ");
	g_auto(GStrv) before = g_strsplit(line, " ", 6);
	g_auto(GStrv) after = tail != NULL ? g_strsplit(tail + strlen(" - "), " ", 3) : NULL;
	const char *colon, *user;

	if (after == NULL || g_strv_length(after) != 3 || strcmp(after[0], TYPE) != 0 ||
	    g_strv_length(before) != 6)
		return NULL;
	struct mounted *mounted = g_new0(struct mounted, 1);
	colon = strchr(before[2], ':');
	user = strstr(after[2], "user_id=");
	mounted->device = colon != NULL ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
	mounted->uid = user != NULL ? (uid_t)strtoul(user + strlen("user_id="), NULL, 10) : 0;
	/* The kernel writes blanks and the like as octal escapes, as C does. */
	mounted->mountpoint = g_strcompress(before[4]);
	mounted->source = g_strcompress(after[1]);
	return mounted;
}

GPtrArray *mounted_list(void)
{
	GPtrArray *list = g_ptr_array_new_with_free_func(mounted_free);
	g_autofree char *text = NULL;

	if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
		return list;
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line != NULL; line++) {
		struct mounted *mounted = mounted_parse(*line);

		if (mounted != NULL)
			g_ptr_array_add(list, mounted);
	}
	return list;
}

/*
 * The parent's real path and the last component as it is: a dead mountpoint itself cannot be looked
 * at; only a link to one is followed.
 */
static char *mountpoint_path(const char *path)
{
	g_autofree char *absolute = g_canonicalize_filename(path, NULL);
	g_autofree char *link = g_file_read_link(absolute, NULL);
	g_autofree char *parent = g_path_get_dirname(absolute);
	g_autofree char *name = g_path_get_basename(absolute);
	char *real = realpath(link != NULL ? absolute : parent, NULL);
	char *result;

	if (real == NULL)
		return g_steal_pointer(&absolute);
	result = link != NULL ? g_strdup(real) : g_build_filename(real, name, NULL);
	free(real);
	return result;
}

struct mounted *mounted_find(const char *path)
{
	g_autoptr(GPtrArray) list = mounted_list();
	g_autofree char *wanted = mountpoint_path(path);

	/* The last one hides those before it. */
	for (unsigned i = list->len; i > 0; i--) {
		struct mounted *mounted = g_ptr_array_index(list, i - 1);

		if (strcmp(mounted->mountpoint, wanted) == 0) {
			g_ptr_array_steal_index(list, i - 1);
			return mounted;
		}
	}
	return NULL;
}

bool mounted_is_dead(const char *mountpoint)
{
	struct statfs buffer;

	/* The kernel answers stat() of a dead mount from its cache, but statfs() never. */
	return statfs(mountpoint, &buffer) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

/* ---- umount(8)'s own list ---- */

/* Nothing depends on it but a helper being called. */
static void run_quietly(const char *const *command, bool wait)
{
	const GSpawnFlags flags =
	    G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL;

	if (wait)
		(void)g_spawn_sync(
		    NULL, (char **)command, NULL, flags, NULL, NULL, NULL, NULL, NULL, NULL);
	else
		(void)g_spawn_async(NULL, (char **)command, NULL, flags, NULL, NULL, NULL, NULL);
}

void mounted_register(const char *source, const char *mountpoint, bool wait)
{
	/* Mounts nothing, calls nobody, and takes the path as it is. */
	const char *const command[] = {"mount", "-i", "-f", "-c", "-t", TYPE, "-o", REGISTERED,
	    "--", source, mountpoint, NULL};

	if (geteuid() == 0 && access(HELPER, X_OK) == 0)
		run_quietly(command, wait);
}

static void mounted_forget(const char *mountpoint)
{
	const char *const command[] = {"umount", "-i", "--fake", "-c", "--", mountpoint, NULL};
	g_autofree char *utab = NULL;

	if (g_file_get_contents(UTAB, &utab, NULL, NULL) && strstr(utab, REGISTERED) != NULL)
		run_quietly(command, true);
}

/* ---- out of the tree ---- */

static bool detach_by_helper(const char *mountpoint, bool lazy, GError **error)
{
	const char *const command[] = {"fusermount3", lazy ? "-uz" : "-u", "--", mountpoint, NULL};
	g_autofree char *output = NULL;
	g_autoptr(GError) cause = NULL;
	int status = 0;

	if (!g_spawn_sync(NULL, (char **)command, NULL,
	        G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &output,
	        &status, &cause)) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED, "cannot run fusermount3: %s",
		    cause->message);
		return false;
	}
	if (status == 0)
		return true;
	g_strdelimit(g_strchomp(output), "\n", ' ');
	g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED, "cannot unmount %s: %s", mountpoint,
	    strstr(output, "busy") != NULL ? "it is in use: close its files, or see 'fuser -vm'"
	                                   : output);
	return false;
}

bool mounted_detach(const struct mounted *mounted, bool lazy, GError **error)
{
	if (geteuid() != 0)
		return detach_by_helper(mounted->mountpoint, lazy, error);
	if (umount2(mounted->mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) {
		mounted_forget(mounted->mountpoint);
		return true;
	}
	g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED, "cannot unmount %s: %s",
	    mounted->mountpoint,
	    errno == EBUSY ? "it is in use: close its files, or see 'fuser -vm'"
	                   : g_strerror(errno));
	return false;
}
