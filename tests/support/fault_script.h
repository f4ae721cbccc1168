/*
 * fault_script.h - what is to happen to a network, and when: commands for a proxy, one a line.
 *
 *   # a comment                       lines are played in order
 *   COMMAND                           at once
 *   after TIME COMMAND                that long after the line before
 *   at TIME COMMAND                   that long after the start
 *   every TIME[..TIME]: COMMAND, COMMAND, ...                   again and again, in turn
 *   every TIME[..TIME] random [seed N]: COMMAND, COMMAND, ...   one at random
 *
 *   latency [DIRECTION] TIME|none
 *   limit [DIRECTION] BYTES|none      per second
 *   stall [DIRECTION] [TIME]
 *   stall half [BYTES/BYTES] [DIRECTION] [TIME]   so many bytes of a PDU of so many at least
 *   cut rst|fin
 *   cut rst|fin half [BYTES/BYTES] [DIRECTION]
 *   cut rst|fin after N bytes|pdus [DIRECTION]
 *   drop [TIME]
 *   refuse [TIME]
 *   corrupt header|data [nth N] [bit N] [DIRECTION]   any bit, unless told
 *   resume, heal                      as the proxy's functions of these names
 *   stop                              ends what goes on every TIME
 *   quit
 *
 *   DIRECTION  to-target, to-initiator, both (default)
 *   TIME       10us, 1.5ms, 2s, 3min, 1h
 *   BYTES      4096, 64K, 10M, 1G: powers of 1024
 *
 * A command with a TIME ends after it, one without lasts until heal. Every counts from when the
 * last one was over, so that each is followed by some peace.
 */
#pragma once

#include <stdio.h>

#include "support/proxy.h"

struct fault_script;

/* Writes what it does, and when, to the log, unless that is NULL. */
struct fault_script *fault_script_new(FILE *log);
void fault_script_free(struct fault_script *script);
/* Adds a line; false and what is wrong with it, to be freed, when it cannot be understood. */
bool fault_script_add(struct fault_script *script, const char *line, char **error);
/*
 * Does what is due. The first call is the start. Returns the ns of CLOCK_MONOTONIC when to call
 * again, INT64_MAX when nothing is left to do, -1 behind quit.
 */
int64_t fault_script_play(struct fault_script *script, struct proxy *proxy);
