/*
 * test_align.c - parts of blocks above a block made of memory: sentences, and a random test against
 * a shadow.
 */
#include "lunfs/block.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "lunfs/loop.h"
#include "lunfs/pool.h"
#include "support/memory_block.h"

#define PENDING 12345 /* no errno */
#define SIZE    (64u << 10)

struct stack {
	struct loop *loop;
	struct pool *pool;
	struct memory_block *memory;
	struct block *align;
	uint32_t block_size;
	unsigned done; /* requests, so far */
};

/* A request with its buffer and its outcome. */
struct request {
	struct io io;
	struct iovec iov;
	struct stack *stack;
	int error;
	unsigned order; /* of completion, from 1 */
	bool cancelled;
	uint8_t data[SIZE];
};

static struct stack stack_new(uint32_t block_size)
{
	struct stack stack = {
	    .loop = loop_new(), .pool = pool_new(1 << 20), .block_size = block_size};
	g_autofree uint8_t *content = g_malloc(SIZE);

	for (unsigned i = 0; i < SIZE; i++)
		content[i] = (uint8_t)(1 + i % 251);
	stack.memory = memory_block_new(stack.loop, SIZE, block_size);
	memory_block_fill(stack.memory, content);
	stack.align = align_new(&stack.memory->block, stack.loop, stack.pool);
	return stack;
}

static void stack_free(struct stack *stack)
{
	block_free(stack->align);
	cr_assert_eq(pool_in_use(stack->pool), 0, "scratch was not returned");
	pool_free(stack->pool);
	loop_free(stack->loop);
}

static void request_done(struct io *io, int error)
{
	struct request *request = (struct request *)io;

	cr_assert_eq(request->error, PENDING, "done twice");
	request->error = error;
	request->order = ++request->stack->done;
}

static struct request *request_new(
    struct stack *stack, enum io_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
	struct request *request = g_new0(struct request, 1);
	bool data = op == IO_READ || op == IO_WRITE;

	memset(request->data, fill, SIZE);
	request->iov = (struct iovec){request->data, length};
	request->stack = stack;
	request->error = PENDING;
	request->io = (struct io){
	    .op = op,
	    .offset = offset,
	    .length = length,
	    .iov = data ? &request->iov : NULL,
	    .niov = data,
	    .done = request_done,
	    .cancelled = &request->cancelled,
	};
	return request;
}

static void request_submit(struct request *request)
{
	unsigned done = request->stack->done;

	block_submit(request->stack->align, &request->io);
	cr_assert_eq(request->stack->done, done, "done from inside submit");
}

static struct request *stack_submit(
    struct stack *stack, enum io_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
	struct request *request = request_new(stack, op, offset, length, fill);
	request_submit(request);
	return request;
}

static void stack_turn(struct stack *stack)
{
	g_main_context_iteration(loop_context(stack->loop), FALSE);
}

static int request_end(struct request *request)
{
	int error;

	for (int i = 0; request->error == PENDING && i < 100; i++)
		stack_turn(request->stack);
	cr_assert_neq(request->error, PENDING, "it never ends");
	error = request->error;
	g_free(request);
	return error;
}

static int stack_run(
    struct stack *stack, enum io_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
	return request_end(stack_submit(stack, op, offset, length, fill));
}

static void expect_record(
    struct stack *stack, unsigned index, enum io_op op, uint64_t offset, uint64_t length)
{
	const struct memory_record *record = memory_block_record(stack->memory, index);

	cr_assert(record->op == op && record->offset == offset && record->length == length,
	    "request %u below is %s %lu+%lu, not %s %lu+%lu", index, io_op_name(record->op),
	    (unsigned long)record->offset, (unsigned long)record->length, io_op_name(op),
	    (unsigned long)offset, (unsigned long)length);
}

static void expect_bytes(const struct stack *stack, unsigned from, unsigned to, int value)
{
	for (unsigned i = from; i < to; i++) {
		int expected = value < 0 ? (int)(1 + i % 251) : value;
		cr_assert_eq(stack->memory->content[i], expected, "byte %u is %u, not %d", i,
		    stack->memory->content[i], expected);
	}
}

