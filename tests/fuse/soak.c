/*
 * soak.c - many faults of many kinds under load, and every byte is what it should be.
 *
 * Three mounts at a time: two of tgtd, each through a network that misbehaves, where tgtd is also
 * stopped, killed and started anew; one of the scripted target, which reboots and forgets what was
 * not synced. Workers write, read, punch and sync random places of their own with a shadow beside
 * them; after each fsync what is stable must be the shadow. fio verifies its own checksums
 * meanwhile. An error of any I/O is a failure: replacement_timeout is infinite.
 *
 * LUNFS_SEED repeats the faults and the operations (not how they meet). LUNFS_SOAK_SECONDS makes
 * it last.
 */
#include "support/data.h"
#include "support/mount.h"
#include "support/proxy.h"
#include "support/script_target.h"
#include "support/seed.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(soak, .timeout = 4000);

#define WORKERS  3u
#define REGION   MIB(1)
#define FIO_SIZE MIB(8)
#define FIO_AT   MIB(8)
#define LUN_SIZE MIB(16)
#define LONGEST  KIB(96)
#define MOUNTS   3u
#define FAULTS   68u  /* of each mount */
#define PATIENCE 60.0 /* until something goes on again */

/* ---- workers: processes, each with a region and its shadow ---- */

struct worker {
	/* shared by both processes */
	unsigned char shadow[REGION];
	gint operations, syncs, stop;
	char message[400];
	/* before the start */
	const char *file, *stable; /* through the mount; what the target keeps */
	uint64_t start;
	struct dice dice;
	pid_t pid;
};

enum handle { BUFFERED, DIRECT, SYNCHRONOUS, HANDLES };

struct work {
	struct worker *worker;
	int fds[HANDLES], stable;
	unsigned char *buffer;
	char last[160];
};

static bool complain(struct work *work, const char *what, ssize_t at)
{
	const struct worker *worker = work->worker;

	snprintf(work->worker->message, sizeof(worker->message),
	    "%s: %s after %d operations: %s (last operation: %s)%s", worker->file, what,
	    worker->operations, at < 0 ? strerror(errno) : "", work->last,
	    at < 0 ? "" : " differs from the shadow");
	if (at >= 0) {
		size_t length = strlen(work->worker->message);
		snprintf(work->worker->message + length, sizeof(worker->message) - length,
		    " at byte %#lx: %02x, not %02x", worker->start + (uint64_t)at, work->buffer[at],
		    worker->shadow[at]);
	}
	return false;
}

/* The first length bytes of the buffer are those of the region at offset. */
static bool compare(struct work *work, const char *what, uint64_t offset, size_t length)
{
	ssize_t at = first_difference(work->buffer, work->worker->shadow + offset, length);

	if (at < 0)
		return true;
	memmove(work->buffer + offset, work->buffer, length);
	return complain(work, what, (ssize_t)offset + at);
}

static bool read_and_compare(
    struct work *work, int fd, const char *what, uint64_t offset, size_t length)
{
	errno = EPIPE; /* a short one */
	if (pread(fd, work->buffer, length, (off_t)(work->worker->start + offset)) !=
	    (ssize_t)length)
		return complain(work, what, -1);
	return compare(work, what, offset, length);
}

static bool work_sync(struct work *work, enum handle handle, bool all)
{
	int fd = work->fds[handle];

	if ((all ? fsync(fd) : fdatasync(fd)) != 0)
		return complain(work, "fsync", -1);
	g_atomic_int_inc(&work->worker->syncs);
	return read_and_compare(work, work->stable, "what is stable after fsync", 0, REGION);
}

static bool work_write(struct work *work, enum handle handle, uint64_t offset, size_t length)
{
	struct worker *worker = work->worker;

	dice_fill(&worker->dice, worker->shadow + offset, length);
	memcpy(work->buffer, worker->shadow + offset, length);
	errno = EPIPE; /* a short one */
	if (pwrite(work->fds[handle], work->buffer, length, (off_t)(worker->start + offset)) !=
	    (ssize_t)length)
		return complain(work, "write", -1);
	if (handle != SYNCHRONOUS)
		return true;
	return read_and_compare(
	    work, work->stable, "what is stable after a synchronous write", offset, length);
}

