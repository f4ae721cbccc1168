/*
 * test_config_options.c - "-o": defaults, every key, every refusal and its words.
 */
#include "lunfs/config.h"

#include <criterion/criterion.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

/* What these texts make, one "-o" each; free with options_free(). */
static struct options *parsed(const char *first, const char *second)
{
	g_autoptr(GError) error = NULL;
	struct options *options = options_new();
	cr_assert(options_parse(options, first, &error), "%s: %s", first, error->message);
	if (second)
		cr_assert(options_parse(options, second, &error), "%s: %s", second, error->message);
	return options;
}

static char *refusal(const char *text)
{
	GError *error = NULL;
	struct options *options = options_new();
	cr_assert_not(options_parse(options, text, &error), "'%s' was accepted", text);
	options_free(options);
	cr_assert_not_null(error, "'%s': no error", text);
	cr_expect(g_error_matches(error, LUNFS_ERROR, LUNFS_ERROR_USAGE));
	cr_expect_null(strchr(error->message, '\n'));
	char *message = g_strdup(error->message);
	g_error_free(error);
	return message;
}

static void expect_refused(const char *text, const char *words)
{
	g_autofree char *message = refusal(text);
	cr_expect(strstr(message, words), "'%s': '%s' lacks '%s'", text, message, words);
}

Test(config_options, defaults_are_those_of_the_table)
{
	struct options *options = parsed("", NULL);
	cr_expect_not(options->read_only);
	cr_expect_not(options->allow_other);
	cr_expect_not(options->allow_root);
	cr_expect_not(options->shared);
	cr_expect_not(options->header_digest);
	cr_expect_eq(options->uid, getuid());
	cr_expect_eq(options->gid, getgid());
	cr_expect_eq(options->umask, 077);
	cr_expect_eq(options->login_timeout, 15000);
	cr_expect_eq(options->command_timeout, 30000);
	cr_expect_eq(options->noop_out_interval, 5000);
	cr_expect_eq(options->noop_out_timeout, 5000);
	cr_expect_eq(options->replacement_timeout, 120000);
	cr_expect_eq(options->log_level, LOG_AS_EVER);
	cr_expect_eq(options->cache, CACHE_WRITEBACK);
	cr_expect_eq(options->cache_size, UINT64_C(64) << 20);
	cr_expect_eq(options->dirty_expire, 5000);
	cr_expect_eq(options->readahead, OPTIONS_AUTO);
	cr_expect_null(options->initiator_name);
	cr_expect_null(options->username);
	cr_expect_null(options->password_file);
	cr_expect_null(options->username_in);
	cr_expect_null(options->password_in_file);
	cr_expect_null(options->fuse_options);
	options_free(options);
	options_free(NULL);
}

Test(config_options, flags_are_set_and_the_later_one_wins)
{
	struct options *options = parsed("ro,allow_other", NULL);
	cr_expect(options->read_only);
	cr_expect(options->allow_other);
	cr_expect_not(options->allow_root);
	options_free(options);

	options = parsed("ro,rw", NULL);
	cr_expect_not(options->read_only);
	options_free(options);

	options = parsed("shared", NULL);
	cr_expect(options->shared);
	options_free(options);

	options = parsed("rw,allow_root", "ro");
	cr_expect(options->read_only);
	cr_expect(options->allow_root);
	options_free(options);
}

Test(config_options, names_are_kept_and_the_later_one_wins)
{
	struct options *options = parsed("username=a,password_file=/b,username_in=c",
	    "username=z,password_in_file=/d,initiator_name=iqn.2026-11.org.x:y");
	cr_expect_str_eq(options->username, "z");
	cr_expect_str_eq(options->password_file, "/b");
	cr_expect_str_eq(options->username_in, "c");
	cr_expect_str_eq(options->password_in_file, "/d");
	cr_expect_str_eq(options->initiator_name, "iqn.2026-11.org.x:y");
	options_free(options);
}

Test(config_options, a_value_holds_equal_signs_and_escaped_commas)
{
	struct options *options =
	    parsed("username=a\\,b\\c=d,password_file=/x\\,y,umask=022", NULL);
	cr_expect_str_eq(options->username, "a,b\\c=d");
	cr_expect_str_eq(options->password_file, "/x,y");
	cr_expect_eq(options->umask, 022);
	options_free(options);
}

