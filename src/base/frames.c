/*
 * frames.c - frames of 4 KiB, found by bitmaps and counted: see frames.h.
 *
 *   free    a bit a frame: nobody holds or keeps it        ┌ 64 frames, 256 KiB: a word ┐
 *   partly  a bit a word of free: some of it is free    01 1 1 ...
 *   whole   a bit a word of free: all of it is free     00 0 0 ...
 *   used    a bit a word of free: there is memory behind it, maybe
 *   counts  users (holders and keepers) and keepers of each frame
 *
 * Few frames come out of words that are partly taken already, many out of whole ones: so what is
 * wanted in long runs stays together, and whole words can be given back to the system. The lowest
 * that fit are taken.
 *
 * Owns the region and all of these, which begin as untouched memory. Invariants: a frame's bit in
 * free is set exactly while its users are 0; keepers <= users; partly and whole are of free; below
 * the two hints no bit is set; in_use and kept count the frames with users, and with keepers. Under
 * AddressSanitizer free frames are poisoned, but for those of words that nothing was taken from
 * yet.
 */
#include "lunfs/frames.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lunfs/log.h"
#include "poison.h"

#define BITS      64u
#define WORD_SIZE ((size_t)BITS * FRAME_SIZE)
#define NONE      SIZE_MAX
#define ALL       UINT64_MAX

/* Words that are looked at for a run that is long enough, before it is a shorter one. */
enum { TRIES = 16 };
/* Words beyond the limit that are taken before holes are filled. */
enum { SPREAD_WORDS = 32 };

struct count {
	uint32_t users, keepers;
};

/* A bit a word. */
struct summary {
	uint64_t *bits;
	size_t hint; /* in 64 of them */
};

struct frames {
	uint8_t *memory;
	size_t size, limit; /* bytes */
	size_t words, top;  /* top: none was taken from there on */
	uint64_t *free, *used;
	struct summary partly, whole;
	struct count *counts;
	size_t in_use, kept; /* frames */
	bool idle;           /* nothing was taken since frames_trim() */
	void (*reclaim)(size_t bytes, void *data);
	void *reclaim_data;
	void (*room)(void *data); /* somebody waits */
	void *room_data;
};

/* ---- bits ---- */

static bool bit_is_set(const uint64_t *bits, size_t i)
{
	return bits[i / BITS] >> (i % BITS) & 1;
}

static void bit_put(uint64_t *bits, size_t i, bool set)
{
	bits[i / BITS] = (bits[i / BITS] & ~(UINT64_C(1) << (i % BITS))) | (uint64_t)set
	                                                                       << (i % BITS);
}

/* count bits from first on, which are of one word */
static uint64_t bits_mask(unsigned first, unsigned count)
{
	return (count == BITS ? ALL : (UINT64_C(1) << count) - 1) << first;
}

static unsigned ones_at_bottom(uint64_t bits)
{
	return bits == ALL ? BITS : (unsigned)__builtin_ctzll(~bits);
}

static void summary_put(struct summary *summary, size_t word, bool set)
{
	bit_put(summary->bits, word, set);
	if (set && word / BITS < summary->hint)
		summary->hint = word / BITS;
}

/* The first word from this one on that has its bit set, or NONE. */
static size_t summary_next(const struct frames *frames, const struct summary *summary, size_t word)
{
	/* behind top all are whole */
	size_t last = summary == &frames->whole ? frames->words : frames->top;
	size_t end = (last + BITS - 1) / BITS, i = word / BITS;

	if (i >= end)
		return NONE;
	for (uint64_t bits = summary->bits[i] & ALL << (word % BITS);; bits = summary->bits[i]) {
		if (bits)
			return i * BITS + (size_t)__builtin_ctzll(bits);
		if (++i == end)
			return NONE;
	}
}

static size_t summary_first(const struct frames *frames, struct summary *summary)
{
	size_t word = summary_next(frames, summary, summary->hint * BITS);

	summary->hint = (word == NONE ? frames->words : word) / BITS;
	return word;
}

static void word_set(struct frames *frames, size_t word, uint64_t bits)
{
	frames->free[word] = bits;
	summary_put(&frames->partly, word, bits != 0 && bits != ALL);
	summary_put(&frames->whole, word, bits == ALL);
}

/* ---- taking ---- */

/* A longest run of bits, but of no more than max: the first such. Not all are set. */
static unsigned word_find_run(uint64_t bits, unsigned max, unsigned *first)
{
	unsigned best = 0;

	for (unsigned at = 0; bits && best < max;) {
		unsigned skip = (unsigned)__builtin_ctzll(bits);
		unsigned length = ones_at_bottom(bits >> skip);
		if (length > best) {
			best = length < max ? length : max;
			*first = at + skip;
		}
		at += skip + length;
		bits = at < BITS ? bits >> skip >> length : 0;
	}
	return best;
}

