/*
 * keys.h - what a login's two sides offered and answered, and what was agreed on (RFC 7143, 6.2 and
 * 13).
 *
 * What a target says is bounded: of known names alone the last value is kept, and no longer than
 * RFC 7143, 6.1 allows; of CHAP only that its steps were taken, never what was said.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct keys;
enum keys_side { KEYS_INITIATOR, KEYS_TARGET };

struct keys *keys_new(void);
void keys_free(struct keys *keys);
void keys_note(struct keys *keys, enum keys_side side, const char *name, const char *value);
/*
 * May the target say this? False: for a key of section 13 that is negotiated, a value that is none
 * of those that were offered, or outside of its range. "Reject", "Irrelevant" and "NotUnderstood"
 * always may be.
 */
bool keys_may_be(const struct keys *keys, const char *name, const char *value);
/*
 * Where the target offers what we have not: what is to be answered to it. NULL: nothing, it
 * declares, or answers.
 */
const char *keys_answer(const struct keys *keys, const char *name, const char *value);
/* Has a discovery session no use for it (section 13: "Irrelevant when SessionType=Discovery")? */
bool keys_is_for_data(const char *name);
/* What was agreed on; else the standard's default. NULL: there is none. Free with g_free(). */
char *keys_agreed(const struct keys *keys, const char *name);
/* Did the target prove, by CHAP, to be who it says? */
bool keys_proved_target(const struct keys *keys);
/*
 * Names and values in turn, ended by NULL; what was not agreed on has its default.
 * "MaxRecvDataSegmentLength" is the target's, "InitiatorMaxRecvDataSegmentLength" ours.
 * "AuthMethod" is "None" or "CHAP", and "CHAP" tells who proved by CHAP who they are: "none",
 * "one-way", "mutual". Values are printable. Free with g_strfreev().
 */
char **keys_outcome(const struct keys *keys);
