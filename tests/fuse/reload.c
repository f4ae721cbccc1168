/*
 * reload.c - the configuration changes under a mount of 'all'.
 */
#include "support/script_target.h"
#include "support/site.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(reload, .timeout = 120);

#define IQN(n) "iqn.2026-11.org.lunfs.test:t" #n

/* One tgtd with targets t1 to t3, of which the configuration names those of a list. */
struct reload_scene {
	struct stage *stage;
	struct tgt *tgt;
	char *mnt;
};

static void configure(struct reload_scene *scene, const char *names, const char *more)
{
	g_auto(GStrv) list = g_strsplit(names, " ", -1);
	g_autoptr(GString) conf = g_string_new(NULL);

	for (char **name = list; *name; name++)
		g_string_append(
		    conf, site_section(scene->stage, *name, scene->tgt->portal,
		              text(scene->stage, "iqn.2026-11.org.lunfs.test:%s", *name)));
	site_configure(scene->stage, "%s%s", conf->str, more);
}

static struct reload_scene scene_with(const char *names)
{
	struct reload_scene scene = {.stage = stage_new()};

	scene.tgt = tgt_start(scene.stage);
	for (unsigned i = 1; i <= 3; i++) {
		tgt_add_target(
		    scene.tgt, i, text(scene.stage, "iqn.2026-11.org.lunfs.test:t%u", i));
		tgt_add_lun(scene.tgt, i, .lun = 1, .size = MIB(1));
	}
	scene.mnt = stage_directory(scene.stage, "mnt", 0);
	configure(&scene, names, "");
	must_lunfs(scene.stage, "mount all %s", scene.mnt);
	return scene;
}

static char *targets_of(struct reload_scene *scene)
{
	return must(scene->stage, "cd %s && echo t*", scene->mnt);
}

Test(reload, a_section_more_is_a_directory_more)
{
	struct reload_scene scene = scene_with("t1");
	char *file = text(scene.stage, "%s/t2/lun1.img", scene.mnt);

	cr_assert(!exists("%s", file));
	configure(&scene, "t1 t2", "");
	cr_assert_str_eq(must_lunfs(scene.stage, "reload %s", scene.mnt), "added: t2\n");
	cr_assert(await(patience(5), path_exists, file));
	must(scene.stage, "echo two > %s && grep -q two %s/target2-lun1", file, scene.stage->dir);
	must_umount(scene.stage, scene.mnt);
}

Test(reload, a_section_less_is_flushed_logged_out_and_gone_and_the_others_notice_nothing)
{
	struct reload_scene scene = scene_with("t1 t2 t3");
	char *directory = text(scene.stage, "%s/t2", scene.mnt);

	int fd = open(text(scene.stage, "%s/t1/lun1.img", scene.mnt), O_RDWR);
	cr_assert_eq(pwrite(fd, "before", 6, 0), 6);
	must(scene.stage, "echo last > %s/t2/lun1.img", scene.mnt);
	configure(&scene, "t1 t3", "");
	cr_assert_str_eq(must_lunfs(scene.stage, "reload %s", scene.mnt), "removed: t2\n");
	cr_assert(await(patience(10), path_is_gone, directory));
	cr_assert_str_eq(targets_of(&scene), "t1 t3");
	must(scene.stage, "grep -q last %s/target2-lun1", scene.stage->dir);
	cr_assert_eq(pwrite(fd, "after", 5, 0), 5);
	cr_assert_eq(fsync(fd), 0);
	close(fd);
	cr_assert_str_eq(site_status(scene.stage, scene.mnt, "T['t1']['reconnects']"), "0");
	must(scene.stage,
	    "for i in 1 2 3 4 5 6 7 8 9; do %s --mode conn --op show --tid 2 | grep -q . || exit "
	    "0; "
	    "sleep 0.3; done; exit 1",
	    scene.tgt->admin);
	must_umount(scene.stage, scene.mnt);
}

Test(reload, a_target_with_an_open_file_stays_and_is_told_of)
{
	struct reload_scene scene = scene_with("t1 t2");
	struct result *result;

	int fd = open(text(scene.stage, "%s/t2/lun1.img", scene.mnt), O_RDONLY);
	configure(&scene, "t1", "");
	result = lunfs(scene.stage, "reload %s", scene.mnt);
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "t2") && strstr(result->err, "in use"), "%s", result->err);
	cr_assert_str_eq(targets_of(&scene), "t1 t2");
	close(fd);
	g_usleep(100000);
	cr_assert_str_eq(must_lunfs(scene.stage, "reload %s", scene.mnt), "removed: t2\n");
	must_umount(scene.stage, scene.mnt);
}

Test(reload, a_changed_section_is_dialed_anew)
{
	struct reload_scene scene = scene_with("t1 t2");

	configure(&scene, "t1 t2", "ro=yes\n");
	must_lunfs(scene.stage, "reload %s", scene.mnt);
	for (double end = seconds_now() + patience(10);
	     !exists("%s/t2/lun1.img", scene.mnt) && seconds_now() < end;)
		g_usleep(20000);
	cr_assert_str_eq(must(scene.stage, "stat -c %%a %s/t2/lun1.img", scene.mnt), "400");
	cr_assert_str_eq(must(scene.stage, "stat -c %%a %s/t1/lun1.img", scene.mnt), "600");
	must_umount(scene.stage, scene.mnt);
}

