/*
 * keys.c - what a login's two sides offered and answered: see keys.h.
 */
#include "keys.h"

#include <glib.h>
#include <string.h>

#include "lunfs/scsi.h"

#define HEADER_LENGTH 48u
#define PAIR_MAX      512u /* name, '=' and value; names have 63 bytes, simple values 255 */
#define VALUE_MAX     255u
#define LOGIN_REQUEST 0x03
#define LOGIN_MORE    0x40 /* C */

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
	enum rule rule;
	const char *standard; /* what holds where nobody said anything; NULL: nothing */
} all_keys[] = {
    {"TargetAlias", NULL, RULE_TEXT, NULL},
    {"TargetPortalGroupTag", NULL, RULE_DECLARED, NULL},
    {"AuthMethod", NULL, RULE_CHOICE, "None"},
    {"HeaderDigest", NULL, RULE_CHOICE, "None"},
    {"DataDigest", NULL, RULE_CHOICE, "None"},
    {"MaxRecvDataSegmentLength", NULL, RULE_DECLARED, "8192"},
    {"MaxRecvDataSegmentLength", "InitiatorMaxRecvDataSegmentLength", RULE_DECLARED2, "8192"},
    {"FirstBurstLength", NULL, RULE_MIN, "65536"},
    {"MaxBurstLength", NULL, RULE_MIN, "262144"},
    {"ImmediateData", NULL, RULE_AND, "Yes"},
    {"InitialR2T", NULL, RULE_OR, "Yes"},
    {"MaxOutstandingR2T", NULL, RULE_MIN, "1"},
    {"DefaultTime2Wait", NULL, RULE_MAX, "2"},
    {"DefaultTime2Retain", NULL, RULE_MIN, "20"},
    {"ErrorRecoveryLevel", NULL, RULE_MIN, "0"},
    {"MaxConnections", NULL, RULE_MIN, "1"},
    {"DataPDUInOrder", NULL, RULE_OR, "Yes"},
    {"DataSequenceInOrder", NULL, RULE_OR, "Yes"},
};
#define KEYS G_N_ELEMENTS(all_keys)

/* The text of a side, pair by pair. */
struct pair {
	char text[PAIR_MAX + 1];
	size_t length; /* more than PAIR_MAX: it is too long, and left out */
};

struct keys {
	char *values[2][KEYS]; /* by side */
	enum keys_side last[KEYS];
	bool challenged[2], proved[2]; /* sent CHAP_C; sent CHAP_R */
	struct pair pair[2];

	/* the initiator's PDU under way */
	uint8_t header[HEADER_LENGTH];
	size_t have; /* of it */
	size_t data, padding;
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

static void keys_note_pair(struct keys *keys, enum keys_side side, char *pair)
{
	char *value = strchr(pair, '=');

	if (value == NULL)
		return;
	*value++ = '\0';
	keys->challenged[side] |= strcmp(pair, "CHAP_C") == 0;
	keys->proved[side] |= strcmp(pair, "CHAP_R") == 0;
	for (unsigned i = 0; i < KEYS; i++) {
		if (strcmp(pair, all_keys[i].name) != 0 || strlen(value) > VALUE_MAX)
			continue;
		g_free(keys->values[side][i]);
		keys->values[side][i] = printable(value);
		keys->last[i] = side;
	}
}

static void pair_end(struct keys *keys, enum keys_side side)
{
	struct pair *pair = &keys->pair[side];

	if (pair->length > 0 && pair->length <= PAIR_MAX) {
		pair->text[pair->length] = '\0';
		keys_note_pair(keys, side, pair->text);
	}
	/* it may have been a secret's answer */
	memset(pair, 0, sizeof *pair);
}

void keys_note(
    struct keys *keys, enum keys_side side, const uint8_t *text, size_t length, bool more)
{
	struct pair *pair = &keys->pair[side];

	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\0') {
			pair_end(keys, side);
			continue;
		}
		if (pair->length < PAIR_MAX)
			pair->text[pair->length] = (char)text[i];
		if (pair->length <= PAIR_MAX)
			pair->length++;
	}
	if (!more) /* the last NUL may be missing */
		pair_end(keys, side);
}

/* A header is whole: what follows it? */
static void keys_begin_request(struct keys *keys)
{
	size_t ahs = (size_t)keys->header[4] * 4;

	keys->data = get_be32(keys->header + 4) & 0xffffff;
	keys->padding = (-keys->data & 3) + ahs; /* none has additional headers */
}

