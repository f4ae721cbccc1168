/*
 * test_keys.c - what was agreed on in a login, as an onlooker sees it.
 */
#include "../../src/iscsi/keys.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>

#include "support/data.h"

static const char *value_of(char **outcome, const char *name)
{
	for (unsigned i = 0; outcome[i] != NULL; i += 2)
		if (strcmp(outcome[i], name) == 0)
			return outcome[i + 1];
	return NULL;
}

/* Pairs are written one behind the other, with '|' behind each. */
static void note(struct keys *keys, enum keys_side side, const char *text)
{
	g_auto(GStrv) pairs = g_strsplit(text, "|", -1);

	for (char **pair = pairs; *pair != NULL; pair++) {
		char *value = strchr(*pair, '=');

		if (value == NULL)
			continue;
		*value = '\0';
		keys_note(keys, side, *pair, value + 1);
	}
}
#define OURS(keys, text)   note(keys, KEYS_INITIATOR, text)
#define THEIRS(keys, text) note(keys, KEYS_TARGET, text)

static void must_be(struct keys *keys, const char *name, const char *expected)
{
	g_auto(GStrv) outcome = keys_outcome(keys);
	const char *found = value_of(outcome, name);

	cr_assert(g_strcmp0(found, expected) == 0, "%s is %s, not %s", name,
	    found ? found : "absent", expected ? expected : "absent");
}

Test(keys, what_nobody_speaks_of_has_the_standards_default)
{
	struct keys *keys = keys_new();

	must_be(keys, "HeaderDigest", "None");
	must_be(keys, "MaxRecvDataSegmentLength", "8192");
	must_be(keys, "FirstBurstLength", "65536");
	must_be(keys, "InitialR2T", "Yes");
	must_be(keys, "DefaultTime2Retain", "20");
	must_be(keys, "AuthMethod", "None");
	must_be(keys, "CHAP", "none");
	must_be(keys, "TargetAlias", NULL);
	must_be(keys, "TargetPortalGroupTag", NULL);
	keys_free(keys);
}

Test(keys, numbers_are_the_lesser_of_both_but_for_the_time_to_wait)
{
	struct keys *keys = keys_new();

	OURS(keys, "MaxBurstLength=262144|FirstBurstLength=1000|DefaultTime2Wait=2|"
	           "DefaultTime2Retain=0|MaxConnections=4|ErrorRecoveryLevel=2");
	THEIRS(keys, "MaxBurstLength=16776192|FirstBurstLength=65536|DefaultTime2Wait=5|"
	             "DefaultTime2Retain=20|MaxConnections=1|ErrorRecoveryLevel=0");
	must_be(keys, "MaxBurstLength", "262144");
	must_be(keys, "FirstBurstLength", "1000");
	must_be(keys, "DefaultTime2Wait", "5");
	must_be(keys, "DefaultTime2Retain", "0");
	must_be(keys, "MaxConnections", "1");
	must_be(keys, "ErrorRecoveryLevel", "0");
	keys_free(keys);
}

Test(keys, InitialR2T_is_the_or_and_ImmediateData_the_and_of_both)
{
	static const struct {
		const char *ours, *theirs, *either, *each;
	} cases[] = {{"No", "No", "No", "No"}, {"Yes", "No", "Yes", "No"},
	    {"No", "Yes", "Yes", "No"}, {"Yes", "Yes", "Yes", "Yes"}};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct keys *keys = keys_new();
		g_autofree char *ours =
		    g_strdup_printf("InitialR2T=%s|ImmediateData=%s", cases[i].ours, cases[i].ours);
		g_autofree char *theirs = g_strdup_printf(
		    "InitialR2T=%s|ImmediateData=%s", cases[i].theirs, cases[i].theirs);

		OURS(keys, ours);
		THEIRS(keys, theirs);
		must_be(keys, "InitialR2T", cases[i].either);
		must_be(keys, "ImmediateData", cases[i].each);
		keys_free(keys);
	}
}

Test(keys, each_side_declares_its_own_segment_length)
{
	struct keys *keys = keys_new();

	OURS(keys, "MaxRecvDataSegmentLength=262144");
	must_be(keys, "MaxRecvDataSegmentLength", "8192");
	THEIRS(keys, "MaxRecvDataSegmentLength=65536|TargetPortalGroupTag=7|TargetAlias=the nas");
	must_be(keys, "MaxRecvDataSegmentLength", "65536");
	must_be(keys, "InitiatorMaxRecvDataSegmentLength", "262144");
	must_be(keys, "TargetPortalGroupTag", "7");
	must_be(keys, "TargetAlias", "the nas");
	keys_free(keys);
}

