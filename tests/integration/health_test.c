/* health.check, daemon.info, daemon.stats. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"

static struct daemon daemon_of_test;

START_TEST(health_reports_the_connection_to_nats)
{
    struct client *client = client_open_shared();
    uint64_t end = now_ms() + PATIENCE_MS;
    struct answer *answer;

    /* The round trip is known after the first ping, and the store after the first question to the server. */
    do {
        answer = client_call(client, "health.check", "[]");
        assert_ok(answer);
        ck_assert_uint_lt(now_ms(), end);
        pause_shortly();
    } while (number_at(&answer->result, "nats.rtt_us") == 0 || find_at(&answer->result, "store") == NULL);
    ck_assert(bool_at(&answer->result, "healthy"));
    ck_assert(bool_at(&answer->result, "nats.connected"));
    ck_assert_int_eq(strncmp(text_at(&answer->result, "nats.url"), "nats://127.0.0.1:", 17), 0);
    ck_assert_str_ne(text_at(&answer->result, "nats.version"), "");
    ck_assert_uint_eq(number_at(&answer->result, "nats.reconnects"), 0);
    ck_assert_uint_gt(number_at(&answer->result, "store.disk_free"), 0);
    ck_assert_uint_eq(number_at(&answer->result, "store.limit"), 0);
    ck_assert_uint_eq(count_at(&answer->result, ""), 3);
}
END_TEST

START_TEST(health_reports_the_state_of_a_bucket)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5, 'ttl': 3600, 'max_value_size': 1000");

    for (unsigned i = 0; i < 3; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    struct answer *answer = client_call(client, "health.check", "['%s']", bucket);
    assert_ok(answer);
    ck_assert(bool_at(&answer->result, "healthy"));
    ck_assert_str_eq(text_at(&answer->result, "bucket"), bucket);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 3);
    ck_assert_uint_eq(number_at(&answer->result, "history"), 5);
    ck_assert_uint_eq(number_at(&answer->result, "ttl"), 3600);
    ck_assert_uint_eq(number_at(&answer->result, "max_value_size"), 1000);
    ck_assert_uint_eq(number_at(&answer->result, "replicas"), 1);
    ck_assert_ptr_null(find_at(&answer->result, "error"));
}
END_TEST

START_TEST(a_missing_bucket_is_not_healthy)
{
    struct client *client = client_open_shared();
    struct answer *answer = client_call(client, "health.check", "['nowhere']");

    assert_ok(answer);
    ck_assert(!bool_at(&answer->result, "healthy"));
    ck_assert(bool_at(&answer->result, "nats.connected"));
    ck_assert_str_eq(text_at(&answer->result, "bucket"), "nowhere");
    ck_assert_ptr_nonnull(strstr(text_at(&answer->result, "error"), "nowhere"));
}
END_TEST

START_TEST(daemon_info_lists_the_features_of_daemon_and_server)
{
    struct client *client = client_open_shared();
    struct answer *answer = client_call(client, "daemon.info", "[]");
    const msgpack_object *info = &answer->result;

    assert_ok(answer);
    ck_assert_str_ne(text_at(info, "version"), "");
    ck_assert_uint_eq(number_at(info, "pid"), (uint64_t)shared_daemon.process.pid);
    ck_assert_str_eq(text_at(info, "nats.mode"), "embedded");
    ck_assert(bool_at(info, "nats.connected"));
    ck_assert_uint_eq(number_at(info, "nats.max_payload"), 1048576);
    ck_assert_uint_ge(number_at(info, "nats.features.api_level"), 2);
    ck_assert(bool_at(info, "nats.features.ttl"));
    ck_assert(bool_at(info, "nats.features.atomic_batches"));
    const char *limits[] = {
        "frame_bytes", "frame_elements",         "frame_depth",      "sessions",  "calls",       "calls_per_session",
        "call_bytes",  "call_bytes_per_session", "out_buffer_bytes", "out_bytes", "user_percent"};
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        ck_assert_uint_gt(number_at(info, format_text("limits.%s", limits[i])), 0);
    ck_assert_double_eq(double_at(info, "limits.timeout"), DAEMON_CALL_TIMEOUT_S);
    ck_assert_double_eq(double_at(info, "limits.max_timeout"), 60);
}
END_TEST

