/*
 * release.c - whoever waits for a target that does not come back can be let go: by a signal, by
 * 'lunfs umount -f', by an end of the mount that is bounded; and what is lost is named (SAFETY.md
 * 17).
 */
#include "support/data.h"
#include "support/mount.h"
#include "support/proxy.h"
#include "support/script_target.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(release, .timeout = 120);

#define BLOCK 4096u
#define LUNS  5u

static bool daemon_is_gone(void *unused)
{
	(void)unused;
	return lunfs_daemon() == 0;
}

/* ---- processes that wait ---- */

/* Writes a block, or maps one, and stops; then goes on to wait for the target. */
struct job {
	char *path;
	const char *name;
	int (*wait)(int fd);
	int flags;
	bool writes_before;
	uint64_t offset; /* of what it wrote before */
	int signal;
	pid_t pid;
};

static int wait_in_read(int fd)
{
	return pread(fd, aligned_buffer(BLOCK), BLOCK, 0) == BLOCK ? 0 : errno;
}
static int wait_in_write(int fd)
{
	return pwrite(fd, aligned_buffer(BLOCK), BLOCK, 0) == BLOCK ? 0 : errno;
}
static int wait_in_fsync(int fd)
{
	return fsync(fd) == 0 ? 0 : errno;
}
static int wait_in_close(int fd)
{
	return close(fd) == 0 ? 0 : errno;
}
static int wait_at_exit(int fd)
{
	(void)fd;
	return 0;
}
static int wait_in_aio(int fd)
{
	struct iocb iocb, *iocbs = &iocb;
	struct io_event event;
	io_context_t context = NULL;

	io_prep_pread(&iocb, fd, aligned_buffer(BLOCK), BLOCK, 0);
	if (io_setup(1, &context) != 0 || io_submit(context, 1, &iocbs) != 1 ||
	    io_getevents(context, 1, 1, &event, NULL) != 1)
		return EAGAIN;
	return event.res == BLOCK ? 0 : EIO;
}
static int wait_at_exit_with_dirty_pages(int fd)
{
	char *page = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		return errno;
	memset(page, 'm', BLOCK);
	return 0;
}
static int wait_behind_another(int fd)
{
	pid_t first = fork();

	if (first == 0)
		_exit(wait_in_write(fd));
	g_usleep(200000);
	int error = wait_in_write(fd), status;
	return waitpid(first, &status, 0) == first ? error : ECHILD;
}

static int run_job(void *data)
{
	const struct job *job = data;
	int fd = open(job->path, O_RDWR | job->flags | O_CLOEXEC);

	if (fd < 0)
		return 200;
	if (job->writes_before && pwrite(fd, "unsynced", 8, (off_t)job->offset) != 8)
		return 201;
	if (job->wait == wait_at_exit_with_dirty_pages)
		(void)!pread(fd, &(char){0}, 1, 0); /* the page is there before the target goes */
	raise(SIGSTOP);
	return job->wait(fd);
}

static void jobs_start(struct job *jobs, unsigned count, uid_t uid)
{
	for (unsigned i = 0; i < count; i++) {
		int status;

		jobs[i].pid = call_start(uid, run_job, &jobs[i]);
		cr_assert(
		    waitpid(jobs[i].pid, &status, WUNTRACED) == jobs[i].pid && WIFSTOPPED(status),
		    "%s: cannot even begin: %d", jobs[i].name, WEXITSTATUS(status));
	}
}

/* The target is dead now: they go on, and wait. */
static void jobs_must_wait(const struct job *jobs, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		cr_assert(kill(jobs[i].pid, SIGCONT) == 0);
	g_usleep(400000);
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(call_end(jobs[i].pid, 0.001), -1, "%s does not wait", jobs[i].name);
}

static void jobs_must_end(const struct job *jobs, unsigned count, double seconds)
{
	double end = seconds_now() + patience(seconds);

	for (unsigned i = 0; i < count; i++) {
		int status = call_end(jobs[i].pid, MAX(end - seconds_now(), 0) / patience(1));

		cr_assert(status >= 0, "%s goes on waiting", jobs[i].name);
		if (jobs[i].signal)
			cr_assert_eq(
			    status, 128 + jobs[i].signal, "%s ended with %d", jobs[i].name, status);
	}
}

/* ---- the scene ---- */

