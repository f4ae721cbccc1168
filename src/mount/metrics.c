/*
 * metrics.c - what a mount tells Prometheus: its text exposition format, version 0.0.4.
 *
 * Each metric is one block: its HELP and TYPE, then a line for each target or LUN that it is known
 * of. Seconds and bytes; what only grows ends in _total.
 */
#include "status.h"

#include <string.h>

#include "status_parts.h"

/* ---- lines ---- */

static void metrics_head(GString *text, const char *name, const char *type, const char *help)
{
	g_string_append_printf(
	    text, "# HELP lunfs_%s %s\n# TYPE lunfs_%s %s\n", name, help, name, type);
}

static void label(GString *text, const char *name, const char *value)
{
	g_autofree char *printable = parts_printable(value);

	g_string_append_printf(text, "%s%s=\"", g_str_has_suffix(text->str, "{") ? "" : ",", name);
	for (const char *c = printable; *c != '\0'; c++) {
		if (*c == '"' || *c == '\\')
			g_string_append_c(text, '\\');
		g_string_append_c(text, *c);
	}
	g_string_append_c(text, '"');
}

static void label_target(GString *text, const struct target *target)
{
	label(text, "target", target_name(target));
}

static void label_lun(GString *text, const struct target *target, const struct disk *disk)
{
	g_autofree char *lun = g_strdup_printf("%u", (unsigned)disk->info.lun);

	label_target(text, target);
	label(text, "lun", lun);
	label(text, "file", disk->name);
}

/* Always with a point, whatever the locale. */
static void value_seconds(GString *text, double seconds)
{
	char number[G_ASCII_DTOSTR_BUF_SIZE];

	g_ascii_formatd(number, sizeof number, "%.6f", seconds);
	g_string_append(text, number);
}

/* ---- targets ---- */

struct target_metric {
	const char *name, *type, *help;
	double (*value)(const struct target *target);
};

static double target_up(const struct target *target)
{
	return parts_is_ready(target);
}

static double target_start(const struct target *target)
{
	return (double)parts_since_us(target) / G_USEC_PER_SEC;
}

static double target_reconnects(const struct target *target)
{
	return parts_reconnects(target);
}

static double target_outages(const struct target *target)
{
	struct outage last;

	return parts_outages(target, &last);
}

static double target_outage_seconds(const struct target *target)
{
	struct outage last;

	parts_outages(target, &last);
	return last.over ? 0 : (double)last.lasted_ms / 1000;
}

static double target_resent_total(const struct target *target)
{
	return (double)target_resent(target, NULL);
}

static const struct target_metric target_metrics[] = {
    {"target_up", "gauge",
        "Does the session stand, and are its LUNs proved to be the same (1), or not (0).",
        target_up},
    {"target_session_start_time_seconds", "gauge",
        "When the session was logged in last, since 1970; 0: never.", target_start},
    {"target_reconnects_total", "counter", "Logins after the first.", target_reconnects},
    {"target_outages_total", "counter", "Times without a session.", target_outages},
    {"target_outage_seconds", "gauge",
        "For how long there is no session now; 0 where there is one.", target_outage_seconds},
    {"target_resent_commands_total", "counter",
        "Commands and kept writes that were sent again after a loss.", target_resent_total},
};

static void metrics_of_targets(GString *text, const GPtrArray *targets)
{
	for (unsigned m = 0; m < G_N_ELEMENTS(target_metrics); m++) {
		const struct target_metric *metric = &target_metrics[m];

		metrics_head(text, metric->name, metric->type, metric->help);
		for (unsigned i = 0; i < targets->len; i++) {
			const struct target *target = g_ptr_array_index(targets, i);

			g_string_append_printf(text, "lunfs_%s{", metric->name);
			label_target(text, target);
			g_string_append(text, "} ");
			value_seconds(text, metric->value(target));
			if (g_str_has_suffix(text->str, ".000000")) /* most are whole */
				g_string_truncate(text, text->len - strlen(".000000"));
			g_string_append_c(text, '\n');
		}
	}
}

