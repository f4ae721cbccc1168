/*
 * guard.h - between the target and libiscsi: what is not to be believed (SAFETY.md 13), and what
 * libiscsi gets wrong once it is logged in.
 *
 * The guard follows the PDUs on the socket. It takes each header before libiscsi does, compares it
 * with the command that it names and with what was agreed on, and gives libiscsi an error instead
 * where it is not to be believed: that ends the connection. Some headers it edits, either way.
 *
 * It sits in recv(), readv(), send() and writev(), which the program defines in place of libc's:
 * the dynamic linker gives them to libiscsi. A libiscsi that reads by other calls goes unguarded,
 * and is warned of; one that sends by others costs time, and is not mended.
 *
 * What of libiscsi it makes up for; 1.19 and the master of June 2026 are alike where nothing else
 * is said. Each is a piece of guard_pdu.c or guard_commands.c, and goes when libiscsi is mended:
 *
 * - A Data-In or an R2T that names a request that is no SCSI command is read through NULL; an R2T
 *   may ask for 4 GiB, and for a READ, and any number of them may come at once. Refused.
 * - An answer to a request of which a part has not left takes the rest of it out of the queue: the
 *   stream is out of step from then on. Refused.
 * - Response code 01h passes for done. Refused.
 * - DataSN, R2TSN and Buffer Offset are not looked at, and the bytes that come for an iovec are not
 *   counted: data can be missing behind GOOD, and a WRITE be GOOD whose data was not asked for.
 *   Refused; guard_moved() counts.
 * - A residual that is over and under, or beyond the command's data; S without F; an R2T without a
 *   tag or for more than MaxBurstLength; a PDU of an unknown kind (master: an error, as here, where
 *   its ITT is unknown too). Refused.
 * - StatSN: an Async Message and a Reject are taken for PDUs that do not advance it, and an R2T for
 *   one that does (for which master sends one less in each Data-Out, right or not); a first one of
 *   80000000h or more may not be adopted; one that leaps ahead is. Mended in what leaves; a leap of
 *   2^16 is refused (RFC 7143, 4.2.2.2).
 * - MaxCmdSN and ExpCmdSN are adopted though MaxCmdSN < ExpCmdSN - 1. Mended in what comes.
 * - 1.19: what is immediate (an answer to a NOP-In, LOGICAL UNIT RESET, Logout) takes the CmdSN of
 *   what stands first in the queue, a Data-Out too; as the target has that command already, which
 *   ExpCmdSN tells, it ends the connection then. ExpCmdSN is hidden from it, and CmdSN mended in
 *   what leaves.
 * - A command window of 0 at the end of the login is taken for 1. See guard_window_is_open().
 * - Asked to log out, by an Async Message or by a Reject, it does so at once and calls that a
 *   cancellation of whatever is outstanding; of Time2Wait it tells nobody; a vendor's event ends
 *   the connection. Hidden from it, and told by guard_take_notice().
 * - The answer to a NOP-In has 2 bytes of its LUN. Mended in what leaves. For each NOP-In it keeps
 *   an answer, without end. Refused.
 * - It reads until nothing is there: whoever sends faster than that keeps the loop for himself. It
 *   gets some PDUs at a time.
 * - The padding of a Text Response is read as text. Zeroed.
 * - As libiscsi keeps pointers to a WRITE that is answered before all of its data has left, the
 *   guard tells whether it has: guard_settle().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lunfs/scsi.h"

struct guard;

/* What the login ended with. Where statsn, cmdsn and max_cmdsn are all 0 they are unknown: StatSN
 * is then followed from the first that comes, and the command window is not. */
struct guard_session {
	bool header_digest; /* was agreed on */
	uint32_t statsn;    /* of the last Login Response */
	uint32_t cmdsn;     /* that the first command will have (the login's CmdSN) */
	uint32_t max_cmdsn; /* of the last Login Response */
	uint32_t max_burst; /* MaxBurstLength, bytes; 0: unknown */
};

/* What the target said of the session itself. */
enum guard_event {
	GUARD_LOGOUT_REQUESTED,
	GUARD_DROP_ANNOUNCED,
	GUARD_LOGGED_OUT,
	GUARD_SCSI_EVENT, /* sense data of a LUN, whatever it says (RFC 7143, 11.9.1: event 0) */
};
struct guard_notice {
	enum guard_event event;
	uint16_t within_s;  /* LOGOUT_REQUESTED: the logout is due in so many seconds (Parameter3;
	                       0: it is due now) */
	uint16_t time2wait; /* DROP_ANNOUNCED (Parameter2), LOGGED_OUT (Logout Response): seconds
	                       before the next login */
};

/* fd is connected, and nothing was read from it. */
struct guard *guard_new(int fd);
/* The login is over, and its last PDU read. */
void guard_begin(struct guard *guard, const struct guard_session *session);
void guard_free(struct guard *guard);
/* libiscsi works on the guard's connection from now on, on this thread; NULL: on none. It finds
 * nothing more to read after 1024 PDUs, until this is called again. */
void guard_watch(struct guard *guard);
/* Why it refused a PDU, in words; NULL: it did not. */
const char *guard_finding(const struct guard *guard);
/* Was nothing read through it, though something should have been? */
bool guard_is_blind(const struct guard *guard);
/* Takes the oldest that was not taken yet; false: there is none. */
bool guard_take_notice(struct guard *guard, struct guard_notice *notice);
/*
 * May a command be sent (CmdSN up to MaxCmdSN; RFC 7143, 4.2.2.1)? Before the first command
 * libiscsi itself does not know.
 */
bool guard_window_is_open(const struct guard *guard);

/*
 * The command with this Initiator Task Tag was queued; length: bytes of data. exact: where it
 * ends with GOOD all of them have come, or left, or the answer is refused.
 */
void guard_expect(
    struct guard *guard, uint32_t itt, enum scsi_direction direction, uint32_t length, bool exact);
/* Bytes of a command's data, from its beginning on, that have come, or left, until it is settled.
 * Blind, the guard says all. */
uint32_t guard_moved(const struct guard *guard, uint32_t itt);
/*
 * It was answered: what names it from now on is refused. True: all that was queued for it is known
 * to have left, so that libiscsi is done with its task and its data.
 */
bool guard_settle(struct guard *guard, uint32_t itt);
