/*
 * terminal.c - a line from a person, without echo where it is a secret.
 *
 * A signal must not leave a terminal behind that shows nothing. So signals are held back while the
 * echo is off, and a signalfd tells that there is one: then the echo is turned on, the signal let
 * through, and where that did not end us (Ctrl-Z, fg) asked again.
 */
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#define LINE_MOST 255

enum heard { HEARD_LINE, HEARD_NOTHING, HEARD_STOP, HEARD_END };

static const int stops[] = {SIGTSTP};
static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGPIPE};

bool terminal_is_there(void)
{
	return isatty(STDIN_FILENO);
}

static void say(int fd, const char *text)
{
	(void)!write(fd, text, strlen(text));
}

/* Is one of these held back? */
static bool pending(const int *numbers, size_t count)
{
	sigset_t set;

	sigemptyset(&set);
	sigpending(&set);
	for (size_t i = 0; i < count; i++) {
		if (sigismember(&set, numbers[i]) == 1)
			return true;
	}
	return false;
}

/* A line, without its end. */
static enum heard listen_to(int fd, int signals, char *line, size_t *length)
{
	struct pollfd polled[] = {{.fd = fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};

	*length = 0;
	for (;;) {
		char c;
		ssize_t got;

		if (poll(polled, G_N_ELEMENTS(polled), -1) < 0 && errno != EINTR)
			return HEARD_NOTHING;
		if (pending(ends, G_N_ELEMENTS(ends)))
			return HEARD_END;
		if (pending(stops, G_N_ELEMENTS(stops)))
			return HEARD_STOP;
		if (!polled[0].revents)
			continue;
		got = read(fd, &c, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return HEARD_NOTHING;
		if (c == '\n')
			return *length > 0 && *length <= LINE_MOST ? HEARD_LINE : HEARD_NOTHING;
		if (*length <= LINE_MOST)
			line[(*length)++] = c;
	}
}

/* Once, with the echo off and on again. */
static enum heard ask_once(
    int fd, const char *prompt, bool echo, const sigset_t *held, char *line, size_t *length)
{
	struct termios before, silent;
	sigset_t mask;
	int signals = signalfd(-1, held, SFD_CLOEXEC | SFD_NONBLOCK);
	enum heard heard = HEARD_NOTHING;

	sigprocmask(SIG_BLOCK, held, &mask);
	if (signals >= 0 && tcgetattr(fd, &before) == 0) {
		silent = before;
		silent.c_lflag |= ICANON;
		if (!echo)
			silent.c_lflag &= (tcflag_t)~ECHO;
		tcsetattr(fd, TCSAFLUSH, &silent);
		say(fd, prompt);
		heard = listen_to(fd, signals, line, length);
		if (!echo || heard != HEARD_LINE)
			say(fd, "\n");
		tcsetattr(fd, TCSADRAIN, &before);
	}
	if (signals >= 0)
		close(signals);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	return heard;
}

char *terminal_ask(const char *prompt, bool echo)
{
	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	int fd = tty >= 0 ? tty : STDIN_FILENO;
	char line[LINE_MOST + 1], *answer = NULL;
	size_t length;
	enum heard heard;
	sigset_t held;

	sigemptyset(&held);
	for (size_t i = 0; i < G_N_ELEMENTS(stops); i++)
		sigaddset(&held, stops[i]);
	for (size_t i = 0; i < G_N_ELEMENTS(ends); i++)
		sigaddset(&held, ends[i]);
	do
		heard = ask_once(fd, prompt, echo, &held, line, &length);
	while (heard == HEARD_STOP);
	if (heard == HEARD_LINE && !memchr(line, '\0', length))
		answer = g_strndup(line, length);
	explicit_bzero(line, sizeof line);
	if (tty >= 0)
		close(tty);
	return answer;
}
