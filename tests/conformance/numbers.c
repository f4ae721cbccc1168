/*
 * numbers.c - what a session counts by: CmdSN and its window, StatSN and its acknowledgement, tags
 * (RFC 7143, 4.2.2, 11.2.1.8).
 */
#include "full.h"

#include <string.h>

TestSuite(numbers, .timeout = 120);

static uint32_t cmdsn_of(const struct script_traffic *pdu)
{
	return get_be32(pdu->header + 24);
}

static uint32_t expstatsn_of(const struct script_traffic *pdu)
{
	return get_be32(pdu->header + 28);
}

/* ---- CmdSN ---- */

Test(numbers, each_command_takes_the_next_CmdSN__rfc7143_4_2_2_1)
{
	struct full full = full_begin(NULL, "noop_out_interval=1s");

	full_read_and_write(&full, 3);
	full_must_read_at_once(&full, 16);
	full_await(&full, full.from, true, NOP_OUT, 1); /* it counts, too */
	full_read_and_write(&full, 1);
	rule_commands_are_numbered(full.target);
	full_end(&full);
}

Test(numbers, an_immediate_request_takes_no_CmdSN__rfc7143_4_2_2_1)
{
	struct full full = full_begin(NULL, NULL);
	unsigned mark = full_mark(&full);

	full_ping(&full);
	full_ping(&full);
	full_must_read(&full, 0, PIECE);
	struct script_traffic first = full_nth(&full, mark, true, NOP_OUT, 0);
	struct script_traffic second = full_nth(&full, mark, true, NOP_OUT, 1);
	struct script_traffic command = full_nth(&full, mark, true, SCSI_COMMAND, 0);
	cr_assert((first.header[0] & IMMEDIATE) && (second.header[0] & IMMEDIATE));
	cr_assert_eq(cmdsn_of(&first), cmdsn_of(&command));
	cr_assert_eq(cmdsn_of(&second), cmdsn_of(&command));
	full_end(&full);
}

Test(numbers, the_first_command_has_the_CmdSN_of_the_login__rfc7143_4_2_2_1)
{
	struct full full = full_begin(NULL, NULL);
	struct script_traffic login = full_nth(&full, 0, true, LOGIN, 0);
	struct script_traffic command = full_nth(&full, 0, true, SCSI_COMMAND, 0);

	cr_assert(login.header[0] & IMMEDIATE);
	cr_assert_eq(cmdsn_of(&login), cmdsn_of(&command));
	full_end(&full);
}

Test(numbers, tags_of_what_is_under_way_are_unique__rfc7143_11_2_1_8)
{
	struct full full = full_begin(NULL, "noop_out_interval=1s");
	struct io_job jobs[16];
	pid_t pids[16];

	script_target_rule(full.target, (struct script_rule){.opcode = SCRIPT_READ, .hang = true});
	for (unsigned i = 0; i < 16; i++) {
		jobs[i] = full_read_of(&full, i * KIB(4), KIB(4));
		pids[i] = call_start(0, do_io, &jobs[i]);
	}
	full_await(&full, full.from, true, SCSI_COMMAND, 16);
	full_await(&full, full.from, true, NOP_OUT, 1);
	rule_tags_are_unique(full.target);
	script_target_forget_rules(full.target);
	script_target_release(full.target);
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(call_end(pids[i], FULL_LIMIT), 0);
	full_end(&full);
}

/* ---- StatSN ---- */

Test(numbers, what_came_is_acknowledged_by_the_next_request__rfc7143_4_2_2_2)
{
	struct full full = full_begin(NULL, NULL);

	full_read_and_write(&full, 4);
	rule_all_is_acknowledged(full.target, full.from);
	full_end(&full);
}

Test(numbers, an_R2T_acknowledges_nothing_and_is_not_to_be__rfc7143_11_8)
{
	struct full full = full_begin(&(struct script_parameters){.initial_r2t = true,
	                                  .no_immediate_data = true,
	                                  .max_burst = 16384,
	                                  .receive_segment = 8192},
	    NULL);

	full_read_and_write(&full, 3);
	rule_all_is_acknowledged(full.target, full.from);
	full_end(&full);
}

