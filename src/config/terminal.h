/*
 * terminal.h - a line from a person; private to src/config and its tests.
 */
#pragma once

#include <stdbool.h>

/* Is standard input a terminal? */
bool terminal_is_there(void);
/*
 * The line typed after the prompt, on /dev/tty or standard input; NULL: none, an empty one, or one
 * of more than 255 bytes. Without echo the terminal is as before afterwards, also where a signal
 * ends or stops us meanwhile. Wipe it and free it with g_free().
 */
char *terminal_ask(const char *prompt, bool echo);
