/*
 * status.c - how a login ends that does not succeed: redirects, refusals of the initiator, troubles
 * of the target (RFC 7143, 11.13.5).
 */
#include "conformance/lab.h"
#include "conformance/login_rules.h"

#include <stdio.h>
#include <string.h>

TestSuite(status, .timeout = 120);

/* ---- redirects ---- */

static void redirect_to(struct script_target *target, uint8_t detail, const char *address)
{
	struct script_login_rule rule = {.deed = SCRIPT_LOGIN_REDIRECT, .status_detail = detail};

	g_strlcpy(rule.address, address, sizeof(rule.address));
	script_target_login_rule(target, rule);
}

/* The first target sends to the scene's; format has its port. */
static struct scene redirected(struct script_target **first, uint8_t detail, const char *address)
{
	struct scene scene = lab_new();
	g_autoptr(GString) place = g_string_new(address);
	g_autofree char *port = g_strdup_printf("%u", script_target_port(scene.script));

	g_string_replace(place, "PORT", port, 0);
	*first = lab_second();
	redirect_to(*first, detail, place->str);
	return scene;
}

static void ends(struct scene *scene, struct script_target *first)
{
	script_target_must_not_complain(first);
	script_target_stop(first);
	lab_end(scene);
}

static void follows(uint8_t detail, const char *address, const char *options)
{
	struct script_target *first;
	struct scene scene = redirected(&first, detail, address);

	lab_mount_source(&scene, lab_url_of(&scene, first), options);
	cr_assert_eq(script_target_login_attempts(first), 1);
	cr_assert_eq(script_target_logins(scene.script), 1);
	ends(&scene, first);
}

Test(status, a_temporary_redirect_with_a_group_tag_is_followed__rfc7143_11_13_5)
{
	follows(1, "127.0.0.1:PORT,1", NULL);
}

Test(status, a_temporary_redirect_without_group_tag_is_followed__rfc7143_13_8)
{
	follows(1, "127.0.0.1:PORT", NULL);
}

Test(status, a_permanent_redirect_with_a_group_tag_is_followed__rfc7143_11_13_5)
{
	follows(2, "127.0.0.1:PORT,1", NULL);
}

Test(status, a_permanent_redirect_without_group_tag_is_followed__rfc7143_13_8)
{
	follows(2, "127.0.0.1:PORT", NULL);
}

Test(status, a_redirect_to_an_ipv6_address_in_brackets_is_followed__rfc7143_13_8)
{
	follows(1, "[::ffff:127.0.0.1]:PORT,1", NULL);
	follows(2, "[::ffff:127.0.0.1]:PORT", NULL);
}

Test(status, a_redirect_to_a_name_is_followed__rfc7143_13_8)
{
	follows(1, "localhost:PORT,1", NULL);
}

Test(status, a_redirect_without_port_leads_to_3260__rfc7143_13_8)
{
	struct scene scene = lab_new();
	struct script_target *first = lab_second();

	lab_close(&scene);
	scene.script = script_target_start_at(SCENE_IQN, 3260);
	script_target_add_lun(scene.script, 1, LAB_SIZE, 512);
	redirect_to(first, 1, "127.0.0.1,1");
	scene_mount_as(&scene, 0, lab_url_of(&scene, first), "login_timeout=3s");
	cr_assert_eq(script_target_logins(scene.script), 1);
	ends(&scene, first);
}

Test(status, a_redirect_in_the_second_stage_is_followed__rfc7143_11_13_5)
{
	struct scene scene = lab_new();
	struct script_target *first = lab_second();
	struct script_login_step steps[] = {
	    {0}, {.status = 0x0101,
	             .keys = text(scene.stage, "TargetAddress=127.0.0.1:%u,1",
	                 script_target_port(scene.script))}};

	script_target_login_steps(first, steps, 2);
	lab_mount_source(&scene, lab_url_of(&scene, first), NULL);
	cr_assert_eq(script_target_logins(scene.script), 1);
	ends(&scene, first);
}

