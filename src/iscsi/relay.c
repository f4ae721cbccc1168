/*
 * relay.c - between libiscsi and the target while they log in.
 *
 *   libiscsi  -- user_fd ==socketpair== inner --  relay  -- outer ==TCP==  target
 *
 * From both sides whole PDUs are read, no byte further than one: what follows the Login Response
 * that ends the login belongs to libiscsi. A side is read again when all that came of its last PDU
 * has left, so that nothing here grows.
 */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lunfs/loop.h"
#include "lunfs/scsi.h"

/* A login PDU's data fits in the MaxRecvDataSegmentLength of that phase, 8192 (RFC 7143, 7.2.3),
 * and a text PDU's in ours; be generous. */
#define DATA_LIMIT (256u << 10)

/* One of the two that the relay stands between. */
struct side {
	int fd;
	GSource *reader, *writer;
	uint8_t *in; /* of a PDU that comes, length bytes are here */
	size_t length;
	GByteArray *out; /* what is to leave for it, of which sent bytes have left */
	size_t sent;
};

struct relay {
	struct loop *loop;
	int user_fd;
	struct side user, target;
	struct exchange *exchange;
	bool for_good; /* it stays when the login is over */
};

static void relay_read(int fd, GIOCondition condition, void *data);

static void relay_hang_up(struct relay *relay)
{
	loop_remove(&relay->user.reader);
	loop_remove(&relay->target.reader);
	shutdown(relay->user.fd, SHUT_RDWR); /* libiscsi sees the end of its connection */
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* ---- out ---- */

/* False when the connection is broken. */
static bool side_drain(struct side *side)
{
	while (side->sent < side->out->len) {
		ssize_t n = send(side->fd, side->out->data + side->sent,
		    side->out->len - side->sent, MSG_NOSIGNAL);
		if (n < 0)
			return would_block();
		side->sent += (size_t)n;
	}
	side->sent = 0;
	g_byte_array_set_size(side->out, 0);
	return true;
}

/* Nothing is read while something waits to leave; nor from the target when it talks to libiscsi
 * itself. */
static void relay_watch(struct relay *relay, struct side *side)
{
	bool all_left = relay->user.out->len == 0 && relay->target.out->len == 0;
	bool stepping_aside =
	    side == &relay->target && exchange_is_over(relay->exchange) && !relay->for_good;

	if (!all_left || stepping_aside)
		loop_remove(&side->reader);
	else if (side->reader == NULL)
		side->reader = loop_watch(relay->loop, side->fd, G_IO_IN, relay_read, relay, NULL);
}

static void relay_writable(int fd, GIOCondition condition, void *data);

static void relay_write(struct relay *relay, struct side *side)
{
	loop_remove(&side->writer);
	if (!side_drain(side)) {
		relay_hang_up(relay);
		return;
	}
	if (side->out->len != 0)
		side->writer =
		    loop_watch(relay->loop, side->fd, G_IO_OUT, relay_writable, relay, NULL);
	relay_watch(relay, &relay->user);
	relay_watch(relay, &relay->target);
}

static void relay_writable(int fd, GIOCondition condition, void *data)
{
	struct relay *relay = data;

	(void)condition;
	relay_write(relay, fd == relay->user.fd ? &relay->user : &relay->target);
}

/* ---- in ---- */

/* A whole PDU stands in side->in. */
static void relay_take(struct relay *relay, struct side *from, size_t data_length)
{
	bool by_target = from == &relay->target;
	struct side *other = by_target ? &relay->user : &relay->target;
	struct pdu pdu = {from->in, from->in + PDU_HEADER_LENGTH, data_length};
	g_autoptr(GByteArray) out = g_byte_array_new();
	enum exchange_verdict verdict = by_target ? exchange_response(relay->exchange, &pdu, out)
	                                          : exchange_request(relay->exchange, &pdu, out);

	from->length = 0;
	if (verdict == EXCHANGE_REFUSE) {
		relay_hang_up(relay);
		return;
	}
	if (verdict == EXCHANGE_ANSWER)
		other = from;
	g_byte_array_append(other->out, out->data, out->len);
	relay_write(relay, other);
}

/* How long the PDU is, as far as it is known; 0: it is none that can be. */
static size_t side_wants(const struct side *side, size_t *data_length)
{
	*data_length = 0;
	if (side->length < PDU_HEADER_LENGTH)
		return PDU_HEADER_LENGTH;
	*data_length = get_be32(side->in + 4) & 0xffffff;
	/* There are no additional headers here (RFC 7143, 11.2.2). */
	if (side->in[4] != 0 || *data_length > DATA_LIMIT)
		return 0;
	return PDU_HEADER_LENGTH + ((*data_length + 3) & ~(size_t)3);
}

static void relay_read(int fd, GIOCondition condition, void *data)
{
	struct relay *relay = data;
	struct side *side = fd == relay->user.fd ? &relay->user : &relay->target;

	(void)condition;
	for (;;) {
		size_t data_length, whole = side_wants(side, &data_length);

		if (whole == 0) {
			relay_hang_up(relay);
			return;
		}
		if (side->length == whole) {
			relay_take(relay, side, data_length);
			return;
		}
		ssize_t n = recv(fd, side->in + side->length, whole - side->length, 0);
		if (n < 0 && would_block())
			return;
		if (n <= 0) {
			relay_hang_up(relay);
			return;
		}
		side->length += (size_t)n;
	}
}

/* ---- life ---- */

static void side_init(struct side *side, int fd)
{
	*side = (struct side){
	    .fd = fd,
	    .in = g_malloc(PDU_HEADER_LENGTH + DATA_LIMIT + 3),
	    .out = g_byte_array_new(),
	};
}

static void side_clear(struct side *side)
{
	loop_remove(&side->reader);
	loop_remove(&side->writer);
	g_free(side->in);
	g_byte_array_unref(side->out);
}

struct relay *relay_new(struct loop *loop, int fd, const struct login *login)
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
	relay->exchange = exchange_new(login);
	relay->for_good = login->target == NULL;
	side_init(&relay->user, pair[1]);
	side_init(&relay->target, outer);
	relay_watch(relay, &relay->user);
	relay_watch(relay, &relay->target);
	return relay;
}

void relay_free(struct relay *relay)
{
	if (relay == NULL)
		return;
	side_clear(&relay->user);
	side_clear(&relay->target);
	/* Fails only where the kernel has no memory for it; libiscsi then sees a closed connection.
	 */
	(void)dup3(relay->target.fd, relay->user_fd, O_CLOEXEC);
	close(relay->target.fd);
	close(relay->user.fd);
	exchange_free(relay->exchange);
	g_free(relay);
}

const struct exchange *relay_exchange(const struct relay *relay)
{
	return relay->exchange;
}
