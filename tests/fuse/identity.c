/*
 * identity.c - after each loss the LUN is proved to be the same one before anything is sent to it
 * (SAFETY.md, 14): data never goes to a stranger.
 */
#include "support/data.h"
#include "support/script_scene.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(safety_14, .timeout = 120);

#define SIZE    MIB(8)
#define LENGTH  KIB(64)
#define SOON    30
#define OWN_NAA 0x5001405000000001u

/* A mount with one stable and one acknowledged block range, and the target away. */
struct away {
	struct scene scene;
	unsigned char *stable, *kept;
	int fd;
	unsigned first; /* record */
};

static struct away leave(void)
{
	struct away away = {.scene = scene_of_script(SIZE)};

	script_scene_mount(&away.scene, NULL);
	away.stable = aligned_buffer(LENGTH);
	away.kept = aligned_buffer(LENGTH);
	pattern_fill(away.stable, LENGTH, 0, 1);
	pattern_fill(away.kept, LENGTH, 0, 2);
	away.fd = must_open(away.scene.file, O_RDWR | O_DIRECT);
	must_pwrite(away.fd, away.stable, LENGTH, 0);
	cr_assert_eq(fsync(away.fd), 0);
	must_pwrite(away.fd, away.kept, LENGTH, MIB(6));
	return away;
}

static void shut(struct away *away)
{
	script_target_reboot(
	    away->scene.script, (struct script_reboot){.closed_ms = SCRIPT_NEVER, .untold = true});
	away->first = script_target_records(away->scene.script);
}

static void must_be_whole(struct away *away)
{
	unsigned char *found = aligned_buffer(LENGTH);

	must_pread(away->fd, found, LENGTH, 0);
	cr_assert(first_difference(found, away->stable, LENGTH) < 0);
	must_pread(away->fd, found, LENGTH, MIB(6));
	cr_assert(first_difference(found, away->kept, LENGTH) < 0);
	cr_assert_eq(fsync(away->fd), 0, "%s", scene_said(&away->scene));
	script_scene_must_be(&away->scene, SCRIPT_STABLE, away->kept, LENGTH, MIB(6));
	cr_assert_str_empty(script_scene_string(&away->scene, "trouble"));
}

static void away_end(struct away *away)
{
	close(away->fd);
	script_scene_umount(&away->scene);
	script_target_stop(away->scene.script);
}

static void must_fail(struct away *away)
{
	unsigned char *bytes = aligned_buffer(LENGTH);
	struct script_record record;

	errno = 0;
	cr_assert(pread(away->fd, bytes, LENGTH, 0) < 0 && errno == EIO, "%s", strerror(errno));
	cr_assert(pwrite(away->fd, bytes, LENGTH, 0) < 0 && errno == EIO, "%s", strerror(errno));
	cr_assert(fsync(away->fd) < 0 && errno == EIO, "%s", strerror(errno));
	for (unsigned i = away->first; script_target_record(away->scene.script, i, &record); i++)
		cr_assert(!record_is(&record, SCRIPT_READ) && !record_is(&record, SCRIPT_WRITE) &&
		              !record_is(&record, SCRIPT_SYNC),
		    "opcode %02x was sent to it", record.cdb[0]);
}

static void must_tell(struct away *away, const char *was, const char *is)
{
	const char *log = scene_said(&away->scene);
	char *trouble = script_scene_string(&away->scene, "trouble");
	char *status = must_lunfs(away->scene.stage, "status %s", away->scene.mnt);

	cr_assert(strstr(log, was) && strstr(log, is), "log:\n%s", log);
	cr_assert(strstr(trouble, was) && strstr(trouble, is), "trouble: %s", trouble);
	cr_assert(strstr(status, was) && strstr(status, is), "status:\n%s", status);
}

static bool is_usable(void *data)
{
	const struct away *away = data;
	static unsigned char *bytes;

	bytes = bytes ? bytes : aligned_buffer(LENGTH);
	return pread(away->fd, bytes, LENGTH, 0) == (ssize_t)LENGTH;
}

/* ---- another one ---- */

static void becomes_another(
    struct script_identity other, struct script_identity own, const char *was, const char *is)
{
	struct away away = leave();
	unsigned char *before = aligned_buffer(SIZE);

