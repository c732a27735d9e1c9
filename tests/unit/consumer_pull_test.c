/* How much a reading of a list asks for: the server loses an entry if a message does not fit. */
#include "daemon/nats/connection_parts.h"
#include "daemon/nats/consumer_pull.h"
#include "tests/unit/suites.h"

static struct connection connection;

/* Return the number of messages of the next pull of a list, and set *max_bytes. */
static unsigned next_size(const struct consumer_pull *pull, size_t *max_bytes)
{
    connection.status.max_payload_bytes = 1024 * 1024;
    return consumer_pull_size(pull, &connection, true, max_bytes);
}

static void deliver(struct consumer_pull *pull, unsigned count, size_t bytes)
{
    pull->delivered = count;
    pull->delivered_bytes = (uint64_t)count * bytes;
    consumer_pull_end(pull);
}

START_TEST(pulls_have_about_two_megabytes)
{
    struct consumer_pull pull = {0};
    size_t max_bytes;

    consumer_pull_begin(&pull, false, 100, 100 * 100000);
    ck_assert_uint_eq(next_size(&pull, &max_bytes), 20);
    ck_assert_uint_eq(max_bytes, 8 * 1024 * 1024);
    deliver(&pull, 20, 1000000);
    ck_assert_uint_eq(next_size(&pull, &max_bytes), 2);
    deliver(&pull, 2, 10);
    ck_assert_uint_eq(next_size(&pull, &max_bytes), 4);
    for (unsigned i = 0; i < 20; i++)
        deliver(&pull, 10, 10);
    ck_assert_uint_eq(next_size(&pull, &max_bytes), 1000);
    ck_assert_uint_eq(consumer_pull_size(&pull, &connection, false, &max_bytes), 1000);
    ck_assert_uint_eq(max_bytes, 2 * 1024 * 1024);
}
END_TEST

START_TEST(a_list_is_not_broken_a_third_time)
{
    for (unsigned headers_only = 0; headers_only < 2; headers_only++) {
        struct consumer_pull pull = {0};
        size_t max_bytes, largest = headers_only ? 65536 + 1024 : 1024 * 1024 + 1024;

        consumer_pull_begin(&pull, headers_only, 1000000, 1000000);
        ck_assert_uint_eq(next_size(&pull, &max_bytes), 1000);
        pull.delivered = 40;
        consumer_pull_shrink(&pull, &connection);
        ck_assert_uint_le(next_size(&pull, &max_bytes), 32);
        consumer_pull_shrink(&pull, &connection);
        consumer_pull_begin(&pull, headers_only, 1000000, 1000000); /* it starts over */
        unsigned count = next_size(&pull, &max_bytes);
        ck_assert_uint_gt(count, 1);
        ck_assert_uint_le(count * largest, max_bytes);
    }
}
END_TEST

Suite *consumer_pull_suite(void)
{
    Suite *suite = suite_create("consumer pull");
    TCase *tests = tcase_create("consumer pull");

    tcase_add_test(tests, pulls_have_about_two_megabytes);
    tcase_add_test(tests, a_list_is_not_broken_a_third_time);
    suite_add_tcase(suite, tests);
    return suite;
}
