/*
 * printable.h - what strangers wrote, for a terminal or a file.
 */
#pragma once

/*
 * text as one line of valid UTF-8: control characters, which could end the line or command a
 * terminal, become "\xNN". Free with g_free().
 */
char *printable(const char *text);