Test(status, where_a_redirect_leads_proofs_are_asked_for_and_given__rfc7143_11_13_5)
{
	struct script_target *first;
	struct scene scene = redirected(&first, 1, "127.0.0.1:PORT,1");

	script_target_chap(scene.script, &(struct script_chap){.user = LAB_USER,
	                                     .secret = LAB_SECRET,
	                                     .user_in = LAB_USER_IN,
	                                     .secret_in = LAB_SECRET_IN});
	lab_mount_source(&scene, lab_url_of(&scene, first), LAB_MUTUAL);
	ends(&scene, first);
}

#define HOPS 8

/* Targets, each of which sends to the next; the last to `last`. */
static void chain_up(struct script_target *chain[HOPS], unsigned hops, uint16_t last)
{
	for (unsigned i = 0; i < hops; i++)
		chain[i] = lab_second();
	for (unsigned i = 0; i < hops; i++) {
		uint16_t next = i + 1 < hops ? script_target_port(chain[i + 1]) : last;
		g_autofree char *address = g_strdup_printf("127.0.0.1:%u,1", next);

		redirect_to(chain[i], 1, address);
	}
}

static void stop_all(struct script_target *chain[HOPS], unsigned hops)
{
	for (unsigned i = 0; i < hops; i++)
		script_target_stop(chain[i]);
}

Test(status, three_redirects_in_a_row_are_followed__rfc7143_11_13_5)
{
	struct scene scene = lab_new();
	struct script_target *chain[HOPS];

	chain_up(chain, 3, script_target_port(scene.script));
	lab_mount_source(&scene, lab_url_of(&scene, chain[0]), NULL);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(script_target_login_attempts(chain[i]), 1);
	lab_end(&scene);
	stop_all(chain, 3);
}

Test(status, a_circle_of_redirects_is_named_and_left__rfc7143_11_13_5)
{
	struct scene scene = lab_new();
	struct script_target *chain[HOPS];

	chain_up(chain, 2, 0);
	script_target_forget_rules(chain[1]);
	redirect_to(chain[1], 1, text(scene.stage, "127.0.0.1:%u,1", script_target_port(chain[0])));
	struct result *result = lab_must_refuse_source(
	    &scene, lab_url_of(&scene, chain[0]), NULL, "redirect|circle|" SCENE_IQN);
	cr_assert_leq(script_target_login_attempts(chain[0]), 2, "%s", result->err);
	cr_assert_leq(script_target_login_attempts(chain[1]), 2, "%s", result->err);
	stop_all(chain, 2);
	lab_close(&scene);
}

Test(status, a_redirect_to_itself_is_a_circle__rfc7143_11_13_5)
{
	struct scene scene = lab_new();

	redirect_to(
	    scene.script, 2, text(scene.stage, "127.0.0.1:%u,1", script_target_port(scene.script)));
	lab_must_refuse(&scene, NULL, "redirect|circle");
	cr_assert_leq(script_target_login_attempts(scene.script), 2);
	lab_close(&scene);
}

Test(status, redirects_without_end_are_left__rfc7143_11_13_5)
{
	struct scene scene = lab_new();
	struct script_target *chain[HOPS];

	chain_up(chain, HOPS, 1);
	lab_must_refuse_source(&scene, lab_url_of(&scene, chain[0]), NULL, "redirect");
	cr_assert_leq(script_target_login_attempts(chain[0]), 1);
	cr_assert_eq(
	    script_target_login_attempts(chain[HOPS - 1]), 0, "%u hops are no limit", HOPS);
	stop_all(chain, HOPS);
	lab_close(&scene);
}

static void leads_nowhere(const char *keys)
{
	const struct script_login_step steps[] = {{.keys = keys, .status = 0x0101}};

	lab_is_refused(steps, 1, NULL, "redirect|" SCENE_IQN);
}

