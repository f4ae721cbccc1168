/*
 * test_fs_events.c - a file on a real mount, above blocks made of memory that tell of events, and
 * that keep their requests for as long as the test likes.
 *
 * A child serves the mount; the test tells it by a socket what is to happen below.
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lunfs/fs.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "support/memory_block.h"
#include "support/stage.h"

TestSuite(fs_events, .timeout = 120);

#define DISKS    3u
#define PAGE     4096u
#define SIZE     MIB(1) /* at first */
#define MAX_SIZE MIB(4)
/* READs of a file hold no more memory than this (request.c). */
#define READ_MEMORY MIB(32)

/* ---- the child ---- */

enum verb {
	RAISE,
	RESIZE,
	FILL,
	HOLD,
	READS,
	IN_FLIGHT,
	OUTSTANDING,
	UNFLUSHED,
	FLUSH_ALL,
	ABORT,
	END
};

struct order {
	enum verb verb;
	unsigned disk;
	uint64_t value;
};

struct server {
	const char *mnt;
	int socket;
	struct loop *loop;
	struct pool *pool;
	struct fs *fs;
	struct memory_block *memory[DISKS];
	struct block *top[DISKS];
};

static void server_answer(struct server *server, int64_t answer)
{
	if (write(server->socket, &answer, sizeof answer) != sizeof answer)
		_exit(1);
}

static void server_flushed(int error, void *data)
{
	server_answer(data, error);
}

/* What it says of the disk, after it has done it. */
static int64_t server_obey(struct server *server, const struct order *order)
{
	struct memory_block *memory = server->memory[order->disk];

	switch (order->verb) {
	case RAISE:
		block_raise(&memory->block, (enum block_event)order->value);
		return 0;
	case RESIZE:
		memory->block.size = order->value;
		block_raise(&memory->block, BLOCK_RESIZED);
		return 0;
	case FILL:
		memset(memory->content, (int)order->value, MAX_SIZE);
		return 0;
	case HOLD:
		memory_block_hold(memory, order->value);
		return 0;
	case READS:
		return memory_block_count(memory, IO_READ);
	case IN_FLIGHT:
		return memory_block_in_flight(memory);
	case OUTSTANDING:
		return fs_outstanding(server->fs);
	case UNFLUSHED:
		return fs_is_unflushed(server->fs);
	case ABORT:
		fs_abort(server->fs);
		return 0;
	case END:
		loop_quit(server->loop);
		return 0;
	default:
		return -1;
	}
}

static void server_ordered(int fd, GIOCondition condition, void *data)
{
	struct server *server = data;
	struct order order;

	(void)condition;
	if (read(fd, &order, sizeof order) != sizeof order)
		_exit(1);
	if (order.verb == FLUSH_ALL)
		fs_flush_all(server->fs, NULL, server_flushed, server);
	else
		server_answer(server, server_obey(server, &order));
}

static void server_ready(void *data)
{
	server_answer(data, 0);
}

static void server_unmounted(void *data)
{
	(void)data;
}

static void server_add_disk(struct server *server, unsigned i)
{
	g_autofree char *name = g_strdup_printf("lun%u.img", i);
	const char *const attributes[] = {NULL};

	server->memory[i] = memory_block_new(server->loop, MAX_SIZE, 512);
	server->memory[i]->block.size = SIZE;
	server->top[i] = align_new(&server->memory[i]->block, server->loop, server->pool);
	fs_add_disk(server->fs, fs_root(server->fs), name, name, server->top[i], false, attributes);
}

static int serve(void *data)
{
	struct server *server = data;
	const struct fs_options options = {
	    .mountpoint = server->mnt, .source = "memory", .umask = 077};

	alarm(100); /* a test that fails waits, at its exit, for files that it has open */
	server->loop = loop_new();
	server->pool = pool_new(MIB(1));
	server->fs =
	    fs_new(server->loop, server->pool, &options, server_ready, server_unmounted, server);
	for (unsigned i = 0; i < DISKS; i++)
		server_add_disk(server, i);
	GSource *watch =
	    loop_watch(server->loop, server->socket, G_IO_IN, server_ordered, server, NULL);
	if (!fs_mount(server->fs, NULL))
		return 2;
	loop_run(server->loop);
	loop_remove(&watch);
	while (fs_outstanding(server->fs) > 0)
		g_main_context_iteration(loop_context(server->loop), TRUE);
	fs_free(server->fs);
	for (unsigned i = 0; i < DISKS; i++)
		block_free(server->top[i]);
	bool leaks = pool_in_use(server->pool) != 0;
	pool_free(server->pool);
	loop_free(server->loop);
	return leaks ? 3 : 0;
}

