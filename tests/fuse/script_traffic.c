/*
 * script_traffic.c - the scripted target's recorder, hooks, login steps, CHAP and header digest are
 * right themselves.
 */
#include "support/data.h"
#include "support/script_raw.h"
#include "support/script_scene.h"
#include "support/script_traffic.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

TestSuite(script_traffic, .timeout = 120);

#define INITIATOR "iqn.2026-01.org.lunfs:tester"
#define SECRET    "initiators-1234"
#define SECRET_IN "targets-567890"

static void writes_and_reads(struct scene *scene, const char *options)
{
	unsigned char *bytes = aligned_buffer(MIB(1));

	script_scene_mount(scene, options);
	pattern_fill(bytes, MIB(1), 0, 7);
	int fd = must_open(scene->file, O_RDWR | O_DIRECT);
	must_pwrite(fd, bytes, MIB(1), 0);
	must_hold(scene->file, bytes, MIB(1), 0);
	close(fd);
	script_scene_umount(scene);
}

Test(script_traffic, header_digests_are_made_and_checked)
{
	struct scene scene = scene_of_script(MIB(4));
	struct script_traffic pdu;
	unsigned i = 0;

	script_target_set(scene.script, &(struct script_parameters){.header_digest_only = true});
	writes_and_reads(&scene, "header_digest=crc32c");
	g_autofree char *offered = script_traffic_key(scene.script, 0, "HeaderDigest", NULL);
	cr_assert(strstr(offered, "CRC32C"), "offered: %s", offered);
	cr_assert(script_traffic_find(scene.script, &i, true, 0x06, &pdu), "no logout");
	script_target_stop(scene.script);
}

Test(script_traffic, a_login_without_the_digest_that_is_insisted_on_is_refused)
{
	struct script_target *target = script_target_start(SCENE_IQN);
	struct raw raw = raw_connect(script_target_port(target));

	script_target_set(target, &(struct script_parameters){.header_digest_only = true});
	cr_assert_eq(raw_login(&raw, INITIATOR, SCENE_IQN, 1), 0x0200);
	close(raw.fd);
	script_target_stop(target);
}

Test(script_traffic, chap_is_asked_for_and_answered)
{
	struct scene scene = scene_of_script(MIB(4));

	script_target_chap(scene.script, &(struct script_chap){.user = "me",
	                                     .secret = SECRET,
	                                     .user_in = "you",
	                                     .secret_in = SECRET_IN,
	                                     .identifier = 7});
	must(scene.stage, "umask 077; echo " SECRET " > out; echo " SECRET_IN " > in");
	writes_and_reads(
	    &scene, "username=me,password_file=out,username_in=you,password_in_file=in");
	script_target_stop(scene.script);
}

Test(script_traffic, without_a_proof_a_login_is_refused)
{
	struct script_target *target = script_target_start(SCENE_IQN);
	struct raw raw = raw_connect(script_target_port(target));

	script_target_chap(target, &(struct script_chap){.user = "me", .secret = SECRET});
	cr_assert_eq(raw_login(&raw, INITIATOR, SCENE_IQN, 1), 0x0201);
	close(raw.fd);
	script_target_stop(target);
}

/* ---- byte by byte ---- */

static void send_login(struct raw *raw, uint8_t flags, const char *keys, size_t length)
{
	uint8_t header[48] = {0x43, flags, [8] = 0x80, [13] = 1};

	put_be32(header + 24, raw->cmdsn);
	raw_send(raw, header, keys, length);
	cr_assert_eq(raw_receive(raw), 0x23);
}

Test(script_traffic, steps_give_a_login_its_rounds_and_parts)
{
	static const char first[] = "InitiatorName=" INITIATOR "\0TargetName=" SCENE_IQN;
	static const uint32_t statsn = 0xfffffffe, offset = 4;
	const struct script_login_step steps[] = {
	    {.keys = "A=1&B=2", .cut = 5, .stay = true, .padding = 0xee, .statsn = &statsn},
	    {.more = "X=3", .version_active = 1, .version_max = 2, .max_cmdsn_offset = &offset},
	};
	struct script_target *target = script_target_start(SCENE_IQN);
	struct raw raw = raw_connect(script_target_port(target));

	script_target_login_steps(target, steps, 2);
	send_login(&raw, 0x87, first, sizeof(first));
	cr_assert_eq(raw.header[1], 0x44, "C=1, T=0");
	cr_assert_eq(get_be32(raw.header + 24), 0xfffffffe);
	cr_assert(raw.length == 5 && memcmp(raw.data, "A=1\0B\xee\xee\xee", 8) == 0);
	send_login(&raw, 0x04, NULL, 0);
	cr_assert_eq(raw.header[1], 0x04, "C=0, T=0");
	cr_assert(raw.length == 3 && memcmp(raw.data, "=2\0\xee", 4) == 0);
	send_login(&raw, 0x87, NULL, 0);
	cr_assert_eq(raw.header[1], 0x87);
	cr_assert(raw.header[2] == 2 && raw.header[3] == 1);
	cr_assert_eq(get_be32(raw.header + 24), 0, "StatSN");
	cr_assert_eq(get_be32(raw.header + 32), raw.cmdsn + 4, "MaxCmdSN");
	cr_assert_eq(memcmp(raw.data + raw.length - 4, "X=3", 4), 0);
	close(raw.fd);
	script_target_stop(target);
}

