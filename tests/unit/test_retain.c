/*
 * test_retain.c - what retain promises, a sentence each, above a block made of memory: what is
 * kept, FLUSH, LOST and READ.
 *
 * The suites safety_NN prove a rule of SAFETY.md.
 */
#include <limits.h>

#include "unit/test_retain_stack.h"

/* ---- what is kept, and until when ---- */

Test(safety_08, a_write_is_kept_until_a_flush_has_succeeded)
{
	struct stack *stack = stack_new();

	write_ok(stack, B, B, 1);
	cr_assert_eq(kept(stack), B);
	cr_assert_eq(stack->limits.used, retain_stats(stack->retain)->memory);
	cr_assert_geq(stack->limits.used, B);
	flush_ok(stack);
	cr_assert_eq(kept(stack), 0);
	cr_assert_eq(stack->limits.used, 0);
	expect_below(stack, "WRITE 4096+4096, FLUSH");
	stack_free(stack);
}

Test(safety_04, a_flush_covers_only_writes_that_were_done_before_it_was_sent)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *late = submit(stack, IO_WRITE, B, B, 2);
	struct request *flush = submit_flush(stack);
	step(stack); /* the write, after the FLUSH was sent */
	step(stack);
	cr_assert_eq(end(late), 0);
	cr_assert_eq(end(flush), 0);
	cr_assert_eq(kept(stack), B);
	crash(stack);
	step_all(stack);
	expect_content(stack, B, B, 2);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_04, a_flush_that_fails_releases_nothing_and_says_so)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	memory_block_fail(stack->memory, 0, -EIO);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	cr_assert_eq(kept(stack), B);
	flush_ok(stack);
	cr_assert_eq(kept(stack), 0);
	stack_free(stack);
}

Test(safety_04, a_write_with_fua_is_stable_and_takes_the_place_of_what_was_kept)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, 3 * B, 1);
	cr_assert_eq(run(submit_flags(stack, IO_WRITE, B, B, 2, IO_FUA)), 0);
	cr_assert_eq(kept(stack), 2 * B);
	memory_block_forget_records(stack->memory);
	crash(stack);
	step_all(stack);
	expect_below(stack, "WRITE 0+4096, WRITE 8192+4096");
	expect_content(stack, 0, B, 1);
	expect_content(stack, B, B, 2);
	expect_content(stack, 2 * B, B, 1);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_06, of_two_writes_of_a_block_the_newer_is_kept_and_of_the_rest_the_older)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, 4 * B, 1);
	write_ok(stack, B + 512, 512, 2);
	cr_assert_eq(kept(stack), 4 * B);
	crash(stack);
	step_all(stack);
	expect_content(stack, 0, B + 512, 1);
	expect_content(stack, B + 512, 512, 2);
	expect_content(stack, B + 1024, 3 * B - 1024, 1);
	flush_ok(stack);
	stack_free(stack);
}

/* Completes the oldest below while there are no frames. */
static void step_starving(struct stack *stack)
{
	uint8_t *runs[32];
	size_t lengths[32];
	unsigned n = 0, got;

	while ((got = frames_get(stack->frames, UINT_MAX, &runs[n])) > 0)
		lengths[n++] = (size_t)got * FRAME_SIZE;
	step(stack);
	while (n-- > 0)
		frames_release(stack->frames, runs[n], lengths[n]);
}

