/*
 * test_loop.c - the loop and the log.
 */
#include "lunfs/loop.h"

#include <criterion/criterion.h>
#include <gio/gio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lunfs/log.h"

/* Deferred work that counts, and does what a test asks for. */
struct worker {
	struct loop_work work;
	struct loop *loop;
	unsigned runs, order;
	unsigned *counter;
	struct loop_work *queues;
	bool quits;
};

static void worker_run(struct loop_work *work)
{
	struct worker *worker = (struct worker *)work;

	worker->runs++;
	if (worker->counter)
		worker->order = ++*worker->counter;
	if (worker->queues)
		loop_defer(worker->loop, worker->queues);
	if (worker->quits)
		loop_quit(worker->loop);
}

static struct worker worker_of(struct loop *loop)
{
	return (struct worker){.work.run = worker_run, .loop = loop};
}

static void turn(struct loop *loop)
{
	g_main_context_iteration(loop_context(loop), FALSE);
}

static void loop_quit_from(void *data)
{
	loop_quit(data);
}

static void count(void *data)
{
	++*(unsigned *)data;
}

Test(loop, deferred_work_runs_once_however_often_it_was_queued)
{
	struct loop *loop = loop_new();
	struct worker worker = worker_of(loop);

	for (int i = 0; i < 3; i++)
		loop_defer(loop, &worker.work);
	cr_assert_eq(worker.runs, 0, "it ran from inside loop_defer()");
	turn(loop);
	cr_assert_eq(worker.runs, 1);
	turn(loop);
	cr_assert_eq(worker.runs, 1);
	loop_defer(loop, &worker.work);
	turn(loop);
	cr_assert_eq(worker.runs, 2);
	loop_free(loop);
}

Test(loop, deferred_work_runs_in_order_of_queueing)
{
	struct loop *loop = loop_new();
	struct worker workers[50];
	unsigned counter = 0;

	for (int i = 0; i < 50; i++) {
		workers[i] = worker_of(loop);
		workers[i].counter = &counter;
		loop_defer(loop, &workers[i].work);
	}
	loop_cancel(loop, &workers[49].work);
	loop_cancel(loop, &workers[0].work);
	loop_defer(loop, &workers[0].work);
	turn(loop);
	for (unsigned i = 1; i < 49; i++)
		cr_assert_eq(workers[i].order, i);
	cr_assert_eq(workers[0].order, 49);
	cr_assert_eq(workers[49].runs, 0);
	loop_free(loop);
}

Test(loop, work_that_is_queued_by_work_runs_in_the_same_turn)
{
	struct loop *loop = loop_new();
	struct worker second = worker_of(loop), first = worker_of(loop);

	first.queues = &second.work;
	loop_defer(loop, &first.work);
	turn(loop);
	cr_assert_eq(second.runs, 1);
	loop_free(loop);
}

Test(loop, cancelled_work_does_not_run_and_can_be_queued_again)
{
	struct loop *loop = loop_new();
	struct worker worker = worker_of(loop);

	loop_defer(loop, &worker.work);
	loop_cancel(loop, &worker.work);
	loop_cancel(loop, &worker.work);
	turn(loop);
	cr_assert_eq(worker.runs, 0);
	loop_defer(loop, &worker.work);
	turn(loop);
	cr_assert_eq(worker.runs, 1);
	loop_free(loop);
}

static void free_work(struct loop_work *work)
{
	free(work);
}

Test(loop, work_may_free_itself)
{
	struct loop *loop = loop_new();

	for (int i = 0; i < 3; i++) {
		struct loop_work *work = calloc(1, sizeof(*work));
		work->run = free_work;
		loop_defer(loop, work);
	}
	turn(loop);
	loop_free(loop);
}

struct reader {
	struct loop *loop;
	unsigned calls, quit_after;
	GIOCondition condition;
};

static void reader_called(int fd, GIOCondition condition, void *data)
{
	struct reader *reader = data;
	char byte;

	reader->condition = condition;
	if (condition & G_IO_IN)
		cr_assert_eq(read(fd, &byte, 1), 1);
	if (++reader->calls == reader->quit_after)
		loop_quit(reader->loop);
}

Test(loop, work_that_queues_itself_runs_once_a_turn_and_lets_descriptors_be_served, .timeout = 60)
{
	struct loop *loop = loop_new();
	struct worker worker = worker_of(loop);
	struct reader reader = {.loop = loop, .quit_after = 20};
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "12345678901234567890", 20), 20);
	GSource *watch = loop_watch(loop, fds[0], G_IO_IN, reader_called, &reader, NULL);
	worker.queues = &worker.work;
	loop_defer(loop, &worker.work);
	loop_run(loop);
	cr_assert_eq(reader.calls, 20);
	cr_assert_eq(worker.runs, 20, "%u runs in 20 turns", worker.runs);
	loop_cancel(loop, &worker.work);
	loop_remove(&watch);
	close(fds[0]);
	close(fds[1]);
	loop_free(loop);
}

