/* kv.increment: counters that many sessions increment at once. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/daemon.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <stdio.h>
#include <time.h>

#define SESSIONS 64u
#define ROUNDS   40u

static struct daemon daemon_of_test;

static unsigned long long clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000000u + (unsigned long long)now.tv_nsec / 1000u;
}

static void expect_result(const struct answer *answer, const char *wanted)
{
    assert_ok(answer);
    ck_assert_str_eq(object_text(&answer->result), wanted);
}

static void expect_value(struct client *client, const char *bucket, const char *key, const char *wanted)
{
    const struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);

    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), wanted);
}

START_TEST(an_increment_answers_the_new_value_and_its_revision)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    expect_result(client_call(client, "kv.increment", "['%s', 'n', 5]", bucket), "[5, 1]");
    expect_result(client_call(client, "kv.increment", "['%s', 'n', -7]", bucket), "[-2, 2]");
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 0]", bucket), "[-2, 3]");
    expect_value(client, bucket, "n", "-2");
    assert_ok(client_call(client, "kv.put", "['%s', 'n', 40]", bucket));
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 2.0]", bucket), "[42, 5]");
}
END_TEST

START_TEST(an_absent_key_counts_as_the_initial_value)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    expect_result(client_call(client, "kv.increment", "['%s', 'n', 1, {'initial': 100}]", bucket), "[101, 1]");
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 1, {'initial': 100}]", bucket), "[102, 2]");
    assert_ok(client_call(client, "kv.delete", "['%s', 'n']", bucket));
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 1, {'initial': -8}]", bucket), "[-7, 4]");
    assert_ok(client_call(client, "kv.purge", "['%s', 'n']", bucket));
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket), "[1, 6]");
    assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 9]", bucket), "[9, 7]");
}
END_TEST

/* The revisions of the former bucket are those of the present one, too. */
START_TEST(a_bucket_that_was_recreated_has_its_own_numbers)
{
    struct client *client = client_open_shared();
    char *bucket = strdup(client_new_bucket(client, NULL));

    expect_result(client_call(client, "kv.increment", "['%s', 'n', 5]", bucket), "[5, 1]");
    assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
    ck_assert_uint_eq(put_text(client, bucket, "n", "100"), 1);
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket), "[101, 2]");
    free(bucket);
}
END_TEST

START_TEST(only_a_decimal_integer_can_be_incremented)
{
    static const char *const others[] = {"",
                                         "one",
                                         "1.5",
                                         "+1",
                                         " 1",
                                         "1 ",
                                         "01",
                                         "-0",
                                         "-",
                                         "0x1",
                                         "1e3",
                                         "9223372036854775808",
                                         "--1",
                                         "1\\n",
                                         "-9223372036854775809",
                                         "99999999999999999999999999"};
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        const uint64_t revision = put_text(client, bucket, "n", others[i]);
        const struct answer *answer = client_call(client, "kv.increment", "['%s', 'n', 1]", bucket);
        assert_code(answer, "not_an_integer");
        ck_assert_str_eq(answer_outcome(answer), "none");
        ck_assert_uint_eq(number_at(&answer->error, "revision"), revision);
        ck_assert_str_eq(text_at(&answer->error, "key"), "n");
    }
    put_text(client, bucket, "n", "-9223372036854775808");
    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket));
    expect_value(client, bucket, "n", "-9223372036854775807");
    assert_code(client_call(client, "kv.increment", "['%s', 'n', 'one']", bucket), "invalid_argument");
    assert_code(client_call(client, "kv.increment", "['%s', 'n', 1.5]", bucket), "invalid_argument");
}
END_TEST

