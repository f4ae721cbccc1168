/*
 * test_disk_loss.c - a disk whose target forgets, is away, and comes back: as the same LUN, as
 * another one, larger or smaller, with a write cache or without.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "support/disk_bench.h"

static const struct sense reset = {SENSE_UNIT_ATTENTION, 0x29, 0x00};

/* A READ elsewhere is the first to hear of a reset. */
static void bench_be_reset(struct bench *bench)
{
	uint8_t data[512];

	scripted_port_sense(bench->port, 0x88, 1, reset);
	cr_assert_eq(bench_do(bench, IO_READ, 4096, data, 512), 0);
	cr_assert_geq(bench->lost, 1);
}

static int bench_flush(struct bench *bench)
{
	return bench_do(bench, IO_FLUSH, 0, NULL, 0);
}

static void bench_hold(struct bench *bench, int opcode, bool done)
{
	scripted_port_rule(
	    bench->port, (struct scripted_rule){
	                     .opcode = opcode, .times = 1, .hold = !done, .done_but_held = done});
}

/* ---- LOST is told ---- */

Test(safety_01, a_reset_raises_lost_before_the_command_is_done)
{
	struct bench bench;
	uint8_t data[512];
	struct request request;

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x88, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x29, 1});
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x88, .hold = true});
	request_start(&request, &bench, IO_READ, 0, data, 512);
	bench_settle(&bench);
	cr_expect_eq(request.calls, 0);
	cr_expect_eq(bench.lost, 1);
	cr_expect_eq(bench.disk->epoch, 1);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&request), 0);
	bench_close(&bench);
}

Test(safety_01, a_lost_session_raises_lost)
{
	struct bench bench;

	bench_open(&bench);
	disk_lost(bench.disk);
	cr_expect_eq(bench.lost, 1);
	cr_expect_eq(bench.disk->epoch, 1);
	bench_close(&bench);
}

Test(disk, other_unit_attentions_are_no_loss)
{
	struct bench bench;
	uint8_t data[512];

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x88, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x2a, 0x09});
	scripted_port_sense(bench.port, 0x88, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x3f, 0x0e});
	scripted_port_sense(bench.port, 0x88, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x28, 0x00});
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_expect_eq(bench.lost, 0);
	cr_expect_eq(bench.changed, 1, "a medium that may be another");
	bench_close(&bench);
}

/* ---- what it does to a FLUSH ---- */

Test(safety_02, a_flush_that_hears_of_a_reset_is_not_tried_again)
{
	struct bench bench;
	uint8_t data[512] = "gone";

	bench_open(&bench);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	scripted_port_forget(bench.port, 0);
	scripted_port_sense(bench.port, 0x91, 1, reset);
	cr_expect_eq(bench_flush(&bench), -ESTALE);
	cr_expect_eq(scripted_port_count(bench.port, 0x91), 1);
	cr_expect_eq(disk_stats(bench.disk)->errors, 0, "the layer above takes care of it");
	cr_expect_eq(disk_stats(bench.disk)->flushes, 0);
	cr_expect_eq(bench_flush(&bench), 0, "the next one is of the new epoch");
	bench_close(&bench);
}

Test(safety_02, a_flush_that_succeeds_across_a_reset_is_stale)
{
	struct bench bench;
	struct request flush;

	bench_open(&bench);
	bench_hold(&bench, 0x91, true);
	request_start(&flush, &bench, IO_FLUSH, 0, NULL, 0);
	bench_be_reset(&bench);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&flush), -ESTALE);
	bench_close(&bench);
}

Test(safety_02, a_flush_that_is_put_off_does_not_go_behind_a_loss)
{
	struct bench bench;
	struct request flush;

	bench_open(&bench);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x91, .times = 1, .status = SAM_BUSY});
	request_start(&flush, &bench, IO_FLUSH, 0, NULL, 0);
	bench_settle(&bench);
	cr_assert_eq(flush.calls, 0);
	disk_lost(bench.disk);
	cr_expect_eq(flush.calls, 0, "done() from inside disk_lost()");
	cr_expect_eq(request_wait(&flush), -ESTALE);
	cr_expect_eq(scripted_port_count(bench.port, 0x91), 1);
	bench_close(&bench);
}

