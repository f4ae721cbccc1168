/*
 * test_cache_random.c - random requests and trouble through cache, align and retain above memories
 * that forget, against the model of test_cache_model.h.
 *
 * Requests overlap as they like. A run has one or more lives: between two of them the power of our
 * machine is cut, what is left is what the target has, and the next life starts from that.
 */
#include "unit/test_cache_fuzz.h"

#include "lunfs/log.h"
#include "support/seed.h"
#include "support/stage.h"

enum { PATIENCE_MS = 10000, LIFE_MS = 200 };

/* ---- what goes on ---- */

static void fuzz_turn(struct fuzz *fuzz)
{
	g_main_context_iteration(loop_context(fuzz->loop), FALSE);
}

/* Some progress below. False: there is nothing to do there. */
static bool fuzz_goes_on(struct fuzz *fuzz)
{
	unsigned first = fuzz_below(fuzz, fuzz->mode->luns);

	for (unsigned i = 0; i < fuzz->mode->luns; i++) {
		struct memory_block *memory = fuzz->luns[(first + i) % fuzz->mode->luns].memory;
		if (fuzz_chance(fuzz, 4))
			memory_block_land(memory);
		if (fuzz_chance(fuzz, 3) && memory_block_execute(memory))
			return true;
		if (memory_block_step(memory))
			return true;
	}
	return false;
}

static bool fuzz_is_idle(struct fuzz *fuzz)
{
	bool idle = !fuzz->busy;

	for (unsigned i = 0; i < fuzz->mode->luns; i++)
		idle &= !memory_block_in_flight(fuzz->luns[i].memory) &&
		        cache_is_idle(fuzz->luns[i].cache);
	return idle;
}

static void lun_come_back(struct lun *lun)
{
	if (lun->away)
		memory_block_back(lun->memory, false);
	lun->away = false;
	memory_block_fail_all(lun->memory, 0);
	if (lun->gone)
		block_raise(&lun->memory->block, BLOCK_BACK);
	lun->gone = false;
}

static void fuzz_is_stuck(struct fuzz *fuzz)
{
	g_autoptr(GString) text = g_string_new(NULL);

	for (unsigned i = 0; i < SLOTS; i++) {
		const struct io *io = &fuzz->slots[i].io;
		if (fuzz->slots[i].busy)
			g_string_append_printf(text, " %s %lu+%lu flags %u%s,", io_op_name(io->op),
			    (unsigned long)io->offset, (unsigned long)io->length, io->flags,
			    io_is_cancelled(io) ? " cancelled" : "");
	}
	cr_assert_fail("stuck with%s %u requests below, %zu of %zu bytes kept; %s, seed %u",
	    text->str, memory_block_in_flight(fuzz->luns[0].memory), frames_kept(fuzz->frames),
	    frames_limit(fuzz->frames), fuzz->mode->name, fuzz->seed);
}

/* Until nothing is under way, with nothing wrong any more. */
static void fuzz_finish(struct fuzz *fuzz)
{
	int64_t stuck = clock_ms() + PATIENCE_MS;

	for (unsigned i = 0; i < fuzz->mode->luns; i++) {
		memory_block_fail(fuzz->luns[i].memory, 0, 0);
		memory_block_fail_often(fuzz->luns[i].memory, 0, 0);
		lun_come_back(&fuzz->luns[i]);
	}
	while (!fuzz_is_idle(fuzz)) {
		unsigned done = fuzz->done;
		bool went_on = fuzz_goes_on(fuzz);
		fuzz_turn(fuzz);
		if (fuzz->done > done || clock_ms() < stuck - PATIENCE_MS)
			stuck = clock_ms() + PATIENCE_MS;
		else if (!went_on)
			g_usleep(100);
		if (clock_ms() > stuck)
			fuzz_is_stuck(fuzz);
	}
}

/* What is at the target at any time: nothing from nowhere, nothing older than what was synced. */
static void fuzz_examine(struct fuzz *fuzz)
{
	const struct lun *lun = fuzz_lun(fuzz);
	const struct model *model = &lun->model;

	model_expect(model, 0, model->units, memory_block_stable(lun->memory), model->synced,
	    "on stable storage");
	model_expect(model, 0, model->units, lun->memory->content, model->synced, "at the target");
}

/* ---- trouble ---- */