static bool work_zero(struct work *work, bool punch, uint64_t offset, size_t length)
{
	struct worker *worker = work->worker;
	int mode = FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);

	memset(worker->shadow + offset, 0, length);
	if (fallocate(work->fds[BUFFERED], mode, (off_t)(worker->start + offset), (off_t)length) !=
	    0)
		return complain(work, "fallocate", -1);
	return true;
}

static bool work_once(struct work *work)
{
	struct worker *worker = work->worker;
	struct dice *dice = &worker->dice;
	size_t length = (size_t)dice_between(dice, 1, LONGEST >> dice_between(dice, 0, 7));
	uint64_t offset = dice_between(dice, 0, REGION - length);
	enum handle handle = (enum handle)dice_between(dice, 0, 1);
	unsigned die = (unsigned)dice_between(dice, 0, 99);

	if (dice_roll(dice) & 1) { /* whole blocks, mostly */
		offset &= ~(uint64_t)511;
		length = MAX(length & ~(size_t)511, 512);
	}
	snprintf(work->last, sizeof(work->last), "die %u, handle %u, %#lx..%#lx", die, handle,
	    worker->start + offset, worker->start + offset + length);
	if (die < 35)
		return read_and_compare(work, work->fds[handle], "a read", offset, length);
	if (die < 78)
		return work_write(work, handle, offset, length);
	if (die < 81)
		return work_write(work, SYNCHRONOUS, offset, length);
	if (die < 90)
		return work_zero(work, die & 1, offset, length);
	return work_sync(work, handle, die & 1);
}

static bool work_to_the_end(struct work *work)
{
	while (!g_atomic_int_get(&work->worker->stop)) {
		if (!work_once(work))
			return false;
		g_atomic_int_inc(&work->worker->operations);
	}
	return work_sync(work, BUFFERED, true) &&
	       read_and_compare(work, work->fds[DIRECT], "a direct read at the end", 0, REGION) &&
	       posix_fadvise(work->fds[BUFFERED], 0, 0, POSIX_FADV_DONTNEED) == 0 &&
	       read_and_compare(work, work->fds[BUFFERED], "a read at the end", 0, REGION);
}

static int worker_main(void *data)
{
	struct worker *worker = data;
	struct work work = {.worker = worker,
	    .stable = open(worker->stable, O_RDONLY | O_CLOEXEC),
	    .buffer = aligned_buffer(2 * REGION)};
	static const int flags[HANDLES] = {O_RDWR, O_RDWR | O_DIRECT, O_RDWR | O_DIRECT | O_DSYNC};

	for (int i = 0; i < HANDLES; i++)
		work.fds[i] = open(worker->file, flags[i] | O_CLOEXEC);
	if (work.fds[BUFFERED] < 0 || work.fds[DIRECT] < 0 || work.fds[SYNCHRONOUS] < 0 ||
	    work.stable < 0)
		return complain(&work, "open", -1), 2;
	if (!work_to_the_end(&work))
		return 1;
	for (int i = 0; i < HANDLES; i++)
		if (close(work.fds[i]) != 0)
			return complain(&work, "close", -1), 1;
	return 0;
}

/* ---- a mount under load ---- */

struct arena {
	struct stage *stage;
	const char *name;
	unsigned number;
	struct dice dice;
	/* of tgtd */
	struct tgt *tgt;
	struct proxy *proxy;
	bool thin;
	/* or scripted */
	struct script_target *script;

	char *mnt, *file, *backing, *log, *stop_fio;
	pid_t daemon, fio;
	struct worker *workers[WORKERS];

	/* the play */
	enum { QUIET, ACTING, RECOVERING } phase;
	const struct fault *fault;
	double due, deadline;
	int operations; /* when the fault was over */
	unsigned faults, counts[32];
	GString *history;
	unsigned chained; /* faults without a recovery between */
};

/* Starts what it does, and returns how long until end() is called; ms. */
struct fault {
	const char *name;
	unsigned (*begin)(struct arena *arena);
	void (*end)(struct arena *arena);
	/* Only when all is well: it could spoil a login beyond what can be noticed, or one command
	 * could meet more of it than it is tried again. */
	bool sober;
};

static unsigned ms_between(struct arena *arena, unsigned low, unsigned high)
{
	return (unsigned)dice_between(&arena->dice, low, high);
}

static enum proxy_direction any_direction(struct arena *arena)
{
	return (enum proxy_direction)dice_between(&arena->dice, 1, 3);
}

