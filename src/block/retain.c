/*
 * retain.c - keeps writes until they are on stable storage (SAFETY.md 1-8).
 *
 *          LOST, FENCED, FLUSH after a resend that failed
 *        ┌─────────────────────────────────────────────────┐
 *        │    ┌───────── drained, nothing due ───────────┐ ▼
 *   ──► OPEN ◄┘                                         DRAINING ◄──── BACK ──── DUE
 *        ▲                                               │  ▲  └─ drained, gone ──▲
 *        │                                drained, due   │  │
 *        └───── all were sent ──── RESENDING ◄───────────┘  │
 *                                      └──── LOST, GONE ────┘
 *
 * OPEN: what comes is sent. In all other states WRITE, ZERO, DISCARD and FLUSH are held; READs go
 * down always. DRAINING waits until all of them that are below are back. RESENDING sends the
 * extents that are due, in order of offset. Then goes what had come back with -ESTALE, in the order
 * of its arrival, then what waits for room, then what was held.
 *
 *   generation   raised by each LOST. What comes back in another one than it was sent in has an
 *                outcome that proves nothing: it is -ESTALE, and sent again.
 *   sequence     raised by each write that is done. A FLUSH covers those up to the number that it
 *                found when it was sent.
 *   due          extents that may not be at the target: all at LOST; none after the resend, but for
 *                those that failed. READs that met such a time get what is kept put over them.
 *
 * Owns the requests, the extents, and their part of memory->used. Invariants: a request is below,
 * or in one queue, and outstanding counts all; reserved is the room for WRITEs that are below; own
 * = what the extents take + reserved, and is part of memory->used; RESENDING: nothing but resends
 * and READs is below; not OPEN: no new WRITE, ZERO, DISCARD or FLUSH goes down; a resend is never
 * sent while gone; extents that are due are never released, only superseded.
 */
#include "retain.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lunfs/log.h"

#define SWEEP_MS 1000u

static struct retain *retain_of(const struct block *block)
{
	return container_of((struct block *)block, struct retain, block);
}

/* ---- losing ---- */

void retain_set_state(struct retain *retain, enum state state)
{
	static const char *const names[] = {
	    [OPEN] = "open", [DRAINING] = "draining", [RESENDING] = "resending", [DUE] = "due"};

	if (retain->state == state)
		return;
	log_debug_of(retain->name, "retain: %s, was %s; %" PRIu64 " bytes are kept", names[state],
	    names[retain->state], retain->extents.kept);
	retain->state = state;
}

/* Acknowledged writes may be lost, and nothing can be done about it. */
void retain_forget(struct retain *retain, const char *why)
{
	log_error_of(retain->name, "writes since the last fsync may be lost: %s", why);
	retain->unflushed = false;
	retain->unreported = true;
	retain->forgettings++;
	block_raise(&retain->block, BLOCK_FORGOTTEN);
}

void retain_lost(struct retain *retain)
{
	retain->generation++;
	extents_lose(&retain->extents);
	retain_account(retain);
	retain_set_state(retain, DRAINING);
	if (retain->unflushed)
		retain_forget(retain, "the target restarted, or the session was lost");
}

void retain_notice(struct retain *retain)
{
	if (retain->epoch == retain->block.epoch)
		return;
	retain->epoch = retain->block.epoch;
	retain_lost(retain);
}

/* Another host has the LUN (SAFETY.md 7). */
static void retain_fence(struct retain *retain)
{
	bool kept = retain->extents.kept && !retain->fenced;

	retain->fence = retain->generation++;
	retain->fenced = true;
	retain_queue_end(&retain->returned, -EBADE);
	retain_set_state(retain, DRAINING);
	if (kept)
		retain_forget(retain, "another host has reserved the LUN");
}

static void retain_gone(struct retain *retain)
{
	retain->gone = true;
	if (retain->state == RESENDING)
		retain_set_state(retain, DRAINING);
	retain_queue_end(&retain->returned, -EIO);
	retain_queue_end(&retain->waiting, -EIO);
	retain_queue_end(&retain->held, -EIO);
}

