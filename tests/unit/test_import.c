/*
 * test_import.c - open-iscsi's files become a configuration that means the same.
 */
#include "import_home.h"

#include <criterion/criterion.h>

#define IQN "iqn.2003-01.org.example:"

static const struct config_section *section_of(const struct config *config, const char *iqn)
{
	for (unsigned i = 0; i < config->sections->len; i++) {
		const struct config_section *section = g_ptr_array_index(config->sections, i);

		if (strcmp(section->iqn, iqn) == 0)
			return section;
	}
	cr_assert_fail("there is no section for %s", iqn);
	return NULL;
}

static void must_have_portals(const struct config_section *section, const char *wanted)
{
	GString *list = g_string_new(NULL);

	for (unsigned i = 0; i < section->portals->len; i++) {
		const struct portal *portal = g_ptr_array_index(section->portals, i);
		g_autofree char *text = portal_format(portal->host, portal->port);

		g_string_append_printf(list, "%s%s", i > 0 ? " " : "", text);
	}
	cr_assert_str_eq(list->str, wanted);
	g_string_free(list, TRUE);
}

static void must_say(const char *text, const char *words)
{
	cr_assert(strstr(text, words), "no '%s' in:\n%s", words, text);
}

static void must_not_say(const char *text, const char *words)
{
	cr_assert(!strstr(text, words), "'%s' in:\n%s", words, text);
}

/* etc/iscsi/iscsid.conf as Debian 12 ships it, without its comments, and more lines. */
static void write_conf(const struct import_home *home, const char *more)
{
	g_autofree char *text =
	    g_strconcat("iscsid.startup = /bin/systemctl start iscsid.socket\n"
	                "node.startup = manual\n"
	                "node.leading_login = No\n"
	                "node.session.timeo.replacement_timeout = 120\n"
	                "node.conn[0].timeo.login_timeout = 15\n"
	                "node.conn[0].timeo.logout_timeout = 15\n"
	                "node.conn[0].timeo.noop_out_interval = 5\n"
	                "node.conn[0].timeo.noop_out_timeout = 5\n"
	                "node.session.err_timeo.abort_timeout = 15\n"
	                "node.session.err_timeo.lu_reset_timeout = 30\n"
	                "node.session.err_timeo.tgt_reset_timeout = 30\n"
	                "node.session.err_timeo.host_reset_timeout = 60\n"
	                "node.session.initial_login_retry_max = 8\n"
	                "node.session.cmds_max = 128\n"
	                "node.session.queue_depth = 32\n"
	                "node.session.xmit_thread_priority = -20\n"
	                "node.session.iscsi.InitialR2T = No\n"
	                "node.session.iscsi.ImmediateData = Yes\n"
	                "node.session.iscsi.FirstBurstLength = 262144\n"
	                "node.session.iscsi.MaxBurstLength = 16776192\n"
	                "node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144\n"
	                "node.conn[0].iscsi.MaxXmitDataSegmentLength = 0\n"
	                "discovery.sendtargets.iscsi.MaxRecvDataSegmentLength = 32768\n"
	                "node.session.nr_sessions = 1\n"
	                "node.session.reopen_max = 0\n"
	                "node.session.iscsi.FastAbort = Yes\n"
	                "node.session.scan = auto\n",
	        more, NULL);

	import_home_write(home, "etc/iscsi/iscsid.conf", text);
}

/* What is not a comment that the head always has. */
static void must_be_only(const char *text, const char *wanted)
{
	const char *rest = strchr(text, '\n');

	cr_assert_not_null(rest);
	cr_assert_str_eq(rest + 1, wanted);
}

/* ---- whole setups ---- */

#define CHAP(user, secret)                                                                         \
	"node.session.auth.authmethod = CHAP\n"                                                    \
	"node.session.auth.username = " user "\n"                                                  \
	"node.session.auth.password = " secret "\n"
#define MUTUAL(user, secret)                                                                       \
	"node.session.auth.username_in = " user "\n"                                               \
	"node.session.auth.password_in = " secret "\n"

