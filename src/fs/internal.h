/*
 * internal.h - what the files of this room share: nodes, contents, handles, requests.
 */
#pragma once

#include <fuse_lowlevel.h>
#include <glib.h>
#include <time.h>

#include "lunfs/block.h"
#include "lunfs/frames.h"
#include "lunfs/fs.h"
#include "lunfs/log.h"
#include "lunfs/pool.h"

/* The kernel's bound on one READ or WRITE (fs.fuse.max_pages_limit pages of 4096 bytes). */
#define TRANSFER_MAX (1u << 20)
/* Enough for most WRITEs: their data comes in few runs. */
#define OWN_IOVECS 6
/* No handle has truncated: the file reaches as far as the LUN does. */
#define MARK_NONE UINT64_MAX

/* Requests that wait, the oldest first; linked by queued_next. */
struct request_queue {
	struct request *first, *last;
};

enum node_kind { NODE_DIRECTORY, NODE_DISK, NODE_LINK, NODE_TEXT };

/*
 * The bytes that a disk's file shows. Several files may show the same, when a LUN is there by two
 * ways: what is written, flushed or lost through one of them is so for all (SAFETY.md 22).
 */
struct content {
	struct fs *fs;
	struct block *block;
	/* The files, in the order they were made; linked by sibling. Those that were removed are
	 * among them until their requests have ended (remove.c). */
	struct node *nodes;
	unsigned
	    flushes;    /* FLUSHes under way that are no request's: the last file waits for them */
	unsigned visit; /* fs->visits when it was last counted */
	/* Writes completed, and how many of those a successful FLUSH covers. */
	uint64_t written, flushed;
	unsigned writes_in_flight;
	/*
	 * A request that will zero first has the kernel drop pages before: until it is sent, WRITEs
	 * that came after it are held, or its zeros would land on them.
	 */
	unsigned gaps;
	struct request_queue held;
	bool doubtful; /* who had the LUN before us may have left something to flush */
	/*
	 * Counts what was acknowledged and may not be there: each handle hears of it at its next
	 * fsync. Those below told were heard of by somebody; of the others whoever opens the file
	 * hears, too.
	 */
	unsigned loss, told;
	int loss_error; /* of the last: -EIO, or -EBADE where another host has reserved the LUN */
	struct log_limit log;
	/* The flush that nobody waits for, while write_out.done is not NULL. */
	struct io write_out;
	uint64_t write_out_written; /* what written was at its start */
	bool write_out_again;
};

/*
 * A file or directory. A node's id is never used again: the root's is FUSE_ROOT_ID, and one that
 * was made later has a larger one.
 *
 *   in the tree ──fs_remove()──► removed, its requests are ending ──► a tombstone ──► freed
 *
 * It is held by the tree, by each time that the kernel looked it up and did not forget it, by
 * handles, requests, jobs of the invalidators, and while it is among those that are leaving. What
 * is removed has no parent, and no name that is found; it may still be asked for by its id.
 */
struct node {
	struct fs *fs;
	struct node *parent; /* NULL: the root, or removed */
	fuse_ino_t id;
	uint64_t references;
	uint64_t lookups; /* as many of these are the kernel's */
	uint64_t ino;     /* what stat shows: from the identity, the same at each mount */
	enum node_kind kind;
	bool removed;
	char *name;
	char *title; /* a disk's, in messages: "nas/lun0.img", or its name alone in the root */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec atime, mtime, ctime;
	struct fs_owner owner; /* whose what comes into it is */

	/* a directory's: by age, and so by id; by name */
	GPtrArray *children;
	GHashTable *names;

	char *target; /* of a link */

	/* a text's: who makes it, what it was of late */
	char *(*make)(void *data);
	void *make_data;
	GBytes *text;
	int64_t text_ms;

	/* a disk's */
	struct content *content;         /* NULL when it was removed and has left */
	struct removal *removal;         /* that waits for it to leave */
	struct node *sibling;            /* the next file of the same content */
	struct block *block;             /* content->block */
	uint64_t size;                   /* as the kernel may know it: block->size before RESIZED;
	                                    of a removed one the last, of a text's its length */
	struct invalidator *invalidator; /* its own: pages of a dead LUN hold up no other's */
	bool read_only;
	char **attributes;      /* name, value, ..., NULL */
	struct handle *handles; /* the latest first */
	/*
	 * What the kernel may hold pages of (SAFETY.md 21): [cached_start, cached_end) has all that
	 * was served to its page cache since the last full drop, in cache_fills READs and WRITEs.
	 */
	uint64_t cached_start, cached_end, cache_fills;
	unsigned cached_handles;
	unsigned requests; /* those that may need the content */
	/* Where it has siblings: what was changed through it of late, and when they last had its
	 * pages dropped (content.c). */
	uint64_t changed_start, changed_end;
	int64_t crossed_ms;
	GSource *crossing;
	struct request_queue parked; /* READs that wait for memory */
	size_t read_memory;          /* that READs hold */
};

