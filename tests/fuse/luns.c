/*
 * luns.c - LUNs come and go while they are mounted.
 */
#include "support/site.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

TestSuite(luns, .timeout = 180);

static void remove_lun(const struct scene *scene, unsigned lun)
{
	tgt_set(scene->tgt, "--mode logicalunit --op delete --tid 1 --lun %u", lun);
}

static void rescan(const struct scene *scene)
{
	must_lunfs(scene->stage, "rescan %s", scene->mnt);
}

Test(luns, a_new_one_appears_after_a_rescan)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	char *file = text(scene.stage, "%s/lun7.img", scene.mnt);

	must(scene.stage, "! test -e %s", file); /* the kernel remembers that */
	tgt_add_lun(scene.tgt, 1, .lun = 7, .size = MIB(2));
	rescan(&scene);
	cr_assert(exists("%s", file));
	cr_assert_str_eq(must(scene.stage, "stat -c %%s %s", file), "2097152");
	must(scene.stage, "echo new > %s && grep -q new %s/target1-lun7", file, scene.stage->dir);
	must(scene.stage, "ls %s/by-path | grep -q lun-7", scene.mnt);
	must_umount(scene.stage, scene.mnt);
}

Test(luns, a_new_one_appears_when_the_target_says_so)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	char *file = text(scene.stage, "%s/lun2.img", scene.mnt);

	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(2));
	/* tgt tells it with the next command to any LUN (3Fh/0Eh) */
	must(scene.stage, "dd if=%s of=/dev/null bs=4096 count=1 iflag=direct 2> dd.log",
	    scene.file);
	cr_assert(await(patience(5), path_exists, file), "it did not appear");
	must_umount(scene.stage, scene.mnt);
}

Test(luns, a_new_one_appears_by_itself_in_time)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	char *file = text(scene.stage, "%s/lun2.img", scene.mnt);

	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(2));
	cr_assert(await(patience(40), path_exists, file), "it did not appear");
	must_umount(scene.stage, scene.mnt);
}

Test(luns, one_that_is_gone_disappears_and_its_handles_get_eio_and_the_others_notice_nothing)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	char *gone = text(scene.stage, "%s/lun2.img", scene.mnt);
	char byte;

	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(2));
	rescan(&scene);
	int fd = open(gone, O_RDWR), other = open(scene.file, O_RDWR);
	cr_assert(fd >= 0 && other >= 0);
	uint64_t reconnects = status_number(&scene, "reconnects");
	remove_lun(&scene, 2);
	rescan(&scene);
	cr_assert(!exists("%s", gone));
	cr_assert(pread(fd, &byte, 1, 1000000) == -1 && errno == EIO);
	cr_assert(pwrite(fd, &byte, 1, 0) == -1 && errno == EIO);
	cr_assert(pwrite(other, "x", 1, 0) == 1 && fsync(other) == 0);
	must(scene.stage, "! ls %s/by-path | grep lun-2", scene.mnt);
	cr_assert_eq(status_number(&scene, "reconnects"), reconnects);
	close(fd);
	close(other);
	must_umount(scene.stage, scene.mnt);
}

Test(luns, one_that_is_gone_and_comes_back_is_another_file)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	char *path = text(scene.stage, "%s/lun2.img", scene.mnt), byte;

	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(2));
	rescan(&scene);
	int fd = open(path, O_RDWR);
	remove_lun(&scene, 2);
	rescan(&scene);
	must(scene.stage, "rm %s/target1-lun2", scene.stage->dir);
	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(1));
	rescan(&scene);
	cr_assert_str_eq(must(scene.stage, "stat -c %%s %s", path), "1048576");
	must(scene.stage, "echo again > %s", path);
	cr_assert(pread(fd, &byte, 1, 0) == -1 && errno == EIO, "an old handle reads the new LUN");
	close(fd);
	must_umount(scene.stage, scene.mnt);
}

/* In a process of its own: each command that the test runs would flush by closing its copy. */
static int write_and_wait(void *data)
{
	int fd = open(data, O_RDWR);

	if (fd < 0 || pwrite(fd, "kept", 4, 0) != 4)
		return 1;
	pause();
	return 0;
}

static bool is_written(void *scene)
{
	return status_number(scene, "unstable_bytes") > 0;
}

