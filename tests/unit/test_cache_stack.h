/*
 * test_cache_stack.h - cache above align above retain above a block made of memory, for the tests
 * of test_cache*.c.
 *
 * Nothing is completed below but by a test's own step (memory_block_hold). Time plays no part
 * unless a test says so: dirty data expires after an hour, and there is no read-ahead. Each READ is
 * made twice where it can be, into the reader's memory and lent, by expect_read().
 */
#pragma once

#include "lunfs/block.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "lunfs/frames.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "support/memory_block.h"
#include "support/stage.h"

enum { PENDING = 12345, B = 4096, S = 512, HOUR_MS = 3600 * 1000 };

struct stack;
struct stack_options {
	uint64_t size;       /* 4 MiB */
	uint32_t block_size; /* 512 */
	size_t limit;        /* of the frames: 64 MiB; of retain's: half of it */
	bool writethrough;
	unsigned dirty_expire_ms; /* an hour */
	size_t readahead;         /* none */
	struct stack *beside;     /* whose memory it shares */
};

struct stack {
	struct loop *loop;
	struct pool *pool;
	struct frames *frames;
	struct cache_memory *pages;
	struct retain_memory own_limits, *limits;
	struct memory_block *memory;
	struct block *retain, *align, *cache;
	bool guest;     /* loop to limits are another's */
	unsigned done;  /* requests */
	unsigned calls; /* of submit() that are under way */
	unsigned events[BLOCK_BACK + 1];
};

struct request {
	struct io io;
	struct iovec iov;
	struct stack *stack;
	int error;
	unsigned order;
	bool cancelled;
	uint8_t *data;   /* a READ's result, a WRITE's data */
	uint8_t *frames; /* a WRITE from frames: where */
};

/* ---- the stack ---- */

static inline void stack_event(struct block *block, enum block_event event, void *data)
{
	struct stack *stack = data;

	(void)block;
	stack->events[event]++;
}

static inline void stack_open(struct stack *stack, const struct stack_options *options)
{
	uint64_t size = options->size ? options->size : 4 << 20;
	uint32_t block_size = options->block_size ? options->block_size : 512;
	struct cache_options cache = {
	    .writethrough = options->writethrough,
	    .dirty_expire_ms = options->dirty_expire_ms ? options->dirty_expire_ms : HOUR_MS,
	    .readahead = options->readahead,
	};

	stack->memory = memory_block_new(stack->loop, size, block_size);
	stack->memory->reads_overlap = true;
	stack->retain = retain_new(&stack->memory->block, stack->loop, stack->limits, "lun0", true);
	stack->align = align_new(stack->retain, stack->loop, stack->pool);
	stack->cache = cache_new(stack->align, stack->loop, stack->pages, &cache, "lun0");
	stack->cache->on_event = stack_event;
	stack->cache->on_event_data = stack;
	cr_assert(stack->cache->limits.lends);
	cr_assert_eq(stack->cache->limits.block_size, 1);
	memory_block_hold(stack->memory, true);
}

static inline struct stack *stack_new_with(const struct stack_options *options)
{
	struct stack *stack = g_new0(struct stack, 1), *beside = options->beside;
	size_t limit = options->limit ? options->limit : 64 << 20;

	log_set_level(LOG_LEVEL_ERROR);
	if (beside) {
		stack->guest = true;
		stack->loop = beside->loop;
		stack->pool = beside->pool;
		stack->frames = beside->frames;
		stack->pages = beside->pages;
		stack->limits = beside->limits;
	} else {
		stack->loop = loop_new();
		stack->pool = pool_new(1 << 20);
		stack->frames = frames_new(limit, 16 << 20);
		stack->pages = cache_memory_new(stack->frames);
		stack->own_limits = (struct retain_memory){
		    .frames = stack->frames, .limit = limit / 2, .floor = 64 << 10};
		stack->limits = &stack->own_limits;
	}
	stack_open(stack, options);
	return stack;
}

static inline struct stack *stack_new(void)
{
	return stack_new_with(&(struct stack_options){0});
}

/* Guests go first. Dirty data is dropped. */
static inline void stack_free(struct stack *stack)
{
	cr_assert(cache_is_idle(stack->cache), "freed while something is under way");
	block_free(stack->cache);
	if (!stack->guest) {
		cr_assert_eq(stack->limits->used, 0, "retain's memory is still counted");
		cache_memory_free(stack->pages);
		cr_assert_eq(frames_kept(stack->frames), 0, "frames are still kept");
		cr_assert_eq(frames_in_use(stack->frames), 0, "frames are still held");
		frames_free(stack->frames);
		cr_assert_eq(pool_in_use(stack->pool), 0, "memory was not returned");
		pool_free(stack->pool);
		loop_free(stack->loop);
	}
	g_free(stack);
}

/* ---- requests ---- */

