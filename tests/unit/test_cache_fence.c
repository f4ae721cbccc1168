/*
 * test_cache_fence.c - what must not leave any more, and what has to end, when the LUN is another
 * host's, or gone, or memory is short.
 */
#include "test_cache_stack.h"

static void nothing_was_written(struct stack *stack)
{
	g_autofree char *came = below_of(stack, IO_WRITE);

	cr_assert_str_eq(came, "", "after FENCED came %s", came);
}

/* Nor do the two FLUSHes that wait for it succeed. */
static void nothing_leaves_after_fenced(
    struct stack *stack, struct request *first, struct request *second)
{
	turn(stack);
	forget_below(stack);
	raise_event(stack, BLOCK_FENCED);
	turn(stack);
	memory_block_end_all(stack->memory, -EBADE);
	turn(stack);
	nothing_was_written(stack);
	settle(stack);
	nothing_was_written(stack);
	cr_assert_neq(end(first), 0);
	cr_assert_neq(end(second), 0);
}

/* One that waits behind another, which was sent before. */
Test(safety_07, what_waits_below_for_another_write_is_not_sent_after_fenced)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *first = submit_flush(stack);
	turn(stack);
	write_back_ok(stack, 0, B, 2);
	nothing_leaves_after_fenced(stack, first, submit_flush(stack));
	cr_assert_gt(stack->events[BLOCK_FORGOTTEN], 0);
	stack_free(stack);
}

/* One that is held while what was lost is sent again. */
Test(safety_07, what_waits_below_for_a_resend_is_not_sent_after_fenced)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 8 * B, B, 9);
	struct request *first = submit_flush(stack);
	turn(stack);
	step(stack); /* the WRITE is done: kept */
	turn(stack);
	memory_block_end_all(stack->memory, -ESTALE); /* the FLUSH: it is sent again */
	turn(stack);
	write_back_ok(stack, 0, B, 1);
	nothing_leaves_after_fenced(stack, first, submit_flush(stack));
	stack_free(stack);
}

Test(safety_19, reads_on_their_way_take_no_more_than_the_memory)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.size = 64 << 20, .limit = 4 << 20});
	struct request *reads[40];

	for (int i = 0; i < 40; i++)
		reads[i] = submit(stack, IO_READ, (uint64_t)i << 20, 1 << 20, 0);
	turn(stack);
	cr_assert_leq(frames_kept(stack->frames), 6u << 20);
	settle(stack);
	for (int i = 0; i < 40; i++)
		cr_assert_eq(end(reads[i]), 0);
	stack_free(stack);
}

/* FLUSHes do not come back: what was written stays kept, until it is too much. */
static void fill_memory(struct stack *stack)
{
	bool done = true;

	for (int i = 0; done && i < 400; i++) {
		struct request *write = submit(stack, IO_WRITE, (uint64_t)i << 16, 1 << 16, 3);

		for (int k = 0; k < 5 && !is_done(write); k++)
			wait_ms(stack, 10);
		done = is_done(write);
		for (unsigned k = 0; k < memory_block_in_flight(stack->memory);) {
			if (memory_block_peek(stack->memory, k)->op == IO_WRITE)
				memory_block_step_at(stack->memory, k);
			else
				k++;
			turn(stack);
		}
	}
}

Test(cache, a_read_without_room_fails_while_the_lun_is_gone)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.size = 64 << 20, .limit = 8 << 20});

	fill_memory(stack);
	memory_block_fail_all(stack->memory, -EIO);
	raise_event(stack, BLOCK_GONE);
	memory_block_end_all(stack->memory, -EIO);
	wait_ms(stack, 50);
	struct request *read = submit(stack, IO_READ, 40 << 20, 1 << 20, 0);
	for (int i = 0; i < 100 && !is_done(read); i++) {
		wait_ms(stack, 20);
		memory_block_step_all(stack->memory);
	}
	cr_assert_eq(end(read), -EIO);
	_exit(0); /* what waits for the LUN is none of ours */
}
