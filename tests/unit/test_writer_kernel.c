/*
 * test_writer_kernel.c - LUNs that the kernel's own initiator has, in a sysfs made of files.
 *
 * The tree is laid out as the kernel's: class/iscsi_session/sessionN is a link to the session, its
 * device a link to the directory above, which has the targets, their LUNs, and their disks.
 */
#include "../../src/mount/writer.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <unistd.h>

#include "lunfs/loop.h"

#define TARGET "iqn.2003-01.org.example:disk"
#define WWID   "naa.60014055b9485a9d4314afc92a5e3b12"

static struct lun_info strong(uint16_t lun)
{
	return (struct lun_info){.lun = lun, .wwid = WWID};
}

static struct lun_info weak(uint16_t lun)
{
	return (struct lun_info){.lun = lun, .wwid = "naa.60000000000000000e00000000010001"};
}

static void file_write(const char *directory, const char *name, const char *line)
{
	g_autofree char *path = g_build_filename(directory, name, NULL);
	g_autofree char *text = g_strconcat(line, "\n", NULL);

	cr_assert_eq(g_mkdir_with_parents(directory, 0700), 0);
	cr_assert(g_file_set_contents(path, text, -1, NULL));
}

static char *sysfs_new(void)
{
	char *sysfs = g_dir_make_tmp("lunfs-test-XXXXXX", NULL);

	cr_assert_not_null(sysfs);
	return sysfs;
}

static void tree_remove(const char *path)
{
	bool directory =
	    g_file_test(path, G_FILE_TEST_IS_DIR) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK);
	GDir *dir = directory ? g_dir_open(path, 0, NULL) : NULL;

	for (const char *name; dir && (name = g_dir_read_name(dir));) {
		g_autofree char *child = g_build_filename(path, name, NULL);
		tree_remove(child);
	}
	if (dir)
		g_dir_close(dir);
	g_remove(path);
}

static void sysfs_free(char *sysfs)
{
	tree_remove(sysfs);
	g_free(sysfs);
}

/* A disk of a session; the session's number is its host's, too. */
static void sysfs_add(const char *sysfs, unsigned session, const char *target, unsigned lun,
    const char *wwid, const char *disk, bool read_only)
{
	g_autofree char *device =
	    g_strdup_printf("%s/devices/platform/host%u/session%u", sysfs, session, session);
	g_autofree char *own = g_strdup_printf("%s/iscsi_session/session%u", device, session);
	g_autofree char *unit =
	    g_strdup_printf("%s/target%u:0:0/%u:0:0:%u", device, session, session, lun);
	g_autofree char *block = g_strdup_printf("%s/block/%s", unit, disk);
	g_autofree char *class = g_build_filename(sysfs, "class", "iscsi_session", NULL);
	g_autofree char *link = g_strdup_printf("%s/session%u", class, session);
	g_autofree char *back = g_build_filename(own, "device", NULL);

	file_write(own, "targetname", target);
	file_write(unit, "wwid", wwid);
	file_write(block, "ro", read_only ? "1" : "0");
	cr_assert_eq(g_mkdir_with_parents(class, 0700), 0);
	if (!g_file_test(link, G_FILE_TEST_EXISTS)) {
		g_autofree char *to = g_strdup_printf(
		    "../../devices/platform/host%u/session%u/iscsi_session/session%u", session,
		    session, session);
		g_autofree char *up = g_strdup_printf("../../../session%u", session);
		cr_assert_eq(symlink(to, link), 0);
		cr_assert_eq(symlink(up, back), 0);
	}
}

static void expect_device(
    const char *sysfs, struct lun_info info, const char *target, const char *expected)
{
	g_autofree char *device = writer_kernel_device(sysfs, &info, target);

	cr_expect_str_eq(device ? device : "none", expected);
}

Test(writer_kernel, finds_nothing_where_the_kernel_has_no_sessions)
{
	char *sysfs = sysfs_new();

	expect_device(sysfs, strong(0), TARGET, "none");
	expect_device("/nonexistent", strong(0), TARGET, "none");
	sysfs_free(sysfs);
}

