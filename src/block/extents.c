/*
 * extents.c - the store of what is kept: see extents.h.
 *
 * A treap of extents ordered by offset, threaded by a list from the oldest to the newest write. The
 * data of a write lies in buffers of the pool, one for each extent it makes; an extent that is cut
 * in two shares its buffer, which is given back with the last of its users.
 *
 *   root ──► treap by start          [0,4k)   [8k,12k)   [12k,20k)   [64k,1M) ZERO
 *   oldest ──► list by sequence         7  ◄──►  7   ◄──►   9   ◄──►   12        ◄── newest
 *                                       └──┬─────┘          │
 *   buffers                          one of 16k          one of 8k
 *
 * Invariants: extents are not empty, disjoint and in order; both structures hold the same ones;
 * sequence numbers do not fall along the list; data lies in the extent's buffer; kept, memory, due
 * and count are the sums. An extent that failed is due. Nothing is changed before all memory for
 * the change is there.
 */
#include "extents.h"

#include <assert.h>
#include <string.h>

struct buffer {
	uint8_t *memory; /* the pool's */
	size_t size;
	unsigned users;
};

struct extent {
	uint64_t start, end, sequence;
	enum io_op op;
	bool due, failed;
	struct buffer *buffer; /* of a WRITE */
	uint8_t *data;
	uint32_t priority;
	struct extent *left, *right;
	struct extent *older, *newer; /* a new one that is in no tree yet: newer is the next */
};

/* ---- the treap ---- */

/* Into those before offset and those from there on. */
static void tree_split(
    struct extent *node, uint64_t offset, struct extent **before, struct extent **after)
{
	while (node) {
		if (node->start < offset) {
			*before = node;
			before = &node->right;
			node = node->right;
		} else {
			*after = node;
			after = &node->left;
			node = node->left;
		}
	}
	*before = *after = NULL;
}

static struct extent *tree_join(struct extent *left, struct extent *right)
{
	struct extent *root, **link = &root;

	while (left && right) {
		if (left->priority > right->priority) {
			*link = left;
			link = &left->right;
			left = left->right;
		} else {
			*link = right;
			link = &right->left;
			right = right->left;
		}
	}
	*link = left ? left : right;
	return root;
}

static void tree_insert(struct extent **link, struct extent *extent)
{
	while (*link && (*link)->priority >= extent->priority)
		link = extent->start < (*link)->start ? &(*link)->left : &(*link)->right;
	tree_split(*link, extent->start, &extent->left, &extent->right);
	*link = extent;
}

static void tree_remove(struct extent **link, const struct extent *extent)
{
	while (*link != extent)
		link = extent->start < (*link)->start ? &(*link)->left : &(*link)->right;
	*link = tree_join(extent->left, extent->right);
}

/* The first that ends after offset. */
static struct extent *extents_find(const struct extents *extents, uint64_t offset)
{
	struct extent *found = NULL;

	for (struct extent *node = extents->root; node;) {
		if (node->end > offset) {
			found = node;
			node = node->left;
		} else {
			node = node->right;
		}
	}
	return found;
}

/* xorshift32, as in range_lock.c */
static uint32_t extents_random(struct extents *extents)
{
	uint32_t x = extents->random ? extents->random : 2463534242u;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return extents->random = x;
}

/* ---- one extent ---- */

static struct extent *extent_get(struct extents *extents)
{
	struct extent *extent = extents->spare ? extents->spare : slab_get(&extents->nodes);

	extents->spare = NULL;
	return extent;
}

static void buffer_drop(struct extents *extents, struct buffer *buffer)
{
	if (!buffer || --buffer->users)
		return;
	extents->memory -= buffer->size + sizeof(*buffer);
	pool_put(extents->pool, buffer->memory, buffer->size);
	slab_put(&extents->buffers, buffer);
}

/* Into the tree, and into the list behind `older`; all else of it is set. */
static void extent_link(struct extents *extents, struct extent *extent, struct extent *older)
{
	extent->older = older;
	extent->newer = older ? older->newer : extents->oldest;
	*(extent->newer ? &extent->newer->older : &extents->newest) = extent;
	*(older ? &older->newer : &extents->oldest) = extent;
	extent->priority = extents_random(extents);
	tree_insert(&extents->root, extent);
	extents->kept += extent->end - extent->start;
	extents->memory += sizeof(*extent);
	extents->due += extent->due;
	extents->count++;
}

