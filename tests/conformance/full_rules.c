/*
 * full_rules.c - see full_rules.h.
 *
 * Each rule walks the traffic from its first PDU, with what it has to remember of each connection.
 */
#include "full_rules.h"
#include "full.h"

#include <stdio.h>
#include <string.h>

#define CONNECTIONS 256

static bool is_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static uint8_t opcode_of(const struct script_traffic *pdu)
{
	return pdu->header[0] & 0x3f;
}

static bool is_zero(const uint8_t *bytes, unsigned from, unsigned to)
{
	while (from < to && bytes[from] == 0)
		from++;
	return from == to;
}

/* In the words of a failure. */
static const char *name_of(const struct script_traffic *pdu, unsigned i)
{
	static char name[256];
	size_t length = (size_t)snprintf(name, sizeof(name),
	    "PDU %u of connection %u at %ld ms:", i, pdu->connection, (long)pdu->at_ms);

	for (unsigned k = 0; k < 48; k++)
		length += (size_t)snprintf(name + length, sizeof(name) - length, "%s%02x",
		    k % 4 ? "" : " ", pdu->header[k]);
	return name;
}

/* Each PDU, and what is known of its connection. */
#define EACH_PDU(target, pdu, i, memory)                                                           \
	for (unsigned i = 0; script_traffic_get((target), i, &(pdu)) &&                            \
	                     ((memory) = &memories[(pdu).connection % CONNECTIONS]);               \
	     i++)

/* ---- CmdSN ---- */

static bool takes_a_turn(const struct script_traffic *pdu)
{
	return pdu->to_target && opcode_of(pdu) != DATA_OUT && opcode_of(pdu) != 0x10;
}

void rule_commands_are_numbered(struct script_target *target)
{
	struct memory {
		uint32_t next;
		bool known;
	} memories[CONNECTIONS] = {0}, *memory;
	struct script_traffic pdu;

	EACH_PDU(target, pdu, i, memory)
	{
		uint32_t cmdsn = get_be32(pdu.header + 24);

		if (!takes_a_turn(&pdu))
			continue;
		if (!memory->known)
			memory->next = cmdsn;
		memory->known = true;
		cr_assert_eq(cmdsn, memory->next, "CmdSN %u, not %u, in %s", cmdsn, memory->next,
		    name_of(&pdu, i));
		memory->next += !(pdu.header[0] & IMMEDIATE);
	}
}

void rule_windows_are_kept(struct script_target *target)
{
	struct memory {
		uint32_t max;
		bool known;
	} memories[CONNECTIONS] = {0}, *memory;
	struct script_traffic pdu;

	EACH_PDU(target, pdu, i, memory)
	{
		uint32_t expected = get_be32(pdu.header + 28), max = get_be32(pdu.header + 32);

		if (!pdu.to_target) {
			if (is_after(expected - 1, max))
				continue; /* to be ignored */
			if (!memory->known || is_after(max, memory->max))
				memory->max = max;
			memory->known = true;
		} else if (takes_a_turn(&pdu) && !(pdu.header[0] & IMMEDIATE)) {
			cr_assert(
			    memory->known && !is_after(get_be32(pdu.header + 24), memory->max),
			    "MaxCmdSN is %u, but here comes %s", memory->max, name_of(&pdu, i));
		}
	}
}

/* ---- StatSN ---- */

static bool has_its_own_statsn(const struct script_traffic *pdu)
{
	switch (opcode_of(pdu)) {
	case DATA_IN:
		return pdu->header[1] & 0x01;
	case NOP_IN:
		return get_be32(pdu->header + 16) != NO_TAG;
	case R2T:
		return false;
	default:
		return true;
	}
}

