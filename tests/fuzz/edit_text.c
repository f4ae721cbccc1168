/*
 * edit_text.c - the edits of a login's text, and of a discovery's (target.h).
 *
 * Some are what a correct target may do as well: answers in several PDUs, stages that take several
 * rounds, keys that lunfs does not know, CHAP in every form. lunfs has to be served by it then.
 */
#include "edit_internal.h"

#include <string.h>

#include "lunfs/scsi.h"
#include "target.h"

enum { LOGIN_RESPONSE = 0x23, TEXT_RESPONSE = 0x24 };
enum { TRANSIT = 0x80, CONTINUE = 0x40, NSG = 0x03 };
#define STAYS_MOST 6u /* lunfs takes 16 rounds a stage */
#define TTT        0x12345678u

static uint8_t draft_opcode(const struct draft *draft)
{
	return draft->pdu->data[0] & 0x3f;
}

static void draft_set_text(struct draft *draft, const GString *text)
{
	g_byte_array_set_size(draft->pdu, PDU_HEADER);
	g_byte_array_append(draft->pdu, (const guint8 *)text->str, (guint)text->len);
	draft_set_length(draft);
}

/* The next pair of a text; false: there is none. */
static bool text_next(const struct draft *draft, guint *at, char **name, char **value)
{
	guint length = draft->pdu->len - PDU_HEADER - *at;
	const char *text = (const char *)draft->pdu->data + PDU_HEADER + *at;

	if (length == 0)
		return false;
	*name = g_strndup(text, length);
	*at += MIN((guint)strlen(*name) + 1, length);
	*value = strchr(*name, '=');
	if (*value != NULL)
		*(*value)++ = '\0';
	return true;
}

/* C=1, or in a text F=0 alone: the rest comes when lunfs asks for it. */
void edit_continue(struct draft *draft)
{
	uint16_t how = script_word(draft->script);
	guint length = draft->pdu->len - PDU_HEADER, kept = (how & 0x7fff) % (length + 1);
	uint8_t *header = draft->pdu->data;

	if ((draft_opcode(draft) != LOGIN_RESPONSE && draft_opcode(draft) != TEXT_RESPONSE) ||
	    draft->script->rest != NULL)
		return;
	draft->script->rest = g_byte_array_new();
	g_byte_array_append(draft->script->rest, header, PDU_HEADER);
	g_byte_array_append(
	    draft->script->rest, draft->pdu->data + PDU_HEADER + kept, length - kept);
	g_byte_array_set_size(draft->pdu, PDU_HEADER + kept);
	draft_set_length(draft);
	draft->script->keeps_open = true;
	if (draft_opcode(draft) == LOGIN_RESPONSE) {
		header[1] = (uint8_t)((header[1] & ~(TRANSIT | NSG)) | CONTINUE);
		return;
	}
	header[1] = how & 0x8000 ? 0 : CONTINUE;
	put_be32(header + 20, TTT);
}

/* T=0: the stage takes another round. */
void edit_stay(struct draft *draft)
{
	uint8_t *header = draft->pdu->data;

	if (draft_opcode(draft) != LOGIN_RESPONSE || !(header[1] & TRANSIT))
		return;
	header[1] &= (uint8_t) ~(TRANSIT | NSG);
	draft->script->keeps_open = true;
	draft->script->edited |= ++draft->script->stays > STAYS_MOST;
}

/* Keys of the target's own. */
void edit_offer(struct draft *draft)
{
	static const char *const offers[] = {"X-org.example=1", "X#whim=a,b", "IFMarker=Yes",
	    "OFMarkInt=2048~8192", "TaskReporting=FastAbort,RFC3720", "RDMAExtensions=No",
	    "iSCSIProtocolLevel=2", "TargetAlias=fuzz"};
	const char *offer = offers[script_byte(draft->script) % G_N_ELEMENTS(offers)];

	/* what is cut goes on in the next PDU, maybe in the middle of a pair */
	if (draft_opcode(draft) != LOGIN_RESPONSE || draft->script->rest != NULL)
		return;
	g_byte_array_append(draft->pdu, (const guint8 *)offer, (guint)strlen(offer) + 1);
	draft_set_length(draft);
}

