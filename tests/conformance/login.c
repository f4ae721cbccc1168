/*
 * login.c - the login phase: headers, stages, answers in parts and rounds, versions, numbers
 * (RFC 7143, 6 and 11.12 to 11.13).
 */
#include "conformance/lab.h"
#include "conformance/login_rules.h"

#include <string.h>

TestSuite(login, .timeout = 120);

/* ---- what each request must have ---- */

/* A login with both stages, proofs, rounds and parts: some 20 requests. */
static void keeps(void (*rule)(struct scene *scene, unsigned connection))
{
	const struct script_login_step steps[] = {
	    {.stay = true, .more = "X-org.lunfs.one=1"},
	    {.cut = 20, .padding = 0x5a},
	    {.cut = 30},
	    {.stay = true, .cut = 40},
	    {.stay = true, .more = "X-org.lunfs.two=2"},
	};
	struct scene scene = lab_with_steps(steps, G_N_ELEMENTS(steps));

	script_target_chap(scene.script, &(struct script_chap){.user = LAB_USER,
	                                     .secret = LAB_SECRET,
	                                     .user_in = LAB_USER_IN,
	                                     .secret_in = LAB_SECRET_IN,
	                                     .identifier = 3});
	lab_mount(&scene, LAB_MUTUAL);
	cr_assert_geq(lab_count(&scene, true, PDU_LOGIN), 8);
	rule(&scene, 0);
	script_scene_umount(&scene);
	lab_close(&scene);
}

Test(login, the_first_request_says_who_it_is_and_what_it_wants__rfc7143_6_1)
{
	keeps(rule_who_it_is);
}

Test(login, every_request_is_immediate__rfc7143_11_12)
{
	keeps(rule_immediate);
}

Test(login, the_isid_has_a_legal_type_and_stays__rfc7143_11_12_5)
{
	keeps(rule_isid);
}

Test(login, the_tsih_is_0_for_a_new_session__rfc7143_11_12_6)
{
	keeps(rule_tsih);
}

Test(login, the_cid_stays__rfc7143_11_12_7)
{
	keeps(rule_cid);
}

Test(login, the_task_tag_stays__rfc7143_11_12)
{
	keeps(rule_itt);
}

Test(login, cmdsn_does_not_advance__rfc7143_11_12_8)
{
	keeps(rule_cmdsn);
}

Test(login, the_first_command_has_the_cmdsn_of_the_login__rfc7143_11_12_8)
{
	keeps(rule_first_cmdsn);
}

Test(login, expstatsn_acknowledges_each_answer__rfc7143_11_12_9)
{
	keeps(rule_expstatsn);
}

Test(login, stages_and_flags_are_legal__rfc7143_11_12_1_to_3)
{
	keeps(rule_stages);
}

Test(login, a_stage_lasts_until_the_target_agrees_to_leave_it__rfc7143_6_3)
{
	keeps(rule_transit);
}

Test(login, version_0_is_offered__rfc7143_11_12_4)
{
	keeps(rule_versions);
}

Test(login, reserved_fields_are_0_and_there_is_no_additional_header__rfc7143_11_12)
{
	keeps(rule_reserved);
}

Test(login, no_key_is_said_twice__rfc7143_6_3)
{
	keeps(rule_keys_once);
}

Test(login, names_and_values_have_a_legal_form__rfc7143_6_1)
{
	keeps(rule_keys_legal);
}

Test(login, keys_stay_in_their_stage__rfc7143_6_3_and_13)
{
	keeps(rule_keys_in_stage);
}

Test(login, text_ends_with_a_nul__rfc7143_6_1)
{
	keeps(rule_text_ends);
}

Test(login, no_request_is_longer_than_8192_bytes__rfc7143_13_12)
{
	keeps(rule_segment);
}

/* ---- padding ---- */

Test(login, pad_bytes_are_no_text__rfc7143_11_2_3)
{
	static const char *const fill[] = {"X-a=1", "X-a=12", "X-a=123", "X-a=1234"};

	for (size_t i = 0; i < G_N_ELEMENTS(fill); i++) {
		const struct script_login_step steps[] = {
		    {.more = fill[i], .padding = 0xff},
		    {.more = fill[i], .padding = 'A'},
		};

		lab_logs_in(steps, 2, NULL);
	}
}

