/*
 * session.c - a session with one target, and the commands that travel over it.
 *
 *                 +------------ pause over -------------+
 *                 v                                     |
 *   DIALING --logged in--> READY --fault--> (LOST) --> WAITING
 *      |  \                  |                          ^
 *      |   +--failed, had been ready before ------------+
 *      |                   close
 *      +--failed the       v
 *         first time--> FAILED        CLOSING --logged out, or time is up--> CLOSED
 *
 * The session owns every command from execute() to done(), in its own list: libiscsi may lose a
 * callback. In the list they stand in the order of execute(). libiscsi's own reconnection is off. A
 * fault takes the commands back, in order, each ending with -EIO, after LOST was told.
 *
 * An answer may come before all of a WRITE's data has left: the rest of it stands in libiscsi's
 * queue then, and points to the task and the data. Such a task is freed when the queue has drained;
 * and such a command, if it failed, is done then, so that its data stays where it is.
 *
 * Invariant: a command is on exactly one list: outstanding (libiscsi has its task), early
 * (answered, not all sent) or ended (done() is due at the end of the turn).
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "canary.h"
#include "connection.h"
#include "dial.h"
#include "lunfs/iscsi.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"

/* libiscsi offers FirstBurstLength and MaxBurstLength of 262144: a larger WRITE waits for the
 * target's R2T. */
#define WRITE_BURST (256u << 10)

#define TICK_MS      500u
#define PAUSE_MIN_MS 100u
#define PAUSE_MAX_MS 5000u
#define STEADY_MS    10000 /* a session that stood for so long is dialed again at once */

enum session_state { DIALING, READY, WAITING, FAILED, CLOSING, CLOSED };

struct command_list {
	struct scsi_command *first, *last;
};

struct session {
	struct scsi_port port; /* first: the port is the session */
	struct loop *loop;
	const struct login *login;
	session_event_fn fn;
	void *data;

	enum session_state state;
	bool was_ready;
	struct dial *dial;
	struct connection *connection;
	GSource *pause, *tick, *farewell;
	unsigned pause_ms, reconnects;
	char *last_error;

	struct command_list outstanding, early, ended;
	GPtrArray *sending; /* tasks of WRITEs that are done, whose data is maybe not sent yet */
	struct loop_work deliverer;
	uint64_t canary;
	int64_t ready_ms, heard_ms, noop_sent_ms; /* noop_sent_ms: 0 where none is on its way */
};

static void session_dial(struct session *session);
static void session_lost(struct session *session, const char *reason);
static void session_farewell(void *data);

/* ---- lists of commands ---- */

static void list_append(struct command_list *list, struct scsi_command *command)
{
	command->next = NULL;
	command->prev = list->last;
	if (list->last != NULL)
		list->last->next = command;
	else
		list->first = command;
	list->last = command;
}

static void list_remove(struct command_list *list, struct scsi_command *command)
{
	if (command->prev != NULL)
		command->prev->next = command->next;
	else
		list->first = command->next;
	if (command->next != NULL)
		command->next->prev = command->prev;
	else
		list->last = command->prev;
}

/* ---- state ---- */

static const char *const state_names[] = {
    [DIALING] = "logging in",
    [READY] = "ready",
    [WAITING] = "waiting",
    [FAILED] = "failed",
    [CLOSING] = "closing",
    [CLOSED] = "closed",
};

static void session_set_state(struct session *session, enum session_state state)
{
	log_debug("%s: %s -> %s", session->login->target, state_names[session->state],
	    state_names[state]);
	session->state = state;
}

static void session_set_error(struct session *session, const char *error)
{
	g_free(session->last_error);
	session->last_error = g_strdup(error);
}

/* ---- the end of a command ---- */

static void command_free_task(struct scsi_command *command)
{
	if (command->port_data != NULL)
		scsi_free_scsi_task(command->port_data);
	command->port_data = NULL;
}

static void session_deliver(struct session *session)
{
	struct scsi_command *command;

	while ((command = session->ended.first) != NULL) {
		list_remove(&session->ended, command);
		command_free_task(command);
		command->done(command);
	}
}

static void session_deliver_work(struct loop_work *work)
{
	session_deliver((struct session *)((char *)work - offsetof(struct session, deliverer)));
}

static void session_end(struct session *session, struct scsi_command *command)
{
	list_append(&session->ended, command);
	loop_defer(session->loop, &session->deliverer);
}

