/*
 * import.c - 'lunfs import' as a user runs it: what it prints where, and its exit status.
 */
#include "support/mount.h"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(import_command, .timeout = 60);

#define IQN    "iqn.2003-01.org.example:disk1"
#define SECRET "joes-secret-1"

/* A copied system, below "system", with one node. */
static void copied_system(struct stage *stage, const char *more)
{
	must(stage,
	    "mkdir -p system/etc/iscsi/nodes/" IQN "/10.0.0.5,3260,1; umask 077; "
	    "printf 'node.name = " IQN "\\nnode.conn[0].address = 10.0.0.5\\n%s' "
	    "> system/etc/iscsi/nodes/" IQN "/10.0.0.5,3260,1/default",
	    more);
}

#define WITH_SECRET "node.session.auth.username = joe\\nnode.session.auth.password = " SECRET "\\n"

Test(import_command, prints_the_configuration)
{
	struct stage *stage = stage_new();

	copied_system(stage, "");
	char *found = must_lunfs(stage, "import system");
	cr_assert(
	    strstr(found, "\n[target disk1]\nportal=10.0.0.5:3260\niqn=" IQN "\n"), "%s", found);
}

Test(import_command, warns_of_secrets_where_others_could_read_them)
{
	struct stage *stage = stage_new();

	copied_system(stage, WITH_SECRET);
	struct result *result = lunfs(stage, "import system > open.conf");
	cr_assert_eq(result->status, 0);
	cr_assert(
	    strstr(result->err, "chmod 600") && !strstr(result->err, SECRET), "%s", result->err);
	cr_assert(strstr(must(stage, "cat open.conf"), "password=" SECRET));
	result = sh(stage, "umask 077; %s import system > mine.conf", stage->lunfs);
	cr_assert_eq(result->status, 0);
	cr_assert_str_eq(result->err, "");
}

Test(import_command, what_cannot_be_read_is_named_and_the_rest_is_printed)
{
	struct stage *stage = stage_new();

	copied_system(stage, WITH_SECRET);
	must(stage,
	    "echo 'node.session.timeo.replacement_timeout = 60' > system/etc/iscsi/iscsid.conf");
	struct result *result = lunfs_as(stage, ORDINARY_USER, "import system");
	cr_assert_eq(result->status, 1);
	cr_assert(
	    strstr(result->err, "10.0.0.5,3260,1/default cannot be read: Permission denied: try: "
	                        "sudo lunfs import 'system'"),
	    "%s", result->err);
	cr_assert(strstr(result->out, "replacement_timeout=60s"), "%s", result->out);
	must(stage, "chmod 700 system");
	result = lunfs_as(stage, ORDINARY_USER, "import system");
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "sudo lunfs import") && strstr(result->err, "system"), "%s",
	    result->err);
	cr_assert_str_eq(result->out, "");
}

Test(import_command, where_there_is_nothing_it_says_where_it_looked)
{
	struct stage *stage = stage_new();

	stage_directory(stage, "empty", 0);
	struct result *result = lunfs(stage, "import empty");
	cr_assert_eq(result->status, 1);
	cr_assert(strstr(result->err, "nothing of open-iscsi is in empty, empty/nodes"), "%s",
	    result->err);
	cr_assert_eq(lunfs(stage, "import a b")->status, 2);
	cr_assert_eq(lunfs(stage, "import --frobnicate")->status, 2);
}