Test(login, pad_bytes_of_parts_are_not_joined__rfc7143_6_2)
{
	const struct script_login_step steps[] = {
	    {.cut = 7, .padding = '='}, {.cut = 9, .padding = 0xee}};

	lab_logs_in(steps, 2, NULL);
}

/* ---- C: answers in parts ---- */

static void joins(unsigned cut)
{
	const struct script_login_step steps[] = {{.cut = cut}, {.cut = cut}};
	struct scene scene = lab_with_steps(steps, 2);

	/* what it said counts */
	script_target_set(scene.script,
	    &(struct script_parameters){.first_burst = 8192, .receive_segment = 4096});
	lab_mount(&scene, NULL);
	cr_assert_gt(lab_count(&scene, true, PDU_LOGIN), 2);
	lab_must_keep(&scene, 0, (struct lab_limits){.first_burst = 8192, .segment = 4096});
	lab_end(&scene);
}

Test(login, an_answer_in_two_pdus_is_joined__rfc7143_6_2)
{
	joins(200);
}

Test(login, an_answer_in_many_pdus_is_joined__rfc7143_6_2)
{
	joins(25);
}

Test(login, an_answer_cut_inside_names_and_values_is_joined__rfc7143_6_2)
{
	joins(3);
}

Test(login, an_answer_cut_behind_each_byte_is_joined__rfc7143_6_2)
{
	joins(1);
}

/* The answer that ends the login, held back behind an empty part. */
struct held {
	uint8_t header[48];
	GByteArray *text;
};

static bool holds_back(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct held *held = own;

	(void)hook;
	if ((pdu->data[0] & 0x3f) != PDU_LOGIN_RESPONSE || pdu->data[1] != 0x87 || held->text)
		return true;
	memcpy(held->header, pdu->data, 48);
	held->text = g_byte_array_new();
	g_byte_array_append(held->text, pdu->data + 48, pdu->len - 48);
	g_byte_array_set_size(pdu, 48);
	pdu->data[1] = 0x44;
	return true;
}

static bool gives_back(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	struct held *held = own;
	uint8_t numbered[48];

	(void)data;
	if ((header[0] & 0x3f) != PDU_LOGIN || !held->text || length)
		return false;
	script_hook_header(hook, numbered, PDU_LOGIN_RESPONSE, get_be32(header + 16), true);
	memcpy(held->header + 24, numbered + 24, 12);
	script_hook_send(hook, held->header, held->text->data, held->text->len);
	return true;
}

Test(login, an_answer_with_an_empty_part_is_joined__rfc7143_6_2)
{
	struct held held = {.text = NULL};
	struct scene scene = lab_new();

	script_target_set(scene.script, &(struct script_parameters){.receive_segment = 4096});
	script_target_hook(scene.script,
	    &(struct script_hooks){.came = gives_back, .leaves = holds_back, .own = &held});
	lab_mount(&scene, NULL);
	cr_assert_eq(lab_count(&scene, true, PDU_LOGIN), 3);
	lab_must_keep(&scene, 0, (struct lab_limits){.first_burst = 262144, .segment = 4096});
	g_byte_array_unref(held.text);
	lab_end(&scene);
}

Test(login, the_rest_of_an_answer_is_fetched_by_empty_requests__rfc7143_6_2)
{
	const struct script_login_step steps[] = {{.cut = 10}, {.cut = 50}};
	struct scene scene = lab_with_steps(steps, 2);
	struct script_traffic pdu;
	unsigned i = 0, fetched = 0;
	bool more = false;

	lab_mount(&scene, NULL);
	for (; script_traffic_get(scene.script, i, &pdu); i++) {
		uint8_t opcode = pdu.header[0] & 0x3f;

		if (opcode == PDU_LOGIN && more) {
			cr_assert(pdu.length == 0 && !(pdu.header[1] & 0x40));
			fetched++;
		}
		if (opcode == PDU_LOGIN_RESPONSE)
			more = pdu.header[1] & 0x40;
	}
	cr_assert_gt(fetched, 4);
	lab_end(&scene);
}

