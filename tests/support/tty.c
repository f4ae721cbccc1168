/*
 * tty.c - see tty.h.
 */
#include "support/tty.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

#define PATIENCE 15.0 /* seconds */

static void clear(struct tty *tty)
{
	const gunichar blank = ' ';

	g_array_set_size(tty->cells, 0);
	for (unsigned i = 0; i < tty->lines * tty->columns; i++)
		g_array_append_val(tty->cells, blank);
}

struct tty *tty_start(
    struct stage *stage, unsigned lines, unsigned columns, const char *format, ...)
{
	struct tty *tty = g_new0(struct tty, 1);
	struct winsize size = {.ws_row = (unsigned short)lines, .ws_col = (unsigned short)columns};
	int slave;
	va_list args;

	va_start(args, format);
	char *script = g_strdup_vprintf(format, args);
	va_end(args);
	*tty = (struct tty){.stage = stage,
	    .lines = lines,
	    .columns = columns,
	    .bytes = g_string_new(NULL),
	    .cells = g_array_new(FALSE, FALSE, sizeof(gunichar)),
	    .cursor = true,
	    .wraps = true};
	clear(tty);
	cr_assert_eq(openpty(&tty->fd, &slave, NULL, NULL, &size), 0, "%s", strerror(errno));
	cr_assert_eq(tcgetattr(tty->fd, &tty->before), 0);
	tty->shell = fork();
	if (tty->shell == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (chdir(stage->dir) != 0 || login_tty(slave) != 0)
			_exit(126);
		g_setenv("LC_ALL", "C.UTF-8", FALSE);
		execl("/bin/sh", "sh", "-c", script, NULL);
		_exit(127);
	}
	close(slave);
	g_free(script);
	return tty;
}

/* ---- a terminal ---- */

static void put(struct tty *tty, gunichar c)
{
	if (tty->column >= tty->columns)
		tty->column = tty->columns - 1; /* as with wrapping off; others do not matter */
	if (tty->line < tty->lines)
		g_array_index(tty->cells, gunichar, tty->line * tty->columns + tty->column) = c;
	tty->column++;
}

static void set_mode(struct tty *tty, const char *mode, bool on)
{
	if (strcmp(mode, "?1049") == 0) {
		cr_assert(
		    tty->alternate != on, "the alternate screen was %s before", on ? "on" : "off");
		tty->alternate = on;
		clear(tty);
		tty->line = tty->column = 0;
	} else if (strcmp(mode, "?25") == 0) {
		tty->cursor = on;
	} else if (strcmp(mode, "?7") == 0) {
		tty->wraps = on;
	} else {
		cr_assert(false, "an unknown mode: %s", mode);
	}
}

static void command(struct tty *tty, const char *parameters, char letter)
{
	unsigned line = 1, column = 1;

	switch (letter) {
	case 'h':
	case 'l':
		set_mode(tty, parameters, letter == 'h');
		break;
	case 'H':
		cr_assert(*parameters == '\0' || sscanf(parameters, "%u;%u", &line, &column) == 2);
		tty->line = line - 1;
		tty->column = column - 1;
		break;
	case 'J':
		cr_assert_str_eq(parameters, "2");
		clear(tty);
		break;
	case 'm':
		break;
	default:
		cr_assert(false, "an unknown command: ESC [ %s %c", parameters, letter);
	}
}

/* The bytes of one thing to do, or 0 where it is not whole yet. */
static size_t understand(struct tty *tty, const char *at, size_t left)
{
	gunichar c;
	size_t length;

	if (*at == '\033') {
		for (length = 2; length < left && !g_ascii_isalpha(at[length]); length++)
			;
		if (length >= left)
			return 0;
		g_autofree char *parameters = g_strndup(at + 2, length - 2);
		cr_assert_eq(at[1], '[');
		command(tty, parameters, at[length]);
		return length + 1;
	}
	if (*at == '\n' || *at == '\r') {
		tty->line += *at == '\n';
		tty->column = *at == '\r' ? 0 : tty->column;
		return 1;
	}
	c = g_utf8_get_char_validated(at, (gssize)left);
	if (c == (gunichar)-2)
		return 0;
	put(tty, c == (gunichar)-1 ? '?' : c);
	return c == (gunichar)-1 ? 1 : (size_t)(g_utf8_next_char(at) - at);
}

