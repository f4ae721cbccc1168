/*
 * test_readahead_many.c - what is fetched before it is asked for, where several read, where READs
 * are random, where anything comes, and on a long link in virtual time.
 */
#include "test_readahead_watch.h"

#include <stdio.h>
#include <time.h>

#include "support/seed.h"

/* ---- several readers ---- */

Test(readahead_many, interleaved_handles_are_streams_of_their_own)
{
	struct watch watch = watch_new(56 * MIB);

	for (uint64_t at = 0; at < 100 * MIB; at += 128 * KIB) {
		watch_read(&watch, 1, at, 128 * KIB, true);
		watch_read(&watch, 2, 500 * MIB + at, 128 * KIB, true);
	}
	cr_assert(watch_asked_once(&watch));
	cr_assert(watch_asked(&watch, MIB, 120 * MIB));
	cr_assert(watch_asked(&watch, 501 * MIB, 620 * MIB));
	cr_assert_eq(readahead_window(watch.readahead), 28 * MIB, "they share the limit");
	for (uint64_t at = 100 * MIB; at < 200 * MIB; at += 128 * KIB)
		watch_read(&watch, 1, at, 128 * KIB, true);
	cr_assert_eq(readahead_window(watch.readahead), 56 * MIB, "one of them stopped");
	watch_free(&watch);
}

/* A file system that is mounted from a loop device is one handle. */
Test(readahead_many, one_handle_may_have_several_streams)
{
	struct watch watch = watch_new(56 * MIB);

	for (uint64_t at = 0; at < 40 * MIB; at += 128 * KIB)
		for (uint64_t i = 0; i < 4; i++)
			watch_read(&watch, 1, i * 200 * MIB + at, 128 * KIB, true);
	cr_assert(watch_asked_once(&watch));
	for (uint64_t i = 0; i < 4; i++)
		cr_assert(watch_asked(&watch, i * 200 * MIB + MIB, i * 200 * MIB + 50 * MIB));
	cr_assert_eq(readahead_window(watch.readahead), 14 * MIB);
	watch_free(&watch);
}

Test(readahead_many, the_same_bytes_by_another_handle_are_no_continuation)
{
	struct watch watch = watch_new(56 * MIB);

	watch_read(&watch, 1, 0, 128 * KIB, true);
	cr_assert_eq(watch_read(&watch, 2, 128 * KIB, 128 * KIB, true), 0);
	cr_assert_eq(watch_read(&watch, 0, 256 * KIB, 128 * KIB, true), 0);
	cr_assert_eq(watch_read(&watch, 0, 384 * KIB, 128 * KIB, true), 0, "nobody's");
	watch_free(&watch);
}

Test(readahead_many, more_readers_than_streams_do_not_push_out_each_other)
{
	enum { READERS = 20 };
	struct watch watch = watch_new(56 * MIB);
	unsigned served = 0;

	for (uint64_t at = 0; at < 16 * MIB; at += 128 * KIB)
		for (uint64_t i = 0; i < READERS; i++)
			watch_read(&watch, 1 + i, i * 50 * MIB + at, 128 * KIB, true);
	cr_assert(watch_asked_once(&watch));
	for (uint64_t i = 0; i < READERS; i++)
		served += watch_asked(&watch, i * 50 * MIB + MIB, i * 50 * MIB + 16 * MIB);
	cr_assert_eq(served, 16);
	watch_free(&watch);
}

Test(readahead_many, the_streams_that_ended_make_room_for_new_ones)
{
	struct watch watch = watch_new(56 * MIB);

	for (uint64_t i = 0; i < 200; i++)
		for (uint64_t at = 0; at < 2 * MIB; at += 64 * KIB)
			watch_read(&watch, 1 + i, i * 5 * MIB + at, 64 * KIB, false);
	for (uint64_t i = 0; i < 200; i++)
		cr_assert(watch_asked(&watch, i * 5 * MIB + MIB, i * 5 * MIB + 2 * MIB));
	watch_free(&watch);
}

static uint64_t random_block(GRand *random, uint64_t blocks)
{
	return ((uint64_t)g_rand_int(random) << 32 | g_rand_int(random)) % blocks;
}

