/*
 * fault_line.c - understands a line of a fault script.
 */
#include "support/fault_line.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_NS 1e17 /* three years: sums stay far from overflow */

static const char *const command_names[COMMAND_KINDS] = {"latency", "limit", "stall", "cut", "drop",
    "refuse", "corrupt", "resume", "heal", "stop", "quit"};

/* ---- words ---- */

/* The words that are left, and the first thing that is wrong. */
struct words {
	char **at;
	char *error;
};

G_GNUC_PRINTF(2, 3) static bool wrong(struct words *words, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (!words->error)
		words->error = g_strdup_vprintf(format, arguments);
	va_end(arguments);
	return false;
}

static bool take(struct words *words, const char *word)
{
	if (!*words->at || strcmp(*words->at, word) != 0)
		return false;
	words->at++;
	return true;
}

static bool at_end(const struct words *words)
{
	return !*words->at || strcmp(*words->at, ",") == 0;
}

/* A number that begins a word, and its unit. */
static bool number_of(const char *word, double *number, const char **unit)
{
	size_t digits = strspn(word, "0123456789");
	char *end;

	if (digits == 0 || digits > 15 || word[digits] == 'x' || word[digits] == 'X')
		return false;
	*number = g_ascii_strtod(word, &end);
	*unit = end;
	return true;
}

static bool time_of(const char *word, int64_t *ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"min", 60e9}, {"h", 3600e9}};
	const char *unit;
	double number;

	if (!number_of(word, &number, &unit))
		return false;
	for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
		if (strcmp(unit, units[i].name) == 0 && number * units[i].ns <= LONGEST_NS) {
			*ns = (int64_t)(number * units[i].ns);
			return true;
		}
	return false;
}

static bool bytes_of(const char *word, uint64_t *bytes)
{
	static const char letters[] = "KMG";
	const char *unit, *letter;
	double number;

	if (!number_of(word, &number, &unit))
		return false;
	if (*unit) {
		if (unit[1] || !(letter = strchr(letters, *unit)))
			return false;
		number *= (double)(UINT64_C(1024) << 10 * (letter - letters));
	}
	if (number > 1e18)
		return false;
	*bytes = (uint64_t)number;
	return true;
}

static bool take_time(struct words *words, int64_t *ns)
{
	if (!*words->at || !time_of(*words->at, ns))
		return false;
	words->at++;
	return true;
}

static bool take_bytes(struct words *words, uint64_t *bytes)
{
	if (!*words->at || !bytes_of(*words->at, bytes))
		return false;
	words->at++;
	return true;
}

static bool take_count(struct words *words, unsigned *count)
{
	const char *word = *words->at;

	if (!word || !*word || strspn(word, "0123456789") != strlen(word) || strlen(word) > 9)
		return wrong(words, "'%s' is no number", word ? word : "");
	*count = (unsigned)strtoul(word, NULL, 10);
	words->at++;
	return true;
}

/* TIME or TIME..TIME */
static bool take_span(struct words *words, int64_t *from, int64_t *to)
{
	const char *word = *words->at ? *words->at : "", *dots = strstr(word, "..");
	g_autofree char *first = dots ? g_strndup(word, (gsize)(dots - word)) : g_strdup(word);

	if (!time_of(first, from) || !time_of(dots ? dots + 2 : word, to) || *from > *to)
		return wrong(words, "'%s' is no time: 500ms, 2s, 500ms..3s", word);
	words->at++;
	return true;
}

static bool take_direction(struct words *words, enum proxy_direction *directions)
{
	if (take(words, "to-target"))
		*directions = PROXY_TO_TARGET;
	else if (take(words, "to-initiator"))
		*directions = PROXY_TO_INITIATOR;
	else if (take(words, "both"))
		*directions = PROXY_BOTH;
	else
		return false;
	return true;
}

/* ---- commands ---- */

