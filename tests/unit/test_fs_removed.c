/*
 * test_fs_removed.c - disks that are removed while somebody has them open, reads, writes, maps
 * them, or has the same block under another name.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/fs_scene.h"

TestSuite(fs_removed, .timeout = 120);

static int error_of(int result)
{
	return result == 0 ? 0 : errno;
}

/* ---- handles ---- */

static void all_must_fail(int flags)
{
	struct fs_scene scene = fs_scene_new();
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct stat stat;

	change(&scene, ADD_DISK, "a.img", FS_OWN, NULL);
	int fd = must_open(path_of(&scene, "a.img"), O_RDWR | flags);
	int reading = must_open(path_of(&scene, "a.img"), O_RDONLY | flags);
	cr_assert_eq(write_page(fd, 0, 1), 0);
	cr_assert_eq(read_byte(fd, 0), 1);
	change(&scene, REMOVE, "a.img", 0, NULL);
	must_come_to_say(&scene, RELEASED, 1);
	cr_assert_eq(write_page(fd, 0, 2), EIO);
	must_come_to_read(fd, 0, -1000 - EIO);
	must_come_to_read(reading, 0, -1000 - EIO);
	cr_assert_eq(read_byte(fd, 2 * (uint64_t)PAGE), -1000 - EIO);
	cr_assert_eq(error_of(fsync(fd)), EIO);
	cr_assert_eq(error_of(fdatasync(reading)), EIO);
	cr_assert_eq(error_of(fallocate(fd, punch, 0, PAGE)), EIO);
	cr_assert_eq(error_of(ftruncate(fd, 0)), EIO);
	cr_assert_eq(fstat(fd, &stat), 0);
	cr_assert_eq(stat.st_size, (off_t)OWN_SIZE);
	cr_assert_eq(stat.st_nlink, 0u);
	cr_assert_eq(error_of(fchmod(fd, 0640)), 0);
	cr_assert_eq(error_of(close(fd)), EIO, "what was written was not synced");
	cr_assert_eq(error_of(close(reading)), 0);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0);
	cr_assert_eq(tell(&scene, RELEASED, 0, 0), 1);
	fs_scene_end(&scene);
}

Test(fs_removed, buffered_handles_fail_and_can_be_closed)
{
	all_must_fail(0);
}

Test(fs_removed, direct_handles_fail_and_can_be_closed)
{
	all_must_fail(O_DIRECT);
}

