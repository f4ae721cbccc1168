/*
 * guard.c - targets that answer what is not to be believed: nothing of it is, the session is begun
 * anew, and I/O ends as if nothing had been (SAFETY.md 13).
 *
 * Reads and writes are done by children, so that a hanging one is a failure and not a hanging test.
 */
#include "support/data.h"
#include "support/script_scene.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LENGTH      KIB(64)
#define SIZE        MIB(4)
#define WRONG_BYTES 254
#define BROKE       "the target broke the protocol: "
#define MISSING     "the target said GOOD, but data is missing"

/* A target with LUN 1, which holds a pattern, mounted. */
static struct scene guarded_mount(const struct script_parameters *parameters)
{
	struct scene guarded = script_scene_served(SIZE, 512, parameters);
	unsigned char *pattern = aligned_buffer(SIZE);

	pattern_fill(pattern, SIZE, 0, 0);
	cr_assert(script_target_write(guarded.script, 1, 0, pattern, SIZE));
	return guarded;
}

struct transfer {
	const char *path;
	size_t length;
	unsigned seed;
};

static int child_read(void *data)
{
	const struct transfer *transfer = data;
	unsigned char *found = aligned_buffer(transfer->length);
	unsigned char *expected = aligned_buffer(transfer->length);
	int fd = open(transfer->path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	pattern_fill(expected, transfer->length, 0, transfer->seed);
	if (fd < 0 || pread(fd, found, transfer->length, 0) != (ssize_t)transfer->length)
		return errno;
	return first_difference(found, expected, transfer->length) < 0 ? 0 : WRONG_BYTES;
}

static int child_write(void *data)
{
	const struct transfer *transfer = data;
	unsigned char *bytes = aligned_buffer(transfer->length);
	int fd = open(transfer->path, O_WRONLY | O_DIRECT | O_CLOEXEC);

	pattern_fill(bytes, transfer->length, 0, transfer->seed);
	if (fd < 0 || pwrite(fd, bytes, transfer->length, 0) != (ssize_t)transfer->length ||
	    fsync(fd) != 0)
		return errno;
	return 0;
}

/* One session more, and its end is told in these words. */
static void was_told(struct scene *guarded, unsigned logins, const char *words)
{
	char *status = must_lunfs(guarded->stage, "status %s", guarded->mnt);

	cr_assert_eq(
	    script_target_logins(guarded->script), logins + 1, "not one login more: %s", status);
	cr_assert(strstr(status, words), "not '%s': %s", words, status);
}

static void outlasts(int opcode, enum script_spoil spoil, const char *words,
    const struct script_parameters *parameters)
{
	struct scene guarded = guarded_mount(parameters);
	bool writes = opcode == SCRIPT_WRITE;
	struct transfer transfer = {guarded.file, parameters ? MIB(1) : LENGTH, writes};
	unsigned logins = script_target_logins(guarded.script);

	script_target_rule(
	    guarded.script, (struct script_rule){.opcode = opcode, .times = 1, .spoil = spoil});
	pid_t child = call_start(0, writes ? child_write : child_read, &transfer);
	int outcome = call_end(child, patience(10));
	cr_assert_eq(outcome, 0, "it ended with %d", outcome);
	was_told(&guarded, logins, words);
	cr_assert_eq(call_as(0, child_read, &transfer), 0, "the data is not right");
	script_scene_serve_no_more(&guarded);
}

#define OUTLASTS(name, opcode, spoil, words, parameters)                                           \
	Test(safety_13, name, .timeout = 60)                                                       \
	{                                                                                          \
		outlasts(opcode, spoil, words, parameters);                                        \
	}

/* ---- a READ ---- */

OUTLASTS(a_READ_outlasts_data_for_a_command_that_is_not_there, SCRIPT_READ, SCRIPT_WRONG_ITT,
    BROKE "Data-In for no command", NULL)
OUTLASTS(a_READ_outlasts_data_beyond_its_end, SCRIPT_READ, SCRIPT_BEYOND_LENGTH,
    BROKE "Data-In beyond the command's data", NULL)
OUTLASTS(a_READ_outlasts_an_additional_header, SCRIPT_READ, SCRIPT_BAD_AHS,
    BROKE "additional headers", NULL)
OUTLASTS(a_READ_outlasts_a_PDU_of_16_MiB, SCRIPT_READ, SCRIPT_LONG_SEGMENT,
    BROKE "a PDU with more data than agreed", NULL)
OUTLASTS(a_READ_outlasts_an_R2T_for_it, SCRIPT_READ, SCRIPT_R2T_WITH_READ,
    BROKE "R2T for a command that writes nothing", NULL)
OUTLASTS(a_READ_outlasts_a_failure_of_the_target, SCRIPT_READ, SCRIPT_RESPONSE_CODE,
    "iSCSI response code 01h", NULL)
OUTLASTS(a_READ_outlasts_a_gap_in_DataSN, SCRIPT_READ, SCRIPT_DATASN_GAP,
    BROKE "Data-In with DataSN", NULL)
OUTLASTS(a_READ_outlasts_GOOD_without_data, SCRIPT_READ, SCRIPT_NO_DATA, MISSING, NULL)
OUTLASTS(a_READ_outlasts_GOOD_with_data_that_is_missing, SCRIPT_READ, SCRIPT_MISSING_SEGMENT,
    MISSING, &(struct script_parameters){.separate_status = true})
OUTLASTS(a_READ_outlasts_a_residual, SCRIPT_READ, SCRIPT_UNDERFLOW, MISSING, NULL)
OUTLASTS(a_READ_outlasts_a_PDU_of_an_unknown_kind, SCRIPT_READ, SCRIPT_UNKNOWN_OPCODE,
    BROKE "a PDU of an unknown kind (opcode 3Bh)", NULL)
OUTLASTS(a_READ_outlasts_a_Reject, SCRIPT_READ, SCRIPT_REJECT,
    "the target rejected a request: invalid PDU field (09h)", NULL)

/* ---- a WRITE ---- */

#define EVERY_BYTE_ASKED_FOR                                                                       \
	&(struct script_parameters)                                                                \
	{                                                                                          \
		.initial_r2t = true, .no_immediate_data = true, .max_burst = 65536,                \
		.receive_segment = 8192                                                            \
	}

OUTLASTS(a_WRITE_outlasts_a_response_to_a_command_that_is_not_there, SCRIPT_WRITE, SCRIPT_WRONG_ITT,
    BROKE "SCSI Response for no command", NULL)
OUTLASTS(a_WRITE_outlasts_a_failure_of_the_target, SCRIPT_WRITE, SCRIPT_RESPONSE_CODE,
    "iSCSI response code 01h", NULL)
OUTLASTS(a_WRITE_outlasts_an_R2T_beyond_its_end, SCRIPT_WRITE, SCRIPT_R2T_BEYOND,
    BROKE "R2T beyond the command's data", NULL)
OUTLASTS(a_WRITE_outlasts_an_R2T_for_a_command_that_is_not_there, SCRIPT_WRITE,
    SCRIPT_R2T_WRONG_ITT, BROKE "R2T for no command", NULL)
OUTLASTS(a_WRITE_outlasts_an_R2T_for_nothing, SCRIPT_WRITE, SCRIPT_R2T_EMPTY,
    BROKE "R2T for 0 bytes", NULL)
OUTLASTS(a_large_WRITE_outlasts_an_R2T_beyond_its_end, SCRIPT_WRITE, SCRIPT_R2T_BEYOND,
    BROKE "R2T beyond the command's data", EVERY_BYTE_ASKED_FOR)
OUTLASTS(a_large_WRITE_outlasts_a_failure_of_the_target, SCRIPT_WRITE, SCRIPT_RESPONSE_CODE,
    "iSCSI response code 01h", EVERY_BYTE_ASKED_FOR)

/* ---- nobody asked ---- */

static void outlasts_unasked(uint8_t opcode, const char *words)
{
	struct scene guarded = guarded_mount(NULL);
	struct transfer transfer = {guarded.file, LENGTH, 0};
	unsigned logins = script_target_logins(guarded.script);
	uint8_t header[48] = {opcode, 0x80, [16] = 0x12, [47] = 1};

	script_target_send(guarded.script, header, sizeof(header));
	int outcome = call_end(call_start(0, child_read, &transfer), patience(10));
	cr_assert_eq(outcome, 0, "it ended with %d", outcome);
	was_told(&guarded, logins, words);
	script_scene_serve_no_more(&guarded);
}

Test(safety_13, a_mount_outlasts_data_that_nobody_asked_for, .timeout = 60)
{
	outlasts_unasked(0x25, BROKE "Data-In for no command");
}

Test(safety_13, a_mount_outlasts_an_R2T_that_nobody_asked_for, .timeout = 60)
{
	outlasts_unasked(0x31, BROKE "R2T for no command");
}

Test(safety_13, a_mount_outlasts_a_response_that_nobody_asked_for, .timeout = 60)
{
	outlasts_unasked(0x21, BROKE "SCSI Response for no command");
}

/* ---- a target that is right ---- */

/* Lengths that are no multiple of anything, in the target's smallest pieces. */
Test(safety_13, a_target_that_is_right_is_believed_in_small_pieces, .timeout = 60)
{
	struct scene guarded = guarded_mount(&(struct script_parameters){.initial_r2t = true,
	    .no_immediate_data = true,
	    .separate_status = true,
	    .max_burst = 4096,
	    .receive_segment = 512,
	    .window = 2});
	struct transfer transfer = {guarded.file, MIB(2), 1};
	unsigned logins = script_target_logins(guarded.script);

	cr_assert_eq(call_as(0, child_write, &transfer), 0);
	cr_assert_eq(call_as(0, child_read, &transfer), 0);
	cr_assert_eq(script_target_logins(guarded.script), logins, "%s",
	    must_lunfs(guarded.stage, "status %s", guarded.mnt));
	script_scene_serve_no_more(&guarded);
}

Test(safety_13, a_target_that_is_right_is_believed_with_header_digests, .timeout = 60)
{
	struct scene scene = {.stage = stage_new()};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	tgt_set(scene.tgt, "--mode target --op update --tid 1 --name HeaderDigest --value CRC32C");
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = SIZE);
	scene.mnt = must_mount_lunfs(scene.stage,
	    text(scene.stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, scene.tgt->port),
	    "header_digest=crc32c");
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);

	struct transfer transfer = {scene.file, MIB(2), 1};
	cr_assert_eq(call_as(0, child_write, &transfer), 0);
	cr_assert_eq(call_as(0, child_read, &transfer), 0);
	char *status = must_lunfs(scene.stage, "status %s", scene.mnt);
	cr_assert_null(strstr(status, "outage"), "%s", status);
	scene_umount(&scene);
}
