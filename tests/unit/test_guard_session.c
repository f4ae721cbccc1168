/*
 * test_guard_session.c - StatSN, the command window, and what the target says of the session.
 */
#undef _FORTIFY_SOURCE /* recv() itself is what is tested */
#include "support/guard_bench.h"

#include <sys/syscall.h>

enum { NOP_OUT = 0x00, SCSI_COMMAND = 0x01, DATA_OUT = 0x05, IMMEDIATE = 0x40 };

#define STATSN 0x7ffffffeu
#define CMDSN  0xfffffffeu

static struct ends ends_counting(bool digest)
{
	return ends_logged_in((struct guard_session){
	    .header_digest = digest, .statsn = STATSN, .cmdsn = CMDSN, .max_cmdsn = CMDSN + 5});
}

/* What libiscsi gets of a PDU, header and digest. */
static void receive_header(const struct ends *ends, uint8_t header[HEADER + DIGEST])
{
	size_t length = HEADER + (ends->digest ? DIGEST : 0);

	cr_assert_eq(
	    recv(ends->user, header, length, 0), (ssize_t)length, "%s", guard_finding(ends->guard));
	cr_assert(!ends->digest || digest_is_right(header));
}

static void passes(const struct ends *ends, const struct pdu *pdu, uint8_t header[HEADER + DIGEST])
{
	g_autofree uint8_t *data = g_malloc(pdu->data + 4);
	size_t padded = (pdu->data + 3) & ~3u;

	send_pdu(ends, pdu);
	receive_header(ends, header);
	if (padded)
		cr_assert_eq(recv(ends->user, data, padded, 0), (ssize_t)padded);
}

/* Bytes that the socket takes at once of what the guard edits; 0: all. */
static size_t room;

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	const struct iovec *iov = message->msg_iov;

	if (room == 0)
		return syscall(SYS_sendmsg, fd, message, flags);
	iov += iov->iov_len == 0;
	return sendto(fd, iov->iov_base, MIN(iov->iov_len, room), flags, NULL, 0);
}

/* What the target gets of a PDU's header, and the same data. */
static void leaves(const struct ends *ends, const struct pdu *pdu, uint8_t found[HEADER + DIGEST])
{
	g_autoptr(GByteArray) bytes = g_byte_array_new();
	size_t length = HEADER + (ends->digest ? DIGEST : 0);
	uint8_t data[400];
	ssize_t n;

	pdu_append(bytes, pdu, ends->digest);
	for (guint at = 0; at < bytes->len; at += (guint)n)
		cr_assert_gt(n = send(ends->user, bytes->data + at, bytes->len - at, 0), 0);
	cr_assert_eq(recv(ends->target, found, length, 0), (ssize_t)length);
	cr_assert(!ends->digest || digest_is_right(found));
	if (bytes->len == length)
		return;
	cr_assert_eq(recv(ends->target, data, sizeof data, 0), (ssize_t)(bytes->len - length));
	cr_assert_arr_eq(data, bytes->data + length, bytes->len - length);
}

static uint32_t acknowledged(const struct ends *ends)
{
	uint8_t found[HEADER + DIGEST];

	leaves(ends, &(struct pdu){NOP_OUT | IMMEDIATE, .flags = 0x80, .itt = 99}, found);
	return get_be32(found + 28);
}

/* ---- StatSN (RFC 7143, 4.2.2.2) ---- */