/* All data has left, or never will. */
static void session_drained(struct session *session)
{
	struct scsi_command *command;

	g_ptr_array_set_size(session->sending, 0);
	while ((command = session->early.first) != NULL) {
		list_remove(&session->early, command);
		session_end(session, command);
	}
}

/* Notes what the target said. False when the answer cannot be believed (SAFETY.md 13). */
static bool command_take_answer(
    struct scsi_command *command, int status, const struct scsi_task *task)
{
	bool done = status == SCSI_STATUS_GOOD || status == SCSI_STATUS_CONDITION_MET;

	command->status = (uint8_t)status;
	command->received = command->length;
	if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
		command->received = task->residual < command->length
		                        ? command->length - (uint32_t)task->residual
		                        : 0;
	if (status == SCSI_STATUS_CHECK_CONDITION)
		command->sense = (struct sense){
		    .key = (uint8_t)task->sense.key,
		    .asc = (uint8_t)(task->sense.ascq >> 8),
		    .ascq = (uint8_t)task->sense.ascq,
		};
	/* Two bytes of length, and no sense data of less than 8: libiscsi read what was not there.
	 */
	if (status == SCSI_STATUS_CHECK_CONDITION && task->datain.size < 2 + 8)
		command->sense = (struct sense){.key = SENSE_NO_SENSE};
	/* Done, also by a RECOVERED ERROR, means that all the data is there. */
	done |=
	    status == SCSI_STATUS_CHECK_CONDITION && command->sense.key == SENSE_RECOVERED_ERROR;
	if (!command->exact || !done)
		return true;
	if (task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
		return false;
	return command->direction != SCSI_DATA_IN ||
	       !canary_survives(command->iov, command->niov, command->canary);
}

static unsigned session_patience(const struct session *session, const struct scsi_command *command)
{
	return command->timeout_ms != 0 ? command->timeout_ms : session->login->command_timeout_ms;
}

/*
 * On a slow link a long queue takes longer than one command may: only for the oldest does the time
 * run, and it begins anew for the next when that one is answered.
 */
static void session_start_clock(struct session *session)
{
	struct scsi_command *oldest = session->outstanding.first;

	if (oldest != NULL)
		oldest->deadline_ms = clock_ms() + session_patience(session, oldest);
}

/*
 * With its reconnection off libiscsi cancels everything at a fault and says that all is well. Where
 * nobody is closing the connection it is to be dropped.
 */
static void session_cancelled(struct session *session)
{
	if (session->connection != NULL)
		connection_drop(
		    session->connection, "the target broke the protocol, or closed the connection");
}

static void session_answered(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct scsi_command *command = private_data;
	struct session *session = command->port_owner;
	struct scsi_task *task = command->port_data;

	(void)context;
	(void)data;
	switch (status) {
	case SCSI_STATUS_CANCELLED:
		session_cancelled(session);
		return; /* session_lost() has the list */
	case SCSI_STATUS_ERROR:
	case SCSI_STATUS_TIMEOUT:
		/* Rejected, or answered with nonsense: it may still be at work at the target. */
		command->error = -EIO;
		connection_drop(session->connection, "the target broke the protocol");
		break;
	default:
		if (!command_take_answer(command, status, task)) {
			command->error = -EIO;
			connection_drop(
			    session->connection, "the target said GOOD, but data is missing");
		}
		break;
	}
	session->heard_ms = clock_ms();
	bool was_oldest = command == session->outstanding.first;
	list_remove(&session->outstanding, command);
	if (was_oldest)
		session_start_clock(session);
	if (command->direction == SCSI_DATA_OUT && !connection_is_drained(session->connection)) {
		connection_tell_when_drained(session->connection);
		if (status != SCSI_STATUS_GOOD) {
			list_append(&session->early, command);
			return;
		}
		g_ptr_array_add(session->sending, g_steal_pointer(&command->port_data));
	}
	command_free_task(command);
	command->done(command);
}

/* ---- the start of a command ---- */

/* Peripheral addressing up to 255, flat space addressing above (SAM-5, 4.7.7). */
static int session_lun_field(uint16_t lun)
{
	return lun < 256 ? lun : 0x4000 | lun;
}

static void session_execute(struct scsi_port *port, struct scsi_command *command)
{
	struct session *session = (struct session *)port;
	enum scsi_xfer_dir direction = command->direction == SCSI_DATA_IN    ? SCSI_XFER_READ
	                               : command->direction == SCSI_DATA_OUT ? SCSI_XFER_WRITE
	                                                                     : SCSI_XFER_NONE;
	struct scsi_task *task;

	command->error = 0;
	command->port_owner = session;
	command->port_data = NULL;
	if (session->state != READY) {
		command->error = -EIO;
		session_end(session, command);
		return;
	}
	task = scsi_create_task(command->cdb_length, command->cdb, direction, (int)command->length);
	if (task == NULL) {
		command->error = -ENOMEM;
		session_end(session, command);
		return;
	}
	command->port_data = task;
	/* struct scsi_iovec is struct iovec, by libiscsi's promise. */
	if (direction == SCSI_XFER_READ)
		scsi_task_set_iov_in(task, (struct scsi_iovec *)command->iov, command->niov);
	else if (direction == SCSI_XFER_WRITE)
		scsi_task_set_iov_out(task, (struct scsi_iovec *)command->iov, command->niov);
	if (command->exact && direction == SCSI_XFER_READ)
		canary_place(
		    command->iov, command->niov, command->canary = canary_draw(&session->canary));

	if (iscsi_scsi_command_async(connection_context(session->connection),
	        session_lun_field(command->lun), task, session_answered, NULL, command) != 0) {
		command->error = -EIO;
		session_end(session, command);
		return;
	}
	command->deadline_ms = clock_ms() + session_patience(session, command);
	list_append(&session->outstanding, command);
	connection_send(session->connection, command->direction == SCSI_DATA_OUT);
}

/* ---- keeping watch ---- */

static void session_noop_answered(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct session *session = private_data;

	(void)context;
	(void)data;
	if (status == SCSI_STATUS_CANCELLED)
		session_cancelled(session);
	if (status != SCSI_STATUS_GOOD)
		return;
	session->heard_ms = clock_ms();
	session->noop_sent_ms = 0;
}

static void session_keep_alive(struct session *session, int64_t now)
{
	const struct login *login = session->login;

	if (login->noop_interval_ms == 0)
		return;
	/* Any answer since is a sign of life. */
	if (session->heard_ms >= session->noop_sent_ms)
		session->noop_sent_ms = 0;
	if (session->noop_sent_ms != 0) {
		if (now - session->noop_sent_ms > login->noop_timeout_ms)
			connection_drop(session->connection,
			    "no answer to a NOP-Out: the target or the network is away");
		return;
	}
	if (now - session->heard_ms < login->noop_interval_ms)
		return;
	if (iscsi_nop_out_async(connection_context(session->connection), session_noop_answered,
	        NULL, 0, session) == 0)
		session->noop_sent_ms = now;
	connection_send(session->connection, false);
}

static bool list_is_overdue(const struct command_list *list, int64_t now)
{
	return list->first != NULL && now >= list->first->deadline_ms;
}

static void session_tick(void *data)
{
	struct session *session = data;
	int64_t now = clock_ms();

	if (session->state != READY)
		return;
	if (list_is_overdue(&session->outstanding, now) || list_is_overdue(&session->early, now))
		connection_drop(session->connection, "a command was not done within its time");
	else
		session_keep_alive(session, now);
}

/* ---- going up and down ---- */

static void session_connection_event(
    struct connection *connection, enum connection_event event, void *data)
{
	if (event == CONNECTION_DOWN)
		session_lost(data, connection_error(connection));
	else if (event == CONNECTION_DRAINED)
		session_drained(data);
}

static void session_wait(struct session *session)
{
	uint32_t jitter = 0;
	unsigned ms = session->pause_ms;

	/* First at once, then growing, and not all initiators of a site in step. */
	session->pause_ms = CLAMP(2 * ms, PAUSE_MIN_MS, PAUSE_MAX_MS);
	if (getrandom(&jitter, sizeof jitter, GRND_NONBLOCK) == sizeof jitter)
		ms -= ms != 0 ? jitter % (ms / 2) : 0;
	session_set_state(session, WAITING);
	loop_remove(&session->pause);
	session->pause = loop_timer(session->loop, ms, (void (*)(void *))session_dial, session);
}

/* Hands every command back, in order; the connection is gone. */
static void session_return_commands(struct session *session)
{
	struct scsi_command *command;

	session_drained(session);
	while ((command = session->outstanding.first) != NULL) {
		list_remove(&session->outstanding, command);
		command->error = -EIO;
		list_append(&session->ended, command);
	}
	session_deliver(session);
	loop_cancel(session->loop, &session->deliverer);
}

static void session_lost(struct session *session, const char *reason)
{
	session_set_error(session, reason);
	if (session->state == CLOSING) {
		session_farewell(session);
		return;
	}
	/* One that is lost as soon as it stands is not dialed in a hurry. */
	if (clock_ms() - session->ready_ms > STEADY_MS)
		session->pause_ms = 0;
	session_wait(session);
	connection_free(g_steal_pointer(&session->connection));
	log_warning("%s: session lost: %s", session->login->target, session->last_error);
	session->fn(session, SESSION_LOST, session->last_error, session->data);
	session_return_commands(session);
}

static void session_dialed(const struct dial_result *result, void *data)
{
	struct session *session = data;

	if (result->connection != NULL) {
		session->connection = result->connection;
		connection_hand_over(session->connection, session_connection_event, session);
		dial_free(g_steal_pointer(&session->dial));
		session->heard_ms = session->ready_ms = clock_ms();
		session->noop_sent_ms = 0;
		session_set_state(session, READY);
		if (session->was_ready) {
			session->reconnects++;
			log_info("%s: logged in again at %s", session->login->target,
			    session_address(session));
		}
		session->was_ready = true;
		session->fn(session, SESSION_READY, NULL, session->data);
		return;
	}
	session_set_error(session, result->error);
	dial_free(g_steal_pointer(&session->dial));
	if (session->was_ready) {
		log_debug("%s: %s", session->login->target, session->last_error);
		session_wait(session);
	} else {
		session_set_state(session, FAILED);
		session->fn(session, SESSION_FAILED, session->last_error, session->data);
	}
}

static void session_dial(struct session *session)
{
	loop_remove(&session->pause);
	session_set_state(session, DIALING);
	session->dial = dial_start(session->loop, session->login, session_dialed, session);
}

/* ---- life ---- */

struct session *session_new(
    struct loop *loop, const struct login *login, session_event_fn fn, void *data)
{
	static const struct scsi_port_ops ops = {.execute = session_execute};
	struct session *session = g_new0(struct session, 1);

