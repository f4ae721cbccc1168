/*
 * guard.c - between the target and libiscsi (guard.h).
 *
 * What is read and written is followed byte by byte, however it is cut. Nothing is held back: a PDU
 * that is refused is refused by the read that would complete its header.
 *
 * Commands stand in a hash table by ITT, open addressing, at most half full: looking up and taking
 * out allocate nothing. A WRITE owes bursts: one that it begins with, and one for each R2T; each
 * ends with a PDU that has the F bit (RFC 7143, 11.7.1). While it owes one libiscsi has PDUs in its
 * queue that point to the task.
 */
#undef _FORTIFY_SOURCE /* whose recv() is an inline function */
#include "guard.h"

#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define HEADER_LENGTH 48u
#define DIGEST_LENGTH 4u
/* MaxRecvDataSegmentLength, as libiscsi declares it */
#define SEGMENT_LIMIT  (256u << 10)
#define SLOTS_AT_LEAST 256u

/* RFC 7143, 11.2.1.2 and 11.7.1 */
enum { SCSI_COMMAND = 0x01, DATA_OUT = 0x05 };
enum { SCSI_RESPONSE = 0x21, TEXT_RESPONSE = 0x24, DATA_IN = 0x25, R2T = 0x31 };
enum { FINAL = 0x80, STATUS = 0x01 };

struct expected {
	bool used, sent, answered; /* sent: its own PDU is */
	uint8_t direction;
	uint32_t itt;
	uint32_t length, asked; /* bytes: of data altogether, and those that R2Ts asked for */
	uint32_t bursts;
};

/* One direction: have bytes of a header are here, and left bytes of its data, padding included, are
 * still to come. */
struct stream {
	size_t have, left;
	uint8_t header[HEADER_LENGTH + DIGEST_LENGTH];
};

struct guard {
	int fd;
	bool seen, seen_out; /* reads, and writes, since guard_begin() */
	bool measured;       /* header_length is the one that libiscsi uses */
	size_t header_length;
	struct stream in, out;
	size_t padding; /* bytes at the end of the PDU that comes that are to be zeros */
	char finding[128];

	unsigned count, bits; /* 1 << bits slots */
	struct expected *slots;
};

/* recv() and the like have no argument for it. Those of other threads find none. */
static _Thread_local struct guard *at_work;

/* ---- the commands ---- */

/* ITTs come one after the other: the multiplication scatters them evenly (Knuth, 6.4). */
static uint32_t guard_home(const struct guard *guard, uint32_t itt)
{
	return itt * 2654435769u >> (32 - guard->bits);
}

static uint32_t guard_mask(const struct guard *guard)
{
	return (1u << guard->bits) - 1;
}

/* Where it stands, or the empty slot where it would. */
static uint32_t guard_slot(const struct guard *guard, uint32_t itt)
{
	uint32_t at = guard_home(guard, itt);

	while (guard->slots[at].used && guard->slots[at].itt != itt)
		at = (at + 1) & guard_mask(guard);
	return at;
}

static void guard_grow(struct guard *guard)
{
	g_autofree struct expected *old = guard->slots;
	uint32_t slots = 1u << guard->bits;

	guard->bits++;
	guard->slots = g_new0(struct expected, (size_t)2 * slots);
	for (uint32_t i = 0; i < slots; i++)
		if (old[i].used)
			guard->slots[guard_slot(guard, old[i].itt)] = old[i];
}

void guard_expect(struct guard *guard, uint32_t itt, enum scsi_direction direction, uint32_t length)
{
	if (2 * ++guard->count > 1u << guard->bits)
		guard_grow(guard);
	guard->slots[guard_slot(guard, itt)] = (struct expected){
	    .used = true,
	    .direction = (uint8_t)direction,
	    .itt = itt,
	    .length = length,
	    .bursts = direction == SCSI_DATA_OUT,
	};
}

bool guard_settle(struct guard *guard, uint32_t itt)
{
	uint32_t mask = guard_mask(guard), hole = guard_slot(guard, itt);
	struct expected command = guard->slots[hole];

	if (!command.used)
		return false;
	/* What stands behind the hole moves up, unless it would move before its home. */
	for (uint32_t at = hole; guard->slots[at = (at + 1) & mask].used;) {
		uint32_t home = guard_home(guard, guard->slots[at].itt);

		if (((at - home) & mask) >= ((at - hole) & mask)) {
			guard->slots[hole] = guard->slots[at];
			hole = at;
		}
	}
	guard->slots[hole].used = false;
	guard->count--;
	return guard->seen && command.bursts == 0;
}

