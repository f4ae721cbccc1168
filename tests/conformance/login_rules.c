/*
 * login_rules.c - see login_rules.h.
 */
#include "conformance/login_rules.h"
#include "conformance/lab.h"

#include <string.h>

#define STAGE(pdu) ((pdu)->header[1] >> 2 & 3)
#define NEXT(pdu)  ((pdu)->header[1] & 3)
#define TRANSIT    0x80
#define CONTINUE   0x40

typedef void (*request_fn)(const struct script_traffic *first, const struct script_traffic *pdu);

static void each_request(struct scene *scene, unsigned connection, request_fn rule)
{
	g_autoptr(GArray) requests = lab_pdus(scene, connection, true, PDU_LOGIN);

	for (guint i = 0; i < requests->len; i++)
		rule(lab_pdu(requests, 0), lab_pdu(requests, i));
}

typedef void (*pair_fn)(const struct script_traffic *pdu, const char *key, const char *value);

static void each_pair(struct scene *scene, unsigned connection, uint8_t opcode, pair_fn rule)
{
	g_autoptr(GArray) requests = lab_pdus(scene, connection, true, opcode);

	for (guint i = 0; i < requests->len; i++) {
		const struct script_traffic *pdu = lab_pdu(requests, i);

		for (uint32_t at = 0; at < pdu->length;) {
			g_autofree char *key =
			    g_strndup((const char *)pdu->data + at, pdu->length - at);
			char *value = strchr(key, '=');

			at += (uint32_t)strlen(key) + 1;
			cr_assert(value, "'%s' is no pair", key);
			*value++ = '\0';
			rule(pdu, key, value);
		}
	}
}

static bool is_normal(struct scene *scene, unsigned connection)
{
	return strcmp(lab_said(scene, connection, "SessionType"), "Discovery") != 0;
}

/* ---- the header ---- */

void rule_who_it_is(struct scene *scene, unsigned connection)
{
	g_autoptr(GArray) requests = lab_pdus(scene, connection, true, PDU_LOGIN);
	const struct script_traffic *first = lab_pdu(requests, 0);
	static const char *const wanted[] = {"InitiatorName=", "SessionType=", "TargetName="};

	cr_assert(requests->len > 0 && first->length > 0);
	g_autoptr(GString) text =
	    g_string_new_len((const char *)first->data, (gssize)first->length);
	for (size_t i = 0; i < text->len; i++)
		text->str[i] = text->str[i] ? text->str[i] : '\n';
	for (unsigned i = 0; i < (is_normal(scene, connection) ? 3 : 2); i++)
		cr_assert(strstr(text->str, wanted[i]), "no %s in: %s", wanted[i], text->str);
	const char *name = lab_said(scene, connection, "InitiatorName");
	cr_assert(g_str_has_prefix(name, "iqn.") || g_str_has_prefix(name, "eui.") ||
	              g_str_has_prefix(name, "naa."),
	    "%s", name);
	cr_assert(strlen(name) <= 223);
}

static void is_immediate(const struct script_traffic *first, const struct script_traffic *pdu)
{
	(void)first;
	cr_assert_eq(pdu->header[0], 0x43, "byte 0 is %02x", pdu->header[0]);
}

void rule_immediate(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, is_immediate);
}

static void has_isid(const struct script_traffic *first, const struct script_traffic *pdu)
{
	uint8_t type = pdu->header[8] >> 6, a = pdu->header[8] & 0x3f;

	cr_assert_eq(memcmp(first->header + 8, pdu->header + 8, 6), 0, "the ISID changes");
	cr_assert(type != 3, "a reserved type of ISID");
	cr_assert(type == 0 || a == 0, "field A of an ISID of type %u is %02x", type, a);
}

void rule_isid(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_isid);
}

static void has_no_tsih(const struct script_traffic *first, const struct script_traffic *pdu)
{
	(void)first;
	cr_assert_eq(get_be16(pdu->header + 14), 0, "TSIH %u", get_be16(pdu->header + 14));
}

void rule_tsih(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_no_tsih);
}

static void has_cid(const struct script_traffic *first, const struct script_traffic *pdu)
{
	cr_assert_eq(get_be16(pdu->header + 20), get_be16(first->header + 20), "another CID");
}

void rule_cid(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_cid);
}

static void has_itt(const struct script_traffic *first, const struct script_traffic *pdu)
{
	cr_assert_eq(get_be32(pdu->header + 16), get_be32(first->header + 16), "another ITT");
	cr_assert(get_be32(pdu->header + 16) != LAB_NO_TAG);
}

