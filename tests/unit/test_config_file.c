/*
 * test_config_file.c - lunfs.conf: what is read, and every fault by file, line and key.
 */
#include "config_text.h"

Test(config_file, a_section_is_a_target)
{
	struct config *config =
	    must_read("# a comment\n\n[target nas]\nportal=10.0.0.5;nas.example:3261,[fd00::1]:99 "
	              "10.0.0.5\niqn=" IQN "\nluns=7;0-2, 5\nro=yes\ncache_size=128M\n");
	const struct config_section *section = section_of(config, "nas");
	static const uint16_t luns[] = {0, 1, 2, 5, 7};
	static const struct portal portals[] = {
	    {(char *)"10.0.0.5", 3260}, {(char *)"nas.example", 3261}, {(char *)"fd00::1", 99}};

	cr_expect_str_eq(section->file, "/x/c");
	cr_expect_eq(section->line, 3);
	cr_expect_str_eq(section->iqn, IQN);
	cr_assert_eq(section->portals->len, G_N_ELEMENTS(portals));
	for (unsigned i = 0; i < G_N_ELEMENTS(portals); i++) {
		const struct portal *portal = g_ptr_array_index(section->portals, i);
		cr_expect_str_eq(portal->host, portals[i].host);
		cr_expect_eq(portal->port, portals[i].port);
	}
	cr_assert_eq(section->luns->len, G_N_ELEMENTS(luns));
	cr_expect_arr_eq(section->luns->data, luns, sizeof luns);
	cr_expect(section->options->read_only);
	cr_expect_eq(section->options->cache_size, 128 << 20);
	config_free(config);
}

Test(config_file, an_empty_file_configures_nothing)
{
	struct config *config = must_read("");
	cr_expect_eq(config->sections->len, 0);
	cr_expect_eq(config->defaults->login_timeout, 15000);
	config_free(config);
}

Test(config_file, editors_may_leave_a_mark_and_end_lines_as_DOS_does)
{
	struct config *config =
	    must_read("\xef\xbb\xbf[defaults]\r\n  ro = yes \r\n\r\n[target b]  "
	              "\r\nportal = h\r\niqn\t=\t" IQN "\r\n#x");
	cr_expect(config->defaults->read_only);
	cr_expect(section_of(config, "b")->options->read_only);
	config_free(config);
}

Test(config_file, a_secret_is_taken_as_it_stands)
{
	struct config *config = must_read(NAS "username=joe\npassword=ab\\qcd;e=f#g\\\\h \"i\n");
	cr_expect_str_eq(section_of(config, "nas")->options->password, "ab\\qcd;e=f#g\\\\h \"i");
	config_free(config);
}

Test(config_file, all_faults_are_told_by_file_line_and_key)
{
	g_autofree char *faults = NULL;
	const char *text = "[defaults]\ncach_size=1G\nloglevel=loud\n[target nas]\nportal=h\n"
	                   "iqn=iqn.x\nluns=3-1\nro=maybe\nfrobnicate=s3cr3t\n[target nas]\n";
	struct config *config = read_bytes(text, strlen(text), &faults);

	cr_expect_null(config);
	cr_expect_str_eq(faults,
	    "/x/c:10: the section [target nas] is there already, on line 4: make one of them\n"
	    "/x/c:2: cach_size: unknown key: did you mean 'cache_size'?\n"
	    "/x/c:3: loglevel: 'loud' is none of error, warning, info, debug\n"
	    "/x/c:6: iqn: 'iqn.x' is no target's name: write one like "
	    "iqn.2026-11.org.example:disk, eui.0123456789abcdef or naa.0123456789abcdef (see "
	    "'lunfs discover')\n"
	    "/x/c:7: luns: '3-1' is neither a number from 0 to 16383 nor a range like 0-3: write a "
	    "list like 0-3;7\n"
	    "/x/c:8: ro: it is neither yes nor no: write ro=yes or ro=no\n"
	    "/x/c:9: frobnicate: unknown key: lunfs.conf(5) lists those there are\n"
	    "/x/c:10: portal: the section does not say where the target is: add "
	    "portal=HOST[:PORT]\n"
	    "/x/c:10: iqn: the section does not name the target: add iqn=IQN (see 'lunfs "
	    "discover')\n");
}

