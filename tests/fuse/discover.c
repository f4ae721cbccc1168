/*
 * discover.c - 'lunfs discover': what it prints, whom it trusts, and how long it takes.
 */
#include "support/hole.h"
#include "support/mount.h"
#include "support/proxy.h"
#include "support/script_target.h"

#include "lunfs/config.h"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(discover, .timeout = 120);

#define SECOND_IQN "iqn.2026-01.org.lunfs:second"
#define USER       "finder"
#define SECRET     "finders-1234"
#define USER_IN    "portal"
#define SECRET_IN  "portals-56789"

static struct tgt *portal_with_disk(struct stage *stage)
{
	struct tgt *tgt = tgt_start(stage);

	tgt_add_target(tgt, 1, SCENE_IQN);
	tgt_add_lun(tgt, 1, .lun = 1, .size = MIB(4));
	return tgt;
}

/* Fails with these words, by '|', in one line, and repeats no secret. */
static void must_fail(const struct result *result, const char *words)
{
	g_auto(GStrv) wanted = g_strsplit(words, "|", -1);

	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->err);
	cr_assert(strchr(result->err, '\n') == result->err + strlen(result->err) - 1,
	    "not one line: %s", result->err);
	for (char **word = wanted; *word; word++)
		cr_assert(strstr(result->err, *word), "no '%s' in: %s", *word, result->err);
	cr_assert(
	    !strstr(result->err, SECRET) && !strstr(result->err, SECRET_IN), "%s", result->err);
}

/* ---- what it prints ---- */

Test(discover, prints_each_portal_of_each_target_as_iscsiadm_does)
{
	struct stage *stage = stage_new();
	struct script_target *one = script_target_start(SCENE_IQN);
	struct script_target *two = script_target_start(SECOND_IQN);
	uint16_t port = script_target_port(one);

	script_target_add_address(one, "[fd00::5]:3261,2");
	script_target_add_neighbour(one, two);
	cr_assert_str_eq(must_lunfs(stage, "discover 127.0.0.1:%u", port),
	    text(stage,
	        "127.0.0.1:%u,1 " SCENE_IQN "\n[fd00::5]:3261,2 " SCENE_IQN
	        "\n127.0.0.1:%u,1 " SECOND_IQN "\n",
	        port, script_target_port(two)));
	script_target_stop(one);
	script_target_stop(two);
}

Test(discover, puts_the_portal_that_was_asked_first)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);
	struct proxy *proxy = proxy_start(script_target_port(target));
	unsigned port = script_target_port(target), other = proxy_port(proxy);
	static const char *const hosts[] = {"127.0.0.1", "localhost"};

	script_target_add_address(target, text(stage, "127.0.0.1:%u,1", other));
	for (size_t i = 0; i < G_N_ELEMENTS(hosts); i++) {
		cr_assert_str_eq(must_lunfs(stage, "discover %s:%u", hosts[i], other),
		    text(stage, "127.0.0.1:%u,1 " SCENE_IQN "\n127.0.0.1:%u,1 " SCENE_IQN "\n",
		        other, port));
		char *found = must_lunfs(stage, "discover %s:%u --config", hosts[i], other);
		cr_assert(
		    strstr(found, text(stage, "portal=127.0.0.1:%u, 127.0.0.1:%u\n", other, port)),
		    "%s", found);
	}
	proxy_stop(proxy);
	script_target_stop(target);
}

Test(discover, prints_a_line_once_whichever_portals_report_it)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);
	struct proxy *proxy = proxy_start(script_target_port(target));
	unsigned port = script_target_port(target), other = proxy_port(proxy);
	char *asked = text(stage, "127.0.0.1:%u 127.0.0.1:%u 127.0.0.1:%u", port, other, port);

	script_target_add_address(target, text(stage, "127.0.0.1:%u,1", other));
	char *found = must_lunfs(stage, "discover %s", asked);
	cr_assert_eq(count_words(found, "\n"), 2u, "%s", found);
	found = must_lunfs(stage, "discover --config %s", asked);
	cr_assert_eq(count_words(found, "[target "), 1u, "%s", found);
	found = must_lunfs(stage, "discover --json %s", asked);
	cr_assert_eq(count_words(found, SCENE_IQN), 1u, "%s", found);
	proxy_stop(proxy);
	script_target_stop(target);
}

