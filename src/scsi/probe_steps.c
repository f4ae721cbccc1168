/*
 * probe_steps.c - what a LUN is asked, in order, and what follows from each answer.
 *
 * It owns no state: a step reads and writes its lane. What is optional for a target may fail; what
 * is not becomes the LUN's fault, in words. A size in a command is the room that its answer has.
 */
#include <errno.h>
#include <string.h>

#include "cdb.h"
#include "inquiry.h"
#include "lunfs/log.h"
#include "probe.h"

#define INQUIRY_SIZE     36u
#define VPD_SIZE         255u
#define DESIGNATORS_SIZE 1024u
#define CAPACITY_10_SIZE 8u
#define CAPACITY_16_SIZE 32u
#define MODE_6_SIZE      252u
#define CACHING_PAGE     0x08
#define ALL_PAGES        0x3f

void lane_receive(struct lane *lane, size_t size)
{
	if (lane->room < size) {
		g_free(lane->data);
		lane->data = g_malloc(size);
		lane->room = size;
	}
	lane->iov = (struct iovec){.iov_base = lane->data, .iov_len = size};
}

static void lane_fault(struct lane *lane, const char *what)
{
	char text[200];

	sense_describe(&lane->command, text, sizeof text);
	g_snprintf(lane->info->fault, sizeof lane->info->fault, "%s (%s)", what, text);
}

/* ---- the steps ---- */

static bool lane_is_block(const struct lane *lane)
{
	return scsi_type_is_block(lane->info->type);
}

static bool lane_is_ready(const struct lane *lane)
{
	return lane_is_block(lane) && !lane->info->fault[0];
}

static bool lane_always(const struct lane *lane)
{
	(void)lane;
	return true;
}

static void inquiry_ask(struct lane *lane)
{
	lane_receive(lane, INQUIRY_SIZE);
	cdb_inquiry(&lane->command, INQUIRY_SIZE);
}

static void inquiry_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	lane->absent = !inquiry_read(lane->info, data, size);
	if (lane->info->type == SCSI_TYPE_CD)
		lane->info->write_protected = true;
}

static void inquiry_refused(struct lane *lane)
{
	sense_describe(&lane->command, lane->refusal, sizeof lane->refusal);
	lane->absent = true;
	log_debug("LUN %u: left out: %s", lane->info->lun, lane->refusal);
}

static void page_ask(struct lane *lane, uint8_t page, uint16_t size)
{
	lane_receive(lane, size);
	cdb_inquiry_page(&lane->command, page, size);
}

static void pages_ask(struct lane *lane)
{
	page_ask(lane, 0x00, VPD_SIZE);
}

static void pages_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	const uint8_t *pages = vpd_payload(data, size, 0x00, &size);

	for (size_t i = 0; pages && i < size; i++)
		lane->has[pages[i]] = true;
}

static bool serial_applies(const struct lane *lane)
{
	return lane->has[0x80];
}

static void serial_ask(struct lane *lane)
{
	page_ask(lane, 0x80, VPD_SIZE);
}

static void serial_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	vpd_read_serial(lane->info, data, size);
}

static bool designators_apply(const struct lane *lane)
{
	return lane->has[0x83];
}

static void designators_ask(struct lane *lane)
{
	page_ask(lane, 0x83, DESIGNATORS_SIZE);
}

static void designators_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	vpd_read_designators(lane->info, data, size);
}

static bool limits_apply(const struct lane *lane)
{
	return lane->has[0xb0] && lane_is_block(lane);
}

static void limits_ask(struct lane *lane)
{
	page_ask(lane, 0xb0, VPD_SIZE);
}

static void limits_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	vpd_read_block_limits(lane->info, data, size);
}

static bool provisioning_applies(const struct lane *lane)
{
	return lane->has[0xb2] && lane_is_block(lane);
}

static void provisioning_ask(struct lane *lane)
{
	page_ask(lane, 0xb2, VPD_SIZE);
}

static void provisioning_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	lane->by_write_same = vpd_read_unmaps_by_write_same(data, size);
}

static void ready_ask(struct lane *lane)
{
	lane_receive(lane, INQUIRY_SIZE);
	cdb_test_unit_ready(&lane->command);
}

