/*
 * test_retain_random.c - random requests and losses above a memory that forgets, against a model.
 *
 * Each write has a number, higher than those before it, and fills its blocks with it. As no two
 * requests that conflict overlap (the test sees to that, as align does), the numbers that a block
 * is given only rise. So the model needs one number per block: that of the last acknowledged write.
 * What is read may be newer (a write that failed may have landed all the same), never older; and
 * what is on stable storage may not be older than what was acknowledged before the last FLUSH was
 * sent. Blocks of zeros and discarded ones are told apart by the last such request; after a DISCARD
 * anything may be read.
 */
#include "lunfs/block.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/frames.h"
#include "support/memory_block.h"
#include "support/seed.h"
#include "support/stage.h"

enum {
	SLOTS = 16,
	BLOCK = 64,
	BLOCKS = 48,
	LONGEST = 12, /* blocks of a request */
	SIZE = BLOCK * BLOCKS,
};

enum losses { LOSE_ALL_WAYS, LOSE_SESSIONS };

struct mode {
	const char *name;
	bool keep, volatile_cache, flips, failures, gone;
	enum losses losses;
	size_t limit, floor;
};

struct slot {
	struct io io;
	struct iovec iov[3];
	struct fuzz *fuzz;
	bool busy, cancelled;
	uint32_t id;
	uint32_t floors[BLOCKS]; /* READ, FLUSH: what was acknowledged when it was submitted */
	uint8_t data[LONGEST * BLOCK];
	uint8_t *frame; /* of a WRITE: where its data is, or some of it, or NULL */
};

struct fuzz {
	const struct mode *mode;
	struct loop *loop;
	struct frames *frames;
	struct memory_block *memory;
	struct block *retain;
	struct retain_memory limits;
	GRand *random;
	uint32_t seed, ids;
	unsigned busy, errors, forgotten, flushed, losses;
	bool gone, away, lazy; /* lazy: it flushes seldom */
	uint32_t acked[BLOCKS], zeroed[BLOCKS], discarded[BLOCKS];
	int users[BLOCKS]; /* READs, or -1: one that changes */
	struct slot slots[SLOTS];
};

static uint32_t fuzz_below(struct fuzz *fuzz, uint32_t limit)
{
	return g_rand_int(fuzz->random) % limit;
}

static bool fuzz_chance(struct fuzz *fuzz, uint32_t of)
{
	return fuzz_below(fuzz, of) == 0;
}

/* ---- the model ---- */

/* Is the content of a block from its write number `floor`, or a newer one? */
static void expect_block(
    struct fuzz *fuzz, unsigned block, const uint8_t *content, uint32_t floor, const char *where)
{
	uint32_t id;

	if (fuzz->discarded[block] && fuzz->discarded[block] >= floor)
		return;
	memcpy(&id, content, sizeof(id));
	for (unsigned i = 0; i < BLOCK; i += sizeof(id))
		cr_assert_eq(memcmp(content + i, &id, sizeof(id)), 0,
		    "%s: block %u is torn, seed %u", where, block, fuzz->seed);
	if (id == 0)
		id = fuzz->zeroed[block];
	else if (*content == MEMORY_DISCARDED && id == 0xddddddddu)
		id = fuzz->discarded[block];
	cr_assert(id >= floor && id <= fuzz->ids,
	    "%s: block %u is of write %u, and %u was acknowledged; %s, seed %u", where, block, id,
	    floor, fuzz->mode->name, fuzz->seed);
}

static void expect_all(
    struct fuzz *fuzz, const uint8_t *content, const uint32_t *floors, const char *where)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		expect_block(fuzz, i, content + (size_t)i * BLOCK, floors[i], where);
}

static bool op_reads(enum io_op op)
{
	return op == IO_READ;
}

