/*
 * endurance.c - the laws of a session that outlasts its loss: whose it is, what goes first, how
 * long I/O waits, and that the dead do not stop the living (SAFETY.md 11, 15, 16, 18).
 */
#include "support/data.h"
#include "support/load.h"
#include "support/proxy.h"
#include "support/script_target.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

TestSuite(endurance, .timeout = 120);

/* ---- names ---- */

static void must_have_one_isid(const struct scene *scene, unsigned from, const uint8_t isid[6])
{
	struct script_login login;

	for (unsigned i = from; script_target_login_attempt(scene->script, i, &login); i++)
		cr_assert_arr_eq(login.isid, isid, 6, "login %u has another ISID", i);
}

static bool no_connection(void *script)
{
	return script_target_connections(script) == 0;
}

Test(endurance, a_mount_keeps_its_ISID_and_one_elsewhere_has_another)
{
	struct scene scene = scene_with_script(NULL);
	uint8_t first[6], second[6];

	script_target_last_isid(scene.script, first);
	cr_assert_eq(first[0], 0x80, "not of format 10b, random");
	for (unsigned i = 1; i <= 3; i++) {
		script_target_drop(scene.script, SCRIPT_RST);
		scene_must_say(&scene, "logged in again at ", i, 5);
	}
	unsigned attempts = script_target_login_attempts(scene.script);
	cr_assert(attempts >= 4);
	must_have_one_isid(&scene, 0, first);

	/* two at once: neither takes the other's session away */
	char *other = stage_directory(scene.stage, "other", 0);
	must_lunfs(scene.stage, "mount iscsi://127.0.0.1:%u/" SCENE_IQN " %s -o ro",
	    script_target_port(scene.script), other);
	script_target_last_isid(scene.script, second);
	cr_assert(memcmp(first, second, 6) != 0);
	cr_assert_eq(script_target_connections(scene.script), 2);
	must_umount(scene.stage, other);
	cr_assert_eq(script_target_login_attempts(scene.script), attempts + 1);

	must_umount(scene.stage, scene.mnt);
	cr_assert_eq(call_end(scene.lunfs, 10), 0);
	cr_assert(await(5, no_connection, scene.script));
	scene_mount(&scene, NULL);
	script_target_last_isid(scene.script, second);
	cr_assert_arr_eq(first, second, 6, "what is left of its session would stay at the target");
	scene_end(&scene);
}

Test(endurance, each_discovery_has_an_ISID_of_its_own)
{
	struct scene scene = scene_of_script(MIB(1));
	struct script_login login;
	uint8_t found[3][6];
	unsigned count = 0;
	char *other = stage_directory(scene.stage, "other", 0);
	unsigned port = script_target_port(scene.script);

	scene.mnt = stage_directory(scene.stage, "mnt", 0);
	must_lunfs(scene.stage, "mount iscsi://127.0.0.1:%u %s", port, scene.mnt);
	must_lunfs(scene.stage, "mount iscsi://127.0.0.1:%u %s -o ro", port, other);
	must_lunfs(scene.stage, "reload %s", other);
	for (unsigned i = 0; script_target_login_attempt(scene.script, i, &login); i++) {
		if (!login.discovery)
			continue;
		cr_assert_lt(count, G_N_ELEMENTS(found));
		cr_assert_eq(login.isid[0], 0x80, "not of format 10b, random");
		memcpy(found[count], login.isid, 6);
		for (unsigned k = 0; k < count; k++)
			cr_assert(memcmp(found[k], login.isid, 6) != 0,
			    "at once, one would have ended the other");
		count++;
	}
	cr_assert_eq(count, G_N_ELEMENTS(found));
	must_umount(scene.stage, other);
	must_umount(scene.stage, scene.mnt);
	script_target_stop(scene.script);
}

/* ---- another portal group ---- */

/* Old commands may be alive there (SAFETY.md 11). */
static unsigned commands_in_session(struct script_target *target, unsigned lun, unsigned session)
{
	struct script_record record;
	unsigned count = 0;

	for (unsigned i = 0; script_target_record(target, i, &record); i++)
		count += record.lun == lun && record.session >= session;
	return count;
}

static unsigned last_session(struct script_target *target)
{
	struct script_record record = {.session = 0};

	script_target_record(target, script_target_records(target) - 1, &record);
	return record.session;
}

static bool was_reset(void *script)
{
	return script_target_management_count(script, 5) > 0;
}

static void move_to_another_group(struct scene *scene)
{
	script_target_set(scene->script, &(struct script_parameters){.tag = 2});
	script_target_drop(scene->script, SCRIPT_RST);
}

