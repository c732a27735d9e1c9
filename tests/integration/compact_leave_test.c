/* bucket.compact, of a client that does not wait for the answer. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"

#include <string.h>

enum { KEYS = 20000 };

static uint64_t count_values(struct client *client, const char *bucket)
{
    const struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);

    assert_ok(answer);
    return number_at(&answer->result, "values");
}

/* Each marker after a value is removed by itself. */
static const char *new_bucket_with_markers(struct client *client)
{
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");

    put_text(client, bucket, "first", "v");
    for (unsigned i = 0; i < KEYS; i += 10000)
        put_many(client, bucket, "m.a", i, 10000, 10);
    assert_ok(client_call(client, "bulk.delete", "['%s', {'filter': 'm.*', 'timeout': 60}]", bucket));
    return bucket;
}

/* Return the number of messages that are left. */
static uint64_t leave_compaction(struct client *client, const char *bucket)
{
    struct client *leaving = client_open_shared();
    uint64_t values = count_values(client, bucket);

    client_send(leaving, "bucket.compact", "['%s', {'older_than': 0, 'timeout': 60}]", bucket);
    while (count_values(client, bucket) >= values)
        ;
    client_close(leaving);
    wait_for_stat(client, "calls_in_flight", 1);
    return count_values(client, bucket);
}

/* On a busy machine, the markers may be gone before the client has left. */
START_TEST(a_compaction_stops_if_its_client_leaves)
{
    struct client *client = client_open_shared();
    unsigned attempts = 0;
    const char *bucket;

    while (leave_compaction(client, bucket = new_bucket_with_markers(client)) <= 2)
        ck_assert_uint_lt(++attempts, 10);
    const struct answer *answer =
        client_call(client, "bucket.compact", "['%s', {'older_than': 0, 'timeout': 60}]", bucket);
    assert_ok(answer);
    ck_assert_uint_gt(number_at(&answer->result, ""), 0);
    ck_assert_uint_eq(count_values(client, bucket), 2); /* the value, and up to where markers were removed */
}
END_TEST

Suite *compact_leave_suite(void)
{
    Suite *suite = suite_create("compact_leave");
    TCase *tests = shared_daemon_case(suite, "compactions");

    tcase_add_test(tests, a_compaction_stops_if_its_client_leaves);
    suite_add_tcase(suite, tests);
    return suite;
}
