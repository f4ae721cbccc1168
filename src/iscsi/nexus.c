/*
 * nexus.c - the way to one logical unit, which outlasts the session.
 *
 *       nexus_lost(), _hold()               replacement_timeout
 *     OPEN ---------------> AWAY --------------------------------> FAILED
 *      ^  \                  |  \------------- nexus_fail() ------> |
 *      |   `- what comes     |   `- what comes waits                |  `- what comes ends with -EIO
 *      |      goes through   |                                      |
 *      +---------------------+------------ nexus_open() ------------+
 *
 * The replacement clock starts at the loss, and stops when a command is done, or when it has been
 * OPEN for a while with nothing to do: a target that comes back only to go away again does not wind
 * it up (SAFETY.md 16).
 *
 * It owns the commands that wait, in the order in which they came; those that are below are listed
 * there. Each is done once: its own done() is kept aside while it is below.
 */
#include <errno.h>
#include <limits.h>

#include "command_list.h"
#include "lunfs/iscsi.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"

/* How often commands that nobody waits for any more are looked for, while they cannot be sent. */
#define SWEEP_MS  1000u
#define STEADY_MS 10000u /* OPEN for so long without a command to do: all is well again */

enum nexus_state { OPEN, AWAY, FAILED };

struct nexus {
	struct scsi_port port; /* first: the port is the nexus */
	struct loop *loop;
	struct scsi_port *below;
	unsigned timeout_ms;
	void (*expired)(void *data);
	void *data;

	enum nexus_state state;
	struct command_list kept;   /* they wait, or (FAILED) end at the end of the turn */
	struct command_list ending; /* they are done now */
	unsigned waiting, below_count;
	uint64_t order, lost_order; /* of the next command; of the first that came after the loss */
	uint64_t resent;
	int64_t away_since_ms; /* the replacement clock; 0: it stands */
	GSource *clock, *steady, *sweep;
	struct loop_work ender;
};

static void nexus_sweep(void *data);

static void nexus_set_state(struct nexus *nexus, enum nexus_state state)
{
	static const char *const names[] = {"open", "away", "failed"};

	if (nexus->state == state)
		return;
	log_debug("nexus: %s -> %s", names[nexus->state], names[state]);
	nexus->state = state;
	loop_remove(&nexus->steady);
	loop_remove(&nexus->sweep);
	if (state == AWAY)
		nexus->sweep = loop_ticker(nexus->loop, SWEEP_MS, nexus_sweep, nexus);
}

/* ---- commands that wait ---- */

/* In the order of execute(): one that was at the target goes before what came since. */
static void nexus_keep(struct nexus *nexus, struct scsi_command *command)
{
	struct scsi_command *before = nexus->kept.last;

	while (before != NULL && before->nexus_order > command->nexus_order)
		before = before->prev;
	command_list_insert(&nexus->kept, before, command);
	nexus->waiting++;
}

static void nexus_remove(struct nexus *nexus, struct scsi_command *command)
{
	command_list_remove(&nexus->kept, command);
	nexus->waiting--;
}

/* Ends those for which ends() is true, of what waits now; others may come while it does. */
static void nexus_end_waiting(
    struct nexus *nexus, bool (*ends)(const struct scsi_command *command), int error)
{
	struct scsi_command *command, *next;

	for (command = nexus->kept.first; command != NULL; command = next) {
		next = command->next;
		if (ends != NULL && !ends(command))
			continue;
		nexus_remove(nexus, command);
		command->error = error;
		command_list_append(&nexus->ending, command);
	}
	while ((command = nexus->ending.first) != NULL) {
		command_list_remove(&nexus->ending, command);
		command->done(command);
	}
}

static bool command_was_lost(const struct scsi_command *command)
{
	const struct nexus *nexus = command->nexus;

	return !command->replay && command->nexus_order < nexus->lost_order;
}

/* What is due to end, and must not from inside whatever found that out. */
static void nexus_end_due(struct loop_work *work)
{
	struct nexus *nexus = (struct nexus *)((char *)work - offsetof(struct nexus, ender));

	if (nexus->state == FAILED)
		nexus_end_waiting(nexus, NULL, -EIO);
	else
		nexus_end_waiting(nexus, command_was_lost, -ESTALE);
}

static void nexus_sweep(void *data)
{
	struct nexus *nexus = data;

	nexus_end_waiting(nexus, scsi_command_is_cancelled, -EINTR);
}

/* ---- the replacement clock ---- */

static void nexus_stop_clock(struct nexus *nexus)
{
	nexus->away_since_ms = 0;
	loop_remove(&nexus->clock);
	loop_remove(&nexus->steady);
}

static void nexus_has_been_steady(void *data)
{
	struct nexus *nexus = data;

	loop_remove(&nexus->steady);
	if (nexus->below_count == 0)
		nexus_stop_clock(nexus);
}

static void nexus_expire(void *data)
{
	struct nexus *nexus = data;

	loop_remove(&nexus->clock);
	if (nexus->state != AWAY)
		return; /* it is tried just now; at the next loss nothing waits any more */
	nexus_set_state(nexus, FAILED);
	nexus->expired(nexus->data);
	nexus_end_waiting(nexus, NULL, -EIO);
}

static bool nexus_is_expired(const struct nexus *nexus)
{
	return nexus->away_since_ms != 0 && nexus->timeout_ms != UINT_MAX &&
	       clock_ms() - nexus->away_since_ms >= nexus->timeout_ms;
}

