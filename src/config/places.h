/*
 * places.h - where a user's files are; private to src/config and its tests.
 */
#pragma once

#include <glib.h>

/* $HOME, else of the passwd entry: mount(8) and systemd leave HOME unset. NULL: there is none.
 * Free with g_free(). */
char *place_home(void);
/* $VARIABLE where it is absolute (as the XDG specification asks), else HOME/below, else NULL. Free
 * with g_free(). */
char *place_find(const char *variable, const char *below);