Test(safety_08, a_write_that_there_is_no_memory_to_keep_is_flushed_before_it_is_acknowledged)
{
	struct stack *stack = stack_new();
	struct request *write = submit(stack, IO_WRITE, 0, 256 << 10, 3);

	step_starving(stack);
	expect_below(stack, "WRITE 0+262144, FLUSH");
	cr_assert_eq(kept(stack), 0);
	cr_assert_eq(write->error, PENDING, "acknowledged, and neither kept nor stable");
	crash(stack);
	cr_assert_eq(write->error, PENDING);
	expect_below(stack, "WRITE 0+262144");
	step(stack);
	cr_assert_eq(end(write), 0);
	cr_assert_eq(kept(stack), 256 << 10);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_08, such_a_flush_releases_nothing_that_failed_to_be_sent_again_but_what_it_covers)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	write_ok(stack, 1 << 20, B, 2);
	crash(stack);
	memory_block_end_all(stack->memory, -EIO); /* both resends */
	struct request *write = submit(stack, IO_WRITE, 0, 256 << 10, 3);
	step_starving(stack);
	cr_assert_eq(kept(stack), 2 * B);
	cr_assert_eq(run(write), 0);
	cr_assert_eq(kept(stack), B, "the one that is covered is released, the other is not");
	flush_ok(stack);
	expect_content(stack, 0, B, 3);
	expect_content(stack, 1 << 20, B, 2);
	stack_free(stack);
}

/* ---- ZERO and DISCARD ---- */

Test(safety_05, zero_and_discard_supersede_and_are_sent_again)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, 4 * B, 1);
	cr_assert_eq(run(submit(stack, IO_ZERO, B, B, 0)), 0);
	cr_assert_eq(run(submit(stack, IO_DISCARD, 2 * B, B, 0)), 0);
	cr_assert_eq(kept(stack), 4 * B);
	memory_block_forget_records(stack->memory);
	crash(stack);
	step_all(stack);
	expect_below(stack, "WRITE 0+4096, ZERO 4096+4096, DISCARD 8192+4096, WRITE 12288+4096");
	expect_content(stack, B, B, 0);
	expect_content(stack, 2 * B, B, MEMORY_DISCARDED);
	flush_ok(stack);
	stack_free(stack);
}

/* ---- FLUSH across LOST ---- */

Test(safety_02, a_flush_is_never_replayed_across_lost)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	expect_below(stack, "WRITE 0+4096, FLUSH");
	crash(stack);
	expect_below(stack, "WRITE 0+4096");
	cr_assert_eq(flush->error, PENDING);
	step(stack);
	expect_below(stack, "FLUSH");
	cr_assert_eq(flush->error, PENDING);
	cr_assert_eq(kept(stack), B);
	step(stack);
	cr_assert_eq(end(flush), 0);
	cr_assert_eq(kept(stack), 0);
	crash(stack);
	expect_content(stack, 0, B, 1);
	stack_free(stack);
}

Test(safety_02, a_flush_that_succeeds_in_another_epoch_is_done_again)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	memory_block_fill(stack->memory, memory_block_stable(stack->memory)); /* forgotten */
	struct request *flush = submit_flush(stack);
	raise_event(stack, BLOCK_LOST);
	memory_block_forget_records(stack->memory);
	step(stack); /* it found an empty cache */
	cr_assert_eq(flush->error, PENDING);
	cr_assert_eq(kept(stack), B);
	expect_below(stack, "WRITE 0+4096");
	cr_assert_eq(run(flush), 0);
	expect_below(stack, "FLUSH");
	expect_content(stack, 0, B, 1);
	stack_free(stack);
}

Test(safety_02, a_flush_that_comes_while_a_resend_is_under_way_waits_for_it)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	crash(stack);
	struct request *flush = submit_flush(stack);
	memory_block_forget_records(stack->memory);
	cr_assert_eq(memory_block_in_flight(stack->memory), 1);
	step(stack);
	expect_below(stack, "FLUSH");
	cr_assert_eq(run(flush), 0);
	stack_free(stack);
}

Test(safety_02, a_cancelled_flush_or_write_that_came_back_is_not_sent_again)
{
	struct stack *stack = stack_new();

	write_ok(stack, B, B, 1);
	struct request *write = submit(stack, IO_WRITE, 0, B, 1);
	struct request *flush = submit_flush(stack);
	write->cancelled = flush->cancelled = true;
	memory_block_forget_records(stack->memory);
	crash(stack);
	turn(stack);
	cr_assert_eq(end(write), -EINTR, "it waits for the resend");
	cr_assert_eq(end(flush), -EINTR);
	step_all(stack);
	expect_below(stack, "WRITE 4096+4096");
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_10, what_is_held_and_cancelled_is_never_sent)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	crash(stack);
	struct request *write = submit(stack, IO_WRITE, B, B, 2);
	write->cancelled = true;
	memory_block_forget_records(stack->memory);
	cr_assert_eq(run(write), -EINTR);
	expect_below(stack, "");
	flush_ok(stack);
	stack_free(stack);
}