static bool range_take(struct fuzz *fuzz, enum io_op op, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++) {
		if (fuzz->users[i] < 0 || (fuzz->users[i] > 0 && !op_reads(op)))
			return false;
	}
	for (unsigned i = first; i < first + count; i++)
		fuzz->users[i] += op_reads(op) ? 1 : -1;
	return true;
}

static void expect_error(const struct slot *slot, int error)
{
	const struct fuzz *fuzz = slot->fuzz;
	bool known = !error || (error == -EINTR && slot->cancelled);

	if (error == -EIO || error == -ENOSPC)
		known |= fuzz->mode->failures || fuzz->mode->gone;
	if (error == -EIO && slot->io.op == IO_FLUSH)
		known |= fuzz->forgotten > 0;
	cr_assert(known, "%s ends with %s; %s, seed %u", io_op_name(slot->io.op), strerror(-error),
	    fuzz->mode->name, fuzz->seed);
}

static void slot_acked(struct slot *slot, unsigned first, unsigned count)
{
	struct fuzz *fuzz = slot->fuzz;

	for (unsigned i = first; i < first + count; i++) {
		if (slot->io.op == IO_READ) {
			expect_block(fuzz, i, slot->data + (size_t)(i - first) * BLOCK,
			    slot->floors[i], "READ");
			continue;
		}
		fuzz->acked[i] = slot->id;
		if (slot->io.flags & IO_FUA)
			expect_block(fuzz, i, memory_block_stable(fuzz->memory) + (size_t)i * BLOCK,
			    slot->id, "a FUA write");
	}
	if (slot->io.op == IO_FLUSH) {
		expect_all(fuzz, memory_block_stable(fuzz->memory), slot->floors, "a FLUSH");
		fuzz->flushed++;
	}
}

static void slot_done(struct io *io, int error)
{
	struct slot *slot = (struct slot *)io;
	struct fuzz *fuzz = slot->fuzz;
	unsigned first = (unsigned)(io->offset / BLOCK), count = (unsigned)(io->length / BLOCK);

	cr_assert(slot->busy, "done twice, seed %u", fuzz->seed);
	expect_error(slot, error);
	for (unsigned i = first; i < first + count; i++)
		fuzz->users[i] += op_reads(io->op) ? -1 : 1;
	if (!error)
		slot_acked(slot, first, count);
	else
		fuzz->errors++;
	if (slot->frame)
		frames_release(fuzz->frames, g_steal_pointer(&slot->frame), FRAME_SIZE);
	memset(slot->data, 0x5a, sizeof(slot->data)); /* whoever still uses it shall be found out */
	slot->busy = false;
	fuzz->busy--;
}

/* ---- requests ---- */

static void slot_fill(struct slot *slot, unsigned first, unsigned count)
{
	struct fuzz *fuzz = slot->fuzz;

	slot->id = ++fuzz->ids;
	for (unsigned i = first; i < first + count; i++) {
		if (slot->io.op == IO_ZERO)
			fuzz->zeroed[i] = slot->id;
		else if (slot->io.op == IO_DISCARD)
			fuzz->discarded[i] = slot->id;
	}
	for (size_t i = 0; i < (size_t)count * BLOCK; i += sizeof(slot->id))
		memcpy(slot->data + i, &slot->id, sizeof(slot->id));
}

/* Of a WRITE mostly all of it lies in a frame, or some does, or nothing. */
static void slot_cut(struct slot *slot)
{
	struct fuzz *fuzz = slot->fuzz;
	size_t at = 0, length = slot->io.length;
	size_t skip = fuzz_below(fuzz, 4) ? fuzz_below(fuzz, FRAME_SIZE - (uint32_t)length) : 0;
	bool mixed = fuzz_chance(fuzz, 4);

	if (slot->io.op == IO_WRITE && !fuzz_chance(fuzz, 3))
		frames_get(fuzz->frames, 1, &slot->frame);
	slot->io.iov = slot->iov;
	while (at < length) {
		size_t left = length - at;
		size_t piece = slot->io.niov == 2 ? left : 1 + fuzz_below(fuzz, (uint32_t)left);
		uint8_t *from = slot->data + at;
		if (slot->frame && !(mixed && fuzz_chance(fuzz, 2)))
			from = memcpy(slot->frame + skip + at, from, piece);
		slot->iov[slot->io.niov++] = (struct iovec){from, piece};
		at += piece;
	}
}

