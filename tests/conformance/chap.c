/*
 * chap.c - CHAP: forms of its values, wrong proofs, and what is never said (RFC 7143, 9.2
 * and 12.1).
 */
#include "conformance/lab.h"
#include "conformance/login_rules.h"

#include <string.h>

TestSuite(chap, .timeout = 120);

static struct script_chap mutual(void)
{
	return (struct script_chap){.user = LAB_USER,
	    .secret = LAB_SECRET,
	    .user_in = LAB_USER_IN,
	    .secret_in = LAB_SECRET_IN,
	    .identifier = 77};
}

static struct scene with_chap(struct script_chap chap)
{
	struct scene scene = lab_new();

	script_target_chap(scene.script, &chap);
	return scene;
}

static void proves(struct script_chap chap, const char *options)
{
	struct scene scene = with_chap(chap);

	lab_mount(&scene, options);
	cr_assert_eq(script_target_login_attempts(scene.script), 1);
	lab_end(&scene);
}

/* ---- forms ---- */

static void is_read_as(enum script_chap_form form)
{
	struct script_chap chap = mutual();

	chap.form = form;
	proves(chap, LAB_ONE_WAY);
	proves(chap, LAB_MUTUAL);
}

Test(chap, challenge_and_response_in_hexadecimal_are_read__rfc7143_6_1)
{
	is_read_as(SCRIPT_CHAP_HEX);
}

Test(chap, challenge_and_response_in_capital_hexadecimal_are_read__rfc7143_6_1)
{
	is_read_as(SCRIPT_CHAP_HEX_UPPER);
}

Test(chap, challenge_and_response_in_base64_are_read__rfc7143_6_1)
{
	is_read_as(SCRIPT_CHAP_BASE64);
}

/* Lengths that end a group of four digits in each way. */
Test(chap, base64_with_and_without_fill_is_read__rfc7143_6_1)
{
	for (unsigned length = 15; length <= 18; length++) {
		struct script_chap chap = mutual();

		chap.form = SCRIPT_CHAP_BASE64;
		chap.challenge_length = length;
		proves(chap, LAB_MUTUAL);
	}
}

static bool capital_prefix(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	(void)own;
	for (guint i = 48; i + 9 < pdu->len; i++)
		if (memcmp(pdu->data + i, "CHAP_", 5) == 0 &&
		    memcmp(pdu->data + i + 6, "=0b", 3) == 0)
			pdu->data[i + 8] = 'B';
	return true;
}

Test(chap, base64_with_a_capital_prefix_is_read__rfc7143_6_1)
{
	struct script_chap chap = mutual();

	chap.form = SCRIPT_CHAP_BASE64;
	struct scene scene = with_chap(chap);
	script_target_hook(scene.script, &(struct script_hooks){.leaves = capital_prefix});
	lab_mount(&scene, LAB_MUTUAL);
	lab_end(&scene);
}

Test(chap, a_challenge_of_1024_bytes_is_answered__rfc7143_12_1_3)
{
	struct script_chap chap = mutual();

	chap.challenge_length = 1024;
	proves(chap, LAB_MUTUAL);
	chap.form = SCRIPT_CHAP_BASE64;
	proves(chap, LAB_MUTUAL);
}

Test(chap, a_challenge_of_1_byte_is_answered__rfc7143_12_1_3)
{
	struct script_chap chap = mutual();

	chap.challenge_length = 1;
	proves(chap, LAB_ONE_WAY);
}

Test(chap, identifiers_0_and_255_are_answered__rfc7143_12_1_3)
{
	struct script_chap chap = mutual();

	chap.identifier = 0;
	proves(chap, LAB_MUTUAL);
	chap.identifier = 255;
	proves(chap, LAB_MUTUAL);
}

Test(chap, an_identifier_in_hexadecimal_is_read__rfc7143_6_1)
{
	static const struct lab_edit edits[] = {{"CHAP_I", "0x4D"}, {0}};
	struct scene scene = with_chap(mutual());

	lab_edit(&scene, edits);
	lab_mount(&scene, LAB_ONE_WAY);
	lab_end(&scene);
}

/* ---- rounds and parts ---- */

Test(chap, a_challenge_in_parts_is_joined__rfc7143_6_2)
{
	struct script_login_step steps[] = {{0}, {.cut = 100}, {.cut = 11}};
	struct script_chap chap = mutual();

	chap.challenge_length = 1024;
	struct scene scene = with_chap(chap);
	script_target_login_steps(scene.script, steps, 3);
	lab_mount(&scene, LAB_MUTUAL);
	lab_end(&scene);
}

