/*
 * status_json.c - what a mount tells programs of itself: one object on one line, as
 * packaging/status.schema.json describes it.
 *
 * What is new is added behind what is there; what changes its meaning raises SCHEMA_VERSION.
 */
#include "status.h"

#include <string.h>

#include "status_parts.h"

#define SCHEMA_VERSION 1u

/* Whatever bytes value has. */
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

/* ---- a LUN ---- */

static void json_trouble(GString *json, const struct disk *disk)
{
	g_autofree char *twin = disk->twin != NULL ? disk_full_name(disk->twin) : g_strdup("");

	json_string(json, "same_as", twin);
	json_string(json, "trouble", disk->trouble != NULL ? disk->trouble : "");
	json_number(json, "waiting", nexus_waiting(disk->nexus));
	json_number(json, "away_ms", (uint64_t)nexus_away_ms(disk->nexus));
	json_number(json, "unstable_bytes", disk_unstable_bytes(disk));
}

static void json_readahead(GString *json, const struct options *options)
{
	g_autofree char *limit = options->readahead == OPTIONS_AUTO
	                             ? g_strdup("auto")
	                             : g_strdup_printf("%" G_GUINT64_FORMAT, options->readahead);

	json_string(json, "readahead", limit);
}

static void json_cache(GString *json, const struct status_view *view, const struct options *options,
    const struct disk *disk)
{
	const struct cache_stats *stats = parts_cache_stats(disk);

	json_string(json, "cache", cache_mode_name(disk_cache_mode(options, &disk->info)));
	json_number(json, "cache_size", view->cache_size);
	json_number(json, "cached_bytes", stats->cached);
	json_number(json, "dirty_bytes", stats->dirty);
	json_number(json, "cache_hits", stats->hits);
	json_number(json, "cache_misses", stats->misses);
	json_number(json, "fetched_ahead", stats->fetched_ahead);
	json_number(json, "used_ahead", stats->used_ahead);
	json_readahead(json, options);
	json_number(json, "readahead_window", stats->window);
	json_number(json, "write_outs", stats->written_out);
	json_number(json, "write_out_failures", stats->failed);
	json_number(json, "throttled", stats->throttled);
}

static void json_latency_of(GString *json, const char *name, const struct histogram *histogram)
{
	g_string_append_printf(json, "\"%s\": {", name);
	json_number(json, "p50_us", histogram_quantile_us(histogram, 0.50));
	json_number(json, "p99_us", histogram_quantile_us(histogram, 0.99));
	json_number(json, "count", histogram->total);
	json_close(json, "}, ");
}

static void json_latency(GString *json, const struct disk_stats *stats)
{
	g_string_append(json, "\"latency\": {");
	json_latency_of(json, "read", &stats->read_latency);
	json_latency_of(json, "write", &stats->write_latency);
	json_latency_of(json, "flush", &stats->flush_latency);
	json_close(json, "}, ");
}

static void json_reserved(GString *json, const struct disk_stats *stats)
{
	g_autofree char *since = parts_time(stats->reserved_since_us);
	g_autofree char *seen = parts_time(stats->reserved_seen_us);

	json_number(json, "reservation_conflicts", stats->conflicts);
	json_string(json, "reserved",
	    stats->reserved_since_us == 0 ? "no"
	    : stats->reserved_for_writing ? "writing"
	                                  : "all");
	json_string(json, "reserved_since", since);
	json_string(json, "reserved_seen", seen);
}

static void json_lun(GString *json, const struct status_view *view, const struct target *target,
    const struct lun_info *info)
{
	const struct disk *disk = parts_disk(target, info->lun);
	const struct disk_stats *stats = parts_disk_stats(disk);

	g_string_append_c(json, '{');
	json_number(json, "lun", info->lun);
	json_string(json, "type", scsi_type_name(info->type));
	json_string(json, "file", disk != NULL ? disk->name : "");
	json_string(json, "reason", disk != NULL ? "" : parts_reason(target, info));
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
		json_cache(json, view, target_options(target), disk);
	}
	json_number(json, "reads", stats->reads);
	json_number(json, "writes", stats->writes);
	json_number(json, "flushes", stats->flushes);
	json_number(json, "bytes_read", stats->bytes_read);
	json_number(json, "bytes_written", stats->bytes_written);
	json_number(json, "retries", stats->retries);
	json_number(json, "errors", stats->errors);
	json_latency(json, stats);
	json_reserved(json, stats);
	json_close(json, "}, ");
}

/* ---- a target ---- */

