/*
 * script_text.c - text negotiation of the scripted target in its full feature phase: SendTargets,
 * whole or in parts (RFC 7143, 11.10, 11.11 and appendix C).
 *
 * While parts wait, connection->parts holds them; each is fetched by a Text Request with the tags
 * of the exchange and no text.
 */
#include "support/script_internal.h"

#include <string.h>

/* ---- parts ---- */

guint parts_next(const struct script_parts *parts, bool whole)
{
	guint left = parts->text->len - parts->sent, length = parts->cut ? parts->cut : left;

	if (length >= left)
		return left;
	for (guint end = length; whole && end > 0; end--)
		if (parts->text->data[parts->sent + end - 1] == '\0')
			return end;
	return length;
}

void parts_end(struct script_parts *parts)
{
	g_clear_pointer(&parts->text, g_byte_array_unref);
	*parts = (struct script_parts){0};
}

/* ---- answers ---- */

static void text_send_part(struct script_connection *connection, const struct script_pdu *pdu)
{
	struct script_parts *parts = &connection->parts;
	bool anywhere = connection->target->parameters.text_cut_c;
	guint length = parts_next(parts, !anywhere);
	bool last = parts->sent + length == parts->text->len;
	uint8_t header[BHS_SIZE];

	header_fill(connection, header, OP_TEXT_RESPONSE, get_be32(pdu->header + 16), true);
	if (!last)
		header[1] = anywhere ? 0x40 : 0;
	memcpy(header + 8, pdu->header + 8, 8);
	parts->itt = get_be32(pdu->header + 16);
	parts->ttt = connection->target->next_tag++;
	put_be32(header + 20, last ? NO_TAG : parts->ttt);
	connection_put(connection, header, parts->text->data + parts->sent, length);
	parts->sent += length;
	if (last)
		parts_end(parts);
}

static void put_targets(const struct script_target *target, GString *answer)
{
	g_autofree char *address =
	    g_strdup_printf("127.0.0.1:%u,%u", target->port, target->parameters.tag);

	put_key(answer, "TargetName", target->iqn);
	put_key(answer, "TargetAddress", address);
	for (guint i = 0; i < target->addresses->len; i++)
		put_key(answer, "TargetAddress", target->addresses->pdata[i]);
	if (target->neighbour) { /* at another portal */
		g_autofree char *other = g_strdup_printf("127.0.0.1:%u,1", target->neighbour->port);

		put_key(answer, "TargetName", target->neighbour->iqn);
		put_key(answer, "TargetAddress", other);
	}
}

/* False where the request does not fetch the rest as RFC 7143, 11.10.4 has it. */
static bool text_fetches(struct script_connection *connection, const struct script_pdu *pdu)
{
	const struct script_parts *parts = &connection->parts;
	uint32_t itt = get_be32(pdu->header + 16), ttt = get_be32(pdu->header + 20);

	if (itt == parts->itt && ttt == parts->ttt && pdu->length == 0)
		return true;
	connection_complain(connection,
	    "the rest is fetched with tags %08x, %08x, not %08x, %08x, and %u bytes", itt, ttt,
	    parts->itt, parts->ttt, pdu->length);
	return false;
}

void text_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	const struct script_target *target = connection->target;
	g_autoptr(GString) keys = g_string_new_len((const char *)pdu->data, pdu->length);
	g_autoptr(GString) answer = g_string_new(NULL);
	const char *wanted = find_key(keys, "SendTargets");
	uint32_t cut = target->parameters.text_cut;

	if (get_be32(pdu->header + 20) != NO_TAG && connection->parts.text) {
		if (text_fetches(connection, pdu))
			text_send_part(connection, pdu);
		return;
	}
	parts_end(&connection->parts); /* a new negotiation ends an old one */
	if (wanted && target->listed)
		g_string_append_len(
		    answer, (const char *)target->listed->data, target->listed->len);
	else if (wanted &&
	         (strcmp(wanted, "All") == 0 || strcmp(wanted, target->iqn) == 0 || !*wanted))
		put_targets(target, answer);
	connection->parts = (struct script_parts){.text = g_byte_array_new(),
	    .cut = cut ? MIN(cut, connection->send_segment) : connection->send_segment};
	g_byte_array_append(
	    connection->parts.text, (const uint8_t *)answer->str, (guint)answer->len);
	text_send_part(connection, pdu);
}
