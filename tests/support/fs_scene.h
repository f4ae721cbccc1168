/*
 * fs_scene.h - files on a real mount, above blocks made of memory: no target, no session.
 *
 * A child serves the mount; the test tells it by a socket what is to happen below. lun1.img's block
 * lends what is read; twin.img shows the same block as lun0.img. More files come and go by paths in
 * the mount (change()).
 */
#pragma once

#include "support/data.h"
#include "support/stage.h"

#include "lunfs/block.h"

enum { FS_DISKS = 3, FS_TWIN = FS_DISKS, FS_FILES, FS_LENDER = 1, FS_OWN = 99 };

#define PAGE     4096u
#define SIZE     MIB(1) /* at first */
#define MAX_SIZE MIB(4)

/* What a disk is told, and what it is asked. */
enum verb {
	RAISE, /* an event */
	RESIZE,
	FILL, /* with a byte */
	HOLD, /* its requests, or not any more */
	STEP, /* one request of those that it holds */
	FAIL, /* the request that comes after so many, with EIO */
	READS,
	WRITES,
	FLUSHES,
	LENT,    /* READs that were lent their data */
	DIRECTS, /* READs and WRITEs of the lender that were direct */
	READERS, /* who lent READs came from, the last one */
	IN_FLIGHT,
	OUTSTANDING,
	UNFLUSHED,
	FLUSH_ALL,
	ABORT,
	RELEASED, /* how often it was told so, of what was removed */
	NODES,    /* in memory */
	TEXTS,    /* that were made */
	END
};

/* What is done to a path. */
enum change {
	ADD_DISK,      /* over the block of disk value, or one of its own: FS_OWN */
	ADD_DIRECTORY, /* value is its uid and gid then, where it is not 0, and its umask is 027 */
	ADD_LINK,      /* to other */
	ADD_TEXT,      /* of value bytes, and one more each time that it is made */
	REMOVE,
	REPLACE,   /* removes it and adds the disk anew, at once */
	FLUSH_TOP, /* answers when it is done */
	HAS_NAME
};

#define OWN_SIZE KIB(64)

struct fs_scene {
	struct stage *stage;
	char *mnt;
	char *file[FS_FILES];
	int socket;
	unsigned device; /* minor number */
	pid_t pid;
};

struct fs_scene fs_scene_new(void);
void fs_scene_end(struct fs_scene *scene);
/* Kernel and processes wait for one another, and no signal ends that: else the test never ends. */
void fs_scene_break(const struct fs_scene *scene);

/* Tells it, and what it answers. */
int64_t tell(const struct fs_scene *scene, enum verb verb, unsigned disk, uint64_t value);
void say(const struct fs_scene *scene, enum verb verb, unsigned disk, uint64_t value);
int64_t heard(const struct fs_scene *scene);
int64_t change(const struct fs_scene *scene, enum change change, const char *path, uint64_t value,
    const char *other);
/* Its path; the scene's. */
char *path_of(const struct fs_scene *scene, const char *path);
/* Of disk 0: waits until it says so much, or 0. */
void must_come_to_say(const struct fs_scene *scene, enum verb verb, uint64_t at_least);
void must_come_to_none(const struct fs_scene *scene, enum verb verb);

void *page_new(int byte);
/* A page's worth at an offset, and what it begins with: -1 is the end of the file, -1000 - errno an
 * error. */
int read_byte(int fd, uint64_t offset);
/* 0 or an errno. */
int write_page(int fd, uint64_t offset, int byte);
/* What comes to be, by and by: the kernel is told by another thread. */
void must_come_to_read(int fd, uint64_t offset, int byte);
void must_come_to_have(int fd, uint64_t size);

/* For call_start(). */
struct access {
	const char *path;
	int fd, flags;
	uint64_t offset;
	size_t length;
};
/* 0, an errno, or 255 for the end of the file. */
int read_there(void *access);
int write_there(void *access);
