/*
 * block.h - the one interface that stacks.
 *
 * Every layer between a file and its LUN is a block above a block. A request enters at the top with
 * block_submit() and comes back with done(), exactly once, never from inside block_submit().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/uio.h>

#include "lunfs/loop.h"

/* The struct that pointer is a member of. */
#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

enum io_op {
	IO_READ,
	IO_WRITE,
	IO_FLUSH, /* all writes that were done before: on stable storage; offset and length are 0 */
	IO_DISCARD, /* content no longer needed; what it reads as is not defined */
	IO_ZERO,    /* reads as zeros afterwards */
	IO_MAP,     /* which bytes are there; no layer answers it yet */
};

enum io_flags {
	IO_FUA = 1 << 0,    /* WRITE, ZERO: on stable storage before done() (SBC-4, 4.15) */
	IO_DIRECT = 1 << 1, /* READ, WRITE: not to be cached; what is cached is looked after */
	/* READ of at most 1 MiB, not DIRECT, where limits.lends: iov and niov are not given but set
	 * before done(); what they point to stands until done() returns. */
	IO_LEND = 1 << 2,
};

/* One request; owned by its submitter until done(). */
struct io {
	enum io_op op;
	uint32_t flags;
	uint64_t offset, length; /* bytes */
	const struct iovec *iov; /* data, owned by the submitter, stable until done(); sums up to
	                            length; of a WRITE, what lies in frames is never changed again
	                            by who submitted it: see frames.h */
	int niov;
	uint64_t reader; /* READ: whose, for read-ahead; 0: nobody's */
	/*
	 * 0 or -errno. -ESTALE, from below a block that retains: LOST came while a WRITE, ZERO,
	 * DISCARD or FLUSH was on its way; it was done, or not, or done and forgotten.
	 */
	void (*done)(struct io *io, int error);
	/*
	 * Where not NULL and true: the submitter no longer cares, and what was not sent to the
	 * target yet need not be. The request ends with -EINTR then, or with its result. The flag
	 * is the first submitter's, stable until done(); whoever splits a request hands the pointer
	 * on, so one store reaches every part of it.
	 */
	const bool *cancelled;
	/* For the layer that the request is in, from submit to done: */
	struct io *next;
	void *layer;
};

enum block_event {
	BLOCK_LOST, /* the target may have forgotten writes that were not flushed; raises the epoch
	             */
	BLOCK_FORGOTTEN, /* it has, and nobody keeps them: acknowledged writes may be lost */
	BLOCK_UNWRITTEN, /* what was acknowledged could not be written; it is kept, and tried again
	                  */
	BLOCK_FENCED,    /* another host has the LUN now: nothing may be sent again (SAFETY.md 7) */
	BLOCK_RESIZED,   /* size is new */
	BLOCK_CHANGED,   /* the content is no longer what was read: drop what is cached */
	BLOCK_GONE,      /* fails until BACK */
	BLOCK_BACK,
};

/* What a layer asks its requests to be; bytes; 0 means no limit. */
struct block_limits {
	uint32_t block_size;   /* offset and length must be multiples of it; 1 means any */
	uint32_t optimal_size; /* what a single request is best as */
	bool read_only;
	bool fua;            /* IO_FUA costs no flush of everything */
	bool volatile_cache; /* FLUSH has something to do */
	bool lends;          /* IO_LEND is understood */
};

static inline bool io_is_cancelled(const struct io *io)
{
	return io->cancelled && *io->cancelled;
}

struct block;
struct block_ops {
	void (*submit)(struct block *block, struct io *io);
	void (*free)(
	    struct block *block); /* its requests are all done; the blocks below are not freed */
	/* Something happened below; called before any completion that follows it. NULL: only passed
	 * on. */
	void (*event)(struct block *block, enum block_event event);
};

struct block {
	const struct block_ops *ops;
	struct block *below;
	struct block *above; /* where events go */
	/* The listener at the top of the stack, where above is NULL. */
	void (*on_event)(struct block *block, enum block_event event, void *data);
	void *on_event_data;
	uint64_t size;  /* bytes */
	uint64_t epoch; /* number of LOSTs */
	struct block_limits limits;
};

static inline void block_submit(struct block *block, struct io *io)
{
	block->ops->submit(block, io);
}

/* Puts block above below, taking over its size and limits. */
void block_stack(struct block *block, const struct block_ops *ops, struct block *below);
/* Raises an event from block upwards, block's own state being set already. */
void block_raise(struct block *block, enum block_event event);
/* Frees the whole stack from its top. */
void block_free(struct block *top);

const char *io_op_name(enum io_op op);

/*
 * ender: ends requests at the end of the turn, in order, as done() must not run inside submit().
 * For requests that are in no other layer's hands; it uses their next and layer.
 */
struct io_ender {
	struct loop *loop;
	struct loop_work work;
	struct io *first, **last;
};
void io_ender_init(struct io_ender *ender, struct loop *loop);
void io_end_later(struct io_ender *ender, struct io *io, int error);
static inline bool io_ender_is_idle(const struct io_ender *ender)
{
	return ender->first == NULL;
}
/* It is idle. */
void io_ender_clear(struct io_ender *ender);

struct pool;

/*
 * align: any offset and length above whole logical blocks (SAFETY.md 9, 10).
 *
 * Parts of blocks are completed by a read first, under a lock on the range; of two overlapping
 * requests, one of them a write, the second is not sent before the first is done. A FLUSH waits for
 * the writes that were submitted before it.
 */
struct block *align_new(struct block *below, struct loop *loop, struct pool *pool);

