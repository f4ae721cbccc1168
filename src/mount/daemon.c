/*
 * daemon.c - one mount's process, from the first login to the last logout.
 *
 *   FINDING --targets--> PROBING --all LUNs known--> MOUNTING --kernel said hello--> RUNNING
 *      \________________________|_________error__________|                             |
 *                                                        v            unmounted, or a signal
 *                                          ENDED <-- LEAVING <-- FLUSHING <------------+
 *
 * FLUSHING has every disk flush what was written; LEAVING ends what is left and logs out; each has
 * a bound, so that a dead target cannot hold up a shutdown. A second signal goes to LEAVING at
 * once.
 */
#include <glib-unix.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "control.h"
#include "lunfs/fs.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"
#include "lunfs/pool.h"
#include "status.h"

/* systemd gives 90 s by default, but a person less; SIGTERM ends within 30 s whatever happens. */
#define FLUSH_MS  20000u
#define LOGOUT_MS 2000u
#define LEAVE_MS  5000u

/* Buffers kept for the next request, while there are requests; see pool.h. */
#define POOL_KEEP (32u << 20)
#define TRIM_MS   1000u

enum daemon_state { FINDING, PROBING, MOUNTING, RUNNING, FLUSHING, LEAVING, ENDED };

struct daemon {
	const struct mount *mount;
	struct target_login login;
	struct loop *loop;
	struct pool *pool;
	enum daemon_state state;
	void (*ready)(void *data);
	void *data;

	struct login discovery_login;
	struct discovery *discovery;
	GPtrArray *targets; /* of struct target */
	unsigned unprobed, unclosed;
	struct fs *fs;
	struct control *control;
	GPtrArray *signals; /* sources */
	GSource *trim, *limit, *settle;
	GError *error;
	bool mounted, clean;
};

static void daemon_leave(struct daemon *daemon);

static void daemon_set_state(struct daemon *daemon, enum daemon_state state)
{
	static const char *const names[] = {
	    "finding", "probing", "mounting", "running", "flushing", "leaving", "ended"};

	log_debug("%s -> %s", names[daemon->state], names[state]);
	daemon->state = state;
}

static void daemon_fail(struct daemon *daemon, const char *reason)
{
	if (daemon->error == NULL)
		daemon->error = g_error_new_literal(LUNFS_ERROR, LUNFS_ERROR_FAILED, reason);
	if (daemon->state < LEAVING)
		daemon_leave(daemon);
}

/* ---- the end ---- */

/* Ends the loop when nothing is on its way any more. */
static void daemon_settle(void *data)
{
	struct daemon *daemon = data;

	if (daemon->fs != NULL && fs_outstanding(daemon->fs) > 0)
		return;
	loop_remove(&daemon->settle);
	loop_quit(daemon->loop);
}

static void daemon_closed(void *data)
{
	struct daemon *daemon = data;

	if (--daemon->unclosed > 0)
		return;
	daemon_set_state(daemon, ENDED);
	daemon->settle = loop_ticker(daemon->loop, 5, daemon_settle, daemon);
	daemon_settle(daemon);
}

/*
 * Something does not end, against all bounds below. What is left is in use, and so nothing is
 * freed: the mount is taken out of the tree, and the kernel does the rest.
 */
static void daemon_give_up(void *data)
{
	struct daemon *daemon = data;
	struct mounted *mounted = mounted_find(daemon->mount->mountpoint);

	log_error("requests did not end; leaving without them");
	if (mounted != NULL && daemon->fs != NULL)
		mounted_detach(mounted, true, NULL);
	_exit(LUNFS_ERROR_FAILED);
}

static void daemon_leave(struct daemon *daemon)
{
	daemon_set_state(daemon, LEAVING);
	loop_remove(&daemon->limit);
	daemon->limit = loop_timer(daemon->loop, LEAVE_MS, daemon_give_up, daemon);
	if (daemon->fs != NULL)
		fs_cancel_all(daemon->fs);
	daemon->unclosed = daemon->targets->len + 1;
	for (unsigned i = 0; i < daemon->targets->len; i++)
		target_close(
		    g_ptr_array_index(daemon->targets, i), LOGOUT_MS, daemon_closed, daemon);
	daemon_closed(daemon);
}

static void daemon_flush_progress(const char *name, int error, unsigned left, void *data);

static void daemon_flushed(int error, void *data)
{
	struct daemon *daemon = data;

	if (daemon->state != FLUSHING)
		return;
	/* Writes that were on their way when the flush left. */
	if (error == 0 && fs_is_unflushed(daemon->fs)) {
		fs_flush_all(daemon->fs, daemon_flush_progress, daemon_flushed, daemon);
		return;
	}
	daemon->clean = error == 0;
	control_tell_all(daemon->control, "end", error != 0 ? g_strerror(-error) : "");
	daemon_leave(daemon);
}

