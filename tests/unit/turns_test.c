/* Users take turns, however many sessions each has. */
#include "daemon/base/turns.h"
#include "tests/unit/suites.h"

#include <stddef.h>

enum { DAEMON = -1, MANY, ONE };

struct compaction {
    struct turn turn;
    unsigned position; /* in which it began, from 1; 0: it did not */
};

static struct jobs jobs;
static struct turns turns;
static struct compaction compactions[8];
static unsigned begun;

static void begin_test(void)
{
    jobs_init(&jobs);
    turns = (struct turns){.jobs = &jobs, .max = 2};
    begun = 0;
    for (size_t i = 0; i < 8; i++)
        compactions[i] = (struct compaction){.position = 0};
}

static void begin(struct turn *turn)
{
    ((struct compaction *)((char *)turn - offsetof(struct compaction, turn)))->position = ++begun;
}

/* Each is of a session of its own. */
static void wait_for_turn(size_t number, int user)
{
    turns_wait(&turns, &compactions[number].turn, user != DAEMON ? fair_queue_identity((uint32_t)user, number) : 0,
               begin);
    jobs_run(&jobs);
}

static void leave(size_t number)
{
    turns_leave(&turns, &compactions[number].turn);
    jobs_run(&jobs);
}

START_TEST(few_compactions_run_at_a_time)
{
    for (size_t i = 0; i < 4; i++)
        wait_for_turn(i, MANY);
    ck_assert_uint_eq(begun, 2);
    leave(3); /* it waited */
    ck_assert_uint_eq(begun, 2);
    leave(0);
    ck_assert_uint_eq(compactions[2].position, 3);
    leave(1);
    leave(2);
    ck_assert_uint_eq(begun, 3);
    ck_assert_uint_eq(turns.taken, 0);
}
END_TEST

START_TEST(a_user_with_many_compactions_does_not_keep_others_waiting)
{
    for (size_t i = 0; i < 6; i++)
        wait_for_turn(i, MANY);
    wait_for_turn(6, ONE);
    wait_for_turn(7, DAEMON);
    for (size_t i = 0; i < 3; i++)
        leave(i);
    ck_assert_uint_eq(begun, 5);
    ck_assert_uint_ne(compactions[6].position, 0);
    ck_assert_uint_ne(compactions[7].position, 0);
    leave(6);
    leave(7);
    leave(3);
    ck_assert_uint_eq(begun, 8);
}
END_TEST

Suite *turns_suite(void)
{
    Suite *suite = suite_create("turns");
    TCase *tests = tcase_create("turns");

    tcase_add_checked_fixture(tests, begin_test, NULL);
    tcase_add_test(tests, few_compactions_run_at_a_time);
    tcase_add_test(tests, a_user_with_many_compactions_does_not_keep_others_waiting);
    suite_add_tcase(suite, tests);
    return suite;
}