static enum proxy_direction one_direction(struct arena *arena)
{
	return (enum proxy_direction)dice_between(&arena->dice, 1, 2);
}

/* ---- faults of a network ---- */

static void heal(struct arena *arena)
{
	proxy_heal(arena->proxy);
	proxy_latency(arena->proxy, PROXY_BOTH, 0);
	proxy_limit(arena->proxy, PROXY_BOTH, 0);
	proxy_corrupt(arena->proxy, PROXY_BOTH, PROXY_HEADER, 0, 0);
}

static unsigned cut_rst(struct arena *arena)
{
	proxy_cut(arena->proxy, PROXY_CUT_RST);
	return 0;
}

static unsigned cut_fin(struct arena *arena)
{
	proxy_cut(arena->proxy, PROXY_CUT_FIN);
	return 0;
}

static unsigned drop(struct arena *arena)
{
	proxy_drop(arena->proxy, true);
	return ms_between(arena, 300, 1000);
}

static unsigned stall_half(struct arena *arena)
{
	proxy_stall_within(arena->proxy, one_direction(arena), PROXY_HALF, 48);
	return ms_between(arena, 100, 2600);
}

static unsigned stall(struct arena *arena)
{
	proxy_stall(arena->proxy, any_direction(arena));
	return ms_between(arena, 100, 2600);
}

static unsigned cut_half(struct arena *arena)
{
	proxy_cut_within(arena->proxy, one_direction(arena), PROXY_HALF, 512,
	    dice_roll(&arena->dice) & 1 ? PROXY_CUT_RST : PROXY_CUT_FIN);
	return ms_between(arena, 50, 300);
}

static unsigned cut_after(struct arena *arena)
{
	proxy_cut_after_pdus(arena->proxy, one_direction(arena), dice_between(&arena->dice, 1, 40),
	    dice_roll(&arena->dice) & 1 ? PROXY_CUT_RST : PROXY_CUT_FIN);
	return ms_between(arena, 50, 300);
}

static unsigned refuse(struct arena *arena)
{
	proxy_refuse(arena->proxy, true);
	proxy_cut(arena->proxy, PROXY_CUT_RST);
	return ms_between(arena, 100, 600);
}

static unsigned latency(struct arena *arena)
{
	proxy_latency(arena->proxy, any_direction(arena), 1000 * ms_between(arena, 5, 150));
	return ms_between(arena, 100, 600);
}

static unsigned narrow(struct arena *arena)
{
	proxy_limit(arena->proxy, any_direction(arena), KIB(ms_between(arena, 100, 2000)));
	return ms_between(arena, 100, 600);
}

/* With a header digest, this is noticed. */
static unsigned corrupt(struct arena *arena)
{
	proxy_corrupt(arena->proxy, one_direction(arena), PROXY_HEADER, ms_between(arena, 1, 4),
	    ms_between(arena, 0, 48 * 8 - 1));
	return ms_between(arena, 50, 200);
}

/* ---- faults of tgtd ---- */

static unsigned freeze(struct arena *arena)
{
	tgt_freeze(arena->tgt);
	return ms_between(arena, 100, 2600);
}

static void thaw(struct arena *arena)
{
	tgt_thaw(arena->tgt);
}

static unsigned kill_9(struct arena *arena)
{
	tgt_kill(arena->tgt);
	return ms_between(arena, 0, 300);
}

static void tgt_fill(struct arena *arena)
{
	arena->tgt = tgt_start(arena->stage);
	tgt_add_target(arena->tgt, arena->number, SCENE_IQN);
	tgt_set(arena->tgt, "--mode target --op update --tid %u --name HeaderDigest --value CRC32C",
	    arena->number);
	arena->backing = tgt_add_lun(arena->tgt, arena->number, .lun = 1, .size = LUN_SIZE,
	    .block_size = 512, .thin = arena->thin);
}

/* The same LUNs, at another port. */
static void start_again(struct arena *arena)
{
	tgt_fill(arena);
	proxy_retarget(arena->proxy, arena->tgt->port);
}

static const struct fault tgt_faults[] = {
    {"cut rst", cut_rst, NULL, false},
    {"cut fin", cut_fin, NULL, false},
    {"drop", drop, heal, false},
    {"stall", stall, heal, false},
    {"stall half", stall_half, heal, false},
    {"cut half", cut_half, heal, false},
    {"cut after pdus", cut_after, heal, false},
    {"refuse", refuse, heal, false},
    {"latency", latency, heal, false},
    {"narrow", narrow, heal, false},
    {"corrupt header", corrupt, heal, true},
    {"freeze", freeze, thaw, false},
    {"kill -9", kill_9, start_again, false},
};

