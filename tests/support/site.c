/*
 * site.c - a configuration of the test's own.
 */
#include "support/site.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char *site_configure(struct stage *stage, const char *format, ...)
{
	char *directory = text(stage, "%s/home-0/.config/lunfs", stage->dir);
	char *path = text(stage, "%s/lunfs.conf", directory);
	va_list args;

	va_start(args, format);
	g_autofree char *content = g_strdup_vprintf(format, args);
	va_end(args);
	cr_assert_eq(g_mkdir_with_parents(directory, 0755), 0);
	cr_assert(g_file_set_contents(path, content, -1, NULL));
	cr_assert_eq(chmod(path, 0600), 0);
	return path;
}

char *site_section(struct stage *stage, const char *name, const char *portal, const char *iqn)
{
	return text(stage, "[target %s]\nportal=%s\niqn=%s\n", name, portal, iqn);
}

bool exists(const char *format, ...)
{
	struct stat stat;
	va_list args;

	va_start(args, format);
	g_autofree char *path = g_strdup_vprintf(format, args);
	va_end(args);
	return lstat(path, &stat) == 0;
}

bool path_exists(void *path)
{
	return exists("%s", (const char *)path);
}

bool path_is_gone(void *path)
{
	return !exists("%s", (const char *)path);
}

char *site_status(struct stage *stage, const char *mnt, const char *query)
{
	return must(stage,
	    "%s status %s --json | python3 -c \"import json, sys; d = "
	    "json.loads(sys.stdin.readline()); "
	    "T = {t['name']: t for t in d['targets']}; print(%s)\"",
	    stage->lunfs, mnt, query);
}
