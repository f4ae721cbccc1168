/*
 * attributes.c - what a file says of itself: stat, times, modes, extended attributes, statfs.
 *
 * Owner, mode and times can be set, and last until unmount, as on devtmpfs.
 */
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "internal.h"

/* Seconds for which the kernel may believe attributes: they change through it, or it is told. */
#define ATTRIBUTE_TIMEOUT 3600.0

#define XATTR_PREFIX "user.lunfs."

double attributes_timeout(const struct node *node)
{
	return node->kind == NODE_TEXT ? 0 : ATTRIBUTE_TIMEOUT;
}

void attributes_reply(fuse_req_t req, struct node *node)
{
	struct stat stat;

	if (node->kind == NODE_TEXT)
		text_look(node, fuse_req_ctx(req)->pid);
	tree_stat(node, &stat);
	fuse_reply_attr(req, &stat, attributes_timeout(node));
}

void node_touch(struct node *node)
{
	clock_gettime(CLOCK_REALTIME_COARSE, &node->mtime);
	node->ctime = node->mtime;
}

void attributes_get(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *info)
{
	struct node *node = node_find(fuse_req_userdata(req), id);

	(void)info;
	if (node != NULL)
		attributes_reply(req, node);
	else
		fuse_reply_err(req, ENOENT);
}

static void node_set_times(struct node *node, const struct stat *stat, int valid)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (valid & FUSE_SET_ATTR_ATIME)
		node->atime = valid & FUSE_SET_ATTR_ATIME_NOW ? now : stat->st_atim;
	if (valid & FUSE_SET_ATTR_MTIME)
		node->mtime = valid & FUSE_SET_ATTR_MTIME_NOW ? now : stat->st_mtim;
	node->ctime = now;
}

void attributes_set(
    fuse_req_t req, fuse_ino_t id, struct stat *stat, int valid, struct fuse_file_info *info)
{
	struct node *node = node_find(fuse_req_userdata(req), id);

	if (node == NULL) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	/* no setuid or setgid: there is none for a WRITE to take away (channel.c) */
	if (valid & FUSE_SET_ATTR_MODE)
		node->mode = (node->mode & S_IFMT) | (stat->st_mode & 01777);
	if (valid & FUSE_SET_ATTR_UID)
		node->uid = stat->st_uid;
	if (valid & FUSE_SET_ATTR_GID)
		node->gid = stat->st_gid;
	node_set_times(node, stat, valid);
	if (valid & FUSE_SET_ATTR_SIZE)
		file_truncate(req, node, (uint64_t)stat->st_size, info);
	else
		attributes_reply(req, node);
}

/* ---- extended attributes: user.lunfs.* ---- */

static void reply_xattr(fuse_req_t req, const char *value, size_t length, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, length);
	else if (length > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, length);
}

void attributes_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size)
{
	struct node *node = node_find(fuse_req_userdata(req), id);

	if (node != NULL && node->attributes != NULL && g_str_has_prefix(name, XATTR_PREFIX)) {
		for (char **attribute = node->attributes; *attribute != NULL; attribute += 2) {
			if (strcmp(*attribute, name + strlen(XATTR_PREFIX)) == 0) {
				reply_xattr(req, attribute[1], strlen(attribute[1]), size);
				return;
			}
		}
	}
	fuse_reply_err(req, ENODATA);
}

void attributes_listxattr(fuse_req_t req, fuse_ino_t id, size_t size)
{
	struct node *node = node_find(fuse_req_userdata(req), id);
	g_autoptr(GString) names = g_string_new(NULL);

	if (node != NULL && node->attributes != NULL)
		for (char **attribute = node->attributes; *attribute != NULL; attribute += 2)
			g_string_append_printf(names, XATTR_PREFIX "%s%c", *attribute, '\0');
	reply_xattr(req, names->str, names->len, size);
}

/* No blocks and none free: df has nothing to warn of, and nothing fills up. */
void attributes_statfs(fuse_req_t req, fuse_ino_t id)
{
	struct fs *fs = fuse_req_userdata(req);

	(void)id;
	fuse_reply_statfs(
	    req, &(struct statvfs){
	             .f_bsize = 4096, .f_frsize = 4096, .f_files = fs->names, .f_namemax = 255});
}
