/*
 * relay.c - between libiscsi and the target while they log in.
 *
 *   libiscsi  -- user_fd ==socketpair== inner --  relay  -- outer ==TCP==  target
 *
 * From the target whole PDUs are read, no byte further than the Login Response that ends the login:
 * what follows belongs to libiscsi. To the target bytes pass as they come. Either direction is a
 * buffer that is filled only while it is empty, so nothing here grows.
 */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keys.h"
#include "lunfs/loop.h"
#include "lunfs/scsi.h"

#define PORTAL_GROUP_KEY "TargetPortalGroupTag="
#define HEADER_LENGTH    48u
/* A login PDU's data fits in the MaxRecvDataSegmentLength of that phase, 8192 (RFC 7143, 7.2.3); be
 * generous. */
#define DATA_LIMIT (256u << 10)

#define OPCODE_LOGIN_RESPONSE 0x23
#define LOGIN_TRANSIT         0x80
#define LOGIN_CONTINUE        0x40
#define LOGIN_NEXT_STAGE      0x03
#define LOGIN_FULL_FEATURE    0x03

struct stream {
	int from, to;
	GSource *reader, *writer;
	uint8_t *buffer;
	size_t length, written;
};

struct relay {
	struct loop *loop;
	int user_fd, inner, outer;
	struct stream to_target, to_user;
	int login_status, portal_group;
	struct keys *keys;
	bool insane;
	bool over; /* the last Login Response is on its way */
};

static void relay_read_target(int fd, GIOCondition condition, void *data);
static void relay_read_user(int fd, GIOCondition condition, void *data);

static void relay_hang_up(struct relay *relay)
{
	loop_remove(&relay->to_target.reader);
	loop_remove(&relay->to_user.reader);
	shutdown(relay->inner, SHUT_RDWR); /* libiscsi sees the end of its connection */
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Writes what the stream holds; false when the connection is broken. */
static bool stream_drain(struct stream *stream)
{
	while (stream->written < stream->length) {
		ssize_t n = send(stream->to, stream->buffer + stream->written,
		    stream->length - stream->written, MSG_NOSIGNAL);
		if (n < 0)
			return would_block();
		stream->written += (size_t)n;
	}
	stream->length = stream->written = 0;
	return true;
}

static void relay_write(struct relay *relay, struct stream *stream);

static void relay_writable(int fd, GIOCondition condition, void *data)
{
	struct relay *relay = data;

	(void)condition;
	relay_write(relay, fd == relay->outer ? &relay->to_target : &relay->to_user);
}

/* Sends on, and reads again only when all is sent. */
static void relay_write(struct relay *relay, struct stream *stream)
{
	loop_remove(&stream->writer);
	if (!stream_drain(stream)) {
		relay_hang_up(relay);
		return;
	}
	if (stream->length != 0) {
		loop_remove(&stream->reader);
		stream->writer =
		    loop_watch(relay->loop, stream->to, G_IO_OUT, relay_writable, relay, NULL);
	} else if (stream->reader == NULL && !(relay->over && stream == &relay->to_user)) {
		stream->reader = loop_watch(relay->loop, stream->from, G_IO_IN,
		    stream == &relay->to_user ? relay_read_target : relay_read_user, relay, NULL);
	}
}

static void relay_read_user(int fd, GIOCondition condition, void *data)
{
	struct relay *relay = data;
	struct stream *stream = &relay->to_target;
	ssize_t n = recv(fd, stream->buffer, DATA_LIMIT, 0);

	(void)condition;
	if (n < 0 && would_block())
		return;
	if (n <= 0) {
		relay_hang_up(relay);
		return;
	}
	stream->length = (size_t)n;
	keys_note_requests(relay->keys, stream->buffer, stream->length);
	relay_write(relay, stream);
}

/*
 * Is a key's value one that RFC 7143, 13.12 allows? libiscsi takes any for a number, and with 0 it
 * cuts data into pieces for ever.
 */
static bool key_is_sane(const char *text)
{
	static const char *const keys[] = {
	    "MaxRecvDataSegmentLength=", "TargetRecvDataSegmentLength="};

	for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++)
		if (g_str_has_prefix(text, keys[i]))
			return g_ascii_string_to_unsigned(
			    text + strlen(keys[i]), 10, 512, 0xffffff, NULL, NULL);
	return true;
}

/* text ends with a NUL beyond its length. */
static bool relay_read_keys(struct relay *relay, const char *text, size_t length)
{
	for (size_t at = 0; at < length; at += strlen(text + at) + 1) {
		guint64 tag;

		if (!key_is_sane(text + at))
			return false;
		if (g_str_has_prefix(text + at, PORTAL_GROUP_KEY) &&
		    g_ascii_string_to_unsigned(
		        text + at + strlen(PORTAL_GROUP_KEY), 10, 0, UINT16_MAX, &tag, NULL))
			relay->portal_group = (int)tag;
	}
	return true;
}

