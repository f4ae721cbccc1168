/*
 * fs.h - the tree of files, and FUSE's low-level operations on it.
 *
 * One struct fs is one mount. Nodes come before fs_mount() and after it, and may go; the kernel is
 * told. A disk's file sends its requests to a struct block.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lunfs/block.h"

struct loop;
struct pool;
struct frames;
struct fs;
struct node;

struct fs_options {
	const char *mountpoint;   /* absolute */
	const char *source;       /* becomes the mount's fsname, verbatim */
	const char *fuse_options; /* further -o words for the kernel, or NULL */
	bool read_only, allow_other, allow_root, debug;
	uid_t uid;
	gid_t gid;
	mode_t umask;
	bool root_is_file; /* the mountpoint is a regular file: the one disk is the root */
};

/* ended() is called once when the kernel has let go of the mount (umount), from the loop. */
struct fs *fs_new(struct loop *loop, struct pool *pool, struct frames *frames,
    const struct fs_options *options, void (*ready)(void *data), void (*ended)(void *data),
    void *data);

/* Whose a node is, and what is taken from its mode. */
struct fs_owner {
	uid_t uid;
	gid_t gid;
	mode_t umask;
};

/*
 * Nodes. A name in its directory must be free; it is seen at once, by whoever looks. identity
 * (borrowed for the call) fixes the inode number for all times, also of what is removed and added
 * again. inotify tells nobody of what is added: FUSE has no word for it.
 */
/* The directory at the top. */
struct node *fs_root(struct fs *fs);
/* A directory in parent, 0555 less umask; it and what comes into it is owner's, NULL: the parent's.
 */
struct node *fs_add_directory(struct fs *fs, struct node *parent, const char *name,
    const char *identity, const struct fs_owner *owner);
/* A symbolic link to target, which is copied and stays as it is. */
struct node *fs_add_link(struct fs *fs, struct node *parent, const char *name, const char *target);
/*
 * A file, 0444 less umask, whose text make() returns (freed with g_free()); it is made when the
 * file is opened or looked at, but not within 200 ms of the last time, and stat shows its length.
 * Who has it open reads on what he opened. make() is not called any more once it is removed.
 */
struct node *fs_add_text(
    struct fs *fs, struct node *parent, const char *name, char *(*make)(void *data), void *data);
/*
 * A disk's file in parent, or the root itself where options.root_is_file. Several may be over one
 * block: what is written through one of them is seen, synced and lost through all (SAFETY.md 22).
 * The block's events come here. attributes are the names
 * (without "user.lunfs.") and values of its extended attributes, in turn, ended by NULL; copied.
 */
struct node *fs_add_disk(struct fs *fs, struct node *parent, const char *name, const char *identity,
    struct block *block, bool read_only, const char *const *attributes);

/*
 * Takes a node out of the tree, with all that is in it: the names are gone at once, and no pointer
 * to any of these nodes may be used again. Who waits for a removed disk gets EIO, and so does who
 * has it open, from then on, but for what the kernel has in its pages: these are dropped soon.
 * inotify tells IN_DELETE_SELF to who watches what was removed, and nothing to who watches its
 * directory.
 *
 * released(data), which may be NULL, follows from the loop, never from inside, once the I/O of what
 * was removed has ended, which is for the blocks to bring about; open handles need no block. A
 * block that other files show, too, is still theirs. released() may add and remove nodes. Once
 * fs_free() was called it does not come any more.
 */
void fs_remove(struct fs *fs, struct node *node, void (*released)(void *data), void *data);
/* Does somebody have a disk's file in top (NULL: anywhere) open? */
bool fs_is_open(const struct fs *fs, const struct node *top);
/* Is there a name like that in parent? */
bool fs_has_name(const struct node *parent, const char *name);

/* Mounts; ready() follows when the kernel has said hello. False and a line for the user otherwise.
 */
bool fs_mount(struct fs *fs, GError **error);

/* FLUSHes every disk in top (NULL: all there are) that has unflushed writes; done(error of the
 * first that failed, ...) when all are. */
void fs_flush(struct fs *fs, struct node *top,
    void (*progress)(const char *name, int error, unsigned left, void *data),
    void (*done)(int error, void *data), void *data);
/* From now on WRITE, FALLOCATE and truncations that write get EIO: else what is acknowledged behind
 * the last flush would be lost. */
void fs_refuse_writes(struct fs *fs);
bool fs_is_unflushed(const struct fs *fs);
/* Answers every request that waits for the target with EIO, now; its I/O ends when its disk returns
 * it. */
void fs_cancel_all(struct fs *fs);
/* The same, and from now on every READ, WRITE and FLUSH is answered so: nobody waits any more
 * (SAFETY.md 17). */
void fs_abort(struct fs *fs);
/* Requests that are being worked on. */
unsigned fs_outstanding(const struct fs *fs);
/* Unmounts where still mounted, and frees all but the blocks. Outstanding requests must have ended.
 * Whoever waits for released() is not told any more: all blocks are released then. */
void fs_free(struct fs *fs);