Test(config_file, a_misspelled_key_gets_the_nearest_one)
{
	expect_fault(NAS "lun=3\n", "/x/c:4: lun: unknown key: did you mean 'luns'?");
	expect_faults("[target nas]\nportals=h\niqn=" IQN "\n",
	    "/x/c:2: portals: unknown key: did you mean 'portal'?");
	expect_fault(
	    NAS "pasword=s3cr3t\n", "/x/c:4: pasword: unknown key: did you mean 'password'?");
	expect_fault(NAS "Portal=h\n", "/x/c:4: Portal: unknown key: did you mean 'portal'?");
	expect_fault(NAS "user=joe\n",
	    "/x/c:4: user: this word of fstab means nothing in a file: did you mean 'username'?");
	expect_faults(
	    NAS "_netdev=yes\n", "/x/c:4: _netdev: this word of fstab means nothing in a file");
	expect_faults(NAS "x-gvfs-show=yes\n", "/x/c:4: x-gvfs-show: unknown key");
}

Test(config_file, a_misspelled_section_gets_the_nearest_one)
{
	expect_fault(
	    "[default]\nro=yes\n", "/x/c:1: unknown section [default]: did you mean [defaults]?");
	expect_fault("[targets nas]\nportal=h\niqn=" IQN "\n",
	    "/x/c:1: unknown section [targets nas]: did you mean [target nas]?");
	expect_fault("[Target nas]\nportal=h\niqn=" IQN "\n",
	    "/x/c:1: unknown section [Target nas]: did you mean [target nas]?");
	expect_faults(
	    "[target]\n", "/x/c:1: the section [target] names no target: write [target NAME]");
	expect_fault("[nas]\n", "/x/c:1: unknown section [nas]: a target's is [target nas]");
}

Test(config_file, a_repeated_key_is_a_fault)
{
	expect_fault(NAS "ro=yes\nro=no\n",
	    "/x/c:5: ro: it is there already, on line 4: leave one of them out");
	expect_fault(NAS "ro=yes\nrw=yes\n",
	    "/x/c:5: rw: 'ro' and 'rw' are about the same: leave one of them out");
}

Test(config_file, lines_that_are_nothing_are_faults_that_repeat_nothing)
{
	expect_fault(NAS "s3cr3t\n",
	    "/x/c:4: this is no KEY=VALUE, no [section] and no comment, which begins with '#'");
	expect_fault("ro=yes\nrw=yes\n",
	    "/x/c:1: ro: it stands before any section: write [defaults] or [target NAME] above");
	expect_faults(
	    "[target nas\nportal=h\n", "/x/c:1: the ']' behind the section's name is missing");
	expect_faults("[target nas] # mine\n", "/x/c:1: something follows the ']'");
	expect_fault(NAS "username=\n",
	    "/x/c:4: username: its value is missing: write one, or leave the line out");
	expect_faults(
	    "[target b]x]\nportal=h\niqn=" IQN "\n", "/x/c:1: 'b]x' cannot be a target's name");
}

Test(config_file, bytes_that_are_no_text_are_faults)
{
	expect_bytes_faults("[defaults]\nr\0=yes\n", 18, "/x/c:2: it holds a NUL byte");
	expect_faults("[defaults]\nusername=\xff\xfe\n", "/x/c:2: it is not UTF-8");
	expect_bytes_faults("\xff\xfe[\0d\0", 6, "/x/c:1: the file is in UTF-16");
	expect_faults(
	    NAS "username=a\tb\n", "/x/c:4: username: its value holds a control character");
}

Test(config_file, layers_go_from_the_general_to_the_particular)
{
	struct config *config =
	    must_read("[defaults]\nlogin_timeout=1\ncommand_timeout=2\nprofile=aws\n" NAS
	              "command_timeout=3\n");
	const struct options *options = section_of(config, "nas")->options;

	cr_expect_eq(options->login_timeout, 1000);
	cr_expect_eq(options->command_timeout, 3000);
	cr_expect_eq(options->replacement_timeout, 600000);
	cr_expect_eq(config->defaults->command_timeout, 2000);
	config_free(config);
}

