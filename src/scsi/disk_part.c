/*
 * disk_part.c - one command of a disk: its CDB, and what follows from the answer.
 *
 * An answer is final, or the same command goes again: at once, and after growing pauses when that
 * did not help (unit attention, ABORTED COMMAND), after growing pauses (BUSY, TASK SET FULL,
 * becoming ready), or in another form (the target does not know READ(16)). What was learnt from a
 * rejection is kept in struct disk, and cdbs are built from it each time.
 */
#include "disk.h"

#include <errno.h>
#include <limits.h>

#include "cdb.h"
#include "lunfs/log.h"

#define RETRIES_AT_ONCE  3u
#define RETRIES_MAX      10u /* those with a pause included */
#define FIRST_PAUSE_MS   10u
#define LONGEST_PAUSE_MS 500u
/* A cache takes its time to empty (SAFETY.md 15). */
#define SYNC_TIMEOUT_MIN_MS 120000u
#define SYNC_TIMEOUTS       4u      /* command_timeouts */
#define SLOW_MAX            3u      /* the time is doubled so often at most, */
#define SLOW_SYNC_MAX       6u      /* that of a SYNCHRONIZE CACHE, */
#define SLOW_MEMORY_MS      1800000 /* until so long after the last that took too long */
/* At each loss what was not flushed is sent again: so often in a row, each so soon after the last.
 */
#define LOSSES_MAX     10u
#define LOSS_MEMORY_MS 30000

static struct disk *part_disk(const struct disk_part *part)
{
	return part->request->disk;
}

static struct slab *part_slab(const struct disk_part *part)
{
	struct disk *disk = part_disk(part);

	return part->wide ? &disk->wide_parts : &disk->parts;
}

static void part_done(struct scsi_command *command);

struct disk_part *part_new(struct disk_request *request, enum part_kind kind, int niov)
{
	struct disk *disk = request->disk;
	bool wide = niov > PART_IOVS;
	struct disk_part *part = slab_get(wide ? &disk->wide_parts : &disk->parts);

	if (!part)
		return NULL;
	part->wide = wide;
	part->kind = kind;
	part->request = request;
	part->command.done = part_done;
	part->command.data = part;
	part->command.lun = disk->info.lun;
	part->command.iov = part->iov;
	request->parts++;
	disk->slots++;
	return part;
}

void part_drop(struct disk_part *part)
{
	part->request->parts--;
	part_disk(part)->slots--;
	slab_put(part_slab(part), part);
}

/* Gives the part back; true when its request is to be completed. */
static bool part_end(struct disk_part *part, int error)
{
	struct disk_request *request = part->request;

	request->disk->slots--;
	slab_put(part_slab(part), part);
	return request_part_ended(request, error);
}

/* ---- sending ---- */

static bool part_fits_10(const struct disk_part *part)
{
	return part->lba <= UINT32_MAX && part->blocks <= UINT16_MAX;
}

static void part_write_transfer(struct disk_part *part)
{
	struct disk *disk = part_disk(part);
	bool write = part->kind == PART_WRITE;
	bool fua = write && disk->info.fua && (part->request->io->flags & IO_FUA);

	if (disk->short_cdbs && part_fits_10(part))
		cdb_transfer_10(&part->command, write, (uint32_t)part->lba, (uint16_t)part->blocks,
		    fua ? CDB_FUA : 0);
	else
		cdb_transfer_16(&part->command, write, part->lba, part->blocks, fua ? CDB_FUA : 0);
	part->command.exact = true;
}

static unsigned part_timeout(const struct disk_part *part, int64_t now_ms)
{
	struct disk *disk = part_disk(part);
	uint64_t ms = disk->port->command_timeout_ms;

	/* Others of its kind may be done in no time: that says nothing about the slow one. */
	if (now_ms - disk->slow_ms[part->kind] >= SLOW_MEMORY_MS)
		disk->slow[part->kind] = 0;
	if (part->kind == PART_SYNC)
		ms = MAX(SYNC_TIMEOUT_MIN_MS, SYNC_TIMEOUTS * ms);
	return (unsigned)MIN(ms << disk->slow[part->kind], INT_MAX);
}

static void part_write_cdb(struct disk_part *part)
{
	struct disk *disk = part_disk(part);

	switch (part->kind) {
	case PART_READ:
	case PART_WRITE:
		part_write_transfer(part);
		break;
	case PART_WRITE_SAME:
		cdb_write_same_16(
		    &part->command, part->lba, part->blocks, disk->unmap ? CDB_UNMAP : 0);
		break;
	case PART_SYNC:
		cdb_synchronize_cache(&part->command, disk->sync == SYNC_16);
		break;
	}
}

