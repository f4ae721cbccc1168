/*
 * test_sense.c - what answers mean: an errno, another try, and words.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "lunfs/scsi.h"

static enum sense_action judge_as(
    enum scsi_direction direction, uint8_t key, uint8_t asc, uint8_t ascq, int *error)
{
	struct scsi_command command = {
	    .status = SAM_CHECK_CONDITION,
	    .direction = direction,
	    .sense = {key, asc, ascq},
	};

	*error = 12345;
	return sense_judge(&command, error);
}

static void expect(uint8_t key, uint8_t asc, uint8_t ascq, enum sense_action action, int error)
{
	int got;

	cr_expect_eq(
	    judge_as(SCSI_DATA_OUT, key, asc, ascq, &got), action, "%x %02x/%02x", key, asc, ascq);
	cr_expect_eq(got, error, "%x %02x/%02x: %d", key, asc, ascq, got);
}

static void expect_status(uint8_t status, enum sense_action action, int error)
{
	struct scsi_command command = {.status = status};
	int got = 12345;

	cr_expect_eq(sense_judge(&command, &got), action, "status %02x", status);
	cr_expect_eq(got, error, "status %02x: %d", status, got);
}

Test(sense, good_and_recovered_errors_are_success)
{
	expect_status(SAM_GOOD, SENSE_OK, 0);
	expect_status(SAM_CONDITION_MET, SENSE_OK, 0);
	expect(SENSE_RECOVERED_ERROR, 0x17, 0x01, SENSE_OK, 0);
}

Test(sense, no_medium_is_told_from_becoming_ready_and_from_never_ready)
{
	expect(SENSE_NOT_READY, 0x3a, 0x00, SENSE_FAIL, -ENOMEDIUM);
	expect(SENSE_NOT_READY, 0x3a, 0x02, SENSE_FAIL, -ENOMEDIUM);
	expect(SENSE_NOT_READY, 0x04, 0x01, SENSE_RETRY_LATER, -EIO);
	expect(SENSE_NOT_READY, 0x04, 0x04, SENSE_RETRY_LATER, -EIO);
	expect(SENSE_NOT_READY, 0x04, 0x0a, SENSE_RETRY_LATER, -EIO);
	for (unsigned i = 0; i < 6; i++)
		expect(SENSE_NOT_READY, 0x04, (uint8_t[]){0x05, 0x14, 0x1a, 0x1b, 0x1d, 0x24}[i],
		    SENSE_RETRY_LATER, -EIO);
	expect(SENSE_NOT_READY, 0x04, 0x0b, SENSE_FAIL, -EIO);
	expect(SENSE_NOT_READY, 0x04, 0x0c, SENSE_FAIL, -EIO);
	expect(SENSE_NOT_READY, 0x04, 0x02, SENSE_FAIL, -EIO);
	expect(SENSE_NOT_READY, 0x04, 0x03, SENSE_FAIL, -EIO);
	expect(SENSE_NOT_READY, 0x3e, 0x01, SENSE_FAIL, -EIO);
}

Test(sense, broken_media_and_hardware_are_io_errors)
{
	expect(SENSE_MEDIUM_ERROR, 0x11, 0x00, SENSE_FAIL, -EIO);
	expect(SENSE_HARDWARE_ERROR, 0x44, 0x00, SENSE_FAIL, -EIO);
	expect(SENSE_BLANK_CHECK, 0x00, 0x00, SENSE_FAIL, -EIO);
	expect(SENSE_COPY_ABORTED, 0x00, 0x00, SENSE_FAIL, -EIO);
	expect(0x9, 0x80, 0x00, SENSE_FAIL, -EIO);
}

Test(sense, an_unknown_command_is_told_from_a_bad_field)
{
	expect(SENSE_ILLEGAL_REQUEST, 0x20, 0x00, SENSE_FAIL, -EOPNOTSUPP);
	expect(SENSE_ILLEGAL_REQUEST, 0x24, 0x00, SENSE_FAIL, -EINVAL);
	expect(SENSE_ILLEGAL_REQUEST, 0x26, 0x00, SENSE_FAIL, -EINVAL);
	expect(SENSE_ILLEGAL_REQUEST, 0x25, 0x00, SENSE_FAIL, -ENXIO);
	expect(SENSE_ILLEGAL_REQUEST, 0x2c, 0x00, SENSE_FAIL, -EIO);
}

Test(sense, beyond_the_end_is_no_space_for_a_write_and_an_error_for_a_read)
{
	int error;

	expect(SENSE_ILLEGAL_REQUEST, 0x21, 0x00, SENSE_FAIL, -ENOSPC);
	cr_expect_eq(judge_as(SCSI_DATA_IN, SENSE_ILLEGAL_REQUEST, 0x21, 0, &error), SENSE_FAIL);
	cr_expect_eq(error, -EIO);
}

Test(sense, a_full_thin_pool_is_no_space_and_other_protection_read_only)
{
	expect(SENSE_DATA_PROTECT, 0x27, 0x07, SENSE_FAIL, -ENOSPC);
	expect(SENSE_DATA_PROTECT, 0x27, 0x00, SENSE_FAIL, -EROFS);
	expect(SENSE_VOLUME_OVERFLOW, 0x00, 0x00, SENSE_FAIL, -ENOSPC);
	expect(SENSE_MISCOMPARE, 0x1d, 0x00, SENSE_FAIL, -EILSEQ);
}

Test(sense, what_passes_is_tried_again)
{
	expect(SENSE_UNIT_ATTENTION, 0x29, 0x00, SENSE_RETRY, -EIO);
	expect(SENSE_ABORTED_COMMAND, 0x4b, 0x00, SENSE_RETRY, -EIO);
	expect(SENSE_NO_SENSE, 0x00, 0x00, SENSE_RETRY, -EIO);
	for (uint8_t ascq = 0; ascq <= 5; ascq++) /* parity and CRC errors */
		expect(SENSE_ABORTED_COMMAND, 0x47, ascq, SENSE_RETRY, -EIO);
	expect(SENSE_ABORTED_COMMAND, 0x4e, 0x00, SENSE_RETRY, -EIO);
	/* RFC 7143, 11.4.7.2 */
	expect(SENSE_ABORTED_COMMAND, 0x0c, 0x0c, SENSE_RETRY, -EIO);
	expect(SENSE_ABORTED_COMMAND, 0x0c, 0x0d, SENSE_RETRY, -EIO);
	expect(SENSE_ABORTED_COMMAND, 0x11, 0x13, SENSE_RETRY, -EIO);
	expect_status(SAM_BUSY, SENSE_RETRY_LATER, -EIO);
	expect_status(SAM_TASK_SET_FULL, SENSE_RETRY_LATER, -EIO);
	expect_status(SAM_ACA_ACTIVE, SENSE_RETRY_LATER, -EIO);
	expect_status(SAM_TASK_ABORTED, SENSE_RETRY, -EIO);
}