	shut(&away);
	script_target_read(away.scene.script, 1, 0, before, SIZE, SCRIPT_STABLE);
	script_target_identity(away.scene.script, 1, &other, false);
	script_target_listen(away.scene.script, true);
	must_fail(&away);
	/* it goes on asking, and is not taken in */
	g_usleep(500000);
	must_fail(&away);
	script_scene_must_be(&away.scene, SCRIPT_VOLATILE, before, SIZE, 0);
	cr_assert_eq(script_scene_number(&away.scene, "unstable_bytes"), LENGTH);
	must_tell(&away, was, is);
	script_target_identity(away.scene.script, 1, &own, false);
	cr_assert(await(SOON, is_usable, &away), "it does not come back");
	must_be_whole(&away);
	away_end(&away);
}

Test(safety_14, a_LUN_with_another_designator_gets_nothing)
{
	becomes_another((struct script_identity){.naa = 0x60000000000000aa},
	    (struct script_identity){.naa = OWN_NAA}, "5001405000000001", "60000000000000aa");
}

Test(safety_14, a_LUN_with_another_serial_number_gets_nothing)
{
	becomes_another((struct script_identity){.serial = "STRANGER"},
	    (struct script_identity){.serial = "SCRIPT00001"}, "SCRIPT00001", "STRANGER");
}

Test(safety_14, a_LUN_with_another_block_size_gets_nothing)
{
	becomes_another((struct script_identity){.block_size = 4096},
	    (struct script_identity){.block_size = 512}, "512", "4096");
}

/* It says at a login who it is then, and told nobody before. */
Test(safety_14, a_LUN_that_became_another_at_the_login_gets_nothing)
{
	struct away away = leave();

	script_target_identity(
	    away.scene.script, 1, &(struct script_identity){.naa = 0x6000000000000001}, true);
	shut(&away);
	script_target_listen(away.scene.script, true);
	must_fail(&away);
	script_target_identity(
	    away.scene.script, 1, &(struct script_identity){.naa = OWN_NAA}, false);
	cr_assert(await(SOON, is_usable, &away), "it does not come back");
	must_be_whole(&away);
	away_end(&away);
}

/* A LUN becomes another under a session that stands, and says so (3Fh/03h, INQUIRY DATA). */
Test(safety_14, a_LUN_that_becomes_another_without_a_loss_gets_nothing_more)
{
	struct away away = leave();

	script_target_identity(
	    away.scene.script, 1, &(struct script_identity){.naa = 0x6000000000000002}, false);
	script_target_attention(away.scene.script, 1, 0x3f, 0x03);
	is_usable(&away); /* is told */
	double end = seconds_now() + patience(SOON);
	while (is_usable(&away))
		cr_assert(seconds_now() < end, "nobody noticed");
	away.first = script_target_records(away.scene.script);
	must_fail(&away);
	/* meanwhile it loses its cache, and only our questions are told */
	script_target_forget(away.scene.script, 1);
	g_usleep(300000);
	script_target_identity(
	    away.scene.script, 1, &(struct script_identity){.naa = OWN_NAA}, false);
	cr_assert(await(SOON, is_usable, &away), "it does not come back");
	must_be_whole(&away);
	away_end(&away);
}

/* ---- larger and smaller ---- */

static uint64_t size_of(int fd)
{
	struct stat status;

	cr_assert_eq(fstat(fd, &status), 0);
	return (uint64_t)status.st_size;
}

struct size_wait {
	int fd;
	uint64_t size;
};

static bool has_size(void *data)
{
	const struct size_wait *wait = data;

	return size_of(wait->fd) == wait->size;
}

static void resize(struct away *away, uint64_t size, bool told)
{
	unsigned char *bytes = aligned_buffer(4096);
	struct size_wait wait = {away->fd, size};

	if (!told)
		shut(away);
	script_target_capacity(away->scene.script, 1, size, told);
	if (!told)
		script_target_listen(away->scene.script, true);
	must_pread(away->fd, bytes, 4096, MIB(1));
	cr_assert(await(SOON, has_size, &wait), "its size is %lu", size_of(away->fd));
}

static void grows(bool told)
{
	struct away away = leave();
	unsigned char *more = aligned_buffer(LENGTH), *found = aligned_buffer(LENGTH);
	int buffered = must_open(away.scene.file, O_RDWR);

	pattern_fill(more, LENGTH, 0, 3);
	resize(&away, 2 * SIZE, told);
	cr_assert_eq(size_of(buffered), 2 * SIZE);
	must_pwrite(away.fd, more, LENGTH, 2 * SIZE - LENGTH);
	must_pread(buffered, found, LENGTH, 2 * SIZE - LENGTH);
	cr_assert(first_difference(found, more, LENGTH) < 0);
	must_pwrite(buffered, more, LENGTH, SIZE - 100); /* across the old end */
	cr_assert_eq(fsync(buffered), 0);
	script_scene_must_be(&away.scene, SCRIPT_STABLE, more, LENGTH, SIZE - 100);
	must_be_whole(&away);
	errno = 0;
	cr_assert(pwrite(away.fd, more, LENGTH, (off_t)(2 * SIZE)) < 0 && errno == ENOSPC);
	close(buffered);
	away_end(&away);
}

