/*
 * disk.h - what target.c does with its disks. Private to the room.
 */
#pragma once

#include "lunfs/mount.h"

struct writer;

/* "lun0.img", or "nas/lun0.img" where there are several targets: what its messages begin with. Free
 * with g_free(). */
char *disk_make_title(const struct target *target, const struct target_environment *environment,
    const struct lun_info *info);
/* A stack on a LUN that is to be a file. writer is taken over. */
struct disk *disk_make(struct target *target, const struct target_environment *environment,
    const struct lun_info *info, struct writer *writer);
/* Are they one LUN, as far as that can be proved? Of -o shared none is: it has no cache to share.
 */
bool disk_is_same_lun(const struct disk *a, const struct disk *b);
/* Is nothing of it under way, not even by itself? */
bool disk_is_idle(const struct disk *disk);
/* It is idle then. */
void disk_destroy(gpointer disk);

/* The session is lost; before it returns its commands. */
void disk_session_lost(struct disk *disk);
/* It is back: the LUN is asked who it is. target_disk_answered() follows when there is a verdict.
 */
void disk_session_up(struct disk *disk);
/* What waits ends with -EIO, and what comes, until it is proved to be there again. why is kept as
 * its trouble. */
void disk_give_up(struct disk *disk, const char *why);
/* Asks once more what it is: it may have changed, and nobody said so. */
void disk_recheck(struct disk *disk);
/* Another LUN may have its number: nothing is sent to it before it was proved to be the same. */
void disk_doubt(struct disk *disk);
/* Is an answer still to come? */
bool disk_is_asked(const struct disk *disk);
/* The target does not list it any more; and then it does. */
void disk_miss(struct disk *disk);
void disk_found(struct disk *disk);
struct probe_news;
/* Somebody else's question fetched what it has to tell. */
void disk_hear(struct disk *disk, const struct probe_news *news);
/* For good: the session is about to be closed, or the LUN is gone. */
void disk_close(struct disk *disk);

/* ---- target.c ---- */
struct loop *target_loop(const struct target *target);
/* Asks which LUNs there are. */
void target_luns_ask(struct target *target);
/* The same; the target says that there are others now. */
void target_luns_changed(struct target *target);
/* A disk has had its verdict after a loss. */
void target_disk_answered(struct target *target);
