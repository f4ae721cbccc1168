/*
 * common.c - what the commands share: how they fail, and how they ask a mount's process.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../mount/control.h"
#include "cli.h"

int cli_fail(GError *error)
{
	int status = error->domain == LUNFS_ERROR && error->code == LUNFS_ERROR_USAGE
	                 ? LUNFS_ERROR_USAGE
	                 : LUNFS_ERROR_FAILED;

	fprintf(stderr, "lunfs: %s\n", error->message);
	g_error_free(error);
	return status;
}

int cli_usage(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	g_autofree char *message = g_strdup_vprintf(format, arguments);
	va_end(arguments);
	fprintf(stderr, "lunfs: %s; see 'lunfs --help'\n", message);
	return LUNFS_ERROR_USAGE;
}

bool cli_listen(int fd, const char *last, void (*line)(GHashTable *answer, void *data), void *data)
{
	g_autofree char *text = NULL;
	size_t size = 0;
	bool done = false;
	int copy = dup(fd);
	FILE *stream = copy >= 0 ? fdopen(copy, "r") : NULL;

	/* What comes behind the last line is for who listens next. */
	if (stream != NULL)
		setvbuf(stream, NULL, _IONBF, 0);
	while (stream != NULL && !done && getline(&text, &size, stream) > 0) {
		g_autoptr(GHashTable) answer = control_parse(text);

		if (answer == NULL)
			break;
		done = g_strcmp0(g_hash_table_lookup(answer, "event"), last) == 0;
		line(answer, data);
	}
	if (stream != NULL)
		fclose(stream);
	return done;
}

bool cli_ask(int fd, const char *command, const char *last,
    void (*line)(GHashTable *answer, void *data), void *data)
{
	g_autofree char *request = g_strdup_printf("{\"command\": \"%s\"}\n", command);

	return send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request) &&
	       cli_listen(fd, last, line, data);
}
