/*
 * fs_scene.c - see fs_scene.h.
 */
#include "support/fs_scene.h"
#include "support/fs_places.h"
#include "support/memory_block.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lunfs/frames.h"
#include "lunfs/fs.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"

#include "../../src/fs/internal.h" /* how many nodes there are in memory */

/* ---- a block that lends ---- */

/* In pages of its own, which are spoiled as soon as done() returns. */
struct lender {
	struct block block;
	unsigned lent, directs;
	uint64_t reader;
};

struct loan {
	struct io io; /* the READ below */
	struct io *parent;
	struct iovec iov[257];
	uint8_t *pages;
};

static void loan_done(struct io *io, int error)
{
	struct loan *loan = (struct loan *)io;
	struct io *parent = loan->parent;
	struct lender *lender = parent->layer;

	/* as a target does that has become smaller */
	if (io->offset + io->length > lender->block.size)
		error = -EIO;
	lender->reader = parent->reader;
	lender->lent++;
	parent->iov = loan->iov;
	parent->niov = io->niov;
	size_t spoiled = 2 * (io->length + PAGE);
	parent->done(parent, error);
	memset(loan->pages, 0xee, spoiled);
	g_free(loan->pages);
	g_free(loan);
}

/* Pieces that do not adjoin, and end where pages of the file do. */
static void lend(struct lender *lender, struct io *parent)
{
	struct loan *loan = g_new0(struct loan, 1);
	uint8_t *page = loan->pages = g_malloc(2 * (parent->length + PAGE));
	uint64_t at = parent->offset, end = at + parent->length;

	if (parent->iov != NULL || parent->niov != 0)
		_exit(4);
	loan->parent = parent;
	parent->layer = lender;
	for (; at < end; page += 2 * (size_t)PAGE) {
		size_t length = MIN(end - at, PAGE - at % PAGE);

		loan->iov[loan->io.niov++] = (struct iovec){page, length};
		at += length;
	}
	loan->io.op = IO_READ;
	loan->io.offset = parent->offset;
	loan->io.length = parent->length;
	loan->io.iov = loan->iov;
	loan->io.cancelled = parent->cancelled;
	loan->io.done = loan_done;
	block_submit(lender->block.below, &loan->io);
}

static void lender_submit(struct block *block, struct io *io)
{
	struct lender *lender = (struct lender *)block;

	lender->directs += (io->flags & IO_DIRECT) != 0;
	if (io->flags & IO_LEND)
		lend(lender, io);
	else
		block_submit(block->below, io);
}

static void lender_free(struct block *block)
{
	g_free(block);
}

static struct lender *lender_new(struct block *below)
{
	static const struct block_ops ops = {.submit = lender_submit, .free = lender_free};
	struct lender *lender = g_new0(struct lender, 1);

	block_stack(&lender->block, &ops, below);
	lender->block.limits.lends = true;
	return lender;
}

/* ---- the child ---- */

struct order {
	bool changes; /* the tree, at path */
	enum verb verb;
	enum change change;
	unsigned disk;
	uint64_t value;
	char path[300], other[4096];
};

