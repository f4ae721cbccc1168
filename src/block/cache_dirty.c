/*
 * cache_dirty.c - what is newer than the target's content, and how it leaves.
 *
 *                    WRITE                 write-out sent
 *          clean ───────────► dirty ─────────────────────► leaving ──── done ───► clean
 *                               ▲ ▲                          │  │
 *                               │ └── failed: kept, tried ───┘  │
 *                               └──────── WRITE meanwhile ──────┘  (then both)
 *
 * Chunks with dirty pages stand in a list in the order in which they became dirty, and leave from
 * its old end: those that are too old, while too much is dirty, and as far as somebody waits for it
 * (flush_to). Of a chunk all that is dirty leaves, each run of adjoining blocks as one WRITE, many
 * at a time. What is written meanwhile goes to another frame, and leaves again; align sends it when
 * the first is done.
 *
 * What fails is dirty again, at the new end, and waits a while; BLOCK_UNWRITTEN tells of the first.
 *
 * Of the memory a quarter may be dirty freely; from there to a half writers are slowed down more
 * and more, to what leaves; at the half they wait. Write-out begins at an eighth.
 */
#include "cache.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lunfs/log.h"

enum { OUTS_MAX = 128 };
#define OUTS_BYTES     (32u << 20)
#define OUTS_BYTES_MIN (2u << 20)
#define RETRY_MS       1000u
#define OWN_FLUSH_MS   100    /* between two */
#define RATE_US        50000  /* how long the rate is measured */
#define SLOW_MIN_US    2000   /* shorter ones are saved up */
#define SLOW_MAX_US    200000 /* for one WRITE */

/* ---- the list ---- */

static void chunk_enlist(struct cache *cache, struct chunk *chunk)
{
	chunk->sequence = ++cache->sequence;
	chunk->since_ms = clock_ms();
	chunk->newer = NULL;
	chunk->older = cache->newest;
	*(cache->newest ? &cache->newest->newer : &cache->oldest) = chunk;
	cache->newest = chunk;
}

static void chunk_delist(struct cache *cache, struct chunk *chunk)
{
	*(chunk->older ? &chunk->older->newer : &cache->oldest) = chunk->newer;
	*(chunk->newer ? &chunk->newer->older : &cache->newest) = chunk->older;
	chunk->sequence = 0;
}

static void cache_expire(void *data);

/* How often it is looked for what is too old. */
static unsigned expire_ms(const struct cache *cache)
{
	return CLAMP(cache->options.dirty_expire_ms / 4, 10u, 1000u);
}

static uint64_t blocks_bytes(const struct cache *cache, uint8_t blocks)
{
	return (uint64_t)__builtin_popcount(blocks) * cache->block_size;
}

void cache_mark_dirty(struct page *page, uint8_t blocks)
{
	struct chunk *chunk = page->chunk;
	struct cache *cache = chunk->cache;

	cache->owner.memory->busy += !page_is_busy(page);
	cache->dirty_bytes += blocks_bytes(cache, (uint8_t)(blocks & ~page->dirty));
	page->dirty |= blocks;
	chunk->dirty |= UINT64_C(1) << page->index;
	if (!chunk->sequence)
		chunk_enlist(cache, chunk);
	if (!cache->expiry)
		cache->expiry = loop_ticker(cache->loop, expire_ms(cache), cache_expire, cache);
	loop_defer(cache->loop, &cache->pump);
}

/* It was dirty, or leaving, and one of them is over. */
static void page_calmed(struct cache *cache, const struct page *page)
{
	cache->owner.memory->busy -= !page_is_busy(page);
}

static void page_undirty(struct cache *cache, struct page *page, uint8_t blocks)
{
	struct chunk *chunk = page->chunk;

	cache->dirty_bytes -= blocks_bytes(cache, blocks & page->dirty);
	page->dirty = (uint8_t)(page->dirty & ~blocks);
	if (page->dirty)
		return;
	chunk->dirty &= ~(UINT64_C(1) << page->index);
	if (!chunk->dirty)
		chunk_delist(cache, chunk);
}

