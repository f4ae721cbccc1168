/*
 * cache.c - what was read, and what was written and is not at the target yet.
 *
 *   READ ──────► all valid ─────────────────────────────────────────────► lent or copied ► done
 *           └──► room ► fills below (cache_fill.c) ► valid ──────────────┘
 *   WRITE ─────► edges valid ► room ► into pages, dirty ► (slowed down) ► done
 *                                          └► write-out (cache_dirty.c) ► below
 *   FUA, DIRECT, ► nothing dirty there ► pages forgotten ► below ► pages, where wanted ► done
 *   writethrough,
 *   ZERO, DISCARD
 *   FLUSH ─────► all that was dirty is written out ► below ► done
 *
 * Of a DIRECT request with nothing cached in its range the cache knows no more: it goes below as it
 * is.
 *
 * Order (SAFETY.md 9): below stands align, which sends nothing before what overlaps it is done.
 * Here the range lock keeps WRITEs that have to wait, and what passes through, in the order of
 * their arrival. READs from pages take none: what they wait for arrives either way, and what is
 * written meanwhile is newer.
 *
 * Owns tasks, one for each request that is not done at once, and the block's part of the pages.
 * Invariants (cache_check): a task is in one queue, waits for one fill, or is below; outstanding
 * counts all; a page's fill is one of this cache's; dirty chunks are in the list from oldest to
 * newest, by sequence; what is dirty, leaving or kept for a fill is never evicted.
 */
#include "cache.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lunfs/log.h"

#define ROOM_TICK_MS 10u
#define SWEEP_MS     1000u

/* ---- tasks ---- */

void task_queue_sweep(struct task_queue *queue)
{
	struct task_queue all = *queue;
	struct task *task;

	*queue = (struct task_queue){NULL, NULL};
	while ((task = task_pop(&all))) {
		if (io_is_cancelled(task->parent))
			task_end(task, -EINTR);
		else
			task_push(queue, task);
	}
}

/* A target that is away for long holds up what nobody may wait for any more. */
static void cache_sweeps(void *data)
{
	struct cache *cache = data;

	cache_sweep_fills(cache);
	task_queue_sweep(&cache->settling);
	if (!cache->outstanding)
		loop_remove(&cache->sweep);
	cache_check(cache);
}

struct task *task_new(struct cache *cache, struct io *io)
{
	struct task *task = slab_get(&cache->tasks);

	if (!task) {
		io_end_later(&cache->ender, io, -ENOMEM);
		return NULL;
	}
	if (!cache->outstanding++ && !cache->sweep)
		cache->sweep = loop_ticker(cache->loop, SWEEP_MS, cache_sweeps, cache);
	task->cache = cache;
	task->parent = io;
	task->first = io_first_page(io);
	task->end = io_end_page(io);
	return task;
}

void task_pin(struct task *task)
{
	task->pinned = true;
	for (uint64_t i = task->first; i < task->end; i++)
		page_find(task->cache, i)->pins++;
}

void task_unpin(struct task *task)
{
	if (task->edges & EDGE_FIRST)
		page_unpin(page_find(task->cache, task->first));
	if (task->edges & EDGE_LAST)
		page_unpin(page_find(task->cache, task->end - 1));
	task->edges = 0;
	if (!task->pinned)
		return;
	task->pinned = false;
	for (uint64_t i = task->first; i < task->end; i++)
		page_unpin(page_find(task->cache, i));
}

/* Gives back everything but the parent. The range last: whoever waited for it goes on from here. */
void task_free(struct task *task)
{
	struct cache *cache = task->cache;

	task_unpin(task);
	if (task->ranged)
		range_lock_release(&cache->lock, &task->range);
	slab_put(&cache->tasks, task);
	cache->outstanding--;
}

void task_end(struct task *task, int error)
{
	struct cache *cache = task->cache;
	struct io *parent = task->parent;

	task_free(task);
	io_end_later(&cache->ender, parent, error);
}

static void task_granted(struct range *range);

/* From here on what overlaps it waits. False: it has to wait itself, and is resumed when granted.
 */