Test(safety_02, a_fua_write_without_the_bit_is_stale_where_its_flush_hears_of_a_reset)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = "x";

	info.fua = false;
	bench_open_as(&bench, info);
	scripted_port_sense(bench.port, 0x91, 1, reset);
	cr_expect_eq(bench_do_flagged(&bench, IO_WRITE, 0, data, 512, IO_FUA), -ESTALE);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 1);
	cr_expect_eq(scripted_port_count(bench.port, 0x91), 1);
	bench_close(&bench);
}

/* ---- and to writes ---- */

Test(safety_03, a_write_or_zero_that_hears_of_a_reset_is_not_tried_again)
{
	struct bench bench;
	uint8_t data[512] = "later";

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x8a, 1, reset);
	cr_expect_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -ESTALE);
	scripted_port_sense(bench.port, 0x93, 1, reset);
	cr_expect_eq(bench_do(&bench, IO_ZERO, 0, NULL, 4096), -ESTALE);
	cr_expect_eq(bench.lost, 2);
	cr_expect_eq(bench.port->seen->len, 2);
	cr_expect_null(scripted_lun_block(bench.lun, 0, false));
	cr_expect_eq(disk_stats(bench.disk)->writes + disk_stats(bench.disk)->errors, 0);
	bench_close(&bench);
}

static void expect_stale_across_a_reset(enum io_op op, int opcode)
{
	struct bench bench;
	uint8_t data[512] = "once";
	struct request request;

	bench_open(&bench);
	bench_hold(&bench, opcode, true);
	request_start(&request, &bench, op, 0, op == IO_WRITE ? data : NULL, 512);
	scripted_port_forget(bench.port, 0); /* done there, and not stable */
	bench_be_reset(&bench);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&request), -ESTALE);
	cr_expect_eq(scripted_port_count(bench.port, (uint8_t)opcode), 1);
	cr_expect_eq(disk_stats(bench.disk)->writes, 0);
	bench_close(&bench);
}

Test(safety_03, a_write_or_zero_that_succeeds_across_a_reset_is_stale)
{
	expect_stale_across_a_reset(IO_WRITE, 0x8a);
	expect_stale_across_a_reset(IO_ZERO, 0x93);
}

Test(safety_03, a_busy_answer_across_a_reset_is_no_reason_to_send_again)
{
	struct bench bench;
	uint8_t data[512] = "x";
	struct request request;

	bench_open(&bench);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){
	                    .opcode = 0x8a, .times = 1, .status = SAM_BUSY, .done_but_held = true});
	request_start(&request, &bench, IO_WRITE, 0, data, 512);
	bench_be_reset(&bench);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&request), -ESTALE);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 1);
	bench_close(&bench);
}

Test(safety_03, writes_that_are_put_off_end_at_a_loss_and_reads_go_on)
{
	struct bench bench;
	uint8_t data[512] = "x", read[512];
	struct request writes[2], reads[2];

	bench_open(&bench);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = -1, .times = 4, .status = SAM_BUSY});
	request_start(&reads[0], &bench, IO_READ, 8192, read, 512);
	request_start(&writes[0], &bench, IO_WRITE, 0, data, 512);
	request_start(&writes[1], &bench, IO_ZERO, 4096, NULL, 512);
	request_start(&reads[1], &bench, IO_READ, 16384, read, 512);
	bench_settle(&bench);
	disk_lost(bench.disk);
	cr_expect_eq(writes[0].calls + writes[1].calls, 0, "done() from inside disk_lost()");
	cr_expect_eq(request_wait(&writes[0]), -ESTALE);
	cr_expect_eq(request_wait(&writes[1]), -ESTALE);
	cr_expect_eq(request_wait(&reads[0]), 0);
	cr_expect_eq(request_wait(&reads[1]), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 1);
	cr_expect_eq(scripted_port_count(bench.port, 0x93), 1);
	cr_expect_eq(scripted_port_count(bench.port, 0x88), 4);
	bench_close(&bench);
}

Test(safety_03, writes_that_are_put_off_do_not_go_behind_a_reset)
{
	struct bench bench;
	uint8_t data[512] = "x";
	struct request write;

	bench_open(&bench);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x8a, .times = 1, .status = SAM_BUSY});
	request_start(&write, &bench, IO_WRITE, 0, data, 512);
	bench_be_reset(&bench); /* before the pause is over */
	cr_expect_eq(request_wait(&write), -ESTALE);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 1);
	cr_expect_null(scripted_lun_block(bench.lun, 0, false));
	bench_close(&bench);
}

