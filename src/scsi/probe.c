/*
 * probe.c - which logical units a target has, and what each of them is.
 *
 *   REPORT LUNS (unless some are asked for), again where its answer was longer than the buffer
 *        |
 *   lanes, at most MAX_LANES, each with one LUN at a time and one command at a time:
 *        INQUIRY > VPD pages that the list names > TEST UNIT READY > READ CAPACITY > MODE SENSE
 *
 * The steps stand in a table (probe_steps.c); each says when it applies, what it asks, and what
 * follows from the answer.
 *
 * It owns everything it sends from and receives into; buffers are zeroed before each command.
 * Invariant: busy counts the lanes that have a command at the port or a pause; done() is called
 * when it is zero.
 */
#include <string.h>

#include "cdb.h"
#include "inquiry.h"
#include "lunfs/log.h"
#include "probe.h"

#define MAX_LANES       32
#define MAX_LUNS        16384u
#define FIRST_LUNS      512u
#define RETRIES_AT_ONCE 3u
#define RETRIES_MAX     10u /* those with a pause included */
#define PAUSE_MS        100u
#define MAX_PAUSES      30u /* 3 s for each LUN */

struct probe {
	struct scsi_port *port;
	struct loop *loop;
	int lun;   /* the one asked for, or -1 */
	bool list; /* only which there are */
	bool none; /* is an answer, too */
	probe_done_fn done;
	void *data;

	struct lun_info *luns;
	unsigned count, next, busy;
	bool *absent; /* of luns */
	bool timed_out;
	void (*heard)(const struct probe_news *news, void *data); /* or NULL */
	char error[300],
	    refusal[250]; /* the latter: of the last LUN that did not tell what it is */
	struct lane lanes[MAX_LANES];
};

/* ---- one command of a lane ---- */

static void lane_done(struct scsi_command *command);

static void lane_send(struct lane *lane)
{
	struct scsi_command *command = &lane->command;
	uint32_t length = command->direction == SCSI_DATA_IN ? (uint32_t)lane->iov.iov_len : 0;

	memset(lane->data, 0, lane->iov.iov_len);
	command->length = length;
	command->iov = &lane->iov;
	command->niov = length ? 1 : 0;
	command->done = lane_done;
	command->data = lane;
	command->error = 0;
	command->timed_out = false;
	command->status = SAM_GOOD;
	command->sense = (struct sense){0};
	command->deferred = false;
	command->received = 0;
	scsi_execute(lane->probe->port, command);
}

/* ---- the machine ---- */

/* Frees the lane for the probe's end; true: it was the last one. */
static bool lane_rest(struct lane *lane)
{
	return --lane->probe->busy == 0;
}

/* Takes the next LUN, if there is one. */
static bool lane_take(struct lane *lane)
{
	struct probe *probe = lane->probe;

	if (probe->next == probe->count)
		return false;
	lane->info = &probe->luns[probe->next++];
	lane->step = probe_steps;
	lane->command.lun = lane->info->lun;
	lane->pauses = lane->retries = 0;
	lane->absent = lane->by_write_same = lane->zeroes = lane->has_mode = false;
	memset(lane->has, 0, sizeof lane->has);
	lane->refusal[0] = '\0';
	return true;
}

static void lane_leave(struct lane *lane)
{
	struct probe *probe = lane->probe;

	probe->absent[lane->info - probe->luns] = lane->absent;
	if (lane->refusal[0])
		g_snprintf(probe->refusal, sizeof probe->refusal,
		    "LUN %u does not say what it is: %s", lane->info->lun, lane->refusal);
}

/* Asks what the current step or the next that applies asks; takes another LUN at the end; false:
 * all are done. */
static bool lane_go(struct lane *lane)
{
	for (;;) {
		while (lane->step < probe_steps_end && !lane->absent) {
			if (lane->step->applies(lane)) {
				lane->retries = 0;
				lane->step->ask(lane);
				lane_send(lane);
				return true;
			}
			lane->step++;
		}
		lane_leave(lane);
		if (!lane_take(lane))
			return false;
	}
}

static void probe_finish(struct probe *probe)
{
	unsigned count = 0;

	for (unsigned i = 0; i < probe->count; i++)
		if (!probe->absent[i])
			probe->luns[count++] = probe->luns[i];
	if (!probe->error[0] && count == 0 && probe->refusal[0] && !probe->none)
		g_strlcpy(probe->error, probe->refusal, sizeof probe->error);
	else if (!probe->error[0] && count == 0 && probe->lun >= 0)
		g_snprintf(probe->error, sizeof probe->error, "there is no LUN %d at this target",
		    probe->lun);
	else if (!probe->error[0] && count == 0 && !probe->none)
		g_strlcpy(probe->error,
		    "the target shows no LUNs to this initiator: it has none, or its access list "
		    "does not name "
		    "this initiator",
		    sizeof probe->error);
	if (probe->error[0])
		probe->done(NULL, 0, probe->error, probe->data);
	else
		probe->done(probe->luns, count, NULL, probe->data);
	/* probe may be gone */
}

