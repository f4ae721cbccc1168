/*
 * test_exchange_chap.c - CHAP through the exchange (RFC 7143, 12.1): the forms of its values, and
 * who is believed.
 */
#include <stdlib.h>

#include "exchange_talk.h"

#define PROOF "0x00112233445566778899aabbccddeeff"

/* libiscsi has offered an algorithm. */
static void come_to_challenge(struct talk *talk)
{
	ask(talk, TO_OPERATIONAL, "InitiatorName=iqn.i|AuthMethod=CHAP,None|");
	answer(talk, SECURITY, "AuthMethod=CHAP|");
	must_tell(talk, SECURITY, "AuthMethod=CHAP|");
	ask(talk, SECURITY, "CHAP_A=5|");
	cr_assert_eq(talk->verdict, EXCHANGE_PASS);
}

/* libiscsi has proved itself, and where a target is to do so asked for it. */
static void come_to_proof(struct talk *talk)
{
	come_to_challenge(talk);
	answer(talk, SECURITY, "CHAP_A=5|CHAP_I=1|CHAP_C=0x01|");
	must_tell(talk, SECURITY, "CHAP_A=5|CHAP_I=1|CHAP_C=0x01|");
	ask(talk, TO_OPERATIONAL,
	    talk->login.username_in != NULL ? "CHAP_N=me|CHAP_R=" PROOF "|CHAP_I=2|CHAP_C=0x0102|"
	                                    : "CHAP_N=me|CHAP_R=" PROOF "|");
	cr_assert_eq(talk->verdict, EXCHANGE_PASS);
}

static const char *told_of_chap(const struct talk *talk, char ***outcome)
{
	*outcome = keys_outcome(exchange_keys(talk->exchange));
	for (char **pair = *outcome; *pair != NULL; pair += 2)
		if (strcmp(pair[0], "CHAP") == 0)
			return pair[1];
	return NULL;
}

static void must_have_proved(const struct talk *talk, const char *who)
{
	g_auto(GStrv) outcome = NULL;
	const char *told = told_of_chap(talk, &outcome);

	cr_assert_str_eq(told, who);
}

/* ---- the challenge ---- */

Test(exchange_chap, reads_a_challenge_in_every_form_and_tells_it_in_one)
{
	static const struct {
		const char *said, *told;
	} cases[] = {
	    {"CHAP_A=5|CHAP_I=255|CHAP_C=0xAbCd|", "CHAP_A=5|CHAP_I=255|CHAP_C=0xabcd|"},
	    {"CHAP_A=0x5|CHAP_I=0xfF|CHAP_C=0Xabcd|", "CHAP_A=5|CHAP_I=255|CHAP_C=0xabcd|"},
	    {"CHAP_A=0X05|CHAP_I=0X0|CHAP_C=0bq80=|", "CHAP_A=5|CHAP_I=0|CHAP_C=0xabcd|"},
	    {"CHAP_A=5|CHAP_I=1|CHAP_C=0B+/+/|", "CHAP_A=5|CHAP_I=1|CHAP_C=0xfbffbf|"},
	    {"CHAP_C=0xabc|CHAP_I=1|CHAP_A=5", "CHAP_C=0x0abc|CHAP_I=1|CHAP_A=5|"},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct talk talk = talk_chap();

		come_to_challenge(&talk);
		answer(&talk, SECURITY, cases[i].said);
		must_tell(&talk, SECURITY, cases[i].told);
		talk_free(&talk);
	}
}

Test(exchange_chap, joins_a_challenge_in_several_PDUs)
{
	struct talk talk = talk_chap();

	come_to_challenge(&talk);
	answer(&talk, SECURITY, "CHAP_A=5|");
	must_go_on(&talk, SECURITY, "");
	answer(&talk, SECURITY | MORE, "CHAP_I=1|CHAP_C=0x01");
	must_go_on(&talk, SECURITY, "");
	answer(&talk, SECURITY, "02|");
	must_tell(&talk, SECURITY, "CHAP_A=5|CHAP_I=1|CHAP_C=0x0102|");
	talk_free(&talk);
}

static void challenge_of(size_t bytes, bool base64, bool passes)
{
	struct talk talk = talk_chap();
	g_autofree guchar *zeros = g_malloc0(bytes);
	g_autofree char *encoded =
	    base64 ? g_base64_encode(zeros, bytes) : g_strnfill(2 * bytes, '0');
	g_autofree char *text =
	    g_strdup_printf("CHAP_A=5|CHAP_I=1|CHAP_C=%s%s|", base64 ? "0b" : "0x", encoded);

	come_to_challenge(&talk);
	answer(&talk, SECURITY, text);
	if (passes)
		cr_assert_eq(talk.verdict, EXCHANGE_PASS);
	else
		must_refuse(&talk, "sends a CHAP challenge that is none");
	talk_free(&talk);
}