/* ---- what may come ---- */

static bool guard_refuse(struct guard *guard, const char *what)
{
	snprintf(guard->finding, sizeof guard->finding, "the target broke the protocol: %s", what);
	return false;
}

static struct expected *guard_find(const struct guard *guard, const uint8_t *header)
{
	struct expected *command = &guard->slots[guard_slot(guard, get_be32(header + 16))];

	return command->used && !command->answered ? command : NULL;
}

/* libiscsi would take its PDU away in the middle of it. */
static bool guard_is_sending(const struct guard *guard, const struct expected *command)
{
	return guard->seen_out && !command->sent;
}

static bool guard_passes_data_in(struct guard *guard, uint32_t length)
{
	struct expected *command = guard_find(guard, guard->in.header);
	uint32_t offset = get_be32(guard->in.header + 40);

	if (command == NULL)
		return guard_refuse(guard, "Data-In for no command");
	if (guard_is_sending(guard, command))
		return guard_refuse(guard, "Data-In for a command that has not left yet");
	if (command->direction != SCSI_DATA_IN)
		return guard_refuse(guard, "Data-In for a command that reads nothing");
	if ((uint64_t)offset + length > command->length)
		return guard_refuse(guard, "Data-In beyond the command's data");
	command->answered = (guard->in.header[1] & (FINAL | STATUS)) == (FINAL | STATUS);
	return true;
}

static bool guard_passes_r2t(struct guard *guard, uint32_t data)
{
	struct expected *command = guard_find(guard, guard->in.header);
	uint32_t offset = get_be32(guard->in.header + 40), length = get_be32(guard->in.header + 44);

	if (command == NULL)
		return guard_refuse(guard, "R2T for no command");
	if (guard_is_sending(guard, command))
		return guard_refuse(guard, "R2T for a command that has not left yet");
	if (command->direction != SCSI_DATA_OUT)
		return guard_refuse(guard, "R2T for a command that writes nothing");
	if (length == 0)
		return guard_refuse(guard, "R2T for 0 bytes");
	if (data != 0)
		return guard_refuse(guard, "R2T with data");
	if ((uint64_t)offset + length > command->length)
		return guard_refuse(guard, "R2T beyond the command's data");
	/* Each byte is asked for once at most where there is no recovery (RFC 7143, 7.1.4.1). */
	if ((uint64_t)command->asked + length > command->length)
		return guard_refuse(guard, "R2Ts for more than the command's data");
	command->asked += length;
	command->bursts++;
	return true;
}

static bool guard_passes_response(struct guard *guard)
{
	struct expected *command = guard_find(guard, guard->in.header);
	uint8_t response = guard->in.header[2];

	if (command == NULL)
		return guard_refuse(guard, "SCSI Response for no command");
	if (guard_is_sending(guard, command))
		return guard_refuse(guard, "SCSI Response to a command that has not left yet");
	if (response != 0) {
		snprintf(guard->finding, sizeof guard->finding,
		    "the target failed at a command (iSCSI response code %02Xh)", response);
		return false;
	}
	command->answered = true;
	return true;
}

/* The header is whole. False: libiscsi is not to have it. */
static bool guard_passes(struct guard *guard)
{
	uint8_t opcode = guard->in.header[0] & 0x3f;
	uint32_t length = get_be32(guard->in.header + 4) & 0xffffff;

	/* Those that there are belong to requests (RFC 7143, 11.2.2). */
	if (guard->in.header[4] != 0)
		return guard_refuse(guard, "additional headers");
	if (length > SEGMENT_LIMIT)
		return guard_refuse(guard, "a PDU with more data than agreed");
	guard->padding = opcode == TEXT_RESPONSE ? -length & 3 : 0;
	switch (opcode) {
	case DATA_IN:
		return guard_passes_data_in(guard, length);
	case R2T:
		return guard_passes_r2t(guard, length);
	case SCSI_RESPONSE:
		return guard_passes_response(guard);
	default:
		return true;
	}
}

/* ---- following ---- */

/* A PDU has left, whole. */
static void guard_note_sent(struct guard *guard)
{
	const uint8_t *header = guard->out.header;
	uint8_t opcode = header[0] & 0x3f;
	struct expected *command;

	if (opcode != SCSI_COMMAND && opcode != DATA_OUT)
		return;
	command = &guard->slots[guard_slot(guard, get_be32(header + 16))];
	if (!command->used)
		return;
	command->sent |= opcode == SCSI_COMMAND;
	if ((header[1] & FINAL) && command->bursts > 0)
		command->bursts--;
}

