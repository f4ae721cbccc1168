/*
 * scsi_luns.c - reservations of another host (SPC-4, 5.13), numbers of LUNs (SAM-5, 4.7), and what
 * 'lunfs status' tells of a session.
 */
#include "scsi_play.h"

#include <glib.h>

TestSuite(scsi_luns, .timeout = 120);

/* ---- reservations ---- */

static void play_conflict(struct play *play, enum play_op op, unsigned times)
{
	play_rule(
	    play, op, (struct script_rule){.times = times, .status = SAM_RESERVATION_CONFLICT});
}

static void must_be_reserved(struct play *play, const char *what, uint64_t conflicts)
{
	cr_assert_str_eq(script_scene_string(&play->scene, "reserved"), what);
	cr_assert_eq(script_scene_number(&play->scene, "reservation_conflicts"), conflicts);
}

Test(scsi_luns, a_reservation_conflict_is_ebade_at_once_and_never_sent_again__sam5_5_3_1)
{
	const enum play_op ops[] = {PLAY_READ, PLAY_WRITE, PLAY_SYNC};
	struct play play = play_new(NULL);

	for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
		play_conflict(&play, ops[i], 0);
		cr_assert_eq(play_do(&play, ops[i]), EBADE, "op %u", i);
		cr_assert_eq(play_count(&play, ops[i]), 1, "op %u", i);
		script_target_forget_rules(play.scene.script);
		cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
		cr_assert_eq(play_do(&play, PLAY_READ), 0);
		fsync(play.fd); /* tells of what was lost by the last one */
	}
	play_end(&play);
}

Test(scsi_luns, status_tells_of_a_reservation_until_it_is_over__spc4_5_13)
{
	struct play play = play_new(NULL);

	must_be_reserved(&play, "no", 0);
	cr_assert_str_eq(script_scene_string(&play.scene, "reserved_since"), "");
	play_conflict(&play, PLAY_WRITE, 2);
	cr_assert_eq(play_do(&play, PLAY_WRITE), EBADE);
	must_be_reserved(&play, "writing", 1);
	cr_assert_eq(play_do(&play, PLAY_READ), 0);
	must_be_reserved(&play, "writing", 1);
	char *said = must_lunfs(play.scene.stage, "status %s", play.scene.mnt);
	cr_assert(strstr(said, "    reserved by another host (for writing): RESERVATION CONFLICT "
	                       "since 20"),
	    "%s", said);
	cr_assert(strstr(said, "Z, 1 in all\n"), "%s", said);
	cr_assert_eq(play_do(&play, PLAY_WRITE), EBADE);
	must_be_reserved(&play, "writing", 2);
	cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
	must_be_reserved(&play, "no", 2);
	cr_assert_str_eq(script_scene_string(&play.scene, "reserved_since"), "");
	said = must_lunfs(play.scene.stage, "status %s", play.scene.mnt);
	cr_assert(strstr(said, "    RESERVATION CONFLICT 2 times; not reserved now\n"), "%s", said);
	play_end(&play);
}

/* Buffered: the conflict is met by the write-out. */
static void play_write_buffered(struct play *play, const char *options)
{
	*play = play_unmounted();
	script_scene_mount(&play->scene, options);
	play->fd = must_open(play->scene.file, O_RDWR);
	play->bytes = aligned_buffer(PLAY_LENGTH);
	play->first = script_target_records(play->scene.script);
	play_conflict(play, PLAY_WRITE, 0);
	pattern_fill(play->bytes, PLAY_LENGTH, 0, 1);
	must_pwrite(play->fd, play->bytes, PLAY_LENGTH, 0);
}

/* Neither now nor when the other host has let go. */
static void must_stay_unwritten(struct play *play)
{
	static const unsigned char zeros[PLAY_LENGTH];

	cr_assert_eq(play_count(play, PLAY_WRITE), 1);
	cr_assert_eq(script_scene_number(&play->scene, "reservation_conflicts"), 1);
	script_target_forget_rules(play->scene.script);
	cr_assert_eq(fsync(play->fd), 0, "it is told once");
	script_target_drop(play->scene.script, SCRIPT_RST);
	script_scene_await_login(&play->scene, 2);
	int fd = must_open(play->scene.file, O_RDONLY | O_DIRECT);
	must_pread(fd, play->bytes, PLAY_LENGTH, 0);
	cr_assert_arr_eq(play->bytes, zeros, PLAY_LENGTH);
	close(fd);
	cr_assert_eq(play_count(play, PLAY_WRITE), 1);
	script_scene_must_be(&play->scene, SCRIPT_VOLATILE, zeros, PLAY_LENGTH, 0);
}

