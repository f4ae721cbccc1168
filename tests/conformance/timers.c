/*
 * timers.c - login_timeout counts over all of a login, wherever the target falls silent.
 */
#include "conformance/lab.h"

TestSuite(timers, .timeout = 120);

struct silence {
	unsigned after; /* Login Requests */
	unsigned count;
};

static bool swallow(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	struct silence *silence = own;

	(void)hook;
	(void)data;
	(void)length;
	return (header[0] & 0x3f) == PDU_LOGIN && silence->count++ >= silence->after;
}

/* login_timeout is 2 s. */
static void gives_up(struct scene *scene)
{
	struct result *result = lab_must_refuse(scene, NULL, "127.0.0.1|does not answer");

	cr_assert(result->seconds > 1.5 && result->seconds < patience(4), "after %.1f s",
	    result->seconds);
	lab_close(scene);
}

static void gives_up_after(unsigned answers)
{
	const struct script_login_step steps[] = {{0}, {.cut = 150, .stay = true}};
	struct silence silence = {.after = answers};
	struct scene scene = lab_with_steps(steps, 2);

	script_target_hook(scene.script, &(struct script_hooks){.came = swallow, .own = &silence});
	gives_up(&scene);
}

Test(timers, a_target_that_never_answers_costs_login_timeout)
{
	gives_up_after(0);
}

Test(timers, a_target_that_is_silent_after_the_security_stage_costs_login_timeout)
{
	gives_up_after(1);
}

Test(timers, a_target_that_is_silent_within_an_answer_costs_login_timeout)
{
	gives_up_after(2);
}

Test(timers, a_target_that_is_silent_after_a_round_costs_login_timeout)
{
	gives_up_after(3);
}

static bool waits(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	(void)hook;
	(void)data;
	(void)length;
	(void)own;
	if ((header[0] & 0x3f) == PDU_LOGIN)
		g_usleep(700000);
	return false;
}

Test(timers, answers_that_each_come_in_time_do_not_stretch_login_timeout)
{
	const struct script_login_step steps[] = {
	    {.stay = true}, {.stay = true}, {.stay = true}, {.stay = true}, {.stay = true}};
	struct scene scene = lab_with_steps(steps, G_N_ELEMENTS(steps));

	script_target_hook(scene.script, &(struct script_hooks){.came = waits});
	struct result *result = lab_must_refuse(&scene, NULL, "127.0.0.1|does not answer");
	cr_assert(result->seconds < patience(4.5), "after %.1f s", result->seconds);
	lab_close(&scene);
}

Test(timers, a_slow_answer_within_login_timeout_is_waited_for)
{
	struct scene scene = lab_new();

	script_target_login_rule(scene.script,
	    (struct script_login_rule){.deed = SCRIPT_LOGIN_DELAY, .delay_ms = 1500, .times = 1});
	lab_mount(&scene, NULL);
	cr_assert_eq(script_target_login_attempts(scene.script), 1);
	lab_end(&scene);
}

Test(timers, a_target_that_hangs_up_in_the_login_is_named)
{
	struct scene scene = lab_new();

	script_target_login_rule(
	    scene.script, (struct script_login_rule){.deed = SCRIPT_LOGIN_CLOSE});
	lab_must_refuse(&scene, NULL, "127.0.0.1|closed|does it want CHAP|username");
	struct result *result = lab_must_refuse(&scene, LAB_ONE_WAY, "127.0.0.1|closed");
	cr_assert(!strstr(result->err, "CHAP"), "%s", result->err);
	lab_close(&scene);
}