Test(config_options, empty_items_do_no_harm)
{
	struct options *options = parsed(",,ro,,allow_root,", NULL);
	cr_expect(options->read_only);
	cr_expect(options->allow_root);
	options_free(options);
}

Test(config_options, owners_are_numbers_or_names)
{
	struct options *options = parsed("uid=1234,gid=4294967294", NULL);
	cr_expect_eq(options->uid, 1234);
	cr_expect_eq(options->gid, 4294967294u);
	options_free(options);

	const struct passwd *user = getpwnam("daemon");
	const struct group *group = getgrnam("daemon");
	cr_assert(user && group, "this system has no 'daemon'");
	g_autofree char *before =
	    g_strdup_printf("uid=%u,gid=%u", user->pw_uid + 1, group->gr_gid + 1);
	options = parsed(before, "uid=daemon,gid=daemon");
	cr_expect_eq(options->uid, user->pw_uid);
	cr_expect_eq(options->gid, group->gr_gid);
	options_free(options);

	expect_refused("uid=no-such-user", "no user 'no-such-user'");
	expect_refused("gid=no-such-group", "no group 'no-such-group'");
	expect_refused("uid=4294967295", "no user");
	expect_refused("uid=-1", "no user");
	expect_refused("gid=1x", "no group");
}

Test(config_options, umask_is_octal)
{
	struct options *options = parsed("umask=0027", NULL);
	cr_expect_eq(options->umask, 027);
	options_free(options);
	options = parsed("umask=0", NULL);
	cr_expect_eq(options->umask, 0);
	options_free(options);
	expect_refused("umask=8", "octal number from 0 to 777");
	expect_refused("umask=1000", "octal number from 0 to 777");
	expect_refused("umask=-22", "octal number from 0 to 777");
	expect_refused("umask=0x1f", "octal number from 0 to 777");
}

Test(config_options, durations_have_units_and_are_seconds_without)
{
	struct options *options = parsed(
	    "login_timeout=7,command_timeout=1500ms,noop_out_interval=2m,noop_out_timeout=9s",
	    NULL);
	cr_expect_eq(options->login_timeout, 7000);
	cr_expect_eq(options->command_timeout, 1500);
	cr_expect_eq(options->noop_out_interval, 120000);
	cr_expect_eq(options->noop_out_timeout, 9000);
	options_free(options);

	options = parsed("login_timeout=1h,command_timeout=24h,noop_out_timeout=86400", NULL);
	cr_expect_eq(options->login_timeout, 3600000);
	cr_expect_eq(options->command_timeout, 86400000);
	cr_expect_eq(options->noop_out_timeout, 86400000);
	options_free(options);
}

Test(config_options, what_is_no_duration_is_refused)
{
	static const char *const timeouts[] = {"login_timeout", "command_timeout",
	    "noop_out_interval", "noop_out_timeout", "replacement_timeout", "dirty_expire"};
	static const char *const values[] = {"-1", "s", "1.5s", "5 s", "+5", "5d", "5S", "Infinity",
	    "infinity ", "25h", "86401", "86400001ms", "4294968", "4294967295",
	    "18446744073709551616", "1e3"};
	for (size_t i = 0; i < G_N_ELEMENTS(timeouts); i++) {
		for (size_t j = 0; j < G_N_ELEMENTS(values); j++) {
			g_autofree char *text = g_strconcat(timeouts[i], "=", values[j], NULL);
			g_autofree char *words = g_strdup_printf("option '%s': ", timeouts[i]);
			expect_refused(text, words);
			expect_refused(text, "is not a time like");
		}
	}
}

Test(config_options, a_login_or_command_needs_some_time)
{
	expect_refused("login_timeout=0", "above 0");
	expect_refused("command_timeout=0ms", "above 0");
	expect_refused("login_timeout=infinity", "is not a time like");
	expect_refused("command_timeout=infinity", "is not a time like");
}

