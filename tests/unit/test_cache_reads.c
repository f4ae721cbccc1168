/*
 * test_cache_reads.c - what cache promises of READs, a sentence each: what they find, what is
 * fetched ahead of them, what is lent.
 */
#include "unit/test_cache_stack.h"

/* Byte i of the target is i / 512, so that a page in the wrong place is seen. */
static void fill_numbered(struct stack *stack)
{
	for (uint64_t i = 0; i < stack->memory->block.size; i++)
		stack->memory->content[i] = (uint8_t)(i / S * 7 + i / B);
}

static void expect_numbered(const struct request *read)
{
	for (uint64_t i = 0; i < read->io.length; i++) {
		uint64_t at = read->io.offset + i;
		uint8_t value = (uint8_t)(at / S * 7 + at / B);
		cr_assert_eq(read->data[i], value, "byte %lu reads as %u, not %u",
		    (unsigned long)at, read->data[i], value);
	}
}

static void expect_read_numbered(
    struct stack *stack, uint64_t offset, uint64_t length, uint32_t flags)
{
	struct request *read = submit_flags(stack, IO_READ, offset, length, 0x77, flags);

	for (int i = 0; !is_done(read) && i < 100; i++)
		step_all(stack);
	cr_assert(is_done(read));
	cr_assert_eq(read->error, 0);
	expect_numbered(read);
	end(read);
}

/* ---- hits and misses ---- */

Test(cache, what_was_read_once_is_read_again_without_asking)
{
	struct stack *stack = stack_new();
	fill_numbered(stack);

	expect_read_numbered(stack, 3 * B, 5 * B, 0);
	forget_below(stack);
	expect_read_numbered(stack, 3 * B, 5 * B, 0);
	expect_read_numbered(stack, 4 * B + 100, 1000, 0);
	expect_read_numbered(stack, 3 * B, 5 * B, IO_LEND);
	expect_nothing_below(stack);
	cr_assert_geq(cache_stats(stack->cache)->hits, 5);
	cr_assert_geq(cache_stats(stack->cache)->misses, 5);
	stack_free(stack);
}

Test(cache, a_hit_is_done_though_nothing_is_done_below)
{
	struct stack *stack = stack_new();
	fill_numbered(stack);

	read_ok(stack, 0, B);
	struct request *miss = submit(stack, IO_READ, 8 * B, B, 0);
	struct request *hit = submit(stack, IO_READ, 0, B, 0);
	turn(stack);
	cr_assert(is_done(hit));
	cr_assert(!is_done(miss));
	expect_numbered(hit);
	cr_assert_eq(end(hit), 0);
	cr_assert_eq(run(miss), 0);
	stack_free(stack);
}

Test(cache, a_read_that_is_there_in_part_sends_for_the_rest)
{
	struct stack *stack = stack_new();
	fill_numbered(stack);

	read_ok(stack, 2 * B, 2 * B);
	forget_below(stack);
	expect_read_numbered(stack, 0, 8 * B, 0);
	expect_read_numbered(stack, 0, 8 * B, IO_LEND);
	cr_assert_leq(below_bytes(stack, IO_READ), 8 * B);
	stack_free(stack);
}

Test(cache, two_reads_of_what_is_on_its_way_send_for_it_once)
{
	struct stack *stack = stack_new();
	fill_numbered(stack);

	struct request *first = submit(stack, IO_READ, 0, 4 * B, 0);
	struct request *second = submit(stack, IO_READ, B, 2 * B, 0);
	struct request *third = submit_flags(stack, IO_READ, 2 * B, B, 0, IO_LEND);
	step_all(stack);
	expect_below(stack, IO_READ, "0+16384");
	expect_numbered(first);
	expect_numbered(second);
	expect_numbered(third);
	cr_assert_eq(end(first) | end(second) | end(third), 0);
	stack_free(stack);
}

Test(cache, a_read_that_fails_says_so_and_the_next_one_asks_again)
{
	struct stack *stack = stack_new();
	fill_numbered(stack);

	memory_block_fail(stack->memory, 0, -EIO);
	struct request *first = submit(stack, IO_READ, 0, 2 * B, 0);
	struct request *second = submit(stack, IO_READ, B, B, 0);
	step_all(stack);
	cr_assert_eq(end(first), -EIO);
	int error = run(second); /* its own try, or the first one's */
	cr_assert(error == 0 || error == -EIO);
	expect_read_numbered(stack, 0, 2 * B, 0);
	stack_free(stack);
}