Test(safety_14, a_LUN_that_is_larger_after_a_loss_grows_for_who_has_it_open)
{
	grows(false);
}

Test(safety_14, a_LUN_that_says_that_it_is_larger_grows_for_who_has_it_open)
{
	grows(true);
}

static void shrinks(bool told)
{
	struct away away = leave();
	unsigned char *bytes = aligned_buffer(LENGTH);
	int buffered = must_open(away.scene.file, O_RDWR);

	resize(&away, MIB(7), told);
	cr_assert_eq(size_of(buffered), MIB(7));
	errno = 0;
	cr_assert(
	    pwrite(away.fd, bytes, LENGTH, MIB(7)) < 0 && errno == ENOSPC, "%s", strerror(errno));
	cr_assert_eq(pread(away.fd, bytes, LENGTH, MIB(7)), 0);
	cr_assert_eq(pread(buffered, bytes, LENGTH, MIB(7) - 512), 512);
	must_be_whole(&away);
	close(buffered);
	away_end(&away);
}

Test(safety_14, a_LUN_that_is_smaller_after_a_loss_shrinks)
{
	shrinks(false);
}

Test(safety_14, a_LUN_that_says_that_it_is_smaller_shrinks)
{
	shrinks(true);
}

static void shrinks_below_what_is_kept(bool told)
{
	struct away away = leave();

	if (!told)
		shut(&away);
	script_target_capacity(away.scene.script, 1, MIB(4), told);
	if (!told)
		script_target_listen(away.scene.script, true);
	double end = seconds_now() + patience(SOON);
	while (told && is_usable(&away))
		cr_assert(seconds_now() < end, "it goes on without what is beyond its end");
	away.first = script_target_records(away.scene.script);
	must_fail(&away);
	must_tell(&away, text(away.scene.stage, "%lu", MIB(4)),
	    text(away.scene.stage, "%lu", MIB(6) + LENGTH));
	script_target_capacity(away.scene.script, 1, SIZE, told);
	cr_assert(await(SOON, is_usable, &away), "it does not come back");
	must_be_whole(&away);
	away_end(&away);
}

Test(safety_14, a_LUN_that_lacks_the_place_of_what_is_kept_fails_until_it_has_it)
{
	shrinks_below_what_is_kept(false);
}

Test(safety_14, it_fails_too_when_it_says_that_it_lacks_the_place)
{
	shrinks_below_what_is_kept(true);
}

/* ---- absent ---- */

Test(safety_14, a_LUN_that_is_absent_after_a_restart_is_waited_for)
{
	struct away away = leave();
	unsigned char *found = aligned_buffer(LENGTH);
	struct job read = job_new(JOB_READ, away.fd, found, LENGTH, MIB(6));
	struct job flush = job_new(JOB_FSYNC, away.fd, NULL, 0, 0);

	shut(&away);
	script_target_present(away.scene.script, 1, false);
	script_target_listen(away.scene.script, true);
	script_scene_await_login(&away.scene, 2);
	job_start(&read);
	job_start(&flush);
	g_usleep(1000000);
	cr_assert(!job_is_done(&read) && !job_is_done(&flush), "it did not wait");
	cr_assert_str_not_empty(script_scene_string(&away.scene, "trouble"));
	script_target_present(away.scene.script, 1, true);
	cr_assert_eq(job_end(&read, SOON), 0);
	cr_assert_eq(job_end(&flush, SOON), 0);
	cr_assert(first_difference(found, away.kept, LENGTH) < 0);
	must_be_whole(&away);
	away_end(&away);
}

/* ---- what can be proved ---- */

Test(safety_14, status_says_what_the_designator_proves)
{
	struct away away = leave();

	cr_assert_str_eq(script_scene_string(&away.scene, "identity"), "strong");
	away_end(&away);
}

Test(safety_14, status_says_that_tgt_proves_little)
{
	struct scene scene = scene_with_disk(MIB(4), 512);
	char *status = must_lunfs(scene.stage, "status %s", scene.mnt);
	char *json = must_lunfs(scene.stage, "status --json %s", scene.mnt);

	cr_assert(strstr(status, "identity: weak"), "%s", status);
	cr_assert(strstr(json, "\"identity\": \"weak\""), "%s", json);
	scene_umount(&scene);
}
