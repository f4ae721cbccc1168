/*
 * test_range_lock.c - who may touch which bytes: sentences, and a random test against a plain list.
 */
#include "lunfs/block.h"

#include <criterion/criterion.h>
#include <glib.h>

#include "support/seed.h"

/* A range that counts how often it was granted, and when. */
struct asker {
	struct range range;
	unsigned granted;
	void (*then)(struct asker *asker);
	struct range_lock *lock;
	struct asker *other;
};

/* The order of all grants of a test; a test is a process of its own. */
static unsigned grants;

static void asker_granted(struct range *range)
{
	struct asker *asker = (struct asker *)range;

	cr_assert_eq(asker->granted, 0, "granted twice");
	asker->granted = ++grants;
	if (asker->then)
		asker->then(asker);
}

static struct asker asker_of(enum range_kind kind, uint64_t start, uint64_t end)
{
	return (struct asker){
	    .range = {.start = start, .end = end, .kind = kind, .granted = asker_granted}};
}

static bool asker_ask(struct range_lock *lock, struct asker *asker)
{
	asker->lock = lock;
	range_lock_acquire(lock, &asker->range);
	cr_assert_eq(range_is_granted(&asker->range), asker->granted != 0);
	return asker->granted != 0;
}

static void asker_leave(struct range_lock *lock, struct asker *asker)
{
	range_lock_release(lock, &asker->range);
}

Test(range_lock, readers_share)
{
	struct range_lock lock = {0};
	struct asker first = asker_of(RANGE_SHARED, 0, 100),
	             second = asker_of(RANGE_SHARED, 50, 150);

	cr_assert(asker_ask(&lock, &first));
	cr_assert(asker_ask(&lock, &second));
	asker_leave(&lock, &first);
	asker_leave(&lock, &second);
	cr_assert_null(lock.root);
}

Test(range_lock, a_writer_waits_for_every_earlier_reader_and_writer_it_overlaps)
{
	struct range_lock lock = {0};
	struct asker reader = asker_of(RANGE_SHARED, 0, 10),
	             before = asker_of(RANGE_EXCLUSIVE, 10, 20);
	struct asker writer = asker_of(RANGE_EXCLUSIVE, 9, 11);

	cr_assert(asker_ask(&lock, &reader));
	cr_assert(asker_ask(&lock, &before), "ranges that only touch do not overlap");
	cr_assert(!asker_ask(&lock, &writer));
	asker_leave(&lock, &reader);
	cr_assert(!writer.granted);
	asker_leave(&lock, &before);
	cr_assert(writer.granted);
	asker_leave(&lock, &writer);
}

Test(range_lock, a_reader_behind_a_waiting_writer_waits_too)
{
	struct range_lock lock = {0};
	struct asker first = asker_of(RANGE_SHARED, 0, 10),
	             writer = asker_of(RANGE_EXCLUSIVE, 0, 10);
	struct asker second = asker_of(RANGE_SHARED, 0, 10);

	asker_ask(&lock, &first);
	asker_ask(&lock, &writer);
	cr_assert(!asker_ask(&lock, &second), "writers would starve");
	asker_leave(&lock, &first);
	cr_assert(writer.granted && !second.granted);
	asker_leave(&lock, &writer);
	cr_assert(second.granted);
	asker_leave(&lock, &second);
}

Test(range_lock, a_waiting_range_that_leaves_lets_pass_what_waited_for_it)
{
	struct range_lock lock = {0};
	struct asker first = asker_of(RANGE_SHARED, 0, 10),
	             writer = asker_of(RANGE_EXCLUSIVE, 0, 10);
	struct asker second = asker_of(RANGE_SHARED, 0, 10);

	asker_ask(&lock, &first);
	asker_ask(&lock, &writer);
	asker_ask(&lock, &second);
	asker_leave(&lock, &writer);
	cr_assert(second.granted && !writer.granted);
	asker_leave(&lock, &first);
	asker_leave(&lock, &second);
	cr_assert_eq(writer.granted, 0);
}

