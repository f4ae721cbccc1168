/*
 * test_pool.c - buffers and objects for I/O.
 */
#include "lunfs/pool.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * 1024)

static bool is_mapped(void *memory)
{
	unsigned char resident[512];
	return mincore(memory, POOL_MIN_SIZE, resident) == 0;
}

Test(pool, buffers_are_page_aligned_writable_and_apart)
{
	struct pool *pool = pool_new(64 * MIB);
	const size_t sizes[] = {
	    1, 4096, 4097, 8192, 20 * KIB, 32 * KIB, 33 * KIB, 64 * KIB, 300 * KIB, MIB, 2 * MIB};
	enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), EACH = 9 };
	uint8_t *buffers[SIZES][EACH];

	for (unsigned i = 0; i < SIZES; i++) {
		for (unsigned j = 0; j < EACH; j++) {
			buffers[i][j] = pool_get(pool, sizes[i]);
			cr_assert_not_null(buffers[i][j]);
			cr_assert_eq((uintptr_t)buffers[i][j] % 4096, 0);
			memset(buffers[i][j], (int)(i * EACH + j), sizes[i]);
		}
	}
	for (unsigned i = 0; i < SIZES; i++) {
		for (unsigned j = 0; j < EACH; j++) {
			cr_assert_eq(buffers[i][j][0], i * EACH + j);
			cr_assert_eq(buffers[i][j][sizes[i] - 1], i * EACH + j);
			pool_put(pool, buffers[i][j], sizes[i]);
		}
	}
	cr_assert_eq(pool_in_use(pool), 0);
	pool_free(pool);
}

Test(pool, counts_what_it_handed_out_in_its_own_sizes)
{
	struct pool *pool = pool_new(MIB);
	void *small = pool_get(pool, 100), *large = pool_get(pool, 65 * KIB);

	cr_assert_eq(pool_in_use(pool), 4 * KIB + 128 * KIB);
	pool_put(pool, small, 100);
	cr_assert_eq(pool_in_use(pool), 128 * KIB);
	pool_put(pool, large, 65 * KIB);
	pool_put(pool, NULL, 2 * MIB);
	cr_assert_eq(pool_in_use(pool), 0);
	pool_free(pool);
}

Test(pool, gives_the_buffer_that_came_back_last)
{
	struct pool *pool = pool_new(64 * MIB);
	const size_t sizes[] = {4 * KIB, 32 * KIB, 64 * KIB, MIB};

	for (unsigned i = 0; i < 4; i++) {
		void *first = pool_get(pool, sizes[i]), *second = pool_get(pool, sizes[i]);
		pool_put(pool, first, sizes[i]);
		pool_put(pool, second, sizes[i]);
		cr_assert_eq(pool_get(pool, sizes[i]), second);
		cr_assert_eq(pool_get(pool, sizes[i]), first);
		pool_put(pool, first, sizes[i]);
		pool_put(pool, second, sizes[i]);
	}
	pool_free(pool);
}

Test(pool, what_is_over_the_bound_goes_back_to_the_system)
{
	struct pool *pool = pool_new(2 * MIB);
	void *buffers[3];

	for (unsigned i = 0; i < 3; i++)
		buffers[i] = pool_get(pool, MIB);
	pool_put(pool, buffers[0], MIB); /* 2 MiB in use: nothing may be kept */
	cr_assert(!is_mapped(buffers[0]));
	pool_put(pool, buffers[1], MIB); /* 1 in use, 1 kept */
	cr_assert(is_mapped(buffers[1]));
	pool_put(pool, buffers[2], MIB);
	cr_assert(is_mapped(buffers[1]) && is_mapped(buffers[2]));
	pool_free(pool);
	cr_assert(!is_mapped(buffers[1]) && !is_mapped(buffers[2]));
}

Test(pool, keeps_the_same_buffer_through_many_uses)
{
	struct pool *pool = pool_new(2 * MIB);
	void *buffer = pool_get(pool, MIB);

	for (unsigned i = 0; i < 10; i++) {
		pool_put(pool, buffer, MIB);
		cr_assert(is_mapped(buffer), "it was given back after %u uses", i);
		cr_assert_eq(pool_get(pool, MIB), buffer);
	}
	pool_put(pool, buffer, MIB);
	pool_free(pool);
}

Test(pool, what_an_earlier_load_left_makes_room_for_the_present_one)
{
	struct pool *pool = pool_new(2 * MIB);
	void *small[32];

	for (unsigned i = 0; i < 32; i++)
		small[i] = pool_get(pool, 64 * KIB);
	for (unsigned i = 0; i < 32; i++)
		pool_put(pool, small[i], 64 * KIB);
	void *large = pool_get(pool, MIB);
	pool_put(pool, large, MIB);
	cr_assert(is_mapped(large), "the buffer of the present size was not kept");
	cr_assert_eq(pool_get(pool, MIB), large);
	pool_put(pool, large, MIB);
	pool_free(pool);
}

Test(pool, trim_gives_everything_back_when_nothing_was_taken_since_the_last)
{
	struct pool *pool = pool_new(64 * MIB);
	void *buffer = pool_get(pool, MIB);

	pool_put(pool, buffer, MIB);
	pool_trim(pool);
	cr_assert(is_mapped(buffer), "it was taken since");
	pool_trim(pool);
	cr_assert(!is_mapped(buffer));
	buffer = pool_get(pool, MIB);
	pool_trim(pool);
	pool_trim(pool);
	memset(buffer, 1, MIB); /* what is in use stays */
	pool_put(pool, buffer, MIB);
	pool_put(pool, pool_get(pool, MIB), MIB);
	pool_trim(pool);
	cr_assert(is_mapped(buffer), "it was taken since");
	pool_free(pool);
}

struct object {
	uint64_t words[9];
};

Test(slab, objects_are_zeroed_aligned_and_apart)
{
	struct slab slab = {.size = sizeof(struct object)};
	struct object *objects[200];

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 200; i++) {
			objects[i] = slab_get(&slab);
			cr_assert_eq((uintptr_t)objects[i] % _Alignof(max_align_t), 0);
			for (unsigned j = 0; j < 9; j++)
				cr_assert_eq(objects[i]->words[j], 0);
			memset(objects[i], (int)i + 1, sizeof(struct object));
		}
		for (unsigned i = 0; i < 200; i++) {
			const struct object *object = objects[i];
			for (unsigned j = 0; j < sizeof(*object); j++)
				cr_assert_eq(((const uint8_t *)object)[j], (uint8_t)(i + 1));
			slab_put(&slab, objects[i]);
		}
	}
	slab_clear(&slab);
	cr_assert_null(slab.free);
}

Test(slab, returned_objects_are_given_again)
{
	struct slab slab = {.size = 3};
	void *first = slab_get(&slab);

	slab_put(&slab, first);
	slab_put(&slab, NULL);
	cr_assert_eq(slab_get(&slab), first);
	slab_clear(&slab);
}
