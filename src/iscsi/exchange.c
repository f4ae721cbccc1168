/*
 * exchange.c - what libiscsi and the target say to each other until the login is over: see
 * exchange.h.
 *
 * An answer of the target goes to libiscsi when it ends a stage, or is a step of CHAP, which is
 * libiscsi's. All others are dealt with here, with requests that repeat the header of libiscsi's
 * last. What libiscsi gets to read is made anew from what was understood: nothing that a target
 * says reaches it as it was said.
 *
 *   libiscsi --request--> said once, markers out, what is owed added --> target
 *   libiscsi <-- made anew <-- stage ends or CHAP <-- understood <-- joined <-- target
 *                                   `- else: another request ----------------> target
 */
#include "exchange.h"

#include <stdio.h>
#include <string.h>

#include "keys.h"
#include "lunfs/scsi.h"
#include "text.h"

/* RFC 7143, 11.2.1.2 */
enum { LOGIN_REQUEST = 0x03, TEXT_REQUEST = 0x04 };
enum { LOGIN_RESPONSE = 0x23, TEXT_RESPONSE = 0x24, REJECT = 0x3f };
/* Flags of login (11.12, 11.13) and text (11.10, 11.11). CSG, NSG: stages of a login. */
enum { TRANSIT = 0x80, FINAL = 0x80, CONTINUE = 0x40, CSG = 0x0c, NSG = 0x03 };

#define NO_TAG          0xffffffffu
#define CHALLENGE_MOST  1024u /* bytes; RFC 7143, 12.1.3 */
#define PROOF_MOST      64u
#define LOGIN_TEXT_MOST (64u << 10)
/* With libiscsi's own it fits in a PDU of the login, 8192 bytes (13.12). */
#define OWED_MOST     4096u
#define KEY_NAME_MOST 63u  /* bytes; 6.1 */
#define ADDRESS_MOST  300u /* of a redirection: a host of 255 bytes, port and tag */
#define TEXT_MOST     (4u << 20)
/* Answers that bring the login no further, and those in a login altogether. */
#define ROUNDS_MOST  16u
#define ANSWERS_MOST 512u

struct exchange {
	const struct login *login;
	struct keys *keys;
	GHashTable *said; /* names of keys that the initiator sent */
	uint8_t request[PDU_HEADER_LENGTH], response[PDU_HEADER_LENGTH];
	GString *joined;   /* the text of an answer that is not whole */
	GString *owed;     /* answers to what the target offers, for the next request */
	GString *for_user; /* what libiscsi is to read */
	bool chap_step;    /* in for_user is something that libiscsi is to answer */
	char *proof;       /* the initiator's CHAP_R */
	char *algorithms;  /* the initiator's CHAP_A */
	unsigned answers, rounds;
	int status;
	bool asked; /* the target has something to answer */
	bool over, text_whole, wants_proof;
	char *redirect;
	GString *text;
	char fault[192];
};

struct exchange *exchange_new(const struct login *login)
{
	struct exchange *exchange = g_new0(struct exchange, 1);

	exchange->login = login;
	exchange->keys = keys_new();
	exchange->said = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	exchange->joined = g_string_new(NULL);
	exchange->owed = g_string_new(NULL);
	exchange->for_user = g_string_new(NULL);
	exchange->text = g_string_new(NULL);
	exchange->status = -1;
	return exchange;
}

void exchange_free(struct exchange *exchange)
{
	if (exchange == NULL)
		return;
	keys_free(exchange->keys);
	g_hash_table_unref(exchange->said);
	g_string_free(exchange->joined, TRUE);
	g_string_free(exchange->owed, TRUE);
	g_string_free(exchange->for_user, TRUE);
	g_string_free(exchange->text, TRUE);
	g_free(exchange->proof);
	g_free(exchange->algorithms);
	g_free(exchange->redirect);
	g_free(exchange);
}

G_GNUC_PRINTF(2, 3)
static enum exchange_verdict exchange_refuse(struct exchange *exchange, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (exchange->fault[0] == '\0')
		vsnprintf(exchange->fault, sizeof exchange->fault, format, arguments);
	va_end(arguments);
	return EXCHANGE_REFUSE;
}

static bool exchange_refused(const struct exchange *exchange)
{
	return exchange->fault[0] != '\0';
}

/* ---- PDUs and text ---- */

