/*
 * chap.c - CHAP and mutual CHAP: accepted, refused, and where the secrets are not to be seen.
 */
#include "support/mount.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(chap, .timeout = 120);

#define USER      "initiator"
#define SECRET    "initiators-1234"
#define USER_IN   "target"
#define SECRET_IN "targets-567890"

/* A target that asks for CHAP, with one disk; the secrets stand in files "out" and "in". */
static struct tgt *target_with_chap(struct stage *stage)
{
	struct tgt *tgt = tgt_start(stage);

	tgt_add_target(tgt, 1, SCENE_IQN);
	tgt_add_lun(tgt, 1, .lun = 1, .size = MIB(1));
	tgt_chap(tgt, 1, USER, SECRET);
	tgt_chap_outgoing(tgt, 1, USER_IN, SECRET_IN);
	must(stage, "umask 077; echo %s > out; echo %s > in; echo wrong-secret-9 > wrong", SECRET,
	    SECRET_IN);
	return tgt;
}

/* Mounts url with those options (as root, in the stage's directory). */
static struct result *mount_with(
    struct stage *stage, const char *url, const char *environment, const char *options)
{
	stage_directory(stage, "mnt", 0);
	return sh(stage, "%s %s mount %s mnt %s", environment, stage->lunfs, url, options);
}

static void must_work(struct stage *stage, struct result *result)
{
	char *mnt = text(stage, "%s/mnt", stage->dir);

	cr_assert_eq(result->status, 0, "%s", result->err);
	must(stage, "cmp -n 1000 %s/lun1.img /dev/zero", mnt);
	must_umount(stage, mnt);
}

static void must_fail(struct stage *stage, struct result *result, const char *words)
{
	g_auto(GStrv) wanted = g_strsplit(words, "|", -1);

	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->err);
	cr_assert(strchr(result->err, '\n') == result->err + strlen(result->err) - 1,
	    "not one line: %s", result->err);
	for (char **word = wanted; *word; word++)
		cr_assert(strstr(result->err, *word), "no '%s' in: %s", *word, result->err);
	cr_assert(!strstr(result->err, SECRET) && !strstr(result->err, SECRET_IN));
	cr_assert(!is_mounted(text(stage, "%s/mnt", stage->dir)));
	cr_assert_eq(lunfs_daemon(), 0);
}

#define ONE_WAY     "-o username=" USER ",password_file=out"
#define MUTUAL      ONE_WAY ",username_in=" USER_IN ",password_in_file=in"
#define ENVIRONMENT "LIBISCSI_CHAP_USERNAME=" USER " LIBISCSI_CHAP_PASSWORD=" SECRET
#define ENVIRONMENT_IN                                                                             \
	" LIBISCSI_CHAP_TARGET_USERNAME=" USER_IN " LIBISCSI_CHAP_TARGET_PASSWORD=" SECRET_IN

Test(chap, works_with_a_secret_from_a_file)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must_work(stage, mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), "", ONE_WAY));
	must_work(
	    stage, mount_with(stage, text(stage, "iscsi://" USER "@%s/" SCENE_IQN, tgt->portal), "",
	               "-o password_file=out"));
}

Test(chap, works_with_a_secret_from_the_environment)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must_work(stage, mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), ENVIRONMENT, ""));
}

Test(chap, works_both_ways)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must_work(stage, mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), "", MUTUAL));
	must_work(
	    stage, mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), ENVIRONMENT ENVIRONMENT_IN, ""));
}

Test(chap, works_both_ways_with_garbage_in_the_padding_of_login_responses)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);
	struct proxy *proxy = proxy_start(tgt->port);
	char *url = text(stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, proxy_port(proxy));

	proxy_garble_login_padding(proxy);
	must_work(stage, mount_with(stage, url, "", MUTUAL));
	cr_assert(proxy_garbled(proxy) > 0, "no login response had padding: nothing was tested");
	must_work(stage, mount_with(stage, url, "", ONE_WAY));
	proxy_stop(proxy);
}

Test(chap, a_wrong_secret_is_refused)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must_fail(stage,
	    mount_with(
	        stage, tgt_url(tgt, SCENE_IQN, -1), "", "-o username=" USER ",password_file=wrong"),
	    "CHAP");
}

Test(chap, no_secret_is_refused)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must_fail(stage, mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), "", ""), "CHAP");
}

Test(chap, a_target_that_cannot_prove_itself_is_refused)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must_fail(stage,
	    mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), "",
	        ONE_WAY ",username_in=" USER_IN ",password_in_file=wrong"),
	    "target");
}

Test(chap, equal_secrets_for_both_directions_are_refused)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must_fail(stage,
	    mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), "",
	        ONE_WAY ",username_in=" USER_IN ",password_in_file=out"),
	    "equal|secret");
}

Test(chap, a_secret_file_that_others_can_read_is_refused)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);

	must(stage, "chmod 644 out");
	must_fail(stage, mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), "", ONE_WAY), "out|chmod");
	must(stage, "rm out");
	must_fail(stage, mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), "", ONE_WAY), "out");
}

Test(chap, nobody_sees_the_secrets_of_a_running_mount)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = target_with_chap(stage);
	struct result *result =
	    mount_with(stage, tgt_url(tgt, SCENE_IQN, -1), ENVIRONMENT ENVIRONMENT_IN, "");

	cr_assert_eq(result->status, 0, "%s", result->err);
	pid_t daemon = lunfs_daemon();
	cr_assert(daemon > 0);
	/* valgrind keeps an environment of its own, which is not ours to wipe */
	const char *wrapper = getenv("LUNFS_WRAPPER");
	char *seen = must(stage, "cd /proc/%d && tr '\\0' '\\n' < cmdline && cat mounts %s", daemon,
	    wrapper && *wrapper ? "" : "environ");
	cr_assert(!strstr(seen, SECRET) && !strstr(seen, SECRET_IN), "%s", seen);
	seen = must_lunfs(stage, "status mnt");
	cr_assert(!strstr(seen, SECRET) && !strstr(seen, SECRET_IN), "%s", seen);
	must_umount(stage, text(stage, "%s/mnt", stage->dir));
}