/* LUNs 1 to LUNS, mounted by uid; each job has one of its own. */
static struct scene scene_for(struct job *jobs, unsigned count, uid_t uid, const char *options)
{
	struct scene scene = {.stage = stage_new(), .size = MIB(1)};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = scene.size);
	for (unsigned lun = 2; lun <= LUNS; lun++)
		tgt_add_lun(scene.tgt, 1, .lun = lun, .size = scene.size);
	scene_mount_as(&scene, uid, NULL, options);
	for (unsigned i = 0; i < count; i++)
		jobs[i].path = text(scene.stage, "%s/lun%u.img", scene.mnt, i + 1);
	jobs_start(jobs, count, uid);
	return scene;
}

/* What 'lunfs umount' or lunfs itself says of what was acknowledged and not synced. */
static void must_tell_of_loss(const char *said, const struct job *jobs, unsigned count)
{
	cr_assert(strstr(said, "not known to be on stable storage: "), "it said: %s", said);
	for (unsigned i = 0; i < count; i++) {
		g_autofree char *range = g_strdup_printf("lun%u.img: bytes %lu-%lu (512 in all)",
		    i + 1, jobs[i].offset, jobs[i].offset + 511);

		if (jobs[i].writes_before)
			cr_assert(strstr(said, range), "'%s' is not in: %s", range, said);
	}
}

/* No mount, no process, and the exit status says that something was lost. */
static void must_be_gone(const struct scene *scene)
{
	cr_assert(!is_mounted(scene->mnt));
	cr_assert_eq(call_end(scene->lunfs, 3), 1, "lunfs says: %s", scene_said(scene));
	cr_assert_eq(lunfs_daemon(), 0);
}

/* ---- signals ---- */

static void a_signal_ends(const char *name, int (*wait)(int fd), int flags, bool writes_before)
{
	struct job jobs[] = {
	    {.name = "SIGINT", .signal = SIGINT},
	    {.name = "SIGTERM", .signal = SIGTERM},
	    {.name = "SIGKILL", .signal = SIGKILL},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
		jobs[i].wait = wait;
		jobs[i].flags = flags;
		jobs[i].writes_before = writes_before;
	}
	struct scene scene = scene_for(jobs, G_N_ELEMENTS(jobs), 0, NULL);
	tgt_kill(scene.tgt);
	jobs_must_wait(jobs, G_N_ELEMENTS(jobs));
	double start = seconds_now();
	for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++)
		cr_assert(kill(jobs[i].pid, jobs[i].signal) == 0);
	jobs_must_end(jobs, G_N_ELEMENTS(jobs), 2);
	figure("who waits in %s ends %.0f ms after the signal\n", name,
	    (seconds_now() - start) * 1000);
	struct result *result = lunfs(scene.stage, "umount -f %s", scene.mnt);
	cr_assert(result->seconds < patience(3), "after %.1f s: %s", result->seconds, result->err);
	cr_assert(!is_mounted(scene.mnt));
	cr_assert(call_end(scene.lunfs, 3) >= 0);
	if (writes_before)
		must_tell_of_loss(result->err, jobs, G_N_ELEMENTS(jobs));
}

Test(release, a_signal_ends_who_waits_in_read)
{
	a_signal_ends("read", wait_in_read, 0, false);
}

Test(release, a_signal_ends_who_waits_in_a_direct_read)
{
	a_signal_ends("a direct read", wait_in_read, O_DIRECT, false);
}

Test(release, a_signal_ends_who_waits_in_a_synchronous_write)
{
	a_signal_ends("a synchronous write", wait_in_write, O_DSYNC, false);
}

Test(release, a_signal_ends_who_waits_in_a_direct_write)
{
	a_signal_ends("a direct write", wait_in_write, O_DIRECT, false);
}

Test(release, a_signal_ends_who_waits_in_fsync)
{
	a_signal_ends("fsync", wait_in_fsync, 0, true);
}

Test(release, a_signal_ends_who_waits_in_close)
{
	a_signal_ends("close", wait_in_close, 0, true);
}

/* ---- by force ---- */

