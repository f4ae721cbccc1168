/*
 * scripted_port.c - a target made of memory and a script.
 *
 * Invariant: a command from execute() to done() is in exactly one of answered and held.
 */
#include "support/scripted_port.h"

#include <errno.h>
#include <string.h>

static const struct sense invalid_opcode = {SENSE_ILLEGAL_REQUEST, 0x20, 0};
static const struct sense invalid_field = {SENSE_ILLEGAL_REQUEST, 0x24, 0};
static const struct sense no_such_unit = {SENSE_ILLEGAL_REQUEST, 0x25, 0};

/* ---- answers ---- */

void scripted_lun_answer(struct scripted_lun *lun, uint32_t key, const void *data, size_t size)
{
	if (size)
		g_hash_table_insert(lun->answers, GUINT_TO_POINTER(key), g_bytes_new(data, size));
	else
		g_hash_table_remove(lun->answers, GUINT_TO_POINTER(key));
}

uint8_t *scripted_lun_get(struct scripted_lun *lun, uint32_t key, size_t *size)
{
	GBytes *bytes = g_hash_table_lookup(lun->answers, GUINT_TO_POINTER(key));

	return g_memdup2(g_bytes_get_data(bytes, size), g_bytes_get_size(bytes));
}

static void lun_answer_inquiries(struct scripted_lun *lun, uint16_t number)
{
	uint8_t inquiry[36] = {lun->type, 0, 5, 2, 31};
	uint8_t serial[12] = {lun->type, 0x80, 0, 7};
	uint8_t wwid[16] = {lun->type, 0x83, 0, 12, 1, 3, 0, 8, 0x50, 1, 4, 5};

	memcpy(inquiry + 8, "LUNFS   SCRIPTED DISK   0001", 28);
	scripted_lun_answer(lun, SCRIPTED_INQUIRY, inquiry, sizeof inquiry);
	scripted_lun_answer(
	    lun, SCRIPTED_VPD(0), (uint8_t[]){lun->type, 0, 0, 5, 0, 0x80, 0x83, 0xb0, 0xb2}, 9);
	g_snprintf((char *)serial + 4, 8, "SN%05u", number);
	scripted_lun_answer(lun, SCRIPTED_VPD(0x80), serial, 11);
	put_be16(wwid + 14, number);
	scripted_lun_answer(lun, SCRIPTED_VPD(0x83), wwid, sizeof wwid);
	scripted_lun_answer(lun, SCRIPTED_VPD(0xb0), (uint8_t[64]){lun->type, 0xb0, 0, 60}, 64);
	scripted_lun_answer(lun, SCRIPTED_VPD(0xb2), (uint8_t[8]){lun->type, 0xb2, 0, 4}, 8);
}

static void lun_answer_capacity(struct scripted_lun *lun)
{
	uint8_t capacity_16[32] = {0}, capacity_10[8] = {0};
	uint64_t last = lun->blocks - 1;

	put_be64(capacity_16, last);
	put_be32(capacity_16 + 8, lun->block_size);
	put_be32(capacity_10, (uint32_t)MIN(last, UINT32_MAX));
	put_be32(capacity_10 + 4, lun->block_size);
	scripted_lun_answer(lun, SCRIPTED_CAPACITY_16, capacity_16, sizeof capacity_16);
	scripted_lun_answer(lun, SCRIPTED_CAPACITY_10, capacity_10, sizeof capacity_10);
}

static void lun_answer_modes(struct scripted_lun *lun)
{
	uint8_t mode_6[24] = {23, 0, 0x10, 0, 0x08, 18, 0x04};
	uint8_t mode_10[28] = {0, 26, 0, 0x10, 0, 0, 0, 0, 0x08, 18, 0x04};

	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x08), mode_6, sizeof mode_6);
	scripted_lun_answer(lun, SCRIPTED_MODE_6(0x3f), mode_6, sizeof mode_6);
	scripted_lun_answer(lun, SCRIPTED_MODE_10(0x08), mode_10, sizeof mode_10);
}

static GHashTable *blocks_new(void)
{
	return g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
}

static struct scripted_lun *lun_new(
    uint16_t number, uint8_t type, uint32_t block_size, uint64_t blocks)
{
	struct scripted_lun *lun = g_new0(struct scripted_lun, 1);

	*lun = (struct scripted_lun){
	    .type = type,
	    .block_size = block_size,
	    .blocks = blocks,
	    .answers = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_bytes_unref),
	    .cache = blocks_new(),
	    .medium = blocks_new(),
	};
	lun_answer_inquiries(lun, number);
	lun_answer_capacity(lun);
	lun_answer_modes(lun);
	return lun;
}

