/*
 * script_login.c - logins of the scripted target (RFC 7143, 6).
 *
 * A login passes the security stage and the operational one, or goes straight to the latter where
 * no proof is wanted. A connection belongs to no session before its last answer. An answer follows
 * its step (script_traffic.h); while parts of it wait, connection->parts holds them.
 */
#include "support/script_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define REFUSE_MISC      0x0200 /* initiator error */
#define REFUSE_AUTH      0x0201
#define REFUSE_NOT_FOUND 0x0203
#define REFUSE_MISSING   0x0207
#define REFUSE_NO_TSIH   0x020a

static struct script_login *attempt_of(struct script_connection *connection)
{
	return &g_array_index(connection->target->logins, struct script_login, connection->attempt);
}

/* ---- answers ---- */

static const struct script_login_step *step_of(const struct script_connection *connection)
{
	static const struct script_login_step as_usual;
	const GArray *steps = connection->target->steps;

	if (connection->answers >= steps->len)
		return &as_usual;
	return &g_array_index(steps, struct script_login_step, connection->answers);
}

static void login_send(struct script_connection *connection, const struct script_pdu *pdu,
    uint8_t flags, uint16_t status, const void *text, size_t length)
{
	const struct script_login_step *step = step_of(connection);
	uint8_t answer[BHS_SIZE];

	connection->padding = step->padding;
	header_fill(connection, answer, OP_LOGIN_RESPONSE, get_be32(pdu->header + 16), true);
	answer[1] = flags;
	answer[2] = step->version_max;
	answer[3] = step->version_active;
	if (step->max_cmdsn_offset)
		put_be32(answer + 32, get_be32(pdu->header + 24) + *step->max_cmdsn_offset);
	memcpy(answer + 8, pdu->header + 8, 6);
	put_be16(answer + 14, attempt_of(connection)->tsih);
	put_be16(answer + 36, status);
	connection_put(connection, answer, text, (uint32_t)length);
	attempt_of(connection)->status = status;
}

static void login_refuse(struct script_connection *connection, const struct script_pdu *pdu,
    uint16_t status, const GString *keys)
{
	login_send(connection, pdu, 0, status, keys ? keys->str : NULL, keys ? keys->len : 0);
	connection_send_last(connection);
	connection->paused_until = DUE_NEVER;
}

/* ---- who it is ---- */

static void address_of(int fd, char *text, size_t size)
{
	struct sockaddr_in address = {0};
	socklen_t length = sizeof(address);
	char host[INET_ADDRSTRLEN];

	getpeername(fd, (struct sockaddr *)&address, &length);
	inet_ntop(AF_INET, &address.sin_addr, host, sizeof(host));
	snprintf(text, size, "%s:%u", host, ntohs(address.sin_port));
}

/* The first PDU of a login. */
static void login_record(struct script_connection *connection, const struct script_pdu *pdu)
{
	struct script_target *target = connection->target;
	struct script_login login = {
	    .at_ms = script_now() - target->began_ms, .tag = target->parameters.tag};

	connection->recorded = true;
	connection->expected_cmdsn = get_be32(pdu->header + 24);
	connection->max_cmdsn = connection->expected_cmdsn - 1;
	memcpy(connection->isid, pdu->header + 8, 6);
	memcpy(login.isid, pdu->header + 8, 6);
	address_of(connection->fd, login.address, sizeof(login.address));
	connection->attempt = target->logins->len;
	g_array_append_val(target->logins, login);
	connection->initial_r2t = connection->immediate_data = true; /* the defaults */
	connection->first_burst = MIN(65536, target->parameters.first_burst);
	connection->max_burst = 262144;
}

/* Its first keys are whole. A refusal, or 0. */
static uint16_t login_begin(
    struct script_connection *connection, const struct script_pdu *pdu, const GString *keys)
{
	struct script_target *target = connection->target;
	struct script_login *login = attempt_of(connection);
	const char *initiator = find_key(keys, "InitiatorName");
	const char *type = find_key(keys, "SessionType"), *name = find_key(keys, "TargetName");

	connection->began = true;
	connection->discovery = login->discovery = type && strcmp(type, "Discovery") == 0;
	connection->initiator = g_strdup(initiator ? initiator : "");
	g_strlcpy(login->initiator, connection->initiator, sizeof(login->initiator));
	if (!initiator || (!connection->discovery && !name))
		return REFUSE_MISSING;
	if (!connection->discovery && strcmp(name, target->iqn) != 0)
		return REFUSE_NOT_FOUND;
	if (get_be16(pdu->header + 14) != 0)
		return REFUSE_NO_TSIH;
	tasks_login_begins(target, initiator);
	return 0;
}

/* ---- scripts ---- */

