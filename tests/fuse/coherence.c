/*
 * coherence.c - reads see the latest write, whichever way it took (DESIGN, semantics 5): O_DIRECT,
 * libaio, the kernel's page cache, a mapping, a loop device; and through two files that are one LUN
 * (SAFETY.md 22).
 */
#include "support/data.h"
#include "support/script_scene.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(coherence, .timeout = 180);
TestSuite(safety_22, .timeout = 180);

#define SIZE  MIB(4)
#define PAGE  4096u
#define PAGES 16u /* of one transfer, at most */
/* Two targets show the same LUN: the scripted one makes its designator from the LUN's number. */
#define OTHER_IQN "iqn.2026-01.org.lunfs:other"

/* ---- ways to the content ---- */

enum way { DIRECT, AIO, BUFFERED, MAPPED, LOOP, WAYS };

static const char *const way_names[] = {"O_DIRECT", "libaio", "buffered", "mapped", "loop device"};

struct ways {
	int direct, buffered, loop; /* -1: none */
	unsigned char *map;
	io_context_t aio;
	char *device;
};

static bool has_loop_devices(struct stage *stage)
{
	sh(stage, "modprobe -q loop");
	if (sh(stage, "test -e /dev/loop-control")->status == 0)
		return true;
	fprintf(stderr, "*** NOT TESTED: there are no loop devices here ***\n");
	return false;
}

static struct ways ways_open(struct stage *stage, const char *path, const char *losetup_options)
{
	struct ways ways = {.direct = must_open(path, O_RDWR | O_DIRECT),
	    .buffered = must_open(path, O_RDWR),
	    .loop = -1};

	ways.map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ways.buffered, 0);
	cr_assert(ways.map != MAP_FAILED);
	cr_assert_eq(io_setup(1, &ways.aio), 0);
	if (losetup_options && has_loop_devices(stage)) {
		ways.device = must(stage, "losetup --find --show %s %s", losetup_options, path);
		ways.loop = must_open(ways.device, O_RDWR | O_DIRECT);
	}
	return ways;
}

static void ways_close(struct stage *stage, struct ways *ways, const char *path)
{
	io_destroy(ways->aio);
	munmap(ways->map, SIZE);
	close(ways->direct);
	close(ways->buffered);
	if (ways->loop < 0)
		return;
	close(ways->loop);
	/* somebody else who looks at all loop devices may hold it up */
	must(stage,
	    "losetup -d %s && for i in $(seq 100); do "
	    "grep -qs '^%s' /sys/block/loop*/loop/backing_file || exit 0; sleep 0.05; done; exit 1",
	    ways->device, path);
}

static void transfer(struct ways *ways, bool write, void *bytes, size_t length, uint64_t offset)
{
	struct iocb iocb, *batch = &iocb;
	struct io_event event;

	if (write)
		io_prep_pwrite(&iocb, ways->direct, bytes, length, (long long)offset);
	else
		io_prep_pread(&iocb, ways->direct, bytes, length, (long long)offset);
	cr_assert_eq(io_submit(ways->aio, 1, &batch), 1);
	cr_assert_eq(io_getevents(ways->aio, 1, 1, &event, NULL), 1);
	cr_assert_eq(event.res, length);
}

static void write_this_way(
    struct ways *ways, enum way way, unsigned char *bytes, size_t length, uint64_t offset)
{
	if (way == AIO) {
		transfer(ways, true, bytes, length, offset);
	} else if (way == MAPPED) {
		memcpy(ways->map + offset, bytes, length);
		cr_assert_eq(msync(ways->map + offset, length, MS_SYNC), 0);
	} else {
		must_pwrite(way == DIRECT     ? ways->direct
		            : way == BUFFERED ? ways->buffered
		                              : ways->loop,
		    bytes, length, offset);
	}
}