Test(exchange_chap, takes_challenges_of_1_to_1024_bytes)
{
	for (unsigned base64 = 0; base64 < 2; base64++) {
		challenge_of(0, base64, false);
		challenge_of(1, base64, true);
		challenge_of(1024, base64, true);
		challenge_of(1025, base64, false);
		challenge_of(20000, base64, false);
	}
}

Test(exchange_chap, refuses_challenges_algorithms_and_identifiers_that_are_none)
{
	static const struct {
		const char *said, *words;
	} cases[] = {
	    {"CHAP_C=1234|", "challenge"},
	    {"CHAP_C=|", "challenge"},
	    {"CHAP_C=0xgg|", "challenge"},
	    {"CHAP_C=0b!|", "challenge"},
	    {"CHAP_I=256|", "identifier"},
	    {"CHAP_I=0x100|", "identifier"},
	    {"CHAP_I=-1|", "identifier"},
	    {"CHAP_I=|", "identifier"},
	    {"CHAP_A=MD5|", "sends a CHAP algorithm that is none"},
	    {"CHAP_A=256|", "sends a CHAP algorithm that is none"},
	    {"CHAP_A=7|", "wants CHAP with algorithm 7, and lunfs offered 5 (5 is MD5)"},
	    {"CHAP_A=Reject|", "algorithm"},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct talk talk = talk_chap();

		come_to_challenge(&talk);
		answer(&talk, SECURITY, cases[i].said);
		must_refuse(&talk, cases[i].words);
		talk_free(&talk);
	}
}

