/* bulk.delete and bucket.purge with a filter. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats_server.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static struct daemon daemon_of_test;

static uint64_t count_of(const struct answer *answer)
{
    assert_ok(answer);
    return number_at(&answer->result, "");
}

static size_t count_keys(struct client *client, const char *bucket)
{
    const struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);

    assert_ok(answer);
    return count_at(&answer->result, "");
}

/* Receive entries of the watch until one is of this key. Return how many have the operation before it. */
static unsigned count_heard(struct client *client, uint64_t watch, const char *operation, const char *last)
{
    unsigned heard = 0;

    for (;;) {
        const struct notification *notification = client_wait_notification(client, watch);
        if (strcmp(notification->method, "watch.entries") != 0)
            continue;
        size_t count = count_at(&notification->params, "1");
        for (size_t i = 0; i < count; i++) {
            heard += strcmp(text_at(&notification->params, format_text("1.%zu.operation", i)), operation) == 0;
            if (strcmp(text_at(&notification->params, format_text("1.%zu.key", i)), last) == 0)
                return heard;
        }
    }
}

static uint64_t start_watch(struct client *client, const char *bucket)
{
    const struct answer *answer = client_call(client, "watch.start", "['%s', {'updates_only': true}]", bucket);

    assert_ok(answer);
    return number_at(&answer->result, "");
}