Test(guard, acknowledges_each_status_and_nothing_else)
{
	static const struct {
		struct pdu pdu;
		bool counts;
	} steps[] = {
	    {{DATA_IN, .itt = READ_ITT, .data = 2048}, false},
	    {{R2T, .itt = WRITE_ITT, .wanted = 512}, false},
	    {{NOP_IN, .itt = UINT32_MAX, .ttt = UINT32_MAX}, false},
	    {{NOP_IN, .itt = UINT32_MAX, .ttt = 5}, false},
	    {{DATA_IN, .flags = 0x81, .itt = READ_ITT, .sn = 1, .offset = 2048, .data = 2048},
	        true},
	    {{SCSI_RESPONSE, .flags = 0x80, .itt = WRITE_ITT, .status = 2}, true},
	    {{ASYNC, .flags = 0x80, .itt = UINT32_MAX, .data = 20}, true},
	    {{REJECT, .flags = 0x80, .itt = UINT32_MAX, .byte2 = 0x0c, .data = 48}, true},
	    {{NOP_IN, .flags = 0x80, .itt = 98, .ttt = UINT32_MAX}, true},
	    {{TASK_RESPONSE, .flags = 0x80, .itt = 98}, true},
	    {{TEXT_RESPONSE, .flags = 0x80, .itt = 98, .data = 10}, true},
	    {{LOGOUT_RESPONSE, .flags = 0x80, .itt = 98}, true},
	};

	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_counting(digest);
		uint32_t next = STATSN + 1;
		uint8_t header[HEADER + DIGEST];

		leaves(&ends, &(struct pdu){SCSI_COMMAND, .itt = READ_ITT}, header);
		leaves(&ends, &(struct pdu){SCSI_COMMAND, .flags = 0x80, .itt = WRITE_ITT}, header);
		cr_assert_eq(acknowledged(&ends), next);
		for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
			struct pdu pdu = steps[i].pdu;

			pdu.statsn = pdu.opcode == DATA_IN && !(pdu.flags & 1) ? 0 : next;
			passes(&ends, &pdu, header);
			next += steps[i].counts;
			cr_assert_eq(acknowledged(&ends), next, "step %u", i);
		}
		ends_free(&ends);
	}
}

/* A header with 4 bytes of data is as long as one with a digest. */
Test(guard, believes_the_login_about_header_digests)
{
	struct ends ends = ends_counting(false);
	uint8_t found[HEADER + DIGEST];

	for (uint32_t i = 0; i < 3; i++) {
		leaves(&ends, &(struct pdu){NOP_OUT, .itt = i, .data = DIGEST}, found);
		cr_assert_eq(get_be32(found + 28), STATSN + 1, "PDU %u", i);
	}
	ends_free(&ends);
}

Test(guard, acknowledges_right_in_whatever_leaves)
{
	static const uint8_t opcodes[] = {
	    SCSI_COMMAND, DATA_OUT, NOP_OUT, 0x02 | IMMEDIATE, 0x04 | IMMEDIATE, 0x06 | IMMEDIATE};
	struct ends ends = ends_counting(true);
	uint8_t found[HEADER + DIGEST];

	for (unsigned i = 0; i < G_N_ELEMENTS(opcodes); i++) {
		leaves(&ends, &(struct pdu){opcodes[i], .exp_cmdsn = 77, .itt = 99, .data = 50},
		    found);
		cr_assert_eq(get_be32(found + 28), STATSN + 1);
		cr_assert_eq(found[0], opcodes[i]);
		cr_assert_eq(get_be32(found + 16), 99);
	}
	ends_free(&ends);
}

Test(guard, edits_a_header_that_leaves_in_pieces)
{
	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_counting(digest);
		uint8_t found[HEADER + DIGEST];

		for (room = 1; room < 60; room++) {
			leaves(&ends, &(struct pdu){SCSI_COMMAND, .itt = room, .data = 9}, found);
			cr_assert_eq(get_be32(found + 28), STATSN + 1);
			cr_assert_eq(get_be32(found + 16), room);
		}
		room = 0;
		ends_free(&ends);
	}
}

/* The socket was full when it was to leave first. */
Test(guard, edits_a_header_anew_where_it_leaves_later)
{
	struct ends ends = ends_counting(false);
	uint8_t found[HEADER + DIGEST];
	g_autofree uint8_t *fill = g_malloc0(1 << 20);

	guard_watch(NULL);
	while (send(ends.user, fill, 1 << 20, 0) > 0)
		;
	guard_watch(ends.guard);
	cr_assert_eq(send(ends.user, fill, HEADER, 0), -1);
	cr_assert_eq(errno, EAGAIN);
	while (recv(ends.target, fill, 1 << 20, 0) > 0)
		;
	send_pdu(&ends, &(struct pdu){TASK_RESPONSE, .itt = 98, .statsn = STATSN + 1});
	must_pass(&ends);
	leaves(&ends, &(struct pdu){SCSI_COMMAND, .itt = 99}, found);
	cr_assert_eq(get_be32(found + 28), STATSN + 2);
	ends_free(&ends);
}

Test(guard, acknowledges_a_status_when_all_of_its_PDU_is_here)
{
	struct ends ends = ends_counting(false);
	uint8_t header[HEADER + DIGEST], data[20];

	send_pdu(&ends, &(struct pdu){SCSI_RESPONSE, .flags = 0x80, .status = 0x02,
	                    .itt = PLAIN_ITT, .data = sizeof data, .statsn = STATSN + 1});
	receive_header(&ends, header);
	cr_assert_eq(recv(ends.user, data, 19, 0), 19);
	cr_assert_eq(acknowledged(&ends), STATSN + 1);
	cr_assert_eq(recv(ends.user, data, 1, 0), 1);
	cr_assert_eq(acknowledged(&ends), STATSN + 2);
	ends_free(&ends);
}