Test(import, three_targets_of_two_portals_with_chap_become_three_sections)
{
	struct import_home home = import_home_new();
	const char *mutual = CHAP("joe", "joes-secret-1") MUTUAL("box", "boxs-secret-2");

	write_conf(&home, "");
	import_home_node(&home, IQN "one", "10.0.0.5", 3260, CHAP("joe", "joes-secret-1"));
	import_home_node(&home, IQN "one", "10.0.1.5", 3260, CHAP("joe", "joes-secret-1"));
	import_home_node(&home, IQN "two", "10.0.0.6", 3261, mutual);
	import_home_node(&home, IQN "two", "10.0.1.6", 3261, mutual);
	import_home_node(&home, IQN "three", "nas.example", 3260, "");
	import_home_node(&home, IQN "three", "fd00::7", 3260, "");
	char *text;
	struct config *config = import_home_config(&home, "", &text);

	cr_assert_eq(config->sections->len, 3u, "%s", text);
	const struct config_section *one = section_of(config, IQN "one");
	cr_assert_str_eq(one->name, "one");
	must_have_portals(one, "10.0.0.5:3260 10.0.1.5:3260");
	cr_assert_str_eq(one->options->username, "joe");
	cr_assert_str_eq(one->options->password, "joes-secret-1");
	cr_assert_null(one->options->username_in);
	const struct config_section *two = section_of(config, IQN "two");
	must_have_portals(two, "10.0.0.6:3261 10.0.1.6:3261");
	cr_assert_str_eq(two->options->password, "joes-secret-1");
	cr_assert_str_eq(two->options->username_in, "box");
	cr_assert_str_eq(two->options->password_in, "boxs-secret-2");
	const struct config_section *three = section_of(config, IQN "three");
	must_have_portals(three, "[fd00::7]:3260 nas.example:3260");
	cr_assert_null(three->options->username);
	must_say(text, "chmod 600");
	must_not_say(text, "[defaults]");
	config_free(config);
	g_free(text);
	import_home_free(&home);
}

Test(import, what_open_iscsi_ships_says_nothing)
{
	struct import_home home = import_home_new();

	write_conf(&home, "");
	import_home_node(&home, IQN "one", "10.0.0.5", 3260, "");
	g_autofree char *text = import_home_read(&home, "");
	must_be_only(text,
	    "\n# node.startup = automatic: /etc/fstab or a systemd unit mounts it at boot, see "
	    "lunfs(1)\n[target one]\nportal=10.0.0.5:3260\niqn=" IQN "one\n");
	must_not_say(text, "secrets");
	import_home_free(&home);
}

Test(import, settings_of_all_targets_move_to_defaults_and_others_stay)
{
	struct import_home home = import_home_new();
	const char *common =
	    "node.conn[0].timeo.login_timeout = 30\n"
	    "node.conn[0].iscsi.HeaderDigest = CRC32C\n" CHAP("joe", "joes-secret-1");
	g_autofree char *more =
	    g_strconcat(common, "node.session.timeo.replacement_timeout = 600\n", NULL);

	import_home_node(&home, IQN "one", "10.0.0.5", 3260, common);
	import_home_node(&home, IQN "two", "10.0.0.5", 3260, more);
	char *text;
	struct config *config = import_home_config(&home, "", &text);

	cr_assert_eq(config->defaults->login_timeout, 30000u);
	cr_assert(config->defaults->header_digest);
	cr_assert_str_eq(config->defaults->password, "joes-secret-1");
	cr_assert_eq(config->defaults->replacement_timeout, 120000u);
	cr_assert_eq(section_of(config, IQN "one")->options->replacement_timeout, 120000u);
	cr_assert_eq(section_of(config, IQN "two")->options->replacement_timeout, 600000u);
	cr_assert_eq(section_of(config, IQN "two")->options->login_timeout, 30000u);
	cr_assert_str_eq(section_of(config, IQN "two")->options->username, "joe");
	must_not_say(strstr(text, "[target one]"), "password");
	config_free(config);
	g_free(text);
	import_home_free(&home);
}

