/*
 * daemon.h - what the files of one mount's process share: daemon.c (its life), targets.c (which
 * targets it has), reload.c (that these change) and requests.c (what it is asked). Private to the
 * room.
 */
#pragma once

#include "layout.h"
#include "lunfs/block.h"
#include "lunfs/fs.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"

struct control;
struct control_client;

enum daemon_state { FINDING, PROBING, MOUNTING, RUNNING, FLUSHING, LEAVING, ENDED };

struct daemon {
	struct mount *mount;
	struct loop *loop;
	struct pool *pool;
	struct retain_memory memory;
	struct target_environment environment;
	enum daemon_state state;
	void (*ready)(void *data);
	void *data;

	struct isid *isid;
	GPtrArray *targets; /* of struct target */
	struct fs *fs;
	struct layout *layout;
	struct control *control;
	GPtrArray *signals; /* sources */
	GSource *trim, *limit, *settle;
	GError *error;
	unsigned unclosed;
	int64_t deadline_ms;  /* of FLUSHING */
	unsigned patience_ms; /* for so long again, as long as it gets on; 0: it has to end */
	uint64_t unwritten;   /* when it was last looked at */
	unsigned signalled;
	char *end;     /* what was said at the end; NULL before it */
	GString *lost; /* what went with LUNs and targets, and was acknowledged */
	bool mounted, clean, hasty;
	bool has_terminal; /* at the start */

	/* targets.c */
	struct login discovery_login;
	struct discovery *discovery;
	GSource *quiet, *rescan_look;
	GPtrArray *rescans; /* of struct control_client: who wait */
	GHashTable *told;   /* by target, and LUN: the trouble that was last logged */
	/* reload.c */
	GPtrArray *departures; /* of struct departure */
	struct reload *reload; /* that is under way */
	bool reload_again;     /* once more then */
};

/* ---- daemon.c ---- */
void daemon_set_state(struct daemon *daemon, enum daemon_state state);
/* Before it is RUNNING: the mount fails for this reason. code: of enum lunfs_error. */
void daemon_fail(struct daemon *daemon, int code, const char *reason);
/* The targets are as known as they will be: the tree is made and mounted. */
void daemon_mount(struct daemon *daemon);
/* 'lunfs umount -f': whoever waits for a target waits no longer (SAFETY.md 17). */
void daemon_abort(struct daemon *daemon);
/* What the disk has that is not stable goes with it: the end will not be a good one. */
void daemon_lose(struct daemon *daemon, const struct disk *disk);
/* A target has closed, while LEAVING. */
void daemon_target_closed(struct daemon *daemon);

/* ---- targets.c ---- */
/* Finds and dials them; daemon_mount() or daemon_fail() follows. */
void targets_start(struct daemon *daemon);
/* Has all targets asked for their LUNs; client gets the answer when they have told. */
void targets_rescan(struct daemon *daemon, struct control_client *client);
void targets_add(struct daemon *daemon, const struct target_plan *plan);
/* Have all answered, but for those of several that give no sign of life? */
bool targets_have_answered(const struct daemon *daemon);
/* Asks the portal at; done() as of discovery_start(). */
void targets_discover(struct daemon *daemon, const struct target_plan *at,
    void (*done)(GPtrArray *targets, const char *error, void *data));
/* What the plan's portal reported becomes its targets. */
void targets_take_reported(struct plan *plan, const GPtrArray *targets);
/* The mount is there: what could not be reached is told. */
void targets_tell_troubles(struct daemon *daemon);
/* Nothing more comes and goes. */
void targets_stop(struct daemon *daemon);
void targets_free(struct daemon *daemon);

/* ---- reload.c ---- */
void reload_init(struct daemon *daemon);
/* Reads the configuration again: client, which may be NULL, gets the answer. */
void targets_reload(struct daemon *daemon, struct control_client *client);
/* Is the target about to go? */
bool reload_departs(const struct daemon *daemon, const struct target *target);
void reload_target_closed(struct daemon *daemon, const struct target *target);
void reload_stop(struct daemon *daemon);
void reload_free(struct daemon *daemon);

/* ---- requests.c ---- */
void daemon_request(struct control_client *client, const char *command, void *data);
/* For .lunfs/status.json and metrics; data is the daemon. Free with g_free(). */
char *daemon_status_file(void *data);
char *daemon_metrics_file(void *data);
