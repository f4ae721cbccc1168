/*
 * cache_write.c - WRITEs into pages; and what passes through: WRITEs that are done when the target
 * has them, ZERO, DISCARD.
 *
 * What passes through finds nothing dirty or leaving in its range, and leaves nothing clean there
 * that is from before: it has what is dirty written out first. If that fails, so does it.
 */
#include "cache.h"

#include <errno.h>
#include <string.h>

/* ---- WRITE into pages ---- */

/* Blocks that [from, to) of a page covers in whole. */
static uint8_t blocks_covered(const struct cache *cache, unsigned from, unsigned to)
{
	unsigned first = (from + cache->block_size - 1) / cache->block_size;
	unsigned end = to / cache->block_size;

	return first < end ? (uint8_t)((1u << end) - (1u << first)) : 0;
}

/* A page's part of a request: [from, to) bytes of it. */
static bool page_write(struct cache *cache, uint64_t number, unsigned from, unsigned to,
    struct cursor *cursor, uint8_t blocks, bool dirty)
{
	struct page *page = page_get(cache, number);
	bool whole = blocks_covered(cache, from, to) == cache_page_blocks(cache, number);
	size_t left;
	uint8_t *data = cursor_next(cursor, &left);

	if (!page)
		return false;
	if (whole && left >= to && (uintptr_t)data % PAGE_BYTES == 0 &&
	    frames_contain(cache->owner.memory->frames, data)) {
		page_set_memory(page, data);
		cursor->at += to;
	} else if (page_own(page, !whole)) {
		cursor_copy(cursor, page->memory + from, to - from, false);
	} else {
		page_put(page);
		return false;
	}
	if (page->valid)
		s3fifo_use(&page->node);
	page->valid |= blocks;
	page->fresh = page->ahead = page->spent = false;
	if (dirty)
		cache_mark_dirty(page, blocks);
	return true;
}

/* dirty: parts of blocks are completed by what is valid; else only whole blocks are taken over. */
static bool cache_take(struct cache *cache, const struct io *io, bool dirty)
{
	struct cursor cursor = {.iov = io->iov};
	uint64_t end = io->offset + io->length;

	for (uint64_t at = io->offset; at < end;) {
		uint64_t number = at / PAGE_BYTES, next = MIN(end, (number + 1) * PAGE_BYTES);
		unsigned from = at % PAGE_BYTES, to = from + (unsigned)(next - at);
		uint8_t touched = cache_blocks_touched(cache, number, io->offset, end);

		if (!dirty && blocks_covered(cache, from, to) != touched) {
			cursor_copy(&cursor, NULL, next - at, false);
		} else if (!page_write(cache, number, from, to, &cursor, touched, dirty)) {
			return false;
		}
		at = next;
	}
	return true;
}

/* For the first of them; they are in the order of their time. */
static void cache_time_slowed(struct cache *cache)
{
	int64_t us = cache->slowed.head->due_us - clock_us();

	cache->slow =
	    loop_timer(cache->loop, (unsigned)(MAX(us, 0) / 1000 + 1), cache_slowed_over, cache);
}

void cache_slowed_over(void *data)
{
	struct cache *cache = data;
	int64_t now = clock_us();
	struct task *task;

	loop_remove(&cache->slow);
	while ((task = cache->slowed.head) && (task->due_us <= now || cache->gone)) {
		task_pop(&cache->slowed);
		task_end(task, 0);
	}
	if (task)
		cache_time_slowed(cache);
}

/* It is in memory. */
static void write_taken(struct task *task)
{
	struct cache *cache = task->cache;

	cache->stats.absorbed++;
	task_unpin(task);
	task->due_us = cache_slow_down(cache, task->parent->length);
	if (!task->due_us) {
		task_end(task, 0);
		return;
	}
	cache->stats.throttled++;
	if (task->ranged)
		range_lock_release(&cache->lock, &task->range);
	task->ranged = false;
	task_push(&cache->slowed, task);
	if (!cache->slow)
		cache_time_slowed(cache);
}

/* The page in which [start, end) covers the block at `edge` in part, and it is not valid. */
static bool edge_is_missing(struct cache *cache, uint64_t edge)
{
	uint64_t number = edge / PAGE_BYTES;
	const struct page *page = page_find(cache, number);

	return edge % cache->block_size &&
	       (!page || cache_blocks_touched(cache, number, edge, edge + 1) & ~page->valid);
}

