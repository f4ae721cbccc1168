/*
 * cache_status.c - which cache a disk has, and why, as 'lunfs status' tells it.
 */
#include "support/data.h"
#include "support/script_scene.h"

#include <criterion/criterion.h>
#include <string.h>

/* GLib's, between a number and its unit; it does not break. */
#define BLANK "\u00a0"

TestSuite(cache_status, .timeout = 60);

static void must_say_in_status(struct scene *scene, const char *words)
{
	const char *said = must_lunfs(scene->stage, "status %s", scene->mnt);

	cr_assert(strstr(said, words), "'%s' is not in: %s", words, said);
}

static struct scene mounted(const char *options)
{
	struct scene scene = scene_of_script(MIB(1));

	scene_mount(&scene, options);
	return scene;
}

Test(cache_status, the_default_is_a_write_back_cache_of_64_MiB)
{
	struct scene scene = mounted(NULL);

	must_say_in_status(&scene,
	    "    cache: writeback, 64.0" BLANK "MiB for all LUNs, 0 bytes here, "
	    "0 bytes not yet at the target; read-ahead auto\n");
	cr_assert_str_eq(status_of(&scene, "cache"), "writeback");
	cr_assert_eq(status_number(&scene, "cache_size"), MIB(64));
	cr_assert_eq(status_number(&scene, "dirty_bytes"), 0);
	cr_assert_str_eq(status_of(&scene, "readahead"), "auto");
	cr_assert_eq(status_number(&scene, "write_out_failures"), 0);
	scene_end(&scene);
}

Test(cache_status, the_options_are_told)
{
	struct scene scene = mounted("cache=writethrough,cache_size=8M,readahead=512K");

	must_say_in_status(&scene, "    cache: writethrough, 8.0" BLANK "MiB for all LUNs");
	must_say_in_status(&scene, "; read-ahead 512.0" BLANK "KiB");
	cr_assert_str_eq(status_of(&scene, "cache"), "writethrough");
	cr_assert_eq(status_number(&scene, "cache_size"), MIB(8));
	cr_assert_str_eq(status_of(&scene, "readahead"), "524288");
	scene_end(&scene);

	scene = mounted("readahead=0");
	must_say_in_status(&scene, "; no read-ahead");
	cr_assert_str_eq(status_of(&scene, "readahead"), "0");
	scene_end(&scene);
}

Test(cache_status, no_cache_is_told_and_why)
{
	struct scene scene = mounted("cache=none");

	must_say_in_status(&scene, "    cache: none\n");
	cr_assert_str_eq(status_of(&scene, "cache"), "none");
	cr_assert_eq(status_number(&scene, "cached_bytes"), 0);
	scene_end(&scene);

	scene = mounted("shared");
	must_say_in_status(&scene, "    cache: none: shared\n");
	scene_end(&scene);
}

Test(cache_status, blocks_larger_than_a_page_are_not_cached)
{
	struct scene scene = {.stage = stage_new(), .size = MIB(1)};

	scene.script = script_target_start(SCENE_IQN);
	script_target_add_lun(scene.script, 1, scene.size, 8192);
	scene_mount(&scene, NULL);
	must_say_in_status(&scene, "    cache: none: blocks of 8192 bytes\n");
	cr_assert_str_eq(status_of(&scene, "cache"), "none");
	must(scene.stage, "cmp -n 100000 %s /dev/zero", scene.file);
	scene_end(&scene);
}
