/*
 * full.c - see full.h.
 */
#include "full.h"
#include "support/data.h"

#include <string.h>

#define MANY_JOBS 64

/* ---- begin and end ---- */

struct full full_target(const struct script_parameters *parameters)
{
	struct full full = {.scene = scene_of_script(FULL_SIZE)};
	unsigned char *pattern = aligned_buffer(FULL_SIZE);

	full.target = full.scene.script;
	if (parameters) {
		full.parameters = *parameters;
		script_target_set(full.target, parameters);
	}
	pattern_fill(pattern, FULL_SIZE, 0, LOAD_SEED);
	cr_assert(script_target_write(full.target, 1, 0, pattern, FULL_SIZE));
	return full;
}

void full_mount(struct full *full, const char *options)
{
	scene_mount(&full->scene,
	    text(full->scene.stage,
	        "cache=none,readahead=0,replacement_timeout=30s,login_timeout=5s,%s%s",
	        options && strstr(options, "noop_out_interval") ? "" : "noop_out_interval=0,",
	        options ? options : "shared"));
	full->from = script_traffic_count(full->target);
	full->logins = script_target_logins(full->target);
}

struct full full_begin(const struct script_parameters *parameters, const char *options)
{
	struct full full = full_target(parameters);

	full_mount(&full, options);
	return full;
}

static void must_keep_the_rules(struct full *full)
{
	const struct script_parameters *set = &full->parameters;
	uint32_t max_burst = set->max_burst ? set->max_burst : 262144;
	const struct rule_limits limits = {
	    .first_burst = MIN(set->first_burst ? set->first_burst : 262144, max_burst),
	    .max_burst = max_burst,
	    .receive_segment = set->receive_segment ? set->receive_segment : 262144,
	    .initial_r2t = set->initial_r2t,
	    .no_immediate_data = set->no_immediate_data,
	};

	rule_commands_are_numbered(full->target);
	rule_windows_are_kept(full->target);
	rule_nothing_is_acknowledged_ahead(full->target);
	rule_tags_are_unique(full->target);
	rule_reserved_fields_are_zero(full->target);
	rule_commands_are_framed(full->target);
	rule_data_out_is_framed(full->target, &limits);
	script_target_must_not_complain(full->target);
}

void full_end_unjudged(struct full *full)
{
	script_target_hook(full->target, NULL);
	must_umount(full->scene.stage, full->scene.mnt);
	cr_assert_eq(call_end(full->scene.lunfs, 10), 0, "it did not end well: %s",
	    scene_said(&full->scene));
	script_target_stop(full->target);
}

void full_end(struct full *full)
{
	script_target_hook(full->target, NULL);
	must_umount(full->scene.stage, full->scene.mnt);
	cr_assert_eq(call_end(full->scene.lunfs, 10), 0, "it did not end well: %s",
	    scene_said(&full->scene));
	must_keep_the_rules(full);
	script_target_stop(full->target);
}

/* ---- I/O ---- */

struct io_job full_read_of(const struct full *full, uint64_t offset, size_t length)
{
	return (struct io_job){
	    .path = full->scene.file, .seed = LOAD_SEED, .offset = offset, .length = length};
}

struct io_job full_write_of(const struct full *full, uint64_t offset, size_t length, unsigned seed)
{
	return (struct io_job){.path = full->scene.file,
	    .seed = seed,
	    .writes = true,
	    .offset = offset,
	    .length = length};
}

int full_do(struct io_job job)
{
	return call_end(call_start(0, do_io, &job), FULL_LIMIT);
}

static void must_be_done(const struct io_job *job, int outcome)
{
	cr_assert_eq(outcome, 0, "%s of %zu bytes at %lu %s: %d (%s)",
	    job->writes ? "a write" : "a read", job->length, job->offset,
	    outcome == -1            ? "hangs"
	    : outcome == WRONG_BYTES ? "gave wrong bytes"
	                             : "failed",
	    outcome, outcome > 0 && outcome != WRONG_BYTES ? strerror(outcome) : "");
}

void full_must_read(struct full *full, uint64_t offset, size_t length)
{
	struct io_job job = full_read_of(full, offset, length);

	must_be_done(&job, full_do(job));
}

void full_must_hold(struct full *full, uint64_t offset, size_t length, unsigned seed)
{
	unsigned char *expected = aligned_buffer(length);

	pattern_fill(expected, length, offset, seed);
	script_scene_must_be(&full->scene, SCRIPT_VOLATILE, expected, length, offset);
}