/* Those that no signal ends, and fsync. */
static void force_ends_all(uid_t uid, bool silent)
{
	struct job jobs[] = {
	    {.name = "libaio", .wait = wait_in_aio, .flags = O_DIRECT},
	    {.name = "exit with dirty pages", .wait = wait_at_exit_with_dirty_pages},
	    {.name = "a second writer", .wait = wait_behind_another},
	    {.name = "fsync", .wait = wait_in_fsync, .writes_before = true, .offset = 8192},
	    {.name = "exit", .wait = wait_at_exit, .writes_before = true, .offset = 512},
	};
	unsigned count = G_N_ELEMENTS(jobs);
	struct scene scene = scene_for(jobs, count, uid, NULL);

	if (silent)
		tgt_freeze(scene.tgt);
	else
		tgt_kill(scene.tgt);
	jobs_must_wait(jobs, count);
	char *err = text(scene.stage, "%s/umount-said", scene.stage->dir);
	double start = seconds_now();
	pid_t umount =
	    sh_start(scene.stage, uid, NULL, err, "%s umount -f %s", scene.stage->lunfs, scene.mnt);
	jobs_must_end(jobs, count, 1);
	double waiters = seconds_now() - start;
	int status = call_end(umount, silent ? 4 : 1.8);
	figure("umount -f of a %s target: waiters end after %.0f ms, it after %.0f "
	       "ms\n",
	    silent ? "silent" : "dead", waiters * 1000, (seconds_now() - start) * 1000);
	const char *said = must(scene.stage, "cat %s", err);
	cr_assert_eq(status, 1, "exit status %d: %s", status, said);
	cr_assert(!strchr(said, '\n'), "not one line: %s", said);
	must_tell_of_loss(said, jobs, count);
	must_be_gone(&scene);
	must_tell_of_loss(scene_said(&scene), jobs, count);
	if (silent)
		tgt_thaw(scene.tgt);
}

Test(release, force_ends_all_who_wait_for_a_dead_target)
{
	force_ends_all(0, false);
}

Test(release, force_ends_all_who_wait_for_a_silent_target)
{
	force_ends_all(0, true);
}

Test(release, force_ends_all_who_wait_in_a_users_mount)
{
	force_ends_all(ORDINARY_USER, false);
}

Test(release, force_loses_nothing_where_the_target_is_well)
{
	struct job job = {
	    .name = "writer", .wait = wait_in_fsync, .writes_before = true, .offset = 4096};
	struct scene scene = scene_for(&job, 1, 0, NULL);
	struct result *result = lunfs(scene.stage, "umount -f %s", scene.mnt);

	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert_str_eq(result->err, "");
	cr_assert(!is_mounted(scene.mnt));
	cr_assert_eq(call_end(scene.lunfs, 3), 0, "%s", scene_said(&scene));
	must_hold(scene.backing, "unsynced", 8, 4096);
	cr_assert(kill(job.pid, SIGKILL) == 0);
}

Test(release, force_kills_a_process_that_does_not_answer)
{
	struct job job = {.name = "reader", .wait = wait_in_read, .flags = O_DIRECT};
	struct scene scene = scene_for(&job, 1, 0, NULL);

	cr_assert(kill(lunfs_daemon(), SIGSTOP) == 0);
	jobs_must_wait(&job, 1);
	struct result *result = lunfs(scene.stage, "umount -f %s", scene.mnt);
	cr_assert_eq(result->status, 1, "%s", result->err);
	cr_assert(result->seconds < patience(15), "after %.1f s", result->seconds);
	cr_assert(strstr(result->err, "killed"), "%s", result->err);
	jobs_must_end(&job, 1, 2);
	cr_assert(!is_mounted(scene.mnt));
	cr_assert_eq(call_end(scene.lunfs, 3), 128 + SIGKILL);
}

/* ---- ends that are bounded ---- */

/* Written, not synced, and the file closed by the death of the process; the target is dead. */
static struct scene scene_unsynced(struct job *job, const char *options)
{
	*job = (struct job){.name = "writer",
	    .wait = wait_at_exit,
	    .writes_before = true,
	    .offset = 4096,
	    .signal = SIGKILL};
	struct scene scene = scene_for(job, 1, 0, options);

	tgt_kill(scene.tgt);
	scene_must_say(&scene, "session lost", 1, 2);
	cr_assert(kill(job->pid, SIGKILL) == 0);
	jobs_must_end(job, 1, 2);
	return scene;
}

static void must_be_gone_with_loss(const struct scene *scene, const struct job *job, double seconds)
{
	int status = call_end(scene->lunfs, seconds);

	cr_assert_eq(status, 1, "lunfs ended with %d: %s", status, scene_said(scene));
	cr_assert(!is_mounted(scene->mnt));
	must_tell_of_loss(scene_said(scene), job, 1);
}

Test(release, fusermount3_of_a_dead_target_ends_with_replacement_timeout)
{
	struct job job;
	struct scene scene = scene_unsynced(&job, "replacement_timeout=3s");

	must(scene.stage, "fusermount3 -u %s", scene.mnt);
	must_be_gone_with_loss(&scene, &job, 6);
}