static void command_free(void *data)
{
	struct command *command = data;

	g_free(command->text);
	g_free(command);
}

/* BYTES/BYTES, or nothing */
static bool take_half(struct words *words, struct command *command)
{
	const char *word = *words->at, *slash = word ? strchr(word, '/') : NULL;
	uint64_t passed, at_least;

	command->moment = MOMENT_HALF;
	command->passed = PROXY_HALF;
	if (!slash)
		return true;
	g_autofree char *first = g_strndup(word, (gsize)(slash - word));
	if (!bytes_of(first, &passed) || !bytes_of(slash + 1, &at_least))
		return wrong(words, "'%s' is no part of a PDU: 100/512", word);
	command->passed = (size_t)passed;
	command->at_least = (size_t)at_least;
	words->at++;
	return true;
}

static bool take_moment(struct words *words, struct command *command)
{
	if (!take_bytes(words, &command->number) || command->number == 0)
		return wrong(words, "'after' wants so many bytes or pdus");
	if (take(words, "bytes"))
		command->moment = MOMENT_BYTES;
	else if (take(words, "pdus"))
		command->moment = MOMENT_PDUS;
	else
		return wrong(words, "'after' wants so many bytes or pdus");
	return true;
}

static bool take_none(struct words *words, struct command *command)
{
	if (!take(words, "none"))
		return false;
	command->time = 0;
	command->number = 0;
	command->has_number = true;
	return true;
}

/* What some commands know and others don't; false when it is none of it. */
static bool take_own_word(struct words *words, struct command *command)
{
	switch (command->kind) {
	case LATENCY:
		return take_none(words, command) || take_time(words, &command->time);
	case LIMIT:
		if (!take_bytes(words, &command->number))
			return take_none(words, command);
		return command->has_number = true;
	case STALL:
		return take(words, "half") ? take_half(words, command)
		                           : take_time(words, &command->time);
	case CUT:
		return take(words, "half") ? take_half(words, command)
		                           : take(words, "after") && take_moment(words, command);
	case DROP:
	case REFUSE:
		return take_time(words, &command->time);
	case CORRUPT:
		return take(words, "nth") ? take_count(words, &command->nth)
		                          : take(words, "bit") && take_count(words, &command->bit);
	default:
		return false;
	}
}

static bool has_direction(const struct command *command)
{
	switch (command->kind) {
	case LATENCY:
	case LIMIT:
	case STALL:
	case CORRUPT:
		return true;
	case CUT:
		return command->moment != MOMENT_NOW;
	default:
		return false;
	}
}

static bool take_first_words(struct words *words, struct command *command)
{
	const char *name = at_end(words) ? "" : *words->at;

	while (command->kind < COMMAND_KINDS && !take(words, command_names[command->kind]))
		command->kind++;
	if (command->kind == COMMAND_KINDS)
		return *name ? wrong(words, "'%s' is no command", name)
		             : wrong(words, "there is no command");
	if (command->kind == CUT) {
		command->cut = take(words, "fin") ? PROXY_CUT_FIN : PROXY_CUT_RST;
		if (command->cut == PROXY_CUT_RST && !take(words, "rst"))
			return wrong(words, "cut wants rst or fin");
	} else if (command->kind == CORRUPT) {
		command->part = take(words, "data") ? PROXY_DATA : PROXY_HEADER;
		if (command->part == PROXY_HEADER && !take(words, "header"))
			return wrong(words, "corrupt wants header or data");
	}
	return true;
}

static bool complete(struct words *words, const struct command *command)
{
	if (command->kind == LATENCY && command->time < 0)
		return wrong(words, "latency wants a time, or none");
	if (command->kind == LATENCY && command->time / 1000 > UINT_MAX)
		return wrong(words, "latency is at most an hour");
	if (command->kind == LIMIT && !command->has_number)
		return wrong(words, "limit wants bytes per second, or none");
	if (command->nth == 0)
		return wrong(words, "nth counts from 1");
	return true;
}