void full_must_write(struct full *full, uint64_t offset, size_t length, unsigned seed)
{
	struct io_job job = full_write_of(full, offset, length, seed);

	must_be_done(&job, full_do(job));
	full_must_hold(full, offset, length, seed);
}

void full_must_do_at_once(struct io_job *jobs, unsigned n)
{
	pid_t pids[MANY_JOBS];

	cr_assert_leq(n, MANY_JOBS);
	for (unsigned i = 0; i < n; i++)
		pids[i] = call_start(0, do_io, &jobs[i]);
	for (unsigned i = 0; i < n; i++)
		must_be_done(&jobs[i], call_end(pids[i], FULL_LIMIT));
}

void full_must_read_at_once(struct full *full, unsigned n)
{
	struct io_job jobs[MANY_JOBS];

	for (unsigned i = 0; i < n; i++)
		jobs[i] = full_read_of(full, i * KIB(4), KIB(4));
	full_must_do_at_once(jobs, n);
}

void full_read_and_write(struct full *full, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		full_must_write(full, MIB(2) + i * PIECE, PIECE, i + 1);
		full_must_read(full, i * PIECE, PIECE);
	}
}

/* ---- what passed ---- */

unsigned full_mark(struct full *full)
{
	return script_traffic_count(full->target);
}

bool full_find(
    struct full *full, unsigned *i, bool to_target, uint8_t opcode, struct script_traffic *pdu)
{
	while (script_traffic_get(full->target, (*i)++, pdu))
		if (pdu->to_target == to_target && (pdu->header[0] & 0x3f) == opcode)
			return true;
	(*i)--;
	return false;
}

unsigned full_count(struct full *full, unsigned from, bool to_target, uint8_t opcode)
{
	struct script_traffic pdu;
	unsigned count = 0;

	while (full_find(full, &from, to_target, opcode, &pdu))
		count++;
	return count;
}

struct passing {
	struct full *full;
	unsigned from, count;
	bool to_target;
	uint8_t opcode;
};

static bool has_passed(void *data)
{
	const struct passing *awaited = data;

	return full_count(awaited->full, awaited->from, awaited->to_target, awaited->opcode) >=
	       awaited->count;
}

void full_await(struct full *full, unsigned from, bool to_target, uint8_t opcode, unsigned count)
{
	struct passing awaited = {full, from, count, to_target, opcode};

	cr_assert(await(FULL_LIMIT, has_passed, &awaited),
	    "%u PDUs of opcode %02x passed, not %u:\n%s", full_count(full, from, to_target, opcode),
	    opcode, count, scene_said(&full->scene));
}

struct script_traffic full_nth(
    struct full *full, unsigned from, bool to_target, uint8_t opcode, unsigned n)
{
	struct script_traffic pdu = {0};

	for (unsigned i = 0; i <= n; i++)
		cr_assert(full_find(full, &from, to_target, opcode, &pdu),
		    "only %u PDUs of opcode %02x passed", i, opcode);
	return pdu;
}

bool full_is_read(const uint8_t *header)
{
	return (header[0] & 0x3f) == SCSI_COMMAND && (header[32] == 0x28 || header[32] == 0x88);
}

bool full_is_write(const uint8_t *header)
{
	return (header[0] & 0x3f) == SCSI_COMMAND && (header[32] == 0x2a || header[32] == 0x8a);
}

/* ---- sessions ---- */

void full_must_be_the_same_session(struct full *full)
{
	cr_assert_eq(script_target_logins(full->target), full->logins, "it logged in again:\n%s",
	    scene_said(&full->scene));
}

void full_must_be_begun_anew(struct full *full, unsigned times)
{
	cr_assert_eq(script_target_logins(full->target), full->logins + times,
	    "it logged in %u times more, not %u:\n%s",
	    script_target_logins(full->target) - full->logins, times, scene_said(&full->scene));
}

/* ---- PDUs of the target's own ---- */

void full_ping(struct full *full)
{
	unsigned mark = full_mark(full);

	script_target_ping(full->target);
	full_await(full, mark, true, NOP_OUT, 1);
}

void full_tell_window(struct full *full)
{
	uint8_t header[48] = {NOP_IN, FINAL};

	put_be32(header + 16, NO_TAG);
	put_be32(header + 20, NO_TAG);
	script_target_send_pdu(full->target, header, NULL, 0, false);
}
