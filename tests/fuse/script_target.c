/*
 * script_target.c - the scripted target is right itself: with lunfs, with libiscsi, and byte by
 * byte with an initiator that shows each PDU.
 */
#include "support/script_raw.h"
#include "support/script_scene.h"
#include "support/data.h"
#include "support/mount.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(script_target, .timeout = 120);

#define INITIATOR "iqn.2026-01.org.lunfs:tester"
#define LENGTH    KIB(64)

static void must_be(struct script_target *target, enum script_image image, const void *bytes,
    size_t length, uint64_t offset)
{
	g_autofree unsigned char *found = g_malloc(length);

	cr_assert(script_target_read(target, 1, offset, found, length, image));
	ssize_t at = first_difference(found, bytes, length);
	cr_assert(at < 0, "byte %lu of %s differs", offset + (uint64_t)at,
	    image == SCRIPT_STABLE ? "what is stable" : "what is read");
}

/* ---- lunfs ---- */

static void writes_and_reads(unsigned block_size, const struct script_parameters *parameters)
{
	struct scene played = script_scene_served(MIB(8), block_size, parameters);
	unsigned char *bytes = aligned_buffer(MIB(4));
	int fd = must_open(played.file, O_RDWR | O_DIRECT);

	for (size_t length = 4096, at = 0; length <= MIB(2); at += length, length *= 2) {
		pattern_fill(bytes + at, length, at, (unsigned)length);
		must_pwrite(fd, bytes + at, length, at);
		must_be(played.script, SCRIPT_VOLATILE, bytes + at, length, at);
	}
	cr_assert_eq(fsync(fd), 0);
	must_be(played.script, SCRIPT_STABLE, bytes, MIB(2), 0);
	cr_assert_eq(script_target_dirty(played.script, 1), 0);
	close(fd);
	must_hold(played.file, bytes, MIB(2), 0);
	script_scene_serve_no_more(&played);
}

Test(script_target, lunfs_mounts_it_writes_and_reads)
{
	writes_and_reads(512, NULL);
}

Test(script_target, lunfs_writes_with_every_byte_asked_for)
{
	writes_and_reads(4096, &(struct script_parameters){.initial_r2t = true,
	                           .no_immediate_data = true,
	                           .separate_status = true,
	                           .max_burst = 65536,
	                           .receive_segment = 8192,
	                           .window = 2});
}

Test(script_target, lunfs_writes_with_unsolicited_data)
{
	writes_and_reads(
	    512, &(struct script_parameters){.receive_segment = 8192, .first_burst = 131072});
}

Test(script_target, lunfs_discovers_it)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);

	script_target_add_lun(target, 1, MIB(8), 512);
	script_target_add_lun(target, 300, MIB(8), 4096);
	char *found = must_lunfs(stage, "discover --luns 127.0.0.1:%u", script_target_port(target));
	cr_assert(strstr(found, SCENE_IQN "\n") && strstr(found, "    1  disk ") &&
	              strstr(found, "  300  disk "),
	    "%s", found);
	script_target_must_not_complain(target);
	script_target_stop(target);
}

static bool can_read(void *fd)
{
	static unsigned char *bytes;

	bytes = bytes ? bytes : aligned_buffer(LENGTH);
	return pread(*(int *)fd, bytes, LENGTH, 0) == (ssize_t)LENGTH;
}

Test(script_target, a_reboot_forgets_what_was_not_synced)
{
	struct scene played = script_scene_served(MIB(8), 512, NULL);
	unsigned char *synced = aligned_buffer(LENGTH), *unsynced = aligned_buffer(LENGTH);
	int fd = must_open(played.file, O_RDWR | O_DIRECT);

	pattern_fill(synced, LENGTH, 0, 1);
	pattern_fill(unsynced, LENGTH, 0, 2);
	must_pwrite(fd, synced, LENGTH, 0);
	cr_assert_eq(fsync(fd), 0);
	must_pwrite(fd, unsynced, LENGTH, 0);
	must_be(played.script, SCRIPT_VOLATILE, unsynced, LENGTH, 0);
	must_be(played.script, SCRIPT_STABLE, synced, LENGTH, 0);
	cr_assert_eq(script_target_dirty(played.script, 1), LENGTH);
	script_target_reboot(played.script, (struct script_reboot){.closed_ms = SCRIPT_NEVER});
	must_be(played.script, SCRIPT_VOLATILE, synced, LENGTH, 0);
	must_be(played.script, SCRIPT_STABLE, synced, LENGTH, 0);
	cr_assert_eq(script_target_connections(played.script), 0);
	script_target_listen(played.script, true);
	cr_assert(await(10, can_read, &fd), "it does not come back");
	cr_assert_eq(script_target_logins(played.script), 2);
	close(fd);
	script_scene_serve_no_more(&played);
}

