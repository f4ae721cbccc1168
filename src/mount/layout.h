/*
 * layout.h - which file stands where in a mount. Private to the room.
 */
#pragma once

#include <glib.h>

#include "lunfs/fs.h"
#include "lunfs/mount.h"

/* Adds a directory for each of targets, where there may be several, and a file for each disk. */
void layout_build(struct fs *fs, const GPtrArray *targets, const struct mount *mount);
/* The sentence for a mount that would show nothing. Free with g_free(). */
char *layout_explain_empty(const GPtrArray *targets, const char *initiator_name);
void layout_warn_of_faults(const struct target *target);
