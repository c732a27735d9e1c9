/* Writes with an id that their client sends again, because it has not received the answer. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/daemon.h"
#include "tests/support/nats_server.h"

#include <time.h>

static struct daemon daemon_of_test;
static struct nats_server server;

static unsigned long long clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000000u + (unsigned long long)now.tv_nsec / 1000u;
}

START_TEST(a_repeated_write_is_done_once_and_has_the_first_result)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);
    unsigned long long before = clock_us();

    uint64_t first = revision_of(client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'put-0001'}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'other']", bucket));
    ck_assert_uint_eq(
        revision_of(
            client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'put-0001', 'first_sent': %llu}]", bucket, before)),
        first);
    /* Nobody has sent this one before. */
    ck_assert_uint_eq(
        revision_of(client_call(client, "kv.create", "['%s', 'new', 'v', {'id': 'put-0002', 'first_sent': %llu}]",
                                bucket, before)),
        first + 2);
    ck_assert_uint_eq(
        revision_of(client_call(client, "kv.create", "['%s', 'new', 'v', {'id': 'put-0002', 'first_sent': %llu}]",
                                bucket, before)),
        first + 2);
    client_close(client);
}
END_TEST

START_TEST(a_write_that_failed_is_tried_again_when_it_is_repeated)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);
    unsigned long long before = clock_us();

    assert_ok(client_call(client, "kv.put", "['%s', 'k', '1']", bucket));
    assert_code(client_call(client, "kv.update", "['%s', 'k', 'v', 2, {'id': 'update-1'}]", bucket), "conflict");
    assert_ok(client_call(client, "kv.put", "['%s', 'k', '2']", bucket));
    ck_assert_uint_eq(
        revision_of(client_call(client, "kv.update", "['%s', 'k', 'v', 2, {'id': 'update-1', 'first_sent': %llu}]",
                                bucket, before)),
        3);
    client_close(client);
}
END_TEST

START_TEST(transactions_and_bulk_calls_are_repeated_as_a_whole)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);
    unsigned long long before = clock_us();
    const char *commit =
        "['%s', [['a', 0]], [['put', 'a', '1'], ['put', 'b', '2']], {'id': 'commit-1', 'first_sent': %llu}]";
    const char *put = "['%s', {'c': '3', 'd': '4'}, {'id': 'bulk-0001', 'first_sent': %llu}]";

    for (unsigned i = 0; i < 2; i++) {
        const struct answer *answer = client_call(client, "txn.commit", commit, bucket, before);
        assert_ok(answer);
        ck_assert_str_eq(object_text(&answer->result), "[1, 2]");
        answer = client_call(client, "bulk.put", put, bucket, before);
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "c.revision") + number_at(&answer->result, "d.revision"), 3 + 4);
    }
    client_close(client);
}
END_TEST

START_TEST(a_repeated_write_has_the_first_result_also_after_a_restart)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    unsigned long long before = clock_us();

    uint64_t first = revision_of(client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'put-0001'}]", bucket));
    client_close(client);
    process_kill(&daemon_of_test.process);
    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);
    ck_assert_uint_eq(
        revision_of(
            client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'put-0001', 'first_sent': %llu}]", bucket, before)),
        first);
    client_close(client);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(an_id_of_another_call_is_refused)
{
    struct client *client = client_open(&shared_daemon);
    char *bucket = strdup(client_new_bucket(client, NULL)), *other = strdup(client_new_bucket(client, NULL));
    const char *first = "['%s', 'k', 'v', {'id': 'shared-1'}]",
               *put = "['%s', '%s', '%s', {'id': 'shared-1', 'first_sent': 1}]";

    for (unsigned i = 0; i < 50; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    assert_ok(client_call(client, "kv.put", first, bucket));
    assert_code(client_call(client, "kv.put", put, bucket, "other", "v"), "invalid_argument");
    assert_code(client_call(client, "kv.put", put, bucket, "k", "w"), "invalid_argument");
    assert_code(client_call(client, "kv.put", put, other, "k", "v"), "invalid_argument");
    assert_code(client_call(client, "kv.purge", "['%s', 'k', {'id': 'shared-1', 'first_sent': 1}]", bucket),
                "invalid_argument");
    assert_code(client_call(client, "txn.commit",
                            "['%s', [], [['put', 'k', 'v']], {'id': 'shared-1', 'first_sent': 1}]", bucket),
                "invalid_argument");
    ck_assert_uint_eq(revision_of(client_call(client, "kv.put", put, bucket, "k", "v")), 51);
    free(bucket);
    free(other);
    client_close(client);
}
END_TEST

/* Read keys from memory. The copy of the bucket is read in the background: until then the reads come from NATS. */
static void await_read_from_memory(struct client *client, const char *bucket)
{
    uint64_t hits = number_at(&client_call(client, "daemon.stats", "[]")->result, "cache.hits"),
             end = now_ms() + PATIENCE_MS;

    do {
        ck_assert_uint_lt(now_ms(), end);
        assert_ok(client_call(client, "bulk.get", "['%s', ['k'], {'consistency': 'cached'}]", bucket));
    } while (number_at(&client_call(client, "daemon.stats", "[]")->result, "cache.hits") == hits);
}

/* A revision of the former bucket is one that the present one does not reach: reads would wait for it. */
START_TEST(a_repeated_write_to_a_bucket_that_was_recreated_holds_up_no_read)
{
    struct client *client = client_open(&shared_daemon);
    char *bucket = strdup(client_new_bucket(client, NULL));

    for (unsigned i = 0; i < 50; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'former-1'}]", bucket));
    assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    await_read_from_memory(client, bucket);
    ck_assert_uint_eq(
        revision_of(client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'former-1', 'first_sent': 1}]", bucket)),
        51);
    await_read_from_memory(client, bucket);
    free(bucket);
    client_close(client);
}
END_TEST