/* ---- libiscsi ---- */

static struct iscsi_context *log_in(struct script_target *target)
{
	struct iscsi_context *iscsi = iscsi_create_context(INITIATOR);
	g_autofree char *portal = g_strdup_printf("127.0.0.1:%u", script_target_port(target));

	iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
	iscsi_set_targetname(iscsi, SCENE_IQN);
	iscsi_set_noautoreconnect(iscsi, 1);
	cr_assert_eq(iscsi_connect_sync(iscsi, portal), 0, "%s", iscsi_get_error(iscsi));
	cr_assert_eq(iscsi_login_sync(iscsi), 0, "%s", iscsi_get_error(iscsi));
	return iscsi;
}

/* The status of a command that libiscsi has ended. */
static int end_task(struct scsi_task *task)
{
	int status = task ? task->status : -1;

	if (task)
		scsi_free_scsi_task(task);
	return status;
}

static int write_status(struct iscsi_context *iscsi, unsigned char *bytes, int fua)
{
	return end_task(iscsi_write16_sync(iscsi, 1, 0, bytes, LENGTH, 512, 0, 0, fua, 0, 0));
}

Test(script_target, libiscsi_logs_in_and_is_told_of_unit_attentions)
{
	struct script_target *target = script_target_start(SCENE_IQN);
	unsigned char *bytes = aligned_buffer(LENGTH);

	script_target_add_lun(target, 1, MIB(1), 512);
	struct iscsi_context *iscsi = log_in(target);
	pattern_fill(bytes, LENGTH, 0, 3);
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_CHECK_CONDITION); /* 29h */
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_GOOD);
	cr_assert_eq(script_target_dirty(target, 1), LENGTH);
	script_target_attention(target, 1, 0x2a, 0x01);
	cr_assert_eq(write_status(iscsi, bytes, 1), SCSI_STATUS_CHECK_CONDITION);
	cr_assert_eq(write_status(iscsi, bytes, 1), SCSI_STATUS_GOOD);
	must_be(target, SCRIPT_STABLE, bytes, LENGTH, 0);
	cr_assert_eq(iscsi_logout_sync(iscsi), 0);
	iscsi_destroy_context(iscsi);
	script_target_must_not_complain(target);
	script_target_stop(target);
}

Test(script_target, rules_decide_over_the_commands_that_they_name)
{
	struct script_target *target = script_target_start(SCENE_IQN);
	unsigned char *bytes = aligned_buffer(LENGTH), *zeros = aligned_buffer(LENGTH);
	struct script_record record;

	script_target_add_lun(target, 1, MIB(1), 512);
	script_target_set(target, &(struct script_parameters){.no_attention = true});
	script_target_rule(
	    target, (struct script_rule){
	                .opcode = SCRIPT_WRITE, .skip = 1, .times = 2, .status = SAM_BUSY});
	script_target_rule(
	    target, (struct script_rule){.opcode = 0x8a, .skip = 1, .times = 1, .lie = true});
	script_target_rule(target,
	    (struct script_rule){.opcode = SCRIPT_ANY, .one_lun = true, .lun = 2, .hang = true});
	struct iscsi_context *iscsi = log_in(target);
	pattern_fill(bytes, LENGTH, 0, 3);
	cr_assert_eq(write_status(iscsi, zeros, 0), SCSI_STATUS_GOOD);
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_BUSY);
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_BUSY);
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_GOOD); /* it lies */
	must_be(target, SCRIPT_VOLATILE, zeros, LENGTH, 0);
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_GOOD);
	must_be(target, SCRIPT_VOLATILE, bytes, LENGTH, 0);
	cr_assert_eq(script_target_command_count(target, SCRIPT_WRITE), 5);
	cr_assert(script_target_record(target, script_target_records(target) - 2, &record));
	cr_assert(record.answered && !record.executed && record.cdb[0] == 0x8a);
	iscsi_destroy_context(iscsi);
	script_target_stop(target);
}

