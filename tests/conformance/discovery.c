/*
 * discovery.c - discovery sessions and SendTargets (RFC 7143, 4.3, 11.10, 11.11 and appendix C).
 */
#include "conformance/lab.h"
#include "conformance/login_rules.h"
#include "support/hole.h"

#include <string.h>

TestSuite(discovery, .timeout = 120);

/* ---- lists ---- */

/* "TargetName=..., TargetAddress=..." of so many targets and portals; and what is to be printed. */
static GString *list_of(unsigned targets, unsigned portals, GString *printed)
{
	GString *list = g_string_new(NULL);

	for (unsigned t = 0; t < targets; t++) {
		g_string_append_printf(
		    list, "TargetName=iqn.2026-01.org.lunfs:array-%04u.lun%c", t, '\0');
		for (unsigned p = 0; p < portals; p++) {
			g_string_append_printf(list, "TargetAddress=10.%u.%u.%u:%u,%u%c", t / 256,
			    t % 256, p + 1, 3260 + p, p + 1, '\0');
			if (printed)
				g_string_append_printf(printed,
				    "10.%u.%u.%u:%u,%u iqn.2026-01.org.lunfs:array-%04u.lun\n",
				    t / 256, t % 256, p + 1, 3260 + p, p + 1, t);
		}
	}
	return list;
}

static char *discover(struct scene *scene)
{
	return must_lunfs(scene->stage, "discover 127.0.0.1:%u", script_target_port(scene->script));
}

static void ends(struct scene *scene)
{
	script_target_must_not_complain(scene->script);
	login_rules_all(scene);
	lab_close(scene);
}

/* All of them are printed, and in order, whatever the PDUs are. */
static void lists(unsigned targets, unsigned portals, uint32_t cut, bool anywhere)
{
	struct scene scene = lab_new();
	g_autoptr(GString) printed = g_string_new(NULL);
	g_autoptr(GString) list = list_of(targets, portals, printed);

	script_target_set(
	    scene.script, &(struct script_parameters){.text_cut = cut, .text_cut_c = anywhere});
	script_target_list(scene.script, list->str, list->len);
	char *found = discover(&scene);
	size_t same = 0;
	while (found[same] && found[same] == printed->str[same])
		same++;
	cr_assert_str_eq(found, printed->str, "from byte %zu: '%.80s', not '%.80s'", same,
	    found + same, printed->str + same);
	ends(&scene);
}

Test(discovery, a_list_in_one_pdu_is_whole__rfc7143_appendix_c)
{
	lists(20, 4, 0, false);
}

Test(discovery, a_thousand_targets_of_four_portals_are_whole_and_in_order__rfc7143_appendix_c)
{
	lists(1000, 4, 262144, false);
}

Test(discovery, a_thousand_targets_in_pdus_of_8192_bytes_are_whole__rfc7143_11_11)
{
	lists(1000, 4, 8192, false);
}

Test(discovery, a_thousand_targets_in_pdus_of_8192_bytes_with_c_are_whole__rfc7143_11_11_2)
{
	lists(1000, 4, 8192, true);
}

Test(discovery, a_thousand_targets_in_pdus_of_512_bytes_are_whole__rfc7143_11_11)
{
	lists(1000, 4, 512, false);
}

Test(discovery, a_thousand_targets_in_pdus_of_512_bytes_with_c_are_whole__rfc7143_11_11_2)
{
	lists(1000, 4, 512, true);
}

Test(discovery, a_list_cut_inside_names_and_values_is_joined__rfc7143_11_11_2)
{
	lists(5, 4, 7, true);
}

Test(discovery, a_list_cut_behind_each_byte_is_joined__rfc7143_11_11_2)
{
	lists(2, 2, 1, true);
}

Test(discovery, a_list_with_a_pdu_for_each_key_is_joined__rfc7143_11_11)
{
	lists(50, 4, 60, false);
}

/* ---- what the session says ---- */

/* One discovery of a list in parts; looked at afterwards. */
static struct scene discovered(void)
{
	struct scene scene = lab_new();
	g_autoptr(GString) list = list_of(10, 4, NULL);

	script_target_set(scene.script, &(struct script_parameters){.text_cut = 100});
	script_target_list(scene.script, list->str, list->len);
	discover(&scene);
	return scene;
}

Test(discovery, the_session_is_one_of_discovery__rfc7143_13_21)
{
	struct scene scene = discovered();

	cr_assert_str_eq(lab_said(&scene, 0, "SessionType"), "Discovery");
	cr_assert_eq(lab_times(&scene, 0, "TargetName"), 0);
	ends(&scene);
}

