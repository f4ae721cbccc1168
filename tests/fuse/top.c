/*
 * top.c - 'lunfs top' on a terminal: what it shows, what keys do, and that the terminal is given
 * back whatever happens.
 */
#include "support/data.h"
#include "support/script_scene.h"
#include "support/tty.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

TestSuite(top_terminal, .timeout = 120);

/* What stands on the first screen when it has ended, behind the exit status. */
#define ENDED "ended with "

static struct scene mounted(unsigned luns)
{
	struct scene scene = {.stage = stage_new(), .script = script_target_start(SCENE_IQN)};

	for (unsigned i = 1; i <= luns; i++)
		script_target_add_lun(scene.script, i, MIB(1), 512);
	scene_mount(&scene, "cache=none");
	return scene;
}

/* The shell is out of the way of the keys' signals. */
static struct tty *start(const struct scene *scene, unsigned lines, unsigned columns)
{
	struct tty *tty = tty_start(scene->stage, lines, columns,
	    "trap : INT QUIT; %s top %s; echo '" ENDED "'$?; sleep 1000", scene->stage->lunfs,
	    scene->mnt);

	tty_must_show(tty, "q quit");
	return tty;
}

static void must_end(struct tty *tty, int status)
{
	tty_must_show(tty, ENDED);
	tty_must_show(tty, text(tty->stage, ENDED "%d\n", status));
	tty_must_be_as_before(tty);
	tty_end(tty);
}

/* ---- what it shows ---- */

static void shows_it_all(unsigned lines, unsigned columns)
{
	struct scene scene = mounted(2);
	struct tty *tty = start(&scene, lines, columns);
	struct termios now;

	tty_must_show(tty, "  1 target, 2 LUNs  ");
	tty_must_show(tty, "\n" SCENE_IQN "  ready at 127.0.0.1:");
	tty_must_show(tty, "\n  lun1.img   ");
	cr_assert(g_str_has_prefix(tty_line(tty, 0), "lunfs top "));
	cr_assert(g_str_has_prefix(tty_line(tty, 2), "FILE  "));
	cr_assert(g_str_has_prefix(tty_line(tty, lines - 1), "q quit "));
	cr_assert(tty->alternate && !tty->cursor && !tty->wraps);
	cr_assert_eq(tcgetattr(tty->fd, &now), 0);
	cr_assert_eq(now.c_lflag & (ICANON | ECHO), 0);
	tty_type(tty, "q");
	must_end(tty, 0);
	scene_end(&scene);
}

Test(top_terminal, shows_it_all_at_80x24_and_q_gives_the_terminal_back)
{
	shows_it_all(24, 80);
}

Test(top_terminal, shows_it_all_at_120x40)
{
	shows_it_all(40, 120);
}

static int read_on(void *file)
{
	unsigned char *bytes = aligned_buffer(4096);
	int fd = open(file, O_RDONLY | O_DIRECT);

	for (;;)
		if (pread(fd, bytes, 4096, 0) != 4096)
			return 1;
}

Test(top_terminal, shows_the_rate_and_the_latency_of_what_is_read)
{
	struct scene scene = mounted(2);
	struct tty *tty = start(&scene, 24, 80);

	tty_must_show(tty, "lun2.img            0      0");
	script_target_rule(
	    scene.script, (struct script_rule){.opcode = SCRIPT_READ, .answer_delay_ms = 100});
	pid_t reader = call_start(0, read_on, scene.file);
	tty_must_not_show(tty, "\n  lun1.img            0      0");
	tty_must_show(tty, "ms"); /* p50 */
	tty_must_show(tty, "▇");
	tty_must_show(tty, "lun2.img            0      0");
	kill(reader, SIGKILL);
	call_end(reader, 5);
	tty_type(tty, "q");
	must_end(tty, 0);
	scene_end(&scene);
}

Test(top_terminal, follows_the_terminals_size)
{
	struct scene scene = mounted(30);
	struct tty *tty = start(&scene, 24, 80);

	tty_must_show(tty, "1-20 of 31");
	tty_resize(tty, 40, 120);
	tty_must_show(tty, "1-31 of 31");
	cr_assert(g_str_has_prefix(tty_line(tty, 39), "q quit "));
	tty_resize(tty, 10, 60);
	tty_must_show(tty, "1-6 of 31");
	cr_assert(g_str_has_prefix(tty_line(tty, 9), "q quit "));
	tty_type(tty, "q");
	must_end(tty, 0);
	scene_end(&scene);
}

