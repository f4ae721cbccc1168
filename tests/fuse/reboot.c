/*
 * reboot.c - a target that forgets what was not synced, and loses nothing (SAFETY.md, 1-8 and 11).
 *
 * Above the scripted target: it reboots, tells of it or does not, is reset by another initiator,
 * reserved by another host, or lets commands of an old session live on. What counts is what would
 * survive its next power failure, and in which order it was told to write.
 */
#include "support/data.h"
#include "support/script_scene.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(safety_01, .timeout = 120);
TestSuite(safety_02, .timeout = 120);
TestSuite(safety_03, .timeout = 120);
TestSuite(safety_04, .timeout = 120);
TestSuite(safety_05, .timeout = 120);
TestSuite(safety_07, .timeout = 120);
TestSuite(safety_08, .timeout = 200);
TestSuite(safety_11, .timeout = 120);

#define SIZE   MIB(16)
#define LENGTH KIB(64)
#define SOON   30

enum telling { TOLD, UNTOLD };

static struct scene mounted(const char *options)
{
	struct scene scene = scene_of_script(SIZE);

	script_scene_mount(&scene, options);
	return scene;
}

static void script_scene_end(struct scene *scene)
{
	script_scene_umount(scene);
	script_target_stop(scene->script);
}

static unsigned char *pattern(size_t length, uint64_t offset, unsigned seed)
{
	unsigned char *bytes = aligned_buffer(length);

	pattern_fill(bytes, length, offset, seed);
	return bytes;
}

static void reboot_now(struct scene *scene, enum telling telling, uint32_t closed_ms)
{
	script_target_reboot(scene->script,
	    (struct script_reboot){.closed_ms = closed_ms, .untold = telling == UNTOLD});
}

static void must_fsync(struct scene *scene, int fd)
{
	cr_assert_eq(fsync(fd), 0, "fsync: %s\n%s", strerror(errno), scene_said(scene));
}

/* Is something lost, when nothing is done about it? Else a test proves nothing. */
static void must_have_forgotten(
    struct scene *scene, const void *bytes, size_t length, uint64_t offset)
{
	g_autofree unsigned char *found = g_malloc(length);

	cr_assert(script_target_read(scene->script, 1, offset, found, length, SCRIPT_VOLATILE));
	cr_assert(first_difference(found, bytes, length) >= 0, "the target has forgotten nothing");
}

/* The number of commands so far; what comes from here on. */
static unsigned now(struct scene *scene)
{
	return script_target_records(scene->script);
}

/* ---- 1: what was acknowledged is sent again ---- */

/* Writes of many sizes, through the page cache and without. */
static unsigned char *scatter(struct scene *scene, int direct, int buffered)
{
	unsigned char *shadow = aligned_buffer(SIZE);
	struct dice dice = {.state = 42};

	script_target_read(scene->script, 1, 0, shadow, SIZE, SCRIPT_VOLATILE);
	for (unsigned i = 0; i < 60; i++) {
		size_t length = (size_t)dice_between(&dice, 1, i % 8 ? 128 : 2048) * 512;
		uint64_t offset = dice_between(&dice, 0, (SIZE - length) / 512) * 512;
		unsigned char *bytes = pattern(length, offset, i);

		must_pwrite(i % 3 ? direct : buffered, bytes, length, offset);
		memcpy(shadow + offset, bytes, length);
		free(bytes);
	}
	return shadow;
}

static void is_stable_after_fsync(enum telling telling, bool some_survive)
{
	struct scene scene = mounted(NULL);
	int direct = must_open(scene.file, O_RDWR | O_DIRECT);
	int buffered = must_open(scene.file, O_RDWR);

	for (unsigned round = 0; round < 3; round++) {
		unsigned char *shadow = scatter(&scene, direct, buffered);
		script_target_reboot(
		    scene.script, (struct script_reboot){.how = (enum script_cut)(round % 2),
		                      .closed_ms = SCRIPT_NEVER,
		                      .untold = telling == UNTOLD,
		                      .some_survive = some_survive,
		                      .seed = round});
		if (round == 0)
			must_have_forgotten(&scene, shadow, SIZE, 0);
		script_target_listen(scene.script, true);
		must_fsync(&scene, round == 1 ? buffered : direct);
		script_scene_must_be(&scene, SCRIPT_STABLE, shadow, SIZE, 0);
		must_hold(scene.file, shadow, SIZE, 0);
		cr_assert_eq(script_scene_number(&scene, "unstable_bytes"), 0);
		/* so that the next round starts from other bytes */
		memset(shadow, 0xee, SIZE);
		must_pwrite(direct, shadow, SIZE, 0);
		must_fsync(&scene, direct);
		free(shadow);
	}
	close(direct);
	close(buffered);
	script_scene_end(&scene);
}

Test(safety_01, what_was_acknowledged_before_a_reboot_is_stable_after_fsync)
{
	is_stable_after_fsync(TOLD, false);
}

Test(safety_01, it_is_stable_too_when_the_target_does_not_tell_that_it_rebooted)
{
	is_stable_after_fsync(UNTOLD, false);
}

Test(safety_01, it_is_stable_where_some_of_the_cache_survived)
{
	is_stable_after_fsync(UNTOLD, true);
}

