/*
 * mount.h - one mount, whole: sessions, disks, files and the control socket, from start to end.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

#include "lunfs/config.h"
#include "lunfs/iscsi.h"
#include "lunfs/log.h"
#include "lunfs/scsi.h"

/* ---- a target, logged in and probed; for mounts and for 'lunfs discover --luns' ---- */

struct target;

struct isid;
struct writers;
struct disk;

/* What the targets of a mount share; borrowed. */
struct target_environment {
	struct loop *loop;
	const GPtrArray *targets; /* of struct target: all of them */
	const struct isid *isid;  /* of the mount; NULL: random ones */
	struct writers *writers;
	const char
	    *mountpoint; /* for who finds a LUN in use; NULL: no LUN is to be used as a file */
	struct pool *pool;
	struct retain_memory *memory;
	struct cache_memory *cache_memory;
	bool several;  /* the names of disks, in messages, begin with the target's */
	bool one_file; /* the mountpoint is the one LUN's file: it never goes */
};

enum target_event {
	TARGET_SETTLED, /* it has answered, at first or to a rescan: its LUNs are known, or
	                   target_trouble() says why not */
	TARGET_ADDED,   /* a disk is there to be shown */
	TARGET_GOING,   /* a disk is no more: its file is to go, and then target_drop_disk() */
	TARGET_CLOSED,  /* target_close() is done */
};
typedef void (*target_event_fn)(
    struct target *target, enum target_event event, struct disk *disk, void *data);

/*
 * Logs in at the first of the plan's portals that lets us, and probes its LUNs; where that fails it
 * is tried again later, until it is closed. The plan is borrowed until target_free(). Events are
 * never from inside.
 */
struct target *target_new(const struct target_environment *environment,
    const struct target_plan *plan, target_event_fn fn, void *data);
const struct target_plan *target_plan(const struct target *target);
const struct options *target_options(const struct target *target);
/* What a login takes from a plan, and a random ISID: a session of the same name would take this
 * one's place at the target. The rest is zeroed. */
void target_login_fill(const struct target_plan *plan, struct login *login);
/* The plan's name: of its directory. */
const char *target_name(const struct target *target);
/* NULL while there is none: between tries. */
struct session *target_session(const struct target *target);
/* "ready", ...: the session's, or between tries "failed". */
const char *target_state(const struct target *target);
/* Why there is nothing to see, in a sentence; or NULL. */
const char *target_trouble(const struct target *target);
/* Did the target refuse us for who we are? */
bool target_wants_secret(const struct target *target);
bool target_is_settled(const struct target *target);
/* Will there be an answer to the last rescan? */
bool target_is_rescanning(const struct target *target);
/* See session_progress_ms(). */
int64_t target_progress_ms(const struct target *target);
const struct lun_info *target_luns(const struct target *target, unsigned *count);
/* Why a LUN is not a file ("in use by ..."), or NULL. */
const char *target_lun_trouble(const struct target *target, uint16_t lun);
/* Asks again which LUNs there are; TARGET_ADDED and TARGET_GOING follow. Where it failed it is
 * tried at once. */
void target_rescan(struct target *target);
/* Logs out, for at most timeout_ms; CLOSED follows. */
void target_close(struct target *target, unsigned timeout_ms);
/* What is left of it, session included; its disks' requests are all done then. */
void target_free(struct target *target);

/* A LUN as a block: the whole stack, ready for a file. */
struct disk {
	struct lun_info info;
	char *name;  /* of the file: "lun0.img" */
	char *title; /* in messages: the same, or "nas/lun0.img" */
	bool read_only, shared;
	struct block *top, *retain, *scsi;
	struct block *cache; /* NULL: see disk_cache_mode() */
	struct nexus *nexus;
	char *trouble; /* why it cannot be used now, or NULL */
	/* The same LUN by another way, whose block its file is made over; NULL: over its own. */
	struct disk *twin;

