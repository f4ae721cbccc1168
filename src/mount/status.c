/*
 * status.c - what a mount tells of itself, for 'lunfs status': sessions, LUNs, counters.
 *
 *   {"mountpoint": S, "source": S, "targets": [{"name": S, "state": S, "address": S, "reconnects":
 * N, "last_error": S, "outages": N, "outage_began": S, "outage_ms": N, "outage_over": B,
 * "outage_reason": S, "outage_attempts": N, "outage_resent": N, "resent": N, "luns": [{"lun": N,
 * "type": S, "file": S or "", "reason": S, "size": N, "block_size": N, "vendor": S, "product": S,
 * "serial": S, "wwid": S, "identity": "strong" or "weak", "read_only": B, "same_as": S, "trouble":
 * S, "waiting": N, "away_ms": N, "unstable_bytes": N, "cache": "writeback", "writethrough" or
 * "none", "cache_size": N, "cached_bytes": N, "dirty_bytes": N, "cache_hits": N, "cache_misses": N,
 * "fetched_ahead": N, "used_ahead": N, "readahead": "auto" or S, "readahead_window": N,
 * "write_outs": N, "write_out_failures": N, "throttled": N, "reads": N, "writes": N, "flushes": N,
 * "bytes_read": N, "bytes_written": N, "retries": N, "errors": N}]}]}
 *
 * The outage is the last one; outage_began is in UTC (ISO 8601); resent counts commands.
 * cache_size is for all LUNs together; hits, misses and what is ahead count pages; what was written
 * out, commands.
 */
#include "status.h"

#include <string.h>

static const struct disk *find_disk(const struct target *target, uint16_t lun)
{
	const GPtrArray *disks = target_disks(target);

	for (unsigned i = 0; disks != NULL && i < disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(disks, i);

		if (disk->info.lun == lun)
			return disk;
	}
	return NULL;
}

/* Why a LUN is no file. */
static const char *lun_reason(const struct lun_info *info)
{
	return info->fault[0] != '\0' ? info->fault : "not shown yet";
}

static char *format_size(uint64_t bytes)
{
	return g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
}

