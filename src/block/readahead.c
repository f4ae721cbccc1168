/*
 * readahead.c - what a LUN's readers will read next: see readahead.h.
 *
 *   READ ──► continues a stream? ──yes──► its end moves on; window bytes beyond it are asked for
 *                  │ no
 *                  ▼
 *            begins where a recent READ of the handle ended? ──yes──► a new forward stream
 *                  │ no
 *                  ▼
 *            the third equal stride of its handle? ──yes──► a new backward or strided stream
 *                  │ no
 *                  ▼
 *            is remembered, in the oldest one's place: nothing to fetch
 *
 * READs that belong to no stream, however many, replace only each other: a random reader costs
 * nobody his stream.
 *
 * A stream lives in coordinates of its own, in which it is always read upwards without a gap, and
 * the window knows no others:
 *   forward   those of the LUN
 *   backward  those of the LUN seen in a mirror, at MIRROR - offset
 *   strided   READ number n of them lies at n * length
 *
 *   ......read......|.............asked for.............|... not yet ...|
 *                  end         mark                   issued        end + window
 *
 * A READ that waits doubles the window if it lies at mark or beyond, where what was asked for since
 * the last doubling begins: one stall is one doubling, and yet on a long link, where the reader
 * waits for each window anew, each round trip is one.
 *
 * Owns nothing but its tables. Invariants: end and mark are not beyond issued; while a stream is
 * active none of them falls, so it asks for no byte twice; those of a strided stream are multiples
 * of its length. An active stream is never replaced.
 */
#include "readahead.h"

#include <glib.h>

enum {
	STREAMS = 16,
	RECENT = 32,           /* READs that are remembered: as many readers may take turns */
	ACTIVE = 64,           /* a stream is, if one of the last so many READs was its own */
	SLACK = 4,             /* READs that are on their way at a time may overtake each other */
	STRIDES = 3,           /* equal ones make a stream */
	SMALL_STEP = 64 << 10, /* small windows move on by so much, large ones by commands */
};

/* Above all LUNs, and a multiple of commands. */
#define MIRROR  (UINT64_C(1) << 63)
#define NOWHERE UINT64_MAX

enum kind { FORWARD, BACKWARD, STRIDED };

struct stream {
	uint64_t handle; /* 0: there is none */
	uint64_t used;   /* when: a READ's number */
	enum kind kind;
	uint64_t end, issued, mark; /* in the stream's coordinates */
	uint64_t gap;               /* left out since READs last met: late ones may fill it */
	uint64_t length;            /* of the last READ; strided: of all */
	size_t window;
	uint64_t base; /* strided: the LUN's offset of 0, and the way from one READ to the next */
	int64_t stride;
};

struct recent {
	uint64_t handle; /* 0: there is none */
	uint64_t end, length;
	int64_t stride;   /* from the handle's READ before it */
	unsigned strides; /* equal ones, up to this READ */
};

struct readahead {
	size_t limit;
	uint64_t reads;
	struct stream streams[STREAMS];
	struct recent recent[RECENT]; /* a ring */
	unsigned newest;
};

/* A READ as it came, inside the LUN. */
struct seen {
	uint64_t handle, offset, length;
};

/* ---- a stream's coordinates ---- */

/* Where the READ lies; NOWHERE where a strided stream has no such READ. */
static uint64_t stream_place(const struct stream *stream, const struct seen *seen)
{
	int64_t way, steps;

	switch (stream->kind) {
	case FORWARD:
		return seen->offset;
	case BACKWARD:
		return MIRROR - seen->offset - seen->length;
	case STRIDED:
		break;
	}
	way = (int64_t)(seen->offset - stream->base);
	if (seen->length != stream->length || way % stream->stride)
		return NOWHERE;
	steps = way / stream->stride;
	return steps < 0 ? NOWHERE : (uint64_t)steps * stream->length;
}

/* Where the LUN ends. */
static uint64_t stream_limit(const struct stream *stream, uint64_t size)
{
	switch (stream->kind) {
	case FORWARD:
		return size;
	case BACKWARD:
		return MIRROR;
	case STRIDED:
		break;
	}
	if (stream->stride < 0)
		return (stream->base / -(uint64_t)stream->stride + 1) * stream->length;
	if (stream->base >= size)
		return 0;
	return ((size - 1 - stream->base) / (uint64_t)stream->stride + 1) * stream->length;
}

/* The LUN's range at [start, end), which lies in one READ of a strided stream. */
static struct readahead_range stream_range(
    const struct stream *stream, uint64_t start, uint64_t end, uint64_t size)
{
	struct readahead_range range = {.offset = start, .length = end - start};

	if (stream->kind == BACKWARD)
		range.offset = MIRROR - end;
	if (stream->kind == STRIDED)
		range.offset = stream->base + start % stream->length +
		               start / stream->length * (uint64_t)stream->stride;
	if (range.offset >= size) /* which shrank, or a strided READ would reach beyond it */
		range.length = 0;
	else
		range.length = MIN(range.length, size - range.offset);
	return range;
}

