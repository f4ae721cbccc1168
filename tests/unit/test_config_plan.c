/*
 * test_config_plan.c - what SOURCE, lunfs.conf and -o mean all told.
 */
#include "config_home.h"

#define SECRET "s3cr3t-of-joe"
#define TARGETS                                                                                    \
	"[target nas]\nportal=10.0.0.5\niqn=" IQN "\nluns=3\n"                                     \
	"[target box]\nportal=10.0.0.6\niqn=" IQN "2\n"

static struct plan *must_plan(const char *source, const char *text)
{
	GError *error = NULL;
	struct plan *plan =
	    plan_make(source, text ? (const char *[]){text, NULL} : NULL, NULL, false, &error);

	cr_assert_not_null(plan, "%s", error ? error->message : "no error");
	return plan;
}

static void expect_refused(const char *source, const char *text, const char *words)
{
	g_autoptr(GError) error = NULL;
	struct plan *plan =
	    plan_make(source, text ? (const char *[]){text, NULL} : NULL, NULL, false, &error);

	cr_assert_null(plan);
	cr_assert_not_null(error);
	cr_expect_eq(error->domain, LUNFS_ERROR);
	cr_expect(strstr(error->message, words), "'%s' lacks '%s'", error->message, words);
	cr_expect_null(strstr(error->message, "s3cr3t"), "told: %s", error->message);
}

static struct target_plan *nth(const struct plan *plan, unsigned i)
{
	return g_ptr_array_index(plan->targets, i);
}

Test(config_plan, a_url_is_one_target_with_the_defaults)
{
	struct home *home = home_new();
	home_conf(home, "[defaults]\nlogin_timeout=3\nallow_root=yes\n");
	struct plan *plan = must_plan("iscsi://h:99/" IQN "/4", "ro");

	cr_expect_str_eq(plan->source, "iscsi://h:99/" IQN "/4");
	cr_assert_eq(plan->targets->len, 1);
	cr_expect_str_eq(nth(plan, 0)->name, IQN);
	cr_expect_str_eq(nth(plan, 0)->iqn, IQN);
	cr_expect_eq(nth(plan, 0)->portals->len, 1);
	cr_expect_eq(g_array_index(nth(plan, 0)->luns, uint16_t, 0), 4);
	cr_expect_eq(nth(plan, 0)->options->login_timeout, 3000);
	cr_expect(nth(plan, 0)->options->read_only);
	cr_expect(plan->options->allow_root);
	cr_expect_null(plan->portal);
	cr_expect(plan->one_lun);
	cr_expect_not(plan->several);
	cr_expect_not(plan->all);
	plan_free(plan);
	home_free(home);
}

Test(config_plan, a_portal_is_asked_and_its_targets_are_added)
{
	struct home *home = home_new();
	struct plan *plan = must_plan("iscsi://h", "login_timeout=4");
	g_autoptr(GPtrArray) portals = portals_new();
	portals_add(portals, "other", 1);

	cr_assert_not_null(plan->portal);
	cr_expect_null(plan->portal->name);
	cr_expect_null(plan->portal->iqn);
	cr_expect_eq(plan->targets->len, 0);
	cr_expect(plan->several);
	cr_expect_not(plan->one_lun);
	struct target_plan *target = plan_add_reported(plan, IQN, portals);
	cr_expect_str_eq(target->name, IQN);
	cr_expect_str_eq(target->iqn, IQN);
	cr_expect(portals_equal(target->portals, portals));
	cr_expect_eq(target->options->login_timeout, 4000);
	cr_expect_str_eq(target->initiator_name, plan->portal->initiator_name);
	target_plan_free(target);
	plan_free(plan);
	home_free(home);
}

Test(config_plan, a_name_is_its_section)
{
	struct home *home = home_new();
	home_conf(home, TARGETS "allow_other=yes\n");
	struct plan *plan = must_plan("nas", NULL);
	cr_assert_eq(plan->targets->len, 1);
	cr_expect_str_eq(nth(plan, 0)->name, "nas");
	cr_expect(plan->one_lun, "luns= has exactly one");
	cr_expect_not(plan->several);
	cr_expect_not(plan->options->allow_other);
	plan_free(plan);
	plan = must_plan("box", NULL);
	cr_expect_not(plan->one_lun);
	cr_expect(plan->options->allow_other, "a key of the mount counts where it is alone");
	plan_free(plan);
	home_free(home);
}

Test(config_plan, all_is_all_of_them)
{
	struct home *home = home_new();
	home_conf(home, TARGETS "allow_other=yes\n");
	struct plan *plan = must_plan("all", "login_timeout=2");
	cr_assert_eq(plan->targets->len, 2);
	cr_expect(plan->several);
	cr_expect(plan->all);
	cr_expect_not(plan->one_lun);
	cr_expect_not(plan->options->allow_other, "a key of the mount is of [defaults] then");
	cr_expect_eq(nth(plan, 1)->options->login_timeout, 2000);
	plan_free(plan);
	home_free(home);
}

