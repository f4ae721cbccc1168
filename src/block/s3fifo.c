/*
 * s3fifo.c - which page goes when room is needed: see s3fifo.h.
 *
 *   new key ──► small ──── used less ────► gone, its key among the ghosts
 *                 │                                │
 *            used enough                  it comes back in time
 *                 ▼                                │
 *               main ◄─────────────────────────────┘
 *              │    ▲
 *     not used ▼    └── used: once more around, one use less
 *            gone
 *
 * Owns the ghosts: a ring of keys, and chains through it from a table of hashes. A ghost that came
 * back leaves a hole in the ring, which the hand reaches in time: so a ghost's age is the number of
 * those that became ghosts after it. The nodes are the caller's.
 *
 * An eviction looks at a few of the oldest of a queue, not at all: it runs between two requests of
 * the one thread that there is. Only where none of those may go is a whole queue walked. Who was
 * looked at and stays is the newest of its queue then, so the next call goes on behind it.
 *
 * Invariants: a node is in the queue that it names, linked both ways; the counts are the lengths; a
 * key is a ghost at most once, and not while its node is in a queue; a ghost is in the chain of its
 * hash.
 */
#include "s3fifo.h"

#include <assert.h>
#include <glib.h>

enum {
	/*
	 * Uses of a page in the small queue that take it to the main one, as in the paper's code.
	 * With 1, test_s3fifo_trace's hit ratios are the same within half a percent, but for scans
	 * that were read ahead: those use each page once, and would flow through the main queue
	 * (9.7 % instead of 19.1 %, and LRU's 10 %).
	 */
	USES_TO_STAY = 2,
	/* Pages looked at in a queue before the other one is tried: few enough to take
	 * microseconds, and enough that the ratios are those of looking at all (within 2 %). */
	LOOKS = 128,
};

enum { QUEUE_NONE, QUEUE_SMALL, QUEUE_MAIN, QUEUES };

struct queue {
	struct s3fifo_node *oldest, *newest;
	size_t count;
};

struct ghost {
	uint64_t key;
	uint32_t next; /* of its chain: an index in the ring, plus 1; 0: the last */
	bool held;     /* or a hole */
};

struct s3fifo {
	struct queue queues[QUEUES];
	struct ghost *ghosts; /* the ring */
	uint32_t *chains;     /* their first ghosts: indices, plus 1 */
	uint32_t slots, hand; /* of the ring; where the next ghost goes: the oldest's place */
	unsigned shift;       /* 64 - log2 of the number of chains */
};

typedef bool (*may_go_fn)(const struct s3fifo_node *node, void *data);

/* ---- the ghosts ---- */

/* The link to key's ghost, or the one that ends its chain. */
static uint32_t *ghost_link(const struct s3fifo *fifo, uint64_t key)
{
	/* Keys are page numbers, with little in their upper bits: Fibonacci hashing spreads them */
	uint32_t *link = &fifo->chains[(key * UINT64_C(0x9e3779b97f4a7c15)) >> fifo->shift];

	while (*link && fifo->ghosts[*link - 1].key != key)
		link = &fifo->ghosts[*link - 1].next;
	return link;
}

static bool ghost_remove(struct s3fifo *fifo, uint64_t key)
{
	uint32_t *link = ghost_link(fifo, key);

	if (!*link)
		return false;
	struct ghost *ghost = &fifo->ghosts[*link - 1];
	*link = ghost->next;
	ghost->held = false;
	return true;
}

static void ghost_add(struct s3fifo *fifo, uint64_t key)
{
	struct ghost *ghost = &fifo->ghosts[fifo->hand];

	if (ghost->held)
		ghost_remove(fifo, ghost->key);
	*ghost = (struct ghost){.key = key, .held = true};
	*ghost_link(fifo, key) = fifo->hand + 1;
	fifo->hand = (fifo->hand + 1) % fifo->slots;
}

/* ---- the queues ---- */

static void queue_push(struct s3fifo *fifo, struct s3fifo_node *node, uint8_t which)
{
	struct queue *queue = &fifo->queues[which];

	node->queue = which;
	node->newer = NULL;
	node->older = queue->newest;
	*(queue->newest ? &queue->newest->newer : &queue->oldest) = node;
	queue->newest = node;
	queue->count++;
}

static void queue_remove(struct s3fifo *fifo, struct s3fifo_node *node)
{
	struct queue *queue = &fifo->queues[node->queue];

	*(node->older ? &node->older->newer : &queue->oldest) = node->newer;
	*(node->newer ? &node->newer->older : &queue->newest) = node->older;
	queue->count--;
	node->newer = node->older = NULL;
	node->queue = QUEUE_NONE;
}

static void queue_move(struct s3fifo *fifo, struct s3fifo_node *node, uint8_t to)
{
	queue_remove(fifo, node);
	queue_push(fifo, node, to);
}

/* ---- who goes ---- */

/* Looks at so many of the small queue; takes one out, or none. */
static struct s3fifo_node *small_evict(
    struct s3fifo *fifo, size_t looks, may_go_fn may_go, void *data)
{
	struct queue *queue = &fifo->queues[QUEUE_SMALL];
	struct s3fifo_node *node;