Test(import, iscsid_conf_alone_becomes_defaults)
{
	struct import_home home = import_home_new();

	write_conf(&home, "node.session.timeo.replacement_timeout = 60\n"
	                  "node.session.queue_depth = 64\n" CHAP("joe", "joes-secret-1")
	                      MUTUAL("box", "boxs-secret-2"));
	char *text;
	struct config *config = import_home_config(&home, "etc/iscsi/iscsid.conf", &text);

	cr_assert_eq(config->defaults->replacement_timeout, 60000u);
	cr_assert_str_eq(config->defaults->username, "joe");
	cr_assert_str_eq(config->defaults->password_in, "boxs-secret-2");
	must_say(text, "# node.session.queue_depth = 64: lunfs keeps as many commands at work");
	config_free(config);
	g_free(text);
	import_home_free(&home);
}

Test(import, records_count_before_iscsid_conf)
{
	struct import_home home = import_home_new();

	write_conf(
	    &home, "node.session.timeo.replacement_timeout = 60\n" CHAP("joe", "joes-secret-1"));
	import_home_node(&home, IQN "one", "10.0.0.5", 3260, "");
	char *text;
	struct config *config = import_home_config(&home, "", &text);

	cr_assert_eq(section_of(config, IQN "one")->options->replacement_timeout, 120000u);
	cr_assert_null(section_of(config, IQN "one")->options->password);
	must_say(text, "# node.session.auth.username = joe: only nodes that open-iscsi makes");
	must_not_say(text, "joes-secret-1");
	config_free(config);
	g_free(text);
	import_home_free(&home);
}

/* ---- values ---- */

static struct config *import_one(const char *lines, char **text)
{
	struct import_home home = import_home_new();

	import_home_node(&home, IQN "one", "10.0.0.5", 3260, lines);
	struct config *config = import_home_config(&home, "", text);
	import_home_free(&home);
	return config;
}

static const struct options *options_of(const struct config *config)
{
	return section_of(config, IQN "one")->options;
}

Test(import, times_keep_their_meaning)
{
	static const struct {
		const char *lines;
		size_t offset;
		unsigned wanted;
		const char *words;
	} cases[] = {
#define FIELD(member) offsetof(struct options, member)
	    {"node.session.timeo.replacement_timeout = 0", FIELD(replacement_timeout), 0, ""},
	    {"node.session.timeo.replacement_timeout = -1", FIELD(replacement_timeout),
	        OPTIONS_INFINITY, ""},
	    {"node.session.timeo.replacement_timeout = 86400", FIELD(replacement_timeout), 86400000,
	        ""},
	    {"node.session.timeo.replacement_timeout = 604800", FIELD(replacement_timeout),
	        86400000, "= 604800: 24h"},
	    {"node.session.timeo.replacement_timeout = soon", FIELD(replacement_timeout), 120000,
	        "= soon: not a time"},
	    {"node.conn[0].timeo.noop_out_interval = 0", FIELD(noop_out_interval), 0, ""},
	    {"node.conn[0].timeo.noop_out_interval = -5", FIELD(noop_out_interval), 5000,
	        "= -5: not a time"},
	    {"node.conn[0].timeo.noop_out_timeout = 0", FIELD(noop_out_timeout), 5000,
	        "= 0: not a time"},
	    {"node.conn[0].timeo.noop_out_timeout = 30", FIELD(noop_out_timeout), 30000, ""},
	    {"node.conn[0].timeo.login_timeout = 99999999999999999999", FIELD(login_timeout), 15000,
	        "not a time"},
	    {"node.conn[0].timeo.login_timeout = <empty>", FIELD(login_timeout), 15000, ""},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *line = g_strconcat(cases[i].lines, "\n", NULL);
		char *text;
		struct config *config = import_one(line, &text);

		cr_expect_eq(G_STRUCT_MEMBER(unsigned, options_of(config), cases[i].offset),
		    cases[i].wanted, "%s:\n%s", cases[i].lines, text);
		cr_expect(strstr(text, cases[i].words), "%s:\n%s", cases[i].lines, text);
		config_free(config);
		g_free(text);
	}
}