void part_send(struct disk_part *part)
{
	struct scsi_command *command = &part->command;
	int64_t now_us = clock_us();

	if (part->began_us == 0)
		part->began_us = now_us;
	part_write_cdb(part);
	part->cache_change = part_disk(part)->cache_changes;
	command->timeout_ms = part_timeout(part, now_us / 1000);
	command->replay = part->kind == PART_READ;
	command->cancelled = part->request->io->cancelled;
	command->error = 0;
	command->status = SAM_GOOD;
	command->sense = (struct sense){0};
	command->deferred = false;
	command->received = 0;
	scsi_execute(part_disk(part)->port, command);
}

/* ---- pausing ---- */

static void parts_resume(void *data);

static void disk_set_pause_timer(struct disk *disk, int64_t due_ms)
{
	if (disk->pause_timer && disk->pause_end_ms <= due_ms)
		return;
	loop_remove(&disk->pause_timer);
	disk->pause_end_ms = due_ms;
	disk->pause_timer =
	    loop_timer(disk->loop, (unsigned)MAX(due_ms - clock_ms(), 1), parts_resume, disk);
}

static void part_pause(struct disk_part *part)
{
	struct disk *disk = part_disk(part);

	part->pause_ms =
	    part->pause_ms ? MIN(part->pause_ms * 2, LONGEST_PAUSE_MS) : FIRST_PAUSE_MS;
	part->due_ms = clock_ms() + part->pause_ms;
	part->next = disk->paused;
	disk->paused = part;
	disk_set_pause_timer(disk, part->due_ms);
}

/* Sends the parts whose pause is over. A cancelled one was not executed: it need not be. */
static void parts_resume(void *data)
{
	struct disk *disk = data;
	struct disk_part *part = disk->paused, *next;
	int64_t now_ms = clock_ms();

	loop_remove(&disk->pause_timer);
	disk->paused = NULL;
	for (; part; part = next) {
		struct disk_request *request = part->request;

		next = part->next;
		if (part->due_ms > now_ms) {
			part->next = disk->paused;
			disk->paused = part;
			disk_set_pause_timer(disk, part->due_ms);
			continue;
		}
		/* It was not executed: it need not be, or must not go behind LOST. */
		int error = io_is_cancelled(request->io) ? -EINTR
		            : request_is_stale(request)  ? -ESTALE
		                                         : 0;
		if (error == 0)
			part_send(part);
		else if (part_end(part, error))
			request_complete_later(request);
	}
	disk_run(disk);
}

void parts_end_paused(struct disk *disk)
{
	struct disk_part *part = disk->paused, *next;

	disk->paused = NULL;
	for (; part; part = next) {
		struct disk_request *request = part->request;

		next = part->next;
		if (part->kind == PART_READ) {
			part->next = disk->paused;
			disk->paused = part;
		} else if (part_end(part, -ESTALE)) {
			request_complete_later(request);
		}
	}
}

/* ---- answers ---- */

static void part_tell(struct disk_part *part, const char *outcome)
{
	char text[200];

	sense_describe(&part->command, text, sizeof text);
	if (part->kind == PART_SYNC)
		disk_tell(part_disk(part), "%s%s", text, outcome);
	else
		disk_tell(part_disk(part), "%s at block %" G_GUINT64_FORMAT " (%u blocks)%s", text,
		    part->lba, part->blocks, outcome);
}

static void disk_call(struct disk *disk, enum disk_attention what)
{
	if (disk->attention)
		disk->attention(what, disk->attention_data);
}

/* An answer tells that writes may be lost. Its own part goes on counting its tries. */
static void disk_hear_loss(struct disk *disk, struct disk_part *part)
{
	bool counts = part->epoch == disk->block.epoch;
	int64_t now_ms = clock_ms();

	if (now_ms - disk->loss_ms >= LOSS_MEMORY_MS)
		disk->losses = 0;
	disk->loss_ms = now_ms;
	disk->losses++;
	block_raise(&disk->block, BLOCK_LOST);
	if (counts)
		part->epoch = disk->block.epoch;
	if (disk->losses < LOSSES_MAX)
		return;
	disk->losses = 0;
	disk_call(disk, DISK_RESTLESS);
}

/* A command has succeeded: the row of losses is over. Behind a deferred error only a flush shows
 * that what was written is there. */
static void disk_hear_success(struct disk *disk, const struct disk_part *part)
{
	if (part->kind != PART_SYNC) /* which some answer whoever asks */
		disk_note_access(disk, part->kind != PART_READ);
	if (disk->deferred && part->kind != PART_SYNC)
		return;
	disk->losses = 0;
	disk->deferred = false;
}