Test(safety_01, a_close_and_an_unmount_after_a_reboot_are_as_good_as_fsync)
{
	struct scene scene = mounted(NULL);
	unsigned char *one = pattern(LENGTH, 0, 1), *two = pattern(LENGTH, 0, 2);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	must_pwrite(fd, one, LENGTH, 0);
	reboot_now(&scene, UNTOLD, 200);
	cr_assert_eq(close(fd), 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, one, LENGTH, 0);
	fd = must_open(scene.file, O_RDWR | O_DIRECT);
	int keeper = must_open(scene.file, O_RDONLY);
	must_pwrite(fd, two, LENGTH, LENGTH);
	reboot_now(&scene, UNTOLD, SCRIPT_NEVER);
	must_have_forgotten(&scene, two, LENGTH, LENGTH);
	script_target_listen(scene.script, true);
	close(keeper);
	close(fd);
	script_scene_end(&scene);
}

/* ---- twice in a row ---- */

#define PIECES 64u

static void second_reboot_during_the_resend(enum telling telling)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(SIZE, 0, 1), *zeros = aligned_buffer(KIB(4));
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	for (unsigned i = 0; i < PIECES; i++) /* not adjoining: each is a WRITE of its own */
		must_pwrite(fd, bytes + i * KIB(8), KIB(4), i * KIB(8));
	for (unsigned round = 0; round < 3; round++) {
		unsigned before = script_target_command_count(scene.script, SCRIPT_WRITE);

		script_target_rule(
		    scene.script, (struct script_rule){.opcode = SCRIPT_WRITE, .delay_ms = 150});
		reboot_now(&scene, telling, 50);
		cr_assert(script_target_await(
		    scene.script, SCRIPT_WRITE, before + 4 + round * 9, patience(SOON)));
	}
	reboot_now(&scene, telling, 50);
	script_target_forget_rules(scene.script);
	must_fsync(&scene, fd);
	for (unsigned i = 0; i < PIECES; i++) {
		script_scene_must_be(&scene, SCRIPT_STABLE, bytes + i * KIB(8), KIB(4), i * KIB(8));
		script_scene_must_be(&scene, SCRIPT_STABLE, zeros, KIB(4), i * KIB(8) + KIB(4));
	}
	close(fd);
	script_scene_end(&scene);
}

Test(safety_01, reboots_during_the_resend_lose_nothing)
{
	second_reboot_during_the_resend(TOLD);
}

Test(safety_01, untold_reboots_during_the_resend_lose_nothing)
{
	second_reboot_during_the_resend(UNTOLD);
}

/* ---- a LUN without a volatile cache ---- */

Test(safety_01, a_LUN_without_a_cache_gets_nothing_twice_but_what_was_outstanding)
{
	struct scene scene = scene_of_script(SIZE);
	unsigned char *bytes = pattern(LENGTH, 0, 1), *newer = pattern(LENGTH, 0, 2);

	script_target_wce(scene.script, 1, false, false);
	script_scene_mount(&scene, NULL);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job job = job_new(JOB_WRITE, fd, newer, LENGTH, MIB(1));

	must_pwrite(fd, bytes, LENGTH, 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	cr_assert_eq(script_scene_number(&scene, "unstable_bytes"), 0);
	unsigned first = now(&scene);
	reboot_now(&scene, TOLD, 100);
	must_pread(fd, aligned_buffer(LENGTH), LENGTH, 0);
	must_fsync(&scene, fd);
	cr_assert_eq(script_scene_count(&scene, SCRIPT_WRITE, first), 0);

	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_WRITE, .times = 1, .mute = true});
	job_start(&job);
	cr_assert(script_target_await(scene.script, SCRIPT_WRITE, 2, SOON));
	reboot_now(&scene, UNTOLD, 100);
	cr_assert_eq(job_end(&job, SOON), 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, newer, LENGTH, MIB(1));
	cr_assert_eq(script_scene_count(&scene, SCRIPT_WRITE, first), 2);
	close(fd);
	script_scene_end(&scene);
}

/* Fetches a unit attention, and waits until the mode page was read after it. */
static void let_it_hear(struct scene *scene, int fd)
{
	unsigned modes = script_target_command_count(scene->script, 0x1a) +
	                 script_target_command_count(scene->script, 0x5a);
	double end = seconds_now() + patience(SOON);

	must_pread(fd, aligned_buffer(4096), 4096, MIB(8));
	while (script_target_command_count(scene->script, 0x1a) +
	           script_target_command_count(scene->script, 0x5a) ==
	       modes) {
		cr_assert(seconds_now() < end, "the mode page is not read");
		g_usleep(5000);
	}
	g_usleep(50000); /* for the answer */
}

Test(safety_01, the_end_of_the_cache_releases_nothing_before_it_was_emptied)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_wce(scene.script, 1, false, true);
	let_it_hear(&scene, fd);
	cr_assert_eq(script_scene_number(&scene, "unstable_bytes"), LENGTH);
	reboot_now(&scene, UNTOLD, SCRIPT_NEVER);
	must_have_forgotten(&scene, bytes, LENGTH, 0);
	script_target_listen(scene.script, true);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	cr_assert(script_target_command_count(scene.script, SCRIPT_SYNC) > 0);
	/* and now it has none */
	must_pwrite(fd, bytes, LENGTH, LENGTH);
	cr_assert_eq(script_scene_number(&scene, "unstable_bytes"), 0);
	/* until it has one again */
	script_target_wce(scene.script, 1, true, true);
	must_pwrite(fd, bytes, LENGTH, 2 * LENGTH);
	cr_assert_eq(script_scene_number(&scene, "unstable_bytes"), LENGTH);
	close(fd);
	script_scene_end(&scene);
}