static void lun_lose(struct lun *lun)
{
	switch (fuzz_below(lun->fuzz, 7)) {
	case 0:
	case 1:
		memory_block_crash(lun->memory, -ESTALE);
		break;
	case 2:
		memory_block_unit_attention(lun->memory);
		memory_block_crash(lun->memory, -ESTALE);
		break;
	case 3:
	case 4:
		memory_block_unit_attention(lun->memory);
		break;
	case 5:
		block_raise(&lun->memory->block, BLOCK_LOST);
		break;
	default:
		memory_block_lose(lun->memory);
		lun->away = true;
		break;
	}
}

static void lun_fail(struct lun *lun)
{
	struct fuzz *fuzz = lun->fuzz;
	int error = fuzz_chance(fuzz, 2) ? -EIO : -ENOSPC;

	if (fuzz_chance(fuzz, 2))
		memory_block_fail(lun->memory, fuzz_below(fuzz, 6), error);
	else
		memory_block_fail_often(
		    lun->memory, fuzz_chance(fuzz, 2) ? 0 : 1 + fuzz_below(fuzz, 10), error);
}

static void lun_go(struct lun *lun)
{
	if (lun->gone)
		return;
	lun->gone = true;
	block_raise(&lun->memory->block, BLOCK_GONE);
	if (fuzz_chance(lun->fuzz, 2) && !lun->away) {
		memory_block_fail_all(lun->memory, -EIO);
		memory_block_end_all(lun->memory, -EIO);
	} else if (lun->fuzz->mode->losses && fuzz_chance(lun->fuzz, 2)) {
		lun_lose(lun);
	}
}

/* Another host has the LUN: dirty data may be lost, and must not be written. */
static void lun_fence(struct lun *lun)
{
	struct fuzz *fuzz = lun->fuzz;

	fuzz_finish(fuzz);
	lun->fence = fuzz->ids;
	model_forget(&lun->model);
	block_raise(&lun->memory->block, BLOCK_FENCED);
}

