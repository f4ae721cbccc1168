/*
 * rejects.c - Reject, and PDUs that nobody understands (RFC 7143, 7.6, 11.17).
 */
#include "full.h"

#include <string.h>

TestSuite(rejects, .timeout = 120);

/* ---- Reject ---- */

/* SCRIPT_REJECT has a reason of its own. */
static bool reject_with(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	if ((pdu->data[0] & 0x3f) == REJECT)
		pdu->data[2] = *(const uint8_t *)own;
	return true;
}

static void outlasts_a_reject(int opcode, uint8_t reason)
{
	struct full full = full_begin(NULL, NULL);
	unsigned mark = full_mark(&full);

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = reject_with, .own = &reason});
	full_must_read(&full, MIB(1), PIECE); /* so that other bytes lie about */
	script_target_rule(full.target,
	    (struct script_rule){.opcode = opcode, .times = 1, .spoil = SCRIPT_REJECT});
	if (opcode == SCRIPT_READ)
		full_must_read(&full, 0, PIECE);
	else
		full_must_write(&full, 0, PIECE, 1);
	cr_assert_eq(full_count(&full, mark, false, REJECT), 1);
	cr_assert_geq(script_target_command_count(full.target, opcode), 2, "not done again");
	full_must_read(&full, MIB(2), PIECE);
	full_end(&full);
}

#define REJECTED(name, opcode, reason)                                                             \
	Test(rejects, name)                                                                        \
	{                                                                                          \
		outlasts_a_reject(opcode, reason);                                                 \
	}

REJECTED(a_READ_rejected_for_its_data_digest_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x02)
REJECTED(a_READ_rejected_as_a_SNACK_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x03)
REJECTED(a_READ_rejected_as_a_protocol_error_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x04)
REJECTED(a_READ_rejected_as_not_supported_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x05)
REJECTED(a_READ_rejected_as_an_immediate_one_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x06)
REJECTED(a_READ_rejected_as_a_task_in_progress_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x07)
REJECTED(a_READ_rejected_as_an_invalid_data_ack_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x08)
REJECTED(a_READ_rejected_for_a_PDU_field_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x09)
REJECTED(a_READ_rejected_as_a_long_operation_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x0a)
REJECTED(a_READ_rejected_with_a_reset_negotiation_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x0b)
REJECTED(a_READ_rejected_while_a_logout_is_awaited_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x0c)
REJECTED(a_READ_rejected_for_an_unknown_reason_is_done_again__rfc7143_11_17, SCRIPT_READ, 0x77)
REJECTED(a_WRITE_rejected_for_a_PDU_field_is_done_again__rfc7143_11_17, SCRIPT_WRITE, 0x09)
REJECTED(a_WRITE_rejected_as_a_protocol_error_is_done_again__rfc7143_11_17, SCRIPT_WRITE, 0x04)

/* ---- what is not to be understood ---- */

static void outlasts_unasked(const uint8_t header[48], const void *data, uint32_t length)
{
	struct full full = full_begin(NULL, NULL);

	script_target_send_pdu(full.target, header, data, length, true);
	script_scene_await_login(&full.scene, full.logins + 1);
	full_must_read(&full, 0, PIECE);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(rejects, an_unknown_opcode_begins_the_session_anew__rfc7143_7_6)
{
	uint8_t header[48] = {0x3b, FINAL};

	put_be32(header + 16, NO_TAG);
	outlasts_unasked(header, NULL, 0);
}

Test(rejects, an_initiators_opcode_begins_the_session_anew__rfc7143_7_6)
{
	uint8_t header[48] = {SCSI_COMMAND, FINAL};

	put_be32(header + 16, 0x12345678);
	outlasts_unasked(header, NULL, 0);
}

Test(rejects, a_Login_Response_behind_the_login_begins_the_session_anew__rfc7143_7_6)
{
	uint8_t header[48] = {LOGIN_RESPONSE, 0x87};

	put_be32(header + 16, 0x12345678);
	outlasts_unasked(header, NULL, 0);
}

Test(rejects, an_additional_header_begins_the_session_anew__rfc7143_11_2_2)
{
	struct full full = full_begin(NULL, NULL);
	uint8_t bytes[52] = {NOP_IN, FINAL, [4] = 1, [48] = 0, 1};

	memset(bytes + 16, 0xff, 8);
	script_target_send(full.target, bytes, sizeof(bytes));
	script_scene_await_login(&full.scene, full.logins + 1);
	full_must_read(&full, 0, PIECE);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(rejects, a_segment_longer_than_declared_begins_the_session_anew__rfc7143_13_12)
{
	struct full full = full_begin(NULL, NULL);
	uint8_t header[48] = {NOP_IN, FINAL};
	g_autofree uint8_t *data = g_malloc0(262144 + 4);
	unsigned times = 0;
	g_autofree char *declared =
	    script_traffic_key(full.target, full_nth(&full, 0, true, SCSI_COMMAND, 0).connection,
	        "MaxRecvDataSegmentLength", &times);

	cr_assert_str_eq(declared, "262144");
	put_be32(header + 16, NO_TAG);
	put_be32(header + 20, NO_TAG);
	script_target_send_pdu(full.target, header, data, 262144 + 4, false);
	script_scene_await_login(&full.scene, full.logins + 1);
	full_must_read(&full, 0, PIECE);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}
