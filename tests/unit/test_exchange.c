/*
 * test_exchange.c - the login as libiscsi and the target have it with each other: what goes out,
 * and what comes back. What is refused: test_exchange_refused.c; CHAP: test_exchange_chap.c;
 * discovery: test_exchange_text.c.
 */
#include <stdlib.h>

#include "exchange_talk.h"
#include "support/data.h"

/* ---- what libiscsi says ---- */

Test(exchange, sends_no_markers_and_nothing_twice)
{
	struct talk talk = talk_plain();

	ask(&talk, TO_OPERATIONAL, "InitiatorName=iqn.i|TargetName=iqn.t|AuthMethod=CHAP,None|");
	must_ask(&talk, TO_OPERATIONAL, "InitiatorName=iqn.i|TargetName=iqn.t|AuthMethod=None|");
	answer(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	must_tell(&talk, TO_OPERATIONAL, "");
	ask(&talk, TO_FULL, "InitiatorName=iqn.i|IFMarker=No|InitialR2T=No|OFMarker=No|");
	must_ask(&talk, TO_FULL, "InitialR2T=No|");
	talk_free(&talk);
}

Test(exchange, offers_CHAP_only_where_there_is_a_user_and_only_CHAP_where_the_target_is_to_prove)
{
	static const char said[] = "AuthMethod=CHAP,None|";
	struct talk plain = talk_plain(), chap = talk_chap(), mutual = talk_mutual();

	ask(&plain, TO_OPERATIONAL, said);
	must_ask(&plain, TO_OPERATIONAL, "AuthMethod=None|");
	ask(&chap, TO_OPERATIONAL, said);
	must_ask(&chap, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
	ask(&mutual, TO_OPERATIONAL, said);
	must_ask(&mutual, TO_OPERATIONAL, "AuthMethod=CHAP|");
	talk_free(&plain);
	talk_free(&chap);
	talk_free(&mutual);
}

Test(exchange, clears_the_next_stage_where_a_request_does_not_end_its_own)
{
	struct talk talk = talk_chap();

	ask(&talk, 0x01, "CHAP_A=5|"); /* NSG=1 */
	must_ask(&talk, SECURITY, "CHAP_A=5|");
	answer(&talk, SECURITY, "");
	must_go_on(&talk, SECURITY, "");
	talk_free(&talk);
}

Test(exchange, passes_what_is_no_login_or_text_as_it_is)
{
	struct talk talk = talk_plain();
	uint8_t header[PDU_HEADER_LENGTH];

	memset(header, 0x11, sizeof header);
	header[0] = 0x40; /* NOP-Out */
	put_be32(header + 16, ITT);
	talk_request(&talk, header, "abcde", 5);
	cr_assert_eq(talk.verdict, EXCHANGE_PASS);
	must_be_pdu(&talk, 0x40, 0x11, "abcde");
	cr_assert_eq(get_be32(talk.out->data + 40), 0x11111111);
	talk_free(&talk);
}

/* ---- what libiscsi is told ---- */

Test(exchange, tells_what_was_agreed_on_in_decimal_numbers_and_nothing_else)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, TO_FULL,
	    "TargetAlias=the nas|HeaderDigest=None|InitialR2T=Yes|ImmediateData=No|"
	    "MaxBurstLength=0x10000|FirstBurstLength=0X400|MaxRecvDataSegmentLength=4096|"
	    "DefaultTime2Wait=2|X-Whim=yes|TargetAddress=10.0.0.1|TargetPortalGroupTag=7|");
	must_tell(&talk, TO_FULL,
	    "HeaderDigest=None|MaxRecvDataSegmentLength=4096|FirstBurstLength=1024|"
	    "MaxBurstLength=65536|InitialR2T=Yes|ImmediateData=No|");
	must_be_over(&talk);
	g_autofree char *group = keys_agreed(exchange_keys(talk.exchange), "TargetPortalGroupTag");
	cr_assert_str_eq(group, "7");
	cr_assert_null(exchange_redirect(talk.exchange));
	talk_free(&talk);
}

Test(exchange, takes_the_standards_default_where_the_target_says_nothing)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, TO_FULL, "");
	must_tell(&talk, TO_FULL, STANDARD);
	must_be_over(&talk);
	talk_free(&talk);
}