bool task_take_range(struct task *task)
{
	const struct io *parent = task->parent;
	uint32_t block_size = task->cache->block_size;

	task->ranged = true;
	/* of whole blocks, so that none is dirty again that it waits for */
	task->range.start = parent->offset - parent->offset % block_size;
	task->range.end = parent->offset + parent->length + block_size - 1;
	task->range.end -= task->range.end % block_size;
	task->range.kind = parent->op == IO_READ ? RANGE_SHARED : RANGE_EXCLUSIVE;
	task->range.granted = task_granted;
	task->behind = true;
	range_lock_acquire(&task->cache->lock, &task->range);
	task->behind = false;
	return range_is_granted(&task->range);
}

/* It began when nothing was in its way, and has to wait. */
void task_keep_place(struct task *task)
{
	if (task->ranged || task->parent->op != IO_WRITE)
		return;
	bool granted = task_take_range(task);
	assert(granted);
	(void)granted;
}

static void task_granted(struct range *range)
{
	struct task *task = container_of(range, struct task, range);

	if (!task->behind)
		task_retry(task);
}

void task_passed(struct io *io, int error)
{
	struct task *task = container_of(io, struct task, io);
	struct io *parent = task->parent;

	task_free(task);
	parent->done(parent, error);
}

void task_pass(struct task *task, void (*done)(struct io *io, int error))
{
	task->io = *task->parent;
	task->io.done = done;
	block_submit(task->cache->block.below, &task->io);
}

/* ---- blocks of pages ---- */

uint8_t cache_page_blocks(const struct cache *cache, uint64_t number)
{
	uint64_t left =
	    (cache->block.size - MIN(cache->block.size, number * PAGE_BYTES)) / cache->block_size;

	return (uint8_t)((1u << MIN(left, cache->page_blocks)) - 1);
}

uint8_t cache_blocks_touched(
    const struct cache *cache, uint64_t number, uint64_t start, uint64_t end)
{
	uint64_t page = number * PAGE_BYTES;
	unsigned from, to;

	if (start <= page && end >= page + PAGE_BYTES)
		return cache_page_blocks(cache, number);
	from = start <= page ? 0 : (unsigned)((start - page) / cache->block_size);
	to = end >= page + PAGE_BYTES
	         ? cache->page_blocks
	         : (unsigned)((end - page + cache->block_size - 1) / cache->block_size);
	return (uint8_t)((1u << to) - (1u << from)) & cache_page_blocks(cache, number);
}

/* Is all of it in memory? */
bool cache_holds(struct cache *cache, uint64_t start, uint64_t end)
{
	for (uint64_t i = start / PAGE_BYTES; i * PAGE_BYTES < end; i++) {
		const struct page *page = page_find(cache, i);
		if (!page || cache_blocks_touched(cache, i, start, end) & ~page->valid)
			return false;
	}
	return true;
}

static bool page_is_no_page(struct page *page, void *data)
{
	(void)page;
	(void)data;
	return false;
}

/* Is anything of it in memory, or on its way there? */
bool cache_touches(struct cache *cache, const struct io *io)
{
	return !pages_each(cache, io_first_page(io), io_end_page(io), page_is_no_page, NULL);
}

void cursor_copy(struct cursor *cursor, uint8_t *memory, size_t length, bool out)
{
	while (length) {
		size_t left;
		uint8_t *at = cursor_next(cursor, &left);

		left = MIN(left, length);
		if (memory && out)
			memcpy(at, memory, left);
		else if (memory)
			memcpy(memory, at, left);
		memory = memory ? memory + left : NULL;
		length -= left;
		cursor->at += left;
	}
}

/* ---- FLUSH ---- */

static void flush_try(struct task *task)
{
	struct cache *cache = task->cache;

	if (io_is_cancelled(task->parent))
		task_end(task, -EINTR);
	else if (cache->failures != task->failures)
		task_end(task, cache->error);
	else
		task_pass(task, task_passed);
}

static void cache_flush(struct cache *cache, struct io *io)
{
	struct task *task;

	if (!cache->oldest && !cache->leaving) {
		block_submit(cache->block.below, io);
	} else if ((task = task_new(cache, io)) && !cache_settle_all(task)) {
		flush_try(task);
	}
}

/* ---- waiting ---- */

void task_retry(struct task *task)
{
	struct cache *cache = task->cache;
	const struct io *io = task->parent;

	if (io->op == IO_FLUSH)
		flush_try(task);
	else if (io->op == IO_READ && cache_is_read_past(io))
		read_past_try(task);
	else if (io->op == IO_READ)
		read_try(task);
	else if (cache_is_written_through(cache, io))
		through_try(task);
	else
		write_try(task);
}

