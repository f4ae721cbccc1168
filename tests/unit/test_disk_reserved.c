/*
 * test_disk_reserved.c - a disk that another host has reserved, and one that tells of errors of
 * commands that it had answered with GOOD.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "support/disk_bench.h"

/* ---- RESERVATION CONFLICT ---- */

static void bench_conflict(struct bench *bench, int opcode, unsigned times)
{
	scripted_port_rule(
	    bench->port, (struct scripted_rule){
	                     .opcode = opcode, .times = times, .status = SAM_RESERVATION_CONFLICT});
}

static void expect_conflict(uint8_t opcode, enum io_op op)
{
	struct bench bench;
	uint8_t data[512] = {0};

	bench_open(&bench);
	bench_conflict(&bench, opcode, 0);
	cr_expect_eq(
	    bench_do(&bench, op, 0, op == IO_FLUSH ? NULL : data, op == IO_FLUSH ? 0 : 512), -EBADE,
	    "%s", io_op_name(op));
	cr_expect_eq(scripted_port_count(bench.port, opcode), 1, "%s: once", io_op_name(op));
	cr_expect_eq(bench.fenced, 1);
	cr_expect_eq(disk_stats(bench.disk)->conflicts, 1);
	cr_expect_eq(disk_stats(bench.disk)->retries, 0);
	cr_expect_neq(disk_stats(bench.disk)->reserved_since_us, 0);
	cr_expect_eq(disk_stats(bench.disk)->reserved_for_writing, op != IO_READ);
	bench_close(&bench);
}

Test(safety_07, a_reservation_conflict_is_told_at_once_and_nothing_is_sent_again)
{
	expect_conflict(0x88, IO_READ);
	expect_conflict(0x8a, IO_WRITE);
	expect_conflict(0x91, IO_FLUSH);
}

Test(disk, knows_since_when_it_is_reserved_and_until_when)
{
	struct bench bench;
	uint8_t data[512] = {0};

	bench_open(&bench);
	const struct disk_stats *stats = disk_stats(bench.disk);
	bench_conflict(&bench, 0x8a, 2);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -EBADE);
	int64_t since = stats->reserved_since_us;
	g_usleep(2000);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -EBADE);
	cr_expect_eq(stats->reserved_since_us, since);
	cr_expect_gt(stats->reserved_seen_us, since);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	cr_expect_eq(stats->reserved_since_us, since, "neither says a thing of WRITEs");
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(stats->reserved_since_us, 0);
	cr_expect_eq(stats->conflicts, 2);

	bench_conflict(&bench, 0x8a, 1);
	bench_conflict(&bench, 0x88, 1);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -EBADE);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), -EBADE);
	cr_expect_not(stats->reserved_for_writing);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_expect_eq(stats->reserved_since_us, 0);
	cr_expect_eq(stats->conflicts, 4);
	bench_close(&bench);
}

Test(disk, that_was_found_reserved_is_known_as_such)
{
	struct bench bench;
	struct lun_info info = ordinary;

	info.reserved = true;
	bench_open_as(&bench, info);
	cr_expect_neq(disk_stats(bench.disk)->reserved_since_us, 0);
	cr_expect_not(disk_stats(bench.disk)->reserved_for_writing);
	bench_close(&bench);
}

Test(safety_07, a_disk_that_comes_back_reserved_is_the_same_also_where_its_capacity_is_hidden)
{
	struct bench bench;
	struct lun_info info = ordinary;
	char text[200];

	bench_open(&bench);
	info.reserved = true;
	info.blocks = info.block_size = 0;
	g_strlcpy(info.fault, "its capacity is not known", sizeof info.fault);
	cr_expect_eq(disk_verify(bench.disk, &info, MIB, text, sizeof text), DISK_SAME);
	cr_expect_eq(bench.disk->size, 65536u * 512);
	cr_expect_neq(disk_stats(bench.disk)->reserved_since_us, 0);
	g_strlcpy(info.serial, "S2", sizeof info.serial);
	cr_expect_eq(disk_verify(bench.disk, &info, MIB, text, sizeof text), DISK_OTHER);
	bench_close(&bench);
}

/* ---- deferred errors ---- */

static const struct sense medium = {SENSE_MEDIUM_ERROR, 0x0c, 0x02};
static const struct sense recovered = {SENSE_RECOVERED_ERROR, 0x0c, 0x01};

