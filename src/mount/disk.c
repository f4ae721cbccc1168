/*
 * disk.c - a LUN behind a file: its stack of blocks, and the proof after each loss that it is the
 * same LUN.
 *
 *   file -> cache -> align -> retain -> disk (SCSI) -> nexus -> session
 *
 *             session lost            session is back
 *   DISK_OPEN -----------> DISK_AWAY -----------------> DISK_ASKED
 *      ^                       ^                          |   ^
 *      |                       +------ session lost ------+   | ask again, after a pause
 *      +------------ the same LUN ------------------------+   |
 *                                                         v   |
 *                                  absent, or another: DISK_ANSWERED
 *
 * Where old commands may be alive, behind another portal group or in a target that does not end
 * them with their session, they are ended first, by LOGICAL UNIT RESET (SAFETY.md 11). The nexus is
 * open in DISK_OPEN alone. A LUN is also asked again while it is open, when it says that something
 * about it has changed; and where another may have got its number (the target has other LUNs now,
 * or does not list it), it is DISK_ASKED first.
 */
#include "disk.h"

#include <string.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "writer.h"

/* How long a LUN that is not there yet, or is another, is left before it is asked again. */
#define ABSENT_MIN_MS 100u
#define ABSENT_MAX_MS 2000u
/* One that does not answer at all costs everybody the session: it is asked more and more rarely. */
#define HUNG_MIN_MS 2000u
#define HUNG_MAX_MS 60000u
/* It is asked so often in a row while each answer comes with the news that there are other LUNs. */
#define DOUBTS 5u
/* The cache's pages are of this size, and its unit is the logical block. */
#define CACHED_BLOCK_MAX 4096u

static void disk_ask(struct disk *disk);

static void disk_set_trouble(struct disk *disk, const char *trouble)
{
	if (trouble != NULL && g_strcmp0(disk->trouble, trouble) != 0 &&
	    log_limit_passes(&disk->log, disk->title))
		log_warning_of(disk->title, "%s", trouble);
	char *copy = g_strdup(trouble);
	g_free(disk->trouble);
	disk->trouble = copy;
}

void disk_give_up(struct disk *disk, const char *why)
{
	disk_set_trouble(disk, why);
	disk_gone(disk->scsi);
	nexus_fail(disk->nexus);
}

static void disk_expired(void *data)
{
	struct disk *disk = data;

	disk_set_trouble(disk,
	    "the target is away for longer than replacement_timeout: I/O fails until it is back");
	disk_gone(disk->scsi);
}

/* ---- asking ---- */

static void disk_ask_later(void *data)
{
	struct disk *disk = data;

	loop_remove(&disk->recheck);
	if (probe_is_busy(disk->probe))
		disk->ask_again = true;
	else
		disk_ask(disk);
}

static void disk_ask_soon(struct disk *disk)
{
	loop_remove(&disk->recheck);
	disk->absent_ms = CLAMP(2 * disk->absent_ms, ABSENT_MIN_MS, ABSENT_MAX_MS);
	disk->recheck =
	    loop_timer(target_loop(disk->target), disk->absent_ms, disk_ask_later, disk);
}

static void disk_answered(struct disk *disk)
{
	disk->state = DISK_ANSWERED;
	disk_ask_soon(disk);
	target_disk_answered(disk->target);
}

static void disk_same(struct disk *disk)
{
	bool was_open = disk->state == DISK_OPEN;

	disk->absent_ms = disk->hung_ms = disk->doubts = 0;
	disk->state = DISK_OPEN;
	disk->lost = false;
	if (disk->trouble != NULL && log_limit_passes(&disk->log, disk->title))
		log_info_of(disk->title, "it is back");
	disk_set_trouble(disk, NULL);
	if (was_open)
		return;
	nexus_open(disk->nexus);
	disk_back(disk->scsi);
	target_disk_answered(disk->target);
}

/* The end of the last byte that is still to be written. */
static uint64_t disk_reach(const struct disk *disk)
{
	uint64_t kept = retain_reach(disk->retain);
	uint64_t dirty = disk->cache != NULL ? cache_reach(disk->cache) : 0;

	return MAX(kept, dirty);
}

static void disk_judge(struct disk *disk, const struct lun_info *info)
{
	char text[300];

	switch (disk_verify(disk->scsi, info, disk_reach(disk), text, sizeof text)) {
	case DISK_SAME:
		disk_same(disk);
		return;
	case DISK_ABSENT:
		disk_set_trouble(disk, text);
		if (disk->state == DISK_OPEN) /* commands tell by themselves */
			disk_ask_soon(disk);
		else
			disk_answered(disk);
		return;
	case DISK_OTHER:
		disk_give_up(disk, text);
		disk_answered(disk);
		return;
	}
}

