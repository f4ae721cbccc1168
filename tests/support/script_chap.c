/*
 * script_chap.c - CHAP with MD5, as the scripted target asks for it and as it proves itself
 * (RFC 7143, 12.1).
 *
 *   AuthMethod=CHAP -> CHAP_A, then our CHAP_I and CHAP_C -> CHAP_N and CHAP_R, both ways
 */
#include "support/script_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MD5_SIZE  16u
#define CHALLENGE 1024u /* bytes, at most */

struct chap_state {
	bool challenged;
	uint8_t challenge[CHALLENGE];
	unsigned length;
};

void chap_free(struct chap_state *state)
{
	g_free(state);
}

/* ---- binary values (RFC 7143, 6.1) ---- */

static char *encode(enum script_chap_form form, const uint8_t *bytes, size_t length)
{
	GString *text;

	if (form == SCRIPT_CHAP_BASE64) {
		g_autofree char *digits = g_base64_encode(bytes, length);

		return g_strconcat("0b", digits, NULL);
	}
	text = g_string_new(form == SCRIPT_CHAP_HEX ? "0x" : "0X");
	for (size_t i = 0; i < length; i++)
		g_string_append_printf(text, form == SCRIPT_CHAP_HEX ? "%02x" : "%02X", bytes[i]);
	return g_string_free(text, FALSE);
}

/* The number of bytes; 0: it is none. */
static size_t decode(const char *value, uint8_t *bytes, size_t size)
{
	size_t length = 0;

	if (g_ascii_strncasecmp(value, "0b", 2) == 0) {
		g_autofree uint8_t *decoded = g_base64_decode(value + 2, &length);

		if (length > size)
			return 0;
		memcpy(bytes, decoded, length);
		return length;
	}
	if (g_ascii_strncasecmp(value, "0x", 2) != 0)
		return 0;
	for (value += 2; g_ascii_isxdigit(value[0]) && g_ascii_isxdigit(value[1]); value += 2) {
		if (length == size)
			return 0;
		bytes[length++] =
		    (uint8_t)(g_ascii_xdigit_value(value[0]) << 4 | g_ascii_xdigit_value(value[1]));
	}
	return *value ? 0 : length;
}

static void respond(uint8_t identifier, const char *secret, const uint8_t *challenge, size_t length,
    uint8_t response[MD5_SIZE])
{
	g_autoptr(GChecksum) md5 = g_checksum_new(G_CHECKSUM_MD5);
	gsize size = MD5_SIZE;

	g_checksum_update(md5, &identifier, 1);
	g_checksum_update(md5, (const guchar *)secret, (gssize)strlen(secret));
	g_checksum_update(md5, challenge, (gssize)length);
	g_checksum_get_digest(md5, response, &size);
}

/* ---- the steps ---- */

static void challenge(const struct script_chap *chap, struct chap_state *state, GString *answer)
{
	state->length = chap->challenge_length ? MIN(chap->challenge_length, CHALLENGE) : 16;
	for (unsigned i = 0; i < state->length; i++)
		state->challenge[i] = (uint8_t)g_random_int();
	g_autofree char *text = encode(chap->form, state->challenge, state->length);
	put_key(answer, "CHAP_A", chap->fault == SCRIPT_CHAP_OTHER_ALGORITHM ? "7" : "5");
	put_number(answer, "CHAP_I", chap->identifier);
	put_key(answer, "CHAP_C", text);
	state->challenged = true;
}

/* Did the initiator answer our challenge? */
static bool is_proof(const struct script_chap *chap, const struct chap_state *state,
    const char *name, const char *response)
{
	uint8_t right[MD5_SIZE], came[MD5_SIZE];

	if (strcmp(name, chap->user) != 0 || decode(response, came, sizeof(came)) != MD5_SIZE)
		return false;
	respond(chap->identifier, chap->secret, state->challenge, state->length, right);
	return memcmp(right, came, MD5_SIZE) == 0;
}

/* Ours. False: theirs was none, or one of ours. */
static bool prove(const struct script_chap *chap, const struct chap_state *state,
    const GString *keys, GString *answer)
{
	const char *identifier = find_key(keys, "CHAP_I"), *asked = find_key(keys, "CHAP_C");
	uint8_t theirs[CHALLENGE], response[MD5_SIZE];
	size_t length = asked ? decode(asked, theirs, sizeof(theirs)) : 0;

	if (!identifier && !asked)
		return true;
	if (!identifier || length == 0 ||
	    (length == state->length && memcmp(theirs, state->challenge, length) == 0))
		return false;
	if (!chap->user_in || chap->fault == SCRIPT_CHAP_ABSENT)
		return true;
	respond((uint8_t)strtoul(identifier, NULL, 0), chap->secret_in, theirs, length, response);
	response[0] ^= chap->fault == SCRIPT_CHAP_WRONG;
	g_autofree char *text = encode(chap->form, response, sizeof(response));
	put_key(answer, "CHAP_N",
	    chap->fault == SCRIPT_CHAP_WRONG_NAME ? "somebody-else" : chap->user_in);
	put_key(answer, "CHAP_R",
	    chap->fault == SCRIPT_CHAP_REFLECTED ? find_key(keys, "CHAP_R") : text);
	return true;
}

enum chap_outcome chap_answer(
    struct script_connection *connection, const GString *keys, GString *answer)
{
	const struct script_chap *chap = &connection->target->chap;
	const char *methods = find_key(keys, "AuthMethod"), *algorithms = find_key(keys, "CHAP_A");
	const char *name = find_key(keys, "CHAP_N"), *response = find_key(keys, "CHAP_R");

	if (!connection->chap) {
		if (!methods || !offers(methods, "CHAP"))
			return CHAP_REFUSED;
		put_key(answer, "AuthMethod", "CHAP");
		connection->chap = g_new0(struct chap_state, 1);
		return CHAP_GOES_ON;
	}
	if (!connection->chap->challenged) {
		if (!algorithms) /* a round without keys */
			return keys->len ? CHAP_REFUSED : CHAP_GOES_ON;
		if (!offers(algorithms, "5"))
			return CHAP_REFUSED;
		challenge(chap, connection->chap, answer);
		return CHAP_GOES_ON;
	}
	if (!name || !response)
		return keys->len ? CHAP_REFUSED : CHAP_GOES_ON;
	if (!is_proof(chap, connection->chap, name, response) ||
	    !prove(chap, connection->chap, keys, answer))
		return CHAP_REFUSED;
	return CHAP_DONE;
}
