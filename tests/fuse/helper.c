/*
 * helper.c - mount(8) and umount(8), by the programs that they call for our type; and what is told
 * of what is still to be written.
 *
 * Programs leave nothing unsynced behind when they close a file. A mapping does: its pages are
 * written when it goes, and no flush follows.
 */
#include "support/data.h"
#include "support/mount.h"
#include "support/proxy.h"
#include "support/script_scene.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(helper, .timeout = 120);

#define LENGTH   MIB(1)
#define A_SYNC   1500 /* how long the target takes for it, ms */
#define A_SYNC_S (A_SYNC / 1000.0)

static unsigned char *written;

struct mapping {
	const char *file;
	size_t length;
};

static int write_mapped(void *data)
{
	const struct mapping *mapping = data;
	int fd = open(mapping->file, O_RDWR | O_CLOEXEC);
	void *pages = mmap(NULL, mapping->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (pages == MAP_FAILED)
		return 1;
	close(fd);
	memcpy(pages, written, mapping->length);
	return munmap(pages, mapping->length) == 0 ? 0 : 1;
}

/* Acknowledged, and not synced by anybody. By another process: munmap() waits with the lock that
 * the threads of the network here may want. */
static void write_unsynced(const char *file, size_t length)
{
	struct mapping mapping = {file, length};

	written = aligned_buffer(length);
	pattern_fill(written, length, 0, 3);
	cr_assert_eq(call_as(0, write_mapped, &mapping), 0);
}

static bool is_stable(struct scene *scene)
{
	g_autofree unsigned char *found = g_malloc(LENGTH);

	cr_assert(script_target_stable(scene->script, 1, 0, found, LENGTH));
	return first_difference(found, written, LENGTH) < 0;
}
static bool is_stable_now(void *scene)
{
	return is_stable(scene);
}
static bool daemon_is_gone(void *unused)
{
	(void)unused;
	return lunfs_daemon() == 0;
}

/* The program by another name, with its wrapper, where there is one. */
static char *helper(struct stage *stage, const char *name)
{
	must(stage, "ln -sf lunfs %s/bin/%s", stage->dir, name);
	return text(
	    stage, "%.*s%s", (int)(strlen(stage->lunfs) - strlen("lunfs")), stage->lunfs, name);
}

/* /sbin as it is, and our two programs in it; in the stage's namespace. */
static void install_helpers(struct stage *stage)
{
	must(stage,
	    "mkdir old new && mount --bind /sbin old && ln -s %s/old/* new && "
	    "ln -sf %s/bin/lunfs new/mount.fuse.lunfs && "
	    "ln -sf %s/bin/lunfs new/umount.fuse.lunfs && mount --bind new /sbin",
	    stage->dir, stage->dir, stage->dir);
}

static bool is_registered(void *unused)
{
	g_autofree char *utab = NULL;

	(void)unused;
	return g_file_get_contents("/run/mount/utab", &utab, NULL, NULL) && strstr(utab, "x-lunfs");
}
/* Mounted, and holds what was not synced; a sync takes long. */
static struct scene scene_unsynced(void)
{
	struct scene scene = scene_of_script(MIB(4));

	install_helpers(scene.stage);
	script_scene_mount(&scene, NULL);
	cr_assert(await(5, is_registered, NULL), "umount(8) would not find the helper");
	/* the first comes as soon as the file is released */
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_SYNC, .delay_ms = A_SYNC});
	write_unsynced(scene.file, LENGTH);
	cr_assert(!is_stable(&scene));
	return scene;
}

/* Of tgtd, and not mounted. */
static struct scene scene_for_mount(void)
{
	struct scene scene = scene_unmounted(0);

	install_helpers(scene.stage);
	return scene;
}

static void must_have_waited(struct scene *scene, const struct result *result)
{
	cr_assert_eq(result->status, 0, "exit status %d: %s", result->status, result->err);
	cr_assert(is_stable(scene), "it returned after %.1f s", result->seconds);
	cr_assert(result->seconds >= A_SYNC_S / 2, "after %.1f s", result->seconds);
	cr_assert_str_eq(result->err, "");
	cr_assert_str_eq(result->out, "");
	cr_assert(!is_mounted(scene->mnt));
	cr_assert(!is_registered(NULL));
	cr_assert_eq(call_end(scene->lunfs, 3), 0, "%s", scene_said(scene));
	script_target_stop(scene->script);
}

/* ---- umount ---- */

