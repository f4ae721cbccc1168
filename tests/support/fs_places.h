/*
 * fs_places.h - what comes and goes in the tree of an fs_scene, by paths: in the child that serves.
 */
#pragma once

#include "support/fs_scene.h"

#include "lunfs/fs.h"

struct places;

/* blocks are those of the disks by number. */
struct places *places_new(
    struct fs *fs, struct loop *loop, struct pool *pool, struct block *const *blocks);
/* After fs_free(). */
void places_free(struct places *places);
void places_set(struct places *places, const char *path, struct node *node);
struct node *places_node(const struct places *places, const char *path);
/* All but FLUSH_TOP; what it answers. */
int64_t places_change(
    struct places *places, enum change change, const char *path, uint64_t value, const char *other);
unsigned places_released(const struct places *places);
unsigned places_texts(const struct places *places);