/* "auto", or the number of bytes. */
static char *format_readahead(const struct options *options)
{
	return options->readahead == OPTIONS_AUTO
	           ? g_strdup("auto")
	           : g_strdup_printf("%" G_GUINT64_FORMAT, options->readahead);
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

static void text_cache_stats(
    GString *text, const struct options *options, const struct cache_stats *stats)
{
	uint64_t pages = stats->hits + stats->misses;
	g_autofree char *size = format_size(options->cache_size);
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

static void text_cache(GString *text, const struct options *options, const struct disk *disk)
{
	enum cache_mode mode = disk_cache_mode(options, &disk->info);

	g_string_append_printf(text, "    cache: %s", cache_mode_name(mode));
	if (mode != options->cache)
		g_string_append_printf(
		    text, ": blocks of %u bytes", (unsigned)disk->info.block_size);
	else if (options->shared)
		g_string_append(text, ": shared");
	else if (disk->cache != NULL)
		text_cache_stats(text, options, cache_stats(disk->cache));
	g_string_append_c(text, '\n');
}

static void text_trouble(GString *text, const struct disk *disk)
{
	uint64_t unstable = disk_unstable_bytes(disk);

	if (disk->twin != NULL) {
		g_autofree char *name = disk_full_name(disk->twin);
		g_string_append_printf(text, "    same as %s\n", name);
	}
	if (disk->trouble != NULL)
		g_string_append_printf(text, "    %s\n", disk->trouble);
	if (nexus_waiting(disk->nexus) > 0)
		g_string_append_printf(text, "    %u commands wait, since %.1f s\n",
		    nexus_waiting(disk->nexus), (double)nexus_away_ms(disk->nexus) / 1000);
	if (unstable > 0) {
		g_autofree char *size = format_size(unstable);
		g_string_append_printf(
		    text, "    %s not yet known to be on stable storage\n", size);
	}
}

static void text_lun(GString *text, const struct options *options, const struct target *target,
    const struct lun_info *info)
{
	const struct disk *disk = find_disk(target, info->lun);

	if (disk == NULL) {
		g_string_append_printf(text, "  lun %-3u %-8s %s\n", (unsigned)info->lun,
		    scsi_type_name(info->type), lun_reason(info));
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
	text_cache(text, options, disk);
	text_trouble(text, disk);
}

/* "2026-11-21T16:20:01Z" */
static char *outage_time(const struct outage *outage)
{
	g_autoptr(GDateTime) time =
	    g_date_time_new_from_unix_utc(outage->began_us / G_USEC_PER_SEC);

	return g_date_time_format(time, "%Y-%m-%dT%H:%M:%SZ");
}

static void text_outage(GString *text, const struct target *target)
{
	struct outage outage;
	unsigned count = session_outages(target_session(target), &outage);
	uint64_t resent;

	if (count == 0)
		return;
	g_autofree char *time = outage_time(&outage);
	target_resent(target, &resent);
	g_string_append_printf(text,
	    "  %u outage%s, the %s since %s, %s %.1f s: %s; %" G_GUINT64_FORMAT
	    " commands sent again\n",
	    count, count == 1 ? "" : "s", outage.over ? "last" : "present one", time,
	    outage.over ? "for" : "now for", (double)outage.lasted_ms / 1000, outage.reason,
	    resent);
}

char *status_text(const struct mount *mount, const GPtrArray *targets)
{
	GString *text = g_string_new(NULL);

	g_string_append_printf(text, "%s on %s\n", mount->source->text, mount->mountpoint);
	for (unsigned i = 0; i < targets->len; i++) {
		const struct target *target = g_ptr_array_index(targets, i);
		const struct session *session = target_session(target);
		unsigned count;
		const struct lun_info *luns = target_luns(target, &count);

		g_string_append_printf(
		    text, "%s: %s", target_name(target), session_state_name(session));
		if (session_address(session)[0] != '\0')
			g_string_append_printf(text, " at %s", session_address(session));
		g_string_append_printf(text, ", %u reconnects", session_reconnects(session));
		if (session_last_error(session)[0] != '\0')
			g_string_append_printf(
			    text, ", last error: %s", session_last_error(session));
		g_string_append_c(text, '\n');
		text_outage(text, target);
		for (unsigned k = 0; k < count; k++)
			text_lun(text, mount->options, target, &luns[k]);
	}
	return g_string_free(text, FALSE);
}

/* ---- JSON ---- */

static void json_string(GString *json, const char *name, const char *value)
{
	g_autofree char *valid = g_utf8_make_valid(value, -1);

	g_string_append_printf(json, "\"%s\": \"", name);
	for (const char *c = valid; *c != '\0'; c++) {
		if (*c == '"' || *c == '\\')
			g_string_append_c(json, '\\');
		if ((unsigned char)*c < ' ')
			g_string_append_printf(json, "\\u%04x", (unsigned)*c);
		else
			g_string_append_c(json, *c);
	}
	g_string_append(json, "\", ");
}

static void json_bool(GString *json, const char *name, bool value)
{
	g_string_append_printf(json, "\"%s\": %s, ", name, value ? "true" : "false");
}

static void json_number(GString *json, const char *name, uint64_t value)
{
	g_string_append_printf(json, "\"%s\": %" G_GUINT64_FORMAT ", ", name, value);
}

/* Ends what was opened with open: the comma of the last member becomes the end. */
static void json_close(GString *json, const char *end)
{
	if (g_str_has_suffix(json->str, ", "))
		g_string_truncate(json, json->len - 2);
	g_string_append(json, end);
}

static void json_trouble(GString *json, const struct disk *disk)
{
	g_autofree char *twin = disk->twin != NULL ? disk_full_name(disk->twin) : g_strdup("");

	json_string(json, "same_as", twin);
	json_string(json, "trouble", disk->trouble != NULL ? disk->trouble : "");
	json_number(json, "waiting", nexus_waiting(disk->nexus));
	json_number(json, "away_ms", (uint64_t)nexus_away_ms(disk->nexus));
	json_number(json, "unstable_bytes", disk_unstable_bytes(disk));
}

static void json_cache(GString *json, const struct options *options, const struct disk *disk)
{
	const struct cache_stats none = {.cached = 0};
	const struct cache_stats *stats = disk->cache != NULL ? cache_stats(disk->cache) : &none;
	g_autofree char *readahead = format_readahead(options);
	enum cache_mode mode = disk_cache_mode(options, &disk->info);

	json_string(json, "cache", cache_mode_name(mode));
	json_number(json, "cache_size", options->cache_size);
	json_number(json, "cached_bytes", stats->cached);
	json_number(json, "dirty_bytes", stats->dirty);
	json_number(json, "cache_hits", stats->hits);
	json_number(json, "cache_misses", stats->misses);
	json_number(json, "fetched_ahead", stats->fetched_ahead);
	json_number(json, "used_ahead", stats->used_ahead);
	json_string(json, "readahead", readahead);
	json_number(json, "readahead_window", stats->window);
	json_number(json, "write_outs", stats->written_out);
	json_number(json, "write_out_failures", stats->failed);
	json_number(json, "throttled", stats->throttled);
}

static void json_outage(GString *json, const struct target *target)
{
	struct outage outage = {.over = true, .reason = ""};
	unsigned count = session_outages(target_session(target), &outage);
	uint64_t since_outage, resent = target_resent(target, &since_outage);
	g_autofree char *time = count > 0 ? outage_time(&outage) : g_strdup("");

	json_number(json, "outages", count);
	json_string(json, "outage_began", time);
	json_number(json, "outage_ms", (uint64_t)outage.lasted_ms);
	json_bool(json, "outage_over", outage.over);
	json_string(json, "outage_reason", outage.reason);
	json_number(json, "outage_attempts", outage.attempts);
	json_number(json, "outage_resent", since_outage);
	json_number(json, "resent", resent);
}

static void json_lun(GString *json, const struct options *options, const struct target *target,
    const struct lun_info *info)
{
	const struct disk *disk = find_disk(target, info->lun);
	struct disk_stats none = {.reads = 0};
	const struct disk_stats *stats = disk != NULL ? disk_stats(disk->scsi) : &none;

	g_string_append_c(json, '{');
	json_number(json, "lun", info->lun);
	json_string(json, "type", scsi_type_name(info->type));
	json_string(json, "file", disk != NULL ? disk->name : "");
	json_string(json, "reason", disk != NULL ? "" : lun_reason(info));
	json_number(json, "size", disk != NULL ? disk->top->size : 0);
	json_number(json, "block_size", info->block_size);
	json_string(json, "vendor", info->vendor);
	json_string(json, "product", info->product);
	json_string(json, "serial", info->serial);
	json_string(json, "wwid", info->wwid);
	json_string(json, "identity", lun_identity_is_weak(info) ? "weak" : "strong");
	json_bool(json, "read_only", disk == NULL || disk->read_only);
	if (disk != NULL) {
		json_trouble(json, disk);
		json_cache(json, options, disk);
	}
	json_number(json, "reads", stats->reads);
	json_number(json, "writes", stats->writes);
	json_number(json, "flushes", stats->flushes);
	json_number(json, "bytes_read", stats->bytes_read);
	json_number(json, "bytes_written", stats->bytes_written);
	json_number(json, "retries", stats->retries);
	json_number(json, "errors", stats->errors);
	json_close(json, "}, ");
}

static void json_target(GString *json, const struct options *options, const struct target *target)
{
	const struct session *session = target_session(target);
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);

	g_string_append_c(json, '{');
	json_string(json, "name", target_name(target));
	json_string(json, "state", session_state_name(session));
	json_string(json, "address", session_address(session));
	json_number(json, "reconnects", session_reconnects(session));
	json_string(json, "last_error", session_last_error(session));
	json_outage(json, target);
	g_string_append(json, "\"luns\": [");
	for (unsigned i = 0; i < count; i++)
		json_lun(json, options, target, &luns[i]);
	json_close(json, "]}, ");
}

char *status_json(const struct mount *mount, const GPtrArray *targets)
{
	GString *json = g_string_new("{");

	json_string(json, "mountpoint", mount->mountpoint);
	json_string(json, "source", mount->source->text);
	g_string_append(json, "\"targets\": [");
	for (unsigned i = 0; i < targets->len; i++)
		json_target(json, mount->options, g_ptr_array_index(targets, i));
	json_close(json, "]}");
	return g_string_free(json, FALSE);
}
