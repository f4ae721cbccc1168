/*
 * node.c - the nodes of the tree: how they are made, found, held, and freed.
 *
 * Owns all nodes, those that were removed among them, by their ids (fs->nodes). A directory has its
 * children by age and by name; remove.c takes them out again.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "internal.h"
#include "lunfs/loop.h"

static gpointer id_key(fuse_ino_t id)
{
	return GSIZE_TO_POINTER((gsize)id);
}

struct node *node_find(const struct fs *fs, fuse_ino_t id)
{
	return g_hash_table_lookup(fs->nodes, id_key(id));
}

unsigned node_child_from(const struct node *directory, fuse_ino_t id)
{
	unsigned low = 0, high = directory->children->len;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const struct node *child = g_ptr_array_index(directory->children, middle);

		if (child->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct node *node_next(const struct node *top, const struct node *node)
{
	if (node->children != NULL && node->children->len > 0)
		return g_ptr_array_index(node->children, 0);
	for (; node != top; node = node->parent) {
		const GPtrArray *children = node->parent->children;
		unsigned next = node_child_from(node->parent, node->id) + 1;

		if (next < children->len)
			return g_ptr_array_index(children, next);
	}
	return NULL;
}

bool fs_has_name(const struct node *parent, const char *name)
{
	return g_hash_table_contains(parent->names, name);
}

static bool node_is_open(const struct node *node)
{
	if (node->kind == NODE_DISK)
		return node->handles != NULL;
	for (guint i = 0; node->children != NULL && i < node->children->len; i++)
		if (node_is_open(g_ptr_array_index(node->children, i)))
			return true;
	return false;
}

bool fs_is_open(const struct fs *fs, const struct node *top)
{
	return node_is_open(top != NULL ? top : fs->root);
}

/* ---- making ---- */

/* FNV-1a, 64 bits: the same number for the same identity, everywhere. */
static uint64_t hash_identity(const char *identity)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (const char *c = identity; *c != '\0'; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
	/* Some programs keep inode numbers in 63 bits, and 0 and 1 have meanings. */
	return (hash >> 1) | 2;
}

/* mode is what it would be without a umask. */
static struct node *node_new(struct fs *fs, struct node *parent, enum node_kind kind,
    const char *name, const char *identity, mode_t mode, const struct fs_owner *owner)
{
	struct node *node = g_new0(struct node, 1);

	if (owner == NULL)
		owner = &parent->owner;
	*node = (struct node){
	    .fs = fs,
	    .parent = parent,
	    .id = ++fs->last_id,
	    .references = 1, /* the tree's */
	    .ino = hash_identity(identity),
	    .kind = kind,
	    .name = g_strdup(name),
	    .owner = *owner,
	    .mode = kind == NODE_LINK ? mode : mode & ~owner->umask,
	    .uid = owner->uid,
	    .gid = owner->gid,
	};
	clock_gettime(CLOCK_REALTIME, &node->mtime);
	node->atime = node->ctime = node->mtime;
	if (kind == NODE_DIRECTORY) {
		node->children = g_ptr_array_new();
		node->names = g_hash_table_new(g_str_hash, g_str_equal);
	}
	g_hash_table_insert(fs->nodes, id_key(node->id), node);
	fs->names++;
	if (parent != NULL) {
		assert(parent->kind == NODE_DIRECTORY && !parent->removed);
		assert(!fs_has_name(parent, name));
		g_ptr_array_add(parent->children, node);
		g_hash_table_insert(parent->names, node->name, node);
		node_entries_changed(parent);
	} else {
		assert(node->id == FUSE_ROOT_ID);
		fs->root = node;
	}
	return node;
}

static struct fs_owner fs_owner(const struct fs *fs)
{
	return (struct fs_owner){fs->options.uid, fs->options.gid, fs->options.umask};
}

struct node *fs_root(struct fs *fs)
{
	const struct fs_owner owner = fs_owner(fs);

	if (fs->root == NULL)
		node_new(fs, NULL, NODE_DIRECTORY, "", "root", S_IFDIR | 0555, &owner);
	return fs->root;
}

struct node *fs_add_directory(struct fs *fs, struct node *parent, const char *name,
    const char *identity, const struct fs_owner *owner)
{
	return node_new(fs, parent, NODE_DIRECTORY, name, identity, S_IFDIR | 0555, owner);
}

/* Of what has none of its own: where it is. */
static char *identity_of_place(const struct node *parent, const char *name)
{
	return g_strdup_printf("%" PRIu64 "/%s", parent->ino, name);
}

struct node *fs_add_link(struct fs *fs, struct node *parent, const char *name, const char *target)
{
	g_autofree char *identity = identity_of_place(parent, name);
	struct node *node = node_new(fs, parent, NODE_LINK, name, identity, S_IFLNK | 0777, NULL);

	node->target = g_strdup(target);
	return node;
}

struct node *fs_add_text(
    struct fs *fs, struct node *parent, const char *name, char *(*make)(void *data), void *data)
{
	g_autofree char *identity = identity_of_place(parent, name);
	struct node *node = node_new(fs, parent, NODE_TEXT, name, identity, S_IFREG | 0444, NULL);

	node->make = make;
	node->make_data = data;
	return node;
}

struct node *fs_add_disk(struct fs *fs, struct node *parent, const char *name, const char *identity,
    struct block *block, bool read_only, const char *const *attributes)
{
	bool is_root = fs->options.root_is_file;
	const struct fs_owner owner = is_root ? fs_owner(fs) : parent->owner;
	struct node *node = node_new(fs, is_root ? NULL : parent, NODE_DISK, name, identity,
	    S_IFREG | (read_only ? 0444 : 0666), &owner);

	content_attach(node, block);
	node->size = block->size;
	node->read_only = read_only;
	node->attributes = g_strdupv((char **)attributes);
	return node;
}

void node_entries_changed(struct node *directory)
{
	clock_gettime(CLOCK_REALTIME, &directory->mtime);
	directory->ctime = directory->mtime;
	if (directory->fs->greeted)
		invalidator_tell_changed(directory);
}

/* ---- holding, and freeing ---- */

struct node *node_ref(struct node *node)
{
	node->references++;
	return node;
}

static void node_free(void *data)
{
	struct node *node = data;

	/* at the end of the mount only: whoever has it open holds it */
	for (struct handle *handle = node->handles; handle != NULL; handle = handle->next)
		g_clear_pointer(&handle->text, g_bytes_unref);
	if (node->content != NULL)
		content_detach(node);
	invalidator_free(node->invalidator);
	g_clear_pointer(&node->children, g_ptr_array_unref);
	g_clear_pointer(&node->names, g_hash_table_unref);
	g_clear_pointer(&node->text, g_bytes_unref);
	g_strfreev(node->attributes);
	g_free(node->target);
	g_free(node->name);
	g_free(node->title);
	g_free(node);
}

void node_unref(struct node *node, uint64_t references)
{
	assert(node->references >= references);
	node->references -= references;
	if (node->references > 0)
		return;
	assert(node->removed && node->content == NULL && node->handles == NULL);
	g_hash_table_remove(node->fs->nodes, id_key(node->id));
	node_free(node);
}

void nodes_free(struct fs *fs)
{
	GHashTableIter iter;
	gpointer node;

	g_hash_table_iter_init(&iter, fs->nodes);
	while (g_hash_table_iter_next(&iter, NULL, &node))
		node_free(node);
	g_hash_table_unref(fs->nodes);
}
