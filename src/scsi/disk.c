/*
 * disk.c - a logical unit as a block: requests come in, are cut into commands, and are done.
 *
 * It owns the requests that were submitted and their parts (disk.h has the picture and the
 * invariants), and what is known of the LUN. Data is never copied: a part's iovecs point into the
 * io's.
 *
 * Nothing is promised that the target may have forgotten: a write or FLUSH that LOST crossed ends
 * with -ESTALE, and the layer above, which keeps what was acknowledged too, sends all of it again
 * (SAFETY.md 1-5).
 */
#include "disk.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

#define OPTIMAL_WRITE                                                                              \
	(256u << 10) /* libiscsi's FirstBurstLength: no round trip before the data                 \
	              */
#define OPTIMAL_READ      (256u << 10)
#define UNMAP_CHUNK       (1u << 30)  /* WRITE SAME with UNMAP, where the target tells its limit, */
#define UNMAP_CHUNK_BLIND (32u << 20) /* and where it does not */
#define WRITE_SAME_CHUNK  (4u << 20)
#define ZERO_BUFFER       OPTIMAL_WRITE /* zeros are written like other data */
#define MAX_SLOTS         128u
#define MAX_ZERO_PARTS    4u
#define MAX_STARTS        10u
#define PATIENCE_MS       30000u

bool disk_flushes(const struct disk *disk)
{
	return disk->info.write_cache && disk->sync != SYNC_NONE && !disk->block.limits.read_only;
}

void disk_tell(struct disk *disk, const char *format, ...)
{
	char text[300];
	va_list args;

	if (!log_limit_passes(&disk->log, disk->name))
		return;
	va_start(args, format);
	g_vsnprintf(text, sizeof text, format, args);
	va_end(args);
	log_warning_of(disk->name, "%s", text);
}

/* ---- ends ---- */

static bool io_writes(const struct io *io)
{
	return io->op == IO_WRITE || io->op == IO_ZERO;
}

bool request_is_stale(const struct disk_request *request)
{
	const struct disk *disk = request->disk;

	return request->epoch != disk->block.epoch && request->io->op != IO_READ &&
	       disk_flushes(disk);
}

/* Counts a request, frees it; its io is to be told the error that is returned. */
static int request_close(struct disk_request *request)
{
	struct disk *disk = request->disk;
	struct disk_stats *stats = &disk->stats;
	const struct io *io = request->io;
	int error = request->error;

	if (!error && request_is_stale(request))
		error = -ESTALE;
	if (error == -ESTALE) {
		/* it will be done again */
	} else if (error && error != -EINTR) {
		stats->errors++;
	} else if (!error && io->op == IO_READ) {
		stats->reads++;
		stats->bytes_read += io->length;
	} else if (!error && io_writes(io)) {
		stats->writes++;
		stats->bytes_written += io->length;
	} else if (!error) {
		stats->flushes++;
	}
	slab_put(&disk->requests, request);
	return error;
}

void request_complete(struct disk_request *request)
{
	struct io *io = request->io;

	io->done(io, request_close(request));
}

void request_complete_later(struct disk_request *request)
{
	struct disk *disk = request->disk;
	struct io *io = request->io;

	io_end_later(&disk->ender, io, request_close(request));
}

/* ---- cutting a request into parts ---- */

static uint32_t disk_chunk(const struct disk *disk, enum part_kind kind)
{
	const struct lun_info *info = &disk->info;
	uint64_t most = kind == PART_READ ? OPTIMAL_READ : OPTIMAL_WRITE;
	uint64_t limit = (uint64_t)info->max_transfer * info->block_size;
	uint32_t burst = kind == PART_READ ? disk->port->read_burst : disk->port->write_burst;

	if (kind == PART_WRITE_SAME) {
		most = WRITE_SAME_CHUNK;
		if (disk->unmap)
			most = info->max_write_same ? UNMAP_CHUNK : UNMAP_CHUNK_BLIND;
		burst = 0;
		limit = MIN(info->max_write_same, UINT32_MAX) * info->block_size;
	}
	if (limit)
		most = MIN(most, limit);
	if (burst)
		most = MIN(most, burst);
	most -= most % info->block_size;
	return (uint32_t)MAX(most, info->block_size);
}

/* iovs that hold the io's next length bytes, counted up to PART_WIDE_IOVS */
static int request_count_iovs(const struct disk_request *request, uint32_t length)
{
	const struct io *io = request->io;
	size_t offset = request->iov_offset, left = length;
	int count = 0;

	for (int i = request->iov_index; left > 0 && i < io->niov && count < PART_WIDE_IOVS;
	     i++, count++) {
		left -= MIN(left, io->iov[i].iov_len - offset);
		offset = 0;
	}
	return count;
}

/* Points the part's iovs at the next bytes of the io; how many: length, or less where the iovs do
 * not suffice. */
