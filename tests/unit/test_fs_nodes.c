/*
 * test_fs_nodes.c - files and directories that come and go in a real mount: names, the kernel's
 * memory of them, listings, links, owners.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/fs_scene.h"

TestSuite(fs_nodes, .timeout = 120);

static struct stat must_lstat(const char *path)
{
	struct stat stat;

	cr_assert_eq(lstat(path, &stat), 0, "%s: %s", path, strerror(errno));
	return stat;
}

/* ---- names ---- */

Test(fs_nodes, what_is_added_is_there_for_who_found_nothing_before)
{
	struct fs_scene scene = fs_scene_new();

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	for (unsigned i = 0; i < 200; i++) {
		g_autofree char *name = g_strdup_printf("t/%u", i);
		char *path = path_of(&scene, name);
		struct stat stat;

		cr_assert_eq(lstat(path, &stat), -1);
		cr_assert_eq(errno, ENOENT);
		change(&scene, i % 2 ? ADD_DIRECTORY : ADD_DISK, name, i % 2 ? 0 : 2, NULL);
		cr_assert_eq(lstat(path, &stat), 0, "%s: %s", path, strerror(errno));
		cr_assert_eq(change(&scene, HAS_NAME, name, 0, NULL), 1);
	}
	fs_scene_end(&scene);
}

static bool is_not_found(void *path)
{
	struct stat stat;

	return lstat(path, &stat) != 0 && errno == ENOENT;
}

static unsigned count_entries(const char *path)
{
	unsigned count = 0;
	DIR *dir = opendir(path);

	if (dir == NULL)
		return 0;
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count - 2;
}

Test(fs_nodes, what_is_removed_is_gone_also_where_it_was_known)
{
	struct fs_scene scene = fs_scene_new();
	char *directory = path_of(&scene, "t"), *file = path_of(&scene, "t/a/b.img");

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DIRECTORY, "t/a", 0, NULL);
	change(&scene, ADD_DISK, "t/a/b.img", FS_OWN, NULL);
	must_lstat(file);
	cr_assert_eq(count_entries(directory), 1);
	change(&scene, REMOVE, "t/a", 0, NULL);
	cr_assert_eq(count_entries(directory), 0, "listings are made anew each time");
	cr_assert_eq(change(&scene, HAS_NAME, "t/a", 0, NULL), 0);
	cr_assert(await(5, is_not_found, file));
	cr_assert(await(5, is_not_found, path_of(&scene, "t/a")));
	must_lstat(directory);
	fs_scene_end(&scene);
}

static bool has_links(void *data)
{
	const struct access *access = data;

	return must_lstat(access->path).st_nlink == access->length;
}

static void must_come_to_have_links(const char *path, size_t count)
{
	struct access access = {.path = path, .length = count};

	cr_assert(await(5, has_links, &access), "%lu and not %zu",
	    (unsigned long)must_lstat(path).st_nlink, count);
}

Test(fs_nodes, a_directorys_links_and_times_follow_what_is_in_it)
{
	struct fs_scene scene = fs_scene_new();
	char *directory = path_of(&scene, "t");

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	struct stat before = must_lstat(directory);
	cr_assert_eq(before.st_nlink, 2u);
	g_usleep(20000);
	change(&scene, ADD_DIRECTORY, "t/a", 0, NULL);
	must_come_to_have_links(directory, 3);
	struct stat after = must_lstat(directory);
	cr_assert_gt(after.st_mtim.tv_sec * 1000000000 + after.st_mtim.tv_nsec,
	    before.st_mtim.tv_sec * 1000000000 + before.st_mtim.tv_nsec);
	change(&scene, ADD_DISK, "t/b", 2, NULL);
	change(&scene, REMOVE, "t/a", 0, NULL);
	must_come_to_have_links(directory, 2);
	fs_scene_end(&scene);
}

static ino_t ino_of(const char *path)
{
	return must_lstat(path).st_ino;
}

static bool opens_and_writes(void *path)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0) {
		cr_assert_eq(errno, ENOENT, "%s", strerror(errno));
		return false;
	}
	cr_assert_eq(write_page(fd, 0, 1), 0);
	close(fd);
	return true;
}