Test(exchange_chap, takes_one_of_several_algorithms_that_were_offered)
{
	struct talk talk = talk_chap();

	ask(&talk, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
	answer(&talk, SECURITY, "AuthMethod=CHAP|");
	ask(&talk, SECURITY, "CHAP_A=7,6,5|");
	answer(&talk, SECURITY, "CHAP_A=6|CHAP_I=1|CHAP_C=0x01|");
	must_tell(&talk, SECURITY, "CHAP_A=6|CHAP_I=1|CHAP_C=0x01|");
	talk_free(&talk);
}

Test(exchange_chap, does_not_hear_what_nobody_asked_for)
{
	struct talk talk = talk_plain();

	ask(&talk, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
	answer(&talk, SECURITY, "CHAP_A=5|CHAP_I=1|CHAP_C=0x01|CHAP_N=it|CHAP_R=" PROOF "|");
	must_go_on(&talk, TO_OPERATIONAL, "");
	answer(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	must_tell(&talk, TO_OPERATIONAL, "");
	must_have_proved(&talk, "none");
	talk_free(&talk);
}

/* A second challenge has its own answer, which nobody sees: it is said once. */
Test(exchange_chap, proves_itself_to_one_challenge_alone)
{
	struct talk talk = talk_chap();

	come_to_proof(&talk);
	answer(&talk, SECURITY, "CHAP_A=5|CHAP_I=2|CHAP_C=0x02|");
	must_tell(&talk, SECURITY, "CHAP_A=5|CHAP_I=2|CHAP_C=0x02|");
	ask(&talk, TO_OPERATIONAL, "CHAP_N=me|CHAP_R=0x0123|");
	must_ask(&talk, TO_OPERATIONAL, "");
	talk_free(&talk);
}

/* ---- the target's proof ---- */

Test(exchange_chap, does_not_hear_a_proof_where_the_target_need_not_prove_itself)
{
	struct talk talk = talk_chap();

	come_to_proof(&talk);
	answer(&talk, TO_OPERATIONAL, "CHAP_N=it|CHAP_R=0xcafe|");
	must_tell(&talk, TO_OPERATIONAL, "");
	must_have_proved(&talk, "one-way");
	talk_free(&talk);
}

Test(exchange_chap, hands_a_proof_over_in_the_form_that_libiscsi_reads)
{
	static const struct {
		const char *said, *told;
	} cases[] = {
	    {"CHAP_N=it|CHAP_R=0xCAFE|", "CHAP_N=it|CHAP_R=0xcafe|"},
	    {"CHAP_N=it|CHAP_R=0XcaFE|", "CHAP_N=it|CHAP_R=0xcafe|"},
	    {"CHAP_N=it|CHAP_R=0byv4=|", "CHAP_N=it|CHAP_R=0xcafe|"},
	    {"CHAP_R=0Byv4=|CHAP_N=it", "CHAP_R=0xcafe|CHAP_N=it|"},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct talk talk = talk_mutual();

		come_to_proof(&talk);
		answer(&talk, TO_OPERATIONAL, cases[i].said);
		must_tell(&talk, TO_OPERATIONAL, cases[i].told);
		must_have_proved(&talk, "mutual");
		talk_free(&talk);
	}
}

Test(exchange_chap, a_proof_may_come_before_the_answer_that_ends_the_stage)
{
	struct talk talk = talk_mutual();

	come_to_proof(&talk);
	answer(&talk, SECURITY, "CHAP_N=it|CHAP_R=0xcafe|");
	must_go_on(&talk, TO_OPERATIONAL, "");
	answer(&talk, TO_OPERATIONAL, "");
	must_tell(&talk, TO_OPERATIONAL, "CHAP_N=it|CHAP_R=0xcafe|");
	talk_free(&talk);
}

/* In whatever form. */
Test(exchange_chap, refuses_our_own_proof)
{
	static const char *const forms[] = {PROOF, "0X00112233445566778899AABBCCDDEEFF",
	    "0x0112233445566778899aabbccddeeff",
	    "0bABEiM0RVZneImaq7zN3u/w==", "0BABEiM0RVZneImaq7zN3u/w=="};

	for (unsigned i = 0; i < G_N_ELEMENTS(forms); i++) {
		struct talk talk = talk_mutual();
		g_autofree char *text = g_strdup_printf("CHAP_N=it|CHAP_R=%s|", forms[i]);

		come_to_proof(&talk);
		answer(&talk, TO_OPERATIONAL, text);
		must_refuse(&talk, "it answers with our own proof");
		talk_free(&talk);
	}
}

Test(exchange_chap, refuses_a_proof_that_is_none)
{
	g_autofree char *digits = g_strnfill(130, '1'); /* 65 bytes */
	g_autofree char *text = g_strdup_printf("CHAP_N=it|CHAP_R=0x%s|", digits);
	const char *const cases[] = {"CHAP_N=it|CHAP_R=|", "CHAP_N=it|CHAP_R=yes|",
	    "CHAP_N=it|CHAP_R=0x|", "CHAP_N=it|CHAP_R=0b=|", text};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct talk talk = talk_mutual();

		come_to_proof(&talk);
		answer(&talk, TO_OPERATIONAL, cases[i]);
		must_refuse(&talk, "it answers with what is no proof");
		talk_free(&talk);
	}
}

static const char no_identity[] = "could not prove its identity (mutual CHAP)";

Test(exchange_chap, refuses_a_target_that_ends_the_stage_without_its_proof)
{
	struct talk talk = talk_mutual();

	come_to_proof(&talk);
	answer(&talk, TO_OPERATIONAL, "");
	must_refuse(&talk, no_identity);
	talk_free(&talk);
	talk = talk_mutual();
	come_to_proof(&talk);
	answer(&talk, TO_OPERATIONAL, "CHAP_N=it|");
	must_refuse(&talk, no_identity);
	talk_free(&talk);
}

Test(exchange_chap, refuses_a_target_that_goes_without_CHAP_where_it_is_to_prove_itself)
{
	static const char *const answers[] = {"", "AuthMethod=CHAP|", "AuthMethod=Reject|",
	    "AuthMethod=Irrelevant|", "CHAP_N=it|CHAP_R=0xcafe|"};
	struct talk talk = talk_mutual();

	ask(&talk, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
	answer(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	must_refuse(&talk, "answers AuthMethod=None, which was not offered");
	talk_free(&talk);
	for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++) {
		talk = talk_mutual();
		ask(&talk, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
		answer(&talk, TO_OPERATIONAL, answers[i]);
		must_refuse(&talk, no_identity);
		talk_free(&talk);
	}
	/* nor by beginning behind the security stage */
	talk = talk_mutual();
	ask(&talk, TO_FULL, "HeaderDigest=None|");
	answer(&talk, TO_FULL, "CHAP_N=it|CHAP_R=0xcafe|");
	must_refuse(&talk, no_identity);
	talk_free(&talk);
}

/* libiscsi would compare it with what it has not computed yet: zeros. */
Test(exchange_chap, does_not_hear_a_proof_before_it_was_asked_for)
{
	struct talk talk = talk_mutual();

	come_to_challenge(&talk);
	answer(&talk, SECURITY,
	    "CHAP_A=5|CHAP_I=1|CHAP_C=0x01|CHAP_N=it|CHAP_R=0x00000000000000000000000000000000|");
	must_tell(&talk, SECURITY, "CHAP_A=5|CHAP_I=1|CHAP_C=0x01|");
	ask(&talk, TO_OPERATIONAL, "CHAP_N=me|CHAP_R=" PROOF "|CHAP_I=2|CHAP_C=0x0102|");
	answer(&talk, TO_OPERATIONAL, "");
	must_refuse(&talk, no_identity);
	talk_free(&talk);
}