static uint32_t part_point_at_io(struct disk_part *part, uint32_t length, uint32_t block_size)
{
	const struct disk_request *request = part->request;
	const struct io *io = request->io;
	size_t offset = request->iov_offset;
	uint32_t got = 0, excess;
	int room = part->wide ? PART_WIDE_IOVS : PART_IOVS, count = 0;

	for (int i = request->iov_index; got < length && i < io->niov && count < room; i++) {
		size_t bytes = MIN(length - got, io->iov[i].iov_len - offset);

		if (bytes == 0)
			continue;
		part->iov[count++] = (struct iovec){
		    .iov_base = (char *)io->iov[i].iov_base + offset, .iov_len = bytes};
		got += (uint32_t)bytes;
		offset = 0;
	}
	for (excess = got % block_size, got -= excess; excess > 0;) { /* whole blocks only */
		struct iovec *last = &part->iov[count - 1];
		uint32_t bytes = (uint32_t)MIN(excess, last->iov_len);

		last->iov_len -= bytes;
		excess -= bytes;
		if (last->iov_len == 0)
			count--;
	}
	part->command.niov = count;
	return got;
}

static void request_advance(struct disk_request *request, uint32_t bytes)
{
	const struct io *io = request->io;
	size_t left = bytes;

	request->sent += bytes;
	if (io->op == IO_ZERO)
		return;
	while (left > 0) {
		size_t here = MIN(left, io->iov[request->iov_index].iov_len - request->iov_offset);

		left -= here;
		request->iov_offset += here;
		if (request->iov_offset == io->iov[request->iov_index].iov_len) {
			request->iov_index++;
			request->iov_offset = 0;
		}
	}
}