/* Takes what has come. */
static void pump(struct tty *tty)
{
	struct pollfd ready = {.fd = tty->fd, .events = POLLIN};
	char bytes[4096];
	ssize_t n;

	while (poll(&ready, 1, 0) > 0 && (n = read(tty->fd, bytes, sizeof bytes)) > 0)
		g_string_append_len(tty->bytes, bytes, n);
	while (tty->read < tty->bytes->len) {
		size_t used =
		    understand(tty, tty->bytes->str + tty->read, tty->bytes->len - tty->read);

		if (used == 0)
			break;
		tty->read += used;
	}
}

/* ---- what a test sees ---- */

void tty_type(struct tty *tty, const char *keys)
{
	cr_assert_eq(write(tty->fd, keys, strlen(keys)), (ssize_t)strlen(keys));
}

void tty_resize(struct tty *tty, unsigned lines, unsigned columns)
{
	struct winsize size = {.ws_row = (unsigned short)lines, .ws_col = (unsigned short)columns};

	pump(tty);
	tty->lines = lines;
	tty->columns = columns;
	clear(tty);
	cr_assert_eq(ioctl(tty->fd, TIOCSWINSZ, &size), 0);
}

char *tty_line(struct tty *tty, unsigned line)
{
	g_autoptr(GString) text_of = g_string_new(NULL);

	for (unsigned i = 0; i < tty->columns; i++)
		g_string_append_unichar(
		    text_of, g_array_index(tty->cells, gunichar, line * tty->columns + i));
	return text(tty->stage, "%s", g_strchomp(text_of->str));
}

char *tty_screen(struct tty *tty)
{
	g_autoptr(GString) screen = g_string_new(NULL);

	pump(tty);
	for (unsigned i = 0; i < tty->lines; i++)
		g_string_append_printf(screen, "%s\n", tty_line(tty, i));
	return text(tty->stage, "%s", screen->str);
}

static bool comes(struct tty *tty, const char *words, bool there)
{
	double end = seconds_now() + patience(PATIENCE);

	while ((strstr(tty_screen(tty), words) != NULL) != there) {
		if (seconds_now() > end)
			return false;
		g_usleep(20000);
	}
	return true;
}

void tty_must_show(struct tty *tty, const char *words)
{
	cr_assert(comes(tty, words, true), "no '%s' on the screen:\n%s", words, tty_screen(tty));
}

void tty_must_not_show(struct tty *tty, const char *words)
{
	cr_assert(comes(tty, words, false), "'%s' on the screen:\n%s", words, tty_screen(tty));
}

void tty_must_be_as_before(struct tty *tty)
{
	struct termios now;

	pump(tty);
	cr_assert(!tty->alternate && tty->cursor && tty->wraps,
	    "alternate screen %d, cursor %d, wrapping %d", tty->alternate, tty->cursor, tty->wraps);
	cr_assert_eq(tcgetattr(tty->fd, &now), 0);
	cr_assert_eq(now.c_lflag, tty->before.c_lflag);
	cr_assert_eq(now.c_iflag, tty->before.c_iflag);
	cr_assert_eq(now.c_oflag, tty->before.c_oflag);
	cr_assert_eq(memcmp(now.c_cc, tty->before.c_cc, sizeof now.c_cc), 0);
}

pid_t tty_child_of(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/children", (int)pid, (int)pid);
	g_autofree char *children = NULL;

	cr_assert(g_file_get_contents(path, &children, NULL, NULL));
	cr_assert_gt(strtol(children, NULL, 10), 0, "%d has no child", (int)pid);
	return (pid_t)strtol(children, NULL, 10);
}

void tty_end(struct tty *tty)
{
	kill(tty->shell, SIGKILL);
	waitpid(tty->shell, NULL, 0);
	close(tty->fd);
	g_string_free(tty->bytes, TRUE);
	g_array_unref(tty->cells);
	g_free(tty);
}
