/*
 * cache_fill.c - READs below that bring pages: those that are asked for, and those that will be.
 *
 * A fill reads whole pages of one chunk into frames of its own. What of a page was written
 * meanwhile stays as it is; of the rest the page gets what the fill brought, unless it is not the
 * page's fill any more: then something passed through in between, and what it brought is old.
 *
 * Invariants: the pages of a fill that are its own stay until it is done; its frames are kept, and
 * so counted, from the start.
 */
#include "cache.h"

#include <errno.h>
#include <string.h>

#include "lunfs/log.h"

enum { RANGES = 16 };
#define AHEAD_MIN    (1u << 20)
#define AHEAD_FACTOR 4 /* so many times what hides the latency: it may be more than was seen */
#define LATENCY_RISE 1.005
#define RATE_FALL    0.95
#define RATE_US      20000 /* how long the rate is measured */

/* ---- how fast they come ---- */

/*
 * The rate is that of the link while it was used best; a reader who takes his time says nothing of
 * it, so it falls slowly. The latency is that of one which had to wait for no other, so it rises
 * slowly.
 */
static void fill_measure(struct fill *fill)
{
	struct cache *cache = fill->cache;
	int64_t now = clock_us(), took = now - cache->fill_since_us, latency = now - fill->sent_us;

	cache->fill_latency = cache->fill_latency > 0 && cache->fill_latency < (double)latency
	                          ? cache->fill_latency * LATENCY_RISE
	                          : (double)latency;
	cache->fill_bytes += fill->io.length;
	if (took < RATE_US)
		return;
	double rate = (double)cache->fill_bytes / (double)took;
	cache->fill_rate = MAX(rate, cache->fill_rate * RATE_FALL);
	cache->fill_since_us = now;
	cache->fill_bytes = 0;
}

/* ---- the end of a fill ---- */

/* Blocks of the page that the first `bytes` of it cover. */
static uint8_t blocks_brought(const struct cache *cache, uint64_t bytes)
{
	unsigned blocks = (unsigned)(MIN(bytes, PAGE_BYTES) / cache->block_size);

	return (uint8_t)((1u << blocks) - 1);
}

static void page_merge(
    struct cache *cache, struct page *page, const uint8_t *memory, uint8_t blocks)
{
	uint8_t missing = (uint8_t)(blocks & ~page->valid);

	if (!missing || !page_own(page, true))
		return;
	for (unsigned i = 0; i < cache->page_blocks; i++) {
		size_t at = (size_t)i * cache->block_size;
		if (missing >> i & 1)
			memcpy(page->memory + at, memory + at, cache->block_size);
	}
	page->valid |= missing;
}

static void page_filled(const struct fill *fill, unsigned index, uint8_t *memory, int error)
{
	struct cache *cache = fill->cache;
	struct page *page = page_find(cache, fill->first + index);
	uint64_t number = fill->first + index;
	uint8_t blocks;

	if (!page || page->fill != fill)
		return;
	blocks = blocks_brought(cache, fill->io.length - (uint64_t)index * PAGE_BYTES) &
	         cache_page_blocks(cache, number);
	page->fill = NULL;
	if (error)
		;
	else if (page->valid) {
		page_merge(cache, page, memory, blocks);
	} else if (blocks) {
		page_set_memory(page, memory);
		page->valid = blocks;
		page->fresh = true;
		page->ahead = fill->ahead;
	}
	page_put(page);
}

static void fill_done(struct io *io, int error)
{
	struct fill *fill = container_of(io, struct fill, io);
	struct cache *cache = fill->cache;
	struct frames *frames = cache->owner.memory->frames;
	struct task_queue waiters = fill->waiters;
	bool again = fill->ahead;
	unsigned index = 0;
	struct task *task;

	fill_measure(fill);

	for (int i = 0; i < io->niov; i++) {
		uint8_t *memory = io->iov[i].iov_base, *end = memory + io->iov[i].iov_len;
		for (uint8_t *at = memory; at < end; at += PAGE_BYTES)
			page_filled(fill, index++, at, error);
		frames_let_go(frames, memory, io->iov[i].iov_len);
	}
	*(fill->previous ? &fill->previous->next : &cache->filling) = fill->next;
	if (fill->next)
		fill->next->previous = fill->previous;
	cache->owner.coming -= fill->count;
	slab_put(&cache->fills, fill);
	while ((task = task_pop(&waiters))) {
		if (error && !again)
			task_end(task, error);
		else
			task_retry(task);
	}
	cache_serve_waiting(cache);
	cache_check(cache);
}

/* ---- the start of a fill ---- */

/* Frames for all of it, kept. */
static bool fill_take_frames(struct fill *fill)
{
	struct frames *frames = fill->cache->owner.memory->frames;
	unsigned got = 0;

	while (got < fill->count) {
		uint8_t *run;
		unsigned count = frames_get(frames, fill->count - got, &run);
		if (!count)
			break;
		frames_keep(frames, run, (size_t)count * PAGE_BYTES);
		frames_release(frames, run, (size_t)count * PAGE_BYTES);
		fill->iov[fill->io.niov++] = (struct iovec){run, (size_t)count * PAGE_BYTES};
		got += count;
	}
	if (got == fill->count)
		return true;
	for (int i = 0; i < fill->io.niov; i++)
		frames_let_go(frames, fill->iov[i].iov_base, fill->iov[i].iov_len);
	return false;
}

