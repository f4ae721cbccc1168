/*
 * histogram.h - how long things take: counts by duration, finer where it is short.
 *
 * Bucket i counts durations of up to histogram_limit_us(i), and above that of the bucket before.
 * Each octave has four, of equal width: up to 4 us each microsecond has its own, above that a limit
 * is at most a quarter above the one before; powers of two are limits. The last but one ends at 7.8
 * minutes.
 */
#pragma once

#include <stdint.h>

#define HISTOGRAM_BUCKETS 112u

struct histogram {
	uint64_t counts[HISTOGRAM_BUCKETS], total, sum_us;
};

/* A negative duration counts as 0. */
void histogram_add(struct histogram *histogram, int64_t us);
/* Microseconds; of the last bucket, UINT64_MAX. */
uint64_t histogram_limit_us(unsigned bucket);
/* How many were not longer than us, where us is the limit of a bucket; else the next lower limit
 * counts. */
uint64_t histogram_up_to(const struct histogram *histogram, uint64_t us);
/*
 * The duration that share (0 to 1) of all were not longer than, in microseconds: a bucket's limit;
 * 0 where nothing was counted. Of what is in the last bucket it is only known that it was longer
 * than the limit that is told.
 */
uint64_t histogram_quantile_us(const struct histogram *histogram, double share);
/* What was counted after before was copied from now. All of now, where that cannot be. */
struct histogram histogram_since(const struct histogram *now, const struct histogram *before);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* "64:3 80:1 sum:232": limits and their counts, but for empty ones, and sum_us. Free with g_free().
 */
char *histogram_format(const struct histogram *histogram);
/* What histogram_format() wrote; what is none of it is not counted. */
struct histogram histogram_parse(const char *text);