Test(loop, works_that_queue_each_other_for_ever_let_timers_fire, .timeout = 60)
{
	struct loop *loop = loop_new();
	struct worker ping = worker_of(loop), pong = worker_of(loop);

	ping.queues = &pong.work;
	pong.queues = &ping.work;
	loop_defer(loop, &ping.work);
	GSource *timer = loop_timer(loop, 5, loop_quit_from, loop);
	loop_run(loop);
	cr_assert_gt(ping.runs, 1);
	loop_remove(&timer);
	loop_free(loop);
}

Test(loop, does_not_sleep_while_work_queued_itself, .timeout = 60)
{
	struct loop *loop = loop_new();
	struct worker worker = worker_of(loop);

	worker.queues = &worker.work;
	loop_defer(loop, &worker.work);
	for (unsigned i = 1; i <= 5; i++) {
		g_main_context_iteration(loop_context(loop), TRUE);
		cr_assert_eq(worker.runs, i);
	}
	loop_free(loop);
}

Test(loop, quit_from_deferred_work_ends_it_without_sleeping, .timeout = 60)
{
	struct loop *loop = loop_new();
	struct worker worker = worker_of(loop);

	worker.quits = true;
	loop_defer(loop, &worker.work);
	loop_run(loop);
	cr_assert_eq(worker.runs, 1);
	loop_defer(loop, &worker.work);
	loop_run(loop);
	cr_assert_eq(worker.runs, 2, "it runs a second time as it did the first");
	loop_free(loop);
}

Test(loop, timer_fires_once_and_not_early, .timeout = 60)
{
	struct loop *loop = loop_new();
	unsigned fired = 0;
	int64_t start = clock_ms();

	GSource *timer = loop_timer(loop, 20, count, &fired);
	GSource *end = loop_timer(loop, 60, loop_quit_from, loop);
	while (!fired)
		g_main_context_iteration(loop_context(loop), TRUE);
	cr_assert_geq(clock_ms() - start, 20);
	loop_run(loop);
	cr_assert_eq(fired, 1);
	loop_remove(&timer);
	loop_remove(&timer);
	loop_remove(&end);
	cr_assert_null(timer);
	loop_free(loop);
}

Test(loop, removed_timer_does_not_fire, .timeout = 60)
{
	struct loop *loop = loop_new();
	unsigned fired = 0;

	GSource *timer = loop_timer(loop, 1, count, &fired);
	GSource *end = loop_timer(loop, 30, loop_quit_from, loop);
	loop_remove(&timer);
	loop_run(loop);
	cr_assert_eq(fired, 0);
	loop_remove(&end);
	loop_free(loop);
}

struct ticker {
	struct loop *loop;
	GSource *source;
	unsigned ticks;
};

static void ticker_ticked(void *data)
{
	struct ticker *ticker = data;

	if (++ticker->ticks < 3)
		return;
	loop_remove(&ticker->source);
	loop_quit(ticker->loop);
}

Test(loop, ticker_ticks_until_it_is_removed_by_its_own_tick, .timeout = 60)
{
	struct loop *loop = loop_new();
	struct ticker ticker = {.loop = loop};
	int64_t start = clock_us();

	ticker.source = loop_ticker(loop, 5, ticker_ticked, &ticker);
	loop_run(loop);
	cr_assert_geq(clock_us() - start, 15000);
	GSource *end = loop_timer(loop, 20, loop_quit_from, loop);
	loop_run(loop);
	cr_assert_eq(ticker.ticks, 3);
	loop_remove(&end);
	loop_free(loop);
}

Test(loop, watch_can_be_modified_by_its_tag)
{
	struct loop *loop = loop_new();
	struct reader reader = {.loop = loop};
	void *tag = NULL;
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	GSource *watch = loop_watch(loop, fds[1], 0, reader_called, &reader, &tag);
	turn(loop);
	cr_assert_eq(reader.calls, 0);
	g_source_modify_unix_fd(watch, tag, G_IO_OUT);
	turn(loop);
	cr_assert_eq(reader.calls, 1);
	cr_assert_eq(reader.condition, G_IO_OUT);
	g_source_modify_unix_fd(watch, tag, 0);
	turn(loop);
	cr_assert_eq(reader.calls, 1);
	loop_remove(&watch);
	close(fds[0]);
	close(fds[1]);
	loop_free(loop);
}

