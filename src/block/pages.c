/*
 * pages.c - the pages of all caches of a mount: see pages.h.
 *
 * Owns the table of pages, the chunks, the hash table that finds chunks, and the queues of S3-FIFO.
 * Invariants: a chunk is in its bucket, and in its cache's list, while it has a page; a page with
 * memory is in S3-FIFO, one without has no valid block; dirty and leaving blocks are valid; a
 * chunk's dirty bits are those of its pages; busy counts pages that are dirty or being written out.
 */
#include "pages.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "lunfs/block.h"

/* Room in the table for what each LUN may have beyond the limit. */
#define EXTRA_PAGES (256u << 10)

static struct cache_memory *memory_of(const struct page *page)
{
	return cache_owner(page->chunk->cache)->memory;
}

/* ---- finding ---- */

static struct chunk **bucket_of(
    const struct cache_memory *memory, const struct page_owner *owner, uint64_t number)
{
	uint64_t hash = (number << 12 | owner->number) * UINT64_C(0x9e3779b97f4a7c15);

	return &memory->buckets[hash >> 32 & memory->buckets_mask];
}

struct chunk *chunk_find(struct cache *cache, uint64_t number)
{
	const struct page_owner *owner = cache_owner(cache);
	struct chunk *chunk = *bucket_of(owner->memory, owner, number);

	while (chunk && (chunk->number != number || chunk->cache != cache))
		chunk = chunk->bucket;
	return chunk;
}

static struct chunk *chunk_get(struct cache *cache, uint64_t number)
{
	struct page_owner *owner = cache_owner(cache);
	struct cache_memory *memory = owner->memory;
	struct chunk *chunk = chunk_find(cache, number);

	if (chunk)
		return chunk;
	chunk = slab_get(&memory->chunks);
	if (!chunk)
		return NULL;
	struct chunk **bucket = bucket_of(memory, owner, number);
	chunk->cache = cache;
	chunk->number = number;
	chunk->bucket = *bucket;
	*bucket = chunk;
	chunk->next = owner->chunks;
	if (chunk->next)
		chunk->next->previous = chunk;
	owner->chunks = chunk;
	return chunk;
}

static void chunk_put(struct chunk *chunk)
{
	struct page_owner *owner = cache_owner(chunk->cache);
	struct chunk **link = bucket_of(owner->memory, owner, chunk->number);

	assert(!chunk->dirty && !chunk->sequence);
	while (*link != chunk)
		link = &(*link)->bucket;
	*link = chunk->bucket;
	*(chunk->previous ? &chunk->previous->next : &owner->chunks) = chunk->next;
	if (chunk->next)
		chunk->next->previous = chunk->previous;
	slab_put(&owner->memory->chunks, chunk);
}

struct page *page_find(struct cache *cache, uint64_t number)
{
	const struct chunk *chunk = chunk_find(cache, number / CHUNK_PAGES);

	return chunk ? chunk_page(chunk, cache_owner(cache)->memory, number % CHUNK_PAGES) : NULL;
}

static bool chunk_each(
    struct chunk *chunk, uint64_t present, bool (*fn)(struct page *page, void *data), void *data)
{
	const struct cache_memory *memory = cache_owner(chunk->cache)->memory;

	/* the last page takes the chunk along */
	for (; present; present &= present - 1) {
		if (!fn(chunk_page(chunk, memory, (unsigned)__builtin_ctzll(present)), data))
			return false;
	}
	return true;
}

bool pages_each(struct cache *cache, uint64_t first, uint64_t end,
    bool (*fn)(struct page *page, void *data), void *data)
{
	const struct page_owner *owner = cache_owner(cache);
	struct chunk *chunk, *next;

	if (!owner->pages)
		return true;
	if ((end - first) / CHUNK_PAGES > owner->pages) { /* fewer chunks than there could be */
		for (chunk = owner->chunks; chunk; chunk = next) {
			uint64_t start = chunk->number * CHUNK_PAGES;
			uint64_t from = first > start ? first - start : 0;
			uint64_t to = end > start ? end - start : 0;
			next = chunk->next;
			if (from < MIN(to, CHUNK_PAGES) &&
			    !chunk_each(chunk,
			        chunk->present &
			            page_bits((unsigned)from, (unsigned)MIN(to, CHUNK_PAGES)),
			        fn, data))
				return false;
		}
		return true;
	}
	while (first < end) {
		unsigned from = first % CHUNK_PAGES;
		unsigned to = (unsigned)MIN(CHUNK_PAGES, from + (end - first));
		chunk = chunk_find(cache, first / CHUNK_PAGES);
		if (chunk && !chunk_each(chunk, chunk->present & page_bits(from, to), fn, data))
			return false;
		first += to - from;
	}
	return true;
}

