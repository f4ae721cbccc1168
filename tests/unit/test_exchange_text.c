/*
 * test_exchange_text.c - the answer to SendTargets through the exchange (RFC 7143, 11.10, 11.11).
 */
#include <stdlib.h>

#include "exchange_talk.h"

#define FINAL  0x80
#define TTT    0x51525354u
#define NO_TTT 0xffffffffu

/* Logged in to discover. */
static struct talk talk_at_text(void)
{
	return talk_discovery();
}

static void log_in(struct talk *talk)
{
	come_to_operational(talk);
	answer(talk, TO_FULL, "");
	must_be_over(talk);
}

/* libiscsi's Text Request. */
static void ask_for_targets(struct talk *talk)
{
	uint8_t header[PDU_HEADER_LENGTH] = {0x44, FINAL};

	put_be32(header + 16, ITT);
	put_be32(header + 20, NO_TTT);
	put_be32(header + 24, talk->cmdsn);
	put_be32(header + 28, talk->statsn + 1);
	talk_request(talk, header, "SendTargets=All", 16);
	cr_assert_eq(talk->verdict, EXCHANGE_PASS);
	must_be_pdu(talk, 0x44, FINAL, "SendTargets=All|");
	cr_assert_eq(get_be32(talk->out->data + 20), NO_TTT);
}

static void text_bytes(struct talk *talk, int flags, uint32_t ttt, const void *text, size_t length)
{
	uint8_t header[PDU_HEADER_LENGTH] = {0x24, (uint8_t)flags, [8] = 0x12, [15] = 0x34};

	put_be32(header + 16, ITT);
	put_be32(header + 20, ttt);
	put_be32(header + 24, ++talk->statsn);
	talk_response(talk, header, text, length);
}

static void text(struct talk *talk, int flags, uint32_t ttt, const char *written)
{
	g_autoptr(GString) said = text_of(written);

	text_bytes(talk, flags, ttt, said->str, said->len);
}

/* An empty Text Request with the target's tag and LUN. */
static void must_fetch(const struct talk *talk, uint32_t ttt)
{
	const uint8_t *out = talk->out->data;

	cr_assert_eq(talk->verdict, EXCHANGE_ANSWER);
	must_be_pdu(talk, 0x44, FINAL, "");
	cr_assert_eq(out[8], 0x12);
	cr_assert_eq(out[15], 0x34);
	cr_assert_eq(get_be32(out + 20), ttt);
	cr_assert_eq(get_be32(out + 24), talk->cmdsn);
	cr_assert_eq(get_be32(out + 28), talk->statsn + 1);
	cr_assert_null(exchange_text(talk->exchange));
}

static void must_hold_text(const struct talk *talk, const char *written)
{
	g_autoptr(GString) expected = text_of(written);

	cr_assert_eq(talk->verdict, EXCHANGE_PASS);
	must_be_pdu(talk, 0x24, FINAL, "");
	cr_assert_not_null(exchange_text(talk->exchange));
	cr_assert(g_string_equal(exchange_text(talk->exchange), expected));
}

Test(exchange_text, keeps_the_text_and_tells_libiscsi_that_it_came)
{
	struct talk talk = talk_at_text();

	cr_assert_null(exchange_text(talk_exchange(&talk)));
	log_in(&talk);
	ask_for_targets(&talk);
	cr_assert_null(exchange_text(talk.exchange));
	text(&talk, FINAL, NO_TTT, "TargetName=iqn.1|TargetAddress=10.0.0.1,1|");
	must_hold_text(&talk, "TargetName=iqn.1|TargetAddress=10.0.0.1,1|");
	talk_free(&talk);
}

Test(exchange_text, no_targets_are_a_whole_text_too)
{
	struct talk talk = talk_at_text();

	log_in(&talk);
	ask_for_targets(&talk);
	text(&talk, FINAL, NO_TTT, "");
	must_hold_text(&talk, "");
	talk_free(&talk);
}

Test(exchange_text, reserved_flags_of_an_answer_are_not_looked_at)
{
	struct talk talk = talk_at_text();

	log_in(&talk);
	ask_for_targets(&talk);
	text(&talk, FINAL | 0x3f, NO_TTT, "TargetName=iqn.1|");
	must_hold_text(&talk, "TargetName=iqn.1|");
	talk_free(&talk);
}

