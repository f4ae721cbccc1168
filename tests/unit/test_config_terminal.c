/*
 * test_config_terminal.c - what is typed: without echo, and the terminal is as before whatever
 * happens.
 *
 * A pseudo terminal stands for the person's; a child asks on it.
 */
#include "config_home.h"

#include "../../src/config/terminal.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>

#define SECRET "s3cr3t-of-joe"

/* A person's terminal, and what stood on it. */
struct person {
	int fd;
	pid_t child;
	GString *seen;
};

/* 0 where what is typed is wanted. */
static int ask(void)
{
	char *answer = terminal_ask("Secret: ", false);
	int status = answer == NULL ? 2 : strcmp(answer, SECRET) == 0 ? 0 : 1;

	g_free(answer);
	return status;
}

static struct person person_new(int (*run)(void))
{
	struct person person = {.seen = g_string_new(NULL)};

	person.child = forkpty(&person.fd, NULL, NULL, NULL);
	cr_assert(person.child >= 0);
	if (person.child == 0) {
		alarm(20);
		_exit(run());
	}
	return person;
}

static void person_waits_for(struct person *person, const char *text)
{
	struct pollfd polled = {.fd = person->fd, .events = POLLIN};
	char bytes[256];
	ssize_t got;

	while (!strstr(person->seen->str, text)) {
		cr_assert_eq(
		    poll(&polled, 1, 10000), 1, "'%s' lacks '%s'", person->seen->str, text);
		got = read(person->fd, bytes, sizeof bytes);
		cr_assert(got > 0, "'%s' lacks '%s'", person->seen->str, text);
		g_string_append_len(person->seen, bytes, got);
	}
}

static void person_types(struct person *person, const char *text)
{
	cr_assert_eq(write(person->fd, text, strlen(text)), (ssize_t)strlen(text));
}

static bool person_sees_typing(const struct person *person)
{
	struct termios termios;

	cr_assert_eq(tcgetattr(person->fd, &termios), 0);
	return termios.c_lflag & ECHO;
}

/* The child's wait status. */
static int person_free(struct person *person)
{
	int status;

	cr_assert_eq(waitpid(person->child, &status, 0), person->child);
	cr_expect(person_sees_typing(person), "the echo is back");
	cr_expect_null(strstr(person->seen->str, "s3cr3t"), "shown: %s", person->seen->str);
	close(person->fd);
	g_string_free(person->seen, TRUE);
	return status;
}

Test(config_terminal, a_secret_is_asked_for_without_echo)
{
	struct person person = person_new(ask);
	person_waits_for(&person, "Secret: ");
	cr_expect_not(person_sees_typing(&person));
	person_types(&person, SECRET "\n");
	person_waits_for(&person, "\n");
	cr_expect_eq(person_free(&person), W_EXITCODE(0, 0));
}

Test(config_terminal, an_empty_answer_and_an_end_are_none)
{
	struct person person = person_new(ask);
	person_waits_for(&person, "Secret: ");
	person_types(&person, "\n");
	cr_expect_eq(person_free(&person), W_EXITCODE(2, 0));
	person = person_new(ask);
	person_waits_for(&person, "Secret: ");
	person_types(&person, "\004");
	cr_expect_eq(person_free(&person), W_EXITCODE(2, 0));
}

Test(config_terminal, more_than_255_bytes_are_none)
{
	g_autofree char *text = g_strnfill(256, 'x');
	struct person person = person_new(ask);
	person_waits_for(&person, "Secret: ");
	person_types(&person, text);
	person_types(&person, "\n");
	cr_expect_eq(person_free(&person), W_EXITCODE(2, 0));
}

Test(config_terminal, a_signal_ends_us_with_the_echo_on)
{
	struct person person = person_new(ask);
	person_waits_for(&person, "Secret: ");
	person_types(&person, "s3c\003");
	cr_expect_eq(person_free(&person), W_EXITCODE(0, SIGINT));
	person = person_new(ask);
	person_waits_for(&person, "Secret: ");
	kill(person.child, SIGTERM);
	cr_expect_eq(person_free(&person), W_EXITCODE(0, SIGTERM));
}

Test(config_terminal, stopped_and_continued_it_asks_again)
{
	struct person person = person_new(ask);
	int status;
	person_waits_for(&person, "Secret: ");
	/* An orphaned group is not stopped by ^Z, so by what nobody can hold back or ignore. */
	kill(person.child, SIGSTOP);
	cr_assert_eq(waitpid(person.child, &status, WUNTRACED), person.child);
	kill(person.child, SIGCONT);
	kill(person.child, SIGTSTP);
	g_string_truncate(person.seen, 0);
	person_waits_for(&person, "Secret: ");
	cr_expect_not(person_sees_typing(&person));
	person_types(&person, SECRET "\n");
	cr_expect_eq(person_free(&person), W_EXITCODE(0, 0));
}

/* ---- as the plan asks ---- */

/* Asked for what the section lacks; 0 if it is there then. */
static int plan_with_ask(void)
{
	struct plan *plan = plan_make("nas", NULL, NULL, true, NULL);
	struct plan *again = plan ? plan_again(plan, NULL) : NULL;
	const struct target_plan *target = again ? g_ptr_array_index(again->targets, 0) : NULL;
	int status = !target ? 2 : g_strcmp0(target->credentials->password, SECRET) != 0;

	plan_free(plan);
	plan_free(again);
	return status;
}

Test(config_terminal, a_missing_secret_is_asked_for_and_kept_for_a_reload)
{
	struct home *home = home_new();
	home_conf(home, "[target nas]\nportal=h\niqn=" IQN "\nusername=joe\n");
	struct person person = person_new(plan_with_ask);
	person_waits_for(&person, "username 'joe' for nas: ");
	person_types(&person, SECRET "\n");
	cr_expect_eq(person_free(&person), W_EXITCODE(0, 0));
	home_free(home);
}

static int ask_refused(void)
{
	struct plan *plan = plan_make("nas", NULL, NULL, true, NULL);
	struct target_plan *target = plan ? g_ptr_array_index(plan->targets, 0) : NULL;
	bool asked = target && plan_ask_credentials(target);
	int status = !asked || strcmp(target->credentials->username, "jim") != 0 ||
	             strcmp(target->credentials->password, SECRET) != 0;

	plan_free(plan);
	return status;
}

Test(config_terminal, a_refused_login_asks_for_user_and_secret)
{
	struct home *home = home_new();
	home_conf(home, "[target nas]\nportal=h\niqn=" IQN "\n");
	struct person person = person_new(ask_refused);
	person_waits_for(&person, "CHAP user for nas: ");
	cr_expect(person_sees_typing(&person), "a name is no secret");
	person_types(&person, "jim\n");
	person_waits_for(&person, "CHAP secret of 'jim' for nas: ");
	person_types(&person, SECRET "\n");
	cr_expect_eq(person_free(&person), W_EXITCODE(0, 0));
	home_free(home);
}

Test(config_terminal, without_a_terminal_nothing_is_asked)
{
	struct home *home = home_new();
	g_autoptr(GError) error = NULL;
	home_conf(home, "[target nas]\nportal=h\niqn=" IQN "\nusername=joe\n");
	cr_assert_not_null(freopen("/dev/null", "r", stdin));
	cr_assert_null(plan_make("nas", NULL, NULL, true, &error));
	cr_expect(strstr(error->message, "'joe' has no secret"), "%s", error->message);
	home_free(home);
}
