/* daemon.metrics: the text, and what it counts. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/openmetrics.h"

#include <signal.h>
#include <unistd.h>

static struct daemon daemon_of_test;

/* Return the text that daemon.metrics answers, checked. */
static const char *metrics_of(struct client *client)
{
    struct answer *answer = client_call(client, "daemon.metrics", "[]");

    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_STR);
    const char *text = text_at(&answer->result, "");
    openmetrics_check(text);
    return text;
}

/* Make calls of many kinds, with and without success. */
static const char *make_calls(struct client *client)
{
    const char *bucket = client_new_bucket(client, "'max_bytes': 1000000, 'history': 3");

    for (unsigned i = 0; i < 5; i++)
        put_text(client, bucket, format_text("k%u", i), "value");
    for (unsigned i = 0; i < 3; i++)
        assert_code(client_call(client, "kv.create", "['%s', 'k1', 'v']", bucket), "already_exists");
    assert_ok(client_call(client, "kv.get", "['%s', 'k1']", bucket));
    assert_ok(client_call(client, "bulk.get", "['%s', ['k1', 'k2']]", bucket));
    assert_ok(client_call(client, "watch.start", "['%s']", bucket));
    assert_code(client_call(client, "kv.get", "['nowhere', 'k']"), "bucket_not_found");
    put_many(client, bucket, "m", 0, 100, 10);
    return bucket;
}

/* --- The text -------------------------------------------------------------------------------------- */

