/*
 * check.c - lunfs check [FILE]: all that is wrong with the configuration, a line each.
 *
 *   FILE:LINE: KEY: what is wrong, and what to do
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static void print_faults(const GPtrArray *faults)
{
	for (unsigned i = 0; i < faults->len; i++) {
		g_autofree char *line = config_fault_describe(g_ptr_array_index(faults, i));
		puts(line);
	}
}

static unsigned count_targets(const struct config *config, const char *file)
{
	unsigned count = 0;

	for (unsigned i = 0; i < config->sections->len; i++) {
		const struct config_section *section = g_ptr_array_index(config->sections, i);
		count += strcmp(section->file, file) == 0;
	}
	return count;
}

static void print_files(const struct config *config, bool good)
{
	for (unsigned i = 0; i < config->files->len && good; i++) {
		const char *file = g_ptr_array_index(config->files, i);
		unsigned count = count_targets(config, file);

		printf("%s: good, %u target%s\n", file, count, count == 1 ? "" : "s");
	}
	for (unsigned i = 0; i < config->unreadable->len; i++)
		printf("%s: not checked: this user may not read it\n",
		    (const char *)g_ptr_array_index(config->unreadable, i));
}

/* Nothing was read: it must be said, or all would seem well. */
static int fail_empty(const struct config *config, char *const *files, bool named)
{
	g_autofree char *list = g_strjoinv(" and ", (char **)files);
	bool there = config->unreadable->len > 0;

	if (named || there)
		return cli_fail(g_error_new(LUNFS_ERROR, LUNFS_ERROR_FAILED, "%s: %s",
		    there ? (const char *)g_ptr_array_index(config->unreadable, 0) : files[0],
		    g_strerror(there ? EACCES : ENOENT)));
	return cli_fail(g_error_new(LUNFS_ERROR, LUNFS_ERROR_FAILED,
	    "no configuration: %s %s not there", list, files[1] ? "are" : "is"));
}

static int check_files(char *const *files, bool named)
{
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	g_autoptr(GPtrArray) warnings = g_ptr_array_new_with_free_func(config_fault_free);
	struct config *config = config_read((const char *const *)files, faults);
	int status;

	if (config && config->files->len == 0) {
		status = fail_empty(config, files, named);
	} else {
		if (config)
			config_check(config, faults, warnings);
		print_faults(faults);
		print_faults(warnings);
		if (config)
			print_files(config, faults->len == 0);
		status = faults->len > 0 ? LUNFS_ERROR_FAILED : 0;
	}
	config_free(config);
	return status;
}

int cli_check(int argc, char **argv)
{
	g_auto(GStrv) files = NULL;

	if (argc > 1 || (argc == 1 && argv[0][0] == '-'))
		return cli_usage("usage: lunfs check [FILE]");
	if (argc == 1)
		files = g_strdupv((char *[]){argv[0], NULL});
	else
		files = config_files();
	return check_files(files, argc == 1);
}
