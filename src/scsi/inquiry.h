/*
 * inquiry.h - reading what a target says of itself: INQUIRY, VPD pages, capacity, mode pages, LUN
 * lists.
 *
 * Each function reads at most size bytes, whatever lengths stand in them: a target may lie. What it
 * cannot make sense of leaves the info as it was.
 */
#pragma once

#include <stddef.h>

#include "lunfs/scsi.h"

/* Standard INQUIRY data; false: there is no logical unit here (SPC-4, 6.6.2). */
bool inquiry_read(struct lun_info *info, const uint8_t *data, size_t size);

/* A VPD page's payload without its header: NULL where data is another page's. */
const uint8_t *vpd_payload(const uint8_t *data, size_t size, uint8_t page, size_t *payload_size);
/* VPD 80h, 83h, B0h; and B2h, which tells LBPWS. */
void vpd_read_serial(struct lun_info *info, const uint8_t *data, size_t size);
void vpd_read_designators(struct lun_info *info, const uint8_t *data, size_t size);
void vpd_read_block_limits(struct lun_info *info, const uint8_t *data, size_t size);
bool vpd_read_unmaps_by_write_same(const uint8_t *data, size_t size);

/*
 * READ CAPACITY(16), (10): sets blocks and block_size, or a fault. *zeroes: LBPME and LBPRZ,
 * unmapped blocks read as zeros.
 */
void capacity_read_16(struct lun_info *info, const uint8_t *data, size_t size, bool *zeroes);
void capacity_read_10(struct lun_info *info, const uint8_t *data, size_t size);

/* MODE SENSE's header and, where it is there, the caching page; false: it makes no sense. */
bool mode_read_6(struct lun_info *info, const uint8_t *data, size_t size);
bool mode_read_10(struct lun_info *info, const uint8_t *data, size_t size);

/* The bytes that a whole REPORT LUNS answer would take, of one that may have been cut. */
size_t luns_size(const uint8_t *data, size_t size);
/*
 * Fills luns, of at most capacity, sorted, each once. Well-known units are left out; so are nested
 * ones, and those whose number is beyond 16383: these are counted in *others.
 */
size_t luns_read(
    uint16_t *luns, size_t capacity, const uint8_t *data, size_t size, unsigned *others);
