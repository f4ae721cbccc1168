/*
 * test_extents.c - the store of what is kept, against an array with one cell per block.
 */
#include "../../src/block/extents.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>

#include "support/seed.h"
#include "support/stage.h"

enum { BLOCK = 512, BLOCKS = 1500, IOVECS = 16 }; /* enough for requests of several extents */

struct cell {
	bool kept, due;
	enum io_op op;
	uint8_t value;
	uint64_t sequence;
};

struct fuzz {
	struct frames *frames;
	struct extents extents;
	GRand *random;
	uint32_t seed;
	uint64_t sequence;
	struct cell cells[BLOCKS];
};

static uint32_t fuzz_below(struct fuzz *fuzz, uint32_t limit)
{
	return g_rand_int(fuzz->random) % limit;
}

static unsigned fuzz_range(struct fuzz *fuzz, unsigned *count)
{
	*count = 1 + fuzz_below(fuzz, fuzz_below(fuzz, 8) ? 10 : BLOCKS - 1);
	return fuzz_below(fuzz, BLOCKS - *count + 1);
}

/* Some of the data, at most left bytes: foreign, or in frames, from anywhere in the first on. */
static struct iovec fuzz_piece(struct fuzz *fuzz, uint8_t *data, size_t left)
{
	size_t length = 1 + fuzz_below(fuzz, (uint32_t)left), skip = fuzz_below(fuzz, 2) * 512;
	uint8_t *run;

	if (fuzz_below(fuzz, 4) == 0)
		return (struct iovec){data, length};
	if (fuzz_below(fuzz, 4) == 0)
		skip = fuzz_below(fuzz, FRAME_SIZE);
	if (fuzz_below(fuzz, 2))
		length = left;
	unsigned got = frames_get(
	    fuzz->frames, (unsigned)((skip + length + FRAME_SIZE - 1) / FRAME_SIZE), &run);
	length = MIN(length, (size_t)got * FRAME_SIZE - skip);
	memcpy(run + skip, data, length);
	return (struct iovec){run + skip, length};
}

static void fuzz_keep(struct fuzz *fuzz, enum io_op op)
{
	static uint8_t data[BLOCK * BLOCKS];
	struct iovec iov[IOVECS];
	unsigned count, first = fuzz_range(fuzz, &count);
	size_t length = (size_t)count * BLOCK, before = fuzz->extents.memory;
	size_t kept = frames_kept(fuzz->frames);
	struct io io = {.op = op, .offset = (uint64_t)first * BLOCK, .length = length, .iov = iov};

	for (unsigned i = first; i < first + count; i++) {
		uint8_t value = (uint8_t)g_rand_int(fuzz->random);
		memset(data + (size_t)(i - first) * BLOCK, value, BLOCK);
		fuzz->cells[i] = (struct cell){
		    .kept = true, .op = op, .value = value, .sequence = fuzz->sequence + 1};
	}
	for (size_t at = 0; at < length; at += iov[io.niov++].iov_len)
		iov[io.niov] = io.niov < IOVECS - 1 ? fuzz_piece(fuzz, data + at, length - at)
		                                    : (struct iovec){data + at, length - at};
	size_t cost = extents_cost(&fuzz->extents, &io);
	size_t fresh = extents_fresh(&fuzz->extents, &io);
	cr_assert(extents_keep(&fuzz->extents, &io, ++fuzz->sequence));
	cr_assert_leq(fuzz->extents.memory, before + cost, "seed %u", fuzz->seed);
	cr_assert_leq(frames_kept(fuzz->frames), kept + fresh, "seed %u", fuzz->seed);
	for (int i = 0; i < io.niov; i++) {
		if (frames_contain(fuzz->frames, iov[i].iov_base))
			frames_release(fuzz->frames, iov[i].iov_base, iov[i].iov_len);
	}
	memset(data, 0xee, length);
	cr_assert_eq(frames_kept(fuzz->frames), frames_in_use(fuzz->frames));
}

static void fuzz_remove(struct fuzz *fuzz)
{
	unsigned count, first = fuzz_range(fuzz, &count);

	cr_assert(extents_remove(&fuzz->extents, (uint64_t)first * BLOCK, (uint64_t)count * BLOCK));
	memset(&fuzz->cells[first], 0, count * sizeof(struct cell));
}