Test(scsi_luns, fsync_tells_that_buffered_writes_met_a_reservation__sam5_5_3_1)
{
	struct play play;

	play_write_buffered(&play, NULL);
	cr_assert_eq(fsync(play.fd) == 0 ? 0 : errno, EBADE);
	must_stay_unwritten(&play);
	play_end(&play);
}

Test(scsi_luns, close_tells_that_buffered_writes_met_a_reservation__sam5_5_3_1)
{
	struct play play;

	play_write_buffered(&play, NULL);
	int copy = dup(play.fd);
	cr_assert_eq(close(copy) == 0 ? 0 : errno, EBADE);
	must_stay_unwritten(&play);
	play_end(&play);
}

Test(scsi_luns, fsync_tells_of_a_reservation_that_a_write_out_met_before_it__sam5_5_3_1)
{
	struct play play;

	play_write_buffered(&play, "dirty_expire=1s");
	cr_assert(script_target_await(play.scene.script, SCRIPT_WRITE, 1, 20));
	while (script_scene_number(&play.scene, "reservation_conflicts") == 0)
		g_usleep(1000);
	must_be_reserved(&play, "writing", 1);
	cr_assert_eq(fsync(play.fd) == 0 ? 0 : errno, EBADE);
	must_stay_unwritten(&play);
	play_end(&play);
}

Test(scsi_luns, what_was_acknowledged_before_a_conflict_is_not_sent_again__spc4_5_13)
{
	struct play play = play_new(NULL);

	cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
	uint64_t before = play.offset;
	unsigned first = script_target_records(play.scene.script);
	play_conflict(&play, PLAY_WRITE, 1);
	cr_assert_eq(play_do(&play, PLAY_WRITE), EBADE);
	script_target_reboot(
	    play.scene.script, (struct script_reboot){.how = SCRIPT_RST, .closed_ms = 100});
	script_scene_await_login(&play.scene, 2);
	cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
	cr_assert_eq(fsync(play.fd) == 0 ? 0 : errno, EBADE, "the first is lost");
	cr_assert_not(play_wrote(&play, first, before), "it could undo the other host's");
	play_end(&play);
}

Test(scsi_luns, of_a_unit_that_is_reserved_when_it_is_mounted_there_is_a_file__spc4_5_13)
{
	struct play play = play_unmounted();

	/* exclusive access: INQUIRY and READ CAPACITY alone are allowed */
	for (unsigned i = 0; i < 5; i++)
		script_target_rule(play.scene.script,
		    (struct script_rule){
		        .opcode = (const int[]){0x00, 0x1a, 0x5a, SCRIPT_READ, SCRIPT_WRITE}[i],
		        .status = SAM_RESERVATION_CONFLICT});
	play_mount(&play, NULL);
	cr_assert_eq(lseek(play.fd, 0, SEEK_END), MIB(4));
	cr_assert_str_eq(script_scene_string(&play.scene, "reserved"), "all");
	cr_assert_eq(play_do(&play, PLAY_READ), EBADE);
	cr_assert_eq(play_do(&play, PLAY_WRITE), EBADE);
	script_target_forget_rules(play.scene.script);
	cr_assert_eq(play_do(&play, PLAY_WRITE), 0);
	cr_assert_eq(play_do(&play, PLAY_READ), 0);
	cr_assert_str_eq(script_scene_string(&play.scene, "reserved"), "no");
	play_end(&play);
}

Test(scsi_luns, of_a_unit_whose_reservation_hides_its_capacity_the_reason_is_told__spc4_5_13)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);

	script_target_add_lun(target, 1, MIB(1), 512);
	script_target_rule(
	    target, (struct script_rule){.opcode = 0x9e, .status = SAM_RESERVATION_CONFLICT});
	struct result *result = lunfs(stage, "mount iscsi://127.0.0.1:%u/" SCENE_IQN "/1 %s",
	    script_target_port(target), stage_directory(stage, "mnt", 0));
	cr_assert_neq(result->status, 0);
	cr_assert_eq(count_words(result->err, "\n"), 1, "one line: %s", result->err);
	cr_assert(strstr(result->err, "another host has reserved it"), "%s", result->err);
	cr_assert(
	    strstr(result->err, "READ CAPACITY(16): RESERVATION CONFLICT"), "%s", result->err);
	script_target_stop(target);
}

