/*
 * test_probe.c - which LUNs there are and what they are, of targets that are honest, poor, slow, or
 * hostile.
 */
#include "support/probe_bench.h"
#include "support/seed.h"

Test(probe, tells_everything_about_an_ordinary_disk)
{
	struct bench bench;
	const struct lun_info *info;

	bench_open(&bench);
	scripted_port_add(bench.port, 3, SCSI_TYPE_DISK, 512, 4096);
	bench_probe_one(&bench);
	info = &bench.luns[0];
	cr_expect_eq(info->lun, 3);
	cr_expect_eq(info->type, SCSI_TYPE_DISK);
	cr_expect_str_eq(info->vendor, "LUNFS");
	cr_expect_str_eq(info->product, "SCRIPTED DISK");
	cr_expect_str_eq(info->revision, "0001");
	cr_expect_str_eq(info->serial, "SN00003");
	cr_expect_str_eq(info->wwid, "naa.5001040500000003");
	cr_expect_eq(info->blocks, 4096);
	cr_expect_eq(info->block_size, 512);
	cr_expect(info->fua);
	cr_expect(info->write_cache);
	cr_expect_not(info->write_protected);
	cr_expect_not(info->unmap_zeroes);
	cr_expect_str_eq(info->fault, "");
	bench_close(&bench);
}

Test(probe, gives_many_luns_in_order_a_bounded_number_at_a_time)
{
	struct bench bench;

	bench_open(&bench);
	for (unsigned i = 500; i-- > 0;)
		scripted_port_add(bench.port, (uint16_t)i, SCSI_TYPE_DISK, 512, 100 + i);
	bench_probe(&bench, -1);
	cr_assert_eq(bench.count, 500);
	for (unsigned i = 0; i < 500; i++) {
		cr_expect_eq(bench.luns[i].lun, i);
		cr_expect_eq(bench.luns[i].blocks, 100 + i);
	}
	cr_expect_leq(bench.port->most_outstanding, 32);
	cr_expect_geq(bench.port->most_outstanding, 16);
	bench_close(&bench);
}

Test(probe, asks_again_for_a_list_that_did_not_fit)
{
	struct bench bench;
	struct scripted_lun *lun;
	g_autofree uint8_t *list = g_malloc0(8 + 8 * 3000);

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_add(bench.port, 400, SCSI_TYPE_DISK, 512, 8);
	put_be32(list, 8 * 3000);
	for (unsigned i = 0; i < 3000; i++) /* the last one alone is 400 */
		put_be16(list + 8 + 8 * i, i == 2999 ? 0x4000 | 400 : 0);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, list, 8 + 8 * 3000);
	bench_probe(&bench, -1);
	cr_assert_eq(bench.count, 2);
	cr_expect_eq(bench.luns[1].lun, 400);
	cr_expect_eq(scripted_port_count(bench.port, 0xa0), 2);
	bench_close(&bench);
}

Test(probe, reads_lun_numbers_and_leaves_out_well_known_and_nested_ones)
{
	struct bench bench;
	struct scripted_lun *lun;
	const uint8_t list[8 + 8 * 6] = {[3] = 48,
	    [8] = 0x41,
	    [9] = 0x05, /* flat 261 */
	    [16] = 0xc1,
	    [17] = 0x01, /* REPORT LUNS well-known unit */
	    [24] = 0x00,
	    [25] = 0x07, /* peripheral 7 */
	    [32] = 0x01,
	    [33] = 0x02, /* behind bus 1 */
	    [40] = 0x00,
	    [41] = 0x09,
	    [42] = 1, /* second level */
	    [48] = 0x40,
	    [49] = 0x07}; /* 7 again */

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 7, SCSI_TYPE_DISK, 512, 8);
	scripted_port_add(bench.port, 9, SCSI_TYPE_DISK, 512, 8);
	scripted_port_add(bench.port, 261, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, list, sizeof list);
	bench_probe(&bench, -1);
	cr_assert_eq(bench.count, 2);
	cr_expect_eq(bench.luns[0].lun, 7);
	cr_expect_eq(bench.luns[1].lun, 261);
	bench_close(&bench);
}

