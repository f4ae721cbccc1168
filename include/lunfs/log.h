/*
 * log.h - what lunfs tells: human lines on stderr in the foreground; in the background the journal,
 * with fields, where there is one, and syslog where not.
 *
 * Secrets never come here. A line has no newline, names what it is about first ("lun0.img: ..."),
 * and says what to do where there is something to do.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped. Set once at the start. */
void log_set_level(enum log_level level);
/*
 * From here on lines go to the journal or to syslog, and the terminal is left alone. The journal
 * gets the mountpoint (NULL: none) as LUNFS_MOUNTPOINT with each, and target as LUNFS_TARGET with
 * those whose subject is a LUN alone (NULL: it is not known). While it takes no more, lines are
 * dropped: nobody waits for it.
 */
void log_to_syslog(const char *mountpoint, const char *target);
bool log_debug_on(void);

/* For what may be said again and again: so many lines a minute; zero-initialised. */
struct log_limit {
	int64_t since_ms;
	unsigned lines, dropped;
};
/*
 * May one more line be said about name, the subject of log_line_of()? Where it is a LUN all LUNs of
 * its target share a limit besides, or the loss of a target with 256 of them would be 256 lines.
 * Tells how many were left out when some may be said again. Not for lines that tell of lost data.
 * From the loop's thread only.
 */
bool log_limit_passes(struct log_limit *limit, const char *name);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * The same about a subject: "nas", "nas/lun0.img", "lun0.img"; NULL: none. It goes before the line
 * ("nas/lun0.img: ..."), and into the journal's fields: LUNFS_TARGET is "nas", LUNFS_LUN is "0".
 */
void log_line_of(const char *subject, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error_of(subject, ...)   log_line_of(subject, LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning_of(subject, ...) log_line_of(subject, LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info_of(subject, ...)    log_line_of(subject, LOG_LEVEL_INFO, __VA_ARGS__)

#define log_debug_of(subject, ...)                                                                 \
	do {                                                                                       \
		if (log_debug_on())                                                                \
			log_line_of(subject, LOG_LEVEL_DEBUG, __VA_ARGS__);                        \
	} while (0)

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_debug_on())                                                                \
			log_line(LOG_LEVEL_DEBUG, __VA_ARGS__);                                    \
	} while (0)
