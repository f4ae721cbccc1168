/*
 * request.c - a request of the kernel, while it waits for the target.
 *
 *   request_new --> [parked, held] --> request_send --> all I/O done --> [kernel drops stale pages]
 *   --> reply
 *
 * Whoever waits for it may be killed: the kernel then sends an INTERRUPT, and the request is
 * answered with EINTR at once, while its I/O keeps its buffer and its place in the order until it
 * is done (SAFETY.md 9, 10). A signal that is not deadly gets no EINTR from a disk, whose readers
 * and writers do not expect it; only where the target keeps them waiting, after a while.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "lunfs/loop.h"

/* How long a request with a signal pending that does not kill waits before it is answered with
 * EINTR. */
#define GRACE_MS 1000u

static void request_wake_parked(struct node *node);
static void request_answer(struct request *request);

static void request_link(struct request **list, struct request *request)
{
	request->prev = NULL;
	request->next = *list;
	if (*list != NULL)
		(*list)->prev = request;
	*list = request;
}

static void request_unlink(struct request **list, struct request *request)
{
	if (request->prev != NULL)
		request->prev->next = request->next;
	else
		*list = request->next;
	if (request->next != NULL)
		request->next->prev = request->prev;
}

static void request_enqueue(struct request_queue *queue, struct request *request)
{
	request->queue = queue;
	request->queued_next = NULL;
	if (queue->first == NULL)
		queue->first = request;
	else
		queue->last->queued_next = request;
	queue->last = request;
}

static void request_dequeue(struct request_queue *queue, struct request *request)
{
	struct request **link = &queue->first, *last = NULL;

	for (; *link != request; link = &last->queued_next)
		last = *link;
	*link = request->queued_next;
	if (queue->last == request)
		queue->last = last;
	request->queue = NULL;
}

/* ---- signals ---- */

