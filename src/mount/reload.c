/*
 * reload.c - the configuration is read again under a running mount: targets depart and come.
 *
 * A target that is no longer configured, or differently, departs: what is not stable is flushed,
 * its names go, it is logged out and freed; then the one that takes its place, if any, is dialed.
 * One with an open file is left as it is, and the reload says so. Whoever asked for the reload is
 * answered when all that depart are gone and those that came have answered, or are silent.
 *
 * Invariant: mount->plan->targets holds the target_plan of every target but those that depart,
 * whose departure owns it.
 */
#include <string.h>

#include "control.h"
#include "daemon.h"
#include "disk.h"
#include "flush.h"
#include "lunfs/log.h"

#define LOOK_MS   20u
#define LOGOUT_MS 2000u
/* The files of one that departs are flushed so often where somebody writes to them meanwhile. */
#define FLUSHES 5u

struct departure {
	struct daemon *daemon;
	struct target *target;
	struct target_plan *plan; /* the target's */
	struct target_plan *next; /* of plan->targets: who takes its place; NULL: nobody */
	enum {
		DEPART_FLUSHING,
		DEPART_RELEASING,
		DEPART_WRITING,
		DEPART_CLOSING,
		DEPART_CLOSED
	} state;
	GSource *look;
	unsigned flushes; /* of its files */
	unsigned writing; /* of its disks, FLUSHes that are not done */
	int error;
};

/* Of a disk without a file. */
struct last_flush {
	struct io io;
	struct departure *departure;
};

struct reload {
	struct control_client *client; /* or NULL */
	struct plan *plan;             /* until it is the mount's */
	GString *added, *removed, *kept;
	GSource *look;
};

/* ---- departing ---- */

static struct departure *find_departure(const struct daemon *daemon, const struct target *target)
{
	for (guint i = 0; i < daemon->departures->len; i++) {
		struct departure *departure = g_ptr_array_index(daemon->departures, i);

		if (departure->target == target)
			return departure;
	}
	return NULL;
}

static void departure_free(gpointer data)
{
	struct departure *departure = data;

	loop_remove(&departure->look);
	target_plan_free(departure->plan);
	g_free(departure);
}

static void departure_over(struct departure *departure)
{
	struct daemon *daemon = departure->daemon;
	struct target_plan *next = departure->next;

	layout_forget_target(daemon->layout, departure->target);
	g_hash_table_remove(daemon->told, target_name(departure->target));
	g_ptr_array_remove(daemon->targets, departure->target);
	target_free(departure->target);
	g_ptr_array_remove(daemon->departures, departure);
	if (next != NULL)
		targets_add(daemon, next);
	/* a LUN of another may have waited for its writer to go */
	for (guint i = 0; i < daemon->targets->len; i++)
		target_luns_ask(g_ptr_array_index(daemon->targets, i));
}

static bool target_is_unstable(const struct target *target)
{
	const GPtrArray *disks = target_disks(target);

	for (guint i = 0; i < disks->len; i++)
		if (disk_unstable_bytes(g_ptr_array_index(disks, i)) > 0)
			return true;
	return false;
}

static void departure_tell_lost(const struct departure *departure, int error)
{
	const GPtrArray *disks = target_disks(departure->target);
	g_autoptr(GPtrArray) one = g_ptr_array_new();

	for (guint i = 0; i < disks->len; i++)
		daemon_lose(departure->daemon, g_ptr_array_index(disks, i));

	g_ptr_array_add(one, departure->target);
	g_autofree char *unstable = flush_describe_unstable(one);
	log_error_of(target_name(departure->target), "%s%s", g_strerror(-error), unstable);
}

static void departure_log_out(struct departure *departure)
{
	departure->state = DEPART_CLOSING;
	target_close(departure->target, LOGOUT_MS);
}

static void departure_disk_flushed(struct io *io, int error)
{
	struct last_flush *flush = (struct last_flush *)io;
	struct departure *departure = flush->departure;

	g_free(flush);
	if (error != 0)
		departure_tell_lost(departure, error);
	if (--departure->writing == 0 && departure->daemon->state < LEAVING)
		departure_log_out(departure);
}

/* Somebody opened a file while it was flushed, and wrote to it until its name went. */
static void departure_write(struct departure *departure)
{
	const GPtrArray *disks = target_disks(departure->target);

	departure->state = DEPART_WRITING;
	departure->writing = disks->len;
	for (guint i = 0; i < disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(disks, i);
		struct last_flush *flush = g_new(struct last_flush, 1);

		*flush = (struct last_flush){
		    .io = {.op = IO_FLUSH, .done = departure_disk_flushed}, .departure = departure};
		block_submit(disk->top, &flush->io);
	}
}

/* Its names are gone: as soon as nobody needs it any more it is logged out, and then it is freed.
 */
static void departure_look(void *data)
{
	struct departure *departure = data;

	if (departure->state == DEPART_RELEASING && !layout_uses_target(departure->target)) {
		if (departure->error == 0 && target_is_unstable(departure->target))
			departure_write(departure);
		else
			departure_log_out(departure);
	} else if (departure->state == DEPART_CLOSED && target_is_idle(departure->target)) {
		departure_over(departure);
	}
}

