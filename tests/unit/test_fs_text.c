/*
 * test_fs_text.c - files whose text is made when somebody looks. Each time that it is made it is
 * one byte longer, of another letter: who gets parts of two, or not all of one, is found out.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/fs_scene.h"

TestSuite(fs_text, .timeout = 60);

#define LENGTH ((uint64_t)100000)

/* It is all of one text. */
static void must_be_whole(const char *bytes, size_t length)
{
	cr_assert_geq(length, LENGTH);
	for (size_t i = 0; i < length; i++)
		cr_assert_eq(bytes[i], 'a' + (int)(length % 26), "byte %zu of %zu", i, length);
}

static void must_be_copied_by(const char *command)
{
	struct fs_scene scene = fs_scene_new();
	char *copy = text(scene.stage, "%s/copy", scene.stage->dir);

	change(&scene, ADD_DIRECTORY, ".lunfs", 0, NULL);
	change(&scene, ADD_TEXT, ".lunfs/status", LENGTH, NULL);
	char *file = path_of(&scene, ".lunfs/status");
	for (unsigned i = 0; i < 4; i++) {
		g_autofree char *bytes = NULL;
		gsize length;

		must(scene.stage, "F=%s C=%s; %s", file, copy, command);
		cr_assert(g_file_get_contents(copy, &bytes, &length, NULL));
		must_be_whole(bytes, length);
		g_usleep(i % 2 ? 0 : 250000); /* the size that was told is an old one, or not */
	}
	fs_scene_end(&scene);
}

Test(fs_text, cp_copies_it_whole)
{
	must_be_copied_by("cp $F $C");
}

Test(fs_text, cat_copies_it_whole)
{
	must_be_copied_by("cat $F > $C");
}

Test(fs_text, dd_copies_it_whole)
{
	must_be_copied_by("dd if=$F of=$C bs=1000 2>&1");
}

Test(fs_text, grep_copies_it_whole)
{
	must_be_copied_by("grep -h . $F | tr -d '\\n' > $C");
}

Test(fs_text, install_copies_it_whole)
{
	must_be_copied_by("install $F $C");
}

/* As wc and tail do, which seek by the size. */
Test(fs_text, the_size_is_that_of_what_is_open)
{
	struct fs_scene scene = fs_scene_new();
	g_autofree char *bytes = g_malloc(2 * LENGTH);
	struct stat stat;

	change(&scene, ADD_TEXT, "status", LENGTH, NULL);
	for (unsigned i = 0; i < 5; i++) {
		int fd = must_open(path_of(&scene, "status"), O_RDONLY);

		g_usleep(i * 70000); /* others look at it meanwhile */
		must(scene.stage, "stat %s", path_of(&scene, "status"));
		cr_assert_eq(fstat(fd, &stat), 0);
		cr_assert_eq(lseek(fd, 0, SEEK_END), stat.st_size);
		cr_assert_eq(pread(fd, bytes, (size_t)2 * LENGTH, 0), stat.st_size);
		must_be_whole(bytes, (size_t)stat.st_size);
		cr_assert_eq(pread(fd, bytes, 10, stat.st_size), 0);
		cr_assert_eq(pread(fd, bytes, 10, stat.st_size - 3), 3);
		cr_assert_eq(pread(fd, bytes, 10, 3 * (off_t)LENGTH), 0);
		cr_assert_eq(stat.st_blocks, (stat.st_size + 511) / 512);
		close(fd);
		g_autofree char *count = g_strdup_printf(
		    "%s", must(scene.stage, "wc -c < %s; stat -c %%s %s", path_of(&scene, "status"),
		              path_of(&scene, "status")));
		cr_assert(strlen(count) > 10);
	}
	fs_scene_end(&scene);
}

/* As rsync and tar do: as many bytes as they were told of, before they opened it. */
Test(fs_text, what_is_opened_at_once_is_as_long_as_stat_said)
{
	struct fs_scene scene = fs_scene_new();
	g_autofree char *bytes = g_malloc(2 * LENGTH);
	unsigned same = 0;

	change(&scene, ADD_TEXT, "status", LENGTH, NULL);
	for (unsigned i = 0; i < 10; i++) {
		struct stat before;

		g_usleep(250000);
		cr_assert_eq(lstat(path_of(&scene, "status"), &before), 0);
		int fd = must_open(path_of(&scene, "status"), O_RDONLY);
		ssize_t length = read(fd, bytes, (size_t)2 * LENGTH);
		must_be_whole(bytes, (size_t)length);
		same += length == before.st_size;
		close(fd);
	}
	cr_assert_geq(same, 5, "%u of 10", same);
	cr_assert_leq(tell(&scene, TEXTS, 0, 0), 20);
	must(scene.stage, "cd %s && tar -cf - status | tar -tvf -", scene.mnt);
	fs_scene_end(&scene);
}

