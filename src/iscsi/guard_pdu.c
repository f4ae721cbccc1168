/*
 * guard_pdu.c - a header that has come, or is to leave: what concerns the session.
 *
 * StatSN and the command window are followed here (RFC 7143, 4.2.2), beside libiscsi, which errs
 * with both. What the target says of the session itself becomes a notice, and is hidden from
 * libiscsi, which would act on its own.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "guard_internal.h"

/* MaxRecvDataSegmentLength, as libiscsi declares it */
#define SEGMENT_LIMIT (256u << 10)
/* Of StatSN; the largest that RFC 7143, 4.2.2.2 allows is 2^31 - 1. */
#define STEP_LIMIT (1 << 16)
/* libiscsi is told that the target is so many commands behind: more than ever are under way, and
 * less than half of the numbers there are. */
#define BEHIND (1u << 30)
/* Of NOP-In whose answer has not left yet. libiscsi keeps an answer for each. */
#define PINGS_LIMIT 1024u

/* RFC 7143, 11.9.1 */
enum {
	EVENT_SCSI = 0,
	EVENT_LOGOUT = 1,
	EVENT_DROPS_CONNECTION = 2,
	EVENT_DROPS_SESSION = 3,
	EVENT_NEGOTIATION = 4,
	EVENT_TASKS_ENDED = 5,
};
#define REASON_WAITING_FOR_LOGOUT 0x0c
#define NO_SUCH_CONNECTION        1 /* a response to Logout (11.15.1) */

bool guard_refuse(struct guard *guard, const char *why, ...)
{
	va_list arguments;

	va_start(arguments, why);
	vsnprintf(guard->finding, sizeof guard->finding, why, arguments);
	va_end(arguments);
	return false;
}

/* ---- notices ---- */

bool guard_take_notice(struct guard *guard, struct guard_notice *notice)
{
	if (guard->noticed == 0)
		return false;
	*notice = guard->notices[0];
	memmove(guard->notices, guard->notices + 1, --guard->noticed * sizeof *notice);
	return true;
}

/* Where nobody takes them the last are kept. */
static void guard_note(struct guard *guard, struct guard_notice notice)
{
	struct guard_notice oldest;

	if (guard->noticed == G_N_ELEMENTS(guard->notices))
		guard_take_notice(guard, &oldest);
	guard->notices[guard->noticed++] = notice;
}

/* ---- serial numbers ---- */

/* How far a is after b (RFC 1982). */
static int32_t serial_step(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b);
}

/* The PDU has the next StatSN. It counts when all of it is here. */
static bool guard_counts_status(struct guard *guard, const uint8_t *header)
{
	uint32_t statsn = get_be32(header + 24);
	int32_t step;

	if (!guard->knows_status)
		guard->statsn = statsn - 1;
	guard->knows_status = true;
	step = serial_step(statsn, guard->statsn + 1);
	if (step >= STEP_LIMIT || step <= -STEP_LIMIT)
		return guard_forbid(guard,
		    "StatSN %u is far from %u, which was next: answers were lost", statsn,
		    guard->statsn + 1);
	if (step >= 0)
		guard->arrives = statsn;
	return true;
}

/*
 * What cannot be is ignored (RFC 7143, 4.2.2.1): libiscsi then gets what it was told before. Of
 * ExpCmdSN it makes nothing but errors: see guard.h. True: edited.
 */
static bool guard_counts_window(struct guard *guard, uint8_t *header)
{
	uint32_t exp_cmdsn = get_be32(header + 28), max_cmdsn = get_be32(header + 32);

	if (!guard->knows_window)
		return false;
	if (serial_step(max_cmdsn, exp_cmdsn - 1) < 0) {
		put_be32(header + 32, guard->max_cmdsn);
	} else {
		if (serial_step(exp_cmdsn, guard->exp_cmdsn) > 0)
			guard->exp_cmdsn = exp_cmdsn;
		if (serial_step(max_cmdsn, guard->max_cmdsn) > 0)
			guard->max_cmdsn = max_cmdsn;
	}
	put_be32(header + 28, guard->exp_cmdsn - BEHIND);
	return true;
}

bool guard_window_is_open(const struct guard *guard)
{
	return !guard->knows_window || serial_step(guard->max_cmdsn, guard->cmdsn) >= 0;
}

