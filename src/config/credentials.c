/*
 * credentials.c - CHAP names and secrets: from where they come, and that they stay here.
 *
 * A secret exists in struct credentials and nowhere else: not in a stdio buffer, not in the
 * environment (nor in its bytes, which /proc/self/environ shows), not in a message. It is wiped
 * before its memory is given back.
 */
#include "lunfs/config.h"
#include "lunfs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
	const char *user_key, *file_key, *secret_variable;
};

static const struct direction outgoing = {
    .user_key = "username",
    .file_key = "password_file",
    .secret_variable = PASSWORD_VARIABLE,
};
static const struct direction incoming = {
    .user_key = "username_in",
    .file_key = "password_in_file",
    .secret_variable = PASSWORD_IN_VARIABLE,
};

static void secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	g_free(secret);
}

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

__attribute__((format(printf, 2, 3))) static bool fail(GError **error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (error)
		*error = g_error_new_valist(LUNFS_ERROR, LUNFS_ERROR_FAILED, format, arguments);
	va_end(arguments);
	return false;
}

/* As ssh treats a private key. */
static bool check_secret_file(int fd, const char *path, const char *key, GError **error)
{
	g_autofree char *quoted = g_shell_quote(path);
	struct stat st;
	if (fstat(fd, &st) != 0)
		return fail(error, "%s '%s': %s", key, path, g_strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(
		    error, "%s '%s' is not a regular file: write the secret into one", key, path);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return fail(error, "%s '%s' belongs to another user: chown %u %s", key, path,
		    (unsigned)geteuid(), quoted);
	if (st.st_mode & 077)
		return fail(
		    error, "%s '%s' is open to other users: chmod 600 %s", key, path, quoted);
	return true;
}

/* As much as there is, up to size; -1 and errno. */
static ssize_t read_fully(int fd, char *buffer, size_t size)
{
	size_t got = 0;
	while (got < size) {
		ssize_t more = read(fd, buffer + got, size - got);
		if (more < 0 && errno == EINTR)
			continue;
		if (more < 0)
			return -1;
		if (more == 0)
			break;
		got += (size_t)more;
	}
	return (ssize_t)got;
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

static char *read_secret_file(const char *path, const char *key, GError **error)
{
	/* Without O_NONBLOCK a FIFO would hold us here. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		fail(error, "%s '%s' cannot be opened: %s", key, path, g_strerror(errno));
		return NULL;
	}

	char *secret = NULL;
	char buffer[TEXT_MAX + sizeof("\r\n")];
	if (check_secret_file(fd, path, key, error)) {
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

static bool check_pair(
    const struct direction *direction, const char *user, const char *secret, GError **error)
{
	if (user && !check_user(user, direction->user_key, error))
		return false;
	if (user && !secret)
		return fail(error,
		    "CHAP %s '%s' has no secret: give it with -o %s=FILE or the environment "
		    "variable %s",
		    direction->user_key, user, direction->file_key, direction->secret_variable);
	if (secret && !user)
		return fail(error,
		    "there is a CHAP secret (%s or %s) but no user: give one with -o %s=NAME",
		    direction->file_key, direction->secret_variable, direction->user_key);
	if (!user)
		return true;

	size_t length = strlen(secret);
	if (length > TEXT_MAX)
		return fail(error,
		    "the CHAP secret of %s '%s' is longer than %d bytes: a secret has 12 to 16",
		    direction->user_key, user, TEXT_MAX);
	if (length < SECRET_LENGTH_LEAST || length > SECRET_LENGTH_MOST)
		log_warning("the CHAP secret of %s '%s' is not 12 to 16 characters long: "
		            "Windows and AWS refuse such a secret",
		    direction->user_key, user);
	return true;
}

static bool check_both(const struct credentials *credentials, GError **error)
{
	if (!check_pair(&outgoing, credentials->username, credentials->password, error) ||
	    !check_pair(&incoming, credentials->username_in, credentials->password_in, error))
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

/* From the file, where one is named, else a copy of what the environment had. */
static bool resolve_secret(char **secret, const char *path, const struct direction *direction,
    const char *from_environment, GError **error)
{
	*secret =
	    path ? read_secret_file(path, direction->file_key, error) : g_strdup(from_environment);
	return *secret || !path;
}

struct credentials *credentials_resolve(const struct options *options, const char *url_user,
    const struct credentials *environment, GError **error)
{
	const struct credentials none = {0};
	if (!environment)
		environment = &none;
	const char *user = options->username;
	if (!user)
		user = url_user ? url_user : environment->username;
	const char *user_in =
	    options->username_in ? options->username_in : environment->username_in;

	struct credentials *credentials = g_new0(struct credentials, 1);
	credentials->username = g_strdup(user);
	credentials->username_in = g_strdup(user_in);
	if (resolve_secret(&credentials->password, options->password_file, &outgoing,
	        environment->password, error) &&
	    resolve_secret(&credentials->password_in, options->password_in_file, &incoming,
	        environment->password_in, error) &&
	    check_both(credentials, error))
		return credentials;
	credentials_free(credentials);
	return NULL;
}