Test(safety_01, a_flush_of_before_the_end_of_the_cache_does_not_empty_it)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job flush = job_new(JOB_CLOSE, fd, NULL, 0, 0);

	must_pwrite(fd, bytes, LENGTH, LENGTH);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_SYNC, .times = 1, .mute = true});
	job_start(&flush);
	cr_assert(script_target_await(scene.script, SCRIPT_SYNC, 1, SOON));
	must_pwrite(fd, bytes, LENGTH, 0); /* behind what the flush has executed */
	script_target_wce(scene.script, 1, false, true);
	let_it_hear(&scene, fd);
	script_target_release(scene.script);
	cr_assert_eq(job_end(&flush, SOON), 0);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	close(fd);
	script_scene_end(&scene);
}

/* ---- 29h alone ---- */

Test(safety_01, a_LUN_that_another_initiator_reset_gets_all_again)
{
	struct scene scene = mounted(NULL);
	int direct = must_open(scene.file, O_RDWR | O_DIRECT);
	int buffered = must_open(scene.file, O_RDWR);

	for (unsigned round = 0; round < 3; round++) {
		unsigned char *shadow = scatter(&scene, direct, buffered);
		script_target_forget(scene.script, 1);
		must_fsync(&scene, direct);
		script_scene_must_be(&scene, SCRIPT_STABLE, shadow, SIZE, 0);
		memset(shadow, 0xee, SIZE);
		must_pwrite(direct, shadow, SIZE, 0);
		must_fsync(&scene, direct);
		free(shadow);
	}
	cr_assert_eq(script_target_logins(scene.script), 1);
	close(direct);
	close(buffered);
	script_scene_end(&scene);
}

/* A question about the LUN is under way, and is to be asked once more; it meets the 29h. */
Test(safety_01, a_reset_that_only_our_questions_were_told_of_counts)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1), *found = aligned_buffer(LENGTH);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	must_pwrite(fd, bytes, LENGTH, 0);
	unsigned asked = script_target_command_count(scene.script, 0x12);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = 0x12, .times = 1, .hang = true});
	script_target_attention(scene.script, 1, 0x2a, 0x09);
	must_pread(fd, found, LENGTH, MIB(1));
	cr_assert(script_target_await(scene.script, 0x12, asked + 1, SOON));
	script_target_attention(scene.script, 1, 0x2a, 0x09);
	must_pread(fd, found, LENGTH, MIB(1));
	unsigned ready = script_target_command_count(scene.script, 0x00);
	script_target_forget(scene.script, 1);
	script_target_release(scene.script);
	/* twice by the first round, whose first is told of the reset, and once by the second */
	cr_assert(script_target_await(scene.script, 0x00, ready + 3, SOON));
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	close(fd);
	script_scene_end(&scene);
}

/* The questions go on after they were told of the reset: nothing may be released meanwhile. */
Test(safety_01, a_reset_that_our_questions_were_told_of_counts_at_once)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1), *found = aligned_buffer(LENGTH);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	unsigned capacities = script_target_command_count(scene.script, 0x9e);

	must_pwrite(fd, bytes, LENGTH, 0);
	unsigned asked = script_target_command_count(scene.script, 0x12);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = 0x12, .times = 1, .hang = true});
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = 0x9e, .times = 1, .hang = true});
	script_target_attention(scene.script, 1, 0x2a, 0x09);
	must_pread(fd, found, LENGTH, MIB(1));
	cr_assert(script_target_await(scene.script, 0x12, asked + 1, SOON));
	script_target_forget(scene.script, 1);
	script_target_release(scene.script);
	cr_assert(script_target_await(scene.script, 0x9e, capacities + 1, SOON));
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	script_target_release(scene.script);
	close(fd);
	script_scene_end(&scene);
}

/* ---- 2: a flush is not sent again, but done anew ---- */

static void flush_crossed_by_a_reboot(bool executed, enum telling telling)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job flush = job_new(JOB_FSYNC, fd, NULL, 0, 0);
	struct script_record record;
	bool wrote = false, synced = false;

	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_rule(scene.script,
	    (struct script_rule){
	        .opcode = SCRIPT_SYNC, .times = 1, .hang = !executed, .mute = executed});
	job_start(&flush);
	cr_assert(script_target_await(scene.script, SCRIPT_SYNC, 1, SOON));
	unsigned first = now(&scene);
	reboot_now(&scene, telling, SCRIPT_NEVER);
	g_usleep(100000);
	cr_assert(!job_is_done(&flush), "fsync ended while nobody was there");
	script_target_listen(scene.script, true);
	cr_assert_eq(job_end(&flush, SOON), 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	for (unsigned i = first; script_target_record(scene.script, i, &record); i++) {
		cr_assert(!record_is(&record, SCRIPT_WRITE) || !synced,
		    "a WRITE came behind the SYNCHRONIZE CACHE");
		cr_assert(!record_is(&record, SCRIPT_SYNC) || wrote,
		    "a SYNCHRONIZE CACHE came before the WRITE");
		wrote |= record_is(&record, SCRIPT_WRITE) && record.executed;
		synced |= record_is(&record, SCRIPT_SYNC) && record.executed;
	}
	cr_assert(wrote && synced);
	close(fd);
	script_scene_end(&scene);
}

Test(safety_02, a_flush_that_was_not_executed_before_a_reboot_is_done_anew)
{
	flush_crossed_by_a_reboot(false, TOLD);
}

Test(safety_02, it_is_when_nobody_tells_of_the_reboot)
{
	flush_crossed_by_a_reboot(false, UNTOLD);
}

Test(safety_02, a_flush_whose_answer_a_reboot_swallowed_is_done_anew)
{
	flush_crossed_by_a_reboot(true, UNTOLD);
}

