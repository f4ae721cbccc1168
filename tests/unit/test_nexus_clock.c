/*
 * test_nexus_clock.c - the way to a logical unit: how long it waits.
 */
#include "support/nexus_bench.h"

/* ---- replacement_timeout ---- */

Test(nexus, after_replacement_timeout_all_ends_and_it_works_again_when_it_is_back)
{
	struct bench bench;
	struct order orders[3], late[2], again[1];
	int64_t start = clock_ms();

	bench_open(&bench, 50);
	bench_submit(&bench, orders, "RW");
	bench_lose(&bench);
	bench_submit(&bench, orders + 2, "W");
	while (bench.expired == 0)
		g_main_context_iteration(loop_context(bench.loop), TRUE);
	cr_expect_geq(clock_ms() - start, 49);
	cr_expect_eq(bench.ended_before, 1, "expired() came before they ended");
	expect_ended(&bench, "1 0 2");
	cr_expect_eq(orders[0].error, -EIO);
	cr_expect_eq(orders[2].error, -EIO);

	bench_submit(&bench, late, "RW");
	cr_expect_eq(late[0].calls, 0);
	bench_settle(&bench);
	cr_expect_eq(late[0].error, -EIO);
	cr_expect_eq(late[1].error, -EIO);
	cr_expect_eq(bench.sent->len, 2);

	bench_find(&bench);
	bench_submit(&bench, again, "W");
	bench_answer_all(&bench);
	cr_expect_eq(again->error, 0);
	cr_expect_eq(nexus_away_ms(bench.nexus), 0);
	bench_lose(&bench); /* the clock begins at its start */
	bench_submit(&bench, again, "R");
	bench_settle(&bench);
	cr_expect_eq(again->calls, 0);
	bench_find(&bench);
	bench_answer_all(&bench);
	cr_expect_eq(again->error, 0);
	cr_expect_eq(bench.expired, 1);
	bench_close(&bench);
}

Test(nexus, what_waits_for_its_error_is_sent_where_it_is_back_first)
{
	struct bench bench;
	struct order orders[2];

	bench_open(&bench, 0);
	bench_lose(&bench);
	bench_submit(&bench, orders, "RW");
	bench_find(&bench);
	bench_settle(&bench);
	expect_sent(&bench, "0 1");
	bench_answer_all(&bench);
	cr_expect_eq(orders[0].error | orders[1].error, 0);
	bench_close(&bench);
}

Test(nexus, an_error_tried_again_from_done_does_not_spin_in_one_turn)
{
	struct bench bench;
	struct order orders[3];

	bench_open(&bench, 0);
	bench_lose(&bench);
	orders[1] = order_make(&bench, true);
	orders[2] = order_make(&bench, true);
	orders[1].then = &orders[2];
	bench_submit(&bench, orders, "R");
	orders[0].then = &orders[1];
	bench_settle(&bench);
	expect_ended(&bench, "0 1 2");
	cr_expect_eq(orders[2].error, -EIO);
	bench_close(&bench);
}

Test(nexus, without_a_replacement_timeout_it_waits_for_ever)
{
	struct bench bench;
	struct order orders[2];

	bench_open(&bench, UINT_MAX);
	bench_submit(&bench, orders, "R");
	bench_lose(&bench);
	bench_submit(&bench, orders + 1, "W");
	cr_expect_eq(bench_hurry(&bench, 0, INT_MAX), 1, "only the sweep has a timer");
	bench_lose(&bench);
	bench_lose(&bench);
	cr_expect_eq(bench_hurry(&bench, 0, INT_MAX), 1);
	cr_expect_eq(bench.expired, 0);
	cr_expect_eq(orders[0].calls, 0);
	bench_find(&bench);
	bench_answer_all(&bench);
	cr_expect_eq(orders[0].error, 0);
	bench_close(&bench);
}

Test(nexus, a_replacement_timeout_of_zero_fails_at_once)
{
	struct bench bench;
	struct order orders[3];

	bench_open(&bench, 0);
	bench_submit(&bench, orders, "RW");
	bench_lose(&bench);
	cr_expect_eq(bench.expired, 1);
	cr_expect_eq(bench.ended_before, 0);
	bench_settle(&bench);
	cr_expect_eq(orders[0].error, -EIO);
	cr_expect_eq(orders[1].error, -ESTALE);
	bench_submit(&bench, orders + 2, "R");
	bench_settle(&bench);
	cr_expect_eq(orders[2].error, -EIO);
	bench_find(&bench);
	bench_submit(&bench, orders, "R");
	bench_answer_all(&bench);
	cr_expect_eq(orders[0].error, 0);
	bench_close(&bench);
}

Test(nexus, expired_is_told_once)
{
	struct bench bench;
	struct order orders[3];

	bench_open(&bench, 20);
	bench_submit(&bench, orders, "RRR");
	bench_lose(&bench);
	bench_sleep(&bench, 40);
	cr_expect_eq(bench.expired, 1);
	bench_lose(&bench); /* it was there, as another LUN */
	bench_sleep(&bench, 40);
	cr_expect_eq(bench.expired, 1);
	bench_find(&bench);
	bench_submit(&bench, orders, "R");
	bench_sleep(&bench, 40);
	bench_lose(&bench); /* the command is handed back after it has failed */
	bench_sleep(&bench, 40);
	cr_expect_eq(bench.expired, 2, "it was open in between, in vain");
	cr_expect_eq(orders[0].error, -EIO);
	bench_close(&bench);
}

/* ---- the clock ---- */

