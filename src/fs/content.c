/*
 * content.c - the bytes behind one file or several: what of them is stable, what is told when some
 * may not be there, and what the block below has to say.
 *
 * What was written counts, and a FLUSH covers what was done when it was sent: the difference is
 * unflushed. Files over one block share that, so an fsync of one makes the writes of all stable.
 *
 * An error that nobody waits for is told to each handle that was open, once, at its next fsync or
 * close; and where none was told yet, to those opened later, too (as Linux does: errseq_t).
 */
#include <errno.h>
#include <string.h>

#include "internal.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"

/* ---- flushed, or not ---- */

bool content_is_unflushed(const struct content *content)
{
	return content->written != content->flushed || content->writes_in_flight > 0;
}

void content_flushed(struct content *content, uint64_t written)
{
	content->flushed = MAX(content->flushed, written);
	content->doubtful = false;
}

const char *content_name(const struct content *content)
{
	return content->nodes->title;
}

/* Of what was acknowledged some may not be there, or may never be. */
static void content_lose(struct content *content, const char *what)
{
	content->loss++;
	content->loss_error = -EIO;
	if (log_limit_passes(&content->log, content_name(content)))
		log_warning_of(content_name(content), "%s", what);
}

/* ---- the flush that nobody waits for ---- */

void content_flush_begins(struct content *content)
{
	content->flushes++;
	content->fs->flushing++;
}

void content_flush_ended(struct content *content)
{
	content->fs->flushing--;
	if (--content->flushes == 0)
		removed_sweep_later(content->fs);
}

static bool content_is_removed(const struct content *content)
{
	for (const struct node *node = content->nodes; node != NULL; node = node->sibling)
		if (!node->removed)
			return false;
	return true;
}

static void content_written_out(struct io *io, int error)
{
	struct content *content =
	    (struct content *)((char *)io - offsetof(struct content, write_out));
	struct fs *fs = content->fs;
	bool again = content->write_out_again;

	io->done = NULL;
	content_flush_ended(content);
	if (error == 0) {
		content_flushed(content, content->write_out_written);
		if (again)
			content_write_out(content);
	} else if (!fs->refuses_writes && !content_is_removed(content) &&
	           log_limit_passes(&content->log, content_name(content))) {
		/* kept below, and unflushed: the next sync tries again */
		log_warning_of(content_name(content),
		    "what was written could not be flushed yet: %s", g_strerror(-error));
	}
}

void content_write_out(struct content *content)
{
	struct fs *fs = content->fs;

	if (!content_is_unflushed(content) || content_is_removed(content) || fs->aborted)
		return;
	if (content->write_out.done != NULL) {
		content->write_out_again = true;
		return;
	}
	content->write_out_again = false;
	content->write_out_written = content->written;
	content->write_out =
	    (struct io){.op = IO_FLUSH, .done = content_written_out, .cancelled = &fs->aborted};
	content_flush_begins(content);
	block_submit(content->block, &content->write_out);
}

/* ---- files that are written crosswise ---- */

/*
 * Around a request the kernel changes pages by itself: what is written it has there before it sends
 * that, and what is punched out it zeroes after the answer. Where another file's write and the drop
 * for it come in between, and a READ brings the page again, that is not what the target has. So
 * what was changed through a file whose pages are dropped for others is dropped once more.
 */
#define CROSSING_MS 300u

static void node_crossing_over(void *data)
{
	struct node *node = data;
	uint64_t start = node->changed_start, end = node->changed_end;

	loop_remove(&node->crossing);
	node->changed_start = node->changed_end = 0;
	if (clock_ms() - node->crossed_ms <= 2 * (int64_t)CROSSING_MS &&
	    node_is_cached(node, start, end))
		invalidator_drop(node, start, end, NULL, NULL);
}

void content_changed(struct node *node, uint64_t start, uint64_t end)
{
	if (node->content->nodes->sibling == NULL || node->removed)
		return;
	node->changed_start = node->changed_end == 0 ? start : MIN(node->changed_start, start);
	node->changed_end = MAX(node->changed_end, end);
	if (node->crossing == NULL)
		node->crossing = loop_timer(node->fs->loop, CROSSING_MS, node_crossing_over, node);
}

/* ---- fsync, and close ---- */

static void reply_flushed(struct request *request)
{
	struct content *content = request->node->content;
	struct handle *handle = request->handle;

	if (request->error == 0)
		content_flushed(content, request->written);
	if (handle->loss != content->loss) {
		handle->loss = content->told = content->loss;
		request->error = content->loss_error;
	}
	fuse_reply_err(request->req, -request->error);
}

