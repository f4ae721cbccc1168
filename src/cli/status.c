/*
 * status.c - lunfs status [MOUNTPOINT] [--json]: asks the mount's process, or those of all mounts.
 *
 * With --json each mount is one JSON object on a line of its own.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/mount.h"

static void status_line(GHashTable *answer, void *data)
{
	const char *text = g_hash_table_lookup(answer, "text");

	*(char **)data = g_strdup(text);
}

static int print_status(const struct mounted *mounted, bool json)
{
	g_autofree char *text = NULL;
	int fd = control_connect(mounted);

	if (fd >= 0) {
		cli_ask(fd, json ? "status-json" : "status", "done", status_line, &text);
		close(fd);
	}
	if (text == NULL) {
		fprintf(stderr,
		    "lunfs: %s: its process does not answer: it died, or belongs to another user\n",
		    mounted->mountpoint);
		return LUNFS_ERROR_FAILED;
	}
	printf("%s%s", text, g_str_has_suffix(text, "\n") ? "" : "\n");
	return 0;
}

int cli_status(int argc, char **argv)
{
	const char *mountpoint = NULL;
	bool json = false;
	int status = 0;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (argv[i][0] == '-' || mountpoint != NULL)
			return cli_usage("usage: lunfs status [MOUNTPOINT] [--json]");
		else
			mountpoint = argv[i];
	}
	if (mountpoint != NULL) {
		struct mounted *mounted = mounted_find(mountpoint);

		if (mounted == NULL)
			return cli_fail(g_error_new(LUNFS_ERROR, LUNFS_ERROR_FAILED,
			    "%s: no lunfs is mounted there", mountpoint));
		status = print_status(mounted, json);
		mounted_free(mounted);
		return status;
	}
	g_autoptr(GPtrArray) list = mounted_list();
	for (unsigned i = 0; i < list->len; i++)
		if (print_status(g_ptr_array_index(list, i), json) != 0)
			status = LUNFS_ERROR_FAILED;
	return status;
}
