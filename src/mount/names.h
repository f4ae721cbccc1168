/*
 * names.h - by which other names udev would know a LUN. Private to the room.
 *
 * As udev makes the links of /dev/disk: a run of blanks becomes one '_', and so does each byte that
 * is neither a letter, a digit, one of "#+-.:=@_", nor part of a printable character in UTF-8. Two
 * LUNs may get the same name, as under udev: where both are to be seen there is names_apart().
 *
 * All are free of '/' and of control characters, not empty, not "." or "..", and of at most 255
 * bytes: what is longer is cut, and ends with a hash of the whole.
 */
#pragma once

#include <glib.h>

#include "lunfs/scsi.h"

/*
 * "ip-10.0.0.5:3260-iscsi-iqn.2003-01.org.example:disk-lun-0"; an IPv6 address without its
 * brackets, and LUNs from 256 on as "lun-0x4100000000000000", in the flat addressing of
 * SAM-5, 4.7.7. Free with g_free().
 */
char *names_by_path(const char *host, uint16_t port, const char *iqn, uint16_t lun);
/*
 * "wwn-0x6001405...", "scsi-36001405...", "scsi-SVENDOR_PRODUCT_SERIAL": as many as there are, each
 * once. What udev's scsi_id and the rules of sg3-utils make of the designator and the serial. Free
 * with g_strfreev().
 */
char **names_by_id(const struct lun_info *info);
/*
 * What cannot stand in a file's name as udev encodes a label: "\x2f" for '/'. Different texts have
 * different names; a '.' at the beginning is encoded too. Free with g_free().
 */
char *names_escape(const char *text);
/* "name~1f2e3d4c": for the second of two that have the same name, by what tells it from the first.
 * Free with g_free(). */
char *names_apart(const char *name, const char *key);
