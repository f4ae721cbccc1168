/*
 * scsi.c - what the LUN answers to commands: statuses and sense that are tried again, with limits
 * and pauses, and those that are not (SAM-5, 5.3; SPC-4, 4.5; RFC 7143, 11.4.7.2). Reservations
 * and LUN numbers: scsi_luns.c.
 */
#include "scsi_play.h"

TestSuite(scsi, .timeout = 120);

/* ---- BUSY and its like ---- */

/* Five times this answer, then another: with pauses of 10, 20, 40 ... ms at least. */
static void is_asked_again_later(uint8_t status)
{
	const enum play_op ops[] = {PLAY_READ, PLAY_WRITE, PLAY_SYNC};
	struct play play = play_new(NULL);

	for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
		play_rule(&play, ops[i], (struct script_rule){.times = 5, .status = status});
		cr_assert_eq(play_do(&play, ops[i]), 0);
		cr_assert_eq(play_count(&play, ops[i]), 6);
		for (unsigned k = 1; k < 6; k++)
			cr_assert_geq(play_gap_ms(&play, ops[i], k), (10 << (k - 1)) - 1,
			    "op %u, try %u", i, k);
	}
	play_end(&play);
}

Test(scsi, a_busy_unit_is_asked_again_after_growing_pauses__sam5_5_3_1)
{
	is_asked_again_later(SAM_BUSY);
}

Test(scsi, a_full_task_set_is_left_alone_for_growing_pauses__sam5_5_3_1)
{
	is_asked_again_later(SAM_TASK_SET_FULL);
}

Test(scsi, an_aca_condition_is_waited_for__sam5_5_3_1)
{
	is_asked_again_later(SAM_ACA_ACTIVE);
}

Test(scsi, a_unit_that_becomes_ready_is_waited_for__spc4_4_5_6)
{
	const uint8_t passing[] = {0x01, 0x04, 0x07, 0x0a, 0x14, 0x1a, 0x1b, 0x1d};
	struct play play = play_new(NULL);

	for (size_t i = 0; i < sizeof passing; i++) {
		play_sense(&play, PLAY_READ, 2, (struct sense){SENSE_NOT_READY, 4, passing[i]});
		cr_assert_eq(play_do(&play, PLAY_READ), 0, "04h/%02Xh", passing[i]);
		cr_assert_eq(play_count(&play, PLAY_READ), 3);
		cr_assert_geq(play_gap_ms(&play, PLAY_READ, 1), 9);
		cr_assert_geq(play_gap_ms(&play, PLAY_READ, 2), 19);
	}
	play_end(&play);
}

Test(scsi, a_unit_that_will_not_be_ready_by_itself_fails_at_once__spc4_4_5_6)
{
	/* start command required, manual intervention required, standby, unavailable */
	const uint8_t lasting[] = {0x02, 0x03, 0x0b, 0x0c};
	struct play play = play_new(NULL);

	for (size_t i = 0; i < sizeof lasting; i++) {
		play_sense(&play, PLAY_READ, 0, (struct sense){SENSE_NOT_READY, 4, lasting[i]});
		cr_assert_eq(play_do(&play, PLAY_READ), EIO, "04h/%02Xh", lasting[i]);
		cr_assert_eq(play_count(&play, PLAY_READ), 1);
	}
	play_sense(&play, PLAY_READ, 0, (struct sense){SENSE_NOT_READY, 0x3a, 0});
	cr_assert_eq(play_do(&play, PLAY_READ), ENOMEDIUM);
	cr_assert_eq(play_count(&play, PLAY_READ), 1);
	play_end(&play);
}

/* ---- ABORTED COMMAND and its like ---- */

