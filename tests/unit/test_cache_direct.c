/*
 * test_cache_direct.c - what cache promises of WRITEs that are not done from memory (FUA, DIRECT,
 * writethrough), of ZERO and of DISCARD, a sentence each.
 */
#include "unit/test_cache_stack.h"

/* ---- not from memory ---- */

Test(cache, a_write_with_fua_is_done_when_the_target_has_it_on_stable_storage)
{
	struct stack *stack = stack_new();

	struct request *write = submit_flags(stack, IO_WRITE, B, B, 1, IO_FUA);
	wait_ms(stack, 20);
	cr_assert(!is_done(write));
	cr_assert_eq(run(write), 0);
	expect_stable(stack, B, B, 1);
	expect_read(stack, B, B, 1);
	cr_assert_eq(dirty(stack), 0);
	stack_free(stack);
}

Test(cache, a_write_with_fua_over_what_is_dirty_is_the_newer)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, 2 * B, 1);
	cr_assert_eq(run(submit_flags(stack, IO_WRITE, S, B, 2, IO_FUA)), 0);
	expect_stable(stack, S, B, 2);
	expect_read(stack, 0, S, 1);
	expect_read(stack, S, B, 2);
	expect_read(stack, S + B, B - S, 1);
	flush_ok(stack);
	expect_stable(stack, 0, S, 1);
	expect_stable(stack, S, B, 2);
	expect_stable(stack, S + B, B - S, 1);
	stack_free(stack);
}

Test(cache, a_write_of_writethrough_is_done_when_the_target_has_it)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.writethrough = true});

	struct request *write = submit(stack, IO_WRITE, B, B, 1);
	wait_ms(stack, 20);
	cr_assert(!is_done(write));
	cr_assert_eq(run(write), 0);
	expect_content(stack, B, B, 1);
	forget_below(stack);
	expect_read(stack, B, B, 1);
	expect_nothing_below(stack);
	cr_assert_eq(dirty(stack), 0);
	stack_free(stack);
}

Test(cache, a_write_of_writethrough_that_fails_says_so_and_is_not_read)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.writethrough = true});

	write_ok(stack, 0, 2 * B, 1);
	memory_block_fail(stack->memory, 0, -EIO);
	cr_assert_eq(run(submit(stack, IO_WRITE, 0, B, 2)), -EIO);
	expect_read(stack, 0, 2 * B, 1);
	flush_ok(stack);
	expect_content(stack, 0, 2 * B, 1);
	stack_free(stack);
}

Test(cache, a_direct_write_is_done_when_the_target_has_it_and_replaces_what_is_dirty)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, 4 * B, 1);
	struct request *write = submit_flags(stack, IO_WRITE, B, B, 2, IO_DIRECT);
	wait_ms(stack, 20);
	cr_assert(!is_done(write));
	cr_assert_eq(run(write), 0);
	expect_content(stack, B, B, 2);
	expect_read(stack, 0, B, 1);
	expect_read(stack, B, B, 2);
	expect_read(stack, 2 * B, 2 * B, 1);
	flush_ok(stack);
	expect_stable(stack, 0, B, 1);
	expect_stable(stack, B, B, 2);
	expect_stable(stack, 2 * B, 2 * B, 1);
	stack_free(stack);
}

Test(cache, a_direct_write_over_parts_of_dirty_blocks_leaves_what_is_beside_it)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, 2 * B, 1);
	cr_assert_eq(run(submit_flags(stack, IO_WRITE, 100, B, 2, IO_DIRECT)), 0);
	expect_content(stack, 100, B, 2);
	expect_read(stack, 0, 100, 1);
	expect_read(stack, 100, B, 2);
	expect_read(stack, 100 + B, B - 100, 1);
	flush_ok(stack);
	expect_stable(stack, 0, 100, 1);
	expect_stable(stack, 100, B, 2);
	expect_stable(stack, 100 + B, B - 100, 1);
	stack_free(stack);
}

Test(safety_09, a_direct_write_waits_for_the_write_out_below_it)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	struct request *write = submit_flags(stack, IO_WRITE, 0, B, 2, IO_DIRECT);
	turn(stack);
	cr_assert_eq(memory_block_in_flight(stack->memory), 1);
	cr_assert_eq(run(write), 0);
	cr_assert_eq(run(flush), 0);
	expect_content(stack, 0, B, 2);
	expect_read(stack, 0, B, 2);
	flush_ok(stack);
	expect_stable(stack, 0, B, 2);
	stack_free(stack);
}

Test(safety_09, a_write_after_a_direct_write_that_is_on_its_way_is_the_newer)
{
	struct stack *stack = stack_new();

	struct request *direct = submit_flags(stack, IO_WRITE, 0, B, 1, IO_DIRECT);
	turn(stack);
	struct request *write = submit(stack, IO_WRITE, 0, B, 2);
	turn(stack);
	cr_assert_eq(run(direct), 0);
	cr_assert_eq(run(write), 0);
	expect_read(stack, 0, B, 2);
	flush_ok(stack);
	expect_stable(stack, 0, B, 2);
	expect_read(stack, 0, B, 2);
	stack_free(stack);
}

/* ---- ZERO and DISCARD ---- */

