/*
 * scripttarget.c - the scripted iSCSI target as a program.
 *
 *   scripttarget [--iqn NAME] [--port N] [--lun N:SIZE[:FILE]]...
 *
 * SIZE may end with K, M, G or T. It prints 'PORT n' when it listens, then plays what comes on
 * stdin, a command a line, and answers each with what was asked, then 'ok', or 'error: ...'. It
 * runs until 'quit' or a signal; the end of stdin does not end it. 'help' lists the commands.
 */
#include "support/script_target.h"

#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "rule OPCODE|any|read|write|sync [lun N] [skip N] [times N] [hang] [delay MS]\n"
    "     [status HEX|busy|full|conflict] [sense KEY/ASC/ASCQ] [lie] [mute] [answer-delay MS]\n"
    "     [spoil wrong-itt|datasn-gap|missing-segment|beyond-length|bad-ahs|long-segment|\n"
    "     unknown-opcode|underflow|overflow|response-code|no-data|truncated|reject|r2t-beyond|\n"
    "     r2t-wrong-itt|r2t-empty|r2t-with-read]\n"
    "login refuse CLASS DETAIL | redirect temporary|permanent HOST:PORT | close | hang | delay MS "
    "|\n"
    "     hang-up, then [discovery] [skip N] [times N]\n"
    "forget                          the rules\n"
    "release                         commands that hang, wait or are mute\n"
    "latency MS    freeze on|off    listen on|off    drop rst|fin|silently    ping\n"
    "reboot [rst|fin|silently] [seed N] [closed MS] [untold]\n"
    "ghosts die | live MS | at-login | broken MS\n"
    "message EVENT [VENDOR-CODE [P1 [P2 [P3]]]]\n"
    "attention LUN ASC ASCQ    capacity LUN SIZE [told]    wce LUN on|off [told]\n"
    "identity LUN [naa HEX] [serial TEXT] [block BYTES] [later]\n"
    "present LUN on|off    read-only LUN on|off    address HOST:PORT,TAG\n"
    "management normal|silent|RESPONSE\n"
    "set [tag N] [first-burst N] [max-burst N] [segment N] [window N] [time2wait N] [statsn N]\n"
    "     [initial-r2t] [no-immediate-data] [separate-status] [no-attention] [ignore-nops]\n"
    "records    logins    count OPCODE|any|read|write|sync    complaints    quit\n";

/* A line, word by word. */
struct words {
	char **left;
	const char *wrong;
};

static const char *next_word(struct words *words)
{
	if (*words->left)
		return *words->left++;
	words->wrong = "a word is missing";
	return "";
}

static bool next_is(struct words *words, const char *word)
{
	if (!*words->left || strcmp(*words->left, word) != 0)
		return false;
	words->left++;
	return true;
}

static uint64_t number_of(const char *word, int base, const char **wrong)
{
	static const char units[] = "KMGT";
	char *end;
	uint64_t number = strtoull(word, &end, base);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (end == word || (*end && (!unit || end[1])))
		*wrong = "not a number";
	return unit ? number << 10 * (unit - units + 1) : number;
}

static uint64_t next_number(struct words *words)
{
	return number_of(next_word(words), 0, &words->wrong);
}

static uint64_t next_hex(struct words *words)
{
	return number_of(next_word(words), 16, &words->wrong);
}

/* The place of the word in the list, which ends with NULL. */
static unsigned next_of(struct words *words, const char *const *list)
{
	const char *word = next_word(words);

	for (unsigned i = 0; list[i]; i++)
		if (strcmp(word, list[i]) == 0)
			return i;
	words->wrong = "not one of the words that can stand there";
	return 0;
}

static bool next_switch(struct words *words)
{
	return next_of(words, (const char *const[]){"off", "on", NULL});
}

static enum script_cut next_cut(struct words *words)
{
	return (enum script_cut)next_of(
	    words, (const char *const[]){"rst", "fin", "silently", NULL});
}

