/*
 * test_nexus.c - the way to a logical unit: what waits, what is sent again, what ends, and in what
 * order. (When: test_nexus_clock.c.)
 */
#include "support/nexus_bench.h"
#include "support/seed.h"

/* ---- here and away ---- */

Test(nexus, passes_commands_through_while_it_is_open)
{
	struct bench bench;
	struct order orders[3];

	bench_open(&bench, HOUR_MS);
	cr_expect_eq(nexus_port(bench.nexus)->write_burst, 262144);
	cr_expect_eq(nexus_port(bench.nexus)->read_burst, 8192);
	cr_expect_eq(nexus_port(bench.nexus)->command_timeout_ms, 30000);
	bench_submit(&bench, orders, "RWR");
	expect_sent(&bench, "0 1 2");
	orders[2].command.status = SAM_BUSY;
	order_return(&orders[2], 0, false);
	cr_expect_eq(orders[2].command.status, SAM_BUSY, "an answer is an answer");
	bench_answer_all(&bench);
	expect_ended(&bench, "2 0 1");
	cr_expect_eq(nexus_away_ms(bench.nexus), 0);
	cr_expect_eq(nexus_resent(bench.nexus), 0);
	bench_close(&bench);
}

Test(nexus, commands_wait_while_it_is_away_and_go_in_order)
{
	struct bench bench;
	struct order orders[5];

	bench_open(&bench, HOUR_MS);
	bench_lose(&bench);
	bench_submit(&bench, orders, "RWWRW");
	bench_settle(&bench);
	cr_expect_eq(bench.sent->len + bench.ended->len, 0);
	cr_expect_eq(nexus_waiting(bench.nexus), 5);
	bench_find(&bench);
	expect_sent(&bench, "0 1 2 3 4");
	cr_expect_eq(nexus_waiting(bench.nexus), 0);
	cr_expect_eq(nexus_resent(bench.nexus), 0, "they were sent for the first time");
	bench_answer_all(&bench);
	for (unsigned i = 0; i < 5; i++)
		cr_expect_eq(orders[i].error, 0);
	bench_close(&bench);
}

Test(nexus, one_that_is_held_lets_what_is_under_way_end_and_keeps_what_comes)
{
	struct bench bench;
	struct order orders[3], later[2];

	bench_open(&bench, HOUR_MS);
	bench_submit(&bench, orders, "RWR");
	nexus_hold(bench.nexus);
	bench_submit(&bench, later, "WR");
	bench_settle(&bench);
	expect_sent(&bench, "0 1 2");
	order_return(&orders[1], 0, false);
	order_return(&orders[0], 0, false);
	order_return(&orders[2], 0, false);
	bench_settle(&bench);
	expect_ended(&bench, "1 0 2");
	cr_expect_eq(nexus_waiting(bench.nexus), 2);
	nexus_open(bench.nexus);
	expect_sent(&bench, "0 1 2 3 4");
	bench_answer_all(&bench);
	for (unsigned i = 0; i < 2; i++)
		cr_expect_eq(later[i].error, 0);
	bench_close(&bench);
}

Test(nexus, tells_for_how_long_it_is_away)
{
	struct bench bench;
	struct order order[1];

	bench_open(&bench, HOUR_MS);
	bench_lose(&bench);
	bench_sleep(&bench, 30);
	cr_expect_geq(nexus_away_ms(bench.nexus), 29);
	bench_find(&bench);
	cr_expect_geq(nexus_away_ms(bench.nexus), 29, "nothing was done yet");
	bench_submit(&bench, order, "R");
	bench_answer_all(&bench);
	cr_expect_eq(nexus_away_ms(bench.nexus), 0);
	bench_close(&bench);
}

Test(nexus, a_loss_that_nobody_told_of_makes_it_wait_and_not_spin)
{
	struct bench bench;
	struct order order[1];

	bench_open(&bench, HOUR_MS);
	bench.dead = true;
	bench_submit(&bench, order, "R");
	bench_settle(&bench);
	cr_expect_eq(bench.sent->len, 1);
	cr_expect_eq(nexus_waiting(bench.nexus), 1);
	cr_expect(bench_sweep(&bench), "it is away, as after any other loss");
	bench_find(&bench);
	bench_answer_all(&bench);
	cr_expect_eq(order->error, 0);
	bench_close(&bench);
}

