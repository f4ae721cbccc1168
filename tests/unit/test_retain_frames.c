/*
 * test_retain_frames.c - what retain keeps where it lies, and what the cache keeps already.
 */
#include "unit/test_retain_stack.h"

static void frames_written(struct io *io, int error)
{
	struct request *write = (struct request *)io;

	cr_assert_eq(error, 0);
	write->error = error;
	frames_release(write->stack->limits.frames, write->iov.iov_base, io->length);
}

/* A WRITE of so many frames, where it lies; whoever submits it holds them until it is done. */
static uint8_t *write_frames(struct stack *stack, uint64_t offset, unsigned count, uint8_t fill)
{
	static struct request write;
	uint64_t length = (uint64_t)count * B;
	uint8_t *run = NULL;

	cr_assert_eq(frames_get(stack->limits.frames, count, &run), count);
	memset(run, fill, length);
	write = (struct request){.iov = {run, length}, .stack = stack, .error = PENDING};
	write.io = (struct io){.op = IO_WRITE,
	    .offset = offset,
	    .length = length,
	    .iov = &write.iov,
	    .niov = 1,
	    .done = frames_written};
	block_submit(stack->retain, &write.io);
	return run;
}

Test(retain, data_in_frames_is_kept_without_a_copy_and_sent_again_from_there)
{
	struct stack *stack = stack_new();
	uint8_t *run = write_frames(stack, B, 3, 5);

	step(stack);
	cr_assert_eq(frame_keepers(stack->frames, run), 1);
	cr_assert_eq(frame_users(stack->frames, run), 1, "and nobody holds it");
	cr_assert_eq(frames_in_use(stack->frames), 3 * B);
	crash(stack);
	cr_assert_eq(memory_block_peek(stack->memory, 0)->niov, 1);
	cr_assert_eq(memory_block_peek(stack->memory, 0)->iov->iov_base, run);
	step_all(stack);
	expect_content(stack, B, 3 * B, 5);
	flush_ok(stack);
	cr_assert_eq(frames_in_use(stack->frames), 0);
	stack_free(stack);
}

Test(safety_08, what_the_cache_keeps_already_waits_for_no_room_at_the_limit_of_the_frames)
{
	struct frames *frames = frames_new(16 * B, 1 << 20); /* that is 64 of them */
	struct retain_memory limits = {frames, .limit = 1 << 20, .floor = 0};
	struct stack *stack = stack_new_with(true, &limits);
	uint8_t *cached;

	stack->limits = limits;
	write_ok(stack, 0, B, 1); /* above the floor from here on */
	memory_block_forget_records(stack->memory);
	cr_assert_eq(frames_get(frames, 63, &cached), 63);
	frames_keep(frames, cached, (size_t)63 * B);
	frames_release(frames, cached, (size_t)63 * B);
	struct io io = {.op = IO_WRITE, .offset = B, .length = 2 * B, .niov = 1};
	struct request write = {.io = io, .iov = {cached, 2 * B}, .stack = stack, .error = PENDING};
	write.io.iov = &write.iov;
	write.io.done = frames_written;
	frames_hold(frames, cached, 2 * B); /* which frames_written() ends */
	block_submit(stack->retain, &write.io);
	turn(stack);
	expect_below(stack, "WRITE 4096+8192");
	step(stack);
	cr_assert_eq(kept(stack), 3 * B);
	struct request *other = submit(stack, IO_WRITE, 8 * B, B, 2);
	turn(stack);
	expect_below(stack, "FLUSH");
	step(stack); /* that makes room */
	expect_below(stack, "WRITE 32768+4096");
	step(stack);
	cr_assert_eq(end(other), 0);
	frames_let_go(frames, cached, (size_t)63 * B);
	flush_ok(stack);
	stack_free(stack);
	cr_assert_eq(frames_in_use(frames), 0);
	frames_free(frames);
}