static void read_this_way(
    struct ways *ways, enum way way, unsigned char *bytes, size_t length, uint64_t offset)
{
	if (way == AIO)
		transfer(ways, false, bytes, length, offset);
	else if (way == MAPPED)
		memcpy(bytes, ways->map + offset, length);
	else
		must_pread(way == DIRECT     ? ways->direct
		           : way == BUFFERED ? ways->buffered
		                             : ways->loop,
		    bytes, length, offset);
}

/* Whole pages are written by one way after the other, and each time all have to see them. */
static void must_agree(struct ways *ways, unsigned files, unsigned rounds)
{
	struct dice dice = {.state = rounds};
	unsigned char *shadow = aligned_buffer(SIZE), *found = aligned_buffer(PAGES * PAGE);

	for (unsigned round = 0; round < rounds; round++) {
		struct ways *file = &ways[dice_between(&dice, 0, files - 1)];
		enum way way = (enum way)dice_between(&dice, 0, WAYS - 1);
		size_t length = dice_between(&dice, 1, PAGES) * PAGE;
		/* in a quarter of it, so that much was seen before */
		uint64_t offset = dice_between(&dice, 0, SIZE / 4 / PAGE) * PAGE;

		if (way == LOOP && file->loop < 0)
			continue;
		dice_fill(&dice, shadow + offset, length);
		write_this_way(file, way, shadow + offset, length, offset);
		for (unsigned i = 0; i < files * WAYS; i++) {
			struct ways *by = &ways[i / WAYS];

			if (i % WAYS == LOOP && by->loop < 0)
				continue;
			read_this_way(by, (enum way)(i % WAYS), found, length, offset);
			ssize_t at = first_difference(found, shadow + offset, length);
			cr_assert(at < 0,
			    "round %u: byte %lu, written %s to file %u, is another one %s in file "
			    "%u",
			    round, offset + (uint64_t)at, way_names[way], (unsigned)(file - ways),
			    way_names[i % WAYS], i / WAYS);
		}
	}
}

static void one_file(const char *losetup_options)
{
	struct scene scene = scene_with_disk(SIZE, 512);
	struct ways ways = ways_open(scene.stage, scene.file, losetup_options);

	must_agree(&ways, 1, (unsigned)scaled(300));
	ways_close(scene.stage, &ways, scene.file);
	scene_umount(&scene);
}

Test(coherence, all_ways_to_a_file_agree)
{
	one_file("--direct-io=off");
}

Test(coherence, all_ways_to_a_file_agree_with_a_loop_device_of_direct_io)
{
	one_file("--direct-io=on");
}

/* ---- two files, one LUN ---- */

struct pair {
	struct scene scene;
	struct script_target *other;
	char *file[2];
};

static struct pair pair_new(const char *options)
{
	struct pair pair = {
	    .scene = scene_of_script(SIZE), .other = script_target_start(OTHER_IQN)};
	struct stage *stage = pair.scene.stage;

	script_target_add_lun(pair.other, 1, SIZE, 512);
	/* the first that discovery tells of comes first, and its way the I/O of both goes */
	script_target_add_neighbour(pair.scene.script, pair.other);
	scene_mount_as(&pair.scene, 0,
	    text(stage, "iscsi://127.0.0.1:%u", script_target_port(pair.scene.script)), options);
	pair.file[0] = text(stage, "%s/%s/lun1.img", pair.scene.mnt, SCENE_IQN);
	pair.file[1] = text(stage, "%s/%s/lun1.img", pair.scene.mnt, OTHER_IQN);
	return pair;
}

static void pair_end(struct pair *pair)
{
	script_scene_umount(&pair->scene);
	script_target_must_not_complain(pair->other);
	script_target_stop(pair->scene.script);
	script_target_stop(pair->other);
}

Test(safety_22, all_ways_to_two_files_of_one_LUN_agree)
{
	struct pair pair = pair_new(NULL);
	struct stage *stage = pair.scene.stage;
	struct ways ways[] = {ways_open(stage, pair.file[0], "--direct-io=off"),
	    ways_open(stage, pair.file[1], "--direct-io=on")};

	must_agree(ways, 2, (unsigned)scaled(300));
	ways_close(stage, &ways[0], pair.file[0]);
	ways_close(stage, &ways[1], pair.file[1]);
	cr_assert_eq(script_target_command_count(pair.other, SCRIPT_READ), 0);
	cr_assert_eq(script_target_command_count(pair.other, SCRIPT_WRITE), 0);
	pair_end(&pair);
}

