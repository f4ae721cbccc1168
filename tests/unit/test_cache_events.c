/*
 * test_cache_events.c - what cache promises when something happens below, a sentence each.
 */
#include "unit/test_cache_stack.h"

/* ---- CHANGED, RESIZED ---- */

Test(cache, changed_drops_what_was_read_and_keeps_what_is_dirty)
{
	struct stack *stack = stack_new();

	read_ok(stack, 0, 4 * B);
	write_back_ok(stack, B, B, 1);
	memset(stack->memory->content, 7, 4 * B);
	raise_event(stack, BLOCK_CHANGED);
	cr_assert_eq(dirty(stack), B);
	expect_read(stack, 0, B, 7);
	expect_read(stack, B, B, 1);
	expect_read(stack, 2 * B, 2 * B, 7);
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "4096+4096");
	cr_assert_eq(stack->events[BLOCK_CHANGED], 1);
	stack_free(stack);
}

Test(cache, changed_drops_the_clean_parts_of_dirty_pages)
{
	struct stack *stack = stack_new();

	read_ok(stack, 0, 2 * B);
	write_back_ok(stack, S, S, 1);
	memset(stack->memory->content, 7, 2 * B);
	raise_event(stack, BLOCK_CHANGED);
	expect_read(stack, 0, S, 7);
	expect_read(stack, S, S, 1);
	expect_read(stack, 2 * S, B, 7);
	flush_ok(stack);
	expect_below(stack, IO_WRITE, "512+512");
	stack_free(stack);
}

Test(cache, changed_drops_what_is_being_read)
{
	const uint32_t flags[] = {0, IO_LEND};

	for (unsigned i = 0; i < 2; i++) {
		struct stack *stack = stack_new();
		struct request *read = submit_flags(stack, IO_READ, 0, 4 * B, 0, flags[i]);
		turn(stack);
		memory_block_execute(stack->memory); /* it has seen the old content */
		memset(stack->memory->content, 7, 4 * B);
		raise_event(stack, BLOCK_CHANGED);
		cr_assert_eq(run(read), 0);
		expect_read(stack, 0, 4 * B, 7);
		stack_free(stack);
	}
}

Test(cache, changed_while_dirty_data_leaves_drops_it_when_it_is_clean)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	raise_event(stack, BLOCK_CHANGED);
	cr_assert_eq(run(flush), 0);
	expect_stable(stack, 0, B, 1);
	expect_read(stack, 0, B, 1);
	stack_free(stack);
}

static void resize(struct stack *stack, uint64_t size)
{
	stack->memory->block.size = size;
	raise_event(stack, BLOCK_RESIZED);
}

Test(safety_14, a_lun_that_shrinks_is_not_read_beyond_its_end_nor_found_there_when_it_grows)
{
	struct stack *stack = stack_new();
	uint64_t size = stack->memory->block.size;

	read_ok(stack, size - 4 * B, 4 * B);
	write_back_ok(stack, 0, B, 1);
	resize(stack, size - 2 * B + S);
	cr_assert_eq(stack->cache->size, size - 2 * B + S);
	cr_assert_neq(run(submit(stack, IO_READ, size - B, B, 0)), 0);
	cr_assert_neq(run(submit(stack, IO_WRITE, size - B, B, 1)), 0);
	expect_read(stack, size - 4 * B, 2 * B + S, 0);
	memset(stack->memory->content + size - 2 * B + S, 7, 2 * B - S);
	resize(stack, size);
	expect_read(stack, size - 2 * B, S, 0);
	expect_read(stack, size - 2 * B + S, 2 * B - S, 7);
	flush_ok(stack);
	expect_stable(stack, 0, B, 1);
	stack_free(stack);
}

/* A disk whose dirty data lies beyond the end is GONE; where it is not, nothing may be sent there.
 */