Test(guard, adopts_a_StatSN_that_is_a_step_ahead)
{
	struct ends ends = ends_counting(false);
	uint8_t header[HEADER + DIGEST];

	passes(&ends, &(struct pdu){TASK_RESPONSE, .itt = 98, .statsn = STATSN + 65536}, header);
	cr_assert_eq(acknowledged(&ends), STATSN + 65537);
	passes(&ends, &(struct pdu){TASK_RESPONSE, .itt = 98, .statsn = STATSN + 65530}, header);
	cr_assert_eq(acknowledged(&ends), STATSN + 65537, "an old one counts");
	ends_free(&ends);
}

Test(guard, refuses_a_StatSN_that_is_far_away)
{
	static const uint32_t steps[] = {65537, 1u << 30, 1u << 31, -65536u, -(1u << 20)};

	for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
		struct ends ends = ends_counting(false);

		send_pdu(
		    &ends, &(struct pdu){TASK_RESPONSE, .itt = 98, .statsn = STATSN + steps[i]});
		cr_assert_eq(read_all(&ends, NULL), EPROTO, "step %u", steps[i]);
		cr_assert(g_str_has_suffix(guard_finding(ends.guard), "answers were lost"));
		ends_free(&ends);
	}
}

Test(guard, adopts_the_first_StatSN_where_the_login_is_unknown)
{
	struct ends ends = ends_new(false);
	uint8_t header[HEADER + DIGEST], found[HEADER + DIGEST];

	leaves(&ends, &(struct pdu){NOP_OUT, .itt = 99, .exp_cmdsn = 77}, found);
	cr_assert_eq(get_be32(found + 28), 77, "what is not known was edited");
	passes(&ends, &(struct pdu){TASK_RESPONSE, .itt = 98, .statsn = 0x90000000}, header);
	cr_assert_eq(acknowledged(&ends), 0x90000001);
	ends_free(&ends);
}

/* ---- the command window (RFC 7143, 4.2.2.1) ---- */

static struct pdu nop_in(uint32_t exp_cmdsn, uint32_t max_cmdsn)
{
	return (struct pdu){NOP_IN, .flags = 0x80, .itt = UINT32_MAX, .ttt = UINT32_MAX,
	    .exp_cmdsn = exp_cmdsn, .max_cmdsn = max_cmdsn};
}

Test(guard, has_libiscsi_ignore_a_window_that_cannot_be)
{
	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_counting(digest);
		struct pdu wrong = nop_in(CMDSN + 5, CMDSN + 3),
		           right = nop_in(CMDSN + 2, CMDSN + 8), old = nop_in(CMDSN + 1, CMDSN + 6),
		           closed = nop_in(CMDSN + 9, CMDSN + 8);
		uint8_t header[HEADER + DIGEST];

		passes(&ends, &wrong, header);
		cr_assert_eq(get_be32(header + 32), CMDSN + 5);
		passes(&ends, &right, header);
		cr_assert_eq(get_be32(header + 32), CMDSN + 8);
		passes(&ends, &old, header);
		passes(&ends, &wrong, header);
		cr_assert_eq(get_be32(header + 32), CMDSN + 8);
		passes(&ends, &closed, header);
		ends_free(&ends);
	}
}

/* libiscsi would take the CmdSN of a Data-Out for one that comes too late. */
Test(guard, keeps_from_libiscsi_which_commands_the_target_has)
{
	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_counting(digest);
		uint8_t header[HEADER + DIGEST];

		for (uint32_t i = 0; i < 6; i++) {
			struct pdu pdu = nop_in(CMDSN + i, CMDSN + i + 5);

			passes(&ends, &pdu, header);
			cr_assert_lt((int32_t)(get_be32(header + 28) - CMDSN), 0);
			cr_assert_eq(get_be32(header + 32), CMDSN + i + 5);
		}
		ends_free(&ends);
	}
}