/* ---- shapes ---- */

Test(align, tells_any_offset_and_keeps_the_other_limits)
{
	struct stack stack = stack_new(4096);

	cr_assert_eq(stack.align->limits.block_size, 1);
	cr_assert_eq(stack.align->limits.optimal_size, stack.memory->block.limits.optimal_size);
	cr_assert(stack.align->limits.fua && stack.align->limits.volatile_cache);
	cr_assert_eq(stack.align->size, SIZE);
	stack_free(&stack);
}

Test(align, whole_blocks_go_below_as_they_came)
{
	struct stack stack = stack_new(512);
	struct request *write = request_new(&stack, IO_WRITE, 512, 1024, 0xaa);

	memory_block_hold(stack.memory, true);
	write->io.flags = IO_FUA;
	request_submit(write);
	const struct io *below = memory_block_peek(stack.memory, 0);
	cr_assert(below->iov == &write->iov && below->niov == 1 && below->flags == IO_FUA);
	expect_record(&stack, 0, IO_WRITE, 512, 1024);
	memory_block_step_all(stack.memory);
	cr_assert_eq(request_end(write), 0);
	expect_bytes(&stack, 512, 1536, 0xaa);
	cr_assert_eq(stack.memory->records->len, 1);
	stack_free(&stack);
}

Test(align, a_read_of_parts_is_one_request_into_the_readers_own_buffer)
{
	struct stack stack = stack_new(512);
	struct request *read = request_new(&stack, IO_READ, 700, 1000, 0);

	memory_block_hold(stack.memory, true);
	request_submit(read);
	const struct io *below = memory_block_peek(stack.memory, 0);
	cr_assert_eq(below->niov, 3);
	cr_assert_eq(below->iov[1].iov_base, read->data, "the payload is copied");
	expect_record(&stack, 0, IO_READ, 512, 1536);
	memory_block_step_all(stack.memory);
	cr_assert_eq(read->error, 0);
	cr_assert_eq(memcmp(read->data, stack.memory->content + 700, 1000), 0);
	cr_assert_eq(read->data[1000], 0, "bytes behind the buffer were touched");
	request_end(read);
	stack_free(&stack);
}

Test(align, a_write_reads_only_the_blocks_it_covers_in_part)
{
	struct stack stack = stack_new(512);

	/* inside one block: one read; both edges of neighbours: one read; far edges: two; one edge:
	 * one */
	cr_assert_eq(stack_run(&stack, IO_WRITE, 600, 10, 0xaa), 0);
	expect_record(&stack, 0, IO_READ, 512, 512);
	expect_record(&stack, 1, IO_WRITE, 512, 512);
	cr_assert_eq(stack_run(&stack, IO_WRITE, 1500, 100, 0xbb), 0);
	expect_record(&stack, 2, IO_READ, 1024, 1024);
	expect_record(&stack, 3, IO_WRITE, 1024, 1024);
	cr_assert_eq(stack_run(&stack, IO_WRITE, 2100, 1500, 0xcc), 0);
	expect_record(&stack, 4, IO_READ, 2048, 512);
	expect_record(&stack, 5, IO_READ, 3584, 512);
	expect_record(&stack, 6, IO_WRITE, 2048, 2048);
	cr_assert_eq(stack_run(&stack, IO_WRITE, 5120, 600, 0xee), 0);
	expect_record(&stack, 7, IO_READ, 5632, 512);
	expect_record(&stack, 8, IO_WRITE, 5120, 1024);
	cr_assert_eq(stack_run(&stack, IO_WRITE, 6600, 568, 0xef), 0);
	expect_record(&stack, 9, IO_READ, 6144, 512);
	expect_record(&stack, 10, IO_WRITE, 6144, 1024);
	cr_assert_eq(stack.memory->records->len, 11);

	const unsigned written[][3] = {{600, 610, 0xaa}, {1500, 1600, 0xbb}, {2100, 3600, 0xcc},
	    {5120, 5720, 0xee}, {6600, 7168, 0xef}};
	unsigned at = 0;
	for (unsigned i = 0; i < G_N_ELEMENTS(written); i++) {
		expect_bytes(&stack, at, written[i][0], -1);
		expect_bytes(&stack, written[i][0], written[i][1], (int)written[i][2]);
		at = written[i][1];
	}
	expect_bytes(&stack, at, SIZE, -1);
	stack_free(&stack);
}