START_TEST(an_increment_that_overflows_is_refused_alone)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t sent[8];
    unsigned done = 0;

    put_text(client, bucket, "n", "9223372036854775800");
    for (unsigned i = 0; i < 8; i++)
        sent[i] = client_send(client, "kv.increment", "['%s', 'n', 2]", bucket);
    for (unsigned i = 0; i < 8; i++) {
        const struct answer *answer = client_wait(client, sent[i]);
        if (strcmp(answer_code(answer), "ok") == 0) {
            done++;
            continue;
        }
        assert_code(answer, "out_of_range");
        ck_assert_str_eq(answer_outcome(answer), "none");
    }
    ck_assert_uint_eq(done, 3);
    expect_value(client, bucket, "n", "9223372036854775806");
    assert_code(client_call(client, "kv.increment", "['%s', 'n', 2]", bucket), "out_of_range");
    assert_ok(client_call(client, "kv.increment", "['%s', 'n', -9223372036854775807]", bucket));
    assert_code(client_call(client, "kv.increment", "['%s', 'm', 1, {'initial': 9223372036854775807}]", bucket),
                "out_of_range");
}
END_TEST

/* --- At once --------------------------------------------------------------------------------------- */

static void increment_at_once(const struct daemon *daemon, const char *bucket)
{
    static struct client *clients[SESSIONS];
    static uint32_t sent[SESSIONS];
    static bool seen[SESSIONS * ROUNDS + 1];
    struct client *client = client_open(daemon);
    uint64_t increments = stat_of(client, "increments.increments"), writes = stat_of(client, "increments.writes");

    for (unsigned i = 0; i < SESSIONS; i++)
        clients[i] = client_open(daemon);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < SESSIONS; i++)
            sent[i] = client_send(clients[i], "kv.increment", "['%s', 'n', 1]", bucket);
        for (unsigned i = 0; i < SESSIONS; i++) {
            const struct answer *answer = client_wait(clients[i], sent[i]);
            assert_ok(answer);
            uint64_t value = number_at(&answer->result, "0");
            ck_assert_uint_le(value, SESSIONS * ROUNDS);
            ck_assert_msg(!seen[value], "%llu twice", (unsigned long long)value);
            seen[value] = true;
        }
    }
    expect_value(client, bucket, "n", format_text("%u", SESSIONS * ROUNDS));
    increments = stat_of(client, "increments.increments") - increments;
    writes = stat_of(client, "increments.writes") - writes;
    ck_assert_uint_ge(increments, SESSIONS * ROUNDS);
    ck_assert_uint_lt(writes, SESSIONS * ROUNDS / 4);
    for (unsigned i = 0; i < SESSIONS; i++)
        client_close(clients[i]);
    client_close(client);
}

START_TEST(sixty_four_sessions_on_one_key_get_each_value_once)
{
    struct client *client = client_open_shared();

    increment_at_once(&shared_daemon, client_new_bucket(client, NULL));
}
END_TEST

START_TEST(increments_need_no_atomic_batches)
{
    struct nats_server server;

    nats_server_start(&server, NULL);
    struct nats *nats = nats_connect(server.port, NULL, NULL);
    nats_api(nats, "STREAM.CREATE", "KV_plain",
             "{'name': 'KV_plain', 'subjects': ['$KV.plain.>'], 'max_msgs_per_subject': 1, 'allow_rollup_hdrs': true,"
             " 'deny_delete': true, 'allow_direct': true, 'discard': 'new'}");
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    const struct answer *info = client_call(client, "bucket.info", "['plain']");
    assert_ok(info);
    ck_assert(!bool_at(&info->result, "allows_atomic"));
    increment_at_once(&daemon_of_test, "plain");
    client_close(client);
    daemon_stop(&daemon_of_test);
    nats_close(nats);
    nats_server_stop(&server);
}
END_TEST

/* Send five increments in one message. Return whether they were one write. */
static bool increment_together(struct client *client, const char *bucket, uint32_t first_msgid, uint64_t value)
{
    uint64_t first_revision = 0, revision = 0;
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (uint32_t i = 0; i < 5; i++)
        pack_request(&buffer, first_msgid + i, "kv.increment", "['%s', 'n', %u]", bucket, i);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    for (uint32_t i = 0; i < 5; i++) {
        const struct answer *answer = client_wait(client, first_msgid + i);
        assert_ok(answer);
        value += i;
        ck_assert_uint_eq(number_at(&answer->result, "0"), value);
        ck_assert_uint_ge(number_at(&answer->result, "1"), revision);
        revision = number_at(&answer->result, "1");
        first_revision = i == 0 ? revision : first_revision;
    }
    return revision == first_revision;
}