Test(safety_22, a_sync_through_one_file_makes_what_was_written_through_the_other_stable)
{
	struct pair pair = pair_new("replacement_timeout=infinity");
	unsigned char *bytes = aligned_buffer(KIB(64));
	int one = must_open(pair.file[0], O_RDWR), other = must_open(pair.file[1], O_RDWR);

	for (unsigned round = 0; round < 4; round++) {
		pattern_fill(bytes, KIB(64), 0, round);
		must_pwrite(round % 2 ? other : one, bytes, KIB(64), round * MIB(1));
		cr_assert_eq(fsync(round % 2 ? one : other), 0);
		script_scene_must_be(&pair.scene, SCRIPT_STABLE, bytes, KIB(64), round * MIB(1));
	}
	close(one);
	close(other);
	pair_end(&pair);
}

Test(safety_22, status_tells_of_the_same_LUN_and_each_file_of_its_own_name)
{
	struct pair pair = pair_new(NULL);
	char *status = must_lunfs(pair.scene.stage, "status %s", pair.scene.mnt);
	char *json = must_lunfs(pair.scene.stage, "status --json %s", pair.scene.mnt);

	cr_assert(strstr(status, "same as lun1.img of " SCENE_IQN), "%s", status);
	cr_assert(strstr(json, "\"same_as\": \"lun1.img of " SCENE_IQN "\""), "%s", json);
	cr_assert_eq(count_words(status, "same as"), 1);
	pair_end(&pair);
}

Test(safety_22, a_file_goes_on_when_only_its_own_session_is_away)
{
	struct pair pair = pair_new("replacement_timeout=1s");
	unsigned char *bytes = aligned_buffer(KIB(64)), *found = aligned_buffer(KIB(64));
	int fd = must_open(pair.file[1], O_RDWR | O_DIRECT);

	script_target_listen(pair.other, false);
	script_target_drop(pair.other, SCRIPT_RST);
	g_usleep(1500000);
	pattern_fill(bytes, KIB(64), 0, 1);
	must_pwrite(fd, bytes, KIB(64), 0);
	must_pread(fd, found, KIB(64), 0);
	cr_assert(first_difference(found, bytes, KIB(64)) < 0);
	cr_assert_eq(fsync(fd), 0);
	close(fd);
	script_target_listen(pair.other, true);
	pair_end(&pair);
}

static void must_not_be_the_same(const char *options)
{
	struct pair pair = pair_new(options);
	unsigned char *bytes = aligned_buffer(PAGE);
	int fd = must_open(pair.file[1], O_RDWR | O_DIRECT);

	must_pwrite(fd, bytes, PAGE, 0);
	close(fd);
	cr_assert_eq(script_target_command_count(pair.other, SCRIPT_WRITE), 1);
	cr_assert_eq(script_target_command_count(pair.scene.script, SCRIPT_WRITE), 0);
	pair_end(&pair);
}

Test(safety_22, shared_LUNs_go_their_own_ways)
{
	must_not_be_the_same("shared");
}

/* ---- at the same time ---- */

struct load {
	const char *path;
	int flags;
	unsigned seed;
	double seconds;
	enum { LOAD_WRITE, LOAD_READ, LOAD_MAP, LOAD_ZERO } kind;
};

