/*
 * test_disk_trouble.c - a disk above a scripted port that fails and is busy. (What is lost:
 * test_disk_loss.c.)
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "support/disk_bench.h"
#include "support/seed.h"

Test(disk, an_error_of_one_part_ends_the_request_after_the_last_part)
{
	struct bench bench;
	g_autofree uint8_t *data = g_malloc(4 * MIB);
	struct request request;
	unsigned parts;

	bench_open(&bench);
	parts = 4 * MIB / bench.disk->limits.optimal_size;
	scripted_port_sense(bench.port, 0x88, 1, (struct sense){SENSE_MEDIUM_ERROR, 0x11, 0});
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x88, .hold = true});
	request_start(&request, &bench, IO_READ, 0, data, 4 * MIB);
	bench_settle(&bench);
	cr_assert_eq(bench.port->held->len, parts - 1, "all but the one that failed");
	for (unsigned i = 1; i < parts; i++) {
		cr_assert_eq(request.calls, 0, "its buffer is still in use");
		scripted_port_release(bench.port, 0);
		bench_settle(&bench);
	}
	cr_assert_eq(request_wait(&request), -EIO);
	bench_close(&bench);
}

static void expect_errno(uint8_t opcode, enum io_op op, struct sense sense, int error)
{
	struct bench bench;
	uint8_t data[512] = {0};

	bench_open(&bench);
	scripted_port_sense(bench.port, opcode, 0, sense);
	cr_expect_eq(bench_do(&bench, op, 0, data, 512), error);
	bench_close(&bench);
}

Test(disk, errors_reach_the_user_as_errno)
{
	expect_errno(0x88, IO_READ, (struct sense){SENSE_MEDIUM_ERROR, 0x11, 0}, -EIO);
	expect_errno(0x8a, IO_WRITE, (struct sense){SENSE_DATA_PROTECT, 0x27, 0x07}, -ENOSPC);
	expect_errno(0x8a, IO_WRITE, (struct sense){SENSE_DATA_PROTECT, 0x27, 0x00}, -EROFS);
	expect_errno(0x88, IO_READ, (struct sense){SENSE_NOT_READY, 0x3a, 0x00}, -ENOMEDIUM);
	expect_errno(0x88, IO_READ, (struct sense){SENSE_ILLEGAL_REQUEST, 0x24, 0x00}, -EIO);
	expect_errno(0x88, IO_READ, (struct sense){SENSE_ABORTED_COMMAND, 0x4b, 0x00}, -EIO);
}

Test(disk, tries_again_ten_times_at_once_and_then_after_growing_pauses)
{
	struct bench bench;
	uint8_t data[512] = "again";

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x8a, 10, (struct sense){SENSE_ABORTED_COMMAND, 0x4b, 0});
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_str_eq((const char *)scripted_lun_block(bench.lun, 0, false), "again");
	cr_expect_eq(disk_stats(bench.disk)->retries, 10);
	for (unsigned i = 3; i < 10; i++) { /* 10, 20, ... 320, 500 */
		int64_t pause = scripted_port_nth(bench.port, 0x8a, i + 1)->at_ms -
		                scripted_port_nth(bench.port, 0x8a, i)->at_ms;

		cr_expect_geq(pause, MIN(10 << (i - 3), 500) - 1, "try %u", i);
	}
	scripted_port_sense(bench.port, 0x8a, 11, (struct sense){SENSE_ABORTED_COMMAND, 0x4b, 0});
	cr_expect_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -EIO);
	bench_close(&bench);
}

Test(disk, a_busy_target_is_asked_again_after_growing_pauses)
{
	struct bench bench;
	uint8_t data[512] = "again";

	bench_open(&bench);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x8a, .times = 2, .status = SAM_BUSY});
	scripted_port_rule(bench.port,
	    (struct scripted_rule){.opcode = 0x8a, .times = 2, .status = SAM_TASK_SET_FULL});
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	for (unsigned i = 0; i < 4; i++) /* 10, 20, 40, 80 */
		cr_expect_geq(scripted_port_nth(bench.port, 0x8a, i + 1)->at_ms -
		                  scripted_port_nth(bench.port, 0x8a, i)->at_ms,
		    (10 << i) - 1);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 5);
	bench_close(&bench);
}