/* The turn of a session can end in the middle of a message, if the machine is slow. */
START_TEST(increments_of_one_message_are_one_write)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t value = 10, end_ms = now_ms() + PATIENCE_MS;
    uint32_t msgid = 1000;

    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 10]", bucket)); /* the bucket is known now */
    for (; !increment_together(client, bucket, msgid, value); msgid += 5, value += 10)
        ck_assert_uint_lt(now_ms(), end_ms);
}
END_TEST

/* Each call of the other sessions makes the increments that were combined start again. */
START_TEST(increments_beside_other_writes_lose_none)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    char *bucket = strdup(client_new_bucket(client, NULL));
    unsigned added = 0;

    put_text(client, bucket, "n", "0");
    for (unsigned round = 0; round < 50; round++) {
        uint32_t sent[16];
        const struct answer *answer = client_call(other, "kv.get", "['%s', 'n']", bucket);
        unsigned long long revision = number_at(&answer->result, "revision");
        unsigned value = (unsigned)atoi(text_at(&answer->result, "value"));
        for (unsigned i = 0; i < 16; i++)
            sent[i] = client_send(client, "kv.increment", "['%s', 'n', 1]", bucket);
        answer = client_call(other, "kv.update", "['%s', 'n', '%u', %llu]", bucket, value + 1000, revision);
        if (strcmp(answer_code(answer), "ok") == 0)
            added += 1000;
        else
            assert_code(answer, "conflict");
        for (unsigned i = 0; i < 16; i++)
            assert_ok(client_wait(client, sent[i]));
        added += 16;
    }
    expect_value(client, bucket, "n", format_text("%u", added));
    free(bucket);
}
END_TEST

/* --- TTLs ------------------------------------------------------------------------------------------ */

static uint64_t ttl_of(struct client *client, const char *bucket, const char *key)
{
    const struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);

    assert_ok(answer);
    return find_at(&answer->result, "ttl") != NULL ? number_at(&answer->result, "ttl") : 0;
}

START_TEST(a_ttl_goes_on_or_starts_anew)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket));
    ck_assert_uint_eq(ttl_of(client, bucket, "n"), 0);
    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1, {'ttl': 1000, 'keep_ttl': true}]", bucket));
    ck_assert_uint_eq(ttl_of(client, bucket, "n"), 1000); /* it had none */
    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1, {'ttl': 90000, 'keep_ttl': true}]", bucket));
    ck_assert_uint_le(ttl_of(client, bucket, "n"), 1000);
    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket));
    ck_assert_uint_ge(ttl_of(client, bucket, "n"), 900);
    ck_assert_uint_le(ttl_of(client, bucket, "n"), 1000);
    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1, {'ttl': 2000}]", bucket));
    ck_assert_uint_eq(ttl_of(client, bucket, "n"), 2000);
    const struct answer *answer = client_call(client, "kv.get", "['%s', 'n']", bucket);
    ck_assert_ptr_null(find_at(&answer->result, "headers"));
    assert_ok(client_call(client, "kv.put", "['%s', 'n', '1', {'ttl': 3000}]", bucket));
    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket));
    ck_assert_uint_gt(ttl_of(client, bucket, "n"), 2000);
}
END_TEST

START_TEST(increments_with_different_ttls_are_not_combined)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer buffer;

    assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket));
    msgpack_sbuffer_init(&buffer);
    for (uint32_t i = 0; i < 6; i++)
        pack_request(&buffer, 1000 + i, "kv.increment", "['%s', 'n', 1, {'ttl': %u}]", bucket, 100 + i % 2);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    /* How many are combined depends on how many arrive together. */
    uint64_t revisions[6], seen = 0, last = 0;
    for (uint32_t i = 0; i < 6; i++) {
        const struct answer *answer = client_wait(client, 1000 + i);
        assert_ok(answer);
        seen |= 1u << answer->result.via.array.ptr[0].via.u64;
        revisions[i] = answer->result.via.array.ptr[1].via.u64;
        if (revisions[i] > revisions[last])
            last = i;
    }
    ck_assert_uint_eq(seen, 0xfc); /* 2 to 7 */
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned other = i + 1; other < 6; other += 2)
            ck_assert_uint_ne(revisions[i], revisions[other]);
    }
    ck_assert_uint_eq(ttl_of(client, bucket, "n"), 100 + last % 2);
}
END_TEST