static bool slot_start(struct slot *slot)
{
	static const enum io_op ops[] = {IO_READ, IO_READ, IO_READ, IO_READ, IO_WRITE, IO_WRITE,
	    IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_ZERO, IO_DISCARD, IO_FLUSH};
	struct fuzz *fuzz = slot->fuzz;
	enum io_op op = ops[fuzz_below(fuzz, G_N_ELEMENTS(ops))];
	unsigned count =
	    op == IO_FLUSH ? 0 : 1 + fuzz_below(fuzz, fuzz_chance(fuzz, 3) ? LONGEST : 3);
	unsigned first = op == IO_FLUSH ? 0 : fuzz_below(fuzz, BLOCKS - count + 1);

	if (!range_take(fuzz, op, first, count))
		return false;
	slot->cancelled = false;
	slot->io = (struct io){
	    .op = op,
	    .offset = (uint64_t)first * BLOCK,
	    .length = (uint64_t)count * BLOCK,
	    .done = slot_done,
	    .cancelled = &slot->cancelled,
	};
	if (op == IO_READ || op == IO_FLUSH)
		memcpy(slot->floors, fuzz->acked, sizeof(slot->floors));
	else
		slot_fill(slot, first, count);
	if (op == IO_READ || op == IO_WRITE)
		slot_cut(slot);
	if ((op == IO_WRITE || op == IO_ZERO) && fuzz_chance(fuzz, 8))
		slot->io.flags = IO_FUA;
	slot->busy = true;
	fuzz->busy++;
	block_submit(fuzz->retain, &slot->io);
	cr_assert(slot->busy, "done from inside submit, seed %u", fuzz->seed);
	return true;
}

/* ---- trouble ---- */

static void fuzz_lose(struct fuzz *fuzz)
{
	fuzz->losses++;
	switch (
	    fuzz->mode->losses == LOSE_SESSIONS ? 5 + fuzz_below(fuzz, 2) : fuzz_below(fuzz, 7)) {
	case 0:
	case 1:
		memory_block_crash(fuzz->memory, -ESTALE);
		break;
	case 2:
		if (fuzz_chance(fuzz, 2))
			memory_block_unit_attention(fuzz->memory);
		memory_block_crash(fuzz->memory, -ESTALE);
		memory_block_crash(fuzz->memory, -ESTALE);
		break;
	case 3:
	case 4:
		memory_block_unit_attention(fuzz->memory);
		break;
	case 5:
		block_raise(&fuzz->memory->block, BLOCK_LOST);
		break;
	default:
		memory_block_lose(fuzz->memory);
		fuzz->away = true;
		break;
	}
}

static void fuzz_come_back(struct fuzz *fuzz)
{
	if (fuzz->away)
		memory_block_back(fuzz->memory, false);
	fuzz->away = false;
	if (fuzz->gone)
		block_raise(&fuzz->memory->block, BLOCK_BACK);
	fuzz->gone = false;
}

static void fuzz_trouble(struct fuzz *fuzz)
{
	switch (fuzz_below(fuzz, 8)) {
	case 0:
	case 1:
		fuzz_lose(fuzz);
		break;
	case 2:
		if (fuzz->mode->failures)
			memory_block_fail(fuzz->memory, fuzz_below(fuzz, 6),
			    fuzz_chance(fuzz, 2) ? -EIO : -ENOSPC);
		break;
	case 3:
		if (fuzz->mode->gone && !fuzz->gone) {
			fuzz->gone = true;
			block_raise(&fuzz->memory->block, BLOCK_GONE);
			if (fuzz_chance(fuzz, 2))
				fuzz_lose(fuzz);
		}
		break;
	case 4:
		if (fuzz->mode->flips && fuzz_chance(fuzz, 20))
			fuzz->memory->block.limits.volatile_cache = false;
		break;
	default:
		fuzz->slots[fuzz_below(fuzz, SLOTS)].cancelled = true;
		break;
	}
}

