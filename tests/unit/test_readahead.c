/*
 * test_readahead.c - what is fetched for a reader before he asks for it: sentences. Several readers
 * at a time, random ones, and a long link are in test_readahead_many.c.
 */
#include "test_readahead_watch.h"

/* ---- one reader ---- */

Test(readahead, one_read_is_no_evidence_and_the_second_one_is)
{
	struct watch watch = watch_new(56 * MIB);

	cr_assert_eq(watch_read(&watch, 1, 0, 128 * KIB, true), 0);
	cr_assert_eq(readahead_window(watch.readahead), 0);
	cr_assert_eq(watch_read(&watch, 1, 128 * KIB, 128 * KIB, true), 128 * KIB);
	cr_assert_eq(watch.ranges[0].offset, 256 * KIB);
	cr_assert_eq(readahead_window(watch.readahead), READAHEAD_MIN);
	watch_free(&watch);
}

Test(readahead, a_sequential_reader_has_a_window_ahead_of_him)
{
	struct watch watch = watch_new(56 * MIB);

	watch_read(&watch, 1, 10 * MIB, 128 * KIB, false);
	for (uint64_t at = 10 * MIB + 128 * KIB; at < 20 * MIB; at += 128 * KIB) {
		cr_assert_eq(watch_read(&watch, 1, at, 128 * KIB, false), 128 * KIB);
		cr_assert(watch_asked(&watch, 10 * MIB + 256 * KIB, at + 256 * KIB));
	}
	cr_assert(watch_asked_once(&watch));
	cr_assert_eq(readahead_window(watch.readahead), READAHEAD_MIN, "he never waited");
	watch_free(&watch);
}

Test(readahead, small_reads_do_not_become_small_commands)
{
	struct watch watch = watch_new(56 * MIB);

	for (uint64_t at = 0; at < 10 * MIB; at += 4 * KIB) {
		watch_read(&watch, 1, at, 4 * KIB, false);
		cr_assert(at == 0 || watch_asked(&watch, 8 * KIB, at + 64 * KIB));
	}
	cr_assert(watch_asked_once(&watch));
	cr_assert_leq(watch.commands, 10 * MIB / (64 * KIB) + 2);
	watch_free(&watch);
}

Test(readahead, the_window_doubles_only_while_the_reader_waits)
{
	struct watch watch = watch_new(56 * MIB);
	uint64_t at = 0;

	for (; at < 2 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, false);
	cr_assert_eq(readahead_window(watch.readahead), READAHEAD_MIN);
	watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert_eq(readahead_window(watch.readahead), 2 * READAHEAD_MIN);
	for (at += 128 * KIB; at < 4 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, false);
	cr_assert_eq(readahead_window(watch.readahead), 2 * READAHEAD_MIN);
	watch_free(&watch);
}