/* The flush is answered GOOD behind the reset that it did not cover. */
Test(safety_02, a_flush_crossed_by_a_reset_is_done_anew)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job flush = job_new(JOB_FSYNC, fd, NULL, 0, 0);

	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_SYNC, .times = 1, .hang = true});
	job_start(&flush);
	cr_assert(script_target_await(scene.script, SCRIPT_SYNC, 1, SOON));
	script_target_forget(scene.script, 1);
	must_pread(fd, aligned_buffer(LENGTH), LENGTH, MIB(1)); /* is told */
	script_target_release(scene.script);
	cr_assert_eq(job_end(&flush, SOON), 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	close(fd);
	script_scene_end(&scene);
}

/* ---- 3: the newest content, and old never after new ---- */

static void newer_over_older(bool executed, bool is_reset, enum telling telling)
{
	struct scene scene = mounted(NULL);
	unsigned char *older = pattern(LENGTH, 0, 1), *newer = pattern(LENGTH, 0, 2);
	unsigned char *even_newer = pattern(LENGTH, 0, 3);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job first = job_new(JOB_WRITE, fd, newer, KIB(32), KIB(16));
	struct job second = job_new(JOB_WRITE, fd, even_newer, KIB(32), KIB(32));
	struct script_record record;

	must_pwrite(fd, older, LENGTH, 0);
	script_target_rule(scene.script,
	    (struct script_rule){
	        .opcode = SCRIPT_WRITE, .times = 1, .hang = !executed, .mute = executed});
	job_start(&first);
	cr_assert(script_target_await(scene.script, SCRIPT_WRITE, 2, SOON));
	job_start(&second); /* waits for the first */
	g_usleep(50000);
	unsigned from = now(&scene);
	if (is_reset) {
		script_target_forget(scene.script, 1);
		must_pread(fd, aligned_buffer(LENGTH), LENGTH, MIB(1));
		script_target_release(scene.script);
	} else {
		reboot_now(&scene, telling, 100);
	}
	cr_assert_eq(job_end(&first, SOON), 0);
	cr_assert_eq(job_end(&second, SOON), 0);
	memcpy(older + KIB(16), newer, KIB(32));
	memcpy(older + KIB(32), even_newer, KIB(32));
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, older, LENGTH, 0);
	/* the last to touch each block is the newest, and never was an older one behind it */
	unsigned age = 0;
	for (unsigned i = from; script_target_record(scene.script, i, &record); i++) {
		if (!record_is(&record, SCRIPT_WRITE) || !record.executed ||
		    record_end(&record) <= KIB(32) || record_start(&record) >= KIB(48))
			continue;
		unsigned this = record_start(&record) == KIB(32)   ? 3
		                : record_start(&record) == KIB(16) ? 2
		                                                   : 1;
		cr_assert(this >= age, "an older write came after a newer one");
		age = this;
	}
	cr_assert_eq(age, 3);
	close(fd);
	script_scene_end(&scene);
}

Test(safety_03, a_newer_write_that_was_on_its_way_lands_after_the_older_one)
{
	newer_over_older(false, false, TOLD);
}

Test(safety_03, it_does_when_nobody_tells_of_the_reboot)
{
	newer_over_older(false, false, UNTOLD);
}

Test(safety_03, it_does_when_only_its_answer_was_swallowed)
{
	newer_over_older(true, false, UNTOLD);
}

Test(safety_03, it_does_when_another_initiator_reset_the_LUN)
{
	newer_over_older(false, true, TOLD);
}

/* Reads during the time in which the target does not have it yet. */
static void reads_during_the_resend(enum telling telling)
{
	struct scene scene = mounted(NULL);
	unsigned char *stable = pattern(SIZE, 0, 9), *newest = pattern(SIZE, 0, 1);
	unsigned char *found = aligned_buffer(MIB(1));
	int fd = must_open(scene.file, O_RDWR | O_DIRECT),
	    buffered = must_open(scene.file, O_RDONLY);

	must_pwrite(fd, stable, MIB(1), 0);
	must_fsync(&scene, fd);
	memcpy(stable, newest, 512); /* what is to be seen */
	for (unsigned i = 0; i < PIECES; i++) {
		must_pwrite(fd, newest + i * KIB(16), KIB(4), i * KIB(16));
		memcpy(stable + i * KIB(16), newest + i * KIB(16), KIB(4));
	}
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_WRITE, .delay_ms = 100});
	unsigned before = script_target_command_count(scene.script, SCRIPT_WRITE);
	reboot_now(&scene, telling, 50);
	do {
		must_pread(fd, found, MIB(1), 0);
		ssize_t at = first_difference(found, stable, MIB(1));
		cr_assert(at < 0, "byte %zd of an O_DIRECT read is old", at);
		cr_assert_eq(posix_fadvise(buffered, 0, 0, POSIX_FADV_DONTNEED), 0);
		must_pread(buffered, found, MIB(1), 0);
		at = first_difference(found, stable, MIB(1));
		cr_assert(at < 0, "byte %zd of a buffered read is old", at);
	} while (script_target_command_count(scene.script, SCRIPT_WRITE) < before + PIECES);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, stable, MIB(1), 0);
	close(fd);
	close(buffered);
	script_scene_end(&scene);
}

Test(safety_03, reads_after_a_reboot_see_what_the_target_does_not_have_yet)
{
	reads_during_the_resend(TOLD);
}

Test(safety_03, reads_after_an_untold_reboot_see_what_the_target_does_not_have_yet)
{
	reads_during_the_resend(UNTOLD);
}

