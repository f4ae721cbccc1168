/*
 * relogin.c - where, when and how often a session logs in: redirects, statuses, a logout that the
 * target asks for, and the time that it wants us to wait (RFC 7143, 11.9.1, 11.13.5, 11.15.3).
 */
#include "support/data.h"
#include "support/load.h"
#include "support/script_traffic.h"
#include "support/site.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

TestSuite(relogin, .timeout = 120);

#define LOGOUT_REQUEST  0x06
#define LOGOUT_RESPONSE 0x26
#define SCSI_COMMAND    0x01
#define ASYNC_MESSAGE   0x32
#define NOP_IN          0x20

static char *portal_of(struct stage *stage, struct script_target *target)
{
	return text(stage, "127.0.0.1:%u", script_target_port(target));
}

/* From now on. */
static void refuse(struct script_target *target, uint16_t status, unsigned times)
{
	script_target_login_rule(target, (struct script_login_rule){.deed = SCRIPT_LOGIN_REFUSE,
	                                     .times = times,
	                                     .status_class = (uint8_t)(status >> 8),
	                                     .status_detail = (uint8_t)status});
}

static void redirect(struct script_target *target, const char *to, bool permanent)
{
	struct script_login_rule rule = {
	    .deed = SCRIPT_LOGIN_REDIRECT, .status_class = 1, .status_detail = permanent ? 2 : 1};

	g_strlcpy(rule.address, to, sizeof(rule.address));
	script_target_login_rule(target, rule);
}

struct count {
	struct script_target *target;
	unsigned attempts;
};
static bool came(void *data)
{
	const struct count *count = data;

	return script_target_login_attempts(count->target) >= count->attempts;
}

/* The mount fails with one line that holds all words (separated by '|'). */
static void must_not_mount(
    struct stage *stage, struct script_target *target, const char *options, const char *words)
{
	char *mnt = stage_directory(stage, "mnt", 0);
	g_auto(GStrv) wanted = g_strsplit(words, "|", -1);
	struct result *result = lunfs(stage, "mount iscsi://%s/" SCENE_IQN " %s -o %s",
	    portal_of(stage, target), mnt, options);

	cr_assert_eq(result->status, 1, "%s", result->err);
	cr_assert_eq(count_words(result->err, "\n"), 1, "not one line: %s", result->err);
	for (char **word = wanted; *word; word++)
		cr_assert(strstr(result->err, *word), "no '%s' in: %s", *word, result->err);
}

/* ---- redirects (RFC 7143, 11.13.5) ---- */

/* A mounted target behind another portal, which only sends there. */
struct moved {
	struct scene scene;
	struct script_target *first;
	struct load *load;
};

static struct moved moved_scene(bool permanent)
{
	struct moved moved = {.scene = scene_of_script(LOAD_DISK)};
	struct stage *stage = moved.scene.stage;

	load_put_pattern(&moved.scene);
	moved.first = script_target_start(SCENE_IQN);
	redirect(moved.first, portal_of(stage, moved.scene.script), permanent);
	scene_mount_as(&moved.scene, 0,
	    text(stage, "iscsi://%s/" SCENE_IQN, portal_of(stage, moved.first)), NULL);
	cr_assert_eq(script_target_login_attempts(moved.first), 1);
	moved.load = load_start(&moved.scene);
	load_must_go_on(moved.load);
	return moved;
}

static void moved_end(struct moved *moved)
{
	must_end_well(moved->load, &moved->scene, "");
	script_target_stop(moved->first);
}

Test(relogin, goes_to_where_the_target_has_moved_for_good)
{
	struct moved moved = moved_scene(true);

	for (unsigned i = 1; i <= 3; i++) {
		script_target_drop(moved.scene.script, SCRIPT_RST);
		scene_must_say(&moved.scene, "logged in again at ", i, 10);
		load_must_go_on(moved.load);
	}
	cr_assert_eq(script_target_login_attempts(moved.first), 1, "it was not remembered");
	moved_end(&moved);
}

Test(relogin, asks_the_configured_portal_again_where_the_target_has_gone_from_there)
{
	struct moved moved = moved_scene(true);
	struct count again = {moved.first, 3};

	script_target_listen(moved.scene.script, false);
	script_target_drop(moved.scene.script, SCRIPT_RST);
	cr_assert(await(patience(20), came, &again), "the configured portal is forgotten");
	script_target_listen(moved.scene.script, true);
	load_must_go_on(moved.load);
	moved_end(&moved);
}

