/*
 * data.h - bytes with a meaning: patterns that can be told apart, and files compared with memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A small, fast, seedable generator (SplitMix64): the same seed gives the same test. */
struct dice {
	uint64_t state;
};
uint64_t dice_roll(struct dice *dice);
/* In [low, high]. */
uint64_t dice_between(struct dice *dice, uint64_t low, uint64_t high);
void dice_fill(struct dice *dice, void *buffer, size_t length);

/* Every byte tells its place and the seed. */
void pattern_fill(void *buffer, size_t length, uint64_t offset, unsigned seed);
/* Index of the first byte that differs, or -1. */
ssize_t first_difference(const void *a, const void *b, size_t length);

/* Whole transfers; the test fails with place and errno otherwise. */
void must_pwrite(int fd, const void *buffer, size_t length, uint64_t offset);
void must_pread(int fd, void *buffer, size_t length, uint64_t offset);
int must_open(const char *path, int flags);
/* Do the bytes of the file at offset equal those? The test fails with the first place that does
 * not. */
void must_hold(const char *path, const void *buffer, size_t length, uint64_t offset);
/* Page-aligned memory for O_DIRECT, filled with 0; never freed before the test ends. */
void *aligned_buffer(size_t length);
/* Fills the first length bytes of a file with one byte. */
void fill_file(const char *path, int byte, uint64_t length);
