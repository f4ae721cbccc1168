/*
 * file.c - a disk as a file: open, read, write, truncate.
 *
 * The size is the capacity and stays. But a handle that truncated believes in a shorter file, and
 * programs then skip holes; so it has a mark, where its file ends, and what it writes beyond the
 * mark is preceded by zeros from the mark on (DESIGN, semantics 6).
 *
 * Whether a request bypasses the kernel's pages is seen from itself: a direct one carries a lock
 * owner, a buffered one does not. Flags of the handle tell less: losetup --direct-io does not set
 * O_DIRECT on it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <string.h>

#include "internal.h"
#include "lunfs/log.h"

#ifndef FOPEN_NOFLUSH
#define FOPEN_NOFLUSH (1 << 5)
#endif
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif

/*
 * Dropping a page may wait for our own reply: ftruncate() holds back the write-out of changed pages
 * until it is answered, and a buffered WRITE has the page that it begins in locked, if that was not
 * read before. Dropping is waited for no longer than this then.
 */
#define TRUNCATE_DROP_MS 1000u
#define WRITE_DROP_MS    50u

static bool is_direct(const struct fuse_file_info *info)
{
	return !info->writepage && (info->lock_owner != 0 || (info->flags & O_DIRECT) != 0);
}

/* ---- open and release ---- */

void handle_free(struct handle *handle)
{
	struct node *node = handle->node;

	if (handle->prev != NULL)
		handle->prev->next = handle->next;
	else
		node->handles = handle->next;
	if (handle->next != NULL)
		handle->next->prev = handle->prev;
	if (!handle->direct)
		node->cached_handles--;
	if (handle->text != NULL)
		g_bytes_unref(handle->text);
	slab_put(&node->fs->handles_slab, handle);
	node_unref(node, 1);
}

static struct handle *handle_new(struct node *node, fuse_req_t req, int flags)
{
	struct handle *handle = slab_get(&node->fs->handles_slab);

	*handle = (struct handle){
	    .node = node_ref(node),
	    .next = node->handles,
	    .opener = fuse_req_ctx(req)->pid,
	    .writable = (flags & O_ACCMODE) != O_RDONLY,
	    .direct = (flags & O_DIRECT) != 0 || node->kind == NODE_TEXT,
	    .mark = MARK_NONE,
	    .loss = node->content != NULL ? node->content->told : 0,
	    .text = node->kind == NODE_TEXT ? text_open(node) : NULL,
	};
	if (node->handles != NULL)
		node->handles->prev = handle;
	node->handles = handle;
	if (!handle->direct)
		node->cached_handles++;
	return handle;
}

static void reply_open(fuse_req_t req, struct handle *handle)
{
	/* libfuse 3.14 has no field for two of these. */
	struct fuse_open_out out = {
	    .fh = (uintptr_t)handle,
	    .open_flags =
	        handle->direct ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : FOPEN_KEEP_CACHE,
	};

	if (!handle->writable)
		out.open_flags |= FOPEN_NOFLUSH;
	/* Who was killed meanwhile will not release it. */
	if (fuse_reply_buf(req, (const char *)&out, sizeof out) == -ENOENT)
		handle_free(handle);
}

/* All pages of the node were dropped, after it had had so many fills. */
static void node_pages_dropped(struct node *node, uint64_t fills)
{
	if (node->cache_fills == fills)
		node->cached_start = node->cached_end = 0;
}

static void node_fill_cache(struct node *node, uint64_t start, uint64_t end)
{
	node->cached_start = node->cached_end == 0 ? start : MIN(node->cached_start, start);
	node->cached_end = MAX(node->cached_end, end);
	node->cache_fills++;
}

static void reply_opened(struct request *request)
{
	struct node *node = request->node;

	node_pages_dropped(node, request->fills);
	reply_open(request->req, request->handle);
}

/* An errno. */
static int node_refuses_open(const struct node *node, int flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;

	if (node == NULL || node->kind == NODE_LINK)
		return ENOENT;
	if (node->kind == NODE_DIRECTORY)
		return EISDIR;
	/* With ESTALE the kernel walks the path anew, to what may have the name now. */
	if (node->removed)
		return node->id == FUSE_ROOT_ID ? EIO : ESTALE;
	if (node->kind == NODE_TEXT)
		return writes ? EACCES : 0;
	return writes && node->read_only ? EROFS : 0;
}

void file_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *info)
{
	struct fs *fs = fuse_req_userdata(req);
	struct node *node = node_find(fs, id);
	int error = node_refuses_open(node, info->flags);

	if (error != 0) {
		fuse_reply_err(req, error);
		return;
	}
	struct handle *handle = handle_new(node, req, info->flags);
	if (!handle->direct || node->cached_end == 0 || node->cached_handles > 0 || fs->aborted) {
		reply_open(req, handle);
		return;
	}
	/* The kernel's pages go once and for all, so that no direct WRITE needs to wait for it
	 * (SAFETY.md 21). */
	struct request *request = request_new(fs, req, node, handle, reply_opened);
	request->opens = true;
	request->stale_end = node->block->size;
	request->fills = node->cache_fills;
	request_drop_and_reply(request);
}

