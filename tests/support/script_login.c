/*
 * script_login.c - logins and text of the scripted target (RFC 7143, 6 and 13).
 *
 * A login passes the security stage, where it needs no proof, and the operational one, or goes
 * straight to the latter. A connection belongs to no session before its last answer.
 */
#include "support/script_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define REFUSE_AUTH      0x0201
#define REFUSE_NOT_FOUND 0x0203
#define REFUSE_MISSING   0x0207
#define REFUSE_NO_TSIH   0x020a

static struct script_login *attempt_of(struct script_connection *connection)
{
	return &g_array_index(connection->target->logins, struct script_login, connection->attempt);
}

/* ---- answers ---- */

static void login_send(struct script_connection *connection, const struct script_pdu *pdu,
    uint8_t flags, uint16_t status, const GString *keys)
{
	uint8_t answer[BHS_SIZE];

	header_fill(connection, answer, OP_LOGIN_RESPONSE, get_be32(pdu->header + 16), true);
	answer[1] = flags;
	memcpy(answer + 8, pdu->header + 8, 6);
	put_be16(answer + 14, attempt_of(connection)->tsih);
	put_be16(answer + 36, status);
	connection_put(connection, answer, keys ? keys->str : NULL, keys ? (uint32_t)keys->len : 0);
	attempt_of(connection)->status = status;
}

static void login_refuse(struct script_connection *connection, const struct script_pdu *pdu,
    uint16_t status, const GString *keys)
{
	login_send(connection, pdu, 0, status, keys);
	connection_send_last(connection);
	connection->paused_until = DUE_NEVER;
}

static void put_key(GString *keys, const char *key, const char *value)
{
	g_string_append_printf(keys, "%s=%s", key, value);
	g_string_append_c(keys, '\0');
}

static void put_number(GString *keys, const char *key, unsigned value)
{
	g_autofree char *text = g_strdup_printf("%u", value);

	put_key(keys, key, text);
}

/* ---- keys ---- */

static const char *find_key(const GString *keys, const char *wanted)
{
	size_t length = strlen(wanted);

	for (size_t at = 0; at < keys->len; at += strlen(keys->str + at) + 1)
		if (strncmp(keys->str + at, wanted, length) == 0 && keys->str[at + length] == '=')
			return keys->str + at + length + 1;
	return NULL;
}

static bool offers(const char *list, const char *wanted)
{
	g_auto(GStrv) words = g_strsplit(list, ",", -1);

	return g_strv_contains((const char *const *)words, wanted);
}

/* The smaller of both, which is what most numbers end with. */
static uint32_t put_minimum(GString *answer, const char *key, const char *value, uint32_t ours)
{
	uint32_t agreed = (uint32_t)MIN(strtoul(value, NULL, 0), ours);

	put_number(answer, key, agreed);
	return agreed;
}

static bool put_bool(GString *answer, const char *key, bool agreed)
{
	put_key(answer, key, agreed ? "Yes" : "No");
	return agreed;
}

static bool is_declaration(const char *key)
{
	static const char *const declared[] = {"InitiatorName", "InitiatorAlias", "TargetName",
	    "SessionType", "AuthMethod", "TaskReporting", NULL};

	return g_strv_contains(declared, key);
}

static void answer_burst_key(
    struct script_connection *connection, const char *key, const char *value, GString *answer)
{
	const struct script_parameters *ours = &connection->target->parameters;
	bool yes = strcmp(value, "Yes") == 0;

	if (strcmp(key, "InitialR2T") == 0)
		connection->initial_r2t = put_bool(answer, key, yes || ours->initial_r2t);
	else if (strcmp(key, "ImmediateData") == 0)
		connection->immediate_data = put_bool(answer, key, yes && !ours->no_immediate_data);
	else if (strcmp(key, "MaxBurstLength") == 0)
		connection->max_burst = put_minimum(answer, key, value, ours->max_burst);
	else if (strcmp(key, "FirstBurstLength") == 0)
		connection->first_burst = put_minimum(answer, key, value, ours->first_burst);
	else if (strcmp(key, "MaxOutstandingR2T") == 0 || strcmp(key, "MaxConnections") == 0)
		put_minimum(answer, key, value, 1);
	else if (strcmp(key, "DataPDUInOrder") == 0 || strcmp(key, "DataSequenceInOrder") == 0)
		put_bool(answer, key, true);
	else if (strcmp(key, "IFMarker") == 0 || strcmp(key, "OFMarker") == 0)
		put_bool(answer, key, false);
	else
		put_key(answer, key, "NotUnderstood");
}

static void answer_key(
    struct script_connection *connection, const char *key, const char *value, GString *answer)
{
	const struct script_parameters *ours = &connection->target->parameters;

