/*
 * test_import_random.c - whatever stands in open-iscsi's files, what is imported is accepted, and
 * secrets stay what they are.
 */
#include "import_home.h"
#include "support/seed.h"

#define DATABASES 300

static const char *const keys[] = {"node.session.auth.username", "node.session.auth.password",
    "node.session.auth.username_in", "node.session.auth.password_in", "node.name",
    "node.conn[0].address", "node.conn[0].port", "node.session.timeo.replacement_timeout",
    "node.conn[0].timeo.login_timeout", "node.conn[0].timeo.noop_out_interval",
    "node.conn[0].timeo.noop_out_timeout", "node.conn[0].iscsi.HeaderDigest", "iface.initiatorname",
    "node.startup", "node.session.queue_depth", "iscsid.startup",
    "discovery.sendtargets.auth.username", "discovery.sendtargets.auth.password", "[x]", "a b",
    "InitiatorName", "node.session.auth.authmethod"};
static const char *const values[] = {"0", "-1", "5", "120", "86401", "soon", "<empty>", "CRC32C",
    "None", "10.0.0.5", "fd00::1", "iqn.2003-01.org.example:a", "iqn.2003-01.org.example:b", "joe",
    "joes-secret-1", "boxs-secret-2", "", "manual", "CHAP", "[defaults]", "3260"};

static void append_bytes(GRand *rand, GString *text)
{
	static const char alphabet[] = "ab1:.-_ =#[]\\\"';,%\t\r\n\x07\x1b\x7f\xc3\xa4\xff";

	for (int n = g_rand_int_range(rand, 0, 24); n > 0; n--)
		g_string_append_c(text, alphabet[g_rand_int_range(rand, 0, sizeof(alphabet) - 1)]);
}

static void append_value(GRand *rand, GString *text)
{
	if (g_rand_boolean(rand))
		g_string_append(text, values[g_rand_int_range(rand, 0, G_N_ELEMENTS(values))]);
	else
		append_bytes(rand, text);
}

static char *random_file(GRand *rand)
{
	GString *text = g_string_new(NULL);

	for (int n = g_rand_int_range(rand, 0, 12); n > 0; n--) {
		if (g_rand_int_range(rand, 0, 8) == 0)
			append_bytes(rand, text);
		else
			g_string_append(text, keys[g_rand_int_range(rand, 0, G_N_ELEMENTS(keys))]);
		g_string_append(text, g_rand_boolean(rand) ? " = " : "=");
		append_value(rand, text);
		g_string_append_c(text, '\n');
	}
	return g_string_free(text, FALSE);
}

/* A directory's name: anything but '/' and NUL. */
static char *random_name(GRand *rand, const char *known)
{
	GString *name = g_string_new(g_rand_boolean(rand) ? known : NULL);

	if (g_rand_boolean(rand) || name->len == 0)
		append_bytes(rand, name);
	return g_string_free(name, FALSE);
}

static void write_database(GRand *rand, const struct import_home *home)
{
	g_autofree char *conf = random_file(rand);

	import_home_write(home, "etc/iscsi/iscsid.conf", conf);
	for (int n = g_rand_int_range(rand, 0, 5); n > 0; n--) {
		g_autofree char *target = random_name(rand, "iqn.2003-01.org.example:a");
		g_autofree char *portal = random_name(rand, "10.0.0.5,3260,1");
		g_autofree char *name =
		    g_strdup_printf("etc/iscsi/nodes/%s/%s,1/default", target, portal);
		const char *other =
		    "etc/iscsi/nodes/iqn.2003-01.org.example:a/10.0.0.5,3260,1/default";
		g_autofree char *text = random_file(rand);

		import_home_write(home, g_rand_boolean(rand) ? name : other, text);
	}
}

Test(import_random, what_is_imported_is_never_faulty)
{
	GRand *rand = g_rand_new_with_seed(test_seed("import_random"));

	for (unsigned i = 0; i < DATABASES; i++) {
		struct import_home home = import_home_new();

		write_database(rand, &home);
		struct import *import = import_open_iscsi(home.root, home.troubles, NULL);
		if (import) {
			import_free(import);
			config_free(import_home_config(&home, "", NULL));
		}
		import_home_free(&home);
	}
	g_rand_free(rand);
}

/* Printable bytes, blanks inside, and what config files and shells take for theirs. */
static char *random_secret(GRand *rand)
{
	GString *secret = g_string_new(NULL);

	for (int n = g_rand_int_range(rand, 12, 40); n > 0; n--)
		g_string_append_c(secret, (char)g_rand_int_range(rand, ' ', 0x7f));
	secret->str[0] = '!';
	secret->str[secret->len - 1] = '!';
	return g_string_free(secret, FALSE);
}

Test(import_random, secrets_survive)
{
	GRand *rand = g_rand_new_with_seed(test_seed("import_random secrets"));

	for (unsigned i = 0; i < DATABASES; i++) {
		struct import_home home = import_home_new();
		g_autofree char *user = random_secret(rand), *secret = random_secret(rand);
		g_autofree char *user_in = random_secret(rand), *secret_in = random_secret(rand);
		g_autofree char *lines = g_strdup_printf("node.session.auth.username = %s\n"
		                                         "node.session.auth.password = %s\n"
		                                         "node.session.auth.username_in = %s\n"
		                                         "node.session.auth.password_in = %s\n",
		    user, secret, user_in, secret_in);

		import_home_node(&home, "iqn.2003-01.org.example:a", "10.0.0.5", 3260, lines);
		struct config *config = import_home_config(&home, "", NULL);
		const struct config_section *section = g_ptr_array_index(config->sections, 0);
		cr_expect_str_eq(section->options->username, user);
		cr_expect_str_eq(section->options->password, secret);
		cr_expect_str_eq(section->options->username_in, user_in);
		cr_expect_str_eq(section->options->password_in, secret_in);
		config_free(config);
		import_home_free(&home);
	}
	g_rand_free(rand);
}
