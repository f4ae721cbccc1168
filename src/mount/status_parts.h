/*
 * status_parts.h - what text, JSON, metrics and rows are made from. Private to them.
 *
 * A target has no session between its tries: these stand in for what a session would tell then.
 */
#pragma once

#include "lunfs/mount.h"

/* The disk of a LUN, or NULL where it is no file. */
const struct disk *parts_disk(const struct target *target, uint16_t lun);
/* Why a LUN is no file. */
const char *parts_reason(const struct target *target, const struct lun_info *info);
/* Counters; zeros where there is no disk, or no cache. */
const struct disk_stats *parts_disk_stats(const struct disk *disk);
const struct cache_stats *parts_cache_stats(const struct disk *disk);

/* Why it cannot be used, "" where it can: in a line, for who shows only one. */
const char *parts_disk_trouble(const struct disk *disk);

bool parts_is_ready(const struct target *target);
const char *parts_address(const struct target *target);
const char *parts_last_error(const struct target *target);
const char *parts_trouble(const struct target *target);
unsigned parts_reconnects(const struct target *target);
/* Microseconds since 1970; 0 where there never was a session. */
int64_t parts_since_us(const struct target *target);
const char *const *parts_keys(const struct target *target);
/* How many there were; *last is the latest, or zeros that are over. */
unsigned parts_outages(const struct target *target, struct outage *last);

/* "2026-11-21T16:20:01Z"; "" for 0. Free with g_free(). */
char *parts_time(int64_t us);
/* UTF-8 without control characters. Free with g_free(). */
char *parts_printable(const char *text);
