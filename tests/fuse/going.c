/*
 * going.c - what must not happen when targets and LUNs come, go, and change places.
 */
#include "support/data.h"
#include "support/proxy.h"
#include "support/script_scene.h"
#include "support/site.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

TestSuite(going, .timeout = 120);

#define LENGTH KIB(64)

/* ---- reload ---- */

Test(going, a_reload_of_a_changed_section_leaves_a_mount_on_a_file_usable)
{
	struct scene scene = scene_unmounted(0);
	char *section = text(scene.stage, "%sluns=1\n",
	    site_section(scene.stage, "one", scene.tgt->portal, SCENE_IQN));
	char *file = text(scene.stage, "%s/disk.img", scene.stage->dir);

	site_configure(scene.stage, "%s", section);
	must(scene.stage, "touch %s", file);
	must_lunfs(scene.stage, "mount one %s", file);
	must(scene.stage, "echo before > %s", file);
	site_configure(scene.stage, "%sdirty_expire=1s\n", section);
	lunfs(scene.stage, "reload %s", file);
	g_usleep(500000);
	cr_assert_neq(lunfs_daemon(), 0, "the mount died");
	must(scene.stage, "head -c 6 %s | grep -q before", file);
	must(scene.stage, "echo after > %s", file);
	must_umount(scene.stage, file);
}

/* ---- far away ---- */

Test(going, the_targets_of_a_portal_are_mounted_over_a_link_with_a_long_way)
{
	struct scene scene = scene_of_script(MIB(4));
	char *mnt = stage_directory(scene.stage, "far", 0);

	script_target_latency(scene.script, 700);
	must_lunfs(
	    scene.stage, "mount iscsi://127.0.0.1:%u %s", script_target_port(scene.script), mnt);
	must(scene.stage, "test -e %s/*/lun1.img", mnt);
	must_umount(scene.stage, mnt);
}

/* ---- LUNs change places ---- */

static void must_not_have(struct scene *scene, int opcode, unsigned first, const char *what)
{
	cr_assert_eq(
	    script_scene_count(scene, opcode, first), 0, "%s was sent to a stranger", what);
}

Test(going, another_LUN_of_the_same_number_gets_nothing_when_the_list_has_changed)
{
	struct scene scene = scene_of_script(MIB(8));
	unsigned char *bytes = aligned_buffer(LENGTH), *found = aligned_buffer(MIB(8)),
	              *zeros = aligned_buffer(MIB(8));
	const struct script_identity other = {.naa = 0x60014050000000aa, .serial = "STRANGER"};

	script_target_add_lun(scene.script, 2, MIB(1), 512);
	script_scene_mount(&scene, "dirty_expire=1h");
	int fd = must_open(scene.file, O_RDWR | O_CLOEXEC);
	int other_fd = must_open(text(scene.stage, "%s/lun2.img", scene.mnt), O_RDONLY | O_DIRECT);
	memset(bytes, 0xa5, LENGTH);
	memset(zeros, 0, MIB(8));
	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_identity(scene.script, 1, &other, false);
	script_target_attention(scene.script, 2, 0x3f, 0x0e);
	/* another LUN's command fetches it */
	must_pread(other_fd, bytes, 4096, 0);
	g_usleep(500000);
	cr_assert(fsync(fd) < 0 && errno == EIO);
	script_target_read(scene.script, 1, 0, found, MIB(8), SCRIPT_VOLATILE);
	cr_assert_eq(memcmp(found, zeros, MIB(8)), 0, "a stranger got our data");
}

Test(going, another_LUN_of_the_same_number_that_tells_so_itself_gets_nothing)
{
	struct scene scene = scene_of_script(MIB(8));
	unsigned char *bytes = aligned_buffer(LENGTH), *found = aligned_buffer(MIB(8)),
	              *zeros = aligned_buffer(MIB(8));
	const struct script_identity other = {.naa = 0x60014050000000aa, .serial = "STRANGER"};

	script_scene_mount(&scene, "dirty_expire=1h");
	int fd = must_open(scene.file, O_RDWR);
	memset(bytes, 0xa5, LENGTH);
	memset(zeros, 0, MIB(8));
	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_identity(scene.script, 1, &other, false);
	script_target_attention(scene.script, 1, 0x3f, 0x0e);
	unsigned first = script_target_records(scene.script);
	cr_assert(fsync(fd) < 0 && errno == EIO);
	script_target_read(scene.script, 1, 0, found, MIB(8), SCRIPT_VOLATILE);
	cr_assert_eq(memcmp(found, zeros, MIB(8)), 0, "a stranger got our data");
	must_not_have(&scene, SCRIPT_SYNC, first, "SYNCHRONIZE CACHE");
}

