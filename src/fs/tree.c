/*
 * tree.c - directories and names: what stands where.
 *
 * The kernel keeps what it learned, and is told by the invalidator when that is no longer so.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* Seconds for which the kernel may believe that a name is there, but for what it is told. */
#define ENTRY_TIMEOUT 3600.0

static unsigned directory_links(const struct node *directory)
{
	unsigned links = 2;

	for (unsigned i = 0; i < directory->children->len; i++)
		links += ((struct node *)g_ptr_array_index(directory->children, i))->kind ==
		         NODE_DIRECTORY;
	return links;
}

static uint64_t node_size(const struct node *node)
{
	if (node->kind == NODE_LINK)
		return strlen(node->target);
	return node->block != NULL ? node->block->size : node->size;
}

void tree_stat(const struct node *node, struct stat *stat)
{
	*stat = (struct stat){
	    .st_ino = node->ino,
	    .st_mode = node->mode,
	    .st_nlink = !node->removed,
	    .st_uid = node->uid,
	    .st_gid = node->gid,
	    .st_blksize = TRANSFER_MAX,
	    .st_atim = node->atime,
	    .st_mtim = node->mtime,
	    .st_ctim = node->ctime,
	};
	if (node->kind == NODE_DIRECTORY) {
		stat->st_nlink = node->removed ? 0 : directory_links(node);
		return;
	}
	uint64_t size = node_size(node);
	stat->st_size = (off_t)size;
	stat->st_blocks = (blkcnt_t)(size / 512 + (node->kind == NODE_TEXT && size % 512 != 0));
}

/* ---- names ---- */

/* For the call only; of what is gone only its id may be known. NULL: answered. */
static struct node *directory_of(fuse_req_t req, fuse_ino_t id)
{
	struct node *node = node_find(fuse_req_userdata(req), id);

	if (node != NULL && node->kind == NODE_DIRECTORY)
		return node;
	fuse_reply_err(req, node == NULL ? ENOENT : ENOTDIR);
	return NULL;
}

/*
 * The kernel remembers a name that is there until it is told, but none that is not: those are asked
 * for rarely, and what was just made is seen by whoever looks, without the kernel having been told.
 */
static void tree_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *directory = directory_of(req, parent);

	if (directory == NULL)
		return;
	/* With ESTALE it walks the path anew, asking for each name. */
	struct node *node = g_hash_table_lookup(directory->names, name);
	if (node == NULL) {
		fuse_reply_err(req, directory->removed ? ESTALE : ENOENT);
		return;
	}
	struct fuse_entry_param entry = {.ino = node->id,
	    .attr_timeout = attributes_timeout(node),
	    .entry_timeout = ENTRY_TIMEOUT};
	tree_stat(node, &entry.attr);
	node_ref(node)->lookups++;
	/* Who was killed meanwhile does not know it. */
	if (fuse_reply_entry(req, &entry) == -ENOENT) {
		node->lookups--;
		node_unref(node, 1);
	}
}

static void node_forget(struct node *node, uint64_t lookups)
{
	lookups = MIN(lookups, node->lookups);
	node->lookups -= lookups;
	node_unref(node, lookups);
}

static void tree_forget(fuse_req_t req, fuse_ino_t id, uint64_t lookups)
{
	struct node *node = node_find(fuse_req_userdata(req), id);

	if (node != NULL)
		node_forget(node, lookups);
	fuse_reply_none(req);
}

static void tree_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++) {
		struct node *node = node_find(fuse_req_userdata(req), forgets[i].ino);

		if (node != NULL)
			node_forget(node, forgets[i].nlookup);
	}
	fuse_reply_none(req);
}

static void tree_readlink(fuse_req_t req, fuse_ino_t id)
{
	const struct node *node = node_find(fuse_req_userdata(req), id);

	if (node != NULL && node->kind == NODE_LINK)
		fuse_reply_readlink(req, node->target);
	else
		fuse_reply_err(req, EINVAL);
}

/* ---- what is in a directory ---- */

/*
 * An entry's offset stands for all that came before it and for itself: children come by their ids,
 * which only grow, so who goes on after one neither misses nor repeats what stays.
 */
enum {
	OFFSET_DOT = 1,
	OFFSET_DOT_DOT,
	OFFSET_CHILD = 1
}; /* of a child: so much more than its id */

struct entry {
	const struct node *node;
	const char *name;
	off_t offset;
};