Test(chap, proofs_are_said_once_though_the_stage_goes_on__rfc7143_6_3)
{
	const struct script_login_step steps[] = {{0}, {0}, {.stay = true}};
	struct scene scene = with_chap(mutual());

	script_target_login_steps(scene.script, steps, 3);
	lab_mount(&scene, LAB_MUTUAL);
	cr_assert_eq(lab_times(&scene, 0, "CHAP_R"), 1);
	cr_assert_eq(lab_times(&scene, 0, "CHAP_N"), 1);
	lab_end(&scene);
}

Test(chap, garbage_in_pad_bytes_of_each_length_is_no_proof__rfc7143_11_2_3)
{
	static const char *const fill[] = {"X-a=1", "X-a=12", "X-a=123", "X-a=1234"};

	for (size_t i = 0; i < G_N_ELEMENTS(fill); i++) {
		const struct script_login_step steps[] = {
		    {.padding = 0xff}, {.padding = 0xff}, {.more = fill[i], .padding = 0xff}};
		struct scene scene = with_chap(mutual());

		script_target_login_steps(scene.script, steps, 3);
		lab_mount(&scene, LAB_MUTUAL);
		lab_end(&scene);
	}
}

/* ---- targets that cannot prove themselves ---- */

/* No login is done: nothing of the operational stage was said. */
static struct result *is_not_believed(struct scene *scene, const char *options, const char *words)
{
	struct result *result = lab_must_refuse(scene, options, words);

	cr_assert_eq(script_target_logins(scene->script), 0);
	cr_assert_eq(
	    script_target_login_attempts(scene->script), 1, "tried again: %s", result->err);
	cr_assert_eq(lab_times(scene, 0, "InitialR2T"), 0, "the operational stage began");
	cr_assert(!strstr(result->err, LAB_SECRET) && !strstr(result->err, LAB_SECRET_IN));
	login_rules_all(scene);
	return result;
}

static void fault_is_seen(enum script_chap_fault fault, const char *words)
{
	struct script_chap chap = mutual();

	chap.fault = fault;
	struct scene scene = with_chap(chap);
	is_not_believed(&scene, LAB_MUTUAL, words);
	lab_close(&scene);
}

Test(chap, a_wrong_answer_of_the_target_is_refused__rfc7143_12_1_3)
{
	fault_is_seen(SCRIPT_CHAP_WRONG, "mutual CHAP|" SCENE_IQN);
}

Test(chap, our_own_answer_from_the_target_is_refused__rfc7143_9_2_1)
{
	fault_is_seen(SCRIPT_CHAP_REFLECTED, "mutual CHAP|" SCENE_IQN);
}

Test(chap, a_target_that_does_not_answer_our_challenge_is_refused__rfc7143_12_1_3)
{
	fault_is_seen(SCRIPT_CHAP_ABSENT, "mutual CHAP|" SCENE_IQN);
}

Test(chap, a_target_with_another_name_is_refused__rfc7143_12_1_3)
{
	fault_is_seen(SCRIPT_CHAP_WRONG_NAME, "mutual CHAP|" LAB_USER_IN);
}

Test(chap, an_algorithm_that_was_not_offered_is_refused__rfc7143_12_1_3)
{
	fault_is_seen(SCRIPT_CHAP_OTHER_ALGORITHM, "CHAP|algorithm|7");
}

static void edit_is_seen(const char *key, const char *value)
{
	const struct lab_edit edits[] = {{key, value}, {0}};
	struct scene scene = with_chap(mutual());

	lab_edit(&scene, edits);
	is_not_believed(&scene, LAB_MUTUAL, SCENE_IQN);
	lab_close(&scene);
}

Test(chap, an_answer_of_another_length_is_refused__rfc7143_12_1_3)
{
	edit_is_seen("CHAP_R", "0x00");
	edit_is_seen("CHAP_R", "0x");
	edit_is_seen("CHAP_R", "");
}

Test(chap, an_answer_that_is_no_number_is_refused__rfc7143_6_1)
{
	edit_is_seen("CHAP_R", "0xzz112233445566778899aabbccddeeff");
	edit_is_seen("CHAP_R", "0b!!!!");
}

Test(chap, a_name_without_answer_is_refused__rfc7143_12_1_3)
{
	edit_is_seen("CHAP_R", NULL);
}

Test(chap, an_answer_without_name_is_refused__rfc7143_12_1_3)
{
	edit_is_seen("CHAP_N", NULL);
}