static size_t write_room(struct cache *cache, const struct task *task)
{
	const struct cache_memory *memory = cache->owner.memory;
	size_t room = 0;

	for (uint64_t i = task->first; i < task->end; i++) {
		const struct page *page = page_find(cache, i);
		room += !page || !page->memory || frame_users(memory->frames, page->memory) > 1;
	}
	return room;
}

/* 0: what it writes parts of is valid; 1: it is brought, and the task waits; or -errno. */
static int write_bring_edge(struct task *task, uint64_t edge, uint8_t which)
{
	struct cache *cache = task->cache;
	uint64_t block = edge - edge % cache->block_size;
	struct fill *fill;
	int error = 0;

	if (edge % cache->block_size == 0)
		return 0;
	/* the one must not be evicted for the other */
	if (!(task->edges & which)) {
		struct page *page = page_get(cache, edge / PAGE_BYTES);
		if (!page)
			return -ENOMEM;
		page->pins++;
		task->edges |= which;
	}
	if (!edge_is_missing(cache, edge))
		return 0;
	if (!cache_has_room(cache, 1)) {
		cache_wait_for_room(task);
		return 1;
	}
	fill = cache_need(cache, block, block + cache->block_size, &error);
	if (!fill)
		return error;
	task_keep_place(task);
	task_push(&fill->waiters, task);
	return 1;
}

void write_try(struct task *task)
{
	struct cache *cache = task->cache;
	const struct io *io = task->parent;
	uint64_t end = io->offset + io->length;
	int state;

	if (cache->gone || end > cache->block.size || io_is_cancelled(io)) {
		task_end(task, io_is_cancelled(io) ? -EINTR : -EIO);
		return;
	}
	if (cache_is_full(cache)) {
		cache_wait_for_room(task);
		return;
	}
	state = write_bring_edge(task, io->offset, EDGE_FIRST);
	if (!state)
		state = write_bring_edge(task, end, EDGE_LAST);
	if (state < 0)
		task_end(task, state);
	else if (state > 0)
		return;
	else if (!cache_has_room(cache, write_room(cache, task)))
		cache_wait_for_room(task);
	else if (!cache_take(cache, io, true))
		task_end(task, -ENOMEM);
	else
		write_taken(task);
}

/* ---- what passes through ---- */

bool cache_is_written_through(const struct cache *cache, const struct io *io)
{
	return cache->options.writethrough || io->op != IO_WRITE || io->length > LEND_SIZE ||
	       io->flags & (IO_FUA | IO_DIRECT);
}

static void through_done(struct io *io, int error)
{
	struct task *task = container_of(io, struct task, io);
	struct cache *cache = task->cache;
	struct io *parent = task->parent;

	if (!error && parent->op == IO_WRITE && !(parent->flags & IO_DIRECT) &&
	    parent->length <= LEND_SIZE && cache_has_room(cache, task->end - task->first))
		(void)cache_take(cache, parent, false);
	task_free(task);
	cache_serve_waiting(cache);
	cache_check(cache);
	parent->done(parent, error);
}

/* What is clean of it is not what will be there. */
bool page_outdated(struct page *page, void *data)
{
	(void)data;
	cache_forget_fill(page);
	page_forget(page, UINT8_MAX);
	page_put(page);
	return true;
}

void through_try(struct task *task)
{
	struct cache *cache = task->cache;

	if (cache->gone || io_is_cancelled(task->parent)) {
		task_end(task, cache->gone ? -EIO : -EINTR);
	} else if (!cache_is_settled(cache, task->parent)) {
		cache_settle(task);
	} else {
		(void)pages_each(cache, task->first, task->end, page_outdated, NULL);
		task_pass(task, through_done);
	}
}

void cache_change(struct cache *cache, struct io *io)
{
	bool through = cache_is_written_through(cache, io);
	struct task *task;

	if (through && !cache->lock.root && !cache_touches(cache, io) &&
	    (io->flags & IO_DIRECT || io->op != IO_WRITE)) {
		block_submit(cache->block.below, io);
		return;
	}
	task = task_new(cache, io);
	if (!task)
		return;
	if (!through && !cache->lock.root)
		write_try(task); /* it takes a range where it has to wait */
	else if (task_take_range(task))
		task_retry(task);
}
