/*
 * test_cache_model.h - what the bytes of a LUN may be, for test_cache_random.c.
 *
 * Each request that changes something has a number, higher than those before it. A LUN is made of
 * units of 8 bytes, and what a WRITE puts into a unit is its number and the unit's place, so that
 * any unit that is seen anywhere tells who wrote it, and whether it is where it belongs. Of two
 * requests that overlap the one that was submitted later wins (SAFETY.md 9), so the numbers that a
 * unit is given only rise, and the model needs few of them:
 *
 *   acked    the highest that was acknowledged: what is read is never older
 *   synced   the highest that was acknowledged before a FLUSH that succeeded was submitted, or with
 *            FUA: what is on stable storage is never older
 *   zeroed, discarded   those of the last ZERO and DISCARD: they leave no number. Once discarded,
 *            anything that was ever there may be read, up to the next acknowledged write.
 */
#pragma once

#include <criterion/criterion.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "support/memory_block.h"

enum { UNIT = 8 };

struct unit {
	uint32_t id, place;
};

struct model {
	const char *mode; /* for messages */
	uint32_t seed;
	uint32_t *ids; /* the highest number that was given */
	uint32_t lun;
	bool whole; /* all writes are of whole blocks: none of them may be torn */
	unsigned units, units_per_block;
	uint32_t *acked, *synced, *zeroed, *discarded;
};

static inline void model_init(struct model *model, uint64_t size, uint32_t block_size)
{
	model->units = (unsigned)(size / UNIT);
	model->units_per_block = block_size / UNIT;
	model->acked = g_new0(uint32_t, model->units);
	model->synced = g_new0(uint32_t, model->units);
	model->zeroed = g_new0(uint32_t, model->units);
	model->discarded = g_new0(uint32_t, model->units);
}

static inline void model_clear(struct model *model)
{
	g_free(model->acked);
	g_free(model->synced);
	g_free(model->zeroed);
	g_free(model->discarded);
}

static inline uint32_t model_place(const struct model *model, unsigned unit)
{
	return (model->lun + 1) << 24 | unit;
}

/* What the WRITE id puts into units from first on. */
static inline void model_fill(
    const struct model *model, uint32_t id, unsigned first, unsigned count, uint8_t *data)
{
	for (unsigned i = 0; i < count; i++) {
		struct unit unit = {id, model_place(model, first + i)};
		memcpy(data + (size_t)i * UNIT, &unit, UNIT);
	}
}

static inline struct unit model_unit(const uint8_t *content)
{
	struct unit unit;

	memcpy(&unit, content, UNIT);
	return unit;
}

static inline bool unit_is(struct unit unit, uint32_t both)
{
	return unit.id == both && unit.place == both;
}

/* Whose content it is. */
static inline uint32_t model_writer(
    const struct model *model, unsigned at, const uint8_t *content, const char *where)
{
	struct unit unit = model_unit(content);

	if (unit_is(unit, 0))
		return model->zeroed[at];
	if (unit_is(unit, 0x01010101u * MEMORY_DISCARDED) && model->discarded[at])
		return model->discarded[at];
	cr_assert(unit.place == model_place(model, at) && unit.id > 0 && unit.id <= *model->ids,
	    "%s: byte %u of lun %u has %08x %08x, which nobody wrote there; %s, seed %u", where,
	    at * UNIT, model->lun, unit.id, unit.place, model->mode, model->seed);
	return unit.id;
}

static inline void model_expect_unit(const struct model *model, unsigned at, const uint8_t *content,
    uint32_t floor, const char *where)
{
	uint32_t id = model_writer(model, at, content, where);

	cr_assert(id >= floor || model->discarded[at] >= floor,
	    "%s: byte %u (block %u) of lun %u is of write %u, and should be of %u or later; %s, "
	    "seed %u",
	    where, at * UNIT, at / model->units_per_block, model->lun, id, floor, model->mode,
	    model->seed);
}

/* Blocks that lie in it as a whole are as one WRITE left them. */
static inline void model_expect_whole(const struct model *model, unsigned first, unsigned count,
    const uint8_t *content, const char *where)
{
	for (unsigned i = 0; i < count; i++) {
		unsigned start = i - (first + i) % model->units_per_block;
		if (start > i)
			continue; /* it began before */
		cr_assert_eq(model_unit(content + (size_t)i * UNIT).id,
		    model_unit(content + (size_t)start * UNIT).id,
		    "%s: block %u of lun %u is torn; %s, seed %u", where,
		    (first + i) / model->units_per_block, model->lun, model->mode, model->seed);
	}
}

/* floors: of each of the units; NULL: any that were ever written. */
static inline void model_expect(const struct model *model, unsigned first, unsigned count,
    const uint8_t *content, const uint32_t *floors, const char *where)
{
	for (unsigned i = 0; i < count; i++)
		model_expect_unit(
		    model, first + i, content + (size_t)i * UNIT, floors ? floors[i] : 0, where);
	if (model->whole)
		model_expect_whole(model, first, count, content, where);
}

static inline void model_raise(uint32_t *numbers, unsigned first, unsigned count, uint32_t id)
{
	for (unsigned i = first; i < first + count; i++)
		numbers[i] = MAX(numbers[i], id);
}

/* All that was acknowledged and not synced may be gone. */
static inline void model_forget(struct model *model)
{
	memcpy(model->acked, model->synced, model->units * sizeof(*model->acked));
}

/* From here on that is what is there, and nothing else. */
static inline void model_restart(struct model *model, const uint8_t *content)
{
	for (unsigned i = 0; i < model->units; i++)
		model->acked[i] = model->synced[i] =
		    model_writer(model, i, content + (size_t)i * UNIT, "a new start");
}
