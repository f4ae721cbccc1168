/*
 * edit.c - the edits of a script (target.h); those of text are in edit_text.c.
 *
 * One record for each PDU: a byte that names the edit, with its highest bit for "and another one on
 * this PDU", and the edit's arguments. What the script lacks at its end reads as 0. Padding and
 * digest are made last, and right, unless the record says otherwise: a header that libiscsi throws
 * away at once would hide what lies behind it.
 */
#include "edit_internal.h"

#include <string.h>
#include <sys/socket.h>

#include "lunfs/scsi.h"
#include "world.h"

#define ANOTHER     0x80
#define OUTBOX_MOST (4u << 20)

/* ---- reading the script ---- */

uint8_t script_byte(struct script *script)
{
	return script->at < script->end ? *script->at++ : 0;
}

uint16_t script_word(struct script *script)
{
	uint16_t high = script_byte(script);

	return (uint16_t)(high << 8 | script_byte(script));
}

static uint32_t script_long(struct script *script)
{
	uint32_t high = script_word(script);

	return high << 16 | script_word(script);
}

/* Up to 255 bytes of the script, in place. */
static const uint8_t *script_bytes(struct script *script, size_t *length)
{
	const uint8_t *bytes;

	*length = script_byte(script);
	*length = MIN(*length, (size_t)(script->end - script->at));
	bytes = script->at;
	script->at += *length;
	return bytes;
}

void script_heard(struct script *script, const uint8_t *request)
{
	script->itt = get_be32(request + 16);
	script->length = get_be32(request + 20);
}

void script_clear(struct script *script)
{
	g_clear_pointer(&script->held, g_byte_array_unref);
	g_clear_pointer(&script->rest, g_byte_array_unref);
}

/* ---- the way out ---- */

static uint32_t crc32c_of(const uint8_t *data, size_t size)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < size; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void draft_send(const struct draft *draft)
{
	GByteArray *bytes = draft->outbox->bytes, *pdu = draft->pdu;
	guint start = bytes->len;
	uint32_t length = pdu->len - PDU_HEADER;
	uint8_t digest[4];

	if (bytes->len + pdu->len > OUTBOX_MOST)
		return;
	if (draft->declared != 0)
		put_be32(pdu->data + 4,
		    (uint32_t)pdu->data[4] << 24 | ((draft->declared - 1) & 0xffffff));
	g_byte_array_append(bytes, pdu->data, PDU_HEADER);
	if (draft->digest) {
		uint32_t crc = crc32c_of(pdu->data, PDU_HEADER) ^ draft->bad_digest;
		for (int i = 0; i < 4; i++)
			digest[i] = (uint8_t)(crc >> 8 * i);
		g_byte_array_append(bytes, digest, 4);
	}
	g_byte_array_append(bytes, pdu->data + PDU_HEADER, length);
	if (!draft->no_padding)
		g_byte_array_append(bytes, (const guint8 *)"\xff\xff\xff", -length & 3);
	if (draft->cut != 0 && bytes->len - start > draft->cut - 1)
		g_byte_array_set_size(bytes, start + draft->cut - 1);
}

void outbox_init(struct outbox *outbox)
{
	*outbox = (struct outbox){.bytes = g_byte_array_new()};
}

void outbox_clear(struct outbox *outbox)
{
	g_byte_array_set_size(outbox->bytes, 0);
	outbox->due_us = 0;
	outbox->piece = 0;
	outbox->closes = false;
}

bool outbox_send(struct outbox *outbox, int fd, int64_t now_us)
{
	size_t length = outbox->bytes->len;
	ssize_t n;

	if (length == 0 || outbox->due_us > now_us)
		return false;
	if (outbox->piece != 0)
		length = MIN(length, outbox->piece);
	n = send(fd, outbox->bytes->data, length, MSG_NOSIGNAL);
	if (n <= 0)
		return false;
	g_byte_array_remove_range(outbox->bytes, 0, (guint)n);
	outbox->piece = outbox->piece < 256 ? outbox->piece * 2 : 0; /* the first pieces matter */
	return true;
}

/* ---- edits of a header ---- */

static void edit_byte(struct draft *draft)
{
	uint8_t at = script_byte(draft->script), value = script_byte(draft->script);

	draft->pdu->data[at % PDU_HEADER] = value;
}

static void edit_flip(struct draft *draft)
{
	uint8_t bit = script_byte(draft->script), at = script_byte(draft->script);

	draft->pdu->data[at % PDU_HEADER] ^= (uint8_t)(1 << (bit & 7));
}

