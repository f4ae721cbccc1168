/*
 * guard.c - between the target and libiscsi (guard.h): the calls in place of libc's, and the stream
 * of PDUs in either direction.
 *
 * What is read is followed however it is cut. A header is handed over when it is whole, judged and
 * edited; until then there is nothing to read. As a rule all of it is there and libiscsi asks for
 * all of it, and nothing is copied. Data passes as it comes, but never more than the PDU has.
 *
 * What is sent is followed too. A header that is edited leaves from the guard's copy of it.
 */
#undef _FORTIFY_SOURCE /* whose recv() is an inline function */
#include "guard_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* libiscsi reads as long as something is there; between two turns of the loop, so many PDUs. */
#define PDUS_A_TURN 1024u

/* recv() and the like have no argument for it. Those of other threads find none. */
static _Thread_local struct guard *at_work;

/* ---- what comes ---- */

static ssize_t refused(void)
{
	errno = EPROTO;
	return -1;
}

static size_t data_length(const uint8_t *header)
{
	return ((get_be32(header + 4) & 0xffffff) + 3) & ~(size_t)3;
}

static size_t iov_fill(const struct iovec *iov, size_t niov, const uint8_t *bytes, size_t length)
{
	size_t filled = 0;

	for (; niov > 0 && filled < length; niov--, iov++) {
		size_t part = MIN(iov->iov_len, length - filled);

		memcpy(iov->iov_base, bytes + filled, part);
		filled += part;
	}
	return filled;
}

static size_t iov_length(const struct iovec *iov, size_t niov)
{
	size_t length = 0;

	for (; niov > 0; niov--, iov++)
		length += iov->iov_len;
	return length;
}

/* Only libiscsi knows whether a header digest was agreed on, where that was not told; but it sends
 * a header, and asks for one, with its digest and nothing else. */
static void guard_measure(struct guard *guard, size_t length)
{
	if (guard->measured || (length != HEADER_LENGTH && length != HEADER_LENGTH + DIGEST_LENGTH))
		return;
	guard->header_length = length;
	guard->measured = true;
}

/* The header is whole. */
static bool guard_takes_header(struct guard *guard, uint8_t *header)
{
	guard->in.have = guard->header_length;
	if (!guard_passes(guard, header))
		return false;
	guard->in.left = data_length(header);
	return true;
}

static void guard_finish_pdu(struct guard *guard)
{
	if (guard->given < guard->header_length || guard->in.left > 0)
		return;
	guard->in.have = guard->given = 0;
	guard->statsn = guard->arrives;
	guard->turn--;
}

static ssize_t guard_give_header(struct guard *guard, const struct iovec *iov, size_t niov)
{
	size_t given = iov_fill(
	    iov, niov, guard->in.header + guard->given, guard->header_length - guard->given);

	guard->given += given;
	guard_finish_pdu(guard);
	return (ssize_t)given;
}

/* As a rule it is here whole, and asked for as a whole. */
static ssize_t guard_receive_header(
    struct guard *guard, const struct iovec *iov, size_t niov, int flags)
{
	struct stream *in = &guard->in;
	bool direct = in->have == 0 && niov == 1 && iov->iov_len == guard->header_length;
	uint8_t *header = direct ? iov->iov_base : in->header;

	if (in->have == 0 && guard->turn == 0) {
		errno = EAGAIN;
		return -1;
	}
	if (in->have < guard->header_length) {
		ssize_t n = recvfrom(guard->fd, header + in->have, guard->header_length - in->have,
		    flags, NULL, NULL);

		if (n <= 0)
			return n;
		guard->seen = true;
		if (direct && (size_t)n < guard->header_length)
			memcpy(in->header, header, (size_t)n);
		in->have += (size_t)n;
		if (in->have < guard->header_length) {
			errno = EAGAIN;
			return -1;
		}
		if (!guard_takes_header(guard, header))
			return refused();
		if (direct) {
			guard->given = guard->header_length;
			guard_finish_pdu(guard);
			return n;
		}
	}
	return guard_give_header(guard, iov, niov);
}