static void pdu_put(GByteArray *out, const uint8_t *header, const void *data, size_t length)
{
	static const uint8_t zeros[4];
	guint at = out->len;

	g_byte_array_append(out, header, PDU_HEADER_LENGTH);
	out->data[at + 4] = 0;
	out->data[at + 5] = (uint8_t)(length >> 16);
	put_be16(out->data + at + 6, (uint16_t)length);
	if (length > 0)
		g_byte_array_append(out, data, (guint)length);
	g_byte_array_append(out, zeros, -(guint)length & 3);
}

static void put_pair(GString *text, const char *name, const char *value)
{
	g_string_append_printf(text, "%s=%s", name, value);
	g_string_append_c(text, '\0');
}

typedef void (*pair_fn)(struct exchange *exchange, const char *name, const char *value, void *data);

/* The last NUL may be missing. What has no '=', or nothing before it, is no pair. */
static void for_each_pair(
    struct exchange *exchange, const char *text, size_t length, pair_fn fn, void *data)
{
	for (size_t at = 0; at < length;) {
		size_t size = strnlen(text + at, length - at);
		g_autofree char *pair = g_strndup(text + at, size);
		char *value = strchr(pair, '=');

		if (value != NULL && value != pair) {
			*value++ = '\0';
			fn(exchange, pair, value, data);
		}
		at += size + 1;
	}
}

/* ---- what libiscsi says ---- */

/* What goes to the target in its place; NULL: nothing. */
static const char *request_value(
    const struct exchange *exchange, const char *name, const char *value)
{
	const struct login *login = exchange->login;

	if (strcmp(name, "IFMarker") == 0 || strcmp(name, "OFMarker") == 0)
		return NULL;
	if (login->target == NULL && keys_is_for_data(name))
		return NULL;
	/* libiscsi has always a user, so that it begins with the security stage */
	if (strcmp(name, "AuthMethod") == 0)
		return login->username == NULL      ? "None"
		       : login->username_in != NULL ? "CHAP"
		                                    : "CHAP,None";
	return value;
}

static void request_take_pair(
    struct exchange *exchange, const char *name, const char *value, void *data)
{
	const char *sent = request_value(exchange, name, value);

	if (sent == NULL || !g_hash_table_add(exchange->said, g_strdup(name)))
		return;
	keys_note(exchange->keys, KEYS_INITIATOR, name, sent);
	if (strcmp(name, "CHAP_R") == 0)
		exchange->proof = text_binary(sent, PROOF_MOST);
	if (strcmp(name, "CHAP_A") == 0)
		exchange->algorithms = g_strdup(sent);
	put_pair(data, name, sent);
}

static void login_request(struct exchange *exchange, const struct pdu *pdu, GByteArray *out)
{
	g_autoptr(GString) text = g_string_new(NULL);

	memcpy(exchange->request, pdu->header, PDU_HEADER_LENGTH);
	/* NSG is reserved then (11.12.3) */
	if (!(exchange->request[1] & TRANSIT))
		exchange->request[1] &= (uint8_t)~NSG;
	for_each_pair(exchange, (const char *)pdu->data, pdu->length, request_take_pair, text);
	g_string_append_len(text, exchange->owed->str, (gssize)exchange->owed->len);
	g_string_truncate(exchange->owed, 0);
	exchange->asked = true;
	pdu_put(out, exchange->request, text->str, text->len);
}

enum exchange_verdict exchange_request(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out)
{
	uint8_t opcode = pdu->header[0] & 0x3f;

	if (opcode == LOGIN_REQUEST) {
		login_request(exchange, pdu, out);
		return EXCHANGE_PASS;
	}
	if (opcode == TEXT_REQUEST) {
		memcpy(exchange->request, pdu->header, PDU_HEADER_LENGTH);
		g_string_truncate(exchange->text, 0);
		exchange->text_whole = false;
	}
	pdu_put(out, pdu->header, pdu->data, pdu->length);
	return EXCHANGE_PASS;
}

/* ---- CHAP ---- */

static void take_auth_method(struct exchange *exchange, const char *value)
{
	if (strcmp(value, "CHAP") != 0)
		return;
	put_pair(exchange->for_user, "AuthMethod", "CHAP");
	exchange->chap_step = true;
}

static void take_algorithm(struct exchange *exchange, const char *value)
{
	g_auto(GStrv) offered = g_strsplit(exchange->algorithms, ",", -1);
	guint64 algorithm;
	char number[24];

	if (!text_number(value, 255, &algorithm)) {
		exchange_refuse(exchange, "sends a CHAP algorithm that is none");
		return;
	}
	snprintf(number, sizeof number, "%u", (unsigned)algorithm);
	if (!g_strv_contains((const char *const *)offered, number)) {
		exchange_refuse(exchange,
		    "wants CHAP with algorithm %s, and lunfs offered %s (5 is MD5): allow that at "
		    "the target",
		    number, exchange->algorithms);
		return;
	}
	put_pair(exchange->for_user, "CHAP_A", number);
}

