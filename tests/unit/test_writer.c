/*
 * test_writer.c - one writer for a LUN: who is refused, and what he is told.
 *
 * Other mounts are processes of the test's own, which die with it. Names of LUNs have the test's
 * process id in them: claims are seen by all tests of the machine.
 */
#include "../../src/mount/writer.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lunfs/loop.h"
#include "support/stage.h"

#define TARGET  "iqn.2003-01.org.example:disk"
#define NOWHERE "/nonexistent"

/* One that can be told from others by its designator. */
static struct lun_info strong(uint16_t lun)
{
	struct lun_info info = {.lun = lun, .serial = "serial"};

	snprintf(info.wwid, sizeof info.wwid, "naa.6001405%08x%08x", getpid(), lun);
	return info;
}

/* As tgt's. */
static struct lun_info weak(uint16_t lun)
{
	struct lun_info info = {.lun = lun, .wwid = "naa.60000000000000000e00000000010001"};

	snprintf(info.serial, sizeof info.serial, "beaf%d", getpid());
	return info;
}

struct mounted {
	struct loop *loop;
	struct writers *writers;
};

static struct mounted mounted_new(const char *mountpoint)
{
	struct mounted mounted = {.loop = loop_new()};

	mounted.writers = writers_new(mounted.loop, mountpoint, NOWHERE);
	return mounted;
}

static void mounted_free(struct mounted *mounted)
{
	writers_free(mounted->writers);
	loop_free(mounted->loop);
}

static struct writer *must_claim(struct mounted *mounted, const struct lun_info *info, bool shared)
{
	char *who;
	struct writer *writer =
	    writer_claim(mounted->writers, info, TARGET, "lun0.img", shared, &who);

	cr_assert_not_null(writer, "%s", who);
	cr_assert_null(who);
	return writer;
}

/* Who has it; free with g_free(). */
static char *must_refuse(struct mounted *mounted, const struct lun_info *info)
{
	char *who;
	struct writer *writer =
	    writer_claim(mounted->writers, info, TARGET, "lun0.img", false, &who);

	cr_assert_null(writer);
	cr_assert_not_null(who);
	return who;
}

static void must_be_free(const struct lun_info *info)
{
	struct mounted mounted = mounted_new("/mnt/free");

	writer_free(must_claim(&mounted, info, false));
	mounted_free(&mounted);
}

static void must_be_held(const struct lun_info *info)
{
	struct mounted mounted = mounted_new("/mnt/held");

	g_free(must_refuse(&mounted, info));
	mounted_free(&mounted);
}

/* ---- other processes ---- */

