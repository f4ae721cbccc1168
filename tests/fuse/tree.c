/*
 * tree.c - what a mount shows: names, modes, owners, sizes, times, attributes; and what it does not
 * let change.
 */
#include "support/data.h"
#include "support/mount.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

TestSuite(tree, .timeout = 120);

static struct stat must_stat(const char *path)
{
	struct stat st;

	cr_assert(lstat(path, &st) == 0, "stat %s: %s", path, strerror(errno));
	return st;
}

Test(tree, one_targets_files_stand_in_the_root_of_the_mount)
{
	struct scene scene = scene_with_disk(MIB(8), 512);

	cr_assert_str_eq(must(scene.stage, "ls %s", scene.mnt), "by-id\nby-path\nlun1.img");
	struct stat st = must_stat(scene.file);
	cr_assert(S_ISREG(st.st_mode));
	cr_assert_eq(st.st_size, (off_t)MIB(8));
	cr_assert_eq(st.st_blocks, (blkcnt_t)(MIB(8) / 512));
	cr_assert_eq(st.st_blksize, (blksize_t)MIB(1));
	cr_assert_eq(st.st_nlink, 1u);
	scene_umount(&scene);
}

Test(tree, several_targets_have_a_directory_each)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = tgt_start(stage);

	tgt_add_target(tgt, 1, "iqn.2026-01.org.lunfs:one");
	tgt_add_target(tgt, 2, "iqn.2026-01.org.lunfs:two");
	tgt_add_lun(tgt, 1, .lun = 1, .size = MIB(1));
	tgt_add_lun(tgt, 2, .lun = 1, .size = MIB(2));
	tgt_add_lun(tgt, 2, .lun = 7, .size = MIB(3));
	char *mnt = must_mount_lunfs(stage, text(stage, "iscsi://%s", tgt->portal), NULL);

	cr_assert_str_eq(must(stage, "cd %s && find iqn* -type f -printf '%%p %%s\\n' | sort", mnt),
	    "iqn.2026-01.org.lunfs:one/lun1.img 1048576\n"
	    "iqn.2026-01.org.lunfs:two/lun1.img 2097152\n"
	    "iqn.2026-01.org.lunfs:two/lun7.img 3145728");
	must_umount(stage, mnt);
}

Test(tree, one_lun_can_stand_for_a_regular_file)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = tgt_start(stage);
	char *file = text(stage, "%s/disk.img", stage->dir);
	char block[512];

	tgt_add_target(tgt, 1, SCENE_IQN);
	char *backing = tgt_add_lun(tgt, 1, .lun = 3, .size = MIB(5));
	must(stage, "echo here before > %s", file);
	must_lunfs(stage, "mount %s %s", tgt_url(tgt, SCENE_IQN, 3), file);
	struct stat st = must_stat(file);
	cr_assert(S_ISREG(st.st_mode));
	cr_assert_eq(st.st_size, (off_t)MIB(5));

	pattern_fill(block, sizeof(block), 0, 1);
	int fd = must_open(file, O_RDWR);
	must_pwrite(fd, block, sizeof(block), MIB(1) + 77);
	cr_assert(close(fd) == 0);
	must_umount(stage, file);
	must_hold(backing, block, sizeof(block), MIB(1) + 77);
	cr_assert_str_eq(must(stage, "cat %s", file), "here before");
}

Test(tree, a_disc_is_an_iso_and_what_is_no_disk_is_not_shown_but_listed)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = tgt_start(stage);

	tgt_add_target(tgt, 1, SCENE_IQN);
	tgt_add_lun(tgt, 1, .lun = 1, .size = MIB(4));
	tgt_add_lun(tgt, 1, .lun = 2, .size = MIB(2), .type = "cd");
	tgt_add_lun(tgt, 1, .lun = 3, .type = "tape");
	tgt_add_lun(tgt, 1, .lun = 4, .size = MIB(1), .type = "changer");
	char *mnt = must_mount_lunfs(stage, tgt_url(tgt, SCENE_IQN, -1), NULL);

	cr_assert_str_eq(must(stage, "ls %s", mnt), "by-id\nby-path\nlun1.img\nlun2.iso");
	struct stat st = must_stat(text(stage, "%s/lun2.iso", mnt));
	cr_assert_eq(st.st_size, (off_t)MIB(2));
	cr_assert_eq(st.st_mode & 07777, 0400u, "an .iso has mode %o", st.st_mode & 07777);
	cr_assert_eq(open(text(stage, "%s/lun2.iso", mnt), O_RDWR), -1);
	cr_assert_eq(errno, EROFS);

	char *listed = must_lunfs(stage, "discover %s --luns", tgt->portal);
	cr_assert(strstr(listed, "tape") && strstr(listed, "changer"), "%s", listed);
	cr_assert(strstr(listed, "not shown yet"), "%s", listed);
	must_umount(stage, mnt);
}

