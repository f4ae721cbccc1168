/*
 * test_align_random.c - random requests through align against a shadow.
 *
 * The shadow changes when a request is submitted, the memory below when it completes, in random
 * order: they agree only where overlapping requests keep the order of submission.
 */
#include "lunfs/block.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>

#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "support/memory_block.h"
#include "support/seed.h"

#define SIZE (64u << 10)

enum { SLOTS = 24, CROWDED = 16384 };

struct slot {
	struct io io;
	struct iovec iov[8];
	struct fuzz *fuzz;
	bool busy;
	uint8_t data[CROWDED], expected[CROWDED];
};

struct fuzz {
	struct loop *loop;
	struct pool *pool;
	struct memory_block *memory;
	struct block *align;
	uint32_t block_size;
	GRand *random;
	uint32_t seed;
	unsigned step, busy;
	uint8_t shadow[SIZE];
	struct slot slots[SLOTS];
};

static uint32_t fuzz_below(struct fuzz *fuzz, uint32_t limit)
{
	return g_rand_int(fuzz->random) % limit;
}

static void slot_done(struct io *io, int error)
{
	struct slot *slot = (struct slot *)io;
	struct fuzz *fuzz = slot->fuzz;

	cr_assert_eq(error, 0, "%s: %d, seed %u", io_op_name(io->op), error, fuzz->seed);
	cr_assert(slot->busy);
	if (io->op == IO_READ)
		cr_assert_eq(memcmp(slot->data, slot->expected, io->length), 0,
		    "READ %lu+%lu saw something else than the last write, seed %u, step %u",
		    (unsigned long)io->offset, (unsigned long)io->length, fuzz->seed, fuzz->step);
	memset(slot->data, 0x5a, sizeof(slot->data)); /* whoever still uses it shall be found out */
	slot->busy = false;
	fuzz->busy--;
}

/* Cuts the slot's buffer into up to 8 pieces. */
static void slot_cut(struct slot *slot, uint32_t length)
{
	uint32_t at = 0;

	slot->io.iov = slot->iov;
	slot->io.niov = 0;
	while (at < length) {
		uint32_t left = length - at;
		uint32_t piece = slot->io.niov == 7 ? left : 1 + fuzz_below(slot->fuzz, left);
		slot->iov[slot->io.niov++] = (struct iovec){slot->data + at, piece};
		at += piece;
	}
}

/* What the request does, in order of submission: that is what align promises. */
static void slot_expect(struct slot *slot)
{
	struct fuzz *fuzz = slot->fuzz;
	uint32_t block_size = fuzz->block_size;
	uint64_t offset = slot->io.offset, length = slot->io.length;

	switch (slot->io.op) {
	case IO_READ:
		memcpy(slot->expected, fuzz->shadow + offset, length);
		break;
	case IO_WRITE:
		for (uint64_t i = 0; i < length; i++)
			slot->data[i] = (uint8_t)g_rand_int(fuzz->random);
		memcpy(fuzz->shadow + offset, slot->data, length);
		break;
	case IO_ZERO:
		memset(fuzz->shadow + offset, 0, length);
		break;
	case IO_DISCARD:
		for (uint64_t b = (offset + block_size - 1) / block_size;
		     (b + 1) * block_size <= offset + length; b++)
			memset(fuzz->shadow + b * block_size, MEMORY_DISCARDED, block_size);
		break;
	default:
		break;
	}
}

static void slot_start(struct slot *slot)
{
	static const enum io_op ops[] = {IO_READ, IO_READ, IO_READ, IO_READ, IO_WRITE, IO_WRITE,
	    IO_WRITE, IO_WRITE, IO_WRITE, IO_ZERO, IO_ZERO, IO_DISCARD, IO_FLUSH};
	struct fuzz *fuzz = slot->fuzz;
	enum io_op op = ops[fuzz_below(fuzz, G_N_ELEMENTS(ops))];
	uint32_t offset = 0, length = 0;

	if (op != IO_FLUSH) {
		length = fuzz_below(fuzz, fuzz_below(fuzz, 4) ? 1500 : CROWDED);
		offset = fuzz_below(
		    fuzz, fuzz_below(fuzz, 2) ? CROWDED - length + 1 : SIZE - length + 1);
		if (fuzz_below(fuzz, 4) == 0)
			offset -= offset % fuzz->block_size;
		if (fuzz_below(fuzz, 4) == 0)
			length -= length % fuzz->block_size;
	}
	slot->io = (struct io){.op = op, .offset = offset, .length = length, .done = slot_done};
	if (op == IO_READ || op == IO_WRITE)
		slot_cut(slot, length);
	if ((op == IO_WRITE || op == IO_ZERO) && fuzz_below(fuzz, 4) == 0)
		slot->io.flags = IO_FUA;
	slot_expect(slot);
	slot->busy = true;
	fuzz->busy++;
	block_submit(fuzz->align, &slot->io);
	cr_assert(slot->busy, "done from inside submit, seed %u", fuzz->seed);
}

static void fuzz_run(uint32_t seed, uint32_t block_size, unsigned steps)
{
	struct fuzz *fuzz = g_new0(struct fuzz, 1);

	fuzz->seed = seed;
	fuzz->random = g_rand_new_with_seed(seed);
	fuzz->block_size = block_size;
	fuzz->loop = loop_new();
	fuzz->pool = pool_new(1 << 20);
	fuzz->memory = memory_block_new(fuzz->loop, SIZE, block_size);
	fuzz->align = align_new(&fuzz->memory->block, fuzz->loop, fuzz->pool);
	memory_block_shuffle(fuzz->memory, seed);
	memory_block_hold(fuzz->memory, true);
	while (fuzz->step < steps || fuzz->busy) {
		struct slot *slot = &fuzz->slots[fuzz_below(fuzz, SLOTS)];
		if (fuzz->step < steps && !slot->busy && fuzz_below(fuzz, 3)) {
			slot->fuzz = fuzz;
			slot_start(slot);
			fuzz->step++;
		} else if (!memory_block_step(fuzz->memory)) {
			unsigned busy = fuzz->busy;
			g_main_context_iteration(
			    loop_context(fuzz->loop), FALSE); /* what ended without being sent */
			cr_assert(!busy || fuzz->busy < busy, "stuck, seed %u", seed);
		}
	}
	cr_assert_eq(memcmp(fuzz->shadow, fuzz->memory->content, SIZE), 0, "seed %u", seed);
	block_free(fuzz->align);
	cr_assert_eq(pool_in_use(fuzz->pool), 0, "scratch was not returned, seed %u", seed);
	pool_free(fuzz->pool);
	loop_free(fuzz->loop);
	g_rand_free(fuzz->random);
	g_free(fuzz);
}

Test(align, random_requests_on_blocks_of_512_bytes_agree_with_a_shadow, .timeout = 600)
{
	uint32_t seed = test_seed("align 512");

	for (uint32_t i = 0; i < 10; i++)
		fuzz_run(seed + i, 512, 2500);
}

Test(align, random_requests_on_blocks_of_4096_bytes_agree_with_a_shadow, .timeout = 600)
{
	uint32_t seed = test_seed("align 4096");

	for (uint32_t i = 0; i < 10; i++)
		fuzz_run(seed + i, 4096, 2500);
}
