/*
 * flush.c - the command "flush" of a mount's control socket, from its start to its "done".
 *
 * Several clients may ask at once; each has a request of its own, that ends when the last file's
 * FLUSH has.
 */
#include "flush.h"

#include "control.h"
#include "lunfs/fs.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"

#define PROGRESS_MS 500u

struct flush_request {
	const GPtrArray *targets;
	struct control_client *client;
	GSource *ticker;
	uint64_t told;
	char *failed; /* names of files */
};

/* ---- what is left ---- */

static void each_disk(
    const GPtrArray *targets, void (*fn)(const struct disk *disk, void *data), void *data)
{
	for (guint i = 0; i < targets->len; i++) {
		const GPtrArray *disks = target_disks(g_ptr_array_index(targets, i));

		for (guint k = 0; disks != NULL && k < disks->len; k++)
			fn(g_ptr_array_index(disks, k), data);
	}
}

static void describe_disk(const struct disk *disk, void *data)
{
	GString *text = data;
	g_autofree char *ranges = disk_describe_unstable(disk);

	if (ranges != NULL)
		g_string_append_printf(text, "; %s%s",
		    text->len == 0 ? "not known to be on stable storage: " : "", ranges);
}

char *flush_describe_unstable(const GPtrArray *targets)
{
	GString *text = g_string_new(NULL);

	each_disk(targets, describe_disk, text);
	return g_string_free(text, FALSE);
}

struct unwritten {
	uint64_t bytes, most;
	unsigned disks;
	const char *name; /* of the disk that has most */
};

static void add_disk(const struct disk *disk, void *data)
{
	struct unwritten *unwritten = data;
	uint64_t bytes = disk_unwritten_bytes(disk);

	unwritten->bytes += bytes;
	unwritten->disks += bytes > 0;
	if (bytes > unwritten->most) {
		unwritten->most = bytes;
		unwritten->name = disk->title;
	}
}

uint64_t flush_unwritten_bytes(const GPtrArray *targets)
{
	struct unwritten unwritten = {.bytes = 0};

	each_disk(targets, add_disk, &unwritten);
	return unwritten.bytes;
}

static void flush_request_tick(void *data)
{
	struct flush_request *request = data;
	struct unwritten unwritten = {.bytes = 0};

	each_disk(request->targets, add_disk, &unwritten);
	if (unwritten.bytes == 0 || unwritten.bytes == request->told)
		return;
	request->told = unwritten.bytes;
	g_autofree char *bytes = g_strdup_printf("%" G_GUINT64_FORMAT, unwritten.bytes);
	g_autofree char *others = g_strdup_printf("%u", unwritten.disks - 1);
	control_reply(request->client, "writing", "file", unwritten.name, "others", others, "bytes",
	    bytes, NULL);
}

/* ---- the request ---- */

static void flush_request_progress(const char *name, int error, unsigned left, void *data)
{
	struct flush_request *request = data;
	g_autofree char *count = g_strdup_printf("%u", left);

	if (error != 0) {
		char *failed =
		    g_strdup_printf("%s%s%s: %s", request->failed != NULL ? request->failed : "",
		        request->failed != NULL ? "; " : "", name, g_strerror(-error));
		g_free(request->failed);
		request->failed = failed;
	}
	control_reply(request->client, "progress", "file", name, "left", count, "error",
	    error != 0 ? g_strerror(-error) : "", NULL);
}

static void flush_request_done(int error, void *data)
{
	struct flush_request *request = data;
	g_autofree char *unstable = flush_describe_unstable(request->targets);
	g_autofree char *text = g_strconcat(
	    request->failed != NULL ? request->failed : g_strerror(-error), unstable, NULL);

	control_reply(request->client, "done", "error", error == 0 ? "" : text, NULL);
	control_client_unref(request->client);
	loop_remove(&request->ticker);
	g_free(request->failed);
	g_free(request);
}

void flush_for_client(
    struct loop *loop, struct fs *fs, const GPtrArray *targets, struct control_client *client)
{
	struct flush_request *request = g_new0(struct flush_request, 1);

	*request = (struct flush_request){.targets = targets,
	    .client = control_client_ref(client),
	    .ticker = loop_ticker(loop, PROGRESS_MS, flush_request_tick, request)};
	fs_flush(fs, NULL, flush_request_progress, flush_request_done, request);
}