static void take_challenge(struct exchange *exchange, const char *name, const char *value)
{
	if (strcmp(name, "CHAP_I") == 0) {
		guint64 identifier;

		if (!text_number(value, 255, &identifier))
			exchange_refuse(exchange, "sends a CHAP identifier that is none");
		else
			g_string_append_printf(
			    exchange->for_user, "CHAP_I=%u%c", (unsigned)identifier, '\0');
		return;
	}
	g_autofree char *challenge = text_binary(value, CHALLENGE_MOST);
	if (challenge == NULL) {
		exchange_refuse(exchange, "sends a CHAP challenge that is none");
		return;
	}
	put_pair(exchange->for_user, "CHAP_C", challenge);
	exchange->chap_step = true;
}

/* Its proof, once it was asked for: libiscsi compares any that comes, also with what it has not
 * computed yet. */
static void take_proof(struct exchange *exchange, const char *name, const char *value)
{
	if (exchange->login->username_in == NULL || exchange->proof == NULL)
		return;
	if (strcmp(name, "CHAP_N") == 0) {
		put_pair(exchange->for_user, name, value);
		return;
	}
	g_autofree char *proof = text_binary(value, PROOF_MOST);
	if (proof == NULL || g_strcmp0(proof, exchange->proof) == 0)
		exchange_refuse(exchange,
		    "could not prove its identity (mutual CHAP): it answers with %s; nothing was "
		    "read or written",
		    proof == NULL ? "what is no proof" : "our own proof");
	else
		put_pair(exchange->for_user, name, proof);
}

/* ---- what the target says ---- */

#define NO_DIGESTS                                                                                 \
	"does not do header digests: leave out header_digest=crc32c, or allow them at the target"

static void refuse_value(struct exchange *exchange, const char *name, const char *value)
{
	g_autofree char *shown = g_strescape(value, NULL);

	exchange->wants_proof =
	    strcmp(name, "AuthMethod") == 0 && exchange->login->username == NULL;
	if (exchange->wants_proof)
		exchange_refuse(exchange, "wants CHAP: give -o username=USER,password_file=FILE");
	else if (strcmp(name, "HeaderDigest") == 0 && strcmp(value, "None") == 0)
		exchange_refuse(exchange, NO_DIGESTS);
	else
		exchange_refuse(exchange,
		    "answers %s=%.64s, which was not offered, or RFC 7143 does not allow: it "
		    "cannot be "
		    "used",
		    name, shown);
}

static void response_take_pair(
    struct exchange *exchange, const char *name, const char *value, void *data)
{
	const char *answer = keys_answer(exchange->keys, name, value);
	bool chap = g_str_has_prefix(name, "CHAP_");

	(void)data;
	if (chap && exchange->algorithms == NULL)
		return; /* nobody asked */
	if (!keys_may_be(exchange->keys, name, value)) {
		refuse_value(exchange, name, value);
		return;
	}
	keys_note(exchange->keys, KEYS_TARGET, name, value);
	if (answer != NULL && strlen(name) <= KEY_NAME_MOST && exchange->owed->len < OWED_MOST &&
	    g_hash_table_add(exchange->said, g_strdup(name)))
		put_pair(exchange->owed, name, answer);
	if (strcmp(name, "AuthMethod") == 0)
		take_auth_method(exchange, value);
	else if (strcmp(name, "CHAP_A") == 0)
		take_algorithm(exchange, value);
	else if (strcmp(name, "CHAP_I") == 0 || strcmp(name, "CHAP_C") == 0)
		take_challenge(exchange, name, value);
	else if (strcmp(name, "CHAP_N") == 0 || strcmp(name, "CHAP_R") == 0)
		take_proof(exchange, name, value);
}

static void status_take_pair(
    struct exchange *exchange, const char *name, const char *value, void *data)
{
	(void)data;
	if (strcmp(name, "TargetAddress") != 0 || exchange->redirect != NULL ||
	    strlen(value) > ADDRESS_MOST)
		return;
	exchange->redirect = g_strdup(value);
}

/* What comes first is part of a burst (13.14), also where a target answers to one of the two. */
static char *agreed(const struct exchange *exchange, const char *name)
{
	g_autofree char *value = keys_agreed(exchange->keys, name);
	g_autofree char *burst = keys_agreed(exchange->keys, "MaxBurstLength");

	if (strcmp(name, "FirstBurstLength") == 0 &&
	    g_ascii_strtoull(value, NULL, 10) > g_ascii_strtoull(burst, NULL, 10))
		return g_steal_pointer(&burst);
	return g_steal_pointer(&value);
}

