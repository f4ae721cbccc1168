/*
 * test_cache.c - what cache promises, a sentence each: WRITEs that are done from memory, and how
 * they leave.
 *
 * Those that are not done from memory are in test_cache_direct.c, READs in test_cache_reads.c,
 * events in test_cache_events.c, memory and what is told in test_cache_memory.c. The suites
 * safety_NN prove a rule of SAFETY.md.
 */
#include "unit/test_cache_stack.h"

/* ---- written back ---- */

Test(cache, a_write_is_done_though_nothing_is_done_below)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, B, 2 * B, 1);
	cr_assert_eq(dirty(stack), 2 * B);
	cr_assert_eq(cache_stats(stack->cache)->absorbed, 1);
	expect_nothing_below(stack);
	stack_free(stack);
}

Test(cache, a_read_sees_what_was_written_and_sends_nothing)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, B, 2 * B, 1);
	write_back_ok(stack, 2 * B, B, 2);
	expect_read(stack, B, B, 1);
	expect_read(stack, 2 * B, B, 2);
	expect_nothing_below(stack);
	stack_free(stack);
}

Test(cache, a_read_of_a_page_that_was_written_in_part_sees_both)
{
	struct stack *stack = stack_new();
	memset(stack->memory->content, 7, stack->memory->block.size);

	write_back_ok(stack, S, S, 1);
	expect_read(stack, 0, S, 7);
	expect_read(stack, S, S, 1);
	expect_read(stack, 2 * S, B, 7);
	stack_free(stack);
}

Test(cache, a_write_from_frames_is_done_from_memory_and_arrives)
{
	struct stack *stack = stack_new();
	const size_t shifts[] = {0, 512, 80, 4095};

	for (unsigned i = 0; i < G_N_ELEMENTS(shifts); i++) {
		uint64_t at = i * 64 * B + shifts[i];
		struct request *write =
		    submit_from_frames(stack, at, 8 * B + 100, (uint8_t)(i + 1), shifts[i]);
		turn(stack);
		cr_assert_eq(run(write), 0);
		/* What the submitter gave back may be anybody's now. */
		struct request *other =
		    submit_from_frames(stack, (i * 64 + 32) * B, 16 * B, 0x99, 0);
		cr_assert_eq(run(other), 0);
		expect_read(stack, at, 8 * B + 100, (uint8_t)(i + 1));
	}
	flush_ok(stack);
	for (unsigned i = 0; i < G_N_ELEMENTS(shifts); i++)
		expect_content(stack, i * 64 * B + shifts[i], 8 * B + 100, (uint8_t)(i + 1));
	stack_free(stack);
}

Test(cache, nothing_leaves_before_it_is_old_or_much)
{
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < 64; i++)
		write_back_ok(stack, i * B, B, 1);
	wait_ms(stack, 100);
	expect_nothing_below(stack);
	cr_assert_eq(dirty(stack), 64 * B);
	stack_free(stack);
}

Test(cache, what_is_old_leaves_by_itself)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 50});

	write_back_ok(stack, B, B, 1);
	expect_nothing_below(stack);
	for (int i = 0; i < 300 && !memory_block_in_flight(stack->memory); i++)
		wait_ms(stack, 10);
	expect_below(stack, IO_WRITE, "4096+4096");
	settle(stack);
	expect_content(stack, B, B, 1);
	cr_assert_eq(dirty(stack), 0);
	stack_free(stack);
}

Test(cache, what_is_written_again_and_again_leaves_at_its_first_age)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 100});
	bool left = false;

	for (int i = 0; i < 150 && !left; i++) {
		write_back_ok(stack, B, B, (uint8_t)i);
		wait_ms(stack, 20);
		left = stack->memory->records->len > 0;
	}
	cr_assert(left, "3 s of WRITEs to one page, none of which left");
	settle(stack);
	stack_free(stack);
}

Test(cache, when_much_is_dirty_it_leaves_though_it_is_young)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.limit = 1 << 20});
	unsigned count = 0;

	for (; count < 256 && !memory_block_in_flight(stack->memory); count++) {
		struct request *write = submit(stack, IO_WRITE, count * B, B, 1);
		turn(stack);
		if (!is_done(write))
			cr_assert_gt(memory_block_in_flight(stack->memory), 0,
			    "WRITE %u waits, and nothing is written out", count);
		step_all(stack);
		cr_assert_eq(end(write), 0);
	}
	cr_assert_gt(memory_block_count(stack->memory, IO_WRITE), 0);
	settle(stack);
	stack_free(stack);
}

/* ---- FLUSH ---- */

