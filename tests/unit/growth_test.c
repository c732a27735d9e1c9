/* The rule by which rows of make scale fail. */
#include "tests/scale/growth.h"
#include "tests/unit/suites.h"

static const struct growth_row time_row = {"time", "µs", GROWTH_TIME, GROWTH_LINEAR, .most = 0};
static const struct growth_row amount_row = {"amount", "ms", GROWTH_AMOUNT, GROWTH_SHOWN, .most = 100};

/* Return whether a row fails with these processor times and elapsed times at 1,000, 10,000 and 100,000 keys. */
static bool fails_with(bool is_short, const double processor_us[3], const double passed_us[3])
{
    struct growth growth;
    uint64_t keys = 1000;

    growth_init(&growth, "table", "keys", &time_row, 1, is_short);
    for (unsigned i = 0; i < 3; i++, keys *= 10) {
        growth_add_size(&growth, keys);
        growth_add(&growth, 0, (struct growth_sample){(double)keys, passed_us[i], processor_us[i]});
    }
    bool does_fail = growth_fails(&growth, 0);
    growth_free(&growth);
    return does_fail;
}

static const double linear_us[] = {10e3, 100e3, 1e6}, quadratic_us[] = {10e3, 1e6, 100e6},
                    with_start_us[] = {200e3, 290e3, 1.2e6}, twice_us[] = {10e3, 200e3, 2e6};

START_TEST(a_cost_in_proportion_to_the_keys_does_not_fail)
{
    ck_assert(!fails_with(false, linear_us, linear_us));
    ck_assert(!fails_with(false, twice_us, twice_us));
    ck_assert(!fails_with(false, with_start_us, with_start_us));
}
END_TEST

START_TEST(a_quadratic_cost_fails)
{
    ck_assert(fails_with(false, quadratic_us, linear_us));
    ck_assert(fails_with(false, linear_us, quadratic_us));
    ck_assert(fails_with(true, quadratic_us, linear_us));
}
END_TEST

/* A cost of few keys that is mostly the cost of the call hides nothing. */
START_TEST(a_cost_that_is_quadratic_from_the_second_size_on_fails)
{
    const double late_us[] = {200e3, 100e3, 10e6};

    ck_assert(fails_with(false, late_us, linear_us));
}
END_TEST

START_TEST(the_short_version_does_not_judge_the_time_that_passed)
{
    ck_assert(!fails_with(true, linear_us, quadratic_us));
}
END_TEST

START_TEST(sizes_that_took_too_little_are_not_compared)
{
    const double too_little_us[] = {10, 1000, 1e6};

    ck_assert(!fails_with(false, too_little_us, linear_us));
}
END_TEST

/* Another program can disturb the first rounds, however many these are. */
START_TEST(the_round_with_the_lowest_processor_time_counts)
{
    struct growth growth;

    growth_init(&growth, "table", "keys", &time_row, 1, false);
    growth_add_size(&growth, 1000);
    growth_add(&growth, 0, (struct growth_sample){1000, 10e3, 10e3});
    growth_add_size(&growth, 10000);
    for (unsigned round = 0; round <= GROWTH_ROUNDS_MAX; round++)
        growth_add(&growth, 0, (struct growth_sample){10000, 1e6, 1e6});
    ck_assert(growth_fails(&growth, 0));
    growth_add(&growth, 0, (struct growth_sample){10000, 100e3, 100e3});
    ck_assert(!growth_fails(&growth, 0));
    growth_add(&growth, 0, (struct growth_sample){10000, 1e6, 1e6});
    ck_assert(!growth_fails(&growth, 0));
    growth_free(&growth);
}
END_TEST

START_TEST(the_median_of_the_rounds_counts)
{
    struct growth growth;

    growth_init(&growth, "table", "keys", &amount_row, 1, false);
    growth_add_size(&growth, 1000);
    growth_add(&growth, 0, (struct growth_sample){1, 5000, 0});
    growth_add(&growth, 0, (struct growth_sample){1, 10, 0});
    growth_add(&growth, 0, (struct growth_sample){1, 20, 0});
    ck_assert(!growth_fails(&growth, 0));
    growth_add(&growth, 0, (struct growth_sample){1, 5000, 0});
    growth_add(&growth, 0, (struct growth_sample){1, 5000, 0});
    ck_assert(growth_fails(&growth, 0));
    growth_free(&growth);
}
END_TEST

START_TEST(an_operation_that_failed_fails_its_row)
{
    struct growth growth;

    growth_init(&growth, "table", "keys", &time_row, 1, true);
    growth_add_size(&growth, 1000);
    growth_fail(&growth, 0, "kv.keys: %s", "deadline_exceeded");
    ck_assert(growth_has_failed(&growth, 0));
    ck_assert(growth_fails(&growth, 0));
    growth_free(&growth);
}
END_TEST

Suite *growth_suite(void)
{
    Suite *suite = suite_create("growth");
    TCase *tests = tcase_create("growth");

    tcase_add_test(tests, a_cost_in_proportion_to_the_keys_does_not_fail);
    tcase_add_test(tests, a_quadratic_cost_fails);
    tcase_add_test(tests, a_cost_that_is_quadratic_from_the_second_size_on_fails);
    tcase_add_test(tests, the_short_version_does_not_judge_the_time_that_passed);
    tcase_add_test(tests, sizes_that_took_too_little_are_not_compared);
    tcase_add_test(tests, the_round_with_the_lowest_processor_time_counts);
    tcase_add_test(tests, the_median_of_the_rounds_counts);
    tcase_add_test(tests, an_operation_that_failed_fails_its_row);
    suite_add_tcase(suite, tests);
    return suite;
}
