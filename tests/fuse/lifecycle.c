/*
 * lifecycle.c - starting and ending: background and foreground, every way to unmount, and targets
 * that die.
 */
#include "support/data.h"
#include "support/mount.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(lifecycle, .timeout = 120);

static bool daemon_is_gone(void *unused)
{
	(void)unused;
	return lunfs_daemon() == 0;
}
static bool is_not_mounted(void *mountpoint)
{
	return !is_mounted(mountpoint);
}
static bool is_mounted_now(void *mountpoint)
{
	return is_mounted(mountpoint);
}

static void mount_again(struct scene *scene)
{
	must_mount_lunfs(scene->stage, tgt_url(scene->tgt, SCENE_IQN, -1), NULL);
	must(scene->stage, "cmp -n 512 %s /dev/zero", scene->file);
}

Test(lifecycle, help_and_version_end_with_0)
{
	struct stage *stage = stage_new();

	cr_assert(strstr(must_lunfs(stage, "--help"), "SOURCE"));
	cr_assert(strstr(must_lunfs(stage, "--version"), "lunfs"));
}

Test(lifecycle, mount_returns_when_the_tree_is_ready)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	scene_umount(&scene);
	for (int i = 0; i < 10; i++) {
		must(scene.stage, "%s %s %s && cmp -n 1000 %s /dev/zero", scene.stage->lunfs,
		    tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt, scene.file);
		scene_umount(&scene);
	}
}

Test(lifecycle, umount_leaves_the_data_at_the_target_and_no_process)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	unsigned char bytes[5000];
	int fd = must_open(scene.file, O_WRONLY);

	pattern_fill(bytes, sizeof(bytes), 0, 1);
	must_pwrite(fd, bytes, sizeof(bytes), 99);
	close(fd);
	cr_assert(lunfs_daemon() > 0);
	must_lunfs(scene.stage, "umount %s", scene.mnt);
	/* under a tool it still writes its report: await() then has patience */
	cr_assert(await(patience(1) - 1, daemon_is_gone, NULL),
	    "the process is there after 'lunfs umount'");
	cr_assert(!is_mounted(scene.mnt));
	must_hold(scene.backing, bytes, sizeof(bytes), 99);
}

Test(lifecycle, fusermount3_ends_it)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	must(scene.stage, "fusermount3 -u %s", scene.mnt);
	cr_assert(await(5, daemon_is_gone, NULL));
	mount_again(&scene);
	must(scene.stage, "umount %s", scene.mnt);
	cr_assert(await(5, daemon_is_gone, NULL));
}

Test(lifecycle, SIGTERM_ends_it)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	cr_assert(kill(lunfs_daemon(), SIGTERM) == 0);
	cr_assert(await(5, daemon_is_gone, NULL));
	cr_assert(!is_mounted(scene.mnt));
	mount_again(&scene);
}

Test(lifecycle, a_mount_whose_process_was_killed_can_be_removed)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	cr_assert(kill(lunfs_daemon(), SIGKILL) == 0);
	cr_assert(await(5, daemon_is_gone, NULL));
	must(scene.stage, "fusermount3 -u %s", scene.mnt);
	mount_again(&scene);
	cr_assert(kill(lunfs_daemon(), SIGKILL) == 0);
	cr_assert(await(5, daemon_is_gone, NULL));
	must(scene.stage, "umount -l %s", scene.mnt);
	mount_again(&scene);
	scene_umount(&scene);
}

Test(lifecycle, the_next_mount_detaches_one_whose_process_was_killed)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	cr_assert(kill(lunfs_daemon(), SIGKILL) == 0);
	cr_assert(await(5, daemon_is_gone, NULL));
	mount_again(&scene);
	scene_umount(&scene);
	cr_assert(!is_mounted(scene.mnt), "the dead mount is still below");
}

Test(lifecycle, a_busy_mount_is_told_and_keeps_working)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	int fd = must_open(scene.file, O_RDWR);

	struct result *result = lunfs(scene.stage, "umount %s", scene.mnt);
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "busy") || strstr(result->err, "in use"), "%s", result->err);
	cr_assert(is_mounted(scene.mnt));
	must_pwrite(fd, "still here", 10, 4000);
	cr_assert(fsync(fd) == 0);
	must_hold(scene.backing, "still here", 10, 4000);
	close(fd);
	scene_umount(&scene);
}

Test(lifecycle, in_the_foreground_it_stays)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	scene_umount(&scene);
	pid_t pid = sh_start(scene.stage, 0, NULL, NULL, "%s mount %s %s -f", scene.stage->lunfs,
	    tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	cr_assert(await(10, is_mounted_now, scene.mnt));
	must(scene.stage, "cmp -n 1000 %s /dev/zero", scene.file);
	cr_assert_eq(call_end(pid, 0.3), -1, "it does not stay");
	cr_assert(kill(pid, SIGTERM) == 0);
	cr_assert_eq(call_end(pid, 5), 0);
	cr_assert(!is_mounted(scene.mnt));
}

