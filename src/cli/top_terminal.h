/*
 * top_terminal.h - a terminal that is taken over for a while, and given back whatever happens.
 *
 * What is needed to give it back lives in memory that a process shares with its children: so a
 * parent can do it for a child that was killed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct terminal;

/* Of stdin and stdout; NULL with errno set where these are no terminal. */
struct terminal *terminal_new(void);
void terminal_free(struct terminal *terminal);
/* The alternate screen, no cursor, keys one by one without echo; signals of keys stay. Does nothing
 * where it is in force. */
void terminal_enter(struct terminal *terminal);
/* Everything as it was before. Does nothing where that is so. */
void terminal_leave(struct terminal *terminal);
/* Lines and columns; 24 and 80 where it does not tell. */
void terminal_size(unsigned *lines, unsigned *columns);
/* False: it is gone. */
bool terminal_write(const char *bytes, size_t length);