Test(exchange, takes_the_standards_default_for_every_key_without_a_value)
{
	static const char *const words[] = {"Reject", "Irrelevant", "NotUnderstood"};

	for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
		struct talk talk = talk_plain();
		g_auto(GStrv) keys = g_strsplit(OFFER, "|", -1);
		g_autoptr(GString) said = g_string_new(NULL);

		for (char **key = keys; **key != '\0'; key++)
			g_string_append_printf(
			    said, "%.*s=%s|", (int)strcspn(*key, "="), *key, words[i]);
		come_to_operational(&talk);
		answer(&talk, TO_FULL, said->str);
		must_tell(&talk, TO_FULL, STANDARD);
		must_be_over(&talk);
		talk_free(&talk);
	}
}

Test(exchange, keeps_the_first_burst_within_the_burst)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, TO_FULL, "MaxBurstLength=1024|");
	must_tell(&talk, TO_FULL,
	    "HeaderDigest=None|MaxRecvDataSegmentLength=8192|FirstBurstLength=1024|"
	    "MaxBurstLength=1024|InitialR2T=Yes|ImmediateData=Yes|");
	talk_free(&talk);
}

Test(exchange, takes_the_first_or_last_pair_without_a_NUL_too)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, TO_FULL, "|||MaxBurstLength=512");
	must_tell(&talk, TO_FULL,
	    "HeaderDigest=None|MaxRecvDataSegmentLength=8192|FirstBurstLength=512|"
	    "MaxBurstLength=512|InitialR2T=Yes|ImmediateData=Yes|");
	talk_free(&talk);
}

/* ---- C=1, T=0 ---- */

Test(exchange, joins_an_answer_in_several_PDUs_wherever_it_is_cut)
{
	static const char text[] = "MaxBurstLength=1024\0X-Odd=1\0FirstBurstLength=512";

	for (size_t cut = 0; cut <= sizeof text; cut++) {
		struct talk talk = talk_plain();

		come_to_operational(&talk);
		answer_bytes(&talk, OPERATIONAL | MORE, text, cut);
		must_go_on(&talk, TO_FULL, "");
		answer_bytes(&talk, OPERATIONAL | MORE, NULL, 0);
		must_go_on(&talk, TO_FULL, "");
		answer_bytes(&talk, OPERATIONAL, text + cut, sizeof text - cut);
		must_go_on(&talk, TO_FULL, "X-Odd=NotUnderstood|");
		answer(&talk, TO_FULL, "");
		must_tell(&talk, TO_FULL,
		    "HeaderDigest=None|MaxRecvDataSegmentLength=8192|FirstBurstLength=512|"
		    "MaxBurstLength=1024|InitialR2T=Yes|ImmediateData=Yes|");
		talk_free(&talk);
	}
}

/* What is owed stays owed until the target has said all (6.2). */
Test(exchange, says_nothing_itself_while_the_target_has_not_said_all)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, OPERATIONAL, "X-A=1|");
	must_go_on(&talk, TO_FULL, "X-A=NotUnderstood|");
	answer(&talk, OPERATIONAL | MORE, "X-B=1|X-");
	must_go_on(&talk, TO_FULL, "");
	answer(&talk, OPERATIONAL | MORE, "C=1");
	must_go_on(&talk, TO_FULL, "");
	answer(&talk, OPERATIONAL, "|");
	must_go_on(&talk, TO_FULL, "X-B=NotUnderstood|X-C=NotUnderstood|");
	talk_free(&talk);
}

Test(exchange, goes_on_by_itself_and_offers_nothing_again_where_the_target_does_not_end_the_stage)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, OPERATIONAL, "MaxBurstLength=512|");
	must_go_on(&talk, TO_FULL, "");
	answer(&talk, OPERATIONAL, "FirstBurstLength=512|HeaderDigest=None|");
	must_go_on(&talk, TO_FULL, "");
	answer(&talk, TO_FULL, "InitialR2T=No|");
	must_tell(&talk, TO_FULL,
	    "HeaderDigest=None|MaxRecvDataSegmentLength=8192|FirstBurstLength=512|"
	    "MaxBurstLength=512|InitialR2T=No|ImmediateData=Yes|");
	talk_free(&talk);
}

/* ---- what the target offers ---- */

