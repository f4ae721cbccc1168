/*
 * pool.h - memory for I/O without an allocation per I/O.
 *
 * A pool hands out page-aligned buffers in sizes of powers of two from 4 KiB to 2 MiB, and keeps
 * what comes back, up to a bound; pool_trim() gives the kept ones back to the system when the file
 * is idle. A slab hands out zeroed objects of one size. Neither is for use by two threads.
 */
#pragma once

#include <stddef.h>

#define POOL_MIN_SIZE 4096u
#define POOL_MAX_SIZE (2u << 20)

struct pool;

/* Keeps at most keep bytes of returned buffers. */
struct pool *pool_new(size_t keep);
void pool_free(struct pool *pool);
/* A buffer of at least size bytes (at most POOL_MAX_SIZE), its content undefined; NULL without
 * memory. */
void *pool_get(struct pool *pool, size_t size);
/* Gives back what pool_get() gave for the same size. NULL is allowed. */
void pool_put(struct pool *pool, void *buffer, size_t size);
/* Bytes handed out and not yet returned, in the sizes that were given for them. */
size_t pool_in_use(const struct pool *pool);
/* Returns kept buffers to the system if nothing was taken since the last call. */
void pool_trim(struct pool *pool);

struct slab {
	size_t size;  /* of an object */
	void *free;   /* a list through the objects' first words */
	void *chunks; /* private: what the objects were cut from */
};

void *slab_get(struct slab *slab);
void slab_put(struct slab *slab, void *object);
void slab_clear(struct slab *slab);
