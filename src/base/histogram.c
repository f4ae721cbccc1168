/*
 * histogram.c - how long things take: see histogram.h.
 *
 * With u one less than the duration, and 2^e the highest bit of u, the two bits behind it tell
 * which quarter of the octave it is in. No tables, no logarithms: this is called for each command.
 */
#include "lunfs/histogram.h"

#include <glib.h>
#include <stdbool.h>
#include <string.h>

#define FINE 4u /* up to so many microseconds each has a bucket; the quarters of an octave */

static unsigned bucket_of(uint64_t us)
{
	uint64_t u = us > 0 ? us - 1 : 0;

	if (u < FINE)
		return (unsigned)u;
	unsigned e = 63 - (unsigned)__builtin_clzll(u);
	return MIN((e - 1) * FINE + ((unsigned)(u >> (e - 2)) & (FINE - 1)), HISTOGRAM_BUCKETS - 1);
}

uint64_t histogram_limit_us(unsigned bucket)
{
	if (bucket >= HISTOGRAM_BUCKETS - 1)
		return UINT64_MAX;
	if (bucket < FINE)
		return bucket + 1;
	return (uint64_t)(FINE + bucket % FINE + 1) << (bucket / FINE - 1);
}

void histogram_add(struct histogram *histogram, int64_t us)
{
	uint64_t duration = (uint64_t)MAX(us, 0);

	histogram->counts[bucket_of(duration)]++;
	histogram->total++;
	histogram->sum_us += duration;
}

uint64_t histogram_up_to(const struct histogram *histogram, uint64_t us)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && histogram_limit_us(i) <= us; i++)
		count += histogram->counts[i];
	return count;
}

uint64_t histogram_quantile_us(const struct histogram *histogram, double share)
{
	double exact =
	    share * (double)histogram->total * (1 - 1e-9); /* 0.28 * 425 is more than 119 */
	uint64_t wanted = (uint64_t)exact, count = 0;
	unsigned bucket = 0;

	if (histogram->total == 0)
		return 0;
	wanted += (double)wanted < exact;
	wanted = CLAMP(wanted, 1, histogram->total);
	for (; bucket < HISTOGRAM_BUCKETS - 2; bucket++) {
		count += histogram->counts[bucket];
		if (count >= wanted)
			break;
	}
	return histogram_limit_us(bucket);
}

struct histogram histogram_since(const struct histogram *now, const struct histogram *before)
{
	struct histogram since = *now;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (before->counts[i] > now->counts[i])
			return *now; /* who counted has begun anew */
		since.counts[i] -= before->counts[i];
	}
	since.total -= before->total;
	since.sum_us -= MIN(before->sum_us, now->sum_us);
	return since;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->counts[i] += from->counts[i];
	into->total += from->total;
	into->sum_us += from->sum_us;
}

char *histogram_format(const struct histogram *histogram)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (histogram->counts[i] > 0)
			g_string_append_printf(text, "%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT " ",
			    histogram_limit_us(i), histogram->counts[i]);
	g_string_append_printf(text, "sum:%" G_GUINT64_FORMAT, histogram->sum_us);
	return g_string_free(text, FALSE);
}

struct histogram histogram_parse(const char *text)
{
	struct histogram histogram = {.total = 0};
	g_auto(GStrv) pairs = g_strsplit(text, " ", -1);

	for (char **pair = pairs; *pair != NULL; pair++) {
		char *colon = strchr(*pair, ':');
		guint64 limit, count;

		if (colon == NULL)
			continue;
		*colon = '\0';
		bool counts =
		    g_ascii_string_to_unsigned(colon + 1, 10, 0, G_MAXINT64, &count, NULL);
		if (counts && strcmp(*pair, "sum") == 0) {
			histogram.sum_us = count;
		} else if (counts &&
		           g_ascii_string_to_unsigned(*pair, 10, 1, G_MAXUINT64, &limit, NULL)) {
			histogram.counts[bucket_of(limit)] += count;
			histogram.total += count;
		}
	}
	return histogram;
}
