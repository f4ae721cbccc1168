/*
 * nexus_bench.h - a nexus above a port that a test holds in its hand, and commands that remember
 * how they ended.
 *
 * No test waits for seconds: timers that are far away are moved up.
 */
#pragma once

#include <criterion/criterion.h>
#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <string.h>

#include "lunfs/iscsi.h"
#include "lunfs/loop.h"

#define HOUR_MS 3600000u

struct bench;

/* A command that remembers how it ended. */
struct order {
	struct scsi_command command; /* first */
	struct bench *bench;
	unsigned id, sends, calls;
	bool cancelled, executing;
	int error;
	struct order *then; /* comes from its done() */
	bool lost_then;     /* the session is lost in its done() */
};

struct bench {
	struct loop *loop;
	struct scsi_port port;
	struct nexus *nexus;
	GPtrArray *below; /* of struct order: sent, not returned; in order of execute() */
	GPtrArray *sent;  /* all that were ever sent, */
	GPtrArray *ended; /* and ended */
	bool dead;        /* the session is lost: execute() ends with -ESTALE, later */
	struct loop_work undertaker;
	unsigned expired, ended_before, ids;
	unsigned alive; /* submitted, not done */
};

/* ---- the port below ---- */

static inline struct order *order_at(GPtrArray *array, unsigned index)
{
	return g_ptr_array_index(array, index);
}

static inline void order_return(struct order *order, int error, bool timed_out)
{
	cr_assert(g_ptr_array_remove(order->bench->below, order), "it is below");
	order->command.error = error;
	order->command.timed_out = timed_out;
	order->command.done(&order->command);
}

static inline void port_bury(struct loop_work *work)
{
	struct bench *bench = (struct bench *)((char *)work - offsetof(struct bench, undertaker));

	while (bench->dead && bench->below->len > 0)
		order_return(order_at(bench->below, 0), -ESTALE, false);
}

static inline void port_execute(struct scsi_port *port, struct scsi_command *command)
{
	struct bench *bench = (struct bench *)((char *)port - offsetof(struct bench, port));
	struct order *order = (struct order *)command;

	order->sends++;
	command->prev = command->next = (struct scsi_command *)port; /* they are the port's now */
	command->error = 0;
	command->timed_out = false;
	g_ptr_array_add(bench->below, order);
	g_ptr_array_add(bench->sent, order);
	if (bench->dead)
		loop_defer(bench->loop, &bench->undertaker);
}

/* As a session does: it tells first, then hands all back, in order. */
static inline void bench_return_all(struct bench *bench, int timed_out)
{
	g_autoptr(GPtrArray) all = g_ptr_array_copy(bench->below, NULL, NULL);

	for (unsigned i = 0; i < all->len; i++)
		order_return(order_at(all, i), -ESTALE, (int)i == timed_out);
}

static inline void bench_lose(struct bench *bench)
{
	bench->dead = true;
	nexus_lost(bench->nexus);
	bench_return_all(bench, -1);
}

static inline void bench_find(struct bench *bench)
{
	bench->dead = false;
	nexus_open(bench->nexus);
}

/* ---- the bench ---- */

static inline void bench_expired(void *data)
{
	struct bench *bench = data;

	bench->expired++;
	bench->ended_before = bench->ended->len;
}

static inline void bench_open(struct bench *bench, unsigned replacement_timeout_ms)
{
	static const struct scsi_port_ops ops = {.execute = port_execute};

	*bench = (struct bench){
	    .loop = loop_new(),
	    .port = {.ops = &ops,
	        .write_burst = 262144,
	        .read_burst = 8192,
	        .command_timeout_ms = 30000},
	    .below = g_ptr_array_new(),
	    .sent = g_ptr_array_new(),
	    .ended = g_ptr_array_new(),
	    .undertaker.run = port_bury,
	};
	bench->nexus =
	    nexus_new(bench->loop, &bench->port, replacement_timeout_ms, bench_expired, bench);
}

static inline void bench_close(struct bench *bench)
{
	cr_assert_eq(bench->alive, 0);
	cr_assert_eq(nexus_waiting(bench->nexus), 0);
	loop_cancel(bench->loop, &bench->undertaker);
	nexus_free(bench->nexus);
	g_ptr_array_unref(bench->below);
	g_ptr_array_unref(bench->sent);
	g_ptr_array_unref(bench->ended);
	loop_free(bench->loop);
}