Test(safety_04, a_flush_writes_out_what_is_dirty_and_only_then_flushes)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, B, B, 1);
	write_back_ok(stack, 16 * B, B, 2);
	struct request *flush = submit_flush(stack);
	turn(stack);
	cr_assert_eq(memory_block_count(stack->memory, IO_WRITE), 2);
	cr_assert_eq(memory_block_in_flight(stack->memory), 2, "they leave one by one");
	cr_assert_eq(memory_block_count(stack->memory, IO_FLUSH), 0);
	step(stack);
	turn(stack);
	cr_assert_eq(memory_block_count(stack->memory, IO_FLUSH), 0);
	step(stack);
	turn(stack);
	cr_assert_eq(memory_block_count(stack->memory, IO_FLUSH), 1);
	cr_assert(!is_done(flush));
	step(stack);
	turn(stack);
	cr_assert_eq(end(flush), 0);
	expect_stable(stack, B, B, 1);
	expect_stable(stack, 16 * B, B, 2);
	cr_assert_eq(dirty(stack), 0);
	stack_free(stack);
}

Test(safety_04, a_flush_waits_for_what_leaves_already)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 20});

	write_back_ok(stack, B, B, 1);
	for (int i = 0; i < 300 && !memory_block_in_flight(stack->memory); i++)
		wait_ms(stack, 10);
	struct request *flush = submit_flush(stack);
	turn(stack);
	cr_assert_eq(memory_block_count(stack->memory, IO_FLUSH), 0);
	cr_assert_eq(run(flush), 0);
	cr_assert_eq(memory_block_count(stack->memory, IO_WRITE), 1, "it was written twice");
	expect_stable(stack, B, B, 1);
	stack_free(stack);
}

Test(safety_04, a_flush_is_not_held_up_by_writes_that_come_after_it)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	for (unsigned i = 1; i < 200 && !is_done(flush); i++) {
		write_back_ok(stack, i * 16 * B % (4 << 20), B, (uint8_t)i);
		if (memory_block_step(stack->memory))
			turn(stack);
	}
	cr_assert(is_done(flush), "a writer keeps a FLUSH from ending");
	cr_assert_eq(end(flush), 0);
	expect_stable(stack, 0, 1, 1);
	settle(stack);
	stack_free(stack);
}

Test(cache, a_flush_of_nothing_dirty_is_sent_all_the_same)
{
	struct stack *stack = stack_new();

	flush_ok(stack);
	cr_assert_eq(memory_block_count(stack->memory, IO_FLUSH), 1);
	stack_free(stack);
}

Test(cache, a_flush_does_not_keep_reads_and_writes_from_memory)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	struct request *read = submit(stack, IO_READ, 0, B, 0);
	turn(stack);
	expect_request_read(read, 1);
	write_back_ok(stack, 8 * B, B, 2);
	cr_assert_eq(run(flush), 0);
	flush_ok(stack);
	expect_stable(stack, 8 * B, B, 2);
	stack_free(stack);
}

/* ---- in what it leaves ---- */

Test(cache, small_writes_side_by_side_leave_as_one)
{
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < 64; i++)
		write_back_ok(stack, (i * 37 % 64) * B, B, 1); /* each once, in disorder */
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "0+262144");
	stack_free(stack);
}

/* 1024 pages: at most 16 WRITEs of 256 KiB, at least 4 of 1 MiB. */
Test(cache, many_small_writes_leave_as_few_large_ones_together)
{
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < 1024; i++)
		write_back_ok(stack, i * B, B, (uint8_t)(1 + i % 200));
	forget_below(stack);
	struct request *flush = submit_flush(stack);
	turn(stack);
	cr_assert_geq(memory_block_in_flight(stack->memory), 4, "only %u are in flight together",
	    memory_block_in_flight(stack->memory));
	cr_assert_eq(run(flush), 0);
	unsigned count = memory_block_count(stack->memory, IO_WRITE);
	cr_assert(count >= 4 && count <= 16, "%u WRITEs", count);
	cr_assert_eq(below_bytes(stack, IO_WRITE), 1024 * B);
	cr_assert_eq(cache_stats(stack->cache)->written_out, count);
	for (unsigned i = 0; i < 1024; i++)
		expect_stable(stack, i * B, B, (uint8_t)(1 + i % 200));
	stack_free(stack);
}

Test(safety_06, only_logical_blocks_that_are_dirty_are_written)
{
	struct stack *stack = stack_new();
	memset(stack->memory->content, 7, stack->memory->block.size);

	read_ok(stack, 0, 2 * B);
	write_back_ok(stack, S, S, 1);
	write_back_ok(stack, B + 7 * S, S, 2);
	expect_read(stack, 0, S, 7);
	cr_assert_eq(dirty(stack), 2 * S);
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "512+512, 7680+512");
	stack_free(stack);
}

