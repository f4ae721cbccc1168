/*
 * daemon.c - one mount's process, from the first login to the last logout.
 *
 *   FINDING --targets--> PROBING --all LUNs known--> MOUNTING --kernel said hello--> RUNNING
 *      \________________________|_________error__________|                             |
 *                                                        v            unmounted, or a signal
 *                                          ENDED <-- LEAVING <-- FLUSHING <------------+
 *
 * FLUSHING has every disk flush what was written; LEAVING ends what is left and logs out; each has
 * a bound, so that a dead target cannot hold up a shutdown. After an unmount nobody waits, and the
 * bound is replacement_timeout without any progress; a signal leaves 20 s, and a second one
 * nothing. What is not known to be on stable storage then is listed.
 */
#include <glib-unix.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "control.h"
#include "flush.h"
#include "layout.h"
#include "lunfs/frames.h"
#include "lunfs/fs.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"
#include "lunfs/pool.h"
#include "status.h"

/* systemd gives 90 s by default, but a person less; SIGTERM ends within 30 s whatever happens. */
#define FLUSH_MS   20000u
#define UNMOUNT_MS 120000u /* where replacement_timeout is infinite */
#define FORCED_MS  2000u   /* 'lunfs umount -f': for a target that answers */
#define LOGOUT_MS  2000u
#define HASTY_MS   100u /* of a target that let its time run out already */
#define LEAVE_MS   5000u

/* Buffers kept for the next request, while there are requests; see pool.h. */
#define POOL_KEEP (32u << 20)
#define TRIM_MS   1000u
/* For writes that are done and not yet on stable storage a LUN may have so much whatever others do.
 */
#define RETAIN_FLOOR (2u << 20)
/* And apart from it for what the kernel has sent and waits for: address space, until it is used. */
#define REQUEST_ROOM ((size_t)5 << (sizeof(size_t) > 4 ? 30 : 27))

enum daemon_state { FINDING, PROBING, MOUNTING, RUNNING, FLUSHING, LEAVING, ENDED };

struct daemon {
	const struct mount *mount;
	struct target_login login;
	struct loop *loop;
	struct pool *pool;
	struct retain_memory memory;
	struct cache_memory *cache_memory;
	enum daemon_state state;
	void (*ready)(void *data);
	void *data;

	struct login discovery_login;
	GPtrArray *discovery_portals;
	struct discovery *discovery;
	GPtrArray *targets; /* of struct target */
	unsigned unprobed, unclosed;
	struct fs *fs;
	struct control *control;
	GPtrArray *signals; /* sources */
	GSource *trim, *limit, *settle;
	GError *error;
	int64_t deadline_ms;  /* of FLUSHING */
	unsigned patience_ms; /* for so long again, as long as it gets on; 0: it has to end */
	uint64_t unwritten;   /* when it was last looked at */
	unsigned signalled;
	char *end; /* what was said at the end; NULL before it */
	bool mounted, clean, hasty;
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
	for (unsigned i = 0; i < daemon->targets->len; i++)
		if (!target_is_idle(g_ptr_array_index(daemon->targets, i)))
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
		target_close(g_ptr_array_index(daemon->targets, i),
		    daemon->hasty ? HASTY_MS : LOGOUT_MS, daemon_closed, daemon);
	daemon_closed(daemon);
}

/* To all who listen, and to who asks later. */
static void daemon_say_end(struct daemon *daemon, const char *error)
{
	g_free(daemon->end);
	daemon->end = g_strdup(error);
	control_tell_all(daemon->control, "end", error);
}

/* Leaves without what could not be flushed, and says what this is. */
static void daemon_leave_unclean(struct daemon *daemon, const char *reason)
{
	g_autofree char *unstable = flush_describe_unstable(daemon->targets);
	g_autofree char *error = g_strconcat(reason, unstable, NULL);

	log_error("%s", error);
	daemon->clean = false;
	daemon_say_end(daemon, error);
	daemon_leave(daemon);
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
	if (error != 0) {
		daemon_leave_unclean(daemon, g_strerror(-error));
		return;
	}
	daemon_say_end(daemon, "");
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
	uint64_t unwritten = flush_unwritten_bytes(daemon->targets);

	/* A slow link, and much that is dirty. */
	if (daemon->patience_ms != 0 && unwritten < daemon->unwritten) {
		daemon->unwritten = unwritten;
		daemon->deadline_ms = clock_ms() + daemon->patience_ms;
		loop_remove(&daemon->limit);
		daemon->limit =
		    loop_timer(daemon->loop, daemon->patience_ms, daemon_flush_expired, daemon);
		return;
	}
	daemon->hasty = true;
	daemon_leave_unclean(daemon, "the target does not answer");
}

/* Unmounted, or told to end: in at most ms, and not later than it was to end already; patiently:
 * ms without progress. */
static void daemon_end(struct daemon *daemon, unsigned ms, bool patiently)
{
	int64_t deadline_ms = clock_ms() + ms;

	if (daemon->state < RUNNING) {
		daemon_fail(daemon,
		    daemon->state == MOUNTING ? "unmounted before it was ready" : "interrupted");
		return;
	}
	if (daemon->state > FLUSHING ||
	    (daemon->state == FLUSHING && daemon->deadline_ms <= deadline_ms))
		return;
	bool begun = daemon->state == FLUSHING;
	daemon_set_state(daemon, FLUSHING);
	daemon->deadline_ms = deadline_ms;
	daemon->patience_ms = patiently ? ms : 0;
	daemon->unwritten = flush_unwritten_bytes(daemon->targets);
	loop_remove(&daemon->limit);
	daemon->limit = loop_timer(daemon->loop, ms, daemon_flush_expired, daemon);
	if (begun)
		return;
	fs_refuse_writes(daemon->fs);
	fs_flush_all(daemon->fs, daemon_flush_progress, daemon_flushed, daemon);
}

