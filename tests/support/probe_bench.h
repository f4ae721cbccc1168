/*
 * probe_bench.h - a probe of a scripted port, and what came of it.
 */
#pragma once

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "support/scripted_port.h"

struct bench {
	struct loop *loop;
	struct scripted_port *port;
	struct probe *probe;
	struct lun_info *luns;
	unsigned count, calls;
	bool timed_out;
	struct probe_news news;
	char *error;
};

static inline void bench_open(struct bench *bench)
{
	*bench = (struct bench){.loop = loop_new()};
	bench->port = scripted_port_new(bench->loop);
}

static inline void bench_clear(struct bench *bench)
{
	g_clear_pointer(&bench->luns, g_free);
	g_clear_pointer(&bench->error, g_free);
	bench->count = bench->calls = 0;
}

static inline void bench_close(struct bench *bench)
{
	bench_clear(bench);
	scripted_port_free(bench->port);
	loop_free(bench->loop);
}

/* Frees the probe in its own done(), as the rules allow. */
static inline void bench_done(
    const struct lun_info *luns, unsigned count, const char *error, void *data)
{
	struct bench *bench = data;

	bench->calls++;
	bench->count = count;
	bench->luns = g_memdup2(luns, count * sizeof *luns);
	bench->error = g_strdup(error);
	bench->timed_out = probe_timed_out(bench->probe);
	cr_assert_not(probe_is_busy(bench->probe));
	g_clear_pointer(&bench->probe, probe_free);
	loop_quit(bench->loop);
}

static inline void bench_heard(const struct probe_news *news, void *data)
{
	struct bench *bench = data;

	bench->news.reset |= news->reset;
	bench->news.preempted |= news->preempted;
	bench->news.medium |= news->medium;
	bench->news.changed |= news->changed;
	bench->news.luns |= news->luns;
	bench->news.lun = news->lun;
}

static inline void bench_run(struct bench *bench, struct probe *probe)
{
	bench->probe = probe;
	probe_on_news(bench->probe, bench_heard);
	cr_assert_eq(bench->calls, 0, "done() from inside probe_start()");
	loop_run(bench->loop);
	cr_assert_eq(bench->calls, 1);
	cr_assert_eq(bench->port->outstanding, 0);
}

static inline void bench_probe(struct bench *bench, int lun)
{
	bench_clear(bench);
	bench->news = (struct probe_news){0};
	bench_run(bench, probe_start(&bench->port->port, bench->loop, lun, bench_done, bench));
}

static inline void bench_probe_one(struct bench *bench)
{
	bench_probe(bench, -1);
	cr_assert_null(bench->error, "%s", bench->error);
	cr_assert_eq(bench->count, 1);
}