static void must_acknowledge(struct script_target *target, unsigned exactly_from)
{
	struct memory {
		uint32_t next;
		bool known;
	} memories[CONNECTIONS] = {0}, *memory;
	struct script_traffic pdu;

	EACH_PDU(target, pdu, i, memory)
	{
		uint32_t expected = get_be32(pdu.header + 28);

		if (!pdu.to_target && has_its_own_statsn(&pdu)) {
			memory->next = get_be32(pdu.header + 24) + 1;
			memory->known = true;
		} else if (pdu.to_target && memory->known) {
			cr_assert(!is_after(expected, memory->next),
			    "ExpStatSN %u, but %u was never sent: %s", expected, memory->next,
			    name_of(&pdu, i));
			cr_assert(i < exactly_from || expected == memory->next,
			    "ExpStatSN %u, not %u: %s", expected, memory->next, name_of(&pdu, i));
		}
	}
}

void rule_nothing_is_acknowledged_ahead(struct script_target *target)
{
	must_acknowledge(target, UINT_MAX);
}

void rule_all_is_acknowledged(struct script_target *target, unsigned from)
{
	must_acknowledge(target, from);
}

/* ---- tags ---- */

static bool ends_a_task(const struct script_traffic *pdu)
{
	switch (opcode_of(pdu)) {
	case DATA_IN:
		return pdu->header[1] & 0x01;
	case R2T:
	case ASYNC:
		return false;
	default:
		return true;
	}
}

void rule_tags_are_unique(struct script_target *target)
{
	g_autoptr(GHashTable) used =
	    g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	struct script_traffic pdu;

	for (unsigned i = 0; script_traffic_get(target, i, &pdu); i++) {
		uint32_t itt = get_be32(pdu.header + 16);
		gint64 key = (gint64)pdu.connection << 32 | itt;
		uint8_t opcode = opcode_of(&pdu);

		if (!pdu.to_target) {
			if (ends_a_task(&pdu))
				g_hash_table_remove(used, &key);
			continue;
		}
		if (opcode == DATA_OUT || (opcode == NOP_OUT && itt == NO_TAG))
			continue;
		cr_assert_neq(itt, NO_TAG, "a reserved tag: %s", name_of(&pdu, i));
		bool fresh = g_hash_table_add(used, g_memdup2(&key, sizeof(key)));
		/* all requests of a login have one */
		cr_assert(fresh || opcode == LOGIN, "a tag in use: %s", name_of(&pdu, i));
	}
}

/* ---- fields ---- */

static bool is_clean(const struct script_traffic *pdu)
{
	const uint8_t *header = pdu->header;

	if ((header[0] & 0x80) || header[4] != 0)
		return false;
	switch (opcode_of(pdu)) {
	case NOP_OUT:
		return header[1] == FINAL && is_zero(header, 2, 4) && is_zero(header, 32, 48);
	case SCSI_COMMAND:
		return !(header[1] & 0x18) && is_zero(header, 2, 4);
	case MANAGEMENT:
		return (header[1] & FINAL) && is_zero(header, 2, 8) && is_zero(header, 40, 48);
	case DATA_OUT:
		return !(header[0] & IMMEDIATE) && !(header[1] & 0x7f) && is_zero(header, 2, 4) &&
		       is_zero(header, 24, 28) && is_zero(header, 32, 36) &&
		       is_zero(header, 44, 48);
	case LOGOUT:
		return (header[1] & FINAL) && is_zero(header, 2, 16) && is_zero(header, 22, 24) &&
		       is_zero(header, 32, 48);
	case 0x10: /* SNACK: there is nothing to recover by it where ErrorRecoveryLevel=0 */
		return false;
	default:
		return true;
	}
}

void rule_reserved_fields_are_zero(struct script_target *target)
{
	struct script_traffic pdu;

	for (unsigned i = 0; script_traffic_get(target, i, &pdu); i++)
		cr_assert(!pdu.to_target || is_clean(&pdu), "a reserved field is not 0: %s",
		    name_of(&pdu, i));
}

/* ---- SCSI commands ---- */

