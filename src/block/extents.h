/*
 * extents.h - what was written and is not known to be stable: the newest content of each block.
 *
 * Ranges of bytes, disjoint, ordered by offset; each with the sequence number of the write it came
 * from. What is kept anew takes the place of what was kept of the same bytes. ZERO and DISCARD are
 * kept as ranges without data (SAFETY.md 5). Data of a WRITE that lies in frames is kept there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lunfs/block.h"
#include "lunfs/frames.h"
#include "lunfs/pool.h"

/* The largest request that extents_collect() makes of adjoining data. */
#define EXTENTS_RUN (256u << 10)

struct extent;

struct extents {
	struct frames *frames;
	uint32_t block_size; /* all is of whole blocks */
	uint64_t kept;       /* bytes of the LUN */
	size_t memory;       /* what this takes: the frames that each keeps, and nodes */
	unsigned due;        /* extents that may not be at the target */
	/* private */
	struct extent *root, *oldest, *newest, *spare;
	struct slab nodes;
	unsigned count;
	uint32_t random;
};

void extents_init(struct extents *extents, struct frames *frames, uint32_t block_size);
/* Lets go of all, and of the slabs. */
void extents_free(struct extents *extents);

/* At most what extents_keep() takes for it; bytes. */
size_t extents_cost(const struct extents *extents, const struct io *io);
/* Bytes of frames that it would keep and nobody keeps yet. */
size_t extents_fresh(const struct extents *extents, const struct io *io);
/*
 * Keeps a WRITE, ZERO or DISCARD: of the data, what lies in frames where it is, else a copy.
 * Sequence numbers never fall. False: there is no memory for it, and nothing changed.
 */
bool extents_keep(struct extents *extents, const struct io *io, uint64_t sequence);
/* Forgets what is kept of these bytes. False: no memory to cut one in two, and nothing changed. */
bool extents_remove(struct extents *extents, uint64_t start, uint64_t length);
/* Forgets what has this sequence number or an older one, and is not due. Was there any? */
bool extents_release(struct extents *extents, uint64_t sequence);
void extents_clear(struct extents *extents);

/* From now on all are due. */
void extents_lose(struct extents *extents);
/*
 * The first that are due at or after the offset from, as one request: op, offset, length, iov and
 * niov of io are set. Adjoining data is merged up to EXTENTS_RUN and max_iov pieces; what failed
 * before stays by itself. The iovecs point into the store. False: there are none.
 */
bool extents_collect(
    struct extents *extents, uint64_t from, struct io *io, struct iovec *iov, int max_iov);
/* All of these bytes are at the target; or not, and they stay due. */
void extents_settle(struct extents *extents, uint64_t start, uint64_t length, bool at_target);

/* Puts what is kept of the bytes from start on over the iovecs; what was discarded is left. */
void extents_overlay(
    const struct extents *extents, uint64_t start, const struct iovec *iov, int niov);
/* The end of the last byte; 0 where none is. */
uint64_t extents_reach(const struct extents *extents);
/* Calls fn for each range, in order, adjoining ones as one. */
void extents_each(const struct extents *extents,
    void (*fn)(uint64_t start, uint64_t end, void *data), void *data);

/* Asserts the invariants (see extents.c). */
void extents_check(const struct extents *extents);