/* In words that are partly free: at most max frames, the first of them in *first. */
static unsigned frames_find_partly(struct frames *frames, unsigned max, size_t *first)
{
	size_t word = summary_first(frames, &frames->partly);
	unsigned best = 0;

	for (int tries = 0; word != NONE && tries < TRIES; tries++) {
		unsigned bit = 0, length = word_find_run(frames->free[word], max, &bit);
		if (length > best) {
			best = length;
			*first = word * BITS + bit;
		}
		if (best == max)
			break;
		word = summary_next(frames, &frames->partly, word + 1);
	}
	return best;
}

/* From the first whole word on. */
static unsigned frames_find_whole(struct frames *frames, unsigned max, size_t *first)
{
	size_t word = summary_first(frames, &frames->whole);
	unsigned length = 0;

	if (word == NONE)
		return 0;
	*first = word * BITS;
	for (; length < max && word < frames->words; word++) {
		unsigned ones = ones_at_bottom(frames->free[word]);
		length += ones < max - length ? ones : max - length;
		if (ones < BITS)
			break;
	}
	return length;
}

static void frames_take(struct frames *frames, size_t first, unsigned count)
{
	for (size_t at = first, end = first + count; at < end;) {
		size_t word = at / BITS;
		unsigned bit = at % BITS;
		unsigned length = end - at < BITS - bit ? (unsigned)(end - at) : BITS - bit;
		if (frames->free[word] == ALL)
			POISON(frames->memory + word * WORD_SIZE, WORD_SIZE);
		word_set(frames, word, frames->free[word] & ~bits_mask(bit, length));
		bit_put(frames->used, word, true);
		if (word >= frames->top)
			frames->top = word + 1;
		at += length;
	}
	for (size_t i = first; i < first + count; i++)
		frames->counts[i].users = 1;
	UNPOISON(frames->memory + first * FRAME_SIZE, (size_t)count * FRAME_SIZE);
	frames->in_use += count;
	frames->idle = false;
}

/*
 * A run in whole words, but not where more of them were taken than what may be kept needs: there
 * holes are filled first, or a few kept frames in each would hold on to many times their size.
 */
static unsigned frames_find_long(struct frames *frames, unsigned max, size_t *first)
{
	unsigned count = frames_find_whole(frames, max, first);

	if (count && *first / BITS < frames->limit / WORD_SIZE + SPREAD_WORDS)
		return count;
	return summary_first(frames, &frames->partly) == NONE ? count : 0;
}

unsigned frames_get(struct frames *frames, unsigned max, uint8_t **run)
{
	size_t first = 0, other = 0;
	unsigned count, whole = 0;

	if (max >= BITS) {
		count = frames_find_long(frames, max, &first);
		if (!count)
			count = frames_find_partly(frames, BITS, &first);
	} else {
		count = frames_find_partly(frames, max, &first);
		if (count < max)
			whole = frames_find_long(frames, max, &other);
		if (whole) {
			count = whole;
			first = other;
		}
	}
	if (count) {
		frames_take(frames, first, count);
		*run = frames->memory + first * FRAME_SIZE;
	}
	return count;
}

/* ---- counting ---- */

bool frames_contain(const struct frames *frames, const void *at)
{
	return (uintptr_t)at - (uintptr_t)frames->memory < frames->size;
}

static size_t frames_index(const struct frames *frames, const void *at)
{
	assert(frames_contain(frames, at));
	return ((uintptr_t)at - (uintptr_t)frames->memory) / FRAME_SIZE;
}

/* The frames that [at, at + length) touches. */
struct span {
	size_t first, end;
};

static struct span frames_span(const struct frames *frames, const void *at, size_t length)
{
	if (!length)
		return (struct span){0, 0};
	return (struct span){
	    frames_index(frames, at), frames_index(frames, (const uint8_t *)at + length - 1) + 1};
}

static void frames_add(struct frames *frames, const void *at, size_t length, bool keeper)
{
	struct span span = frames_span(frames, at, length);

	for (size_t i = span.first; i < span.end; i++) {
		struct count *count = &frames->counts[i];
		assert(count->users > 0 && count->users < UINT32_MAX);
		count->users++;
		if (keeper)
			frames->kept += count->keepers++ == 0;
	}
}

static void frames_subtract(struct frames *frames, const void *at, size_t length, bool keeper)
{
	struct span span = frames_span(frames, at, length);

	for (size_t i = span.first, next; i < span.end; i = next) {
		size_t word = i / BITS;
		uint64_t freed = 0;

		next = (word + 1) * BITS < span.end ? (word + 1) * BITS : span.end;
		for (size_t j = i; j < next; j++) {
			struct count *count = &frames->counts[j];
			assert(count->users > (keeper ? 0 : count->keepers));
			assert(!keeper || count->keepers > 0);
			if (keeper)
				frames->kept -= --count->keepers == 0;
			if (--count->users)
				continue;
			POISON(frames->memory + j * FRAME_SIZE, FRAME_SIZE);
			freed |= UINT64_C(1) << (j % BITS);
			frames->in_use--;
		}
		if (freed)
			word_set(frames, word, frames->free[word] | freed);
	}
}

