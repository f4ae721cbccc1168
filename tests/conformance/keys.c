/*
 * keys.c - what keys of the login may be answered with, and what holds then (RFC 7143, 6.2 and 13).
 */
#include "conformance/lab.h"
#include "conformance/login_rules.h"

#include <string.h>

TestSuite(keys, .timeout = 120);

/* What lunfs wishes, and this target grants. */
static const struct lab_limits wished = {.first_burst = 262144, .segment = 262144};

/* ---- keys without an agreement ---- */

/*
 * Rejected, irrelevant, not understood or never answered: the login comes to its end, the
 * standard's default holds on the wire, and status shows it (NULL: it need not).
 */
static void has_default(const char *key, const char *shown, struct lab_limits limits)
{
	static const char *const answers[] = {"Reject", "Irrelevant", "NotUnderstood", NULL};

	for (size_t i = 0; i < G_N_ELEMENTS(answers); i++) {
		const struct lab_edit edits[] = {{key, answers[i]}, {0}};
		struct scene scene = lab_new();

		lab_edit(&scene, edits);
		lab_mount(&scene, NULL);
		lab_must_keep(&scene, 0, limits);
		if (shown && g_strcmp0(answers[i], "Irrelevant") != 0)
			cr_assert_str_eq(status_of(&scene, key), shown, "after %s=%s: %s", key,
			    answers[i] ? answers[i] : "nothing", status_of(&scene, key));
		cr_assert_eq(script_target_login_attempts(scene.script), 1);
		lab_end(&scene);
	}
}

Test(keys, header_digest_may_be_refused__rfc7143_6_2_and_13_1)
{
	has_default("HeaderDigest", "None", wished);
}

Test(keys, data_digest_may_be_refused__rfc7143_6_2_and_13_1)
{
	has_default("DataDigest", "None", wished);
}

Test(keys, max_connections_may_be_refused__rfc7143_6_2_and_13_2)
{
	has_default("MaxConnections", "1", wished);
}

Test(keys, initial_r2t_may_be_refused__rfc7143_6_2_and_13_10)
{
	struct lab_limits limits = {.initial_r2t = true, .first_burst = 262144, .segment = 262144};

	has_default("InitialR2T", "true", limits);
}

Test(keys, immediate_data_may_be_refused__rfc7143_6_2_and_13_11)
{
	has_default("ImmediateData", "true", wished);
}

Test(keys, max_recv_data_segment_length_may_be_refused__rfc7143_6_2_and_13_12)
{
	struct lab_limits limits = {.first_burst = 262144, .segment = 8192};

	has_default("MaxRecvDataSegmentLength", NULL, limits);
}

Test(keys, max_burst_length_may_be_refused__rfc7143_6_2_and_13_13)
{
	has_default("MaxBurstLength", "262144", wished);
}

Test(keys, first_burst_length_may_be_refused__rfc7143_6_2_and_13_14)
{
	struct lab_limits limits = {.first_burst = 65536, .segment = 262144};

	has_default("FirstBurstLength", "65536", limits);
}

Test(keys, default_time2wait_may_be_refused__rfc7143_6_2_and_13_15)
{
	has_default("DefaultTime2Wait", "2", wished);
}

Test(keys, default_time2retain_may_be_refused__rfc7143_6_2_and_13_16)
{
	has_default("DefaultTime2Retain", "20", wished);
}

Test(keys, max_outstanding_r2t_may_be_refused__rfc7143_6_2_and_13_17)
{
	has_default("MaxOutstandingR2T", "1", wished);
}

Test(keys, data_pdu_in_order_may_be_refused__rfc7143_6_2_and_13_18)
{
	has_default("DataPDUInOrder", "true", wished);
}

Test(keys, data_sequence_in_order_may_be_refused__rfc7143_6_2_and_13_19)
{
	has_default("DataSequenceInOrder", "true", wished);
}