static void fuzz_release(struct fuzz *fuzz)
{
	uint64_t upto = fuzz->sequence - MIN(fuzz_below(fuzz, 12), fuzz->sequence);

	extents_release(&fuzz->extents, upto);
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (fuzz->cells[i].sequence <= upto && !fuzz->cells[i].due)
			memset(&fuzz->cells[i], 0, sizeof(struct cell));
	}
}

/* Everything is collected, in order, with its content; some of it fails. */
static void fuzz_resend(struct fuzz *fuzz)
{
	struct iovec iov[64];
	struct io io;
	uint64_t from = 0;

	extents_lose(&fuzz->extents);
	for (unsigned i = 0; i < BLOCKS; i++)
		fuzz->cells[i].due = fuzz->cells[i].kept;
	while (extents_collect(&fuzz->extents, from, &io, iov, 64)) {
		bool fails = fuzz_below(fuzz, 8) == 0;
		size_t at = 0;
		int piece = 0;

		cr_assert(io.offset >= from && io.length > 0 && io.niov <= 64);
		cr_assert(io.op != IO_WRITE || io.length <= EXTENTS_RUN);
		for (uint64_t i = from / BLOCK; i < io.offset / BLOCK; i++)
			cr_assert_not(fuzz->cells[i].due, "it is left out, seed %u", fuzz->seed);
		for (uint64_t i = io.offset / BLOCK; i < (io.offset + io.length) / BLOCK; i++) {
			cr_assert(fuzz->cells[i].due && fuzz->cells[i].op == io.op);
			fuzz->cells[i].due = fails;
			if (io.op != IO_WRITE)
				continue;
			const uint8_t *data = (const uint8_t *)iov[piece].iov_base + at;
			cr_assert_eq(data[0], fuzz->cells[i].value);
			cr_assert_eq(data[BLOCK - 1], fuzz->cells[i].value);
			at += BLOCK;
			if (at == iov[piece].iov_len) {
				at = 0;
				piece++;
			}
		}
		cr_assert_eq(piece, io.niov);
		extents_settle(&fuzz->extents, io.offset, io.length, !fails);
		from = io.offset + io.length;
	}
}

static void fuzz_compare(struct fuzz *fuzz)
{
	static uint8_t data[BLOCK * BLOCKS];
	struct iovec iov[2] = {{data, 1234}, {data + 1234, sizeof(data) - 1234}};
	uint64_t kept = 0, reach = 0;
	unsigned due = 0;

	memset(data, 0x77, sizeof(data));
	extents_overlay(&fuzz->extents, 0, iov, 2);
	for (unsigned i = 0; i < BLOCKS; i++) {
		const struct cell *cell = &fuzz->cells[i];
		uint8_t expected = !cell->kept || cell->op == IO_DISCARD ? 0x77
		                   : cell->op == IO_ZERO                 ? 0
		                                                         : cell->value;
		cr_assert_eq(data[i * BLOCK], expected, "block %u, seed %u", i, fuzz->seed);
		cr_assert_eq(data[(i + 1) * BLOCK - 1], expected);
		kept += cell->kept ? BLOCK : 0;
		due += cell->due;
		if (cell->kept)
			reach = (uint64_t)(i + 1) * BLOCK;
	}
	cr_assert_eq(fuzz->extents.kept, kept);
	cr_assert_eq(fuzz->extents.due > 0, due > 0);
	cr_assert_eq(extents_reach(&fuzz->extents), reach);
	extents_check(&fuzz->extents);
	cr_assert_leq(frames_kept(fuzz->frames), fuzz->extents.memory);
}