Test(fs_nodes, who_opens_a_name_gets_what_has_it_now)
{
	struct fs_scene scene = fs_scene_new();
	char *path = path_of(&scene, "x.img"), *deep = path_of(&scene, "t/x.img");

	change(&scene, ADD_DISK, "x.img", FS_OWN, NULL);
	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DISK, "t/x.img", FS_OWN, NULL);
	ino_t ino = ino_of(path);
	for (unsigned i = 0; i < scaled(300); i++) {
		change(&scene, REPLACE, "x.img", FS_OWN, NULL);
		int fd = must_open(path, O_RDWR | O_DIRECT);
		cr_assert_eq(read_byte(fd, 0), 0, "round %u", i);
		cr_assert_eq(write_page(fd, 0, 1), 0, "round %u", i);
		close(fd);
		cr_assert_eq(ino_of(path), ino);
		/* Who was on his way through a directory that is then gone finds nothing in it. */
		change(&scene, REMOVE, "t", 0, NULL);
		change(&scene, ADD_DIRECTORY, "t", 0, NULL);
		change(&scene, ADD_DISK, "t/x.img", FS_OWN, NULL);
		cr_assert(await(5, opens_and_writes, deep), "round %u", i);
	}
	must_come_to_say(&scene, RELEASED, 2 * scaled(300));
	fs_scene_end(&scene);
}

/* ---- who holds nodes ---- */

static bool has_nodes(void *data)
{
	const struct access *access = data;

	return tell((const struct fs_scene *)access->path, NODES, 0, 0) == (int64_t)access->length;
}

static void must_come_to_nodes(const struct fs_scene *scene, int64_t count)
{
	struct access access = {.path = (const char *)scene, .length = (size_t)count};

	cr_assert(await(10, has_nodes, &access), "%ld nodes and not %ld",
	    (long)tell(scene, NODES, 0, 0), (long)count);
}

Test(fs_nodes, what_is_removed_is_freed_when_nobody_knows_it)
{
	struct fs_scene scene = fs_scene_new();
	int64_t nodes = tell(&scene, NODES, 0, 0);
	char name[32];

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof name, "t/%u", i);
		change(&scene, ADD_DISK, name, FS_OWN, NULL);
		must_lstat(path_of(&scene, name));
	}
	cr_assert_eq(tell(&scene, NODES, 0, 0), nodes + 51);
	int fd = must_open(path_of(&scene, "t/7"), O_RDWR);
	cr_assert_eq(read_byte(fd, 0), 0);
	change(&scene, REMOVE, "t", 0, NULL);
	must_come_to_nodes(&scene, nodes + 2); /* what is open, and where that was */
	cr_assert_eq(tell(&scene, RELEASED, 0, 0), 1);
	close(fd);
	must_come_to_nodes(&scene, nodes);
	fs_scene_end(&scene);
}

Test(fs_nodes, what_was_never_looked_up_is_freed_at_once)
{
	struct fs_scene scene = fs_scene_new();
	int64_t nodes = tell(&scene, NODES, 0, 0);

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_LINK, "t/a", 0, "b");
	change(&scene, ADD_TEXT, "t/b", 3, NULL);
	change(&scene, REMOVE, "t", 0, NULL);
	cr_assert_eq(tell(&scene, NODES, 0, 0), nodes);
	cr_assert_eq(tell(&scene, RELEASED, 0, 0), 1);
	fs_scene_end(&scene);
}

Test(fs_nodes, what_the_kernel_forgot_is_found_again)
{
	struct fs_scene scene = fs_scene_new();
	int64_t nodes = tell(&scene, NODES, 0, 0);
	char name[32];

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 50; i++) {
			snprintf(name, sizeof name, "t/%u", i);
			if (round == 0)
				change(&scene, ADD_DISK, name, 2, NULL);
			must_lstat(path_of(&scene, name));
		}
		sh(scene.stage, "echo 2 > /proc/sys/vm/drop_caches");
		cr_assert_eq(tell(&scene, NODES, 0, 0), nodes + 51);
	}
	change(&scene, REMOVE, "t", 0, NULL);
	must_come_to_nodes(&scene, nodes);
	fs_scene_end(&scene);
}

