/*
 * tree.c - directories and names: what stands where.
 *
 * The tree is made before the mount and does not change under it, so the kernel may keep what it
 * learned.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* Seconds for which the kernel may believe names; nothing here changes by itself. */
#define ENTRY_TIMEOUT 3600.0

struct node *tree_node(struct fs *fs, fuse_ino_t id)
{
	return id >= 1 && id <= fs->nodes->len ? g_ptr_array_index(fs->nodes, id - 1) : NULL;
}

void tree_stat(const struct node *node, struct stat *stat)
{
	*stat = (struct stat){
	    .st_ino = node->ino,
	    .st_mode = node->mode,
	    .st_nlink = 1,
	    .st_uid = node->uid,
	    .st_gid = node->gid,
	    .st_blksize = TRANSFER_MAX,
	    .st_atim = node->atime,
	    .st_mtim = node->mtime,
	    .st_ctim = node->ctime,
	};
	if (node->kind == NODE_DIRECTORY) {
		stat->st_nlink = 2;
		return;
	}
	stat->st_size = (off_t)node->block->size;
	stat->st_blocks = (blkcnt_t)(node->block->size / 512);
}

/* ---- making nodes ---- */

/* FNV-1a, 64 bits: the same number for the same identity, everywhere. */
static uint64_t hash_identity(const char *identity)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (const char *c = identity; *c != '\0'; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
	/* Some programs keep inode numbers in 63 bits, and 0 and 1 have meanings. */
	return (hash >> 1) | 2;
}

static struct node *node_new(struct fs *fs, struct node *parent, enum node_kind kind,
    const char *name, const char *identity, mode_t mode)
{
	struct node *node = g_new0(struct node, 1);

	*node = (struct node){
	    .fs = fs,
	    .parent = parent,
	    .id = fs->nodes->len + 1,
	    .ino = hash_identity(identity),
	    .kind = kind,
	    .name = g_strdup(name),
	    .mode = mode,
	    .uid = fs->options.uid,
	    .gid = fs->options.gid,
	    .children = kind == NODE_DIRECTORY ? g_ptr_array_new() : NULL,
	};
	clock_gettime(CLOCK_REALTIME, &node->mtime);
	node->atime = node->ctime = node->mtime;
	g_ptr_array_add(fs->nodes, node);
	if (parent != NULL)
		g_ptr_array_add(parent->children, node);
	return node;
}

struct node *fs_root(struct fs *fs)
{
	if (fs->nodes->len == 0)
		node_new(
		    fs, NULL, NODE_DIRECTORY, "", "root", S_IFDIR | (0555 & ~fs->options.umask));
	return tree_node(fs, FUSE_ROOT_ID);
}

struct node *fs_add_directory(
    struct fs *fs, struct node *parent, const char *name, const char *identity)
{
	return node_new(
	    fs, parent, NODE_DIRECTORY, name, identity, S_IFDIR | (0555 & ~fs->options.umask));
}

struct node *fs_add_disk(struct fs *fs, struct node *parent, const char *name, const char *identity,
    struct block *block, bool read_only, const char *const *attributes)
{
	mode_t mode = S_IFREG | ((read_only ? 0444 : 0666) & ~fs->options.umask);
	struct node *node =
	    node_new(fs, fs->options.root_is_file ? NULL : parent, NODE_DISK, name, identity, mode);

	content_attach(node, block);
	node->size = block->size;
	node->read_only = read_only;
	node->attributes = g_strdupv((char **)attributes);
	return node;
}

static void node_free(gpointer data)
{
	struct node *node = data;

	if (node->content != NULL)
		content_detach(node);
	if (node->children != NULL)
		g_ptr_array_unref(node->children);
	g_strfreev(node->attributes);
	g_free(node->name);
	g_free(node);
}

void tree_free(struct fs *fs)
{
	g_ptr_array_set_free_func(fs->nodes, node_free);
	g_ptr_array_unref(fs->nodes);
}

/* ---- operations ---- */

static void tree_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *directory = tree_node(fuse_req_userdata(req), parent);

	if (directory == NULL || directory->kind != NODE_DIRECTORY) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	for (unsigned i = 0; i < directory->children->len; i++) {
		struct node *node = g_ptr_array_index(directory->children, i);

		if (strcmp(node->name, name) == 0) {
			struct fuse_entry_param entry = {.ino = node->id,
			    .attr_timeout = ENTRY_TIMEOUT,
			    .entry_timeout = ENTRY_TIMEOUT};

			tree_stat(node, &entry.attr);
			fuse_reply_entry(req, &entry);
			return;
		}
	}
	/* No name that is not there appears by itself: the kernel may remember that too. */
	fuse_reply_entry(req, &(struct fuse_entry_param){.entry_timeout = ENTRY_TIMEOUT});
}

/* Entry number i of a directory: ".", "..", the children. */
static const struct node *directory_entry(const struct node *directory, size_t i, const char **name)
{
	if (i == 0) {
		*name = ".";
		return directory;
	}
	if (i == 1) {
		*name = "..";
		return directory->parent != NULL ? directory->parent : directory;
	}
	if (i - 2 >= directory->children->len)
		return NULL;
	const struct node *node = g_ptr_array_index(directory->children, i - 2);
	*name = node->name;
	return node;
}

static void tree_readdir(
    fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *info)
{
	struct node *directory = tree_node(fuse_req_userdata(req), id);
	const struct node *node;
	const char *name;
	size_t used = 0;

	(void)info;
	if (directory == NULL || directory->kind != NODE_DIRECTORY) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	char *buffer = g_malloc(size);
	for (off_t i = offset; (node = directory_entry(directory, (size_t)i, &name)) != NULL; i++) {
		struct stat stat = {.st_ino = node->ino, .st_mode = node->mode};
		size_t length =
		    fuse_add_direntry(req, buffer + used, size - used, name, &stat, i + 1);

		if (length > size - used)
			break;
		used += length;
	}
	fuse_reply_buf(req, buffer, used);
	g_free(buffer);
}

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