static struct page *page_new(struct cache_memory *memory)
{
	struct page *page = memory->unused;

	if (page) {
		memory->unused = page->unused;
		memset(page, 0, sizeof(*page));
	} else if (memory->used < memory->capacity) {
		page = &memory->table[memory->used++];
	}
	return page;
}

struct page *page_get(struct cache *cache, uint64_t number)
{
	struct page_owner *owner = cache_owner(cache);
	struct cache_memory *memory = owner->memory;
	struct chunk *chunk = chunk_get(cache, number / CHUNK_PAGES);
	unsigned index = number % CHUNK_PAGES;
	struct page *page = chunk ? chunk_page(chunk, memory, index) : NULL;

	if (!chunk || page)
		return page;
	page = page_new(memory);
	if (!page) {
		if (!chunk->present)
			chunk_put(chunk);
		return NULL;
	}
	page->chunk = chunk;
	page->index = (uint8_t)index;
	page->node.key = (uint64_t)owner->number << 48 | number;
	chunk->pages[index] = (uint32_t)(page - memory->table) + 1;
	chunk->present |= UINT64_C(1) << index;
	owner->pages++;
	return page;
}

/* ---- memory ---- */

void page_set_memory(struct page *page, uint8_t *memory)
{
	struct cache_memory *all = memory_of(page);
	struct page_owner *owner = cache_owner(page->chunk->cache);

	if (memory)
		frames_keep(all->frames, memory, PAGE_BYTES);
	if (page->memory)
		frames_let_go(all->frames, page->memory, PAGE_BYTES);
	owner->kept += !!memory;
	owner->kept -= !!page->memory;
	page->memory = memory;
	if (memory && !s3fifo_holds(&page->node))
		s3fifo_insert(all->fifo, &page->node);
	else if (!memory && s3fifo_holds(&page->node))
		s3fifo_remove(all->fifo, &page->node);
}

bool page_own(struct page *page, bool content)
{
	struct cache_memory *memory = memory_of(page);
	uint8_t *frame;

	if (page->memory && frame_users(memory->frames, page->memory) == 1)
		return true;
	if (!frames_get(memory->frames, 1, &frame))
		return false;
	if (page->memory && content)
		memcpy(frame, page->memory, PAGE_BYTES);
	page_set_memory(page, frame);
	frames_release(memory->frames, frame, PAGE_BYTES);
	return true;
}

void page_forget(struct page *page, uint8_t blocks)
{
	page->valid &= (uint8_t)(~blocks | page->dirty | page->leaving);
}

void page_put(struct page *page)
{
	struct chunk *chunk = page->chunk;
	struct page_owner *owner = cache_owner(chunk->cache);
	struct cache_memory *memory = owner->memory;

	if (page->valid || page->fill || page->pins || page->writing)
		return;
	page_set_memory(page, NULL);
	chunk->pages[page->index] = 0;
	chunk->present &= ~(UINT64_C(1) << page->index);
	page->chunk = NULL;
	page->unused = memory->unused;
	memory->unused = page;
	owner->pages--;
	if (!chunk->present)
		chunk_put(chunk);
}

/* It may go now, maybe. */
void page_unpin(struct page *page)
{
	page->pins--;
	memory_of(page)->barren = false;
	page_put(page);
}

/* ---- room ---- */

/* What is kept for a target that forgets, too, would make no room. */
static bool page_may_go(const struct s3fifo_node *node, void *data)
{
	const struct cache_memory *memory = data;
	const struct page *page = container_of((struct s3fifo_node *)node, struct page, node);

	return !page_is_busy(page) && !page->pins && !page->fill &&
	       frame_users(memory->frames, page->memory) == 1;
}