/* A READ that was executed between the reset and our knowing of it. */
Test(safety_03, a_read_that_was_faster_than_the_news_of_a_reset_is_mended)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1), *found = aligned_buffer(LENGTH);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job reader = job_new(JOB_READ, fd, found, LENGTH, 0);

	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_READ, .times = 1, .hang = true});
	job_start(&reader);
	cr_assert(script_target_await(scene.script, SCRIPT_READ, 1, SOON));
	script_target_forget(scene.script, 1);
	must_pread(fd, aligned_buffer(LENGTH), LENGTH, MIB(1)); /* is told */
	/* all is there again, stable, and released, before the READ is answered with what was */
	must_fsync(&scene, fd);
	script_target_release(scene.script);
	cr_assert_eq(job_end(&reader, SOON), 0);
	cr_assert(first_difference(found, bytes, LENGTH) < 0, "it saw what was forgotten");
	close(fd);
	script_scene_end(&scene);
}

/* ---- 4: what is stable when it is acknowledged ---- */

Test(safety_04, an_O_DSYNC_write_is_stable_and_older_ones_do_not_come_after_it)
{
	struct scene scene = mounted(NULL);
	unsigned char *older = pattern(LENGTH, 0, 1), *newer = pattern(LENGTH, 0, 2);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	int synchronous = must_open(scene.file, O_RDWR | O_DIRECT | O_DSYNC);
	struct script_record record;

	must_pwrite(fd, older, LENGTH, 0);
	must_pwrite(synchronous, newer, KIB(16), KIB(16));
	script_scene_must_be(&scene, SCRIPT_STABLE, newer, KIB(16), KIB(16));
	unsigned first = now(&scene);
	reboot_now(&scene, UNTOLD, 100);
	must_fsync(&scene, fd);
	memcpy(older + KIB(16), newer, KIB(16));
	script_scene_must_be(&scene, SCRIPT_STABLE, older, LENGTH, 0);
	for (unsigned i = first; script_target_record(scene.script, i, &record); i++)
		cr_assert(!record_is(&record, SCRIPT_WRITE) || record_end(&record) <= KIB(16) ||
		              record_start(&record) >= KIB(32),
		    "bytes %lu to %lu were written again over what was stable",
		    record_start(&record), record_end(&record));
	close(fd);
	close(synchronous);
	script_scene_end(&scene);
}

static void synchronous_crossed_by_a_reboot(bool executed)
{
	struct scene scene = mounted(NULL);
	unsigned char *older = pattern(LENGTH, 0, 1), *newer = pattern(LENGTH, 0, 2);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	int synchronous = must_open(scene.file, O_RDWR | O_DIRECT | O_DSYNC);
	struct job write = job_new(JOB_WRITE, synchronous, newer, KIB(16), KIB(16));

	must_pwrite(fd, older, LENGTH, 0);
	script_target_rule(scene.script,
	    (struct script_rule){
	        .opcode = SCRIPT_WRITE, .times = 1, .hang = !executed, .mute = executed});
	job_start(&write);
	cr_assert(script_target_await(scene.script, SCRIPT_WRITE, 2, SOON));
	reboot_now(&scene, UNTOLD, 100);
	cr_assert_eq(job_end(&write, SOON), 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, newer, KIB(16), KIB(16));
	reboot_now(&scene, UNTOLD, 100);
	must_fsync(&scene, fd);
	memcpy(older + KIB(16), newer, KIB(16));
	script_scene_must_be(&scene, SCRIPT_STABLE, older, LENGTH, 0);
	close(fd);
	close(synchronous);
	script_scene_end(&scene);
}

Test(safety_04, an_O_DSYNC_write_crossed_by_a_reboot_is_stable_when_it_returns)
{
	synchronous_crossed_by_a_reboot(false);
}

Test(safety_04, it_is_when_only_its_answer_was_swallowed)
{
	synchronous_crossed_by_a_reboot(true);
}

/* A flush covers what was done before it was sent, and not what came while it was under way. */
Test(safety_04, a_flush_releases_nothing_that_was_written_behind_it)
{
	struct scene scene = mounted(NULL);
	unsigned char *before = pattern(LENGTH, 0, 1), *behind = pattern(LENGTH, 0, 2);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job flush = job_new(JOB_CLOSE, fd, NULL, 0, 0);

	must_pwrite(fd, before, LENGTH, 0);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_SYNC, .times = 1, .mute = true});
	job_start(&flush);
	cr_assert(script_target_await(scene.script, SCRIPT_SYNC, 1, SOON));
	must_pwrite(fd, behind, LENGTH, LENGTH);
	script_target_release(scene.script);
	cr_assert_eq(job_end(&flush, SOON), 0);
	cr_assert_eq(script_scene_number(&scene, "unstable_bytes"), LENGTH);
	reboot_now(&scene, UNTOLD, 100);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, before, LENGTH, 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, behind, LENGTH, LENGTH);
	close(fd);
	script_scene_end(&scene);
}

/* ---- 5: holes ---- */