Test(align, zeroing_writes_the_edges_and_zeroes_the_blocks_between)
{
	struct stack stack = stack_new(512);

	cr_assert_eq(stack_run(&stack, IO_ZERO, 500, 2000, 0), 0);
	cr_assert_eq(memory_block_count(stack.memory, IO_READ), 2);
	cr_assert_eq(memory_block_count(stack.memory, IO_WRITE), 2);
	expect_record(&stack, 4, IO_ZERO, 512, 1536);
	expect_bytes(&stack, 0, 500, -1);
	expect_bytes(&stack, 500, 2500, 0);
	expect_bytes(&stack, 2500, SIZE, -1);

	memory_block_forget_records(stack.memory);
	cr_assert_eq(stack_run(&stack, IO_ZERO, 4096 + 7, 100, 0), 0);
	cr_assert_eq(stack_run(&stack, IO_ZERO, 8192 - 7, 14, 0), 0);
	cr_assert_eq(memory_block_count(stack.memory, IO_ZERO), 0, "there are no blocks between");
	expect_bytes(&stack, 2500, 4103, -1);
	expect_bytes(&stack, 4103, 4203, 0);
	expect_bytes(&stack, 4203, 8185, -1);
	expect_bytes(&stack, 8185, 8199, 0);
	expect_bytes(&stack, 8199, SIZE, -1);
	stack_free(&stack);
}

Test(align, discards_only_blocks_that_are_covered_whole)
{
	struct stack stack = stack_new(512);

	cr_assert_eq(stack_run(&stack, IO_DISCARD, 500, 2000, 0), 0);
	expect_record(&stack, 0, IO_DISCARD, 512, 1536);
	expect_bytes(&stack, 0, 512, -1);
	expect_bytes(&stack, 512, 2048, MEMORY_DISCARDED);
	expect_bytes(&stack, 2048, SIZE, -1);
	cr_assert_eq(stack_run(&stack, IO_DISCARD, 5000, 100, 0), 0);
	cr_assert_eq(stack_run(&stack, IO_DISCARD, 5121, 1022, 0), 0);
	cr_assert_eq(
	    stack.memory->records->len, 1, "what covers no whole block is done without the target");
	stack_free(&stack);
}

Test(align, requests_out_of_bounds_end_with_einval_and_empty_ones_with_0)
{
	struct stack stack = stack_new(512);

	cr_assert_eq(stack_run(&stack, IO_READ, SIZE - 10, 11, 0), -EINVAL);
	cr_assert_eq(stack_run(&stack, IO_READ, UINT64_MAX - 1, 4, 0), -EINVAL);
	cr_assert_eq(stack_run(&stack, IO_ZERO, 0, UINT64_MAX, 0), -EINVAL);
	cr_assert_eq(stack_run(&stack, IO_WRITE, 100, 0, 0), 0);
	cr_assert_eq(stack_run(&stack, IO_MAP, 0, 10, 0), -EOPNOTSUPP);
	cr_assert_eq(stack.memory->records->len, 0);
	cr_assert_eq(stack_run(&stack, IO_READ, SIZE - 10, 10, 0), 0);
	stack_free(&stack);
}

Test(align, more_iovecs_than_fuse_ever_gives_pass_whole)
{
	struct stack stack = stack_new(4096);
	struct request *write = request_new(&stack, IO_WRITE, 5, 257 * 20, 0);
	struct iovec iov[257];

	for (unsigned i = 0; i < 257; i++) {
		iov[i] = (struct iovec){write->data + 20 * i, 20};
		memset(iov[i].iov_base, (int)(i % 256), 20);
	}
	write->io.iov = iov;
	write->io.niov = 257;
	request_submit(write);
	cr_assert_eq(request_end(write), 0);
	for (unsigned i = 0; i < 257; i++)
		expect_bytes(&stack, 5 + 20 * i, 25 + 20 * i, (int)(i % 256));
	expect_bytes(&stack, 5 + 20 * 257, SIZE, -1);
	stack_free(&stack);
}

