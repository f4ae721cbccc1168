/*
 * test_s3fifo_trace.c - S3-FIFO against LRU, on traces of what a file system asks of a LUN.
 *
 * The traces are made here, the same at every run: the keys of pages, one at a time. Both caches
 * have room for the same number of pages; a page that is not there enters. The cache is small, a
 * sixteenth of the default one, and what is read is smaller in proportion: only ratios matter.
 */
#include "../../src/block/s3fifo.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <stdio.h>

enum {
	PAGES = 1024,   /* of the caches */
	KEYS = 1 << 17, /* pages of the LUN */
	LONGEST = 200000,
	METADATA = 600, /* pages: bitmaps, inode tables, directories */
	FILES = 8192,   /* pages of files that are read by popularity, behind the metadata */
	BULK = 16384,   /* from here on: what is read once, from one end to the other */
};

/* ---- the two caches ---- */

/* What is asked for twice running, as what read-ahead brought is when it is read, is no hit. */
static bool trace_again(const uint32_t *keys, size_t i)
{
	return i && keys[i] == keys[i - 1];
}

struct page {
	struct s3fifo_node node; /* LRU uses its links, and queue as "is there" */
};

static bool page_may_go(const struct s3fifo_node *node, void *data)
{
	(void)node;
	(void)data;
	return true;
}

static double s3fifo_replay(const uint32_t *keys, size_t count)
{
	g_autofree struct page *pages = g_new0(struct page, KEYS);
	struct s3fifo *fifo = s3fifo_new(PAGES);
	size_t hits = 0;

	for (size_t i = 0; i < count; i++) {
		struct s3fifo_node *node = &pages[keys[i]].node;
		if (s3fifo_holds(node)) {
			s3fifo_use(node);
			hits += !trace_again(keys, i);
			continue;
		}
		if (s3fifo_count(fifo) == PAGES)
			s3fifo_evict(fifo, page_may_go, NULL);
		node->key = keys[i];
		s3fifo_insert(fifo, node);
	}
	s3fifo_check(fifo);
	s3fifo_free(fifo);
	return (double)hits / (double)count;
}

struct lru {
	struct s3fifo_node ends; /* a ring: newer is the oldest page */
	size_t count, size;
};

static void lru_unlink(struct lru *lru, struct s3fifo_node *node)
{
	node->older->newer = node->newer;
	node->newer->older = node->older;
	node->queue = 0;
	lru->count--;
}

/* Is it there? Afterwards it is. */
static bool lru_ask(struct lru *lru, struct s3fifo_node *node)
{
	bool hit = node->queue;

	if (hit)
		lru_unlink(lru, node);
	else if (lru->count == lru->size)
		lru_unlink(lru, lru->ends.newer);
	node->newer = &lru->ends;
	node->older = lru->ends.older;
	node->older->newer = node->newer->older = node;
	node->queue = 1;
	lru->count++;
	return hit;
}

static double lru_replay(const uint32_t *keys, size_t count)
{
	g_autofree struct page *pages = g_new0(struct page, KEYS);
	struct lru lru = {.size = PAGES};
	size_t hits = 0;

	lru.ends.newer = lru.ends.older = &lru.ends;
	for (size_t i = 0; i < count; i++)
		hits += lru_ask(&lru, &pages[keys[i]].node) && !trace_again(keys, i);
	return (double)hits / (double)count;
}

/* Leaves what a page cache of so many pages, an LRU, lets through. */
static size_t lru_filter(uint32_t *keys, size_t count, size_t size)
{
	g_autofree struct page *pages = g_new0(struct page, KEYS);
	struct lru lru = {.size = size};
	size_t misses = 0;

	lru.ends.newer = lru.ends.older = &lru.ends;
	for (size_t i = 0; i < count; i++)
		if (!lru_ask(&lru, &pages[keys[i]].node))
			keys[misses++] = keys[i];
	return misses;
}

/* ---- the traces ---- */

struct trace {
	uint32_t keys[LONGEST];
	size_t count;
	GRand *random;
	double weights[FILES]; /* of Zipf's law, each the sum of those before it and its own */
	uint32_t bulk, loop;   /* where the scan and the loop are */
};

static struct trace *trace_new(void)
{
	struct trace *trace = g_new0(struct trace, 1);
	double sum = 0;

	trace->random = g_rand_new_with_seed(7);
	for (uint32_t i = 0; i < FILES; i++)
		trace->weights[i] = sum += 1.0 / (i + 1);
	return trace;
}

static void trace_free(struct trace *trace)
{
	g_rand_free(trace->random);
	g_free(trace);
}