Test(discover, luns_are_a_table)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);

	tgt_add_lun(tgt, 1, .lun = 2, .size = MIB(2), .type = "cd");
	tgt_add_lun(tgt, 1, .lun = 3, .size = MIB(1), .read_only = true);
	tgt_add_lun(tgt, 1, .lun = 4, .type = "tape");
	char *found = must_lunfs(stage, "discover --luns %s", tgt->portal);
	g_auto(GStrv) lines = g_strsplit(found, "\n", -1);

	cr_assert_str_eq(lines[0], text(stage, "%s,1 " SCENE_IQN, tgt->portal));
	cr_assert(g_str_has_prefix(lines[1], "  LUN  TYPE"), "%s", found);
	size_t size = (size_t)(strstr(lines[1], "SIZE") + 4 - lines[1]);
	size_t protected = (size_t)(strstr(lines[1], "PROTECTED") - lines[1]);
	unsigned disks = 0;
	for (char **line = lines + 2; **line; line++) {
		bool disk = strstr(*line, "disk") != NULL,
		     third = g_str_has_prefix(*line, "    3  ");

		disks += disk;
		if (disk)
			cr_assert(g_str_has_prefix(*line + size - 3, "MiB  IET"), "%s", found);
		if (disk)
			cr_assert(
			    g_str_has_prefix(*line + protected, third ? "yes" : "no"), "%s", found);
	}
	cr_assert_eq(disks, 2u, "%s", found);
	cr_assert(strstr(found, "CD/DVD") && strstr(found, "not shown yet"), "%s", found);
}

Test(discover, a_lun_with_a_fault_says_so)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);

	tgt_add_lun(tgt, 1, .lun = 2, .size = MIB(1), .offline = true);
	char *found = must_lunfs(stage, "discover --luns %s", tgt->portal);
	cr_assert(strstr(found, "  NOTE\n") && strstr(found, "fault: "), "%s", found);
}

/* ---- JSON, whatever a target says ---- */

static const char *json_value(const char *c);

static const char *json_blanks(const char *c)
{
	return c + strspn(c, " \t\r\n");
}

static const char *json_text(const char *c)
{
	if (*c++ != '"')
		return NULL;
	for (; *c && *c != '"'; c++) {
		if ((unsigned char)*c < ' ')
			return NULL;
		if (*c == '\\' && *++c == 'u') {
			if (strspn(c + 1, "0123456789abcdefABCDEF") < 4)
				return NULL;
			c += 4;
		} else if (c[-1] == '\\' && !strchr("\"\\/bfnrt", *c)) {
			return NULL;
		}
	}
	return *c == '"' ? c + 1 : NULL;
}

/* Members of an object, or elements of an array; c is behind its bracket. */
static const char *json_list(const char *c, char end)
{
	if (*(c = json_blanks(c)) == end)
		return c + 1;
	for (;;) {
		if (end == '}') {
			c = json_text(json_blanks(c));
			if (!c || *(c = json_blanks(c)) != ':')
				return NULL;
			c++;
		}
		if (!(c = json_value(c)))
			return NULL;
		c = json_blanks(c);
		if (*c == end)
			return c + 1;
		if (*c++ != ',')
			return NULL;
	}
}

/* What follows a value (RFC 8259); NULL where there is none. */
static const char *json_value(const char *c)
{
	static const char *const words[] = {"true", "false", "null"};

	c = json_blanks(c);
	if (*c == '{' || *c == '[')
		return json_list(c + 1, *c == '{' ? '}' : ']');
	if (*c == '"')
		return json_text(c);
	for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
		if (g_str_has_prefix(c, words[i]))
			return c + strlen(words[i]);
	return g_ascii_isdigit(*c) ? c + strspn(c, "0123456789") : NULL;
}

static void must_be_json(const char *found)
{
	const char *end = json_value(found);

	cr_assert(g_utf8_validate(found, -1, NULL), "%s", found);
	cr_assert(
	    end && strcmp(end, "\n") == 0, "no JSON, from '%s' on:\n%s", end ? end : "?", found);
}