Test(config_file, what_excludes_what_is_looked_at_once_all_layers_are_there)
{
	expect_faults(NAS "shared=yes\ncache=writeback\n",
	    "/x/c:4: shared: options 'shared' and 'cache=writeback' exclude each other");
	expect_faults(
	    "[defaults]\nshared=yes\n" NAS "cache=writeback\n", "/x/c:3: shared: options 'shared'");
	struct config *config = must_read("[defaults]\nshared=yes\n" NAS "shared=no\n");
	cr_expect_eq(config->defaults->cache, CACHE_NONE);
	cr_expect_eq(section_of(config, "nas")->options->cache, CACHE_WRITEBACK);
	config_free(config);
	config = must_read("[defaults]\ncache=writethrough\n" NAS "shared=yes\n");
	cr_expect_eq(section_of(config, "nas")->options->cache, CACHE_NONE);
	config_free(config);
	config = must_read("[defaults]\nallow_root=yes\n" NAS "allow_other=yes\n");
	cr_expect_not(section_of(config, "nas")->options->allow_root);
	cr_expect(section_of(config, "nas")->options->allow_other);
	config_free(config);
}

Test(config_file, a_target_of_the_users_hides_that_of_the_machines)
{
	struct home *home = home_new();
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	home_conf(home, "[defaults]\nlogin_timeout=1\n" NAS);
	g_autofree char *other = home_write(home, "etc", 0644,
	    "[defaults]\nlogin_timeout=2\ncommand_timeout=3\n[target nas]\nportal=other\niqn=" IQN
	    "\n[target b]\nportal=other\niqn=" IQN "\n");
	struct config *config =
	    config_read((const char *[]){home->conf, "/nowhere/at/all", other, NULL}, faults);

	cr_assert_not_null(config);
	cr_expect_eq(config->sections->len, 2);
	const struct config_section *section = section_of(config, "nas");
	cr_expect_str_eq(section->file, home->conf);
	cr_expect_eq(section_of(config, "b")->options->login_timeout, 1000);
	cr_expect_eq(section_of(config, "b")->options->command_timeout, 3000);
	config_free(config);
	home_free(home);
}

/* ---- the file itself ---- */

static char *read_path(const char *path, unsigned *unreadable)
{
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	struct config *config = config_read((const char *[]){path, NULL}, faults);

	*unreadable = config ? config->unreadable->len : 0;
	config_free(config);
	return told(faults);
}

static void expect_path_faults(const char *path, const char *expected)
{
	unsigned unreadable;
	g_autofree char *text = read_path(path, &unreadable);

	cr_expect(strstr(text, expected), "'%s' lacks '%s'", text, expected);
	cr_expect_eq(unreadable, 0);
}

Test(config_file, faults_of_a_file_come_in_the_order_of_its_lines)
{
	struct home *home = home_new();
	unsigned unreadable;
	home_conf(home, "[target nas]\nq=1\n[target nas]\nportal=h\n[defaults]\nw=1\n");
	g_autofree char *text = read_path(home->conf, &unreadable);
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	unsigned last = 0, count = 0;

	for (char **line = lines; **line; line++, count++) {
		unsigned number = (unsigned)strtoul(*line + strlen(home->conf) + 1, NULL, 10);
		cr_expect(number >= last && number > 0, "%s", text);
		last = number;
	}
	cr_expect_eq(count, 6, "%s", text);
	home_free(home);
}