/* ---- how much ---- */

static size_t limit_pages(const struct cache *cache)
{
	return frames_limit(cache->owner.memory->frames) / PAGE_BYTES;
}

static bool cache_is_small(const struct cache *cache)
{
	uint64_t dirty = cache->dirty_bytes + cache->leaving_bytes;

	return dirty < FLOOR_PAGES * PAGE_BYTES &&
	       dirty < frames_limit(cache->owner.memory->frames) / 2;
}

bool cache_is_full(const struct cache *cache)
{
	return cache->owner.memory->busy >= limit_pages(cache) / 2 && !cache_is_small(cache);
}

static void rate_measure(struct cache *cache, uint64_t length)
{
	int64_t now = clock_us(), took = now - cache->rate_since_us;

	cache->rate_bytes += length;
	if (took < RATE_US)
		return;
	double rate = (double)cache->rate_bytes / (double)took;
	/* after a pause it begins anew */
	if (took < 4 * RATE_US)
		cache->rate = cache->rate > 0 ? cache->rate * 0.7 + rate * 0.3 : rate;
	cache->rate_since_us = now;
	cache->rate_bytes = 0;
}

int64_t cache_slow_down(struct cache *cache, uint64_t length)
{
	double limit = (double)limit_pages(cache), now_busy = (double)cache->owner.memory->busy;
	double over = (now_busy - limit / 4) / (limit / 4);
	int64_t now = clock_us();

	if (over <= 0 || cache->rate <= 0 || cache_is_small(cache))
		return 0;
	/* twice what leaves at first, half of it in the end */
	double allowed = cache->rate * (2 - 1.5 * MIN(over, 1));
	cache->gate_us = MAX(cache->gate_us, now) + (int64_t)((double)length / allowed);
	cache->gate_us = MIN(cache->gate_us, now + SLOW_MAX_US);
	return cache->gate_us - now < SLOW_MIN_US ? 0 : cache->gate_us;
}

/* ---- leaving ---- */

static void out_done(struct io *io, int error);

/* Adds the blocks of a page to the WRITE. */
static void out_add(struct out *out, struct page *page, unsigned from, unsigned to)
{
	struct cache *cache = out->cache;
	uint8_t *memory = page->memory + (size_t)from * cache->block_size;
	size_t length = (size_t)(to - from) * cache->block_size;
	uint8_t blocks = (uint8_t)((1u << to) - (1u << from));
	struct iovec *last = out->io.niov ? &out->iov[out->io.niov - 1] : NULL;

	frames_keep(cache->owner.memory->frames, page->memory, PAGE_BYTES);
	if (last && (uint8_t *)last->iov_base + last->iov_len == memory)
		last->iov_len += length;
	else
		out->iov[out->io.niov++] = (struct iovec){memory, length};
	out->io.length += length;
	out->frames[out->count] = page->memory;
	out->blocks[out->count++] = blocks;
	page->writing++;
	page->leaving |= blocks;
	page_undirty(cache, page, blocks);
}

/* What of a page may go along: all that is dirty, up to the end of the LUN, or all beyond it. */
static uint8_t page_leaves(const struct cache *cache, const struct page *page)
{
	uint8_t within = page->dirty & cache_page_blocks(cache, page_number(page));

	return within ? within : page->dirty;
}

