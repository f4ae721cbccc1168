/*
 * fault_script.c - plays a fault script.
 */
#include "support/fault_script.h"

#include <string.h>
#include <time.h>

#include "support/fault_line.h"

#define NEVER INT64_MAX

struct fault_script {
	FILE *log;
	GQueue lines;       /* not yet played */
	GPtrArray *repeats; /* lines that go on */
	int64_t start, played;
	int64_t until[COMMAND_KINDS]; /* when stall, drop, refuse end; 0: is not */
	GRand *rand;
	bool stopped, quit;
};

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool fault_script_add(struct fault_script *script, const char *text, char **error)
{
	uint32_t seed = g_rand_int(script->rand) % 1000000000;
	char *wrong = NULL;
	struct line *line = line_parse(text, seed, &wrong);

	if (!line) {
		*error = wrong;
		return !wrong;
	}
	line->added = now_ns();
	if (script->log && line->random && !strstr(text, "seed"))
		fprintf(script->log, "seed %u\n", seed);
	g_queue_push_tail(&script->lines, line);
	return true;
}

struct fault_script *fault_script_new(FILE *log)
{
	struct fault_script *script = g_new0(struct fault_script, 1);

	script->log = log;
	script->repeats = g_ptr_array_new_with_free_func(line_free);
	script->rand = g_rand_new();
	return script;
}

void fault_script_free(struct fault_script *script)
{
	g_queue_clear_full(&script->lines, line_free);
	g_ptr_array_unref(script->repeats);
	g_rand_free(script->rand);
	g_free(script);
}

/* ---- playing ---- */

static void perform_stall(struct proxy *proxy, const struct command *command)
{
	if (command->moment == MOMENT_HALF)
		proxy_stall_within(proxy, command->directions, command->passed, command->at_least);
	else
		proxy_stall(proxy, command->directions);
}

static void perform_cut(struct proxy *proxy, const struct command *command)
{
	switch (command->moment) {
	case MOMENT_NOW:
		proxy_cut(proxy, command->cut);
		break;
	case MOMENT_HALF:
		proxy_cut_within(
		    proxy, command->directions, command->passed, command->at_least, command->cut);
		break;
	case MOMENT_BYTES:
		proxy_cut_after_bytes(proxy, command->directions, command->number, command->cut);
		break;
	case MOMENT_PDUS:
		proxy_cut_after_pdus(proxy, command->directions, command->number, command->cut);
		break;
	}
}

static void perform_corrupt(
    struct fault_script *script, struct proxy *proxy, const struct command *command, GRand *random)
{
	unsigned bit = command->bit;

	if (bit == ANY_BIT) {
		bit = g_rand_int(random) >> 1;
		if (script->log)
			fprintf(script->log, "bit %u\n", bit);
	}
	proxy_corrupt(proxy, command->directions, command->part, command->nth, bit);
}

static void lasts(struct fault_script *script, const struct command *command, int64_t now)
{
	int64_t until = command->time < 0 ? NEVER : now + command->time;

	script->until[command->kind] = MAX(script->until[command->kind], until);
}

static void perform(struct fault_script *script, struct proxy *proxy, const struct command *command,
    GRand *random, int64_t now)
{
	if (script->log)
		fprintf(script->log, "%.3f s: %s\n", (double)(now - script->start) / 1e9,
		    command->text);
	switch (command->kind) {
	case LATENCY:
		proxy_latency(proxy, command->directions, (unsigned)(command->time / 1000));
		break;
	case LIMIT:
		proxy_limit(proxy, command->directions, command->number);
		break;
	case STALL:
		perform_stall(proxy, command);
		lasts(script, command, now);
		break;
	case CUT:
		perform_cut(proxy, command);
		break;
	case DROP:
		proxy_drop(proxy, true);
		lasts(script, command, now);
		break;
	case REFUSE:
		proxy_refuse(proxy, true);
		lasts(script, command, now);
		break;
	case CORRUPT:
		perform_corrupt(script, proxy, command, random);
		break;
	case RESUME:
		proxy_resume(proxy);
		script->until[STALL] = 0;
		break;
	case HEAL:
		proxy_heal(proxy);
		memset(script->until, 0, sizeof(script->until));
		break;
	case STOP:
		script->stopped = true;
		break;
	default:
		script->quit = true;
	}
}

static void end_what_is_over(struct fault_script *script, struct proxy *proxy, int64_t now)
{
	for (int kind = 0; kind < COMMAND_KINDS; kind++) {
		if (script->until[kind] == 0 || script->until[kind] > now)
			continue;
		script->until[kind] = 0;
		if (kind == STALL)
			proxy_resume(proxy);
		else if (kind == DROP)
			proxy_drop(proxy, false);
		else
			proxy_refuse(proxy, false);
	}
}

static int64_t line_due(const struct fault_script *script, const struct line *line)
{
	int64_t before = MAX(MAX(script->played, script->start), line->added);

	switch (line->when) {
	case LINE_AFTER:
		return before + line->from;
	case LINE_AT:
		return script->start + line->from;
	default:
		return before;
	}
}

static int64_t pause_of(struct line *line)
{
	return line->from + (int64_t)(g_rand_double(line->rand) * (double)(line->to - line->from));
}

static void play_lines(struct fault_script *script, struct proxy *proxy, int64_t now)
{
	for (struct line *line; !script->quit && (line = g_queue_peek_head(&script->lines));) {
		int64_t due = line_due(script, line);
		if (due > now)
			return;
		g_queue_pop_head(&script->lines);
		script->played = due; /* not now: lateness shall not add up */
		if (line->when == LINE_EVERY) {
			line->next = now + pause_of(line);
			g_ptr_array_add(script->repeats, line);
			continue;
		}
		perform(script, proxy, line->commands->pdata[0], script->rand, now);
		line_free(line);
		if (script->stopped)
			g_ptr_array_set_size(script->repeats, 0);
		script->stopped = false;
	}
}

static void play_repeat(
    struct fault_script *script, struct proxy *proxy, struct line *line, int64_t now)
{
	unsigned turn = line->turn++ % line->commands->len;

	if (line->random)
		turn = (unsigned)g_rand_int_range(line->rand, 0, (gint32)line->commands->len);
	const struct command *command = line->commands->pdata[turn];
	perform(script, proxy, command, line->rand, now);
	line->next = now + pause_of(line);
	if (command->kind == STALL || command->kind == DROP || command->kind == REFUSE)
		line->next += MAX(command->time, 0);
}

int64_t fault_script_play(struct fault_script *script, struct proxy *proxy)
{
	int64_t now = now_ns(), next = NEVER;

	if (script->start == 0)
		script->start = now;
	end_what_is_over(script, proxy, now);
	play_lines(script, proxy, now);
	for (unsigned i = 0; i < script->repeats->len && !script->quit; i++) {
		struct line *line = script->repeats->pdata[i];
		if (line->next <= now)
			play_repeat(script, proxy, line, now);
		next = MIN(next, line->next);
	}
	if (script->stopped)
		g_ptr_array_set_size(script->repeats, 0);
	script->stopped = false;
	if (script->quit)
		return -1;
	for (int kind = 0; kind < COMMAND_KINDS; kind++)
		if (script->until[kind])
			next = MIN(next, script->until[kind]);
	struct line *line = g_queue_peek_head(&script->lines);
	return line ? MIN(next, line_due(script, line)) : next;
}
