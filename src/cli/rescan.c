/*
 * rescan.c - lunfs rescan MOUNTPOINT: which LUNs are there now? lunfs reload MOUNTPOINT: what does
 * the configuration say now? Both ask the mount's process, and return when it is done.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/mount.h"

static void keep_answer(GHashTable *answer, void *data)
{
	GHashTable **last = data;

	g_clear_pointer(last, g_hash_table_unref);
	*last = g_hash_table_ref(answer);
}

/* NULL: it failed, and that was said. */
static GHashTable *ask_mount(const char *command, int argc, char **argv)
{
	g_autoptr(GHashTable) answer = NULL;
	const char *error;

	if (argc != 1 || argv[0][0] == '-') {
		cli_usage("usage: lunfs %s MOUNTPOINT", command);
		return NULL;
	}
	struct mounted *mounted = mounted_find(argv[0]);
	if (mounted == NULL) {
		fprintf(stderr, "lunfs: %s: no lunfs is mounted there\n", argv[0]);
		return NULL;
	}
	int fd = control_connect(mounted);
	bool done = fd >= 0 && cli_ask(fd, command, "done", keep_answer, &answer);
	close(fd);
	mounted_free(mounted);
	error = done ? g_hash_table_lookup(answer, "error")
	             : "its process does not answer: it died, or belongs to another user";
	if (error == NULL || error[0] == '\0')
		return g_steal_pointer(&answer);
	fprintf(stderr, "lunfs: %s: %s\n", argv[0], error);
	return NULL;
}

int cli_rescan(int argc, char **argv)
{
	g_autoptr(GHashTable) answer = ask_mount("rescan", argc, argv);

	if (answer != NULL)
		return 0;
	return argc == 1 && argv[0][0] != '-' ? LUNFS_ERROR_FAILED : LUNFS_ERROR_USAGE;
}

static void print_names(GHashTable *answer, const char *key, const char *words)
{
	const char *names = g_hash_table_lookup(answer, key);

	if (names != NULL && names[0] != '\0')
		printf("%s: %s\n", words, names);
}

int cli_reload(int argc, char **argv)
{
	g_autoptr(GHashTable) answer = ask_mount("reload", argc, argv);
	const char *kept;

	if (answer == NULL)
		return argc == 1 && argv[0][0] != '-' ? LUNFS_ERROR_FAILED : LUNFS_ERROR_USAGE;
	print_names(answer, "removed", "removed");
	print_names(answer, "added", "added");
	kept = g_hash_table_lookup(answer, "kept");
	if (kept == NULL || kept[0] == '\0')
		return 0;
	fprintf(stderr,
	    "lunfs: %s: in use, and left as it was: close its files and reload once more\n", kept);
	return LUNFS_ERROR_FAILED;
}
