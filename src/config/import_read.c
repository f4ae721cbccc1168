/*
 * import_read.c - open-iscsi's files: iscsid.conf, initiatorname.iscsi and the records of nodes.
 *
 *   nodes/IQN/HOST,PORT,TPGT/IFACE     a record each
 *   nodes/IQN/HOST,PORT                the same of older versions, and where no TPGT is known
 *
 * Lines are read as open-iscsi does (idbm_recinfo_config()): blanks at either end go, '#' begins a
 * comment, a line without '=' or value is skipped, the last of a key counts. Whatever stands there
 * ends as text, or as a sentence of what could not be read; nothing of it is trusted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "import.h"
#include "lunfs/config.h"
#include "lunfs/printable.h"

#define FILE_BYTES_MAX (1 << 20)
#define DEFAULT_PORT   3260

static const char empty_value[] = "<empty>";

struct reader {
	struct import_source *source;
	GPtrArray *troubles, *places; /* of char *; places: where it was looked */
	char *command;                /* what root would run */
};

/* ---- one file ---- */

static void free_secret(gpointer data)
{
	if (data != NULL)
		explicit_bzero(data, strlen(data));
	g_free(data);
}

static void import_file_free(struct import_file *file)
{
	if (file == NULL)
		return;
	g_free(file->path);
	g_hash_table_unref(file->values);
	g_ptr_array_unref(file->keys);
	g_free(file);
}

static void add_trouble(struct reader *reader, const char *path, int error)
{
	g_autofree char *name = printable(path);
	bool denied = error == EACCES || error == EPERM;

	g_ptr_array_add(
	    reader->troubles, g_strdup_printf("%s cannot be read: %s%s%s", name, g_strerror(error),
	                          denied ? ": try: " : "", denied ? reader->command : ""));
}

/* Like isspace(3) in the C locale, with which open-iscsi runs. */
static bool is_blank(char c)
{
	return g_ascii_isspace(c) || c == '\v';
}

/* line is changed. */
static void add_line(struct import_file *file, char *line)
{
	char *end = line + strlen(line), *key, *value;

	while (end > line && is_blank(end[-1]))
		*--end = '\0';
	while (is_blank(*line))
		line++;
	if (g_str_has_prefix(line, "# BEGIN RECORD"))
		file->cut_off = true;
	else if (g_str_has_prefix(line, "# END RECORD"))
		file->cut_off = false;
	if (*line == '\0' || *line == '#')
		return;
	key = line;
	while (*line != '\0' && *line != '=' && !is_blank(*line))
		line++;
	value = line;
	while (is_blank(*value))
		value++;
	if (*value != '=' || line == key)
		return;
	for (value++; is_blank(*value); value++)
		;
	if (*value == '\0')
		return;
	*line = '\0';
	if (!g_hash_table_contains(file->values, key))
		g_ptr_array_add(file->keys, g_strdup(key));
	g_hash_table_replace(file->values, g_strdup(key), g_strdup(value));
}

static struct import_file *parse_file(const char *path, char *text, size_t size)
{
	struct import_file *file = g_new0(struct import_file, 1);

	file->path = g_strdup(path);
	file->values = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_secret);
	file->keys = g_ptr_array_new_with_free_func(g_free);
	for (size_t i = 0; i < size;) {
		char *newline = memchr(text + i, '\n', size - i);
		size_t end = newline != NULL ? (size_t)(newline - text) : size;

		text[end] = '\0';
		add_line(file, text + i);
		i = end + 1;
	}
	return file;
}

/* Up to size bytes; -1 and errno. A FIFO or a device is none of open-iscsi's. */
static ssize_t read_bytes(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	ssize_t n = -1;
	size_t got = 0;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
		errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	} else {
		while (got < size && (n = read(fd, buffer + got, size - got)) > 0)
			got += (size_t)n;
	}
	int error = errno;
	close(fd);
	errno = error;
	return n < 0 ? -1 : (ssize_t)got;
}

/* NULL where it is not there; where it cannot be read, that is a trouble. */
static struct import_file *read_file(struct reader *reader, const char *path)
{
	struct import_file *file = NULL;
	char *buffer = g_malloc0(FILE_BYTES_MAX + 1);
	ssize_t size = read_bytes(path, buffer, FILE_BYTES_MAX);

	if (size >= 0) {
		file = parse_file(path, buffer, (size_t)size);
		g_ptr_array_add(reader->source->paths, g_strdup(path));
		explicit_bzero(buffer, (size_t)size);
	} else if (errno != ENOENT && errno != ENOTDIR) {
		add_trouble(reader, path, errno);
	}
	g_free(buffer);
	return file;
}

