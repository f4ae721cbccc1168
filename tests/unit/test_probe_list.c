/*
 * test_probe_list.c - asking only which LUNs there are, and only some of them what they are.
 */
#include "support/probe_bench.h"

static void bench_list(struct bench *bench)
{
	bench_clear(bench);
	bench_run(bench, probe_list(&bench->port->port, bench->loop, bench_done, bench));
}

static void bench_some(struct bench *bench, const uint16_t *luns, unsigned count)
{
	bench_clear(bench);
	bench_run(
	    bench, probe_some(&bench->port->port, bench->loop, luns, count, bench_done, bench));
}

Test(probe_list, asks_for_the_numbers_and_nothing_else)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 3, SCSI_TYPE_DISK, 512, 8);
	scripted_port_add(bench.port, 300, SCSI_TYPE_DISK, 512, 8);
	bench_list(&bench);
	cr_assert_eq(bench.count, 2);
	cr_expect_eq(bench.luns[0].lun, 3);
	cr_expect_eq(bench.luns[1].lun, 300);
	cr_expect_eq(bench.port->seen->len, 1);
	bench_close(&bench);
}

/* SAM-5, 4.7 */
Test(probe_list, takes_numbers_to_16383_and_leaves_out_what_it_cannot_address)
{
	struct bench bench;
	struct scripted_lun *lun;
	const uint8_t list[8 + 9 * 8] = {
	    0, 0, 0, 72, 0, 0, 0, 0,         /* */
	    0x00, 255, 0, 0, 0, 0, 0, 0,     /* peripheral device */
	    0x41, 0x00, 0, 0, 0, 0, 0, 0,    /* flat space: 256 */
	    0x7f, 0xff, 0, 0, 0, 0, 0, 0,    /* 16383 */
	    0x40, 0x05, 0, 0, 0, 0, 0, 0,    /* 5 */
	    0xc1, 0x01, 0, 0, 0, 0, 0, 0,    /* the well-known unit REPORT LUNS */
	    0xd2, 0, 0x40, 0, 0, 0, 0, 0,    /* extended flat space: 16384 */
	    0x81, 0x02, 0, 0, 0, 0, 0, 0,    /* logical unit addressing */
	    0x01, 0x03, 0, 0, 0, 0, 0, 0,    /* behind bus 1 */
	    0x00, 7, 0x40, 0x01, 0, 0, 0, 0, /* a second level */
	};
	const uint16_t numbers[] = {5, 255, 256, 16383};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, list, sizeof list);
	bench_list(&bench);
	cr_assert_eq(bench.count, G_N_ELEMENTS(numbers));
	for (unsigned i = 0; i < bench.count; i++)
		cr_expect_eq(bench.luns[i].lun, numbers[i]);
	bench_close(&bench);
}

Test(probe, says_why_it_shows_none_where_all_numbers_are_beyond_it)
{
	struct bench bench;
	struct scripted_lun *lun;
	const uint8_t list[16] = {0, 0, 0, 8, 0, 0, 0, 0, 0xd2, 0, 0x40};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, list, sizeof list);
	bench_probe(&bench, -1);
	cr_assert_not_null(bench.error);
	cr_expect_str_eq(bench.error,
	    "1 of the target's LUNs is left out: numbers beyond 16383, and units behind units, "
	    "cannot be addressed");
	bench_close(&bench);
}

Test(probe_list, an_empty_one_is_an_answer)
{
	struct bench bench;
	struct scripted_lun *lun;
	const uint8_t list[8] = {0};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, list, sizeof list);
	bench_list(&bench);
	cr_expect_null(bench.error);
	cr_expect_eq(bench.count, 0);
	bench_close(&bench);
}

Test(safety_13, a_list_whose_data_is_missing_is_no_empty_list)
{
	struct bench bench;
	struct scripted_lun *lun;
	const uint8_t zeros[512 * 8 + 8] = {0};

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, zeros, sizeof zeros);
	bench_list(&bench);
	cr_expect_not_null(bench.error);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, zeros, 4);
	bench_list(&bench);
	cr_expect_not_null(bench.error);
	bench_close(&bench);
}

Test(probe_list, a_target_that_does_not_tell_has_not_told_that_there_is_only_lun_0)
{
	struct bench bench;
	struct scripted_lun *lun;

	bench_open(&bench);
	lun = scripted_port_add(bench.port, 0, SCSI_TYPE_DISK, 512, 8);
	scripted_lun_answer(lun, SCRIPTED_REPORT_LUNS, NULL, 0);
	bench_list(&bench);
	cr_expect_not_null(bench.error);
	bench_close(&bench);
}

Test(probe_some, asks_those_and_leaves_out_who_is_not_there)
{
	struct bench bench;
	const uint16_t luns[] = {2, 5, 9};

	bench_open(&bench);
	for (uint16_t lun = 0; lun < 10; lun++)
		scripted_port_add(bench.port, lun, SCSI_TYPE_DISK, 512, 8);
	bench_some(&bench, luns, G_N_ELEMENTS(luns));
	cr_assert_eq(bench.count, 3);
	cr_expect_eq(bench.luns[1].lun, 5);
	cr_expect_eq(bench.luns[1].blocks, 8);
	bench_some(&bench, (uint16_t[]){4, 77}, 2);
	cr_assert_eq(bench.count, 1);
	cr_expect_eq(bench.luns[0].lun, 4);
	bench_some(&bench, (uint16_t[]){77}, 1);
	cr_expect_eq(bench.count, 0);
	cr_expect_null(bench.error);
	for (guint i = 0; i < bench.port->seen->len; i++)
		cr_expect_neq(g_array_index(bench.port->seen, struct scripted_seen, i).lun, 3);
	bench_close(&bench);
}

Test(probe_some, tells_whose_attention_it_heard_and_that_the_list_changed)
{
	struct bench bench;

	bench_open(&bench);
	scripted_port_add(bench.port, 6, SCSI_TYPE_DISK, 512, 8);
	scripted_port_sense(bench.port, 0x00, 1, (struct sense){SENSE_UNIT_ATTENTION, 0x3f, 0x0e});
	bench_some(&bench, (uint16_t[]){6}, 1);
	cr_expect(bench.news.luns);
	cr_expect_eq(bench.news.lun, 6);
	bench_close(&bench);
}