/* ---- LUNs ---- */

/* The counters of one LUN, side by side with their names below. */
enum { LUN_METRICS = 23 };
struct lun_metric {
	const char *name, *type, *help;
};

static const struct lun_metric lun_metrics[LUN_METRICS] = {
    {"lun_up", "gauge", "Can it be used (1), or is there trouble (0)."},
    {"lun_size_bytes", "gauge", "Its capacity."},
    {"lun_reads_total", "counter", "Requests to read that the target served."},
    {"lun_writes_total", "counter", "Requests to write that the target served."},
    {"lun_flushes_total", "counter", "Requests to flush that the target served."},
    {"lun_read_bytes_total", "counter", "Bytes read from the target."},
    {"lun_written_bytes_total", "counter", "Bytes written to the target."},
    {"lun_retries_total", "counter", "Commands that the target asked to try again."},
    {"lun_errors_total", "counter", "Requests that failed."},
    {"lun_waiting_commands", "gauge", "Commands that wait for the session or for the LUN."},
    {"lun_unstable_bytes", "gauge", "Written, and not known to be on stable storage yet."},
    {"lun_cached_bytes", "gauge", "In the cache."},
    {"lun_dirty_bytes", "gauge", "In the cache, and not at the target yet."},
    {"lun_cache_hits_total", "counter", "Pages of 4 KiB that reads found in the cache."},
    {"lun_cache_misses_total", "counter", "Pages of 4 KiB that reads did not find there."},
    {"lun_readahead_fetched_bytes_total", "counter", "Bytes fetched before they were asked for."},
    {"lun_readahead_used_bytes_total", "counter", "Of those, bytes that were read then."},
    {"lun_readahead_window_bytes", "gauge", "How far ahead is read now."},
    {"lun_writeouts_total", "counter", "Commands that dirty data left in."},
    {"lun_writeout_failures_total", "counter", "Of those, commands that failed."},
    {"lun_throttled_writes_total", "counter",
        "Writes that were slowed down as the target did not keep up."},
    {"lun_reserved", "gauge", "Another host keeps it reserved (1), or not as far as known (0)."},
    {"lun_reservation_conflicts_total", "counter",
        "Commands that ended with RESERVATION CONFLICT."},
};

static void lun_values(
    const struct target *target, const struct disk *disk, uint64_t values[LUN_METRICS])
{
	const struct disk_stats *stats = parts_disk_stats(disk);
	const struct cache_stats *cache = parts_cache_stats(disk);
	const uint64_t page = 4096;
	const uint64_t all[] = {parts_is_ready(target) && disk->trouble == NULL, disk->top->size,
	    stats->reads, stats->writes, stats->flushes, stats->bytes_read, stats->bytes_written,
	    stats->retries, stats->errors, nexus_waiting(disk->nexus), disk_unstable_bytes(disk),
	    cache->cached, cache->dirty, cache->hits, cache->misses, cache->fetched_ahead * page,
	    cache->used_ahead * page, cache->window, cache->written_out, cache->failed,
	    cache->throttled, stats->reserved_since_us != 0, stats->conflicts};

	G_STATIC_ASSERT(G_N_ELEMENTS(all) == LUN_METRICS);
	memcpy(values, all, sizeof all);
}

/* A LUN, its labels and its values, made once for all metrics. */
struct lun_row {
	const struct disk *disk;
	char *labels;
	uint64_t values[LUN_METRICS];
};

static void lun_row_free(gpointer data)
{
	struct lun_row *row = data;

	g_free(row->labels);
	g_free(row);
}

static GPtrArray *lun_rows(const GPtrArray *targets)
{
	GPtrArray *rows = g_ptr_array_new_with_free_func(lun_row_free);

	for (unsigned i = 0; i < targets->len; i++) {
		const struct target *target = g_ptr_array_index(targets, i);
		const GPtrArray *disks = target_disks(target);

		for (unsigned k = 0; disks != NULL && k < disks->len; k++) {
			struct lun_row *row = g_new0(struct lun_row, 1);
			GString *labels = g_string_new("{");

			row->disk = g_ptr_array_index(disks, k);
			label_lun(labels, target, row->disk);
			row->labels = g_string_free(labels, FALSE);
			lun_values(target, row->disk, row->values);
			g_ptr_array_add(rows, row);
		}
	}
	return rows;
}

