/*
 * keys.c - what a login's two sides offered and answered: see keys.h.
 */
#include "keys.h"

#include <string.h>

#include "text.h"

#define VALUE_MAX 255u

enum rule {
	RULE_CHOICE,    /* of a list; the answer comes last */
	RULE_MIN,       /* of both */
	RULE_MAX,       /* */
	RULE_AND,       /* */
	RULE_OR,        /* */
	RULE_DECLARED,  /* by the target, a number */
	RULE_DECLARED2, /* by the initiator */
	RULE_TEXT,      /* declared by the target */
};

/* In the order in which they are told. */
static const struct key {
	const char *name, *shown_as;
	const char *standard; /* what holds where nobody said anything; NULL: nothing */
	guint64 min, max;     /* of a number */
	enum rule rule;
	bool data; /* a discovery session has no use for it */
} all_keys[] = {
    {"TargetAlias", NULL, NULL, 0, 0, RULE_TEXT, false},
    {"TargetPortalGroupTag", NULL, NULL, 0, 65535, RULE_DECLARED, false},
    {"AuthMethod", NULL, "None", 0, 0, RULE_CHOICE, false},
    {"HeaderDigest", NULL, "None", 0, 0, RULE_CHOICE, false},
    {"DataDigest", NULL, "None", 0, 0, RULE_CHOICE, false},
    {"MaxRecvDataSegmentLength", NULL, "8192", 512, 0xffffff, RULE_DECLARED, false},
    {"MaxRecvDataSegmentLength", "InitiatorMaxRecvDataSegmentLength", "8192", 512, 0xffffff,
        RULE_DECLARED2, false},
    {"FirstBurstLength", NULL, "65536", 512, 0xffffff, RULE_MIN, true},
    {"MaxBurstLength", NULL, "262144", 512, 0xffffff, RULE_MIN, true},
    {"ImmediateData", NULL, "Yes", 0, 0, RULE_AND, true},
    {"InitialR2T", NULL, "Yes", 0, 0, RULE_OR, true},
    {"MaxOutstandingR2T", NULL, "1", 1, 65535, RULE_MIN, true},
    {"DefaultTime2Wait", NULL, "2", 0, 3600, RULE_MAX, false},
    {"DefaultTime2Retain", NULL, "20", 0, 3600, RULE_MIN, false},
    {"ErrorRecoveryLevel", NULL, "0", 0, 2, RULE_MIN, false},
    {"MaxConnections", NULL, "1", 1, 65535, RULE_MIN, true},
    {"DataPDUInOrder", NULL, "Yes", 0, 0, RULE_OR, true},
    {"DataSequenceInOrder", NULL, "Yes", 0, 0, RULE_OR, true},
};
#define KEYS G_N_ELEMENTS(all_keys)

struct keys {
	char *values[2][KEYS]; /* by side */
	enum keys_side last[KEYS];
	bool challenged[2], proved[2]; /* sent CHAP_C; answered the other's with CHAP_R */
};

struct keys *keys_new(void)
{
	return g_new0(struct keys, 1);
}

void keys_free(struct keys *keys)
{
	if (keys == NULL)
		return;
	for (unsigned side = 0; side < 2; side++)
		for (unsigned i = 0; i < KEYS; i++)
			g_free(keys->values[side][i]);
	g_free(keys);
}

/* KEYS where there is none. */
static unsigned key_find(const char *name)
{
	unsigned i = 0;

	while (i < KEYS && strcmp(name, all_keys[i].name) != 0)
		i++;
	return i;
}

bool keys_is_for_data(const char *name)
{
	unsigned i = key_find(name);

	return i < KEYS && all_keys[i].data;
}

/* ---- noting ---- */

/* For a terminal: no control characters, those behind ASCII neither, and UTF-8. */
static char *printable(const char *value)
{
	g_autofree char *valid = g_utf8_make_valid(value, -1);
	GString *text = g_string_new(NULL);

	for (const char *at = valid; *at != '\0'; at = g_utf8_next_char(at)) {
		gunichar c = g_utf8_get_char(at);

		g_string_append_unichar(text, g_unichar_isprint(c) ? c : '?');
	}
	return g_string_free(text, FALSE);
}

void keys_note(struct keys *keys, enum keys_side side, const char *name, const char *value)
{
	keys->challenged[side] |= strcmp(name, "CHAP_C") == 0;
	/* what comes before the challenge is no answer to it */
	keys->proved[side] |= strcmp(name, "CHAP_R") == 0 && keys->challenged[!side];
	for (unsigned i = 0; i < KEYS; i++) {
		if (strcmp(name, all_keys[i].name) != 0 || strlen(value) > VALUE_MAX)
			continue;
		g_free(keys->values[side][i]);
		keys->values[side][i] = printable(value);
		keys->last[i] = side;
	}
}

/* ---- what may be said ---- */

static bool is_yes_or_no(const char *text)
{
	return g_strcmp0(text, "Yes") == 0 || g_strcmp0(text, "No") == 0;
}

static bool is_answer_without_value(const char *text)
{
	return g_strcmp0(text, "Irrelevant") == 0 || g_strcmp0(text, "Reject") == 0 ||
	       g_strcmp0(text, "NotUnderstood") == 0;
}