/* ---- LOST ---- */

Test(safety_03, after_lost_goes_what_is_kept_then_what_came_back_then_what_came_since)
{
	struct stack *stack = stack_new();

	write_ok(stack, 8 * B, B, 1);
	write_ok(stack, 4 * B, B, 1);
	struct request *first = submit(stack, IO_WRITE, 4 * B, B, 2);
	struct request *second = submit(stack, IO_ZERO, 2 * B, B, 0);
	struct request *flush = submit_flush(stack);
	memory_block_shuffle(stack->memory, 7);
	memory_block_forget_records(stack->memory);
	raise_event(stack, BLOCK_LOST);
	struct request *held = submit(stack, IO_WRITE, 0, B, 3);
	expect_below(stack, ""); /* before all are back nothing goes */
	memory_block_crash(stack->memory, -ESTALE);
	expect_below(stack, "WRITE 16384+4096, WRITE 32768+4096");
	step(stack);
	expect_below(stack, "");
	step(stack);
	expect_below(stack, "WRITE 16384+4096, ZERO 8192+4096, FLUSH, WRITE 0+4096");
	step_all(stack);
	cr_assert_eq(end(first) | end(second) | end(flush) | end(held), 0);
	expect_content(stack, 4 * B, B, 2);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_03, a_write_that_succeeds_in_another_epoch_is_sent_again_before_it_is_acknowledged)
{
	struct stack *stack = stack_new();
	struct request *write = submit(stack, IO_WRITE, 0, B, 1);

	cr_assert(memory_block_execute(stack->memory));
	memory_block_fill(stack->memory, memory_block_stable(stack->memory)); /* forgotten */
	raise_event(stack, BLOCK_LOST);
	step(stack); /* with GOOD */
	cr_assert_eq(write->error, PENDING);
	cr_assert_eq(run(write), 0);
	expect_below(stack, "WRITE 0+4096, WRITE 0+4096");
	expect_content(stack, 0, B, 1);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_03, a_write_that_fails_in_another_epoch_is_sent_again)
{
	struct stack *stack = stack_new();

	memory_block_fail(stack->memory, 0, -EIO);
	struct request *write = submit(stack, IO_WRITE, 0, B, 1);
	raise_event(stack, BLOCK_LOST);
	cr_assert_eq(run(write), 0);
	expect_content(stack, 0, B, 1);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_03, a_loss_that_the_epoch_tells_before_the_event_counts_from_then)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	stack->memory->block.epoch++;
	stack->retain->epoch++;
	step(stack);
	cr_assert_eq(flush->error, PENDING);
	cr_assert_eq(kept(stack), B);
	cr_assert_eq(run(flush), 0);
	stack_free(stack);
}

Test(safety_03, lost_during_the_resend_starts_it_over)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	write_ok(stack, 8 * B, B, 2);
	struct request *held = NULL;
	for (int i = 0; i < 5; i++) {
		crash(stack);
		if (!held)
			held = submit(stack, IO_WRITE, 16 * B, B, 3);
		memory_block_forget_records(stack->memory);
		step(stack);
		expect_below(stack, "");
		cr_assert(retain_stats(stack->retain)->resending);
		crash(stack); /* it forgets the one that was sent again, too */
		expect_below(stack, "WRITE 0+4096, WRITE 32768+4096");
	}
	cr_assert_eq(run(held), 0);
	cr_assert_not(retain_stats(stack->retain)->resending);
	cr_assert_eq(kept(stack), 3 * B);
	flush_ok(stack);
	crash(stack);
	expect_content(stack, 0, B, 1);
	expect_content(stack, 8 * B, B, 2);
	expect_content(stack, 16 * B, B, 3);
	stack_free(stack);
}

