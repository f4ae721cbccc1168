/*
 * invalidator.c - the helper threads that have the kernel drop pages, and names.
 *
 * Dropping waits for pages that are locked, and a page may be locked by a READ or WRITE that waits
 * for our loop: from the loop it would deadlock. And that READ may wait for a dead target: so each
 * node has a thread of its own, started with its first job (SAFETY.md 18). The jobs of one are done
 * in order.
 *
 * One more is for all directories. It waits for the locks of a directory, or of a file that was
 * removed: who has them waits for an answer that needs no target.
 */
#include <string.h>

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
	struct node *node;               /* held; NULL: the kernel is told of ids */
	fuse_ino_t id;
	off_t start, length; /* of pages: a length of 0 is all the rest; start -1: none */
	char *gone;          /* the name that id had in parent; NULL: it is about pages */
	fuse_ino_t parent;
	void (*done)(void *data);
	void *data;
};

struct invalidator {
	struct fs *fs;
	GThread *thread;
	GAsyncQueue *jobs;
	unsigned unfinished;
};

void invalidator_end_if_idle(struct node *node)
{
	if (node->invalidator != NULL && node->invalidator->unfinished == 0)
		invalidator_free(g_steal_pointer(&node->invalidator));
}

static void job_free(struct job *job)
{
	g_free(job->gone);
	g_free(job);
}

static gboolean invalidator_job_done(gpointer data)
{
	struct job *job = data;
	struct node *node = job->node;

	job_take(job);
	job->invalidator->unfinished--;
	job->invalidator->fs->jobs--;
	if (job->done != NULL)
		job->done(job->data);
	if (node != NULL) {
		if (node->removed)
			invalidator_end_if_idle(node);
		node_unref(node, 1);
	}
	job_free(job);
	return G_SOURCE_REMOVE;
}

/* An error means that the kernel knows no such inode or name any more: nothing to drop. */
static void job_run(const struct job *job, struct fuse_session *session)
{
	if (job->gone != NULL)
		(void)fuse_lowlevel_notify_delete(
		    session, job->parent, job->id, job->gone, strlen(job->gone));
	else
		(void)fuse_lowlevel_notify_inval_inode(session, job->id, job->start, job->length);
}

static gpointer invalidator_run(gpointer data)
{
	struct invalidator *invalidator = data;

	for (;;) {
		struct job *job = g_async_queue_pop(invalidator->jobs);

		job_take(job);
		if (job->invalidator == NULL) {
			job_free(job);
			return NULL;
		}
		job_run(job, invalidator->fs->session);
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

static void invalidator_do(struct fs *fs, struct invalidator **invalidator, struct job job)
{
	struct job *queued = g_new(struct job, 1);

	if (*invalidator == NULL)
		*invalidator = invalidator_new(fs);
	*queued = job;
	queued->invalidator = *invalidator;
	(*invalidator)->unfinished++;
	fs->jobs++;
	job_give(queued);
	g_async_queue_push((*invalidator)->jobs, queued);
}

void invalidator_drop(
    struct node *node, uint64_t start, uint64_t end, void (*done)(void *data), void *data)
{
	invalidator_do(node->fs, &node->invalidator,
	    (struct job){.node = node_ref(node),
	        .id = node->id,
	        .start = (off_t)start,
	        .length = end == END_OF_FILE ? 0 : (off_t)(end - start),
	        .done = done,
	        .data = data});
}

void invalidator_tell_changed(const struct node *directory)
{
	invalidator_do(directory->fs, &directory->fs->invalidator,
	    (struct job){.id = directory->id, .start = -1});
}

void invalidator_tell_gone(const struct node *node)
{
	invalidator_do(node->fs, &node->fs->invalidator,
	    (struct job){.id = node->id, .parent = node->parent->id, .gone = g_strdup(node->name)});
}

/* Dropping a changed page writes it out: that WRITE is to be answered. */
void invalidators_await(struct fs *fs)
{
	while (fs->jobs > 0)
		g_main_context_iteration(loop_context(fs->loop), TRUE);
}

void invalidator_free(struct invalidator *invalidator)
{
	if (invalidator == NULL)
		return;
	struct job *end = g_new0(struct job, 1);
	job_give(end);
	g_async_queue_push(invalidator->jobs, end);
	g_thread_join(invalidator->thread);
	g_async_queue_unref(invalidator->jobs);
	g_free(invalidator);
}