Test(config_plan, an_unknown_name_gets_a_near_one_and_the_files)
{
	struct home *home = home_new();
	home_conf(home, TARGETS);
	expect_refused("nsa", NULL, "no target 'nsa' is configured: did you mean 'nas'?");
	expect_refused("nsa", NULL, home->conf);
	expect_refused("nsa", NULL, "/etc/lunfs/lunfs.conf");
	expect_refused("10.0.0.5:3260", NULL, "SOURCE must be iscsi://");
	expect_refused("joe%s3cr3t@host", NULL, "SOURCE must be iscsi://");
	home_conf(home, "");
	expect_refused("all", NULL, "lunfs discover --config");
	home_free(home);
}

Test(config_plan, the_faults_of_the_files_are_told)
{
	struct home *home = home_new();
	home_conf(home, TARGETS "r=1\nq=2\n");
	expect_refused("nas", NULL, ":8: r: unknown key");
	expect_refused("iscsi://h/" IQN, NULL, ":9: q: unknown key");
	home_free(home);
}

Test(config_plan, in_all_a_missing_secret_is_that_targets_fault)
{
	struct home *home = home_new();
	home_conf(home, TARGETS "username=joe\npassword_file=none\n");
	struct plan *plan = must_plan("all", NULL);
	cr_expect_null(nth(plan, 0)->fault);
	cr_assert_not_null(nth(plan, 1)->fault);
	cr_expect_null(nth(plan, 1)->credentials);
	cr_expect(strstr(nth(plan, 1)->fault, "none' cannot be opened"));
	plan_free(plan);
	expect_refused("box", NULL, "none' cannot be opened");
	g_free(home_write(home, "none", 0600, SECRET "\n"));
	plan = must_plan("box", NULL);
	cr_expect_str_eq(nth(plan, 0)->credentials->password, SECRET, "beside the file");
	plan_free(plan);
	home_free(home);
}

Test(config_plan, again_reads_the_files_anew)
{
	struct home *home = home_new();
	home_conf(home, TARGETS);
	struct plan *plan = must_plan("all", "ro");
	home_conf(home, TARGETS "luns=1\n[target new]\nportal=h\niqn=" IQN "\n");
	cr_assert_eq(chdir("/"), 0);
	g_unsetenv("XDG_CONFIG_HOME");
	struct plan *next = plan_again(plan, NULL);
	cr_assert_not_null(next);
	cr_assert_eq(next->targets->len, 3);
	cr_expect(target_plan_equal(nth(plan, 0), nth(next, 0)));
	cr_expect_not(target_plan_equal(nth(plan, 1), nth(next, 1)));
	cr_expect(nth(next, 2)->options->read_only);
	plan_free(plan);
	plan_free(next);
	home_free(home);
}

Test(config_plan, again_keeps_what_the_environment_gave)
{
	struct home *home = home_new();
	struct credentials environment = {.username = (char *)"joe", .password = (char *)SECRET};
	home_conf(home, TARGETS);
	struct plan *plan = plan_make("nas", NULL, &environment, false, NULL);
	cr_assert_not_null(plan);
	struct plan *next = plan_again(plan, NULL);
	plan_free(plan);
	cr_assert_not_null(next);
	cr_expect_str_eq(nth(next, 0)->credentials->username, "joe");
	cr_expect_str_eq(nth(next, 0)->credentials->password, SECRET);
	plan_free(next);
	plan = plan_make("all", NULL, &environment, false, NULL);
	cr_assert_not_null(plan);
	cr_expect_null(nth(plan, 0)->credentials->password, "it is for one target alone");
	plan_free(plan);
	home_free(home);
}

/* ---- systemd's credentials ---- */

static char *password_of(const char *source)
{
	struct plan *plan = must_plan(source, NULL);
	char *password = g_strdup(nth(plan, 0)->credentials->password);

	plan_free(plan);
	return password;
}

static void expect_password(const char *source, const char *expected)
{
	g_autofree char *password = password_of(source);
	cr_expect_str_eq(password, expected);
}

Test(config_plan, systemd_gives_secrets_by_name)
{
	struct home *home = home_new();
	g_autofree char *directory = g_path_get_dirname(home->conf);
	home_conf(home,
	    TARGETS "username=joe\n[target own]\nportal=h\niqn=" IQN
	            "\nusername=joe\npassword_file=a.name\n[target far]\nportal=h\niqn=" IQN
	            "\nusername=joe\npassword_file=/no/such/file\n");
	g_setenv("CREDENTIALS_DIRECTORY", directory, TRUE);
	/* The directory is private, and so the file's mode does not count. */
	g_free(home_write(home, "lunfs.password", 0440, "common-s3cr3t\n"));
	g_free(home_write(home, "a.name", 0444, "named-s3cr3t\n"));
	expect_password("box", "common-s3cr3t");
	expect_password("own", "named-s3cr3t");
	g_free(home_write(home, "lunfs.box.password", 0440, "box-s3cr3t-123\n"));
	expect_password("box", "box-s3cr3t-123");
	g_free(home_write(home, "lunfs.own.password", 0440, "no-s3cr3t-of-own\n"));
	expect_password("own", "named-s3cr3t");
	expect_refused("far", NULL, "/no/such/file' cannot be opened");
	struct plan *plan = must_plan("nas", NULL);
	cr_expect_null(nth(plan, 0)->credentials->password, "without a user there is no login");
	plan_free(plan);
	g_unsetenv("CREDENTIALS_DIRECTORY");
	expect_refused("own", NULL, "a.name' is open to other users");
	home_free(home);
}