/* A field of four bytes: to a value, or by a difference. */
static void edit_field(struct draft *draft)
{
	uint8_t which = script_byte(draft->script);
	uint8_t *field = draft->pdu->data + 4 * (which % 12);
	uint32_t old = get_be32(field);

	switch (which >> 6) {
	case 0:
		put_be32(field, script_long(draft->script));
		break;
	case 1:
		put_be32(field, old + (uint32_t)(int8_t)script_byte(draft->script));
		break;
	case 2: {
		static const uint32_t edges[] = {0, 1, 511, 512, 0x7fffffff, 0x80000000, 0xfffffffe,
		    UINT32_MAX, 262144, 262145, 0xffffff, 0x10000, 4095, 1024, 0x7fffff,
		    0xfffffe00};
		put_be32(field, edges[script_byte(draft->script) % G_N_ELEMENTS(edges)]);
		break;
	}
	default:
		put_be32(
		    field, draft->script->length + (uint32_t)(int8_t)script_byte(draft->script));
		break;
	}
}

static void edit_status(struct draft *draft)
{
	draft->pdu->data[3] = script_byte(draft->script);
	draft->pdu->data[2] = script_byte(draft->script) & 1;
}

/* The class and detail of a login's status. */
static void edit_login_status(struct draft *draft)
{
	put_be16(draft->pdu->data + 36, script_word(draft->script));
}

/* A SCSI Response with sense data instead of what was to be sent. */
static void edit_sense(struct draft *draft)
{
	size_t length;
	uint8_t *header = draft->pdu->data;
	uint8_t status = script_byte(draft->script);
	const uint8_t *sense = script_bytes(draft->script, &length);

	header[0] = 0x21;
	header[1] = 0x80;
	header[2] = 0;
	header[3] = status;
	memset(header + 36, 0, 12);
	g_byte_array_set_size(draft->pdu, PDU_HEADER);
	g_byte_array_append(draft->pdu, sense, (guint)length);
	put_be32(draft->pdu->data + 4, (uint32_t)length);
}

/* The usual trouble, in two bytes: key and asc. */
static void edit_trouble(struct draft *draft)
{
	static const uint8_t statuses[] = {SAM_CHECK_CONDITION, SAM_BUSY, SAM_TASK_SET_FULL,
	    SAM_RESERVATION_CONFLICT, SAM_CONDITION_MET, SAM_ACA_ACTIVE, SAM_TASK_ABORTED,
	    SAM_GOOD};
	uint8_t which = script_byte(draft->script), asc = script_byte(draft->script);
	uint8_t sense[20] = {0, 18, 0x70, 0, which & 0x0f, [9] = 10, [14] = asc};
	uint8_t *header = draft->pdu->data;

	header[0] = 0x21;
	header[1] = 0x80;
	header[2] = 0;
	header[3] = statuses[which >> 4 & 7];
	sense[15] = asc == 0x2a || asc == 0x04 ? 1 : 0;
	memset(header + 36, 0, 12);
	g_byte_array_set_size(draft->pdu, PDU_HEADER);
	if (header[3] == SAM_CHECK_CONDITION)
		g_byte_array_append(draft->pdu, sense, sizeof sense);
	put_be32(draft->pdu->data + 4, draft->pdu->len - PDU_HEADER);
}

/* ---- edits of data ---- */

void draft_set_length(struct draft *draft)
{
	uint8_t *field = draft->pdu->data + 4;

	put_be32(field, (uint32_t)field[0] << 24 | (draft->pdu->len - PDU_HEADER));
}

static void edit_data_byte(struct draft *draft)
{
	uint16_t at = script_word(draft->script);
	uint8_t value = script_byte(draft->script);

	if (draft->pdu->len > PDU_HEADER)
		draft->pdu->data[PDU_HEADER + at % (draft->pdu->len - PDU_HEADER)] = value;
}

static void edit_data(struct draft *draft)
{
	size_t length;
	const uint8_t *bytes = script_bytes(draft->script, &length);

	g_byte_array_set_size(draft->pdu, PDU_HEADER);
	g_byte_array_append(draft->pdu, bytes, (guint)length);
	draft_set_length(draft);
}

static void edit_append(struct draft *draft)
{
	size_t length;
	const uint8_t *bytes = script_bytes(draft->script, &length);

	g_byte_array_append(draft->pdu, bytes, (guint)length);
	draft_set_length(draft);
}

/* The bytes many times over: long texts, many LUNs. */
static void edit_fill(struct draft *draft)
{
	size_t length;
	unsigned times = script_word(draft->script) % 1024;
	const uint8_t *bytes = script_bytes(draft->script, &length);

	while (times-- > 0 && draft->pdu->len < (300u << 10))
		g_byte_array_append(draft->pdu, bytes, (guint)length);
	draft_set_length(draft);
}

