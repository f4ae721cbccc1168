/*
 * test_cache_memory.c - what cache promises of its memory, of what it tells, and of requests that
 * are cancelled, a sentence each.
 */
#include "unit/test_cache_stack.h"

/* ---- memory ---- */

/* Up to so much more than the limit may be kept: what was on its way when it was reached. */
enum { SLACK = 256 << 10 };

Test(safety_08, never_more_than_the_limit_is_kept)
{
	struct stack *stack = stack_new_with(
	    &(struct stack_options){.limit = 2 << 20, .size = 16 << 20, .readahead = 512 << 10});
	g_autoptr(GRand) random = g_rand_new_with_seed(1);
	size_t most = 0;

	for (unsigned i = 0; i < 20 << 20; i += 8 * B) {
		uint64_t at = (uint64_t)g_rand_int_range(random, 0, (16 << 20) - 8 * B);
		enum io_op op = i / B & 8 ? IO_WRITE : IO_READ;
		struct request *request = submit(stack, op, at, 8 * B, 1);
		for (int j = 0; j < 5000 && !is_done(request); j++) {
			most = MAX(most, frames_kept(stack->frames));
			if (!memory_block_step(stack->memory))
				g_usleep(1000);
			g_main_context_iteration(loop_context(stack->loop), FALSE);
		}
		most = MAX(most, frames_kept(stack->frames));
		cr_assert_eq(end(request), 0);
	}
	cr_assert_leq(most, (2 << 20) + SLACK);
	cr_assert_geq(most, 1 << 20, "only %zu bytes are used", most);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_08, never_more_than_the_limit_is_kept_of_a_sequential_writer)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.limit = 2 << 20, .size = 32 << 20});
	size_t most = 0;

	for (uint64_t at = 0; at < 32 << 20; at += 32 * B) {
		struct request *write = submit_from_frames(stack, at, 32 * B, 1, 0);
		for (int j = 0; j < 5000 && !is_done(write); j++) {
			most = MAX(most, frames_kept(stack->frames));
			if (!memory_block_step(stack->memory))
				g_usleep(1000);
			g_main_context_iteration(loop_context(stack->loop), FALSE);
		}
		cr_assert_eq(end(write), 0);
	}
	cr_assert_leq(most, (2 << 20) + SLACK);
	flush_ok(stack);
	expect_stable(stack, 0, 32 << 20, 1);
	stack_free(stack);
}

Test(safety_18, a_dead_lun_whose_dirty_data_fills_the_memory_stops_no_other)
{
	struct stack *dead =
	    stack_new_with(&(struct stack_options){.limit = 2 << 20, .size = 16 << 20});
	struct stack *other =
	    stack_new_with(&(struct stack_options){.beside = dead, .size = 16 << 20});
	uint64_t bytes;
	struct request *stuck = write_until_it_waits(dead, &bytes);

	cr_assert(stuck, "all is dirty in 2 MiB of memory");
	for (uint64_t at = 0; at < 16 << 20; at += 16 * B)
		write_ok(other, at, 16 * B, (uint8_t)(at >> 16));
	for (uint64_t at = 0; at < 16 << 20; at += 16 * B)
		expect_read_flags(other, at, 16 * B, (uint8_t)(at >> 16), IO_LEND);
	flush_ok(other);
	cr_assert_leq(frames_kept(dead->frames), (2 << 20) + SLACK);
	cr_assert(!is_done(stuck));
	cr_assert_eq(run(stuck), 0);
	flush_ok(dead);
	expect_stable(dead, 0, bytes, 1);
	for (uint64_t at = 0; at < 16 << 20; at += 16 * B)
		expect_stable(other, at, 16 * B, (uint8_t)(at >> 16));
	stack_free(other);
	stack_free(dead);
}

Test(cache, a_lun_that_is_closed_gives_its_memory_to_the_others)
{
	struct stack *first =
	    stack_new_with(&(struct stack_options){.limit = 2 << 20, .size = 16 << 20});
	struct stack *second =
	    stack_new_with(&(struct stack_options){.beside = first, .size = 16 << 20});

	for (uint64_t at = 0; at < 4 << 20; at += 16 * B)
		read_ok(second, at, 16 * B);
	cr_assert_gt(cache_stats(second->cache)->cached, 0);
	stack_free(second);
	cr_assert_eq(frames_kept(first->frames), 0);
	for (uint64_t at = 0; at < 4 << 20; at += 16 * B)
		read_ok(first, at, 16 * B);
	stack_free(first);
}

Test(cache, a_write_larger_than_all_memory_is_done)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.limit = 256 << 10, .size = 16 << 20});

	cr_assert_eq(run(submit(stack, IO_WRITE, 100, 2 << 20, 1)), 0);
	expect_read(stack, 100, 1 << 20, 1);
	expect_read_flags(stack, 100, 2 << 20, 1, 0);
	flush_ok(stack);
	expect_stable(stack, 100, 2 << 20, 1);
	stack_free(stack);
}

/* Both edges are read, and the one must not go for the other. */
Test(cache, a_write_of_parts_of_blocks_is_done_though_others_keep_all_memory)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.limit = 256 << 10, .block_size = 4096});
	uint8_t *others;
	unsigned count = frames_get(stack->frames, 64, &others);

	frames_keep(stack->frames, others, count * FRAME_SIZE);
	frames_release(stack->frames, others, count * FRAME_SIZE);
	struct request *write = submit(stack, IO_WRITE, 100, 3 * B, 1);
	for (int i = 0; i < 200 && !is_done(write); i++) {
		turn(stack);
		memory_block_step(stack->memory);
	}
	cr_assert(is_done(write), "%u READs, and still it waits",
	    memory_block_count(stack->memory, IO_READ));
	cr_assert_eq(end(write), 0);
	frames_let_go(stack->frames, others, count * FRAME_SIZE);
	flush_ok(stack);
	expect_stable(stack, 100, 3 * B, 1);
	stack_free(stack);
}