static void retain_event(struct block *block, enum block_event event)
{
	struct retain *retain = retain_of(block);

	retain_notice(retain);
	if (event == BLOCK_FENCED)
		retain_fence(retain);
	else if (event == BLOCK_GONE)
		retain_gone(retain);
	else if (event == BLOCK_BACK)
		retain->gone = false;
	retain_advance(retain);
}

/* ---- sending again ---- */

static void resend_failed(struct retain *retain, const struct io *io, int error)
{
	if (!retain->resend_error && /* one line a round */
	    log_limit_passes(&retain->log, retain->name))
		log_warning_of(retain->name,
		    "bytes %" PRIu64 "-%" PRIu64
		    ", and maybe more, were not written again after a loss: %s; they are "
		    "kept, and the next fsync tries once more",
		    io->offset, io->offset + io->length - 1, strerror(-error));
	retain->resend_error = error;
	extents_settle(&retain->extents, io->offset, io->length, false);
}

static void resend_done(struct io *io, int error)
{
	struct resend *resend = container_of(io, struct resend, io);
	struct retain *retain = resend->retain;

	retain_notice(retain);
	resend->busy = false;
	retain->resending--;
	if (resend->generation != retain->generation)
		; /* what it was is due again, or dropped */
	else if (!error)
		extents_settle(&retain->extents, io->offset, io->length, true);
	else if (error == -ESTALE)
		retain_lost(retain);
	else if (error == -EBADE)
		retain_fence(retain);
	else if (retain->state == RESENDING) /* and not gone meanwhile */
		resend_failed(retain, io, error);
	retain_account(retain);
	retain_advance(retain);
}

static struct resend *resend_get(struct retain *retain)
{
	for (unsigned i = 0; i < RESENDS; i++) {
		if (!retain->resends[i].busy)
			return &retain->resends[i];
	}
	return NULL;
}

static void retain_resend(struct retain *retain)
{
	struct resend *resend;

	while (retain->state == RESENDING && (resend = resend_get(retain)) &&
	       extents_collect(
	           &retain->extents, retain->cursor, &resend->io, resend->iov, RESEND_IOVECS)) {
		resend->retain = retain;
		resend->generation = retain->generation;
		resend->io.done = resend_done;
		resend->busy = true;
		retain->resending++;
		retain->cursor = resend->io.offset + resend->io.length;
		retain_count_resent(retain, &resend->io);
		block_submit(retain->block.below, &resend->io);
	}
	if (retain->state == RESENDING && !retain->resending)
		retain_set_state(retain, OPEN);
}

/* ---- what goes on ---- */

/* A FLUSH that is started may end OPEN. */
static void retain_pump(struct retain *retain)
{
	while (retain->state == OPEN && retain->returned.head)
		retain_request_start(queue_pop(&retain->returned));
	if (retain->state == OPEN)
		retain_send_waiting(retain);
	while (retain->state == OPEN && retain->held.head)
		retain_request_start(queue_pop(&retain->held));
	if (retain->state == OPEN)
		retain_flush_self(retain);
}

static void retain_drained(struct retain *retain)
{
	if (retain->fenced) {
		extents_clear(&retain->extents);
		retain->releases++;
		retain->fenced = false;
		retain_account(retain);
	}
	retain->cursor = 0;
	retain->resend_error = 0;
	retain_set_state(retain, !retain->extents.due ? OPEN : retain->gone ? DUE : RESENDING);
}

#ifdef LUNFS_CHECK
static unsigned queue_length(const struct queue *queue)
{
	unsigned length = 0;

	for (const struct request *request = queue->head; request; request = request->next) {
		assert(request->next || request == queue->tail);
		length++;
	}
	return length;
}

