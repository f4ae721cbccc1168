/*
 * test_guard_data.c - that all of a READ has come, and that R2Ts come in order.
 */
#undef _FORTIFY_SOURCE /* recv() itself is what is tested */
#include "support/guard_bench.h"

#define HALF (READ_LENGTH / 2)

static const struct pdu first = {DATA_IN, .itt = READ_ITT, .data = HALF};
static const struct pdu last = {
    DATA_IN, .flags = 0x81, .itt = READ_ITT, .sn = 1, .offset = HALF, .data = HALF};
static const struct pdu good = {SCSI_RESPONSE, .flags = 0x80, .itt = READ_ITT};

/* After the first half of the READ. */
static void refuses_next(const struct pdu *pdu, const char *finding)
{
	struct ends ends = ends_new(false);

	send_pdu(&ends, &first);
	must_pass(&ends);
	send_pdu(&ends, pdu);
	must_refuse(&ends, finding);
	ends_free(&ends);
}

/* ---- RFC 7143, 11.7.5: DataSN; 13.18, 13.19: in order ---- */

Test(guard, refuses_a_gap_in_DataSN)
{
	struct pdu pdu = last;

	pdu.sn = 2;
	refuses_next(&pdu, BROKE "Data-In with DataSN 2 where 1 is next: one was lost");
	pdu.sn = 0;
	refuses_next(&pdu, BROKE "Data-In with DataSN 0 where 1 is next: one was lost");
}

Test(guard, refuses_a_first_DataSN_that_is_not_0)
{
	struct ends ends = ends_new(false);

	send_pdu(&ends, &(struct pdu){DATA_IN, .itt = READ_ITT, .sn = 1, .data = HALF});
	must_refuse(&ends, BROKE "Data-In with DataSN 1 where 0 is next: one was lost");
	ends_free(&ends);
}

Test(guard, refuses_data_that_leaves_a_gap_or_comes_twice)
{
	struct pdu pdu = last;

	pdu.offset = HALF + 512;
	pdu.data = HALF - 512;
	refuses_next(&pdu, BROKE "Data-In for offset 2560 where 2048 is next");
	pdu.offset = HALF - 512;
	refuses_next(&pdu, BROKE "Data-In for offset 1536 where 2048 is next");
}

Test(guard, counts_the_data_of_each_command_apart)
{
	struct ends ends = ends_new(false);

	send_pdu(&ends, &first);
	send_pdu(&ends, &(struct pdu){DATA_IN, .itt = INQUIRY_ITT, .data = 5});
	send_pdu(&ends, &last);
	send_pdu(&ends, &(struct pdu){DATA_IN, .flags = 0x81, .itt = INQUIRY_ITT, .sn = 1,
	                    .offset = 5, .data = 31});
	must_pass(&ends);
	cr_assert_eq(guard_moved(ends.guard, READ_ITT), READ_LENGTH);
	cr_assert_eq(guard_moved(ends.guard, INQUIRY_ITT), 36);
	/* nothing that left was seen */
	cr_assert_eq(guard_moved(ends.guard, WRITE_ITT), WRITE_LENGTH);
	ends_free(&ends);
}

/* ---- the status ---- */

#define MISSING "the target said GOOD, but data is missing"

Test(guard, refuses_GOOD_where_data_is_missing)
{
	struct pdu short_last = last;

	refuses_next(&good, MISSING);
	short_last.data = HALF - 1;
	refuses_next(&short_last, MISSING);
	short_last.data = 0;
	refuses_next(&short_last, MISSING);
}

Test(guard, refuses_GOOD_without_any_data)
{
	struct ends ends = ends_new(false);

	send_pdu(&ends, &good);
	must_refuse(&ends, MISSING);
	ends_free(&ends);
}

Test(guard, refuses_CONDITION_MET_where_data_is_missing)
{
	struct pdu met = good;

	met.status = 0x04;
	refuses_next(&met, MISSING);
}

Test(guard, refuses_a_residual_that_does_not_tell_what_has_come)
{
	struct pdu under = good;

	under.flags = 0x82;
	under.wanted = HALF - 1;
	refuses_next(&under, MISSING);
	under.wanted = HALF + 1;
	refuses_next(&under, MISSING);
}

static void passes_after_the_first_half(const struct pdu *pdu)
{
	struct ends ends = ends_new(false);

	send_pdu(&ends, &first);
	send_pdu(&ends, pdu);
	must_pass(&ends);
	cr_assert(guard_settle(ends.guard, pdu->itt));
	ends_free(&ends);
}

Test(guard, passes_a_status_behind_all_the_data)
{
	struct pdu empty = {DATA_IN, .itt = READ_ITT, .sn = 1, .offset = HALF};
	struct ends ends = ends_new(false);

	passes_after_the_first_half(&last);
	send_pdu(&ends, &first);
	send_pdu(&ends, &empty);
	send_pdu(&ends, &(struct pdu){DATA_IN, .flags = 0x80, .itt = READ_ITT, .sn = 2,
	                    .offset = HALF, .data = HALF});
	send_pdu(&ends, &good);
	must_pass(&ends);
	ends_free(&ends);
}

Test(guard, passes_a_residual_that_tells_what_has_come)
{
	struct pdu under = good;

	under.flags = 0x82;
	under.wanted = HALF;
	passes_after_the_first_half(&under);
}

Test(guard, passes_an_error_with_whatever_data_has_come)
{
	struct pdu failed = good;

	for (unsigned status = 0; status < 256; status++)
		if (status != 0x00 && status != 0x04) {
			failed.status = (uint8_t)status;
			passes_after_the_first_half(&failed);
		}
}

