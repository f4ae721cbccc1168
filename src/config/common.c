/*
 * common.c - how the files of this room fail, and how they read what may hold a secret.
 */
#include "common.h"

#include <errno.h>
#include <unistd.h>

bool config_fail(GError **error, enum lunfs_error code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (error != NULL)
		*error = g_error_new_valist(LUNFS_ERROR, code, format, arguments);
	va_end(arguments);
	return false;
}

ssize_t read_fully(int fd, char *buffer, size_t size)
{
	size_t got = 0;

	while (got < size) {
		ssize_t more = read(fd, buffer + got, size - got);

		if (more < 0 && errno == EINTR)
			continue;
		if (more < 0)
			return -1;
		if (more == 0)
			break;
		got += (size_t)more;
	}
	return (ssize_t)got;
}