/* What came before FENCED is not sent after it, but as what the target has already. */
static void lun_watch(const struct memory_block *memory, const struct io *io, void *data)
{
	const struct lun *lun = data;
	const struct model *model = &lun->model;
	uint64_t at = io->offset;

	if (!lun->fence || io->op != IO_WRITE)
		return;
	g_autofree uint8_t *bytes = g_malloc(io->length);
	for (int i = 0; i < io->niov; i++) {
		memcpy(bytes + (at - io->offset), io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	for (uint64_t i = 0; i < io->length; i += UNIT) {
		unsigned unit = (unsigned)((io->offset + i) / UNIT);
		uint32_t id = model_writer(model, unit, bytes + i, "a WRITE after FENCED");
		cr_assert(id > lun->fence ||
		              memcmp(bytes + i, memory->content + io->offset + i, UNIT) == 0,
		    "byte %lu of write %u is sent, and FENCED came after %u; %s, seed %u",
		    (unsigned long)(io->offset + i), id, lun->fence, lun->fuzz->mode->name,
		    lun->fuzz->seed);
	}
}

/* Others keep more memory, or less. */
static void fuzz_press(struct fuzz *fuzz)
{
	unsigned from = fuzz_below(fuzz, G_N_ELEMENTS(fuzz->ballast));
	unsigned to = from + fuzz_below(fuzz, G_N_ELEMENTS(fuzz->ballast) - from);
	bool take = fuzz_chance(fuzz, 2);

	for (unsigned i = from; i < to; i++) {
		if (fuzz->ballast[i]) {
			frames_let_go(fuzz->frames, fuzz->ballast[i], FRAME_SIZE);
			fuzz->ballast[i] = NULL;
		}
		if (!take || i >= 60 || !frames_may_keep(fuzz->frames, FRAME_SIZE) ||
		    !frames_get(fuzz->frames, 1, &fuzz->ballast[i]))
			continue;
		frames_keep(fuzz->frames, fuzz->ballast[i], FRAME_SIZE);
		frames_release(fuzz->frames, fuzz->ballast[i], FRAME_SIZE);
	}
}

static void fuzz_trouble(struct fuzz *fuzz)
{
	const struct mode *mode = fuzz->mode;
	struct lun *lun = fuzz_lun(fuzz);

	switch (fuzz_below(fuzz, 9)) {
	case 0:
	case 1:
		if (mode->losses)
			lun_lose(lun);
		break;
	case 2:
		if (mode->failures)
			lun_fail(lun);
		break;
	case 3:
		if (mode->gone)
			lun_go(lun);
		break;
	case 4:
		block_raise(&lun->memory->block, BLOCK_CHANGED);
		break;
	case 5:
		if (mode->fences && fuzz_chance(fuzz, 8))
			lun_fence(lun);
		break;
	case 6:
		if (mode->little_memory)
			fuzz_press(fuzz);
		break;
	default:
		fuzz->slots[fuzz_below(fuzz, SLOTS)].cancelled = true;
		break;
	}
}

static void lun_event(struct block *block, enum block_event event, void *data)
{
	const struct lun *lun = data;

	(void)block;
	cr_assert(event != BLOCK_FORGOTTEN || lun->fence, "it forgets; %s, seed %u",
	    lun->fuzz->mode->name, lun->fuzz->seed);
}

/* ---- lives ---- */

static void lun_start(struct lun *lun)
{
	struct fuzz *fuzz = lun->fuzz;
	const struct mode *mode = fuzz->mode;
	struct cache_options options = {
	    .writethrough = mode->writethrough,
	    .dirty_expire_ms = mode->dirty_expire_ms ? mode->dirty_expire_ms : 3600 * 1000,
	    .readahead = mode->readahead,
	};

	lun->memory = memory_block_new(fuzz->loop, lun->size, mode->block_size);
	memory_block_fill(lun->memory, lun->image);
	lun->memory->reads_overlap = true;
	lun->memory->watch = lun_watch;
	lun->memory->watch_data = lun;
	memory_block_shuffle(lun->memory, g_rand_int(fuzz->random));
	memory_block_hold(lun->memory, true);
	lun->retain = retain_new(&lun->memory->block, fuzz->loop, &fuzz->limits, "fuzz", true);
	lun->cache = cache_new(align_new(lun->retain, fuzz->loop, fuzz->pool), fuzz->loop,
	    fuzz->pages, &options, "fuzz");
	lun->cache->on_event = lun_event;
	lun->cache->on_event_data = lun;
	lun->fence = 0;
}

static void fuzz_live(struct fuzz *fuzz, unsigned steps)
{
	unsigned trouble = 10 + fuzz_below(fuzz, 200), lazy = 1 + fuzz_below(fuzz, 6);
	/* the pauses after failures are long: where all wait for one, it is over */
	int64_t until_ms = fuzz->mode->failures ? clock_ms() + LIFE_MS : INT64_MAX;

	for (unsigned until = fuzz->operations + steps;
	     fuzz->operations < until && (fuzz->busy < SLOTS || clock_ms() < until_ms);) {
		struct slot *slot = &fuzz->slots[fuzz_below(fuzz, SLOTS)];
		struct lun *lun = fuzz_lun(fuzz);
		if (!slot->busy && fuzz_chance(fuzz, 2))
			slot_start(slot, fuzz);
		else if (fuzz_chance(fuzz, trouble))
			fuzz_trouble(fuzz);
		else if ((lun->away || lun->gone) && fuzz_chance(fuzz, 40))
			lun_come_back(lun);
		else if (fuzz_chance(fuzz, 200))
			fuzz_examine(fuzz);
		else if (!fuzz_chance(fuzz, lazy) || !fuzz_goes_on(fuzz))
			fuzz_turn(fuzz);
	}
}

static bool fuzz_flush(struct fuzz *fuzz, struct lun *lun)
{
	struct slot *slot = &fuzz->slots[0];
	unsigned flushed = fuzz->flushed;

	*slot = (struct slot){.fuzz = fuzz,
	    .lun = lun,
	    .io = {.op = IO_FLUSH, .done = slot_done, .cancelled = &slot->cancelled}};
	slot_want(slot);
	slot_submit(slot);
	fuzz_finish(fuzz);
	return fuzz->flushed > flushed;
}

/* Nothing in between: what is acknowledged is flushed, and then a crash changes nothing. */
static void lun_judge(struct lun *lun)
{
	struct fuzz *fuzz = lun->fuzz;
	struct model *model = &lun->model;
	unsigned tries = 0;

	while (!fuzz_flush(fuzz, lun))
		cr_assert(
		    ++tries < 4, "the last FLUSH fails; %s, seed %u", fuzz->mode->name, fuzz->seed);
	model_expect(model, 0, model->units, memory_block_stable(lun->memory), model->acked,
	    "the last FLUSH");
	cr_assert_eq(cache_stats(lun->cache)->dirty, 0, "seed %u", fuzz->seed);
	cr_assert_eq(cache_stats(lun->cache)->in_flight, 0, "seed %u", fuzz->seed);
	cr_assert_eq(cache_reach(lun->cache), 0, "seed %u", fuzz->seed);
	cr_assert_eq(retain_stats(lun->retain)->kept, 0, "seed %u", fuzz->seed);
}

/* The power is cut: of each block one of those that the target may have is left. */
static void lun_cut(struct lun *lun)
{
	struct fuzz *fuzz = lun->fuzz;
	const struct memory_block *memory = lun->memory;
	const uint8_t *stable = memory_block_stable(memory);
	uint32_t block_size = fuzz->mode->block_size, kind = fuzz_below(fuzz, 3);

	while (!fuzz_chance(fuzz, 4))
		memory_block_execute(lun->memory);
	for (uint64_t at = 0; at < lun->size; at += block_size) {
		bool forgotten = kind == 2 ? fuzz_chance(fuzz, 2) : kind;
		memcpy(lun->image + at, (forgotten ? stable : memory->content) + at, block_size);
	}
	model_expect(
	    &lun->model, 0, lun->model.units, lun->image, lun->model.synced, "after a power cut");
}

static void fuzz_life(struct fuzz *fuzz, unsigned steps, bool last)
{
	const struct mode *mode = fuzz->mode;

	for (unsigned i = 0; i < mode->luns; i++)
		lun_start(&fuzz->luns[i]);
	fuzz_live(fuzz, steps);
	for (unsigned i = 0; i < mode->luns; i++) {
		if (!last)
			lun_cut(&fuzz->luns[i]);
	}
	/* The next life begins with what was cut; this one ends as it should all the same. */
	fuzz_finish(fuzz);
	for (unsigned i = 0; i < mode->luns; i++) {
		if (last || fuzz_chance(fuzz, 2))
			lun_judge(&fuzz->luns[i]);
	}
	for (unsigned i = 0; i < mode->luns; i++) {
		block_free(fuzz->luns[i].cache);
		model_restart(&fuzz->luns[i].model, fuzz->luns[i].image);
	}
	cr_assert_eq(fuzz->limits.used, 0, "retain's memory is counted, seed %u", fuzz->seed);
}

static struct fuzz *fuzz_new(uint32_t seed, const struct mode *mode)
{
	struct fuzz *fuzz = g_new0(struct fuzz, 1);
	size_t limit = mode->little_memory ? 256 << 10 : 4 << 20;

	fuzz->seed = seed;
	fuzz->mode = mode;
	fuzz->random = g_rand_new_with_seed(seed);
	fuzz->loop = loop_new();
	fuzz->pool = pool_new(1 << 20);
	fuzz->frames = frames_new(limit, 16 << 20);
	fuzz->pages = cache_memory_new(fuzz->frames);
	fuzz->limits =
	    (struct retain_memory){.frames = fuzz->frames, .limit = limit / 2, .floor = 16 << 10};
	for (unsigned i = 0; i < mode->luns; i++) {
		struct lun *lun = &fuzz->luns[i];
		lun->fuzz = fuzz;
		lun->size = (uint64_t)mode->blocks * mode->block_size;
		lun->image = g_malloc0(lun->size);
		lun->model = (struct model){.mode = mode->name,
		    .seed = seed,
		    .ids = &fuzz->ids,
		    .lun = i,
		    .whole = mode->whole};
		model_init(&lun->model, lun->size, mode->block_size);
	}
	return fuzz;
}

static void fuzz_free(struct fuzz *fuzz)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(fuzz->ballast); i++) {
		if (fuzz->ballast[i])
			frames_let_go(fuzz->frames, fuzz->ballast[i], FRAME_SIZE);
	}
	for (unsigned i = 0; i < fuzz->mode->luns; i++) {
		model_clear(&fuzz->luns[i].model);
		g_free(fuzz->luns[i].image);
	}
	cache_memory_free(fuzz->pages);
	cr_assert_eq(frames_kept(fuzz->frames), 0, "frames are still kept, seed %u", fuzz->seed);
	cr_assert_eq(frames_in_use(fuzz->frames), 0, "frames are still held, seed %u", fuzz->seed);
	frames_free(fuzz->frames);
	cr_assert_eq(pool_in_use(fuzz->pool), 0, "memory was not returned, seed %u", fuzz->seed);
	pool_free(fuzz->pool);
	loop_free(fuzz->loop);
	g_rand_free(fuzz->random);
	g_free(fuzz);
}