void rule_itt(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_itt);
}

static void has_cmdsn(const struct script_traffic *first, const struct script_traffic *pdu)
{
	cr_assert_eq(get_be32(pdu->header + 24), get_be32(first->header + 24), "CmdSN advances");
}

void rule_cmdsn(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_cmdsn);
}

/* The first PDU behind the login; false: there is none. */
static bool first_behind(
    struct scene *scene, unsigned connection, struct script_traffic *pdu, bool numbered)
{
	for (unsigned i = 0; script_traffic_get(scene->script, i, pdu); i++)
		if (pdu->connection == connection && pdu->to_target &&
		    (pdu->header[0] & 0x3f) != PDU_LOGIN &&
		    (pdu->header[0] & 0x3f) != PDU_DATA_OUT &&
		    !(numbered && (pdu->header[0] & 0x40)))
			return true;
	return false;
}

void rule_first_cmdsn(struct scene *scene, unsigned connection)
{
	g_autoptr(GArray) requests = lab_pdus(scene, connection, true, PDU_LOGIN);
	struct script_traffic pdu;

	if (first_behind(scene, connection, &pdu, true))
		cr_assert_eq(get_be32(pdu.header + 24), get_be32(lab_pdu(requests, 0)->header + 24),
		    "the first command's CmdSN is %u", get_be32(pdu.header + 24));
}

/* Not of the first request, where it means a connection that is made anew. */
void rule_expstatsn(struct scene *scene, unsigned connection)
{
	struct script_traffic pdu;
	uint32_t expected = 0;
	bool answered = false, over = false;

	for (unsigned i = 0; !over && script_traffic_get(scene->script, i, &pdu); i++) {
		if (pdu.connection != connection)
			continue;
		if (!pdu.to_target) {
			over = (pdu.header[0] & 0x3f) != PDU_LOGIN_RESPONSE;
			expected = get_be32(pdu.header + 24) + 1;
			answered = true;
			continue;
		}
		if (answered)
			cr_assert_eq(get_be32(pdu.header + 28), expected,
			    "opcode %02x has ExpStatSN %08x, not %08x", pdu.header[0] & 0x3f,
			    get_be32(pdu.header + 28), expected);
	}
}

static void has_stages(const struct script_traffic *first, const struct script_traffic *pdu)
{
	uint8_t flags = pdu->header[1];

	(void)first;
	cr_assert(STAGE(pdu) <= 1, "flags %02x", flags);
	cr_assert_eq(flags & 0x30, 0, "reserved bits in %02x", flags);
	cr_assert((flags & (TRANSIT | CONTINUE)) != (TRANSIT | CONTINUE), "T and C in %02x", flags);
	if (flags & TRANSIT)
		cr_assert(NEXT(pdu) > STAGE(pdu) && NEXT(pdu) != 2, "flags %02x", flags);
	else
		cr_assert_eq(NEXT(pdu), 0, "NSG is reserved without T: %02x", flags);
}

void rule_stages(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_stages);
}

void rule_transit(struct scene *scene, unsigned connection)
{
	int stage = -1; /* what the target left us in */
	struct script_traffic pdu;

	for (unsigned i = 0; script_traffic_get(scene->script, i, &pdu); i++) {
		uint8_t opcode = pdu.header[0] & 0x3f;

		if (pdu.connection != connection)
			continue;
		if (opcode == PDU_LOGIN_RESPONSE && get_be16(pdu.header + 36) == 0)
			stage = pdu.header[1] & TRANSIT ? NEXT(&pdu) : STAGE(&pdu);
		if (opcode == PDU_LOGIN && stage >= 0)
			cr_assert_eq(STAGE(&pdu), stage, "stage %d, not %d", STAGE(&pdu), stage);
		else if (pdu.to_target && opcode != PDU_LOGIN)
			cr_assert_eq(stage, 3, "opcode %02x in stage %d", opcode, stage);
	}
}

static void has_versions(const struct script_traffic *first, const struct script_traffic *pdu)
{
	(void)first;
	cr_assert(pdu->header[2] == 0 && pdu->header[3] == 0, "versions %u, %u", pdu->header[2],
	    pdu->header[3]);
}

void rule_versions(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_versions);
}

