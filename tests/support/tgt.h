/*
 * tgt.h - a real iSCSI target of the test's own: tgtd, with its own port, control socket and
 * backing files.
 *
 * It runs as root or as an ordinary user alike (here as whoever runs the test) and dies with the
 * stage. tgt's LUN 0 is its controller, so disks start with LUN 1.
 */
#pragma once

#include "support/stage.h"

struct tgt {
	struct stage *stage;
	pid_t pid;
	uint16_t port;
	char *portal; /* "127.0.0.1:PORT" */
	char *admin;  /* "tgtadm" with what it needs to find this one */
	char *dir;    /* of the backing files, "targetN-lunN" */
};

struct lun_spec {
	unsigned lun;
	uint64_t size;       /* bytes, sparse */
	unsigned block_size; /* 512 where 0 */
	const char *type;    /* "disk" where NULL; "cd", "tape", "changer" */
	bool read_only, offline, thin, no_medium;
};

struct tgt *tgt_start(struct stage *stage);
/* A second one, with its backing files in a directory of the stage's. */
struct tgt *tgt_start_in(struct stage *stage, char *directory);
/* A target that every initiator may use, with no LUN yet but tgt's controller. */
void tgt_add_target(struct tgt *tgt, unsigned tid, const char *iqn);
/* Returns the path of the backing file. */
char *tgt_add_lun_spec(struct tgt *tgt, unsigned tid, struct lun_spec spec);
#define tgt_add_lun(tgt, tid, ...) tgt_add_lun_spec(tgt, tid, (struct lun_spec){__VA_ARGS__})
/* A second tgtadm call for what the above do not do. */
void tgt_set(struct tgt *tgt, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Access for one initiator name alone. */
void tgt_allow_only(struct tgt *tgt, unsigned tid, const char *initiator_name);
void tgt_chap(struct tgt *tgt, unsigned tid, const char *user, const char *secret);
/* What the target proves itself with (mutual CHAP). */
void tgt_chap_outgoing(struct tgt *tgt, unsigned tid, const char *user, const char *secret);
/* "iscsi://127.0.0.1:PORT/IQN", with "/LUN" where lun >= 0 */
char *tgt_url(struct tgt *tgt, const char *iqn, int lun);
/* Silent from here on (SIGSTOP), going on, or dead (SIGKILL). */
void tgt_freeze(struct tgt *tgt);
void tgt_thaw(struct tgt *tgt);
void tgt_kill(struct tgt *tgt);
/* After tgt_kill(): a new process at the same port, with no target yet. */
void tgt_restart(struct tgt *tgt);

/* A port that nobody listens on now, outside the range for outgoing connections. */
uint16_t free_port(void);

/* Access for the initiators at one address alone, "10.0.0.5" or "10.0.0.0/24". */
void tgt_allow_address(struct tgt *tgt, unsigned tid, const char *address);
/* What an initiator logs in with to ask which targets there are; and what the target proves itself
 * with then. */
void tgt_discovery_chap(struct tgt *tgt, const char *user, const char *secret);
void tgt_discovery_chap_outgoing(struct tgt *tgt, const char *user, const char *secret);
