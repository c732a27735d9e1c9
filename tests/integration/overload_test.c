/* One client that asks for much at once must not harm others or the connection to NATS. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <string.h>

/*
 * Ask count times for a key, in one write. options: what follows the key in the parameters. A slow machine needs more
 * than the usual timeout for half a gigabyte.
 */
static void ask_at_once(struct client *client, unsigned count, const char *bucket, const char *key, const char *options)
{
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < count; i++)
        pack_request(&buffer, 100000 + i, "kv.get", "['%s', '%s'%s]", bucket, key, options);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
}

START_TEST(reading_many_large_values_does_not_lose_the_connection)
{
    struct client *greedy = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(greedy, "'storage': 'memory'");
    size_t size = 900000;
    char *value = keep(calloc(1, size));
    struct answer *answer;

    assert_ok(client_put(greedy, bucket, "large", value, size));
    assert_ok(client_call(other, "kv.put", "['%s', 'small', 'v']", bucket));
    ask_at_once(greedy, 500, bucket, "large", ", {'timeout': 60}");

    /* Each call is answered, with the value or with what to do about it. In the meantime other clients are served. */
    for (unsigned i = 0; i < 500; i++) {
        answer = client_receive(greedy);
        if (answer->error.type != MSGPACK_OBJECT_NIL)
            assert_code(answer, "resource_exhausted");
        if (i % 50 == 0)
            assert_ok(client_call(other, "kv.get", "['%s', 'small']", bucket));
    }
    answer = client_call(other, "health.check", "[]");
    ck_assert(bool_at(&answer->result, "healthy"));
    ck_assert_uint_eq(number_at(&answer->result, "nats.reconnects"), 0);
}
END_TEST

/* The server cuts a connection that has 64 MB to read. The daemon learns the size of values only when they come. */
START_TEST(unexpectedly_large_values_lose_the_connection_at_most_once)
{
    struct client *greedy = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(greedy, "'storage': 'memory'");
    size_t size = 900000;
    char *value = keep(calloc(1, size));
    uint64_t reconnects = number_at(&client_call(other, "health.check", "[]")->result, "nats.reconnects");

    assert_ok(client_put(greedy, bucket, "large", value, size));
    assert_ok(client_call(other, "kv.put", "['%s', 'small', 'v']", bucket));
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 400; i++)
            assert_ok(client_call(greedy, "kv.get", "['%s', 'small']", bucket));
        ask_at_once(greedy, 400, bucket, "large", ", {'revision': 1, 'timeout': 60}");
        for (unsigned i = 0; i < 400; i++) {
            const struct answer *answer = client_receive(greedy);
            if (answer->error.type != MSGPACK_OBJECT_NIL)
                assert_code(answer, "resource_exhausted");
        }
    }
    ck_assert_uint_le(number_at(&client_call(other, "health.check", "[]")->result, "nats.reconnects"), reconnects + 1);
}
END_TEST

static struct daemon daemon_of_test;

/*
 * Many requests are sent at once, and the last answers may take long. A request is sent again only if the server
 * refuses it.
 */
static void start_patient_daemon(void)
{
    daemon_start(&daemon_of_test, NULL, "calls:\n  timeout: 200\n  max_timeout: 600\n  attempt_timeout: 600\n");
}

/* Each has a consumer of its own, and a server has a thousand at most. */
START_TEST(too_many_histories_at_a_time_wait_for_their_turn)
{
    enum { CALLS = 1100 };

    start_patient_daemon();
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'history': 3");
    msgpack_sbuffer buffer;

    put_many(client, bucket, "k.", 0, 100, 16);
    uint64_t retries = stat_of(client, "retries");
    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < CALLS; i++)
        pack_request(&buffer, 1000 + i, "kv.history", "['%s', 'k.%06u']", bucket, i % 100);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    for (unsigned i = 0; i < CALLS; i++) {
        const struct answer *answer = client_wait(client, 1000 + i);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), 1);
        if (i % 100 == 0)
            assert_ok(client_call(other, "kv.get", "['%s', 'k.000000']", bucket));
    }
    ck_assert_uint_eq(stat_of(client, "retries"), retries);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Return the requests to JetStream's API that the server has had. */
