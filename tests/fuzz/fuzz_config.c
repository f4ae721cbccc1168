/*
 * fuzz_config.c - lunfs.conf, whatever stands in it: the second fuzz target.
 *
 * An input is one file or, where it holds the byte 1Ch, two: the user's and the machine's. What
 * must hold:
 *   - there are faults or there is a configuration, never both and never neither;
 *   - a fault is one line of text that a terminal does not act upon, and names a line of its file;
 *   - a secret is in no fault;
 *   - what is accepted is complete and valid, and what config_format_section() makes of it is
 * accepted again as the same;
 *   - no memory is lost, none is used that is not ours (the sanitizers).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/config/config_file.h"

#define FILE_SEPARATOR 0x1c
#define SECRET         "zq-s3cr3t-zq"

static const char *const paths[] = {"/home/x/lunfs.conf", "/etc/lunfs/lunfs.conf"};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz: %s\n", what);
	abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

/* ---- what must hold ---- */

static void check_fault(const struct config_fault *fault, unsigned lines, bool secret)
{
	g_autofree char *text = config_fault_describe(fault);

	must(g_utf8_validate(text, -1, NULL), "a fault is no text");
	for (const char *c = text; *c; c = g_utf8_next_char(c))
		must(!g_unichar_iscntrl(g_utf8_get_char(c)), "a fault holds a control character");
	must(fault->line <= lines, "a fault is behind the file's end");
	must(!secret || strstr(text, SECRET) == NULL, "a fault tells a secret");
}

static void check_again(const struct config_section *section)
{
	g_autofree char *text =
	    config_format_section(section->name, section->portals, section->iqn, NULL);
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(config_file_free);

	g_ptr_array_add(files, config_file_parse(paths[0], text, strlen(text), faults));
	struct config *config = config_build(files, faults);
	must(config && config->sections->len == 1, "its own section is not understood");
	const struct config_section *other = g_ptr_array_index(config->sections, 0);
	must(strcmp(section->name, other->name) == 0 && strcmp(section->iqn, other->iqn) == 0 &&
	         portals_equal(section->portals, other->portals),
	    "its own section is another");
	config_free(config);
}

static void check_section(const struct config_section *section, GHashTable *names)
{
	g_autofree char *wrong = config_name_fault(section->name);

	must(!wrong && g_hash_table_add(names, section->name), "a name is bad or there twice");
	must(section->portals && section->portals->len > 0, "a section has no portal");
	must(section->iqn && initiator_name_valid(section->iqn), "a section has no target");
	for (unsigned i = 1; section->luns && i < section->luns->len; i++)
		must(g_array_index(section->luns, uint16_t, i - 1) <
		         g_array_index(section->luns, uint16_t, i),
		    "LUNs are not in order");
	must(!section->options->shared || section->options->cache == CACHE_NONE,
	    "shared and cached");
	must(!section->options->allow_other || !section->options->allow_root, "two are allowed");
	check_again(section);
}

static void check_config(const struct config *config)
{
	g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (unsigned i = 0; i < config->sections->len; i++) {
		const struct config_section *section = g_ptr_array_index(config->sections, i);
		g_autofree char *name = config_suggest_name(section->iqn, taken);
		g_autofree char *wrong = config_name_fault(name);

		must(!wrong, "a suggested name is bad");
		check_section(section, names);
	}
}

/* ---- the input ---- */

/* As if others could read it, every second time; and with a secret, which is to stay one. */
static void add_file(GPtrArray *files, const uint8_t *bytes, size_t size, GPtrArray *faults)
{
	static const char secret[] = "[defaults]\npassword=" SECRET "\n";
	g_autoptr(GString) text = g_string_new(size % 3 == 0 ? secret : NULL);

	g_string_append_len(text, (const char *)bytes, (gssize)size);
	struct config_file *file =
	    config_file_parse(paths[files->len], text->str, text->len, faults);
	if (size % 2 == 0)
		file->open_to = g_strdup("the file is open to other users");
	g_ptr_array_add(files, file);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(config_file_free);
	const uint8_t *separator = size > 0 ? memchr(input, FILE_SEPARATOR, size) : NULL;
	size_t first = separator ? (size_t)(separator - input) : size;
	/* libFuzzer finds the word, and may write it where it is none. */
	bool secret = size == 0 || memmem(input, size, SECRET, strlen(SECRET)) == NULL;
	unsigned lines = 4;

	for (size_t i = 0; i < size; i++)
		lines += input[i] == '\n';
	add_file(files, input, first, faults);
	if (separator)
		add_file(files, separator + 1, size - first - 1, faults);
	struct config *config = config_build(files, faults);
	must((config == NULL) == (faults->len > 0), "neither faults nor a configuration, or both");
	for (unsigned i = 0; i < faults->len; i++)
		check_fault(g_ptr_array_index(faults, i), lines, secret);
	if (config)
		check_config(config);
	config_free(config);
	return 0;
}
