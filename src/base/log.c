/*
 * log.c - one line at a time, to stderr, to the journal or to syslog.
 *
 * Owns the program's only mutable globals: how much is told, where, and how much was told of each
 * target of late. A line is built on the stack and written with one call, so that lines of two
 * threads or processes do not mix; what a target or a user put into it cannot end it, add a field
 * to it, or reach the terminal as a control sequence.
 *
 * The journal is spoken to by hand (systemd.io/JOURNAL_NATIVE_PROTOCOL): GLib's writer blocks while
 * the journal is stuck, and all I/O of the mount with it.
 */
#include "lunfs/log.h"

#include <errno.h>
#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "lunfs/loop.h"

#define LINE_SIZE       1024
#define LIMIT_LINES     10u
#define LIMIT_WINDOW_MS 60000
/* Of all LUNs of one target together. Targets share a limit where their names' hashes meet. */
#define TARGET_LINES  16u
#define TARGET_LIMITS 64u

#define JOURNAL "/run/systemd/journal/socket"

static enum log_level log_level = LOG_LEVEL_INFO;
static struct log_limit log_targets[TARGET_LIMITS];
static struct {
	bool background;
	int journal; /* its socket, in the background; -1: none */
	char *mountpoint, *target;
} log_sink = {.journal = -1};

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

/* Replaces *kept by a copy that may stand in a line. */
static void keep_clean(char **kept, const char *text)
{
	g_free(*kept);
	*kept = g_strdup(text);
	if (*kept)
		line_clean(*kept);
}

void log_to_syslog(const char *mountpoint, const char *target)
{
	openlog("lunfs", LOG_PID, LOG_DAEMON);
	log_sink.background = true;
	keep_clean(&log_sink.mountpoint, mountpoint);
	keep_clean(&log_sink.target, target);
	if (log_sink.journal < 0 && access(JOURNAL, F_OK) == 0)
		log_sink.journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

bool log_debug_on(void)
{
	return log_level >= LOG_LEVEL_DEBUG;
}

/* ---- subjects ---- */

/* "nas/lun0.img", "nas", "lun0.img": what of it names a target, and what a LUN. */
struct subject {
	const char *target;
	size_t target_length; /* 0: none */
	const char *lun;
	size_t lun_length; /* digits; 0: none */
};

static struct subject subject_read(const char *text)
{
	const char *slash = strrchr(text, '/');
	const char *last = slash ? slash + 1 : text;
	struct subject subject = {.target = text};

	if (g_str_has_prefix(last, "lun")) {
		size_t digits = strspn(last + 3, "0123456789");

		/* a target, too, may have the name "lun5" */
		if (slash || last[3 + digits] == '.' || last[3 + digits] == '-')
			subject.lun_length = digits;
		subject.lun = last + 3;
	}
	if (slash)
		subject.target_length = (size_t)(slash - text);
	else if (subject.lun_length == 0)
		subject.target_length = strlen(text);
	return subject;
}

/* ---- where lines go ---- */

static void terminal_write(enum log_level level, const char *line)
{
	char text[LINE_SIZE + 1];
	int length = snprintf(text, sizeof text, "%s%s\n", log_prefixes[level], line);

	/* Where stderr is closed or full there is nobody to tell. */
	if (write(STDERR_FILENO, text, (size_t)length) < 0)
		errno = 0;
}

/* A field of the native protocol: "NAME=value\n"; a value of ours has no newline. */
static struct iovec *field_add(
    struct iovec *iov, const char *name, const char *value, size_t length)
{
	*iov++ = (struct iovec){(char *)name, strlen(name)};
	*iov++ = (struct iovec){(char *)value, length};
	*iov++ = (struct iovec){(char *)"\n", 1};
	return iov;
}

/* False: it did not get there, and may elsewhere. */
static bool journal_write(enum log_level level, const char *line, const struct subject *subject)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = JOURNAL};
	char priority = (char)('0' + log_priorities[level]);
	const char *mountpoint = log_sink.mountpoint;
	/* seven fields of three parts */
	struct iovec iov[21], *end = iov;

	end = field_add(end, "PRIORITY=", &priority, 1);
	end = field_add(end, "SYSLOG_FACILITY=", "3", 1); /* daemon */
	end = field_add(end, "SYSLOG_IDENTIFIER=", "lunfs", 5);
	if (mountpoint)
		end = field_add(end, "LUNFS_MOUNTPOINT=", mountpoint, strlen(mountpoint));
	if (subject->target_length > 0)
		end = field_add(end, "LUNFS_TARGET=", subject->target, subject->target_length);
	else if (subject->lun_length > 0 && log_sink.target)
		end = field_add(end, "LUNFS_TARGET=", log_sink.target, strlen(log_sink.target));
	if (subject->lun_length > 0)
		end = field_add(end, "LUNFS_LUN=", subject->lun, subject->lun_length);
	end = field_add(end, "MESSAGE=", line, strlen(line));

	struct msghdr message = {
	    .msg_name = &address,
	    .msg_namelen = sizeof address,
	    .msg_iov = iov,
	    .msg_iovlen = (size_t)(end - iov),
	};
	return sendmsg(log_sink.journal, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 ||
	       errno == EAGAIN;
}

