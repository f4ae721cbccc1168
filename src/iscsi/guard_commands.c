/*
 * guard_commands.c - the commands that are outstanding, and what may come for one.
 *
 * They stand in a hash table by ITT, open addressing, at most half full: looking up and taking out
 * allocate nothing. A WRITE owes bursts: one that it begins with, and one for each R2T; each ends
 * with a PDU that has the F bit (RFC 7143, 11.7.1). While it owes one libiscsi has PDUs in its
 * queue that point to the task.
 *
 * DataPDUInOrder and DataSequenceInOrder are always agreed on (libiscsi offers Yes, and Yes wins),
 * and there is no recovery within a session: so data comes from its beginning to its end, each
 * byte once, and what has come is a number.
 */
#include <stdio.h>

#include "guard_internal.h"

#define SLOTS_AT_LEAST 256u
/* Of a command, at once. MaxOutstandingR2T is agreed to be 1; who sends a few more is answered. */
#define BURSTS_LIMIT 64u

/* SAM-5, 5.3.1 */
enum { GOOD = 0x00, CONDITION_MET = 0x04 };

/* ---- the table ---- */

/* ITTs come one after the other: the multiplication scatters them evenly (Knuth, 6.4). */
static uint32_t guard_home(const struct guard *guard, uint32_t itt)
{
	return itt * 2654435769u >> (32 - guard->bits);
}

static uint32_t guard_mask(const struct guard *guard)
{
	return (1u << guard->bits) - 1;
}

/* Where it stands, or the empty slot where it would. */
static uint32_t guard_slot(const struct guard *guard, uint32_t itt)
{
	uint32_t at = guard_home(guard, itt);

	while (guard->slots[at].used && guard->slots[at].itt != itt)
		at = (at + 1) & guard_mask(guard);
	return at;
}

static void guard_grow(struct guard *guard)
{
	g_autofree struct expected *old = guard->slots;
	uint32_t slots = 1u << guard->bits;

	guard->bits++;
	guard->slots = g_new0(struct expected, (size_t)2 * slots);
	for (uint32_t i = 0; i < slots; i++)
		if (old[i].used)
			guard->slots[guard_slot(guard, old[i].itt)] = old[i];
}

void commands_init_table(struct guard *guard)
{
	while (1u << guard->bits < SLOTS_AT_LEAST)
		guard->bits++;
	guard->slots = g_new0(struct expected, SLOTS_AT_LEAST);
}

void guard_expect(
    struct guard *guard, uint32_t itt, enum scsi_direction direction, uint32_t length, bool exact)
{
	if (2 * ++guard->count > 1u << guard->bits)
		guard_grow(guard);
	guard->slots[guard_slot(guard, itt)] = (struct expected){
	    .used = true,
	    .exact = exact,
	    .direction = (uint8_t)direction,
	    .itt = itt,
	    .length = length,
	    .bursts = direction == SCSI_DATA_OUT,
	};
}

bool guard_settle(struct guard *guard, uint32_t itt)
{
	uint32_t mask = guard_mask(guard), hole = guard_slot(guard, itt);
	struct expected command = guard->slots[hole];

	if (!command.used)
		return false;
	/* What stands behind the hole moves up, unless it would move before its home. */
	for (uint32_t at = hole; guard->slots[at = (at + 1) & mask].used;) {
		uint32_t home = guard_home(guard, guard->slots[at].itt);

		if (((at - home) & mask) >= ((at - hole) & mask)) {
			guard->slots[hole] = guard->slots[at];
			hole = at;
		}
	}
	guard->slots[hole].used = false;
	guard->count--;
	return guard->seen && command.bursts == 0;
}

/* Where it is not seen it is taken for all. */
static uint32_t command_moved(const struct guard *guard, const struct expected *command)
{
	bool reads = command->direction == SCSI_DATA_IN;
	bool seen = reads ? guard->seen : guard->seen_out;

	return !seen ? command->length : reads ? command->moved : command->left;
}

uint32_t guard_moved(const struct guard *guard, uint32_t itt)
{
	const struct expected *command = &guard->slots[guard_slot(guard, itt)];

	return command->used ? command_moved(guard, command) : 0;
}

/* ---- what may come ---- */

/* The command that a header names. NULL: it is not to be believed. */
static struct expected *guard_find(struct guard *guard, const uint8_t *header, const char *what)
{
	struct expected *command = &guard->slots[guard_slot(guard, get_be32(header + 16))];

	if (!command->used || command->answered) {
		guard_forbid(guard, "%s for no command", what);
		return NULL;
	}
	/* libiscsi would take its PDU away in the middle of it. */
	if (guard->seen_out && !command->sent) {
		guard_forbid(guard, "%s for a command that has not left yet", what);
		return NULL;
	}
	return command;
}

