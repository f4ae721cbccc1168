/*
 * readahead.h - what a LUN's readers will read next.
 *
 * Watches READs and says which bytes to fetch before they are asked for. Sequential and strided
 * streams are recognised per handle, several at a time, in the presence of others and of READs that
 * overtake each other. A stream's window begins with 128 KiB, and doubles while its reader catches
 * up with what is still on its way, up to the limit. Pure: it knows neither the cache nor time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define READAHEAD_MIN (128u << 10)
/* What is fetched is cut into commands of this size where the window allows it, aligned to it. */
#define READAHEAD_COMMAND (256u << 10)

struct readahead;

/* A range to fetch; what is cached of it already is the cache's to leave out. */
struct readahead_range {
	uint64_t offset, length;
};

/* limit: of the windows of all streams together, bytes; 0: it never asks for anything. */
struct readahead *readahead_new(size_t limit);
void readahead_free(struct readahead *readahead);
void readahead_set_limit(struct readahead *readahead, size_t limit);

/*
 * A READ of [offset, offset + length) by handle came, of a LUN of size bytes. waits: some of it is
 * not there yet (missing, or still on its way). Returns how many ranges (at most max) are to be
 * fetched now, the nearest first. Random READs get none.
 */
unsigned readahead_saw(struct readahead *readahead, uint64_t handle, uint64_t offset,
    uint64_t length, uint64_t size, bool waits, struct readahead_range *ranges, unsigned max);
/* The handle was closed, or all were (0): its streams are forgotten. */
void readahead_forget(struct readahead *readahead, uint64_t handle);
/* The largest window of a living stream, bytes; 0 where there is none. */
size_t readahead_window(const struct readahead *readahead);
