/*
 * test_fs_content.c - what a cache below needs of a file: data that is lent, errors that come after
 * the write they belong to, the flush at a release; and two files over one block (SAFETY.md 22).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/fs_scene.h"

TestSuite(fs_content, .timeout = 120);
TestSuite(safety_22, .timeout = 120);

/* Each page begins with its number, and has it in its middle. */
static void fill_with_numbers(int direct)
{
	for (uint64_t i = 0; i < SIZE / PAGE; i++)
		cr_assert_eq(write_page(direct, i * PAGE, (int)i), 0);
}

static bool has_numbers(const unsigned char *bytes, uint64_t offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != (unsigned char)((offset + i) / PAGE))
			return false;
	return true;
}

/* ---- lent ---- */

Test(fs_content, a_buffered_read_is_answered_with_what_is_lent)
{
	struct fs_scene scene = fs_scene_new();
	int direct = must_open(scene.file[FS_LENDER], O_RDWR | O_DIRECT);
	g_autofree unsigned char *bytes = g_malloc(SIZE);

	fill_with_numbers(direct);
	int fd = must_open(scene.file[FS_LENDER], O_RDONLY);
	cr_assert_eq(tell(&scene, LENT, 0, 0), 0);
	cr_assert_eq(pread(fd, bytes, SIZE, 0), (ssize_t)SIZE);
	cr_assert(has_numbers(bytes, 0, SIZE));
	cr_assert_gt(tell(&scene, LENT, 0, 0), 0);
	cr_assert_neq(tell(&scene, READERS, 0, 0), 0);
	close(fd);
	close(direct);
	fs_scene_end(&scene);
}

Test(fs_content, readers_can_be_told_apart)
{
	struct fs_scene scene = fs_scene_new();
	int one = must_open(scene.file[FS_LENDER], O_RDONLY);
	int other = must_open(scene.file[FS_LENDER], O_RDONLY);

	read_byte(one, 0);
	int64_t reader = tell(&scene, READERS, 0, 0);
	read_byte(other, SIZE / 2);
	cr_assert_neq(tell(&scene, READERS, 0, 0), reader);
	read_byte(one, SIZE - PAGE);
	cr_assert_eq(tell(&scene, READERS, 0, 0), reader);
	close(one);
	close(other);
	fs_scene_end(&scene);
}

Test(fs_content, direct_requests_say_so_and_are_not_lent)
{
	struct fs_scene scene = fs_scene_new();
	int direct = must_open(scene.file[FS_LENDER], O_RDWR | O_DIRECT);
	int buffered = must_open(scene.file[FS_LENDER], O_RDWR);

	cr_assert_eq(write_page(direct, 0, 1), 0);
	cr_assert_eq(read_byte(direct, 0), 1);
	cr_assert_eq(tell(&scene, DIRECTS, 0, 0), 2);
	cr_assert_eq(tell(&scene, LENT, 0, 0), 0);
	cr_assert_eq(write_page(buffered, 0, 2), 0);
	cr_assert_eq(read_byte(buffered, SIZE / 2), 0);
	cr_assert_eq(tell(&scene, DIRECTS, 0, 0), 2);
	cr_assert_gt(tell(&scene, LENT, 0, 0), 0);
	close(direct);
	close(buffered);
	fs_scene_end(&scene);
}

static bool is_one_in_flight(void *scene)
{
	return tell(scene, IN_FLIGHT, FS_LENDER, 0) >= 1;
}

/* A READ of the last bytes is at the target when that becomes smaller. */
static int read_across(struct fs_scene *scene, uint64_t new_size)
{
	const struct access access = {
	    .path = scene->file[FS_LENDER], .offset = SIZE - PAGE, .length = PAGE};

	tell(scene, HOLD, FS_LENDER, true);
	pid_t reader = call_start(0, read_there, (void *)&access);
	cr_assert(await(5, is_one_in_flight, scene));
	tell(scene, RESIZE, FS_LENDER, new_size);
	tell(scene, HOLD, FS_LENDER, false);
	return call_end(reader, 10);
}

Test(fs_content, a_lent_read_is_shorter_when_the_disk_has_become_so)
{
	struct fs_scene scene = fs_scene_new();

	cr_assert_eq(read_across(&scene, SIZE - PAGE + 512), 0);
	cr_assert_geq(tell(&scene, LENT, 0, 0), 2);
	must_come_to_none(&scene, OUTSTANDING);
	fs_scene_end(&scene);
}