Test(safety_03, a_write_of_many_commands_sends_no_more_of_them_once_one_heard_of_a_reset)
{
	struct bench bench;
	struct lun_info info = ordinary;
	g_autofree uint8_t *data = pattern(200 * 512, 1);
	struct request request;

	info.max_transfer = 1;
	bench_open_as(&bench, info);
	scripted_port_sense(bench.port, 0x8a, 1, reset);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x8a, .hold = true});
	request_start(&request, &bench, IO_WRITE, 0, data, 200 * 512);
	bench_settle(&bench);
	cr_assert_eq(bench.port->held->len, 127);
	while (bench.port->held->len > 0) {
		cr_assert_eq(request.calls, 0, "its buffer is still in use");
		scripted_port_release(bench.port, 0);
		bench_settle(&bench);
	}
	cr_expect_eq(request_wait(&request), -ESTALE);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 128);
	bench_close(&bench);
}

Test(safety_03, a_write_of_many_commands_that_are_all_put_off_ends_at_a_loss)
{
	struct bench bench;
	struct lun_info info = ordinary;
	g_autofree uint8_t *data = pattern(200 * 512, 1);
	struct request write, read;

	info.max_transfer = 1;
	bench_open_as(&bench, info);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x8a, .times = 128, .status = SAM_BUSY});
	request_start(&write, &bench, IO_WRITE, 0, data, 200 * 512);
	bench_settle(&bench);
	request_start(&read, &bench, IO_READ, 0, data, 512); /* behind it in the queue */
	disk_lost(bench.disk);
	cr_expect_eq(request_wait(&write), -ESTALE);
	cr_expect_eq(request_wait(&read), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 128);
	bench_close(&bench);
}

Test(safety_03, what_was_never_sent_stays_and_is_sent)
{
	struct bench bench;
	static uint8_t data[512];
	struct request reads[129], write;

	bench_open(&bench);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x88, .times = 128, .hold = true});
	for (unsigned i = 0; i < 129; i++)
		request_start(&reads[i], &bench, IO_READ, i * 512, data, 512);
	request_start(&write, &bench, IO_WRITE, MIB, data, 512);
	disk_lost(bench.disk);
	bench_settle(&bench);
	cr_expect_eq(reads[128].calls + write.calls, 0);
	cr_expect_eq(bench.port->seen->len, 128);
	while (bench.port->held->len > 0)
		scripted_port_release(bench.port, 0);
	for (unsigned i = 0; i < 129; i++)
		cr_assert_eq(request_wait(&reads[i]), 0);
	int error = request_wait(&write);
	cr_expect(error == 0 || error == -ESTALE, "it is in the new epoch, or is done once more");
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 1);
	bench_close(&bench);
}

Test(safety_01, without_a_write_cache_a_loss_takes_nothing)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = "x";
	struct request write, zero;

	info.write_cache = false;
	bench_open_as(&bench, info);
	bench_hold(&bench, 0x8a, true);
	bench_hold(&bench, 0x93, true);
	request_start(&write, &bench, IO_WRITE, 0, data, 512);
	request_start(&zero, &bench, IO_ZERO, 4096, NULL, 512);
	disk_lost(bench.disk);
	scripted_port_release(bench.port, 0);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&write), 0);
	cr_expect_eq(request_wait(&zero), 0);
	cr_expect_eq(bench_flush(&bench), 0);
	cr_expect_eq(bench.lost, 1);
	bench_close(&bench);
}

/* It restores the modes that were saved: there may be a cache now. */
Test(safety_01, a_reset_ends_the_exemption_until_the_modes_are_known)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = "x";
	char text[300];

	info.write_cache = false;
	bench_open_as(&bench, info);
	scripted_port_sense(bench.port, 0x8a, 1, reset);
	cr_expect_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -ESTALE);
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(disk_verify(bench.disk, &info, 0, text, sizeof text), DISK_SAME);
	cr_expect(bench.disk->limits.volatile_cache, "until it was emptied");
	cr_expect_eq(bench_flush(&bench), 0);
	cr_expect_eq(bench.port->seen->len, 3, "two WRITEs and a SYNCHRONIZE CACHE");
	cr_expect_not(bench.disk->limits.volatile_cache);
	bench_close(&bench);
}

