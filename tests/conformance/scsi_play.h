/*
 * scsi_play.h - a mounted scripted target whose LUN 1 answers as a test wishes, and the I/O that
 * meets it: unbuffered, 4 KiB at a time, each at a place of its own.
 */
#pragma once

#include "support/data.h"
#include "support/mount.h"
#include "support/script_scene.h"
#include "support/script_traffic.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PLAY_LENGTH 4096u

enum play_op { PLAY_READ, PLAY_WRITE, PLAY_SYNC };

struct play {
	struct scene scene;
	int fd;
	unsigned char *bytes;
	uint64_t offset,
	    next; /* of the last WRITE that was done, where wrote; and of the next one */
	bool wrote;
	unsigned first; /* record of the last play_do() */
};

struct play play_unmounted(void);
void play_mount(struct play *play, const char *options);
/* Both. The options follow cache=none. */
struct play play_new(const char *options);
/* Unmounts; the target has nothing to complain of. */
void play_end(struct play *play);
/* Rules of before are forgotten; the opcode is filled in. */
void play_rule(struct play *play, enum play_op op, struct script_rule rule);
void play_sense(struct play *play, enum play_op op, unsigned times, struct sense sense);
/* 0 or the errno. A READ is of what was written last, and has to give that; a WRITE is of a new
 * place, and goes before a SYNC. */
int play_do(struct play *play, enum play_op op);
/* How often the command of the last play_do() came, and milliseconds from the one before to the
 * nth, from 0 on. */
unsigned play_count(struct play *play, enum play_op op);
int64_t play_gap_ms(struct play *play, enum play_op op, unsigned nth);
/* Did a WRITE of that place come from the record first on? */
bool play_wrote(struct play *play, unsigned first, uint64_t offset);
void play_must_be_stable(struct play *play, uint64_t offset);
/* Within a generous time a WRITE and an fsync succeed again. */
void play_await_works(struct play *play);