Test(exchange, answers_each_key_of_the_target_once_as_the_standard_has_it)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, OPERATIONAL,
	    "X-org.lunfs=1|IFMarker=Yes|OFMarker=Yes|IFMarkInt=2048~8192|OFMarkInt=2048|"
	    "TaskReporting=FastAbort,RFC3720|RDMAExtensions=No|");
	must_go_on(&talk, TO_FULL,
	    "X-org.lunfs=NotUnderstood|IFMarker=Reject|OFMarker=Reject|IFMarkInt=Reject|"
	    "OFMarkInt=Reject|TaskReporting=RFC3720|RDMAExtensions=NotUnderstood|");
	/* declared, answered before, answers to us, or none of these */
	answer(&talk, OPERATIONAL,
	    "X-org.lunfs=2|IFMarker=No|TargetAlias=it|TargetPortalGroupTag=1|TargetName=iqn.t|"
	    "TargetAddress=10.0.0.1|MaxBurstLength=1024|CHAP_A=5|X-2=Irrelevant|X-3=Reject|"
	    "X-4=NotUnderstood|no pair|=nothing|InitiatorName=iqn.i|");
	must_go_on(&talk, TO_FULL, "");
	answer(&talk, OPERATIONAL, "X-5=|=|==|");
	must_go_on(&talk, TO_FULL, "X-5=NotUnderstood|");
	talk_free(&talk);
}

