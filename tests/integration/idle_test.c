/* What an idle daemon uses of the machine. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct daemon daemon_of_test;

/* --- Sleep ----------------------------------------------------------------------------------------- */

/* Return how often the daemon's loop has waited for events. */
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
    /* The daemon may be about to follow them. */
    wait_until(wake_ups_per_second() < WAKE_UPS_MAX, "a daemon that sleeps");
    ck_assert_uint_eq(stat_of(client, "cache.buckets"), BUCKETS);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Memory ---------------------------------------------------------------------------------------- */

#ifndef __SANITIZE_ADDRESS__ /* which keeps freed memory */
#define MEGABYTE_KB 1024u

static uint64_t daemon_resident_kb(void)
{
    return resident_kb(daemon_of_test.process.pid);
}

START_TEST(memory_of_evicted_keys_is_returned_to_the_system)
{
    enum { KEYS = 200000, AT_ONCE = 10000 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    uint64_t before_kb = daemon_resident_kb();
    for (unsigned i = 0; i < KEYS; i += AT_ONCE)
        put_many(client, bucket, "k", i, AT_ONCE, 64);
    wait_until_cached(client, bucket, "k000000");
    wait_for_stat(client, "cache.keys", KEYS);
    ck_assert_uint_ge(daemon_resident_kb(), before_kb + 30 * MEGABYTE_KB);
    assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    wait_until(daemon_resident_kb() < before_kb + 15 * MEGABYTE_KB, "a daemon that gives its memory back");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(memory_of_a_burst_of_large_messages_is_returned_to_the_system)
{
    enum { SESSIONS = 40, PUTS = 20 };
    size_t size = 200000;
    struct client *clients[SESSIONS];
    msgpack_sbuffer puts;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    char *value = keep(calloc(1, size));
    uint64_t before_kb = daemon_resident_kb();
    msgpack_sbuffer_init(&puts);
    for (unsigned i = 0; i < PUTS; i++)
        pack_put(&puts, i, bucket, format_text("k%u", i), value, size);
    /* While the server is stopped, all of it stays in the daemon. */
    pid_t server = daemon_nats_pid(&daemon_of_test);
    pid_suspend(server);
    for (unsigned i = 0; i < SESSIONS; i++) {
        clients[i] = client_open(&daemon_of_test);
        client_write(clients[i], puts.data, puts.size);
    }
    msgpack_sbuffer_destroy(&puts);
    wait_until(daemon_resident_kb() > before_kb + 100 * MEGABYTE_KB, "a daemon that has much to write");
    pid_resume(server);
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned put = 0; put < PUTS; put++)
            assert_ok(client_receive(clients[i]));
    }
    wait_until(daemon_resident_kb() < before_kb + 40 * MEGABYTE_KB, "a daemon that gives its memory back");
    daemon_stop(&daemon_of_test);
}
END_TEST
#endif

Suite *idle_suite(void)
{
    Suite *suite = suite_create("idle");
    TCase *tests = tcase_create("idle");

    tcase_add_test(tests, buckets_that_are_followed_do_not_wake_the_daemon);
#ifndef __SANITIZE_ADDRESS__
    tcase_add_test(tests, memory_of_evicted_keys_is_returned_to_the_system);
    tcase_add_test(tests, memory_of_a_burst_of_large_messages_is_returned_to_the_system);
#endif
    suite_add_tcase(suite, tests);
    return suite;
}