Test(probe, assumes_lun_0_where_report_luns_is_unknown)
{
	struct bench bench;
	struct scripted_lun *lun;

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, NULL, 0);
	bench_probe_one(&bench);
	cr_expect_eq(bench.luns[0].lun, 0);
	bench_close(&bench);
}

Test(probe, asked_for_one_lun_asks_no_other)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 1, SCSI_TYPE_DISK, 512, 8);
	scripted_port_add(bench.port, 2, SCSI_TYPE_DISK, 512, 9);
	bench_probe(&bench, 2);
	cr_assert_eq(bench.count, 1);
	cr_expect_eq(bench.luns[0].blocks, 9);
	cr_expect_eq(scripted_port_count(bench.port, 0xa0), 0);
	for (guint i = 0; i < bench.port->seen->len; i++)
		cr_expect_eq(g_array_index(bench.port->seen, struct scripted_seen, i).lun, 2);
	bench_close(&bench);
}

Test(probe, says_that_the_lun_asked_for_is_not_there)
{
	struct bench bench;
	struct scripted_lun *lun;
	uint8_t none[36] = {0x7f};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 1, SCSI_TYPE_DISK, 512, 8);
	bench_probe(&bench, 5); /* ILLEGAL REQUEST 25h */
	cr_expect_str_eq(bench.error, "there is no LUN 5 at this target");
	scripted_lun_answer(lun, SCRIPTED_INQUIRY, none, sizeof none); /* qualifier 3, type 1Fh */
	bench_probe(&bench, 1);
	cr_expect_str_eq(bench.error, "there is no LUN 1 at this target");
	bench_close(&bench);
}

Test(probe, says_that_a_target_shows_no_luns)
{
	struct bench bench;
	struct scripted_lun *lun;

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, (uint8_t[8]){0}, 8);
	bench_probe(&bench, -1);
	cr_expect_eq(bench.count, 0);
	cr_assert_not_null(bench.error);
	cr_expect(g_str_has_prefix(bench.error, "the target shows no LUNs"));
	bench_close(&bench);
}

Test(probe, drains_unit_attentions_whichever_command_meets_them)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, 0x00, 9, (struct sense){SENSE_UNIT_ATTENTION, 0x29, 0});
	scripted_port_sense(bench.port, 0xa0, 2, (struct sense){SENSE_UNIT_ATTENTION, 0x3f, 0x0e});
	scripted_port_sense(bench.port, 0x9e, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x2a, 0x09});
	bench_probe_one(&bench);
	cr_expect_str_eq(bench.luns[0].fault, "");
	cr_expect_eq(bench.luns[0].blocks, 8);
	cr_expect_eq(scripted_port_count(bench.port, 0x00), 10);
	bench_close(&bench);
}

Test(probe, waits_for_a_lun_that_becomes_ready)
{
	struct bench bench;
	int64_t start = clock_ms();

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, 0x00, 3, (struct sense){SENSE_NOT_READY, 0x04, 0x01});
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x12, .times = 1, .status = SAM_BUSY});
	bench_probe_one(&bench);
	cr_expect_str_eq(bench.luns[0].fault, "");
	cr_expect_eq(bench.luns[0].blocks, 8);
	cr_expect_geq(clock_ms() - start, 390); /* four pauses of 100 ms */
	bench_close(&bench);
}

