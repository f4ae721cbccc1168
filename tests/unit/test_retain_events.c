/*
 * test_retain_events.c - what retain promises, a sentence each: the kinds of LUNs, targets that are
 * gone, fences, resends that fail, memory, and what it tells of itself.
 */
#include "unit/test_retain_stack.h"

/* ---- LUNs without a volatile cache ---- */

Test(safety_01, without_a_volatile_cache_nothing_is_kept_and_good_is_good)
{
	struct stack *stack = stack_new();

	stack->memory->block.limits.volatile_cache = false;
	write_ok(stack, 0, B, 1);
	cr_assert_eq(kept(stack), 0);
	cr_assert_eq(stack->limits.used, 0);
	struct request *write = submit(stack, IO_WRITE, B, B, 2);
	struct request *flush = submit_flush(stack);
	memory_block_forget_records(stack->memory);
	raise_event(stack, BLOCK_LOST);
	cr_assert_eq(run(write), 0);
	cr_assert_eq(end(flush), 0);
	expect_below(stack, "");
	write = submit(stack, IO_WRITE, B, B, 3);
	memory_block_forget_records(stack->memory);
	memory_block_crash(stack->memory, -ESTALE);
	cr_assert_eq(run(write), 0);
	expect_below(stack, "WRITE 4096+4096");
	expect_content(stack, B, B, 3);
	stack_free(stack);
}

Test(safety_01, a_cache_that_is_turned_off_releases_nothing_before_a_flush)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *during = submit(stack, IO_WRITE, B, B, 2);
	stack->memory->block.limits.volatile_cache = false;
	cr_assert_eq(run(during), 0);
	cr_assert_eq(kept(stack), 2 * B);
	crash(stack);
	struct request *flush = submit_flush(stack);
	cr_assert_eq(run(flush), 0);
	expect_content(stack, 0, B, 1);
	cr_assert_eq(kept(stack), 0);
	write_ok(stack, 0, B, 3);
	cr_assert_eq(kept(stack), 0);
	stack_free(stack);
}

Test(safety_01, estale_without_lost_is_taken_for_lost)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	memory_block_fail(stack->memory, 0, -ESTALE);
	struct request *flush = submit_flush(stack);
	memory_block_forget_records(stack->memory);
	cr_assert_eq(run(flush), 0);
	expect_below(stack, "WRITE 0+4096, FLUSH");
	stack_free(stack);
}

/* ---- other hosts ---- */

Test(safety_07, a_fence_drops_what_is_kept_and_the_next_flush_fails_once)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *write = submit(stack, IO_WRITE, B, B, 2);
	memory_block_forget_records(stack->memory);
	raise_event(stack, BLOCK_FENCED);
	cr_assert_eq(stack->forgotten, 1);
	cr_assert_eq(run(write), -EBADE, "it was in flight, and is not known to be done");
	cr_assert_eq(kept(stack), 0);
	cr_assert_eq(stack->limits.used, 0);
	crash(stack);
	step_all(stack);
	expect_below(stack, "");
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	cr_assert_eq(run(submit_flush(stack)), 0);
	cr_assert_eq(stack->forgotten, 1);
	stack_free(stack);
}

Test(safety_07, a_fence_after_lost_sends_nothing_again)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *write = submit(stack, IO_WRITE, B, B, 2);
	struct request *other = submit(stack, IO_WRITE, 2 * B, B, 2);
	raise_event(stack, BLOCK_LOST);
	memory_block_fail(stack->memory, 0, 0);
	step(stack); /* back, and waits for the other one */
	memory_block_forget_records(stack->memory);
	raise_event(stack, BLOCK_FENCED);
	step_all(stack);
	expect_below(stack, "");
	cr_assert_eq(end(write), -EBADE);
	cr_assert_eq(end(other), -EBADE);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	stack_free(stack);
}

