/*
 * test_fs_random.c - a tree that changes at random, against a model of it, while others walk
 * through it, read, write and map what they find.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/fs_scene.h"

TestSuite(fs_random, .timeout = 180);

#define SECONDS 6.0

enum { DIRECTORIES = 6, NAMES = 8, WALKERS = 3 };

/* What there is at d0/n3; 0: nothing. */
static const mode_t kinds[] = {0, S_IFREG, S_IFLNK, S_IFREG, S_IFDIR};
enum { NOTHING, DISK, LINK, TEXT, DIRECTORY };

struct model {
	struct fs_scene scene;
	struct dice dice;
	bool directories[DIRECTORIES];
	int names[DIRECTORIES][NAMES];
	unsigned removed;
	bool holds; /* disk 2 */
};

/* ---- those who walk ---- */

static void use_file(struct dice *dice, int directory, const char *name)
{
	static const int flags[] = {O_RDONLY, O_RDWR, O_RDWR | O_DIRECT};
	int fd = openat(directory, name, flags[dice_roll(dice) % 3] | O_CLOEXEC);

	if (fd < 0)
		return;
	read_byte(fd, 0);
	write_page(fd, dice_roll(dice) % 8 * PAGE, 1);
	if (dice_roll(dice) % 4 == 0)
		g_usleep(dice_roll(dice) % 3000);
	if (dice_roll(dice) % 4 == 0)
		fsync(fd);
	read_byte(fd, PAGE);
	void *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		munmap(map, PAGE);
	if (dice_roll(dice) % 8 == 0)
		(void)!fcntl(fd, F_DUPFD_CLOEXEC, 0); /* some stay open */
	close(fd);
}