START_TEST(the_text_is_valid_openmetrics)
{
    daemon_start(&daemon_of_test, NULL, "metrics:\n  buckets: [b1, b2, b1]\n");
    struct client *client = client_open(&daemon_of_test);

    metrics_of(client);
    assert_ok(client_call(client, "bucket.create", "['b1']"));
    make_calls(client);
    metrics_of(client);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(calls_are_counted_by_method_and_code_with_their_durations)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);

    const char *before = metrics_of(client);
    ck_assert(!openmetrics_has_name(before, "kvstored_bucket_known"));
    ck_assert(!openmetrics_has(before, "kvstored_calls_total{method=\"kv.put\",code=\"ok\"}"));
    make_calls(client);
    const char *text = metrics_of(client);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_calls_total{method=\"kv.put\",code=\"ok\"}"), 5);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_calls_total{method=\"kv.create\",code=\"ok\"}"), 0);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_calls_total{method=\"kv.create\",code=\"already_exists\"}"),
                        3);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_errors_total{code=\"already_exists\"}"), 3);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_errors_total{code=\"internal\"}"), 0);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_call_duration_seconds_count{method=\"kv.put\"}"), 5);
    ck_assert_double_eq(
        openmetrics_value(text, "kvstored_call_duration_seconds_bucket{method=\"kv.put\",le=\"67.108864\"}"), 5);
    ck_assert_double_gt(openmetrics_value(text, "kvstored_call_duration_seconds_sum{method=\"kv.put\"}"), 0);
    ck_assert_double_gt(openmetrics_value(text, "kvstored_received_bytes_total"),
                        openmetrics_value(before, "kvstored_received_bytes_total"));
    ck_assert_double_gt(openmetrics_value(text, "kvstored_turn_duration_seconds_count"),
                        openmetrics_value(before, "kvstored_turn_duration_seconds_count"));
    ck_assert_double_eq(openmetrics_value(text, "kvstored_calls_in_flight"), 1);
    ck_assert_double_gt(openmetrics_value(text, "process_cpu_seconds_total"), 0);
    ck_assert_double_gt(openmetrics_value(text, "process_resident_memory_bytes"), 1e6);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(daemon_stats_and_the_text_agree)
{
    static const char *const pairs[][2] = {
        {"sessions.open", "kvstored_sessions_open"},
        {"sessions.total", "kvstored_sessions_total"},
        {"watches.open", "kvstored_watches_open"},
        {"watches.entries", "kvstored_watch_entries_total"},
        {"watches.behind", "kvstored_watches_behind"},
        {"cache.keys", "kvstored_cached_keys"},
        {"cache.hits", "kvstored_cache_hits_total"},
        {"group_commit.batches", "kvstored_group_commit_size_count"},
        {"group_commit.writes", "kvstored_group_commit_size_sum"},
        {"nats.reconnects", "kvstored_nats_reconnects_total"},
        {"unknown_outcomes", "kvstored_unknown_outcomes_total"},
        {"server_restarts", "kvstored_server_restarts_total"},
        {"retries", "kvstored_request_retries_total"},
    };
    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = make_calls(client);
    uint32_t sent[200];

    for (unsigned i = 0; i < 200; i++)
        sent[i] = client_send(client, "kv.put", "['%s', 'g%u', 'v']", bucket, i);
    for (unsigned i = 0; i < 200; i++)
        assert_ok(client_wait(client, sent[i]));
    wait_for_stat(client, "watches.entries", 305);
    const char *text = metrics_of(client);
    struct answer *stats = client_call(client, "daemon.stats", "[]");
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        ck_assert_msg(openmetrics_value(text, pairs[i][1]) == (double)number_at(&stats->result, pairs[i][0]), "%s",
                      pairs[i][0]);
    ck_assert_double_gt(openmetrics_value(text, "kvstored_group_commit_size_count"), 0);
    ck_assert(bool_at(&stats->result, "nats.connected"));
    ck_assert_double_eq(openmetrics_value(text, "kvstored_nats_connected"), 1);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(sessions_and_locks_are_shown_by_user)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    metrics_of(other);
    assert_ok(client_call(client, "lock.acquire", "['%s', 'job']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));
    const char *text = metrics_of(client);
    const char *label = format_text("{uid=\"%u\"}", (unsigned)getuid());
    ck_assert_double_eq(openmetrics_value(text, format_text("kvstored_user_sessions%s", label)), 2);
    ck_assert_double_eq(openmetrics_value(text, format_text("kvstored_user_calls_in_flight%s", label)), 1);
    ck_assert_double_gt(openmetrics_value(text, format_text("kvstored_user_call_memory_bytes%s", label)), 0);
    ck_assert_double_eq(openmetrics_value(text, format_text("kvstored_user_locks%s", label)), 2);
    client_send(other, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_stat(client, "locks.waiting", 1);
    ck_assert_double_eq(openmetrics_value(metrics_of(client), format_text("kvstored_user_locks%s", label)), 3);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Buckets --------------------------------------------------------------------------------------- */

START_TEST(buckets_of_the_configuration_show_their_values_and_limits)
{
    daemon_start(&daemon_of_test, NULL, "metrics:\n  buckets: [b1, b2, nowhere]\n");
    struct client *client = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b1', {'max_bytes': 5000000}]"));
    assert_ok(client_call(client, "bucket.create", "['b2']"));
    assert_ok(client_call(client, "bucket.create", "['b3']"));
    for (unsigned i = 0; i < 7; i++)
        put_text(client, "b1", format_text("k%u", i), "value");
    assert_ok(client_call(client, "watch.start", "['b1']"));
    const char *text = metrics_of(client);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_known{bucket=\"b1\"}"), 1);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_values{bucket=\"b1\"}"), 7);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_last_revision{bucket=\"b1\"}"), 7);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_limit_bytes{bucket=\"b1\"}"), 5000000);
    ck_assert_double_gt(openmetrics_value(text, "kvstored_bucket_used_bytes{bucket=\"b1\"}"), 0);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_full{bucket=\"b1\"}"), 0);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_watches{bucket=\"b1\"}"), 1);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_lag_revisions{bucket=\"b1\"}"), 0);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_values{bucket=\"b2\"}"), 0);
    ck_assert(!openmetrics_has(text, "kvstored_bucket_limit_bytes{bucket=\"b2\"}"));
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_known{bucket=\"nowhere\"}"), 0);
    ck_assert(!openmetrics_has(text, "kvstored_bucket_values{bucket=\"nowhere\"}"));
    ck_assert(!openmetrics_has(text, "kvstored_bucket_known{bucket=\"b3\"}"));

    /* A reload shows other buckets at once. */
    daemon_configure(&daemon_of_test, NULL, "metrics:\n  buckets: [b3]\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    text = metrics_of(client);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_values{bucket=\"b3\"}"), 0);
    ck_assert(!openmetrics_has(text, "kvstored_bucket_known{bucket=\"b1\"}"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Half of the buckets exist. The daemon's log must have no slow turn, as daemon_stop checks. */
START_TEST(hundreds_of_buckets_are_shown_without_a_slow_turn)
{
    enum { BUCKETS = 400 };
    const char *names = "b0";

    for (unsigned i = 1; i < BUCKETS; i++)
        names = format_text("%s, b%u", names, i);
    daemon_start(&daemon_of_test, NULL, format_text("metrics:\n  buckets: [%s]\n", names));
    struct client *client = client_open(&daemon_of_test);
    uint32_t sent[BUCKETS];
    for (unsigned i = 0; i < BUCKETS; i += 2)
        sent[i] = client_send(client, "bucket.create", "['b%u']", i);
    for (unsigned i = 0; i < BUCKETS; i += 2)
        assert_ok(client_wait(client, sent[i]));

    for (unsigned round = 0; round < 3; round++) {
        const char *text = metrics_of(client);
        for (unsigned i = 0; i < BUCKETS; i++)
            ck_assert(openmetrics_has(text, format_text("kvstored_bucket_known{bucket=\"b%u\"}", i)));
    }
    for (unsigned i = 0; i < 100; i++)
        sent[i] = client_send(client, "daemon.metrics", "[]");
    for (unsigned i = 0; i < 100; i++)
        assert_ok(client_wait(client, sent[i]));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Without NATS ----------------------------------------------------------------------------------- */

START_TEST(without_nats_the_text_says_so)
{
    unsigned port = port_reserve();

    daemon_start(&daemon_of_test, format_text("  mode: external\n  servers: ['nats://127.0.0.1:%u']\n", port),
                 "metrics:\n  buckets: [b1]\n");
    const char *text = metrics_of(client_open(&daemon_of_test));
    ck_assert_double_eq(openmetrics_value(text, "kvstored_nats_connected"), 0);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_healthy"), 0);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_known{bucket=\"b1\"}"), 0);
    ck_assert(!openmetrics_has_name(text, "kvstored_store_used_bytes"));
    ck_assert(openmetrics_has(text, "kvstored_nats_info{mode=\"external\",url=\"\",version=\"\"}"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_server_that_ends_is_counted)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);

    kill(daemon_nats_pid(&daemon_of_test), SIGKILL);
    wait_for_stat(client, "server_restarts", 1);
    wait_for_stat(client, "nats.reconnects", 1);
    const char *text = metrics_of(client);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_server_restarts_total"), 1);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_nats_reconnects_total"), 1);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The server does not answer the question about the bucket: the call has its own deadline, and the text another. */