static void retain_check(const struct retain *retain)
{
	unsigned busy = 0;

	extents_check(&retain->extents);
	for (unsigned i = 0; i < RESENDS; i++)
		busy += retain->resends[i].busy;
	assert(busy == retain->resending);
	assert(retain->own == retain->extents.memory + retain->reserved);
	assert(retain->memory->used >= retain->own);
	assert(retain->outstanding ==
	       retain->reading + retain->changing + queue_length(&retain->returned) +
	           queue_length(&retain->waiting) + queue_length(&retain->held));
	assert(retain->state != RESENDING || (!retain->changing && !retain->gone));
	assert(retain->state != OPEN || (!retain->returned.head && !retain->held.head));
	assert(!retain->gone || (!retain->returned.head && !retain->held.head));
	assert(retain->keep || !retain->extents.kept);
	assert(!retain->resending || retain->state == RESENDING || retain->state == DRAINING);
}
#else
static void retain_check(const struct retain *retain)
{
	(void)retain;
}
#endif

/* A target that is away for long holds up what nobody may wait for any more: its memory is freed.
 */
static void retain_sweep(void *data)
{
	struct retain *retain = data;

	retain_queue_sweep(&retain->waiting);
	retain_queue_sweep(&retain->held);
	if (!retain->waiting.head && !retain->held.head)
		loop_remove(&retain->sweep);
}

/* Does what can be done now. To be called after whatever may have changed that. */
void retain_advance(struct retain *retain)
{
	do {
		if (retain->state == DUE && !retain->gone)
			retain_set_state(retain, DRAINING);
		if (retain->state == DRAINING && !retain->changing && !retain->resending)
			retain_drained(retain);
		if (retain->state == RESENDING)
			retain_resend(retain);
		if (retain->state == OPEN)
			retain_pump(retain);
	} while (retain->state == DRAINING && !retain->changing && !retain->resending);
	if (!retain->sweep && (retain->waiting.head || retain->held.head))
		retain->sweep = loop_ticker(retain->loop, SWEEP_MS, retain_sweep, retain);
	retain_check(retain);
}

/* ---- the block ---- */

static void retain_submit(struct block *block, struct io *io)
{
	struct retain *retain = retain_of(block);
	bool reads = io->op == IO_READ;
	int error = io->op == IO_MAP ? -EOPNOTSUPP : retain->gone && !reads ? -EIO : 0;
	struct request *request;

	retain_notice(retain);
	request = error ? NULL : retain_request_new(retain, io);
	if (!request) {
		io_end_later(&retain->ender, io, error ? error : -ENOMEM);
		return;
	}
	if (reads)
		retain_read_send(request);
	else if (retain->state == OPEN)
		retain_request_start(request);
	else
		queue_push(&retain->held, request);
	retain_advance(retain);
}

static void retain_free(struct block *block)
{
	struct retain *retain = retain_of(block);

	assert(!retain->outstanding && !retain->resending && io_ender_is_idle(&retain->ender));
	io_ender_clear(&retain->ender);
	loop_remove(&retain->pause);
	loop_remove(&retain->sweep);
	extents_free(&retain->extents);
	retain_account(retain);
	slab_clear(&retain->requests);
	g_free(retain);
}

static const struct block_ops retain_ops = {
    .submit = retain_submit, .free = retain_free, .event = retain_event};

struct block *retain_new(struct block *below, struct loop *loop, struct retain_memory *memory,
    const char *name, bool keep)
{
	struct retain *retain = g_new0(struct retain, 1);

	block_stack(&retain->block, &retain_ops, below);
	retain->loop = loop;
	retain->memory = memory;
	retain->name = name;
	retain->keep = keep;
	retain->epoch = retain->block.epoch;
	retain->generation = 1;
	retain->requests.size = sizeof(struct request);
	io_ender_init(&retain->ender, loop);
	extents_init(&retain->extents, memory->frames, below->limits.block_size);
	return &retain->block;
}

const struct retain_stats *retain_stats(const struct block *block)
{
	return &retain_of(block)->stats;
}

bool retain_is_idle(const struct block *block)
{
	const struct retain *retain = retain_of(block);

	return !retain->outstanding && !retain->resending && io_ender_is_idle(&retain->ender);
}

uint64_t retain_reach(const struct block *block)
{
	return extents_reach(&retain_of(block)->extents);
}

void retain_each(
    const struct block *block, void (*fn)(uint64_t start, uint64_t end, void *data), void *data)
{
	extents_each(&retain_of(block)->extents, fn, data);
}
