/* Which writes are added to what the server, or the disk, has reported. */
#include "daemon/store/room_gauge.h"
#include "tests/unit/suites.h"

#include <string.h>

static struct room_writes writes;
static struct room_gauge gauge;

static void begin(void)
{
    memset(&writes, 0, sizeof(writes));
    memset(&gauge, 0, sizeof(gauge));
}

static void ask(void)
{
    room_gauge_begin(&gauge, &writes);
}

static void tell(uint64_t bytes)
{
    room_gauge_complete(&gauge, bytes);
    room_writes_resolve(&writes);
}

static uint64_t missing(void)
{
    return room_gauge_missed(&gauge, &writes);
}

START_TEST(the_answer_includes_a_write_that_ended_before_the_question)
{
    room_writes_admit(&writes, 100);
    ck_assert(!gauge.is_known);
    ck_assert_uint_eq(missing(), 100);
    room_writes_end(&writes, 100, false);
    ck_assert_uint_eq(missing(), 100);
    ask();
    tell(5000);
    ck_assert(gauge.is_known);
    ck_assert_uint_eq(gauge.bytes, 5000);
    ck_assert_uint_eq(missing(), 0);
}
END_TEST

/* The server may have it in a queue, and its answer counts only what it has stored. */
START_TEST(a_write_in_flight_counts_however_often_the_server_is_asked)
{
    room_writes_admit(&writes, 100);
    for (unsigned i = 0; i < 5; i++) {
        ask();
        ck_assert_uint_eq(missing(), 100);
        tell(5000);
        ck_assert_uint_eq(missing(), 100);
    }
    room_writes_end(&writes, 100, false);
    ck_assert_uint_eq(missing(), 100);
    ask();
    tell(5100);
    ck_assert_uint_eq(missing(), 0);
}
END_TEST

START_TEST(a_write_between_two_questions_counts_once_more)
{
    ask();
    tell(5000);
    room_writes_admit(&writes, 100);
    ask();
    room_writes_end(&writes, 100, false); /* perhaps after the server has counted */
    room_writes_admit(&writes, 20);
    tell(5000);
    ck_assert_uint_eq(missing(), 120);
    ask();
    tell(5100);
    ck_assert_uint_eq(missing(), 20);
}
END_TEST

START_TEST(a_question_without_an_answer_changes_nothing)
{
    room_writes_admit(&writes, 100);
    room_writes_end(&writes, 100, false);
    ask();
    ck_assert_uint_eq(missing(), 100);
    ask();
    ck_assert_uint_eq(missing(), 100);
}
END_TEST

/* Its call has ended, but a server that was stopped may still read the write before it answers again. */
START_TEST(a_write_in_doubt_counts_until_the_server_has_answered_and_was_asked_again)
{
    room_writes_admit(&writes, 100);
    room_writes_end(&writes, 100, true);
    ask();
    ck_assert_uint_eq(missing(), 100);
    tell(5000);
    ck_assert_uint_eq(missing(), 100);
    ask();
    tell(5100);
    ck_assert_uint_eq(missing(), 0);
}
END_TEST

Suite *room_gauge_suite(void)
{
    Suite *suite = suite_create("room gauge");
    TCase *tests = tcase_create("room gauge");

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_test(tests, the_answer_includes_a_write_that_ended_before_the_question);
    tcase_add_test(tests, a_write_in_flight_counts_however_often_the_server_is_asked);
    tcase_add_test(tests, a_write_between_two_questions_counts_once_more);
    tcase_add_test(tests, a_question_without_an_answer_changes_nothing);
    tcase_add_test(tests, a_write_in_doubt_counts_until_the_server_has_answered_and_was_asked_again);
    suite_add_tcase(suite, tests);
    return suite;
}
