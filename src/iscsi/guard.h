/*
 * guard.h - between the target and libiscsi: what is not to be believed (SAFETY.md 13).
 *
 * libiscsi believes what a target sends. It reads through NULL where a Data-In or an R2T names a
 * request that is no SCSI command; it queues 4 GiB of Data-Outs for an R2T that asks for them, and
 * for a READ, whose memory it does not keep; it takes a failure of the target for done (response
 * code 01h); it reads the padding of a Text Response as text. So the guard follows the PDUs on the
 * socket: it looks at each header before libiscsi gets the last byte of it, compares it with the
 * command that it names, and gives libiscsi an error instead where it is not to be believed. That
 * ends the connection. And as libiscsi keeps pointers to a WRITE that is answered before all of its
 * data has left, the guard also follows what is sent, and tells whether it has.
 *
 * It sits in recv(), readv(), send() and writev(), which the program defines in place of libc's:
 * the dynamic linker gives them to libiscsi. A libiscsi that reads by other calls goes unguarded,
 * and is warned of; one that sends by others costs time.
 * Needed for libiscsi up to 1.20 and master of 2026, which read alike.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lunfs/scsi.h"

struct guard;

/* fd is connected, and nothing was read from it. */
struct guard *guard_new(int fd);
/* The login is over, and its last PDU read. Header digests were asked for, or not. */
void guard_begin(struct guard *guard, bool header_digest);
void guard_free(struct guard *guard);
/* libiscsi works on the guard's connection from now on, on this thread; NULL: on none. */
void guard_watch(struct guard *guard);
/* Why it refused a PDU, in words; NULL: it did not. */
const char *guard_finding(const struct guard *guard);
/* Was nothing read through it, though something should have been? */
bool guard_is_blind(const struct guard *guard);

/* The command with this Initiator Task Tag was queued; length: bytes of data. */
void guard_expect(
    struct guard *guard, uint32_t itt, enum scsi_direction direction, uint32_t length);
/*
 * It was answered: what names it from now on is refused. True: all that was queued for it is known
 * to have left, so that libiscsi is done with its task and its data.
 */
bool guard_settle(struct guard *guard, uint32_t itt);