/* The run of dirty blocks that begins with the first of the chunk; it ends where the LUN does. */
static void out_fill(struct out *out, struct chunk *chunk)
{
	const struct cache_memory *memory = out->cache->owner.memory;
	unsigned index = (unsigned)__builtin_ctzll(chunk->dirty);
	struct page *page = chunk_page(chunk, memory, index);
	uint8_t blocks = page_leaves(out->cache, page);
	unsigned from = (unsigned)__builtin_ctz(blocks), to;

	out->first = chunk->number * CHUNK_PAGES + index;
	out->io.offset = out->first * PAGE_BYTES + (uint64_t)from * out->cache->block_size;
	do {
		for (to = from; blocks >> to & 1; to++)
			;
		out_add(out, page, from, to);
		if (to < out->cache->page_blocks || ++index == CHUNK_PAGES ||
		    out->io.offset + out->io.length == out->cache->block.size)
			return;
		page = chunk_page(chunk, memory, index);
		blocks = page ? page_leaves(out->cache, page) : 0;
		from = 0;
	} while (blocks & 1);
}

static bool out_send(struct cache *cache, struct chunk *chunk)
{
	struct out *out = slab_get(&cache->outs);

	if (!out)
		return false;
	out->cache = cache;
	out->sequence = chunk->sequence;
	out->io.op = IO_WRITE;
	out->io.iov = out->iov;
	out->io.done = out_done;
	out->io.cancelled = &out->fenced;
	out_fill(out, chunk);
	out->next = cache->leaving;
	if (out->next)
		out->next->previous = out;
	cache->leaving = out;
	if (!cache->leaving_count++ && clock_us() - cache->rate_since_us > 4 * RATE_US) {
		cache->rate_since_us = clock_us();
		cache->rate_bytes = 0;
	}
	cache->leaving_bytes += out->io.length;
	cache->stats.written_out++;
	block_submit(cache->block.below, &out->io);
	return true;
}

/* All that is dirty of it; few of its runs may be on their way already. */
static void chunk_send(struct cache *cache, struct chunk *chunk)
{
	while (chunk->dirty && out_send(cache, chunk))
		;
}

static bool chunk_is_due(const struct cache *cache, const struct chunk *chunk)
{
	const struct cache_memory *memory = cache->owner.memory;

	if (chunk->sequence <= cache->flush_to)
		return true;
	if (cache->failing || cache->gone)
		return false;
	return memory->busy > limit_pages(cache) / 8 ||
	       clock_ms() - chunk->since_ms >= cache->options.dirty_expire_ms;
}

/* On its way at a time: what leaves in half a second, so that others need not wait for longer. */
static size_t outs_bytes(const struct cache *cache)
{
	double bytes = cache->rate * 500000;

	return bytes > OUTS_BYTES ? OUTS_BYTES : MAX((size_t)bytes, OUTS_BYTES_MIN);
}

void cache_write_out(struct cache *cache)
{
	while (cache->oldest && chunk_is_due(cache, cache->oldest) &&
	       cache->leaving_count < OUTS_MAX && cache->leaving_bytes < outs_bytes(cache) &&
	       out_send(cache, cache->oldest))
		;
}

static void cache_pump(struct loop_work *work)
{
	struct cache *cache = container_of(work, struct cache, pump);

	cache_write_out(cache);
	cache_check(cache);
}

static void cache_expire(void *data)
{
	struct cache *cache = data;

	if (!cache->oldest)
		loop_remove(&cache->expiry);
	cache_write_out(cache);
	cache_check(cache);
}

/* ---- and back ---- */

static void retry_over(void *data)
{
	struct cache *cache = data;

	loop_remove(&cache->retry);
	cache->failing = false;
	cache_write_out(cache);
}

static void cache_write_lost(struct cache *cache, int error)
{
	cache->failures++;
	cache->error = error;
	cache->stats.failed++;
}

static void cache_failed(struct cache *cache, const struct io *io, int error)
{
	bool first = !cache->unwritten;

	cache->failing = cache->unwritten = true;
	cache_write_lost(cache, error);
	if (!cache->retry && !cache->gone)
		cache->retry = loop_timer(cache->loop, RETRY_MS, retry_over, cache);
	if (!first)
		return;
	if (log_limit_passes(&cache->log, cache->name))
		log_warning_of(cache->name,
		    "bytes %" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT
		    ", and maybe more, could not be written: %s; they are kept, and tried again",
		    io->offset, io->offset + io->length - 1, strerror(-error));
	block_raise(&cache->block, BLOCK_UNWRITTEN);
}

