/*
 * script_disk.c - the scripted target's disks: two images, what a READ sees and what survives a
 * power failure, and the SCSI commands for them (SPC-4, SBC-3).
 *
 * Invariant: where the images differ the sector is in dirty.
 */
#include "support/script_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SECTOR         512u
#define MAX_TRANSFER   67108864u /* bytes of one command */
#define NAA_OF(number) (0x5001405000000000u | (uint64_t)(number))

static const struct sense invalid_opcode = {SENSE_ILLEGAL_REQUEST, 0x20, 0};
static const struct sense invalid_field = {SENSE_ILLEGAL_REQUEST, 0x24, 0};
static const struct sense no_such_unit = {SENSE_ILLEGAL_REQUEST, 0x25, 0};
static const struct sense out_of_range = {SENSE_ILLEGAL_REQUEST, 0x21, 0};
static const struct sense short_data = {SENSE_ILLEGAL_REQUEST, 0x0e, 0x03};
static const struct sense write_protected = {SENSE_DATA_PROTECT, 0x27, 0};

/* ---- images ---- */

/* Memory that costs nothing before it is written. */
static uint8_t *image_map(uint64_t size, int fd, int flags)
{
	void *image = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);

	if (image == MAP_FAILED)
		g_error("script_target: no %" G_GUINT64_FORMAT " bytes: %s", size, strerror(errno));
	return image;
}

static void lun_map(struct script_lun *lun, const char *path)
{
	int fd;

	if (!path) {
		lun->live = image_map(lun->size, -1, MAP_PRIVATE | MAP_ANONYMOUS);
		lun->stable = image_map(lun->size, -1, MAP_PRIVATE | MAP_ANONYMOUS);
		return;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)lun->size) != 0)
		g_error("script_target: %s: %s", path, strerror(errno));
	lun->live = image_map(lun->size, fd, MAP_PRIVATE);
	lun->stable = image_map(lun->size, fd, MAP_SHARED);
	close(fd);
}

struct script_lun *lun_new(uint64_t size, unsigned block_size, unsigned number, const char *path)
{
	struct script_lun *lun = g_new0(struct script_lun, 1);

	*lun = (struct script_lun){
	    .present = true,
	    .wce = true,
	    .has_file = path != NULL,
	    .size = size,
	    .mapped = size,
	    .block_size = block_size,
	    .naa = NAA_OF(number),
	    .dirty = g_hash_table_new(NULL, NULL),
	};
	snprintf(lun->serial, sizeof(lun->serial), "SCRIPT%05u", number);
	lun_map(lun, path);
	return lun;
}

void lun_free(void *data)
{
	struct script_lun *lun = data;

	munmap(lun->live, lun->mapped);
	munmap(lun->stable, lun->mapped);
	g_hash_table_unref(lun->dirty);
	g_free(lun);
}

/* A smaller size keeps what lies beyond. A disk with a file cannot grow beyond its first size. */
void lun_resize(struct script_lun *lun, uint64_t size)
{
	if (size > lun->mapped && lun->has_file)
		g_error("script_target: a disk with a file does not grow");
	if (size > lun->mapped) {
		lun->live = mremap(lun->live, lun->mapped, size, MREMAP_MAYMOVE);
		lun->stable = mremap(lun->stable, lun->mapped, size, MREMAP_MAYMOVE);
		if (lun->live == MAP_FAILED || lun->stable == MAP_FAILED)
			g_error("script_target: cannot grow: %s", strerror(errno));
		lun->mapped = size;
	}
	lun->size = size;
}

static void lun_stabilize(struct script_lun *lun, uint64_t sector)
{
	memcpy(lun->stable + sector * SECTOR, lun->live + sector * SECTOR, SECTOR);
}

/* What is volatile of [offset, offset + length) becomes stable. */
static void lun_sync(struct script_lun *lun, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / SECTOR, end = (offset + length) / SECTOR;
	GHashTableIter each;
	gpointer key;

	if (end - first < g_hash_table_size(lun->dirty)) {
		for (uint64_t sector = first; sector < end; sector++)
			if (g_hash_table_remove(lun->dirty, (gpointer)sector))
				lun_stabilize(lun, sector);
		return;
	}
	g_hash_table_iter_init(&each, lun->dirty);
	while (g_hash_table_iter_next(&each, &key, NULL)) {
		uint64_t sector = (uint64_t)key;

		if (sector < first || sector >= end)
			continue;
		lun_stabilize(lun, sector);
		g_hash_table_iter_remove(&each);
	}
}