Test(safety_03, what_the_session_hands_back_is_handed_up)
{
	struct bench bench;
	uint8_t data[512] = "x";
	struct request write, zero, flush;

	bench_open(&bench);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = -1, .hold = true});
	request_start(&write, &bench, IO_WRITE, 0, data, 512);
	request_start(&zero, &bench, IO_ZERO, 512, NULL, 512);
	request_start(&flush, &bench, IO_FLUSH, 0, NULL, 0);
	disk_lost(bench.disk);
	scripted_port_lose(bench.port);
	cr_expect_eq(request_wait(&write), -ESTALE);
	cr_expect_eq(request_wait(&zero), -ESTALE);
	cr_expect_eq(request_wait(&flush), -ESTALE);
	cr_expect_eq(bench.port->seen->len, 3);
	cr_expect_eq(disk_stats(bench.disk)->errors, 0);
	bench_close(&bench);
}

/* ---- reads ---- */

Test(safety_12, a_read_that_hears_of_a_reset_is_tried_again)
{
	struct bench bench;
	g_autofree uint8_t *data = pattern(MIB, 4), *read = g_malloc0(MIB);

	bench_open(&bench);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, MIB), 0);
	scripted_port_sense(bench.port, 0x88, 3, reset);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, read, MIB), 0);
	cr_assert_arr_eq(read, data, MIB);
	cr_expect_eq(bench.lost, 3);
	bench_close(&bench);
}

Test(safety_12, only_reads_may_be_replayed)
{
	struct bench bench;
	uint8_t data[512] = "x";
	bool cancelled = false;
	struct request request = {.bench = &bench,
	    .iov = {data, 512},
	    .io = {.op = IO_READ, .length = 512, .niov = 1, .cancelled = &cancelled}};

	bench_open(&bench);
	request.io.iov = &request.iov;
	request_submit(&request);
	cr_assert_eq(request_wait(&request), 0);
	request.io.op = IO_WRITE;
	request_submit(&request);
	cr_assert_eq(request_wait(&request), 0);
	cr_assert_eq(bench_do(&bench, IO_ZERO, 0, NULL, 512), 0);
	cr_assert_eq(bench_flush(&bench), 0);
	cr_expect(scripted_port_nth(bench.port, 0x88, 0)->replay);
	cr_expect_eq(scripted_port_nth(bench.port, 0x88, 0)->cancelled, &cancelled);
	cr_expect_not(scripted_port_nth(bench.port, 0x8a, 0)->replay);
	cr_expect_eq(scripted_port_nth(bench.port, 0x8a, 0)->cancelled, &cancelled);
	cr_expect_not(scripted_port_nth(bench.port, 0x93, 0)->replay);
	cr_expect_not(scripted_port_nth(bench.port, 0x91, 0)->replay);
	cr_expect_null(scripted_port_nth(bench.port, 0x91, 0)->cancelled);
	bench_close(&bench);
}

Test(safety_12, behind_a_nexus_a_read_outlasts_the_session_and_a_write_comes_back)
{
	struct bench bench;
	g_autofree uint8_t *data = pattern(MIB, 4), *read = g_malloc0(MIB);
	struct request reading, writing, late;

	bench_make(&bench, ordinary, true);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, MIB), 0);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = -1, .hold = true});
	request_start(&reading, &bench, IO_READ, 0, read, MIB);
	request_start(&writing, &bench, IO_WRITE, 4 * MIB, data, MIB);
	disk_lost(bench.disk); /* as disk_session_lost() has it */
	nexus_lost(bench.nexus);
	scripted_port_lose(bench.port);
	cr_expect_eq(request_wait(&writing), -ESTALE);
	request_start(&late, &bench, IO_WRITE, 4 * MIB, data, MIB);
	bench_settle(&bench);
	cr_expect_eq(reading.calls + late.calls, 0);
	cr_expect_eq(bench.port->seen->len, 12, "4 and 4, and 4");
	bench.port->rules->len = 0;
	bench.port->away = false;
	nexus_open(bench.nexus);
	cr_expect_eq(request_wait(&reading), 0);
	cr_expect_eq(request_wait(&late), 0);
	cr_assert_arr_eq(read, data, MIB);
	cr_expect_eq(nexus_resent(bench.nexus), 4);
	cr_expect_eq(bench.port->seen->len, 20);
	bench_close(&bench);
}