Test(readahead_many, random_reads_beside_a_stream_do_not_disturb_it)
{
	struct watch watch = watch_new(56 * MIB);
	g_autoptr(GRand) random = g_rand_new_with_seed(test_seed("readahead"));

	for (uint64_t at = 0; at < 100 * MIB; at += 128 * KIB) {
		watch_read(&watch, 1, at, 128 * KIB, true);
		for (unsigned i = 0; i < 20; i++) /* by the same handle, and by another */
			watch_read(&watch, 1 + i % 2,
			    512 * MIB + random_block(random, 100000) * 4 * KIB, 4 * KIB, true);
	}
	cr_assert(watch_asked(&watch, MIB, 110 * MIB));
	watch_free(&watch);
}

/* Of this thread, nanoseconds: others may have the processor meanwhile. */
static double cpu_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

Test(readahead_many, random_reads_get_nothing_and_cost_little)
{
	enum { READS = 10000, ROUNDS = 20 };
	struct watch watch = watch_new(56 * MIB);
	g_autoptr(GRand) random = g_rand_new_with_seed(test_seed("readahead"));
	g_autofree uint64_t *offsets = g_new(uint64_t, READS);
	double best = 1e9;

	watch.size = UINT64_C(1) << 50;
	for (unsigned i = 0; i < READS; i++)
		offsets[i] = random_block(random, watch.size / (4 * KIB)) * 4 * KIB;
	for (unsigned round = 0; round < ROUNDS; round++) {
		double start = cpu_time();
		unsigned asked = 0;
		for (unsigned i = 0; i < READS; i++)
			asked += readahead_saw(watch.readahead, 1 + i % 3, offsets[i], 4 * KIB,
			    watch.size, true, watch.ranges, RANGES);
		best = MIN(best, cpu_time() - start);
		cr_assert_eq(asked, 0);
	}
	fprintf(stderr, "readahead: a random READ costs %.0f ns\n", best / READS);
	watch_free(&watch);
}

/* Where the LUN is small some READs meet by chance: what that costs is not much. */
Test(readahead_many, random_reads_that_meet_by_chance_get_little)
{
	struct watch watch = watch_new(56 * MIB);
	g_autoptr(GRand) random = g_rand_new_with_seed(test_seed("readahead"));

	watch.size = 64 * MIB;
	for (unsigned i = 0; i < 10000; i++)
		watch_read(&watch, 1, random_block(random, watch.size / (4 * KIB)) * 4 * KIB,
		    4 * KIB, true);
	fprintf(stderr, "readahead: 10000 random READs of 4 KiB in 64 MiB: %u KiB ahead\n",
	    (unsigned)(watch.bytes / KIB));
	cr_assert_lt(watch.bytes, 10 * MIB);
	watch_free(&watch);
}

/* ---- whatever comes ---- */

struct fuzz {
	struct readahead *readahead;
	GRand *random;
	uint64_t size, next[4], length[4];
	int64_t stride[4];
};

static uint64_t fuzz_length(struct fuzz *fuzz)
{
	return 1 + random_block(fuzz->random, UINT64_C(1) << g_rand_int_range(fuzz->random, 0, 24));
}

/* A reader's next step, mostly; now and then he goes elsewhere, or reads otherwise. */
static void fuzz_read(struct fuzz *fuzz)
{
	struct readahead_range ranges[40];
	unsigned handle = g_rand_int(fuzz->random) % 4, max = g_rand_int(fuzz->random) % 41;
	unsigned dice = g_rand_int(fuzz->random) % 100, count;

	if (dice == 0) {
		fuzz->next[handle] = random_block(fuzz->random, fuzz->size + 1);
		fuzz->length[handle] = fuzz_length(fuzz);
		fuzz->stride[handle] = (int64_t)fuzz->length[handle];
	} else if (dice == 1) {
		fuzz->stride[handle] = -fuzz->stride[handle];
	} else if (dice == 2) {
		fuzz->stride[handle] = (int64_t)fuzz_length(fuzz) - (1 << 23);
	}
	count = readahead_saw(fuzz->readahead, handle, fuzz->next[handle], fuzz->length[handle],
	    fuzz->size, dice % 2, ranges, max);
	cr_assert_leq(count, max);
	for (unsigned i = 0; i < count; i++) {
		cr_assert_gt(ranges[i].length, 0);
		cr_assert_leq(ranges[i].length, READAHEAD_COMMAND);
		cr_assert_lt(ranges[i].offset, fuzz->size);
		cr_assert_leq(ranges[i].length, fuzz->size - ranges[i].offset);
	}
	if (dice > 10) /* or the same again */
		fuzz->next[handle] +=
		    (uint64_t)(dice < 15 ? 3 : 1) * (uint64_t)fuzz->stride[handle];
}