/* ---- faults of a target that forgets ---- */

static unsigned reboot(struct arena *arena, bool untold)
{
	script_target_reboot(
	    arena->script, (struct script_reboot){.how = (enum script_cut)ms_between(arena, 0, 2),
	                       .some_survive = dice_roll(&arena->dice) & 1,
	                       .seed = (uint32_t)dice_roll(&arena->dice),
	                       .closed_ms = ms_between(arena, 0, 300),
	                       .untold = untold});
	return 0;
}

static unsigned reboot_told(struct arena *arena)
{
	return reboot(arena, false);
}

static unsigned reboot_untold(struct arena *arena)
{
	return reboot(arena, true);
}

static unsigned lun_reset(struct arena *arena)
{
	script_target_forget(arena->script, 1);
	return 0;
}

static unsigned script_cut(struct arena *arena)
{
	script_target_drop(arena->script, (enum script_cut)ms_between(arena, 0, 1));
	return 0;
}

static unsigned script_silence(struct arena *arena)
{
	script_target_drop(arena->script, SCRIPT_SILENTLY);
	return 0;
}

static unsigned script_stop(struct arena *arena)
{
	script_target_freeze(arena->script, true);
	return ms_between(arena, 100, 2600);
}

static void script_go_on(struct arena *arena)
{
	script_target_freeze(arena->script, false);
}

static void rules_end(struct arena *arena)
{
	script_target_forget_rules(arena->script);
	script_target_release(arena->script);
	script_target_latency(arena->script, 0);
}

/* Commands are late, in another order, and then the power fails. */
static unsigned disorder(struct arena *arena)
{
	static const int opcodes[] = {SCRIPT_WRITE, SCRIPT_SYNC, SCRIPT_READ, SCRIPT_ANY};

	for (unsigned i = 0; i < 8; i++)
		script_target_rule(
		    arena->script, (struct script_rule){.opcode = opcodes[ms_between(arena, 0, 3)],
		                       .skip = ms_between(arena, 0, 4),
		                       .times = ms_between(arena, 1, 5),
		                       .delay_ms = ms_between(arena, 0, 200),
		                       .answer_delay_ms = ms_between(arena, 0, 200)});
	return ms_between(arena, 50, 300);
}

static void power_failure(struct arena *arena)
{
	reboot(arena, dice_roll(&arena->dice) & 1);
	rules_end(arena);
}

static unsigned hang(struct arena *arena)
{
	script_target_rule(arena->script,
	    (struct script_rule){.opcode = dice_roll(&arena->dice) & 1 ? SCRIPT_WRITE : SCRIPT_SYNC,
	        .times = ms_between(arena, 1, 3),
	        .hang = true});
	return ms_between(arena, 50, 300);
}

static void hang_ends(struct arena *arena)
{
	script_target_drop(arena->script, (enum script_cut)ms_between(arena, 0, 2));
	rules_end(arena);
}

static unsigned trouble(struct arena *arena)
{
	static const struct script_rule troubles[] = {
	    {.status = SAM_BUSY},
	    {.status = SAM_TASK_SET_FULL},
	    {.status = SAM_CHECK_CONDITION, .sense = {SENSE_ABORTED_COMMAND, 0x47, 0}},
	    {.status = SAM_CHECK_CONDITION, .sense = {SENSE_NOT_READY, 0x04, 0x01}},
	    {.status = SAM_CHECK_CONDITION, .sense = {SENSE_UNIT_ATTENTION, 0x2f, 0}},
	};

	for (unsigned i = 0; i < 2; i++) {
		struct script_rule rule = troubles[ms_between(arena, 0, 4)];
		rule.opcode = SCRIPT_ANY;
		rule.skip = ms_between(arena, 0, 10);
		rule.times = ms_between(arena, 1, 2);
		script_target_rule(arena->script, rule);
	}
	return ms_between(arena, 50, 300);
}

