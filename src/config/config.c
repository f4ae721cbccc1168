/*
 * config.c - what configuration files mean: layers of keys, and targets.
 *
 * Built in, [defaults] of the more general files, [defaults] of the more particular ones, the
 * section: each is a layer above those before it. All faults of all files are told, those of a
 * section that another one hides, too.
 */
#include "config_file.h"
#include "nearest.h"
#include "option_keys.h"
#include "places.h"

#include <string.h>

#define TARGET     "target"
#define VALUE_MOST 4096 /* of a path */

/* ---- names ---- */

/* NAME of "[target NAME]", or NULL for another section. */
static const char *target_name(const char *title)
{
	if (!g_str_has_prefix(title, TARGET) || title[strlen(TARGET)] != ' ')
		return NULL;
	return title + strlen(TARGET " ");
}

/* Says what is wrong with a title that is neither; true where it is meant as a target's. */
static bool fault_title(
    const struct config_file *file, const struct config_lines *lines, GPtrArray *faults)
{
	size_t length = strcspn(lines->title, " \t:\"");
	g_autofree char *word = g_strndup(lines->title, length);
	g_autofree char *shown = config_shown(lines->title);
	const char *rest = lines->title + length + strspn(lines->title + length, " \t:\"");
	g_autofree char *lower = g_ascii_strdown(word, -1);
	struct nearest nearest = nearest_to(lower);

	nearest_offer(&nearest, TARGET);
	nearest_offer(&nearest, "defaults");
	bool target = nearest.found && strcmp(nearest.found, TARGET) == 0;
	g_autofree char *name = config_shown(*rest ? rest : "NAME");
	if (target && !*rest)
		config_fault_add(faults, file->path, lines->line, NULL,
		    "the section [%s] names no target: write [target NAME]", shown);
	else if (target)
		config_fault_add(faults, file->path, lines->line, NULL,
		    "unknown section [%s]: did you mean [target %s]?", shown, name);
	else if (nearest.found)
		config_fault_add(faults, file->path, lines->line, NULL,
		    "unknown section [%s]: did you mean [defaults]?", shown);
	else
		config_fault_add(faults, file->path, lines->line, NULL,
		    "unknown section [%s]: a target's is [target %s]", shown, shown);
	return target;
}

/* ---- keys ---- */

/* What a section's keys are put into. */
struct sink {
	const struct config_file *file;
	GPtrArray *faults;
	struct options *options;
	struct config_section *section; /* NULL: [defaults] */
	GHashTable *places;
	bool faulty;
};

static const char *const target_keys[] = {"portal", "iqn", "luns"};

static void fault_unknown(
    const struct sink *sink, const struct config_entry *entry, const char *reason)
{
	struct nearest nearest = nearest_to(entry->key);
	const struct option_key *key;

	for (size_t i = 0; i < G_N_ELEMENTS(target_keys); i++)
		nearest_offer(&nearest, target_keys[i]);
	for (size_t i = 0; (key = option_key_at(i)) != NULL; i++) {
		if (option_key_is_for_files(key))
			nearest_offer(&nearest, key->name);
	}
	if (strcmp(entry->key, "user") == 0)
		nearest.found = "username";
	if (nearest.found)
		config_fault_add(sink->faults, sink->file->path, entry->line, entry->key,
		    "%s: did you mean '%s'?", reason, nearest.found);
	else
		config_fault_add(sink->faults, sink->file->path, entry->line, entry->key,
		    "%s: lunfs.conf(5) lists those there are", reason);
}

static bool is_secret(const char *key)
{
	return strcmp(key, "password") == 0 || strcmp(key, "password_in") == 0;
}

