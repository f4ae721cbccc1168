/*
 * load.c - the load, and what is to be right after it.
 */
#include "support/load.h"
#include "support/data.h"
#include "support/proxy.h"
#include "support/script_target.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long block_words[LOAD_BLOCK / sizeof(unsigned long)];

static int write_and_sync(void *data)
{
	struct load *load = data;
	block_words content;
	int fd = open(load->path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return errno;
	for (unsigned long round = 0; !load->over; round++) {
		unsigned long block = round % LOAD_BLOCKS;

		for (size_t i = 0; i < G_N_ELEMENTS(content); i++)
			content[i] = round + 1;
		if (pwrite(fd, content, LOAD_BLOCK, (off_t)(block * LOAD_BLOCK)) != LOAD_BLOCK)
			return errno;
		load->acknowledged[block] = round + 1;
		load->writes++;
		if (round % 8 == 7 && fsync(fd) != 0)
			return errno;
	}
	return fsync(fd) == 0 && close(fd) == 0 ? 0 : errno;
}

static int read_the_pattern(void *data)
{
	struct load *load = data;
	struct dice dice = {.state = 1};
	unsigned char *found = aligned_buffer(LOAD_PIECE), *expected = aligned_buffer(LOAD_PIECE);
	int fd = open(load->path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd < 0)
		return errno;
	for (; !load->over; load->reads++) {
		uint64_t at = dice_between(&dice, LOAD_WRITTEN / LOAD_BLOCK,
		                  (LOAD_DISK - LOAD_PIECE) / LOAD_BLOCK) *
		              LOAD_BLOCK;

		if (pread(fd, found, LOAD_PIECE, (off_t)at) != (ssize_t)LOAD_PIECE)
			return errno;
		pattern_fill(expected, LOAD_PIECE, at, LOAD_SEED);
		if (first_difference(found, expected, LOAD_PIECE) >= 0)
			return WRONG_BYTES;
	}
	return 0;
}

/* What was acknowledged before the read is what it sees, or something newer. */
static int look_at_what_is_written(void *data)
{
	struct load *load = data;
	struct dice dice = {.state = 2};
	unsigned long *found = aligned_buffer(LOAD_BLOCK);
	int fd = open(load->path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd < 0)
		return errno;
	for (; !load->over; load->looks++) {
		unsigned long block = dice_between(&dice, 0, LOAD_BLOCKS - 1);
		unsigned long least = load->acknowledged[block];

		if (pread(fd, found, LOAD_BLOCK, (off_t)(block * LOAD_BLOCK)) != LOAD_BLOCK)
			return errno;
		if (found[0] < least || (found[0] != 0 && (found[0] - 1) % LOAD_BLOCKS != block))
			return WRONG_BYTES;
		for (size_t i = 1; i < LOAD_BLOCK / sizeof(*found); i++)
			if (found[i] != found[0])
				return WRONG_BYTES;
	}
	return 0;
}

/* The disk's content before; not through lunfs. */
void load_put_pattern(const struct scene *scene)
{
	unsigned char *pattern = aligned_buffer(LOAD_DISK - LOAD_WRITTEN);

	pattern_fill(pattern, LOAD_DISK - LOAD_WRITTEN, LOAD_WRITTEN, LOAD_SEED);
	if (scene->script) {
		script_target_write(
		    scene->script, 1, LOAD_WRITTEN, pattern, LOAD_DISK - LOAD_WRITTEN);
		return;
	}
	int fd = must_open(scene->backing, O_WRONLY);
	must_pwrite(fd, pattern, LOAD_DISK - LOAD_WRITTEN, LOAD_WRITTEN);
	close(fd);
}

struct load *load_start(const struct scene *scene)
{
	struct load *load =
	    mmap(NULL, sizeof(*load), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert(load != MAP_FAILED);
	g_strlcpy(load->path, scene->file, sizeof(load->path));
	load->pids[0] = call_start(0, write_and_sync, load);
	load->pids[1] = call_start(0, read_the_pattern, load);
	load->pids[2] = call_start(0, look_at_what_is_written, load);
	return load;
}

struct progress {
	const struct load *load;
	unsigned long writes, reads, looks;
};
static bool progress_is_made(void *data)
{
	const struct progress *progress = data;

	return progress->load->writes >= progress->writes &&
	       progress->load->reads >= progress->reads && progress->load->looks >= progress->looks;
}

/* Each of the three does some more, from now on. */
void load_must_go_on(const struct load *load)
{
	struct progress progress = {load, load->writes + 20, load->reads + 20, load->looks + 20};

	cr_assert(await(40, progress_is_made, &progress), "the load does not go on");
}

/* Nothing failed, and every byte is where it belongs, on stable storage. */
void load_end(struct load *load, const struct scene *scene)
{
	static const char *const names[] = {"writer", "reader", "onlooker"};
	unsigned char *found = aligned_buffer(LOAD_DISK), *expected = aligned_buffer(LOAD_DISK);

	load_must_go_on(load);
	load->over = true;
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
		int status = call_end(load->pids[i], 20);

		cr_assert_eq(status, 0, "the %s ended with %d: %s; lunfs says: %s", names[i],
		    status, status == WRONG_BYTES ? "wrong bytes" : strerror(status),
		    scene_said(scene));
	}
	if (scene->script) {
		cr_assert(script_target_stable(scene->script, 1, 0, found, LOAD_DISK));
	} else {
		int fd = must_open(scene->backing, O_RDONLY);
		must_pread(fd, found, LOAD_DISK, 0);
		close(fd);
	}
	for (unsigned block = 0; block < LOAD_BLOCKS; block++)
		for (size_t i = 0; i < LOAD_BLOCK; i += sizeof(unsigned long))
			memcpy(expected + block * LOAD_BLOCK + i,
			    &(unsigned long){load->acknowledged[block]}, sizeof(unsigned long));
	pattern_fill(expected + LOAD_WRITTEN, LOAD_DISK - LOAD_WRITTEN, LOAD_WRITTEN, LOAD_SEED);
	ssize_t at = first_difference(found, expected, LOAD_DISK);
	cr_assert(at < 0, "byte %zd at the target is not what was written", at);
}

struct scene scene_with_tgt(const char *options)
{
	struct scene scene = scene_behind_proxy(LOAD_DISK);

	load_put_pattern(&scene);
	scene_mount(&scene, options);
	return scene;
}

struct scene scene_with_script(const char *options)
{
	struct scene scene = scene_of_script(LOAD_DISK);

	load_put_pattern(&scene);
	scene_mount(&scene, options);
	return scene;
}

/* What 'lunfs status' and the log tell when so many outages or more are over. */
void must_tell_of_outages(const struct scene *scene, unsigned outages, const char *reason)
{
	scene_must_say(scene, "session lost: ", outages, 1);
	scene_must_say(scene, "logged in again at ", outages, 5);
	cr_assert(status_number(scene, "outages") >= outages);
	cr_assert(status_number(scene, "reconnects") >= outages);
	cr_assert_str_eq(status_of(scene, "outage_over"), "true");
	cr_assert_str_eq(status_of(scene, "state"), "ready");
	cr_assert(status_number(scene, "outage_ms") < patience(20) * 1000);
	cr_assert(status_number(scene, "outage_attempts") >= 1);
	cr_assert(g_date_time_new_from_iso8601(status_of(scene, "outage_began"), NULL));
	cr_assert(strstr(status_of(scene, "outage_reason"), reason), "outage_reason: %s",
	    status_of(scene, "outage_reason"));
	cr_assert(status_number(scene, "resent") >= status_number(scene, "outage_resent"));
	cr_assert_str_eq(status_of(scene, "trouble"), "");
	cr_assert_eq(status_number(scene, "away_ms"), 0);
	cr_assert_eq(status_number(scene, "errors"), 0);
}

void must_end_well(struct load *load, struct scene *scene, const char *reason)
{
	load_end(load, scene);
	must_tell_of_outages(scene, 1, reason);
	figure("%s: %s ms, %s attempts, %s commands sent again\n",
	    status_of(scene, "outage_reason"), status_of(scene, "outage_ms"),
	    status_of(scene, "outage_attempts"), status_of(scene, "outage_resent"));
	scene_end(scene);
}

/* ---- I/O that is done by one process, with a result ---- */

/* For so long, whatever patience() says. */
bool still_waits(pid_t pid, double seconds)
{
	return call_end(pid, seconds / patience(1)) == -1;
}

int do_io(void *data)
{
	const struct io_job *job = data;
	size_t length = job->length ? job->length : LOAD_PIECE;
	unsigned char *bytes = aligned_buffer(length), *expected = aligned_buffer(length);
	int fd = open(job->path, (job->writes ? O_WRONLY : O_RDONLY) | O_DIRECT | O_CLOEXEC);

	pattern_fill(expected, length, job->offset, job->seed);
	if (fd < 0)
		return errno;
	if (job->writes)
		return pwrite(fd, expected, length, (off_t)job->offset) == (ssize_t)length ? 0
		                                                                           : errno;
	if (pread(fd, bytes, length, (off_t)job->offset) != (ssize_t)length)
		return errno;
	return first_difference(bytes, expected, length) < 0 ? 0 : WRONG_BYTES;
}

struct io_job reading(const struct scene *scene)
{
	return (struct io_job){.path = scene->file, .seed = LOAD_SEED, .offset = LOAD_WRITTEN};
}

bool io_works(void *job)
{
	return call_as(0, do_io, job) == 0;
}
