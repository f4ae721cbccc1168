/*
 * status.c - what a mount tells people of itself, for 'lunfs status'.
 *
 *   SOURCE on MOUNTPOINT
 *   TARGET: STATE at PORTAL since TIME, N reconnects
 *     what was negotiated, the settings in force
 *     FILE  type, size, ...
 *       counters, latency, cache, what is wrong
 *
 * A target that is not ready says so in capitals, and in the second line where there are several.
 */
#include "status.h"

#include <string.h>

#include "status_parts.h"

#define WIDTH 80u

static char *format_size(uint64_t bytes)
{
	return g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
}

static unsigned percent(uint64_t part, uint64_t whole)
{
	return whole > 0 ? (unsigned)(100 * part / whole) : 0;
}

static void text_readahead(
    GString *text, const struct options *options, const struct cache_stats *stats)
{
	g_autofree char *limit =
	    options->readahead == OPTIONS_AUTO ? g_strdup("auto") : format_size(options->readahead);

	if (options->readahead == 0) {
		g_string_append(text, "; no read-ahead");
		return;
	}
	g_string_append_printf(text, "; read-ahead %s", limit);
	if (stats->window > 0) {
		g_autofree char *window = format_size(stats->window);
		g_string_append_printf(text, ", window %s", window);
	}
	if (stats->fetched_ahead > 0)
		g_string_append_printf(text, ", %u %% of what was fetched was read",
		    percent(stats->used_ahead, stats->fetched_ahead));
}

static void text_cache_stats(GString *text, const struct status_view *view,
    const struct options *options, const struct cache_stats *stats)
{
	uint64_t pages = stats->hits + stats->misses;
	g_autofree char *size = format_size(view->cache_size);
	g_autofree char *cached = format_size(stats->cached);
	g_autofree char *dirty = format_size(stats->dirty);

	g_string_append_printf(
	    text, ", %s for all LUNs, %s here, %s not yet at the target", size, cached, dirty);
	if (pages > 0)
		g_string_append_printf(text,
		    "; %u %% of %" G_GUINT64_FORMAT " pages read were hits",
		    percent(stats->hits, pages), pages);
	text_readahead(text, options, stats);
	if (stats->throttled > 0)
		g_string_append_printf(
		    text, "; %" G_GUINT64_FORMAT " writes were slowed down", stats->throttled);
	if (stats->failed > 0)
		g_string_append_printf(text,
		    "; %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " write-outs failed",
		    stats->failed, stats->written_out);
}

static void text_cache(GString *text, const struct status_view *view, const struct options *options,
    const struct disk *disk)
{
	enum cache_mode mode = disk_cache_mode(options, &disk->info);

	g_string_append_printf(text, "    cache: %s", cache_mode_name(mode));
	if (mode != options->cache)
		g_string_append_printf(
		    text, ": blocks of %u bytes", (unsigned)disk->info.block_size);
	else if (options->shared)
		g_string_append(text, ": shared");
	else if (disk->cache != NULL)
		text_cache_stats(text, view, options, cache_stats(disk->cache));
	g_string_append_c(text, '\n');
}

static char *format_latency(uint64_t us)
{
	if (us < 1000)
		return g_strdup_printf("%u us", (unsigned)us);
	if (us < 1000000)
		return g_strdup_printf("%.*f ms", us < 10000 ? 1 : 0, (double)us / 1000);
	return g_strdup_printf("%.1f s", (double)us / 1000000);
}

static void text_latency_of(
    GString *text, const char *what, const struct histogram *histogram, bool *first)
{
	g_autofree char *p50 = format_latency(histogram_quantile_us(histogram, 0.50));
	g_autofree char *p99 = format_latency(histogram_quantile_us(histogram, 0.99));

	if (histogram->total == 0)
		return;
	g_string_append_printf(
	    text, "%s%s p50 %s, p99 %s", *first ? "    latency: " : "; ", what, p50, p99);
	*first = false;
}