/* Nor does it believe one day that the target is ahead: some 2^31 commands later. */
Test(guard, tells_libiscsi_of_commands_that_the_target_had_long_ago)
{
	struct ends ends = ends_counting(false);
	uint8_t header[HEADER + DIGEST];
	uint32_t told = CMDSN;

	for (uint32_t i = 1; i <= 64; i++) {
		uint32_t cmdsn = CMDSN + (i << 27);
		struct pdu pdu = nop_in(cmdsn, cmdsn + 5);

		passes(&ends, &pdu, header);
		if ((int32_t)(get_be32(header + 28) - told) > 0)
			told = get_be32(header + 28);
		cr_assert_geq((int32_t)(cmdsn - 1000 - told), 0, "step %u", i);
	}
	ends_free(&ends);
}

Test(guard, gives_the_next_CmdSN_to_what_is_immediate)
{
	struct ends ends = ends_counting(true);
	uint8_t found[HEADER + DIGEST];

	leaves(&ends, &(struct pdu){SCSI_COMMAND, .itt = 1, .statsn = CMDSN}, found);
	leaves(&ends, &(struct pdu){NOP_OUT | IMMEDIATE, .itt = 98, .statsn = CMDSN}, found);
	cr_assert_eq(get_be32(found + 24), CMDSN + 1);
	leaves(&ends, &(struct pdu){DATA_OUT, .itt = 1, .statsn = 0}, found);
	cr_assert_eq(get_be32(found + 24), 0);
	leaves(&ends, &(struct pdu){SCSI_COMMAND, .itt = 2, .statsn = CMDSN + 1}, found);
	cr_assert_eq(get_be32(found + 24), CMDSN + 1);
	ends_free(&ends);
}

Test(guard, knows_of_a_window_that_is_closed_after_the_login)
{
	struct ends ends = ends_logged_in(
	    (struct guard_session){.statsn = STATSN, .cmdsn = CMDSN, .max_cmdsn = CMDSN - 1});
	uint8_t header[HEADER + DIGEST];
	struct pdu still = nop_in(CMDSN, CMDSN - 1), open = nop_in(CMDSN, CMDSN);

	cr_assert_not(guard_window_is_open(ends.guard));
	passes(&ends, &still, header);
	cr_assert_not(guard_window_is_open(ends.guard));
	passes(&ends, &open, header);
	cr_assert(guard_window_is_open(ends.guard));
	ends_free(&ends);
}

/* No number is taken by immediate commands and by data. */
Test(guard, knows_of_a_window_that_commands_have_filled)
{
	struct ends ends = ends_logged_in(
	    (struct guard_session){.statsn = STATSN, .cmdsn = CMDSN, .max_cmdsn = CMDSN + 2});
	uint8_t found[HEADER + DIGEST];

	for (uint32_t i = 0; i < 3; i++) {
		cr_assert(guard_window_is_open(ends.guard), "command %u", i);
		leaves(&ends, &(struct pdu){SCSI_COMMAND, .itt = i, .statsn = CMDSN + i}, found);
		leaves(&ends, &(struct pdu){DATA_OUT, .itt = i, .statsn = 0}, found);
		leaves(&ends, &(struct pdu){NOP_OUT | IMMEDIATE, .itt = 98, .statsn = CMDSN + 3},
		    found);
	}
	cr_assert_not(guard_window_is_open(ends.guard));
	ends_free(&ends);
}

Test(guard, takes_the_window_for_open_where_the_login_is_unknown)
{
	struct ends ends = ends_new(false);
	struct pdu wrong = nop_in(50, 10);
	uint8_t header[HEADER + DIGEST];

	cr_assert(guard_window_is_open(ends.guard));
	passes(&ends, &wrong, header);
	cr_assert_eq(get_be32(header + 28), 50, "it was edited");
	leaves(&ends, &(struct pdu){SCSI_COMMAND, .itt = 99, .statsn = 5}, header);
	cr_assert(guard_window_is_open(ends.guard));
	ends_free(&ends);
}

/* ---- Async Message (RFC 7143, 11.9) ---- */

static void notices(const struct pdu *pdu, const struct guard_notice *expected, uint8_t event)
{
	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_counting(digest);
		struct guard_notice notice;
		uint8_t header[HEADER + DIGEST];

		cr_assert_not(guard_take_notice(ends.guard, &notice));
		passes(&ends, pdu, header);
		cr_assert_eq(header[36], event);
		cr_assert_eq(guard_take_notice(ends.guard, &notice), expected != NULL);
		if (expected != NULL) {
			cr_assert_eq(notice.event, expected->event);
			cr_assert_eq(notice.within_s, expected->within_s);
			cr_assert_eq(notice.time2wait, expected->time2wait);
		}
		cr_assert_not(guard_take_notice(ends.guard, &notice));
		ends_free(&ends);
	}
}