static void fuzz_turn(struct fuzz *fuzz, bool may_block)
{
	g_main_context_iteration(loop_context(fuzz->loop), may_block);
}

/* Some progress below. False: there is nothing to do there. */
static bool fuzz_below_goes_on(struct fuzz *fuzz)
{
	if (fuzz_chance(fuzz, 4))
		memory_block_land(fuzz->memory);
	if (fuzz_chance(fuzz, 3) && memory_block_execute(fuzz->memory))
		return true;
	return memory_block_step(fuzz->memory);
}

static void fuzz_finish(struct fuzz *fuzz)
{
	memory_block_fail(fuzz->memory, 0, 0);
	fuzz_come_back(fuzz);
	for (unsigned idle = 0; fuzz->busy || memory_block_in_flight(fuzz->memory);) {
		if (fuzz_below_goes_on(fuzz)) {
			idle = 0;
			continue;
		}
		/* the pause after an own flush that failed is a second */
		cr_assert(++idle < 10, "stuck; %s, seed %u", fuzz->mode->name, fuzz->seed);
		fuzz_turn(fuzz, idle > 5);
	}
}

static void fuzz_request(struct fuzz *fuzz, enum io_op op)
{
	struct slot *slot = &fuzz->slots[0];

	do {
		slot->cancelled = false;
		slot->busy = true;
		fuzz->busy++;
		slot->io = (struct io){.op = op, .done = slot_done};
		memcpy(slot->floors, fuzz->acked, sizeof(slot->floors));
		unsigned flushed = fuzz->flushed;
		block_submit(fuzz->retain, &slot->io);
		fuzz_finish(fuzz);
		if (fuzz->flushed > flushed)
			return;
	} while (fuzz->forgotten);
	cr_assert_fail("the last FLUSH fails, seed %u", fuzz->seed);
}

/* Nothing in between: what is acknowledged is read; then flushed; then a crash changes nothing. */
static void fuzz_judge(struct fuzz *fuzz)
{
	fuzz_finish(fuzz);
	if (!retain_stats(fuzz->retain)->resending)
		expect_all(fuzz, fuzz->memory->content, fuzz->acked, "the end");
	fuzz_request(fuzz, IO_FLUSH);
	expect_all(fuzz, memory_block_stable(fuzz->memory), fuzz->acked, "the last FLUSH");
	cr_assert_eq(retain_stats(fuzz->retain)->kept, 0, "seed %u", fuzz->seed);
	memory_block_crash(fuzz->memory, -ESTALE);
	fuzz_finish(fuzz);
	expect_all(fuzz, fuzz->memory->content, fuzz->acked, "after the last crash");
}

static void fuzz_event(struct block *block, enum block_event event, void *data)
{
	struct fuzz *fuzz = data;

	(void)block;
	if (event != BLOCK_FORGOTTEN)
		return;
	cr_assert(!fuzz->mode->keep, "it forgets, seed %u", fuzz->seed);
	fuzz->forgotten++;
}