Test(writer_kernel, finds_a_lun_by_target_and_number)
{
	char *sysfs = sysfs_new();

	sysfs_add(
	    sysfs, 1, "iqn.2003-01.org.example:other", 1, "naa.3000000100000001", "sda", false);
	sysfs_add(sysfs, 2, TARGET, 1, "naa.3000000100000001", "sdb", false);
	sysfs_add(sysfs, 2, TARGET, 12, "naa.3000000100000012", "sdc", false);
	expect_device(sysfs, weak(1), TARGET, "/dev/sdb");
	expect_device(sysfs, weak(12), TARGET, "/dev/sdc");
	expect_device(sysfs, weak(2), TARGET, "none");
	expect_device(sysfs, weak(1), "iqn.2003-01.ORG.example:disk", "/dev/sdb");
	expect_device(sysfs, weak(1), TARGET "2", "none");
	sysfs_free(sysfs);
}

/* A LUN in the flat addressing method (SAM-5, 4.7.7.2): the kernel's number of 300 is 412Ch. */
Test(writer_kernel, finds_a_lun_in_flat_addressing)
{
	char *sysfs = sysfs_new();

	sysfs_add(sysfs, 1, TARGET, 0x4000 | 300, "naa.3000000100000001", "sdb", false);
	expect_device(sysfs, weak(300), TARGET, "/dev/sdb");
	expect_device(sysfs, weak(44), TARGET, "none");
	sysfs_free(sysfs);
}

Test(writer_kernel, finds_a_lun_by_its_designator_through_another_target)
{
	char *sysfs = sysfs_new();

	sysfs_add(sysfs, 1, "iqn.2003-01.org.example:other", 7, WWID, "sdb", false);
	expect_device(sysfs, strong(0), TARGET, "/dev/sdb");
	sysfs_free(sysfs);
}

Test(writer_kernel, does_not_trust_a_weak_designator)
{
	char *sysfs = sysfs_new();

	sysfs_add(sysfs, 1, "iqn.2003-01.org.example:other", 0, weak(0).wwid, "sdb", false);
	expect_device(sysfs, weak(0), TARGET, "none");
	expect_device(sysfs, (struct lun_info){.lun = 0}, TARGET, "none");
	sysfs_free(sysfs);
}

Test(writer_kernel, reads_a_t10_designator_with_its_blanks)
{
	char *sysfs = sysfs_new();
	struct lun_info info = {.wwid = "t10.ACME_Disk_7"};

	sysfs_add(
	    sysfs, 1, "iqn.2003-01.org.example:other", 7, "t10.ACME    Disk   7   ", "sdb", false);
	expect_device(sysfs, info, TARGET, "/dev/sdb");
	sysfs_free(sysfs);
}

Test(writer_kernel, passes_over_devices_that_are_read_only)
{
	char *sysfs = sysfs_new();

	sysfs_add(sysfs, 1, TARGET, 0, WWID, "sdb", true);
	expect_device(sysfs, strong(0), TARGET, "none");
	sysfs_add(sysfs, 2, TARGET, 0, WWID, "sdc", false);
	expect_device(sysfs, strong(0), TARGET, "/dev/sdc");
	sysfs_free(sysfs);
}

/* A changer, or a disk that is just going. */
Test(writer_kernel, passes_over_units_without_a_block_device)
{
	char *sysfs = sysfs_new();

	sysfs_add(sysfs, 1, TARGET, 0, WWID, "sdb", false);
	g_autofree char *block = g_build_filename(
	    sysfs, "devices/platform/host1/session1/target1:0:0/1:0:0:0/block", NULL);
	tree_remove(block);
	expect_device(sysfs, strong(0), TARGET, "none");
	sysfs_free(sysfs);
}

Test(writer_kernel, has_a_lun_that_is_then_refused_but_not_to_the_shared)
{
	char *sysfs = sysfs_new();
	struct loop *loop = loop_new();
	struct writers *writers = writers_new(loop, "/mnt/a", sysfs);
	struct lun_info info = strong((uint16_t)getpid());
	char *who;

	sysfs_add(sysfs, 1, TARGET, info.lun, WWID, "sdb", false);
	cr_assert_null(writer_claim(writers, &info, TARGET, "lun0.img", false, &who));
	cr_assert_str_eq(who, "the kernel's initiator, as /dev/sdb");
	g_free(who);
	struct writer *writer = writer_claim(writers, &info, TARGET, "lun0.img", true, &who);
	cr_assert_not_null(writer);
	cr_assert_null(who);
	writer_free(writer);
	writers_free(writers);
	loop_free(loop);
	sysfs_free(sysfs);
}