Test(cache, a_write_into_a_page_that_is_being_read_is_kept)
{
	struct stack *stack = stack_new();
	memset(stack->memory->content, 7, stack->memory->block.size);

	struct request *read = submit(stack, IO_READ, 0, 2 * B, 0);
	turn(stack);
	struct request *write = submit(stack, IO_WRITE, S, B, 1);
	turn(stack);
	step_all(stack);
	cr_assert_eq(run(read), 0);
	cr_assert_eq(run(write), 0);
	expect_read(stack, 0, S, 7);
	expect_read(stack, S, B, 1);
	expect_read(stack, S + B, B - S, 7);
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "512+4096");
	expect_stable(stack, S, B, 1);
	stack_free(stack);
}

Test(cache, a_write_into_a_page_whose_read_fails_is_kept)
{
	struct stack *stack = stack_new();
	memset(stack->memory->content, 7, stack->memory->block.size);

	memory_block_fail(stack->memory, 0, -EIO);
	struct request *read = submit(stack, IO_READ, 0, 2 * B, 0);
	turn(stack);
	struct request *write = submit(stack, IO_WRITE, S, B, 1);
	step_all(stack);
	run(read);
	cr_assert_eq(run(write), 0);
	expect_read(stack, 0, S, 7);
	expect_read(stack, S, B, 1);
	flush_ok(stack);
	expect_stable(stack, S, B, 1);
	expect_content(stack, 0, S, 7);
	stack_free(stack);
}

/* ---- at the end of the LUN ---- */

Test(cache, the_end_of_a_lun_that_is_no_multiple_of_a_page_is_read_and_written)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.size = (1 << 20) + 3 * S});
	uint64_t size = stack->memory->block.size;
	fill_numbered(stack);

	expect_read_numbered(stack, size - 2 * B, 2 * B, 0);
	expect_read_numbered(stack, size - 100, 100, 0);
	write_back_ok(stack, size - S, S, 1);
	expect_read(stack, size - S, S, 1);
	flush_ok(stack);
	expect_stable(stack, size - S, S, 1);
	expect_read_numbered(stack, size - 2 * B, B, 0);
	stack_free(stack);
}

Test(cache, the_end_of_a_lun_is_lent)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.size = (1 << 20) + 3 * S});
	uint64_t size = stack->memory->block.size;
	fill_numbered(stack);

	expect_read_numbered(stack, size - 2 * B - 100, 2 * B + 100, IO_LEND);
	expect_read_numbered(stack, size - 1, 1, IO_LEND);
	expect_read_numbered(stack, size - 3 * S, 3 * S, IO_LEND);
	stack_free(stack);
}

Test(cache, what_lies_beyond_the_end_fails)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.size = (1 << 20) + 3 * S});
	uint64_t size = stack->memory->block.size;

	read_ok(stack, size - S, S);
	cr_assert_neq(run(submit(stack, IO_READ, size, S, 0)), 0);
	cr_assert_neq(run(submit(stack, IO_READ, size - S, 2 * S, 0)), 0);
	cr_assert_neq(run(submit(stack, IO_WRITE, size - S, 2 * S, 1)), 0);
	cr_assert_neq(run(submit(stack, IO_WRITE, UINT64_MAX - S + 1, S, 1)), 0);
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "");
	stack_free(stack);
}

Test(cache, requests_of_nothing_are_done)
{
	struct stack *stack = stack_new();

	cr_assert_eq(run(submit(stack, IO_READ, 100, 0, 0)), 0);
	cr_assert_eq(run(submit(stack, IO_WRITE, 100, 0, 0)), 0);
	cr_assert_eq(run(submit(stack, IO_ZERO, 100, 0, 0)), 0);
	cr_assert_eq(run(submit(stack, IO_DISCARD, 100, 0, 0)), 0);
	expect_nothing_below(stack);
	stack_free(stack);
}

/* ---- lending ---- */

Test(cache, any_range_is_lent_whether_it_is_there_or_not)
{
	struct stack *stack = stack_new();
	fill_numbered(stack);

	expect_read_numbered(stack, 10 * B + 100, 3 * B, IO_LEND);
	read_ok(stack, 20 * B, B);
	expect_read_numbered(stack, 19 * B + 1, 3 * B - 2, IO_LEND);
	expect_read_numbered(stack, 5, 1, IO_LEND);
	expect_read_numbered(stack, 0, 1 << 20, IO_LEND);

	stack_free(stack);
}

struct lent {
	struct io io;
	struct stack *stack;
	struct request *write, *discard;
};

/* While it is lent, others write and evict it: it stands until done() returns. */
static void lent_done(struct io *io, int error)
{
	struct lent *lent = (struct lent *)io;

	cr_assert_eq(error, 0);
	lent->write = submit(lent->stack, IO_WRITE, 0, 4 * B, 9);
	lent->discard = submit(lent->stack, IO_DISCARD, 2 * B, B, 0);
	raise_event(lent->stack, BLOCK_CHANGED);
	for (int i = 0; i < io->niov; i++)
		expect_bytes(io->iov[i].iov_base, 0, io->iov[i].iov_len, 1, "the lent");
}