Test(config_options, an_answer_to_the_keepalive_needs_some_time_where_there_is_one)
{
	struct options *options = parsed("noop_out_interval=0", NULL);
	cr_expect_eq(options->noop_out_interval, 0);
	cr_expect_eq(options->noop_out_timeout, 5000);
	options_free(options);
	options = parsed("noop_out_timeout=0,noop_out_interval=0", NULL);
	cr_expect_eq(options->noop_out_interval, 0);
	cr_expect_eq(options->noop_out_timeout, 0);
	options_free(options);
	expect_refused("noop_out_timeout=0s", "'noop_out_timeout' must be above 0");
	expect_refused(
	    "noop_out_interval=1ms,noop_out_timeout=0", "unless 'noop_out_interval' is 0");
	expect_refused("profile=aws,noop_out_timeout=0", "'noop_out_timeout' must be above 0");
	expect_refused("noop_out_interval=infinity", "is not a time like");
	expect_refused("noop_out_timeout=infinity", "is not a time like");
}

/* ... where open-iscsi says infinite with any negative number. */
Test(config_options, the_replacement_timeout_is_a_time_or_0_or_infinity)
{
	static const struct {
		const char *text;
		unsigned milliseconds;
	} values[] = {{"replacement_timeout=0", 0}, {"replacement_timeout=1500ms", 1500},
	    {"replacement_timeout=90", 90000}, {"replacement_timeout=24h", 86400000},
	    {"replacement_timeout=infinity", OPTIONS_INFINITY},
	    {"replacement_timeout=infinity,replacement_timeout=5s", 5000}};
	for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
		struct options *options = parsed(values[i].text, NULL);
		cr_expect_eq(
		    options->replacement_timeout, values[i].milliseconds, "%s", values[i].text);
		options_free(options);
	}
	expect_refused("replacement_timeout=-1", "nor 'infinity'");
	expect_refused("replacement_timeout=infinite", "nor 'infinity'");
	expect_refused("replacement_timeout=25h", "up to 24h");
}

Test(config_options, the_profile_aws_is_patient)
{
	struct options *options = parsed("profile=aws", NULL);
	cr_expect_eq(options->replacement_timeout, 600000);
	cr_expect_eq(options->noop_out_interval, 60000);
	cr_expect_eq(options->noop_out_timeout, 600000);
	cr_expect_eq(options->command_timeout, 600000);
	cr_expect_eq(options->login_timeout, 15000);
	options_free(options);
	expect_refused("profile=azure", "no profile 'azure': the one there is is aws");
	expect_refused("profile=AWS", "aws");
}

Test(config_options, what_is_given_wins_over_the_profile_wherever_it_stands)
{
	static const char *const texts[][2] = {
	    {"replacement_timeout=infinity,noop_out_interval=5,command_timeout=30s,profile=aws",
	        NULL},
	    {"profile=aws,command_timeout=30s,noop_out_interval=5,replacement_timeout=infinity",
	        NULL},
	    {"profile=aws", "replacement_timeout=infinity,noop_out_interval=5,command_timeout=30s"},
	    {"replacement_timeout=infinity,noop_out_interval=5,command_timeout=30s", "profile=aws"},
	    {"profile=aws,command_timeout=30s,profile=aws",
	        "profile=aws,noop_out_interval=5,replacement_timeout=infinity"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		struct options *options = parsed(texts[i][0], texts[i][1]);
		cr_expect_eq(options->replacement_timeout, OPTIONS_INFINITY, "%zu", i);
		cr_expect_eq(options->noop_out_interval, 5000, "%zu: as the default, but given", i);
		cr_expect_eq(options->command_timeout, 30000, "%zu: as the default, but given", i);
		cr_expect_eq(options->noop_out_timeout, 600000, "%zu", i);
		options_free(options);
	}
}

Test(config_options, header_digest_is_none_or_crc32c)
{
	struct options *options = parsed("header_digest=crc32c", NULL);
	cr_expect(options->header_digest);
	options_free(options);
	options = parsed("header_digest=CRC32C,header_digest=none", NULL);
	cr_expect_not(options->header_digest);
	options_free(options);
	expect_refused("header_digest=md5", "neither none nor crc32c");
}

Test(config_options, loglevel_is_one_of_four_words)
{
	static const struct {
		const char *text;
		int level;
	} levels[] = {{"loglevel=error", LOG_ERRORS}, {"loglevel=warning", LOG_WARNINGS},
	    {"loglevel=info", LOG_INFOS}, {"loglevel=debug", LOG_DEBUGS}};
	for (size_t i = 0; i < G_N_ELEMENTS(levels); i++) {
		struct options *options = parsed(levels[i].text, NULL);
		cr_expect_eq((int)options->log_level, levels[i].level, "%s", levels[i].text);
		options_free(options);
	}
	expect_refused("loglevel=loud", "error, warning, info, debug");
	expect_refused("loglevel=2", "error, warning, info, debug");
}

Test(config_options, cache_is_one_of_QEMUs_three_words)
{
	static const struct {
		const char *text;
		enum cache_mode mode;
	} modes[] = {{"cache=writeback", CACHE_WRITEBACK},
	    {"cache=writethrough", CACHE_WRITETHROUGH}, {"cache=none", CACHE_NONE},
	    {"cache=none,cache=writeback", CACHE_WRITEBACK}};
	for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
		struct options *options = parsed(modes[i].text, NULL);
		cr_expect_eq(options->cache, modes[i].mode, "%s", modes[i].text);
		cr_expect(g_str_has_suffix(modes[i].text, cache_mode_name(modes[i].mode)));
		options_free(options);
	}
	expect_refused("cache=unsafe", "'unsafe' is none of writeback, writethrough, none");
	expect_refused("cache=None", "writeback, writethrough, none");
	expect_refused("cache=0", "writeback, writethrough, none");
}