static void daemon_flush_progress(const char *name, int error, unsigned left, void *data)
{
	(void)left;
	(void)data;
	if (error != 0)
		log_error("%s: could not be flushed (%s): what was written since the last sync may "
		          "be lost",
		    name, g_strerror(-error));
}

static void daemon_flush_expired(void *data)
{
	struct daemon *daemon = data;

	log_error("the target does not answer: what was written since the last sync may be lost");
	daemon->clean = false;
	control_tell_all(daemon->control, "end", "the target does not answer");
	daemon_leave(daemon);
}

/* Unmounted, or told to end. */
static void daemon_end(struct daemon *daemon)
{
	if (daemon->state < RUNNING) {
		daemon_fail(daemon,
		    daemon->state == MOUNTING ? "unmounted before it was ready" : "interrupted");
	} else if (daemon->state == RUNNING) {
		daemon_set_state(daemon, FLUSHING);
		daemon->limit = loop_timer(daemon->loop, FLUSH_MS, daemon_flush_expired, daemon);
		fs_refuse_writes(daemon->fs);
		fs_flush_all(daemon->fs, daemon_flush_progress, daemon_flushed, daemon);
	}
}

static gboolean daemon_signalled(gpointer data)
{
	struct daemon *daemon = data;

	if (daemon->state == FLUSHING)
		daemon_flush_expired(daemon);
	else
		daemon_end(daemon);
	return G_SOURCE_CONTINUE;
}

static void daemon_unmounted(void *data)
{
	daemon_end(data);
}

/* ---- the control socket ---- */

struct flush_request {
	struct control_client *client;
	char *failed; /* names of files */
};

static void flush_request_progress(const char *name, int error, unsigned left, void *data)
{
	struct flush_request *request = data;
	g_autofree char *count = g_strdup_printf("%u", left);

	if (error != 0) {
		char *failed =
		    g_strdup_printf("%s%s%s: %s", request->failed != NULL ? request->failed : "",
		        request->failed != NULL ? "; " : "", name, g_strerror(-error));
		g_free(request->failed);
		request->failed = failed;
	}
	control_reply(request->client, "progress", "file", name, "left", count, "error",
	    error != 0 ? g_strerror(-error) : "", NULL);
}

static void flush_request_done(int error, void *data)
{
	struct flush_request *request = data;

	control_reply(request->client, "done", "error",
	    error == 0                ? ""
	    : request->failed != NULL ? request->failed
	                              : g_strerror(-error),
	    NULL);
	control_client_unref(request->client);
	g_free(request->failed);
	g_free(request);
}

static void daemon_request(struct control_client *client, const char *command, void *data)
{
	struct daemon *daemon = data;

	if (strcmp(command, "flush") == 0 && daemon->state == RUNNING) {
		struct flush_request *request = g_new0(struct flush_request, 1);

		request->client = control_client_ref(client);
		fs_flush_all(daemon->fs, flush_request_progress, flush_request_done, request);
	} else if (strcmp(command, "status") == 0) {
		g_autofree char *text = status_text(daemon->mount, daemon->targets);

		control_reply(client, "done", "error", "", "text", text, NULL);
	} else if (strcmp(command, "status-json") == 0) {
		g_autofree char *json = status_json(daemon->mount, daemon->targets);

		control_reply(client, "done", "error", "", "text", json, NULL);
	} else {
		control_reply(client, "done", "error", "no such command, or not now", NULL);
	}
}

static void daemon_open_control(struct daemon *daemon)
{
	struct mounted *mounted = mounted_find(daemon->mount->mountpoint);

	if (mounted != NULL) {
		g_autofree char *path = control_path(mounted->device, mounted->uid);
		daemon->control = control_new(daemon->loop, path, daemon_request, daemon);
	}
	mounted_free(mounted);
}

/* ---- mounting ---- */

static void daemon_kernel_ready(void *data)
{
	struct daemon *daemon = data;

	daemon_set_state(daemon, RUNNING);
	daemon->mounted = daemon->clean = true;
	daemon_open_control(daemon);
	daemon->ready(daemon->data);
}

static void daemon_add_disk(
    struct daemon *daemon, struct node *directory, struct target *target, const struct disk *disk)
{
	const struct lun_info *info = &disk->info;
	g_autofree char *identity =
	    g_strdup_printf("%s lun %u", target_name(target), (unsigned)info->lun);
	g_autofree char *block_size = g_strdup_printf("%u", (unsigned)info->block_size);
	const char *const attributes[] = {"vendor", info->vendor, "product", info->product,
	    "revision", info->revision, "serial", info->serial, "wwid", info->wwid, "block_size",
	    block_size, "target", target_name(target), "portal",
	    session_address(target_session(target)), NULL};

