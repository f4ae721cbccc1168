/*
 * fs_places.c - see fs_places.h.
 */
#include "support/fs_places.h"
#include "support/memory_block.h"

#include <string.h>
#include <unistd.h>

struct places {
	struct fs *fs;
	struct loop *loop;
	struct pool *pool;
	struct block *const *blocks;
	GHashTable *by_path;
	GPtrArray *removed; /* that were not released */
	unsigned released, texts;
};

/* What the test can name. */
struct place {
	struct places *places;
	struct node *node;
	struct block *own;
	uint64_t length; /* of a text */
};

/* What was removed together. */
struct removed {
	struct places *places;
	GPtrArray *blocks;
};

static void free_block(void *block)
{
	block_free(block);
}

static void removed_free(void *data)
{
	struct removed *removed = data;

	g_ptr_array_unref(removed->blocks);
	g_free(removed);
}

struct places *places_new(
    struct fs *fs, struct loop *loop, struct pool *pool, struct block *const *blocks)
{
	struct places *places = g_new0(struct places, 1);

	*places = (struct places){
	    .fs = fs,
	    .loop = loop,
	    .pool = pool,
	    .blocks = blocks,
	    .by_path = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
	    .removed = g_ptr_array_new_with_free_func(removed_free),
	};
	return places;
}

void places_free(struct places *places)
{
	GHashTableIter iter;
	gpointer place;

	g_hash_table_iter_init(&iter, places->by_path);
	while (g_hash_table_iter_next(&iter, NULL, &place))
		if (((struct place *)place)->own != NULL)
			block_free(((struct place *)place)->own);
	g_hash_table_unref(places->by_path);
	g_ptr_array_unref(places->removed);
	g_free(places);
}

static struct place *places_find(const struct places *places, const char *path)
{
	return g_hash_table_lookup(places->by_path, path);
}

struct node *places_node(const struct places *places, const char *path)
{
	return places_find(places, path)->node;
}

static struct place *places_make(struct places *places, const char *path)
{
	struct place *place = g_new0(struct place, 1);

	place->places = places;
	g_hash_table_insert(places->by_path, g_strdup(path), place);
	return place;
}

void places_set(struct places *places, const char *path, struct node *node)
{
	places_make(places, path)->node = node;
}

unsigned places_released(const struct places *places)
{
	return places->released;
}

unsigned places_texts(const struct places *places)
{
	return places->texts;
}

/* ---- adding ---- */

static struct node *parent_of(struct places *places, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');

	*name = slash != NULL ? slash + 1 : path;
	if (slash == NULL)
		return fs_root(places->fs);
	g_autofree char *parent = g_strndup(path, (size_t)(slash - path));
	return places_node(places, parent);
}

static char *make_text(void *data)
{
	const struct place *place = data;
	uint64_t length = place->length + place->places->texts++;
	char *made = g_malloc(length + 1);

	memset(made, 'a' + (int)(length % 26), length);
	made[length] = '\0';
	return made;
}

static void add_disk(struct places *places, struct place *place, struct node *parent,
    const char *name, const char *path, uint64_t number)
{
	struct block *block = number == FS_OWN ? NULL : places->blocks[number];
	const char *const attributes[] = {"serial", "S1", NULL};

	if (block == NULL) {
		struct memory_block *memory = memory_block_new(places->loop, OWN_SIZE, 512);
		block = place->own = align_new(&memory->block, places->loop, places->pool);
	}
	place->node = fs_add_disk(places->fs, parent, name, path, block, false, attributes);
}

static void add(
    struct places *places, enum change change, const char *path, uint64_t value, const char *other)
{
	const struct fs_owner owner = {(uid_t)value, (gid_t)value, 027};
	const char *name;
	struct node *parent = parent_of(places, path, &name);
	struct place *place = places_make(places, path);

	if (change == ADD_DIRECTORY) {
		place->node =
		    fs_add_directory(places->fs, parent, name, path, value != 0 ? &owner : NULL);
	} else if (change == ADD_LINK) {
		place->node = fs_add_link(places->fs, parent, name, other);
	} else if (change == ADD_TEXT) {
		place->length = value;
		place->node = fs_add_text(places->fs, parent, name, make_text, place);
	} else {
		add_disk(places, place, parent, name, path, value);
	}
}

/* ---- removing ---- */

/* Nobody touches the blocks any more. */
static void released(void *data)
{
	struct removed *removed = data;
	struct places *places = removed->places;

	places->released++;
	if (!g_ptr_array_remove(places->removed, removed))
		_exit(6); /* twice */
}

static void take_away(struct places *places, const char *path)
{
	struct node *node = places_node(places, path);
	struct removed *removed = g_new0(struct removed, 1);
	g_autofree char *inside = g_strconcat(path, "/", NULL);
	unsigned before = places->released;
	GHashTableIter iter;
	gpointer key, value;

	*removed = (struct removed){places, g_ptr_array_new_with_free_func(free_block)};
	g_ptr_array_add(places->removed, removed);
	g_hash_table_iter_init(&iter, places->by_path);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		struct place *place = value;

		if (!g_str_has_prefix(key, inside) && strcmp(key, path) != 0)
			continue;
		if (place->own != NULL)
			g_ptr_array_add(removed->blocks, place->own);
		g_hash_table_iter_remove(&iter); /* who makes a text goes, too */
	}
	fs_remove(places->fs, node, released, removed);
	if (places->released != before)
		_exit(5); /* from inside */
}

int64_t places_change(
    struct places *places, enum change change, const char *path, uint64_t value, const char *other)
{
	const char *name;

	if (change == HAS_NAME) {
		struct node *parent = parent_of(places, path, &name);
		return fs_has_name(parent, name);
	}
	if (change == REMOVE || change == REPLACE)
		take_away(places, path);
	if (change != REMOVE)
		add(places, change, path, value, other);
	return 0;
}
