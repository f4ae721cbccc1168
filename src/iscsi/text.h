/*
 * text.h - binary values and numbers in the text of a login (RFC 7143, 6.1).
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* A number, in decimal or with 0x or 0X in hexadecimal; false for anything else, and beyond max. */
bool text_number(const char *text, guint64 max, guint64 *number);
/*
 * A binary value, "0x...", "0X...", "0b..." or "0B...", in the one form that libiscsi reads: "0x"
 * and two lower-case digits for each byte. NULL for anything else, and for none or more than most
 * bytes. Free with g_free().
 */
char *text_binary(const char *text, size_t most);
