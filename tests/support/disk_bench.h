/*
 * disk_bench.h - a disk above a scripted port, and requests that remember how they ended.
 */
#pragma once

#include <criterion/criterion.h>
#include <glib.h>

#include "../src/scsi/disk.h"
#include "lunfs/iscsi.h"
#include "support/scripted_port.h"

#define MIB (1u << 20)

struct bench {
	struct loop *loop;
	struct scripted_port *port;
	struct scripted_lun *lun;
	struct lun_info info;
	struct nexus *nexus; /* in between, where a test wants one */
	struct block *disk;
	unsigned lost, changed, gone, back, resized, fenced, forgotten, attentions, restless;
	unsigned waiting;
};

/* A request that remembers how it ended. */
struct request {
	struct io io;
	struct bench *bench;
	struct iovec iov;
	int error;
	unsigned calls;
};

static inline void bench_event(struct block *block, enum block_event event, void *data)
{
	struct bench *bench = data;

	(void)block;
	bench->lost += event == BLOCK_LOST;
	bench->changed += event == BLOCK_CHANGED;
	bench->gone += event == BLOCK_GONE;
	bench->back += event == BLOCK_BACK;
	bench->resized += event == BLOCK_RESIZED;
	bench->fenced += event == BLOCK_FENCED;
	bench->forgotten += event == BLOCK_FORGOTTEN;
}

static inline void bench_attention(enum disk_attention what, void *data)
{
	struct bench *bench = data;

	bench->attentions += what != DISK_RESTLESS;
	bench->restless += what == DISK_RESTLESS;
}

static inline void bench_expired(void *data)
{
	disk_gone(((struct bench *)data)->disk);
}

static inline void bench_make(struct bench *bench, struct lun_info info, bool behind_nexus)
{
	struct scsi_port *port;

	*bench = (struct bench){.loop = loop_new(), .info = info};
	bench->port = scripted_port_new(bench->loop);
	bench->lun =
	    scripted_port_add(bench->port, info.lun, info.type, info.block_size, info.blocks);
	port = &bench->port->port;
	if (behind_nexus) {
		bench->nexus = nexus_new(bench->loop, port, 60000, bench_expired, bench);
		port = nexus_port(bench->nexus);
	}
	bench->disk = disk_new(bench->loop, port, &bench->info, "lun0.img", false);
	bench->disk->on_event = bench_event;
	bench->disk->on_event_data = bench;
	disk_on_attention(bench->disk, bench_attention, bench);
}

static inline void bench_open_as(struct bench *bench, struct lun_info info)
{
	bench_make(bench, info, false);
}

static const struct lun_info ordinary = {
    .blocks = 65536,
    .block_size = 512,
    .write_cache = true,
    .fua = true,
    .wwid = "naa.6001405aabbccdd",
    .serial = "S1",
};

static inline void bench_open(struct bench *bench)
{
	bench_open_as(bench, ordinary);
}

static inline void bench_close(struct bench *bench)
{
	cr_assert_eq(bench->waiting, 0);
	block_free(bench->disk);
	nexus_free(bench->nexus);
	scripted_port_free(bench->port);
	loop_free(bench->loop);
}

static inline void request_done(struct io *io, int error)
{
	struct request *request = (struct request *)io;

	request->calls++;
	request->error = error;
	request->bench->waiting--;
	loop_quit(request->bench->loop);
}

static inline void request_submit(struct request *request)
{
	request->calls = 0;
	request->io.done = request_done;
	request->bench->waiting++;
	block_submit(request->bench->disk, &request->io);
	cr_assert_eq(request->calls, 0, "done() from inside submit()");
}

static inline void request_start(struct request *request, struct bench *bench, enum io_op op,
    uint64_t offset, void *data, uint64_t length)
{
	*request = (struct request){
	    .bench = bench,
	    .iov = {data, length},
	    .io = {.op = op,
	        .offset = offset,
	        .length = length,
	        .iov = &request->iov,
	        .niov = data ? 1 : 0},
	};
	request_submit(request);
}

static inline int request_wait(struct request *request)
{
	while (request->calls == 0)
		loop_run(request->bench->loop);
	cr_assert_eq(request->calls, 1);
	return request->error;
}

static inline int bench_do_flagged(struct bench *bench, enum io_op op, uint64_t offset, void *data,
    uint64_t length, uint32_t flags)
{
	struct request request = {
	    .bench = bench,
	    .iov = {data, length},
	    .io = {.op = op,
	        .flags = flags,
	        .offset = offset,
	        .length = length,
	        .niov = data ? 1 : 0},
	};

	request.io.iov = &request.iov;
	request_submit(&request);
	return request_wait(&request);
}

static inline int bench_do(
    struct bench *bench, enum io_op op, uint64_t offset, void *data, uint64_t length)
{
	return bench_do_flagged(bench, op, offset, data, length, 0);
}

/* Lets everything happen that needs no further push. */
static inline void bench_settle(struct bench *bench)
{
	for (int i = 0; i < 20; i++)
		g_main_context_iteration(loop_context(bench->loop), FALSE);
}

static inline uint8_t *pattern(size_t size, uint8_t seed)
{
	uint8_t *data = g_malloc(size);

	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(seed + i * 7 + i / 509);
	return data;
}