static uint64_t api_requests(struct nats *nats)
{
    json_t *info = nats_request_json(nats, "$JS.API.INFO", NULL, "");
    json_int_t total = 0;

    ck_assert_int_eq(json_unpack(info, "{s:{s:I}}", "api", "total", &total), 0);
    json_decref(info);
    return (uint64_t)total;
}

/*
 * The server still works on a request that nobody needs any more. It must not get ever more of them: watches that start
 * and stop would keep others from being served.
 */
START_TEST(requests_that_are_cancelled_keep_their_places_until_they_are_answered)
{
    enum { ROUNDS = 40, WATCHES = 20 };
    struct nats_server server = {0};

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    struct nats *nats = nats_connect(server.port, NULL, NULL);
    const char *bucket = client_new_bucket(client, NULL);
    struct client *churning = client_open(&daemon_of_test);

    put_text(client, bucket, "k", "v");
    assert_ok(
        client_call(churning, "watch.start", "['%s', {'include_history': true}]", bucket)); /* the bucket is followed */
    uint64_t before = api_requests(nats);
    nats_server_freeze(&server);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct client *leaving = client_open(&daemon_of_test);
        for (unsigned i = 0; i < WATCHES; i++)
            client_send(leaving, "watch.start", "['%s', {'include_history': true}]", bucket);
        for (unsigned i = 0; i < WATCHES; i++)
            assert_ok(client_receive(leaving));
        client_close(leaving);
        wait_for_stat(client, "watches.open", 1);
    }
    nats_server_thaw(&server);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'w']", bucket));
    uint64_t asked = api_requests(nats) - before;
    ck_assert_msg(asked < ROUNDS, "the server had %u requests", (unsigned)asked);
    nats_close(nats);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* While others are busy, what a client sends is read in its turn, and what exceeds its limit waits there. */
START_TEST(more_calls_than_the_limit_are_all_answered_while_others_are_busy)
{
    enum { ROUNDS = 150, CALLS = 20, LARGE = 200 };
    daemon_start(&daemon_of_test, NULL, "limits:\n  calls_per_session: 4\n");
    struct client *client = client_open(&daemon_of_test), *greedy = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'"), *keys = "";
    unsigned greedy_answers = 0;

    put_many(greedy, bucket, "k", 0, LARGE, 20000);
    wait_until_cached(greedy, bucket, "k000000");
    for (unsigned i = 0; i < LARGE; i++)
        keys = format_text("%s%s'k%06u'", keys, i > 0 ? ", " : "", i);
    uint32_t large = client_send(greedy, "bulk.get", "['%s', [%s]]", bucket, keys);
    for (unsigned round = 0; round < ROUNDS; round++) {
        msgpack_sbuffer buffer;
        msgpack_sbuffer_init(&buffer);
        for (unsigned i = 0; i < CALLS; i++)
            pack_request(&buffer, 1000 + i, "kv.put", "['%s', 'p', 'v']", bucket);
        client_write(client, buffer.data, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
        for (unsigned i = 0; i < CALLS; i++) {
            assert_ok(client_wait(client, 1000 + i));
            while (client_has(greedy, large)) {
                assert_ok(client_wait(greedy, large));
                client_forget(greedy);
                large = client_send(greedy, "bulk.get", "['%s', [%s]]", bucket, keys);
                greedy_answers++;
            }
        }
        client_forget(client);
    }
    ck_assert_uint_gt(greedy_answers, 0);
    assert_ok(client_wait(greedy, large)); /* or the daemon would wait until it is read */
    daemon_stop(&daemon_of_test);
}
END_TEST

/* A request that is cancelled outlives its bucket, and what the daemon knows of it. */
START_TEST(a_bucket_may_go_while_cancelled_writes_are_not_answered)
{
    struct nats_server server = {0};

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "calls:\n  attempt_timeout: 1\n");
    struct client *client = client_open(&daemon_of_test), *leaving = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    put_text(leaving, bucket, "k", "v");
    nats_server_freeze(&server);
    for (unsigned i = 0; i < 50; i++)
        client_send(leaving, "kv.put", "['%s', 'k%u', 'v', {'timeout': 10}]", bucket, i);
    wait_for_stat(client, "calls_in_flight", 51);
    client_close(leaving);
    wait_for_stat(client, "sessions.open", 1);
    uint32_t deletion = client_send(client, "bucket.delete", "['%s']", bucket);
    nats_server_thaw(&server);
    assert_ok(client_wait(client, deletion));
    wait_for_stat(client, "requests_in_flight", 0);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* A mirror is read from the server in embedded mode, too. */
static const char *new_mirror(struct client *client)
{
    const char *bucket = client_new_bucket(client, NULL);

    put_many(client, bucket, "k.", 0, 200, 16);
    return client_new_bucket(client, format_text("'mirror': '%s'", bucket));
}

/* Send listings of one key each. */
static void send_listings(struct client *client, unsigned count, const char *bucket, const char *timeout)
{
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < count; i++)
        pack_request(&buffer, 1000 + i, "kv.keys", "['%s', {'limit': 1, 'timeout': %s}]", bucket, timeout);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
}