/* Those with different TTLs are a write each, so thousands of one session take long. */
START_TEST(increments_of_one_session_do_not_keep_those_of_others_waiting)
{
    enum { MANY = 2000 };
    uint32_t sent[MANY];

    daemon_start(&daemon_of_test, NULL, "calls:\n  timeout: 60\n");
    struct client *greedy = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(other, NULL);
    assert_ok(client_call(other, "kv.increment", "['%s', 'n', 1]", bucket));
    pid_suspend(daemon_nats_pid(&daemon_of_test));
    for (unsigned i = 0; i < MANY; i++)
        sent[i] = client_send(greedy, "kv.increment", "['%s', 'n', 1, {'ttl': %u}]", bucket, 10000 + i);
    wait_for_stat(other, "calls_in_flight", MANY + 1); /* and daemon.stats itself */
    uint32_t id = client_send(other, "kv.increment", "['%s', 'n', 1]", bucket);
    wait_for_stat(greedy, "calls_in_flight", MANY + 2);
    pid_resume(daemon_nats_pid(&daemon_of_test));
    const struct answer *answer = client_wait(other, id);
    assert_ok(answer);
    ck_assert_int_le(atoi(object_text(&answer->result) + 1), 10); /* [value, revision] */
    for (unsigned i = 0; i < MANY; i++)
        assert_ok(client_wait(greedy, sent[i]));
    expect_value(other, bucket, "n", format_text("%u", MANY + 2));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* A TTL has whole seconds. If each increment rounded it, the counter would live on or end early. */
START_TEST(increments_do_not_prolong_a_ttl_that_goes_on)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *increment = "['%s', 'n', 1, {'ttl': 2, 'keep_ttl': true}]";
    uint64_t start = now_ms(), value = 0, last;

    do {
        last = value;
        ck_assert_uint_lt(now_ms() - start, PATIENCE_MS);
        const struct answer *answer = client_call(client, "kv.increment", increment, bucket);
        assert_ok(answer);
        value = number_at(&answer->result, "0");
        client_forget(client);
    } while (value > last);
    ck_assert_uint_eq(value, 1);
    ck_assert_uint_ge(now_ms() - start, 1900);
}
END_TEST

/* --- Repeated -------------------------------------------------------------------------------------- */

START_TEST(a_repeated_increment_is_done_once_and_has_the_first_result)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    unsigned long long before = clock_us();
    const char *again = "['%s', 'n', 3, {'id': 'incr-0001', 'first_sent': %llu}]";

    expect_result(client_call(client, "kv.increment", "['%s', 'n', 3, {'id': 'incr-0001'}]", bucket), "[3, 1]");
    expect_result(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket), "[4, 2]");
    expect_result(client_call(client, "kv.increment", again, bucket, before), "[3, 1]");
    expect_result(client_call(client, "kv.increment", again, bucket, before), "[3, 1]");
    /* Nobody has sent this one before. */
    expect_result(
        client_call(client, "kv.increment", "['%s', 'n', 1, {'id': 'incr-0002', 'first_sent': %llu}]", bucket, before),
        "[5, 3]");
    assert_code(
        client_call(client, "kv.increment", "['%s', 'n', 4, {'id': 'incr-0001', 'first_sent': %llu}]", bucket, before),
        "invalid_argument");
    assert_code(
        client_call(client, "kv.increment", "['%s', 'm', 3, {'id': 'incr-0001', 'first_sent': %llu}]", bucket, before),
        "invalid_argument");
    assert_code(
        client_call(client, "kv.put", "['%s', 'n', 3, {'id': 'incr-0001', 'first_sent': %llu}]", bucket, before),
        "invalid_argument");
}
END_TEST