static void fuzz_run(uint32_t seed, const struct mode *mode, unsigned steps)
{
	struct fuzz *fuzz = g_new0(struct fuzz, 1);
	unsigned trouble;

	fuzz->seed = seed;
	fuzz->mode = mode;
	fuzz->random = g_rand_new_with_seed(seed);
	fuzz->loop = loop_new();
	fuzz->frames = frames_new(1 << 20, 1 << 20);
	fuzz->memory = memory_block_new(fuzz->loop, SIZE, BLOCK);
	fuzz->memory->block.limits.volatile_cache = mode->volatile_cache;
	fuzz->limits = (struct retain_memory){fuzz->frames, mode->limit, mode->floor, 0};
	fuzz->retain =
	    retain_new(&fuzz->memory->block, fuzz->loop, &fuzz->limits, "fuzz", mode->keep);
	fuzz->retain->on_event = fuzz_event;
	fuzz->retain->on_event_data = fuzz;
	fuzz->memory->reads_overlap = true;
	memory_block_shuffle(fuzz->memory, seed);
	memory_block_hold(fuzz->memory, true);
	fuzz->lazy = fuzz_chance(fuzz, 2);
	trouble = 10 + fuzz_below(fuzz, 100);
	for (unsigned step = 0, tries = 0; step < steps && tries < 40 * steps; tries++) {
		struct slot *slot = &fuzz->slots[fuzz_below(fuzz, SLOTS)];
		slot->fuzz = fuzz;
		if (!slot->busy && fuzz_chance(fuzz, 2))
			step += slot_start(slot);
		else if (fuzz_chance(fuzz, trouble))
			fuzz_trouble(fuzz);
		else if ((fuzz->away || fuzz->gone) && fuzz_chance(fuzz, 20))
			fuzz_come_back(fuzz);
		else if (!fuzz_below_goes_on(fuzz))
			fuzz_turn(fuzz, false);
	}
	fuzz->slots[0].fuzz = fuzz;
	fuzz_judge(fuzz);
	block_free(fuzz->retain);
	cr_assert_eq(fuzz->limits.used, 0, "memory is still counted, seed %u", seed);
	cr_assert_eq(frames_in_use(fuzz->frames), 0, "memory was not returned, seed %u", seed);
	frames_free(fuzz->frames);
	loop_free(fuzz->loop);
	g_rand_free(fuzz->random);
	g_free(fuzz);
}

static void fuzz_many(const struct mode *mode, unsigned long runs)
{
	uint32_t seed = test_seed(mode->name);

	log_set_level(LOG_LEVEL_ERROR);
	if (!mode->keep)
		log_to_syslog(NULL, NULL); /* it tells each time what it lost */
	runs = MAX(scaled(runs), 1);
	for (uint32_t i = 0; i < runs; i++)
		fuzz_run(seed + i, mode, 1000);
}

#define ROOMY .limit = 1 << 20, .floor = 64 << 10

Test(safety_03, random_losses_lose_nothing, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){.name = "losses", .keep = true, .volatile_cache = true, ROOMY}, 320);
}

Test(safety_03, random_losses_and_failing_commands_lose_nothing, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){
	        .name = "failures", .keep = true, .volatile_cache = true, .failures = true, ROOMY},
	    240);
}

Test(safety_03, random_losses_and_targets_that_are_gone_for_a_while_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "gone",
	              .keep = true,
	              .volatile_cache = true,
	              .failures = true,
	              .gone = true,
	              ROOMY},
	    240);
}

Test(safety_08, random_losses_with_little_memory_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "little memory",
	              .keep = true,
	              .volatile_cache = true,
	              .limit = 40 << 10,
	              .floor = 6 << 10},
	    240);
}

Test(safety_01, random_losses_without_a_volatile_cache_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "no cache", .keep = true, .failures = true, ROOMY}, 80);
}

Test(safety_01, a_cache_that_is_turned_off_amid_random_losses_loses_nothing, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){
	        .name = "turned off", .keep = true, .volatile_cache = true, .flips = true, ROOMY},
	    80);
}

Test(safety_07, random_lost_sessions_of_a_shared_lun_lose_no_unacknowledged_write, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){
	        .name = "shared", .volatile_cache = true, .losses = LOSE_SESSIONS, ROOMY},
	    80);
}