Test(probe, gives_up_on_a_lun_that_never_becomes_ready_after_three_seconds)
{
	struct bench bench;
	int64_t start = clock_ms();

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, 0x00, 0, (struct sense){SENSE_NOT_READY, 0x04, 0x01});
	bench_probe_one(&bench);
	cr_expect_str_eq(bench.luns[0].fault, "not ready (TEST UNIT READY: NOT READY (2), logical "
	                                      "unit is in process of becoming ready "
	                                      "(04h/01h))");
	cr_expect_geq(clock_ms() - start, 2900);
	cr_expect_leq(clock_ms() - start, 8000);
	bench_close(&bench);
}

Test(probe, tells_a_drive_without_a_medium_in_words)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_CD, 2048, 8);
	scripted_port_sense(bench.port, 0x00, 0, (struct sense){SENSE_NOT_READY, 0x3a, 0x00});
	bench_probe_one(&bench);
	cr_expect_str_eq(bench.luns[0].fault,
	    "no medium (TEST UNIT READY: NOT READY (2), medium not present (3Ah/00h))");
	cr_expect_str_eq(bench.luns[0].wwid, "naa.5001040500000000");
	bench_close(&bench);
}

Test(probe, a_cd_is_write_protected_and_asked_by_read_capacity_10)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_CD, 2048, 700);
	bench_probe_one(&bench);
	cr_expect(bench.luns[0].write_protected);
	cr_expect_eq(bench.luns[0].blocks, 700);
	cr_expect_eq(bench.luns[0].block_size, 2048);
	cr_expect_eq(scripted_port_count(bench.port, 0x9e), 0);
	cr_expect_eq(scripted_port_count(bench.port, 0x1a), 0);
	bench_close(&bench);
}

Test(probe, falls_back_to_the_ten_byte_commands)
{
	struct bench bench;
	struct scripted_lun *lun;
	uint8_t mode[28] = {0, 26, 0, 0x80, 0, 0, 0, 0, 0x08, 18, 0x00};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_OPTICAL, 4096, 33);
	scripted_lun_answer(lun, SCRIPTED_CAPACITY_16, NULL, 0);
	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x08), NULL, 0);
	scripted_lun_answer(lun, SCRIPTED_MODE_10(0x08), mode, sizeof mode);
	bench_probe_one(&bench);
	cr_expect_eq(bench.luns[0].blocks, 33);
	cr_expect(bench.luns[0].write_protected);
	cr_expect_not(bench.luns[0].write_cache);
	cr_expect_not(bench.luns[0].fua);
	bench_close(&bench);
}

Test(probe, takes_the_write_cache_as_on_where_nothing_tells)
{
	struct bench bench;
	struct scripted_lun *lun;

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x08), NULL, 0);
	scripted_lun_answer(lun, SCRIPTED_MODE_10(0x08), NULL, 0);
	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x3f), (uint8_t[4]){3, 0, 0x80, 0}, 4);
	bench_probe_one(&bench);
	cr_expect(bench.luns[0].write_cache);
	cr_expect(bench.luns[0].write_protected, "the header alone is enough for this");
	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x3f), NULL, 0);
	bench_probe_one(&bench);
	cr_expect(bench.luns[0].write_cache);
	cr_expect_not(bench.luns[0].write_protected);
	bench_close(&bench);
}

Test(probe, finds_the_caching_page_behind_descriptors_and_other_pages)
{
	struct bench bench;
	struct scripted_lun *lun;
	uint8_t mode[] = {27, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0x4a, 1, 0, 2, 9, 9, /* a subpage */
	    0x01, 2, 0, 0, 0x88, 4, 0x00, 0, 0, 0};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x08), mode, sizeof mode);
	bench_probe_one(&bench);
	cr_expect_not(bench.luns[0].write_cache);
	bench_close(&bench);
}

Test(probe, asks_only_for_pages_that_the_list_names)
{
	struct bench bench;
	struct scripted_lun *lun;

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_VPD(0), (uint8_t[]){0, 0, 0, 2, 0, 0x80}, 6);
	bench_probe_one(&bench);
	cr_expect_eq(scripted_port_count(bench.port, 0x12), 3); /* standard, 00h, 80h */
	cr_expect_str_eq(bench.luns[0].serial, "SN00000");
	cr_expect_str_eq(bench.luns[0].wwid, "");
	bench_close(&bench);
}