/* A READ that was lent its data has it in one piece from here on. */
static inline void request_collect(struct request *request)
{
	const struct io *io = &request->io;
	uint64_t at = 0;

	for (int i = 0; i < io->niov; i++) {
		cr_assert(io->iov[i].iov_len > 0 && io->iov[i].iov_len <= io->length - at,
		    "more is lent than was asked for");
		memcpy(request->data + at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	cr_assert_eq(at, io->length, "%lu bytes are lent, not %lu", (unsigned long)at,
	    (unsigned long)io->length);
}

static inline void request_done(struct io *io, int error)
{
	struct request *request = (struct request *)io;
	struct stack *stack = request->stack;

	cr_assert_eq(stack->calls, 0, "%s is done from inside submit", io_op_name(io->op));
	cr_assert_eq(request->error, PENDING, "done twice");
	request->error = error;
	request->order = ++stack->done;
	if (io->op == IO_READ && (io->flags & IO_LEND) && !error)
		request_collect(request);
	/* The data is the submitter's again; but what lies in frames never changes. */
	if (io->op == IO_WRITE && !request->frames)
		memset(request->data, 0xee, io->length);
	if (request->frames)
		frames_release(stack->frames, request->frames, io->length);
}

static inline void request_submit(struct request *request)
{
	request->stack->calls++;
	block_submit(request->stack->cache, &request->io);
	request->stack->calls--;
}

static inline struct request *request_new(struct stack *stack, enum io_op op, uint64_t offset,
    uint64_t length, uint8_t fill, uint32_t flags)
{
	struct request *request = g_new0(struct request, 1);
	bool data = (op == IO_READ || op == IO_WRITE) && !(flags & IO_LEND);

	request->data = g_malloc(length + 1);
	memset(request->data, fill, length);
	request->iov = (struct iovec){request->data, length};
	request->stack = stack;
	request->error = PENDING;
	request->io = (struct io){
	    .op = op,
	    .flags = flags,
	    .offset = offset,
	    .length = length,
	    .iov = data ? &request->iov : NULL,
	    .niov = data,
	    .done = request_done,
	    .cancelled = &request->cancelled,
	};
	return request;
}

static inline struct request *submit_flags(struct stack *stack, enum io_op op, uint64_t offset,
    uint64_t length, uint8_t fill, uint32_t flags)
{
	struct request *request = request_new(stack, op, offset, length, fill, flags);

	request_submit(request);
	return request;
}

static inline struct request *submit(
    struct stack *stack, enum io_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
	return submit_flags(stack, op, offset, length, fill, 0);
}

static inline struct request *submit_flush(struct stack *stack)
{
	return submit(stack, IO_FLUSH, 0, 0, 0);
}

/* As fs does: the data lies in frames, `shift` bytes into the first. */
static inline struct request *submit_from_frames(
    struct stack *stack, uint64_t offset, uint64_t length, uint8_t fill, size_t shift)
{
	struct request *request = request_new(stack, IO_WRITE, offset, length, fill, 0);
	unsigned needed = (unsigned)((shift + length + FRAME_SIZE - 1) / FRAME_SIZE);
	uint8_t *run;

	cr_assert_eq(frames_get(stack->frames, needed, &run), needed);
	request->frames = run + shift;
	memset(request->frames, fill, length);
	request->iov.iov_base = request->frames;
	request_submit(request);
	return request;
}

/* A READ by a reader whose read-ahead is watched. */
static inline struct request *submit_read_by(
    struct stack *stack, uint64_t reader, uint64_t offset, uint64_t length)
{
	struct request *request = request_new(stack, IO_READ, offset, length, 0x77, 0);

	request->io.reader = reader;
	request_submit(request);
	return request;
}

static inline bool is_done(const struct request *request)
{
	return request->error != PENDING;
}

static inline int end(struct request *request)
{
	int error = request->error;

	cr_assert_neq(error, PENDING, "%s is not done", io_op_name(request->io.op));
	g_free(request->data);
	g_free(request);
	return error;
}

/* ---- what goes on ---- */

static inline void turn(struct stack *stack)
{
	for (int i = 0; i < 5; i++)
		g_main_context_iteration(loop_context(stack->loop), FALSE);
}

static inline void step(struct stack *stack)
{
	cr_assert(memory_block_step(stack->memory), "nothing is in flight");
}

static inline void step_all(struct stack *stack)
{
	do {
		memory_block_step_all(stack->memory);
		turn(stack);
	} while (memory_block_in_flight(stack->memory));
}

/* Time passes; below nothing is done. */
static inline void wait_ms(struct stack *stack, unsigned ms)
{
	for (int64_t until = clock_ms() + ms; clock_ms() < until; g_usleep(500))
		turn(stack);
}

/* Time passes while below all is done, until it is idle, or up to 10 s. */
static inline void settle(struct stack *stack)
{
	int64_t until = clock_ms() + (int64_t)(patience(10) * 1000);

	for (step_all(stack); !cache_is_idle(stack->cache) && clock_ms() < until; g_usleep(500))
		step_all(stack);
	cr_assert(cache_is_idle(stack->cache), "it never comes to rest");
}

static inline int run(struct request *request)
{
	struct stack *stack = request->stack;
	int64_t until = clock_ms() + (int64_t)(patience(10) * 1000);

	for (step_all(stack); !is_done(request) && clock_ms() < until; g_usleep(500))
		step_all(stack);
	return end(request);
}

static inline void write_ok(struct stack *stack, uint64_t offset, uint64_t length, uint8_t fill)
{
	cr_assert_eq(run(submit(stack, IO_WRITE, offset, length, fill)), 0);
}

/* A WRITE that is done though nothing goes on below. */
static inline void write_back_ok(
    struct stack *stack, uint64_t offset, uint64_t length, uint8_t fill)
{
	struct request *write = submit(stack, IO_WRITE, offset, length, fill);

	turn(stack);
	cr_assert(is_done(write), "WRITE %lu+%lu waits for the target", (unsigned long)offset,
	    (unsigned long)length);
	cr_assert_eq(end(write), 0);
}

static inline void flush_ok(struct stack *stack)
{
	cr_assert_eq(run(submit_flush(stack)), 0);
}

static inline void read_ok(struct stack *stack, uint64_t offset, uint64_t length)
{
	cr_assert_eq(run(submit(stack, IO_READ, offset, length, 0x77)), 0);
}

static inline void raise_event(struct stack *stack, enum block_event event)
{
	block_raise(&stack->memory->block, event);
}

/* The target restarts and has lost all that is not stable: as chance would have it at its worst. */
static inline void crash(struct stack *stack)
{
	memory_block_fill(stack->memory, memory_block_stable(stack->memory));
	memory_block_crash(stack->memory, -ESTALE);
}

/* ---- expectations ---- */

static inline void expect_bytes(
    const uint8_t *bytes, uint64_t from, uint64_t length, uint8_t value, const char *where)
{
	for (uint64_t i = 0; i < length; i++)
		cr_assert_eq(bytes[i], value, "%s byte %lu is %u, not %u", where,
		    (unsigned long)(from + i), bytes[i], value);
}

static inline void expect_content(
    const struct stack *stack, uint64_t from, uint64_t length, uint8_t value)
{
	expect_bytes(stack->memory->content + from, from, length, value, "the target's");
}

static inline void expect_stable(
    const struct stack *stack, uint64_t from, uint64_t length, uint8_t value)
{
	expect_bytes(
	    memory_block_stable(stack->memory) + from, from, length, value, "the target's stable");
}

static inline void expect_request_read(struct request *read, uint8_t value)
{
	cr_assert(is_done(read));
	expect_bytes(read->data, read->io.offset, read->io.length, value,
	    read->io.flags & IO_LEND ? "the lent" : "the read");
	cr_assert_eq(end(read), 0);
}

static inline void expect_read_flags(
    struct stack *stack, uint64_t from, uint64_t length, uint8_t value, uint32_t flags)
{
	struct request *read = submit_flags(stack, IO_READ, from, length, 0x77, flags);

	for (int i = 0; !is_done(read) && i < 100; i++)
		step_all(stack);
	expect_request_read(read, value);
}

static inline void expect_read(struct stack *stack, uint64_t from, uint64_t length, uint8_t value)
{
	expect_read_flags(stack, from, length, value, 0);
	expect_read_flags(stack, from, length, value, IO_LEND);
}

/* What of op came below since the last look: "0+4096, 8192+512". */
static inline char *below_of(const struct stack *stack, enum io_op op)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < stack->memory->records->len; i++) {
		const struct memory_record *record = memory_block_record(stack->memory, i);
		if (record->op == op)
			g_string_append_printf(text, "%s%lu+%lu", text->len ? ", " : "",
			    (unsigned long)record->offset, (unsigned long)record->length);
	}
	return g_string_free(text, FALSE);
}

