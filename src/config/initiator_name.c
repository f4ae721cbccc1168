/*
 * initiator_name.c - by which name this machine logs in.
 *
 * Targets allow initiators by name, so the name must stay: the one of open-iscsi where it can be
 * read, else one made once for each user and machine and kept as initiatorname-<machine-id>; with
 * the machine in the file's name, two machines that share a home directory get two names. The file
 * is complete before it appears under its name, and never replaced: whoever comes second takes what
 * is there.
 */
#include "lunfs/config.h"
#include "initiator_name.h"
#include "places.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 223
#define RANDOM_BYTES   6

static bool hex_digits(const char *text, size_t count)
{
	size_t length = strlen(text);
	return length == count && strspn(text, G_CSET_DIGITS "abcdefABCDEF") == length;
}

/* What follows "iqn.": YYYY-MM.reversed.domain[:anything] */
static bool iqn_body_valid(const char *body)
{
	for (int i = 0; i < 7; i++) {
		if (i == 4 ? body[i] != '-' : !g_ascii_isdigit(body[i]))
			return false;
	}
	int month = (body[5] - '0') * 10 + body[6] - '0';
	return month >= 1 && month <= 12 && body[7] == '.' && body[8] && !strchr(".:", body[8]);
}

/* RFC 3722 forbids the other ASCII characters; '_' too, but targets use it, so we do not insist. */
static bool characters_valid(const char *name)
{
	if (!g_utf8_validate(name, -1, NULL))
		return false;
	for (; *name; name = g_utf8_next_char(name)) {
		gunichar c = g_utf8_get_char(name);
		if (c < 0x80 && !g_ascii_isalnum((char)c) && !strchr("-._:", (int)c))
			return false;
		if (c >= 0x80 && !g_unichar_isgraph(c))
			return false;
	}
	return true;
}

bool initiator_name_valid(const char *name)
{
	if (strlen(name) > NAME_MAX_BYTES || !characters_valid(name))
		return false;
	if (g_str_has_prefix(name, "iqn."))
		return iqn_body_valid(name + strlen("iqn."));
	if (g_str_has_prefix(name, "eui."))
		return hex_digits(name + strlen("eui."), 16);
	if (g_str_has_prefix(name, "naa."))
		return hex_digits(name + strlen("naa."), 16) ||
		       hex_digits(name + strlen("naa."), 32);
	return false;
}

/* open-iscsi's file. NULL without an error: it is not there, not for us, or has no name. */
static char *read_open_iscsi(const char *path, GError **error)
{
	static const char key[] = "InitiatorName=";
	g_autofree char *text = NULL;
	if (!g_file_get_contents(path, &text, NULL, NULL))
		return NULL;

	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++) {
		g_strstrip(*line);
		if (!g_str_has_prefix(*line, key))
			continue;
		const char *name = g_strstrip(*line + strlen(key));
		if (initiator_name_valid(name))
			return g_strdup(name);
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "%s: its InitiatorName= is no iSCSI name: correct it, or give one with -o "
		    "initiator_name=IQN",
		    path);
		return NULL;
	}
	return NULL;
}

/* Lower case; what an iSCSI name or a file's name cannot hold becomes '-'. */
static char *plain_word(const char *text)
{
	char *word = g_ascii_strdown(text, -1);
	g_strcanon(word, G_CSET_a_2_z G_CSET_DIGITS ".-", '-');
	return word;
}

/* Names this machine in the kept file's name. An early boot writes "uninitialized" there. */
static char *machine_word(const struct initiator_name_places *places)
{
	g_autofree char *text = NULL;
	if (g_file_get_contents(places->machine_id, &text, NULL, NULL)) {
		g_strstrip(text);
		if (hex_digits(text, 32))
			return g_ascii_strdown(text, -1);
	}
	return plain_word(places->host);
}

/* NULL without an error: nothing is kept yet. */
static char *read_kept(const char *path, GError **error)
{
	g_autofree char *text = NULL;
	g_autoptr(GError) reason = NULL;
	if (!g_file_get_contents(path, &text, NULL, &reason)) {
		if (!g_error_matches(reason, G_FILE_ERROR, G_FILE_ERROR_NOENT))
			g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
			    "the initiator name kept there cannot be read: %s: "
			    "give one with -o initiator_name=IQN",
			    reason->message);
		return NULL;
	}
	g_strstrip(text);
	if (initiator_name_valid(text))
		return g_steal_pointer(&text);
	g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
	    "%s: it holds no iSCSI name: remove it, or give one with -o initiator_name=IQN", path);
	return NULL;
}