Test(discovery, keys_of_data_transfer_are_not_offered__rfc7143_13)
{
	static const char *const irrelevant[] = {"MaxConnections", "InitialR2T", "ImmediateData",
	    "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T", "DataPDUInOrder",
	    "DataSequenceInOrder"};
	struct scene scene = discovered();

	for (size_t i = 0; i < G_N_ELEMENTS(irrelevant); i++)
		cr_assert_eq(lab_times(&scene, 0, irrelevant[i]), 0, "%s", irrelevant[i]);
	ends(&scene);
}

Test(discovery, all_targets_are_asked_for_in_one_request__rfc7143_appendix_c)
{
	struct scene scene = discovered();
	g_autoptr(GArray) requests = lab_pdus(&scene, 0, true, PDU_TEXT);
	const struct script_traffic *first = lab_pdu(requests, 0);

	cr_assert_str_eq(lab_said(&scene, 0, "SendTargets"), "All");
	cr_assert_eq(lab_times(&scene, 0, "SendTargets"), 1);
	cr_assert_eq(first->header[1], 0x80, "flags %02x", first->header[1]);
	cr_assert_eq(get_be32(first->header + 20), LAB_NO_TAG);
	cr_assert_eq(first->data[first->length - 1], '\0');
	ends(&scene);
}

Test(discovery, the_rest_is_fetched_with_both_tags_and_no_text__rfc7143_11_10_4)
{
	struct scene scene = discovered();
	g_autoptr(GArray) requests = lab_pdus(&scene, 0, true, PDU_TEXT);
	g_autoptr(GArray) answers = lab_pdus(&scene, 0, false, PDU_TEXT_RESPONSE);

	cr_assert(requests->len > 10 && requests->len == answers->len);
	for (guint i = 1; i < requests->len; i++) {
		const struct script_traffic *request = lab_pdu(requests, i);
		const struct script_traffic *answer = lab_pdu(answers, i - 1);

		cr_assert_eq(request->length, 0);
		cr_assert_eq(get_be32(request->header + 16),
		    get_be32(lab_pdu(requests, 0)->header + 16), "another ITT");
		cr_assert_eq(get_be32(request->header + 20), get_be32(answer->header + 20), "TTT");
		cr_assert_eq(memcmp(request->header + 8, answer->header + 8, 8), 0, "LUN");
	}
	ends(&scene);
}

Test(discovery, each_request_acknowledges_and_is_numbered__rfc7143_4_2_2)
{
	struct scene scene = discovered();
	g_autoptr(GArray) requests = lab_pdus(&scene, 0, true, PDU_TEXT);
	g_autoptr(GArray) answers = lab_pdus(&scene, 0, false, PDU_TEXT_RESPONSE);
	uint32_t cmdsn = get_be32(lab_pdu(requests, 0)->header + 24);

	for (guint i = 1; i < requests->len; i++) {
		const struct script_traffic *before = lab_pdu(requests, i - 1);
		const struct script_traffic *request = lab_pdu(requests, i);

		cr_assert_eq(get_be32(request->header + 28),
		    get_be32(lab_pdu(answers, i - 1)->header + 24) + 1, "ExpStatSN");
		cmdsn += !(before->header[0] & 0x40);
		cr_assert_eq(get_be32(request->header + 24), cmdsn, "CmdSN");
	}
	ends(&scene);
}

Test(discovery, the_session_is_logged_out_at_its_end__rfc7143_11_14)
{
	struct scene scene = discovered();
	g_autoptr(GArray) logouts = lab_pdus(&scene, 0, true, PDU_LOGOUT);
	g_autoptr(GArray) requests = lab_pdus(&scene, 0, true, PDU_TEXT);
	g_autoptr(GArray) answers = lab_pdus(&scene, 0, false, PDU_TEXT_RESPONSE);
	const struct script_traffic *last = lab_pdu(requests, requests->len - 1);

	cr_assert_eq(logouts->len, 1);
	const struct script_traffic *logout = lab_pdu(logouts, 0);
	cr_assert(logout->header[1] == 0x80 || logout->header[1] == 0x81, "reason %02x",
	    logout->header[1]);
	cr_assert_neq(get_be32(logout->header + 16), get_be32(last->header + 16), "a tag again");
	cr_assert_eq(get_be32(logout->header + 28),
	    get_be32(lab_pdu(answers, answers->len - 1)->header + 24) + 1, "ExpStatSN");
	cr_assert_eq(get_be32(logout->header + 24),
	    get_be32(last->header + 24) + !(last->header[0] & 0x40), "CmdSN");
	ends(&scene);
}

Test(discovery, a_tag_of_0_is_a_tag__rfc7143_11_11_3)
{
	struct scene scene = lab_new();
	g_autoptr(GString) printed = g_string_new(NULL);
	g_autoptr(GString) list = list_of(4, 1, printed);

	script_target_set(scene.script, &(struct script_parameters){.text_cut = 100});
	script_target_list(scene.script, list->str, list->len);
	/* the target numbers its tags from 0 */
	cr_assert_str_eq(discover(&scene), printed->str);
	g_autoptr(GArray) answers = lab_pdus(&scene, 0, false, PDU_TEXT_RESPONSE);
	cr_assert_eq(get_be32(lab_pdu(answers, 0)->header + 20), 0);
	ends(&scene);
}