static void nexus_start_clock(struct nexus *nexus)
{
	if (nexus->away_since_ms == 0)
		nexus->away_since_ms = clock_ms();
	if (nexus->timeout_ms == UINT_MAX || nexus->clock != NULL || nexus->state == FAILED)
		return;
	int64_t left = nexus->away_since_ms + nexus->timeout_ms - clock_ms();
	nexus->clock = loop_timer(nexus->loop, (unsigned)MAX(left, 0), nexus_expire, nexus);
}

/* ---- on the way ---- */

static void nexus_send(struct nexus *nexus, struct scsi_command *command);

static void nexus_answered(struct scsi_command *command)
{
	struct nexus *nexus = command->nexus;

	command->done = command->nexus_done;
	nexus->below_count--;
	if (command->error == 0) {
		/* An answer of before the loss may be handed over after it. */
		if (nexus->away_since_ms != 0 && nexus->state == OPEN)
			nexus_stop_clock(nexus);
	} else if (command->error == -ESTALE && command->replay) {
		if (command->timed_out)
			command->timeout_ms =
			    2 * (command->timeout_ms != 0 ? command->timeout_ms
			                                  : nexus->port.command_timeout_ms);
		if (scsi_command_is_cancelled(command)) {
			command->error = -EINTR;
		} else {
			nexus_start_clock(nexus);
			if (nexus->state == OPEN) /* nobody told: to send it now would be to spin */
				nexus_set_state(nexus, AWAY);
			nexus->resent++;
			nexus_keep(nexus, command);
			if (nexus->state == FAILED)
				loop_defer(nexus->loop, &nexus->ender);
			return;
		}
	}
	command->done(command);
}

static void nexus_send(struct nexus *nexus, struct scsi_command *command)
{
	command->nexus_done = command->done;
	command->done = nexus_answered;
	nexus->below_count++;
	scsi_execute(nexus->below, command);
}

static void nexus_execute(struct scsi_port *port, struct scsi_command *command)
{
	struct nexus *nexus = (struct nexus *)port;

	command->error = 0;
	command->timed_out = false;
	command->nexus = nexus;
	command->nexus_order = nexus->order++;
	if (nexus->state == OPEN && nexus->kept.first == NULL) {
		nexus_send(nexus, command);
		return;
	}
	nexus_keep(nexus, command);
	if (nexus->state == FAILED)
		loop_defer(nexus->loop, &nexus->ender);
}

/* ---- lost and found ---- */

void nexus_hold(struct nexus *nexus)
{
	nexus_start_clock(nexus);
	if (nexus->state == FAILED)
		return;
	nexus_set_state(nexus, AWAY);
	if (nexus_is_expired(nexus))
		nexus_expire(nexus);
}

void nexus_lost(struct nexus *nexus)
{
	nexus_hold(nexus);
	if (nexus->state == AWAY)
		nexus_recall(nexus);
}

/* Those above send them again, if they do, in an order of theirs; they are to hear of it first. */
void nexus_recall(struct nexus *nexus)
{
	nexus->lost_order = nexus->order;
	loop_defer(nexus->loop, &nexus->ender);
}

void nexus_open(struct nexus *nexus)
{
	struct scsi_command *command;

	nexus_set_state(nexus, OPEN);
	if (nexus->away_since_ms != 0 && nexus->steady == NULL)
		nexus->steady = loop_timer(nexus->loop, STEADY_MS, nexus_has_been_steady, nexus);
	nexus_end_waiting(nexus, command_was_lost, -ESTALE);
	nexus_end_waiting(nexus, scsi_command_is_cancelled, -EINTR);
	while (nexus->state == OPEN && (command = nexus->kept.first) != NULL) {
		nexus_remove(nexus, command);
		nexus_send(nexus, command);
	}
}

void nexus_fail(struct nexus *nexus)
{
	nexus_set_state(nexus, FAILED);
	nexus_end_waiting(nexus, NULL, -EIO);
}

/* ---- life ---- */

struct nexus *nexus_new(struct loop *loop, struct scsi_port *below, unsigned replacement_timeout_ms,
    void (*expired)(void *data), void *data)
{
	static const struct scsi_port_ops ops = {.execute = nexus_execute};
	struct nexus *nexus = g_new0(struct nexus, 1);

	*nexus = (struct nexus){
	    .port = *below,
	    .loop = loop,
	    .below = below,
	    .timeout_ms = replacement_timeout_ms,
	    .expired = expired,
	    .data = data,
	    .ender.run = nexus_end_due,
	};
	nexus->port.ops = &ops;
	return nexus;
}

struct scsi_port *nexus_port(struct nexus *nexus)
{
	return &nexus->port;
}

void nexus_free(struct nexus *nexus)
{
	if (nexus == NULL)
		return;
	g_assert(nexus->waiting == 0 && nexus->below_count == 0);
	loop_cancel(nexus->loop, &nexus->ender);
	loop_remove(&nexus->clock);
	loop_remove(&nexus->steady);
	loop_remove(&nexus->sweep);
	g_free(nexus);
}

unsigned nexus_waiting(const struct nexus *nexus)
{
	return nexus->waiting;
}

uint64_t nexus_resent(const struct nexus *nexus)
{
	return nexus->resent;
}

int64_t nexus_away_ms(const struct nexus *nexus)
{
	return nexus->away_since_ms != 0 ? clock_ms() - nexus->away_since_ms : 0;
}
