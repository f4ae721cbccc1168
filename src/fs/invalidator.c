/*
 * invalidator.c - the helper threads that have the kernel drop pages.
 *
 * Dropping waits for pages that are locked, and a page may be locked by a READ or WRITE that waits
 * for our loop: from the loop it would deadlock. And that READ may wait for a dead target: so each
 * node has a thread of its own, started with its first job (SAFETY.md 18). The jobs of one are done
 * in order.
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
		/* A length of 0 is all the rest. An error means that the kernel knows no such inode
		 * any more: nothing to drop. */
		(void)fuse_lowlevel_notify_inval_inode(invalidator->fs->session, job->id,
		    (off_t)job->start,
		    job->end == END_OF_FILE ? 0 : (off_t)(job->end - job->start));
		job_give(job);
		g_main_context_invoke_full(loop_context(invalidator->fs->loop), G_PRIORITY_DEFAULT,
		    invalidator_job_done, job, NULL);
	}
}

static struct invalidator *invalidator_new(struct fs *fs)
{
	struct invalidator *invalidator = g_new0(struct invalidator, 1);

	invalidator->fs = fs;
	invalidator->jobs = g_async_queue_new();
	invalidator->thread = g_thread_new("invalidator", invalidator_run, invalidator);
	return invalidator;
}

void invalidator_drop(
    struct node *node, uint64_t start, uint64_t end, void (*done)(void *data), void *data)
{
	struct job *job = g_new(struct job, 1);

	if (node->invalidator == NULL)
		node->invalidator = invalidator_new(node->fs);
	*job = (struct job){node->invalidator, node->id, start, end, done, data};
	node->invalidator->unfinished++;
	job_give(job);
	g_async_queue_push(node->invalidator->jobs, job);
}

void invalidator_free(struct invalidator *invalidator)
{
	if (invalidator == NULL)
		return;
	/* Dropping a changed page writes it out: that WRITE is to be answered. */
	while (invalidator->unfinished > 0)
		g_main_context_iteration(loop_context(invalidator->fs->loop), TRUE);
	struct job *end = g_new0(struct job, 1);
	job_give(end);
	g_async_queue_push(invalidator->jobs, end);
	g_thread_join(invalidator->thread);
	g_async_queue_unref(invalidator->jobs);
	g_free(invalidator);
}
