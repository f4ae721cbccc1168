/*
 * data_out.c - how the data of a WRITE leaves: immediate, unsolicited, asked for (RFC
 * 7143, 4.2.5.2, 11.3, 11.7, 11.8, 13.10 to 13.14).
 *
 * The bytes at the target are compared, and each PDU is judged by rule_data_out_is_framed().
 */
#include "full.h"

#include <string.h>

TestSuite(data_out, .timeout = 120);

/* How the data of the first WRITE from there on left. */
struct sent {
	uint32_t immediate, unsolicited, asked; /* bytes */
	unsigned r2ts;
	bool final; /* of the command */
};

static struct sent how_it_left(struct full *full, unsigned from)
{
	struct sent sent = {0};
	struct script_traffic pdu = {0};
	uint32_t itt;

	do
		cr_assert(full_find(full, &from, true, SCSI_COMMAND, &pdu), "no WRITE");
	while (!full_is_write(pdu.header));
	itt = get_be32(pdu.header + 16);
	sent.immediate = pdu.length;
	sent.final = pdu.header[1] & FINAL;
	for (; script_traffic_get(full->target, from, &pdu); from++) {
		if (get_be32(pdu.header + 16) != itt)
			continue;
		if (pdu.to_target && (pdu.header[0] & 0x3f) == DATA_OUT)
			*(get_be32(pdu.header + 20) == NO_TAG ? &sent.unsolicited : &sent.asked) +=
			    pdu.length;
		sent.r2ts += !pdu.to_target && (pdu.header[0] & 0x3f) == R2T;
	}
	return sent;
}

static struct sent write_once(struct full *full, size_t length, unsigned seed)
{
	unsigned mark = full_mark(full);

	full_must_write(full, MIB(1), length, seed);
	struct sent sent = how_it_left(full, mark);
	cr_assert_eq(sent.immediate + sent.unsolicited + sent.asked, MIN(length, KIB(256)));
	return sent;
}

/* ---- InitialR2T and ImmediateData ---- */

static const size_t lengths[] = {512, 4096, 8192, 12288, KIB(64), KIB(256), MIB(1)};

#define EACH_LENGTH(i) for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++)

