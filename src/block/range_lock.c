/*
 * range_lock.c - who may touch which bytes, in order of asking.
 *
 * All ranges, granted and waiting, stand in one interval tree: a treap ordered by start, then by
 * age, in which each node knows the largest end below it. A range counts the earlier ones that hold
 * it up; it is granted when that count is 0. Nothing else is remembered: who waits for a range is
 * found by looking for the later ones that overlap it.
 *
 * Invariants: blockers is the number of ranges in the tree that are earlier, overlap and conflict.
 * A range in the list of those to be told is untold, in the tree, and has no blockers. Only the
 * outermost call tells, so granted() finds the tree whole, and does not nest however long the queue
 * is.
 */
#include "lunfs/block.h"

#include <stddef.h>

static bool range_before(const struct range *a, const struct range *b)
{
	return a->start != b->start ? a->start < b->start : a->sequence < b->sequence;
}

static bool range_is_empty(const struct range *range)
{
	return range->start >= range->end;
}

static bool range_holds_up(const struct range *earlier, const struct range *later)
{
	switch (earlier->kind) {
	case RANGE_EXCLUSIVE:
		return true;
	case RANGE_SHARED:
		return later->kind == RANGE_EXCLUSIVE;
	case RANGE_BARRIER:
		break;
	}
	return false;
}

/* ---- the tree ---- */

static void node_update(struct range *node)
{
	node->max_end = node->end;
	if (node->left && node->left->max_end > node->max_end)
		node->max_end = node->left->max_end;
	if (node->right && node->right->max_end > node->max_end)
		node->max_end = node->right->max_end;
}

/* Into those before range and those after it. */
static void tree_split(
    struct range *node, const struct range *range, struct range **before, struct range **after)
{
	if (!node) {
		*before = *after = NULL;
	} else if (range_before(node, range)) {
		tree_split(node->right, range, &node->right, after);
		*before = node;
		node_update(node);
	} else {
		tree_split(node->left, range, before, &node->left);
		*after = node;
		node_update(node);
	}
}

static struct range *tree_join(struct range *left, struct range *right)
{
	if (!left || !right)
		return left ? left : right;
	if (left->priority > right->priority) {
		left->right = tree_join(left->right, right);
		node_update(left);
		return left;
	}
	right->left = tree_join(left, right->left);
	node_update(right);
	return right;
}

static struct range *tree_insert(struct range *node, struct range *range)
{
	if (!node || range->priority > node->priority) {
		tree_split(node, range, &range->left, &range->right);
		node_update(range);
		return range;
	}
	struct range **side = range_before(range, node) ? &node->left : &node->right;
	*side = tree_insert(*side, range);
	node_update(node);
	return node;
}

static struct range *tree_remove(struct range *node, const struct range *range)
{
	if (node == range)
		return tree_join(node->left, node->right);
	struct range **side = range_before(range, node) ? &node->left : &node->right;
	*side = tree_remove(*side, range);
	node_update(node);
	return node;
}

typedef void (*meet_fn)(struct range_lock *lock, struct range *range, struct range *other);

/* Calls meet() for every node that overlaps range. */
static void tree_visit(
    struct range_lock *lock, struct range *node, struct range *range, meet_fn meet)
{
	if (!node || node->max_end <= range->start)
		return;
	tree_visit(lock, node->left, range, meet);
	if (node->start >= range->end)
		return;
	if (node->end > range->start)
		meet(lock, range, node);
	tree_visit(lock, node->right, range, meet);
}

/* ---- granting ---- */

static void lock_tell(struct range_lock *lock)
{
	if (lock->telling)
		return;
	lock->telling = true;
	while (lock->granted) {
		struct range *range = lock->granted;
		lock->granted = range->next_granted;
		range->untold = false;
		range->granted(range);
	}
	lock->telling = false;
}

static void lock_grant(struct range_lock *lock, struct range *range)
{
	struct range **link = &lock->granted;
	while (*link && (*link)->sequence < range->sequence)
		link = &(*link)->next_granted;
	range->next_granted = *link;
	range->untold = true;
	*link = range;
}

static void lock_ungrant(struct range_lock *lock, struct range *range)
{
	struct range **link = &lock->granted;
	while (*link != range)
		link = &(*link)->next_granted;
	*link = range->next_granted;
	range->untold = false;
}

static void meet_earlier(struct range_lock *lock, struct range *range, struct range *other)
{
	(void)lock;
	if (range_holds_up(other, range))
		range->blockers++;
}

static void meet_waiting(struct range_lock *lock, struct range *range, struct range *other)
{
	if (other->sequence > range->sequence && range_holds_up(range, other) &&
	    --other->blockers == 0)
		lock_grant(lock, other);
}

/* xorshift32: the treap only wants its priorities unrelated to the order of the keys. */
static uint32_t lock_random(struct range_lock *lock)
{
	uint32_t x = lock->random ? lock->random : 2463534242u;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return lock->random = x;
}

void range_lock_acquire(struct range_lock *lock, struct range *range)
{
	range->sequence = ++lock->sequence;
	range->blockers = 0;
	range->untold = false;
	if (!range_is_empty(range)) {
		range->priority = lock_random(lock);
		tree_visit(lock, lock->root, range, meet_earlier);
		lock->root = tree_insert(lock->root, range);
	}
	if (range_is_granted(range))
		range->granted(range);
}

void range_lock_release(struct range_lock *lock, struct range *range)
{
	if (range_is_empty(range))
		return;
	if (range->untold)
		lock_ungrant(lock, range);
	lock->root = tree_remove(lock->root, range);
	tree_visit(lock, lock->root, range, meet_waiting);
	lock_tell(lock);
}