struct handle {
	struct node *node;
	struct handle *prev, *next;
	pid_t opener; /* the thread: O_TRUNC comes as a SETATTR from it, without a handle */
	bool writable, direct;
	uint64_t mark; /* where the file ends for whoever truncated it (DESIGN, semantics 6) */
	unsigned loss; /* content->loss as last told */
	GBytes *text;  /* of a text's: what it was when it was opened */
};

/* A request of the kernel that waits for the target. */
struct request {
	struct fs *fs;
	struct request *prev, *next; /* of fs->requests */
	struct request_queue *queue; /* node->parked or content->held, or NULL */
	struct request *queued_next;
	fuse_req_t req; /* NULL when it has been answered: nobody waits any more */
	struct node *node;
	struct handle *handle; /* valid while req is */
	void (*reply)(struct request *request);
	struct io io, zero; /* the transfer or flush; what zeroes [mark, offset) before it */
	/* Of a READ one, the buffer, which is the pool's. Of a WRITE the runs of frames that it
	 * came in: own_iov, or the pool's where there are more. */
	struct iovec *iov, own_iov[OWN_IOVECS];
	int runs;
	void *buffer;
	size_t buffer_size;
	int pending, error; /* I/O that is not done; the first error */
	bool abandoned;     /* what was not sent yet need not be */
	bool opens;         /* the handle has no other owner yet */
	bool writes;
	bool writeback; /* of pages, by the kernel: dropping them waits for it */
	/* [start, end) that the kernel has to forget before the reply; none where start == end */
	uint64_t stale_start, stale_end;
	void (*dropped)(struct request *request); /* what comes next when it has */
	unsigned drops;                           /* jobs of the invalidator that are not done */
	unsigned drop_bound_ms; /* for how long it is waited for; 0: until it has */
	bool answered;
	uint64_t turn; /* in which it came */
	GSource *drop_timer;
	/* what mark, written, cache_fills were at its start, and what it made of the mark */
	uint64_t zero_mark, written, fills, own_mark;
	GSource *grace;
};

struct fs {
	struct loop *loop;
	struct pool *pool;
	struct frames *frames;
	struct fs_options options;
	void (*ready)(void *data);
	void (*ended)(void *data);
	void *data;

	struct fuse_session *session;
	struct channel *channel;
	GHashTable *nodes;               /* all, by id */
	struct node *root;               /* NULL: none yet */
	fuse_ino_t last_id;              /* of the latest node */
	unsigned names;                  /* nodes that are not removed */
	unsigned visits;                 /* of contents, one by one */
	bool greeted;                    /* the kernel listens to what it is told */
	struct invalidator *invalidator; /* of names, and of directories */
	unsigned jobs;                   /* of all invalidators, not done */
	GPtrArray *leaving;              /* disks that were removed and may need their blocks */
	struct removal *removals;        /* all that released() was not called for */
	struct loop_work sweep;          /* over both */
	struct slab requests_slab, handles_slab;
	struct request *requests;       /* all that are not answered, or whose I/O is not done */
	struct request *cursor;         /* fs_cancel_all()'s, which request_free() moves on */
	unsigned outstanding, flushing; /* requests of the kernel; flushes that are not */
	bool refuses_writes;            /* and whatever else changes the content */
	bool aborted;                   /* refuses all that needs the target */
	uint64_t page_size;             /* the kernel's */
};

/* ---- node.c ---- */
/* Also one that was removed, while the kernel knows it; NULL: there is none. */
struct node *node_find(const struct fs *fs, fuse_ino_t id);
/* The next one of top and what is in it, after node: a directory comes before what is in it. */
struct node *node_next(const struct node *top, const struct node *node);
/* The place of the first of a directory's children whose id is not smaller. */
unsigned node_child_from(const struct node *directory, fuse_ino_t id);
struct node *node_ref(struct node *node);
/* The last one frees it. */
void node_unref(struct node *node, uint64_t references);
/* What is in the directory is no longer what it was. */
void node_entries_changed(struct node *directory);
void nodes_free(struct fs *fs);

/* ---- remove.c ---- */
/* One thing less needs the block of a removed node, or of its content. */
void removed_sweep_later(struct fs *fs);
/* Forgets who waits to be told that blocks are released. */
void removals_free(struct fs *fs);

/* ---- tree.c ---- */
void tree_stat(const struct node *node, struct stat *stat);
extern const struct fuse_lowlevel_ops tree_ops;