Test(exchange, has_no_use_for_keys_of_data_in_a_discovery)
{
	struct talk talk = talk_discovery();

	ask(&talk, TO_OPERATIONAL, "InitiatorName=iqn.i|SessionType=Discovery|AuthMethod=None|");
	answer(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	ask(&talk, TO_FULL, OFFER);
	must_ask(&talk, TO_FULL,
	    "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|"
	    "ErrorRecoveryLevel=0|MaxRecvDataSegmentLength=262144|");
	answer(&talk, OPERATIONAL,
	    "MaxBurstLength=512|FirstBurstLength=512|ImmediateData=No|InitialR2T=No|"
	    "MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|");
	must_go_on(&talk, TO_FULL,
	    "MaxBurstLength=Irrelevant|FirstBurstLength=Irrelevant|ImmediateData=Irrelevant|"
	    "InitialR2T=Irrelevant|MaxOutstandingR2T=Irrelevant|MaxConnections=Irrelevant|"
	    "DataPDUInOrder=Irrelevant|DataSequenceInOrder=Irrelevant|");
	answer(&talk, TO_FULL, "");
	must_tell(&talk, TO_FULL, STANDARD);
	talk_free(&talk);
}

Test(exchange, sends_what_it_owes_with_libiscsis_next_request)
{
	struct talk talk = talk_chap();

	ask(&talk, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
	answer(&talk, SECURITY, "AuthMethod=CHAP|X-Odd=1|");
	must_tell(&talk, SECURITY, "AuthMethod=CHAP|");
	ask(&talk, SECURITY, "CHAP_A=5|");
	must_ask(&talk, SECURITY, "CHAP_A=5|X-Odd=NotUnderstood|");
	answer(&talk, SECURITY, "");
	must_go_on(&talk, SECURITY, "");
	talk_free(&talk);
}

/* 8192 bytes: what a target takes at a login (13.12). */
Test(exchange, owes_no_more_than_a_PDU_holds_and_no_answer_to_a_name_that_is_none)
{
	struct talk talk = talk_plain();
	g_autoptr(GString) text = g_string_new(NULL);
	g_autofree char *name = g_strnfill(64, 'x');

	come_to_operational(&talk);
	g_string_append_printf(text, "%s=1|%s=1|", name, name + 1);
	answer(&talk, OPERATIONAL, text->str);
	g_string_printf(text, "%s=NotUnderstood|", name + 1);
	must_go_on(&talk, TO_FULL, text->str);
	g_string_truncate(text, 0);
	for (unsigned i = 0; i < 4000; i++)
		g_string_append_printf(text, "X-%u=1|", i);
	answer(&talk, OPERATIONAL, text->str);
	cr_assert_eq(talk.verdict, EXCHANGE_ANSWER);
	cr_assert_lt(talk.out->len, 4096 + 48 + 100);
	cr_assert_gt(talk.out->len, 4096);
	talk_free(&talk);
}

/* ---- bounds ---- */

Test(exchange, takes_64_KiB_of_an_answer_and_no_more)
{
	g_autofree char *half = g_strnfill(32u << 10, 'x');
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer_bytes(&talk, OPERATIONAL | MORE, half, 32u << 10);
	must_go_on(&talk, TO_FULL, "");
	answer_bytes(&talk, OPERATIONAL | MORE, half, 32u << 10);
	must_go_on(&talk, TO_FULL, "");
	answer_bytes(&talk, OPERATIONAL | MORE, "", 1);
	must_refuse(&talk, "sends login text without end");
	talk_free(&talk);
}

Test(exchange, lets_the_target_go_on_for_16_rounds_and_512_answers)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	for (unsigned i = 0; i < 16; i++) {
		answer(&talk, OPERATIONAL, "");
		must_go_on(&talk, TO_FULL, "");
	}
	answer(&talk, OPERATIONAL, "");
	must_refuse(&talk, "does not come to the end of the login (18 answers)");
	talk_free(&talk);

	talk = talk_plain();
	come_to_operational(&talk); /* one */
	for (unsigned i = 1; i < 512; i++) {
		answer(&talk, OPERATIONAL | MORE, "");
		must_go_on(&talk, TO_FULL, "");
	}
	answer(&talk, OPERATIONAL | MORE, "");
	must_refuse(&talk, "does not come to the end of the login (513 answers)");
	talk_free(&talk);
}

Test(exchange, counts_rounds_anew_when_a_stage_is_over)
{
	struct talk talk = talk_plain();

	ask(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	for (unsigned i = 0; i < 16; i++)
		answer(&talk, SECURITY, "");
	answer(&talk, TO_OPERATIONAL, "");
	must_tell(&talk, TO_OPERATIONAL, "");
	ask(&talk, TO_FULL, OFFER);
	for (unsigned i = 0; i < 16; i++)
		answer(&talk, OPERATIONAL, "");
	must_go_on(&talk, TO_FULL, "");
	talk_free(&talk);
}

/* ---- the end ---- */

static void fail_with(struct talk *talk, int status, const char *written)
{
	uint8_t header[PDU_HEADER_LENGTH];
	g_autoptr(GString) text = text_of(written);

	login_response(header, talk, OPERATIONAL | MORE);
	header[3] = 9; /* nothing else in it counts */
	put_be16(header + 36, (uint16_t)status);
	talk_response(talk, header, text->str, text->len);
}

Test(exchange, passes_a_failure_with_its_status_alone)
{
	static const int statuses[] = {0x0101, 0x0201, 0x020b, 0x0300, 0xff00};

	for (unsigned i = 0; i < G_N_ELEMENTS(statuses); i++) {
		struct talk talk = talk_plain();

		cr_assert_eq(exchange_status(talk_exchange(&talk)), -1);
		come_to_operational(&talk);
		cr_assert_eq(exchange_status(talk.exchange), 0);
		fail_with(&talk, statuses[i], "MaxBurstLength=1|Words=of no use|");
		must_tell(&talk, OPERATIONAL, "");
		cr_assert_eq(get_be16(talk.out->data + 36), statuses[i]);
		cr_assert_eq(exchange_status(talk.exchange), statuses[i]);
		cr_assert_null(exchange_fault(talk.exchange));
		cr_assert_null(exchange_redirect(talk.exchange));
		cr_assert_not(exchange_is_over(talk.exchange));
		talk_free(&talk);
	}
}

Test(exchange, notes_the_first_address_of_a_redirection_that_can_be_one)
{
	struct talk talk = talk_plain();
	g_autofree char *far = g_strnfill(301, 'x');
	g_autofree char *said = g_strdup_printf(
	    "TargetAddress=%s|TargetAddress=10.0.0.1:3260,1|TargetAddress=10.0.0.2|", far);

	ask(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	fail_with(&talk, 0x0102, said);
	must_tell(&talk, OPERATIONAL, "");
	cr_assert_str_eq(exchange_redirect(talk.exchange), "10.0.0.1:3260,1");
	talk_free(&talk);
}

Test(exchange, keeps_the_headers_of_the_last_request_and_answer)
{
	static const uint8_t zeros[PDU_HEADER_LENGTH];
	struct talk talk = talk_plain();

	cr_assert_arr_eq(exchange_last_request(talk_exchange(&talk)), zeros, sizeof zeros);
	cr_assert_arr_eq(exchange_last_response(talk.exchange), zeros, sizeof zeros);
	come_to_operational(&talk);
	answer(&talk, OPERATIONAL, "");
	answer(&talk, TO_FULL, "");
	const uint8_t *request = exchange_last_request(talk.exchange);
	const uint8_t *response = exchange_last_response(talk.exchange);
	cr_assert_eq(request[1], TO_FULL);
	cr_assert_eq(get_be32(request + 24), 77);
	cr_assert_eq(get_be32(request + 28), talk.statsn);
	cr_assert_eq(response[1], TO_FULL);
	cr_assert_eq(get_be32(response + 24), talk.statsn);
	talk_free(&talk);
}

/* ---- hostile targets ---- */

static const char *const pairs[] = {"AuthMethod=CHAP", "AuthMethod=None", "CHAP_A=5", "CHAP_A=0x5",
    "CHAP_I=1", "CHAP_C=0x01", "CHAP_C=0bAQID", "CHAP_N=it", "CHAP_R=0x0123", "HeaderDigest=None",
    "MaxBurstLength=512", "X-odd=1", "TargetAddress=1.2.3.4", "IFMarker=Yes", "=", "MaxBurst"};

static size_t mutated_text(struct dice *dice, char *text, size_t most)
{
	size_t length = 0;

	for (uint64_t i = dice_between(dice, 0, 6); i > 0; i--) {
		const char *pair = pairs[dice_roll(dice) % G_N_ELEMENTS(pairs)];

		length += g_strlcpy(text + length, pair, most - length) + 1;
	}
	for (uint64_t i = dice_between(dice, 0, 3); i > 1 && length > 0; i--)
		text[dice_roll(dice) % length] = (char)dice_roll(dice);
	return dice_roll(dice) % 4 == 0 ? dice_between(dice, 0, length) : length;
}

/* Each of its answers is let out as one PDU that is whole, or it is the end. */
static void must_be_sound(const struct talk *talk)
{
	if (talk->verdict == EXCHANGE_REFUSE) {
		cr_assert_not_null(exchange_fault(talk->exchange));
		for (const char *c = exchange_fault(talk->exchange); *c; c++)
			cr_assert(*c >= ' ', "%s", exchange_fault(talk->exchange));
		return;
	}
	cr_assert_geq(talk->out->len, PDU_HEADER_LENGTH);
	cr_assert_eq((PDU_HEADER_LENGTH + get_be32(talk->out->data + 4) + 3) & ~3u, talk->out->len);
}

Test(exchange, any_answers_do_no_harm)
{
	static struct talk (*const kinds[])(void) = {
	    talk_plain, talk_chap, talk_mutual, talk_discovery};
	static const uint8_t flags[] = {0x00, 0x04, 0x81, 0x87, 0x40, 0x44, 0x83, 0xc7};
	struct dice dice = {41};
	char text[400];

	for (unsigned round = 0; round < 3000; round++) {
		struct talk talk = kinds[round % G_N_ELEMENTS(kinds)]();

		ask(&talk, round % 3 ? TO_OPERATIONAL : TO_FULL, "AuthMethod=CHAP,None|");
		for (unsigned i = 0; i < 12 && talk.verdict != EXCHANGE_REFUSE; i++) {
			uint8_t header[PDU_HEADER_LENGTH];

			login_response(header, &talk, flags[dice_roll(&dice) % sizeof flags]);
			if (dice_roll(&dice) % 2)
				header[1] = exchange_last_request(talk.exchange)[1];
			if (dice_roll(&dice) % 16 == 0)
				header[dice_roll(&dice) % sizeof header] =
				    (uint8_t)dice_roll(&dice);
			talk_response(&talk, header, text, mutated_text(&dice, text, sizeof text));
			must_be_sound(&talk);
			if (talk.verdict == EXCHANGE_PASS)
				ask(&talk, flags[dice_roll(&dice) % 4],
				    "CHAP_A=5|CHAP_N=me|CHAP_R=0x0123|CHAP_I=1|CHAP_C=0x02|");
		}
		g_strfreev(keys_outcome(exchange_keys(talk.exchange)));
		talk_free(&talk);
	}
}