static int touch_mapped_until_it_fails(void *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	volatile unsigned char *map =
	    mmap(NULL, OWN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return 1;
	signal(SIGBUS, SIG_DFL); /* a sanitizer's handler ends otherwise */
	map[PAGE] = 1;
	for (unsigned i = 0; i < 20000; i++) {
		map[0] = (unsigned char)i; /* mapped until it is dropped */
		g_usleep(500);
	}
	return 2;
}

static bool somebody_reads(void *scene)
{
	return access(path_of(scene, "a.img"), F_OK) == 0 && tell(scene, READS, 2, 0) > 0;
}

Test(fs_removed, mapped_pages_are_gone)
{
	struct fs_scene scene = fs_scene_new();

	change(&scene, ADD_DISK, "a.img", 2, NULL);
	pid_t pid = call_start(0, touch_mapped_until_it_fails, path_of(&scene, "a.img"));
	cr_assert(await(5, somebody_reads, &scene));
	g_usleep(50000);
	change(&scene, REMOVE, "a.img", 0, NULL);
	cr_assert_eq(call_end(pid, 8), 128 + SIGBUS);
	fs_scene_end(&scene);
}

Test(fs_removed, the_same_name_again_is_another_file)
{
	struct fs_scene scene = fs_scene_new();
	struct stat before, after;

	change(&scene, ADD_DISK, "a.img", FS_OWN, NULL);
	int old = must_open(path_of(&scene, "a.img"), O_RDWR);
	cr_assert_eq(write_page(old, 0, 1), 0);
	cr_assert_eq(fstat(old, &before), 0);
	change(&scene, REMOVE, "a.img", 0, NULL);
	change(&scene, ADD_DISK, "a.img", FS_OWN, NULL);
	int new = must_open(path_of(&scene, "a.img"), O_RDWR);
	cr_assert_eq(fstat(new, &after), 0);
	cr_assert_eq(before.st_ino, after.st_ino);
	cr_assert_eq(read_byte(new, 0), 0);
	cr_assert_eq(write_page(new, 0, 2), 0);
	must_come_to_read(old, 0, -1000 - EIO);
	cr_assert_eq(write_page(old, 0, 3), EIO);
	cr_assert_eq(read_byte(new, 0), 2);
	cr_assert_eq(error_of(fsync(new)), 0);
	close(old);
	cr_assert_eq(read_byte(new, 0), 2);
	close(new);
	fs_scene_end(&scene);
}

/* ---- requests ---- */

static bool is_in_flight(void *scene)
{
	return tell(scene, IN_FLIGHT, 2, 0) >= 1;
}

static int sync_there(void *data)
{
	const struct access *access = data;
	int fd = open(access->path, O_RDWR | O_CLOEXEC);

	return fsync(fd) == 0 ? 0 : errno;
}

/* Whoever waits is answered; the block is needed until its I/O has ended. */
static void remove_while(int (*waiter)(void *data), int flags, int expected)
{
	struct fs_scene scene = fs_scene_new();
	struct access access = {.path = scene.file[2], .flags = flags, .length = PAGE};

	tell(&scene, HOLD, 2, true);
	pid_t pid = call_start(0, waiter, &access);
	cr_assert(await(5, is_in_flight, &scene));
	change(&scene, REMOVE, "lun2.img", 0, NULL);
	cr_assert_eq(call_end(pid, 5), expected);
	cr_assert_eq(tell(&scene, RELEASED, 0, 0), 0);
	cr_assert_geq(tell(&scene, OUTSTANDING, 0, 0), 1);
	/* others are not concerned */
	int fd = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(write_page(fd, 0, 1), 0);
	close(fd);
	g_usleep(20000);
	cr_assert_eq(tell(&scene, RELEASED, 0, 0), 0);
	tell(&scene, HOLD, 2, false);
	must_come_to_none(&scene, OUTSTANDING);
	must_come_to_say(&scene, RELEASED, 1);
	fs_scene_end(&scene);
}

Test(fs_removed, a_read_that_waits_is_answered)
{
	remove_while(read_there, 0, EIO);
}

Test(fs_removed, a_direct_read_that_waits_is_answered)
{
	remove_while(read_there, O_DIRECT, EIO);
}

Test(fs_removed, a_write_that_waits_is_answered)
{
	remove_while(write_there, 0, EIO);
}

Test(fs_removed, a_direct_write_that_waits_is_answered)
{
	remove_while(write_there, O_DIRECT, EIO);
}

Test(fs_removed, a_sync_that_waits_is_answered)
{
	remove_while(sync_there, 0, EIO);
}

enum { READERS_OF_ONE = 60 };

/* Some of them wait for memory: they never begin. */
Test(fs_removed, many_that_wait_are_answered)
{
	struct fs_scene scene = fs_scene_new();
	struct access access = {.path = scene.file[2], .flags = O_DIRECT, .length = SIZE};
	pid_t pids[READERS_OF_ONE];

	tell(&scene, HOLD, 2, true);
	for (unsigned i = 0; i < READERS_OF_ONE; i++)
		pids[i] = call_start(0, read_there, &access);
	must_come_to_say(&scene, OUTSTANDING, READERS_OF_ONE);
	cr_assert_lt(tell(&scene, IN_FLIGHT, 2, 0), READERS_OF_ONE);
	change(&scene, REMOVE, "lun2.img", 0, NULL);
	for (unsigned i = 0; i < READERS_OF_ONE; i++)
		cr_assert_eq(call_end(pids[i], 10), EIO);
	tell(&scene, HOLD, 2, false);
	must_come_to_say(&scene, RELEASED, 1);
	cr_assert_lt(tell(&scene, READS, 2, 0), READERS_OF_ONE);
	fs_scene_end(&scene);
}

static int write_without_close(void *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED || close(fd) != 0)
		return 1;
	map[0] = 9;
	return munmap(map, PAGE);
}

static bool flush_has_come(void *scene)
{
	if (tell(scene, FLUSHES, 2, 0) > 0)
		return true;
	tell(scene, STEP, 2, 0);
	return false;
}

Test(fs_removed, a_flush_that_nobody_waits_for_is_waited_for)
{
	struct fs_scene scene = fs_scene_new();

	tell(&scene, HOLD, 2, true);
	pid_t pid = call_start(0, write_without_close, scene.file[2]);
	cr_assert(await(5, flush_has_come, &scene));
	cr_assert_eq(call_end(pid, 5), 0);
	change(&scene, REMOVE, "lun2.img", 0, NULL);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0, "it goes with the file");
	g_usleep(20000);
	cr_assert_eq(tell(&scene, RELEASED, 0, 0), 0);
	tell(&scene, STEP, 2, 0);
	must_come_to_say(&scene, RELEASED, 1);
	fs_scene_end(&scene);
}

/* ---- blocks under two names ---- */

