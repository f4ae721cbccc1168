/*
 * status_parts.c - what text, JSON, metrics and rows are made from: see status_parts.h.
 */
#include "status_parts.h"

const struct disk *parts_disk(const struct target *target, uint16_t lun)
{
	const GPtrArray *disks = target_disks(target);

	for (unsigned i = 0; disks != NULL && i < disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(disks, i);

		if (disk->info.lun == lun)
			return disk;
	}
	return NULL;
}

const char *parts_reason(const struct target *target, const struct lun_info *info)
{
	const char *trouble = target_lun_trouble(target, info->lun);

	if (trouble != NULL)
		return trouble;
	return info->fault[0] != '\0' ? info->fault : "not shown yet";
}

const struct disk_stats *parts_disk_stats(const struct disk *disk)
{
	static const struct disk_stats none;

	return disk != NULL ? disk_stats(disk->scsi) : &none;
}

const struct cache_stats *parts_cache_stats(const struct disk *disk)
{
	static const struct cache_stats none;

	return disk != NULL && disk->cache != NULL ? cache_stats(disk->cache) : &none;
}

const char *parts_disk_trouble(const struct disk *disk)
{
	const struct disk_stats *stats = disk_stats(disk->scsi);

	if (disk->trouble != NULL)
		return disk->trouble;
	if (stats->reserved_since_us == 0)
		return "";
	return stats->reserved_for_writing ? "reserved by another host for writing"
	                                   : "reserved by another host";
}

bool parts_is_ready(const struct target *target)
{
	const struct session *session = target_session(target);

	return session != NULL && session_is_ready(session);
}

const char *parts_address(const struct target *target)
{
	const struct session *session = target_session(target);

	return session != NULL ? session_address(session) : "";
}

const char *parts_last_error(const struct target *target)
{
	const struct session *session = target_session(target);

	return session != NULL ? session_last_error(session) : "";
}

const char *parts_trouble(const struct target *target)
{
	const char *trouble = target_trouble(target);

	return trouble != NULL ? trouble : "";
}

unsigned parts_reconnects(const struct target *target)
{
	const struct session *session = target_session(target);

	return session != NULL ? session_reconnects(session) : 0;
}

int64_t parts_since_us(const struct target *target)
{
	const struct session *session = target_session(target);

	return session != NULL ? session_since_us(session) : 0;
}

const char *const *parts_keys(const struct target *target)
{
	static const char *const none[] = {NULL};
	const struct session *session = target_session(target);

	return session != NULL ? session_keys(session) : none;
}

unsigned parts_outages(const struct target *target, struct outage *last)
{
	const struct session *session = target_session(target);

	*last = (struct outage){.over = true, .reason = ""};
	return session != NULL ? session_outages(session, last) : 0;
}

char *parts_time(int64_t us)
{
	g_autoptr(GDateTime) time =
	    us > 0 ? g_date_time_new_from_unix_utc(us / G_USEC_PER_SEC) : NULL;

	return time != NULL ? g_date_time_format(time, "%Y-%m-%dT%H:%M:%SZ") : g_strdup("");
}

char *parts_printable(const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	GString *printable = g_string_new(NULL);

	for (const char *at = valid; *at != '\0'; at = g_utf8_next_char(at)) {
		gunichar c = g_utf8_get_char(at);

		if (g_unichar_isprint(c))
			g_string_append_unichar(printable, c);
		else
			g_string_append_c(printable, '?');
	}
	return g_string_free(printable, FALSE);
}