static void fuzz_run(uint32_t seed, unsigned steps)
{
	static const enum io_op ops[] = {
	    IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_ZERO, IO_DISCARD};
	struct fuzz *fuzz = g_new0(struct fuzz, 1);

	fuzz->seed = seed;
	fuzz->random = g_rand_new_with_seed(seed);
	fuzz->frames = frames_new(8 << 20, 8 << 20);
	extents_init(&fuzz->extents, fuzz->frames, BLOCK);
	for (unsigned step = 0; step < steps; step++) {
		uint32_t what = fuzz_below(fuzz, 20);
		if (what < 16)
			fuzz_keep(fuzz, ops[fuzz_below(fuzz, G_N_ELEMENTS(ops))]);
		else if (what < 18)
			fuzz_remove(fuzz);
		else if (what < 19)
			fuzz_release(fuzz);
		else
			fuzz_resend(fuzz);
		fuzz_compare(fuzz);
	}
	extents_free(&fuzz->extents);
	cr_assert_eq(fuzz->extents.memory, 0);
	cr_assert_eq(frames_in_use(fuzz->frames), 0, "memory was not returned, seed %u", seed);
	frames_free(fuzz->frames);
	g_rand_free(fuzz->random);
	g_free(fuzz);
}

Test(extents, random_changes_agree_with_an_array, .timeout = 600)
{
	uint32_t seed = test_seed("extents");
	unsigned long runs = MAX(scaled(40), 1);

	for (uint32_t i = 0; i < runs; i++)
		fuzz_run(seed + i, 300);
}

/* ---- frames ---- */

/* Data of so many frames in one run, held by nobody else when it is kept. */
static uint8_t *keep_in_place(struct extents *extents, uint64_t start, size_t length)
{
	uint8_t *run = NULL;
	struct iovec iov = {.iov_len = length};
	struct io io = {.op = IO_WRITE, .offset = start, .length = length, .iov = &iov, .niov = 1};
	unsigned count = (unsigned)((length + FRAME_SIZE - 1) / FRAME_SIZE);

	cr_assert_eq(frames_get(extents->frames, count, &run), count);
	iov.iov_base = memset(run, 7, length);
	cr_assert(extents_keep(extents, &io, 1));
	frames_release(extents->frames, run, length);
	return run;
}

Test(extents, data_in_frames_is_kept_where_it_is_and_each_frame_goes_with_its_last_byte)
{
	struct frames *frames = frames_new(1 << 20, 0);
	struct extents extents;
	struct iovec iov[64];
	struct io io;

	extents_init(&extents, frames, 512);
	uint8_t *run = keep_in_place(&extents, 0, 652 << 10);
	cr_assert_eq(frames_kept(frames), 652 << 10);
	extents_lose(&extents);
	cr_assert(extents_collect(&extents, 0, &io, iov, 64));
	cr_assert(io.niov == 1 && iov[0].iov_base == run && io.length == EXTENTS_RUN);
	cr_assert(extents_remove(&extents, 4096, (256 << 10) - 8192));
	cr_assert_eq(frames_kept(frames), (652 - 256 + 8) << 10);
	cr_assert(extents_remove(&extents, 0, 512));
	cr_assert_eq(frame_keepers(frames, run), 1, "some of it is kept");
	cr_assert(extents_remove(&extents, 1024, 512));
	cr_assert_eq(frame_keepers(frames, run), 2, "by what is before, and what is behind");
	cr_assert(extents_remove(&extents, 0, 4096));
	cr_assert_eq(frame_users(frames, run), 0);
	cr_assert(extents_remove(&extents, (256 << 10) - 512, 512));
	cr_assert_eq(frame_users(frames, run + (255 << 10)), 1);
	extents_check(&extents);
	extents_free(&extents);
	cr_assert_eq(frames_in_use(frames), 0);
	frames_free(frames);
}

Test(extents, short_pieces_of_frames_between_foreign_ones_go_into_one_frame_together)
{
	struct frames *frames = frames_new(1 << 20, 0);
	struct extents extents;
	uint8_t edges[1024] = {1}, *run;
	struct iovec iov[3] = {{edges, 1024}, {NULL, 2048}, {edges, 1024}};
	struct io io = {.op = IO_WRITE, .length = 4096, .iov = iov, .niov = 3};

	extents_init(&extents, frames, 512);
	cr_assert_eq(frames_get(frames, 1, &run), 1);
	iov[1].iov_base = run;
	cr_assert_eq(extents_fresh(&extents, &io), FRAME_SIZE);
	cr_assert(extents_keep(&extents, &io, 1));
	frames_release(frames, run, FRAME_SIZE);
	cr_assert_eq(frames_in_use(frames), FRAME_SIZE);
	extents_check(&extents);
	extents_free(&extents);
	frames_free(frames);
}