Test(config_plan, systemd_gives_the_targets_secret_too)
{
	struct home *home = home_new();
	g_autofree char *directory = g_path_get_dirname(home->conf);
	home_conf(home, TARGETS "username=joe\nusername_in=nas\n");
	g_setenv("CREDENTIALS_DIRECTORY", directory, TRUE);
	g_free(home_write(home, "lunfs.password", 0440, SECRET "\n"));
	expect_refused("box", NULL, "username_in 'nas' has no secret");
	g_free(home_write(home, "lunfs.box.password_in", 0440, "the-other-s3cr3t\n"));
	struct plan *plan = must_plan("box", NULL);
	cr_expect_str_eq(nth(plan, 0)->credentials->password_in, "the-other-s3cr3t");
	plan_free(plan);
	home_free(home);
}

/* ---- -o above the files ---- */

Test(config_plan, the_command_line_goes_before_the_files)
{
	struct home *home = home_new();
	home_conf(home, TARGETS "ro=yes\nusername=joe\npassword=from-the-file\ncache=none\n");
	g_autofree char *path = home_write(home, "secret", 0600, "from-the-line\n");
	g_autofree char *text = g_strconcat("rw,password_file=secret,cache=writeback", NULL);
	g_autofree char *directory = g_path_get_dirname(path);
	cr_assert_eq(chdir(directory), 0);
	struct plan *plan = must_plan("box", text);
	cr_assert_eq(chdir("/"), 0);
	cr_expect_not(nth(plan, 0)->options->read_only);
	cr_expect_eq(nth(plan, 0)->options->cache, CACHE_WRITEBACK);
	cr_expect_str_eq(nth(plan, 0)->credentials->password, "from-the-line");
	struct plan *next = plan_again(plan, NULL);
	cr_assert_not_null(next, "a relative path is of the directory where it was given");
	cr_expect_str_eq(nth(next, 0)->credentials->password, "from-the-line");
	cr_expect(target_plan_equal(nth(plan, 0), nth(next, 0)));
	plan_free(plan);
	plan_free(next);
	expect_refused("box", "shared,cache=writeback", "target 'box': options 'shared' and");
	expect_refused("box", "login_timeout=x", "is not a time like");
	home_free(home);
}

Test(config_plan, a_secret_of_the_environment_comes_after_that_of_a_file)
{
	struct home *home = home_new();
	struct credentials environment = {
	    .username = (char *)"env", .password = (char *)"environ-s3cr3t"};
	home_conf(home, TARGETS "username=joe\npassword=from-the-file\n");
	struct plan *plan = plan_make("box", NULL, &environment, false, NULL);
	cr_assert_not_null(plan);
	cr_expect_str_eq(nth(plan, 0)->credentials->username, "joe");
	cr_expect_str_eq(nth(plan, 0)->credentials->password, "from-the-file");
	plan_free(plan);
	plan = plan_make("iscsi://url@h", NULL, &environment, false, NULL);
	cr_assert_not_null(plan);
	cr_expect_str_eq(plan->portal->credentials->username, "url");
	cr_expect_str_eq(plan->portal->credentials->password, "environ-s3cr3t");
	plan_free(plan);
	home_free(home);
}

Test(config_plan, a_file_that_may_not_be_read_is_mentioned)
{
	if (geteuid() != 0)
		cr_skip("only root can become another user");
	struct home *home = home_new();
	home_conf(home, TARGETS);
	cr_assert_eq(g_chmod(home->directory, 0755), 0);
	cr_assert_eq(seteuid(12345), 0);
	g_autofree char *words = g_strconcat(home->conf, " may not be read by this user", NULL);
	expect_refused("nas", NULL, words);
	expect_refused("all", NULL, words);
	cr_assert_eq(seteuid(0), 0);
	home_free(home);
}

Test(config_plan, a_target_may_have_an_initiators_name_of_its_own)
{
	struct home *home = home_new();
	home_conf(home, TARGETS "initiator_name=iqn.2026-11.org.example:me\n");
	struct plan *plan = must_plan("all", NULL);
	cr_expect_str_eq(nth(plan, 1)->initiator_name, "iqn.2026-11.org.example:me");
	cr_expect_str_neq(nth(plan, 0)->initiator_name, nth(plan, 1)->initiator_name);
	plan_free(plan);
	home_free(home);
}
