/*
 * test_disk.c - a disk above a scripted port: how requests become commands.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "support/disk_bench.h"

Test(disk, reads_back_what_was_written_through_many_commands)
{
	struct bench bench;
	g_autofree uint8_t *data = pattern(5 * MIB, 1), *read = g_malloc0(5 * MIB);

	bench_open(&bench);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 512 * 3, data, 5 * MIB), 0);
	cr_assert_eq(bench_do(&bench, IO_READ, 512 * 3, read, 5 * MIB), 0);
	cr_assert_arr_eq(read, data, 5 * MIB);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 20); /* 5 MiB in pieces of 256 KiB */
	cr_expect_eq(
	    scripted_port_count(bench.port, 0x88), 5 * MIB / bench.disk->limits.optimal_size);
	cr_expect_eq(bench.port->most_outstanding, 20, "all at once");
	cr_expect(scripted_port_nth(bench.port, 0x8a, 0)->exact);
	cr_expect(scripted_port_nth(bench.port, 0x88, 0)->exact);
	cr_expect_eq(disk_stats(bench.disk)->bytes_written, 5 * MIB);
	cr_expect_eq(disk_stats(bench.disk)->reads, 1);
	bench_close(&bench);
}

Test(disk, splits_to_the_limits_of_lun_and_port)
{
	struct bench bench;
	struct lun_info info = ordinary;
	g_autofree uint8_t *data = pattern(MIB, 1);

	info.max_transfer = 100; /* blocks */
	bench_open_as(&bench, info);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 250 * 512), 0);
	cr_expect_eq(scripted_port_nth(bench.port, 0x88, 0)->length, 51200);
	cr_expect_eq(scripted_port_nth(bench.port, 0x88, 2)->length, 25600);
	bench.port->port.write_burst = 8192 + 100;
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 16384), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 2, "whole blocks only");
	bench_close(&bench);
}

Test(disk, gathers_any_number_of_iovs_without_copying)
{
	struct bench bench;
	g_autofree uint8_t *data = pattern(MIB, 3), *read = g_malloc0(MIB);
	g_autofree struct iovec *iov = g_new(struct iovec, 1000);
	struct request request;
	size_t at = 0;

	/* 997 pieces that are not blocks, one of them empty, then the rest */
	for (int i = 0; i < 999; i++, at += iov[i - 1].iov_len)
		iov[i] = (struct iovec){data + at, i == 500 ? 0 : 1 + (size_t)i % 1000};
	iov[999] = (struct iovec){data + at, MIB - at};
	bench_open(&bench);
	request = (struct request){
	    .bench = &bench, .io = {.op = IO_WRITE, .length = MIB, .iov = iov, .niov = 1000}};
	request_submit(&request);
	cr_assert_eq(request_wait(&request), 0);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, read, MIB), 0);
	cr_assert_arr_eq(read, data, MIB);

	memset(data, 0, MIB);
	request.io.op = IO_READ;
	request_submit(&request);
	cr_assert_eq(request_wait(&request), 0);
	cr_assert_arr_eq(read, data, MIB);
	request.io.niov = 2; /* holds 3 bytes only */
	request_submit(&request);
	cr_assert_eq(request_wait(&request), -EINVAL);
	bench_close(&bench);
}