Test(keys, of_a_list_the_answer_counts_whoever_offered)
{
	struct keys *keys = keys_new();

	OURS(keys, "HeaderDigest=CRC32C,None|DataDigest=None");
	must_be(keys, "HeaderDigest", "None");
	THEIRS(keys, "HeaderDigest=CRC32C|DataDigest=Reject");
	must_be(keys, "HeaderDigest", "CRC32C");
	keys_free(keys);
	keys = keys_new();
	THEIRS(keys, "HeaderDigest=CRC32C,None");
	OURS(keys, "HeaderDigest=None");
	must_be(keys, "HeaderDigest", "None");
	keys_free(keys);
}

Test(keys, what_is_refused_or_irrelevant_has_the_standards_default)
{
	struct keys *keys = keys_new();

	OURS(keys, "FirstBurstLength=262144");
	THEIRS(keys, "FirstBurstLength=Irrelevant");
	must_be(keys, "FirstBurstLength", "65536");
	keys_free(keys);
}

Test(keys, who_proved_what_is_told_and_nothing_of_how)
{
	struct keys *keys = keys_new();

	OURS(keys, "AuthMethod=CHAP,None");
	THEIRS(keys, "AuthMethod=CHAP");
	OURS(keys, "CHAP_A=5");
	THEIRS(keys, "CHAP_A=5|CHAP_I=1|CHAP_C=0x0102");
	must_be(keys, "CHAP", "none");
	OURS(keys, "CHAP_N=me|CHAP_R=0xcafe");
	must_be(keys, "CHAP", "one-way");
	must_be(keys, "AuthMethod", "CHAP");
	/* a proof that nobody asked for is none, and none to a challenge that comes later */
	THEIRS(keys, "CHAP_N=it|CHAP_R=0xbeef");
	OURS(keys, "CHAP_I=2|CHAP_C=0x0304");
	must_be(keys, "CHAP", "one-way");
	cr_assert_not(keys_proved_target(keys));
	THEIRS(keys, "CHAP_N=it|CHAP_R=0xbeef");
	must_be(keys, "CHAP", "mutual");
	cr_assert(keys_proved_target(keys));
	g_auto(GStrv) outcome = keys_outcome(keys);
	g_autofree char *all = g_strjoinv(" ", outcome);
	cr_assert(!strstr(all, "cafe") && !strstr(all, "beef") && !strstr(all, "CHAP_"), "%s", all);
	keys_free(keys);
}

/* ---- what may be said, and what is answered ---- */

Test(keys, numbers_in_hexadecimal_count_and_are_told_in_decimal)
{
	struct keys *keys = keys_new();

	OURS(keys, "MaxBurstLength=262144|MaxRecvDataSegmentLength=0x1000");
	THEIRS(
	    keys, "MaxBurstLength=0x400|MaxRecvDataSegmentLength=0X200|TargetPortalGroupTag=0x10");
	must_be(keys, "MaxBurstLength", "1024");
	must_be(keys, "MaxRecvDataSegmentLength", "512");
	must_be(keys, "InitiatorMaxRecvDataSegmentLength", "4096");
	must_be(keys, "TargetPortalGroupTag", "16");
	keys_free(keys);
}

Test(keys, what_was_agreed_on_is_the_default_where_there_is_no_agreement)
{
	struct keys *keys = keys_new();
	static const struct {
		const char *name, *expected;
	} cases[] = {{"HeaderDigest", "None"}, {"MaxBurstLength", "262144"},
	    {"FirstBurstLength", "65536"}, {"InitialR2T", "Yes"}, {"ImmediateData", "Yes"},
	    {"MaxRecvDataSegmentLength", "8192"}, {"TargetPortalGroupTag", NULL},
	    {"TargetAlias", NULL}, {"X-Odd", NULL}};

	OURS(keys, "HeaderDigest=CRC32C,None|MaxBurstLength=1024|InitialR2T=No|ImmediateData=No");
	THEIRS(keys, "HeaderDigest=Reject|FirstBurstLength=512|X-Odd=1|ImmediateData=Irrelevant");
	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *found = keys_agreed(keys, cases[i].name);

		cr_assert(g_strcmp0(found, cases[i].expected) == 0, "%s is %s", cases[i].name,
		    found ? found : "absent");
	}
	keys_free(keys);
}