/* The first one after offset. */
static bool directory_entry(const struct node *directory, off_t offset, struct entry *entry)
{
	if (directory->removed)
		return false;
	if (offset < OFFSET_DOT) {
		*entry = (struct entry){directory, ".", OFFSET_DOT};
		return true;
	}
	if (offset < OFFSET_DOT_DOT) {
		*entry = (struct entry){directory->parent != NULL ? directory->parent : directory,
		    "..", OFFSET_DOT_DOT};
		return true;
	}
	unsigned i = node_child_from(directory, (fuse_ino_t)offset - OFFSET_CHILD + 1);
	if (i == directory->children->len)
		return false;
	const struct node *node = g_ptr_array_index(directory->children, i);
	*entry = (struct entry){node, node->name, (off_t)node->id + OFFSET_CHILD};
	return true;
}

static void tree_readdir(
    fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *info)
{
	const struct node *directory = directory_of(req, id);
	struct entry entry;
	size_t used = 0;

	(void)info;
	if (directory == NULL)
		return;
	char *buffer = g_malloc(size);
	while (directory_entry(directory, offset, &entry)) {
		struct stat stat = {.st_ino = entry.node->ino, .st_mode = entry.node->mode};
		size_t length = fuse_add_direntry(
		    req, buffer + used, size - used, entry.name, &stat, entry.offset);

		if (length > size - used)
			break;
		used += length;
		offset = entry.offset;
	}
	fuse_reply_buf(req, buffer, used);
	g_free(buffer);
}

/* ---- what is refused ---- */

/* What makes or removes names: the target's LUNs are the names there are. */
static void tree_refuse_mknod(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	(void)parent, (void)name, (void)mode, (void)device;
	fuse_reply_err(req, EPERM);
}

static void tree_refuse_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent, (void)name, (void)mode;
	fuse_reply_err(req, EPERM);
}

static void tree_refuse_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent, (void)name;
	fuse_reply_err(req, EPERM);
}

static void tree_refuse_symlink(
    fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target, (void)parent, (void)name;
	fuse_reply_err(req, EPERM);
}

static void tree_refuse_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
    fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	(void)parent, (void)name, (void)new_parent, (void)new_name, (void)flags;
	fuse_reply_err(req, EPERM);
}

static void tree_refuse_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t parent, const char *name)
{
	(void)id, (void)parent, (void)name;
	fuse_reply_err(req, EPERM);
}

static void tree_refuse_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *info)
{
	(void)parent, (void)name, (void)mode, (void)info;
	fuse_reply_err(req, EPERM);
}

/*
 * Capabilities (SAFETY.md 20): no atomic O_TRUNC, no dropping of pages when a time stamp moves; no
 * splice, which loses in every measurement; no locks of our own.
 */
static void tree_init(void *data, struct fuse_conn_info *connection)
{
	(void)data;
	connection->want =
	    connection->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO |
	                              FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPLICIT_INVAL_DATA);
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2 /* else channel.c sees to it */
	connection->want |= connection->capable & FUSE_CAP_HANDLE_KILLPRIV_V2;
#endif
	connection->max_write = TRANSFER_MAX;
	connection->max_read = TRANSFER_MAX; /* as in the mount options */
	/* One dead disk must not hold up the others (SAFETY.md 18); and 12, the default, costs a
	 * factor of 5. */
	connection->max_background = 4096;
	connection->congestion_threshold = 4096;
	connection->time_gran = 1;
}

const struct fuse_lowlevel_ops tree_ops = {
    .init = tree_init,
    .lookup = tree_lookup,
    .forget = tree_forget,
    .forget_multi = tree_forget_multi,
    .readlink = tree_readlink,
    .readdir = tree_readdir,
    .mknod = tree_refuse_mknod,
    .mkdir = tree_refuse_mkdir,
    .unlink = tree_refuse_unlink,
    .rmdir = tree_refuse_unlink,
    .symlink = tree_refuse_symlink,
    .rename = tree_refuse_rename,
    .link = tree_refuse_link,
    .create = tree_refuse_create,
    .getattr = attributes_get,
    .setattr = attributes_set,
    .getxattr = attributes_getxattr,
    .listxattr = attributes_listxattr,
    .statfs = attributes_statfs,
    .open = file_open,
    .release = file_release,
    .read = file_read,
    .write = file_write,
    .flush = file_flush,
    .fsync = file_fsync,
    .fallocate = file_fallocate,
};
