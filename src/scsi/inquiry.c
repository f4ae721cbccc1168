/*
 * inquiry.c - reading what a target says of itself.
 *
 * It owns no state and trusts nothing: every length in an answer is cut to the bytes that came,
 * every text is made printable, since it ends up in file names, attributes and log lines.
 */
#include "inquiry.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#define MIN_BLOCK_SIZE 512u
#define MAX_BLOCK_SIZE 65536u
#define WELL_KNOWN     0xc1 /* REPORT LUNS, ACCESS CONTROLS, ...: SAM-5, 4.7.7.5.1 */

/* ASCII fields: blanks at both ends dropped, what is not printable becomes '_'. */
static void text_read(char *text, size_t room, const uint8_t *data, size_t size)
{
	size_t length = 0;

	while (size > 0 && (data[0] == ' ' || data[0] == 0))
		data++, size--;
	while (size > 0 && (data[size - 1] == ' ' || data[size - 1] == 0))
		size--;
	for (; length < size && length + 1 < room; length++)
		text[length] = g_ascii_isprint((char)data[length]) ? (char)data[length] : '_';
	text[length] = '\0';
	g_strchomp(text);
}

bool inquiry_read(struct lun_info *info, const uint8_t *data, size_t size)
{
	if (size < 5)
		return false;
	info->type = data[0] & 0x1f;
	if (data[0] >> 5 == 3 || info->type == SCSI_TYPE_NONE)
		return false;
	if (size >= 36) {
		text_read(info->vendor, sizeof info->vendor, data + 8, 8);
		text_read(info->product, sizeof info->product, data + 16, 16);
		text_read(info->revision, sizeof info->revision, data + 32, 4);
	}
	return true;
}

const uint8_t *vpd_payload(const uint8_t *data, size_t size, uint8_t page, size_t *payload_size)
{
	if (size < 4 || data[1] != page)
		return NULL;
	*payload_size = MIN(get_be16(data + 2), size - 4);
	return data + 4;
}

void vpd_read_serial(struct lun_info *info, const uint8_t *data, size_t size)
{
	const uint8_t *payload = vpd_payload(data, size, 0x80, &size);

	if (payload)
		text_read(info->serial, sizeof info->serial, payload, size);
}

/* Designator types that name a logical unit for good, the better the higher; 0: not one
 * (SPC-4, 7.8.6). */
static int designator_rank(const uint8_t *designator)
{
	uint8_t code_set = designator[0] & 0x0f, length = designator[3];

	if ((designator[1] & 0x30) != 0 ||
	    length == 0) /* of the port or the target, not of the unit */
		return 0;
	switch (designator[1] & 0x0f) {
	case 3: /* NAA */
		/* of two the longer, as the kernel and udev have it */
		return code_set != 1 ? 0 : length == 16 ? 4 : length == 8 ? 3 : 0;
	case 2: /* EUI-64 */
		return code_set == 1 && (length == 8 || length == 12 || length == 16) ? 2 : 0;
	case 1: /* T10 vendor */
		return 1;
	default:
		return 0;
	}
}

/*
 * Runs of blanks become one '_' as udev has it; other bytes that are not printable their hex
 * digits, so that two units' names stay two.
 */
static void designator_text(GString *text, const uint8_t *data, size_t size)
{
	while (size > 0 && (data[size - 1] == ' ' || data[size - 1] == 0))
		size--;
	for (size_t i = 0; i < size; i++) {
		if (data[i] == ' ') {
			if (text->str[text->len - 1] != '_')
				g_string_append_c(text, '_');
		} else if (g_ascii_isgraph((char)data[i])) {
			g_string_append_c(text, (char)data[i]);
		} else {
			g_string_append_printf(text, "%02x", data[i]);
		}
	}
}

static void designator_write(struct lun_info *info, const uint8_t *designator, int rank)
{
	static const char *const prefix[] = {"", "t10.", "eui.", "naa.", "naa."};
	g_autoptr(GString) text = g_string_new(prefix[rank]);

	if (rank == 1) {
		designator_text(text, designator + 4, designator[3]);
	} else {
		for (unsigned i = 0; i < designator[3]; i++)
			g_string_append_printf(text, "%02x", designator[4 + i]);
	}
	g_strlcpy(info->wwid, text->str, sizeof info->wwid);
}