Test(scsi_luns, io_behind_a_new_login_meets_the_reservation_and_does_not_wait__spc4_5_13)
{
	struct play play = play_new(NULL);

	script_target_drop(play.scene.script, SCRIPT_RST);
	for (unsigned i = 0; i < 5; i++)
		script_target_rule(play.scene.script,
		    (struct script_rule){
		        .opcode = (const int[]){0x00, 0x1a, 0x9e, SCRIPT_READ, SCRIPT_WRITE}[i],
		        .status = SAM_RESERVATION_CONFLICT});
	script_scene_await_login(&play.scene, 2);
	cr_assert_eq(play_do(&play, PLAY_READ), EBADE);
	cr_assert_eq(play_do(&play, PLAY_WRITE), EBADE);
	play_end(&play);
}

/* ---- numbers ---- */

/* The LUN field of every SCSI Command, Data-Out and task management PDU from pdu first on. */
static void must_only_name(struct script_target *target, unsigned first, uint16_t field)
{
	struct script_traffic pdu;
	unsigned commands = 0, data_outs = 0;

	for (; script_traffic_get(target, first, &pdu); first++) {
		uint8_t opcode = pdu.header[0] & 0x3f;

		if (!pdu.to_target || (opcode != 0x01 && opcode != 0x02 && opcode != 0x05))
			continue;
		cr_assert_eq(get_be16(pdu.header + 8), field, "opcode %02Xh", opcode);
		cr_assert_eq(get_be32(pdu.header + 10) | get_be16(pdu.header + 14), 0);
		commands += opcode == 0x01;
		data_outs += opcode == 0x05;
	}
	cr_assert(commands > 0 && data_outs > 0, "%u commands, %u Data-Out", commands, data_outs);
}

static const struct {
	unsigned lun;
	uint16_t field;
} numbers[] = {{0, 0x0000}, {1, 0x0001}, {255, 0x00ff}, {256, 0x4100}, {16383, 0x7fff}};

Test(scsi_luns, numbers_to_16383_are_addressed_as_the_standard_says__sam5_4_7)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);
	unsigned char *bytes = aligned_buffer(KIB(64)), *found = aligned_buffer(KIB(64));

	/* every byte of a WRITE is asked for */
	script_target_set(
	    target, &(struct script_parameters){.initial_r2t = true, .no_immediate_data = true});
	for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++)
		script_target_add_lun(target, numbers[i].lun, MIB(1), 512);
	char *mnt = must_mount_lunfs(stage,
	    text(stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, script_target_port(target)),
	    "cache=none");
	for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
		char *file = text(stage, "%s/lun%u.img", mnt, numbers[i].lun);
		int fd = must_open(file, O_RDWR | O_DIRECT);
		unsigned first = script_traffic_count(target);

		pattern_fill(bytes, KIB(64), 0, numbers[i].lun);
		must_pwrite(fd, bytes, KIB(64), 0);
		must_pread(fd, found, KIB(64), 0);
		cr_assert_arr_eq(found, bytes, KIB(64));
		cr_assert_eq(fsync(fd), 0);
		must_only_name(target, first, numbers[i].field);
		cr_assert(script_target_stable(target, numbers[i].lun, 0, found, KIB(64)));
		cr_assert_arr_eq(found, bytes, KIB(64));
		close(fd);
	}
	char *said = must_lunfs(stage, "status %s", mnt);
	cr_assert(strstr(said, "lun16383.img") && strstr(said, "lun256.img"), "%s", said);
	must_umount(stage, mnt);
	script_target_must_not_complain(target);
	script_target_stop(target);
}

Test(scsi_luns, a_url_may_name_16383_and_nothing_beyond__sam5_4_7)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);

	script_target_add_lun(target, 16383, MIB(1), 512);
	script_target_add_lun(target, 2, MIB(1), 512);
	char *url = text(stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, script_target_port(target));
	char *mnt = must_mount_lunfs(stage, text(stage, "%s/16383", url), NULL);
	char *listed = must(stage, "ls %s", mnt);
	cr_assert(strstr(listed, "lun16383.img") && !strstr(listed, "lun2.img"), "%s", listed);
	must_umount(stage, mnt);
	struct result *result = lunfs(stage, "mount %s/16384 %s", url, mnt);
	cr_assert_neq(result->status, 0);
	cr_assert_eq(count_words(result->err, "\n"), 1, "one line: %s", result->err);
	cr_assert(strstr(result->err, "LUN from 0 to 16383"), "%s", result->err);
	script_target_stop(target);
}