Test(fs_nodes, statfs_counts_what_is_there)
{
	struct fs_scene scene = fs_scene_new();
	struct statvfs before, after;

	cr_assert_eq(statvfs(scene.mnt, &before), 0);
	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DISK, "t/a", FS_OWN, NULL);
	int fd = must_open(path_of(&scene, "t/a"), O_RDWR);
	cr_assert_eq(statvfs(scene.mnt, &after), 0);
	cr_assert_eq(after.f_files, before.f_files + 2);
	change(&scene, REMOVE, "t", 0, NULL);
	cr_assert_eq(statvfs(scene.mnt, &after), 0);
	cr_assert_eq(after.f_files, before.f_files);
	close(fd);
	fs_scene_end(&scene);
}

/* ---- listings ---- */

enum { STAY = 300 };

struct listing {
	int fd;
	unsigned seen[STAY];
	unsigned total;
};

struct linux_dirent64 {
	ino64_t ino;
	off64_t offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

/* Some entries more, as they come; false at the end. */
static bool list_some(struct listing *listing)
{
	_Alignas(8) char buffer[512];
	long n = syscall(SYS_getdents64, listing->fd, buffer, sizeof buffer);

	cr_assert_geq(n, 0, "%s", strerror(errno));
	for (long at = 0; at < n;) {
		const struct linux_dirent64 *entry = (void *)(buffer + at);

		if (strncmp(entry->name, "stays-", 6) == 0)
			listing->seen[atoi(entry->name + 6)]++;
		listing->total++;
		at += entry->length;
	}
	return n > 0;
}

Test(fs_nodes, a_listing_neither_skips_nor_repeats_what_stays)
{
	struct fs_scene scene = fs_scene_new();
	struct dice dice = {.state = 1};
	char name[64];

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	for (unsigned i = 0; i < STAY; i++) {
		snprintf(name, sizeof name, "t/stays-%u", i);
		change(&scene, ADD_LINK, name, 0, "x");
		snprintf(name, sizeof name, "t/goes-%u", i);
		change(&scene, ADD_LINK, name, 0, "x");
	}
	for (unsigned round = 0; round < 3; round++) {
		struct listing listing = {
		    .fd = must_open(path_of(&scene, "t"), O_RDONLY | O_DIRECTORY)};

		for (unsigned step = 0; list_some(&listing); step++) {
			uint64_t i = dice_roll(&dice) % STAY;

			snprintf(name, sizeof name, "t/goes-%u", (unsigned)i);
			if (change(&scene, HAS_NAME, name, 0, NULL))
				change(&scene, REMOVE, name, 0, NULL);
			else if (step < 100) /* these come at the end */
				change(&scene, ADD_LINK, name, 0, "x");
		}
		for (unsigned i = 0; i < STAY; i++)
			cr_assert_eq(listing.seen[i], 1, "%u: %u", i, listing.seen[i]);
		close(listing.fd);
	}
	fs_scene_end(&scene);
}

Test(fs_nodes, a_listing_goes_on_where_an_entry_was)
{
	struct fs_scene scene = fs_scene_new();

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_LINK, "t/1", 0, "x");
	change(&scene, ADD_LINK, "t/2", 0, "x");
	change(&scene, ADD_LINK, "t/3", 0, "x");
	DIR *dir = opendir(path_of(&scene, "t"));
	for (unsigned i = 0; i < 3; i++)
		readdir(dir);
	long after_1 = telldir(dir);
	cr_assert_str_eq(readdir(dir)->d_name, "2");
	change(&scene, REMOVE, "t/1", 0, NULL);
	change(&scene, REMOVE, "t/2", 0, NULL);
	seekdir(dir, after_1);
	cr_assert_str_eq(readdir(dir)->d_name, "3");
	change(&scene, ADD_LINK, "t/1", 0, "x");
	seekdir(dir, after_1);
	cr_assert_str_eq(readdir(dir)->d_name, "3");
	cr_assert_str_eq(readdir(dir)->d_name, "1");
	closedir(dir);
	fs_scene_end(&scene);
}