Test(probe, reads_block_limits_and_that_write_same_unmaps_to_zeros)
{
	struct bench bench;
	struct scripted_lun *lun;
	uint8_t limits[64] = {0, 0xb0, 0, 60}, provisioning[8] = {0, 0xb2, 0, 4, 0, 0x40};
	size_t size;

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	put_be32(limits + 8, 2048);
	put_be64(limits + 36, 65536);
	scripted_lun_answer(lun, SCRIPTED_VPD(0xb0), limits, sizeof limits);
	scripted_lun_answer(lun, SCRIPTED_VPD(0xb2), provisioning, sizeof provisioning);
	bench_probe_one(&bench);
	cr_expect_eq(bench.luns[0].max_transfer, 2048);
	cr_expect_eq(bench.luns[0].max_write_same, 65536);
	cr_expect_not(bench.luns[0].unmap_zeroes, "LBPRZ is not there");

	g_autofree uint8_t *capacity = scripted_lun_get(lun, SCRIPTED_CAPACITY_16, &size);
	capacity[14] = 0xc0;
	scripted_lun_answer(lun, SCRIPTED_CAPACITY_16, capacity, size);
	bench_probe_one(&bench);
	cr_expect(bench.luns[0].unmap_zeroes);
	bench_close(&bench);
}

Test(probe, prefers_naa_to_eui_to_t10_and_only_of_the_logical_unit)
{
	struct bench bench;
	struct scripted_lun *lun;
	uint8_t page[] = {0, 0x83, 0, 52, 2, 0x01, 0, 16, 'I', 'E', 'T', ' ', ' ', ' ', ' ', ' ',
	    'a', ' ', ' ', 'b', '\n', 'c', ' ', ' ', 1, 0x13, 0, 8, 1, 1, 1, 1, 1, 1, 1,
	    1,                                                 /* NAA of the port */
	    1, 0x02, 0, 8, 0x02, 0x46, 0x8a, 0xce, 0, 0, 0, 1, /* EUI-64 */
	    1, 0x03, 0, 4, 0x60, 0, 0, 0};                     /* NAA of a wrong length */

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_VPD(0x83), page, sizeof page);
	bench_probe_one(&bench);
	cr_expect_str_eq(bench.luns[0].wwid, "eui.02468ace00000001");
	page[3] = 20; /* the T10 designator alone */
	scripted_lun_answer(lun, SCRIPTED_VPD(0x83), page, sizeof page);
	bench_probe_one(&bench);
	cr_expect_str_eq(bench.luns[0].wwid, "t10.IET_a_b0ac");
	bench_close(&bench);
}

static void expect_fault(uint64_t last, uint32_t block_size, const char *fault)
{
	struct bench bench;
	struct scripted_lun *lun;
	uint8_t capacity[32] = {0};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	put_be64(capacity, last);
	put_be32(capacity + 8, block_size);
	scripted_lun_answer(lun, SCRIPTED_CAPACITY_16, capacity, sizeof capacity);
	bench_probe_one(&bench);
	cr_expect_str_eq(bench.luns[0].fault, fault);
	cr_expect_eq(bench.luns[0].blocks, 0);
	bench_close(&bench);
}

Test(probe, capacities_that_no_file_can_have_are_faults)
{
	expect_fault(
	    99, 520, "its blocks have 520 bytes; lunfs can use powers of two from 512 to 65536");
	expect_fault(
	    99, 256, "its blocks have 256 bytes; lunfs can use powers of two from 512 to 65536");
	expect_fault(99, 1 << 17,
	    "its blocks have 131072 bytes; lunfs can use powers of two from 512 to 65536");
	expect_fault(0, 0, "it has no capacity");
	expect_fault(UINT64_MAX, 512,
	    "it reports a last block of 18446744073709551615, which no file can hold");
	expect_fault((uint64_t)INT64_MAX / 512, 512,
	    "it reports a last block of 18014398509481983, which no file can hold");
}