static int next_opcode(struct words *words)
{
	static const char *const classes[] = {"any", "read", "write", "sync"};

	for (unsigned i = 0; i < G_N_ELEMENTS(classes); i++)
		if (next_is(words, classes[i]))
			return -(int)i - 1;
	return (int)next_hex(words);
}

static struct sense next_sense(struct words *words)
{
	unsigned key, asc, ascq;

	if (sscanf(next_word(words), "%x/%x/%x", &key, &asc, &ascq) != 3) {
		words->wrong = "not KEY/ASC/ASCQ";
		return (struct sense){0};
	}
	return (struct sense){(uint8_t)key, (uint8_t)asc, (uint8_t)ascq};
}

static uint8_t next_status(struct words *words)
{
	if (next_is(words, "busy"))
		return SAM_BUSY;
	if (next_is(words, "full"))
		return SAM_TASK_SET_FULL;
	if (next_is(words, "conflict"))
		return SAM_RESERVATION_CONFLICT;
	return (uint8_t)next_hex(words);
}

/* ---- commands ---- */

static void do_rule(struct script_target *target, struct words *words)
{
	static const char *const spoils[] = {"sound", "wrong-itt", "datasn-gap", "missing-segment",
	    "beyond-length", "bad-ahs", "long-segment", "unknown-opcode", "underflow", "overflow",
	    "response-code", "no-data", "truncated", "reject", "r2t-beyond", "r2t-wrong-itt",
	    "r2t-empty", "r2t-with-read", NULL};
	struct script_rule rule = {.opcode = next_opcode(words)};

	while (*words->left && !words->wrong) {
		if (next_is(words, "lun")) {
			rule.one_lun = true;
			rule.lun = (unsigned)next_number(words);
		} else if (next_is(words, "skip"))
			rule.skip = (unsigned)next_number(words);
		else if (next_is(words, "times"))
			rule.times = (unsigned)next_number(words);
		else if (next_is(words, "hang"))
			rule.hang = true;
		else if (next_is(words, "delay"))
			rule.delay_ms = (uint32_t)next_number(words);
		else if (next_is(words, "status"))
			rule.status = next_status(words);
		else if (next_is(words, "sense"))
			rule.sense = next_sense(words);
		else if (next_is(words, "lie"))
			rule.lie = true;
		else if (next_is(words, "mute"))
			rule.mute = true;
		else if (next_is(words, "answer-delay"))
			rule.answer_delay_ms = (uint32_t)next_number(words);
		else if (next_is(words, "spoil"))
			rule.spoil = (enum script_spoil)next_of(words, spoils);
		else
			words->wrong = "no such word of a rule";
	}
	if (!words->wrong)
		script_target_rule(target, rule);
}

static void do_login(struct script_target *target, struct words *words)
{
	static const char *const deeds[] = {
	    "refuse", "redirect", "close", "hang", "delay", "hang-up", NULL};
	struct script_login_rule rule = {.deed = (enum script_login_deed)next_of(words, deeds)};

	if (rule.deed == SCRIPT_LOGIN_REFUSE) {
		rule.status_class = (uint8_t)next_number(words);
		rule.status_detail = (uint8_t)next_number(words);
	} else if (rule.deed == SCRIPT_LOGIN_REDIRECT) {
		rule.status_detail = (uint8_t)(1 + next_of(words, (const char *const[]){"temporary",
		                                                      "permanent", NULL}));
		g_strlcpy(rule.address, next_word(words), sizeof(rule.address));
	} else if (rule.deed == SCRIPT_LOGIN_DELAY) {
		rule.delay_ms = (uint32_t)next_number(words);
	}
	while (*words->left && !words->wrong) {
		if (next_is(words, "discovery"))
			rule.discovery = true;
		else if (next_is(words, "skip"))
			rule.skip = (unsigned)next_number(words);
		else if (next_is(words, "times"))
			rule.times = (unsigned)next_number(words);
		else
			words->wrong = "no such word of a login rule";
	}
	if (!words->wrong)
		script_target_login_rule(target, rule);
}