/* ---- the window ---- */

/* A READ that begins a little before or behind the end belongs to it: others overtook it, or it
 * them. But READs that leave out more than others fill in are somebody else's, or strided. */
static bool stream_reaches(const struct stream *stream, uint64_t place, uint64_t length)
{
	uint64_t slack = SLACK * MAX(length, stream->length);

	if (place == NOWHERE)
		return false;
	if (place > stream->end)
		return place - stream->end + stream->gap <= slack;
	return stream->end - place <= slack;
}

/* A READ of the stream came. */
static void stream_move(
    struct stream *stream, uint64_t place, uint64_t length, bool waits, size_t share)
{
	if (place == stream->end)
		stream->gap = 0;
	else if (place > stream->end)
		stream->gap += place - stream->end;
	else
		stream->gap -= MIN(stream->gap, length);
	stream->length = length;
	stream->end = MAX(stream->end, place + length);
	stream->issued = MAX(stream->issued, stream->end);
	if (waits && place >= stream->mark && stream->window < share) {
		stream->window = stream->window > share / 2 ? share : 2 * stream->window;
		stream->mark = stream->issued;
	}
}

/* Where a command that begins at start ends. */
static uint64_t stream_cut(const struct stream *stream, uint64_t start, size_t command)
{
	uint64_t begun;

	if (stream->kind != STRIDED)
		return (start / command + 1) * command;
	begun = start % stream->length;
	return start - begun + MIN(stream->length, (begun / command + 1) * command);
}

/* Asks for what the window has room for, once that is worth a command. */
static unsigned stream_ask(struct stream *stream, size_t share, uint64_t size,
    struct readahead_range *ranges, unsigned max)
{
	size_t window = MIN(stream->window, share);
	bool small = window < 2 * READAHEAD_COMMAND;
	size_t command = small ? READAHEAD_MIN : READAHEAD_COMMAND;
	uint64_t step = small ? SMALL_STEP : READAHEAD_COMMAND, upto;
	unsigned count = 0;

	if (stream->kind == STRIDED)
		step = stream->length; /* each READ is a command of its own: nothing to gather */
	upto = (stream->end + MAX(window, step)) / step * step;
	upto = MIN(upto, stream_limit(stream, size));
	while (stream->issued < upto && count < max) {
		uint64_t end = MIN(upto, stream_cut(stream, stream->issued, command));
		ranges[count] = stream_range(stream, stream->issued, end, size);
		count += ranges[count].length != 0;
		stream->issued = end;
	}
	return count;
}

/* ---- who begins ---- */

static bool stream_is_active(const struct readahead *readahead, const struct stream *stream)
{
	return stream->handle && readahead->reads - stream->used < ACTIVE;
}

/* What a stream may have of the limit. */
static size_t readahead_share(const struct readahead *readahead)
{
	size_t active = 0;

	for (unsigned i = 0; i < STREAMS; i++)
		active += stream_is_active(readahead, &readahead->streams[i]);
	return MAX(READAHEAD_MIN, readahead->limit / MAX(1, active));
}

/*
 * NULL where all are active: more readers than streams, taking turns, would push out each other,
 * and nobody would have one.
 */
static struct stream *readahead_free_stream(struct readahead *readahead)
{
	struct stream *oldest = &readahead->streams[0];

	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *stream = &readahead->streams[i];
		if (!stream->handle)
			return stream;
		if (stream->used < oldest->used)
			oldest = stream;
	}
	return stream_is_active(readahead, oldest) ? NULL : oldest;
}

static struct stream *readahead_begin(
    struct readahead *readahead, const struct seen *seen, enum kind kind, int64_t stride)
{
	struct stream *stream = readahead_free_stream(readahead);

	if (!stream)
		return NULL;
	*stream = (struct stream){
	    .handle = seen->handle,
	    .used = readahead->reads,
	    .kind = kind,
	    .length = seen->length,
	    .window = READAHEAD_MIN,
	    .base = seen->offset,
	    .stride = stride,
	};
	/* Its end is this one's: that it waits says nothing of the window. */
	stream->end = stream_place(stream, seen) + seen->length;
	stream->issued = stream->mark = stream->end;
	return stream;
}

/* Remembers the READ; with STRIDES equal strides up to it, it begins a stream. */
static struct stream *readahead_remember(
    struct readahead *readahead, const struct seen *seen, const struct recent *before)
{
	struct recent now = {
	    .handle = seen->handle, .end = seen->offset + seen->length, .length = seen->length};

	if (before && before->length == seen->length) {
		now.stride = (int64_t)(seen->offset - (before->end - before->length));
		now.strides = now.stride == before->stride ? before->strides + 1 : 1;
	}
	readahead->newest = (readahead->newest + 1) % RECENT;
	readahead->recent[readahead->newest] = now;
	if (now.strides < STRIDES)
		return NULL;
	if (now.stride == -(int64_t)seen->length)
		return readahead_begin(readahead, seen, BACKWARD, 0);
	if ((uint64_t)ABS(now.stride) > seen->length)
		return readahead_begin(readahead, seen, STRIDED, now.stride);
	return NULL;
}