/* What libiscsi is to know of the agreement: all that it reads of an answer. */
static void put_agreement(struct exchange *exchange)
{
	static const char *const names[] = {"HeaderDigest", "MaxRecvDataSegmentLength",
	    "FirstBurstLength", "MaxBurstLength", "InitialR2T", "ImmediateData"};

	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autofree char *value = agreed(exchange, names[i]);

		put_pair(exchange->for_user, names[i], value);
	}
}

/* A stage is over. */
static bool agreement_is_ours(struct exchange *exchange, bool last)
{
	g_autofree char *digest = keys_agreed(exchange->keys, "HeaderDigest");
	const struct login *login = exchange->login;

	if (login->username_in != NULL && !keys_proved_target(exchange->keys))
		exchange_refuse(exchange,
		    "could not prove its identity (mutual CHAP): check password_in_file and that "
		    "the target has the secret; nothing was read or written");
	else if (last && login->header_digest && login->target != NULL &&
	         strcmp(digest, "CRC32C") != 0)
		exchange_refuse(exchange, NO_DIGESTS);
	return !exchange_refused(exchange);
}

/* ---- answers of the target ---- */

/*
 * To the target: the header of the last request once more, with what is owed. That is nothing where
 * it has not said all (6.2): what it offered before was answered before it spoke again.
 */
static enum exchange_verdict ask_on(struct exchange *exchange, GByteArray *out)
{
	if (exchange->answers > ANSWERS_MOST || exchange->rounds > ROUNDS_MOST)
		return exchange_refuse(exchange,
		    "does not come to the end of the login (%u answers)", exchange->answers);
	exchange->asked = true;
	put_be32(exchange->request + 28, get_be32(exchange->response + 24) + 1); /* ExpStatSN */
	pdu_put(out, exchange->request, exchange->owed->str, exchange->owed->len);
	g_string_truncate(exchange->owed, 0);
	return EXCHANGE_ANSWER;
}

/* To libiscsi. */
static enum exchange_verdict hand_over(struct exchange *exchange, GByteArray *out)
{
	uint8_t header[PDU_HEADER_LENGTH];

	memcpy(header, exchange->response, sizeof header);
	header[1] &= (uint8_t)~CONTINUE;
	pdu_put(out, header, exchange->for_user->str, exchange->for_user->len);
	g_string_truncate(exchange->for_user, 0);
	exchange->chap_step = false;
	exchange->rounds = 0;
	return EXCHANGE_PASS;
}

static enum exchange_verdict login_failed(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out)
{
	for_each_pair(exchange, (const char *)pdu->data, pdu->length, status_take_pair, NULL);
	return hand_over(exchange, out);
}

static enum exchange_verdict login_stage_ends(struct exchange *exchange, GByteArray *out)
{
	uint8_t asked = exchange->request[1], answered = exchange->response[1];
	bool last = (answered & NSG) == NSG;

	if (!(asked & TRANSIT) || (asked & NSG) != (answered & NSG))
		return exchange_refuse(
		    exchange, "leaves a stage of the login for one that was not asked for");
	if (!agreement_is_ours(exchange, last))
		return EXCHANGE_REFUSE;
	if (last) {
		put_agreement(exchange);
		exchange->over = true;
	}
	return hand_over(exchange, out);
}

/* False: it is none that belongs to our request. */
static bool login_response_is_sound(struct exchange *exchange, const struct pdu *pdu)
{
	uint8_t opcode = pdu->header[0] & 0x3f, flags = pdu->header[1];

	if (opcode == REJECT)
		exchange_refuse(
		    exchange, "rejects the login (Reject, reason %02Xh)", pdu->header[2]);
	else if (opcode != LOGIN_RESPONSE)
		exchange_refuse(exchange, "answers the login with a PDU of opcode %02Xh", opcode);
	else if (memcmp(pdu->header + 16, exchange->request + 16, 4) != 0)
		exchange_refuse(exchange, "answers a login that is not ours (ITT)");
	else if (get_be16(pdu->header + 36) >> 8 != 0)
		return true; /* nothing else in it counts */
	else if (!exchange->asked)
		exchange_refuse(exchange, "sends a Login Response that nobody asked for");
	else if (pdu->header[3] != 0)
		exchange_refuse(exchange,
		    "speaks version %u of iSCSI (Version-active), and lunfs version 0",
		    pdu->header[3]);
	else if ((flags & CSG) != (exchange->request[1] & CSG))
		exchange_refuse(exchange, "is in another stage of the login than asked for");
	else if ((flags & TRANSIT) && (flags & CONTINUE))
		exchange_refuse(exchange, "ends a stage of the login in the middle of its text");
	return !exchange_refused(exchange);
}