/* The kernel may take it for zeros, where it does not know the new size yet. */
Test(fs_content, a_lent_read_beyond_the_new_end_reads_nothing)
{
	struct fs_scene scene = fs_scene_new();

	int result = read_across(&scene, SIZE / 2);

	cr_assert(result == 0 || result == 255, "%d", result);
	must_come_to_none(&scene, OUTSTANDING);
	fs_scene_end(&scene);
}

Test(fs_content, a_failed_lent_read_is_answered)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[FS_LENDER], O_RDONLY);

	tell(&scene, FAIL, FS_LENDER, 0);
	cr_assert_eq(read_byte(fd, 0), 0, "the kernel asks again for what it was to read ahead");
	cr_assert_eq(tell(&scene, LENT, 0, 0), 2);
	close(fd);
	fs_scene_end(&scene);
}

/* More than what may be at work of those that take memory of ours. */
#define READERS_OF_MORE 40

Test(fs_content, lent_reads_wait_for_no_memory_and_their_readers_can_be_killed)
{
	struct fs_scene scene = fs_scene_new();
	struct access access = {.path = scene.file[FS_LENDER], .length = PAGE};
	pid_t pids[READERS_OF_MORE];

	tell(&scene, HOLD, FS_LENDER, true);
	for (unsigned i = 0; i < READERS_OF_MORE; i++) {
		access.offset = (uint64_t)i * 6 * PAGE;
		pids[i] = call_start(0, read_there, &access);
	}
	must_come_to_say(&scene, OUTSTANDING, READERS_OF_MORE);
	cr_assert_eq(tell(&scene, IN_FLIGHT, FS_LENDER, 0), READERS_OF_MORE);
	for (unsigned i = 0; i < READERS_OF_MORE; i += 2)
		kill(pids[i], SIGKILL);
	for (unsigned i = 0; i < READERS_OF_MORE; i += 2)
		cr_assert_eq(call_end(pids[i], 3), 128 + SIGKILL);
	tell(&scene, HOLD, FS_LENDER, false);
	for (unsigned i = 1; i < READERS_OF_MORE; i += 2)
		cr_assert_eq(call_end(pids[i], 10), 0);
	must_come_to_none(&scene, OUTSTANDING);
	fs_scene_end(&scene);
}

/* ---- errors that come later ---- */

static int sync_error(int fd)
{
	return fsync(fd) == 0 ? 0 : errno;
}

static int close_error(int fd)
{
	return close(fd) == 0 ? 0 : errno;
}

Test(fs_content, each_handle_hears_once_of_what_could_not_be_written)
{
	struct fs_scene scene = fs_scene_new();
	int one = must_open(scene.file[0], O_RDWR), other = must_open(scene.file[0], O_RDWR);
	int reading = must_open(scene.file[0], O_RDONLY);

	cr_assert_eq(write_page(one, 0, 1), 0);
	tell(&scene, RAISE, 0, BLOCK_UNWRITTEN);
	tell(&scene, RAISE, 0, BLOCK_UNWRITTEN);
	cr_assert_eq(sync_error(one), EIO);
	cr_assert_eq(sync_error(one), 0);
	cr_assert_eq(sync_error(reading), EIO);
	cr_assert_eq(sync_error(reading), 0);
	cr_assert_eq(close_error(other), EIO);
	tell(&scene, RAISE, 0, BLOCK_UNWRITTEN);
	cr_assert_eq(sync_error(one), EIO);
	cr_assert_eq(close_error(one), 0);
	close(reading);
	fs_scene_end(&scene);
}

Test(fs_content, what_nobody_was_told_of_the_next_to_open_it_hears)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[0], O_RDWR);

	cr_assert_eq(write_page(fd, 0, 1), 0);
	cr_assert_eq(close_error(fd), 0);
	tell(&scene, RAISE, 0, BLOCK_UNWRITTEN);
	int one = must_open(scene.file[0], O_RDWR), other = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(sync_error(one), EIO);
	int late = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(sync_error(late), 0, "somebody was told");
	cr_assert_eq(sync_error(other), EIO);
	cr_assert_eq(close_error(other), 0);
	cr_assert_eq(close_error(one), 0);
	cr_assert_eq(close_error(late), 0);
	fs_scene_end(&scene);
}

/* ---- release ---- */

/* A page that is written when the mapping goes, after the close: a RELEASE follows, and no FLUSH.
 */
static int write_without_flush(void *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED || close(fd) != 0)
		return 1;
	map[0] = 9;
	return munmap(map, PAGE);
}

static bool has_flushed(void *scene)
{
	return tell(scene, FLUSHES, 0, 0) > 0 && tell(scene, OUTSTANDING, 0, 0) == 0;
}

