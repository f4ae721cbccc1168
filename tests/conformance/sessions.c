/*
 * sessions.c - what a session says and is told by, how it is kept alive, identified, and ended
 * (RFC 7143, 4.4.1, 6.3.5, 11.3, 11.5, 11.14, 11.18, 11.19).
 */
#include "full.h"
#include "support/data.h"

#include <string.h>

TestSuite(sessions, .timeout = 120);

static uint32_t itt_of(const struct script_traffic *pdu)
{
	return get_be32(pdu->header + 16);
}

/* ---- command PDUs ---- */

Test(sessions, a_command_tells_direction_and_length_of_its_data__rfc7143_11_3)
{
	struct full full = full_begin(NULL, NULL);

	for (size_t length = 512; length <= MIB(1); length *= 2) {
		unsigned mark = full_mark(&full);

		full_must_read(&full, MIB(1), length);
		struct script_traffic read = full_nth(&full, mark, true, SCSI_COMMAND, 0);
		cr_assert(full_is_read(read.header));
		cr_assert_eq(read.header[1] & 0xe0, 0xc0, "F and R: %02x", read.header[1]);
		mark = full_mark(&full);
		full_must_write(&full, MIB(2), length, 3);
		struct script_traffic write = full_nth(&full, mark, true, SCSI_COMMAND, 0);
		cr_assert(full_is_write(write.header));
		cr_assert_eq(write.header[1] & 0x60, 0x20, "W: %02x", write.header[1]);
	}
	rule_commands_are_framed(full.target);
	full_end(&full);
}

Test(sessions, a_command_has_its_LUN_in_peripheral_or_flat_addressing__rfc7143_11_3)
{
	static const struct {
		unsigned lun;
		uint8_t field[8];
	} units[] = {{0, {0, 0}}, {2, {0, 2}}, {255, {0, 255}}, {256, {0x41, 0}}, {300, {0x41, 44}},
	    {16383, {0x7f, 0xff}}};
	struct full full = full_target(NULL);
	unsigned char *pattern = aligned_buffer(PIECE);

	for (unsigned i = 0; i < G_N_ELEMENTS(units); i++) {
		pattern_fill(pattern, PIECE, 0, units[i].lun);
		script_target_add_lun(full.target, units[i].lun, MIB(1), 512);
		script_target_write(full.target, units[i].lun, 0, pattern, PIECE);
	}
	full_mount(&full, NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(units); i++) {
		struct io_job job = full_read_of(&full, 0, PIECE);
		unsigned mark = full_mark(&full);

		job.path = text(full.scene.stage, "%s/lun%u.img", full.scene.mnt, units[i].lun);
		job.seed = units[i].lun;
		cr_assert_eq(full_do(job), 0, "LUN %u", units[i].lun);
		struct script_traffic command = full_nth(&full, mark, true, SCSI_COMMAND, 0);
		cr_assert_arr_eq(command.header + 8, units[i].field, 8, "LUN %u", units[i].lun);
	}
	full_end(&full);
}

Test(sessions, what_is_reserved_is_0__rfc7143_11_1)
{
	struct full full =
	    full_begin(&(struct script_parameters){.receive_segment = 8192, .max_burst = 16384},
	        "noop_out_interval=1s");

	full_read_and_write(&full, 2);
	full_ping(&full);
	full_await(&full, full.from, true, NOP_OUT, 2);
	rule_reserved_fields_are_zero(full.target);
	full_end(&full);
}

/* ---- NOP-In and NOP-Out ---- */

/* The LUN goes with the tag, all of it. */
static bool give_it_a_LUN(struct script_hook *hook, GByteArray *pdu, void *own)
{
	static const uint8_t lun[8] = {0x41, 0x02, 0xc3, 0x04, 0x05, 0x86, 0x07, 0xf8};

	(void)hook;
	(void)own;
	if ((pdu->data[0] & 0x3f) == NOP_IN && get_be32(pdu->data + 20) != NO_TAG)
		memcpy(pdu->data + 8, lun, 8);
	return true;
}

