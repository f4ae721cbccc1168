/*
 * fs.h - the tree of files, and FUSE's low-level operations on it.
 *
 * One struct fs is one mount. Its nodes are made before fs_mount() and live as long as the mount; a
 * disk's file sends its requests to a struct block.
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

/* The directory at the top. */
struct node *fs_root(struct fs *fs);
/* A directory in parent; identity (borrowed for the call) fixes its inode number for all times. */
struct node *fs_add_directory(
    struct fs *fs, struct node *parent, const char *name, const char *identity);
/*
 * A disk's file in parent, or the root itself where options.root_is_file. Several may be over one
 * block: what is written through one of them is seen, synced and lost through all (SAFETY.md 22).
 * The block's events come here. attributes are the names
 * (without "user.lunfs.") and values of its extended attributes, in turn, ended by NULL; copied.
 */
struct node *fs_add_disk(struct fs *fs, struct node *parent, const char *name, const char *identity,
    struct block *block, bool read_only, const char *const *attributes);

/* Mounts; ready() follows when the kernel has said hello. False and a line for the user otherwise.
 */
bool fs_mount(struct fs *fs, GError **error);

/* FLUSHes every disk that has unflushed writes; done(error of the first that failed, ...) when all
 * are. */
void fs_flush_all(struct fs *fs,
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
 */
void fs_free(struct fs *fs);