Test(tree, modes_and_owner_are_those_of_the_mounter_less_umask)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	struct stat st = must_stat(scene.file);

	cr_assert_eq(st.st_mode & 07777, 0600u, "the file has %o", st.st_mode & 07777);
	cr_assert_eq(st.st_uid, 0u);
	st = must_stat(scene.mnt);
	cr_assert_eq(st.st_mode & 07777, 0500u, "the root has %o", st.st_mode & 07777);
	scene_umount(&scene);

	must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1),
	    "umask=022,uid=1234,gid=4321,allow_other");
	st = must_stat(scene.file);
	cr_assert_eq(st.st_uid, 1234u);
	cr_assert_eq(st.st_gid, 4321u);
	cr_assert_eq(st.st_mode & 07777, 0644u, "the file has %o", st.st_mode & 07777);
	st = must_stat(scene.mnt);
	cr_assert_eq(st.st_mode & 07777, 0555u, "the root has %o", st.st_mode & 07777);
	scene_umount(&scene);
}

Test(tree, statfs_tells_of_no_blocks_and_no_free_space)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	struct statvfs fs;

	cr_assert(statvfs(scene.mnt, &fs) == 0);
	cr_assert_eq(fs.f_blocks, 0u);
	cr_assert_eq(fs.f_bfree, 0u);
	cr_assert_eq(fs.f_bavail, 0u);
	scene_umount(&scene);
}

Test(tree, inode_numbers_stay_for_ever_and_times_while_nothing_is_written)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	struct stat before = must_stat(scene.file), root = must_stat(scene.mnt);
	char byte;

	int fd = must_open(scene.file, O_RDONLY);
	must_pread(fd, &byte, 1, 0);
	close(fd);
	g_usleep(2200000); /* longer than attributes are cached, and over the turn of a second */
	struct stat after = must_stat(scene.file);
	cr_assert_eq(before.st_ino, after.st_ino);
	cr_assert(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)) == 0);
	cr_assert(memcmp(&before.st_ctim, &after.st_ctim, sizeof(before.st_ctim)) == 0);
	scene_umount(&scene);

	must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), NULL);
	cr_assert_eq(must_stat(scene.file).st_ino, before.st_ino);
	cr_assert_eq(must_stat(scene.mnt).st_ino, root.st_ino);
	scene_umount(&scene);
}

static void must_refuse(int returned, const char *what)
{
	/* EACCES and EROFS are the kernel's own, where it looks before it asks us */
	cr_assert(returned == -1, "%s worked", what);
	cr_assert(
	    errno == EPERM || errno == EACCES || errno == EROFS, "%s: %s", what, strerror(errno));
}

Test(tree, nothing_can_be_made_removed_or_renamed)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	char *other = text(scene.stage, "%s/other", scene.mnt);

	must_refuse(open(other, O_CREAT | O_RDWR, 0600), "creat");
	must_refuse(mkdir(other, 0700), "mkdir");
	must_refuse(mknod(other, S_IFIFO | 0600, 0), "mknod");
	must_refuse(symlink("x", other), "symlink");
	must_refuse(link(scene.file, other), "link");
	must_refuse(rename(scene.file, other), "rename");
	must_refuse(unlink(scene.file), "unlink");
	cr_assert_eq(must_stat(scene.file).st_size, (off_t)MIB(1));
	scene_umount(&scene);
}

