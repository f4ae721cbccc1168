/*
 * hostile.c - targets that break the protocol, lose data, or answer with every trouble that SCSI
 * has a word for (SAFETY.md, 13).
 *
 * A proxy rewrites chosen PDUs of a real target. Reads and writes are done by children, so that a
 * hanging one is a failure and not a hanging test.
 */
#include "support/data.h"
#include "support/mount.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

TestSuite(hostile, .timeout = 120);

#define LENGTH      KIB(64) /* of each read and write: one command, one Data-In */
#define WRONG_BYTES 254

/* ---- rewrites ---- */

enum {
	HEADER = 48,
	SCSI_RESPONSE = 0x21,
	LOGIN_RESPONSE = 0x23,
	TEXT_RESPONSE = 0x24,
	DATA_IN = 0x25,
	NO_OPCODE = 0x3b,
};
enum { GOOD = 0x00, CHECK_CONDITION = 0x02, BUSY = 0x08, TASK_SET_FULL = 0x28 };

static int opcode(const GByteArray *pdu)
{
	return pdu->data[0] & 0x3f;
}

static bool ends_a_read(const GByteArray *pdu)
{
	return opcode(pdu) == DATA_IN && (pdu->data[1] & 0x01); /* S: with status */
}

static bool ends_a_command(const GByteArray *pdu)
{
	return ends_a_read(pdu) || opcode(pdu) == SCSI_RESPONSE;
}

/* What a SCSI Response is to say; a key makes it sense data. */
struct answer {
	const char *name;
	uint8_t status, key, asc, ascq;
};

/* The answer to a READ or a WRITE becomes a SCSI Response without data. */
static enum proxy_verdict answer_instead(GByteArray *pdu, const void *data)
{
	const struct answer *answer = data;
	const uint8_t sense[20] = {
	    0, 18, 0x70, 0, answer->key, [9] = 10, [14] = answer->asc, answer->ascq};

	if (!ends_a_command(pdu))
		return PROXY_PASSED;
	g_byte_array_set_size(pdu, HEADER);
	memcpy(pdu->data, (uint8_t[]){SCSI_RESPONSE, 0x80, 0, answer->status}, 4);
	memset(pdu->data + 4, 0, 12);  /* lengths; the LUN is reserved here */
	memset(pdu->data + 20, 0, 4);  /* SNACK tag; ITT, StatSN, ExpCmdSN and MaxCmdSN stay */
	memset(pdu->data + 36, 0, 12); /* ExpDataSN, residuals */
	if (answer->status == CHECK_CONDITION) {
		pdu->data[7] = sizeof(sense);
		g_byte_array_append(pdu, sense, sizeof(sense));
	}
	return PROXY_CHANGED;
}

static enum proxy_verdict claim_residual(GByteArray *pdu, const void *unused)
{
	(void)unused;
	if (!ends_a_command(pdu))
		return PROXY_PASSED;
	pdu->data[1] |= 0x02; /* U */
	memcpy(pdu->data + 44, (uint8_t[]){0, 0, 512 >> 8, 0}, 4);
	return PROXY_CHANGED;
}

static enum proxy_verdict spoil_opcode(GByteArray *pdu, const void *unused)
{
	(void)unused;
	if (!ends_a_command(pdu))
		return PROXY_PASSED;
	pdu->data[0] = NO_OPCODE;
	return PROXY_CHANGED;
}

/* More than MaxRecvDataSegmentLength allows; and its data stays away, so that nothing follows that
 * were one more error. */
static enum proxy_verdict exceed_length(GByteArray *pdu, const void *unused)
{
	(void)unused;
	if (!ends_a_read(pdu))
		return PROXY_PASSED;
	g_byte_array_set_size(pdu, HEADER);
	memcpy(pdu->data + 5, (uint8_t[]){0x08, 0, 0}, 3);
	return PROXY_CHANGED;
}

/* The target takes segments of no more than 0 bytes, it says. */
static enum proxy_verdict take_no_data(GByteArray *pdu, const void *unused)
{
	static const char key[] = "MaxRecvDataSegmentLength=";
	char *found = memmem(pdu->data, pdu->len, key, strlen(key));

	(void)unused;
	if (opcode(pdu) != LOGIN_RESPONSE || !found)
		return PROXY_PASSED;
	for (char *digit = found + strlen(key); *digit; digit++)
		*digit = '0';
	return PROXY_CHANGED;
}

static enum proxy_verdict close_behind_login(GByteArray *pdu, const void *unused)
{
	bool transit_to_full_feature = (pdu->data[1] & 0x83) == 0x83;