Test(align, fua_stays_with_every_part_that_writes)
{
	struct stack stack = stack_new(512);
	struct request *zero = request_new(&stack, IO_ZERO, 100, 2000, 0);

	zero->io.flags = IO_FUA;
	request_submit(zero);
	cr_assert_eq(request_end(zero), 0);
	for (unsigned i = 0; i < stack.memory->records->len; i++) {
		const struct memory_record *record = memory_block_record(stack.memory, i);
		cr_assert_eq(record->flags, record->op == IO_READ ? 0 : IO_FUA);
	}
	memory_block_crash(stack.memory, -EIO);
	expect_bytes(&stack, 100, 2100, 0);
	stack_free(&stack);
}

/* ---- order ---- */

Test(align, two_writers_to_one_block_never_undo_each_other)
{
	struct stack stack = stack_new(4096);
	struct request *writers[64];

	memory_block_shuffle(stack.memory, 7);
	for (unsigned i = 0; i < 64; i++)
		writers[i] = stack_submit(&stack, IO_WRITE, 64 * i, 64, (uint8_t)(100 + i));
	for (unsigned i = 0; i < 64; i++) {
		for (int turns = 0; writers[i]->error == PENDING && turns < 1000; turns++)
			stack_turn(&stack);
		cr_assert_eq(request_end(writers[i]), 0);
	}
	for (unsigned i = 0; i < 64; i++)
		expect_bytes(&stack, 64 * i, 64 * i + 64, (int)(100 + i));
	expect_bytes(&stack, 4096, SIZE, -1);
	stack_free(&stack);
}

Test(align, the_second_of_two_overlapping_writes_is_not_sent_before_the_first_is_done)
{
	struct stack stack = stack_new(512);

	memory_block_hold(stack.memory, true);
	struct request *first = stack_submit(&stack, IO_WRITE, 0, 1024, 1);
	struct request *second = stack_submit(&stack, IO_WRITE, 512, 1024, 2);
	struct request *apart = stack_submit(&stack, IO_WRITE, 1536, 512, 3);
	stack_turn(&stack);
	cr_assert_eq(memory_block_in_flight(stack.memory), 2);
	cr_assert_eq(memory_block_peek(stack.memory, 1)->offset, 1536);
	memory_block_step(stack.memory);
	cr_assert_eq(first->error, 0);
	cr_assert_eq(memory_block_in_flight(stack.memory), 2);
	memory_block_step_all(stack.memory);
	cr_assert(request_end(first) == 0 && request_end(second) == 0 && request_end(apart) == 0);
	expect_bytes(&stack, 512, 1536, 2);
	stack_free(&stack);
}

Test(align, an_interrupted_write_that_was_sent_keeps_its_place_until_it_is_done)
{
	struct stack stack = stack_new(512);

	memory_block_hold(stack.memory, true);
	struct request *first = stack_submit(&stack, IO_WRITE, 0, 512, 1);
	struct request *second = stack_submit(&stack, IO_WRITE, 0, 512, 2);
	first->cancelled = true;
	stack_turn(&stack);
	cr_assert(
	    io_is_cancelled(memory_block_peek(stack.memory, 0)), "the layer below does not see it");
	cr_assert_eq(memory_block_in_flight(stack.memory), 1);
	cr_assert_eq(first->error, PENDING);
	memory_block_step_all(stack.memory);
	cr_assert(request_end(first) == 0 && request_end(second) == 0);
	expect_bytes(&stack, 0, 512, 2);
	stack_free(&stack);
}