static void fuzz_run(uint32_t seed, unsigned steps)
{
	static const size_t limits[] = {0, 1, 1 << 20, 56 << 20, SIZE_MAX};
	struct fuzz fuzz = {.random = g_rand_new_with_seed(seed), .size = GIB};

	fuzz.readahead = readahead_new(limits[seed % 5]);
	for (unsigned step = 0; step < steps; step++) {
		unsigned dice = g_rand_int(fuzz.random) % 200;
		if (dice == 0)
			fuzz.size = 1 + random_block(fuzz.random,
			                    UINT64_C(1) << g_rand_int_range(fuzz.random, 0, 64));
		else if (dice == 1)
			readahead_set_limit(fuzz.readahead, limits[g_rand_int(fuzz.random) % 5]);
		else if (dice == 2)
			readahead_forget(fuzz.readahead, g_rand_int(fuzz.random) % 4);
		fuzz_read(&fuzz);
	}
	readahead_free(fuzz.readahead);
	g_rand_free(fuzz.random);
}

Test(readahead_many, what_is_asked_for_is_in_the_lun_whatever_comes)
{
	uint32_t base = test_seed("readahead");

	for (uint32_t i = 0; i < 50; i++)
		fuzz_run(base + i, 4000);
}

/* ---- a long link, in virtual time ---- */

/*
 * What is asked for arrives after the latency, however much it is. The reader takes no time for
 * what is there; so only the windows limit him, to limit / latency.
 */
struct link {
	struct watch watch;
	double now, latency;
	double *arrives; /* of each 4 KiB; 0: not asked for */
};

static double link_fetch(struct link *link, uint64_t offset, uint64_t length)
{
	double last = link->now;

	for (uint64_t at = offset / (4 * KIB); at * 4 * KIB < offset + length; at++) {
		if (!link->arrives[at])
			link->arrives[at] = link->now + link->latency;
		last = MAX(last, link->arrives[at]);
	}
	return last;
}

/* Returns when the READ is answered. */
static double link_read(struct link *link, uint64_t offset, uint64_t length)
{
	double done = link_fetch(link, offset, length);
	uint64_t asked = watch_read(&link->watch, 1, offset, length, done > link->now);

	for (unsigned i = 0; asked && i < link->watch.count; i++)
		link_fetch(link, link->watch.ranges[i].offset, link->watch.ranges[i].length);
	return done;
}

/* Reads all there is with so many READs on their way at a time; prints and returns the throughput
 * of the second half as a part of limit / latency. */
static double link_run(size_t limit, uint64_t length, unsigned depth)
{
	struct link link = {.watch = watch_new(limit), .latency = 0.02};
	double done[16] = {0}, half = 0, full = 0, part;
	unsigned turn = 0;

	link.arrives = g_new0(double, GIB / (4 * KIB));
	for (uint64_t at = 0; at < GIB; at += length, turn = (turn + 1) % depth) {
		link.now = MAX(link.now, done[turn]);
		if (!full && readahead_window(link.watch.readahead) >= limit)
			full = link.now;
		if (at < GIB / 2)
			half = link.now;
		done[turn] = link_read(&link, at, length);
	}
	part = (double)(GIB / 2) / (link.now - half) / ((double)limit / link.latency);
	fprintf(stderr,
	    "readahead: limit %5zu KiB, %u READs of %4zu KiB: %.2f of limit / latency; "
	    "full after %.0f ms; commands of %zu KiB\n",
	    limit >> 10, depth, (size_t)(length / KIB), part, 1e3 * full,
	    (size_t)(link.watch.bytes / link.watch.commands / KIB));
	cr_expect(watch_asked_once(&link.watch));
	cr_expect_lt(full, 0.3);
	g_free(link.arrives);
	watch_free(&link.watch);
	return part;
}

Test(readahead_many, a_reader_on_a_long_link_has_the_whole_window_on_its_way)
{
	static const size_t limits[] = {MIB, 8 * MIB, 56 * MIB};

	for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
		cr_expect_geq(link_run(limits[i], 128 * KIB, 1), 0.8);
		cr_expect_geq(link_run(limits[i], 128 * KIB, 4), 0.8);
		cr_expect_geq(link_run(limits[i], 4 * KIB, 1), 0.8);
		cr_expect_geq(link_run(limits[i], MIB, 1), 0.8);
	}
}