static bool list_has(const char *list, const char *value)
{
	g_auto(GStrv) words = g_strsplit(list, ",", -1);

	return g_strv_contains((const char *const *)words, value);
}

static bool key_is_number(const struct key *key, const char *value)
{
	guint64 number;

	return text_number(value, key->max, &number) && number >= key->min;
}

bool keys_may_be(const struct keys *keys, const char *name, const char *value)
{
	unsigned i = key_find(name);

	if (i == KEYS || is_answer_without_value(value))
		return true;
	const struct key *key = &all_keys[i];
	const char *ours = keys->values[KEYS_INITIATOR][i];

	switch (key->rule) {
	case RULE_CHOICE:
		return ours == NULL || list_has(ours, value);
	case RULE_AND:
	case RULE_OR:
		return is_yes_or_no(value);
	case RULE_TEXT:
		return true;
	default:
		return key_is_number(key, value);
	}
}

const char *keys_answer(const struct keys *keys, const char *name, const char *value)
{
	static const char *const declarations[] = {
	    "TargetName", "TargetAddress", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", NULL};
	/* obsolete, and known to have been (RFC 7143, 13.25) */
	static const char *const markers[] = {
	    "IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt", NULL};
	unsigned i = key_find(name);

	if (is_answer_without_value(value) || g_strv_contains(declarations, name))
		return NULL;
	if (g_strv_contains(markers, name))
		return "Reject";
	if (strcmp(name, "TaskReporting") == 0)
		return list_has(value, "RFC3720") ? "RFC3720" : "Reject";
	if (i == KEYS)
		return "NotUnderstood";
	if (all_keys[i].rule == RULE_DECLARED || all_keys[i].rule == RULE_TEXT ||
	    keys->values[KEYS_INITIATOR][i] != NULL)
		return NULL;
	/* what was not offered stays as the standard has it */
	return all_keys[i].data ? "Irrelevant" : all_keys[i].standard;
}

/* ---- what was agreed on ---- */

static char *number_outcome(const struct key *key, const char *ours, const char *theirs)
{
	guint64 a, b;

	if (!key_is_number(key, ours) || !key_is_number(key, theirs))
		return NULL;
	text_number(ours, key->max, &a);
	text_number(theirs, key->max, &b);
	return g_strdup_printf("%" G_GUINT64_FORMAT, key->rule == RULE_MAX ? MAX(a, b) : MIN(a, b));
}

static char *declared(const struct key *key, const char *value)
{
	guint64 number;

	if (!key_is_number(key, value) || !text_number(value, key->max, &number))
		return NULL;
	return g_strdup_printf("%" G_GUINT64_FORMAT, number);
}

/* NULL: nothing. */
static char *key_outcome(const struct keys *keys, unsigned i)
{
	const struct key *key = &all_keys[i];
	const char *ours = keys->values[KEYS_INITIATOR][i], *theirs = keys->values[KEYS_TARGET][i];
	bool both = is_yes_or_no(ours) && is_yes_or_no(theirs);
	bool yes = g_strcmp0(ours, "Yes") == 0, also = g_strcmp0(theirs, "Yes") == 0;

	switch (key->rule) {
	case RULE_CHOICE:
		return ours == NULL || theirs == NULL || is_answer_without_value(theirs)
		           ? NULL
		           : g_strdup(keys->values[keys->last[i]][i]);
	case RULE_MIN:
	case RULE_MAX:
		return number_outcome(key, ours, theirs);
	case RULE_AND:
		return both ? g_strdup(yes && also ? "Yes" : "No") : NULL;
	case RULE_OR:
		return both ? g_strdup(yes || also ? "Yes" : "No") : NULL;
	case RULE_DECLARED:
		return declared(key, theirs);
	case RULE_DECLARED2:
		return declared(key, ours);
	case RULE_TEXT:
		return g_strdup(theirs);
	}
	return NULL;
}

char *keys_agreed(const struct keys *keys, const char *name)
{
	unsigned i = key_find(name);
	char *value = i < KEYS ? key_outcome(keys, i) : NULL;

	return value != NULL || i == KEYS ? value : g_strdup(all_keys[i].standard);
}

bool keys_proved_target(const struct keys *keys)
{
	return keys->proved[KEYS_TARGET];
}

/* The target asked for a proof, and went on when it had one; libiscsi does, of the other way. */
static const char *keys_proved(const struct keys *keys)
{
	return !keys->proved[KEYS_INITIATOR] ? "none"
	       : keys_proved_target(keys)    ? "mutual"
	                                     : "one-way";
}

char **keys_outcome(const struct keys *keys)
{
	GPtrArray *pairs = g_ptr_array_new();

	for (unsigned i = 0; i < KEYS; i++) {
		const struct key *key = &all_keys[i];
		char *value = key_outcome(keys, i);

		if (value == NULL)
			value = g_strdup(key->standard);
		if (value == NULL)
			continue;
		g_ptr_array_add(pairs, g_strdup(key->shown_as != NULL ? key->shown_as : key->name));
		g_ptr_array_add(pairs, value);
	}
	g_ptr_array_add(pairs, g_strdup("CHAP"));
	g_ptr_array_add(pairs, g_strdup(keys_proved(keys)));
	g_ptr_array_add(pairs, NULL);
	return (char **)g_ptr_array_free(pairs, FALSE);
}