static void zeros_stay(int mode, bool synced_before, enum telling telling)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(MIB(1), 0, 1), *found = aligned_buffer(MIB(1));
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	must_pwrite(fd, bytes, MIB(1), 0);
	if (synced_before)
		must_fsync(&scene, fd);
	cr_assert_eq(fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, KIB(100), KIB(500)), 0);
	memset(bytes + KIB(100), 0, KIB(500));
	must_pwrite(fd, bytes, KIB(4), KIB(200)); /* data inside it again */
	memcpy(bytes + KIB(200), bytes, KIB(4));
	reboot_now(&scene, telling, SCRIPT_NEVER);
	must_have_forgotten(&scene, bytes, MIB(1), 0);
	script_target_listen(scene.script, true);
	must_pread(fd, found, MIB(1), 0);
	ssize_t at = first_difference(found, bytes, MIB(1));
	cr_assert(at < 0, "byte %zd is %02x, not %02x", at, found[at], bytes[at]);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, MIB(1), 0);
	close(fd);
	script_scene_end(&scene);
}

Test(safety_05, a_hole_over_what_was_not_synced_stays_a_hole)
{
	zeros_stay(FALLOC_FL_PUNCH_HOLE, false, TOLD);
}

Test(safety_05, a_hole_that_the_target_forgot_is_made_again)
{
	zeros_stay(FALLOC_FL_PUNCH_HOLE, true, UNTOLD);
}

Test(safety_05, a_zeroed_range_stays_zero)
{
	zeros_stay(FALLOC_FL_ZERO_RANGE, true, TOLD);
}

Test(safety_05, a_hole_whose_answer_a_reboot_swallowed_is_one)
{
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job punch = job_new(JOB_PUNCH, fd, NULL, KIB(16), KIB(16));

	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = 0x93, .times = 1, .hang = true});
	job_start(&punch);
	cr_assert(script_target_await(scene.script, 0x93, 1, SOON));
	reboot_now(&scene, UNTOLD, 100);
	cr_assert_eq(job_end(&punch, SOON), 0);
	must_fsync(&scene, fd);
	memset(bytes + KIB(16), 0, KIB(16));
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	close(fd);
	script_scene_end(&scene);
}

/* ---- 7: where another host may have written since ---- */

static void must_fail_once(struct scene *scene, int fd)
{
	errno = 0;
	cr_assert(fsync(fd) == -1 && errno == EIO, "fsync after a loss: %s\n%s", strerror(errno),
	    scene_said(scene));
	must_fsync(scene, fd);
}

static void shared_sends_nothing_again(bool is_reset)
{
	struct scene scene = mounted("shared");
	unsigned char *bytes = pattern(LENGTH, 0, 1), *zeros = aligned_buffer(LENGTH);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	int other = must_open(scene.file, O_RDWR | O_DIRECT);

	must_pwrite(fd, bytes, LENGTH, MIB(1));
	must_fsync(&scene, fd);
	unsigned first = now(&scene);
	if (is_reset)
		script_target_forget(scene.script, 1);
	else
		reboot_now(&scene, UNTOLD, 100);
	must_pread(fd, aligned_buffer(LENGTH), LENGTH, 0);
	must_fsync(&scene, fd); /* nothing was lost */

	must_pwrite(fd, bytes, LENGTH, 0);
	first = now(&scene);
	if (is_reset)
		script_target_forget(scene.script, 1);
	else
		reboot_now(&scene, UNTOLD, 100);
	must_pread(fd, aligned_buffer(LENGTH), LENGTH, MIB(2));
	must_fail_once(&scene, fd);
	must_fail_once(&scene, other);
	cr_assert_eq(script_scene_count(&scene, SCRIPT_WRITE, first), 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, zeros, LENGTH, 0);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, MIB(1));
	must_pwrite(fd, bytes, LENGTH, 0);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, LENGTH, 0);
	close(fd);
	close(other);
	script_scene_end(&scene);
}

Test(safety_07, shared_sends_nothing_again_after_a_reboot_and_fsync_says_so_once)
{
	shared_sends_nothing_again(false);
}

Test(safety_07, shared_sends_nothing_again_after_a_reset_and_fsync_says_so_once)
{
	shared_sends_nothing_again(true);
}

/* Acknowledged and forgotten, and no WRITE was executed since: what is there is another host's. */
static void must_not_be_sent_again(struct scene *scene, int fd, unsigned first)
{
	unsigned char *foreign = pattern(LENGTH, 0, 77);
	struct script_record record;

	/* one that was on its way when the fence came does not count as the report */
	cr_assert(fsync(fd) == -1 && errno == EBADE, "fsync after a loss: %s\n%s", strerror(errno),
	    scene_said(scene));
	if (fsync(fd) != 0)
		must_fsync(scene, fd);
	for (unsigned i = first; script_target_record(scene->script, i, &record); i++)
		cr_assert(!record_is(&record, SCRIPT_WRITE) || !record.executed,
		    "an acknowledged write was sent again\n%s", scene_said(scene));
	script_scene_must_be(scene, SCRIPT_STABLE, foreign, LENGTH, 0);
	script_target_forget_rules(scene->script);
	must_pwrite(fd, foreign, KIB(4), MIB(1));
	must_fsync(scene, fd);
	reboot_now(scene, TOLD, 50);
	must_pread(fd, aligned_buffer(LENGTH), LENGTH, MIB(2));
	must_fsync(scene, fd);
	script_scene_must_be(scene, SCRIPT_STABLE, foreign, LENGTH, 0);
}

enum fence {
	PREEMPTED_WHILE_AWAY,
	PREEMPTED_AT_THE_RESEND,
	CONFLICT_AT_THE_RESEND,
	PREEMPTED_BEFORE,
	CONFLICT_BEFORE,
	CONFLICT_OF_A_READ,
};