Test(probe, other_devices_are_listed_and_not_touched)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 0, SCSI_TYPE_ARRAY, 512, 8);
	scripted_port_add(bench.port, 1, SCSI_TYPE_TAPE, 512, 8);
	bench_probe(&bench, -1);
	cr_assert_eq(bench.count, 2);
	cr_expect_str_eq(scsi_type_name(bench.luns[1].type), "tape");
	cr_expect_not(scsi_type_is_block(bench.luns[0].type));
	cr_expect_eq(scripted_port_count(bench.port, 0x00), 0);
	cr_expect_eq(
	    scripted_port_count(bench.port, 0x25) + scripted_port_count(bench.port, 0x9e), 0);
	bench_close(&bench);
}

Test(probe, a_lost_connection_ends_it_once_every_command_is_back)
{
	struct bench bench;

	bench_open(&bench);
	for (uint16_t i = 0; i < 40; i++)
		scripted_port_add(bench.port, i, SCSI_TYPE_DISK, 512, 8);
	scripted_port_rule(bench.port,
	    (struct scripted_rule){.opcode = 0x00, .skip = 5, .times = 1, .error = -EIO});
	scripted_port_rule(
	    bench.port, (struct scripted_rule){.opcode = 0x00, .times = 2, .status = SAM_BUSY});
	bench_probe(&bench, -1);
	cr_expect_eq(bench.count, 0);
	cr_assert_not_null(bench.error);
	cr_expect_str_eq(bench.error, "the connection was lost while the target was asked for its "
	                              "LUNs: TEST UNIT READY: no answer "
	                              "(Input/output error)");
	bench_close(&bench);
}

Test(probe, a_lost_connection_ends_report_luns_too)
{
	struct bench bench;

	bench_open(&bench);
	bench.port->away = true;
	bench_probe(&bench, -1);
	cr_assert_not_null(bench.error);
	cr_expect(strstr(bench.error, "REPORT LUNS") != NULL);
	bench_close(&bench);
}

Test(probe, survives_twenty_thousand_damaged_answers, .timeout = 120)
{
	struct bench bench;
	uint32_t seed = test_seed("probe");
	unsigned answers = 0;

	bench_open(&bench);
	for (uint16_t i = 0; i < 8; i++)
		scripted_port_add(
		    bench.port, i * 50, i == 3 ? SCSI_TYPE_CD : SCSI_TYPE_DISK, 512, 4096);
	bench.port->mutate = g_rand_new_with_seed(seed);
	while (answers < 20000) {
		bench.probe = probe_start(&bench.port->port, bench.loop, -1, bench_done, &bench);
		loop_run(bench.loop);
		for (unsigned i = 0; i < bench.count; i++) {
			const struct lun_info *info = &bench.luns[i];

			cr_assert(
			    info->fault[0] || info->blocks <= INT64_MAX / 512, "seed %u", seed);
			cr_assert(g_str_is_ascii(info->wwid) && g_str_is_ascii(info->serial),
			    "seed %u", seed);
		}
		answers += bench.port->seen->len;
		g_array_set_size(bench.port->seen, 0);
		bench_clear(&bench);
	}
	bench_close(&bench);
}

Test(probe, believes_no_page_beyond_the_length_that_the_target_gives)
{
	struct bench bench;
	struct scripted_lun *lun;
	uint8_t mode[24] = {
	    3, 0, 0, 0, 0x08, 18, 0x00}; /* the header alone; what follows is left over */

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x08), mode, sizeof mode);
	bench_probe_one(&bench);
	cr_expect(bench.luns[0].write_cache);
	bench_close(&bench);
}
