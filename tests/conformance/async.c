/*
 * async.c - what a target says unasked: logout requests, announced ends, times to wait, vendors'
 * events (RFC 7143, 11.9, 11.15, 13.15).
 *
 * Times are taken from what passed. What has an upper limit has a generous one: machines are slow.
 */
#include "full.h"

#include <string.h>

TestSuite(async, .timeout = 120);

#define SLACK_MS 1500 /* for a login that may begin */

static struct script_traffic last_of(struct full *full, bool to_target, uint8_t opcode)
{
	unsigned count = full_count(full, full->from, to_target, opcode);

	cr_assert_gt(count, 0, "no PDU of opcode %02x", opcode);
	return full_nth(full, full->from, to_target, opcode, count - 1);
}

/* The login behind it began so long after it. */
static int64_t waited_for(struct full *full, const struct script_traffic *before)
{
	struct script_traffic login;
	unsigned i = full->from;

	full_await(full, full->from, true, LOGIN, 1);
	while (full_find(full, &i, true, LOGIN, &login))
		if (login.connection > before->connection)
			return login.at_ms - before->at_ms;
	cr_assert_fail("no login behind it");
	return -1;
}

static void must_have_waited(struct full *full, const struct script_traffic *before, int64_t ms)
{
	int64_t waited = waited_for(full, before);

	cr_assert_geq(waited, ms, "the login came after %ld ms, not %ld", (long)waited, (long)ms);
	cr_assert_leq(waited, ms + (int64_t)patience(SLACK_MS),
	    "the login came after %ld ms, not %ld", (long)waited, (long)ms);
}

/* ---- harmless ---- */

static void goes_on_behind(const struct script_message *message)
{
	struct full full = full_begin(NULL, NULL);

	for (unsigned i = 0; i < 3; i++) {
		script_target_message(full.target, message);
		full_must_read(&full, i * PIECE, PIECE);
		full_must_write(&full, MIB(1), PIECE, i);
	}
	/* what it takes in has been taken in, then */
	full_ping(&full);
	full_must_read(&full, 0, PIECE);
	full_must_be_the_same_session(&full);
	cr_assert_eq(full_count(&full, full.from, true, LOGOUT), 0);
	full_end(&full);
}

Test(async, a_SCSI_event_with_sense_is_harmless__rfc7143_11_9_1)
{
	goes_on_behind(&(struct script_message){
	    .event = 0, .lun = 1, .sense = {SENSE_UNIT_ATTENTION, 0x3f, 0x0e}});
}

static bool lists_again(void *data)
{
	struct full *full = data;

	return script_target_command_count(full->target, 0xa0) > 1;
}

Test(async, a_SCSI_event_makes_it_ask_for_the_LUNs__rfc7143_11_9_1)
{
	struct full full = full_begin(NULL, NULL);

	cr_assert_eq(script_target_command_count(full.target, 0xa0), 1);
	script_target_message(
	    full.target, &(struct script_message){
	                     .event = 0, .lun = 1, .sense = {SENSE_UNIT_ATTENTION, 0x3f, 0x0e}});
	cr_assert(await(FULL_LIMIT, lists_again, &full), "no REPORT LUNS");
	full_end(&full);
}

Test(async, a_SCSI_event_for_an_unknown_LUN_is_harmless__rfc7143_11_9_1)
{
	goes_on_behind(&(struct script_message){
	    .event = 0, .lun = 77, .sense = {SENSE_UNIT_ATTENTION, 0x2a, 0x09}});
}

Test(async, a_vendors_event_is_harmless__rfc7143_11_9_1)
{
	goes_on_behind(&(struct script_message){
	    .event = 255, .vendor_code = 3, .parameter1 = 1, .parameter2 = 2, .parameter3 = 3});
}

Test(async, an_event_of_the_vendors_range_is_harmless__rfc7143_11_9_1)
{
	goes_on_behind(&(struct script_message){.event = 248});
}

Test(async, an_unknown_event_is_harmless__rfc7143_11_9_1)
{
	goes_on_behind(&(struct script_message){.event = 6, .parameter3 = 1});
}