static void ask(struct raw *raw, uint32_t ttt, const char *text, size_t length)
{
	uint8_t header[48] = {0x04, 0x80};

	put_be32(header + 16, 5);
	put_be32(header + 20, ttt);
	put_be32(header + 24, raw->cmdsn++);
	raw_send(raw, header, text, length);
}

/* All parts, one behind the other. */
static GString *listed(bool anywhere, unsigned *parts)
{
	static const char names[] = "TargetName=a\0TargetName=bc\0TargetName=def";
	struct script_target *target = script_target_start(SCENE_IQN);
	struct raw raw = raw_connect(script_target_port(target));
	GString *all = g_string_new(NULL);

	script_target_set(
	    target, &(struct script_parameters){.text_cut = 20, .text_cut_c = anywhere});
	script_target_list(target, names, sizeof(names));
	cr_assert_eq(raw_login(&raw, INITIATOR, SCENE_IQN, 1), 0);
	ask(&raw, 0xffffffff, "SendTargets=All", 16);
	for (*parts = 1;; ++*parts) {
		cr_assert_eq(raw_receive(&raw), 0x24);
		g_string_append_len(all, (const char *)raw.data, (gssize)raw.length);
		if (raw.header[1] == 0x80)
			break;
		cr_assert_eq(raw.header[1], anywhere ? 0x40 : 0);
		ask(&raw, get_be32(raw.header + 20), NULL, 0);
	}
	cr_assert(all->len == sizeof(names) && memcmp(all->str, names, sizeof(names)) == 0);
	close(raw.fd);
	script_target_must_not_complain(target);
	script_target_stop(target);
	return all;
}

Test(script_traffic, a_list_of_targets_comes_in_parts)
{
	unsigned parts;

	g_string_free(listed(false, &parts), TRUE);
	cr_assert_eq(parts, 3, "%u parts", parts);
	g_string_free(listed(true, &parts), TRUE);
	cr_assert_eq(parts, 3, "%u parts", parts);
}

/* ---- hooks ---- */

struct swallow {
	unsigned came;
};

static bool swallows_nops(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
    uint32_t length, void *own)
{
	struct swallow *swallow = own;
	uint8_t answer[48];

	if ((header[0] & 0x3f) != 0x00)
		return false;
	swallow->came++;
	script_hook_header(hook, answer, 0x20, get_be32(header + 16), true);
	put_be32(answer + 20, 0xffffffff);
	script_hook_send(hook, answer, data, length);
	return true;
}

static bool adds_and_drops(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)own;
	script_hook_pad(hook, 0xaa);
	if ((pdu->data[0] & 0x3f) == 0x20)
		g_byte_array_append(pdu, (const guint8 *)"!", 1);
	return (pdu->data[0] & 0x3f) != 0x31;
}

Test(script_traffic, hooks_deal_with_what_comes_and_change_what_leaves)
{
	struct script_target *target = script_target_start(SCENE_IQN);
	struct raw raw = raw_connect(script_target_port(target));
	uint8_t nop[48] = {0x40, 0x80, [19] = 9, [20] = 0xff, 0xff, 0xff, 0xff};
	struct swallow swallow = {0};
	struct script_traffic pdu;
	unsigned i = 0;

	cr_assert_eq(raw_login(&raw, INITIATOR, SCENE_IQN, 1), 0);
	script_target_hook(target, &(struct script_hooks){.came = swallows_nops, .own = &swallow});
	put_be32(nop + 24, raw.cmdsn);
	raw_send(&raw, nop, "abc", 3);
	cr_assert_eq(raw_receive(&raw), 0x20);
	cr_assert(raw.length == 3 && memcmp(raw.data, "abc", 3) == 0 && swallow.came == 1);
	script_target_hook(target, &(struct script_hooks){.leaves = adds_and_drops});
	raw_send(&raw, nop, "abcd", 4);
	cr_assert_eq(raw_receive(&raw), 0x20);
	cr_assert(raw.length == 5 && memcmp(raw.data, "abcd!\xaa\xaa\xaa", 8) == 0);
	cr_assert(script_traffic_await(target, true, 0x00, 2, 10));
	cr_assert(script_traffic_find(target, &i, true, 0x00, &pdu) && pdu.length == 3);
	cr_assert(script_traffic_find(target, &i, false, 0x20, &pdu) && pdu.length == 3);
	cr_assert(script_traffic_find(target, &i, false, 0x20, &pdu) && pdu.length == 5);
	cr_assert(!script_traffic_find(target, &i, false, 0x20, &pdu));
	close(raw.fd);
	script_target_stop(target);
}
