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

/* What belongs to the login of every target of a SOURCE; borrowed. */
struct target_login {
	const struct options *options;
	const struct credentials *credentials;
	const char *initiator_name;
	uint32_t isid_random;
};
void target_login_fill(const struct target_login *from, struct login *login);

/*
 * Logs in at the first of portals (of struct portal; taken over, see portals_new()) that lets us,
 * and probes lun, or all of -1. probed() is called once, never from inside: with error NULL, or the
 * sentence that says what failed.
 */
struct target *target_new(struct loop *loop, const struct target_login *login, const char *name,
    GPtrArray *portals, unsigned number, int lun,
    void (*probed)(struct target *target, const char *error, void *data), void *data);
const char *target_name(const struct target *target);
struct session *target_session(const struct target *target);
const struct lun_info *target_luns(const struct target *target, unsigned *count);
/* Logs out, for at most timeout_ms; closed() is called once. */
void target_close(
    struct target *target, unsigned timeout_ms, void (*closed)(void *data), void *data);
/* What is left of it, session included; its disks' requests are all done then. */
void target_free(struct target *target);

/* A list for portals, which owns them. */
GPtrArray *portals_new(void);
void portals_add(GPtrArray *portals, const char *host, uint16_t port);

/* A LUN as a block: the whole stack, ready for a file. */
struct disk {
	struct lun_info info;
	char *name; /* of the file: "lun0.img" */
	bool read_only, shared;
	struct block *top, *retain, *scsi;
	struct block *cache; /* NULL: see disk_cache_mode() */
	struct nexus *nexus;
	char *trouble; /* why it cannot be used now, or NULL */
	/* The same LUN by another way, whose block its file is made over; NULL: over its own. */
	const struct disk *twin;

	/* private to disk.c */
	struct target *target;
	struct probe *probe;
	GSource *recheck;
	unsigned absent_ms, hung_ms; /* the next pause before it is asked */
	enum { DISK_OPEN, DISK_AWAY, DISK_ASKED, DISK_ANSWERED } state;
	bool ask_again, stale_probe; /* it began in a session that was lost */
	bool lost;                   /* LOST was told, and it was not proved to be there since */
	bool closed;
	struct log_limit log;
	bool ghosts;    /* its target may still have old commands at work, though it should not */
	bool reset_due; /* old commands may be alive in another portal group */
};
/*
 * Puts a stack on each LUN that is shown as a file; array of struct disk, owned by target. From
 * here on the target looks after them when its session is lost and comes back.
 */
GPtrArray *target_make_disks(struct target *target, struct pool *pool, struct retain_memory *memory,
    struct cache_memory *cache_memory, const struct options *options);
const GPtrArray *target_disks(const struct target *target);
/*
 * Finds the disks that are one LUN (SAFETY.md 22): the first that can be written is the twin of the
 * others. Of all targets of a mount, of struct target, when their disks are made.
 */
void targets_find_twins(const GPtrArray *targets);
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
	const struct source *source;
	const struct options *options;
	const struct credentials *credentials;
	const char *initiator_name;
	const char *mountpoint; /* absolute */
	bool root_is_file, debug;
};

/*
 * Runs until unmounted or told to end; ready() is called when the tree is ready to use. True when
 * it was, and all that was written is on stable storage.
 */
bool mount_run(const struct mount *mount, void (*ready)(void *data), void *data, GError **error);

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