Test(numbers, StatSN_and_its_acknowledgement_go_on_past_their_end__rfc7143_4_2_2)
{
	struct full full =
	    full_begin(&(struct script_parameters){.first_statsn = 0xfffffff0u}, NULL);

	full_read_and_write(&full, 12);
	rule_all_is_acknowledged(full.target, full.from);
	struct script_traffic last = full_nth(&full, full.from, false, DATA_IN, 11);
	cr_assert_lt(get_be32(last.header + 24), 0x1000, "it did not come past the end");
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(numbers, StatSN_of_half_its_range_is_taken_on__rfc7143_4_2_2)
{
	struct full full =
	    full_begin(&(struct script_parameters){.first_statsn = 0x80000001u}, NULL);

	full_read_and_write(&full, 3);
	rule_all_is_acknowledged(full.target, full.from);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* The one that no answer of the target's follows is to be acknowledged, too. */
static void acknowledges_alone(struct full *full, const uint8_t header[48])
{
	struct script_traffic sent = {0}, command = {0};

	/* whoever is slow has more time at the next try; who does not, never has enough */
	for (unsigned try = 0; try < 6; try++) {
		unsigned mark = full_mark(full);

		script_target_send_pdu(full->target, header, NULL, 0, true);
		g_usleep(50000ul << try);
		full_must_read(full, 0, PIECE);
		sent = full_nth(full, mark, false, header[0], 0);
		command = full_nth(full, mark, true, SCSI_COMMAND, 0);
		if (expstatsn_of(&command) == get_be32(sent.header + 24) + 1)
			return;
	}
	cr_assert_fail("StatSN %u went, but ExpStatSN %u comes", get_be32(sent.header + 24),
	    expstatsn_of(&command));
}

Test(numbers, an_Async_Message_is_acknowledged__rfc7143_4_2_2_2)
{
	struct full full = full_begin(NULL, NULL);
	uint8_t header[48] = {ASYNC, FINAL, [36] = 255};

	put_be32(header + 16, NO_TAG);
	acknowledges_alone(&full, header);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(numbers, a_NOP_In_of_the_target_takes_no_StatSN__rfc7143_11_19)
{
	struct full full = full_begin(NULL, NULL);

	for (unsigned i = 0; i < 4; i++) {
		full_must_read(&full, 0, PIECE);
		full_ping(&full);
		full_tell_window(&full);
		full_ping(&full);
	}
	rule_all_is_acknowledged(full.target, full.from);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* Data-In without S has none: whatever stands there. */
static bool put_rubbish_there(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	(void)own;
	if ((pdu->data[0] & 0x3f) == DATA_IN && !(pdu->data[1] & 0x01))
		put_be32(pdu->data + 24, 0x01020304);
	return true;
}

Test(numbers, Data_In_without_S_has_no_StatSN__rfc7143_11_7_4)
{
	struct full full = full_begin(
	    &(struct script_parameters){.separate_status = true, .max_burst = 16384}, NULL);

	script_target_hook(full.target, &(struct script_hooks){.leaves = put_rubbish_there});
	for (unsigned i = 0; i < 4; i++)
		full_must_read(&full, i * PIECE, PIECE);
	/* the exact rule has the same idea of S */
	rule_all_is_acknowledged(full.target, full.from);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* From here on StatSN is so much higher, in that connection. */
struct jump {
	gint by; /* atomic */
	unsigned connection;
};

static bool jump(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct jump *ahead = own;

	if (script_hook_connection(hook) == ahead->connection)
		put_be32(pdu->data + 24,
		    get_be32(pdu->data + 24) + (uint32_t)g_atomic_int_get(&ahead->by));
	return true;
}

static void survives_a_jump(gint by)
{
	struct full full = full_begin(NULL, NULL);
	struct jump ahead = {.connection = full_nth(&full, 0, true, SCSI_COMMAND, 0).connection};

	script_target_hook(full.target, &(struct script_hooks){.leaves = jump, .own = &ahead});
	full_read_and_write(&full, 1);
	g_atomic_int_set(&ahead.by, by);
	full_read_and_write(&full, 3);
	rule_all_is_acknowledged(full.target, full.from);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(numbers, a_StatSN_that_jumps_ahead_by_1_is_acknowledged__rfc7143_4_2_2_2)
{
	survives_a_jump(1);
}

Test(numbers, a_StatSN_that_jumps_ahead_by_7_is_acknowledged__rfc7143_4_2_2_2)
{
	survives_a_jump(7);
}

Test(numbers, a_StatSN_that_jumps_far_begins_the_session_anew__rfc7143_4_2_2_2)
{
	struct full full = full_begin(NULL, NULL);
	struct jump ahead = {
	    .by = 0x40000000, .connection = full_nth(&full, 0, true, SCSI_COMMAND, 0).connection};

	script_target_hook(full.target, &(struct script_hooks){.leaves = jump, .own = &ahead});
	full_must_read(&full, 0, PIECE);
	full_must_read(&full, PIECE, PIECE);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

/* Once only. */
static bool take_it_back(struct script_hook *hook, GByteArray *pdu, void *own)
{
	gint *by = own;

	(void)hook;
	put_be32(pdu->data + 24, get_be32(pdu->data + 24) - (uint32_t)*by);
	*by = 0;
	return true;
}

Test(numbers, a_StatSN_that_goes_back_takes_no_acknowledgement_back__rfc7143_4_2_2_2)
{
	struct full full = full_begin(NULL, NULL);
	gint by = 5;
	uint32_t least;

	full_must_read(&full, 0, PIECE);
	unsigned mark = full_mark(&full);
	full_must_read(&full, PIECE, PIECE);
	struct script_traffic before = full_nth(&full, mark, true, SCSI_COMMAND, 0);
	least = expstatsn_of(&before);
	script_target_hook(full.target, &(struct script_hooks){.leaves = take_it_back, .own = &by});
	full_must_read(&full, 0, PIECE);
	cr_assert_eq(by, 0);
	mark = full_mark(&full);
	full_must_read(&full, PIECE, PIECE);
	struct script_traffic behind = full_nth(&full, mark, true, SCSI_COMMAND, 0);
	/* it may begin anew, as the number is wrong */
	cr_assert(
	    behind.connection != before.connection || (int32_t)(expstatsn_of(&behind) - least) >= 0,
	    "ExpStatSN %u behind %u", expstatsn_of(&behind), least);
	full_end_unjudged(&full);
}

/* ---- windows ---- */

static void keeps_a_window_of(unsigned window, unsigned jobs)
{
	struct full full = full_begin(&(struct script_parameters){.window = window}, NULL);

	for (unsigned i = 0; i < 4; i++)
		full_must_read_at_once(&full, jobs);
	rule_windows_are_kept(full.target);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(numbers, a_window_of_1_is_kept__rfc7143_4_2_2_1)
{
	keeps_a_window_of(1, 12);
}

Test(numbers, a_window_of_2_is_kept__rfc7143_4_2_2_1)
{
	keeps_a_window_of(2, 12);
}

Test(numbers, a_window_of_7_is_kept__rfc7143_4_2_2_1)
{
	keeps_a_window_of(7, 24);
}

/* All that is allowed is under way at once. */
Test(numbers, a_window_is_used__rfc7143_4_2_2_1)
{
	struct full full = full_begin(&(struct script_parameters){.window = 8}, NULL);
	struct io_job jobs[16];
	pid_t pids[16];

	script_target_rule(full.target, (struct script_rule){.opcode = SCRIPT_READ, .hang = true});
	for (unsigned i = 0; i < 16; i++) {
		jobs[i] = full_read_of(&full, i * KIB(4), KIB(4));
		pids[i] = call_start(0, do_io, &jobs[i]);
	}
	full_await(&full, full.from, true, SCSI_COMMAND, 8);
	full_tell_window(&full); /* those that hang are not in it any more */
	full_await(&full, full.from, true, SCSI_COMMAND, 16);
	script_target_forget_rules(full.target);
	script_target_release(full.target);
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(call_end(pids[i], FULL_LIMIT), 0);
	full_end(&full);
}

/* MaxCmdSN in all that leaves. */
struct window {
	gint closed, less; /* atomic */
	bool bare;         /* no answer is wanted to a NOP-In */
};

static bool tell_another_window(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct window *window = own;
	uint32_t expected = get_be32(pdu->data + 28), max = get_be32(pdu->data + 32);

	(void)hook;
	if (window->bare && (pdu->data[0] & 0x3f) == NOP_IN)
		put_be32(pdu->data + 20, NO_TAG);
	if (g_atomic_int_get(&window->closed))
		put_be32(pdu->data + 32, expected - 1);
	else
		put_be32(pdu->data + 32, max - (uint32_t)g_atomic_int_get(&window->less));
	return true;
}

Test(numbers, a_closed_window_is_kept_until_a_NOP_In_opens_it__rfc7143_4_2_2_1)
{
	struct full full = full_begin(&(struct script_parameters){.window = 1}, NULL);
	struct window window = {.closed = 1};
	struct io_job job = full_read_of(&full, PIECE, PIECE);

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = tell_another_window, .own = &window});
	full_must_read(&full, 0, PIECE); /* its answer closes it */
	unsigned mark = full_mark(&full);
	pid_t reader = call_start(0, do_io, &job);
	cr_assert(still_waits(reader, 0.4), "it did not wait");
	cr_assert_eq(full_count(&full, mark, true, SCSI_COMMAND), 0, "a command was sent");
	full_ping(&full); /* immediate: no window holds it */
	cr_assert_eq(full_count(&full, mark, true, SCSI_COMMAND), 0, "a command was sent");
	g_atomic_int_set(&window.closed, 0);
	full_tell_window(&full);
	cr_assert_eq(call_end(reader, FULL_LIMIT), 0);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* Opens the window some time after the login has ended. */
struct opening {
	struct full *full;
	struct window *window;
	unsigned too_early;
};

static gpointer open_behind_the_login(void *data)
{
	struct opening *opening = data;
	unsigned i = 0;
	struct script_traffic pdu = {0};

	while (!full_find(opening->full, &i, false, LOGIN_RESPONSE, &pdu) ||
	       (pdu.header[1] & 0x83) != 0x83)
		g_usleep(5000);
	g_usleep(400000);
	opening->too_early = full_count(opening->full, 0, true, SCSI_COMMAND);
	g_atomic_int_set(&opening->window->closed, 0);
	full_tell_window(opening->full);
	return NULL;
}

Test(numbers, a_window_that_the_login_leaves_closed_is_kept__rfc7143_4_2_2_1)
{
	struct full full = full_target(NULL);
	struct window window = {.closed = 1};
	struct opening opening = {&full, &window, 0};

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = tell_another_window, .own = &window});
	GThread *opener = g_thread_new("opener", open_behind_the_login, &opening);
	full_mount(&full, NULL);
	g_thread_join(opener);
	cr_assert_eq(opening.too_early, 0, "%u commands were sent", opening.too_early);
	cr_assert_eq(full.logins, 1);
	full_must_read(&full, 0, PIECE);
	full_end(&full);
}

/* It takes a CmdSN, too. */
Test(numbers, a_keepalive_waits_for_a_closed_window__rfc7143_4_2_2_1)
{
	struct full full =
	    full_begin(&(struct script_parameters){.window = 1}, "noop_out_interval=1s");
	struct window window = {.closed = 1};

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = tell_another_window, .own = &window});
	full_must_read(&full, 0, PIECE);
	unsigned mark = full_mark(&full);
	g_usleep(2300000);
	for (unsigned i = mark; i < full_mark(&full); i++) {
		struct script_traffic pdu;

		cr_assert(script_traffic_get(full.target, i, &pdu));
		cr_assert(!pdu.to_target || (pdu.header[0] & IMMEDIATE), "opcode %02x was sent",
		    pdu.header[0]);
	}
	g_atomic_int_set(&window.closed, 0);
	full_tell_window(&full);
	full_await(&full, mark, true, NOP_OUT, 1);
	full_must_read(&full, 0, PIECE);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* After a NOP-In with a window that is not to be believed, eight commands are still sent. */
static void ignores_a_window_that_is_less_by(gint less)
{
	struct full full = full_begin(&(struct script_parameters){.window = 32}, NULL);
	struct window window = {.bare = true, .less = less};
	struct io_job jobs[8];
	pid_t pids[8];

	full_ping(&full);
	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = tell_another_window, .own = &window});
	script_target_ping(full.target);
	script_target_hook(full.target, NULL);
	script_target_rule(full.target, (struct script_rule){.opcode = SCRIPT_READ, .hang = true});
	for (unsigned i = 0; i < 8; i++) {
		jobs[i] = full_read_of(&full, i * KIB(4), KIB(4));
		pids[i] = call_start(0, do_io, &jobs[i]);
	}
	full_await(&full, full.from, true, SCSI_COMMAND, 8);
	script_target_forget_rules(full.target);
	script_target_release(full.target);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(call_end(pids[i], FULL_LIMIT), 0);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(numbers, a_MaxCmdSN_that_goes_back_is_ignored__rfc7143_4_2_2_1)
{
	ignores_a_window_that_is_less_by(31);
}

Test(numbers, a_MaxCmdSN_below_ExpCmdSN_minus_1_is_ignored__rfc7143_4_2_2_1)
{
	ignores_a_window_that_is_less_by(40);
}

/* Both are ahead of what was told, and yet they are no window. */
static bool tell_no_window(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	(void)own;
	put_be32(pdu->data + 20, NO_TAG);
	put_be32(pdu->data + 28, get_be32(pdu->data + 28) + 1000);
	put_be32(pdu->data + 32, get_be32(pdu->data + 32) + 500);
	return true;
}

Test(numbers, a_MaxCmdSN_that_an_ExpCmdSN_has_left_behind_is_ignored__rfc7143_4_2_2_1)
{
	struct full full = full_begin(&(struct script_parameters){.window = 4}, NULL);
	struct io_job jobs[12];
	pid_t pids[12];

	script_target_hook(full.target, &(struct script_hooks){.leaves = tell_no_window});
	script_target_ping(full.target);
	script_target_hook(full.target, NULL);
	full_ping(&full); /* by its answer the other has been taken in */
	script_target_rule(full.target, (struct script_rule){.opcode = SCRIPT_READ, .hang = true});
	for (unsigned i = 0; i < 12; i++) {
		jobs[i] = full_read_of(&full, i * KIB(4), KIB(4));
		pids[i] = call_start(0, do_io, &jobs[i]);
	}
	full_await(&full, full.from, true, SCSI_COMMAND, 4);
	g_usleep(300000);
	cr_assert_eq(full_count(&full, full.from, true, SCSI_COMMAND), 4, "beyond the window");
	script_target_forget_rules(full.target);
	script_target_release(full.target);
	for (unsigned i = 0; i < 12; i++)
		cr_assert_eq(call_end(pids[i], FULL_LIMIT), 0);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* A window over the wrap of numbers: 2^31 - 1 ahead is the most that serial arithmetic allows. */
Test(numbers, a_window_of_2_to_the_31_less_1_is_one__rfc7143_4_2_2_1)
{
	struct full full = full_target(&(struct script_parameters){.window = 0x7fffffffu});

	full_mount(&full, NULL);
	full_must_read_at_once(&full, 16);
	full_must_be_the_same_session(&full);
	full_end(&full);
}