static void bench_defer(struct bench *bench, int opcode, unsigned times, struct sense sense)
{
	scripted_port_rule(bench->port, (struct scripted_rule){.opcode = opcode,
	                                    .times = times,
	                                    .status = SAM_CHECK_CONDITION,
	                                    .sense = sense,
	                                    .deferred = true});
}

Test(safety_01, a_deferred_error_is_a_loss_and_says_nothing_of_the_command_that_fetched_it)
{
	struct bench bench;
	uint8_t data[512] = "kept";

	bench_open(&bench);
	bench_defer(&bench, 0x88, 1, medium);
	cr_expect_eq(bench_do(&bench, IO_READ, 0, data, 512), 0, "it was not executed");
	cr_expect_eq(scripted_port_count(bench.port, 0x88), 2);
	cr_expect_eq(bench.lost, 1);
	bench_defer(&bench, 0x8a, 1, medium);
	cr_expect_eq(
	    bench_do(&bench, IO_WRITE, 0, data, 512), -ESTALE, "what was before goes first");
	cr_expect_eq(bench.lost, 2);
	bench_defer(&bench, 0x91, 1, medium);
	cr_expect_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), -ESTALE);
	cr_expect_eq(bench.lost, 3);
	cr_expect_eq(bench.forgotten, 0);
	bench_close(&bench);
}

Test(safety_01, a_deferred_error_of_a_disk_without_a_cache_is_told_as_forgotten)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = {0};

	info.write_cache = false;
	bench_open_as(&bench, info);
	bench_defer(&bench, 0x88, 1, medium);
	cr_expect_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_expect_eq(bench.forgotten, 1);
	bench_close(&bench);
}

Test(disk, a_write_that_fetched_a_deferred_recovered_error_is_sent_again)
{
	struct bench bench;
	uint8_t data[512] = "done";

	bench_open(&bench);
	bench_defer(&bench, 0x8a, 1, recovered);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 2);
	cr_expect_str_eq((const char *)scripted_lun_block(bench.lun, 0, false), "done");
	cr_expect_eq(bench.lost + bench.forgotten, 0, "nothing was lost");
	bench_close(&bench);
}

Test(disk, a_deferred_illegal_request_does_not_change_which_commands_are_used)
{
	struct bench bench;
	uint8_t data[512] = {0};

	bench_open(&bench);
	bench_defer(&bench, 0x88, 1, (struct sense){SENSE_ILLEGAL_REQUEST, 0x20, 0});
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x88), 2);
	cr_expect_eq(scripted_port_count(bench.port, 0x28), 0);
	bench_close(&bench);
}

/* ---- losses without end ---- */

/* As the block above does: all again, until it is no loss. */
static unsigned bench_flush_on(struct bench *bench)
{
	uint8_t data[512] = {0};
	unsigned rounds = 0;

	while (bench->restless == 0 && rounds < 100) {
		if (bench_do(bench, IO_WRITE, 0, data, 512) == 0 &&
		    bench_do(bench, IO_FLUSH, 0, NULL, 0) == 0)
			break;
		rounds++;
	}
	return rounds;
}

Test(disk, says_that_it_is_restless_when_writes_only_meet_losses)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x8a, 0, (struct sense){SENSE_UNIT_ATTENTION, 0x29, 0});
	cr_expect_eq(bench_flush_on(&bench), 10);
	cr_expect_eq(bench.restless, 1);
	bench_close(&bench);
}

Test(disk, is_restless_when_each_flush_finds_an_error_of_the_writes_before)
{
	struct bench bench;

	bench_open(&bench);
	bench_defer(&bench, 0x91, 0, medium);
	cr_expect_eq(bench_flush_on(&bench), 10, "the WRITEs, which succeed, say nothing");
	cr_expect_eq(bench.restless, 1);
	bench_close(&bench);
}

Test(disk, is_not_restless_where_commands_succeed_in_between)
{
	struct bench bench;
	uint8_t data[512];

	bench_open(&bench);
	for (unsigned i = 0; i < 30; i++) {
		scripted_port_sense(
		    bench.port, 0x88, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x29, 0});
		cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	}
	cr_expect_eq(bench.restless, 0);
	bench_close(&bench);
}

Test(disk, a_read_that_only_meets_resets_fails_in_the_end)
{
	struct bench bench;
	uint8_t data[512];

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x88, 0, (struct sense){SENSE_UNIT_ATTENTION, 0x29, 0});
	cr_expect_eq(bench_do(&bench, IO_READ, 0, data, 512), -EIO);
	cr_expect_eq(scripted_port_count(bench.port, 0x88), 11);
	bench_close(&bench);
}
