/*
 * test_fs_events.c - a file on a real mount, above blocks made of memory that tell of events, and
 * that keep their requests for as long as the test likes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/fs_scene.h"

TestSuite(fs_events, .timeout = 120);

/* READs of a file hold no more memory than this (request.c). */
#define READ_MEMORY MIB(32)

/* ---- sizes ---- */

Test(fs_events, an_open_handle_sees_the_disk_grow)
{
	struct fs_scene scene = fs_scene_new();
	int buffered = must_open(scene.file[0], O_RDWR);
	int direct = must_open(scene.file[0], O_RDWR | O_DIRECT);

	must_come_to_have(buffered, SIZE);
	cr_assert_eq(read_byte(buffered, SIZE), -1);
	cr_assert_eq(read_byte(direct, SIZE), -1);
	cr_assert_eq(write_page(buffered, SIZE, 1), ENOSPC);
	tell(&scene, FILL, 0, 7);
	tell(&scene, RESIZE, 0, 2 * SIZE);
	/* without a stat() before */
	must_come_to_read(buffered, SIZE, 7);
	must_come_to_read(direct, 2 * SIZE - PAGE, 7);
	must_come_to_have(buffered, 2 * SIZE);
	must_come_to_have(direct, 2 * SIZE);
	cr_assert_eq(write_page(buffered, 2 * SIZE - PAGE, 8), 0);
	cr_assert_eq(write_page(direct, SIZE + PAGE, 9), 0);
	cr_assert_eq(fsync(buffered), 0);
	cr_assert_eq(read_byte(direct, 2 * SIZE - PAGE), 8);
	cr_assert_eq(read_byte(buffered, SIZE + PAGE), 9);
	cr_assert_eq(read_byte(buffered, 2 * SIZE), -1);
	cr_assert_eq(write_page(direct, 2 * SIZE, 1), ENOSPC);
	close(buffered);
	close(direct);
	fs_scene_end(&scene);
}

Test(fs_events, a_mapping_reaches_into_what_has_grown)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[0], O_RDWR);
	unsigned char *map = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	cr_assert(map != MAP_FAILED);
	cr_assert_eq(map[0], 0);
	tell(&scene, FILL, 0, 7);
	tell(&scene, RESIZE, 0, 2 * SIZE);
	/* A stat() that crosses the news shows the new size, but the kernel does not keep it. */
	g_usleep(200000);
	must_come_to_have(fd, 2 * SIZE);
	cr_assert_eq(map[SIZE + 5], 7);
	map[SIZE + 5] = 8;
	cr_assert_eq(msync(map, 2 * SIZE, MS_SYNC), 0);
	munmap(map, 2 * SIZE);
	close(fd);
	fd = must_open(scene.file[0], O_RDONLY | O_DIRECT);
	g_autofree unsigned char *page = page_new(0);
	cr_assert_eq(pread(fd, page, PAGE, SIZE), PAGE);
	cr_assert_eq(page[4], 7);
	cr_assert_eq(page[5], 8);
	close(fd);
	fs_scene_end(&scene);
}

/* The kernel has the rest of the page that the old end lay in, as zeros. */
Test(fs_events, the_page_of_the_old_end_has_new_content_when_the_disk_has_grown)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[0], O_RDWR);

	tell(&scene, FILL, 0, 7);
	tell(&scene, RESIZE, 0, SIZE - PAGE + 512);
	must_come_to_have(fd, SIZE - PAGE + 512);
	cr_assert_eq(read_byte(fd, SIZE - PAGE), 7);
	cr_assert_eq(read_byte(fd, SIZE - PAGE + 512), -1);
	tell(&scene, RESIZE, 0, SIZE);
	must_come_to_read(fd, SIZE - PAGE + 512, 7);
	close(fd);
	fs_scene_end(&scene);
}