Test(exchange_text, fetches_the_rest_of_an_answer_in_several_PDUs)
{
	/* C=1; C=1 and F=1, which may not be; F=0 alone */
	static const int flags[] = {0x40, FINAL | 0x40, 0x00};

	for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
		struct talk talk = talk_at_text();

		log_in(&talk);
		ask_for_targets(&talk);
		text(&talk, flags[i], TTT, "TargetName=iq");
		must_fetch(&talk, TTT);
		text(&talk, flags[i], TTT + 1, "");
		must_fetch(&talk, TTT + 1);
		text(&talk, flags[i], TTT, "n.1|Target");
		must_fetch(&talk, TTT);
		text(&talk, FINAL, NO_TTT, "Address=10.0.0.1,1|");
		must_hold_text(&talk, "TargetName=iqn.1|TargetAddress=10.0.0.1,1|");
		talk_free(&talk);
	}
}

Test(exchange_text, refuses_text_that_cannot_go_on)
{
	static const int flags[] = {0x40, 0x00};

	for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
		struct talk talk = talk_at_text();

		log_in(&talk);
		ask_for_targets(&talk);
		text(&talk, flags[i], NO_TTT, "TargetName=iqn.1|");
		must_refuse(&talk, "does not say how its text goes on (Target Transfer Tag)");
		cr_assert_null(exchange_text(talk.exchange));
		talk_free(&talk);
	}
}

Test(exchange_text, takes_4_MiB_and_no_more)
{
	struct talk talk = talk_at_text();
	g_autofree char *part = g_strnfill(256u << 10, 'x');

	log_in(&talk);
	ask_for_targets(&talk);
	for (unsigned i = 0; i < 16; i++) {
		text_bytes(&talk, 0x40, TTT, part, 256u << 10);
		must_fetch(&talk, TTT);
	}
	text_bytes(&talk, 0x40, TTT, part, 1);
	must_refuse(&talk, "sends text without end");
	talk_free(&talk);
}

Test(exchange_text, refuses_a_second_answer)
{
	struct talk talk = talk_at_text();

	log_in(&talk);
	ask_for_targets(&talk);
	text(&talk, FINAL, NO_TTT, "TargetName=iqn.1|");
	text(&talk, FINAL, NO_TTT, "TargetName=iqn.2|");
	must_refuse(&talk, "answers SendTargets twice");
	talk_free(&talk);
}

Test(exchange_text, begins_anew_with_each_request)
{
	struct talk talk = talk_at_text();

	log_in(&talk);
	ask_for_targets(&talk);
	text(&talk, FINAL, NO_TTT, "TargetName=iqn.1|");
	ask_for_targets(&talk);
	cr_assert_null(exchange_text(talk.exchange));
	text(&talk, FINAL, NO_TTT, "TargetName=iqn.2|");
	must_hold_text(&talk, "TargetName=iqn.2|");
	talk_free(&talk);
}

/* NOP-In, Async, Logout Response, Reject, and what answers another request. */
Test(exchange_text, passes_what_is_no_answer_to_it_as_it_is)
{
	static const uint8_t opcodes[] = {0x20, 0x32, 0x26, 0x3f, 0x24};

	for (unsigned i = 0; i < sizeof opcodes; i++) {
		struct talk talk = talk_at_text();
		uint8_t header[PDU_HEADER_LENGTH];

		log_in(&talk);
		ask_for_targets(&talk);
		memset(header, 0x11, sizeof header);
		header[0] = opcodes[i];
		talk_response(&talk, header, "abcde", 5);
		cr_assert_eq(talk.verdict, EXCHANGE_PASS);
		put_be32(header + 4, 5);
		cr_assert_eq(talk.out->len, PDU_HEADER_LENGTH + 8);
		cr_assert_arr_eq(talk.out->data, header, sizeof header);
		cr_assert_arr_eq(talk.out->data + PDU_HEADER_LENGTH, "abcde\0\0\0", 8);
		cr_assert_null(exchange_text(talk.exchange));
		talk_free(&talk);
	}
}
