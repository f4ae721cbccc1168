/*
 * extents.c - the store of what is kept: see extents.h.
 *
 * A treap of extents ordered by offset, threaded by a list from the oldest to the newest write. The
 * data of a write lies in frames, each extent's in one run of them; an extent keeps every frame
 * that its data touches, also those that it shares with another.
 *
 *   root ──► treap by start          [0,4k)   [8k,12k)   [12k,20k)   [64k,1M) ZERO
 *   oldest ──► list by sequence         7  ◄──►  7   ◄──►   9   ◄──►   12        ◄── newest
 *                                       │        │          │
 *   frames                              1        1          2
 *
 * Invariants: extents are not empty, of whole blocks, disjoint and in order; both structures hold
 * the same ones; sequence numbers do not fall along the list; data lies in frames that are kept;
 * kept, memory, due and count are the sums. An extent that failed is due. Nothing is changed before
 * all memory for the change is there.
 */
#include "extent.h"

#include <assert.h>
#include <string.h>

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
	extents->memory += extent_memory(extent);
	extents->due += extent->due;
	extents->count++;
}

static void extent_drop(struct extents *extents, struct extent *extent)
{
	*(extent->newer ? &extent->newer->older : &extents->newest) = extent->older;
	*(extent->older ? &extent->older->newer : &extents->oldest) = extent->newer;
	tree_remove(&extents->root, extent);
	extents->kept -= extent->end - extent->start;
	extents->memory -= extent_memory(extent);
	extents->due -= extent->due;
	extents->count--;
	if (extent->data)
		frames_let_go(extents->frames, extent->data, extent->end - extent->start);
	slab_put(&extents->nodes, extent);
}

static uint8_t *frame_of(uint8_t *data)
{
	return data - (uintptr_t)data % FRAME_SIZE;
}

/* Its order in the tree stays: what is cut off is nobody's. */
static void extent_cut_head(struct extents *extents, struct extent *extent, uint64_t start)
{
	uint64_t cut = start - extent->start;

	extents->kept -= cut;
	extents->memory -= extent_memory(extent);
	if (extent->data) {
		uint8_t *first = frame_of(extent->data + cut);
		if (first > extent->data)
			frames_let_go(
			    extents->frames, extent->data, (size_t)(first - extent->data));
		extent->data += cut;
	}
	extent->start = start;
	extents->memory += extent_memory(extent);
}

static void extent_cut_tail(struct extents *extents, struct extent *extent, uint64_t end)
{
	extents->kept -= extent->end - end;
	extents->memory -= extent_memory(extent);
	if (extent->data) {
		uint8_t *behind = frame_of(extent->data + (end - extent->start) - 1) + FRAME_SIZE;
		uint8_t *last = extent->data + (extent->end - extent->start);
		if (last > behind)
			frames_let_go(extents->frames, behind, (size_t)(last - behind));
	}
	extent->end = end;
	extents->memory += extent_memory(extent);
}

/* Takes [start, end) out of the middle; the spare becomes what is behind it. */
static void extent_cut_middle(
    struct extents *extents, struct extent *extent, uint64_t start, uint64_t end)
{
	struct extent *behind = extent_get(extents);

	*behind = *extent;
	behind->start = end;
	if (behind->data) {
		behind->data += end - extent->start;
		frames_keep(extents->frames, behind->data, behind->end - end);
	}
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

bool extents_keep(struct extents *extents, const struct io *io, uint64_t sequence)
{
	struct extent *made;

	assert(!extents->newest || extents->newest->sequence <= sequence);
	if (!io->length)
		return true;
	made = extents_have_spare(extents) ? extents_make(extents, io, sequence) : NULL;
	if (!made)
		return false;
	extents_cut(extents, io->offset, io->offset + io->length);
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

void extents_init(struct extents *extents, struct frames *frames, uint32_t block_size)
{
	*extents = (struct extents){.frames = frames, .block_size = block_size};
	extents->nodes.size = sizeof(struct extent);
	(void)extents_have_spare(extents);
}

void extents_free(struct extents *extents)
{
	extents_clear(extents);
	slab_put(&extents->nodes, extents->spare);
	extents->spare = NULL;
	slab_clear(&extents->nodes);
}

/* ---- checking ---- */

struct sums {
	uint64_t kept, end;
	unsigned count, due;
};

static void extents_check_node(
    const struct extents *extents, const struct extent *node, uint32_t priority, struct sums *sums)
{
	if (!node)
		return;
	assert(node->priority <= priority);
	extents_check_node(extents, node->left, node->priority, sums);
	assert(node->start < node->end && node->start >= sums->end);
	assert(node->start % extents->block_size == 0 && node->end % extents->block_size == 0);
	assert(!node->failed || node->due);
	assert((node->op == IO_WRITE) == (node->data != NULL));
	for (uint64_t at = 0; node->data && at < node->end - node->start; at++) {
		/* a byte of each frame */
		assert(frame_keepers(extents->frames, node->data + at) > 0);
		at += FRAME_SIZE - 1 - (uintptr_t)(node->data + at) % FRAME_SIZE;
	}
	sums->end = node->end;
	sums->kept += node->end - node->start;
	sums->count++;
	sums->due += node->due;
	extents_check_node(extents, node->right, node->priority, sums);
}

void extents_check(const struct extents *extents)
{
	struct sums sums = {0};
	unsigned count = 0;
	size_t memory = 0;
	const struct extent *older = NULL;

	extents_check_node(extents, extents->root, UINT32_MAX, &sums);
	assert(sums.kept == extents->kept && sums.count == extents->count);
	assert(sums.due == extents->due);
	for (const struct extent *extent = extents->oldest; extent; extent = extent->newer) {
		assert(extent->older == older);
		assert(!older || older->sequence <= extent->sequence);
		older = extent;
		memory += extent_memory(extent);
		count++;
	}
	assert(older == extents->newest && count == extents->count);
	assert(memory == extents->memory);
	(void)count;
	(void)memory;
	(void)older;
}