Test(keys, of_each_key_the_last_value_counts)
{
	struct keys *keys = keys_new();

	OURS(keys, "MaxBurstLength=262144|HeaderDigest=CRC32C,None");
	THEIRS(keys, "MaxBurstLength=1024|HeaderDigest=CRC32C");
	THEIRS(keys, "MaxBurstLength=2048|HeaderDigest=None");
	must_be(keys, "MaxBurstLength", "2048");
	must_be(keys, "HeaderDigest", "None");
	keys_free(keys);
}

Test(keys, a_target_may_say_what_was_offered_or_nothing_at_all)
{
	struct keys *keys = keys_new();
	static const char *const none[] = {"Reject", "Irrelevant", "NotUnderstood"};
	static const char *const names[] = {"HeaderDigest", "MaxBurstLength", "InitialR2T",
	    "MaxRecvDataSegmentLength", "TargetPortalGroupTag", "X-Odd"};

	OURS(keys, "HeaderDigest=CRC32C,None|DataDigest=None");
	cr_assert(keys_may_be(keys, "HeaderDigest", "CRC32C"));
	cr_assert(keys_may_be(keys, "HeaderDigest", "None"));
	cr_assert_not(keys_may_be(keys, "HeaderDigest", "CRC32C,None"));
	cr_assert_not(keys_may_be(keys, "HeaderDigest", "CRC"));
	cr_assert_not(keys_may_be(keys, "HeaderDigest", "crc32c"));
	cr_assert_not(keys_may_be(keys, "DataDigest", "CRC32C"));
	cr_assert(keys_may_be(keys, "AuthMethod", "KRB5")); /* its own offer */
	cr_assert(keys_may_be(keys, "X-Odd", "anything"));
	for (unsigned i = 0; i < G_N_ELEMENTS(none); i++)
		for (unsigned k = 0; k < G_N_ELEMENTS(names); k++)
			cr_assert(keys_may_be(keys, names[k], none[i]));
	cr_assert_not(keys_may_be(keys, "MaxBurstLength", "reject"));
	keys_free(keys);
}

Test(keys, numbers_have_their_range)
{
	struct keys *keys = keys_new();
	static const struct {
		const char *name, *least, *below, *most, *above;
	} cases[] = {
	    {"TargetPortalGroupTag", "0", "-1", "65535", "65536"},
	    {"MaxRecvDataSegmentLength", "512", "511", "16777215", "16777216"},
	    {"FirstBurstLength", "512", "511", "16777215", "16777216"},
	    {"MaxBurstLength", "512", "511", "16777215", "16777216"},
	    {"MaxOutstandingR2T", "1", "0", "65535", "65536"},
	    {"DefaultTime2Wait", "0", "-1", "3600", "3601"},
	    {"DefaultTime2Retain", "0", "-1", "3600", "3601"},
	    {"ErrorRecoveryLevel", "0", "-1", "2", "3"},
	    {"MaxConnections", "1", "0", "65535", "65536"},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		cr_assert(keys_may_be(keys, cases[i].name, cases[i].least), "%s", cases[i].name);
		cr_assert(keys_may_be(keys, cases[i].name, cases[i].most), "%s", cases[i].name);
		cr_assert_not(keys_may_be(keys, cases[i].name, cases[i].below));
		cr_assert_not(keys_may_be(keys, cases[i].name, cases[i].above));
		cr_assert_not(keys_may_be(keys, cases[i].name, ""));
	}
	keys_free(keys);
}

Test(keys, what_a_target_offers_is_answered_as_the_standard_has_it)
{
	struct keys *keys = keys_new();
	static const struct {
		const char *name, *value, *answer;
	} cases[] = {
	    {"X-Odd", "1", "NotUnderstood"},
	    {"X-Odd", "NotUnderstood", NULL},
	    {"X-Odd", "Reject", NULL},
	    {"X-Odd", "Irrelevant", NULL},
	    {"IFMarker", "Yes", "Reject"},
	    {"OFMarker", "No", "Reject"},
	    {"IFMarkInt", "2048", "Reject"},
	    {"OFMarkInt", "2048~8192", "Reject"},
	    {"TaskReporting", "RFC3720", "RFC3720"},
	    {"TaskReporting", "FastAbort,RFC3720", "RFC3720"},
	    {"TaskReporting", "FastAbort", "Reject"},
	    {"TargetAlias", "it", NULL},
	    {"TargetPortalGroupTag", "1", NULL},
	    {"TargetName", "iqn.a", NULL},
	    {"TargetAddress", "10.0.0.1", NULL},
	    {"CHAP_A", "5", NULL},
	    {"CHAP_R", "0x00", NULL},
	    {"MaxRecvDataSegmentLength", "512", NULL},
	    {"MaxBurstLength", "512", NULL}, /* an answer to ours */
	    {"FirstBurstLength", "512", "Irrelevant"},
	    {"HeaderDigest", "CRC32C,None", "None"},
	    {"DefaultTime2Wait", "2", "2"},
	    {"ErrorRecoveryLevel", "2", "0"},
	};

	OURS(keys, "MaxBurstLength=262144");
	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		const char *found = keys_answer(keys, cases[i].name, cases[i].value);

		cr_assert(g_strcmp0(found, cases[i].answer) == 0, "%s=%s is answered %s",
		    cases[i].name, cases[i].value, found ? found : "by nothing");
	}
	keys_free(keys);
}