static void metrics_of_luns(GString *text, const GPtrArray *rows)
{
	for (unsigned m = 0; m < LUN_METRICS; m++) {
		const struct lun_metric *metric = &lun_metrics[m];

		metrics_head(text, metric->name, metric->type, metric->help);
		for (unsigned i = 0; i < rows->len; i++) {
			const struct lun_row *row = g_ptr_array_index(rows, i);

			g_string_append_printf(text, "lunfs_%s%s} %" G_GUINT64_FORMAT "\n",
			    metric->name, row->labels, row->values[m]);
		}
	}
}

/* ---- latency ---- */

#define LATENCY          "lunfs_lun_command_duration_seconds" /* as metrics_head() is told */
#define LATENCY_LIMITS   11u
#define LATENCY_FIRST_US 64u /* each is four times the one before: up to 67 s */

static void metrics_histogram(GString *text, const struct lun_row *row, const char *operation,
    const struct histogram *histogram)
{
	uint64_t limit = LATENCY_FIRST_US;

	for (unsigned i = 0; i < LATENCY_LIMITS; i++, limit *= 4) {
		g_string_append_printf(
		    text, LATENCY "_bucket%s,operation=\"%s\",le=\"", row->labels, operation);
		value_seconds(text, (double)limit / G_USEC_PER_SEC);
		g_string_append_printf(
		    text, "\"} %" G_GUINT64_FORMAT "\n", histogram_up_to(histogram, limit));
	}
	g_string_append_printf(text,
	    LATENCY "_bucket%s,operation=\"%s\",le=\"+Inf\"} %" G_GUINT64_FORMAT "\n", row->labels,
	    operation, histogram->total);
	g_string_append_printf(text, LATENCY "_sum%s,operation=\"%s\"} ", row->labels, operation);
	value_seconds(text, (double)histogram->sum_us / G_USEC_PER_SEC);
	g_string_append_printf(text,
	    "\n" LATENCY "_count%s,operation=\"%s\"} %" G_GUINT64_FORMAT "\n", row->labels,
	    operation, histogram->total);
}

static void metrics_of_latency(GString *text, const GPtrArray *rows)
{
	metrics_head(text, "lun_command_duration_seconds", "histogram",
	    "SCSI commands by the time from sending to the final answer, outages included.");
	for (unsigned i = 0; i < rows->len; i++) {
		const struct lun_row *row = g_ptr_array_index(rows, i);
		const struct disk_stats *stats = parts_disk_stats(row->disk);

		metrics_histogram(text, row, "read", &stats->read_latency);
		metrics_histogram(text, row, "write", &stats->write_latency);
		metrics_histogram(text, row, "flush", &stats->flush_latency);
	}
}

/* ---- all of it ---- */

char *metrics_text(const struct status_view *view)
{
	GString *text = g_string_new(NULL);
	g_autoptr(GPtrArray) rows = lun_rows(view->targets);

	metrics_head(text, "info", "gauge", "Always 1; the labels tell of the mount.");
	g_string_append(text, "lunfs_info{");
	label(text, "version", LUNFS_VERSION);
	label(text, "source", view->source);
	label(text, "mountpoint", view->mountpoint);
	g_string_append(text, "} 1\n");
	metrics_head(
	    text, "cache_size_bytes", "gauge", "Memory for the cache of all LUNs together.");
	g_string_append_printf(
	    text, "lunfs_cache_size_bytes %" G_GUINT64_FORMAT "\n", view->cache_size);
	metrics_of_targets(text, view->targets);
	metrics_of_luns(text, rows);
	metrics_of_latency(text, rows);
	return g_string_free(text, FALSE);
}
