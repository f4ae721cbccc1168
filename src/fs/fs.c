/*
 * fs.c - one mount, from its options to its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"
#include "lunfs/config.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"

struct fs *fs_new(struct loop *loop, struct pool *pool, struct frames *frames,
    const struct fs_options *options, void (*ready)(void *data), void (*ended)(void *data),
    void *data)
{
	struct fs *fs = g_new0(struct fs, 1);

	*fs = (struct fs){
	    .loop = loop,
	    .pool = pool,
	    .frames = frames,
	    .options = *options,
	    .ready = ready,
	    .ended = ended,
	    .data = data,
	    .nodes = g_hash_table_new(NULL, NULL),
	    .leaving = g_ptr_array_new(),
	    .page_size = (uint64_t)sysconf(_SC_PAGESIZE),
	    .requests_slab.size = sizeof(struct request),
	    .handles_slab.size = sizeof(struct handle),
	};
	return fs;
}

/* ---- mounting ---- */

static void fs_build_arguments(const struct fs *fs, struct fuse_args *arguments)
{
	const struct fs_options *options = &fs->options;
	g_autofree char *fsname = g_strconcat("fsname=", options->source, NULL);
	char *words = NULL;

	fuse_opt_add_opt_escaped(&words, fsname);
	fuse_opt_add_opt(&words, "subtype=lunfs,default_permissions,max_read=1048576");
	if (options->read_only)
		fuse_opt_add_opt(&words, "ro");
	if (options->allow_other)
		fuse_opt_add_opt(&words, "allow_other");
	if (options->allow_root)
		fuse_opt_add_opt(&words, "allow_root");
	if (options->fuse_options != NULL)
		fuse_opt_add_opt(&words, options->fuse_options);
	fuse_opt_add_arg(arguments, "lunfs");
	fuse_opt_add_arg(arguments, "-o");
	fuse_opt_add_arg(arguments, words);
	free(words);
}

/*
 * libfuse and fusermount3 write what is wrong to stderr, in lines of theirs. Ours is to be the only
 * one: theirs are caught, and the last goes into it.
 */
static int mount_caught(
    struct fuse_session *session, const char *mountpoint, char *message, size_t size)
{
	int saved = dup(STDERR_FILENO);
	int caught = memfd_create("mount", MFD_CLOEXEC);

	if (caught >= 0)
		dup2(caught, STDERR_FILENO);
	int result = fuse_session_mount(session, mountpoint);
	if (saved >= 0)
		dup2(saved, STDERR_FILENO);
	ssize_t length = caught >= 0 ? pread(caught, message, size - 1, 0) : 0;
	message[length > 0 ? length : 0] = '\0';
	g_strchomp(message);
	close(saved);
	close(caught);
	return result;
}

static void fs_explain(struct fs *fs, const char *message, GError **error)
{
	const char *last = strrchr(message, '\n');
	const char *hint = "";

	if (access("/dev/fuse", F_OK) != 0)
		hint = "; /dev/fuse is missing: load the kernel's module with 'modprobe fuse'";
	else if (geteuid() != 0 && access("/dev/fuse", R_OK | W_OK) != 0)
		hint = "; /dev/fuse is closed to you: it should have mode 0666";
	else if (strstr(message, "user_allow_other") != NULL)
		hint = "; or mount without allow_other and allow_root";
	g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED, "cannot mount on %s: %s%s",
	    fs->options.mountpoint, last != NULL ? last + 1 : message, hint);
}

bool fs_mount(struct fs *fs, GError **error)
{
	struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
	char message[2048];

	fs_build_arguments(fs, &arguments);
	fs->session = fuse_session_new(&arguments, &tree_ops, sizeof tree_ops, fs);
	fuse_opt_free_args(&arguments);
	if (fs->session == NULL) {
		g_set_error(
		    error, LUNFS_ERROR, LUNFS_ERROR_FAILED, "libfuse does not take these options");
		return false;
	}
	if (mount_caught(fs->session, fs->options.mountpoint, message, sizeof message) != 0) {
		fs_explain(fs, message, error);
		g_clear_pointer(&fs->session, fuse_session_destroy);
		return false;
	}
	fs->channel = channel_new(fs);
	return true;
}

/* ---- flushing all ---- */

