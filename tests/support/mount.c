/*
 * mount.c - runs lunfs, and knows what is mounted and who serves it.
 */
#include "support/mount.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define WORDS(words, format)                                                                       \
	g_autofree char *words = NULL;                                                             \
	do {                                                                                       \
		va_list args;                                                                      \
		va_start(args, format);                                                            \
		words = g_strdup_vprintf(format, args);                                            \
		va_end(args);                                                                      \
	} while (0)

struct result *lunfs(struct stage *stage, const char *format, ...)
{
	WORDS(words, format);
	return sh(stage, "%s %s", stage->lunfs, words);
}

struct result *lunfs_as(struct stage *stage, uid_t uid, const char *format, ...)
{
	WORDS(words, format);
	return sh_as(stage, uid, "%s %s", stage->lunfs, words);
}

char *must_lunfs(struct stage *stage, const char *format, ...)
{
	WORDS(words, format);
	struct result *result = sh(stage, "%s %s", stage->lunfs, words);

	cr_assert(result->status == 0, "lunfs %s: exit status %d after %.1f s\n%s%s", words,
	    result->status, result->seconds, result->out, result->err);
	return result->out;
}

char *must_mount_lunfs(struct stage *stage, const char *source, const char *options)
{
	char *mnt = stage_directory(stage, "mnt", 0);

	must_lunfs(
	    stage, "mount %s %s%s%s", source, mnt, options ? " -o " : "", options ? options : "");
	cr_assert(is_mounted(mnt), "lunfs mount said 0, but nothing is mounted");
	return mnt;
}

bool is_mounted(const char *path)
{
	g_autofree char *mounts = NULL;
	g_autofree char *needle = g_strdup_printf(" %s fuse.lunfs ", path);

	return g_file_get_contents("/proc/self/mounts", &mounts, NULL, NULL) &&
	       strstr(mounts, needle);
}

void must_umount(struct stage *stage, const char *mountpoint)
{
	must_lunfs(stage, "umount %s", mountpoint);
	cr_assert(!is_mounted(mountpoint), "still mounted after 'lunfs umount'");
}

static bool runs_lunfs(pid_t pid)
{
	char path[64];
	g_autofree char *line = NULL;
	gsize length = 0;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	if (!g_file_get_contents(path, &line, &length, NULL))
		return false;
	for (gsize i = 0; i < length; i += strlen(line + i) + 1)
		if (g_str_has_suffix(line + i, "/bin/lunfs"))
			return true;
	return false;
}

pid_t lunfs_daemon(void)
{
	for (pid_t pid = 0; (pid = stage_next_process(pid));)
		if (runs_lunfs(pid))
			return pid;
	return 0;
}

struct scene scene_with_disk(uint64_t size, unsigned block_size)
{
	struct scene scene = {.stage = stage_new(), .size = size};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = size, .block_size = block_size);
	scene.mnt = must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), NULL);
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);
	return scene;
}

void scene_umount(struct scene *scene)
{
	must_umount(scene->stage, scene->mnt);
}