void vpd_read_designators(struct lun_info *info, const uint8_t *data, size_t size)
{
	const uint8_t *payload = vpd_payload(data, size, 0x83, &size);
	const uint8_t *best = NULL;
	int best_rank = 0;

	if (!payload)
		return;
	for (size_t at = 0; at + 4 <= size && at + 4 + payload[at + 3] <= size;
	     at += 4u + payload[at + 3]) {
		int rank = designator_rank(payload + at);

		if (rank > best_rank) {
			best_rank = rank;
			best = payload + at;
		}
	}
	if (best)
		designator_write(info, best, best_rank);
}

void vpd_read_block_limits(struct lun_info *info, const uint8_t *data, size_t size)
{
	/* SBC-3, 6.5.3; offsets as there, the page's header included */
	const uint8_t *payload = vpd_payload(data, size, 0xb0, &size);

	if (payload && size + 4 >= 12)
		info->max_transfer = get_be32(data + 8);
	if (payload && size + 4 >= 44)
		info->max_write_same = get_be64(data + 36);
}

bool vpd_read_unmaps_by_write_same(const uint8_t *data, size_t size)
{
	const uint8_t *payload = vpd_payload(data, size, 0xb2, &size);

	return payload && size >= 2 && (payload[1] & 0x40);
}

static void capacity_set(struct lun_info *info, uint64_t last_lba, uint32_t block_size)
{
	if (block_size < MIN_BLOCK_SIZE || block_size > MAX_BLOCK_SIZE ||
	    (block_size & (block_size - 1))) {
		g_snprintf(info->fault, sizeof info->fault,
		    "its blocks have %u bytes; lunfs can use powers of two from %u to %u",
		    block_size, MIN_BLOCK_SIZE, MAX_BLOCK_SIZE);
		return;
	}
	if (last_lba >= (uint64_t)INT64_MAX / block_size) {
		g_snprintf(info->fault, sizeof info->fault,
		    "it reports a last block of %" G_GUINT64_FORMAT ", which no file can hold",
		    last_lba);
		return;
	}
	info->blocks = last_lba + 1;
	info->block_size = block_size;
}

static void capacity_fault(struct lun_info *info, const char *why)
{
	g_strlcpy(info->fault, why, sizeof info->fault);
}

void capacity_read_16(struct lun_info *info, const uint8_t *data, size_t size, bool *zeroes)
{
	if (size < 12) {
		capacity_fault(info, "its answer to READ CAPACITY(16) is too short");
		return;
	}
	/* A target without a medium in it may answer nothing but zeros. */
	if (get_be64(data) == 0 && get_be32(data + 8) == 0) {
		capacity_fault(info, "it has no capacity");
		return;
	}
	capacity_set(info, get_be64(data), get_be32(data + 8));
	*zeroes = size >= 15 && (data[14] & 0xc0) == 0xc0;
}

void capacity_read_10(struct lun_info *info, const uint8_t *data, size_t size)
{
	if (size < 8)
		capacity_fault(info, "its answer to READ CAPACITY(10) is too short");
	else if (get_be32(data) == 0 && get_be32(data + 4) == 0)
		capacity_fault(info, "it has no capacity");
	else if (get_be32(data) == UINT32_MAX)
		capacity_fault(
		    info, "it is too large for READ CAPACITY(10), and has no READ CAPACITY(16)");
	else
		capacity_set(info, get_be32(data), get_be32(data + 4));
}

/* Pages from data on: sets write_cache from the caching page (SBC-3, 6.4.5). */
static void mode_read_pages(struct lun_info *info, const uint8_t *data, size_t size)
{
	for (size_t length; size >= 4; data += length, size -= length) {
		bool subpage = data[0] & 0x40;

		length = subpage ? 4u + get_be16(data + 2) : 2u + data[1];
		if ((data[0] & 0x7f) == 0x08 && length >= 3)
			info->write_cache = data[2] & 0x04;
		if (length > size)
			return;
	}
}

