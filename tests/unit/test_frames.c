/*
 * test_frames.c - frames, their holders and keepers.
 */
#include "lunfs/frames.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>

#include "support/seed.h"
#include "support/stage.h"

#define F       FRAME_SIZE
#define ONE_MIB ((size_t)MIB(1))
#define WORD    ((size_t)KIB(256))
#define FULL    64u /* frames of a word */

/* A run of exactly so many. */
static uint8_t *get(struct frames *frames, unsigned count)
{
	uint8_t *run = NULL;

	cr_assert_eq(frames_get(frames, count, &run), count);
	return run;
}

static void empty(struct frames *frames)
{
	cr_assert_eq(frames_in_use(frames), 0);
	cr_assert_eq(frames_kept(frames), 0);
	frames_free(frames);
}

static bool is_resident(void *at)
{
	unsigned char resident = 0;

	cr_assert_eq(mincore(at, F, &resident), 0);
	return resident & 1;
}

/* ---- taking ---- */

Test(frames, are_page_aligned_writable_apart_and_told_from_foreign_memory)
{
	struct frames *frames = frames_new(ONE_MIB, ONE_MIB);
	uint8_t *one = get(frames, 1), *other = get(frames, 5), foreign;

	cr_assert_eq((uintptr_t)one % F, 0);
	memset(one, 1, F);
	memset(other, 2, (size_t)5 * F);
	cr_assert_eq(one[F - 1], 1);
	cr_assert(other >= one + F || other + (size_t)5 * F <= one);
	cr_assert(frames_contain(frames, one) && frames_contain(frames, other + 5 * F - 1));
	cr_assert_not(frames_contain(frames, &foreign));
	cr_assert_not(frames_contain(frames, NULL));
	cr_assert_not(frames_contain(frames, one - 1), "the first is at the region's start");
	cr_assert_not(frames_contain(frames, one + MIB(2)));
	cr_assert(frames_contain(frames, one + MIB(2) - 1));
	frames_release(frames, one, F);
	frames_release(frames, other, (size_t)5 * F);
	empty(frames);
}

Test(frames, sizes_are_rounded_up_to_words_and_all_of_both_can_be_taken)
{
	struct frames *frames = frames_new(WORD + 1, 1);
	uint8_t *run;

	cr_assert_eq(frames_limit(frames), 2 * WORD);
	run = get(frames, 3 * FULL);
	cr_assert_eq(frames_in_use(frames), 3 * WORD);
	cr_assert_eq(frames_get(frames, 1, &(uint8_t *){NULL}), 0, "nothing is left");
	frames_release(frames, run, F);
	cr_assert_eq(get(frames, 1), run);
	frames_release(frames, run, 3 * WORD);
	empty(frames);
}

Test(frames, what_came_back_is_taken_again_first)
{
	struct frames *frames = frames_new(ONE_MIB, 0);
	uint8_t *first = get(frames, 1), *second = get(frames, 1);

	cr_assert_eq(second, first + F);
	frames_release(frames, first, F);
	cr_assert_eq(get(frames, 1), first);
	frames_release(frames, first, (size_t)2 * F);
	cr_assert_eq(get(frames, 2), first);
	frames_release(frames, first, (size_t)2 * F);
	empty(frames);
}

Test(frames, few_come_from_partly_used_words_and_many_from_whole_ones)
{
	struct frames *frames = frames_new(ONE_MIB, 0);
	uint8_t *few = get(frames, 3), *many, *more;

	many = get(frames, FULL);
	cr_assert_eq(many, few + WORD, "the first word is left to those that want few");
	more = get(frames, FULL - 3);
	cr_assert_eq(more, few + (size_t)3 * F);
	frames_release(frames, few, WORD);
	frames_release(frames, many, WORD);
	empty(frames);
}

Test(frames, neighbouring_whole_words_are_one_run)
{
	struct frames *frames = frames_new(MIB(4), 0);
	uint8_t *run = get(frames, 256), *odd;

	odd = get(frames, 300);
	cr_assert_eq(odd, run + ONE_MIB);
	frames_release(frames, run, 2 * WORD);
	cr_assert_eq(frames_get(frames, 256, &run), 2 * FULL, "no more are together there");
	frames_release(frames, run, ONE_MIB);
	frames_release(frames, odd, (size_t)300 * F);
	empty(frames);
}

Test(frames, a_short_run_is_given_where_there_is_no_longer_one)
{
	struct frames *frames = frames_new(WORD, 0);
	uint8_t *all = get(frames, FULL), *run;

	frames_release(frames, all + F, F);
	frames_release(frames, all + 10 * F, (size_t)3 * F);
	frames_release(frames, all + 60 * F, (size_t)4 * F);
	cr_assert_eq(frames_get(frames, 3, &run), 3);
	cr_assert_eq(run, all + 10 * F, "the first that is long enough");
	cr_assert_eq(frames_get(frames, 256, &run), 4);
	cr_assert_eq(run, all + 60 * F);
	cr_assert_eq(frames_get(frames, 9, &run), 1);
	cr_assert_eq(run, all + F);
	cr_assert_eq(frames_get(frames, 9, &run), 0);
	frames_release(frames, all, WORD);
	empty(frames);
}