Test(disk, behind_a_nexus_that_is_given_up_everything_fails_and_then_works_again)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_make(&bench, ordinary, true);
	disk_lost(bench.disk);
	nexus_lost(bench.nexus);
	disk_gone(bench.disk);
	nexus_fail(bench.nexus);
	cr_expect_eq(bench_do(&bench, IO_READ, 0, data, 512), -EIO);
	cr_expect_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -EIO);
	cr_expect_eq(bench_flush(&bench), -EIO);
	cr_expect_eq(bench.port->seen->len, 0);
	cr_expect_eq(disk_stats(bench.disk)->errors, 3);
	nexus_open(bench.nexus);
	disk_back(bench.disk);
	cr_expect_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(bench_flush(&bench), 0);
	bench_close(&bench);
}

/* ---- time ---- */

static unsigned last_timeout(const struct bench *bench)
{
	const GArray *seen = bench->port->seen;

	return g_array_index(seen, struct scripted_seen, seen->len - 1).timeout_ms;
}

Test(safety_15, a_flush_gets_four_times_a_command_s_time_and_two_minutes_at_least)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_open(&bench);
	bench.port->port.command_timeout_ms = 10000;
	cr_assert_eq(bench_flush(&bench), 0);
	cr_expect_eq(last_timeout(&bench), 120000);
	bench.port->port.command_timeout_ms = 60000;
	cr_assert_eq(bench_flush(&bench), 0);
	cr_expect_eq(last_timeout(&bench), 240000);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(last_timeout(&bench), 60000);
	bench.port->port.command_timeout_ms = UINT32_MAX;
	cr_assert_eq(bench_flush(&bench), 0);
	cr_expect_eq(last_timeout(&bench), INT32_MAX, "no overflow");
	bench_close(&bench);
}

static int bench_time_out(
    struct bench *bench, enum io_op op, int opcode, uint64_t offset, uint8_t *data)
{
	scripted_port_rule(
	    bench->port, (struct scripted_rule){
	                     .opcode = opcode, .times = 1, .error = -ESTALE, .timed_out = true});
	return bench_do(bench, op, offset, data, data != NULL ? 512 : 0);
}

Test(safety_15, what_timed_out_gets_twice_the_time_at_the_next_try)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_open(&bench);
	bench.port->port.command_timeout_ms = 30000;
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(bench_time_out(&bench, IO_FLUSH, 0x91, 0, NULL), -ESTALE);
		cr_expect_eq(last_timeout(&bench), 120000u << i);
	}
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(bench_time_out(&bench, IO_WRITE, 0x8a, 0, data), -ESTALE);
		cr_expect_eq(last_timeout(&bench), 30000u << i, "of its own kind");
	}
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_expect_eq(last_timeout(&bench), 30000);
	cr_assert_eq(bench_flush(&bench), 0);
	cr_expect_eq(last_timeout(&bench), 120000u << 4);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(last_timeout(&bench), 30000u << 3);
	for (unsigned i = 0; i < 40; i++)
		cr_assert_eq(bench_time_out(&bench, IO_WRITE, 0x8a, 0, data), -ESTALE);
	cr_expect_leq(last_timeout(&bench), 30000u << 6, "there is an end to it");
	bench_close(&bench);
}

Test(safety_15, a_quick_write_does_not_take_the_time_of_a_slow_one_away)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_open(&bench);
	bench.port->port.command_timeout_ms = 30000;
	cr_assert_eq(bench_time_out(&bench, IO_WRITE, 0x8a, 0, data), -ESTALE);
	/* What was kept is sent again first, and is done in no time. */
	cr_assert_eq(bench_do(&bench, IO_WRITE, 8192, data, 512), 0);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(last_timeout(&bench), 60000, "else it times out for ever");
	bench_close(&bench);
}

Test(safety_15, a_loss_for_another_reason_doubles_nothing)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_open(&bench);
	bench.port->port.command_timeout_ms = 30000;
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x8a, .times = 1, .error = -ESTALE});
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -ESTALE);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(last_timeout(&bench), 30000);
	bench_close(&bench);
}