Test(config_file, a_file_with_a_secret_is_its_owners_alone)
{
	static const mode_t modes[] = {0640, 0604, 0644, 0660};
	struct home *home = home_new();
	unsigned unreadable;
	home_conf(home, NAS "username=joe\npassword=s3cr3t-of-joe\n");
	g_autofree char *expected =
	    g_strdup_printf(":5: password: the file is open to other users and holds a secret: "
	                    "chmod 600 '%s'",
	        home->conf);

	for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
		cr_assert_eq(g_chmod(home->conf, (int)modes[i]), 0);
		expect_path_faults(home->conf, expected);
	}
	cr_assert_eq(g_chmod(home->conf, 0400), 0);
	g_autofree char *none = read_path(home->conf, &unreadable);
	cr_expect_str_empty(none);
	g_free(home_write(home, "lunfs.conf", 0644, NAS "username=joe\n"));
	g_autofree char *open = read_path(home->conf, &unreadable);
	cr_expect_str_empty(open, "without a secret it may be open");
	home_free(home);
}

Test(config_file, what_is_no_file_or_too_large_is_a_fault)
{
	struct home *home = home_new();
	unsigned unreadable;
	g_autofree char *comment = g_strnfill((1 << 20) + 1, '#');

	expect_path_faults(home->directory, "it is no regular file");
	cr_assert_eq(mkfifo(home->conf, 0600), 0);
	expect_path_faults(home->conf, "it is no regular file");
	home_conf(home, comment);
	expect_path_faults(home->conf, "it is larger than 1 MiB");
	home_conf(home, comment + 1);
	g_autofree char *none = read_path(home->conf, &unreadable);
	cr_expect_str_empty(none);
	g_autofree char *absent = read_path("/nowhere/at/all", &unreadable);
	cr_expect_str_empty(absent);
	cr_expect_eq(unreadable, 0);
	home_free(home);
}

Test(config_file, a_file_that_may_not_be_read_is_remembered)
{
	if (geteuid() != 0)
		cr_skip("only root can become another user");
	struct home *home = home_new();
	unsigned unreadable;
	home_conf(home, NAS);
	cr_assert_eq(g_chmod(home->directory, 0755), 0);
	cr_assert_eq(seteuid(12345), 0);
	g_autofree char *none = read_path(home->conf, &unreadable);
	cr_assert_eq(seteuid(0), 0);
	cr_expect_str_empty(none);
	cr_expect_eq(unreadable, 1);
	home_free(home);
}

Test(config_file, faults_without_end_end)
{
	GString *text = g_string_new(NULL);
	for (unsigned i = 0; i < 100000; i++)
		g_string_append(text, "x\n");
	g_autofree char *faults = NULL;
	cr_expect_null(read_bytes(text->str, text->len, &faults));
	g_string_free(text, TRUE);
	g_auto(GStrv) lines = g_strsplit(faults, "\n", -1);
	cr_expect_eq(g_strv_length(lines), 1001);
	cr_expect_str_eq(lines[999], "/x/c:1000: there are more faults than are told here");
}

Test(config_file, the_usual_files_are_the_users_and_the_machines)
{
	g_setenv("XDG_CONFIG_HOME", "/x", TRUE);
	g_auto(GStrv) given = config_files();
	cr_expect_str_eq(given[0], "/x/lunfs/lunfs.conf");
	cr_expect_str_eq(given[1], "/etc/lunfs/lunfs.conf");
	cr_expect_null(given[2]);
	g_setenv("XDG_CONFIG_HOME", "relative", TRUE);
	g_setenv("HOME", "/home/joe", TRUE);
	g_auto(GStrv) home = config_files();
	cr_expect_str_eq(home[0], "/home/joe/.config/lunfs/lunfs.conf");
}

/* ---- keys ---- */

Test(config_file, a_flag_is_yes_or_no)
{
	struct config *config =
	    must_read("[defaults]\nrw=no\nnosuid=yes\ndev=NO\nsync=no\n"
	              "dirsync=yes\nweak_secrets=1\nallow_other=TRUE\n" NAS
	              "ro=0\nnosuid=false\ndirsync=no\nweak_secrets=no\ndev=yes\n");
	const struct options *options = section_of(config, "nas")->options;

	cr_expect(config->defaults->read_only);
	cr_expect(config->defaults->weak_secrets);
	cr_expect(config->defaults->allow_other);
	cr_expect_str_eq(config->defaults->fuse_options, "nosuid,nodev,async,dirsync");
	cr_expect_not(options->read_only);
	cr_expect_not(options->weak_secrets);
	cr_expect_str_eq(options->fuse_options, "async,suid,dev");
	config_free(config);
	expect_fault(
	    NAS "weak_secrets=maybe\n", "/x/c:4: weak_secrets: 'maybe' is neither yes nor no");
	expect_fault(NAS "nosuid=\n",
	    "/x/c:4: nosuid: its value is missing: write one, or leave the line out");
}