Test(safety_16, a_target_that_flaps_does_not_restart_the_clock)
{
	struct bench bench;
	struct order orders[2];
	int64_t start = clock_ms();

	bench_open(&bench, 150);
	bench_submit(&bench, orders, "R");
	bench_lose(&bench);
	while (bench.expired == 0 && clock_ms() - start < 5000) {
		bench_sleep(&bench, 10);
		if (bench.expired > 0)
			break;
		bench_find(&bench); /* nothing is done */
		bench_sleep(&bench, 10);
		bench_lose(&bench);
	}
	bench_settle(&bench);
	cr_expect_eq(bench.expired, 1);
	cr_expect_geq(clock_ms() - start, 149);
	cr_expect_leq(clock_ms() - start, 1500);
	cr_expect_eq(orders[0].error, -EIO);
	bench_close(&bench);
}

Test(safety_16, a_command_that_is_done_stops_the_clock)
{
	struct bench bench;
	struct order orders[2];

	bench_open(&bench, 100);
	bench_submit(&bench, orders, "RR");
	for (int i = 0; i < 4; i++) {
		bench_lose(&bench);
		bench_sleep(&bench, 60);
		bench_find(&bench);
		order_return(&orders[0], 0, false);
		cr_expect_eq(nexus_away_ms(bench.nexus), 0);
		bench_submit(&bench, orders, "R");
	}
	bench_sleep(&bench, 120);
	cr_expect_eq(bench.expired, 0);
	cr_expect_eq(orders[1].calls, 0);
	bench_answer_all(&bench);
	bench_close(&bench);
}

Test(safety_16, the_end_of_the_clock_while_it_is_open_fails_the_next_loss_at_once)
{
	struct bench bench;
	struct order order[1];

	bench_open(&bench, 30);
	bench_submit(&bench, order, "R");
	bench_lose(&bench);
	bench_find(&bench);
	bench_sleep(&bench, 60);
	cr_expect_eq(bench.expired, 0, "it is tried just now");
	bench_lose(&bench);
	bench_settle(&bench);
	cr_expect_eq(bench.expired, 1);
	cr_expect_eq(order->error, -EIO);
	bench_close(&bench);
}

Test(safety_16, ten_seconds_with_nothing_to_do_stop_the_clock)
{
	struct bench bench;
	struct order order[1];

	bench_open(&bench, 30);
	bench_lose(&bench);
	bench_find(&bench);
	bench_sleep(&bench, 60);
	cr_expect_gt(nexus_away_ms(bench.nexus), 30);
	cr_expect(bench_be_steady(&bench));
	cr_expect_eq(nexus_away_ms(bench.nexus), 0);
	bench_lose(&bench);
	bench_submit(&bench, order, "R");
	bench_settle(&bench);
	cr_expect_eq(bench.expired, 0);
	bench_find(&bench);
	bench_answer_all(&bench);
	bench_close(&bench);
}

Test(safety_16, ten_seconds_with_a_command_that_is_not_done_stop_nothing)
{
	struct bench bench;
	struct order order[1];

	bench_open(&bench, 30);
	bench_lose(&bench);
	bench_find(&bench);
	bench_submit(&bench, order, "R");
	bench_sleep(&bench, 60);
	cr_expect(bench_be_steady(&bench));
	cr_expect_gt(nexus_away_ms(bench.nexus), 30);
	bench_lose(&bench);
	bench_settle(&bench);
	cr_expect_eq(order->error, -EIO);
	bench_close(&bench);
}

Test(safety_16, an_answer_of_before_the_loss_does_not_stop_the_clock)
{
	struct bench bench;
	struct order orders[2];

	bench_open(&bench, 40);
	bench_submit(&bench, orders, "RW");
	bench.dead = true;
	nexus_lost(bench.nexus);
	order_return(&orders[0], -ESTALE, false);
	order_return(&orders[1], 0, false); /* answered early, its data had not all left */
	cr_expect_eq(orders[1].error, 0);
	bench_sleep(&bench, 100);
	cr_expect_eq(bench.expired, 1, "else it waits for ever");
	cr_expect_eq(orders[0].error, -EIO);
	bench_find(&bench);
	bench_answer_all(&bench);
	bench_close(&bench);
}

/* ---- time ---- */

Test(safety_15, a_command_that_timed_out_gets_twice_the_time_at_the_next_try)
{
	struct bench bench;
	struct order orders[3];

	bench_open(&bench, HOUR_MS);
	bench_submit(&bench, orders, "RRR");
	orders[2].command.timeout_ms = 1000; /* of its own */
	bench.dead = true;
	nexus_lost(bench.nexus);
	bench_return_all(&bench, 0);
	bench_find(&bench);
	cr_expect_eq(orders[0].command.timeout_ms, 60000);
	cr_expect_eq(orders[1].command.timeout_ms, 0, "only the one that took too long");
	bench.dead = true;
	nexus_lost(bench.nexus);
	bench_return_all(&bench, 0);
	bench_find(&bench);
	cr_expect_eq(orders[0].command.timeout_ms, 120000);
	bench_answer_all(&bench);
	bench_lose(&bench);
	bench_submit(&bench, orders, "RR");
	orders[0].command.timeout_ms = 1000;
	bench_find(&bench);
	nexus_lost(bench.nexus);
	bench_return_all(&bench, 0);
	bench_find(&bench);
	cr_expect_eq(orders[0].command.timeout_ms, 2000);
	bench_answer_all(&bench);
	bench_close(&bench);
}
