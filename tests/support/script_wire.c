/*
 * script_wire.c - PDUs of the scripted target, in and out (RFC 7143, 11).
 */
#include "support/script_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define READ_SIZE         262144
#define REASON_PROTOCOL   0x04
#define REASON_NO_COMMAND 0x05 /* command not supported */

/* ---- out ---- */

void header_fill(struct script_connection *connection, uint8_t *header, uint8_t opcode,
    uint32_t itt, bool takes_statsn)
{
	uint32_t expected =
	    connection->session ? connection->session->expected_cmdsn : connection->expected_cmdsn;

	uint32_t max = expected + connection->target->parameters.window - 1;

	memset(header, 0, BHS_SIZE);
	header[0] = opcode;
	header[1] = 0x80;
	put_be32(header + 16, itt);
	put_be32(header + 24, connection->statsn);
	if (takes_statsn)
		connection->statsn++;
	put_be32(header + 28, expected);
	put_be32(header + 32, max);
}

static struct script_leaving *leaving_new(
    struct script_connection *connection, size_t size, bool last)
{
	struct script_leaving *leaving = g_new0(struct script_leaving, 1);

	leaving->bytes = g_byte_array_sized_new((guint)size);
	leaving->due = script_now() + connection->target->latency;
	leaving->last = last;
	g_queue_push_tail(&connection->out, leaving);
	return leaving;
}

void connection_send_bytes(
    struct script_connection *connection, const void *bytes, size_t length, bool last)
{
	struct script_leaving *leaving = leaving_new(connection, length, last);

	g_byte_array_append(leaving->bytes, bytes, (guint)length);
}

/* What the initiator may take for MaxCmdSN now: it never moves back (RFC 7143, 4.2.2.1). */
static void note_window(struct script_connection *connection, const uint8_t *header)
{
	uint32_t expected = get_be32(header + 28), max = get_be32(header + 32);
	uint32_t *told =
	    connection->session ? &connection->session->max_cmdsn : &connection->max_cmdsn;

	if ((int32_t)(max - (expected - 1)) >= 0 && (int32_t)(max - *told) > 0)
		*told = max;
}

static void put_digest(struct script_connection *connection, GByteArray *bytes)
{
	uint8_t digest[4];

	digest_of(bytes->data, BHS_SIZE, digest);
	digest[0] ^= connection->spoil_digest;
	connection->spoil_digest = false;
	g_byte_array_append(bytes, digest, sizeof(digest));
}

void connection_put_pdu(struct script_connection *connection, GByteArray *pdu, bool past_hooks)
{
	struct script_leaving *leaving;

	if (!past_hooks && !hook_leaves(connection, pdu))
		return;
	g_assert(pdu->len >= BHS_SIZE && pdu->data[4] == 0); /* no AHS */
	uint32_t length = pdu->len - BHS_SIZE;
	pdu->data[5] = (uint8_t)(length >> 16);
	put_be16(pdu->data + 6, (uint16_t)length);
	traffic_note(connection, false, pdu->data, pdu->data + BHS_SIZE, length);
	note_window(connection, pdu->data);
	leaving = leaving_new(connection, BHS_SIZE + length + 8, false);
	g_byte_array_append(leaving->bytes, pdu->data, BHS_SIZE);
	if (connection->digest_on)
		put_digest(connection, leaving->bytes);
	if (length)
		g_byte_array_append(leaving->bytes, pdu->data + BHS_SIZE, length);
	for (uint32_t pad = -length & 3; pad; pad--)
		g_byte_array_append(leaving->bytes, &connection->padding, 1);
}

void connection_put(
    struct script_connection *connection, const uint8_t *header, const void *data, uint32_t length)
{
	g_autoptr(GByteArray) pdu = g_byte_array_sized_new(BHS_SIZE + length);

	g_byte_array_append(pdu, header, BHS_SIZE);
	if (length)
		g_byte_array_append(pdu, data, length);
	connection_put_pdu(connection, pdu, false);
}

void connection_send_last(struct script_connection *connection)
{
	leaving_new(connection, 0, true);
}

void connection_reject(struct script_connection *connection, const uint8_t *header, uint8_t reason)
{
	uint8_t reject[BHS_SIZE];

	header_fill(connection, reject, OP_REJECT, NO_TAG, true);
	reject[2] = reason;
	connection_put(connection, reject, header, BHS_SIZE);
}

/* False when the connection has failed, or ends here. */
bool connection_write(struct script_connection *connection)
{
	struct script_leaving *first;

	while ((first = g_queue_peek_head(&connection->out)) && first->due <= script_now()) {
		size_t left = first->bytes->len - first->sent;
		ssize_t n = 0;

		if (left)
			n = send(connection->fd, first->bytes->data + first->sent, left,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN;
		first->sent += (size_t)n;
		if (first->sent < first->bytes->len)
			return true;
		if (first->last)
			return false;
		g_queue_pop_head(&connection->out);
		g_byte_array_unref(first->bytes);
		g_free(first);
	}
	return true;
}

/* ---- in ---- */

/* False when it has failed or ended. */
bool connection_read(struct script_connection *connection)
{
	guint before = connection->in->len;

	g_byte_array_set_size(connection->in, before + READ_SIZE);
	ssize_t n = recv(connection->fd, connection->in->data + before, READ_SIZE, MSG_DONTWAIT);
	int error = errno;
	g_byte_array_set_size(connection->in, before + (n > 0 ? (guint)n : 0));
	return n > 0 || (n < 0 && error == EAGAIN);
}

static void nop_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	uint32_t itt = get_be32(pdu->header + 16);
	uint8_t answer[BHS_SIZE];

	if (itt == NO_TAG) {
		connection->target->pongs += get_be32(pdu->header + 20) != NO_TAG;
		return;
	}
	if (connection->target->parameters.ignore_nops)
		return;
	header_fill(connection, answer, OP_NOP_IN, itt, true);
	memcpy(answer + 8, pdu->header + 8, 8);
	put_be32(answer + 20, NO_TAG);
	connection_put(connection, answer, pdu->data, MIN(pdu->length, connection->send_segment));
}

