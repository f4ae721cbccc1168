/*
 * test_extents.c - the store of what is kept, against an array with one cell per block.
 */
#include "../../src/block/extents.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>

#include "support/seed.h"
#include "support/stage.h"

enum { BLOCK = 512, BLOCKS = 1500 }; /* enough for requests of several buffers */

struct cell {
	bool kept, due;
	enum io_op op;
	uint8_t value;
	uint64_t sequence;
};

struct fuzz {
	struct pool *pool;
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

static void fuzz_keep(struct fuzz *fuzz, enum io_op op)
{
	static uint8_t data[BLOCK * BLOCKS];
	struct iovec iov[3];
	int niov = 0;
	unsigned count, first = fuzz_range(fuzz, &count);
	size_t length = (size_t)count * BLOCK, before = fuzz->extents.memory;

	for (unsigned i = first; i < first + count; i++) {
		uint8_t value = (uint8_t)g_rand_int(fuzz->random);
		memset(data + (size_t)(i - first) * BLOCK, value, BLOCK);
		fuzz->cells[i] = (struct cell){
		    .kept = true, .op = op, .value = value, .sequence = fuzz->sequence + 1};
	}
	for (size_t at = 0; at < length;) {
		size_t piece =
		    niov == 2 ? length - at : 1 + fuzz_below(fuzz, (uint32_t)(length - at));
		iov[niov++] = (struct iovec){data + at, piece};
		at += piece;
	}
	cr_assert(extents_keep(
	    &fuzz->extents, op, (uint64_t)first * BLOCK, length, iov, niov, ++fuzz->sequence));
	cr_assert_leq(fuzz->extents.memory, before + extents_cost(op, length));
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
	extents_check(&fuzz->extents, BLOCK);
}

static void fuzz_run(uint32_t seed, unsigned steps)
{
	static const enum io_op ops[] = {
	    IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_ZERO, IO_DISCARD};
	struct fuzz *fuzz = g_new0(struct fuzz, 1);

	fuzz->seed = seed;
	fuzz->random = g_rand_new_with_seed(seed);
	fuzz->pool = pool_new(1 << 20);
	extents_init(&fuzz->extents, fuzz->pool);
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
	cr_assert_eq(pool_in_use(fuzz->pool), 0, "memory was not returned, seed %u", seed);
	pool_free(fuzz->pool);
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

Test(extents, a_large_write_wastes_little_and_gives_back_each_buffer_with_its_last_user)
{
	struct pool *pool = pool_new(1 << 20);
	struct extents extents;
	g_autofree uint8_t *data = g_malloc0(1 << 20);
	struct iovec iov = {data, 652 << 10};

	extents_init(&extents, pool);
	cr_assert(extents_keep(&extents, IO_WRITE, 0, iov.iov_len, &iov, 1, 1));
	cr_assert_eq(pool_in_use(pool), 652 << 10);
	cr_assert(extents_remove(&extents, 4096, (256 << 10) - 8192));
	cr_assert_eq(pool_in_use(pool), 652 << 10, "both ends of the first buffer are kept");
	cr_assert(extents_remove(&extents, 0, 4096));
	cr_assert_eq(pool_in_use(pool), 652 << 10);
	cr_assert(extents_remove(&extents, 0, 256 << 10));
	cr_assert_eq(pool_in_use(pool), (652 - 256) << 10);
	extents_check(&extents, 512);
	extents_free(&extents);
	cr_assert_eq(pool_in_use(pool), 0);
	pool_free(pool);
}

Test(extents, many_sequential_writes_cost_no_more_each_than_few)
{
	struct pool *pool = pool_new(1 << 20);
	struct extents extents;
	uint8_t data[512] = {1};
	struct iovec iov = {data, sizeof(data)};
	unsigned long count = scaled(20000);
	double start = seconds_now();

	extents_init(&extents, pool);
	for (uint64_t i = 0; i < count; i++)
		cr_assert(extents_keep(&extents, IO_WRITE, i * 512, 512, &iov, 1, i));
	/* at O(n) each it would be minutes */
	cr_assert_lt(seconds_now() - start, patience(5));
	extents_check(&extents, 512);
	cr_assert(extents_release(&extents, count));
	cr_assert_eq(extents.memory, 0);
	extents_free(&extents);
	pool_free(pool);
}