Test(fs_content, a_release_flushes_what_was_written_without_a_close)
{
	struct fs_scene scene = fs_scene_new();

	cr_assert_eq(call_as(0, write_without_flush, scene.file[0]), 0);
	cr_assert(await(5, has_flushed, &scene));
	cr_assert_eq(tell(&scene, FLUSHES, 0, 0), 1);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0);
	int fd = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(read_byte(fd, 0), 9);
	close(fd);
	g_usleep(50000);
	cr_assert_eq(tell(&scene, FLUSHES, 0, 0), 1, "nothing was written since");
	fs_scene_end(&scene);
}

static bool has_step(void *scene)
{
	return tell(scene, STEP, 0, 0) != 0;
}

static bool flush_has_come(void *scene)
{
	return tell(scene, FLUSHES, 0, 0) > 0;
}

Test(fs_content, the_end_waits_for_the_flush_of_a_release)
{
	struct fs_scene scene = fs_scene_new();

	cr_assert_eq(close(must_open(scene.file[0], O_RDWR)), 0);
	tell(&scene, HOLD, 0, true);
	pid_t writer = call_start(0, write_without_flush, scene.file[0]);
	cr_assert(await(5, has_step, &scene), "the page's READ");
	cr_assert(await(5, has_step, &scene), "its WRITE");
	cr_assert_eq(call_end(writer, 5), 0);
	cr_assert(await(5, flush_has_come, &scene));
	cr_assert_eq(tell(&scene, OUTSTANDING, 0, 0), 1);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 1);
	tell(&scene, HOLD, 0, false);
	must_come_to_none(&scene, OUTSTANDING);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0);
	fs_scene_end(&scene);
}

Test(fs_content, a_flush_of_a_release_that_fails_is_made_up_for_by_the_next)
{
	struct fs_scene scene = fs_scene_new();

	tell(&scene, FAIL, 0, 2); /* after the page's READ and WRITE */
	cr_assert_eq(call_as(0, write_without_flush, scene.file[0]), 0);
	cr_assert(await(5, has_flushed, &scene));
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 1);
	int fd = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(sync_error(fd), 0);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0);
	close(fd);
	fs_scene_end(&scene);
}

/* ---- two files over one block ---- */

struct pair {
	struct fs_scene scene;
	int one, other;
};

static struct pair pair_new(int flags, int other_flags)
{
	struct pair pair = {.scene = fs_scene_new()};

	pair.one = must_open(pair.scene.file[0], O_RDWR | flags);
	pair.other = must_open(pair.scene.file[FS_TWIN], O_RDWR | other_flags);
	return pair;
}

static void pair_end(struct pair *pair)
{
	close(pair->one);
	close(pair->other);
	fs_scene_end(&pair->scene);
}

static void agree(int flags, int other_flags)
{
	struct pair pair = pair_new(flags, other_flags);

	for (int round = 1; round < 100; round++) {
		int writer = round % 2 ? pair.one : pair.other;
		int reader = round % 2 ? pair.other : pair.one;
		uint64_t offset = (uint64_t)(round % 5) * PAGE;

		cr_assert_eq(write_page(writer, offset, round), 0);
		cr_assert_eq(read_byte(reader, offset), round, "round %d", round);
		cr_assert_eq(read_byte(writer, offset), round, "round %d", round);
	}
	pair_end(&pair);
}

Test(safety_22, buffered_files_over_one_block_agree)
{
	agree(0, 0);
}

Test(safety_22, a_direct_and_a_buffered_file_over_one_block_agree)
{
	agree(O_DIRECT, 0);
}

Test(safety_22, synchronous_writes_are_seen_through_the_other_file)
{
	agree(O_DSYNC, O_SYNC);
}