START_TEST(keys_that_match_are_deleted_and_watches_hear_of_each)
{
    struct client *client = client_open_shared(), *watcher = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 3");
    static const char *const keys[] = {"app.a", "app.b", "app.b.c", "other", "app"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        put_text(client, bucket, keys[i], "v");
    put_text(client, bucket, "app.gone", "v");
    delete_key(client, bucket, "app.gone");
    uint64_t watch = start_watch(watcher, bucket);
    ck_assert_uint_eq(count_of(client_call(client, "bulk.delete", "['%s', {'filter': 'app.*'}]", bucket)), 2);
    ck_assert_uint_eq(count_keys(client, bucket), 3);
    ck_assert_uint_eq(count_of(client_call(client, "bulk.delete", "['%s', {'filter': 'app.*'}]", bucket)), 0);
    const struct answer *history = client_call(client, "kv.history", "['%s', 'app.a']", bucket);
    assert_ok(history);
    ck_assert_uint_eq(count_at(&history->result, ""), 2);
    put_text(client, bucket, "last", "v");
    ck_assert_uint_eq(count_heard(watcher, watch, "delete", "last"), 2);

    ck_assert_uint_eq(count_of(client_call(client, "bucket.purge", "['%s', {'filter': 'app.>'}]", bucket)), 1);
    history = client_call(client, "kv.history", "['%s', 'app.b.c']", bucket);
    assert_ok(history);
    ck_assert_uint_eq(count_at(&history->result, ""), 1);
    ck_assert_uint_eq(count_of(client_call(client, "bucket.purge", "['%s', {'filter': '>'}]", bucket)), 3);
    put_text(client, bucket, "again", "v");
    ck_assert_uint_eq(count_heard(watcher, watch, "purge", "again"), 4);
    ck_assert_uint_eq(count_keys(client, bucket), 1);
}
END_TEST

START_TEST(thousands_of_keys_are_deleted_in_one_call)
{
    struct client *client = client_open_shared(), *watcher = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_many(client, bucket, "a.k", 0, 7000, 10);
    put_many(client, bucket, "b.k", 0, 100, 10);
    uint64_t watch = start_watch(watcher, bucket);
    ck_assert_uint_eq(count_of(client_call(client, "bulk.delete", "['%s', {'filter': 'a.>', 'timeout': 60}]", bucket)),
                      7000);
    ck_assert_uint_eq(count_keys(client, bucket), 100);
    ck_assert_ptr_null(cached_text(client, bucket, "a.k000000"));
    put_text(client, bucket, "last", "v");
    ck_assert_uint_eq(count_heard(watcher, watch, "delete", "last"), 7000);
}
END_TEST

/* A value may be deleted only if it was written before the call looked at the bucket: before the first marker. */
START_TEST(a_key_that_is_written_meanwhile_keeps_its_value)
{
    enum { KEYS = 1000 };
    struct client *client = client_open_shared(), *writer = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");
    uint64_t first_marker = UINT64_MAX;
    unsigned kept = 0, marked = 0, writes = 0;

    put_many(client, bucket, "k", 0, KEYS, 10);
    uint32_t call = client_send(client, "bulk.delete", "['%s', {'filter': '>', 'timeout': 60}]", bucket);
    while (!client_has(client, call) && writes < KEYS) {
        put_text(writer, bucket, format_text("k%06u", KEYS - 1 - writes), "new");
        writes++;
    }
    uint64_t deleted = count_of(client_wait(client, call));
    for (unsigned i = 0; i < KEYS; i++) {
        const struct answer *answer = client_call(client, "kv.history", "['%s', 'k%06u']", bucket, i);
        assert_ok(answer);
        size_t count = count_at(&answer->result, "");
        bool is_deleted = false;
        for (size_t at = 0; at < count; at++) {
            uint64_t revision = number_at(&answer->result, format_text("%zu.revision", at));
            is_deleted = strcmp(text_at(&answer->result, format_text("%zu.operation", at)), "delete") == 0;
            marked += is_deleted;
            if (is_deleted && revision < first_marker)
                first_marker = revision;
        }
        kept += !is_deleted;
    }
    printf("deletions: %u writes meanwhile, %u keys kept\n", writes, kept);
    ck_assert_uint_eq(deleted, marked);
    ck_assert_uint_ge(deleted + kept, KEYS);
    client_forget(client);
    for (unsigned i = KEYS - writes; i < KEYS; i++) {
        const struct answer *answer = client_call(client, "kv.history", "['%s', 'k%06u']", bucket, i);
        assert_ok(answer);
        size_t count = count_at(&answer->result, "");
        for (size_t at = 1; at + 1 < count; at++)
            ck_assert_msg(strcmp(text_at(&answer->result, format_text("%zu.value", at)), "new") != 0 ||
                              number_at(&answer->result, format_text("%zu.revision", at)) < first_marker,
                          "a new value was deleted: %s", object_text(&answer->result));
    }
}
END_TEST

START_TEST(half_way_the_error_says_how_many_are_done)
{
    enum { KEYS = 20000 };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    const struct answer *answer;
    uint64_t deleted = 0;
    unsigned calls = 0, done, timeout_ms = 100;

    for (unsigned i = 0; i < KEYS; i += 10000)
        put_many(client, bucket, "k", i, 10000, 10);
    for (;; calls++) {
        answer =
            client_call(client, "bulk.delete", "['%s', {'filter': '>', 'timeout': %.3f}]", bucket, timeout_ms / 1000.0);
        if (strcmp(answer_code(answer), "deadline_exceeded") != 0)
            break;
        ck_assert_int_eq(sscanf(text_at(&answer->error, "message"), "timed out after deleting %u keys", &done), 1);
        ck_assert(done == 0 || strcmp(answer_outcome(answer), "unknown") == 0);
        deleted += done;
        if (done == 0)
            timeout_ms *= 2; /* on a busy machine it could go on for ever */
    }
    deleted += count_of(answer);
    printf("deletions: %u calls before the last one\n", calls);
    ck_assert_uint_le(deleted, KEYS);
    ck_assert_uint_gt(deleted, 0);
    ck_assert_uint_eq(count_keys(client, bucket), 0);
}
END_TEST

/* The server is stopped meanwhile, so that the deletion cannot come to its end before the daemon sees the client leave.
 */
START_TEST(a_deletion_stops_if_its_client_leaves)
{
    enum { KEYS = 60000 };
    struct client *client = client_open_shared(), *leaving = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");

    for (unsigned i = 0; i < KEYS; i += 10000)
        put_many(client, bucket, "k", i, 10000, 1);
    uint64_t watch = start_watch(client, bucket);
    client_send(leaving, "bulk.delete", "['%s', {'filter': '>', 'timeout': 60}]", bucket);
    while (strcmp(client_wait_notification(client, watch)->method, "watch.entries") != 0)
        ;
    pid_t nats_server = daemon_nats_pid(&shared_daemon);
    ck_assert_int_eq(kill(nats_server, SIGSTOP), 0);
    uint64_t open = stat_of(client, "sessions.open");
    client_close(leaving);
    wait_for_stat(client, "sessions.open", open - 1);
    ck_assert_int_eq(kill(nats_server, SIGCONT), 0);
    wait_for_stat(client, "calls_in_flight", 1);
    assert_ok(client_call(client, "watch.stop", "[%llu]", (unsigned long long)watch));
    ck_assert_uint_gt(count_keys(client, bucket), 0);
}
END_TEST

START_TEST(wrong_arguments_are_refused)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const struct answer *answer;

    put_text(client, bucket, "a", "v");
    assert_code(client_call(client, "bulk.delete", "['%s', ['a'], {'filter': 'a'}]", bucket), "invalid_argument");
    assert_code(client_call(client, "bulk.delete", "['%s', {'filter': 'a', 'id': '12345678'}]", bucket),
                "invalid_argument");
    assert_code(client_call(client, "bulk.delete", "['%s', {'filter': 'a..b'}]", bucket), "invalid_argument");
    assert_code(client_call(client, "bulk.delete", "['%s', {'filter': 7}]", bucket), "invalid_argument");
    assert_code(client_call(client, "bulk.delete", "['%s']", bucket), "invalid_argument");
    assert_code(client_call(client, "bulk.delete", "['%s', {'timeout': 1}]", bucket), "invalid_argument");
    assert_code(client_call(client, "bucket.purge", "['%s', {'filter': 'a..b'}]", bucket), "invalid_argument");
    assert_code(client_call(client, "bulk.delete", "['no-such-bucket', {'filter': 'a'}]"), "bucket_not_found");
    ck_assert_uint_eq(count_keys(client, bucket), 1);
    /* An empty list of keys is still one. */
    answer = client_call(client, "bulk.delete", "['%s', []]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
}
END_TEST

START_TEST(a_session_deletes_with_few_filters_at_a_time)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    uint32_t calls[8];
    unsigned refused = 0;

    for (unsigned i = 0; i < 40000; i += 10000)
        put_many(client, bucket, "k", i, 10000, 1);
    for (unsigned i = 0; i < 8; i++)
        calls[i] = client_send(client, "bulk.delete", "['%s', {'filter': '>', 'timeout': 60}]", bucket);
    assert_ok(client_call(other, "bulk.delete", "['%s', {'filter': '>', 'timeout': 60}]", bucket));
    for (unsigned i = 0; i < 8; i++) {
        const struct answer *answer = client_wait(client, calls[i]);
        refused += strcmp(answer_code(answer), "resource_exhausted") == 0;
        ck_assert(strcmp(answer_code(answer), "resource_exhausted") == 0 || strcmp(answer_code(answer), "ok") == 0);
    }
    ck_assert_uint_eq(refused, 6);
    ck_assert_uint_eq(count_keys(client, bucket), 0);
}
END_TEST

