/*
 * cli.h - the commands, one file each; each gets its own arguments, and returns the exit status: 0
 * done, 1 failed, 2 usage.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "lunfs/config.h"

int cli_mount(int argc, char **argv);
int cli_umount(int argc, char **argv);
int cli_discover(int argc, char **argv);
int cli_import(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_import(int argc, char **argv);
int cli_rescan(int argc, char **argv);
int cli_reload(int argc, char **argv);

/* As mount(8) and umount(8) call us, by another name; with their exit statuses. */
bool cli_is_helper(const char *program);
int cli_helper(int argc, char **argv);

struct mounted;
enum unmount_how { UNMOUNT_FLUSHED, UNMOUNT_FORCED, UNMOUNT_LAZY };
/* Returns the exit status. */
int cli_unmount(const struct mounted *mounted, enum unmount_how how);

/* Prints "lunfs: message", frees the error, and returns the status that belongs to it. */
int cli_fail(GError *error);
int cli_usage(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* Sends command to a mount's process and calls line() with each answer until the event last; false
 * where there is none. */
bool cli_ask(int fd, const char *command, const char *last,
    void (*line)(GHashTable *answer, void *data), void *data);
/* Only listens, until the event last. */
bool cli_listen(int fd, const char *last, void (*line)(GHashTable *answer, void *data), void *data);
