/*
 * printable.c - what strangers wrote, for a terminal or a file.
 */
#include "lunfs/printable.h"

#include <glib.h>

#define LINE_SEPARATOR      0x2028
#define PARAGRAPH_SEPARATOR 0x2029

char *printable(const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	GString *line = g_string_new(NULL);

	for (const char *c = valid; *c != '\0'; c = g_utf8_next_char(c)) {
		gunichar character = g_utf8_get_char(c);

		if (g_unichar_iscntrl(character) || character == LINE_SEPARATOR ||
		    character == PARAGRAPH_SEPARATOR)
			g_string_append_printf(line, "\\x%02x", (unsigned)character);
		else
			g_string_append_unichar(line, character);
	}
	return g_string_free(line, FALSE);
}