static void edit_shorten(struct draft *draft)
{
	uint16_t length = script_word(draft->script);

	if (draft->pdu->len > PDU_HEADER + length)
		g_byte_array_set_size(draft->pdu, PDU_HEADER + length);
	draft_set_length(draft);
}

static void edit_declare(struct draft *draft)
{
	draft->declared =
	    1 + (((uint32_t)script_byte(draft->script) << 16) | script_word(draft->script));
}

/* ---- edits of the way ---- */

static void edit_repeat(struct draft *draft)
{
	draft->copies = 1 + script_byte(draft->script) % 8;
}

static void edit_drop(struct draft *draft)
{
	draft->dropped = true;
}

static void edit_hold(struct draft *draft)
{
	draft->holds = true;
}

static void edit_cut(struct draft *draft)
{
	uint16_t at = script_word(draft->script);

	draft->cut = 1 + (at & 0x7fff);
	draft->outbox->closes |= (at & 0x8000) != 0;
}

static void edit_close(struct draft *draft)
{
	draft->outbox->closes = true;
}

static void edit_delay(struct draft *draft)
{
	int64_t ms = script_byte(draft->script) * 8;

	draft->outbox->due_us = MAX(draft->outbox->due_us, world_now_us()) + ms * 1000;
}

static void edit_pieces(struct draft *draft)
{
	draft->outbox->piece = 1 + script_byte(draft->script);
}

static void edit_framing(struct draft *draft)
{
	uint8_t how = script_byte(draft->script);

	draft->bad_digest = how & 1;
	draft->no_padding = how & 2;
}

/* ---- PDUs that nobody asked for ---- */

static void edit_insert_bytes(struct draft *draft)
{
	size_t length;
	const uint8_t *bytes = script_bytes(draft->script, &length);

	g_byte_array_append(draft->outbox->bytes, bytes, (guint)length);
}

static void extra_send(struct draft *draft, uint8_t *header, const void *data, size_t length)
{
	struct draft extra = {.outbox = draft->outbox,
	    .script = draft->script,
	    .pdu = g_byte_array_new(),
	    .digest = draft->digest};

	put_be32(header + 4, (uint32_t)length);
	memcpy(header + 24, draft->pdu->data + 24, 12); /* StatSN, ExpCmdSN, MaxCmdSN */
	g_byte_array_append(extra.pdu, header, PDU_HEADER);
	g_byte_array_append(extra.pdu, data, (guint)length);
	draft_send(&extra);
	g_byte_array_unref(extra.pdu);
}

static void edit_insert_nop(struct draft *draft)
{
	uint8_t header[PDU_HEADER] = {0x20, 0x80};

	memset(header + 16, 0xff, 4);
	put_be32(header + 20, script_long(draft->script));
	extra_send(draft, header, NULL, 0);
}

static void edit_insert_async(struct draft *draft)
{
	uint8_t header[PDU_HEADER] = {0x32, 0x80};

	memset(header + 16, 0xff, 4);
	header[36] = script_byte(draft->script);
	put_be16(header + 38, script_byte(draft->script));
	put_be16(header + 40, script_byte(draft->script));
	put_be16(header + 42, script_byte(draft->script));
	extra_send(draft, header, NULL, 0);
}

static void edit_insert_reject(struct draft *draft)
{
	uint8_t header[PDU_HEADER] = {0x3f, 0x80}, data[PDU_HEADER + 16] = {0x01, 0x80};
	uint8_t how = script_byte(draft->script);

	header[2] = how & 0x0f;
	memset(header + 16, 0xff, 4);
	put_be32(data + 16, draft->script->itt + (how & 0x10 ? 1 : 0));
	extra_send(draft, header, data,
	    how & 0x20 ? script_byte(draft->script) % sizeof data : PDU_HEADER);
}

/* An R2T, Data-In, Response or any other opcode for the last request, or for one near it. */
static void edit_insert_answer(struct draft *draft)
{
	static const uint8_t opcodes[] = {0x31, 0x25, 0x21, 0x20, 0x22, 0x23, 0x24, 0x26};
	uint8_t header[PDU_HEADER] = {0}, how = script_byte(draft->script);
	size_t length;
	const uint8_t *data;

	header[0] = opcodes[how & 7];
	header[1] = script_byte(draft->script);
	put_be32(header + 16, draft->script->itt + (how >> 3 & 3) - (how & 0x20 ? 2 : 0));
	put_be32(header + 20, how & 0x40 ? UINT32_MAX : 1);
	put_be32(header + 40, how & 0x80 ? script_long(draft->script) : script_byte(draft->script));
	put_be32(header + 44, how & 0x80 ? script_long(draft->script) : script_byte(draft->script));
	data = script_bytes(draft->script, &length);
	extra_send(draft, header, data, length);
}

