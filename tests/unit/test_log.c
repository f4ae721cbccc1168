/*
 * test_log.c - where lines go, in what form, and how many.
 *
 * The journal is a socket of the test's own in its private /run, and speaks systemd's native
 * protocol: "FIELD=value" lines in one datagram.
 */
#include "lunfs/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lunfs/loop.h"
#include "support/stage.h"

/* ---- the terminal ---- */

/* What was written to stderr while tell() ran. */
static char *terminal_after(void (*tell)(void))
{
	int saved = dup(STDERR_FILENO), file = memfd_create("stderr", MFD_CLOEXEC);

	cr_assert_geq(file, 0);
	dup2(file, STDERR_FILENO);
	tell();
	dup2(saved, STDERR_FILENO);
	close(saved);
	off_t size = lseek(file, 0, SEEK_END);
	char *text = g_malloc0((gsize)size + 1);
	cr_assert_eq(pread(file, text, (size_t)size, 0), size);
	close(file);
	return text;
}

static unsigned lines_of(const char *text)
{
	unsigned lines = 0;

	for (; (text = strchr(text, '\n')); text++)
		lines++;
	return lines;
}

static void tell_each_level(void)
{
	log_error_of("nas", "refused");
	log_warning_of("nas/lun0.img", "%u bytes", 7u);
	log_info_of(NULL, "about nothing");
	log_info("plain");
	log_debug_of("nas", "not told");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug_of("nas", "told");
}

Test(log, puts_the_subject_before_a_line_on_the_terminal)
{
	g_autofree char *text = terminal_after(tell_each_level);

	cr_assert_str_eq(text, "lunfs: nas: refused\n"
	                       "lunfs: warning: nas/lun0.img: 7 bytes\n"
	                       "lunfs: about nothing\n"
	                       "lunfs: plain\n"
	                       "lunfs: debug: nas: told\n");
}

static void tell_controls(void)
{
	log_info_of("n\na\033s", "a\nb\tc\xc2\x9b");
}

Test(log, lets_no_control_character_through)
{
	g_autofree char *text = terminal_after(tell_controls);

	cr_assert_str_eq(text, "lunfs: n a?s: a b c??\n");
}

static void tell_long(void)
{
	g_autofree char *name = g_strnfill(2000, 'n'), *line = g_strnfill(2000, 'x');

	log_info_of(name, "%s", line);
	log_info("%s", line);
}

Test(log, cuts_a_line_that_is_too_long)
{
	g_autofree char *text = terminal_after(tell_long);

	cr_assert_eq(lines_of(text), 2);
	cr_assert(g_str_has_suffix(text, "x...\n"));
	cr_assert_lt(strlen(text), 2200);
}

/* ---- the journal ---- */

/* A /run of the test's own. */
static void stage_enter(void)
{
	static struct stage *volatile stage; /* so that it is not forgotten, and called a leak */

	stage = stage_new();
	cr_assert_not_null(stage);
}

