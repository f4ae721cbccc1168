/*
 * lun.c - what the logical units of the target tell of themselves (SPC-4, SBC-3).
 */
#include "lun.h"

#include <string.h>

#include "lunfs/scsi.h"
#include "target.h"

uint32_t lun_block_size(uint8_t shape)
{
	return shape & SHAPE_CD ? 2048 : shape & SHAPE_BLOCKS_OF_4K ? 4096 : 512;
}

static size_t make_inquiry(uint8_t shape, uint8_t *data, const uint8_t *cdb)
{
	if (!(cdb[1] & 1)) {
		data[0] = shape & SHAPE_CD ? SCSI_TYPE_CD : SCSI_TYPE_DISK;
		data[2] = 5;
		data[4] = 31;
		memcpy(data + 8, "LUNFS   FUZZED          0001", 28);
		return 36;
	}
	data[1] = cdb[2];
	switch (cdb[2]) {
	case 0x00:
		memcpy(data + 4, (uint8_t[]){0x00, 0x80, 0x83, 0xb0, 0xb2}, 5);
		data[3] = 5;
		return 9;
	case 0x80:
		memcpy(data + 4, "SERIAL01", 8);
		data[3] = 8;
		return 12;
	case 0x83:
		memcpy(data + 4, (uint8_t[]){2, 1, 0, 4, 'a', 'b', 'c', ' ', 1, 3, 0, 8, 0x60}, 13);
		data[3] = 20;
		return 24;
	case 0xb0:
		put_be32(data + 8, 1024);
		put_be64(data + 36, 65536);
		data[3] = 60;
		return 64;
	case 0xb2:
		data[3] = 4;
		data[5] = 0x40;
		return 8;
	default:
		return 0;
	}
}

static size_t make_capacity(uint8_t shape, uint8_t *data, bool sixteen)
{
	if (!sixteen) {
		put_be32(data, DISK_BLOCKS - 1);
		put_be32(data + 4, lun_block_size(shape));
		return 8;
	}
	put_be64(data, DISK_BLOCKS - 1);
	put_be32(data + 8, lun_block_size(shape));
	data[14] = shape & SHAPE_NO_UNMAP ? 0 : 0xc0;
	return 32;
}

static size_t make_mode(uint8_t shape, uint8_t *data, bool ten)
{
	size_t header = ten ? 8 : 4;

	data[header] = 0x08;
	data[header + 1] = 18;
	data[header + 2] = shape & SHAPE_NO_CACHE ? 0 : 0x04;
	data[ten ? 3 : 2] = shape & SHAPE_NO_UNMAP ? 0 : 0x10; /* DPOFUA */
	data[ten ? 1 : 0] = (uint8_t)(header + 20 - (ten ? 2 : 1));
	return header + 20;
}

static size_t make_luns(uint8_t shape, uint8_t *data)
{
	size_t count = shape & SHAPE_THREE_LUNS ? 3 : 1;

	put_be32(data, (uint32_t)count * 8);
	if (count == 3) {
		data[8 + 8 + 1] = 1;
		put_be16(data + 8 + 16, 0x4000 | 300);
	}
	return 8 + count * 8;
}

size_t lun_tell(uint8_t shape, const uint8_t *cdb, uint8_t *data)
{
	switch (cdb[0]) {
	case 0x12:
		return make_inquiry(shape, data, cdb);
	case 0x1a:
	case 0x5a:
		return make_mode(shape, data, cdb[0] == 0x5a);
	case 0x25:
	case 0x9e:
		return make_capacity(shape, data, cdb[0] == 0x9e);
	case 0xa0:
		return make_luns(shape, data);
	default:
		return 0;
	}
}
