/*
 * extents_make.c - a WRITE becomes extents: what lies in frames where it is, the rest copied.
 *
 *   iovecs    │ scratch │ frames ......................... │ frames, elsewhere ....... │
 *   blocks    │    |    |    |    |    |    |    |    |    |    |    |    |    |    |  │
 *   pieces    │ copied  │ in place, up to EXTENTS_RUN │ .. │copied│ in place ......... │
 *
 * Extents are of whole blocks, and each is one run in memory: a block that two runs share is
 * copied. So are short pieces between foreign memory, as align makes them of a part of a block: one
 * frame then keeps what would take several.
 *
 * Invariants: a walk stands at the beginning of a block; what was made keeps its frames, and
 * nothing else holds those that were got for copies.
 */
#include "extent.h"

#include <assert.h>
#include <string.h>

struct walk {
	const struct extents *extents;
	const struct iovec *iov; /* those left; of the first, skip bytes are behind us */
	size_t skip;
	uint64_t at, end; /* bytes of the LUN */
	bool mixed;       /* some of the data is foreign */
};

/* Goes on by length bytes; their content goes to `to`, where that is not NULL. */
static void walk_on(struct walk *walk, uint8_t *to, uint64_t length)
{
	walk->at += length;
	for (;;) {
		size_t piece = MIN(walk->iov->iov_len - walk->skip, length);
		if (to && piece) {
			memcpy(to, (uint8_t *)walk->iov->iov_base + walk->skip, piece);
			to += piece;
		}
		length -= piece;
		walk->skip += piece;
		if (walk->skip < walk->iov->iov_len || (!length && walk->at == walk->end))
			return;
		walk->iov++;
		walk->skip = 0;
	}
}

static void walk_begin(struct walk *walk, const struct extents *extents, const struct io *io)
{
	*walk = (struct walk){extents, io->iov, 0, io->offset, io->offset + io->length, false};
	for (int i = 0; i < io->niov; i++)
		walk->mixed |= !frames_contain(extents->frames, io->iov[i].iov_base);
	walk_on(walk, NULL, 0); /* to the first that is not empty */
}

/* Bytes from here on that are one run in memory, up to what an extent is to have, or more. */
static uint64_t walk_run(const struct walk *walk, uint8_t **from)
{
	const struct iovec *iov = walk->iov;
	uint64_t length = iov->iov_len - walk->skip, left = walk->end - walk->at;

	*from = (uint8_t *)iov->iov_base + walk->skip;
	if (!frames_contain(walk->extents->frames, *from))
		return MIN(length, left);
	for (; length < MIN(left, EXTENTS_RUN); length += iov->iov_len) {
		iov++;
		if (iov->iov_base != *from + length ||
		    !frames_contain(walk->extents->frames, iov->iov_base))
			break;
	}
	return MIN(length, left);
}

/* The length of the extent that can begin here without a copy; 0: none. */
static uint64_t walk_in_place(const struct walk *walk, uint8_t **from)
{
	uint32_t block_size = walk->extents->block_size;
	uint64_t length = walk_run(walk, from), most;

	if (!frames_contain(walk->extents->frames, *from))
		return 0;
	/* the next one begins with a frame, where blocks do */
	most = EXTENTS_RUN - (uintptr_t)*from % FRAME_SIZE;
	length = MIN(length, MAX(most, block_size));
	length -= length % block_size;
	return walk->mixed && length < FRAME_SIZE ? 0 : length;
}

/* Here nothing can stay in place: how far is it to where something can? */
static uint64_t walk_to_copy(struct walk walk)
{
	uint32_t block_size = walk.extents->block_size;
	uint64_t start = walk.at, run;
	uint8_t *from;

	do {
		run = walk_run(&walk, &from) + block_size - 1;
		walk_on(&walk, NULL, MIN(run - run % block_size, walk.end - walk.at));
	} while (walk.at < walk.end && !walk_in_place(&walk, &from));
	return walk.at - start;
}

struct piece {
	uint64_t length;
	uint8_t *in_place; /* or NULL */
};

static bool walk_piece(const struct walk *walk, struct piece *piece)
{
	if (walk->at >= walk->end)
		return false;
	piece->length = walk_in_place(walk, &piece->in_place);
	if (!piece->length)
		*piece = (struct piece){walk_to_copy(*walk), NULL};
	else
		assert(piece->in_place);
	return true;
}