const char *import_value(const struct import_file *file, const char *key)
{
	const char *value = file != NULL ? g_hash_table_lookup(file->values, key) : NULL;

	return value == NULL || strcmp(value, empty_value) == 0 ? NULL : value;
}

/* ---- records ---- */

static void import_record_free(gpointer data)
{
	struct import_record *record = data;

	import_file_free(record->file);
	g_free(record->iqn);
	g_free(record->host);
	g_free(record);
}

/* "HOST,PORT[,TPGT]" of a record's path. */
static void parse_portal_name(struct import_record *record, const char *name)
{
	g_auto(GStrv) parts = g_strsplit(name, ",", 3);
	guint64 port;

	if (parts[0] == NULL || parts[1] == NULL)
		return;
	record->host = g_strdup(parts[0]);
	if (g_ascii_string_to_unsigned(parts[1], 10, 1, UINT16_MAX, &port, NULL))
		record->port = (uint16_t)port;
}

/* target and portal are the names of its directories, or NULL. */
static void add_record(
    struct reader *reader, struct import_file *file, const char *target, const char *portal)
{
	struct import_record *record = g_new0(struct import_record, 1);
	const char *name = import_value(file, IMPORT_NAME);
	const char *address = import_value(file, IMPORT_ADDRESS);
	const char *number = import_value(file, IMPORT_PORT);
	guint64 port;

	record->file = file;
	record->port = DEFAULT_PORT;
	if (portal != NULL)
		parse_portal_name(record, portal);
	if (name != NULL || target != NULL)
		record->iqn = g_strdup(name != NULL ? name : target);
	if (address != NULL) {
		g_free(record->host);
		record->host = g_strdup(address);
	}
	if (number != NULL && g_ascii_string_to_unsigned(number, 10, 1, UINT16_MAX, &port, NULL))
		record->port = (uint16_t)port;
	size_t length = record->host != NULL ? strlen(record->host) : 0;
	if (length > 2 && record->host[0] == '[' && record->host[length - 1] == ']') {
		char *bare = g_strndup(record->host + 1, length - 2);

		g_free(record->host);
		record->host = bare;
	}
	g_ptr_array_add(reader->source->records, record);
}