Test(config_options, sizes_have_units_of_1024_and_are_bytes_without)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {{"cache_size=4194304", 4194304}, {"cache_size=4M", 4194304},
	    {"cache_size=4096K", 4194304}, {"cache_size=128m", 128 << 20},
	    {"cache_size=2G", UINT64_C(2) << 30}, {"cache_size=1024G", UINT64_C(1) << 40},
	    {"cache_size=1099511627776", UINT64_C(1) << 40},
	    {"cache_size=1G,cache_size=10000001", 10000001}};
	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		struct options *options = parsed(sizes[i].text, NULL);
		cr_expect_eq(options->cache_size, sizes[i].bytes, "%s", sizes[i].text);
		options_free(options);
	}
}

Test(config_options, what_is_no_size_or_too_small_for_a_cache_is_refused)
{
	static const char *const values[] = {"0", "1", "64", "4194303", "4095K", "3M", "1025G",
	    "1099511627777", "1T", "64MB", "64MiB", "6.5M", "64 M", " 64M", "64M ", "-64M", "+64M",
	    "M", "0x400000", "auto", "18446744073709551616", "17179869184G", "1e9"};
	for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
		g_autofree char *text = g_strconcat("cache_size=", values[i], NULL);
		expect_refused(text, "option 'cache_size': ");
		expect_refused(text, "is not a size like 64M or 1G, from 4M to 1024G");
	}
	expect_refused("cache_size=0", "give cache=none");
}

Test(config_options, readahead_is_auto_or_a_size_or_0)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {{"readahead=auto", OPTIONS_AUTO}, {"readahead=0", 0}, {"readahead=0K", 0},
	    {"readahead=4096", 4096}, {"readahead=512k", 512 << 10}, {"readahead=8M", 8 << 20},
	    {"readahead=0,readahead=auto", OPTIONS_AUTO}};
	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		struct options *options = parsed(sizes[i].text, NULL);
		cr_expect_eq(options->readahead, sizes[i].bytes, "%s", sizes[i].text);
		options_free(options);
	}
	expect_refused("readahead=128", "nor a size like 512K or 8M from 4K"); /* not KiB */
	expect_refused("readahead=Auto", "neither auto, nor 0 for none");
	expect_refused("readahead=-1", "neither auto, nor 0 for none");
	expect_refused("readahead=1025G", "neither auto, nor 0 for none");
}

Test(config_options, dirty_data_needs_some_time_to_become_old)
{
	struct options *options = parsed("dirty_expire=500ms", NULL);
	cr_expect_eq(options->dirty_expire, 500);
	options_free(options);
	expect_refused("dirty_expire=0", "above 0");
	expect_refused("dirty_expire=infinity", "is not a time like");
}

Test(config_options, shared_means_no_cache)
{
	static const char *const texts[][2] = {{"shared", NULL}, {"shared,cache=none", NULL},
	    {"cache=none,shared", NULL}, {"cache_size=8M,readahead=1M", "shared"},
	    {"shared", "cache=none"}};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		struct options *options = parsed(texts[i][0], texts[i][1]);
		cr_expect_eq(options->cache, CACHE_NONE, "%zu", i);
		options_free(options);
	}
}