Test(chap, a_challenge_that_is_no_number_is_refused__rfc7143_6_1)
{
	edit_is_seen("CHAP_C", "hello");
	edit_is_seen("CHAP_C", "0x");
	edit_is_seen("CHAP_C", "0b");
}

Test(chap, an_identifier_above_255_is_refused__rfc7143_12_1_3)
{
	edit_is_seen("CHAP_I", "256");
	edit_is_seen("CHAP_I", "");
}

Test(chap, a_rejected_algorithm_ends_the_login__rfc7143_12_1_3)
{
	edit_is_seen("CHAP_A", "Reject");
	edit_is_seen("CHAP_A", "0");
}

Test(chap, a_challenge_longer_than_1024_bytes_is_refused__rfc7143_12_1_3)
{
	g_autoptr(GString) challenge = g_string_new("0x");

	for (int i = 0; i < 1025; i++)
		g_string_append(challenge, "5a");
	edit_is_seen("CHAP_C", challenge->str);
}

Test(chap, a_method_that_was_not_offered_is_refused__rfc7143_12)
{
	static const struct lab_edit edits[] = {{"AuthMethod", "KRB5"}, {0}};
	struct scene scene = with_chap(mutual());

	lab_edit(&scene, edits);
	is_not_believed(&scene, LAB_MUTUAL, "KRB5");
	lab_close(&scene);
}

Test(chap, a_target_that_wants_no_proof_where_mutual_is_configured_is_refused__rfc7143_12)
{
	const struct script_login_step steps[] = {{.keys = "AuthMethod=None"}};
	struct scene scene = lab_with_steps(steps, 1);

	/* it would let us in without */
	lab_must_refuse(&scene, LAB_MUTUAL, SCENE_IQN);
	cr_assert_eq(script_target_logins(scene.script), 0);
	cr_assert(!strstr(lab_said(&scene, 0, "AuthMethod"), "None"), "None was offered");
	lab_close(&scene);
}

Test(chap, a_target_that_skips_the_security_stage_where_mutual_is_configured_is_refused)
{
	const struct script_login_step steps[] = {{.keys = ""}};
	struct scene scene = lab_with_steps(steps, 1);

	lab_must_refuse(&scene, LAB_MUTUAL, SCENE_IQN);
	cr_assert_eq(script_target_logins(scene.script), 0);
	lab_close(&scene);
}

Test(chap, a_target_that_rejects_authmethod_where_mutual_is_configured_is_refused__rfc7143_6_2)
{
	static const char *const answers[] = {
	    "AuthMethod=Reject", "AuthMethod=Irrelevant", "AuthMethod=NotUnderstood"};

	for (size_t i = 0; i < G_N_ELEMENTS(answers); i++) {
		const struct script_login_step steps[] = {{.keys = answers[i]}};
		struct scene scene = lab_with_steps(steps, 1);

		lab_must_refuse(&scene, LAB_MUTUAL, SCENE_IQN);
		cr_assert_eq(script_target_logins(scene.script), 0);
		lab_close(&scene);
	}
}