	(void)unused;
	return opcode(pdu) == LOGIN_RESPONSE && transit_to_full_feature ? PROXY_LAST : PROXY_PASSED;
}

static enum proxy_verdict close_behind_text(GByteArray *pdu, const void *unused)
{
	(void)unused;
	return opcode(pdu) == TEXT_RESPONSE ? PROXY_LAST : PROXY_PASSED;
}

/* ---- the scene ---- */

/* A mount through a proxy, of a disk that holds a pattern. */
struct hostile {
	struct scene scene;
	struct proxy *proxy;
};

/* Where a child reads or writes, and with which pattern. */
struct transfer {
	const char *path;
	unsigned seed;
};

static int child_read(void *data)
{
	const struct transfer *transfer = data;
	unsigned char *found = aligned_buffer(LENGTH), *expected = aligned_buffer(LENGTH);
	int fd = open(transfer->path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	pattern_fill(expected, LENGTH, 0, transfer->seed);
	if (fd < 0 || pread(fd, found, LENGTH, 0) < 0)
		return errno;
	return first_difference(found, expected, LENGTH) < 0 ? 0 : WRONG_BYTES;
}

static int child_write(void *data)
{
	const struct transfer *transfer = data;
	unsigned char *bytes = aligned_buffer(LENGTH);
	int fd = open(transfer->path, O_WRONLY | O_DIRECT | O_CLOEXEC);

	pattern_fill(bytes, LENGTH, 0, transfer->seed);
	if (fd < 0 || pwrite(fd, bytes, LENGTH, 0) < 0 || fsync(fd) != 0)
		return errno;
	return 0;
}

static int read_of(const struct scene *scene)
{
	return call_as(0, child_read, &(struct transfer){.path = scene->file});
}

static bool reads_right(void *scene)
{
	return read_of(scene) == 0;
}

static void put_disk(struct scene *scene)
{
	unsigned char *pattern = aligned_buffer(LENGTH);

	scene->backing = tgt_add_lun(scene->tgt, 1, .lun = 1, .size = MIB(1));
	pattern_fill(pattern, LENGTH, 0, 0);
	int fd = must_open(scene->backing, O_WRONLY);
	must_pwrite(fd, pattern, LENGTH, 0);
	close(fd);
}

/* The target and the proxy before it, not mounted yet. */
static struct hostile hostile_target(void)
{
	struct hostile made = {.scene.stage = stage_new()};

	made.scene.tgt = tgt_start(made.scene.stage);
	tgt_add_target(made.scene.tgt, 1, SCENE_IQN);
	put_disk(&made.scene);
	made.proxy = proxy_start(made.scene.tgt->port);
	return made;
}

static struct hostile hostile_mount(const char *options)
{
	struct hostile made = hostile_target();
	struct scene *scene = &made.scene;

	scene->mnt = must_mount_lunfs(scene->stage,
	    text(scene->stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, proxy_port(made.proxy)), options);
	scene->file = text(scene->stage, "%s/lun1.img", scene->mnt);
	cr_assert_eq(read_of(scene), 0, "it does not even work without hostility");
	return made;
}

static void hostile_end(struct hostile *hostile)
{
	scene_umount(&hostile->scene);
	proxy_stop(hostile->proxy);
}

/*
 * A command whose answer is not to be believed costs the session, and is sent again by itself: who
 * waits for it gets what is right.
 */
static void passes_once(
    int (*command)(void *transfer), proxy_rewrite_fn *rewrite, const struct answer *answer)
{
	struct hostile hostile = hostile_mount(NULL);
	struct transfer transfer = {.path = hostile.scene.file};
	unsigned logins = proxy_connections(hostile.proxy);

	proxy_rewrite(hostile.proxy, rewrite, answer, 1);
	pid_t child = call_start(0, command, &transfer);
	int outcome = call_end(child, 5);
	cr_assert_eq(outcome, 0, "it ended with %d", outcome);
	cr_assert_eq(proxy_rewritten(hostile.proxy), 1);
	cr_assert_eq(proxy_connections(hostile.proxy), logins + 1, "not exactly one login more");
	cr_assert_eq(read_of(&hostile.scene), 0);
	transfer.seed = 1;
	cr_assert_eq(call_as(0, child_write, &transfer), 0, "it does not take writes again");
	cr_assert_eq(call_as(0, child_read, &transfer), 0);
	hostile_end(&hostile);
}

/* One that never gets another answer fails in the end, and never are wrong bytes behind success. */
static void fails_for_ever(
    int (*command)(void *transfer), proxy_rewrite_fn *rewrite, const struct answer *answer)
{
	struct hostile hostile = hostile_mount("replacement_timeout=1s");
	struct transfer transfer = {.path = hostile.scene.file};

	proxy_rewrite(hostile.proxy, rewrite, answer, UINT_MAX);
	pid_t child = call_start(0, command, &transfer);
	int outcome = call_end(child, 6);
	cr_assert_eq(outcome, EIO, "it ended with %d, not EIO within 6 s", outcome);
	cr_assert(proxy_rewritten(hostile.proxy) >= 2, "it was not tried again");
	cr_assert(proxy_rewritten(hostile.proxy) <= 40, "%u tries in seconds",
	    proxy_rewritten(hostile.proxy));
	proxy_rewrite(hostile.proxy, NULL, NULL, 0);
	cr_assert(await(10, reads_right, &hostile.scene), "it does not come back");
	transfer.seed = 1;
	cr_assert_eq(call_as(0, child_write, &transfer), 0, "it does not take writes again");
	cr_assert_eq(call_as(0, child_read, &transfer), 0);
	hostile_end(&hostile);
}

/* ---- data that is missing ---- */

static const struct answer good = {.status = GOOD};
static const struct answer recovered = {
    .status = CHECK_CONDITION, .key = 0x1, .asc = 0x17, .ascq = 0x01};

Test(hostile, a_read_without_its_data_is_repeated_though_its_status_is_GOOD)
{
	passes_once(child_read, answer_instead, &good);
}

Test(hostile, a_read_without_its_data_is_repeated_though_only_an_error_was_recovered)
{
	passes_once(child_read, answer_instead, &recovered);
}

Test(hostile, a_read_with_a_residual_is_repeated)
{
	passes_once(child_read, claim_residual, NULL);
}

Test(hostile, a_write_with_a_residual_is_repeated)
{
	passes_once(child_write, claim_residual, NULL);
}

Test(hostile, a_read_that_never_has_its_data_fails_though_its_status_is_GOOD)
{
	fails_for_ever(child_read, answer_instead, &good);
}

Test(hostile, a_read_that_never_has_its_data_fails_though_only_an_error_was_recovered)
{
	fails_for_ever(child_read, answer_instead, &recovered);
}

Test(hostile, a_read_that_always_has_a_residual_fails)
{
	fails_for_ever(child_read, claim_residual, NULL);
}

Test(hostile, a_write_that_always_has_a_residual_fails)
{
	fails_for_ever(child_write, claim_residual, NULL);
}

/* ---- broken PDUs ---- */

Test(hostile, a_read_whose_answer_is_an_unknown_PDU_is_repeated)
{
	passes_once(child_read, spoil_opcode, NULL);
}

Test(hostile, a_write_whose_answer_is_an_unknown_PDU_is_repeated)
{
	passes_once(child_write, spoil_opcode, NULL);
}

Test(hostile, a_read_whose_answer_is_too_long_is_repeated)
{
	passes_once(child_read, exceed_length, NULL);
}

Test(hostile, a_read_whose_answer_is_always_too_long_fails)
{
	fails_for_ever(child_read, exceed_length, NULL);
}

Test(hostile, a_target_that_takes_segments_of_0_bytes_is_not_mounted)
{
	struct hostile hostile = hostile_target();
	struct stage *stage = hostile.scene.stage;

	proxy_rewrite(hostile.proxy, take_no_data, NULL, UINT_MAX);
	stage_directory(stage, "mnt", 0);
	struct result *result =
	    lunfs(stage, "mount iscsi://127.0.0.1:%u/" SCENE_IQN " mnt -o login_timeout=5",
	        proxy_port(hostile.proxy));

	cr_assert(proxy_rewritten(hostile.proxy) > 0, "no login told a segment length");
	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->err);
	cr_assert(strchr(result->err, '\n') == result->err + strlen(result->err) - 1,
	    "not one line: %s", result->err);
	cr_assert(strstr(result->err, "RFC 7143"), "%s", result->err);
	cr_assert(result->seconds < patience(6), "after %.1f s", result->seconds);
	cr_assert(!is_mounted(text(stage, "%s/mnt", stage->dir)));
	cr_assert_eq(lunfs_daemon(), 0);
	proxy_stop(hostile.proxy);
}