/* These bytes are the PDU's data, or a part of it. */
static void guard_take_data(struct guard *guard, uint8_t *bytes, size_t length)
{
	size_t before_padding = guard->in.left - MIN(guard->in.left, guard->padding);

	if (length > before_padding)
		memset(bytes + before_padding, 0, length - before_padding);
	guard->in.left -= length;
}

static ssize_t guard_receive_data(struct guard *guard, struct iovec *iov, size_t niov, int flags)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = niov};
	size_t part;
	ssize_t n;

	if (niov > 1 && iov_length(iov, niov) > guard->in.left) {
		/* No libiscsi asks for more than the PDU has; a part will do. */
		while (iov->iov_len == 0)
			iov++;
		niov = 1;
	}
	n = niov == 1 ? recvfrom(guard->fd, iov->iov_base, MIN(iov->iov_len, guard->in.left), flags,
	                    NULL, NULL)
	              : recvmsg(guard->fd, &message, flags);
	for (size_t left = n > 0 ? (size_t)n : 0; left > 0; left -= part, iov++) {
		part = MIN(left, iov->iov_len);
		guard_take_data(guard, iov->iov_base, part);
	}
	guard_finish_pdu(guard);
	return n;
}

static ssize_t guard_receive(struct guard *guard, struct iovec *iov, size_t niov, int flags)
{
	if (guard->finding[0] != '\0')
		return refused();
	if (guard->in.have == 0)
		guard_measure(guard, iov->iov_len);
	if (guard->given < guard->header_length)
		return guard_receive_header(guard, iov, niov, flags);
	return guard_receive_data(guard, iov, niov, flags);
}

/* ---- what leaves ---- */

/* A PDU begins: its header is here, as a rule whole. */
static void guard_look_ahead(struct guard *guard, const struct iovec *iov)
{
	guard_measure(guard, iov->iov_len);
	guard->whole = iov->iov_len >= guard->header_length;
	if (!guard->whole)
		return;
	memcpy(guard->out.header, iov->iov_base, guard->header_length);
	guard->edited = guard_edits_sent(guard);
}

/* These bytes have left. */
static void guard_take_sent(struct guard *guard, const uint8_t *bytes, size_t length)
{
	struct stream *out = &guard->out;

	while (length > 0) {
		bool in_header = out->have < guard->header_length;
		size_t part = MIN(length, in_header ? guard->header_length - out->have : out->left);

		if (in_header) {
			if (!guard->whole)
				memcpy(out->header + out->have, bytes, part);
			out->have += part;
			if (out->have == guard->header_length)
				out->left = data_length(out->header);
		} else {
			out->left -= part;
		}
		if (out->have == guard->header_length && out->left == 0) {
			guard_note_sent(guard);
			out->have = 0;
			guard->whole = guard->edited = false;
		}
		bytes += part;
		length -= part;
	}
}

/* Of iov, the beginning is what the guard has edited. */
static ssize_t guard_send_edited(struct guard *guard, const struct iovec *iov, int flags)
{
	size_t part = MIN(iov->iov_len, guard->header_length - guard->out.have);
	struct iovec both[] = {
	    {guard->out.header + guard->out.have, part},
	    {(uint8_t *)iov->iov_base + part, iov->iov_len - part},
	};
	struct msghdr message = {.msg_iov = both, .msg_iovlen = G_N_ELEMENTS(both)};

	return sendmsg(guard->fd, &message, flags);
}

