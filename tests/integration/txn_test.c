/* txn.commit: all or nothing. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Return so many puts, each of a key of its own. */
static char *puts_of(unsigned count)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    for (unsigned i = 0; i < count; i++)
        fprintf(stream, "%s['put', 'k%u', 'v']", i > 0 ? ", " : "", i);
    fclose(stream);
    return keep(text);
}

static uint64_t last_revision(struct client *client, const char *bucket)
{
    return number_at(&client_call(client, "bucket.info", "['%s']", bucket)->result, "last_revision");
}

START_TEST(a_thousand_operations_are_one_transaction_and_one_more_is_too_large)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_code(client_call(client, "txn.commit", "['%s', [], [%s]]", bucket, puts_of(1001)), "too_large");
    ck_assert_uint_eq(last_revision(client, bucket), 0);
    struct answer *answer = client_call(client, "txn.commit", "['%s', [], [%s]]", bucket, puts_of(1000));
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1000);
    for (unsigned i = 1; i < 1000; i++) {
        char path[16];
        snprintf(path, sizeof(path), "%u", i);
        ck_assert_uint_eq(number_at(&answer->result, path), number_at(&answer->result, "0") + i);
    }
    ck_assert_uint_eq(last_revision(client, bucket), 1000);
}
END_TEST

START_TEST(a_condition_that_does_not_hold_names_its_key_and_nothing_is_written)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t there = revision_of(client_call(client, "kv.put", "['%s', 'there', 'x']", bucket));

    struct answer *checked = client_call(client, "txn.commit", "['%s', [['there', 77]], [['put', 'a', 'x']]]", bucket);
    assert_code(checked, "conflict");
    struct answer *absent = client_call(client, "txn.commit", "['%s', [['there', 0]], [['put', 'a', 'x']]]", bucket);
    assert_code(absent, "already_exists");
    struct answer *created =
        client_call(client, "txn.commit", "['%s', [], [['put', 'a', 'x'], ['create', 'there', 'x']]]", bucket);
    assert_code(created, "already_exists");
    struct answer *updated =
        client_call(client, "txn.commit", "['%s', [], [['put', 'a', 'x'], ['update', 'there', 'x', 99]]]", bucket);
    assert_code(updated, "conflict");
    struct answer *const all[] = {checked, absent, created, updated};
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_str_eq(text_at(&all[i]->error, "key"), "there");
        ck_assert_uint_eq(number_at(&all[i]->error, "revision"), there);
    }
    ck_assert_uint_eq(last_revision(client, bucket), there);
}
END_TEST

START_TEST(a_create_over_a_marker_succeeds)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'a', 'x']", bucket));
    assert_ok(client_call(client, "kv.delete", "['%s', 'a']", bucket));
    assert_ok(
        client_call(client, "txn.commit", "['%s', [['a', 0]], [['create', 'a', 'new'], ['put', 'b', 'x']]]", bucket));
    struct answer *got = client_call(client, "kv.get", "['%s', 'a']", bucket);
    ck_assert_str_eq(text_at(&got->result, "value"), "new");
}
END_TEST

START_TEST(an_operation_has_its_own_ttl_and_headers)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(
        client, "txn.commit",
        "['%s', [], [['put', 'short', 'x', {'ttl': 1}], ['put', 'long', 'x', {'headers': {'H': 'h'}}]]]", bucket));
    struct answer *got = client_call(client, "kv.get", "['%s', 'long']", bucket);
    ck_assert_str_eq(text_at(&got->result, "headers.H"), "h");
    uint64_t end = now_ms() + PATIENCE_MS;
    while (client_call(client, "kv.get", "['%s', 'short']", bucket)->result.type != MSGPACK_OBJECT_NIL) {
        ck_assert_msg(now_ms() < end, "it does not expire");
        pause_shortly();
    }
    got = client_call(client, "kv.get", "['%s', 'long']", bucket);
    ck_assert_str_eq(text_at(&got->result, "value"), "x");
}
END_TEST

#define CROWD 500u

/* The server is stopped until all have come: the daemon sends few of them at a time, and each is executed once. */
START_TEST(more_transactions_than_the_server_takes_wait_for_their_turn)
{
    enum { AT_A_TIME_MAX = 64 };
    static uint32_t msgids[CROWD];
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    pid_t server = daemon_nats_pid(&shared_daemon);

    assert_ok(client_call(client, "txn.commit", "['%s', [], [['put', 'a.0', 'v'], ['put', 'b.0', 'v']]]", bucket));
    pid_suspend(server);
    for (unsigned i = 0; i < CROWD; i++)
        msgids[i] =
            client_send(client, "txn.commit", "['%s', [], [['put', 'a.%u', 'v'], ['put', 'b.%u', 'v']]]", bucket, i, i);
    wait_for_stat(other, "calls_in_flight", CROWD + 1);
    ck_assert_uint_gt(stat_of(other, "requests_in_flight"), 0);
    ck_assert_uint_le(stat_of(other, "requests_in_flight"), AT_A_TIME_MAX);
    pid_resume(server);
    for (unsigned i = 0; i < CROWD; i++)
        assert_ok(client_wait(client, msgids[i]));
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), 2 + 2 * CROWD);
}
END_TEST

Suite *txn_suite(void)
{
    Suite *suite = suite_create("txn");
    TCase *tests = shared_daemon_case(suite, "txn");

    tcase_add_test(tests, a_thousand_operations_are_one_transaction_and_one_more_is_too_large);
    tcase_add_test(tests, a_condition_that_does_not_hold_names_its_key_and_nothing_is_written);
    tcase_add_test(tests, a_create_over_a_marker_succeeds);
    tcase_add_test(tests, an_operation_has_its_own_ttl_and_headers);
    tcase_add_test(tests, more_transactions_than_the_server_takes_wait_for_their_turn);
    return suite;
}
