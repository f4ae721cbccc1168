/*
 * loopfs.c - file systems on loop devices over lunN.img: made, filled, checked, and still the same
 * after all was unmounted and mounted again.
 */
#include "support/mount.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

TestSuite(loopfs, .timeout = 240);

/* Does the kernel have it, perhaps as a module? Where not, says so, and the test is skipped. */
static bool kernel_has(struct stage *stage, const char *fs)
{
	sh(stage, "modprobe -q loop; modprobe -q %s", fs);
	if (sh(stage, "test -e /dev/loop-control && grep -qw %s /proc/filesystems", fs)->status ==
	    0)
		return true;
	fprintf(stderr, "*** NOT TESTED: this kernel has no %s, or no loop devices ***\n", fs);
	return false;
}

struct loopfs {
	struct scene scene;
	const char *fs, *losetup_options;
	char *device, *where;
};

static void attach(struct loopfs *l)
{
	l->device =
	    must(l->scene.stage, "losetup --find --show %s %s", l->losetup_options, l->scene.file);
}

static void mount_filesystem(struct loopfs *l)
{
	must(l->scene.stage, "mount -t %s %s %s", l->fs, l->device, l->where);
}

static void check_and_detach(struct loopfs *l)
{
	const char *check = strcmp(l->fs, "ext4") == 0 ? "e2fsck -fn" : "xfs_repair -n";

	must(l->scene.stage, "%s %s", check, l->device);
	must(l->scene.stage, "losetup -d %s", l->device);
}

static void keeps_its_content(const char *fs, const char *losetup_options, uint64_t size)
{
	struct loopfs l = {
	    .scene = scene_with_disk(size, 512), .fs = fs, .losetup_options = losetup_options};
	struct stage *stage = l.scene.stage;

	if (!kernel_has(stage, fs))
		cr_skip_test("no %s here", fs);
	l.where = stage_directory(stage, "inside", 0);
	attach(&l);
	must(stage, "mkfs.%s -q %s", fs, l.device);
	mount_filesystem(&l);
	must(stage,
	    "cd %s && for d in a b c; do mkdir $d && for i in $(seq 40); do "
	    "head -c $((i * i * 311)) /dev/urandom > $d/$i; done; done && rm a/1? && cp -r b e && "
	    "dd if=/dev/urandom of=big bs=1M count=12 conv=fsync status=none && "
	    "truncate -s 3000000 big && find . -type f | sort | xargs sha256sum > %s/sums",
	    l.where, stage->dir);
	must(stage, "umount %s", l.where);
	check_and_detach(&l);
	scene_umount(&l.scene);

	/* the target has it, with nobody of us in between */
	must(stage, strcmp(fs, "ext4") == 0 ? "e2fsck -fn %s" : "xfs_repair -n -f %s",
	    l.scene.backing);

	must_mount_lunfs(stage, tgt_url(l.scene.tgt, SCENE_IQN, -1), NULL);
	attach(&l);
	mount_filesystem(&l);
	must(stage, "cd %s && sha256sum --quiet -c %s/sums", l.where, stage->dir);
	must(stage, "umount %s", l.where);
	check_and_detach(&l);
	scene_umount(&l.scene);
}

Test(loopfs, ext4_keeps_its_content)
{
	keeps_its_content("ext4", "", MIB(96));
}

Test(loopfs, ext4_keeps_its_content_with_direct_io)
{
	keeps_its_content("ext4", "--direct-io=on", MIB(96));
}

Test(loopfs, xfs_keeps_its_content)
{
	keeps_its_content("xfs", "", MIB(320));
}

Test(loopfs, xfs_keeps_its_content_with_direct_io)
{
	keeps_its_content("xfs", "--direct-io=on", MIB(320));
}