static void keys_end_request(struct keys *keys)
{
	bool login = (keys->header[0] & 0x3f) == LOGIN_REQUEST;

	if (login)
		keys_note(keys, KEYS_INITIATOR, NULL, 0, (keys->header[1] & LOGIN_MORE) != 0);
	keys->have = 0;
}

void keys_note_requests(struct keys *keys, const uint8_t *bytes, size_t length)
{
	while (length > 0) {
		size_t take;

		if (keys->have < HEADER_LENGTH) {
			take = MIN(length, HEADER_LENGTH - keys->have);
			memcpy(keys->header + keys->have, bytes, take);
			keys->have += take;
			if (keys->have == HEADER_LENGTH)
				keys_begin_request(keys);
		} else if (keys->data > 0) {
			take = MIN(length, keys->data);
			if ((keys->header[0] & 0x3f) == LOGIN_REQUEST)
				keys_note(keys, KEYS_INITIATOR, bytes, take, true);
			keys->data -= take;
		} else {
			take = MIN(length, keys->padding);
			keys->padding -= take;
		}
		bytes += take;
		length -= take;
		if (keys->have == HEADER_LENGTH && keys->data == 0 && keys->padding == 0)
			keys_end_request(keys);
	}
}

/* ---- what was agreed on ---- */

static bool is_number(const char *text, guint64 *number)
{
	return text != NULL && g_ascii_string_to_unsigned(text, 10, 0, 0xffffffff, number, NULL);
}

static bool is_yes_or_no(const char *text)
{
	return g_strcmp0(text, "Yes") == 0 || g_strcmp0(text, "No") == 0;
}

static bool is_answer_without_value(const char *text)
{
	return g_strcmp0(text, "Irrelevant") == 0 || g_strcmp0(text, "Reject") == 0 ||
	       g_strcmp0(text, "NotUnderstood") == 0;
}

static char *number_outcome(const char *ours, const char *theirs, bool most)
{
	guint64 a, b;

	if (!is_number(ours, &a) || !is_number(theirs, &b))
		return NULL;
	return g_strdup_printf("%" G_GUINT64_FORMAT, most ? MAX(a, b) : MIN(a, b));
}

static char *declared(const char *value)
{
	guint64 number;

	return is_number(value, &number) ? g_strdup(value) : NULL;
}

/* NULL: nothing. */
static char *key_outcome(const struct keys *keys, unsigned i)
{
	const char *ours = keys->values[KEYS_INITIATOR][i], *theirs = keys->values[KEYS_TARGET][i];
	bool both = is_yes_or_no(ours) && is_yes_or_no(theirs);
	bool yes = g_strcmp0(ours, "Yes") == 0, also = g_strcmp0(theirs, "Yes") == 0;

	switch (all_keys[i].rule) {
	case RULE_CHOICE:
		return ours == NULL || theirs == NULL ? NULL
		                                      : g_strdup(keys->values[keys->last[i]][i]);
	case RULE_MIN:
		return number_outcome(ours, theirs, false);
	case RULE_MAX:
		return number_outcome(ours, theirs, true);
	case RULE_AND:
		return both ? g_strdup(yes && also ? "Yes" : "No") : NULL;
	case RULE_OR:
		return both ? g_strdup(yes || also ? "Yes" : "No") : NULL;
	case RULE_DECLARED:
		return declared(theirs);
	case RULE_DECLARED2:
		return declared(ours);
	case RULE_TEXT:
		return g_strdup(theirs);
	}
	return NULL;
}

/* The target asked for a proof, and went on when it had one; libiscsi does, of the other way. */
static const char *keys_proved(const struct keys *keys)
{
	bool ours = keys->challenged[KEYS_TARGET] && keys->proved[KEYS_INITIATOR];
	bool theirs = keys->challenged[KEYS_INITIATOR] && keys->proved[KEYS_TARGET];

	return !ours ? "none" : theirs ? "mutual" : "one-way";
}

char **keys_outcome(const struct keys *keys)
{
	GPtrArray *pairs = g_ptr_array_new();

	for (unsigned i = 0; i < KEYS; i++) {
		const struct key *key = &all_keys[i];
		char *value = key_outcome(keys, i);

		if (value == NULL && !is_answer_without_value(keys->values[KEYS_TARGET][i]))
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