/* Returns how many operations there were. */
static unsigned fuzz_run(uint32_t seed, const struct mode *mode, unsigned steps)
{
	struct fuzz *fuzz = fuzz_new(seed, mode);
	unsigned lives = mode->cuts ? 1 + fuzz_below(fuzz, 4) : 1, operations;

	for (unsigned i = 1; i <= lives; i++)
		fuzz_life(fuzz, steps / lives, i == lives);
	operations = fuzz->operations;
	fuzz_free(fuzz);
	return operations;
}

static void fuzz_many(const struct mode *mode, unsigned long runs)
{
	uint32_t seed = test_seed(mode->name);
	unsigned long operations = 0;

	log_set_level(LOG_LEVEL_ERROR);
	log_to_syslog(NULL, NULL); /* failures are many, and meant */
	runs = MAX(scaled(runs), 1);
	for (uint32_t i = 0; i < runs; i++)
		operations += fuzz_run(seed + i, mode, 1000);
	fprintf(stderr, "%s: %lu operations\n", mode->name, operations);
}

#define SMALL_BLOCKS .block_size = 512, .blocks = 131, .luns = 1
/* more than two of the chunks, of 64 pages, in which pages are found and leave */
#define LARGE_BLOCKS .block_size = 4096, .blocks = 150, .luns = 1