/* ---- T: rounds ---- */

static void goes_round(unsigned security, unsigned operational)
{
	struct script_login_step steps[16] = {0};
	struct scene scene = lab_new();

	for (unsigned i = 0; i < security; i++)
		steps[i].stay = true;
	for (unsigned i = 0; i < operational; i++)
		steps[security + 1 + i].stay = true;
	script_target_login_steps(scene.script, steps, security + 1 + operational);
	lab_mount(&scene, NULL);
	cr_assert_eq(lab_count(&scene, true, PDU_LOGIN), security + operational + 2);
	lab_end(&scene);
}

Test(login, the_target_stays_in_the_operational_stage_for_a_round__rfc7143_6_3)
{
	goes_round(0, 1);
}

Test(login, the_target_stays_in_the_operational_stage_for_five_rounds__rfc7143_6_3)
{
	goes_round(0, 5);
}

Test(login, the_target_stays_in_the_security_stage_for_rounds__rfc7143_6_3)
{
	goes_round(1, 0);
	goes_round(3, 2);
}

Test(login, the_target_answers_nothing_before_the_second_round__rfc7143_6_3)
{
	const struct script_login_step steps[] = {{.keys = NULL}, {.keys = "", .stay = true},
	    {.keys = "MaxRecvDataSegmentLength=4096&InitialR2T=Yes&FirstBurstLength=8192"}};
	struct scene scene = lab_with_steps(steps, 3);

	lab_mount(&scene, NULL);
	lab_must_keep(&scene, 0,
	    (struct lab_limits){.initial_r2t = true, .first_burst = 8192, .segment = 4096});
	lab_end(&scene);
}

Test(login, values_of_an_earlier_round_count__rfc7143_6_3)
{
	const struct script_login_step steps[] = {{.keys = NULL},
	    {.keys = "MaxRecvDataSegmentLength=4096&InitialR2T=Yes", .stay = true},
	    {.keys = "FirstBurstLength=8192", .stay = true}, {.keys = ""}};
	struct scene scene = lab_with_steps(steps, 4);

	lab_mount(&scene, NULL);
	lab_must_keep(&scene, 0,
	    (struct lab_limits){.initial_r2t = true, .first_burst = 8192, .segment = 4096});
	lab_end(&scene);
}

/* ---- targets that do not come to an end ---- */

struct endless {
	uint8_t flags;
	uint32_t length; /* of text */
};

static bool never_ends(struct script_hook *hook, GByteArray *pdu, void *own)
{
	const struct endless *endless = own;
	guint at = pdu->len;

	(void)hook;
	if ((pdu->data[0] & 0x3f) != PDU_LOGIN_RESPONSE)
		return true;
	pdu->data[1] = (uint8_t)((pdu->data[1] & 0x0c) | endless->flags);
	g_byte_array_set_size(pdu, 48 + endless->length);
	if (pdu->len > at)
		memset(pdu->data + at, 'x', pdu->len - at);
	return true;
}

/* The target's view of the stages must not end either. */
static void does_not_wait_for_ever(struct endless endless, const char *words)
{
	struct script_login_step steps[2000];
	struct scene scene = lab_new();

	memset(steps, 0, sizeof(steps));
	for (size_t i = 0; i < G_N_ELEMENTS(steps); i++)
		steps[i].stay = true;
	script_target_login_steps(scene.script, steps, G_N_ELEMENTS(steps));
	script_target_hook(
	    scene.script, &(struct script_hooks){.leaves = never_ends, .own = &endless});
	lab_must_refuse(&scene, NULL, words);
	cr_assert_lt(lab_count(&scene, true, PDU_LOGIN), 1500);
	lab_close(&scene);
}

Test(login, a_target_that_stays_in_a_stage_for_ever_is_left__rfc7143_6_3)
{
	does_not_wait_for_ever((struct endless){0}, SCENE_IQN);
}

Test(login, a_target_whose_text_never_ends_is_left__rfc7143_6_2)
{
	does_not_wait_for_ever((struct endless){.flags = 0x40, .length = 8000}, SCENE_IQN);
}

