/*
 * script_task.c - commands of the scripted target from their PDU to their end, their data, and task
 * management (RFC 7143, 11.3 to 11.8).
 *
 *   COLLECT -> EXECUTE -> ANSWER -> gone       without a rule at once
 *      `-> STUCK (a spoiled R2T)
 */
#include "support/script_internal.h"

#include <string.h>

#define MAX_DATA 67108864u /* bytes that one command may bring */

enum {
	ABORT_TASK = 1,
	ABORT_TASK_SET,
	CLEAR_ACA,
	CLEAR_TASK_SET,
	LUN_RESET,
	WARM_RESET,
	COLD_RESET
};
enum { MANAGED = 0, NO_SUCH_TASK = 1, NO_SUCH_LUN = 2, NOT_SUPPORTED = 5 };

unsigned lun_of(const uint8_t *field)
{
	return (unsigned)get_be16(field) & 0x3fff; /* peripheral and flat addressing */
}

bool opcode_matches(int wanted, uint8_t opcode)
{
	switch (wanted) {
	case SCRIPT_ANY:
		return true;
	case SCRIPT_READ:
		return opcode == 0x28 || opcode == 0x88;
	case SCRIPT_WRITE:
		return opcode == 0x2a || opcode == 0x8a || opcode == 0x93;
	case SCRIPT_SYNC:
		return opcode == 0x35 || opcode == 0x91;
	default:
		return wanted == opcode;
	}
}

struct script_record *task_record(const struct script_task *task)
{
	return &g_array_index(task->target->records, struct script_record, task->record);
}

void script_task_free(void *data)
{
	struct script_task *task = data;

	g_byte_array_unref(task->data);
	g_byte_array_unref(task->result);
	g_free(task);
}

/* It is gone then. */
static void task_end(struct script_task *task)
{
	g_ptr_array_remove(task->target->tasks, task);
}

static void task_abort(struct script_task *task)
{
	task_record(task)->aborted = true;
	task->session->aborted = true;
	task_end(task);
}

static struct script_task *find_task(struct script_connection *connection, uint32_t itt)
{
	GPtrArray *tasks = connection->target->tasks;

	for (guint i = 0; i < tasks->len; i++) {
		struct script_task *task = tasks->pdata[i];

		if (task->connection == connection && task->itt == itt)
			return task;
	}
	return NULL;
}

/* ---- execution ---- */

static void task_finish(struct script_task *task)
{
	task_answer(task);
	task_end(task);
}

static void task_execute(struct script_task *task)
{
	const struct script_rule *rule = &task->rule;
	struct script_record *record = task_record(task);

	if (rule->status || rule->sense.key) {
		task->status = rule->status ? rule->status : SAM_CHECK_CONDITION;
		task->sense = rule->sense;
	} else if (rule->lie) {
		if (task->reads) {
			g_byte_array_set_size(task->result, task->length);
			memset(task->result->data, 0, task->length);
		}
	} else {
		disk_execute(task);
		record->executed = task->status == SAM_GOOD;
		record->executed_ms = script_now() - task->target->began_ms;
	}
	record->status = task->status;
	task->step = STEP_ANSWER;
	if (rule->mute)
		task->due = DUE_NEVER;
	else
		task->due = script_due(rule->answer_delay_ms);
	if (!task->connection || (!rule->mute && !rule->answer_delay_ms))
		task_finish(task);
}

/* All its data is there. */
static void task_ready(struct script_task *task)
{
	const struct script_rule *rule = &task->rule;

	if (rule->spoil >= SCRIPT_R2T_BEYOND) {
		task->step = STEP_STUCK;
		task->due = DUE_NEVER;
		task_spoil_r2t(task);
		return;
	}
	task->step = STEP_EXECUTE;
	task->due = rule->hang ? DUE_NEVER : script_due(rule->delay_ms);
	if (!rule->hang && !rule->delay_ms)
		task_execute(task);
}

/* The oldest that is due, or NULL; then *next is when one will be. */
static struct script_task *find_due(struct script_target *target, int64_t *next)
{
	int64_t now = script_now();

	*next = DUE_NEVER;
	for (guint i = 0; i < target->tasks->len; i++) {
		struct script_task *task = target->tasks->pdata[i];

		if (task->step != STEP_EXECUTE && task->step != STEP_ANSWER)
			continue;
		if (task->due <= now)
			return task;
		*next = MIN(*next, task->due);
	}
	return NULL;
}

int64_t tasks_run(struct script_target *target)
{
	struct script_task *task;
	int64_t next;

	while ((task = find_due(target, &next))) {
		if (task->step == STEP_EXECUTE)
			task_execute(task);
		else
			task_finish(task);
	}
	return next;
}

