/*
 * target.h - a target that an input makes hostile.
 *
 * Left alone it is a correct target with one small disk. The input's script is a list of edits, one
 * for each PDU that the target is about to send; where the script ends the target is correct again.
 * Two other ways are cruder: the input's bytes are sent as they are, from the first login on or
 * after a login that was right.
 *
 * An input: behaviour, shape, script.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "world.h"

enum behaviour { /* the first byte */
	BEHAVIOUR_KIND = 0x03,
	BEHAVIOUR_DISCOVERY = 0x04,
	BEHAVIOUR_HEADER_DIGEST = 0x08,
	BEHAVIOUR_CHAP = 0x10,
	BEHAVIOUR_MUTUAL_CHAP = 0x20,
	BEHAVIOUR_CLOSE = 0x40, /* lunfs logs out, else its session is freed as it is */
	BEHAVIOUR_LIST = 0x80,  /* lunfs asks for the list of LUNs */
};
enum behaviour_kind { EDITED, EDITED_TOO, RAW, RAW_AFTER_LOGIN };

enum shape { /* the second byte */
	SHAPE_NEGOTIATION = 0x03,
	SHAPE_CD = 0x04,
	SHAPE_NO_CACHE = 0x08,
	SHAPE_NO_UNMAP = 0x10,
	SHAPE_BLOCKS_OF_4K = 0x20,
	SHAPE_THREE_LUNS = 0x40,
	SHAPE_LARGE_IO =
	    0xe0, /* all of it: lunfs' requests are larger than a burst; they are slow */
};
enum negotiation { AS_OFFERED, SMALL_BURSTS, NO_IMMEDIATE_DATA, SMALL_SEGMENTS };

#define TARGET_NAME   "iqn.2026-01.org.lunfs:fuzz"
#define CHAP_USER     "user"
#define CHAP_PASSWORD "initiatorsecret"
#define CHAP_USER_IN  "target"
#define CHAP_SECRET   "targetsecret1"
#define DISK_BLOCKS   4096u
#define TARGET_MOST   (512u << 10)

extern const struct world_target hostile_target;

void target_start(const uint8_t *input, size_t size);
void target_end(void);
/* No connection is to come any more: nothing new happens. */
bool target_is_over(void);
/* It has not yet differed from a correct one. */
bool target_was_correct(void);
/* It has answered the challenge of this connection (mutual CHAP). */
bool target_has_proved(void);
uint32_t target_block_size(void);
/* What the disk holds from an offset in bytes on, TARGET_MOST bytes at most. */
const uint8_t *target_bytes(uint64_t offset);