/* ---- trouble that passes ---- */

static const struct answer passing[] = {
    {"BUSY", BUSY, 0, 0, 0},
    {"TASK SET FULL", TASK_SET_FULL, 0, 0, 0},
    {"UNIT ATTENTION, power on or reset", CHECK_CONDITION, 0x6, 0x29, 0x00},
    {"ABORTED COMMAND", CHECK_CONDITION, 0xb, 0x00, 0x00},
};

Test(hostile, a_read_outlasts_trouble_that_passes)
{
	struct hostile hostile = hostile_mount(NULL);
	unsigned logins = proxy_connections(hostile.proxy);

	for (unsigned i = 0; i < G_N_ELEMENTS(passing); i++) {
		proxy_rewrite(hostile.proxy, answer_instead, &passing[i], 3);
		cr_assert_eq(read_of(&hostile.scene), 0, "%s was seen", passing[i].name);
		cr_assert_eq(proxy_rewritten(hostile.proxy), 3 * (i + 1));
	}
	cr_assert_eq(proxy_connections(hostile.proxy), logins, "a session was lost");
	hostile_end(&hostile);
}

Test(hostile, a_write_outlasts_trouble_that_passes)
{
	struct hostile hostile = hostile_mount(NULL);
	unsigned char *expected = aligned_buffer(LENGTH);
	unsigned logins = proxy_connections(hostile.proxy);

	for (unsigned i = 0; i < G_N_ELEMENTS(passing); i++) {
		struct transfer transfer = {.path = hostile.scene.file, .seed = i + 1};

		proxy_rewrite(hostile.proxy, answer_instead, &passing[i], 3);
		cr_assert_eq(call_as(0, child_write, &transfer), 0, "%s was seen", passing[i].name);
		cr_assert_eq(proxy_rewritten(hostile.proxy), 3 * (i + 1));
		pattern_fill(expected, LENGTH, 0, transfer.seed);
		must_hold(hostile.scene.backing, expected, LENGTH, 0);
	}
	cr_assert_eq(proxy_connections(hostile.proxy), logins, "a session was lost");
	hostile_end(&hostile);
}

