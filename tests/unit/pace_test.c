/* What acks tell of a server's pace: the clock is the test's own. */
#include "daemon/store/pace.h"

#include "tests/unit/suites.h"

#include <check.h>
#include <string.h>

#define US 1000u

static struct pace pace;
static uint64_t now_ns;

static void set_up(void)
{
    memset(&pace, 0, sizeof(pace));
    now_ns = 1000000000;
}

/* So many acks come together. True when they ended a stretch. */
static bool acks_after(unsigned us, unsigned acks, bool is_drained)
{
    now_ns += (uint64_t)us * US;
    for (unsigned i = 0; i < acks; i++)
        pace_ack(&pace);
    return pace_settle(&pace, is_drained, now_ns);
}

/* Writes go to an idle server, which acknowledges one after the other. */
static void drain(unsigned writes, unsigned each_us)
{
    pace_begin(&pace, now_ns);
    while (writes-- > 0)
        acks_after(each_us, 1, writes == 0);
}

static void expect_pace(double us)
{
    ck_assert_double_eq_tol(pace.write.us, us, us / 100);
}

START_TEST(nothing_is_known_before_acks_came)
{
    pace_begin(&pace, now_ns);
    ck_assert(!acks_after(100000, 0, false));
    ck_assert(pace.write.us == 0);
}
END_TEST

START_TEST(the_first_stretch_tells_the_pace)
{
    drain(32, 220);
    expect_pace(220);
}
END_TEST

START_TEST(a_stretch_of_many_writes_ends_before_they_do)
{
    pace_begin(&pace, now_ns);
    for (unsigned ms = 1; ms < PACE_STRETCH_MS; ms++)
        ck_assert(!acks_after(1000, 50, false));
    ck_assert(acks_after(1000, 50, false));
    expect_pace(20);
}
END_TEST

START_TEST(a_burst_of_acks_is_taken_over_the_time_that_it_took)
{
    pace_begin(&pace, now_ns);
    for (unsigned burst = 0; burst < 20; burst++)
        acks_after(14000, 64, false);
    expect_pace(14000.0 / 64);
}
END_TEST

START_TEST(the_end_of_a_burst_is_no_stretch_of_its_own)
{
    pace_begin(&pace, now_ns);
    ck_assert(acks_after(25000, 100, false));
    ck_assert(!acks_after(1, 27, true));
    expect_pace(250);
    ck_assert(!acks_after(1, 1, true));
    expect_pace(250);
}
END_TEST

START_TEST(a_server_that_stalls_for_a_moment_is_not_slow)
{
    drain(32, 10);
    pace_begin(&pace, now_ns);
    for (unsigned i = 0; i < QUICKEST_OF - 1; i++) {
        ck_assert(acks_after(300000, 64, false));
        expect_pace(10);
    }
}
END_TEST

START_TEST(a_server_that_has_become_slow_is_known_to_be)
{
    drain(32, 10);
    for (unsigned i = 0; i < QUICKEST_OF; i++)
        drain(64, 220);
    expect_pace(220);
}
END_TEST

START_TEST(a_server_that_has_become_quick_is_known_at_once)
{
    for (unsigned i = 0; i < QUICKEST_OF; i++)
        drain(64, 220);
    drain(64, 10);
    expect_pace(10);
}
END_TEST

START_TEST(a_few_writes_tell_only_that_a_server_is_no_slower)
{
    drain(1, 500);
    ck_assert(pace.write.us == 0);
    drain(64, 220);
    for (unsigned i = 0; i < 2 * QUICKEST_OF; i++)
        drain(1, 500);
    expect_pace(220);
    drain(PACE_ACKS_MIN - 1, 30);
    expect_pace(90);
}
END_TEST

Suite *pace_suite(void)
{
    Suite *suite = suite_create("pace");
    TCase *tests = tcase_create("pace");

    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, nothing_is_known_before_acks_came);
    tcase_add_test(tests, the_first_stretch_tells_the_pace);
    tcase_add_test(tests, a_stretch_of_many_writes_ends_before_they_do);
    tcase_add_test(tests, a_burst_of_acks_is_taken_over_the_time_that_it_took);
    tcase_add_test(tests, the_end_of_a_burst_is_no_stretch_of_its_own);
    tcase_add_test(tests, a_server_that_stalls_for_a_moment_is_not_slow);
    tcase_add_test(tests, a_server_that_has_become_slow_is_known_to_be);
    tcase_add_test(tests, a_server_that_has_become_quick_is_known_at_once);
    tcase_add_test(tests, a_few_writes_tell_only_that_a_server_is_no_slower);
    suite_add_tcase(suite, tests);
    return suite;
}
