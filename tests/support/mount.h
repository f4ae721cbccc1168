/*
 * mount.h - lunfs as a user runs it.
 */
#pragma once

#include "support/stage.h"
#include "support/tgt.h"

/* Runs 'lunfs WORDS' as root or as uid. */
struct result *lunfs(struct stage *stage, const char *format, ...) G_GNUC_PRINTF(2, 3);
struct result *lunfs_as(struct stage *stage, uid_t uid, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
/* 'lunfs WORDS' that must succeed and say nothing on stderr; returns its stdout. */
char *must_lunfs(struct stage *stage, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Makes the directory 'mnt' and mounts source on it with "-o OPTIONS" (NULL: none); returns its
 * path. */
char *must_mount_lunfs(struct stage *stage, const char *source, const char *options);
/* 'lunfs umount' that must succeed, and nothing may be mounted there any more. */
void must_umount(struct stage *stage, const char *mountpoint);
bool is_mounted(const char *path);
/* The process that serves the mounts of this stage, or 0: the one lunfs in its namespace. */
pid_t lunfs_daemon(void);

/*
 * The scene of most tests: one target, one disk as its LUN 1, mounted. The file is file, what the
 * target keeps is backing.
 */
struct scene {
	struct stage *stage;
	struct tgt *tgt;
	char *mnt, *file, *backing;
	uint64_t size;
};
struct scene scene_with_disk(uint64_t size, unsigned block_size);
/* Unmounts, and the file and the backing file are both at hand for a last look. */
void scene_umount(struct scene *scene);
#define SCENE_IQN "iqn.2026-01.org.lunfs:disk"
