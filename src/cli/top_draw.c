/*
 * top_draw.c - 'lunfs top' at work: see top_draw.h.
 *
 * One poll: keys, signals (as a file descriptor), the mounts' sockets, and a second's end. Nothing
 * here waits for a mount: one that does not answer is shown so, and the others go on.
 */
#include "top_draw.h"

#include <errno.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../mount/control.h"
#include "lunfs/config.h"
#include "lunfs/loop.h"
#include "top_screen.h"

#define INTERVAL_US G_USEC_PER_SEC
#define SILENT_US   (3 * G_USEC_PER_SEC)
#define ANSWER_MAX  (16u << 20) /* a line */

struct top {
	struct terminal *terminal;
	GPtrArray *feeds;  /* of struct top_feed */
	GPtrArray *mounts; /* theirs */
	struct top_view view;
	int signals;
	struct pollfd *fds; /* keys, signals, feeds */
	int64_t due_us;     /* when they are asked next */
	bool changed;       /* the screen is to be drawn */
	bool over;
	int status;
};

static void top_end(struct top *top, int status)
{
	top->over = true;
	top->status = status;
}

/* ---- mounts ---- */

static void feed_gone(struct top_feed *feed)
{
	close(feed->fd);
	feed->fd = -1;
	feed->mount->gone = true;
	g_ptr_array_set_size(feed->mount->targets, 0);
}

static void feed_ask(struct top_feed *feed, int64_t now_us)
{
	static const char request[] = "{\"command\": \"rows\"}\n";
	ssize_t n;

	if (feed->fd < 0)
		return;
	feed->mount->silent = feed->asked_us != 0 && now_us - feed->asked_us >= SILENT_US;
	if (feed->asked_us != 0)
		return;
	n = send(feed->fd, request, strlen(request), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n == (ssize_t)strlen(request))
		feed->asked_us = now_us;
	else if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		feed_gone(feed);
}

/* True: that was the end of an answer. */
static bool feed_take_lines(struct top_feed *feed)
{
	GByteArray *answer = feed->answer;
	const char *start = (const char *)answer->data, *end;
	size_t left = answer->len;
	bool done = false;

	while (left > 0 && (end = memchr(start, '\n', left)) != NULL) {
		g_autofree char *line = g_strndup(start, (size_t)(end - start));
		g_autoptr(GHashTable) row = control_parse(line);

		if (row != NULL && top_mount_take(feed->mount, row, clock_us())) {
			feed->asked_us = 0;
			feed->mount->silent = false;
			done = true;
		}
		left -= (size_t)(end + 1 - start);
		start = end + 1;
	}
	if (answer->len > left)
		g_byte_array_remove_range(answer, 0, (guint)(answer->len - left));
	return done;
}

static void feed_read(struct top *top, struct top_feed *feed)
{
	guint8 bytes[65536];
	ssize_t n = recv(feed->fd, bytes, sizeof bytes, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		g_byte_array_append(feed->answer, bytes, (guint)n);
	if (n <= 0 || feed->answer->len > ANSWER_MAX) {
		feed_gone(feed);
		top->changed = true;
		return;
	}
	top->changed |= feed_take_lines(feed);
}

static void top_ask(struct top *top)
{
	int64_t now_us = clock_us();
	bool any = false;

	if (now_us < top->due_us)
		return;
	for (unsigned i = 0; i < top->feeds->len; i++) {
		struct top_feed *feed = g_ptr_array_index(top->feeds, i);

		feed_ask(feed, now_us);
		top->changed |= feed->mount->gone || feed->mount->silent;
		any |= feed->fd >= 0;
	}
	top->due_us = now_us + INTERVAL_US;
	if (!any)
		top_end(top, LUNFS_ERROR_FAILED);
}

/* ---- keys ---- */

static void top_scroll(struct top *top, int lines)
{
	if (lines < 0)
		top->view.scroll -= MIN(top->view.scroll, (unsigned)-lines);
	else
		top->view.scroll += (unsigned)lines; /* top_screen() knows the end */
	top->changed = true;
}

/* The bytes of a key, at most length; how many they are. */
static size_t top_key(struct top *top, const char *bytes, size_t length)
{
	static const struct {
		const char *bytes;
		int lines, pages;
	} moves[] = {{"\033[A", -1, 0}, {"\033OA", -1, 0}, {"k", -1, 0}, {"\033[B", 1, 0},
	    {"\033OB", 1, 0}, {"j", 1, 0}, {"\033[5~", 0, -1}, {"\033[6~", 0, 1}, {" ", 0, 1},
	    {"\033[H", -G_MAXINT16, 0}, {"\033[1~", -G_MAXINT16, 0}, {"g", -G_MAXINT16, 0},
	    {"\033[F", G_MAXINT16, 0}, {"\033[4~", G_MAXINT16, 0}, {"G", G_MAXINT16, 0}};

	for (unsigned i = 0; i < G_N_ELEMENTS(moves); i++) {
		size_t size = strlen(moves[i].bytes);

		if (size <= length && memcmp(bytes, moves[i].bytes, size) == 0) {
			top_scroll(
			    top, moves[i].lines + moves[i].pages * (int)top_page(&top->view));
			return size;
		}
	}
	if (bytes[0] == 'q' || bytes[0] == 'Q')
		top_end(top, 0);
	if (bytes[0] == 's') {
		top->view.by_activity = !top->view.by_activity;
		top->view.scroll = 0;
		top->changed = true;
	}
	return 1;
}

static void top_read_keys(struct top *top)
{
	char bytes[64];
	ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* the terminal is gone */
		top_end(top, LUNFS_ERROR_FAILED);
		return;
	}
	for (ssize_t at = 0; at < n && !top->over;)
		at += (ssize_t)top_key(top, bytes + at, (size_t)(n - at));
}