static bool transfer_of(const uint8_t *cdb, uint32_t *length)
{
	switch (cdb[0]) {
	case 0x00: /* TEST UNIT READY */
	case 0x35: /* SYNCHRONIZE CACHE */
	case 0x91:
		*length = 0;
		return true;
	case 0x12: /* INQUIRY */
		*length = get_be16(cdb + 3);
		return true;
	case 0x1a: /* MODE SENSE */
		*length = cdb[4];
		return true;
	case 0x5a:
		*length = get_be16(cdb + 7);
		return true;
	case 0x25: /* READ CAPACITY (10) */
		*length = 8;
		return true;
	case 0x9e: /* READ CAPACITY (16) */
	case 0xa0: /* REPORT LUNS */
		*length = get_be32(cdb + (cdb[0] == 0xa0 ? 6 : 10));
		return true;
	case 0x28: /* READ and WRITE, of 512-byte blocks */
	case 0x2a:
		*length = 512u * get_be16(cdb + 7);
		return true;
	case 0x88:
	case 0x8a:
		*length = 512u * get_be32(cdb + 10);
		return true;
	default:
		return false;
	}
}

static unsigned cdb_length(uint8_t opcode)
{
	return opcode < 0x20 ? 6 : opcode < 0x60 ? 10 : opcode < 0xa0 ? 16 : 12;
}

void rule_commands_are_framed(struct script_target *target)
{
	struct script_traffic pdu;
	uint32_t length;

	for (unsigned i = 0; script_traffic_get(target, i, &pdu); i++) {
		const uint8_t *header = pdu.header, *cdb = header + 32;

		if (!pdu.to_target || opcode_of(&pdu) != SCSI_COMMAND)
			continue;
		bool writes = cdb[0] == 0x2a || cdb[0] == 0x8a;
		if (transfer_of(cdb, &length)) {
			cr_assert_eq(get_be32(header + 20), length, "%u bytes expected of %u: %s",
			    get_be32(header + 20), length, name_of(&pdu, i));
			cr_assert_eq(header[1] & 0x60,
			    length == 0 ? 0
			    : writes    ? 0x20
			                : 0x40,
			    "R and W are not right: %s", name_of(&pdu, i));
		}
		cr_assert((header[1] & FINAL) || (header[1] & 0x20), "no F: %s", name_of(&pdu, i));
		cr_assert_leq(header[1] & 0x07, 4, "no such task attribute: %s", name_of(&pdu, i));
		cr_assert(is_zero(cdb, cdb_length(cdb[0]), 16), "no zeros behind the CDB: %s",
		    name_of(&pdu, i));
		/* single level: peripheral, or flat (SAM-5, 4.7) */
		cr_assert((header[8] & 0xc0) == 0x40 || header[8] == 0, "no such LUN: %s",
		    name_of(&pdu, i));
		cr_assert(is_zero(header, 10, 16), "more levels in the LUN: %s", name_of(&pdu, i));
	}
}

/* ---- Data-Out ---- */

/* A sequence that is under way: what comes next, and where it ends. */
struct sequence {
	uint32_t tag, at, end, datasn;
};

struct writing {
	uint8_t lun[8];
	uint32_t length;
	struct sequence unsolicited; /* it is over where at == end */
	GArray *asked;               /* of struct sequence */
};

static void writing_free(void *data)
{
	struct writing *writing = data;

	g_array_unref(writing->asked);
	g_free(writing);
}

static struct writing *writing_new(
    const struct script_traffic *pdu, const struct rule_limits *limits, const char *name)
{
	struct writing *writing = g_new0(struct writing, 1);
	uint32_t length = get_be32(pdu->header + 20);
	uint32_t first = MIN(limits->first_burst, length);
	bool final = pdu->header[1] & FINAL;

	memcpy(writing->lun, pdu->header + 8, 8);
	writing->length = length;
	writing->asked = g_array_new(FALSE, FALSE, sizeof(struct sequence));
	cr_assert(!limits->no_immediate_data || pdu->length == 0, "immediate data: %s", name);
	cr_assert(!limits->initial_r2t || final, "no F where InitialR2T=Yes: %s", name);
	cr_assert_leq(pdu->length, first, "more than FirstBurstLength: %s", name);
	cr_assert_leq(pdu->length, limits->receive_segment, "a long segment: %s", name);
	cr_assert(final || pdu->length < first, "no F, but there is nothing to follow: %s", name);
	writing->unsolicited =
	    (struct sequence){NO_TAG, pdu->length, final ? pdu->length : first, 0};
	return writing;
}

