/*
 * status.h - what a mount tells of itself, for 'lunfs status'.
 */
#pragma once

#include <glib.h>

#include "lunfs/mount.h"

/* For people, and as one line of JSON; targets are struct target. Free with g_free(). */
char *status_text(const struct mount *mount, const GPtrArray *targets);
char *status_json(const struct mount *mount, const GPtrArray *targets);
