/* daemon/base: backoff, timers, latencies; and keys of nkeys. */
#include "daemon/base/backoff.h"
#include "daemon/base/metrics.h"
#include "daemon/base/timers.h"
#include "daemon/nats/nkey.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

START_TEST(the_backoffs_bound_doubles_up_to_its_maximum)
{
    ck_assert_uint_eq(backoff_bound_ms(1, 50, 2000), 50);
    ck_assert_uint_eq(backoff_bound_ms(2, 50, 2000), 100);
    ck_assert_uint_eq(backoff_bound_ms(6, 50, 2000), 1600);
    ck_assert_uint_eq(backoff_bound_ms(7, 50, 2000), 2000);
    ck_assert_uint_eq(backoff_bound_ms(4000000000u, 50, 2000), 2000);
    ck_assert_uint_eq(backoff_bound_ms(4000000000u, 50, UINT64_MAX / 2), UINT64_MAX / 2);
}
END_TEST

START_TEST(the_backoff_is_spread_over_all_of_its_bound)
{
    unsigned low = 0, high = 0;

    for (int i = 0; i < 1000; i++) {
        uint64_t wait_ms = backoff_ms(5, 50, 2000);
        ck_assert_uint_le(wait_ms, 800);
        low += wait_ms < 200;
        high += wait_ms > 600;
    }
    /* a quarter each on average: far enough from zero never to fail by chance */
    ck_assert_uint_gt(low, 100);
    ck_assert_uint_gt(high, 100);
}
END_TEST

struct alarm {
    struct timer timer;
    uv_loop_t *loop;
    struct timers *timers;
    struct alarm *stops; /* another one to stop when this one fires */
    uint64_t rang_ms;
    unsigned rings, again;
};

static void on_alarm(struct timer *timer)
{
    struct alarm *alarm = (struct alarm *)((char *)timer - offsetof(struct alarm, timer));

    alarm->rings++;
    alarm->rang_ms = uv_now(alarm->loop);
    if (alarm->stops != NULL)
        timer_stop(alarm->timers, &alarm->stops->timer);
    if (alarm->rings < alarm->again)
        timer_start(alarm->timers, timer, uv_now(alarm->loop), on_alarm);
}

static uv_loop_t loop;
static struct jobs jobs;
static struct timers timers;

static void set_up(void)
{
    uv_loop_init(&loop);
    jobs_init(&jobs);
    timers_init(&timers, &loop, &jobs);
}

/* Run until no handle is active and no job waits. */
static void run_loop(void)
{
    do {
        uv_run(&loop, UV_RUN_DEFAULT);
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
    } while (jobs_are_waiting(&jobs) || uv_loop_alive(&loop));
}

static void tear_down(void)
{
    timers_close(&timers);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}

START_TEST(a_timer_rings_once_and_never_early)
{
    struct alarm alarms[200];

    memset(alarms, 0, sizeof(alarms));
    uint64_t begin_ms = uv_now(&loop);
    for (unsigned i = 0; i < 200; i++) {
        alarms[i].loop = &loop;
        alarms[i].timers = &timers;
        timer_start(&timers, &alarms[i].timer, begin_ms + i, on_alarm);
    }
    run_loop(); /* ends when no timer is left: an empty wheel stops */
    for (unsigned i = 0; i < 200; i++) {
        ck_assert_uint_eq(alarms[i].rings, 1);
        ck_assert_uint_ge(alarms[i].rang_ms, begin_ms + i);
        ck_assert(!timer_is_set(&alarms[i].timer));
    }
}
END_TEST

START_TEST(a_timer_further_away_than_the_wheel_is_round_rings_at_its_time)
{
    struct alarm far = {.loop = &loop, .timers = &timers};
    uint64_t at_ms = uv_now(&loop) + TIMERS_SLOTS * TIMERS_TICK_MS + 100;

    timer_start(&timers, &far.timer, at_ms, on_alarm);
    run_loop();
    ck_assert_uint_eq(far.rings, 1);
    ck_assert_uint_ge(far.rang_ms, at_ms);
}
END_TEST

START_TEST(a_timer_that_is_stopped_does_not_ring_even_in_its_own_turn)
{
    struct alarm first = {.loop = &loop, .timers = &timers}, second = {.loop = &loop, .timers = &timers};

    first.stops = &second;
    second.stops = &first;
    timer_start(&timers, &first.timer, uv_now(&loop) + 5, on_alarm);
    timer_start(&timers, &second.timer, uv_now(&loop) + 5, on_alarm);
    run_loop();
    ck_assert_uint_eq(first.rings + second.rings, 1);
}
END_TEST

