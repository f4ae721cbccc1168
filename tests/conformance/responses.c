/*
 * responses.c - how a WRITE ends: what is no plain GOOD is not believed, the session is begun anew
 * and the data written again (RFC 7143, 11.4).
 */
#include "full.h"

#include <string.h>

TestSuite(responses, .timeout = 120);

/* Flags of Data-In and SCSI Response */
enum { OVERFLOW = 0x04, UNDERFLOW = 0x02, STATUS = 0x01 };

#define BLOCK 512u

struct answer {
	struct script_hook *hook;
	const uint8_t *header; /* of the response that is replaced */
};

static void send(struct answer *answer, uint8_t *header, const void *data, uint32_t length)
{
	/* tag, numbers, and how many R2Ts there were */
	memcpy(header + 16, answer->header + 16, 4);
	memcpy(header + 24, answer->header + 24, 16);
	script_hook_send(answer->hook, header, data, length);
}

static void respond(struct answer *answer, uint8_t flags, uint8_t code, uint32_t residual)
{
	uint8_t header[48] = {SCSI_RESPONSE, FINAL | flags, code};

	put_be32(header + 44, residual);
	send(answer, header, NULL, 0);
}

struct spoiled {
	void (*give)(struct answer *answer);
	unsigned times;
};

static bool spoil_response(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct spoiled *spoiled = own;
	struct answer answer = {hook, pdu->data};

	if (spoiled->times == 0 || (pdu->data[0] & 0x3f) != SCSI_RESPONSE)
		return true;
	spoiled->times--;
	spoiled->give(&answer);
	return false;
}

static void is_written_again(void (*give)(struct answer *answer))
{
	struct full full = full_begin(NULL, NULL);
	struct spoiled spoiled = {give, 1};
	unsigned writes = script_target_command_count(full.target, SCRIPT_WRITE);

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = spoil_response, .own = &spoiled});
	full_must_write(&full, 0, PIECE, 1);
	cr_assert_eq(spoiled.times, 0);
	cr_assert_geq(script_target_command_count(full.target, SCRIPT_WRITE), writes + 2,
	    "it was not done again");
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

#define WRITTEN_AGAIN(name)                                                                        \
	static void give_##name(struct answer *answer);                                            \
	Test(responses, name)                                                                      \
	{                                                                                          \
		is_written_again(give_##name);                                                     \
	}                                                                                          \
	static void give_##name(struct answer *answer)

WRITTEN_AGAIN(target_failure_with_GOOD_for_a_WRITE_is_noticed__rfc7143_11_4_3)
{
	respond(answer, 0, 0x01, 0);
}

WRITTEN_AGAIN(an_underflow_of_a_WRITE_is_noticed__rfc7143_11_4_5)
{
	respond(answer, UNDERFLOW, 0, BLOCK);
}

WRITTEN_AGAIN(an_overflow_of_a_WRITE_is_noticed__rfc7143_11_4_5)
{
	respond(answer, OVERFLOW, 0, BLOCK);
}

WRITTEN_AGAIN(a_response_without_F_to_a_WRITE_is_noticed__rfc7143_11_4_1)
{
	uint8_t header[48] = {SCSI_RESPONSE, 0};

	send(answer, header, NULL, 0);
}

WRITTEN_AGAIN(Data_In_for_a_WRITE_is_noticed__rfc7143_11_7)
{
	uint8_t header[48] = {DATA_IN, FINAL | STATUS};
	static const uint8_t zeros[BLOCK];

	put_be32(header + 20, NO_TAG);
	send(answer, header, zeros, BLOCK);
}

WRITTEN_AGAIN(a_response_with_another_tag_is_noticed__rfc7143_11_4)
{
	uint8_t header[48] = {SCSI_RESPONSE, FINAL};

	memcpy(header + 24, answer->header + 24, 16);
	put_be32(header + 16, 0x5a5a5a5a);
	script_hook_send(answer->hook, header, NULL, 0);
}

WRITTEN_AGAIN(a_vendors_response_code_for_a_WRITE_is_noticed__rfc7143_11_4_3)
{
	respond(answer, 0, 0xff, 0);
}

WRITTEN_AGAIN(underflow_and_overflow_of_a_WRITE_at_once_are_noticed__rfc7143_11_4_1)
{
	respond(answer, UNDERFLOW | OVERFLOW, 0, BLOCK);
}

/* ---- GOOD before the data ---- */

/* In place of its R2T: nothing, or some, of the data was taken. */
static bool say_GOOD_for_R2T(struct script_hook *hook, GByteArray *pdu, void *own)
{
	unsigned *passes = own;
	uint8_t header[48];
	uint32_t itt = get_be32(pdu->data + 16);

	if ((pdu->data[0] & 0x3f) != R2T || (*passes)-- != 0)
		return true;
	script_hook_header(hook, header, SCSI_RESPONSE, itt, true);
	script_hook_send(hook, header, NULL, 0);
	return false;
}

static void is_written_again_without_all_data(
    const struct script_parameters *parameters, unsigned r2ts)
{
	struct full full = full_begin(parameters, NULL);

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = say_GOOD_for_R2T, .own = &r2ts});
	full_must_write(&full, 0, PIECE, 1);
	full_must_be_begun_anew(&full, 1);
	full_must_hold(&full, 0, PIECE, 1);
	full_end_unjudged(&full);
}

Test(responses, GOOD_for_a_WRITE_whose_data_was_not_asked_for_is_noticed__rfc7143_11_4_5)
{
	is_written_again_without_all_data(
	    &(struct script_parameters){.initial_r2t = true, .no_immediate_data = true}, 0);
}

Test(responses, GOOD_for_a_WRITE_of_which_a_part_was_taken_is_noticed__rfc7143_11_4_5)
{
	is_written_again_without_all_data(
	    &(struct script_parameters){
	        .initial_r2t = true, .no_immediate_data = true, .r2t_length = 4096},
	    1);
}
