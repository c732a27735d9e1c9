/* The lowest revisions that answers from memory must have. */
#include "daemon/store/follow/min_revision.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <string.h>

static struct min_revisions minimums;

/* What the copy has of each key. */
static uint64_t delivered;

static void begin(void)
{
    memset(&minimums, 0, sizeof(minimums));
    delivered = UINT64_MAX;
}

static void end(void)
{
    min_revision_clear(&minimums);
}

static uint64_t minimum_of(const char *key)
{
    return min_revision_of(&minimums, key, strlen(key));
}

static bool has(const void *arg, const char *key, uint64_t revision)
{
    (void)arg;
    (void)key;
    return delivered >= revision;
}

static void reach(uint64_t position)
{
    min_revision_drop_reached(&minimums, position, has, NULL);
}

static bool is_doubtful(const char *key)
{
    return min_revision_is_doubtful(&minimums, key, strlen(key));
}

START_TEST(a_minimum_rises_and_is_dropped_once_the_feed_has_reached_it)
{
    min_revision_raise(&minimums, "a", 5);
    min_revision_raise(&minimums, "a", 7);
    min_revision_raise(&minimums, "a", 6);
    min_revision_raise(&minimums, "b", 8);
    ck_assert_uint_eq(minimum_of("a"), 7);
    ck_assert_uint_eq(minimum_of("other"), 0);
    reach(7);
    ck_assert_uint_eq(minimum_of("a"), 0);
    ck_assert_uint_eq(minimum_of("b"), 8);
}
END_TEST

START_TEST(a_minimum_that_was_overwritten_before_it_was_delivered_stays_until_a_newer_message)
{
    delivered = 5;
    min_revision_raise(&minimums, "a", 5);
    min_revision_raise(&minimums, "b", 6);
    min_revision_raise(&minimums, "c", 8);
    reach(7);
    ck_assert_uint_eq(minimum_of("a"), 0);
    ck_assert_uint_eq(minimum_of("b"), 6);
    ck_assert_uint_eq(minimum_of("c"), 8);
    ck_assert_uint_eq(minimums.doubtful_count, 0);
    min_revision_trust(&minimums, "b", 4); /* of a follower that is behind */
    ck_assert_uint_eq(minimum_of("b"), 6);
    min_revision_trust(&minimums, "b", 7);
    ck_assert_uint_eq(minimum_of("b"), 0);
    min_revision_skip(&minimums, "d", 3);
    min_revision_raise(&minimums, "d", 9);
    ck_assert_uint_eq(minimum_of("d"), 9);
    min_revision_skip(&minimums, "d", 5);
    ck_assert_uint_eq(minimum_of("d"), 9);
    ck_assert_uint_eq(minimums.skipped_count, 1);
    min_revision_trust(&minimums, "d", 4);
    ck_assert_uint_eq(minimum_of("d"), 9);
    ck_assert_uint_eq(minimums.skipped_count, 0);
}
END_TEST

START_TEST(a_check_ends_only_minimums_of_which_nothing_is_to_come)
{
    min_revision_skip(&minimums, "gone", 5);
    min_revision_skip(&minimums, "newer", 6);
    min_revision_skip(&minimums, "raised", 7);
    min_revision_begin_check(&minimums);
    min_revision_note_newer(&minimums, "newer");
    min_revision_raise(&minimums, "raised", 20);
    min_revision_skip(&minimums, "later", 8);
    min_revision_trust_all(&minimums);
    ck_assert_uint_eq(minimum_of("gone"), 0);
    ck_assert_uint_eq(minimum_of("newer"), 6);
    ck_assert_uint_eq(minimum_of("raised"), 20);
    ck_assert_uint_eq(minimum_of("later"), 8);
    ck_assert_uint_eq(minimums.skipped_count, 3);
}
END_TEST