Test(top_terminal, scrolls_and_sorts)
{
	struct scene scene = mounted(100);
	struct tty *tty = start(&scene, 24, 80);

	tty_must_show(tty, "1-20 of 101");
	tty_type(tty, "jj\033[B");
	tty_must_show(tty, "4-23 of 101");
	tty_type(tty, "\033[6~");
	tty_must_show(tty, "24-43 of 101");
	tty_must_show(tty, "lun42.img");
	tty_type(tty, "k\033[5~\033[A");
	tty_must_show(tty, "2-21 of 101");
	tty_type(tty, "G");
	tty_must_show(tty, "82-101 of 101");
	tty_must_show(tty, "lun100.img");
	tty_type(tty, "g");
	tty_must_show(tty, "1-20 of 101");
	pid_t reader = call_start(0, read_on, text(scene.stage, "%s/lun77.img", scene.mnt));
	tty_type(tty, "s");
	tty_must_show(tty, "q quit   s by target");
	double end = seconds_now() + 10;
	while (!strstr(tty_line(tty, 3), "/lun77.img") && seconds_now() < end)
		tty_screen(tty);
	cr_assert(strstr(tty_line(tty, 3), "/lun77.img"), "%s", tty_screen(tty));
	kill(reader, SIGKILL);
	call_end(reader, 5);
	tty_type(tty, "q");
	must_end(tty, 0);
	scene_end(&scene);
}

Test(top_terminal, works_while_the_target_is_dead_and_for_a_file)
{
	struct scene scene = scene_of_script(MIB(1));
	char *file = text(scene.stage, "%s/disk.img", scene.stage->dir);

	must(scene.stage, "touch %s", file);
	must_lunfs(scene.stage, "mount iscsi://127.0.0.1:%u/" SCENE_IQN "/1 %s",
	    script_target_port(scene.script), file);
	scene.mnt = file;
	struct tty *tty = start(&scene, 24, 80);
	tty_must_show(tty, "1 target, 1 LUN  ");
	script_target_listen(scene.script, false);
	script_target_drop(scene.script, SCRIPT_RST);
	tty_must_show(tty, "1 target, 1 NOT READY, 1 LUN  ");
	tty_must_show(tty, "\n" SCENE_IQN "  NOT READY: ");
	tty_must_show(tty, " refused the connection");
	script_target_listen(scene.script, true);
	tty_must_show(tty, "\n" SCENE_IQN "  ready at ");
	tty_type(tty, "q");
	must_end(tty, 0);
	must_umount(scene.stage, file);
	script_target_stop(scene.script);
}

/* ---- ends ---- */

Test(top_terminal, says_so_when_the_mount_goes_away)
{
	struct scene scene = mounted(1);
	struct tty *tty = start(&scene, 24, 80);

	scene_end(&scene);
	tty_must_show(tty, text(scene.stage, "lunfs: %s: is not mounted any more", scene.mnt));
	must_end(tty, 1);
}

Test(top_terminal, of_all_mounts_the_last_to_go_ends_it)
{
	struct scene scene = mounted(1);
	char *other = stage_directory(scene.stage, "other", 0);

	must_lunfs(scene.stage, "mount iscsi://127.0.0.1:%u/" SCENE_IQN " %s -o shared",
	    script_target_port(scene.script), other);
	struct tty *tty = tty_start(
	    scene.stage, 24, 80, "%s top; echo '" ENDED "'$?; sleep 1000", scene.stage->lunfs);
	tty_must_show(tty, "2 targets, 2 LUNs  2 mounts");
	tty_must_show(tty, text(scene.stage, "\n%s\n", other));
	must_umount(scene.stage, other);
	tty_must_show(tty, text(scene.stage, "\n%s: is not mounted any more", other));
	tty_must_show(tty, "1 target, 1 LUN  2 mounts");
	scene_end(&scene);
	must_end(tty, 1);
}

Test(top_terminal, wants_a_terminal_and_a_mount)
{
	struct scene scene = mounted(1);
	struct result *result = lunfs(scene.stage, "top %s", scene.mnt);

	cr_assert_eq(result->status, 1);
	cr_assert_str_eq(
	    result->err, "lunfs: top needs a terminal; 'lunfs status' tells the same once\n");
	cr_assert_str_eq(result->out, "");
	struct tty *tty = tty_start(scene.stage, 24, 80,
	    "%s top /proc; echo '" ENDED "'$?; sleep 1000", scene.stage->lunfs);
	tty_must_show(tty, "lunfs: /proc: no lunfs is mounted there");
	must_end(tty, 1);
	cr_assert_eq(lunfs(scene.stage, "top --json")->status, 2);
	scene_end(&scene);
}