Test(endurance, through_another_portal_group_a_reset_goes_before_all_else)
{
	struct scene scene = scene_with_script(NULL);
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	unsigned old = last_session(scene.script);
	script_target_task_management(scene.script, SCRIPT_TASKS_SILENT);
	move_to_another_group(&scene);
	cr_assert(await(5, was_reset, scene.script), "no LOGICAL UNIT RESET");
	g_usleep(300000);
	cr_assert_eq(commands_in_session(scene.script, 1, old + 1), 0,
	    "something was sent before the reset was done");
	script_target_task_management(scene.script, SCRIPT_TASKS_MANAGED);
	script_target_drop(scene.script, SCRIPT_RST); /* the one that is not answered */
	load_must_go_on(load);
	cr_assert(script_target_management_count(scene.script, 5) >= 2, "it was not repeated");
	scene_must_say(
	    &scene, "lun1.img: sent LOGICAL UNIT RESET, to end what was under way", 1, 1);

	/* in the same group no more */
	unsigned resets = script_target_management_count(scene.script, 5);
	script_target_drop(scene.script, SCRIPT_RST);
	load_must_go_on(load);
	cr_assert_eq(script_target_management_count(scene.script, 5), resets);
	must_end_well(load, &scene, "");
}

Test(endurance, a_reset_that_is_not_answered_is_sent_again)
{
	struct scene scene = scene_with_script("command_timeout=1s");
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	script_target_task_management(scene.script, SCRIPT_TASKS_SILENT);
	move_to_another_group(&scene);
	cr_assert(await(5, was_reset, scene.script), "no LOGICAL UNIT RESET");
	script_target_task_management(scene.script, SCRIPT_TASKS_MANAGED);
	load_must_go_on(load);
	must_end_well(load, &scene, "");
}

Test(endurance, where_a_reset_is_refused_nothing_else_is_sent)
{
	struct scene scene = scene_with_script("replacement_timeout=infinity");
	struct io_job job = reading(&scene);

	cr_assert_eq(call_as(0, do_io, &job), 0);
	unsigned old = last_session(scene.script);
	script_target_task_management(scene.script, 5); /* not supported */
	move_to_another_group(&scene);
	scene_must_say(&scene, "refuses LOGICAL UNIT RESET", 1, 5);
	cr_assert_eq(call_as(0, do_io, &job), EIO);
	cr_assert_eq(commands_in_session(scene.script, 1, old + 1), 0, "something was sent");
	cr_assert(strstr(status_of(&scene, "trouble"), "portal group"));
	script_target_task_management(scene.script, SCRIPT_TASKS_MANAGED);
	cr_assert(await(10, io_works, &job), "it does not come back");
	scene_end(&scene);
}

/* ---- replacement_timeout ---- */

Test(endurance, what_waits_gets_EIO_after_replacement_timeout_and_works_again_later)
{
	struct scene scene = scene_with_tgt("replacement_timeout=2s");
	struct io_job job = reading(&scene);
	unsigned char *kept = aligned_buffer(LOAD_BLOCK);
	int fd = must_open(scene.file, O_RDWR);

	pattern_fill(kept, LOAD_BLOCK, 0, 1);
	must_pwrite(fd, kept, LOAD_BLOCK, 0); /* not synced */
	tgt_kill(scene.tgt);
	double start = seconds_now();
	pid_t reader = call_start(0, do_io, &job);
	cr_assert(still_waits(reader, 1), "it did not wait");
	cr_assert_eq(call_end(reader, 15), EIO);
	cr_assert(seconds_now() - start >= 1.5 && seconds_now() - start < patience(20));
	scene_must_say(&scene, "away for longer than replacement_timeout", 1, 1);
	start = seconds_now();
	cr_assert_eq(call_as(0, do_io, &job), EIO);
	int error = fsync(fd) == 0 ? 0 : errno;
	cr_assert_eq(error, EIO, "a sync of what is not at the target ended with %d", error);
	cr_assert(seconds_now() - start < patience(2), "after it, I/O fails at once");
	cr_assert(strstr(status_of(&scene, "trouble"), "replacement_timeout"));
	cr_assert_str_eq(status_of(&scene, "outage_over"), "false");

	scene_restart_tgt(&scene);
	cr_assert(await(15, io_works, &job), "it does not come back");
	scene_must_say(&scene, "lun1.img: it is back", 1, 1);
	cr_assert_str_eq(status_of(&scene, "trouble"), "");
	cr_assert_eq(fsync(fd), 0, "%s", strerror(errno));
	must_hold(scene.backing, kept, LOAD_BLOCK, 0);
	must_hold(scene.file, kept, LOAD_BLOCK, 0);
	cr_assert_eq(close(fd), 0);
	scene_end(&scene);
}

