/*
 * top_model.c - what 'lunfs top' knows of the mounts: see top_model.h.
 */
#include "top_model.h"

#include <string.h>

enum { READS, WRITES, BYTES_READ, BYTES_WRITTEN, HITS, MISSES, COUNTERS };
static const char *const counter_names[COUNTERS] = {
    "reads", "writes", "bytes_read", "bytes_written", "cache_hits", "cache_misses"};

static void lun_free(gpointer data)
{
	struct top_lun *lun = data;

	g_free(lun->file);
	g_free(lun->trouble);
	g_free(lun);
}

static void target_free(gpointer data)
{
	struct top_target *target = data;

	g_ptr_array_unref(target->luns);
	g_free(target->name);
	g_free(target->state);
	g_free(target->address);
	g_free(target->reason);
	g_free(target);
}

struct top_mount *top_mount_new(const char *mountpoint)
{
	struct top_mount *mount = g_new0(struct top_mount, 1);

	mount->mountpoint = g_strdup(mountpoint);
	mount->targets = g_ptr_array_new_with_free_func(target_free);
	return mount;
}

void top_mount_free(gpointer data)
{
	struct top_mount *mount = data;

	g_ptr_array_unref(mount->targets);
	g_free(mount->mountpoint);
	g_free(mount);
}

/* ---- rows ---- */

static const char *row_text(GHashTable *row, const char *name)
{
	const char *text = g_hash_table_lookup(row, name);

	return text != NULL ? text : "";
}

static uint64_t row_number(GHashTable *row, const char *name)
{
	return g_ascii_strtoull(row_text(row, name), NULL, 10);
}

static void take_text(char **into, const char *text)
{
	char *copy = g_strdup(text);

	g_free(*into);
	*into = copy;
}

static struct top_target *find_target(struct top_mount *mount, const char *name)
{
	struct top_target *target;

	for (unsigned i = 0; i < mount->targets->len; i++) {
		target = g_ptr_array_index(mount->targets, i);
		if (strcmp(target->name, name) == 0)
			return target;
	}
	target = g_new0(struct top_target, 1);
	target->name = g_strdup(name);
	target->luns = g_ptr_array_new_with_free_func(lun_free);
	g_ptr_array_add(mount->targets, target);
	return target;
}

static struct top_lun *find_lun(struct top_target *target, const char *file)
{
	struct top_lun *lun;

	for (unsigned i = 0; i < target->luns->len; i++) {
		lun = g_ptr_array_index(target->luns, i);
		if (strcmp(lun->file, file) == 0)
			return lun;
	}
	lun = g_new0(struct top_lun, 1);
	lun->file = g_strdup(file);
	g_ptr_array_add(target->luns, lun);
	return lun;
}

static void take_target(struct top_mount *mount, GHashTable *row)
{
	struct top_target *target = find_target(mount, row_text(row, "target"));
	const char *trouble = row_text(row, "trouble");

	target->seen = true;
	target->ready = row_number(row, "ready") != 0;
	target->outage_ms = row_number(row, "outage_ms");
	take_text(&target->state, row_text(row, "state"));
	take_text(&target->address, row_text(row, "address"));
	take_text(&target->reason, trouble[0] != '\0' ? trouble : row_text(row, "last_error"));
	for (unsigned i = 0; i < target->luns->len; i++)
		((struct top_lun *)g_ptr_array_index(target->luns, i))->seen = false;
}

static void take_latency(struct top_lun *lun, GHashTable *row, bool first)
{
	struct histogram now = histogram_parse(row_text(row, "read_latency"));
	struct histogram writes = histogram_parse(row_text(row, "write_latency"));
	struct histogram since = {.total = 0};

	histogram_merge(&now, &writes);
	if (!first)
		since = histogram_since(&now, &lun->latency);
	lun->latency = now;
	lun->p50_us = histogram_quantile_us(&since, 0.50);
	lun->p99_us = histogram_quantile_us(&since, 0.99);
	memmove(lun->history, lun->history + 1, sizeof lun->history - sizeof lun->history[0]);
	lun->history[TOP_HISTORY - 1] = lun->p99_us;
}

static void take_lun(struct top_mount *mount, GHashTable *row, int64_t now_us)
{
	struct top_lun *lun =
	    find_lun(find_target(mount, row_text(row, "target")), row_text(row, "file"));
	double seconds = (double)MAX(now_us - lun->taken_us, 1) / G_USEC_PER_SEC;
	bool first = lun->taken_us == 0;
	uint64_t more[COUNTERS];

	for (unsigned i = 0; i < COUNTERS; i++) {
		uint64_t now = row_number(row, counter_names[i]);

		/* Of a LUN that was away they may begin anew. */
		more[i] = !first && now >= lun->counters[i] ? now - lun->counters[i] : 0;
		lun->counters[i] = now;
	}
	lun->seen = true;
	lun->taken_us = now_us;
	take_text(&lun->trouble, row_text(row, "trouble"));
	lun->size = row_number(row, "size");
	lun->dirty = row_number(row, "dirty_bytes");
	lun->reads = (double)more[READS] / seconds;
	lun->writes = (double)more[WRITES] / seconds;
	lun->bytes_read = (double)more[BYTES_READ] / seconds;
	lun->bytes_written = (double)more[BYTES_WRITTEN] / seconds;
	lun->hit_percent = more[HITS] + more[MISSES] > 0
	                       ? (int)(100 * more[HITS] / (more[HITS] + more[MISSES]))
	                       : -1;
	take_latency(lun, row, first);
}

static void forget_unseen(struct top_mount *mount)
{
	for (unsigned i = mount->targets->len; i > 0; i--) {
		struct top_target *target = g_ptr_array_index(mount->targets, i - 1);

		for (unsigned k = target->luns->len; k > 0; k--)
			if (!((struct top_lun *)g_ptr_array_index(target->luns, k - 1))->seen)
				g_ptr_array_remove_index(target->luns, k - 1);
		if (!target->seen)
			g_ptr_array_remove_index(mount->targets, i - 1);
		else
			target->seen = false;
	}
}

bool top_mount_take(struct top_mount *mount, GHashTable *row, int64_t now_us)
{
	const char *event = row_text(row, "event");

	if (strcmp(event, "target") == 0)
		take_target(mount, row);
	else if (strcmp(event, "lun") == 0)
		take_lun(mount, row, now_us);
	else if (strcmp(event, "done") == 0)
		forget_unseen(mount);
	return strcmp(event, "done") == 0;
}
