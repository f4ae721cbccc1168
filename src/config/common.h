/*
 * common.h - how the files of this room fail, and how they read what may hold a secret. Private to
 * the room.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

#include "lunfs/config.h"

/* Sets the error, where there is room for one, and returns false for the caller to return. */
bool config_fail(GError **error, enum lunfs_error code, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
/* As much as there is, up to size; -1 and errno. Nothing of it stays in a buffer of stdio's. */
ssize_t read_fully(int fd, char *buffer, size_t size);
