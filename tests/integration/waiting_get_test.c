/* kv.get with wait_above: a blocking query. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/daemon.h"

#include <signal.h>

static struct daemon daemon_of_test;

#define LONG "'timeout': 60"

static void expect_entry(const struct answer *answer, uint64_t revision, const char *operation, const char *value)
{
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "revision"), revision);
    ck_assert_str_eq(text_at(&answer->result, "operation"), operation);
    ck_assert_str_eq(text_at(&answer->result, "value"), value);
}

static uint32_t wait_above(struct client *client, const char *bucket, const char *key, unsigned above)
{
    return client_send(client, "kv.get", "['%s', '%s', {'wait_above': %u, " LONG "}]", bucket, key, above);
}

START_TEST(a_higher_revision_is_answered_at_once)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "k", "one");
    put_text(client, bucket, "k", "two");
    expect_entry(client_wait(client, wait_above(client, bucket, "k", 0)), 2, "put", "two");
    expect_entry(client_wait(client, wait_above(client, bucket, "k", 1)), 2, "put", "two");
    delete_key(client, bucket, "k");
    expect_entry(client_wait(client, wait_above(client, bucket, "k", 2)), 3, "delete", "");
}
END_TEST

START_TEST(each_change_of_the_key_ends_a_wait)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    uint32_t msgid = wait_above(client, bucket, "k", 0);
    wait_for_stat(other, "watches.open", 1);
    put_text(other, bucket, "else", "v");
    ck_assert_uint_eq(put_text(other, bucket, "k", "one"), 2);
    expect_entry(client_wait(client, msgid), 2, "put", "one");
    msgid = wait_above(client, bucket, "k", 2);
    ck_assert_uint_eq(put_text(other, bucket, "k", "two"), 3);
    expect_entry(client_wait(client, msgid), 3, "put", "two");
    msgid = wait_above(client, bucket, "k", 3);
    delete_key(other, bucket, "k");
    expect_entry(client_wait(client, msgid), 4, "delete", "");
    msgid = wait_above(client, bucket, "k", 4);
    assert_ok(client_call(other, "kv.purge", "['%s', 'k']", bucket));
    expect_entry(client_wait(client, msgid), 5, "purge", "");
    msgid = wait_above(client, bucket, "k", 5);
    assert_ok(client_call(other, "kv.put", "['%s', 'k', 'brief', {'ttl': 1}]", bucket));
    expect_entry(client_wait(client, msgid), 6, "put", "brief");
    expect_entry(client_wait(client, wait_above(client, bucket, "k", 6)), 7, "purge", "");
}
END_TEST

/*
 * A purge leaves no markers. A call that waits is answered with a delete at the revision up to which the daemon has
 * read. If the purge comes before the wait has begun, the call ends with its timeout, and the test tries again.
 */
START_TEST(a_key_that_vanishes_ends_a_wait)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    const struct answer *answer = NULL;

    while (answer == NULL || answer->result.type == MSGPACK_OBJECT_NIL) {
        ck_assert_uint_lt(now_ms(), end_ms);
        uint64_t revision = put_text(client, bucket, "k", "v");
        uint32_t sent = client_send(other, "kv.get", "['%s', 'k', {'wait_above': %llu, 'timeout': 2}]", bucket,
                                    (unsigned long long)revision);
        wait_for_stat(client, "watches.open", 1);
        assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
        answer = client_wait(other, sent);
        assert_ok(answer);
    }
    ck_assert_str_eq(text_at(&answer->result, "operation"), "delete");
}
END_TEST

START_TEST(after_the_timeout_the_present_entry_is_answered)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t start = now_ms();

    put_text(client, bucket, "k", "one");
    expect_entry(client_call(client, "kv.get", "['%s', 'k', {'wait_above': 1, 'timeout': 3}]", bucket), 1, "put",
                 "one");
    ck_assert_uint_ge(now_ms() - start, 2000);
    const struct answer *answer =
        client_call(client, "kv.get", "['%s', 'no', {'wait_above': 0, 'timeout': 3}]", bucket);
    assert_ok(answer);
    ck_assert_str_eq(object_text(&answer->result), "nil");
    delete_key(client, bucket, "k");
    answer = client_call(client, "kv.get", "['%s', 'k', {'wait_above': 2, 'timeout': 3}]", bucket);
    assert_ok(answer);
    ck_assert_str_eq(object_text(&answer->result), "nil");
}
END_TEST

START_TEST(calls_with_the_shortest_timeouts_do_not_put_off_the_deadlines_of_others)
{
    struct client *client = client_open_shared(), *hasty = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t waiting = client_send(client, "kv.get", "['%s', 'k', {'wait_above': 0, 'timeout': 3}]", bucket);
    uint32_t sent[16] = {0};
    uint64_t end = now_ms() + PATIENCE_MS;

    for (unsigned i = 0; !client_has(client, waiting); i = (i + 1) % 16) {
        if (sent[i] != 0)
            client_wait(hasty, sent[i]); /* it may have been in time */
        sent[i] = client_send(hasty, "kv.put", "['%s', 'other', '', {'timeout': 0.004}]", bucket);
        ck_assert_msg(now_ms() < end, "the wait has not ended with its timeout");
    }
    assert_ok(client_wait(client, waiting));
}
END_TEST

