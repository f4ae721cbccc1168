/*
 * test_relay.c - the relay between libiscsi and a target while they log in.
 *
 * The target and the user of the connection are the test itself, at the two ends; the loop is
 * turned by hand.
 */
#include "../../src/iscsi/relay.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <gio/gio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lunfs/loop.h"
#include "support/data.h"

#define HEADER         48u
#define LOGIN_RESPONSE 0x23
#define TEXT_RESPONSE  0x24
#define MOST           (256u << 10)
#define TO_CONTINUE    0x04 /* stages of the login: operational, and no transit */
#define TO_FULL        0x87 /* transit to the full feature phase */

struct ends {
	struct loop *loop;
	struct relay *relay;
	int user, target;
};

static struct ends ends_new(void)
{
	struct ends ends = {.loop = loop_new()};
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	ends.user = pair[0];
	ends.target = pair[1];
	ends.relay = relay_new(ends.loop, ends.user);
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

	g_byte_array_set_size(pdu, HEADER);
	memset(pdu->data, 0x11, HEADER);
	pdu->data[0] = (uint8_t)opcode;
	pdu->data[1] = (uint8_t)flags;
	pdu->data[4] = 0;
	pdu->data[5] = (uint8_t)(length >> 16);
	pdu->data[6] = (uint8_t)(length >> 8);
	pdu->data[7] = (uint8_t)length;
	pdu->data[36] = pdu->data[37] = 0; /* status */
	g_byte_array_append(pdu, data, (guint)length);
	g_byte_array_append(pdu, padding, -(guint)length & 3);
	return pdu;
}

/* What the user is to get of it, where it is a Login Response. */
static GByteArray *with_zero_padding(const GByteArray *pdu)
{
	GByteArray *copy = g_byte_array_new();
	size_t padding = -(size_t)pdu->data[7] & 3;

	g_byte_array_append(copy, pdu->data, pdu->len);
	memset(copy->data + copy->len - padding, 0, padding);
	return copy;
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

static void must_have_hung_up(struct ends *ends)
{
	char byte;

	cr_assert_eq(recv(ends->user, &byte, 1, 0), 0, "it did not hang up, or passed something");
}

/* ---- what passes ---- */

Test(relay, zeroes_the_padding_of_login_responses_and_nothing_else)
{
	for (size_t length = 0; length <= 9; length++) {
		struct ends ends = ends_new();
		g_autoptr(GByteArray) pdu =
		    pdu_new(LOGIN_RESPONSE, TO_CONTINUE, "K=V\0\xff\xfe\xfd\xfc\xfb", length);
		g_autoptr(GByteArray) expected = with_zero_padding(pdu);

		must_send(ends.target, pdu->data, pdu->len);
		turn(&ends);
		must_receive(ends.user, expected->data, expected->len);
		ends_free(&ends);
	}
}

Test(relay, passes_PDUs_that_are_no_login_responses_as_they_are)
{
	for (int opcode = 0; opcode < 0x40; opcode++) {
		struct ends ends = ends_new();
		/* what would end a login, were it a Login Response */
		g_autoptr(GByteArray) pdu = pdu_new(opcode, TO_FULL, "abcde", 5);

		if (opcode == LOGIN_RESPONSE)
			continue;
		must_send(ends.target, pdu->data, pdu->len);
		must_send(ends.target, pdu->data, pdu->len);
		turn(&ends);
		GByteArray *twice = g_byte_array_new();
		g_byte_array_append(twice, pdu->data, pdu->len);
		g_byte_array_append(twice, pdu->data, pdu->len);
		must_receive(ends.user, twice->data, twice->len);
		cr_assert_eq(relay_login_status(ends.relay), -1);
		g_byte_array_unref(twice);
		ends_free(&ends);
	}
}

Test(relay, passes_every_byte_to_the_target_as_it_is)
{
	struct ends ends = ends_new();
	unsigned char bytes[5000];
	struct dice dice = {7};

	for (size_t length = 1; length < sizeof(bytes) - 8; length = length * 3 + 1) {
		dice_fill(&dice, bytes, length);
		must_send(ends.user, bytes, length);
		turn(&ends);
		must_receive(ends.target, bytes, length);
	}
	ends_free(&ends);
}

Test(relay, waits_for_a_PDU_that_comes_byte_by_byte)
{
	struct ends ends = ends_new();
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_FULL, "Key=Value", 10);
	g_autoptr(GByteArray) expected = with_zero_padding(pdu);

	for (guint i = 0; i < pdu->len; i++) {
		must_receive(ends.user, NULL, 0);
		must_send(ends.target, pdu->data + i, 1);
		turn(&ends);
	}
	must_receive(ends.user, expected->data, expected->len);
	ends_free(&ends);
}

