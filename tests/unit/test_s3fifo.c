/*
 * test_s3fifo.c - who goes, and who stays: sentences, and a random test that checks the invariants.
 */
#include "../../src/block/s3fifo.h"

#include <criterion/criterion.h>
#include <glib.h>

#include "support/seed.h"

enum { PAGES = 1000 };

/* node comes first: what the fifo hands out is a page. */
struct page {
	struct s3fifo_node node;
	bool stays; /* dirty, say */
	unsigned asked;
};

static bool page_may_go(const struct s3fifo_node *node, void *data)
{
	struct page *page = (struct page *)node;

	++*(unsigned *)data;
	page->asked++;
	return !page->stays;
}

static unsigned asked;

/* The key of who went; UINT64_MAX: nobody. */
static uint64_t evict(struct s3fifo *fifo)
{
	asked = 0;
	struct s3fifo_node *node = s3fifo_evict(fifo, page_may_go, &asked);
	s3fifo_check(fifo);
	cr_assert(!node || !s3fifo_holds(node));
	return node ? node->key : UINT64_MAX;
}

static void insert(struct s3fifo *fifo, struct page *pages, uint64_t key)
{
	pages[key].node.key = key;
	s3fifo_insert(fifo, &pages[key].node);
	s3fifo_check(fifo);
}

static struct page *pages_in(struct s3fifo *fifo, uint64_t from, uint64_t to)
{
	struct page *pages = g_new0(struct page, PAGES);

	for (uint64_t key = from; key < to; key++)
		insert(fifo, pages, key);
	return pages;
}

static void use(struct page *page, unsigned times)
{
	while (times--)
		s3fifo_use(&page->node);
}

Test(s3fifo, new_pages_go_in_the_order_they_came)
{
	struct s3fifo *fifo = s3fifo_new(10);
	g_autofree struct page *pages = pages_in(fifo, 0, 10);

	for (uint64_t key = 0; key < 10; key++) {
		cr_assert_eq(evict(fifo), key);
		cr_assert(!s3fifo_holds(&pages[key].node));
	}
	cr_assert_eq(evict(fifo), UINT64_MAX);
	s3fifo_free(fifo);
}

Test(s3fifo, who_was_used_twice_stays_when_a_scan_passes_through)
{
	struct s3fifo *fifo = s3fifo_new(10);
	g_autofree struct page *pages = pages_in(fifo, 0, 10);

	use(&pages[3], 2);
	use(&pages[4], 1);
	for (uint64_t key = 10; key < PAGES; key++) {
		cr_assert_neq(evict(fifo), 3);
		insert(fifo, pages, key);
	}
	cr_assert(s3fifo_holds(&pages[3].node));
	cr_assert(!s3fifo_holds(&pages[4].node), "one use is that of a page read ahead");
	s3fifo_free(fifo);
}

Test(s3fifo, who_comes_back_soon_stays)
{
	struct s3fifo *fifo = s3fifo_new(20);
	g_autofree struct page *pages = pages_in(fifo, 0, 20);

	cr_assert_eq(evict(fifo), 0);
	insert(fifo, pages, 0);
	for (uint64_t key = 20; key < PAGES; key++) {
		cr_assert_neq(evict(fifo), 0);
		insert(fifo, pages, key);
	}
	s3fifo_free(fifo);
}

Test(s3fifo, as_many_are_remembered_as_the_main_queue_may_have)
{
	struct s3fifo *fifo = s3fifo_new(20); /* 18 ghosts */
	g_autofree struct page *pages = pages_in(fifo, 0, 20);

	for (uint64_t key = 20; key < 20 + 19; key++) {
		evict(fifo);
		insert(fifo, pages, key);
	}
	/* 0 to 18 went; 1 is the oldest ghost that is left, 0 is new again */
	insert(fifo, pages, 1);
	insert(fifo, pages, 0);
	for (unsigned i = 0; i < 22 - 1; i++)
		cr_assert_neq(evict(fifo), 1);
	cr_assert(!s3fifo_holds(&pages[0].node));
	cr_assert_eq(evict(fifo), 1);
	s3fifo_free(fifo);
}