Test(disk, a_target_that_stays_busy_is_an_error_in_the_end)
{
	struct bench bench;
	uint8_t data[512];
	int64_t start = clock_ms();

	bench_open(&bench);
	cr_assert_eq(((struct disk *)bench.disk)->patience_ms, 30000);
	((struct disk *)bench.disk)->patience_ms = 300;
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x88, .status = SAM_BUSY});
	cr_expect_eq(bench_do(&bench, IO_READ, 0, data, 512), -EIO);
	cr_expect_geq(clock_ms() - start, 299);
	bench_close(&bench);
}

/* Random requests above a port that fails in every way that passes; a shadow tells what must be
 * there. What LOST crossed is done again, as the block above would. */
Test(disk, keeps_its_data_through_random_trouble, .timeout = 60)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint32_t seed = test_seed("disk");
	g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
	g_autofree uint8_t *shadow = g_malloc0(MIB), *data = g_malloc(MIB);
	unsigned stale = 0;
	int error;

	info.blocks = MIB / 512;
	info.fua = g_rand_boolean(rand);
	info.max_transfer = (uint32_t)g_rand_int_range(rand, 0, 300);
	bench_open_as(&bench, info);
	for (int i = 0; i < 500; i++) {
		uint64_t from = (uint64_t)g_rand_int_range(rand, 0, 2048);
		uint64_t count = (uint64_t)g_rand_int_range(rand, 1, MIN(600, 2049 - (gint32)from));
		uint32_t flags = g_rand_int_range(rand, 0, 4) == 0 ? IO_FUA : 0;
		enum io_op op = (enum io_op[]){
		    IO_READ, IO_WRITE, IO_ZERO, IO_FLUSH}[g_rand_int_range(rand, 0, 4)];

		if (g_rand_int_range(rand, 0, 3) == 0)
			scripted_port_sense(bench.port, -1, (unsigned)g_rand_int_range(rand, 1, 4),
			    (struct sense){SENSE_UNIT_ATTENTION, 0x2a, 0x09});
		if (g_rand_int_range(rand, 0, 10) == 0)
			scripted_port_rule(
			    bench.port, (struct scripted_rule){.opcode = -1,
			                    .times = 1,
			                    .skip = (unsigned)g_rand_int_range(rand, 0, 6),
			                    .status = SAM_CHECK_CONDITION,
			                    .sense = {SENSE_UNIT_ATTENTION, 0x29, 0x00}});
		if (g_rand_int_range(rand, 0, 40) == 0)
			scripted_port_rule(bench.port,
			    (struct scripted_rule){.opcode = -1, .times = 1, .status = SAM_BUSY});
		from *= 512, count *= 512;
		memset(data, g_rand_int_range(rand, 0, 256), count);
		if (op == IO_FLUSH)
			from = count = 0;
		do {
			error = bench_do_flagged(&bench, op, from,
			    op == IO_READ || op == IO_WRITE ? data : NULL, count, flags);
			stale += error == -ESTALE;
		} while (error == -ESTALE && op != IO_READ);
		cr_assert_eq(error, 0, "seed %u", seed);
		if (op == IO_READ)
			cr_assert_arr_eq(data, shadow + from, count, "seed %u", seed);
		else if (op == IO_WRITE)
			memcpy(shadow + from, data, count);
		else if (op == IO_ZERO)
			memset(shadow + from, 0, count);
	}
	cr_expect_gt(stale, 5, "seed %u", seed);
	cr_expect_geq(bench.lost, stale, "seed %u", seed);
	bench_close(&bench);
}

Test(disk, a_cancelled_request_that_the_target_aborts_ends_there)
{
	struct bench bench;
	uint8_t data[512] = {0};
	bool cancelled = false;
	struct request request = {.bench = &bench,
	    .iov = {data, 512},
	    .io = {.op = IO_WRITE, .length = 512, .niov = 1, .cancelled = &cancelled}};

	bench_open(&bench);
	request.io.iov = &request.iov;
	scripted_port_rule(bench.port,
	    (struct scripted_rule){
	        .opcode = 0x8a, .times = 1, .status = SAM_TASK_ABORTED, .done_but_held = true});
	request_submit(&request);
	cancelled = true;
	bench_settle(&bench);
	cr_assert_eq(request.calls, 0, "the target still has its buffer");
	scripted_port_release(bench.port, 0);
	cr_assert_eq(request_wait(&request), -EINTR);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 1);
	bench_close(&bench);
}