static void text_latency(GString *text, const struct disk_stats *stats)
{
	bool first = true;

	text_latency_of(text, "read", &stats->read_latency, &first);
	text_latency_of(text, "write", &stats->write_latency, &first);
	text_latency_of(text, "flush", &stats->flush_latency, &first);
	if (!first)
		g_string_append_c(text, '\n');
}

/* What may come from a target, on a line of its own. */
static void text_line(GString *text, const char *indent, const char *words)
{
	g_autofree char *printable = parts_printable(words);

	g_string_append_printf(text, "%s%s\n", indent, printable);
}

static void text_reserved(GString *text, const struct disk_stats *stats)
{
	g_autofree char *since = parts_time(stats->reserved_since_us);
	g_autofree char *seen = parts_time(stats->reserved_seen_us);

	if (stats->reserved_since_us != 0)
		g_string_append_printf(text,
		    "    reserved by another host%s: RESERVATION CONFLICT since %s, last %s, "
		    "%" G_GUINT64_FORMAT " in all\n",
		    stats->reserved_for_writing ? " (for writing)" : "", since, seen,
		    stats->conflicts);
	else if (stats->conflicts > 0)
		g_string_append_printf(text,
		    "    RESERVATION CONFLICT %" G_GUINT64_FORMAT " times; not reserved now\n",
		    stats->conflicts);
}

static void text_trouble(GString *text, const struct disk *disk)
{
	uint64_t unstable = disk_unstable_bytes(disk);

	if (disk->twin != NULL) {
		g_autofree char *name = disk_full_name(disk->twin);
		g_string_append_printf(text, "    same as %s\n", name);
	}
	if (disk->trouble != NULL)
		text_line(text, "    ", disk->trouble);
	text_reserved(text, disk_stats(disk->scsi));
	if (nexus_waiting(disk->nexus) > 0)
		g_string_append_printf(text, "    %u command%s; none was done for %.1f s\n",
		    nexus_waiting(disk->nexus),
		    nexus_waiting(disk->nexus) == 1 ? " waits" : "s wait",
		    (double)nexus_away_ms(disk->nexus) / 1000);
	if (unstable > 0) {
		g_autofree char *size = format_size(unstable);
		g_string_append_printf(
		    text, "    %s not yet known to be on stable storage\n", size);
	}
}

static void text_lun(GString *text, const struct status_view *view, const struct target *target,
    const struct lun_info *info)
{
	const struct disk *disk = parts_disk(target, info->lun);

	if (disk == NULL) {
		g_string_append_printf(
		    text, "  lun %-3u %-8s ", (unsigned)info->lun, scsi_type_name(info->type));
		text_line(text, "", parts_reason(target, info));
		return;
	}
	const struct disk_stats *stats = disk_stats(disk->scsi);
	g_autofree char *size = format_size(disk->top->size);
	g_autofree char *bytes_read = format_size(stats->bytes_read);
	g_autofree char *bytes_written = format_size(stats->bytes_written);
	g_string_append_printf(text, "  %-11s %-8s %s%s, %s %s, %u-byte blocks, %s%s\n", disk->name,
	    scsi_type_name(info->type), size, disk->read_only ? ", read-only" : "", info->vendor,
	    info->product, (unsigned)info->block_size,
	    info->wwid[0] != '\0' ? info->wwid : "no designator",
	    lun_identity_is_weak(info) ? " (identity: weak)" : "");
	g_string_append_printf(text,
	    "    %" G_GUINT64_FORMAT " reads (%s), %" G_GUINT64_FORMAT
	    " writes (%s), %" G_GUINT64_FORMAT " flushes, %" G_GUINT64_FORMAT
	    " retries, %" G_GUINT64_FORMAT " errors\n",
	    stats->reads, bytes_read, stats->writes, bytes_written, stats->flushes, stats->retries,
	    stats->errors);
	text_latency(text, stats);
	text_cache(text, view, target_options(target), disk);
	text_trouble(text, disk);
}

