/*
 * test_config_source.c - SOURCE and PORTAL: what is understood, what is refused, and that no secret
 * is told.
 */
#include "lunfs/config.h"

#include <criterion/criterion.h>
#include <string.h>

#define IQN "iqn.2003-01.org.example:disk.1"

typedef struct source *parser(const char *text, GError **error);

static void expect(parser *parse, const char *text, const char *user, const char *host, int port,
    const char *target, int lun)
{
	GError *error = NULL;
	struct source *source = parse(text, &error);
	cr_assert(source, "%s: %s", text, error ? error->message : "no error given");
	cr_assert_null(error);
	cr_expect_str_eq(source->text, text);
	cr_expect_eq(g_strcmp0(source->user, user), 0, "%s: user '%s'", text, source->user);
	cr_expect_eq(g_strcmp0(source->host, host), 0, "%s: host '%s'", text, source->host);
	cr_expect_eq(source->port, port, "%s: port %u", text, source->port);
	cr_expect_eq(g_strcmp0(source->target, target), 0, "%s: target '%s'", text, source->target);
	cr_expect_eq(source->lun, lun, "%s: lun %d", text, source->lun);
	source_free(source);
}

/* Refused as a mistake in usage, in one line with these words in it. Free the line with g_free().
 */
static char *expect_refusal(parser *parse, const char *text, const char *words)
{
	GError *error = NULL;
	struct source *source = parse(text, &error);
	cr_assert_null(source, "'%s' was accepted", text);
	cr_assert_not_null(error, "'%s': no error", text);
	cr_expect(g_error_matches(error, LUNFS_ERROR, LUNFS_ERROR_USAGE));
	cr_expect(
	    strstr(error->message, words), "'%s': '%s' lacks '%s'", text, error->message, words);
	cr_expect_null(strchr(error->message, '\n'), "'%s': more than one line", text);
	char *message = g_strdup(error->message);
	g_error_free(error);
	return message;
}

static void expect_refused(parser *parse, const char *text, const char *words)
{
	g_free(expect_refusal(parse, text, words));
}

Test(config_source, a_portal_alone_means_every_target)
{
	expect(source_parse, "iscsi://nas", NULL, "nas", 3260, NULL, -1);
	expect(source_parse, "iscsi://10.0.0.5:3261", NULL, "10.0.0.5", 3261, NULL, -1);
	expect(source_parse, "ISCSI://nas.example.org", NULL, "nas.example.org", 3260, NULL, -1);
}

Test(config_source, a_slash_after_the_portal_is_tolerated)
{
	expect(source_parse, "iscsi://nas/", NULL, "nas", 3260, NULL, -1);
	expect(source_parse, "iscsi://nas:1/", NULL, "nas", 1, NULL, -1);
	expect(source_parse_portal, "iscsi://nas/", NULL, "nas", 3260, NULL, -1);
	expect(source_parse_portal, "nas:1/", NULL, "nas", 1, NULL, -1);
	expect_refused(source_parse, "iscsi://nas//", "target's name");
}

Test(config_source, a_target_and_a_lun_follow_the_portal)
{
	expect(source_parse, "iscsi://nas/" IQN, NULL, "nas", 3260, IQN, -1);
	expect(source_parse, "iscsi://nas:65535/" IQN "/0", NULL, "nas", 65535, IQN, 0);
	expect(source_parse, "iscsi://nas/" IQN "/16383", NULL, "nas", 3260, IQN, 16383);
	expect(source_parse, "iscsi://nas/eui.0123456789abcdef/7", NULL, "nas", 3260,
	    "eui.0123456789abcdef", 7);
}

Test(config_source, a_target_is_percent_decoded)
{
	expect(source_parse, "iscsi://nas/iqn.2003-01.org.example%3Adisk%5f1", NULL, "nas", 3260,
	    "iqn.2003-01.org.example:disk_1", -1);
	expect_refused(source_parse, "iscsi://nas/" IQN "%", "two hex digits");
	expect_refused(source_parse, "iscsi://nas/" IQN "%zz", "two hex digits");
	expect_refused(source_parse, "iscsi://nas/" IQN "%00", "two hex digits");
	expect_refused(source_parse, "iscsi://nas/" IQN "%0a", "must be like iqn.");
	expect_refused(source_parse, "iscsi://nas/" IQN "%2f..%2fx", "must be like iqn.");
}

Test(config_source, a_user_stands_before_the_host)
{
	expect(source_parse, "iscsi://joe@nas:3261/" IQN "/1", "joe", "nas", 3261, IQN, 1);
	expect(source_parse, "iscsi://joe@[::1]", "joe", "::1", 3260, NULL, -1);
	expect(source_parse_portal, "iscsi://joe@nas", "joe", "nas", 3260, NULL, -1);
	expect_refused(source_parse, "iscsi://@nas", "user before the '@' is missing");
}

