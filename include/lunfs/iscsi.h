/*
 * iscsi.h - sessions with targets, and their discovery (RFC 7143, by libiscsi).
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "lunfs/scsi.h"

struct loop;

/* A portal as written: host may be a name, an IPv4 or an IPv6 address without brackets. */
struct portal {
	char *host;
	uint16_t port; /* 3260 by default */
};

/* What a login needs. All strings are borrowed and must outlive the session. */
struct login {
	struct portal portal;
	const char *target;                    /* IQN; NULL for a discovery session */
	const char *initiator_name;            /* IQN */
	const char *username, *password;       /* CHAP; NULL: none */
	const char *username_in, *password_in; /* mutual CHAP; NULL: none */
	uint32_t isid_random;    /* 24 bits, kept per mount (RFC 7143, 11.12.5, format 80h) */
	uint16_t isid_qualifier; /* one for each session that lives at the same time */
	bool header_digest;      /* CRC32C, else none */
	unsigned login_timeout_ms, command_timeout_ms, noop_interval_ms, noop_timeout_ms;
};

enum session_event {
	SESSION_READY,  /* logged in: the first time, and each time after LOST */
	SESSION_LOST,   /* every outstanding command was returned with -EIO; it logs in again by
	                   itself */
	SESSION_FAILED, /* the first login failed: text says why and what to do; nothing follows */
	SESSION_CLOSED, /* session_close() is done */
};

struct session;
typedef void (*session_event_fn)(
    struct session *session, enum session_event event, const char *text, void *data);

/* Starts to log in; the outcome comes as an event, never from inside. */
struct session *session_new(
    struct loop *loop, const struct login *login, session_event_fn fn, void *data);
/* Where commands go. Those that find no session end with -EIO. */
struct scsi_port *session_port(struct session *session);
/* Logs out, at most for timeout_ms, then CLOSED. Outstanding commands end with -EIO. */
void session_close(struct session *session, unsigned timeout_ms);
/* Ends whatever is left at once; outstanding commands end with -EIO before it returns. No event
 * follows. */
void session_free(struct session *session);

const char *session_state_name(const struct session *session);
/* The address in use, "10.0.0.5:3260" or "[::1]:3260"; "" where none. */
const char *session_address(const struct session *session);
unsigned session_reconnects(const struct session *session);
const char *session_last_error(const struct session *session);

/* ---- discovery ---- */

struct discovered_portal {
	char *host;
	uint16_t port;
	uint16_t tpgt; /* portal group tag */
};
struct discovered_target {
	char *name;         /* IQN */
	GPtrArray *portals; /* of struct discovered_portal */
};

/*
 * SendTargets=All at login->portal. done() gets an array of struct discovered_target (its own until
 * it returns), or NULL and a sentence; never from inside discovery_start(). The portal that
 * answered stands first for a target that names none. Returns a handle for discovery_free(), to be
 * called after done().
 */
struct discovery;
struct discovery *discovery_start(struct loop *loop, const struct login *login,
    void (*done)(GPtrArray *targets, const char *error, void *data), void *data);
void discovery_free(struct discovery *discovery);