Test(fs_events, an_open_handle_sees_the_disk_shrink)
{
	struct fs_scene scene = fs_scene_new();
	int buffered = must_open(scene.file[0], O_RDWR);
	int direct = must_open(scene.file[0], O_RDWR | O_DIRECT);
	const uint64_t less = SIZE / 2 + 512;
	g_autofree unsigned char *page = page_new(0);

	tell(&scene, FILL, 0, 7);
	for (uint64_t offset = 0; offset < SIZE; offset += PAGE)
		cr_assert_eq(read_byte(buffered, offset), 7);
	tell(&scene, RESIZE, 0, less);
	/* without a stat() before */
	must_come_to_read(buffered, SIZE - PAGE, -1);
	must_come_to_read(direct, SIZE - PAGE, -1);
	must_come_to_have(buffered, less);
	cr_assert_eq(pread(buffered, page, PAGE, (off_t)SIZE / 2), 512);
	cr_assert_eq(pread(direct, page, PAGE, (off_t)SIZE / 2), 512);
	cr_assert_eq(read_byte(buffered, less), -1);
	cr_assert_eq(write_page(buffered, less, 1), ENOSPC);
	cr_assert_eq(write_page(direct, SIZE / 2 + PAGE, 1), ENOSPC);
	cr_assert_eq(ftruncate(buffered, SIZE), -1);
	cr_assert_eq(errno, ENOSPC);

	/* and grown again, it has what it has then */
	tell(&scene, FILL, 0, 8);
	tell(&scene, RESIZE, 0, SIZE);
	must_come_to_have(buffered, SIZE);
	for (uint64_t offset = SIZE / 2 + PAGE; offset < SIZE; offset += PAGE)
		must_come_to_read(buffered, offset, 8);
	must_come_to_read(buffered, less, 8);
	close(buffered);
	close(direct);
	fs_scene_end(&scene);
}

/* A write beyond the mark zeroes from there on. */
Test(fs_events, a_handle_that_truncated_goes_on_from_the_end_of_a_disk_that_shrank)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[0], O_RDWR);

	cr_assert_eq(ftruncate(fd, (off_t)SIZE - PAGE), 0);
	tell(&scene, RESIZE, 0, SIZE / 2);
	must_come_to_have(fd, SIZE / 2);
	tell(&scene, FILL, 0, 7);
	tell(&scene, RESIZE, 0, SIZE);
	must_come_to_have(fd, SIZE);
	cr_assert_eq(write_page(fd, SIZE - PAGE, 8), 0);
	must_come_to_read(fd, SIZE / 2, 0);
	cr_assert_eq(read_byte(fd, SIZE - 2 * PAGE), 0);
	cr_assert_eq(read_byte(fd, SIZE / 2 - PAGE), 7);
	close(fd);
	fs_scene_end(&scene);
}

/* More than what may be at work. */
#define READERS (READ_MEMORY / SIZE + 8)

static void start_readers(const struct fs_scene *scene, pid_t *pids)
{
	struct access access = {
	    .path = scene->file[0], .flags = O_DIRECT, .offset = 0, .length = SIZE};

	for (unsigned i = 0; i < READERS; i++)
		pids[i] = call_start(0, read_there, &access);
	must_come_to_say(scene, OUTSTANDING, READERS);
	cr_assert_eq(tell(scene, IN_FLIGHT, 0, 0), READ_MEMORY / SIZE);
}

Test(fs_events, reads_that_wait_while_the_disk_shrinks_end_at_its_end)
{
	struct fs_scene scene = fs_scene_new();
	pid_t pids[READERS], beyond;
	struct access access = {
	    .path = scene.file[0], .flags = O_DIRECT, .offset = SIZE - PAGE, .length = PAGE};

	tell(&scene, HOLD, 0, true);
	start_readers(&scene, pids);
	beyond = call_start(0, read_there, &access);
	must_come_to_say(&scene, OUTSTANDING, READERS + 1);
	tell(&scene, RESIZE, 0, SIZE / 2);
	tell(&scene, HOLD, 0, false);
	for (unsigned i = 0; i < READERS; i++)
		cr_assert_eq(call_end(pids[i], 10), 0);
	cr_assert_eq(call_end(beyond, 10), 255);
	fs_scene_end(&scene);
}

