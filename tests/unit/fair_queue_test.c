/* What waits takes turns by user, and then by session; the entries of one session keep their order. */
#include "daemon/base/fair_queue.h"
#include "tests/unit/suites.h"

static struct fair_queue queue;
static struct fair_queue_entry entries[6];

/* One session each of two users, and further sessions of the first. */
#define FIRST      fair_queue_identity(0, 1)
#define SECOND     fair_queue_identity(1000, 2)
#define FIRST_B    fair_queue_identity(0, 3)
#define FIRST_C    fair_queue_identity(0, 4)
#define AFTER_WRAP fair_queue_identity(0, UINT32_MAX)

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

START_TEST(users_take_turns)
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

START_TEST(a_newcomer_comes_before_users_that_have_had_a_turn)
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

/* A user with one entry that waits on has as many turns as one with two. */
START_TEST(an_entry_that_waits_on_is_no_newcomer)
{
    unsigned turns[3] = {0};

    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], SECOND);
    fair_queue_append(&queue, &entries[2], SECOND);
    for (unsigned i = 0; i < 40; i++) {
        struct fair_queue_entry *first = fair_queue_first(&queue);
        turns[first - entries]++;
        fair_queue_remove(first);
        fair_queue_append_again(&queue, first, first == &entries[0] ? FIRST : SECOND);
    }
    ck_assert_uint_eq(turns[0], 20);
    ck_assert_uint_eq(turns[1], 10);
    ck_assert_uint_eq(turns[2], 10);
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

START_TEST(a_user_with_many_sessions_has_the_turns_of_one)
{
    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], FIRST_B);
    fair_queue_append(&queue, &entries[2], FIRST_C);
    fair_queue_append(&queue, &entries[3], SECOND);
    fair_queue_append(&queue, &entries[4], SECOND);
    expect_next(0);
    expect_next(3);
    expect_next(1);
    expect_next(4);
    expect_next(2);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

START_TEST(the_sessions_of_a_user_take_turns)
{
    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], FIRST);
    fair_queue_append(&queue, &entries[2], FIRST_B);
    expect_next(0);
    fair_queue_append(&queue, &entries[3], FIRST_C); /* a newcomer */
    expect_next(2);
    expect_next(3);
    expect_next(1);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

START_TEST(no_session_has_the_identity_of_its_user_or_of_nobody)
{
    fair_queue_append(&queue, &entries[0], fair_queue_identity(UINT32_MAX - 1, 0));
    fair_queue_append(&queue, &entries[1], AFTER_WRAP);
    fair_queue_append(&queue, &entries[2], 0);
    expect_next(0);
    expect_next(1);
    expect_next(2);
    ck_assert_ptr_null(fair_queue_first(&queue));
}
END_TEST

START_TEST(an_entry_that_gives_up_leaves_the_turn_to_its_session)
{
    fair_queue_append(&queue, &entries[0], FIRST);
    fair_queue_append(&queue, &entries[1], FIRST);
    fair_queue_append(&queue, &entries[2], SECOND);
    fair_queue_remove(&entries[1]);
    expect_next(0);
    expect_next(2);
}
END_TEST

Suite *fair_queue_suite(void)
{
    Suite *suite = suite_create("fair queue");
    TCase *tests = tcase_create("fair queue");

    tcase_add_checked_fixture(tests, begin_test, NULL);
    tcase_add_test(tests, users_take_turns);
    tcase_add_test(tests, a_newcomer_comes_before_users_that_have_had_a_turn);
    tcase_add_test(tests, newcomers_do_not_keep_the_others_waiting_for_ever);
    tcase_add_test(tests, an_entry_that_waits_on_is_no_newcomer);
    tcase_add_test(tests, an_entry_that_gives_up_leaves_the_others_turns);
    tcase_add_test(tests, an_entry_that_is_put_back_keeps_its_place);
    tcase_add_test(tests, a_user_with_many_sessions_has_the_turns_of_one);
    tcase_add_test(tests, the_sessions_of_a_user_take_turns);
    tcase_add_test(tests, no_session_has_the_identity_of_its_user_or_of_nobody);
    tcase_add_test(tests, an_entry_that_gives_up_leaves_the_turn_to_its_session);
    suite_add_tcase(suite, tests);
    return suite;
}