Test(helper, the_umount_helper_returns_when_the_data_is_stable)
{
	struct scene scene = scene_unsynced();
	const char *program = helper(scene.stage, "umount.fuse.lunfs");

	must_have_waited(&scene, sh(scene.stage, "%s %s -n -r -v", program, scene.mnt));
}

Test(helper, it_knows_the_mount_by_its_source_too)
{
	struct scene scene = scene_unsynced();
	const char *program = helper(scene.stage, "umount.lunfs");

	must_have_waited(
	    &scene, sh(scene.stage, "%s -rnv -t fuse.lunfs iscsi://127.0.0.1:%u/" SCENE_IQN,
	                program, script_target_port(scene.script)));
}

Test(helper, umount_returns_when_the_data_is_stable)
{
	struct scene scene = scene_unsynced();

	must_have_waited(&scene, sh(scene.stage, "umount %s", scene.mnt));
}

/* What the others prove, they prove by the helper. */
Test(helper, umount_without_it_returns_before)
{
	struct scene scene = scene_unsynced();

	must(scene.stage, "umount -i %s", scene.mnt);
	cr_assert(!is_stable(&scene));
	cr_assert_eq(call_end(scene.lunfs, 10), 0, "%s", scene_said(&scene));
	cr_assert(is_stable(&scene));
	script_target_stop(scene.script);
}

Test(helper, umount_of_all_our_mounts_returns_when_the_data_is_stable)
{
	struct scene scene = scene_unsynced();

	must_have_waited(&scene, sh(scene.stage, "umount -a -t fuse.lunfs"));
}

Test(helper, umount_enters_the_namespace_that_it_is_told)
{
	struct scene scene = scene_unsynced();

	/* one that has the mount no more; its umount(8) looks from there */
	must_have_waited(&scene, sh(scene.stage,
	                             "unshare -m --propagation private sh -c "
	                             "'umount -i -n -l %s; exec umount -N $PPID %s'",
	                             scene.mnt, scene.mnt));
}

Test(helper, umount_of_an_ordinary_users_mount_returns_when_the_data_is_stable)
{
	struct scene scene = scene_of_script(MIB(4));
	const char *program = helper(scene.stage, "umount.fuse.lunfs");

	scene_mount_as(&scene, ORDINARY_USER, NULL, NULL);
	cr_assert_eq(
	    sh_as(scene.stage, ORDINARY_USER,
	        "dd if=/dev/urandom of=%s bs=64k count=1 conv=notrunc status=none", scene.file)
	        ->status,
	    0);
	struct result *result = sh_as(scene.stage, ORDINARY_USER, "%s %s", program, scene.mnt);
	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert(!is_mounted(scene.mnt));
	cr_assert_eq(call_end(scene.lunfs, 3), 0, "%s", scene_said(&scene));
	script_target_stop(scene.script);
}

Test(helper, a_lazy_umount_does_not_wait_and_the_data_becomes_stable)
{
	struct scene scene = scene_unsynced();
	const char *program = helper(scene.stage, "umount.fuse.lunfs");
	int fd = must_open(scene.file, O_RDONLY);

	must(scene.stage, "%s %s -l", program, scene.mnt);
	cr_assert(!is_mounted(scene.mnt));
	cr_assert(!is_stable(&scene));
	cr_assert_eq(call_end(scene.lunfs, 0.5), -1, "it ended while a file is open");
	close(fd);
	cr_assert(await(10, is_stable_now, &scene));
	cr_assert_eq(call_end(scene.lunfs, 10), 0, "%s", scene_said(&scene));
	script_target_stop(scene.script);
}

Test(helper, a_forced_umount_does_not_wait_and_tells_what_is_lost)
{
	struct scene scene = scene_unsynced();

	script_target_listen(scene.script, false);
	script_target_drop(scene.script, SCRIPT_RST);
	struct result *result = sh(scene.stage, "umount -f %s", scene.mnt);
	cr_assert_eq(result->status, 32, "exit status %d: %s", result->status, result->err);
	cr_assert(result->seconds < patience(8), "after %.1f s", result->seconds);
	cr_assert(
	    strstr(result->err, "lun1.img: bytes 0-1048575 (1048576 in all)"), "%s", result->err);
	cr_assert(!is_mounted(scene.mnt));
	cr_assert_eq(call_end(scene.lunfs, 5), 1, "%s", scene_said(&scene));
	script_target_stop(scene.script);
}