Test(cache, what_is_lent_stands_until_done_returns)
{
	struct stack *stack = stack_new();
	struct lent lent = {.stack = stack,
	    .io = {.op = IO_READ, .flags = IO_LEND, .length = 4 * B, .done = lent_done}};

	write_back_ok(stack, 0, 4 * B, 1);
	block_submit(stack->cache, &lent.io);
	turn(stack);
	cr_assert(lent.write);
	settle(stack);
	cr_assert_eq(end(lent.write), 0);
	cr_assert_eq(end(lent.discard), 0);
	stack_free(stack);
}

/* ---- DIRECT ---- */

Test(cache, a_direct_read_sees_what_was_written)
{
	struct stack *stack = stack_new();
	memset(stack->memory->content, 7, stack->memory->block.size);

	write_back_ok(stack, B, B, 1);
	write_ok(stack, 3 * B + 100, 100, 2); /* it waits for the rest of its block */
	expect_read_flags(stack, 0, B, 7, IO_DIRECT);
	expect_read_flags(stack, B, B, 1, IO_DIRECT);
	expect_read_flags(stack, B + 10, 100, 1, IO_DIRECT);
	expect_read_flags(stack, 3 * B, 100, 7, IO_DIRECT);
	expect_read_flags(stack, 3 * B + 100, 100, 2, IO_DIRECT);
	settle(stack);
	stack_free(stack);
}

Test(cache, a_read_sees_what_was_written_directly_though_the_page_was_there)
{
	struct stack *stack = stack_new();

	read_ok(stack, 0, 8 * B);
	cr_assert_eq(run(submit_flags(stack, IO_WRITE, B, B, 1, IO_DIRECT)), 0);
	cr_assert_eq(run(submit_flags(stack, IO_WRITE, 4 * B + 100, 100, 2, IO_DIRECT)), 0);
	expect_read(stack, 0, B, 0);
	expect_read(stack, B, B, 1);
	expect_read(stack, 4 * B, 100, 0);
	expect_read(stack, 4 * B + 100, 100, 2);
	stack_free(stack);
}

Test(cache, a_read_sees_what_was_written_directly_though_the_page_was_on_its_way)
{
	struct stack *stack = stack_new();

	struct request *read = submit(stack, IO_READ, 0, 4 * B, 0);
	turn(stack);
	memory_block_execute(stack->memory); /* it has seen the old content */
	struct request *write = submit_flags(stack, IO_WRITE, B, B, 1, IO_DIRECT);
	turn(stack);
	cr_assert_eq(run(read), 0);
	cr_assert_eq(run(write), 0);
	expect_read(stack, 0, B, 0);
	expect_read(stack, B, B, 1);
	stack_free(stack);
}

Test(cache, a_read_while_a_direct_write_is_on_its_way_leaves_nothing_old_behind)
{
	struct stack *stack = stack_new();

	read_ok(stack, 0, 4 * B);
	struct request *write = submit_flags(stack, IO_WRITE, B, B, 1, IO_DIRECT);
	turn(stack);
	struct request *read = submit(stack, IO_READ, 0, 4 * B, 0);
	turn(stack);
	cr_assert_eq(run(write), 0);
	cr_assert_eq(run(read), 0);
	expect_read(stack, B, B, 1);
	stack_free(stack);
}

Test(cache, what_is_read_directly_is_not_kept)
{
	struct stack *stack = stack_new();
	fill_numbered(stack);

	expect_read_numbered(stack, 0, 64 * B, IO_DIRECT);
	cr_assert_eq(cache_stats(stack->cache)->cached, 0);
	stack_free(stack);
}

/* ---- read-ahead ---- */

enum { CHUNK = 128 << 10 };

static struct stack *ahead_new(size_t readahead)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.size = 16 << 20, .readahead = readahead});

	fill_numbered(stack);
	return stack;
}

/* Reads on as soon as it can, while as little as possible is done below. */
static unsigned read_on(struct stack *stack, unsigned count)
{
	unsigned most = 0;

	for (unsigned i = 0; i < count; i++) {
		struct request *read = submit_read_by(stack, 7, (uint64_t)i * CHUNK, CHUNK);
		turn(stack);
		while (!is_done(read)) {
			most = MAX(most, memory_block_in_flight(stack->memory));
			step(stack);
			turn(stack);
		}
		cr_assert_eq(read->error, 0);
		expect_numbered(read);
		end(read);
	}
	return most;
}