/* Another host has the LUN to itself: INQUIRY and READ CAPACITY are answered all the same (SPC-4,
 * 5.13.1), and so it is shown; its reads and writes end with EBADE. */
static bool lane_is_reserved(struct lane *lane)
{
	bool conflict = lane->command.status == SAM_RESERVATION_CONFLICT;

	lane->info->reserved |= conflict;
	return conflict;
}

static void ready_refused(struct lane *lane)
{
	int error;

	if (lane_is_reserved(lane))
		return;
	sense_judge(&lane->command, &error);
	lane_fault(lane, error == -ENOMEDIUM ? "no medium" : "not ready");
}

static bool capacity_16_applies(const struct lane *lane)
{
	return lane_is_ready(lane) && lane->info->type != SCSI_TYPE_CD;
}

static void capacity_16_ask(struct lane *lane)
{
	lane_receive(lane, CAPACITY_16_SIZE);
	cdb_read_capacity_16(&lane->command, CAPACITY_16_SIZE);
}

static void capacity_16_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	capacity_read_16(lane->info, data, size, &lane->zeroes);
	lane->info->unmap_zeroes = lane->zeroes && lane->by_write_same;
}

static void capacity_refused(struct lane *lane)
{
	lane_fault(lane, lane_is_reserved(lane)
	                     ? "another host has reserved it, and its capacity is not known"
	                     : "its capacity is not known");
}

static void capacity_16_refused(struct lane *lane)
{
	const struct scsi_command *command = &lane->command;

	if (command->status != SAM_CHECK_CONDITION || command->sense.key != SENSE_ILLEGAL_REQUEST)
		capacity_refused(lane);
}

static bool capacity_10_applies(const struct lane *lane)
{
	return lane_is_ready(lane) && lane->info->blocks == 0;
}

static void capacity_10_ask(struct lane *lane)
{
	lane_receive(lane, CAPACITY_10_SIZE);
	cdb_read_capacity_10(&lane->command);
}

static void capacity_10_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	capacity_read_10(lane->info, data, size);
}

static bool mode_applies(const struct lane *lane)
{
	return lane_is_ready(lane) && lane->info->type != SCSI_TYPE_CD && !lane->has_mode;
}

static void mode_6_caching_ask(struct lane *lane)
{
	lane_receive(lane, MODE_6_SIZE);
	cdb_mode_sense_6(&lane->command, CACHING_PAGE, MODE_6_SIZE);
}

static void mode_6_all_ask(struct lane *lane)
{
	lane_receive(lane, MODE_6_SIZE);
	cdb_mode_sense_6(&lane->command, ALL_PAGES, MODE_6_SIZE);
}

static void mode_6_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	lane->has_mode = mode_read_6(lane->info, data, size);
}

static void mode_10_caching_ask(struct lane *lane)
{
	lane_receive(lane, DESIGNATORS_SIZE);
	cdb_mode_sense_10(&lane->command, CACHING_PAGE, DESIGNATORS_SIZE);
}

static void mode_10_answered(struct lane *lane, const uint8_t *data, size_t size)
{
	lane->has_mode = mode_read_10(lane->info, data, size);
}

const struct step probe_steps[] = {
    {lane_always, inquiry_ask, inquiry_answered, inquiry_refused},
    {lane_always, pages_ask, pages_answered, NULL},
    {serial_applies, serial_ask, serial_answered, NULL},
    {designators_apply, designators_ask, designators_answered, NULL},
    {limits_apply, limits_ask, limits_answered, NULL},
    {provisioning_applies, provisioning_ask, provisioning_answered, NULL},
    {lane_is_block, ready_ask, NULL, ready_refused},
    {capacity_16_applies, capacity_16_ask, capacity_16_answered, capacity_16_refused},
    {capacity_10_applies, capacity_10_ask, capacity_10_answered, capacity_refused},
    {mode_applies, mode_6_caching_ask, mode_6_answered, NULL},
    {mode_applies, mode_10_caching_ask, mode_10_answered, NULL},
    {mode_applies, mode_6_all_ask, mode_6_answered, NULL},
};

const struct step *const probe_steps_end = probe_steps + G_N_ELEMENTS(probe_steps);
