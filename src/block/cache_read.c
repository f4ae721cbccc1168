/*
 * cache_read.c - READs: from pages, and past them.
 *
 * A READ has its pages, and keeps them by pins, before anything is fetched for it; so what has come
 * stays until the last of it has. It is answered at the end of the turn, from all its pages at
 * once.
 */
#include "cache.h"

#include <errno.h>

/* ---- from pages ---- */

/* Hands out the frames of its pages, held: who writes to a page meanwhile gives it another. Returns
 * how many iovecs. */
static int read_lend(struct task *task)
{
	struct cache *cache = task->cache;
	struct frames *frames = cache->owner.memory->frames;
	struct io *io = task->parent;
	struct iovec *iov = cache->owner.memory->lent, *last = NULL;
	uint64_t end = io->offset + io->length;

	for (uint64_t at = io->offset; at < end;) {
		const struct page *page = page_find(cache, at / PAGE_BYTES);
		uint8_t *memory = page->memory + at % PAGE_BYTES;
		size_t length = MIN(PAGE_BYTES - at % PAGE_BYTES, end - at);
		frames_hold(frames, memory, length);
		if (last && (uint8_t *)last->iov_base + last->iov_len == memory) {
			last->iov_len += length;
		} else {
			last = last ? last + 1 : iov;
			*last = (struct iovec){memory, length};
		}
		at += length;
	}
	io->iov = iov;
	return io->niov = (int)(last - iov) + 1;
}

static void read_copy(struct task *task)
{
	struct cursor cursor = {.iov = task->parent->iov};
	uint64_t end = task->parent->offset + task->parent->length;

	for (uint64_t at = task->parent->offset; at < end;) {
		const struct page *page = page_find(task->cache, at / PAGE_BYTES);
		size_t length = MIN(PAGE_BYTES - at % PAGE_BYTES, end - at);
		cursor_copy(&cursor, page->memory + at % PAGE_BYTES, length, true);
		at += length;
	}
}

static void read_count_use(struct task *task)
{
	for (uint64_t i = task->first; i < task->end; i++) {
		struct page *page = page_find(task->cache, i);
		task->cache->stats.used_ahead += page->ahead;
		page->spent |= page->ahead && task->parent->flags & IO_LEND;
		if (!page->fresh)
			s3fifo_use(&page->node);
		page->fresh = page->ahead = false;
	}
}

/*
 * What was fetched ahead and lent has come to the kernel's page cache, and will be read again from
 * there: its frames go to what is fetched next, while they are in the processor's caches.
 */
static void read_drop_spent(struct cache *cache, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end; i++) {
		struct page *page = page_find(cache, i);
		if (!page || !page->spent || page_is_busy(page) || page->pins)
			continue;
		page_forget(page, UINT8_MAX);
		page_put(page);
	}
}

/* All is there; its pages are pinned. */
static void read_deliver(struct task *task)
{
	struct io *parent = task->parent;

	read_count_use(task);
	if (parent->flags & IO_LEND) {
		struct cache *cache = task->cache;
		struct cache_memory *memory = cache->owner.memory;
		uint64_t first = task->first, end = task->end;
		int count = read_lend(task);
		parent->done(parent, 0);
		for (int i = 0; i < count; i++)
			frames_release(
			    memory->frames, memory->lent[i].iov_base, memory->lent[i].iov_len);
		task_free(task);
		read_drop_spent(cache, first, end);
	} else {
		read_copy(task);
		task_free(task);
		parent->done(parent, 0);
	}
}

void cache_deliver(struct loop_work *work)
{
	struct cache *cache = container_of(work, struct cache, deliver);
	struct task_queue ready = cache->ready;
	struct task *task;

	cache->ready = (struct task_queue){NULL, NULL};
	while ((task = task_pop(&ready)))
		read_deliver(task);
}

/* Its pages are pinned and valid: it is answered at the end of the turn. */
static void read_is_ready(struct task *task)
{
	struct cache *cache = task->cache;

	task_push(&cache->ready, task);
	loop_defer(cache->loop, &cache->deliver);
}

/* Makes and pins the pages; false where there is no room for their memory yet. */
static bool read_take_pages(struct task *task, int *error)
{
	struct cache *cache = task->cache;
	uint64_t made = task->first;
	size_t missing = 0;

	for (; made < task->end; made++) {
		struct page *page = page_get(cache, made);
		if (!page)
			break;
		page->pins++;
		missing += !page->memory && !page->fill;
	}
	if (made == task->end && (!missing || cache_has_room(cache, missing))) {
		task->pinned = true;
		return true;
	}
	*error = made < task->end ? -ENOMEM : 0;
	for (uint64_t i = task->first; i < made; i++)
		page_unpin(page_find(cache, i));
	return false;
}

void read_try(struct task *task)
{
	struct cache *cache = task->cache;
	const struct io *io = task->parent;
	int error = 0;

	if (io_is_cancelled(io) || io->offset + io->length > cache->block.size) {
		task_end(task, io_is_cancelled(io) ? -EINTR : -EIO);
		return;
	}
	if (!task->pinned && !read_take_pages(task, &error)) {
		if (error || cache->gone)
			task_end(task, error ? error : -EIO);
		else
			cache_wait_for_room(task);
		return;
	}
	struct fill *fill = cache_need(cache, io->offset, io->offset + io->length, &error);
	if (error) {
		task_end(task, error);
	} else if (fill) {
		task_push(&fill->waiters, task);
	} else {
		read_is_ready(task);
	}
}

void cache_read(struct cache *cache, struct io *io)
{
	uint64_t end = io->offset + io->length;
	bool held = cache_holds(cache, io->offset, end);
	struct task *task = task_new(cache, io);

	if (!task)
		return;
	*(held ? &cache->stats.hits : &cache->stats.misses) += task->end - task->first;
	if (held) {
		task_pin(task);
		read_is_ready(task);
	} else {
		read_try(task);
	}
	if (io->reader)
		cache_read_ahead(cache, io, !held);
}

/* ---- past them ---- */

/* What is newer than the target's goes there first, or is all of it. */
void read_past_try(struct task *task)
{
	struct cache *cache = task->cache;
	const struct io *io = task->parent;

	if (io_is_cancelled(io)) {
		task_end(task, -EINTR);
	} else if (cache_is_settled(cache, io)) {
		task_pass(task, task_passed);
	} else if (cache_holds(cache, io->offset, io->offset + io->length)) {
		task_pin(task);
		read_is_ready(task);
	} else if (task->ranged || task_take_range(task)) {
		/* from here on nobody makes it dirty again */
		cache_settle(task);
	}
}

void cache_read_past(struct cache *cache, struct io *io)
{
	struct task *task;

	if (!cache_touches(cache, io) || cache_is_settled(cache, io)) {
		block_submit(cache->block.below, io);
	} else if ((task = task_new(cache, io))) {
		read_past_try(task);
	}
}