/* ---- content ---- */

Test(fs_events, changed_drops_what_the_kernel_has_and_lost_does_not)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[0], O_RDONLY);

	tell(&scene, FILL, 0, 7);
	for (uint64_t offset = 0; offset < SIZE; offset += PAGE)
		cr_assert_eq(read_byte(fd, offset), 7);
	int64_t reads = tell(&scene, READS, 0, 0);
	tell(&scene, FILL, 0, 8);
	tell(&scene, RAISE, 0, BLOCK_LOST);
	g_usleep(200000);
	for (uint64_t offset = 0; offset < SIZE; offset += PAGE)
		cr_assert_eq(read_byte(fd, offset), 7);
	cr_assert_eq(tell(&scene, READS, 0, 0), reads);
	tell(&scene, RAISE, 0, BLOCK_CHANGED);
	for (uint64_t offset = 0; offset < SIZE; offset += PAGE)
		must_come_to_read(fd, offset, 8);
	close(fd);
	fs_scene_end(&scene);
}

Test(fs_events, each_handle_hears_once_of_what_was_forgotten_and_none_of_what_was_lost)
{
	struct fs_scene scene = fs_scene_new();
	int one = must_open(scene.file[0], O_RDWR), other = must_open(scene.file[0], O_RDWR);

	cr_assert_eq(write_page(one, 0, 1), 0);
	tell(&scene, RAISE, 0, BLOCK_LOST);
	cr_assert_eq(fsync(one), 0);
	tell(&scene, RAISE, 0, BLOCK_FORGOTTEN);
	cr_assert_eq(fsync(one), 0, "nothing was unflushed");
	cr_assert_eq(write_page(one, 0, 2), 0);
	tell(&scene, RAISE, 0, BLOCK_FORGOTTEN);
	cr_assert_eq(fsync(one), -1);
	cr_assert_eq(errno, EIO);
	int late = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(fsync(one), 0);
	cr_assert_eq(close(other), -1);
	cr_assert_eq(errno, EIO);
	cr_assert_eq(fsync(late), 0);
	close(one);
	close(late);
	fs_scene_end(&scene);
}

/* ---- one dead disk ---- */

Test(fs_events, readers_of_a_dead_disk_do_not_stop_those_of_another)
{
	struct fs_scene scene = fs_scene_new();
	pid_t pids[READERS];
	struct access other = {
	    .path = scene.file[1], .flags = O_DIRECT, .offset = 0, .length = SIZE};

	tell(&scene, HOLD, 0, true);
	start_readers(&scene, pids);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(call_end(call_start(0, read_there, &other), 3), 0);
	tell(&scene, HOLD, 0, false);
	for (unsigned i = 0; i < READERS; i++)
		cr_assert_eq(call_end(pids[i], 10), 0);
	fs_scene_end(&scene);
}

/* To open it for direct I/O drops its pages, and one of them is locked by a READ. */
Test(fs_events, pages_of_a_dead_disk_do_not_hold_up_those_of_another)
{
	struct fs_scene scene = fs_scene_new();
	struct access buffered = {.path = scene.file[0], .offset = SIZE / 2, .length = PAGE};
	struct access direct = {.path = scene.file[0], .flags = O_DIRECT, .length = PAGE};
	struct access other = {.path = scene.file[1], .flags = O_DIRECT};
	int fd = must_open(scene.file[1], O_RDONLY);

	cr_assert_eq(
	    call_as(0, read_there, &(struct access){.path = scene.file[0], .length = PAGE}), 0);
	cr_assert_eq(read_byte(fd, 0), 0);
	tell(&scene, HOLD, 0, true);
	pid_t reader = call_start(0, read_there, &buffered);
	must_come_to_say(&scene, IN_FLIGHT, 1);
	/* the reader has it open, so the drop is that of an open() when it has gone: of a change */
	tell(&scene, RAISE, 0, BLOCK_CHANGED);
	g_usleep(100000);
	cr_assert_eq(call_end(call_start(0, write_there, &other), 3), 0);
	cr_assert_eq(read_byte(fd, 0), 9);
	tell(&scene, HOLD, 0, false);
	cr_assert_eq(call_end(reader, 10), 0);
	cr_assert_eq(call_as(0, read_there, &direct), 0);
	close(fd);
	fs_scene_end(&scene);
}