static bool mode_read(struct lun_info *info, const uint8_t *data, size_t size, size_t header,
    uint8_t device_specific, size_t descriptors)
{
	info->write_protected |= (device_specific & 0x80) != 0;
	info->fua = device_specific & 0x10;
	if (header + descriptors < size)
		mode_read_pages(info, data + header + descriptors, size - header - descriptors);
	return true;
}

bool mode_read_6(struct lun_info *info, const uint8_t *data, size_t size)
{
	if (size < 4 || data[0] < 3)
		return false;
	size = MIN(size, data[0] + 1u);
	return mode_read(info, data, size, 4, data[2], data[3]);
}

bool mode_read_10(struct lun_info *info, const uint8_t *data, size_t size)
{
	if (size < 8 || get_be16(data) < 6)
		return false;
	size = MIN(size, get_be16(data) + 2u);
	return mode_read(info, data, size, 8, data[3], get_be16(data + 6));
}

size_t luns_size(const uint8_t *data, size_t size)
{
	return size < 8 ? 0 : (size_t)get_be32(data) + 8;
}

/* One entry of 8 bytes (SAM-5, 4.7): peripheral or flat addressing of a first-level unit. */
static bool lun_read(uint16_t *lun, const uint8_t *entry)
{
	for (int i = 2; i < 8; i++)
		if (entry[i])
			return false;
	switch (entry[0] >> 6) {
	case 0: /* peripheral device: bus 0 only */
		*lun = entry[1];
		return entry[0] == 0;
	case 1: /* flat space */
		*lun = get_be16(entry) & 0x3fff;
		return true;
	default: /* logical unit and extended addressing, well-known units (C1h) */
		return false;
	}
}

static int lun_compare(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

size_t luns_read(
    uint16_t *luns, size_t capacity, const uint8_t *data, size_t size, unsigned *others)
{
	size_t count = 0, unique = 0;

	*others = 0;
	size = MIN(size, luns_size(data, size));
	for (size_t at = 8; at + 8 <= size && count < capacity; at += 8)
		if (lun_read(&luns[count], data + at))
			count++;
		else if (data[at] != WELL_KNOWN)
			++*others;
	if (count > 0)
		qsort(luns, count, sizeof luns[0], lun_compare);
	for (size_t i = 0; i < count; i++)
		if (unique == 0 || luns[unique - 1] != luns[i])
			luns[unique++] = luns[i];
	return unique;
}

const char *scsi_type_name(uint8_t type)
{
	switch (type) {
	case SCSI_TYPE_DISK:
		return "disk";
	case SCSI_TYPE_TAPE:
		return "tape";
	case SCSI_TYPE_WORM:
		return "write-once disk";
	case SCSI_TYPE_CD:
		return "CD/DVD";
	case SCSI_TYPE_OPTICAL:
		return "optical disk";
	case SCSI_TYPE_CHANGER:
		return "media changer";
	case SCSI_TYPE_ARRAY:
		return "storage array controller";
	case SCSI_TYPE_NONE:
		return "no device";
	default:
		return "other device";
	}
}

bool lun_outlives_sessions(const struct lun_info *info)
{
	return strcmp(info->vendor, "IET") == 0;
}

bool lun_identity_is_weak(const struct lun_info *info)
{
	/* NAA 3 is locally assigned, and NAA 6 needs a company's identifier (SPC-4, 7.8.6.6): tgt
	 * makes both from the numbers of target and LUN. */
	return info->wwid[0] == '\0' || g_str_has_prefix(info->wwid, "naa.3") ||
	       g_str_has_prefix(info->wwid, "naa.6000000");
}

bool scsi_type_is_block(uint8_t type)
{
	return type == SCSI_TYPE_DISK || type == SCSI_TYPE_WORM || type == SCSI_TYPE_CD ||
	       type == SCSI_TYPE_OPTICAL;
}