/* The pages of a write-out are its own no more. failed: what they are is not at the target; and
 * never will be, if it was fenced. */
static void out_leave_pages(struct out *out, bool failed)
{
	struct cache *cache = out->cache;
	struct frames *frames = cache->owner.memory->frames;

	for (unsigned i = 0; i < out->count; i++) {
		struct page *page = page_find(cache, out->first + i);

		frames_let_go(frames, out->frames[i], PAGE_BYTES);
		if (!--page->writing)
			page->leaving = 0;
		if (failed && out->fenced)
			page_forget(page, out->blocks[i]);
		if (failed && !out->fenced && out->blocks[i] & page->valid) {
			page->writing++; /* as if it were still busy: the sums stay */
			cache_mark_dirty(page, out->blocks[i] & page->valid);
			page->writing--;
		} else {
			page_calmed(cache, page);
		}
		page_put(page);
	}
}

static void out_done(struct io *io, int error)
{
	struct out *out = container_of(io, struct out, io);
	struct cache *cache = out->cache;

	if (error == -EBADE && !out->fenced)
		cache_fence(cache);
	*(out->previous ? &out->previous->next : &cache->leaving) = out->next;
	if (out->next)
		out->next->previous = out->previous;
	cache->leaving_count--;
	cache->leaving_bytes -= io->length;
	out_leave_pages(out, error != 0);
	if (error && !out->fenced)
		cache_failed(cache, io, error);
	else if (error)
		cache_write_lost(cache, error == -EINTR ? -EBADE : error);
	else
		rate_measure(cache, io->length);
	if (!error)
		cache->unwritten = false;
	if (!error && !cache->retry)
		cache->failing = false;
	slab_put(&cache->outs, out);
	cache_resume_settled(cache);
	cache_write_out(cache);
	cache_serve_waiting(cache);
	cache_check(cache);
}

static bool page_drop_dirty(struct page *page, void *data)
{
	bool *any = data;
	struct cache *cache = page->chunk->cache;

	*any |= page->dirty || page->writing;
	if (page->dirty) {
		page_undirty(cache, page, page->dirty);
		page_calmed(cache, page);
	}
	cache_forget_fill(page);
	page_forget(page, UINT8_MAX);
	page_put(page);
	return true;
}

bool cache_drop_dirty(struct cache *cache)
{
	bool any = false;

	(void)pages_each(cache, 0, UINT64_MAX, page_drop_dirty, &any);
	return any;
}

/* ---- waiting for it ---- */

static bool page_is_settled(struct page *page, void *data)
{
	const struct io *io = data;
	uint8_t touched = cache_blocks_touched(
	    page->chunk->cache, page_number(page), io->offset, io->offset + io->length);

	return !((page->dirty | page->leaving) & touched);
}

bool cache_is_settled(struct cache *cache, const struct io *io)
{
	return (!cache->oldest && !cache->leaving) ||
	       pages_each(cache, io_first_page(io), io_end_page(io), page_is_settled, (void *)io);
}

/*
 * Has what is dirty of the chunks that [first, end) touches leave. Along the list, not from page to
 * page: what is submitted below may have clean pages evicted.
 */
static void cache_send(struct cache *cache, uint64_t first, uint64_t end)
{
	struct chunk *newer;

	for (struct chunk *chunk = cache->oldest; chunk; chunk = newer) {
		newer = chunk->newer;
		if (chunk->number >= first / CHUNK_PAGES && chunk->number * CHUNK_PAGES < end)
			chunk_send(cache, chunk);
	}
}

void cache_settle(struct task *task)
{
	struct cache *cache = task->cache;

	if (task->tried && cache->failures != task->failures) {
		task_end(task, cache->error);
		return;
	}
	task->tried = true;
	task->failures = cache->failures;
	cache_send(cache, task->first, task->end);
	task_push(&cache->settling, task);
}

