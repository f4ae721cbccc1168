/*
 * commands.c - the commands of a session, while they are at the target.
 *
 * They are sent at the end of a turn, answered in any order, and watched: a command that takes too
 * long, an answer that cannot be believed and a target that says nothing at all end the connection.
 * Whatever is outstanding then is handed back by session.c, after it told of the loss.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "canary.h"
#include "session.h"

#define REPORT_LUNS 0xa0   /* SPC-4, 6.33 */
#define FLAT_SPACE  0x4000 /* SAM-5, 4.7.7.3 */

/* ---- how a LUN is addressed ---- */

/* As the target reports it; else peripheral addressing up to 255, flat space addressing above
 * (SAM-5, 4.7). */
int session_lun_field(const struct session *session, uint16_t lun)
{
	bool flat = lun >= 256 || (session->flat[lun / 8] & 1u << lun % 8);

	return flat ? FLAT_SPACE | lun : lun;
}

/* What REPORT LUNS has told: a unit is addressed as it is reported (SPC-4, 6.33). */
static void session_note_luns(struct session *session, const struct scsi_command *command)
{
	const uint8_t *list = command->iov->iov_base;
	size_t size = MIN(command->iov->iov_len, command->received);

	for (size_t at = 8; at + 8 <= size; at += 8) {
		uint16_t field = get_be16(list + at), lun = field & 0xff;
		uint8_t bit = (uint8_t)(1u << lun % 8);

		if ((field & ~0xff) == FLAT_SPACE)
			session->flat[lun / 8] |= bit;
		else if ((field & ~0xff) == 0)
			session->flat[lun / 8] &= (uint8_t)~bit;
	}
}

/* ---- the end of a command ---- */

static void command_free_task(struct scsi_command *command)
{
	if (command->port_data != NULL)
		scsi_free_scsi_task(command->port_data);
	command->port_data = NULL;
}

/* Those that have ended now: others may end while these are told. */
static void commands_deliver(struct session *session)
{
	const struct scsi_command *last = session->ended.last;
	struct scsi_command *command;
	bool more = last != NULL;

	while (more && (command = session->ended.first) != NULL) {
		more = command != last;
		command_list_remove(&session->ended, command);
		command_free_task(command);
		command->done(command);
	}
	if (session->ended.first != NULL)
		loop_defer(session->loop, &session->deliverer);
}

static void commands_deliver_work(struct loop_work *work)
{
	commands_deliver((struct session *)((char *)work - offsetof(struct session, deliverer)));
}

static void command_end(struct session *session, struct scsi_command *command)
{
	command_list_append(&session->ended, command);
	loop_defer(session->loop, &session->deliverer);
}

void commands_drained(struct session *session)
{
	struct scsi_command *command;

	while ((command = session->early.first) != NULL) {
		command_list_remove(&session->early, command);
		command_end(session, command);
	}
}

void commands_return(struct session *session, int error)
{
	struct scsi_command *command;

	commands_drained(session);
	while ((command = session->outstanding.first) != NULL) {
		command_list_remove(&session->outstanding, command);
		command->error = error;
		command_list_append(&session->ended, command);
	}
	loop_cancel(session->loop, &session->deliverer);
	commands_deliver(session);
}

/*
 * SPC-4, 4.5, behind two bytes of length (RFC 7143, 11.4.7.2). libiscsi believes that it is as long
 * as its format says, and reads what was not there; and does not tell a deferred error from others.
 */
static struct sense command_sense(const uint8_t *data, size_t size, bool *deferred)
{
	struct sense sense = {.key = SENSE_NO_SENSE};
	size_t length = size < 2 ? 0 : size - 2;

	*deferred = false;
	if (length > 0 && get_be16(data) != 0)
		length = MIN(length, get_be16(data));
	if (length < 8)
		return sense;
	data += 2;
	*deferred = (data[0] & 0x7f) == 0x71 || (data[0] & 0x7f) == 0x73;
	switch (data[0] & 0x7f) {
	case 0x70:
	case 0x71:
		sense.key = data[2] & 0x0f;
		if (length >= 14) {
			sense.asc = data[12];
			sense.ascq = data[13];
		}
		break;
	case 0x72:
	case 0x73:
		sense = (struct sense){data[1] & 0x0f, data[2], data[3]};
		break;
	default:
		break;
	}
	return sense;
}