Test(keys, error_recovery_level_may_be_refused__rfc7143_6_2_and_13_20)
{
	has_default("ErrorRecoveryLevel", "0", wished);
}

Test(keys, a_target_that_answers_no_key_at_all_gets_all_defaults__rfc7143_6_2)
{
	const struct script_login_step steps[] = {{.keys = NULL}, {.keys = ""}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	lab_must_keep(&scene, 0,
	    (struct lab_limits){.initial_r2t = true, .first_burst = 65536, .segment = 8192});
	lab_end(&scene);
}

Test(keys, a_target_that_rejects_every_key_gets_all_defaults__rfc7143_6_2)
{
	const struct script_login_step steps[] = {{.keys = NULL},
	    {.keys = "HeaderDigest=Reject&DataDigest=Reject&MaxConnections=Reject&"
	             "InitialR2T=Reject&ImmediateData=Reject&MaxBurstLength=Reject&"
	             "FirstBurstLength=Reject&DefaultTime2Wait=Reject&DefaultTime2Retain=Reject&"
	             "MaxOutstandingR2T=Reject&DataPDUInOrder=Reject&"
	             "DataSequenceInOrder=Reject&ErrorRecoveryLevel=Reject"}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	lab_must_keep(&scene, 0,
	    (struct lab_limits){.initial_r2t = true, .first_burst = 65536, .segment = 8192});
	lab_end(&scene);
}

/* ---- what was agreed on holds ---- */

static void keeps(const char *keys, struct lab_limits limits)
{
	const struct script_login_step steps[] = {{.keys = NULL}, {.keys = keys}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	lab_must_keep(&scene, 0, limits);
	lab_end(&scene);
}

#define BIG "MaxRecvDataSegmentLength=262144&MaxBurstLength=262144&"

Test(keys, first_burst_length_limits_immediate_and_unsolicited_data__rfc7143_13_14)
{
	keeps(BIG "FirstBurstLength=8192&InitialR2T=No&ImmediateData=Yes",
	    (struct lab_limits){.first_burst = 8192, .segment = 262144});
	keeps(BIG "FirstBurstLength=512&InitialR2T=No&ImmediateData=Yes",
	    (struct lab_limits){.first_burst = 512, .segment = 262144});
}

Test(keys, without_immediate_data_none_is_sent__rfc7143_13_11)
{
	keeps(BIG "FirstBurstLength=8192&InitialR2T=No&ImmediateData=No",
	    (struct lab_limits){.no_immediate_data = true, .first_burst = 8192, .segment = 262144});
}

Test(keys, with_initial_r2t_immediate_data_alone_is_sent__rfc7143_13_10)
{
	keeps(BIG "FirstBurstLength=8192&InitialR2T=Yes&ImmediateData=Yes",
	    (struct lab_limits){.initial_r2t = true, .first_burst = 8192, .segment = 262144});
}

Test(keys, with_initial_r2t_and_no_immediate_data_nothing_is_sent_unasked__rfc7143_13_10)
{
	keeps(BIG "FirstBurstLength=8192&InitialR2T=Yes&ImmediateData=No",
	    (struct lab_limits){.initial_r2t = true, .no_immediate_data = true, .segment = 262144});
}

Test(keys, no_segment_is_longer_than_the_target_takes__rfc7143_13_12)
{
	keeps("MaxRecvDataSegmentLength=512&InitialR2T=No&ImmediateData=Yes&FirstBurstLength=65536&"
	      "MaxBurstLength=262144",
	    (struct lab_limits){.first_burst = 65536, .segment = 512});
	keeps(
	    "MaxRecvDataSegmentLength=1000&InitialR2T=No&ImmediateData=Yes&FirstBurstLength=65536&"
	    "MaxBurstLength=262144",
	    (struct lab_limits){.first_burst = 65536, .segment = 1000});
}

Test(keys, a_target_may_take_segments_of_16777215_bytes__rfc7143_13_12)
{
	keeps("MaxRecvDataSegmentLength=16777215&InitialR2T=No&ImmediateData=Yes&"
	      "FirstBurstLength=65536&MaxBurstLength=262144",
	    (struct lab_limits){.first_burst = 65536, .segment = 16777215});
}

Test(keys, a_first_burst_is_no_longer_than_a_burst__rfc7143_13_14)
{
	/* the default of FirstBurstLength is more than this MaxBurstLength */
	static const struct lab_edit edits[] = {{"FirstBurstLength", "NotUnderstood"}, {0}};
	struct scene scene = lab_new();

	script_target_set(scene.script, &(struct script_parameters){.max_burst = 16384});
	lab_edit(&scene, edits);
	lab_mount(&scene, NULL);
	lab_must_keep(&scene, 0, (struct lab_limits){.first_burst = 16384, .segment = 262144});
	lab_end(&scene);
}

Test(keys, an_answer_above_the_offer_does_not_raise_it__rfc7143_6_2_2)
{
	const struct script_login_step steps[] = {
	    {.keys = NULL}, {.keys = "MaxRecvDataSegmentLength=16777215&MaxBurstLength=16777215&"
	                             "FirstBurstLength=16777215&InitialR2T=No&ImmediateData=Yes"}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	uint32_t offered = (uint32_t)atoi(lab_said(&scene, 0, "FirstBurstLength"));
	lab_must_keep(&scene, 0, (struct lab_limits){.first_burst = offered, .segment = 16777215});
	lab_end(&scene);
}

Test(keys, the_order_of_keys_means_nothing__rfc7143_6_2)
{
	keeps("ErrorRecoveryLevel=0&ImmediateData=Yes&FirstBurstLength=8192&MaxBurstLength=262144&"
	      "InitialR2T=No&MaxRecvDataSegmentLength=4096&DataDigest=None&HeaderDigest=None",
	    (struct lab_limits){.first_burst = 8192, .segment = 4096});
}

/* ---- forms of numbers ---- */

Test(keys, numbers_in_hexadecimal_are_read__rfc7143_6_1)
{
	keeps("MaxRecvDataSegmentLength=0x1000&InitialR2T=No&ImmediateData=Yes&"
	      "FirstBurstLength=0x2000&MaxBurstLength=0x40000",
	    (struct lab_limits){.first_burst = 8192, .segment = 4096});
}

Test(keys, numbers_in_hexadecimal_with_capitals_are_read__rfc7143_6_1)
{
	keeps("MaxRecvDataSegmentLength=0XA00&InitialR2T=No&ImmediateData=Yes&"
	      "FirstBurstLength=0X2A00&MaxBurstLength=0X40000",
	    (struct lab_limits){.first_burst = 0x2a00, .segment = 0xa00});
}

Test(keys, hexadecimal_numbers_with_small_letters_are_read__rfc7143_6_1)
{
	keeps("MaxRecvDataSegmentLength=0xa00&InitialR2T=No&ImmediateData=Yes&"
	      "FirstBurstLength=0x2a00&MaxBurstLength=0x40000",
	    (struct lab_limits){.first_burst = 0x2a00, .segment = 0xa00});
}

/* ---- values that cannot be ---- */

/* The key and its value are named in the one line, and the login is not tried again. */
static void cannot_be(const char *key, const char *value)
{
	struct scene scene = lab_new();
	const struct lab_edit edits[] = {{key, value}, {0}};

	lab_edit(&scene, edits);
	struct result *result = lab_must_refuse(&scene, NULL, key);
	cr_assert_eq(script_target_login_attempts(scene.script), 1, "tried again: %s", result->err);
	login_rules_all(&scene);
	lab_close(&scene);
}

Test(keys, a_max_recv_data_segment_length_below_512_is_refused__rfc7143_13_12)
{
	cannot_be("MaxRecvDataSegmentLength", "511");
	cannot_be("MaxRecvDataSegmentLength", "0");
}

Test(keys, a_max_recv_data_segment_length_above_16777215_is_refused__rfc7143_13_12)
{
	cannot_be("MaxRecvDataSegmentLength", "16777216");
	cannot_be("MaxRecvDataSegmentLength", "18446744073709552128");
}

Test(keys, a_max_burst_length_out_of_range_is_refused__rfc7143_13_13)
{
	cannot_be("MaxBurstLength", "511");
	cannot_be("MaxBurstLength", "16777216");
}

Test(keys, a_first_burst_length_out_of_range_is_refused__rfc7143_13_14)
{
	cannot_be("FirstBurstLength", "0");
	cannot_be("FirstBurstLength", "4294967296");
}

Test(keys, a_boolean_that_is_neither_yes_nor_no_is_refused__rfc7143_6_1)
{
	cannot_be("InitialR2T", "yes");
	cannot_be("ImmediateData", "1");
}

Test(keys, a_digest_that_was_not_offered_is_refused__rfc7143_13_1)
{
	cannot_be("HeaderDigest", "CRC32C");
	cannot_be("DataDigest", "CRC32C");
}

Test(keys, a_choice_is_one_value_not_a_list__rfc7143_6_2_1)
{
	cannot_be("HeaderDigest", "None,CRC32C");
}

Test(keys, a_number_that_is_none_is_refused__rfc7143_6_1)
{
	cannot_be("MaxBurstLength", "262144x");
	cannot_be("MaxRecvDataSegmentLength", "");
	cannot_be("FirstBurstLength", "-1");
	cannot_be("FirstBurstLength", "0x");
}

Test(keys, a_max_connections_of_0_is_refused__rfc7143_13_2)
{
	cannot_be("MaxConnections", "0");
	cannot_be("MaxConnections", "65536");
}

Test(keys, a_max_outstanding_r2t_of_0_is_refused__rfc7143_13_17)
{
	cannot_be("MaxOutstandingR2T", "0");
}

Test(keys, an_error_recovery_level_of_3_is_refused__rfc7143_13_20)
{
	cannot_be("ErrorRecoveryLevel", "3");
}

Test(keys, a_default_time2wait_above_3600_is_refused__rfc7143_13_15)
{
	cannot_be("DefaultTime2Wait", "3601");
}

/* ---- keys that the target brings up ---- */

/* The key comes in two rounds, and is answered once: with one of these, by '|'. */
static void is_answered(const char *pair, const char *answers)
{
	g_autofree char *key = g_strndup(pair, strcspn(pair, "="));
	g_auto(GStrv) wanted = g_strsplit(answers, "|", -1);
	const struct script_login_step steps[] = {{.keys = NULL}, {.more = pair, .stay = true},
	    {.more = pair, .stay = true}, {.stay = true}};
	struct scene scene = lab_with_steps(steps, 4);

	lab_mount(&scene, NULL);
	cr_assert_eq(
	    lab_times(&scene, 0, key), 1, "%s was said %u times", key, lab_times(&scene, 0, key));
	const char *answer = lab_said(&scene, 0, key);
	cr_assert(g_strv_contains((const char *const *)wanted, answer), "%s=%s", key, answer);
	lab_end(&scene);
}

Test(keys, an_unknown_key_is_not_understood_once__rfc7143_6_2)
{
	is_answered("Mystery=42", "NotUnderstood");
}

Test(keys, a_private_key_is_not_understood_once__rfc7143_6_2)
{
	is_answered("X-com.example.fast=Yes", "NotUnderstood");
}

Test(keys, a_key_with_a_hash_sign_is_not_understood_once__rfc7143_13_22)
{
	is_answered("X#NodeArchitecture=vax", "NotUnderstood");
}

Test(keys, several_unknown_keys_are_each_not_understood__rfc7143_6_2)
{
	const struct script_login_step steps[] = {
	    {.keys = NULL}, {.more = "One=1&Two=2&X-three=3", .stay = true}};
	static const char *const keys[] = {"One", "Two", "X-three"};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		cr_assert_eq(lab_times(&scene, 0, keys[i]), 1);
		cr_assert_str_eq(lab_said(&scene, 0, keys[i]), "NotUnderstood");
	}
	lab_end(&scene);
}

Test(keys, an_unknown_key_in_the_security_stage_is_not_understood__rfc7143_6_2)
{
	const struct script_login_step steps[] = {{.more = "X-org.example.a=b", .stay = true}};
	struct scene scene = lab_with_steps(steps, 1);

	lab_mount(&scene, NULL);
	cr_assert_str_eq(lab_said(&scene, 0, "X-org.example.a"), "NotUnderstood");
	cr_assert_eq(lab_times(&scene, 0, "X-org.example.a"), 1);
	lab_end(&scene);
}

Test(keys, an_unknown_key_in_an_answer_that_ends_its_stage_is_answered_in_the_next__rfc7143_6_2)
{
	const struct script_login_step steps[] = {{.more = "X-org.example.a=b"}};
	struct scene scene = lab_with_steps(steps, 1);

	lab_mount(&scene, NULL);
	cr_assert_str_eq(lab_said(&scene, 0, "X-org.example.a"), "NotUnderstood");
	cr_assert_eq(lab_times(&scene, 0, "X-org.example.a"), 1);
	lab_end(&scene);
}

Test(keys, an_unknown_key_cut_by_c_is_answered_once_whole__rfc7143_6_2)
{
	const struct script_login_step steps[] = {
	    {.keys = NULL}, {.keys = "X-org.example.a=b", .cut = 4, .stay = true}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	cr_assert_str_eq(lab_said(&scene, 0, "X-org.example.a"), "NotUnderstood");
	cr_assert_eq(lab_times(&scene, 0, "X-org.example.a"), 1);
	lab_end(&scene);
}

Test(keys, an_answer_that_says_not_understood_is_not_answered__rfc7143_6_2)
{
	const struct script_login_step steps[] = {
	    {.keys = NULL}, {.more = "X-org.example.a=NotUnderstood", .stay = true}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	cr_assert_eq(lab_times(&scene, 0, "X-org.example.a"), 0);
	lab_end(&scene);
}

Test(keys, obsolete_markers_are_rejected_or_declined__rfc7143_13_25)
{
	is_answered("IFMarker=Yes", "Reject|No");
	is_answered("OFMarker=No", "Reject|No");
}

Test(keys, obsolete_marker_intervals_are_rejected__rfc7143_13_25)
{
	is_answered("IFMarkInt=2048~8192", "Reject");
	is_answered("OFMarkInt=2048~8192", "Reject");
}

Test(keys, task_reporting_is_answered_with_what_it_can__rfc7143_13_23)
{
	is_answered("TaskReporting=ResponseFence,RFC3720", "RFC3720|ResponseFence|Reject");
}

Test(keys, the_protocol_level_is_answered_with_a_level_that_was_offered__rfc7144_7_1)
{
	is_answered("iSCSIProtocolLevel=2", "0|1|2|NotUnderstood");
}

Test(keys, declarations_of_the_target_are_not_answered__rfc7143_13)
{
	const struct script_login_step steps[] = {{.keys = NULL},
	    {.more = "TargetAlias=a disk & co&TargetAddress=127.0.0.1:1,1", .stay = true}};
	struct scene scene = lab_with_steps(steps, 2);

	lab_mount(&scene, NULL);
	cr_assert_eq(lab_times(&scene, 0, "TargetAlias"), 0);
	cr_assert_eq(lab_times(&scene, 0, "TargetAddress"), 0);
	cr_assert_eq(lab_times(&scene, 0, "TargetPortalGroupTag"), 0);
	lab_end(&scene);
}

Test(keys, an_alias_of_255_bytes_is_taken__rfc7143_6_1)
{
	char alias[280] = "TargetAlias=";
	const struct script_login_step steps[] = {{.keys = NULL}, {.more = alias}};

	memset(alias + strlen(alias), 'a', 255);
	lab_logs_in(steps, 2, NULL);
}

Test(keys, a_long_name_of_a_key_and_a_long_value_harm_nothing__rfc7143_6_1)
{
	g_autoptr(GString) pair = g_string_new("X-");
	struct script_login_step steps[] = {{.keys = NULL}, {.stay = true}};

	for (int i = 0; i < 61; i++)
		g_string_append_c(pair, 'n');
	g_string_append_c(pair, '=');
	for (int i = 0; i < 255; i++)
		g_string_append_c(pair, 'v');
	steps[1].more = pair->str;
	lab_logs_in(steps, 2, NULL);
}

/* ---- what lunfs says by itself ---- */

Test(keys, offers_are_within_their_range__rfc7143_13)
{
	static const struct {
		const char *key;
		long low, high;
	} numbers[] = {{"MaxConnections", 1, 65535}, {"MaxRecvDataSegmentLength", 512, 16777215},
	    {"MaxBurstLength", 512, 16777215}, {"FirstBurstLength", 512, 16777215},
	    {"DefaultTime2Wait", 0, 3600}, {"DefaultTime2Retain", 0, 3600},
	    {"MaxOutstandingR2T", 1, 65535}, {"ErrorRecoveryLevel", 0, 2}};
	struct scene scene = lab_new();

	lab_mount(&scene, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
		const char *value = lab_said(&scene, 0, numbers[i].key);
		char *end;
		long number = strtol(value, &end, 0);

		cr_assert(*value == '\0' || (*end == '\0' && number >= numbers[i].low &&
		                                number <= numbers[i].high),
		    "%s=%s", numbers[i].key, value);
	}
	cr_assert_leq(atol(lab_said(&scene, 0, "FirstBurstLength")),
	    atol(lab_said(&scene, 0, "MaxBurstLength")));
	lab_end(&scene);
}

Test(keys, obsolete_markers_are_not_offered__rfc7143_13_25)
{
	static const char *const keys[] = {"IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt"};
	struct scene scene = lab_new();

	lab_mount(&scene, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
		cr_assert_eq(lab_times(&scene, 0, keys[i]), 0, "%s", keys[i]);
	lab_end(&scene);
}

Test(keys, a_login_without_a_user_offers_no_chap__rfc7143_12)
{
	struct scene scene = lab_new();

	lab_mount(&scene, NULL);
	cr_assert_str_eq(lab_said(&scene, 0, "AuthMethod"), "None");
	cr_assert_eq(lab_times(&scene, 0, "CHAP_A"), 0);
	lab_end(&scene);
}

Test(keys, status_shows_what_was_agreed_on__rfc7143_13)
{
	static const char *const shown[][2] = {{"InitialR2T", "true"}, {"ImmediateData", "false"},
	    {"MaxBurstLength", "16384"}, {"MaxOutstandingR2T", "1"}, {"DefaultTime2Wait", "7"},
	    {"DefaultTime2Retain", "0"}, {"DataPDUInOrder", "true"},
	    {"DataSequenceInOrder", "true"}, {"ErrorRecoveryLevel", "0"}, {"HeaderDigest", "None"},
	    {"DataDigest", "None"}, {"MaxConnections", "1"}, {"MaxXmitDataSegmentLength", "4096"},
	    {"AuthMethod", "None"}};
	struct scene scene = lab_new();

	script_target_set(scene.script, &(struct script_parameters){.initial_r2t = true,
	                                    .no_immediate_data = true,
	                                    .max_burst = 16384,
	                                    .first_burst = 8192,
	                                    .receive_segment = 4096,
	                                    .time2wait = 7});
	lab_mount(&scene, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(shown); i++)
		cr_assert_str_eq(status_of(&scene, shown[i][0]), shown[i][1], "%s", shown[i][0]);
	lab_end(&scene);
}