/* REPORT LUNS goes to the first unit there is, whatever its number. */
static struct scripted_lun *port_first_lun(const struct scripted_port *port)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(port->luns); i++)
		if (port->luns[i])
			return port->luns[i];
	return NULL;
}

static void port_answer_report_luns(struct scripted_port *port)
{
	g_autoptr(GByteArray) list = g_byte_array_new();
	uint8_t entry[8] = {0};

	g_byte_array_append(list, entry, 8);
	for (unsigned i = 0; i < G_N_ELEMENTS(port->luns); i++) {
		if (!port->luns[i])
			continue;
		put_be16(entry, (uint16_t)(i < 256 ? i : 0x4000 | i));
		g_byte_array_append(list, entry, 8);
	}
	put_be32(list->data, list->len - 8);
	scripted_lun_answer(port_first_lun(port), SCRIPTED_REPORT_LUNS, list->data, list->len);
}

struct scripted_lun *scripted_port_add(
    struct scripted_port *port, uint16_t number, uint8_t type, uint32_t block_size, uint64_t blocks)
{
	port->luns[number] = lun_new(number, type, block_size, blocks);
	port_answer_report_luns(port);
	return port->luns[number];
}

/* ---- executing ---- */

static void command_refuse(struct scsi_command *command, struct sense sense)
{
	command->status = SAM_CHECK_CONDITION;
	command->sense = sense;
}

static uint8_t *iov_byte(const struct scsi_command *command, size_t at)
{
	for (int i = 0; i < command->niov; i++) {
		if (at < command->iov[i].iov_len)
			return (uint8_t *)command->iov[i].iov_base + at;
		at -= command->iov[i].iov_len;
	}
	g_assert_not_reached();
}

static uint32_t answer_key(const uint8_t *cdb)
{
	uint32_t opcode = (uint32_t)cdb[0] << 16;

	switch (cdb[0]) {
	case 0x12:
		return cdb[1] & 1 ? SCRIPTED_VPD(cdb[2]) : opcode;
	case 0x1a:
	case 0x5a:
		return opcode | (cdb[2] & 0x3f);
	case 0x9e:
		return opcode | cdb[1];
	default:
		return opcode;
	}
}

static void command_damage(struct scripted_port *port, struct scsi_command *command)
{
	GRand *rand = port->mutate;

	if (command->received == 0)
		return;
	for (int i = g_rand_int_range(rand, 0, 6); i > 0; i--) {
		uint32_t at = (uint32_t)g_rand_int_range(rand, 0, (gint32)command->received);

		*iov_byte(command, at) = (uint8_t)(g_rand_boolean(rand) ? 0xff : g_rand_int(rand));
	}
	if (g_rand_int_range(rand, 0, 4) == 0)
		command->received =
		    (uint32_t)g_rand_int_range(rand, 0, (gint32)command->received + 1);
	if (g_rand_int_range(rand, 0, 30) == 0)
		command_refuse(command, (struct sense){(uint8_t)g_rand_int_range(rand, 0, 16),
		                            (uint8_t)g_rand_int(rand), (uint8_t)g_rand_int(rand)});
}

static void command_answer(
    struct scripted_port *port, struct scripted_lun *lun, struct scsi_command *command)
{
	GBytes *bytes =
	    g_hash_table_lookup(lun->answers, GUINT_TO_POINTER(answer_key(command->cdb)));
	const uint8_t *data;
	size_t size;

	if (!bytes) {
		bool page = command->cdb[0] == 0x12 || command->cdb[0] == 0x1a;

		command_refuse(command, page ? invalid_field : invalid_opcode);
		return;
	}
	data = g_bytes_get_data(bytes, &size);
	for (size_t i = 0; i < MIN(size, command->length); i++)
		*iov_byte(command, i) = data[i];
	command->received = (uint32_t)MIN(size, command->length);
	if (port->mutate)
		command_damage(port, command);
}

static uint64_t cdb_lba(const uint8_t *cdb)
{
	return cdb[0] < 0x80 ? get_be32(cdb + 2) : get_be64(cdb + 2);
}

static uint32_t cdb_blocks(const uint8_t *cdb)
{
	return cdb[0] < 0x80 ? get_be16(cdb + 7) : get_be32(cdb + 10);
}

static void block_put(GHashTable *table, uint64_t lba, uint8_t *block)
{
	g_hash_table_replace(table, g_memdup2(&lba, sizeof lba), block);
}

