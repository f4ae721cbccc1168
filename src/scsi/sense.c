/*
 * sense.c - what a target's answer means: go on, try again, or an errno and a line in words.
 *
 * It owns no state. The words are libiscsi's where it has them; the numbers are always printed
 * beside them, since they are what a vendor's manual is searched by.
 */
#include "lunfs/scsi.h"

#include <errno.h>
#include <glib.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdio.h>
#include <string.h>

#include "cdb.h"

#define ASC(asc, ascq) ((asc) << 8 | (ascq))

struct words {
	unsigned code;
	const char *text;
};

/* What libiscsi 1.19 has no words for, and users of disks meet. */
static const struct words asc_words[] = {
    {ASC(0x00, 0x00), "no additional sense"},
    {ASC(0x04, 0x00), "logical unit not ready, cause not reportable"},
    {ASC(0x04, 0x01), "logical unit is in process of becoming ready"},
    {ASC(0x04, 0x02), "logical unit not ready, start command required"},
    {ASC(0x04, 0x03), "logical unit not ready, manual intervention required"},
    {ASC(0x04, 0x04), "logical unit not ready, format in progress"},
    {ASC(0x04, 0x0a), "logical unit not accessible, asymmetric access state transition"},
    {ASC(0x04, 0x0b), "logical unit not accessible, target port in standby state"},
    {ASC(0x04, 0x0c), "logical unit not accessible, target port in unavailable state"},
    {ASC(0x04, 0x14), "logical unit not ready, space allocation in progress"},
    {ASC(0x04, 0x1a), "logical unit not ready, start stop unit command in progress"},
    {ASC(0x04, 0x1b), "logical unit not ready, sanitize in progress"},
    {ASC(0x04, 0x1d), "logical unit not ready, configuration in progress"},
    {ASC(0x0c, 0x00), "write error"},
    {ASC(0x0c, 0x0c), "write error, unexpected unsolicited data"},
    {ASC(0x0c, 0x0d), "write error, not enough unsolicited data"},
    {ASC(0x10, 0x01), "logical block guard check failed"},
    {ASC(0x11, 0x00), "unrecovered read error"},
    {ASC(0x11, 0x13), "read error, failed retransmission request"},
    {ASC(0x27, 0x07), "space allocation failed write protect"},
    {ASC(0x28, 0x00), "not ready to ready change, medium may have changed"},
    {ASC(0x29, 0x07), "I_T nexus loss occurred"},
    {ASC(0x2a, 0x03), "reservations preempted"},
    {ASC(0x2f, 0x00), "commands cleared by another initiator"},
    {ASC(0x3f, 0x0e), "reported LUNs data has changed"},
    {ASC(0x47, 0x00), "SCSI parity error"},
    {ASC(0x47, 0x01), "data phase CRC error detected"},
    {ASC(0x47, 0x03), "information unit iuCRC error detected"},
    {ASC(0x47, 0x05), "protocol service CRC error"},
    {ASC(0x4b, 0x00), "data phase error"},
    {ASC(0x4e, 0x00), "overlapped commands attempted"},
    {ASC(0x53, 0x02), "medium removal prevented"},
    {ASC(0x55, 0x03), "insufficient resources"},
};

static const struct words status_words[] = {
    {SAM_GOOD, "GOOD"},
    {SAM_CHECK_CONDITION, "CHECK CONDITION"},
    {SAM_CONDITION_MET, "CONDITION MET"},
    {SAM_BUSY, "BUSY"},
    {SAM_RESERVATION_CONFLICT, "RESERVATION CONFLICT"},
    {SAM_TASK_SET_FULL, "TASK SET FULL"},
    {SAM_ACA_ACTIVE, "ACA ACTIVE"},
    {SAM_TASK_ABORTED, "TASK ABORTED"},
};

static const struct words opcode_words[] = {
    {OP_TEST_UNIT_READY, "TEST UNIT READY"},
    {OP_INQUIRY, "INQUIRY"},
    {OP_MODE_SENSE_6, "MODE SENSE(6)"},
    {OP_READ_CAPACITY_10, "READ CAPACITY(10)"},
    {OP_READ_10, "READ(10)"},
    {OP_WRITE_10, "WRITE(10)"},
    {OP_SYNCHRONIZE_CACHE_10, "SYNCHRONIZE CACHE(10)"},
    {OP_MODE_SENSE_10, "MODE SENSE(10)"},
    {OP_READ_16, "READ(16)"},
    {OP_WRITE_16, "WRITE(16)"},
    {OP_SYNCHRONIZE_CACHE_16, "SYNCHRONIZE CACHE(16)"},
    {OP_WRITE_SAME_16, "WRITE SAME(16)"},
    {OP_SERVICE_ACTION_IN_16, "READ CAPACITY(16)"}, /* its only service action here */
    {OP_REPORT_LUNS, "REPORT LUNS"},
};

static const char *words_find(const struct words *words, size_t count, unsigned code)
{
	for (size_t i = 0; i < count; i++)
		if (words[i].code == code)
			return words[i].text;
	return NULL;
}

const char *scsi_opcode_name(uint8_t opcode)
{
	const char *name = words_find(opcode_words, G_N_ELEMENTS(opcode_words), opcode);

	return name ? name : "SCSI command";
}

/* NOT READY that passes by itself (SPC-4, ASC 04h): something is in progress, or about to be. */
static bool sense_is_becoming_ready(const struct sense *sense)
{
	static const uint8_t passing[] = {
	    0x01, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x14, 0x1a, 0x1b, 0x1d, 0x24};

	return sense->asc == 0x04 && memchr(passing, sense->ascq, sizeof passing) != NULL;
}

