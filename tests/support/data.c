/*
 * data.c - patterns, random numbers and comparisons for the integration tests.
 */
#include "support/data.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t dice_roll(struct dice *dice)
{
	uint64_t z = dice->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t dice_between(struct dice *dice, uint64_t low, uint64_t high)
{
	return low + dice_roll(dice) % (high - low + 1);
}

void dice_fill(struct dice *dice, void *buffer, size_t length)
{
	unsigned char *bytes = buffer;

	for (size_t i = 0; i < length; i += sizeof(uint64_t)) {
		uint64_t word = dice_roll(dice);
		size_t n = length - i < sizeof(word) ? length - i : sizeof(word);

		memcpy(bytes + i, &word, n);
	}
}

void pattern_fill(void *buffer, size_t length, uint64_t offset, unsigned seed)
{
	unsigned char *bytes = buffer;

	for (size_t i = 0; i < length; i++) {
		uint64_t at = offset + i;

		/* never 0, so that a hole is never taken for data */
		bytes[i] = (unsigned char)(1 + (at ^ at >> 8 ^ at >> 16 ^ seed * 37u) % 255);
	}
}

ssize_t first_difference(const void *a, const void *b, size_t length)
{
	const unsigned char *x = a, *y = b;

	if (memcmp(a, b, length) == 0)
		return -1;
	for (size_t i = 0;; i++)
		if (x[i] != y[i])
			return (ssize_t)i;
}

void must_pwrite(int fd, const void *buffer, size_t length, uint64_t offset)
{
	ssize_t n = pwrite(fd, buffer, length, (off_t)offset);

	cr_assert(n == (ssize_t)length, "pwrite of %zu at %lu gave %zd: %s", length, offset, n,
	    strerror(errno));
}

void must_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	ssize_t n = pread(fd, buffer, length, (off_t)offset);

	cr_assert(n == (ssize_t)length, "pread of %zu at %lu gave %zd: %s", length, offset, n,
	    strerror(errno));
}

int must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	cr_assert(fd >= 0, "open %s: %s", path, strerror(errno));
	return fd;
}

void must_hold(const char *path, const void *buffer, size_t length, uint64_t offset)
{
	int fd = must_open(path, O_RDONLY);
	unsigned char *found = malloc(length);

	must_pread(fd, found, length, offset);
	close(fd);
	ssize_t at = first_difference(found, buffer, length);
	cr_assert(at < 0, "%s: byte %lu is %02x, not %02x", path, offset + (uint64_t)at, found[at],
	    ((const unsigned char *)buffer)[at]);
	free(found);
}

void *aligned_buffer(size_t length)
{
	void *buffer = NULL;

	cr_assert(posix_memalign(&buffer, 4096, length) == 0);
	memset(buffer, 0, length);
	return buffer;
}

void fill_file(const char *path, int byte, uint64_t length)
{
	size_t chunk = 1 << 20;
	unsigned char *bytes = aligned_buffer(chunk);
	int fd = must_open(path, O_WRONLY);

	memset(bytes, byte, chunk);
	for (uint64_t at = 0; at < length; at += chunk)
		must_pwrite(fd, bytes, length - at < chunk ? length - at : chunk, at);
	close(fd);
	free(bytes);
}