static void trace_add(struct trace *trace, uint32_t key)
{
	if (trace->count < LONGEST)
		trace->keys[trace->count++] = key;
}

static void trace_metadata(struct trace *trace)
{
	trace_add(trace, (uint32_t)g_rand_int_range(trace->random, 0, METADATA));
}

static void trace_zipf(struct trace *trace)
{
	double want = g_rand_double(trace->random) * trace->weights[FILES - 1];
	uint32_t low = 0, high = FILES - 1;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (trace->weights[middle] < want)
			low = middle + 1;
		else
			high = middle;
	}
	trace_add(trace, METADATA + low);
}

/* times: 2 where read-ahead brings a page in before it is read. */
static void trace_scan(struct trace *trace, unsigned pages, unsigned times)
{
	for (; pages; pages--, trace->bulk++)
		for (unsigned i = 0; i < times; i++)
			trace_add(trace, BULK + trace->bulk % (KEYS - BULK));
}

static void trace_loop(struct trace *trace, unsigned pages, unsigned length)
{
	while (pages--)
		trace_add(trace, BULK + trace->loop++ % length);
}

/* Work on a file system: metadata and popular files. */
static void trace_work(struct trace *trace, unsigned rounds)
{
	while (rounds--) {
		trace_metadata(trace);
		trace_zipf(trace);
	}
}

/* The same while a backup reads all there is: with two pages of work, so many of the scan. */
static void trace_backup(struct trace *trace, unsigned pages, unsigned times)
{
	while (trace->count < LONGEST) {
		trace_work(trace, 1);
		trace_scan(trace, pages, times);
	}
}

/* S3-FIFO's hit ratio is at least LRU's and so much more. */
static void trace_compare(const char *name, struct trace *trace, double more)
{
	double fifo = s3fifo_replay(trace->keys, trace->count);
	double lru = lru_replay(trace->keys, trace->count);

	fprintf(stderr, "%-40s %6zu pages: S3-FIFO %5.2f %%, LRU %5.2f %%\n", name, trace->count,
	    100 * fifo, 100 * lru);
	cr_expect_geq(fifo, lru + more, "%s", name);
	trace_free(trace);
}

/* ---- the comparisons ---- */

Test(s3fifo_trace, popularity_alone_is_no_worse_than_with_lru)
{
	struct trace *trace = trace_new();

	while (trace->count < LONGEST)
		trace_zipf(trace);
	trace_compare("Zipf", trace, -0.01);
}

Test(s3fifo_trace, the_working_set_survives_big_scans)
{
	struct trace *trace = trace_new();

	trace_work(trace, 20000);
	for (unsigned i = 0; i < 4; i++) {
		trace_scan(trace, 8 * PAGES, 1);
		trace_work(trace, 10000);
	}
	trace_compare("work, four scans", trace, 0.05);
}

Test(s3fifo_trace, the_working_set_survives_a_backup_beside_it)
{
	struct trace *trace = trace_new();

	trace_work(trace, 5000);
	trace_backup(trace, 4, 1);
	trace_compare("work beside a backup", trace, 0.1);
}

/* Being read once must not take a page that read-ahead brought into the main queue. */
Test(s3fifo_trace, what_was_read_ahead_and_then_read_is_still_a_scan)
{
	struct trace *trace = trace_new();

	trace_work(trace, 5000);
	trace_backup(trace, 4, 2);
	trace_compare("work beside a backup with read-ahead", trace, 0.05);
}

Test(s3fifo_trace, a_loop_larger_than_the_cache_finds_something)
{
	struct trace *trace = trace_new();

	trace_loop(trace, LONGEST, PAGES + PAGES / 4);
	trace_compare("loop of 1.25 times the cache", trace, 0.4);
}

Test(s3fifo_trace, work_scans_and_loops_together)
{
	struct trace *trace = trace_new();

	while (trace->count < LONGEST) {
		trace_work(trace, 200);
		trace_loop(trace, 200, 2 * PAGES);
		trace_scan(trace, 100, 1);
	}
	trace_compare("work, a loop and a scan", trace, 0.1);
}

/* What lunfs sees of buffered files: the kernel's page cache answered the rest. */
Test(s3fifo_trace, below_a_page_cache_of_the_same_size_there_is_something_left_to_find)
{
	struct trace *trace = trace_new();

	trace_backup(trace, 2, 1);
	trace->count = lru_filter(trace->keys, trace->count, PAGES);
	trace_compare("a backup, below a page cache", trace, 0.1);
}