static inline void expect_below(struct stack *stack, enum io_op op, const char *expected)
{
	g_autofree char *came = below_of(stack, op);

	cr_assert_str_eq(
	    came, expected, "below came %ss: %s; not: %s", io_op_name(op), came, expected);
}

static inline void expect_nothing_below(struct stack *stack)
{
	turn(stack);
	cr_assert_eq(stack->memory->records->len, 0, "%u requests came below, the first a %s",
	    stack->memory->records->len, io_op_name(memory_block_record(stack->memory, 0)->op));
}

/* Bytes of all requests of op that came below since the last look. */
static inline uint64_t below_bytes(const struct stack *stack, enum io_op op)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < stack->memory->records->len; i++) {
		const struct memory_record *record = memory_block_record(stack->memory, i);
		if (record->op == op)
			bytes += record->length;
	}
	return bytes;
}

static inline void forget_below(struct stack *stack)
{
	memory_block_forget_records(stack->memory);
}

static inline uint64_t dirty(const struct stack *stack)
{
	return cache_stats(stack->cache)->dirty;
}

/* Writes until one is not done from memory. */
static inline struct request *write_until_it_waits(struct stack *stack, uint64_t *bytes)
{
	uint64_t size = stack->memory->block.size;

	for (*bytes = 0; *bytes < size; *bytes += 16 * B) {
		struct request *write = submit(stack, IO_WRITE, *bytes, 16 * B, 1);
		turn(stack);
		for (int i = 0; i < 100 && !is_done(write); i++) /* slowed down is not waiting */
			wait_ms(stack, 10);
		if (!is_done(write))
			return write;
		cr_assert_eq(end(write), 0);
	}
	return NULL;
}