Test(script_target, its_disk_does_what_SBC_says)
{
	struct script_target *target = script_target_start(SCENE_IQN);
	unsigned char *bytes = aligned_buffer(LENGTH), *zeros = aligned_buffer(LENGTH);

	script_target_add_lun(target, 1, MIB(1), 512);
	script_target_set(target, &(struct script_parameters){.no_attention = true});
	struct iscsi_context *iscsi = log_in(target);
	memset(bytes, 1, LENGTH);
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_GOOD);
	cr_assert_eq(end_task(iscsi_synchronizecache10_sync(iscsi, 1, 8, 8, 0, 0)), 0);
	must_be(target, SCRIPT_STABLE, zeros, 8 * 512, 0);
	must_be(target, SCRIPT_STABLE, bytes, 8 * 512, 8 * 512);
	must_be(target, SCRIPT_STABLE, zeros, LENGTH - 16 * 512, 16 * 512);
	cr_assert_eq(end_task(iscsi_synchronizecache16_sync(iscsi, 1, 0, 0, 0, 0)), 0);
	cr_assert_eq(script_target_dirty(target, 1), 0);
	cr_assert_eq(end_task(iscsi_writesame16_sync(iscsi, 1, 0, zeros, 512, 128, 0, 0, 0, 0)), 0);
	must_be(target, SCRIPT_VOLATILE, zeros, LENGTH, 0);
	must_be(target, SCRIPT_STABLE, bytes, LENGTH, 0);
	script_target_wce(target, 1, false, false);
	cr_assert_eq(write_status(iscsi, zeros, 0), SCSI_STATUS_GOOD);
	must_be(target, SCRIPT_STABLE, zeros, LENGTH, 0);
	cr_assert_eq(end_task(iscsi_read16_sync(iscsi, 1, 2047, 1024, 512, 0, 0, 0, 0, 0)),
	    SCSI_STATUS_CHECK_CONDITION); /* one block beyond the end */
	script_target_capacity(target, 1, MIB(2), true);
	cr_assert_eq(end_task(iscsi_read16_sync(iscsi, 1, 2047, 1024, 512, 0, 0, 0, 0, 0)),
	    SCSI_STATUS_CHECK_CONDITION); /* 2Ah/09h */
	cr_assert_eq(end_task(iscsi_read16_sync(iscsi, 1, 2047, 1024, 512, 0, 0, 0, 0, 0)), 0);
	script_target_read_only(target, 1, true);
	cr_assert_eq(write_status(iscsi, zeros, 0), SCSI_STATUS_CHECK_CONDITION);
	iscsi_destroy_context(iscsi);
	script_target_must_not_complain(target);
	script_target_stop(target);
}

/* Which blocks survive. */
static void survive(uint32_t seed, unsigned char *left)
{
	struct script_target *target = script_target_start(SCENE_IQN);
	unsigned char *bytes = aligned_buffer(LENGTH);

	script_target_add_lun(target, 1, MIB(1), 512);
	script_target_set(target, &(struct script_parameters){.no_attention = true});
	struct iscsi_context *iscsi = log_in(target);
	memset(bytes, 1, LENGTH);
	cr_assert_eq(write_status(iscsi, bytes, 0), SCSI_STATUS_GOOD);
	script_target_reboot(target, (struct script_reboot){.some_survive = true, .seed = seed});
	script_target_stable(target, 1, 0, left, LENGTH);
	must_be(target, SCRIPT_VOLATILE, left, LENGTH, 0);
	iscsi_destroy_context(iscsi);
	script_target_stop(target);
}

Test(script_target, a_seed_decides_which_blocks_survive)
{
	unsigned char *once = aligned_buffer(LENGTH), *again = aligned_buffer(LENGTH),
	              *other = aligned_buffer(LENGTH);
	size_t blocks = 0;

	survive(7, once);
	survive(7, again);
	survive(8, other);
	cr_assert(memcmp(once, again, LENGTH) == 0);
	cr_assert(memcmp(once, other, LENGTH) != 0);
	for (size_t at = 0; at < LENGTH; at += 512) {
		blocks += once[at];
		cr_assert_eq(once[at], once[at + 511], "half a block survived");
	}
	cr_assert(blocks > 32 && blocks < 96, "%zu of 128", blocks);
}

/* ---- PDU by PDU ---- */

static struct raw raw_session(struct script_target *target, uint8_t isid)
{
	struct raw raw = raw_connect(script_target_port(target));

