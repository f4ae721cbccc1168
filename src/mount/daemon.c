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
#include "daemon.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control.h"
#include "flush.h"
#include "isid.h"
#include "lunfs/frames.h"
#include "lunfs/log.h"
#include "lunfs/pool.h"
#include "writer.h"

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

static void daemon_leave(struct daemon *daemon);

void daemon_set_state(struct daemon *daemon, enum daemon_state state)
{
	static const char *const names[] = {
	    "finding", "probing", "mounting", "running", "flushing", "leaving", "ended"};

	log_debug("%s -> %s", names[daemon->state], names[state]);
	daemon->state = state;
}

void daemon_fail(struct daemon *daemon, int code, const char *reason)
{
	if (daemon->error == NULL)
		daemon->error = g_error_new_literal(LUNFS_ERROR, code, reason);
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

void daemon_target_closed(struct daemon *daemon)
{
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
	targets_stop(daemon);
	if (daemon->fs != NULL)
		fs_cancel_all(daemon->fs);
	daemon->unclosed = daemon->targets->len + 1;
	for (unsigned i = 0; i < daemon->targets->len; i++)
		target_close(
		    g_ptr_array_index(daemon->targets, i), daemon->hasty ? HASTY_MS : LOGOUT_MS);
	daemon_target_closed(daemon);
}

void daemon_lose(struct daemon *daemon, const struct disk *disk)
{
	g_autofree char *unstable = disk_describe_unstable(disk);

	if (unstable != NULL)
		g_string_append_printf(
		    daemon->lost, "%s%s", daemon->lost->len > 0 ? "; " : "", unstable);
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
		fs_flush(daemon->fs, NULL, daemon_flush_progress, daemon_flushed, daemon);
		return;
	}
	if (error != 0) {
		daemon_leave_unclean(daemon, g_strerror(-error));
		return;
	}
	if (daemon->lost->len > 0) {
		g_autofree char *text = g_strdup_printf(
		    "taken away before it was on stable storage: %s", daemon->lost->str);

		daemon->clean = false;
		daemon_say_end(daemon, text);
	} else {
		daemon_say_end(daemon, "");
	}
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
		daemon_fail(daemon, LUNFS_ERROR_FAILED,
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
	fs_flush(daemon->fs, NULL, daemon_flush_progress, daemon_flushed, daemon);
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

static bool reaches_terminal(void)
{
	int fd = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* A terminal that hung up takes what runs in it along; else SIGHUP means: read the configuration
 * again. */
static gboolean daemon_hung_up(gpointer data)
{
	struct daemon *daemon = data;

	if (daemon->state < RUNNING || (daemon->has_terminal && !reaches_terminal()))
		return daemon_signalled(data);
	if (daemon->state == RUNNING)
		targets_reload(daemon, NULL);
	return G_SOURCE_CONTINUE;
}

/* The longest that any target is waited for. */
static unsigned daemon_patience(const struct daemon *daemon)
{
	unsigned ms = 0;

	for (unsigned i = 0; i < daemon->targets->len; i++)
		ms = MAX(
		    ms, target_options(g_ptr_array_index(daemon->targets, i))->replacement_timeout);
	return ms;
}

static void daemon_unmounted(void *data)
{
	struct daemon *daemon = data;
	unsigned ms = daemon_patience(daemon);

	daemon_end(daemon, ms == OPTIONS_INFINITY ? UNMOUNT_MS : MAX(ms, FLUSH_MS), true);
}

static bool daemon_reaches_a_target(const struct daemon *daemon)
{
	for (unsigned i = 0; i < daemon->targets->len; i++) {
		const struct session *session =
		    target_session(g_ptr_array_index(daemon->targets, i));

		if (session != NULL && session_is_ready(session))
			return true;
	}
	return false;
}

void daemon_abort(struct daemon *daemon)
{
	fs_abort(daemon->fs);
	daemon_end(daemon, daemon_reaches_a_target(daemon) ? FORCED_MS : 0, false);
}

/* ---- mounting ---- */

static void daemon_open_control(struct daemon *daemon)
{
	struct mounted *mounted = mounted_find(daemon->mount->mountpoint);

	if (mounted != NULL) {
		g_autofree char *path = control_path(mounted->device, mounted->uid);
		daemon->control = control_new(daemon->loop, path, daemon_request, daemon);
	}
	mounted_free(mounted);
}

static void daemon_kernel_ready(void *data)
{
	struct daemon *daemon = data;

	daemon_set_state(daemon, RUNNING);
	daemon->mounted = daemon->clean = true;
	daemon_open_control(daemon);
	targets_tell_troubles(daemon);
	daemon->ready(daemon->data);
}

static void daemon_make_tree(struct daemon *daemon)
{
	const struct mount *mount = daemon->mount;
	const struct options *options = mount->plan->options;
	const struct layout_texts texts = {
	    .status = daemon_status_file, .metrics = daemon_metrics_file, .data = daemon};
	const struct fs_options fs_options = {
	    .mountpoint = mount->mountpoint,
	    .source = mount->plan->source,
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
	daemon->layout = layout_new(daemon->fs, mount, daemon->targets, &texts);
	for (unsigned i = 0; i < daemon->targets->len; i++)
		layout_add_target(daemon->layout, g_ptr_array_index(daemon->targets, i));
}

void daemon_mount(struct daemon *daemon)
{
	const struct plan *plan = daemon->mount->plan;
	unsigned disks = 0;
	bool secret = false;

	daemon_set_state(daemon, MOUNTING);
	for (unsigned i = 0; i < daemon->targets->len; i++) {
		const struct target *target = g_ptr_array_index(daemon->targets, i);

		disks += target_disks(target)->len;
		secret |= target_wants_secret(target);
	}
	if (disks == 0 && !plan->all) {
		g_autofree char *text = layout_explain_empty(daemon->targets);

		daemon_fail(daemon,
		    secret && daemon->targets->len == 1 ? LUNFS_ERROR_SECRET : LUNFS_ERROR_FAILED,
		    text);
		return;
	}
	daemon_make_tree(daemon);
	GError *error = NULL;
	if (!fs_mount(daemon->fs, &error)) {
		daemon->error = error;
		daemon_leave(daemon);
	}
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
	static const struct {
		int number;
		GSourceFunc fn;
	} signals[] = {
	    {SIGTERM, daemon_signalled}, {SIGINT, daemon_signalled}, {SIGHUP, daemon_hung_up}};

	daemon->signals = g_ptr_array_new_with_free_func(source_destroy);
	for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++) {
		GSource *source = g_unix_signal_source_new(signals[i].number);

		g_source_set_callback(source, signals[i].fn, daemon, NULL);
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
	fs_free(daemon->fs);
	layout_free(daemon->layout);
	for (unsigned i = 0; i < daemon->targets->len; i++)
		target_free(g_ptr_array_index(daemon->targets, i));
	targets_free(daemon);
	/* Last: whoever waits for the socket to close may then power off. */
	control_free(daemon->control);
	writers_free(daemon->environment.writers);
	isid_free(daemon->isid);
	g_clear_pointer(
	    &daemon->environment.cache_memory, cache_memory_free); /* before its frames */
	frames_free(daemon->memory.frames);
	pool_free(daemon->pool);
	loop_free(daemon->loop);
	g_free(daemon->end);
	g_string_free(daemon->lost, TRUE);
}

static bool holds_secret(const struct target_plan *plan)
{
	return plan != NULL && plan->credentials != NULL && plan->credentials->password != NULL;
}

/* The kernel then also hides the process from debuggers, which LeakSanitizer is one of. */
void mount_protect_secrets(const struct plan *plan)
{
#ifndef __SANITIZE_ADDRESS__
	bool secret = holds_secret(plan->portal);

	for (guint i = 0; i < plan->targets->len; i++)
		secret |= holds_secret(g_ptr_array_index(plan->targets, i));
	if (secret)
		prctl(PR_SET_DUMPABLE, 0);
#else
	(void)plan;
	(void)holds_secret;
#endif
}

/* A socket for each target, and one for each LUN that is written to. */
static void allow_many_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

bool mount_run(struct mount *mount, void (*ready)(void *data), void *data, GError **error)
{
	allow_many_files();
	struct loop *loop = loop_new();
	uint64_t cache_size = mount->plan->options->cache_size;
	struct daemon daemon = {
	    .mount = mount,
	    .loop = loop,
	    .pool = pool_new(POOL_KEEP),
	    .memory = {.frames = frames_new(cache_size, REQUEST_ROOM),
	        .limit = cache_size,
	        .floor = RETAIN_FLOOR},
	    .ready = ready,
	    .data = data,
	    .has_terminal = reaches_terminal(),
	    /* One for the mount: its own session is reinstated by it, another mount's is left
	     * alone (SAFETY.md 11). */
	    .isid = isid_claim(mount->mountpoint),
	    .targets = g_ptr_array_new(),
	    .lost = g_string_new(NULL),
	};

	daemon.environment = (struct target_environment){
	    .loop = loop,
	    .targets = daemon.targets,
	    .isid = daemon.isid,
	    .writers = writers_new(loop, mount->mountpoint, NULL),
	    .mountpoint = mount->mountpoint,
	    .pool = daemon.pool,
	    .memory = &daemon.memory,
	    .several = mount->plan->several,
	    .one_file = mount->root_is_file,
	};
	if (daemon.memory.frames != NULL)
		daemon.environment.cache_memory = cache_memory_new(daemon.memory.frames);
	daemon.trim = loop_ticker(loop, TRIM_MS, daemon_trim, &daemon);
	daemon_catch_signals(&daemon);
	if (daemon.environment.cache_memory != NULL)
		targets_start(&daemon);
	else
		daemon_fail(&daemon, LUNFS_ERROR_FAILED,
		    "there is too little address space: see 'ulimit -v'");
	loop_run(loop);
	daemon_free(&daemon);
	if (daemon.error != NULL)
		g_propagate_error(error, daemon.error);
	return daemon.mounted && daemon.clean && daemon.error == NULL;
}