Test(import, digests_keep_their_meaning)
{
	static const struct {
		const char *value;
		bool wanted;
		const char *words;
	} cases[] = {
	    {"None", false, ""},
	    {"CRC32C", true, ""},
	    {"CRC32C,None", true, "CRC32C,None: a target without it"},
	    {"None,CRC32C", false, ""},
	    {"MD5", false, "MD5: not a digest"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *line =
		    g_strdup_printf("node.conn[0].iscsi.HeaderDigest = %s\n", cases[i].value);
		char *text;
		struct config *config = import_one(line, &text);

		cr_expect_eq(options_of(config)->header_digest, cases[i].wanted, "%s", text);
		cr_expect(strstr(text, cases[i].words), "%s", text);
		config_free(config);
		g_free(text);
	}
}

Test(import, what_has_no_equivalent_is_a_comment_with_a_reason)
{
	char *text;
	struct config *config = import_one("node.session.queue_depth = 64\n"
	                                   "node.session.nr_sessions = 4\n"
	                                   "node.conn[0].iscsi.DataDigest = CRC32C\n"
	                                   "node.conn[1].address = 10.9.9.9\n"
	                                   "iface.net_ifacename = eth1\n"
	                                   "iface.transport_name = bnx2i\n"
	                                   "node.session.frobnicate = \x1b[31m1\n",
	    &text);

	must_say(text, "# node.session.queue_depth = 64: lunfs keeps");
	must_say(text, "# node.session.nr_sessions = 4: lunfs keeps one session");
	must_say(text, "# node.conn[0].iscsi.DataDigest = CRC32C: libiscsi has none");
	must_say(text, "# node.conn[1].address = 10.9.9.9: lunfs keeps one session");
	must_say(text, "# iface.net_ifacename = eth1: lunfs connects as the kernel routes");
	must_say(text, "# iface.transport_name = bnx2i: of an offload card");
	must_say(text, "# node.session.frobnicate = \\x1b[31m1: no equivalent");
	config_free(config);
	g_free(text);
}

Test(import, what_all_targets_have_is_told_once)
{
	struct import_home home = import_home_new();

	import_home_node(&home, IQN "one", "10.0.0.5", 3260, "node.session.queue_depth = 64\n");
	import_home_node(&home, IQN "two", "10.0.0.5", 3260, "node.session.queue_depth = 64\n");
	g_autofree char *text = import_home_read(&home, "");
	const char *said = strstr(text, "# All targets: node.session.queue_depth = 64");
	cr_assert_not_null(said, "%s", text);
	must_not_say(strchr(said, '\n'), "queue_depth");
	import_home_free(&home);
}

Test(import, an_interfaces_initiator_name_is_the_sections)
{
	char *text;
	struct config *config =
	    import_one("iface.initiatorname = iqn.2003-01.org.example:me\n", &text);

	cr_assert_str_eq(options_of(config)->initiator_name, "iqn.2003-01.org.example:me");
	config_free(config);
	g_free(text);
	config = import_one("iface.initiatorname = me\n", &text);
	cr_assert_null(options_of(config)->initiator_name);
	must_say(text, "me: not an iSCSI name");
	config_free(config);
	g_free(text);
}

Test(import, the_initiator_name_of_a_copied_system_is_kept)
{
	struct import_home home = import_home_new();

	import_home_write(&home, "etc/iscsi/initiatorname.iscsi",
	    "## DO NOT EDIT\nInitiatorName=iqn.1993-08.org.debian:01:d6b2f5a1\n");
	import_home_node(&home, IQN "one", "10.0.0.5", 3260, "");
	struct config *config = import_home_config(&home, "", NULL);
	cr_assert_str_eq(config->defaults->initiator_name, "iqn.1993-08.org.debian:01:d6b2f5a1");
	config_free(config);
	import_home_free(&home);
}

/* ---- secrets ---- */

Test(import, secrets_stay_as_they_are)
{
	static const char *const secrets[] = {"back\\slash\\n123", "#no comment#1",
	    "a = b; c, d %s", "\"in quotes 1\"", "\xc3\xbcml\xc3\xa4ut-1234", "[target x]-----",
	    "inner  blanks 1", "$HOME `id` 123"};

	for (size_t i = 0; i < G_N_ELEMENTS(secrets); i++) {
		g_autofree char *lines = g_strdup_printf("node.session.auth.username = joe\n"
		                                         "node.session.auth.password = %s\n",
		    secrets[i]);
		struct config *config = import_one(lines, NULL);

		cr_expect_str_eq(options_of(config)->password, secrets[i]);
		config_free(config);
	}
}

Test(import, secrets_that_cannot_stand_in_a_line_are_told_of_and_not_shown)
{
	static const char *const secrets[] = {"bell\x07-in-it-12", "latin1-\xe4-1234"};

	for (size_t i = 0; i < G_N_ELEMENTS(secrets); i++) {
		g_autofree char *lines = g_strdup_printf("node.session.auth.username = joe\n"
		                                         "node.session.auth.password = %s\n",
		    secrets[i]);
		char *text;
		struct config *config = import_one(lines, &text);

		cr_expect_null(options_of(config)->password);
		cr_expect_null(options_of(config)->username);
		must_say(text, "its secret cannot stand here");
		must_say(text, "password_file=");
		must_not_say(text, "bell");
		must_not_say(text, "latin1");
		config_free(config);
		g_free(text);
	}
}

Test(import, half_of_a_secret_is_told_of)
{
	static const struct {
		const char *lines, *words;
	} cases[] = {
	    {"node.session.auth.username = joe\n", "joe: there is no node.session.auth.password"},
	    {"node.session.auth.password = joes-secret-1\n",
	        "node.session.auth.password: there is no node.session.auth.username"},
	    {MUTUAL("box", "boxs-secret-2"), "box: mutual CHAP needs username and password, too"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		char *text;
		struct config *config = import_one(cases[i].lines, &text);

		cr_expect_null(options_of(config)->username);
		cr_expect_null(options_of(config)->username_in);
		must_say(text, cases[i].words);
		must_not_say(text, "-secret-");
		config_free(config);
		g_free(text);
	}
}

/* open-iscsi takes what lunfs takes only where it is told to. */
Test(import, short_secrets_are_allowed_in_words)
{
	char *text;
	struct config *config = import_one(CHAP("joe", "short"), &text);

	cr_assert(options_of(config)->weak_secrets, "%s", text);
	config_free(config);
	g_free(text);
	config = import_one(CHAP("joe", "twelve-chars"), &text);
	cr_assert_not(options_of(config)->weak_secrets, "%s", text);
	config_free(config);
	g_free(text);
}

Test(import, equal_secrets_are_told_of)
{
	char *text;
	struct config *config =
	    import_one(CHAP("joe", "same-secret-1") MUTUAL("box", "same-secret-1"), &text);

	must_say(text, "# the secrets of both directions are equal, which lunfs refuses");
	config_free(config);
	g_free(text);
}

Test(import, secrets_of_discovery_stay_where_they_are)
{
	struct import_home home = import_home_new();

	write_conf(&home, "discovery.sendtargets.auth.authmethod = CHAP\n"
	                  "discovery.sendtargets.auth.username = finder\n"
	                  "discovery.sendtargets.auth.password = finders-secret\n");
	g_autofree char *text = import_home_read(&home, "etc/iscsi");
	must_say(text, "lunfs discover PORTAL -o username=finder,password_file=FILE");
	must_not_say(text, "finders-secret");
	import_home_free(&home);
}

/* ---- files ---- */

Test(import, a_directory_of_etc_a_database_a_root_and_a_record_are_told_apart)
{
	static const char *const paths[] = {"", "etc/iscsi", "etc/iscsi/nodes",
	    "etc/iscsi/nodes/" IQN "one/10.0.0.5,3260,1/default"};
	struct import_home home = import_home_new();

	import_home_node(&home, IQN "one", "10.0.0.5", 3260, "");
	for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
		struct config *config = import_home_config(&home, paths[i], NULL);

		cr_expect_eq(config->sections->len, 1u, "%s", paths[i]);
		config_free(config);
	}
	import_home_free(&home);
}

Test(import, the_database_in_var_is_read_and_not_twice_where_it_is_one)
{
	struct import_home home = import_home_new();
	g_autofree char *record = import_record_text(IQN "one", "10.0.0.5", 3260, "");
	g_autofree char *link = g_build_filename(home.root, "etc/iscsi/nodes", NULL);

	import_home_write(&home, "etc/iscsi/iscsid.conf", "node.startup = manual\n");
	import_home_write(&home, "var/lib/iscsi/nodes/" IQN "one/10.0.0.5,3260,1/default", record);
	cr_assert_eq(symlink("../../var/lib/iscsi/nodes", link), 0);
	g_autofree char *text = import_home_read(&home, "");
	must_say(text, " 1 records");
	must_say(text, "[target one]");
	import_home_free(&home);
}

Test(import, older_layouts_and_odd_lines_are_understood)
{
	struct import_home home = import_home_new();

	import_home_write(&home, "nodes/" IQN "old/10.0.0.5,3260",
	    "\r\n  # a comment\r\nnode.name=" IQN "old\r\n"
	    "\tnode.conn[0].address   =   10.0.0.5  \r\nnode.conn[0].port\r\n= 5\r\nnonsense\r\n"
	    "node.session.timeo.replacement_timeout = 60\r\n"
	    "node.session.timeo.replacement_timeout = 61\r\n");
	import_home_write(&home, "nodes/" IQN "v6/[fd00::1],3261,2/eth1", "x = y\n");
	import_home_write(&home, "nodes/" IQN "v6/README", "node.name = no\n");
	struct config *config = import_home_config(&home, "nodes", NULL);

	const struct config_section *old = section_of(config, IQN "old");
	must_have_portals(old, "10.0.0.5:3260");
	cr_assert_eq(old->options->replacement_timeout, 61000u);
	must_have_portals(section_of(config, IQN "v6"), "[fd00::1]:3261");
	config_free(config);
	import_home_free(&home);
}

Test(import, a_record_that_is_cut_off_is_told_of)
{
	struct import_home home = import_home_new();
	g_autofree char *record = import_record_text(IQN "one", "10.0.0.5", 3260, "");

	record[strlen(record) / 2] = '\0';
	import_home_write(&home, "nodes/" IQN "one/10.0.0.5,3260,1/default", record);
	char *text;
	struct config *config = import_home_config(&home, "nodes", &text);
	must_say(text, "ends without '# END RECORD'");
	must_have_portals(section_of(config, IQN "one"), "10.0.0.5:3260");
	config_free(config);
	g_free(text);
	import_home_free(&home);
}

Test(import, records_that_no_target_can_be_made_of_are_comments)
{
	struct import_home home = import_home_new();

	import_home_write(&home, "nodes/iqn.evil\n[defaults]/10.0.0.5,3260,1/default", "x = y\n");
	import_home_write(&home, "nodes/" IQN "bad/a b@c,3260,1/default", "x = y\n");
	import_home_node(&home, IQN "good", "10.0.0.5", 3260, "");
	g_autofree char *text = import_home_read(&home, "nodes");
	must_say(text, "'iqn.evil\\x0a[defaults]' is not an iSCSI name");
	must_say(text, "'a b@c' is not an address");
	import_home_free(&home);
}

Test(import, portals_that_differ_are_told_of_and_the_first_counts)
{
	struct import_home home = import_home_new();

	import_home_node(&home, IQN "one", "10.0.0.5", 3260, CHAP("joe", "joes-secret-1"));
	import_home_node(&home, IQN "one", "10.0.0.6", 3260,
	    CHAP("jim", "jims-secret-1") "node.session.timeo.replacement_timeout = 5\n");
	char *text;
	struct config *config = import_home_config(&home, "", &text);
	cr_assert_str_eq(options_of(config)->username, "joe");
	cr_assert_eq(options_of(config)->replacement_timeout, 120000u);
	must_say(text, "# 10.0.0.6:3260 has node.session.timeo.replacement_timeout = 5: the first");
	must_say(text, "# 10.0.0.6:3260 has node.session.auth.username = jim: the first");
	must_say(text, "# 10.0.0.6:3260 has another node.session.auth.password: the first");
	must_not_say(text, "jims-secret-1");
	config_free(config);
	g_free(text);
	import_home_free(&home);
}

Test(import, several_interfaces_of_a_portal_are_one_portal)
{
	struct import_home home = import_home_new();
	g_autofree char *record = import_record_text(IQN "one", "10.0.0.5", 3260, "");

	import_home_write(&home, "nodes/" IQN "one/10.0.0.5,3260,1/default", record);
	import_home_write(&home, "nodes/" IQN "one/10.0.0.5,3260,1/eth1", record);
	struct config *config = import_home_config(&home, "nodes", NULL);
	must_have_portals(section_of(config, IQN "one"), "10.0.0.5:3260");
	config_free(config);
	import_home_free(&home);
}

/* ---- nothing, and what cannot be read ---- */

static void must_fail(const struct import_home *home, const char *name, const char *words)
{
	g_autofree char *path = g_build_filename(home->root, name, NULL);
	GError *error = NULL;

	cr_assert_null(import_open_iscsi(path, home->troubles, &error));
	cr_assert(strstr(error->message, words) && strstr(error->message, home->root), "%s",
	    error->message);
	cr_assert_eq(error->code, LUNFS_ERROR_FAILED);
	g_error_free(error);
}

Test(import, where_there_is_nothing_it_says_where_it_looked)
{
	struct import_home home = import_home_new();

	must_fail(&home, "", "nothing of open-iscsi is in");
	cr_assert_eq(home.troubles->len, 0u);
	import_home_write(&home, "empty", "");
	must_fail(&home, "empty", "nothing of open-iscsi is in");
	must_fail(&home, "nowhere", "nothing of open-iscsi can be read in");
	cr_assert_eq(home.troubles->len, 1u);
	import_home_free(&home);
}

Test(import, what_an_ordinary_user_may_not_read_is_named_with_what_helps)
{
	struct import_home home = import_home_new();
	g_autofree char *etc = g_build_filename(home.root, "etc/iscsi", NULL);
	g_autofree char *nodes = g_build_filename(etc, "nodes", NULL);
	g_autofree char *name = g_build_filename(etc, "initiatorname.iscsi", NULL);

	import_home_write(&home, "etc/iscsi/initiatorname.iscsi", "InitiatorName=" IQN "me\n");
	import_home_node(&home, IQN "one", "10.0.0.5", 3260, "");
	cr_assert_eq(chmod(name, 0644), 0);
	cr_assert(chmod(home.root, 0755) == 0 && chmod(nodes, 0) == 0);
	g_autofree char *above = g_path_get_dirname(etc);
	cr_assert(chmod(etc, 0755) == 0 && chmod(above, 0755) == 0);
	cr_assert(geteuid() != 0 || seteuid(65534) == 0);
	g_autofree char *text = import_home_read(&home, "");
	must_not_say(text, "[target");
	cr_assert_eq(home.troubles->len, 1u);
	const char *trouble = g_ptr_array_index(home.troubles, 0);
	cr_assert(
	    strstr(trouble, nodes) && strstr(trouble, "try: sudo lunfs import '"), "%s", trouble);
	cr_assert(getuid() != 0 || seteuid(0) == 0);
	cr_assert_eq(chmod(nodes, 0700), 0);
	import_home_free(&home);
}

Test(import, what_is_no_file_is_not_waited_for)
{
	struct import_home home = import_home_new();
	g_autofree char *fifo = g_build_filename(home.root, "etc/iscsi/iscsid.conf", NULL);

	import_home_node(&home, IQN "one", "10.0.0.5", 3260, "");
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	g_autofree char *text = import_home_read(&home, "");
	must_say(text, "[target one]");
	cr_assert_eq(home.troubles->len, 1u);
	import_home_free(&home);
}