	*session = (struct session){
	    .port = {.ops = &ops, .write_burst = WRITE_BURST},
	    .loop = loop,
	    .login = login,
	    .fn = fn,
	    .data = data,
	    .sending = g_ptr_array_new_with_free_func((GDestroyNotify)scsi_free_scsi_task),
	    .deliverer.run = session_deliver_work,
	    .tick = loop_ticker(loop, TICK_MS, session_tick, session),
	};
	session_dial(session);
	return session;
}

struct scsi_port *session_port(struct session *session)
{
	return &session->port;
}

static void session_farewell(void *data)
{
	struct session *session = data;

	loop_remove(&session->farewell);
	loop_remove(&session->pause);
	dial_free(g_steal_pointer(&session->dial));
	session_set_state(session, CLOSED);
	connection_free(g_steal_pointer(&session->connection));
	session_return_commands(session);
	session->fn(session, SESSION_CLOSED, NULL, session->data);
}

static void session_logged_out(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct session *session = private_data;

	(void)context;
	(void)status;
	(void)data;
	if (session->connection == NULL)
		return; /* it is being freed */
	loop_remove(&session->farewell);
	session->farewell = loop_timer(session->loop, 0, session_farewell, session);
}

void session_close(struct session *session, unsigned timeout_ms)
{
	bool ready = session->state == READY;

	session_set_state(session, CLOSING);
	loop_remove(&session->pause);
	dial_free(g_steal_pointer(&session->dial));
	if (ready && iscsi_logout_async(
	                 connection_context(session->connection), session_logged_out, session) == 0)
		connection_send(session->connection, false);
	else
		timeout_ms = 0;
	session->farewell = loop_timer(session->loop, timeout_ms, session_farewell, session);
}

void session_free(struct session *session)
{
	if (session == NULL)
		return;
	session_set_state(session, CLOSED);
	loop_remove(&session->pause);
	loop_remove(&session->tick);
	loop_remove(&session->farewell);
	dial_free(session->dial);
	connection_free(g_steal_pointer(&session->connection));
	session_return_commands(session);
	g_ptr_array_unref(session->sending);
	g_free(session->last_error);
	g_free(session);
}

const char *session_state_name(const struct session *session)
{
	return state_names[session->state];
}

const char *session_address(const struct session *session)
{
	return session->connection != NULL ? connection_address(session->connection) : "";
}

unsigned session_reconnects(const struct session *session)
{
	return session->reconnects;
}

const char *session_last_error(const struct session *session)
{
	return session->last_error != NULL ? session->last_error : "";
}
