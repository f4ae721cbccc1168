/*
 * guard_bench.h - a guard between the two ends of a socketpair.
 *
 * The target is the test, at one end; libiscsi is the test too, at the other, and reads as it does:
 * a header, then the data; or in pieces of any size. Four commands are outstanding.
 */
#pragma once

#include "../../src/iscsi/digest.h"
#include "../../src/iscsi/guard.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEADER 48u
#define DIGEST 4u
#define MOST   (300u << 10)

enum {
	NOP_IN = 0x20,
	SCSI_RESPONSE = 0x21,
	TASK_RESPONSE = 0x22,
	LOGIN_RESPONSE = 0x23,
	TEXT_RESPONSE = 0x24,
	DATA_IN = 0x25,
	LOGOUT_RESPONSE = 0x26,
	R2T = 0x31,
	ASYNC = 0x32,
	REJECT = 0x3f,
};
/* The first wants all of its data, INQUIRY takes what comes. */
enum { READ_ITT = 7, WRITE_ITT = 8, PLAIN_ITT = 9, NO_ITT = 10, INQUIRY_ITT = 11 };
#define READ_LENGTH    4096u
#define WRITE_LENGTH   8192u
#define INQUIRY_LENGTH 255u
#define BROKE          "the target broke the protocol: "

struct ends {
	struct guard *guard;
	int user, target;
	bool digest;
};

/* The login is going on. */
static inline struct ends ends_connected(void)
{
	struct ends ends = {0};
	int pair[2], room = 4 << 20;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	ends.user = pair[0];
	ends.target = pair[1];
	setsockopt(ends.target, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	ends.guard = guard_new(ends.user);
	guard_watch(ends.guard);
	return ends;
}

/* It is over. */
static inline struct ends ends_logged_in(struct guard_session session)
{
	struct ends ends = ends_connected();

	guard_begin(ends.guard, &session);
	ends.digest = session.header_digest;
	guard_expect(ends.guard, READ_ITT, SCSI_DATA_IN, READ_LENGTH, true);
	guard_expect(ends.guard, WRITE_ITT, SCSI_DATA_OUT, WRITE_LENGTH, true);
	guard_expect(ends.guard, PLAIN_ITT, SCSI_NO_DATA, 0, false);
	guard_expect(ends.guard, INQUIRY_ITT, SCSI_DATA_IN, INQUIRY_LENGTH, false);
	return ends;
}

/* It is over, and nothing is known of it. */
static inline struct ends ends_new(bool digest)
{
	return ends_logged_in((struct guard_session){.header_digest = digest});
}

static inline void ends_free(struct ends *ends)
{
	guard_free(ends->guard);
	close(ends->user);
	close(ends->target);
}

/* What differs from a PDU that is right. */
struct pdu {
	uint8_t opcode, flags, byte2, status, ahs, event;
	uint32_t itt, ttt, data, statsn, exp_cmdsn, max_cmdsn, sn, offset;
	uint32_t wanted; /* or the residual */
	uint64_t lun;
	uint16_t parameter2, parameter3;
	uint32_t declared; /* in place of data; 0: data is declared */
	bool damaged;      /* the digest is wrong */
};

static inline void pdu_append(GByteArray *bytes, const struct pdu *pdu, bool digest)
{
	uint32_t length = pdu->declared ? pdu->declared : pdu->data;
	uint32_t padding = -pdu->data & 3;
	guint at = bytes->len;

	g_byte_array_set_size(bytes, at + HEADER + (digest ? DIGEST : 0) + pdu->data + padding);
	memset(bytes->data + at, 0xa5, bytes->len - at);
	uint8_t *header = bytes->data + at;
	memset(header, 0, HEADER);
	header[0] = pdu->opcode;
	header[1] = pdu->flags;
	header[2] = pdu->byte2;
	header[3] = pdu->status;
	put_be32(header + 4, length);
	header[4] = pdu->ahs;
	put_be64(header + 8, pdu->lun);
	put_be32(header + 16, pdu->itt);
	put_be32(header + 20, pdu->ttt);
	put_be32(header + 24, pdu->statsn);
	put_be32(header + 28, pdu->exp_cmdsn);
	put_be32(header + 32, pdu->max_cmdsn);
	put_be32(header + 36, pdu->sn);
	put_be32(header + 40, pdu->offset);
	put_be32(header + 44, pdu->wanted);
	if (pdu->event)
		header[36] = pdu->event;
	if (pdu->parameter2 || pdu->parameter3) {
		put_be16(header + 40, pdu->parameter2);
		put_be16(header + 42, pdu->parameter3);
	}
	if (digest)
		digest_put(header);
	header[HEADER - 1] ^= pdu->damaged;
}

static inline void must_send(const struct ends *ends, const GByteArray *bytes)
{
	cr_assert_eq(send(ends->target, bytes->data, bytes->len, 0), (ssize_t)bytes->len);
}

static inline void send_pdu(const struct ends *ends, const struct pdu *pdu)
{
	g_autoptr(GByteArray) bytes = g_byte_array_new();

	pdu_append(bytes, pdu, ends->digest);
	must_send(ends, bytes);
}

/* Reads as libiscsi 1.19 does, to the end of what is there; its errno. */
static inline int read_all(const struct ends *ends, GByteArray *into)
{
	size_t header_length = HEADER + (ends->digest ? DIGEST : 0);
	g_autofree uint8_t *buffer = g_malloc(MOST);

	for (;;) {
		ssize_t n = recv(ends->user, buffer, header_length, 0);
		if (n < 0)
			return errno;
		cr_assert_eq(n, (ssize_t)header_length, "half a header");
		if (into)
			g_byte_array_append(into, buffer, (guint)n);
		size_t length = get_be32(buffer + 4) & 0xffffff;
		size_t padded = (length + 3) & ~(size_t)3;
		if (padded == 0)
			continue;
		if ((buffer[0] & 0x3f) == DATA_IN)
			n = readv(ends->user,
			    (struct iovec[]){
			        {buffer, length / 2}, {buffer + length / 2, padded - length / 2}},
			    2);
		else
			n = recv(ends->user, buffer, padded, 0);
		cr_assert_eq(n, (ssize_t)padded, "%zd of %zu bytes", n, padded);
		if (into)
			g_byte_array_append(into, buffer, (guint)n);
	}
}

static inline void must_pass(const struct ends *ends)
{
	cr_assert_eq(read_all(ends, NULL), EAGAIN, "%s", guard_finding(ends->guard));
	cr_assert_null(guard_finding(ends->guard));
}

static inline void must_refuse(const struct ends *ends, const char *finding)
{
	uint8_t byte;

	cr_assert_eq(read_all(ends, NULL), EPROTO, "passed: %s", finding);
	cr_assert_str_eq(guard_finding(ends->guard), finding);
	cr_assert_lt(recv(ends->user, &byte, 1, 0), 0, "it goes on");
	cr_assert_eq(errno, EPROTO);
}