	cr_assert_eq(raw_login(&raw, INITIATOR, SCENE_IQN, isid), 0);
	return raw;
}

static struct script_target *plain_target(void)
{
	struct script_target *target = script_target_start(SCENE_IQN);

	script_target_add_lun(target, 1, MIB(1), 512);
	script_target_set(target, &(struct script_parameters){.no_attention = true});
	return target;
}

static uint8_t block[4096];

/* What comes first in answer to a command that is to be answered so. */
static int spoiled(
    struct script_target *target, struct raw *raw, enum script_spoil how, uint8_t opcode)
{
	script_target_rule(
	    target, (struct script_rule){.opcode = SCRIPT_ANY, .times = 1, .spoil = how});
	raw_command(raw, opcode, opcode == 0x8a ? block : NULL, sizeof(block));
	return raw_receive(raw);
}

Test(script_target, answers_are_spoiled_as_told)
{
	struct script_target *target = plain_target();
	struct raw raw = raw_session(target, 1);
	const uint8_t *header = raw.header;

	cr_assert_eq(spoiled(target, &raw, SCRIPT_SOUND, 0x88), 0x25);
	cr_assert(header[1] == 0x81 && raw.length == 4096 && get_be32(header + 16) == 1);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_WRONG_ITT, 0x88), 0x25);
	cr_assert_neq(get_be32(header + 16), raw.itt);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_WRONG_ITT, 0x8a), 0x21);
	cr_assert_neq(get_be32(header + 16), raw.itt);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_DATASN_GAP, 0x88), 0x25);
	cr_assert_eq(get_be32(header + 36), 1);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_BEYOND_LENGTH, 0x88), 0x25);
	cr_assert_eq(get_be32(header + 40), 4096);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_UNKNOWN_OPCODE, 0x88), 0x3b);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_UNDERFLOW, 0x8a), 0x21);
	cr_assert(header[1] == 0x82 && get_be32(header + 44) == 512);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_OVERFLOW, 0x88), 0x25);
	cr_assert(header[1] == 0x85 && get_be32(header + 44) == 512);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_NO_DATA, 0x88), 0x21);
	cr_assert(header[1] == 0x80 && header[3] == 0 && get_be32(header + 44) == 0);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_MISSING_SEGMENT, 0x88), 0x21);
	cr_assert_eq(get_be32(header + 36), 1);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_RESPONSE_CODE, 0x8a), 0x21);
	cr_assert(header[2] == 0x01 && header[3] == 0);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_RESPONSE_CODE, 0x88), 0x25);
	cr_assert_eq(header[1], 0x80);
	cr_assert_eq(raw_receive(&raw), 0x21);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_REJECT, 0x88), 0x3f);
	cr_assert_eq(raw.length, 48);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_R2T_BEYOND, 0x8a), 0x31);
	cr_assert_eq(get_be32(header + 40), 4096);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_R2T_WRONG_ITT, 0x8a), 0x31);
	cr_assert_neq(get_be32(header + 16), raw.itt);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_R2T_EMPTY, 0x8a), 0x31);
	cr_assert_eq(get_be32(header + 44), 0);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_R2T_WITH_READ, 0x88), 0x31);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_LONG_SEGMENT, 0x88), 0x25);
	cr_assert_eq(raw.length, 0xffffff);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_BAD_AHS, 0x8a), 0x21);
	cr_assert_eq(header[4], 0xff);
	cr_assert_eq(spoiled(target, &raw, SCRIPT_TRUNCATED, 0x88), -1);
	script_target_must_not_complain(target);
	close(raw.fd);
	script_target_stop(target);
}

Test(script_target, mute_and_hanging_commands_go_on_when_released)
{
	struct script_target *target = plain_target();
	struct raw raw = raw_session(target, 1);
	uint8_t ones[4096];

	memset(ones, 1, sizeof(ones));
	script_target_rule(target, (struct script_rule){.opcode = 0x8a, .times = 1, .mute = true});
	script_target_rule(target, (struct script_rule){.opcode = 0x8a, .times = 1, .hang = true});
	raw_command(&raw, 0x8a, ones, sizeof(ones));
	cr_assert(script_target_await(target, 0x8a, 1, 5));
	must_be(target, SCRIPT_VOLATILE, ones, sizeof(ones), 0);
	raw_command(&raw, 0x8a, block, sizeof(block));
	cr_assert(script_target_await(target, 0x8a, 2, 5));
	must_be(target, SCRIPT_VOLATILE, ones, sizeof(ones), 0);
	script_target_release(target);
	cr_assert_eq(raw_receive(&raw), 0x21);
	cr_assert_eq(get_be32(raw.header + 16), 1);
	cr_assert_eq(raw_receive(&raw), 0x21);
	must_be(target, SCRIPT_VOLATILE, block, sizeof(block), 0);
	close(raw.fd);
	script_target_stop(target);
}

