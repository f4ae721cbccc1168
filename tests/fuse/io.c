/*
 * io.c - reading and writing a LUN as a file: any size, any place, any way, against what the target
 * holds.
 */
#include "support/data.h"
#include "support/mount.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

TestSuite(io, .timeout = 120);

/* count random writes and reads through fd, checked against shadow, which holds the LUN's content.
 */
static void exercise(int fd, unsigned char *shadow, uint64_t size, unsigned count, size_t longest)
{
	struct dice dice = {.state = size};
	unsigned char *buffer = aligned_buffer(longest);

	for (unsigned i = 0; i < count; i++) {
		/* short ones as often as long ones */
		size_t length =
		    (size_t)dice_between(&dice, 1, longest >> dice_between(&dice, 0, 12));
		uint64_t offset = dice_between(&dice, 0, size - length);

		if (i % 2) {
			must_pread(fd, buffer, length, offset);
			ssize_t at = first_difference(buffer, shadow + offset, length);
			cr_assert(
			    at < 0, "operation %u: byte %lu differs", i, offset + (uint64_t)at);
		} else {
			dice_fill(&dice, shadow + offset, length);
			must_pwrite(fd, shadow + offset, length, offset);
		}
	}
	free(buffer);
}

static void any_size_and_alignment(unsigned block_size)
{
	struct scene scene = scene_with_disk(MIB(16), block_size);
	unsigned char *shadow = aligned_buffer(scene.size);
	int fd = must_open(scene.file, O_RDWR);

	exercise(fd, shadow, scene.size, (unsigned)scaled(2000), MIB(3));
	cr_assert(fsync(fd) == 0);
	must_hold(scene.backing, shadow, scene.size, 0);
	close(fd);
	must_hold(scene.file, shadow, scene.size, 0);
	scene_umount(&scene);
	must_hold(scene.backing, shadow, scene.size, 0);
}

Test(io, any_size_at_any_place_on_blocks_of_512)
{
	any_size_and_alignment(512);
}

Test(io, any_size_at_any_place_on_blocks_of_4096)
{
	any_size_and_alignment(4096);
}

Test(io, eight_tebibytes_are_written_at_their_end)
{
	struct scene scene = scene_with_disk(TIB(8), 512);
	const uint64_t places[] = {0, TIB(2) - 700, TIB(2) + 512, TIB(4) - 3, TIB(8) - 5000};
	unsigned char bytes[5000];
	int fd = must_open(scene.file, O_RDWR);

	cr_assert_eq(lseek(fd, 0, SEEK_END), (off_t)TIB(8));
	for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
		pattern_fill(bytes, sizeof(bytes), places[i], i);
		must_pwrite(fd, bytes, sizeof(bytes), places[i]);
	}
	cr_assert(fsync(fd) == 0);
	close(fd);
	scene_umount(&scene);
	must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
		pattern_fill(bytes, sizeof(bytes), places[i], i);
		if (i == 1) /* the next one overlaps it from TIB(2) + 512 on */
			continue;
		must_hold(scene.backing, bytes, sizeof(bytes), places[i]);
		must_hold(scene.file, bytes, sizeof(bytes), places[i]);
	}
	pattern_fill(bytes, 1212, places[1], 1);
	must_hold(scene.backing, bytes, 1212, places[1]);
	scene_umount(&scene);
}

static void end_of_lun(int extra_flags)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	unsigned char *buffer = aligned_buffer(8192), *last = aligned_buffer(4096);
	int fd = must_open(scene.file, O_RDWR | extra_flags);

	memset(buffer, 0x5a, 8192);
	memset(last, 0x5a, 4096);
	cr_assert_eq(pwrite(fd, buffer, 8192, (off_t)MIB(1) - 4096), 4096);
	cr_assert_eq(pwrite(fd, buffer, 4096, (off_t)MIB(1)), -1);
	cr_assert_eq(errno, ENOSPC);
	cr_assert_eq(pwrite(fd, buffer, 4096, (off_t)MIB(5)), -1);
	cr_assert_eq(errno, ENOSPC);
	cr_assert_eq(pread(fd, buffer, 8192, (off_t)MIB(1) - 4096), 4096);
	cr_assert_eq(pread(fd, buffer, 4096, (off_t)MIB(1)), 0);
	cr_assert_eq(pread(fd, buffer, 4096, (off_t)MIB(7)), 0);
	close(fd);
	must_hold(scene.backing, last, 4096, MIB(1) - 4096);
	scene_umount(&scene);
}

Test(io, the_end_is_a_short_write_then_ENOSPC_and_reads_of_nothing)
{
	end_of_lun(0);
}

Test(io, the_end_is_the_same_for_direct_io)
{
	end_of_lun(O_DIRECT);
}

Test(io, appending_finds_no_space)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	int fd = must_open(scene.file, O_WRONLY | O_APPEND);

	cr_assert_eq(write(fd, "x", 1), -1);
	cr_assert_eq(errno, ENOSPC);
	close(fd);
	scene_umount(&scene);
}