static struct sequence *sequence_of(struct writing *writing, uint32_t tag)
{
	if (tag == NO_TAG)
		return &writing->unsolicited;
	for (guint i = 0; i < writing->asked->len; i++) {
		struct sequence *one = &g_array_index(writing->asked, struct sequence, i);

		if (one->tag == tag)
			return one;
	}
	return NULL;
}

static void must_be_in_sequence(
    struct writing *writing, const struct script_traffic *pdu, uint32_t limit, const char *name)
{
	struct sequence *sequence = sequence_of(writing, get_be32(pdu->header + 20));
	bool final = pdu->header[1] & FINAL;

	cr_assert(sequence != NULL, "a tag that no R2T had: %s", name);
	cr_assert(sequence->at < sequence->end, "behind the end of its sequence: %s", name);
	cr_assert_eq(get_be32(pdu->header + 36), sequence->datasn, "DataSN is to be %u: %s",
	    sequence->datasn, name);
	cr_assert_eq(get_be32(pdu->header + 40), sequence->at, "the offset is to be %u: %s",
	    sequence->at, name);
	cr_assert_leq(pdu->length, sequence->end - sequence->at, "more than asked for: %s", name);
	cr_assert_leq(pdu->length, limit, "a long segment: %s", name);
	cr_assert_gt(pdu->length, 0, "no data: %s", name);
	sequence->at += pdu->length;
	sequence->datasn++;
	cr_assert_eq(final, sequence->at == sequence->end, "F is not right: %s", name);
	/* where there is no Target Transfer Tag the LUN is reserved; zeros and the LUN are seen */
	if (sequence->tag != NO_TAG)
		cr_assert_arr_eq(pdu->header + 8, writing->lun, 8, "another LUN: %s", name);
}

static void note_r2t(struct writing *writing, const uint8_t *header)
{
	uint32_t at = get_be32(header + 40);
	struct sequence asked = {get_be32(header + 20), at, at + get_be32(header + 44), 0};

	g_array_append_val(writing->asked, asked);
}

/* All that was asked for came before the GOOD, or the target is to blame. */
static void must_be_whole(const struct writing *writing, const char *name)
{
	cr_assert_eq(writing->unsolicited.at, writing->unsolicited.end,
	    "unsolicited data without end: %s", name);
}

void rule_data_out_is_framed(struct script_target *target, const struct rule_limits *limits)
{
	g_autoptr(GHashTable) writings =
	    g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, writing_free);
	struct script_traffic pdu;

	for (unsigned i = 0; script_traffic_get(target, i, &pdu); i++) {
		gint64 key = (gint64)pdu.connection << 32 | get_be32(pdu.header + 16);
		struct writing *writing = g_hash_table_lookup(writings, &key);
		const char *name = name_of(&pdu, i);

		if (pdu.to_target && opcode_of(&pdu) == DATA_OUT) {
			cr_assert(writing != NULL, "Data-Out for no command: %s", name);
			must_be_in_sequence(writing, &pdu, limits->receive_segment, name);
		} else if (pdu.to_target && opcode_of(&pdu) == SCSI_COMMAND &&
		           (pdu.header[1] & 0x20)) {
			g_hash_table_insert(writings, g_memdup2(&key, sizeof(key)),
			    writing_new(&pdu, limits, name));
		} else if (pdu.to_target && opcode_of(&pdu) == SCSI_COMMAND) {
			cr_assert_eq(pdu.length, 0, "data with it: %s", name);
		} else if (!pdu.to_target && writing && opcode_of(&pdu) == R2T) {
			note_r2t(writing, pdu.header);
		} else if (!pdu.to_target && writing && opcode_of(&pdu) == SCSI_RESPONSE) {
			must_be_whole(writing, name);
			g_hash_table_remove(writings, &key);
		}
	}
}