/* It asks with the challenge that it was asked with, in another login, and hands that answer on. */
Test(chap, proofs_without_a_challenge_are_none__rfc7143_12_1_3)
{
	static const struct script_login_step steps[] = {{.keys = "AuthMethod=CHAP", .stay = true},
	    {.keys = "CHAP_A=5&CHAP_N=" LAB_USER_IN "&CHAP_R=0x00112233445566778899aabbccddeeff"}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_must_refuse(&scene, LAB_MUTUAL, SCENE_IQN);
	cr_assert_eq(script_target_logins(scene.script), 0);
	lab_close(&scene);
}

Test(chap, equal_secrets_are_refused_before_anything_is_sent__rfc7143_9_2_1)
{
	struct scene scene = with_chap(mutual());

	lab_must_refuse(&scene, LAB_ONE_WAY ",username_in=" LAB_USER_IN ",password_in_file=out",
	    "secrets|equal|mutual CHAP");
	cr_assert_eq(script_traffic_count(scene.script), 0);
	lab_close(&scene);
}

/* ---- what is said, and what is not ---- */

Test(chap, a_target_that_wants_no_proof_gets_in_where_one_way_is_configured__rfc7143_12)
{
	struct scene scene = lab_new();

	lab_mount(&scene, LAB_ONE_WAY);
	cr_assert_eq(lab_times(&scene, 0, "CHAP_R"), 0);
	lab_end(&scene);
}

Test(chap, one_way_asks_the_target_for_nothing__rfc7143_12_1_3)
{
	struct scene scene = with_chap(mutual());

	lab_mount(&scene, LAB_ONE_WAY);
	cr_assert_eq(lab_times(&scene, 0, "CHAP_C"), 0);
	cr_assert_eq(lab_times(&scene, 0, "CHAP_I"), 0);
	cr_assert_str_eq(lab_said(&scene, 0, "CHAP_N"), LAB_USER);
	lab_end(&scene);
}

Test(chap, md5_is_among_the_algorithms_offered__rfc7143_12_1_3)
{
	struct scene scene = with_chap(mutual());

	lab_mount(&scene, LAB_MUTUAL);
	g_auto(GStrv) offered = g_strsplit(lab_said(&scene, 0, "CHAP_A"), ",", -1);
	cr_assert(g_strv_contains((const char *const *)offered, "5"));
	cr_assert_str_eq(lab_said(&scene, 0, "AuthMethod"), "CHAP");
	lab_end(&scene);
}

static bool holds(const struct script_traffic *pdu, const char *secret)
{
	return pdu->length >= strlen(secret) &&
	       g_strstr_len((const char *)pdu->data, (gssize)pdu->length, secret) != NULL;
}

Test(chap, secrets_are_never_sent__rfc7143_9_2_1)
{
	struct scene scene = with_chap(mutual());
	struct script_traffic pdu;
	unsigned seen = 0;

	lab_mount(&scene, LAB_MUTUAL);
	for (unsigned i = 0; script_traffic_get(scene.script, i, &pdu); i++) {
		if ((pdu.header[0] & 0x3f) != PDU_LOGIN)
			continue;
		cr_assert(!holds(&pdu, LAB_SECRET) && !holds(&pdu, LAB_SECRET_IN));
		seen++;
	}
	cr_assert_geq(seen, 3);
	lab_end(&scene);
}

Test(chap, each_login_has_a_challenge_of_its_own__rfc7143_9_2_1)
{
	struct scene scene = with_chap(mutual());

	lab_mount(&scene, LAB_MUTUAL);
	script_target_drop(scene.script, SCRIPT_RST);
	script_scene_await_login(&scene, 2);
	unsigned last = lab_connections(&scene) - 1;
	const char *first = lab_said(&scene, 0, "CHAP_C"),
	           *second = lab_said(&scene, last, "CHAP_C");
	cr_assert(strlen(first) >= 2 + 32, "a challenge of less than 16 bytes: %s", first);
	cr_assert(strlen(second) >= 2 + 32 && strcmp(first, second) != 0);
	lab_use(&scene);
	lab_end(&scene);
}

Test(chap, the_target_is_asked_for_its_proof_at_each_relogin__rfc7143_12_1_3)
{
	struct script_chap chap = mutual();
	struct scene scene = with_chap(chap);

	lab_mount(&scene, LAB_MUTUAL);
	chap.fault = SCRIPT_CHAP_WRONG;
	script_target_chap(scene.script, &chap);
	script_target_drop(scene.script, SCRIPT_RST);
	cr_assert(script_traffic_await(scene.script, true, PDU_LOGIN, 7, 20));
	g_usleep(300000);
	cr_assert_eq(script_target_logins(scene.script), 1, "a stranger was believed");
	chap.fault = SCRIPT_CHAP_RIGHT;
	script_target_chap(scene.script, &chap);
	script_scene_await_login(&scene, 2);
	lab_use(&scene);
	lab_end(&scene);
}

Test(chap, status_shows_who_proved_who_they_are)
{
	struct scene scene = with_chap(mutual());

	lab_mount(&scene, LAB_MUTUAL);
	cr_assert_str_eq(status_of(&scene, "CHAP"), "mutual");
	cr_assert_str_eq(status_of(&scene, "AuthMethod"), "CHAP");
	lab_end(&scene);
}

Test(chap, a_discovery_proves_itself_and_asks_for_proof__rfc7143_12_1_3)
{
	struct script_chap chap = mutual();
	struct scene scene = with_chap(chap);
	char *command = text(
	    scene.stage, "discover 127.0.0.1:%u -o " LAB_MUTUAL, script_target_port(scene.script));

	cr_assert(strstr(must_lunfs(scene.stage, "%s", command), SCENE_IQN));
	chap.fault = SCRIPT_CHAP_WRONG;
	script_target_chap(scene.script, &chap);
	struct result *result = lunfs(scene.stage, "%s", command);
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "mutual CHAP"), "%s", result->err);
	cr_assert_eq(lab_count(&scene, true, PDU_TEXT), 1, "a stranger was asked");
	login_rules_all(&scene);
	lab_close(&scene);
}
