/*
 * config_file.c - the lines of a configuration file: [sections], KEY=VALUE, comments.
 *
 * The syntax is that of GKeyFile, which editors and people know: '#' begins a comment line, blanks
 * around keys and before values do not count, lines may end as DOS ends them. GKeyFile itself is
 * not used: it forgets line numbers, joins sections of one name, keeps the last of two equal keys
 * without a word, stops at the first fault, and undoes escapes in passwords. Here a value is what
 * stands there, and all that is wrong is told, by line.
 *
 * The text is read once, cut apart in place, and wiped in the end: it may hold secrets. So no
 * message repeats a line that is not understood.
 */
#include "config_file.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_MOST   ((size_t)1 << 20)
#define FAULTS_MOST 1000u
#define SHOWN_MOST  64

/* ---- faults ---- */

void config_fault_free(gpointer data)
{
	struct config_fault *fault = data;

	g_free(fault->file);
	g_free(fault->key);
	g_free(fault->text);
	g_free(fault);
}

char *config_fault_describe(const struct config_fault *fault)
{
	g_autoptr(GString) text = g_string_new(fault->file);

	if (fault->line > 0)
		g_string_append_printf(text, ":%u", fault->line);
	g_string_append(text, ": ");
	if (fault->key)
		g_string_append_printf(text, "%s: ", fault->key);
	g_string_append(text, fault->text);
	return g_strdup(text->str);
}

/* What of a value is in a message must not act upon a terminal. */
static void make_plain(char **text)
{
	GString *plain = g_string_new(NULL);
	g_autofree char *valid = g_utf8_make_valid(*text, -1);

	for (const char *c = valid; *c; c = g_utf8_next_char(c)) {
		gunichar letter = g_utf8_get_char(c);
		g_string_append_unichar(plain, g_unichar_isprint(letter) ? letter : '?');
	}
	g_free(*text);
	*text = g_string_free(plain, FALSE);
}

void config_fault_add(
    GPtrArray *faults, const char *file, unsigned line, const char *key, const char *format, ...)
{
	struct config_fault *fault;
	va_list arguments;

	if (faults->len >= FAULTS_MOST)
		return;
	fault = g_new0(struct config_fault, 1);
	fault->file = g_strdup(file);
	fault->line = line;
	g_ptr_array_add(faults, fault);
	if (faults->len == FAULTS_MOST) {
		fault->text = g_strdup("there are more faults than are told here");
		return;
	}
	fault->key = key ? config_shown(key) : NULL;
	va_start(arguments, format);
	fault->text = g_strdup_vprintf(format, arguments);
	va_end(arguments);
	make_plain(&fault->text);
}

char *config_shown(const char *text)
{
	g_autoptr(GString) shown = g_string_new(NULL);
	unsigned count = 0;

	for (; *text && count < SHOWN_MOST; text = g_utf8_next_char(text), count++) {
		gunichar c = g_utf8_get_char(text);

		g_string_append_unichar(shown, g_unichar_isprint(c) ? c : '?');
	}
	if (*text)
		g_string_append(shown, "...");
	return g_strdup(shown->str);
}

/* ---- lines ---- */

static void lines_free(gpointer data)
{
	struct config_lines *lines = data;

	g_array_unref(lines->entries);
	g_free(lines);
}

