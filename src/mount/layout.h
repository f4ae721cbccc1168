/*
 * layout.h - which file stands where in a mount. Private to the room.
 *
 *   MNT/<target>/lun0.img     MNT/lun0.img where SOURCE names one target
 *   MNT/by-path/ip-..., MNT/by-id/wwn-..., scsi-...     links to these
 *   MNT/.lunfs/status.json, metrics
 *
 * Where the mountpoint is a file there is the one disk and nothing else.
 */
#pragma once

#include <glib.h>

#include "lunfs/fs.h"
#include "lunfs/mount.h"

struct layout;

/* What is to be read in .lunfs; data is handed to both. Free with g_free(). */
struct layout_texts {
	char *(*status)(void *data);
	char *(*metrics)(void *data);
	void *data;
};

/* An empty tree, for targets (of struct target), which outlive it. */
struct layout *layout_new(struct fs *fs, const struct mount *mount, const GPtrArray *targets,
    const struct layout_texts *texts);
/* The target's directory, and a file for each disk that it has. */
void layout_add_target(struct layout *layout, struct target *target);
/* All of it goes; layout_forget_target() when layout_uses_target() says no. */
void layout_remove_target(struct layout *layout, struct target *target);
/* Does somebody hold a file of it open, or one over its blocks, so that it should not go? */
bool layout_is_open(const struct layout *layout, struct target *target);
/* Does a file that is not released yet need a disk of it? */
bool layout_uses_target(const struct target *target);
void layout_forget_target(struct layout *layout, struct target *target);
/* The node for fs_flush(). */
struct node *layout_directory(const struct layout *layout, struct target *target);
void layout_add_disk(struct layout *layout, struct disk *disk);
/* The LUN is gone; target_drop_disk() when its file is released. */
void layout_remove_disk(struct layout *layout, struct disk *disk);
void layout_free(struct layout *layout);

/* The sentence for a mount that would show nothing. Free with g_free(). */
char *layout_explain_empty(const GPtrArray *targets);