static void fenced(enum fence fence)
{
	static const struct sense preempted = {SENSE_UNIT_ATTENTION, 0x2a, 0x03};
	struct script_rule conflict = {
	    .opcode = SCRIPT_WRITE, .times = 1, .status = SAM_RESERVATION_CONFLICT};
	struct scene scene = mounted(NULL);
	unsigned char *bytes = pattern(LENGTH, 0, 1), *foreign = pattern(LENGTH, 0, 77);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	must_pwrite(fd, bytes, LENGTH, 0);
	if (fence == PREEMPTED_BEFORE) {
		script_target_attention(scene.script, 1, 0x2a, 0x03);
		must_pread(fd, aligned_buffer(LENGTH), LENGTH, MIB(1));
	} else if (fence == CONFLICT_BEFORE) {
		script_target_rule(scene.script, conflict);
		cr_assert(pwrite(fd, bytes, LENGTH, MIB(1)) < 0);
	} else if (fence == CONFLICT_OF_A_READ) {
		conflict.opcode = SCRIPT_READ;
		script_target_rule(scene.script, conflict);
		cr_assert(pread(fd, aligned_buffer(LENGTH), LENGTH, MIB(1)) < 0);
	}
	unsigned first = now(&scene);
	reboot_now(&scene, UNTOLD, SCRIPT_NEVER);
	script_target_write(scene.script, 1, 0, foreign, LENGTH);
	if (fence == PREEMPTED_WHILE_AWAY) {
		script_target_sense(scene.script, 0x00, 1, preempted);
	} else if (fence == PREEMPTED_AT_THE_RESEND) {
		script_target_sense(scene.script, SCRIPT_WRITE, 1, preempted);
	} else if (fence == CONFLICT_AT_THE_RESEND) {
		conflict.times = 0;
		script_target_rule(scene.script, conflict);
	}
	script_target_listen(scene.script, true);
	must_not_be_sent_again(&scene, fd, first);
	close(fd);
	script_scene_end(&scene);
}

Test(safety_07, nothing_is_sent_again_to_a_LUN_that_was_preempted_meanwhile)
{
	fenced(PREEMPTED_WHILE_AWAY);
}

Test(safety_07, a_write_that_is_sent_again_and_told_of_a_preemption_is_given_up)
{
	fenced(PREEMPTED_AT_THE_RESEND);
}

Test(safety_07, nothing_is_sent_again_to_a_LUN_that_another_host_has_reserved)
{
	fenced(CONFLICT_AT_THE_RESEND);
}

Test(safety_07, nothing_is_sent_again_to_a_LUN_that_was_preempted_before_the_reboot)
{
	fenced(PREEMPTED_BEFORE);
}

Test(safety_07, nothing_is_sent_again_after_a_write_met_a_reservation_that_is_gone_since)
{
	fenced(CONFLICT_BEFORE);
}

Test(safety_07, nothing_is_sent_again_after_a_read_met_a_reservation_that_is_gone_since)
{
	fenced(CONFLICT_OF_A_READ);
}

/* ---- 8: memory ---- */

static uint64_t resident(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/status", pid);
	g_autofree char *status = NULL;

	cr_assert(g_file_get_contents(path, &status, NULL, NULL));
	const char *line = strstr(status, "VmRSS:");
	return line ? KIB(strtoull(line + 6, NULL, 10)) : 0;
}

static void write_beyond_the_bound(unsigned reboots)
{
	const uint64_t size = MIB(MAX(scaled(160), 80));
	struct scene scene = scene_of_script(size);
	unsigned char *bytes = aligned_buffer(size);
	uint64_t most = 0, most_kept = 0;
	struct script_record record;

	script_scene_mount(&scene, NULL);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	pattern_fill(bytes, size, 0, 1);
	for (uint64_t at = 0, chunk = KIB(512); at < size; at += chunk) {
		must_pwrite(fd, bytes + at, chunk, at);
		if (at % MIB(8) == 0) {
			most = MAX(most, resident(lunfs_daemon()));
			most_kept = MAX(most_kept, script_scene_number(&scene, "unstable_bytes"));
		}
		if (reboots && at % (size / reboots) == MIB(5))
			reboot_now(&scene, at % 2 ? TOLD : UNTOLD, 50);
	}
	unsigned syncs = script_target_command_count(scene.script, SCRIPT_SYNC);
	cr_assert(syncs > 0, "nothing was flushed by itself");
	cr_assert(most_kept <= MIB(64), "%lu bytes were kept", most_kept);
	fprintf(stderr, "at most %lu MiB kept, %lu MiB resident, %u flushes by itself\n",
	    most_kept >> 20, most >> 20, syncs);
	if (!getenv("LUNFS_TEST_SCALE")) /* the tools take memory of their own */
		cr_assert(most < MIB(64 + 48), "%lu bytes are resident", most);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, size, 0);
	for (unsigned i = 0; script_target_record(scene.script, i, &record); i++)
		cr_assert(reboots || !record_is(&record, SCRIPT_WRITE) || record.executed);
	close(fd);
	script_scene_end(&scene);
}

Test(safety_08, what_is_kept_is_bounded_and_flushed_by_itself)
{
	write_beyond_the_bound(0);
}

Test(safety_08, a_reboot_at_any_time_near_the_bound_loses_nothing)
{
	write_beyond_the_bound(7);
}