START_TEST(the_outcome_of_an_id_that_may_be_forgotten_is_unknown)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    const struct answer *answer =
        client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'put-0003', 'first_sent': 1}]", bucket);
    assert_code(answer, "unavailable");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "unknown");
    answer = client_call(client, "kv.get", "['%s', 'k']", bucket);
    ck_assert_str_eq(object_text(&answer->result), "nil");
    client_close(client);
}
END_TEST

/* The daemon cannot look for the first call: neither when it is refused at once, nor when the bucket is unknown to it.
 */
START_TEST(the_outcome_of_a_repeated_call_is_unknown_while_nats_is_away)
{
    const char *put = "['b', 'k', 'v', {'id': 'put-0001', 'first_sent': %llu, 'timeout': 1}]";
    unsigned long long before = clock_us();

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, format_text("%s  outage_wait: 2\n", nats_server_section(&server)), NULL);
    struct client *client = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v', {'id': 'put-0001'}]"));
    process_kill(&daemon_of_test.process);
    nats_server_kill(&server);
    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);
    for (unsigned i = 0; i < 4; i++) { /* the last of them after outage_wait */
        const struct answer *answer = client_call(client, "kv.put", put, before);
        ck_assert_str_ne(answer_code(answer), "ok");
        ck_assert_str_eq(answer_outcome(answer), "unknown");
        answer = client_call(client, "txn.commit",
                             "['b', [], [['put', 'k', 'v']], {'id': 'txn-0001', 'first_sent': 1, 'timeout': 1}]");
        ck_assert_str_eq(answer_outcome(answer), "unknown");
        answer = client_call(client, "kv.put", "['b', 'k', 'v', {'id': 'put-0001', 'first_sent': 1.0, 'timeout': 1}]");
        ck_assert_str_eq(answer_outcome(answer), "unknown"); /* some languages have no other numbers */
        answer = client_call(client, "kv.put", "['b', 'other', 'v', {'id': 'put-0002', 'timeout': 1}]");
        ck_assert_str_eq(answer_outcome(answer), "none");
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(wrong_ids_are_refused)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'short'}]", bucket), "invalid_argument");
    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 12345678}]", bucket), "invalid_argument");
    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'first_sent': 5}]", bucket), "invalid_argument");
    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'id': 'long-enough', 'first_sent': -1}]", bucket),
                "invalid_argument");
    assert_code(
        client_call(client, "kv.delete", "['%s', 'k', {'id': 'more than thirty-six bytes: 1234567890'}]", bucket),
        "invalid_argument");
    client_close(client);
}
END_TEST

Suite *repeat_suite(void)
{
    Suite *suite = suite_create("repeat");
    TCase *shared = shared_daemon_case(suite, "repeat");
    TCase *own = tcase_create("restart");

    tcase_add_test(shared, a_repeated_write_is_done_once_and_has_the_first_result);
    tcase_add_test(shared, a_write_that_failed_is_tried_again_when_it_is_repeated);
    tcase_add_test(shared, transactions_and_bulk_calls_are_repeated_as_a_whole);
    tcase_add_test(shared, an_id_of_another_call_is_refused);
    tcase_add_test(shared, a_repeated_write_to_a_bucket_that_was_recreated_holds_up_no_read);
    tcase_add_test(shared, the_outcome_of_an_id_that_may_be_forgotten_is_unknown);
    tcase_add_test(shared, wrong_ids_are_refused);
    tcase_add_test(own, a_repeated_write_has_the_first_result_also_after_a_restart);
    tcase_add_test(own, the_outcome_of_a_repeated_call_is_unknown_while_nats_is_away);
    suite_add_tcase(suite, own);
    return suite;
}