	fs_add_disk(
	    daemon->fs, directory, disk->name, identity, disk->top, disk->read_only, attributes);
}

/* The sentence for a mount that would show nothing. */
static char *daemon_explain_no_disks(struct daemon *daemon)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < daemon->targets->len; i++) {
		struct target *target = g_ptr_array_index(daemon->targets, i);
		unsigned count;
		const struct lun_info *luns = target_luns(target, &count);

		g_string_append_printf(text, "%s%s has no disk to show for %s",
		    text->len != 0 ? "; " : "", target_name(target), daemon->mount->initiator_name);
		for (unsigned k = 0; k < count; k++)
			g_string_append_printf(text, "%s lun %u is a %s%s%s", k == 0 ? ":" : ",",
			    (unsigned)luns[k].lun, scsi_type_name(luns[k].type),
			    luns[k].fault[0] != '\0' ? ": " : " (not shown yet)", luns[k].fault);
	}
	return g_string_free(text, FALSE);
}

static void daemon_build_tree(struct daemon *daemon)
{
	bool one = daemon->mount->source->target != NULL;

	for (unsigned i = 0; i < daemon->targets->len; i++) {
		struct target *target = g_ptr_array_index(daemon->targets, i);
		const GPtrArray *disks = target_disks(target);
		struct node *directory = NULL;

		if (!daemon->mount->root_is_file)
			directory = one ? fs_root(daemon->fs)
			                : fs_add_directory(daemon->fs, fs_root(daemon->fs),
			                      target_name(target), target_name(target));
		for (unsigned k = 0; k < disks->len; k++)
			daemon_add_disk(daemon, directory, target, g_ptr_array_index(disks, k));
	}
}

static void daemon_warn_of_faults(struct target *target)
{
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);

	for (unsigned i = 0; i < count; i++)
		if (luns[i].fault[0] != '\0' && scsi_type_is_block(luns[i].type))
			log_warning("%s: lun %u is not shown: %s", target_name(target),
			    (unsigned)luns[i].lun, luns[i].fault);
}

static void daemon_mount(struct daemon *daemon)
{
	const struct mount *mount = daemon->mount;
	const struct options *options = mount->options;
	unsigned disks = 0;

	daemon_set_state(daemon, MOUNTING);
	for (unsigned i = 0; i < daemon->targets->len; i++)
		disks += target_make_disks(
		    g_ptr_array_index(daemon->targets, i), daemon->pool, options->read_only)
		             ->len;
	if (disks == 0) {
		g_autofree char *text = daemon_explain_no_disks(daemon);
		daemon_fail(daemon, text);
		return;
	}
	for (unsigned i = 0; i < daemon->targets->len; i++)
		daemon_warn_of_faults(g_ptr_array_index(daemon->targets, i));
	const struct fs_options fs_options = {
	    .mountpoint = mount->mountpoint,
	    .source = mount->source->text,
	    .fuse_options = options->fuse_options,
	    .read_only = options->read_only,
	    .allow_other = options->allow_other,
	    .allow_root = options->allow_root,
	    .uid = options->uid,
	    .gid = options->gid,
	    .umask = options->umask,
	    .root_is_file = mount->root_is_file,
	};
	daemon->fs = fs_new(
	    daemon->loop, daemon->pool, &fs_options, daemon_kernel_ready, daemon_unmounted, daemon);
	daemon_build_tree(daemon);
	GError *error = NULL;
	if (!fs_mount(daemon->fs, &error)) {
		daemon->error = error;
		daemon_leave(daemon);
	}
}

/* ---- finding and probing targets ---- */

static void daemon_target_probed(struct target *target, const char *error, void *data)
{
	struct daemon *daemon = data;

	if (daemon->state != PROBING)
		return;
	if (error != NULL && daemon->targets->len == 1) {
		daemon_fail(daemon, error);
		return;
	}
	if (error != NULL)
		log_warning("%s: %s", target_name(target), error);
	if (--daemon->unprobed == 0)
		daemon_mount(daemon);
}

static struct portal *portal_copy(const char *host, uint16_t port)
{
	struct portal *portal = g_new(struct portal, 1);

	*portal = (struct portal){.host = g_strdup(host), .port = port};
	return portal;
}

static void daemon_add_target(struct daemon *daemon, const char *name, GPtrArray *portals)
{
	unsigned number = daemon->targets->len + 1;

	daemon->unprobed++;
	g_ptr_array_add(
	    daemon->targets, target_new(daemon->loop, &daemon->login, name, portals, number,
	                         daemon->mount->source->lun, daemon_target_probed, daemon));
}