/* ---- what is sent again ---- */

Test(safety_12, only_what_may_be_replayed_is_sent_again_and_in_order)
{
	struct bench bench;
	struct order orders[6];

	bench_open(&bench, HOUR_MS);
	bench_submit(&bench, orders, "RWRWRR");
	order_return(&orders[4], 0, false);
	bench_forget_what_was_sent(&bench);
	bench_lose(&bench);
	expect_ended(&bench, "4 1 3");
	cr_expect_eq(orders[1].error, -ESTALE);
	cr_expect_eq(orders[3].error, -ESTALE);
	cr_expect_eq(nexus_waiting(bench.nexus), 3);
	bench_settle(&bench);
	cr_expect_eq(bench.sent->len, 0, "not before it is open");
	bench_find(&bench);
	expect_sent(&bench, "0 2 5");
	cr_expect_eq(nexus_resent(bench.nexus), 3);
	bench_answer_all(&bench);
	expect_ended(&bench, "4 1 3 0 2 5");
	cr_expect_eq(orders[0].error | orders[2].error | orders[5].error, 0);
	bench_close(&bench);
}

Test(safety_12, a_write_that_waits_when_it_is_lost_again_comes_back_and_is_not_sent)
{
	struct bench bench;
	struct order orders[4];

	bench_open(&bench, HOUR_MS);
	bench_lose(&bench);
	bench_submit(&bench, orders, "RWRW");
	bench_lose(&bench);       /* it was there, and not yet proved to be the same */
	expect_ended(&bench, ""); /* who is above is to hear of the loss first */
	bench_settle(&bench);
	expect_ended(&bench, "1 3");
	cr_expect_eq(orders[1].error, -ESTALE);
	bench_find(&bench);
	expect_sent(&bench, "0 2");
	bench_answer_all(&bench);
	bench_close(&bench);
}

Test(safety_12, a_loss_while_it_replays_ends_nothing_twice_and_keeps_the_order)
{
	struct bench bench;
	struct order orders[6];

	bench_open(&bench, HOUR_MS);
	bench_submit(&bench, orders, "RRRR");
	bench_lose(&bench);
	bench_submit(&bench, orders + 4, "RW"); /* the ids go on: 4 and 5 */
	bench_find(&bench);
	order_return(&orders[1], 0, false);
	bench_forget_what_was_sent(&bench);
	bench_lose(&bench);
	expect_ended(&bench, "1 5");
	bench_find(&bench);
	expect_sent(&bench, "0 2 3 4");
	bench_lose(&bench);
	bench_forget_what_was_sent(&bench);
	bench_find(&bench);
	expect_sent(&bench, "0 2 3 4");
	bench_answer_all(&bench);
	cr_expect_eq(nexus_resent(bench.nexus), 4 + 4 + 4);
	bench_close(&bench);
}

Test(nexus, what_comes_from_done_goes_behind_what_was_at_the_target)
{
	struct bench bench;
	struct order orders[3], next;

	bench_open(&bench, HOUR_MS);
	next = order_make(&bench, false);
	bench_submit(&bench, orders, "WRR");
	orders[0].then = &next;
	bench_forget_what_was_sent(&bench);
	bench_lose(&bench);
	bench_find(&bench);
	expect_sent(&bench, "1 2 3");
	bench_answer_all(&bench);
	bench_close(&bench);
}

Test(nexus, what_comes_from_done_goes_behind_what_waits)
{
	struct bench bench;
	struct order orders[5], next[2];

	bench_open(&bench, HOUR_MS);
	bench_lose(&bench);
	bench_submit(&bench, orders, "RWRRR");
	next[0] = order_make(&bench, true);
	next[1] = order_make(&bench, true);
	orders[1].then = &next[0];
	bench_lose(&bench); /* 1 comes back, and 5 comes */
	bench_settle(&bench);
	expect_ended(&bench, "1");
	orders[2].cancelled = true;
	orders[2].then = &next[1];
	bench_find(&bench); /* 2 is not wanted any more, and 6 comes */
	expect_sent(&bench, "0 3 4 5 6");
	bench_answer_all(&bench);
	bench_close(&bench);
}

/* ---- what nobody waits for any more ---- */

