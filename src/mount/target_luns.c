/*
 * target_luns.c - which LUNs a target has, and that they come and go.
 *
 *   asked (at first, after a loss, when it says so, now and then) --> list --> new ones are probed
 * --> settled
 *                                                                      |
 *                                                                      +--> a disk that is not in
 * it goes
 *
 * A LUN that is not listed any more but has something that is not yet on stable storage is given
 * replacement_timeout to come back. A LUN that could not be shown, because it has a fault or
 * somebody else writes to it, is probed again each time.
 */
#include <string.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "target.h"
#include "writer.h"

/* How often the list is asked for without a reason, and while a LUN is missed. */
#define POLL_MS   30000u
#define MISSED_MS 1000u
/* When it says while it is asked that the answer has changed: some say so for ever. */
#define AGAIN_MS 50u
/* A LUN that nobody needs may be late so much after a restart, where replacement_timeout is
 * infinite. */
#define LATE_MS 120000
/* A new LUN that does not answer costs all the others the session: it is left alone for so long. */
#define HUNG_MS 60000
/* A disk that went is looked at so often until nothing of it is under way. */
#define SWEEP_MS 20u

static bool target_is_up(const struct target *target)
{
	return target->up && (target->state == TARGET_TRYING || target->state == TARGET_KNOWN);
}

/* ---- LUNs and disks, by number ---- */

static gint compare_infos(gconstpointer a, gconstpointer b)
{
	const struct lun_info *one = a, *other = b;

	return (int)one->lun - (int)other->lun;
}

static gint compare_numbers(gconstpointer a, gconstpointer b)
{
	const uint16_t *one = a, *other = b;

	return (int)*one - (int)*other;
}

/* at: of target->luns; may be NULL. */
static bool target_knows_lun(const struct target *target, uint16_t lun, guint *at)
{
	const struct lun_info wanted = {.lun = lun};

	return g_array_binary_search(target->luns, &wanted, compare_infos, at);
}

/* luns: ascending. */
static bool lists(GArray *luns, uint16_t lun)
{
	return g_array_binary_search(luns, &lun, compare_numbers, NULL);
}

static struct disk *target_find_disk(const struct target *target, uint16_t lun)
{
	for (guint i = 0; i < target->disks->len; i++) {
		struct disk *disk = g_ptr_array_index(target->disks, i);

		if (disk->info.lun == lun)
			return disk;
	}
	return NULL;
}

static bool target_wants_lun(const struct target *target, uint16_t lun)
{
	GArray *luns = target->plan->luns;

	return luns == NULL || lists(luns, lun);
}

static void target_note_luns(struct target *target, const struct lun_info *luns, unsigned count)
{
	/* apart, as what is searched has to stay ascending */
	g_autoptr(GArray) others = g_array_new(FALSE, FALSE, sizeof(struct lun_info));
	guint at;

	for (unsigned i = 0; i < count; i++)
		if (target_knows_lun(target, luns[i].lun, &at))
			g_array_index(target->luns, struct lun_info, at) = luns[i];
		else
			g_array_append_val(others, luns[i]);
	g_array_append_vals(target->luns, others->data, others->len);
	g_array_sort(target->luns, compare_infos);
}

/* ---- showing ---- */

/*
 * Another section names the same target, and the LUN is a file already. Where its designator proves
 * little they cannot be one file (SAFETY.md 22), and two caches over one LUN would undo each
 * other's writes.
 */
static const struct disk *target_find_double(
    const struct target *target, const struct lun_info *info)
{
	const GPtrArray *targets = target->environment->targets;

	for (guint i = 0; lun_identity_is_weak(info) && i < targets->len; i++) {
		const struct target *other = g_ptr_array_index(targets, i);

		if (other != target && strcmp(other->plan->iqn, target->plan->iqn) == 0 &&
		    target_find_disk(other, info->lun) != NULL)
			return target_find_disk(other, info->lun);
	}
	return NULL;
}