Test(io, direct_io_of_any_size_and_alignment)
{
	struct scene scene = scene_with_disk(MIB(8), 4096);
	unsigned char *shadow = aligned_buffer(scene.size);
	int fd = must_open(scene.file, O_RDWR | O_DIRECT);

	exercise(fd, shadow, scene.size, (unsigned)scaled(1000), MIB(2));
	close(fd);
	must_hold(scene.backing, shadow, scene.size, 0);
	scene_umount(&scene);
}

Test(io, synchronous_writes_and_fsync_are_at_the_target_when_they_return)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	const int flags[] = {O_SYNC, O_DSYNC, O_SYNC | O_DIRECT};
	unsigned char *bytes = aligned_buffer(4096);

	for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
		int fd = must_open(scene.file, O_WRONLY | flags[i]);

		pattern_fill(bytes, 4096, 0, i);
		must_pwrite(fd, bytes, 4096, 8192 * i);
		must_hold(scene.backing, bytes, 4096, 8192 * i);
		close(fd);
	}

	struct iovec iov = {.iov_base = bytes, .iov_len = 1000};
	int fd = must_open(scene.file, O_WRONLY);
	pattern_fill(bytes, 4096, 0, 77);
	cr_assert_eq(pwritev2(fd, &iov, 1, 100001, RWF_DSYNC), 1000);
	must_hold(scene.backing, bytes, 1000, 100001);
	must_pwrite(fd, bytes, 333, 200001);
	cr_assert(fdatasync(fd) == 0);
	must_hold(scene.backing, bytes, 333, 200001);
	close(fd);
	scene_umount(&scene);
}

/* ---- many at once ---- */

#define WRITERS 8
#define STRIPE  700 /* odd, so that neighbours share blocks of 512 and 4096 bytes */

struct writer {
	const char *path;
	unsigned number, rounds;
	int flags;
};

/* Writes every WRITERSth stripe of the file, a few times over. */
static void *write_stripes(void *data)
{
	struct writer *writer = data;
	unsigned char *bytes = aligned_buffer(STRIPE);
	int fd = open(writer->path, O_RDWR | writer->flags | O_CLOEXEC);
	uintptr_t failed = fd < 0;

	for (unsigned round = 0; !failed && round < writer->rounds; round++)
		for (unsigned i = 0; i < 40; i++) {
			uint64_t at = (uint64_t)(i * WRITERS + writer->number) * STRIPE;

			pattern_fill(bytes, STRIPE, at, round);
			failed |= pwrite(fd, bytes, STRIPE, (off_t)at) != STRIPE;
		}
	failed |= close(fd) != 0;
	free(bytes);
	return (void *)failed;
}

static int write_stripes_in_process(void *data)
{
	return write_stripes(data) ? 1 : 0;
}

static void unaligned_writers(unsigned block_size, int flags, bool processes)
{
	struct scene scene = scene_with_disk(MIB(1), block_size);
	unsigned rounds = (unsigned)scaled(8);
	size_t length = 40 * WRITERS * STRIPE;
	unsigned char *expected = aligned_buffer(length);
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	pid_t pids[WRITERS];
	void *failed;

	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){
		    .path = scene.file, .number = i, .rounds = rounds, .flags = flags};
		if (processes)
			pids[i] = call_start(0, write_stripes_in_process, &writers[i]);
		else
			cr_assert(
			    pthread_create(&threads[i], NULL, write_stripes, &writers[i]) == 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		if (processes) {
			cr_assert_eq(call_end(pids[i], 60), 0);
		} else {
			pthread_join(threads[i], &failed);
			cr_assert(failed == NULL);
		}
	}
	for (size_t at = 0; at < length; at += STRIPE)
		pattern_fill(expected + at, STRIPE, at, rounds - 1);
	must_hold(scene.file, expected, length, 0);
	scene_umount(&scene);
	must_hold(scene.backing, expected, length, 0);
}

Test(io, threads_that_write_parts_of_the_same_blocks_never_undo_each_other)
{
	unaligned_writers(512, 0, false);
}

Test(io, processes_that_write_parts_of_the_same_blocks_never_undo_each_other)
{
	unaligned_writers(4096, 0, true);
}

Test(io, direct_writers_of_parts_of_the_same_blocks_never_undo_each_other)
{
	unaligned_writers(4096, O_DIRECT, true);
}

#define AIO_DEPTH 32