/* ---- lines ---- */

__attribute__((format(printf, 3, 0))) static void line_write(
    enum log_level level, const char *subject, const char *format, va_list args)
{
	int saved_errno = errno;
	char line[LINE_SIZE], about[LINE_SIZE / 2];
	size_t start = 0, room = sizeof line - strlen(log_prefixes[level]);

	g_strlcpy(about, subject ? subject : "", sizeof about);
	line_clean(about);
	if (subject)
		start = (size_t)snprintf(line, room, "%s: ", about);
	int length = vsnprintf(line + start, room - start, format, args);
	if (length < 0)
		line[start] = '\0';
	else if ((size_t)length >= room - start)
		memcpy(line + room - 4, "...", 4);
	line_clean(line);

	struct subject parts = subject_read(about);
	if (!log_sink.background)
		terminal_write(level, line);
	else if (log_sink.journal < 0 || !journal_write(level, line, &parts))
		syslog(log_priorities[level], "%s", line);
	errno = saved_errno;
}

void log_line(enum log_level level, const char *format, ...)
{
	va_list args;

	if (level > log_level)
		return;
	va_start(args, format);
	line_write(level, NULL, format, args);
	va_end(args);
}

void log_line_of(const char *subject, enum log_level level, const char *format, ...)
{
	va_list args;

	if (level > log_level)
		return;
	va_start(args, format);
	line_write(level, subject, format, args);
	va_end(args);
}

/* ---- limits ---- */

static bool limit_passes(struct log_limit *limit, unsigned lines, const char *name)
{
	int64_t now_ms = clock_ms();

	if (limit->lines == 0 || now_ms - limit->since_ms >= LIMIT_WINDOW_MS) {
		if (limit->dropped > 0)
			log_warning_of(
			    name, "%u more lines like these were left out", limit->dropped);
		*limit = (struct log_limit){.since_ms = now_ms};
	}
	if (limit->lines >= lines) {
		limit->dropped++;
		return false;
	}
	limit->lines++;
	return true;
}

bool log_limit_passes(struct log_limit *limit, const char *name)
{
	struct subject subject = subject_read(name);

	if (!limit_passes(limit, LIMIT_LINES, name))
		return false;
	if (subject.lun_length == 0)
		return true;

	g_autofree char *target = g_strndup(subject.target, subject.target_length);
	const char *about = target[0] ? target : NULL;
	struct log_limit *all = &log_targets[g_str_hash(target) % TARGET_LIMITS];
	bool first = all->dropped == 0;
	if (limit_passes(all, TARGET_LINES, about))
		return true;
	if (first)
		log_warning_of(
		    about, "more lines like these, of other LUNs, are left out for a minute");
	return false;
}