Test(relogin, begins_at_the_configured_portal_after_a_move_for_a_while)
{
	struct moved moved = moved_scene(false);

	for (unsigned i = 1; i <= 3; i++) {
		script_target_drop(moved.scene.script, SCRIPT_RST);
		scene_must_say(&moved.scene, "logged in again at ", i, 10);
		load_must_go_on(moved.load);
		cr_assert_eq(script_target_login_attempts(moved.first), 1 + i);
	}
	moved_end(&moved);
}

Test(relogin, a_circle_of_redirects_is_told_with_its_addresses)
{
	struct stage *stage = stage_new();
	struct script_target *one = script_target_start(SCENE_IQN);
	struct script_target *two = script_target_start(SCENE_IQN);
	char *a = portal_of(stage, one), *b = portal_of(stage, two);

	redirect(one, b, false);
	redirect(two, a, true);
	must_not_mount(
	    stage, one, "login_timeout=30s", text(stage, "circle|%s -> %s -> %s", a, b, a));
	cr_assert_eq(script_target_login_attempts(one), 1);
	cr_assert_eq(script_target_login_attempts(two), 1);
}

Test(relogin, five_redirects_are_followed_and_no_more)
{
	struct stage *stage = stage_new();
	struct script_target *targets[7];
	char *mnt = stage_directory(stage, "there", 0);

	for (unsigned i = 0; i < 7; i++)
		targets[i] = script_target_start(SCENE_IQN);
	for (unsigned i = 0; i < 6; i++)
		redirect(targets[i], portal_of(stage, targets[i + 1]), i % 2);
	must_not_mount(stage, targets[0], "login_timeout=30s", "do not end");
	cr_assert_eq(script_target_login_attempts(targets[5]), 1);
	cr_assert_eq(script_target_login_attempts(targets[6]), 0);
	script_target_add_lun(targets[6], 1, MIB(1), 512);
	must_lunfs(stage, "mount iscsi://%s/" SCENE_IQN " %s", portal_of(stage, targets[1]), mnt);
	must_umount(stage, mnt);
}

Test(relogin, a_redirect_to_nowhere_is_told)
{
	static const char *const nowhere[] = {"", ":3260", "10.0.0.1:99999999", "10.0.0.1:3260,x"};
	struct stage *stage = stage_new();

	for (unsigned i = 0; i < 2 * G_N_ELEMENTS(nowhere); i++) {
		struct script_target *target = script_target_start(SCENE_IQN);

		redirect(target, nowhere[i / 2], i % 2);
		must_not_mount(stage, target, "login_timeout=10s", "redirect|TargetAddress");
		cr_assert_eq(script_target_login_attempts(target), 1);
		script_target_stop(target);
	}
}

Test(relogin, what_a_redirect_names_does_not_command_the_terminal)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);

	redirect(target, "\033[2J", false);
	must_not_mount(stage, target, "login_timeout=10s", "redirected|-> \\x1b[2J");
}

/* ---- statuses of the first login ---- */

Test(relogin, a_login_that_is_put_off_is_tried_again)
{
	static const uint16_t statuses[] = {0x0300, 0x0301, 0x0302, 0x0305};

	for (unsigned i = 0; i < G_N_ELEMENTS(statuses); i++) {
		struct scene scene = scene_of_script(LOAD_DISK);
		struct script_login first, last;

		refuse(scene.script, statuses[i], 3);
		scene_mount(&scene, NULL);
		cr_assert_eq(script_target_login_attempts(scene.script), 4);
		script_target_login_attempt(scene.script, 0, &first);
		script_target_login_attempt(scene.script, 3, &last);
		/* half of 100, 200 and 400 ms, at least */
		cr_assert_geq(last.at_ms - first.at_ms, 340, "it is in a hurry");
		scene_end(&scene);
	}
}

Test(relogin, a_login_that_is_put_off_for_too_long_fails)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);
	double start = seconds_now();

	refuse(target, 0x0301, 0);
	must_not_mount(stage, target, "login_timeout=3s", "0301h|try again later");
	cr_assert(seconds_now() - start > 1.5, "it gave up after %.1f s", seconds_now() - start);
	cr_assert(seconds_now() - start < patience(5), "%.1f s", seconds_now() - start);
	cr_assert_geq(script_target_login_attempts(target), 4);
	cr_assert_leq(script_target_login_attempts(target), 12, "without pauses");
}