Test(fs_nodes, a_removed_directory_is_empty_for_who_is_in_it)
{
	struct fs_scene scene = fs_scene_new();
	struct stat stat;

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_LINK, "t/1", 0, "x");
	int fd = must_open(path_of(&scene, "t"), O_RDONLY | O_DIRECTORY);
	cr_assert_eq(fstatat(fd, "1", &stat, AT_SYMLINK_NOFOLLOW), 0);
	change(&scene, REMOVE, "t", 0, NULL);
	cr_assert(await(5, is_not_found, path_of(&scene, "t")));
	_Alignas(8) char buffer[512];
	cr_assert_leq(syscall(SYS_getdents64, fd, buffer, sizeof buffer), 0);
	cr_assert_eq(fstatat(fd, "1", &stat, AT_SYMLINK_NOFOLLOW), -1);
	cr_assert(errno == ENOENT || errno == ESTALE, "%s", strerror(errno));
	cr_assert_eq(fstat(fd, &stat), 0);
	cr_assert_eq(stat.st_nlink, 0u);
	close(fd);
	fs_scene_end(&scene);
}

Test(fs_nodes, a_thousand_directories_come_and_go)
{
	struct fs_scene scene = fs_scene_new();
	unsigned before = count_entries(scene.mnt);
	char name[32];

	must_come_to_have_links(scene.mnt, 2);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "iqn.%u", i);
		change(&scene, ADD_DIRECTORY, name, 0, NULL);
		must_lstat(path_of(&scene, name));
	}
	must_come_to_have_links(scene.mnt, 1002);
	cr_assert_eq(count_entries(scene.mnt), before + 1000);
	for (unsigned i = 0; i < 1000; i += 2) {
		snprintf(name, sizeof name, "iqn.%u", i);
		change(&scene, REMOVE, name, 0, NULL);
	}
	must_come_to_have_links(scene.mnt, 502);
	cr_assert_eq(count_entries(scene.mnt), before + 500);
	for (unsigned i = 1; i < 1000; i += 2) {
		snprintf(name, sizeof name, "iqn.%u", i);
		must_lstat(path_of(&scene, name));
	}
	must_come_to_say(&scene, RELEASED, 500);
	fs_scene_end(&scene);
}

/* ---- links ---- */

Test(fs_nodes, a_link_leads_where_it_says)
{
	struct fs_scene scene = fs_scene_new();
	char target[PATH_MAX], *link = path_of(&scene, "by-id/wwn");

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DISK, "t/a.img", FS_OWN, NULL);
	change(&scene, ADD_DIRECTORY, "by-id", 0, NULL);
	change(&scene, ADD_LINK, "by-id/wwn", 0, "../t/a.img");
	struct stat stat = must_lstat(link);
	cr_assert_eq(stat.st_mode, (mode_t)S_IFLNK | 0777);
	cr_assert_eq(stat.st_size, 10);
	cr_assert_eq(readlink(link, target, sizeof target), 10);
	cr_assert_eq(memcmp(target, "../t/a.img", 10), 0);
	int fd = must_open(link, O_RDWR);
	cr_assert_eq(write_page(fd, 0, 5), 0);
	cr_assert_eq(must_lstat(path_of(&scene, "t/a.img")).st_size, (off_t)OWN_SIZE);
	close(fd);
	cr_assert_str_eq(must(scene.stage, "cd %s && find . -type l -printf '%%P %%l'", scene.mnt),
	    "by-id/wwn ../t/a.img");
	cr_assert_eq(truncate(link, (off_t)OWN_SIZE), 0);
	cr_assert_neq(unlink(link), 0);
	change(&scene, REMOVE, "by-id/wwn", 0, NULL);
	cr_assert(await(5, is_not_found, link));
	must_lstat(path_of(&scene, "t/a.img"));
	fs_scene_end(&scene);
}