Test(sessions, a_NOP_In_with_a_tag_is_answered_with_tag_and_LUN__rfc7143_11_18)
{
	struct full full = full_begin(NULL, NULL);
	unsigned mark = full_mark(&full);

	script_target_hook(full.target, &(struct script_hooks){.leaves = give_it_a_LUN});
	full_ping(&full);
	struct script_traffic ping = full_nth(&full, mark, false, NOP_IN, 0);
	struct script_traffic pong = full_nth(&full, mark, true, NOP_OUT, 0);
	cr_assert_eq(get_be32(pong.header + 20), get_be32(ping.header + 20), "another tag");
	cr_assert_eq(itt_of(&pong), NO_TAG);
	cr_assert_eq(pong.header[0], NOP_OUT | IMMEDIATE);
	cr_assert_eq(pong.header[1], FINAL);
	cr_assert_arr_eq(pong.header + 8, ping.header + 8, 8, "another LUN");
	cr_assert_eq(pong.length, 0);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(sessions, each_NOP_In_is_answered_once_with_its_own_tag__rfc7143_11_19)
{
	struct full full = full_begin(NULL, NULL);
	unsigned mark = full_mark(&full);

	for (unsigned i = 0; i < 20; i++)
		script_target_ping(full.target);
	full_await(&full, mark, true, NOP_OUT, 20);
	full_must_read(&full, 0, PIECE);
	cr_assert_eq(full_count(&full, mark, true, NOP_OUT), 20);
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(get_be32(full_nth(&full, mark, false, NOP_IN, i).header + 20),
		    get_be32(full_nth(&full, mark, true, NOP_OUT, i).header + 20));
	full_end(&full);
}

Test(sessions, a_NOP_In_without_a_tag_is_not_answered__rfc7143_11_19)
{
	struct full full = full_begin(NULL, NULL);
	unsigned mark = full_mark(&full);

	for (unsigned i = 0; i < 5; i++)
		full_tell_window(&full);
	full_must_read(&full, 0, PIECE);
	full_ping(&full); /* by now any would have been there */
	cr_assert_eq(full_count(&full, mark, true, NOP_OUT), 1);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(sessions, a_keepalive_has_a_tag_of_its_own_and_wants_an_answer__rfc7143_11_18)
{
	struct full full = full_begin(NULL, "noop_out_interval=1s");

	full_await(&full, full.from, true, NOP_OUT, 2);
	for (unsigned i = 0; i < 2; i++) {
		struct script_traffic nop = full_nth(&full, full.from, true, NOP_OUT, i);

		cr_assert_neq(itt_of(&nop), NO_TAG);
		cr_assert_eq(get_be32(nop.header + 20), NO_TAG, "a Target Transfer Tag");
		cr_assert_eq(nop.header[1], FINAL);
	}
	full_await(&full, full.from, false, NOP_IN, 2);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* More data than was sent, where none was. */
static bool answer_with_data(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	(void)own;
	if ((pdu->data[0] & 0x3f) == NOP_IN && get_be32(pdu->data + 16) != NO_TAG)
		g_byte_array_append(pdu, (const uint8_t *)"pong pong", 9);
	return true;
}

Test(sessions, data_in_the_answer_to_a_keepalive_is_harmless__rfc7143_11_19)
{
	struct full full = full_begin(NULL, "noop_out_interval=1s");

	script_target_hook(full.target, &(struct script_hooks){.leaves = answer_with_data});
	full_await(&full, full.from, false, NOP_IN, 2);
	full_must_read(&full, 0, PIECE);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(sessions, who_does_not_answer_a_keepalive_is_left__rfc7143_4_2_2_2)
{
	struct full full = full_begin(NULL, "noop_out_interval=1s,noop_out_timeout=1s");

	script_target_set(full.target, &(struct script_parameters){.ignore_nops = true});
	script_scene_await_login(&full.scene, full.logins + 1);
	script_target_set(full.target, &(struct script_parameters){0});
	full_must_read(&full, 0, PIECE);
	full_end(&full);
}

/* ---- logout ---- */

Test(sessions, at_the_end_there_is_one_logout_and_nothing_behind_it__rfc7143_11_14)
{
	struct full full = full_begin(NULL, "noop_out_interval=1s");
	struct script_traffic logout;

	full_read_and_write(&full, 1);
	must_umount(full.scene.stage, full.scene.mnt);
	cr_assert_eq(call_end(full.scene.lunfs, 10), 0);
	cr_assert_eq(full_count(&full, full.from, true, LOGOUT), 1);
	logout = full_nth(&full, full.from, true, LOGOUT, 0);
	cr_assert_eq(logout.header[0], LOGOUT | IMMEDIATE);
	cr_assert_eq(logout.header[1], FINAL, "not to close the session: %02x", logout.header[1]);
	cr_assert_neq(itt_of(&logout), NO_TAG);
	for (unsigned i = full_mark(&full); i-- > 0;) {
		struct script_traffic pdu;

		cr_assert(script_traffic_get(full.target, i, &pdu));
		if (pdu.to_target) {
			cr_assert_eq(pdu.header[0] & 0x3f, LOGOUT, "something is behind it");
			break;
		}
	}
	rule_commands_are_numbered(full.target);
	rule_nothing_is_acknowledged_ahead(full.target);
	rule_reserved_fields_are_zero(full.target);
	script_target_stop(full.target);
}

/* The target keeps the answer to itself, and is told with which tag it is awaited. */
static bool keep_the_logout(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	(void)hook;
	(void)data;
	(void)length;
	if ((header[0] & 0x3f) != LOGOUT)
		return false;
	memcpy(own, header + 16, 4);
	return true;
}

Test(sessions, the_answer_to_the_logout_is_awaited__rfc7143_11_14)
{
	struct full full = full_begin(NULL, NULL);
	uint8_t header[48] = {LOGOUT_RESPONSE, FINAL}, tag[4] = {0};

	script_target_hook(
	    full.target, &(struct script_hooks){.came = keep_the_logout, .own = tag});
	pid_t umount = sh_start(full.scene.stage, 0, NULL, NULL, "%s umount %s",
	    full.scene.stage->lunfs, full.scene.mnt);
	full_await(&full, full.from, true, LOGOUT, 1);
	cr_assert(still_waits(full.scene.lunfs, 0.3), "it did not wait");
	cr_assert_eq(script_target_connections(full.target), 1, "it closed the connection");
	memcpy(header + 16, tag, 4);
	script_target_send_pdu(full.target, header, NULL, 0, true);
	cr_assert_eq(call_end(full.scene.lunfs, 10), 0, "%s", scene_said(&full.scene));
	cr_assert_eq(call_end(umount, 10), 0);
	script_target_stop(full.target);
}

/* ---- ISID, TSIH, reinstatement ---- */

/* All logins are leading ones, of one initiator port. */
static void must_be_of_one_port(struct full *full)
{
	struct script_traffic first = full_nth(full, 0, true, LOGIN, 0), pdu;
	unsigned i = 0;

	while (full_find(full, &i, true, LOGIN, &pdu)) {
		cr_assert_arr_eq(pdu.header + 8, first.header + 8, 6, "another ISID");
		cr_assert(pdu.header[14] == 0 && pdu.header[15] == 0, "a TSIH of its own");
	}
}

Test(sessions, a_session_that_was_lost_begins_anew_with_its_ISID_and_no_TSIH__rfc7143_6_3_5)
{
	struct full full = full_begin(NULL, NULL);

	for (unsigned i = 1; i <= 2; i++) {
		script_target_drop(full.target, i == 1 ? SCRIPT_RST : SCRIPT_FIN);
		script_scene_await_login(&full.scene, full.logins + i);
		full_must_read(&full, 0, PIECE);
	}
	must_be_of_one_port(&full);
	cr_assert_eq(script_target_connections(full.target), 1);
	full_end(&full);
}

/* Whatever comes in the first connection is not heard. */
static bool be_deaf(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	(void)header;
	(void)data;
	(void)length;
	return script_hook_connection(hook) == *(unsigned *)own;
}

Test(sessions, reinstatement_leaves_no_second_session_at_the_target__rfc7143_6_3_5)
{
	struct full full = full_begin(NULL, "noop_out_interval=1s,noop_out_timeout=1s");
	unsigned old = full_nth(&full, 0, true, SCSI_COMMAND, 0).connection;
	struct script_login login;

	script_target_hook(full.target, &(struct script_hooks){.came = be_deaf, .own = &old});
	full_must_read(&full, 0, PIECE);
	must_be_of_one_port(&full);
	cr_assert_eq(script_target_connections(full.target), 1);
	cr_assert_eq(script_target_logins(full.target), full.logins + 1);
	cr_assert(script_target_login_attempt(
	    full.target, script_target_login_attempts(full.target) - 1, &login));
	cr_assert(login.done);
	full_end(&full);
}

Test(sessions, two_mounts_of_a_target_have_different_ISIDs__rfc7143_4_4_1)
{
	struct full full = full_begin(NULL, NULL);
	char *other = stage_directory(full.scene.stage, "other", 0);
	uint8_t first[6], second[6];

	script_target_last_isid(full.target, first);
	must_lunfs(full.scene.stage, "mount iscsi://127.0.0.1:%u/" SCENE_IQN " %s -o ro",
	    script_target_port(full.target), other);
	script_target_last_isid(full.target, second);
	cr_assert(memcmp(first, second, 6) != 0, "the same ISID");
	cr_assert_eq(first[0] >> 6, 2, "not of type 10b, random");
	cr_assert_eq(script_target_connections(full.target), 2, "one ended the other");
	full_must_read(&full, 0, PIECE);
	must_umount(full.scene.stage, other);
	full_must_be_begun_anew(&full, 1); /* the other's */
	full_end(&full);
}

/* ---- task management ---- */

Test(sessions, a_LUN_RESET_has_its_LUN_and_no_referenced_tag__rfc7143_11_5)
{
	struct full full = full_target(NULL);

	script_target_add_lun(full.target, 300, MIB(1), 512);
	full_mount(&full, NULL);
	/* in another portal group old commands may be alive: a reset goes first */
	script_target_set(full.target, &(struct script_parameters){.tag = 2});
	script_target_drop(full.target, SCRIPT_RST);
	full_must_read(&full, 0, PIECE);
	full_await(&full, full.from, true, MANAGEMENT, 2);
	for (unsigned i = 0; i < 2; i++) {
		struct script_traffic reset = full_nth(&full, full.from, true, MANAGEMENT, i);
		bool high = reset.header[8] == 0x41;

		cr_assert_eq(reset.header[1], 0x80 | 5, "not LOGICAL UNIT RESET");
		cr_assert_arr_eq(reset.header + 8,
		    (high ? (uint8_t[8]){0x41, 44} : (uint8_t[8]){0, 1}), 8, "another LUN");
		cr_assert_eq(get_be32(reset.header + 20), NO_TAG, "a Referenced Task Tag");
		cr_assert_eq(get_be32(reset.header + 32), 0, "a RefCmdSN");
		cr_assert_eq(get_be32(reset.header + 36), 0, "an ExpDataSN");
		cr_assert_eq(reset.length, 0);
	}
	full_end(&full);
}