Test(data_out, InitialR2T_Yes_ImmediateData_Yes_sends_immediate_data_alone__rfc7143_13_10)
{
	struct full full = full_begin(
	    &(struct script_parameters){
	        .initial_r2t = true, .receive_segment = 8192, .first_burst = 65536},
	    NULL);

	EACH_LENGTH(i)
	{
		struct sent sent = write_once(&full, lengths[i], i);

		cr_assert_eq(sent.immediate, MIN(lengths[i], 8192));
		cr_assert_eq(sent.unsolicited, 0);
		cr_assert(sent.final);
	}
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_out, InitialR2T_Yes_ImmediateData_No_sends_nothing_unasked__rfc7143_13_10)
{
	struct full full = full_begin(
	    &(struct script_parameters){.initial_r2t = true, .no_immediate_data = true}, NULL);

	EACH_LENGTH(i)
	{
		struct sent sent = write_once(&full, lengths[i], i);

		cr_assert_eq(sent.immediate + sent.unsolicited, 0);
		cr_assert(sent.final);
	}
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_out, InitialR2T_No_ImmediateData_Yes_sends_both__rfc7143_13_10)
{
	struct full full = full_begin(
	    &(struct script_parameters){.receive_segment = 8192, .first_burst = 65536}, NULL);

	EACH_LENGTH(i)
	{
		struct sent sent = write_once(&full, lengths[i], i);

		cr_assert_eq(sent.immediate, MIN(lengths[i], 8192));
		cr_assert_eq(sent.immediate + sent.unsolicited, MIN(lengths[i], 65536));
		cr_assert_eq(sent.final, sent.unsolicited == 0);
	}
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_out, InitialR2T_No_ImmediateData_No_sends_Data_Out_unasked__rfc7143_13_11)
{
	struct full full = full_begin(
	    &(struct script_parameters){
	        .no_immediate_data = true, .receive_segment = 8192, .first_burst = 65536},
	    NULL);

	EACH_LENGTH(i)
	{
		struct sent sent = write_once(&full, lengths[i], i);

		cr_assert_eq(sent.immediate, 0);
		cr_assert_eq(sent.unsolicited, MIN(lengths[i], 65536));
		cr_assert(!sent.final);
	}
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* ---- FirstBurstLength ---- */

static void begins_with_a_burst_of(uint32_t first_burst)
{
	struct full full =
	    full_begin(&(struct script_parameters){.first_burst = first_burst}, NULL);

	EACH_LENGTH(i)
	{
		struct sent sent = write_once(&full, lengths[i], i);

		cr_assert_leq(sent.immediate + sent.unsolicited, first_burst);
		cr_assert_eq(sent.asked == 0,
		    MIN(lengths[i], KIB(256)) == sent.immediate + sent.unsolicited);
	}
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_out, a_FirstBurstLength_of_512_is_kept__rfc7143_13_14)
{
	begins_with_a_burst_of(512);
}

Test(data_out, a_FirstBurstLength_of_4096_is_kept__rfc7143_13_14)
{
	begins_with_a_burst_of(4096);
}

Test(data_out, a_FirstBurstLength_of_5000_is_kept__rfc7143_13_14)
{
	begins_with_a_burst_of(5000);
}

Test(data_out, a_FirstBurstLength_of_65536_is_kept__rfc7143_13_14)
{
	begins_with_a_burst_of(65536);
}

Test(data_out, what_is_shorter_than_FirstBurstLength_waits_for_no_R2T__rfc7143_13_14)
{
	struct full full = full_begin(&(struct script_parameters){.receive_segment = 4096}, NULL);

	EACH_LENGTH(i)
	{
		struct sent sent = write_once(&full, lengths[i], i);

		cr_assert_eq(sent.asked, 0);
		cr_assert_eq(sent.r2ts, 0);
	}
	full_end(&full);
}

/* ---- MaxRecvDataSegmentLength ---- */

static void sends_segments_of(uint32_t length)
{
	struct full full = full_begin(
	    &(struct script_parameters){
	        .receive_segment = length, .first_burst = 16384, .max_burst = 65536},
	    NULL);
	struct script_traffic pdu;

	EACH_LENGTH(i)
	write_once(&full, lengths[i], i);
	for (unsigned i = full.from; script_traffic_get(full.target, i, &pdu); i++)
		cr_assert(!pdu.to_target || pdu.length <= length, "%u bytes in opcode %02x",
		    pdu.length, pdu.header[0]);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_out, segments_of_512_bytes_are_kept__rfc7143_13_12)
{
	sends_segments_of(512);
}

Test(data_out, segments_of_1000_bytes_are_kept__rfc7143_13_12)
{
	sends_segments_of(1000);
}

Test(data_out, segments_of_1024_bytes_are_kept__rfc7143_13_12)
{
	sends_segments_of(1024);
}

Test(data_out, segments_of_8192_bytes_are_kept__rfc7143_13_12)
{
	sends_segments_of(8192);
}

Test(data_out, segments_of_65536_bytes_are_kept__rfc7143_13_12)
{
	sends_segments_of(65536);
}

/* Takes what the target declares out of its answers. */
static bool declare_nothing(struct script_hook *hook, GByteArray *pdu, void *own)
{
	static const char key[] = "MaxRecvDataSegmentLength=";

	(void)hook;
	(void)own;
	if ((pdu->data[0] & 0x3f) != LOGIN_RESPONSE)
		return true;
	for (guint at = 48; at < pdu->len;) {
		const char *pair = (const char *)pdu->data + at;
		guint length = (guint)strnlen(pair, pdu->len - at) + 1;

		if (strncmp(pair, key, strlen(key)) == 0)
			g_byte_array_remove_range(pdu, at, MIN(length, pdu->len - at));
		else
			at += length;
	}
	return true;
}

Test(data_out, who_declares_nothing_is_sent_8192_bytes_at_most__rfc7143_13_12)
{
	struct full full = full_target(&(struct script_parameters){.receive_segment = 8192});

	script_target_hook(full.target, &(struct script_hooks){.leaves = declare_nothing});
	full_mount(&full, NULL);
	EACH_LENGTH(i)
	write_once(&full, lengths[i], i);
	cr_assert_gt(full_count(&full, full.from, true, DATA_OUT), 0);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* ---- R2T ---- */

#define ALL_ASKED_FOR .initial_r2t = true, .no_immediate_data = true

Test(data_out, a_single_R2T_is_answered_with_its_data__rfc7143_11_8)
{
	struct full full = full_begin(&(struct script_parameters){ALL_ASKED_FOR}, NULL);
	struct sent sent = write_once(&full, KIB(128), 1);

	cr_assert_eq(sent.r2ts, 1);
	cr_assert_eq(sent.asked, KIB(128));
	full_end(&full);
}

Test(data_out, many_R2Ts_in_a_row_are_answered_each_with_a_sequence__rfc7143_11_8)
{
	struct full full = full_begin(
	    &(struct script_parameters){ALL_ASKED_FOR, .max_burst = 4096, .receive_segment = 1024},
	    NULL);
	struct sent sent = write_once(&full, KIB(256), 1);

	cr_assert_eq(sent.r2ts, 64);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

static void asks_for_lengths_of(uint32_t length, uint32_t first_burst, uint32_t segment)
{
	struct full full = full_begin(
	    &(struct script_parameters){
	        .first_burst = first_burst, .receive_segment = segment, .r2t_length = length},
	    NULL);

	EACH_LENGTH(i)
	write_once(&full, lengths[i], i);
	cr_assert_gt(full_count(&full, full.from, false, R2T), KIB(256) / length);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_out, R2Ts_of_odd_lengths_and_offsets_are_answered_to_the_byte__rfc7143_11_8_4)
{
	asks_for_lengths_of(12347, 512, 8192);
}

Test(data_out, R2Ts_of_odd_lengths_in_odd_segments_are_answered_to_the_byte__rfc7143_11_8_4)
{
	asks_for_lengths_of(7919, 1001, 1999);
}

Test(data_out, R2Ts_of_a_few_bytes_are_answered_to_the_byte__rfc7143_11_8_4)
{
	struct full full =
	    full_begin(&(struct script_parameters){ALL_ASKED_FOR, .r2t_length = 13}, NULL);

	write_once(&full, 4096, 1);
	write_once(&full, 8192, 2);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* Each command's are its own, and other commands come and go in between. */
Test(data_out, R2Ts_of_commands_that_are_under_way_at_once_are_told_apart__rfc7143_11_8)
{
	struct full full = full_begin(
	    &(struct script_parameters){ALL_ASKED_FOR, .r2t_length = 5000, .receive_segment = 2048},
	    NULL);
	struct io_job jobs[12];

	script_target_latency(full.target, 2); /* several are asked before one is answered */
	for (unsigned i = 0; i < 12; i++)
		jobs[i] = i % 3 == 2 ? full_read_of(&full, i * PIECE, PIECE)
		                     : full_write_of(&full, MIB(2) + i * PIECE, PIECE, i);
	full_must_do_at_once(jobs, 12);
	for (unsigned i = 0; i < 12; i++)
		if (jobs[i].writes)
			full_must_hold(&full, jobs[i].offset, PIECE, i);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_out, Data_Out_has_the_LUN_and_the_tag_of_its_R2T__rfc7143_11_7_4)
{
	struct full full =
	    full_target(&(struct script_parameters){ALL_ASKED_FOR, .max_burst = 4096});
	unsigned mark, i;
	struct script_traffic pdu;

	script_target_add_lun(full.target, 300, MIB(1), 512);
	full_mount(&full, NULL);
	struct io_job job = full_write_of(&full, 0, PIECE, 1);
	job.path = text(full.scene.stage, "%s/lun300.img", full.scene.mnt);
	mark = i = full_mark(&full);
	cr_assert_eq(full_do(job), 0);
	cr_assert_geq(full_count(&full, mark, true, DATA_OUT), 16);
	while (full_find(&full, &i, true, DATA_OUT, &pdu)) {
		cr_assert_arr_eq(pdu.header + 8, ((uint8_t[8]){0x41, 44}), 8, "another LUN");
		cr_assert_neq(get_be32(pdu.header + 20), NO_TAG);
	}
	full_end(&full);
}

Test(data_out, unsolicited_Data_Out_has_the_reserved_tag__rfc7143_11_7_4)
{
	struct full full = full_begin(
	    &(struct script_parameters){.no_immediate_data = true, .receive_segment = 4096}, NULL);
	unsigned i;
	struct script_traffic pdu;

	i = full_mark(&full);
	full_must_write(&full, 0, KIB(256), 1);
	cr_assert_eq(full_count(&full, i, true, DATA_OUT), 64);
	while (full_find(&full, &i, true, DATA_OUT, &pdu))
		cr_assert_eq(get_be32(pdu.header + 20), NO_TAG);
	full_end(&full);
}

/* ---- R2Ts that are not to be answered ---- */

struct spoiled_r2t {
	unsigned times, field; /* where in the header */
	uint32_t value;
};

static bool spoil_r2t(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct spoiled_r2t *spoiled = own;

	(void)hook;
	if ((pdu->data[0] & 0x3f) != R2T || spoiled->times == 0)
		return true;
	spoiled->times--;
	put_be32(pdu->data + spoiled->field, spoiled->value);
	return true;
}

static void refuses_an_R2T(unsigned field, uint32_t value)
{
	struct full full =
	    full_begin(&(struct script_parameters){ALL_ASKED_FOR, .max_burst = 16384}, NULL);
	struct spoiled_r2t spoiled = {1, field, value};

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = spoil_r2t, .own = &spoiled});
	full_must_write(&full, 0, PIECE, 1);
	cr_assert_eq(spoiled.times, 0);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(data_out, an_R2T_beyond_the_data_is_refused__rfc7143_11_8_4)
{
	refuses_an_R2T(40, PIECE);
}

Test(data_out, an_R2T_beyond_MaxBurstLength_is_refused__rfc7143_13_13)
{
	refuses_an_R2T(44, 16384 + 512);
}

Test(data_out, an_R2T_for_nothing_is_refused__rfc7143_11_8_4)
{
	refuses_an_R2T(44, 0);
}

Test(data_out, an_R2T_for_no_command_is_refused__rfc7143_11_8)
{
	refuses_an_R2T(16, 0x5a5a5a5a);
}

Test(data_out, an_R2T_with_the_reserved_tag_is_refused__rfc7143_11_8_5)
{
	refuses_an_R2T(20, NO_TAG);
}

Test(data_out, a_gap_in_R2TSN_is_refused__rfc7143_11_8_3)
{
	refuses_an_R2T(36, 1);
}

/* ---- what is immediate, while data is on its way ---- */

/* Right behind an R2T. */
static bool add_a_ping(struct script_hook *hook, GByteArray *pdu, void *own)
{
	uint8_t ping[48];

	(void)own;
	if ((pdu->data[0] & 0x3f) != R2T)
		return true;
	script_hook_send(hook, pdu->data, NULL, 0);
	script_hook_header(hook, ping, NOP_IN, NO_TAG, false);
	put_be32(ping + 20, 0x1234);
	script_hook_send(hook, ping, NULL, 0);
	return false;
}

Test(data_out, a_NOP_In_is_answered_while_data_is_on_its_way__rfc7143_11_18)
{
	struct full full =
	    full_begin(&(struct script_parameters){ALL_ASKED_FOR, .receive_segment = 4096}, NULL);
	unsigned mark = full_mark(&full);

	script_target_hook(full.target, &(struct script_hooks){.leaves = add_a_ping});
	full_must_write(&full, 0, PIECE, 1);
	full_must_be_the_same_session(&full);
	struct script_traffic command = full_nth(&full, mark, true, SCSI_COMMAND, 0);
	struct script_traffic pong = full_nth(&full, mark, true, NOP_OUT, 0);
	cr_assert_eq(get_be32(pong.header + 24), get_be32(command.header + 24) + 1,
	    "CmdSN %u, not %u", get_be32(pong.header + 24), get_be32(command.header + 24) + 1);
	full_end(&full);
}
