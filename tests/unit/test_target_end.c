/*
 * test_target_end.c - a target, and what it was asked, at the end: what comes late must not bring
 * it back, or find what is gone.
 */
#include "lunfs/iscsi.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"
#include "lunfs/portal.h"
#include "support/script_target.h"

#include <criterion/criterion.h>

TestSuite(target_end, .timeout = 30);

#define IQN       "iqn.2026-11.org.lunfs.test:end"
#define INITIATOR "iqn.2026-11.org.lunfs.test:initiator"

struct bench {
	struct loop *loop;
	bool settled, closed, up;
	unsigned answers;
};

static void stop_waiting(void *data)
{
	loop_quit(data);
}

/* Until something came, or the time is over. */
static void turn(struct bench *bench, unsigned ms)
{
	GSource *timer = loop_timer(bench->loop, ms, stop_waiting, bench->loop);

	loop_run(bench->loop);
	loop_remove(&timer);
}

/* ---- a target ---- */

static void target_told(
    struct target *target, enum target_event event, struct disk *disk, void *data)
{
	struct bench *bench = data;

	(void)target;
	(void)disk;
	bench->settled |= event == TARGET_SETTLED;
	bench->closed |= event == TARGET_CLOSED;
	loop_quit(bench->loop);
}

Test(target_end, a_rescan_does_not_bring_back_what_is_closing)
{
	struct bench bench = {.loop = loop_new()};
	g_autoptr(GPtrArray) targets = g_ptr_array_new();
	struct target_plan plan = {.name = (char *)"end",
	    .iqn = (char *)IQN,
	    .portals = portals_new(),
	    .options = options_new(),
	    .credentials = g_new0(struct credentials, 1),
	    .initiator_name = (char *)INITIATOR};
	const struct target_environment environment = {.loop = bench.loop, .targets = targets};

	portals_add(plan.portals, "127.0.0.1", 1); /* nobody is there */
	struct target *target = target_new(&environment, &plan, target_told, &bench);
	while (!bench.settled)
		turn(&bench, 5000);
	cr_assert_str_eq(target_state(target), "failed");
	target_close(target, 1000);
	target_rescan(target);
	turn(&bench, 5000);
	cr_assert(bench.closed, "it was dialed once more, and never closes");
	target_free(target);
	options_free(plan.options);
	g_free(plan.credentials);
	g_ptr_array_unref(plan.portals);
	loop_free(bench.loop);
}

/* ---- a LOGICAL UNIT RESET ---- */

static void session_told(
    struct session *session, enum session_event event, const char *text, void *data)
{
	struct bench *bench = data;

	(void)session;
	(void)text;
	bench->up |= event == SESSION_UP;
	loop_quit(bench->loop);
}

static void reset_done(bool ok, void *data)
{
	struct bench *bench = data;

	(void)ok;
	bench->answers++;
}

/* How often is a reset answered, that is forgotten before the answer comes, or not? */
static unsigned answers_to_a_reset(bool ignored)
{
	struct bench bench = {.loop = loop_new()};
	struct script_target *script = script_target_start(IQN);
	g_autoptr(GPtrArray) portals = portals_new();
	const struct login login = {.portals = portals,
	    .target = IQN,
	    .initiator_name = INITIATOR,
	    .isid_random = 1,
	    .login_timeout_ms = 5000,
	    .command_timeout_ms = 5000,
	    .noop_interval_ms = 5000,
	    .noop_timeout_ms = 5000};

	script_target_add_lun(script, 1, 1 << 20, 512);
	portals_add(portals, "127.0.0.1", script_target_port(script));
	struct session *session = session_new(bench.loop, &login, session_told, &bench);
	while (!bench.up)
		turn(&bench, 5000);
	session_reset_lun(session, 1, reset_done, &bench);
	if (ignored)
		session_forget_reset(session, &bench);
	for (unsigned i = 0; i < 100 && bench.answers == 0; i++)
		turn(&bench, i < 99 ? 5 : 300);
	cr_assert_eq(script_target_management_count(script, 5), 1);
	session_free(session);
	script_target_stop(script);
	loop_free(bench.loop);
	return bench.answers;
}

Test(target_end, a_reset_answers_once_but_not_to_who_is_gone)
{
	cr_assert_eq(answers_to_a_reset(false), 1);
	cr_assert_eq(answers_to_a_reset(true), 0, "a LUN that was taken away is told");
}