static void has_reserved(const struct script_traffic *first, const struct script_traffic *pdu)
{
	static const uint8_t zeros[16];

	(void)first;
	cr_assert_eq(pdu->header[4], 0, "an additional header");
	cr_assert_eq(get_be16(pdu->header + 22), 0);
	cr_assert_eq(memcmp(pdu->header + 32, zeros, 16), 0);
}

void rule_reserved(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, has_reserved);
}

/* ---- text ---- */

static void is_legal(const struct script_traffic *pdu, const char *key, const char *value)
{
	(void)pdu;
	cr_assert(strlen(key) <= 63 && g_ascii_isalpha(key[0]), "key '%s'", key);
	cr_assert_eq(strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	                         ".-+@_#"),
	    strlen(key), "key '%s'", key);
	cr_assert(strlen(value) <= 255 || strcmp(key, "CHAP_C") == 0 || strcmp(key, "CHAP_R") == 0,
	    "%s has a value of %zu bytes", key, strlen(value));
	cr_assert(*value || strcmp(key, "SendTargets") == 0, "%s has no value", key);
}

void rule_keys_legal(struct scene *scene, unsigned connection)
{
	each_pair(scene, connection, PDU_LOGIN, is_legal);
	each_pair(scene, connection, PDU_TEXT, is_legal);
}

static bool is_key(const char *key, const char *const *list)
{
	return g_strv_contains(list, key);
}

static void is_in_stage(const struct script_traffic *pdu, const char *key, const char *value)
{
	static const char *const operational[] = {"HeaderDigest", "DataDigest", "MaxConnections",
	    "InitialR2T", "ImmediateData", "MaxRecvDataSegmentLength", "MaxBurstLength",
	    "FirstBurstLength", "DefaultTime2Wait", "DefaultTime2Retain", "MaxOutstandingR2T",
	    "DataPDUInOrder", "DataSequenceInOrder", "ErrorRecoveryLevel", "IFMarker", "OFMarker",
	    "TaskReporting", NULL};
	static const char *const security[] = {
	    "AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", NULL};

	(void)value;
	cr_assert(!is_key(key, STAGE(pdu) == 0 ? operational : security), "%s in stage %u", key,
	    STAGE(pdu));
}

void rule_keys_in_stage(struct scene *scene, unsigned connection)
{
	each_pair(scene, connection, PDU_LOGIN, is_in_stage);
}

void rule_keys_once(struct scene *scene, unsigned connection)
{
	g_autoptr(GHashTable) said = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GArray) requests = lab_pdus(scene, connection, true, PDU_LOGIN);

	for (guint i = 0; i < requests->len; i++) {
		const struct script_traffic *pdu = lab_pdu(requests, i);

		for (uint32_t at = 0; at < pdu->length;) {
			const char *pair = (const char *)pdu->data + at;
			size_t length = strnlen(pair, pdu->length - at);
			char *key = g_strndup(pair, MIN(strcspn(pair, "="), length));

			at += (uint32_t)length + 1;
			cr_assert(g_hash_table_add(said, key), "%s is said again", key);
		}
	}
}

static void text_ends(const struct script_traffic *first, const struct script_traffic *pdu)
{
	(void)first;
	if (pdu->length && !(pdu->header[1] & CONTINUE))
		cr_assert_eq(pdu->data[pdu->length - 1], '\0', "no NUL at the end");
}

void rule_text_ends(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, text_ends);
}

static void fits(const struct script_traffic *first, const struct script_traffic *pdu)
{
	(void)first;
	cr_assert(pdu->length <= 8192, "a segment of %u bytes", pdu->length);
}

void rule_segment(struct scene *scene, unsigned connection)
{
	each_request(scene, connection, fits);
}

void login_rules_all(struct scene *scene)
{
	static void (*const all[])(struct scene *, unsigned) = {rule_immediate, rule_isid,
	    rule_tsih, rule_cid, rule_itt, rule_cmdsn, rule_first_cmdsn, rule_expstatsn,
	    rule_stages, rule_transit, rule_versions, rule_reserved, rule_keys_once,
	    rule_keys_legal, rule_keys_in_stage, rule_text_ends, rule_segment, rule_who_it_is};
	unsigned connections = lab_connections(scene);

	for (unsigned c = 0; c < connections; c++) {
		g_autoptr(GArray) requests = lab_pdus(scene, c, true, PDU_LOGIN);

		for (size_t i = 0; requests->len && i < G_N_ELEMENTS(all); i++)
			all[i](scene, c);
	}
}