static unsigned bad_answers(struct arena *arena)
{
	static const enum script_spoil spoils[] = {SCRIPT_UNDERFLOW, SCRIPT_NO_DATA,
	    SCRIPT_UNKNOWN_OPCODE, SCRIPT_TRUNCATED, SCRIPT_REJECT, SCRIPT_WRONG_ITT};

	script_target_rule(arena->script,
	    (struct script_rule){.opcode = dice_roll(&arena->dice) & 1 ? SCRIPT_READ : SCRIPT_WRITE,
	        .times = 1,
	        .spoil = spoils[ms_between(arena, 0, G_N_ELEMENTS(spoils) - 1)]});
	return ms_between(arena, 50, 200);
}

static unsigned refuse_logins(struct arena *arena)
{
	script_target_login_rule(
	    arena->script, (struct script_login_rule){.deed = SCRIPT_LOGIN_REFUSE,
	                       .times = ms_between(arena, 1, 3),
	                       .status_class = 3,
	                       .status_detail = 1});
	script_target_drop(arena->script, SCRIPT_RST);
	return ms_between(arena, 200, 800);
}

static unsigned attentions(struct arena *arena)
{
	script_target_attention(arena->script, 1, 0x2a, 0x01);
	script_target_attention(arena->script, 1, 0x2a, 0x09);
	script_target_forget(arena->script, 1);
	script_target_attention(arena->script, 1, 0x3f, 0x03);
	return 0;
}

static const struct fault script_faults[] = {
    {"reboot, told", reboot_told, NULL, false},
    {"reboot, untold", reboot_untold, NULL, false},
    {"disorder, then reboot", disorder, power_failure, false},
    {"LUN reset", lun_reset, NULL, false},
    {"LUN reset among attentions", attentions, NULL, true},
    {"hang, then cut", hang, hang_ends, false},
    {"cut", script_cut, NULL, false},
    {"silence", script_silence, NULL, false},
    {"stop", script_stop, script_go_on, false},
    {"busy and the like", trouble, rules_end, true},
    {"bad answers", bad_answers, rules_end, false},
    {"logins refused", refuse_logins, rules_end, false},
};

/* ---- the play ---- */

static const struct fault *arena_faults(const struct arena *arena, unsigned *count)
{
	*count = arena->script ? G_N_ELEMENTS(script_faults) : G_N_ELEMENTS(tgt_faults);
	return arena->script ? script_faults : tgt_faults;
}

static int arena_operations(const struct arena *arena)
{
	int least = G_MAXINT;

	for (unsigned i = 0; i < WORKERS; i++)
		least = MIN(least, g_atomic_int_get(&arena->workers[i]->operations));
	return least;
}

static char *tail(struct arena *arena)
{
	return sh(arena->stage, "tail -n 25 %s", arena->log)->out;
}

/* Fails as soon as a worker does. */
static void arena_watch(struct arena *arena)
{
	for (unsigned i = 0; i < WORKERS; i++)
		cr_assert(arena->workers[i]->message[0] == '\0',
		    "%s, fault %u: %s\nthe last faults:%s\n%s", arena->name, arena->faults,
		    arena->workers[i]->message,
		    arena->history->str + MAX(arena->history->len, 120) - 120, tail(arena));
	int status = arena->fio ? call_end(arena->fio, 0) : -1;
	cr_assert(status < 0, "%s, fault %u (%s): fio ended with %d: %s\n%s", arena->name,
	    arena->faults, arena->fault ? arena->fault->name : "none", status,
	    must(arena->stage, "grep -v '^3;' fio%u | tail -n 5", arena->number), tail(arena));
}

static void arena_begin_fault(struct arena *arena, double now)
{
	unsigned count;
	const struct fault *faults = arena_faults(arena, &count);
	/* each kind before any for the second time, in this order: then at random */
	unsigned which = arena->faults < count ? arena->faults : ms_between(arena, 0, count - 1);

	if (faults[which].sober && arena->chained > 0)
		which = 0;
	arena->fault = &faults[which];
	arena->counts[which]++;
	g_string_append_printf(arena->history, " %s,", faults[which].name);
	arena->faults++;
	arena->due = now + arena->fault->begin(arena) / 1000.0;
	arena->phase = ACTING;
}