/* A value of CHAP in another form of RFC 7143, 6.1. */
static char *value_in_form(const char *name, const char *value, uint8_t form)
{
	g_autoptr(GByteArray) bytes = g_byte_array_new();
	g_autofree char *encoded = NULL;
	bool number = strcmp(name, "CHAP_A") == 0 || strcmp(name, "CHAP_I") == 0;

	if (number == (g_ascii_strncasecmp(value, "0x", 2) == 0) || value[1] == 'X')
		return g_strdup(value); /* it has another already */
	if (number)
		return g_strdup_printf(
		    "%s%x", form & 1 ? "0x" : "0X", (unsigned)g_ascii_strtoull(value, NULL, 10));
	for (value += 2; value[0] && value[1]; value += 2) {
		guint8 byte =
		    (guint8)(g_ascii_xdigit_value(value[0]) << 4 | g_ascii_xdigit_value(value[1]));
		g_byte_array_append(bytes, &byte, 1);
	}
	if (form & 2) {
		encoded = g_base64_encode(bytes->data, bytes->len);
		return g_strdup_printf("%s%s", form & 1 ? "0b" : "0B", encoded);
	}
	GString *hex = g_string_new(form & 1 ? "0x" : "0X");
	for (guint i = 0; i < bytes->len; i++)
		g_string_append_printf(hex, "%02X", bytes->data[i]);
	return g_string_free(hex, FALSE);
}

void edit_forms(struct draft *draft)
{
	uint8_t form = script_byte(draft->script);
	g_autoptr(GString) text = g_string_new(NULL);
	char *name, *value;

	/* half a value has no other form */
	if (draft_opcode(draft) != LOGIN_RESPONSE || draft->script->edited ||
	    draft->script->rest != NULL)
		return;
	for (guint at = 0; text_next(draft, &at, &name, &value); g_free(name)) {
		g_autofree char *other = NULL;

		if (value != NULL && g_str_has_prefix(name, "CHAP_") && strcmp(name, "CHAP_N") != 0)
			value = other = value_in_form(name, value, form);
		g_string_append_printf(
		    text, "%s%s%s%c", name, value ? "=" : "", value ? value : "", '\0');
	}
	draft_set_text(draft, text);
}

/* Another value for one of the pairs, or for one more. */
void edit_value(struct draft *draft)
{
	static const char *const values[] = {"Reject", "Irrelevant", "NotUnderstood", "", "0", "1",
	    "511", "512", "16777215", "16777216", "0x200", "0XFFFFFF", "-1", "Yes", "No", "None",
	    "CHAP", "CRC32C", "CRC32C,None", "CHAP,None", "5", "7", "256", "0x", "0b",
	    "0bAA=", "0bAAECAwQFBgcICQoLDA0ODw==", "0x123", "0X00", "\033[2J", "target", "0xzz"};
	uint8_t which = script_byte(draft->script);
	const char *other = values[script_byte(draft->script) % G_N_ELEMENTS(values)];
	g_autoptr(GString) text = g_string_new(NULL);
	char *name, *value;
	unsigned pair = 0;

	for (guint at = 0; text_next(draft, &at, &name, &value); g_free(name)) {
		if (pair++ == (which & 0x0f))
			value = (char *)other;
		if (!(which & 0x80) || value == other) /* alone */
			g_string_append_printf(
			    text, "%s%s%s%c", name, value ? "=" : "", value ? value : "", '\0');
		if ((which & 0x40) && value == other) /* twice */
			g_string_append_printf(text, "%s=%s%c", name, other, '\0');
	}
	draft_set_text(draft, text);
}

/* Status class 1 with an address. */
void edit_redirect(struct draft *draft)
{
	static const uint16_t statuses[] = {0x0101, 0x0102, 0x0100, 0x01ff};
	static const char *const addresses[] = {"127.0.0.1:3260,1", "[::1]:3260,1", "10.0.0.1",
	    "other.example:1,2", "invalid", "", "[::1", "127.0.0.1:99999", "127.0.0.1:3260,x"};
	uint8_t how = script_byte(draft->script);
	g_autoptr(GString) text = g_string_new("TargetAddress=");

	if (draft_opcode(draft) != LOGIN_RESPONSE)
		return;
	g_string_append(text, addresses[(how & 0x3f) % G_N_ELEMENTS(addresses)]);
	g_string_append_c(text, '\0');
	draft_set_text(draft, text);
	put_be16(draft->pdu->data + 36, statuses[how >> 6]);
	draft->script->redirects++;
}

/* The initiator's own proof for the target's. */
void edit_reflect(struct draft *draft)
{
	g_autoptr(GString) text = g_string_new("CHAP_N=" CHAP_USER_IN);

	g_string_append_c(text, '\0');
	g_string_append_printf(text, "CHAP_R=%s%c", draft->script->proof, '\0');
	draft_set_text(draft, text);
}
