/*
 * import.h - open-iscsi's files as they stand, and what is known of their keys; private to
 * src/config and its tests.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- files (import_read.c) ---- */

/* A file of "key = value" lines. Values may be secrets: they are wiped when it is freed. */
struct import_file {
	char *path;
	GHashTable *values; /* of a key, the last */
	GPtrArray *keys;    /* of char *, in the order of the file, each once */
	bool cut_off;       /* a record without its last line */
};
/* The record of a node: of one target, portal and interface. */
struct import_record {
	struct import_file *file;
	char *iqn;
	char *host; /* without brackets */
	uint16_t port;
};
/* All that was found. */
struct import_source {
	struct import_file *conf; /* iscsid.conf, or NULL */
	char *initiator_name;     /* of initiatorname.iscsi, or NULL */
	char *initiator_path;
	GPtrArray *records; /* of struct import_record, by path */
	GPtrArray *paths;   /* of char *: what was read */
};

/* See import_open_iscsi(). */
struct import_source *import_read(const char *path, GPtrArray *troubles, GError **error);
void import_source_free(struct import_source *source);
/* The value of key; NULL where there is none, or "<empty>". */
const char *import_value(const struct import_file *file, const char *key);

/* ---- keys (import_keys.c) ---- */

/*
 * Why a setting is not carried over, for a comment; NULL where nothing is lost: it has the value
 * that open-iscsi ships, says nothing of its own, or is one that is carried over.
 */
const char *import_key_reason(const char *key, const char *value);
/* Two records may differ in it and still mean the same: it says which portal it is. */
bool import_key_names_portal(const char *key);
/* Its value is never shown. */
bool import_key_is_secret(const char *key);

/* Where open-iscsi keeps what is carried over. */
#define IMPORT_NAME                "node.name"
#define IMPORT_ADDRESS             "node.conn[0].address"
#define IMPORT_PORT                "node.conn[0].port"
#define IMPORT_STARTUP             "node.startup"
#define IMPORT_INITIATOR_NAME      "iface.initiatorname"
#define IMPORT_AUTH_METHOD         "node.session.auth.authmethod"
#define IMPORT_USERNAME            "node.session.auth.username"
#define IMPORT_PASSWORD            "node.session.auth.password"
#define IMPORT_USERNAME_IN         "node.session.auth.username_in"
#define IMPORT_PASSWORD_IN         "node.session.auth.password_in"
#define IMPORT_REPLACEMENT_TIMEOUT "node.session.timeo.replacement_timeout"
#define IMPORT_LOGIN_TIMEOUT       "node.conn[0].timeo.login_timeout"
#define IMPORT_NOOP_INTERVAL       "node.conn[0].timeo.noop_out_interval"
#define IMPORT_NOOP_TIMEOUT        "node.conn[0].timeo.noop_out_timeout"
#define IMPORT_HEADER_DIGEST       "node.conn[0].iscsi.HeaderDigest"

/* ---- sections (import_section.c) ---- */

/* What is carried over, but for CHAP. */
struct import_setting {
	const char *from, *to;
	const char *initial; /* what lunfs does without it */
	/* Our value for open-iscsi's, or NULL; note: what is to be said about it, or NULL. */
	char *(*convert)(const char *value, const char **note);
	bool moves; /* to [defaults], where it is the same for all */
};
enum { IMPORT_SETTINGS = 6, IMPORT_SETTING_NAME = 5 };
extern const struct import_setting import_settings[IMPORT_SETTINGS];

/* A set of CHAP names and secrets; borrowed from a file. */
struct import_chap {
	const char *username, *password, *username_in, *password_in;
};

/* One section to be. */
struct import_section {
	char *iqn, *name;
	GPtrArray *records;  /* of struct import_record, borrowed */
	GPtrArray *portals;  /* of struct portal */
	GPtrArray *comments; /* of char *, without the '#' */
	char *values[IMPORT_SETTINGS];
	struct import_chap chap;
};

struct import_section *import_section_new(const char *iqn);
void import_section_free(gpointer section);
/* Of its first record, or of iscsid.conf. */
void import_section_take(struct import_section *section, const struct import_file *file);
/* A record of its target; the first one's settings count. */
void import_section_add(struct import_section *section, const struct import_record *record);
const char *import_section_value(const struct import_section *section, size_t setting);
bool import_chap_equal(const struct import_chap *a, const struct import_chap *b);
/* Adds what may stand in a comment, whatever it is. */
void import_comment(GPtrArray *comments, const char *format, ...) G_GNUC_PRINTF(2, 3);