static void extent_drop(struct extents *extents, struct extent *extent)
{
	*(extent->newer ? &extent->newer->older : &extents->newest) = extent->older;
	*(extent->older ? &extent->older->newer : &extents->oldest) = extent->newer;
	tree_remove(&extents->root, extent);
	extents->kept -= extent->end - extent->start;
	extents->memory -= sizeof(*extent);
	extents->due -= extent->due;
	extents->count--;
	buffer_drop(extents, extent->buffer);
	slab_put(&extents->nodes, extent);
}

/* Its order in the tree stays: what is cut off is nobody's. */
static void extent_cut_head(struct extents *extents, struct extent *extent, uint64_t start)
{
	extents->kept -= start - extent->start;
	if (extent->data)
		extent->data += start - extent->start;
	extent->start = start;
}

static void extent_cut_tail(struct extents *extents, struct extent *extent, uint64_t end)
{
	extents->kept -= extent->end - end;
	extent->end = end;
}

/* Takes [start, end) out of the middle; the spare becomes what is behind it. */
static void extent_cut_middle(
    struct extents *extents, struct extent *extent, uint64_t start, uint64_t end)
{
	struct extent *behind = extent_get(extents);

	*behind = *extent;
	behind->start = end;
	if (behind->data)
		behind->data += end - extent->start;
	if (behind->buffer)
		behind->buffer->users++;
	extent_cut_tail(extents, extent, start);
	extent_link(extents, behind, extent);
}

/* ---- changing ---- */

/* What a cut may need. */
static bool extents_have_spare(struct extents *extents)
{
	if (!extents->spare)
		extents->spare = slab_get(&extents->nodes);
	return extents->spare != NULL;
}

static void extents_cut(struct extents *extents, uint64_t start, uint64_t end)
{
	struct extent *extent;

	while ((extent = extents_find(extents, start)) && extent->start < end) {
		if (extent->start < start && extent->end > end)
			extent_cut_middle(extents, extent, start, end);
		else if (extent->start < start)
			extent_cut_tail(extents, extent, start);
		else if (extent->end > end)
			extent_cut_head(extents, extent, end);
		else
			extent_drop(extents, extent);
	}
}

/* How much of a WRITE goes into one buffer: the largest power of two that is not larger, so that
 * little is wasted; but for less than the smallest there is no smaller one. */
static uint64_t extents_piece(uint64_t length)
{
	if (length >= EXTENTS_RUN)
		return EXTENTS_RUN;
	if (length <= POOL_MIN_SIZE)
		return length;
	return UINT64_C(1) << (63 - __builtin_clzll(length));
}

static size_t buffer_size(uint64_t piece)
{
	return MAX(piece, POOL_MIN_SIZE);
}

size_t extents_cost(enum io_op op, uint64_t length)
{
	size_t cost = 2 * sizeof(struct extent); /* it may cut one in two */

	if (op != IO_WRITE)
		return cost;
	for (uint64_t piece; length; length -= piece) {
		piece = extents_piece(length);
		cost += buffer_size(piece) + sizeof(struct buffer) + sizeof(struct extent);
	}
	return cost;
}

static struct buffer *buffer_new(struct extents *extents, uint64_t piece)
{
	struct buffer *buffer = slab_get(&extents->buffers);

	if (!buffer)
		return NULL;
	buffer->size = buffer_size(piece);
	buffer->users = 1;
	buffer->memory = pool_get(extents->pool, buffer->size);
	if (!buffer->memory) {
		slab_put(&extents->buffers, buffer);
		return NULL;
	}
	extents->memory += buffer->size + sizeof(*buffer);
	return buffer;
}

/* Gives back what extents_make() made. */
static void extents_unmake(struct extents *extents, struct extent *made)
{
	while (made) {
		struct extent *next = made->newer;
		buffer_drop(extents, made->buffer);
		slab_put(&extents->nodes, made);
		made = next;
	}
}

/* The new extents for a range, in no tree yet, as a list. */
static struct extent *extents_make(
    struct extents *extents, enum io_op op, uint64_t start, uint64_t end, uint64_t sequence)
{
	struct extent *first = NULL, **link = &first;

