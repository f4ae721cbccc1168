/*
 * nearest.c - "did you mean": the candidate with the fewest letters changed.
 */
#include "nearest.h"

#include <glib.h>
#include <string.h>

/* Nobody misspells more than that, and time grows with its square. */
#define LONGEST 64

/*
 * How many letters are to be changed, left out, put in, or exchanged with their neighbour:
 * Damerau's distance, as the last three rows of its table.
 */
static size_t edit_distance(const char *a, const char *b)
{
	size_t width = strlen(b) + 1;
	size_t table[3][2 * LONGEST + 1];
	size_t *older = table[0], *last = table[1], *row = table[2];

	for (size_t j = 0; j < width; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t *free_row = older;

		older = last;
		last = row;
		row = free_row;
		row[0] = i + 1;
		for (size_t j = 0; j + 1 < width; j++) {
			size_t replaced = last[j] + (a[i] != b[j]);

			row[j + 1] = MIN(replaced, MIN(row[j], last[j + 1]) + 1);
			if (i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j])
				row[j + 1] = MIN(row[j + 1], older[j - 1] + 1);
		}
	}
	return row[width - 1];
}

/* A short name is close to everything. */
struct nearest nearest_to(const char *word)
{
	size_t length = strlen(word);

	return (struct nearest){
	    .word = word,
	    .limit = length > LONGEST ? 0
	             : length <= 3    ? 2
	             : length <= 7    ? 3
	             : length <= 11   ? 4
	                              : 5,
	};
}

void nearest_offer(struct nearest *nearest, const char *candidate)
{
	size_t length = strlen(nearest->word), other = strlen(candidate);

	/* So many letters are to be put in or left out at least. */
	if ((length > other ? length - other : other - length) >= nearest->limit)
		return;
	size_t distance = edit_distance(nearest->word, candidate);
	if (distance < nearest->limit) {
		nearest->found = candidate;
		nearest->limit = distance;
	}
}
