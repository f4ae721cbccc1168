/*
 * retain_request.c - what comes from above on its way through retain, and what its answers mean.
 *
 *   WRITE, ZERO, DISCARD ► room ► below ──► kept, or stable ──────────────────► done
 *                                       └─► no memory ► FLUSH below ─ good ───► done
 *   FLUSH ► what failed is sent again ► below ─ releases what it covers ──────► done
 *   READ ► below ──► what is kept is put over it, where it may be older ──────► done
 *
 * What comes back with -ESTALE, or in another generation than it was sent in, goes to `returned`.
 * An own flush is a FLUSH without a parent. Owned by struct retain; its invariants are in retain.c.
 */
#include "retain.h"

#include <errno.h>

enum { PAUSE_MS = 1000 }; /* after an own flush that failed */

/* ---- accounts ---- */

/* Has FLUSH something to do? What is kept stays so until one succeeds, whatever the mode page says
 * meanwhile. */
static bool retain_is_volatile(const struct retain *retain)
{
	return retain->block.below->limits.volatile_cache || retain->extents.kept ||
	       retain->unflushed;
}

void retain_account(struct retain *retain)
{
	size_t own = retain->extents.memory + retain->reserved;

	retain->memory->used += own - retain->own;
	retain->own = own;
	retain->stats.kept = retain->extents.kept;
	retain->stats.memory = retain->extents.memory;
	retain->stats.resending = retain->extents.due > 0;
}

static size_t request_cost(const struct request *request)
{
	const struct retain *retain = request->retain;
	const struct io *io = &request->io;

	if (!retain->keep || io->op == IO_FLUSH || (io->flags & IO_FUA) ||
	    !retain_is_volatile(retain))
		return 0;
	return extents_cost(&retain->extents, io);
}

/* What the cache keeps already takes no further memory. */
static bool request_may_keep(const struct request *request)
{
	const struct retain *retain = request->retain;
	size_t fresh = extents_fresh(&retain->extents, &request->io);

	return !fresh || frames_may_keep(retain->memory->frames, fresh);
}

static bool request_has_room(const struct request *request)
{
	const struct retain *retain = request->retain;
	const struct retain_memory *memory = retain->memory;
	size_t cost = request_cost(request);

	if (!cost || retain->own <= memory->floor)
		return true;
	return memory->used + cost <= memory->limit && request_may_keep(request);
}

static void request_reserve(struct request *request, size_t size)
{
	request->retain->reserved += size - request->reserved;
	request->reserved = size;
	retain_account(request->retain);
}

static void retain_release(struct retain *retain, uint64_t sequence)
{
	if (extents_release(&retain->extents, sequence))
		retain->releases++;
	if (retain->unflushed_at <= sequence)
		retain->unflushed = false;
	retain_account(retain);
}

/* ---- ending ---- */

static void own_flush_ended(struct retain *retain, int error);

/* It is neither below nor in a queue. Returns its parent. */
static struct io *request_free(struct request *request, int error)
{
	struct retain *retain = request->retain;
	struct io *parent = request->parent;

	if (request->reserved)
		request_reserve(request, 0);
	slab_put(&retain->requests, request);
	retain->outstanding--;
	if (!parent)
		own_flush_ended(retain, error);
	return parent;
}

void retain_request_end(struct request *request, int error)
{
	struct retain *retain = request->retain;
	struct io *parent = request_free(request, error);

	if (parent)
		io_end_later(&retain->ender, parent, error);
}

/* From below, as the last act: the parent's done() may free all of this. */
static void request_finish(struct request *request, int error)
{
	struct retain *retain = request->retain;
	struct io *parent = request_free(request, error);

	retain_advance(retain);
	if (parent)
		parent->done(parent, error);
}

void retain_queue_end(struct queue *queue, int error)
{
	struct request *request;

	while ((request = queue_pop(queue)))
		retain_request_end(request, error);
}

void retain_queue_sweep(struct queue *queue)
{
	struct queue all = *queue;
	struct request *request;

	*queue = (struct queue){NULL, NULL};
	while ((request = queue_pop(&all))) {
		if (io_is_cancelled(&request->io))
			retain_request_end(request, -EINTR);
		else
			queue_push(queue, request);
	}
}

static void pause_over(void *data)
{
	struct retain *retain = data;

	loop_remove(&retain->pause);
	retain_advance(retain);
}

static void own_flush_ended(struct retain *retain, int error)
{
	retain->own_flush = false;
	if (!error || error == -ESTALE)
		return;
	retain_queue_end(&retain->waiting, error);
	retain->pause = loop_timer(retain->loop, PAUSE_MS, pause_over, retain);
}