static const struct script_login_rule *find_rule(struct script_connection *connection)
{
	GArray *rules = connection->target->login_rules;

	for (guint i = 0; i < rules->len; i++) {
		struct script_login_rule *rule = &g_array_index(rules, struct script_login_rule, i);

		if (rule->discovery != connection->discovery || rule->times == 0)
			continue;
		if (rule->skip) {
			rule->skip--;
			continue;
		}
		if (rule->times != UINT32_MAX)
			rule->times--;
		return rule;
	}
	return NULL;
}

/* True where a script took the login over. */
static bool login_follows_script(
    struct script_connection *connection, const struct script_pdu *pdu, const GString *all)
{
	const struct script_login_rule *rule = find_rule(connection);
	g_autoptr(GString) keys = g_string_new(NULL);

	if (!rule)
		return false;
	switch (rule->deed) {
	case SCRIPT_LOGIN_REFUSE:
		login_refuse(connection, pdu,
		    (uint16_t)(rule->status_class << 8 | rule->status_detail), NULL);
		return true;
	case SCRIPT_LOGIN_REDIRECT:
		put_key(keys, "TargetAddress", rule->address);
		login_refuse(connection, pdu,
		    (uint16_t)(0x0100 | (rule->status_detail ? rule->status_detail : 1)), keys);
		return true;
	case SCRIPT_LOGIN_CLOSE:
		connection_cut(connection, SCRIPT_FIN);
		return true;
	case SCRIPT_LOGIN_HANG:
		connection->paused_until = DUE_NEVER;
		return true;
	case SCRIPT_LOGIN_DELAY:
		/* the PDU is looked at again then, as if it had just come */
		connection->paused_until = script_due(rule->delay_ms);
		connection->again = true;
		g_string_append_len(connection->keys, all->str, (gssize)(all->len - pdu->length));
		return true;
	case SCRIPT_LOGIN_HANG_UP:
		connection->hang_up = true;
		return false;
	}
	return false;
}

/* ---- sessions ---- */

static void session_greet(struct script_target *target, struct script_session *session)
{
	g_autofree char *nexus = g_strdup_printf("%s,%02x%02x%02x%02x%02x%02x,%u",
	    session->initiator, session->isid[0], session->isid[1], session->isid[2],
	    session->isid[3], session->isid[4], session->isid[5], session->tag);
	bool first = g_hash_table_add(target->seen, g_steal_pointer(&nexus));
	bool told = first && target->rebooted ? !target->untold : !target->parameters.no_attention;
	GHashTableIter each;
	gpointer number, lun;

	g_hash_table_iter_init(&each, target->luns);
	while (g_hash_table_iter_next(&each, &number, &lun)) {
		struct script_lun *disk = lun;

		if (told)
			session_attention(session, GPOINTER_TO_UINT(number), 0x29, 0x00);
		if (disk->has_next)
			lun_take_identity(disk, &disk->next);
		disk->has_next = false;
	}
}

/* Session reinstatement (RFC 7143, 6.3.5): the same initiator port and target portal group. */
static void session_reinstate(struct script_connection *connection, struct script_session *made)
{
	struct script_target *target = connection->target;

	for (guint i = 0; i < target->sessions->len; i++) {
		struct script_session *old = target->sessions->pdata[i];

		if (old == made || old->discovery || old->tag != made->tag ||
		    memcmp(old->isid, made->isid, 6) != 0 ||
		    strcmp(old->initiator, made->initiator) != 0)
			continue;
		attempt_of(connection)->reinstated |= old->connection != NULL;
		if (target->ghosts != SCRIPT_GHOSTS_BROKEN)
			tasks_end_session(target, old);
		if (old->connection)
			connection_cut(old->connection, SCRIPT_FIN);
	}
}

static void login_end(struct script_connection *connection)
{
	struct script_target *target = connection->target;
	struct script_session *session = g_new0(struct script_session, 1);

	session->initiator = g_strdup(connection->initiator);
	memcpy(session->isid, connection->isid, 6);
	session->tag = attempt_of(connection)->tag;
	session->discovery = connection->discovery;
	session->expected_cmdsn = connection->expected_cmdsn;
	session->max_cmdsn = connection->max_cmdsn;
	session->attentions = g_array_new(FALSE, FALSE, sizeof(struct script_attention));
	if (!session->discovery)
		session_reinstate(connection, session);
	g_ptr_array_add(target->sessions, session);
	session->number = target->sessions->len;
	session->connection = connection;
	connection->session = session;
	connection->stage = STAGE_FULL;
	attempt_of(connection)->tsih = (uint16_t)(1 + (session->number - 1) % 0xffff);
	attempt_of(connection)->done = true;
	if (!session->discovery)
		session_greet(target, session);
}

/* ---- login ---- */

