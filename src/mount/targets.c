/*
 * targets.c - which targets a mount has, from the first look for them until the tree is ready, and
 * what is told of them. reload.c adds and removes some later.
 *
 * The tree is ready when every target has answered; or, where there are several, when those that
 * have not give no sign of life: they have an empty directory then, and their files appear when
 * they answer.
 */
#include <string.h>

#include "control.h"
#include "daemon.h"
#include "flush.h"
#include "lunfs/log.h"

/* Who has not got on for so long while the others wait for it is not waited for. */
#define QUIET_MS 400
#define LOOK_MS  25u

/* ---- the words for what cannot be seen ---- */

/* Is it another than was told of the subject last? */
static bool is_news(struct daemon *daemon, const char *subject, const char *trouble)
{
	if (g_strcmp0(trouble, g_hash_table_lookup(daemon->told, subject)) == 0)
		return false;
	g_hash_table_insert(daemon->told, g_strdup(subject), g_strdup(trouble));
	return true;
}

static void tell_trouble_of_luns(struct daemon *daemon, const struct target *target)
{
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);

	for (unsigned i = 0; i < count; i++) {
		const char *trouble = target_lun_trouble(target, luns[i].lun);
		g_autofree char *subject =
		    g_strdup_printf("%s/lun%u", target_name(target), (unsigned)luns[i].lun);

		if (is_news(daemon, subject, trouble) && trouble != NULL)
			log_warning_of(subject, "not shown: %s", trouble);
	}
}

static void tell_trouble(struct daemon *daemon, const struct target *target)
{
	const char *name = target_name(target);
	const char *trouble = target_is_settled(target)
	                          ? target_trouble(target)
	                          : "it does not answer: its directory is empty until it does";

	if (is_news(daemon, name, trouble)) {
		if (trouble != NULL)
			log_warning_of(name, "%s", trouble);
		else
			log_info_of(name, "it is there now");
	}
	tell_trouble_of_luns(daemon, target);
}

void targets_tell_troubles(struct daemon *daemon)
{
	for (guint i = 0; i < daemon->targets->len; i++)
		tell_trouble(daemon, g_ptr_array_index(daemon->targets, i));
}

/* ---- the tree is ready ---- */

static bool all_settled(const struct daemon *daemon)
{
	for (guint i = 0; i < daemon->targets->len; i++)
		if (!target_is_settled(g_ptr_array_index(daemon->targets, i)))
			return false;
	return true;
}

/* Does none of those that have not answered get on? Where a tree without any file is no mount,
 * there must be one: else a long way to all of them would look as if there was nothing. */
static bool rest_is_quiet(const struct daemon *daemon)
{
	int64_t now = clock_ms();
	guint disks = 0;

	for (guint i = 0; i < daemon->targets->len; i++) {
		const struct target *target = g_ptr_array_index(daemon->targets, i);

		disks += target_disks(target)->len;
		if (!target_is_settled(target) && now - target_progress_ms(target) < QUIET_MS)
			return false;
	}
	return daemon->mount->plan->all || (daemon->mount->plan->several && disks > 0);
}

bool targets_have_answered(const struct daemon *daemon)
{
	return all_settled(daemon) || rest_is_quiet(daemon);
}

static void targets_look(void *data)
{
	struct daemon *daemon = data;

	if (daemon->state == PROBING && targets_have_answered(daemon)) {
		loop_remove(&daemon->quiet);
		daemon_mount(daemon);
	}
}

/* ---- rescans ---- */

static void rescans_look(void *data)
{
	struct daemon *daemon = data;

	for (guint i = 0; i < daemon->targets->len; i++)
		if (target_is_rescanning(g_ptr_array_index(daemon->targets, i)))
			return;
	loop_remove(&daemon->rescan_look);
	for (guint i = 0; i < daemon->rescans->len; i++) {
		struct control_client *client = g_ptr_array_index(daemon->rescans, i);

		control_reply(client, "done", "error", "", NULL);
		control_client_unref(client);
	}
	g_ptr_array_set_size(daemon->rescans, 0);
}

void targets_rescan(struct daemon *daemon, struct control_client *client)
{
	g_ptr_array_add(daemon->rescans, control_client_ref(client));
	for (guint i = 0; i < daemon->targets->len; i++)
		target_rescan(g_ptr_array_index(daemon->targets, i));
	if (daemon->rescan_look == NULL)
		daemon->rescan_look = loop_ticker(daemon->loop, LOOK_MS, rescans_look, daemon);
}

/* ---- targets ---- */

static void targets_event(
    struct target *target, enum target_event event, struct disk *disk, void *data)
{
	struct daemon *daemon = data;
	bool departs = reload_departs(daemon, target);

