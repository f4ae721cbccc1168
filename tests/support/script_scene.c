/*
 * script_scene.c - see script_scene.h.
 */
#include "support/script_scene.h"
#include "support/data.h"

#include "lunfs/mount.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void script_scene_mount(struct scene *scene, const char *options)
{
	scene_mount(scene, text(scene->stage,
	                       "replacement_timeout=infinity,noop_out_interval=1s,"
	                       "noop_out_timeout=1s,login_timeout=3s%s%s",
	                       options ? "," : "", options ? options : ""));
}

void script_target_must_not_complain(struct script_target *target)
{
	char last[160];

	cr_assert_eq(
	    script_target_complaints(target, last, sizeof(last)), 0, "complaint: %s", last);
}

void script_scene_umount(struct scene *scene)
{
	must_umount(scene->stage, scene->mnt);
	cr_assert_eq(call_end(scene->lunfs, 20), 0, "lunfs failed:\n%s", scene_said(scene));
	script_target_must_not_complain(scene->script);
}

struct scene script_scene_served(
    uint64_t size, unsigned block_size, const struct script_parameters *parameters)
{
	struct scene scene = {
	    .stage = stage_new(), .script = script_target_start(SCENE_IQN), .size = size};

	script_target_add_lun(scene.script, 1, size, block_size);
	if (parameters)
		script_target_set(scene.script, parameters);
	scene.mnt = must_mount_lunfs(scene.stage,
	    text(scene.stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, script_target_port(scene.script)),
	    NULL);
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);
	return scene;
}

void script_scene_serve_no_more(struct scene *scene)
{
	must_umount(scene->stage, scene->mnt);
	script_target_must_not_complain(scene->script);
	script_target_stop(scene->script);
}

/*
 * 'lunfs status --json', without a process: each one closes the files that it inherits, and so
 * flushes them.
 */
static char *ask_status(struct scene *scene)
{
	static const char command[] = "{\"command\": \"status-json\"}\n";
	struct mounted *mounted = mounted_find(scene->mnt);
	g_autofree char *line = NULL;
	size_t size = 0;

	cr_assert(mounted != NULL);
	int fd = control_connect(mounted);
	mounted_free(mounted);
	cr_assert(fd >= 0 && write(fd, command, strlen(command)) == (ssize_t)strlen(command));
	FILE *stream = fdopen(fd, "r");
	cr_assert(getline(&line, &size, stream) > 0);
	fclose(stream);
	GString *json = g_string_new(line);
	g_string_replace(json, "\\", "", 0); /* as if nothing in it were quoted */
	g_ptr_array_add(scene->stage->owned, json->str);
	return g_string_free(json, FALSE);
}

/* Where the value of a member begins. */
static const char *status_member(struct scene *scene, const char *name)
{
	const char *json = ask_status(scene);
	const char *luns = strstr(json, "\"luns\"");
	const char *member = strstr(luns ? luns : json, text(scene->stage, "\"%s\": ", name));

	cr_assert(member != NULL, "no %s in %s", name, json);
	return member + strlen(name) + 4;
}

uint64_t script_scene_number(struct scene *scene, const char *name)
{
	return strtoull(status_member(scene, name), NULL, 10);
}

char *script_scene_string(struct scene *scene, const char *name)
{
	const char *value = status_member(scene, name) + 1;

	return text(scene->stage, "%.*s", (int)strcspn(value, "\""), value);
}

struct login_wait {
	struct script_target *target;
	unsigned n;
};

static bool has_logged_in(void *data)
{
	const struct login_wait *wait = data;

	return script_target_logins(wait->target) >= wait->n;
}

void script_scene_await_login(struct scene *scene, unsigned n)
{
	struct login_wait wait = {scene->script, n};

	cr_assert(await(20, has_logged_in, &wait), "no login %u:\n%s", n, scene_said(scene));
}

void script_scene_must_be(
    struct scene *scene, enum script_image image, const void *bytes, size_t length, uint64_t offset)
{
	g_autofree unsigned char *found = g_malloc(length);

	cr_assert(script_target_read(scene->script, 1, offset, found, length, image));
	ssize_t at = first_difference(found, bytes, length);
	cr_assert(at < 0, "byte %lu of what %s is %02x, not %02x\n%s", offset + (uint64_t)at,
	    image == SCRIPT_STABLE ? "is stable" : "a READ sees", found[at],
	    ((const unsigned char *)bytes)[at], scene_said(scene));
}

/* ---- records ---- */

bool record_is(const struct script_record *record, int opcode)
{
	uint8_t is = record->cdb[0];

	switch (opcode) {
	case SCRIPT_READ:
		return is == 0x28 || is == 0x88;
	case SCRIPT_WRITE:
		return is == 0x2a || is == 0x8a || is == 0x93;
	case SCRIPT_SYNC:
		return is == 0x35 || is == 0x91;
	default:
		return opcode == SCRIPT_ANY || is == opcode;
	}
}

unsigned script_scene_count(struct scene *scene, int opcode, unsigned first)
{
	struct script_record record;
	unsigned count = 0;

	for (; script_target_record(scene->script, first, &record); first++)
		count += record_is(&record, opcode);
	return count;
}

static uint64_t number_at(const uint8_t *bytes, unsigned length)
{
	uint64_t number = 0;

	for (unsigned i = 0; i < length; i++)
		number = number << 8 | bytes[i];
	return number;
}

uint64_t record_start(const struct script_record *record)
{
	const uint8_t *cdb = record->cdb;

	return 512 * (cdb[0] < 0x80 ? number_at(cdb + 2, 4) : number_at(cdb + 2, 8));
}

uint64_t record_end(const struct script_record *record)
{
	const uint8_t *cdb = record->cdb;

	return record_start(record) +
	       512 * (cdb[0] < 0x80 ? number_at(cdb + 7, 2) : number_at(cdb + 10, 4));
}

/* ---- I/O that may have to wait ---- */

struct job job_new(enum job_kind kind, int fd, void *bytes, size_t length, uint64_t offset)
{
	return (struct job){
	    .kind = kind, .fd = fd, .bytes = bytes, .length = length, .offset = offset};
}

static bool job_do(struct job *job)
{
	ssize_t length = (ssize_t)job->length;

	switch (job->kind) {
	case JOB_WRITE:
		return pwrite(job->fd, job->bytes, job->length, (off_t)job->offset) == length;
	case JOB_READ:
		return pread(job->fd, job->bytes, job->length, (off_t)job->offset) == length;
	case JOB_FSYNC:
		return fsync(job->fd) == 0;
	case JOB_CLOSE:
		return close(dup(job->fd)) == 0;
	case JOB_PUNCH:
		return fallocate(job->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		           (off_t)job->offset, length) == 0;
	}
	return false;
}

static gpointer job_run(gpointer data)
{
	struct job *job = data;

	errno = 0;
	job->error = job_do(job) ? 0 : errno ? errno : EPIPE;
	g_atomic_int_set(&job->done, 1);
	return NULL;
}

void job_start(struct job *job)
{
	job->done = 0;
	job->thread = g_thread_new("job", job_run, job);
}

bool job_is_done(struct job *job)
{
	return g_atomic_int_get(&job->done);
}

static bool job_has_ended(void *job)
{
	return job_is_done(job);
}

int job_end(struct job *job, double seconds)
{
	cr_assert(await(seconds, job_has_ended, job), "it does not end within %.0f s", seconds);
	g_thread_join(job->thread);
	return job->error;
}