Test(config_options, shared_and_a_cache_exclude_each_other)
{
	expect_refused("shared,cache=writeback",
	    "'shared' and 'cache=writeback' exclude each other: what other hosts write would not "
	    "be seen");
	expect_refused("cache=writethrough,shared", "'shared' and 'cache=writethrough' exclude");
	struct options *options = parsed("shared", NULL);
	cr_expect_not(options_parse(options, "cache=writeback", NULL), "in a second -o as well");
	options_free(options);
	options = parsed("cache=writeback", NULL);
	cr_expect_not(options_parse(options, "shared", NULL), "whichever comes first");
	options_free(options);
}

Test(config_options, flags_take_no_value)
{
	static const char *const flags[] = {"ro", "rw", "allow_other", "allow_root", "shared",
	    "nosuid", "sync", "_netdev", "nofail", "defaults"};
	for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
		g_autofree char *text = g_strconcat(flags[i], "=1", NULL);
		expect_refused(text, "takes no value");
		g_autofree char *empty = g_strconcat(flags[i], "=", NULL);
		expect_refused(empty, "takes no value");
	}
}

Test(config_options, keys_with_values_need_one)
{
	static const char *const names[] = {"uid", "gid", "umask", "login_timeout",
	    "command_timeout", "noop_out_interval", "noop_out_timeout", "header_digest",
	    "initiator_name", "username", "password_file", "username_in", "password_in_file",
	    "loglevel", "replacement_timeout", "profile", "cache", "cache_size", "dirty_expire",
	    "readahead"};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		expect_refused(names[i], "needs a value");
		g_autofree char *empty = g_strconcat("ro,", names[i], "=", NULL);
		expect_refused(empty, "needs a value");
	}
}

Test(config_options, allow_other_and_allow_root_exclude_each_other)
{
	expect_refused("allow_other,allow_root", "exclude each other");
	struct options *options = parsed("allow_root", NULL);
	cr_expect_not(options_parse(options, "allow_other", NULL), "in a second -o as well");
	options_free(options);
}

Test(config_options, a_password_is_refused_and_never_repeated)
{
	g_autofree char *message = refusal("ro,password=s3cr3t,more");
	cr_expect(strstr(message, "password_file=FILE"), "%s", message);
	cr_expect(strstr(message, "LIBISCSI_CHAP_PASSWORD"), "%s", message);
	cr_expect_null(strstr(message, "s3cr3t"), "told: %s", message);

	g_autofree char *mutual = refusal("password_in=s3cr3t");
	cr_expect(strstr(mutual, "password_in_file=FILE"), "%s", mutual);
	cr_expect(strstr(mutual, "LIBISCSI_CHAP_TARGET_PASSWORD"), "%s", mutual);
	cr_expect_null(strstr(mutual, "s3cr3t"), "told: %s", mutual);

	g_autofree char *misspelled = refusal("pasword=s3cr3t");
	cr_expect(strstr(misspelled, "did you mean 'password_file'?"), "%s", misspelled);
	cr_expect_null(strstr(misspelled, "s3cr3t"), "told: %s", misspelled);

	expect_refused("password", "password_file=FILE");
}

Test(config_options, a_misspelled_key_gets_the_nearest_one)
{
	expect_refused("r0", "unknown option 'r0': did you mean 'ro'?");
	expect_refused("allow-other", "did you mean 'allow_other'?");
	expect_refused("alow_othr", "did you mean 'allow_other'?");
	expect_refused("user_name=x", "did you mean 'username'?");
	expect_refused("passwordfile=x", "did you mean 'password_file'?");
	expect_refused("login_timout=3", "did you mean 'login_timeout'?");
	expect_refused("netdev", "did you mean '_netdev'?");
	expect_refused("umsk=022", "did you mean 'umask'?");
	expect_refused("UMASK=022", "unknown option 'UMASK'");
	expect_refused("caches=none", "did you mean 'cache'?");
}

Test(config_options, what_is_near_to_nothing_gets_no_guess)
{
	expect_refused("frobnicate=1", "unknown option 'frobnicate': 'lunfs --help'");
	expect_refused("xy", "unknown option 'xy': 'lunfs --help'");
	expect_refused("=1", "unknown option '': 'lunfs --help'");
	g_autofree char *long_name = g_strnfill(10000, 'r');
	expect_refused(long_name, "lunfs --help");
}