static struct pdu event(uint8_t code)
{
	return (struct pdu){ASYNC, .flags = 0x80, .itt = UINT32_MAX, .statsn = STATSN + 1,
	    .event = code, .parameter2 = 7, .parameter3 = 3};
}

Test(guard, tells_of_a_request_to_log_out_and_hides_it)
{
	static const struct guard_notice expected = {GUARD_LOGOUT_REQUESTED, .within_s = 3};
	struct pdu logout = event(1), negotiation = event(4);

	notices(&logout, &expected, 0);
	notices(&negotiation, &expected, 0);
}

Test(guard, tells_of_a_connection_that_will_be_dropped)
{
	static const struct guard_notice expected = {GUARD_DROP_ANNOUNCED, .time2wait = 7};
	struct pdu connection = event(2), all = event(3);

	notices(&connection, &expected, 0);
	notices(&all, &expected, 0);
}

Test(guard, hides_events_that_nobody_knows)
{
	for (unsigned code = 0; code < 256; code++) {
		struct pdu message = event((uint8_t)code);

		if (code > 5)
			notices(&message, NULL, 0);
	}
}

Test(guard, tells_of_SCSI_events_once_and_forgets_nothing_else_for_them)
{
	static const struct guard_notice expected = {.event = GUARD_SCSI_EVENT};
	struct pdu scsi = event(0), logout = event(1);
	struct guard_notice notice;
	uint8_t header[HEADER + DIGEST];

	notices(&scsi, &expected, 0);
	struct ends ends = ends_counting(false);
	passes(&ends, &logout, header);
	for (unsigned i = 0; i < 10; i++) {
		scsi.statsn = STATSN + 2 + i;
		passes(&ends, &scsi, header);
	}
	cr_assert(guard_take_notice(ends.guard, &notice));
	cr_assert_eq(notice.event, GUARD_LOGOUT_REQUESTED);
	ends_free(&ends);
}

Test(guard, refuses_to_go_on_where_the_commands_of_a_LUN_were_ended)
{
	struct ends ends = ends_counting(false);
	struct pdu message = event(5);

	send_pdu(&ends, &message);
	must_refuse(&ends, "the target ended the commands of a LUN (event 5)");
	ends_free(&ends);
}

/* ---- Reject (RFC 7143, 11.17) ---- */

Test(guard, tells_of_a_Reject_that_waits_for_a_logout_and_hides_it)
{
	static const struct guard_notice expected = {.event = GUARD_LOGOUT_REQUESTED};
	struct pdu reject = {REJECT, .flags = 0x80, .byte2 = 0x0c, .itt = UINT32_MAX,
	    .statsn = STATSN + 1, .sn = UINT32_MAX, .data = 48};
	uint8_t header[HEADER + DIGEST];

	notices(&reject, &expected, 0);
	struct ends ends = ends_counting(true);
	passes(&ends, &reject, header);
	cr_assert_eq(header[0], ASYNC);
	ends_free(&ends);
}

Test(guard, says_why_a_request_was_rejected)
{
	static const struct {
		uint8_t reason;
		const char *finding;
	} rejects[] = {
	    {0x04, "the target rejected a request: protocol error (04h)"},
	    {0x09, "the target rejected a request: invalid PDU field (09h)"},
	    {0x00, "the target rejected a request: unknown reason (00h)"},
	    {0xff, "the target rejected a request: unknown reason (FFh)"},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(rejects); i++) {
		struct ends ends = ends_counting(false);

		send_pdu(&ends, &(struct pdu){REJECT, .flags = 0x80, .byte2 = rejects[i].reason,
		                    .itt = UINT32_MAX, .statsn = STATSN + 1, .data = 48});
		must_refuse(&ends, rejects[i].finding);
		ends_free(&ends);
	}
}

/* ---- Logout Response (RFC 7143, 11.15) ---- */

Test(guard, tells_of_the_logout_and_its_Time2Wait)
{
	static const struct guard_notice expected = {GUARD_LOGGED_OUT, .time2wait = 7};
	struct pdu logout = {LOGOUT_RESPONSE, .flags = 0x80, .itt = 98, .statsn = STATSN + 1,
	    .parameter2 = 7, .parameter3 = 20};

	notices(&logout, &expected, 0);
	logout.byte2 = 1;
	notices(&logout, NULL, 0);
}