Test(safety_14, dirty_data_beyond_the_end_is_not_sent_there)
{
	struct stack *stack = stack_new();
	uint64_t size = stack->memory->block.size;

	write_back_ok(stack, size - 4 * B, 4 * B, 1);
	resize(stack, size - 2 * B);
	run(submit_flush(stack)); /* memory_block fails the test where a WRITE goes beyond */
	settle(stack);
	cr_assert_eq(run(submit_flush(stack)), run(submit_flush(stack)));
	expect_content(stack, size - 4 * B, 2 * B, 1);
	expect_read(stack, size - 4 * B, 2 * B, 1);
	resize(stack, size);
	run(submit_flush(stack));
	settle(stack);
	stack_free(stack);
}

Test(cache, a_lun_that_grows_is_read_and_written_there)
{
	struct stack *stack = stack_new();
	uint64_t size = stack->memory->block.size;

	resize(stack, size - 2 * B + S);
	read_ok(stack, size - 4 * B, 2 * B + S);
	memset(stack->memory->content + size - 2 * B + S, 7, 2 * B - S);
	resize(stack, size);
	expect_read(stack, size - 2 * B, S, 0);
	expect_read(stack, size - 2 * B + S, 2 * B - S, 7);
	write_back_ok(stack, size - B, B, 1);
	flush_ok(stack);
	expect_stable(stack, size - B, B, 1);
	stack_free(stack);
}

/* ---- LOST ---- */

Test(safety_03, a_target_that_forgets_has_all_again_after_the_next_flush)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	write_back_ok(stack, B, B, 2);
	step(stack); /* the WRITE */
	turn(stack);
	crash(stack);
	cr_assert_eq(run(flush), 0);
	expect_stable(stack, 0, B, 1);
	expect_read(stack, 0, B, 1);
	flush_ok(stack);
	expect_stable(stack, B, B, 2);
	stack_free(stack);
}

Test(safety_03, a_write_that_is_written_again_while_the_first_is_sent_again_is_the_newer)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 0, B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	write_back_ok(stack, 0, B, 2);
	crash(stack);
	turn(stack);
	struct request *second = submit_flush(stack);
	cr_assert_eq(run(flush), 0);
	cr_assert_eq(run(second), 0);
	expect_stable(stack, 0, B, 2);
	expect_read(stack, 0, B, 2);
	stack_free(stack);
}

/* ---- FENCED ---- */

Test(safety_07, fenced_drops_what_is_dirty_tells_it_and_never_writes_it)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 50});

	write_back_ok(stack, B, B, 1);
	raise_event(stack, BLOCK_FENCED);
	turn(stack);
	cr_assert_eq(dirty(stack), 0);
	bool told = stack->events[BLOCK_FORGOTTEN] > 0;
	told |= run(submit_flush(stack)) != 0;
	cr_assert(told, "acknowledged data is dropped, and nobody hears of it");
	wait_ms(stack, 300);
	run(submit_flush(stack));
	expect_below(stack, IO_WRITE, "");
	expect_read(stack, B, B, 0);
	stack_free(stack);
}

Test(safety_07, fenced_while_data_leaves_does_not_send_it_again)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 50});

	write_back_ok(stack, B, B, 1);
	struct request *flush = submit_flush(stack);
	turn(stack);
	write_back_ok(stack, B, S, 2);
	write_back_ok(stack, 8 * B, B, 3);
	raise_event(stack, BLOCK_FENCED);
	memory_block_end_all(stack->memory, -EBADE);
	forget_below(stack);
	cr_assert_neq(run(flush), 0);
	wait_ms(stack, 300);
	settle(stack);
	expect_below(stack, IO_WRITE, "");
	cr_assert_eq(dirty(stack), 0);
	cr_assert_gt(stack->events[BLOCK_FORGOTTEN], 0);
	stack_free(stack);
}

Test(safety_07, fenced_with_nothing_dirty_forgets_nothing)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, B, B, 1);
	flush_ok(stack);
	raise_event(stack, BLOCK_FENCED);
	turn(stack);
	cr_assert_eq(stack->events[BLOCK_FORGOTTEN], 0);
	stack_free(stack);
}

