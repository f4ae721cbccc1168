/*
 * log.c - one line at a time, to stderr or to syslog.
 *
 * Owns the program's only mutable globals: how much is told, and where. A line is built on the
 * stack and written with one call, so that lines of two threads or processes do not mix; what a
 * target or a user put into it cannot end it or reach the terminal as a control sequence.
 */
#include "lunfs/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "lunfs/loop.h"

#define LINE_SIZE       1024
#define LIMIT_LINES     10u
#define LIMIT_WINDOW_MS 60000

static enum log_level log_level = LOG_LEVEL_INFO;
static bool log_syslog;

/* An error says itself that it is one; nothing that went well needs a word before it. */
static const char *const log_prefixes[] = {
    [LOG_LEVEL_ERROR] = "lunfs: ",
    [LOG_LEVEL_WARNING] = "lunfs: warning: ",
    [LOG_LEVEL_INFO] = "lunfs: ",
    [LOG_LEVEL_DEBUG] = "lunfs: debug: ",
};

static const int log_priorities[] = {
    [LOG_LEVEL_ERROR] = LOG_ERR,
    [LOG_LEVEL_WARNING] = LOG_WARNING,
    [LOG_LEVEL_INFO] = LOG_INFO,
    [LOG_LEVEL_DEBUG] = LOG_DEBUG,
};

void log_set_level(enum log_level level)
{
	log_level = level;
}

void log_to_syslog(void)
{
	openlog("lunfs", LOG_PID, LOG_DAEMON);
	log_syslog = true;
}

bool log_debug_on(void)
{
	return log_level >= LOG_LEVEL_DEBUG;
}

/* C0, DEL, and C1 in its two bytes of UTF-8. */
static void line_clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = *p == '\n' || *p == '\t' ? ' ' : '?';
		else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			p[0] = p[1] = '?';
	}
}

void log_line(enum log_level level, const char *format, ...)
{
	int saved_errno = errno;
	char line[LINE_SIZE + 1];
	size_t start = 0;
	va_list args;

	if (level > log_level)
		return;
	if (!log_syslog)
		start = (size_t)snprintf(line, sizeof(line), "%s", log_prefixes[level]);
	va_start(args, format);
	int length = vsnprintf(line + start, LINE_SIZE - start, format, args);
	va_end(args);
	if (length < 0)
		line[start] = '\0';
	else if ((size_t)length >= LINE_SIZE - start)
		memcpy(line + LINE_SIZE - 4, "...", 4);
	line_clean(line + start);

	if (log_syslog) {
		syslog(log_priorities[level], "%s", line);
	} else {
		size_t end = strlen(line);
		line[end++] = '\n';
		/* Where stderr is closed or full there is nobody to tell. */
		if (write(STDERR_FILENO, line, end) < 0)
			errno = 0;
	}
	errno = saved_errno;
}

bool log_limit_passes(struct log_limit *limit, const char *name)
{
	int64_t now_ms = clock_ms();

	if (limit->lines == 0 || now_ms - limit->since_ms >= LIMIT_WINDOW_MS) {
		if (limit->dropped > 0)
			log_warning(
			    "%s: %u more lines like these were left out", name, limit->dropped);
		*limit = (struct log_limit){.since_ms = now_ms};
	}
	if (limit->lines >= LIMIT_LINES) {
		limit->dropped++;
		return false;
	}
	limit->lines++;
	return true;
}