Test(guard, tells_notices_in_order_and_forgets_the_oldest_of_too_many)
{
	struct ends ends = ends_counting(false);
	struct guard_notice notice;
	uint8_t header[HEADER + DIGEST];
	unsigned told = 96;

	for (uint16_t i = 0; i < 100; i++) {
		struct pdu message = event(1);

		message.statsn += i;
		message.parameter3 = i;
		passes(&ends, &message, header);
	}
	while (guard_take_notice(ends.guard, &notice))
		cr_assert_eq(notice.within_s, told++);
	cr_assert_eq(told, 100);
	ends_free(&ends);
}

/* ---- NOP-In (RFC 7143, 11.18, 11.19) ---- */

/* libiscsi's answer: 2 bytes of the LUN. */
static uint64_t answered_lun(const struct ends *ends, uint32_t ttt, uint64_t lun)
{
	uint8_t found[HEADER + DIGEST];

	leaves(ends,
	    &(struct pdu){NOP_OUT | IMMEDIATE, .flags = 0x80, .itt = UINT32_MAX, .ttt = ttt,
	        .exp_cmdsn = STATSN + 1, .lun = lun & 0xffff000000000000},
	    found);
	cr_assert_eq(get_be32(found + 16), UINT32_MAX);
	cr_assert_eq(get_be32(found + 20), ttt);
	return get_be64(found + 8);
}

Test(guard, completes_the_LUN_of_the_answer_to_a_ping)
{
	static const uint64_t luns[] = {
	    0x0001020304050607, 0x4001000000000000, 0x00000000000000ff, 0xc101020304050607};

	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_counting(digest);
		uint8_t header[HEADER + DIGEST];

		for (uint32_t i = 0; i < G_N_ELEMENTS(luns); i++)
			passes(&ends,
			    &(struct pdu){NOP_IN, .flags = 0x80, .itt = UINT32_MAX, .ttt = 1000 + i,
			        .lun = luns[i], .statsn = STATSN + 1},
			    header);
		for (uint32_t i = 0; i < G_N_ELEMENTS(luns); i++)
			cr_assert_eq(answered_lun(&ends, 1000 + i, luns[i]), luns[i], "%u", i);
		/* It is answered: another with the same tag is another's. */
		cr_assert_eq(answered_lun(&ends, 1000, 0), 0);
		ends_free(&ends);
	}
}

Test(guard, refuses_pings_without_end_whose_answers_do_not_leave)
{
	struct ends ends = ends_counting(false);
	struct pdu ping = {NOP_IN, .flags = 0x80, .itt = UINT32_MAX, .ttt = 5, .lun = 1};
	uint8_t header[HEADER + DIGEST];

	for (unsigned i = 0; i < 5000; i++) {
		guard_watch(ends.guard);
		passes(&ends, &ping, header);
		cr_assert_eq(answered_lun(&ends, 5, 1), 1);
	}
	guard_watch(ends.guard);
	for (unsigned i = 0; i < 1024; i++)
		passes(&ends, &ping, header);
	guard_watch(ends.guard);
	send_pdu(&ends, &ping);
	must_refuse(&ends, "the target sends NOP-In after NOP-In, and takes no answer");
	ends_free(&ends);
}

Test(guard, leaves_the_LUN_of_our_own_ping_alone)
{
	struct ends ends = ends_counting(false);
	uint8_t header[HEADER + DIGEST];

	passes(&ends,
	    &(struct pdu){NOP_IN, .itt = UINT32_MAX, .ttt = UINT32_MAX, .lun = 0x0001020304050607},
	    header);
	cr_assert_eq(answered_lun(&ends, UINT32_MAX, 0), 0);
	ends_free(&ends);
}

/* ---- what has half left ---- */

Test(guard, refuses_an_answer_to_half_a_NOP_Out)
{
	struct ends ends = ends_counting(false);
	uint8_t header[HEADER] = {NOP_OUT, 0x80, [5] = 1, [19] = 99};

	cr_assert_eq(send(ends.user, header, HEADER, 0), HEADER);
	send_pdu(&ends, &(struct pdu){NOP_IN, .itt = 98, .statsn = STATSN + 1});
	must_pass(&ends);
	send_pdu(&ends, &(struct pdu){NOP_IN, .itt = 99, .statsn = STATSN + 2});
	must_refuse(&ends, BROKE "an answer to a request that has not left yet");
	ends_free(&ends);
}