/* The lanes beyond the first start with a LUN each. */
static void probe_start_lanes(struct probe *probe)
{
	for (int i = 1; i < MAX_LANES; i++) {
		struct lane *lane = &probe->lanes[i];

		if (!lane_take(lane))
			return;
		probe->busy++;
		if (!lane_go(lane))
			probe->busy--;
	}
}

static void probe_set_luns(struct probe *probe, const uint16_t *luns, size_t count)
{
	probe->luns = g_new0(struct lun_info, count);
	probe->absent = g_new0(bool, count);
	probe->count = (unsigned)count;
	for (size_t i = 0; i < count; i++) {
		probe->luns[i].lun = luns[i];
		probe->luns[i].type = SCSI_TYPE_NONE;
		probe->luns[i].write_cache = true; /* until it says otherwise */
	}
}

/* ---- REPORT LUNS ---- */

static void probe_report_luns(struct lane *lane, size_t size)
{
	lane_receive(lane, size);
	cdb_report_luns(&lane->command, (uint32_t)size);
	lane_send(lane);
}

/* From the list to the LUNs; false: there is nothing to do for the lane. */
static bool probe_begin(struct probe *probe, const uint16_t *luns, size_t count)
{
	struct lane *first = &probe->lanes[0];

	probe_set_luns(probe, luns, count);
	if (probe->list || !lane_take(first))
		return false;
	probe_start_lanes(probe);
	return lane_go(first);
}

/* It is asked again and again: a list without a change is told of in the debug log alone. */
static void probe_note_others(struct probe *probe, unsigned others)
{
	const char *many = others == 1 ? "is" : "are";

	if (others == 0)
		return;
	g_snprintf(probe->refusal, sizeof probe->refusal,
	    "%u of the target's LUNs %s left out: numbers beyond 16383, and units behind units, "
	    "cannot be addressed",
	    others, many);
	if (probe->list)
		log_debug("%s", probe->refusal);
	else
		log_warning("%s", probe->refusal);
}

static bool report_luns_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	struct probe *probe = lane->probe;
	size_t wanted = MIN(luns_size(data, size), (MAX_LUNS + 1) * 8);
	g_autofree uint16_t *luns = NULL;
	unsigned others;
	size_t count;

	if (wanted > lane->iov.iov_len) { /* at most once more for each size up to the largest */
		probe_report_luns(
		    lane, MAX(wanted, MIN(lane->iov.iov_len * 2, (MAX_LUNS + 1) * 8)));
		return true;
	}
	/* Where the data is missing behind GOOD what is left is zeros, which say "none" (SAFETY.md
	 * 13): that is believed only of an answer that is as long as this. */
	if (probe->list && (wanted == 0 || (wanted == 8 && size != 8))) {
		g_strlcpy(probe->error, "the target's list of LUNs came without its data",
		    sizeof probe->error);
		return false;
	}
	luns = g_new(uint16_t, MAX_LUNS);
	count = luns_read(luns, MAX_LUNS, data, size, &others);
	probe_note_others(probe, others);
	return probe_begin(probe, luns, count);
}

static bool report_luns_refused(struct lane *lane)
{
	struct probe *probe = lane->probe;
	const struct scsi_command *command = &lane->command;
	char text[200];

	if (!probe->list && command->status == SAM_CHECK_CONDITION &&
	    command->sense.key == SENSE_ILLEGAL_REQUEST)
		return probe_begin(probe, &(uint16_t){0}, 1);
	g_snprintf(probe->error, sizeof probe->error, "the target does not list its LUNs: %s",
	    sense_describe(command, text, sizeof text));
	return false;
}

/* ---- answers ---- */

static bool lane_answered(struct lane *lane)
{
	const struct scsi_command *command = &lane->command;
	size_t size = MIN(command->received, lane->iov.iov_len);

	if (!lane->step)
		return report_luns_answered(lane, lane->data, size);
	if (lane->step->answered)
		lane->step->answered(lane, lane->data, size);
	lane->step++;
	return lane_go(lane);
}

static bool lane_refused(struct lane *lane)
{
	const struct scsi_command *command = &lane->command;

	if (!lane->step)
		return report_luns_refused(lane);
	if (command->status == SAM_CHECK_CONDITION && command->sense.key == SENSE_ILLEGAL_REQUEST &&
	    command->sense.asc == 0x25)
		lane->absent = true; /* LOGICAL UNIT NOT SUPPORTED */
	else if (lane->step->refused)
		lane->step->refused(lane);
	lane->step++;
	return lane_go(lane);
}

/* The end of pauses: the same once more. */
static void lane_resume(void *data)
{
	struct lane *lane = data;

	loop_remove(&lane->pause);
	lane_send(lane);
}

