/*
 * config_text.h - configuration from a text, and its faults, for the tests of src/config.
 */
#pragma once

#include "config_home.h"

#include "../../src/config/config_file.h"
#include "../../src/config/option_keys.h"

#define NAS "[target nas]\nportal=10.0.0.5\niqn=" IQN "\n"

/* All faults, a line each. */
static inline char *told(const GPtrArray *faults)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < faults->len; i++) {
		g_autofree char *line = config_fault_describe(g_ptr_array_index(faults, i));
		cr_expect_null(strchr(line, '\n'));
		g_string_append_printf(text, "%s\n", line);
	}
	return g_string_free(text, FALSE);
}

static inline struct config *read_bytes(const char *bytes, size_t size, char **text)
{
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(config_file_free);
	struct config *config;

	g_ptr_array_add(files, config_file_parse("/x/c", bytes, size, faults));
	config = config_build(files, faults);
	*text = told(faults);
	cr_expect_eq(config == NULL, faults->len > 0);
	return config;
}

static inline struct config *must_read(const char *text)
{
	g_autofree char *faults = NULL;
	struct config *config = read_bytes(text, strlen(text), &faults);

	cr_assert_not_null(config, "%s", faults);
	return config;
}

static inline const struct config_section *section_of(const struct config *config, const char *name)
{
	for (unsigned i = 0; i < config->sections->len; i++) {
		const struct config_section *section = g_ptr_array_index(config->sections, i);
		if (strcmp(section->name, name) == 0)
			return section;
	}
	cr_assert_fail("there is no section %s", name);
	return NULL;
}

static inline void expect_bytes_faults(const char *bytes, size_t size, const char *expected)
{
	g_autofree char *faults = NULL;
	struct config *config = read_bytes(bytes, size, &faults);

	cr_expect_null(config);
	cr_expect(strstr(faults, expected), "'%s' lacks '%s'", faults, expected);
	cr_expect_null(strstr(faults, "s3cr3t"), "told: %s", faults);
	config_free(config);
}

static inline void expect_faults(const char *text, const char *expected)
{
	expect_bytes_faults(text, strlen(text), expected);
}

/* The only fault there is. */
static inline void expect_fault(const char *text, const char *expected)
{
	g_autofree char *faults = NULL;
	struct config *config = read_bytes(text, strlen(text), &faults);
	g_autofree char *line = g_strconcat(expected, "\n", NULL);

	cr_expect_str_eq(faults, line);
	config_free(config);
}