Test(safety_06, a_page_that_is_completed_by_a_read_is_written_where_it_is_dirty)
{
	struct stack *stack = stack_new();
	memset(stack->memory->content, 7, stack->memory->block.size);

	write_back_ok(stack, 2 * S, S, 1);
	expect_read(stack, 0, 2 * S, 7);
	expect_read(stack, 2 * S, S, 1);
	/* meanwhile another wrote beside it: that must stay */
	memset(stack->memory->content, 9, 2 * S);
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "1024+512");
	expect_content(stack, 0, 2 * S, 9);
	stack_free(stack);
}

Test(cache, a_write_of_a_part_of_a_block_leaves_the_rest_of_it_as_it_was)
{
	const uint32_t sizes[] = {512, 4096};

	for (unsigned i = 0; i < 2; i++) {
		struct stack *stack =
		    stack_new_with(&(struct stack_options){.block_size = sizes[i]});
		memset(stack->memory->content, 7, stack->memory->block.size);

		/* one part; both ends of a long one; two parts of one block */
		write_ok(stack, 100, 50, 1);
		write_ok(stack, 5 * B + 100, 3 * B, 2);
		write_ok(stack, 20 * B, 10, 3);
		write_ok(stack, 20 * B + 300, 10, 4);
		cr_assert_gt(memory_block_count(stack->memory, IO_READ), 0);
		expect_read(stack, 0, 100, 7);
		expect_read(stack, 100, 50, 1);
		expect_read(stack, 150, B, 7);
		flush_ok(stack);
		expect_content(stack, 0, 100, 7);
		expect_content(stack, 100, 50, 1);
		expect_content(stack, 150, 5 * B - 50, 7);
		expect_content(stack, 5 * B + 100, 3 * B, 2);
		expect_content(stack, 8 * B + 100, 12 * B - 100, 7);
		expect_content(stack, 20 * B, 10, 3);
		expect_content(stack, 20 * B + 10, 290, 7);
		expect_content(stack, 20 * B + 300, 10, 4);
		expect_content(stack, 20 * B + 310, B, 7);
		stack_free(stack);
	}
}

static void write_inside(struct stack *stack, bool from_frames, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / B * B, end = (offset + length + B - 1) / B * B;

	struct request *write = from_frames
	                            ? submit_from_frames(stack, offset, length, 1, offset % B)
	                            : submit(stack, IO_WRITE, offset, length, 1);
	cr_assert_eq(run(write), 0);
	expect_read(stack, first, offset - first, 7);
	expect_read(stack, offset, length, 1);
	expect_read(stack, offset + length, end - offset - length, 7);
	flush_ok(stack);
	expect_stable(stack, offset, length, 1);
	expect_content(stack, first, offset - first, 7);
	expect_content(stack, offset + length, end - offset - length, 7);
}

/* It touches all blocks of its pages, and does not cover them. */
Test(cache, a_write_that_ends_or_begins_inside_a_block_of_a_page_leaves_the_rest_of_it)
{
	const uint32_t sizes[] = {512, 4096};

	for (unsigned i = 0; i < 4; i++) {
		struct stack *stack =
		    stack_new_with(&(struct stack_options){.block_size = sizes[i / 2]});
		memset(stack->memory->content, 7, stack->memory->block.size);
		write_inside(stack, i % 2, 0, B - 10);
		write_inside(stack, i % 2, 4 * B + 10, B - 10);
		write_inside(stack, i % 2, 8 * B, 3 * B - 10);
		write_inside(stack, i % 2, 16 * B + 10, 3 * B - 20);
		stack_free(stack);
	}
}

/* The READ is sent before the WRITE is: what another host wrote just now is not undone. */
Test(cache, a_write_of_a_part_of_a_block_is_written_after_a_read_of_the_block)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.block_size = 4096});
	memset(stack->memory->content, 7, stack->memory->block.size);

	struct request *write = submit(stack, IO_WRITE, 100, 50, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	cr_assert_eq(memory_block_count(stack->memory, IO_READ), 1);
	cr_assert_eq(memory_block_count(stack->memory, IO_WRITE), 0);
	step_all(stack);
	cr_assert_eq(run(write), 0);
	cr_assert_eq(run(flush), 0);
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "0+4096");
	expect_stable(stack, 100, 50, 1);
	stack_free(stack);
}

Test(cache, a_write_of_a_part_of_a_block_that_cannot_be_read_fails_or_is_kept)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.block_size = 4096});
	memset(stack->memory->content, 7, stack->memory->block.size);

	memory_block_fail_all(stack->memory, -EIO);
	struct request *write = submit(stack, IO_WRITE, 100, 50, 1);
	step_all(stack);
	int error = run(write);
	memory_block_fail_all(stack->memory, 0);
	flush_ok(stack);
	if (!error)
		expect_stable(stack, 100, 50, 1);
	expect_content(stack, 0, 100, 7);
	expect_content(stack, 150, B, 7);
	expect_read(stack, 150, B, 7);
	stack_free(stack);
}

