/*
 * connection.h - one TCP connection to one address, logged in: a libiscsi context and its socket on
 * the loop.
 *
 * For sessions, which send commands over it, and for discovery, which sends text.
 */
#pragma once

#include <stdbool.h>

#include "lunfs/iscsi.h"

struct iscsi_context;
struct connection;
struct guard_notice;

enum connection_event {
	CONNECTION_STANDS,  /* TCP does; the login has begun */
	CONNECTION_UP,      /* logged in */
	CONNECTION_DRAINED, /* as asked for by connection_tell_when_drained() */
	CONNECTION_NOTICE,  /* the target said something of the session: see connection_notice() */
	CONNECTION_DOWN,    /* not, or no longer: see connection_error(), connection_redirect() */
};

/* Called once with DOWN, maybe after STANDS and UP, never from inside libiscsi; DOWN's receiver
 * frees the connection. */
typedef void (*connection_fn)(
    struct connection *connection, enum connection_event event, void *data);

/*
 * Starts to connect to address, "10.0.0.5:3260" or "[::1]:3260", in at most connect_ms, and to log
 * in, in timeout_ms altogether.
 */
struct connection *connection_new(struct loop *loop, const struct login *login, const char *address,
    unsigned connect_ms, unsigned timeout_ms, connection_fn fn, void *data);
/* Whatever libiscsi had outstanding is called back with SCSI_STATUS_CANCELLED. Not from inside
 * libiscsi. */
void connection_free(struct connection *connection);

/* Another receiver takes the connection over, from inside an UP. */
void connection_hand_over(struct connection *connection, connection_fn fn, void *data);
struct iscsi_context *connection_context(struct connection *connection);
/* A PDU was queued, with data or without: it leaves at the end of this turn of the loop. */
void connection_send(struct connection *connection, bool with_data);
/* Is there something that waits for the target to let it come (MaxCmdSN; RFC 7143, 4.2.2.1)? */
bool connection_window_is_closed(const struct connection *connection);
/* Sends DRAINED once, when all that may leave has left for the target. What was queued for commands
 * that were answered is libiscsi's no more then. */
void connection_tell_when_drained(struct connection *connection);
/* The command with this Initiator Task Tag was queued; length: bytes of data. exact: it is dropped
 * where it reads, and not all of them have come when it ends with GOOD. */
void connection_expect(struct connection *connection, uint32_t itt, enum scsi_direction direction,
    uint32_t length, bool exact);
/* Bytes of data that have come for it, where it reads; as far as is known. */
uint32_t connection_moved(const struct connection *connection, uint32_t itt);
/* Is what the target sends not seen, up to now at least (guard.h)? */
bool connection_is_blind(const struct connection *connection);
/* It was answered. True: libiscsi is done with its task and its data; else it is when drained. */
bool connection_settle(struct connection *connection, uint32_t itt);
/* Gives up; DOWN follows, not from inside. reason is a sentence. */
void connection_drop(struct connection *connection, const char *reason);

/* From inside a NOTICE: what was said (guard.h). What was said before the end comes before DOWN. */
const struct guard_notice *connection_notice(const struct connection *connection);

/* The tag of the portal group that it leads to; -1 where the target did not tell (RFC 7143,
 * 13.9). */
int connection_portal_group(const struct connection *connection);
/* What was agreed on, see keys_outcome(); NULL where it is not logged in. Its owner is the
 * connection. */
char **connection_keys(const struct connection *connection);
/* Did the target say no to who we are: to the secret, or for want of one (0201h)? */
bool connection_wants_secret(const struct connection *connection);
const char *connection_address(const struct connection *connection);
/* One sentence that says what went wrong and what to do. */
const char *connection_error(const struct connection *connection);
/* The target said no (status class 02h, or it could not prove itself): another try will not help.
 */
bool connection_was_refused(const struct connection *connection);
/* Where the target sent us (TargetAddress; statuses 0101h and 0102h), or NULL. */
const char *connection_redirect(const struct connection *connection);
/* Status-Class << 8 | Status-Detail of the last Login Response (RFC 7143, 11.13.5); -1: none came.
 */
int connection_login_status(const struct connection *connection);
/* The answer to a discovery's SendTargets, a NUL behind each pair; NULL: it is not whole. */
const GString *connection_text(const struct connection *connection);