void disk_hear(struct disk *disk, const struct probe_news *news)
{
	if (news->preempted) {
		nexus_recall(disk->nexus);
		disk_fenced(disk->scsi);
	}
	if (news->reset && !disk->lost)
		disk_lost(disk->scsi);
	if (news->medium)
		disk_changed(disk->scsi);
	if (news->luns) {
		disk_doubt(disk);
		return;
	}
	if (!news->changed || disk->state != DISK_OPEN)
		return;
	if (probe_is_busy(disk->probe))
		disk->ask_again = true;
	else
		disk_ask_soon(disk);
}

/* What the answers to our questions told must not be lost with them. */
static void disk_probe_heard(const struct probe_news *news, void *data)
{
	struct disk *disk = data;

	disk_hear(disk, news);
	if (news->luns)
		target_luns_changed(disk->target);
}

static void disk_probed(const struct lun_info *luns, unsigned count, const char *error, void *data)
{
	struct disk *disk = data;
	bool again = disk->ask_again;

	disk->ask_again = false;
	if (disk->closed)
		return;
	if (disk->stale_probe) {
		if (probe_timed_out(disk->probe))
			disk->hung_ms = CLAMP(2 * disk->hung_ms, HUNG_MIN_MS, HUNG_MAX_MS);
		return;
	}
	if (again && disk->state == DISK_ASKED && disk->doubts++ < DOUBTS) {
		disk_ask(disk); /* the answers may be of before */
		return;
	}
	if (error == NULL && count == 1) {
		disk_judge(disk, &luns[0]);
	} else {
		disk_set_trouble(disk, error);
		if (disk->state == DISK_OPEN)
			disk_ask_soon(disk);
		else
			disk_answered(disk);
	}
	if (again && disk->state == DISK_OPEN)
		disk_ask_soon(disk);
}

static void disk_was_reset(bool ok, void *data)
{
	struct disk *disk = data;

	if (disk->closed)
		return;
	if (!ok && disk->reset_due) {
		disk_give_up(disk,
		    "the target moved to another portal group and refuses LOGICAL UNIT RESET: "
		    "writes of before may still be alive there");
		disk_answered(disk);
		return;
	}
	if (log_limit_passes(&disk->log, disk->title))
		log_info_of(disk->title,
		    "%s LOGICAL UNIT RESET, to end what was under way in the lost session",
		    ok ? "sent" : "the target refuses");
	disk->reset_due = disk->ghosts = false;
	disk_ask(disk);
}

static void disk_ask(struct disk *disk)
{
	if (disk->closed)
		return;
	loop_remove(&disk->recheck);
	if (disk->state != DISK_OPEN)
		disk->state = DISK_ASKED;
	if (disk->reset_due || disk->ghosts) {
		session_reset_lun(
		    target_session(disk->target), disk->info.lun, disk_was_reset, disk);
		return;
	}
	probe_free(disk->probe);
	disk->stale_probe = false;
	disk->probe = probe_start(session_port(target_session(disk->target)),
	    target_loop(disk->target), disk->info.lun, disk_probed, disk);
	probe_on_news(disk->probe, disk_probe_heard);
}

void disk_recheck(struct disk *disk)
{
	if (disk->state != DISK_OPEN)
		return; /* it is asked anyhow */
	if (probe_is_busy(disk->probe))
		disk->ask_again = true;
	else
		disk_ask(disk);
}

void disk_doubt(struct disk *disk)
{
	bool busy = probe_is_busy(disk->probe);

	if (disk->closed)
		return;
	disk->ask_again |= busy;
	if (disk->state != DISK_OPEN)
		return; /* it is asked anyhow */
	disk->state = DISK_ASKED;
	nexus_hold(disk->nexus);
	if (!busy)
		disk_ask(disk);
}

bool disk_is_asked(const struct disk *disk)
{
	return !disk->lost && probe_is_busy(disk->probe);
}

static void disk_rest(void *data)
{
	struct disk *disk = data;

	loop_remove(&disk->rest);
	if (disk->state != DISK_OPEN)
		return; /* it is asked anyhow */
	disk_give_up(disk,
	    "it says again and again that it lost what was written: I/O fails until it has been "
	    "asked who it is");
	disk_answered(disk);
}