Test(disk, reaches_the_last_block_past_two_tebibytes_and_nothing_beyond)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint64_t size = 8ull << 40;
	uint8_t data[1024] = "last";

	info.blocks = size / 512;
	bench_open_as(&bench, info);
	cr_assert_eq(bench.disk->size, size);
	cr_expect_eq(bench_do(&bench, IO_WRITE, size - 1024, data, 1024), 0);
	cr_expect_str_eq(
	    (const char *)scripted_lun_block(bench.lun, size / 512 - 2, false), "last");
	cr_expect_eq(bench_do(&bench, IO_WRITE, size - 512, data, 1024), -EINVAL);
	cr_expect_eq(bench_do(&bench, IO_READ, size, data, 512), -EINVAL);
	cr_expect_eq(bench_do(&bench, IO_READ, UINT64_MAX - 511, data, 512), -EINVAL);
	cr_expect_eq(bench_do(&bench, IO_READ, 100, data, 512), -EINVAL);
	cr_expect_eq(bench_do(&bench, IO_READ, 0, data, 0), 0);
	cr_expect_eq(bench_do(&bench, IO_DISCARD, 0, NULL, 512), -EOPNOTSUPP);
	cr_expect_eq(bench_do(&bench, IO_MAP, 0, NULL, 512), -EOPNOTSUPP);
	cr_expect_eq(bench.port->seen->len, 1);
	bench_close(&bench);
}

Test(disk, a_read_only_one_refuses_to_be_written)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = {0};

	info.write_protected = true;
	bench_open_as(&bench, info);
	cr_expect(bench.disk->limits.read_only);
	cr_expect_eq(bench_do(&bench, IO_WRITE, 0, data, 512), -EROFS);
	cr_expect_eq(bench_do(&bench, IO_ZERO, 0, NULL, 512), -EROFS);
	cr_expect_eq(bench_do(&bench, IO_DISCARD, 0, NULL, 512), -EROFS);
	cr_expect_eq(bench_do(&bench, IO_READ, 0, data, 512), 0);
	cr_expect_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	bench_close(&bench);
}

Test(disk, keeps_at_most_128_commands_at_the_port_and_sends_the_rest_in_order)
{
	struct bench bench;
	static uint8_t data[512];
	struct request requests[300];

	bench_open(&bench);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x88, .hold = true});
	for (unsigned i = 0; i < 300; i++)
		request_start(&requests[i], &bench, IO_READ, i * 512, data, 512);
	bench_settle(&bench);
	cr_expect_eq(bench.port->held->len, 128);
	while (bench.waiting > 0) {
		if (bench.port->held->len)
			scripted_port_release(bench.port, 0);
		bench_settle(&bench);
	}
	for (unsigned i = 0; i < 300; i++)
		cr_expect_eq(get_be64(scripted_port_nth(bench.port, 0x88, i)->cdb + 2), i);
	cr_expect_eq(bench.port->most_outstanding, 128);
	bench_close(&bench);
}

Test(disk, fua_is_the_bit_where_there_is_one)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_open(&bench);
	cr_assert_eq(bench_do_flagged(&bench, IO_WRITE, 0, data, 512, IO_FUA), 0);
	cr_expect_eq(bench.port->seen->len, 1);
	cr_expect_not_null(scripted_lun_block(bench.lun, 0, true));
	bench_close(&bench);
}

Test(disk, fua_without_the_bit_is_a_flush_before_done)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = "x";

	info.fua = false;
	bench_open_as(&bench, info);
	cr_expect_not(bench.disk->limits.fua);
	cr_assert_eq(bench_do_flagged(&bench, IO_WRITE, 0, data, 512, IO_FUA), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x91), 1);
	cr_expect_not_null(scripted_lun_block(bench.lun, 0, true));
	scripted_port_sense(bench.port, 0x91, 1, (struct sense){SENSE_MEDIUM_ERROR, 0x0c, 0});
	cr_expect_eq(bench_do_flagged(&bench, IO_WRITE, 0, data, 512, IO_FUA), -EIO);
	bench_close(&bench);
}

Test(disk, a_target_that_rejects_the_fua_bit_is_flushed_instead)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x8a, 1, (struct sense){SENSE_ILLEGAL_REQUEST, 0x24, 0});
	cr_assert_eq(bench_do_flagged(&bench, IO_WRITE, 0, data, 512, IO_FUA), 0);
	cr_expect_eq(scripted_port_nth(bench.port, 0x8a, 1)->cdb[1], 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x91), 1);
	bench_close(&bench);
}