/* A listing that waits for 5 would not know of the key, which has no message between 5 and 8. */
START_TEST(a_minimum_that_rises_is_skipped_once_the_feed_has_passed_its_first_revision)
{
    delivered = 3;
    min_revision_raise(&minimums, "a", 5);
    min_revision_raise(&minimums, "a", 8);
    reach(4);
    ck_assert(!min_revision_has_open_keys(&minimums));
    reach(6);
    ck_assert(min_revision_has_open_keys(&minimums));
    ck_assert_uint_eq(minimum_of("a"), 8);
    min_revision_trust(&minimums, "a", 8);
    ck_assert(!min_revision_has_open_keys(&minimums));
    ck_assert_uint_eq(minimum_of("a"), 0);
    delivered = 5;
    min_revision_raise(&minimums, "b", 5);
    min_revision_raise(&minimums, "b", 8);
    reach(6);
    ck_assert(!min_revision_has_open_keys(&minimums));
    ck_assert_uint_eq(minimum_of("b"), 8);
}
END_TEST

START_TEST(reads_of_all_keys_wait_for_the_highest_revision_that_was_written_or_answered)
{
    min_revision_note_write(&minimums, 3);
    ck_assert_uint_eq(min_revision_of_all(&minimums), 3);
    ck_assert_uint_eq(minimum_of("a"), 0);
    min_revision_raise(&minimums, "a", 9);
    reach(9);
    ck_assert_uint_eq(min_revision_of_all(&minimums), 9);
    min_revision_raise_all(&minimums, 12);
    ck_assert_uint_eq(min_revision_of_all(&minimums), 12);
    ck_assert_uint_eq(minimum_of("a"), 12);
}
END_TEST

START_TEST(a_key_is_doubtful_until_the_feed_or_a_reconciliation_says_otherwise)
{
    min_revision_doubt(&minimums, "a", 10);
    min_revision_doubt(&minimums, "b", 10);
    ck_assert(is_doubtful("a"));
    reach(100);
    ck_assert(is_doubtful("a"));
    min_revision_trust(&minimums, "a", 100);
    ck_assert(!is_doubtful("a"));
    ck_assert(is_doubtful("b"));
    min_revision_trust_all(&minimums);
    ck_assert(!is_doubtful("b"));
}
END_TEST

START_TEST(a_minimum_is_kept_while_a_key_is_doubtful)
{
    min_revision_raise(&minimums, "a", 5);
    min_revision_doubt(&minimums, "a", 3);
    min_revision_raise(&minimums, "a", 6);
    min_revision_trust(&minimums, "a", 100);
    ck_assert_uint_ge(minimum_of("a"), 6);
}
END_TEST

START_TEST(with_too_many_keys_the_minimum_is_that_of_all)
{
    char key[16];

    for (unsigned i = 1; i <= 70000; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        min_revision_raise(&minimums, key, i);
        ck_assert_uint_ge(minimum_of(key), i);
    }
    ck_assert_uint_eq(minimum_of("other"), 70000);
    min_revision_doubt(&minimums, "other", 80000);
    ck_assert_uint_eq(minimum_of("other"), 80001);
}
END_TEST

Suite *min_revision_suite(void)
{
    Suite *suite = suite_create("min_revision");
    TCase *tests = tcase_create("minimums");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_minimum_rises_and_is_dropped_once_the_feed_has_reached_it);
    tcase_add_test(tests, a_minimum_that_was_overwritten_before_it_was_delivered_stays_until_a_newer_message);
    tcase_add_test(tests, a_minimum_that_rises_is_skipped_once_the_feed_has_passed_its_first_revision);
    tcase_add_test(tests, a_check_ends_only_minimums_of_which_nothing_is_to_come);
    tcase_add_test(tests, reads_of_all_keys_wait_for_the_highest_revision_that_was_written_or_answered);
    tcase_add_test(tests, a_key_is_doubtful_until_the_feed_or_a_reconciliation_says_otherwise);
    tcase_add_test(tests, a_minimum_is_kept_while_a_key_is_doubtful);
    tcase_add_test(tests, with_too_many_keys_the_minimum_is_that_of_all);
    suite_add_tcase(suite, tests);
    return suite;
}