START_TEST(an_external_server_does_the_same)
{
    struct nats_server server = {0};

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    put_many(client, bucket, "a.k", 0, 2500, 10);
    put_text(client, bucket, "b", "v");
    ck_assert_uint_eq(count_of(client_call(client, "bulk.delete", "['%s', {'filter': 'a.*'}]", bucket)), 2500);
    ck_assert_uint_eq(count_of(client_call(client, "bucket.purge", "['%s', {'filter': '>'}]", bucket)), 1);
    ck_assert_uint_eq(count_keys(client, bucket), 0);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

Suite *delete_matching_suite(void)
{
    Suite *suite = suite_create("delete_matching");
    TCase *tests = shared_daemon_case(suite, "deletions");
    TCase *own = tcase_create("own daemon");

    tcase_add_test(tests, keys_that_match_are_deleted_and_watches_hear_of_each);
    tcase_add_test(tests, thousands_of_keys_are_deleted_in_one_call);
    tcase_add_test(tests, a_key_that_is_written_meanwhile_keeps_its_value);
    tcase_add_test(tests, half_way_the_error_says_how_many_are_done);
    tcase_add_test(tests, a_deletion_stops_if_its_client_leaves);
    tcase_add_test(tests, wrong_arguments_are_refused);
    tcase_add_test(tests, a_session_deletes_with_few_filters_at_a_time);
    tcase_set_timeout(own, TEST_TIMEOUT_S);
    tcase_add_test(own, an_external_server_does_the_same);
    suite_add_tcase(suite, own);
    return suite;
}
