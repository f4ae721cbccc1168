/*
 * align.c - any offset and length above whole logical blocks.
 *
 * Every request takes the range of the blocks it touches before anything of it is sent, and keeps
 * it until the last of it is done below; the range is released before the submitter hears of it
 * (SAFETY.md 9, 10). So what is sent never overlaps, conflicting, with what is in flight.
 *
 *                    ┌── aligned, FLUSH, DISCARD ──► one part, as it came ──┐
 *   submit ► range ──┼── READ ──► one part, scratch around the data ────────┼──► release ► done
 *                    └── WRITE, ZERO ──► read the edges ──► write ──────────┘
 *
 * The edges are the first and last block where the request covers only part of them. Payload is
 * never copied: the submitter's iovecs are sent with those of the edges around them.
 *
 * Owns a slab of requests; their scratch is the pool's. Invariants: a request is in the range lock
 * from submit to finish; pending counts its parts that are below; what ends without anything sent
 * ends as deferred work.
 */
#include "lunfs/block.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lunfs/loop.h"
#include "lunfs/pool.h"

enum {
	PARTS = 3,      /* a ZERO: first block, middle, last block */
	OWN_IOVECS = 4, /* enough for data in two pieces and both edges */
};

struct align {
	struct block block;
	struct pool *pool;
	uint32_t block_size; /* of the blocks below */
	struct range_lock lock;
	struct slab requests;
	unsigned outstanding;
	struct io_ender ender; /* of those that end without having been sent */
};

struct request;

struct part {
	struct io io;
	struct request *request;
};

struct request {
	struct range range; /* its start and end are the blocks touched */
	struct align *align;
	struct io *parent;
	void (*then)(struct request *request); /* when no part is pending */
	unsigned pending;
	int error; /* the first */
	uint32_t head,
	    tail; /* bytes of the first block before the data, and of the last one after it */
	uint8_t *first, *last; /* the edges' content, in edges; the same where it is one block */
	uint8_t *edges;
	size_t edges_size;
	struct iovec *iov; /* own_iov, or the pool's where that is too short */
	size_t iov_size;
	struct iovec own_iov[OWN_IOVECS];
	struct part parts[PARTS];
};

static struct align *align_of(struct block *block)
{
	return container_of(block, struct align, block);
}

/* ---- ending ---- */

/* Gives back everything but the parent, the range last: what it held up may be sent from here. */
static void request_release(struct request *request)
{
	struct align *align = request->align;

	pool_put(align->pool, request->edges, request->edges_size);
	if (request->iov_size)
		pool_put(align->pool, request->iov, request->iov_size);
	range_lock_release(&align->lock, &request->range);
	slab_put(&align->requests, request);
	align->outstanding--;
}

static void request_finish(struct request *request)
{
	struct io *parent = request->parent;
	int error = request->error;

	request_release(request);
	parent->done(parent, error);
}

/* Before anything was sent. */
static void request_give_up(struct request *request, int error)
{
	struct align *align = request->align;
	struct io *parent = request->parent;

	request_release(request);
	io_end_later(&align->ender, parent, error);
}

/* ---- parts ---- */

static void part_done(struct io *io, int error)
{
	struct request *request = container_of(io, struct part, io)->request;

	if (error && !request->error)
		request->error = error;
	if (--request->pending == 0)
		request->then(request);
}

static void request_send(struct request *request, enum io_op op, uint64_t offset, uint64_t length,
    const struct iovec *iov, int niov)
{
	struct part *part = &request->parts[request->pending++];

	part->request = request;
	part->io = (struct io){
	    .op = op,
	    .flags = op == IO_READ ? 0 : request->parent->flags & IO_FUA,
	    .offset = offset,
	    .length = length,
	    .iov = iov,
	    .niov = niov,
	    .done = part_done,
	    .cancelled = request->parent->cancelled,
	};
	block_submit(request->align->block.below, &part->io);
}

