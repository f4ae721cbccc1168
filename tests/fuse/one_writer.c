/*
 * one_writer.c - a LUN is written to through one mount of this host.
 */
#include "support/site.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(one_writer, .timeout = 120);

/* The scene's LUN, on a second directory. */
static struct result *mount_again(struct scene *scene, uid_t uid, const char *options)
{
	char *mnt = stage_directory(scene->stage, "again", uid);

	return lunfs_as(scene->stage, uid, "mount %s %s -o %s", tgt_url(scene->tgt, SCENE_IQN, -1),
	    mnt, options);
}

static void unmount_again(struct scene *scene)
{
	must_umount(scene->stage, text(scene->stage, "%s/again", scene->stage->dir));
}

Test(one_writer, a_second_mount_is_refused_and_told_who_has_it)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	struct result *result = mount_again(&scene, 0, "rw");

	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, scene.mnt) != NULL, "%s", result->err);
	cr_assert(strstr(result->err, text(scene.stage, "pid %d", lunfs_daemon())) != NULL, "%s",
	    result->err);
	cr_assert_eq(count_words(result->err, "\n"), 1, "%s", result->err);
	must_umount(scene.stage, scene.mnt);
	cr_assert_eq(mount_again(&scene, 0, "rw")->status, 0);
	unmount_again(&scene);
}

Test(one_writer, another_user_is_refused_too)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	struct result *result = mount_again(&scene, ORDINARY_USER, "rw");

	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "user root") != NULL, "%s", result->err);
	must_umount(scene.stage, scene.mnt);
}

Test(one_writer, a_reader_is_let_in)
{
	struct scene scene = scene_with_disk(MIB(4), 0);

	cr_assert_eq(mount_again(&scene, 0, "ro")->status, 0);
	unmount_again(&scene);
	must_umount(scene.stage, scene.mnt);
}

Test(one_writer, shared_overrides_and_keeps_the_others_out)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	struct result *result;

	result = mount_again(&scene, 0, "shared");
	cr_assert_eq(result->status, 0, "%s", result->err);
	must_umount(scene.stage, scene.mnt);
	/* the one that is shared still writes */
	result = lunfs(scene.stage, "mount %s %s", tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	cr_assert_eq(result->status, 1, "a writer was let in beside one that shares");
	unmount_again(&scene);
}

Test(one_writer, a_killed_one_holds_nothing)
{
	struct scene scene = scene_with_disk(MIB(4), 0);

	must(scene.stage, "kill -9 %d", lunfs_daemon());
	g_usleep(200000);
	cr_assert_eq(mount_again(&scene, 0, "rw")->status, 0);
	unmount_again(&scene);
}

Test(one_writer, of_several_luns_the_free_ones_are_shown_and_the_other_when_it_is_free)
{
	struct scene scene = scene_unmounted(0);
	char *again = text(scene.stage, "%s/again", scene.stage->dir);

	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(1));
	must_lunfs(scene.stage, "mount %s %s", tgt_url(scene.tgt, SCENE_IQN, 2), scene.mnt);
	cr_assert_eq(mount_again(&scene, 0, "rw")->status, 0);
	cr_assert_str_eq(must(scene.stage, "cd %s && echo *.img", again), "lun1.img");
	must(scene.stage, "%s status %s | grep 'in use for writing' | grep -q %s",
	    scene.stage->lunfs, again, scene.mnt);
	must_umount(scene.stage, scene.mnt);
	must_lunfs(scene.stage, "rescan %s", again);
	cr_assert_str_eq(must(scene.stage, "cd %s && echo *.img", again), "lun1.img lun2.img");
	unmount_again(&scene);
}

Test(one_writer, one_lun_in_two_sections_is_not_shown_twice)
{
	struct scene scene = scene_unmounted(0);

	site_configure(scene.stage, "%s%s",
	    site_section(scene.stage, "first", scene.tgt->portal, SCENE_IQN),
	    site_section(scene.stage, "second", scene.tgt->portal, SCENE_IQN));
	must(scene.stage, "%s mount all %s 2> messages", scene.stage->lunfs, scene.mnt);
	cr_assert_str_eq(must(scene.stage, "ls %s/*/lun1.img | wc -l", scene.mnt), "1");
	must(scene.stage, "grep -q 'lun1: not shown: it is .*/lun1.img already' messages");
	must_umount(scene.stage, scene.mnt);
}