/* The flush that makes room finds the reset between a write under way and its own answer. */
Test(safety_08, a_reset_under_load_loses_nothing_to_the_flush_that_makes_room)
{
	const uint64_t size = MIB(MAX(scaled(256), 96));
	const unsigned writers = 16;
	const size_t chunk = MIB(1);
	struct scene scene = scene_of_script(size);
	unsigned char *bytes = aligned_buffer(size);
	struct job jobs[16] = {{.fd = -1}};
	uint64_t at = 0;

	script_scene_mount(&scene, NULL);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	pattern_fill(bytes, size, 0, 1);
	while (at < size) {
		for (unsigned i = 0; i < writers && at < size; i++, at += chunk) {
			if (jobs[i].thread)
				cr_assert_eq(job_end(&jobs[i], SOON), 0);
			jobs[i] = job_new(JOB_WRITE, fd, bytes + at, chunk, at);
			job_start(&jobs[i]);
		}
		script_target_forget(scene.script, 1);
	}
	for (unsigned i = 0; i < writers; i++)
		if (jobs[i].thread)
			cr_assert_eq(job_end(&jobs[i], SOON), 0);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, bytes, size, 0);
	close(fd);
	script_scene_end(&scene);
}

/* ---- 11: what is alive in the old session ---- */

/* An older write hangs at the target, the connection breaks, a newer one follows its replay. */
static bool ghost_corrupts(enum script_ghosts how, uint32_t ms)
{
	struct scene scene = mounted(NULL);
	unsigned char *older = pattern(LENGTH, 0, 1), *newer = pattern(LENGTH, 0, 2);
	unsigned char *found = aligned_buffer(LENGTH);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct job write = job_new(JOB_WRITE, fd, older, LENGTH, 0);
	struct script_record ghost = {0};
	uint8_t isid[6], isid_after[6];

	script_target_last_isid(scene.script, isid);
	script_target_ghosts(scene.script, how, ms);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_WRITE, .times = 1, .hang = true});
	unsigned first = now(&scene);
	job_start(&write);
	cr_assert(script_target_await(scene.script, SCRIPT_WRITE, 1, SOON));
	script_target_drop(scene.script, SCRIPT_RST);
	cr_assert_eq(job_end(&write, SOON), 0);
	must_pwrite(fd, newer, LENGTH, 0);
	must_fsync(&scene, fd);
	script_target_last_isid(scene.script, isid_after);
	cr_assert(memcmp(isid, isid_after, sizeof(isid)) == 0, "the ISID is another");
	for (; script_target_record(scene.script, first, &ghost); first++)
		if (record_is(&ghost, SCRIPT_WRITE) && ghost.ghost)
			break;
	cr_assert(ghost.ghost, "there was no ghost");
	g_usleep(ms * 1000 + 300000);
	cr_assert(script_target_record(scene.script, first, &ghost));
	if (how == SCRIPT_GHOSTS_LIVE)
		cr_assert(ghost.aborted && !ghost.executed, "the ghost was not ended by the login");
	else
		cr_assert(ghost.executed, "the ghost was never executed");
	cr_assert(script_target_read(scene.script, 1, 0, found, LENGTH, SCRIPT_VOLATILE));
	bool corrupt = first_difference(found, newer, LENGTH) >= 0;
	if (corrupt)
		cr_assert(first_difference(found, older, LENGTH) < 0);
	close(fd);
	script_scene_end(&scene);
	return corrupt;
}

Test(safety_11, a_write_alive_in_the_old_session_is_ended_by_the_new_login)
{
	cr_assert(!ghost_corrupts(SCRIPT_GHOSTS_LIVE, 1500));
}

Test(safety_11, a_write_that_the_target_ends_during_the_login_lands_before_its_replay)
{
	cr_assert(!ghost_corrupts(SCRIPT_GHOSTS_AT_LOGIN, 0));
}

/* So the two above can fail. Nothing helps against such a target. */
Test(safety_11, a_target_that_does_not_reinstate_sessions_would_be_noticed)
{
	cr_assert(ghost_corrupts(SCRIPT_GHOSTS_BROKEN, 1500));
}

/* Many at once, cut again and again: the order of arrival is never the order of execution. */
Test(safety_11, many_ghosts_of_many_cuts_leave_the_newest)
{
	struct scene scene = mounted(NULL);
	unsigned char *shadow = aligned_buffer(MIB(1));
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);
	struct dice dice = {.state = 11};
	struct job jobs[8];

	script_target_ghosts(scene.script, SCRIPT_GHOSTS_LIVE, 200);
	for (unsigned round = 0; round < scaled(24); round++) {
		script_target_rule(
		    scene.script, (struct script_rule){.opcode = SCRIPT_WRITE,
		                      .times = 8,
		                      .delay_ms = (uint32_t)dice_between(&dice, 20, 150)});
		for (unsigned i = 0; i < 8; i++) {
			uint64_t offset = i * KIB(128) + dice_between(&dice, 0, 15) * KIB(4);
			jobs[i] =
			    job_new(JOB_WRITE, fd, pattern(LENGTH, offset, round), LENGTH, offset);
			memcpy(shadow + offset, jobs[i].bytes, LENGTH);
			job_start(&jobs[i]);
		}
		g_usleep((gulong)dice_between(&dice, 1, 60) * 1000);
		script_target_drop(scene.script, dice_roll(&dice) & 1 ? SCRIPT_RST : SCRIPT_FIN);
		for (unsigned i = 0; i < 8; i++) {
			cr_assert_eq(job_end(&jobs[i], SOON), 0);
			free(jobs[i].bytes);
		}
		script_target_forget_rules(scene.script);
	}
	g_usleep(400000);
	script_scene_must_be(&scene, SCRIPT_VOLATILE, shadow, MIB(1), 0);
	must_fsync(&scene, fd);
	script_scene_must_be(&scene, SCRIPT_STABLE, shadow, MIB(1), 0);
	close(fd);
	script_scene_end(&scene);
}