Test(status, a_redirect_without_address_is_told__rfc7143_11_13_5)
{
	struct scene scene =
	    lab_with_steps((const struct script_login_step[]){{.keys = "", .status = 0x0101}}, 1);

	lab_must_refuse(&scene, NULL, SCENE_IQN);
	cr_assert_eq(script_target_login_attempts(scene.script), 1);
	lab_close(&scene);
}

Test(status, a_redirect_to_what_is_no_address_is_told__rfc7143_13_8)
{
	leads_nowhere("TargetAddress=:3260,1");
	leads_nowhere("TargetAddress=127.0.0.1:99999,1");
	leads_nowhere("TargetAddress=[::1:3260,1");
}

Test(status, a_redirect_to_a_closed_port_names_it__rfc7143_11_13_5)
{
	struct scene scene = lab_new();
	char *dead = text(scene.stage, "127.0.0.1:%u", free_port());

	redirect_to(scene.script, 1, text(scene.stage, "%s,1", dead));
	lab_must_refuse(&scene, NULL, text(scene.stage, "%s|refused", dead));
	lab_close(&scene);
}

Test(status, an_unknown_kind_of_redirect_is_told__rfc7143_11_13_5)
{
	const struct script_login_step steps[] = {{.keys = "", .status = 0x0103}};
	struct scene scene = lab_with_steps(steps, 1);

	lab_must_refuse(&scene, NULL, SCENE_IQN);
	cr_assert_leq(script_target_login_attempts(scene.script), 2);
	lab_close(&scene);
}

/* How often the first portal is asked when the session is lost behind a redirect. */
static unsigned asked_again(uint8_t detail)
{
	struct script_target *first;
	struct scene scene = redirected(&first, detail, "127.0.0.1:PORT,1");

	lab_mount_source(&scene, lab_url_of(&scene, first), NULL);
	script_target_drop(scene.script, SCRIPT_RST);
	script_scene_await_login(&scene, 2);
	lab_use(&scene);
	unsigned asked = script_target_login_attempts(first);
	ends(&scene, first);
	return asked - 1;
}

Test(status, a_permanent_redirect_is_remembered_while_mounted__rfc7143_11_13_5)
{
	cr_assert_eq(asked_again(2), 0);
}

Test(status, a_temporary_redirect_is_asked_for_again__rfc7143_11_13_5)
{
	cr_assert_eq(asked_again(1), 1);
}

static bool has_logged_in(void *target)
{
	return script_target_logins(target) > 0;
}

Test(status, a_permanent_redirect_to_a_portal_that_died_is_forgotten__rfc7143_11_13_5)
{
	struct script_target *first;
	struct scene scene = redirected(&first, 2, "127.0.0.1:PORT,1");
	g_autofree unsigned char *bytes = g_malloc(KIB(64));

	lab_mount_source(&scene, lab_url_of(&scene, first), NULL);
	script_target_forget_rules(first);
	script_target_listen(scene.script, false);
	script_target_drop(scene.script, SCRIPT_RST);
	cr_assert(await(20, has_logged_in, first), "it does not come back: %s", scene_said(&scene));
	pattern_fill(bytes, KIB(64), 0, 11);
	must_hold(scene.file, bytes, KIB(64), 0);
	ends(&scene, first);
}

Test(status, a_discovery_follows_a_redirect__rfc7143_11_13_5)
{
	struct scene scene = lab_new();
	struct script_target *first = script_target_start("iqn.2026-01.org.lunfs:first");
	struct script_login_rule rule = {
	    .deed = SCRIPT_LOGIN_REDIRECT, .discovery = true, .status_detail = 1};

	snprintf(
	    rule.address, sizeof(rule.address), "127.0.0.1:%u,1", script_target_port(scene.script));
	script_target_login_rule(first, rule);
	char *found = must_lunfs(scene.stage, "discover 127.0.0.1:%u", script_target_port(first));
	cr_assert(strstr(found, SCENE_IQN) && !strstr(found, ":first"), "%s", found);
	script_target_stop(first);
	lab_close(&scene);
}

/* ---- 02: the initiator is at fault ---- */