	if (is_declaration(key))
		return;
	if (strcmp(key, "HeaderDigest") == 0 || strcmp(key, "DataDigest") == 0)
		put_key(answer, key, offers(value, "None") ? "None" : "Reject");
	else if (strcmp(key, "MaxRecvDataSegmentLength") == 0)
		connection->send_segment = (uint32_t)CLAMP(strtoul(value, NULL, 0), 512, 16777215);
	else if (strcmp(key, "DefaultTime2Wait") == 0)
		put_number(answer, key, (unsigned)MAX(strtoul(value, NULL, 0), ours->time2wait));
	else if (strcmp(key, "DefaultTime2Retain") == 0 || strcmp(key, "ErrorRecoveryLevel") == 0)
		put_minimum(answer, key, value, 0);
	else
		answer_burst_key(connection, key, value, answer);
}

static void answer_keys(struct script_connection *connection, const GString *keys, GString *answer)
{
	for (size_t at = 0; at < keys->len; at += strlen(keys->str + at) + 1) {
		g_autofree char *key = g_strdup(keys->str + at);
		char *value = strchr(key, '=');

		if (!value)
			continue;
		*value++ = '\0';
		answer_key(connection, key, value, answer);
	}
	if (connection->stage == STAGE_OPERATIONAL && !connection->declared) {
		connection->declared = true;
		put_number(answer, "MaxRecvDataSegmentLength",
		    connection->target->parameters.receive_segment);
		if (connection->target->parameters.alias[0])
			put_key(answer, "TargetAlias", connection->target->parameters.alias);
	}
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

static void login_go_on(
    struct script_connection *connection, const struct script_pdu *pdu, const GString *keys)
{
	uint8_t flags = pdu->header[1], next = flags & 3;
	bool transit = flags & 0x80;
	g_autoptr(GString) answer = g_string_new(NULL);
	const char *methods = find_key(keys, "AuthMethod");

	connection->stage = (flags >> 2) & 3;
	if (connection->stage > STAGE_OPERATIONAL ||
	    (transit && (next <= (int)connection->stage || next == 2))) {
		connection_complain(connection, "login with stages %02x", flags);
		return;
	}
	if (methods && !offers(methods, "None")) {
		login_refuse(connection, pdu, REFUSE_AUTH, NULL);
		return;
	}
	if (methods)
		put_key(answer, "AuthMethod", "None");
	if (!connection->discovery && !connection->told_tag)
		put_number(answer, "TargetPortalGroupTag", attempt_of(connection)->tag);
	connection->told_tag = true;
	answer_keys(connection, keys, answer);
	if (transit && next == STAGE_FULL)
		login_end(connection);
	login_send(connection, pdu, transit ? flags & 0x8f : flags & 0x0c, 0, answer);
	if (connection->stage == STAGE_FULL && connection->hang_up)
		connection_send_last(connection);
}

void login_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	g_autoptr(GString) keys = NULL;
	uint16_t refusal = 0;

	if (!connection->recorded)
		login_record(connection, pdu);
	g_string_append_len(connection->keys, (const char *)pdu->data, pdu->length);
	if (pdu->header[1] & 0x40) { /* C: the rest comes in more PDUs */
		if (connection->keys->len > LOGIN_DATA || (pdu->header[1] & 0x80))
			connection_complain(connection, "login text that does not end");
		else
			login_send(connection, pdu, pdu->header[1] & 0x0c, 0, NULL);
		return;
	}
	keys = connection->keys;
	connection->keys = g_string_new(NULL);
	if (!connection->began)
		refusal = login_begin(connection, pdu, keys);
	if (refusal) {
		login_refuse(connection, pdu, refusal, NULL);
		return;
	}
	if (!connection->ruled) {
		connection->ruled = true;
		if (login_follows_script(connection, pdu, keys))
			return;
	}
	login_go_on(connection, pdu, keys);
}

/* ---- text ---- */

/* What stands at another portal. */
static void put_neighbour(GString *answer, const struct script_target *neighbour)
{
	g_autofree char *address = g_strdup_printf("127.0.0.1:%u,1", neighbour->port);

	put_key(answer, "TargetName", neighbour->iqn);
	put_key(answer, "TargetAddress", address);
}

void text_take(struct script_connection *connection, const struct script_pdu *pdu)
{
	struct script_target *target = connection->target;
	g_autoptr(GString) keys = g_string_new_len((const char *)pdu->data, pdu->length);
	g_autoptr(GString) answer = g_string_new(NULL);
	const char *wanted = find_key(keys, "SendTargets");
	uint8_t header[BHS_SIZE];

	if (wanted &&
	    (strcmp(wanted, "All") == 0 || strcmp(wanted, target->iqn) == 0 || !*wanted)) {
		put_key(answer, "TargetName", target->iqn);
		g_string_append_printf(
		    answer, "TargetAddress=127.0.0.1:%u,%u", target->port, target->parameters.tag);
		g_string_append_c(answer, '\0');
		for (guint i = 0; i < target->addresses->len; i++)
			put_key(answer, "TargetAddress", target->addresses->pdata[i]);
		if (target->neighbour)
			put_neighbour(answer, target->neighbour);
	}
	header_fill(connection, header, OP_TEXT_RESPONSE, get_be32(pdu->header + 16), true);
	memcpy(header + 8, pdu->header + 8, 8);
	put_be32(header + 20, NO_TAG);
	connection_put(connection, header, answer->str, (uint32_t)answer->len);
}