/* A signal to the first process, or to the one that draws. */
static void ends_by_signal(int signal, bool drawer, int status)
{
	struct scene scene = mounted(1);
	struct tty *tty = start(&scene, 24, 80);
	pid_t first = tty_child_of(tty->shell), second = tty_child_of(first);

	kill(drawer ? second : first, signal);
	must_end(tty, status);
	cr_assert(kill(second, 0) != 0, "it still draws");
	scene_end(&scene);
}

Test(top_terminal, a_signal_gives_the_terminal_back)
{
	static const int signals[] = {SIGTERM, SIGHUP, SIGQUIT};

	for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++) {
		ends_by_signal(signals[i], false, 128 + signals[i]);
		ends_by_signal(signals[i], true, 128 + signals[i]);
	}
}

Test(top_terminal, who_is_killed_while_drawing_leaves_the_terminal_as_it_was)
{
	ends_by_signal(SIGKILL, true, 128 + SIGKILL);
	ends_by_signal(SIGABRT, true, 128 + SIGABRT);
#ifndef __SANITIZE_ADDRESS__ /* which takes it for a fault, and reports it */
	ends_by_signal(SIGSEGV, true, 128 + SIGSEGV);
#endif
}

static bool is_gone(void *pid)
{
	return kill(*(pid_t *)pid, 0) != 0;
}

static bool is_given_back(void *data)
{
	struct tty *tty = data;

	tty_screen(tty);
	return !tty->alternate && tty->cursor;
}

Test(top_terminal, the_drawer_ends_with_its_parent_and_gives_the_terminal_back)
{
	struct scene scene = mounted(1);
	struct tty *tty = start(&scene, 24, 80);
	pid_t first = tty_child_of(tty->shell), second = tty_child_of(first);

	kill(first, SIGKILL);
	cr_assert(await(10, is_given_back, tty));
	cr_assert(await(10, is_gone, &second));
	tty_must_be_as_before(tty);
	tty_end(tty);
	scene_end(&scene);
}

Test(top_terminal, control_c_ends_it)
{
	struct scene scene = mounted(1);
	struct tty *tty = start(&scene, 24, 80);

	tty_type(tty, "\003");
	must_end(tty, 0);
	scene_end(&scene);
}

Test(top_terminal, a_closed_pipe_does_not_end_it)
{
	struct scene scene = mounted(1);
	struct tty *tty = start(&scene, 24, 80);
	pid_t first = tty_child_of(tty->shell), second = tty_child_of(first);

	kill(first, SIGPIPE);
	kill(second, SIGPIPE);
	tty_resize(tty, 30, 90);
	tty_must_show(tty, "q quit");
	tty_type(tty, "q");
	must_end(tty, 0);
	scene_end(&scene);
}

/* By the key, by a signal to either process, or by one that none can catch. */
static void stops_and_goes_on(int signal, bool drawer)
{
	struct scene scene = mounted(1);
	struct tty *tty = tty_start(scene.stage, 24, 80,
	    "set -m; %s top %s; echo stopped; read x; echo on; fg >/dev/null; echo '" ENDED
	    "'$?; sleep 1000",
	    scene.stage->lunfs, scene.mnt);

	tty_must_show(tty, "q quit");
	pid_t first = tty_child_of(tty->shell), second = tty_child_of(first);
	if (signal == 0)
		tty_type(tty, "\032");
	else
		kill(drawer ? second : first, signal);
	tty_must_show(tty, "stopped");
	tty_must_be_as_before(tty);
	tty_type(tty, "\n");
	tty_must_show(tty, "q quit");
	cr_assert(tty->alternate && !tty->cursor);
	tty_type(tty, "q");
	must_end(tty, 0);
	scene_end(&scene);
}

Test(top_terminal, stops_with_the_terminal_as_it_was_and_goes_on)
{
	stops_and_goes_on(0, false);
	stops_and_goes_on(SIGTSTP, false);
	stops_and_goes_on(SIGTSTP, true);
	stops_and_goes_on(SIGSTOP, true);
}
