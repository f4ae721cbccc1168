/*
 * helper.c - mount.fuse.lunfs and umount.fuse.lunfs: what mount(8) and umount(8) run for a file
 * system of our type.
 *
 *   mount.fuse.lunfs SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...]
 *   umount.fuse.lunfs DIRECTORY|SOURCE [-nlfvr] [-N NAMESPACE] [-t TYPE]
 *
 * They pass our exit status on as theirs, where 32 is a failure. That umount(8) finds us is up to
 * mounted_register(), too. mount's -f is to do nothing; what
 * else is said there has no meaning for us but -l, -f and -N, of umount. We never call them in
 * turn: mounted_detach() does without, and fusermount3 tells umount(8) to call no helper.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/mount.h"

#define HELPER_FAILED 32

struct call {
	const char *names[2]; /* those that are no options */
	int count;
	GString *options; /* of -o, all of them */
	const char *namespace;
	bool fake, force, lazy;
};

static bool is_called(const char *program, const char *name)
{
	g_autofree char *base = g_path_get_basename(program);
	g_autofree char *full = g_strconcat(name, ".fuse.lunfs", NULL);
	g_autofree char *brief = g_strconcat(name, ".lunfs", NULL);

	return strcmp(base, full) == 0 || strcmp(base, brief) == 0;
}

bool cli_is_helper(const char *program)
{
	return is_called(program, "mount") || is_called(program, "umount");
}

/* Options stand behind the names there, but people put them where they like: getopt() sorts. */
static bool call_parse(struct call *call, int argc, char **argv, const char *known)
{
	int option;

	opterr = 0;
	while ((option = getopt(argc, argv, known)) != -1) {
		switch (option) {
		case '?':
			return false;
		case 'f':
			call->fake = call->force = true;
			break;
		case 'l':
			call->lazy = true;
			break;
		case 'N':
			call->namespace = optarg;
			break;
		case 'o':
			g_string_append_printf(
			    call->options, "%s%s", call->options->len > 0 ? "," : "", optarg);
			break;
		default:
			break;
		}
	}
	for (; optind < argc; optind++) {
		if (call->count == G_N_ELEMENTS(call->names))
			return false;
		call->names[call->count++] = argv[optind];
	}
	return true;
}

/* "-N": the mount is, or is to be, where mount(8) itself is not. */
static bool enter_namespace(const char *path, GError **error)
{
	if (path == NULL)
		return true;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool entered = fd >= 0 && setns(fd, CLONE_NEWNS) == 0;

	if (!entered)
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "cannot enter the mount namespace %s: %s", path, g_strerror(errno));
	if (fd >= 0)
		close(fd);
	return entered;
}

/* ---- mount ---- */

/*
 * What can be changed later are the kernel's flags alone. mount(8) gives all that shall hold from
 * now on, with words among it that were for us at the start.
 */
static int remount(const char *directory, char *const *words)
{
	static const struct {
		const char *word;
		unsigned long flag;
		bool off;
	} flags[] = {
	    {"ro", MS_RDONLY, false},
	    {"rw", MS_RDONLY, true},
	    {"nosuid", MS_NOSUID, false},
	    {"suid", MS_NOSUID, true},
	    {"nodev", MS_NODEV, false},
	    {"dev", MS_NODEV, true},
	    {"noexec", MS_NOEXEC, false},
	    {"exec", MS_NOEXEC, true},
	    {"noatime", MS_NOATIME, false},
	    {"atime", MS_NOATIME, true},
	    {"nodiratime", MS_NODIRATIME, false},
	    {"diratime", MS_NODIRATIME, true},
	    {"relatime", MS_RELATIME, false},
	    {"norelatime", MS_RELATIME, true},
	    {"strictatime", MS_STRICTATIME, false},
	    {"sync", MS_SYNCHRONOUS, false},
	    {"async", MS_SYNCHRONOUS, true},
	    {"dirsync", MS_DIRSYNC, false},
	};
	unsigned long set = MS_REMOUNT;

	for (; *words != NULL; words++)
		for (size_t i = 0; i < G_N_ELEMENTS(flags); i++)
			if (strcmp(*words, flags[i].word) == 0)
				set = flags[i].off ? set & ~flags[i].flag : set | flags[i].flag;
	if (mount("none", directory, NULL, set, NULL) == 0)
		return 0;
	return cli_fail(g_error_new(LUNFS_ERROR, LUNFS_ERROR_FAILED, "cannot remount %s: %s",
	    directory, g_strerror(errno)));
}

static int help_mount(struct call *call)
{
	g_auto(GStrv) words = g_strsplit(call->options->str, ",", -1);
	char *arguments[] = {
	    (char *)call->names[0], (char *)call->names[1], (char *)"-o", call->options->str, NULL};

	if (call->count < 2)
		return cli_usage(
		    "usage: mount.fuse.lunfs SOURCE DIRECTORY [-sfnv] [-o OPTION,...]");
	if (call->fake)
		return 0;
	if (g_strv_contains((const char *const *)words, "remount"))
		return remount(call->names[1], words);
	return cli_mount(call->options->len > 0 ? 4 : 2, arguments);
}

/* ---- umount ---- */

/* By its directory or, where there is no such mount, by its SOURCE. */
static struct mounted *find_mount(const char *name, GError **error)
{
	struct mounted *mounted = mounted_find(name);
	g_autoptr(GPtrArray) list = mounted == NULL ? mounted_list() : NULL;

	for (guint i = 0; list != NULL && i < list->len; i++) {
		const struct mounted *other = g_ptr_array_index(list, i);

		if (strcmp(other->source, name) != 0)
			continue;
		if (mounted != NULL) {
			g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
			    "%s is mounted more than once: name the directory", name);
			mounted_free(mounted);
			return NULL;
		}
		mounted = mounted_find(other->mountpoint);
	}
	if (mounted == NULL)
		g_set_error(
		    error, LUNFS_ERROR, LUNFS_ERROR_FAILED, "%s: no lunfs is mounted there", name);
	return mounted;
}

static int help_umount(struct call *call)
{
	enum unmount_how how = call->force  ? UNMOUNT_FORCED
	                       : call->lazy ? UNMOUNT_LAZY
	                                    : UNMOUNT_FLUSHED;
	GError *error = NULL;

	if (call->count != 1)
		return cli_usage("usage: umount.fuse.lunfs DIRECTORY [-nlfvr]");
	struct mounted *mounted = find_mount(call->names[0], &error);
	if (mounted == NULL)
		return cli_fail(error);
	int status = cli_unmount(mounted, how);
	mounted_free(mounted);
	return status;
}

int cli_helper(int argc, char **argv)
{
	bool mounts = is_called(argv[0], "mount");
	g_autoptr(GString) options = g_string_new(NULL);
	struct call call = {.options = options};
	GError *error = NULL;
	int status;

	if (!call_parse(&call, argc, argv, mounts ? "sfnvN:t:o:" : "nlfvrN:t:"))
		return cli_usage(
		    "%s was not called as %s calls it", argv[0], mounts ? "mount(8)" : "umount(8)");
	if (!enter_namespace(call.namespace, &error))
		status = cli_fail(error);
	else
		status = mounts ? help_mount(&call) : help_umount(&call);
	return status == LUNFS_ERROR_FAILED ? HELPER_FAILED : status;
}