struct flush_all {
	struct fs *fs;
	unsigned left;
	int error;
	void (*progress)(const char *name, int error, unsigned left, void *data);
	void (*done)(int error, void *data);
	void *data;
	struct loop_work nothing_to_do;
};

struct flush_one {
	struct io io;
	struct content *content;
	uint64_t written;
	struct flush_all *all;
};

static void flush_all_done(struct flush_all *all)
{
	all->done(all->error, all->data);
	g_free(all);
}

static void flush_all_nothing(struct loop_work *work)
{
	flush_all_done(
	    (struct flush_all *)((char *)work - offsetof(struct flush_all, nothing_to_do)));
}

static void flush_one_done(struct io *io, int error)
{
	struct flush_one *one = (struct flush_one *)io;
	struct flush_all *all = one->all;

	if (error == 0)
		content_flushed(one->content, one->written);
	else if (all->error == 0)
		all->error = error;
	all->left--;
	content_flush_ended(one->content);
	if (all->progress != NULL)
		all->progress(content_name(one->content), error, all->left, all->data);
	g_free(one);
	if (all->left == 0)
		flush_all_done(all);
}

static void flush_one(struct flush_all *all, struct content *content)
{
	struct flush_one *one = g_new0(struct flush_one, 1);

	*one = (struct flush_one){.io = {.op = IO_FLUSH, .done = flush_one_done},
	    .content = content,
	    .written = content->written,
	    .all = all};
	all->left++;
	content_flush_begins(content);
	block_submit(content->block, &one->io);
}

void fs_flush(struct fs *fs, struct node *top,
    void (*progress)(const char *name, int error, unsigned left, void *data),
    void (*done)(int error, void *data), void *data)
{
	struct flush_all *all = g_new0(struct flush_all, 1);
	unsigned visit = ++fs->visits;

	*all = (struct flush_all){.fs = fs,
	    .progress = progress,
	    .done = done,
	    .data = data,
	    .nothing_to_do.run = flush_all_nothing};
	if (top == NULL)
		top = fs->root;
	for (struct node *node = top; node != NULL; node = node_next(top, node)) {
		struct content *content = node->removed ? NULL : node->content;

		if (content == NULL || content->visit == visit || !content_is_unflushed(content))
			continue;
		content->visit = visit; /* its other files are done with it */
		flush_one(all, content);
	}
	if (all->left == 0)
		loop_defer(fs->loop, &all->nothing_to_do);
}

void fs_refuse_writes(struct fs *fs)
{
	fs->refuses_writes = true;
}

bool fs_is_unflushed(const struct fs *fs)
{
	for (const struct node *node = fs->root; node != NULL; node = node_next(fs->root, node))
		if (!node->removed && node->content != NULL && content_is_unflushed(node->content))
			return true;
	return false;
}

/* ---- the end ---- */

void fs_cancel_all(struct fs *fs)
{
	struct request *request;

	for (fs->cursor = fs->requests; (request = fs->cursor) != NULL;) {
		fs->cursor = request->next;
		request_abandon(request, EIO);
	}
}

void fs_abort(struct fs *fs)
{
	fs->refuses_writes = fs->aborted = true;
	fs_cancel_all(fs);
}

unsigned fs_outstanding(const struct fs *fs)
{
	return fs->outstanding + fs->flushing;
}

/* Of all nodes, also those that were removed. */
static void fs_stop_crossings(struct fs *fs)
{
	GHashTableIter iter;
	gpointer node;

	g_hash_table_iter_init(&iter, fs->nodes);
	while (g_hash_table_iter_next(&iter, NULL, &node))
		loop_remove(&((struct node *)node)->crossing);
}

void fs_free(struct fs *fs)
{
	if (fs == NULL)
		return;
	/* What comes while the last pages are dropped needs no target any more. */
	fs_abort(fs);
	removals_free(fs);
	fs_stop_crossings(fs);
	invalidators_await(fs);
	channel_free(fs->channel);
	if (fs->session != NULL) {
		fuse_session_unmount(fs->session);
		fuse_session_destroy(fs->session);
	}
	nodes_free(fs);
	invalidator_free(fs->invalidator);
	slab_clear(&fs->requests_slab);
	slab_clear(&fs->handles_slab);
	g_free(fs);
}