Test(relogin, a_login_that_is_refused_is_not_tried_again)
{
	static const uint16_t statuses[] = {0x0103, 0x0200, 0x0201, 0x0202, 0x0203, 0x0204, 0x0205,
	    0x0206, 0x0207, 0x0208, 0x0209, 0x020a, 0x020b, 0x02ff, 0x0400};
	struct stage *stage = stage_new();

	for (unsigned i = 0; i < G_N_ELEMENTS(statuses); i++) {
		struct script_target *target = script_target_start(SCENE_IQN);

		refuse(target, statuses[i], 0);
		must_not_mount(stage, target, "login_timeout=10s", SCENE_IQN);
		cr_assert_eq(script_target_login_attempts(target), 1, "status %04xh", statuses[i]);
		script_target_stop(target);
	}
}

Test(relogin, of_two_portals_the_one_that_refuses_is_not_tried_again)
{
	struct stage *stage = stage_new();
	struct script_target *one = script_target_start(SCENE_IQN);
	struct script_target *two = script_target_start(SCENE_IQN);
	char *mnt = stage_directory(stage, "mnt", 0);

	site_configure(stage, "%s",
	    site_section(stage, "both",
	        text(stage, "%s;%s", portal_of(stage, one), portal_of(stage, two)), SCENE_IQN));
	refuse(one, 0x0202, 0);
	refuse(two, 0x0301, 2);
	script_target_add_lun(two, 1, MIB(1), 512);
	must_lunfs(stage, "mount both %s", mnt);
	cr_assert_eq(script_target_login_attempts(one), 1);
	cr_assert_eq(script_target_login_attempts(two), 3);
	must_umount(stage, mnt);
}

/* ---- statuses after an outage ---- */

Test(relogin, after_an_outage_a_target_that_refuses_is_asked_seldom)
{
	struct scene scene = scene_with_script("replacement_timeout=infinity");
	struct load *load = load_start(&scene);
	unsigned before = script_target_login_attempts(scene.script);

	load_must_go_on(load);
	refuse(scene.script, 0x0202, 0);
	script_target_drop(scene.script, SCRIPT_RST);
	scene_must_say(&scene, "this is tried again", 1, 10);
	g_usleep(4000000); /* at 0, 1 and 3 s */
	unsigned attempts = script_target_login_attempts(scene.script) - before;
	cr_assert(attempts >= 2 && attempts <= 3, "%u logins", attempts);
	cr_assert_eq(count_words(scene_said(&scene), "does not allow this initiator"), 1);
	script_target_forget_rules(scene.script);
	load_must_go_on(load);
	must_end_well(load, &scene, "");
}

Test(relogin, after_an_outage_a_target_that_only_starts_is_asked_often)
{
	struct scene scene = scene_with_script("replacement_timeout=infinity");
	struct load *load = load_start(&scene);
	struct count soon = {scene.script, script_target_login_attempts(scene.script) + 8};

	load_must_go_on(load);
	for (unsigned i = 0; i < 2; i++) {
		refuse(scene.script, 0x0203, 1);
		refuse(scene.script, 0x0204, 1);
		refuse(scene.script, 0x0206, 1);
		refuse(scene.script, 0x0301, 1);
	}
	double start = seconds_now();
	script_target_drop(scene.script, SCRIPT_RST);
	cr_assert(await(patience(10), came, &soon));
	load_must_go_on(load);
	cr_assert(seconds_now() - start < patience(5), "%.1f s", seconds_now() - start);
	cr_assert_eq(count_words(scene_said(&scene), "this is tried again"), 0);
	must_end_well(load, &scene, "");
}