/* At once, one attempt, one line with the words. */
static void is_refused_with(uint16_t status, const char *options, const char *words)
{
	struct scene scene = lab_new();
	struct script_login_rule rule = {.deed = SCRIPT_LOGIN_REFUSE,
	    .status_class = (uint8_t)(status >> 8),
	    .status_detail = (uint8_t)status};

	script_target_login_rule(scene.script, rule);
	struct result *result = lab_must_refuse(&scene, options, words);
	cr_assert_eq(script_target_login_attempts(scene.script), 1, "tried again: %s", result->err);
	cr_assert(result->seconds < patience(1.5), "after %.1f s", result->seconds);
	cr_assert(!strstr(result->err, LAB_SECRET), "%s", result->err);
	lab_close(&scene);
}

Test(status, refusal_0200_initiator_error_is_final__rfc7143_11_13_5)
{
	is_refused_with(0x0200, NULL, SCENE_IQN "|0200");
}

Test(status, refusal_0201_without_a_user_asks_for_one__rfc7143_11_13_5)
{
	is_refused_with(0x0201, NULL, SCENE_IQN "|CHAP|username");
}

Test(status, refusal_0201_with_a_user_names_user_and_password__rfc7143_11_13_5)
{
	struct scene scene = lab_new();

	script_target_chap(
	    scene.script, &(struct script_chap){.user = LAB_USER, .secret = "another-secret-1"});
	lab_must_refuse(&scene, LAB_ONE_WAY, "CHAP|'" LAB_USER "'|password");
	cr_assert_eq(script_target_login_attempts(scene.script), 1);
	lab_close(&scene);
}

Test(status, refusal_0202_names_the_initiator_to_allow__rfc7143_11_13_5)
{
	is_refused_with(0x0202, "initiator_name=iqn.2026-01.org.lunfs:me",
	    SCENE_IQN "|allow|iqn.2026-01.org.lunfs:me");
}

Test(status, refusal_0203_names_the_target_that_is_not_there__rfc7143_11_13_5)
{
	is_refused_with(0x0203, NULL, "no target|" SCENE_IQN "|discover");
}

Test(status, refusal_0204_names_the_target_that_was_removed__rfc7143_11_13_5)
{
	is_refused_with(0x0204, NULL, SCENE_IQN);
}

Test(status, refusal_0205_tells_of_the_version__rfc7143_11_13_5)
{
	is_refused_with(0x0205, NULL, SCENE_IQN "|version");
}

Test(status, refusal_0206_too_many_connections_is_final__rfc7143_11_13_5)
{
	is_refused_with(0x0206, NULL, SCENE_IQN "|0206");
}

Test(status, refusal_0207_tells_of_a_missing_parameter__rfc7143_11_13_5)
{
	is_refused_with(0x0207, NULL, SCENE_IQN "|parameter");
}

Test(status, refusal_0208_cannot_include_in_session_is_final__rfc7143_11_13_5)
{
	is_refused_with(0x0208, NULL, SCENE_IQN "|session");
}

Test(status, refusal_0209_tells_of_the_session_type__rfc7143_11_13_5)
{
	is_refused_with(0x0209, NULL, SCENE_IQN "|session type");
}

Test(status, refusal_020a_session_does_not_exist_is_final__rfc7143_11_13_5)
{
	is_refused_with(0x020a, NULL, SCENE_IQN "|session");
}

Test(status, refusal_020b_invalid_during_login_is_final__rfc7143_11_13_5)
{
	is_refused_with(0x020b, NULL, SCENE_IQN "|invalid");
}

Test(status, an_unknown_refusal_of_class_2_is_final__rfc7143_11_13_5)
{
	is_refused_with(0x02ee, NULL, SCENE_IQN "|02ee");
}

Test(status, a_refusal_in_the_second_stage_is_final__rfc7143_11_13_5)
{
	lab_is_refused((const struct script_login_step[]){{0}, {.keys = "", .status = 0x0202}}, 2,
	    "initiator_name=iqn.2026-01.org.lunfs:me", "allow|iqn.2026-01.org.lunfs:me");
}