/* RFC 7143, 11.4.5 and 11.7.4: what a status is told with */
static bool command_ends(struct guard *guard, struct expected *command, const uint8_t *header)
{
	uint8_t residual = header[1] & (OVERFLOW | UNDERFLOW), status = header[3];
	uint32_t lacks = residual == UNDERFLOW ? get_be32(header + 44) : 0;

	if (residual == (OVERFLOW | UNDERFLOW))
		return guard_forbid(guard, "a residual that is over and under");
	if (lacks > command->length)
		return guard_forbid(guard, "a residual beyond the command's data");
	command->answered = true;
	if (!command->exact || (status != GOOD && status != CONDITION_MET))
		return true;
	uint32_t moved = command_moved(guard, command), told = command->length - lacks;
	if (command->direction == SCSI_DATA_IN && moved != told)
		return guard_refuse(guard, "the target said GOOD, but data is missing");
	if (command->direction == SCSI_DATA_OUT && moved < told)
		return guard_refuse(guard, "the target said GOOD, but did not take all data");
	return true;
}

bool command_passes_data_in(struct guard *guard, const uint8_t *header)
{
	struct expected *command = guard_find(guard, header, "Data-In");
	uint32_t length = get_be32(header + 4) & 0xffffff, offset = get_be32(header + 40);

	if (command == NULL)
		return false;
	if (command->direction != SCSI_DATA_IN)
		return guard_forbid(guard, "Data-In for a command that reads nothing");
	if ((uint64_t)offset + length > command->length)
		return guard_forbid(guard, "Data-In beyond the command's data");
	if (get_be32(header + 36) != command->sn)
		return guard_forbid(guard, "Data-In with DataSN %u where %u is next: one was lost",
		    get_be32(header + 36), command->sn);
	if (offset != command->moved)
		return guard_forbid(
		    guard, "Data-In for offset %u where %u is next", offset, command->moved);
	command->sn++;
	command->moved += length;
	if (!(header[1] & STATUS))
		return true;
	if (!(header[1] & FINAL))
		return guard_forbid(guard, "Data-In with a status that is not final");
	return command_ends(guard, command, header);
}

bool command_passes_r2t(struct guard *guard, const uint8_t *header)
{
	struct expected *command = guard_find(guard, header, "R2T");
	uint32_t offset = get_be32(header + 40), length = get_be32(header + 44);

	if (command == NULL)
		return false;
	if (command->direction != SCSI_DATA_OUT)
		return guard_forbid(guard, "R2T for a command that writes nothing");
	if (length == 0)
		return guard_forbid(guard, "R2T for 0 bytes");
	if ((get_be32(header + 4) & 0xffffff) != 0)
		return guard_forbid(guard, "R2T with data");
	if ((uint64_t)offset + length > command->length)
		return guard_forbid(guard, "R2T beyond the command's data");
	/* Each byte is asked for once at most where there is no recovery (RFC 7143, 7.1.4.1). */
	if ((uint64_t)command->moved + length > command->length)
		return guard_forbid(guard, "R2Ts for more than the command's data");
	if (get_be32(header + 36) != command->sn)
		return guard_forbid(guard, "R2T with R2TSN %u where %u is next: one was lost",
		    get_be32(header + 36), command->sn);
	if (get_be32(header + 20) == NO_TAG)
		return guard_forbid(guard, "R2T without a Target Transfer Tag");
	if (guard->max_burst != 0 && length > guard->max_burst)
		return guard_forbid(guard, "R2T for a longer burst than agreed");
	/* For each, libiscsi keeps the Data-Out until they leave. */
	if (guard->seen_out && command->bursts >= BURSTS_LIMIT)
		return guard_forbid(guard, "more R2Ts at once than agreed");
	command->sn++;
	command->moved += length;
	command->bursts++;
	return true;
}

bool command_passes_response(struct guard *guard, const uint8_t *header)
{
	struct expected *command = guard_find(guard, header, "SCSI Response");

	if (command == NULL)
		return false;
	if (header[2] != 0)
		return guard_refuse(
		    guard, "the target failed at a command (iSCSI response code %02Xh)", header[2]);
	if (!(header[1] & FINAL))
		return guard_forbid(guard, "SCSI Response without the F bit");
	return command_ends(guard, command, header);
}

/* ---- what leaves ---- */

void command_note_sent(struct guard *guard, const uint8_t *header)
{
	struct expected *command = &guard->slots[guard_slot(guard, get_be32(header + 16))];

	if (!command->used)
		return;
	bool first = (header[0] & 0x3f) == SCSI_COMMAND;
	uint32_t length = get_be32(header + 4) & 0xffffff;
	uint32_t offset = first ? 0 : get_be32(header + 40);

	command->sent |= first;
	/* DataSequenceInOrder=Yes: what does not go on where the last has ended is no progress */
	if (offset <= command->left && offset + length > command->left)
		command->left = offset + length;
	if ((header[1] & FINAL) && command->bursts > 0)
		command->bursts--;
}