/* ---- while it is on its way ---- */

Test(cache, a_page_that_is_written_again_while_it_leaves_is_not_torn_and_leaves_again)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, 2 * B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	cr_assert_eq(memory_block_in_flight(stack->memory), 1);
	write_back_ok(stack, 0, B, 2);
	write_back_ok(stack, B + S, S, 3);
	turn(stack);
	cr_assert_eq(memory_block_in_flight(stack->memory), 1);
	step(stack); /* only now does the memory look at its data */
	expect_content(stack, 0, 2 * B, 1);
	expect_read(stack, 0, B, 2);
	expect_read(stack, B, S, 1);
	expect_read(stack, B + S, S, 3);
	cr_assert_eq(run(flush), 0);
	cr_assert_eq(dirty(stack), B + S);
	forget_below(stack);
	flush_ok(stack);
	cr_assert_eq(below_bytes(stack, IO_WRITE), B + S);
	expect_stable(stack, 0, B, 2);
	expect_stable(stack, B, S, 1);
	expect_stable(stack, B + S, S, 3);
	stack_free(stack);
}

Test(safety_09, two_write_outs_of_a_page_are_not_on_their_way_together)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *first = submit_flush(stack);
	turn(stack);
	write_back_ok(stack, 0, B, 2);
	struct request *second = submit_flush(stack);
	turn(stack);
	cr_assert_eq(memory_block_in_flight(stack->memory), 1);
	cr_assert_eq(run(second), 0);
	cr_assert_eq(run(first), 0);
	expect_stable(stack, 0, B, 2);
	stack_free(stack);
}

/* ---- what fails ---- */

Test(cache, what_could_not_be_written_fails_the_flush_is_kept_and_written_by_the_next)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, B, B, 1);
	memory_block_fail(stack->memory, 0, -EIO);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	cr_assert_geq(stack->events[BLOCK_UNWRITTEN], 1);
	cr_assert_geq(cache_stats(stack->cache)->failed, 1);
	cr_assert_eq(dirty(stack), B);
	expect_content(stack, B, B, 0);
	expect_read(stack, B, B, 1);
	flush_ok(stack);
	expect_stable(stack, B, B, 1);
	cr_assert_eq(dirty(stack), 0);
	stack_free(stack);
}

Test(cache, an_error_of_a_write_out_in_the_background_fails_the_next_flush_or_is_mended)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 20});

	write_back_ok(stack, B, B, 1);
	memory_block_fail(stack->memory, 0, -ENOSPC);
	for (int i = 0; i < 300 && !memory_block_in_flight(stack->memory); i++)
		wait_ms(stack, 10);
	step(stack);
	turn(stack);
	cr_assert_eq(stack->events[BLOCK_UNWRITTEN], 1);
	expect_read(stack, B, B, 1);
	if (run(submit_flush(stack)) != 0)
		flush_ok(stack);
	expect_stable(stack, B, B, 1);
	stack_free(stack);
}

Test(cache, what_could_not_be_written_is_tried_again_by_itself)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 20});

	write_back_ok(stack, B, B, 1);
	memory_block_fail(stack->memory, 0, -EIO);
	for (int i = 0; i < 1500 && memory_block_count(stack->memory, IO_WRITE) < 2; i++) {
		step_all(stack);
		wait_ms(stack, 10);
	}
	settle(stack);
	expect_content(stack, B, B, 1);
	cr_assert_eq(dirty(stack), 0);
	stack_free(stack);
}

Test(cache, of_several_write_outs_one_fails_and_the_others_are_done)
{
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < 4; i++)
		write_back_ok(stack, i * 64 * B, B, 1);
	memory_block_fail(stack->memory, 2, -EIO);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	cr_assert_eq(dirty(stack), B);
	flush_ok(stack);
	for (unsigned i = 0; i < 4; i++)
		expect_stable(stack, i * 64 * B, B, 1);
	stack_free(stack);
}

Test(cache, a_write_out_that_fails_does_not_undo_what_was_written_meanwhile)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	memory_block_fail(stack->memory, 0, -EIO);
	struct request *flush = submit_flush(stack);
	turn(stack);
	write_back_ok(stack, 0, S, 2);
	cr_assert_eq(run(flush), -EIO);
	expect_read(stack, 0, S, 2);
	expect_read(stack, S, B - S, 1);
	flush_ok(stack);
	expect_stable(stack, 0, S, 2);
	expect_stable(stack, S, B - S, 1);
	stack_free(stack);
}

Test(cache, a_flush_that_fails_below_fails)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	memory_block_fail(stack->memory, 1, -EIO);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	flush_ok(stack);
	expect_stable(stack, 0, B, 1);
	stack_free(stack);
}