const uint8_t *scripted_lun_block(const struct scripted_lun *lun, uint64_t lba, bool medium_only)
{
	const uint8_t *block = medium_only ? NULL : g_hash_table_lookup(lun->cache, &lba);

	return block ? block : g_hash_table_lookup(lun->medium, &lba);
}

static void lun_read(struct scripted_lun *lun, struct scsi_command *command)
{
	uint64_t lba = cdb_lba(command->cdb);

	g_assert_cmpuint(command->length, ==, cdb_blocks(command->cdb) * lun->block_size);
	for (uint32_t i = 0; i < command->length; i++) {
		const uint8_t *block = scripted_lun_block(lun, lba + i / lun->block_size, false);

		*iov_byte(command, i) = block ? block[i % lun->block_size] : 0;
	}
	command->received = command->length;
}

static void lun_write(struct scripted_lun *lun, struct scsi_command *command)
{
	uint64_t lba = cdb_lba(command->cdb);
	uint32_t blocks = cdb_blocks(command->cdb);
	bool same = command->cdb[0] == 0x93, fua = !same && (command->cdb[1] & 0x08);

	g_assert_cmpuint(command->length, ==, (same ? 1 : blocks) * lun->block_size);
	for (uint32_t i = 0; i < blocks; i++) {
		uint64_t at = lba + i;
		uint8_t *block = g_malloc(lun->block_size);

		for (uint32_t b = 0; b < lun->block_size; b++)
			block[b] = *iov_byte(command, (same ? 0 : i * lun->block_size) + b);
		if (fua)
			g_hash_table_remove(lun->cache, &at);
		block_put(fua ? lun->medium : lun->cache, at, block);
	}
}

static void lun_synchronize(struct scripted_lun *lun)
{
	GHashTableIter iter;
	gpointer lba, block;

	g_hash_table_iter_init(&iter, lun->cache);
	while (g_hash_table_iter_next(&iter, &lba, &block)) {
		g_hash_table_iter_steal(&iter);
		g_hash_table_replace(lun->medium, lba, block);
	}
}

static void command_run(struct scripted_port *port, struct scsi_command *command)
{
	struct scripted_lun *lun =
	    command->lun < G_N_ELEMENTS(port->luns) ? port->luns[command->lun] : NULL;
	uint8_t opcode = command->cdb[0];

	if (opcode == 0xa0)
		lun = port_first_lun(port);
	if (!lun) {
		command_refuse(command, opcode == 0xa0 ? invalid_opcode : no_such_unit);
		return;
	}
	switch (opcode) {
	case 0x00:
		break;
	case 0x28:
	case 0x88:
	case 0x2a:
	case 0x8a:
	case 0x93:
		if (cdb_lba(command->cdb) + cdb_blocks(command->cdb) > lun->blocks)
			command_refuse(command, (struct sense){SENSE_ILLEGAL_REQUEST, 0x21, 0});
		else if (command->direction == SCSI_DATA_IN)
			lun_read(lun, command);
		else
			lun_write(lun, command);
		break;
	case 0x35:
	case 0x91:
		lun_synchronize(lun);
		break;
	default:
		command_answer(port, lun, command);
	}
}

/* ---- the port ---- */

static void port_answer(struct scripted_port *port, struct scsi_command *command)
{
	g_queue_push_tail(&port->answered, command);
	loop_defer(port->loop, &port->work);
}

static void port_deliver(struct loop_work *work)
{
	struct scripted_port *port =
	    (struct scripted_port *)((char *)work - offsetof(struct scripted_port, work));
	struct scsi_command *command;

	for (guint n = port->answered.length; n > 0; n--) {
		command = g_queue_pop_head(&port->answered);
		port->outstanding--;
		command->done(command);
	}
	if (port->answered.length)
		loop_defer(port->loop, &port->work);
}

static struct scripted_rule *port_find_rule(
    struct scripted_port *port, const struct scsi_command *command)
{
	for (guint i = 0; i < port->rules->len; i++) {
		struct scripted_rule *rule = &g_array_index(port->rules, struct scripted_rule, i);

		if (rule->opcode >= 0 && rule->opcode != command->cdb[0])
			continue;
		if (rule->skip) {
			rule->skip--;
			continue;
		}
		return rule;
	}
	return NULL;
}

static void port_record(struct scripted_port *port, const struct scsi_command *command)
{
	struct scripted_seen seen = {
	    .cdb_length = command->cdb_length,
	    .lun = command->lun,
	    .length = command->length,
	    .niov = (unsigned)command->niov,
	    .timeout_ms = command->timeout_ms,
	    .exact = command->exact,
	    .replay = command->replay,
	    .cancelled = command->cancelled,
	    .at_ms = clock_ms(),
	};

	memcpy(seen.cdb, command->cdb, sizeof seen.cdb);
	g_array_append_val(port->seen, seen);
}