static void do_reboot(struct script_target *target, struct words *words)
{
	struct script_reboot how = {0};

	while (*words->left && !words->wrong) {
		if (next_is(words, "seed")) {
			how.some_survive = true;
			how.seed = (uint32_t)next_number(words);
		} else if (next_is(words, "closed"))
			how.closed_ms = (uint32_t)next_number(words);
		else if (next_is(words, "untold"))
			how.untold = true;
		else
			how.how = next_cut(words);
	}
	if (!words->wrong)
		script_target_reboot(target, how);
}

static void do_set(struct script_target *target, struct words *words)
{
	struct script_parameters set = {0};

	while (*words->left && !words->wrong) {
		if (next_is(words, "tag"))
			set.tag = (uint16_t)next_number(words);
		else if (next_is(words, "first-burst"))
			set.first_burst = (uint32_t)next_number(words);
		else if (next_is(words, "max-burst"))
			set.max_burst = (uint32_t)next_number(words);
		else if (next_is(words, "segment"))
			set.receive_segment = (uint32_t)next_number(words);
		else if (next_is(words, "window"))
			set.window = (uint32_t)next_number(words);
		else if (next_is(words, "time2wait"))
			set.time2wait = (uint16_t)next_number(words);
		else if (next_is(words, "statsn"))
			set.first_statsn = (uint32_t)next_number(words);
		else if (next_is(words, "initial-r2t"))
			set.initial_r2t = true;
		else if (next_is(words, "no-immediate-data"))
			set.no_immediate_data = true;
		else if (next_is(words, "separate-status"))
			set.separate_status = true;
		else if (next_is(words, "no-attention"))
			set.no_attention = true;
		else if (next_is(words, "ignore-nops"))
			set.ignore_nops = true;
		else
			words->wrong = "no such parameter";
	}
	if (!words->wrong)
		script_target_set(target, &set);
}

static void do_ghosts(struct script_target *target, struct words *words)
{
	static const char *const kinds[] = {"die", "live", "at-login", "broken", NULL};
	enum script_ghosts how = (enum script_ghosts)next_of(words, kinds);
	uint32_t ms = 0;

	if (how == SCRIPT_GHOSTS_LIVE || how == SCRIPT_GHOSTS_BROKEN)
		ms = (uint32_t)next_number(words);
	if (!words->wrong)
		script_target_ghosts(target, how, ms);
}

static void do_message(struct script_target *target, struct words *words)
{
	struct script_message message = {
	    .event = (uint8_t)next_number(words), .sense = {SENSE_UNIT_ATTENTION, 0x3f, 0x0e}};

	if (*words->left)
		message.vendor_code = (uint8_t)next_number(words);
	if (*words->left)
		message.parameter1 = (uint16_t)next_number(words);
	if (*words->left)
		message.parameter2 = (uint16_t)next_number(words);
	if (*words->left)
		message.parameter3 = (uint16_t)next_number(words);
	if (!words->wrong)
		script_target_message(target, &message);
}

static void do_identity(struct script_target *target, struct words *words)
{
	struct script_identity identity = {0};
	unsigned lun = (unsigned)next_number(words);
	bool later = false;

	while (*words->left && !words->wrong) {
		if (next_is(words, "naa"))
			identity.naa = next_hex(words);
		else if (next_is(words, "serial"))
			g_strlcpy(identity.serial, next_word(words), sizeof(identity.serial));
		else if (next_is(words, "block"))
			identity.block_size = (unsigned)next_number(words);
		else if (next_is(words, "later"))
			later = true;
		else
			words->wrong = "no such part of an identity";
	}
	if (!words->wrong)
		script_target_identity(target, lun, &identity, later);
}

static void do_capacity(struct script_target *target, struct words *words)
{
	unsigned lun = (unsigned)next_number(words);
	uint64_t size = next_number(words);
	bool told = next_is(words, "told");

	if (!words->wrong)
		script_target_capacity(target, lun, size, told);
}