void frames_hold(struct frames *frames, const void *at, size_t length)
{
	frames_add(frames, at, length, false);
}

void frames_release(struct frames *frames, const void *at, size_t length)
{
	frames_subtract(frames, at, length, false);
}

void frames_keep(struct frames *frames, const void *at, size_t length)
{
	frames_add(frames, at, length, true);
}

void frames_let_go(struct frames *frames, const void *at, size_t length)
{
	void (*room)(void *data) = frames->room;

	frames_subtract(frames, at, length, true);
	frames->room = NULL;
	if (room)
		room(frames->room_data);
}

unsigned frame_users(const struct frames *frames, const void *at)
{
	return frames->counts[frames_index(frames, at)].users;
}

unsigned frame_keepers(const struct frames *frames, const void *at)
{
	return frames->counts[frames_index(frames, at)].keepers;
}

size_t frames_kept(const struct frames *frames)
{
	return frames->kept * FRAME_SIZE;
}

size_t frames_in_use(const struct frames *frames)
{
	return frames->in_use * FRAME_SIZE;
}

size_t frames_limit(const struct frames *frames)
{
	return frames->limit;
}

static size_t frames_lacking(const struct frames *frames, size_t bytes)
{
	size_t kept = frames_kept(frames);
	size_t left = kept < frames->limit ? frames->limit - kept : 0;

	return bytes > left ? kept + bytes - frames->limit : 0;
}

bool frames_may_keep(struct frames *frames, size_t bytes)
{
	size_t lacking = frames_lacking(frames, bytes);

	if (lacking && frames->reclaim) {
		frames->reclaim(lacking, frames->reclaim_data);
		lacking = frames_lacking(frames, bytes);
	}
	return !lacking;
}

void frames_on_reclaim(struct frames *frames, void (*reclaim)(size_t bytes, void *data), void *data)
{
	frames->reclaim = reclaim;
	frames->reclaim_data = data;
}

void frames_await(struct frames *frames, void (*room)(void *data), void *data)
{
	frames->room = room;
	frames->room_data = data;
}

/* ---- from start to end ---- */

void frames_trim(struct frames *frames)
{
	for (size_t word = 0, end; frames->idle && word < frames->top; word = end + 1) {
		for (end = word;
		     end < frames->top && bit_is_set(frames->used, end) && frames->free[end] == ALL;
		     end++)
			bit_put(frames->used, end, false);
		if (end > word)
			madvise(frames->memory + word * WORD_SIZE, (end - word) * WORD_SIZE,
			    MADV_DONTNEED);
	}
	frames->idle = true;
}

static size_t whole_words(size_t bytes)
{
	return (bytes + WORD_SIZE - 1) / WORD_SIZE;
}

struct frames *frames_new(size_t limit, size_t apart)
{
	struct frames *frames = calloc(1, sizeof(*frames));
	size_t words = whole_words(limit) + whole_words(apart);
	size_t summary = (words + BITS - 1) / BITS;
	void *memory;

	if (!frames)
		return NULL;
	memory = mmap(NULL, words * WORD_SIZE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	frames->memory = memory == MAP_FAILED ? NULL : memory;
	frames->size = words * WORD_SIZE;
	frames->limit = whole_words(limit) * WORD_SIZE;
	frames->words = words;
	frames->free = calloc(words, sizeof(uint64_t));
	frames->used = calloc(summary, sizeof(uint64_t));
	frames->partly.bits = calloc(summary, sizeof(uint64_t));
	frames->whole.bits = calloc(summary, sizeof(uint64_t));
	frames->counts = calloc(words * BITS, sizeof(struct count));
	if (!frames->memory || !frames->free || !frames->used || !frames->partly.bits ||
	    !frames->whole.bits || !frames->counts) {
		frames_free(frames);
		return NULL;
	}
	for (size_t word = 0; word < words; word++)
		word_set(frames, word, ALL);
	return frames;
}

void frames_free(struct frames *frames)
{
	if (!frames)
		return;
	if (frames->in_use)
		log_warning("frames: %zu bytes were never returned", frames_in_use(frames));
	if (frames->memory) {
		/* for whoever is mapped there next */
		UNPOISON(frames->memory, frames->top * WORD_SIZE);
		munmap(frames->memory, frames->size);
	}
	free(frames->free);
	free(frames->used);
	free(frames->partly.bits);
	free(frames->whole.bits);
	free(frames->counts);
	free(frames);
}
