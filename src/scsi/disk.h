/*
 * disk.h - what disk.c (requests) and disk_part.c (their commands) share. Private to the room.
 *
 *   io --submit--> request --cut into--> part --execute--> port
 *                     |  waits in the queue     |  waits in paused, where the target asked for
 * later
 *                     '---- done, when no part is out and nothing is left to send
 *
 * Invariants: a request is in the queue exactly while it may send a part now; it lives until its io
 * is done. slots counts the parts, those at the port and those that pause: a target that is too
 * busy gets no more. A part that is tried again keeps its slot, and its io is not done meanwhile
 * (SAFETY.md 9).
 */
#pragma once

#include <glib.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "lunfs/scsi.h"

#define PART_IOVS      4   /* of an ordinary part: FUSE gives one, align up to three */
#define PART_WIDE_IOVS 256 /* of one that a cache gives single pages */

struct disk;

struct disk_request {
	struct disk *disk;
	struct io *io;
	struct disk_request *next;
	bool queued;
	bool syncing;    /* all is written; SYNCHRONIZE CACHE remains (IO_FUA without the bit) */
	bool start_over; /* once its parts are back */
	unsigned starts;
	unsigned parts;    /* at the port or pausing */
	uint64_t sent;     /* bytes of the io that went into parts */
	int iov_index;     /* the next byte to send: in this iov of the io, */
	size_t iov_offset; /* here */
	uint64_t epoch;    /* in which it started */
	int error;         /* the first of its parts */
};

enum part_kind { PART_READ, PART_WRITE, PART_WRITE_SAME, PART_SYNC };
#define PART_KINDS 4

/* One command. */
struct disk_part {
	struct scsi_command command;
	struct disk_request *request;
	struct disk_part *next; /* in paused */
	enum part_kind kind;
	bool wide; /* of which slab */
	uint64_t lba;
	uint32_t blocks;
	unsigned retries, pause_ms;
	uint64_t epoch; /* that of retries and give_up_ms; what it raised itself counts as it */
	unsigned cache_change; /* SYNC: the disk's when it was sent */
	int64_t due_ms, give_up_ms;
	int64_t began_us; /* the port got it the first time */
	struct iovec iov[];
};

struct disk {
	struct block block;
	struct loop *loop;
	struct scsi_port *port;
	struct lun_info info;
	char *name;

	bool gone;       /* GONE was told, and not BACK */
	bool cache_ends; /* the cache is off now; a SYNCHRONIZE CACHE sent since, and done, shows
	                    that it is empty */
	unsigned cache_changes; /* how often that was found out */
	/* see disk_on_attention() */
	void (*attention)(enum disk_attention what, void *data);
	void *attention_data;
	/* what this target takes, as learnt from what it rejected */
	bool short_cdbs; /* READ, WRITE(10) */
	bool write_same, unmap;
	enum { SYNC_16, SYNC_10, SYNC_NONE } sync;

	struct disk_request *head, **tail; /* requests that have a part to send */
	unsigned slots;
	struct disk_part *paused;
	GSource *pause_timer;
	int64_t pause_end_ms;
	unsigned patience_ms; /* for one command that the target puts off */
	/* By kind of part: the time for one is doubled so often, as the last took too long
	 * (SAFETY.md 15). */
	unsigned slow[PART_KINDS];
	int64_t slow_ms[PART_KINDS]; /* when it did */

	unsigned losses; /* LOSTs that answers raised in a row */
	int64_t loss_ms; /* the last one */
	bool deferred;   /* one of them by a deferred error: only a flush ends the row */

	struct io_ender ender; /* of those that end without the port */

	struct slab requests, parts, wide_parts;
	void *zeros;
	struct disk_stats stats;
	struct log_limit log;
};

static inline struct disk *disk_of(struct block *block)
{
	return (struct disk *)block;
}

/* ---- disk.c ---- */

/* Did LOST cross the request, and may the target have forgotten some of it? */
bool request_is_stale(const struct disk_request *request);
/* There may be a volatile cache, as far as anybody knows. */
void disk_assume_cache(struct disk *disk);
/* A command has ended with RESERVATION CONFLICT; or has succeeded. */
void disk_note_conflict(struct disk *disk, bool writing);
void disk_note_access(struct disk *disk, bool writing);
/* A SYNCHRONIZE CACHE has succeeded: part. */
void disk_cache_was_emptied(struct disk *disk, const struct disk_part *part);
/* There is a volatile cache, and a command to empty it. */
bool disk_flushes(const struct disk *disk);
/* Sends what the slots allow. */
void disk_run(struct disk *disk);
/* A part of request has ended. Returns true when that was the last, and the request is to be
 * completed. */
bool request_part_ended(struct disk_request *request, int error);
void request_complete(struct disk_request *request);
/* The same at the end of the turn, for callers that are not the port. */
void request_complete_later(struct disk_request *request);
/* A line under the disk's name; only so many a minute. */
void disk_tell(struct disk *disk, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- disk_part.c ---- */

/* A part of request with room for niov iovs; NULL without memory. Takes a slot. */
struct disk_part *part_new(struct disk_request *request, enum part_kind kind, int niov);
/* Gives back one that was not sent. */
void part_drop(struct disk_part *part);
void part_send(struct disk_part *part);
/* Ends the parts that pause and are not to be replayed, with -ESTALE. */
void parts_end_paused(struct disk *disk);