Test(safety_07, a_reservation_conflict_of_a_resend_is_a_fence)
{
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < 12; i++)
		write_ok(stack, (uint64_t)i * 2 * B, B, 1);
	struct request *write = submit(stack, IO_WRITE, B, B, 2);
	struct request *flush = submit_flush(stack);
	memory_block_fail(stack->memory, 0, -EBADE);
	crash(stack);
	struct request *held = submit(stack, IO_WRITE, 3 * B, B, 3);
	memory_block_forget_records(stack->memory);
	step_all(stack);
	expect_below(stack, "WRITE 12288+4096"); /* of its own, and no one's copy */
	cr_assert_eq(end(write), -EBADE);
	cr_assert_eq(end(flush), -EBADE);
	cr_assert_eq(end(held), 0);
	cr_assert_eq(stack->forgotten, 1);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_07, a_shared_lun_sends_nothing_acknowledged_again_and_says_what_is_forgotten)
{
	struct stack *stack = stack_new_with(false, NULL);

	write_ok(stack, 0, B, 1);
	cr_assert_eq(kept(stack), 0);
	flush_ok(stack);
	crash(stack);
	cr_assert_eq(stack->forgotten, 0, "all was flushed");
	write_ok(stack, 0, B, 2);
	struct request *unacknowledged = submit(stack, IO_WRITE, B, B, 3);
	memory_block_forget_records(stack->memory);
	crash(stack);
	cr_assert_eq(stack->forgotten, 1);
	cr_assert_eq(run(unacknowledged), 0);
	expect_below(stack, "WRITE 4096+4096");
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_07, every_flush_that_a_shared_lun_has_when_it_forgets_fails)
{
	struct stack *stack = stack_new_with(false, NULL);

	write_ok(stack, 0, B, 1);
	struct request *one = submit_flush(stack), *two = submit_flush(stack);
	crash(stack);
	cr_assert_eq(run(one), -EIO);
	cr_assert_eq(end(two), -EIO);
	flush_ok(stack);
	stack_free(stack);
}

/* ---- GONE ---- */

Test(retain, a_target_that_is_gone_fails_writes_and_keeps_what_is_kept)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	struct request *in_flight = submit(stack, IO_WRITE, B, B, 2);
	raise_event(stack, BLOCK_LOST);
	struct request *held = submit(stack, IO_WRITE, 2 * B, B, 2);
	struct request *flush = submit_flush(stack);
	raise_event(stack, BLOCK_GONE);
	cr_assert_eq(held->error, PENDING, "done from inside an event");
	turn(stack);
	cr_assert_eq(end(held), -EIO);
	cr_assert_eq(end(flush), -EIO);
	memory_block_forget_records(stack->memory);
	cr_assert_eq(run(in_flight), -EIO);
	cr_assert_eq(run(submit(stack, IO_ZERO, 2 * B, B, 2)), -EIO);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	expect_below(stack, "");
	expect_read(stack, 0, B, 1);
	expect_below(stack, "READ 0+4096");
	cr_assert_eq(kept(stack), B);
	cr_assert(retain_stats(stack->retain)->resending);
	raise_event(stack, BLOCK_BACK);
	expect_below(stack, "WRITE 0+4096");
	step_all(stack);
	cr_assert_not(retain_stats(stack->retain)->resending);
	flush_ok(stack);
	stack_free(stack);
}

Test(retain, a_resend_that_fails_as_the_target_is_gone_stays_due_until_it_is_back)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	write_ok(stack, 2 * B, B, 2);
	crash(stack);
	raise_event(stack, BLOCK_GONE);
	memory_block_forget_records(stack->memory);
	memory_block_end_all(stack->memory, -EIO);
	expect_below(stack, "");
	expect_read(stack, 0, B, 1);
	memory_block_forget_records(stack->memory);
	raise_event(stack, BLOCK_BACK);
	expect_below(stack, "WRITE 0+4096, WRITE 8192+4096");
	flush_ok(stack);
	expect_content(stack, 2 * B, B, 2);
	stack_free(stack);
}

