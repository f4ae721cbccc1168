/*
 * channel.c - /dev/fuse on the loop.
 *
 * Requests are read in batches into one buffer, which stays here unless a large WRITE takes it
 * along: its data is sent from where the kernel put it. A buffer is as large as the largest
 * request, but only the pages that a request touched are memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"

/* Requests in a turn; then the target's answers get theirs. */
#define BATCH 32

/* A WRITE's two headers come before its data; libfuse leaves a page for them. */
#define BUFFER_SIZE (TRANSFER_MAX + 4096u)

struct channel {
	struct fs *fs;
	GSource *watch;
	void *buffer;
	bool greeted; /* INIT was processed */
};

static void channel_end(struct channel *channel)
{
	loop_remove(&channel->watch);
	channel->fs->ended(channel->fs->data);
}

/*
 * libfuse wants room for 256 pages of this machine until INIT has told it max_write; so for this
 * first request it finds its own.
 */
static void channel_greet(struct channel *channel)
{
	struct fs *fs = channel->fs;
	struct fuse_buf received = {.mem = NULL};
	int length = fuse_session_receive_buf(fs->session, &received);

	if (length == -EINTR || length == -EAGAIN)
		return;
	channel->greeted = true;
	if (length > 0)
		fuse_session_process_buf(fs->session, &received);
	free(received.mem);
	if (length > 0 && !fuse_session_exited(fs->session))
		fs->ready(fs->data);
	else
		channel_end(channel);
}

static void channel_ready(int fd, GIOCondition condition, void *data)
{
	struct channel *channel = data;
	struct fs *fs = channel->fs;

	(void)fd;
	(void)condition;
	if (!channel->greeted) {
		channel_greet(channel);
		return;
	}
	for (int i = 0; i < BATCH; i++) {
		if (channel->buffer == NULL)
			channel->buffer = pool_get(fs->pool, BUFFER_SIZE);
		struct fuse_buf received = {.mem = channel->buffer, .size = BUFFER_SIZE};
		if (channel->buffer == NULL)
			return; /* no memory: the next turn may find some */
		int length = fuse_session_receive_buf(fs->session, &received);
		if (length == -EINTR)
			continue;
		if (length == -EAGAIN)
			return;
		if (length <= 0) {
			channel_end(channel);
			return;
		}
		fuse_session_process_buf(fs->session, &received);
		/*
		 * Who waits for the one request at work sends no other: its command leaves now. And
		 * much data leaves while the processor's caches have it.
		 */
		if (fs->outstanding == 1 || channel->buffer == NULL)
			return;
	}
}

void *channel_take_buffer(struct channel *channel, size_t *size)
{
	*size = BUFFER_SIZE;
	return g_steal_pointer(&channel->buffer);
}

struct channel *channel_new(struct fs *fs)
{
	struct channel *channel = g_new0(struct channel, 1);
	int fd = fuse_session_fd(fs->session);

	channel->fs = fs;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	channel->watch = loop_watch(fs->loop, fd, G_IO_IN, channel_ready, channel, NULL);
	return channel;
}

void channel_free(struct channel *channel)
{
	if (channel == NULL)
		return;
	loop_remove(&channel->watch);
	pool_put(channel->fs->pool, channel->buffer, BUFFER_SIZE);
	g_free(channel);
}