/* Takes the text. */
static void target_cannot_show(struct target *target, const struct lun_info *info, char *trouble)
{
	g_hash_table_insert(target->troubles, GUINT_TO_POINTER((guint)info->lun), trouble);
}

static void target_show(struct target *target, const struct lun_info *info)
{
	const struct target_environment *environment = target->environment;
	const struct options *options = target_options(target);
	bool writes = !options->read_only && !info->write_protected;
	struct writer *writer = NULL;
	g_autofree char *title = NULL, *who = NULL;

	if (environment->mountpoint == NULL || !scsi_type_is_block(info->type) ||
	    target_find_disk(target, info->lun) != NULL)
		return;
	if (info->fault[0] != '\0') {
		target_cannot_show(target, info, g_strdup(info->fault));
		return;
	}
	const struct disk *shown = target_find_double(target, info);
	if (shown != NULL) {
		target_cannot_show(target, info,
		    g_strdup_printf(
		        "it is %s already, and without a designator of its own it cannot be "
		        "shown twice",
		        shown->title));
		return;
	}
	title = disk_make_title(target, environment, info);
	if (writes)
		writer = writer_claim(
		    environment->writers, info, target->plan->iqn, title, options->shared, &who);
	if (writes && writer == NULL) {
		target_cannot_show(target, info,
		    g_strdup_printf(
		        "in use for writing by %s: unmount it there, or mount with ro, or "
		        "with shared where a cluster file system is on it",
		        who));
		return;
	}
	g_hash_table_remove(target->troubles, GUINT_TO_POINTER((guint)info->lun));
	struct disk *disk = disk_make(target, environment, info, writer);
	g_ptr_array_add(target->disks, disk);
	target_tell(target, TARGET_ADDED, disk);
}

/* ---- going ---- */

static void target_lun_forget(struct target *target, uint16_t lun)
{
	guint at;

	if (target_knows_lun(target, lun, &at))
		g_array_remove_index(target->luns, at);
	g_hash_table_remove(target->troubles, GUINT_TO_POINTER((guint)lun));
}

static void target_lun_goes(struct target *target, struct disk *disk)
{
	g_autofree char *unstable = disk_describe_unstable(disk);

	if (unstable != NULL)
		log_error_of(disk->title,
		    "the target took the LUN away, and with it what was not on stable storage: %s",
		    unstable);
	else
		log_info_of(disk->title, "the target took the LUN away");
	target_lun_forget(target, disk->info.lun);
	g_ptr_array_remove(target->disks, disk);
	g_ptr_array_add(target->going, disk);
	disk_close(disk);
	target_tell(target, TARGET_GOING, disk);
}

/* Does it still have to wait, not being listed? */
static bool target_may_return(const struct target *target, const struct disk *disk)
{
	unsigned patience = target_options(target)->replacement_timeout;
	bool unstable = disk_unstable_bytes(disk) > 0;

	/* It was there in this session, and nothing would be lost. After a restart of the target it
	 * may only be late. */
	if (target->environment->one_file)
		return true;
	if (!unstable && !disk->lost)
		return false;
	if (patience == OPTIONS_INFINITY)
		return unstable || nexus_waiting(disk->nexus) > 0 ||
		       clock_ms() - disk->missed_ms < LATE_MS;
	return clock_ms() - disk->missed_ms < patience;
}

/* It is not listed. True: it is given time. */
static bool target_misses(struct target *target, struct disk *disk)
{
	if (disk->missed_ms == 0)
		disk->missed_ms = clock_ms();
	if (target_may_return(target, disk)) {
		disk_miss(disk);
		return true;
	}
	target_lun_goes(target, disk);
	return false;
}

static void target_sweep(void *data)
{
	struct target *target = data;
	bool left = false;

	for (guint i = 0; i < target->going->len; i++) {
		struct disk *disk = g_ptr_array_index(target->going, i);

		if (disk->dropped && disk_is_idle(disk)) {
			g_ptr_array_remove_index(target->going, i--);
			disk_destroy(disk);
		} else {
			left |= disk->dropped;
		}
	}
	loop_remove(&target->sweep);
	if (left)
		target->sweep =
		    loop_timer(target->environment->loop, SWEEP_MS, target_sweep, target);
}

