/*
 * test_canary.c - is data that did not come seen, and data that came never doubted?
 */
#include "../../src/iscsi/canary.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "support/data.h"

#define BLOCK 512u
#define MOST  8192u

/* One that came over the wire: its bytes are those of the data, not of the canary. */
static void arrive(unsigned char *bytes, size_t length)
{
	memset(bytes, 0x5a, length);
}

Test(canary, a_block_that_did_not_come_is_seen_wherever_it_is)
{
	static unsigned char bytes[MOST];
	const struct iovec iov = {bytes, sizeof(bytes)};
	uint64_t state = 0;

	for (size_t missing = 0; missing < MOST; missing += BLOCK) {
		uint64_t canary = canary_draw(&state);

		canary_place(&iov, 1, canary);
		arrive(bytes, missing);
		arrive(bytes + missing + BLOCK, MOST - missing - BLOCK);
		cr_assert(canary_survives(&iov, 1, canary), "the block at %zu", missing);
		arrive(bytes + missing, BLOCK);
		cr_assert(!canary_survives(&iov, 1, canary), "all came, up to %zu", missing);
	}
}

Test(canary, a_tail_that_did_not_come_is_seen_in_every_length_that_holds_a_number)
{
	unsigned char bytes[3 * BLOCK];
	uint64_t state = 0;

	for (size_t length = sizeof(uint64_t); length <= sizeof(bytes); length++) {
		const struct iovec iov = {bytes, length};
		uint64_t canary = canary_draw(&state);

		/* what is left in bytes by the last round is not to be taken for this one's */
		canary_place(&iov, 1, canary);
		cr_assert(canary_survives(&iov, 1, canary), "%zu bytes, none came", length);
		/* The last 8 bytes of an iovec are watched, unless less than that stand behind a
		 * block's end. */
		size_t watched =
		    length % BLOCK >= sizeof(uint64_t) ? length : length - length % BLOCK;
		arrive(bytes, watched - sizeof(uint64_t));
		cr_assert(canary_survives(&iov, 1, canary), "%zu bytes, but the last", length);
		arrive(bytes, length);
		cr_assert(!canary_survives(&iov, 1, canary), "%zu bytes, all came", length);
	}
}

Test(canary, an_iovec_that_did_not_come_is_seen_among_those_that_did)
{
	static const size_t lengths[] = {BLOCK, 4096, 8, 1000, BLOCK + 8, 100};
	enum { COUNT = sizeof(lengths) / sizeof(lengths[0]) };
	static unsigned char bytes[COUNT][4096];
	struct iovec iov[COUNT];
	uint64_t state = 0;

	for (int i = 0; i < COUNT; i++)
		iov[i] = (struct iovec){bytes[i], lengths[i]};
	for (int missing = 0; missing < COUNT; missing++) {
		uint64_t canary = canary_draw(&state);

		canary_place(iov, COUNT, canary);
		for (int i = 0; i < COUNT; i++)
			if (i != missing)
				arrive(bytes[i], lengths[i]);
		cr_assert(canary_survives(iov, COUNT, canary), "iovec %d", missing);
		arrive(bytes[missing], lengths[missing]);
		cr_assert(!canary_survives(iov, COUNT, canary), "all came, after %d", missing);
	}
}

Test(canary, it_stays_inside_its_iovecs)
{
	unsigned char bytes[3 * BLOCK], around[sizeof(bytes)];

	memset(around, 0xee, sizeof(around));
	for (size_t length = 0; length <= sizeof(bytes) - 16; length++) {
		const struct iovec iov = {bytes + 8, length};

		memset(bytes, 0xee, sizeof(bytes));
		canary_place(&iov, 1, 0x0123456789abcdefu);
		cr_assert_eq(memcmp(bytes, around, 8), 0, "before %zu bytes", length);
		cr_assert_eq(memcmp(bytes + 8 + length, around, sizeof(bytes) - 8 - length), 0,
		    "behind %zu bytes", length);
	}
}

Test(canary, what_was_read_before_is_no_alarm)
{
	/* The buffer of a READ that failed is read into again: the old number is there. */
	unsigned char bytes[4096], old[4096];
	const struct iovec iov = {bytes, sizeof(bytes)};
	uint64_t state = 0, first = canary_draw(&state), second = canary_draw(&state);

	canary_place(&iov, 1, first);
	memcpy(old, bytes, sizeof(old));
	canary_place(&iov, 1, second);
	memcpy(bytes, old, sizeof(bytes)); /* the disk holds just those bytes */
	cr_assert(!canary_survives(&iov, 1, second));
}

Test(canary, full_data_is_never_an_alarm)
{
	static unsigned char bytes[MOST];
	struct dice dice = {1};
	uint64_t state = 0;

	for (unsigned round = 0; round < 2000; round++) {
		uint64_t canary = canary_draw(&state);
		size_t split = dice_between(&dice, 0, MOST);
		const struct iovec iov[] = {{bytes, split}, {bytes + split, MOST - split}};

		canary_place(iov, 2, canary);
		dice_fill(&dice, bytes, MOST);
		cr_assert(!canary_survives(iov, 2, canary), "split at %zu", split);
	}
}

Test(canary, no_data_at_all_is_no_alarm)
{
	const struct iovec none = {NULL, 0};

	canary_place(NULL, 0, 1);
	cr_assert(!canary_survives(NULL, 0, 1));
	canary_place(&none, 1, 1);
	cr_assert(!canary_survives(&none, 1, 1));
}

Test(canary, numbers_differ_between_commands_and_between_sessions)
{
	uint64_t one = 0, other = 0, drawn[1000];

	for (unsigned i = 0; i < 1000; i++) {
		drawn[i] = canary_draw(i % 2 ? &one : &other);
		for (unsigned k = 0; k < i; k++)
			cr_assert_neq(drawn[k], drawn[i], "draw %u is draw %u again", i, k);
	}
}
