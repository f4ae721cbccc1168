/*
 * test_relay.c - the relay between libiscsi and a target while they log in: whole PDUs, and whose
 * the connection is. What they say to each other: test_exchange.c.
 *
 * The target and the user of the connection are the test itself, at the two ends; the loop is
 * turned by hand.
 */
#include "../../src/iscsi/relay.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lunfs/loop.h"
#include "lunfs/scsi.h"
#include "support/data.h"

#define LOGIN_REQUEST  0x43 /* immediate */
#define LOGIN_RESPONSE 0x23
#define NOP_IN         0x20
#define MOST           (256u << 10)
#define GO_ON          0x04 /* flags of a login: operational, and no transit */
#define TO_FULL        0x87 /* transit to the full feature phase */

/* What the user reads where nothing was negotiated. */
static const char standard[] = "HeaderDigest=None\0MaxRecvDataSegmentLength=8192\0"
                               "FirstBurstLength=65536\0MaxBurstLength=262144\0"
                               "InitialR2T=Yes\0ImmediateData=Yes";

static const struct login to_target = {.target = "iqn.t"}, to_discover = {.target = NULL};

struct ends {
	struct loop *loop;
	struct relay *relay;
	int user, target;
};

static struct ends ends_new(const struct login *login)
{
	struct ends ends = {.loop = loop_new()};
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	ends.user = pair[0];
	ends.target = pair[1];
	ends.relay = relay_new(ends.loop, ends.user, login);
	cr_assert_not_null(ends.relay);
	return ends;
}

static void ends_free(struct ends *ends)
{
	relay_free(ends->relay);
	close(ends->user);
	close(ends->target);
	loop_free(ends->loop);
}

/* Until nothing is left to do. */
static void turn(struct ends *ends)
{
	while (g_main_context_iteration(loop_context(ends->loop), FALSE))
		;
}

/* A PDU whose padding is 0xa5. */
static GByteArray *pdu_new(int opcode, int flags, const void *data, size_t length)
{
	GByteArray *pdu = g_byte_array_new();
	const uint8_t padding[] = {0xa5, 0xa5, 0xa5};

	g_byte_array_set_size(pdu, PDU_HEADER_LENGTH);
	memset(pdu->data, 0, PDU_HEADER_LENGTH);
	pdu->data[0] = (uint8_t)opcode;
	pdu->data[1] = (uint8_t)flags;
	put_be32(pdu->data + 4, (uint32_t)length);
	put_be32(pdu->data + 16, 0x11223344); /* ITT */
	if (length > 0)
		g_byte_array_append(pdu, data, (guint)length);
	g_byte_array_append(pdu, padding, -(guint)length & 3);
	return pdu;
}

/* What is to come of it: that text, and zeros behind it. */
static GByteArray *with_text(const GByteArray *pdu, const void *data, size_t length)
{
	GByteArray *other = pdu_new(pdu->data[0], pdu->data[1], data, length);

	memcpy(other->data, pdu->data, PDU_HEADER_LENGTH);
	put_be32(other->data + 4, (uint32_t)length);
	memset(other->data + PDU_HEADER_LENGTH + length, 0, -length & 3);
	return other;
}

static void must_send(int fd, const void *bytes, size_t length)
{
	cr_assert_eq(send(fd, bytes, length, MSG_NOSIGNAL), (ssize_t)length, "%s", strerror(errno));
}

/* Nothing but these bytes have come to fd. */
static void must_receive(int fd, const void *expected, size_t length)
{
	g_autofree char *found = g_malloc(length + 1);
	ssize_t n = recv(fd, found, length + 1, 0);

	if (length == 0) {
		cr_assert(
		    n < 0 && errno == EAGAIN, "%zd bytes, or an end, came instead of nothing", n);
		return;
	}
	cr_assert_eq(n, (ssize_t)length);
	ssize_t at = first_difference(found, expected, length);
	cr_assert(at < 0, "byte %zd is %02x", at, (unsigned char)found[at]);
}

static void must_have_received(int fd, const GByteArray *pdu)
{
	must_receive(fd, pdu->data, pdu->len);
}

