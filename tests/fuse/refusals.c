/*
 * refusals.c - every refusal: one clear line, the right exit status, in time, and no mount left
 * behind.
 */
#include "support/hole.h"
#include "support/mount.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

TestSuite(refusals, .timeout = 120);

#define LOGIN_TIMEOUT 3 /* seconds; short, for the tests that wait for it */

/* One line on stderr that holds every one of the words (separated by '|'), nothing on stdout. */
static void must_say(const struct result *result, int status, const char *words)
{
	g_auto(GStrv) wanted = g_strsplit(words, "|", -1);
	const char *newline = strchr(result->err, '\n');

	cr_assert_eq(result->status, status, "exit status %d: %s%s", result->status, result->out,
	    result->err);
	cr_assert(newline && newline[1] == '\0', "not one line: '%s'", result->err);
	cr_assert(g_str_has_prefix(result->err, "lunfs: "), "%s", result->err);
	for (char **word = wanted; *word; word++)
		cr_assert(strcasestr(result->err, *word), "no '%s' in: %s", *word, result->err);
	cr_assert_str_empty(result->out);
}

/* Mounts source, which must be refused with those words, within the login timeout. */
static void must_refuse_to_mount(
    struct stage *stage, const char *source, const char *options, const char *words)
{
	char *mnt = stage_directory(stage, "mnt", 0);
	struct result *result =
	    lunfs(stage, "mount %s %s -o login_timeout=%ds%s", source, mnt, LOGIN_TIMEOUT, options);

	must_say(result, 1, words);
	cr_assert(result->seconds < patience(LOGIN_TIMEOUT + 1), "only after %.1f s: %s",
	    result->seconds, result->err);
	cr_assert(!is_mounted(mnt));
	cr_assert_eq(lunfs_daemon(), 0, "a process stays");
}

static struct tgt *target_with_disk(struct stage *stage)
{
	struct tgt *tgt = tgt_start(stage);

	tgt_add_target(tgt, 1, SCENE_IQN);
	tgt_add_lun(tgt, 1, .lun = 1, .size = MIB(1));
	return tgt;
}

Test(refusals, a_target_without_luns)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = tgt_start(stage);

	tgt_add_target(tgt, 1, SCENE_IQN);
	must_refuse_to_mount(stage, tgt_url(tgt, SCENE_IQN, -1), "", SCENE_IQN "|LUN");
}

Test(refusals, a_lun_that_is_not_there)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);

	must_refuse_to_mount(stage, tgt_url(tgt, SCENE_IQN, 9), "", "LUN 9");
}

Test(refusals, a_lun_that_is_no_disk)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);

	tgt_add_lun(tgt, 1, .lun = 2, .type = "tape");
	must_refuse_to_mount(stage, tgt_url(tgt, SCENE_IQN, 2), "", "LUN 2|tape");
}

Test(refusals, a_drive_without_medium)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);

	tgt_add_lun(tgt, 1, .lun = 2, .type = "cd", .no_medium = true);
	must_refuse_to_mount(stage, tgt_url(tgt, SCENE_IQN, 2), "", "LUN 2|medium");
}

Test(refusals, a_disk_that_is_not_ready)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);

	tgt_add_lun(tgt, 1, .lun = 2, .size = MIB(1), .offline = true);
	must_refuse_to_mount(stage, tgt_url(tgt, SCENE_IQN, 2), "", "LUN 2");
	/* beside others it only lacks */
	char *mnt = must_mount_lunfs(stage, tgt_url(tgt, SCENE_IQN, -1), NULL);
	cr_assert(access(text(stage, "%s/lun1.img", mnt), R_OK | W_OK) == 0);
}

Test(refusals, a_target_that_is_not_there)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);

	must_refuse_to_mount(stage, tgt_url(tgt, "iqn.2026-01.org.lunfs:none", -1), "",
	    "iqn.2026-01.org.lunfs:none");
}

Test(refusals, an_initiator_that_the_target_does_not_allow)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);
	const char *mine = "iqn.2026-01.org.lunfs:mine";

	tgt_allow_only(tgt, 1, "iqn.2026-01.org.lunfs:another");
	must_refuse_to_mount(
	    stage, tgt_url(tgt, SCENE_IQN, -1), text(stage, ",initiator_name=%s", mine), mine);
	tgt_set(tgt, "--mode target --op bind --tid 1 --initiator-name %s", mine);
	must_mount_lunfs(
	    stage, tgt_url(tgt, SCENE_IQN, -1), text(stage, "initiator_name=%s", mine));
}

Test(refusals, a_name_that_does_not_resolve)
{
	struct stage *stage = stage_new();

	must_refuse_to_mount(
	    stage, "iscsi://something.invalid/" SCENE_IQN, "", "something.invalid");
}

Test(refusals, a_closed_port)
{
	struct stage *stage = stage_new();

	must_refuse_to_mount(stage, text(stage, "iscsi://127.0.0.1:%u/%s", free_port(), SCENE_IQN),
	    "", "127.0.0.1|refused");
}