/* ---- the test's side ---- */

struct scene {
	struct stage *stage;
	char *file[DISKS];
	int socket;
	pid_t pid;
};

static int64_t heard(const struct scene *scene)
{
	int64_t answer;

	cr_assert_eq(read(scene->socket, &answer, sizeof answer), (ssize_t)sizeof answer,
	    "the server is gone");
	return answer;
}

static void say(const struct scene *scene, enum verb verb, unsigned disk, uint64_t value)
{
	const struct order order = {.verb = verb, .disk = disk, .value = value};

	cr_assert_eq(write(scene->socket, &order, sizeof order), (ssize_t)sizeof order);
}

static int64_t tell(const struct scene *scene, enum verb verb, unsigned disk, uint64_t value)
{
	say(scene, verb, disk, value);
	return heard(scene);
}

static struct scene scene_new(void)
{
	/* Never freed, and so never to be lost. */
	static struct stage *volatile kept G_GNUC_UNUSED;
	struct scene scene = {.stage = stage_new()};
	struct server server = {.mnt = stage_directory(scene.stage, "mnt", 0)};
	int sockets[2];

	kept = scene.stage;
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	server.socket = sockets[1];
	scene.pid = call_start(0, serve, &server);
	close(sockets[1]);
	scene.socket = sockets[0];
	heard(&scene);
	for (unsigned i = 0; i < DISKS; i++)
		scene.file[i] = text(scene.stage, "%s/lun%u.img", server.mnt, i);
	return scene;
}

static void scene_end(struct scene *scene)
{
	tell(scene, END, 0, 0);
	cr_assert_eq(call_end(scene->pid, 10), 0, "the server did not end well");
}

static int must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

static void *page_new(int byte)
{
	void *page = aligned_alloc(PAGE, PAGE);

	memset(page, byte, PAGE);
	return page;
}

/* A page's worth at an offset, and what it begins with: -1 is the end of the file, -errno an error.
 */
static int read_byte(int fd, uint64_t offset)
{
	g_autofree unsigned char *page = page_new(0x55);
	ssize_t n = pread(fd, page, PAGE, (off_t)offset);

	if (n < 0)
		return -1000 - errno;
	return n == 0 ? -1 : page[0];
}

static int write_page(int fd, uint64_t offset, int byte)
{
	g_autofree void *page = page_new(byte);

	return pwrite(fd, page, PAGE, (off_t)offset) == PAGE ? 0 : errno;
}

/* What comes to be, by and by: the kernel is told by another thread. */
struct expected {
	const struct scene *scene;
	int fd, byte;
	uint64_t offset, value;
	enum verb verb;
};

static bool reads_as_expected(void *data)
{
	const struct expected *expected = data;

	return read_byte(expected->fd, expected->offset) == expected->byte;
}

static void must_come_to_read(int fd, uint64_t offset, int byte)
{
	cr_assert(await(5, reads_as_expected,
	              &(struct expected){.fd = fd, .offset = offset, .byte = byte}),
	    "at %lu there is %d and not %d", (unsigned long)offset, read_byte(fd, offset), byte);
}

static bool has_size(void *data)
{
	const struct expected *expected = data;
	struct stat stat;

	return fstat(expected->fd, &stat) == 0 && (uint64_t)stat.st_size == expected->value &&
	       (uint64_t)stat.st_blocks == expected->value / 512;
}

static void must_come_to_have(int fd, uint64_t size)
{
	cr_assert(await(5, has_size, &(struct expected){.fd = fd, .value = size}),
	    "the size is not %lu", (unsigned long)size);
}

static bool says_at_least(void *data)
{
	const struct expected *expected = data;

	return tell(expected->scene, expected->verb, 0, 0) >= (int64_t)expected->value;
}

static void must_come_to_say(const struct scene *scene, enum verb verb, uint64_t at_least)
{
	cr_assert(await(10, says_at_least,
	    &(struct expected){.scene = scene, .verb = verb, .value = at_least}));
}

static bool says_none(void *data)
{
	const struct expected *expected = data;

	return tell(expected->scene, expected->verb, 0, 0) == 0;
}

static void must_come_to_none(const struct scene *scene, enum verb verb)
{
	cr_assert(await(5, says_none, &(struct expected){.scene = scene, .verb = verb}));
}

/* ---- sizes ---- */

Test(fs_events, an_open_handle_sees_the_disk_grow)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

Test(fs_events, a_mapping_reaches_into_what_has_grown)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