static void must_have_hung_up(struct ends *ends)
{
	char byte;

	cr_assert_eq(recv(ends->user, &byte, 1, 0), 0, "it did not hang up, or passed something");
}

/* The user's Login Request has come to the target. */
static void ask(struct ends *ends)
{
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_REQUEST, TO_FULL, "DataDigest=None", 16);
	g_autoptr(GByteArray) expected = with_text(pdu, "DataDigest=None", 16);

	must_send(ends->user, pdu->data, pdu->len);
	turn(ends);
	must_have_received(ends->target, expected);
}

/* ---- whole PDUs ---- */

Test(relay, takes_no_padding_for_text_and_sends_zeros_there)
{
	static const char text[] = "X-One=1";

	for (size_t length = 4; length < sizeof text; length++) {
		struct ends ends = ends_new(&to_target);
		g_autoptr(GByteArray) pdu = pdu_new(LOGIN_REQUEST, TO_FULL, text, length);
		g_autofree char *said = g_strndup(text, length);
		bool is_pair = strchr(said, '=') != NULL;
		g_autoptr(GByteArray) expected = with_text(pdu, said, is_pair ? length + 1 : 0);

		must_send(ends.user, pdu->data, pdu->len);
		turn(&ends);
		must_have_received(ends.target, expected);
		ends_free(&ends);
	}
}

Test(relay, waits_for_PDUs_that_come_byte_by_byte_from_either_side)
{
	struct ends ends = ends_new(&to_target);
	g_autoptr(GByteArray) request = pdu_new(LOGIN_REQUEST, TO_FULL, "InitialR2T=No", 14);
	g_autoptr(GByteArray) sent = with_text(request, "InitialR2T=No", 14);
	g_autoptr(GByteArray) response = pdu_new(LOGIN_RESPONSE, TO_FULL, "X=1", 3);
	g_autoptr(GByteArray) told = with_text(response, standard, sizeof standard);

	for (guint i = 0; i < request->len; i++) {
		must_receive(ends.target, NULL, 0);
		must_send(ends.user, request->data + i, 1);
		turn(&ends);
	}
	must_have_received(ends.target, sent);
	for (guint i = 0; i < response->len; i++) {
		must_receive(ends.user, NULL, 0);
		must_send(ends.target, response->data + i, 1);
		turn(&ends);
	}
	must_have_received(ends.user, told);
	ends_free(&ends);
}

Test(relay, sends_an_answer_back_to_the_target_and_the_user_sees_nothing_of_it)
{
	struct ends ends = ends_new(&to_target);
	g_autoptr(GByteArray) offer = pdu_new(LOGIN_RESPONSE, GO_ON, "X=1", 4);
	g_autoptr(GByteArray) owed = pdu_new(LOGIN_REQUEST, TO_FULL, "X=NotUnderstood", 16);

	ask(&ends);
	must_send(ends.target, offer->data, offer->len);
	turn(&ends);
	put_be32(owed->data + 28, 1); /* ExpStatSN */
	must_have_received(ends.target, owed);
	must_receive(ends.user, NULL, 0);
	ends_free(&ends);
}

Test(relay, takes_several_PDUs_in_one_segment_apart)
{
	struct ends ends = ends_new(&to_discover);
	GByteArray *sent = g_byte_array_new(), *expected = g_byte_array_new();
	g_autoptr(GByteArray) last = pdu_new(LOGIN_RESPONSE, TO_FULL, "", 0);
	g_autoptr(GByteArray) told = with_text(last, standard, sizeof standard);

	ask(&ends);
	g_byte_array_append(sent, last->data, last->len);
	g_byte_array_append(expected, told->data, told->len);
	for (size_t i = 0; i < 20; i++) {
		g_autoptr(GByteArray) pdu = pdu_new(NOP_IN, 0x80, "Some data", i % 10);
		g_autoptr(GByteArray) passed = with_text(pdu, "Some data", i % 10);

		g_byte_array_append(sent, pdu->data, pdu->len);
		g_byte_array_append(expected, passed->data, passed->len);
	}
	must_send(ends.target, sent->data, sent->len);
	turn(&ends);
	must_have_received(ends.user, expected);
	g_byte_array_unref(sent);
	g_byte_array_unref(expected);
	ends_free(&ends);
}

