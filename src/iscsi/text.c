/*
 * text.c - binary values and numbers in the text of a login: see text.h.
 */
#include "text.h"

#include <stdint.h>
#include <string.h>

bool text_number(const char *text, guint64 max, guint64 *number)
{
	if (text == NULL)
		return false;
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		return g_ascii_string_to_unsigned(text + 2, 16, 0, max, number, NULL);
	return g_ascii_string_to_unsigned(text, 10, 0, max, number, NULL);
}

/* Digits without their 0x; a leading zero may be missing. */
static GByteArray *bytes_of_hex(const char *text)
{
	size_t digits = strlen(text), at = 0;
	g_autoptr(GByteArray) bytes = g_byte_array_new();

	while (at < digits) {
		unsigned high = 0, low;
		uint8_t byte;

		if (!g_ascii_isxdigit(text[at]))
			return NULL;
		if ((digits - at) % 2 == 0)
			high = (unsigned)g_ascii_xdigit_value(text[at++]);
		if (!g_ascii_isxdigit(text[at]))
			return NULL;
		low = (unsigned)g_ascii_xdigit_value(text[at++]);
		byte = (uint8_t)(high << 4 | low);
		g_byte_array_append(bytes, &byte, 1);
	}
	return g_steal_pointer(&bytes);
}

/* g_base64_decode() passes over what is no digit of base64: that is an error here. */
static GByteArray *bytes_of_base64(const char *text)
{
	size_t digits =
	    strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
	gsize length;
	guchar *bytes;

	if (strlen(text) % 4 != 0 || strspn(text + digits, "=") != strlen(text + digits) ||
	    strlen(text + digits) > 2)
		return NULL;
	bytes = g_base64_decode(text, &length);
	return g_byte_array_new_take(bytes, length);
}

char *text_binary(const char *text, size_t most)
{
	static const char digits[] = "0123456789abcdef";
	g_autoptr(GByteArray) bytes = NULL;
	GString *hex;

	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		bytes = bytes_of_hex(text + 2);
	else if (text[0] == '0' && (text[1] == 'b' || text[1] == 'B'))
		bytes = bytes_of_base64(text + 2);
	if (bytes == NULL || bytes->len == 0 || bytes->len > most)
		return NULL;
	hex = g_string_new("0x");
	for (guint i = 0; i < bytes->len; i++) {
		g_string_append_c(hex, digits[bytes->data[i] >> 4]);
		g_string_append_c(hex, digits[bytes->data[i] & 15]);
	}
	return g_string_free(hex, FALSE);
}