static int sense_illegal_request_errno(const struct scsi_command *command)
{
	switch (command->sense.asc) {
	case 0x20: /* INVALID COMMAND OPERATION CODE */
		return -EOPNOTSUPP;
	case 0x21: /* LOGICAL BLOCK ADDRESS OUT OF RANGE: the LUN has shrunk */
		return command->direction == SCSI_DATA_OUT ? -ENOSPC : -EIO;
	case 0x24: /* INVALID FIELD IN CDB */
	case 0x26: /* INVALID FIELD IN PARAMETER LIST */
		return -EINVAL;
	case 0x25: /* LOGICAL UNIT NOT SUPPORTED */
		return -ENXIO;
	default:
		return -EIO;
	}
}

static enum sense_action sense_judge_check_condition(const struct scsi_command *command, int *error)
{
	const struct sense *sense = &command->sense;

	*error = -EIO;
	if (command->deferred) /* whatever it says: this command was not executed */
		return SENSE_RETRY;
	switch (sense->key) {
	case SENSE_RECOVERED_ERROR:
		*error = 0;
		return SENSE_OK;
	case SENSE_NO_SENSE: /* the sense data was lost: what happened is not known, so do it again
	                      */
	case SENSE_UNIT_ATTENTION:
	case SENSE_ABORTED_COMMAND:
		return SENSE_RETRY;
	case SENSE_NOT_READY:
		if (sense_is_becoming_ready(sense))
			return SENSE_RETRY_LATER;
		if (sense->asc == 0x3a)
			*error = -ENOMEDIUM;
		return SENSE_FAIL;
	case SENSE_ILLEGAL_REQUEST:
		*error = sense_illegal_request_errno(command);
		return SENSE_FAIL;
	case SENSE_DATA_PROTECT:
		*error = sense->asc == 0x27 && sense->ascq == 0x07 ? -ENOSPC : -EROFS;
		return SENSE_FAIL;
	case SENSE_VOLUME_OVERFLOW:
		*error = -ENOSPC;
		return SENSE_FAIL;
	case SENSE_MISCOMPARE:
		*error = -EILSEQ;
		return SENSE_FAIL;
	default: /* MEDIUM ERROR, HARDWARE ERROR, BLANK CHECK, COPY ABORTED, vendor's own */
		return SENSE_FAIL;
	}
}

enum sense_action sense_judge(const struct scsi_command *command, int *error)
{
	switch (command->status) {
	case SAM_GOOD:
	case SAM_CONDITION_MET:
		*error = 0;
		return SENSE_OK;
	case SAM_CHECK_CONDITION:
		return sense_judge_check_condition(command, error);
	case SAM_BUSY:
	case SAM_TASK_SET_FULL:
	case SAM_ACA_ACTIVE:
		*error = -EIO;
		return SENSE_RETRY_LATER;
	case SAM_TASK_ABORTED:
		*error = -EIO;
		return SENSE_RETRY;
	case SAM_RESERVATION_CONFLICT:
		*error = -EBADE;
		return SENSE_FAIL;
	default:
		*error = -EIO;
		return SENSE_FAIL;
	}
}

/* The library writes "MEDIUM_NOT_PRESENT-TRAY_OPEN". */
static void words_soften(char *text, bool lower)
{
	for (; *text; text++) {
		if (*text == '_')
			*text = ' ';
		else if (lower)
			*text = g_ascii_tolower(*text);
	}
}

static void sense_key_words(uint8_t key, char *text, size_t size)
{
	/* the library's are others than SPC-4's */
	const char *words = key == SENSE_MEDIUM_ERROR      ? "MEDIUM ERROR"
	                    : key == SENSE_ABORTED_COMMAND ? "ABORTED COMMAND"
	                                                   : scsi_sense_key_str(key);

	g_strlcpy(text, words ? words : "sense key", size);
	words_soften(text, false);
}

static void sense_asc_words(const struct sense *sense, char *text, size_t size)
{
	unsigned code = ASC(sense->asc, sense->ascq);
	const char *words = words_find(asc_words, G_N_ELEMENTS(asc_words), code);

	if (words) {
		g_strlcpy(text, words, size);
		return;
	}
	words = scsi_sense_ascq_str((int)code);
	g_strlcpy(text, words ? words : "additional sense", size);
	words_soften(text, true);
}

const char *sense_describe(const struct scsi_command *command, char *buffer, size_t size)
{
	const char *name = words_find(opcode_words, G_N_ELEMENTS(opcode_words), command->cdb[0]);
	const char *status = words_find(status_words, G_N_ELEMENTS(status_words), command->status);
	char number[24], key[40], asc[80];

	if (!name) {
		g_snprintf(number, sizeof number, "SCSI command %02Xh", command->cdb[0]);
		name = number;
	}
	if (command->error) {
		g_snprintf(buffer, size, "%s: no answer (%s)", name,
		    command->error == -ESTALE ? "the session was lost"
		                              : g_strerror(-command->error));
	} else if (command->status == SAM_CHECK_CONDITION) {
		sense_key_words(command->sense.key, key, sizeof key);
		sense_asc_words(&command->sense, asc, sizeof asc);
		g_snprintf(buffer, size, "%s: %s%s (%X), %s (%02Xh/%02Xh)", name,
		    command->deferred ? "of an earlier command: " : "", key, command->sense.key,
		    asc, command->sense.asc, command->sense.ascq);
	} else {
		g_snprintf(buffer, size, "%s: %s (%02Xh)", name, status ? status : "status",
		    command->status);
	}
	return buffer;
}