Test(relay, takes_several_PDUs_in_one_segment_apart)
{
	struct ends ends = ends_new();
	GByteArray *sent = g_byte_array_new(), *expected = g_byte_array_new();

	for (size_t i = 0; i < 20; i++) {
		g_autoptr(GByteArray) pdu = pdu_new(
		    i % 5 ? LOGIN_RESPONSE : TEXT_RESPONSE, TO_CONTINUE, "Some=Text", i % 10);
		g_autoptr(GByteArray) mended = with_zero_padding(pdu);
		const GByteArray *passed = i % 5 ? mended : pdu;

		g_byte_array_append(sent, pdu->data, pdu->len);
		g_byte_array_append(expected, passed->data, passed->len);
	}
	must_send(ends.target, sent->data, sent->len);
	turn(&ends);
	must_receive(ends.user, expected->data, expected->len);
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

Test(relay, loses_nothing_where_the_reader_is_slow)
{
	struct ends ends = ends_new();
	size_t length = MOST, sent = 0;
	unsigned char *data = aligned_buffer(length), *found = aligned_buffer(length + HEADER);

	pattern_fill(data, length, 0, 3);
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_CONTINUE, data, length);
	while (sent < pdu->len) {
		ssize_t n = send(ends.target, pdu->data + sent, pdu->len - sent, MSG_NOSIGNAL);

		cr_assert(n > 0 || errno == EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		turn(&ends);
	}
	cr_assert_eq(read_slowly(&ends, ends.user, found, pdu->len), pdu->len);
	cr_assert(first_difference(found, pdu->data, pdu->len) < 0);
	must_receive(ends.user, NULL, 0);

	/* and the other way, until the target's socket and the relay are full */
	for (sent = 0;;) {
		ssize_t n = send(ends.user, data + sent % 8192, 8192 - sent % 8192, MSG_NOSIGNAL);

		turn(&ends);
		if (n < 0)
			break;
		sent += (size_t)n;
	}
	unsigned char *back = aligned_buffer(sent);
	cr_assert_eq(read_slowly(&ends, ends.target, back, sent), sent);
	for (size_t i = 0; i < sent; i++)
		cr_assert_eq(back[i], data[i % 8192], "byte %zu", i);
	free(back);
	free(found);
	free(data);
	ends_free(&ends);
}

/* ---- the end of the login ---- */

Test(relay, leaves_what_follows_the_last_login_response_to_the_user)
{
	struct ends ends = ends_new();
	g_autoptr(GByteArray) last = pdu_new(LOGIN_RESPONSE, TO_FULL, "A=B", 4);
	const char next[] = "the first bytes of the next PDU";
	char found[sizeof(next)];

	GByteArray *together = g_byte_array_new();
	g_byte_array_append(together, last->data, last->len);
	g_byte_array_append(together, (const guint8 *)next, sizeof(next));
	must_send(ends.target, together->data, together->len);
	turn(&ends);
	must_receive(ends.user, last->data, last->len);
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

Test(relay, a_login_response_that_does_not_end_the_login_is_followed_by_more)
{
	/* transit, but to the operational stage; the next stage, but no transit */
	static const int flags[] = {0x81, 0x07, TO_CONTINUE};

	for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
		struct ends ends = ends_new();
		g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, flags[i], "A=B", 4);

		for (int k = 0; k < 2; k++) {
			must_send(ends.target, pdu->data, pdu->len);
			turn(&ends);
			must_receive(ends.user, pdu->data, pdu->len);
		}
		ends_free(&ends);
	}
}

Test(relay, notes_the_status_of_the_last_login_response)
{
	struct ends ends = ends_new();
	g_autoptr(GByteArray) good = pdu_new(LOGIN_RESPONSE, TO_CONTINUE, "", 0);
	g_autoptr(GByteArray) refusal = pdu_new(LOGIN_RESPONSE, TO_FULL, "", 0);

	cr_assert_eq(relay_login_status(NULL), -1);
	cr_assert_eq(relay_login_status(ends.relay), -1);
	must_send(ends.target, good->data, good->len);
	turn(&ends);
	cr_assert_eq(relay_login_status(ends.relay), 0);
	refusal->data[36] = 0x02;
	refusal->data[37] = 0x07;
	must_send(ends.target, refusal->data, refusal->len);
	turn(&ends);
	cr_assert_eq(relay_login_status(ends.relay), 0x0207);
	/* no refusal ends the relay's work */
	must_send(ends.target, good->data, good->len);
	turn(&ends);
	cr_assert_eq(relay_login_status(ends.relay), 0);
	ends_free(&ends);
}