/* Has it begun to exit? No signal is pending then any more. PF_EXITING of linux/sched.h. */
static bool thread_exits(pid_t thread)
{
	const unsigned exiting = 0x4;
	char path[64], line[512];
	unsigned flags = 0;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)thread);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return true;
	size_t length = fread(line, 1, sizeof line - 1, file);
	fclose(file);
	line[length] = '\0';
	/* PID (NAME) STATE PPID PGRP SESSION TTY TPGID FLAGS ...; a name may hold ')' and blanks */
	const char *field = strrchr(line, ')');
	if (field != NULL && sscanf(field, ") %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
		flags = 0;
	return (flags & exiting) != 0;
}

/* Is SIGKILL pending for the thread? So the kernel marks every signal that ends a process. */
static bool thread_is_dying(pid_t thread)
{
	char path[64], line[256];
	bool dying = false;

	snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return true; /* gone, or not in our namespace: better an EINTR than a hang */
	while (fgets(line, sizeof line, file) != NULL)
		if (strncmp(line, "SigPnd:", 7) == 0 || strncmp(line, "ShdPnd:", 7) == 0)
			dying |= (strtoull(line + 7, NULL, 16) >> (SIGKILL - 1) & 1) != 0;
	fclose(file);
	return dying || thread_exits(thread);
}

/*
 * What was to be zero may not become so, and is still due: else whoever goes on after an EINTR
 * would find old content there. Where another write has moved the mark on meanwhile it stays: zeros
 * up to the next one would land on that.
 */
static void request_return_mark(const struct request *request)
{
	if (request->zero.length != 0 && request->handle != NULL &&
	    request->handle->mark == request->own_mark)
		request->handle->mark = MIN(request->handle->mark, request->zero_mark);
}

void request_abandon(struct request *request, int error)
{
	loop_remove(&request->grace);
	if (request->req == NULL)
		return;
	fuse_reply_err(request->req, error);
	if (request->opens)
		handle_free(request->handle);
	else
		request_return_mark(request);
	request->req = NULL;
	request->handle = NULL;
	request->abandoned = true;
	if (request->queue != NULL) {
		request_dequeue(request->queue, request);
		request_answer(request);
	}
}

static void request_grace_over(void *data)
{
	request_abandon(data, EINTR);
}

static void request_interrupted(fuse_req_t req, void *data)
{
	struct request *request = data;

	if (thread_is_dying(fuse_req_ctx(req)->pid))
		request_abandon(request, EINTR);
	else if (request->grace == NULL)
		request->grace =
		    loop_timer(request->fs->loop, GRACE_MS, request_grace_over, request);
}

/* ---- life ---- */

struct request *request_new(struct fs *fs, fuse_req_t req, struct node *node, struct handle *handle,
    void (*reply)(struct request *request))
{
	struct request *request = slab_get(&fs->requests_slab);

	request->fs = fs;
	request->req = req;
	request->node = node_ref(node);
	node->requests++;
	request->handle = handle;
	request->reply = reply;
	request->iov = request->own_iov;
	request_link(&fs->requests, request);
	request->turn = loop_turn(fs->loop);
	fs->outstanding++;
	fuse_req_interrupt_func(req, request_interrupted, request);
	return request;
}

static void request_release_data(struct request *request)
{
	struct fs *fs = request->fs;

	for (int i = 0; i < request->runs; i++)
		frames_release(fs->frames, request->iov[i].iov_base, request->iov[i].iov_len);
	if (request->iov != request->own_iov)
		pool_put(fs->pool, request->iov, (size_t)request->runs * sizeof *request->iov);
}

void request_free(struct request *request)
{
	struct fs *fs = request->fs;
	struct node *node = request->node;

	loop_remove(&request->grace);
	loop_remove(&request->drop_timer);
	if (fs->cursor == request)
		fs->cursor = request->next;
	request_unlink(&fs->requests, request);
	if (request->buffer != NULL && request->io.op == IO_READ)
		node->read_memory -= request->buffer_size;
	pool_put(fs->pool, request->buffer, request->buffer_size);
	request_release_data(request);
	slab_put(&fs->requests_slab, request);
	fs->outstanding--;
	if (node->parked.first != NULL && !node->removed)
		request_wake_parked(node);
	if (--node->requests == 0 && node->removed)
		removed_sweep_later(fs);
	node_unref(node, 1);
}

/*
 * Who got his answer at once, from memory, sends the next request before we would be asleep and
 * woken again.
 */
#define NEXT_US 100u

static void request_expect_next(const struct request *request)
{
	struct fs *fs = request->fs;

	if (request->turn == loop_turn(fs->loop) && fs->outstanding == 1 &&
	    request->io.op != IO_FLUSH)
		loop_expect(fs->loop, NEXT_US);
}

static void request_answer(struct request *request)
{
	loop_remove(&request->grace);
	if (request->req != NULL)
		request->reply(request);
	request->req = NULL;
	request->answered = true;
	request_expect_next(request);
	if (request->drops == 0)
		request_free(request);
}

/* ---- pages of the kernel ---- */

static void request_go_on(struct request *request)
{
	void (*next)(struct request * request) = request->dropped;

	loop_remove(&request->drop_timer);
	request->dropped = NULL;
	if (next != NULL)
		next(request);
	else if (request->answered)
		request_free(request);
}

static void request_pages_dropped(void *data)
{
	struct request *request = data;

	if (--request->drops == 0)
		request_go_on(request);
}

/* The time is up: it goes on without, and stays until the pages are dropped. */
static void request_drop_expired(void *data)
{
	request_go_on(data);
}

bool node_is_cached(const struct node *node, uint64_t start, uint64_t end)
{
	return start < end && start < node->cached_end && end > node->cached_start;
}

static void request_drop(struct request *request, struct node *node, uint64_t start, uint64_t end)
{
	request->drops++;
	invalidator_drop(node, start, end, request_pages_dropped, request);
}

/* Goes on with next when all is dropped. */
static void request_await_drops(struct request *request, void (*next)(struct request *request))
{
	request->dropped = next;
	if (request->drop_bound_ms != 0)
		request->drop_timer = loop_timer(
		    request->fs->loop, request->drop_bound_ms, request_drop_expired, request);
}

/* Has the kernel drop what is stale, then goes on with next. */
static void request_drop_pages(struct request *request, void (*next)(struct request *request))
{
	request_drop(request, request->node, request->stale_start, request->stale_end);
	request_await_drops(request, next);
}

void request_drop_and_reply(struct request *request)
{
	request_drop_pages(request, request_answer);
}

/*
 * What it changed is not what the kernel has of the content's other files (SAFETY.md 22). The range
 * lock is released: a page there may be locked by a READ that waited for it.
 */
static bool request_tell_siblings(struct request *request)
{
	const struct io *io = &request->io, *zero = &request->zero;
	uint64_t start = zero->length != 0 ? zero->offset : io->offset;
	uint64_t end = io->length != 0 ? io->offset + io->length : zero->offset + zero->length;
	struct node *sibling = request->node->content->nodes;
	bool any = false;

	for (; sibling != NULL; sibling = sibling->sibling) {
		if (sibling == request->node || !node_is_cached(sibling, start, end))
			continue;
		request_drop(request, sibling, start, end);
		sibling->crossed_ms = clock_ms();
		any = true;
	}
	if (!(io->flags & IO_DIRECT))
		content_changed(request->node, start, end);
	return any;
}

/* ---- the way through ---- */

static void request_send(struct request *request);

/*
 * It failed, and the LUN has become smaller: was it for that? A READ that has bytes left is to be
 * sent again for those.
 */
static bool request_crossed_new_end(struct request *request)
{
	uint64_t size = request->node->block->size;
	struct io *io = &request->io;

	if (MAX(io->offset + io->length, request->zero.offset + request->zero.length) <= size)
		return false;
	request->error = request->writes ? -ENOSPC : 0;
	if (io->op != IO_READ)
		return false;
	io->length = io->offset < size ? size - io->offset : 0;
	request->own_iov[0].iov_len = io->length;
	if (io->flags & IO_LEND) {
		io->iov = NULL;
		io->niov = 0;
	}
	return io->length != 0;
}

static void request_finish(struct request *request)
{
	struct node *node = request->node;
	struct content *content = node->content;
	bool stale;

	if (request->error != 0 && request->req != NULL && request_crossed_new_end(request)) {
		request_send(request);
		return;
	}
	loop_remove(&request->grace);
	if (request->writes) {
		content->writes_in_flight--;
		if (!(request->io.flags & IO_FUA))
			content->written++;
		node_touch(node);
	}
	stale = node_is_cached(node, request->stale_start, request->stale_end);
	if (stale)
		request_drop(request, node, request->stale_start, request->stale_end);
	if (request->writes)
		stale |= request_tell_siblings(request);
	if (stale)
		request_await_drops(request, request_answer);
	else
		request_answer(request);
}

static void request_io_done(struct request *request, int error)
{
	if (error != 0 && request->error == 0)
		request->error = error;
	if (--request->pending == 0)
		request_finish(request);
}

static void request_transfer_done(struct io *io, int error)
{
	request_io_done((struct request *)((char *)io - offsetof(struct request, io)), error);
}

static void request_zero_done(struct io *io, int error)
{
	request_io_done((struct request *)((char *)io - offsetof(struct request, zero)), error);
}

static void request_send(struct request *request)
{
	struct content *content = request->node->content;
	bool zero = request->zero.length != 0;
	bool transfer = request->io.op == IO_FLUSH || request->io.length != 0;

	request->pending = zero + transfer;
	request->written = content->written;
	if (request->writes)
		content->writes_in_flight++;
	/* In this order: where they share a logical block the zeros come first. */
	if (zero) {
		request->zero.op = IO_ZERO;
		request->zero.cancelled = &request->abandoned;
		request->zero.done = request_zero_done;
		block_submit(content->block, &request->zero);
	}
	if (transfer) {
		request->io.done = request_transfer_done;
		request->io.cancelled = &request->abandoned;
		block_submit(content->block, &request->io);
	}
}

static void request_send_gap(struct request *request)
{
	struct content *content = request->node->content;
	struct request *held;

	if (request->req != NULL)
		request_send(request);
	else
		request_answer(request);
	content->gaps--;
	while (content->gaps == 0 && (held = content->held.first) != NULL) {
		request_dequeue(&content->held, held);
		request_submit(held);
	}
}

void request_submit(struct request *request)
{
	struct node *node = request->node;

	if (node->content->gaps > 0 && request->writes && !request->writeback) {
		request_enqueue(&node->content->held, request);
		return;
	}
	/*
	 * What somebody wrote through a mapping, before, must not land on the zeros, later:
	 * dropping pages writes the changed ones out.
	 */
	if (request->zero.length != 0 &&
	    node_is_cached(node, request->stale_start, request->stale_end)) {
		node->content->gaps++;
		request_drop_pages(request, request_send_gap);
	} else {
		request_send(request);
	}
}

/* ---- READs, and memory for them ---- */

/* A node's READs, in progress and others, hold no more than this; WRITEs come with their memory. */
#define READ_MEMORY (32u << 20)

static void request_start_read(struct request *request)
{
	request->buffer_size = request->io.length;
	request->buffer = pool_get(request->fs->pool, request->buffer_size);
	if (request->buffer == NULL) {
		request->error = -ENOMEM;
		request_answer(request);
		return;
	}
	request->node->read_memory += request->buffer_size;
	request->own_iov[0] = (struct iovec){request->buffer, request->io.length};
	request->io.iov = request->iov;
	request->io.niov = 1;
	request_submit(request);
}

void request_read(struct request *request)
{
	struct node *node = request->node;

	if (request->io.flags & IO_LEND)
		request_submit(request);
	else if (node->parked.first == NULL && node->read_memory < READ_MEMORY)
		request_start_read(request);
	else
		request_enqueue(&node->parked, request);
}

static void request_wake_parked(struct node *node)
{
	struct request *request;

	while ((request = node->parked.first) != NULL && node->read_memory < READ_MEMORY) {
		request_dequeue(&node->parked, request);
		request_start_read(request);
	}
}