static void do_wce(struct script_target *target, struct words *words)
{
	unsigned lun = (unsigned)next_number(words);
	bool wce = next_switch(words), told = next_is(words, "told");

	if (!words->wrong)
		script_target_wce(target, lun, wce, told);
}

static void do_attention(struct script_target *target, struct words *words)
{
	unsigned lun = (unsigned)next_number(words);
	uint8_t asc = (uint8_t)next_hex(words), ascq = (uint8_t)next_hex(words);

	if (!words->wrong)
		script_target_attention(target, lun, asc, ascq);
}

static void do_present(struct script_target *target, struct words *words)
{
	unsigned lun = (unsigned)next_number(words);
	bool present = next_switch(words);

	if (!words->wrong)
		script_target_present(target, lun, present);
}

static void do_read_only(struct script_target *target, struct words *words)
{
	unsigned lun = (unsigned)next_number(words);
	bool read_only = next_switch(words);

	if (!words->wrong)
		script_target_read_only(target, lun, read_only);
}

static void do_management(struct script_target *target, struct words *words)
{
	int response = SCRIPT_TASKS_MANAGED;

	if (next_is(words, "silent"))
		response = SCRIPT_TASKS_SILENT;
	else if (!next_is(words, "normal"))
		response = (int)next_number(words);
	if (!words->wrong)
		script_target_task_management(target, response);
}

static void do_latency(struct script_target *target, struct words *words)
{
	uint32_t ms = (uint32_t)next_number(words);

	if (!words->wrong)
		script_target_latency(target, ms);
}

static void do_freeze(struct script_target *target, struct words *words)
{
	bool freeze = next_switch(words);

	if (!words->wrong)
		script_target_freeze(target, freeze);
}

static void do_listen(struct script_target *target, struct words *words)
{
	bool wanted = next_switch(words);

	if (!words->wrong)
		script_target_listen(target, wanted);
}

static void do_drop(struct script_target *target, struct words *words)
{
	enum script_cut how = next_cut(words);

	if (!words->wrong)
		script_target_drop(target, how);
}

static void do_address(struct script_target *target, struct words *words)
{
	const char *address = next_word(words);

	if (!words->wrong)
		script_target_add_address(target, address);
}

static void do_forget(struct script_target *target, struct words *words)
{
	(void)words;
	script_target_forget_rules(target);
}

static void do_release(struct script_target *target, struct words *words)
{
	(void)words;
	script_target_release(target);
}

static void do_ping(struct script_target *target, struct words *words)
{
	(void)words;
	script_target_ping(target);
}

static void do_records(struct script_target *target, struct words *words)
{
	struct script_record record;

	(void)words;
	for (unsigned i = 0; script_target_record(target, i, &record); i++) {
		printf("%" PRId64 " ms session %u lun %u cdb", record.at_ms, record.session,
		    record.lun);
		for (unsigned byte = 0; byte < sizeof(record.cdb); byte++)
			printf(" %02x", record.cdb[byte]);
		printf(" status %02x%s%s%s%s\n", record.status, record.executed ? " executed" : "",
		    record.answered ? " answered" : "", record.ghost ? " ghost" : "",
		    record.aborted ? " aborted" : "");
	}
}

static void do_logins(struct script_target *target, struct words *words)
{
	struct script_login login;

	(void)words;
	for (unsigned i = 0; script_target_login_attempt(target, i, &login); i++)
		printf("%" PRId64 " ms %s isid %02x%02x%02x%02x%02x%02x tsih %u from %s status "
		       "%04x%s%s%s\n",
		    login.at_ms, login.initiator, login.isid[0], login.isid[1], login.isid[2],
		    login.isid[3], login.isid[4], login.isid[5], login.tsih, login.address,
		    login.status, login.done ? " done" : "", login.discovery ? " discovery" : "",
		    login.reinstated ? " reinstated" : "");
}

static void do_count(struct script_target *target, struct words *words)
{
	int opcode = next_opcode(words);

	if (!words->wrong)
		printf("%u\n", script_target_command_count(target, opcode));
}