Test(fs_removed, the_other_file_over_the_block_goes_on)
{
	struct fs_scene scene = fs_scene_new();
	int one = must_open(scene.file[0], O_RDWR), other = must_open(scene.file[FS_TWIN], O_RDWR);

	cr_assert_eq(write_page(one, 0, 1), 0);
	cr_assert_eq(read_byte(other, 0), 1);
	change(&scene, REMOVE, "lun0.img", 0, NULL);
	must_come_to_say(&scene, RELEASED, 1);
	cr_assert_eq(write_page(one, 0, 2), EIO);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 1, "what was written through it is there");
	cr_assert_eq(read_byte(other, 0), 1);
	cr_assert_eq(write_page(other, 0, 3), 0);
	cr_assert_eq(error_of(fsync(other)), 0);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0);
	tell(&scene, FILL, 0, 7);
	tell(&scene, RAISE, 0, BLOCK_CHANGED);
	must_come_to_read(other, 0, 7);
	tell(&scene, RESIZE, 0, 2 * SIZE);
	must_come_to_have(other, 2 * SIZE);
	change(&scene, REMOVE, "twin.img", 0, NULL);
	must_come_to_say(&scene, RELEASED, 2);
	tell(&scene, RAISE, 0, BLOCK_CHANGED); /* nobody listens */
	change(&scene, ADD_DISK, "lun0.img", 0, NULL);
	int again = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(read_byte(again, 0), 7);
	cr_assert_eq(write_page(again, 0, 8), 0);
	tell(&scene, RAISE, 0, BLOCK_FORGOTTEN);
	cr_assert_eq(error_of(fsync(again)), EIO, "events come to the new one");
	close(again);
	close(one);
	close(other);
	fs_scene_end(&scene);
}

Test(fs_removed, a_file_over_a_block_that_a_removed_one_still_needs_works)
{
	struct fs_scene scene = fs_scene_new();
	struct access access = {.path = scene.file[2], .flags = O_DIRECT, .length = PAGE};

	tell(&scene, HOLD, 2, true);
	pid_t pid = call_start(0, write_there, &access);
	cr_assert(await(5, is_in_flight, &scene));
	change(&scene, REPLACE, "lun2.img", 2, NULL);
	cr_assert_eq(call_end(pid, 5), EIO);
	cr_assert_eq(tell(&scene, RELEASED, 0, 0), 0);
	tell(&scene, HOLD, 2, false);
	must_come_to_say(&scene, RELEASED, 1);
	int fd = must_open(scene.file[2], O_RDWR);
	cr_assert_eq(write_page(fd, 0, 4), 0);
	cr_assert_eq(error_of(fsync(fd)), 0);
	cr_assert_eq(read_byte(fd, 0), 4);
	close(fd);
	fs_scene_end(&scene);
}

/* ---- flushing what is in a directory ---- */

Test(fs_removed, a_flush_of_a_directory_leaves_others_alone)
{
	struct fs_scene scene = fs_scene_new();
	int one = must_open(scene.file[0], O_RDWR);

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DIRECTORY, "t/in", 0, NULL);
	change(&scene, ADD_DISK, "t/in/a", 2, NULL);
	change(&scene, ADD_DISK, "t/in/b", 2, NULL);
	change(&scene, ADD_DIRECTORY, "u", 0, NULL);
	int other = must_open(path_of(&scene, "t/in/b"), O_RDWR);
	cr_assert_eq(write_page(one, 0, 1), 0);
	cr_assert_eq(write_page(other, 0, 1), 0);
	cr_assert_eq(change(&scene, FLUSH_TOP, "u", 0, NULL), 0);
	cr_assert_eq(tell(&scene, FLUSHES, 2, 0), 0);
	cr_assert_eq(change(&scene, FLUSH_TOP, "t", 0, NULL), 0);
	cr_assert_eq(tell(&scene, FLUSHES, 2, 0), 1, "once for all its files");
	cr_assert_eq(tell(&scene, FLUSHES, 0, 0), 0);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 1);
	cr_assert_eq(change(&scene, FLUSH_TOP, "lun0.img", 0, NULL), 0);
	cr_assert_eq(tell(&scene, FLUSHES, 0, 0), 1);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0);
	close(one);
	close(other);
	fs_scene_end(&scene);
}

/* ---- the end ---- */

Test(fs_removed, the_mount_ends_with_removed_files_open)
{
	struct fs_scene scene = fs_scene_new();

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DISK, "t/a", FS_OWN, NULL);
	change(&scene, ADD_TEXT, "t/b", 5, NULL);
	change(&scene, ADD_DISK, "t/c", FS_OWN, NULL);
	int directory = must_open(path_of(&scene, "t"), O_RDONLY | O_DIRECTORY);
	int a = must_open(path_of(&scene, "t/a"), O_RDWR);
	int b = must_open(path_of(&scene, "t/b"), O_RDONLY);
	cr_assert_eq(write_page(a, 0, 1), 0);
	void *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
	*(volatile char *)map = 1;
	change(&scene, REMOVE, "t/a", 0, NULL);
	change(&scene, REMOVE, "t", 0, NULL);
	fs_scene_end(&scene);
	cr_assert_neq(write_page(a, 0, 1), 0);
	munmap(map, PAGE);
	close(a);
	close(b);
	close(directory);
}
