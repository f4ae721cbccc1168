/*
 * canary.c - has the data of a READ come?
 *
 * The number is new for each command: data that happens to hold an old one is no alarm, and none
 * can be guessed from what a target saw. Each iovec is marked on its own: 8 bytes before each
 * multiple of 512 of it, and its end.
 */
#include "canary.h"

#include <string.h>
#include <sys/random.h>

#define STRIDE 512u

/* xorshift64*, seeded once by the kernel; a number of good distribution is all that is needed. */
uint64_t canary_draw(uint64_t *state)
{
	while (*state == 0)
		if (getrandom(state, sizeof *state, 0) != sizeof *state)
			*state = (uint64_t)(uintptr_t)state;
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

void canary_place(const struct iovec *iov, int niov, uint64_t canary)
{
	for (int i = 0; i < niov; i++) {
		char *base = iov[i].iov_base;
		size_t length = iov[i].iov_len;

		for (size_t end = STRIDE; end <= length; end += STRIDE)
			memcpy(base + end - sizeof canary, &canary, sizeof canary);
		if (length % STRIDE >= sizeof canary)
			memcpy(base + length - sizeof canary, &canary, sizeof canary);
	}
}

bool canary_survives(const struct iovec *iov, int niov, uint64_t canary)
{
	bool survives = false;

	for (int i = 0; i < niov; i++) {
		const char *base = iov[i].iov_base;
		size_t length = iov[i].iov_len;

		for (size_t end = STRIDE; end <= length; end += STRIDE)
			survives |= memcmp(base + end - sizeof canary, &canary, sizeof canary) == 0;
		if (length % STRIDE >= sizeof canary)
			survives |=
			    memcmp(base + length - sizeof canary, &canary, sizeof canary) == 0;
	}
	return survives;
}