void caches_serve(struct cache_memory *memory)
{
	struct cache *cache;

	while ((cache = memory->waiting)) {
		memory->waiting = cache->next_waiting;
		cache->awaits = false;
		loop_defer(cache->loop, &cache->serve);
	}
}

static void cache_serves(struct loop_work *work)
{
	cache_serve_waiting(container_of(work, struct cache, serve));
}

/* It is told when there may be room. */
static void cache_await_room(struct cache *cache)
{
	struct cache_memory *memory = cache->owner.memory;

	cache_memory_await(memory);
	if (cache->awaits)
		return;
	cache->awaits = true;
	cache->next_waiting = memory->waiting;
	memory->waiting = cache;
}

static void cache_await_no_room(struct cache *cache)
{
	struct cache **link = &cache->owner.memory->waiting;

	while (cache->awaits && *link != cache)
		link = &(*link)->next_waiting;
	if (cache->awaits)
		*link = cache->next_waiting;
}

static void room_tick(void *data)
{
	cache_serve_waiting(data);
}

void cache_wait_for_room(struct task *task)
{
	struct cache *cache = task->cache;

	task_keep_place(task);
	task_push(&cache->waiting, task);
	cache_await_room(cache);
	if (!cache->tick)
		cache->tick = loop_ticker(cache->loop, ROOM_TICK_MS, room_tick, cache);
	cache_press(cache);
}

/* Those that nobody waits for any more, and in order as many as there is room for. */
void cache_serve_waiting(struct cache *cache)
{
	struct task_queue queue = cache->waiting;
	struct task *task;

	if (!queue.head)
		return;
	cache->waiting = (struct task_queue){NULL, NULL};
	while ((task = task_pop(&queue))) {
		/* as soon as one waits again, so do all behind it */
		if (cache->waiting.head && !io_is_cancelled(task->parent) && !cache->gone)
			task_push(&cache->waiting, task);
		else
			task_retry(task);
	}
	if (!cache->waiting.head)
		loop_remove(&cache->tick);
	cache_check(cache);
}

/* ---- events ---- */

static bool page_beyond_end(struct page *page, void *data)
{
	page_forget(page, (uint8_t)(~cache_page_blocks(data, page_number(page))));
	page_put(page);
	return true;
}

void cache_fence(struct cache *cache)
{
	for (struct out *out = cache->leaving; out; out = out->next)
		out->fenced = true;
	if (!cache_drop_dirty(cache))
		return;
	log_error_of(
	    cache->name, "writes since the last fsync are lost: another host has reserved the LUN");
	block_raise(&cache->block, BLOCK_FORGOTTEN);
	block_raise(&cache->block, BLOCK_CHANGED);
}

static void cache_is_gone(struct cache *cache)
{
	cache->gone = true;
	loop_remove(&cache->retry);
	cache_serve_waiting(cache);
	if (cache->slowed.head)
		cache_slowed_over(cache);
}

static void cache_event(struct block *block, enum block_event event)
{
	struct cache *cache = cache_of(block);

	switch (event) {
	case BLOCK_CHANGED:
		(void)pages_each(cache, 0, UINT64_MAX, page_outdated, NULL);
		readahead_forget(cache->readahead, 0);
		break;
	case BLOCK_RESIZED:
		(void)pages_each(cache, 0, UINT64_MAX, page_beyond_end, cache);
		break;
	case BLOCK_FENCED:
		cache_fence(cache);
		break;
	case BLOCK_GONE:
		cache_is_gone(cache);
		break;
	case BLOCK_BACK:
		cache->gone = cache->failing = false;
		cache->flush_to = cache->sequence;
		cache_write_out(cache);
		break;
	default:
		break;
	}
	cache_check(cache);
}

/* ---- the block ---- */

/* What needs no asking: 0 and errors; 1 for the rest. */
static int cache_judge(const struct cache *cache, const struct io *io)
{
	if (io->op == IO_MAP)
		return -EOPNOTSUPP;
	if (io->op == IO_FLUSH)
		return 1;
	if (io->length > cache->block.size || io->offset > cache->block.size - io->length)
		return -EINVAL;
	if (io->flags & IO_LEND && cache_is_read_past(io))
		return -EINVAL;
	return io->length > 0;
}

