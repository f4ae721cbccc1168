/*
 * session.h - what session.c (states, logins) and commands.c (what travels) share. Private to the
 * room.
 *
 * The session owns every command from execute() to done(), in lists of its own: libiscsi may lose a
 * callback. In them they stand in the order of execute().
 *
 * An answer may come before all of a WRITE's data has left: the rest of it stands in libiscsi's
 * queue then, and points to the task and the data. Unless it is known that there is no rest, such a
 * command is done when the queue has drained, so that its task and data stay where they are.
 *
 * Invariant: a command is on exactly one list: outstanding (libiscsi has its task, or its answer
 * was not to be believed, or it came while LOGGING_OUT and is not sent), early (answered, not all
 * sent) or ended (done() is due at the end of the turn).
 */
#pragma once

#include "command_list.h"
#include "connection.h"
#include "dial.h"
#include "lunfs/iscsi.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "route.h"

enum session_state {
	RESOLVING,
	CONNECTING,
	LOGGING_IN,
	VERIFYING,
	READY,
	LOGGING_OUT,
	WAITING,
	FAILED,
	CLOSING,
	CLOSED
};

struct session {
	struct scsi_port port; /* first: the port is the session */
	struct loop *loop;
	const struct login *login;
	session_event_fn fn;
	void *data;

	enum session_state state;
	struct route *route;
	unsigned rounds; /* of the first login: over without success */
	struct dial *dial;
	struct connection *connection;
	GSource *pause, *tick;
	GSource *farewell; /* over a logout */
	char *last_error;
	bool wants_secret, refused; /* the last login was, see iscsi.h */
	bool told_refusal;          /* of this outage */
	char **keys;                /* of the last login that stood; NULL: none did */

	/* Logins that stood, and what is known of times without one. */
	bool was_up, changed_group;
	int portal_group;
	int64_t born_ms;
	int64_t up_ms, lost_ms;    /* lost_ms: 0 where it is not lost */
	int time2wait_s;           /* that the target asked for as the session ended; -1: none */
	int64_t not_before_ms;     /* no login is begun, for its sake */
	int64_t since_us;          /* wall clock, of up_ms */
	int64_t progress_ms;       /* see session_progress_ms() */
	unsigned fleeting;         /* sessions in a row that were lost as soon as they stood, */
	int64_t fleeting_since_ms; /* since the first of them */
	unsigned outages, reconnects;
	struct outage last_outage; /* its reason is owned here */
	char *outage_reason;

	struct session_reset *resets;
	struct log_limit log;

	/* LUNs below 256 that the target reports in flat space addressing, a bit each */
	uint8_t flat[256 / 8];

	/* commands.c */
	struct command_list outstanding, early, ended;
	struct loop_work deliverer;
	uint64_t canary;
	int64_t heard_ms, noop_sent_ms; /* noop_sent_ms: 0 where none is on its way */
};

/* Commands may be sent: it is VERIFYING or READY. */
bool session_is_up(const struct session *session);
void session_set_state(struct session *session, enum session_state state);
/* The connection is gone, and libiscsi with it. */
void session_forget_resets(struct session *session);

/* ---- logout.c ---- */

#define SESSION_LOGOUT_REASON "the target asked for a logout"
/* The target wants a logout within so many seconds (RFC 7143, 11.9.1, events 1 and 4). */
void session_obey_logout(struct session *session, unsigned within_s);
/* It is CLOSED, and told so. */
void session_end(struct session *session);

/* ---- commands.c ---- */

void commands_init(struct session *session);
void commands_execute(struct scsi_port *port, struct scsi_command *command);
/* All data has left, or never will. */
void commands_drained(struct session *session);
/* Hands every command back, in order; the connection is gone. */
void commands_return(struct session *session, int error);
void commands_free(struct session *session);
/* Keepalive and deadlines, now and then; drops the connection where there is a reason. */
void commands_watch(struct session *session);
int session_lun_field(const struct session *session, uint16_t lun);
/* A callback of libiscsi says that all was cancelled. */
void commands_cancelled(struct session *session);