Test(keys, a_discovery_has_no_use_for_keys_of_data)
{
	static const char *const data[] = {"FirstBurstLength", "MaxBurstLength", "ImmediateData",
	    "InitialR2T", "MaxOutstandingR2T", "MaxConnections", "DataPDUInOrder",
	    "DataSequenceInOrder"};
	static const char *const others[] = {"HeaderDigest", "DataDigest", "DefaultTime2Wait",
	    "DefaultTime2Retain", "ErrorRecoveryLevel", "MaxRecvDataSegmentLength", "AuthMethod",
	    "TargetAlias", "InitiatorName", ""};

	for (unsigned i = 0; i < G_N_ELEMENTS(data); i++)
		cr_assert(keys_is_for_data(data[i]), "%s", data[i]);
	for (unsigned i = 0; i < G_N_ELEMENTS(others); i++)
		cr_assert_not(keys_is_for_data(others[i]), "%s", others[i]);
}

/* ---- hostile targets ---- */

Test(keys, what_a_target_says_is_bounded_and_printable)
{
	struct keys *keys = keys_new();
	g_autofree char *long_value = g_strnfill(256, 'x');

	keys_note(keys, KEYS_TARGET, "TargetAlias", long_value);
	must_be(keys, "TargetAlias", NULL);
	keys_note(keys, KEYS_TARGET, "TargetAlias", long_value + 1);
	must_be(keys, "TargetAlias", long_value + 1);
	THEIRS(keys, "TargetAlias=\033[2Ja\x9b\xc2\x9b\xff\n\"\\");
	g_auto(GStrv) outcome = keys_outcome(keys);
	const char *alias = value_of(outcome, "TargetAlias");
	cr_assert(g_utf8_validate(alias, -1, NULL));
	for (const char *c = alias; *c; c = g_utf8_next_char(c))
		cr_assert(g_unichar_isprint(g_utf8_get_char(c)), "%s", alias);
	THEIRS(keys, "MaxBurstLength=1\033[2J|DefaultTime2Wait=-1|InitialR2T=Maybe|=");
	OURS(keys, "MaxBurstLength=262144|DefaultTime2Wait=2|InitialR2T=No");
	must_be(keys, "MaxBurstLength", "262144"); /* the default */
	must_be(keys, "DefaultTime2Wait", "2");
	must_be(keys, "InitialR2T", "Yes");
	keys_free(keys);
}

Test(keys, any_values_do_no_harm)
{
	static const char *const names[] = {"HeaderDigest", "MaxBurstLength", "InitialR2T",
	    "ImmediateData", "MaxRecvDataSegmentLength", "TargetAlias", "CHAP_C", "CHAP_R", "X"};
	static const char likely[] = "0xX19,aYes\xff\n";
	struct dice dice = {11};
	char value[300];

	for (unsigned round = 0; round < 300; round++) {
		struct keys *keys = keys_new();

		for (unsigned i = 0; i < 60; i++) {
			const char *name = names[dice_roll(&dice) % G_N_ELEMENTS(names)];
			size_t length = dice_between(&dice, 0, i % 5 ? 8 : sizeof value - 1);

			dice_fill(&dice, value, length);
			for (size_t k = 0; k < length; k++)
				if (i % 3 || value[k] == 0)
					value[k] =
					    likely[(unsigned char)value[k] % (sizeof likely - 1)];
			value[length] = '\0';
			(void)keys_may_be(keys, name, value);
			(void)keys_answer(keys, name, value);
			keys_note(keys, i % 2 ? KEYS_TARGET : KEYS_INITIATOR, name, value);
			g_free(keys_agreed(keys, name));
		}
		g_strfreev(keys_outcome(keys));
		keys_free(keys);
	}
}