Test(helper, umount_of_what_is_in_use_fails_with_32)
{
	struct scene scene = scene_for_mount();

	must_lunfs(scene.stage, "%s %s", tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	int fd = must_open(scene.file, O_RDONLY);
	struct result *result = sh(scene.stage, "umount %s", scene.mnt);
	cr_assert_eq(result->status, 32, "exit status %d: %s", result->status, result->err);
	cr_assert(strstr(result->err, "in use"), "%s", result->err);
	cr_assert(is_mounted(scene.mnt));
	close(fd);
	must(scene.stage, "umount %s", scene.mnt);
	cr_assert(await(3, daemon_is_gone, NULL));
}

Test(helper, a_call_that_is_none_of_umounts_is_a_usage_error)
{
	struct stage *stage = stage_new();
	const char *program = helper(stage, "umount.fuse.lunfs");

	cr_assert_eq(sh(stage, "%s", program)->status, 2);
	cr_assert_eq(sh(stage, "%s -z /mnt", program)->status, 2);
	cr_assert_eq(sh(stage, "%s /mnt /mnt", program)->status, 2);
	cr_assert_eq(sh(stage, "%s /mnt -N", program)->status, 2);
	struct result *result = sh(stage, "%s /", program);
	cr_assert_eq(result->status, 32);
	cr_assert_str_eq(result->err, "lunfs: /: no lunfs is mounted there\n");
}

/* ---- mount ---- */

Test(helper, mount_mounts_with_the_words_of_fstab_and_without_a_home)
{
	struct scene scene = scene_for_mount();
	char *url = tgt_url(scene.tgt, SCENE_IQN, -1);

	must(scene.stage,
	    "env -u HOME mount -v -s -t fuse.lunfs -o nofail,_netdev,noatime,x-systemd.automount,"
	    "cache=none %s %s",
	    url, scene.mnt);
	cr_assert(is_mounted(scene.mnt));
	cr_assert_str_eq(must(scene.stage, "findmnt -n -o SOURCE %s", scene.mnt), url);
	cr_assert(strstr(must(scene.stage, "findmnt -n -o OPTIONS %s", scene.mnt), "noatime"));
	must(scene.stage, "cmp -n 4096 %s /dev/zero", scene.file);
	must(scene.stage, "umount %s", scene.mnt);
	cr_assert(!is_mounted(scene.mnt));
}

Test(helper, mount_of_all_finds_it_mounted_already)
{
	struct scene scene = scene_for_mount();

	must(scene.stage, "echo '%s %s fuse.lunfs _netdev,ro 0 0' >fstab",
	    tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	must(scene.stage, "mount -T fstab -a && mount -T fstab -a");
	cr_assert_str_eq(must(scene.stage, "grep -c 'fuse.lunfs ro' /proc/self/mounts"), "1");
	must(scene.stage, "umount %s", scene.mnt);
}

Test(helper, a_mount_that_fails_ends_with_32_and_one_line)
{
	struct scene scene = scene_for_mount();
	struct result *result = sh(scene.stage, "mount -t fuse.lunfs %s %s",
	    tgt_url(scene.tgt, "iqn.2026-01.org.lunfs:nobody", -1), scene.mnt);

	cr_assert_eq(result->status, 32, "exit status %d: %s", result->status, result->err);
	cr_assert_eq(count_words(result->err, "\n"), 1, "%s", result->err);
	result = sh(scene.stage, "mount -t fuse.lunfs -o chache=none %s %s",
	    tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	cr_assert_eq(result->status, 2, "exit status %d: %s", result->status, result->err);
	cr_assert(strstr(result->err, "did you mean 'cache'?"), "%s", result->err);
	cr_assert(!is_mounted(scene.mnt));
}

Test(helper, a_fake_mount_does_nothing)
{
	struct scene scene = scene_for_mount();

	must(scene.stage, "mount -f -t fuse.lunfs iscsi://127.0.0.1:1 %s", scene.mnt);
	cr_assert(!is_mounted(scene.mnt));
}

static bool is_read_only(const char *mountpoint)
{
	struct statvfs buffer;

	cr_assert_eq(statvfs(mountpoint, &buffer), 0);
	return buffer.f_flag & ST_RDONLY;
}

Test(helper, a_remount_changes_the_flags)
{
	struct scene scene = scene_for_mount();

	must(scene.stage, "mount -t fuse.lunfs -o cache_size=8M %s %s",
	    tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	must(scene.stage, "mount -o remount,ro %s", scene.mnt);
	cr_assert(is_read_only(scene.mnt));
	cr_assert(sh(scene.stage, "echo >%s", scene.file)->status != 0);
	must(scene.stage, "mount -o remount,rw %s", scene.mnt);
	cr_assert(!is_read_only(scene.mnt));
	must(scene.stage, "echo >%s", scene.file);
	must(scene.stage, "umount %s", scene.mnt);
}

/* ---- progress ---- */

/* A quarter of a second a MiB, and 4 of them: what is left is told several times. */
static struct result *umount_slowly(bool terminal)
{
	struct scene scene = scene_behind_proxy(MIB(8));

	scene_mount(&scene, "dirty_expire=1h");
	proxy_limit(scene.proxy, PROXY_TO_TARGET, MIB(2));
	write_unsynced(scene.file, MIB(4));
	char *line = text(scene.stage, "%s umount %s", scene.stage->lunfs, scene.mnt);
	struct result *result =
	    sh(scene.stage, terminal ? "script -qec '%s' /dev/null" : "%s", line);
	cr_assert_eq(result->status, 0, "%s%s", result->out, result->err);
	cr_assert(!is_mounted(scene.mnt));
	cr_assert_eq(call_end(scene.lunfs, 3), 0, "%s", scene_said(&scene));
	must_hold(scene.backing, written, MIB(4), 0);
	proxy_stop(scene.proxy);
	return result;
}

Test(helper, a_terminal_is_told_how_much_is_to_be_written)
{
	const char *said = umount_slowly(true)->out;

	cr_assert(count_words(said, "\r\033[Kflushing lun1.img: ") >= 2, "it said: %s", said);
	cr_assert(strstr(said, "MiB to go"), "it said: %s", said);
	cr_assert_null(strstr(said, "waiting for the target"), "it said: %s", said);
}

Test(helper, what_is_no_terminal_is_told_nothing)
{
	const struct result *result = umount_slowly(false);

	cr_assert_str_eq(result->out, "");
	cr_assert_str_eq(result->err, "");
}

/* It takes longer than the 20 s that a target without progress would have. */
Test(helper, a_slow_link_has_the_time_that_it_needs_after_the_unmount)
{
	struct scene scene = scene_behind_proxy(MIB(8));

	scene_mount(&scene, "dirty_expire=1h,replacement_timeout=5s,noop_out_interval=0,"
	                    "command_timeout=60s");
	proxy_limit(scene.proxy, PROXY_TO_TARGET, KIB(160));
	write_unsynced(scene.file, MIB(4));
	must(scene.stage, "umount -i -l %s", scene.mnt);
	cr_assert_eq(call_end(scene.lunfs, 50), 0, "%s", scene_said(&scene));
	must_hold(scene.backing, written, MIB(4), 0);
	proxy_stop(scene.proxy);
}

/* ---- what is lost ---- */

static bool nothing_is_dirty(void *scene)
{
	return status_number(scene, "dirty_bytes") == 0;
}

/* Stops before it writes half of it once more, and behind that: who closes a file has it flushed.
 */
static int write_again(void *file)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);

	if (pwrite(fd, written, LENGTH, 0) != (ssize_t)LENGTH)
		return 1;
	raise(SIGSTOP);
	if (pwrite(fd, written, LENGTH / 2, 0) != (ssize_t)LENGTH / 2)
		return 1;
	raise(SIGSTOP);
	return 0;
}

static void await_stop(pid_t pid)
{
	int status;

	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	cr_assert(WIFSTOPPED(status));
}

/* Kept in one version, and dirty in another. */
Test(helper, bytes_that_are_lost_twice_are_counted_once)
{
	struct scene scene = scene_of_script(MIB(4));

	script_scene_mount(&scene, "dirty_expire=100ms");
	written = aligned_buffer(LENGTH);
	pattern_fill(written, LENGTH, 0, 3);
	pid_t writer = call_start(0, write_again, scene.file);
	await_stop(writer);
	cr_assert(await(10, nothing_is_dirty, &scene));
	cr_assert_eq(status_number(&scene, "unstable_bytes"), LENGTH);
	script_target_freeze(scene.script, true);
	kill(writer, SIGCONT);
	await_stop(writer);
	cr_assert_eq(status_number(&scene, "dirty_bytes"), LENGTH / 2);
	cr_assert_eq(status_number(&scene, "unstable_bytes"), LENGTH);
	struct result *result = lunfs(scene.stage, "umount -f %s", scene.mnt);
	cr_assert_eq(result->status, 1, "%s", result->err);
	cr_assert(
	    strstr(result->err, "lun1.img: bytes 0-1048575 (1048576 in all)"), "%s", result->err);
	script_target_freeze(scene.script, false);
	script_target_stop(scene.script);
}