/* ---- below, and back ---- */

static void flush_done(struct io *io, int error);
static void change_done(struct io *io, int error);
static void read_done(struct io *io, int error);

/* What goes down for it: a copy of what came, or an own flush. */
static void request_become(struct request *request)
{
	const struct io *parent = request->parent;

	request->stabilising = false;
	if (!parent) {
		request->io = (struct io){.op = IO_FLUSH, .done = flush_done};
		return;
	}
	request->io = *parent;
	request->io.done = parent->op == IO_READ    ? read_done
	                   : parent->op == IO_FLUSH ? flush_done
	                                            : change_done;
}

static void request_send(struct request *request)
{
	struct retain *retain = request->retain;

	request->generation = retain->generation;
	request->volatile_cache = retain_is_volatile(retain);
	request->covers = retain->sequence;
	request_reserve(request, request_cost(request));
	retain->changing++;
	block_submit(retain->block.below, &request->io);
}

/* What error of one that comes back means. */
static int request_judge(struct request *request, int error)
{
	struct retain *retain = request->retain;
	bool volatile_cache = request->volatile_cache || retain_is_volatile(retain);

	retain_notice(retain);
	retain->changing--;
	if (request->reserved)
		request_reserve(request, 0);
	if (request->generation <= retain->fence)
		return -EBADE;
	if (request->generation != retain->generation && (error || volatile_cache))
		return -ESTALE;
	return error;
}

struct request *retain_request_new(struct retain *retain, struct io *parent)
{
	struct request *request = slab_get(&retain->requests);

	if (!request)
		return NULL;
	retain->outstanding++;
	request->retain = retain;
	request->parent = parent;
	request->arrival = ++retain->arrivals;
	request->forgettings = retain->forgettings;
	request_become(request);
	return request;
}

/* In order of arrival; mostly it is the last. */
static void queue_insert(struct queue *queue, struct request *request)
{
	struct request **link = &queue->head;

	if (!queue->tail || queue->tail->arrival < request->arrival) {
		queue_push(queue, request);
		return;
	}
	while ((*link)->arrival < request->arrival)
		link = &(*link)->next;
	request->next = *link;
	*link = request;
}

/* With -ESTALE: to be sent again. */
static void request_return(struct request *request)
{
	struct retain *retain = request->retain;
	/* without LOST: taken for one */
	bool lost = request->generation == retain->generation;

	request_become(request);
	if (!request->parent)
		retain_request_end(request, -ESTALE);
	else if (retain->gone)
		retain_request_end(request, -EIO);
	else if (io_is_cancelled(&request->io))
		retain_request_end(request, -EINTR);
	else
		queue_insert(&retain->returned, request);
	if (lost)
		retain_lost(retain);
	retain_advance(retain);
}

/* ---- FLUSH ---- */

/*
 * It failed. A target tells that once, and of what it had cached nothing may be left: its next
 * SYNCHRONIZE CACHE would succeed on the rest. So all that is kept is to be written again first.
 */
static void retain_doubt(struct retain *retain)
{
	if (retain->keep)
		extents_lose(&retain->extents);
	else if (retain->unflushed)
		retain_forget(retain, "the target could not flush them");
}

static void flush_done(struct io *io, int error)
{
	struct request *request = container_of(io, struct request, io);
	struct retain *retain = request->retain;
	int outcome = request_judge(request, error);

	if (outcome == -ESTALE) {
		request_return(request);
		return;
	}
	if (!outcome)
		retain_release(retain, request->covers);
	else if (outcome != -EBADE && outcome != -EINTR)
		retain_doubt(retain);
	if (!outcome && request->stabilising) {
		const struct io *write = request->parent;
		if (!extents_remove(&retain->extents, write->offset, write->length))
			outcome = -ENOMEM;
		retain_account(retain);
	}
	request_finish(request, outcome);
}

/* Sends again what failed, now or when all are back. */
static void flush_retry(struct request *request)
{
	struct retain *retain = request->retain;
	const struct queue *queues[] = {&retain->returned, &retain->held};

	request->tried = true;
	queue_insert(&retain->returned, request);
	for (unsigned i = 0; i < 2; i++) {
		for (struct request *other = queues[i]->head; other; other = other->next)
			other->tried = true;
	}
	retain_set_state(retain, DRAINING);
}

