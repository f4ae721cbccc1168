/*
 * status.h - what a mount tells of itself: text for people, JSON, metrics for Prometheus, and rows
 * for 'lunfs top'.
 *
 * All of it is made from what is in memory, whatever the state of the targets, and never holds a
 * secret. What a target says (names, errors, vendor strings) is printable UTF-8 by then.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct control_client;

struct status_view {
	const char *source, *mountpoint;
	uint64_t cache_size;      /* bytes, of all LUNs together */
	const GPtrArray *targets; /* of struct target */
};

/* For people; lines. Free with g_free(). */
char *status_text(const struct status_view *view);
/* One line of JSON, without its end; packaging/status.schema.json describes it. Free with g_free().
 */
char *status_json(const struct status_view *view);
/* Prometheus' text exposition format, version 0.0.4; lines. Free with g_free(). */
char *metrics_text(const struct status_view *view);
/*
 * Answers with an event "target" for each target, each followed by its LUNs that are files, an
 * event "lun" each, then "done". Counters are since the start; times in microseconds, since_us
 * since 1970.
 */
void status_rows(const struct status_view *view, struct control_client *client);
/* Answers the requests "status", "status-json", "metrics" and "rows"; false: it is none of them. */
bool status_answer(
    const struct status_view *view, const char *command, struct control_client *client);