/* A process that says something when it is ready, and then runs until it is killed. */
static pid_t other_start(int *ready)
{
	int fds[2];
	pid_t parent = getpid();

	cr_assert_eq(pipe(fds), 0);
	pid_t pid = fork();
	cr_assert_geq(pid, 0);
	*ready = fds[pid == 0];
	close(fds[pid != 0]);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static void other_is_ready(int ready, char word)
{
	if (write(ready, &word, 1) != 1)
		_exit(1);
}

static char other_await(int ready)
{
	char word = 0;

	cr_assert_eq(read(ready, &word, 1), 1);
	close(ready);
	return word;
}

static void other_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

/* Another mount, which holds count LUNs from this one on. */
static pid_t other_mount(
    const char *mountpoint, const struct lun_info *infos, unsigned count, bool shared)
{
	int ready;
	pid_t pid = other_start(&ready);

	if (pid == 0) {
		struct mounted mounted = mounted_new(mountpoint);
		bool all = true;

		for (unsigned i = 0; i < count; i++) {
			char *who;
			g_autofree char *file = g_strdup_printf("lun%u.img", i);
			all &= writer_claim(
			           mounted.writers, &infos[i], TARGET, file, shared, &who) != NULL;
		}
		other_is_ready(ready, all ? '+' : '-');
		loop_run(mounted.loop);
		_exit(0);
	}
	cr_assert_eq(other_await(ready), '+');
	return pid;
}

/* ---- one writer ---- */

Test(writer, refuses_the_second_mount_and_tells_where_the_first_is)
{
	struct lun_info info = strong(0);
	pid_t other = other_mount("/mnt/a b", &info, 1, false);
	struct mounted mounted = mounted_new("/mnt/b");
	g_autofree char *who = must_refuse(&mounted, &info);
	g_autofree char *expected = g_strdup_printf(
	    "the lunfs mount on /mnt/a b (pid %d, user %s), as lun0.img", other, g_get_user_name());

	cr_assert_str_eq(who, expected);
	mounted_free(&mounted);
	other_kill(other);
}

Test(writer, may_claim_what_a_mount_held_that_was_killed)
{
	struct lun_info info = strong(0);
	pid_t other = other_mount("/mnt/a", &info, 1, false);

	must_be_held(&info);
	other_kill(other);
	must_be_free(&info);
}

Test(writer, of_one_mount_may_claim_again_and_holds_until_the_last_is_given_back)
{
	struct mounted mounted = mounted_new("/mnt/a");
	struct lun_info info = strong(0);
	struct writer *first = must_claim(&mounted, &info, false);
	struct writer *second = must_claim(&mounted, &info, false);

	writer_free(first);
	must_be_held(&info);
	writer_free(second);
	must_be_free(&info);
	mounted_free(&mounted);
}

Test(writer, of_another_user_is_refused_and_told_whose_it_is)
{
	if (getuid() != 0)
		cr_skip("needs root");
	struct lun_info info = strong(0);
	pid_t other = other_mount("/mnt/a", &info, 1, false);

	cr_assert_eq(seteuid(STRANGER), 0);
	struct mounted mounted = mounted_new("/mnt/b");
	g_autofree char *who = must_refuse(&mounted, &info);
	cr_assert_not_null(strstr(who, "user root"), "%s", who);
	mounted_free(&mounted);
	cr_assert_eq(seteuid(0), 0);
	other_kill(other);
}

Test(writer, of_many_that_come_at_once_is_one)
{
	enum { MANY = 6, ROUNDS = 15 };
	for (uint16_t round = 0; round < ROUNDS; round++) {
		struct lun_info info = strong(round);
		int start[2], ready[MANY], winners = 0;
		pid_t pids[MANY];

		cr_assert_eq(pipe(start), 0);
		for (int i = 0; i < MANY; i++) {
			char *who, byte;
			pids[i] = other_start(&ready[i]);
			if (pids[i] != 0)
				continue;
			close(start[1]);
			struct mounted mounted = mounted_new("/mnt/a");
			if (read(start[0], &byte, 1) != 0)
				_exit(1);
			bool won =
			    writer_claim(mounted.writers, &info, TARGET, "", false, &who) != NULL;
			other_is_ready(ready[i], won ? '+' : '-');
			loop_run(mounted.loop);
		}
		close(start[0]);
		close(start[1]);
		for (int i = 0; i < MANY; i++)
			winners += other_await(ready[i]) == '+';
		for (int i = 0; i < MANY; i++)
			other_kill(pids[i]);
		cr_assert_eq(winners, 1, "round %u", round);
	}
}

/* ---- which LUN ---- */

Test(writer, knows_a_lun_by_its_designator_through_whatever_target)
{
	struct lun_info info = strong(0), same = info, other = info;
	pid_t pid = other_mount("/mnt/a", &info, 1, false);
	struct mounted mounted = mounted_new("/mnt/b");
	char *who;

	same.lun = 7;
	cr_assert_null(
	    writer_claim(mounted.writers, &same, "iqn.2003-01.org.example:other", "", false, &who));
	g_free(who);
	strcpy(other.serial, "another");
	writer_free(must_claim(&mounted, &other, false));
	mounted_free(&mounted);
	other_kill(pid);
}

Test(writer, knows_a_lun_with_a_weak_designator_by_target_and_number)
{
	struct lun_info info = weak(0), other = weak(1);
	pid_t pid = other_mount("/mnt/a", &info, 1, false);
	struct mounted mounted = mounted_new("/mnt/b");
	char *who;

	g_free(must_refuse(&mounted, &info));
	writer_free(must_claim(&mounted, &other, false));
	struct writer *writer =
	    writer_claim(mounted.writers, &info, "iqn.2003-01.org.example:other", "", false, &who);
	cr_assert_not_null(writer);
	writer_free(writer);
	mounted_free(&mounted);
	other_kill(pid);
}

/* ---- shared ---- */

Test(writer, that_is_shared_is_never_refused)
{
	struct lun_info info = strong(0), other_info = strong(1);
	pid_t plain = other_mount("/mnt/a", &info, 1, false);
	pid_t shared = other_mount("/mnt/b", &other_info, 1, true);
	struct mounted mounted = mounted_new("/mnt/c");
	struct writer *one = must_claim(&mounted, &info, true);
	struct writer *two = must_claim(&mounted, &other_info, true);

	writer_free(one);
	writer_free(two);
	mounted_free(&mounted);
	other_kill(plain);
	other_kill(shared);
}

Test(writer, is_refused_as_long_as_any_shared_one_lives)
{
	struct lun_info info = strong(0);
	pid_t first = other_mount("/mnt/a", &info, 1, true);
	pid_t second = other_mount("/mnt/b", &info, 1, true);
	struct mounted mounted = mounted_new("/mnt/c");

	g_autofree char *who = must_refuse(&mounted, &info);
	cr_assert(g_str_has_prefix(who, "the lunfs mount on /mnt/a ("), "%s", who);
	other_kill(first);
	g_autofree char *then = must_refuse(&mounted, &info);
	cr_assert(g_str_has_prefix(then, "the lunfs mount on /mnt/b ("), "%s", then);
	other_kill(second);
	writer_free(must_claim(&mounted, &info, false));
	mounted_free(&mounted);
}

Test(writer, of_one_mount_is_not_refused_for_its_own_shared_claim)
{
	struct mounted mounted = mounted_new("/mnt/a");
	struct lun_info info = strong(0);
	struct writer *shared = must_claim(&mounted, &info, true);
	struct writer *plain = must_claim(&mounted, &info, false);

	cr_assert_neq(shared, plain);
	writer_free(shared);
	must_be_held(&info);
	writer_free(plain);
	must_be_free(&info);
	mounted_free(&mounted);
}

static void quit(void *data)
{
	loop_quit(data);
}

/* There are 16 names: the 17th waits for one, and asks again every second. */
Test(writer, that_is_shared_takes_a_name_over_when_one_is_free)
{
	struct lun_info info = strong(0);
	struct mounted mounted[17];
	struct writer *writers[17];

	for (int i = 0; i < 17; i++) {
		mounted[i] = mounted_new("/mnt/a");
		writers[i] = must_claim(&mounted[i], &info, true);
	}
	for (int i = 0; i < 16; i++)
		writer_free(writers[i]);
	must_be_free(&info);
	GSource *timer = loop_timer(mounted[16].loop, 1500, quit, mounted[16].loop);
	loop_run(mounted[16].loop);
	loop_remove(&timer);
	must_be_held(&info);
	writer_free(writers[16]);
	must_be_free(&info);
	for (int i = 17; i-- > 0;)
		mounted_free(&mounted[i]);
}

/* ---- those who do not answer, or harm ---- */

Test(writer, is_told_process_and_user_of_a_mount_that_was_stopped)
{
	struct lun_info info = strong(0);
	pid_t other = other_mount("/mnt/a", &info, 1, false);
	struct mounted mounted = mounted_new("/mnt/b");
	g_autofree char *expected = g_strdup_printf(
	    "another process (pid %d, user %s), which does not say more", other, g_get_user_name());

	kill(other, SIGSTOP);
	int64_t began_ms = clock_ms();
	g_autofree char *who = must_refuse(&mounted, &info);
	cr_assert_lt(clock_ms() - began_ms, (int64_t)patience(5) * 1000);
	cr_assert_str_eq(who, expected);
	mounted_free(&mounted);
	other_kill(other);
}

/* 200 ms for each of 60 would be 12 s, in which the loop does nothing else. */
Test(writer, does_not_wait_long_for_a_stopped_mount_that_has_many_luns)
{
	struct lun_info infos[60];
	for (uint16_t i = 0; i < 60; i++)
		infos[i] = strong(i);
	pid_t other = other_mount("/mnt/a", infos, 60, false);
	struct mounted mounted = mounted_new("/mnt/b");

	kill(other, SIGSTOP);
	int64_t began_ms = clock_ms();
	for (int i = 0; i < 60; i++)
		g_free(must_refuse(&mounted, &infos[i]));
	cr_assert_lt(clock_ms() - began_ms, 6000);
	mounted_free(&mounted);
	other_kill(other);
}

/* The name of a LUN's socket, bound. */
static int squat(const struct lun_info *info)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	g_autoptr(GString) identity = g_string_new(info->wwid);
	g_string_append_c(identity, '\0');
	g_string_append(identity, info->serial);
	g_autofree char *hash = g_compute_checksum_for_data(
	    G_CHECKSUM_SHA256, (const guchar *)identity->str, identity->len);
	int length =
	    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "lunfs/writer/%s", hash);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(fd, (struct sockaddr *)&address,
	                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)),
	    0);
	return fd;
}