Test(s3fifo, who_is_removed_is_not_remembered)
{
	struct s3fifo *fifo = s3fifo_new(20);
	g_autofree struct page *pages = pages_in(fifo, 0, 20);

	s3fifo_remove(fifo, &pages[0].node);
	s3fifo_remove(fifo, &pages[0].node); /* in no queue: nothing happens */
	cr_assert_eq(s3fifo_count(fifo), 19);
	insert(fifo, pages, 0);
	for (uint64_t key = 1; key < 20; key++)
		cr_assert_eq(evict(fifo), key);
	cr_assert_eq(evict(fifo), 0, "it is new, as if it had never been there");
	s3fifo_free(fifo);
}

Test(s3fifo, in_the_main_queue_each_use_is_one_more_turn)
{
	struct s3fifo *fifo = s3fifo_new(10);
	g_autofree struct page *pages = pages_in(fifo, 0, 3);

	for (uint64_t key = 0; key < 3; key++)
		evict(fifo);
	for (uint64_t key = 0; key < 3; key++)
		insert(fifo, pages, key); /* back from the ghosts: all in the main queue */
	use(&pages[0], 9);                /* counts as 3 */
	use(&pages[1], 1);
	cr_assert_eq(evict(fifo), 2);
	cr_assert_eq(evict(fifo), 1);
	cr_assert_eq(evict(fifo), 0, "used, but alone");
	s3fifo_free(fifo);
}

Test(s3fifo, a_turn_costs_a_use)
{
	struct s3fifo *fifo = s3fifo_new(10);
	g_autofree struct page *pages = pages_in(fifo, 0, 3);

	for (uint64_t key = 0; key < 3; key++)
		evict(fifo);
	insert(fifo, pages, 0);
	use(&pages[0], 1);
	insert(fifo, pages, 1);
	cr_assert_eq(evict(fifo), 1);
	insert(fifo, pages, 2);
	cr_assert_eq(evict(fifo), 0, "it has had the turn that it was used for");
	s3fifo_free(fifo);
}

Test(s3fifo, the_least_used_goes_when_all_were_used)
{
	struct s3fifo *fifo = s3fifo_new(10);
	g_autofree struct page *pages = pages_in(fifo, 0, 4);

	for (uint64_t key = 0; key < 4; key++)
		evict(fifo);
	for (uint64_t key = 0; key < 4; key++) {
		insert(fifo, pages, key);
		use(&pages[key], key == 2 ? 2 : 3);
	}
	cr_assert_eq(evict(fifo), 2);
	s3fifo_free(fifo);
}

Test(s3fifo, who_may_not_go_is_passed_over_and_goes_later)
{
	struct s3fifo *fifo = s3fifo_new(10);
	g_autofree struct page *pages = pages_in(fifo, 0, 4);

	pages[0].stays = pages[1].stays = true;
	cr_assert_eq(evict(fifo), 2);
	pages[0].stays = pages[1].stays = false;
	cr_assert_eq(evict(fifo), 3);
	cr_assert_eq(evict(fifo), 0);
	cr_assert_eq(evict(fifo), 1);
	s3fifo_free(fifo);
}

Test(s3fifo, nobody_goes_where_nobody_may_and_each_is_asked_twice_at_most)
{
	struct s3fifo *fifo = s3fifo_new(PAGES);
	g_autofree struct page *pages = pages_in(fifo, 0, PAGES);

	for (unsigned i = 0; i < PAGES; i++) {
		pages[i].stays = true;
		use(&pages[i], i % 4);
	}
	for (unsigned call = 1; call <= 3; call++) {
		cr_assert_eq(evict(fifo), UINT64_MAX);
		for (unsigned i = 0; i < PAGES; i++)
			cr_assert_leq(pages[i].asked, 2 * call);
	}
	pages[123].stays = false;
	cr_assert_eq(evict(fifo), 123, "the only one that may");
	s3fifo_free(fifo);
}

