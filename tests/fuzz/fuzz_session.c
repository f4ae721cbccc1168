/*
 * fuzz_session.c - everything that a hostile target can send: the fuzz target.
 *
 * An input makes a target (target.h); the real session logs in to it, the real probe asks for its
 * LUNs, and a real disk on a real nexus reads, writes and flushes, as src/mount/disk.c would have
 * it; or a discovery is made. Then all is freed. What must hold:
 *   - each request is done exactly once, and nothing is left;
 *   - it ends, within the time that lunfs gives its targets, and lunfs does not spin meanwhile;
 *   - no memory and no descriptor is lost, none is used that is not ours (the sanitizers);
 *   - a target that is to prove itself, and did not, is not believed;
 *   - a target that is correct is served without an error.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lunfs/iscsi.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/scsi.h"
#include "target.h"
#include "world.h"

#define MAX_LOSSES 2u
#define SPIN_TURNS 3000u
#define MAX_TURNS  30000u
/* A probe may pause for 3 s a LUN, a flush may take 120 s, a write may be told BUSY for 30 s; and a
 * target may want us back in 3600 s only, at each loss (Time2Wait). */
#define PATIENCE_US (INT64_C(1000000) * (1200 + MAX_LOSSES * 3600))
#define MAX_IOVS    4
#define PATIENCE_MS 1000u /* replacement_timeout */
#define ROUNDS      2u

/* One request of a round. Its buffers are allocated by the byte, so that none can overflow unseen.
 */
struct request {
	struct io io;
	struct iovec iov[MAX_IOVS];
	int error;
	unsigned done;
};

static struct {
	struct loop *loop;
	GPtrArray *portals;
	struct login login;
	uint8_t behaviour, shape;
	struct session *session;
	struct discovery *discovery;
	struct probe *probe;
	struct nexus *nexus;
	struct block *disk;
	struct lun_info info;
	struct request *requests[8];
	unsigned count, pending, round, losses, done_errors;
	bool up, finished, closed, no_disk;
	struct loop_work starter;
} app;

static void fail(const char *what)
{
	fprintf(stderr, "fuzz: %s\n", what);
	abort();
}

/* ---- requests ---- */

static void app_round_done(void);

static void request_done(struct io *io, int error)
{
	struct request *request = (struct request *)io;

	if (request->done++ != 0)
		fail("a request was done twice");
	if (error > 0)
		fail("a request ended with an error that is none");
	request->error = error;
	app.done_errors += error != 0 && error != -EROFS; /* a CD's */
	if (--app.pending == 0)
		app_round_done();
}

static void request_add(enum io_op op, uint32_t flags, uint64_t offset, size_t length)
{
	static const size_t cuts[] = {100, 3996, 512, SIZE_MAX}; /* iovecs need not be blocks */
	struct request *request = g_new0(struct request, 1);

	request->io = (struct io){.op = op,
	    .flags = flags,
	    .offset = offset,
	    .length = length,
	    .iov = request->iov,
	    .done = request_done};
	if (op == IO_READ || op == IO_WRITE)
		for (size_t left = length; left > 0;
		     left -= request->iov[request->io.niov - 1].iov_len) {
			struct iovec *iov = &request->iov[request->io.niov];

			iov->iov_len = MIN(left, cuts[request->io.niov]);
			request->io.niov++;
			iov->iov_base = malloc(iov->iov_len);
			memset(iov->iov_base, 0x5a, iov->iov_len);
		}
	app.requests[app.count++] = request;
	app.pending++;
}

/* A correct target's data is what it holds. */
static void request_check(const struct request *request)
{
	uint64_t offset = request->io.offset;

	if (request->done != 1)
		fail("a request was not done");
	if (request->error != 0 || request->io.op != IO_READ || !target_was_correct())
		return;
	for (int i = 0; i < request->io.niov; i++) {
		if (memcmp(request->iov[i].iov_base, target_bytes(offset),
		        request->iov[i].iov_len) != 0)
			fail("a read has wrong data");
		offset += request->iov[i].iov_len;
	}
}

static void requests_clear(void)
{
	for (unsigned i = 0; i < app.count; i++) {
		struct request *request = app.requests[i];

		request_check(request);
		for (int k = 0; k < request->io.niov; k++)
			free(request->iov[k].iov_base);
		g_free(request);
	}
	app.count = 0;
}

