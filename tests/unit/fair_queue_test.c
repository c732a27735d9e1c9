/* Requests that wait take turns by owner; the requests of one owner keep their order. */
#include "daemon/base/fair_queue.h"
#include "tests/unit/suites.h"

static struct fair_queue queue;
static struct fair_queue_entry entries[6];
static const int first_owner, second_owner;

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
    fair_queue_append(&queue, &entries[0], &first_owner);
    fair_queue_append(&queue, &entries[1], &first_owner);
    fair_queue_append(&queue, &entries[2], &first_owner);
    fair_queue_append(&queue, &entries[3], &second_owner);
    fair_queue_append(&queue, &entries[4], &second_owner);
    fair_queue_append(&queue, &entries[5], NULL);
    expect_next(0);
    expect_next(3);
    expect_next(5);
    expect_next(1);
    expect_next(4);
    expect_next(2);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

START_TEST(an_entry_that_gives_up_leaves_the_others_turns)
{
    fair_queue_append(&queue, &entries[0], &first_owner);
    fair_queue_append(&queue, &entries[1], &second_owner);
    fair_queue_append(&queue, &entries[2], &second_owner);
    fair_queue_remove(&entries[1]);
    ck_assert(!fair_queue_has(&entries[1]));
    fair_queue_remove(&entries[1]);
    expect_next(0);
    expect_next(2);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

Suite *fair_queue_suite(void)
{
    Suite *suite = suite_create("fair queue");
    TCase *tests = tcase_create("fair queue");

    tcase_add_checked_fixture(tests, begin_test, NULL);
    tcase_add_test(tests, owners_take_turns);
    tcase_add_test(tests, an_entry_that_gives_up_leaves_the_others_turns);
    suite_add_tcase(suite, tests);
    return suite;
}
