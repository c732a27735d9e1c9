/* Requests that wait take turns by owner; the requests of one owner keep their order. */
#include "daemon/base/fair_queue.h"
#include "tests/unit/suites.h"

static struct fair_queue queue;
static struct fair_queue_entry entries[6];
enum { FIRST = 1, SECOND };

static void begin_test(void)
{
    queue = (struct fair_queue){0};
    for (size_t i = 0; i < 6; i++)
        entries[i] = (struct fair_queue_entry){0};
}

static void expect_next(size_t number)
{
    ck_assert_ptr_eq(fair_queue_first(&queue), &entries[number]);
    fair_queue_remove(&entries[number]);
}

START_TEST(owners_take_turns)
{
    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], FIRST);
    fair_queue_append(&queue, &entries[2], FIRST);
    fair_queue_append(&queue, &entries[3], SECOND);
    fair_queue_append(&queue, &entries[4], SECOND);
    fair_queue_append(&queue, &entries[5], 0);
    expect_next(0);
    expect_next(3);
    expect_next(5);
    expect_next(1);
    expect_next(4);
    expect_next(2);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

START_TEST(a_newcomer_comes_before_owners_that_have_had_a_turn)
{
    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], FIRST);
    fair_queue_append(&queue, &entries[2], 0);
    fair_queue_append(&queue, &entries[3], 0);
    expect_next(0);
    expect_next(2);
    fair_queue_append(&queue, &entries[4], SECOND);
    expect_next(4);
    expect_next(1);
    expect_next(3);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

/* One that always waits again, with one entry at a time, is always a newcomer. */
START_TEST(newcomers_do_not_keep_the_others_waiting_for_ever)
{
    unsigned newcomers = 0;

    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], FIRST);
    expect_next(0);
    fair_queue_append(&queue, &entries[2], SECOND);
    while (fair_queue_first(&queue) == &entries[2]) {
        fair_queue_remove(&entries[2]);
        fair_queue_append(&queue, &entries[2], SECOND);
        newcomers++;
        ck_assert_uint_le(newcomers, FAIR_QUEUE_NEWCOMERS_MAX);
    }
    expect_next(1);
    expect_next(2);
}
END_TEST

START_TEST(an_entry_that_gives_up_leaves_the_others_turns)
{
    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], SECOND);
    fair_queue_append(&queue, &entries[2], SECOND);
    fair_queue_remove(&entries[1]);
    ck_assert(!fair_queue_has(&entries[1]));
    fair_queue_remove(&entries[1]);
    expect_next(0);
    expect_next(2);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

START_TEST(an_entry_that_is_put_back_keeps_its_place)
{
    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], FIRST);
    fair_queue_append(&queue, &entries[2], SECOND);
    expect_next(0);
    expect_next(2);
    expect_next(1);
    fair_queue_append(&queue, &entries[3], FIRST);
    fair_queue_append(&queue, &entries[4], 0);
    fair_queue_put_back(&queue, &entries[1], FIRST);
    fair_queue_put_back(&queue, &entries[2], SECOND);
    fair_queue_put_back(&queue, &entries[0], FIRST);
    expect_next(0);
    expect_next(2);
    expect_next(4);
    expect_next(1);
    expect_next(3);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

Suite *fair_queue_suite(void)
{
    Suite *suite = suite_create("fair queue");
    TCase *tests = tcase_create("fair queue");

    tcase_add_checked_fixture(tests, begin_test, NULL);
    tcase_add_test(tests, owners_take_turns);
    tcase_add_test(tests, a_newcomer_comes_before_owners_that_have_had_a_turn);
    tcase_add_test(tests, newcomers_do_not_keep_the_others_waiting_for_ever);
    tcase_add_test(tests, an_entry_that_gives_up_leaves_the_others_turns);
    tcase_add_test(tests, an_entry_that_is_put_back_keeps_its_place);
    suite_add_tcase(suite, tests);
    return suite;
}