/* ---- what comes ---- */

/* True: edited, so that libiscsi does nothing about it. */
static bool guard_takes_event(struct guard *guard, uint8_t *header)
{
	uint16_t time2wait = get_be16(header + 40), within_s = get_be16(header + 42);

	switch (header[36]) {
	case EVENT_SCSI:
		if (guard->noticed == 0) /* one says it all, and others count more */
			guard_note(guard, (struct guard_notice){.event = GUARD_SCSI_EVENT});
		return false;
	case EVENT_LOGOUT:
	case EVENT_NEGOTIATION:
		guard_note(guard,
		    (struct guard_notice){.event = GUARD_LOGOUT_REQUESTED, .within_s = within_s});
		break;
	case EVENT_DROPS_CONNECTION:
	case EVENT_DROPS_SESSION:
		guard_note(guard,
		    (struct guard_notice){.event = GUARD_DROP_ANNOUNCED, .time2wait = time2wait});
		break;
	default:
		break;
	}
	header[36] = EVENT_SCSI;
	return true;
}

static bool guard_passes_event(struct guard *guard, uint8_t *header, bool *edited)
{
	if (header[36] == EVENT_TASKS_ENDED)
		return guard_refuse(guard, "the target ended the commands of a LUN (event 5)");
	*edited |= guard_takes_event(guard, header);
	return true;
}

/* RFC 7143, 11.17.1 */
static const char *reject_reason(uint8_t reason)
{
	static const char *const reasons[] = {
	    [0x02] = "data digest error",
	    [0x03] = "SNACK reject",
	    [0x04] = "protocol error",
	    [0x05] = "command not supported",
	    [0x06] = "too many immediate commands",
	    [0x07] = "task in progress",
	    [0x08] = "invalid data ACK",
	    [0x09] = "invalid PDU field",
	    [0x0a] = "long operation, out of resources",
	    [0x0b] = "negotiation reset",
	};

	return reason < G_N_ELEMENTS(reasons) && reasons[reason] != NULL ? reasons[reason]
	                                                                 : "unknown reason";
}

/* What waits for a logout becomes an event that libiscsi does nothing about. */
static bool guard_passes_reject(struct guard *guard, uint8_t *header, bool *edited)
{
	if (header[2] != REASON_WAITING_FOR_LOGOUT)
		return guard_refuse(guard, "the target rejected a request: %s (%02Xh)",
		    reject_reason(header[2]), header[2]);
	guard_note(guard, (struct guard_notice){.event = GUARD_LOGOUT_REQUESTED});
	header[0] = ASYNC_MESSAGE;
	header[36] = EVENT_SCSI;
	*edited = true;
	return true;
}

static bool guard_passes_logout(struct guard *guard, const uint8_t *header)
{
	if (header[2] != NO_SUCH_CONNECTION) /* of that Time2Wait is not valid (11.15.3) */
		guard_note(guard, (struct guard_notice){.event = GUARD_LOGGED_OUT,
		                      .time2wait = get_be16(header + 40)});
	return true;
}

/* The answer to a ping has the ping's LUN (RFC 7143, 11.18); libiscsi keeps 2 of its 8 bytes. */
static bool guard_passes_nop_in(struct guard *guard, const uint8_t *header)
{
	struct ping ping = {.ttt = get_be32(header + 20)};

	if (get_be32(header + 16) != NO_TAG)
		return guard_counts_status(guard, header);
	if (ping.ttt == NO_TAG)
		return true;
	if (guard->pings->len == PINGS_LIMIT) /* or what leaves is not seen */
		return !guard->seen_out ||
		       guard_refuse(
		           guard, "the target sends NOP-In after NOP-In, and takes no answer");
	memcpy(ping.lun, header + 8, sizeof ping.lun);
	g_array_append_val(guard->pings, ping);
	return true;
}

/* libiscsi takes the request out of its queue, and would not send the rest of it. */
static bool guard_answers_half_a_request(const struct guard *guard, const uint8_t *header)
{
	const struct stream *out = &guard->out;

	return out->have > 0 && (guard->whole || out->have >= 20) &&
	       (out->header[0] & 0x3f) != DATA_OUT && get_be32(header + 16) != NO_TAG &&
	       memcmp(out->header + 16, header + 16, 4) == 0;
}