Test(nexus, cancelled_commands_that_wait_end_within_a_second_and_leave_the_order_alone)
{
	struct bench bench;
	struct order orders[5], next;

	bench_open(&bench, HOUR_MS);
	next = order_make(&bench, true);
	bench_submit(&bench, orders, "RRRRR");
	bench_lose(&bench);
	orders[1].cancelled = orders[3].cancelled = true;
	orders[1].then = &next;
	cr_expect(bench_sweep(&bench));
	expect_ended(&bench, "1 3");
	cr_expect_eq(orders[1].error, -EINTR);
	cr_expect_eq(orders[3].error, -EINTR);
	cr_expect_eq(nexus_waiting(bench.nexus), 4);
	bench_forget_what_was_sent(&bench);
	bench_find(&bench);
	expect_sent(&bench, "0 2 4 5");
	bench_answer_all(&bench);
	bench_close(&bench);
}

Test(nexus, a_cancelled_command_is_not_sent_again)
{
	struct bench bench;
	struct order orders[3];

	bench_open(&bench, HOUR_MS);
	bench_submit(&bench, orders, "RRW");
	bench_forget_what_was_sent(&bench);
	orders[0].cancelled = orders[2].cancelled = true;
	bench_lose(&bench);
	expect_ended(&bench, "0 2");
	cr_expect_eq(orders[0].error, -EINTR);
	cr_expect_eq(orders[2].error, -ESTALE, "it was at the target: executed, or not");
	orders[1].cancelled = true;
	bench_find(&bench);
	cr_expect_eq(orders[1].error, -EINTR);
	cr_expect_eq(bench.sent->len, 0);
	bench_close(&bench);
}

/* ---- given up ---- */

Test(nexus, one_that_is_given_up_ends_what_waits_and_what_comes_until_it_is_open)
{
	struct bench bench;
	struct order orders[4], again[1];

	bench_open(&bench, HOUR_MS);
	bench_lose(&bench);
	bench_submit(&bench, orders, "RW");
	nexus_fail(bench.nexus);
	expect_ended(&bench, "0 1");
	cr_expect_eq(orders[0].error, -EIO);
	cr_expect_eq(orders[1].error, -EIO);
	bench_submit(&bench, orders + 2, "RW");
	cr_expect_eq(orders[2].calls, 0);
	bench_settle(&bench);
	cr_expect_eq(orders[2].error, -EIO);
	cr_expect_eq(orders[3].error, -EIO);
	cr_expect_eq(bench.expired, 0);
	bench_find(&bench);
	bench_submit(&bench, again, "W");
	bench_answer_all(&bench);
	cr_expect_eq(again->error, 0);
	bench_close(&bench);
}

Test(nexus, what_is_at_the_target_of_one_that_is_given_up_is_not_sent_again)
{
	struct bench bench;
	struct order orders[3];

	bench_open(&bench, HOUR_MS);
	bench_submit(&bench, orders, "RWR");
	nexus_fail(bench.nexus); /* while it stands: it says that it is another */
	cr_expect_eq(bench.ended->len, 0);
	order_return(&orders[2], 0, false);
	cr_expect_eq(orders[2].error, 0);
	bench_lose(&bench);
	bench_settle(&bench);
	cr_expect_eq(orders[0].error, -EIO);
	cr_expect_eq(orders[1].error, -ESTALE);
	cr_expect_eq(bench.sent->len, 3);
	bench_close(&bench);
}

Test(nexus, one_that_is_given_up_does_not_expire_any_more)
{
	struct bench bench;
	struct order order[1];

	bench_open(&bench, 30);
	bench_lose(&bench);
	nexus_fail(bench.nexus);
	bench_sleep(&bench, 60);
	cr_expect_eq(bench.expired, 0, "it has failed for a better reason");
	bench_lose(&bench);
	bench_sleep(&bench, 60);
	cr_expect_eq(bench.expired, 0);
	bench_find(&bench);
	bench_submit(&bench, order, "R");
	bench_lose(&bench);
	bench_settle(&bench);
	cr_expect_eq(bench.expired, 1, "nothing was done for longer than it may be away");
	cr_expect_eq(order->error, -EIO);
	bench_close(&bench);
}

/* ---- all at random ---- */

#define RANDOM_COMMANDS 20000u

/* Some are cancelled; some, when they are done, submit the next, and in some the session is lost.
 */