static void port_execute(struct scsi_port *base, struct scsi_command *command)
{
	struct scripted_port *port = (struct scripted_port *)base;
	struct scripted_rule *match, rule = {0};

	port_record(port, command);
	command->error = 0;
	command->timed_out = false;
	port->outstanding++;
	port->most_outstanding = MAX(port->most_outstanding, port->outstanding);
	match = port_find_rule(port, command);
	if (match) {
		rule = *match;
		if (match->times && --match->times == 0)
			g_array_remove_index(port->rules,
			    (guint)(match - (struct scripted_rule *)(void *)port->rules->data));
	}
	if (port->away) {
		command->error = -ESTALE;
	} else if (rule.hold) {
		g_ptr_array_add(port->held, command);
		command->port_data = NULL;
		return;
	} else if (rule.error || rule.status) {
		command->error = rule.error;
		command->timed_out = rule.timed_out;
		command->status = rule.status;
		command->sense = rule.sense;
		command->deferred = rule.deferred;
	} else {
		command_run(port, command);
	}
	if (rule.done_but_held) {
		command->port_data = port; /* done */
		g_ptr_array_add(port->held, command);
		return;
	}
	port_answer(port, command);
}

void scripted_port_release(struct scripted_port *port, unsigned index)
{
	struct scsi_command *command = g_ptr_array_remove_index(port->held, index);

	if (!command->port_data)
		command_run(port, command);
	port_answer(port, command);
}

void scripted_port_return(struct scripted_port *port, unsigned index, bool timed_out)
{
	struct scsi_command *command = g_ptr_array_remove_index(port->held, index);

	command->error = -ESTALE;
	command->timed_out = timed_out;
	port_answer(port, command);
}

void scripted_port_lose(struct scripted_port *port)
{
	port->away = true;
	for (GList *each = port->answered.head; each; each = each->next)
		((struct scsi_command *)each->data)->error = -ESTALE;
	while (port->held->len)
		scripted_port_return(port, 0, false);
}

void scripted_port_forget(struct scripted_port *port, uint16_t lun)
{
	g_hash_table_remove_all(port->luns[lun]->cache);
}

void scripted_port_rule(struct scripted_port *port, struct scripted_rule rule)
{
	g_array_append_val(port->rules, rule);
}

void scripted_port_sense(struct scripted_port *port, int opcode, unsigned times, struct sense sense)
{
	scripted_port_rule(port,
	    (struct scripted_rule){
	        .opcode = opcode, .times = times, .status = SAM_CHECK_CONDITION, .sense = sense});
}

const struct scripted_seen *scripted_port_nth(
    const struct scripted_port *port, uint8_t opcode, unsigned n)
{
	for (guint i = 0; i < port->seen->len; i++) {
		const struct scripted_seen *seen =
		    &g_array_index(port->seen, struct scripted_seen, i);

		if (seen->cdb[0] == opcode && n-- == 0)
			return seen;
	}
	return NULL;
}

unsigned scripted_port_count(const struct scripted_port *port, uint8_t opcode)
{
	unsigned count = 0;

	while (scripted_port_nth(port, opcode, count))
		count++;
	return count;
}

struct scripted_port *scripted_port_new(struct loop *loop)
{
	static const struct scsi_port_ops ops = {.execute = port_execute};
	struct scripted_port *port = g_new0(struct scripted_port, 1);

	port->port.ops = &ops;
	port->loop = loop;
	port->rules = g_array_new(FALSE, TRUE, sizeof(struct scripted_rule));
	port->seen = g_array_new(FALSE, TRUE, sizeof(struct scripted_seen));
	port->held = g_ptr_array_new();
	g_queue_init(&port->answered);
	port->work.run = port_deliver;
	return port;
}

void scripted_port_free(struct scripted_port *port)
{
	loop_cancel(port->loop, &port->work);
	for (unsigned i = 0; i < G_N_ELEMENTS(port->luns); i++) {
		if (!port->luns[i])
			continue;
		g_hash_table_unref(port->luns[i]->answers);
		g_hash_table_unref(port->luns[i]->cache);
		g_hash_table_unref(port->luns[i]->medium);
		g_free(port->luns[i]);
	}
	g_array_unref(port->rules);
	g_array_unref(port->seen);
	g_ptr_array_unref(port->held);
	g_queue_clear(&port->answered);
	g_clear_pointer(&port->mutate, g_rand_free);
	g_free(port);
}
