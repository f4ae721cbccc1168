/*
 * test_config_credentials.c - CHAP secrets: where they come from, what is refused, and that they
 * leave no trace.
 *
 * Criterion runs each test in a process of its own: environments and standard error are a test's
 * own.
 */
#include "lunfs/config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/securebits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET    "s3cr3t-of-joe"
#define SECRET_IN "s3cr3t-of-nas"

/* A secret file in a directory of its own, and options that may name it. */
struct fixture {
	char *directory, *path;
	struct options *options;
	struct credentials *environment;
};

static struct fixture *fixture_new(void)
{
	struct fixture *fixture = g_new0(struct fixture, 1);
	fixture->directory = g_dir_make_tmp("lunfs-test-XXXXXX", NULL);
	cr_assert_not_null(fixture->directory);
	fixture->path = g_build_filename(fixture->directory, "a secret", NULL);
	fixture->options = options_new();
	return fixture;
}

static void fixture_free(struct fixture *fixture)
{
	g_remove(fixture->path);
	cr_expect_eq(g_rmdir(fixture->directory), 0);
	options_free(fixture->options);
	credentials_free(fixture->environment);
	g_free(fixture->directory);
	g_free(fixture->path);
	g_free(fixture);
}

/* As if the environment had held these; NULL for what it lacks. */
static void set_environment(struct fixture *fixture, const char *username, const char *password,
    const char *username_in, const char *password_in)
{
	credentials_free(fixture->environment);
	fixture->environment = g_new0(struct credentials, 1);
	*fixture->environment = (struct credentials){
	    .username = g_strdup(username),
	    .password = g_strdup(password),
	    .username_in = g_strdup(username_in),
	    .password_in = g_strdup(password_in),
	};
}

