/*
 * config_home.h - a home with configuration files of its own, for the tests of src/config.
 */
#pragma once

#include "lunfs/config.h"

#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IQN "iqn.2026-11.org.example:disk"

/* Its files are $XDG_CONFIG_HOME/lunfs/lunfs.conf, and what is written beside it. */
struct home {
	char *directory, *conf;
};

static inline char *home_path(const struct home *home, const char *name)
{
	return g_build_filename(home->directory, "lunfs", name, NULL);
}

static inline struct home *home_new(void)
{
	struct home *home = g_new0(struct home, 1);

	home->directory = g_dir_make_tmp("lunfs-test-XXXXXX", NULL);
	cr_assert_not_null(home->directory);
	home->conf = home_path(home, "lunfs.conf");
	g_autofree char *below = g_path_get_dirname(home->conf);
	cr_assert_eq(g_mkdir(below, 0700), 0);
	g_setenv("XDG_CONFIG_HOME", home->directory, TRUE);
	g_setenv("XDG_STATE_HOME", home->directory, TRUE);
	g_unsetenv("CREDENTIALS_DIRECTORY");
	return home;
}

/* One of its files, of this mode. */
static inline char *home_write(
    const struct home *home, const char *name, mode_t mode, const char *text)
{
	char *path = home_path(home, name);

	g_remove(path);
	cr_assert(
	    g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_NONE, (int)mode, NULL));
	cr_assert_eq(g_chmod(path, mode), 0);
	return path;
}

static inline void home_conf(const struct home *home, const char *text)
{
	g_free(home_write(home, "lunfs.conf", 0600, text));
}

static inline void home_free(struct home *home)
{
	const char *name;
	g_autofree char *below = g_path_get_dirname(home->conf);
	GDir *directory = g_dir_open(below, 0, NULL);

	while ((name = g_dir_read_name(directory)) != NULL) {
		g_autofree char *path = g_build_filename(below, name, NULL);
		g_remove(path);
	}
	g_dir_close(directory);
	g_rmdir(below);
	cr_expect_eq(g_rmdir(home->directory), 0);
	g_free(home->directory);
	g_free(home->conf);
	g_free(home);
}