static void app_start_round(struct loop_work *work)
{
	uint64_t block = app.info.block_size;
	size_t large = (app.shape & SHAPE_LARGE_IO) == SHAPE_LARGE_IO ? 264u << 10 : 0;

	(void)work;
	requests_clear();
	if (app.round++ == 0) {
		request_add(IO_READ, 0, 0, MAX(8 * block, large));
		request_add(IO_WRITE, 0, 8 * block, MAX(8 * block, large));
		request_add(IO_READ, 0, 32 * block, block);
		request_add(IO_FLUSH, 0, 0, 0);
	} else {
		request_add(IO_WRITE, IO_FUA, 0, block);
		request_add(IO_ZERO, 0, 64 * block, 16 * block);
		request_add(IO_WRITE, 0, 16 * block, 2 * block);
		request_add(IO_READ, 0, 4 * block, 4 * block);
		request_add(IO_FLUSH, 0, 0, 0);
	}
	for (unsigned i = 0, count = app.count; i < count; i++)
		block_submit(app.disk, &app.requests[i]->io);
}

static void app_round_done(void)
{
	if (app.round < ROUNDS)
		loop_defer(app.loop, &app.starter);
	else
		app.finished = true;
}

/* ---- the session and the disk, as src/mount has them ---- */

static void app_give_up(void *data)
{
	(void)data;
	disk_gone(app.disk);
	nexus_fail(app.nexus);
}

static void app_expired(void *data)
{
	(void)data;
	disk_gone(app.disk);
}

/* The LUN was asked again after a loss. */
static void app_judge(const struct lun_info *luns, unsigned count)
{
	char text[300];

	for (unsigned i = 0; i < count; i++) {
		if (luns[i].lun != app.info.lun || luns[i].fault[0] != '\0' ||
		    disk_verify(app.disk, &luns[i], 0, text, sizeof text) != DISK_SAME)
			continue;
		session_verified(app.session);
		nexus_open(app.nexus);
		disk_back(app.disk);
		return;
	}
	app.finished |= app.pending == 0;
	app_give_up(NULL);
}

static void app_probed(const struct lun_info *luns, unsigned count, const char *error, void *data)
{
	(void)data;
	if (error != NULL && error[0] == '\0')
		fail("an error has no words");
	if (app.disk != NULL) {
		app_judge(luns, error == NULL ? count : 0);
		return;
	}
	for (unsigned i = 0; error == NULL && i < count && app.disk == NULL; i++) {
		if (!scsi_type_is_block(luns[i].type) || luns[i].fault[0] != '\0')
			continue;
		app.info = luns[i];
		app.nexus =
		    nexus_new(app.loop, session_port(app.session), PATIENCE_MS, app_expired, NULL);
		app.disk = disk_new(app.loop, nexus_port(app.nexus), &app.info, "lun.img",
		    app.info.write_protected);
		session_verified(app.session);
	}
	if (app.disk != NULL)
		loop_defer(app.loop, &app.starter);
	else if (app.up)
		app.finished = app.no_disk = true;
}

static void app_check_proof(void)
{
	if (app.login.username_in != NULL && !target_has_proved())
		fail("a target that did not prove itself was believed");
}

static void app_session_event(
    struct session *session, enum session_event event, const char *text, void *data)
{
	(void)session;
	(void)data;
	switch (event) {
	case SESSION_UP:
		app.up = true;
		app_check_proof();
		probe_free(app.probe);
		app.probe = probe_start(session_port(app.session), app.loop,
		    app.behaviour & BEHAVIOUR_LIST ? -1 : 0, app_probed, NULL);
		break;
	case SESSION_LOST:
		app.up = false;
		if (text == NULL || text[0] == '\0')
			fail("a loss has no words");
		log_info("the session is lost: %s", text);
		if (++app.losses >= MAX_LOSSES)
			app.finished = true;
		if (app.disk == NULL)
			break;
		nexus_lost(app.nexus);
		disk_lost(app.disk);
		break;
	case SESSION_FAILED:
		if (text == NULL || text[0] == '\0')
			fail("a failure has no words");
		log_info("the login failed: %s", text);
		app.finished = app.no_disk = true;
		break;
	case SESSION_CLOSED:
		app.closed = true;
		break;
	default:
		break;
	}
}