Test(range_lock, a_barrier_waits_for_earlier_writers_and_holds_up_nobody)
{
	struct range_lock lock = {0};
	struct asker reader = asker_of(RANGE_SHARED, 0, 10),
	             writer = asker_of(RANGE_EXCLUSIVE, 10, 20);
	struct asker barrier = asker_of(RANGE_BARRIER, 0, UINT64_MAX);
	struct asker later = asker_of(RANGE_EXCLUSIVE, 30, 40),
	             second = asker_of(RANGE_BARRIER, 0, UINT64_MAX);

	asker_ask(&lock, &reader);
	asker_ask(&lock, &writer);
	cr_assert(!asker_ask(&lock, &barrier));
	cr_assert(asker_ask(&lock, &later));
	cr_assert(!asker_ask(&lock, &second));
	asker_leave(&lock, &writer);
	cr_assert(barrier.granted && !second.granted,
	    "the later writer holds up only the second barrier");
	asker_leave(&lock, &later);
	cr_assert(second.granted);
	asker_leave(&lock, &reader);
	asker_leave(&lock, &barrier);
	asker_leave(&lock, &second);
}

Test(range_lock, empty_ranges_wait_for_nobody)
{
	struct range_lock lock = {0};
	struct asker writer = asker_of(RANGE_EXCLUSIVE, 0, 10),
	             empty = asker_of(RANGE_EXCLUSIVE, 5, 5);
	struct asker reader = asker_of(RANGE_SHARED, 10, 20);

	asker_ask(&lock, &writer);
	cr_assert(asker_ask(&lock, &empty));
	cr_assert(asker_ask(&lock, &reader));
	asker_leave(&lock, &empty);
	asker_leave(&lock, &writer);
	asker_leave(&lock, &reader);
}

Test(range_lock, grants_the_oldest_first_wherever_they_lie)
{
	struct range_lock lock = {0};
	struct asker writer = asker_of(RANGE_EXCLUSIVE, 0, 1000), waiting[10];

	asker_ask(&lock, &writer);
	for (unsigned i = 0; i < 10; i++) {
		uint64_t start = (i * 7 % 10) * 100;
		waiting[i] = asker_of(RANGE_SHARED, start, start + 100);
		asker_ask(&lock, &waiting[i]);
	}
	asker_leave(&lock, &writer);
	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(waiting[i].granted, i + 2, "number %u was granted as number %u", i,
		    waiting[i].granted - 2);
	for (unsigned i = 0; i < 10; i++)
		asker_leave(&lock, &waiting[i]);
}

static void release_both(struct asker *asker)
{
	range_lock_release(asker->lock, &asker->other->range);
	range_lock_release(asker->lock, &asker->range);
}

Test(range_lock, what_is_released_before_it_was_told_is_not_told)
{
	struct range_lock lock = {0};
	struct asker writer = asker_of(RANGE_EXCLUSIVE, 0, 10),
	             first = asker_of(RANGE_SHARED, 0, 10);
	struct asker second = asker_of(RANGE_SHARED, 0, 10);

	first.then = release_both;
	first.other = &second;
	asker_ask(&lock, &writer);
	asker_ask(&lock, &first);
	asker_ask(&lock, &second);
	asker_leave(&lock, &writer);
	cr_assert(first.granted && !second.granted);
	cr_assert_null(lock.root);
}

static void release_own(struct asker *asker)
{
	range_lock_release(asker->lock, &asker->range);
}

Test(range_lock, a_long_queue_of_writers_drains_without_nesting)
{
	enum { QUEUE = 100000 };
	struct range_lock lock = {0};
	struct asker first = asker_of(RANGE_EXCLUSIVE, 0, 10);
	g_autofree struct asker *queue = g_new0(struct asker, QUEUE);

	asker_ask(&lock, &first);
	/* Apart from each other, or asking would take time in the square of the queue. */
	for (unsigned i = 0; i < QUEUE; i++) {
		queue[i] = asker_of(RANGE_EXCLUSIVE, 10 * i + 5, 10 * i + 16);
		queue[i].then = release_own;
		asker_ask(&lock, &queue[i]);
	}
	asker_leave(&lock, &first);
	for (unsigned i = 0; i < QUEUE; i++)
		cr_assert_eq(queue[i].granted, i + 2);
	cr_assert_null(lock.root);
}

/* ---- the random test ---- */

struct model {
	struct range_lock lock;
	GRand *random;
	GPtrArray *askers; /* in order of age: all that were not released */
	bool nested;       /* granted() acts by chance */
};

struct player {
	struct range range;
	struct model *model;
	bool told;
};

static void player_granted(struct range *range);

static bool players_conflict(const struct range *earlier, const struct range *later)
{
	uint64_t start = MAX(earlier->start, later->start), end = MIN(earlier->end, later->end);

	if (start >= end)
		return false;
	return earlier->kind == RANGE_EXCLUSIVE ||
	       (earlier->kind == RANGE_SHARED && later->kind == RANGE_EXCLUSIVE);
}