Test(safety_22, zeros_are_seen_through_the_other_file)
{
	struct pair pair = pair_new(0, 0);
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	tell(&pair.scene, FILL, 0, 7);
	for (uint64_t offset = 0; offset < SIZE; offset += PAGE)
		cr_assert_eq(read_byte(pair.other, offset), 7);
	cr_assert_eq(fallocate(pair.one, punch, PAGE, PAGE), 0);
	cr_assert_eq(read_byte(pair.other, PAGE), 0);
	cr_assert_eq(read_byte(pair.other, 0), 7);
	/* what is behind the mark of a handle is due when it writes further on */
	cr_assert_eq(ftruncate(pair.one, 4 * (off_t)PAGE), 0);
	cr_assert_eq(read_byte(pair.other, 4 * (uint64_t)PAGE), 7);
	cr_assert_eq(write_page(pair.one, 6 * (uint64_t)PAGE, 8), 0);
	cr_assert_eq(read_byte(pair.other, 4 * (uint64_t)PAGE), 0);
	cr_assert_eq(read_byte(pair.other, 5 * (uint64_t)PAGE), 0);
	cr_assert_eq(read_byte(pair.other, 6 * (uint64_t)PAGE), 8);
	cr_assert_eq(read_byte(pair.other, 7 * (uint64_t)PAGE), 7);
	cr_assert_eq(ftruncate(pair.one, 9 * (off_t)PAGE), 0);
	cr_assert_eq(read_byte(pair.other, 8 * (uint64_t)PAGE), 0);
	cr_assert_eq(read_byte(pair.other, 9 * (uint64_t)PAGE), 7);
	pair_end(&pair);
}

Test(safety_22, what_is_written_without_a_waiter_is_seen_through_the_other_file)
{
	struct pair pair = pair_new(0, 0);
	unsigned char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, pair.one, 0);

	cr_assert_eq(read_byte(pair.other, 0), 0);
	map[0] = 5;
	cr_assert_eq(msync(map, SIZE, MS_SYNC), 0);
	cr_assert_eq(read_byte(pair.other, 0), 5);
	cr_assert_eq(write_page(pair.other, 0, 6), 0);
	cr_assert_eq(map[0], 6);
	munmap(map, SIZE);
	pair_end(&pair);
}

Test(safety_22, a_sync_of_one_file_makes_writes_of_the_other_stable)
{
	struct pair pair = pair_new(0, O_DIRECT);

	cr_assert_eq(sync_error(pair.one), 0);
	int64_t flushes = tell(&pair.scene, FLUSHES, 0, 0);
	cr_assert_eq(write_page(pair.one, 0, 1), 0);
	cr_assert_eq(sync_error(pair.other), 0);
	cr_assert_eq(tell(&pair.scene, FLUSHES, 0, 0), flushes + 1);
	cr_assert_eq(tell(&pair.scene, UNFLUSHED, 0, 0), 0);
	cr_assert_eq(sync_error(pair.one), 0);
	cr_assert_eq(tell(&pair.scene, FLUSHES, 0, 0), flushes + 1, "it was stable already");
	cr_assert_eq(write_page(pair.one, 0, 2), 0);
	cr_assert_eq(write_page(pair.other, 0, 3), 0);
	cr_assert_eq(tell(&pair.scene, FLUSH_ALL, 0, 0), 0);
	cr_assert_eq(tell(&pair.scene, FLUSHES, 0, 0), flushes + 2, "once for both");
	pair_end(&pair);
}

Test(safety_22, both_files_hear_of_what_was_lost)
{
	struct pair pair = pair_new(0, 0);

	cr_assert_eq(write_page(pair.one, 0, 1), 0);
	tell(&pair.scene, RAISE, 0, BLOCK_FORGOTTEN);
	cr_assert_eq(sync_error(pair.other), EIO);
	cr_assert_eq(sync_error(pair.other), 0);
	cr_assert_eq(sync_error(pair.one), EIO);
	tell(&pair.scene, RAISE, 0, BLOCK_UNWRITTEN);
	cr_assert_eq(sync_error(pair.one), EIO);
	cr_assert_eq(sync_error(pair.other), EIO);
	cr_assert_eq(sync_error(pair.one), 0);
	pair_end(&pair);
}

Test(safety_22, both_files_follow_the_disk)
{
	struct pair pair = pair_new(0, 0);

	tell(&pair.scene, FILL, 0, 7);
	cr_assert_eq(read_byte(pair.one, 0), 7);
	cr_assert_eq(read_byte(pair.other, 0), 7);
	tell(&pair.scene, FILL, 0, 8);
	tell(&pair.scene, RAISE, 0, BLOCK_CHANGED);
	must_come_to_read(pair.one, 0, 8);
	must_come_to_read(pair.other, 0, 8);
	tell(&pair.scene, RESIZE, 0, 2 * SIZE);
	must_come_to_have(pair.one, 2 * SIZE);
	must_come_to_have(pair.other, 2 * SIZE);
	cr_assert_eq(read_byte(pair.other, 2 * SIZE - PAGE), 8);
	tell(&pair.scene, RESIZE, 0, SIZE / 2);
	must_come_to_have(pair.one, SIZE / 2);
	must_come_to_have(pair.other, SIZE / 2);
	pair_end(&pair);
}