/* Reads what has come, at most length bytes; turns the loop while none has. */
static size_t read_slowly(struct ends *ends, int fd, unsigned char *into, size_t length)
{
	size_t have = 0;

	for (unsigned idle = 0; have < length && idle < 100;) {
		ssize_t n = recv(fd, into + have, MIN(length - have, 1000), 0);

		idle = n > 0 ? 0 : idle + 1;
		have += n > 0 ? (size_t)n : 0;
		turn(ends);
	}
	return have;
}

/* Sends PDUs of the largest size until nothing goes any more; how many bytes went. */
static size_t fill(struct ends *ends, int fd, const GByteArray *pdu)
{
	size_t sent = 0;

	for (unsigned idle = 0; idle < 3;) {
		size_t at = sent % pdu->len;
		ssize_t n = send(fd, pdu->data + at, pdu->len - at, MSG_NOSIGNAL);

		turn(ends);
		idle = n > 0 ? 0 : idle + 1;
		sent += n > 0 ? (size_t)n : 0;
	}
	return sent;
}

/* The kernel's buffers, and a PDU at either side of the relay: it does not grow. */
Test(relay, loses_nothing_where_the_reader_is_slow_and_holds_no_more_than_a_PDU)
{
	struct ends ends = ends_new(&to_discover);
	unsigned char *data = aligned_buffer(MOST), *found = aligned_buffer(16u << 20);
	int sides[] = {ends.user, ends.target, ends.user};
	g_autoptr(GByteArray) last = pdu_new(LOGIN_RESPONSE, TO_FULL, "", 0);
	g_autoptr(GByteArray) told = with_text(last, standard, sizeof standard);

	pattern_fill(data, MOST, 0, 3);
	ask(&ends);
	must_send(ends.target, last->data, last->len);
	turn(&ends);
	must_have_received(ends.user, told);
	for (unsigned i = 0; i < 2; i++) {
		g_autoptr(GByteArray) pdu = pdu_new(NOP_IN, 0x80, data, MOST);
		size_t sent = fill(&ends, sides[i], pdu);

		cr_assert_lt(sent, 8u << 20);
		sent -= sent % pdu->len; /* the last is not whole, and stays */
		cr_assert_eq(read_slowly(&ends, sides[i + 1], found, sent), sent);
		for (size_t at = 0; at < sent; at += pdu->len)
			cr_assert(first_difference(found + at, pdu->data, pdu->len) < 0);
	}
	free(found);
	free(data);
	ends_free(&ends);
}

/* ---- the end of the login ---- */

Test(relay, leaves_what_follows_the_last_login_response_to_the_user)
{
	struct ends ends = ends_new(&to_target);
	g_autoptr(GByteArray) last = pdu_new(LOGIN_RESPONSE, TO_FULL, "A=B", 4);
	g_autoptr(GByteArray) told = with_text(last, standard, sizeof standard);
	const char next[] = "the first bytes of the next PDU";
	char found[sizeof(next)];

	ask(&ends);
	GByteArray *together = g_byte_array_new();
	g_byte_array_append(together, last->data, last->len);
	g_byte_array_append(together, (const guint8 *)next, sizeof(next));
	must_send(ends.target, together->data, together->len);
	turn(&ends);
	must_have_received(ends.user, told);
	cr_assert(exchange_is_over(relay_exchange(ends.relay)));
	must_send(ends.target, next, sizeof(next));
	turn(&ends);
	must_receive(ends.user, NULL, 0);

	relay_free(g_steal_pointer(&ends.relay));
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(recv(ends.user, found, sizeof(found), 0), (ssize_t)sizeof(found));
		cr_assert_str_eq(found, next);
	}
	must_send(ends.user, "hello", 5);
	must_receive(ends.target, "hello", 5);
	g_byte_array_unref(together);
	ends_free(&ends);
}

