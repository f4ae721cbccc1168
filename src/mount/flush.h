/*
 * flush.h - what is not stable at the targets yet: who asked for it to be flushed, and what could
 * not be. Private to the room.
 */
#pragma once

#include <glib.h>
#include <stdint.h>

struct control_client;
struct fs;
struct loop;

/*
 * Flushes all files of fs for a client: tells it now and then how much there is still to be
 * written, and of each file when it is done, and ends with "done". targets (of struct target)
 * outlive it.
 */
void flush_for_client(
    struct loop *loop, struct fs *fs, const GPtrArray *targets, struct control_client *client);
/* What is still to be written, of all disks together. */
uint64_t flush_unwritten_bytes(const GPtrArray *targets);
/* "; not known to be on stable storage: lun0.img: bytes 0-511 (512 in all)", or "". Free with
 * g_free(). */
char *flush_describe_unstable(const GPtrArray *targets);
