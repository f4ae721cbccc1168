/*
 * test_keys.c - what was agreed on in a login, as an onlooker sees it.
 */
#include "../../src/iscsi/keys.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>

#include "support/data.h"

#define HEADER 48u

static const char *value_of(char **outcome, const char *name)
{
	for (unsigned i = 0; outcome[i] != NULL; i += 2)
		if (strcmp(outcome[i], name) == 0)
			return outcome[i + 1];
	return NULL;
}

/* What an offer and an answer come to; texts with a NUL behind each pair. */
static void note(struct keys *keys, enum keys_side side, const char *text, size_t length)
{
	keys_note(keys, side, (const uint8_t *)text, length, false);
}
#define OURS(keys, text)   note(keys, KEYS_INITIATOR, text, sizeof(text))
#define THEIRS(keys, text) note(keys, KEYS_TARGET, text, sizeof(text))

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

	OURS(keys, "MaxBurstLength=262144\0FirstBurstLength=1000\0DefaultTime2Wait=2\0"
	           "DefaultTime2Retain=0\0MaxConnections=4\0ErrorRecoveryLevel=2");
	THEIRS(keys, "MaxBurstLength=16776192\0FirstBurstLength=65536\0DefaultTime2Wait=5\0"
	             "DefaultTime2Retain=20\0MaxConnections=1\0ErrorRecoveryLevel=0");
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
		g_autofree char *ours = g_strdup_printf(
		    "InitialR2T=%s%cImmediateData=%s", cases[i].ours, 1, cases[i].ours);
		g_autofree char *theirs = g_strdup_printf(
		    "InitialR2T=%s%cImmediateData=%s", cases[i].theirs, 1, cases[i].theirs);
		size_t length = strlen(ours) + 1, other = strlen(theirs) + 1;

		*strchr(ours, 1) = *strchr(theirs, 1) = '\0';
		note(keys, KEYS_INITIATOR, ours, length);
		note(keys, KEYS_TARGET, theirs, other);
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
	THEIRS(keys, "MaxRecvDataSegmentLength=65536\0TargetPortalGroupTag=7\0TargetAlias=the nas");
	must_be(keys, "MaxRecvDataSegmentLength", "65536");
	must_be(keys, "InitiatorMaxRecvDataSegmentLength", "262144");
	must_be(keys, "TargetPortalGroupTag", "7");
	must_be(keys, "TargetAlias", "the nas");
	keys_free(keys);
}

Test(keys, of_a_list_the_answer_counts_whoever_offered)
{
	struct keys *keys = keys_new();

	OURS(keys, "HeaderDigest=CRC32C,None\0DataDigest=None");
	must_be(keys, "HeaderDigest", "None");
	THEIRS(keys, "HeaderDigest=CRC32C\0DataDigest=Reject");
	must_be(keys, "HeaderDigest", "CRC32C");
	keys_free(keys);
	keys = keys_new();
	THEIRS(keys, "HeaderDigest=CRC32C,None");
	OURS(keys, "HeaderDigest=None");
	must_be(keys, "HeaderDigest", "None");
	keys_free(keys);
}

Test(keys, what_is_irrelevant_is_left_out)
{
	struct keys *keys = keys_new();

	OURS(keys, "FirstBurstLength=262144");
	THEIRS(keys, "FirstBurstLength=Irrelevant");
	must_be(keys, "FirstBurstLength", NULL);
	keys_free(keys);
}

Test(keys, who_proved_what_is_told_and_nothing_of_how)
{
	struct keys *keys = keys_new();

	OURS(keys, "AuthMethod=CHAP,None");
	THEIRS(keys, "AuthMethod=CHAP");
	OURS(keys, "CHAP_A=5");
	THEIRS(keys, "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x0102");
	must_be(keys, "CHAP", "none");
	OURS(keys, "CHAP_N=me\0CHAP_R=0xcafe");
	must_be(keys, "CHAP", "one-way");
	must_be(keys, "AuthMethod", "CHAP");
	/* a proof that nobody asked for is none */
	THEIRS(keys, "CHAP_N=it\0CHAP_R=0xbeef");
	must_be(keys, "CHAP", "one-way");
	OURS(keys, "CHAP_I=2\0CHAP_C=0x0304");
	must_be(keys, "CHAP", "mutual");
	g_auto(GStrv) outcome = keys_outcome(keys);
	g_autofree char *all = g_strjoinv(" ", outcome);
	cr_assert(!strstr(all, "cafe") && !strstr(all, "beef") && !strstr(all, "CHAP_"), "%s", all);
	keys_free(keys);
}

/* ---- text in pieces ---- */

Test(keys, a_pair_may_be_split_over_PDUs)
{
	static const char text[] = "MaxBurstLength=65536\0TargetAlias=two words";

	for (size_t cut = 0; cut <= sizeof text; cut++) {
		struct keys *keys = keys_new();

		OURS(keys, "MaxBurstLength=262144");
		keys_note(keys, KEYS_TARGET, (const uint8_t *)text, cut, true);
		keys_note(keys, KEYS_TARGET, (const uint8_t *)text + cut, sizeof text - cut, false);
		must_be(keys, "MaxBurstLength", "65536");
		must_be(keys, "TargetAlias", "two words");
		keys_free(keys);
	}
}

