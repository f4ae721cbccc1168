/*
 * stage.h - where an integration test plays: a world of its own that leaves nothing behind.
 *
 * stage_new() takes the test's process into a private mount namespace with private /run and
 * /dev/fuse, a private network of nothing but loopback, and a scratch directory in memory. A
 * janitor process outlives the test, however it ends, and then kills every process of that
 * namespace, detaches its loop devices and mounts, and removes the directory. So tests run in
 * parallel, crash, and need no teardown of their own.
 *
 * It wants root (mount namespaces, mknod); tests/run sees to that. Nothing is freed before the
 * process ends: the stage owns every string and result that these functions return.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The unprivileged user of the tests: nobody. A uid that no test mounts as: a stranger. */
#define ORDINARY_USER 65534u
#define STRANGER      65533u

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)
#define TIB(n) ((uint64_t)(n) << 40)

struct stage {
	char *dir;        /* the scratch directory, on a tmpfs */
	char *lunfs;      /* command words: the wrapper, where there is one, and the binary */
	GPtrArray *owned; /* strings */
};

struct stage *stage_new(void);
/* printf into a string that the stage owns. */
char *text(struct stage *stage, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* A directory in the scratch directory that belongs to uid; made if it is not there. */
char *stage_directory(struct stage *stage, const char *name, uid_t uid);
/* The process with the next higher id in the stage's namespace, but the caller; 0 after the last.
 */
pid_t stage_next_process(pid_t after);
/* Lets ordinary users mount with allow_other: a private /etc/fuse.conf. */
void stage_permit_user_allow_other(struct stage *stage);

/* count, or less of it under valgrind and the like: LUNFS_TEST_SCALE divides it. Prints when it
 * does. */
unsigned long scaled(unsigned long count);
/* Wall-clock limits for commands and the program stretch by it under the tools. */
double patience(double seconds);
double seconds_now(void);
/* Waits until check(data) is true; false if it did not come within the seconds. */
bool await(double seconds, bool (*check)(void *data), void *data);

/* ---- commands ---- */

struct result {
	int status; /* exit status, or 128 + signal */
	bool timed_out;
	double seconds;
	char *out, *err;
};

/* Runs a shell command line to its end as root or as uid, capturing what it says. At most 60 s. */
struct result *sh(struct stage *stage, const char *format, ...) G_GNUC_PRINTF(2, 3);
struct result *sh_as(struct stage *stage, uid_t uid, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* The same, and the test fails unless it succeeds; returns its stdout, the last newline off. */
char *must(struct stage *stage, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Starts one without waiting; it dies with the test. Its stdout and stderr go to the files, or
 * nowhere. */
pid_t sh_start(struct stage *stage, uid_t uid, const char *out, const char *err, const char *format,
    ...) G_GNUC_PRINTF(5, 6);

/* ---- functions in processes of their own ---- */

/* Calls fn(data) in a child that is uid and exits with what it returns; it dies with the test. */
pid_t call_start(uid_t uid, int (*fn)(void *data), void *data);
/* Its exit status, or 128 + signal, or -1 if it did not end within the seconds. */
int call_end(pid_t pid, double seconds);
int call_as(uid_t uid, int (*fn)(void *data), void *data);
