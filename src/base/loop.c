/*
 * loop.c - the one loop, on a GMainContext of its own.
 *
 * The context is the thread's default while the loop lives, so that GIO's asynchronous calls come
 * back on it.
 *
 * A turn is: deferred work, poll, dispatch. Deferred work runs in prepare() of the source with the
 * highest priority: GLib asks it first, after all that was dispatched in the turn before and before
 * it polls. It never says it is ready, as that would keep the sources below it from being
 * dispatched; where work is left it asks for a poll that does not wait.
 *
 * Invariants: a work is queued exactly while it is in one of the two lists; what runs is in
 * neither.
 */
#include "lunfs/loop.h"

#include <sched.h>
#include <time.h>

/* Works of one turn: two that queue each other in circles must not keep the descriptors waiting. */
#define TURN_LIMIT 1024u

struct work_list {
	struct loop_work *head, **tail;
};

struct loop {
	GMainContext *context;
	GSource *deferred;
	struct work_list now, next_turn;
	const struct loop_work *running;
	uint64_t turn;
	int64_t awake_until_us; /* loop_expect() */
	bool alone;             /* on one processor */
	bool quit;
};

struct deferred_source {
	GSource source;
	struct loop *loop;
};

struct timer_source {
	GSource source;
	void (*fn)(void *data);
	void *data;
	int64_t period_us; /* 0: once */
};

struct watch_source {
	GSource source;
	void (*fn)(int fd, GIOCondition condition, void *data);
	void *data;
	void *tag;
	int fd;
};