static void walk(struct dice *dice, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *entry;
	char target[64];

	if (fd < 0)
		return;
	DIR *dir = fdopendir(fd);
	while ((entry = readdir(dir)) != NULL) {
		struct stat stat;

		if (entry->d_name[0] == '.' ||
		    fstatat(fd, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		if (S_ISLNK(stat.st_mode))
			(void)!readlinkat(fd, entry->d_name, target, sizeof target);
		else if (S_ISREG(stat.st_mode))
			use_file(dice, fd, entry->d_name);
	}
	closedir(dir);
}

static int walker(void *data)
{
	const struct fs_scene *scene = data;
	struct dice dice = {.state = (uint64_t)getpid()};
	double end = seconds_now() + patience(SECONDS);

	for (unsigned i = 0; seconds_now() < end; i++) {
		g_autofree char *name =
		    g_strdup_printf("d%u", (unsigned)(dice_roll(&dice) % DIRECTORIES));

		walk(&dice, path_of(scene, name));
		if (i % 100 == 99)
			closefrom(scene->socket + 1);
	}
	return 0;
}

/* ---- the model ---- */

struct expected {
	const char *path;
	mode_t kind;
};

static bool is_as_expected(void *data)
{
	const struct expected *expected = data;
	struct stat stat;
	int result = lstat(expected->path, &stat);

	if (expected->kind == 0)
		return result != 0 && errno == ENOENT;
	return result == 0 && (stat.st_mode & S_IFMT) == expected->kind;
}

static void must_come_to_be(const char *path, mode_t kind)
{
	struct expected expected = {path, kind};

	cr_assert(await(10, is_as_expected, &expected), "%s is not %o", path, kind);
}

static void change_directory(struct model *model, unsigned d)
{
	g_autofree char *name = g_strdup_printf("d%u", d);

	change(&model->scene, model->directories[d] ? REMOVE : ADD_DIRECTORY, name, 0, NULL);
	model->removed += model->directories[d];
	model->directories[d] = !model->directories[d];
	memset(model->names[d], 0, sizeof model->names[d]);
	if (dice_roll(&model->dice) % 4 == 0)
		must_come_to_be(path_of(&model->scene, name), model->directories[d] ? S_IFDIR : 0);
}

static void change_name(struct model *model, unsigned d, unsigned n)
{
	static const enum change adds[] = {REMOVE, ADD_DISK, ADD_LINK, ADD_TEXT, ADD_DIRECTORY};
	g_autofree char *name = g_strdup_printf("d%u/n%u", d, n);
	const struct fs_scene *scene = &model->scene;
	int *kind = &model->names[d][n];

	if (*kind == NOTHING) {
		*kind = (int)dice_between(&model->dice, DISK, DIRECTORY);
		uint64_t value = *kind != DISK ? 0 : dice_roll(&model->dice) % 4;
		change(scene, adds[*kind], name, value == 3 ? FS_OWN : value, "d0");
	} else if (*kind == DISK && dice_roll(&model->dice) % 3 == 0) {
		change(scene, REPLACE, name, FS_OWN, NULL);
		model->removed++;
	} else {
		change(scene, REMOVE, name, 0, NULL);
		*kind = NOTHING;
		model->removed++;
	}
	if (dice_roll(&model->dice) % 3 == 0)
		must_come_to_be(path_of(scene, name), kinds[*kind]);
}

static void must_be_as_modelled(const struct model *model)
{
	for (unsigned d = 0; d < DIRECTORIES; d++) {
		g_autofree char *directory = g_strdup_printf("d%u", d);
		unsigned count = 0, listed = 0;

		must_come_to_be(
		    path_of(&model->scene, directory), model->directories[d] ? S_IFDIR : 0);
		for (unsigned n = 0; n < NAMES; n++) {
			g_autofree char *name = g_strdup_printf("%s/n%u", directory, n);

			must_come_to_be(path_of(&model->scene, name), kinds[model->names[d][n]]);
			count += model->names[d][n] != NOTHING;
		}
		DIR *dir = opendir(path_of(&model->scene, directory));
		while (dir != NULL && readdir(dir) != NULL)
			listed++;
		if (dir != NULL)
			closedir(dir);
		cr_assert_eq(listed, model->directories[d] ? count + 2 : 0);
	}
}

static void change_something(struct model *model)
{
	unsigned d = (unsigned)(dice_roll(&model->dice) % DIRECTORIES);
	uint64_t what = dice_roll(&model->dice) % 100;

	if (what < 5 || !model->directories[d])
		change_directory(model, d);
	else if (what < 8)
		tell(&model->scene, HOLD, 2, model->holds = true);
	else if (what < 14)
		tell(&model->scene, HOLD, 2, model->holds = false);
	else if (what < 15)
		tell(&model->scene, RAISE, 0, BLOCK_CHANGED);
	else if (what < 16 && !model->holds)
		tell(&model->scene, FLUSH_ALL, 1, 0);
	else if (what < 17)
		sh(model->scene.stage, "echo 2 > /proc/sys/vm/drop_caches");
	else
		change_name(model, d, (unsigned)(dice_roll(&model->dice) % NAMES));
}

struct wanted {
	const struct model *model;
	int64_t nodes;
};

static bool all_is_freed(void *data)
{
	const struct wanted *wanted = data;

	return tell(&wanted->model->scene, NODES, 0, 0) == wanted->nodes &&
	       tell(&wanted->model->scene, RELEASED, 0, 0) == wanted->model->removed;
}

Test(fs_random, a_tree_that_changes_under_its_users_is_as_modelled)
{
	struct model model = {.scene = fs_scene_new(), .dice = {.state = 11}};
	struct wanted wanted = {&model, tell(&model.scene, NODES, 0, 0)};
	double end = seconds_now() + patience(SECONDS);
	pid_t pids[WALKERS];
	unsigned rounds = 0;

	for (unsigned i = 0; i < WALKERS; i++)
		pids[i] = call_start(0, walker, &model.scene);
	for (; seconds_now() < end; rounds++) {
		change_something(&model);
		if (rounds % 200 == 0)
			must_be_as_modelled(&model);
	}
	tell(&model.scene, HOLD, 2, false);
	must_be_as_modelled(&model);
	for (unsigned i = 0; i < WALKERS; i++) {
		int result = call_end(pids[i], 30);

		if (result < 0)
			fs_scene_break(&model.scene);
		cr_assert_eq(result, 0, "walker %u: %d", i, result);
	}
	for (unsigned d = 0; d < DIRECTORIES; d++)
		if (model.directories[d])
			change_directory(&model, d);
	cr_assert(await(10, all_is_freed, &wanted), "%ld nodes, %ld of %u released",
	    (long)tell(&model.scene, NODES, 0, 0), (long)tell(&model.scene, RELEASED, 0, 0),
	    model.removed);
	fprintf(stderr, "%u changes, %u removals\n", rounds, model.removed);
	fs_scene_end(&model.scene);
}