/* ---- requests that are given up ---- */

Test(fs_events, killed_readers_are_gone_at_once_and_their_reads_when_they_end)
{
	struct fs_scene scene = fs_scene_new();
	pid_t pids[READERS];

	tell(&scene, HOLD, 0, true);
	start_readers(&scene, pids);
	for (unsigned i = 0; i < READERS; i++) {
		kill(pids[i], SIGKILL);
		cr_assert_eq(call_end(pids[i], 3), 128 + SIGKILL);
	}
	cr_assert_eq(tell(&scene, OUTSTANDING, 0, 0), READ_MEMORY / SIZE,
	    "what was not sent is still there");
	tell(&scene, HOLD, 0, false);
	must_come_to_none(&scene, OUTSTANDING);
	cr_assert_eq(tell(&scene, READS, 0, 0), READ_MEMORY / SIZE);
	fs_scene_end(&scene);
}

/* Its name is what a careless reader of /proc/PID/stat stumbles on. */
static int write_and_wait(void *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	prctl(PR_SET_NAME, "a) R 0 (b");
	if (write_page(fd, 0, 9) != 0)
		return 1;
	raise(SIGSTOP);
	for (;;)
		pause();
}

Test(fs_events, the_close_at_the_end_of_an_interrupted_process_does_not_wait)
{
	struct fs_scene scene = fs_scene_new();
	pid_t pid = call_start(0, write_and_wait, scene.file[0]);

	cr_assert_eq(waitpid(pid, NULL, WUNTRACED), pid);
	tell(&scene, HOLD, 0, true);
	kill(pid, SIGCONT);
	double began = seconds_now();
	kill(pid, SIGINT);
	cr_assert_eq(call_end(pid, 5), 128 + SIGINT);
	cr_assert_lt(seconds_now() - began, patience(0.7), "it took %.2f s", seconds_now() - began);
	tell(&scene, HOLD, 0, false);
	fs_scene_end(&scene);
}

/* The zeros up to the write wait for a READ, and so they are never sent. */
Test(fs_events, zeros_that_an_interrupted_write_owed_come_with_the_next)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[0], O_RDWR | O_DIRECT);
	struct access read = {.path = scene.file[0], .flags = O_DIRECT, .length = PAGE};
	struct access write = {.fd = fd, .offset = (uint64_t)PAGE * 2};

	tell(&scene, FILL, 0, 7);
	cr_assert_eq(ftruncate(fd, 0), 0);
	tell(&scene, HOLD, 0, true);
	pid_t reader = call_start(0, read_there, &read);
	must_come_to_say(&scene, OUTSTANDING, 1);
	pid_t writer = call_start(0, write_there, &write);
	must_come_to_say(&scene, OUTSTANDING, 2);
	kill(writer, SIGKILL);
	cr_assert_eq(call_end(writer, 3), 128 + SIGKILL);
	tell(&scene, HOLD, 0, false);
	cr_assert_eq(call_end(reader, 3), 0);
	cr_assert_eq(write_page(fd, (uint64_t)PAGE * 2, 8), 0);
	cr_assert_eq(read_byte(fd, 0), 0);
	cr_assert_eq(read_byte(fd, PAGE), 0);
	cr_assert_eq(read_byte(fd, (uint64_t)PAGE * 2), 8);
	close(fd);
	fs_scene_end(&scene);
}