/* Control characters are for nobody: names stand in messages and in a login's text. */
static bool check_value(const struct sink *sink, const struct config_entry *entry)
{
	const char *path = sink->file->path;

	for (const char *c = entry->value; *c && !is_secret(entry->key); c = g_utf8_next_char(c)) {
		if (g_unichar_iscntrl(g_utf8_get_char(c))) {
			config_fault_add(sink->faults, path, entry->line, entry->key,
			    "its value holds a control character: write it without");
			return false;
		}
	}
	if (strlen(entry->value) > VALUE_MOST && strcmp(entry->key, "portal") != 0 &&
	    strcmp(entry->key, "luns") != 0) {
		config_fault_add(sink->faults, path, entry->line, entry->key,
		    "its value is longer than %d bytes: write a shorter one", VALUE_MOST);
		return false;
	}
	if (is_secret(entry->key) && sink->file->open_to) {
		config_fault_add(
		    sink->faults, path, entry->line, entry->key, "%s", sink->file->open_to);
		return false;
	}
	/* A blank that nobody sees: meant or not, a login would be refused for it one day. */
	if (is_secret(entry->key) && entry->trailing_blank) {
		config_fault_add(sink->faults, path, entry->line, entry->key,
		    "a blank follows the secret: take it away, or, where it belongs to it, write "
		    "the secret into a %s_file",
		    entry->key);
		return false;
	}
	return true;
}

/* portal, iqn and luns. */
static bool put_target_key(
    struct config_section *section, const struct config_entry *entry, GError **error)
{
	if (strcmp(entry->key, "portal") == 0)
		return (section->portals = config_parse_portals(entry->value, error)) != NULL;
	if (strcmp(entry->key, "luns") == 0)
		return (section->luns = config_parse_luns(entry->value, error)) != NULL;
	if (!initiator_name_valid(entry->value)) {
		g_autofree char *shown = config_shown(entry->value);
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "'%s' is no target's name: write one like iqn.2026-11.org.example:disk, "
		    "eui.0123456789abcdef or naa.0123456789abcdef (see 'lunfs discover')",
		    shown);
		return false;
	}
	section->iqn = g_strdup(entry->value);
	return true;
}

static bool is_target_key(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(target_keys); i++) {
		if (strcmp(name, target_keys[i]) == 0)
			return true;
	}
	return false;
}

static bool put_key(struct sink *sink, const struct config_entry *entry)
{
	const struct option_key *key = option_key_find(entry->key);
	g_autoptr(GError) error = NULL;
	bool done;

	if (!key && !is_target_key(entry->key)) {
		fault_unknown(sink, entry, "unknown key");
		return false;
	}
	if (key && !option_key_is_for_files(key)) {
		fault_unknown(sink, entry, "this word of fstab means nothing in a file");
		return false;
	}
	if (!key && !sink->section) {
		config_fault_add(sink->faults, sink->file->path, entry->line, entry->key,
		    "this is one target's: write it into its [target NAME] section");
		return false;
	}
	if (!check_value(sink, entry))
		return false;
	done = key ? options_give(sink->options, key, entry->value, &error)
	           : put_target_key(sink->section, entry, &error);
	if (done)
		config_place_set(sink->places, entry->key, sink->file->path, entry->line);
	else
		config_fault_add(
		    sink->faults, sink->file->path, entry->line, entry->key, "%s", error->message);
	return done;
}

static const struct config_entry *find_entry(const struct config_lines *lines, const char *key)
{
	for (unsigned i = 0; i < lines->entries->len; i++) {
		const struct config_entry *entry =
		    &g_array_index(lines->entries, struct config_entry, i);

		if (strcmp(entry->key, key) == 0)
			return entry;
	}
	return NULL;
}

/* Two keys that say the same thing, or its contrary. */
static void check_pairs(struct sink *sink, const struct config_lines *lines)
{
	static const char *const pairs[][2] = {{"ro", "rw"}, {"password", "password_file"},
	    {"password_in", "password_in_file"}, {"suid", "nosuid"}, {"dev", "nodev"},
	    {"exec", "noexec"}, {"atime", "noatime"}, {"sync", "async"}};

	for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
		const struct config_entry *one = find_entry(lines, pairs[i][0]);
		const struct config_entry *other = find_entry(lines, pairs[i][1]);

		if (!one || !other)
			continue;
		config_fault_add(sink->faults, sink->file->path, MAX(one->line, other->line),
		    one->line > other->line ? pairs[i][0] : pairs[i][1],
		    "'%s' and '%s' are about the same: leave one of them out", pairs[i][0],
		    pairs[i][1]);
		sink->faulty = true;
	}
}

