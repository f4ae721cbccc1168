/*
 * test_retain_stack.h - retain above a block made of memory, for the tests of test_retain_*.c.
 *
 * Nothing is completed below but by a test's own step (memory_block_hold), so what is in flight
 * when something is lost is what the test says.
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

enum { PENDING = 12345, B = 4096, SIZE = 4 << 20 };

struct stack {
	struct loop *loop;
	struct pool *pool;
	struct frames *frames; /* of its own limits */
	struct memory_block *memory;
	struct block *retain;
	struct retain_memory limits, *shared_limits;
	unsigned done, forgotten, lost;
};

struct request {
	struct io io;
	struct iovec iov;
	struct stack *stack;
	int error;
	unsigned order;
	bool cancelled;
	uint8_t *data;
};

static inline void stack_event(struct block *block, enum block_event event, void *data)
{
	struct stack *stack = data;

	(void)block;
	stack->forgotten += event == BLOCK_FORGOTTEN;
	stack->lost += event == BLOCK_LOST;
}

static inline struct stack *stack_new_with(bool keep, struct retain_memory *limits)
{
	struct stack *stack = g_new0(struct stack, 1);

	log_set_level(LOG_LEVEL_ERROR);
	stack->loop = loop_new();
	stack->pool = pool_new(1 << 20);
	stack->frames = frames_new(64 << 20, 1 << 20);
	stack->limits = (struct retain_memory){stack->frames, .limit = 64 << 20, .floor = 1 << 20};
	stack->shared_limits = limits ? limits : &stack->limits;
	stack->memory = memory_block_new(stack->loop, SIZE, 512);
	stack->memory->reads_overlap = true;
	stack->retain =
	    retain_new(&stack->memory->block, stack->loop, stack->shared_limits, "lun0", keep);
	stack->retain->on_event = stack_event;
	stack->retain->on_event_data = stack;
	memory_block_hold(stack->memory, true);
	return stack;
}

static inline struct stack *stack_new(void)
{
	return stack_new_with(true, NULL);
}

static inline void stack_free(struct stack *stack)
{
	size_t before = stack->shared_limits->used, own = retain_stats(stack->retain)->memory;

	block_free(stack->retain);
	cr_assert_eq(stack->shared_limits->used, before - own, "memory is still counted");
	cr_assert_eq(pool_in_use(stack->pool), 0, "memory was not returned");
	cr_assert_eq(frames_in_use(stack->frames), 0, "frames were not returned");
	frames_free(stack->frames);
	pool_free(stack->pool);
	loop_free(stack->loop);
	g_free(stack);
}

static inline void request_done(struct io *io, int error)
{
	struct request *request = (struct request *)io;

	cr_assert_eq(request->error, PENDING, "done twice");
	request->error = error;
	request->order = ++request->stack->done;
	/* The data is the submitter's again. */
	if (io->op == IO_WRITE)
		memset(request->data, 0xee, io->length);
}

static inline struct request *submit_flags(struct stack *stack, enum io_op op, uint64_t offset,
    uint64_t length, uint8_t fill, uint32_t flags)
{
	struct request *request = g_new0(struct request, 1);
	bool data = op == IO_READ || op == IO_WRITE;
	unsigned done = stack->done;

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
	block_submit(stack->retain, &request->io);
	cr_assert_eq(stack->done, done, "done from inside submit");
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

static inline void turn(struct stack *stack)
{
	for (int i = 0; i < 3; i++)
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

static inline int end(struct request *request)
{
	int error = request->error;

	cr_assert_neq(error, PENDING, "%s is not done", io_op_name(request->io.op));
	g_free(request->data);
	g_free(request);
	return error;
}

static inline int run(struct request *request)
{
	step_all(request->stack);
	return end(request);
}

static inline void write_ok(struct stack *stack, uint64_t offset, uint64_t length, uint8_t fill)
{
	cr_assert_eq(run(submit(stack, IO_WRITE, offset, length, fill)), 0);
}

static inline void flush_ok(struct stack *stack)
{
	cr_assert_eq(run(submit_flush(stack)), 0);
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

static inline void expect_content(
    const struct stack *stack, uint64_t from, uint64_t length, uint8_t value)
{
	for (uint64_t i = from; i < from + length; i++)
		cr_assert_eq(stack->memory->content[i], value, "byte %lu is %u, not %u",
		    (unsigned long)i, stack->memory->content[i], value);
}

static inline void expect_read(struct stack *stack, uint64_t from, uint64_t length, uint8_t value)
{
	struct request *read = submit(stack, IO_READ, from, length, 0x77);

	for (int i = 0; read->error == PENDING && i < 10; i++)
		step_all(stack);
	for (uint64_t i = 0; i < length; i++)
		cr_assert_eq(read->data[i], value, "byte %lu reads as %u, not %u",
		    (unsigned long)(from + i), read->data[i], value);
	cr_assert_eq(end(read), 0);
}

/* What came below since the last look: "WRITE 0+4096, FLUSH". */
static inline void expect_below(struct stack *stack, const char *expected)
{
	g_autoptr(GString) text = g_string_new(NULL);

	for (unsigned i = 0; i < stack->memory->records->len; i++) {
		const struct memory_record *record = memory_block_record(stack->memory, i);
		g_string_append_printf(text, "%s%s", i ? ", " : "", io_op_name(record->op));
		if (record->op != IO_FLUSH)
			g_string_append_printf(text, " %lu+%lu", (unsigned long)record->offset,
			    (unsigned long)record->length);
	}
	cr_assert_str_eq(text->str, expected, "below came: %s; not: %s", text->str, expected);
	memory_block_forget_records(stack->memory);
}

static inline uint64_t kept(const struct stack *stack)
{
	return retain_stats(stack->retain)->kept;
}
