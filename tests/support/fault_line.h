/*
 * fault_line.h - a line of a fault script, understood; fault_script.h tells the language.
 */
#pragma once

#include <glib.h>

#include "support/proxy.h"

#define ANY_BIT UINT_MAX

enum command_kind {
	LATENCY,
	LIMIT,
	STALL,
	CUT,
	DROP,
	REFUSE,
	CORRUPT,
	RESUME,
	HEAL,
	STOP,
	QUIT,
	COMMAND_KINDS,
};

enum moment { MOMENT_NOW, MOMENT_HALF, MOMENT_BYTES, MOMENT_PDUS };

struct command {
	enum command_kind kind;
	char *text;
	enum proxy_direction directions;
	int64_t time; /* ns; -1: not given */
	uint64_t number;
	bool has_number;
	enum proxy_cut cut;
	enum moment moment;
	size_t passed, at_least;
	enum proxy_part part;
	unsigned nth, bit;
};

struct line {
	enum { LINE_NOW, LINE_AFTER, LINE_AT, LINE_EVERY } when;
	int64_t from, to; /* ns */
	int64_t added;
	bool random;
	GRand *rand;
	GPtrArray *commands;
	/* of every */
	int64_t next;
	unsigned turn;
};

/*
 * Understands a line; NULL when it is empty, or when it is wrong: then *error says why, to be
 * freed. The seed is for what is random in it, unless it names one itself.
 */
struct line *line_parse(const char *text, uint32_t seed, char **error);
void line_free(void *line);