Test(release, umount_of_a_dead_target_ends_with_replacement_timeout)
{
	struct job job;
	struct scene scene = scene_unsynced(&job, "replacement_timeout=3s");
	struct result *result = lunfs(scene.stage, "umount %s", scene.mnt);

	cr_assert_eq(result->status, 1, "%s", result->err);
	cr_assert(result->seconds < patience(6), "after %.1f s", result->seconds);
	must_tell_of_loss(result->err, &job, 1);
	must_be_gone_with_loss(&scene, &job, 3);
}

Test(release, umount_writes_what_was_not_synced_when_the_target_is_back_in_time)
{
	struct job job;
	struct scene scene = scene_unsynced(&job, NULL);
	pid_t umount =
	    sh_start(scene.stage, 0, NULL, NULL, "%s umount %s", scene.stage->lunfs, scene.mnt);

	cr_assert_eq(call_end(umount, 0.7), -1, "it did not wait");
	scene_restart_tgt(&scene);
	cr_assert_eq(call_end(umount, 10), 0, "%s", scene_said(&scene));
	cr_assert_eq(call_end(scene.lunfs, 3), 0, "%s", scene_said(&scene));
	cr_assert(!is_mounted(scene.mnt));
	must_hold(scene.backing, "unsynced", 8, 4096);
}

Test(release, SIGTERM_with_a_dead_target_ends_with_replacement_timeout)
{
	struct job job;
	struct scene scene = scene_unsynced(&job, "replacement_timeout=3s");

	cr_assert(kill(scene.lunfs, SIGTERM) == 0);
	must_be_gone_with_loss(&scene, &job, 6);
}

Test(release, SIGTERM_with_a_dead_target_ends_within_30_s)
{
	struct job job;
	struct scene scene = scene_unsynced(&job, "replacement_timeout=infinity");

	cr_assert(kill(scene.lunfs, SIGTERM) == 0);
	must_be_gone_with_loss(&scene, &job, 30);
}

Test(release, a_second_SIGTERM_with_a_dead_target_ends_at_once)
{
	struct job job;
	struct scene scene = scene_unsynced(&job, NULL);
	struct job reader = {
	    .name = "reader", .wait = wait_in_aio, .flags = O_DIRECT, .path = scene.file};

	jobs_start(&reader, 1, 0);
	jobs_must_wait(&reader, 1);
	cr_assert(kill(scene.lunfs, SIGTERM) == 0);
	cr_assert_eq(call_end(scene.lunfs, 0.5), -1, "it did not wait");
	cr_assert(kill(scene.lunfs, SIGTERM) == 0);
	must_be_gone_with_loss(&scene, &job, 2);
	jobs_must_end(&reader, 1, 1);
}

/* ---- a process that was killed ---- */

static void killed(uid_t uid)
{
	struct scene scene = scene_of_script(MIB(1));
	struct job job = {.name = "reader", .wait = wait_in_read, .flags = O_DIRECT};

	scene_mount_as(&scene, uid, NULL, NULL);
	job.path = scene.file;
	jobs_start(&job, 1, uid);
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_READ, .times = 1, .hang = true});
	jobs_must_wait(&job, 1);
	cr_assert(kill(lunfs_daemon(), SIGKILL) == 0);
	jobs_must_end(&job, 1, 2);
	cr_assert_eq(call_end(scene.lunfs, 2), 128 + SIGKILL);
	cr_assert(is_mounted(scene.mnt));
	cr_assert_eq(sh_as(scene.stage, uid, "fusermount3 -u %s", scene.mnt)->status, 0,
	    "it is not removed");
	cr_assert(!is_mounted(scene.mnt));
	scene_mount_as(&scene, uid, NULL, NULL);
	cr_assert_eq(sh_as(scene.stage, uid, "cmp -n 4096 %s /dev/zero", scene.file)->status, 0);
	cr_assert_eq(lunfs_as(scene.stage, uid, "umount %s", scene.mnt)->status, 0);
	cr_assert(await(3, daemon_is_gone, NULL));
	script_target_stop(scene.script);
}

Test(release, a_killed_lunfs_leaves_a_mount_that_goes_and_a_target_that_takes_the_next)
{
	killed(0);
}

Test(release, a_users_killed_lunfs_leaves_a_mount_that_goes_and_a_target_that_takes_the_next)
{
	killed(ORDINARY_USER);
}