Test(fs_events, a_flush_of_all_waits_for_a_write_that_nobody_waits_for)
{
	struct fs_scene scene = fs_scene_new();
	struct access write = {.path = scene.file[0], .flags = O_DIRECT};

	tell(&scene, HOLD, 0, true);
	pid_t writer = call_start(0, write_there, &write);
	must_come_to_say(&scene, IN_FLIGHT, 1);
	kill(writer, SIGKILL);
	cr_assert_eq(call_end(writer, 3), 128 + SIGKILL);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 1);
	say(&scene, FLUSH_ALL, 0, 0);
	g_usleep(100000);
	say(&scene, HOLD, 0, false);
	cr_assert_eq(heard(&scene), 0);
	cr_assert_eq(heard(&scene), 0);
	/* it does not know of that write that it was done before the flush */
	cr_assert_eq(tell(&scene, FLUSH_ALL, 0, 0), 0);
	cr_assert_eq(tell(&scene, UNFLUSHED, 0, 0), 0);
	fs_scene_end(&scene);
}

/* ---- abort ---- */

static int sync_and_close(void *data)
{
	int fd = *(int *)data;

	return fsync(fd) == 0 ? 0 : errno;
}

Test(fs_events, after_an_abort_nobody_waits)
{
	struct fs_scene scene = fs_scene_new();
	int fd = must_open(scene.file[0], O_RDWR), reading = must_open(scene.file[0], O_RDONLY);
	int clean = must_open(scene.file[2], O_RDWR);
	pid_t pids[READERS];
	struct access direct = {.path = scene.file[1], .flags = O_DIRECT};

	cr_assert_eq(fsync(clean), 0);
	cr_assert_eq(write_page(fd, SIZE - PAGE, 1), 0);
	tell(&scene, HOLD, 0, true);
	tell(&scene, HOLD, 1, true);
	start_readers(&scene, pids);
	/* on another disk: the kernel holds one of them back for the other */
	pid_t writer = call_start(0, write_there, &direct);
	pid_t syncer = call_start(0, sync_and_close, &fd);
	must_come_to_say(&scene, OUTSTANDING, READERS + 2);
	tell(&scene, ABORT, 0, 0);
	for (unsigned i = 0; i < READERS; i++)
		cr_assert_eq(call_end(pids[i], 3), EIO);
	cr_assert_eq(call_end(writer, 3), EIO);
	cr_assert_eq(call_end(syncer, 3), EIO);

	double began = seconds_now();
	cr_assert_eq(read_byte(clean, 0), -1000 - EIO);
	cr_assert_eq(read_byte(clean, SIZE), -1);
	cr_assert_eq(write_page(clean, 0, 1), EIO);
	cr_assert_eq(fallocate(clean, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), -1);
	cr_assert_eq(errno, EIO);
	cr_assert_eq(ftruncate(clean, 0), 0, "needs no target");
	cr_assert_eq(ftruncate(clean, PAGE), -1, "has zeros to write");
	cr_assert_eq(errno, EIO);
	cr_assert_eq(fsync(clean), 0, "has nothing to say");
	cr_assert_eq(close(clean), 0);
	cr_assert_eq(fsync(fd), -1);
	cr_assert_eq(errno, EIO);
	cr_assert_eq(close(fd), -1);
	cr_assert_eq(errno, EIO);
	cr_assert_eq(close(reading), 0);
	cr_assert_eq(access(scene.file[0], R_OK), 0);
	cr_assert_lt(seconds_now() - began, patience(1));
	tell(&scene, HOLD, 0, false);
	tell(&scene, HOLD, 1, false);
	must_come_to_none(&scene, OUTSTANDING);
	fs_scene_end(&scene);
}
