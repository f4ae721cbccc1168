/*
 * script_scene.h - what tests of a mounted scripted target need beside mount.h's scene_of_script():
 * its status, its records, and I/O on threads that may have to wait.
 */
#pragma once

#include "support/mount.h"
#include "support/script_target.h"

/* Mounts it; replacement_timeout=infinity, a keepalive of 1 s, and more options unless NULL. */
void script_scene_mount(struct scene *scene, const char *options);
/* Unmounts; the target must have had no reason to complain. It still stands. */
void script_scene_umount(struct scene *scene);
/* It had no reason to. */
void script_target_must_not_complain(struct script_target *target);
/* In one go: the target with LUN 1 and parameters (NULL: none), mounted in the background; and its
 * end. */
struct scene script_scene_served(
    uint64_t size, unsigned block_size, const struct script_parameters *parameters);
void script_scene_serve_no_more(struct scene *scene);
/* A number or a string of the LUN in 'lunfs status --json'. */
uint64_t script_scene_number(struct scene *scene, const char *name);
char *script_scene_string(struct scene *scene, const char *name);
/* Waits until n sessions logged in since the start; the test fails if they do not. */
void script_scene_await_login(struct scene *scene, unsigned n);
/* Those bytes must be what the target has. */
void script_scene_must_be(struct scene *scene, enum script_image image, const void *bytes,
    size_t length, uint64_t offset);

/* ---- records ---- */

/* How often a command like opcode came, from the record first on. */
unsigned script_scene_count(struct scene *scene, int opcode, unsigned first);
bool record_is(const struct script_record *record, int opcode);
/* The bytes that a READ or WRITE of 512-byte blocks names. */
uint64_t record_start(const struct script_record *record);
uint64_t record_end(const struct script_record *record);

/* ---- I/O that may have to wait ---- */

/* CLOSE flushes like FSYNC, and the kernel lets writes pass it: closes a copy of the file. */
enum job_kind { JOB_WRITE, JOB_READ, JOB_FSYNC, JOB_CLOSE, JOB_PUNCH };
struct job {
	enum job_kind kind;
	int fd;
	void *bytes;
	size_t length;
	uint64_t offset;
	/* private */
	GThread *thread;
	gint done;
	int error;
};
struct job job_new(enum job_kind kind, int fd, void *bytes, size_t length, uint64_t offset);
/* On a thread of its own. The file stays open: no close, and so no flush, comes with its end. */
void job_start(struct job *job);
bool job_is_done(struct job *job);
/* 0, or the errno; the test fails if it is not done within the seconds. */
int job_end(struct job *job, double seconds);