/* ---- holding and keeping ---- */

Test(frames, one_is_free_when_nobody_holds_or_keeps_it)
{
	struct frames *frames = frames_new(WORD, 0);
	uint8_t *run = get(frames, FULL);

	frames_keep(frames, run, F);
	frames_hold(frames, run, 1);
	cr_assert_eq(frame_users(frames, run + F - 1), 3);
	cr_assert_eq(frame_keepers(frames, run), 1);
	frames_release(frames, run, WORD);
	cr_assert_eq(frames_in_use(frames), F);
	frames_release(frames, run + 100, 1);
	cr_assert_eq(frames_in_use(frames), F);
	cr_assert_eq(frame_users(frames, run), 1);
	frames_let_go(frames, run, F);
	empty(frames);
}

Test(frames, what_several_keep_counts_once)
{
	struct frames *frames = frames_new(ONE_MIB, 0);
	uint8_t *run = get(frames, 8);

	frames_keep(frames, run, (size_t)8 * F);
	frames_keep(frames, run + F, F);
	cr_assert_eq(frames_kept(frames), 8 * F);
	frames_let_go(frames, run, (size_t)8 * F);
	cr_assert_eq(frames_kept(frames), F);
	frames_let_go(frames, run + F, F);
	cr_assert_eq(frames_kept(frames), 0);
	cr_assert_eq(frames_in_use(frames), 8 * F, "they are held");
	frames_release(frames, run, (size_t)8 * F);
	empty(frames);
}

Test(frames, a_range_is_of_every_frame_that_it_touches_and_an_empty_one_of_none)
{
	struct frames *frames = frames_new(ONE_MIB, 0);
	uint8_t *run = get(frames, 70);

	frames_keep(frames, run + F - 1, F + 2); /* the last byte of one, the first of the third */
	cr_assert_eq(frames_kept(frames), 3 * F);
	cr_assert_eq(frame_keepers(frames, run), 1);
	cr_assert_eq(frame_keepers(frames, run + 2 * F), 1);
	cr_assert_eq(frame_keepers(frames, run + 3 * F), 0);
	frames_keep(frames, run, 0);
	frames_release(frames, run + 5, 0);
	frames_release(frames, run, (size_t)70 * F);
	cr_assert_eq(frames_in_use(frames), 3 * F);
	frames_let_go(frames, run, (size_t)3 * F);
	empty(frames);
}

/* ---- the limit ---- */

struct reclaimer {
	struct frames *frames;
	uint8_t *kept;
	size_t asked, gives;
};

static void reclaim(size_t bytes, void *data)
{
	struct reclaimer *reclaimer = data;

	reclaimer->asked = bytes;
	frames_let_go(reclaimer->frames, reclaimer->kept, reclaimer->gives);
	reclaimer->kept += reclaimer->gives;
}

Test(frames, at_the_limit_who_can_let_go_is_asked_for_what_is_lacking)
{
	struct frames *frames = frames_new(ONE_MIB, ONE_MIB);
	struct reclaimer reclaimer = {.frames = frames, .gives = (size_t)2 * F};
	uint8_t *run = reclaimer.kept = get(frames, 256);

	frames_keep(frames, run, ONE_MIB);
	frames_release(frames, run, ONE_MIB);
	cr_assert(frames_may_keep(frames, 0));
	cr_assert_not(frames_may_keep(frames, 1));
	frames_on_reclaim(frames, reclaim, &reclaimer);
	cr_assert(frames_may_keep(frames, (size_t)2 * F));
	cr_assert_eq(reclaimer.asked, 2 * F);
	cr_assert_not(frames_may_keep(frames, (size_t)5 * F));
	cr_assert_eq(reclaimer.asked, 3 * F);
	cr_assert(frames_may_keep(frames, (size_t)4 * F));
	reclaimer.asked = 0;
	cr_assert(frames_may_keep(frames, F));
	cr_assert_eq(reclaimer.asked, 0);
	frames_let_go(frames, reclaimer.kept, ONE_MIB - 4 * F);
	empty(frames);
}

Test(frames, keeping_beyond_the_limit_is_not_refused)
{
	struct frames *frames = frames_new(WORD, WORD);
	uint8_t *run = get(frames, 2 * FULL);

	frames_keep(frames, run, 2 * WORD);
	cr_assert_eq(frames_kept(frames), 2 * WORD);
	cr_assert_not(frames_may_keep(frames, 1));
	frames_let_go(frames, run, 2 * WORD);
	frames_release(frames, run, 2 * WORD);
	empty(frames);
}

/* ---- memory of the system ---- */