static char *make_name(const char *host)
{
	unsigned char bytes[RANDOM_BYTES];
	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return NULL;
	g_autofree char *word = plain_word(*host ? host : "localhost");
	GString *name = g_string_new(NULL);
	g_string_printf(name, "iqn.2026-11.org.lunfs:%.*s-", HOST_NAME_MAX, word);
	for (size_t i = 0; i < sizeof(bytes); i++)
		g_string_append_printf(name, "%02x", bytes[i]);
	return g_string_free(name, FALSE);
}

static bool write_line(int fd, const char *name)
{
	g_autofree char *line = g_strconcat(name, "\n", NULL);
	size_t length = strlen(line);
	return write(fd, line, length) == (ssize_t)length && fsync(fd) == 0;
}

/*
 * Gives the file its name unless that is taken (EEXIST). link() is what NFS can do; FAT and its
 * like cannot, but they can rename without replacing.
 */
static int publish(const char *from, const char *to)
{
	if (link(from, to) == 0)
		return 0;
	if (errno == EEXIST)
		return -EEXIST;
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0 ? 0 : -errno;
}

/* Returns 0, -EEXIST where another process was first, or another -errno. */
static int keep_name(const char *directory, const char *path, const char *name)
{
	if (g_mkdir_with_parents(directory, 0700) != 0)
		return -errno;
	g_autofree char *temporary = g_build_filename(directory, ".initiatorname-XXXXXX", NULL);
	int fd = g_mkstemp_full(temporary, O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;

	errno = 0;
	int result = write_line(fd, name) ? 0 : errno ? -errno : -ENOSPC;
	close(fd);
	if (result == 0)
		result = publish(temporary, path);
	unlink(temporary);
	return result;
}

static char *find_kept(const struct initiator_name_places *places, GError **error)
{
	if (!places->state_directory) {
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "no home directory to keep an initiator name in: give one with -o "
		    "initiator_name=IQN");
		return NULL;
	}
	g_autofree char *machine = machine_word(places);
	g_autofree char *file = g_strconcat("initiatorname-", machine, NULL);
	g_autofree char *directory = g_build_filename(places->state_directory, "lunfs", NULL);
	g_autofree char *path = g_build_filename(directory, file, NULL);

	GError *reason = NULL;
	char *kept = read_kept(path, &reason);
	if (kept || reason) {
		if (reason)
			g_propagate_error(error, reason);
		return kept;
	}

	g_autofree char *name = make_name(places->host);
	int result = name ? keep_name(directory, path, name) : -EIO;
	if (result == 0)
		return g_steal_pointer(&name);
	if (result == -EEXIST && (kept = read_kept(path, &reason)))
		return kept;
	if (reason)
		g_propagate_error(error, reason);
	else
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_FAILED,
		    "%s: the initiator name cannot be kept there: %s: give one with -o "
		    "initiator_name=IQN",
		    directory, g_strerror(-result));
	return NULL;
}

char *initiator_name_find(const struct initiator_name_places *places, GError **error)
{
	GError *reason = NULL;
	char *name = read_open_iscsi(places->open_iscsi, &reason);
	if (reason)
		g_propagate_error(error, reason);
	return name || reason ? name : find_kept(places, error);
}

char *initiator_name_state_directory(void)
{
	return place_find("XDG_STATE_HOME", ".local/state");
}

char *initiator_name_get(const char *given, GError **error)
{
	if (given) {
		if (initiator_name_valid(given))
			return g_strdup(given);
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE,
		    "option 'initiator_name': '%s' is no iSCSI name: write one like "
		    "iqn.2026-11.org.example:host",
		    given);
		return NULL;
	}

	char host[HOST_NAME_MAX + 1] = "";
	if (gethostname(host, sizeof(host) - 1) != 0)
		host[0] = '\0';
	g_autofree char *state = initiator_name_state_directory();
	const struct initiator_name_places places = {
	    .open_iscsi = "/etc/iscsi/initiatorname.iscsi",
	    .state_directory = state,
	    .machine_id = "/etc/machine-id",
	    .host = host,
	};
	return initiator_name_find(&places, error);
}