void target_drop_disk(struct target *target, struct disk *disk)
{
	disk->dropped = true;
	target_sweep(target);
}

bool target_is_dropping(const struct target *target)
{
	return target->going->len > 0;
}

/* ---- answers ---- */

static void target_poll(void *data)
{
	target_luns_ask(data);
}

static void target_answered(struct target *target, bool missing)
{
	unsigned pause_ms = target->ask_again ? AGAIN_MS : missing ? MISSED_MS : POLL_MS;

	loop_remove(&target->poll);
	target->poll = loop_timer(target->environment->loop, pause_ms, target_poll, target);
	target_disk_answered(target); /* one that was waited for may have gone */
	target_settle(target);
}

/* What the answers to our questions told must not be lost with them. */
static void target_hear(const struct probe_news *news, void *data)
{
	struct target *target = data;
	struct disk *disk = target_find_disk(target, news->lun);

	target->ask_again |= news->luns;
	target->changed |= news->luns;
	if (disk != NULL)
		disk_hear(disk, news);
}

static void target_probed(
    const struct lun_info *luns, unsigned count, const char *error, void *data)
{
	struct target *target = data;
	bool first = target->state == TARGET_TRYING;

	if (!target_is_up(target)) {
		if (first && error != NULL) {
			target_set_trouble(target, error);
			target_settle(target);
		}
		if (!first && probe_timed_out(target->probe))
			target->hung_until_ms = clock_ms() + HUNG_MS;
		return; /* it is asked again when the session stands */
	}
	target_note_luns(target, luns, count);
	if (first) {
		target->state = TARGET_KNOWN;
		target->verified = true;
		target->pause_ms = 0;
		session_verified(target->session);
	}
	for (unsigned i = 0; i < count; i++)
		target_show(target, &luns[i]);
	if (target->luns->len > 0)
		target_set_trouble(target, NULL);
	else if (error != NULL)
		target_set_trouble(target, error);
	target_answered(target, false);
}

/* Those that have to be asked what they are: new ones, and those that were no file last time. */
static GArray *target_sort_out(struct target *target, GArray *present, bool *missing)
{
	GArray *unknown = g_array_new(FALSE, FALSE, sizeof(uint16_t));

	*missing = false;
	for (guint i = target->disks->len; i > 0; i--) {
		struct disk *disk = g_ptr_array_index(target->disks, i - 1);

		if (!lists(present, disk->info.lun))
			*missing |= target_misses(target, disk);
		else if (disk->missed_ms != 0)
			disk_found(disk);
	}
	for (guint i = target->luns->len; i > 0; i--) {
		uint16_t lun = g_array_index(target->luns, struct lun_info, i - 1).lun;

		if (!lists(present, lun) && target_find_disk(target, lun) == NULL)
			target_lun_forget(target, lun);
	}
	for (guint i = 0; i < present->len; i++) {
		uint16_t lun = g_array_index(present, uint16_t, i);

		if (!target_knows_lun(target, lun, NULL) || target_lun_trouble(target, lun) != NULL)
			g_array_append_val(unknown, lun);
	}
	return unknown;
}

static void target_listed(
    const struct lun_info *luns, unsigned count, const char *error, void *data)
{
	struct target *target = data;
	g_autoptr(GArray) present = g_array_new(FALSE, FALSE, sizeof(uint16_t));
	bool missing;

	if (!target_is_up(target))
		return;
	if (error != NULL) { /* then what is known stays */
		target_answered(target, false);
		return;
	}
	for (unsigned i = 0; i < count; i++)
		if (target_wants_lun(target, luns[i].lun))
			g_array_append_val(present, luns[i].lun);
	g_autoptr(GArray) unknown = target_sort_out(target, present, &missing);
	if (unknown->len == 0 || clock_ms() < target->hung_until_ms) {
		target_answered(target, missing);
		return;
	}
	probe_free(target->probe);
	target->probe = probe_some(session_port(target->session), target->environment->loop,
	    (const uint16_t *)(void *)unknown->data, unknown->len, target_probed, target);
	probe_on_news(target->probe, target_hear);
}

