/*
 * import.c - lunfs import [DIR|FILE]: open-iscsi's settings as a configuration, on stdout.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "lunfs/import.h"

static void tell_troubles(const GPtrArray *troubles)
{
	for (unsigned i = 0; i < troubles->len; i++)
		fprintf(stderr, "lunfs: %s\n", (const char *)g_ptr_array_index(troubles, i));
}

/* Secrets go where the user sends them, but not unnoticed. */
static void warn_of_secrets(void)
{
	struct stat st;

	if (isatty(STDOUT_FILENO))
		fprintf(stderr, "lunfs: there are secrets in this: send it into a file of your "
		                "own: umask 077; lunfs import > FILE\n");
	else if (fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) != 0)
		fprintf(stderr, "lunfs: there are secrets in this, and others may open the file: "
		                "chmod 600 it, else lunfs refuses it\n");
}

int cli_import(int argc, char **argv)
{
	g_autoptr(GPtrArray) troubles = g_ptr_array_new_with_free_func(g_free);
	GError *error = NULL;
	struct import *import;

	if (argc > 1 || (argc == 1 && argv[0][0] == '-'))
		return cli_usage("usage: lunfs import [DIR|FILE]");
	import = import_open_iscsi(argc == 1 ? argv[0] : NULL, troubles, &error);
	tell_troubles(troubles);
	if (import == NULL)
		return cli_fail(error);
	fputs(import->text, stdout);
	if (import->has_secrets)
		warn_of_secrets();
	import_free(import);
	return troubles->len > 0 ? LUNFS_ERROR_FAILED : 0;
}