/* What was seen before, and on which line. */
struct parser {
	struct config_file *file;
	GPtrArray *faults;
	struct config_lines *section; /* NULL: none yet, or one that has no name */
	GHashTable *titles, *keys;    /* of the file; of the section */
	bool stray_told, astray;      /* lines before any section; under a faulty heading */
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* "[TITLE]", and blanks. line is ended where the bracket was. */
static void parse_heading(struct parser *parser, char *line, unsigned number)
{
	struct config_file *file = parser->file;
	char *end = strrchr(line, ']');

	parser->section = NULL;
	parser->astray = true;
	g_hash_table_remove_all(parser->keys);
	if (!end) {
		config_fault_add(parser->faults, file->path, number, NULL,
		    "the ']' behind the section's name is missing");
		return;
	}
	if (end[1]) {
		config_fault_add(parser->faults, file->path, number, NULL,
		    "something follows the ']' of the section: a comment needs a line of its own");
		return;
	}
	*end = '\0';

	const char *title = line + 1;
	unsigned before = GPOINTER_TO_UINT(g_hash_table_lookup(parser->titles, title));
	if (before) {
		g_autofree char *shown = config_shown(title);
		config_fault_add(parser->faults, file->path, number, NULL,
		    "the section [%s] is there already, on line %u: make one of them", shown,
		    before);
	} else {
		g_hash_table_insert(parser->titles, (gpointer)title, GUINT_TO_POINTER(number));
	}
	parser->section = g_new(struct config_lines, 1);
	*parser->section = (struct config_lines){
	    .title = title,
	    .line = number,
	    .entries = g_array_new(FALSE, FALSE, sizeof(struct config_entry)),
	};
	/* One that repeats another is looked at, but kept apart from it: the result is none anyway.
	 */
	g_ptr_array_add(file->sections, parser->section);
}

static bool check_entry(struct parser *parser, const struct config_entry *entry)
{
	const char *path = parser->file->path;
	unsigned before;

	if (!*entry->key) {
		config_fault_add(parser->faults, path, entry->line, NULL,
		    "there is no key before the '=': write KEY=VALUE");
		return false;
	}
	if (!parser->section) {
		if (!parser->stray_told && !parser->astray)
			config_fault_add(parser->faults, path, entry->line, entry->key,
			    "it stands before any section: write [defaults] or [target NAME] "
			    "above");
		parser->stray_told = true;
		return false;
	}
	before = GPOINTER_TO_UINT(g_hash_table_lookup(parser->keys, entry->key));
	if (before) {
		config_fault_add(parser->faults, path, entry->line, entry->key,
		    "it is there already, on line %u: leave one of them out", before);
		return false;
	}
	if (!*entry->value) {
		config_fault_add(parser->faults, path, entry->line, entry->key,
		    "its value is missing: write one, or leave the line out");
		return false;
	}
	return true;
}

/* "KEY = VALUE"; line has no blanks around. */
static void parse_entry(struct parser *parser, char *line, unsigned number, bool trailing_blank)
{
	char *equals = strchr(line, '=');
	char *end = equals;
	struct config_entry entry = {.key = line, .line = number, .trailing_blank = trailing_blank};

	if (!equals) {
		config_fault_add(parser->faults, parser->file->path, number, NULL,
		    "this is no KEY=VALUE, no [section] and no comment, which begins with '#'");
		return;
	}
	while (end > line && is_blank(end[-1]))
		end--;
	*end = '\0';
	do
		equals++;
	while (is_blank(*equals));
	entry.value = equals;
	if (!check_entry(parser, &entry))
		return;
	g_hash_table_insert(parser->keys, (gpointer)entry.key, GUINT_TO_POINTER(number));
	g_array_append_val(parser->section->entries, entry);
}

/* A line, ended by NUL; length is without it. */
static void parse_line(struct parser *parser, char *line, size_t length, unsigned number)
{
	bool trailing_blank = false;

	if (strlen(line) != length) {
		config_fault_add(parser->faults, parser->file->path, number, NULL,
		    "it holds a NUL byte: save the file as text, in UTF-8");
		return;
	}
	if (!g_utf8_validate(line, (gssize)length, NULL)) {
		config_fault_add(parser->faults, parser->file->path, number, NULL,
		    "it is not UTF-8: save the file in UTF-8; what is none goes into a "
		    "password_file");
		return;
	}
	if (length > 0 && line[length - 1] == '\r')
		line[--length] = '\0';
	for (; is_blank(*line); length--)
		line++;
	for (; length > 0 && is_blank(line[length - 1]); trailing_blank = true)
		line[--length] = '\0';
	if (length == 0 || *line == '#')
		return;
	if (*line == '[')
		parse_heading(parser, line, number);
	else
		parse_entry(parser, line, number, trailing_blank);
}

/* UTF-16 has NUL bytes in each line: one fault tells it better than all of them. */
static bool is_utf16(const char *text, size_t size)
{
	return size >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0);
}

