/*
 * initiator_name.h - where an initiator's name is looked for and kept; private to src/config and
 * its tests.
 */
#pragma once

#include <glib.h>

struct initiator_name_places {
	const char *open_iscsi; /* a file with an InitiatorName= line */
	const char
	    *state_directory;   /* of the user; "lunfs" is made in it. NULL: the user has none */
	const char *machine_id; /* a file whose first line names this machine */
	const char *host;       /* its name, as it is */
};

/*
 * The name for these places. Two processes that ask at once get the same one. Fails where nothing
 * is kept yet and nothing can be kept. Free with g_free().
 */
char *initiator_name_find(const struct initiator_name_places *places, GError **error);

/* $XDG_STATE_HOME, else ~/.local/state of $HOME, else of the passwd entry, else NULL. Free with
 * g_free(). */
char *initiator_name_state_directory(void);
