/*
 * script_answer.c - how commands of the scripted target end: Data-In, SCSI Response, and their
 * spoiled forms (RFC 7143, 11.4, 11.7, 11.8).
 */
#include "support/script_internal.h"

#include <string.h>

#define FLAG_OVERFLOW  0x04 /* of Data-In and response alike */
#define FLAG_UNDERFLOW 0x02
#define FLAG_STATUS    0x01
#define REASON_FIELD   0x09 /* invalid PDU field */
#define WRONG_TAG      0x5a5a5a5au

/* Where in its answer a PDU stands. */
enum { FIRST = 1, LAST_DATA = 2 }; /* the latter: or the response, where there is no Data-In */

/* ---- leaving ---- */

static void spoil_header(const struct script_task *task, uint8_t *header, int place)
{
	bool data_in = header[0] == OP_DATA_IN;

	switch (task->rule.spoil) {
	case SCRIPT_WRONG_ITT:
		if (place & FIRST)
			put_be32(header + 16, task->itt ^ WRONG_TAG);
		break;
	case SCRIPT_DATASN_GAP:
		if (data_in && (place & LAST_DATA))
			put_be32(header + 36, get_be32(header + 36) + 1);
		break;
	case SCRIPT_BEYOND_LENGTH:
		if (data_in && (place & LAST_DATA))
			put_be32(header + 40, task->length);
		break;
	case SCRIPT_BAD_AHS:
		if (place & FIRST)
			header[4] = 0xff;
		break;
	case SCRIPT_LONG_SEGMENT:
		if (place & FIRST)
			memset(header + 5, 0xff, 3);
		break;
	case SCRIPT_UNKNOWN_OPCODE:
		if (place & FIRST)
			header[0] = 0x3b;
		break;
	default:
		break;
	}
}

/* What a PDU cannot be any more goes out as bytes. */
static void emit_broken(struct script_task *task, const uint8_t *header, const uint8_t *data,
    uint32_t length, bool half)
{
	static const uint8_t zeros[4];
	g_autoptr(GByteArray) bytes = g_byte_array_sized_new(BHS_SIZE + length + 8);
	uint8_t digest[4];

	traffic_note(task->connection, false, header, data, length);
	g_byte_array_append(bytes, header, BHS_SIZE);
	digest_of(header, BHS_SIZE, digest);
	if (task->connection->digest_on)
		g_byte_array_append(bytes, digest, sizeof(digest));
	if (length) {
		g_byte_array_append(bytes, data, length);
		g_byte_array_append(bytes, zeros, -length & 3);
	}
	connection_send_bytes(
	    task->connection, bytes->data, half ? bytes->len / 2 : bytes->len, half);
}

static void emit(
    struct script_task *task, uint8_t *header, const uint8_t *data, uint32_t length, int place)
{
	enum script_spoil spoil = task->rule.spoil;
	bool bare = (spoil == SCRIPT_BAD_AHS || spoil == SCRIPT_LONG_SEGMENT) && (place & FIRST);
	bool half = spoil == SCRIPT_TRUNCATED && (place & LAST_DATA);

	header[5] = (uint8_t)(length >> 16);
	put_be16(header + 6, (uint16_t)length);
	spoil_header(task, header, place);
	if (bare || half)
		emit_broken(task, header, data, bare ? 0 : length, half);
	else
		connection_put(task->connection, header, data, length);
}

/* ---- what is left ---- */

/* Writes the residual count, returns its flag. */
static uint8_t put_residual(const struct script_task *task, uint8_t *field)
{
	uint32_t given = task->writes ? task->length : task->result->len;
	uint32_t residual = given > task->length ? given - task->length : task->length - given;
	uint8_t flag = given > task->length ? FLAG_OVERFLOW : FLAG_UNDERFLOW;
	const struct script_lun *lun =
	    g_hash_table_lookup(task->target->luns, GUINT_TO_POINTER(task->lun));

	if (task->rule.spoil == SCRIPT_NO_DATA)
		residual = 0;
	if (task->rule.spoil == SCRIPT_UNDERFLOW || task->rule.spoil == SCRIPT_OVERFLOW) {
		residual = lun ? lun->block_size : 512;
		flag = task->rule.spoil == SCRIPT_OVERFLOW ? FLAG_OVERFLOW : FLAG_UNDERFLOW;
	}
	put_be32(field, residual);
	return residual ? flag : 0;
}

