/*
 * cache.h - what the files of the cache share; see cache.c for the picture. Private to it.
 */
#pragma once

#include "lunfs/block.h"

#include <glib.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "pages.h"
#include "readahead.h"

/* Where a WRITE begins and ends inside a logical block. */
enum { EDGE_FIRST = 1, EDGE_LAST = 2 };

/* A request that is not done at once. */
struct task {
	struct cache *cache;
	struct io *parent;
	struct io io;       /* below, where it is passed on */
	struct range range; /* in the lock while ranged */
	bool ranged, pinned, behind, tried;
	uint8_t edges;       /* of a WRITE: those whose pages stay */
	struct task *next;   /* of the one queue it is in */
	uint64_t first, end; /* pages */
	uint64_t sequence;   /* FLUSH: it covers what became dirty up to here */
	uint64_t failures;   /* the cache's, when it began to wait for write-outs */
	int64_t due_us;      /* of one that is slowed down */
};

struct task_queue {
	struct task *head, *tail;
};

/* READs below that bring pages: [first, first + count) of one chunk. */
struct fill {
	struct io io;
	struct cache *cache;
	uint64_t first;
	unsigned count;
	bool ahead;
	int64_t sent_us;
	struct fill *previous, *next;
	struct task_queue waiters;
	struct iovec iov[CHUNK_PAGES];
};

/* A WRITE below of dirty blocks that adjoin each other, of one chunk. */
struct out {
	struct io io;
	struct cache *cache;
	struct out *previous, *next;
	uint64_t sequence; /* of the chunk */
	bool fenced;       /* another host has the LUN: what was not sent yet need not be */
	uint64_t first;    /* page, and count more */
	unsigned count;
	uint8_t blocks[CHUNK_PAGES];  /* of each page */
	uint8_t *frames[CHUNK_PAGES]; /* that they had, kept */
	struct iovec iov[CHUNK_PAGES];
};

struct cache {
	struct block block;
	struct loop *loop;
	struct page_owner owner;
	struct cache_options options;
	const char *name;
	uint32_t block_size;
	unsigned page_blocks;
	bool gone;
	struct range_lock lock;
	struct slab tasks, fills, outs;
	unsigned outstanding; /* tasks */
	struct fill *filling;
	struct io_ender ender;      /* of requests without a task */
	struct task_queue ready;    /* READs to be answered at the end of the turn */
	struct task_queue waiting;  /* for room */
	struct task_queue settling; /* for write-outs */
	struct task_queue slowed;
	struct loop_work deliver, pump, serve;
	struct cache *next_waiting; /* of the memory's */
	bool awaits;                /* it is among them */
	GSource *tick, *retry, *slow, *expiry, *sweep;

	/* dirty data */
	struct chunk *oldest, *newest;
	uint64_t sequence, flush_to; /* the last that was given; all up to here is wanted out */
	struct out *leaving;
	unsigned leaving_count;
	size_t leaving_bytes;
	uint64_t dirty_bytes; /* not leaving */
	uint64_t failures;
	int error;      /* of the last failure */
	bool failing;   /* the last write-out failed: only what is waited for leaves for a while */
	bool unwritten; /* this was told, and nothing has left since */
	struct io own_flush;
	bool own_flushing;
	int64_t own_flushed_ms;
	struct log_limit log;

	/* how fast it leaves */
	int64_t rate_since_us, gate_us;
	uint64_t rate_bytes;
	double rate; /* bytes a microsecond; 0: not known */

	struct readahead *readahead;
	int64_t fill_since_us;
	uint64_t fill_bytes;
	double fill_rate, fill_latency; /* bytes a microsecond; microseconds */
	struct cache_stats stats;
};

static inline struct cache *cache_of(const struct block *block)
{
	return container_of((struct block *)block, struct cache, block);
}

/* The pages that a request touches: [first, end). */
static inline uint64_t io_first_page(const struct io *io)
{
	return io->offset / PAGE_BYTES;
}