/* ---- a target ---- */

static void text_outage(GString *text, const struct target *target)
{
	struct outage outage;
	unsigned count = parts_outages(target, &outage);
	uint64_t resent;

	if (count == 0)
		return;
	g_autofree char *time = parts_time(outage.began_us);
	g_autofree char *reason = parts_printable(outage.reason);
	target_resent(target, &resent);
	g_string_append_printf(text,
	    "  %u outage%s, the %s since %s, %s %.1f s: %s; %" G_GUINT64_FORMAT
	    " command%s sent again\n",
	    count, count == 1 ? "" : "s", outage.over ? "last" : "present one", time,
	    outage.over ? "for" : "now for", (double)outage.lasted_ms / 1000, reason, resent,
	    resent == 1 ? "" : "s");
}

/* A list in lines of at most WIDTH columns, the further ones indented. */
struct list {
	GString *text;
	unsigned column;
};

static void list_begin(struct list *list, GString *text, const char *what)
{
	*list = (struct list){.text = text};
	g_string_append_printf(text, "  %s:", what);
	list->column = (unsigned)strlen(what) + 3;
}

static void G_GNUC_PRINTF(2, 3) list_add(struct list *list, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	g_autofree char *item = g_strdup_vprintf(format, args);
	va_end(args);
	unsigned columns = (unsigned)g_utf8_strlen(item, -1);
	bool first = g_str_has_suffix(list->text->str, ":");

	if (!first)
		g_string_append_c(list->text, ',');
	if (!first && list->column + columns + 3 > WIDTH) {
		g_string_append(list->text, "\n   ");
		list->column = 3;
	}
	g_string_append_printf(list->text, " %s", item);
	list->column += columns + 2;
}

static const char *auth_words(const char *proved)
{
	if (strcmp(proved, "mutual") == 0)
		return "CHAP (mutual: both have proved who they are)";
	if (strcmp(proved, "one-way") == 0)
		return "CHAP (one-way: the target has not proved who it is)";
	return "None";
}

/* As 'iscsiadm -m session -P3' names it and in its order; then what it does not tell. */
static void text_negotiated(GString *text, const struct target *target)
{
	static const char *const shown[][2] = {
	    {"HeaderDigest", NULL},
	    {"DataDigest", NULL},
	    {"InitiatorMaxRecvDataSegmentLength", "MaxRecvDataSegmentLength"},
	    {"MaxRecvDataSegmentLength", "MaxXmitDataSegmentLength"},
	    {"FirstBurstLength", NULL},
	    {"MaxBurstLength", NULL},
	    {"ImmediateData", NULL},
	    {"InitialR2T", NULL},
	    {"MaxOutstandingR2T", NULL},
	    {"DefaultTime2Wait", NULL},
	    {"DefaultTime2Retain", NULL},
	    {"ErrorRecoveryLevel", NULL},
	    {"MaxConnections", NULL},
	    {"DataPDUInOrder", NULL},
	    {"DataSequenceInOrder", NULL},
	    {"TargetPortalGroupTag", "TPGT"},
	    {"TargetAlias", NULL},
	};
	const char *const *keys = parts_keys(target);
	struct list list;

	if (keys[0] == NULL)
		return;
	list_begin(&list, text, "negotiated");
	for (unsigned i = 0; i < G_N_ELEMENTS(shown); i++)
		for (unsigned k = 0; keys[k] != NULL; k += 2)
			if (strcmp(keys[k], shown[i][0]) == 0)
				list_add(&list, "%s %s",
				    shown[i][1] != NULL ? shown[i][1] : keys[k], keys[k + 1]);
	for (unsigned k = 0; keys[k] != NULL; k += 2)
		if (strcmp(keys[k], "CHAP") == 0)
			list_add(&list, "AuthMethod %s", auth_words(keys[k + 1]));
	g_string_append_c(text, '\n');
}

