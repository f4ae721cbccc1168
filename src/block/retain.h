/*
 * retain.h - what retain.c and retain_request.c share: the states, and a request on its way through
 * them. See retain.c for the picture.
 */
#pragma once

#include "lunfs/block.h"

#include <stddef.h>

#include "extents.h"
#include "lunfs/frames.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"

enum {
	RESENDS = 8,        /* in flight */
	RESEND_IOVECS = 64, /* of each */
};

enum state { OPEN, DRAINING, RESENDING, DUE };

/* One that came from above, or an own flush. */
struct request {
	struct io io; /* below */
	struct retain *retain;
	struct io *parent; /* NULL: an own flush */
	struct request *next;
	uint64_t arrival;
	uint64_t generation;  /* when it was sent; 0: it was not yet */
	uint64_t covers;      /* a FLUSH: sequence when it was sent */
	uint64_t releases;    /* a READ: when it was sent */
	uint64_t forgettings; /* a FLUSH: when it came */
	size_t reserved;
	bool volatile_cache; /* when it was sent */
	bool suspect;        /* a READ: sent while something was due */
	bool stabilising;    /* a write that could not be kept: it is below as a FLUSH */
	bool tried;          /* a FLUSH: what failed was sent again for it */
};

struct queue {
	struct request *head, *tail;
};

struct resend {
	struct io io;
	struct retain *retain;
	uint64_t generation;
	bool busy;
	struct iovec iov[RESEND_IOVECS];
};

struct retain {
	struct block block;
	struct loop *loop;
	struct retain_memory *memory;
	const char *name;
	enum state state;
	int resend_error; /* the last of the round */
	bool keep;
	bool gone;
	bool fenced;     /* when it is drained, what is kept is dropped */
	bool unflushed;  /* not keep: acknowledged writes that no FLUSH covers, */
	bool unreported; /* no FLUSH has failed for the last of them yet */
	bool own_flush;
	uint64_t unflushed_at; /* the sequence of the last of those */
	uint64_t fence;        /* what was sent in this generation or before is not sent again */
	uint64_t epoch;        /* the block's that was noticed */
	uint64_t generation, sequence, arrivals, releases;
	struct extents extents;
	size_t reserved, own;
	struct slab requests;
	unsigned outstanding, reading, changing; /* all; READs below; others below */
	struct queue returned, waiting, held;    /* with -ESTALE; for room; while not OPEN */
	struct resend resends[RESENDS];
	unsigned resending;
	uint64_t cursor; /* extents before it were sent in this round */
	struct log_limit log;
	uint64_t forgettings;
	GSource *pause, *sweep;
	struct retain_stats stats;
	struct io_ender ender; /* of those that end without having been sent */
};

static inline void queue_push(struct queue *queue, struct request *request)
{
	request->next = NULL;
	*(queue->tail ? &queue->tail->next : &queue->head) = request;
	queue->tail = request;
}

static inline struct request *queue_pop(struct queue *queue)
{
	struct request *request = queue->head;

	if (request)
		queue->head = request->next;
	if (!queue->head)
		queue->tail = NULL;
	return request;
}

/* ---- retain.c ---- */

/* Does what can be done now. To be called after whatever may have changed that. */
void retain_advance(struct retain *retain);
void retain_set_state(struct retain *retain, enum state state);
/* The target may have forgotten what no FLUSH covers. retain_advance() is to follow. */
void retain_lost(struct retain *retain);
/* Acknowledged writes may be lost, and nothing can be done about it. */
void retain_forget(struct retain *retain, const char *why);
/* The same, where the epoch says so: it is raised before the event is delivered, and completions
 * may come in between. */
void retain_notice(struct retain *retain);

/* ---- retain_request.c ---- */

/* NULL: no memory. parent NULL: an own flush. */
struct request *retain_request_new(struct retain *retain, struct io *parent);
/* One that is neither below nor in a queue; its submitter hears of it later. */
void retain_request_end(struct request *request, int error);
void retain_queue_end(struct queue *queue, int error);
/* Ends those that nobody waits for any more. */
void retain_queue_sweep(struct queue *queue);
/* While OPEN: sends it, or lets it wait for room, or ends it. A FLUSH may end OPEN. */
void retain_request_start(struct request *request);
void retain_read_send(struct request *request);
/* While OPEN: those for which there is room now. */
void retain_send_waiting(struct retain *retain);
/* While OPEN: where memory runs short, or a write waits for some. */
void retain_flush_self(struct retain *retain);
void retain_account(struct retain *retain);
void retain_count_resent(struct retain *retain, const struct io *io);
