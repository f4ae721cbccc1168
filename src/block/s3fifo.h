/*
 * s3fifo.h - which page goes when room is needed: S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO
 * queues are all you need for cache eviction", SOSP 2023).
 *
 * New keys enter a small FIFO; those used again by the time they leave it move to the main FIFO,
 * the others are forgotten but for their key, kept in a ghost FIFO: who comes back from there
 * enters the main one at once. A big sequential scan passes through the small FIFO and leaves the
 * main one alone. Nothing is moved on a hit, and no memory is allocated but in s3fifo_new().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Embedded in a page. Zeros: in no queue. */
struct s3fifo_node {
	struct s3fifo_node *newer, *older;
	uint64_t key; /* what the ghosts remember: of all pages of all LUNs */
	uint8_t uses; /* 0 to 3 */
	uint8_t queue;
};

struct s3fifo;

/* capacity: pages that there may be; the small FIFO aims at a tenth of those that are in it. */
struct s3fifo *s3fifo_new(size_t capacity);
void s3fifo_free(struct s3fifo *fifo);

/* key, set by the caller, is in no queue. */
void s3fifo_insert(struct s3fifo *fifo, struct s3fifo_node *node);
/* Takes it out, wherever it is, and remembers nothing: its content is not wanted any more. */
void s3fifo_remove(struct s3fifo *fifo, struct s3fifo_node *node);
/* It was used. */
static inline void s3fifo_use(struct s3fifo_node *node)
{
	if (node->uses < 3)
		node->uses++;
}
static inline bool s3fifo_holds(const struct s3fifo_node *node)
{
	return node->queue != 0;
}
/*
 * The one to go, taken out; NULL where none may. may_go() is asked of a candidate; one that may not
 * go (dirty, in use) stays, and is passed over: each at most once or twice a call.
 */
struct s3fifo_node *s3fifo_evict(
    struct s3fifo *fifo, bool (*may_go)(const struct s3fifo_node *node, void *data), void *data);
size_t s3fifo_count(const struct s3fifo *fifo);
/* Of them those in the main FIFO, which were used again. */
size_t s3fifo_main(const struct s3fifo *fifo);
/* Asserts the invariants. */
void s3fifo_check(const struct s3fifo *fifo);
