/*
 * config_check.c - what a configuration promises and the machine may not keep: files of secrets;
 * and what is allowed but hardly meant.
 */
#include "config_file.h"
#include "credentials.h"
#include "option_keys.h"

#include <string.h>
#include <unistd.h>

/* ---- where keys are ---- */

static void place_free(gpointer data)
{
	struct config_place *place = data;

	g_free(place->file);
	g_free(place);
}

GHashTable *config_places_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, place_free);
}

void config_place_set(GHashTable *places, const char *key, const char *file, unsigned line)
{
	struct config_place *place = g_new(struct config_place, 1);

	*place = (struct config_place){.file = g_strdup(file), .line = line};
	g_hash_table_replace(places, g_strdup(key), place);
}

/* ---- secrets ---- */

/* The options of a section, or the defaults. */
struct checked {
	const struct options *options;
	GHashTable *places;
	GPtrArray *faults, *warnings;
};

static const struct config_place *place_of(const struct checked *checked, const char *key)
{
	return g_hash_table_lookup(checked->places, key);
}

/* Without '/' it may name a credential that systemd gives to the service alone. */
static bool may_be_credential(const struct config_place *place, const char *path)
{
	g_autofree char *absolute = g_canonicalize_filename(place->file, NULL);
	g_autofree char *beside = g_path_get_dirname(absolute);
	g_autofree char *directory = g_path_get_dirname(path);

	return strcmp(beside, directory) == 0 && access(path, F_OK) != 0;
}

/* The secret where this very section names it; what is inherited is looked at where it is. */
static char *find_secret(
    const struct checked *checked, const char *key, const char *given, const char *path)
{
	g_autofree char *file_key = g_strconcat(key, "_file", NULL);
	const struct config_place *place = place_of(checked, file_key);
	g_autoptr(GError) error = NULL;
	const char *message;
	char *secret;

	if (given && place_of(checked, key))
		return g_strdup(given);
	if (!path || !place)
		return NULL;
	secret = credentials_read_file(path, file_key, &error);
	if (secret)
		return secret;
	/* It begins with the key, and so does a fault. */
	message = error->message + strlen(file_key) + 1;
	if (may_be_credential(place, path))
		config_fault_add(checked->warnings, place->file, place->line, file_key,
		    "warning: %s; it is well if systemd gives it as a credential", message);
	else
		config_fault_add(
		    checked->faults, place->file, place->line, file_key, "%s", message);
	return NULL;
}

static void check_secrets(const struct checked *checked)
{
	static const char *const keys[] = {
	    "password", "password_file", "password_in", "password_in_file"};
	const struct options *options = checked->options;
	struct credentials *found = g_new0(struct credentials, 1);
	const struct config_place *place = NULL;
	g_autoptr(GError) error = NULL;
	g_autofree char *warning = NULL;

	for (size_t i = 0; i < G_N_ELEMENTS(keys) && !place; i++)
		place = place_of(checked, keys[i]);
	found->password =
	    find_secret(checked, "password", options->password, options->password_file);
	found->password_in =
	    find_secret(checked, "password_in", options->password_in, options->password_in_file);
	/* Where the other secret comes from elsewhere there is nothing to compare it with. */
	if (!found->password)
		g_clear_pointer(&found->password_in, secret_free);
	/* Names may come from elsewhere, too. */
	if (found->password)
		found->username = g_strdup(options->username ? options->username : "?");
	if (found->password_in)
		found->username_in = g_strdup(options->username_in ? options->username_in : "?");
	if (place && !credentials_check(found, options->weak_secrets, &error))
		config_fault_add(
		    checked->faults, place->file, place->line, NULL, "%s", error->message);
	else if (place && (warning = credentials_warning(found)) != NULL)
		config_fault_add(
		    checked->warnings, place->file, place->line, NULL, "warning: %s", warning);
	credentials_free(found);
}

/* ---- one target twice ---- */

static bool share_portal(const struct config_section *a, const struct config_section *b)
{
	for (unsigned i = 0; i < a->portals->len; i++) {
		const struct portal *one = g_ptr_array_index(a->portals, i);

		for (unsigned k = 0; k < b->portals->len; k++) {
			const struct portal *other = g_ptr_array_index(b->portals, k);

			if (one->port == other->port && strcmp(one->host, other->host) == 0)
				return true;
		}
	}
	return false;
}

static bool share_lun(const GArray *a, const GArray *b)
{
	if (!a || !b)
		return true;
	for (unsigned i = 0; i < a->len; i++) {
		for (unsigned k = 0; k < b->len; k++) {
			if (g_array_index(a, uint16_t, i) == g_array_index(b, uint16_t, k))
				return true;
		}
	}
	return false;
}

static void check_twins(const struct config *config, unsigned at, GPtrArray *warnings)
{
	const struct config_section *section = g_ptr_array_index(config->sections, at);

	for (unsigned i = 0; i < at; i++) {
		const struct config_section *other = g_ptr_array_index(config->sections, i);

		if (strcmp(section->iqn, other->iqn) != 0 || !share_portal(section, other) ||
		    !share_lun(section->luns, other->luns))
			continue;
		config_fault_add(warnings, section->file, section->line, "iqn",
		    "warning: [target %s] of %s:%u is the same target: one of them can have its "
		    "LUNs for writing",
		    other->name, other->file, other->line);
		return;
	}
}

void config_check(const struct config *config, GPtrArray *faults, GPtrArray *warnings)
{
	struct checked checked = {.options = config->defaults,
	    .places = config->places,
	    .faults = faults,
	    .warnings = warnings};

	check_secrets(&checked);
	for (unsigned i = 0; i < config->sections->len; i++) {
		const struct config_section *section = g_ptr_array_index(config->sections, i);

		checked.options = section->options;
		checked.places = section->places;
		check_secrets(&checked);
		check_twins(config, i, warnings);
	}
}