/* The data with head and tail bytes around it, as one part. */
static void request_send_around(struct request *request, enum io_op op, void *head, void *tail)
{
	const struct io *parent = request->parent;
	struct iovec *iov = request->iov;
	int niov = 0;

	if (request->head)
		iov[niov++] = (struct iovec){head, request->head};
	memcpy(iov + niov, parent->iov, (size_t)parent->niov * sizeof(*iov));
	niov += parent->niov;
	if (request->tail)
		iov[niov++] = (struct iovec){tail, request->tail};
	request_send(request, op, request->range.start, request->range.end - request->range.start,
	    iov, niov);
}

static bool request_get_iov(struct request *request)
{
	size_t needed = (size_t)request->parent->niov + 2;

	request->iov = request->own_iov;
	if (needed <= OWN_IOVECS)
		return true;
	if (needed > POOL_MAX_SIZE / sizeof(struct iovec))
		return false;
	request->iov = pool_get(request->align->pool, needed * sizeof(struct iovec));
	request->iov_size = request->iov ? needed * sizeof(struct iovec) : 0;
	return request->iov != NULL;
}

static bool request_get_edges(struct request *request, size_t size)
{
	request->edges = pool_get(request->align->pool, size);
	request->edges_size = size;
	return request->edges != NULL;
}

/* ---- writing parts of blocks ---- */

/* In place of the middle of the edges, zeros; then the edges are written, and the blocks between
 * them zeroed. */
static void request_write_zeros(struct request *request)
{
	uint32_t block_size = request->align->block_size;
	uint64_t start = request->range.start, end = request->range.end;
	struct iovec *iov = request->iov;

	if (end - start == block_size) {
		memset(
		    request->first + request->head, 0, block_size - request->head - request->tail);
		iov[0] = (struct iovec){request->first, block_size};
		request_send(request, IO_WRITE, start, block_size, &iov[0], 1);
		return;
	}
	if (request->head) {
		memset(request->first + request->head, 0, block_size - request->head);
		iov[0] = (struct iovec){request->first, block_size};
		request_send(request, IO_WRITE, start, block_size, &iov[0], 1);
		start += block_size;
	}
	if (request->tail) {
		end -= block_size;
		memset(request->last, 0, block_size - request->tail);
		iov[1] = (struct iovec){request->last, block_size};
		request_send(request, IO_WRITE, end, block_size, &iov[1], 1);
	}
	if (start < end)
		request_send(request, IO_ZERO, start, end - start, NULL, 0);
}

static void request_edges_read(struct request *request)
{
	if (!request->error && io_is_cancelled(request->parent))
		request->error = -EINTR;
	request->then = request_finish;
	if (request->error)
		request_finish(request);
	else if (request->parent->op == IO_ZERO)
		request_write_zeros(request);
	else
		request_send_around(request, IO_WRITE, request->first,
		    request->last + request->align->block_size - request->tail);
}

static void request_read_edges(struct request *request)
{
	uint32_t block_size = request->align->block_size;
	uint64_t start = request->range.start, end = request->range.end;
	bool one_block = end - start == block_size;
	bool both = !one_block && request->head && request->tail;
	size_t edges_size = both ? (size_t)block_size * 2 : block_size;

	if (!request_get_iov(request) || !request_get_edges(request, edges_size)) {
		request_give_up(request, -ENOMEM);
		return;
	}
	request->first = request->edges;
	request->last = both ? request->edges + block_size : request->edges;
	request->then = request_edges_read;
	if (both && end - start == edges_size) {
		request->iov[0] = (struct iovec){request->edges, edges_size};
		request_send(request, IO_READ, start, edges_size, &request->iov[0], 1);
		return;
	}
	if (one_block || request->head) {
		request->iov[0] = (struct iovec){request->first, block_size};
		request_send(request, IO_READ, start, block_size, &request->iov[0], 1);
	}
	if (!one_block && request->tail) {
		request->iov[1] = (struct iovec){request->last, block_size};
		request_send(request, IO_READ, end - block_size, block_size, &request->iov[1], 1);
	}
}

