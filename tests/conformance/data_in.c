/*
 * data_in.c - what comes for a READ: in whatever form it is allowed to, it is put together; where
 * anything of it is missing or wrong, not one old byte is taken for data: the session is begun anew
 * and the command done again (RFC 7143, 7, 11.4, 11.7).
 *
 * A hook replaces the one Data-In that the target answers a READ of a PIECE with.
 */
#include "full.h"

#include <string.h>

TestSuite(data_in, .timeout = 120);

/* Flags of Data-In and SCSI Response */
enum { ACKNOWLEDGE = 0x40, OVERFLOW = 0x04, UNDERFLOW = 0x02, STATUS = 0x01 };

#define BLOCK 512u
#define HALF  (PIECE / 2)

/* ---- answers ---- */

struct answer {
	struct script_hook *hook;
	const uint8_t *header, *data; /* of the PDU that is replaced, with status, of PIECE bytes */
	uint32_t datasn;              /* of the next */
};

static void send(struct answer *answer, uint8_t *header, const void *data, uint32_t length)
{
	/* tag, and the numbers that come with a status */
	memcpy(header + 16, answer->header + 16, 4);
	memcpy(header + 24, answer->header + 24, 12);
	script_hook_send(answer->hook, header, data, length);
}

/* Where flags have S, the residual counts. */
static void data_in_of(struct answer *answer, uint32_t offset, uint32_t length, uint8_t flags,
    uint32_t datasn, uint32_t residual)
{
	uint8_t header[48] = {DATA_IN, flags};

	put_be32(header + 20, NO_TAG);
	put_be32(header + 36, datasn);
	put_be32(header + 40, offset);
	put_be32(header + 44, residual);
	send(answer, header, answer->data + offset, length);
}

static void data_in(struct answer *answer, uint32_t offset, uint32_t length, uint8_t flags)
{
	data_in_of(answer, offset, length, flags, answer->datasn++, 0);
}

static void response_of(struct answer *answer, uint8_t flags, uint8_t code, uint8_t status,
    uint32_t exp_datasn, uint32_t residual)
{
	uint8_t header[48] = {SCSI_RESPONSE, FINAL | flags, code, status};

	put_be32(header + 36, exp_datasn);
	put_be32(header + 44, residual);
	send(answer, header, NULL, 0);
}

static void good(struct answer *answer)
{
	response_of(answer, 0, 0, 0, answer->datasn, 0);
}

/* ---- the hook ---- */

struct shape {
	void (*give)(struct answer *answer);
	unsigned times; /* of READs to come */
};

static bool reshape(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct shape *shape = own;
	struct answer answer = {hook, pdu->data, pdu->data + 48, 0};

	if (shape->times == 0 || pdu->len != 48 + PIECE || (pdu->data[0] & 0x3f) != DATA_IN ||
	    (pdu->data[1] & (FINAL | STATUS)) != (FINAL | STATUS))
		return true;
	shape->times--;
	shape->give(&answer);
	return false;
}

/* Buffers of the reader are full of other bytes. */
static struct full begin_with_old_bytes(struct shape *shape)
{
	struct full full = full_begin(NULL, NULL);

	for (unsigned i = 0; i < 4; i++)
		full_must_read(&full, MIB(1) + i * PIECE, PIECE);
	script_target_hook(full.target, &(struct script_hooks){.leaves = reshape, .own = shape});
	return full;
}