static bool guard_passes_opcode(struct guard *guard, uint8_t *header, bool *edited)
{
	uint8_t opcode = header[0] & 0x3f;

	switch (opcode) {
	case DATA_IN:
		return command_passes_data_in(guard, header) &&
		       (!(header[1] & STATUS) || guard_counts_status(guard, header));
	case SCSI_RESPONSE:
		return command_passes_response(guard, header) && guard_counts_status(guard, header);
	case R2T:
		return command_passes_r2t(guard, header);
	case NOP_IN:
		return guard_passes_nop_in(guard, header);
	case TASK_RESPONSE:
	case TEXT_RESPONSE:
		return guard_counts_status(guard, header);
	case LOGOUT_RESPONSE:
		return guard_counts_status(guard, header) && guard_passes_logout(guard, header);
	case ASYNC_MESSAGE:
		return guard_counts_status(guard, header) &&
		       guard_passes_event(guard, header, edited);
	case REJECT:
		return guard_counts_status(guard, header) &&
		       guard_passes_reject(guard, header, edited);
	default:
		return guard_forbid(guard, "a PDU of an unknown kind (opcode %02Xh)", opcode);
	}
}

bool guard_passes(struct guard *guard, uint8_t *header)
{
	bool digest = guard->header_length > HEADER_LENGTH, edited;

	if (digest && !digest_is_right(header))
		return guard_refuse(guard, "a header came damaged (its digest is wrong)");
	/* Those that there are belong to requests (RFC 7143, 11.2.2). */
	if (header[4] != 0)
		return guard_forbid(guard, "additional headers");
	if ((get_be32(header + 4) & 0xffffff) > SEGMENT_LIMIT)
		return guard_forbid(guard, "a PDU with more data than agreed");
	guard->padding =
	    (header[0] & 0x3f) == TEXT_RESPONSE ? -(get_be32(header + 4) & 0xffffff) & 3 : 0;
	if (!guard->begun)
		return true;
	if (guard_answers_half_a_request(guard, header))
		return guard_forbid(guard, "an answer to a request that has not left yet");
	edited = guard_counts_window(guard, header);
	if (!guard_passes_opcode(guard, header, &edited))
		return false;
	if (edited && digest)
		digest_put(header);
	return true;
}

/* ---- what leaves ---- */

static bool is_numbered(const uint8_t *header)
{
	return !(header[0] & IMMEDIATE) && (header[0] & 0x3f) != DATA_OUT;
}

static struct ping *guard_find_ping(const struct guard *guard, const uint8_t *header)
{
	if ((header[0] & 0x3f) != NOP_OUT)
		return NULL;
	for (guint i = 0; i < guard->pings->len; i++) {
		struct ping *ping = &g_array_index(guard->pings, struct ping, i);

		if (ping->ttt == get_be32(header + 20))
			return ping;
	}
	return NULL;
}

bool guard_edits_sent(struct guard *guard)
{
	uint8_t *header = guard->out.header;
	const struct ping *ping = guard_find_ping(guard, header);
	bool edited = false;

	if (guard->knows_status && get_be32(header + 28) != guard->statsn + 1) {
		put_be32(header + 28, guard->statsn + 1);
		edited = true;
	}
	if (guard->knows_window && (header[0] & IMMEDIATE) &&
	    get_be32(header + 24) != guard->cmdsn) {
		put_be32(header + 24, guard->cmdsn);
		edited = true;
	}
	if (ping != NULL) {
		memcpy(header + 8, ping->lun, sizeof ping->lun);
		edited = true;
	}
	if (edited && guard->header_length > HEADER_LENGTH)
		digest_put(header);
	return edited;
}

void guard_note_sent(struct guard *guard)
{
	const uint8_t *header = guard->out.header;
	uint8_t opcode = header[0] & 0x3f;
	const struct ping *ping = guard_find_ping(guard, header);

	if (ping != NULL)
		g_array_remove_index(
		    guard->pings, (guint)(ping - (const struct ping *)(void *)guard->pings->data));
	if (is_numbered(header))
		guard->cmdsn = get_be32(header + 24) + 1;
	if (opcode == SCSI_COMMAND || opcode == DATA_OUT)
		command_note_sent(guard, header);
}
