/*
 * test_isid.c - which ISIDs a mount gets.
 *
 * Each test has mountpoints of its own: claims are names that all tests of the machine share.
 */
#include "../../src/mount/isid.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/stage.h"

#define TARGET "iqn.2003-01.org.example:disk"

struct pair {
	uint32_t random;
	uint16_t qualifier;
};

static const char *mountpoint(const char *name)
{
	static char path[64];

	snprintf(path, sizeof path, "/mnt/%d/%s", getpid(), name);
	return path;
}

static struct pair pair_of(const struct isid *isid, const char *target)
{
	return (struct pair){isid_random(isid, target), isid_qualifier(isid, target)};
}

/* Of a mount that ends at once. */
static struct pair pair_at(const char *path, const char *target)
{
	struct isid *isid = isid_claim(path);
	struct pair pair = pair_of(isid, target);

	isid_free(isid);
	return pair;
}

static bool same(struct pair a, struct pair b)
{
	return a.random == b.random && a.qualifier == b.qualifier;
}

Test(isid, is_the_same_for_the_same_mountpoint_and_target)
{
	const char *path = mountpoint("a");
	struct pair pair = pair_at(path, TARGET);

	cr_assert(same(pair, pair_at(path, TARGET)));
	cr_assert_lt(pair.random, 1u << 24);
	cr_assert_neq(pair.random, 0);
	cr_assert_neq(pair.qualifier, 0);
}

Test(isid, is_another_for_another_mountpoint_or_target)
{
	g_autofree char *path = g_strdup(mountpoint("a"));
	struct pair pair = pair_at(path, TARGET);
	struct pair elsewhere = pair_at(mountpoint("b"), TARGET), other = pair_at(path, TARGET "2");

	cr_assert_neq(pair.random, elsewhere.random);
	cr_assert_neq(pair.qualifier, elsewhere.qualifier);
	cr_assert_neq(pair.random, other.random);
	cr_assert_neq(pair.qualifier, other.qualifier);
}

Test(isid, is_another_for_another_user)
{
	if (getuid() != 0)
		cr_skip("needs root");
	const char *path = mountpoint("a");
	struct pair pair = pair_at(path, TARGET);

	cr_assert_eq(setuid(ORDINARY_USER), 0);
	cr_assert_not(same(pair, pair_at(path, TARGET)));
}

/* In the place of /etc/machine-id, for this test's process alone. */
static void machine_id_set(struct stage *stage, const char *id)
{
	static bool over;
	char *path = text(stage, "%s/machine-id", stage->dir);

	cr_assert(g_file_set_contents(path, id, -1, NULL));
	if (over)
		cr_assert_eq(umount("/etc/machine-id"), 0);
	if (!g_file_test("/etc/machine-id", G_FILE_TEST_EXISTS))
		cr_skip("this machine has no /etc/machine-id to hide");
	cr_assert_eq(mount(path, "/etc/machine-id", NULL, MS_BIND, NULL), 0);
	over = true;
}

Test(isid, is_another_on_another_machine_and_of_the_host_name_where_there_is_no_id)
{
	static struct stage *stage;
	const char *path = mountpoint("a");

	stage = stage_new();
	machine_id_set(stage, "0123456789abcdef0123456789abcdef\n");
	struct pair one = pair_at(path, TARGET);
	machine_id_set(stage, "0123456789abcdef0123456789abcdee\n");
	struct pair two = pair_at(path, TARGET);
	machine_id_set(stage, "uninitialized\n");
	struct pair early = pair_at(path, TARGET);
	machine_id_set(stage, "");
	struct pair none = pair_at(path, TARGET);

	cr_assert_not(same(one, two));
	cr_assert_not(same(one, early));
	cr_assert(same(early, none));
}

Test(isid, is_random_while_another_process_has_it_and_the_same_again_once_that_was_killed)
{
	const char *path = mountpoint("a");
	struct pair usual = pair_at(path, TARGET);
	int ready[2];

	cr_assert_eq(pipe(ready), 0);
	pid_t holder = fork();
	if (holder == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		struct isid *isid = isid_claim(path);
		bool right = same(usual, pair_of(isid, TARGET));

		if (write(ready[1], right ? "+" : "-", 1) == 1)
			pause();
		_exit(0);
	}
	char word = 0;
	cr_assert_eq(read(ready[0], &word, 1), 1);
	cr_assert_eq(word, '+');

	struct isid *second = isid_claim(path), *third = isid_claim(path);
	cr_assert_not(same(usual, pair_of(second, TARGET)));
	cr_assert_not(same(pair_of(third, TARGET), pair_of(second, TARGET)));
	/* random, but it stays for the mount's life */
	cr_assert(same(pair_of(second, TARGET), pair_of(second, TARGET)));
	isid_free(second);
	isid_free(third);

	kill(holder, SIGKILL);
	cr_assert_eq(waitpid(holder, NULL, 0), holder);
	cr_assert(same(usual, pair_at(path, TARGET)));
}