/* ---- what lists may hold ---- */

static void prints(const char *list, size_t length, const char *format)
{
	struct scene scene = lab_new();
	g_autoptr(GString) wanted = g_string_new(format);
	g_autofree char *port = g_strdup_printf("%u", script_target_port(scene.script));

	g_string_replace(wanted, "PORT", port, 0);
	script_target_list(scene.script, list, length);
	char *found = discover(&scene);
	cr_assert_str_eq(found, wanted->str, "'%s', not '%s'", found, wanted->str);
	ends(&scene);
}
#define PRINTS(list, format) prints(list, sizeof(list), format)

Test(discovery, unknown_keys_in_a_list_are_passed_over__rfc7143_appendix_c)
{
	PRINTS("X-org.example.before=1\0TargetName=iqn.2026-01.org.lunfs:a\0X-org.example.in=2\0"
	       "TargetAlias=some disk\0TargetAddress=10.0.0.1:3260,1\0NewKey=3",
	    "10.0.0.1:3260,1 iqn.2026-01.org.lunfs:a\n");
}

Test(discovery, a_target_without_address_is_at_the_portal_that_was_asked__rfc7143_appendix_c)
{
	PRINTS("TargetName=iqn.2026-01.org.lunfs:a\0TargetName=iqn.2026-01.org.lunfs:b\0"
	       "TargetAddress=10.0.0.1:3261,7",
	    "127.0.0.1:PORT,1 iqn.2026-01.org.lunfs:a\n"
	    "10.0.0.1:3261,7 iqn.2026-01.org.lunfs:b\n");
}

Test(discovery, addresses_of_every_form_are_taken__rfc7143_13_8)
{
	PRINTS("TargetName=iqn.2026-01.org.lunfs:a\0TargetAddress=10.0.0.1:3261,7\0"
	       "TargetAddress=[2001:db8::1]:3262,65535\0TargetAddress=store.example.org:3263,2",
	    "10.0.0.1:3261,7 iqn.2026-01.org.lunfs:a\n"
	    "[2001:db8::1]:3262,65535 iqn.2026-01.org.lunfs:a\n"
	    "store.example.org:3263,2 iqn.2026-01.org.lunfs:a\n");
}

Test(discovery, an_address_without_port_is_at_3260__rfc7143_13_8)
{
	PRINTS("TargetName=iqn.2026-01.org.lunfs:a\0TargetAddress=10.0.0.1,7\0"
	       "TargetAddress=[2001:db8::1],8",
	    "10.0.0.1:3260,7 iqn.2026-01.org.lunfs:a\n"
	    "[2001:db8::1]:3260,8 iqn.2026-01.org.lunfs:a\n");
}

Test(discovery, names_of_each_type_are_taken__rfc7143_4_2_7)
{
	PRINTS("TargetName=eui.02004567A425678D\0TargetAddress=10.0.0.1:3260,1\0"
	       "TargetName=naa.52004567BA64678D\0TargetAddress=10.0.0.2:3260,1",
	    "10.0.0.1:3260,1 eui.02004567A425678D\n10.0.0.2:3260,1 naa.52004567BA64678D\n");
}

Test(discovery, an_empty_list_is_no_target__rfc7143_appendix_c)
{
	struct scene scene = lab_new();

	script_target_list(scene.script, "", 0);
	struct result *result =
	    lunfs(scene.stage, "discover 127.0.0.1:%u", script_target_port(scene.script));
	cr_assert_str_empty(result->out);
	cr_assert_leq(count_words(result->err, "\n"), 1u, "%s", result->err);
	ends(&scene);
}

/* ---- mounts of all that is listed ---- */

static bool is_there(void *path)
{
	return g_file_test(path, G_FILE_TEST_EXISTS);
}

Test(discovery, a_portal_that_cannot_be_reached_costs_one_short_attempt)
{
	struct scene scene = lab_new();
	unsigned port = script_target_port(scene.script);
	g_autoptr(GString) list = g_string_new(NULL);
	double before = seconds_now();

	g_string_append_printf(list,
	    "TargetName=" SCENE_IQN "%cTargetAddress=127.0.0.1:%u,1%cTargetAddress=127.0.0.1:%u,1%c"
	    "TargetAddress=127.0.0.1:%u,1%c",
	    '\0', hole_that_drops(), '\0', free_port(), '\0', port, '\0');
	script_target_list(scene.script, list->str, list->len);
	scene_mount_as(&scene, 0, text(scene.stage, "iscsi://127.0.0.1:%u", port), NULL);
	char *lun = text(scene.stage, "%s/" SCENE_IQN "/lun1.img", scene.mnt);
	cr_assert(await(10, is_there, lun), "%s", scene_said(&scene));
	cr_assert(seconds_now() - before < patience(8), "%.1f s", seconds_now() - before);
	cr_assert_leq(script_target_login_attempts(scene.script), 3);
	script_scene_umount(&scene);
	lab_close(&scene);
}