START_TEST(a_server_that_is_silent_delays_the_text_for_a_limited_time)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_SELDOM "  hang_timeout: 3600\n", "metrics:\n  buckets: [b1]\n");
    struct client *client = client_open(&daemon_of_test);
    pid_t server = daemon_nats_pid(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b1']"));
    pid_suspend(server);
    assert_code(client_call(client, "daemon.metrics", "[{'timeout': 0.05}]"), "deadline_exceeded");
    const char *text = metrics_of(client);
    ck_assert_double_eq(openmetrics_value(text, "kvstored_bucket_known{bucket=\"b1\"}"), 0);
    pid_resume(server);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Documents -------------------------------------------------------------------------------------- */

/* The name of each metric in the document must be that of a sample. may_be_histogram: or that of a histogram. */
static void check_document(const char *path, const char *text, bool may_be_histogram)
{
    static const char *const prefixes[] = {"kvstored_", "process_"};
    const char *document = read_file(path);
    unsigned found = 0;

    ck_assert_msg(document[0] != '\0', "%s is missing", path);
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        for (const char *at = document; (at = strstr(at, prefixes[i])) != NULL; found++) {
            size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789_");
            const char *name = format_text("%.*s", (int)length, at);
            bool exists = openmetrics_has_name(text, name) ||
                          (may_be_histogram && openmetrics_has_name(text, format_text("%s_count", name)));
            ck_assert_msg(exists, "%s: there is no metric %s", path, name);
            at += length;
        }
    }
    ck_assert_uint_gt(found, 10);
}

START_TEST(each_metric_in_the_documents_exists)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_SELDOM "  max_store: 1G\n", "metrics:\n  buckets: [b1]\n");
    struct client *client = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b1', {'max_bytes': 5000000}]"));
    make_calls(client);
    assert_ok(client_call(client, "watch.start", "['b1']"));
    /* The store is measured some time after the start. */
    wait_until(openmetrics_has_name(metrics_of(client), "kvstored_store_used_bytes"), "the store's size");
    const char *text = metrics_of(client);
    check_document("docs/monitoring/alerts.yml", text, false);
    check_document("docs/monitoring/dashboard.json", text, false);
    check_document("docs/monitoring.md", text, true);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *metrics_suite(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tests = tcase_create("metrics");

    tcase_add_test(tests, the_text_is_valid_openmetrics);
    tcase_add_test(tests, calls_are_counted_by_method_and_code_with_their_durations);
    tcase_add_test(tests, daemon_stats_and_the_text_agree);
    tcase_add_test(tests, sessions_and_locks_are_shown_by_user);
    tcase_add_test(tests, buckets_of_the_configuration_show_their_values_and_limits);
    tcase_add_test(tests, hundreds_of_buckets_are_shown_without_a_slow_turn);
    tcase_add_test(tests, without_nats_the_text_says_so);
    tcase_add_test(tests, a_server_that_ends_is_counted);
    tcase_add_test(tests, a_server_that_is_silent_delays_the_text_for_a_limited_time);
    tcase_add_test(tests, each_metric_in_the_documents_exists);
    suite_add_tcase(suite, tests);
    return suite;
}