static void departure_flush(struct departure *departure);

static void departure_flushed(int error, void *data)
{
	struct departure *departure = data;
	struct daemon *daemon = departure->daemon;
	struct target *target = departure->target;

	if (daemon->state != RUNNING)
		return;
	/* Somebody opened a file meanwhile, and wrote. */
	if (error == 0 && departure->flushes < FLUSHES && target_is_unstable(target)) {
		departure_flush(departure);
		return;
	}
	departure->error = error;
	if (error != 0)
		departure_tell_lost(departure, error);
	layout_remove_target(daemon->layout, target);
	departure->state = DEPART_RELEASING;
	departure->look = loop_ticker(daemon->loop, LOOK_MS, departure_look, departure);
}

static void departure_flush(struct departure *departure)
{
	const struct daemon *daemon = departure->daemon;

	departure->flushes++;
	fs_flush(daemon->fs, layout_directory(daemon->layout, departure->target), NULL,
	    departure_flushed, departure);
}

bool reload_departs(const struct daemon *daemon, const struct target *target)
{
	return find_departure(daemon, target) != NULL;
}

void reload_target_closed(struct daemon *daemon, const struct target *target)
{
	find_departure(daemon, target)->state = DEPART_CLOSED;
}

static void targets_remove(struct daemon *daemon, struct target *target, struct target_plan *plan,
    struct target_plan *next)
{
	struct departure *departure = g_new(struct departure, 1);

	*departure =
	    (struct departure){.daemon = daemon, .target = target, .plan = plan, .next = next};
	g_ptr_array_add(daemon->departures, departure);
	departure_flush(departure);
}

/* ---- reload ---- */

static void name_one(GString *names, const char *name)
{
	g_string_append_printf(names, "%s%s", names->len > 0 ? ", " : "", name);
}

static struct target_plan *find_plan(const GPtrArray *plans, const char *name, guint *index)
{
	for (guint i = 0; i < plans->len; i++) {
		struct target_plan *plan = g_ptr_array_index(plans, i);

		if (strcmp(plan->name, name) == 0) {
			*index = i;
			return plan;
		}
	}
	return NULL;
}

/* Its plan as it was, in the place of what is wanted now, which may be nothing. */
static void keep_plan(struct plan *from, struct plan *to, const struct target *target)
{
	const char *name = target_name(target);
	guint there = 0, here;

	find_plan(from->targets, name, &there);
	if (find_plan(to->targets, name, &here) != NULL) {
		target_plan_free(to->targets->pdata[here]);
		to->targets->pdata[here] = g_ptr_array_steal_index(from->targets, there);
	} else {
		g_ptr_array_add(to->targets, g_ptr_array_steal_index(from->targets, there));
	}
}

static void reload_target(struct daemon *daemon, struct reload *reload, struct target *target)
{
	struct plan *old = daemon->mount->plan;
	guint there, here;
	struct target_plan *plan = find_plan(old->targets, target_name(target), &there);
	struct target_plan *next = find_plan(reload->plan->targets, plan->name, &here);

	if (next != NULL && target_plan_equal(plan, next)) {
		keep_plan(old, reload->plan, target);
		return;
	}
	if (layout_is_open(daemon->layout, target)) {
		name_one(reload->kept, plan->name);
		keep_plan(old, reload->plan, target);
		return;
	}
	name_one(reload->removed, plan->name);
	if (next != NULL)
		name_one(reload->added, plan->name);
	targets_remove(daemon, target, g_ptr_array_steal_index(old->targets, there), next);
}

static bool has_target(const struct daemon *daemon, const char *name)
{
	for (guint i = 0; i < daemon->targets->len; i++)
		if (strcmp(target_name(g_ptr_array_index(daemon->targets, i)), name) == 0)
			return true;
	return false;
}

/* Why there cannot be another one now. Free with g_free(). */
static char *reload_describe(const struct daemon *daemon)
{
	g_autoptr(GString) names = g_string_new(NULL);

	for (guint i = 0; i < daemon->departures->len; i++) {
		const struct departure *departure = g_ptr_array_index(daemon->departures, i);

		name_one(names, target_name(departure->target));
	}
	return g_strdup_printf("the last one is still under way%s%s: try again later",
	    names->len > 0 ? "; it waits for what is to be flushed, of " : "", names->str);
}

/* Takes reload. */
static void reload_end(struct daemon *daemon, struct reload *reload, const char *error)
{
	if (error[0] != '\0')
		log_error("the configuration was not loaded again: %s", error);
	else
		log_info("the configuration was loaded again%s%s%s%s%s%s",
		    reload->removed->len > 0 ? "; removed: " : "", reload->removed->str,
		    reload->added->len > 0 ? "; added: " : "", reload->added->str,
		    reload->kept->len > 0 ? "; in use, and left as they were: " : "",
		    reload->kept->str);
	if (reload->client != NULL) {
		control_reply(reload->client, "done", "error", error, "added", reload->added->str,
		    "removed", reload->removed->str, "kept", reload->kept->str, NULL);
		control_client_unref(reload->client);
	}
	if (daemon->reload == reload)
		daemon->reload = NULL;
	loop_remove(&reload->look);
	if (reload->plan != NULL)
		plan_free(reload->plan);
	g_string_free(reload->added, TRUE);
	g_string_free(reload->removed, TRUE);
	g_string_free(reload->kept, TRUE);
	g_free(reload);
}

