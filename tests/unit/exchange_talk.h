/*
 * exchange_talk.h - libiscsi and a target that talk through an exchange: the test is both.
 *
 * Texts are written with '|' for each NUL: "A=1|B=2|".
 */
#pragma once

#include "../../src/iscsi/exchange.h"

#include <criterion/criterion.h>
#include <string.h>

#include "../../src/iscsi/keys.h"
#include "lunfs/scsi.h"

/* Flags of Login PDUs (RFC 7143, 11.12, 11.13): the stage, and the one to come. */
enum {
	SECURITY = 0x00,
	TO_OPERATIONAL = 0x81,
	OPERATIONAL = 0x04,
	TO_FULL = 0x87,
	MORE = 0x40,
};

#define ITT 0x01020304u

/* What libiscsi says in the operational stage. */
#define OFFER                                                                                      \
	"HeaderDigest=None|DataDigest=None|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|" \
	"FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=0|MaxOutstandingR2T=1|"     \
	"ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|"                           \
	"MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|"
/* What it is told where the target says nothing. */
#define STANDARD                                                                                   \
	"HeaderDigest=None|MaxRecvDataSegmentLength=8192|FirstBurstLength=65536|"                  \
	"MaxBurstLength=262144|InitialR2T=Yes|ImmediateData=Yes|"

struct talk {
	struct login login;
	struct exchange *exchange;
	uint32_t statsn, cmdsn;
	enum exchange_verdict verdict;
	GByteArray *out;
};

static inline struct talk talk_new(struct login login)
{
	struct talk talk = {.login = login, .statsn = 0xfffffffe, .cmdsn = 77};

	talk.out = g_byte_array_new();
	return talk;
}

static inline struct talk talk_plain(void)
{
	return talk_new((struct login){.target = "iqn.t"});
}

static inline struct talk talk_chap(void)
{
	return talk_new((struct login){.target = "iqn.t", .username = "me", .password = "secret"});
}

static inline struct talk talk_mutual(void)
{
	return talk_new((struct login){.target = "iqn.t",
	    .username = "me",
	    .password = "secret",
	    .username_in = "it",
	    .password_in = "other"});
}

static inline struct talk talk_discovery(void)
{
	return talk_new((struct login){.target = NULL});
}

static inline void talk_free(struct talk *talk)
{
	exchange_free(talk->exchange);
	g_byte_array_unref(talk->out);
}

static inline GString *text_of(const char *written)
{
	GString *text = g_string_new(written);

	for (gsize i = 0; i < text->len; i++)
		if (text->str[i] == '|')
			text->str[i] = '\0';
	return text;
}

/* The login is in the talk: its address does not change any more. */
static inline struct exchange *talk_exchange(struct talk *talk)
{
	if (talk->exchange == NULL)
		talk->exchange = exchange_new(&talk->login);
	return talk->exchange;
}

static inline void talk_request(
    struct talk *talk, const uint8_t *header, const void *data, size_t length)
{
	g_byte_array_set_size(talk->out, 0);
	talk->verdict =
	    exchange_request(talk_exchange(talk), &(struct pdu){header, data, length}, talk->out);
}

static inline void talk_response(
    struct talk *talk, const uint8_t *header, const void *data, size_t length)
{
	g_byte_array_set_size(talk->out, 0);
	talk->verdict =
	    exchange_response(talk_exchange(talk), &(struct pdu){header, data, length}, talk->out);
}

/* libiscsi's Login Request: immediate. */
static inline void ask(struct talk *talk, int flags, const char *written)
{
	uint8_t header[PDU_HEADER_LENGTH] = {0x43, (uint8_t)flags, [8] = 0x80, [20] = 0};
	g_autoptr(GString) text = text_of(written);

	put_be32(header + 16, ITT);
	put_be32(header + 24, talk->cmdsn);
	put_be32(header + 28, talk->statsn + 1);
	talk_request(talk, header, text->str, text->len);
}

static inline void login_response(uint8_t *header, struct talk *talk, int flags)
{
	memset(header, 0, PDU_HEADER_LENGTH);
	header[0] = 0x23;
	header[1] = (uint8_t)flags;
	put_be32(header + 16, ITT);
	put_be32(header + 24, ++talk->statsn);
}