/* ---- response ---- */

static void send_response(struct script_task *task, uint32_t data_pdus, int place)
{
	uint8_t header[BHS_SIZE];
	uint8_t sense[20] = {
	    0, 18, 0x70, 0, task->sense.key, [9] = 10, [14] = task->sense.asc, task->sense.ascq};
	bool has_sense = task->status == SAM_CHECK_CONDITION;

	header_fill(task->connection, header, OP_RESPONSE, task->itt, true);
	header[2] = task->rule.spoil == SCRIPT_RESPONSE_CODE ? 0x01 : 0x00;
	header[3] = task->status;
	put_be32(header + 36, data_pdus);
	header[1] |= put_residual(task, header + 44);
	emit(task, header, sense, has_sense ? sizeof(sense) : 0, place);
}

/* ---- Data-In ---- */

static bool status_apart(const struct script_task *task)
{
	return task->target->parameters.separate_status ||
	       task->rule.spoil == SCRIPT_RESPONSE_CODE ||
	       task->rule.spoil == SCRIPT_MISSING_SEGMENT;
}

static void send_data_in(struct script_task *task)
{
	struct script_connection *connection = task->connection;
	uint32_t total = MIN(task->result->len, task->length), at = 0, datasn = 0;
	bool apart = status_apart(task);
	uint8_t header[BHS_SIZE];

	while (at < total) {
		/* a sequence ends with each burst */
		uint32_t burst_left = connection->max_burst - at % connection->max_burst;
		uint32_t length = MIN(MIN(total - at, connection->send_segment), burst_left);
		bool last = at + length == total, with_status = last && !apart;

		header_fill(connection, header, OP_DATA_IN, task->itt, with_status);
		header[1] = last || length == burst_left ? 0x80 : 0;
		put_be32(header + 20, NO_TAG);
		put_be32(header + 36, datasn);
		put_be32(header + 40, at);
		if (with_status) {
			header[1] |= FLAG_STATUS | put_residual(task, header + 44);
			header[3] = task->status;
		} else {
			put_be32(header + 24, 0); /* no StatSN */
		}
		if (at > 0 || task->rule.spoil != SCRIPT_MISSING_SEGMENT)
			emit(task, header, task->result->data + at, length,
			    (at == 0 ? FIRST : 0) | (last ? LAST_DATA : 0));
		at += length;
		datasn++;
	}
	if (apart)
		send_response(task, datasn, 0);
}

void task_answer(struct script_task *task)
{
	struct script_record *record = task_record(task);
	bool data =
	    task->status == SAM_GOOD && task->reads && MIN(task->result->len, task->length) > 0;

	if (!task->connection)
		return;
	record->answered = true;
	record->answered_ms = script_now() - task->target->began_ms;
	if (task->rule.spoil == SCRIPT_REJECT)
		connection_reject(task->connection, task->header, REASON_FIELD);
	else if (data && task->rule.spoil != SCRIPT_NO_DATA)
		send_data_in(task);
	else
		send_response(task, task->r2tsn, FIRST | LAST_DATA);
}

/* ---- R2T ---- */

void task_spoil_r2t(struct script_task *task)
{
	uint8_t header[BHS_SIZE];
	uint32_t at = task->data->len, length = 512;

	header_fill(task->connection, header, OP_R2T,
	    task->rule.spoil == SCRIPT_R2T_WRONG_ITT ? task->itt ^ WRONG_TAG : task->itt, false);
	if (task->rule.spoil == SCRIPT_R2T_BEYOND)
		at = task->length;
	else if (task->rule.spoil == SCRIPT_R2T_EMPTY)
		length = 0;
	memcpy(header + 8, task->header + 8, 8);
	put_be32(header + 20, task->target->next_tag++);
	put_be32(header + 36, task->r2tsn++);
	put_be32(header + 40, at);
	put_be32(header + 44, length);
	connection_put(task->connection, header, NULL, 0);
}
