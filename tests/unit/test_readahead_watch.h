/*
 * test_readahead_watch.h - keeps book of what read-ahead asks for.
 */
#pragma once

#include "../../src/block/readahead.h"

#include <criterion/criterion.h>
#include <glib.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum { RANGES = 1024 };

/* Watches what is asked for: each page of a LUN of 1 GiB at most once. */
struct watch {
	struct readahead *readahead;
	uint64_t size;
	struct readahead_range ranges[RANGES];
	unsigned count, max;
	uint64_t bytes, commands; /* asked for, in all */
	uint8_t *asked;           /* for each 4 KiB: how often */
};

static inline struct watch watch_new(size_t limit)
{
	return (struct watch){
	    .readahead = readahead_new(limit),
	    .size = GIB,
	    .max = RANGES,
	    .asked = g_malloc0(GIB / (4 * KIB)),
	};
}

static inline void watch_free(struct watch *watch)
{
	readahead_free(watch->readahead);
	g_free(watch->asked);
}

/* Returns the bytes asked for. */
static inline uint64_t watch_read(
    struct watch *watch, uint64_t handle, uint64_t offset, uint64_t length, bool waits)
{
	uint64_t bytes = 0;

	watch->count = readahead_saw(watch->readahead, handle, offset, length, watch->size, waits,
	    watch->ranges, watch->max);
	cr_assert_leq(watch->count, watch->max);
	for (unsigned i = 0; i < watch->count; i++) {
		const struct readahead_range *range = &watch->ranges[i];
		cr_assert_gt(range->length, 0);
		cr_assert_leq(range->length, READAHEAD_COMMAND);
		cr_assert_leq(range->offset + range->length, watch->size);
		bytes += range->length;
		for (uint64_t at = range->offset / (4 * KIB);
		     at * 4 * KIB < range->offset + range->length; at++)
			watch->asked[at]++;
	}
	watch->bytes += bytes;
	watch->commands += watch->count;
	return bytes;
}

static inline bool watch_asked(const struct watch *watch, uint64_t start, uint64_t end)
{
	for (uint64_t at = start / (4 * KIB); at < end / (4 * KIB); at++)
		if (!watch->asked[at])
			return false;
	return true;
}

static inline bool watch_asked_once(const struct watch *watch)
{
	for (uint64_t at = 0; at < GIB / (4 * KIB); at++)
		if (watch->asked[at] > 1)
			return false;
	return true;
}