Test(discover, json_tells_portals_targets_and_luns)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);
	char *found = must_lunfs(stage, "discover --json %s", tgt->portal);

	must_be_json(found);
	cr_assert(!strstr(found, "\"luns\""), "%s", found);
	found = must_lunfs(stage, "discover --json --luns %s", tgt->portal);
	must_be_json(found);
	cr_assert(
	    strstr(found, text(stage,
	                      "{\"name\": \"" SCENE_IQN "\",\n     \"portals\": [{\"address\": "
	                      "\"127.0.0.1\", \"port\": %u, \"tpgt\": 1}]",
	                      tgt->port)),
	    "%s", found);
	cr_assert(
	    strstr(found, "{\"lun\": 1, \"type\": \"disk\", \"vendor\": \"IET\""), "%s", found);
	cr_assert(
	    strstr(found, "\"size\": 4194304, \"block_size\": 512, \"write_protected\": false"),
	    "%s", found);
	struct result *result =
	    lunfs(stage, "discover --json %s 127.0.0.1:%u", tgt->portal, free_port());
	must_be_json(result->out);
	cr_assert(strstr(result->out, "\"error\": \"127.0.0.1:"), "%s", result->out);
	cr_assert_eq(result->status, 1);
}

Test(discover, what_a_hostile_target_is_called_harms_nobody)
{
	struct stage *stage = stage_new();
	const char *evil = "iqn.2026-01.org.evil:\"}]\x1b[2J\n[target x]\nportal=\xff\\";
	struct script_target *target = script_target_start(evil);
	uint16_t port = script_target_port(target);

	script_target_add_lun(target, 1, MIB(1), 512);
	script_target_add_address(target, "\x1b]0;x\x07:3260,1");
	char *found = must_lunfs(stage, "discover 127.0.0.1:%u", port);
	cr_assert(!strchr(found, '\x1b') && !strstr(found, "\n["), "%s", found);
	must_be_json(lunfs(stage, "discover --json --luns 127.0.0.1:%u", port)->out);
	found = must_lunfs(stage, "discover --config 127.0.0.1:%u", port);
	cr_assert(g_str_has_prefix(found, "# '") && count_words(found, "\n") == 1, "%s", found);
	script_target_stop(target);
}

/* ---- sections ---- */

/* What was printed, as a configuration without fault. */
static struct config *must_be_config(struct stage *stage, const char *sections)
{
	char *path = text(stage, "%s/found.conf", stage->dir);
	const char *files[] = {path, NULL};
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);

	cr_assert(g_file_set_contents(path, sections, -1, NULL));
	struct config *config = config_read(files, faults);
	cr_assert(config != NULL, "%s\n%s", config_fault_describe(g_ptr_array_index(faults, 0)),
	    sections);
	return config;
}

Test(discover, config_is_ready_to_be_used)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);
	const char *odd[] = {"iqn.2026-01.org.lunfs:all", "iqn.2026-01.org.other:disk",
	    "iqn.2026-01.org.lunfs", "eui.0123456789abcdef", "iqn.2026-01.org.lunfs:a.b-c"};

	for (unsigned i = 0; i < G_N_ELEMENTS(odd); i++)
		tgt_add_target(tgt, 2 + i, odd[i]);
	must(stage, "umask 077; echo %s > secret", SECRET);
	struct config *config = must_be_config(stage,
	    must_lunfs(stage, "discover --config --luns %s -o username=joe,password_file=secret",
	        tgt->portal));
	cr_assert_eq(config->sections->len, 1 + G_N_ELEMENTS(odd));
	for (unsigned i = 0; i < config->sections->len; i++) {
		const struct config_section *section = g_ptr_array_index(config->sections, i);
		const struct portal *portal = g_ptr_array_index(section->portals, 0);

		cr_assert_null(config_name_fault(section->name));
		cr_assert_eq(section->portals->len, 1u);
		cr_assert_eq(portal->port, tgt->port);
		cr_assert_str_eq(section->options->username, "joe");
		cr_assert_str_eq(
		    section->options->password_file, text(stage, "%s/secret", stage->dir));
	}
}

