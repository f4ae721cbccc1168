/*
 * test_config_initiator_name.c - the initiator's name: what is one, where it comes from, and that
 * it stays.
 *
 * Each test has a directory of its own in which the files of a machine and the state of a user lie.
 */
#include "lunfs/config.h"
#include "../../src/config/initiator_name.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MACHINE "0123456789abcdef0123456789abcdef"

struct fixture {
	char *directory, *open_iscsi, *state, *machine_id, *kept_directory, *kept;
	struct initiator_name_places places;
};

static void write_file(const char *path, const char *text)
{
	cr_assert(g_file_set_contents(path, text, -1, NULL), "%s", path);
}

static char *read_file(const char *path)
{
	char *text = NULL;
	cr_assert(g_file_get_contents(path, &text, NULL, NULL), "%s", path);
	return text;
}

static struct fixture *fixture_new(void)
{
	struct fixture *fixture = g_new0(struct fixture, 1);
	fixture->directory = g_dir_make_tmp("lunfs-test-XXXXXX", NULL);
	cr_assert_not_null(fixture->directory);
	fixture->open_iscsi = g_build_filename(fixture->directory, "initiatorname.iscsi", NULL);
	fixture->machine_id = g_build_filename(fixture->directory, "machine-id", NULL);
	fixture->state = g_build_filename(fixture->directory, "home", "state", NULL);
	fixture->kept_directory = g_build_filename(fixture->state, "lunfs", NULL);
	fixture->kept = g_build_filename(fixture->kept_directory, "initiatorname-" MACHINE, NULL);
	fixture->places = (struct initiator_name_places){
	    .open_iscsi = fixture->open_iscsi,
	    .state_directory = fixture->state,
	    .machine_id = fixture->machine_id,
	    .host = "Box",
	};
	write_file(fixture->machine_id, MACHINE "\n");
	return fixture;
}

static void remove_tree(const char *path)
{
	GDir *directory = g_file_test(path, G_FILE_TEST_IS_DIR) ? g_dir_open(path, 0, NULL) : NULL;
	for (const char *name; directory && (name = g_dir_read_name(directory));) {
		g_autofree char *child = g_build_filename(path, name, NULL);
		remove_tree(child);
	}
	if (directory)
		g_dir_close(directory);
	g_remove(path);
}

static void fixture_free(struct fixture *fixture)
{
	remove_tree(fixture->directory);
	g_free(fixture->directory);
	g_free(fixture->open_iscsi);
	g_free(fixture->state);
	g_free(fixture->machine_id);
	g_free(fixture->kept_directory);
	g_free(fixture->kept);
	g_free(fixture);
}

static char *find(struct fixture *fixture)
{
	g_autoptr(GError) error = NULL;
	char *name = initiator_name_find(&fixture->places, &error);
	cr_assert(name, "%s", error ? error->message : "no error given");
	cr_expect(initiator_name_valid(name), "%s", name);
	return name;
}

static void expect_refused(struct fixture *fixture, const char *words)
{
	g_autoptr(GError) error = NULL;
	cr_assert_null(initiator_name_find(&fixture->places, &error));
	cr_assert_not_null(error);
	cr_expect_eq(error->domain, LUNFS_ERROR);
	cr_expect(strstr(error->message, words), "'%s' lacks '%s'", error->message, words);
	cr_expect(strstr(error->message, "-o initiator_name=IQN"), "%s", error->message);
	cr_expect_null(strchr(error->message, '\n'));
}

/* How many entries the directory of kept names has. */
static unsigned count_kept(const struct fixture *fixture)
{
	GDir *directory = g_dir_open(fixture->kept_directory, 0, NULL);
	cr_assert_not_null(directory);
	unsigned count = 0;
	while (g_dir_read_name(directory))
		count++;
	g_dir_close(directory);
	return count;
}

/* host: as it stands in the name. */
static void expect_made(const char *name, const char *host)
{
	g_autofree char *prefix = g_strdup_printf("iqn.2026-11.org.lunfs:%s-", host);
	cr_assert(g_str_has_prefix(name, prefix), "%s lacks %s", name, prefix);
	const char *random = name + strlen(prefix);
	cr_expect_eq(strlen(random), 12, "%s", name);
	cr_expect_eq(strspn(random, "0123456789abcdef"), 12, "%s", name);
}