START_TEST(a_repeated_increment_has_the_first_result_also_after_a_restart)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    char *bucket = strdup(client_new_bucket(client, NULL));
    unsigned long long before = clock_us();
    uint32_t sent[20];

    for (unsigned i = 0; i < 20; i++)
        sent[i] = client_send(client, "kv.increment", "['%s', 'n', 1, {'id': 'incr-00%02u'}]", bucket, i);
    for (unsigned i = 0; i < 20; i++)
        assert_ok(client_peek(client, sent[i]));
    process_kill(&daemon_of_test.process);
    daemon_restart(&daemon_of_test);
    struct client *next = client_open(&daemon_of_test);
    expect_result(
        client_call(next, "kv.increment", "['%s', 'n', 1000]", bucket),
        format_text("[1020, %llu]", (unsigned long long)number_at(&client_peek(client, sent[19])->result, "1") + 1));
    for (unsigned i = 0; i < 20; i++) {
        const struct answer *answer = client_call(
            next, "kv.increment", "['%s', 'n', 1, {'id': 'incr-00%02u', 'first_sent': %llu}]", bucket, i, before);
        expect_result(answer, object_text(&client_peek(client, sent[i])->result));
    }
    expect_value(next, bucket, "n", "1020");
    free(bucket);
    client_close(client);
    client_close(next);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Errors ---------------------------------------------------------------------------------------- */

START_TEST(increments_of_a_bucket_that_does_not_exist_fail)
{
    struct client *client = client_open_shared();
    uint32_t sent[10];

    for (unsigned i = 0; i < 10; i++)
        sent[i] = client_send(client, "kv.increment", "['nowhere', 'n', 1]");
    for (unsigned i = 0; i < 10; i++)
        assert_code(client_wait(client, sent[i]), "bucket_not_found");
}
END_TEST

START_TEST(increments_of_sessions_that_have_ended_harm_nobody)
{
    struct client *client = client_open_shared();
    char *bucket = strdup(client_new_bucket(client, NULL));

    for (unsigned i = 0; i < 50; i++) {
        struct client *leaving = client_open_shared();
        for (unsigned n = 0; n < 20; n++)
            client_send(leaving, "kv.increment", "['%s', 'n', 1]", bucket);
        client_close(leaving);
        assert_ok(client_call(client, "kv.increment", "['%s', 'n', 1]", bucket));
        client_forget(client);
    }
    wait_for_stat(client, "calls_in_flight", 1);
    const struct answer *answer = client_call(client, "kv.increment", "['%s', 'n', 0]", bucket);
    assert_ok(answer);
    ck_assert_uint_ge(number_at(&answer->result, "0"), 50);
    ck_assert_uint_le(number_at(&answer->result, "0"), 50 * 21);
    free(bucket);
}
END_TEST

Suite *increment_suite(void)
{
    Suite *suite = suite_create("increment");
    TCase *shared = shared_daemon_case(suite, "increments");
    TCase *own = tcase_create("a daemon of its own");

    tcase_add_test(shared, an_increment_answers_the_new_value_and_its_revision);
    tcase_add_test(shared, an_absent_key_counts_as_the_initial_value);
    tcase_add_test(shared, a_bucket_that_was_recreated_has_its_own_numbers);
    tcase_add_test(shared, only_a_decimal_integer_can_be_incremented);
    tcase_add_test(shared, an_increment_that_overflows_is_refused_alone);
    tcase_add_test(shared, sixty_four_sessions_on_one_key_get_each_value_once);
    tcase_add_test(shared, increments_of_one_message_are_one_write);
    tcase_add_test(shared, increments_beside_other_writes_lose_none);
    tcase_add_test(shared, a_ttl_goes_on_or_starts_anew);
    tcase_add_test(shared, increments_with_different_ttls_are_not_combined);
    tcase_add_test(shared, increments_of_one_session_do_not_keep_those_of_others_waiting);
    tcase_add_test(shared, increments_do_not_prolong_a_ttl_that_goes_on);
    tcase_add_test(shared, a_repeated_increment_is_done_once_and_has_the_first_result);
    tcase_add_test(shared, increments_of_a_bucket_that_does_not_exist_fail);
    tcase_add_test(shared, increments_of_sessions_that_have_ended_harm_nobody);
    tcase_add_test(own, increments_need_no_atomic_batches);
    tcase_add_test(own, a_repeated_increment_has_the_first_result_also_after_a_restart);
    suite_add_tcase(suite, own);
    return suite;
}