/*
 * The portal that answered the discovery first: it is known to be within reach, and what it lists
 * may not be (NAT, a second network). Unless the target says that it is elsewhere.
 */
static GPtrArray *portals_to_try(const struct source *source, const struct discovered_target *found)
{
	GPtrArray *portals = g_ptr_array_new();
	bool listed = false;

	for (unsigned i = 0; i < found->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(found->portals, i);

		if (strcmp(portal->host, source->host) == 0 && portal->port == source->port)
			listed = true;
		else
			g_ptr_array_add(portals, portal_copy(portal->host, portal->port));
	}
	g_ptr_array_insert(portals, listed ? 0 : -1, portal_copy(source->host, source->port));
	return portals;
}

static void daemon_discovered(GPtrArray *targets, const char *error, void *data)
{
	struct daemon *daemon = data;
	const struct source *source = daemon->mount->source;

	if (daemon->state != FINDING)
		return;
	if (targets == NULL || targets->len == 0) {
		g_autofree char *none = g_strdup_printf(
		    "%s:%u offers no targets to the initiator name %s: allow it there",
		    source->host, (unsigned)source->port, daemon->mount->initiator_name);
		daemon_fail(daemon, targets == NULL ? error : none);
		return;
	}
	daemon_set_state(daemon, PROBING);
	for (unsigned i = 0; i < targets->len; i++) {
		const struct discovered_target *found = g_ptr_array_index(targets, i);

		daemon_add_target(daemon, found->name, portals_to_try(source, found));
	}
}

static void daemon_find(struct daemon *daemon)
{
	const struct source *source = daemon->mount->source;

	if (source->target != NULL) {
		GPtrArray *portals = g_ptr_array_new();

		g_ptr_array_add(portals, portal_copy(source->host, source->port));
		daemon_set_state(daemon, PROBING);
		daemon_add_target(daemon, source->target, portals);
		return;
	}
	target_login_fill(&daemon->login, &daemon->discovery_login);
	daemon->discovery_login.portal = (struct portal){source->host, source->port};
	daemon->discovery =
	    discovery_start(daemon->loop, &daemon->discovery_login, daemon_discovered, daemon);
}

/* ---- life ---- */

static void daemon_trim(void *data)
{
	pool_trim(((struct daemon *)data)->pool);
}

static void source_destroy(gpointer data)
{
	g_source_destroy(data);
	g_source_unref(data);
}

static void daemon_catch_signals(struct daemon *daemon)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};

	daemon->signals = g_ptr_array_new_with_free_func(source_destroy);
	for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++) {
		GSource *source = g_unix_signal_source_new(signals[i]);

		g_source_set_callback(source, daemon_signalled, daemon, NULL);
		g_source_attach(source, loop_context(daemon->loop));
		g_ptr_array_add(daemon->signals, source);
	}
	signal(SIGPIPE, SIG_IGN);
}

static void daemon_free(struct daemon *daemon)
{
	loop_remove(&daemon->trim);
	loop_remove(&daemon->limit);
	loop_remove(&daemon->settle);
	g_ptr_array_unref(daemon->signals);
	discovery_free(daemon->discovery);
	fs_free(daemon->fs);
	for (unsigned i = 0; i < daemon->targets->len; i++)
		target_free(g_ptr_array_index(daemon->targets, i));
	g_ptr_array_unref(daemon->targets);
	/* Last: whoever waits for the socket to close may then power off. */
	control_free(daemon->control);
	pool_free(daemon->pool);
	loop_free(daemon->loop);
}

bool mount_run(const struct mount *mount, void (*ready)(void *data), void *data, GError **error)
{
	struct loop *loop = loop_new();
	struct daemon daemon = {
	    .mount = mount,
	    .login = {.options = mount->options,
	        .credentials = mount->credentials,
	        .initiator_name = mount->initiator_name},
	    .loop = loop,
	    .pool = pool_new(POOL_KEEP),
	    .ready = ready,
	    .data = data,
	    .targets = g_ptr_array_new(),
	};

	/* One for the mount: its own session is reinstated by it, another mount's is left alone
	 * (SAFETY.md 11). */
	if (getrandom(&daemon.login.isid_random, sizeof daemon.login.isid_random, 0) < 0)
		daemon.login.isid_random = (uint32_t)clock_us();
	daemon.login.isid_random &= 0xffffff;
	daemon.trim = loop_ticker(loop, TRIM_MS, daemon_trim, &daemon);
	daemon_catch_signals(&daemon);
	daemon_find(&daemon);
	loop_run(loop);
	daemon_free(&daemon);
	if (daemon.error != NULL)
		g_propagate_error(error, daemon.error);
	return daemon.mounted && daemon.clean && daemon.error == NULL;
}