Test(script_target, messages_and_pings_arrive)
{
	struct script_target *target = plain_target();
	struct raw raw = raw_session(target, 1);
	uint8_t pong[48] = {0x40, 0x80};

	script_target_ping(target);
	cr_assert_eq(raw_receive(&raw), 0x20);
	put_be32(pong + 16, 0xffffffff);
	memcpy(pong + 20, raw.header + 20, 4);
	put_be32(pong + 24, raw.cmdsn);
	raw_send(&raw, pong, NULL, 0);
	script_target_message(target, &(struct script_message){.event = 1, .parameter3 = 5});
	cr_assert_eq(raw_receive(&raw), 0x32);
	cr_assert(raw.header[36] == 1 && raw.header[43] == 5);
	script_target_message(target, &(struct script_message){.event = 0, .lun = 1});
	cr_assert_eq(raw_receive(&raw), 0x32);
	cr_assert(raw.length == 20 && raw.header[9] == 1);
	raw_command(&raw, 0x88, NULL, 512);
	cr_assert_eq(raw_receive(&raw), 0x25);
	cr_assert_eq(script_target_pongs(target), 1);
	script_target_message(target, &(struct script_message){.event = 2});
	cr_assert_eq(raw_receive(&raw), 0x32);
	cr_assert_eq(raw_receive(&raw), -1);
	script_target_must_not_complain(target);
	close(raw.fd);
	script_target_stop(target);
}

static bool is_silent(const struct raw *raw)
{
	struct pollfd one = {.fd = raw->fd, .events = POLLIN};

	return poll(&one, 1, 200) == 0;
}

Test(script_target, a_target_that_is_frozen_or_slow_answers_later)
{
	struct script_target *target = plain_target();
	struct raw raw = raw_session(target, 1);

	script_target_freeze(target, true);
	raw_command(&raw, 0x88, NULL, 512);
	cr_assert(is_silent(&raw));
	script_target_freeze(target, false);
	cr_assert_eq(raw_receive(&raw), 0x25);
	script_target_latency(target, 300);
	raw_command(&raw, 0x88, NULL, 512);
	cr_assert(is_silent(&raw));
	cr_assert_eq(raw_receive(&raw), 0x25);
	script_target_drop(target, SCRIPT_SILENTLY);
	raw_command(&raw, 0x88, NULL, 512);
	cr_assert(is_silent(&raw));
	close(raw.fd);
	script_target_stop(target);
}

Test(script_target, a_LUN_becomes_another_at_the_next_login)
{
	struct script_target *target = plain_target();
	struct raw raw = raw_session(target, 1);
	uint8_t inquiry[48] = {
	    0x41, 0xc1, [9] = 1, [19] = 99, [23] = 64, [32] = 0x12, 1, 0x83, 0, 64};
	uint64_t before;

	raw_send(&raw, inquiry, NULL, 0);
	cr_assert_eq(raw_receive(&raw), 0x25);
	cr_assert(raw.header[1] == 0x83 && get_be32(raw.header + 44) == 64 - 16); /* U */
	before = get_be64(raw.data + 8);
	script_target_identity(target, 1, &(struct script_identity){.naa = 0x6000}, true);
	raw_send(&raw, inquiry, NULL, 0);
	cr_assert_eq(raw_receive(&raw), 0x25);
	cr_assert_eq(get_be64(raw.data + 8), before);
	close(raw.fd);
	raw = raw_session(target, 1);
	raw_send(&raw, inquiry, NULL, 0);
	cr_assert_eq(raw_receive(&raw), 0x25);
	cr_assert_eq(get_be64(raw.data + 8), 0x6000);
	close(raw.fd);
	script_target_stop(target);
}

/* ---- logins ---- */

static int login_status(struct script_target *target)
{
	struct raw raw = raw_connect(script_target_port(target));
	int status = raw_login(&raw, INITIATOR, SCENE_IQN, 1);

	if (status == 0x0101)
		cr_assert_str_eq((char *)raw.data, "TargetAddress=10.0.0.1:3260");
	close(raw.fd);
	return status;
}