/* Among several targets, which are tried again for ever. */
static unsigned attempts_within_seconds(uint16_t status)
{
	struct stage *stage = stage_new();
	struct script_target *good = script_target_start(SCENE_IQN);
	struct script_target *bad = script_target_start("iqn.2026-01.org.lunfs:bad");
	char *mnt = stage_directory(stage, "mnt", 0);

	script_target_add_lun(good, 1, MIB(1), 512);
	refuse(bad, status, 0);
	site_configure(stage, "%s%s",
	    site_section(stage, "good", portal_of(stage, good), SCENE_IQN),
	    site_section(stage, "bad", portal_of(stage, bad), "iqn.2026-01.org.lunfs:bad"));
	sh(stage, "%s mount all %s", stage->lunfs, mnt);
	cr_assert(is_mounted(mnt));
	g_usleep(4000000);
	unsigned attempts = script_target_login_attempts(bad);
	must_umount(stage, mnt);
	return attempts;
}

Test(relogin, a_target_of_several_that_refuses_is_asked_seldom)
{
	cr_assert_eq(attempts_within_seconds(0x0202), 1);
	cr_assert_geq(attempts_within_seconds(0x0203), 3, "that may be one that only starts");
}

/* ---- a logout that the target asks for (RFC 7143, 11.9.1) ---- */

/* The next PDU like that, from i on; waits for it. */
static struct script_traffic next_pdu(
    struct script_target *target, unsigned *i, bool to_target, uint8_t opcode)
{
	struct script_traffic pdu;
	double end = seconds_now() + patience(10);

	while (!script_traffic_find(target, i, to_target, opcode, &pdu)) {
		cr_assert(seconds_now() < end, "no PDU with opcode %02x", opcode);
		g_usleep(2000);
	}
	return pdu;
}

static void must_log_out(uint8_t event)
{
	struct scene scene = scene_with_script(NULL);
	struct load *load = load_start(&scene);
	struct script_traffic asked, logout, pdu;

	load_must_go_on(load);
	unsigned i = script_traffic_count(scene.script);
	unsigned logins = script_target_logins(scene.script);
	script_target_message(
	    scene.script, &(struct script_message){.event = event, .parameter3 = 3});
	asked = next_pdu(scene.script, &i, false, ASYNC_MESSAGE);
	logout = next_pdu(scene.script, &i, true, LOGOUT_REQUEST);
	cr_assert_eq(logout.connection, asked.connection);
	cr_assert_eq(logout.header[1], 0x80, "it does not close the session");
	cr_assert_lt(logout.at_ms - asked.at_ms, 3000);
	cr_assert(await(patience(10), came, &(struct count){scene.script, logins + 1}));
	load_must_go_on(load);
	while (script_traffic_find(scene.script, &i, true, SCSI_COMMAND, &pdu))
		cr_assert_neq(pdu.connection, logout.connection, "a command behind the logout");
	unsigned k = 0, logouts = 0;
	while (script_traffic_find(scene.script, &k, true, LOGOUT_REQUEST, &pdu))
		logouts++;
	cr_assert_eq(logouts, 1);
	must_end_well(load, &scene, "the target asked for a logout");
}

Test(relogin, logs_out_when_the_target_asks_for_it)
{
	must_log_out(1);
}

Test(relogin, logs_out_when_the_target_asks_to_negotiate)
{
	must_log_out(4);
}

static bool swallows_logouts(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	(void)hook;
	(void)data;
	(void)length;
	(void)own;
	return (header[0] & 0x3f) == LOGOUT_REQUEST;
}

Test(relogin, a_logout_without_answer_is_not_waited_for_longer_than_the_target_said)
{
	struct scene scene = scene_with_script("command_timeout=60s,noop_out_interval=60s");
	struct load *load = load_start(&scene);
	struct count again = {scene.script, script_target_login_attempts(scene.script) + 1};

	load_must_go_on(load);
	script_target_hook(scene.script, &(struct script_hooks){.came = swallows_logouts});
	script_target_message(scene.script, &(struct script_message){.event = 1, .parameter3 = 2});
	cr_assert(await(patience(10), came, &again));
	script_target_hook(scene.script, NULL);
	load_must_go_on(load);
	must_end_well(load, &scene, "the target asked for a logout");
}

Test(relogin, what_is_not_done_at_a_logout_is_done_after_the_next_login)
{
	struct scene scene = scene_with_script(NULL);
	struct io_job job = reading(&scene);

	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_READ, .times = 1, .hang = true});
	unsigned reads = script_target_command_count(scene.script, SCRIPT_READ);
	pid_t reader = call_start(0, do_io, &job);
	cr_assert(script_target_await(scene.script, SCRIPT_READ, reads + 1, patience(5)));
	script_target_message(scene.script, &(struct script_message){.event = 1, .parameter3 = 3});
	cr_assert_eq(call_end(reader, 10), 0);
	cr_assert_eq(script_target_logins(scene.script), 2);
	scene_end(&scene);
}