/* Bytes; some targets send less than there is room for and no residual. */
static uint32_t command_received(const struct scsi_command *command, const struct scsi_task *task)
{
	const struct session *session = command->port_owner;
	uint32_t received = command->length;

	if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
		received -= (uint32_t)MIN(task->residual, received);
	if (command->direction != SCSI_NO_DATA)
		received = MIN(received, connection_moved(session->connection, task->itt));
	return received;
}

/* Notes what the target said. False when the answer cannot be believed (SAFETY.md 13). */
static bool command_take_answer(
    struct scsi_command *command, int status, const struct scsi_task *task)
{
	bool done = status == SCSI_STATUS_GOOD || status == SCSI_STATUS_CONDITION_MET;

	command->status = (uint8_t)status;
	command->received = command_received(command, task);
	if (status == SCSI_STATUS_CHECK_CONDITION)
		command->sense =
		    command_sense(task->datain.data, (size_t)task->datain.size, &command->deferred);
	/* Done, also by a RECOVERED ERROR, means that all the data is there. */
	done |= status == SCSI_STATUS_CHECK_CONDITION && !command->deferred &&
	        command->sense.key == SENSE_RECOVERED_ERROR;
	if (!command->exact || !done)
		return true;
	if (task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL ||
	    command->received != command->length)
		return false;
	return command->canary == 0 ||
	       !canary_survives(command->iov, command->niov, command->canary);
}

static unsigned command_patience(const struct session *session, const struct scsi_command *command)
{
	return command->timeout_ms != 0 ? command->timeout_ms : session->port.command_timeout_ms;
}

/*
 * On a slow link a long queue takes longer than one command may: only for the oldest of a LUN does
 * the time run, and it begins anew for the next when that one is answered.
 */
static void command_pass_clock(const struct session *session, const struct scsi_command *answered)
{
	struct scsi_command *other;

	for (other = answered->prev; other != NULL; other = other->prev)
		if (other->lun == answered->lun)
			return;
	for (other = answered->next; other != NULL; other = other->next) {
		if (other->lun != answered->lun)
			continue;
		other->deadline_ms = clock_ms() + command_patience(session, other);
		return;
	}
}

/*
 * With its reconnection off libiscsi cancels everything at a fault and says that all is well. Where
 * nobody is closing the connection it is to be dropped.
 */
void commands_cancelled(struct session *session)
{
	if (session->connection != NULL)
		connection_drop(
		    session->connection, "the target broke the protocol, or closed the connection");
}

static void command_answered(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct scsi_command *command = private_data;
	struct session *session = command->port_owner;
	struct scsi_task *task = command->port_data;

	(void)context;
	(void)data;
	switch (status) {
	/* It stays outstanding in these cases: it may still be at work at the target. */
	case SCSI_STATUS_CANCELLED:
		commands_cancelled(session);
		return;
	case SCSI_STATUS_ERROR:
	case SCSI_STATUS_TIMEOUT:
		connection_drop(session->connection, "the target broke the protocol");
		return;
	default:
		break;
	}
	if (!command_take_answer(command, status, task)) {
		connection_drop(session->connection, "the target said GOOD, but data is missing");
		return;
	}
	session->heard_ms = clock_ms();
	if (command->cdb[0] == REPORT_LUNS && command->status == SCSI_STATUS_GOOD)
		session_note_luns(session, command);
	command_pass_clock(session, command);
	command_list_remove(&session->outstanding, command);
	bool settled = connection_settle(session->connection, task->itt);
	if (!settled)
		connection_tell_when_drained(session->connection);
	/* Answers keep their order: a GOOD means something else behind a unit attention. */
	if (session->early.first != NULL || !settled) {
		command->deadline_ms = clock_ms() + command_patience(session, command);
		command_list_append(&session->early, command);
		return;
	}
	if (session->ended.first != NULL) {
		command_end(session, command);
		return;
	}
	command_free_task(command);
	command->done(command);
}

/* ---- the start of a command ---- */