Test(tree, chmod_chown_and_times_last_until_unmount)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	struct timespec times[2] = {{.tv_sec = 1000000}, {.tv_sec = 2000000, .tv_nsec = 5}};

	cr_assert(chmod(scene.file, 0640) == 0, "chmod: %s", strerror(errno));
	cr_assert(chown(scene.file, 0, 6) == 0, "chown: %s", strerror(errno));
	cr_assert(utimensat(AT_FDCWD, scene.file, times, 0) == 0, "utimens: %s", strerror(errno));
	g_usleep(1200000);
	struct stat st = must_stat(scene.file);
	cr_assert_eq(st.st_mode & 07777, 0640u);
	cr_assert_eq(st.st_gid, 6u);
	cr_assert_eq(st.st_mtim.tv_sec, 2000000);
	cr_assert_eq(st.st_mtim.tv_nsec, 5);
	cr_assert_eq(st.st_atim.tv_sec, 1000000);
	must(scene.stage, "touch %s", scene.file);
	cr_assert(must_stat(scene.file).st_mtim.tv_sec > 2000000);

	must(scene.stage,
	    "head -c 1M /dev/urandom > image; chmod 0604 image; touch -d @12345 image");
	must(scene.stage, "cp -p image %s", scene.file);
	st = must_stat(scene.file);
	cr_assert_eq(st.st_mode & 07777, 0604u);
	cr_assert_eq(st.st_mtim.tv_sec, 12345);
	scene_umount(&scene);

	must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), NULL);
	cr_assert_eq(must_stat(scene.file).st_mode & 07777, 0600u);
	scene_umount(&scene);
}

static char *attribute(struct scene *scene, const char *name)
{
	char value[256];
	ssize_t n = getxattr(scene->file, name, value, sizeof(value));

	cr_assert(n >= 0, "getxattr %s: %s", name, strerror(errno));
	return text(scene->stage, "%.*s", (int)n, value);
}

Test(tree, attributes_tell_what_the_lun_is)
{
	struct scene scene = scene_with_disk(MIB(1), 4096);
	char names[1024];

	cr_assert_str_eq(attribute(&scene, "user.lunfs.vendor"), "IET");
	cr_assert_str_eq(attribute(&scene, "user.lunfs.product"), "VIRTUAL-DISK");
	cr_assert_str_eq(attribute(&scene, "user.lunfs.serial"), "beaf11");
	cr_assert_str_eq(attribute(&scene, "user.lunfs.block_size"), "4096");
	cr_assert_str_eq(attribute(&scene, "user.lunfs.target"), SCENE_IQN);
	cr_assert_str_eq(attribute(&scene, "user.lunfs.portal"), scene.tgt->portal);
	cr_assert(*attribute(&scene, "user.lunfs.wwid"));
	cr_assert(*attribute(&scene, "user.lunfs.revision"));

	ssize_t n = listxattr(scene.file, names, sizeof(names));
	cr_assert(n > 0);
	unsigned listed = 0;
	for (const char *at = names; at < names + n; at += strlen(at) + 1) {
		cr_assert(g_str_has_prefix(at, "user.lunfs."), "%s is listed", at);
		attribute(&scene, at);
		listed++;
	}
	cr_assert_eq(listed, 8u);
	cr_assert_eq(getxattr(scene.file, "user.lunfs.vendor", names, 1), -1);
	cr_assert_eq(errno, ERANGE);
	cr_assert_eq(getxattr(scene.file, "security.capability", names, sizeof(names)), -1);
	cr_assert_eq(errno, ENODATA);
	cr_assert_eq(getxattr(scene.file, "user.other", names, sizeof(names)), -1);
	cr_assert_eq(errno, ENODATA);
	cr_assert_eq(setxattr(scene.file, "user.lunfs.vendor", "x", 1, 0), -1);
	scene_umount(&scene);
}

Test(tree, a_hundred_luns_are_mounted_at_once)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = tgt_start(stage);

	tgt_add_target(tgt, 1, SCENE_IQN);
	must(stage,
	    "for i in $(seq 100); do truncate -s 1M many$i && %s --mode logicalunit --op new --tid "
	    "1 "
	    "--lun $i --backing-store %s/many$i || exit 1; done",
	    tgt->admin, stage->dir);
	double start = seconds_now();
	char *mnt = must_mount_lunfs(stage, tgt_url(tgt, SCENE_IQN, -1), NULL);
	fprintf(stderr, "100 LUNs were mounted in %.3f s\n", seconds_now() - start);
	cr_assert_str_eq(must(stage, "ls %s/*.img | wc -l", mnt), "100");
	must(stage, "cmp -n 4096 %s/lun100.img /dev/zero", mnt);
	must_umount(stage, mnt);
}