Test(refusals, a_closed_port_when_asked_for_every_target)
{
	struct stage *stage = stage_new();

	must_refuse_to_mount(
	    stage, text(stage, "iscsi://127.0.0.1:%u", free_port()), "", "127.0.0.1|refused");
}

Test(refusals, a_host_that_drops_packets)
{
	struct stage *stage = stage_new();
	uint16_t port = hole_that_drops();

	must_refuse_to_mount(stage, text(stage, "iscsi://127.0.0.1:%u/%s", port, SCENE_IQN), "",
	    text(stage, "127.0.0.1:%u|does not answer", port));
}

Test(refusals, a_host_that_takes_the_connection_and_says_nothing)
{
	struct stage *stage = stage_new();
	uint16_t port = hole_that_is_silent();

	must_refuse_to_mount(stage, text(stage, "iscsi://127.0.0.1:%u/%s", port, SCENE_IQN), "",
	    text(stage, "127.0.0.1:%u|does not answer", port));
	must_say(lunfs(stage, "discover 127.0.0.1:%u -o login_timeout=1s", port), 1,
	    "127.0.0.1|does not answer");
}

Test(refusals, a_mountpoint_that_is_none)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);
	char *url = tgt_url(tgt, SCENE_IQN, -1);

	must_say(lunfs(stage, "mount %s %s/nowhere", url, stage->dir), 1, "/nowhere");
	must(stage, "touch file");
	/* a file may stand for one LUN, not for a target */
	must_say(lunfs(stage, "mount %s %s/file", url, stage->dir), 1, "/file|director");
	cr_assert_eq(lunfs_daemon(), 0);
}

Test(refusals, a_mountpoint_of_somebody_else)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);
	char *mnt = stage_directory(stage, "mnt", 0);

	must_say(lunfs_as(stage, ORDINARY_USER, "mount %s %s", tgt_url(tgt, SCENE_IQN, -1), mnt), 1,
	    mnt);
	cr_assert_eq(lunfs_daemon(), 0);
}

Test(refusals, no_dev_fuse)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_disk(stage);

	must(stage, "touch no-fuse && mount --bind no-fuse /dev/fuse");
	must_refuse_to_mount(stage, tgt_url(tgt, SCENE_IQN, -1), "", "fuse");
}

/* ---- words on the command line ---- */

Test(refusals, wrong_words_end_with_2_and_say_what_is_meant)
{
	struct stage *stage = stage_new();
	const char *source = "iscsi://127.0.0.1:9/" SCENE_IQN;

	stage_directory(stage, "mnt", 0);
	must_say(lunfs(stage, "mount %s mnt -o login_timout=3s", source), 2,
	    "login_timout|login_timeout");
	must_say(
	    lunfs(stage, "mount %s mnt -o login_timeout=soon", source), 2, "login_timeout|soon");
	must_say(lunfs(stage, "mount %s", source), 2, "MOUNTPOINT");
	must_say(lunfs(stage, "mount"), 2, "SOURCE");
	must_say(lunfs(stage, "umount"), 2, "MOUNTPOINT");
	must_say(lunfs(stage, "discover"), 2, "PORTAL");
	must_say(lunfs(stage, "mount http://x/y mnt"), 2, "iscsi://");
	must_say(lunfs(stage, "mount %s/99999999 mnt", source), 2, "99999999");
	must_say(lunfs(stage, "mount %s mnt --frobnicate", source), 2, "frobnicate");
	must_say(lunfs(stage, "munt mnt"), 2, "munt");
	cr_assert_eq(lunfs(stage, "%s", "")->status, 2);
}

Test(refusals, a_secret_on_the_command_line_is_refused_and_not_repeated)
{
	struct stage *stage = stage_new();
	struct result *results[] = {
	    lunfs(stage, "mount iscsi://joe%%verysecret123@127.0.0.1/" SCENE_IQN " mnt"),
	    lunfs(stage,
	        "mount iscsi://127.0.0.1/" SCENE_IQN " mnt -o username=joe,password=verysecret123"),
	    lunfs(stage, "discover iscsi://joe%%verysecret123@127.0.0.1"),
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(results); i++) {
		must_say(results[i], 2, "password_file|LIBISCSI_CHAP_PASSWORD");
		cr_assert(!strstr(results[i]->err, "verysecret123"), "%s", results[i]->err);
	}
}

Test(refusals, umount_of_what_is_no_mount_of_lunfs)
{
	struct stage *stage = stage_new();

	stage_directory(stage, "mnt", 0);
	must_say(lunfs(stage, "umount %s/mnt", stage->dir), 1, "/mnt");
	must_say(lunfs(stage, "umount /proc"), 1, "/proc");
	must_say(lunfs(stage, "umount %s/nowhere", stage->dir), 1, "/nowhere");
	cr_assert(access("/proc/self", F_OK) == 0);
}