static void order_called(int fd, GIOCondition condition, void *data)
{
	struct worker *worker = data;
	char byte;

	(void)condition;
	cr_assert_eq(read(fd, &byte, 1), 1);
	++*worker->counter;
	loop_defer(worker->loop, &worker->work);
}

Test(loop, work_of_a_turn_runs_after_all_of_its_dispatches)
{
	struct loop *loop = loop_new();
	struct worker worker = worker_of(loop);
	unsigned counter = 0;
	GSource *watches[3];
	int fds[3][2];

	worker.counter = &counter;
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(pipe(fds[i]), 0);
		cr_assert_eq(write(fds[i][1], "x", 1), 1);
		watches[i] = loop_watch(loop, fds[i][0], G_IO_IN, order_called, &worker, NULL);
	}
	turn(loop);
	turn(loop);
	cr_assert_eq(worker.runs, 1);
	cr_assert_eq(worker.order, 4, "it ran after %u of 3 dispatches", worker.order - 1);
	for (int i = 0; i < 3; i++) {
		loop_remove(&watches[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
	loop_free(loop);
}

static gboolean always(gpointer data)
{
	++*(unsigned *)data;
	return G_SOURCE_CONTINUE;
}

Test(loop, sources_that_are_always_ready_do_not_keep_work_from_running)
{
	struct loop *loop = loop_new();
	struct worker worker = worker_of(loop);
	unsigned calls = 0;

	GSource *urgent = g_idle_source_new();
	g_source_set_priority(urgent, G_PRIORITY_HIGH);
	g_source_set_callback(urgent, always, &calls, NULL);
	g_source_attach(urgent, loop_context(loop));
	for (unsigned i = 1; i <= 5; i++) {
		loop_defer(loop, &worker.work);
		turn(loop);
		cr_assert_eq(worker.runs, i);
		cr_assert_eq(calls, i);
	}
	loop_remove(&urgent);
	loop_free(loop);
}

static void task_ready(GObject *source, GAsyncResult *result, gpointer data)
{
	(void)source;
	(void)result;
	loop_quit(data);
}

Test(loop, asynchronous_calls_of_gio_come_back_on_it, .timeout = 60)
{
	struct loop *loop = loop_new();

	g_autoptr(GTask) task = g_task_new(NULL, NULL, task_ready, loop);
	g_task_return_boolean(task, TRUE);
	loop_run(loop);
	loop_free(loop);
}

/* ---- log ---- */

/* What fn() writes to stderr. */
static char *stderr_of(void (*fn)(void))
{
	char *text = calloc(1, 8192);
	int saved = dup(STDERR_FILENO), fds[2];

	cr_assert_eq(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	fn();
	dup2(saved, STDERR_FILENO); /* closes the last writer, so that read() ends */
	close(saved);
	ssize_t length = read(fds[0], text, 8191);
	cr_assert_geq(length, 0);
	close(fds[0]);
	return text;
}

static void log_each_level(void)
{
	log_set_level(LOG_LEVEL_INFO);
	log_error("no route to %s", "10.0.0.5");
	log_warning("slow");
	log_info("ready");
	log_debug("not told");
	log_set_level(LOG_LEVEL_ERROR);
	log_warning("not told");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("told");
}

Test(log, lines_name_the_program_and_the_level)
{
	char *text = stderr_of(log_each_level);
	cr_assert_str_eq(text, "lunfs: no route to 10.0.0.5\nlunfs: warning: slow\nlunfs: "
	                       "ready\nlunfs: debug: told\n");
	free(text);
}

static void log_hostile(void)
{
	log_error("vendor 'a\nb\tc\x1b[2J\x7f\xc2\x9b' \xc3\xa9");
}

Test(log, what_a_target_says_cannot_end_the_line_or_reach_the_terminal)
{
	char *text = stderr_of(log_hostile);
	cr_assert_str_eq(text, "lunfs: vendor 'a b c?[2J?"
	                       "?"
	                       "?' \xc3\xa9\n");
	free(text);
}

static void log_endless(void)
{
	char *long_text = malloc(5001);

	memset(long_text, 'x', 5000);
	long_text[5000] = '\0';
	log_error("%s", long_text);
	free(long_text);
}

Test(log, a_line_that_is_too_long_is_cut_and_says_so)
{
	char *text = stderr_of(log_endless);
	size_t length = strlen(text);
	cr_assert(length > 1000 && length <= 1025, "%zu bytes", length);
	cr_assert_str_eq(text + length - 5, "x...\n");
	free(text);
}
