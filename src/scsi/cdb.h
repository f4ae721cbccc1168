/*
 * cdb.h - command descriptor blocks, as far as disks and their probe send them.
 *
 * Each function fills the cdb and the direction of a command, nothing else. SPC-4 for the
 * inquiries, SBC-3 for the rest; blocks and lba count logical blocks.
 */
#pragma once

#include <string.h>

#include "lunfs/scsi.h"

enum opcode {
	OP_TEST_UNIT_READY = 0x00,
	OP_INQUIRY = 0x12,
	OP_MODE_SENSE_6 = 0x1a,
	OP_READ_CAPACITY_10 = 0x25,
	OP_READ_10 = 0x28,
	OP_WRITE_10 = 0x2a,
	OP_SYNCHRONIZE_CACHE_10 = 0x35,
	OP_MODE_SENSE_10 = 0x5a,
	OP_READ_16 = 0x88,
	OP_WRITE_16 = 0x8a,
	OP_SYNCHRONIZE_CACHE_16 = 0x91,
	OP_WRITE_SAME_16 = 0x93,
	OP_SERVICE_ACTION_IN_16 = 0x9e,
	OP_REPORT_LUNS = 0xa0,
};

enum {
	CDB_FUA = 1 << 3,               /* READ, WRITE: byte 1 */
	CDB_UNMAP = 1 << 3,             /* WRITE SAME: byte 1 */
	CDB_EVPD = 1 << 0,              /* INQUIRY: byte 1 */
	CDB_DBD = 1 << 3,               /* MODE SENSE: byte 1, no block descriptors */
	CDB_READ_CAPACITY_ACTION = 0x10 /* of SERVICE ACTION IN(16) */
};

static inline void cdb_start(
    struct scsi_command *command, uint8_t opcode, uint8_t length, enum scsi_direction direction)
{
	memset(command->cdb, 0, sizeof command->cdb);
	command->cdb[0] = opcode;
	command->cdb_length = length;
	command->direction = direction;
}

static inline void cdb_test_unit_ready(struct scsi_command *command)
{
	cdb_start(command, OP_TEST_UNIT_READY, 6, SCSI_NO_DATA);
}

static inline void cdb_report_luns(struct scsi_command *command, uint32_t allocation)
{
	cdb_start(command, OP_REPORT_LUNS, 12, SCSI_DATA_IN);
	put_be32(command->cdb + 6, allocation);
}

static inline void cdb_inquiry(struct scsi_command *command, uint16_t allocation)
{
	cdb_start(command, OP_INQUIRY, 6, SCSI_DATA_IN);
	put_be16(command->cdb + 3, allocation);
}

static inline void cdb_inquiry_page(struct scsi_command *command, uint8_t page, uint16_t allocation)
{
	cdb_inquiry(command, allocation);
	command->cdb[1] = CDB_EVPD;
	command->cdb[2] = page;
}

static inline void cdb_mode_sense_6(struct scsi_command *command, uint8_t page, uint8_t allocation)
{
	cdb_start(command, OP_MODE_SENSE_6, 6, SCSI_DATA_IN);
	command->cdb[1] = CDB_DBD;
	command->cdb[2] = page;
	command->cdb[4] = allocation;
}

static inline void cdb_mode_sense_10(
    struct scsi_command *command, uint8_t page, uint16_t allocation)
{
	cdb_start(command, OP_MODE_SENSE_10, 10, SCSI_DATA_IN);
	command->cdb[1] = CDB_DBD;
	command->cdb[2] = page;
	put_be16(command->cdb + 7, allocation);
}

static inline void cdb_read_capacity_10(struct scsi_command *command)
{
	cdb_start(command, OP_READ_CAPACITY_10, 10, SCSI_DATA_IN);
}

static inline void cdb_read_capacity_16(struct scsi_command *command, uint32_t allocation)
{
	cdb_start(command, OP_SERVICE_ACTION_IN_16, 16, SCSI_DATA_IN);
	command->cdb[1] = CDB_READ_CAPACITY_ACTION;
	put_be32(command->cdb + 10, allocation);
}

/* READ, WRITE(10): SBC-3, 5.10, 5.30; flags is CDB_FUA or 0 */
static inline void cdb_transfer_10(
    struct scsi_command *command, bool write, uint32_t lba, uint16_t blocks, uint8_t flags)
{
	cdb_start(
	    command, write ? OP_WRITE_10 : OP_READ_10, 10, write ? SCSI_DATA_OUT : SCSI_DATA_IN);
	command->cdb[1] = flags;
	put_be32(command->cdb + 2, lba);
	put_be16(command->cdb + 7, blocks);
}

static inline void cdb_transfer_16(
    struct scsi_command *command, bool write, uint64_t lba, uint32_t blocks, uint8_t flags)
{
	cdb_start(
	    command, write ? OP_WRITE_16 : OP_READ_16, 16, write ? SCSI_DATA_OUT : SCSI_DATA_IN);
	command->cdb[1] = flags;
	put_be64(command->cdb + 2, lba);
	put_be32(command->cdb + 10, blocks);
}

static inline void cdb_write_same_16(
    struct scsi_command *command, uint64_t lba, uint32_t blocks, uint8_t flags)
{
	cdb_start(command, OP_WRITE_SAME_16, 16, SCSI_DATA_OUT);
	command->cdb[1] = flags;
	put_be64(command->cdb + 2, lba);
	put_be32(command->cdb + 10, blocks);
}

/* The whole medium: LBA 0, number of blocks 0. */
static inline void cdb_synchronize_cache(struct scsi_command *command, bool long_form)
{
	if (long_form)
		cdb_start(command, OP_SYNCHRONIZE_CACHE_16, 16, SCSI_NO_DATA);
	else
		cdb_start(command, OP_SYNCHRONIZE_CACHE_10, 10, SCSI_NO_DATA);
}
