/*
 * channel.c - /dev/fuse on the loop.
 *
 *   scratch  │ headers of a WRITE │ the rest of anything else: copied     │
 *                        │
 *   readv() ─► iov[0] ───┘  iov[1...] ─► frames: the data of a WRITE, from the start of one on
 *
 * So the data of a WRITE is where it stays until the target has it, and as long as anybody keeps
 * it; the frames that it came in are its request's, and others are offered in their place. libfuse
 * gets the headers alone: of the data behind them it tells its handler the address, which nobody
 * looks at. All else is put together in the scratch, which is as large as the largest request, but
 * only the pages that were touched are memory.
 *
 * Owns the scratch and the frames that are offered, and holds them. Invariants: the runs are of
 * whole frames, no two are neighbours in memory, and offered is their sum; the kernel is asked for
 * a request only with all of TRANSFER_MAX on offer, as it demands. Where there are no frames
 * requests wait in the kernel.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "internal.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"

/* Requests in a turn; then the target's answers get theirs. */
#define BATCH 32
/* What a WRITE of this size carries is sent while the processor's caches have it. */
#define LARGE (32u << 10)

#define HEADERS      (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define SCRATCH_SIZE (HEADERS + OFFER_MAX)

/* Frames are taken by so many: what is freed together again is one run again. */
#define OFFER_STEP (256u << 10)
#define OFFER_MAX  (TRANSFER_MAX + OFFER_STEP)
/* As many runs may be needed. */
#define RUNS (TRANSFER_MAX / FRAME_SIZE)

#define NO_MEMORY_MS 5u

struct channel {
	struct fs *fs;
	GSource *watch;
	GSource *pause; /* there is no memory to receive with */
	uint8_t *scratch;
	struct iovec iov[1 + RUNS];
	int runs;
	size_t offered;  /* bytes */
	size_t received; /* of the data that is in the frames now */
	bool greeted;    /* INIT was processed */
};

static void channel_ready(int fd, GIOCondition condition, void *data);

static void channel_watch(struct channel *channel)
{
	channel->watch = loop_watch(channel->fs->loop, fuse_session_fd(channel->fs->session),
	    G_IO_IN, channel_ready, channel, NULL);
}

static void channel_end(struct channel *channel)
{
	loop_remove(&channel->watch);
	channel->fs->ended(channel->fs->data);
}

/* ---- memory to receive with ---- */

static void channel_offer(struct channel *channel, uint8_t *run, size_t length)
{
	struct iovec *last = &channel->iov[channel->runs];

	if (channel->runs > 0 && (uint8_t *)last->iov_base + last->iov_len == run)
		last->iov_len += length;
	else
		channel->iov[++channel->runs] = (struct iovec){run, length};
	channel->offered += length;
}

static bool channel_fill(struct channel *channel)
{
	struct fs *fs = channel->fs;

	if (channel->scratch == NULL) {
		channel->scratch = pool_get(fs->pool, SCRATCH_SIZE);
		channel->iov[0] = (struct iovec){channel->scratch, HEADERS};
	}
	while (channel->offered < TRANSFER_MAX) {
		size_t room = OFFER_MAX - channel->offered;
		uint8_t *run;
		unsigned count = frames_get(
		    fs->frames, (unsigned)((room - room % OFFER_STEP) / FRAME_SIZE), &run);
		if (count == 0)
			return false;
		channel_offer(channel, run, (size_t)count * FRAME_SIZE);
	}
	return channel->scratch != NULL;
}

static void channel_pause_over(void *data)
{
	struct channel *channel = data;

	loop_remove(&channel->pause);
	channel_watch(channel);
}

/* Without memory; the loop would spin on what waits to be read. */
static void channel_pause(struct channel *channel)
{
	loop_remove(&channel->watch);
	channel->pause = loop_timer(channel->fs->loop, NO_MEMORY_MS, channel_pause_over, channel);
}

int channel_runs(const struct channel *channel, size_t length)
{
	int runs = 0;

	assert(length <= channel->received);
	for (size_t left = length; left > 0; runs++)
		left -= MIN(left, channel->iov[1 + runs].iov_len);
	return runs;
}

void channel_take(struct channel *channel, size_t length, struct iovec *iov)
{
	struct iovec *run = &channel->iov[1];
	int taken = 0;

	assert(length <= channel->received);
	for (size_t left = length; left > 0; iov++) {
		size_t piece = MIN(left, run->iov_len);
		size_t whole = (piece + FRAME_SIZE - 1) / FRAME_SIZE * FRAME_SIZE;
		*iov = (struct iovec){run->iov_base, piece};
		left -= piece;
		channel->offered -= whole;
		run->iov_base = (uint8_t *)run->iov_base + whole;
		run->iov_len -= whole;
		if (run->iov_len == 0) {
			run++;
			taken++;
		}
	}
	channel->runs -= taken;
	if (taken > 0)
		memmove(&channel->iov[1], run, (size_t)channel->runs * sizeof *run);
	channel->received = 0;
}

/* ---- the greeting ---- */

/* The flag of the protocol that libfuse has no word for: see greeting_answer(). */
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
#define GREETING_FLAGS 0u /* it has: tree_init() */
#else
#define GREETING_FLAGS FUSE_HANDLE_KILLPRIV_V2
#endif