Test(disk, without_a_write_cache_there_is_nothing_to_flush)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = "x";

	info.fua = info.write_cache = false;
	bench_open_as(&bench, info);
	cr_assert_eq(bench_do_flagged(&bench, IO_WRITE, 0, data, 512, IO_FUA), 0);
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	cr_expect_eq(bench.port->seen->len, 1);
	/* MODE PARAMETERS CHANGED: it may have one now */
	scripted_port_sense(bench.port, 0x8a, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x2a, 1});
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x91), 1);
	bench_close(&bench);
}

Test(disk, flush_has_a_time_limit_of_its_own_and_falls_back_to_the_short_form)
{
	struct bench bench;
	uint8_t data[512] = "x";

	bench_open(&bench);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect_null(scripted_lun_block(bench.lun, 0, true));
	scripted_port_sense(bench.port, 0x91, 1, (struct sense){SENSE_ILLEGAL_REQUEST, 0x20, 0});
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	cr_expect_not_null(scripted_lun_block(bench.lun, 0, true));
	cr_expect_eq(scripted_port_nth(bench.port, 0x35, 0)->timeout_ms, 120000);
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x91), 1, "what was learnt is kept");
	scripted_port_sense(bench.port, 0x35, 1, (struct sense){SENSE_ILLEGAL_REQUEST, 0x20, 0});
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0, "no such command, nothing to do");
	cr_assert_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x35), 3);
	bench_close(&bench);
}

Test(disk, a_failed_flush_is_told)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x91, 1, (struct sense){SENSE_HARDWARE_ERROR, 0x44, 0});
	cr_expect_eq(bench_do(&bench, IO_FLUSH, 0, NULL, 0), -EIO);
	cr_expect_eq(disk_stats(bench.disk)->errors, 1);
	bench_close(&bench);
}

Test(disk, ten_byte_commands_serve_targets_without_the_long_ones)
{
	struct bench bench;
	g_autofree uint8_t *data = pattern(MIB, 5), *read = g_malloc0(MIB);

	bench_open(&bench);
	scripted_port_sense(bench.port, 0x8a, 0, (struct sense){SENSE_ILLEGAL_REQUEST, 0x20, 0});
	scripted_port_sense(bench.port, 0x88, 0, (struct sense){SENSE_ILLEGAL_REQUEST, 0x20, 0});
	cr_assert_eq(bench_do(&bench, IO_WRITE, 4096, data, MIB), 0);
	cr_assert_eq(bench_do(&bench, IO_READ, 4096, read, MIB), 0);
	cr_assert_arr_eq(read, data, MIB);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 4, "those that were out already");
	cr_expect_eq(scripted_port_count(bench.port, 0x88), 0);
	bench_close(&bench);
}

Test(disk, a_cd_is_read_with_ten_byte_commands)
{
	struct bench bench;
	struct lun_info info = {
	    .type = SCSI_TYPE_CD, .blocks = 100, .block_size = 2048, .write_protected = true};
	uint8_t data[2048];

	bench_open_as(&bench, info);
	cr_assert_eq(bench_do(&bench, IO_READ, 2048, data, 2048), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x28), 1);
	cr_expect_eq(bench.port->seen->len, 1);
	bench_close(&bench);
}

Test(disk, zeroes_with_write_same_four_chunks_at_a_time)
{
	struct bench bench;
	g_autofree uint8_t *data = pattern(4096, 9);
	struct request request;

	bench_open(&bench);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 20 * MIB, data, 4096), 0);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x93, .hold = true});
	request_start(&request, &bench, IO_ZERO, MIB, NULL, 30 * MIB);
	bench_settle(&bench);
	cr_expect_eq(bench.port->held->len, 4);
	while (request.calls == 0) {
		scripted_port_release(bench.port, bench.port->held->len - 1);
		bench_settle(&bench);
		cr_assert_leq(bench.port->held->len, 4);
	}
	cr_assert_eq(request.error, 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x93), 8); /* 7 of 4 MiB, one of 2 */
	cr_expect_eq(scripted_port_nth(bench.port, 0x93, 0)->length, 512);
	cr_assert_eq(bench_do(&bench, IO_READ, 20 * MIB, data, 4096), 0);
	cr_expect_eq(data[0] | data[4095], 0);
	bench_close(&bench);
}