Test(going, a_missed_LUN_s_data_waits_and_does_not_go_to_who_has_its_number_then)
{
	struct scene scene = scene_of_script(MIB(8));
	unsigned char *bytes = aligned_buffer(LENGTH), *found = aligned_buffer(MIB(8)),
	              *zeros = aligned_buffer(MIB(8));
	const struct script_identity other = {.naa = 0x60014050000000aa, .serial = "STRANGER"};

	script_target_add_lun(scene.script, 2, MIB(1), 512);
	script_scene_mount(&scene, "dirty_expire=1s");
	int fd = must_open(scene.file, O_RDWR);
	memset(bytes, 0xa5, LENGTH);
	memset(zeros, 0, MIB(8));
	must_pwrite(fd, bytes, LENGTH, 0);
	script_target_present(scene.script, 1, false);
	must_lunfs(scene.stage, "rescan %s", scene.mnt);
	cr_assert(exists("%s", scene.file));
	g_usleep(1500000); /* written out, in vain */
	script_target_identity(scene.script, 1, &other, false);
	script_target_present(scene.script, 1, true);
	g_usleep(4000000);
	script_target_read(scene.script, 1, 0, found, MIB(8), SCRIPT_VOLATILE);
	cr_assert_eq(memcmp(found, zeros, MIB(8)), 0, "a stranger got our data");
	close(fd);
}

/* ---- one that hangs ---- */

Test(going, a_new_LUN_that_hangs_does_not_cost_the_others_their_session_again_and_again)
{
	struct scene scene = scene_of_script(MIB(8));

	script_scene_mount(&scene, "command_timeout=1s");
	script_target_rule(scene.script,
	    (struct script_rule){.opcode = SCRIPT_ANY, .one_lun = true, .lun = 2, .hang = true});
	script_target_add_lun(scene.script, 2, MIB(1), 512);
	lunfs(scene.stage, "rescan %s", scene.mnt);
	g_usleep(10000000);
	printf("logins %u\n", script_target_logins(scene.script));
	cr_assert_lt(script_target_logins(scene.script), 5);
}

/* ---- twins ---- */

Test(going, a_LUN_that_grew_is_still_one_with_its_second_way)
{
	struct scene scene = scene_of_script(MIB(8));
	struct script_target *script = scene.script;
	const struct script_identity same = {.naa = 0x5001405000000001, .serial = "SCRIPT00001"};

	script_scene_mount(&scene, NULL);
	const char *second = text(scene.stage, "%s/lun2.img", scene.mnt);
	script_target_capacity(script, 1, MIB(16), true);
	must_lunfs(scene.stage, "rescan %s", scene.mnt);
	cr_assert_str_eq(must(scene.stage, "stat -c %%s %s", scene.file), "16777216");
	script_target_add_lun(script, 2, MIB(16), 512);
	script_target_identity(script, 2, &same, false);
	must_lunfs(scene.stage, "rescan %s", scene.mnt);
	cr_assert(exists("%s", second), "%s", must_lunfs(scene.stage, "status %s", scene.mnt));
	must(scene.stage, "echo one > %s", scene.file);
	must(scene.stage, "head -c 3 %s | grep -q one", second);
}

/* ---- a reload while somebody writes ---- */

static int write_late(void *data)
{
	const char **words = data;
	int fd;

	while ((fd = open(words[0], O_RDWR)) < 0)
		g_usleep(10000);
	g_usleep(1000000); /* the flush is under way */
	if (pwrite(fd, "late", 4, 0) != 4)
		return 1;
	g_file_set_contents(words[1], "", 0, NULL);
	pause();
	return 0;
}

static bool has_late(void *data)
{
	char bytes[4] = "";

	return script_target_read(data, 1, 0, bytes, 4, SCRIPT_STABLE) &&
	       memcmp(bytes, "late", 4) == 0;
}

Test(going, what_is_written_while_a_target_departs_is_not_lost)
{
	struct scene scene = scene_of_script(MIB(4));
	char *portal = text(scene.stage, "127.0.0.1:%u", script_target_port(scene.script));
	char *mnt = stage_directory(scene.stage, "all", 0);
	char *one = site_section(scene.stage, "one", portal, SCENE_IQN);
	const char *words[] = {text(scene.stage, "%s/one/lun1.img", mnt),
	    text(scene.stage, "%s/wrote", scene.stage->dir)};

	site_configure(scene.stage, "%s", one);
	must_lunfs(scene.stage, "mount all %s -o dirty_expire=1h", mnt);
	script_target_sense(scene.script, SCRIPT_SYNC, 0, (struct sense){.key = 3, .asc = 0x0c});
	int fd = must_open(words[0], O_RDWR);
	must_pwrite(fd, "early", 5, KIB(64));
	cr_assert(close(fd) != 0); /* so there is something to be flushed */
	script_target_forget_rules(scene.script);
	script_target_rule(scene.script,
	    (struct script_rule){.opcode = SCRIPT_SYNC, .delay_ms = 3000, .times = 2});
	site_configure(
	    scene.stage, "%s", site_section(scene.stage, "other", "127.0.0.1:1", SCENE_IQN));
	sh_start(scene.stage, 0, NULL, NULL, "%s reload %s", scene.stage->lunfs, mnt);
	g_usleep(700000); /* it was not open then */
	call_start(0, write_late, words);
	cr_assert(await(patience(10), path_exists, (void *)words[1]), "it could not write");
	cr_assert(await(patience(15), path_is_gone, text(scene.stage, "%s/one", mnt)));
	cr_assert(await(patience(10), has_late, scene.script), "acknowledged, and lost");
}
