/*
 * mount.c - runs lunfs, and knows what is mounted and who serves it.
 */
#include "support/mount.h"
#include "support/proxy.h"
#include "support/script_target.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
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

/* A target with one disk. */
static struct scene scene_of_tgt(uint64_t size, unsigned block_size)
{
	struct scene scene = {.stage = stage_new(), .size = size};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = size, .block_size = block_size);
	return scene;
}

struct scene scene_with_disk(uint64_t size, unsigned block_size)
{
	struct scene scene = scene_of_tgt(size, block_size);

	scene.mnt = must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), NULL);
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);
	return scene;
}

struct scene scene_unmounted(uid_t uid)
{
	struct scene scene = scene_of_tgt(MIB(4), 0);

	scene.mnt = stage_directory(scene.stage, "mnt", uid);
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);
	return scene;
}

void scene_umount(struct scene *scene)
{
	must_umount(scene->stage, scene->mnt);
}

/* ---- scenes of trouble ---- */

struct scene scene_behind_proxy(uint64_t size)
{
	struct scene scene = scene_of_tgt(size, 0);

	scene.proxy = proxy_start(scene.tgt->port);
	return scene;
}

struct scene scene_of_script(uint64_t size)
{
	struct scene scene = {.stage = stage_new(), .size = size};

	scene.script = script_target_start(SCENE_IQN);
	script_target_add_lun(scene.script, 1, size, 512);
	return scene;
}

static bool is_mounted_there(void *mountpoint)
{
	return is_mounted(mountpoint);
}
static bool is_there(void *file)
{
	g_autofree char *mountpoint = g_path_get_dirname(file);

	return is_mounted(mountpoint) && g_file_test(file, G_FILE_TEST_EXISTS);
}

void scene_mount_as(struct scene *scene, uid_t uid, const char *source, const char *options)
{
	struct stage *stage = scene->stage;
	uint16_t port = scene->script  ? script_target_port(scene->script)
	                : scene->proxy ? proxy_port(scene->proxy)
	                               : scene->tgt->port;

	scene->mnt = stage_directory(stage, "mnt", uid);
	scene->file = text(stage, "%s/lun1.img", scene->mnt);
	scene->log = text(stage, "%s/said", stage->dir);
	scene->lunfs = sh_start(stage, uid, NULL, scene->log, "%s mount %s %s %s%s%s", stage->lunfs,
	    source ? source : text(stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, port), scene->mnt,
	    getenv("LUNFS_TEST_DEBUG") ? "-d" : "-f", options ? " -o " : "",
	    options ? options : "");
	/* another user's mount shows root nothing */
	cr_assert(await(10, uid || source ? is_mounted_there : is_there,
	              uid || source ? scene->mnt : scene->file),
	    "not mounted: %s", scene_said(scene));
}

void scene_end(struct scene *scene)
{
	must_umount(scene->stage, scene->mnt);
	cr_assert_eq(call_end(scene->lunfs, 10), 0, "it did not end well: %s", scene_said(scene));
	if (scene->proxy)
		proxy_stop(scene->proxy);
	if (scene->script)
		script_target_stop(scene->script);
}

void scene_restart_tgt(struct scene *scene)
{
	tgt_restart(scene->tgt);
	tgt_add_target(scene->tgt, 1, SCENE_IQN);
	tgt_add_lun(scene->tgt, 1, .lun = 1, .size = scene->size);
}

const char *scene_said(const struct scene *scene)
{
	g_autofree char *said = NULL;

	g_file_get_contents(scene->log, &said, NULL, NULL);
	return text(scene->stage, "%s", said ? said : "");
}

void figure(const char *format, ...)
{
	WORDS(words, format);
	if (getenv("LUNFS_TEST_FIGURES"))
		fprintf(stderr, "FIGURE %s", words);
}

unsigned count_words(const char *in, const char *words)
{
	unsigned count = 0;

	for (; (in = strstr(in, words)) != NULL; in += strlen(words))
		count++;
	return count;
}

struct saying {
	const struct scene *scene;
	const char *words;
	unsigned times;
};
static bool was_said(void *data)
{
	const struct saying *saying = data;
	g_autofree char *said = NULL;

	return g_file_get_contents(saying->scene->log, &said, NULL, NULL) &&
	       count_words(said, saying->words) >= saying->times;
}

void scene_must_say(const struct scene *scene, const char *words, unsigned times, double seconds)
{
	struct saying saying = {scene, words, times};

	cr_assert(await(seconds, was_said, &saying), "it did not say '%s' %u times, but: %s", words,
	    times, scene_said(scene));
}

char *status_of(const struct scene *scene, const char *member)
{
	const char *json = must_lunfs(scene->stage, "status --json %s", scene->mnt);
	const char *found = strstr(json, text(scene->stage, "\"%s\": ", member));

	cr_assert(found, "no %s in %s", member, json);
	found += strlen(member) + strlen("\"\": ");
	return *found == '"' ? text(scene->stage, "%.*s", (int)strcspn(found + 1, "\""), found + 1)
	                     : text(scene->stage, "%.*s", (int)strcspn(found, ",}"), found);
}

uint64_t status_number(const struct scene *scene, const char *member)
{
	return g_ascii_strtoull(status_of(scene, member), NULL, 10);
}