Test(keys, without_the_C_bit_the_end_of_the_PDU_ends_the_pair)
{
	struct keys *keys = keys_new();

	note(keys, KEYS_TARGET, "TargetAlias=one", strlen("TargetAlias=one"));
	note(keys, KEYS_TARGET, "TargetPortalGroupTag=3", strlen("TargetPortalGroupTag=3"));
	must_be(keys, "TargetAlias", "one");
	must_be(keys, "TargetPortalGroupTag", "3");
	keys_free(keys);
}

static void append_request(
    GByteArray *bytes, int opcode, bool more, const char *text, size_t length)
{
	uint8_t header[HEADER] = {(uint8_t)(0x40 | opcode), more ? 0x40 : 0};
	static const uint8_t padding[] = "=\0=";

	header[6] = (uint8_t)(length >> 8);
	header[7] = (uint8_t)length;
	g_byte_array_append(bytes, header, HEADER);
	g_byte_array_append(bytes, (const guint8 *)text, (guint)length);
	g_byte_array_append(bytes, padding, -(guint)length & 3);
}

Test(keys, requests_are_understood_in_pieces_of_any_size)
{
	g_autoptr(GByteArray) bytes = g_byte_array_new();

	append_request(bytes, 0x03, true, "MaxBurstLen", 11);
	append_request(bytes, 0x03, false, "gth=1024\0MaxRecvDataSegmentLength=4096", 38);
	append_request(bytes, 0x03, false, "", 0);
	append_request(bytes, 0x04, false, "FirstBurstLength=512", 21); /* a Text Request */
	append_request(bytes, 0x03, false, "InitialR2T=No\0ImmediateData=No", 31);
	for (size_t step = 1; step <= bytes->len; step++) {
		struct keys *keys = keys_new();

		for (size_t at = 0; at < bytes->len; at += step)
			keys_note_requests(keys, bytes->data + at, MIN(step, bytes->len - at));
		THEIRS(keys, "MaxBurstLength=262144\0InitialR2T=No\0ImmediateData=Yes\0"
		             "FirstBurstLength=262144");
		must_be(keys, "MaxBurstLength", "1024");
		must_be(keys, "InitiatorMaxRecvDataSegmentLength", "4096");
		must_be(keys, "InitialR2T", "No");
		must_be(keys, "ImmediateData", "No");
		must_be(keys, "FirstBurstLength", "65536");
		keys_free(keys);
	}
}

/* ---- hostile targets ---- */

Test(keys, what_a_target_says_is_bounded_and_printable)
{
	struct keys *keys = keys_new();
	GString *text = g_string_new("TargetAlias=");

	for (unsigned i = 0; i < 256; i++)
		g_string_append_c(text, 'x');
	g_string_append_c(text, '\0');
	note(keys, KEYS_TARGET, text->str, text->len);
	must_be(keys, "TargetAlias", NULL);
	for (unsigned i = 0; i < 300000; i++)
		g_string_append(text, "Key=Value");
	note(keys, KEYS_TARGET, text->str, text->len);
	must_be(keys, "TargetAlias", NULL);
	THEIRS(keys, "TargetAlias=\033[2Ja\x9b\xc2\x9b\xff\n\"\\");
	g_auto(GStrv) outcome = keys_outcome(keys);
	const char *alias = value_of(outcome, "TargetAlias");
	cr_assert(g_utf8_validate(alias, -1, NULL));
	for (const char *c = alias; *c; c = g_utf8_next_char(c))
		cr_assert(g_unichar_isprint(g_utf8_get_char(c)), "%s", alias);
	THEIRS(keys, "MaxBurstLength=1\033[2J\0DefaultTime2Wait=-1\0InitialR2T=Maybe\0=\0novalue");
	OURS(keys, "MaxBurstLength=262144\0DefaultTime2Wait=2\0InitialR2T=No");
	must_be(keys, "MaxBurstLength", "262144"); /* the default */
	must_be(keys, "DefaultTime2Wait", "2");
	must_be(keys, "InitialR2T", "Yes");
	g_string_free(text, TRUE);
	keys_free(keys);
}

Test(keys, any_bytes_do_no_harm)
{
	struct dice dice = {11};
	uint8_t bytes[600];

	for (unsigned round = 0; round < 300; round++) {
		struct keys *keys = keys_new();

		for (unsigned i = 0; i < 20; i++) {
			size_t length = (size_t)dice_between(&dice, 0, sizeof bytes);

			dice_fill(&dice, bytes, length);
			for (size_t k = 0; k < length; k += 7)
				bytes[k] = (uint8_t) "\0=A,9"[k % 5];
			keys_note(keys, KEYS_TARGET, bytes, length, i % 2);
			keys_note_requests(keys, bytes, length);
		}
		g_strfreev(keys_outcome(keys));
		keys_free(keys);
	}
}