/* Lets everything happen that needs no further push. */
static inline void bench_settle(struct bench *bench)
{
	for (int i = 0; i < 10; i++)
		g_main_context_iteration(loop_context(bench->loop), FALSE);
}

static inline void bench_sleep(struct bench *bench, unsigned ms)
{
	int64_t end = clock_ms() + ms;

	while (clock_ms() < end) {
		g_usleep(1000);
		bench_settle(bench);
	}
}

/* Timers that are due in more than from_ms and in not more than to_ms are due now. How many. */
static inline unsigned bench_hurry(struct bench *bench, int64_t from_ms, int64_t to_ms)
{
	GMainContext *context = loop_context(bench->loop);
	g_autoptr(GSource) last = g_idle_source_new();
	unsigned ids = g_source_attach(last, context), found = 0;
	int64_t now = clock_us();

	g_source_destroy(last);
	for (unsigned id = 1; id < ids; id++) {
		GSource *source = g_main_context_find_source_by_id(context, id);
		int64_t due = source != NULL ? g_source_get_ready_time(source) : -1;

		if (due <= now + from_ms * 1000 || due > now + to_ms * 1000)
			continue;
		g_source_set_ready_time(source, 0);
		found++;
	}
	bench_settle(bench);
	return found;
}

static inline bool bench_sweep(struct bench *bench)
{
	return bench_hurry(bench, 0, 1000) == 1;
}

static inline bool bench_be_steady(struct bench *bench)
{
	return bench_hurry(bench, 1000, 10000) == 1;
}

/* For clocks of an hour. */
static inline bool bench_expire(struct bench *bench)
{
	return bench_hurry(bench, HOUR_MS / 2, HOUR_MS) == 1;
}

static inline void order_submit(struct order *order);

static inline void order_done(struct scsi_command *command)
{
	struct order *order = (struct order *)command;
	struct bench *bench = order->bench;

	cr_assert_not(order->executing, "done() from inside execute()");
	cr_assert_eq(order->calls++, 0, "command %u is done again", order->id);
	order->error = command->error;
	g_ptr_array_add(bench->ended, order);
	bench->alive--;
	if (order->lost_then)
		nexus_lost(bench->nexus);
	if (order->then != NULL)
		order_submit(order->then);
}

static inline void order_submit(struct order *order)
{
	struct bench *bench = order->bench;

	bench->alive++;
	order->id = bench->ids++;
	order->executing = true;
	scsi_execute(nexus_port(bench->nexus), &order->command);
	order->executing = false;
}

static inline struct order order_make(struct bench *bench, bool replay)
{
	return (struct order){.bench = bench, .command = {.done = order_done, .replay = replay}};
}

/* Submits count commands; replay tells which of them may be sent again: 'R', or 'W' for not. */
static inline void bench_submit(struct bench *bench, struct order *orders, const char *kinds)
{
	for (unsigned i = 0; kinds[i]; i++) {
		orders[i] = order_make(bench, kinds[i] == 'R');
		orders[i].command.cancelled = &orders[i].cancelled;
		order_submit(&orders[i]);
	}
}

static inline void bench_answer_all(struct bench *bench)
{
	while (bench->below->len > 0)
		order_return(order_at(bench->below, 0), 0, false);
}

/* "0 2 1": ids in order */
static const char *ids_of(const struct bench *bench, GPtrArray *array)
{
	static char text[2000];
	size_t at = 0;

	(void)bench;
	text[0] = '\0';
	for (unsigned i = 0; i < array->len; i++)
		at += (size_t)g_snprintf(
		    text + at, sizeof text - at, "%s%u", i ? " " : "", order_at(array, i)->id);
	return text;
}

#define expect_sent(bench, ids)  cr_expect_str_eq(ids_of(bench, (bench)->sent), ids)
#define expect_ended(bench, ids) cr_expect_str_eq(ids_of(bench, (bench)->ended), ids)

static inline void bench_forget_what_was_sent(struct bench *bench)
{
	g_ptr_array_set_size(bench->sent, 0);
}
