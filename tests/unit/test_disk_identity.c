/*
 * test_disk_identity.c - a disk that is asked again what it is, and what its unit attentions tell.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "support/disk_bench.h"

/* ---- the same, or another ---- */

static void expect_other(struct bench *bench, const struct lun_info *info, uint64_t reach,
    const char *was, const char *is)
{
	char text[300] = "";

	cr_expect_eq(disk_verify(bench->disk, info, reach, text, sizeof text), DISK_OTHER);
	cr_expect(strstr(text, was) != NULL, "\"%s\" does not say %s", text, was);
	cr_expect(strstr(text, is) != NULL, "\"%s\" does not say %s", text, is);
}

static enum disk_verdict verify(struct bench *bench, const struct lun_info *info, uint64_t reach)
{
	char text[300];

	return disk_verify(bench->disk, info, reach, text, sizeof text);
}

Test(safety_14, the_same_lun_is_the_same_and_says_nothing)
{
	struct bench bench;

	bench_open(&bench);
	cr_expect_eq(verify(&bench, &bench.info, bench.disk->size), DISK_SAME);
	cr_expect_eq(bench.lost + bench.changed + bench.gone + bench.back + bench.resized, 0);
	cr_expect_eq(bench.port->seen->len, 0);
	bench_close(&bench);
}

Test(safety_14, another_lun_is_told_by_designator_serial_type_and_block_size)
{
	struct bench bench;
	struct lun_info other;

	bench_open(&bench);
	other = bench.info;
	strcpy(other.wwid, "naa.6001405ffffffff");
	expect_other(&bench, &other, 0, "naa.6001405aabbccdd", "naa.6001405ffffffff");
	other.wwid[0] = '\0';
	cr_expect_eq(verify(&bench, &other, 0), DISK_ABSENT, "it may not know yet");
	other = bench.info;
	strcpy(other.serial, "T99");
	expect_other(&bench, &other, 0, "S1", "T99");
	other = bench.info;
	other.type = SCSI_TYPE_CD;
	expect_other(&bench, &other, 0, "disk", "CD/DVD");
	other = bench.info;
	other.block_size = 4096;
	expect_other(&bench, &other, 0, "512", "4096");
	/* All but the right one changed nothing. */
	cr_expect_eq(bench.disk->limits.block_size, 512);
	cr_expect_eq(bench.gone + bench.resized, 0);
	cr_expect_eq(verify(&bench, &bench.info, 0), DISK_SAME);
	bench_close(&bench);
}

Test(safety_14, one_that_is_not_ready_is_absent_whatever_else_it_says)
{
	struct bench bench;
	struct lun_info other = {.fault = "no medium (...)"};
	char text[300] = "";

	bench_open(&bench);
	cr_expect_eq(disk_verify(bench.disk, &other, 4096, text, sizeof text), DISK_ABSENT);
	cr_expect_str_eq(text, "no medium (...)");
	cr_expect_eq(bench.disk->size, bench.info.blocks * 512);
	cr_expect_eq(bench.gone + bench.resized, 0);
	bench_close(&bench);
}

Test(safety_14, a_larger_one_has_grown)
{
	struct bench bench;
	struct lun_info larger;
	uint8_t data[512] = "x";
	uint64_t size;

	bench_open(&bench);
	size = bench.disk->size;
	larger = bench.info;
	larger.blocks += 100;
	bench.lun->blocks += 100;
	cr_assert_eq(bench_do(&bench, IO_WRITE, size, data, 512), -EINVAL);
	cr_expect_eq(verify(&bench, &larger, size), DISK_SAME);
	cr_expect_eq(bench.resized, 1);
	cr_expect_eq(bench.disk->size, size + 51200);
	cr_expect_eq(bench_do(&bench, IO_WRITE, size + 51200 - 512, data, 512), 0);
	cr_expect_eq(verify(&bench, &larger, size), DISK_SAME);
	cr_expect_eq(bench.resized, 1, "once");
	bench_close(&bench);
}