Test(cache_random, whole_blocks_lose_nothing, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){.name = "whole blocks", SMALL_BLOCKS, .whole = true, .cuts = true}, 250);
}

Test(cache_random, parts_of_blocks_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "parts of blocks", SMALL_BLOCKS, .cuts = true}, 250);
}

Test(cache_random, parts_of_large_blocks_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "parts of large blocks", LARGE_BLOCKS, .cuts = true}, 60);
}

Test(cache_random, targets_that_forget_lose_nothing, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){.name = "losses", SMALL_BLOCKS, .losses = true, .cuts = true}, 250);
}

Test(cache_random, targets_with_large_whole_blocks_that_forget_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "losses of large blocks",
	              LARGE_BLOCKS,
	              .whole = true,
	              .losses = true,
	              .cuts = true},
	    50);
}

Test(cache_random, failing_commands_lose_nothing, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){.name = "failures", SMALL_BLOCKS, .failures = true, .cuts = true}, 150);
}

Test(cache_random, targets_that_forget_and_fail_and_are_gone_for_a_while_lose_nothing,
    .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "gone",
	              SMALL_BLOCKS,
	              .losses = true,
	              .failures = true,
	              .gone = true,
	              .cuts = true},
	    150);
}

Test(cache_random, two_luns_with_little_memory_and_read_ahead_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "little memory",
	              .block_size = 4096,
	              .blocks = 96,
	              .luns = 2,
	              .little_memory = true,
	              .readahead = 256 << 10,
	              .cuts = true},
	    40);
}

Test(cache_random, two_luns_in_all_kinds_of_trouble_lose_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "all kinds of trouble",
	              .block_size = 512,
	              .blocks = 301,
	              .luns = 2,
	              .little_memory = true,
	              .losses = true,
	              .failures = true,
	              .gone = true,
	              .readahead = SIZE_MAX,
	              .dirty_expire_ms = 2,
	              .cuts = true},
	    25);
}

Test(cache_random, writethrough_loses_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "writethrough",
	              SMALL_BLOCKS,
	              .writethrough = true,
	              .readahead = 128 << 10,
	              .cuts = true},
	    150);
}

Test(cache_random, writethrough_to_targets_that_forget_and_fail_loses_nothing, .timeout = 600)
{
	fuzz_many(&(struct mode){.name = "writethrough and trouble",
	              LARGE_BLOCKS,
	              .writethrough = true,
	              .losses = true,
	              .failures = true,
	              .gone = true,
	              .cuts = true},
	    60);
}

Test(safety_07, what_came_before_fenced_is_not_sent_after_it, .timeout = 600)
{
	fuzz_many(
	    &(struct mode){.name = "fenced", SMALL_BLOCKS, .failures = true, .fences = true}, 60);
}
