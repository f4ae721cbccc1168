/*
 * access.c - who may do what: root, ordinary users through fusermount3, strangers; read-only LUNs
 * and mounts.
 */
#include "support/data.h"
#include "support/mount.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(access, .timeout = 120);

static void mount_as_ordinary_user(struct scene *scene, const char *options)
{
	struct result *result = lunfs_as(scene->stage, ORDINARY_USER, "mount %s %s %s",
	    tgt_url(scene->tgt, SCENE_IQN, -1), scene->mnt, options);

	cr_assert(result->status == 0, "%s", result->err);
	cr_assert(is_mounted(scene->mnt));
}

static int open_for(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? errno : 0;
}
static int errno_of_reading(void *path)
{
	return open_for(path, O_RDONLY);
}
static int errno_of_writing(void *path)
{
	return open_for(path, O_WRONLY);
}
static int errno_of_stat(void *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? 0 : errno;
}

Test(access, an_ordinary_user_mounts_reads_writes_and_unmounts)
{
	struct scene scene = scene_unmounted(ORDINARY_USER);
	char expected[] = "written by nobody";

	mount_as_ordinary_user(&scene, "");
	struct result *result = sh_as(scene.stage, ORDINARY_USER,
	    "printf 'written by nobody' | dd of=%s conv=notrunc,fsync bs=4k seek=3 status=none && "
	    "dd if=%s bs=4k skip=3 count=1 status=none | head -c 17",
	    scene.file, scene.file);
	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert_str_eq(result->out, expected);
	must_hold(scene.backing, expected, strlen(expected), 3 * 4096);

	result = lunfs_as(scene.stage, ORDINARY_USER, "umount %s", scene.mnt);
	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert(!is_mounted(scene.mnt));
}

Test(access, an_ordinary_user_unmounts_with_fusermount3_too)
{
	struct scene scene = scene_unmounted(ORDINARY_USER);

	mount_as_ordinary_user(&scene, "");
	struct result *result = sh_as(scene.stage, ORDINARY_USER, "fusermount3 -u %s", scene.mnt);
	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert(!is_mounted(scene.mnt));
	mount_as_ordinary_user(&scene, "");
}

Test(access, a_stranger_and_root_are_kept_out_of_a_users_mount)
{
	struct scene scene = scene_unmounted(ORDINARY_USER);

	mount_as_ordinary_user(&scene, "");
	cr_assert_eq(call_as(STRANGER, errno_of_stat, scene.file), EACCES);
	cr_assert_eq(call_as(0, errno_of_stat, scene.file), EACCES);
	cr_assert_eq(call_as(ORDINARY_USER, errno_of_stat, scene.file), 0);
}

Test(access, allow_other_lets_a_stranger_see_and_the_mode_still_decides)
{
	struct scene scene = scene_unmounted(ORDINARY_USER);

	stage_permit_user_allow_other(scene.stage);
	mount_as_ordinary_user(&scene, "-o allow_other,umask=022");
	cr_assert_eq(call_as(STRANGER, errno_of_reading, scene.file), 0);
	cr_assert_eq(call_as(STRANGER, errno_of_writing, scene.file), EACCES);
	cr_assert_eq(call_as(ORDINARY_USER, errno_of_writing, scene.file), 0);
}

Test(access, allow_other_with_the_default_umask_shows_a_stranger_nothing)
{
	struct scene scene = scene_unmounted(ORDINARY_USER);

	stage_permit_user_allow_other(scene.stage);
	mount_as_ordinary_user(&scene, "-o allow_other");
	cr_assert_eq(call_as(STRANGER, errno_of_reading, scene.file), EACCES);
	cr_assert_eq(call_as(0, errno_of_reading, scene.file), 0);
}

Test(access, a_roots_mount_without_allow_other_keeps_users_out)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	cr_assert_eq(call_as(ORDINARY_USER, errno_of_stat, scene.file), EACCES);
	scene_umount(&scene);
}

static void must_be_read_only(struct scene *scene)
{
	struct stat st;
	char byte;

	cr_assert(stat(scene->file, &st) == 0);
	cr_assert_eq(st.st_mode & 07777, 0400u, "mode %o", st.st_mode & 07777);
	cr_assert_eq(call_as(0, errno_of_writing, scene->file), EROFS);
	cr_assert_eq(open_for(scene->file, O_RDWR), EROFS);
	cr_assert_eq(open_for(scene->file, O_RDONLY | O_TRUNC), EROFS);
	cr_assert(truncate(scene->file, 0) == -1);
	int fd = must_open(scene->file, O_RDONLY);
	must_pread(fd, &byte, 1, scene->size - 1);
	close(fd);
}

Test(access, a_write_protected_lun_is_read_only_even_for_root)
{
	struct scene scene = {.stage = stage_new(), .size = MIB(1)};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	tgt_add_lun(scene.tgt, 1, .lun = 1, .size = scene.size, .read_only = true);
	scene.mnt = must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), NULL);
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);
	must_be_read_only(&scene);
	scene_umount(&scene);
}

Test(access, a_read_only_mount_is_read_only_even_for_root)
{
	struct scene scene = scene_with_disk(MIB(1), 512);

	scene_umount(&scene);
	must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), "ro");
	must_be_read_only(&scene);
	scene_umount(&scene);
}
