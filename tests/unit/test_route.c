/*
 * test_route.c - where a session logs in next, by what came of the logins before.
 */
#include "../../src/iscsi/route.h"
#include "lunfs/loop.h"
#include "lunfs/portal.h"

#include <criterion/criterion.h>

TestSuite(route, .timeout = 10);

#define UNREACHABLE                                                                                \
	(struct dial_result)                                                                       \
	{                                                                                          \
		.status = -1                                                                       \
	}

static struct dial_result refused(int status)
{
	return (struct dial_result){.status = status, .refused = status >> 8 == 2};
}

/* A connection that is never looked at. */
static struct dial_result stands(const struct portal *moved)
{
	return (struct dial_result){.connection = (struct connection *)&stands, .moved = moved};
}

struct bench {
	GPtrArray *portals;
	struct route *route;
};

/* Portals "a", "b", ... */
static struct bench bench_new(unsigned portals)
{
	struct bench bench = {.portals = portals_new()};

	for (unsigned i = 0; i < portals; i++)
		portals_add(bench.portals, (const char[]){(char)('a' + i), '\0'}, 3260);
	bench.route = route_new(bench.portals);
	return bench;
}

static void bench_free(struct bench *bench)
{
	route_free(bench->route);
	g_ptr_array_unref(bench->portals);
}

/* A login there, which ends like that. */
static void visit(
    struct bench *bench, const char *host, const struct dial_result *result, bool first)
{
	const struct portal *portal = route_next(bench->route);

	cr_assert(portal != NULL, "the round is over before %s", host);
	cr_assert_str_eq(portal->host, host);
	route_note(bench->route, result, first);
}

static void must_be_over(struct bench *bench)
{
	cr_assert_null(route_next(bench->route));
}

/* The next round would find nobody for so long. */
static void must_pause(const struct bench *bench, int64_t ms)
{
	int64_t due = route_due_ms(bench->route) - clock_ms();

	cr_assert(due <= ms && due > ms - 900, "%d ms, not %d", (int)due, (int)ms);
}

Test(route, a_round_visits_each_portal_once_from_the_last_one_used_on)
{
	struct bench bench = bench_new(3);
	struct dial_result away = UNREACHABLE, up = stands(NULL);

	visit(&bench, "a", &away, false);
	visit(&bench, "b", &up, false);
	route_begin_round(bench.route);
	visit(&bench, "b", &away, false);
	visit(&bench, "c", &away, false);
	visit(&bench, "a", &away, false);
	must_be_over(&bench);
	cr_assert_leq(route_due_ms(bench.route), clock_ms());
	route_begin_round(bench.route);
	visit(&bench, "b", &up, false);
	bench_free(&bench);
}

Test(route, a_first_login_goes_again_only_to_who_puts_it_off)
{
	struct bench bench = bench_new(3);
	struct dial_result away = UNREACHABLE, no = refused(0x0203), later = refused(0x0301);

	visit(&bench, "a", &away, true);
	visit(&bench, "b", &later, true);
	visit(&bench, "c", &no, true);
	must_be_over(&bench);
	cr_assert_leq(route_due_ms(bench.route), clock_ms());
	route_begin_round(bench.route);
	visit(&bench, "b", &no, true);
	must_be_over(&bench);
	cr_assert_eq(route_due_ms(bench.route), INT64_MAX);
	bench_free(&bench);
}

Test(route, who_failed_in_the_first_login_is_there_when_the_session_is_lost)
{
	struct bench bench = bench_new(3);
	struct dial_result away = UNREACHABLE, no = refused(0x0203), up = stands(NULL);

	visit(&bench, "a", &away, true);
	visit(&bench, "b", &no, true);
	visit(&bench, "c", &up, true);
	route_begin_round(bench.route);
	visit(&bench, "c", &away, false);
	visit(&bench, "a", &away, false);
	visit(&bench, "b", &up, false);
	bench_free(&bench);
}

Test(route, a_portal_that_refuses_is_left_alone_for_longer_each_time)
{
	struct bench bench = bench_new(1);
	struct dial_result no = refused(0x0202), up = stands(NULL);
	static const int64_t pauses[] = {
	    1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000, 60000, 60000, 60000, 60000};

	for (unsigned i = 0; i < G_N_ELEMENTS(pauses); i++) {
		route_next(bench.route);
		route_note(bench.route, &no, false);
		must_pause(&bench, pauses[i]);
	}
	route_begin_round(bench.route);
	must_be_over(&bench);
	/* it did not know us for a moment */
	route_note(bench.route, &up, false);
	route_begin_round(bench.route);
	visit(&bench, "a", &no, false);
	must_pause(&bench, 1000);
	bench_free(&bench);
}

Test(route, a_portal_that_refuses_does_not_keep_us_from_another)
{
	struct bench bench = bench_new(2);
	struct dial_result no = refused(0x0201), away = UNREACHABLE;

	visit(&bench, "a", &no, false);
	for (unsigned i = 0; i < 3; i++) {
		visit(&bench, "b", &away, false);
		must_be_over(&bench);
		route_begin_round(bench.route);
	}
	bench_free(&bench);
}

Test(route, what_a_starting_target_says_makes_no_pause)
{
	static const int statuses[] = {0x0203, 0x0204, 0x0206, 0x0300, 0x0301, 0x0302, 0x0101};
	struct bench bench = bench_new(1);

	for (unsigned i = 0; i < G_N_ELEMENTS(statuses); i++) {
		struct dial_result result = refused(statuses[i]);

		visit(&bench, "a", &result, false);
		must_be_over(&bench);
		route_begin_round(bench.route);
	}
	bench_free(&bench);
}

Test(route, where_the_target_has_moved_for_good_comes_first)
{
	struct portal elsewhere = {(char *)"elsewhere", 3261};
	struct bench bench = bench_new(2);
	struct dial_result moves = stands(&elsewhere), up = stands(NULL), away = UNREACHABLE;
	struct dial_result later = refused(0x0301);

	visit(&bench, "a", &away, false);
	visit(&bench, "b", &moves, false);
	for (unsigned i = 0; i < 3; i++) {
		route_begin_round(bench.route);
		visit(&bench, "elsewhere", &up, false);
	}
	/* it is there, only busy */
	route_begin_round(bench.route);
	visit(&bench, "elsewhere", &later, false);
	must_be_over(&bench);
	/* it is not there any more */
	route_begin_round(bench.route);
	visit(&bench, "elsewhere", &away, false);
	visit(&bench, "b", &away, false);
	visit(&bench, "a", &up, false);
	route_begin_round(bench.route);
	visit(&bench, "a", &up, false);
	bench_free(&bench);
}

Test(route, a_refusal_where_the_target_has_moved_to_counts_for_who_sent_us_there)
{
	struct portal elsewhere = {(char *)"elsewhere", 3261};
	struct bench bench = bench_new(1);
	struct dial_result moves = stands(&elsewhere), no = refused(0x0202);
	struct dial_result sent_to_no = {.status = 0x0202, .refused = true, .moved = &elsewhere};

	visit(&bench, "a", &moves, false);
	route_begin_round(bench.route);
	visit(&bench, "elsewhere", &no, false);
	must_be_over(&bench);
	must_pause(&bench, 1000);
	bench_free(&bench);

	bench = bench_new(1);
	visit(&bench, "a", &sent_to_no, false);
	must_pause(&bench, 1000);
	bench_free(&bench);
}
