/*
 * top_draw.h - 'lunfs top' at work: asks, draws, and listens to keys and signals.
 */
#pragma once

#include <glib.h>

#include "top_model.h"
#include "top_terminal.h"

/* A mount, and the way to its process. */
struct top_feed {
	struct top_mount *mount;
	int fd;
	GByteArray *answer; /* not a whole line yet */
	int64_t asked_us;   /* clock_us(); 0: nothing is to come */
};

/*
 * Runs until a key, a signal, or the end of all mounts (of struct top_feed), and returns the exit
 * status. The terminal is as it was before then. Signals that mean something are blocked already.
 */
int top_draw(struct terminal *terminal, GPtrArray *feeds);