Test(frames, free_words_are_the_systems_again_when_nothing_was_taken_for_a_while)
{
	struct frames *frames = frames_new(MIB(4), 0);
	uint8_t *one = get(frames, 1), *run = get(frames, 256);

	memset(one, 1, F);
	memset(run, 1, ONE_MIB);
	frames_release(frames, run, ONE_MIB);
	frames_trim(frames);
	cr_assert(is_resident(run), "something was taken since the last time");
	frames_trim(frames);
	cr_assert_not(is_resident(run));
	cr_assert_not(is_resident(run + ONE_MIB - F));
	cr_assert(is_resident(one));
	cr_assert_eq(one[0], 1);
	run = get(frames, 256);
	memset(run, 2, ONE_MIB);
	frames_trim(frames);
	frames_trim(frames);
	cr_assert_eq(run[ONE_MIB - 1], 2, "what is held stays");
	frames_release(frames, run, ONE_MIB);
	frames_release(frames, one, F);
	frames_trim(frames);
	cr_assert_not(is_resident(one) || is_resident(run), "nothing was taken meanwhile");
	empty(frames);
}

Test(frames, a_large_region_takes_memory_only_as_it_is_used)
{
	struct frames *frames = frames_new(MIB(64), MIB(1024));
	uint8_t *run = get(frames, 256);

	cr_assert_not(is_resident(run));
	*run = 1;
	cr_assert(is_resident(run));
	cr_assert_not(is_resident(run + MIB(512)));
	frames_release(frames, run, ONE_MIB);
	empty(frames);
}

/* ---- at random, against an array ---- */

enum { WORDS = 9, COUNT = WORDS * 64, RUNS = 200 };

struct run {
	unsigned first, count;
	bool keeper;
};

struct model {
	struct frames *frames;
	GRand *random;
	uint8_t *base;
	unsigned holders[COUNT], keepers[COUNT];
	struct run runs[RUNS];
	unsigned n;
};

static void model_add(struct model *model, struct run run)
{
	for (unsigned i = run.first; i < run.first + run.count; i++)
		(run.keeper ? model->keepers : model->holders)[i]++;
	model->runs[model->n++] = run;
}

static void model_get(struct model *model)
{
	unsigned max = 1 + g_rand_int(model->random) % (g_rand_boolean(model->random) ? 6 : 200);
	uint8_t *at;
	struct run run = {.count = frames_get(model->frames, max, &at)};

	cr_assert_leq(run.count, max);
	if (!run.count) {
		for (unsigned i = 0; i < COUNT; i++)
			cr_assert(model->holders[i] || model->keepers[i], "one is free");
		return;
	}
	run.first = (unsigned)((at - model->base) / F);
	for (unsigned i = run.first; i < run.first + run.count; i++) {
		cr_assert_not(model->holders[i] || model->keepers[i], "taken twice");
		memset(model->base + (size_t)i * F, (int)i, F);
	}
	model_add(model, run);
}

/* A part of one that is there is held, or kept, too. */
static void model_share(struct model *model)
{
	struct run run = model->runs[g_rand_int(model->random) % model->n];
	unsigned skip = g_rand_int(model->random) % run.count;

	run.first += skip;
	run.count = 1 + g_rand_int(model->random) % (run.count - skip);
	run.keeper = g_rand_boolean(model->random);
	(run.keeper ? frames_keep : frames_hold)(
	    model->frames, model->base + (size_t)run.first * F + 7, (size_t)run.count * F - 7);
	model_add(model, run);
}

static void model_drop(struct model *model)
{
	unsigned i = g_rand_int(model->random) % model->n;
	struct run run = model->runs[i];

	(run.keeper ? frames_let_go : frames_release)(
	    model->frames, model->base + (size_t)run.first * F, (size_t)run.count * F);
	for (unsigned j = run.first; j < run.first + run.count; j++)
		(run.keeper ? model->keepers : model->holders)[j]--;
	model->runs[i] = model->runs[--model->n];
}

static void model_compare(const struct model *model)
{
	size_t in_use = 0, kept = 0;

	for (unsigned i = 0; i < COUNT; i++) {
		const uint8_t *at = model->base + (size_t)i * F;
		unsigned users = model->holders[i] + model->keepers[i];
		in_use += users > 0;
		kept += model->keepers[i] > 0;
		cr_assert_eq(frame_users(model->frames, at), users);
		cr_assert_eq(frame_keepers(model->frames, at), model->keepers[i]);
		cr_assert(!users || at[F - 1] == (uint8_t)i);
	}
	cr_assert_eq(frames_in_use(model->frames), in_use * F);
	cr_assert_eq(frames_kept(model->frames), kept * F);
}

Test(frames, random_changes_agree_with_an_array)
{
	struct model *model = g_new0(struct model, 1);
	unsigned long steps = scaled(20000);

	model->random = g_rand_new_with_seed(test_seed("frames"));
	model->frames = frames_new(4 * WORD, (WORDS - 4) * WORD);
	model->base = get(model->frames, 1);
	frames_release(model->frames, model->base, F);
	for (unsigned long step = 0; step < steps; step++) {
		unsigned what = g_rand_int(model->random) % 8;
		if (!model->n || (what < 4 && model->n < RUNS))
			model_get(model);
		else if (what < 5 && model->n < RUNS)
			model_share(model);
		else
			model_drop(model);
		if (step % 1000 == 500)
			frames_trim(model->frames);
		if (step % 50 == 0)
			model_compare(model);
	}
	while (model->n)
		model_drop(model);
	empty(model->frames);
	g_rand_free(model->random);
	g_free(model);
}