/* Has all that was dirty up to the task's sequence been at the target, or failed? */
static bool flush_is_settled(const struct cache *cache, const struct task *task)
{
	if (cache->oldest && cache->oldest->sequence <= task->sequence)
		return false;
	for (const struct out *out = cache->leaving; out; out = out->next) {
		if (out->sequence <= task->sequence)
			return false;
	}
	return true;
}

bool cache_settle_all(struct task *task)
{
	struct cache *cache = task->cache;

	task->failures = cache->failures;
	task->sequence = cache->flush_to = cache->sequence;
	cache_write_out(cache);
	if (flush_is_settled(cache, task))
		return false;
	task_push(&cache->settling, task);
	return true;
}

static bool task_is_settled(struct cache *cache, const struct task *task)
{
	if (task->parent->op == IO_FLUSH)
		return flush_is_settled(cache, task);
	/* it has a range: what it waits for is dirty again only where it failed */
	return cache->failures != task->failures || cache_is_settled(cache, task->parent);
}

void cache_resume_settled(struct cache *cache)
{
	struct task_queue queue = cache->settling;
	struct task *task;

	cache->settling = (struct task_queue){NULL, NULL};
	while ((task = task_pop(&queue))) {
		if (task_is_settled(cache, task))
			task_retry(task);
		else
			task_push(&cache->settling, task);
	}
}

/* ---- room ---- */

static void own_flush_done(struct io *io, int error)
{
	struct cache *cache = container_of(io, struct cache, own_flush);

	(void)error;
	cache->own_flushed_ms = clock_ms();
	cache->own_flushing = false;
	cache_serve_waiting(cache);
}

/*
 * What is dirty leaves by itself when it is too much. But what has left is kept until it is on
 * stable storage: if that takes the room, it is flushed.
 */
void cache_press(struct cache *cache)
{
	cache_write_out(cache);
	if (cache->own_flushing || cache->leaving || cache->filling || cache->gone)
		return;
	if (cache->oldest && !cache->failing) {
		cache->flush_to = MAX(cache->flush_to, cache->oldest->sequence);
		cache_write_out(cache);
		return;
	}
	if (clock_ms() - cache->own_flushed_ms < OWN_FLUSH_MS)
		return;
	cache->own_flushing = true;
	cache->own_flush = (struct io){.op = IO_FLUSH, .done = own_flush_done};
	block_submit(cache->block.below, &cache->own_flush);
}

/* ---- what is dirty ---- */

struct telling {
	void (*fn)(uint64_t start, uint64_t end, void *data);
	void *data;
	uint64_t reach;
};

static bool page_tell(struct page *page, void *data)
{
	struct telling *telling = data;
	const struct cache *cache = page->chunk->cache;
	uint64_t start = page_number(page) * PAGE_BYTES;

	for (unsigned i = 0; i < cache->page_blocks; i++) {
		uint64_t at = start + (uint64_t)i * cache->block_size;
		if (!((page->dirty | page->leaving) >> i & 1))
			continue;
		telling->reach = MAX(telling->reach, at + cache->block_size);
		if (telling->fn)
			telling->fn(at, at + cache->block_size, telling->data);
	}
	return true;
}

uint64_t cache_reach(const struct block *block)
{
	struct telling telling = {.fn = NULL};

	(void)pages_each(cache_of(block), 0, UINT64_MAX, page_tell, &telling);
	return telling.reach;
}

void cache_each_dirty(
    const struct block *block, void (*fn)(uint64_t start, uint64_t end, void *data), void *data)
{
	struct telling telling = {.fn = fn, .data = data};

	(void)pages_each(cache_of(block), 0, UINT64_MAX, page_tell, &telling);
}

void cache_dirty_init(struct cache *cache)
{
	cache->pump.run = cache_pump;
}
