/*
 * lun.h - what the logical units of the target tell of themselves.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LUN_TELLS 128u

uint32_t lun_block_size(uint8_t shape);
/* The answer to a command that asks for such, LUN_TELLS bytes at most, in data, which is zeros; its
 * length, 0: it is another command. */
size_t lun_tell(uint8_t shape, const uint8_t *cdb, uint8_t *data);