/* ---- what it tells ---- */

struct told {
	uint64_t bytes, end;
	bool pages[1024];
};

static void tell(uint64_t start, uint64_t end, void *data)
{
	struct told *told = data;

	cr_assert_lt(start, end);
	told->bytes += end - start;
	told->end = MAX(told->end, end);
	for (uint64_t at = start; at < end; at += S)
		told->pages[at / B] = true;
}

static void expect_told(struct stack *stack, uint64_t bytes, uint64_t reach)
{
	struct told told = {0};

	cache_each_dirty(stack->cache, tell, &told);
	cr_assert_eq(told.bytes, bytes, "%lu bytes are told of", (unsigned long)told.bytes);
	cr_assert_eq(told.end, reach);
	cr_assert_eq(cache_reach(stack->cache), reach);
	cr_assert_eq(dirty(stack), bytes);
}

Test(cache, it_tells_what_is_dirty_and_how_far_that_reaches)
{
	struct stack *stack = stack_new();

	expect_told(stack, 0, 0);
	write_back_ok(stack, 8 * B, 2 * B, 1);
	write_back_ok(stack, 100 * B + S, S, 1);
	write_back_ok(stack, B, B, 1);
	expect_told(stack, 3 * B + S, 100 * B + 2 * S);
	struct request *flush = submit_flush(stack);
	turn(stack);
	expect_told(stack, 3 * B + S, 100 * B + 2 * S); /* not at the target yet */
	cr_assert_eq(cache_stats(stack->cache)->in_flight, 3 * B + S);
	cr_assert_eq(run(flush), 0);
	expect_told(stack, 0, 0);
	cr_assert_eq(cache_stats(stack->cache)->in_flight, 0);
	cr_assert_eq(cache_stats(stack->cache)->cached, 4 * B);
	stack_free(stack);
}

Test(cache, it_is_idle_when_nothing_is_under_way)
{
	struct stack *stack = stack_new();

	cr_assert(cache_is_idle(stack->cache));
	struct request *read = submit(stack, IO_READ, 0, B, 0);
	cr_assert(!cache_is_idle(stack->cache));
	cr_assert_eq(run(read), 0);
	cr_assert(cache_is_idle(stack->cache));
	struct request *write = submit(stack, IO_WRITE, B, B, 1);
	cr_assert(!cache_is_idle(stack->cache), "its done() is still to come");
	turn(stack);
	cr_assert_eq(end(write), 0);
	cr_assert(cache_is_idle(stack->cache), "dirty data may be left");
	struct request *flush = submit_flush(stack);
	turn(stack);
	cr_assert(!cache_is_idle(stack->cache));
	cr_assert_eq(run(flush), 0);
	cr_assert(cache_is_idle(stack->cache));
	stack_free(stack);
}

/* ---- cancelled ---- */

static void wait_for(struct request *request)
{
	for (int i = 0; i < 300 && !is_done(request); i++)
		wait_ms(request->stack, 10);
}

Test(safety_10, a_cancelled_read_that_waits_ends)
{
	struct stack *stack = stack_new();

	struct request *read = submit(stack, IO_READ, 0, B, 0);
	turn(stack);
	read->cancelled = true;
	wait_for(read);
	cr_assert_eq(end(read), -EINTR);
	settle(stack);
	expect_read(stack, 0, B, 0);
	stack_free(stack);
}

Test(safety_10, a_cancelled_flush_that_waits_ends_and_loses_nothing)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	flush->cancelled = true;
	wait_for(flush);
	cr_assert_eq(end(flush), -EINTR);
	flush_ok(stack);
	expect_stable(stack, 0, B, 1);
	stack_free(stack);
}

Test(safety_10, a_cancelled_write_that_waits_for_memory_ends)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.limit = 1 << 20, .size = 16 << 20});
	uint64_t bytes;
	struct request *write = write_until_it_waits(stack, &bytes);

	cr_assert(write);
	write->cancelled = true;
	wait_for(write);
	cr_assert_eq(end(write), -EINTR);
	flush_ok(stack);
	expect_stable(stack, 0, bytes, 1);
	stack_free(stack);
}

Test(safety_10, a_cancelled_write_that_was_sent_keeps_its_buffer_until_it_is_done)
{
	struct stack *stack = stack_new();

	struct request *write = submit_flags(stack, IO_WRITE, 0, B, 1, IO_DIRECT);
	turn(stack);
	write->cancelled = true;
	wait_ms(stack, 1500);
	if (!is_done(write)) /* else its data was copied */
		step_all(stack);
	settle(stack);
	int error = end(write);
	cr_assert(error == 0 || error == -EINTR);
	expect_content(stack, 0, B, 1);
	expect_read(stack, 0, B, 1);
	stack_free(stack);
}

Test(cache, a_request_that_is_cancelled_before_it_comes_ends)
{
	const enum io_op ops[] = {IO_READ, IO_WRITE, IO_ZERO, IO_DISCARD, IO_FLUSH};
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
		uint64_t length = ops[i] == IO_FLUSH ? 0 : B;
		struct request *request = request_new(stack, ops[i], 0, length, 1, 0);
		request->cancelled = true;
		request_submit(request);
		step_all(stack);
		int error = run(request);
		cr_assert(error == 0 || error == -EINTR);
	}
	settle(stack);
	flush_ok(stack);
	stack_free(stack);
}