/* So often it is tried again, and no more; from the fourth time on after growing pauses. */
static void is_tried_ten_times(enum play_op op, struct script_rule rule)
{
	struct play play = play_new(NULL);

	rule.times = 10;
	play_rule(&play, op, rule);
	cr_assert_eq(play_do(&play, op), 0);
	cr_assert_eq(play_count(&play, op), 11);
	for (unsigned k = 4; k < 11; k++)
		cr_assert_geq(play_gap_ms(&play, op, k), MIN(10 << (k - 4), 500) - 1, "try %u", k);
	rule.times = 0;
	play_rule(&play, op, rule);
	cr_assert_eq(play_do(&play, op), EIO);
	cr_assert_eq(play_count(&play, op), 11, "no more often");
	play_end(&play);
}

static struct script_rule sense_rule(uint8_t key, uint8_t asc, uint8_t ascq)
{
	return (struct script_rule){.sense = {key, asc, ascq}};
}

Test(scsi, an_aborted_read_is_tried_ten_times_with_pauses__spc4_4_5_6)
{
	is_tried_ten_times(PLAY_READ, sense_rule(SENSE_ABORTED_COMMAND, 0x4b, 0));
}

Test(scsi, a_write_with_a_crc_error_is_tried_ten_times_with_pauses__rfc7143_11_4_7_2)
{
	is_tried_ten_times(PLAY_WRITE, sense_rule(SENSE_ABORTED_COMMAND, 0x47, 0x05));
}

Test(scsi, an_aborted_flush_is_tried_ten_times_with_pauses__spc4_4_5_6)
{
	is_tried_ten_times(PLAY_SYNC, sense_rule(SENSE_ABORTED_COMMAND, 0x44, 0));
}

Test(scsi, an_aborted_task_is_tried_ten_times_with_pauses__sam5_5_3_1)
{
	is_tried_ten_times(PLAY_WRITE, (struct script_rule){.status = SAM_TASK_ABORTED});
}

Test(scsi, every_error_of_the_transport_is_tried_again__rfc7143_11_4_7_2)
{
	/* parity and CRC errors, unsolicited data, SNACK rejected, overlapped commands */
	static const uint8_t codes[][2] = {{0x47, 0x00}, {0x47, 0x01}, {0x47, 0x02}, {0x47, 0x03},
	    {0x47, 0x04}, {0x47, 0x05}, {0x0c, 0x0c}, {0x0c, 0x0d}, {0x11, 0x13}, {0x4e, 0x00}};
	const enum play_op ops[] = {PLAY_READ, PLAY_WRITE, PLAY_SYNC};
	struct play play = play_new(NULL);

	for (unsigned i = 0; i < G_N_ELEMENTS(codes) * G_N_ELEMENTS(ops); i++) {
		const uint8_t *code = codes[i / G_N_ELEMENTS(ops)];
		enum play_op op = ops[i % G_N_ELEMENTS(ops)];

		play_sense(&play, op, 2, (struct sense){SENSE_ABORTED_COMMAND, code[0], code[1]});
		cr_assert_eq(play_do(&play, op), 0, "%02Xh/%02Xh", code[0], code[1]);
		cr_assert_eq(play_count(&play, op), 3, "%02Xh/%02Xh", code[0], code[1]);
	}
	play_end(&play);
}

/* ---- UNIT ATTENTION ---- */