	switch (event) {
	case TARGET_SETTLED:
		if (daemon->state == RUNNING)
			tell_trouble(daemon, target);
		break;
	case TARGET_ADDED:
		if (daemon->layout != NULL && !departs && daemon->state <= RUNNING)
			layout_add_disk(daemon->layout, disk);
		break;
	case TARGET_GOING:
		daemon_lose(daemon, disk);
		if (daemon->layout != NULL)
			layout_remove_disk(daemon->layout, disk);
		else
			target_drop_disk(target, disk);
		break;
	case TARGET_CLOSED:
		if (departs && daemon->state < LEAVING)
			reload_target_closed(daemon, target);
		else
			daemon_target_closed(daemon);
		break;
	}
}

void targets_add(struct daemon *daemon, const struct target_plan *plan)
{
	struct target *target = target_new(&daemon->environment, plan, targets_event, daemon);

	g_ptr_array_add(daemon->targets, target);
	if (daemon->layout != NULL)
		layout_add_target(daemon->layout, target);
}

/* ---- discovery ---- */

void targets_discover(struct daemon *daemon, const struct target_plan *at,
    void (*done)(GPtrArray *targets, const char *error, void *data))
{
	discovery_free(daemon->discovery);
	target_login_fill(at, &daemon->discovery_login);
	daemon->discovery_login.portals = at->portals;
	daemon->discovery = discovery_start(daemon->loop, &daemon->discovery_login, done, daemon);
}

/*
 * The portal that answered the discovery first: it is known to be within reach, and what it lists
 * may not be (NAT, a second network). Unless the target says that it is elsewhere.
 */
static GPtrArray *portals_to_try(const struct portal *at, const struct discovered_target *found)
{
	GPtrArray *portals = portals_new();
	bool listed = false;

	for (unsigned i = 0; i < found->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(found->portals, i);

		listed |= strcmp(portal->host, at->host) == 0 && portal->port == at->port;
	}
	if (listed)
		portals_add(portals, at->host, at->port);
	for (unsigned i = 0; i < found->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(found->portals, i);

		if (strcmp(portal->host, at->host) != 0 || portal->port != at->port)
			portals_add(portals, portal->host, portal->port);
	}
	if (!listed)
		portals_add(portals, at->host, at->port);
	return portals;
}

/* What the portal reports becomes the plan's targets. */
void targets_take_reported(struct plan *plan, const GPtrArray *targets)
{
	const struct portal *at = g_ptr_array_index(plan->portal->portals, 0);

	for (unsigned i = 0; i < targets->len; i++) {
		const struct discovered_target *found = g_ptr_array_index(targets, i);
		g_autoptr(GPtrArray) portals = portals_to_try(at, found);

		g_ptr_array_add(plan->targets, plan_add_reported(plan, found->name, portals));
	}
}

static char *explain_none(const struct target_plan *portal, const char *error)
{
	const struct portal *at = g_ptr_array_index(portal->portals, 0);
	g_autofree char *address = portal_format(at->host, at->port);

	return error != NULL ? g_strdup(error)
	                     : g_strdup_printf(
	                           "%s offers no targets to the initiator name %s: allow it there",
	                           address, portal->initiator_name);
}

static void targets_dial(struct daemon *daemon)
{
	const GPtrArray *plans = daemon->mount->plan->targets;

	daemon_set_state(daemon, PROBING);
	for (unsigned i = 0; i < plans->len; i++)
		targets_add(daemon, g_ptr_array_index(plans, i));
	daemon->quiet = loop_ticker(daemon->loop, LOOK_MS, targets_look, daemon);
}

static void targets_discovered(GPtrArray *targets, const char *error, void *data)
{
	struct daemon *daemon = data;
	struct plan *plan = daemon->mount->plan;

	if (daemon->state != FINDING)
		return;
	if (targets == NULL || targets->len == 0) {
		g_autofree char *text = explain_none(plan->portal, targets == NULL ? error : NULL);

		daemon_fail(daemon, LUNFS_ERROR_FAILED, text);
		return;
	}
	targets_take_reported(plan, targets);
	targets_dial(daemon);
}

void targets_start(struct daemon *daemon)
{
	const struct plan *plan = daemon->mount->plan;

	reload_init(daemon);
	daemon->rescans = g_ptr_array_new();
	daemon->told = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	if (plan->portal != NULL)
		targets_discover(daemon, plan->portal, targets_discovered);
	else
		targets_dial(daemon);
}

/* ---- the end ---- */

void targets_stop(struct daemon *daemon)
{
	loop_remove(&daemon->quiet);
	loop_remove(&daemon->rescan_look);
	reload_stop(daemon);
}

void targets_free(struct daemon *daemon)
{
	discovery_free(daemon->discovery);
	for (guint i = 0; i < daemon->rescans->len; i++)
		control_client_unref(g_ptr_array_index(daemon->rescans, i));
	g_ptr_array_unref(daemon->rescans);
	reload_free(daemon);
	g_hash_table_unref(daemon->told);
}
