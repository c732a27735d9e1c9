#include "daemon/base/metrics.h"
#include "tests/unit/suites.h"

#include <string.h>

static struct metrics_histogram histogram;

static void set_up(void)
{
    memset(&histogram, 0, sizeof(histogram));
}

START_TEST(values_are_counted_below_each_power_of_two)
{
    /* Each value up to 2^14 once: exactly 2^n of them are below 2^n. */
    for (uint64_t value = 0; value < (1u << 14); value++)
        metrics_note(&histogram, value);
    for (unsigned exponent = 3; exponent <= 14; exponent++)
        ck_assert_uint_eq(metrics_count_below(&histogram, exponent), 1u << exponent);
    ck_assert_uint_eq(metrics_count_below(&histogram, 20), histogram.count);
    ck_assert_uint_eq(histogram.sum, ((uint64_t)1 << 27) - ((uint64_t)1 << 13));
}
END_TEST

START_TEST(values_beyond_the_last_bucket_are_in_the_count_alone)
{
    metrics_note(&histogram, UINT64_MAX / 2);
    ck_assert_uint_eq(histogram.count, 1);
    ck_assert_uint_eq(metrics_count_below(&histogram, 26), 0);
}
END_TEST

START_TEST(a_bucket_counts_more_than_32_bits_can)
{
    histogram.buckets[0] = UINT32_MAX;
    metrics_note(&histogram, 0);
    ck_assert_uint_eq(metrics_count_below(&histogram, 3), (uint64_t)UINT32_MAX + 1);
}
END_TEST

Suite *metrics_suite(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tests = tcase_create("metrics");

    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, values_are_counted_below_each_power_of_two);
    tcase_add_test(tests, values_beyond_the_last_bucket_are_in_the_count_alone);
    tcase_add_test(tests, a_bucket_counts_more_than_32_bits_can);
    suite_add_tcase(suite, tests);
    return suite;
}