/* ---- GONE, BACK ---- */

static void go(struct stack *stack)
{
	memory_block_fail_all(stack->memory, -EIO);
	raise_event(stack, BLOCK_GONE);
	memory_block_end_all(stack->memory, -EIO);
	turn(stack);
}

static void come_back(struct stack *stack)
{
	memory_block_fail_all(stack->memory, 0);
	raise_event(stack, BLOCK_BACK);
	turn(stack);
}

Test(cache, while_the_lun_is_gone_writes_fail_and_what_is_dirty_stays)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 50});

	write_back_ok(stack, B, B, 1);
	go(stack);
	cr_assert_eq(run(submit(stack, IO_WRITE, 2 * B, B, 2)), -EIO);
	cr_assert_eq(run(submit(stack, IO_WRITE, B, S, 2)), -EIO);
	cr_assert_eq(run(submit_flush(stack)), -EIO);
	wait_ms(stack, 200);
	settle(stack);
	cr_assert_eq(dirty(stack), B);
	expect_below(stack, IO_WRITE, "");
	come_back(stack);
	flush_ok(stack);
	expect_stable(stack, B, B, 1);
	expect_stable(stack, 2 * B, B, 0);
	stack_free(stack);
}

Test(cache, what_is_dirty_is_written_by_itself_when_the_lun_is_back)
{
	struct stack *stack = stack_new_with(&(struct stack_options){.dirty_expire_ms = 50});

	write_back_ok(stack, B, B, 1);
	go(stack);
	wait_ms(stack, 200);
	come_back(stack);
	for (int i = 0; i < 800 && dirty(stack); i++) {
		step_all(stack);
		wait_ms(stack, 10);
	}
	cr_assert_eq(dirty(stack), 0);
	settle(stack);
	expect_content(stack, B, B, 1);
	stack_free(stack);
}

Test(cache, when_the_lun_goes_what_waits_ends)
{
	struct stack *stack = stack_new();

	write_back_ok(stack, 8 * B, B, 1);
	struct request *read = submit(stack, IO_READ, 0, B, 0);
	struct request *flush = submit_flush(stack);
	struct request *fua = submit_flags(stack, IO_WRITE, 2 * B, B, 2, IO_FUA);
	struct request *behind = submit_flags(stack, IO_WRITE, 2 * B, B, 3, IO_DIRECT);
	struct request *zero = submit(stack, IO_ZERO, 2 * B, B, 0);
	turn(stack);
	go(stack);
	for (int i = 0; i < 10; i++) { /* as the disk does: it answers, with errors */
		memory_block_step_all(stack->memory);
		turn(stack);
	}
	cr_assert_eq(end(read), -EIO);
	cr_assert_eq(end(flush), -EIO);
	cr_assert_eq(end(fua), -EIO);
	cr_assert_eq(end(behind), -EIO);
	cr_assert_eq(end(zero), -EIO);
	cr_assert_eq(dirty(stack), B);
	come_back(stack);
	flush_ok(stack);
	expect_stable(stack, 8 * B, B, 1);
	stack_free(stack);
}

Test(cache, when_the_lun_goes_a_write_that_waits_for_memory_ends)
{
	struct stack *stack =
	    stack_new_with(&(struct stack_options){.limit = 1 << 20, .size = 16 << 20});
	uint64_t bytes;
	struct request *write = write_until_it_waits(stack, &bytes);

	cr_assert(write, "%lu bytes are dirty in 1 MiB of memory", (unsigned long)bytes);
	go(stack);
	for (int i = 0; i < 100 && !is_done(write); i++) {
		memory_block_step_all(stack->memory);
		wait_ms(stack, 10);
	}
	cr_assert_eq(end(write), -EIO);
	come_back(stack);
	flush_ok(stack);
	expect_stable(stack, 0, bytes, 1);
	stack_free(stack);
}
