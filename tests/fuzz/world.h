/*
 * world.h - what is around lunfs while it is fuzzed: no network, no time, no chance.
 *
 * A TCP connection of lunfs is a socketpair whose other end is the hostile target. The loop's poll
 * function asks the target when lunfs has nothing to do, and where the target has nothing to say
 * either moves the clock on to the next timer: no input takes longer than the work that it makes,
 * and the same input makes the same run.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct loop;

/* What the target is asked; all are called from inside the loop's poll function, or connect(). */
struct world_target {
	/* A connection, the target's to close; false: it is refused. */
	bool (*accept)(int fd);
	/* Reads and writes what it can; true: it did something. */
	bool (*pump)(void);
	/* How many microseconds it wants to wait; negative: for lunfs. */
	int64_t (*waits_us)(void);
};

/* Once: the loop whose world it is. */
void world_init(struct loop *loop, const struct world_target *target);
/* Before each input: clock, random numbers and counters as at the first. */
void world_reset(void);
int64_t world_now_us(void);
/* One turn of the loop; false: nothing will ever happen any more. */
bool world_turn(void);
/* Turns since the clock moved, or bytes did: of a lunfs that spins there are many. */
unsigned world_idle_turns(void);
unsigned world_open_files(void);