Test(cache, a_sequential_reader_finds_what_was_fetched_ahead)
{
	struct stack *stack = ahead_new(2 << 20);

	cr_assert_geq(read_on(stack, 64), 3, "no READs are on their way that nobody asked for");
	settle(stack);
	const struct cache_stats *stats = cache_stats(stack->cache);
	cr_assert_gt(stats->fetched_ahead, 0);
	cr_assert_gt(stats->used_ahead, 0);
	cr_assert_leq(stats->used_ahead, stats->fetched_ahead);
	cr_assert_leq(below_bytes(stack, IO_READ), 64 * CHUNK + (2 << 20));
	forget_below(stack);
	struct request *next = submit_read_by(stack, 7, 64 * CHUNK, CHUNK);
	turn(stack);
	cr_assert(is_done(next), "the next bytes were not fetched");
	expect_numbered(next);
	end(next);
	settle(stack);
	stack_free(stack);
}

Test(cache, read_ahead_of_any_size_hides_the_link)
{
	struct stack *stack = ahead_new(SIZE_MAX);

	cr_assert_geq(read_on(stack, 64), 2, "no READs are on their way that nobody asked for");
	settle(stack);
	stack_free(stack);
}

Test(cache, random_reads_fetch_nothing_ahead)
{
	struct stack *stack = ahead_new(2 << 20);
	uint64_t asked = 0;

	for (unsigned i = 1; i < 100; i++, asked += B) {
		struct request *read = submit_read_by(stack, 7, (uint64_t)(i * 1237 % 4096) * B, B);
		for (int j = 0; !is_done(read) && j < 10; j++)
			step_all(stack);
		cr_assert_eq(end(read), 0);
	}
	cr_assert_eq(below_bytes(stack, IO_READ), asked);
	cr_assert_eq(cache_stats(stack->cache)->fetched_ahead, 0);
	stack_free(stack);
}

Test(cache, without_read_ahead_only_what_is_asked_for_is_read)
{
	struct stack *stack = ahead_new(0);

	read_on(stack, 16);
	settle(stack);
	cr_assert_eq(below_bytes(stack, IO_READ), 16 * CHUNK);
	stack_free(stack);
}

Test(cache, read_ahead_ends_at_the_end_of_the_lun)
{
	struct stack *stack = stack_new_with(
	    &(struct stack_options){.size = (1 << 20) + 5 * S, .readahead = 2 << 20});
	fill_numbered(stack);

	read_on(stack, 8); /* memory_block fails the test where a READ goes beyond */
	settle(stack);
	expect_read_numbered(stack, 1 << 20, 5 * S, 0);
	stack_free(stack);
}

Test(cache, what_is_fetched_ahead_of_a_direct_write_is_not_old)
{
	struct stack *stack = ahead_new(2 << 20);

	read_on(stack, 4);
	cr_assert_gt(memory_block_in_flight(stack->memory), 0);
	while (memory_block_execute(stack->memory))
		; /* they have seen the old content */
	struct request *write =
	    submit_flags(stack, IO_WRITE, 4 * CHUNK, 8 * CHUNK, 0xab, IO_DIRECT);
	cr_assert_eq(run(write), 0);
	settle(stack);
	expect_read(stack, 4 * CHUNK, 8 * CHUNK, 0xab);
	stack_free(stack);
}

Test(cache, read_ahead_that_fails_does_not_fail_a_read)
{
	struct stack *stack = ahead_new(2 << 20);

	read_on(stack, 4);
	memory_block_end_all(stack->memory, -EIO);
	turn(stack);
	settle(stack);
	for (unsigned i = 4; i < 16; i++)
		expect_read_numbered(stack, (uint64_t)i * CHUNK, CHUNK, 0);
	stack_free(stack);
}

Test(cache, what_is_dirty_is_not_overwritten_by_what_is_fetched_ahead)
{
	struct stack *stack = ahead_new(2 << 20);

	for (unsigned i = 0; i < 64; i++)
		write_back_ok(stack, (uint64_t)i * CHUNK + 5 * B, B, 0xab);
	for (unsigned i = 0; i < 64; i++) {
		struct request *read = submit_read_by(stack, 7, (uint64_t)i * CHUNK, CHUNK);
		for (int j = 0; !is_done(read) && j < 100; j++)
			step_all(stack);
		expect_bytes(read->data + 5 * B, 5 * B, B, 0xab, "the read");
		cr_assert_eq(end(read), 0);
	}
	flush_ok(stack);
	cr_assert_eq(below_bytes(stack, IO_WRITE), 64 * B);
	stack_free(stack);
}