Test(guard, passes_what_is_short_where_the_command_does_not_mind)
{
	static const struct pdu answers[] = {
	    {SCSI_RESPONSE, .flags = 0x80, .itt = INQUIRY_ITT},
	    {SCSI_RESPONSE, .flags = 0x82, .itt = INQUIRY_ITT, .wanted = 200},
	    {SCSI_RESPONSE, .flags = 0x84, .itt = INQUIRY_ITT, .wanted = 1u << 31},
	    {DATA_IN, .flags = 0x83, .itt = INQUIRY_ITT, .data = 36, .wanted = 219},
	    {DATA_IN, .flags = 0x85, .itt = INQUIRY_ITT, .data = INQUIRY_LENGTH, .wanted = 100},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++)
		passes_after_the_first_half(&answers[i]);
}

static void refuses(const struct pdu *pdu, const char *finding)
{
	struct ends ends = ends_new(false);

	send_pdu(&ends, pdu);
	must_refuse(&ends, finding);
	ends_free(&ends);
}

/* RFC 7143, 11.4.1 */
Test(guard, refuses_a_residual_that_is_over_and_under)
{
	static const char finding[] = BROKE "a residual that is over and under";

	refuses(&(struct pdu){SCSI_RESPONSE, .flags = 0x86, .itt = INQUIRY_ITT}, finding);
	refuses(&(struct pdu){SCSI_RESPONSE, .flags = 0x86, .itt = WRITE_ITT}, finding);
	refuses(&(struct pdu){DATA_IN, .flags = 0x87, .itt = INQUIRY_ITT}, finding);
}

Test(guard, refuses_a_residual_beyond_the_end_of_a_command)
{
	static const char finding[] = BROKE "a residual beyond the command's data";

	refuses(&(struct pdu){SCSI_RESPONSE, .flags = 0x82, .itt = INQUIRY_ITT,
	            .wanted = INQUIRY_LENGTH + 1},
	    finding);
	refuses(&(struct pdu){SCSI_RESPONSE, .flags = 0x82, .itt = WRITE_ITT, .wanted = UINT32_MAX},
	    finding);
}

/* RFC 7143, 11.7.1 and 11.4.1 */
Test(guard, refuses_a_status_without_the_F_bit)
{
	refuses(&(struct pdu){DATA_IN, .flags = 0x01, .itt = READ_ITT, .data = READ_LENGTH},
	    BROKE "Data-In with a status that is not final");
	refuses(&(struct pdu){SCSI_RESPONSE, .itt = PLAIN_ITT},
	    BROKE "SCSI Response without the F bit");
}

Test(guard, says_that_all_has_come_while_it_is_blind)
{
	struct ends ends = ends_new(false);

	cr_assert_eq(guard_moved(ends.guard, READ_ITT), READ_LENGTH);
	send_pdu(&ends, &(struct pdu){NOP_IN, .itt = UINT32_MAX, .ttt = UINT32_MAX});
	must_pass(&ends);
	cr_assert_eq(guard_moved(ends.guard, READ_ITT), 0);
	ends_free(&ends);
}

/* ---- R2T (RFC 7143, 11.8) ---- */

Test(guard, passes_R2Ts_of_several_commands_in_turn)
{
	struct ends ends = ends_new(false);

	guard_expect(ends.guard, NO_ITT, SCSI_DATA_OUT, WRITE_LENGTH, true);
	for (uint32_t i = 0; i < 8; i++) {
		struct pdu r2t = {R2T, .flags = 0x80, .itt = WRITE_ITT, .ttt = i, .sn = i,
		    .offset = 1024 * i, .wanted = 1024};

		send_pdu(&ends, &r2t);
		r2t.itt = NO_ITT;
		send_pdu(&ends, &r2t);
	}
	must_pass(&ends);
	ends_free(&ends);
}

Test(guard, refuses_a_gap_in_R2TSN)
{
	struct ends ends = ends_new(false);

	send_pdu(&ends, &(struct pdu){R2T, .itt = WRITE_ITT, .wanted = 512});
	must_pass(&ends);
	send_pdu(&ends, &(struct pdu){R2T, .itt = WRITE_ITT, .wanted = 512, .sn = 2});
	must_refuse(&ends, BROKE "R2T with R2TSN 2 where 1 is next: one was lost");
	ends_free(&ends);
}

Test(guard, refuses_an_R2T_without_a_tag)
{
	refuses(&(struct pdu){R2T, .itt = WRITE_ITT, .ttt = UINT32_MAX, .wanted = 512},
	    BROKE "R2T without a Target Transfer Tag");
}

Test(guard, refuses_an_R2T_for_a_longer_burst_than_agreed)
{
	struct ends ends = ends_logged_in((struct guard_session){.max_burst = 4096});

	send_pdu(&ends, &(struct pdu){R2T, .itt = WRITE_ITT, .wanted = 4096});
	must_pass(&ends);
	send_pdu(
	    &ends, &(struct pdu){R2T, .itt = WRITE_ITT, .sn = 1, .offset = 4095, .wanted = 4097});
	must_refuse(&ends, BROKE "R2Ts for more than the command's data");
	ends_free(&ends);

	ends = ends_logged_in((struct guard_session){.max_burst = 4096});
	send_pdu(&ends, &(struct pdu){R2T, .itt = WRITE_ITT, .wanted = 4097});
	must_refuse(&ends, BROKE "R2T for a longer burst than agreed");
	ends_free(&ends);
}