/* The server is stopped, so that no listing gets an answer, and most do not even get their turn to ask. */
START_TEST(listings_that_get_no_turn_in_time_fail_and_leave_no_consumer)
{
    enum { IN_TIME = 100, CALLS = 400, AT_A_TIME_MAX = 64 };

    start_patient_daemon();
    struct client *client = client_open(&daemon_of_test);
    struct nats *nats = nats_connect_embedded(daemon_of_test.data_dir);
    const char *bucket = new_mirror(client);
    pid_t server = daemon_nats_pid(&daemon_of_test);

    send_listings(client, IN_TIME, bucket, "200");
    for (unsigned i = 0; i < IN_TIME; i++)
        assert_ok(client_wait(client, 1000 + i));
    wait_until(nats_consumer_count(nats, bucket) == 0, "the removal of all consumers");

    pid_suspend(server);
    send_listings(client, CALLS, bucket, "5");
    assert_ok(client_call(client, "daemon.info", "[]")); /* calls begin in their order: all of them have begun */
    uint64_t asked = stat_of(client, "requests_in_flight");
    ck_assert_uint_gt(asked, 0);
    ck_assert_uint_le(asked, AT_A_TIME_MAX);
    for (unsigned i = 0; i < CALLS; i++)
        assert_code(client_wait(client, 1000 + i), "deadline_exceeded");
    pid_resume(server);
    assert_ok(client_call(client, "kv.keys", "['%s', {'limit': 1}]", bucket));
    /* None of the others created a consumer. */
    wait_until(nats_consumer_count(nats, bucket) == 0, "the removal of the last consumer");
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *overload_suite(void)
{
    Suite *suite = suite_create("overload");
    TCase *tests = shared_daemon_case(suite, "overload"), *own = tcase_create("own daemon");

    tcase_add_test(tests, reading_many_large_values_does_not_lose_the_connection);
    tcase_add_test(tests, unexpectedly_large_values_lose_the_connection_at_most_once);
    tcase_add_test(own, too_many_histories_at_a_time_wait_for_their_turn);
    tcase_add_test(own, more_calls_than_the_limit_are_all_answered_while_others_are_busy);
    tcase_add_test(own, a_bucket_may_go_while_cancelled_writes_are_not_answered);
    tcase_add_test(own, requests_that_are_cancelled_keep_their_places_until_they_are_answered);
    tcase_add_test(own, listings_that_get_no_turn_in_time_fail_and_leave_no_consumer);
    suite_add_tcase(suite, own);
    return suite;
}