Test(scsi, a_unit_attention_of_any_kind_costs_a_read_or_write_nothing__spc4_4_5_6)
{
	static const uint8_t codes[][2] = {{0x28, 0x00}, {0x29, 0x00}, {0x29, 0x01}, {0x29, 0x02},
	    {0x29, 0x03}, {0x29, 0x04}, {0x29, 0x07}, {0x2a, 0x00}, {0x2a, 0x01}, {0x2a, 0x02},
	    {0x2a, 0x06}, {0x2a, 0x09}, {0x2f, 0x00}, {0x3f, 0x01}, {0x3f, 0x03}, {0x3f, 0x0e},
	    {0x38, 0x07}, {0x5a, 0x00}, {0x5b, 0x01}, {0x5d, 0x00}, {0x80, 0x17}};
	const enum play_op ops[] = {PLAY_READ, PLAY_WRITE, PLAY_SYNC};
	struct play play = play_new(NULL);

	for (unsigned i = 0; i < G_N_ELEMENTS(codes) * G_N_ELEMENTS(ops); i++) {
		const uint8_t *code = codes[i / G_N_ELEMENTS(ops)];
		enum play_op op = ops[i % G_N_ELEMENTS(ops)];

		play_sense(&play, op, 1, (struct sense){SENSE_UNIT_ATTENTION, code[0], code[1]});
		cr_assert_eq(play_do(&play, op), 0, "%02Xh/%02Xh", code[0], code[1]);
		cr_assert_geq(play_count(&play, op), 2, "%02Xh/%02Xh", code[0], code[1]);
	}
	play_end(&play);
}

Test(scsi, unit_attentions_without_end_fail_a_command_in_the_end__spc4_4_5_6)
{
	is_tried_ten_times(PLAY_READ, sense_rule(SENSE_UNIT_ATTENTION, 0x2a, 0x02));
}

Test(scsi, resets_without_end_fail_a_write_after_some_tries_and_it_works_again_after__spc4_4_5_6)
{
	struct play play = play_new(NULL);

	play_sense(&play, PLAY_WRITE, 0, (struct sense){SENSE_UNIT_ATTENTION, 0x29, 0});
	cr_assert_eq(play_do(&play, PLAY_WRITE), EIO);
	cr_assert_leq(play_count(&play, PLAY_WRITE), 30, "with a limit");
	script_target_forget_rules(play.scene.script);
	play_await_works(&play);
	play_end(&play);
}

/* ---- what is not tried again ---- */

Test(scsi, a_recovered_error_is_success_and_not_sent_again__spc4_4_5_6)
{
	struct play play = play_new(NULL);

	/* of a SYNCHRONIZE CACHE: the target executes nothing that it answers by a rule */
	play_sense(&play, PLAY_SYNC, 0, (struct sense){SENSE_RECOVERED_ERROR, 0x17, 0x01});
	cr_assert_eq(play_do(&play, PLAY_SYNC), 0);
	cr_assert_eq(play_count(&play, PLAY_SYNC), 1);
	play_end(&play);
}

Test(scsi, an_error_that_stays_is_told_at_once_as_what_it_is__spc4_4_5_6)
{
	static const struct {
		enum play_op op;
		struct sense sense;
		int error;
	} all[] = {
	    {PLAY_READ, {SENSE_MEDIUM_ERROR, 0x11, 0}, EIO},
	    {PLAY_WRITE, {SENSE_MEDIUM_ERROR, 0x0c, 0}, EIO},
	    {PLAY_READ, {SENSE_HARDWARE_ERROR, 0x44, 0}, EIO},
	    {PLAY_WRITE, {SENSE_DATA_PROTECT, 0x27, 0x07}, ENOSPC},
	    {PLAY_WRITE, {SENSE_DATA_PROTECT, 0x27, 0x00}, EROFS},
	    {PLAY_READ, {SENSE_BLANK_CHECK, 0, 0}, EIO},
	    {PLAY_WRITE, {SENSE_VOLUME_OVERFLOW, 0, 0}, ENOSPC},
	    {PLAY_READ, {SENSE_ILLEGAL_REQUEST, 0x24, 0}, EIO},
	};
	struct play play = play_new(NULL);

	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
		play_sense(&play, all[i].op, 0, all[i].sense);
		cr_assert_eq(play_do(&play, all[i].op), all[i].error, "%x %02Xh/%02Xh",
		    all[i].sense.key, all[i].sense.asc, all[i].sense.ascq);
		cr_assert_eq(play_count(&play, all[i].op), 1);
	}
	play_end(&play);
}

/* ---- deferred errors ---- */