Test(discover, config_writes_no_secret_down)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);
	struct result *result = sh(stage,
	    "LIBISCSI_CHAP_USERNAME=joe LIBISCSI_CHAP_PASSWORD=%s %s discover --config %s", SECRET,
	    stage->lunfs, tgt->portal);

	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert(!strstr(result->out, SECRET), "%s", result->out);
	cr_assert(
	    strstr(result->out, "# its CHAP secret came from the environment"), "%s", result->out);
	must_be_config(stage, result->out);
}

/* ---- portals that cannot be reached ---- */

Test(discover, portals_out_of_reach_stand_behind_the_one_that_answered)
{
	struct stage *stage = stage_new();
	struct script_target *target = script_target_start(SCENE_IQN);
	uint16_t port = script_target_port(target);

	script_target_add_lun(target, 1, MIB(8), 512);
	script_target_add_address(target, "192.0.2.1:3260,1");
	script_target_add_address(target, text(stage, "0.0.0.0:%u,1", port));
	char *found = must_lunfs(stage, "discover --config 127.0.0.1:%u", port);
	cr_assert(
	    strstr(found, text(stage, "portal=127.0.0.1:%u, 192.0.2.1:3260\n", port)), "%s", found);
	found = must_lunfs(stage, "discover --luns 127.0.0.1:%u", port);
	cr_assert(strstr(found, "    1  disk "), "%s", found);
	script_target_stop(target);
}

Test(discover, a_dead_portal_costs_the_others_one_short_attempt)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);
	uint16_t dead = hole_that_drops();
	struct result *result = lunfs(stage, "discover 127.0.0.1:%u %s", dead, tgt->portal);

	must_fail(result, text(stage, "127.0.0.1:%u|does not answer", dead));
	cr_assert_str_eq(result->out, text(stage, "%s,1 " SCENE_IQN "\n", tgt->portal));
	cr_assert(result->seconds < patience(9), "%.1f s", result->seconds);
}

Test(discover, ends_within_login_timeout)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);
	uint16_t silent = hole_that_is_silent();
	struct result *result =
	    lunfs(stage, "discover 127.0.0.1:%u %s -o login_timeout=2s", silent, tgt->portal);

	must_fail(result, text(stage, "127.0.0.1:%u", silent));
	cr_assert(strstr(result->out, SCENE_IQN), "%s", result->out);
	cr_assert(result->seconds < patience(5), "%.1f s", result->seconds);
}

/* ---- CHAP ---- */

/* A portal that asks for it before it tells its targets; secrets in files "out", "in", "wrong". */
static struct tgt *portal_with_chap(struct stage *stage, bool mutual)
{
	struct tgt *tgt = portal_with_disk(stage);

	tgt_discovery_chap(tgt, USER, SECRET);
	if (mutual)
		tgt_discovery_chap_outgoing(tgt, USER_IN, SECRET_IN);
	must(stage, "umask 077; echo %s > out; echo %s > in; echo wrong-secret-9 > wrong", SECRET,
	    SECRET_IN);
	return tgt;
}

#define ONE_WAY "-o username=" USER ",password_file=out"
#define MUTUAL  ONE_WAY ",username_in=" USER_IN ",password_in_file="

Test(discover, logs_in_with_chap)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_chap(stage, false);

	cr_assert(strstr(must_lunfs(stage, "discover %s " ONE_WAY, tgt->portal), SCENE_IQN));
	cr_assert(strstr(
	    must_lunfs(stage, "discover iscsi://" USER "@%s -o password_file=out", tgt->portal),
	    SCENE_IQN));
	must_fail(lunfs(stage, "discover %s", tgt->portal), "CHAP|password_file");
	struct result *result =
	    lunfs(stage, "discover %s -o username=" USER ",password_file=wrong", tgt->portal);
	must_fail(result, "CHAP|" USER);
	cr_assert_str_eq(result->out, "");
}