/* What is told of a process that says this and then goes on saying it. */
static char *told_by(const char *word, size_t size, bool endless)
{
	struct lun_info info = strong(0);
	int fd = squat(&info), ready;

	cr_assert_eq(listen(fd, 1), 0);
	pid_t other = other_start(&ready);
	if (other == 0) {
		signal(SIGPIPE, SIG_IGN);
		int peer = accept(fd, NULL, NULL);
		while (send(peer, word, size, 0) > 0 && endless)
			;
		_exit(0);
	}
	struct mounted mounted = mounted_new("/mnt/b");
	int64_t began_ms = clock_ms();
	char *who = must_refuse(&mounted, &info);
	cr_assert_lt(clock_ms() - began_ms, 5000);
	mounted_free(&mounted);
	close(fd);
	close(ready);
	other_kill(other);
	return who;
}

Test(writer, lets_no_control_sequence_of_another_process_through)
{
	static const char word[] = "/mnt/\033[2J\r\a\xc2\x9b\u202e\xff (pid 1)\tlun\0.img\n";
	g_autofree char *who = told_by(word, sizeof word - 1, false);

	cr_assert(g_utf8_validate(who, -1, NULL));
	for (const char *p = who; *p; p = g_utf8_next_char(p))
		cr_assert(g_unichar_isprint(g_utf8_get_char(p)), "%s", who);
	cr_assert(g_str_has_prefix(who, "the lunfs mount on /mnt/?[2J????"), "%s", who);
	g_autofree char *end =
	    g_strdup_printf(" (pid %d, user %s), as lun", getpid(), g_get_user_name());
	cr_assert(g_str_has_suffix(who, end), "%s", who);
}