Test(retain, gone_and_back_without_lost_resend_nothing)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	memory_block_forget_records(stack->memory);
	raise_event(stack, BLOCK_GONE);
	raise_event(stack, BLOCK_BACK);
	step_all(stack);
	expect_below(stack, "");
	cr_assert_eq(kept(stack), B);
	flush_ok(stack);
	stack_free(stack);
}

/* ---- resends ---- */

Test(retain, adjoining_writes_are_sent_again_as_one_of_at_most_64_pieces_and_256_kib)
{
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < 130; i++)
		write_ok(stack, (uint64_t)i * B, B, (uint8_t)(i + 1));
	write_ok(stack, 1 << 20, 600 << 10, 0xaa);
	write_ok(stack, (1 << 20) + (600 << 10), 512, 0xab);
	for (unsigned i = 0; i < 66; i++)
		write_ok(stack, (3 << 20) + i * 512, 512, (uint8_t)(i + 1));
	memory_block_forget_records(stack->memory);
	crash(stack);
	step_all(stack);
	expect_below(stack, "WRITE 0+262144, WRITE 262144+262144, WRITE 524288+8192, "
	                    "WRITE 1048576+262144, WRITE 1310720+262144, WRITE 1572864+90624, "
	                    "WRITE 3145728+32768, WRITE 3178496+1024");
	for (unsigned i = 0; i < 130; i++)
		expect_content(stack, (uint64_t)i * B, B, (uint8_t)(i + 1));
	expect_content(stack, 1 << 20, 600 << 10, 0xaa);
	flush_ok(stack);
	stack_free(stack);
}

Test(retain, at_most_8_resends_are_in_flight)
{
	struct stack *stack = stack_new();

	for (unsigned i = 0; i < 20; i++)
		write_ok(stack, (uint64_t)i * 2 * B, B, 1);
	crash(stack);
	for (unsigned left = 20; left; left--) {
		cr_assert_eq(memory_block_in_flight(stack->memory), MIN(left, 8));
		step(stack);
	}
	cr_assert_eq(retain_stats(stack->retain)->resent_writes, 20);
	cr_assert_eq(retain_stats(stack->retain)->resent_bytes, 20 * B);
	flush_ok(stack);
	stack_free(stack);
}

Test(retain, what_fails_to_be_sent_again_is_kept_and_the_next_flush_tries_once_more)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	write_ok(stack, 2 * B, B, 2);
	memory_block_fail(stack->memory, 0, -EIO);
	crash(stack);
	memory_block_forget_records(stack->memory);
	step_all(stack);
	cr_assert_eq(kept(stack), 2 * B);
	write_ok(stack, 4 * B, B, 3); /* others go on */
	expect_read(stack, 0, B, 1);  /* and see what was acknowledged */
	memory_block_forget_records(stack->memory);
	memory_block_fail(stack->memory, 0, -ENOSPC);
	cr_assert_eq(run(submit_flush(stack)), -ENOSPC);
	expect_below(stack, "WRITE 0+4096");
	cr_assert_eq(run(submit_flush(stack)), 0);
	expect_below(stack, "WRITE 0+4096, FLUSH");
	cr_assert_eq(kept(stack), 0);
	expect_content(stack, 0, B, 1);
	stack_free(stack);
}

Test(retain, a_new_write_heals_what_failed_to_be_sent_again)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, B, 1);
	memory_block_fail(stack->memory, 0, -EIO);
	crash(stack);
	step_all(stack);
	cr_assert(retain_stats(stack->retain)->resending);
	write_ok(stack, 0, B, 2);
	cr_assert_not(retain_stats(stack->retain)->resending);
	memory_block_forget_records(stack->memory);
	flush_ok(stack);
	expect_below(stack, "FLUSH");
	expect_content(stack, 0, B, 2);
	stack_free(stack);
}

/* ---- memory ---- */

/* What n separate writes of a block take. */
static size_t taken(unsigned n)
{
	struct stack *stack = stack_new();
	size_t memory;

	write_ok(stack, 0, B, 1);
	memory = retain_stats(stack->retain)->memory;
	flush_ok(stack);
	stack_free(stack);
	return n * memory;
}

