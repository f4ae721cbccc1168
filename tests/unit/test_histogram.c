/*
 * test_histogram.c - counts by duration.
 */
#include "lunfs/histogram.h"

#include <criterion/criterion.h>
#include <glib.h>

#include "support/data.h"

Test(histogram, limits_grow_by_a_quarter_at_most_and_powers_of_two_are_limits)
{
	uint64_t power = 1;

	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		uint64_t limit = histogram_limit_us(i),
		         before = i > 0 ? histogram_limit_us(i - 1) : 0;

		cr_assert_gt(limit, before);
		cr_assert(limit - before <= MAX(before / 4, 1), "bucket %u: %lu after %lu", i,
		    limit, before);
		if (limit == power)
			power *= 2;
		cr_assert_lt(limit, power, "2^n is no limit before %lu", limit);
	}
	cr_assert_eq(histogram_limit_us(HISTOGRAM_BUCKETS - 1), UINT64_MAX);
	cr_assert_gt(histogram_limit_us(HISTOGRAM_BUCKETS - 2), 120u * 1000000);
}

Test(histogram, a_duration_is_counted_in_the_bucket_whose_limit_it_does_not_pass)
{
	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		struct histogram histogram = {.total = 0};
		uint64_t limit = histogram_limit_us(i);

		histogram_add(&histogram, (int64_t)limit);
		cr_assert_eq(histogram.counts[i], 1, "%lu", limit);
		histogram_add(&histogram, (int64_t)limit + 1);
		cr_assert_eq(histogram.counts[i + 1], 1, "%lu", limit + 1);
		cr_assert_eq(histogram_up_to(&histogram, limit), 1);
	}
	struct histogram histogram = {.total = 0};
	histogram_add(&histogram, -5);
	histogram_add(&histogram, 0);
	cr_assert_eq(histogram.counts[0], 2);
	histogram_add(&histogram, INT64_MAX);
	cr_assert_eq(histogram.counts[HISTOGRAM_BUCKETS - 1], 1);
}

static int compare(const void *a, const void *b)
{
	return *(const int64_t *)a < *(const int64_t *)b ? -1 : 1;
}

Test(histogram, a_quantile_is_at_most_a_quarter_above_the_true_one_and_never_below)
{
	struct dice dice = {5};
	static int64_t times[1000];

	for (unsigned round = 0; round < 50; round++) {
		struct histogram histogram = {.total = 0};
		unsigned count = (unsigned)dice_between(&dice, 1, 1000);

		for (unsigned i = 0; i < count; i++) {
			times[i] =
			    (int64_t)dice_between(&dice, 1, 1ull << dice_between(&dice, 1, 27));
			histogram_add(&histogram, times[i]);
		}
		qsort(times, count, sizeof times[0], compare);
		for (unsigned percent = 0; percent <= 100; percent++) {
			unsigned rank = MAX((count * percent + 99) / 100, 1);
			uint64_t is = (uint64_t)times[rank - 1];
			uint64_t told = histogram_quantile_us(&histogram, percent / 100.0);

			cr_assert(told >= is && told <= is + MAX(is / 4, 1) + 1,
			    "%u %% of %u: %lu, told %lu", percent, count, is, told);
		}
	}
	cr_assert_eq(histogram_quantile_us(&(struct histogram){.total = 0}, 0.5), 0);
}

Test(histogram, what_is_written_is_read_again)
{
	struct histogram histogram = {.total = 0};
	struct dice dice = {6};

	for (unsigned i = 0; i < 500; i++)
		histogram_add(
		    &histogram, (int64_t)(dice_roll(&dice) >> dice_between(&dice, 30, 63)));
	g_autofree char *text = histogram_format(&histogram);
	struct histogram read = histogram_parse(text);
	cr_assert_arr_eq(read.counts, histogram.counts, sizeof read.counts);
	cr_assert_eq(read.total, 500);
	cr_assert_eq(read.sum_us, histogram.sum_us);

	read = histogram_parse("5: :3 x:1 7 8:-1 9:9999999999999999999999 sum:x 16:2");
	cr_assert_eq(read.total, 2);
	cr_assert_eq(histogram_parse("").total, 0);
}

Test(histogram, what_came_since_is_the_difference_and_all_of_it_after_a_new_start)
{
	struct histogram before = {.total = 0}, now, since;

	histogram_add(&before, 100);
	now = before;
	histogram_add(&now, 100);
	histogram_add(&now, 5000);
	since = histogram_since(&now, &before);
	cr_assert_eq(since.total, 2);
	cr_assert_eq(since.sum_us, 5100);
	cr_assert_eq(histogram_up_to(&since, 112), 1);
	since = histogram_since(&before, &now);
	cr_assert_eq(since.total, 1);
	histogram_merge(&since, &now);
	cr_assert_eq(since.total, 4);
}