static void put_keys(struct sink *sink, const struct config_lines *lines)
{
	for (unsigned i = 0; i < lines->entries->len; i++) {
		if (!put_key(sink, &g_array_index(lines->entries, struct config_entry, i)))
			sink->faulty = true;
	}
	check_pairs(sink, lines);
	options_anchor_paths(sink->options, sink->file->directory);
}

/* What excludes what, once all layers are there. */
static void finish(struct sink *sink, const struct config_lines *lines)
{
	g_autoptr(GError) error = NULL;
	const char *key;

	if (sink->faulty || options_finish(sink->options, &key, &error))
		return;
	const struct config_entry *entry = find_entry(lines, key);
	config_fault_add(sink->faults, sink->file->path, entry ? entry->line : lines->line, key,
	    "%s", error->message);
}

/* ---- sections ---- */

static void section_free(gpointer data)
{
	struct config_section *section = data;

	g_free(section->name);
	g_free(section->file);
	g_clear_pointer(&section->portals, g_ptr_array_unref);
	g_free(section->iqn);
	g_clear_pointer(&section->luns, g_array_unref);
	options_free(section->options);
	g_hash_table_unref(section->places);
	g_free(section);
}

static bool is_defaults(const struct config_lines *lines)
{
	return strcmp(lines->title, "defaults") == 0;
}

/* All [defaults]. A fault of all of them together is told of the most particular one. */
struct defaults {
	struct options
	    *options; /* not finished: what follows from others follows anew in each section */
	GHashTable *places;
	const struct config_file *file;
	const struct config_lines *lines;
	bool faulty;
};

/* The most general first. */
static void build_defaults(struct defaults *defaults, const GPtrArray *files, GPtrArray *faults)
{
	for (unsigned i = files->len; i-- > 0;) {
		const struct config_file *file = g_ptr_array_index(files, i);

		for (unsigned k = 0; k < file->sections->len; k++) {
			const struct config_lines *lines = g_ptr_array_index(file->sections, k);
			struct sink sink = {.file = file,
			    .faults = faults,
			    .options = defaults->options,
			    .places = defaults->places};

			if (!is_defaults(lines))
				continue;
			put_keys(&sink, lines);
			options_next_layer(defaults->options);
			defaults->faulty |= sink.faulty;
			defaults->file = file;
			defaults->lines = lines;
		}
	}
}

static void require(const struct sink *sink, const struct config_lines *lines)
{
	if (!find_entry(lines, "portal"))
		config_fault_add(sink->faults, sink->file->path, lines->line, "portal",
		    "the section does not say where the target is: add portal=HOST[:PORT]");
	if (!find_entry(lines, "iqn"))
		config_fault_add(sink->faults, sink->file->path, lines->line, "iqn",
		    "the section does not name the target: add iqn=IQN (see 'lunfs discover')");
}

static struct config_section *build_section(const struct config_file *file,
    const struct config_lines *lines, const char *name, const struct defaults *defaults,
    GPtrArray *faults)
{
	struct config_section *section = g_new(struct config_section, 1);
	g_autofree char *wrong = name ? config_name_fault(name) : NULL;

	*section = (struct config_section){
	    .name = g_strdup(name),
	    .file = g_strdup(file->path),
	    .line = lines->line,
	    .options = options_copy(defaults->options),
	    .places = config_places_new(),
	};
	struct sink sink = {.file = file,
	    .faults = faults,
	    .options = section->options,
	    .section = section,
	    .places = section->places,
	    .faulty = defaults->faulty};
	if (wrong)
		config_fault_add(faults, file->path, lines->line, NULL, "%s", wrong);
	put_keys(&sink, lines);
	require(&sink, lines);
	finish(&sink, lines);
	return section;
}