Test(safety_05, a_zero_over_dirty_and_clean_pages_is_read_and_arrives)
{
	struct stack *stack = stack_new();
	memset(stack->memory->content, 7, stack->memory->block.size);

	read_ok(stack, 0, 8 * B);
	write_back_ok(stack, 2 * B, 2 * B, 1);
	cr_assert_eq(run(submit(stack, IO_ZERO, B, 2 * B, 0)), 0);
	expect_read(stack, 0, B, 7);
	expect_read(stack, B, 2 * B, 0);
	expect_read(stack, 3 * B, B, 1);
	expect_read(stack, 4 * B, 4 * B, 7);
	flush_ok(stack);
	expect_stable(stack, B, 2 * B, 0);
	expect_stable(stack, 3 * B, B, 1);
	expect_read(stack, B, 2 * B, 0);
	stack_free(stack);
}

Test(safety_05, a_zero_of_parts_of_blocks_leaves_what_is_beside_it)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, 4 * B, 1);
	cr_assert_eq(run(submit(stack, IO_ZERO, 100, 2 * B, 0)), 0);
	expect_read(stack, 0, 100, 1);
	expect_read(stack, 100, 2 * B, 0);
	expect_read(stack, 100 + 2 * B, 2 * B - 100, 1);
	flush_ok(stack);
	expect_stable(stack, 0, 100, 1);
	expect_stable(stack, 100, 2 * B, 0);
	expect_stable(stack, 100 + 2 * B, 2 * B - 100, 1);
	stack_free(stack);
}

Test(safety_05, a_zero_with_fua_is_on_stable_storage_when_it_is_done)
{
	struct stack *stack = stack_new();
	write_ok(stack, 0, B, 7);
	flush_ok(stack);

	write_back_ok(stack, 0, 2 * B, 1);
	cr_assert_eq(run(submit_flags(stack, IO_ZERO, 0, B, 0, IO_FUA)), 0);
	expect_stable(stack, 0, B, 0);
	flush_ok(stack);
	expect_stable(stack, 0, B, 0);
	expect_stable(stack, B, B, 1);
	stack_free(stack);
}

Test(safety_05, what_was_dirty_does_not_come_back_over_a_discard)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, 4 * B, 1);
	cr_assert_eq(run(submit(stack, IO_DISCARD, B, 2 * B, 0)), 0);
	flush_ok(stack);
	expect_content(stack, 0, B, 1);
	cr_assert(stack->memory->content[B] != 1 && stack->memory->content[3 * B - 1] != 1,
	    "dirty data came after the DISCARD");
	expect_content(stack, 3 * B, B, 1);
	expect_read(stack, 0, B, 1);
	expect_read(stack, 3 * B, B, 1);
	stack_free(stack);
}

Test(safety_05, a_discard_leaves_alone_what_it_covers_in_part)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.block_size = 4096});

	write_back_ok(stack, 0, 4 * B, 1);
	cr_assert_eq(run(submit(stack, IO_DISCARD, 100, 2 * B, 0)), 0);
	expect_read(stack, 0, B, 1);
	expect_read(stack, 2 * B, 2 * B, 1);
	flush_ok(stack);
	expect_stable(stack, 0, B, 1);
	expect_stable(stack, 2 * B, 2 * B, 1);
	stack_free(stack);
}

Test(safety_09, a_zero_waits_for_the_write_out_below_it)
{
	const enum io_op ops[] = {IO_ZERO, IO_DISCARD};

	for (unsigned i = 0; i < 2; i++) {
		struct stack *stack = stack_new();
		write_back_ok(stack, 0, B, 1);
		struct request *flush = submit_flush(stack);
		turn(stack);
		struct request *request = submit(stack, ops[i], 0, B, 0);
		turn(stack);
		cr_assert_eq(memory_block_in_flight(stack->memory), 1);
		cr_assert_eq(run(request), 0);
		cr_assert_eq(run(flush), 0);
		flush_ok(stack);
		expect_stable(stack, 0, B, i ? MEMORY_DISCARDED : 0);
		stack_free(stack);
	}
}

/* Beside it in its page, where its range does not reach. */
Test(cache, what_waits_for_a_write_out_is_not_held_up_by_what_is_written_beside_it)
{
	const enum io_op ops[] = {IO_ZERO, IO_DISCARD, IO_WRITE, IO_READ};

	for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
		struct stack *stack = stack_new();
		bool data = ops[i] == IO_WRITE || ops[i] == IO_READ;
		write_back_ok(stack, 0, S, 1);
		struct request *request =
		    submit_flags(stack, ops[i], 0, 2 * S, 9, data ? IO_DIRECT : 0);
		turn(stack);
		write_back_ok(stack, 4 * S, S, 2);
		cr_assert_eq(run(request), 0);
		flush_ok(stack);
		expect_stable(stack, 4 * S, S, 2);
		stack_free(stack);
	}
}

Test(cache, a_direct_read_ends_though_its_page_is_written_again_and_again)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, S, 1);
	struct request *read = submit_flags(stack, IO_READ, 0, B, 0, IO_DIRECT);
	struct request *writes[50];
	for (int i = 0; i < 50; i++) {
		writes[i] = submit(stack, IO_WRITE, 0, S, (uint8_t)i);
		if (memory_block_step(stack->memory))
			turn(stack);
	}
	cr_assert(is_done(read), "a writer keeps a DIRECT READ from ending");
	cr_assert_eq(end(read), 0);
	settle(stack);
	for (int i = 0; i < 50; i++)
		cr_assert_eq(end(writes[i]), 0);
	flush_ok(stack);
	stack_free(stack);
}
