/* When the loop may poll without sleeping. The test has a clock of its own. */
#include "daemon/base/busy_poll.h"

#include "tests/unit/suites.h"

#include <check.h>

#define US 1000u

static uv_loop_t loop;
static struct busy_poll poll;
static uint64_t now_ns;
static unsigned calls; /* in flight */

static void set_up(void)
{
    now_ns = 1000000000;
    calls = 1;
    uv_loop_init(&loop);
    busy_poll_init(&poll, &loop);
    poll.is_allowed = true; /* also if the tests have one processor */
}

static void tear_down(void)
{
    uv_close((uv_handle_t *)&poll.idle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static bool turn_after(unsigned us, unsigned sockets)
{
    now_ns += (uint64_t)us * US;
    busy_poll_turn(&poll, sockets, calls, now_ns);
    ck_assert_int_eq(uv_is_active((uv_handle_t *)&poll.idle) != 0, poll.is_polling);
    return poll.is_polling;
}

static bool polls_after_turns(unsigned turns, unsigned us, unsigned sockets)
{
    bool polls = false;

    while (turns-- > 0)
        polls = turn_after(us, sockets);
    return polls;
}

/* Turns without work, a microsecond each. */
static bool polls_for(unsigned us)
{
    while (us-- > 0) {
        if (!turn_after(1, 0))
            return false;
    }
    return true;
}

START_TEST(an_idle_loop_sleeps)
{
    ck_assert(!turn_after(10, 0));
    ck_assert(!turn_after(1000000, 0));
}
END_TEST

START_TEST(a_first_message_does_not_start_polling)
{
    ck_assert(!turn_after(1000, 1));
}
END_TEST

START_TEST(a_fast_sequence_of_messages_starts_polling)
{
    ck_assert(polls_after_turns(10, 30, 1));
    ck_assert(polls_for(BUSY_POLL_MAX_US - 1));
}
END_TEST

START_TEST(polling_ends_if_no_message_comes_in_time)
{
    ck_assert(polls_after_turns(10, 30, 1));
    ck_assert(!polls_for(BUSY_POLL_MAX_US + 1));
    ck_assert(!turn_after(1, 0));
    /* and if a message comes late, the loop does not poll for the next one */
    ck_assert(!turn_after(1000, 1));
}
END_TEST

START_TEST(messages_at_long_intervals_never_start_polling)
{
    for (unsigned i = 0; i < 100; i++)
        ck_assert(!turn_after(BUSY_POLL_MAX_US + 1, 1));
}
END_TEST

START_TEST(the_window_grows_from_a_short_one)
{
    turn_after(1000, 1);
    ck_assert(turn_after(15, 1));
    ck_assert(!polls_for(25)); /* polling saves little if messages are 15 us apart */
    ck_assert(turn_after(10, 1));
    ck_assert(polls_for(25));
}
END_TEST

START_TEST(many_active_sockets_do_not_start_polling)
{
    ck_assert(!polls_after_turns(100, 10, 3));
    /* a single active socket is polled again after some turns */
    ck_assert(polls_after_turns(30, 10, 1));
}
END_TEST

START_TEST(many_calls_in_flight_prevent_polling)
{
    ck_assert(polls_after_turns(10, 30, 1));
    calls = 3;
    ck_assert(!polls_after_turns(10, 30, 1));
    calls = 0;
    ck_assert(turn_after(30, 1));
}
END_TEST

START_TEST(polling_stops_if_another_process_needs_the_processor)
{
    ck_assert(polls_after_turns(10, 30, 1));
    ck_assert(polls_for(5));
    ck_assert(!turn_after(100, 0)); /* a turn without work took 100 us */
    ck_assert(!turn_after(50, 1));
    ck_assert(!turn_after(50, 1));
    ck_assert(!polls_after_turns(5, 100, 1));
    /* and has used it for several times as long */
    ck_assert(polls_after_turns(10, 60, 1));
}
END_TEST

START_TEST(polling_can_be_switched_off_while_it_polls)
{
    ck_assert(polls_after_turns(10, 30, 1));
    busy_poll_allow(&poll, false);
    ck_assert(!uv_is_active((uv_handle_t *)&poll.idle));
    ck_assert(!polls_after_turns(10, 30, 1));
}
END_TEST

START_TEST(a_fraction_of_a_processor_counts_as_one)
{
    ck_assert(busy_poll_processors() > 0);
}
END_TEST

Suite *busy_poll_suite(void)
{
    Suite *suite = suite_create("busy_poll");
    TCase *tests = tcase_create("busy_poll");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, an_idle_loop_sleeps);
    tcase_add_test(tests, a_first_message_does_not_start_polling);
    tcase_add_test(tests, a_fast_sequence_of_messages_starts_polling);
    tcase_add_test(tests, polling_ends_if_no_message_comes_in_time);
    tcase_add_test(tests, messages_at_long_intervals_never_start_polling);
    tcase_add_test(tests, the_window_grows_from_a_short_one);
    tcase_add_test(tests, many_active_sockets_do_not_start_polling);
    tcase_add_test(tests, many_calls_in_flight_prevent_polling);
    tcase_add_test(tests, polling_stops_if_another_process_needs_the_processor);
    tcase_add_test(tests, polling_can_be_switched_off_while_it_polls);
    tcase_add_test(tests, a_fraction_of_a_processor_counts_as_one);
    suite_add_tcase(suite, tests);
    return suite;
}