static void logout_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	uint8_t answer[BHS_SIZE];

	header_fill(connection, answer, OP_LOGOUT_RESPONSE, get_be32(pdu->header + 16), true);
	answer[2] = connection->target->parameters.logout_response;
	put_be16(answer + 40, connection->target->parameters.logout_time2wait);
	tasks_end_session(connection->target, connection->session);
	connection_put(connection, answer, NULL, 0);
	connection_send_last(connection);
}

/* Is it the next command? Else it is not to be looked at (RFC 7143, 4.2.2.1). */
static bool in_sequence(struct script_connection *connection, const uint8_t *header)
{
	struct script_session *session = connection->session;
	uint32_t cmdsn = get_be32(header + 24);
	uint32_t ahead = cmdsn - session->expected_cmdsn;

	if (header[0] & 0x40) /* I: it takes no number */
		return true;
	if (ahead == 0 && session->max_cmdsn - cmdsn < 0x80000000u) {
		session->expected_cmdsn++;
		return true;
	}
	/* with one connection nothing can come in between later */
	connection_complain(connection, "opcode %02x has CmdSN %u, not %u up to %u",
	    header[0] & 0x3f, cmdsn, session->expected_cmdsn, session->max_cmdsn);
	return false;
}

static void connection_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	uint8_t opcode = pdu->header[0] & 0x3f;

	if (connection->stage != STAGE_FULL) {
		if (!connection->noted && hook_came(connection, pdu))
			return;
		if (opcode == OP_LOGIN)
			login_take(connection, pdu);
		else
			connection_complain(connection, "opcode %02x before a login", opcode);
		return;
	}
	if (opcode != OP_DATA_OUT && opcode != OP_SNACK && !in_sequence(connection, pdu->header))
		return;
	if (hook_came(connection, pdu))
		return;
	if (connection->discovery && opcode != OP_TEXT && opcode != OP_LOGOUT &&
	    opcode != OP_NOP_OUT) {
		connection_reject(connection, pdu->header, REASON_PROTOCOL);
		return;
	}
	switch (opcode) {
	case OP_NOP_OUT:
		nop_take(connection, pdu);
		break;
	case OP_COMMAND:
		command_take(connection, pdu);
		break;
	case OP_MANAGEMENT:
		management_take(connection, pdu);
		break;
	case OP_TEXT:
		text_take(connection, pdu);
		break;
	case OP_DATA_OUT:
		data_out_take(connection, pdu);
		break;
	case OP_LOGOUT:
		logout_take(connection, pdu);
		break;
	case OP_SNACK:
		connection_reject(connection, pdu->header, REASON_NO_COMMAND);
		break;
	default:
		connection_complain(connection, "unknown opcode %02x", opcode);
	}
}

/* The PDU that begins there; its length on the wire, or 0: not all of it came. */
static guint pdu_at(struct script_connection *connection, guint at, struct script_pdu *pdu)
{
	const GByteArray *in = connection->in;
	const uint8_t *header = in->data + at;
	uint32_t limit = connection->stage == STAGE_FULL
	                     ? connection->target->parameters.receive_segment
	                     : LOGIN_DATA;
	uint8_t digest[4];

	if (in->len - at < BHS_SIZE)
		return 0;
	guint ahs = BHS_SIZE + 4u * header[4];
	guint before = ahs + (connection->digest_on ? 4 : 0);
	*pdu = (struct script_pdu){
	    header, header + before, (uint32_t)header[5] << 16 | get_be16(header + 6)};
	if (pdu->length > limit) {
		connection_complain(connection, "a segment of %u bytes", pdu->length);
		return 0;
	}
	guint whole = before + ((pdu->length + 3) & ~3u);
	if (in->len - at < whole)
		return 0;
	if (!connection->digest_on)
		return whole;
	digest_of(header, ahs, digest);
	if (memcmp(header + ahs, digest, sizeof(digest)) != 0) {
		connection_complain(connection, "a wrong header digest");
		return 0;
	}
	return whole;
}

void connection_parse(struct script_connection *connection)
{
	struct script_pdu pdu;
	guint at = 0, length;

	while (!connection->dead && !connection->silent &&
	       connection->paused_until <= script_now() &&
	       (length = pdu_at(connection, at, &pdu)) > 0) {
		if (!connection->noted)
			traffic_note(connection, true, pdu.header, pdu.data, pdu.length);
		connection_take(connection, &pdu);
		connection->noted = connection->again;
		if (connection->again)
			break;
		at += length;
	}
	connection->again = false;
	g_byte_array_remove_range(connection->in, 0, at);
}