static void build_sections(struct config *config, const struct config_file *file,
    const struct defaults *defaults, GHashTable *names, GPtrArray *faults)
{
	for (unsigned i = 0; i < file->sections->len; i++) {
		const struct config_lines *lines = g_ptr_array_index(file->sections, i);
		const char *name = target_name(lines->title);
		struct config_section *section;

		if (is_defaults(lines) || (!name && !fault_title(file, lines, faults)))
			continue;
		section = build_section(file, lines, name, defaults, faults);
		/* One of a file that goes before hides it. */
		if (name && g_hash_table_add(names, (gpointer)name))
			g_ptr_array_add(config->sections, section);
		else
			section_free(section);
	}
}

/* Those of no section: for a URL, and for the mount of all. */
static void finish_defaults(
    struct config *config, const struct defaults *defaults, GPtrArray *faults)
{
	struct sink sink = {.file = defaults->file, .faults = faults, .faulty = defaults->faulty};

	config->defaults = options_copy(defaults->options);
	config->places = g_hash_table_ref(defaults->places);
	sink.options = config->defaults;
	if (defaults->file)
		finish(&sink, defaults->lines);
}

struct config *config_build(const GPtrArray *files, GPtrArray *faults)
{
	struct config *config = g_new0(struct config, 1);
	g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
	struct defaults defaults = {.options = options_new(), .places = config_places_new()};

	config->sections = g_ptr_array_new_with_free_func(section_free);
	config->unreadable = g_ptr_array_new_with_free_func(g_free);
	config->files = g_ptr_array_new_with_free_func(g_free);
	build_defaults(&defaults, files, faults);
	finish_defaults(config, &defaults, faults);
	for (unsigned i = 0; i < files->len; i++) {
		const struct config_file *file = g_ptr_array_index(files, i);

		g_ptr_array_add(config->files, g_strdup(file->path));
		build_sections(config, file, &defaults, names, faults);
	}
	options_free(defaults.options);
	g_hash_table_unref(defaults.places);
	if (faults->len == 0)
		return config;
	config_free(config);
	return NULL;
}

static unsigned place_of(const char *const *files, const char *path)
{
	unsigned i = 0;

	while (files[i] && strcmp(files[i], path) != 0)
		i++;
	return i;
}

static int fault_order(gconstpointer a, gconstpointer b, gpointer data)
{
	const struct config_fault *one = *(const struct config_fault *const *)a;
	const struct config_fault *other = *(const struct config_fault *const *)b;
	unsigned first = place_of(data, one->file), second = place_of(data, other->file);

	if (first != second)
		return first < second ? -1 : 1;
	return one->line < other->line ? -1 : one->line > other->line;
}

struct config *config_read(const char *const *files, GPtrArray *faults)
{
	g_autoptr(GPtrArray) loaded = g_ptr_array_new_with_free_func(config_file_free);
	g_autoptr(GPtrArray) unreadable = g_ptr_array_new_with_free_func(g_free);
	struct config *config;

	for (const char *const *path = files; *path; path++) {
		struct config_file *file;

		if (config_file_load(*path, &file, faults) == CONFIG_UNREADABLE)
			g_ptr_array_add(unreadable, g_strdup(*path));
		if (file)
			g_ptr_array_add(loaded, file);
	}
	config = config_build(loaded, faults);
	g_ptr_array_sort_with_data(faults, fault_order, (gpointer)files);
	if (config) {
		g_ptr_array_unref(config->unreadable);
		config->unreadable = g_steal_pointer(&unreadable);
	}
	return config;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	options_free(config->defaults);
	g_ptr_array_unref(config->sections);
	g_ptr_array_unref(config->unreadable);
	g_ptr_array_unref(config->files);
	g_hash_table_unref(config->places);
	g_free(config);
}

char **config_files(void)
{
	g_autofree char *directory = place_find("XDG_CONFIG_HOME", ".config");
	GStrvBuilder *builder = g_strv_builder_new();
	char **files;

	if (directory) {
		g_autofree char *path = g_build_filename(directory, "lunfs", "lunfs.conf", NULL);
		g_strv_builder_add(builder, path);
	}
	g_strv_builder_add(builder, "/etc/lunfs/lunfs.conf");
	files = g_strv_builder_end(builder);
	g_strv_builder_unref(builder);
	return files;
}