START_TEST(daemon_info_has_the_limits_of_the_running_daemon)
{
    daemon_start(&daemon_of_test, NULL,
                 "watches:\n  max_per_session: 11\n  max_filters: 12\n  max_buckets: 13\n  buffer_bytes: 14K\n"
                 "locks:\n  max_per_session: 15\n  max: 16\ncache:\n  max_bytes: 17M\n"
                 "limits:\n  out_bytes: 18M\n  message_timeout: 19\n  user_percent: 20\n");
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "daemon.info", "[]");
    const msgpack_object *info = &answer->result;

    assert_ok(answer);
    ck_assert_uint_eq(number_at(info, "limits.watches.max_per_session"), 11);
    ck_assert_uint_eq(number_at(info, "limits.watches.max_filters"), 12);
    ck_assert_uint_eq(number_at(info, "limits.watches.max_buckets"), 13);
    ck_assert_uint_eq(number_at(info, "limits.watches.buffer_bytes"), 14 << 10);
    ck_assert_uint_eq(number_at(info, "limits.locks.max_per_session"), 15);
    ck_assert_uint_eq(number_at(info, "limits.locks.max"), 16);
    ck_assert_uint_eq(number_at(info, "limits.cache.max_bytes"), 17 << 20);
    ck_assert_uint_eq(number_at(info, "limits.out_bytes"), 18 << 20);
    ck_assert_double_eq(double_at(info, "limits.message_timeout"), 19);
    ck_assert_uint_eq(number_at(info, "limits.user_percent"), 20);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(every_method_that_daemon_info_names_is_known)
{
    struct client *client = client_open_shared();
    struct answer *info = client_call(client, "daemon.info", "[]");
    static const char *const must[] = {"kv.get",        "kv.get_json",   "kv.put",       "kv.create",   "kv.update",
                                       "kv.delete",     "kv.purge",      "kv.history",   "kv.keys",     "bucket.create",
                                       "bucket.update", "bucket.delete", "bucket.purge", "bucket.info", "bucket.list",
                                       "health.check",  "daemon.info",   "daemon.stats"};
    size_t count = count_at(&info->result, "methods");

    for (size_t i = 0; i < sizeof(must) / sizeof(must[0]); i++) {
        bool is_there = false;
        for (size_t k = 0; k < count; k++)
            is_there = is_there || strcmp(text_at(&info->result, format_text("methods.%zu", k)), must[i]) == 0;
        ck_assert_msg(is_there, "daemon.info does not name %s", must[i]);
    }
    for (size_t k = 0; k < count; k++) {
        const char *method = text_at(&info->result, format_text("methods.%zu", k));
        struct answer *answer = client_call(client, method, "[{'no such option': 1}]");
        assert_code(answer, "invalid_argument");
        ck_assert_ptr_null(strstr(text_at(&answer->error, "message"), "unknown method"));
    }
}
END_TEST

START_TEST(the_statistics_count_calls_and_errors)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    /* The first test of this daemon: nothing else was counted. */
    struct answer *before = client_call(client, "daemon.stats", "[]");

    for (unsigned i = 0; i < 7; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    for (unsigned i = 0; i < 3; i++)
        assert_code(client_call(client, "kv.create", "['%s', 'k', 'v']", bucket), "already_exists");
    struct answer *after = client_call(client, "daemon.stats", "[]");
    const msgpack_object *stats = &after->result;
    const msgpack_object *put = find_at(find_at(stats, "methods"), "kv.put");
    const msgpack_object *create = find_at(find_at(stats, "methods"), "kv.create");

    ck_assert_uint_eq(number_at(put, "calls"), 7);
    ck_assert_uint_eq(number_at(put, "errors"), 0);
    ck_assert_uint_eq(number_at(create, "errors"), 3);
    ck_assert_uint_eq(number_at(stats, "errors.already_exists"), 3);
    ck_assert_uint_le(number_at(put, "p50_us"), number_at(put, "p99_us"));
    ck_assert_uint_le(number_at(put, "p99_us"), number_at(put, "p999_us"));
    ck_assert_uint_gt(number_at(put, "max_us"), 0);
    ck_assert_uint_eq(number_at(stats, "calls_in_flight"), 1);
    ck_assert_uint_gt(number_at(stats, "call_bytes"), 0);
    ck_assert_uint_gt(number_at(stats, "bytes_in"), number_at(&before->result, "bytes_in"));
    ck_assert_uint_gt(number_at(stats, "bytes_out"), number_at(&before->result, "bytes_out"));
    ck_assert_uint_eq(number_at(stats, "sessions.open"), 1);
    ck_assert_uint_ge(number_at(stats, "sessions.total"), 1);
    ck_assert_double_ge(double_at(stats, "uptime"), double_at(&before->result, "uptime"));
    ck_assert(bool_at(stats, "nats.connected"));
    number_at(stats, "retries");
    number_at(stats, "requests_in_flight");
}
END_TEST

START_TEST(a_bucket_that_is_full_is_not_healthy_until_there_is_room)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'max_bytes': 4000");
    struct answer *answer;

    answer = client_call(client, "health.check", "['%s']", bucket);
    ck_assert(bool_at(&answer->result, "healthy"));
    unsigned count = 0;
    do
        answer = client_call(client, "kv.put", "['%s', 'k%u', 'a value of some length, to fill it']", bucket, count++);
    while (strcmp(answer_code(answer), "ok") == 0 && count < 100);
    assert_code(answer, "resource_exhausted");
    answer = client_call(client, "health.check", "['%s']", bucket);
    ck_assert(!bool_at(&answer->result, "healthy"));
    ck_assert_ptr_nonnull(strstr(text_at(&answer->result, "error"), "max_bytes"));
    assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
    answer = client_call(client, "health.check", "['%s']", bucket);
    ck_assert(bool_at(&answer->result, "healthy"));
}
END_TEST

Suite *health_suite(void)
{
    Suite *suite = suite_create("health");
    TCase *tests = shared_daemon_case(suite, "health");
    TCase *own = tcase_create("daemons");

    tcase_add_test(tests, the_statistics_count_calls_and_errors);
    tcase_add_test(tests, health_reports_the_connection_to_nats);
    tcase_add_test(tests, health_reports_the_state_of_a_bucket);
    tcase_add_test(tests, a_missing_bucket_is_not_healthy);
    tcase_add_test(tests, a_bucket_that_is_full_is_not_healthy_until_there_is_room);
    tcase_add_test(tests, daemon_info_lists_the_features_of_daemon_and_server);
    tcase_add_test(tests, every_method_that_daemon_info_names_is_known);
    tcase_add_test(own, daemon_info_has_the_limits_of_the_running_daemon);
    suite_add_tcase(suite, own);
    return suite;
}