static void memory_has_room(void *data)
{
	struct cache_memory *memory = data;

	memory->barren = false;
	caches_serve(memory);
}

void cache_memory_await(struct cache_memory *memory)
{
	frames_await(memory->frames, memory_has_room, memory);
}

/* Nothing goes twice in vain: it would look at all pages each time. */
static void memory_reclaim(size_t bytes, void *data)
{
	struct cache_memory *memory = data;
	struct s3fifo_node *node;

	if (memory->barren)
		return;
	for (size_t freed = 0; freed < bytes; freed += PAGE_BYTES) {
		node = s3fifo_evict(memory->fifo, page_may_go, memory);
		if (!node) {
			memory->barren = true;
			cache_memory_await(memory);
			return;
		}
		struct page *page = container_of(node, struct page, node);
		page->valid = 0;
		page_put(page);
	}
}

bool cache_has_room(struct cache *cache, size_t pages)
{
	const struct page_owner *owner = cache_owner(cache);

	return frames_may_keep(owner->memory->frames, pages * PAGE_BYTES) ||
	       owner->kept + owner->coming + pages <= FLOOR_PAGES;
}

/* ---- life ---- */

struct cache_memory *cache_memory_new(struct frames *frames)
{
	struct cache_memory *memory;
	size_t pages = frames_limit(frames) / PAGE_BYTES, buckets = 1024;

	while (buckets < pages / 8)
		buckets *= 2;
	size_t capacity = pages + EXTRA_PAGES;
	void *table = mmap(NULL, capacity * sizeof(struct page), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (table == MAP_FAILED)
		return NULL;
	memory = g_new0(struct cache_memory, 1);
	memory->frames = frames;
	memory->fifo = s3fifo_new(pages);
	memory->capacity = capacity;
	memory->table = table;
	memory->buckets = g_new0(struct chunk *, buckets);
	memory->buckets_mask = buckets - 1;
	memory->chunks.size = sizeof(struct chunk);
	frames_on_reclaim(frames, memory_reclaim, memory);
	return memory;
}

void cache_memory_free(struct cache_memory *memory)
{
	if (!memory)
		return;
	assert(!memory->busy);
	frames_on_reclaim(memory->frames, NULL, NULL);
	frames_await(memory->frames, NULL, NULL);
	munmap(memory->table, memory->capacity * sizeof(struct page));
	g_free(memory->buckets);
	slab_clear(&memory->chunks);
	s3fifo_free(memory->fifo);
	g_free(memory);
}

/* ---- checking ---- */

static void page_check(const struct page *page, const struct chunk *chunk, unsigned index)
{
	assert(page->chunk == chunk && page->index == index);
	assert(chunk->present >> index & 1);
	assert((chunk->dirty >> index & 1) == !!page->dirty);
	assert(!(page->dirty & ~page->valid) && !(page->leaving & ~page->valid));
	assert(!page->valid || page->memory);
	assert(!!page->leaving == !!page->writing);
	assert(s3fifo_holds(&page->node) == !!page->memory);
	assert(page->valid || page->fill || page->pins || page->writing);
	(void)page;
	(void)chunk;
	(void)index;
}

void pages_check(struct cache *cache)
{
	const struct page_owner *owner = cache_owner(cache);
	const struct cache_memory *memory = owner->memory;
	size_t pages = 0, kept = 0;

	for (const struct chunk *chunk = owner->chunks; chunk; chunk = chunk->next) {
		assert(chunk->cache == cache && chunk->present);
		assert(chunk_find(cache, chunk->number) == chunk);
		assert(!!chunk->dirty == !!chunk->sequence);
		for (unsigned i = 0; i < CHUNK_PAGES; i++) {
			const struct page *page = chunk_page(chunk, memory, i);
			if (!page)
				continue;
			page_check(page, chunk, i);
			pages++;
			kept += !!page->memory;
		}
	}
	assert(pages == owner->pages && kept == owner->kept);
	(void)pages;
	(void)kept;
}