Test(sense, of_an_earlier_command_says_that_this_one_is_to_be_sent_again)
{
	const uint8_t keys[] = {SENSE_NO_SENSE, SENSE_RECOVERED_ERROR, SENSE_MEDIUM_ERROR,
	    SENSE_HARDWARE_ERROR, SENSE_ILLEGAL_REQUEST, SENSE_DATA_PROTECT};

	for (size_t i = 0; i < sizeof keys; i++) {
		struct scsi_command command = {
		    .status = SAM_CHECK_CONDITION, .deferred = true, .sense = {keys[i], 0x0c, 0}};
		int error = 12345;

		cr_expect_eq(sense_judge(&command, &error), SENSE_RETRY, "key %x", keys[i]);
		cr_expect_eq(error, -EIO);
		cr_expect_eq(sense_tells_of_loss(&command), i >= 2, "key %x", keys[i]);
		command.deferred = false;
		cr_expect_not(sense_tells_of_loss(&command));
	}
}

Test(sense, reservation_conflicts_and_unknown_statuses_fail)
{
	expect_status(SAM_RESERVATION_CONFLICT, SENSE_FAIL, -EBADE);
	expect_status(0x7e, SENSE_FAIL, -EIO);
}

static void expect_text(uint8_t opcode, uint8_t key, uint8_t asc, uint8_t ascq, const char *text)
{
	struct scsi_command command = {
	    .cdb = {opcode},
	    .status = SAM_CHECK_CONDITION,
	    .sense = {key, asc, ascq},
	};
	char buffer[200];

	cr_expect_str_eq(sense_describe(&command, buffer, sizeof buffer), text);
}

Test(sense, is_described_in_words_with_its_numbers)
{
	expect_text(0x8a, 2, 0x3a, 0, "WRITE(16): NOT READY (2), medium not present (3Ah/00h)");
	expect_text(0x2a, 7, 0x27, 7,
	    "WRITE(10): DATA PROTECTION (7), space allocation failed write protect (27h/07h)");
	expect_text(
	    0x88, 3, 0x11, 0, "READ(16): MEDIUM ERROR (3), unrecovered read error (11h/00h)");
	expect_text(0x88, 5, 0x21, 0, "READ(16): ILLEGAL REQUEST (5), lba out of range (21h/00h)");
	expect_text(0x00, 2, 4, 1,
	    "TEST UNIT READY: NOT READY (2), logical unit is in process of becoming ready "
	    "(04h/01h)");
}

Test(sense, without_words_the_numbers_stand_alone)
{
	expect_text(
	    0xc1, 0xf, 0x99, 0x88, "SCSI command C1h: sense key (F), additional sense (99h/88h)");
}

Test(sense, of_an_earlier_command_is_described_as_such)
{
	struct scsi_command command = {.cdb = {0x8a},
	    .status = SAM_CHECK_CONDITION,
	    .deferred = true,
	    .sense = {SENSE_MEDIUM_ERROR, 0x0c, 0}};
	char buffer[200];

	cr_expect_str_eq(sense_describe(&command, buffer, sizeof buffer),
	    "WRITE(16): of an earlier command: MEDIUM ERROR (3), write error (0Ch/00h)");
}

Test(sense, other_statuses_and_lost_commands_are_described_too)
{
	struct scsi_command command = {.cdb = {0x35}, .status = SAM_BUSY};
	char buffer[100], tiny[8];

	cr_expect_str_eq(
	    sense_describe(&command, buffer, sizeof buffer), "SYNCHRONIZE CACHE(10): BUSY (08h)");
	command.error = -EIO;
	cr_expect_str_eq(sense_describe(&command, buffer, sizeof buffer),
	    "SYNCHRONIZE CACHE(10): no answer (Input/output error)");
	cr_expect_str_eq(sense_describe(&command, tiny, sizeof tiny), "SYNCHRO");
	cr_expect_str_eq(scsi_opcode_name(0x93), "WRITE SAME(16)");
}
