/*
 * control.h - the mount's control socket: one JSON request and its answers a line.
 *
 *   {"command": "flush"}    {"event": "writing", "file": "lun1.img", "others": "0", "bytes":
 * "5120"}
 *                           {"event": "progress", "file": "lun1.img", "left": "2", "error": ""} ...
 *                           {"event": "done", "error": ""}
 *   {"command": "abort"}    {"event": "end", "error": ""}, when all who waited were told so
 *   {"command": "status"}, {"command": "status-json"}, {"command": "metrics"}
 *                           {"event": "done", "error": "", "text": "..."}
 *   {"command": "rows"}     {"event": "target", "target": "nas", "state": "ready", ...},
 *                           {"event": "lun", "target": "nas", "file": "lun1.img", ...} ...
 *                           {"event": "done", "error": ""}: see status_rows()
 *
 *   (a client that stays)  {"event": "end", "error": ""}
 *
 * "writing" tells from time to time how many bytes are to be sent to the targets yet, which file
 * has most of them, and how many others have some; "progress" that a file is flushed, and how many
 * are left.
 *
 * All values are strings. A client that stays connected sees the end of the file when the mount's
 * process ends.
 */
#pragma once

#include <glib.h>

struct loop;
struct control;
struct control_client;

/* Answers with control_reply() and control_done(), now or later. */
typedef void (*control_request_fn)(struct control_client *client, const char *command, void *data);

/* NULL with a warning logged where there can be no socket: the mount works without. */
struct control *control_new(struct loop *loop, const char *path, control_request_fn fn, void *data);
void control_free(struct control *control);
/* One line: event, then names and values in turn, ended by NULL. */
void control_reply(struct control_client *client, const char *event, ...) G_GNUC_NULL_TERMINATED;
/* The same to every client. */
void control_tell_all(struct control *control, const char *event, const char *error);
/* Keep the client alive while its answer is pending. */
struct control_client *control_client_ref(struct control_client *client);
void control_client_unref(struct control_client *client);

/* {"name": "value", ...} as a table; NULL where it is none. */
GHashTable *control_parse(const char *line);
