/*
 * remove.c - how nodes leave the tree while it is mounted.
 *
 * The names go at once, and who waits for a request of a removed file is answered. But its I/O ends
 * by itself, below, and until then it needs the block: the file is leaving. When it has left it is
 * a tombstone, for those who have it open and for the kernel, which knows its id; and when these
 * have let go of it, too, it is freed.
 *
 * Leaving is looked at from the end of a turn only, where no request is halfway through a content
 * that would go.
 */
#include <errno.h>

#include "internal.h"
#include "lunfs/loop.h"

/* One fs_remove(). */
struct removal {
	struct removal *next;
	unsigned waiting; /* disks that have not left */
	void (*released)(void *data);
	void *data;
};

/* ---- leaving ---- */

static bool node_may_leave(const struct node *node)
{
	const struct content *content = node->content;
	bool last = content->nodes == node && node->sibling == NULL;

	return node->requests == 0 && (!last || content->flushes == 0);
}

static void node_leave(struct node *node)
{
	content_detach(node);
	node->content = NULL;
	node->block = NULL;
	node->removal->waiting--;
	node->removal = NULL;
	node_unref(node, 1);
}

static struct removal *removals_take_done(struct fs *fs)
{
	for (struct removal **link = &fs->removals; *link != NULL; link = &(*link)->next) {
		struct removal *removal = *link;

		if (removal->waiting == 0) {
			*link = removal->next;
			return removal;
		}
	}
	return NULL;
}

static void removed_sweep(struct loop_work *work)
{
	struct fs *fs = container_of(work, struct fs, sweep);
	struct removal *removal;

	for (unsigned i = 0; i < fs->leaving->len;) {
		struct node *node = g_ptr_array_index(fs->leaving, i);

		if (node_may_leave(node)) {
			g_ptr_array_remove_index(fs->leaving, i);
			node_leave(node);
		} else {
			i++;
		}
	}
	while ((removal = removals_take_done(fs)) != NULL) {
		if (removal->released != NULL)
			removal->released(removal->data); /* which may remove more */
		g_free(removal);
	}
}

void removed_sweep_later(struct fs *fs)
{
	fs->sweep.run = removed_sweep;
	if (fs->removals != NULL)
		loop_defer(fs->loop, &fs->sweep);
}

void removals_free(struct fs *fs)
{
	struct removal *removal;

	loop_cancel(fs->loop, &fs->sweep);
	while ((removal = fs->removals) != NULL) {
		fs->removals = removal->next;
		g_free(removal);
	}
	g_ptr_array_unref(fs->leaving);
}

/* ---- removing ---- */

static void disk_begins_to_leave(struct node *node, struct removal *removal)
{
	loop_remove(&node->crossing);
	node->size = node->block->size;
	node->removal = removal;
	removal->waiting++;
	g_ptr_array_add(node->fs->leaving, node_ref(node));
	/* Mapped pages are to be gone, too. */
	if (node->cached_end != 0 && node->fs->greeted)
		invalidator_drop(node, 0, END_OF_FILE, NULL, NULL);
	node->cached_start = node->cached_end = 0;
	invalidator_end_if_idle(node);
}

/* What is in it was removed before. */
static void node_remove(struct node *node, struct removal *removal)
{
	struct node *parent = node->parent;

	if (parent != NULL) {
		if (node->fs->greeted)
			invalidator_tell_gone(node);
		g_ptr_array_remove_index(parent->children, node_child_from(parent, node->id));
		g_hash_table_remove(parent->names, node->name);
		node->parent = NULL;
	}
	node->removed = true;
	node->fs->names--;
	clock_gettime(CLOCK_REALTIME, &node->ctime);
	if (node->kind == NODE_DISK)
		disk_begins_to_leave(node, removal);
}

static void removed_answer_requests(struct fs *fs)
{
	struct request *request;

	for (fs->cursor = fs->requests; (request = fs->cursor) != NULL;) {
		fs->cursor = request->next;
		if (request->node->removed)
			request_abandon(request, EIO);
	}
}

void fs_remove(struct fs *fs, struct node *top, void (*released)(void *data), void *data)
{
	g_autoptr(GPtrArray) nodes = g_ptr_array_new();
	struct removal *removal = g_new0(struct removal, 1);
	struct node *parent = top->parent;

	*removal = (struct removal){.next = fs->removals, .released = released, .data = data};
	fs->removals = removal;
	for (struct node *node = top; node != NULL; node = node_next(top, node))
		g_ptr_array_add(nodes, node);
	for (unsigned i = nodes->len; i-- > 0;)
		node_remove(g_ptr_array_index(nodes, i), removal);
	if (parent != NULL)
		node_entries_changed(parent);
	removed_answer_requests(fs);
	/* The root is the kernel's for ever. */
	for (unsigned i = 0; i < nodes->len; i++)
		if (g_ptr_array_index(nodes, i) != fs->root)
			node_unref(g_ptr_array_index(nodes, i), 1);
	removed_sweep_later(fs);
}