static bool model_says_granted(const struct model *model, unsigned index)
{
	const struct player *player = model->askers->pdata[index];

	for (unsigned i = 0; i < index; i++) {
		const struct player *earlier = model->askers->pdata[i];
		if (players_conflict(&earlier->range, &player->range))
			return false;
	}
	return true;
}

static void model_acquire(struct model *model)
{
	struct player *player = g_new0(struct player, 1);
	gint32 dice = g_rand_int_range(model->random, 0, 20);
	uint64_t start = (uint64_t)g_rand_int_range(model->random, 0, 60);

	player->model = model;
	player->range.granted = player_granted;
	player->range.kind = dice < 9 ? RANGE_SHARED : dice < 18 ? RANGE_EXCLUSIVE : RANGE_BARRIER;
	if (player->range.kind == RANGE_BARRIER) {
		player->range.end = UINT64_MAX;
	} else {
		player->range.start = start;
		player->range.end =
		    start + (uint64_t)g_rand_int_range(model->random, 0, dice == 0 ? 60 : 8);
	}
	g_ptr_array_add(model->askers, player);
	range_lock_acquire(&model->lock, &player->range);
}

static void model_release(struct model *model)
{
	if (!model->askers->len)
		return;
	struct player *player = g_ptr_array_remove_index(
	    model->askers, (guint)g_rand_int_range(model->random, 0, (gint32)model->askers->len));
	range_lock_release(&model->lock, &player->range);
	g_free(player);
}

static void player_granted(struct range *range)
{
	struct player *player = (struct player *)range;
	struct model *model = player->model;

	cr_assert(!player->told, "told twice");
	player->told = true;
	if (model->nested && g_rand_int_range(model->random, 0, 4) == 0)
		model_release(model); /* itself, another, one that is granted and not told yet */
	if (model->nested && g_rand_int_range(model->random, 0, 4) == 0 && model->askers->len < 100)
		model_acquire(model);
}

/* Checks order, heap and max_end; returns the number of nodes. */
static unsigned tree_check(const struct range *node)
{
	uint64_t max_end;
	unsigned count = 1;

	if (!node)
		return 0;
	max_end = node->end;
	for (int side = 0; side < 2; side++) {
		const struct range *child = side ? node->right : node->left;
		if (!child)
			continue;
		bool before = child->start != node->start ? child->start < node->start
		                                          : child->sequence < node->sequence;
		cr_assert_eq(before, side == 0);
		cr_assert_leq(child->priority, node->priority);
		max_end = MAX(max_end, child->max_end);
		count += tree_check(child);
	}
	cr_assert_eq(node->max_end, max_end);
	return count;
}

static void model_check(const struct model *model, uint32_t seed, unsigned step)
{
	unsigned not_empty = 0;

	for (unsigned i = 0; i < model->askers->len; i++) {
		const struct player *player = model->askers->pdata[i];
		bool granted = model_says_granted(model, i);
		not_empty += player->range.start < player->range.end;
		cr_assert_eq(range_is_granted(&player->range), granted,
		    "seed %u, step %u, range %u", seed, step, i);
		cr_assert_eq(player->told, granted, "seed %u, step %u, range %u", seed, step, i);
	}
	cr_assert_eq(tree_check(model->lock.root), not_empty);
}

static void model_run(uint32_t seed, unsigned steps, bool nested)
{
	struct model model = {
	    .random = g_rand_new_with_seed(seed), .askers = g_ptr_array_new(), .nested = nested};
	unsigned crowd = 1 + seed % 40;

	for (unsigned step = 0; step < steps; step++) {
		if ((unsigned)g_rand_int_range(model.random, 0, (gint32)(2 * crowd)) >=
		    model.askers->len)
			model_acquire(&model);
		else
			model_release(&model);
		model_check(&model, seed, step);
	}
	model.nested = false;
	while (model.askers->len)
		model_release(&model);
	cr_assert_null(model.lock.root);
	g_ptr_array_unref(model.askers);
	g_rand_free(model.random);
}

Test(range_lock, agrees_with_a_plain_list, .timeout = 300)
{
	uint32_t base = test_seed("range_lock");

	for (uint32_t i = 0; i < 100; i++)
		model_run(base + i, 400, false);
}

Test(range_lock, agrees_with_a_plain_list_when_granted_ranges_act_at_once, .timeout = 300)
{
	uint32_t base = test_seed("range_lock");

	for (uint32_t i = 0; i < 100; i++)
		model_run(base + i, 400, true);
}
