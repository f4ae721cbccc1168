/*
 * seed.h - where a random test starts: printed, and repeated with LUNFS_TEST_SEED= (or
 * LUNFS_SEED=).
 */
#pragma once

#include <glib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline uint32_t test_seed(const char *test)
{
	const char *given = getenv("LUNFS_TEST_SEED");

	if (!given)
		given = getenv("LUNFS_SEED");
	uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 0) : g_random_int();

	fprintf(stderr, "%s: LUNFS_TEST_SEED=%u\n", test, seed);
	return seed;
}