/* Is there something to flush, or a loss to tell? */
static bool handle_has_news(const struct handle *handle)
{
	const struct content *content = handle->node->content;

	return content_is_unflushed(content) || handle->loss != content->loss;
}

static void handle_flush(fuse_req_t req, struct handle *handle)
{
	struct fs *fs = fuse_req_userdata(req);

	if (fs->aborted) {
		fuse_reply_err(req, EIO);
		return;
	}
	struct request *request = request_new(fs, req, handle->node, handle, reply_flushed);
	request->io.op = IO_FLUSH;
	request_submit(request);
}

void file_flush(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *info)
{
	struct handle *handle = handle_of(info);

	(void)id;
	if (!handle->writable)
		fuse_reply_err(req, 0);
	else if (handle->node->removed)
		fuse_reply_err(req, EIO);
	else if (handle_has_news(handle))
		handle_flush(req, handle);
	else
		fuse_reply_err(req, 0);
}

void file_fsync(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *info)
{
	struct handle *handle = handle_of(info);

	(void)id;
	(void)datasync;
	if (handle->node->kind != NODE_DISK)
		fuse_reply_err(req, 0);
	else if (handle->node->removed)
		fuse_reply_err(req, EIO);
	else if (handle->node->content->doubtful || handle_has_news(handle))
		handle_flush(req, handle);
	else
		fuse_reply_err(req, 0);
}

/* ---- what the block tells ---- */

/*
 * The kernel drops what it knows of the size, and its pages from the smaller of both on, also where
 * it grew: of the page that the old end lay in it has the rest as zeros, and maybe more such pages,
 * from READs beyond the end that came before it knew.
 */
static void node_resized(struct node *node)
{
	uint64_t size = node->block->size;
	uint64_t start = MIN(node->size, size);

	node->size = size;
	if (!node->fs->greeted)
		return;
	for (struct handle *handle = node->handles; handle != NULL; handle = handle->next)
		if (handle->mark != MARK_NONE)
			handle->mark = MIN(handle->mark, size);
	/* cached_end stays: those pages are there until they are dropped. */
	invalidator_drop(node, start - start % node->fs->page_size, END_OF_FILE, NULL, NULL);
}

static void node_event(struct node *node, enum block_event event)
{
	if (node->removed)
		return;
	if (event == BLOCK_RESIZED)
		node_resized(node);
	else if (event == BLOCK_CHANGED && node->fs->greeted)
		invalidator_drop(node, 0, END_OF_FILE, NULL, NULL);
}

/*
 * LOST alone changes nothing here: below, what was written is kept and written again, and so the
 * kernel's pages are as good as before.
 */
static void content_event(struct block *block, enum block_event event, void *data)
{
	struct content *content = data;

	(void)block;
	if (event == BLOCK_FORGOTTEN && content->written != content->flushed)
		content_lose(content, "the target may have lost writes that were not yet synced");
	else if (event == BLOCK_UNWRITTEN)
		content_lose(
		    content, "what was written could not be written out; kept and tried again");
	else if (event == BLOCK_FENCED) /* comes behind what it makes the layers below forget */
		content->loss_error = -EBADE;
	for (struct node *node = content->nodes; node != NULL; node = node->sibling)
		node_event(node, event);
}

/* ---- life ---- */

void content_attach(struct node *node, struct block *block)
{
	struct node **end;

	if (block->on_event != content_event) {
		struct content *content = g_new0(struct content, 1);

		content->fs = node->fs;
		content->block = block;
		content->doubtful = true;
		block->on_event = content_event;
		block->on_event_data = content;
	}
	node->title = node->parent != NULL && node->parent != node->fs->root
	                  ? g_strdup_printf("%s/%s", node->parent->name, node->name)
	                  : g_strdup(node->name);
	node->block = block;
	node->content = block->on_event_data;
	for (end = &node->content->nodes; *end != NULL;)
		end = &(*end)->sibling;
	*end = node;
}

void content_detach(struct node *node)
{
	struct content *content = node->content;
	struct node **link = &content->nodes;

	loop_remove(&node->crossing);
	while (*link != node)
		link = &(*link)->sibling;
	*link = node->sibling;
	if (content->nodes != NULL)
		return;
	content->block->on_event = NULL; /* the sessions below end later, and say so */
	g_free(content);
}
