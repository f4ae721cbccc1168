/*
 * script_keys.c - keys of the scripted target's logins: text, and what is agreed on (RFC 7143, 13).
 */
#include "support/script_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- text ---- */

void put_key(GString *keys, const char *key, const char *value)
{
	g_string_append_printf(keys, "%s=%s", key, value);
	g_string_append_c(keys, '\0');
}

void put_number(GString *keys, const char *key, unsigned value)
{
	g_autofree char *text = g_strdup_printf("%u", value);

	put_key(keys, key, text);
}

void put_list(GString *keys, const char *list)
{
	g_auto(GStrv) pairs = g_strsplit(list, "&", -1);

	for (char **pair = pairs; *pair; pair++)
		if (**pair)
			g_string_append_len(keys, *pair, (gssize)strlen(*pair) + 1);
}

const char *find_key(const GString *keys, const char *wanted)
{
	size_t length = strlen(wanted);

	for (size_t at = 0; at < keys->len; at += strlen(keys->str + at) + 1)
		if (strncmp(keys->str + at, wanted, length) == 0 && keys->str[at + length] == '=')
			return keys->str + at + length + 1;
	return NULL;
}

bool offers(const char *list, const char *wanted)
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
	    "SessionType", "AuthMethod", "TaskReporting", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I",
	    "CHAP_C", NULL};

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

static void answer_digest(struct script_connection *connection, const char *value, GString *answer)
{
	const struct script_parameters *ours = &connection->target->parameters;

	connection->digest =
	    (ours->header_digest || ours->header_digest_only) && offers(value, "CRC32C");
	if (connection->digest)
		put_key(answer, "HeaderDigest", "CRC32C");
	else
		put_key(answer, "HeaderDigest", offers(value, "None") ? "None" : "Reject");
}

static void answer_key(
    struct script_connection *connection, const char *key, const char *value, GString *answer)
{
	const struct script_parameters *ours = &connection->target->parameters;

	if (is_declaration(key))
		return;
	if (strcmp(key, "HeaderDigest") == 0)
		answer_digest(connection, value, answer);
	else if (strcmp(key, "DataDigest") == 0)
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

void answer_keys(struct script_connection *connection, const GString *keys, GString *answer)
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