/* ---- sessions that do not last ---- */

Test(hostile, a_disk_that_is_late_after_a_restart_comes_back)
{
	struct hostile hostile = hostile_mount(NULL);
	struct scene *scene = &hostile.scene;

	tgt_kill(scene->tgt);
	scene->tgt = tgt_start(scene->stage);
	tgt_add_target(scene->tgt, 1, SCENE_IQN);
	unsigned logins = proxy_connections(hostile.proxy);
	proxy_retarget(hostile.proxy, scene->tgt->port);
	g_usleep(2000000);
	cr_assert(proxy_connections(hostile.proxy) > logins, "nobody logged in meanwhile");
	pid_t reader = call_start(0, child_read, &(struct transfer){.path = scene->file});
	cr_assert_eq(call_end(reader, 0.5), -1, "a disk that is not there was read, or given up");
	put_disk(scene);
	cr_assert_eq(call_end(reader, 10), 0, "it does not come back");
	hostile_end(&hostile);
}

Test(hostile, a_target_that_closes_each_session_is_not_stormed)
{
	struct hostile hostile = hostile_mount(NULL);
	unsigned logins = proxy_connections(hostile.proxy);

	proxy_rewrite(hostile.proxy, close_behind_login, NULL, UINT_MAX);
	proxy_cut(hostile.proxy, PROXY_CUT_FIN);
	g_usleep(3000000);
	logins = proxy_connections(hostile.proxy) - logins;
	cr_assert(logins >= 2 && logins <= 8, "%u logins in 3 s", logins);
	cr_assert_eq(proxy_rewritten(hostile.proxy), logins, "not each login was closed");
	proxy_rewrite(hostile.proxy, NULL, NULL, 0);
	cr_assert(await(10, reads_right, &hostile.scene), "it does not come back");
	hostile_end(&hostile);
}

Test(hostile, discovery_tells_each_target_once_though_the_portal_hangs_up)
{
	struct hostile hostile = hostile_target();
	struct stage *stage = hostile.scene.stage;

	tgt_add_target(hostile.scene.tgt, 2, "iqn.2026-01.org.lunfs:second");
	proxy_rewrite(hostile.proxy, close_behind_text, NULL, UINT_MAX);
	char *found = must_lunfs(stage, "discover --luns 127.0.0.1:%u", proxy_port(hostile.proxy));
	cr_assert_eq(proxy_rewritten(hostile.proxy), 1);
	cr_assert_eq(count_words(found, SCENE_IQN "\n"), 1, "%s", found);
	cr_assert_eq(count_words(found, "iqn.2026-01.org.lunfs:second\n"), 1, "%s", found);
	cr_assert_eq(count_words(found, "    1  disk "), 1, "%s", found);
	proxy_stop(hostile.proxy);
}
