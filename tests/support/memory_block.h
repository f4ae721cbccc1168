/*
 * memory_block.h - a block made of memory that delays, reorders, fails and forgets, for tests.
 *
 * What a request does is done when it completes, not when it is submitted: its buffers are touched
 * then, so a layer above that lets go of them too early is found out. It fails the test when a
 * request breaks a rule of block.h (bounds, whole blocks, iovecs that sum up, FLUSH without a
 * range), when the data of a WRITE changes on its way, or when it overlaps one in flight and one of
 * them changes the content (SAFETY.md 9).
 */
#pragma once

#include <glib.h>

#include "lunfs/block.h"
#include "lunfs/loop.h"

/* What discarded blocks read as, so that a test that relies on zeros is found out. */
#define MEMORY_DISCARDED 0xdd

struct memory_record {
	enum io_op op;
	uint32_t flags;
	uint64_t offset, length;
	int niov;
};

struct memory_block {
	struct block block;
	uint8_t *content;   /* as it reads; memory_block_fill() changes it from outside */
	bool reads_overlap; /* a READ and one that changes may be in flight together: resends do so
	                     */
	GArray *records;    /* of struct memory_record, in order of submission */
	/* Where set: sees each request when it comes. */
	void (*watch)(const struct memory_block *memory, const struct io *io, void *data);
	void *watch_data;
	/* private */
	struct loop *loop;
	struct loop_work deliver;
	GPtrArray *flights;
	GRand *random;
	uint8_t *stable; /* as it is after a crash that spares nothing */
	uint64_t *written, *stable_at,
	    clock; /* per block: when content, and stable, got what they hold */
	unsigned fail_in, fail_one_in;
	int fail_error, fail_often_error, fail_all_error;
	bool held, shuffled, away;
	GPtrArray *ghosts;
};

/* Completes what it gets at the end of the turn, in order, until told otherwise. block_free() frees
 * it. Its cache is volatile; a test may unset that in its limits. */
struct memory_block *memory_block_new(struct loop *loop, uint64_t size, uint32_t block_size);

/* Sets the whole content, as if it had always been there. */
void memory_block_fill(struct memory_block *memory, const uint8_t *content);
/* Completes nothing any more but by memory_block_step(); false: all that waits, and as at first. */
void memory_block_hold(struct memory_block *memory, bool hold);
/* From here on the order of completion is random. Seeds what a crash spares, too. */
void memory_block_shuffle(struct memory_block *memory, uint32_t seed);
/* Completes one request: the oldest, or a random one where shuffled; false where there is none. */
bool memory_block_step(struct memory_block *memory);
/* The same for that one, 0 being the oldest. */
void memory_block_step_at(struct memory_block *memory, unsigned index);
void memory_block_step_all(struct memory_block *memory);
/* Ends all that is in flight with error; what is submitted meanwhile is not. */
void memory_block_end_all(struct memory_block *memory, int error);
/* Requests in flight, and one of them, 0 being the oldest. */
unsigned memory_block_in_flight(const struct memory_block *memory);
const struct io *memory_block_peek(const struct memory_block *memory, unsigned index);

/* Of the requests to come, the one after the next `skip` fails with error, and does nothing. */
void memory_block_fail(struct memory_block *memory, unsigned skip, int error);
/* From here on one of so many fails, by chance; 0: none any more. */
void memory_block_fail_often(struct memory_block *memory, unsigned one_in, int error);
/* From here on all fail, as those of a LUN that is GONE do; 0: none any more. */
void memory_block_fail_all(struct memory_block *memory, int error);
/*
 * The target is gone and comes back: of each block that was written and neither flushed nor written
 * with FUA, the old or the new content is left, by chance; also of those that are being written.
 * Then LOST is raised, and what was in flight ends with error.
 */
void memory_block_crash(struct memory_block *memory, int error);

/* Does what a request is about, without completing it: its answer is on its way. False where there
 * is none that it was not done for. Which one: as for memory_block_step(). */
bool memory_block_execute(struct memory_block *memory);
/*
 * The target came back from a restart and says so with a unit attention: it forgets as at a crash,
 * LOST is raised, but what is in flight goes on to complete. Some of it was done before, and may be
 * forgotten, though it is answered with GOOD; a FLUSH succeeds, and makes nothing stable.
 */
void memory_block_unit_attention(struct memory_block *memory);
/*
 * The session is gone: LOST is raised, and what was in flight ends with -ESTALE. Nothing that comes
 * is done before memory_block_back(). Up to then the writes that were in flight are ghosts, that
 * may still land by memory_block_land().
 */
void memory_block_lose(struct memory_block *memory);
bool memory_block_land(struct memory_block *memory); /* one of them, by chance */
unsigned memory_block_ghosts(const struct memory_block *memory);
/* The session is reinstated, which aborts what is left of the old one. ghosts_stay: but it does
 * not, as through another portal group. */
void memory_block_back(struct memory_block *memory, bool ghosts_stay);
/* What a crash that spares nothing would leave. */
const uint8_t *memory_block_stable(const struct memory_block *memory);

const struct memory_record *memory_block_record(const struct memory_block *memory, unsigned index);
unsigned memory_block_count(const struct memory_block *memory, enum io_op op);
void memory_block_forget_records(struct memory_block *memory);
