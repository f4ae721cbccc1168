/*
 * tty.h - a program on a terminal of its own, and what it shows there.
 *
 * The terminal is a pseudo terminal whose session leader is a shell, so that it outlives the
 * program; what comes out is understood as a terminal would: places, the alternate screen, the
 * cursor. Anything else that is a command to the terminal fails the test.
 */
#pragma once

#include <glib.h>
#include <termios.h>

#include "support/stage.h"

struct tty {
	struct stage *stage;
	int fd;         /* the master */
	pid_t shell;    /* its first child is the program */
	GString *bytes; /* all that came */
	size_t read;    /* of that understood */
	unsigned lines, columns, line, column;
	GArray *cells; /* of gunichar, line by line */
	bool alternate, cursor, wraps;
	struct termios before;
};

/* Runs a shell script as root; job control with 'set -m'. */
struct tty *tty_start(struct stage *stage, unsigned lines, unsigned columns, const char *format,
    ...) G_GNUC_PRINTF(4, 5);
void tty_type(struct tty *tty, const char *keys);
void tty_resize(struct tty *tty, unsigned lines, unsigned columns);
/* A line of it, blanks at the end off; the stage owns it. */
char *tty_line(struct tty *tty, unsigned line);
/* All lines. */
char *tty_screen(struct tty *tty);
/* Waits until the words are on the screen; the test fails if they do not come. */
void tty_must_show(struct tty *tty, const char *words);
/* Waits until they are not. */
void tty_must_not_show(struct tty *tty, const char *words);
/* The first screen, a cursor, wrapped lines, and the terminal's settings as they were at first. */
void tty_must_be_as_before(struct tty *tty);
/* The child of a process; the test fails if there is none. */
pid_t tty_child_of(pid_t pid);
/* Kills the shell. */
void tty_end(struct tty *tty);