Test(config_source, a_user_may_be_an_initiators_name)
{
	expect(source_parse, "iscsi://iqn.1993-08.org.debian:01:ab@nas/" IQN,
	    "iqn.1993-08.org.debian:01:ab", "nas", 3260, IQN, -1);
}

Test(config_source, a_secret_is_refused_and_never_repeated)
{
	static const char *const texts[] = {
	    "iscsi://joe%s3cr3t@nas/" IQN,
	    "iscsi://joe%s3cr3t@nas",
	    "iscsi://joe:s3cr3t@nas",
	    "iscsi://joe%x@s3cr3t@nas/" IQN,
	    "iscsi://joe%x/s3cr3t@nas/" IQN,
	    "iscsi://joe:x/s3cr3t@nas/" IQN,
	    "iscsi://joe%x?s3cr3t@nas/" IQN,
	    "iscsi://%s3cr3t@nas",
	    "iscsi://joe@x%s3cr3t@nas",
	    "iscsi://joe@x:s3cr3t@nas",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		g_autofree char *message =
		    expect_refusal(source_parse, texts[i], "-o password_file=FILE");
		cr_expect(strstr(message, "LIBISCSI_CHAP_PASSWORD"), "%s", message);
		cr_expect_null(strstr(message, "s3cr3t"), "told: %s", message);
		g_autofree char *portal =
		    expect_refusal(source_parse_portal, texts[i], "-o password_file=FILE");
		cr_expect_null(strstr(portal, "s3cr3t"), "told: %s", portal);
	}
	expect_refused(source_parse_portal, "joe%s3cr3t@nas", "-o password_file=FILE");
}

Test(config_source, a_secret_is_not_repeated_by_other_errors_either)
{
	static const char *const texts[] = {
	    "iscsi:/joe%s3cr3t@nas",
	    "joe%s3cr3t@nas",
	    "iscsi://nas%s3cr3t",
	    "iscsi://joe%s3cr3t",
	    "iscsi://nas/" IQN "?target_password=s3cr3t",
	    "iscsi://joe@nas:s3cr3t",
	    "iscsi://joe@nas/" IQN "/s3cr3t",
	    "iscsi://joe%s3cr3t@nas\n",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		g_autofree char *message = expect_refusal(source_parse, texts[i], "the URL: ");
		cr_expect_null(strstr(message, "s3cr3t"), "told: %s", message);
	}
}

Test(config_source, ipv6_stands_in_brackets)
{
	expect(source_parse, "iscsi://[::1]", NULL, "::1", 3260, NULL, -1);
	expect(source_parse, "iscsi://[fd00::5]:3261/" IQN "/2", NULL, "fd00::5", 3261, IQN, 2);
	expect(source_parse, "iscsi://[fe80::1%eth0]/" IQN, NULL, "fe80::1%eth0", 3260, IQN, -1);
	expect(source_parse, "iscsi://[fe80::1%25eth0]/", NULL, "fe80::1%eth0", 3260, NULL, -1);
	expect_refused(source_parse, "iscsi://[::1", "']'");
	expect_refused(source_parse, "iscsi://[]", "not an IPv6 address");
	expect_refused(source_parse, "iscsi://[nas]", "not an IPv6 address");
	expect_refused(source_parse, "iscsi://[1.2.3.4]", "not an IPv6 address");
	expect_refused(source_parse, "iscsi://[fe80::1%]", "not an IPv6 address");
	expect_refused(source_parse, "iscsi://[fe80::1%e;h]", "not an IPv6 address");
	expect_refused(source_parse, "iscsi://[::1]3260", "port from 1 to 65535");
	expect_refused(source_parse, "iscsi://fd00::5/" IQN, "brackets");
}

Test(config_source, a_port_is_a_number_from_1_to_65535)
{
	static const char *const ports[] = {"", "0", "65536", "99999999999999999999", "-1", "+1",
	    " 1", "1 ", "http", "0x10", "3260,1"};
	for (size_t i = 0; i < G_N_ELEMENTS(ports); i++) {
		g_autofree char *text = g_strconcat("iscsi://nas:", ports[i], NULL);
		expect_refused(source_parse, text, "port from 1 to 65535");
		g_autofree char *in_brackets = g_strconcat("[::1]:", ports[i], NULL);
		expect_refused(source_parse_portal, in_brackets, "port from 1 to 65535");
	}
}

Test(config_source, a_lun_is_a_decimal_from_0_to_16383)
{
	static const char *const luns[] = {"", "16384", "-1", "+1", "0x1", "1/", "1/2", "1x", " 1",
	    "99999999999999999999", "lun0"};
	for (size_t i = 0; i < G_N_ELEMENTS(luns); i++) {
		g_autofree char *text = g_strconcat("iscsi://nas/" IQN "/", luns[i], NULL);
		expect_refused(source_parse, text, "LUN from 0 to 16383");
	}
}

