/*
 * extent.h - what extents.c and extents_make.c share: one extent, and the memory it keeps.
 */
#pragma once

#include "extents.h"
#include "lunfs/frames.h"

struct extent {
	uint64_t start, end, sequence;
	enum io_op op;
	bool due, failed;
	uint8_t *data; /* of a WRITE: in frames, all of which it keeps */
	uint32_t priority;
	struct extent *left, *right;
	struct extent *older, *newer; /* a new one that is in no tree yet: newer is the next */
};

/* Of the frames that so many bytes touch. */
static inline size_t frames_size(const uint8_t *data, uint64_t length)
{
	return ((uintptr_t)data % FRAME_SIZE + length + FRAME_SIZE - 1) / FRAME_SIZE * FRAME_SIZE;
}

static inline size_t extent_memory(const struct extent *extent)
{
	return sizeof(*extent) +
	       (extent->data ? frames_size(extent->data, extent->end - extent->start) : 0);
}

/* ---- extents_make.c ---- */

/* The new extents for a request, in no tree yet, as a list; NULL: no memory. */
struct extent *extents_make(struct extents *extents, const struct io *io, uint64_t sequence);