/* ---- data of a WRITE ---- */

static void task_ask(struct script_task *task)
{
	struct script_connection *connection = task->connection;
	uint32_t at = task->data->len;
	uint32_t asked = connection->target->parameters.r2t_length;
	uint32_t length = MIN(task->length - at, connection->max_burst);
	uint8_t header[BHS_SIZE];

	if (asked)
		length = MIN(length, asked);
	task->r2t_tag = connection->target->next_tag++;
	task->r2t_end = at + length;
	task->datasn = 0;
	header_fill(connection, header, OP_R2T, task->itt, false);
	memcpy(header + 8, task->header + 8, 8);
	put_be32(header + 20, task->r2t_tag);
	put_be32(header + 36, task->r2tsn++);
	put_be32(header + 40, at);
	put_be32(header + 44, length);
	connection_put(connection, header, NULL, 0);
}

/* A piece is complete: asks for the next, or goes on. */
static void task_collected(struct script_task *task)
{
	if (!task->writes || task->data->len == task->length ||
	    (task->rule.spoil >= SCRIPT_R2T_BEYOND && task->rule.spoil <= SCRIPT_R2T_EMPTY))
		task_ready(task);
	else
		task_ask(task);
}

void data_out_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	const uint8_t *header = pdu->header;
	struct script_task *task = find_task(connection, get_be32(header + 16));
	uint32_t tag = get_be32(header + 20), at = get_be32(header + 40);
	bool final = header[1] & 0x80;
	uint32_t end;

	if (!task || task->step != STEP_COLLECT) {
		/* what was on its way when its task was aborted */
		if (!connection->session->aborted)
			connection_complain(connection, "Data-Out for no command");
		return;
	}
	end = task->unsolicited ? MIN(connection->first_burst, task->length) : task->r2t_end;
	if (tag != (task->unsolicited ? NO_TAG : task->r2t_tag) || at != task->data->len ||
	    pdu->length > end - at || get_be32(header + 36) != task->datasn++ ||
	    (!final && at + pdu->length == end) ||
	    (final && !task->unsolicited && at + pdu->length < end)) {
		connection_complain(connection,
		    "Data-Out with tag %08x, offset %u, %u bytes, DataSN %u%s; expected offset %u, "
		    "up to %u",
		    tag, at, pdu->length, get_be32(header + 36), final ? ", final" : "",
		    task->data->len, end);
		return;
	}
	g_byte_array_append(task->data, pdu->data, pdu->length);
	if (!final)
		return;
	task->unsolicited = false;
	task_collected(task);
}

/* ---- the command ---- */

static struct script_rule take_rule(struct script_target *target, const struct script_task *task)
{
	for (guint i = 0; i < target->rules->len; i++) {
		struct script_rule *rule = &g_array_index(target->rules, struct script_rule, i);

		if (rule->times == 0 || !opcode_matches(rule->opcode, task->cdb[0]) ||
		    (rule->one_lun && rule->lun != task->lun))
			continue;
		if (rule->skip) {
			rule->skip--;
			continue;
		}
		if (rule->times != UINT32_MAX)
			rule->times--;
		return *rule;
	}
	return (struct script_rule){0};
}

static struct script_task *task_new(
    struct script_connection *connection, const struct script_pdu *pdu)
{
	struct script_target *target = connection->target;
	struct script_task *task = g_new0(struct script_task, 1);
	struct script_record record = {
	    .at_ms = script_now() - target->began_ms,
	    .session = connection->session->number,
	    .lun = lun_of(pdu->header + 8),
	};

	*task = (struct script_task){
	    .target = target,
	    .session = connection->session,
	    .connection = connection,
	    .record = target->records->len,
	    .lun = record.lun,
	    .itt = get_be32(pdu->header + 16),
	    .length = get_be32(pdu->header + 20),
	    .reads = pdu->header[1] & 0x40,
	    .writes = pdu->header[1] & 0x20,
	    .data = g_byte_array_new(),
	    .result = g_byte_array_new(),
	};
	memcpy(task->header, pdu->header, BHS_SIZE);
	memcpy(task->cdb, pdu->header + 32, sizeof(task->cdb));
	memcpy(record.cdb, task->cdb, sizeof(record.cdb));
	g_array_append_val(target->records, record);
	g_ptr_array_add(target->tasks, task);
	task->rule = take_rule(target, task);
	pthread_cond_broadcast(&target->came);
	return task;
}