static bool defer(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	if ((pdu->data[0] & 0x3f) == 0x21 && pdu->len >= 48 + 20)
		pdu->data[48 + 2] = *(const uint8_t *)own;
	return true;
}

/* All sense has this response code from now on: 71h, a deferred error. */
static void play_defer(struct play *play)
{
	static uint8_t code = 0x71;

	script_target_hook(
	    play->scene.script, &(struct script_hooks){.leaves = defer, .own = &code});
}

Test(scsi, a_deferred_error_has_the_write_before_it_sent_again__spc4_4_5_7)
{
	const enum play_op ops[] = {PLAY_READ, PLAY_WRITE, PLAY_SYNC};
	struct play play = play_new(NULL);

	play_defer(&play);
	for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
		cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
		unsigned first = script_target_records(play.scene.script);
		uint64_t earlier = play.offset;
		play_sense(&play, ops[i], 1, (struct sense){SENSE_MEDIUM_ERROR, 0x0c, 2});
		cr_assert_eq(play_do(&play, ops[i]), 0);
		cr_assert_eq(fsync(play.fd), 0);
		cr_assert(play_wrote(&play, first, earlier), "op %u: sent again", i);
		play_must_be_stable(&play, earlier);
	}
	play_end(&play);
}

Test(scsi, a_deferred_recovered_error_is_not_taken_for_success__spc4_4_5_7)
{
	struct play play = play_new(NULL);

	play_defer(&play);
	play_sense(&play, PLAY_WRITE, 1, (struct sense){SENSE_RECOVERED_ERROR, 0x0c, 1});
	cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
	cr_assert_eq(play_count(&play, PLAY_WRITE), 2);
	cr_assert_eq(fsync(play.fd), 0);
	play_must_be_stable(&play, play.offset);
	play_sense(&play, PLAY_READ, 1, (struct sense){SENSE_RECOVERED_ERROR, 0x17, 1});
	cr_assert_eq(play_do(&play, PLAY_READ), 0, "its data is what was written");
	cr_assert_eq(play_count(&play, PLAY_READ), 2);
	play_end(&play);
}

Test(scsi, deferred_errors_without_end_make_fsync_fail__spc4_4_5_7)
{
	struct play play = play_new(NULL);

	play_defer(&play);
	cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
	play_sense(&play, PLAY_SYNC, 0, (struct sense){SENSE_MEDIUM_ERROR, 0x0c, 2});
	cr_assert_eq(play_do(&play, PLAY_SYNC), EIO);
	cr_assert_leq(play_count(&play, PLAY_SYNC), 30, "with a limit");
	script_target_forget_rules(play.scene.script);
	play_await_works(&play);
	play_end(&play);
}

/* ---- before there is a file ---- */

Test(scsi, a_unit_that_is_busy_at_first_is_mounted_all_the_same__sam5_5_3_1)
{
	const int opcodes[] = {0xa0, 0x12, 0x00, 0x9e, 0x1a};
	const struct script_rule rules[] = {{.status = SAM_BUSY}, {.status = SAM_TASK_SET_FULL},
	    {.sense = {SENSE_ABORTED_COMMAND, 0x47, 5}},
	    {.sense = {SENSE_UNIT_ATTENTION, 0x3f, 3}}};
	struct play play = play_unmounted();

	for (unsigned i = 0; i < G_N_ELEMENTS(opcodes) * G_N_ELEMENTS(rules); i++) {
		struct script_rule rule = rules[i % G_N_ELEMENTS(rules)];

		rule.opcode = opcodes[i / G_N_ELEMENTS(rules)];
		rule.times = 2;
		script_target_rule(play.scene.script, rule);
	}
	play_mount(&play, NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(opcodes); i++)
		cr_assert_geq(script_target_command_count(play.scene.script, opcodes[i]), 9,
		    "%02Xh", (unsigned)opcodes[i]);
	cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
	play_end(&play);
}