Test(safety_14, a_smaller_one_has_shrunk_unless_data_that_is_not_stable_lies_beyond)
{
	struct bench bench;
	struct lun_info smaller;
	uint8_t data[512] = "x";
	uint64_t end;

	bench_open(&bench);
	smaller = bench.info;
	smaller.blocks -= 100;
	end = smaller.blocks * 512;
	expect_other(&bench, &smaller, end + 1, "33503232", "33503233");
	cr_expect_eq(bench.resized, 0);
	cr_expect_eq(bench.disk->size, end + 51200);
	cr_expect_eq(verify(&bench, &smaller, end), DISK_SAME);
	cr_expect_eq(bench.resized, 1);
	cr_expect_eq(bench.disk->size, end);
	cr_expect_eq(bench_do(&bench, IO_READ, end - 512, data, 512), 0);
	cr_expect_eq(bench_do(&bench, IO_READ, end, data, 512), -EINVAL);
	bench_close(&bench);
}

Test(disk, gone_and_back_are_told)
{
	struct bench bench;

	bench_open(&bench);
	disk_back(bench.disk);
	cr_expect_eq(bench.back, 0, "it was not gone");
	disk_gone(bench.disk);
	cr_expect_eq(bench.gone, 1);
	cr_expect_eq(verify(&bench, &bench.info, 0), DISK_SAME);
	cr_expect_eq(bench.back, 0, "its owner says when");
	disk_back(bench.disk);
	disk_back(bench.disk);
	cr_expect_eq(bench.back, 1);
	disk_fenced(bench.disk);
	cr_expect_eq(bench.fenced, 1);
	bench_close(&bench);
}

Test(disk, takes_over_new_limits)
{
	struct bench bench;
	struct lun_info info;
	static uint8_t data[65536];

	bench_open(&bench);
	info = bench.info;
	info.max_transfer = 8;
	info.fua = false;
	cr_expect_eq(verify(&bench, &info, 0), DISK_SAME);
	cr_expect_not(bench.disk->limits.fua);
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 65536), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x8a), 16);
	bench_close(&bench);
}

/* ---- a write cache that comes and goes ---- */

static int bench_flush(struct bench *bench)
{
	return bench_do(bench, IO_FLUSH, 0, NULL, 0);
}

static void bench_find_cache(struct bench *bench, bool write_cache)
{
	struct lun_info info = bench->info;

	info.write_cache = write_cache;
	cr_assert_eq(verify(bench, &info, 0), DISK_SAME);
}

/* Does a FLUSH have something to do? */
static bool bench_has_cache(struct bench *bench)
{
	unsigned before = scripted_port_count(bench->port, 0x91);

	cr_assert_eq(bench_flush(bench), 0);
	return scripted_port_count(bench->port, 0x91) > before;
}

Test(safety_01, a_cache_that_was_switched_off_counts_until_it_was_emptied)
{
	struct bench bench;
	struct lun_info info = ordinary;

	info.fua = false;
	bench_open_as(&bench, info);
	bench_find_cache(&bench, false);
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect_not(bench.disk->limits.fua);
	bench_find_cache(&bench, false); /* asked again */
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect(bench_has_cache(&bench), "this one empties it");
	cr_expect_not(bench.disk->limits.volatile_cache);
	cr_expect(bench.disk->limits.fua);
	cr_expect_not(bench_has_cache(&bench));
	bench_find_cache(&bench, true);
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect_not(bench.disk->limits.fua);
	cr_expect(bench_has_cache(&bench));
	cr_expect(bench_has_cache(&bench));
	bench_close(&bench);
}

Test(safety_01, a_flush_that_was_sent_before_the_cache_was_off_proves_nothing)
{
	struct bench bench;
	struct request flush;

	bench_open(&bench);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x91, .times = 1, .done_but_held = true});
	request_start(&flush, &bench, IO_FLUSH, 0, NULL, 0);
	bench_find_cache(&bench, false);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&flush), 0);
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect(bench_has_cache(&bench));
	cr_expect_not(bench.disk->limits.volatile_cache);
	bench_close(&bench);
}

Test(safety_01, a_flush_that_fails_or_that_lost_crosses_does_not_empty_the_cache)
{
	struct bench bench;
	struct request flush;

	bench_open(&bench);
	bench_find_cache(&bench, false);
	scripted_port_sense(bench.port, 0x91, 1, (struct sense){SENSE_HARDWARE_ERROR, 0x44, 0});
	cr_expect_eq(bench_flush(&bench), -EIO);
	cr_expect(bench.disk->limits.volatile_cache);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x91, .times = 1, .done_but_held = true});
	request_start(&flush, &bench, IO_FLUSH, 0, NULL, 0);
	disk_lost(bench.disk);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&flush), -ESTALE);
	cr_expect(bench.disk->limits.volatile_cache);
	bench_close(&bench);
}