struct server {
	const char *mnt;
	int socket;
	struct loop *loop;
	struct pool *pool;
	struct frames *frames;
	struct fs *fs;
	struct memory_block *memory[FS_DISKS];
	struct block *top[FS_DISKS];
	struct lender *lender;
	struct places *places;
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

/* ---- what is told ---- */

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
	case STEP:
		return memory_block_step(memory);
	case FAIL:
		memory_block_fail(memory, (unsigned)order->value, -EIO);
		return 0;
	case READS:
		return memory_block_count(memory, IO_READ);
	case WRITES:
		return memory_block_count(memory, IO_WRITE);
	case FLUSHES:
		return memory_block_count(memory, IO_FLUSH);
	case LENT:
		return server->lender->lent;
	case DIRECTS:
		return server->lender->directs;
	case READERS:
		return (int64_t)server->lender->reader;
	case IN_FLIGHT:
		return memory_block_in_flight(memory);
	case OUTSTANDING:
		return fs_outstanding(server->fs);
	case UNFLUSHED:
		return fs_is_unflushed(server->fs);
	case ABORT:
		fs_abort(server->fs);
		return 0;
	case RELEASED:
		return places_released(server->places);
	case NODES:
		return g_hash_table_size(server->fs->nodes);
	case TEXTS:
		return places_texts(server->places);
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
	if (order.changes && order.change == FLUSH_TOP)
		fs_flush(server->fs, places_node(server->places, order.path), NULL, server_flushed,
		    server);
	else if (order.changes)
		server_answer(server, places_change(server->places, order.change, order.path,
		                          order.value, order.other));
	else if (order.verb == FLUSH_ALL)
		fs_flush(server->fs, NULL, NULL, server_flushed, server);
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
	if (i == FS_LENDER) {
		server->lender = lender_new(server->top[i]);
		server->top[i] = &server->lender->block;
	}
	places_set(server->places, name,
	    fs_add_disk(
	        server->fs, fs_root(server->fs), name, name, server->top[i], false, attributes));
}

static int serve(void *data)
{
	struct server *server = data;
	const struct fs_options options = {
	    .mountpoint = server->mnt, .source = "memory", .umask = 077};

	alarm(100); /* a test that fails waits, at its exit, for files that it has open */
	server->loop = loop_new();
	server->pool = pool_new(MIB(1));
	server->frames = frames_new(MIB(1), MIB(256));
	server->fs = fs_new(server->loop, server->pool, server->frames, &options, server_ready,
	    server_unmounted, server);
	server->places = places_new(server->fs, server->loop, server->pool, server->top);
	for (unsigned i = 0; i < FS_DISKS; i++)
		server_add_disk(server, i);
	places_set(server->places, "twin.img",
	    fs_add_disk(server->fs, fs_root(server->fs), "twin.img", "twin", server->top[0], false,
	        (const char *const[]){NULL}));
	GSource *watch =
	    loop_watch(server->loop, server->socket, G_IO_IN, server_ordered, server, NULL);
	if (!fs_mount(server->fs, NULL))
		return 2;
	loop_run(server->loop);
	loop_remove(&watch);
	while (fs_outstanding(server->fs) > 0)
		g_main_context_iteration(loop_context(server->loop), TRUE);
	fs_free(server->fs);
	places_free(server->places);
	for (unsigned i = 0; i < FS_DISKS; i++)
		block_free(server->top[i]);
	bool leaks = pool_in_use(server->pool) != 0 || frames_in_use(server->frames) != 0;
	frames_free(server->frames);
	pool_free(server->pool);
	loop_free(server->loop);
	return leaks ? 3 : 0;
}

/* ---- the test's side ---- */

int64_t heard(const struct fs_scene *scene)
{
	int64_t answer;

	cr_assert_eq(read(scene->socket, &answer, sizeof answer), (ssize_t)sizeof answer,
	    "the server is gone");
	return answer;
}

void say(const struct fs_scene *scene, enum verb verb, unsigned disk, uint64_t value)
{
	const struct order order = {.verb = verb, .disk = disk, .value = value};

	cr_assert_eq(write(scene->socket, &order, sizeof order), (ssize_t)sizeof order);
}

int64_t tell(const struct fs_scene *scene, enum verb verb, unsigned disk, uint64_t value)
{
	say(scene, verb, disk, value);
	return heard(scene);
}

int64_t change(const struct fs_scene *scene, enum change change, const char *path, uint64_t value,
    const char *other)
{
	struct order order = {.changes = true, .change = change, .value = value};

	g_strlcpy(order.path, path, sizeof order.path);
	if (other != NULL)
		g_strlcpy(order.other, other, sizeof order.other);
	cr_assert_eq(write(scene->socket, &order, sizeof order), (ssize_t)sizeof order);
	return heard(scene);
}

char *path_of(const struct fs_scene *scene, const char *path)
{
	return text(scene->stage, "%s/%s", scene->mnt, path);
}