/*
 * retain: keeps writes until they are on stable storage (SAFETY.md 1-8).
 *
 * A write that is done below is kept in memory until a FLUSH that was sent after it has succeeded
 * in the same epoch. At LOST all that is kept is sent again, then what was on its way, then what
 * came meanwhile; so nothing above ever sees -ESTALE. A FLUSH waits for that, and is done anew when
 * LOST crosses it. Where the LUN has no volatile cache nothing is kept. Above it requests may not
 * overlap while one of them changes the content: align sees to that.
 *
 * With keep unset (-o shared) nothing is kept and nothing that was acknowledged is sent again: LOST
 * with writes that no FLUSH covers raises FORGOTTEN then, and the next FLUSH fails with -EIO.
 */
/* Memory of all LUNs of a mount for what is kept, in bytes; near the limit they flush by
 * themselves. Each may keep floor bytes whatever the others do: a dead LUN stops nobody. The frames
 * are the cache's, too, which may have to let go of some of them first. */
struct retain_memory {
	struct frames *frames;
	size_t limit, floor, used;
};
struct retain_stats {
	uint64_t kept;  /* bytes of the LUN that are kept now */
	size_t memory;  /* what this takes */
	bool resending; /* kept data is on its way again, or waits for the target */
	uint64_t resent_writes, resent_bytes, own_flushes;
};
struct block *retain_new(struct block *below, struct loop *loop, struct retain_memory *memory,
    const char *name, bool keep);
const struct retain_stats *retain_stats(const struct block *retain);
/* Is nothing under way in it, and below it? It also sends by itself. */
bool retain_is_idle(const struct block *retain);
/* The end of the last byte that is kept; 0 where none is. */
uint64_t retain_reach(const struct block *retain);
/* Calls fn for each range of bytes that is kept, in order, adjoining ones as one. */
void retain_each(
    const struct block *retain, void (*fn)(uint64_t start, uint64_t end, void *data), void *data);

/*
 * cache: what was read, and what was written and is not at the target yet (SAFETY.md 6, 8, 19-22).
 *
 * Stands above align. A WRITE is done as soon as it is in memory; it leaves later, as large WRITEs
 * in parallel, by age, by amount, and at FLUSH, which waits for all that was done before it. What
 * could not be written stays dirty, is tried again, and BLOCK_UNWRITTEN is raised. FUA, DIRECT, and
 * all WRITEs of writethrough are done when the target has them. A sequential reader's next bytes
 * are fetched before it asks.
 */
struct frames;
struct cache_memory; /* the pages of all LUNs of a mount */
/* NULL without address space. */
struct cache_memory *cache_memory_new(struct frames *frames);
/* Its caches are all freed. */
void cache_memory_free(struct cache_memory *memory);

struct cache_options {
	bool writethrough;
	unsigned dirty_expire_ms; /* at this age dirty data is written out */
	size_t readahead;         /* bytes; 0: none; SIZE_MAX: what hides the link's latency */
};
struct cache_stats {
	uint64_t cached, dirty, in_flight;  /* bytes: in memory; of it not at the target; of that on
	                                       its way */
	uint64_t hits, misses;              /* pages that READs found, and did not */
	uint64_t fetched_ahead, used_ahead; /* pages that read-ahead brought; of those read */
	uint64_t absorbed;                  /* WRITEs done from memory */
	uint64_t written_out;               /* WRITEs that dirty data left in */
	uint64_t failed;                    /* of those */
	uint64_t throttled;                 /* WRITEs that were slowed down */
	size_t window;                      /* of read-ahead, bytes */
};
struct block *cache_new(struct block *below, struct loop *loop, struct cache_memory *memory,
    const struct cache_options *options, const char *name);
const struct cache_stats *cache_stats(const struct block *cache);
/* Is nothing under way in it? It also sends by itself. Dirty data may be left. */
bool cache_is_idle(const struct block *cache);
/* The end of the last dirty byte; 0 where none is. */
uint64_t cache_reach(const struct block *cache);
/* Calls fn for each range of dirty bytes, in no order. */
void cache_each_dirty(
    const struct block *cache, void (*fn)(uint64_t start, uint64_t end, void *data), void *data);

/*
 * range_lock: who may touch which bytes, in order of asking.
 *
 * A range is granted when every earlier overlapping one that conflicts with it is released: SHARED
 * conflicts with EXCLUSIVE, EXCLUSIVE with both, and a BARRIER waits for earlier EXCLUSIVE ranges
 * but holds up nobody.
 */
enum range_kind { RANGE_SHARED, RANGE_EXCLUSIVE, RANGE_BARRIER };

struct range {
	uint64_t start, end; /* [start, end) */
	enum range_kind kind;
	void (*granted)(struct range *range); /* may be called from inside range_lock_acquire() */
	/* private: a node of an interval tree (a treap ordered by start, then by age) */
	uint64_t sequence, max_end;
	uint32_t priority, blockers;
	struct range *left, *right;
	struct range *next_granted; /* to be told so */
	bool untold;
};

struct range_lock {
	struct range *root;
	struct range *granted; /* those to be told, the oldest first */
	uint64_t sequence;
	uint32_t random;
	bool telling;
};

/* A range lock begins as zeros; a range as zeros but for start, end, kind and granted. Empty ranges
 * wait for nobody. */
void range_lock_acquire(struct range_lock *lock, struct range *range);
/*
 * Of a range that was granted, or of one that still waits. Grants what waited for it, the oldest
 * first; granted() may acquire and release others, and free its own after releasing it.
 */
void range_lock_release(struct range_lock *lock, struct range *range);
static inline bool range_is_granted(const struct range *range)
{
	return range->blockers == 0;
}