static void lun_written(struct script_lun *lun, uint64_t offset, uint64_t length, bool fua)
{
	for (uint64_t sector = offset / SECTOR; sector < (offset + length) / SECTOR; sector++)
		g_hash_table_add(lun->dirty, (gpointer)sector);
	if (fua || !lun->wce)
		lun_sync(lun, offset, length);
}

static int by_sector(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void lun_lose_power(struct script_lun *lun, GRand *dice)
{
	guint n;
	g_autofree gpointer *sectors = g_hash_table_get_keys_as_array(lun->dirty, &n);

	if (n == 0)
		return;
	/* in order, so that a seed means the same each time; whole blocks live or die */
	qsort(sectors, n, sizeof(*sectors), by_sector);
	uint64_t block = UINT64_MAX;
	bool lives = false;
	for (guint i = 0; i < n; i++) {
		uint64_t sector = (uint64_t)sectors[i];

		if (sector * SECTOR / lun->block_size != block) {
			block = sector * SECTOR / lun->block_size;
			lives = dice && g_rand_boolean(dice);
		}
		if (lives)
			lun_stabilize(lun, sector);
		else
			memcpy(lun->live + sector * SECTOR, lun->stable + sector * SECTOR, SECTOR);
	}
	g_hash_table_remove_all(lun->dirty);
}

void lun_take_identity(struct script_lun *lun, const struct script_identity *identity)
{
	if (identity->naa)
		lun->naa = identity->naa;
	if (*identity->serial)
		g_strlcpy(lun->serial, identity->serial, sizeof(lun->serial));
	if (identity->block_size)
		lun->block_size = identity->block_size;
}

/* ---- unit attentions ---- */

void session_attention(struct script_session *session, unsigned lun, uint8_t asc, uint8_t ascq)
{
	struct script_attention attention = {lun, asc, ascq};

	g_array_append_val(session->attentions, attention);
}

/* Takes the oldest for the LUN. */
static bool attention_take(struct script_session *session, unsigned lun, struct sense *sense)
{
	for (guint i = 0; i < session->attentions->len; i++) {
		struct script_attention *one =
		    &g_array_index(session->attentions, struct script_attention, i);

		if (one->lun != lun)
			continue;
		*sense = (struct sense){SENSE_UNIT_ATTENTION, one->asc, one->ascq};
		g_array_remove_index(session->attentions, i);
		return true;
	}
	return false;
}

/* ---- results ---- */

static void refuse(struct script_task *task, struct sense sense)
{
	task->status = SAM_CHECK_CONDITION;
	task->sense = sense;
}

static void give(struct script_task *task, const void *data, size_t size, uint32_t allocated)
{
	g_byte_array_append(task->result, data, (guint)MIN(size, allocated));
}

/* ---- inquiries ---- */

static uint32_t blocks_at_most(const struct script_lun *lun)
{
	return MAX_TRANSFER / lun->block_size;
}

static size_t vpd_fill(const struct script_lun *lun, uint8_t page, uint8_t *data)
{
	size_t length = 0;

	data[1] = page;
	switch (page) {
	case 0x00:
		memcpy(data + 4, (uint8_t[]){0x00, 0x80, 0x83, 0xb0}, length = 4);
		break;
	case 0x80:
		length = strlen(lun->serial);
		memcpy(data + 4, lun->serial, length);
		break;
	case 0x83:
		memcpy(data + 4, (uint8_t[]){0x01, 0x03, 0, 8}, 4); /* binary, NAA, of the LUN */
		put_be64(data + 8, lun->naa);
		length = 12;
		break;
	case 0xb0:
		put_be32(data + 8, blocks_at_most(lun));
		put_be32(data + 12, blocks_at_most(lun));
		put_be64(data + 36, blocks_at_most(lun)); /* WRITE SAME */
		length = 60;
		break;
	default:
		return 0;
	}
	put_be16(data + 2, (uint16_t)length);
	return 4 + length;
}

static void do_inquiry(struct script_task *task, const struct script_lun *lun)
{
	uint8_t data[96] = {0};
	uint32_t allocated = get_be16(task->cdb + 3);
	size_t length;

	if (task->cdb[1] & 1) {
		length = lun ? vpd_fill(lun, task->cdb[2], data) : 0;
		if (length)
			give(task, data, length, allocated);
		else
			refuse(task, lun ? invalid_field : no_such_unit);
		return;
	}
	data[0] = lun ? 0x00 : 0x7f; /* a disk, or nothing */
	data[2] = 6;                 /* SPC-4 */
	data[3] = 2;
	data[4] = 31;
	data[7] = 0x02; /* CmdQue */
	memcpy(data + 8, "LUNFS   SCRIPTTARGET    0001", 28);
	give(task, data, 36, allocated);
}

static void do_capacity_10(struct script_task *task, const struct script_lun *lun)
{
	uint8_t data[8];

	put_be32(data, (uint32_t)MIN(lun->size / lun->block_size - 1, UINT32_MAX));
	put_be32(data + 4, lun->block_size);
	give(task, data, sizeof(data), sizeof(data));
}

static void do_capacity_16(struct script_task *task, const struct script_lun *lun)
{
	uint8_t data[32] = {0};

	put_be64(data, lun->size / lun->block_size - 1);
	put_be32(data + 8, lun->block_size);
	give(task, data, sizeof(data), get_be32(task->cdb + 10));
}

static void do_mode_sense(struct script_task *task, const struct script_lun *lun, bool ten)
{
	uint8_t page = task->cdb[2] & 0x3f, control = task->cdb[2] >> 6, data[28] = {0};
	uint8_t flags = (uint8_t)((lun->read_only ? 0x80 : 0) | 0x10); /* WP, DPOFUA */
	size_t header = ten ? 8 : 4, length = header;

	if ((page != 0x08 && page != 0x3f) || control == 3) {
		refuse(task, invalid_field);
		return;
	}
	data[header] = 0x08;
	data[header + 1] = 18;
	data[header + 2] = lun->wce && control != 1 ? 0x04 : 0; /* 1: what can be changed */
	length += 20;
	if (ten) {
		put_be16(data, (uint16_t)(length - 2));
		data[3] = flags;
	} else {
		data[0] = (uint8_t)(length - 1);
		data[2] = flags;
	}
	give(task, data, length, ten ? get_be16(task->cdb + 7) : task->cdb[4]);
}

static int by_number(gconstpointer a, gconstpointer b)
{
	return (int)GPOINTER_TO_UINT(a) - (int)GPOINTER_TO_UINT(b);
}

static void do_report_luns(struct script_task *task)
{
	GHashTable *luns = task->target->luns;
	g_autoptr(GList) numbers = g_list_sort(g_hash_table_get_keys(luns), by_number);
	g_autoptr(GByteArray) list = g_byte_array_new();
	uint8_t entry[8] = {0};

	g_byte_array_append(list, entry, 8);
	for (GList *each = numbers; each; each = each->next) {
		const struct script_lun *lun = g_hash_table_lookup(luns, each->data);
		unsigned number = GPOINTER_TO_UINT(each->data);

		if (!lun->present)
			continue;
		put_be16(entry, (uint16_t)(number < 256 ? number : 0x4000 | number));
		g_byte_array_append(list, entry, 8);
	}
	put_be32(list->data, list->len - 8);
	give(task, list->data, list->len, get_be32(task->cdb + 6));
}

static void do_request_sense(struct script_task *task)
{
	uint8_t data[18] = {0x70, [7] = 10};
	struct sense sense = {0};

	attention_take(task->session, task->lun, &sense);
	data[2] = sense.key;
	data[12] = sense.asc;
	data[13] = sense.ascq;
	give(task, data, sizeof(data), task->cdb[4]);
}

/* ---- blocks ---- */

/* Bytes that the CDB names; false where they are not all there. */
static bool extent_of(const struct script_task *task, const struct script_lun *lun,
    uint64_t *offset, uint64_t *length)
{
	const uint8_t *cdb = task->cdb;
	bool ten = cdb[0] < 0x80;
	uint64_t lba = ten ? get_be32(cdb + 2) : get_be64(cdb + 2);
	uint64_t blocks = ten ? get_be16(cdb + 7) : get_be32(cdb + 10);
	uint64_t capacity = lun->size / lun->block_size;

	if (lba > capacity || blocks > capacity - lba)
		return false;
	*offset = lba * lun->block_size;
	*length = blocks * lun->block_size;
	return true;
}

static void do_read(struct script_task *task, struct script_lun *lun)
{
	uint64_t offset, length;

	if (!extent_of(task, lun, &offset, &length)) {
		refuse(task, out_of_range);
		return;
	}
	if (length > MAX_TRANSFER) {
		refuse(task, invalid_field);
		return;
	}
	if (task->cdb[1] & 0x08) /* FUA: from the medium, so it has to be there */
		lun_sync(lun, offset, length);
	give(task, lun->live + offset, length, UINT32_MAX);
}

static void do_write(struct script_task *task, struct script_lun *lun)
{
	uint64_t offset, length;

	if (lun->read_only)
		refuse(task, write_protected);
	else if (!extent_of(task, lun, &offset, &length))
		refuse(task, out_of_range);
	else if (length > MAX_TRANSFER)
		refuse(task, invalid_field);
	else if (task->data->len < length)
		refuse(task, short_data);
	else if (length > 0) {
		memcpy(lun->live + offset, task->data->data, length);
		lun_written(lun, offset, length, task->cdb[1] & 0x08);
	}
}

static void do_write_same(struct script_task *task, struct script_lun *lun)
{
	uint64_t offset, length;

	if (lun->read_only) {
		refuse(task, write_protected);
	} else if (!extent_of(task, lun, &offset, &length)) {
		refuse(task, out_of_range);
	} else if (task->cdb[1] || length > MAX_TRANSFER) { /* UNMAP, ANCHOR, protection */
		refuse(task, invalid_field);
	} else if (task->data->len < lun->block_size) {
		refuse(task, short_data);
	} else {
		for (uint64_t at = 0; at < length; at += lun->block_size)
			memcpy(lun->live + offset + at, task->data->data, lun->block_size);
		lun_written(lun, offset, length, false);
	}
}

static void do_sync(struct script_task *task, struct script_lun *lun)
{
	uint64_t offset, length;

	if (!extent_of(task, lun, &offset, &length))
		refuse(task, out_of_range);
	else
		lun_sync(lun, offset, length ? length : lun->mapped - offset); /* 0: to the end */
}

/* ---- commands ---- */

static void execute_medium(struct script_task *task, struct script_lun *lun)
{
	switch (task->cdb[0]) {
	case 0x00: /* TEST UNIT READY */
		break;
	case 0x1a:
	case 0x5a:
		do_mode_sense(task, lun, task->cdb[0] == 0x5a);
		break;
	case 0x25:
		do_capacity_10(task, lun);
		break;
	case 0x9e:
		if ((task->cdb[1] & 0x1f) == 0x10)
			do_capacity_16(task, lun);
		else
			refuse(task, invalid_field);
		break;
	case 0x28:
	case 0x88:
		do_read(task, lun);
		break;
	case 0x2a:
	case 0x8a:
		do_write(task, lun);
		break;
	case 0x93:
		do_write_same(task, lun);
		break;
	case 0x35:
	case 0x91:
		do_sync(task, lun);
		break;
	default:
		refuse(task, invalid_opcode);
	}
}

void disk_execute(struct script_task *task)
{
	struct script_lun *lun =
	    g_hash_table_lookup(task->target->luns, GUINT_TO_POINTER(task->lun));
	struct sense attention;

	if (lun && !lun->present)
		lun = NULL;
	if (task->cdb[0] == 0x12)
		do_inquiry(task, lun);
	else if (task->cdb[0] == 0xa0)
		do_report_luns(task);
	else if (!lun)
		refuse(task, no_such_unit);
	else if (task->cdb[0] == 0x03)
		do_request_sense(task);
	else if (attention_take(task->session, task->lun, &attention))
		refuse(task, attention);
	else
		execute_medium(task, lun);
}