/* The next part of an answer, and what it ends with. */
static void login_send_part(struct script_connection *connection, const struct script_pdu *pdu)
{
	struct script_parts *parts = &connection->parts;
	uint8_t flags = pdu->header[1] & 0x0c;
	guint length = parts_next(parts, false);
	bool last = parts->sent + length == parts->text->len;
	bool transit = last && !parts->stay && (pdu->header[1] & 0x80);

	if (!last)
		flags |= 0x40;
	if (transit)
		flags = pdu->header[1] & 0x8f;
	if (transit && (flags & 3) == STAGE_FULL)
		login_end(connection);
	login_send(connection, pdu, flags, 0, parts->text->data + parts->sent, length);
	parts->sent += length;
	connection->digest_on = connection->digest && connection->stage == STAGE_FULL;
	if (last) {
		parts_end(parts);
		connection->answers++;
		connection->padding = 0;
	}
	if (connection->stage == STAGE_FULL && connection->hang_up)
		connection_send_last(connection);
}

static void login_answer(
    struct script_connection *connection, const struct script_pdu *pdu, GString *keys)
{
	const struct script_login_step *step = step_of(connection);

	if (step->keys) {
		g_string_truncate(keys, 0);
		put_list(keys, step->keys);
	}
	if (step->more)
		put_list(keys, step->more);
	if (step->statsn)
		connection->statsn = *step->statsn;
	if (step->status) {
		login_refuse(connection, pdu, step->status, keys);
		return;
	}
	connection->parts =
	    (struct script_parts){.text = g_byte_array_new(), .cut = step->cut, .stay = step->stay};
	g_byte_array_append(connection->parts.text, (const uint8_t *)keys->str, (guint)keys->len);
	login_send_part(connection, pdu);
}

/* What it says of who is who. A refusal, or 0; *stay: the stage goes on whatever was asked. */
static uint16_t login_prove(
    struct script_connection *connection, const GString *keys, GString *answer, bool *stay)
{
	const char *methods = find_key(keys, "AuthMethod");

	if (connection->target->wants_chap && !connection->proved) {
		enum chap_outcome outcome = connection->stage == STAGE_SECURITY
		                                ? chap_answer(connection, keys, answer)
		                                : CHAP_REFUSED;

		connection->proved = outcome == CHAP_DONE;
		*stay = outcome == CHAP_GOES_ON;
		return outcome == CHAP_REFUSED ? REFUSE_AUTH : 0;
	}
	if (methods && !offers(methods, "None"))
		return REFUSE_AUTH;
	if (methods)
		put_key(answer, "AuthMethod", "None");
	return 0;
}

static void login_go_on(
    struct script_connection *connection, const struct script_pdu *pdu, const GString *keys)
{
	struct script_pdu stays = *pdu;
	uint8_t flags = pdu->header[1], next = flags & 3, header[BHS_SIZE];
	bool transit = flags & 0x80, stay = false;
	g_autoptr(GString) answer = g_string_new(NULL);
	uint16_t refusal;

	connection->stage = (flags >> 2) & 3;
	if (connection->stage > STAGE_OPERATIONAL ||
	    (transit && (next <= (int)connection->stage || next == 2))) {
		connection_complain(connection, "login with stages %02x", flags);
		return;
	}
	refusal = login_prove(connection, keys, answer, &stay);
	if (!refusal && !connection->discovery && !connection->told_tag)
		put_number(answer, "TargetPortalGroupTag", attempt_of(connection)->tag);
	connection->told_tag = true;
	answer_keys(connection, keys, answer);
	if (!refusal && connection->stage == STAGE_OPERATIONAL && !connection->digest &&
	    connection->target->parameters.header_digest_only)
		refusal = REFUSE_MISC;
	if (refusal) {
		login_refuse(connection, pdu, refusal, NULL);
		return;
	}
	memcpy(header, pdu->header, BHS_SIZE);
	stays.header = header;
	if (stay)
		header[1] &= 0x0c;
	login_answer(connection, &stays, answer);
}

/* Its first keys are whole. True where the login is over already. */
static bool login_ends_early(
    struct script_connection *connection, const struct script_pdu *pdu, const GString *keys)
{
	uint16_t refusal = connection->began ? 0 : login_begin(connection, pdu, keys);

	if (refusal) {
		login_refuse(connection, pdu, refusal, NULL);
		return true;
	}
	if (connection->ruled)
		return false;
	connection->ruled = true;
	return login_follows_script(connection, pdu, keys);
}

void login_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	g_autoptr(GString) keys = NULL;

	if (!connection->recorded)
		login_record(connection, pdu);
	if (connection->parts.text) {
		if (pdu->length)
			connection_complain(connection, "text in place of fetching the rest");
		else
			login_send_part(connection, pdu);
		return;
	}
	g_string_append_len(connection->keys, (const char *)pdu->data, pdu->length);
	if (pdu->header[1] & 0x40) { /* C: the rest comes in more PDUs */
		if (connection->keys->len > LOGIN_DATA || (pdu->header[1] & 0x80))
			connection_complain(connection, "login text that does not end");
		else
			login_send(connection, pdu, pdu->header[1] & 0x0c, 0, NULL, 0);
		return;
	}
	keys = connection->keys;
	connection->keys = g_string_new(NULL);
	if (!login_ends_early(connection, pdu, keys))
		login_go_on(connection, pdu, keys);
}
