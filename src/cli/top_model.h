/*
 * top_model.h - what 'lunfs top' knows of the mounts: their rows, and what follows from those of a
 * second ago.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "lunfs/histogram.h"

#define TOP_HISTORY 60u /* seconds of latency */

struct top_lun {
	char *file, *trouble; /* trouble: "" where there is none */
	uint64_t size, dirty; /* bytes */
	/* of the last interval, a second each: */
	double reads, writes, bytes_read, bytes_written;
	uint64_t p50_us, p99_us;       /* of reads and writes; 0: there were none */
	int hit_percent;               /* of pages read; -1: none was */
	uint64_t history[TOP_HISTORY]; /* p99_us, the newest last */

	/* private */
	bool seen;
	int64_t taken_us; /* clock_us(); 0: never */
	uint64_t counters[6];
	struct histogram latency;
};

struct top_target {
	char *name, *state, *address;
	char *reason; /* why it is not ready, or "" */
	bool ready;
	uint64_t outage_ms;
	GPtrArray *luns; /* of struct top_lun */
	bool seen;       /* private */
};

struct top_mount {
	char *mountpoint;
	GPtrArray *targets; /* of struct top_target */
	bool silent;        /* its process does not answer in time */
	bool gone;          /* there is no such process any more */
};

struct top_mount *top_mount_new(const char *mountpoint);
/* For g_ptr_array_new_with_free_func(). */
void top_mount_free(gpointer mount);
/*
 * Takes an answer to the request "rows" in, which came at now_us (clock_us()): a target, a LUN of
 * the target before, or the end of it. True: that was the end; what was not told of is not there.
 */
bool top_mount_take(struct top_mount *mount, GHashTable *row, int64_t now_us);
