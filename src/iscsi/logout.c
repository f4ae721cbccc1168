/*
 * logout.c - how a session ends that both sides still speak over (RFC 7143, 11.14): for good, when
 * we close it, or until the next login, when the target asks for a logout (11.9.1).
 */
#include "session.h"

#include <errno.h>

#include <iscsi/iscsi.h>

/* For the answer to a logout that is due at once. */
#define LOGOUT_MIN_MS 1000u

static void session_farewell(void *data)
{
	session_end(data);
}

/* Answered, or cancelled because the connection has ended. */
static void session_logged_out(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct session *session = private_data;

	(void)context;
	(void)status;
	(void)data;
	if (session->connection == NULL)
		return; /* it is being freed */
	if (session->state != CLOSING) {
		connection_drop(session->connection, SESSION_LOGOUT_REASON);
		return;
	}
	loop_remove(&session->farewell);
	session->farewell = loop_timer(session->loop, 0, session_farewell, session);
}

/* libiscsi sends nothing behind it. */
static bool session_send_logout(struct session *session)
{
	if (iscsi_logout_async(
	        connection_context(session->connection), session_logged_out, session) != 0)
		return false;
	connection_send(session->connection, false);
	return true;
}

static void session_logout_expired(void *data)
{
	struct session *session = data;

	loop_remove(&session->farewell);
	connection_drop(session->connection, SESSION_LOGOUT_REASON);
}

/*
 * As early as possible, says the standard: at once. What is under way need not be awaited, it is
 * sent again after the next login, as after any loss. What comes now waits for that (commands.c):
 * for the answer no longer than for that of a command, whatever time the target would have given.
 */
void session_obey_logout(struct session *session, unsigned within_s)
{
	if (!session_is_up(session))
		return;
	session_set_state(session, LOGGING_OUT);
	if (session_send_logout(session))
		session->farewell = loop_timer(session->loop,
		    MAX(MIN(within_s * 1000, session->port.command_timeout_ms), LOGOUT_MIN_MS),
		    session_logout_expired, session);
	else
		connection_drop(session->connection, SESSION_LOGOUT_REASON);
}

void session_close(struct session *session, unsigned timeout_ms)
{
	bool up = session_is_up(session), asked = session->state == LOGGING_OUT;

	session_set_state(session, CLOSING);
	loop_remove(&session->pause);
	loop_remove(&session->farewell);
	dial_free(g_steal_pointer(&session->dial));
	if (!asked && (!up || !session_send_logout(session)))
		timeout_ms = 0;
	session->farewell = loop_timer(session->loop, timeout_ms, session_farewell, session);
}

void session_end(struct session *session)
{
	loop_remove(&session->farewell);
	session_set_state(session, CLOSED);
	connection_free(g_steal_pointer(&session->connection));
	session_forget_resets(session);
	commands_return(session, -EIO);
	session->fn(session, SESSION_CLOSED, NULL, session->data);
}
