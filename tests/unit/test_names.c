/*
 * test_names.c - LUNs under the names that udev gives them.
 *
 * What is expected was read in systemd's path_id and scsi_id and in the rules of sg3-utils, and in
 * listings of /dev/disk that people have published.
 */
#include "../../src/mount/names.h"
#include "../../src/scsi/inquiry.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define IQN "iqn.2003-01.org.example:disk"

static void expect_path(
    const char *host, uint16_t port, const char *iqn, uint16_t lun, const char *expected)
{
	g_autofree char *name = names_by_path(host, port, iqn, lun);

	cr_expect_str_eq(name, expected);
}

static void expect_id(const struct lun_info *info, const char *expected)
{
	g_auto(GStrv) names = names_by_id(info);
	g_autofree char *joined = g_strjoinv(" ", names);

	cr_expect_str_eq(joined, expected);
}

static void expect_escape(const char *given, const char *expected)
{
	g_autofree char *name = names_escape(given);

	cr_expect_str_eq(name, expected);
}

/* Can stand in a directory, and be printed. */
static void expect_safe(const char *name)
{
	cr_expect_leq(strlen(name), 255);
	cr_expect_gt(strlen(name), 0);
	cr_expect(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
	cr_expect(g_utf8_validate(name, -1, NULL));
	for (const char *p = name; *p; p = g_utf8_next_char(p))
		cr_expect(*p != '/' && g_unichar_isprint(g_utf8_get_char(p)), "'%s'", name);
}

Test(names, by_path_names_portal_target_and_lun)
{
	expect_path("10.0.0.5", 3260, IQN, 0, "ip-10.0.0.5:3260-iscsi-" IQN "-lun-0");
	expect_path("nas", 860, IQN, 255, "ip-nas:860-iscsi-" IQN "-lun-255");
}

Test(names, by_path_has_ipv6_addresses_without_brackets)
{
	expect_path(
	    "fd00:c1::a9fe:202", 3260, IQN, 2, "ip-fd00:c1::a9fe:202:3260-iscsi-" IQN "-lun-2");
	expect_path("[fe80::1]", 3260, IQN, 2, "ip-fe80::1:3260-iscsi-" IQN "-lun-2");
	expect_path("fe80::1%eth0", 3260, IQN, 2, "ip-fe80::1_eth0:3260-iscsi-" IQN "-lun-2");
}

/* 256 in the flat addressing method is 4100h; path_id adds the second level, and four zero bytes.
 */
Test(names, by_path_has_luns_from_256_on_in_hexadecimal)
{
	expect_path("nas", 3260, IQN, 256, "ip-nas:3260-iscsi-" IQN "-lun-0x4100000000000000");
	expect_path("nas", 3260, IQN, 16383, "ip-nas:3260-iscsi-" IQN "-lun-0x7fff000000000000");
}

Test(names, by_path_replaces_what_a_link_cannot_hold)
{
	expect_path("nas", 3260, "iqn.x:a/../b", 1, "ip-nas:3260-iscsi-iqn.x:a_.._b-lun-1");
	expect_path("nas", 3260, "iqn.x:a \t b", 1, "ip-nas:3260-iscsi-iqn.x:a_b-lun-1");
	expect_path("nas", 3260, "iqn.x:\033[2J\n", 1, "ip-nas:3260-iscsi-iqn.x:__2J_-lun-1");
	expect_path(
	    "nas", 3260, "iqn.x:gr\u00fcn\xff", 1, "ip-nas:3260-iscsi-iqn.x:gr\u00fcn_-lun-1");
	/* a terminal's control in UTF-8, and one that turns the text around */
	expect_path("nas", 3260, "iqn.x:\xc2\x9b\u202e", 1, "ip-nas:3260-iscsi-iqn.x:_____-lun-1");
}

Test(names, by_id_of_an_naa_designator)
{
	expect_id(&(struct lun_info){.wwid = "naa.60014055b9485a9d4314afc92a5e3b12",
	              .vendor = "LIO-ORG",
	              .product = "IBLOCK",
	              .serial = "5b9485a9-d431-4afc-92a5-e3b1222dbae9"},
	    "wwn-0x60014055b9485a9d4314afc92a5e3b12 scsi-360014055b9485a9d4314afc92a5e3b12 "
	    "scsi-SLIO-ORG_IBLOCK_5b9485a9-d431-4afc-92a5-e3b1222dbae9");
	expect_id(&(struct lun_info){.wwid = "naa.5000c500a1b2c3d4"},
	    "wwn-0x5000c500a1b2c3d4 scsi-35000c500a1b2c3d4");
}

/* tgt's answer: T10, NAA 3, NAA 6. */
Test(names, by_id_of_two_naa_designators_is_the_longer)
{
	static const uint8_t page[] = {0, 0x83, 0, 40, 2, 1, 0, 4, 'I', 'E', 'T', ' ', 1, 3, 0, 8,
	    0x30, 0, 0, 1, 0, 0, 0, 1, 1, 3, 0, 16, 0x60, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0, 0, 0, 0, 1,
	    0, 1};
	struct lun_info info = {0};

	vpd_read_designators(&info, page, sizeof page);
	expect_id(
	    &info, "wwn-0x60000000000000000e00000000010001 scsi-360000000000000000e00000000010001");
}

Test(names, by_id_of_an_eui_designator_has_no_wwn)
{
	expect_id(&(struct lun_info){.wwid = "eui.0025385b71b00a4d"}, "scsi-20025385b71b00a4d");
}

Test(names, by_id_of_a_t10_designator)
{
	expect_id(&(struct lun_info){.wwid = "t10.IET_00010001"}, "scsi-1IET_00010001");
	expect_id(&(struct lun_info){.wwid = "t10.ACME_a/b\\c"}, "scsi-1ACME_a_b_c");
}

Test(names, by_id_replaces_blanks_and_slashes_in_vendor_product_and_serial)
{
	expect_id(&(struct lun_info){.wwid = "naa.5000c500a1b2c3d4",
	              .vendor = "DELL",
	              .product = "PERC 6/i  Adapter",
	              .serial = "00 1"},
	    "wwn-0x5000c500a1b2c3d4 scsi-35000c500a1b2c3d4 "
	    "scsi-SDELL_PERC_6_i_Adapter_00_1");
}

/* scsi_id takes the fields of 8 and 16 bytes whole, sg3-utils puts '_' between them: for a vendor
 * of 8 bytes these differ. */
Test(names, by_id_without_a_designator_is_made_of_the_serial)
{
	expect_id(&(struct lun_info){.vendor = "ACME", .product = "Disk", .serial = "7"},
	    "scsi-SACME_Disk_7");
	expect_id(&(struct lun_info){.vendor = "ACMECORP", .product = "Disk", .serial = "7"},
	    "scsi-SACMECORPDisk_7 scsi-SACMECORP_Disk_7");
	expect_id(&(struct lun_info){.vendor = "ACME", .product = "Disk"}, "");
}

Test(names, escape_is_that_of_udev)
{
	expect_escape("a-b.c:d=e@f_g#h+i", "a-b.c:d=e@f_g#h+i");
	expect_escape("a/b c\\d", "a\\x2fb\\x20c\\x5cd");
	expect_escape("\n\033\x7f", "\\x0a\\x1b\\x7f");
	expect_escape("gr\u00fcn", "gr\u00fcn");
	expect_escape("\xff\xc3", "\\xff\\xc3");
	expect_escape("\xc2\x9b", "\\xc2\\x9b");
}

Test(names, escape_gives_no_name_that_means_something_else)
{
	expect_escape("", "\\x00");
	expect_escape(".", "\\x2e");
	expect_escape("..", "\\x2e.");
	expect_escape(".lunfs", "\\x2elunfs");
}

Test(names, are_cut_to_255_bytes_and_stay_apart)
{
	g_autofree char *a = g_strnfill(300, 'a'), *b = g_strnfill(300, 'a');
	b[299] = 'b';
	g_autofree char *name_a = names_escape(a), *name_b = names_escape(b);
	g_autofree char *path_a = names_by_path("nas", 3260, a, 1),
	                *path_b = names_by_path("nas", 3260, a, 2);

	cr_expect_eq(strlen(name_a), 255);
	cr_expect_str_neq(name_a, name_b);
	cr_expect_eq(strlen(path_a), 255);
	cr_expect_str_neq(path_a, path_b);
	expect_safe(name_a);
	expect_safe(path_a);
}

Test(names, are_cut_between_characters_and_escapes)
{
	for (int shift = 0; shift < 8; shift++) {
		g_autoptr(GString) text = g_string_new(NULL);

		for (int i = 0; i < shift; i++)
			g_string_append_c(text, 'a');
		for (int i = 0; i < 80; i++)
			g_string_append(text, shift % 2 ? "/" : "\u20ac");
		g_autofree char *name = names_escape(text->str), *apart = names_apart(name, "x");
		expect_safe(name);
		expect_safe(apart);
		char *tilde = strrchr(name, '~');
		if (tilde && shift % 2)
			cr_expect_eq((tilde - name - shift) % 4, 0, "'%s'", name);
	}
}

Test(names, apart_tells_equal_names_from_each_other)
{
	g_autofree char *one = names_apart("wwn-0x6", "nas"),
	                *two = names_apart("wwn-0x6", "backup");
	g_autofree char *again = names_apart("wwn-0x6", "nas");

	cr_expect(g_str_has_prefix(one, "wwn-0x6~"));
	cr_expect_str_neq(one, two);
	cr_expect_str_eq(one, again);
}

Test(names, are_safe_whatever_the_target_says)
{
	GRand *random = g_rand_new_with_seed(7);

	for (int round = 0; round < 20000; round++) {
		char bytes[120];
		struct lun_info info = {0};
		int length = g_rand_int_range(random, 0, sizeof bytes);

		for (int i = 0; i < length; i++)
			bytes[i] = (char)g_rand_int_range(random, 1, 256);
		bytes[length] = '\0';
		snprintf(info.wwid, sizeof info.wwid, "t10.%s", bytes);
		g_strlcpy(info.serial, bytes, sizeof info.serial);
		g_autofree char *path = names_by_path(bytes, 3260, bytes, 1);
		g_autofree char *escaped = names_escape(bytes);
		g_auto(GStrv) ids = names_by_id(&info);
		expect_safe(path);
		expect_safe(escaped);
		for (char **id = ids; *id; id++)
			expect_safe(*id);
	}
	g_rand_free(random);
}