static int compare_names(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names in a directory, sorted; NULL where there is none. */
static GPtrArray *list_directory(struct reader *reader, const char *path)
{
	DIR *directory = opendir(path);

	if (directory == NULL) {
		if (errno != ENOENT && errno != ENOTDIR)
			add_trouble(reader, path, errno);
		return NULL;
	}
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
		if (entry->d_name[0] != '.')
			g_ptr_array_add(names, g_strdup(entry->d_name));
	closedir(directory);
	g_ptr_array_sort(names, compare_names);
	return names;
}

/* nodes/IQN/HOST,PORT[,TPGT] */
static void read_portal(
    struct reader *reader, const char *path, const char *target, const char *portal)
{
	struct stat st;

	if (stat(path, &st) != 0) {
		add_trouble(reader, path, errno);
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		struct import_file *file = read_file(reader, path);

		if (file != NULL)
			add_record(reader, file, target, portal);
		return;
	}
	g_autoptr(GPtrArray) names = list_directory(reader, path);
	for (unsigned i = 0; names != NULL && i < names->len; i++) {
		g_autofree char *below = g_build_filename(path, g_ptr_array_index(names, i), NULL);
		struct import_file *file = read_file(reader, below);

		if (file != NULL)
			add_record(reader, file, target, portal);
	}
}

/* False where it is not there. */
static bool read_nodes(struct reader *reader, const char *path)
{
	g_autoptr(GPtrArray) targets = list_directory(reader, path);

	g_ptr_array_add(reader->places, g_strdup(path));
	for (unsigned i = 0; targets != NULL && i < targets->len; i++) {
		const char *target = g_ptr_array_index(targets, i);
		g_autofree char *below = g_build_filename(path, target, NULL);
		g_autoptr(GPtrArray) portals = list_directory(reader, below);

		for (unsigned k = 0; portals != NULL && k < portals->len; k++) {
			const char *portal = g_ptr_array_index(portals, k);
			g_autofree char *record = g_build_filename(below, portal, NULL);

			if (strchr(portal, ',') != NULL)
				read_portal(reader, record, target, portal);
		}
	}
	return targets != NULL;
}

/* ---- where they are ---- */

static void read_initiator_name(struct reader *reader, const char *path)
{
	struct import_file *file = read_file(reader, path);
	const char *name = import_value(file, "InitiatorName");

	if (name != NULL) {
		reader->source->initiator_name = g_strdup(name);
		reader->source->initiator_path = g_strdup(path);
	}
	import_file_free(file);
}

/* A directory like /etc/iscsi. */
static void read_etc(struct reader *reader, const char *path)
{
	g_autofree char *conf = g_build_filename(path, "iscsid.conf", NULL);
	g_autofree char *name = g_build_filename(path, "initiatorname.iscsi", NULL);

	g_ptr_array_add(reader->places, g_strdup(path));
	reader->source->conf = read_file(reader, conf);
	read_initiator_name(reader, name);
}

static bool is_same(const char *a, const char *b)
{
	struct stat one, other;

	return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev &&
	       one.st_ino == other.st_ino;
}

static void read_root(struct reader *reader, const char *path)
{
	g_autofree char *etc = g_build_filename(path, "etc/iscsi", NULL);
	g_autofree char *in_etc = g_build_filename(etc, "nodes", NULL);
	g_autofree char *in_var = g_build_filename(path, "var/lib/iscsi/nodes", NULL);

	read_etc(reader, etc);
	read_nodes(reader, in_var);
	if (!is_same(in_etc, in_var))
		read_nodes(reader, in_etc);
}

static bool is_directory(const char *path, const char *below)
{
	g_autofree char *name = g_build_filename(path, below, NULL);

	return g_file_test(name, G_FILE_TEST_IS_DIR);
}

/* Does it hold directories that are named as targets are? */
static bool is_database(struct reader *reader, const char *path)
{
	g_autoptr(GPtrArray) names = list_directory(reader, path);

	for (unsigned i = 0; names != NULL && i < names->len; i++) {
		const char *name = g_ptr_array_index(names, i);

		if ((g_str_has_prefix(name, "iqn.") || g_str_has_prefix(name, "eui.") ||
		        g_str_has_prefix(name, "naa.")) &&
		    is_directory(path, name))
			return true;
	}
	return false;
}

/* A record of a node, an iscsid.conf, or an initiatorname.iscsi. */
static void read_one(struct reader *reader, const char *path)
{
	struct import_file *file = read_file(reader, path);
	bool has_name = import_value(file, "InitiatorName") != NULL;

	if (import_value(file, IMPORT_NAME) != NULL) {
		add_record(reader, file, NULL, NULL);
	} else if (file != NULL && file->keys->len > 0 && !has_name) {
		reader->source->conf = file;
	} else {
		import_file_free(file);
		g_ptr_array_set_size(reader->source->paths, 0);
	}
	if (has_name)
		read_initiator_name(reader, path);
}

static void read_path(struct reader *reader, const char *path)
{
	unsigned troubles = reader->troubles->len;
	struct stat st;

	if (stat(path, &st) != 0) {
		add_trouble(reader, path, errno);
	} else if (!S_ISDIR(st.st_mode)) {
		read_one(reader, path);
	} else if (is_directory(path, "etc/iscsi") || is_directory(path, "var/lib/iscsi")) {
		read_root(reader, path);
	} else if (is_database(reader, path)) {
		read_nodes(reader, path);
	} else if (reader->troubles->len == troubles) {
		g_autofree char *nodes = g_build_filename(path, "nodes", NULL);

		read_etc(reader, path);
		read_nodes(reader, nodes);
	}
}

struct import_source *import_read(const char *path, GPtrArray *troubles, GError **error)
{
	struct import_source *source = g_new0(struct import_source, 1);
	g_autofree char *quoted = path != NULL ? g_shell_quote(path) : NULL;
	g_autofree char *command =
	    g_strdup_printf("sudo lunfs import%s%s", path != NULL ? " " : "", quoted ? quoted : "");
	g_autofree char *shown = printable(command);
	g_autoptr(GPtrArray) places = g_ptr_array_new_with_free_func(g_free);
	struct reader reader = {
	    .source = source, .troubles = troubles, .places = places, .command = shown};

	source->records = g_ptr_array_new_with_free_func(import_record_free);
	source->paths = g_ptr_array_new_with_free_func(g_free);
	if (path == NULL)
		read_root(&reader, "/");
	else
		read_path(&reader, path);
	if (source->paths->len > 0)
		return source;
	if (places->len == 0)
		g_ptr_array_add(places, g_strdup(path));
	g_ptr_array_add(places, NULL);
	g_autofree char *joined = g_strjoinv(", ", (char **)places->pdata);
	g_autofree char *where = printable(joined);
	g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
	    "nothing of open-iscsi %s in %s: name its directory: lunfs import DIR",
	    troubles->len > 0 ? "can be read" : "is", where);
	import_source_free(source);
	return NULL;
}

void import_source_free(struct import_source *source)
{
	if (source == NULL)
		return;
	import_file_free(source->conf);
	g_free(source->initiator_name);
	g_free(source->initiator_path);
	g_ptr_array_unref(source->records);
	g_ptr_array_unref(source->paths);
	g_free(source);
}