Test(safety_03, a_read_after_lost_sees_what_is_kept)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, 4 * B, 1);
	cr_assert_eq(run(submit(stack, IO_ZERO, B, B, 0)), 0);
	crash(stack);
	memset(stack->memory->content, 9, 8 * B);
	struct request *read = submit(stack, IO_READ, 0, 5 * B, 0x77);
	while (read->error == PENDING) {
		/* the READ is the newest below; it is done before the resend */
		memory_block_shuffle(stack->memory, stack->done + (unsigned)g_random_int());
		step(stack);
	}
	for (int i = 0; i < 5 * B; i++)
		cr_assert_eq(read->data[i], i / B == 1 ? 0 : i / B == 4 ? 9 : 1, "byte %d", i);
	cr_assert_eq(run(read), 0);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_03, a_read_that_saw_the_target_before_the_resend_is_put_right_however_late_it_is)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	memory_block_fill(stack->memory, memory_block_stable(stack->memory)); /* forgotten */
	struct request *before = submit(stack, IO_READ, 0, B, 0x77);
	struct request *flushed = submit(stack, IO_READ, 0, B, 0x77);
	cr_assert(memory_block_execute(stack->memory));
	cr_assert(memory_block_execute(stack->memory));
	raise_event(stack, BLOCK_LOST);
	/* now the order below is: READ, READ, resend; a FLUSH comes behind them */
	cr_assert_eq(memory_block_peek(stack->memory, 2)->op, IO_WRITE);
	memory_block_step_at(stack->memory, 2);
	memory_block_step_at(stack->memory, 0);
	cr_assert_eq(before->data[0], 1, "the overlay is missing");
	struct request *flush = submit_flush(stack);
	memory_block_step_at(stack->memory, 1);
	cr_assert_eq(end(flush), 0);
	cr_assert_eq(kept(stack), 0);
	step_all(stack);
	cr_assert_eq(flushed->data[0], 1, "what was released is missing");
	cr_assert_eq(end(before) | end(flushed), 0);
	stack_free(stack);
}

Test(safety_03, a_read_that_comes_back_with_estale_is_submitted_again)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	flush_ok(stack);
	memory_block_forget_records(stack->memory);
	struct request *read = submit(stack, IO_READ, 0, B, 0x77);
	crash(stack);
	cr_assert_eq(read->error, PENDING);
	step_all(stack);
	cr_assert_eq(read->data[0], 1);
	cr_assert_eq(end(read), 0);
	expect_below(stack, "READ 0+4096, READ 0+4096");
	stack_free(stack);
}

static void ghost_story(bool ghosts_stay, uint8_t expected)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	flush_ok(stack);
	struct request *old = submit(stack, IO_WRITE, 0, B, 2);
	old->cancelled = true;
	memory_block_lose(stack->memory);
	turn(stack);
	cr_assert_eq(end(old), -EINTR);
	cr_assert_eq(memory_block_ghosts(stack->memory), 1);
	struct request *new = submit(stack, IO_WRITE, 0, B, 3);
	cr_assert_not(memory_block_step(stack->memory), "it waits for the new session");
	memory_block_back(stack->memory, ghosts_stay);
	cr_assert_eq(run(new), 0);
	memory_block_land(stack->memory);
	expect_content(stack, 0, B, expected);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_11, a_ghost_of_the_old_session_lands_never_after_a_new_write)
{
	ghost_story(false, 3);
}

Test(safety_11, a_ghost_that_outlives_reinstatement_would_be_seen_by_this_test)
{
	ghost_story(true, 2);
}

Test(safety_11, a_ghost_that_lands_before_reinstatement_is_overwritten_by_its_resend)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *newer = submit(stack, IO_WRITE, 0, B, 2);
	memory_block_lose(stack->memory);
	cr_assert(memory_block_land(stack->memory));
	expect_content(stack, 0, B, 2);
	memory_block_back(stack->memory, false);
	memory_block_forget_records(stack->memory);
	cr_assert_eq(run(newer), 0); /* old 1 went first, then 2 */
	expect_content(stack, 0, B, 2);
	flush_ok(stack);
	stack_free(stack);
}
