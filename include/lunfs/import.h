/*
 * import.h - what open-iscsi has configured, as a configuration of lunfs.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct import {
	char *text; /* a configuration, complete, that config_read() accepts; may hold secrets */
	bool has_secrets;
};

/*
 * Reads open-iscsi's files: those of this system where path is NULL; else a directory (like
 * /etc/iscsi, the root of a copied system, or a node database), an iscsid.conf or the record of one
 * node. What has no equivalent, or cannot stand in a configuration, becomes a comment. NULL where
 * there is nothing of open-iscsi, with an error that says where it was looked for. What could not
 * be read is appended to troubles in either case (of char *, a sentence each).
 */
struct import *import_open_iscsi(const char *path, GPtrArray *troubles, GError **error);
/* Wipes the text. */
void import_free(struct import *import);

/* May what somebody else named stand in 'portal='? host is without brackets. */
bool import_portal_valid(const char *host, uint16_t port);