/* A unit attention tells of the LUN, not of the command that happened to fetch it. */
static void disk_hear_attention(struct disk *disk, struct disk_part *part)
{
	const struct sense *sense = &part->command.sense;
	char text[200];

	disk_tell(disk, "%s", sense_describe(&part->command, text, sizeof text));
	switch (sense->asc) {
	case 0x29: /* POWER ON, RESET: SAFETY.md 1. The modes are as they were saved now. */
		disk_assume_cache(disk);
		disk_hear_loss(disk, part);
		break;
	case 0x2a:
		if (sense_is_preempted(sense))
			block_raise(&disk->block, BLOCK_FENCED);
		/* MODE PARAMETERS CHANGED: the write cache may be on now, until it is known. */
		if (sense->ascq == 0x01)
			disk_assume_cache(disk);
		break;
	case 0x28: /* the medium may be another */
		block_raise(&disk->block, BLOCK_CHANGED);
		break;
	default:
		break;
	}
	/* Reset (modes are as they were saved), CAPACITY DATA HAS CHANGED, MODE PARAMETERS CHANGED,
	 * another INQUIRY, another medium. */
	if (sense->asc == 0x29 || sense->asc == 0x2a || sense->asc == 0x3f || sense->asc == 0x28)
		disk_call(disk, sense_is_of_luns(sense) ? DISK_LUNS : DISK_CHANGED);
}

/*
 * What an earlier command was told GOOD of was not done, and the cache may hold less than it should
 * (SPC-4, 4.5.7): as good as lost, all of it. Where there was said to be no cache nobody has kept
 * it.
 */
static void disk_hear_deferred(struct disk *disk, struct disk_part *part)
{
	bool kept = disk_flushes(disk);
	char text[200];

	disk_tell(disk, "%s", sense_describe(&part->command, text, sizeof text));
	if (!sense_tells_of_loss(&part->command))
		return;
	disk->deferred = true;
	disk_hear_loss(disk, part);
	if (!kept)
		block_raise(&disk->block, BLOCK_FORGOTTEN);
}

/* The target does not know the command as it was sent. True: it goes again in a form that it may
 * know. */
static bool part_adapt(struct disk_part *part)
{
	struct disk *disk = part_disk(part);
	const struct scsi_command *command = &part->command;
	bool unknown = command->sense.asc == 0x20, bad_field = command->sense.asc == 0x24;

	switch (part->kind) {
	case PART_READ:
	case PART_WRITE:
		if (unknown && command->cdb_length == 16 && part_fits_10(part)) {
			disk->short_cdbs = true;
			return true;
		}
		if (bad_field && part->kind == PART_WRITE && (command->cdb[1] & CDB_FUA)) {
			disk->info.fua = false; /* a SYNCHRONIZE CACHE follows then */
			disk->block.limits.fua = false;
			return true;
		}
		return false;
	case PART_SYNC:
		if ((unknown || bad_field) && command->cdb[0] == OP_SYNCHRONIZE_CACHE_16) {
			disk->sync = MAX(disk->sync, SYNC_10);
			return disk->sync == SYNC_10;
		}
		return false;
	case PART_WRITE_SAME:
		return false; /* what follows is not one command: part_give_up_write_same() */
	}
	return false;
}

/* True: WRITE SAME is not to be had as it was sent; the request starts over without it. */
static bool part_give_up_write_same(struct disk_part *part)
{
	struct disk *disk = part_disk(part);
	uint8_t asc = part->command.sense.asc;

	if (part->kind != PART_WRITE_SAME || (asc != 0x20 && asc != 0x24 && asc != 0x26))
		return false;
	if (asc != 0x20 && (part->command.cdb[1] & CDB_UNMAP))
		disk->unmap = false;
	else
		disk->write_same = false;
	part->request->start_over = true;
	return true;
}

/* A target without SYNCHRONIZE CACHE has nothing to synchronize, as far as anybody can tell. */
static bool part_give_up_sync(struct disk_part *part)
{
	struct disk *disk = part_disk(part);

	if (part->kind != PART_SYNC || part->command.sense.asc != 0x20)
		return false;
	if (disk->sync != SYNC_NONE)
		log_warning_of(disk->name,
		    "the target has no SYNCHRONIZE CACHE: what it acknowledges is "
		    "taken as stored");
	disk->sync = SYNC_NONE;
	return true;
}