static enum exchange_verdict login_response(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out)
{
	uint8_t flags = pdu->header[1];

	if (!login_response_is_sound(exchange, pdu))
		return EXCHANGE_REFUSE;
	exchange->asked = false;
	memcpy(exchange->response, pdu->header, PDU_HEADER_LENGTH);
	exchange->status = get_be16(pdu->header + 36);
	exchange->answers++;
	if (exchange->status >> 8 != 0)
		return login_failed(exchange, pdu, out);
	if (exchange->joined->len + pdu->length > LOGIN_TEXT_MOST)
		return exchange_refuse(exchange, "sends login text without end");
	g_string_append_len(exchange->joined, (const char *)pdu->data, (gssize)pdu->length);
	if (flags & CONTINUE)
		return ask_on(exchange, out);
	for_each_pair(
	    exchange, exchange->joined->str, exchange->joined->len, response_take_pair, NULL);
	g_string_truncate(exchange->joined, 0);
	if (exchange_refused(exchange))
		return EXCHANGE_REFUSE;
	if (flags & TRANSIT)
		return login_stage_ends(exchange, out);
	if (exchange->chap_step)
		return hand_over(exchange, out);
	exchange->rounds++;
	return ask_on(exchange, out);
}

/* ---- text ---- */

/* LUN and TTT are the target's (11.10.4). */
static enum exchange_verdict text_ask_on(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out)
{
	uint8_t header[PDU_HEADER_LENGTH];

	memcpy(header, exchange->request, sizeof header);
	memcpy(header + 8, pdu->header + 8, 8);
	memcpy(header + 20, pdu->header + 20, 4);
	put_be32(header + 28, get_be32(pdu->header + 24) + 1); /* ExpStatSN */
	pdu_put(out, header, NULL, 0);
	return EXCHANGE_ANSWER;
}

static enum exchange_verdict text_response(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out)
{
	bool whole = (pdu->header[1] & FINAL) && !(pdu->header[1] & CONTINUE);
	uint8_t header[PDU_HEADER_LENGTH];

	if (exchange->text_whole)
		return exchange_refuse(exchange, "answers SendTargets twice");
	if (exchange->text->len + pdu->length > TEXT_MOST)
		return exchange_refuse(exchange, "sends text without end");
	g_string_append_len(exchange->text, (const char *)pdu->data, (gssize)pdu->length);
	if (!whole && get_be32(pdu->header + 20) == NO_TAG)
		return exchange_refuse(
		    exchange, "does not say how its text goes on (Target Transfer Tag)");
	if (!whole)
		return text_ask_on(exchange, pdu, out);
	exchange->text_whole = true;
	memcpy(header, pdu->header, sizeof header);
	header[1] = FINAL; /* libiscsi takes no other, and the rest is reserved */
	pdu_put(out, header, NULL, 0);
	return EXCHANGE_PASS;
}

enum exchange_verdict exchange_response(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out)
{
	if (!exchange->over)
		return login_response(exchange, pdu, out);
	if ((pdu->header[0] & 0x3f) == TEXT_RESPONSE &&
	    memcmp(pdu->header + 16, exchange->request + 16, 4) == 0)
		return text_response(exchange, pdu, out);
	pdu_put(out, pdu->header, pdu->data, pdu->length);
	return EXCHANGE_PASS;
}

/* ---- what it tells ---- */

bool exchange_is_over(const struct exchange *exchange)
{
	return exchange->over;
}

const char *exchange_fault(const struct exchange *exchange)
{
	return exchange_refused(exchange) ? exchange->fault : NULL;
}

bool exchange_wants_proof(const struct exchange *exchange)
{
	return exchange->wants_proof;
}

const struct keys *exchange_keys(const struct exchange *exchange)
{
	return exchange->keys;
}

int exchange_status(const struct exchange *exchange)
{
	return exchange->status;
}

const uint8_t *exchange_last_request(const struct exchange *exchange)
{
	return exchange->request;
}

const uint8_t *exchange_last_response(const struct exchange *exchange)
{
	return exchange->response;
}

const char *exchange_redirect(const struct exchange *exchange)
{
	return exchange->redirect;
}

const GString *exchange_text(const struct exchange *exchange)
{
	return exchange->text_whole ? exchange->text : NULL;
}