/* All that was on its way when the window doubled is late for the same reason. */
Test(readahead, one_stall_is_one_doubling)
{
	struct watch watch = watch_new(56 * MIB);
	uint64_t at = 0, issued;

	while (readahead_window(watch.readahead) < 4 * MIB) {
		watch_read(&watch, 1, at, 128 * KIB, true);
		at += 128 * KIB;
	}
	issued = at + 2 * MIB; /* when it doubled from 2 MiB */
	for (; at + 256 * KIB < issued; at += 128 * KIB) {
		watch_read(&watch, 1, at, 128 * KIB, true);
		cr_assert_eq(readahead_window(watch.readahead), 4 * MIB);
	}
	for (unsigned i = 0; i < 4; i++, at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert_eq(readahead_window(watch.readahead), 8 * MIB);
	watch_free(&watch);
}

Test(readahead, large_windows_are_asked_for_in_whole_aligned_commands)
{
	struct watch watch = watch_new(8 * MIB);
	uint64_t at = 5 * KIB, before;

	for (; readahead_window(watch.readahead) < 8 * MIB; at += 60 * KIB)
		watch_read(&watch, 1, at, 60 * KIB, true);
	before = at;
	watch.bytes = watch.commands = 0;
	for (; at < 200 * MIB; at += 60 * KIB) {
		watch_read(&watch, 1, at, 60 * KIB, true);
		for (unsigned i = 0; i < watch.count; i++) {
			cr_assert_eq(watch.ranges[i].offset % READAHEAD_COMMAND, 0);
			cr_assert_eq(watch.ranges[i].length, READAHEAD_COMMAND);
		}
		cr_assert(watch_asked(&watch, before + MIB, at + 8 * MIB - READAHEAD_COMMAND),
		    "the window is full but for less than a command");
	}
	watch_free(&watch);
}

Test(readahead, what_does_not_fit_into_one_answer_comes_with_the_next)
{
	struct watch watch = watch_new(56 * MIB);

	watch.max = 2;
	for (uint64_t at = 0; at < 500 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert(watch_asked(&watch, 4 * MIB, 550 * MIB));
	watch.max = 0;
	cr_assert_eq(watch_read(&watch, 1, 500 * MIB, 128 * KIB, true), 0);
	watch_free(&watch);
}

Test(readahead, nothing_beyond_the_end_is_asked_for_and_all_up_to_it_is)
{
	struct watch watch = watch_new(56 * MIB);

	watch.size = 300 * MIB + 512 * 7;
	for (uint64_t at = 0; at < watch.size; at += 100 * KIB)
		watch_read(&watch, 1, at, 100 * KIB, at % 3);
	cr_assert(watch_asked(&watch, 300 * KIB, 300 * MIB));
	cr_assert(watch_asked_once(&watch));
	cr_assert_eq(watch_read(&watch, 1, watch.size, 4 * KIB, true), 0);
	cr_assert_eq(watch_read(&watch, 1, watch.size + MIB, 4 * KIB, true), 0);
	cr_assert_eq(watch_read(&watch, 1, MIB, 0, true), 0);
	watch_free(&watch);
}

Test(readahead, a_lun_that_shrinks_is_not_read_beyond_its_new_end)
{
	struct watch watch = watch_new(56 * MIB);
	uint64_t at = 0;

	for (; at < 100 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	watch.size = 101 * MIB;
	for (; at < 101 * MIB; at += 128 * KIB)
		cr_assert_eq(watch_read(&watch, 1, at, 128 * KIB, true), 0, "it is all asked for");
	watch.size = GIB;
	for (; at < 120 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert(watch_asked(&watch, 102 * MIB, 170 * MIB));
	watch_free(&watch);
}

Test(readahead, the_same_read_again_asks_for_nothing)
{
	struct watch watch = watch_new(56 * MIB);

	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(watch_read(&watch, 1, 4 * MIB, 64 * KIB, true), 0);
	watch_read(&watch, 1, 4 * MIB + 64 * KIB, 64 * KIB, true);
	cr_assert_neq(watch.count, 0);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(watch_read(&watch, 1, 4 * MIB + 64 * KIB, 64 * KIB, true), 0);
	cr_assert_eq(readahead_window(watch.readahead), READAHEAD_MIN);
	watch_free(&watch);
}

/* ---- READs that overtake each other ---- */

/* The READs of a pass, blocks of 128 KiB, in the order that shuffle() gives to each four. */
static void read_shuffled(struct watch *watch, const unsigned order[4])
{
	for (uint64_t group = 0; group < 200; group++)
		for (unsigned i = 0; i < 4; i++)
			watch_read(
			    watch, 1, (group * 4 + order[i]) * 128 * KIB, 128 * KIB, group % 2);
}

Test(readahead, reads_that_overtake_each_other_are_one_stream)
{
	static const unsigned orders[][4] = {
	    {0, 1, 2, 3}, {1, 0, 2, 3}, {0, 2, 1, 3}, {1, 0, 3, 2}, {2, 1, 0, 3}, {1, 2, 3, 0}};

	for (unsigned i = 0; i < G_N_ELEMENTS(orders); i++) {
		struct watch watch = watch_new(8 * MIB);
		read_shuffled(&watch, orders[i]);
		cr_assert(watch_asked_once(&watch), "order %u", i);
		cr_assert_eq(readahead_window(watch.readahead), 8 * MIB, "order %u", i);
		cr_assert(watch_asked(&watch, 2 * MIB, 100 * MIB + 7 * MIB), "order %u", i);
		watch_free(&watch);
	}
}

Test(readahead, a_reader_who_leaves_out_what_is_cached_above_stays_a_stream)
{
	struct watch watch = watch_new(56 * MIB);

	for (uint64_t block = 0; block < 4000; block++) {
		if (block % 10 > 6)
			continue;
		watch_read(&watch, 1, block * 64 * KIB, 64 * KIB, false);
		cr_assert(block == 0 || block % 10 == 6 ||
		          watch_asked(&watch, (block + 1) * 64 * KIB, (block + 2) * 64 * KIB));
	}
	cr_assert(watch_asked_once(&watch));
	watch_free(&watch);
}

Test(readahead, who_reads_every_third_block_is_not_given_the_others)
{
	struct watch watch = watch_new(MIB);

	watch_read(&watch, 1, 0, 64 * KIB, true);
	watch_read(&watch, 1, 64 * KIB, 64 * KIB, true); /* looks like a sequential reader */
	for (uint64_t block = 3; block < 3000; block += 3)
		watch_read(&watch, 1, block * 64 * KIB, 64 * KIB, true);
	cr_assert(watch_asked(&watch, 300 * 64 * KIB, 301 * 64 * KIB));
	cr_assert_leq(watch.bytes, 1020 * 64 * KIB + MIB);
	watch_free(&watch);
}

/* He passes the place where he once ended, with a large window; the old stream's is small. */
static void read_past_an_old_end(bool older_first)
{
	struct watch watch = watch_new(56 * MIB);
	uint64_t at;

	/* The place in the table that is free again when the second stream begins. */
	for (at = 0; !older_first && at < MIB; at += 128 * KIB)
		watch_read(&watch, 2, at, 128 * KIB, false);
	for (at = 400 * MIB; at < 410 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, false);
	readahead_forget(watch.readahead, 2);
	for (at = 100 * MIB; at < 405 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	watch.bytes = 0;
	for (; at < 415 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert_leq(watch.bytes, 10 * MIB + READAHEAD_COMMAND);
	watch_free(&watch);
}

Test(readahead, a_stream_is_not_taken_over_by_one_that_once_ended_on_its_way)
{
	read_past_an_old_end(true);
	read_past_an_old_end(false);
}

/* What was fetched may be evicted by then: only the READs can tell, by waiting. */
Test(readahead, after_a_pause_what_is_missing_is_asked_for_again)
{
	for (unsigned missing = 0; missing < 2; missing++) {
		struct watch watch = watch_new(8 * MIB);
		uint64_t at = 0, bytes;

		for (; at < 50 * MIB; at += 128 * KIB)
			watch_read(&watch, 1, at, 128 * KIB, true);
		for (uint64_t other = 0; other < 20 * MIB; other += 64 * KIB)
			watch_read(&watch, 2, 500 * MIB + other, 64 * KIB, false);
		bytes = watch_read(&watch, 1, at, 128 * KIB, missing);
		if (missing)
			cr_assert_gt(bytes, 3 * MIB, "half the limit: there are two readers");
		else
			cr_assert_eq(bytes, 0);
		watch_free(&watch);
	}
}

/* A reader of whom the kernel has cached a part, or who watches a film. */
Test(readahead, who_skips_inside_the_window_keeps_it)
{
	struct watch watch = watch_new(56 * MIB);
	uint64_t at = 0;

	for (; at < 100 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	at += 30 * MIB;
	cr_assert_eq(watch_read(&watch, 1, at, 128 * KIB, false), 0, "one READ may be anything");
	at += 128 * KIB;
	cr_assert_gt(watch_read(&watch, 1, at, 128 * KIB, false), 29 * MIB);
	cr_assert_eq(readahead_window(watch.readahead), 56 * MIB);
	cr_assert(watch_asked_once(&watch));
	watch_free(&watch);
}

/* ---- strides ---- */

static void read_strided(uint64_t start, int64_t stride, uint64_t length)
{
	struct watch watch = watch_new(4 * MIB);
	uint64_t at = start;

	for (unsigned i = 0; i < 100; i++, at += (uint64_t)stride) {
		uint64_t bytes = watch_read(&watch, 1, at, length, true);
		cr_assert_eq(bytes != 0, i >= 3, "READ %u", i);
		cr_assert(i < 4 || watch_asked(&watch, at, at + length));
	}
	for (unsigned i = 0; i < 10; i++) {
		uint64_t next = at + (uint64_t)stride * i;
		cr_assert(watch_asked(&watch, next, next + length), "READ %u ahead", i);
		cr_assert(!watch_asked(&watch, next + length, next + length + 4 * KIB));
	}
	cr_assert(watch_asked_once(&watch));
	cr_assert_geq(readahead_window(watch.readahead), 512 * KIB, "it doubled, too");
	watch_free(&watch);
}

Test(readahead, equal_strides_are_followed)
{
	read_strided(0, 1 * MIB, 64 * KIB);
	read_strided(12 * KIB, 12 * KIB, 8 * KIB);
	read_strided(8 * KIB, 4 * MIB, 400 * KIB);
}

Test(readahead, equal_strides_are_followed_backward)
{
	read_strided(900 * MIB, -1 * (int64_t)MIB, 64 * KIB);
	read_strided(900 * MIB, -12 * (int64_t)KIB, 8 * KIB);
}

Test(readahead, strided_reads_may_overtake_each_other)
{
	struct watch watch = watch_new(4 * MIB);

	for (uint64_t i = 0; i < 10; i++)
		watch_read(&watch, 1, i * MIB, 64 * KIB, true);
	for (uint64_t i = 10; i < 500; i += 2) {
		watch_read(&watch, 1, (i + 1) * MIB, 64 * KIB, true);
		watch_read(&watch, 1, i * MIB, 64 * KIB, true);
		cr_assert(watch_asked(&watch, (i + 2) * MIB, (i + 2) * MIB + 64 * KIB));
	}
	cr_assert(watch_asked_once(&watch));
	watch_free(&watch);
}

Test(readahead, strides_end_with_the_lun)
{
	struct watch watch = watch_new(4 * MIB);

	watch.size = 100 * MIB + 32 * KIB; /* cuts the last one in half */
	for (uint64_t i = 0; i <= 100; i++)
		watch_read(&watch, 1, i * MIB, 64 * KIB, true);
	cr_assert(watch_asked(&watch, 100 * MIB, 100 * MIB + 32 * KIB));
	for (uint64_t i = 0; i <= 100; i++)
		watch_read(&watch, 2, 100 * MIB - 64 * KIB - i * MIB, 64 * KIB, true);
	cr_assert(watch_asked(&watch, MIB - 64 * KIB, MIB));
	watch_free(&watch);
}

Test(readahead, a_backward_reader_is_followed_in_large_commands)
{
	struct watch watch = watch_new(8 * MIB);
	uint64_t at = 500 * MIB;

	for (; at >= 4 * KIB; at -= 4 * KIB) {
		watch_read(&watch, 1, at - 4 * KIB, 4 * KIB, true);
		if (at < 300 * MIB)
			for (unsigned i = 0; i < watch.count; i++)
				cr_assert_eq(watch.ranges[i].length, READAHEAD_COMMAND);
	}
	cr_assert(watch_asked_once(&watch));
	cr_assert(watch_asked(&watch, 0, 499 * MIB));
	cr_assert_eq(readahead_window(watch.readahead), 8 * MIB);
	watch_free(&watch);
}

/* ---- the limit, and the end of a stream ---- */

Test(readahead, a_limit_of_zero_asks_for_nothing)
{
	struct watch watch = watch_new(0);

	for (uint64_t at = 0; at < 10 * MIB; at += 128 * KIB)
		cr_assert_eq(watch_read(&watch, 1, at, 128 * KIB, true), 0);
	cr_assert_eq(readahead_window(watch.readahead), 0);
	readahead_set_limit(watch.readahead, MIB);
	for (uint64_t at = 10 * MIB; at < 20 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert_eq(readahead_window(watch.readahead), MIB);
	readahead_set_limit(watch.readahead, 0);
	cr_assert_eq(readahead_window(watch.readahead), 0);
	cr_assert_eq(watch_read(&watch, 1, 20 * MIB, 128 * KIB, true), 0);
	watch_free(&watch);
}

Test(readahead, the_window_never_grows_beyond_the_limit_and_is_never_under_its_minimum)
{
	static const size_t limits[] = {1, READAHEAD_MIN, 300 << 10, 5 << 20, 56 << 20, SIZE_MAX};

	for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
		struct watch watch = watch_new(limits[i]);
		size_t most = MAX(limits[i], READAHEAD_MIN);
		uint64_t reach = 0;

		for (uint64_t at = 0; at < 900 * MIB; at += 128 * KIB) {
			watch_read(&watch, 1, at, 128 * KIB, true);
			for (unsigned k = 0; k < watch.count; k++)
				reach = MAX(reach, watch.ranges[k].offset + watch.ranges[k].length);
			cr_assert(reach <= at + 128 * KIB || reach - at - 128 * KIB <= most);
		}
		cr_assert_geq(readahead_window(watch.readahead), READAHEAD_MIN);
		cr_assert(watch_asked_once(&watch));
		watch_free(&watch);
	}
}

Test(readahead, a_smaller_limit_lets_the_reader_catch_up_first)
{
	struct watch watch = watch_new(8 * MIB);
	uint64_t at = 0;

	for (; at < 100 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	readahead_set_limit(watch.readahead, MIB);
	cr_assert_eq(readahead_window(watch.readahead), MIB);
	for (; at < 106 * MIB; at += 128 * KIB)
		cr_assert_eq(watch_read(&watch, 1, at, 128 * KIB, true), 0);
	for (; at < 120 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert(watch_asked(&watch, 100 * MIB, 120 * MIB));
	watch_free(&watch);
}

Test(readahead, a_handle_that_was_closed_begins_anew)
{
	struct watch watch = watch_new(8 * MIB);

	for (uint64_t at = 0; at < 10 * MIB; at += 128 * KIB) {
		watch_read(&watch, 1, at, 128 * KIB, true);
		watch_read(&watch, 2, 500 * MIB + at, 128 * KIB, true);
	}
	readahead_forget(watch.readahead, 1);
	cr_assert_eq(watch_read(&watch, 1, 10 * MIB, 128 * KIB, true), 0);
	cr_assert_eq(readahead_window(watch.readahead), 4 * MIB, "the other one's");
	cr_assert_gt(watch_read(&watch, 1, 10 * MIB + 128 * KIB, 128 * KIB, true), 0);
	readahead_forget(watch.readahead, 0);
	cr_assert_eq(readahead_window(watch.readahead), 0);
	cr_assert_eq(watch_read(&watch, 2, 510 * MIB, 128 * KIB, true), 0);
	watch_free(&watch);
}
