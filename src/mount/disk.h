/*
 * disk.h - what target.c does with its disks. Private to the room.
 */
#pragma once

#include "lunfs/mount.h"

struct disk_environment {
	struct loop *loop;
	struct pool *pool;
	struct retain_memory *memory;
	struct cache_memory *cache_memory;
	const struct options *options;
	struct session *session;
};

struct disk *disk_make(
    struct target *target, const struct disk_environment *environment, const struct lun_info *info);
/* Are they one LUN, as far as that can be proved? Of -o shared none is: it has no cache to share.
 */
bool disk_is_same_lun(const struct disk *a, const struct disk *b);
/* Its requests are all done then. */
void disk_destroy(gpointer disk);

/* The session is lost; before it returns its commands. */
void disk_session_lost(struct disk *disk);
/* It is back: the LUN is asked who it is. target_disk_answered() follows when there is a verdict.
 */
void disk_session_up(struct disk *disk);
/* What waits ends with -EIO, and what comes, until it is proved to be there again. why is kept as
 * its trouble. */
void disk_give_up(struct disk *disk, const char *why);
/* For good: the session is about to be closed. */
void disk_close(struct disk *disk);

/* ---- target.c ---- */
struct loop *target_loop(const struct target *target);
/* A disk has had its verdict after a loss. */
void target_disk_answered(struct target *target);
