/*
 * invalidator.c - the helper thread that has the kernel drop pages.
 *
 * Dropping waits for pages that are locked, and a page may be locked by a READ or WRITE that waits
 * for our loop: from the loop it would deadlock. The thread is started with the first job; the jobs
 * are done in order.
 */
#include "internal.h"
#include "lunfs/loop.h"

/*
 * ThreadSanitizer does not see through GLib's queues, so it is told where a job passes from one
 * thread to the other.
 */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define job_give(job) __tsan_release(job)
#define job_take(job) __tsan_acquire(job)
#else
#define job_give(job) ((void)(job))
#define job_take(job) ((void)(job))
#endif

struct job {
	struct invalidator *invalidator; /* NULL: the end */
	fuse_ino_t id;
	uint64_t start, end;
	void (*done)(void *data);
	void *data;
};

struct invalidator {
	struct fs *fs;
	GThread *thread;
	GAsyncQueue *jobs;
	unsigned unfinished;
};

static gboolean invalidator_job_done(gpointer data)
{
	struct job *job = data;

	job_take(job);
	job->invalidator->unfinished--;
	if (job->done != NULL)
		job->done(job->data);
	g_free(job);
	return G_SOURCE_REMOVE;
}

static gpointer invalidator_run(gpointer data)
{
	struct invalidator *invalidator = data;

	for (;;) {
		struct job *job = g_async_queue_pop(invalidator->jobs);

		job_take(job);
		if (job->invalidator == NULL) {
			g_free(job);
			return NULL;
		}
		/* An error means that the kernel knows no such inode any more: nothing to drop. */
		(void)fuse_lowlevel_notify_inval_inode(invalidator->fs->session, job->id,
		    (off_t)job->start, (off_t)(job->end - job->start));
		job_give(job);
		g_main_context_invoke_full(loop_context(invalidator->fs->loop), G_PRIORITY_DEFAULT,
		    invalidator_job_done, job, NULL);
	}
}

void invalidator_drop(struct invalidator *invalidator, const struct node *node, uint64_t start,
    uint64_t end, void (*done)(void *data), void *data)
{
	struct job *job = g_new(struct job, 1);

	*job = (struct job){invalidator, node->id, start, end, done, data};
	invalidator->unfinished++;
	if (invalidator->thread == NULL)
		invalidator->thread = g_thread_new("invalidator", invalidator_run, invalidator);
	job_give(job);
	g_async_queue_push(invalidator->jobs, job);
}

struct invalidator *invalidator_new(struct fs *fs)
{
	struct invalidator *invalidator = g_new0(struct invalidator, 1);

	invalidator->fs = fs;
	invalidator->jobs = g_async_queue_new();
	return invalidator;
}

void invalidator_free(struct invalidator *invalidator)
{
	if (invalidator == NULL)
		return;
	if (invalidator->thread != NULL) {
		struct job *end = g_new0(struct job, 1);

		job_give(end);
		g_async_queue_push(invalidator->jobs, end);
		g_thread_join(invalidator->thread);
		while (invalidator->unfinished > 0)
			g_main_context_iteration(loop_context(invalidator->fs->loop), TRUE);
	}
	g_async_queue_unref(invalidator->jobs);
	g_free(invalidator);
}