Test(script_target, logins_follow_their_script)
{
	struct script_target *target = plain_target();
	struct script_login login;

#define LOGIN(...)                                                                                 \
	script_target_login_rule(target, (struct script_login_rule){.times = 1, __VA_ARGS__})
	LOGIN(.deed = SCRIPT_LOGIN_REFUSE, .status_class = 3, .status_detail = 1);
	LOGIN(.deed = SCRIPT_LOGIN_REDIRECT, .address = "10.0.0.1:3260");
	LOGIN(.deed = SCRIPT_LOGIN_CLOSE);
	LOGIN(.deed = SCRIPT_LOGIN_DELAY, .delay_ms = 200);
	cr_assert_eq(login_status(target), 0x0301);
	cr_assert_eq(login_status(target), 0x0101);
	cr_assert_eq(login_status(target), -1);
	int64_t before = g_get_monotonic_time();
	cr_assert_eq(login_status(target), 0);
	cr_assert(g_get_monotonic_time() - before >= 195000, "it came too early");
	cr_assert_eq(login_status(target), 0);
	cr_assert_eq(script_target_logins(target), 2);
	cr_assert_eq(script_target_login_attempts(target), 5);
	cr_assert(script_target_login_attempt(target, 3, &login));
	cr_assert(login.done && !login.discovery && login.isid[0] == 0x80 && login.isid[5] == 1);
	cr_assert_str_eq(login.initiator, INITIATOR);
	LOGIN(.deed = SCRIPT_LOGIN_HANG);
	struct raw raw = raw_connect(script_target_port(target));
	struct timeval limit = {.tv_usec = 200000};
	setsockopt(raw.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	cr_assert(raw_login(&raw, INITIATOR, SCENE_IQN, 1) == -1 && is_silent(&raw));
	close(raw.fd);
	script_target_must_not_complain(target);
	script_target_stop(target);
}

/* A WRITE of ones hangs, its connection is gone, and the initiator port logs in again. */
static struct raw haunt(struct script_target *target, enum script_ghosts how, uint32_t ms)
{
	struct raw raw = raw_session(target, 1);
	uint8_t ones[4096];

	memset(ones, 1, sizeof(ones));
	script_target_ghosts(target, how, ms);
	script_target_rule(target, (struct script_rule){.opcode = 0x8a, .times = 1, .hang = true});
	raw_command(&raw, 0x8a, ones, sizeof(ones));
	cr_assert(script_target_await(target, 0x8a, 1, 5));
	script_target_drop(target, SCRIPT_RST);
	close(raw.fd);
	return raw_session(target, 1);
}

static bool is_executed(void *target)
{
	struct script_record record;

	return script_target_record(target, 0, &record) && record.executed;
}

static bool is_aborted(struct script_target *target)
{
	struct script_record record;

	return script_target_record(target, 0, &record) && record.aborted;
}

Test(script_target, a_ghost_dies_when_its_nexus_is_reinstated)
{
	struct script_target *target = plain_target();
	struct raw raw = haunt(target, SCRIPT_GHOSTS_LIVE, 60000);

	cr_assert(is_aborted(target) && !is_executed(target));
	cr_assert_eq(script_target_dirty(target, 1), 0);
	close(raw.fd);
	script_target_stop(target);
}

Test(script_target, a_ghost_can_be_executed_before_a_login_is_answered)
{
	struct script_target *target = plain_target();
	struct raw raw = haunt(target, SCRIPT_GHOSTS_AT_LOGIN, 0);

	cr_assert(is_executed(target) && !is_aborted(target));
	close(raw.fd);
	script_target_stop(target);
}

Test(script_target, a_ghost_of_a_broken_target_outlives_reinstatement)
{
	struct script_target *target = plain_target();
	struct raw raw = haunt(target, SCRIPT_GHOSTS_BROKEN, 300);

	cr_assert(!is_executed(target) && !is_aborted(target));
	cr_assert(await(5, is_executed, target));
	cr_assert_eq(script_target_dirty(target, 1), 4096);
	close(raw.fd);
	script_target_stop(target);
}

Test(script_target, reinstatement_ends_a_session_that_still_stands)
{
	struct script_target *target = plain_target();
	struct raw first = raw_session(target, 1), other = raw_session(target, 2);
	struct script_login login;

	script_target_rule(target, (struct script_rule){.opcode = 0x8a, .times = 1, .hang = true});
	raw_command(&first, 0x8a, block, sizeof(block));
	cr_assert(script_target_await(target, 0x8a, 1, 5));
	struct raw second = raw_session(target, 1);
	cr_assert_eq(raw_receive(&first), -1);
	cr_assert(is_aborted(target));
	cr_assert(script_target_login_attempt(target, 2, &login) && login.reinstated);
	raw_command(&other, 0x88, NULL, 512);
	cr_assert_eq(raw_receive(&other), 0x25);
	raw_command(&second, 0x88, NULL, 512);
	cr_assert_eq(raw_receive(&second), 0x25);
	cr_assert_eq(script_target_connections(target), 2);
	script_target_stop(target);
}

Test(script_target, a_LUN_reset_aborts_and_is_told)
{
	struct script_target *target = plain_target();
	struct raw raw = raw_session(target, 1);
	uint8_t reset[48] = {0x42, 0x85, [9] = 1};

	script_target_rule(target, (struct script_rule){.opcode = 0x8a, .times = 1, .hang = true});
	raw_command(&raw, 0x8a, block, sizeof(block));
	put_be32(reset + 16, 0x1000);
	put_be32(reset + 24, raw.cmdsn);
	raw_send(&raw, reset, NULL, 0);
	cr_assert_eq(raw_receive(&raw), 0x22);
	cr_assert_eq(raw.header[2], 0);
	cr_assert(is_aborted(target));
	cr_assert_eq(script_target_management_count(target, 5), 1);
	raw_command(&raw, 0x88, NULL, 512);
	cr_assert_eq(raw_receive(&raw), 0x21);
	cr_assert(raw.data[4] == 6 && raw.data[14] == 0x29 && raw.data[15] == 3);
	close(raw.fd);
	script_target_stop(target);
}

/* ---- an initiator that is broken ---- */

/* A session, then PDUs with a few bytes changed. */
static void send_damaged(struct script_target *target, struct dice *dice)
{
	struct raw raw = raw_connect(script_target_port(target));
	uint8_t bytes[48 + 512];

	if (dice_between(dice, 0, 3) > 0)
		raw_login(&raw, INITIATOR, SCENE_IQN, (uint8_t)dice_between(dice, 0, 3));
	for (int i = 0; i < 8; i++) {
		static const uint8_t opcodes[] = {0x00, 0x01, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06};
		size_t length = 48 + 4 * dice_between(dice, 0, 128);

		memset(bytes, 0, sizeof(bytes));
		bytes[0] = opcodes[dice_between(dice, 0, 7)] | (uint8_t)(dice_roll(dice) & 0x40);
		bytes[1] = (uint8_t)dice_roll(dice);
		put_be16(bytes + 6, (uint16_t)(length - 48));
		bytes[9] = 1;
		put_be32(bytes + 16, (uint32_t)dice_between(dice, 0, 3));
		put_be32(bytes + 20, (uint32_t)dice_between(dice, 0, 2048));
		put_be32(bytes + 24, raw.cmdsn++);
		dice_fill(dice, bytes + 32, 16);
		bytes[32] = (uint8_t[]){
		    0x12, 0x1a, 0x5a, 0x28, 0x2a, 0x93, 0x9e, 0xa0}[dice_between(dice, 0, 7)];
		memset(bytes + 34, 0, dice_between(dice, 0, 8));
		for (uint64_t n = dice_between(dice, 0, 3); n > 0; n--)
			bytes[dice_between(dice, 0, 47)] = (uint8_t)dice_roll(dice);
		send(raw.fd, bytes, length, MSG_NOSIGNAL);
	}
	shutdown(raw.fd, SHUT_WR);
	while (recv(raw.fd, bytes, sizeof(bytes), 0) > 0)
		continue;
	close(raw.fd);
}

Test(script_target, outlives_an_initiator_that_sends_nonsense)
{
	struct script_target *target = plain_target();
	struct dice dice = {.state = 2026};

	for (unsigned long i = scaled(1000); i > 0; i--)
		send_damaged(target, &dice);
	cr_assert(script_target_complaints(target, NULL, 0) > 0);
	struct raw raw = raw_session(target, 9);
	raw_command(&raw, 0x88, NULL, 512);
	cr_assert_eq(raw_receive(&raw), 0x25);
	close(raw.fd);
	script_target_stop(target);
}