static void flush_start(struct request *request)
{
	struct retain *retain = request->retain;
	bool own = !request->parent;

	if (!own && (retain->unreported || request->forgettings != retain->forgettings)) {
		retain->unreported = false;
		retain_request_end(request, -EIO);
	} else if (!retain->extents.due) {
		request_send(request);
	} else if (!request->tried) {
		flush_retry(request);
	} else {
		retain_request_end(request, retain->resend_error ? retain->resend_error : -EIO);
	}
}

void retain_flush_self(struct retain *retain)
{
	const struct retain_memory *memory = retain->memory;
	/* what is on its way to be kept cannot be released yet */
	size_t used = memory->used - retain->reserved;
	bool short_of_it = used > memory->limit / 2 && retain->extents.memory > memory->floor;
	struct request *request;

	if (retain->own_flush || retain->pause || retain->gone || !retain->extents.memory ||
	    !(short_of_it || retain->waiting.head))
		return;
	request = retain_request_new(retain, NULL);
	if (!request)
		return;
	retain->own_flush = true;
	retain->stats.own_flushes++;
	flush_start(request);
}

/* ---- WRITE, ZERO, DISCARD ---- */

/* One that is done at the target. False: there is no memory to keep it. */
static bool change_keep(const struct request *request)
{
	struct retain *retain = request->retain;
	const struct io *io = &request->io;
	bool stable =
	    (io->flags & IO_FUA) || !(request->volatile_cache || retain_is_volatile(retain));
	bool kept = true;

	retain->sequence++;
	if (stable) {
		kept = extents_remove(&retain->extents, io->offset, io->length);
	} else if (!retain->keep) {
		retain->unflushed = true;
		retain->unflushed_at = retain->sequence;
	} else {
		kept = extents_keep(&retain->extents, io, retain->sequence);
	}
	retain_account(retain);
	return kept;
}

/* Not kept, not acknowledged: first a FLUSH. */
static void change_stabilise(struct request *request)
{
	request->stabilising = true;
	request->io = (struct io){.op = IO_FLUSH, .done = flush_done};
	request_send(request);
}

static void change_done(struct io *io, int error)
{
	struct request *request = container_of(io, struct request, io);
	int outcome = request_judge(request, error);

	if (outcome == -ESTALE) {
		request_return(request);
	} else if (!outcome && !change_keep(request)) {
		change_stabilise(request);
		retain_advance(request->retain);
	} else {
		request_finish(request, outcome);
	}
}

/* ---- READ ---- */

void retain_read_send(struct request *request)
{
	struct retain *retain = request->retain;

	request->generation = retain->generation;
	request->suspect = retain->state != OPEN || retain->extents.due;
	request->releases = retain->releases;
	retain->reading++;
	block_submit(retain->block.below, &request->io);
}

/*
 * A READ that met the target between a loss and the end of the resend may have seen what was before
 * the writes that are kept, however late it comes back. What was released meanwhile can be put over
 * it no more: it is read again.
 */
static void read_done(struct io *io, int error)
{
	struct request *request = container_of(io, struct request, io);
	struct retain *retain = request->retain;

	retain_notice(retain);
	retain->reading--;
	if (request->generation != retain->generation || retain->extents.due)
		request->suspect = true;
	if (!error && request->suspect && request->releases != retain->releases)
		error = -ESTALE;
	if (error == -ESTALE && !io_is_cancelled(io)) {
		retain_read_send(request);
		retain_advance(retain);
		return;
	}
	if (!error && request->suspect)
		extents_overlay(&retain->extents, io->offset, io->iov, io->niov);
	request_finish(request, error == -ESTALE ? -EINTR : error);
}

/* ---- what goes on ---- */

void retain_count_resent(struct retain *retain, const struct io *io)
{
	retain->stats.resent_writes++;
	retain->stats.resent_bytes += io->length;
}

void retain_request_start(struct request *request)
{
	struct retain *retain = request->retain;

	if (io_is_cancelled(&request->io)) {
		retain_request_end(request, -EINTR);
	} else if (request->io.op == IO_FLUSH) {
		flush_start(request);
	} else if (request->generation) { /* not for the first time: no room is asked for */
		retain_count_resent(retain, &request->io);
		request_send(request);
	} else if (!retain->waiting.head && request_has_room(request)) {
		request_send(request);
	} else {
		queue_push(&retain->waiting, request);
	}
}

void retain_send_waiting(struct retain *retain)
{
	struct request *request;

	while ((request = retain->waiting.head)) {
		bool cancelled = io_is_cancelled(&request->io);
		if (!cancelled && !request_has_room(request))
			return;
		queue_pop(&retain->waiting);
		if (cancelled)
			retain_request_end(request, -EINTR);
		else
			request_send(request);
	}
}