/* Something about it has changed: what, is asked, not guessed. */
static void disk_attention(enum disk_attention what, void *data)
{
	struct disk *disk = data;

	switch (what) {
	case DISK_LUNS:
		disk_doubt(disk);
		target_luns_changed(disk->target);
		break;
	case DISK_CHANGED:
		disk_recheck(disk);
		break;
	case DISK_RESTLESS: /* what waits is not to end inside an answer */
		loop_remove(&disk->rest);
		disk->rest = loop_timer(target_loop(disk->target), 0, disk_rest, disk);
		break;
	}
}

void disk_miss(struct disk *disk)
{
	disk_set_trouble(disk,
	    "the target does not list it any more: what is not on stable storage "
	    "yet waits for it to come back");
	disk_doubt(disk);
}

void disk_found(struct disk *disk)
{
	disk->missed_ms = 0;
	disk_recheck(disk);
}

/* ---- the session ---- */

void disk_session_lost(struct disk *disk)
{
	loop_remove(&disk->recheck);
	disk->state = DISK_AWAY;
	disk->stale_probe = disk->lost = true;
	/* Of a LUN that other hosts use, too, their commands would end with ours. */
	disk->ghosts |= !disk->shared && lun_outlives_sessions(&disk->info) &&
	                session_has_writes(target_session(disk->target), disk->info.lun);
	probe_session_lost(disk->probe);
	nexus_lost(disk->nexus);
	disk_lost(disk->scsi);
}

void disk_session_up(struct disk *disk)
{
	disk->reset_due |= session_changed_group(target_session(disk->target));
	if (disk->hung_ms == 0) {
		disk_ask(disk);
		return;
	}
	disk->state = DISK_ANSWERED; /* as far as the others are concerned */
	disk->recheck = loop_timer(target_loop(disk->target), disk->hung_ms, disk_ask_later, disk);
	target_disk_answered(disk->target);
}

void disk_close(struct disk *disk)
{
	disk->closed = true;
	loop_remove(&disk->recheck);
	loop_remove(&disk->rest);
	session_forget_reset(target_session(disk->target), disk);
	disk_give_up(disk, NULL);
}

/* ---- life ---- */

enum cache_mode disk_cache_mode(const struct options *options, const struct lun_info *info)
{
	return info->block_size > CACHED_BLOCK_MAX ? CACHE_NONE : options->cache;
}

/* The LUN's own layers are complete but for this one. */
static void disk_add_cache(struct disk *disk, const struct target_environment *environment)
{
	const struct options *options = target_options(disk->target);
	enum cache_mode mode = disk_cache_mode(options, &disk->info);
	const struct cache_options cache_options = {
	    .writethrough = mode == CACHE_WRITETHROUGH,
	    .dirty_expire_ms = options->dirty_expire,
	    .readahead = options->readahead == OPTIONS_AUTO ? SIZE_MAX : (size_t)options->readahead,
	};

	if (mode == CACHE_NONE)
		return;
	disk->cache = cache_new(
	    disk->top, environment->loop, environment->cache_memory, &cache_options, disk->title);
	disk->top = disk->cache;
}

static char *disk_make_name(const struct lun_info *info)
{
	return g_strdup_printf(
	    "lun%u.%s", (unsigned)info->lun, info->type == SCSI_TYPE_CD ? "iso" : "img");
}

char *disk_make_title(const struct target *target, const struct target_environment *environment,
    const struct lun_info *info)
{
	g_autofree char *name = disk_make_name(info);

	return environment->several ? g_strdup_printf("%s/%s", target_name(target), name)
	                            : g_steal_pointer(&name);
}

struct disk *disk_make(struct target *target, const struct target_environment *environment,
    const struct lun_info *info, struct writer *writer)
{
	const struct options *options = target_options(target);
	struct loop *loop = environment->loop;
	struct disk *disk = g_new0(struct disk, 1);

	disk->target = target;
	disk->writer = writer;
	disk->info = *info;
	disk->name = disk_make_name(info);
	disk->title = disk_make_title(target, environment, info);
	disk->read_only = options->read_only || info->write_protected;
	disk->shared = options->shared;
	disk->nexus = nexus_new(loop, session_port(target_session(target)),
	    options->replacement_timeout, disk_expired, disk);
	disk->scsi = disk_new(loop, nexus_port(disk->nexus), info, disk->title, disk->read_only);
	disk_on_attention(disk->scsi, disk_attention, disk);
	disk->retain =
	    retain_new(disk->scsi, loop, environment->memory, disk->title, !options->shared);
	disk->top = align_new(disk->retain, loop, environment->pool);
	disk_add_cache(disk, environment);
	return disk;
}