/* 0, or why it cannot be sent. */
static int command_send(struct session *session, struct scsi_command *command)
{
	enum scsi_xfer_dir direction = command->direction == SCSI_DATA_IN    ? SCSI_XFER_READ
	                               : command->direction == SCSI_DATA_OUT ? SCSI_XFER_WRITE
	                                                                     : SCSI_XFER_NONE;
	struct scsi_task *task;

	if (!session_is_up(session))
		return -ESTALE;
	task = scsi_create_task(command->cdb_length, command->cdb, direction, (int)command->length);
	if (task == NULL)
		return -ENOMEM;
	command->port_data = task;
	/* struct scsi_iovec is struct iovec, by libiscsi's promise. */
	if (direction == SCSI_XFER_READ)
		scsi_task_set_iov_in(task, (struct scsi_iovec *)command->iov, command->niov);
	else if (direction == SCSI_XFER_WRITE)
		scsi_task_set_iov_out(task, (struct scsi_iovec *)command->iov, command->niov);
	command->canary = command->exact && direction == SCSI_XFER_READ &&
	                          connection_is_blind(session->connection)
	                      ? canary_draw(&session->canary)
	                      : 0;
	if (command->canary != 0)
		canary_place(command->iov, command->niov, command->canary);
	if (iscsi_scsi_command_async(connection_context(session->connection),
	        session_lun_field(session, command->lun), task, command_answered, NULL,
	        command) != 0)
		return -ENOMEM;
	connection_expect(
	    session->connection, task->itt, command->direction, command->length, command->exact);
	return 0;
}

void commands_execute(struct scsi_port *port, struct scsi_command *command)
{
	struct session *session = (struct session *)port;

	command->port_owner = session;
	command->port_data = NULL;
	command->timed_out = false;
	if (session->state == LOGGING_OUT) {
		command_list_append(&session->outstanding, command); /* until it is lost, soon */
		return;
	}
	command->error = command_send(session, command);
	if (command->error != 0) {
		command_end(session, command);
		return;
	}
	command->deadline_ms = clock_ms() + command_patience(session, command);
	command_list_append(&session->outstanding, command);
	connection_send(session->connection, command->direction == SCSI_DATA_OUT);
}

/* ---- keeping watch ---- */

static void noop_answered(struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct session *session = private_data;

	(void)context;
	(void)data;
	if (status == SCSI_STATUS_CANCELLED)
		commands_cancelled(session);
	if (status != SCSI_STATUS_GOOD)
		return;
	session->heard_ms = clock_ms();
	session->noop_sent_ms = 0;
}

static void commands_keep_alive(struct session *session, int64_t now)
{
	const struct login *login = session->login;

	if (login->noop_interval_ms == 0)
		return;
	/* Any answer since is a sign of life. */
	if (session->heard_ms >= session->noop_sent_ms)
		session->noop_sent_ms = 0;
	if (session->noop_sent_ms != 0) {
		/* It is no immediate command: behind a full command window it has not even left,
		 * and the time of the oldest command decides. */
		if (now - session->noop_sent_ms > login->noop_timeout_ms &&
		    !connection_window_is_closed(session->connection))
			connection_drop(session->connection,
			    "no answer to a NOP-Out: the target or the network is away");
		return;
	}
	if (now - session->heard_ms < login->noop_interval_ms)
		return;
	if (iscsi_nop_out_async(
	        connection_context(session->connection), noop_answered, NULL, 0, session) == 0)
		session->noop_sent_ms = now;
	connection_send(session->connection, false);
}

/* Of the oldest commands of each LUN, one that took too long; or NULL. */
static struct scsi_command *list_overdue(const struct command_list *list, int64_t now)
{
	uint8_t seen[(UINT16_MAX + 1) / 8];

	if (list->first == NULL)
		return NULL;
	memset(seen, 0, sizeof seen);
	for (struct scsi_command *command = list->first; command; command = command->next) {
		uint8_t bit = (uint8_t)(1u << (command->lun & 7));

		if (!(seen[command->lun >> 3] & bit) && now >= command->deadline_ms)
			return command;
		seen[command->lun >> 3] |= bit;
	}
	return NULL;
}

void commands_watch(struct session *session)
{
	int64_t now = clock_ms();
	struct scsi_command *overdue = list_overdue(&session->outstanding, now);

	if (overdue != NULL) {
		overdue->timed_out = true;
		connection_drop(session->connection, "a command was not done within its time");
	} else if (list_overdue(&session->early, now) != NULL) {
		connection_drop(session->connection, "the target does not take a command's data");
	} else {
		commands_keep_alive(session, now);
	}
}

/* ---- life ---- */

void commands_init(struct session *session)
{
	session->deliverer.run = commands_deliver_work;
}

void commands_free(struct session *session)
{
	loop_cancel(session->loop, &session->deliverer);
}