/* ---- signals ---- */

/* As the key or the signal would do without us, with the terminal as it was. */
static void top_stop(struct top *top)
{
	sigset_t stop;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTSTP);
	terminal_leave(top->terminal);
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &stop, NULL); /* here it stops */
	sigprocmask(SIG_BLOCK, &stop, NULL);
}

static void top_take_signal(struct top *top)
{
	struct signalfd_siginfo signal;

	if (read(top->signals, &signal, sizeof signal) != (ssize_t)sizeof signal)
		return;
	switch (signal.ssi_signo) {
	case SIGTSTP:
		top_stop(top);
		G_GNUC_FALLTHROUGH;
	case SIGCONT:
		terminal_enter(top->terminal);
		G_GNUC_FALLTHROUGH;
	case SIGWINCH:
		terminal_size(&top->view.lines, &top->view.columns);
		top->changed = true;
		break;
	case SIGINT:
		top_end(top, 0);
		break;
	default:
		top_end(top, 128 + (int)signal.ssi_signo);
		break;
	}
}

/* ---- the loop ---- */

static void top_show(struct top *top)
{
	char clock[16] = "";
	time_t now = time(NULL);
	struct tm local;

	if (!top->changed || top->over)
		return;
	if (localtime_r(&now, &local) != NULL)
		strftime(clock, sizeof clock, "%H:%M:%S", &local);
	top->view.clock = clock;
	g_autofree char *screen = top_screen(top->mounts, &top->view);
	if (!terminal_write(screen, strlen(screen)))
		top_end(top, LUNFS_ERROR_FAILED);
	top->changed = false;
}

static void top_wait(struct top *top)
{
	unsigned count = top->feeds->len + 2;
	struct pollfd *fds = top->fds;
	int64_t left_us = MAX(top->due_us - clock_us(), 0);

	fds[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = top->signals, .events = POLLIN};
	for (unsigned i = 2; i < count; i++)
		fds[i] = (struct pollfd){
		    .fd = ((struct top_feed *)g_ptr_array_index(top->feeds, i - 2))->fd,
		    .events = POLLIN}; /* one that is gone has -1, which poll() leaves out */
	if (poll(fds, count, (int)((left_us + 999) / 1000)) <= 0)
		return;
	if (fds[1].revents != 0)
		top_take_signal(top);
	if (fds[0].revents != 0 && !top->over)
		top_read_keys(top);
	for (unsigned i = 2; i < count; i++)
		if (fds[i].revents != 0)
			feed_read(top, g_ptr_array_index(top->feeds, i - 2));
}

int top_draw(struct terminal *terminal, GPtrArray *feeds)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};
	struct top top = {.terminal = terminal,
	    .feeds = feeds,
	    .mounts = g_ptr_array_new(),
	    .fds = g_new0(struct pollfd, feeds->len + 2),
	    .view = {.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0},
	    .changed = true};
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
		sigaddset(&set, signals[i]);
	top.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	for (unsigned i = 0; i < feeds->len; i++)
		g_ptr_array_add(
		    top.mounts, ((struct top_feed *)g_ptr_array_index(feeds, i))->mount);
	terminal_enter(terminal);
	terminal_size(&top.view.lines, &top.view.columns);
	for (top_ask(&top); !top.over; top_ask(&top)) {
		top_show(&top);
		top_wait(&top);
	}
	terminal_leave(terminal);
	close(top.signals);
	g_ptr_array_unref(top.mounts);
	g_free(top.fds);
	return top.status;
}