/* It is as it should be, and is taken so: thrice, each time another piece. */
static void is_put_together(void (*give)(struct answer *answer))
{
	struct shape shape = {give, 3};
	struct full full = begin_with_old_bytes(&shape);

	for (unsigned i = 0; i < 3; i++)
		full_must_read(&full, i * PIECE, PIECE);
	cr_assert_eq(shape.times, 0);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* What came is not to be believed. */
static void is_done_again(void (*give)(struct answer *answer))
{
	struct shape shape = {give, 1};
	struct full full = begin_with_old_bytes(&shape);
	unsigned reads = script_target_command_count(full.target, SCRIPT_READ);

	full_must_read(&full, 0, PIECE);
	cr_assert_eq(shape.times, 0);
	cr_assert_geq(script_target_command_count(full.target, SCRIPT_READ), reads + 2,
	    "it was not done again");
	full_must_be_begun_anew(&full, 1);
	full_must_read(&full, PIECE, PIECE);
	full_end(&full);
}

/* Whatever is made of it, no old byte is; and I/O goes on. */
static void gives_no_old_byte(void (*give)(struct answer *answer))
{
	struct shape shape = {give, 1};
	struct full full = begin_with_old_bytes(&shape);

	full_must_read(&full, 0, PIECE);
	cr_assert_eq(shape.times, 0);
	full_must_read(&full, PIECE, PIECE);
	full_end(&full);
}

/* Two tests of one form each. */
#define PUT_TOGETHER(name)                                                                         \
	static void give_##name(struct answer *answer);                                            \
	Test(data_in, name)                                                                        \
	{                                                                                          \
		is_put_together(give_##name);                                                      \
	}                                                                                          \
	static void give_##name(struct answer *answer)

#define DONE_AGAIN(name)                                                                           \
	static void give_##name(struct answer *answer);                                            \
	Test(data_in, name)                                                                        \
	{                                                                                          \
		is_done_again(give_##name);                                                        \
	}                                                                                          \
	static void give_##name(struct answer *answer)

/* ---- as it may be ---- */

static void give_in_pieces_of(struct answer *answer, uint32_t length)
{
	for (uint32_t at = 0, next; at < PIECE; at = next) {
		next = MIN(at + length, PIECE);
		data_in(answer, at, next - at, next == PIECE ? FINAL | STATUS : 0);
	}
}

PUT_TOGETHER(data_in_PDUs_of_a_block_is_put_together__rfc7143_11_7)
{
	give_in_pieces_of(answer, BLOCK);
}

PUT_TOGETHER(data_in_PDUs_of_odd_lengths_is_put_together__rfc7143_11_7)
{
	give_in_pieces_of(answer, 1237);
}

PUT_TOGETHER(data_in_PDUs_of_3_bytes_and_a_long_one_is_put_together__rfc7143_11_7)
{
	for (uint32_t at = 0; at < 90; at += 3)
		data_in(answer, at, 3, 0);
	data_in(answer, 90, PIECE - 91, 0);
	data_in(answer, PIECE - 1, 1, FINAL | STATUS);
}

PUT_TOGETHER(data_in_several_sequences_is_put_together__rfc7143_11_7_1)
{
	for (uint32_t at = 0; at < PIECE; at += 4096)
		data_in(answer, at, 4096,
		    at + 4096 == PIECE       ? FINAL | STATUS
		    : at % 16384 == 3 * 4096 ? FINAL
		                             : 0);
}

PUT_TOGETHER(a_status_of_its_own_ends_the_command__rfc7143_11_4)
{
	data_in(answer, 0, HALF, 0);
	data_in(answer, HALF, HALF, FINAL);
	good(answer);
}

/* DataSN, then, counts it. */
PUT_TOGETHER(an_empty_Data_In_at_the_end_is_harmless__rfc7143_11_7)
{
	data_in(answer, 0, PIECE, 0);
	data_in_of(answer, PIECE, 0, FINAL | STATUS, answer->datasn++, 0);
}

PUT_TOGETHER(an_empty_Data_In_at_the_begin_is_harmless__rfc7143_11_7)
{
	data_in(answer, 0, 0, 0);
	data_in(answer, 0, PIECE, FINAL | STATUS);
}

PUT_TOGETHER(an_empty_Data_In_in_the_middle_is_harmless__rfc7143_11_7)
{
	data_in(answer, 0, HALF, 0);
	data_in(answer, HALF, 0, 0);
	data_in(answer, HALF, HALF, FINAL | STATUS);
}

/* Residual counts are valid only with their flags. */
PUT_TOGETHER(a_residual_count_without_its_flags_counts_for_nothing__rfc7143_11_4_5)
{
	data_in_of(answer, 0, PIECE, FINAL | STATUS, answer->datasn++, 4096);
}

/* Pieces of several commands, one by one in turn. */
struct turns {
	unsigned held;
	uint8_t headers[4][48];
	uint8_t data[4][KIB(4)];
};

static bool interleave(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct turns *turns = own;

	if ((pdu->data[0] & 0x3f) != DATA_IN || pdu->len != 48 + KIB(4) || turns->held == 4)
		return true;
	memcpy(turns->headers[turns->held], pdu->data, 48);
	memcpy(turns->data[turns->held], pdu->data + 48, KIB(4));
	if (++turns->held < 4)
		return false;
	for (uint32_t part = 0; part < 4; part++)
		for (unsigned i = 0; i < 4; i++) {
			struct answer answer = {hook, turns->headers[i], turns->data[i], part};

			data_in(&answer, part * KIB(1), KIB(1), part == 3 ? FINAL | STATUS : 0);
		}
	return false;
}

Test(data_in, data_of_several_commands_in_turn_is_put_together__rfc7143_4_2_5_2)
{
	struct full full = full_begin(NULL, NULL);
	g_autofree struct turns *turns = g_new0(struct turns, 1);

	script_target_hook(full.target, &(struct script_hooks){.leaves = interleave, .own = turns});
	full_must_read_at_once(&full, 4);
	cr_assert_eq(turns->held, 4);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(data_in, a_long_READ_in_many_sequences_is_put_together__rfc7143_13_13)
{
	struct full full = full_begin(
	    &(struct script_parameters){.max_burst = 8192, .separate_status = true}, NULL);

	full_must_read(&full, 0, MIB(1));
	full_must_read(&full, MIB(1), MIB(1));
	full_must_be_the_same_session(&full);
	full_end(&full);
}

/* ---- DataSN ---- */

DONE_AGAIN(a_gap_in_DataSN_is_noticed__rfc7143_11_7_5)
{
	data_in(answer, 0, HALF, 0);
	answer->datasn++;
	data_in(answer, HALF, HALF, FINAL | STATUS);
}

DONE_AGAIN(a_DataSN_that_does_not_begin_with_0_is_noticed__rfc7143_11_7_5)
{
	answer->datasn = 1;
	data_in(answer, 0, PIECE, FINAL | STATUS);
}

DONE_AGAIN(a_DataSN_that_comes_twice_is_noticed__rfc7143_11_7_5)
{
	data_in_of(answer, 0, HALF, 0, 0, 0);
	data_in_of(answer, HALF, HALF, FINAL | STATUS, 0, 0);
}

DONE_AGAIN(a_missing_first_PDU_is_noticed__rfc7143_7_8)
{
	answer->datasn = 1;
	data_in(answer, HALF, HALF, FINAL | STATUS);
}

DONE_AGAIN(a_missing_PDU_in_the_middle_is_noticed__rfc7143_7_8)
{
	data_in(answer, 0, 4096, 0);
	answer->datasn++;
	data_in(answer, 8192, PIECE - 8192, FINAL | STATUS);
}

DONE_AGAIN(a_missing_last_PDU_is_noticed__rfc7143_11_4_8)
{
	data_in(answer, 0, HALF, 0);
	response_of(answer, 0, 0, 0, 2, 0);
}

/* ---- offsets ---- */

/* As much as expected, but not all of it: DataSN is right. */
DONE_AGAIN(data_that_overlaps_is_noticed__rfc7143_13_18)
{
	data_in(answer, 0, HALF, 0);
	data_in(answer, 4096, HALF, FINAL | STATUS);
}

DONE_AGAIN(data_that_came_already_is_noticed__rfc7143_13_18)
{
	data_in(answer, 0, HALF, 0);
	data_in(answer, 0, HALF, FINAL | STATUS);
}

DONE_AGAIN(a_hole_between_two_PDUs_is_noticed__rfc7143_13_18)
{
	data_in(answer, 0, 4096, 0);
	data_in(answer, 8192, PIECE - 8192, FINAL | STATUS);
}

DONE_AGAIN(data_out_of_order_is_noticed__rfc7143_13_18)
{
	data_in(answer, HALF, HALF, 0);
	data_in(answer, 0, HALF, FINAL | STATUS);
}

DONE_AGAIN(data_one_byte_off_is_noticed__rfc7143_11_7_4)
{
	data_in(answer, 1, PIECE - 1, FINAL | STATUS);
}

static void give_behind(struct answer *answer, uint32_t offset)
{
	uint8_t header[48] = {DATA_IN, FINAL | STATUS};

	put_be32(header + 20, NO_TAG);
	put_be32(header + 36, answer->datasn++);
	put_be32(header + 40, offset);
	send(answer, header, answer->data, BLOCK);
}

DONE_AGAIN(data_beyond_the_expected_length_is_noticed__rfc7143_11_7)
{
	data_in(answer, 0, PIECE, 0);
	give_behind(answer, PIECE);
}

DONE_AGAIN(data_that_ends_beyond_the_expected_length_is_noticed__rfc7143_11_7)
{
	data_in(answer, 0, PIECE - 256, 0);
	give_behind(answer, PIECE - 256);
}

DONE_AGAIN(an_offset_beyond_all_bounds_is_noticed__rfc7143_11_7)
{
	give_behind(answer, 0xfffffe00u);
}

/* ---- lengths ---- */

DONE_AGAIN(GOOD_without_data_is_noticed__rfc7143_11_4)
{
	good(answer);
}

DONE_AGAIN(an_empty_Data_In_with_GOOD_is_noticed__rfc7143_11_7)
{
	data_in(answer, 0, 0, FINAL | STATUS);
}

DONE_AGAIN(GOOD_behind_one_block_less_is_noticed__rfc7143_11_4)
{
	data_in(answer, 0, PIECE - BLOCK, FINAL | STATUS);
}

DONE_AGAIN(GOOD_behind_one_byte_less_is_noticed__rfc7143_11_4)
{
	data_in(answer, 0, PIECE - 1, FINAL | STATUS);
}

DONE_AGAIN(GOOD_apart_behind_half_of_the_data_is_noticed__rfc7143_11_4)
{
	data_in(answer, 0, HALF, FINAL);
	good(answer);
}

DONE_AGAIN(an_underflow_with_as_much_less_is_noticed__rfc7143_11_4_5)
{
	data_in_of(answer, 0, HALF, FINAL | STATUS | UNDERFLOW, 0, HALF);
}

DONE_AGAIN(an_underflow_though_all_came_is_noticed__rfc7143_11_4_5)
{
	data_in_of(answer, 0, PIECE, FINAL | STATUS | UNDERFLOW, 0, BLOCK);
}

DONE_AGAIN(an_overflow_is_noticed__rfc7143_11_4_5)
{
	data_in_of(answer, 0, PIECE, FINAL | STATUS | OVERFLOW, 0, BLOCK);
}

DONE_AGAIN(underflow_and_overflow_at_once_are_noticed__rfc7143_11_4_1)
{
	data_in_of(answer, 0, PIECE, FINAL | STATUS | UNDERFLOW | OVERFLOW, 0, BLOCK);
}

DONE_AGAIN(an_underflow_of_all_with_a_status_apart_is_noticed__rfc7143_11_4_5)
{
	response_of(answer, UNDERFLOW, 0, 0, 0, PIECE);
}

DONE_AGAIN(an_overflow_with_a_status_apart_is_noticed__rfc7143_11_4_5)
{
	data_in(answer, 0, PIECE, FINAL);
	response_of(answer, OVERFLOW, 0, 0, 1, BLOCK);
}

/* ---- flags and status ---- */

DONE_AGAIN(S_without_F_is_noticed__rfc7143_11_7_3)
{
	data_in(answer, 0, PIECE, STATUS);
	good(answer);
}

DONE_AGAIN(a_response_without_F_is_noticed__rfc7143_11_4_1)
{
	uint8_t header[48] = {SCSI_RESPONSE, 0};

	data_in(answer, 0, PIECE, FINAL);
	put_be32(header + 36, 1);
	send(answer, header, NULL, 0);
}

DONE_AGAIN(target_failure_with_GOOD_is_noticed__rfc7143_11_4_3)
{
	data_in(answer, 0, PIECE, FINAL);
	response_of(answer, 0, 0x01, 0, 0, 0);
}

DONE_AGAIN(a_vendors_response_code_with_GOOD_is_noticed__rfc7143_11_4_3)
{
	data_in(answer, 0, PIECE, FINAL);
	response_of(answer, 0, 0x80, 0, 0, 0);
}

/* Where nothing is to be recovered there is no DataACK. */
DONE_AGAIN(a_request_for_DataACK_is_noticed__rfc7143_11_7_2)
{
	data_in(answer, 0, PIECE, FINAL | STATUS | ACKNOWLEDGE);
}

DONE_AGAIN(data_behind_the_status_is_noticed__rfc7143_11_7)
{
	data_in(answer, 0, HALF, FINAL | STATUS);
	data_in(answer, HALF, HALF, FINAL);
}

DONE_AGAIN(data_of_another_tag_is_noticed__rfc7143_11_7)
{
	uint8_t header[48] = {DATA_IN, FINAL | STATUS};

	put_be32(header + 16, 0x5a5a5a5a);
	put_be32(header + 20, NO_TAG);
	memcpy(header + 24, answer->header + 24, 12);
	script_hook_send(answer->hook, header, answer->data, PIECE);
}

/* ---- answers of another kind ---- */

static void give_another_kind(struct answer *answer, uint8_t opcode)
{
	uint8_t header[48] = {opcode, FINAL};

	put_be32(header + 20, NO_TAG);
	send(answer, header, NULL, 0);
}

DONE_AGAIN(a_NOP_In_in_answer_to_a_READ_is_noticed__rfc7143_11_2_1_8)
{
	give_another_kind(answer, NOP_IN);
}

DONE_AGAIN(a_Task_Management_Response_in_answer_to_a_READ_is_noticed__rfc7143_11_2_1_8)
{
	give_another_kind(answer, MANAGED);
}

DONE_AGAIN(a_Text_Response_in_answer_to_a_READ_is_noticed__rfc7143_11_2_1_8)
{
	give_another_kind(answer, 0x24);
}

DONE_AGAIN(a_Logout_Response_in_answer_to_a_READ_is_noticed__rfc7143_11_2_1_8)
{
	give_another_kind(answer, LOGOUT_RESPONSE);
}

DONE_AGAIN(an_R2T_in_answer_to_a_READ_is_noticed__rfc7143_11_8)
{
	uint8_t header[48] = {R2T, FINAL};

	put_be32(header + 44, BLOCK);
	send(answer, header, NULL, 0);
}

/* ---- other statuses ---- */

/* The data came, and yet the command is to be done again: BUSY says nothing of it. */
static void give_busy(struct answer *answer)
{
	uint8_t header[48] = {DATA_IN, FINAL | STATUS, 0, 0x08};

	put_be32(header + 20, NO_TAG);
	send(answer, header, answer->data, HALF);
}

Test(data_in, BUSY_in_a_Data_In_is_no_GOOD__rfc7143_11_7_3)
{
	gives_no_old_byte(give_busy);
}

/* A command that fails on its way is done again: its first half counts for nothing. */
static void give_sense_behind_a_half(struct answer *answer)
{
	static const uint8_t sense[20] = {
	    0, 18, 0x70, 0, SENSE_ABORTED_COMMAND, [9] = 10, [14] = 0x4b, 0x00};
	uint8_t header[48] = {SCSI_RESPONSE, FINAL | UNDERFLOW, 0, SAM_CHECK_CONDITION};

	data_in(answer, 0, HALF, FINAL);
	put_be32(header + 36, 1);
	put_be32(header + 44, HALF);
	send(answer, header, sense, sizeof(sense));
}

Test(data_in, sense_behind_half_of_the_data_is_no_GOOD__rfc7143_11_4_7)
{
	gives_no_old_byte(give_sense_behind_a_half);
}

/* SenseLength counts, not the segment's: Response Data may follow. */
static void give_sense_with_more_behind_it(struct answer *answer)
{
	static const uint8_t sense[64] = {
	    0, 18, 0x70, 0, SENSE_ABORTED_COMMAND, [9] = 10, [14] = 0x4b, 0x00, [20] = 0xff, 0xff};
	uint8_t header[48] = {SCSI_RESPONSE, FINAL | UNDERFLOW, 0, SAM_CHECK_CONDITION};

	put_be32(header + 44, PIECE);
	send(answer, header, sense, sizeof(sense));
}

Test(data_in, response_data_behind_the_sense_is_none_of_it__rfc7143_11_4_7)
{
	gives_no_old_byte(give_sense_with_more_behind_it);
}

/* Of an INQUIRY less may come than there is room for. */
Test(data_in, an_underflow_of_an_INQUIRY_is_no_fault__rfc7143_11_4_5)
{
	struct full full = full_begin(NULL, NULL);
	struct script_traffic pdu;
	unsigned i = 0, short_ones = 0;

	while (full_find(&full, &i, false, DATA_IN, &pdu))
		short_ones += (pdu.header[1] & UNDERFLOW) != 0;
	cr_assert_gt(short_ones, 0);
	cr_assert_eq(full.logins, 1, "it logged in %u times", full.logins);
	full_end(&full);
}