Test(fs_nodes, a_link_may_be_long_and_lead_nowhere)
{
	struct fs_scene scene = fs_scene_new();
	char target[PATH_MAX], is[PATH_MAX];

	memset(target, 'x', sizeof target);
	target[4000] = '\0';
	change(&scene, ADD_LINK, "l", 0, target);
	cr_assert_eq(readlink(path_of(&scene, "l"), is, sizeof is), 4000);
	cr_assert_eq(memcmp(is, target, 4000), 0);
	cr_assert_eq(must_lstat(path_of(&scene, "l")).st_size, 4000);
	cr_assert_eq(open(path_of(&scene, "l"), O_RDONLY | O_CLOEXEC), -1);
	fs_scene_end(&scene);
}

/* ---- owners ---- */

static void must_be(const struct fs_scene *scene, const char *path, mode_t mode, uid_t uid)
{
	struct stat stat = must_lstat(path_of(scene, path));

	cr_assert_eq(stat.st_mode & 07777, mode, "%s has mode %o", path, stat.st_mode & 07777);
	cr_assert_eq(stat.st_uid, uid, "%s is %u's", path, (unsigned)stat.st_uid);
	cr_assert_eq(stat.st_gid, uid, "%s is group %u's", path, (unsigned)stat.st_gid);
}

Test(fs_nodes, what_comes_into_a_directory_is_its_owners)
{
	struct fs_scene scene = fs_scene_new();

	change(&scene, ADD_DIRECTORY, "own", 1234, NULL);
	change(&scene, ADD_DIRECTORY, "own/in", 0, NULL);
	change(&scene, ADD_DISK, "own/in/disk", FS_OWN, NULL);
	change(&scene, ADD_TEXT, "own/text", 1, NULL);
	change(&scene, ADD_LINK, "own/link", 0, "x");
	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DISK, "t/disk", FS_OWN, NULL);
	change(&scene, ADD_TEXT, "t/text", 1, NULL);
	must_be(&scene, "own", 0550, 1234);
	must_be(&scene, "own/in", 0550, 1234);
	must_be(&scene, "own/in/disk", 0640, 1234);
	must_be(&scene, "own/text", 0440, 1234);
	must_be(&scene, "own/link", 0777, 1234);
	must_be(&scene, "t", 0500, 0);
	must_be(&scene, "t/disk", 0600, 0);
	must_be(&scene, "t/text", 0400, 0);
	/* until unmount, and no longer than it is there */
	cr_assert_eq(chown(path_of(&scene, "t"), 77, 77), 0);
	change(&scene, ADD_DISK, "t/other", FS_OWN, NULL);
	must_be(&scene, "t/other", 0600, 0);
	fs_scene_end(&scene);
}

/* ---- who watches ---- */

static uint32_t events_of(int queue, int watch)
{
	_Alignas(struct inotify_event) char buffer[8192];
	uint32_t mask = 0;
	ssize_t n;

	while ((n = read(queue, buffer, sizeof buffer)) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *event = (void *)(buffer + at);

			if (event->wd == watch)
				mask |= event->mask;
			at += (ssize_t)(sizeof *event + event->len);
		}
	}
	return mask;
}

struct watched {
	int queue, watch;
};

static bool is_told_of_its_end(void *data)
{
	const struct watched *watched = data;

	return (events_of(watched->queue, watched->watch) & IN_DELETE_SELF) != 0;
}

/* The most that FUSE has: of new names, and in the directory, inotify tells nothing. */
Test(fs_nodes, who_watches_a_file_or_directory_hears_of_its_end)
{
	struct fs_scene scene = fs_scene_new();
	struct watched watched = {.queue = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};

	change(&scene, ADD_DIRECTORY, "t", 0, NULL);
	change(&scene, ADD_DISK, "t/a", FS_OWN, NULL);
	watched.watch = inotify_add_watch(watched.queue, path_of(&scene, "t/a"), IN_DELETE_SELF);
	change(&scene, REMOVE, "t/a", 0, NULL);
	cr_assert(await(5, is_told_of_its_end, &watched));
	watched.watch = inotify_add_watch(watched.queue, path_of(&scene, "t"), IN_DELETE_SELF);
	change(&scene, REMOVE, "t", 0, NULL);
	cr_assert(await(5, is_told_of_its_end, &watched));
	close(watched.queue);
	fs_scene_end(&scene);
}