static void arena_end_fault(struct arena *arena, double now)
{
	if (arena->fault->end)
		arena->fault->end(arena);
	arena->operations = arena_operations(arena);
	arena->deadline = seconds_now() + patience(PATIENCE);
	arena->phase = RECOVERING;
	arena->due = now;
	/* the next one may come while this one is being dealt with */
	if (dice_between(&arena->dice, 0, 3) == 0) {
		arena->chained++;
		arena->phase = QUIET;
		arena->due = now + ms_between(arena, 0, 150) / 1000.0;
	}
}

/* All workers have gone on for a while: it has recovered. */
static void arena_recover(struct arena *arena, double now)
{
	if (arena_operations(arena) > arena->operations + 2) {
		arena->chained = 0;
		arena->phase = QUIET;
		arena->due = now + ms_between(arena, 0, 80) / 1000.0;
		return;
	}
	cr_assert(now < arena->deadline, "%s: nothing goes on after '%s' (fault %u)\n%s",
	    arena->name, arena->fault->name, arena->faults, tail(arena));
}

/* Does what is due. False: no fault is under way, and none is to come. */
static bool arena_play(struct arena *arena, bool more)
{
	double now = seconds_now();

	arena_watch(arena);
	if (now < arena->due)
		return true;
	switch (arena->phase) {
	case QUIET:
		if (!more)
			return false;
		arena_begin_fault(arena, now);
		break;
	case ACTING:
		arena_end_fault(arena, now);
		break;
	case RECOVERING:
		arena_recover(arena, now);
		break;
	}
	return true;
}

/* ---- its beginning and its end ---- */

static bool arena_is_mounted(void *data)
{
	const struct arena *arena = data;

	return is_mounted(arena->mnt) && access(arena->file, F_OK) == 0;
}

static void arena_mount(struct arena *arena)
{
	struct stage *stage = arena->stage;
	uint16_t port =
	    arena->script ? script_target_port(arena->script) : proxy_port(arena->proxy);

	arena->mnt = stage_directory(stage, text(stage, "mnt%u", arena->number), 0);
	arena->file = text(stage, "%s/lun1.img", arena->mnt);
	arena->log = text(stage, "%s/log%u", stage->dir, arena->number);
	arena->daemon = sh_start(stage, 0, NULL, arena->log,
	    "%s mount iscsi://127.0.0.1:%u/" SCENE_IQN
	    " %s -f -o noop_out_interval=1s,noop_out_timeout=1s,replacement_timeout=infinity,"
	    "login_timeout=3s%s",
	    stage->lunfs, port, arena->mnt, arena->script ? "" : ",header_digest=crc32c");
	cr_assert(await(20, arena_is_mounted, arena), "not mounted:\n%s", tail(arena));
}

static void arena_start_fio(struct arena *arena)
{
	struct stage *stage = arena->stage;

	if (arena->script || sh(stage, "command -v fio")->status != 0)
		return;
	arena->stop_fio = text(stage, "%s/stop%u", stage->dir, arena->number);
	arena->fio = sh_start(stage, 0, text(stage, "%s/fio%u", stage->dir, arena->number), NULL,
	    "sh -c 'seed=%u; while [ ! -e %s ]; do "
	    "fio --name=soak --filename=%s --offset=%lu --size=%lu --rw=randwrite --bsrange=4k-64k "
	    "--direct=%u --ioengine=%s --iodepth=8 --fsync=40 --verify=crc32c --verify_fatal=1 "
	    "--verify_backlog=64 --do_verify=1 --randseed=$seed --output-format=terse --minimal "
	    "2>&1 || exit 1; seed=$((seed + 1)); done'",
	    (unsigned)dice_between(&arena->dice, 1, 1000000), arena->stop_fio, arena->file, FIO_AT,
	    FIO_SIZE, arena->number & 1, arena->number & 1 ? "libaio" : "psync");
}

static void arena_start(struct arena *arena)
{
	arena_mount(arena);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct worker *worker = mmap(NULL, sizeof(*worker), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		cr_assert(worker != MAP_FAILED);
		worker->file = arena->file;
		worker->stable = arena->backing;
		worker->start = i * 2 * REGION;
		worker->dice.state = dice_roll(&arena->dice);
		worker->pid = call_start(0, worker_main, worker);
		arena->workers[i] = worker;
	}
	arena_start_fio(arena);
}