/* An answer tells of the LUN, not of the question. */
static void lane_hear(struct lane *lane)
{
	const struct scsi_command *command = &lane->command;
	const struct sense *sense = &command->sense;
	struct probe *probe = lane->probe;

	struct probe_news news = {.lun = command->lun};

	if (command->status == SAM_RESERVATION_CONFLICT) {
		news.preempted = true;
	} else if (sense_tells_of_loss(command)) {
		news.reset = true;
	} else if (command->status == SAM_CHECK_CONDITION && !command->deferred &&
	           sense->key == SENSE_UNIT_ATTENTION) {
		news.reset = sense->asc == 0x29;
		news.preempted = sense_is_preempted(sense);
		news.medium = sense->asc == 0x28;
		news.changed = sense->asc == 0x2a || sense->asc == 0x3f;
		news.luns = sense_is_of_luns(sense);
	} else {
		return;
	}
	if (probe->heard)
		probe->heard(&news, probe->data);
}

/* True: the command went, or will go, once more. */
static bool lane_try_again(struct lane *lane, enum sense_action action)
{
	bool soon = action == SENSE_RETRY && lane->retries++ < RETRIES_MAX;

	lane_hear(lane);
	if (soon && lane->retries <= RETRIES_AT_ONCE) {
		lane_send(lane);
		return true;
	}
	if (soon || (action == SENSE_RETRY_LATER && lane->pauses++ < MAX_PAUSES)) {
		lane->pause = loop_timer(lane->probe->loop, PAUSE_MS, lane_resume, lane);
		return true;
	}
	return false;
}

/* The session is gone: no lane goes on, and those that pause need not wait. */
static bool lane_failed(struct lane *lane)
{
	struct probe *probe = lane->probe;
	char text[200];

	probe->timed_out |= lane->command.timed_out;
	if (!probe->error[0])
		g_snprintf(probe->error, sizeof probe->error,
		    "the connection was lost while the target was asked for its LUNs: %s",
		    sense_describe(&lane->command, text, sizeof text));
	for (int i = 0; i < MAX_LANES; i++) {
		if (!probe->lanes[i].pause)
			continue;
		loop_remove(&probe->lanes[i].pause);
		lane_rest(&probe->lanes[i]); /* not the last: this one still counts */
	}
	return false;
}

static void lane_done(struct scsi_command *command)
{
	struct lane *lane = command->data;
	enum sense_action action;
	bool goes_on;
	int error;

	if (command->error || lane->probe->error[0]) {
		goes_on = lane_failed(lane);
	} else {
		action = sense_judge(command, &error);
		if (lane_try_again(lane, action))
			return;
		goes_on = action == SENSE_OK ? lane_answered(lane) : lane_refused(lane);
	}
	if (!goes_on && lane_rest(lane))
		probe_finish(lane->probe);
}

static struct probe *probe_new(
    struct scsi_port *port, struct loop *loop, probe_done_fn done, void *data)
{
	struct probe *probe = g_new0(struct probe, 1);

	probe->port = port;
	probe->loop = loop;
	probe->lun = -1;
	probe->done = done;
	probe->data = data;
	for (int i = 0; i < MAX_LANES; i++)
		probe->lanes[i].probe = probe;
	probe->busy = 1;
	return probe;
}

struct probe *probe_start(
    struct scsi_port *port, struct loop *loop, int lun, probe_done_fn done, void *data)
{
	struct probe *probe = probe_new(port, loop, done, data);

	probe->lun = lun;
	if (lun >= 0)
		probe_begin(probe, &(uint16_t){(uint16_t)lun}, 1);
	else
		probe_report_luns(&probe->lanes[0], (FIRST_LUNS + 1) * 8);
	return probe;
}

struct probe *probe_some(struct scsi_port *port, struct loop *loop, const uint16_t *luns,
    unsigned count, probe_done_fn done, void *data)
{
	struct probe *probe = probe_new(port, loop, done, data);

	g_assert(count > 0);
	probe->none = true;
	probe_begin(probe, luns, count);
	return probe;
}

struct probe *probe_list(struct scsi_port *port, struct loop *loop, probe_done_fn done, void *data)
{
	struct probe *probe = probe_new(port, loop, done, data);

	probe->list = probe->none = true;
	probe_report_luns(&probe->lanes[0], (FIRST_LUNS + 1) * 8);
	return probe;
}

bool probe_is_busy(const struct probe *probe)
{
	return probe != NULL && probe->busy > 0;
}

void probe_on_news(struct probe *probe, void (*heard)(const struct probe_news *news, void *data))
{
	probe->heard = heard;
}

void probe_session_lost(struct probe *probe)
{
	for (int i = 0; probe && i < MAX_LANES; i++) {
		if (!probe->lanes[i].pause)
			continue;
		loop_remove(&probe->lanes[i].pause);
		lane_rest(&probe->lanes[i]);
	}
}

bool probe_timed_out(const struct probe *probe)
{
	return probe->timed_out;
}

void probe_free(struct probe *probe)
{
	if (!probe)
		return;
	for (int i = 0; i < MAX_LANES; i++) {
		loop_remove(&probe->lanes[i].pause);
		g_free(probe->lanes[i].data);
	}
	g_free(probe->luns);
	g_free(probe->absent);
	g_free(probe);
}