/* Of pages that were not read before: the kernel has them locked until it is answered. */
static int write_parts(void *data)
{
	const struct access *access = data;
	int fd = open(access->path, O_RDWR | access->flags | O_CLOEXEC);
	char bytes[PAGE] = {0};

	for (unsigned i = 0; i < access->length; i++) {
		uint64_t at = (uint64_t)(i % 3) * PAGE + 100 + i % 1000;
		size_t length = 1 + i * 37 % (PAGE - 200);

		if (pwrite(fd, bytes, length, (off_t)at) != (ssize_t)length)
			return errno;
		if (i % 16 == 0)
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	return close(fd) == 0 ? 0 : errno;
}

/* Each one's reply waits for a page that may be locked until the other one is answered. */
static void write_crosswise(int flags, int other_flags)
{
	struct fs_scene scene = fs_scene_new();
	const int64_t count = (int64_t)scaled(400);
	struct access access[4] = {
	    {.path = scene.file[0], .flags = flags, .length = (size_t)count},
	    {.path = scene.file[FS_TWIN], .flags = other_flags, .length = (size_t)count},
	    {.path = scene.file[0], .flags = other_flags, .length = (size_t)count},
	    {.path = scene.file[FS_TWIN], .flags = flags, .length = (size_t)count},
	};
	pid_t pids[4];

	for (unsigned i = 0; i < 4; i++)
		pids[i] = call_start(0, write_parts, &access[i]);
	for (unsigned i = 0; i < 4; i++) {
		int result = call_end(pids[i], 60);

		if (result < 0)
			fs_scene_break(&scene);
		cr_assert_eq(result, 0, "writer %u: %d", i, result);
	}
	must_come_to_none(&scene, OUTSTANDING);
	fs_scene_end(&scene);
}

Test(safety_22, buffered_writes_crosswise_end)
{
	write_crosswise(0, 0);
}

Test(safety_22, buffered_and_direct_writes_crosswise_end)
{
	write_crosswise(0, O_DIRECT);
}

/* ---- what the kernel does to pages by itself ---- */

enum { BURSTS = 500, BURST = 3 };

static int burst(void *data)
{
	const struct access *access = data;
	int fd = open(access->path, O_RDWR | access->flags | O_CLOEXEC);
	char bytes[PAGE];

	memset(bytes, (int)access->offset, PAGE);
	bool ok = fd >= 0;
	for (unsigned i = 0; ok && i < BURST; i++) {
		if (access->flags == O_DIRECT)
			ok = pwrite(fd, bytes, 700, 0) == 700;
		else if (access->length == 0)
			ok = pread(fd, bytes, PAGE, 0) == PAGE;
		else
			ok = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 300) ==
			     0;
	}
	return !ok;
}

struct views {
	int direct, buffered[2];
};

static bool views_agree(void *data)
{
	const struct views *views = data;
	g_autofree unsigned char *is = page_new(1), *seen = page_new(2);
	bool agree = pread(views->direct, is, PAGE, 0) == PAGE;

	for (unsigned i = 0; i < 2; i++) {
		agree &= pread(views->buffered[i], seen, PAGE, 0) == PAGE;
		agree &= memcmp(is, seen, PAGE) == 0;
	}
	return agree;
}

/* It zeroes parts of pages after the answer, when another file's write has come and gone. */
Test(safety_22, in_the_end_a_hole_is_where_the_last_write_left_it)
{
	struct fs_scene scene = fs_scene_new();
	struct views views = {must_open(scene.file[0], O_RDWR | O_DIRECT),
	    {must_open(scene.file[0], O_RDONLY), must_open(scene.file[FS_TWIN], O_RDONLY)}};
	unsigned late = 0;

	for (unsigned i = 1; i <= scaled(BURSTS); i++) {
		struct access access[] = {
		    {.path = scene.file[0], .flags = O_DIRECT, .offset = i},
		    {.path = scene.file[FS_TWIN], .length = 1},
		    {.path = scene.file[FS_TWIN]},
		};
		pid_t pids[3];

		for (unsigned k = 0; k < 3; k++)
			pids[k] = call_start(0, burst, &access[k]);
		for (unsigned k = 0; k < 3; k++)
			cr_assert_eq(call_end(pids[k], 20), 0);
		late += !views_agree(&views);
		cr_assert(await(3, views_agree, &views), "burst %u", i);
	}
	if (late > 0)
		fprintf(stderr, "%u times a page was stale at first\n", late);
	close(views.direct);
	close(views.buffered[0]);
	close(views.buffered[1]);
	fs_scene_end(&scene);
}