/* Looks at, and mends, the whole PDU in the buffer. False where it is not to be passed on. */
static bool relay_mend(struct relay *relay, uint8_t *pdu, size_t data_length)
{
	size_t padding = -data_length & 3;

	if ((pdu[0] & 0x3f) != OPCODE_LOGIN_RESPONSE)
		return true;
	memset(pdu + HEADER_LENGTH + data_length, 0, padding);
	relay->login_status = get_be16(pdu + 36);
	relay->over = relay->login_status >> 8 == 0 && (pdu[1] & LOGIN_TRANSIT) != 0 &&
	              (pdu[1] & LOGIN_NEXT_STAGE) == LOGIN_FULL_FEATURE;
	pdu[HEADER_LENGTH + data_length + padding] = '\0';
	keys_note(relay->keys, KEYS_TARGET, pdu + HEADER_LENGTH, data_length,
	    (pdu[1] & LOGIN_CONTINUE) != 0);
	relay->insane = !relay_read_keys(relay, (const char *)pdu + HEADER_LENGTH, data_length);
	return !relay->insane;
}

static void relay_read_target(int fd, GIOCondition condition, void *data)
{
	struct relay *relay = data;
	struct stream *stream = &relay->to_user;

	(void)condition;
	for (;;) {
		size_t data_length = 0, whole = HEADER_LENGTH;

		if (stream->length >= HEADER_LENGTH) {
			data_length = get_be32(stream->buffer + 4) & 0xffffff;
			whole += (data_length + 3) & ~(size_t)3;
			/* Additional headers never come in a login (RFC 7143, 11.13). */
			if (stream->buffer[4] != 0 || whole > HEADER_LENGTH + DATA_LIMIT) {
				relay_hang_up(relay);
				return;
			}
			if (stream->length == whole) {
				if (relay_mend(relay, stream->buffer, data_length))
					break;
				relay_hang_up(relay);
				return;
			}
		}
		ssize_t n = recv(fd, stream->buffer + stream->length, whole - stream->length, 0);
		if (n < 0 && would_block())
			return;
		if (n <= 0) {
			relay_hang_up(relay);
			return;
		}
		stream->length += (size_t)n;
	}
	if (relay->over)
		loop_remove(&stream->reader);
	relay_write(relay, stream);
}

static void stream_init(struct stream *stream, int from, int to)
{
	*stream = (struct stream){
	    .from = from, .to = to, .buffer = g_malloc(HEADER_LENGTH + DATA_LIMIT + 1)};
}

static void stream_clear(struct stream *stream)
{
	loop_remove(&stream->reader);
	loop_remove(&stream->writer);
	g_free(stream->buffer);
}

struct relay *relay_new(struct loop *loop, int fd)
{
	int pair[2];
	int outer = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (outer < 0)
		return NULL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
		close(outer);
		return NULL;
	}
	if (dup3(pair[0], fd, O_CLOEXEC) < 0) {
		close(outer);
		close(pair[0]);
		close(pair[1]);
		return NULL;
	}
	close(pair[0]);

	struct relay *relay = g_new0(struct relay, 1);
	relay->loop = loop;
	relay->user_fd = fd;
	relay->inner = pair[1];
	relay->outer = outer;
	relay->login_status = relay->portal_group = -1;
	relay->keys = keys_new();
	stream_init(&relay->to_target, relay->inner, relay->outer);
	stream_init(&relay->to_user, relay->outer, relay->inner);
	relay->to_target.reader =
	    loop_watch(loop, relay->inner, G_IO_IN, relay_read_user, relay, NULL);
	relay->to_user.reader =
	    loop_watch(loop, relay->outer, G_IO_IN, relay_read_target, relay, NULL);
	return relay;
}

void relay_free(struct relay *relay)
{
	if (relay == NULL)
		return;
	stream_clear(&relay->to_target);
	stream_clear(&relay->to_user);
	/* Fails only where the kernel has no memory for it; libiscsi then sees a closed connection.
	 */
	(void)dup3(relay->outer, relay->user_fd, O_CLOEXEC);
	close(relay->outer);
	close(relay->inner);
	keys_free(relay->keys);
	g_free(relay);
}

int relay_login_status(const struct relay *relay)
{
	return relay == NULL ? -1 : relay->login_status;
}

int relay_portal_group(const struct relay *relay)
{
	return relay == NULL ? -1 : relay->portal_group;
}

char **relay_keys(const struct relay *relay)
{
	return keys_outcome(relay->keys);
}

bool relay_refused_keys(const struct relay *relay)
{
	return relay != NULL && relay->insane;
}