/* Anywhere, of any length, with a few pages that all of them want. */
static int load_run(void *data)
{
	const struct load *load = data;
	struct dice dice = {.state = load->seed};
	double end = seconds_now() + load->seconds;
	unsigned char *bytes = aligned_buffer(PAGES * PAGE);
	int fd = open(load->path, O_RDWR | load->flags | O_CLOEXEC);
	unsigned char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	while (fd >= 0 && seconds_now() < end) {
		bool narrow = dice_between(&dice, 0, 1);
		size_t length = (size_t)dice_between(&dice, 1, narrow ? PAGE : PAGES * PAGE);
		uint64_t offset = dice_between(&dice, 0, (narrow ? 4 * PAGE : SIZE) - 1);
		ssize_t n = (ssize_t)length;

		offset = MIN(offset, SIZE - length);
		if (load->kind == LOAD_MAP) {
			dice_fill(&dice, map + offset, length);
			n = msync(map, SIZE, MS_SYNC) == 0 ? n : -1;
		} else if (load->kind == LOAD_ZERO) {
			n = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			        (off_t)length) == 0
			        ? n
			        : -1;
		} else if (load->kind == LOAD_READ) {
			n = pread(fd, bytes, length, (off_t)offset);
		} else {
			dice_fill(&dice, bytes, length);
			n = pwrite(fd, bytes, length, (off_t)offset);
		}
		if (n != (ssize_t)length)
			return errno;
	}
	return fd < 0 ? errno : 0;
}

/* Kernel and process wait for one another, and no signal ends that: the test would never end. */
static void break_deadlock(const struct scene *scene)
{
	sh(scene->stage,
	    "mount -t fusectl none /sys/fs/fuse/connections; "
	    "echo 1 >/sys/fs/fuse/connections/$(sed -n 's,.* 0:\\([0-9]*\\) / %s .*,\\1,p' "
	    "/proc/self/mountinfo)/abort",
	    scene->mnt);
}

static void run_loads(struct pair *pair, struct load *loads, unsigned count)
{
	pid_t pids[16];

	for (unsigned i = 0; i < count; i++) {
		loads[i].seed = i + 1;
		loads[i].seconds = (double)scaled(6);
		pids[i] = call_start(0, load_run, &loads[i]);
	}
	for (unsigned i = 0; i < count; i++) {
		int result = call_end(pids[i], 40);

		if (result < 0)
			break_deadlock(&pair->scene);
		cr_assert_eq(result, 0, "load %u: %s", i, strerror(result));
	}
}

static void must_be_one(struct pair *pair)
{
	unsigned char *content = aligned_buffer(SIZE);

	cr_assert(script_target_read(pair->scene.script, 1, 0, content, SIZE, SCRIPT_VOLATILE));
	must_hold(pair->file[0], content, SIZE, 0);
	must_hold(pair->file[1], content, SIZE, 0);
}

Test(safety_22, two_files_of_one_LUN_agree_after_crosswise_writes)
{
	struct pair pair = pair_new(NULL);
	const char *one = pair.file[0], *other = pair.file[1];
	struct load loads[] = {
	    {.path = one},
	    {.path = other},
	    {.path = one, .flags = O_DIRECT},
	    {.path = other, .flags = O_DIRECT},
	    {.path = one, .kind = LOAD_READ},
	    {.path = other, .kind = LOAD_READ},
	    {.path = other, .kind = LOAD_ZERO},
	};
	int kept[] = {must_open(one, O_RDWR), must_open(other, O_RDWR)};

	run_loads(&pair, loads, G_N_ELEMENTS(loads));
	/* what is dropped behind an answer */
	g_usleep((gulong)(patience(1) * 1e6));
	fsync(kept[0]);
	must_be_one(&pair);
	close(kept[0]);
	close(kept[1]);
	pair_end(&pair);
}

/* Which of them wins is not promised; that they end is. */
Test(safety_22, mappings_of_two_files_of_one_LUN_do_not_wait_for_one_another)
{
	struct pair pair = pair_new(NULL);
	const char *one = pair.file[0], *other = pair.file[1];
	struct load loads[] = {
	    {.path = one, .kind = LOAD_MAP},
	    {.path = other, .kind = LOAD_MAP},
	    {.path = one},
	    {.path = other},
	    {.path = other, .flags = O_DIRECT},
	    {.path = one, .kind = LOAD_ZERO},
	};

	run_loads(&pair, loads, G_N_ELEMENTS(loads));
	pair_end(&pair);
}