Test(safety_08, at_half_of_the_memory_it_flushes_by_itself)
{
	struct stack *stack = stack_new();

	stack->limits.limit = taken(20);
	stack->limits.floor = 0;
	for (unsigned i = 0; i < 10; i++) {
		struct request *write = submit(stack, IO_WRITE, (uint64_t)i * B, B, 1);
		step(stack);
		cr_assert_eq(end(write), 0);
		cr_assert_eq(memory_block_in_flight(stack->memory), 0, "it flushes at %u", i);
	}
	struct request *write = submit(stack, IO_WRITE, 10 * B, B, 1);
	step(stack);
	cr_assert_eq(end(write), 0);
	cr_assert_eq(memory_block_in_flight(stack->memory), 1, "one, and no more");
	write = submit(stack, IO_WRITE, 11 * B, B, 1);
	step_all(stack);
	cr_assert_eq(end(write), 0);
	cr_assert_eq(retain_stats(stack->retain)->own_flushes, 1);
	cr_assert_eq(kept(stack), B, "only the last was not done before the FLUSH was sent");
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_08, at_the_bound_writes_wait_in_order_until_there_is_room)
{
	struct stack *stack = stack_new();
	struct request *writes[8];

	stack->limits.limit = taken(4);
	stack->limits.floor = 0;
	for (unsigned i = 0; i < 8; i++)
		writes[i] = submit(stack, IO_WRITE, (uint64_t)i * B, B, 1);
	cr_assert_lt(memory_block_in_flight(stack->memory), 5);
	step_all(stack);
	for (unsigned i = 0; i < 8; i++) {
		cr_assert_eq(writes[i]->order, i + 1);
		cr_assert_eq(end(writes[i]), 0);
	}
	cr_assert_leq(stack->limits.used, stack->limits.limit);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_08, an_own_flush_that_fails_fails_the_writes_that_wait_and_pauses)
{
	struct stack *stack = stack_new();
	struct request *writes[4];

	stack->limits.limit = taken(2);
	stack->limits.floor = 0;
	write_ok(stack, 0, B, 1);
	writes[0] = submit(stack, IO_WRITE, B, 4 * B, 1);
	memory_block_end_all(stack->memory, -ENOSPC);
	turn(stack);
	cr_assert_eq(end(writes[0]), -ENOSPC);
	memory_block_forget_records(stack->memory);
	writes[1] = submit(stack, IO_WRITE, B, 4 * B, 2);
	turn(stack);
	expect_below(stack, "");
	while (!memory_block_in_flight(stack->memory))
		g_main_context_iteration(loop_context(stack->loop), TRUE);
	expect_below(stack, "WRITE 0+4096");
	cr_assert_eq(run(writes[1]), 0);
	flush_ok(stack);
	stack_free(stack);
}

Test(safety_08, a_lun_whose_target_is_dead_stops_no_other)
{
	struct frames *frames = frames_new(1 << 20, 1 << 20);
	struct retain_memory limits = {frames, .limit = taken(8), .floor = taken(2)};
	struct stack *dead = stack_new_with(true, &limits);

	/* loops nest as a stack does: the second is freed first */
	for (unsigned i = 0; i < 6; i++) {
		struct request *write = submit(dead, IO_WRITE, (uint64_t)i * B, B, 1);
		memory_block_step_at(
		    dead->memory, memory_block_in_flight(dead->memory) - 1); /* not the FLUSH */
		cr_assert_eq(end(write), 0);
	}
	limits.limit = limits.used;
	struct stack *alive = stack_new_with(true, &limits);
	for (unsigned i = 0; i < 20; i++) {
		struct request *write = submit(alive, IO_WRITE, (uint64_t)i * B, B, 2);
		step_all(alive);
		cr_assert_eq(end(write), 0);
	}
	flush_ok(alive);
	stack_free(alive);
	flush_ok(dead);
	stack_free(dead);
	cr_assert_eq(frames_in_use(frames), 0);
	frames_free(frames);
}