static void do_complaints(struct script_target *target, struct words *words)
{
	char last[160] = "";
	unsigned count = script_target_complaints(target, last, sizeof(last));

	(void)words;
	printf("%u %s\n", count, last);
}

static void do_help(struct script_target *target, struct words *words)
{
	(void)target;
	(void)words;
	fputs(help, stdout);
}

static const struct {
	const char *name;
	void (*run)(struct script_target *target, struct words *words);
} commands[] = {
    {"address", do_address},
    {"attention", do_attention},
    {"capacity", do_capacity},
    {"complaints", do_complaints},
    {"count", do_count},
    {"drop", do_drop},
    {"forget", do_forget},
    {"freeze", do_freeze},
    {"ghosts", do_ghosts},
    {"help", do_help},
    {"identity", do_identity},
    {"latency", do_latency},
    {"listen", do_listen},
    {"login", do_login},
    {"logins", do_logins},
    {"management", do_management},
    {"message", do_message},
    {"ping", do_ping},
    {"present", do_present},
    {"read-only", do_read_only},
    {"reboot", do_reboot},
    {"records", do_records},
    {"release", do_release},
    {"rule", do_rule},
    {"set", do_set},
    {"wce", do_wce},
};

static void play(struct script_target *target, char *line)
{
	g_auto(GStrv) split = g_strsplit_set(g_strstrip(line), " \t", -1);
	struct words words = {.left = split};
	const char *name = *split ? *words.left++ : "";
	bool known = false;

	if (!*name || *name == '#')
		return;
	for (size_t i = 0; i < G_N_ELEMENTS(commands) && !known; i++) {
		known = strcmp(name, commands[i].name) == 0;
		if (known)
			commands[i].run(target, &words);
	}
	if (!known)
		words.wrong = "no such command; 'help' lists them";
	else if (!words.wrong && *words.left)
		words.wrong = "too many words; what stands before them was done";
	if (words.wrong)
		printf("error: %s: %s\n", name, words.wrong);
	else
		puts("ok");
}

static bool add_lun(struct script_target *target, const char *spec)
{
	g_auto(GStrv) parts = g_strsplit(spec, ":", 3);
	const char *wrong = NULL;

	if (g_strv_length(parts) < 2)
		return false;
	unsigned lun = (unsigned)number_of(parts[0], 10, &wrong);
	uint64_t size = number_of(parts[1], 10, &wrong);
	if (wrong || lun >= 16384 || size == 0 || size % 512 != 0)
		return false;
	script_target_add_lun_file(target, lun, size, 512, parts[2]);
	return true;
}

static int usage(const char *wrong)
{
	fprintf(stderr,
	    "scripttarget: %s\nusage: scripttarget [--iqn NAME] [--port N] "
	    "[--lun N:SIZE[:FILE]]...\n",
	    wrong);
	return 2;
}

int main(int argc, char **argv)
{
	const char *iqn = "iqn.2026-01.org.lunfs:disk", *wrong = NULL;
	uint16_t port = 0;
	char *line = NULL;
	size_t size = 0;

	for (int i = 1; i < argc; i += 2) {
		if (i + 1 == argc)
			return usage(argv[i]);
		if (strcmp(argv[i], "--iqn") == 0)
			iqn = argv[i + 1];
		else if (strcmp(argv[i], "--port") == 0)
			port = (uint16_t)number_of(argv[i + 1], 10, &wrong);
		else if (strcmp(argv[i], "--lun") != 0)
			return usage(argv[i]);
	}
	if (wrong)
		return usage(wrong);
	struct script_target *target = script_target_start_at(iqn, port);
	for (int i = 1; i < argc; i += 2)
		if (strcmp(argv[i], "--lun") == 0 && !add_lun(target, argv[i + 1]))
			return usage(argv[i + 1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("PORT %u\n", script_target_port(target));
	while (getline(&line, &size, stdin) > 0 && strcmp(g_strstrip(line), "quit") != 0)
		play(target, line);
	while (feof(stdin))
		pause();
	free(line);
	script_target_stop(target);
	return 0;
}