Test(config_options, words_of_fstab_are_dropped)
{
	struct options *options =
	    parsed("defaults,auto,noauto,_netdev,nofail,user,users,nouser,owner,group,relatime,"
	           "x-systemd.requires=network-online.target,x-gvfs-show,X-mount.mkdir=0700,"
	           "user=joe,comment=hello,lazytime,nodiratime,strictatime,default_permissions",
	        NULL);
	cr_expect_null(options->fuse_options);
	cr_expect_null(options->username, "'user=' of mount(8) is no CHAP user");
	cr_expect_not(options->read_only);
	options_free(options);
}

Test(config_options, flags_of_the_mount_go_to_fuse_in_order)
{
	struct options *options = parsed("nosuid,ro,nodev,_netdev,noexec", "noatime,exec");
	cr_expect_str_eq(options->fuse_options, "nosuid,nodev,noexec,noatime,exec");
	cr_expect(options->read_only);
	options_free(options);
	options = parsed("suid,dev,atime,sync,async,dirsync", NULL);
	cr_expect_str_eq(options->fuse_options, "suid,dev,atime,sync,async,dirsync");
	options_free(options);
}

Test(config_options, control_characters_are_refused)
{
	expect_refused("ro,x\ny", "control character");
	expect_refused("username=a\033b", "control character");
	expect_refused("x-foo=\r", "control character");
}

Test(config_options, what_was_given_stays_given_in_a_copy)
{
	struct options *options = parsed("command_timeout=3,nosuid,username=joe", NULL);
	options->password = g_strdup("of-a-file");
	struct options *copy = options_copy(options);
	cr_expect_str_eq(copy->fuse_options, "nosuid");
	cr_expect_str_eq(copy->username, "joe");
	cr_expect_str_eq(copy->password, "of-a-file");
	cr_expect(copy->username != options->username && copy->password != options->password);
	options_free(options);
	cr_assert(options_parse(copy, "profile=aws", NULL));
	cr_expect_eq(copy->command_timeout, 3000);
	cr_expect_eq(copy->replacement_timeout, 600000);
	options_free(copy);
}

Test(config_options, what_comes_later_goes_before_what_it_excludes)
{
	struct options *options = parsed("cache=writethrough,allow_root", NULL);
	struct options *copy = options_copy(options);
	cr_assert(options_parse(copy, "shared,allow_other", NULL));
	cr_expect_eq(copy->cache, CACHE_NONE);
	cr_expect(copy->allow_other);
	cr_expect_not(copy->allow_root);
	struct options *later = options_copy(copy);
	cr_expect_not(options_parse(later, "cache=writeback", NULL), "shared is not taken back");
	options_free(later);
	options_free(copy);
	options_free(options);
}

Test(config_options, targets_differ_in_what_is_theirs)
{
	static const char *const different[] = {"ro", "shared", "cache=none", "dirty_expire=1",
	    "readahead=0", "uid=7", "gid=7", "umask=0", "login_timeout=1", "command_timeout=1",
	    "noop_out_interval=1", "noop_out_timeout=1", "replacement_timeout=1",
	    "header_digest=crc32c", "initiator_name=iqn.2026-11.org.x:y"};
	static const char *const same[] = {"rw", "allow_other", "allow_root", "cache_size=8M",
	    "nosuid", "loglevel=error", "cache=writeback", "weak_secrets"};
	struct options *plain = options_new();
	for (size_t i = 0; i < G_N_ELEMENTS(different); i++) {
		struct options *other = parsed(different[i], NULL);
		cr_expect_not(options_equal(plain, other), "%s", different[i]);
		cr_expect(options_equal(other, other));
		options_free(other);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(same); i++) {
		struct options *other = parsed(same[i], NULL);
		cr_expect(options_equal(plain, other), "%s", same[i]);
		options_free(other);
	}
	options_free(plain);
}

Test(config_options, weak_secrets_is_a_word_or_yes_or_no)
{
	struct options *options = parsed("weak_secrets", NULL);
	cr_expect(options->weak_secrets);
	options_free(options);
	options = parsed("weak_secrets=yes", "weak_secrets=no");
	cr_expect_not(options->weak_secrets);
	options_free(options);
	expect_refused("weak_secrets=x", "option 'weak_secrets': 'x' is neither yes nor no");
}
