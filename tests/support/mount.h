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
	/* in scenes of trouble: */
	struct proxy *proxy;          /* between lunfs and tgt */
	struct script_target *script; /* in place of both */
	pid_t lunfs;                  /* in the foreground: its exit status is seen, */
	char *log;                    /* and what it says */
};
struct scene scene_with_disk(uint64_t size, unsigned block_size);
/* The same of 4 MiB, and not mounted: on a directory of uid's. */
struct scene scene_unmounted(uid_t uid);
/* Unmounts, and the file and the backing file are both at hand for a last look. */
void scene_umount(struct scene *scene);
#define SCENE_IQN "iqn.2026-01.org.lunfs:disk"

/* ---- scenes of trouble ---- */

/* A disk of 512-byte blocks behind a proxy, or a scripted target with one; not mounted yet. */
struct scene scene_behind_proxy(uint64_t size);
struct scene scene_of_script(uint64_t size);
/*
 * Mounts the target, or another source (NULL: the target), with -o options (NULL: none) as uid, in
 * the foreground.
 */
void scene_mount_as(struct scene *scene, uid_t uid, const char *source, const char *options);
#define scene_mount(scene, options) scene_mount_as(scene, 0, NULL, options)
/* 'lunfs umount' that succeeds, and lunfs ends with 0; the proxy and the script go, too. */
void scene_end(struct scene *scene);
/* After tgt_kill(): a new tgtd at the same port, with the same disk. */
void scene_restart_tgt(struct scene *scene);
/* Everything that lunfs said up to now. */
const char *scene_said(const struct scene *scene);
/* Waits until it has said these words so often; the test fails if it does not within the seconds.
 */
void scene_must_say(const struct scene *scene, const char *words, unsigned times, double seconds);
/* Prints what was measured, where LUNFS_TEST_FIGURES is set. */
void figure(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* How often the words stand in a text. */
unsigned count_words(const char *in, const char *words);
/* The value of the first member of that name in 'lunfs status --json', a string's quotes off. */
char *status_of(const struct scene *scene, const char *member);
uint64_t status_number(const struct scene *scene, const char *member);