static void random_submit(struct bench *bench, struct order *orders, unsigned *next, GRand *rand)
{
	struct order *order = &orders[*next];

	if (*next == RANDOM_COMMANDS)
		return;
	*order = order_make(bench, g_rand_int_range(rand, 0, 3) > 0);
	order->command.cancelled = g_rand_boolean(rand) ? &order->cancelled : NULL;
	order->lost_then = g_rand_int_range(rand, 0, 300) == 0;
	(*next)++;
	if (g_rand_int_range(rand, 0, 4) == 0 && *next < RANDOM_COMMANDS) {
		order->then = &orders[*next];
		*order->then = order_make(bench, g_rand_boolean(rand));
		(*next)++;
	}
	order_submit(order);
}

static void random_lose(struct bench *bench, GRand *rand)
{
	bench->dead = true;
	nexus_lost(bench->nexus);
	if (bench->below->len > 0 && g_rand_int_range(rand, 0, 8) == 0) /* answered before */
		order_return(order_at(bench->below,
		                 (unsigned)g_rand_int_range(rand, 0, (gint32)bench->below->len)),
		    0, false);
	bench_return_all(bench, g_rand_int_range(rand, -20, 5));
}

/* What goes when it opens goes in the order in which it came. */
static void random_find(struct bench *bench, uint32_t seed)
{
	bench_forget_what_was_sent(bench);
	bench_find(bench);
	for (unsigned i = 1; i < bench->sent->len; i++)
		cr_assert_lt(order_at(bench->sent, i - 1)->id, order_at(bench->sent, i)->id,
		    "seed %u: %s", seed, ids_of(bench, bench->sent));
}

static void random_step(
    struct bench *bench, struct order *orders, unsigned *next, GRand *rand, uint32_t seed)
{
	int dice = g_rand_int_range(rand, 0, 1000);

	if (dice < 500)
		random_submit(bench, orders, next, rand);
	else if (dice < 850 && bench->below->len > 0 && !bench->dead)
		order_return(order_at(bench->below,
		                 (unsigned)g_rand_int_range(rand, 0, (gint32)bench->below->len)),
		    0, false);
	else if (dice < 890)
		random_lose(bench, rand);
	else if (dice < 950)
		random_find(bench, seed);
	else if (dice < 953)
		nexus_fail(bench->nexus);
	else if (dice < 958)
		bench_sweep(bench);
	else if (dice < 960)
		bench_be_steady(bench);
	else if (dice < 963)
		bench_expire(bench);
	else if (dice < 980 && *next > 0)
		orders[g_rand_int_range(
		           rand, (gint32)*next - MIN((gint32)*next, 50), (gint32)*next)]
		    .cancelled = true;
	else
		bench_settle(bench);
}

Test(nexus, ends_each_of_twenty_thousand_commands_once_and_replays_in_order, .timeout = 120)
{
	struct bench bench;
	uint32_t seed = test_seed("nexus");
	g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
	g_autofree struct order *orders = g_new0(struct order, RANDOM_COMMANDS);
	unsigned next = 0, failed = 0, stale = 0, interrupted = 0;

	bench_open(&bench, HOUR_MS);
	while (next < RANDOM_COMMANDS)
		random_step(&bench, orders, &next, rand, seed);
	random_find(&bench, seed);
	while (bench.alive > 0) { /* one that is done may have lost the session */
		bench_answer_all(&bench);
		bench_settle(&bench);
		random_find(&bench, seed);
	}
	for (unsigned i = 0; i < RANDOM_COMMANDS; i++) {
		const struct order *order = &orders[i];

		cr_assert_eq(order->calls, 1, "seed %u: %u", seed, i);
		cr_assert(order->command.replay ? order->error != -ESTALE : order->sends <= 1,
		    "seed %u: %u", seed, i);
		cr_assert(order->error != -EINTR || order->cancelled, "seed %u: %u", seed, i);
		failed += order->error == -EIO;
		stale += order->error == -ESTALE;
		interrupted += order->error == -EINTR;
	}
	cr_expect(failed > 20 && stale > 200 && interrupted > 5, "seed %u: %u, %u, %u", seed,
	    failed, stale, interrupted);
	cr_expect_gt(nexus_resent(bench.nexus), 1000, "seed %u", seed);
	bench_close(&bench);
}