Test(status, a_refusal_with_text_and_flags_is_a_refusal__rfc7143_11_13_5)
{
	lab_is_refused(
	    (const struct script_login_step[]){
	        {.more = "X-why=because", .status = 0x0203, .padding = 0xff}},
	    1, NULL, SCENE_IQN);
}

Test(status, an_unknown_class_is_told__rfc7143_11_13_5)
{
	struct scene scene = lab_new();

	script_target_login_rule(scene.script,
	    (struct script_login_rule){.deed = SCRIPT_LOGIN_REFUSE, .status_class = 9});
	lab_must_refuse(&scene, NULL, SCENE_IQN "|0900");
	lab_close(&scene);
}

Test(status, a_relogin_that_is_refused_is_not_repeated_at_once__rfc7143_11_13_5)
{
	struct scene scene = lab_new();
	struct script_login login[2];

	lab_mount(&scene, NULL);
	script_target_login_rule(scene.script,
	    (struct script_login_rule){
	        .deed = SCRIPT_LOGIN_REFUSE, .status_class = 2, .status_detail = 2, .times = 1});
	script_target_drop(scene.script, SCRIPT_RST);
	script_scene_await_login(&scene, 2);
	cr_assert_eq(script_target_login_attempts(scene.script), 3);
	cr_assert(script_target_login_attempt(scene.script, 1, &login[0]) &&
	          script_target_login_attempt(scene.script, 2, &login[1]));
	cr_assert_geq(login[1].at_ms - login[0].at_ms, 800);
	lab_use(&scene);
	lab_end(&scene);
}

/* ---- 03: the target is in trouble ---- */

static void is_tried_again(uint8_t detail)
{
	struct scene scene = lab_new();
	struct script_login_rule rule = {
	    .deed = SCRIPT_LOGIN_REFUSE, .status_class = 3, .status_detail = detail, .times = 2};

	script_target_login_rule(scene.script, rule);
	lab_mount(&scene, NULL);
	cr_assert_eq(script_target_login_attempts(scene.script), 3);
	lab_end(&scene);
}

Test(status, trouble_0300_target_error_is_tried_again__rfc7143_11_13_5)
{
	is_tried_again(0);
}

Test(status, trouble_0301_service_unavailable_is_tried_again__rfc7143_11_13_5)
{
	is_tried_again(1);
}

Test(status, trouble_0302_out_of_resources_is_tried_again__rfc7143_11_13_5)
{
	is_tried_again(2);
}

Test(status, trouble_that_lasts_is_told_after_login_timeout__rfc7143_11_13_5)
{
	struct scene scene = lab_new();

	script_target_login_rule(
	    scene.script, (struct script_login_rule){
	                      .deed = SCRIPT_LOGIN_REFUSE, .status_class = 3, .status_detail = 1});
	struct result *result = lab_must_refuse(&scene, NULL, SCENE_IQN "|0301|enabled");
	unsigned attempts = script_target_login_attempts(scene.script);
	cr_assert(attempts >= 2 && attempts <= 50, "%u attempts: %s", attempts, result->err);
	cr_assert(result->seconds > 1 && result->seconds < patience(4), "after %.1f s: %s",
	    result->seconds, result->err);
	lab_close(&scene);
}

Test(status, trouble_at_a_relogin_is_tried_again__rfc7143_11_13_5)
{
	struct scene scene = lab_new();

	lab_mount(&scene, NULL);
	script_target_login_rule(scene.script,
	    (struct script_login_rule){
	        .deed = SCRIPT_LOGIN_REFUSE, .status_class = 3, .status_detail = 1, .times = 3});
	script_target_drop(scene.script, SCRIPT_RST);
	script_scene_await_login(&scene, 2);
	cr_assert_eq(script_target_login_attempts(scene.script), 5);
	lab_use(&scene);
	lab_end(&scene);
}
