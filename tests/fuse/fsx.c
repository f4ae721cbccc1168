/*
 * fsx.c - random operations against a shadow, in the manner of fsx.
 *
 * Reads, writes, mapped reads and writes, fsync, holes, zeroed ranges and truncation marks, through
 * several handles of one file; each read is compared with the shadow, and at the end the file, and
 * after the unmount what the target keeps. The seed is printed, LUNFS_TEST_SEED repeats a run, and
 * a failure prints the operations that led to it.
 *
 * One thing no FUSE file system can give: a direct read or write does not see dirty pages of a
 * mapping before msync() (the kernel writes them out first only for file systems that ask with a
 * later FUSE). So the test syncs the mapping before direct I/O, as programs that mix both must.
 */
#include "support/data.h"
#include "support/mount.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(fsx, .timeout = 400);

#define SIZE    MIB(4)
#define LONGEST KIB(96)
#define HISTORY 12
#define PAGE    4096

enum handle { BUFFERED, ANOTHER, DIRECT, SYNCHRONOUS, HANDLES };
static const char *const handle_names[] = {"buffered", "another", "direct", "synchronous"};

struct exerciser {
	struct scene scene;
	struct dice dice;
	int fds[HANDLES];
	unsigned char *map, *shadow, *buffer;
	bool map_dirty;
	unsigned long done;
	uint64_t seed;
	char history[HISTORY][96];
	char last_change[SIZE / PAGE][96]; /* what changed each page last */
};

static void remember(struct exerciser *x, const char *what, uint64_t offset, size_t length)
{
	char *line = x->history[x->done++ % HISTORY];

	snprintf(line, sizeof(x->history[0]), "%lu: %s %#lx..%#lx", x->done, what, offset,
	    offset + length);
}

static void remember_change(struct exerciser *x, const char *what, uint64_t offset, size_t length)
{
	remember(x, what, offset, length);
	for (uint64_t page = offset / PAGE; page * PAGE < offset + length; page++)
		memcpy(x->last_change[page], x->history[(x->done - 1) % HISTORY],
		    sizeof(x->last_change[page]));
}

static void fail(struct exerciser *x, const char *why)
{
	fprintf(stderr, "LUNFS_TEST_SEED=%lu\n", x->seed);
	for (unsigned long i = x->done > HISTORY ? x->done - HISTORY : 0; i < x->done; i++)
		fprintf(stderr, "  %s\n", x->history[i % HISTORY]);
	cr_assert_fail("operation %lu: %s", x->done, why);
}

static void compare(struct exerciser *x, const void *found, uint64_t offset, size_t length)
{
	ssize_t at = first_difference(found, x->shadow + offset, length);
	g_autofree char *why =
	    at < 0 ? NULL
	           : g_strdup_printf("byte %#lx is %02x, not %02x; its page was last "
	                             "changed by operation %s",
	                 offset + (uint64_t)at, ((const unsigned char *)found)[at],
	                 x->shadow[offset + (uint64_t)at],
	                 x->last_change[(offset + (uint64_t)at) / PAGE]);

	if (why)
		fail(x, why);
}

static enum handle any_handle(struct exerciser *x)
{
	enum handle handle = (enum handle)dice_between(&x->dice, 0, HANDLES - 1);

	if (handle == DIRECT && x->map_dirty) {
		if (msync(x->map, SIZE, MS_SYNC) != 0)
			fail(x, "msync");
		x->map_dirty = false;
	}
	return handle;
}

static void do_read(struct exerciser *x, uint64_t offset, size_t length)
{
	enum handle handle = any_handle(x);
	g_autofree char *what = g_strdup_printf("read (%s)", handle_names[handle]);

	remember(x, what, offset, length);
	if (pread(x->fds[handle], x->buffer, length, (off_t)offset) != (ssize_t)length)
		fail(x, g_strerror(errno));
	compare(x, x->buffer, offset, length);
}

static void do_write(struct exerciser *x, uint64_t offset, size_t length)
{
	enum handle handle = any_handle(x);
	g_autofree char *what = g_strdup_printf("write (%s)", handle_names[handle]);

	remember_change(x, what, offset, length);
	dice_fill(&x->dice, x->shadow + offset, length);
	memcpy(x->buffer, x->shadow + offset, length);
	if (pwrite(x->fds[handle], x->buffer, length, (off_t)offset) != (ssize_t)length)
		fail(x, g_strerror(errno));
}

static void do_map_read(struct exerciser *x, uint64_t offset, size_t length)
{
	remember(x, "mapped read", offset, length);
	compare(x, x->map + offset, offset, length);
}

static void do_map_write(struct exerciser *x, uint64_t offset, size_t length)
{
	remember_change(x, "mapped write", offset, length);
	dice_fill(&x->dice, x->shadow + offset, length);
	memcpy(x->map + offset, x->shadow + offset, length);
	x->map_dirty = true;
}

static void do_fsync(struct exerciser *x, uint64_t offset, size_t length)
{
	(void)length;
	remember(x, "fsync", 0, 0);
	int fd = x->fds[any_handle(x)];
	if ((offset & 1 ? fsync(fd) : fdatasync(fd)) != 0)
		fail(x, g_strerror(errno));
}