	/* private to disk.c */
	struct target *target;
	struct probe *probe;
	GSource *rest; /* gives it up for a while */
	GSource *recheck;
	unsigned absent_ms, hung_ms; /* the next pause before it is asked */
	enum { DISK_OPEN, DISK_AWAY, DISK_ASKED, DISK_ANSWERED } state;
	unsigned doubts;
	bool ask_again, stale_probe; /* it began in a session that was lost */
	bool lost;                   /* LOST was told, and it was not proved to be there since */
	bool closed;
	struct log_limit log;
	bool ghosts;    /* its target may still have old commands at work, though it should not */
	bool reset_due; /* old commands may be alive in another portal group */

	/* private to target_luns.c */
	struct writer *writer; /* NULL: it is not written to */
	int64_t missed_ms;     /* since when the target does not list it; 0: it does */
	bool dropped;

	/* private to layout.c */
	struct node *node; /* its file; NULL: it is not shown */
	GPtrArray *links;  /* of struct node, to the file */
	unsigned users;    /* files over its block that are not released */
	bool leaving;      /* its file was removed, and is not released */
	bool again;        /* and is to be made once more then */
	bool gone;         /* the LUN is */
};
/* Of struct disk. */
const GPtrArray *target_disks(const struct target *target);
/* Its file is gone, and nobody uses it any more. */
void target_drop_disk(struct target *target, struct disk *disk);
/* Are there disks whose LUN is gone, and that are still needed? */
bool target_is_dropping(const struct target *target);
/* "lun0.img of iqn...". Free with g_free(). */
char *disk_full_name(const struct disk *disk);
/* Is nothing of its disks under way, not even by themselves? Before that it must not be freed. */
bool target_is_idle(const struct target *target);
/* Commands and kept writes that were sent again since the start, and since the last outage began.
 */
uint64_t target_resent(const struct target *target, uint64_t *since_outage);
/* What the options say; but none where the LUN's blocks are larger than a page. */
enum cache_mode disk_cache_mode(const struct options *options, const struct lun_info *info);
/* "lun0.img: bytes 0-4095, 1048576-2097151 (...)": what was acknowledged and is not known to be on
 * stable storage; NULL where all is. */
char *disk_describe_unstable(const struct disk *disk);
/* How many bytes those are. */
uint64_t disk_unstable_bytes(const struct disk *disk);
/* Bytes that a FLUSH would have to send first. */
uint64_t disk_unwritten_bytes(const struct disk *disk);

/* ---- the mount ---- */

struct mount {
	struct plan
	    *plan; /* what is mounted; a reload puts a newer one here, and frees the older */
	const char *mountpoint; /* absolute */
	bool root_is_file, debug;
};

/*
 * Runs until unmounted or told to end; ready() is called when the tree is ready to use. True when
 * it was, and all that was written is on stable storage.
 */
bool mount_run(struct mount *mount, void (*ready)(void *data), void *data, GError **error);

/* Where the plan holds a secret, the process leaves no core behind, from here on. */
void mount_protect_secrets(const struct plan *plan);

/* ---- mounts of this machine, and how to reach them ---- */

struct mounted {
	char *mountpoint, *source;
	unsigned device; /* the minor number of st_dev */
	uid_t uid;       /* who mounted it */
};
/* Of /proc/self/mountinfo, all of type fuse.lunfs. */
GPtrArray *mounted_list(void);
/* The one at path, or NULL; works while its process is dead. Free with mounted_free(). */
struct mounted *mounted_find(const char *path);
void mounted_free(gpointer mounted);
/* Is a mount there whose process is gone? */
bool mounted_is_dead(const char *mountpoint);
/*
 * Has umount(8) find our helper, where we may: of an absolute path it asks statfs(2) for the type,
 * which says "fuse" and not whose, unless the mount has a line in utab (util-linux from 2.38 on).
 * Where wait is unset it is not waited for: it may look at the mount.
 */
void mounted_register(const char *source, const char *mountpoint, bool wait);
/* Takes it out of the tree; lazily where it is in use or dead and lazy is set. */
bool mounted_detach(const struct mounted *mounted, bool lazy, GError **error);

/* Its control socket's path, whether there is one or not. */
char *control_path(unsigned device, uid_t uid);
/* A connection to the mount's process; -1 where none answers. */
int control_connect(const struct mounted *mounted);
