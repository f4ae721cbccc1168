/*
 * test_disk_latency.c - how long a disk's commands took, retries and pauses included.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>

#include "support/disk_bench.h"

Test(disk_latency, commands_are_counted_by_what_they_do)
{
	struct bench bench;
	g_autofree uint8_t *data = pattern(MIB, 1);
	const struct disk_stats *stats;

	bench_open(&bench);
	stats = disk_stats(bench.disk);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, MIB), 0);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 3 * 4096), 0);
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	cr_assert_eq(bench_do(&bench, IO_ZERO, 0, NULL, 4096), 0);
	cr_expect_eq(stats->write_latency.total, 5, "4 of 256 KiB, and WRITE SAME");
	cr_expect_eq(stats->read_latency.total, 1);
	cr_expect_eq(stats->flush_latency.total, 1);
	bench_close(&bench);
}

Test(disk_latency, lasts_from_the_first_sending_to_the_final_answer)
{
	struct bench bench;
	uint8_t data[512];

	bench_open(&bench);
	/* BUSY: it pauses, 10, 20 and 40 ms at least */
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x88, .times = 3, .status = SAM_BUSY});
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_expect_eq(disk_stats(bench.disk)->retries, 3);
	cr_expect_eq(disk_stats(bench.disk)->read_latency.total, 1);
	cr_expect_geq(disk_stats(bench.disk)->read_latency.sum_us, 70000);
	cr_expect_eq(histogram_up_to(&disk_stats(bench.disk)->read_latency, 65536), 0);
	bench_close(&bench);
}

Test(disk_latency, a_refusal_is_an_answer_and_a_lost_session_is_none)
{
	struct bench bench;
	uint8_t data[512] = {0};

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x88, 1, (struct sense){SENSE_MEDIUM_ERROR, 0x11, 0});
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 512), -EIO);
	cr_expect_eq(disk_stats(bench.disk)->read_latency.total, 1);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x8a, .times = 1, .error = -ESTALE});
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -ESTALE);
	cr_expect_eq(disk_stats(bench.disk)->write_latency.total, 0);
	bench_close(&bench);
}