/* These bytes are the PDU's data, or a part of it. */
static void guard_mend(const struct guard *guard, uint8_t *bytes, size_t length)
{
	size_t before_padding = guard->in.left - MIN(guard->in.left, guard->padding);

	if (length > before_padding)
		memset(bytes + before_padding, 0, length - before_padding);
}

static bool stream_take_header(
    struct stream *stream, struct guard *guard, const uint8_t *bytes, size_t length)
{
	memcpy(stream->header + stream->have, bytes, length);
	stream->have += length;
	if (stream->have < guard->header_length)
		return true;
	stream->left = ((get_be32(stream->header + 4) & 0xffffff) + 3) & ~(size_t)3;
	return stream == &guard->out || guard_passes(guard);
}

/* These bytes have come, or left. False: they are refused. */
static bool stream_take(struct stream *stream, struct guard *guard, uint8_t *bytes, size_t length)
{
	while (length > 0) {
		bool in_header = stream->have < guard->header_length;
		size_t part =
		    MIN(length, in_header ? guard->header_length - stream->have : stream->left);

		if (in_header) {
			if (!stream_take_header(stream, guard, bytes, part))
				return false;
		} else {
			if (stream == &guard->in)
				guard_mend(guard, bytes, part);
			stream->left -= part;
		}
		if (stream->have == guard->header_length && stream->left == 0) {
			stream->have = 0;
			if (stream == &guard->out)
				guard_note_sent(guard);
		}
		bytes += part;
		length -= part;
	}
	return true;
}

static bool stream_take_all(
    struct stream *stream, struct guard *guard, const struct iovec *iov, size_t length)
{
	size_t part;

	for (; length > 0; length -= part, iov++) {
		part = MIN(length, iov->iov_len);
		if (!stream_take(stream, guard, iov->iov_base, part))
			return false;
	}
	return true;
}

/*
 * Only libiscsi knows whether a header digest was agreed on; but it sends a header, and asks for
 * one, with its digest and nothing else.
 */
static void guard_measure(struct guard *guard, size_t length)
{
	if (guard->measured || (length != HEADER_LENGTH && length != HEADER_LENGTH + DIGEST_LENGTH))
		return;
	guard->header_length = length;
	guard->measured = true;
}

static ssize_t guard_receive(struct guard *guard, struct iovec *iov, size_t niov, int flags)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = niov};
	ssize_t n;

	if (guard->finding[0] == '\0') {
		n = niov == 1 ? recvfrom(guard->fd, iov->iov_base, iov->iov_len, flags, NULL, NULL)
		              : recvmsg(guard->fd, &message, flags);
		if (n <= 0)
			return n;
		guard->seen = true;
		guard_measure(guard, iov->iov_len);
		if (stream_take_all(&guard->in, guard, iov, (size_t)n))
			return n;
	}
	errno = EPROTO;
	return -1;
}

static ssize_t guard_send(struct guard *guard, struct iovec *iov, size_t niov, int flags)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = niov};
	ssize_t n = niov == 1 ? sendto(guard->fd, iov->iov_base, iov->iov_len, flags, NULL, 0)
	                      : sendmsg(guard->fd, &message, flags);

	if (n <= 0)
		return n;
	guard->seen_out = true;
	guard_measure(guard, iov->iov_len);
	stream_take_all(&guard->out, guard, iov, (size_t)n);
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
	while (1u << guard->bits < SLOTS_AT_LEAST)
		guard->bits++;
	guard->slots = g_new0(struct expected, SLOTS_AT_LEAST);
	return guard;
}

void guard_begin(struct guard *guard, bool header_digest)
{
	guard->header_length = HEADER_LENGTH + (header_digest ? DIGEST_LENGTH : 0);
	guard->seen = guard->seen_out = guard->measured = false;
	guard->in = guard->out = (struct stream){0};
}

void guard_free(struct guard *guard)
{
	if (guard == NULL)
		return;
	if (at_work == guard)
		at_work = NULL;
	g_free(guard->slots);
	g_free(guard);
}

void guard_watch(struct guard *guard)
{
	at_work = guard;
}

const char *guard_finding(const struct guard *guard)
{
	return guard->finding[0] != '\0' ? guard->finding : NULL;
}

bool guard_is_blind(const struct guard *guard)
{
	return !guard->seen;
}