struct fs_scene fs_scene_new(void)
{
	/* Never freed, and so never to be lost. */
	static struct stage *volatile kept G_GNUC_UNUSED;
	struct fs_scene scene = {.stage = stage_new()};
	struct server server = {.mnt = stage_directory(scene.stage, "mnt", 0)};
	int sockets[2];

	kept = scene.stage;
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	server.socket = sockets[1];
	scene.pid = call_start(0, serve, &server);
	close(sockets[1]);
	scene.socket = sockets[0];
	scene.mnt = (char *)server.mnt;
	heard(&scene);
	for (unsigned i = 0; i < FS_DISKS; i++)
		scene.file[i] = text(scene.stage, "%s/lun%u.img", server.mnt, i);
	struct stat stat_of_root;
	cr_assert_eq(stat(server.mnt, &stat_of_root), 0);
	scene.device = minor(stat_of_root.st_dev);
	scene.file[FS_TWIN] = text(scene.stage, "%s/twin.img", server.mnt);
	return scene;
}

void fs_scene_break(const struct fs_scene *scene)
{
	sh(scene->stage,
	    "mount -t fusectl none /sys/fs/fuse/connections; "
	    "echo 1 >/sys/fs/fuse/connections/%u/abort",
	    scene->device);
}

void fs_scene_end(struct fs_scene *scene)
{
	tell(scene, END, 0, 0);
	cr_assert_eq(call_end(scene->pid, 10), 0, "the server did not end well");
}

void *page_new(int byte)
{
	void *page = aligned_alloc(PAGE, PAGE);

	memset(page, byte, PAGE);
	return page;
}

int read_byte(int fd, uint64_t offset)
{
	g_autofree unsigned char *page = page_new(0x55);
	ssize_t n = pread(fd, page, PAGE, (off_t)offset);

	if (n < 0)
		return -1000 - errno;
	return n == 0 ? -1 : page[0];
}

int write_page(int fd, uint64_t offset, int byte)
{
	g_autofree void *page = page_new(byte);

	return pwrite(fd, page, PAGE, (off_t)offset) == PAGE ? 0 : errno;
}

struct expected {
	const struct fs_scene *scene;
	int fd, byte;
	uint64_t offset, value;
	enum verb verb;
};

static bool reads_as_expected(void *data)
{
	const struct expected *expected = data;

	return read_byte(expected->fd, expected->offset) == expected->byte;
}

void must_come_to_read(int fd, uint64_t offset, int byte)
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

void must_come_to_have(int fd, uint64_t size)
{
	cr_assert(await(5, has_size, &(struct expected){.fd = fd, .value = size}),
	    "the size is not %lu", (unsigned long)size);
}

static bool says_at_least(void *data)
{
	const struct expected *expected = data;

	return tell(expected->scene, expected->verb, 0, 0) >= (int64_t)expected->value;
}

void must_come_to_say(const struct fs_scene *scene, enum verb verb, uint64_t at_least)
{
	cr_assert(await(10, says_at_least,
	    &(struct expected){.scene = scene, .verb = verb, .value = at_least}));
}

static bool says_none(void *data)
{
	const struct expected *expected = data;

	return tell(expected->scene, expected->verb, 0, 0) == 0;
}

void must_come_to_none(const struct fs_scene *scene, enum verb verb)
{
	cr_assert(await(5, says_none, &(struct expected){.scene = scene, .verb = verb}));
}

int read_there(void *data)
{
	const struct access *access = data;
	int fd = open(access->path, O_RDONLY | access->flags | O_CLOEXEC);
	void *buffer = aligned_alloc(PAGE, access->length);
	ssize_t n = pread(fd, buffer, access->length, (off_t)access->offset);

	return n < 0 ? errno : n == 0 ? 255 : 0;
}

int write_there(void *data)
{
	const struct access *access = data;
	int fd =
	    access->fd > 0 ? access->fd : open(access->path, O_WRONLY | access->flags | O_CLOEXEC);

	return write_page(fd, access->offset, 9);
}