static inline void answer_bytes(struct talk *talk, int flags, const void *text, size_t length)
{
	uint8_t header[PDU_HEADER_LENGTH];

	login_response(header, talk, flags);
	talk_response(talk, header, text, length);
}

/* The target's Login Response. */
static inline void answer(struct talk *talk, int flags, const char *written)
{
	g_autoptr(GString) text = text_of(written);

	answer_bytes(talk, flags, text->str, text->len);
}

/* ---- what came of it ---- */

/* out is one PDU, whole, with this opcode, flags and text, and zeros behind it. */
static inline void must_be_pdu(const struct talk *talk, int opcode, int flags, const char *written)
{
	g_autoptr(GString) text = text_of(written);
	guint padded = PDU_HEADER_LENGTH + (((guint)text->len + 3) & ~3u);
	const uint8_t *out = talk->out->data;

	cr_assert_eq(talk->out->len, padded, "%u bytes, not %u", talk->out->len, padded);
	cr_assert_eq(out[0], opcode, "opcode %02x", out[0]);
	cr_assert_eq(out[1], flags, "flags %02x, not %02x", out[1], (unsigned)flags);
	cr_assert_eq(get_be32(out + 4), text->len);
	cr_assert_eq(get_be32(out + 16), ITT);
	for (gsize i = 0; i < text->len; i++)
		cr_assert_eq(out[PDU_HEADER_LENGTH + i], (uint8_t)text->str[i],
		    "from byte %zu on it is: %s", i, (const char *)out + PDU_HEADER_LENGTH + i);
	for (gsize i = text->len; i + PDU_HEADER_LENGTH < padded; i++)
		cr_assert_eq(out[PDU_HEADER_LENGTH + i], 0, "padding");
}

/* libiscsi's request goes to the target like this. */
static inline void must_ask(const struct talk *talk, int flags, const char *written)
{
	cr_assert_eq(talk->verdict, EXCHANGE_PASS);
	must_be_pdu(talk, 0x43, flags, written);
}

/* The target's answer is answered like this. */
static inline void must_go_on(const struct talk *talk, int flags, const char *written)
{
	const char *fault = exchange_fault(talk->exchange);

	cr_assert_eq(
	    talk->verdict, EXCHANGE_ANSWER, "%d %s", (int)talk->verdict, fault ? fault : "");
	must_be_pdu(talk, 0x43, flags, written);
	cr_assert_eq(get_be32(talk->out->data + 24), talk->cmdsn);
	cr_assert_eq(get_be32(talk->out->data + 28), talk->statsn + 1, "ExpStatSN");
}

/* libiscsi reads this. */
static inline void must_tell(const struct talk *talk, int flags, const char *written)
{
	const char *fault = exchange_fault(talk->exchange);

	cr_assert_eq(talk->verdict, EXCHANGE_PASS, "%d %s", (int)talk->verdict, fault ? fault : "");
	must_be_pdu(talk, 0x23, flags, written);
	cr_assert_eq(get_be32(talk->out->data + 24), talk->statsn);
}

static inline void must_refuse(const struct talk *talk, const char *words)
{
	const char *fault = exchange_fault(talk->exchange);

	cr_assert_eq(talk->verdict, EXCHANGE_REFUSE, "'%s' was not found out", words);
	cr_assert_not_null(fault);
	cr_assert(strstr(fault, words), "'%s' is not in: %s", words, fault);
	cr_assert_eq(talk->out->len, 0);
}

/* ---- stages that are as they should be ---- */

/* libiscsi has made its offers. */
static inline void come_to_operational(struct talk *talk)
{
	ask(talk, TO_OPERATIONAL, "InitiatorName=iqn.i|SessionType=Normal|AuthMethod=CHAP,None|");
	answer(talk, TO_OPERATIONAL, "AuthMethod=None|");
	must_tell(talk, TO_OPERATIONAL, "");
	ask(talk, TO_FULL, OFFER);
	cr_assert_eq(talk->verdict, EXCHANGE_PASS);
}

static inline void must_be_over(const struct talk *talk)
{
	cr_assert(exchange_is_over(talk->exchange));
	cr_assert_null(exchange_fault(talk->exchange));
}