/* Its pages, as far as there is memory for them. */
static void fill_take_pages(struct fill *fill, uint64_t first, unsigned count)
{
	fill->first = first;
	for (; fill->count < count; fill->count++) {
		struct page *page = page_get(fill->cache, first + fill->count);
		if (!page)
			break;
		page->fill = fill;
	}
}

static void fill_drop(struct fill *fill)
{
	struct cache *cache = fill->cache;

	for (unsigned i = 0; i < fill->count; i++) {
		struct page *page = page_find(cache, fill->first + i);
		page->fill = NULL;
		page_put(page);
	}
	slab_put(&cache->fills, fill);
}

/* Pages of one chunk, none of them full, or filled already. NULL: no memory. */
static struct fill *fill_start(struct cache *cache, uint64_t first, unsigned count, bool ahead)
{
	struct fill *fill = slab_get(&cache->fills);
	uint64_t start = first * PAGE_BYTES;

	if (!fill)
		return NULL;
	fill->cache = cache;
	fill->ahead = ahead;
	fill_take_pages(fill, first, count);
	if (!fill->count || !fill_take_frames(fill)) {
		fill_drop(fill);
		return NULL;
	}
	fill->io.op = IO_READ;
	fill->io.offset = start;
	fill->io.length = MIN((uint64_t)fill->count * PAGE_BYTES, cache->block.size - start);
	fill->iov[fill->io.niov - 1].iov_len -=
	    (uint64_t)fill->count * PAGE_BYTES - fill->io.length;
	fill->io.iov = fill->iov;
	fill->io.done = fill_done;
	fill->next = cache->filling;
	if (fill->next)
		fill->next->previous = fill;
	cache->filling = fill;
	cache->owner.coming += fill->count;
	fill->sent_us = clock_us();
	block_submit(cache->block.below, &fill->io);
	return fill;
}

/* ---- what is needed ---- */

static bool page_lacks(struct cache *cache, uint64_t number, uint64_t start, uint64_t end)
{
	const struct page *page = page_find(cache, number);

	return !page || cache_blocks_touched(cache, number, start, end) & ~page->valid;
}

struct fill *cache_need(struct cache *cache, uint64_t start, uint64_t end, int *error)
{
	struct fill *needed = NULL, *fill;

	for (uint64_t i = start / PAGE_BYTES; i * PAGE_BYTES < end; i++) {
		const struct page *page = page_find(cache, i);
		if (!page_lacks(cache, i, start, end))
			continue;
		fill = page ? page->fill : NULL;
		if (!fill) {
			unsigned count = 1, most = CHUNK_PAGES - i % CHUNK_PAGES;
			while (count < most && (i + count) * PAGE_BYTES < end &&
			       page_lacks(cache, i + count, start, end) &&
			       !(page_find(cache, i + count) && page_find(cache, i + count)->fill))
				count++;
			fill = fill_start(cache, i, count, false);
			i += count - 1;
		}
		if (!fill) {
			*error = -ENOMEM;
			return NULL;
		}
		needed = fill;
	}
	return needed;
}

void cache_forget_fill(struct page *page)
{
	page->fill = NULL;
}

void cache_sweep_fills(struct cache *cache)
{
	for (struct fill *fill = cache->filling; fill; fill = fill->next)
		task_queue_sweep(&fill->waiters);
}

/* ---- read-ahead ---- */

/* What there is room for without taking what is read again and again, or waits to be written. */
static size_t ahead_limit(const struct cache *cache)
{
	const struct cache_memory *memory = cache->owner.memory;
	size_t limit = frames_limit(memory->frames);
	size_t taken = (s3fifo_main(memory->fifo) + memory->busy) * PAGE_BYTES;

	limit = limit > taken ? (limit - taken) / 8 * 7 : 0;
	limit = MIN(
	    limit, MAX((size_t)(cache->fill_rate * cache->fill_latency * AHEAD_FACTOR), AHEAD_MIN));
	return MIN(limit, cache->options.readahead);
}

static bool page_is_coming(struct cache *cache, uint64_t number)
{
	const struct page *page = page_find(cache, number);

	return page && (page->fill || !(cache_page_blocks(cache, number) & ~page->valid));
}

/* False: no room. */
static bool cache_fetch(struct cache *cache, uint64_t offset, uint64_t length)
{
	uint64_t end = MIN(offset + length, cache->block.size);
	uint64_t last = (end + PAGE_BYTES - 1) / PAGE_BYTES;
	unsigned count;

	for (uint64_t i = offset / PAGE_BYTES; i < last; i += count) {
		unsigned most = (unsigned)MIN(last - i, CHUNK_PAGES - i % CHUNK_PAGES);
		count = 1;
		if (page_is_coming(cache, i))
			continue;
		while (count < most && !page_is_coming(cache, i + count))
			count++;
		if (!frames_may_keep(cache->owner.memory->frames, (size_t)count * PAGE_BYTES) ||
		    !fill_start(cache, i, count, true))
			return false;
		cache->stats.fetched_ahead += count;
	}
	return true;
}

void cache_read_ahead(struct cache *cache, const struct io *io, bool waits)
{
	struct readahead_range ranges[RANGES];
	unsigned count;

	if (!cache->options.readahead || cache->gone)
		return;
	readahead_set_limit(cache->readahead, ahead_limit(cache));
	count = readahead_saw(cache->readahead, io->reader, io->offset, io->length,
	    cache->block.size, waits, ranges, RANGES);
	for (unsigned i = 0; i < count; i++) {
		if (!cache_fetch(cache, ranges[i].offset, ranges[i].length))
			return;
	}
}