/* ---- what it takes ---- */

size_t extents_cost(const struct extents *extents, const struct io *io)
{
	/* it may cut one in two, which then may keep the same frame both */
	size_t cost = 2 * sizeof(struct extent) + (io->length < FRAME_SIZE ? FRAME_SIZE : 0);
	struct piece piece;
	struct walk walk;

	if (io->op != IO_WRITE)
		return cost;
	walk_begin(&walk, extents, io);
	for (; walk_piece(&walk, &piece); walk_on(&walk, NULL, piece.length)) {
		size_t size = frames_size(piece.in_place, piece.length);
		/* where no two frames are together, each is an extent */
		size_t most = piece.in_place ? 1 : size / FRAME_SIZE;
		cost += size + most * sizeof(struct extent);
	}
	return cost;
}

size_t extents_fresh(const struct extents *extents, const struct io *io)
{
	struct piece piece;
	struct walk walk;
	size_t fresh = 0;

	if (io->op != IO_WRITE)
		return 0;
	walk_begin(&walk, extents, io);
	for (; walk_piece(&walk, &piece); walk_on(&walk, NULL, piece.length)) {
		size_t size = frames_size(piece.in_place, piece.length);
		fresh += size;
		for (size_t at = 0; piece.in_place && at < size; at += FRAME_SIZE) {
			const uint8_t *frame = piece.in_place + MIN(at, piece.length - 1);
			fresh -= frame_keepers(extents->frames, frame) > 0 ? FRAME_SIZE : 0;
		}
	}
	return fresh;
}

/* ---- making ---- */

/* Gives back what extents_make() made. */
static void extents_unmake(struct extents *extents, struct extent *made)
{
	while (made) {
		struct extent *next = made->newer;
		if (made->data)
			frames_let_go(extents->frames, made->data, made->end - made->start);
		slab_put(&extents->nodes, made);
		made = next;
	}
}

/* Whole blocks in new frames, at most length bytes, filled from the walk; 0: no memory. */
static uint64_t copy_new(struct walk *walk, uint64_t length, uint8_t **copy)
{
	struct frames *frames = walk->extents->frames;
	uint64_t most = MAX(EXTENTS_RUN, walk->extents->block_size);
	size_t got;

	length = MIN(length, most);
	got = (size_t)frames_get(frames, (unsigned)(frames_size(NULL, length) / FRAME_SIZE), copy) *
	      FRAME_SIZE;
	length = MIN(length, got);
	length -= length % walk->extents->block_size;
	if (length > 0) {
		frames_keep(frames, *copy, length);
		walk_on(walk, *copy, length);
	}
	if (got > 0)
		frames_release(frames, *copy, got);
	return length;
}

/* The next of a WRITE: data and end are set. False: no memory. */
static bool extent_fill(struct extent *extent, struct walk *walk, uint64_t *to_copy)
{
	struct frames *frames = walk->extents->frames;
	struct piece piece = {.length = *to_copy};

	if (!piece.length)
		walk_piece(walk, &piece);
	if (piece.in_place) {
		extent->data = piece.in_place;
		frames_keep(frames, extent->data, piece.length);
		walk_on(walk, NULL, piece.length);
	} else {
		uint64_t copied = copy_new(walk, piece.length, &extent->data);
		*to_copy = piece.length - copied;
		piece.length = copied;
	}
	extent->end = extent->start + piece.length;
	return piece.length > 0;
}

struct extent *extents_make(struct extents *extents, const struct io *io, uint64_t sequence)
{
	struct extent *first = NULL, **link = &first;
	uint64_t at = io->offset, end = io->offset + io->length, to_copy = 0;
	struct walk walk;

	if (io->op == IO_WRITE)
		walk_begin(&walk, extents, io);
	while (at < end) {
		struct extent *extent = *link = slab_get(&extents->nodes);

		if (!extent)
			break;
		extent->start = at;
		extent->end = end;
		extent->sequence = sequence;
		extent->op = io->op;
		if (io->op == IO_WRITE && !extent_fill(extent, &walk, &to_copy)) {
			extent->data = NULL;
			break;
		}
		link = &extent->newer;
		at = extent->end;
	}
	if (at >= end)
		return first;
	extents_unmake(extents, first);
	return NULL;
}
