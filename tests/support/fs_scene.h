/*
 * fs_scene.h - files on a real mount, above blocks made of memory: no target, no session.
 *
 * A child serves the mount; the test tells it by a socket what is to happen below. lun1.img's block
 * lends what is read; twin.img shows the same block as lun0.img.
 */
#pragma once

#include "support/data.h"
#include "support/stage.h"

#include "lunfs/block.h"

enum { FS_DISKS = 3, FS_TWIN = FS_DISKS, FS_FILES, FS_LENDER = 1 };

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
	END
};

struct fs_scene {
	struct stage *stage;
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
