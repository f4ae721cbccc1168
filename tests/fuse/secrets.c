/*
 * secrets.c - where the secrets of a configuration come from, and that nobody sees them.
 */
#include "support/site.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

TestSuite(secrets, .timeout = 120);

#define USER   "initiator"
#define SECRET "a\\very=secret;1"
#define OTHER  "iqn.2026-11.org.lunfs.test:open"

/* A target that asks for CHAP, and beside it one that does not. */
static struct scene scene_with_chap(void)
{
	struct scene scene = scene_unmounted(0);

	tgt_chap(scene.tgt, 1, USER, "'" SECRET "'");
	tgt_add_target(scene.tgt, 2, OTHER);
	tgt_add_lun(scene.tgt, 2, .lun = 1, .size = MIB(1));
	return scene;
}

static char *configure(struct scene *scene, const char *more)
{
	return site_configure(scene->stage, "%s%s%s",
	    site_section(scene->stage, "open", scene->tgt->portal, OTHER),
	    site_section(scene->stage, "closed", scene->tgt->portal, SCENE_IQN), more);
}

static void must_hide(const char *text)
{
	cr_assert(strstr(text, SECRET) == NULL, "%s", text);
}

Test(secrets, one_in_a_section_logs_in_and_is_seen_nowhere)
{
	struct scene scene = scene_with_chap();
	struct stage *stage = scene.stage;

	configure(&scene, "username=" USER "\npassword=" SECRET "\n");
	char *log = text(stage, "%s/log", stage->dir);
	sh_start(stage, 0, log, log, "sh -c 'cd %s; ulimit -c unlimited; exec %s mount all %s -d'",
	    stage->dir, stage->lunfs, scene.mnt);
	cr_assert(await(patience(10), path_exists, text(stage, "%s/closed/lun1.img", scene.mnt)));
	pid_t daemon = lunfs_daemon();
	must_hide(must(stage, "ps -f -C lunfs")); /* other tests' own commands show theirs */
	must_hide(must_lunfs(stage, "status %s", scene.mnt));
	must_hide(must_lunfs(stage, "status %s --json", scene.mnt));
	must_hide(must(stage, "cat %s/.lunfs/*", scene.mnt));
	must_hide(must(stage, "tr '\\0' '\\n' < /proc/%d/environ", daemon));
	must(stage, "kill -ABRT %d", daemon);
	g_usleep(300000);
	must_hide(must(stage, "cat log"));
	must(stage, "! ls core* 2> ls.log");
}

Test(secrets, a_file_that_others_can_read_is_refused_with_what_to_do)
{
	struct scene scene = scene_with_chap();
	char *path = configure(&scene, "username=" USER "\npassword=" SECRET "\n");
	struct result *result;

	must(scene.stage, "chmod 644 %s", path);
	result = lunfs(scene.stage, "mount closed %s", scene.mnt);
	cr_assert_neq(result->status, 0);
	cr_assert(strstr(result->err, "chmod 600") && strstr(result->err, path), "%s", result->err);
	must_hide(result->err);
}

Test(secrets, a_wrong_one_stops_no_other_target_and_a_reload_mends_it)
{
	struct scene scene = scene_with_chap();
	struct stage *stage = scene.stage;

	configure(&scene, "username=" USER "\npassword=not-the-secret-1\n");
	must(stage, "%s mount all %s 2> messages", stage->lunfs, scene.mnt);
	must(stage, "grep -q 'closed: ' messages && ! grep -q 'open: ' messages");
	cr_assert(exists("%s/open/lun1.img", scene.mnt));
	cr_assert(strstr(site_status(stage, scene.mnt, "T['closed']['trouble']"), "CHAP") != NULL);
	configure(&scene, "username=" USER "\npassword=" SECRET "\n");
	must_lunfs(stage, "reload %s", scene.mnt);
	cr_assert(await(patience(10), path_exists, text(stage, "%s/closed/lun1.img", scene.mnt)));
	must_umount(stage, scene.mnt);
}

Test(secrets, a_missing_file_is_the_trouble_of_one_target)
{
	struct scene scene = scene_with_chap();
	struct stage *stage = scene.stage;

	configure(&scene, "username=" USER "\npassword_file=absent\n");
	must(stage, "%s mount all %s 2> messages", stage->lunfs, scene.mnt);
	must(stage, "grep -q 'closed: .*absent' messages");
	cr_assert(exists("%s/open/lun1.img", scene.mnt));
	must_umount(stage, scene.mnt);
	struct result *result = lunfs(stage, "mount closed %s", scene.mnt);
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "absent") != NULL, "%s", result->err);
}

Test(secrets, systemd_hands_them_over)
{
	struct scene scene = scene_with_chap();
	struct stage *stage = scene.stage;

	configure(&scene, "username=" USER "\n");
	must(stage,
	    "mkdir credentials; printf '%%s' '" SECRET "' > credentials/lunfs.closed.password; "
	    "chmod 440 credentials/*");
	must(stage, "CREDENTIALS_DIRECTORY=%s/credentials %s mount closed %s", stage->dir,
	    stage->lunfs, scene.mnt);
	must_umount(stage, scene.mnt);
}

/* What a person at a terminal sees who types that user, where there is one, and that secret. */
static char *at_terminal(struct scene *scene, const char *user, const char *command)
{
	const char *secret = "a\\\\very=secret;1\\n";
	const char *first =
	    user ? text(scene->stage, "sleep %.1f; echo %s;", patience(0.7), user) : "";

	return must(scene->stage,
	    "(%s sleep %.1f; printf '%%b' '%s'; sleep %.1f) | script -qec \"%s %s\" /dev/null",
	    first, patience(0.7), secret, patience(1), scene->stage->lunfs, command);
}

Test(secrets, the_terminal_is_asked_for_one_that_is_missing_and_does_not_show_it)
{
	struct scene scene = scene_with_chap();

	configure(&scene, "username=" USER "\n");
	char *seen = at_terminal(&scene, NULL, text(scene.stage, "mount closed %s", scene.mnt));
	cr_assert(strstr(seen, USER) != NULL, "%s", seen);
	must_hide(seen);
	cr_assert(is_mounted(scene.mnt), "%s", seen);
	must_umount(scene.stage, scene.mnt);
}

Test(secrets, the_terminal_is_asked_when_a_login_is_refused_for_want_of_one)
{
	struct scene scene = scene_with_chap();

	char *seen = at_terminal(&scene, USER,
	    text(scene.stage, "mount %s %s", tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt));
	must_hide(seen);
	cr_assert(is_mounted(scene.mnt), "%s", seen);
	must_umount(scene.stage, scene.mnt);
}

Test(secrets, without_a_terminal_nobody_is_asked)
{
	struct scene scene = scene_with_chap();
	struct result *result;

	configure(&scene, "username=" USER "\n");
	result = lunfs(scene.stage, "mount closed %s < /dev/null", scene.mnt);
	cr_assert_eq(result->status, 1);
	cr_assert_eq(count_words(result->err, "\n"), 1, "%s", result->err);
	cr_assert(strstr(result->err, "password") != NULL, "%s", result->err);
}
