/*
 * test_fs_frames.c - WRITEs on a real mount arrive in frames: few of them, or scattered ones.
 *
 * A child serves the mount above a block made of memory; the test tells it by a socket what to do.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lunfs/frames.h"
#include "lunfs/fs.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "support/memory_block.h"
#include "support/stage.h"

TestSuite(fs_frames, .timeout = 120);

enum { WRITERS = 5 };

#define SIZE MIB(8)

/* ---- the child ---- */

enum verb { HOLD, IN_FLIGHT, RUNS, TICKS, END };

struct order {
	enum verb verb;
	int64_t value;
};

struct server {
	const char *mnt;
	int socket;
	size_t frames_size;
	bool scattered; /* every other frame is taken */
	struct loop *loop;
	struct fs *fs;
	struct memory_block *memory;
};

static void server_answer(struct server *server, int64_t answer)
{
	if (write(server->socket, &answer, sizeof answer) != sizeof answer)
		_exit(1);
}

/* Milliseconds of the processor. */
static int64_t ticks(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static int64_t server_obey(struct server *server, const struct order *order)
{
	switch (order->verb) {
	case HOLD:
		memory_block_hold(server->memory, order->value);
		return 0;
	case IN_FLIGHT:
		return memory_block_in_flight(server->memory);
	case RUNS:
		return memory_block_peek(server->memory, 0)->niov;
	case TICKS:
		return ticks();
	default:
		loop_quit(server->loop);
		return 0;
	}
}

static void server_ordered(int fd, GIOCondition condition, void *data)
{
	struct server *server = data;
	struct order order;

	(void)condition;
	if (read(fd, &order, sizeof order) != sizeof order)
		_exit(1);
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

/* Every other frame is somebody's: the first is returned. */
static uint8_t *scatter(struct frames *frames, size_t size)
{
	uint8_t *run;

	if (frames_get(frames, (unsigned)(size / FRAME_SIZE), &run) != size / FRAME_SIZE)
		_exit(1);
	for (size_t at = 0; at < size; at += (size_t)2 * FRAME_SIZE)
		frames_release(frames, run + at, FRAME_SIZE);
	return run + FRAME_SIZE;
}

static int serve(void *data)
{
	struct server *server = data;
	const struct fs_options options = {
	    .mountpoint = server->mnt, .source = "memory", .umask = 077};
	struct pool *pool = pool_new(MIB(1));
	struct frames *frames = frames_new(server->frames_size, 0);
	uint8_t *scattered = server->scattered ? scatter(frames, server->frames_size) : NULL;

	alarm(100); /* a test that fails waits, at its exit, for files that it has open */
	server->loop = loop_new();
	server->fs =
	    fs_new(server->loop, pool, frames, &options, server_ready, server_unmounted, server);
	server->memory = memory_block_new(server->loop, SIZE, 512);
	struct block *top = align_new(&server->memory->block, server->loop, pool);
	fs_add_disk(server->fs, fs_root(server->fs), "lun0.img", "lun0", top, false,
	    (const char *const[]){NULL});
	GSource *watch =
	    loop_watch(server->loop, server->socket, G_IO_IN, server_ordered, server, NULL);
	if (!fs_mount(server->fs, NULL))
		return 2;
	loop_run(server->loop);
	loop_remove(&watch);
	while (fs_outstanding(server->fs) > 0)
		g_main_context_iteration(loop_context(server->loop), TRUE);
	fs_free(server->fs);
	block_free(top);
	for (size_t at = 0; scattered && at < server->frames_size; at += (size_t)2 * FRAME_SIZE)
		frames_release(frames, scattered + at, FRAME_SIZE);
	bool leaks = pool_in_use(pool) != 0 || frames_in_use(frames) != 0;
	frames_free(frames);
	pool_free(pool);
	loop_free(server->loop);
	return leaks ? 3 : 0;
}

/* ---- the test's side ---- */

struct scene {
	char *file;
	int socket, fd;
	pid_t pid;
};

static int64_t tell(const struct scene *scene, enum verb verb, int64_t value)
{
	const struct order order = {.verb = verb, .value = value};
	int64_t answer;

	cr_assert_eq(write(scene->socket, &order, sizeof order), (ssize_t)sizeof order);
	cr_assert_eq(read(scene->socket, &answer, sizeof answer), (ssize_t)sizeof answer,
	    "the server is gone");
	return answer;
}

static struct scene scene_new(size_t frames_size, bool scattered)
{
	/* Never freed, and so never to be lost. */
	static struct stage *volatile kept G_GNUC_UNUSED;
	struct stage *stage = kept = stage_new();
	struct server server = {.mnt = stage_directory(stage, "mnt", 0),
	    .frames_size = frames_size,
	    .scattered = scattered};
	struct scene scene = {.file = text(stage, "%s/lun0.img", server.mnt)};
	int64_t ready;
	int sockets[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	server.socket = sockets[1];
	scene.pid = call_start(0, serve, &server);
	close(sockets[1]);
	scene.socket = sockets[0];
	cr_assert_eq(read(scene.socket, &ready, sizeof ready), (ssize_t)sizeof ready);
	scene.fd = open(scene.file, O_RDWR | O_DIRECT | O_CLOEXEC);
	cr_assert_geq(scene.fd, 0, "%s", strerror(errno));
	return scene;
}

static void scene_end(struct scene *scene)
{
	close(scene->fd);
	tell(scene, END, 0);
	cr_assert_eq(call_end(scene->pid, 10), 0, "the server did not end well");
}

static uint8_t *aligned_new(size_t length)
{
	return aligned_alloc(FRAME_SIZE, (length + FRAME_SIZE - 1) / FRAME_SIZE * FRAME_SIZE);
}

/* Bytes that tell where they belong. */
static uint8_t *pattern_new(uint64_t offset, size_t length)
{
	uint8_t *data = aligned_new(length);

	for (size_t i = 0; i < length; i += sizeof(uint64_t)) {
		uint64_t value = (offset + i) * 0x9e3779b97f4a7c15u;
		memcpy(data + i, &value, sizeof value);
	}
	return data;
}

struct writer {
	const struct scene *scene;
	uint64_t offset;
	size_t length;
};

static int write_pattern(void *data)
{
	const struct writer *writer = data;
	uint8_t *pattern = pattern_new(writer->offset, writer->length);
	ssize_t n = pwrite(writer->scene->fd, pattern, writer->length, (off_t)writer->offset);

	free(pattern);
	return n != (ssize_t)writer->length;
}

static void must_read_as_pattern(const struct scene *scene, uint64_t offset, size_t length)
{
	g_autofree uint8_t *pattern = pattern_new(offset, length);
	g_autofree uint8_t *data = aligned_new(length);

	cr_assert_eq(pread(scene->fd, data, length, (off_t)offset), (ssize_t)length);
	for (size_t i = 0; i < length; i++)
		cr_assert_eq(data[i], pattern[i], "byte %zu", i);
}

static bool all_but_one_are_in_flight(void *data)
{
	return tell(data, IN_FLIGHT, 0) == WRITERS - 1;
}

Test(fs_frames, a_write_is_in_one_run_where_there_are_whole_ones)
{
	struct scene scene = scene_new(MIB(8), false);
	struct writer writer = {&scene, 0, MIB(1)};

	tell(&scene, HOLD, true);
	pid_t pid = call_start(0, write_pattern, &writer);
	while (tell(&scene, IN_FLIGHT, 0) == 0)
		g_usleep(1000);
	cr_assert_eq(tell(&scene, RUNS, 0), 1);
	tell(&scene, HOLD, false);
	cr_assert_eq(call_end(pid, 10), 0);
	must_read_as_pattern(&scene, 0, MIB(1));
	scene_end(&scene);
}

Test(fs_frames, writes_of_any_size_arrive_in_scattered_frames)
{
	struct scene scene = scene_new(MIB(4), true); /* 512 single ones */
	static const size_t lengths[] = {512, 4096, 5120, 65536, 1 << 20, 999936, 1536, 1 << 20};
	uint64_t offset = 0;

	for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
		struct writer writer = {&scene, offset, lengths[i]};
		cr_assert_eq(write_pattern(&writer), 0, "%s", strerror(errno));
		must_read_as_pattern(&scene, offset, lengths[i]);
		offset += lengths[i];
	}
	must_read_as_pattern(&scene, 0, offset);
	scene_end(&scene);
}

Test(fs_frames, requests_that_are_longer_than_the_headers_of_a_write_arrive_whole)
{
	struct scene scene = scene_new(MIB(2), false);
	struct stat status;
	char name[256];

	memset(name, 'x', 255);
	name[255] = '\0';
	g_autofree char *path = g_strdup_printf("%s.%s", scene.file, name + 20);
	cr_assert_eq(stat(path, &status), -1);
	cr_assert_eq(errno, ENOENT);
	cr_assert_eq(chmod(scene.file, 0640), 0);
	cr_assert_eq(stat(scene.file, &status), 0);
	cr_assert_eq(status.st_mode & 0777, 0640);
	scene_end(&scene);
}

Test(safety_19, without_frames_requests_wait_in_the_kernel_and_none_is_lost)
{
	struct scene scene = scene_new(MIB(WRITERS - 1), false);
	struct writer writers[WRITERS];
	pid_t pids[WRITERS];

	tell(&scene, HOLD, true);
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){&scene, MIB(i), MIB(1)};
		pids[i] = call_start(0, write_pattern, &writers[i]);
	}
	cr_assert(await(10, all_but_one_are_in_flight, &scene));
	int64_t before = tell(&scene, TICKS, 0);
	g_usleep(500000);
	cr_assert_eq(tell(&scene, IN_FLIGHT, 0), WRITERS - 1);
	cr_assert_lt(tell(&scene, TICKS, 0) - before, 250, "it spins");
	tell(&scene, HOLD, false);
	for (unsigned i = 0; i < WRITERS; i++)
		cr_assert_eq(call_end(pids[i], 10), 0);
	must_read_as_pattern(&scene, 0, MIB(WRITERS));
	scene_end(&scene);
}