Test(config_initiator_name, names_of_the_three_kinds_are_valid)
{
	static const char *const names[] = {
	    "iqn.2003-01.org.example:disk",
	    "iqn.2003-01.org.example",
	    "iqn.2003-12.x",
	    "iqn.1993-08.org.debian:01:ab-c.d_e",
	    "iqn.1991-05.com.microsoft:PC1",
	    "iqn.2003-01.org.example:z\xc3\xbcrich",
	    "eui.0123456789abcdef",
	    "eui.0123456789ABCDEF",
	    "naa.0123456789abcdef",
	    "naa.0123456789abcdef0123456789ABCDEF",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
		cr_expect(initiator_name_valid(names[i]), "%s", names[i]);
}

Test(config_initiator_name, anything_else_is_no_name)
{
	static const char *const names[] = {
	    "",
	    "iqn",
	    "iqn.",
	    "disk",
	    "iqn.2003-00.org.x",
	    "iqn.2003-13.org.x",
	    "iqn.2003-1.org.x",
	    "iqn.203-01.org.x",
	    "iqn.2003_01.org.x",
	    "iqn.2003-01",
	    "iqn.2003-01.",
	    "iqn.2003-01.:x",
	    "iqn.2003-01..x",
	    "iqn.2003-01:x",
	    "IQN.2003-01.org.x",
	    " iqn.2003-01.org.x",
	    "iqn.2003-01.org.x:a b",
	    "iqn.2003-01.org.x:a/b",
	    "iqn.2003-01.org.x:a\n",
	    "iqn.2003-01.org.x:a,b",
	    "iqn.2003-01.org.x:a@b",
	    "iqn.2003-01.org.x:a\xff",
	    "iqn.2003-01.org.x:a\xc2\x85",
	    "eui.",
	    "eui.0123456789abcde",
	    "eui.0123456789abcdeff",
	    "eui.0123456789abcdeg",
	    "naa.",
	    "naa.0123456789abcdef0",
	    "naa.0123456789abcdeg",
	    "naa.0123456789abcdef0123456789abcdef0",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
		cr_expect_not(initiator_name_valid(names[i]), "%s", names[i]);
}

Test(config_initiator_name, a_name_has_at_most_223_bytes)
{
	g_autofree char *tail = g_strnfill(223, 'a');
	g_autofree char *name = g_strconcat("iqn.2003-01.org:", tail, NULL);
	name[223] = '\0';
	cr_expect(initiator_name_valid(name));
	name[223] = 'a';
	name[224] = '\0';
	cr_expect_not(initiator_name_valid(name));
}

Test(config_initiator_name, a_given_name_is_taken_as_it_is)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *name = initiator_name_get("iqn.2003-01.org.example:me", &error);
	cr_assert_null(error);
	cr_expect_str_eq(name, "iqn.2003-01.org.example:me");

	cr_expect_null(initiator_name_get("me", &error));
	cr_assert(g_error_matches(error, LUNFS_ERROR, LUNFS_ERROR_USAGE));
	cr_expect(strstr(error->message, "initiator_name"), "%s", error->message);
	cr_expect(strstr(error->message, "'me' is no iSCSI name"), "%s", error->message);
}

Test(config_initiator_name, open_iscsis_name_comes_first)
{
	struct fixture *fixture = fixture_new();
	write_file(fixture->open_iscsi,
	    "## a comment\n\n#InitiatorName=iqn.2003-01.org:commented\n"
	    "GenerateName=no\n  InitiatorName= iqn.2003-01.org:real \r\n"
	    "InitiatorName=iqn.2003-01.org:second\n");
	g_autofree char *name = find(fixture);
	cr_expect_str_eq(name, "iqn.2003-01.org:real");
	cr_expect_not(g_file_test(fixture->state, G_FILE_TEST_EXISTS), "nothing is kept then");
	fixture_free(fixture);
}

Test(config_initiator_name, an_invalid_name_of_open_iscsi_is_an_error)
{
	struct fixture *fixture = fixture_new();
	write_file(fixture->open_iscsi, "InitiatorName=me\n");
	expect_refused(fixture, fixture->open_iscsi);
	expect_refused(fixture, "no iSCSI name");
	write_file(fixture->open_iscsi, "InitiatorName=\n");
	expect_refused(fixture, "no iSCSI name");
	fixture_free(fixture);
}

Test(config_initiator_name, without_open_iscsis_name_one_is_made)
{
	struct fixture *fixture = fixture_new();
	g_autofree char *name = find(fixture);
	expect_made(name, "box");
	/* Debian's file before open-iscsi ran for the first time. */
	write_file(fixture->open_iscsi, "GenerateName=yes\n");
	g_autofree char *again = find(fixture);
	cr_expect_str_eq(again, name);
	fixture_free(fixture);
}

Test(config_initiator_name, a_file_that_root_alone_may_read_is_passed_over)
{
	if (geteuid() != 0)
		cr_skip("only root can become another user");
	struct fixture *fixture = fixture_new();
	write_file(fixture->open_iscsi, "InitiatorName=iqn.2003-01.org:root\n");
	cr_assert_eq(g_chmod(fixture->open_iscsi, 0600), 0);
	cr_assert_eq(g_chmod(fixture->directory, 0777), 0);
	cr_assert_eq(seteuid(12345), 0);
	g_autofree char *name = find(fixture);
	cr_assert_eq(seteuid(0), 0);
	expect_made(name, "box");
	fixture_free(fixture);
}

Test(config_initiator_name, the_made_name_stays_and_is_the_users_alone)
{
	struct fixture *fixture = fixture_new();
	g_autofree char *name = find(fixture);
	g_autofree char *line = g_strconcat(name, "\n", NULL);
	g_autofree char *kept = read_file(fixture->kept);
	cr_expect_str_eq(kept, line);
	cr_expect_eq(count_kept(fixture), 1, "no temporary file stays");

	struct stat st;
	cr_assert_eq(stat(fixture->kept, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0600);
	cr_assert_eq(stat(fixture->kept_directory, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0700);

	fixture->places.host = "renamed";
	g_autofree char *again = find(fixture);
	cr_expect_str_eq(again, name);
	fixture_free(fixture);
}

Test(config_initiator_name, two_machines_with_one_home_have_two_names)
{
	struct fixture *fixture = fixture_new();
	g_autofree char *first = find(fixture);
	write_file(fixture->machine_id, "fedcba9876543210fedcba9876543210\n");
	g_autofree char *second = find(fixture);
	cr_expect_str_neq(first, second);
	cr_expect_eq(count_kept(fixture), 2);
	write_file(fixture->machine_id, MACHINE "\n");
	g_autofree char *again = find(fixture);
	cr_expect_str_eq(again, first);
	fixture_free(fixture);
}

Test(config_initiator_name, without_a_machine_id_the_host_name_tells_machines_apart)
{
	static const char *const useless[] = {"uninitialized\n", "", "../../../etc/passwd\n"};
	struct fixture *fixture = fixture_new();
	g_autofree char *by_host =
	    g_build_filename(fixture->kept_directory, "initiatorname-my-box.example", NULL);
	fixture->places.host = "My/Box.example";
	cr_assert_eq(g_remove(fixture->machine_id), 0);
	g_autofree char *name = find(fixture);
	cr_expect(g_file_test(by_host, G_FILE_TEST_IS_REGULAR));
	for (size_t i = 0; i < G_N_ELEMENTS(useless); i++) {
		write_file(fixture->machine_id, useless[i]);
		g_autofree char *again = find(fixture);
		cr_expect_str_eq(again, name);
	}
	cr_expect_eq(count_kept(fixture), 1);
	fixture_free(fixture);
}

Test(config_initiator_name, the_host_part_is_made_plain)
{
	static const struct {
		const char *host, *part;
	} hosts[] = {{"NAS-1.Example", "nas-1.example"}, {"joe's_mac", "joe-s-mac"},
	    {"b\xc3\xbc", "b--"}, {"", "localhost"}};
	for (size_t i = 0; i < G_N_ELEMENTS(hosts); i++) {
		struct fixture *fixture = fixture_new();
		fixture->places.host = hosts[i].host;
		g_autofree char *name = find(fixture);
		expect_made(name, hosts[i].part);
		fixture_free(fixture);
	}
}

Test(config_initiator_name, many_processes_at_once_agree_on_one_name)
{
	enum { PROCESSES = 16, ROUNDS = 8 };
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *fixture = fixture_new();
		int start[2], names[2];
		cr_assert(pipe(start) == 0 && pipe(names) == 0);
		for (int i = 0; i < PROCESSES; i++) {
			pid_t pid = fork();
			cr_assert_geq(pid, 0);
			if (pid > 0)
				continue;
			/* All wait for the end of this pipe, so that they start together. */
			char byte;
			close(start[1]);
			ssize_t ignored = read(start[0], &byte, 1);
			char *name = initiator_name_find(&fixture->places, NULL);
			if (name)
				ignored = write(names[1], name, strlen(name));
			(void)ignored;
			_exit(name ? 0 : 1);
		}
		close(start[0]);
		close(start[1]);
		close(names[1]);
		for (int i = 0; i < PROCESSES; i++) {
			int status;
			cr_assert_geq(wait(&status), 0);
			cr_expect_eq(status, 0);
		}

		g_autofree char *expected = find(fixture);
		size_t length = strlen(expected);
		char name[256] = "";
		for (int i = 0; i < PROCESSES; i++) {
			cr_assert_eq(read(names[0], name, length), (ssize_t)length);
			cr_expect_eq(
			    strncmp(name, expected, length), 0, "%s and %s", name, expected);
		}
		cr_expect_eq(read(names[0], name, 1), 0, "each wrote one name");
		close(names[0]);
		cr_expect_eq(count_kept(fixture), 1, "no temporary file stays");
		fixture_free(fixture);
	}
}

Test(config_initiator_name, a_kept_file_without_a_name_is_an_error_and_stays)
{
	struct fixture *fixture = fixture_new();
	cr_assert_eq(g_mkdir_with_parents(fixture->kept_directory, 0700), 0);
	write_file(fixture->kept, "garbage\n");
	expect_refused(fixture, fixture->kept);
	expect_refused(fixture, "remove it");
	g_autofree char *text = read_file(fixture->kept);
	cr_expect_str_eq(text, "garbage\n");
	fixture_free(fixture);
}

Test(config_initiator_name, a_directory_that_cannot_be_made_is_named)
{
	struct fixture *fixture = fixture_new();
	/* Root may write everywhere, but not below a name that leads nowhere. */
	g_autofree char *home = g_path_get_dirname(fixture->state);
	cr_assert_eq(symlink("/nonexistent/place", home), 0);
	expect_refused(fixture, fixture->kept_directory);
	expect_refused(fixture, "cannot be kept there");
	fixture_free(fixture);
}

Test(config_initiator_name, a_directory_that_cannot_be_written_is_named)
{
	if (geteuid() != 0)
		cr_skip("only root can become another user");
	struct fixture *fixture = fixture_new();
	cr_assert_eq(g_mkdir_with_parents(fixture->kept_directory, 0755), 0);
	cr_assert_eq(g_chmod(fixture->directory, 0755), 0);
	cr_assert_eq(seteuid(12345), 0);
	expect_refused(fixture, fixture->kept_directory);
	expect_refused(fixture, g_strerror(EACCES));
	cr_assert_eq(seteuid(0), 0);
	cr_expect_eq(count_kept(fixture), 0);
	fixture_free(fixture);
}

Test(config_initiator_name, a_name_that_is_kept_is_found_where_nothing_can_be_written)
{
	if (geteuid() != 0)
		cr_skip("only root can become another user");
	struct fixture *fixture = fixture_new();
	cr_assert_eq(g_mkdir_with_parents(fixture->kept_directory, 0755), 0);
	cr_assert_eq(g_chmod(fixture->directory, 0755), 0);
	write_file(fixture->kept, "iqn.2003-01.org:kept\n");
	cr_assert_eq(g_chmod(fixture->kept, 0644), 0);
	cr_assert_eq(seteuid(12345), 0);
	g_autofree char *name = find(fixture);
	cr_assert_eq(seteuid(0), 0);
	cr_expect_str_eq(name, "iqn.2003-01.org:kept");
	fixture_free(fixture);
}

Test(config_initiator_name, a_user_without_a_home_is_told_to_give_a_name)
{
	struct fixture *fixture = fixture_new();
	fixture->places.state_directory = NULL;
	expect_refused(fixture, "no home directory");
	fixture_free(fixture);
}

Test(config_initiator_name, the_state_directory_follows_xdg_then_home_then_passwd)
{
	g_setenv("XDG_STATE_HOME", "/xdg/state", TRUE);
	g_setenv("HOME", "/home/joe", TRUE);
	g_autofree char *xdg = initiator_name_state_directory();
	cr_expect_str_eq(xdg, "/xdg/state");

	g_setenv("XDG_STATE_HOME", "relative", TRUE);
	g_autofree char *home = initiator_name_state_directory();
	cr_expect_str_eq(home, "/home/joe/.local/state", "a relative one counts as unset");
	g_unsetenv("XDG_STATE_HOME");
	g_autofree char *unset = initiator_name_state_directory();
	cr_expect_str_eq(unset, "/home/joe/.local/state");

	const struct passwd *entry = getpwuid(geteuid());
	cr_assert_not_null(entry);
	g_autofree char *expected = g_build_filename(entry->pw_dir, ".local", "state", NULL);
	g_unsetenv("HOME");
	g_autofree char *passwd = initiator_name_state_directory();
	cr_expect_str_eq(passwd, expected);
	g_setenv("HOME", "", TRUE);
	g_autofree char *empty = initiator_name_state_directory();
	cr_expect_str_eq(empty, expected);
}