	while (start < end) {
		uint64_t piece = op == IO_WRITE ? extents_piece(end - start) : end - start;
		struct extent *extent = *link = slab_get(&extents->nodes);

		if (!extent)
			break;
		extent->start = start;
		extent->end = start + piece;
		extent->sequence = sequence;
		extent->op = op;
		if (op == IO_WRITE) {
			extent->buffer = buffer_new(extents, piece);
			if (!extent->buffer)
				break;
			extent->data = extent->buffer->memory;
		}
		link = &extent->newer;
		start += piece;
	}
	if (start >= end)
		return first;
	extents_unmake(extents, first);
	return NULL;
}

static void extents_fill(struct extent *first, const struct iovec *iov, int niov)
{
	struct extent *extent = first;
	uint64_t at = 0;

	for (int i = 0; i < niov; i++) {
		const uint8_t *from = iov[i].iov_base;
		for (size_t left = iov[i].iov_len; left && extent;) {
			size_t length = MIN(left, extent->end - extent->start - at);
			memcpy(extent->data + at, from, length);
			from += length;
			left -= length;
			at += length;
			if (at == extent->end - extent->start) {
				extent = extent->newer;
				at = 0;
			}
		}
	}
}

bool extents_keep(struct extents *extents, enum io_op op, uint64_t start, uint64_t length,
    const struct iovec *iov, int niov, uint64_t sequence)
{
	struct extent *made;

	assert(!extents->newest || extents->newest->sequence <= sequence);
	if (!length)
		return true;
	made = extents_have_spare(extents)
	           ? extents_make(extents, op, start, start + length, sequence)
	           : NULL;
	if (!made)
		return false;
	if (op == IO_WRITE)
		extents_fill(made, iov, niov);
	extents_cut(extents, start, start + length);
	while (made) {
		struct extent *next = made->newer;
		extent_link(extents, made, extents->newest);
		made = next;
	}
	return true;
}

bool extents_remove(struct extents *extents, uint64_t start, uint64_t length)
{
	if (!extents->root)
		return true;
	if (!extents_have_spare(extents))
		return false;
	extents_cut(extents, start, start + length);
	return true;
}

bool extents_release(struct extents *extents, uint64_t sequence)
{
	unsigned before = extents->count;

	for (struct extent *extent = extents->oldest; extent && extent->sequence <= sequence;) {
		struct extent *newer = extent->newer;
		if (!extent->due)
			extent_drop(extents, extent);
		extent = newer;
	}
	return extents->count != before;
}

void extents_clear(struct extents *extents)
{
	while (extents->oldest)
		extent_drop(extents, extents->oldest);
}

/* ---- sending again ---- */

void extents_lose(struct extents *extents)
{
	for (struct extent *extent = extents->oldest; extent; extent = extent->newer)
		extent->due = true;
	extents->due = extents->count;
}

static bool extent_joins(const struct extent *extent, const struct io *io, int max_iov)
{
	return extent->due && !extent->failed && extent->op == IO_WRITE && io->op == IO_WRITE &&
	       extent->start == io->offset + io->length && io->niov < max_iov &&
	       io->length + (extent->end - extent->start) <= EXTENTS_RUN;
}

static void extent_add(struct extent *extent, struct io *io, struct iovec *iov)
{
	uint64_t length = extent->end - extent->start;

	if (extent->op == IO_WRITE)
		iov[io->niov++] = (struct iovec){extent->data, length};
	io->length += length;
}

bool extents_collect(
    struct extents *extents, uint64_t from, struct io *io, struct iovec *iov, int max_iov)
{
	struct extent *extent = extents->due ? extents_find(extents, from) : NULL;

	while (extent && !extent->due)
		extent = extents_find(extents, extent->end);
	if (!extent)
		return false;
	io->op = extent->op;
	io->offset = extent->start;
	io->length = 0;
	io->iov = extent->op == IO_WRITE ? iov : NULL;
	io->niov = 0;
	extent_add(extent, io, iov);
	if (extent->failed)
		return true;
	while ((extent = extents_find(extents, extent->end)) && extent_joins(extent, io, max_iov))
		extent_add(extent, io, iov);
	return true;
}