Test(relay, stays_for_a_discovery)
{
	struct ends ends = ends_new(&to_discover);
	g_autoptr(GByteArray) last = pdu_new(LOGIN_RESPONSE, TO_FULL, "", 0);
	g_autoptr(GByteArray) told = with_text(last, standard, sizeof standard);
	g_autoptr(GByteArray) request = pdu_new(0x44, 0x80, "SendTargets=All", 16);
	g_autoptr(GByteArray) part = pdu_new(0x24, 0x40, "TargetName=iq", 13);
	g_autoptr(GByteArray) rest = pdu_new(0x24, 0x80, "n.a", 4);
	g_autoptr(GByteArray) fetch = pdu_new(0x44, 0x80, "", 0);
	g_autoptr(GByteArray) whole = pdu_new(0x24, 0x80, "", 0);

	put_be32(fetch->data + 28, 1); /* ExpStatSN */
	ask(&ends);
	must_send(ends.target, last->data, last->len);
	turn(&ends);
	must_have_received(ends.user, told);
	must_send(ends.user, request->data, request->len);
	turn(&ends);
	must_have_received(ends.target, request);
	must_send(ends.target, part->data, part->len);
	turn(&ends);
	must_have_received(ends.target, fetch);
	must_receive(ends.user, NULL, 0);
	must_send(ends.target, rest->data, rest->len);
	turn(&ends);
	must_have_received(ends.user, whole);
	const GString *text = exchange_text(relay_exchange(ends.relay));
	cr_assert_eq(text->len, 17);
	cr_assert_arr_eq(text->str, "TargetName=iqn.a", 17);
	ends_free(&ends);
}

/* ---- what does not pass ---- */

Test(relay, hangs_up_where_the_exchange_refuses_and_passes_nothing_of_it)
{
	struct ends ends = ends_new(&to_target);
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_FULL, "MaxBurstLength=0", 17);

	ask(&ends);
	must_send(ends.target, pdu->data, pdu->len);
	must_send(ends.target, pdu->data, pdu->len);
	turn(&ends);
	must_have_hung_up(&ends);
	must_receive(ends.target, NULL, 0);
	cr_assert_not_null(exchange_fault(relay_exchange(ends.relay)));
	ends_free(&ends);
}

Test(relay, hangs_up_on_a_PDU_that_is_too_long)
{
	struct ends ends = ends_new(&to_target);
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_FULL, "", 0);

	ask(&ends);
	put_be32(pdu->data + 4, MOST + 1);
	must_send(ends.target, pdu->data, PDU_HEADER_LENGTH);
	turn(&ends);
	must_have_hung_up(&ends);
	ends_free(&ends);
}

Test(relay, hangs_up_on_additional_headers)
{
	struct ends ends = ends_new(&to_target);
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_FULL, "abcd", 4);

	ask(&ends);
	pdu->data[4] = 1;
	must_send(ends.target, pdu->data, pdu->len);
	turn(&ends);
	must_have_hung_up(&ends);
	ends_free(&ends);
}

Test(relay, passes_the_end_of_the_connection_on)
{
	struct ends ends = ends_new(&to_target);

	shutdown(ends.target, SHUT_RDWR);
	turn(&ends);
	must_have_hung_up(&ends);
	ends_free(&ends);

	ends = ends_new(&to_target);
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, GO_ON, "abcd", 4);
	must_send(ends.target, pdu->data, PDU_HEADER_LENGTH + 2);
	shutdown(ends.target, SHUT_RDWR);
	turn(&ends);
	must_have_hung_up(&ends); /* and half a PDU is none */
	ends_free(&ends);
}

Test(relay, passes_the_last_words_of_a_target_on_before_the_end)
{
	struct ends ends = ends_new(&to_target);
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, GO_ON, "", 0);

	ask(&ends);
	put_be16(pdu->data + 36, 0x0203);
	must_send(ends.target, pdu->data, pdu->len);
	shutdown(ends.target, SHUT_RDWR);
	turn(&ends);
	must_have_received(ends.user, pdu);
	must_have_hung_up(&ends);
	cr_assert_eq(exchange_status(relay_exchange(ends.relay)), 0x0203);
	ends_free(&ends);
}