/* ---- the time that the target wants us to wait ---- */

/* The login that comes next, after that moment. */
static struct script_login next_login(struct script_target *target, unsigned attempts)
{
	struct script_login login;

	cr_assert(await(patience(20), came, &(struct count){target, attempts + 1}));
	cr_assert(script_target_login_attempt(target, attempts, &login));
	return login;
}

static void must_be_after(const struct script_login *login, int64_t ended_ms, unsigned seconds)
{
	int64_t waited = login->at_ms - ended_ms;

	cr_assert_geq(waited, seconds * 1000, "only %" G_GINT64_FORMAT " ms", waited);
	cr_assert(waited < seconds * 1000 + patience(1000), "%" G_GINT64_FORMAT " ms", waited);
}

static void must_wait_after_message(uint8_t event)
{
	struct scene scene = scene_with_script(NULL);
	struct load *load = load_start(&scene);
	unsigned attempts = script_target_login_attempts(scene.script);

	load_must_go_on(load);
	unsigned i = script_traffic_count(scene.script);
	script_target_message(
	    scene.script, &(struct script_message){.event = event, .parameter2 = 2});
	int64_t ended_ms = next_pdu(scene.script, &i, false, ASYNC_MESSAGE).at_ms;
	scene_must_say(&scene, "logs in again in 2 s, as the target asked", 1, 5);
	cr_assert_str_eq(status_of(&scene, "state"), "waiting");
	struct script_login login = next_login(scene.script, attempts);
	must_be_after(&login, ended_ms, 2);
	must_end_well(load, &scene, "closed the connection");
}

Test(relogin, waits_as_long_as_a_target_wants_that_drops_the_connection)
{
	must_wait_after_message(2);
}

Test(relogin, waits_as_long_as_a_target_wants_that_drops_the_session)
{
	must_wait_after_message(3);
}

Test(relogin, waits_as_long_as_the_answer_to_a_logout_says)
{
	struct scene scene = scene_of_script(LOAD_DISK);

	load_put_pattern(&scene);
	script_target_set(scene.script, &(struct script_parameters){.logout_time2wait = 2});
	scene_mount(&scene, NULL);
	struct load *load = load_start(&scene);
	unsigned attempts = script_target_login_attempts(scene.script);
	load_must_go_on(load);
	unsigned i = script_traffic_count(scene.script);
	script_target_message(scene.script, &(struct script_message){.event = 1, .parameter3 = 3});
	int64_t ended_ms = next_pdu(scene.script, &i, false, LOGOUT_RESPONSE).at_ms;
	struct script_login login = next_login(scene.script, attempts);
	must_be_after(&login, ended_ms, 2);
	must_end_well(load, &scene, "the target asked for a logout");
}

/* After a loss that nobody announced, where DefaultTime2Wait is so many seconds. */
static void must_wait_by_default(uint16_t time2wait)
{
	struct scene scene = scene_of_script(LOAD_DISK);

	load_put_pattern(&scene);
	script_target_set(scene.script, &(struct script_parameters){.time2wait = time2wait});
	scene_mount(&scene, NULL);
	struct load *load = load_start(&scene);
	load_must_go_on(load);
	for (unsigned round = 0; round < 2; round++) {
		unsigned attempts = script_target_login_attempts(scene.script);
		unsigned i = script_traffic_count(scene.script);

		script_target_ping(scene.script); /* to have the moment */
		script_target_drop(scene.script, SCRIPT_RST);
		int64_t ended_ms = next_pdu(scene.script, &i, false, NOP_IN).at_ms;
		struct script_login login = next_login(scene.script, attempts);
		load_must_go_on(load);
		if (time2wait > 2)
			must_be_after(&login, ended_ms, time2wait);
		else
			cr_assert_lt(login.at_ms - ended_ms, patience(1000));
	}
	must_end_well(load, &scene, "");
}

Test(relogin, waits_for_DefaultTime2Wait_where_it_is_the_targets_own)
{
	must_wait_by_default(3);
}

Test(relogin, does_not_wait_for_the_standards_DefaultTime2Wait)
{
	must_wait_by_default(2);
}
