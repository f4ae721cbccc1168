/*
 * pages.h - the pages of all caches of a mount: where they are, what memory they have, and who goes
 * when room is needed. Private to the cache.
 *
 * A page is 4 KiB of a LUN; a bit for each logical block says whether its memory holds the block's
 * content (valid), and whether it is newer than the target's (dirty). 64 pages, 256 KiB, make a
 * chunk: the unit in which they are found, and in which dirty ones leave.
 *
 *              fill comes              WRITE                 write-out sent
 *   [nothing] ───────────► clean ───────────────► dirty ─────────────────────► on its way
 *       ▲                    │ ▲                    ▲                            │     │
 *       └──── evicted ───────┘ └────────────────────┼──────── done ──────────────┘     │
 *                                                   └──── failed, or written again ────┘
 *
 * Only a clean page that nobody uses is evicted, in the order of S3-FIFO. The memory is a frame
 * (frames.h), kept by the page; whoever changes a page whose frame others use, a write-out or what
 * is kept for a target that forgets, gives it another one first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lunfs/frames.h"
#include "lunfs/pool.h"
#include "s3fifo.h"

#define PAGE_BYTES  FRAME_SIZE
#define CHUNK_PAGES 64u
#define CHUNK_SIZE  (CHUNK_PAGES * PAGE_BYTES)
/* The longest READ that goes through the pages. */
#define LEND_SIZE   (1u << 20)
#define LEND_IOVECS (LEND_SIZE / PAGE_BYTES + 1)

/* A LUN may have so many pages, dirty ones too, whatever the others do: a dead one stops nobody
 * (SAFETY.md 18). */
#define FLOOR_PAGES 512u

struct cache;
struct fill;

struct page {
	struct s3fifo_node node; /* in it while the page has memory */
	struct chunk *chunk;
	uint8_t *memory;               /* a frame, kept; NULL: no block is valid */
	struct fill *fill;             /* brings what is not valid; the page stays for it */
	uint16_t pins;                 /* requests that need it where it is */
	uint16_t writing;              /* write-outs of it that are on their way */
	uint8_t valid, dirty, leaving; /* blocks; leaving: in write-outs on their way */
	uint8_t index;                 /* in its chunk */
	bool fresh;                    /* read from the target, and by nobody yet */
	bool ahead;                    /* read-ahead brought it, and nobody has read it */
	bool spent;                    /* it did, and the kernel's page cache has it */
	struct page *unused;           /* the next, of those that are in no chunk */
};

struct chunk {
	struct cache *cache;
	uint64_t number;               /* of the LUN's */
	struct chunk *bucket;          /* the next in its bucket */
	struct chunk *previous, *next; /* of its cache */
	struct chunk *older, *newer;   /* dirty ones of its cache, by sequence */
	uint64_t sequence;             /* when it became dirty */
	int64_t since_ms;
	uint64_t present, dirty;     /* a bit for each page */
	uint32_t pages[CHUNK_PAGES]; /* places in the table, plus one */
};

struct cache_memory {
	struct frames *frames;
	struct s3fifo *fifo;
	struct page *table;
	size_t capacity, used; /* of the table; used ones are not all in use */
	struct page *unused;
	struct chunk **buckets;
	size_t buckets_mask;
	struct slab chunks;
	bool barren;           /* nothing may go, as far as is known */
	struct cache *waiting; /* caches in which somebody waits for room, by next_waiting */
	size_t busy;           /* pages that are dirty or being written out */
	uint16_t caches;       /* numbers given */
	struct iovec lent[LEND_IOVECS];
};

/* What a cache knows of its pages. */
struct page_owner {
	struct cache_memory *memory;
	uint16_t number;      /* among the caches of the memory */
	struct chunk *chunks; /* all */
	size_t pages, kept;   /* all, and those with memory */
	size_t coming;        /* frames of fills on their way */
};

struct page_owner *cache_owner(struct cache *cache);

/* NULL where there is none. */
struct chunk *chunk_find(struct cache *cache, uint64_t number);
struct page *page_find(struct cache *cache, uint64_t number);
/* The same, or a new one without memory; NULL: no memory for it. */
struct page *page_get(struct cache *cache, uint64_t number);
static inline struct page *chunk_page(
    const struct chunk *chunk, const struct cache_memory *memory, unsigned index)
{
	return chunk->pages[index] ? &memory->table[chunk->pages[index] - 1] : NULL;
}
static inline uint64_t page_number(const struct page *page)
{
	return page->chunk->number * CHUNK_PAGES + page->index;
}

/* Takes it away, if nobody needs it: nothing of it is valid, and nobody uses it. It may take its
 * chunk along. */
void page_put(struct page *page);
/* Forgets what is valid of these blocks, but for what is dirty or leaving. page_put() is to follow.
 */
void page_forget(struct page *page, uint8_t blocks);
/* One request less needs it where it is; page_put() included. */
void page_unpin(struct page *page);
/* Keeps the frame at memory in place of what it has. */
void page_set_memory(struct page *page, uint8_t *memory);
/* From here on its memory is its own, with what is valid of it if that is wanted. False: no memory.
 */
bool page_own(struct page *page, bool content);
/* Before and after dirty or writing changes. */
static inline bool page_is_busy(const struct page *page)
{
	return page->dirty || page->writing;
}

/*
 * Calls fn for the pages of [first, end), in no order; it may take the page away, and stops by
 * false. Returns whether it never did.
 */
bool pages_each(struct cache *cache, uint64_t first, uint64_t end,
    bool (*fn)(struct page *page, void *data), void *data);

/* The bits of pages [from, to) of a chunk. */
static inline uint64_t page_bits(unsigned from, unsigned to)
{
	uint64_t below = to < 64 ? (UINT64_C(1) << to) - 1 : UINT64_MAX;

	return from < 64 ? below >> from << from : 0;
}

/* May so many pages more have memory? Clean ones go for it. */
bool cache_has_room(struct cache *cache, size_t pages);

/* caches_serve() is called when there may be room. */
void cache_memory_await(struct cache_memory *memory);
/* Those in which somebody waits go on at the end of the turn. cache.c has it. */
void caches_serve(struct cache_memory *memory);

/* Asserts the invariants of all pages of the cache. */
void pages_check(struct cache *cache);