static void list_add_time(struct list *list, const char *name, unsigned ms)
{
	if (ms == OPTIONS_INFINITY)
		list_add(list, "%s=infinity", name);
	else if (ms % 1000 != 0)
		list_add(list, "%s=%ums", name, ms);
	else
		list_add(list, "%s=%us", name, ms / 1000);
}

static void text_settings(GString *text, const struct options *options)
{
	struct list list;

	list_begin(&list, text, "settings");
	list_add(&list, "%s", options->read_only ? "ro" : "rw");
	if (options->shared)
		list_add(&list, "shared");
	list_add(&list, "cache=%s", cache_mode_name(options->cache));
	list_add_time(&list, "dirty_expire", options->dirty_expire);
	if (options->readahead == OPTIONS_AUTO)
		list_add(&list, "readahead=auto");
	else
		list_add(&list, "readahead=%" G_GUINT64_FORMAT, options->readahead);
	list_add_time(&list, "replacement_timeout", options->replacement_timeout);
	list_add_time(&list, "command_timeout", options->command_timeout);
	list_add_time(&list, "login_timeout", options->login_timeout);
	list_add_time(&list, "noop_out_interval", options->noop_out_interval);
	list_add_time(&list, "noop_out_timeout", options->noop_out_timeout);
	list_add(&list, "header_digest=%s", options->header_digest ? "crc32c" : "none");
	g_string_append_c(text, '\n');
}

static void text_target(GString *text, const struct status_view *view, const struct target *target)
{
	g_autofree char *since = parts_time(parts_since_us(target));
	g_autofree char *name = parts_printable(target_name(target));
	g_autofree char *error = parts_printable(parts_last_error(target));
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);
	bool ready = parts_is_ready(target);

	g_string_append_printf(
	    text, "%s: %s%s", name, ready ? "" : "NOT READY, ", target_state(target));
	if (parts_address(target)[0] != '\0')
		g_string_append_printf(text, " at %s", parts_address(target));
	if (since[0] != '\0')
		g_string_append_printf(text, ready ? " since %s" : ", last login %s", since);
	g_string_append_printf(text, ", %u reconnects", parts_reconnects(target));
	if (error[0] != '\0')
		g_string_append_printf(text, ", last error: %s", error);
	g_string_append_c(text, '\n');
	if (parts_trouble(target)[0] != '\0')
		text_line(text, "  ", parts_trouble(target));
	text_outage(text, target);
	text_negotiated(text, target);
	text_settings(text, target_options(target));
	for (unsigned i = 0; i < count; i++)
		text_lun(text, view, target, &luns[i]);
}

/* "5 targets, 2 NOT READY: nas, tapes" */
static void text_summary(GString *text, const GPtrArray *targets)
{
	g_autoptr(GString) names = g_string_new(NULL);
	unsigned away = 0;

	for (unsigned i = 0; i < targets->len; i++) {
		const struct target *target = g_ptr_array_index(targets, i);

		if (parts_is_ready(target))
			continue;
		g_autofree char *name = parts_printable(target_name(target));
		g_string_append_printf(names, "%s%s", away++ > 0 ? ", " : ": ", name);
	}
	if (targets->len == 1)
		return;
	g_string_append_printf(text, "%u targets", targets->len);
	if (away > 0)
		g_string_append_printf(text, ", %u NOT READY%s", away, names->str);
	g_string_append_c(text, '\n');
}

char *status_text(const struct status_view *view)
{
	GString *text = g_string_new(NULL);

	g_string_append_printf(text, "%s on %s\n", view->source, view->mountpoint);
	text_summary(text, view->targets);
	for (unsigned i = 0; i < view->targets->len; i++)
		text_target(text, view, g_ptr_array_index(view->targets, i));
	return g_string_free(text, FALSE);
}