Test(endurance, with_an_infinite_replacement_timeout_it_waits)
{
	struct scene scene = scene_with_tgt("replacement_timeout=infinity");
	struct load *load = load_start(&scene);

	load_must_go_on(load);
	tgt_kill(scene.tgt);
	g_usleep(3500000);
	for (unsigned i = 0; i < G_N_ELEMENTS(load->pids); i++)
		cr_assert_eq(call_end(load->pids[i], 0.01), -1);
	cr_assert(status_number(&scene, "away_ms") >= 2000);
	scene_restart_tgt(&scene);
	load_must_go_on(load);
	must_end_well(load, &scene, "");
}

Test(endurance, without_a_replacement_timeout_it_fails_at_once)
{
	struct scene scene = scene_with_tgt("replacement_timeout=0");
	struct io_job job = reading(&scene);

	proxy_stall(scene.proxy, PROXY_BOTH);
	pid_t reader = call_start(0, do_io, &job);
	cr_assert(still_waits(reader, 0.3));
	proxy_refuse(scene.proxy, true);
	proxy_cut(scene.proxy, PROXY_CUT_RST);
	cr_assert_eq(call_end(reader, 1), EIO);
	cr_assert_eq(call_as(0, do_io, &job), EIO);
	proxy_heal(scene.proxy);
	cr_assert(await(15, io_works, &job), "it does not come back");
	scene_end(&scene);
}

/* SAFETY.md 16 */
Test(endurance, a_target_that_goes_at_each_read_does_not_restart_the_clock)
{
	struct scene scene = scene_with_script("replacement_timeout=6s");
	struct io_job job = reading(&scene);

	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_READ, .spoil = SCRIPT_TRUNCATED});
	double start = seconds_now();
	pid_t reader = call_start(0, do_io, &job);
	/* no pause between two logins is as long as that */
	cr_assert_eq(call_end(reader, 30), EIO, "the clock began anew");
	cr_assert(seconds_now() - start > 5, "after %.1f s", seconds_now() - start);
	cr_assert(script_target_logins(scene.script) >= 4, "it was not there in between");
	script_target_forget_rules(scene.script);
	cr_assert(await(15, io_works, &job), "it does not come back");
	scene_end(&scene);
}

/* ---- commands that take long (SAFETY.md 15) ---- */

static void twice_too_slow(bool writes)
{
	struct scene scene = scene_with_script("command_timeout=1s");
	struct io_job job = {scene.file, LOAD_SEED, writes, LOAD_WRITTEN, LOAD_PIECE};
	int opcode = writes ? SCRIPT_WRITE : SCRIPT_READ;
	unsigned logins = script_target_logins(scene.script);

	/* Each try takes so long: without more time it would never end. */
	script_target_rule(scene.script, (struct script_rule){.opcode = opcode, .delay_ms = 1800});
	pid_t worker = call_start(0, do_io, &job);
	cr_assert_eq(call_end(worker, patience(40)), 0, "no try was given the time it takes");
	cr_assert_geq(script_target_logins(scene.script) - logins, 1);
	cr_assert(strstr(status_of(&scene, "outage_reason"), "within its time"));
	scene_end(&scene);
}

Test(endurance, a_read_that_took_too_long_is_given_twice_the_time)
{
	twice_too_slow(false);
}

Test(endurance, a_write_that_took_too_long_is_given_twice_the_time)
{
	twice_too_slow(true);
}

/* ---- one that is dead beside one that lives (SAFETY.md 18) ---- */

#define READERS 32

static void start_readers(struct io_job *job, pid_t pids[READERS])
{
	for (unsigned i = 0; i < READERS; i++)
		pids[i] = call_start(0, do_io, job);
}

/* The most that passed between two writes, or two reads, in the seconds. */
static double longest_pause(const struct load *load, double seconds)
{
	const atomic_ulong *counters[] = {&load->writes, &load->reads, &load->looks};
	double longest = 0, end = seconds_now() + seconds, last[3];
	unsigned long seen[3] = {0, 0, 0};

	for (unsigned i = 0; i < 3; i++)
		last[i] = seconds_now();
	for (double now; (now = seconds_now()) < end; g_usleep(5000))
		for (unsigned i = 0; i < 3; i++)
			if (*counters[i] != seen[i]) {
				seen[i] = *counters[i];
				last[i] = now;
			} else if (now - last[i] > longest) {
				longest = now - last[i];
			}
	return longest;
}