/* ---- text.c ---- */
/* The length is that of a text of late, or of what the asking thread has open. */
void text_look(struct node *node, pid_t thread);
/* What is to be read by who opens it now; the caller's. */
GBytes *text_open(struct node *node);
void text_reply(fuse_req_t req, const struct handle *handle, size_t size, off_t offset);

/* ---- attributes.c ---- */
/* Seconds for which the kernel may believe what stat shows. */
double attributes_timeout(const struct node *node);
void attributes_get(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info);
void attributes_set(
    fuse_req_t req, fuse_ino_t ino, struct stat *stat, int valid, struct fuse_file_info *info);
void attributes_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void attributes_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void attributes_statfs(fuse_req_t req, fuse_ino_t ino);
void attributes_reply(fuse_req_t req, struct node *node);
void node_touch(struct node *node);

/* ---- file.c ---- */
void handle_free(struct handle *handle);
void file_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info);
void file_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info);
void file_read(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info);
void file_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
    struct fuse_file_info *info);
void file_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
    struct fuse_file_info *info);
/* SETATTR's size; answers req. info is NULL for truncate(2) and O_TRUNC. */
void file_truncate(fuse_req_t req, struct node *node, uint64_t size, struct fuse_file_info *info);
static inline struct handle *handle_of(const struct fuse_file_info *info)
{
	return (struct handle *)(uintptr_t)info->fh; // NOLINT(performance-no-int-to-ptr)
}

/* ---- content.c ---- */
/* The node shows the block's bytes from here on, as other nodes may do already. */
void content_attach(struct node *node, struct block *block);
/* The content goes with its last node; the block stays. */
void content_detach(struct node *node);
/* Are there writes that no successful FLUSH covers, or may soon be? */
bool content_is_unflushed(const struct content *content);
/* A FLUSH of no request is submitted, and has ended: until then the content stays. */
void content_flush_begins(struct content *content);
void content_flush_ended(struct content *content);
const char *content_name(const struct content *content);
/* So many were written when a FLUSH was sent, and it has succeeded. */
void content_flushed(struct content *content, uint64_t written);
/* Sends a FLUSH that nobody waits for, where there is something to flush. */
void content_write_out(struct content *content);
/* [start, end) was changed through the node, by way of the kernel's pages. */
void content_changed(struct node *node, uint64_t start, uint64_t end);
void file_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info);
void file_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *info);

/* ---- request.c ---- */
/* May the kernel hold pages of [start, end)? */
bool node_is_cached(const struct node *node, uint64_t start, uint64_t end);
/* At work from here on; interrupts are looked after. */
struct request *request_new(struct fs *fs, fuse_req_t req, struct node *node, struct handle *handle,
    void (*reply)(struct request *request));
/* Sends request->zero, where it has a length, and request->io to the node's block; reply() follows.
 */
void request_submit(struct request *request);
/* The same for a READ of io.length bytes, which is lent its data, or gets a buffer here, and waits
 * where there is too little memory. */
void request_read(struct request *request);
/* Without any I/O: has the kernel drop [stale_start, stale_end), and reply() follows. */
void request_drop_and_reply(struct request *request);
void request_free(struct request *request);
/*
 * Answers with -error now and lets its I/O end by itself. One that has not begun is freed here, and
 * others with it: whoever walks along fs->requests does so by fs->cursor.
 */
void request_abandon(struct request *request, int error);

/* ---- channel.c ---- */
struct channel *channel_new(struct fs *fs);
void channel_free(struct channel *channel);
/* In how many runs of frames the first length bytes of data came, of the WRITE being processed. */
int channel_runs(const struct channel *channel, size_t length);
/* They become the caller's, who then holds their frames: as many iovecs are set. */
void channel_take(struct channel *channel, size_t length, struct iovec *iov);

/* ---- invalidator.c ---- */
#define END_OF_FILE UINT64_MAX
/*
 * Has the kernel drop its pages of [start, end) of the node, and what it knows of its attributes,
 * from a helper thread, and calls done(data) on the loop; done may be NULL. One node's are done in
 * order. Where end is END_OF_FILE it is the kernel's, wherever that believes it.
 */
void invalidator_drop(
    struct node *node, uint64_t start, uint64_t end, void (*done)(void *data), void *data);
/* Has the kernel forget what it knows of a directory but its names. */
void invalidator_tell_changed(const struct node *directory);
/* Tells the kernel that the node is not in its parent any more. */
void invalidator_tell_gone(const struct node *node);
/* Waits for all that is under way, with the loop going on: it may need answers. No request may be
 * unanswered: the kernel may hold pages for it (SAFETY.md 25). */
void invalidators_await(struct fs *fs);
/* A removed node's thread is not needed any more, unless it is at work. */
void invalidator_end_if_idle(struct node *node);
/* Nothing of it is under way. */
void invalidator_free(struct invalidator *invalidator);