Test(align, an_interrupted_write_that_waits_is_never_sent)
{
	struct stack stack = stack_new(512);

	memory_block_hold(stack.memory, true);
	struct request *first = stack_submit(&stack, IO_WRITE, 0, 512, 1);
	struct request *second = stack_submit(&stack, IO_WRITE, 0, 512, 2);
	struct request *third = stack_submit(&stack, IO_READ, 0, 512, 0);
	second->cancelled = true;
	memory_block_step(stack.memory);
	cr_assert_eq(memory_block_in_flight(stack.memory), 1);
	cr_assert_eq(memory_block_peek(stack.memory, 0)->op, IO_READ);
	memory_block_step_all(stack.memory);
	cr_assert_eq(third->data[0], 1);
	cr_assert(
	    request_end(first) == 0 && request_end(second) == -EINTR && request_end(third) == 0);
	struct request *late = request_new(&stack, IO_WRITE, 0, 512, 3);
	late->cancelled = true;
	request_submit(late);
	cr_assert_eq(request_end(late), -EINTR);
	cr_assert_eq(stack.memory->records->len, 2);
	stack_free(&stack);
}

Test(align, an_interrupted_write_whose_edges_were_read_is_not_written)
{
	struct stack stack = stack_new(512);

	memory_block_hold(stack.memory, true);
	struct request *write = stack_submit(&stack, IO_WRITE, 100, 100, 1);
	write->cancelled = true;
	memory_block_step_all(stack.memory);
	cr_assert_eq(request_end(write), -EINTR);
	cr_assert_eq(memory_block_count(stack.memory, IO_WRITE), 0);
	expect_bytes(&stack, 0, SIZE, -1);
	stack_free(&stack);
}

Test(align, flush_waits_for_writes_submitted_before_it)
{
	struct stack stack = stack_new(512);

	memory_block_hold(stack.memory, true);
	struct request *reader = stack_submit(&stack, IO_READ, 4096, 512, 0);
	struct request *write = stack_submit(&stack, IO_WRITE, 10, 10, 0xaa);
	struct request *waiting = stack_submit(&stack, IO_WRITE, 20, 10, 0xbb);
	struct request *flush = stack_submit(&stack, IO_FLUSH, 0, 0, 0);
	struct request *later = stack_submit(&stack, IO_WRITE, 8192, 512, 0xcc);
	while (write->error == PENDING || waiting->error == PENDING) {
		cr_assert_eq(memory_block_count(stack.memory, IO_FLUSH), 0,
		    "sent before the writes were done");
		cr_assert(memory_block_step(stack.memory));
	}
	cr_assert_eq(memory_block_count(stack.memory, IO_FLUSH), 1);
	memory_block_step_all(stack.memory);
	cr_assert(write->order < flush->order && waiting->order < flush->order);
	cr_assert(request_end(reader) == 0 && request_end(write) == 0 && request_end(waiting) == 0);
	cr_assert(request_end(flush) == 0 && request_end(later) == 0);
	memory_block_crash(stack.memory, -EIO);
	expect_bytes(&stack, 10, 20, 0xaa);
	expect_bytes(&stack, 20, 30, 0xbb);
	stack_free(&stack);
}

Test(align, flush_does_not_wait_for_later_writes_or_for_reads)
{
	struct stack stack = stack_new(512);

	memory_block_hold(stack.memory, true);
	struct request *read = stack_submit(&stack, IO_READ, 0, 512, 0);
	struct request *write = stack_submit(&stack, IO_WRITE, 0, 512, 1);
	struct request *flush = stack_submit(&stack, IO_FLUSH, 0, 0, 0);
	cr_assert_eq(memory_block_count(stack.memory, IO_FLUSH), 0);
	memory_block_step(stack.memory);
	struct request *later = stack_submit(&stack, IO_WRITE, 1024, 512, 2);
	struct request *reader = stack_submit(&stack, IO_READ, 2048, 512, 2);
	cr_assert_eq(memory_block_in_flight(stack.memory), 3, "a flush that waits holds up others");
	cr_assert_eq(memory_block_peek(stack.memory, 0)->op, IO_WRITE);
	memory_block_step(stack.memory);
	cr_assert_eq(write->error, 0);
	cr_assert_eq(memory_block_count(stack.memory, IO_FLUSH), 1);
	memory_block_step_all(stack.memory);
	cr_assert(request_end(read) == 0 && request_end(write) == 0 && request_end(flush) == 0);
	cr_assert(request_end(later) == 0 && request_end(reader) == 0);
	stack_free(&stack);
}

struct chain {
	struct request *first, *second;
	bool second_was_sent;
};