void file_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *info)
{
	struct handle *handle = handle_of(info);
	struct node *node = handle->node;

	(void)id;
	fuse_reply_err(req, 0);
	/* Not every close flushes: that of a loop device does not. */
	if (handle->writable && !node->removed)
		content_write_out(node->content);
	handle_free(handle);
}

/* ---- read ---- */

static void reply_read(struct request *request)
{
	const struct io *io = &request->io;

	if (request->error != 0)
		fuse_reply_err(request->req, -request->error);
	else if (io->length == 0)
		fuse_reply_buf(request->req, NULL, 0);
	else if (io->niov == 1)
		fuse_reply_buf(request->req, io->iov->iov_base, io->length);
	else
		fuse_reply_iov(request->req, io->iov, io->niov);
}

void file_read(
    fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *info)
{
	struct fs *fs = fuse_req_userdata(req);
	struct handle *handle = handle_of(info);
	struct node *node = handle->node;
	uint64_t start = (uint64_t)offset;

	(void)id;
	if (node->kind == NODE_TEXT) {
		text_reply(req, handle, size, offset);
		return;
	}
	if (node->removed) {
		fuse_reply_err(req, EIO);
		return;
	}
	if (start >= node->block->size || size == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	if (fs->aborted) {
		fuse_reply_err(req, EIO);
		return;
	}
	struct request *request = request_new(fs, req, node, handle, reply_read);
	request->io.op = IO_READ;
	request->io.offset = start;
	request->io.length = MIN(MIN(size, TRANSFER_MAX), node->block->size - start);
	if (is_direct(info)) {
		request->io.flags = IO_DIRECT;
	} else {
		node_fill_cache(node, start, start + request->io.length);
		if (node->block->limits.lends)
			request->io.flags = IO_LEND;
		request->io.reader = info->fh;
	}
	request_read(request);
}

/* ---- the mark ---- */

/* The handle is about to have content up to start, and to reach to end: zeros between, where they
 * are due. */
static void request_zero_gap(
    struct request *request, struct handle *handle, uint64_t start, uint64_t end)
{
	if (handle->mark == MARK_NONE)
		return;
	request->zero_mark = handle->mark;
	if (start > handle->mark) {
		request->zero.offset = request->stale_start = handle->mark;
		request->zero.length = start - handle->mark;
		request->stale_end = start;
	}
	request->own_mark = handle->mark = MAX(handle->mark, end);
}

/* Did not work: what was to be zero may be old, and is still due. */
static void request_restore_mark(struct request *request)
{
	if (request->error != 0 && request->zero.length != 0)
		request->handle->mark = MIN(request->handle->mark, request->zero_mark);
}

/* ---- write ---- */

static void reply_write(struct request *request)
{
	request_restore_mark(request);
	if (request->error != 0)
		fuse_reply_err(request->req, -request->error);
	else
		fuse_reply_write(request->req, request->io.length);
}

/* What came stays where it is: in frames, which the request holds from here on. */
static bool request_take_data(struct request *request)
{
	struct channel *channel = request->fs->channel;
	int runs = channel_runs(channel, request->io.length);

	if (runs > OWN_IOVECS) {
		request->iov = pool_get(request->fs->pool, (size_t)runs * sizeof *request->iov);
		if (request->iov == NULL)
			return false;
	}
	request->runs = runs;
	channel_take(channel, request->io.length, request->iov);
	request->io.iov = request->iov;
	request->io.niov = runs;
	return true;
}

void file_write(fuse_req_t req, fuse_ino_t id, const char *data, size_t size, off_t offset,
    struct fuse_file_info *info)
{
	struct fs *fs = fuse_req_userdata(req);
	struct handle *handle = handle_of(info);
	struct node *node = handle->node;
	uint64_t start = (uint64_t)offset;

	(void)id;
	(void)data; /* it is not there: see channel.c */
	if (node->removed) {
		fuse_reply_err(req, EIO);
		return;
	}
	if (node->read_only || start >= node->block->size) {
		fuse_reply_err(req, node->read_only ? EROFS : ENOSPC);
		return;
	}
	if (fs->refuses_writes) {
		fuse_reply_err(req, EIO);
		return;
	}
	size_t length = MIN(size, node->block->size - start);
	struct request *request = request_new(fs, req, node, handle, reply_write);
	request->io = (struct io){.op = IO_WRITE, .offset = start, .length = length};
	if (!request_take_data(request)) {
		request_abandon(request, ENOMEM);
		request_free(request);
		return;
	}
	request->writes = true;
	request->writeback = info->writepage;
	if (info->flags & (O_DSYNC | O_SYNC))
		request->io.flags = request->zero.flags = IO_FUA;
	/* A page written back comes through any handle of the file: no mark is its own. */
	if (!info->writepage)
		request_zero_gap(request, handle, start, start + length);
	/*
	 * A buffered writer may have its first page locked until it is answered: that one, where
	 * the zeros end in it, or in the way of whatever else is to be dropped before; or of what
	 * another file of the content waits for, for whose pages this one waits.
	 */
	request->drop_bound_ms = request->zero.length != 0 || !is_direct(info) ? WRITE_DROP_MS : 0;
	if (is_direct(info)) {
		request->io.flags |= IO_DIRECT;
		request->stale_start = request->zero.length != 0 ? request->stale_start : start;
		request->stale_end = start + length;
	} else {
		if (!node_is_cached(node, start - start % fs->page_size, start))
			request->stale_end = MIN(request->stale_end, start - start % fs->page_size);
		node_fill_cache(node, start, start + length);
	}
	request_submit(request);
}

/* ---- truncate and allocate ---- */

static void reply_truncated(struct request *request)
{
	request_restore_mark(request);
	if (request->error != 0)
		fuse_reply_err(request->req, -request->error);
	else
		attributes_reply(request->req, request->node);
}

/* O_TRUNC is a truncation without a handle, by the thread that opened it just before. */
static struct handle *handle_just_opened(const struct node *node, pid_t thread)
{
	for (struct handle *handle = node->handles; handle != NULL; handle = handle->next)
		if (handle->writable && handle->opener == thread)
			return handle;
	return NULL;
}

/* The mark was set: pages beyond it are as good as gone. */
static void reply_mark_set(struct request *request)
{
	if (request->drops == 0 && request->stale_start == 0)
		node_pages_dropped(request->node, request->fills);
	attributes_reply(request->req, request->node);
}

static void file_set_mark(fuse_req_t req, struct handle *handle, uint64_t mark)
{
	struct node *node = handle->node;

	handle->mark = mark;
	if (!node_is_cached(node, mark, node->block->size)) {
		attributes_reply(req, node);
		return;
	}
	/* Dropped now they are out of the way when the writes come. */
	struct request *request = request_new(node->fs, req, node, handle, reply_mark_set);
	request->stale_start = mark;
	request->stale_end = node->block->size;
	request->drop_bound_ms = TRUNCATE_DROP_MS;
	request->fills = node->cache_fills;
	request_drop_and_reply(request);
}

static int node_refuses_truncate(const struct node *node)
{
	if (node->kind != NODE_DISK)
		return node->kind == NODE_DIRECTORY ? EISDIR : EACCES;
	return node->removed ? EIO : EROFS;
}

void file_truncate(fuse_req_t req, struct node *node, uint64_t size, struct fuse_file_info *info)
{
	struct handle *handle =
	    info != NULL ? handle_of(info) : handle_just_opened(node, fuse_req_ctx(req)->pid);

	if (node->kind != NODE_DISK || node->removed || node->read_only) {
		fuse_reply_err(req, node_refuses_truncate(node));
	} else if (size > node->block->size) {
		fuse_reply_err(req, ENOSPC);
	} else if (info == NULL && (handle == NULL || size != 0)) {
		if (size == node->block->size)
			attributes_reply(req, node);
		else
			fuse_reply_err(req, EINVAL);
	} else if (handle->mark == MARK_NONE || size <= handle->mark) {
		file_set_mark(req, handle, size);
	} else if (node->fs->refuses_writes) {
		fuse_reply_err(req, EIO);
	} else {
		struct request *request = request_new(node->fs, req, node, handle, reply_truncated);

		request->writes = true;
		request->drop_bound_ms = TRUNCATE_DROP_MS;
		request_zero_gap(request, handle, size, size);
		request_submit(request);
	}
}

static void reply_done(struct request *request)
{
	request_restore_mark(request);
	fuse_reply_err(request->req, -request->error);
}

void file_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t length,
    struct fuse_file_info *info)
{
	struct fs *fs = fuse_req_userdata(req);
	struct handle *handle = handle_of(info);
	struct node *node = handle->node;
	uint64_t start = (uint64_t)offset, end = start + (uint64_t)length;
	bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
	bool zero = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;

	(void)id;
	if (node->removed) {
		fuse_reply_err(req, EIO);
		return;
	}
	if (node->read_only ||
	    (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
		fuse_reply_err(req, node->read_only ? EROFS : EOPNOTSUPP);
		return;
	}
	if (end > node->block->size && (!zero || !keep_size)) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	if (fs->refuses_writes) {
		fuse_reply_err(req, EIO);
		return;
	}
	end = MIN(end, node->block->size);
	struct request *request = request_new(fs, req, node, handle, reply_done);
	request->writes = true;
	request->drop_bound_ms = TRUNCATE_DROP_MS;
	if (zero && start < end)
		request->io = (struct io){.op = IO_ZERO, .offset = start, .length = end - start};
	/* Allocating makes a file longer, by zeros. */
	if (!keep_size)
		request_zero_gap(request, handle, zero ? MIN(start, end) : end, end);
	request->stale_start = request->zero.length != 0 ? request->stale_start : start;
	request->stale_end = end;
	if (request->io.length == 0 && request->zero.length == 0) {
		request->reply(request);
		request->req = NULL;
		request_free(request);
		return;
	}
	request_submit(request);
}