/* An R2T to a WRITE before its answer. */
static void edit_insert_r2t(struct draft *draft)
{
	uint8_t header[PDU_HEADER] = {0x31, 0x80};

	put_be32(header + 16, draft->script->itt);
	put_be32(header + 20, 1);
	put_be32(header + 40, script_word(draft->script) * 64u);
	put_be32(header + 44, script_word(draft->script) * 64u);
	extra_send(draft, header, NULL, 0);
}

/* The data of a Data-In in pieces, the last with the status; their order and offsets as told. */
static void edit_scatter(struct draft *draft)
{
	GByteArray *pdu = draft->pdu;
	uint32_t size = 1 + script_word(draft->script), length = pdu->len - PDU_HEADER;
	uint8_t how = script_byte(draft->script);
	uint8_t header[PDU_HEADER];
	uint32_t parts = size ? (length + size - 1) / size : 0;

	if ((pdu->data[0] & 0x3f) != 0x25 || parts < 2 || parts > 64)
		return;
	for (uint32_t i = 0; i + 1 < parts; i++) {
		uint32_t part = how & 1 ? parts - 2 - i : i;
		if ((how & 2) && part == 0) /* a hole */
			continue;
		memcpy(header, pdu->data, PDU_HEADER);
		header[1] = 0;
		put_be32(header + 36, how & 4 ? 0 : part);
		put_be32(header + 40, part * size + (how & 8 ? script_byte(draft->script) : 0));
		extra_send(draft, header, pdu->data + PDU_HEADER + part * size, size);
	}
	put_be32(pdu->data + 36, parts - 1);
	put_be32(pdu->data + 40, (parts - 1) * size);
	g_byte_array_remove_range(pdu, PDU_HEADER, (parts - 1) * size);
	draft_set_length(draft);
}

static void edit_pass(struct draft *draft)
{
	draft->script->passes = script_byte(draft->script);
}

/* ---- the machine ---- */

/* The order is the corpus' language: new ones go to the end. */
static void (*const edits[])(struct draft *draft) = {
    edit_pass,
    edit_byte,
    edit_flip,
    edit_field,
    edit_status,
    edit_sense,
    edit_trouble,
    edit_data_byte,
    edit_data,
    edit_append,
    edit_fill,
    edit_shorten,
    edit_declare,
    edit_repeat,
    edit_drop,
    edit_hold,
    edit_cut,
    edit_close,
    edit_delay,
    edit_pieces,
    edit_framing,
    edit_insert_bytes,
    edit_insert_nop,
    edit_insert_async,
    edit_insert_reject,
    edit_insert_answer,
    edit_insert_r2t,
    edit_scatter,
    edit_login_status,
    edit_continue,
    edit_stay,
    edit_offer,
    edit_forms,
    edit_value,
    edit_redirect,
    edit_reflect,
};

/* What a correct target may do as well. */
static bool edit_is_lawful(void (*edit)(struct draft *draft))
{
	return edit == edit_pass || edit == edit_continue || edit == edit_stay ||
	       edit == edit_offer || edit == edit_forms;
}

static void draft_edit(struct draft *draft)
{
	struct script *script = draft->script;
	uint8_t which;

	script->keeps_open = false;
	if (script->passes > 0) {
		script->passes--;
		return;
	}
	do {
		if (script->at == script->end)
			return;
		which = script_byte(script);
		void (*edit)(struct draft *) = edits[(which & 0x7f) % G_N_ELEMENTS(edits)];
		script->edited |= !edit_is_lawful(edit);
		edit(draft);
	} while (which & ANOTHER);
}

void outbox_add(struct outbox *outbox, struct script *script, GByteArray *pdu, bool digest)
{
	struct draft draft = {
	    .outbox = outbox, .script = script, .pdu = pdu, .digest = digest, .copies = 1};
	GByteArray *held = g_steal_pointer(&script->held);

	draft_edit(&draft);
	if (draft.holds) {
		script->held = g_byte_array_ref(pdu);
	} else if (!draft.dropped) {
		for (unsigned i = 0; i < draft.copies; i++)
			draft_send(&draft);
	}
	g_byte_array_unref(pdu);
	if (held != NULL) {
		draft = (struct draft){
		    .outbox = outbox, .script = script, .pdu = held, .digest = digest};
		draft_send(&draft);
		g_byte_array_unref(held);
	}
}
