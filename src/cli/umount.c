/*
 * umount.c - lunfs umount [-f] MOUNTPOINT: returns when everything is stable at the target and the
 * process is gone.
 *
 * First the mount's process flushes, with progress; then the mount is taken out of the tree; then
 * the process logs out and ends, which closes the socket. A mount whose process died is only taken
 * out. By force all who wait for the target are told so at once, and nothing is waited for that
 * does not come by itself. Lazily it is only taken out: the process writes what is left behind our
 * back when the last file is closed.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/mount.h"

#define LAST_MOMENT_MS 5000
#define FORCED_S       10 /* longer than the process takes, if it is not stuck */

#define HINT_S 2

/* Begins the terminal's line anew: progress overwrites itself. */
#define ANEW "\r\033[K"

struct flush {
	char *error;
	bool terminal;
};

/* "flushing lun1.img and 2 others: 37.2 MiB to go" */
static void show_writing(GHashTable *answer)
{
	const char *file = g_hash_table_lookup(answer, "file");
	const char *others = g_hash_table_lookup(answer, "others");
	const char *bytes = g_hash_table_lookup(answer, "bytes");

	if (file == NULL || others == NULL || bytes == NULL)
		return;
	unsigned count = (unsigned)g_ascii_strtoull(others, NULL, 10);
	g_autofree char *size =
	    g_format_size_full(g_ascii_strtoull(bytes, NULL, 10), G_FORMAT_SIZE_IEC_UNITS);
	g_autofree char *more =
	    count > 0 ? g_strdup_printf(" and %u other%s", count, count == 1 ? "" : "s")
	              : g_strdup("");
	fprintf(stderr, ANEW "flushing %s%s: %s to go", file, more, size);
	(void)alarm(HINT_S); /* it gets on */
}

static void flush_line(GHashTable *answer, void *data)
{
	struct flush *flush = data;
	const char *event = g_hash_table_lookup(answer, "event");
	const char *error = g_hash_table_lookup(answer, "error");

	if (g_strcmp0(event, "writing") == 0) {
		if (flush->terminal)
			show_writing(answer);
	} else if (g_strcmp0(event, "progress") == 0) {
		if (flush->terminal)
			fprintf(stderr, ANEW "flushed %s, %s to go\n",
			    (const char *)g_hash_table_lookup(answer, "file"),
			    (const char *)g_hash_table_lookup(answer, "left"));
	} else if (error != NULL && error[0] != '\0' && flush->error == NULL) {
		flush->error = g_strdup(error);
	}
}

/* A target that is away makes it wait: somebody may want to know how to stop. */
static void hint(int signal_number)
{
	static const char text[] =
	    ANEW "waiting for the target ('lunfs umount -f' does not wait)\n";

	(void)signal_number;
	(void)!write(STDERR_FILENO, text, sizeof text - 1);
}

/* A handle on the process behind the socket; -1 where there is none, as in another namespace. */
static int process_of(int fd)
{
	struct ucred peer = {.pid = 0};
	socklen_t size = sizeof peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid <= 0)
		return -1;
	return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

/* The socket is closed when the mount's process is done, and it is gone a moment later. */
static void wait_for_end(int fd, int process, struct flush *flush)
{
	if (!cli_listen(fd, "end", flush_line, flush) && flush->error == NULL)
		flush->error = g_strdup("the mount's process ended without a word");
	if (process >= 0)
		(void)poll(&(struct pollfd){.fd = process, .events = POLLIN}, 1, LAST_MOMENT_MS);
}

static int tell_outcome(const struct mounted *mounted, struct flush *flush)
{
	if (flush->error == NULL)
		return 0;
	fprintf(stderr,
	    "lunfs: %s is unmounted, but what was written since the last sync may be lost: %s\n",
	    mounted->mountpoint, flush->error);
	g_free(flush->error);
	return LUNFS_ERROR_FAILED;
}

