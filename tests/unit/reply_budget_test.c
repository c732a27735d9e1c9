/* Replies in flight together stay within the budget, whatever their sizes are. */
#include "daemon/nats/reply_budget.h"
#include "tests/unit/suites.h"

#define MIB (1024u * 1024u)

static struct reply_budget budget;

static void begin(void)
{
    reply_budget_init(&budget, 1000);
}

static void note_replies(unsigned count, uint64_t now_ms, size_t bytes)
{
    while (count-- > 0)
        reply_budget_note_reply(&budget, now_ms, bytes);
}

START_TEST(the_first_replies_are_expected_to_be_large)
{
    ck_assert_uint_eq(reply_budget_expect(&budget, 1, 0), MIB);
    note_replies(255, 1000, 10);
    ck_assert_uint_eq(reply_budget_expect(&budget, 1, 0), MIB);
    note_replies(1, 1000, 10);
    ck_assert_uint_lt(reply_budget_expect(&budget, 1, 0), 8192);
}
END_TEST

START_TEST(a_large_reply_counts_for_two_periods)
{
    note_replies(256, 1000, 10);
    note_replies(1, 2000, MIB);
    ck_assert_uint_ge(reply_budget_expect(&budget, 1, 0), MIB);
    note_replies(1, 12000, 10);
    ck_assert_uint_ge(reply_budget_expect(&budget, 1, 0), MIB);
    note_replies(1, 23000, 10);
    ck_assert_uint_lt(reply_budget_expect(&budget, 1, 0), 8192);
}
END_TEST

START_TEST(a_loss_with_replies_in_flight_resets_the_expected_size)
{
    note_replies(256, 1000, 10);
    reply_budget_note_loss(&budget, 2 * MIB);
    ck_assert_uint_lt(reply_budget_expect(&budget, 1, 0), 8192);
    reply_budget_charge(&budget, 8192);
    reply_budget_note_loss(&budget, 2 * MIB);
    ck_assert_uint_eq(reply_budget_expect(&budget, 1, 0), 2 * MIB);
}
END_TEST

START_TEST(a_reply_is_expected_within_its_own_limit)
{
    ck_assert_uint_eq(reply_budget_expect(&budget, 0, 100), 0);
    ck_assert_uint_eq(reply_budget_expect(&budget, 3, 2 * MIB), 2 * MIB);
    ck_assert_uint_eq(reply_budget_expect(&budget, REPLY_BUDGET_ALL, 5 * MIB), 5 * MIB);
    ck_assert_uint_eq(reply_budget_expect(&budget, 2, 5 * MIB), 2 * MIB);
}
END_TEST

START_TEST(one_reply_always_fits)
{
    ck_assert(reply_budget_fits(&budget, 100 * MIB, 0));
    reply_budget_charge(&budget, 7 * MIB);
    ck_assert(reply_budget_fits(&budget, MIB, 0));
    ck_assert(!reply_budget_fits(&budget, MIB + 1, 0));
    reply_budget_refund(&budget, 7 * MIB);
    ck_assert(reply_budget_fits(&budget, 100 * MIB, 0));
}
END_TEST

Suite *reply_budget_suite(void)
{
    Suite *suite = suite_create("reply budget");
    TCase *tests = tcase_create("reply budget");

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_test(tests, the_first_replies_are_expected_to_be_large);
    tcase_add_test(tests, a_large_reply_counts_for_two_periods);
    tcase_add_test(tests, a_loss_with_replies_in_flight_resets_the_expected_size);
    tcase_add_test(tests, a_reply_is_expected_within_its_own_limit);
    tcase_add_test(tests, one_reply_always_fits);
    suite_add_tcase(suite, tests);
    return suite;
}