Test(extents, a_block_that_lies_in_two_runs_is_copied_and_the_rest_is_not)
{
	struct frames *frames = frames_new(1 << 20, 0);
	struct extents extents;
	uint8_t foreign[100] = {0}, *run;
	struct iovec iov[3] = {{foreign, 100}, {NULL, 8192}, {NULL, 8192 - 100}};
	struct io io = {.op = IO_WRITE, .length = 16384, .iov = iov, .niov = 3};

	extents_init(&extents, frames, 512);
	cr_assert_eq(frames_get(frames, 5, &run), 5);
	iov[1].iov_base = run;
	iov[2].iov_base = run + 3 * FRAME_SIZE;
	cr_assert(extents_keep(&extents, &io, 1));
	for (int i = 0; i < 5; i++)
		cr_assert_eq(frame_keepers(frames, run + i * FRAME_SIZE), i != 2);
	frames_release(frames, run, (size_t)5 * FRAME_SIZE);
	cr_assert_eq(frames_in_use(frames), 6 * FRAME_SIZE,
	    "a copy of the first block, and of "
	    "the one between the runs");
	extents_check(&extents);
	extents_free(&extents);
	cr_assert_eq(frames_in_use(frames), 0);
	frames_free(frames);
}

Test(extents, what_the_cache_keeps_is_not_kept_anew_and_nothing_changes_without_memory)
{
	struct frames *frames = frames_new(256 << 10, 0);
	struct extents extents;
	uint8_t foreign[8192] = {0}, *run;
	struct iovec iov = {NULL, 8192};
	struct io io = {.op = IO_WRITE, .length = 8192, .iov = &iov, .niov = 1};

	extents_init(&extents, frames, 512);
	cr_assert_eq(frames_get(frames, 64, &run), 64);
	iov.iov_base = run;
	cr_assert_eq(extents_fresh(&extents, &io), 8192);
	frames_keep(frames, run + FRAME_SIZE, 1);
	cr_assert_eq(extents_fresh(&extents, &io), 4096);
	cr_assert(extents_keep(&extents, &io, 1));
	cr_assert_eq(extents_fresh(&extents, &io), 0);
	iov.iov_base = foreign;
	cr_assert_eq(extents_fresh(&extents, &io), 8192);
	cr_assert_not(extents_keep(&extents, &io, 2));
	cr_assert_eq(extents.kept, 8192);
	frames_release(frames, run + 8192, FRAME_SIZE);
	cr_assert_not(extents_keep(&extents, &io, 2), "one frame is not enough");
	cr_assert_eq(frames_in_use(frames), 63 * FRAME_SIZE);
	extents_check(&extents);
	extents_free(&extents);
	frames_let_go(frames, run + FRAME_SIZE, 1);
	frames_release(frames, run, 8192);
	frames_release(frames, run + 12288, (256 << 10) - 12288);
	cr_assert_eq(frames_in_use(frames), 0);
	frames_free(frames);
}

Test(extents, many_sequential_writes_cost_no_more_each_than_few)
{
	unsigned long count = scaled(20000);
	struct frames *frames = frames_new(count * FRAME_SIZE, 0);
	struct extents extents;
	uint8_t data[512] = {1};
	struct iovec iov = {data, sizeof(data)};
	double start = seconds_now();

	extents_init(&extents, frames, 512);
	for (uint64_t i = 0; i < count; i++) {
		struct io io = {
		    .op = IO_WRITE, .offset = i * 512, .length = 512, .iov = &iov, .niov = 1};
		cr_assert(extents_keep(&extents, &io, i));
	}
	/* at O(n) each it would be minutes */
	cr_assert_lt(seconds_now() - start, patience(5));
	extents_check(&extents);
	cr_assert(extents_release(&extents, count));
	cr_assert_eq(extents.memory, 0);
	extents_free(&extents);
	frames_free(frames);
}