/* The user's requests may come in pieces. */
Test(relay, notes_what_both_sides_agree_on)
{
	struct ends ends = ends_new();
	static const char offer[] = "MaxBurstLength=262144\0InitialR2T=No";
	static const char first[] = "MaxBurstLength=65", second[] = "536\0InitialR2T=No";
	/* Login Request, immediate; a response that is continued, and its rest */
	g_autoptr(GByteArray) request = pdu_new(0x43, 0x04, offer, sizeof(offer));
	g_autoptr(GByteArray) part = pdu_new(LOGIN_RESPONSE, 0x44, first, sizeof(first) - 1);
	g_autoptr(GByteArray) rest = pdu_new(LOGIN_RESPONSE, TO_FULL, second, sizeof(second));

	must_send(ends.user, request->data, 50);
	turn(&ends);
	must_send(ends.user, request->data + 50, request->len - 50);
	turn(&ends);
	must_send(ends.target, part->data, part->len);
	must_send(ends.target, rest->data, rest->len);
	turn(&ends);
	g_auto(GStrv) keys = relay_keys(ends.relay);
	g_autofree char *all = g_strjoinv(" ", keys);
	cr_assert(strstr(all, " MaxBurstLength 65536 "), "%s", all);
	cr_assert(strstr(all, " InitialR2T No "), "%s", all);
	ends_free(&ends);
}

/* ---- what does not pass ---- */

Test(relay, hangs_up_on_a_PDU_that_is_too_long)
{
	struct ends ends = ends_new();
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_FULL, "", 0);

	pdu->data[5] = 0x04; /* 256 KiB and a byte */
	pdu->data[7] = 0x01;
	must_send(ends.target, pdu->data, HEADER);
	turn(&ends);
	must_have_hung_up(&ends);
	ends_free(&ends);
}

Test(relay, hangs_up_on_additional_headers)
{
	struct ends ends = ends_new();
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_FULL, "abcd", 4);

	pdu->data[4] = 1;
	must_send(ends.target, pdu->data, pdu->len);
	turn(&ends);
	must_have_hung_up(&ends);
	ends_free(&ends);
}

static void login_text(const char *text, size_t length, bool passes)
{
	struct ends ends = ends_new();
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_FULL, text, length);
	g_autoptr(GByteArray) expected = with_zero_padding(pdu);

	must_send(ends.target, pdu->data, pdu->len);
	turn(&ends);
	if (passes)
		must_receive(ends.user, expected->data, expected->len);
	else
		must_have_hung_up(&ends);
	ends_free(&ends);
}
#define PASSES(text)        login_text(text, sizeof(text), true)
#define DOES_NOT_PASS(text) login_text(text, sizeof(text), false)

Test(relay, hangs_up_on_a_segment_length_that_libiscsi_would_cut_data_into_for_ever)
{
	DOES_NOT_PASS("MaxRecvDataSegmentLength=0");
	DOES_NOT_PASS("MaxRecvDataSegmentLength=000000");
	DOES_NOT_PASS("MaxRecvDataSegmentLength=511");
	DOES_NOT_PASS("MaxRecvDataSegmentLength=");
	DOES_NOT_PASS("MaxRecvDataSegmentLength=none");
	DOES_NOT_PASS("HeaderDigest=None\0MaxRecvDataSegmentLength=0\0DataDigest=None");
	PASSES("MaxRecvDataSegmentLength=512");
	PASSES("HeaderDigest=None\0MaxRecvDataSegmentLength=262144\0DataDigest=None");
	PASSES("X-MaxRecvDataSegmentLength=0");
	/* the text's last NUL is missing, with and without padding to take its place */
	login_text("MaxRecvDataSegmentLength=0", 26, false);
	login_text("MaxRecvDataSegmentLength=000", 28, false);
}

Test(relay, passes_the_end_of_the_connection_on)
{
	struct ends ends = ends_new();

	shutdown(ends.target, SHUT_RDWR);
	turn(&ends);
	must_have_hung_up(&ends);
	ends_free(&ends);

	ends = ends_new();
	g_autoptr(GByteArray) pdu = pdu_new(LOGIN_RESPONSE, TO_CONTINUE, "abcd", 4);
	must_send(ends.target, pdu->data, HEADER + 2);
	shutdown(ends.target, SHUT_RDWR);
	turn(&ends);
	must_have_hung_up(&ends); /* and half a PDU is none */
	ends_free(&ends);
}
