/*
 * credentials.c - CHAP names and secrets: from where they come, and that they stay here.
 *
 * A secret exists in struct credentials and nowhere else: not in a stdio buffer, not in the
 * environment (nor in its bytes, which /proc/self/environ shows), not in a message. It is wiped
 * before its memory is given back.
 */
#include "lunfs/config.h"
#include "common.h"
#include "lunfs/log.h"
#include "credentials.h"
#include "option_keys.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define fail(error, ...) config_fail(error, LUNFS_ERROR_FAILED, __VA_ARGS__)

#define USERNAME_VARIABLE    "LIBISCSI_CHAP_USERNAME"
#define PASSWORD_VARIABLE    "LIBISCSI_CHAP_PASSWORD"
#define USERNAME_IN_VARIABLE "LIBISCSI_CHAP_TARGET_USERNAME"
#define PASSWORD_IN_VARIABLE "LIBISCSI_CHAP_TARGET_PASSWORD"

/* libiscsi cuts longer ones off, silently. */
#define TEXT_MAX 255
/* What Windows and AWS accept; RFC 7143, 9.2.1 asks for 96 bits. */
#define SECRET_LENGTH_LEAST 12
#define SECRET_LENGTH_MOST  16

/* One of the two directions: the words that its messages use. */
struct direction {
	const char *user_key, *secret_key, *file_key, *secret_variable, *prompt;
};

/* What may hold one direction's secret; NULL: it does not. */
struct secret_ways {
	const char *user, *given, *path, *environment;
};

static const struct direction outgoing = {
    .user_key = "username",
    .secret_key = "password",
    .prompt = "CHAP secret",
    .file_key = "password_file",
    .secret_variable = PASSWORD_VARIABLE,
};
static const struct direction incoming = {
    .user_key = "username_in",
    .secret_key = "password_in",
    .prompt = "The target's CHAP secret,",
    .file_key = "password_in_file",
    .secret_variable = PASSWORD_IN_VARIABLE,
};

/* The variable's value, NULL where it is unset or empty; afterwards it is unset and its bytes are
 * zero. */
static char *take_variable(const char *name)
{
	const char *value = getenv(name);
	char *taken = value && *value ? g_strdup(value) : NULL;

	/* The same name can stand there more than once. */
	size_t length = strlen(name);
	for (char **entry = environ; entry && *entry; entry++) {
		if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
			explicit_bzero(*entry + length + 1, strlen(*entry + length + 1));
	}
	unsetenv(name);
	return taken;
}

struct credentials *credentials_from_environment(void)
{
	struct credentials *credentials = g_new0(struct credentials, 1);
	*credentials = (struct credentials){
	    .username = take_variable(USERNAME_VARIABLE),
	    .password = take_variable(PASSWORD_VARIABLE),
	    .username_in = take_variable(USERNAME_IN_VARIABLE),
	    .password_in = take_variable(PASSWORD_IN_VARIABLE),
	};
	return credentials;
}

void credentials_free(struct credentials *credentials)
{
	if (!credentials)
		return;
	g_free(credentials->username);
	secret_free(credentials->password);
	g_free(credentials->username_in);
	secret_free(credentials->password_in);
	g_free(credentials);
}