static void work_list_init(struct work_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static void work_list_append(struct work_list *list, struct loop_work *work)
{
	work->next = NULL;
	*list->tail = work;
	list->tail = &work->next;
}

static struct loop_work *work_list_pop(struct work_list *list)
{
	struct loop_work *work = list->head;
	list->head = work->next;
	if (!list->head)
		list->tail = &list->head;
	return work;
}

static bool work_list_remove(struct work_list *list, const struct loop_work *work)
{
	for (struct loop_work **link = &list->head; *link; link = &(*link)->next) {
		if (*link != work)
			continue;
		*link = work->next;
		if (!*link)
			list->tail = link;
		return true;
	}
	return false;
}

static void loop_run_deferred(struct loop *loop)
{
	for (unsigned i = 0; loop->now.head && i < TURN_LIMIT; i++) {
		struct loop_work *work = work_list_pop(&loop->now);
		work->queued = false;
		loop->running = work;
		work->run(work); /* which may free it */
		loop->running = NULL;
	}
	if (loop->next_turn.head) {
		*loop->now.tail = loop->next_turn.head;
		loop->now.tail = loop->next_turn.tail;
		work_list_init(&loop->next_turn);
	}
}

uint64_t loop_turn(const struct loop *loop)
{
	return loop->turn;
}

void loop_expect(struct loop *loop, unsigned us)
{
	if (!loop->alone)
		loop->awake_until_us = clock_us() + us;
}

/* Who it waits for may be about to run on our processor. */
static bool loop_stays_awake(struct loop *loop)
{
	if (!loop->awake_until_us)
		return false;
	if (clock_us() >= loop->awake_until_us)
		loop->awake_until_us = 0;
	else
		sched_yield();
	return loop->awake_until_us;
}

static gboolean deferred_prepare(GSource *source, gint *timeout)
{
	struct loop *loop = ((struct deferred_source *)source)->loop;

	loop_run_deferred(loop);
	loop->turn++;
	*timeout = loop->now.head || loop->quit || loop_stays_awake(loop) ? 0 : -1;
	return FALSE;
}

static gboolean deferred_check(GSource *source)
{
	(void)source;
	return FALSE;
}

static GSourceFuncs deferred_funcs = {.prepare = deferred_prepare, .check = deferred_check};

struct loop *loop_new(void)
{
	struct loop *loop = g_new0(struct loop, 1);

	work_list_init(&loop->now);
	work_list_init(&loop->next_turn);
	loop->alone = g_get_num_processors() == 1;
	loop->context = g_main_context_new();
	g_main_context_push_thread_default(loop->context);

	loop->deferred = g_source_new(&deferred_funcs, sizeof(struct deferred_source));
	((struct deferred_source *)loop->deferred)->loop = loop;
	g_source_set_priority(loop->deferred, G_MININT);
	g_source_set_static_name(loop->deferred, "lunfs deferred work");
	g_source_attach(loop->deferred, loop->context);
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	loop_remove(&loop->deferred);
	g_main_context_pop_thread_default(loop->context);
	g_main_context_unref(loop->context);
	g_free(loop);
}

GMainContext *loop_context(struct loop *loop)
{
	return loop->context;
}

void loop_run(struct loop *loop)
{
	while (!loop->quit)
		g_main_context_iteration(loop->context, TRUE);
	loop->quit = false;
}

void loop_quit(struct loop *loop)
{
	loop->quit = true;
}

void loop_defer(struct loop *loop, struct loop_work *work)
{
	if (work->queued)
		return;
	work->queued = true;
	work_list_append(work == loop->running ? &loop->next_turn : &loop->now, work);
}

void loop_cancel(struct loop *loop, struct loop_work *work)
{
	if (!work->queued)
		return;
	work->queued = false;
	if (!work_list_remove(&loop->now, work))
		work_list_remove(&loop->next_turn, work);
}

static gboolean timer_dispatch(GSource *source, GSourceFunc callback, gpointer user_data)
{
	struct timer_source *timer = (struct timer_source *)source;

	(void)callback;
	(void)user_data;
	if (!timer->period_us) {
		timer->fn(timer->data);
		return G_SOURCE_REMOVE;
	}
	/* From now on, not from when it was due: after a suspend there is one tick, not thousands.
	 */
	g_source_set_ready_time(source, g_source_get_time(source) + timer->period_us);
	timer->fn(timer->data);
	return G_SOURCE_CONTINUE;
}

static GSourceFuncs timer_funcs = {.dispatch = timer_dispatch};

static GSource *timer_attach(
    struct loop *loop, unsigned ms, bool repeat, void (*fn)(void *data), void *data)
{
	GSource *source = g_source_new(&timer_funcs, sizeof(struct timer_source));
	struct timer_source *timer = (struct timer_source *)source;

	timer->fn = fn;
	timer->data = data;
	timer->period_us = repeat ? MAX(ms, 1u) * INT64_C(1000) : 0;
	g_source_set_ready_time(source, clock_us() + ms * INT64_C(1000));
	g_source_attach(source, loop->context);
	return source;
}

GSource *loop_timer(struct loop *loop, unsigned ms, void (*fn)(void *data), void *data)
{
	return timer_attach(loop, ms, false, fn, data);
}

GSource *loop_ticker(struct loop *loop, unsigned ms, void (*fn)(void *data), void *data)
{
	return timer_attach(loop, ms, true, fn, data);
}

static gboolean watch_dispatch(GSource *source, GSourceFunc callback, gpointer user_data)
{
	struct watch_source *watch = (struct watch_source *)source;

	(void)callback;
	(void)user_data;
	watch->fn(watch->fd, g_source_query_unix_fd(source, watch->tag), watch->data);
	return G_SOURCE_CONTINUE;
}

static GSourceFuncs watch_funcs = {.dispatch = watch_dispatch};

GSource *loop_watch(struct loop *loop, int fd, GIOCondition condition,
    void (*fn)(int fd, GIOCondition condition, void *data), void *data, void **tag)
{
	GSource *source = g_source_new(&watch_funcs, sizeof(struct watch_source));
	struct watch_source *watch = (struct watch_source *)source;

	watch->fn = fn;
	watch->data = data;
	watch->fd = fd;
	watch->tag = g_source_add_unix_fd(source, fd, condition);
	if (tag)
		*tag = watch->tag;
	/*
	 * Otherwise GLib takes the descriptor out of the poll set while fn() runs, and puts it
	 * back, and wakes itself up for both: three system calls at each call. Nothing here runs
	 * the loop from inside.
	 */
	g_source_set_can_recurse(source, TRUE);
	g_source_attach(source, loop->context);
	return source;
}

void loop_remove(GSource **source)
{
	if (!*source)
		return;
	g_source_destroy(*source);
	g_clear_pointer(source, g_source_unref);
}

int64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

int64_t clock_ms(void)
{
	return clock_us() / 1000;
}