/* ---- asking ---- */

static bool target_is_asking(const struct target *target)
{
	return probe_is_busy(target->probe) || probe_is_busy(target->list);
}

static struct probe *target_first_probe(struct target *target)
{
	struct scsi_port *port = session_port(target->session);
	struct loop *loop = target->environment->loop;
	const GArray *luns = target->plan->luns;

	if (luns == NULL)
		return probe_start(port, loop, -1, target_probed, target);
	if (luns->len == 1)
		return probe_start(
		    port, loop, g_array_index(luns, uint16_t, 0), target_probed, target);
	return probe_some(
	    port, loop, (const uint16_t *)(void *)luns->data, luns->len, target_probed, target);
}

void target_luns_ask(struct target *target)
{
	loop_remove(&target->poll);
	if (!target_is_up(target))
		return;
	target->ask_again = target_is_asking(target);
	if (target->ask_again)
		return;
	if (target->state == TARGET_TRYING) {
		probe_free(target->probe);
		target->probe = target_first_probe(target);
		return;
	}
	/* Each LUN would have told so by itself, but may not any more once it was listed. */
	for (guint i = 0; target->changed && i < target->disks->len; i++)
		disk_doubt(g_ptr_array_index(target->disks, i));
	target->changed = false;
	probe_free(target->list);
	target->list = probe_list(
	    session_port(target->session), target->environment->loop, target_listed, target);
	probe_on_news(target->list, target_hear);
}

void target_luns_changed(struct target *target)
{
	target->changed = true;
	target_luns_ask(target);
}

void target_rescan(struct target *target)
{
	if (target->state == TARGET_FAILED && target->plan->credentials != NULL) {
		target->pause_ms = 0;
		target_try_again(target);
		return;
	}
	target->hung_until_ms = 0;
	for (guint i = 0; i < target->disks->len; i++)
		disk_recheck(g_ptr_array_index(target->disks, i));
	target_luns_ask(target);
}

bool target_is_rescanning(const struct target *target)
{
	if (!target_is_up(target))
		return false;
	for (guint i = 0; i < target->disks->len; i++)
		if (disk_is_asked(g_ptr_array_index(target->disks, i)))
			return true;
	return target->ask_again || target_is_asking(target);
}

/* ---- life ---- */

void target_luns_session_lost(struct target *target)
{
	bool waits = target->probe != NULL && target->state == TARGET_TRYING &&
	             !probe_is_busy(target->probe);

	loop_remove(&target->poll);
	probe_session_lost(target->probe);
	probe_session_lost(target->list);
	target->ask_again = false;
	if (waits) {
		target_set_trouble(target, session_last_error(target->session));
		target_settle(target);
	}
}

void target_luns_init(struct target *target)
{
	target->luns = g_array_new(FALSE, FALSE, sizeof(struct lun_info));
	target->troubles = g_hash_table_new_full(NULL, NULL, NULL, g_free);
}

void target_luns_stop(struct target *target)
{
	loop_remove(&target->poll);
	loop_remove(&target->sweep);
}

void target_luns_free(struct target *target)
{
	probe_free(target->probe);
	probe_free(target->list);
	g_array_unref(target->luns);
	g_hash_table_unref(target->troubles);
}

const struct lun_info *target_luns(const struct target *target, unsigned *count)
{
	*count = target->luns->len;
	return (const struct lun_info *)(void *)target->luns->data;
}

const char *target_lun_trouble(const struct target *target, uint16_t lun)
{
	return g_hash_table_lookup(target->troubles, GUINT_TO_POINTER((guint)lun));
}
