/*
 * status_rows.c - what is told over the control socket: texts as they are, and rows for 'lunfs
 * top', which asks for them once a second.
 */
#include "status.h"

#include <string.h>

#include "control.h"
#include "status_parts.h"

#define NUMBER_SIZE 24u

static const char *number(char buffer[NUMBER_SIZE], uint64_t value)
{
	g_snprintf(buffer, NUMBER_SIZE, "%" G_GUINT64_FORMAT, value);
	return buffer;
}

static void row_of_target(const struct target *target, struct control_client *client)
{
	char since[NUMBER_SIZE], reconnects[NUMBER_SIZE], outage_ms[NUMBER_SIZE];
	struct outage outage;

	parts_outages(target, &outage);
	control_reply(client, "target", "target", target_name(target), "state",
	    target_state(target), "ready", parts_is_ready(target) ? "1" : "0", "address",
	    parts_address(target), "since_us", number(since, (uint64_t)parts_since_us(target)),
	    "reconnects", number(reconnects, parts_reconnects(target)), "outage_ms",
	    number(outage_ms, outage.over ? 0 : (uint64_t)outage.lasted_ms), "trouble",
	    parts_trouble(target), "last_error", parts_last_error(target), NULL);
}

static void row_of_disk(
    const struct target *target, const struct disk *disk, struct control_client *client)
{
	const struct disk_stats *stats = parts_disk_stats(disk);
	const struct cache_stats *cache = parts_cache_stats(disk);
	g_autofree char *read_latency = histogram_format(&stats->read_latency);
	g_autofree char *write_latency = histogram_format(&stats->write_latency);
	char n[9][NUMBER_SIZE];

	control_reply(client, "lun", "target", target_name(target), "file", disk->name, "lun",
	    number(n[0], disk->info.lun), "size", number(n[1], disk->top->size), "reads",
	    number(n[2], stats->reads), "writes", number(n[3], stats->writes), "bytes_read",
	    number(n[4], stats->bytes_read), "bytes_written", number(n[5], stats->bytes_written),
	    "dirty_bytes", number(n[6], cache->dirty), "cache_hits", number(n[7], cache->hits),
	    "cache_misses", number(n[8], cache->misses), "read_latency", read_latency,
	    "write_latency", write_latency, "trouble", parts_disk_trouble(disk), NULL);
}

void status_rows(const struct status_view *view, struct control_client *client)
{
	for (unsigned i = 0; i < view->targets->len; i++) {
		const struct target *target = g_ptr_array_index(view->targets, i);
		const GPtrArray *disks = target_disks(target);

		row_of_target(target, client);
		for (unsigned k = 0; disks != NULL && k < disks->len; k++)
			row_of_disk(target, g_ptr_array_index(disks, k), client);
	}
	control_reply(client, "done", "error", "", NULL);
}

bool status_answer(
    const struct status_view *view, const char *command, struct control_client *client)
{
	g_autofree char *text = NULL;

	if (strcmp(command, "rows") == 0) {
		status_rows(view, client);
		return true;
	}
	if (strcmp(command, "status") == 0)
		text = status_text(view);
	else if (strcmp(command, "status-json") == 0)
		text = status_json(view);
	else if (strcmp(command, "metrics") == 0)
		text = metrics_text(view);
	if (text != NULL)
		control_reply(client, "done", "error", "", "text", text, NULL);
	return text != NULL;
}