static void write_secret(struct fixture *fixture, const char *bytes, size_t length)
{
	g_remove(fixture->path);
	cr_assert(g_file_set_contents_full(
	    fixture->path, bytes, (gssize)length, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
	if (!fixture->options->password_file)
		fixture->options->password_file = g_strdup(fixture->path);
}

static struct credentials *resolve(struct fixture *fixture, const char *url_user)
{
	GError *error = NULL;
	struct credentials *credentials =
	    credentials_resolve(fixture->options, url_user, fixture->environment, &error);
	cr_assert(credentials, "%s", error ? error->message : "no error given");
	return credentials;
}

static char *refusal(struct fixture *fixture, const char *url_user)
{
	g_autoptr(GError) error = NULL;
	struct credentials *credentials =
	    credentials_resolve(fixture->options, url_user, fixture->environment, &error);
	cr_assert_null(credentials);
	cr_assert_not_null(error);
	cr_expect_eq(error->domain, LUNFS_ERROR);
	cr_expect_null(strchr(error->message, '\n'));
	cr_expect_null(strstr(error->message, "s3cr3t"), "told: %s", error->message);
	return g_strdup(error->message);
}

static void expect_refused(struct fixture *fixture, const char *url_user, const char *words)
{
	g_autofree char *message = refusal(fixture, url_user);
	cr_expect(strstr(message, words), "'%s' lacks '%s'", message, words);
}

static void expect_file_refused(const char *bytes, size_t length, const char *words)
{
	struct fixture *fixture = fixture_new();
	write_secret(fixture, bytes, length);
	expect_refused(fixture, "joe", words);
	fixture_free(fixture);
}

static void expect_file_gives(const char *bytes, size_t length, const char *secret)
{
	struct fixture *fixture = fixture_new();
	write_secret(fixture, bytes, length);
	struct credentials *credentials = resolve(fixture, "joe");
	cr_expect_str_eq(credentials->password, secret);
	credentials_free(credentials);
	fixture_free(fixture);
}

/* What credentials_resolve() says on standard error, with this secret. */
static char *warning_for(const char *secret)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, NULL, secret, NULL, NULL);
	fixture->options->weak_secrets = true;
	int saved = dup(STDERR_FILENO);
	int fd = open(fixture->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	cr_assert(saved >= 0 && fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
	credentials_free(resolve(fixture, "joe"));
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fd);
	char *text = NULL;
	cr_assert(g_file_get_contents(fixture->path, &text, NULL, NULL));
	fixture_free(fixture);
	return text;
}

Test(config_credentials, without_any_there_are_none)
{
	struct fixture *fixture = fixture_new();
	struct credentials *credentials = credentials_resolve(fixture->options, NULL, NULL, NULL);
	cr_assert_not_null(credentials);
	cr_expect_null(credentials->username);
	cr_expect_null(credentials->password);
	cr_expect_null(credentials->username_in);
	cr_expect_null(credentials->password_in);
	credentials_free(credentials);
	credentials_free(NULL);
	fixture_free(fixture);
}

Test(config_credentials, the_environment_is_read_and_emptied)
{
	g_setenv("LIBISCSI_CHAP_USERNAME", "joe", TRUE);
	g_setenv("LIBISCSI_CHAP_PASSWORD", SECRET, TRUE);
	g_setenv("LIBISCSI_CHAP_TARGET_USERNAME", "nas", TRUE);
	g_setenv("LIBISCSI_CHAP_TARGET_PASSWORD", SECRET_IN, TRUE);
	struct credentials *credentials = credentials_from_environment();
	cr_expect_str_eq(credentials->username, "joe");
	cr_expect_str_eq(credentials->password, SECRET);
	cr_expect_str_eq(credentials->username_in, "nas");
	cr_expect_str_eq(credentials->password_in, SECRET_IN);
	for (char **entry = environ; *entry; entry++)
		cr_expect_not(g_str_has_prefix(*entry, "LIBISCSI_CHAP_"), "%s", *entry);
	credentials_free(credentials);

	credentials = credentials_from_environment();
	cr_expect_null(credentials->username, "a second look finds nothing");
	cr_expect_null(credentials->password);
	credentials_free(credentials);
}

Test(config_credentials, an_empty_variable_is_an_unset_one)
{
	g_setenv("LIBISCSI_CHAP_USERNAME", "", TRUE);
	g_setenv("LIBISCSI_CHAP_PASSWORD", "", TRUE);
	struct credentials *credentials = credentials_from_environment();
	cr_expect_null(credentials->username);
	cr_expect_null(credentials->password);
	cr_expect_null(getenv("LIBISCSI_CHAP_PASSWORD"));
	credentials_free(credentials);
}

Test(config_credentials, the_secrets_bytes_are_overwritten_in_the_environment)
{
	/* The environment points at these very bytes, as it does at those that /proc/self/environ
	 * shows. */
	char first[] = "LIBISCSI_CHAP_PASSWORD=" SECRET;
	char second[] = "LIBISCSI_CHAP_PASSWORD=another-s3cr3t";
	char mutual[] = "LIBISCSI_CHAP_TARGET_PASSWORD=" SECRET_IN;
	char other[] = "LIBISCSI_CHAP_PASSWORDS=stay";
	char *entries[] = {other, first, second, mutual, NULL};
	char **saved = environ;
	environ = entries;
	struct credentials *credentials = credentials_from_environment();
	environ = saved;
	cr_expect_str_eq(credentials->password, SECRET);
	cr_expect_str_eq(credentials->password_in, SECRET_IN);
	credentials_free(credentials);

	cr_expect_str_eq(first, "LIBISCSI_CHAP_PASSWORD=");
	for (size_t i = strlen(first); i < sizeof(first); i++)
		cr_expect_eq(first[i], 0);
	for (size_t i = strlen(second); i < sizeof(second); i++)
		cr_expect_eq(second[i], 0);
	for (size_t i = strlen(mutual); i < sizeof(mutual); i++)
		cr_expect_eq(mutual[i], 0);
	cr_expect_str_eq(other, "LIBISCSI_CHAP_PASSWORDS=stay");
}

Test(config_credentials, options_come_before_the_url_before_the_environment)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, "env", SECRET, NULL, NULL);

	struct credentials *credentials = resolve(fixture, NULL);
	cr_expect_str_eq(credentials->username, "env");
	cr_expect_str_eq(credentials->password, SECRET);
	cr_expect_null(credentials->username_in);
	credentials_free(credentials);

	credentials = resolve(fixture, "url");
	cr_expect_str_eq(credentials->username, "url");
	credentials_free(credentials);

	fixture->options->username = g_strdup("option");
	write_secret(fixture, "from-the-file\n", 14);
	credentials = resolve(fixture, "url");
	cr_expect_str_eq(credentials->username, "option");
	cr_expect_str_eq(credentials->password, "from-the-file");
	credentials_free(credentials);
	fixture_free(fixture);
}

