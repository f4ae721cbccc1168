/*
 * pool.c - buffers in size classes, and slabs of objects.
 *
 * Classes of 64 KiB and more are mapped one by one: what is unmapped is the system's again at once.
 * Smaller ones are cut from slabs of 256 KiB, which stay until pool_free(). Returned buffers are
 * kept in a list per class, through their first words, the last one first as it is the warmest in
 * the CPU's cache.
 *
 * Invariants: kept counts the large buffers in the lists; a returned buffer is kept only where
 * in_use + kept stays within keep. Under AddressSanitizer what lies in a list is poisoned.
 */
#include "lunfs/pool.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lunfs/log.h"
#include "poison.h"

enum {
	CLASSES = 10,     /* 4 KiB << 0 ... 4 KiB << 9 */
	FIRST_LARGE = 4,  /* 64 KiB */
	OBJECTS = 64,     /* of a slab, at a time */
	CHUNK_HEADER = 64 /* keeps the objects aligned for any type */
};
#define CUT_SIZE (256u << 10)

/* A mapping from which small buffers are cut. */
struct cut {
	struct cut *next;
	uint8_t *memory;
};

struct size_class {
	void *free;               /* a list through the buffers' first words */
	uint8_t *rest, *rest_end; /* of the newest cut, small classes only */
};

struct pool {
	size_t keep, kept, in_use;
	bool idle; /* nothing was taken since pool_trim() */
	struct cut *cuts;
	struct size_class classes[CLASSES];
};

static size_t class_size(unsigned class)
{
	return (size_t)POOL_MIN_SIZE << class;
}

static unsigned class_of(size_t size)
{
	assert(size <= POOL_MAX_SIZE);
	return size <= POOL_MIN_SIZE ? 0 : 52u - (unsigned)__builtin_clzll(size - 1);
}

static void *memory_map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

static void memory_unmap(void *memory, size_t size)
{
	UNPOISON(memory, size); /* for whoever is mapped there next */
	munmap(memory, size);
}

static void free_push(void **list, void *item, size_t size)
{
	*(void **)item = *list;
	*list = item;
	POISON(item, size);
}

static void *free_pop(void **list, size_t size)
{
	void *item = *list;
	UNPOISON(item, size);
	*list = *(void **)item;
	return item;
}

struct pool *pool_new(size_t keep)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	if (pool)
		pool->keep = keep;
	return pool;
}

static void pool_unmap_one(struct pool *pool, unsigned class)
{
	size_t size = class_size(class);
	memory_unmap(free_pop(&pool->classes[class].free, size), size);
	pool->kept -= size;
}

static void pool_unmap_kept(struct pool *pool)
{
	for (unsigned i = FIRST_LARGE; i < CLASSES; i++) {
		while (pool->classes[i].free)
			pool_unmap_one(pool, i);
	}
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	if (pool->in_use)
		log_warning("pool: %zu bytes were never returned", pool->in_use);
	pool_unmap_kept(pool);
	while (pool->cuts) {
		struct cut *cut = pool->cuts;
		pool->cuts = cut->next;
		memory_unmap(cut->memory, CUT_SIZE);
		free(cut);
	}
	free(pool);
}

static bool pool_cut(struct pool *pool, struct size_class *class)
{
	struct cut *cut = malloc(sizeof(*cut));
	if (!cut)
		return false;
	cut->memory = memory_map(CUT_SIZE);
	if (!cut->memory) {
		free(cut);
		return false;
	}
	cut->next = pool->cuts;
	pool->cuts = cut;
	class->rest = cut->memory;
	class->rest_end = cut->memory + CUT_SIZE;
	POISON(cut->memory, CUT_SIZE);
	return true;
}

static void *pool_get_small(struct pool *pool, struct size_class *class, size_t size)
{
	if (class->rest == class->rest_end && !pool_cut(pool, class))
		return NULL;
	void *buffer = class->rest;
	class->rest += size;
	UNPOISON(buffer, size);
	return buffer;
}

void *pool_get(struct pool *pool, size_t wanted)
{
	unsigned index = class_of(wanted);
	struct size_class *class = &pool->classes[index];
	size_t size = class_size(index);
	void *buffer;

	if (class->free) {
		buffer = free_pop(&class->free, size);
		if (index >= FIRST_LARGE)
			pool->kept -= size;
	} else {
		buffer =
		    index >= FIRST_LARGE ? memory_map(size) : pool_get_small(pool, class, size);
	}
	if (buffer)
		pool->in_use += size;
	pool->idle = false;
	return buffer;
}

/*
 * Makes room for one more kept buffer of a class, at the cost of the others: else what an earlier
 * load left behind would deny the present one its own size for ever.
 */
static bool pool_make_room(struct pool *pool, unsigned class)
{
	size_t size = class_size(class);

	for (unsigned other = CLASSES; other-- > FIRST_LARGE;) {
		while (pool->in_use + pool->kept + size > pool->keep && other != class &&
		       pool->classes[other].free)
			pool_unmap_one(pool, other);
	}
	return pool->in_use + pool->kept + size <= pool->keep;
}

void pool_put(struct pool *pool, void *buffer, size_t wanted)
{
	unsigned class = class_of(wanted);
	size_t size = class_size(class);

	if (!buffer)
		return;
	assert(pool->in_use >= size);
	pool->in_use -= size;
	if (class >= FIRST_LARGE && !pool_make_room(pool, class)) {
		memory_unmap(buffer, size);
		return;
	}
	if (class >= FIRST_LARGE)
		pool->kept += size;
	free_push(&pool->classes[class].free, buffer, size);
}

size_t pool_in_use(const struct pool *pool)
{
	return pool->in_use;
}

void pool_trim(struct pool *pool)
{
	if (pool->idle)
		pool_unmap_kept(pool);
	pool->idle = true;
}

/* ---- slabs ---- */

static size_t slab_stride(const struct slab *slab)
{
	const size_t align = _Alignof(max_align_t);
	size_t size = slab->size < sizeof(void *) ? sizeof(void *) : slab->size;
	return (size + align - 1) / align * align;
}

/* A chunk is a pointer to the next chunk, then the objects. */
static bool slab_grow(struct slab *slab)
{
	size_t stride = slab_stride(slab);
	uint8_t *chunk = aligned_alloc(CHUNK_HEADER, CHUNK_HEADER + OBJECTS * stride);

	if (!chunk)
		return false;
	*(void **)chunk = slab->chunks;
	slab->chunks = chunk;
	for (unsigned i = OBJECTS; i-- > 0;)
		free_push(&slab->free, chunk + CHUNK_HEADER + i * stride, stride);
	return true;
}

void *slab_get(struct slab *slab)
{
	if (!slab->free && !slab_grow(slab))
		return NULL;
	void *object = free_pop(&slab->free, slab_stride(slab));
	return memset(object, 0, slab->size);
}

void slab_put(struct slab *slab, void *object)
{
	if (object)
		free_push(&slab->free, object, slab_stride(slab));
}

void slab_clear(struct slab *slab)
{
	while (slab->chunks) {
		void *chunk = slab->chunks;
		slab->chunks = *(void **)chunk;
		UNPOISON((uint8_t *)chunk + CHUNK_HEADER, OBJECTS * slab_stride(slab));
		free(chunk);
	}
	slab->free = NULL;
}
