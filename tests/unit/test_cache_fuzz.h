/*
 * test_cache_fuzz.h - random requests to cache, and what their answers may be, for
 * test_cache_random.c.
 *
 * A slot is a request, again and again another one: any range of the LUN down to a unit of the
 * model, data in frames or not, in one piece or several; READs are lent or not.
 */
#pragma once

#include "lunfs/block.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "lunfs/frames.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "support/memory_block.h"
#include "unit/test_cache_model.h"

enum { SLOTS = 24, LUNS = 2, READERS = 3, PIECES = 4 };

struct mode {
	const char *name;
	uint32_t block_size;
	unsigned blocks, luns;
	bool whole, writethrough, losses, failures, gone, fences, cuts, little_memory;
	unsigned dirty_expire_ms;
	size_t readahead;
};

struct fuzz;

struct lun {
	struct fuzz *fuzz;
	struct model model;
	struct memory_block *memory;
	struct block *retain, *cache;
	uint8_t *image; /* what a life starts with */
	uint64_t size, cursors[READERS];
	uint32_t fence; /* what was written up to here may not be sent */
	bool gone, away;
};

struct slot {
	struct io io;
	struct iovec iov[PIECES];
	struct fuzz *fuzz;
	struct lun *lun;
	bool busy, cancelled;
	uint32_t id;
	unsigned first, count; /* units that it reads, or changes as a whole */
	uint32_t *floors;      /* READ, FLUSH: what was acknowledged when it was submitted */
	uint8_t *data;
	uint8_t *run; /* where the data lies in frames */
	size_t run_length;
};

struct fuzz {
	const struct mode *mode;
	struct loop *loop;
	struct pool *pool;
	struct frames *frames;
	struct cache_memory *pages;
	struct retain_memory limits;
	struct lun luns[LUNS];
	GRand *random;
	uint32_t seed, ids;
	unsigned busy, calls, done, flushed, operations;
	uint8_t *ballast[64];
	struct slot slots[SLOTS];
};

static inline uint32_t fuzz_below(struct fuzz *fuzz, uint32_t limit)
{
	return g_rand_int(fuzz->random) % limit;
}

static inline bool fuzz_chance(struct fuzz *fuzz, uint32_t of)
{
	return fuzz_below(fuzz, of) == 0;
}

static inline struct lun *fuzz_lun(struct fuzz *fuzz)
{
	return &fuzz->luns[fuzz_below(fuzz, fuzz->mode->luns)];
}

/* ---- what comes back ---- */

static inline void expect_error(const struct slot *slot, int error)
{
	const struct mode *mode = slot->fuzz->mode;
	bool known = !error || (error == -EINTR && slot->cancelled);

	if (error == -EIO || error == -ENOSPC)
		known |= mode->failures || mode->gone;
	if (error == -EIO || error == -EBADE)
		known |= slot->lun->fence > 0;
	cr_assert(known, "%s ends with %s; %s, seed %u", io_op_name(slot->io.op), strerror(-error),
	    mode->name, slot->fuzz->seed);
}