void command_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	bool final = pdu->header[1] & 0x80, writes = pdu->header[1] & 0x20;
	uint32_t itt = get_be32(pdu->header + 16), length = get_be32(pdu->header + 20);

	if (itt == NO_TAG || find_task(connection, itt)) {
		connection_complain(connection, "a command with a tag in use, %08x", itt);
		return;
	}
	if ((pdu->length && (!writes || !connection->immediate_data)) ||
	    pdu->length > MIN(length, connection->first_burst) ||
	    (!final && (!writes || connection->initial_r2t)) || (writes && length > MAX_DATA) ||
	    (writes && pdu->header[1] & 0x40)) {
		connection_complain(connection, "a command with flags %02x, %u of %u bytes",
		    pdu->header[1], pdu->length, length);
		return;
	}
	struct script_task *task = task_new(connection, pdu);
	g_byte_array_append(task->data, pdu->data, pdu->length);
	task->unsolicited = !final;
	if (final)
		task_collected(task);
}

/* ---- ghosts ---- */

void tasks_lose_connection(struct script_connection *connection)
{
	struct script_target *target = connection->target;

	for (guint i = 0; i < target->tasks->len;) {
		struct script_task *task = target->tasks->pdata[i];

		if (task->connection != connection) {
			i++;
		} else if (task->step != STEP_EXECUTE || target->ghosts == SCRIPT_GHOSTS_DIE) {
			task_end(task);
		} else {
			task->connection = NULL;
			task->due = target->ghosts == SCRIPT_GHOSTS_AT_LOGIN
			                ? DUE_NEVER
			                : script_due(target->ghost_ms);
			task_record(task)->ghost = true;
			i++;
		}
	}
}

void tasks_login_begins(struct script_target *target, const char *initiator)
{
	if (target->ghosts != SCRIPT_GHOSTS_AT_LOGIN)
		return;
	for (guint i = 0; i < target->tasks->len;) {
		struct script_task *task = target->tasks->pdata[i];

		if (!task->connection && strcmp(task->session->initiator, initiator) == 0)
			task_execute(task); /* and it is gone */
		else
			i++;
	}
}

/* ---- task management ---- */

/* Those of the session, or of all; of the LUN, or of all. */
static void abort_tasks(struct script_target *target, const struct script_session *session, int lun)
{
	for (guint i = 0; i < target->tasks->len;) {
		struct script_task *task = target->tasks->pdata[i];

		if ((session && task->session != session) ||
		    (lun >= 0 && task->lun != (unsigned)lun))
			i++;
		else
			task_abort(task);
	}
}

void tasks_end_session(struct script_target *target, const struct script_session *session)
{
	abort_tasks(target, session, -1);
}

static void reset_luns(struct script_target *target, int lun)
{
	GHashTableIter each;
	gpointer number, disk;

	abort_tasks(target, NULL, lun);
	g_hash_table_iter_init(&each, target->luns);
	while (g_hash_table_iter_next(&each, &number, &disk)) {
		if (lun >= 0 && GPOINTER_TO_UINT(number) != (unsigned)lun)
			continue;
		for (guint i = 0; i < target->sessions->len; i++) {
			struct script_session *session = target->sessions->pdata[i];

			if (session->connection && !session->discovery)
				session_attention(session, GPOINTER_TO_UINT(number), 0x29, 0x03);
		}
	}
}

static int manage(struct script_connection *connection, const uint8_t *header, unsigned function)
{
	struct script_target *target = connection->target;
	unsigned lun = lun_of(header + 8);
	struct script_task *task;

	if (target->management != SCRIPT_TASKS_MANAGED)
		return target->management;
	if (function < WARM_RESET && !g_hash_table_lookup(target->luns, GUINT_TO_POINTER(lun)))
		return NO_SUCH_LUN;
	switch (function) {
	case ABORT_TASK:
		task = find_task(connection, get_be32(header + 20));
		if (!task)
			return NO_SUCH_TASK;
		task_abort(task);
		return MANAGED;
	case ABORT_TASK_SET:
		abort_tasks(target, connection->session, (int)lun);
		return MANAGED;
	case CLEAR_TASK_SET:
		abort_tasks(target, NULL, (int)lun);
		return MANAGED;
	case LUN_RESET:
		reset_luns(target, (int)lun);
		return MANAGED;
	case WARM_RESET:
	case COLD_RESET:
		reset_luns(target, -1);
		return MANAGED;
	default:
		return NOT_SUPPORTED;
	}
}

void management_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	unsigned function = pdu->header[1] & 0x7f;
	int response;
	uint8_t answer[BHS_SIZE];

	connection->target->managed[MIN(function, 15)]++;
	response = manage(connection, pdu->header, function);
	if (response < 0)
		return;
	header_fill(connection, answer, OP_MANAGED, get_be32(pdu->header + 16), true);
	answer[2] = (uint8_t)response;
	connection_put(connection, answer, NULL, 0);
	if (function == COLD_RESET && response == MANAGED)
		connection_send_last(connection);
}