static struct command *take_command(struct words *words)
{
	struct command *command = g_new0(struct command, 1);
	char **first = words->at;
	bool directed = false;

	command->time = -1;
	command->directions = PROXY_BOTH;
	command->nth = 1;
	command->bit = ANY_BIT;
	if (!take_first_words(words, command))
		goto fail;
	while (!at_end(words)) {
		if (take_own_word(words, command))
			continue;
		if (words->error)
			goto fail;
		if (!take_direction(words, &command->directions)) {
			wrong(words, "'%s' is nothing that %s knows", *words->at,
			    command_names[command->kind]);
			goto fail;
		}
		directed = true;
	}
	if (directed && !has_direction(command))
		wrong(words, "this %s has no direction", command_names[command->kind]);
	if (words->error || !complete(words, command))
		goto fail;
	GString *text = g_string_new(*first);
	while (++first < words->at)
		g_string_append_printf(text, " %s", *first);
	command->text = g_string_free(text, FALSE);
	return command;
fail:
	command_free(command);
	return NULL;
}

/* ---- lines ---- */

void line_free(void *data)
{
	struct line *line = data;

	g_ptr_array_unref(line->commands);
	if (line->rand)
		g_rand_free(line->rand);
	g_free(line);
}

static bool take_every(struct words *words, struct line *line, uint32_t seed)
{
	unsigned given;

	line->when = LINE_EVERY;
	if (!take_span(words, &line->from, &line->to))
		return false;
	line->random = take(words, "random");
	if (take(words, "seed")) {
		if (!take_count(words, &given))
			return false;
		seed = given;
	}
	line->rand = g_rand_new_with_seed(seed);
	take(words, ":");
	return true;
}

static bool take_when(struct words *words, struct line *line, uint32_t seed)
{
	if (take(words, "every"))
		return take_every(words, line, seed);
	if (take(words, "after"))
		line->when = LINE_AFTER;
	else if (take(words, "at"))
		line->when = LINE_AT;
	else
		return true;
	if (take_time(words, &line->from))
		return true;
	return wrong(words, "'%s' is no time: 500ms, 2s", *words->at ? *words->at : "");
}

static bool take_commands(struct words *words, struct line *line)
{
	do {
		struct command *command = take_command(words);
		if (!command)
			return false;
		g_ptr_array_add(line->commands, command);
		if (line->when == LINE_EVERY && command->kind == QUIT)
			return wrong(words, "quit comes once only");
	} while (line->when == LINE_EVERY && take(words, ","));
	if (*words->at)
		return wrong(words, "only 'every' takes several commands");
	return true;
}

/* The words of it, ':' and ',' words of their own, without empty ones and the comment. */
static char **words_of(const char *text)
{
	g_autoptr(GString) spaced = g_string_new(NULL);
	GPtrArray *words = g_ptr_array_new();

	for (; *text && *text != '#'; text++)
		if (*text == ':' || *text == ',')
			g_string_append_printf(spaced, " %c ", *text);
		else
			g_string_append_c(spaced, g_ascii_isspace(*text) ? ' ' : *text);
	g_auto(GStrv) parts = g_strsplit(spaced->str, " ", -1);
	for (char **part = parts; *part; part++)
		if (**part)
			g_ptr_array_add(words, g_strdup(*part));
	g_ptr_array_add(words, NULL);
	return (char **)g_ptr_array_free(words, FALSE);
}

struct line *line_parse(const char *text, uint32_t seed, char **error)
{
	g_auto(GStrv) all = words_of(text);
	struct words words = {all, NULL};

	if (!*all)
		return NULL;
	struct line *line = g_new0(struct line, 1);
	line->commands = g_ptr_array_new_with_free_func(command_free);
	if (take_when(&words, line, seed) && take_commands(&words, line))
		return line;
	line_free(line);
	*error = words.error;
	return NULL;
}