Test(config_source, a_query_or_a_fragment_is_refused)
{
	expect_refused(source_parse, "iscsi://nas?x=1", "give options with -o");
	expect_refused(source_parse, "iscsi://nas/" IQN "/0?header_digest=crc32c", "with -o");
	expect_refused(source_parse, "iscsi://nas/" IQN "/0#x", "with -o");
}

Test(config_source, what_is_no_target_name_is_refused)
{
	static const char *const names[] = {
	    "disk", "iqn.", "iqn.2003-13.org.x:y", "eui.12", "naa.xyz", IQN "@x", IQN " x"};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autofree char *text = g_strconcat("iscsi://nas/", names[i], NULL);
		g_autoptr(GError) error = NULL;
		cr_expect_null(source_parse(text, &error), "%s", text);
		cr_assert_not_null(error);
	}
	expect_refused(source_parse, "iscsi://nas/disk", "'iscsi://nas/disk': the target's name");
}

Test(config_source, a_host_is_a_name_or_an_address)
{
	expect(source_parse, "iscsi://my_nas-1.local", NULL, "my_nas-1.local", 3260, NULL, -1);
	expect(source_parse, "iscsi://z\xc3\xbcrich.example", NULL, "z\xc3\xbcrich.example", 3260,
	    NULL, -1);
	expect_refused(source_parse, "iscsi://", "host is missing");
	expect_refused(source_parse, "iscsi://:3260", "host is missing");
	expect_refused(source_parse, "iscsi:///" IQN, "host is missing");
	expect_refused(source_parse, "iscsi://joe@/" IQN, "host is missing");
	expect_refused(source_parse, "iscsi://na s", "neither a name nor an address");
	expect_refused(source_parse, "iscsi://na$s", "neither a name nor an address");
	expect_refused(source_parse, "iscsi://na\xffs", "neither a name nor an address");
	g_autofree char *long_name = g_strnfill(254, 'a');
	g_autofree char *text = g_strconcat("iscsi://", long_name, NULL);
	expect_refused(source_parse, text, "neither a name nor an address");
	expect(source_parse_portal, long_name + 1, NULL, long_name + 1, 3260, NULL, -1);
}

Test(config_source, another_scheme_is_refused)
{
	expect_refused(source_parse, "", "SOURCE must be iscsi://");
	expect_refused(source_parse, "nas", "SOURCE must be iscsi://");
	expect_refused(source_parse, "http://nas", "SOURCE must be iscsi://");
	expect_refused(source_parse, "iscsi:/nas", "SOURCE must be iscsi://");
	expect_refused(source_parse, "iser://nas/" IQN, "SOURCE must be iscsi://");
}

Test(config_source, control_characters_are_refused_and_not_repeated)
{
	expect_refused(source_parse, "iscsi://nas\nx", "control character");
	expect_refused(source_parse_portal, "nas\033[2J", "the URL: it holds a control character");
	expect_refused(source_parse, "nas\nx", "SOURCE must be");
}

Test(config_source, a_portal_is_plain_or_a_url)
{
	expect(source_parse_portal, "nas", NULL, "nas", 3260, NULL, -1);
	expect(source_parse_portal, "10.0.0.5:3261", NULL, "10.0.0.5", 3261, NULL, -1);
	expect(source_parse_portal, "[fd00::5]:3261", NULL, "fd00::5", 3261, NULL, -1);
	expect(source_parse_portal, "[fd00::5]", NULL, "fd00::5", 3260, NULL, -1);
	expect(source_parse_portal, "fd00::5", NULL, "fd00::5", 3260, NULL, -1);
	expect(source_parse_portal, "fe80::1%eth0", NULL, "fe80::1%eth0", 3260, NULL, -1);
	expect(source_parse_portal, "iscsi://nas:1", NULL, "nas", 1, NULL, -1);
	expect_refused(source_parse_portal, "iscsi://fd00::5", "brackets");
	expect_refused(source_parse_portal, "fd00::5::1", "brackets");
	expect_refused(source_parse_portal, "", "host is missing");
	expect_refused(source_parse_portal, "http://nas", "port from 1 to 65535");
}

Test(config_source, a_portal_has_no_target)
{
	expect_refused(source_parse_portal, "iscsi://nas/" IQN, "leave out the target");
	expect_refused(source_parse_portal, "nas/" IQN "/0", "leave out the target");
}

Test(config_source, nothing_can_be_freed)
{
	source_free(NULL);
	cr_expect_null(source_parse("nas", NULL), "an error that nobody wants does no harm");
}
