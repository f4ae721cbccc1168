/*
 * canary.h - has the data of a READ come? (SAFETY.md 13)
 *
 * libiscsi reports GOOD also when a Data-In PDU was lost on the way or by the target, and the
 * buffer keeps its old bytes there; with iovecs it counts nothing. The guard counts; where it is
 * blind, a random number is left in the buffer before the READ, in the last 8 bytes of every 512:
 * where it still stands afterwards, data is missing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* A new random number; *state starts as 0 and is the caller's to keep. */
uint64_t canary_draw(uint64_t *state);
/* Puts the number into the buffer. */
void canary_place(const struct iovec *iov, int niov, uint64_t canary);
/* Does it stand in the buffer still? */
bool canary_survives(const struct iovec *iov, int niov, uint64_t canary);