static void do_zero(struct exerciser *x, uint64_t offset, size_t length)
{
	bool punch = dice_roll(&x->dice) & 1;

	remember_change(x, punch ? "punch hole" : "zero range", offset, length);
	if (fallocate(x->fds[any_handle(x)],
	        FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
	        (off_t)offset, (off_t)length) != 0)
		fail(x, g_strerror(errno));
	memset(x->shadow + offset, 0, length);
}

/* Rare, and near the start: all before it becomes zeros. */
static void do_truncated_write(struct exerciser *x, uint64_t offset, size_t length)
{
	if (dice_between(&x->dice, 0, 9) != 0)
		return;
	offset %= KIB(256);
	/* what was changed through the mapping could land after the zeros, as README says */
	if (x->map_dirty && msync(x->map, SIZE, MS_SYNC) != 0)
		fail(x, "msync");
	x->map_dirty = false;
	remember_change(x, "write after O_TRUNC", 0, offset + length);
	int fd = open(x->scene.file, O_WRONLY | O_TRUNC | O_CLOEXEC);
	dice_fill(&x->dice, x->shadow + offset, length);
	memset(x->shadow, 0, offset);
	if (fd < 0 || pwrite(fd, x->shadow + offset, length, (off_t)offset) != (ssize_t)length)
		fail(x, g_strerror(errno));
	close(fd);
}

static void one_operation(struct exerciser *x)
{
	/* of 100 */
	static const struct {
		unsigned upto;
		void (*run)(struct exerciser *x, uint64_t offset, size_t length);
	} operations[] = {{34, do_read}, {66, do_write}, {78, do_map_read}, {88, do_map_write},
	    {94, do_zero}, {95, do_truncated_write}, {100, do_fsync}};
	/* short ones more often than long ones; ends on block and page borders as often as not */
	size_t length = (size_t)dice_between(&x->dice, 1, LONGEST >> dice_between(&x->dice, 0, 9));
	uint64_t offset = dice_between(&x->dice, 0, SIZE - length);
	unsigned die = (unsigned)dice_between(&x->dice, 0, 99), i = 0;

	switch (dice_roll(&x->dice) % 4) {
	case 0:
		offset &= ~(uint64_t)4095;
		break;
	case 1:
		offset &= ~(uint64_t)511;
		break;
	default:
		break;
	}
	while (die >= operations[i].upto)
		i++;
	operations[i].run(x, offset, length);
}

static uint64_t seed(void)
{
	const char *given = getenv("LUNFS_TEST_SEED");

	return given ? strtoull(given, NULL, 10) : (uint64_t)g_get_real_time() % 1000000007;
}

static void exercise(unsigned block_size, unsigned long count)
{
	static const int flags[HANDLES] = {O_RDWR, O_RDWR, O_RDWR | O_DIRECT, O_RDWR | O_DSYNC};
	struct exerciser *x = g_new0(struct exerciser, 1);
	double start = seconds_now();

	x->dice.state = x->seed = seed();
	fprintf(stderr, "fsx on blocks of %u: LUNFS_TEST_SEED=%lu, %lu operations\n", block_size,
	    x->seed, count);
	x->scene = (struct scene){.stage = stage_new(), .size = SIZE};
	x->scene.tgt = tgt_start(x->scene.stage);
	tgt_add_target(x->scene.tgt, 1, SCENE_IQN);
	x->scene.backing = tgt_add_lun(
	    x->scene.tgt, 1, .lun = 1, .size = SIZE, .block_size = block_size, .thin = true);
	x->scene.mnt = must_mount_lunfs(x->scene.stage, tgt_url(x->scene.tgt, SCENE_IQN, -1), NULL);
	x->scene.file = text(x->scene.stage, "%s/lun1.img", x->scene.mnt);
	x->shadow = aligned_buffer(SIZE);
	x->buffer = aligned_buffer(LONGEST);
	for (int i = 0; i < HANDLES; i++)
		x->fds[i] = must_open(x->scene.file, flags[i]);
	x->map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, x->fds[BUFFERED], 0);
	cr_assert(x->map != MAP_FAILED, "mmap: %s", strerror(errno));

	while (x->done < count)
		one_operation(x);

	compare(x, x->map, 0, SIZE);
	cr_assert(munmap(x->map, SIZE) == 0);
	for (int i = 0; i < HANDLES; i++)
		cr_assert(close(x->fds[i]) == 0);
	must_hold(x->scene.file, x->shadow, SIZE, 0);
	scene_umount(&x->scene);
	must_hold(x->scene.backing, x->shadow, SIZE, 0);
	fprintf(stderr, "fsx on blocks of %u: %.1f s\n", block_size, seconds_now() - start);
}

Test(fsx, a_hundred_thousand_random_operations_leave_what_the_shadow_says)
{
	exercise(512, scaled(100000));
}

Test(fsx, random_operations_on_blocks_of_4096_leave_what_the_shadow_says)
{
	exercise(4096, scaled(30000));
}