void extents_settle(struct extents *extents, uint64_t start, uint64_t length, bool at_target)
{
	struct extent *extent = extents_find(extents, start);

	for (; extent && extent->start < start + length;
	     extent = extents_find(extents, extent->end)) {
		extent->failed = !at_target;
		extents->due -= extent->due && at_target;
		extent->due = extent->due && !at_target;
	}
}

/* ---- looking ---- */

/* One iovec, which begins at the byte start. */
static void extents_overlay_one(const struct extents *extents, uint64_t start, struct iovec to)
{
	uint64_t end = start + to.iov_len;
	const struct extent *extent = extents_find(extents, start);

	for (; extent && extent->start < end; extent = extents_find(extents, extent->end)) {
		uint64_t from = MAX(start, extent->start);
		uint64_t length = MIN(end, extent->end) - from;
		uint8_t *at = (uint8_t *)to.iov_base + (from - start);

		if (extent->op == IO_WRITE)
			memcpy(at, extent->data + (from - extent->start), length);
		else if (extent->op == IO_ZERO)
			memset(at, 0, length);
	}
}

void extents_overlay(
    const struct extents *extents, uint64_t start, const struct iovec *iov, int niov)
{
	for (int i = 0; i < niov; i++) {
		extents_overlay_one(extents, start, iov[i]);
		start += iov[i].iov_len;
	}
}

uint64_t extents_reach(const struct extents *extents)
{
	const struct extent *last = extents->root;

	while (last && last->right)
		last = last->right;
	return last ? last->end : 0;
}

void extents_each(
    const struct extents *extents, void (*fn)(uint64_t start, uint64_t end, void *data), void *data)
{
	const struct extent *extent = extents_find(extents, 0);

	while (extent) {
		uint64_t start = extent->start, end = extent->end;
		while ((extent = extents_find(extents, end)) && extent->start == end)
			end = extent->end;
		fn(start, end, data);
	}
}

/* ---- from start to end ---- */

void extents_init(struct extents *extents, struct pool *pool)
{
	*extents = (struct extents){.pool = pool};
	extents->nodes.size = sizeof(struct extent);
	extents->buffers.size = sizeof(struct buffer);
	(void)extents_have_spare(extents);
}

void extents_free(struct extents *extents)
{
	extents_clear(extents);
	slab_put(&extents->nodes, extents->spare);
	extents->spare = NULL;
	slab_clear(&extents->nodes);
	slab_clear(&extents->buffers);
}

/* ---- checking ---- */

struct sums {
	uint64_t kept, end;
	unsigned count, due;
};

static void extents_check_node(
    const struct extent *node, uint32_t priority, uint32_t block_size, struct sums *sums)
{
	if (!node)
		return;
	assert(node->priority <= priority);
	extents_check_node(node->left, node->priority, block_size, sums);
	assert(node->start < node->end && node->start >= sums->end);
	assert(node->start % block_size == 0 && node->end % block_size == 0);
	assert(!node->failed || node->due);
	assert((node->op == IO_WRITE) == (node->buffer != NULL));
	if (node->buffer) {
		assert(node->buffer->users > 0 && node->data >= node->buffer->memory);
		assert(node->data + (node->end - node->start) <=
		       node->buffer->memory + node->buffer->size);
	}
	sums->end = node->end;
	sums->kept += node->end - node->start;
	sums->count++;
	sums->due += node->due;
	extents_check_node(node->right, node->priority, block_size, sums);
}

void extents_check(const struct extents *extents, uint32_t block_size)
{
	struct sums sums = {0};
	unsigned count = 0;
	size_t memory = 0;
	const struct extent *older = NULL;

	extents_check_node(extents->root, UINT32_MAX, block_size, &sums);
	assert(sums.kept == extents->kept && sums.count == extents->count);
	assert(sums.due == extents->due);
	for (const struct extent *extent = extents->oldest; extent; extent = extent->newer) {
		assert(extent->older == older);
		assert(!older || older->sequence <= extent->sequence);
		older = extent;
		memory += sizeof(*extent);
		/* the pieces of one write are neighbours in the list: count a buffer at its last */
		if (extent->buffer && (!extent->newer || extent->newer->buffer != extent->buffer))
			memory += extent->buffer->size + sizeof(*extent->buffer);
		count++;
	}
	assert(older == extents->newest && count == extents->count);
	assert(memory == extents->memory);
	(void)count;
	(void)memory;
	(void)older;
}