/*
 * Two READs in a row inside what a stream has asked for already: its reader skipped something, say
 * what the kernel has cached. He keeps the window that he has.
 */
static struct stream *readahead_skip(struct readahead *readahead, const struct seen *seen)
{
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *stream = &readahead->streams[i];
		if (stream->handle != seen->handle || stream->kind != FORWARD ||
		    !stream_is_active(readahead, stream))
			continue;
		if (stream->end < seen->offset && seen->offset <= stream->issued) {
			stream->end = seen->offset;
			return stream;
		}
	}
	return NULL;
}

/* The READ of the handle that ended where this one begins. */
static struct recent *readahead_find_previous(struct readahead *readahead, const struct seen *seen)
{
	for (unsigned i = 0; i < RECENT; i++) {
		struct recent *recent = &readahead->recent[i];
		/* The end first: of a random reader it differs, and the processor knows by then. */
		if (recent->end == seen->offset && recent->handle == seen->handle)
			return recent;
	}
	return NULL;
}

/* The handle's READ before this one. */
static const struct recent *readahead_find_newest(
    const struct readahead *readahead, const struct seen *seen)
{
	for (unsigned i = 0; i < RECENT; i++) {
		unsigned at = (readahead->newest - i) % RECENT;
		if (readahead->recent[at].handle == seen->handle)
			return &readahead->recent[at];
	}
	return NULL;
}

/* Of a READ that is no stream's: the one that it begins, if it does. */
static struct stream *readahead_consider(struct readahead *readahead, const struct seen *seen)
{
	struct recent *previous = readahead_find_previous(readahead, seen);
	struct stream *stream = NULL;

	if (previous)
		stream = readahead_skip(readahead, seen);
	if (previous && !stream)
		stream = readahead_begin(readahead, seen, FORWARD, 0);
	if (!stream)
		return readahead_remember(readahead, seen, readahead_find_newest(readahead, seen));
	previous->handle = 0; /* it has had its say */
	return stream;
}

/*
 * The stream that the READ continues: of several the one that was used last, as a reader may pass
 * where he, or another of the handle, once ended. One that paused goes on where it stopped, or
 * random READs would wake up what they began by chance.
 */
static struct stream *readahead_match(struct readahead *readahead, const struct seen *seen)
{
	struct stream *match = NULL;

	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *stream = &readahead->streams[i];
		if (stream->handle != seen->handle || (match && match->used > stream->used))
			continue;
		uint64_t place = stream_place(stream, seen);
		if (place == stream->end || (stream_is_active(readahead, stream) &&
		                                stream_reaches(stream, place, seen->length)))
			match = stream;
	}
	return match;
}

/* ---- the face ---- */

struct readahead *readahead_new(size_t limit)
{
	struct readahead *readahead = g_new0(struct readahead, 1);

	readahead_set_limit(readahead, limit);
	return readahead;
}

void readahead_free(struct readahead *readahead)
{
	g_free(readahead);
}

void readahead_set_limit(struct readahead *readahead, size_t limit)
{
	readahead->limit = MIN(limit, SIZE_MAX / 4); /* so that no sum wraps around */
	if (!limit)
		readahead_forget(readahead, 0);
}

unsigned readahead_saw(struct readahead *readahead, uint64_t handle, uint64_t offset,
    uint64_t length, uint64_t size, bool waits, struct readahead_range *ranges, unsigned max)
{
	struct seen seen = {.handle = handle, .offset = offset};
	struct stream *stream;
	size_t share;

	size = MIN(size, MIRROR);
	if (!handle || !readahead->limit || !length || offset >= size)
		return 0;
	seen.length = MIN(length, size - offset);
	readahead->reads++;
	stream = readahead_match(readahead, &seen);
	if (!stream)
		stream = readahead_consider(readahead, &seen);
	if (!stream)
		return 0;
	/* A reader who paused, and finds that what was asked for has been evicted: once more. */
	if (waits && !stream_is_active(readahead, stream))
		stream->issued = stream->mark = stream->end + seen.length;
	stream->used = readahead->reads;
	share = readahead_share(readahead);
	stream_move(stream, stream_place(stream, &seen), seen.length, waits, share);
	return stream_ask(stream, share, size, ranges, max);
}

void readahead_forget(struct readahead *readahead, uint64_t handle)
{
	for (unsigned i = 0; i < STREAMS; i++)
		if (!handle || readahead->streams[i].handle == handle)
			readahead->streams[i].handle = 0;
	for (unsigned i = 0; i < RECENT; i++)
		if (!handle || readahead->recent[i].handle == handle)
			readahead->recent[i].handle = 0;
}

size_t readahead_window(const struct readahead *readahead)
{
	size_t window = 0, share = readahead_share(readahead);

	for (unsigned i = 0; i < STREAMS; i++)
		if (readahead->streams[i].handle)
			window = MAX(window, MIN(readahead->streams[i].window, share));
	return window;
}
