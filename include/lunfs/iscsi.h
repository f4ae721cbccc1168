/*
 * iscsi.h - sessions with targets, and their discovery (RFC 7143, by libiscsi).
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "lunfs/portal.h"
#include "lunfs/scsi.h"

struct loop;

/* What a login needs. All strings are borrowed and must outlive the session. */
struct login {
	const GPtrArray *portals;              /* of struct portal; at least one, tried in turn */
	const char *target;                    /* IQN; NULL for a discovery session */
	const char *title;                     /* what messages call it; NULL: target */
	const char *initiator_name;            /* IQN */
	const char *username, *password;       /* CHAP; NULL: none */
	const char *username_in, *password_in; /* mutual CHAP; NULL: none */
	uint32_t isid_random;    /* 24 bits, kept per mount (RFC 7143, 11.12.5, format 80h) */
	uint16_t isid_qualifier; /* one for each session that lives at the same time */
	bool header_digest;      /* CRC32C, else none */
	unsigned login_timeout_ms, command_timeout_ms, noop_interval_ms, noop_timeout_ms;
	unsigned connect_ms; /* for TCP at one address, in a discovery; 0: login_timeout_ms */
};

enum session_event {
	SESSION_UP,     /* logged in: the first time, and each time after LOST. Commands may be
	                   sent; session_verified() ends the outage */
	SESSION_LOST,   /* every outstanding command is returned with -ESTALE next; it logs in again
	                   by   itself */
	SESSION_FAILED, /* the first login failed: text says why and what to do; nothing follows.
	                   One that the target puts off (class 03h) is tried again before, up to
	                   login_timeout_ms after the first */
	SESSION_CLOSED, /* session_close() is done */
	SESSION_TOLD,   /* the target says that something has changed at a LUN, unasked */
};

struct session;
typedef void (*session_event_fn)(
    struct session *session, enum session_event event, const char *text, void *data);

/* Starts to log in; the outcome comes as an event, never from inside. */
struct session *session_new(
    struct loop *loop, const struct login *login, session_event_fn fn, void *data);
/* Where commands go. Those that find no session end with -ESTALE. */
struct scsi_port *session_port(struct session *session);
/* What the session is for is proved to be the same as before the loss: it is READY. */
void session_verified(struct session *session);
/*
 * Is the session through another portal group than the one before? Old commands may be alive there
 * (SAFETY.md 11): they are to be ended with session_reset_lun() before anything else is sent.
 */
bool session_changed_group(const struct session *session);
/* From inside LOST: is a command that writes to the lun at the target? */
bool session_has_writes(const struct session *session, uint16_t lun);
/* LOGICAL UNIT RESET (RFC 7143, 11.5.1); done(ok) is called once, unless the session is lost. */
void session_reset_lun(
    struct session *session, uint16_t lun, void (*done)(bool ok, void *data), void *data);
/* done() of that data is not called any more. */
void session_forget_reset(struct session *session, const void *data);
/* Logs out, at most for timeout_ms, then CLOSED. Outstanding commands end with -EIO. */
void session_close(struct session *session, unsigned timeout_ms);
/* Ends whatever is left at once; outstanding commands end with -EIO before it returns. No event
 * follows. */
void session_free(struct session *session);

/* It stands, and session_verified() was called since. */
bool session_is_ready(const struct session *session);
/* "ready", "waiting", ... */
const char *session_state_name(const struct session *session);
/* The address in use, "10.0.0.5:3260" or "[::1]:3260"; "" where none. */
const char *session_address(const struct session *session);
const char *session_last_error(const struct session *session);

/* When it was logged in last; wall clock, microseconds since 1970; 0: never. */
int64_t session_since_us(const struct session *session);
/*
 * What was agreed on at the last login (RFC 7143, 13), names and values in turn, ended by NULL;
 * valid until the loop's next turn. MaxRecvDataSegmentLength is the target's, what we offered
 * stands behind "InitiatorMaxRecvDataSegmentLength"; "CHAP" tells who proved by CHAP who they
 * are: "none", "one-way", "mutual". Values are printable; no secrets.
 */