/* ---- reading parts of blocks ---- */

static void request_read_around(struct request *request)
{
	if (!request_get_iov(request) ||
	    !request_get_edges(request, request->head + request->tail)) {
		request_give_up(request, -ENOMEM);
		return;
	}
	request_send_around(request, IO_READ, request->edges, request->edges + request->head);
}

/* ---- starting ---- */

static void request_granted(struct range *range)
{
	struct request *request = container_of(range, struct request, range);
	const struct io *parent = request->parent;

	if (io_is_cancelled(parent))
		request_give_up(request, -EINTR);
	else if (parent->op == IO_FLUSH)
		request_send(request, IO_FLUSH, 0, 0, NULL, 0);
	else if (parent->op == IO_DISCARD)
		request_send(request, IO_DISCARD, range->start, range->end - range->start, NULL, 0);
	else if (!request->head && !request->tail)
		request_send(
		    request, parent->op, parent->offset, parent->length, parent->iov, parent->niov);
	else if (parent->op == IO_READ)
		request_read_around(request);
	else
		request_read_edges(request);
}

/* A DISCARD leaves what it covers in part alone; it may end up empty. */
static void request_set_range(struct request *request)
{
	const struct io *parent = request->parent;
	uint32_t block_size = request->align->block_size;
	uint64_t end = parent->offset + parent->length;
	uint32_t head = (uint32_t)(parent->offset % block_size);
	uint32_t over = (uint32_t)(end % block_size);
	struct range *range = &request->range;

	if (parent->op == IO_FLUSH) {
		range->kind = RANGE_BARRIER;
		range->end = UINT64_MAX;
	} else if (parent->op == IO_DISCARD) {
		range->kind = RANGE_EXCLUSIVE;
		range->start = parent->offset + (head ? block_size - head : 0);
		range->end = end - over;
	} else {
		range->kind = parent->op == IO_READ ? RANGE_SHARED : RANGE_EXCLUSIVE;
		request->head = head;
		request->tail = over ? block_size - over : 0;
		range->start = parent->offset - head;
		range->end = end + request->tail;
	}
}

/* What needs no asking below: 0 and errors; 1 for the rest. */
static int align_judge(const struct align *align, const struct io *io)
{
	if (io->op == IO_MAP)
		return -EOPNOTSUPP;
	if (io->op == IO_FLUSH)
		return 1;
	if (io->length > align->block.size || io->offset > align->block.size - io->length)
		return -EINVAL;
	return io->length > 0;
}

static void align_submit(struct block *block, struct io *io)
{
	struct align *align = align_of(block);
	int verdict = align_judge(align, io);
	struct request *request = verdict > 0 ? slab_get(&align->requests) : NULL;

	if (!request) {
		io_end_later(&align->ender, io, verdict > 0 ? -ENOMEM : verdict);
		return;
	}
	align->outstanding++;
	request->align = align;
	request->parent = io;
	request->then = request_finish;
	request->range.granted = request_granted;
	request_set_range(request);
	if (request->range.start >= request->range.end)
		request_give_up(request, 0);
	else
		range_lock_acquire(&align->lock, &request->range);
}

static void align_free(struct block *block)
{
	struct align *align = align_of(block);

	assert(!align->outstanding && io_ender_is_idle(&align->ender));
	io_ender_clear(&align->ender);
	slab_clear(&align->requests);
	g_free(align);
}

static const struct block_ops align_ops = {.submit = align_submit, .free = align_free};

struct block *align_new(struct block *below, struct loop *loop, struct pool *pool)
{
	struct align *align = g_new0(struct align, 1);

	block_stack(&align->block, &align_ops, below);
	align->block_size = below->limits.block_size;
	align->block.limits.block_size = 1;
	align->pool = pool;
	align->requests.size = sizeof(struct request);
	io_ender_init(&align->ender, loop);
	return &align->block;
}