Test(fs_text, what_was_opened_stays_as_it_was)
{
	struct fs_scene scene = fs_scene_new();
	char first[10], later[10];

	change(&scene, ADD_TEXT, "status", LENGTH, NULL);
	int fd = must_open(path_of(&scene, "status"), O_RDONLY);
	cr_assert_eq(pread(fd, first, 10, 5000), 10);
	g_usleep(250000);
	int other = must_open(path_of(&scene, "status"), O_RDONLY);
	cr_assert_eq(pread(fd, later, 10, 5000), 10);
	cr_assert_eq(memcmp(first, later, 10), 0);
	cr_assert_eq(pread(other, later, 10, 5000), 10);
	cr_assert_neq(memcmp(first, later, 10), 0);
	close(fd);
	cr_assert_eq(pread(other, first, 10, 50000), 10);
	cr_assert_eq(memcmp(first, later, 10), 0);
	close(other);
	fs_scene_end(&scene);
}

Test(fs_text, its_time_is_that_of_its_last_change)
{
	struct fs_scene scene = fs_scene_new();
	struct stat before, after;

	change(&scene, ADD_TEXT, "status", LENGTH, NULL);
	cr_assert_eq(stat(path_of(&scene, "status"), &before), 0);
	g_usleep(250000);
	cr_assert_eq(stat(path_of(&scene, "status"), &after), 0);
	cr_assert_gt(after.st_size, before.st_size);
	cr_assert(after.st_mtim.tv_sec > before.st_mtim.tv_sec ||
	          after.st_mtim.tv_nsec > before.st_mtim.tv_nsec);
	fs_scene_end(&scene);
}

Test(fs_text, nobody_writes_it)
{
	struct fs_scene scene = fs_scene_new();

	change(&scene, ADD_TEXT, "status", LENGTH, NULL);
	char *path = path_of(&scene, "status");
	cr_assert_eq(chmod(path, 0666), 0);
	static const int modes[] = {O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_RDWR | O_APPEND};
	for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
		cr_assert_eq(open(path, modes[i] | O_CLOEXEC), -1);
		cr_assert_eq(errno, EACCES);
	}
	cr_assert_eq(truncate(path, 0), -1);
	cr_assert_eq(errno, EACCES);
	int fd = must_open(path, O_RDONLY);
	cr_assert_eq(fsync(fd), 0);
	cr_assert_eq(close(fd), 0);
	cr_assert_neq(unlink(path), 0);
	fs_scene_end(&scene);
}

Test(fs_text, it_may_be_empty_or_large)
{
	struct fs_scene scene = fs_scene_new();
	struct stat stat;

	change(&scene, ADD_TEXT, "empty", 0, NULL);
	change(&scene, ADD_TEXT, "large", MIB(1), NULL);
	cr_assert_str_eq(must(scene.stage, "cat %s", path_of(&scene, "empty")), "");
	int fd = must_open(path_of(&scene, "large"), O_RDONLY);
	cr_assert_eq(fstat(fd, &stat), 0);
	cr_assert_geq(stat.st_size, (off_t)MIB(1));
	char *mapped = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_neq(mapped, MAP_FAILED);
	must_be_whole(mapped, (size_t)stat.st_size);
	munmap(mapped, (size_t)stat.st_size);
	close(fd);
	g_autofree char *size =
	    g_strdup(must(scene.stage, "cat %s | wc -c", path_of(&scene, "large")));
	cr_assert_geq(atoll(size), (long long)MIB(1));
	fs_scene_end(&scene);
}

static bool is_not_there(void *path)
{
	return access(path, F_OK) != 0 && errno == ENOENT;
}

Test(fs_text, who_has_a_removed_one_open_reads_on)
{
	struct fs_scene scene = fs_scene_new();
	g_autofree char *bytes = g_malloc(2 * LENGTH);
	struct stat stat;

	change(&scene, ADD_TEXT, "status", LENGTH, NULL);
	int fd = must_open(path_of(&scene, "status"), O_RDONLY);
	change(&scene, REMOVE, "status", 0, NULL);
	must_come_to_say(&scene, RELEASED, 1);
	g_usleep(250000);
	int64_t made = tell(&scene, TEXTS, 0, 0);
	cr_assert_eq(fstat(fd, &stat), 0);
	cr_assert_eq(pread(fd, bytes, (size_t)2 * LENGTH, 0), stat.st_size);
	must_be_whole(bytes, (size_t)stat.st_size);
	cr_assert(await(5, is_not_there, path_of(&scene, "status")));
	cr_assert_eq(tell(&scene, TEXTS, 0, 0), made, "who makes it is gone");
	close(fd);
	fs_scene_end(&scene);
}