static struct chain chain;

static void chain_done(struct io *io, int error)
{
	struct stack *stack = chain.first->stack;

	request_done(io, error);
	chain.second_was_sent = memory_block_count(stack->memory, IO_WRITE) == 2;
}

Test(align, the_range_is_released_before_done)
{
	struct stack stack = stack_new(512);

	chain.first = request_new(&stack, IO_WRITE, 0, 512, 1);
	chain.first->io.done = chain_done;
	request_submit(chain.first);
	chain.second = stack_submit(&stack, IO_WRITE, 0, 512, 2);
	cr_assert_eq(request_end(chain.first), 0);
	cr_assert(chain.second_was_sent);
	cr_assert_eq(request_end(chain.second), 0);
	stack_free(&stack);
}

/* ---- errors and events ---- */

Test(align, the_first_error_of_any_part_ends_the_request_after_all_parts)
{
	/* A ZERO with both edges apart is two reads, two writes and a ZERO below. */
	for (unsigned nth = 0; nth < 5; nth++) {
		struct stack stack = stack_new(512);
		memory_block_fail(stack.memory, nth, -ENOSPC);
		memory_block_shuffle(stack.memory, nth);
		struct request *zero = stack_submit(&stack, IO_ZERO, 500, 2000, 0);
		struct request *next = stack_submit(&stack, IO_WRITE, 400, 3000, 0xaa);
		cr_assert_eq(request_end(zero), -ENOSPC, "with request %u", nth);
		cr_assert_eq(memory_block_count(stack.memory, IO_ZERO), nth < 2 ? 0 : 1);
		cr_assert_eq(request_end(next), 0, "the range was not released");
		expect_bytes(&stack, 400, 3400, 0xaa);
		stack_free(&stack);
	}
}

Test(align, of_two_errors_the_first_is_told)
{
	struct stack stack = stack_new(512);

	memory_block_hold(stack.memory, true);
	memory_block_fail(stack.memory, 0, -ENOSPC);
	struct request *write = stack_submit(&stack, IO_WRITE, 500, 2000, 0xaa);
	memory_block_step(stack.memory);
	cr_assert_eq(write->error, PENDING, "a part is still in flight");
	memory_block_crash(stack.memory, -ESTALE);
	cr_assert_eq(request_end(write), -ENOSPC);
	stack_free(&stack);
}

Test(align, a_failed_read_of_an_edge_writes_nothing)
{
	struct stack stack = stack_new(512);

	memory_block_fail(stack.memory, 0, -EIO);
	cr_assert_eq(stack_run(&stack, IO_WRITE, 10, 10, 1), -EIO);
	cr_assert_eq(memory_block_count(stack.memory, IO_WRITE), 0);
	expect_bytes(&stack, 0, SIZE, -1);
	stack_free(&stack);
}

static unsigned heard[BLOCK_BACK + 1];

static void event_heard(struct block *block, enum block_event event, void *data)
{
	cr_assert_eq(block, data);
	heard[event]++;
}

Test(align, events_from_below_reach_the_top_with_size_and_epoch)
{
	struct stack stack = stack_new(512);

	stack.align->on_event = event_heard;
	stack.align->on_event_data = stack.align;
	stack.memory->block.size = SIZE / 2;
	block_raise(&stack.memory->block, BLOCK_RESIZED);
	cr_assert_eq(stack.align->size, SIZE / 2);
	cr_assert_eq(stack_run(&stack, IO_READ, SIZE / 2, 1, 0), -EINVAL);
	stack.memory->block.size = SIZE;
	block_raise(&stack.memory->block, BLOCK_RESIZED);
	cr_assert_eq(stack_run(&stack, IO_READ, SIZE / 2, 1, 0), 0);
	block_raise(&stack.memory->block, BLOCK_LOST);
	block_raise(&stack.memory->block, BLOCK_LOST);
	cr_assert(stack.align->epoch == 2 && stack.memory->block.epoch == 2);
	cr_assert(heard[BLOCK_RESIZED] == 2 && heard[BLOCK_LOST] == 2 && heard[BLOCK_GONE] == 0);
	stack_free(&stack);
}
