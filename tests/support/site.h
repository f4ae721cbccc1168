/*
 * site.h - a site's configuration: a lunfs.conf of the test's own, which every lunfs that it runs
 * reads.
 */
#pragma once

#include "support/mount.h"

/* Writes (again) the user's lunfs.conf, mode 0600; returns its path. */
char *site_configure(struct stage *stage, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* "[target NAME]" of the tgt's target. */
char *site_section(struct stage *stage, const char *name, const char *portal, const char *iqn);
/* Is there a file, or a directory, of that name? */
bool exists(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* The same as await() takes it; data is the path. */
bool path_exists(void *path);
bool path_is_gone(void *path);
/* What 'lunfs status MNT --json' says: a Python expression over d, the document, and T, its targets
 * by name. */
char *site_status(struct stage *stage, const char *mnt, const char *query);
