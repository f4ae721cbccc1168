/*
 * log.h - what lunfs tells: human lines on stderr in the foreground, syslog in the background.
 *
 * Secrets never come here. A line has no newline, names what it is about first ("lun0.img: ..."),
 * and says what to do where there is something to do.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped. The only global of the program; set once at the start. */
void log_set_level(enum log_level level);
/* From here on lines go to syslog as well as nowhere else: the terminal is left alone. */
void log_to_syslog(void);
bool log_debug_on(void);

/* For what may be said again and again: so many lines a minute; zero-initialised. */
struct log_limit {
	int64_t since_ms;
	unsigned lines, dropped;
};
/* May one more line be said? Tells how many were left out, under name, when some may again. */
bool log_limit_passes(struct log_limit *limit, const char *name);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_debug_on())                                                                \
			log_line(LOG_LEVEL_DEBUG, __VA_ARGS__);                                    \
	} while (0)