static inline uint64_t io_end_page(const struct io *io)
{
	return (io->offset + io->length + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* A READ that does not go through the pages. */
static inline bool cache_is_read_past(const struct io *io)
{
	return io->flags & IO_DIRECT || io->length > LEND_SIZE;
}

static inline void task_push(struct task_queue *queue, struct task *task)
{
	task->next = NULL;
	*(queue->tail ? &queue->tail->next : &queue->head) = task;
	queue->tail = task;
}

static inline struct task *task_pop(struct task_queue *queue)
{
	struct task *task = queue->head;

	if (task)
		queue->head = task->next;
	if (!queue->head)
		queue->tail = NULL;
	return task;
}

/* A place in the data of a request. */
struct cursor {
	const struct iovec *iov;
	size_t at;
};

/* The data at it, and how much adjoins; there is some. */
static inline uint8_t *cursor_next(struct cursor *cursor, size_t *left)
{
	while (cursor->at == cursor->iov->iov_len) {
		cursor->iov++;
		cursor->at = 0;
	}
	*left = cursor->iov->iov_len - cursor->at;
	return (uint8_t *)cursor->iov->iov_base + cursor->at;
}

/* Copies length bytes from memory to it (out), or from it; memory NULL: passes over them. */
void cursor_copy(struct cursor *cursor, uint8_t *memory, size_t length, bool out);

/* ---- cache.c ---- */
/* NULL: no memory, and the request has ended. */
struct task *task_new(struct cache *cache, struct io *io);
/* Gives back everything but the parent. The range last: whoever waited for it goes on from here. */
void task_free(struct task *task);
/* Ends those in the queue that nobody waits for any more. */
void task_queue_sweep(struct task_queue *queue);
/* All its pages stay. */
void task_pin(struct task *task);
void task_unpin(struct task *task);
/* From here on what overlaps it waits. False: it has to wait itself, and is retried when granted.
 */
bool task_take_range(struct task *task);
/* The same, for a WRITE that began when nothing was in its way, and has to wait for something else.
 */
void task_keep_place(struct task *task);
/* Sends it below; done() may be task_passed(), which ends it. */
void task_pass(struct task *task, void (*done)(struct io *io, int error));
void task_passed(struct io *io, int error);
/* Is all of [start, end) in memory? */
bool cache_holds(struct cache *cache, uint64_t start, uint64_t end);
/* Is anything of the pages that it touches in memory, or on its way there? */
bool cache_touches(struct cache *cache, const struct io *io);
/* Another host has the LUN: nothing that is dirty is ever written. */
void cache_fence(struct cache *cache);
/* It ends at the end of the turn. */
void task_end(struct task *task, int error);
/* Goes on with what waited: for room, for a fill, for write-outs. */
void task_retry(struct task *task);
void cache_wait_for_room(struct task *task);
void cache_serve_waiting(struct cache *cache);
/* The blocks that there are of a page, and those of them that [start, end) bytes touch. */
uint8_t cache_page_blocks(const struct cache *cache, uint64_t number);
uint8_t cache_blocks_touched(
    const struct cache *cache, uint64_t number, uint64_t start, uint64_t end);
/* In debug builds: asserts the invariants. */
void cache_check(struct cache *cache);

/* ---- cache_read.c ---- */
void cache_read(struct cache *cache, struct io *io);
void cache_read_past(struct cache *cache, struct io *io);
/* They go on, from wherever they are. */
void read_try(struct task *task);
void read_past_try(struct task *task);
/* Answers those that are ready. */
void cache_deliver(struct loop_work *work);

/* ---- cache_write.c ---- */
/* WRITE, ZERO, DISCARD. */
void cache_change(struct cache *cache, struct io *io);
bool cache_is_written_through(const struct cache *cache, const struct io *io);
void write_try(struct task *task);
void through_try(struct task *task);
/* Answers those whose time has come. */
void cache_slowed_over(void *data);
/* What is clean of a page is no more what is there; for pages_each(). */
bool page_outdated(struct page *page, void *data);

/* ---- cache_fill.c ---- */
/*
 * Sees to it that the bytes [start, end) are valid, or on their way; the rest of their pages, too.
 * Returns one fill that is to be waited for, or NULL: all is there. *error: no memory.
 */
struct fill *cache_need(struct cache *cache, uint64_t start, uint64_t end, int *error);
void cache_read_ahead(struct cache *cache, const struct io *io, bool waits);
/* What it would bring is wanted no more: another write comes in between. */
void cache_forget_fill(struct page *page);
/* Ends those that wait for one and that nobody waits for any more. */
void cache_sweep_fills(struct cache *cache);

/* ---- cache_dirty.c ---- */
void cache_dirty_init(struct cache *cache);
void cache_mark_dirty(struct page *page, uint8_t blocks);
/* The cache lets go of all that is dirty: another host has the LUN. Was there any? */
bool cache_drop_dirty(struct cache *cache);
/* Has what is dirty leave as far as it should now. */
void cache_write_out(struct cache *cache);
/* Is none of the blocks that it touches dirty or leaving? */
bool cache_is_settled(struct cache *cache, const struct io *io);
/* Has what is dirty of its range leave; task_retry() follows when it has, or has failed. The second
 * time after a failure the task ends with that. */
void cache_settle(struct task *task);
/* The same for all that is dirty now. False: nothing to wait for. */
bool cache_settle_all(struct task *task);
/* Too much is dirty for more. */
bool cache_is_full(const struct cache *cache);
/* For how long a WRITE of so many bytes is to wait, until when; 0: not at all. */
int64_t cache_slow_down(struct cache *cache, uint64_t length);
/* Somebody waits for room: does what makes some. */
void cache_press(struct cache *cache);
/* All that waits for write-outs and can go on, does. */
void cache_resume_settled(struct cache *cache);
