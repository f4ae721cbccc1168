/*
 * test_config_check.c - names and sections for others to write, the sample, and what 'lunfs check'
 * tells.
 */
#include "config_text.h"

#include "../../src/cli/cli.h"

/* ---- names, and sections for others to write ---- */

Test(config_check, a_name_is_fit_for_a_directory_and_no_word_of_ours)
{
	static const char *const bad[] = {"", "a/b", "a:b", ".a", "-a", " a", "a ", "a\tb", "a[b",
	    "a]b", "a\xff", "a\xc2\x85", "all", "by-path", "by-id", "mount", "umount", "discover",
	    "status", "top", "check", "reload", "rescan", "import"};
	static const char *const good[] = {"nas", "a b", "a.b-c_d", "ALL", "mounts", "\xc3\xa4"};
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autofree char *fault = config_name_fault(bad[i]);
		cr_expect_not_null(fault, "'%s'", bad[i]);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
		g_autofree char *fault = config_name_fault(good[i]);
		cr_expect_null(fault, "'%s'", good[i]);
	}
	g_autofree char *longest = g_strnfill(129, 'n');
	g_autofree char *fault = config_name_fault(longest);
	cr_expect(strstr(fault, "longer than 128 bytes"));
	cr_expect_null(config_name_fault(longest + 1));
	expect_faults(
	    "[target all]\nportal=h\niqn=" IQN "\n", "/x/c:1: 'all' cannot be a target's name");
	expect_faults(
	    "[target a/b]\nportal=h\niqn=" IQN "\n", "/x/c:1: 'a/b' cannot be a target's name");
}

Test(config_check, a_suggested_name_is_short_and_new)
{
	static const struct {
		const char *iqn, *name;
	} cases[] = {
	    {"iqn.2026-11.org.example:disk", "disk"},
	    {"iqn.2026-11.org.other:disk", "iqn.2026-11.org.other-disk"},
	    {"iqn.2026-11.org.other:disk", "iqn.2026-11.org.other-disk-2"},
	    {"iqn.2026-11.org.example:a:b", "b"},
	    {"iqn.2026-11.org.example:all", "iqn.2026-11.org.example-all"},
	    {"iqn.2026-11.org.example", "iqn.2026-11.org.example"},
	    {"eui.0123456789abcdef", "eui.0123456789abcdef"},
	    {"iqn.2026-11.org.example:", "iqn.2026-11.org.example-"},
	    {":::", "target-2"},
	};
	g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *name = config_suggest_name(cases[i].iqn, taken);
		g_autofree char *fault = config_name_fault(name);
		cr_expect_str_eq(name, cases[i].name);
		cr_expect_null(fault, "%s", fault);
		cr_expect(g_hash_table_contains(taken, name));
	}
	g_autofree char *stem = g_strnfill(218, 'x');
	g_autofree char *iqn = g_strconcat("eui.", stem, NULL);
	for (unsigned i = 0; i < 3; i++) {
		g_autofree char *name = config_suggest_name(iqn, taken);
		g_autofree char *fault = config_name_fault(name);
		cr_expect_null(fault, "%s", fault);
	}
}

Test(config_check, a_section_is_written_as_it_is_read)
{
	g_autoptr(GPtrArray) portals = portals_new();
	portals_add(portals, "10.0.0.5", 3260);
	portals_add(portals, "fd00::1", 99);
	g_autofree char *text = config_format_section("nas", portals, IQN,
	    (const char *[]){"#", "two\nlines", "luns", "0-3", "ro", "yes", "#", "more", NULL});
	cr_expect_str_eq(text,
	    "# two?lines\n# more\n[target nas]\nportal=10.0.0.5:3260, [fd00::1]:99\n"
	    "iqn=" IQN "\nluns=0-3\nro=yes\n");
	struct config *config = must_read(text);
	cr_expect(portals_equal(section_of(config, "nas")->portals, portals));
	cr_expect_eq(section_of(config, "nas")->luns->len, 4);
	config_free(config);
}

Test(config_check, what_GKeyFile_writes_is_read)
{
	g_autoptr(GKeyFile) keys = g_key_file_new();
	g_key_file_set_string(keys, "target nas", "portal", "10.0.0.5");
	g_key_file_set_string(keys, "target nas", "iqn", IQN);
	g_key_file_set_string_list(keys, "target nas", "luns", (const char *[]){"1", "3"}, 2);
	g_key_file_set_boolean(keys, "target nas", "ro", TRUE);
	g_key_file_set_comment(keys, "target nas", "ro", " read only", NULL);
	g_autofree char *text = g_key_file_to_data(keys, NULL, NULL);
	struct config *config = must_read(text);
	cr_expect_eq(section_of(config, "nas")->luns->len, 2);
	cr_expect(section_of(config, "nas")->options->read_only);
	config_free(config);
}

/* ---- the sample, and what else is checked ---- */

Test(config_check, the_sample_tells_all_keys_and_is_right)
{
	struct home *home = home_new();
	g_autofree char *sample = NULL;
	g_autoptr(GString) text = g_string_new(NULL);
	const struct option_key *key;
	cr_assert(g_file_get_contents("packaging/lunfs.conf.sample", &sample, NULL, NULL));
	struct config *config = must_read(sample);
	cr_expect_eq(config->sections->len, 0);
	config_free(config);

	g_auto(GStrv) lines = g_strsplit(sample, "\n", -1);
	for (char **line = lines; *line; line++) {
		bool hidden =
		    (*line)[0] == '#' && (g_ascii_islower((*line)[1]) || (*line)[1] == '[');
		g_string_append_printf(text, "%s\n", *line + hidden);
	}
	config = must_read(text->str);
	cr_expect_eq(config->sections->len, 2);
	config_free(config);
	for (size_t i = 0; (key = option_key_at(i)) != NULL; i++) {
		static const char *const contraries[] = {
		    "rw", "suid", "dev", "exec", "atime", "async", NULL};
		g_autofree char *there = g_strdup_printf("\n%s=", key->name);
		if (option_key_is_for_files(key) && !g_strv_contains(contraries, key->name))
			cr_expect(strstr(text->str, there), "%s is not in the sample", key->name);
	}
	home_free(home);
}