/* What is mounted on a file is the root of its tree, which cannot be made anew. */
static bool reload_would_take_the_root(const struct daemon *daemon, const struct plan *plan)
{
	return daemon->mount->root_is_file &&
	       !target_plan_equal(g_ptr_array_index(daemon->mount->plan->targets, 0),
	           g_ptr_array_index(plan->targets, 0));
}

/* The one that is under way, and the next, if a signal asked for it meanwhile. */
static void reload_over(struct daemon *daemon, const char *error)
{
	reload_end(daemon, daemon->reload, error);
	if (daemon->reload_again && daemon->state == RUNNING) {
		daemon->reload_again = false;
		targets_reload(daemon, NULL);
	}
}

static void reload_look(void *data)
{
	struct daemon *daemon = data;

	if (daemon->departures->len == 0 && targets_have_answered(daemon))
		reload_over(daemon, "");
}

static void reload_apply(struct daemon *daemon, struct reload *reload)
{
	struct plan *old = daemon->mount->plan;
	g_autoptr(GPtrArray) present = g_ptr_array_new();

	for (guint i = 0; i < daemon->targets->len; i++)
		g_ptr_array_add(present, g_ptr_array_index(daemon->targets, i));
	for (guint i = 0; i < present->len; i++)
		if (find_departure(daemon, g_ptr_array_index(present, i)) == NULL)
			reload_target(daemon, reload, g_ptr_array_index(present, i));
	/* those of the mount as a whole are in force as they were */
	struct options *options = reload->plan->options;
	reload->plan->options = old->options;
	old->options = options;
	daemon->mount->plan = g_steal_pointer(&reload->plan);
	plan_free(old);
	mount_protect_secrets(daemon->mount->plan);
	const GPtrArray *wanted = daemon->mount->plan->targets;
	for (guint i = 0; i < wanted->len; i++) {
		const struct target_plan *plan = g_ptr_array_index(wanted, i);

		if (has_target(daemon, plan->name))
			continue;
		name_one(reload->added, plan->name);
		targets_add(daemon, plan);
	}
	daemon->reload = reload;
	reload->look = loop_ticker(daemon->loop, LOOK_MS, reload_look, daemon);
}

static void reload_discovered(GPtrArray *targets, const char *error, void *data)
{
	struct daemon *daemon = data;
	struct reload *reload = daemon->reload;

	if (reload == NULL)
		return;
	if (targets == NULL) {
		reload_over(daemon, error);
		return;
	}
	targets_take_reported(reload->plan, targets);
	reload_apply(daemon, reload);
}

void targets_reload(struct daemon *daemon, struct control_client *client)
{
	struct reload *reload;
	g_autoptr(GError) error = NULL;

	if (daemon->reload != NULL && client == NULL) {
		daemon->reload_again = true; /* a signal: nobody would try again */
		return;
	}
	reload = g_new(struct reload, 1);
	*reload = (struct reload){
	    .client = client != NULL ? control_client_ref(client) : NULL,
	    .added = g_string_new(NULL),
	    .removed = g_string_new(NULL),
	    .kept = g_string_new(NULL),
	};
	if (daemon->reload != NULL) {
		g_autofree char *text = reload_describe(daemon);

		reload_end(daemon, reload, text);
		return;
	}
	reload->plan = plan_again(daemon->mount->plan, &error);
	if (reload->plan == NULL) {
		reload_end(daemon, reload, error->message);
	} else if (reload_would_take_the_root(daemon, reload->plan)) {
		reload_end(daemon, reload,
		    "what is mounted on a file stays as it is: unmount it, and mount it again");
	} else if (reload->plan->portal != NULL) {
		daemon->reload = reload;
		targets_discover(daemon, reload->plan->portal, reload_discovered);
	} else {
		reload_apply(daemon, reload);
	}
}

/* ---- life ---- */

void reload_init(struct daemon *daemon)
{
	daemon->departures = g_ptr_array_new_with_free_func(departure_free);
}

void reload_stop(struct daemon *daemon)
{
	for (guint i = 0; i < daemon->departures->len; i++)
		loop_remove(&((struct departure *)g_ptr_array_index(daemon->departures, i))->look);
	if (daemon->reload == NULL)
		return;
	/* it may be asking the portal, with what the plan says */
	g_clear_pointer(&daemon->discovery, discovery_free);
	reload_end(daemon, daemon->reload, "the mount ends");
}

void reload_free(struct daemon *daemon)
{
	g_ptr_array_unref(daemon->departures);
}