Test(login, a_target_that_always_has_an_empty_part_to_follow_is_left__rfc7143_6_2)
{
	does_not_wait_for_ever((struct endless){.flags = 0x40}, SCENE_IQN);
}

/* ---- versions ---- */

Test(login, another_version_is_refused__rfc7143_11_13_2)
{
	lab_is_refused((const struct script_login_step[]){{.version_active = 1, .version_max = 1}},
	    1, NULL, "version");
}

Test(login, another_version_in_a_later_answer_is_refused__rfc7143_11_13_2)
{
	lab_is_refused(
	    (const struct script_login_step[]){{0}, {.version_active = 0xff}}, 2, NULL, "version");
}

Test(login, a_target_that_knows_later_versions_too_is_accepted__rfc7143_11_13_1)
{
	lab_logs_in(
	    (const struct script_login_step[]){{.version_max = 2}, {.version_max = 2}}, 2, NULL);
}

/* ---- StatSN ---- */

static void begins_with_statsn(uint32_t first)
{
	const struct script_login_step steps[] = {{.statsn = &first}};

	lab_logs_in(steps, 1, NULL);
}

Test(login, the_first_statsn_is_0__rfc7143_11_13_4)
{
	begins_with_statsn(0);
}

Test(login, the_first_statsn_is_80000000h__rfc7143_11_13_4)
{
	begins_with_statsn(0x80000000);
}

Test(login, the_first_statsn_is_7fffffffh__rfc7143_11_13_4)
{
	begins_with_statsn(0x7fffffff);
}

Test(login, statsn_wraps_within_the_login__rfc7143_11_13_4)
{
	begins_with_statsn(0xffffffff);
}

Test(login, statsn_wraps_behind_the_login__rfc7143_11_13_4)
{
	begins_with_statsn(0xfffffffc);
}

/* ---- answers that are none ---- */

struct change {
	unsigned nth; /* Login Response */
	unsigned at;  /* byte of the header */
	uint8_t set;
	unsigned count;
};

static bool change_answer(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct change *change = own;

	(void)hook;
	if ((pdu->data[0] & 0x3f) == PDU_LOGIN_RESPONSE && change->count++ == change->nth)
		pdu->data[change->at] = change->set;
	return true;
}

static void refuses_changed(unsigned nth, unsigned at, uint8_t set)
{
	struct change change = {.nth = nth, .at = at, .set = set};
	struct scene scene = lab_new();

	script_target_hook(
	    scene.script, &(struct script_hooks){.leaves = change_answer, .own = &change});
	lab_must_refuse(&scene, NULL, SCENE_IQN);
	cr_assert_leq(script_target_login_attempts(scene.script), 3);
	lab_close(&scene);
}

Test(login, an_answer_with_another_task_tag_is_none__rfc7143_11_13)
{
	refuses_changed(0, 16, 0xa5);
}

Test(login, an_answer_in_another_stage_is_refused__rfc7143_11_13_3)
{
	refuses_changed(0, 1, 0x87);
}

Test(login, an_answer_that_leaves_for_a_stage_not_asked_for_is_refused__rfc7143_6_3)
{
	refuses_changed(0, 1, 0x83);
}

Test(login, an_answer_that_goes_back_a_stage_is_refused__rfc7143_6_3)
{
	refuses_changed(1, 1, 0x80);
}

Test(login, an_answer_that_leaves_for_the_reserved_stage_is_refused__rfc7143_11_13_3)
{
	refuses_changed(0, 1, 0x82);
}

Test(login, an_answer_with_both_t_and_c_is_refused__rfc7143_11_13_3)
{
	refuses_changed(1, 1, 0xc7);
}

Test(login, a_scsi_response_in_a_login_is_refused__rfc7143_6_3)
{
	refuses_changed(0, 0, 0x21);
}

Test(login, an_unknown_pdu_in_a_login_is_refused__rfc7143_6_3)
{
	refuses_changed(0, 0, 0x3e);
}

Test(login, a_reject_ends_the_login__rfc7143_11_17)
{
	refuses_changed(0, 0, PDU_REJECT);
}