	for (looks = MIN(looks, queue->count); looks && (node = queue->oldest); looks--) {
		if (node->uses >= USES_TO_STAY) {
			node->uses = 0;
			queue_move(fifo, node, QUEUE_MAIN);
		} else if (may_go(node, data)) {
			queue_remove(fifo, node);
			ghost_add(fifo, node->key);
			return node;
		} else {
			queue_move(fifo, node, QUEUE_SMALL);
		}
	}
	return NULL;
}

/*
 * The same of the main queue. Where all that may go were used, the least used of them goes: to walk
 * on until somebody's uses are used up would end at nearly the same one, after up to three walks
 * around the queue.
 */
static struct s3fifo_node *main_evict(
    struct s3fifo *fifo, size_t looks, may_go_fn may_go, void *data)
{
	struct queue *queue = &fifo->queues[QUEUE_MAIN];
	struct s3fifo_node *node, *least = NULL;

	for (looks = MIN(looks, queue->count); looks && (node = queue->oldest); looks--) {
		if (may_go(node, data)) {
			if (node->uses == 0) {
				least = node;
				break;
			}
			node->uses--;
			if (!least || node->uses < least->uses)
				least = node;
		}
		queue_move(fifo, node, QUEUE_MAIN);
	}
	if (least)
		queue_remove(fifo, least);
	return least;
}

struct s3fifo_node *s3fifo_evict(struct s3fifo *fifo, may_go_fn may_go, void *data)
{
	bool from_small = fifo->queues[QUEUE_SMALL].count * 10 >= s3fifo_count(fifo);
	struct s3fifo_node *node = NULL;

	/* When much is written one queue may be all dirty, and the other have many to go: both are
	 * tried before one is walked to its end. */
	if (from_small)
		node = small_evict(fifo, LOOKS, may_go, data);
	if (!node)
		node = main_evict(fifo, LOOKS, may_go, data);
	if (!node && !from_small)
		node = small_evict(fifo, LOOKS, may_go, data);
	/* The main queue last: the small one's end may move there, and was not asked yet then. */
	if (!node)
		node = small_evict(fifo, SIZE_MAX, may_go, data);
	if (!node)
		node = main_evict(fifo, SIZE_MAX, may_go, data);
	return node;
}

/* ---- the rest ---- */

struct s3fifo *s3fifo_new(size_t capacity)
{
	struct s3fifo *fifo = g_new0(struct s3fifo, 1);
	unsigned bits = 1;

	assert(capacity < UINT32_MAX);
	fifo->slots = (uint32_t)MAX(1, capacity - capacity / 10);
	while (UINT64_C(1) << bits < fifo->slots)
		bits++;
	fifo->shift = 64 - bits;
	fifo->ghosts = g_new0(struct ghost, fifo->slots);
	fifo->chains = g_new0(uint32_t, (size_t)1 << bits);
	return fifo;
}

void s3fifo_free(struct s3fifo *fifo)
{
	if (!fifo)
		return;
	g_free(fifo->ghosts);
	g_free(fifo->chains);
	g_free(fifo);
}

void s3fifo_insert(struct s3fifo *fifo, struct s3fifo_node *node)
{
	assert(!s3fifo_holds(node));
	node->uses = 0;
	queue_push(fifo, node, ghost_remove(fifo, node->key) ? QUEUE_MAIN : QUEUE_SMALL);
}

void s3fifo_remove(struct s3fifo *fifo, struct s3fifo_node *node)
{
	if (s3fifo_holds(node))
		queue_remove(fifo, node);
}

size_t s3fifo_count(const struct s3fifo *fifo)
{
	return fifo->queues[QUEUE_SMALL].count + fifo->queues[QUEUE_MAIN].count;
}

size_t s3fifo_main(const struct s3fifo *fifo)
{
	return fifo->queues[QUEUE_MAIN].count;
}

static void queue_check(const struct s3fifo *fifo, uint8_t which)
{
	const struct queue *queue = &fifo->queues[which];
	const struct s3fifo_node *older = NULL;
	size_t count = 0;

	for (const struct s3fifo_node *node = queue->oldest; node; node = node->newer) {
		assert(node->older == older && node->queue == which && node->uses <= 3);
		assert(*ghost_link(fifo, node->key) == 0);
		older = node;
		count++;
	}
	assert(queue->newest == older && queue->count == count);
}

void s3fifo_check(const struct s3fifo *fifo)
{
	size_t held = 0, chained = 0;

	queue_check(fifo, QUEUE_SMALL);
	queue_check(fifo, QUEUE_MAIN);
	assert(fifo->queues[QUEUE_NONE].count == 0 && fifo->hand < fifo->slots);
	for (uint32_t i = 0; i < fifo->slots; i++) {
		if (!fifo->ghosts[i].held)
			continue;
		assert(*ghost_link(fifo, fifo->ghosts[i].key) == i + 1);
		held++;
	}
	for (size_t chain = 0; chain < (size_t)1 << (64 - fifo->shift); chain++)
		for (uint32_t at = fifo->chains[chain]; at; at = fifo->ghosts[at - 1].next)
			chained++;
	assert(chained == held);
}
