/*
 * full.h - the full-feature phase: a mounted scripted target, I/O on it, and what passed between
 * (RFC 7143).
 *
 * What a test reads and writes goes straight to the wire: no cache, no read-ahead, O_DIRECT. It is
 * done by children, so that a hanging one is a failure and not a hanging test.
 */
#pragma once

#include "full_rules.h"
#include "support/load.h"
#include "support/script_scene.h"
#include "support/script_traffic.h"

#include <criterion/criterion.h>

/* RFC 7143, 11.2.1.2 */
enum {
	NOP_OUT = 0x00,
	SCSI_COMMAND = 0x01,
	MANAGEMENT = 0x02,
	LOGIN = 0x03,
	DATA_OUT = 0x05,
	LOGOUT = 0x06,
	NOP_IN = 0x20,
	SCSI_RESPONSE = 0x21,
	MANAGED = 0x22,
	LOGIN_RESPONSE = 0x23,
	DATA_IN = 0x25,
	LOGOUT_RESPONSE = 0x26,
	R2T = 0x31,
	ASYNC = 0x32,
	REJECT = 0x3f,
};
enum { FINAL = 0x80, IMMEDIATE = 0x40 };

#define NO_TAG     0xffffffffu
#define PIECE      KIB(64) /* of most reads and writes: one command, one Data-In */
#define FULL_SIZE  MIB(4)
#define FULL_LIMIT 20 /* seconds, in which what is to end does */

struct full {
	struct scene scene;
	struct script_target *target;
	struct script_parameters parameters; /* as given; zero: the default */
	unsigned from;                       /* the traffic behind the mount */
	unsigned logins;                     /* sessions at that time */
};

/*
 * A target with LUN 1 of FULL_SIZE bytes in blocks of 512, mounted with more options (NULL: none);
 * the disk holds the pattern of LOAD_SEED. Without keepalive, unless the options say so.
 */
struct full full_begin(const struct script_parameters *parameters, const char *options);
/* The same in two steps, for what is to happen before the mount. */
struct full full_target(const struct script_parameters *parameters);
void full_mount(struct full *full, const char *options);
/* Unmounts; nothing that passed may have been against the rules. */
void full_end(struct full *full);
/* The same where what passed cannot be judged by the rules, as the target itself broke them. */
void full_end_unjudged(struct full *full);

/* ---- I/O ---- */

/* A job on the disk's file: of the first pattern, or of another one. */
struct io_job full_read_of(const struct full *full, uint64_t offset, size_t length);
struct io_job full_write_of(const struct full *full, uint64_t offset, size_t length, unsigned seed);
/* 0, an errno, WRONG_BYTES, or -1 where it hangs. */
int full_do(struct io_job job);
void full_must_read(struct full *full, uint64_t offset, size_t length);
/* The target must have what was written. */
void full_must_hold(struct full *full, uint64_t offset, size_t length, unsigned seed);
void full_must_write(struct full *full, uint64_t offset, size_t length, unsigned seed);
/* So many pieces written and read, one at a time. */
void full_read_and_write(struct full *full, unsigned times);
/* The n jobs are under way at once; all of them must end well. */
void full_must_do_at_once(struct io_job *jobs, unsigned n);
/* n reads at once, each of another piece. */
void full_must_read_at_once(struct full *full, unsigned n);

/* ---- what passed ---- */

/* The next from *i on with that opcode and direction; *i is behind it then. */
bool full_find(
    struct full *full, unsigned *i, bool to_target, uint8_t opcode, struct script_traffic *pdu);
unsigned full_count(struct full *full, unsigned from, bool to_target, uint8_t opcode);
/* Waits until so many passed since; the test fails if they do not in time. */
void full_await(struct full *full, unsigned from, bool to_target, uint8_t opcode, unsigned count);
/* The i-th of them (0: the first); it must be there. */
struct script_traffic full_nth(
    struct full *full, unsigned from, bool to_target, uint8_t opcode, unsigned n);
/* From now on. */
unsigned full_mark(struct full *full);
bool full_is_read(const uint8_t *header);
bool full_is_write(const uint8_t *header);

/* ---- sessions ---- */

/* Not one login since the mount; or so many more. */
void full_must_be_the_same_session(struct full *full);
void full_must_be_begun_anew(struct full *full, unsigned times);

/* ---- PDUs of the target's own ---- */

/* A NOP-In that wants an answer, and gets it. */
void full_ping(struct full *full);
/* A NOP-In that wants no answer: it tells ExpCmdSN and MaxCmdSN. */
void full_tell_window(struct full *full);
