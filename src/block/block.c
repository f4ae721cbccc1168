/*
 * block.c - how blocks stand on each other, and how events climb.
 */
#include "lunfs/block.h"

#include <stddef.h>

void block_stack(struct block *block, const struct block_ops *ops, struct block *below)
{
	block->ops = ops;
	block->below = below;
	if (!below)
		return;
	below->above = block;
	block->size = below->size;
	block->epoch = below->epoch;
	block->limits = below->limits;
}

void block_raise(struct block *block, enum block_event event)
{
	/* All at once: a layer that answers its requests when it hears of it does so in the new
	 * epoch. */
	if (event == BLOCK_LOST) {
		block->epoch++;
		for (struct block *above = block->above; above; above = above->above)
			above->epoch++;
	}
	for (; block->above; block = block->above) {
		struct block *above = block->above;
		if (event == BLOCK_RESIZED)
			above->size = block->size;
		if (above->ops->event)
			above->ops->event(above, event);
	}
	if (block->on_event)
		block->on_event(block, event, block->on_event_data);
}

void block_free(struct block *top)
{
	while (top) {
		struct block *below = top->below;
		top->ops->free(top);
		top = below;
	}
}

/* The last done() may free the ender and all around it. */
static void ender_run(struct loop_work *work)
{
	struct io_ender *ender =
	    (struct io_ender *)((char *)work - offsetof(struct io_ender, work));
	struct io *io = ender->first, *next;

	ender->first = NULL;
	ender->last = &ender->first;
	for (; io; io = next) {
		next = io->next;
		io->done(io, (int)(intptr_t)io->layer);
	}
}

void io_ender_init(struct io_ender *ender, struct loop *loop)
{
	*ender = (struct io_ender){.loop = loop, .work.run = ender_run, .last = &ender->first};
}

void io_end_later(struct io_ender *ender, struct io *io, int error)
{
	io->next = NULL;
	io->layer = (void *)(intptr_t)error;
	*ender->last = io;
	ender->last = &io->next;
	loop_defer(ender->loop, &ender->work);
}

void io_ender_clear(struct io_ender *ender)
{
	loop_cancel(ender->loop, &ender->work);
}

const char *io_op_name(enum io_op op)
{
	static const char *const names[] = {
	    [IO_READ] = "READ",
	    [IO_WRITE] = "WRITE",
	    [IO_FLUSH] = "FLUSH",
	    [IO_DISCARD] = "DISCARD",
	    [IO_ZERO] = "ZERO",
	    [IO_MAP] = "MAP",
	};
	return (size_t)op < sizeof(names) / sizeof(names[0]) ? names[op] : "?";
}
