/*
 * umount.c - lunfs umount MOUNTPOINT: returns when everything is stable at the target and the
 * process is gone.
 *
 * First the mount's process flushes, with progress; then the mount is taken out of the tree; then
 * the process logs out and ends, which closes the socket. A mount whose process died is only taken
 * out.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/mount.h"

#define LAST_MOMENT_MS 5000

struct flush {
	char *error;
	bool terminal;
};

static void flush_line(GHashTable *answer, void *data)
{
	struct flush *flush = data;
	const char *event = g_hash_table_lookup(answer, "event");
	const char *error = g_hash_table_lookup(answer, "error");

	if (g_strcmp0(event, "progress") == 0 && flush->terminal)
		fprintf(stderr, "flushed %s, %s to go\n",
		    (const char *)g_hash_table_lookup(answer, "file"),
		    (const char *)g_hash_table_lookup(answer, "left"));
	if (g_strcmp0(event, "progress") != 0 && error != NULL && error[0] != '\0' &&
	    flush->error == NULL)
		flush->error = g_strdup(error);
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
	cli_listen(fd, "end", flush_line, flush);
	if (process >= 0)
		(void)poll(&(struct pollfd){.fd = process, .events = POLLIN}, 1, LAST_MOMENT_MS);
}

static int unmount(const struct mounted *mounted)
{
	struct flush flush = {.terminal = isatty(STDERR_FILENO) != 0};
	int fd = control_connect(mounted);
	int process = fd >= 0 ? process_of(fd) : -1;
	struct statfs statfs_buffer;
	bool dead = fd < 0 && statfs(mounted->mountpoint, &statfs_buffer) != 0 && errno == ENOTCONN;
	GError *error = NULL;

	if (fd < 0 && !dead)
		flush.error = g_strdup("its process cannot be asked to flush");

	if (fd >= 0 && !cli_ask(fd, "flush", flush_line, &flush) && flush.error == NULL)
		flush.error = g_strdup("the mount's process ended");
	if (!mounted_detach(mounted, dead, &error)) {
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
	if (flush.error == NULL)
		return 0;
	fprintf(stderr,
	    "lunfs: %s is unmounted, but what was written since the last sync may be lost: %s\n",
	    mounted->mountpoint, flush.error);
	g_free(flush.error);
	return LUNFS_ERROR_FAILED;
}

int cli_umount(int argc, char **argv)
{
	if (argc != 1 || argv[0][0] == '-')
		return cli_usage("usage: lunfs umount MOUNTPOINT");
	struct mounted *mounted = mounted_find(argv[0]);
	if (mounted == NULL)
		return cli_fail(g_error_new(
		    LUNFS_ERROR, LUNFS_ERROR_FAILED, "%s: no lunfs is mounted there", argv[0]));
	int status = unmount(mounted);
	mounted_free(mounted);
	return status;
}
