/*
 * top.c - lunfs top [MOUNTPOINT]: what 'lunfs status' tells, live.
 *
 *   parent: gives the terminal back, whatever became of the child, and passes its exit status on
 *   child:  draws; ends when the parent does
 *
 * Both hear the keys' signals (^C, ^Z); what is sent to the parent alone it passes on. When the
 * child stops the parent does too, so that the shell sees its job stop.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/mount.h"
#include "top_draw.h"

/* ---- the mounts ---- */

static void feed_free(gpointer data)
{
	struct top_feed *feed = data;

	if (feed->fd >= 0)
		close(feed->fd);
	g_byte_array_unref(feed->answer);
	top_mount_free(feed->mount);
	g_free(feed);
}

/* False: its process does not answer. */
static bool add_feed(GPtrArray *feeds, const struct mounted *mounted)
{
	int fd = control_connect(mounted);

	if (fd < 0) {
		fprintf(stderr,
		    "lunfs: %s: its process does not answer: it died, or belongs to another user\n",
		    mounted->mountpoint);
		return false;
	}
	struct top_feed *feed = g_new0(struct top_feed, 1);
	feed->fd = fd;
	feed->mount = top_mount_new(mounted->mountpoint);
	feed->answer = g_byte_array_new();
	g_ptr_array_add(feeds, feed);
	return true;
}

/* Those that answer, of one mount or all; an exit status. */
static int find_feeds(GPtrArray *feeds, const char *mountpoint)
{
	if (mountpoint != NULL) {
		struct mounted *mounted = mounted_find(mountpoint);

		if (mounted == NULL)
			return cli_fail(g_error_new(LUNFS_ERROR, LUNFS_ERROR_FAILED,
			    "%s: no lunfs is mounted there", mountpoint));
		add_feed(feeds, mounted);
		mounted_free(mounted);
	} else {
		g_autoptr(GPtrArray) list = mounted_list();

		if (list->len == 0)
			return cli_fail(g_error_new_literal(
			    LUNFS_ERROR, LUNFS_ERROR_FAILED, "no lunfs is mounted"));
		for (unsigned i = 0; i < list->len; i++)
			add_feed(feeds, g_ptr_array_index(list, i));
	}
	return feeds->len > 0 ? 0 : LUNFS_ERROR_FAILED;
}

/* ---- the two processes ---- */

static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT};

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < G_N_ELEMENTS(passed_on); i++)
		sigaddset(&set, passed_on[i]);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN); /* of a terminal that is gone: write() tells */
}

static int child(struct terminal *terminal, GPtrArray *feeds, pid_t parent)
{
	/* Where the parent is gone nobody else would give the terminal back. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		return LUNFS_ERROR_FAILED;
	int status = top_draw(terminal, feeds);
	bool all_gone = true;

	for (unsigned i = 0; i < feeds->len; i++) {
		const struct top_feed *feed = g_ptr_array_index(feeds, i);

		all_gone &= feed->mount->gone;
	}
	for (unsigned i = 0; all_gone && i < feeds->len; i++) {
		const struct top_feed *feed = g_ptr_array_index(feeds, i);

		fprintf(stderr, "lunfs: %s: is not mounted any more\n", feed->mount->mountpoint);
	}
	return status;
}

/* The child stopped: so does the job. Where it could not put the terminal in order, it is done
 * here. */
static void stop_with(pid_t pid, struct terminal *terminal)
{
	terminal_leave(terminal);
	raise(SIGSTOP);
	kill(pid, SIGCONT);
}

/* True: the child is gone, *status is the exit status. */
static bool look_after(pid_t pid, struct terminal *terminal, int *status)
{
	int state;

	while (waitpid(pid, &state, WNOHANG | WUNTRACED) == pid) {
		if (WIFSTOPPED(state)) {
			stop_with(pid, terminal);
			continue;
		}
		*status = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
		return true;
	}
	return false;
}

/* Waits for the child, and passes on what it does not hear. */
static int watch_over(pid_t pid, struct terminal *terminal)
{
	siginfo_t signal;
	sigset_t set;
	int status = LUNFS_ERROR_FAILED;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (unsigned i = 0; i < G_N_ELEMENTS(passed_on); i++)
		sigaddset(&set, passed_on[i]);
	while (!look_after(pid, terminal, &status)) {
		if (sigwaitinfo(&set, &signal) < 0 || signal.si_signo == SIGCHLD)
			continue;
		/* What comes from the terminal went to both. */
		if (signal.si_code != SI_KERNEL)
			kill(pid, signal.si_signo);
	}
	terminal_leave(terminal);
	return status;
}

static int run(struct terminal *terminal, GPtrArray *feeds)
{
	pid_t parent = getpid(), pid;

	block_signals();
	pid = fork();
	if (pid < 0)
		return cli_fail(g_error_new(
		    LUNFS_ERROR, LUNFS_ERROR_FAILED, "cannot start: %s", g_strerror(errno)));
	if (pid == 0) {
		int status = child(terminal, feeds, parent);

		_exit(status);
	}
	/* Also from the background, where it was stopped. */
	signal(SIGTTOU, SIG_IGN);
	return watch_over(pid, terminal);
}

int cli_top(int argc, char **argv)
{
	g_autoptr(GPtrArray) feeds = g_ptr_array_new_with_free_func(feed_free);
	struct terminal *terminal;
	int status;

	if (argc > 1 || (argc == 1 && argv[0][0] == '-'))
		return cli_usage("usage: lunfs top [MOUNTPOINT]");
	terminal = terminal_new();
	if (terminal == NULL)
		return cli_fail(g_error_new_literal(LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "top needs a terminal; 'lunfs status' tells the same once"));
	/* In the background it waits for its turn, as others that want keys do. */
	if (tcgetpgrp(STDIN_FILENO) != getpgrp())
		raise(SIGTTIN);
	status = find_feeds(feeds, argc == 1 ? argv[0] : NULL);
	if (status == 0)
		status = run(terminal, feeds);
	terminal_free(terminal);
	return status;
}
