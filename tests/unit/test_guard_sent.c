/*
 * test_guard_sent.c - what the guard knows of data on its way to the target.
 */
#undef _FORTIFY_SOURCE /* send() itself is what is tested */
#include "support/guard_bench.h"

enum { SCSI_COMMAND = 0x01, DATA_OUT = 0x05 };

/* As libiscsi sends a PDU: its header, then its data by writev(), a piece at a time. */
static void put_pdu(const struct ends *ends, const struct pdu *pdu, size_t piece)
{
	g_autoptr(GByteArray) bytes = g_byte_array_new();
	size_t header_length = HEADER + (ends->digest ? DIGEST : 0), n = header_length;
	uint8_t found[WRITE_LENGTH];

	pdu_append(bytes, pdu, ends->digest);
	cr_assert_eq(send(ends->user, bytes->data, n, 0), (ssize_t)n);
	for (size_t at = 0; at < bytes->len; at += n) {
		n = at == 0 ? header_length : MIN(piece, bytes->len - at);
		struct iovec iov[2] = {
		    {bytes->data + at, n / 2}, {bytes->data + at + n / 2, n - n / 2}};
		if (at > 0)
			cr_assert_eq(writev(ends->user, iov, 2), (ssize_t)n);
		cr_assert_eq(recv(ends->target, found, n, 0), (ssize_t)n);
		cr_assert_arr_eq(found, bytes->data + at, n);
	}
}

static void hear(const struct ends *ends)
{
	send_pdu(ends, &(struct pdu){NOP_IN, .itt = UINT32_MAX});
	must_pass(ends);
}

static void knows_a_burst(bool digest, size_t piece)
{
	struct ends ends = ends_new(digest);
	const struct pdu command = {SCSI_COMMAND, .itt = WRITE_ITT, .data = 1001};
	const struct pdu middle = {DATA_OUT, .itt = WRITE_ITT, .data = 1002};
	const struct pdu last = {DATA_OUT, .flags = 0x80, .itt = WRITE_ITT, .data = 1003};
	const struct pdu *pdus[] = {&command, &middle, &last};

	for (unsigned sent = 0; sent <= G_N_ELEMENTS(pdus); sent++) {
		hear(&ends);
		for (unsigned i = 0; i < sent; i++)
			put_pdu(&ends, pdus[i], piece);
		cr_assert_eq(guard_settle(ends.guard, WRITE_ITT), sent == G_N_ELEMENTS(pdus),
		    "%u were sent", sent);
		guard_expect(ends.guard, WRITE_ITT, SCSI_DATA_OUT, WRITE_LENGTH, true);
	}
	ends_free(&ends);
}

Test(guard, knows_whether_the_unsolicited_data_of_a_WRITE_has_left)
{
	static const size_t pieces[] = {1, 2, 7, 100, 2000};

	for (unsigned i = 0; i < G_N_ELEMENTS(pieces); i++) {
		knows_a_burst(false, pieces[i]);
		knows_a_burst(true, pieces[i]);
	}
}

Test(guard, knows_that_a_command_with_all_its_data_has_left)
{
	struct ends ends = ends_new(false);

	put_pdu(&ends,
	    &(struct pdu){SCSI_COMMAND, .flags = 0xa0, .itt = WRITE_ITT, .data = WRITE_LENGTH},
	    4096);
	hear(&ends);
	cr_assert(guard_settle(ends.guard, WRITE_ITT));
	ends_free(&ends);
}

Test(guard, knows_that_data_that_an_R2T_asked_for_has_not_left)
{
	for (unsigned answered = 0; answered < 3; answered++) {
		struct ends ends = ends_new(false);

		put_pdu(&ends, &(struct pdu){SCSI_COMMAND, .flags = 0xa0, .itt = WRITE_ITT}, 1);
		for (unsigned i = 0; i < 2; i++)
			send_pdu(
			    &ends, &(struct pdu){R2T, .itt = WRITE_ITT, .sn = i, .wanted = 512});
		must_pass(&ends);
		for (unsigned i = 0; i < answered; i++)
			put_pdu(&ends,
			    &(struct pdu){DATA_OUT, .flags = 0x80, .itt = WRITE_ITT, .data = 512},
			    512);
		cr_assert_eq(guard_settle(ends.guard, WRITE_ITT), answered == 2);
		ends_free(&ends);
	}
}