static bool list_more(struct script_hook *hook, GByteArray *pdu, void *own)
{
	/* a well-known unit, one at a second level, an extended flat number of 16384 */
	static const uint8_t more[] = {
	    0xc1, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0x40, 1, 0, 0, 0, 0, 0xd2, 0, 0x40, 0, 0, 0, 0, 0};
	const uint8_t *header = pdu->data;

	(void)hook;
	(void)own;
	/* the answer to REPORT LUNS: one entry of 8 bytes behind a length of 8 */
	if ((header[0] & 0x3f) != 0x25 || pdu->len != 48 + 16 || get_be32(header + 48) != 8)
		return true;
	put_be32(pdu->data + 48, 8 + sizeof more);
	put_be32(pdu->data + 44, get_be32(pdu->data + 44) - (uint32_t)sizeof more);
	g_byte_array_append(pdu, more, sizeof more);
	return true;
}

Test(scsi_luns, units_that_cannot_be_addressed_are_left_out_with_a_word__sam5_4_7)
{
	struct scene scene = scene_of_script(MIB(1));

	script_target_hook(scene.script, &(struct script_hooks){.leaves = list_more});
	script_scene_mount(&scene, NULL);
	scene_must_say(&scene, "2 of the target's LUNs are left out", 1, 10);
	cr_assert_str_eq(must(scene.stage, "cd %s && echo lun*", scene.mnt), "lun1.img");
	script_scene_umount(&scene);
	script_target_stop(scene.script);
}

/* ---- what was negotiated ---- */

Test(scsi_luns, status_names_every_key_of_the_session_with_its_value__rfc7143_13)
{
	static const char *const keys[] = {"HeaderDigest None", "DataDigest None",
	    "MaxRecvDataSegmentLength 262144", "MaxXmitDataSegmentLength 8192",
	    "FirstBurstLength 16384", "MaxBurstLength 131072", "ImmediateData No", "InitialR2T Yes",
	    "MaxOutstandingR2T 1", "DefaultTime2Wait 3", "DefaultTime2Retain 0",
	    "ErrorRecoveryLevel 0", "MaxConnections 1", "DataPDUInOrder Yes",
	    "DataSequenceInOrder Yes", "TPGT 7", "TargetAlias the nas", "AuthMethod None"};
	struct scene scene = scene_of_script(MIB(1));

	script_target_set(scene.script, &(struct script_parameters){.tag = 7,
	                                    .receive_segment = 8192,
	                                    .first_burst = 16384,
	                                    .max_burst = 131072,
	                                    .initial_r2t = true,
	                                    .no_immediate_data = true,
	                                    .time2wait = 3,
	                                    .alias = "the nas"});
	script_scene_mount(&scene, NULL);
	char *said = must_lunfs(scene.stage, "status %s", scene.mnt);
	for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++)
		cr_assert(
		    strstr(said, text(scene.stage, " %s", keys[i])), "no %s in %s", keys[i], said);
	script_scene_umount(&scene);
	script_target_stop(scene.script);
}

/* ---- addressing ---- */

/* Its own LUN 1 is known by 4001h alone. */
static bool report_flat(struct script_hook *hook, GByteArray *pdu, void *own)
{
	const uint8_t *entry = pdu->data + 48 + 8;

	(void)hook;
	(void)own;
	if ((pdu->data[0] & 0x3f) == 0x25 && pdu->len >= 48 + 16 && get_be32(pdu->data + 48) == 8 &&
	    entry[0] == 0 && entry[1] == 1)
		pdu->data[48 + 8] = 0x40;
	return true;
}

Test(scsi_luns, a_LUN_is_addressed_as_it_is_reported__sam5_4_7)
{
	struct play play = play_unmounted();
	struct script_traffic pdu;
	unsigned reads = 0;

	script_target_hook(play.scene.script, &(struct script_hooks){.leaves = report_flat});
	script_scene_mount(&play.scene, NULL);
	play.fd = must_open(play.scene.file, O_RDONLY | O_DIRECT);
	play.bytes = aligned_buffer(PLAY_LENGTH);
	cr_assert_eq(pread(play.fd, play.bytes, PLAY_LENGTH, 0), PLAY_LENGTH);
	for (unsigned i = 0; script_traffic_find(play.scene.script, &i, true, 0x01, &pdu);) {
		if (pdu.header[32] != 0x88 && pdu.header[32] != 0x28)
			continue;
		cr_assert_arr_eq(pdu.header + 8, "\x40\x01\0\0\0\0\0\0", 8);
		reads++;
	}
	cr_assert_gt(reads, 0);
	play_end(&play);
}