Test(lifecycle, two_targets_are_mounted_at_once)
{
	struct stage *stage = stage_new();
	struct tgt *one = tgt_start(stage), *two = tgt_start(stage);
	char *first = stage_directory(stage, "first", 0),
	     *second = stage_directory(stage, "second", 0);

	tgt_add_target(one, 1, "iqn.2026-01.org.lunfs:one");
	tgt_add_target(two, 2, "iqn.2026-01.org.lunfs:two");
	char *backing_one = tgt_add_lun(one, 1, .lun = 1, .size = MIB(1));
	char *backing_two = tgt_add_lun(two, 2, .lun = 1, .size = MIB(1));
	must_lunfs(stage, "%s %s", tgt_url(one, "iqn.2026-01.org.lunfs:one", -1), first);
	must_lunfs(stage, "%s %s", tgt_url(two, "iqn.2026-01.org.lunfs:two", -1), second);
	must(stage, "printf one | dd of=%s/lun1.img conv=notrunc status=none", first);
	must(stage, "printf two | dd of=%s/lun1.img conv=notrunc status=none", second);
	must_umount(stage, first);
	must_hold(backing_one, "one", 3, 0);
	must(stage, "grep -q ^two %s/lun1.img", second);
	must_umount(stage, second);
	must_hold(backing_two, "two", 3, 0);
}

Test(lifecycle, discover_lists_a_target_a_line)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	tgt_add_target(scene.tgt, 2, "iqn.2026-01.org.lunfs:second");
	cr_assert_str_eq(must_lunfs(scene.stage, "discover %s | sort", scene.tgt->portal),
	    text(scene.stage, "%s,1 " SCENE_IQN "\n%s,1 iqn.2026-01.org.lunfs:second\n",
	        scene.tgt->portal, scene.tgt->portal));
	cr_assert(strstr(must_lunfs(scene.stage, "status %s", scene.mnt), "lun1.img"));
	cr_assert(strstr(must_lunfs(scene.stage, "status"), scene.mnt));
	scene_umount(&scene);
}

/* ---- targets that die ---- */

/* Reads the first block through an O_DIRECT handle: 0, or the errno. */
static int errno_of_read(void *path)
{
	void *page = aligned_buffer(4096);
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	int error = fd >= 0 && pread(fd, page, 4096, 0) == 4096 ? 0 : errno;

	if (fd >= 0)
		close(fd);
	free(page);
	return error;
}
/* A read that waits meanwhile, and a write that was not synced before, come through. */
static void lost_and_back(enum proxy_cut how)
{
	struct scene scene = scene_behind_proxy(MIB(1));

	scene_mount(&scene, NULL);
	cr_assert_eq(errno_of_read(scene.file), 0);
	int fd = must_open(scene.file, O_RDWR);
	must_pwrite(fd, "not synced", 10, 5000);

	proxy_stall(scene.proxy, PROXY_BOTH);
	pid_t reader = call_start(0, errno_of_read, scene.file);
	cr_assert_eq(call_end(reader, 0.3), -1);
	proxy_refuse(scene.proxy, true);
	proxy_cut(scene.proxy, how);
	proxy_resume(scene.proxy);
	cr_assert_eq(call_end(reader, 1), -1, "it does not wait for the session");

	unsigned before = proxy_connections(scene.proxy);
	proxy_refuse(scene.proxy, false);
	cr_assert_eq(call_end(reader, 10), 0, "it does not go on");
	cr_assert(proxy_connections(scene.proxy) > before);
	cr_assert_eq(fsync(fd), 0, "the fsync after the loss: %s", strerror(errno));
	must_hold(scene.backing, "not synced", 10, 5000);
	close(fd);
	scene_end(&scene);
}

Test(lifecycle, a_session_that_was_reset_is_a_pause)
{
	lost_and_back(PROXY_CUT_RST);
}

Test(lifecycle, a_session_that_the_target_closed_is_a_pause)
{
	lost_and_back(PROXY_CUT_FIN);
}

Test(lifecycle, a_killed_target_gives_EIO_in_the_end_and_a_mount_that_can_be_unmounted)
{
	struct scene scene = scene_behind_proxy(MIB(1));

	scene_mount(&scene, "replacement_timeout=1s");
	tgt_kill(scene.tgt);
	double start = seconds_now();
	pid_t reader = call_start(0, errno_of_read, scene.file);
	cr_assert_eq(call_end(reader, 10), EIO);
	cr_assert(seconds_now() - start < patience(5));
	struct result *result = lunfs(scene.stage, "umount %s", scene.mnt);
	cr_assert(result->seconds < patience(10) && !result->timed_out);
	cr_assert_eq(result->status, 0, "nothing was written: %s", result->err);
	cr_assert(!is_mounted(scene.mnt));
	cr_assert_eq(call_end(scene.lunfs, 5), 0, "%s", scene_said(&scene));
	proxy_stop(scene.proxy);
}

Test(lifecycle, umount_ends_in_time_while_the_target_is_silent)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	tgt_freeze(scene.tgt);
	struct result *result = lunfs(scene.stage, "umount %s", scene.mnt);
	cr_assert(!result->timed_out);
	cr_assert(result->seconds < patience(35), "after %.1f s", result->seconds);
	cr_assert(!is_mounted(scene.mnt), "exit status %d: %s", result->status, result->err);
	cr_assert(await(30, daemon_is_gone, NULL));
	tgt_thaw(scene.tgt);
}

Test(lifecycle, SIGTERM_ends_in_time_while_the_target_is_silent)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	tgt_freeze(scene.tgt);
	pid_t reader = call_start(0, errno_of_read, scene.file);
	cr_assert_eq(call_end(reader, 0.3), -1);
	cr_assert(kill(lunfs_daemon(), SIGTERM) == 0);
	cr_assert(await(30, daemon_is_gone, NULL), "still there after 30 s");
	cr_assert(call_end(reader, 5) > 0);
	cr_assert(await(5, is_not_mounted, scene.mnt));
	tgt_thaw(scene.tgt);
}