Test(config_credentials, mutual_chap_takes_names_from_options_and_secrets_from_files)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, NULL, "other-s3cr3t", "env", SECRET_IN);
	struct credentials *credentials = resolve(fixture, "joe");
	cr_expect_str_eq(credentials->username_in, "env");
	cr_expect_str_eq(credentials->password_in, SECRET_IN);
	credentials_free(credentials);

	write_secret(fixture, SECRET, strlen(SECRET));
	fixture->options->password_in_file = g_steal_pointer(&fixture->options->password_file);
	fixture->options->username_in = g_strdup("nas");
	credentials = resolve(fixture, "joe");
	cr_expect_str_eq(credentials->username, "joe");
	cr_expect_str_eq(credentials->password, "other-s3cr3t");
	cr_expect_str_eq(credentials->username_in, "nas");
	cr_expect_str_eq(credentials->password_in, SECRET);
	credentials_free(credentials);
	fixture_free(fixture);
}

Test(config_credentials, a_user_needs_a_secret_and_a_secret_a_user)
{
	struct fixture *fixture = fixture_new();
	expect_refused(fixture, "joe", "password_file=FILE");
	expect_refused(fixture, "joe", "LIBISCSI_CHAP_PASSWORD");
	set_environment(fixture, NULL, SECRET, NULL, NULL);
	expect_refused(fixture, NULL, "-o username=NAME");
	set_environment(fixture, NULL, SECRET, "nas", NULL);
	expect_refused(fixture, "joe", "password_in_file=FILE");
	expect_refused(fixture, "joe", "LIBISCSI_CHAP_TARGET_PASSWORD");
	set_environment(fixture, NULL, SECRET, NULL, SECRET_IN);
	expect_refused(fixture, "joe", "-o username_in=NAME");
	fixture_free(fixture);
}

Test(config_credentials, mutual_chap_needs_chap_in_our_direction)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, NULL, NULL, "nas", SECRET_IN);
	expect_refused(fixture, NULL, "mutual CHAP needs");
	fixture_free(fixture);
}

Test(config_credentials, equal_secrets_for_both_directions_are_refused)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, NULL, SECRET, "nas", SECRET);
	expect_refused(fixture, "joe", "two different ones");
	fixture_free(fixture);
}

Test(config_credentials, a_users_name_is_plain_and_not_too_long)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, "joe\nroot", SECRET, NULL, NULL);
	expect_refused(fixture, NULL, "control character");
	g_autofree char *longest = g_strnfill(256, 'u');
	expect_refused(fixture, longest, "longer than 255 bytes");
	credentials_free(resolve(fixture, longest + 1));
	fixture_free(fixture);
}

Test(config_credentials, a_secret_is_the_first_line_of_its_file)
{
	expect_file_gives(SECRET, strlen(SECRET), SECRET);
	expect_file_gives(SECRET "\n", strlen(SECRET) + 1, SECRET);
	expect_file_gives(SECRET "\r\n", strlen(SECRET) + 2, SECRET);
	expect_file_gives(SECRET "\nnotes\n", strlen(SECRET) + 7, SECRET);
	expect_file_gives(SECRET "\n\0", strlen(SECRET) + 2, SECRET);
	expect_file_gives(" with blanks \n", 14, " with blanks ");
	expect_file_gives("back\\slash,=%d\n", 15, "back\\slash,=%d");
}