static void parse_text(struct config_file *file, GPtrArray *faults)
{
	struct parser parser = {.file = file,
	    .faults = faults,
	    .titles = g_hash_table_new(g_str_hash, g_str_equal),
	    .keys = g_hash_table_new(g_str_hash, g_str_equal)};
	char *text = file->text, *end = file->text + file->size;

	if (is_utf16(text, file->size)) {
		config_fault_add(
		    faults, file->path, 1, NULL, "the file is in UTF-16: save it in UTF-8");
		text = end;
	} else if (file->size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3; /* as Windows' editors write it */
	}
	for (unsigned number = 1; text < end; number++) {
		char *newline = memchr(text, '\n', (size_t)(end - text));
		char *stop = newline ? newline : end;

		*stop = '\0';
		parse_line(&parser, text, (size_t)(stop - text), number);
		text = stop + 1;
	}
	g_hash_table_unref(parser.titles);
	g_hash_table_unref(parser.keys);
}

/* ---- the file ---- */

static struct config_file *file_new(const char *path, size_t room)
{
	struct config_file *file = g_new0(struct config_file, 1);
	g_autofree char *absolute = g_canonicalize_filename(path, NULL);

	*file = (struct config_file){
	    .path = g_strdup(path),
	    .directory = g_path_get_dirname(absolute),
	    .text = g_malloc(room + 1),
	    .sections = g_ptr_array_new_with_free_func(lines_free),
	};
	return file;
}

void config_file_free(gpointer data)
{
	struct config_file *file = data;

	if (!file)
		return;
	explicit_bzero(file->text, file->size);
	g_free(file->path);
	g_free(file->directory);
	g_free(file->text);
	g_free(file->open_to);
	g_ptr_array_unref(file->sections);
	g_free(file);
}

struct config_file *config_file_parse(
    const char *path, const void *bytes, size_t size, GPtrArray *faults)
{
	struct config_file *file = file_new(path, size);

	if (size > 0)
		memcpy(file->text, bytes, size);
	file->size = size;
	parse_text(file, faults);
	return file;
}

/* As ssh treats a private key. */
static char *who_reads(const struct stat *st, const char *path)
{
	g_autofree char *quoted = g_shell_quote(path);

	if (st->st_uid != geteuid() && st->st_uid != 0)
		return g_strdup_printf("the file belongs to another user and holds a secret: "
		                       "chown %u %s",
		    (unsigned)geteuid(), quoted);
	if (st->st_mode & 077)
		return g_strdup_printf(
		    "the file is open to other users and holds a secret: chmod 600 %s", quoted);
	return NULL;
}

static enum config_presence load_open(
    int fd, const char *path, struct config_file **result, GPtrArray *faults)
{
	struct stat st;
	ssize_t got;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		config_fault_add(
		    faults, path, 0, NULL, "it is no regular file, as a configuration file is");
		return CONFIG_FAULTY;
	}
	struct config_file *file = file_new(path, SIZE_MOST + 1);
	got = read_fully(fd, file->text, SIZE_MOST + 1);
	if (got >= 0 && (size_t)got <= SIZE_MOST) {
		file->size = (size_t)got;
		file->open_to = who_reads(&st, path);
		parse_text(file, faults);
		*result = file;
		return CONFIG_THERE;
	}
	if (got < 0)
		config_fault_add(faults, path, 0, NULL, "it cannot be read: %s", g_strerror(errno));
	else
		config_fault_add(
		    faults, path, 0, NULL, "it is larger than 1 MiB: is it a configuration file?");
	file->size = SIZE_MOST + 1;
	config_file_free(file);
	return CONFIG_FAULTY;
}

enum config_presence config_file_load(
    const char *path, struct config_file **file, GPtrArray *faults)
{
	/* Without O_NONBLOCK a FIFO would hold us here. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	enum config_presence presence;

	*file = NULL;
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return CONFIG_ABSENT;
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return CONFIG_UNREADABLE;
	if (fd < 0) {
		config_fault_add(
		    faults, path, 0, NULL, "it cannot be opened: %s", g_strerror(errno));
		return CONFIG_FAULTY;
	}
	presence = load_open(fd, path, file, faults);
	close(fd);
	return presence;
}