/* True: the part goes on, now or after a pause; else *error says how it ends. */
static bool part_try_again(struct disk_part *part, enum sense_action action, int *error)
{
	struct disk *disk = part_disk(part);
	int64_t now_ms;

	if (io_is_cancelled(part->request->io)) {
		*error = -EINTR;
		return false;
	}
	if (part->kind != PART_READ && part->command.status == SAM_CHECK_CONDITION &&
	    part->command.sense.key == SENSE_UNIT_ATTENTION && !part->command.deferred &&
	    sense_is_preempted(&part->command.sense)) {
		*error = -EBADE;
		return false;
	}
	if (request_is_stale(part->request)) { /* what came before it goes first now */
		*error = -ESTALE;
		return false;
	}
	if (part->epoch != disk->block.epoch) { /* a target that is back is a new one */
		part->epoch = disk->block.epoch;
		part->retries = 0;
		part->give_up_ms = 0;
	}
	if (action == SENSE_RETRY) {
		if (part->retries >= RETRIES_MAX)
			return false;
		disk->stats.retries++;
		if (part->retries++ < RETRIES_AT_ONCE)
			part_send(part);
		else
			part_pause(part);
		return true;
	}
	now_ms = clock_ms();
	if (part->give_up_ms == 0)
		part->give_up_ms = now_ms + disk->patience_ms;
	if (now_ms >= part->give_up_ms)
		return false;
	disk->stats.retries++;
	part_pause(part);
	return true;
}

/* What a file's user is told of an error: that a command is unknown to the target is not their
 * mistake. */
static int part_user_error(int error)
{
	return error == -EOPNOTSUPP || error == -EINVAL ? -EIO : error;
}

/* Follows the rejection of a command; true: this was the end of the matter. */
static bool part_rejected(struct disk_part *part, bool *ended)
{
	*ended = false;
	if (part->command.sense.key != SENSE_ILLEGAL_REQUEST)
		return false;
	if (part_adapt(part)) {
		part_send(part);
		return true;
	}
	*ended = part_give_up_write_same(part) || part_give_up_sync(part);
	return *ended;
}

/* Fills *error with how the part ends; false: it does not end yet. */
static bool part_judge(struct disk_part *part, int *error)
{
	struct disk *disk = part_disk(part);
	struct scsi_command *command = &part->command;
	enum sense_action action;
	bool ended;

	if (command->error) { /* the session tells of this */
		*error = command->error;
		return true;
	}
	action = sense_judge(command, error);
	if (action == SENSE_OK) {
		disk_hear_success(disk, part);
		return true;
	}
	if (command->status == SAM_RESERVATION_CONFLICT) {
		disk_note_conflict(disk, part->kind != PART_READ);
		block_raise(&disk->block, BLOCK_FENCED);
	}
	if (command->status == SAM_CHECK_CONDITION && command->deferred) {
		disk_hear_deferred(disk, part);
	} else if (command->status == SAM_CHECK_CONDITION) {
		if (command->sense.key == SENSE_UNIT_ATTENTION)
			disk_hear_attention(disk, part);
		if (part_rejected(part, &ended)) {
			*error = 0;
			return ended;
		}
	}
	if (action != SENSE_FAIL && part_try_again(part, action, error))
		return false;
	if (*error != -EINTR && *error != -ESTALE)
		part_tell(part, action == SENSE_FAIL ? "" : ": given up");
	*error = part_user_error(*error);
	return true;
}

/* What the target answered at last, good or bad; a command without an answer tells of no latency.
 */
static void part_count_latency(const struct disk_part *part)
{
	struct disk_stats *stats = &part_disk(part)->stats;
	struct histogram *histogram = part->kind == PART_READ   ? &stats->read_latency
	                              : part->kind == PART_SYNC ? &stats->flush_latency
	                                                        : &stats->write_latency;

	if (part->command.error == 0)
		histogram_add(histogram, clock_us() - part->began_us);
}

static void part_done(struct scsi_command *command)
{
	struct disk_part *part = command->data;
	struct disk_request *request = part->request;
	struct disk *disk = request->disk;
	bool complete;
	int error;

	if (command->timed_out) {
		disk->slow[part->kind] = MIN(
		    disk->slow[part->kind] + 1, part->kind == PART_SYNC ? SLOW_SYNC_MAX : SLOW_MAX);
		disk->slow_ms[part->kind] = clock_ms();
	}
	if (!part_judge(part, &error))
		return;
	part_count_latency(part);
	if (!error && part->kind == PART_SYNC && !request_is_stale(request))
		disk_cache_was_emptied(disk, part);
	complete = part_end(part, error);
	disk_run(disk);
	if (complete)
		request_complete(request); /* last: done() may free the disk */
}