bool disk_is_idle(const struct disk *disk)
{
	return (disk->cache == NULL || cache_is_idle(disk->cache)) &&
	       retain_is_idle(disk->retain) && !probe_is_busy(disk->probe);
}

bool disk_is_same_lun(const struct disk *a, const struct disk *b)
{
	const struct lun_info *one = &a->info, *other = &b->info;

	/* Not the capacity: it may change, and one of them know of it later. */
	return !a->shared && !b->shared && !lun_identity_is_weak(one) &&
	       strcmp(one->wwid, other->wwid) == 0 && strcmp(one->serial, other->serial) == 0 &&
	       one->type == other->type && one->block_size == other->block_size;
}

char *disk_full_name(const struct disk *disk)
{
	return g_strdup_printf("%s of %s", disk->name, target_name(disk->target));
}

void disk_destroy(gpointer data)
{
	struct disk *disk = data;

	loop_remove(&disk->recheck);
	loop_remove(&disk->rest);
	block_free(disk->top);
	nexus_free(disk->nexus);
	probe_free(disk->probe);
	writer_free(disk->writer);
	if (disk->links != NULL)
		g_ptr_array_unref(disk->links);
	g_free(disk->title);
	g_free(disk->trouble);
	g_free(disk->name);
	g_free(disk);
}

/* ---- what is not stable ---- */

#define RANGES_TOLD 8u

struct bytes {
	uint64_t start, end;
};

static void collect_range(uint64_t start, uint64_t end, void *data)
{
	g_array_append_vals(data, &(struct bytes){start, end}, 1);
}

static gint compare_starts(gconstpointer a, gconstpointer b)
{
	const struct bytes *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

/* What is dirty or kept, or both (written again since), in order, adjoining ranges as one. */
static GArray *disk_unstable(const struct disk *disk)
{
	GArray *ranges = g_array_new(FALSE, FALSE, sizeof(struct bytes));
	guint count = 0;

	retain_each(disk->retain, collect_range, ranges);
	if (disk->cache != NULL)
		cache_each_dirty(disk->cache, collect_range, ranges);
	g_array_sort(ranges, compare_starts);
	for (guint i = 0; i < ranges->len; i++) {
		const struct bytes next = g_array_index(ranges, struct bytes, i);
		struct bytes *last =
		    count > 0 ? &g_array_index(ranges, struct bytes, count - 1) : NULL;

		if (last != NULL && next.start <= last->end)
			last->end = MAX(last->end, next.end);
		else
			g_array_index(ranges, struct bytes, count++) = next;
	}
	g_array_set_size(ranges, count);
	return ranges;
}

static uint64_t count_bytes(const GArray *ranges)
{
	uint64_t bytes = 0;

	for (guint i = 0; i < ranges->len; i++) {
		const struct bytes *range = &g_array_index(ranges, struct bytes, i);

		bytes += range->end - range->start;
	}
	return bytes;
}

uint64_t disk_unstable_bytes(const struct disk *disk)
{
	uint64_t kept = retain_stats(disk->retain)->kept;
	uint64_t dirty = disk->cache != NULL ? cache_stats(disk->cache)->dirty : 0;

	if (kept == 0 || dirty == 0)
		return kept + dirty;
	g_autoptr(GArray) ranges = disk_unstable(disk);
	return count_bytes(ranges);
}

uint64_t disk_unwritten_bytes(const struct disk *disk)
{
	const struct retain_stats *retain = retain_stats(disk->retain);

	return (disk->cache != NULL ? cache_stats(disk->cache)->dirty : 0) +
	       (retain->resending ? retain->kept : 0);
}

char *disk_describe_unstable(const struct disk *disk)
{
	g_autoptr(GArray) ranges = disk_unstable(disk);
	g_autoptr(GString) text = g_string_new(NULL);

	if (ranges->len == 0)
		return NULL;
	for (guint i = 0; i < MIN(ranges->len, RANGES_TOLD); i++) {
		const struct bytes *range = &g_array_index(ranges, struct bytes, i);

		g_string_append_printf(text, "%s%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT,
		    i > 0 ? ", " : "", range->start, range->end - 1);
	}
	if (ranges->len > RANGES_TOLD)
		g_string_append_printf(text, " and %u ranges more", ranges->len - RANGES_TOLD);
	return g_strdup_printf("%s: bytes %s (%" G_GUINT64_FORMAT " in all)", disk->title,
	    text->str, count_bytes(ranges));
}