const char *const *session_keys(const struct session *session);
/* The last moment at which it got on: a name resolved, TCP stood, something was heard; clock_ms().
 */
int64_t session_progress_ms(const struct session *session);
/*
 * Was the last login refused, until somebody changes something? By class 02h, but not by what a
 * target says for a moment when it starts (RFC 7143, 11.13.5: 0203h, 0204h, 0206h); or because the
 * target could not prove itself.
 */
bool session_was_refused(const struct session *session);
/* Did the target say no to who we are: to the secret, or for want of one (RFC 7143, 11.13.5:
 * 0201h)? */
bool session_wants_secret(const struct session *session);

/* A time without a session. */
struct outage {
	int64_t began_us;  /* wall clock, microseconds since 1970 */
	int64_t lasted_ms; /* up to session_verified(); of one that lasts, until now */
	unsigned attempts; /* logins tried */
	bool over;
	const char *reason; /* the session's own */
};
/* Logins after the first. */
unsigned session_reconnects(const struct session *session);
/* How many there were; *last is the latest, where there is one. */
unsigned session_outages(const struct session *session, struct outage *last);
/*
 * For how long it has been lost again as soon as it stood; milliseconds, 0: it is steady. Who else
 * logs in with the same initiator name and ISID takes it away so (SAFETY.md 11).
 */
int64_t session_fleeting_ms(const struct session *session);

/* ---- nexus: the way to one logical unit, which outlasts the session ---- */

/*
 * A port for one logical unit (I_T_L nexus, SAM-5 4.7) above a session's. It owns each command from
 * execute() to done(). While the session is away, and until the logical unit was proved to be the
 * same, commands wait, in order; of those that were at the target, the ones that may be replayed
 * wait too, and the others end with -ESTALE. After replacement_timeout all that waits ends with
 * -EIO, and what comes, at once.
 */
struct nexus;

/* replacement_timeout: milliseconds; UINT_MAX: for ever. expired() when it is over, before any
 * command ends for that. */
struct nexus *nexus_new(struct loop *loop, struct scsi_port *below, unsigned replacement_timeout_ms,
    void (*expired)(void *data), void *data);
struct scsi_port *nexus_port(struct nexus *nexus);
/* The session is lost. To be called before anybody above hears of it, and before it returns its
 * commands. */
void nexus_lost(struct nexus *nexus);
/* The session stands, but it is not known any more whether the logical unit is the same: what comes
 * waits, as in an outage, and what is under way ends as it does. */
void nexus_hold(struct nexus *nexus);
/* What waits and would change something is not to be sent: it ends with -ESTALE. */
void nexus_recall(struct nexus *nexus);
/* The logical unit is there and the same: what waits is sent, in order. */
void nexus_open(struct nexus *nexus);
/* It will not be used until nexus_open(): what waits ends with -EIO, and what comes. */
void nexus_fail(struct nexus *nexus);
/* Its commands are all done then. */
void nexus_free(struct nexus *nexus);
/* Commands that wait, and those that were sent once more since the start. */
unsigned nexus_waiting(const struct nexus *nexus);
uint64_t nexus_resent(const struct nexus *nexus);
/* For how long no command was done while there were some to do; milliseconds, 0: all is well. */
int64_t nexus_away_ms(const struct nexus *nexus);

/* ---- discovery ---- */

struct discovered_portal {
	char *host;
	uint16_t port;
	uint16_t tpgt; /* portal group tag */
	bool asked;    /* it is the one that was asked: within reach */
};
/* For g_ptr_array_new_with_free_func(). */
void discovered_portal_free(gpointer portal);
struct discovered_target {
	char *name;         /* IQN */
	GPtrArray *portals; /* of struct discovered_portal */
};

/*
 * SendTargets=All at the first of login->portals. done() gets an array of struct discovered_target
 * (its own until it returns), or NULL and a sentence; never from inside discovery_start(). The
 * portal that answered stands first for a target that lists it, or names none. Returns a handle for
 * discovery_free(), to be called after done().
 */
struct discovery;
struct discovery *discovery_start(struct loop *loop, const struct login *login,
    void (*done)(GPtrArray *targets, const char *error, void *data), void *data);
void discovery_free(struct discovery *discovery);