Test(safety_01, a_lun_without_a_cache_whose_modes_change_has_one_until_it_says_no)
{
	struct bench bench;
	struct lun_info info = ordinary;
	uint8_t data[512] = "x";

	info.write_cache = info.fua = false;
	bench_open_as(&bench, info);
	cr_expect_not(bench_has_cache(&bench));
	scripted_port_sense(bench.port, 0x8a, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x2a, 1});
	cr_assert_eq(bench_do(&bench, IO_WRITE, 0, data, 512), 0);
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect_not(bench.disk->limits.fua);
	cr_expect_eq(bench.attentions, 1);
	bench_find_cache(&bench, false);
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect(bench_has_cache(&bench));
	cr_expect_not(bench_has_cache(&bench));
	bench_close(&bench);
}

Test(safety_01, modes_that_change_again_before_the_flush_are_not_forgotten)
{
	struct bench bench;
	struct request flush;

	bench_open(&bench);
	bench_find_cache(&bench, false);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x91, .times = 1, .done_but_held = true});
	request_start(&flush, &bench, IO_FLUSH, 0, NULL, 0);
	bench_find_cache(&bench, true);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&flush), 0);
	cr_expect(bench.disk->limits.volatile_cache);
	/* off, a flush sent, on and off again: that flush is of the first time */
	bench_find_cache(&bench, false);
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x91, .times = 1, .done_but_held = true});
	request_start(&flush, &bench, IO_FLUSH, 0, NULL, 0);
	bench_find_cache(&bench, true);
	bench_find_cache(&bench, false);
	scripted_port_release(bench.port, 0);
	cr_expect_eq(request_wait(&flush), 0);
	cr_expect(bench.disk->limits.volatile_cache);
	cr_expect(bench_has_cache(&bench));
	cr_expect_not(bench_has_cache(&bench));
	bench_close(&bench);
}

/* ---- unit attentions ---- */

static void hear(struct bench *bench, uint8_t asc, uint8_t ascq)
{
	uint8_t data[512];

	scripted_port_sense(bench->port, 0x88, 1, (struct sense){SENSE_UNIT_ATTENTION, asc, ascq});
	cr_assert_eq(bench_do(bench, IO_READ, 0, data, 512), 0);
}

Test(disk, asks_to_be_asked_again_when_something_about_it_has_changed)
{
	struct bench bench;
	const uint8_t codes[][2] = {
	    {0x2a, 0x01}, {0x2a, 0x09}, {0x3f, 0x03}, {0x3f, 0x0e}, {0x28, 0x00}};

	bench_open(&bench);
	for (unsigned i = 0; i < G_N_ELEMENTS(codes); i++) {
		hear(&bench, codes[i][0], codes[i][1]);
		cr_expect_eq(bench.attentions, i + 1, "%02Xh/%02Xh", codes[i][0], codes[i][1]);
	}
	cr_expect_eq(bench.lost + bench.fenced, 0);
	hear(&bench, 0x2f, 0x00); /* COMMANDS CLEARED BY ANOTHER INITIATOR */
	cr_expect_eq(bench.attentions, G_N_ELEMENTS(codes));
	disk_on_attention(bench.disk, NULL, NULL);
	hear(&bench, 0x2a, 0x09); /* nobody listens */
	bench_close(&bench);
}

Test(safety_07, a_reservation_or_registration_that_was_taken_is_told)
{
	struct bench bench;

	bench_open(&bench);
	hear(&bench, 0x2a, 0x02); /* LOG PARAMETERS CHANGED */
	hear(&bench, 0x2a, 0x06); /* ASYMMETRIC ACCESS STATE CHANGED */
	cr_expect_eq(bench.fenced, 0);
	hear(&bench, 0x2a, 0x03);
	hear(&bench, 0x2a, 0x04);
	hear(&bench, 0x2a, 0x05);
	cr_expect_eq(bench.fenced, 3);
	cr_expect_eq(bench.lost, 0);
	bench_close(&bench);
}