START_TEST(many_timers_that_are_far_away_do_not_wake_the_loop)
{
    enum { COUNT = 5000 };
    static struct alarm alarms[COUNT];
    uint64_t begin_ms = uv_now(&loop);

    memset(alarms, 0, sizeof(alarms));
    for (unsigned i = 0; i < COUNT; i++) {
        alarms[i].loop = &loop;
        alarms[i].timers = &timers;
        timer_start(&timers, &alarms[i].timer, begin_ms + 30000 + i, on_alarm);
    }
    struct alarm near = {.loop = &loop, .timers = &timers};
    timer_start(&timers, &near.timer, begin_ms + 20, on_alarm);
    while (near.rings == 0)
        uv_run(&loop, UV_RUN_ONCE);
    ck_assert_int_ge(uv_backend_timeout(&loop), (int)(begin_ms + 30000 - uv_now(&loop)));
    for (unsigned i = 0; i < COUNT; i++)
        timer_stop(&timers, &alarms[i].timer);
}
END_TEST

START_TEST(a_timer_may_start_itself_again)
{
    struct alarm alarm = {.loop = &loop, .timers = &timers, .again = 3};

    timer_start(&timers, &alarm.timer, uv_now(&loop) + 1, on_alarm);
    run_loop();
    ck_assert_uint_eq(alarm.rings, 3);
}
END_TEST

START_TEST(a_latencys_quantile_is_right_to_an_eighth)
{
    struct metrics_histogram latency;

    memset(&latency, 0, sizeof(latency));
    ck_assert_uint_eq(metrics_quantile(&latency, 0.5), 0);
    for (uint64_t us = 1; us <= 100000; us++)
        metrics_note(&latency, us);
    double quantiles[] = {0.1, 0.5, 0.9, 0.99, 0.999};
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        double right = quantiles[i] * 100000, told = (double)metrics_quantile(&latency, quantiles[i]);
        ck_assert_double_ge(told, right * 0.999);
        ck_assert_double_le(told, right * 1.126);
    }
    ck_assert_uint_eq(metrics_quantile(&latency, 1.0), 100000);
}
END_TEST

START_TEST(an_outlier_beyond_the_histogram_is_the_maximum)
{
    struct metrics_histogram latency;

    memset(&latency, 0, sizeof(latency));
    metrics_note(&latency, UINT64_MAX);
    ck_assert_uint_eq(latency.max, UINT64_MAX);
    ck_assert_uint_gt(metrics_quantile(&latency, 0.5), 60000000);
}
END_TEST

/* The pair is the example of the nkeys project's README for users. */
START_TEST(an_nkeys_public_half_is_derived_from_its_seed)
{
    char public_key[NKEY_PUBLIC_BYTES];

    const char *wrong =
        nkey_find_public("-- a comment --\nSUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZY\n", public_key);
    ck_assert_msg(wrong == NULL, "%s", wrong);
    ck_assert_uint_eq(strlen(public_key), 56);
    ck_assert_int_eq(public_key[0], 'U');
    ck_assert_str_eq(public_key, "UD466L6EBCM3YY5HEGHJANNTN4LSKTSUXTH7RILHCKEQMQHTBNLHJJXT");
}
END_TEST

START_TEST(a_seed_that_was_changed_is_refused)
{
    char public_key[NKEY_PUBLIC_BYTES];

    ck_assert(nkey_find_public("SUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZA\n", public_key) != NULL);
    ck_assert(nkey_find_public("UD466L6EBCM3YY5HEGHJANNTN4LSKTSUXTH7RILHCKEQMQHTBNLHJJXT\n", public_key) != NULL);
    ck_assert(nkey_find_public("", public_key) != NULL);
}
END_TEST

Suite *support_suite(void)
{
    Suite *suite = suite_create("support");
    TCase *backoff = tcase_create("backoff"), *wheel = tcase_create("timers"), *rest = tcase_create("metrics and nkey");

    tcase_add_test(backoff, the_backoffs_bound_doubles_up_to_its_maximum);
    tcase_add_test(backoff, the_backoff_is_spread_over_all_of_its_bound);
    suite_add_tcase(suite, backoff);
    tcase_add_checked_fixture(wheel, set_up, tear_down);
    tcase_add_test(wheel, a_timer_rings_once_and_never_early);
    tcase_add_test(wheel, a_timer_further_away_than_the_wheel_is_round_rings_at_its_time);
    tcase_add_test(wheel, a_timer_that_is_stopped_does_not_ring_even_in_its_own_turn);
    tcase_add_test(wheel, many_timers_that_are_far_away_do_not_wake_the_loop);
    tcase_add_test(wheel, a_timer_may_start_itself_again);
    suite_add_tcase(suite, wheel);
    tcase_add_test(rest, a_latencys_quantile_is_right_to_an_eighth);
    tcase_add_test(rest, an_outlier_beyond_the_histogram_is_the_maximum);
    tcase_add_test(rest, an_nkeys_public_half_is_derived_from_its_seed);
    tcase_add_test(rest, a_seed_that_was_changed_is_refused);
    suite_add_tcase(suite, rest);
    return suite;
}
