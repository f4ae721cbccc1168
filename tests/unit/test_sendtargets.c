/*
 * test_sendtargets.c - the text of an answer to SendTargets.
 */
#include "../../src/iscsi/sendtargets.h"

#include <criterion/criterion.h>
#include <string.h>

#include "support/data.h"

#define READ(text) targets_of(text, sizeof(text) - 1)

static GPtrArray *targets_of(const char *text, size_t length)
{
	g_autoptr(GString) string = g_string_new_len(text, (gssize)length);

	return sendtargets_read(string);
}

static void must_be_target(
    const GPtrArray *targets, unsigned at, const char *name, const char *addresses)
{
	const struct discovered_target *target = g_ptr_array_index(targets, at);
	g_autoptr(GString) found = g_string_new(NULL);

	for (unsigned i = 0; i < target->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(target->portals, i);

		g_string_append_printf(found, "%s %u %u;", portal->host, (unsigned)portal->port,
		    (unsigned)portal->tpgt);
		cr_assert_not(portal->asked);
	}
	cr_assert_str_eq(target->name, name);
	cr_assert_str_eq(found->str, addresses);
}

Test(sendtargets, reads_targets_and_portals_in_their_order)
{
	g_autoptr(GPtrArray) targets = READ("TargetName=iqn.b\0"
	                                    "TargetAddress=10.0.0.2:3260,2\0"
	                                    "TargetAddress=[fe80::1]:3261,1\0"
	                                    "TargetName=iqn.a\0"
	                                    "TargetAddress=nas.example.org,65535\0"
	                                    "TargetAddress=10.0.0.2:860\0");

	cr_assert_eq(targets->len, 2);
	must_be_target(targets, 0, "iqn.b", "10.0.0.2 3260 2;fe80::1 3261 1;");
	must_be_target(targets, 1, "iqn.a", "nas.example.org 3260 65535;10.0.0.2 860 1;");
}

Test(sendtargets, no_text_names_no_targets)
{
	g_autoptr(GPtrArray) none = READ("");
	g_autoptr(GPtrArray) zeros = READ("\0\0\0\0");

	cr_assert_eq(none->len, 0);
	cr_assert_eq(zeros->len, 0);
}

Test(sendtargets, a_target_may_have_no_portal)
{
	g_autoptr(GPtrArray) targets = READ("TargetName=iqn.a\0TargetName=iqn.b\0");

	cr_assert_eq(targets->len, 2);
	must_be_target(targets, 0, "iqn.a", "");
	must_be_target(targets, 1, "iqn.b", "");
}

Test(sendtargets, passes_over_what_it_does_not_know_or_understand)
{
	g_autoptr(GPtrArray) targets = READ("X-Zone=1\0"
	                                    "TargetName=iqn.a\0"
	                                    "TargetAlias=the nas\0\0"
	                                    "TargetAddress=\0"
	                                    "TargetAddress=[::1\0"
	                                    "TargetAddress=10.0.0.1:99999,1\0"
	                                    "targetaddress=10.0.0.3\0"
	                                    "no pair\0=\0"
	                                    "TargetAddress=10.0.0.2,3\0");

	cr_assert_eq(targets->len, 1);
	must_be_target(targets, 0, "iqn.a", "10.0.0.2 3260 3;");
}

Test(sendtargets, the_last_pair_may_lack_its_NUL)
{
	g_autoptr(GPtrArray) targets = READ("TargetName=iqn.a\0TargetAddress=10.0.0.1,7");

	must_be_target(targets, 0, "iqn.a", "10.0.0.1 3260 7;");
}

Test(sendtargets, an_address_before_the_first_target_is_an_error)
{
	cr_assert_null(READ("TargetAddress=10.0.0.1,1\0TargetName=iqn.a\0"));
	cr_assert_null(READ("X-Zone=1\0TargetAddress=\0"));
}

Test(sendtargets, reads_thousands)
{
	g_autoptr(GString) text = g_string_new(NULL);

	for (unsigned i = 0; i < 5000; i++) {
		g_string_append_printf(text, "TargetName=iqn.%u%c", i, '\0');
		for (unsigned k = 1; k <= 4; k++)
			g_string_append_printf(text, "TargetAddress=10.0.%u.1:3260,%u%c", k, k, 0);
	}
	g_autoptr(GPtrArray) targets = sendtargets_read(text);
	cr_assert_eq(targets->len, 5000);
	must_be_target(targets, 4999, "iqn.4999",
	    "10.0.1.1 3260 1;10.0.2.1 3260 2;10.0.3.1 3260 3;10.0.4.1 3260 4;");
}

Test(sendtargets, a_portal_is_added_at_the_end)
{
	g_autoptr(GPtrArray) targets = READ("TargetName=iqn.a\0TargetAddress=10.0.0.1,1\0");
	char host[] = "10.0.0.2";

	discovered_target_add(
	    g_ptr_array_index(targets, 0), &(struct portal){.host = host, .port = 860}, 2);
	host[0] = 'x'; /* it is copied */
	must_be_target(targets, 0, "iqn.a", "10.0.0.1 3260 1;10.0.0.2 860 2;");
}

Test(sendtargets, any_bytes_do_no_harm)
{
	static const char *const parts[] = {"TargetName=", "TargetAddress=", "10.0.0.1", "[::1]",
	    ":3260", ",1", "iqn.a", "\xff", "=", "Target"};
	struct dice dice = {23};

	for (unsigned round = 0; round < 3000; round++) {
		g_autoptr(GString) text = g_string_new(round % 2 ? "TargetName=a" : NULL);

		for (uint64_t i = dice_between(&dice, 0, 20); i > 0; i--) {
			if (dice_roll(&dice) % 3 == 0)
				g_string_append_c(text, (char)(dice_roll(&dice) % 5));
			g_string_append(text, parts[dice_roll(&dice) % G_N_ELEMENTS(parts)]);
		}
		g_autoptr(GPtrArray) targets = sendtargets_read(text);
		for (unsigned i = 0; targets != NULL && i < targets->len; i++) {
			const struct discovered_target *target = g_ptr_array_index(targets, i);

			cr_assert_not_null(target->name);
		}
	}
}
