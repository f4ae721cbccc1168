/*
 * test_probe_trouble.c - what a probe hears while it asks, and how it ends when the session does.
 */
#include "support/probe_bench.h"

/* ---- what its own commands hear ---- */

static void expect_heard(int opcode, uint8_t asc, uint8_t ascq, bool was_reset, bool was_preempted)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, opcode, 1, (struct sense){SENSE_UNIT_ATTENTION, asc, ascq});
	bench_probe(&bench, 0);
	cr_assert_eq(bench.count, 1);
	cr_expect_eq(
	    bench.news.reset, was_reset, "%02Xh: %02Xh/%02Xh", (unsigned)opcode, asc, ascq);
	cr_expect_eq(
	    bench.news.preempted, was_preempted, "%02Xh: %02Xh/%02Xh", (unsigned)opcode, asc, ascq);
	cr_expect_str_eq(bench.luns[0].fault, "");
	cr_expect_eq(bench.luns[0].blocks, 8);
	bench_close(&bench);
}

Test(safety_01, a_reset_that_the_probe_hears_of_is_noted_whichever_command_heard_it)
{
	const int opcodes[] = {0x12, 0x00, 0x9e, 0x1a};

	for (unsigned i = 0; i < G_N_ELEMENTS(opcodes); i++) {
		expect_heard(opcodes[i], 0x29, 0x00, true, false);
		expect_heard(opcodes[i], 0x29, 0x07, true, false);
	}
	expect_heard(0x00, 0x2a, 0x09, false, false);
	expect_heard(0x00, 0x3f, 0x0e, false, false);
	expect_heard(0x00, 0x28, 0x00, false, false);
}

Test(safety_07, a_takeover_that_the_probe_hears_of_is_noted)
{
	expect_heard(0x12, 0x2a, 0x03, false, true);
	expect_heard(0x00, 0x2a, 0x04, false, true);
	expect_heard(0x9e, 0x2a, 0x05, false, true);
	expect_heard(0x00, 0x2a, 0x01, false, false);
	expect_heard(0x00, 0x2a, 0x02, false, false);
	expect_heard(0x00, 0x2a, 0x06, false, false);
}

Test(probe, notes_both_and_keeps_them_through_what_follows)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, 0x12, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x29, 0});
	scripted_port_sense(bench.port, 0x12, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x2a, 5});
	scripted_port_sense(bench.port, 0x12, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x3f, 0x0e});
	scripted_port_sense(bench.port, 0x00, 0, (struct sense){SENSE_NOT_READY, 0x3a, 0});
	bench_probe(&bench, 0);
	cr_assert_eq(bench.count, 1);
	cr_expect(bench.news.reset);
	cr_expect(bench.news.preempted);
	cr_expect_str_neq(bench.luns[0].fault, "");
	bench_probe(&bench, 0);
	cr_expect_not(bench.news.reset || bench.news.preempted, "of each probe");
	bench_close(&bench);
}

Test(probe, tells_of_what_any_lun_told)
{
	struct bench bench;

	bench_open(&bench);
	for (uint16_t lun = 0; lun < 4; lun++)
		scripted_port_add(bench.port, lun, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, 0x00, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x28, 0});
	bench_probe(&bench, -1);
	cr_assert_eq(bench.count, 4);
	cr_expect(bench.news.medium);
	cr_expect_not(bench.news.reset || bench.news.preempted || bench.news.changed);
	bench_close(&bench);
}

/* ---- reserved ---- */

Test(probe, of_a_reserved_disk_tells_its_capacity_and_that_another_host_has_it)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x00, .status = SAM_RESERVATION_CONFLICT});
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x1a, .status = SAM_RESERVATION_CONFLICT});
	bench_probe(&bench, 0);
	cr_assert_eq(bench.count, 1);
	cr_expect(bench.luns[0].reserved);
	cr_expect_str_eq(bench.luns[0].fault, "");
	cr_expect_eq(bench.luns[0].blocks, 8);
	cr_expect(bench.luns[0].write_cache, "not known: SAFETY.md 1");
	cr_expect(bench.news.preempted);
	cr_expect_eq(scripted_port_count(bench.port, 0x00), 1, "not tried again");
	bench.port->rules->len = 0;
	bench_probe(&bench, 0);
	cr_expect_not(bench.luns[0].reserved);
	bench_close(&bench);
}

Test(probe, says_that_a_reservation_hides_the_capacity)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x9e, .status = SAM_RESERVATION_CONFLICT});
	bench_probe(&bench, 0);
	cr_assert_eq(bench.count, 1);
	cr_expect(bench.luns[0].reserved);
	cr_expect_str_eq(bench.luns[0].fault,
	    "another host has reserved it, and its capacity is not known "
	    "(READ CAPACITY(16): RESERVATION CONFLICT (18h))");
	cr_expect_eq(scripted_port_count(bench.port, 0x9e), 1, "not tried again");
	bench_close(&bench);
}

/* ---- limits ---- */

