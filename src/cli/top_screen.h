/*
 * top_screen.h - what 'lunfs top' shows: the mounts as lines of a terminal.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "top_model.h"

struct top_view {
	unsigned lines, columns; /* of the terminal */
	bool utf8;               /* it shows UTF-8; else ASCII alone is sent */
	bool by_activity;        /* LUNs in order of their I/O, whatever their target */
	unsigned scroll;         /* the first line of the list that is shown */
	const char *clock;       /* "14:05:31" */
};

/* Lines of the list that are shown at a time. */
unsigned top_page(const struct top_view *view);
/*
 * All bytes for the terminal: each line at its place, whole, so that nothing need be cleared.
 * mounts are struct top_mount. Where it was scrolled too far, scroll is corrected. Free with
 * g_free().
 */
char *top_screen(const GPtrArray *mounts, struct top_view *view);