/* ---- targets that do it wrong ---- */

static struct result *discovery_fails(struct scene *scene, const char *words)
{
	g_auto(GStrv) wanted = g_strsplit(words, "|", -1);
	struct result *result = lunfs(scene->stage, "discover 127.0.0.1:%u -o login_timeout=2s",
	    script_target_port(scene->script));

	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->out);
	cr_assert_str_empty(result->out);
	cr_assert_eq(count_words(result->err, "\n"), 1u, "not one line: %s", result->err);
	for (char **word = wanted; *word; word++)
		cr_assert(strcasestr(result->err, *word), "no '%s' in: %s", *word, result->err);
	cr_assert(result->seconds < patience(6), "after %.1f s", result->seconds);
	lab_close(scene);
	return result;
}

struct fault {
	uint8_t opcode, at, set;
	int flags; /* or -1 */
};

static bool spoil_text(struct script_hook *hook, GByteArray *pdu, void *own)
{
	const struct fault *fault = own;

	(void)hook;
	if ((pdu->data[0] & 0x3f) != PDU_TEXT_RESPONSE)
		return true;
	if (fault->flags >= 0)
		pdu->data[1] = (uint8_t)fault->flags;
	if (fault->at)
		pdu->data[fault->at] = fault->set;
	if (fault->opcode)
		pdu->data[0] = fault->opcode;
	return true;
}

static void text_fails(struct fault fault, const char *words)
{
	struct scene scene = lab_new();

	script_target_hook(
	    scene.script, &(struct script_hooks){.leaves = spoil_text, .own = &fault});
	discovery_fails(&scene, words);
}

Test(discovery, an_answer_that_goes_on_without_tag_is_refused__rfc7143_11_11_4)
{
	text_fails((struct fault){.flags = 0}, "127.0.0.1");
}

Test(discovery, an_answer_to_another_request_is_refused__rfc7143_11_11_3)
{
	text_fails((struct fault){.flags = -1, .at = 16, .set = 0xa5}, "127.0.0.1");
}

Test(discovery, a_reject_is_told__rfc7143_11_17)
{
	text_fails((struct fault){.flags = -1, .opcode = PDU_REJECT}, "127.0.0.1");
}

static bool goes_on(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	if ((pdu->data[0] & 0x3f) != PDU_TEXT_RESPONSE)
		return true;
	pdu->data[1] = *(const uint8_t *)own;
	put_be32(pdu->data + 20, 7);
	return true;
}

static bool always_more(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	uint8_t answer[48];
	static char more[4096];

	(void)data;
	(void)length;
	if ((header[0] & 0x3f) != PDU_TEXT)
		return false;
	memset(more, 'x', sizeof(more));
	script_hook_header(hook, answer, PDU_TEXT_RESPONSE, get_be32(header + 16), true);
	answer[1] = *(const uint8_t *)own;
	put_be32(answer + 20, 7);
	script_hook_send(hook, answer, more, sizeof(more));
	return true;
}

static void never_ends(uint8_t flags)
{
	struct scene scene = lab_new();

	script_target_hook(scene.script,
	    &(struct script_hooks){.came = always_more, .leaves = goes_on, .own = &flags});
	discovery_fails(&scene, "127.0.0.1");
}

Test(discovery, a_list_that_never_ends_is_left__rfc7143_11_11)
{
	never_ends(0);
}

Test(discovery, a_key_that_never_ends_is_left__rfc7143_11_11_2)
{
	never_ends(0x40);
}

struct silence {
	unsigned after; /* Text Requests */
	unsigned count;
};

static bool is_silent(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	struct silence *silence = own;

	(void)hook;
	(void)data;
	(void)length;
	return (header[0] & 0x3f) == PDU_TEXT && silence->count++ >= silence->after;
}

static void gives_up_after(unsigned answers)
{
	struct silence silence = {.after = answers};
	struct scene scene = lab_new();

	script_target_set(scene.script, &(struct script_parameters){.text_cut = 30});
	script_target_hook(
	    scene.script, &(struct script_hooks){.came = is_silent, .own = &silence});
	discovery_fails(&scene, "127.0.0.1|answer");
}

Test(discovery, a_target_that_does_not_answer_costs_login_timeout)
{
	gives_up_after(0);
}

Test(discovery, a_target_that_falls_silent_within_a_list_costs_login_timeout)
{
	gives_up_after(1);
}