Test(safety_01, a_deferred_error_that_the_probe_hears_of_is_noted_and_its_question_asked_again)
{
	const int opcodes[] = {0x12, 0x00, 0x9e, 0x1a};

	for (unsigned i = 0; i < G_N_ELEMENTS(opcodes); i++) {
		struct bench bench;

		bench_open(&bench);
		scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
		scripted_port_rule(bench.port, (struct scripted_rule){.opcode = opcodes[i],
		                                   .times = 1,
		                                   .status = SAM_CHECK_CONDITION,
		                                   .sense = {SENSE_MEDIUM_ERROR, 0x0c, 0},
		                                   .deferred = true});
		bench_probe(&bench, 0);
		cr_assert_eq(bench.count, 1);
		cr_expect(bench.news.reset, "%02Xh", (unsigned)opcodes[i]);
		cr_expect_str_eq(bench.luns[0].fault, "");
		cr_expect_eq(bench.luns[0].blocks, 8);
		bench_close(&bench);
	}
}

Test(probe, tries_again_ten_times_and_pauses_after_the_third)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, 0x9e, 10, (struct sense){SENSE_ABORTED_COMMAND, 0x47, 5});
	bench_probe(&bench, 0);
	cr_assert_eq(bench.count, 1);
	cr_expect_str_eq(bench.luns[0].fault, "");
	for (unsigned i = 3; i < 10; i++)
		cr_expect_geq(scripted_port_nth(bench.port, 0x9e, i + 1)->at_ms -
		                  scripted_port_nth(bench.port, 0x9e, i)->at_ms,
		    99, "try %u", i);
	scripted_port_sense(bench.port, 0x9e, 11, (struct sense){SENSE_ABORTED_COMMAND, 0x47, 5});
	bench_probe(&bench, 0);
	cr_expect_str_eq(bench.luns[0].fault,
	    "its capacity is not known (READ CAPACITY(16): ABORTED COMMAND (B), protocol service "
	    "CRC error (47h/05h))");
	bench_close(&bench);
}

Test(probe, of_a_lun_that_is_busy_for_ever_says_so)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x12, .status = SAM_BUSY});
	bench_probe(&bench, 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x12), 31);
	cr_assert_not_null(bench.error);
	cr_expect_str_eq(bench.error, "LUN 0 does not say what it is: INQUIRY: BUSY (08h)");
	bench_close(&bench);
}

static void probe_with_an_error(struct bench *bench, bool timed_out)
{
	bench_open(bench);
	for (uint16_t i = 0; i < 4; i++)
		scripted_port_add(bench->port, i, SCSI_TYPE_DISK, 512, 8);
	scripted_port_rule(bench->port,
	    (struct scripted_rule){
	        .opcode = 0x9e, .skip = 1, .times = 1, .error = -ESTALE, .timed_out = timed_out});
	bench_probe(bench, -1);
	cr_expect_not_null(bench->error);
	cr_expect_eq(bench->timed_out, timed_out);
	/* The session is there again. */
	bench_probe(bench, -1);
	cr_expect_null(bench->error);
	cr_expect_eq(bench->count, 4);
	cr_expect_not(bench->timed_out);
	bench_close(bench);
}

Test(safety_15, a_probe_tells_whether_it_was_one_of_its_commands_that_took_too_long)
{
	struct bench bench;

	probe_with_an_error(&bench, true);
	probe_with_an_error(&bench, false);
}

Test(probe, is_busy_until_its_last_command_is_back)
{
	struct bench bench;
	struct probe *probe;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = -1, .hold = true});
	probe = bench.probe = probe_start(&bench.port->port, bench.loop, 0, bench_done, &bench);
	cr_expect(probe_is_busy(probe));
	while (bench.calls == 0) {
		cr_assert(probe_is_busy(probe));
		cr_assert_eq(bench.port->held->len, 1);
		scripted_port_release(bench.port, 0);
		for (int i = 0; i < 5; i++)
			g_main_context_iteration(loop_context(bench.loop), FALSE);
	}
	cr_expect_eq(bench.count, 1);
	loop_run(bench.loop); /* takes the quit of done() */

	/* lost: those that pause do not wait for it */
	bench_clear(&bench);
	bench.port->rules->len = 0;
	scripted_port_sense(bench.port, 0x00, 0, (struct sense){SENSE_NOT_READY, 0x04, 0x01});
	scripted_port_add(bench.port, 1, SCSI_TYPE_DISK, 512, 8);
	scripted_port_rule(bench.port,
	    (struct scripted_rule){.opcode = 0x12, .times = 1, .skip = 5, .hold = true});
	bench.probe = probe_start(&bench.port->port, bench.loop, -1, bench_done, &bench);
	while (bench.port->held->len == 0 || scripted_port_count(bench.port, 0x00) < 2)
		g_main_context_iteration(loop_context(bench.loop), FALSE);
	cr_assert_eq(bench.calls, 0);
	scripted_port_return(bench.port, 0, false);
	loop_run(bench.loop);
	cr_expect_not_null(bench.error);
	cr_expect_eq(bench.port->outstanding, 0);
	bench_close(&bench);
}