/* As ssh treats a private key. */
static bool check_secret_file(
    int fd, const char *path, const char *key, bool of_systemd, GError **error)
{
	g_autofree char *quoted = g_shell_quote(path);
	struct stat st;
	if (fstat(fd, &st) != 0)
		return fail(error, "%s '%s': %s", key, path, g_strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(
		    error, "%s '%s' is not a regular file: write the secret into one", key, path);
	if (of_systemd)
		return true;
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return fail(error, "%s '%s' belongs to another user: chown %u %s", key, path,
		    (unsigned)geteuid(), quoted);
	if (st.st_mode & 077)
		return fail(
		    error, "%s '%s' is open to other users: chmod 600 %s", key, path, quoted);
	return true;
}

/* The first line of what was read, as a string; a line may end as DOS ends it. */
static char *first_line(
    const char *buffer, size_t got, const char *path, const char *key, GError **error)
{
	const char *newline = memchr(buffer, '\n', got);
	size_t length = newline ? (size_t)(newline - buffer) : got;
	if (newline && length > 0 && buffer[length - 1] == '\r')
		length--;

	if (length == 0)
		fail(error, "%s '%s': its first line is empty: write the secret there", key, path);
	else if (length > TEXT_MAX)
		fail(error,
		    "%s '%s': its first line is longer than %d bytes: a secret has 12 to 16", key,
		    path, TEXT_MAX);
	else if (memchr(buffer, '\0', length))
		fail(error, "%s '%s': its first line holds a NUL byte: write the secret as text",
		    key, path);
	else
		return g_strndup(buffer, length);
	return NULL;
}

static char *read_secret_file(const char *path, const char *key, bool of_systemd, GError **error)
{
	/* Without O_NONBLOCK a FIFO would hold us here. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		fail(error, "%s '%s' cannot be opened: %s", key, path, g_strerror(errno));
		return NULL;
	}

	char *secret = NULL;
	char buffer[TEXT_MAX + sizeof("\r\n")];
	if (check_secret_file(fd, path, key, of_systemd, error)) {
		ssize_t got = read_fully(fd, buffer, sizeof(buffer));
		if (got < 0)
			fail(error, "%s '%s' cannot be read: %s", key, path, g_strerror(errno));
		else
			secret = first_line(buffer, (size_t)got, path, key, error);
		explicit_bzero(buffer, sizeof(buffer));
	}
	close(fd);
	return secret;
}

/* Names stand in messages and in a login's text keys. */
static bool check_user(const char *user, const char *key, GError **error)
{
	if (strlen(user) > TEXT_MAX)
		return fail(error, "%s is longer than %d bytes: give a shorter one", key, TEXT_MAX);
	for (const char *c = user; *c; c++) {
		if (g_ascii_iscntrl(*c))
			return fail(error, "%s holds a control character: leave it out", key);
	}
	return true;
}

static bool check_length(const struct direction *direction, const char *user, const char *secret,
    bool weak, GError **error)
{
	size_t length = strlen(secret);

	if (length > TEXT_MAX)
		return fail(error,
		    "the CHAP secret of %s '%s' is longer than %d bytes: a secret has 12 to 16",
		    direction->user_key, user, TEXT_MAX);
	if (length < SECRET_LENGTH_LEAST && !weak)
		return fail(error,
		    "the CHAP secret of %s '%s' is shorter than 12 characters, and so can be "
		    "guessed from one login that is overheard: agree on 12 to 16 with the target, "
		    "or allow it with weak_secrets=yes",
		    direction->user_key, user);
	return true;
}

static bool check_pair(const struct direction *direction, const char *user, const char *secret,
    bool weak, GError **error)
{
	if (user && !check_user(user, direction->user_key, error))
		return false;
	if (user && !secret)
		return fail(error,
		    "CHAP %s '%s' has no secret: give it with %s=FILE, in its section or behind "
		    "-o, or "
		    "for a single target with the environment variable %s",
		    direction->user_key, user, direction->file_key, direction->secret_variable);
	if (secret && !user)
		return fail(error,
		    "there is a CHAP secret (%s or %s) but no user: give one with -o %s=NAME",
		    direction->file_key, direction->secret_variable, direction->user_key);
	return !user || check_length(direction, user, secret, weak, error);
}

bool credentials_check(const struct credentials *credentials, bool weak, GError **error)
{
	if (!check_pair(&outgoing, credentials->username, credentials->password, weak, error) ||
	    !check_pair(&incoming, credentials->username_in, credentials->password_in, weak, error))
		return false;
	if (credentials->username_in && !credentials->username)
		return fail(error,
		    "mutual CHAP needs CHAP in our direction too: give -o username= and "
		    "-o password_file=FILE besides username_in");
	/* Else the target's own challenge, sent back to it, yields the answer (RFC 7143, 9.2.1). */
	if (credentials->password_in &&
	    strcmp(credentials->password, credentials->password_in) == 0)
		return fail(error, "the CHAP secrets of username and username_in are equal: "
		                   "mutual CHAP needs two different ones");
	return true;
}

/* Is the file one of systemd's? The directory is this service's alone, whatever the file's mode. */
static bool is_in(const char *path, const char *directory)
{
	g_autofree char *above = g_path_get_dirname(path);

	return directory && strcmp(above, directory) == 0;
}

/* "lunfs.NAME.password", "lunfs.password" of $CREDENTIALS_DIRECTORY; true with NULL: there is none.
 */
static bool read_credential(const struct credentials_request *request,
    const struct direction *direction, char **secret, GError **error)
{
	g_autofree char *own = g_strdup_printf(
	    "lunfs.%s.%s", request->target ? request->target : "", direction->secret_key);
	g_autofree char *common = g_strdup_printf("lunfs.%s", direction->secret_key);
	const char *const names[] = {request->target ? own : common, common};

	for (size_t i = 0; request->directory && i < G_N_ELEMENTS(names); i++) {
		g_autofree char *path = g_build_filename(request->directory, names[i], NULL);

		if (access(path, F_OK) != 0)
			continue;
		*secret = read_secret_file(path, "credential", true, error);
		return *secret != NULL;
	}
	return true;
}

static char *ask(
    const struct credentials_request *request, const struct direction *direction, const char *user)
{
	g_autofree char *prompt = NULL;
	char *secret;

	if (!request->ask || !terminal_is_there())
		return NULL;
	prompt = g_strdup_printf("%s of %s '%s' for %s: ", direction->prompt, direction->user_key,
	    user, request->target ? request->target : "the target");
	secret = terminal_ask(prompt, false);
	if (secret && request->asked)
		*request->asked = true;
	return secret;
}

static bool is_unusual(const char *secret)
{
	return secret &&
	       (strlen(secret) < SECRET_LENGTH_LEAST || strlen(secret) > SECRET_LENGTH_MOST);
}

char *credentials_warning(const struct credentials *credentials)
{
	bool out = is_unusual(credentials->password);

	if (!out && !is_unusual(credentials->password_in))
		return NULL;
	return g_strdup_printf("the CHAP secret of %s '%s' is not 12 to 16 characters long: "
	                       "Windows and AWS refuse such a secret",
	    out ? outgoing.user_key : incoming.user_key,
	    out ? credentials->username : credentials->username_in);
}

char *credentials_read_file(const char *path, const char *key, GError **error)
{
	return read_secret_file(path, key, is_in(path, g_getenv("CREDENTIALS_DIRECTORY")), error);
}

/* In the order of the header; *secret stays NULL where there is none. */
static bool find_secret(const struct credentials_request *request,
    const struct direction *direction, const struct secret_ways *ways, char **secret,
    GError **error)
{
	if (ways->given) {
		*secret = g_strdup(ways->given);
		return true;
	}
	if (ways->path) {
		*secret = read_secret_file(
		    ways->path, direction->file_key, is_in(ways->path, request->directory), error);
		return *secret != NULL;
	}
	if (ways->user && !read_credential(request, direction, secret, error))
		return false;
	if (!*secret)
		*secret = g_strdup(ways->environment);
	if (!*secret && ways->user)
		*secret = ask(request, direction, ways->user);
	return true;
}

struct credentials *credentials_find(const struct credentials_request *request, GError **error)
{
	const struct credentials none = {0};
	const struct options *options = request->options;
	const struct credentials *environment = request->environment ? request->environment : &none;
	const char *user = options->username ? options->username : request->url_user;
	struct credentials *credentials = g_new0(struct credentials, 1);

	credentials->username = g_strdup(user ? user : environment->username);
	credentials->username_in =
	    g_strdup(options->username_in ? options->username_in : environment->username_in);
	const struct secret_ways out = {credentials->username, options->password,
	    options->password_file, environment->password};
	const struct secret_ways in = {credentials->username_in, options->password_in,
	    options->password_in_file, environment->password_in};
	if (find_secret(request, &outgoing, &out, &credentials->password, error) &&
	    find_secret(request, &incoming, &in, &credentials->password_in, error) &&
	    credentials_check(credentials, options->weak_secrets, error)) {
		g_autofree char *warning = credentials_warning(credentials);

		if (warning)
			log_warning("%s%s%s", request->target ? request->target : "",
			    request->target ? ": " : "", warning);
		return credentials;
	}
	credentials_free(credentials);
	return NULL;
}

struct credentials *credentials_resolve(const struct options *options, const char *url_user,
    const struct credentials *environment, GError **error)
{
	const struct credentials_request request = {
	    .options = options,
	    .url_user = url_user,
	    .environment = environment,
	    .directory = g_getenv("CREDENTIALS_DIRECTORY"),
	};

	return credentials_find(&request, error);
}

struct credentials *credentials_copy(const struct credentials *credentials)
{
	struct credentials *copy = credentials ? g_new(struct credentials, 1) : NULL;

	if (copy)
		*copy = (struct credentials){
		    .username = g_strdup(credentials->username),
		    .password = g_strdup(credentials->password),
		    .username_in = g_strdup(credentials->username_in),
		    .password_in = g_strdup(credentials->password_in),
		};
	return copy;
}

bool credentials_equal(const struct credentials *a, const struct credentials *b)
{
	if (!a || !b)
		return a == b;
	return g_strcmp0(a->username, b->username) == 0 &&
	       g_strcmp0(a->password, b->password) == 0 &&
	       g_strcmp0(a->username_in, b->username_in) == 0 &&
	       g_strcmp0(a->password_in, b->password_in) == 0;
}