Test(reload, a_broken_configuration_changes_nothing_and_is_told_with_its_line)
{
	struct reload_scene scene = scene_with("t1 t2");
	struct result *result;

	configure(&scene, "t1", "prtal=elsewhere\n");
	result = lunfs(scene.stage, "reload %s", scene.mnt);
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "lunfs.conf:4") && strstr(result->err, "portal"), "%s",
	    result->err);
	cr_assert_str_eq(targets_of(&scene), "t1 t2");
	must_umount(scene.stage, scene.mnt);
}

Test(reload, the_hangup_signal_does_the_same)
{
	struct reload_scene scene = scene_with("t1");

	configure(&scene, "t1 t2", "");
	cr_assert_eq(kill(lunfs_daemon(), SIGHUP), 0);
	cr_assert(await(patience(5), path_exists, text(scene.stage, "%s/t2/lun1.img", scene.mnt)));
	must_umount(scene.stage, scene.mnt);
}

Test(reload, a_portal_is_asked_again)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = tgt_start(stage);
	char *mnt = stage_directory(stage, "mnt", 0);

	tgt_add_target(tgt, 1, IQN(1));
	tgt_add_lun(tgt, 1, .lun = 1, .size = MIB(1));
	must_lunfs(stage, "mount iscsi://%s %s", tgt->portal, mnt);
	tgt_add_target(tgt, 2, IQN(2));
	tgt_add_lun(tgt, 2, .lun = 1, .size = MIB(1));
	must_lunfs(stage, "reload %s", mnt);
	cr_assert(await(patience(5), path_exists, text(stage, "%s/" IQN(2) "/lun1.img", mnt)));
	must_umount(stage, mnt);
}

/* ---- a hangup during a reload ---- */

struct attempts {
	struct script_target *target;
	bool discovery;
	unsigned count;
};

static bool were_made(void *data)
{
	const struct attempts *wanted = data;
	struct script_login login;
	unsigned count = 0;

	for (unsigned i = 0; script_target_login_attempt(wanted->target, i, &login); i++)
		count += login.discovery == wanted->discovery;
	return count >= wanted->count;
}

/* A reload that begins now stays under way until script_target_drop(): its login is the second. */
static void hang_up_and_hang(struct script_target *target, bool discovery)
{
	struct attempts second = {.target = target, .discovery = discovery, .count = 2};

	script_target_login_rule(
	    target, (struct script_login_rule){
	                .deed = SCRIPT_LOGIN_HANG, .discovery = discovery, .times = 1});
	cr_assert_eq(kill(lunfs_daemon(), SIGHUP), 0);
	cr_assert(await(patience(10), were_made, &second));
}

static bool may_be_written(void *file)
{
	struct stat stat_of;

	return stat(file, &stat_of) == 0 && (stat_of.st_mode & 0777) == 0600;
}

Test(reload, a_hangup_during_another_is_not_forgotten_when_a_client_asks_meanwhile)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(IQN(1));
	char *mnt = stage_directory(stage, "mnt", 0);
	char *section = site_section(
	    stage, "t1", text(stage, "127.0.0.1:%u", script_target_port(target)), IQN(1));

	script_target_add_lun(target, 1, MIB(1), 512);
	site_configure(stage, "%slogin_timeout=60s\n", section);
	must_lunfs(stage, "mount t1 %s", mnt);
	site_configure(stage, "%slogin_timeout=60s\nro=yes\n", section);
	hang_up_and_hang(target, false);

	site_configure(stage, "%slogin_timeout=60s\n", section);
	cr_assert_eq(kill(lunfs_daemon(), SIGHUP), 0);
	g_usleep(100000); /* it comes before the client, or there is nothing to forget */
	struct result *result = lunfs(stage, "reload %s", mnt);
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "still under way"), "%s", result->err);
	script_target_drop(target, SCRIPT_RST);
	cr_assert(await(patience(20), may_be_written, text(stage, "%s/lun1.img", mnt)));
	must_umount(stage, mnt);
	script_target_stop(target);
}

Test(reload, a_hangup_during_another_that_fails_is_not_forgotten)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(IQN(1));
	struct attempts third = {.target = target, .discovery = true, .count = 3};
	char *mnt = stage_directory(stage, "mnt", 0);

	script_target_add_lun(target, 1, MIB(1), 512);
	must_lunfs(stage, "mount iscsi://127.0.0.1:%u %s -o login_timeout=60s",
	    script_target_port(target), mnt);
	hang_up_and_hang(target, true);
	cr_assert_eq(kill(lunfs_daemon(), SIGHUP), 0);
	g_usleep(100000);
	script_target_drop(target, SCRIPT_RST);
	cr_assert(await(patience(20), were_made, &third), "the portal is not asked again");
	must_umount(stage, mnt);
	script_target_stop(target);
}

Test(reload, again_and_again_leaves_nothing_behind)
{
	struct reload_scene scene = scene_with("t1 t2 t3");

	for (unsigned i = 0; i < 2 * scaled(10); i++) {
		configure(&scene, i % 2 == 0 ? "t1" : "t1 t2 t3", "");
		for (double end = seconds_now() + patience(10); seconds_now() < end;) {
			if (lunfs(scene.stage, "reload %s", scene.mnt)->status == 0)
				break; /* the last one may be under way */
			g_usleep(50000);
		}
	}
	for (double end = seconds_now() + patience(10);
	     !exists("%s/t3/lun1.img", scene.mnt) && seconds_now() < end;)
		g_usleep(20000);
	cr_assert_str_eq(targets_of(&scene), "t1 t2 t3");
	must(scene.stage,
	    "for t in t1 t2 t3; do cmp -n 1048576 /dev/zero %s/$t/lun1.img || exit 1; done",
	    scene.mnt);
	must_umount(scene.stage, scene.mnt);
}