Test(safety_08, what_waits_for_room_and_is_cancelled_is_never_sent)
{
	struct stack *stack = stack_new();

	stack->limits.limit = taken(2);
	stack->limits.floor = 0;
	write_ok(stack, 0, B, 1);
	struct request *write = submit(stack, IO_WRITE, B, 4 * B, 1);
	write->cancelled = true;
	memory_block_forget_records(stack->memory);
	cr_assert_eq(run(write), -EINTR);
	expect_below(stack, "");
	stack_free(stack);
}

Test(safety_08, an_own_flush_that_meets_lost_fails_nobody)
{
	struct stack *stack = stack_new();

	stack->limits.limit = taken(2);
	stack->limits.floor = 0;
	write_ok(stack, 0, B, 1);
	struct request *write = submit(stack, IO_WRITE, B, 4 * B, 2);
	crash(stack);
	cr_assert_eq(run(write), 0);
	expect_content(stack, 0, B, 1);
	expect_content(stack, B, 4 * B, 2);
	flush_ok(stack);
	stack_free(stack);
}

/* ---- below align ---- */

Test(retain, parts_of_blocks_that_align_writes_through_it_survive_a_crash)
{
	struct stack *stack = stack_new();
	struct block *retain = stack->retain;

	write_ok(stack, 0, B, 1);
	flush_ok(stack);
	stack->retain = align_new(retain, stack->loop, stack->pool);
	cr_assert_eq(run(submit(stack, IO_WRITE, 500, 100, 2)), 0);
	struct request *write = submit(stack, IO_WRITE, 550, 1000, 3);
	step(stack); /* it reads the edges */
	crash(stack);
	cr_assert_eq(run(write), 0);
	expect_content(stack, 0, 500, 1);
	expect_content(stack, 500, 50, 2);
	expect_content(stack, 550, 1000, 3);
	expect_content(stack, 1550, B - 1550, 1);
	flush_ok(stack);
	cr_assert_eq(retain_stats(retain)->kept, 0);
	stack->retain->ops->free(stack->retain);
	stack->retain = retain;
	retain->above = NULL;
	stack_free(stack);
}

/* ---- what it tells of itself ---- */

static void add_range(uint64_t start, uint64_t end, void *data)
{
	g_string_append_printf(data, "%lu-%lu ", (unsigned long)start, (unsigned long)end);
}

Test(retain, tells_which_bytes_it_keeps)
{
	struct stack *stack = stack_new();
	g_autoptr(GString) text = g_string_new(NULL);

	cr_assert_eq(retain_reach(stack->retain), 0);
	write_ok(stack, 0, B, 1);
	write_ok(stack, 512 << 10, 300 << 10, 1);
	cr_assert_eq(run(submit(stack, IO_ZERO, B, B, 0)), 0);
	cr_assert_eq(retain_reach(stack->retain), 812 << 10);
	retain_each(stack->retain, add_range, text);
	cr_assert_str_eq(text->str, "0-8192 524288-831488 ");
	flush_ok(stack);
	stack_free(stack);
}

Test(retain, answers_map_with_not_supported)
{
	struct stack *stack = stack_new();
	struct request *map = submit(stack, IO_MAP, 0, B, 0);

	turn(stack);
	cr_assert_eq(end(map), -EOPNOTSUPP);
	stack_free(stack);
}

Test(retain, an_error_of_the_target_goes_up)
{
	struct stack *stack = stack_new();

	memory_block_fail(stack->memory, 0, -EIO);
	cr_assert_eq(run(submit(stack, IO_READ, 0, B, 0)), -EIO);
	memory_block_fail(stack->memory, 0, -ENOSPC);
	cr_assert_eq(run(submit(stack, IO_WRITE, 0, B, 0)), -ENOSPC);
	cr_assert_eq(kept(stack), 0);
	stack_free(stack);
}

Test(retain, frees_what_is_still_kept)
{
	struct stack *stack = stack_new();

	write_ok(stack, 0, 700 << 10, 1);
	cr_assert_eq(run(submit(stack, IO_ZERO, 8 * B, B, 0)), 0);
	stack_free(stack);
}