static gboolean daemon_signalled(gpointer data)
{
	struct daemon *daemon = data;

	/* The second one means: now. */
	if (daemon->signalled++ > 0 && daemon->state >= RUNNING) {
		if (daemon->fs != NULL)
			fs_abort(daemon->fs);
		daemon_end(daemon, 0, false);
	} else {
		daemon_end(daemon, FLUSH_MS, false);
	}
	return G_SOURCE_CONTINUE;
}

static void daemon_unmounted(void *data)
{
	struct daemon *daemon = data;
	unsigned ms = daemon->mount->options->replacement_timeout;

	daemon_end(daemon, ms == OPTIONS_INFINITY ? UNMOUNT_MS : MAX(ms, FLUSH_MS), true);
}

static bool daemon_reaches_a_target(const struct daemon *daemon)
{
	for (unsigned i = 0; i < daemon->targets->len; i++)
		if (session_is_ready(target_session(g_ptr_array_index(daemon->targets, i))))
			return true;
	return false;
}

/* 'lunfs umount -f': whoever waits for a target waits no longer (SAFETY.md 17). */
static void daemon_abort(struct daemon *daemon)
{
	fs_abort(daemon->fs);
	daemon_end(daemon, daemon_reaches_a_target(daemon) ? FORCED_MS : 0, false);
}

/* ---- the control socket ---- */

static void daemon_request(struct control_client *client, const char *command, void *data)
{
	struct daemon *daemon = data;

	if (daemon->end != NULL && strncmp(command, "status", 6) != 0) {
		if (strcmp(command, "flush") == 0)
			control_reply(client, "done", "error", daemon->end, NULL);
		control_reply(client, "end", "error", daemon->end, NULL);
	} else if (strcmp(command, "flush") == 0 &&
	           (daemon->state == RUNNING || daemon->state == FLUSHING)) {
		flush_for_client(daemon->loop, daemon->fs, daemon->targets, client);
	} else if (strcmp(command, "abort") == 0 && daemon->state >= RUNNING) {
		daemon_abort(daemon);
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

static void daemon_mount(struct daemon *daemon)
{
	const struct mount *mount = daemon->mount;
	const struct options *options = mount->options;
	unsigned disks = 0;

	daemon_set_state(daemon, MOUNTING);
	for (unsigned i = 0; i < daemon->targets->len; i++)
		disks += target_make_disks(g_ptr_array_index(daemon->targets, i), daemon->pool,
		    &daemon->memory, daemon->cache_memory, options)
		             ->len;
	if (disks == 0) {
		g_autofree char *text =
		    layout_explain_empty(daemon->targets, mount->initiator_name);
		daemon_fail(daemon, text);
		return;
	}
	for (unsigned i = 0; i < daemon->targets->len; i++)
		layout_warn_of_faults(g_ptr_array_index(daemon->targets, i));
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
	daemon->fs = fs_new(daemon->loop, daemon->pool, daemon->memory.frames, &fs_options,
	    daemon_kernel_ready, daemon_unmounted, daemon);
	layout_build(daemon->fs, daemon->targets, mount);
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
	GPtrArray *portals = portals_new();
	bool listed = false;

	for (unsigned i = 0; i < found->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(found->portals, i);

		listed |= strcmp(portal->host, source->host) == 0 && portal->port == source->port;
	}
	if (listed)
		portals_add(portals, source->host, source->port);
	for (unsigned i = 0; i < found->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(found->portals, i);

		if (strcmp(portal->host, source->host) != 0 || portal->port != source->port)
			portals_add(portals, portal->host, portal->port);
	}
	if (!listed)
		portals_add(portals, source->host, source->port);
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

	if (daemon->cache_memory == NULL) {
		daemon_fail(daemon, "there is too little address space: see 'ulimit -v'");
		return;
	}
	if (source->target != NULL) {
		GPtrArray *portals = portals_new();

		portals_add(portals, source->host, source->port);
		daemon_set_state(daemon, PROBING);
		daemon_add_target(daemon, source->target, portals);
		return;
	}
	target_login_fill(&daemon->login, &daemon->discovery_login);
	daemon->discovery_portals = portals_new();
	portals_add(daemon->discovery_portals, source->host, source->port);
	daemon->discovery_login.portals = daemon->discovery_portals;
	daemon->discovery =
	    discovery_start(daemon->loop, &daemon->discovery_login, daemon_discovered, daemon);
}

/* ---- life ---- */

static void daemon_trim(void *data)
{
	struct daemon *daemon = data;

	pool_trim(daemon->pool);
	if (daemon->memory.frames != NULL)
		frames_trim(daemon->memory.frames);
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
	g_clear_pointer(&daemon->discovery_portals, g_ptr_array_unref);
	fs_free(daemon->fs);
	for (unsigned i = 0; i < daemon->targets->len; i++)
		target_free(g_ptr_array_index(daemon->targets, i));
	g_ptr_array_unref(daemon->targets);
	/* Last: whoever waits for the socket to close may then power off. */
	control_free(daemon->control);
	g_clear_pointer(&daemon->cache_memory, cache_memory_free); /* before its frames */
	frames_free(daemon->memory.frames);
	pool_free(daemon->pool);
	loop_free(daemon->loop);
	g_free(daemon->end);
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
	    .memory = {.frames = frames_new(mount->options->cache_size, REQUEST_ROOM),
	        .limit = mount->options->cache_size,
	        .floor = RETAIN_FLOOR},
	    .ready = ready,
	    .data = data,
	    .targets = g_ptr_array_new(),
	};

	if (daemon.memory.frames != NULL)
		daemon.cache_memory = cache_memory_new(daemon.memory.frames);
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