Test(s3fifo, a_small_queue_that_is_all_dirty_costs_little_while_the_main_one_is_clean)
{
	struct s3fifo *fifo = s3fifo_new(PAGES);
	g_autofree struct page *pages = pages_in(fifo, 0, 500);

	while (evict(fifo) != UINT64_MAX)
		;
	for (uint64_t key = 0; key < 500; key++)
		insert(fifo, pages, key);
	for (uint64_t key = 500; key < PAGES; key++) {
		insert(fifo, pages, key);
		pages[key].stays = true;
	}
	for (unsigned i = 0; i < 500; i++) {
		cr_assert_lt(evict(fifo), 500);
		cr_assert_lt(asked, 150);
	}
	s3fifo_free(fifo);
}

/* The one that may go is at the newer end of a small queue that is not the first to be asked. */
Test(s3fifo, the_only_one_that_may_go_is_found_wherever_it_is)
{
	enum { MAIN = 5000, SMALL = 300 };
	struct s3fifo *fifo = s3fifo_new(2 * MAIN); /* remembers all of them */
	g_autofree struct page *pages = g_new0(struct page, MAIN + SMALL);

	for (unsigned turn = 0; turn < 2; turn++) {
		for (uint64_t key = 0; key < MAIN; key++) {
			pages[key].node.key = key;
			s3fifo_insert(fifo, &pages[key].node);
		}
		while (turn == 0 && s3fifo_evict(fifo, page_may_go, &asked))
			;
	}
	for (uint64_t key = MAIN; key < MAIN + SMALL; key++)
		insert(fifo, pages, key);
	for (unsigned i = 0; i < MAIN + SMALL; i++)
		pages[i].stays = i != MAIN + SMALL - 1;
	use(&pages[MAIN + SMALL - 1], 2);
	cr_assert_eq(evict(fifo), MAIN + SMALL - 1);
	cr_assert_eq(evict(fifo), UINT64_MAX);
	s3fifo_free(fifo);
}

Test(s3fifo, a_capacity_of_one_or_none_works)
{
	for (size_t capacity = 0; capacity < 3; capacity++) {
		struct s3fifo *fifo = s3fifo_new(capacity);
		g_autofree struct page *pages = pages_in(fifo, 0, 1);

		for (unsigned i = 0; i < 3; i++) {
			cr_assert_eq(evict(fifo), 0);
			insert(fifo, pages, 0);
		}
		s3fifo_free(fifo);
	}
	s3fifo_free(NULL);
}

/* ---- the random test ---- */

static bool some_may_go(const struct page *pages, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (s3fifo_holds(&pages[i].node) && !pages[i].stays)
			return true;
	return false;
}

static unsigned held(const struct page *pages, unsigned count)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < count; i++)
		sum += s3fifo_holds(&pages[i].node);
	return sum;
}

static void run(uint32_t seed, unsigned steps)
{
	g_autoptr(GRand) random = g_rand_new_with_seed(seed);
	unsigned capacity = 1 + g_rand_int(random) % 300, count = 2 * capacity + 5;
	bool dirty = g_rand_boolean(random); /* mostly */
	g_autofree struct page *pages = g_new0(struct page, count);
	struct s3fifo *fifo = s3fifo_new(capacity);

	for (unsigned step = 0; step < steps; step++) {
		struct page *page = &pages[g_rand_int(random) % count];
		unsigned dice = g_rand_int(random) % 16;

		page->node.key = (uint64_t)(page - pages) << 12;
		if (dice == 0) {
			s3fifo_remove(fifo, &page->node);
		} else if (s3fifo_holds(&page->node)) {
			s3fifo_use(&page->node);
			page->stays = g_rand_int(random) % 8 < (dirty ? 7 : 2);
		} else if (dice == 1 || s3fifo_count(fifo) == capacity) {
			bool some = some_may_go(pages, count);
			struct s3fifo_node *node = s3fifo_evict(fifo, page_may_go, &asked);
			cr_assert_eq(node != NULL, some, "seed %u, step %u", seed, step);
			cr_assert(!node || !((struct page *)node)->stays);
		} else {
			s3fifo_insert(fifo, &page->node);
		}
		s3fifo_check(fifo);
		cr_assert_eq(s3fifo_count(fifo), held(pages, count), "seed %u", seed);
	}
	s3fifo_free(fifo);
}

Test(s3fifo, keeps_its_invariants_whatever_comes)
{
	uint32_t base = test_seed("s3fifo");

	for (uint32_t i = 0; i < 40; i++)
		run(base + i, 2000);
}
