/*
 * loop.h - the one loop that owns everything.
 *
 * A thin skin over GLib's main loop, with one addition: work that runs once at the end of a turn,
 * just before the loop would sleep. Commands that were queued during a turn are sent there
 * together, and completions that must not run inside submit() are delivered there.
 *
 * All functions are to be called from the loop's thread; another one comes in with
 * g_main_context_invoke(loop_context(loop), ...). Deferred work must not run the loop itself.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;

/* One piece of deferred work; embedded in its owner, zero-initialised but for run. */
struct loop_work {
	void (*run)(struct loop_work *work);
	struct loop_work *next;
	bool queued;
};

struct loop *loop_new(void);
void loop_free(struct loop *loop);

/* The GLib context, for sources of one's own. */
GMainContext *loop_context(struct loop *loop);

/* Runs until loop_quit(). */
void loop_run(struct loop *loop);
void loop_quit(struct loop *loop);

/* Runs work->run() once before the loop sleeps next; queueing it twice is queueing it once. */
void loop_defer(struct loop *loop, struct loop_work *work);
void loop_cancel(struct loop *loop, struct loop_work *work);

/* The number of the present turn: deferred work is of the turn that it was deferred in. */
uint64_t loop_turn(const struct loop *loop);

/*
 * Something is expected to come at once: for us microseconds from now the loop polls without
 * sleeping, unless there is one processor only. To be woken from sleep may take longer than what is
 * to be done then.
 */
void loop_expect(struct loop *loop, unsigned us);

/*
 * Calls fn(data) after ms milliseconds, once. Returns the source, which the caller keeps, and gives
 * back with loop_remove() whether it has fired or not.
 */
GSource *loop_timer(struct loop *loop, unsigned ms, void (*fn)(void *data), void *data);
/* Calls fn(data) every ms milliseconds until removed. */
GSource *loop_ticker(struct loop *loop, unsigned ms, void (*fn)(void *data), void *data);
/* Calls fn(fd, condition, data) while fd has one of the conditions. */
GSource *loop_watch(struct loop *loop, int fd, GIOCondition condition,
    void (*fn)(int fd, GIOCondition condition, void *data), void *data, void **tag);
/* Destroys *source where there is one, and sets it to NULL. */
void loop_remove(GSource **source);

/* Monotonic milliseconds, and microseconds. */
int64_t clock_ms(void);
int64_t clock_us(void);