START_TEST(changes_up_to_the_revision_are_not_answered)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t sent[100];

    put_text(client, bucket, "k", "one");
    for (unsigned i = 0; i < 100; i++)
        sent[i] = wait_above(client, bucket, "k", i < 50 ? 3 : 4);
    wait_for_stat(other, "watches.open", 100);
    for (unsigned i = 2; i < 6; i++)
        put_text(other, bucket, "k", format_text("%u", i));
    /* Changes that come while the daemon delivers to others can be one. */
    for (unsigned i = 0; i < 100; i++) {
        const struct answer *answer = client_wait(client, sent[i]);
        assert_ok(answer);
        ck_assert_uint_gt(number_at(&answer->result, "revision"), i < 50 ? 3 : 4);
    }
    wait_for_stat(other, "watches.open", 0);
}
END_TEST

START_TEST(thousands_of_waits_for_one_key_are_answered)
{
    static struct client *clients[10];
    static uint32_t sent[10][300];
    struct client *other = client_open_shared();
    const char *bucket = client_new_bucket(other, NULL);

    for (unsigned i = 0; i < 10; i++) {
        clients[i] = client_open_shared();
        for (unsigned n = 0; n < 300; n++)
            sent[i][n] = wait_above(clients[i], bucket, "k", 0);
    }
    wait_for_stat(other, "watches.open", 3000);
    put_text(other, bucket, "k", "here");
    for (unsigned i = 0; i < 10; i++) {
        for (unsigned n = 0; n < 300; n++)
            expect_entry(client_wait(clients[i], sent[i][n]), 1, "put", "here");
    }
    wait_for_stat(other, "watches.open", 0);
}
END_TEST

START_TEST(waits_end_with_their_session_and_their_bucket)
{
    struct client *client = client_open_shared(), *leaving = client_open_shared();
    char *bucket = strdup(client_new_bucket(client, NULL));
    const struct answer *answer = client_call(leaving, "daemon.sessions", "[]");
    unsigned long long id = number_at(&answer->result, "own");

    for (unsigned i = 0; i < 20; i++)
        wait_above(leaving, bucket, "k", 0);
    uint32_t msgid = wait_above(client, bucket, "k", 0);
    wait_for_stat(client, "watches.open", 21);
    assert_ok(client_call(client, "daemon.kill_session", "[%llu]", id));
    wait_for_stat(client, "watches.open", 1);
    assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    assert_code(client_wait(client, msgid), "bucket_not_found");
    assert_code(client_call(client, "kv.get", "['%s', 'k', {'wait_above': 0}]", bucket), "bucket_not_found");
    assert_code(client_call(client, "kv.get", "['%s', 'k', {'wait_above': 0, 'revision': 1}]", bucket),
                "invalid_argument");
    assert_code(client_call(client, "kv.get", "['%s', 'k', {'wait_above': -1}]", bucket), "invalid_argument");
    assert_code(client_call(client, "kv.get_json", "['%s', 'k', {'wait_above': 1}]", bucket), "invalid_argument");
    free(bucket);
    client_close(leaving);
}
END_TEST

START_TEST(waits_of_a_session_are_limited_as_watches_are)
{
    daemon_start(&daemon_of_test, NULL, "watches:\n  max_per_session: 5\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t sent[4];

    assert_ok(client_call(client, "watch.start", "['%s', {'filter': 'other'}]", bucket));
    for (unsigned i = 0; i < 4; i++)
        sent[i] = wait_above(client, bucket, "k", 0);
    assert_code_says(client_wait(client, wait_above(client, bucket, "k", 0)), "resource_exhausted",
                     "watches.max_per_session");
    put_text(other, bucket, "k", "v");
    for (unsigned i = 0; i < 4; i++)
        expect_entry(client_wait(client, sent[i]), 1, "put", "v");
    expect_entry(client_wait(client, wait_above(client, bucket, "k", 0)), 1, "put", "v");
    client_close(client);
    client_close(other);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(waits_do_not_delay_the_end_of_the_daemon)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 10; i++)
        wait_above(client, bucket, "k", 0);
    wait_for_stat(other, "watches.open", 10);
    process_signal(&daemon_of_test.process, SIGTERM);
    client_expect_dismissal(client);
    client_expect_dismissal(other);
    daemon_expect_good_end(&daemon_of_test);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "not answered"));
}
END_TEST

Suite *waiting_get_suite(void)
{
    Suite *suite = suite_create("waiting get");
    TCase *shared = shared_daemon_case(suite, "waits");
    TCase *own = tcase_create("a daemon of its own");

    tcase_add_test(shared, a_higher_revision_is_answered_at_once);
    tcase_add_test(shared, each_change_of_the_key_ends_a_wait);
    tcase_add_test(shared, a_key_that_vanishes_ends_a_wait);
    tcase_add_test(shared, after_the_timeout_the_present_entry_is_answered);
    tcase_add_test(shared, calls_with_the_shortest_timeouts_do_not_put_off_the_deadlines_of_others);
    tcase_add_test(shared, changes_up_to_the_revision_are_not_answered);
    tcase_add_test(shared, thousands_of_waits_for_one_key_are_answered);
    tcase_add_test(shared, waits_end_with_their_session_and_their_bucket);
    tcase_add_test(own, waits_of_a_session_are_limited_as_watches_are);
    tcase_add_test(own, waits_do_not_delay_the_end_of_the_daemon);
    suite_add_tcase(suite, own);
    return suite;
}
