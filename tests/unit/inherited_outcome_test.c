/* The outcome of a write that an earlier daemon has sent, with the facts that its journal has kept. */
#include "daemon/store/write/outcome.h"
#include "tests/unit/suites.h"

#include <check.h>

#define BEFORE 100u /* L0 */

static struct outcome outcome;
static struct outcome_reading reading;

/* The server has restarted with the daemon. It was asked, and does not know the id. */
static void begin_with_unknown_id(void)
{
    outcome = (struct outcome){.sent_ms = 1000,
                               .stream = {.identity = 5, .last_sequence = BEFORE, .keeper = 1, .window_ms = 60000}};
    outcome.is_rebuilt = true;
    outcome_inherit(&outcome, 1);
    ck_assert_int_eq(outcome_next(&outcome, true), OUTCOME_ASK);
    ck_assert_int_eq(outcome_answered(&outcome, OUTCOME_ID_UNKNOWN, 1500, 2), OUTCOME_UNDECIDED);
    ck_assert_int_eq(outcome_next(&outcome, true), OUTCOME_READ);
    reading = (struct outcome_reading){.is_there = true,
                                       .sequence = BEFORE + 10,
                                       .is_undisturbed = true,
                                       .stream = {.identity = 5, .last_sequence = BEFORE + 50, .window_ms = 60000}};
}

START_TEST(a_server_that_restarted_knows_all_ids_that_its_stream_had)
{
    begin_with_unknown_id();
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_NOT_STORED);
}
END_TEST

START_TEST(a_known_id_is_stored)
{
    begin_with_unknown_id();
    outcome_inherit(&outcome, 1);
    ck_assert_int_eq(outcome_answered(&outcome, OUTCOME_ID_KNOWN, 1500, 2), OUTCOME_STORED);
}
END_TEST

START_TEST(an_unknown_id_proves_nothing_if_the_message_may_have_been_removed)
{
    begin_with_unknown_id();
    reading.is_undisturbed = false;
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_UNKNOWN);
}
END_TEST

START_TEST(an_unknown_id_proves_nothing_after_a_second_restart)
{
    begin_with_unknown_id();
    outcome.is_rebuilt = false;
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_UNKNOWN);
}
END_TEST

START_TEST(an_unknown_id_proves_nothing_after_the_window)
{
    begin_with_unknown_id();
    outcome_inherit(&outcome, 1);
    ck_assert_int_eq(outcome_answered(&outcome, OUTCOME_ID_UNKNOWN, 1000 + 60000, 2), OUTCOME_UNDECIDED);
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_UNKNOWN);
}
END_TEST

START_TEST(another_stream_proves_nothing)
{
    begin_with_unknown_id();
    reading.stream.identity = 6;
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_UNKNOWN);
}
END_TEST

Suite *inherited_outcome_suite(void)
{
    Suite *suite = suite_create("inherited outcome");
    TCase *tests = tcase_create("inherited outcome");

    tcase_add_test(tests, a_server_that_restarted_knows_all_ids_that_its_stream_had);
    tcase_add_test(tests, a_known_id_is_stored);
    tcase_add_test(tests, an_unknown_id_proves_nothing_if_the_message_may_have_been_removed);
    tcase_add_test(tests, an_unknown_id_proves_nothing_after_a_second_restart);
    tcase_add_test(tests, an_unknown_id_proves_nothing_after_the_window);
    tcase_add_test(tests, another_stream_proves_nothing);
    suite_add_tcase(suite, tests);
    return suite;
}
