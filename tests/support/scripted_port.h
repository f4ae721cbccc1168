/*
 * scripted_port.h - a target made of memory and a script, for tests of what stands above a
 * scsi_port.
 *
 * Its disks keep their blocks in hash tables, so any size is cheap, with a volatile write cache
 * that scripted_port_forget() empties as a power failure would. Answers to inquiries are bytes that
 * a test may replace; rules make commands fail, or wait until they are released. Answers come
 * through loop_defer(), never from inside execute().
 */
#pragma once

#include <glib.h>

#include "lunfs/loop.h"
#include "lunfs/scsi.h"

/* What a Data-In answer is found by: the opcode, and what tells it from others of that opcode. */
#define SCRIPTED_INQUIRY       0x120000u
#define SCRIPTED_VPD(page)     (0x120100u | (page))
#define SCRIPTED_MODE_6(page)  (0x1a0000u | (page))
#define SCRIPTED_MODE_10(page) (0x5a0000u | (page))
#define SCRIPTED_CAPACITY_10   0x250000u
#define SCRIPTED_CAPACITY_16   0x9e0010u
#define SCRIPTED_REPORT_LUNS   0xa00000u

struct scripted_lun {
	uint8_t type;
	uint32_t block_size;
	uint64_t blocks;
	GHashTable *answers;        /* key -> GBytes */
	GHashTable *cache, *medium; /* lba -> block */
};

/* The first rule that matches and has times left decides over a command. */
struct scripted_rule {
	int opcode;     /* -1: any */
	unsigned times; /* 0: without end */
	unsigned skip;  /* lets so many pass first */
	int error;
	bool timed_out; /* with an error */
	uint8_t status;
	struct sense sense;
	bool deferred;      /* the sense is of an earlier command */
	bool hold;          /* neither done nor answered before scripted_port_release() */
	bool done_but_held; /* done at once, answered when released */
};

struct scripted_seen {
	uint8_t cdb[16], cdb_length;
	uint16_t lun;
	uint32_t length;
	unsigned niov, timeout_ms;
	bool exact, replay;
	const bool *cancelled;
	int64_t at_ms;
};

struct scripted_port {
	struct scsi_port port;
	struct loop *loop;
	struct scripted_lun *luns[512];
	GArray *rules; /* of struct scripted_rule */
	GArray *seen;  /* of struct scripted_seen, in order of execute() */
	GPtrArray *held;
	GQueue answered;
	struct loop_work work;
	GRand *mutate; /* where set: Data-In is damaged at random */
	bool away;     /* the session is lost */
	unsigned outstanding, most_outstanding;
};

struct scripted_port *scripted_port_new(struct loop *loop);
void scripted_port_free(struct scripted_port *port);
/* A unit with the answers that an ordinary target gives: NAA designator, caching page with WCE and
 * DPOFUA. */
struct scripted_lun *scripted_port_add(
    struct scripted_port *port, uint16_t lun, uint8_t type, uint32_t block_size, uint64_t blocks);
/* Replaces an answer; size 0 takes it away: ILLEGAL REQUEST then. */
void scripted_lun_answer(struct scripted_lun *lun, uint32_t key, const void *data, size_t size);
/* What it would answer, to be changed; owned by the caller, g_free(). */
uint8_t *scripted_lun_get(struct scripted_lun *lun, uint32_t key, size_t *size);
void scripted_port_rule(struct scripted_port *port, struct scripted_rule rule);
/* CHECK CONDITION for the next times commands with the opcode. */
void scripted_port_sense(
    struct scripted_port *port, int opcode, unsigned times, struct sense sense);
/* Lets the held command with this place in held go on; the later ones move up. */
void scripted_port_release(struct scripted_port *port, unsigned index);
/* Hands the held command with this place in held back with -ESTALE, as a session that is lost does.
 */
void scripted_port_return(struct scripted_port *port, unsigned index, bool timed_out);
/* Returns everything with -ESTALE, and all that comes, until away is false again. */
void scripted_port_lose(struct scripted_port *port);
/* What was not synchronized is gone. */
void scripted_port_forget(struct scripted_port *port, uint16_t lun);
/* Commands seen with this opcode. */
unsigned scripted_port_count(const struct scripted_port *port, uint8_t opcode);
const struct scripted_seen *scripted_port_nth(
    const struct scripted_port *port, uint8_t opcode, unsigned n);
/* One block as a READ would see it; or, of the medium alone, as after a power failure. NULL: never
 * written. */
const uint8_t *scripted_lun_block(const struct scripted_lun *lun, uint64_t lba, bool medium_only);