Test(endurance, a_dead_LUN_does_not_stop_another_of_its_target)
{
	struct scene scene = scene_of_script(LOAD_DISK);
	struct io_job job = {.seed = LOAD_SEED, .length = MIB(1)};
	pid_t readers[READERS];

	load_put_pattern(&scene);
	script_target_add_lun(scene.script, 2, MIB(1), 512);
	unsigned char *second = aligned_buffer(MIB(1));
	pattern_fill(second, MIB(1), 0, LOAD_SEED);
	script_target_write(scene.script, 2, 0, second, MIB(1));
	scene_mount(&scene, "command_timeout=1s,replacement_timeout=6s");
	job.path = text(scene.stage, "%s/lun2.img", scene.mnt);
	struct load *load = load_start(&scene);
	load_must_go_on(load);
	script_target_rule(scene.script,
	    (struct script_rule){.opcode = SCRIPT_ANY, .one_lun = true, .lun = 2, .hang = true});
	start_readers(&job, readers);
	double pause = longest_pause(load, 10);
	figure("a dead LUN: the other one waited for %.1f s at most\n", pause);
	cr_assert(pause < 9, "it waited for %.1f s", pause);
	load_must_go_on(load);
	for (unsigned i = 0; i < READERS; i++)
		cr_assert_eq(call_end(readers[i], 15), EIO, "a reader of the dead one");
	load_must_go_on(load);
	script_target_forget_rules(scene.script);
	script_target_release(scene.script);
	cr_assert(await(30, io_works, &job), "it does not come back");
	load_end(load, &scene);
	scene_end(&scene);
}

Test(endurance, a_dead_target_does_not_stop_another_of_its_mount)
{
	struct scene scene = {.stage = stage_new(), .size = LOAD_DISK};
	struct stage *stage = scene.stage;
	struct io_job job = {.seed = LOAD_SEED, .length = MIB(1)};
	unsigned char *second = aligned_buffer(MIB(1));
	pid_t readers[READERS];

	scene.tgt = tgt_start(stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = LOAD_DISK);
	load_put_pattern(&scene);
	tgt_add_target(scene.tgt, 2, "iqn.2026-01.org.lunfs:dead");
	char *backing = tgt_add_lun(scene.tgt, 2, .lun = 1, .size = MIB(1));
	pattern_fill(second, MIB(1), 0, LOAD_SEED);
	int fd = must_open(backing, O_WRONLY);
	must_pwrite(fd, second, MIB(1), 0);
	close(fd);
	scene_mount_as(&scene, 0, text(stage, "iscsi://%s", scene.tgt->portal), NULL);
	scene.file = text(stage, "%s/" SCENE_IQN "/lun1.img", scene.mnt);
	job.path = text(stage, "%s/iqn.2026-01.org.lunfs:dead/lun1.img", scene.mnt);
	cr_assert(await(5, io_works, &job));

	struct load *load = load_start(&scene);
	load_must_go_on(load);
	double before = load->reads + load->looks + load->writes;
	g_usleep(1000000);
	before = load->reads + load->looks + load->writes - before;
	tgt_set(scene.tgt, "--mode target --op delete --force --tid 2");
	scene_must_say(&scene, "lunfs:dead: session lost", 1, 5);
	start_readers(&job, readers);
	g_usleep(200000);
	double after = load->reads + load->looks + load->writes;
	double pause = longest_pause(load, 1);
	after = load->reads + load->looks + load->writes - after;
	figure("beside a dead target: %.0f I/Os in a second, %.0f before, %.2f s "
	       "pause at most\n",
	    after, before, pause);
	cr_assert(after > MIN(before / 10, 100), "%.0f I/Os a second, after %.0f", after, before);
	cr_assert(pause < patience(4), "it waited for %.1f s", pause);
	for (unsigned i = 0; i < READERS; i++)
		cr_assert_eq(call_end(readers[i], 0.001), -1, "a reader of the dead one ended");
	tgt_add_target(scene.tgt, 2, "iqn.2026-01.org.lunfs:dead");
	tgt_add_lun(scene.tgt, 2, .lun = 1, .size = MIB(1));
	for (unsigned i = 0; i < READERS; i++)
		cr_assert_eq(call_end(readers[i], 15), 0, "a reader of the one that is back");
	load_end(load, &scene);
	scene_end(&scene);
}