/* For a process that does not answer. Its end releases who waits, too. */
static char *kill_process(int process)
{
	if (process >= 0 && syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0) == 0)
		return g_strdup("its process did not answer, and was killed");
	return g_strdup("its process cannot be asked to flush");
}

static int unmount_by_force(const struct mounted *mounted)
{
	struct flush flush = {.terminal = false};
	int fd = control_connect(mounted);
	int process = fd >= 0 ? process_of(fd) : -1;
	const struct timeval patience = {.tv_sec = FORCED_S};
	GError *error = NULL;
	int status;

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if ((fd < 0 || !cli_ask(fd, "abort", "end", flush_line, &flush)) && flush.error == NULL)
		flush.error = kill_process(process);
	bool detached = mounted_detach(mounted, true, &error);
	if (process >= 0)
		(void)poll(&(struct pollfd){.fd = process, .events = POLLIN}, 1, LAST_MOMENT_MS);
	struct mounted *still = detached ? NULL : mounted_find(mounted->mountpoint);
	if (still != NULL) {
		mounted_free(still);
		g_free(flush.error);
		status = cli_fail(error);
	} else { /* the process may have been faster */
		g_clear_error(&error);
		status = tell_outcome(mounted, &flush);
	}
	close(fd);
	close(process);
	return status;
}

static int unmount(const struct mounted *mounted)
{
	struct flush flush = {.terminal = isatty(STDERR_FILENO) != 0};
	int fd = control_connect(mounted);
	int process = fd >= 0 ? process_of(fd) : -1;
	bool dead = fd < 0 && mounted_is_dead(mounted->mountpoint);
	GError *error = NULL;

	if (fd < 0 && !dead)
		flush.error = g_strdup("its process cannot be asked to flush");
	if (flush.terminal) {
		(void)signal(SIGALRM, hint);
		(void)alarm(HINT_S);
	}

	if (fd >= 0 && !cli_ask(fd, "flush", "done", flush_line, &flush) && flush.error == NULL)
		flush.error = g_strdup("the mount's process ended");
	if (flush.terminal) {
		(void)alarm(0);
		fputs(ANEW, stderr);
	}
	bool detached = mounted_detach(mounted, dead, &error);
	struct mounted *still = detached ? NULL : mounted_find(mounted->mountpoint);
	if (!detached && still == NULL) /* its process has ended by itself, and was faster */
		g_clear_error(&error);
	if (still != NULL) {
		mounted_free(still);
		g_free(flush.error);
		close(fd);
		close(process);
		return cli_fail(error);
	}
	if (fd >= 0) {
		wait_for_end(fd, process, &flush);
		close(fd);
		close(process);
	}
	return tell_outcome(mounted, &flush);
}

/* The process flushes when the kernel lets go of the mount, and nobody is told of it. */
static int unmount_lazily(const struct mounted *mounted)
{
	GError *error = NULL;

	return mounted_detach(mounted, true, &error) ? 0 : cli_fail(error);
}

int cli_unmount(const struct mounted *mounted, enum unmount_how how)
{
	switch (how) {
	case UNMOUNT_FORCED:
		return unmount_by_force(mounted);
	case UNMOUNT_LAZY:
		return unmount_lazily(mounted);
	case UNMOUNT_FLUSHED:
		break;
	}
	return unmount(mounted);
}

int cli_umount(int argc, char **argv)
{
	bool force = argc > 0 && strcmp(argv[0], "-f") == 0;
	const char *path = argv[force];

	if (argc != 1 + force || path[0] == '-')
		return cli_usage("usage: lunfs umount [-f] MOUNTPOINT");
	struct mounted *mounted = mounted_find(path);
	if (mounted == NULL)
		return cli_fail(g_error_new(
		    LUNFS_ERROR, LUNFS_ERROR_FAILED, "%s: no lunfs is mounted there", path));
	int status = cli_unmount(mounted, force ? UNMOUNT_FORCED : UNMOUNT_FLUSHED);
	mounted_free(mounted);
	return status;
}
