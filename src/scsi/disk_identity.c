/*
 * disk_identity.c - what a disk is, while sessions below it come and go: lost, back, the same or
 * another, larger, smaller, with a cache or without.
 *
 * Nothing here sends a command: the owner asks the LUN (probe.c) and shows what it found.
 */
#include "disk.h"

#include <string.h>

#include "lunfs/log.h"

/* ---- lost and back ---- */

void disk_lost(struct block *block)
{
	struct disk *disk = disk_of(block);

	block_raise(block, BLOCK_LOST);
	parts_end_paused(disk);
}

void disk_gone(struct block *block)
{
	disk_of(block)->gone = true;
	block_raise(block, BLOCK_GONE);
}

void disk_back(struct block *block)
{
	struct disk *disk = disk_of(block);

	if (!disk->gone)
		return;
	disk->gone = false;
	block_raise(block, BLOCK_BACK);
}

void disk_fenced(struct block *block)
{
	block_raise(block, BLOCK_FENCED);
}

void disk_changed(struct block *block)
{
	block_raise(block, BLOCK_CHANGED);
}

void disk_on_attention(
    struct block *block, void (*fn)(enum disk_attention what, void *data), void *data)
{
	struct disk *disk = disk_of(block);

	disk->attention = fn;
	disk->attention_data = data;
}

/* ---- reserved ---- */

void disk_note_conflict(struct disk *disk, bool writing)
{
	struct disk_stats *stats = &disk->stats;
	bool first = stats->reserved_since_us == 0;

	stats->conflicts++;
	stats->reserved_seen_us = g_get_real_time();
	if (first)
		stats->reserved_since_us = stats->reserved_seen_us;
	stats->reserved_for_writing = writing && (first || stats->reserved_for_writing);
}

void disk_note_access(struct disk *disk, bool writing)
{
	struct disk_stats *stats = &disk->stats;

	if (stats->reserved_since_us == 0 || (stats->reserved_for_writing && !writing))
		return;
	stats->reserved_since_us = stats->reserved_seen_us = 0;
	log_info_of(disk->name, "no other host keeps it reserved any more");
}

/* ---- the same? ---- */

static const char *or_none(const char *text)
{
	return text[0] ? text : "none";
}

/* Is info another LUN than the disk was made from? Says so in text. */
static bool disk_is_other(
    const struct disk *disk, const struct lun_info *info, uint64_t reach, char *text, size_t size)
{
	const struct lun_info *own = &disk->info;
	uint64_t bytes = info->blocks * info->block_size;

	if (own->type != info->type)
		g_snprintf(text, size, "it was a %s, and is a %s now", scsi_type_name(own->type),
		    scsi_type_name(info->type));
	else if (strcmp(own->wwid, info->wwid) != 0)
		g_snprintf(text, size,
		    "another logical unit has its number: it was %s, now there is %s",
		    or_none(own->wwid), or_none(info->wwid));
	else if (strcmp(own->serial, info->serial) != 0)
		g_snprintf(text, size,
		    "another logical unit has its number: its serial number was %s, now it is %s",
		    or_none(own->serial), or_none(info->serial));
	else if (own->block_size != info->block_size)
		g_snprintf(text, size, "its blocks had %u bytes, and have %u now",
		    (unsigned)own->block_size, (unsigned)info->block_size);
	else if (bytes < reach)
		g_snprintf(text, size,
		    "it has %" G_GUINT64_FORMAT
		    " bytes now, and what was written up to byte %" G_GUINT64_FORMAT
		    " is not yet on stable storage",
		    bytes, reach);
	else
		return false;
	return true;
}

/* The end of the cache proves nothing about what it held: it counts until it was emptied. */
static void disk_note_cache(struct disk *disk, bool write_cache)
{
	bool ends = disk->info.write_cache && !write_cache;

	disk->cache_changes += ends && !disk->cache_ends;
	disk->cache_ends = ends;
	disk->info.write_cache |= write_cache;
}

static void disk_set_limits(struct disk *disk)
{
	disk->block.limits.fua = disk->info.fua || !disk->info.write_cache;
	disk->block.limits.volatile_cache = disk->info.write_cache;
}

void disk_assume_cache(struct disk *disk)
{
	disk->cache_ends = false;
	disk->info.write_cache = true;
	disk_set_limits(disk);
}

void disk_cache_was_emptied(struct disk *disk, const struct disk_part *part)
{
	if (!disk->cache_ends || part->cache_change != disk->cache_changes)
		return;
	disk->cache_ends = disk->info.write_cache = false;
	disk_set_limits(disk);
}

static void disk_note_size(struct disk *disk, const struct lun_info *info)
{
	uint64_t size = info->blocks * info->block_size;

	disk->info.blocks = info->blocks;
	if (disk->block.size == size)
		return;
	if (log_limit_passes(&disk->log, disk->name))
		log_warning_of(disk->name,
		    "its capacity was %" G_GUINT64_FORMAT " bytes, and is %" G_GUINT64_FORMAT
		    " now",
		    disk->block.size, size);
	disk->block.size = size;
	block_raise(&disk->block, BLOCK_RESIZED);
}

enum disk_verdict disk_verify(
    struct block *block, const struct lun_info *found, uint64_t reach, char *text, size_t size)
{
	struct disk *disk = disk_of(block);
	struct lun_info answer = *found;
	const struct lun_info *info = &answer;

	if (answer.reserved) {
		disk_note_conflict(disk, false);
		/* Who waits for it is to be told of the conflict, and not to wait for its end. */
		if (answer.blocks == 0) {
			answer.fault[0] = '\0';
			answer.blocks = disk->info.blocks;
			answer.block_size = disk->info.block_size;
		}
	}
	if (info->fault[0]) {
		g_strlcpy(text, info->fault, size);
		return DISK_ABSENT;
	}
	/* A target that restarts may not know yet who it is. */
	if ((disk->info.wwid[0] && !info->wwid[0]) || (disk->info.serial[0] && !info->serial[0])) {
		g_strlcpy(text, "it does not say which logical unit it is", size);
		return DISK_ABSENT;
	}
	if (disk_is_other(disk, info, reach, text, size))
		return DISK_OTHER;
	disk->info.fua &= info->fua;
	disk->unmap &= info->unmap_zeroes;
	disk->info.max_transfer = info->max_transfer;
	disk->info.max_write_same = info->max_write_same;
	disk_note_cache(disk, info->write_cache);
	disk_set_limits(disk);
	disk_note_size(disk, info);
	return DISK_SAME;
}