Test(disk, unmaps_only_where_that_reads_as_zeros_and_as_much_as_the_target_allows)
{
	struct bench bench;
	struct lun_info info = ordinary;

	info.unmap_zeroes = true;
	info.max_write_same = 10000;
	bench_open_as(&bench, info);
	cr_assert_eq(bench_do(&bench, IO_ZERO, 0, NULL, 30000 * 512), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x93), 3);
	cr_expect_eq(scripted_port_nth(bench.port, 0x93, 0)->cdb[1], 0x08);
	bench_close(&bench);
}

Test(disk, zeroes_with_plain_writes_where_write_same_is_rejected)
{
	struct bench bench;
	struct lun_info info = ordinary;
	g_autofree uint8_t *data = pattern(8 * MIB, 2), *zeros = g_malloc0(8 * MIB);

	info.unmap_zeroes = true;
	bench_open_as(&bench, info);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 8 * MIB), 0);
	bench.port->seen->len = 0;
	/* with UNMAP: a bad field; without: no such command */
	scripted_port_sense(bench.port, 0x93, 1, (struct sense){SENSE_ILLEGAL_REQUEST, 0x24, 0});
	scripted_port_sense(bench.port, 0x93, 0, (struct sense){SENSE_ILLEGAL_REQUEST, 0x20, 0});
	cr_assert_eq(bench_do(&bench, IO_ZERO, 512, NULL, 7 * MIB), 0);
	cr_expect_eq(scripted_port_nth(bench.port, 0x93, 1)->cdb[1], 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 28);
	memcpy(zeros, data, 512);
	memcpy(zeros + 512 + 7 * MIB, data + 512 + 7 * MIB, MIB - 512);
	cr_assert_eq(bench_do(&bench, IO_READ, 0, data, 8 * MIB), 0);
	cr_assert_arr_eq(data, zeros, 8 * MIB);
	cr_assert_eq(bench_do(&bench, IO_ZERO, 0, NULL, 512), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x93), 3, "what was learnt is kept");
	bench_close(&bench);
}

Test(disk, a_cancelled_request_sends_no_more_and_ends_when_all_is_back)
{
	struct bench bench;
	struct request request = {.bench = &bench, .io = {.op = IO_ZERO, .length = 30 * MIB}};
	bool cancelled = false;

	bench_open(&bench);
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x93, .hold = true});
	request.io.cancelled = &cancelled;
	request_submit(&request);
	bench_settle(&bench);
	cr_assert_eq(bench.port->held->len, 4);
	cancelled = true;
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(request.calls, 0);
		scripted_port_release(bench.port, 0);
		bench_settle(&bench);
	}
	cr_assert_eq(request_wait(&request), -EINTR);
	cr_expect_eq(scripted_port_count(bench.port, 0x93), 4);
	bench_close(&bench);
}

Test(disk, a_cancelled_request_is_not_sent_again_to_a_busy_target)
{
	struct bench bench;
	uint8_t data[512] = {0};
	bool cancelled = false;
	struct request request = {.bench = &bench,
	    .iov = {data, 512},
	    .io = {.op = IO_WRITE, .length = 512, .niov = 1, .cancelled = &cancelled}};

	bench_open(&bench);
	request.io.iov = &request.iov;
	scripted_port_rule(bench.port, (struct scripted_rule){.opcode = 0x8a, .status = SAM_BUSY});
	request_submit(&request);
	bench_settle(&bench);
	cancelled = true;
	cr_assert_eq(request_wait(&request), -EINTR);
	cr_expect_null(scripted_lun_block(bench.lun, 0, false));
	bench_close(&bench);
}