/* Faults, and warnings behind them. */
static char *checked(const char *path)
{
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	g_autoptr(GPtrArray) warnings = g_ptr_array_new_with_free_func(config_fault_free);
	struct config *config = config_read((const char *[]){path, NULL}, faults);
	cr_assert_not_null(config);
	config_check(config, faults, warnings);
	config_free(config);
	g_autofree char *first = told(faults);
	g_autofree char *second = told(warnings);
	return g_strconcat(first, second, NULL);
}

static void expect_checked(const struct home *home, const char *conf, const char *expected)
{
	home_conf(home, conf);
	g_autofree char *text = checked(home->conf);
	if (*expected)
		cr_expect(strstr(text, expected), "'%s' lacks '%s'", text, expected);
	else
		cr_expect_str_empty(text, "%s", text);
	cr_expect_null(strstr(text, "s3cr3t"), "told: %s", text);
}

Test(config_check, a_check_looks_at_the_files_of_secrets)
{
	struct home *home = home_new();
	expect_checked(home, NAS "username=joe\npassword_file=/no/such/file\n",
	    ":5: password_file: '/no/such/file' cannot be opened");
	expect_checked(home, NAS "username=joe\npassword_file=none\n",
	    "lunfs.conf:5: password_file: warning: ");
	g_autofree char *path = home_write(home, "secret", 0644, "s3cr3t-of-joe\n");
	expect_checked(home, NAS "username=joe\npassword_file=secret\n", "chmod 600");
	expect_checked(home, "[defaults]\npassword_file=secret\n" NAS "username=joe\n",
	    "lunfs.conf:2: password_file: ");
	cr_assert_eq(g_chmod(path, 0600), 0);
	expect_checked(home, NAS "username=joe\npassword_file=secret\n", "");
	expect_checked(home,
	    NAS "username=joe\npassword_file=secret\nusername_in=a\npassword_in=s3cr3t-of-joe\n",
	    "are equal");
	expect_checked(home, NAS "username=joe\npassword=s3cr3t\n",
	    "lunfs.conf:5: the CHAP secret of username 'joe' is shorter than 12");
	expect_checked(home, NAS "username=joe\npassword=s3cr3t\nweak_secrets=yes\n",
	    "lunfs.conf:5: warning: the CHAP secret");
	home_free(home);
}

Test(config_check, a_check_warns_of_one_target_in_two_sections)
{
	struct home *home = home_new();
	expect_checked(home, NAS "[target b]\nportal=h 10.0.0.5:3260\niqn=" IQN "\n",
	    "lunfs.conf:4: iqn: warning: [target nas] of ");
	expect_checked(home, NAS "[target b]\nportal=h\niqn=" IQN "\n", "");
	expect_checked(home, NAS "luns=1\n[target b]\nportal=10.0.0.5\nluns=2\niqn=" IQN "\n", "");
	home_free(home);
}

/* ---- the command ---- */

/* Its exit status; *text is what it printed on standard output. */
static int run_check(const struct home *home, const char *argument, char **text)
{
	g_autofree char *path = home_path(home, "printed");
	g_autofree char *word = g_strdup(argument);

	cr_assert_not_null(freopen(path, "w", stdout));
	int status = cli_check(argument ? 1 : 0, (char *[]){word, NULL});
	fflush(stdout);
	cr_assert(g_file_get_contents(path, text, NULL, NULL));
	return status;
}

static void expect_check(
    const struct home *home, const char *argument, int status, const char *expected)
{
	g_autofree char *text = NULL;
	cr_expect_eq(run_check(home, argument, &text), status, "%s", text);
	cr_expect(strstr(text, expected), "'%s' lacks '%s'", text, expected);
}

Test(config_check, says_of_each_file_that_it_is_good_and_what_it_has)
{
	struct home *home = home_new();
	g_autofree char *line = g_strconcat(home->conf, ": good, 1 target\n", NULL);
	home_conf(home, NAS);
	expect_check(home, NULL, 0, line);
	expect_check(home, home->conf, 0, line);
	home_conf(home, "");
	expect_check(home, home->conf, 0, ": good, 0 targets\n");
	home_free(home);
}

Test(config_check, fails_with_a_line_for_each_fault)
{
	struct home *home = home_new();
	home_conf(home, NAS "r=1\nq=2\n");
	expect_check(home, NULL, 1, "lunfs.conf:4: r: unknown key: did you mean 'ro'?\n");
	expect_check(home, NULL, 1, "lunfs.conf:5: q: unknown key");
	home_conf(home, NAS "username=joe\npassword_file=/no/such/file\n");
	expect_check(home, NULL, 1, "lunfs.conf:5: password_file: '/no/such/file'");
	home_free(home);
}

Test(config_check, fails_where_there_is_nothing_to_check)
{
	struct home *home = home_new();
	g_autofree char *absent = g_strconcat(home->directory, "/none", NULL);
	expect_check(home, absent, 1, "");
	expect_check(home, "", 1, "");
	expect_check(home, "--frob", 2, "");
	if (access("/etc/lunfs/lunfs.conf", F_OK) != 0)
		expect_check(home, NULL, 1, "");
	home_free(home);
}