static void arena_end(struct arena *arena)
{
	for (unsigned i = 0; i < WORKERS; i++)
		g_atomic_int_set(&arena->workers[i]->stop, 1);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct worker *worker = arena->workers[i];
		int status = call_end(worker->pid, PATIENCE);

		cr_assert(status == 0, "%s: a worker ended with %d: %s\n%s", arena->name, status,
		    worker->message, tail(arena));
	}
	if (arena->fio) {
		must(arena->stage, "touch %s", arena->stop_fio);
		cr_assert_eq(call_end(arena->fio, PATIENCE), 0, "%s: fio failed: %s\n%s",
		    arena->name,
		    must(arena->stage, "grep -v '^3;' fio%u | tail -n 5", arena->number),
		    tail(arena));
	}
	must_umount(arena->stage, arena->mnt);
	cr_assert_eq(call_end(arena->daemon, PATIENCE), 0, "%s", tail(arena));
	for (unsigned i = 0; i < WORKERS; i++)
		must_hold(
		    arena->backing, arena->workers[i]->shadow, REGION, arena->workers[i]->start);
}

static void arena_sum_up(struct arena *arena, GString *text)
{
	unsigned count, operations = 0, syncs = 0;
	const struct fault *faults = arena_faults(arena, &count);

	for (unsigned i = 0; i < WORKERS; i++) {
		operations += (unsigned)arena->workers[i]->operations;
		syncs += (unsigned)arena->workers[i]->syncs;
	}
	g_string_append_printf(text, "; %s: %u operations, %u syncs compared, %u faults (",
	    arena->name, operations, syncs, arena->faults);
	for (unsigned i = 0; i < count; i++)
		g_string_append_printf(
		    text, "%s%u %s", i > 0 ? ", " : "", arena->counts[i], faults[i].name);
	g_string_append_c(text, ')');
}

static struct arena *arenas_make(struct stage *stage, uint32_t seed)
{
	struct arena *arenas = g_new0(struct arena, MOUNTS);
	static const char *const names[MOUNTS] = {"tgtd", "tgtd, thin", "scripted"};

	for (unsigned i = 0; i < MOUNTS; i++) {
		arenas[i].stage = stage;
		arenas[i].name = names[i];
		arenas[i].number = i + 1;
		arenas[i].dice.state = (uint64_t)seed << 8 | i;
		arenas[i].thin = i == 1;
		arenas[i].history = g_string_new(NULL);
		if (i < 2) {
			tgt_fill(&arenas[i]);
			arenas[i].proxy = proxy_start(arenas[i].tgt->port);
		} else {
			arenas[i].script = script_target_start(SCENE_IQN);
			arenas[i].backing = text(stage, "%s/scripted", stage->dir);
			script_target_add_lun_file(
			    arenas[i].script, 1, LUN_SIZE, 512, arenas[i].backing);
			script_target_ghosts(arenas[i].script, SCRIPT_GHOSTS_LIVE, 700);
		}
	}
	return arenas;
}

static unsigned long soak_seconds(void)
{
	const char *given = getenv("LUNFS_SOAK_SECONDS");

	return given ? strtoul(given, NULL, 10) : 0;
}

Test(soak, hundreds_of_faults_of_many_kinds_lose_nothing)
{
	uint32_t seed = test_seed("soak");
	struct stage *stage = stage_new();
	struct arena *arenas = arenas_make(stage, seed);
	unsigned long faults = scaled(FAULTS), seconds = soak_seconds();
	double start = seconds_now();
	bool playing = true;
	g_autoptr(GString) sum = g_string_new(NULL);

	for (unsigned i = 0; i < MOUNTS; i++)
		arena_start(&arenas[i]);
	while (playing) {
		playing = false;
		for (unsigned i = 0; i < MOUNTS; i++)
			playing |=
			    arena_play(&arenas[i], seconds ? seconds_now() - start < (double)seconds
			                                   : arenas[i].faults < faults);
		g_usleep(3000);
	}
	double played = seconds_now() - start;
	for (unsigned i = 0; i < MOUNTS; i++)
		arena_end(&arenas[i]);
	for (unsigned i = 0; i < MOUNTS; i++)
		arena_sum_up(&arenas[i], sum);
	fprintf(stderr, "soak: seed %u, %u faults in %.0f s, %.0f s in all%s\n", seed,
	    arenas[0].faults + arenas[1].faults + arenas[2].faults, played, seconds_now() - start,
	    sum->str);
	for (unsigned i = 0; i < 2; i++)
		proxy_stop(arenas[i].proxy);
	script_target_stop(arenas[2].script);
}