static void json_outage(GString *json, const struct target *target)
{
	struct outage outage;
	unsigned count = parts_outages(target, &outage);
	uint64_t since_outage = 0, resent = target_resent(target, &since_outage);
	g_autofree char *time = parts_time(outage.began_us);

	json_number(json, "outages", count);
	json_string(json, "outage_began", time);
	json_number(json, "outage_ms", (uint64_t)outage.lasted_ms);
	json_bool(json, "outage_over", outage.over);
	json_string(json, "outage_reason", outage.reason);
	json_number(json, "outage_attempts", outage.attempts);
	json_number(json, "outage_resent", since_outage);
	json_number(json, "resent", resent);
}

/* Their values have the type that their name says: see keys_outcome(). */
static void json_key(GString *json, const char *name, const char *value)
{
	static const char *const texts[] = {
	    "AuthMethod", "HeaderDigest", "DataDigest", "TargetAlias", "CHAP", NULL};
	const char *shown =
	    strcmp(name, "MaxRecvDataSegmentLength") == 0            ? "MaxXmitDataSegmentLength"
	    : strcmp(name, "InitiatorMaxRecvDataSegmentLength") == 0 ? "MaxRecvDataSegmentLength"
	                                                             : name;

	if (g_strv_contains(texts, name))
		json_string(json, shown, value);
	else if (strcmp(value, "Yes") == 0 || strcmp(value, "No") == 0)
		json_bool(json, shown, strcmp(value, "Yes") == 0);
	else
		json_number(json, shown, g_ascii_strtoull(value, NULL, 10));
}

static void json_negotiated(GString *json, const struct target *target)
{
	const char *const *keys = parts_keys(target);

	g_string_append(json, "\"negotiated\": {");
	for (unsigned i = 0; keys[i] != NULL; i += 2)
		json_key(json, keys[i], keys[i + 1]);
	json_close(json, "}, ");
}

static void json_time(GString *json, const char *name, unsigned ms)
{
	if (ms == OPTIONS_INFINITY)
		g_string_append_printf(json, "\"%s\": null, ", name);
	else
		json_number(json, name, ms);
}

static void json_options(GString *json, const struct options *options)
{
	g_string_append(json, "\"options\": {");
	json_bool(json, "ro", options->read_only);
	json_bool(json, "shared", options->shared);
	json_string(json, "cache", cache_mode_name(options->cache));
	json_time(json, "dirty_expire_ms", options->dirty_expire);
	json_readahead(json, options);
	json_time(json, "replacement_timeout_ms", options->replacement_timeout);
	json_time(json, "command_timeout_ms", options->command_timeout);
	json_time(json, "login_timeout_ms", options->login_timeout);
	json_time(json, "noop_out_interval_ms", options->noop_out_interval);
	json_time(json, "noop_out_timeout_ms", options->noop_out_timeout);
	json_string(json, "header_digest", options->header_digest ? "crc32c" : "none");
	json_close(json, "}, ");
}

static void json_target(GString *json, const struct status_view *view, const struct target *target)
{
	g_autofree char *since = parts_time(parts_since_us(target));
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);

	g_string_append_c(json, '{');
	json_string(json, "name", target_name(target));
	json_string(json, "iqn", target_plan(target)->iqn);
	json_string(json, "state", target_state(target));
	json_bool(json, "ready", parts_is_ready(target));
	json_string(json, "since", since);
	json_string(json, "address", parts_address(target));
	json_number(json, "reconnects", parts_reconnects(target));
	json_string(json, "last_error", parts_last_error(target));
	json_outage(json, target);
	g_string_append(json, "\"luns\": [");
	for (unsigned i = 0; i < count; i++)
		json_lun(json, view, target, &luns[i]);
	json_close(json, "], ");
	json_string(json, "trouble", parts_trouble(target));
	json_negotiated(json, target);
	json_options(json, target_options(target));
	json_close(json, "}, ");
}

char *status_json(const struct status_view *view)
{
	GString *json = g_string_new("{");

	json_number(json, "schema_version", SCHEMA_VERSION);
	json_string(json, "lunfs_version", LUNFS_VERSION);
	json_string(json, "mountpoint", view->mountpoint);
	json_string(json, "source", view->source);
	json_number(json, "cache_size", view->cache_size);
	g_string_append(json, "\"targets\": [");
	for (unsigned i = 0; i < view->targets->len; i++)
		json_target(json, view, g_ptr_array_index(view->targets, i));
	json_close(json, "]}");
	return g_string_free(json, FALSE);
}