Test(async, a_vendors_event_with_data_is_harmless__rfc7143_11_9)
{
	struct full full = full_begin(NULL, NULL);
	uint8_t header[48] = {ASYNC, FINAL, [36] = 255};
	static const uint8_t data[] = {0, 0, 'v', 'e', 'n', 'd', 'o', 'r', 's', ' ', 'o', 'w', 'n'};

	put_be32(header + 16, NO_TAG);
	script_target_send_pdu(full.target, header, data, sizeof(data), true);
	full_must_read(&full, 0, PIECE);
	full_must_write(&full, 0, PIECE, 1);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* Event 5: what is under way at that LUN is not answered any more. */
Test(async, commands_that_the_target_ends_are_done_again__rfc7143_11_9_1)
{
	struct full full = full_begin(NULL, NULL);
	struct io_job job = full_read_of(&full, 0, PIECE);

	script_target_rule(
	    full.target, (struct script_rule){.opcode = SCRIPT_READ, .times = 1, .hang = true});
	pid_t reader = call_start(0, do_io, &job);
	full_await(&full, full.from, true, SCSI_COMMAND, 1);
	script_target_message(full.target, &(struct script_message){.event = 5, .lun = 1});
	cr_assert_eq(call_end(reader, FULL_LIMIT), 0, "it waits for what does not come");
	full_must_read(&full, PIECE, PIECE);
	full_end(&full);
}

/* ---- a logout that is requested ---- */

/* One Logout in time, nothing behind it in its connection, and I/O goes on in the next session. */
static void must_have_logged_out(
    struct full *full, const struct script_traffic *request, unsigned within_s)
{
	struct script_traffic logout = full_nth(full, full->from, true, LOGOUT, 0), pdu;
	bool behind = false;

	cr_assert_leq(logout.at_ms - request->at_ms, (int64_t)within_s * 1000, "too late");
	cr_assert_eq(logout.connection, request->connection);
	cr_assert_leq(
	    logout.header[1] & 0x7f, 1, "neither session nor connection: %02x", logout.header[1]);
	for (unsigned i = full->from; script_traffic_get(full->target, i, &pdu); i++) {
		if (!pdu.to_target || pdu.connection != logout.connection)
			continue;
		cr_assert(!behind, "behind the Logout comes opcode %02x", pdu.header[0]);
		behind = (pdu.header[0] & 0x3f) == LOGOUT;
	}
}

static void logs_out_on(const struct script_message *message)
{
	struct full full = full_begin(NULL, NULL);

	script_target_message(full.target, message);
	script_scene_await_login(&full.scene, full.logins + 1);
	full_must_read(&full, 0, PIECE);
	full_must_write(&full, MIB(1), PIECE, 1);
	struct script_traffic request = full_nth(&full, full.from, false, ASYNC, 0);
	must_have_logged_out(&full, &request, message->parameter3);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(async, a_requested_logout_is_done_in_time_and_IO_goes_on__rfc7143_11_9_1)
{
	logs_out_on(&(struct script_message){.event = 1, .parameter3 = 5});
}

Test(async, a_logout_requested_within_a_second_is_done_at_once__rfc7143_11_9_1)
{
	logs_out_on(&(struct script_message){.event = 1, .parameter3 = 1});
}

Test(async, to_negotiate_anew_it_logs_out_and_in__rfc7143_11_9_1)
{
	logs_out_on(&(struct script_message){.event = 4, .parameter3 = 5});
}

Test(async, a_requested_logout_fails_nothing_that_is_under_way__rfc7143_11_9_1)
{
	struct full full = full_begin(NULL, NULL);
	struct io_job jobs[6];
	pid_t pids[6];

	script_target_rule(
	    full.target, (struct script_rule){.opcode = SCRIPT_ANY, .times = 6, .hang = true});
	for (unsigned i = 0; i < 6; i++) {
		jobs[i] = i % 2 ? full_read_of(&full, i * PIECE, PIECE)
		                : full_write_of(&full, MIB(1) + i * PIECE, PIECE, i);
		pids[i] = call_start(0, do_io, &jobs[i]);
	}
	full_await(&full, full.from, true, SCSI_COMMAND, 6);
	script_target_message(full.target, &(struct script_message){.event = 1, .parameter3 = 3});
	for (unsigned i = 0; i < 6; i++)
		cr_assert_eq(
		    call_end(pids[i], FULL_LIMIT), 0, "%s", jobs[i].writes ? "a write" : "a read");
	struct script_traffic request = full_nth(&full, full.from, false, ASYNC, 0);
	must_have_logged_out(&full, &request, 3);
	for (unsigned i = 0; i < 6; i += 2)
		full_must_hold(&full, MIB(1) + i * PIECE, PIECE, i);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

/* The request comes right behind the first R2T. */
static bool ask_for_a_logout(struct script_hook *hook, GByteArray *pdu, void *own)
{
	bool *asked = own;
	uint8_t message[48];

	if (*asked || (pdu->data[0] & 0x3f) != R2T)
		return true;
	*asked = true;
	script_hook_send(hook, pdu->data, NULL, 0);
	script_hook_header(hook, message, ASYNC, NO_TAG, true);
	message[36] = 1;
	message[43] = 3;
	script_hook_send(hook, message, NULL, 0);
	return false;
}

Test(async, a_requested_logout_is_done_while_data_is_on_its_way__rfc7143_11_14)
{
	struct full full = full_begin(
	    &(struct script_parameters){
	        .initial_r2t = true, .no_immediate_data = true, .receive_segment = 4096},
	    NULL);
	bool asked = false;

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = ask_for_a_logout, .own = &asked});
	full_must_write(&full, MIB(1), PIECE, 1);
	struct script_traffic request = full_nth(&full, full.from, false, ASYNC, 0);
	must_have_logged_out(&full, &request, 3);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

static bool lose_the_logout(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	(void)hook;
	(void)data;
	(void)length;
	(void)own;
	return (header[0] & 0x3f) == LOGOUT;
}

Test(async, a_Logout_without_answer_does_not_hold_IO_for_ever__rfc7143_11_14)
{
	struct full full = full_begin(NULL, NULL);
	struct io_job job = full_read_of(&full, 0, PIECE);

	script_target_hook(full.target, &(struct script_hooks){.came = lose_the_logout});
	script_target_message(full.target, &(struct script_message){.event = 1, .parameter3 = 2});
	full_await(&full, full.from, true, LOGOUT, 1);
	pid_t reader = call_start(0, do_io, &job); /* nothing of it may come behind the Logout */
	script_scene_await_login(&full.scene, full.logins + 1);
	script_target_hook(full.target, NULL);
	cr_assert_eq(call_end(reader, FULL_LIMIT), 0);
	struct script_traffic request = full_nth(&full, full.from, false, ASYNC, 0);
	must_have_logged_out(&full, &request, 2);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(async, a_Logout_without_answer_holds_IO_no_longer_than_a_command__rfc7143_11_14)
{
	struct full full = full_begin(NULL, "shared,command_timeout=2s");
	struct io_job job = full_read_of(&full, 0, PIECE);

	script_target_hook(full.target, &(struct script_hooks){.came = lose_the_logout});
	script_target_message(
	    full.target, &(struct script_message){.event = 1, .parameter3 = 3600});
	full_await(&full, full.from, true, LOGOUT, 1);
	cr_assert_eq(full_do(job), 0);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

/* ---- times to wait ---- */

static void waits_behind_a_message(uint8_t event, uint16_t time2wait, int64_t ms)
{
	struct full full = full_begin(NULL, NULL);

	script_target_message(full.target,
	    &(struct script_message){.event = event, .parameter1 = 0, .parameter2 = time2wait});
	full_must_read(&full, 0, PIECE);
	struct script_traffic message = last_of(&full, false, ASYNC);
	must_have_waited(&full, &message, ms);
	cr_assert_eq(full_count(&full, full.from, true, LOGOUT), 0, "of what ends by itself");
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(async, behind_a_dropped_connection_its_Time2Wait_is_kept__rfc7143_11_9_1)
{
	waits_behind_a_message(2, 2, 2000);
}

Test(async, behind_dropped_connections_their_Time2Wait_is_kept__rfc7143_11_9_1)
{
	waits_behind_a_message(3, 3, 3000);
}

Test(async, without_a_Time2Wait_the_next_login_is_at_once__rfc7143_11_9_1)
{
	waits_behind_a_message(2, 0, 0);
}

/* Whoever announces it need not close it. */
Test(async, an_announced_end_that_does_not_come_is_made__rfc7143_11_9_1)
{
	struct full full = full_begin(NULL, NULL);
	uint8_t header[48] = {ASYNC, FINAL, [36] = 3, [41] = 1};

	put_be32(header + 16, NO_TAG);
	script_target_send_pdu(full.target, header, NULL, 0, true);
	g_usleep(50000);
	full_must_read(&full, 0, PIECE); /* in either session */
	full_must_read(&full, PIECE, PIECE);
	full_end(&full);
}

/* The login behind the answer to a requested Logout. */
static void waits_behind_a_logout(uint8_t response, uint16_t time2wait, int64_t least_ms)
{
	struct full full = full_begin(
	    &(struct script_parameters){.logout_response = response, .logout_time2wait = time2wait},
	    NULL);

	script_target_message(full.target, &(struct script_message){.event = 1, .parameter3 = 3});
	script_scene_await_login(&full.scene, full.logins + 1);
	full_must_read(&full, 0, PIECE);
	struct script_traffic answer = full_nth(&full, full.from, false, LOGOUT_RESPONSE, 0);
	int64_t waited = waited_for(&full, &answer);
	cr_assert_geq(waited, least_ms, "the login came after %ld ms", (long)waited);
	cr_assert_leq(waited, time2wait * 1000 + (int64_t)patience(SLACK_MS),
	    "the login came after %ld ms", (long)waited);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

/* Where ErrorRecoveryLevel < 2 it is to be ignored behind a success: to wait is allowed. */
Test(async, behind_a_Logout_that_was_done_its_Time2Wait_is_the_most__rfc7143_11_15_3)
{
	waits_behind_a_logout(0, 2, 0);
}

Test(async, a_Logout_Response_without_Time2Wait_lets_log_in_at_once__rfc7143_11_15_3)
{
	waits_behind_a_logout(0, 0, 0);
}

Test(async, behind_a_Logout_that_cannot_recover_its_Time2Wait_is_kept__rfc7143_11_15_3)
{
	waits_behind_a_logout(2, 2, 2000);
}

Test(async, behind_a_Logout_that_did_not_clean_up_its_Time2Wait_is_kept__rfc7143_11_15_3)
{
	waits_behind_a_logout(3, 2, 2000);
}

Test(async, behind_a_Logout_of_no_such_connection_Time2Wait_is_not_valid__rfc7143_11_15_3)
{
	waits_behind_a_logout(1, 0, 0);
}

/* DefaultTime2Wait, of both the larger, holds where nothing else was said. */
Test(async, behind_a_lost_connection_DefaultTime2Wait_is_kept__rfc7143_13_15)
{
	struct full full = full_begin(&(struct script_parameters){.time2wait = 3}, NULL);

	full_must_read(&full, 0, PIECE);
	struct script_traffic before = last_of(&full, false, DATA_IN);
	script_target_drop(full.target, SCRIPT_RST);
	full_must_read(&full, PIECE, PIECE);
	cr_assert_geq(waited_for(&full, &before), 3000);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(async, at_the_end_of_a_mount_no_Time2Wait_holds_it_up__rfc7143_11_15_3)
{
	struct full full =
	    full_begin(&(struct script_parameters){.logout_time2wait = 30, .time2wait = 30}, NULL);

	full_must_read(&full, 0, PIECE);
	double start = seconds_now();
	must_umount(full.scene.stage, full.scene.mnt);
	cr_assert_eq(call_end(full.scene.lunfs, 10), 0);
	cr_assert_lt(seconds_now() - start, patience(10));
	script_target_stop(full.target);
}