Test(discover, takes_the_secret_of_the_configuration)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_chap(stage, false);
	char *lunfs_conf = text(stage, "%s/config/lunfs/lunfs.conf", stage->dir);

	must(stage,
	    "mkdir -p config/lunfs; umask 077; printf '[defaults]\\nusername=" USER
	    "\\npassword=" SECRET "\\n' > %s",
	    lunfs_conf);
	char *with = text(stage, "XDG_CONFIG_HOME=%s/config %s", stage->dir, stage->lunfs);
	cr_assert(strstr(must(stage, "%s discover %s", with, tgt->portal), SCENE_IQN));
	must(stage, "echo nonsense >> %s", lunfs_conf);
	struct result *result = sh(stage, "%s discover %s", with, tgt->portal);
	must_fail(result, text(stage, "%s:4", lunfs_conf));
	cr_assert_str_eq(result->out, "");
}

Test(discover, a_portal_that_does_not_prove_itself_is_not_believed)
{
	struct stage *stage = stage_new();
	struct tgt *mutual = portal_with_chap(stage, true);
	struct result *result = lunfs(stage, "discover %s " MUTUAL "in", mutual->portal);

	cr_assert_eq(result->status, 0, "%s", result->err);
	cr_assert(strstr(result->out, SCENE_IQN), "%s", result->out);
	result = lunfs(stage, "discover %s " MUTUAL "wrong", mutual->portal);
	must_fail(result, "prove");
	cr_assert_str_eq(result->out, "");

	struct tgt *plain = tgt_start(stage);
	tgt_add_target(plain, 1, SECOND_IQN);
	result = lunfs(stage, "discover %s " MUTUAL "in", plain->portal);
	cr_assert_eq(result->status, 1, "%s", result->out);
	cr_assert_str_eq(result->out, "");
}

/* ---- access ---- */

Test(discover, a_target_that_refuses_says_why_and_the_others_are_shown)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);

	tgt_add_target(tgt, 2, SECOND_IQN);
	tgt_chap(tgt, 2, USER, SECRET);
	struct result *result = lunfs(stage, "discover --luns %s", tgt->portal);
	must_fail(result, "CHAP|" SECOND_IQN);
	cr_assert(strstr(result->out, "    1  disk ") && strstr(result->out, SECOND_IQN), "%s",
	    result->out);
	result = lunfs(stage, "discover --luns --json %s", tgt->portal);
	must_be_json(result->out);
	cr_assert(strstr(result->out, "\"error\": \"" SECOND_IQN " wants CHAP"), "%s", result->out);
}

Test(discover, what_is_hidden_names_the_initiator_name_to_allow)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);
	const char *mine = "-o initiator_name=iqn.2026-01.org.lunfs:me";

	tgt_allow_only(tgt, 1, "iqn.2026-01.org.lunfs:you");
	must_fail(lunfs(stage, "discover --luns %s %s", tgt->portal, mine),
	    "iqn.2026-01.org.lunfs:me|allow");
	tgt_set(tgt, "--mode target --op bind --tid 1 --initiator-name iqn.2026-01.org.lunfs:me");
	cr_assert(
	    strstr(must_lunfs(stage, "discover --luns %s %s", tgt->portal, mine), "    1  disk "));
}

Test(discover, access_by_address_is_kept)
{
	struct stage *stage = stage_new();
	struct tgt *tgt = portal_with_disk(stage);

	tgt_allow_address(tgt, 1, "192.0.2.1");
	must_fail(lunfs(stage, "discover --luns %s", tgt->portal), "address|allow");
	tgt_set(tgt, "--mode target --op bind --tid 1 --initiator-address 127.0.0.1");
	cr_assert(strstr(must_lunfs(stage, "discover --luns %s", tgt->portal), "    1  disk "));
}

/* ---- words ---- */

Test(discover, wrong_words_are_told)
{
	struct stage *stage = stage_new();

	cr_assert_eq(lunfs(stage, "discover")->status, 2);
	cr_assert_eq(lunfs(stage, "discover 127.0.0.1 --frobnicate")->status, 2);
	cr_assert_eq(lunfs(stage, "discover 127.0.0.1 --json --config")->status, 2);
	cr_assert_eq(lunfs(stage, "discover 127.0.0.1 -o login_timeout=soon")->status, 2);
	cr_assert_eq(lunfs(stage, "discover 127.0.0.1 -o")->status, 2);
	cr_assert_eq(lunfs(stage, "discover iscsi://127.0.0.1/" SCENE_IQN)->status, 2);
}
