/*
 * script_traffic.c - the recorder of the scripted target and the hooks into its traffic.
 */
#include "support/script_internal.h"

#include <string.h>
#include <time.h>

#define KEPT_PDUS 200000u
#define KEPT_DATA 64u /* bytes of SCSI data */

struct script_hook {
	struct script_connection *connection;
};

/* ---- the recorder ---- */

static bool carries_scsi_data(uint8_t opcode)
{
	return opcode == OP_COMMAND || opcode == OP_DATA_OUT || opcode == OP_DATA_IN;
}

void traffic_note(struct script_connection *connection, bool to_target, const uint8_t *header,
    const uint8_t *data, uint32_t length)
{
	struct script_target *target = connection->target;
	uint32_t kept = carries_scsi_data(header[0] & 0x3f) ? MIN(length, KEPT_DATA) : length;
	struct script_traffic pdu = {.at_ms = script_now() - target->began_ms,
	    .connection = connection->index,
	    .to_target = to_target,
	    .length = length};

	if (target->traffic->len >= KEPT_PDUS)
		return;
	memcpy(pdu.header, header, BHS_SIZE);
	pdu.data = kept ? g_memdup2(data, kept) : NULL;
	g_array_append_val(target->traffic, pdu);
	pthread_cond_broadcast(&target->came);
}

void traffic_free(GArray *traffic)
{
	for (guint i = 0; i < traffic->len; i++) {
		union {
			const uint8_t *read;
			void *owned;
		} data = {g_array_index(traffic, struct script_traffic, i).data};

		g_free(data.owned);
	}
	g_array_unref(traffic);
}

static const struct script_traffic *nth(const struct script_target *target, unsigned i)
{
	return &g_array_index(target->traffic, struct script_traffic, i);
}

static bool is_like(const struct script_traffic *pdu, bool to_target, uint8_t opcode)
{
	return pdu->to_target == to_target && (pdu->header[0] & 0x3f) == opcode;
}

unsigned script_traffic_count(struct script_target *target)
{
	pthread_mutex_lock(&target->lock);
	unsigned count = target->traffic->len;
	pthread_mutex_unlock(&target->lock);
	return count;
}

bool script_traffic_get(struct script_target *target, unsigned i, struct script_traffic *pdu)
{
	pthread_mutex_lock(&target->lock);
	bool there = i < target->traffic->len;
	if (there)
		*pdu = *nth(target, i);
	pthread_mutex_unlock(&target->lock);
	return there;
}

bool script_traffic_find(struct script_target *target, unsigned *i, bool to_target, uint8_t opcode,
    struct script_traffic *pdu)
{
	while (script_traffic_get(target, *i, pdu)) {
		++*i;
		if (is_like(pdu, to_target, opcode))
			return true;
	}
	return false;
}

static unsigned count_like(const struct script_target *target, bool to_target, uint8_t opcode)
{
	unsigned count = 0;

	for (guint i = 0; i < target->traffic->len; i++)
		count += is_like(nth(target, i), to_target, opcode);
	return count;
}

bool script_traffic_await(
    struct script_target *target, bool to_target, uint8_t opcode, unsigned count, double seconds)
{
	struct timespec end;
	bool came;

	clock_gettime(CLOCK_REALTIME, &end);
	int64_t nanoseconds = end.tv_nsec + (int64_t)(seconds * 1e9);
	end.tv_sec += nanoseconds / 1000000000;
	end.tv_nsec = nanoseconds % 1000000000;
	pthread_mutex_lock(&target->lock);
	while (!(came = count_like(target, to_target, opcode) >= count))
		if (pthread_cond_timedwait(&target->came, &target->lock, &end) != 0)
			break;
	pthread_mutex_unlock(&target->lock);
	return came;
}

/* All text that went to the target in the connection. A key may be cut by C=1. */
static GString *text_of(const struct script_target *target, unsigned connection)
{
	GString *text = g_string_new(NULL);

	for (guint i = 0; i < target->traffic->len; i++) {
		const struct script_traffic *pdu = nth(target, i);

		if (pdu->connection == connection && pdu->length &&
		    (is_like(pdu, true, OP_LOGIN) || is_like(pdu, true, OP_TEXT)))
			g_string_append_len(text, (const char *)pdu->data, (gssize)pdu->length);
	}
	return text;
}

char *script_traffic_key(
    struct script_target *target, unsigned connection, const char *key, unsigned *times)
{
	size_t length = strlen(key);
	char *value = NULL;
	unsigned count = 0;

	pthread_mutex_lock(&target->lock);
	g_autoptr(GString) text = text_of(target, connection);
	pthread_mutex_unlock(&target->lock);
	for (size_t at = 0; at < text->len; at += strlen(text->str + at) + 1) {
		const char *pair = text->str + at;

		if (strncmp(pair, key, length) != 0 || pair[length] != '=')
			continue;
		count++;
		g_free(value);
		value = g_strdup(pair + length + 1);
	}
	if (times)
		*times = count;
	return value;
}

/* ---- hooks ---- */

void script_target_hook(struct script_target *target, const struct script_hooks *hooks)
{
	script_begin(target);
	target->hooks = hooks ? *hooks : (struct script_hooks){0};
	script_end(target);
}

bool hook_came(struct script_connection *connection, const struct script_pdu *pdu)
{
	const struct script_hooks *hooks = &connection->target->hooks;
	struct script_hook hook = {connection};

	return hooks->came && hooks->came(&hook, pdu->header, pdu->data, pdu->length, hooks->own);
}

bool hook_leaves(struct script_connection *connection, GByteArray *pdu)
{
	const struct script_hooks *hooks = &connection->target->hooks;
	struct script_hook hook = {connection};

	return !hooks->leaves || hooks->leaves(&hook, pdu, hooks->own);
}

static void send_past_hooks(
    struct script_connection *connection, const uint8_t *header, const void *data, uint32_t length)
{
	g_autoptr(GByteArray) pdu = g_byte_array_sized_new(BHS_SIZE + length);

	g_byte_array_append(pdu, header, BHS_SIZE);
	if (length)
		g_byte_array_append(pdu, data, length);
	connection_put_pdu(connection, pdu, true);
}

void script_hook_send(struct script_hook *hook, uint8_t *header, const void *data, uint32_t length)
{
	send_past_hooks(hook->connection, header, data, length);
}

void script_hook_header(
    struct script_hook *hook, uint8_t *header, uint8_t opcode, uint32_t itt, bool takes_statsn)
{
	header_fill(hook->connection, header, opcode, itt, takes_statsn);
}

unsigned script_hook_connection(const struct script_hook *hook)
{
	return hook->connection->index;
}

void script_hook_pad(struct script_hook *hook, uint8_t byte)
{
	hook->connection->padding = byte;
}

void script_hook_spoil_digest(struct script_hook *hook)
{
	hook->connection->spoil_digest = true;
}

void script_hook_cut(struct script_hook *hook)
{
	connection_cut(hook->connection, SCRIPT_FIN);
}

void script_target_send_pdu(struct script_target *target, const uint8_t *header, const void *data,
    uint32_t length, bool takes_statsn)
{
	script_begin(target);
	for (struct script_connection *c = target->connections; c; c = c->next) {
		uint8_t numbered[BHS_SIZE], sent[BHS_SIZE];

		if (!c->session || c->discovery)
			continue;
		header_fill(c, numbered, header[0], NO_TAG, takes_statsn);
		memcpy(sent, header, BHS_SIZE);
		memcpy(sent + 24, numbered + 24, 12);
		send_past_hooks(c, sent, data, length);
	}
	script_end(target);
}
