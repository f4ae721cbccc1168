/*
 * target.h - what target.c (the session) and target_luns.c (which LUNs there are) share. Private to
 * the room.
 *
 * Invariant: a disk is in disks, or, from GOING on until it was dropped and is idle, in going.
 */
#pragma once

#include "disk.h"
#include "lunfs/mount.h"

struct target {
	const struct target_environment *environment;
	const struct target_plan *plan;
	target_event_fn fn;
	void *data;

	enum {
		TARGET_TRYING,
		TARGET_FAILED,
		TARGET_KNOWN,
		TARGET_CLOSING,
		TARGET_CLOSED_ALREADY
	} state;
	struct login login;
	struct session *session; /* of FAILED it is the one that failed, until it is tried again */
	GSource *retry;
	unsigned pause_ms;
	char *trouble; /* or NULL */
	int64_t born_ms;
	bool settled, up;       /* the session stands */
	bool wants_secret;      /* it said no to who we are */
	bool verified;          /* each disk has had its verdict since the session stands */
	uint64_t resent_before; /* the last outage */
	bool reported;          /* that it is over */
	struct log_limit log;

	/* target_luns.c */
	struct probe *list, *probe; /* which there are; what they are */
	bool ask_again;
	bool changed; /* it has said that it has other LUNs, and was not asked since */
	GSource *poll, *sweep;
	GArray *luns;             /* of struct lun_info, ascending */
	GHashTable *troubles;     /* by LUN, why it is no file though it might be */
	GPtrArray *disks, *going; /* of struct disk */
	int64_t hung_until_ms;    /* new LUNs are not asked before: one let the session time out */
};

void target_tell(struct target *target, enum target_event event, struct disk *disk);
/* NULL: none. */
void target_set_trouble(struct target *target, const char *trouble);
/* Something is known now, for better or worse. */
void target_settle(struct target *target);
/* Does not wait for the end of the pause. */
void target_try_again(struct target *target);

/* ---- target_luns.c ---- */
void target_luns_init(struct target *target);
/* target_luns_ask() asks which LUNs there are, and what the new ones are, and the target has
 * settled then (disk.h). */
void target_luns_session_lost(struct target *target);
/* Nothing is asked any more. */
void target_luns_stop(struct target *target);
void target_luns_free(struct target *target);