Test(config_credentials, a_secret_has_at_most_255_bytes)
{
	g_autofree char *text = g_strnfill(5000, 's');
	g_autofree char *longest = g_strndup(text, 255);
	expect_file_gives(longest, 255, longest);
	expect_file_refused(text, 256, "longer than 255 bytes");
	expect_file_refused(text, 5000, "longer than 255 bytes");
	text[256] = '\n';
	expect_file_refused(text, 5000, "longer than 255 bytes");
	text[255] = '\r';
	expect_file_gives(text, 5000, longest);
	text[255] = '\n';
	expect_file_gives(text, 5000, longest);

	struct fixture *fixture = fixture_new();
	g_autofree char *given = g_strnfill(256, 's');
	set_environment(fixture, NULL, given, NULL, NULL);
	expect_refused(fixture, "joe", "longer than 255 bytes");
	fixture_free(fixture);
}

Test(config_credentials, an_empty_secret_is_refused)
{
	expect_file_refused("", 0, "empty");
	expect_file_refused("\n", 1, "empty");
	expect_file_refused("\r\n", 2, "empty");
	expect_file_refused("\n" SECRET "\n", strlen(SECRET) + 2, "empty");
}

Test(config_credentials, a_nul_byte_in_a_secret_is_refused)
{
	expect_file_refused("s3cr3t\0more\n", 12, "NUL byte");
	expect_file_refused("\0\n", 2, "NUL byte");
}

Test(config_credentials, a_file_that_others_can_use_is_refused_with_its_chmod)
{
	static const mode_t modes[] = {0640, 0620, 0610, 0604, 0602, 0601, 0644, 0666};
	struct fixture *fixture = fixture_new();
	write_secret(fixture, SECRET, strlen(SECRET));
	g_autofree char *command = g_strdup_printf("chmod 600 '%s'", fixture->path);
	for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
		cr_assert_eq(g_chmod(fixture->path, modes[i]), 0);
		expect_refused(fixture, "joe", command);
	}
	cr_assert_eq(g_chmod(fixture->path, 0700), 0);
	credentials_free(resolve(fixture, "joe"));
	cr_assert_eq(g_chmod(fixture->path, 0400), 0);
	credentials_free(resolve(fixture, "joe"));
	fixture_free(fixture);
}

Test(config_credentials, a_file_of_another_user_is_refused)
{
	if (geteuid() != 0)
		cr_skip("only root can give a file away");
	struct fixture *fixture = fixture_new();
	write_secret(fixture, SECRET, strlen(SECRET));
	cr_assert_eq(chown(fixture->path, 12345, 0), 0);
	expect_refused(fixture, "joe", "belongs to another user: chown 0 ");
	fixture_free(fixture);
}

Test(config_credentials, a_file_that_cannot_be_read_says_why)
{
	if (geteuid() != 0)
		cr_skip("only root can become another user");
	struct fixture *fixture = fixture_new();
	write_secret(fixture, SECRET, strlen(SECRET));
	cr_assert_eq(g_chmod(fixture->directory, 0755), 0);
	cr_assert_eq(seteuid(12345), 0);
	expect_refused(fixture, "joe", g_strerror(EACCES));
	cr_assert_eq(seteuid(0), 0);
	fixture_free(fixture);
}

Test(config_credentials, roots_file_serves_a_user_who_may_read_it)
{
	/* With this bit the user keeps the capability to read everything. */
	if (geteuid() != 0 || prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) != 0)
		cr_skip("only root can become another user who reads everything");
	struct fixture *fixture = fixture_new();
	write_secret(fixture, SECRET, strlen(SECRET));
	cr_assert_eq(seteuid(12345), 0);
	struct credentials *credentials = resolve(fixture, "joe");
	cr_expect_str_eq(credentials->password, SECRET);
	credentials_free(credentials);
	cr_assert_eq(seteuid(0), 0);
	fixture_free(fixture);
}