static int journal_start(void)
{
	struct sockaddr_un address = {
	    .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(g_mkdir_with_parents("/run/systemd/journal", 0755), 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

/* The next entry as text, or NULL. */
static char *journal_next(int fd)
{
	static char entry[8192];
	ssize_t n = recv(fd, entry, sizeof entry - 1, MSG_DONTWAIT);

	if (n < 0)
		return NULL;
	entry[n] = '\0';
	cr_assert_eq(strlen(entry), (size_t)n);
	return entry;
}

static void journal_must_have(int fd, const char *expected)
{
	const char *entry = journal_next(fd);

	cr_assert_not_null(entry);
	cr_assert_str_eq(entry, expected);
}

#define ALWAYS "SYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=lunfs\nLUNFS_MOUNTPOINT=/mnt/a\n"

Test(log, gives_the_journal_level_target_and_lun_as_fields)
{
	stage_enter();
	int journal = journal_start();

	log_to_syslog("/mnt/a", NULL);
	log_warning_of("nas/lun12.img", "slow");
	journal_must_have(journal, "PRIORITY=4\n" ALWAYS "LUNFS_TARGET=nas\nLUNFS_LUN=12\n"
	                           "MESSAGE=nas/lun12.img: slow\n");
	log_error_of("nas", "gone");
	journal_must_have(journal, "PRIORITY=3\n" ALWAYS "LUNFS_TARGET=nas\nMESSAGE=nas: gone\n");
	log_info_of("lun0-part1.img", "back");
	journal_must_have(
	    journal, "PRIORITY=6\n" ALWAYS "LUNFS_LUN=0\nMESSAGE=lun0-part1.img: back\n");
	log_info("nothing");
	journal_must_have(journal, "PRIORITY=6\n" ALWAYS "MESSAGE=nothing\n");
	cr_assert_null(journal_next(journal));
}

/* A target may have the name of a LUN, and a LUN's file another name than lunN. */
Test(log, takes_no_target_for_a_lun)
{
	stage_enter();
	int journal = journal_start();

	log_to_syslog("/mnt/a", NULL);
	log_info_of("lun5", "up");
	journal_must_have(journal, "PRIORITY=6\n" ALWAYS "LUNFS_TARGET=lun5\nMESSAGE=lun5: up\n");
	log_info_of("lunar", "up");
	journal_must_have(journal, "PRIORITY=6\n" ALWAYS "LUNFS_TARGET=lunar\nMESSAGE=lunar: up\n");
	log_info_of("nas/tape3", "up");
	journal_must_have(
	    journal, "PRIORITY=6\n" ALWAYS "LUNFS_TARGET=nas\nMESSAGE=nas/tape3: up\n");
}

Test(log, lets_nobody_add_a_field)
{
	stage_enter();
	int journal = journal_start();

	log_to_syslog("/mnt/a\nPRIORITY=0", NULL);
	log_info_of("n\nPRIORITY=1/lun0.img", "x\nPRIORITY=2");
	journal_must_have(journal,
	    "PRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=lunfs\n"
	    "LUNFS_MOUNTPOINT=/mnt/a PRIORITY=0\nLUNFS_TARGET=n PRIORITY=1\nLUNFS_LUN=0\n"
	    "MESSAGE=n PRIORITY=1/lun0.img: x PRIORITY=2\n");
}

/* It takes some hundred entries, and then none: to wait for it would stop all I/O. */
Test(log, does_not_wait_for_a_journal_that_is_stuck, .timeout = 60)
{
	stage_enter();
	int journal = journal_start(), entries = 0;

	log_to_syslog(NULL, NULL);
	for (int i = 0; i < 5000; i++)
		log_info("line %d", i);
	while (journal_next(journal))
		entries++;
	cr_assert_lt(entries, 5000);
	log_info("again");
	journal_must_have(
	    journal, "PRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=lunfs\nMESSAGE=again\n");
}

static int syslog_start(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
		cr_skip("there is a /dev/log");
	return fd;
}

Test(log, goes_to_syslog_where_there_is_no_journal_and_when_it_is_gone)
{
	stage_enter();
	int syslog_fd = syslog_start();
	int journal = journal_start();

	log_to_syslog("/mnt/a", NULL);
	log_info_of("nas", "one");
	cr_assert_not_null(journal_next(journal));
	close(journal);
	log_info_of("nas", "two");
	char *line = journal_next(syslog_fd);
	g_unlink("/dev/log");
	cr_assert_not_null(line);
	cr_assert_not_null(strstr(line, "nas: two"), "%s", line);
}

static void tell_in_the_background(void)
{
	log_to_syslog("/mnt/a", NULL);
	log_error_of("nas", "gone");
}

Test(log, leaves_the_terminal_alone_in_the_background)
{
	stage_enter();
	(void)journal_start();
	g_autofree char *text = terminal_after(tell_in_the_background);

	cr_assert_str_eq(text, "");
}

/* ---- limits ---- */

static struct log_limit limits[256];

static void tell_of_lun(unsigned lun, const char *target)
{
	g_autofree char *name = g_strdup_printf("%s%slun%u.img", target, target[0] ? "/" : "", lun);

	if (log_limit_passes(&limits[lun], name))
		log_warning_of(name, "it failed");
}

static void tell_of_one(void)
{
	for (int i = 0; i < 100; i++)
		tell_of_lun(0, "nas");
}

Test(log, tells_of_one_subject_ten_times_a_minute)
{
	g_autofree char *text = terminal_after(tell_of_one);

	cr_assert_eq(lines_of(text), 10);
}

static void tell_when_a_minute_is_over(void)
{
	tell_of_one();
	limits[0].since_ms -= 60000;
	tell_of_lun(0, "nas");
}

Test(log, tells_how_many_lines_it_left_out)
{
	g_autofree char *text = terminal_after(tell_when_a_minute_is_over);

	cr_assert_not_null(
	    strstr(text, "lunfs: warning: nas/lun0.img: 90 more lines like these were left out\n"));
	cr_assert_eq(lines_of(text), 12);
}

static void tell_of_many(void)
{
	for (unsigned lun = 0; lun < 256; lun++)
		tell_of_lun(lun, "nas");
}

Test(log, tells_of_the_first_luns_of_a_target_that_lost_256)
{
	g_autofree char *text = terminal_after(tell_of_many);

	cr_assert_eq(lines_of(text), 17);
	cr_assert(g_str_has_suffix(text,
	    "lunfs: warning: nas/lun15.img: it failed\n"
	    "lunfs: warning: nas: more lines like these, of other LUNs, are left out for a "
	    "minute\n"));
}

static void tell_of_two_targets(void)
{
	tell_of_many();
	memset(limits, 0, sizeof limits);
	tell_of_lun(0, "");
	if (log_limit_passes(&limits[1], "nas"))
		log_warning_of("nas", "session lost");
	log_error_of("nas/lun99.img", "writes are lost");
}

Test(log, still_tells_of_others_of_the_target_itself_and_of_what_has_no_limit)
{
	g_autofree char *text = terminal_after(tell_of_two_targets);

	cr_assert(g_str_has_suffix(text, "lunfs: warning: lun0.img: it failed\n"
	                                 "lunfs: warning: nas: session lost\n"
	                                 "lunfs: nas/lun99.img: writes are lost\n"));
}
