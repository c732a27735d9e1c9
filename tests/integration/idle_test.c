/* What a daemon takes of the machine when nobody asks it anything. */
#include "tests/integration/client.h"
#include "tests/integration/suites.h"
#include "tests/integration/watching.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct daemon daemon_of_test;

/* --- Sleep ----------------------------------------------------------------------------------------- */

/* How often the daemon's loop has waited for something. */
static unsigned long long wake_ups(void)
{
    unsigned long long count = 0;
    const char *status = read_file(format_text("/proc/%d/status", (int)daemon_of_test.process.pid));
    const char *line = strstr(status, "\nvoluntary_ctxt_switches:");

    ck_assert(line != NULL && sscanf(line, "\nvoluntary_ctxt_switches: %llu", &count) == 1);
    return count;
}

static double wake_ups_per_second(void)
{
    uint64_t start_ns = now_ns();
    unsigned long long before = wake_ups();

    usleep(2000000);
    return (double)(wake_ups() - before) * 1e9 / (double)(now_ns() - start_ns);
}

START_TEST(buckets_that_are_followed_do_not_wake_the_daemon)
{
    enum { BUCKETS = 200, WAKE_UPS_MAX = 30 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    for (unsigned i = 0; i < BUCKETS; i++) {
        const char *bucket = client_new_bucket(client, "'storage': 'memory'");
        put_text(client, bucket, "k", "v");
        assert_ok(client_call(client, "kv.get", "['%s', 'k']", bucket));
    }
    wait_for_stat(client, "cache.buckets", BUCKETS);
    /* They may be on their way to being followed. */
    wait_until(wake_ups_per_second() < WAKE_UPS_MAX, "a daemon that sleeps");
    ck_assert_uint_eq(stat_of(client, "cache.buckets"), BUCKETS);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *idle_suite(void)
{
    Suite *suite = suite_create("idle");
    TCase *tests = tcase_create("idle");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, buckets_that_are_followed_do_not_wake_the_daemon);
    suite_add_tcase(suite, tests);
    return suite;
}
