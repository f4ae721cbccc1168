/*
 * load.h - programs that go on while sessions come and go: one who writes and syncs, one who reads,
 * one who looks over the writer's shoulder; and single reads and writes with a result.
 */
#pragma once

#include "support/mount.h"

#include <stdatomic.h>

/* A silent loss is noticed within 2 s, and no login takes longer. */
#define SOON "noop_out_interval=1s,noop_out_timeout=1s,login_timeout=2s"

#define LOAD_BLOCK   4096u
#define LOAD_BLOCKS  64u
#define LOAD_WRITTEN (LOAD_BLOCK * LOAD_BLOCKS) /* the disk's first bytes; a pattern follows */
#define LOAD_DISK    MIB(1)
#define LOAD_PIECE   KIB(64)
#define LOAD_SEED    7u
#define WRONG_BYTES  254

/* In memory that the load shares with the test. */
struct load {
	char path[256];
	atomic_bool over;
	atomic_ulong acknowledged[LOAD_BLOCKS]; /* what was written to each block last */
	atomic_ulong writes, reads, looks;      /* that were done */
	pid_t pids[3];
};

/* The content of a disk of LOAD_DISK bytes that the load expects; not through lunfs. */
void load_put_pattern(const struct scene *scene);
/* A mounted disk with it, behind a proxy or of a script. */
struct scene scene_with_tgt(const char *options);
struct scene scene_with_script(const char *options);

struct load *load_start(const struct scene *scene);
/* Each of the three does some more, from now on. */
void load_must_go_on(const struct load *load);
/* Nothing failed, and every byte is where it belongs, on stable storage. */
void load_end(struct load *load, const struct scene *scene);

/* What 'lunfs status' and the log tell when so many outages or more are over. */
void must_tell_of_outages(const struct scene *scene, unsigned outages, const char *reason);
/* All of that, and the scene's end. */
void must_end_well(struct load *load, struct scene *scene, const char *reason);

/* ---- I/O that is done by one process, with a result ---- */

struct io_job {
	const char *path;
	unsigned seed; /* of the pattern that is read, or written */
	bool writes;
	uint64_t offset;
	size_t length; /* LOAD_PIECE where 0 */
};
/* Of struct io_job, with O_DIRECT: 0, an errno, or WRONG_BYTES. */
int do_io(void *job);
bool io_works(void *job);
/* A read of a piece of the scene's pattern. */
struct io_job reading(const struct scene *scene);
/* Is the process there for so long, whatever patience() says? */
bool still_waits(pid_t pid, double seconds);