/* The kernel has the rest of the page that the old end lay in, as zeros. */
Test(fs_events, the_page_of_the_old_end_has_new_content_when_the_disk_has_grown)
{
	struct scene scene = scene_new();
	int fd = must_open(scene.file[0], O_RDWR);

	tell(&scene, FILL, 0, 7);
	tell(&scene, RESIZE, 0, SIZE - PAGE + 512);
	must_come_to_have(fd, SIZE - PAGE + 512);
	cr_assert_eq(read_byte(fd, SIZE - PAGE), 7);
	cr_assert_eq(read_byte(fd, SIZE - PAGE + 512), -1);
	tell(&scene, RESIZE, 0, SIZE);
	must_come_to_read(fd, SIZE - PAGE + 512, 7);
	close(fd);
	scene_end(&scene);
}

Test(fs_events, an_open_handle_sees_the_disk_shrink)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

/* A write beyond the mark zeroes from there on. */
Test(fs_events, a_handle_that_truncated_goes_on_from_the_end_of_a_disk_that_shrank)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

struct access {
	const char *path;
	int fd, flags;
	uint64_t offset;
	size_t length;
};

/* 0, an errno, or 255 for the end of the file. */
static int read_there(void *data)
{
	const struct access *access = data;
	int fd = open(access->path, O_RDONLY | access->flags | O_CLOEXEC);
	void *buffer = aligned_alloc(PAGE, access->length);
	ssize_t n = pread(fd, buffer, access->length, (off_t)access->offset);

	return n < 0 ? errno : n == 0 ? 255 : 0;
}

static int write_there(void *data)
{
	const struct access *access = data;
	int fd =
	    access->fd > 0 ? access->fd : open(access->path, O_WRONLY | access->flags | O_CLOEXEC);

	return write_page(fd, access->offset, 9);
}

/* More than what may be at work. */
#define READERS (READ_MEMORY / SIZE + 8)

static void start_readers(const struct scene *scene, pid_t *pids)
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
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

/* ---- content ---- */

Test(fs_events, changed_drops_what_the_kernel_has_and_lost_does_not)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

Test(fs_events, each_handle_hears_once_of_what_was_forgotten_and_none_of_what_was_lost)
{
	struct scene scene = scene_new();
	int one = must_open(scene.file[0], O_RDWR), other = must_open(scene.file[0], O_RDWR);

	cr_assert_eq(write_page(one, 0, 1), 0);
	tell(&scene, RAISE, 0, BLOCK_LOST);
	cr_assert_eq(fsync(one), 0);
	tell(&scene, RAISE, 0, BLOCK_FORGOTTEN);
	cr_assert_eq(fsync(one), 0, "nothing was unflushed");
	cr_assert_eq(write_page(one, 0, 2), 0);
	tell(&scene, RAISE, 0, BLOCK_FORGOTTEN);
	int late = must_open(scene.file[0], O_RDWR);
	cr_assert_eq(fsync(one), -1);
	cr_assert_eq(errno, EIO);
	cr_assert_eq(fsync(one), 0);
	cr_assert_eq(close(other), -1);
	cr_assert_eq(errno, EIO);
	cr_assert_eq(fsync(late), 0);
	close(one);
	close(late);
	scene_end(&scene);
}

/* ---- one dead disk ---- */

Test(fs_events, readers_of_a_dead_disk_do_not_stop_those_of_another)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

/* To open it for direct I/O drops its pages, and one of them is locked by a READ. */
Test(fs_events, pages_of_a_dead_disk_do_not_hold_up_those_of_another)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

/* ---- requests that are given up ---- */

Test(fs_events, killed_readers_are_gone_at_once_and_their_reads_when_they_end)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
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
	struct scene scene = scene_new();
	pid_t pid = call_start(0, write_and_wait, scene.file[0]);

	cr_assert_eq(waitpid(pid, NULL, WUNTRACED), pid);
	tell(&scene, HOLD, 0, true);
	kill(pid, SIGCONT);
	double began = seconds_now();
	kill(pid, SIGINT);
	cr_assert_eq(call_end(pid, 5), 128 + SIGINT);
	cr_assert_lt(seconds_now() - began, patience(0.7), "it took %.2f s", seconds_now() - began);
	tell(&scene, HOLD, 0, false);
	scene_end(&scene);
}

/* The zeros up to the write wait for a READ, and so they are never sent. */
Test(fs_events, zeros_that_an_interrupted_write_owed_come_with_the_next)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

Test(fs_events, a_flush_of_all_waits_for_a_write_that_nobody_waits_for)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}

/* ---- abort ---- */

static int sync_and_close(void *data)
{
	int fd = *(int *)data;

	return fsync(fd) == 0 ? 0 : errno;
}

Test(fs_events, after_an_abort_nobody_waits)
{
	struct scene scene = scene_new();
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
	scene_end(&scene);
}