Test(config_credentials, what_is_no_regular_file_is_refused)
{
	struct fixture *fixture = fixture_new();
	fixture->options->password_file = g_strdup(fixture->path);
	expect_refused(fixture, "joe", g_strerror(ENOENT));
	cr_assert_eq(mkfifo(fixture->path, 0600), 0);
	expect_refused(fixture, "joe", "not a regular file");
	g_free(fixture->options->password_file);
	fixture->options->password_file = g_strdup(fixture->directory);
	expect_refused(fixture, "joe", "password_file ");
	expect_refused(fixture, "joe", "not a regular file");
	fixture_free(fixture);
}

Test(config_credentials, a_bad_file_is_an_error_even_where_the_environment_has_a_secret)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, "joe", SECRET, NULL, NULL);
	fixture->options->password_file = g_strdup(fixture->path);
	expect_refused(fixture, NULL, "cannot be opened");
	fixture_free(fixture);
}

Test(config_credentials, unusual_lengths_are_warned_of)
{
	static const char *const unusual[] = {"s3cr3t-of-1", "s3cr3t-of-0123456"};
	for (size_t i = 0; i < G_N_ELEMENTS(unusual); i++) {
		g_autofree char *warning = warning_for(unusual[i]);
		cr_expect(strstr(warning, "12 to 16 characters"), "'%s'", warning);
		cr_expect(strstr(warning, "Windows and AWS"), "'%s'", warning);
		cr_expect_null(strstr(warning, "s3cr3t"), "told: %s", warning);
	}
	g_autofree char *shortest = warning_for("123456789012");
	cr_expect_str_empty(shortest);
	g_autofree char *longest = warning_for("1234567890123456");
	cr_expect_str_empty(longest);
}

Test(config_credentials, a_short_secret_needs_the_word_for_it)
{
	struct fixture *fixture = fixture_new();
	set_environment(fixture, NULL, "s3cr3t-of-1", NULL, NULL);
	expect_refused(fixture, "joe", "weak_secrets=yes");
	fixture->options->weak_secrets = true;
	credentials_free(resolve(fixture, "joe"));
	set_environment(fixture, NULL, "s3cr3t-of-joe", "nas", "s3cr3t");
	fixture->options->weak_secrets = false;
	expect_refused(fixture, "joe", "username_in 'nas' is shorter");
	fixture_free(fixture);
}

Test(config_credentials, freed_memory_holds_no_secret)
{
	/* Long, as the allocator writes over the first bytes of what it gets back. */
	g_autofree char *secret = g_strnfill(200, 'S');
	g_autofree char *secret_in = g_strnfill(200, 'T');
	struct credentials *credentials = g_new0(struct credentials, 1);
	credentials->password = g_strdup(secret);
	credentials->password_in = g_strdup(secret_in);
	const off_t places[] = {
	    (off_t)(uintptr_t)credentials->password, (off_t)(uintptr_t)credentials->password_in};

	/* Through /proc: to read freed memory by pointer is an error. */
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	char bytes[200];
	cr_assert_eq(pread(fd, bytes, sizeof(bytes), places[0]), (ssize_t)sizeof(bytes));
	cr_assert_arr_eq(bytes, secret, sizeof(bytes), "this looks at the right place");

	credentials_free(credentials);
	for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
		cr_assert_eq(pread(fd, bytes, sizeof(bytes), places[i]), (ssize_t)sizeof(bytes));
		cr_expect_null(memmem(bytes, sizeof(bytes), secret + 192, 8));
		cr_expect_null(memmem(bytes, sizeof(bytes), secret_in + 192, 8));
	}
	close(fd);
}
