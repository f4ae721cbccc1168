/*
 * config_file.h - one configuration file, taken apart into sections and lines; private to
 * src/config and its tests.
 */
#pragma once

#include "lunfs/config.h"

/* Where a key was given. */
struct config_entry {
	const char *key, *value; /* raw, without the blanks around; both in the file's text */
	unsigned line;
	bool trailing_blank; /* there were blanks behind the value */
};

struct config_lines {
	const char *title; /* what stands in the brackets */
	unsigned line;
	GArray *entries; /* of struct config_entry; their keys are unique */
};

struct config_file {
	char *path;
	char *directory; /* for the relative paths in it; absolute */
	char *text;      /* cut apart by NUL bytes; wiped */
	size_t size;
	/* Why it must not hold a secret, with what to do about it; NULL: only its owner reads it.
	 */
	char *open_to;
	GPtrArray *sections; /* of struct config_lines; their titles are unique */
};

enum config_presence { CONFIG_THERE, CONFIG_ABSENT, CONFIG_UNREADABLE, CONFIG_FAULTY };

/* Reads path; *file is NULL unless it is CONFIG_THERE. What is wrong with its lines goes to faults.
 */
enum config_presence config_file_load(
    const char *path, struct config_file **file, GPtrArray *faults);
/* The same of bytes, as if path held them and were private. */
struct config_file *config_file_parse(
    const char *path, const void *bytes, size_t size, GPtrArray *faults);
/* Wipes it. */
void config_file_free(gpointer file);

/* What the files (of struct config_file, the most particular first) mean all told; NULL with
 * faults. */
struct config *config_build(const GPtrArray *files, GPtrArray *faults);

/* By key, for faults that are found later. */
struct config_place {
	char *file;
	unsigned line;
};
GHashTable *config_places_new(void);
void config_place_set(GHashTable *places, const char *key, const char *file, unsigned line);

/* The values of portal= and luns=; the message is without the key. */
GPtrArray *config_parse_portals(const char *text, GError **error);
GArray *config_parse_luns(const char *text, GError **error);

/* Ends with a line that says so where there are too many. key may be NULL. */
void config_fault_add(GPtrArray *faults, const char *file, unsigned line, const char *key,
    const char *format, ...) G_GNUC_PRINTF(5, 6);
/* Fit for a message: short, and nothing that a terminal would act upon. Free with g_free(). */
char *config_shown(const char *text);