Test(config_file, a_secret_and_its_file_replace_each_other)
{
	struct config *config =
	    must_read("[defaults]\npassword=x-in-defaults\n" NAS "password_file=/f\n");
	cr_expect_null(section_of(config, "nas")->options->password);
	cr_expect_str_eq(section_of(config, "nas")->options->password_file, "/f");
	config_free(config);
	config = must_read("[defaults]\npassword_in_file=/f\n" NAS "password_in=x-in-nas\n");
	cr_expect_null(section_of(config, "nas")->options->password_in_file);
	cr_expect_str_eq(section_of(config, "nas")->options->password_in, "x-in-nas");
	config_free(config);
	expect_fault(NAS "password_file=/f\npassword=s3cr3t\n",
	    "/x/c:5: password: 'password' and 'password_file' are about the same: leave one of "
	    "them out");
	expect_faults(NAS "password=s3cr3t \n", "/x/c:4: password: a blank follows the secret");
}

Test(config_file, paths_are_relative_to_the_file)
{
	g_setenv("HOME", "/home/joe", TRUE);
	struct config *config = must_read(NAS "password_file=a/b\npassword_in_file=~/c\n");
	const struct options *options = section_of(config, "nas")->options;
	cr_expect_str_eq(options->password_file, "/x/a/b");
	cr_expect_str_eq(options->password_in_file, "/home/joe/c");
	config_free(config);
}

Test(config_file, portals_are_hosts_with_ports)
{
	expect_faults("[target nas]\nportal=10.0.0.5:3260,1\niqn=" IQN "\n",
	    "/x/c:2: portal: '1' is a number, no host");
	expect_faults("[target nas]\nportal=iscsi://h\niqn=" IQN "\n",
	    "/x/c:2: portal: a portal is HOST[:PORT], not a URL");
	expect_faults("[target nas]\nportal=joe%s3cr3t@h\niqn=" IQN "\n",
	    "/x/c:2: portal: a portal is HOST[:PORT], not a URL");
	expect_faults("[target nas]\nportal=h:0\niqn=" IQN "\n",
	    "/x/c:2: portal: 'h:0': after the host comes");
	expect_faults(
	    "[target nas]\nportal=;\niqn=" IQN "\n", "/x/c:2: portal: it names no portal");
	expect_faults("[defaults]\nportal=h\n", "/x/c:2: portal: this is one target's");
}

Test(config_file, luns_are_numbers_and_ranges)
{
	static const char *const values[] = {"16384", "-1", "1-", "a", "0x1", "3-2", "1--2", "+1"};
	for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
		g_autofree char *text = g_strconcat(NAS "luns=", values[i], "\n", NULL);
		expect_faults(text, "/x/c:4: luns: '");
	}
	expect_faults(NAS "luns=;\n", "/x/c:4: luns: it names no LUN");
	struct config *config = must_read(NAS "luns=0-16383\n");
	cr_expect_eq(section_of(config, "nas")->luns->len, 16384);
	config_free(config);
}

Test(config_file, values_are_plain_and_not_too_long)
{
	g_autofree char *path = g_strnfill(5000, 'x');
	g_autofree char *text = g_strconcat(NAS "password_file=", path, "\n", NULL);
	expect_fault(text,
	    "/x/c:4: password_file: its value is longer than 4096 bytes: write a shorter one");
	expect_faults(
	    NAS "username=\xc2\x85\n", "/x/c:4: username: its value holds a control character");
	expect_faults(NAS "initiator_name=joe\n", "/x/c:4: initiator_name: 'joe' is no iSCSI name");
}