Test(writer, cuts_a_long_story_short)
{
	g_autofree char *word = g_strnfill(5000, 'x');
	word[4999] = '\n';
	g_autofree char *who = told_by(word, 5000, false);

	cr_assert_lt(strlen(who), 500);
	cr_assert_not_null(strstr(who, "xxx... (pid "));
}

Test(writer, hears_no_endless_story)
{
	g_autofree char *word = g_strnfill(5000, 'x');
	g_autofree char *who = told_by(word, 5000, true);

	cr_assert_not_null(strstr(who, ", which does not say more"), "%s", who);
}

Test(writer, is_refused_by_who_has_bound_the_name_and_does_not_listen)
{
	struct lun_info info = strong(0);
	int fd = squat(&info);
	struct mounted mounted = mounted_new("/mnt/b");
	g_autofree char *who = must_refuse(&mounted, &info);

	cr_assert_str_eq(who, "another process, which does not answer");
	close(fd);
	writer_free(must_claim(&mounted, &info, false));
	mounted_free(&mounted);
}

Test(writer, does_not_hang_on_who_listens_and_takes_no_connection)
{
	struct lun_info info = strong(0);
	int fd = squat(&info);
	struct mounted mounted = mounted_new("/mnt/b");

	cr_assert_eq(listen(fd, 0), 0);
	int64_t began_ms = clock_ms();
	/* the second finds the backlog full */
	for (int i = 0; i < 3; i++)
		g_free(must_refuse(&mounted, &info));
	cr_assert_lt(clock_ms() - began_ms, 5000);
	close(fd);
	mounted_free(&mounted);
}
