/*
 * option_keys.h - the table of keys, and what options_new() really makes; private to src/config.
 */
#pragma once

#include "lunfs/config.h"

#include <stddef.h>

struct option_key;
/* Without "option 'KEY': " in its message. */
typedef bool option_setter(
    struct options *options, const struct option_key *key, const char *value, GError **error);

struct option_key {
	const char *name;
	/* With -o. A secret is never one's value there; in a file all of them have one. */
	enum { NO_VALUE, A_VALUE, MAYBE_A_VALUE, A_SECRET } takes;
	option_setter *set;
	size_t offset; /* of the field in struct options, where the setter serves several */
};

#define OPTION_KEYS_MOST 80

struct parsed_options {
	struct options options; /* the first member */
	/* In which layer a key was given; 0: in none. What is copied is a layer below the copy. */
	unsigned char given[OPTION_KEYS_MOST];
	unsigned char layer;
	bool aws;
};

const struct option_key *option_key_find(const char *name);
/* The i-th of the table, or NULL behind its end. */
const struct option_key *option_key_at(size_t i);
size_t option_key_index(const struct option_key *key);
/* Not a word of fstab or mount(8) alone. */
bool option_key_is_for_files(const struct option_key *key);
/* KEY=VALUE of a file, where a flag is yes or no; remembers nothing of layers. */
bool option_set_in_file(
    struct options *options, const struct option_key *key, const char *value, GError **error);
/* yes, true, 1; no, false, 0. */
bool option_switch_parse(const char *text, bool *on);

/* As of a file: in the layer that the options have now. value is not empty. */
bool options_give(
    struct options *options, const struct option_key *key, const char *value, GError **error);
/* What is given from here on goes before what was given, where the two exclude each other. */
void options_next_layer(struct options *options);
/*
 * After all keys: fills in what follows from others, and checks what excludes what; *key is the one
 * to blame. May be called again after more keys.
 */
bool options_finish(struct options *options, const char **key, GError **error);
/* Paths that are not absolute are meant below directory, or are names in $CREDENTIALS_DIRECTORY. */
void options_anchor_paths(struct options *options, const char *directory);

/* Wipes it. */
void secret_free(char *secret);