static const void *disk_zeros(struct disk *disk)
{
	if (!disk->zeros) {
		/* Never written to: the kernel's page of zeros, many times. */
		void *memory =
		    mmap(NULL, ZERO_BUFFER, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		disk->zeros = memory == MAP_FAILED ? NULL : memory;
	}
	return disk->zeros;
}

static enum part_kind request_part_kind(const struct disk_request *request)
{
	if (request->syncing || request->io->op == IO_FLUSH)
		return PART_SYNC;
	if (request->io->op == IO_ZERO)
		return request->disk->write_same ? PART_WRITE_SAME : PART_WRITE;
	return request->io->op == IO_READ ? PART_READ : PART_WRITE;
}

/* Sends the next piece of the io's data. */
static int request_send_data(struct disk_request *request, enum part_kind kind)
{
	struct disk *disk = request->disk;
	const struct io *io = request->io;
	uint32_t block_size = disk->info.block_size;
	uint32_t length = (uint32_t)MIN(io->length - request->sent, disk_chunk(disk, kind));
	uint64_t lba = (io->offset + request->sent) / block_size;
	bool zero = io->op == IO_ZERO;
	struct disk_part *part = NULL;

	if (!zero || disk_zeros(disk))
		part = part_new(request, kind, zero ? 1 : request_count_iovs(request, length));
	if (!part)
		return -ENOMEM;
	if (zero) {
		part->command.niov = 1;
		part->iov[0] = (struct iovec){.iov_base = disk->zeros,
		    .iov_len = kind == PART_WRITE_SAME ? block_size : length};
	} else {
		length = part_point_at_io(part, length, block_size);
	}
	if (length == 0) { /* the iovs hold less than they should */
		part_drop(part);
		return -EINVAL;
	}
	part->lba = lba;
	part->blocks = length / block_size;
	part->command.length = kind == PART_WRITE_SAME ? block_size : length;
	request_advance(request, length);
	part_send(part);
	return 0;
}

static int request_send_sync(struct disk_request *request)
{
	struct disk_part *part = part_new(request, PART_SYNC, 0);

	if (!part)
		return -ENOMEM;
	request->sent = request->io->length;
	part_send(part);
	return 0;
}

/* ---- the queue ---- */

static void disk_queue(struct disk *disk, struct disk_request *request)
{
	request->queued = true;
	request->next = NULL;
	*disk->tail = request;
	disk->tail = &request->next;
}

static void disk_unqueue_head(struct disk *disk)
{
	struct disk_request *request = disk->head;

	request->queued = false;
	disk->head = request->next;
	if (!disk->head)
		disk->tail = &disk->head;
}

/* Something of it is still to be sent, and now is the time. */
static bool request_may_send(const struct disk_request *request)
{
	if (request->error || request->start_over)
		return false;
	if (request_part_kind(request) == PART_SYNC)
		return request->parts == 0;
	return request->sent < request->io->length &&
	       (request->io->op != IO_ZERO || request->parts < MAX_ZERO_PARTS);
}

static void request_send_part(struct disk_request *request)
{
	enum part_kind kind = request_part_kind(request);
	int error;

	if (io_is_cancelled(request->io))
		error = -EINTR;
	else if (kind == PART_SYNC)
		error = request_send_sync(request);
	else
		error = request_send_data(request, kind);
	if (error)
		request->error = error;
}

void disk_run(struct disk *disk)
{
	while (disk->head && disk->slots < MAX_SLOTS) {
		struct disk_request *request = disk->head;

		if (request_may_send(request))
			request_send_part(request);
		if (request_may_send(request))
			continue;
		disk_unqueue_head(disk);
		if (request->parts == 0) /* it has failed, or was cancelled */
			request_complete_later(request);
	}
}

static int request_start_over(struct disk_request *request)
{
	if (++request->starts >= MAX_STARTS)
		return -EIO;
	request->start_over = request->syncing = false;
	request->sent = 0;
	request->iov_index = 0;
	request->iov_offset = 0;
	return 0;
}

/* No part of it is out. What now? Sets error where that is the end. */
static void request_next_stage(struct disk_request *request)
{
	struct disk *disk = request->disk;
	const struct io *io = request->io;

	if (!io_writes(io) || request->sent < io->length)
		return;
	if ((io->flags & IO_FUA) && disk_flushes(disk) && !request->syncing)
		request->syncing = !disk->info.fua || io->op == IO_ZERO;
}

bool request_part_ended(struct disk_request *request, int error)
{
	bool was_syncing = request->syncing;

	if (error && !request->error)
		request->error = error;
	request->parts--;
	if (request->parts == 0 && !request->error) {
		if (!request->start_over)
			request_next_stage(request);
		if (request->start_over)
			request->error = request_start_over(request);
		else if (was_syncing || request->io->op == IO_FLUSH)
			return true;
	}
	if (!request->queued && request_may_send(request))
		disk_queue(request->disk, request);
	if (request->queued)
		return false;
	return request->parts == 0;
}

/* ---- the block ---- */

/* What an io ends with at once: 0 with *at_once, or an error; else it becomes a request. */
static int disk_check(const struct disk *disk, const struct io *io, bool *at_once)
{
	const struct block *block = &disk->block;

	*at_once = true;
	if (block->limits.read_only && (io_writes(io) || io->op == IO_DISCARD))
		return -EROFS;
	if (io->op == IO_DISCARD || io->op == IO_MAP)
		return -EOPNOTSUPP;
	if (io->op != IO_FLUSH) {
		if ((io->offset | io->length) % disk->info.block_size || io->length > block->size ||
		    io->offset > block->size - io->length)
			return -EINVAL;
		*at_once = io->length == 0;
		return 0;
	}
	*at_once = !disk_flushes(disk);
	return 0;
}

static void disk_submit(struct block *block, struct io *io)
{
	struct disk *disk = disk_of(block);
	struct disk_request *request;
	bool at_once;
	int error = disk_check(disk, io, &at_once);

	if (error || at_once) {
		io_end_later(&disk->ender, io, error);
		return;
	}
	request = slab_get(&disk->requests);
	if (!request) {
		io_end_later(&disk->ender, io, -ENOMEM);
		return;
	}
	request->disk = disk;
	request->io = io;
	request->epoch = block->epoch;
	io->layer = request;
	disk_queue(disk, request);
	disk_run(disk);
}

static void disk_free(struct block *block)
{
	struct disk *disk = disk_of(block);

	g_assert(disk->slots == 0 && !disk->head);
	io_ender_clear(&disk->ender);
	loop_remove(&disk->pause_timer);
	slab_clear(&disk->requests);
	slab_clear(&disk->parts);
	slab_clear(&disk->wide_parts);
	if (disk->zeros)
		munmap(disk->zeros, ZERO_BUFFER);
	g_free(disk->name);
	g_free(disk);
}

struct block *disk_new(struct loop *loop, struct scsi_port *port, const struct lun_info *info,
    const char *name, bool read_only)
{
	static const struct block_ops ops = {.submit = disk_submit, .free = disk_free};
	struct disk *disk = g_new0(struct disk, 1);

	block_stack(&disk->block, &ops, NULL);
	disk->loop = loop;
	disk->port = port;
	disk->info = *info;
	disk->name = g_strdup(name);
	disk->short_cdbs = info->type == SCSI_TYPE_CD;
	disk->write_same = info->type == SCSI_TYPE_DISK;
	disk->unmap = info->unmap_zeroes;
	disk->patience_ms = PATIENCE_MS;
	disk->tail = &disk->head;
	if (info->reserved)
		disk_note_conflict(disk, false);
	io_ender_init(&disk->ender, loop);
	disk->requests.size = sizeof(struct disk_request);
	disk->parts.size = sizeof(struct disk_part) + PART_IOVS * sizeof(struct iovec);
	disk->wide_parts.size = sizeof(struct disk_part) + PART_WIDE_IOVS * sizeof(struct iovec);

	disk->block.size = info->blocks * info->block_size;
	disk->block.limits = (struct block_limits){
	    .block_size = info->block_size,
	    .optimal_size = OPTIMAL_READ,
	    .read_only = read_only || info->write_protected,
	    .fua = info->fua || !info->write_cache,
	    .volatile_cache = info->write_cache,
	};
	return &disk->block;
}

const struct disk_stats *disk_stats(const struct block *block)
{
	return &((const struct disk *)block)->stats;
}
