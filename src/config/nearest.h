/*
 * nearest.h - what a misspelled word most likely means; private to src/config.
 */
#pragma once

#include <stddef.h>

struct nearest {
	const char *word;
	size_t limit;      /* only what is nearer than this will do */
	const char *found; /* the best of what was offered, or NULL */
};

struct nearest nearest_to(const char *word);
void nearest_offer(struct nearest *nearest, const char *candidate);