static inline void slot_collect_lent(struct slot *slot)
{
	const struct io *io = &slot->io;
	uint64_t at = 0;

	for (int i = 0; i < io->niov; i++) {
		cr_assert(io->iov[i].iov_len <= io->length - at, "too much is lent, seed %u",
		    slot->fuzz->seed);
		memcpy(slot->data + at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	cr_assert_eq(at, io->length, "too little is lent, seed %u", slot->fuzz->seed);
}

static inline void slot_flushed(struct slot *slot)
{
	struct model *model = &slot->lun->model;

	model_expect(model, 0, model->units, memory_block_stable(slot->lun->memory), slot->floors,
	    "a FLUSH");
	for (unsigned i = 0; i < model->units; i++)
		model->synced[i] = MAX(model->synced[i], slot->floors[i]);
	slot->fuzz->flushed++;
}

/* What the target has to have when a WRITE, ZERO or DISCARD is done. */
static inline void slot_changed(struct slot *slot)
{
	const struct mode *mode = slot->fuzz->mode;
	struct model *model = &slot->lun->model;
	const struct memory_block *memory = slot->lun->memory;
	size_t offset = (size_t)slot->first * UNIT;
	g_autofree uint32_t *floors = g_new(uint32_t, slot->count + 1);

	model_raise(model->acked, slot->first, slot->count, slot->id);
	for (unsigned i = 0; i < slot->count; i++)
		floors[i] = slot->id;
	if (slot->io.flags & IO_FUA) {
		model_raise(model->synced, slot->first, slot->count, slot->id);
		model_expect(model, slot->first, slot->count, memory_block_stable(memory) + offset,
		    floors, "a FUA write");
	}
	if (!mode->losses && ((slot->io.flags & IO_DIRECT) || mode->writethrough))
		model_expect(model, slot->first, slot->count, memory->content + offset, floors,
		    "a write through");
}

static inline void slot_done(struct io *io, int error)
{
	struct slot *slot = (struct slot *)io;
	struct fuzz *fuzz = slot->fuzz;

	cr_assert(slot->busy, "done twice, seed %u", fuzz->seed);
	cr_assert_eq(fuzz->calls, 0, "done from inside submit, seed %u", fuzz->seed);
	expect_error(slot, error);
	if (!error && io->op == IO_READ) {
		if (io->flags & IO_LEND)
			slot_collect_lent(slot);
		model_expect(
		    &slot->lun->model, slot->first, slot->count, slot->data, slot->floors, "READ");
	} else if (!error && io->op == IO_FLUSH) {
		slot_flushed(slot);
	} else if (!error) {
		slot_changed(slot);
	}
	if (slot->run)
		frames_release(fuzz->frames, slot->run, slot->run_length);
	else if (slot->data) /* whoever still uses it shall be found out */
		memset(slot->data, 0x5a, io->length);
	g_clear_pointer(&slot->data, g_free);
	g_clear_pointer(&slot->floors, g_free);
	slot->run = NULL;
	slot->busy = false;
	fuzz->busy--;
	fuzz->done++;
}

/* ---- requests ---- */

/* Its range: offset and length, and the units in it that it is about. */
static inline void slot_place(struct slot *slot)
{
	struct fuzz *fuzz = slot->fuzz;
	struct lun *lun = slot->lun;
	const struct model *model = &lun->model;
	struct io *io = &slot->io;
	bool whole = fuzz->mode->whole || fuzz_chance(fuzz, 3);
	unsigned grain = whole ? model->units_per_block : 1;
	unsigned longest = fuzz_chance(fuzz, 16)  ? MIN(fuzz->mode->blocks, 64)
	                   : fuzz_chance(fuzz, 3) ? 16
	                                          : 2;
	unsigned count = 1 + fuzz_below(fuzz, longest * (model->units_per_block / grain));
	unsigned first = fuzz_below(fuzz, model->units / grain - count + 1) * grain;
	uint64_t *cursor = &lun->cursors[fuzz_below(fuzz, READERS)];

	count *= grain;
	if (io->op == IO_READ && fuzz_chance(fuzz, 3)) {
		if (*cursor / UNIT + count > model->units)
			*cursor = 0;
		first = (unsigned)(*cursor / UNIT);
	}
	io->offset = (uint64_t)first * UNIT;
	io->length = (uint64_t)count * UNIT;
	if (io->op == IO_READ) {
		*cursor = io->offset + io->length;
		io->reader = (uint64_t)(cursor - lun->cursors);
	}
	slot->first = first;
	slot->count = count;
	if (io->op == IO_DISCARD) { /* what it covers in part stays */
		unsigned per = model->units_per_block;
		slot->first = (first + per - 1) / per * per;
		unsigned end = (first + count) / per * per;
		slot->count = end > slot->first ? end - slot->first : 0;
	}
}

/* Cuts length bytes at data into pieces. */
static inline void slot_cut(struct slot *slot, uint8_t *data)
{
	size_t left = slot->io.length;

	slot->io.iov = slot->iov;
	while (left) {
		size_t piece = slot->io.niov == PIECES - 1 || fuzz_chance(slot->fuzz, 2)
		                   ? left
		                   : 1 + fuzz_below(slot->fuzz, (uint32_t)left);
		slot->iov[slot->io.niov++] = (struct iovec){data, piece};
		data += piece;
		left -= piece;
	}
}

/* The data of a WRITE may lie in frames, as it comes from /dev/fuse: anywhere in them, or at the
 * same place in a page as on the LUN. */
static inline uint8_t *slot_frames(struct slot *slot)
{
	struct fuzz *fuzz = slot->fuzz;
	size_t shift = fuzz_chance(fuzz, 2) ? slot->io.offset % FRAME_SIZE
	                                    : fuzz_below(fuzz, FRAME_SIZE / UNIT) * UNIT;
	unsigned frames = (unsigned)((shift + slot->io.length + FRAME_SIZE - 1) / FRAME_SIZE),
	         given;

	if (!fuzz_chance(fuzz, 2))
		return NULL;
	given = frames_get(fuzz->frames, frames, &slot->run);
	if (!given)
		return NULL;
	slot->run_length = (size_t)given * FRAME_SIZE;
	if (given == frames)
		return slot->run + shift;
	frames_release(fuzz->frames, slot->run, slot->run_length);
	slot->run = NULL;
	return NULL;
}

static inline void slot_fill(struct slot *slot)
{
	struct model *model = &slot->lun->model;
	uint8_t *data;

	slot->id = ++slot->fuzz->ids;
	if (slot->io.op == IO_ZERO)
		model_raise(model->zeroed, slot->first, slot->count, slot->id);
	if (slot->io.op == IO_DISCARD)
		model_raise(model->discarded, slot->first, slot->count, slot->id);
	if (slot->io.op != IO_WRITE)
		return;
	data = slot_frames(slot);
	if (!data)
		data = slot->data = g_malloc(slot->io.length);
	model_fill(model, slot->id, slot->first, slot->count, data);
	slot_cut(slot, data);
}

static inline void slot_want(struct slot *slot)
{
	const struct model *model = &slot->lun->model;
	struct io *io = &slot->io;

	if (io->op == IO_FLUSH) {
		slot->floors = g_memdup2(model->acked, model->units * sizeof(*model->acked));
		return;
	}
	slot->floors = g_memdup2(model->acked + slot->first, slot->count * sizeof(*model->acked));
	slot->data = g_malloc(io->length);
	memset(slot->data, 0x5a, io->length);
	if (fuzz_chance(slot->fuzz, 6))
		io->flags |= IO_DIRECT;
	if (!(io->flags & IO_DIRECT) && fuzz_chance(slot->fuzz, 2))
		io->flags |= IO_LEND;
	else
		slot_cut(slot, slot->data);
}

static inline void slot_submit(struct slot *slot)
{
	struct fuzz *fuzz = slot->fuzz;

	slot->busy = true;
	fuzz->busy++;
	fuzz->operations++;
	fuzz->calls++;
	block_submit(slot->lun->cache, &slot->io);
	fuzz->calls--;
}

static inline void slot_start(struct slot *slot, struct fuzz *fuzz)
{
	static const enum io_op ops[] = {IO_READ, IO_READ, IO_READ, IO_READ, IO_READ, IO_READ,
	    IO_READ, IO_READ, IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE,
	    IO_WRITE, IO_WRITE, IO_ZERO, IO_DISCARD, IO_FLUSH};
	enum io_op op = ops[fuzz_below(fuzz, G_N_ELEMENTS(ops))];

	*slot = (struct slot){.fuzz = fuzz, .lun = fuzz_lun(fuzz)};
	slot->io = (struct io){.op = op, .done = slot_done, .cancelled = &slot->cancelled};
	if (op != IO_FLUSH)
		slot_place(slot);
	if (op == IO_READ || op == IO_FLUSH)
		slot_want(slot);
	else
		slot_fill(slot);
	if (op == IO_WRITE && fuzz_chance(fuzz, 6))
		slot->io.flags |= IO_DIRECT;
	if ((op == IO_WRITE || op == IO_ZERO) && fuzz_chance(fuzz, 10))
		slot->io.flags |= IO_FUA;
	slot->cancelled = fuzz_chance(fuzz, 100);
	slot_submit(slot);
}