/* Passes libfuse's answer on, with more of what the kernel offered in it. */
static bool greeting_pass_on(int from, int to, uint32_t offered)
{
	union {
		struct {
			struct fuse_out_header header;
			struct fuse_init_out init;
		};
		char bytes[512];
	} answer;
	ssize_t length = recv(from, &answer, sizeof answer, MSG_DONTWAIT);

	if (length >=
	        (ssize_t)(sizeof answer.header + offsetof(struct fuse_init_out, max_background)) &&
	    answer.header.error == 0)
		answer.init.flags |= GREETING_FLAGS & offered;
	return length > 0 && write(to, &answer, (size_t)length) == length;
}

/*
 * Without FUSE_HANDLE_KILLPRIV_V2 the kernel asks for security.capability before each buffered
 * WRITE, which doubles what a small one costs; libfuse before 3.17 does not know it. So while it
 * answers the greeting its descriptor is one end of a socket pair, and the answer is completed at
 * the other one. What the flag asks for is not to keep setuid bits across a WRITE: there are none.
 */
static bool greeting_answer(struct fuse_session *session, const struct fuse_buf *received)
{
	const struct fuse_init_in *init =
	    (const void *)((const char *)received->mem + sizeof(struct fuse_in_header));
	uint32_t offered = received->size >= sizeof(struct fuse_in_header) + 16 ? init->flags : 0;
	int fd = fuse_session_fd(session), kernel, sockets[2];
	bool passed;

	if ((GREETING_FLAGS & offered) == 0) {
		fuse_session_process_buf(session, received);
		return true;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0)
		return false;
	kernel = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	passed = kernel >= 0 && dup3(sockets[0], fd, O_CLOEXEC) == fd;
	if (passed) {
		fuse_session_process_buf(session, received);
		passed = greeting_pass_on(sockets[1], kernel, offered);
		passed &= dup3(kernel, fd, O_CLOEXEC) == fd;
	}
	close(sockets[0]);
	close(sockets[1]);
	if (kernel >= 0)
		close(kernel);
	return passed;
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
	bool answered = length > 0 && greeting_answer(fs->session, &received);
	free(received.mem);
	fs->greeted = answered && !fuse_session_exited(fs->session);
	if (fs->greeted)
		fs->ready(fs->data);
	else
		channel_end(channel);
}

/* ---- requests ---- */

/* As fuse_session_receive_buf(): 0 at the end, -errno. */
static ssize_t channel_receive(struct channel *channel)
{
	struct fuse_session *session = channel->fs->session;
	ssize_t length;

	do
		length = readv(fuse_session_fd(session), channel->iov, 1 + channel->runs);
	while (length < 0 && errno == ENOENT); /* its request was given up meanwhile */
	if (fuse_session_exited(session))
		return 0;
	if (length < 0 && errno == ENODEV) {
		fuse_session_exit(session);
		return 0;
	}
	if (length < 0) {
		if (errno != EINTR && errno != EAGAIN)
			log_error("cannot read from /dev/fuse: %s", strerror(errno));
		return -errno;
	}
	if ((size_t)length < sizeof(struct fuse_in_header)) {
		log_error("a request from /dev/fuse has only %zd bytes", length);
		return -EIO;
	}
	return length;
}

/* Behind the headers' bytes comes what went on in the frames. */
static void channel_put_together(struct channel *channel, size_t length)
{
	uint8_t *to = channel->scratch + HEADERS;
	size_t left = length > HEADERS ? length - HEADERS : 0;

	for (const struct iovec *run = &channel->iov[1]; left > 0; run++) {
		size_t piece = MIN(left, run->iov_len);
		memcpy(to, run->iov_base, piece);
		to += piece;
		left -= piece;
	}
}

static void channel_process(struct channel *channel, size_t length)
{
	struct fuse_buf buffer = {.mem = channel->scratch, .size = length};
	const struct fuse_in_header *header = buffer.mem;

	if (header->opcode == FUSE_WRITE && length >= HEADERS)
		channel->received = length - HEADERS;
	else
		channel_put_together(channel, length);
	fuse_session_process_buf(channel->fs->session, &buffer);
	channel->received = 0;
}

static void channel_ready(int fd, GIOCondition condition, void *data)
{
	struct channel *channel = data;

	(void)fd;
	(void)condition;
	if (!channel->greeted) {
		channel_greet(channel);
		return;
	}
	for (int i = 0; i < BATCH; i++) {
		if (!channel_fill(channel)) {
			channel_pause(channel);
			return;
		}
		ssize_t length = channel_receive(channel);
		if (length == -EINTR)
			continue;
		if (length == -EAGAIN)
			return;
		if (length <= 0) {
			channel_end(channel);
			return;
		}
		channel_process(channel, (size_t)length);
		/*
		 * Who waits for the one request at work sends no other: its command leaves now. And
		 * much data leaves while the processor's caches have it.
		 */
		if (channel->fs->outstanding == 1 || (size_t)length > HEADERS + LARGE)
			return;
	}
}

struct channel *channel_new(struct fs *fs)
{
	struct channel *channel = g_new0(struct channel, 1);
	int fd = fuse_session_fd(fs->session);

	channel->fs = fs;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	channel_watch(channel);
	return channel;
}

void channel_free(struct channel *channel)
{
	if (channel == NULL)
		return;
	loop_remove(&channel->watch);
	loop_remove(&channel->pause);
	for (int i = 1; i <= channel->runs; i++)
		frames_release(
		    channel->fs->frames, channel->iov[i].iov_base, channel->iov[i].iov_len);
	pool_put(channel->fs->pool, channel->scratch, SCRATCH_SIZE);
	g_free(channel);
}