static void cache_submit(struct block *block, struct io *io)
{
	struct cache *cache = cache_of(block);
	int verdict = cache_judge(cache, io);

	if (verdict <= 0)
		io_end_later(&cache->ender, io, verdict);
	else if (io->op == IO_FLUSH)
		cache_flush(cache, io);
	else if (io->op != IO_READ)
		cache_change(cache, io);
	else if (cache_is_read_past(io))
		cache_read_past(cache, io);
	else
		cache_read(cache, io);
	cache_check(cache);
}

bool cache_is_idle(const struct block *block)
{
	const struct cache *cache = cache_of(block);

	return !cache->outstanding && !cache->filling && !cache->leaving && !cache->own_flushing &&
	       io_ender_is_idle(&cache->ender);
}

const struct cache_stats *cache_stats(const struct block *block)
{
	struct cache *cache = cache_of(block);

	cache->stats.cached = cache->owner.kept * PAGE_BYTES;
	cache->stats.dirty = cache->dirty_bytes + cache->leaving_bytes;
	cache->stats.in_flight = cache->leaving_bytes;
	cache->stats.window = readahead_window(cache->readahead);
	return &cache->stats;
}

struct page_owner *cache_owner(struct cache *cache)
{
	return &cache->owner;
}

static bool page_free(struct page *page, void *data)
{
	(void)data;
	assert(!page->pins && !page->writing && !page->fill);
	page->valid = 0;
	page_put(page);
	return true;
}

static void cache_free(struct block *block)
{
	struct cache *cache = cache_of(block);

	assert(cache_is_idle(block));
	loop_remove(&cache->tick);
	loop_remove(&cache->retry);
	loop_remove(&cache->slow);
	loop_remove(&cache->sweep);
	loop_remove(&cache->expiry);
	loop_cancel(cache->loop, &cache->deliver);
	loop_cancel(cache->loop, &cache->pump);
	loop_cancel(cache->loop, &cache->serve);
	cache_await_no_room(cache);
	io_ender_clear(&cache->ender);
	(void)cache_drop_dirty(cache);
	(void)pages_each(cache, 0, UINT64_MAX, page_free, NULL);
	readahead_free(cache->readahead);
	slab_clear(&cache->tasks);
	slab_clear(&cache->fills);
	slab_clear(&cache->outs);
	g_free(cache);
}

static const struct block_ops cache_ops = {
    .submit = cache_submit, .free = cache_free, .event = cache_event};

struct block *cache_new(struct block *below, struct loop *loop, struct cache_memory *memory,
    const struct cache_options *options, const char *name)
{
	struct cache *cache = g_new0(struct cache, 1);

	block_stack(&cache->block, &cache_ops, below);
	cache->loop = loop;
	cache->name = name;
	cache->options = *options;
	cache->owner.memory = memory;
	cache->owner.number = memory->caches++;
	/* align's own is any: what dirty data goes by is the disk's */
	while (below->limits.block_size == 1 && below->below)
		below = below->below;
	cache->block_size = below->limits.block_size;
	cache->page_blocks = PAGE_BYTES / cache->block_size;
	cache->block.limits.lends = true;
	cache->tasks.size = sizeof(struct task);
	cache->fills.size = sizeof(struct fill);
	cache->outs.size = sizeof(struct out);
	cache->deliver.run = cache_deliver;
	cache->serve.run = cache_serves;
	io_ender_init(&cache->ender, loop);
	cache_dirty_init(cache);
	cache->readahead = readahead_new(0);
	return &cache->block;
}

#ifdef LUNFS_CHECK
static unsigned queue_length(const struct task_queue *queue)
{
	unsigned length = 0;

	for (const struct task *task = queue->head; task; task = task->next) {
		assert(task->next || task == queue->tail);
		length++;
	}
	return length;
}

void cache_check(struct cache *cache)
{
	uint64_t sequence = 0;

	pages_check(cache);
	for (const struct chunk *chunk = cache->oldest; chunk; chunk = chunk->newer) {
		assert(chunk->dirty && chunk->sequence > sequence);
		assert(chunk->newer || chunk == cache->newest);
		sequence = chunk->sequence;
	}
	assert(sequence <= cache->sequence);
	assert(queue_length(&cache->ready) + queue_length(&cache->waiting) +
	           queue_length(&cache->settling) + queue_length(&cache->slowed) <=
	       cache->outstanding);
}
#else
void cache_check(struct cache *cache)
{
	(void)cache;
}
#endif