Test(luns, what_is_not_stable_is_waited_for_when_its_lun_goes)
{
	struct scene scene = scene_unmounted(0);
	char *gone = text(scene.stage, "%s/lun1.img", scene.mnt);

	must_lunfs(scene.stage, "mount %s %s -o dirty_expire=1h,replacement_timeout=4s",
	    tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(2));
	rescan(&scene);
	pid_t writer = call_start(0, write_and_wait, gone);
	cr_assert(await(patience(5), is_written, &scene));
	remove_lun(&scene, 1);
	rescan(&scene);
	cr_assert(exists("%s", gone), "it went with what was acknowledged");
	cr_assert(await(patience(15), path_is_gone, gone), "it stays for ever");
	cr_assert_eq(kill(writer, SIGKILL), 0);
	struct result *result = lunfs(scene.stage, "umount %s", scene.mnt);
	cr_assert_eq(result->status, 1, "what was lost is not told");
	cr_assert(strstr(result->err, "lun1.img: bytes 0-511") != NULL, "%s", result->err);
}

Test(luns, a_directory_that_is_watched_tells_of_what_goes)
{
	struct scene scene = scene_with_disk(MIB(4), 0);
	int watch = inotify_init1(IN_NONBLOCK);
	char buffer[4096];

	tgt_add_lun(scene.tgt, 1, .lun = 2, .size = MIB(2));
	rescan(&scene);
	must(scene.stage, "stat %s/lun2.img", scene.mnt);
	cr_assert(inotify_add_watch(watch, text(scene.stage, "%s/lun2.img", scene.mnt),
	              IN_DELETE_SELF | IN_ATTRIB) >= 0);
	remove_lun(&scene, 2);
	rescan(&scene);
	g_usleep(200000);
	cr_assert_gt(read(watch, buffer, sizeof buffer), 0, "a file manager hears nothing");
	close(watch);
	must_umount(scene.stage, scene.mnt);
}

Test(luns, two_hundred_and_fifty_six_are_shown)
{
	struct scene scene = scene_unmounted(0);

	for (unsigned lun = 2; lun <= 256; lun++)
		tgt_add_lun(scene.tgt, 1, .lun = lun, .size = KIB(64));
	double before = seconds_now();
	must_lunfs(scene.stage, "mount %s %s", tgt_url(scene.tgt, SCENE_IQN, -1), scene.mnt);
	printf("256 LUNs: mounted in %.2f s\n", seconds_now() - before);
	cr_assert_str_eq(must(scene.stage, "ls %s/*.img | wc -l", scene.mnt), "256");
	must(scene.stage, "cmp -n 65536 /dev/zero %s/lun256.img", scene.mnt);
	must(scene.stage, "ls %s/by-path | grep -q 'lun-0x4100000000000000'", scene.mnt);
	must(scene.stage, "%s status %s --json | python3 -m json.tool > status.json",
	    scene.stage->lunfs, scene.mnt);
	must_umount(scene.stage, scene.mnt);
}

Test(luns, new_ones_below_one_with_a_fault_are_listed_in_order_and_each_once)
{
	struct scene scene = scene_with_disk(MIB(4), 0);

	/* one with a fault is asked again each time, with the new ones */
	tgt_add_lun(scene.tgt, 1, .lun = 20, .size = MIB(1), .offline = true);
	rescan(&scene);
	for (unsigned lun = 2; lun <= 12; lun++)
		tgt_add_lun(scene.tgt, 1, .lun = lun, .size = KIB(64));
	rescan(&scene);
	cr_assert_str_eq(site_status(scene.stage, scene.mnt,
	                     "[l['lun'] for l in d['targets'][0]['luns'] if l['lun'] > 0]"),
	    "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20]");
	remove_lun(&scene, 20);
	remove_lun(&scene, 2);
	rescan(&scene);
	cr_assert_str_eq(site_status(scene.stage, scene.mnt,
	                     "[l['lun'] for l in d['targets'][0]['luns'] if l['lun'] > 0]"),
	    "[1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]");
	must_umount(scene.stage, scene.mnt);
}

Test(luns, a_section_shows_those_that_it_lists)
{
	struct scene scene = scene_unmounted(0);

	for (unsigned lun = 2; lun <= 5; lun++)
		tgt_add_lun(scene.tgt, 1, .lun = lun, .size = KIB(64));
	site_configure(scene.stage, "%sluns=2;4-5\n",
	    site_section(scene.stage, "some", scene.tgt->portal, SCENE_IQN));
	must_lunfs(scene.stage, "mount some %s", scene.mnt);
	cr_assert_str_eq(
	    must(scene.stage, "cd %s && echo *.img", scene.mnt), "lun2.img lun4.img lun5.img");
	tgt_add_lun(scene.tgt, 1, .lun = 9, .size = KIB(64));
	rescan(&scene);
	cr_assert(!exists("%s/lun9.img", scene.mnt));
	must_umount(scene.stage, scene.mnt);
}