/* MaxOutstandingR2T is 1: a few more are borne, not as many as the command has bytes. */
Test(guard, refuses_R2Ts_without_end_whose_data_does_not_leave)
{
	struct ends ends = ends_new(false);
	struct pdu r2t = {R2T, .itt = WRITE_ITT, .wanted = 1};

	put_pdu(&ends, &(struct pdu){SCSI_COMMAND, .flags = 0xa0, .itt = WRITE_ITT}, 1);
	for (; r2t.sn < 200; r2t.sn++, r2t.offset++) {
		send_pdu(&ends, &r2t);
		must_pass(&ends);
		put_pdu(
		    &ends, &(struct pdu){DATA_OUT, .flags = 0x80, .itt = WRITE_ITT, .data = 1}, 1);
	}
	for (; r2t.sn < 264; r2t.sn++, r2t.offset++)
		send_pdu(&ends, &r2t);
	must_pass(&ends);
	send_pdu(&ends, &r2t);
	must_refuse(&ends, BROKE "more R2Ts at once than agreed");
	ends_free(&ends);
}

Test(guard, knows_that_only_WRITEs_have_data_to_leave)
{
	struct ends ends = ends_new(false);

	hear(&ends);
	cr_assert(guard_settle(ends.guard, READ_ITT));
	cr_assert(guard_settle(ends.guard, PLAIN_ITT));
	ends_free(&ends);
}

Test(guard, knows_nothing_while_it_is_blind)
{
	struct ends ends = ends_new(false);

	cr_assert(guard_is_blind(ends.guard));
	cr_assert_not(guard_settle(ends.guard, READ_ITT));
	cr_assert_not(guard_settle(ends.guard, WRITE_ITT));
	ends_free(&ends);
}

/* Half of its header, or of its data, is on its way. */
Test(guard, refuses_what_answers_a_command_that_has_not_left)
{
	static const struct pdu answers[] = {
	    {SCSI_RESPONSE, .flags = 0x80, .itt = WRITE_ITT},
	    {R2T, .itt = WRITE_ITT, .wanted = 512},
	    {DATA_IN, .itt = READ_ITT, .data = 4},
	};

	for (unsigned i = 0; i < 2 * G_N_ELEMENTS(answers); i++) {
		struct ends ends = ends_new(false);
		uint8_t header[HEADER] = {SCSI_COMMAND, 0x80};

		put_be32(header + 4, 512);
		put_be32(header + 16, answers[i / 2].itt);
		size_t length = i % 2 ? HEADER : 10;
		cr_assert_eq(send(ends.user, header, length, 0), (ssize_t)length);
		send_pdu(&ends, &answers[i / 2]);
		cr_assert_eq(read_all(&ends, NULL), EPROTO);
		cr_assert(g_str_has_suffix(guard_finding(ends.guard), "that has not left yet"));
		ends_free(&ends);
	}
}

Test(guard, leaves_what_other_descriptors_send_alone)
{
	struct ends ends = ends_new(false);
	uint8_t header[HEADER] = {SCSI_COMMAND, 0x80, [19] = WRITE_ITT};
	struct iovec iov = {header, HEADER};

	cr_assert_eq(send(ends.target, header, HEADER, 0), HEADER);
	cr_assert_eq(writev(ends.target, &iov, 1), HEADER);
	cr_assert_eq(send(-1, header, HEADER, 0), -1);
	cr_assert_eq(errno, EBADF);
	cr_assert_eq(writev(-1, &iov, 1), -1);
	cr_assert_eq(errno, EBADF);
	guard_watch(NULL);
	cr_assert_eq(send(ends.user, header, HEADER, 0), HEADER);
	cr_assert_eq(writev(ends.user, &iov, 1), HEADER);
	cr_assert_not(guard_settle(ends.guard, WRITE_ITT));
	ends_free(&ends);
}

/* Where it does not see what leaves it knows nothing of answers. */
Test(guard, takes_pings_without_end_while_it_sees_nothing_leave)
{
	struct ends ends = ends_new(false);

	for (unsigned i = 0; i < 5000; i++) {
		guard_watch(ends.guard);
		send_pdu(&ends, &(struct pdu){NOP_IN, .itt = UINT32_MAX, .ttt = 5});
		must_pass(&ends);
	}
	ends_free(&ends);
}
