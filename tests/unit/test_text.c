/*
 * test_text.c - numbers and binary values in the text of a login.
 */
#include "../../src/iscsi/text.h"

#include <criterion/criterion.h>
#include <string.h>

#include "support/data.h"

static void must_be_number(const char *text, guint64 max, guint64 expected)
{
	guint64 number = 0;

	cr_assert(text_number(text, max, &number), "%s", text);
	cr_assert_eq(number, expected, "%s is %" G_GUINT64_FORMAT, text, number);
}

Test(text, a_number_is_decimal_or_hexadecimal)
{
	must_be_number("0", 0, 0);
	must_be_number("262144", 0xffffff, 262144);
	must_be_number("007", 10, 7);
	must_be_number("0x1f", 100, 31);
	must_be_number("0X1F", 100, 31);
	must_be_number("0xffffff", 0xffffff, 0xffffff);
	must_be_number("18446744073709551615", G_MAXUINT64, G_MAXUINT64);
	must_be_number("0xffffffffffffffff", G_MAXUINT64, G_MAXUINT64);
}

Test(text, a_number_is_nothing_else_and_not_above_its_limit)
{
	static const char *const none[] = {"", "0x", "0X", "x1", "1f", "0b1", "-1", "+1", "0x-1",
	    "0x+1", " 1", "1 ", "0x 1", "0x0x1", "1.0", "1,2", "1~2", "256", "0x100", "Reject",
	    "18446744073709551616", "0x10000000000000000", "\xff"};
	guint64 number;

	cr_assert_not(text_number(NULL, 255, &number));
	for (unsigned i = 0; i < G_N_ELEMENTS(none); i++)
		cr_assert_not(text_number(none[i], 255, &number), "%s", none[i]);
}

static void must_be_binary(const char *text, size_t most, const char *expected)
{
	g_autofree char *found = text_binary(text, most);

	cr_assert(g_strcmp0(found, expected) == 0, "%s is %s, not %s", text,
	    found ? found : "nothing", expected ? expected : "nothing");
}

Test(text, a_binary_value_in_every_form_becomes_one)
{
	must_be_binary("0x00", 1, "0x00");
	must_be_binary("0xAbCdEf0123456789", 64, "0xabcdef0123456789");
	must_be_binary("0XABCD", 64, "0xabcd");
	must_be_binary("0xabc", 64, "0x0abc");
	must_be_binary("0x1", 64, "0x01");
	must_be_binary("0bAA==", 1, "0x00");
	must_be_binary("0bq80=", 2, "0xabcd");
	must_be_binary("0Bq83v", 3, "0xabcdef");
	must_be_binary("0b+/+/", 3, "0xfbffbf");
}

Test(text, a_binary_value_is_nothing_else)
{
	static const char *const none[] = {"", "0", "0x", "0X", "0b", "0B", "x00", "1234", "0d12",
	    "0xgg", "0x0g", "0xg0", "0x12 ", "0x 12", "0x12\n", "0xab\xff",
	    "0b=", "0b==", "0b====", "0bA===", "0bAAA", "0bAA=A", "0bAA==AAAA", "0bA A=", "0bAA-_",
	    "0bAAA!", "0bAAAA=", "0bAAAA\n"};

	for (unsigned i = 0; i < G_N_ELEMENTS(none); i++)
		must_be_binary(none[i], 64, NULL);
}

Test(text, a_binary_value_has_at_most_so_many_bytes)
{
	must_be_binary("0x010203", 3, "0x010203");
	must_be_binary("0x010203", 2, NULL);
	must_be_binary("0bAQID", 3, "0x010203");
	must_be_binary("0bAQID", 2, NULL);
}

Test(text, what_was_encoded_is_decoded_at_any_length)
{
	struct dice dice = {3};
	guchar bytes[200];

	for (size_t length = 1; length <= sizeof bytes; length++) {
		g_autoptr(GString) hex = g_string_new("0x");
		g_autofree char *encoded = NULL;

		dice_fill(&dice, bytes, length);
		for (size_t i = 0; i < length; i++)
			g_string_append_printf(hex, "%02x", bytes[i]);
		encoded = g_base64_encode(bytes, length);
		g_autofree char *base64 = g_strdup_printf("0b%s", encoded);
		must_be_binary(base64, length, hex->str);
		must_be_binary(hex->str, length, hex->str);
	}
}

Test(text, any_text_does_no_harm)
{
	static const char likely[] = "0xXbB=+/AFgz9 -";
	struct dice dice = {5};
	char text[64];

	for (unsigned round = 0; round < 20000; round++) {
		size_t length = dice_between(&dice, 0, sizeof text - 1);
		guint64 number;

		dice_fill(&dice, text, length);
		for (size_t i = 0; i < length; i++)
			if (round % 3 != 0 || i < 2)
				text[i] = likely[(unsigned char)text[i] % (sizeof likely - 1)];
		text[length] = '\0';
		g_autofree char *found = text_binary(text, 16);
		cr_assert(found == NULL || (strlen(found) >= 4 && strlen(found) <= 34));
		if (text_number(text, 1000, &number))
			cr_assert_leq(number, 1000);
	}
}