static ssize_t guard_send(struct guard *guard, struct iovec *iov, size_t niov, int flags)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = niov};
	size_t part;
	ssize_t n;

	if (guard->out.have == 0)
		guard_look_ahead(guard, iov);
	if (guard->edited && guard->out.have < guard->header_length)
		n = guard_send_edited(guard, iov, flags);
	else if (niov == 1)
		n = sendto(guard->fd, iov->iov_base, iov->iov_len, flags, NULL, 0);
	else
		n = sendmsg(guard->fd, &message, flags);
	if (n > 0)
		guard->seen_out = true;
	for (size_t left = n > 0 ? (size_t)n : 0; left > 0; left -= part, iov++) {
		part = MIN(left, iov->iov_len);
		guard_take_sent(guard, iov->iov_base, part);
	}
	return n;
}

/* ---- in place of libc's ---- */

ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
	struct iovec iov = {buffer, length};

	if (at_work == NULL || at_work->fd != fd || (flags & MSG_PEEK))
		return recvfrom(fd, buffer, length, flags, NULL, NULL);
	return guard_receive(at_work, &iov, 1, flags);
}

/* What recv() becomes in a libiscsi that was built with _FORTIFY_SOURCE. */
ssize_t __recv_chk(int fd, void *buffer, size_t length, size_t room, int flags);
ssize_t __recv_chk(int fd, void *buffer, size_t length, size_t room, int flags)
{
	if (length > room)
		abort();
	return recv(fd, buffer, length, flags);
}

ssize_t readv(int fd, const struct iovec *iov, int count)
{
	if (at_work == NULL || at_work->fd != fd || count <= 0)
		return preadv2(fd, iov, count, -1, 0); /* readv() by another name */
	return guard_receive(at_work, (struct iovec *)iov, (size_t)count, 0);
}

ssize_t send(int fd, const void *buffer, size_t length, int flags)
{
	struct iovec iov = {(void *)buffer, length};

	if (at_work == NULL || at_work->fd != fd)
		return sendto(fd, buffer, length, flags, NULL, 0);
	return guard_send(at_work, &iov, 1, flags);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	if (at_work == NULL || at_work->fd != fd || count <= 0)
		return pwritev2(fd, iov, count, -1, 0); /* writev() by another name */
	return guard_send(at_work, (struct iovec *)iov, (size_t)count, MSG_NOSIGNAL);
}

/* ---- life ---- */

struct guard *guard_new(int fd)
{
	struct guard *guard = g_new0(struct guard, 1);

	guard->fd = fd;
	guard->header_length = HEADER_LENGTH;
	guard->pings = g_array_new(FALSE, FALSE, sizeof(struct ping));
	commands_init_table(guard);
	return guard;
}

void guard_begin(struct guard *guard, const struct guard_session *session)
{
	bool known = (session->statsn | session->cmdsn | session->max_cmdsn) != 0;

	guard->header_length = HEADER_LENGTH + (session->header_digest ? DIGEST_LENGTH : 0);
	guard->seen = guard->seen_out = false;
	guard->measured = known;
	guard->in = guard->out = (struct stream){0};
	guard->given = 0;
	guard->whole = guard->edited = false;
	guard->begun = true;
	guard->knows_status = guard->knows_window = known;
	guard->statsn = guard->arrives = session->statsn;
	guard->exp_cmdsn = guard->cmdsn = session->cmdsn;
	/* What cannot be is ignored; libiscsi sends one command then. */
	guard->max_cmdsn = (int32_t)(session->max_cmdsn - (session->cmdsn - 1)) < 0
	                       ? session->cmdsn
	                       : session->max_cmdsn;
	guard->max_burst = session->max_burst;
}

void guard_free(struct guard *guard)
{
	if (guard == NULL)
		return;
	if (at_work == guard)
		at_work = NULL;
	g_array_unref(guard->pings);
	g_free(guard->slots);
	g_free(guard);
}

void guard_watch(struct guard *guard)
{
	at_work = guard;
	if (guard != NULL)
		guard->turn = PDUS_A_TURN;
}

const char *guard_finding(const struct guard *guard)
{
	return guard->finding[0] != '\0' ? guard->finding : NULL;
}

bool guard_is_blind(const struct guard *guard)
{
	return !guard->seen;
}
