/*
 * keys.h - what a login's two sides offered and answered, and what was agreed on (RFC 7143, 6.2 and
 * 13).
 *
 * It only looks on. What a target says is bounded: of known names alone the last value is kept, and
 * no longer than RFC 7143, 6.1 allows; of CHAP only that its steps were taken, never what was said.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keys;
enum keys_side { KEYS_INITIATOR, KEYS_TARGET };

struct keys *keys_new(void);
void keys_free(struct keys *keys);
/* Text of a Login Request or Response, without padding; more of it follows in the next one (C). */
void keys_note(
    struct keys *keys, enum keys_side side, const uint8_t *text, size_t length, bool more);
/* The bytes of the initiator's Login Requests, whole PDUs, as they come: in pieces. */
void keys_note_requests(struct keys *keys, const uint8_t *bytes, size_t length);
/*
 * Names and values in turn, ended by NULL; what was not agreed on has its default, and what is
 * irrelevant is left out. "MaxRecvDataSegmentLength" is the target's,
 * "InitiatorMaxRecvDataSegmentLength" ours. "AuthMethod" is "None" or "CHAP", and "CHAP" tells
 * who proved by CHAP who they are: "none", "one-way", "mutual". Values are printable. Free with
 * g_strfreev().
 */
char **keys_outcome(const struct keys *keys);