Test(io, buffered_reads_see_what_asynchronous_direct_writes_have_written)
{
	struct scene scene = scene_with_disk(MIB(4), 512);
	int direct = must_open(scene.file, O_RDWR | O_DIRECT),
	    buffered = must_open(scene.file, O_RDONLY);
	unsigned char *page[AIO_DEPTH], found[4096];
	struct iocb iocb[AIO_DEPTH], *batch[AIO_DEPTH];
	struct io_event events[AIO_DEPTH];
	io_context_t context = NULL;
	unsigned rounds = (unsigned)scaled(60);

	cr_assert(io_setup(AIO_DEPTH, &context) == 0);
	for (unsigned i = 0; i < AIO_DEPTH; i++)
		page[i] = aligned_buffer(4096);
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < AIO_DEPTH; i++) /* the pages are in the cache, old */
			must_pread(buffered, found, 4096, i * 8192);
		for (unsigned i = 0; i < AIO_DEPTH; i++) {
			pattern_fill(page[i], 4096, i, round);
			io_prep_pwrite(&iocb[i], direct, page[i], 4096, i * 8192);
			batch[i] = &iocb[i];
		}
		cr_assert_eq(io_submit(context, AIO_DEPTH, batch), AIO_DEPTH);
		cr_assert_eq(io_getevents(context, AIO_DEPTH, AIO_DEPTH, events, NULL), AIO_DEPTH);
		for (unsigned i = 0; i < AIO_DEPTH; i++) {
			cr_assert_eq(events[i].res, 4096u);
			must_pread(buffered, found, 4096, i * 8192);
			cr_assert(first_difference(found, page[i], 4096) < 0,
			    "round %u, page %u: stale", round, i);
		}
	}
	io_destroy(context);
	close(direct);
	close(buffered);
	scene_umount(&scene);
}

Test(io, memory_mapped_pages_are_read_written_and_synced)
{
	struct scene scene = scene_with_disk(MIB(2), 512);
	unsigned char expected[10000];
	int fd = must_open(scene.file, O_RDWR);
	unsigned char *map = mmap(NULL, MIB(2), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	cr_assert(map != MAP_FAILED, "mmap: %s", strerror(errno));
	pattern_fill(expected, sizeof(expected), 0, 3);
	must_pwrite(fd, expected, 5000, 4000);
	cr_assert(memcmp(map + 4000, expected, 5000) == 0);
	memcpy(map + MIB(1) - 5000, expected, sizeof(expected));
	cr_assert(msync(map, MIB(2), MS_SYNC) == 0);
	must_hold(scene.backing, expected, sizeof(expected), MIB(1) - 5000);
	must_hold(scene.file, expected, sizeof(expected), MIB(1) - 5000);
	memset(map + MIB(2) - 10, 0x11, 10);
	cr_assert(munmap(map, MIB(2)) == 0);
	close(fd);
	scene_umount(&scene);
	memset(expected, 0x11, 10);
	must_hold(scene.backing, expected, 10, MIB(2) - 10);
}

Test(io, vectors_of_odd_pieces_are_gathered_and_scattered)
{
	struct scene scene = scene_with_disk(MIB(2), 512);
	const int flags[] = {0, O_DIRECT};
	const size_t pieces[] = {1, 511, 4097, 3, 70001, 0, 13};
	const size_t n = G_N_ELEMENTS(pieces);

	for (unsigned f = 0; f < G_N_ELEMENTS(flags); f++) {
		struct iovec out[G_N_ELEMENTS(pieces)], in[G_N_ELEMENTS(pieces)];
		int fd = must_open(scene.file, O_RDWR | flags[f]);
		size_t total = 0;
		uint64_t at = 12345;

		for (size_t i = 0; i < n; i++) {
			out[i] = (struct iovec){aligned_buffer(pieces[i] + 1), pieces[i]};
			in[i] = (struct iovec){aligned_buffer(pieces[i] + 1), pieces[i]};
			pattern_fill(out[i].iov_base, pieces[i], at + total, f);
			total += pieces[i];
		}
		cr_assert_eq(pwritev(fd, out, (int)n, (off_t)at), (ssize_t)total);
		cr_assert_eq(preadv(fd, in, (int)n, (off_t)at), (ssize_t)total);
		for (size_t i = 0; i < n; i++)
			cr_assert(memcmp(in[i].iov_base, out[i].iov_base, pieces[i]) == 0);
		close(fd);
		for (size_t i = 0, from = at; i < n; from += pieces[i++])
			if (pieces[i])
				must_hold(scene.backing, out[i].iov_base, pieces[i], from);
	}
	scene_umount(&scene);
}

Test(io, every_handle_sees_the_latest_write_of_every_other)
{
	struct scene scene = scene_with_disk(MIB(1), 512);
	const int flags[] = {O_RDWR, O_RDWR | O_DIRECT, O_RDWR | O_SYNC};
	unsigned char *written = aligned_buffer(4096), *found = aligned_buffer(4096);
	unsigned rounds = (unsigned)scaled(100);
	int fds[G_N_ELEMENTS(flags)];

	for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++)
		fds[i] = must_open(scene.file, flags[i]);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned writer = round % G_N_ELEMENTS(flags);

		pattern_fill(written, 4096, round, writer);
		must_pwrite(fds[writer], written, 4096, 4096 * (round % 7));
		for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
			must_pread(fds[i], found, 4096, 4096 * (round % 7));
			cr_assert(first_difference(found, written, 4096) < 0,
			    "round %u: handle %u does not see what %u wrote", round, i, writer);
		}
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++)
		close(fds[i]);
	scene_umount(&scene);
}