static void app_discovered(GPtrArray *targets, const char *error, void *data)
{
	(void)data;
	if (app.finished)
		fail("a discovery was done twice");
	if ((targets == NULL) == (error == NULL))
		fail("a discovery has neither an answer nor an error, or both");
	app.done_errors += error != NULL;
	if (error == NULL)
		app_check_proof();
	if (error != NULL)
		log_info("discovery: %s", error);
	app.finished = true;
	for (unsigned i = 0; targets != NULL && i < targets->len; i++) {
		const struct discovered_target *target = g_ptr_array_index(targets, i);
		if (target->name == NULL || target->portals->len == 0)
			fail("a discovered target has no name or no portal");
		for (unsigned k = 0; k < target->portals->len; k++) {
			const struct discovered_portal *portal =
			    g_ptr_array_index(target->portals, k);
			if (portal->host == NULL || portal->host[0] == '\0')
				fail("a discovered portal has no host");
		}
	}
}

/* ---- one input ---- */

static void app_run_until(const bool *flag, bool or_over)
{
	int64_t end_us = world_now_us() + PATIENCE_US;

	for (unsigned turns = 0; !*flag && !(or_over && target_is_over()); turns++) {
		if (!world_turn() && !*flag)
			fail("nothing will ever happen any more");
		if (world_idle_turns() > SPIN_TURNS)
			fail("it spins");
		if (world_now_us() > end_us)
			fail("it does not end");
		if (turns > MAX_TURNS)
			break;
	}
}

static void app_start(const uint8_t *input, size_t size)
{
	struct loop_work starter = {.run = app_start_round};
	struct loop *loop = app.loop;
	GPtrArray *portals = app.portals;

	memset(&app, 0, sizeof app);
	app.loop = loop;
	app.portals = portals;
	app.starter = starter;
	app.behaviour = size > 0 ? input[0] : 0;
	app.shape = size > 1 ? input[1] : 0;
	app.login = (struct login){
	    .portals = app.portals,
	    .target = app.behaviour & BEHAVIOUR_DISCOVERY ? NULL : TARGET_NAME,
	    .initiator_name = "iqn.2026-01.org.lunfs:fuzzer",
	    .isid_random = 0x123456,
	    .header_digest = app.behaviour & BEHAVIOUR_HEADER_DIGEST,
	    .login_timeout_ms = 200,
	    .command_timeout_ms = 200,
	    .noop_interval_ms = 100,
	    .noop_timeout_ms = 100,
	};
	if (app.behaviour & BEHAVIOUR_CHAP) {
		app.login.username = CHAP_USER;
		app.login.password = CHAP_PASSWORD;
	}
	if ((app.behaviour & BEHAVIOUR_CHAP) && (app.behaviour & BEHAVIOUR_MUTUAL_CHAP)) {
		app.login.username_in = CHAP_USER_IN;
		app.login.password_in = CHAP_SECRET;
	}
}

static void app_end_session(void)
{
	if (app.session != NULL && (app.behaviour & BEHAVIOUR_CLOSE) && !app.no_disk) {
		session_close(app.session, 50);
		app_run_until(&app.closed, false);
	}
	if (app.disk != NULL)
		app_give_up(NULL);
	session_free(app.session);
	probe_free(app.probe);
	loop_cancel(app.loop, &app.starter);
	for (unsigned i = 0; app.pending > 0 && i < 10; i++)
		world_turn();
	requests_clear();
	loop_cancel(app.loop, &app.starter);
	if (app.disk != NULL)
		block_free(app.disk);
	if (app.nexus != NULL)
		nexus_free(app.nexus);
}

static void app_run(const uint8_t *input, size_t size)
{
	world_reset();
	target_start(input, size);
	app_start(input, size);
	if (app.behaviour & BEHAVIOUR_DISCOVERY)
		app.discovery = discovery_start(app.loop, &app.login, app_discovered, NULL);
	else
		app.session = session_new(app.loop, &app.login, app_session_event, NULL);
	app_run_until(&app.finished, true);
	if (target_was_correct() && (app.done_errors != 0 || app.losses != 0 || app.no_disk))
		fail("a correct target was not served");
	app_end_session();
	discovery_free(app.discovery);
	target_end();
	world_reset();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	static struct portal portal = {.host = (char *)"127.0.0.1", .port = 3260};

	app.loop = loop_new();
	app.portals = g_ptr_array_new();
	g_ptr_array_add(app.portals, &portal);
	world_init(app.loop, &hostile_target);
	log_to_syslog(NULL, NULL);       /* which is the world's */
	app_run((const uint8_t *)"", 0); /* what GLib makes once */
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	unsigned files = world_open_files();

	app_run(input, size);
	if (world_open_files() != files)
		fail("a descriptor was left open");
	return 0;
}
