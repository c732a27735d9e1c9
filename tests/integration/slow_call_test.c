/* log.slow_call: a line for each call that takes long, with where the time went and who made it. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/nats_server.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SLOW_MS 300u

static struct daemon daemon_of_test;
static struct nats_server server;

static void start(const char *log)
{
    nats_server_prepare(&server, NULL);
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), log);
}

static void stop(void)
{
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}

/* Wait until a call in flight is this old. */
static void wait_for_age(struct client *client, const char *method, uint64_t age_ms)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (;;) {
        struct answer *dump = client_call(client, "daemon.dump", "[]");
        assert_ok(dump);
        for (size_t i = 0; i < count_at(&dump->result, "calls.list"); i++) {
            const msgpack_object *call = find_at(&dump->result, format_text("calls.list.%zu", i));
            if (strcmp(text_at(call, "method"), method) == 0 && number_at(call, "age_ms") >= age_ms)
                return;
        }
        ck_assert_uint_lt(now_ms(), end);
        pause_shortly();
    }
}

struct times {
    double took_s, queued_s, sent_s;
};

/* Read the times from the next line of the log that begins like this after "slow call: ". */
static struct times times_of(const char *call)
{
    const char *wanted = format_text("slow call: %s took ", call);
    struct times times;

    daemon_wait_log(&daemon_of_test, wanted); /* what is after it is in one write with it */
    ck_assert_int_eq(sscanf(daemon_log(&daemon_of_test),
                            "%lf s (log.slow_call is 0.3 s), of that %lf s in queues of the daemon "
                            "and %lf s at NATS;",
                            &times.took_s, &times.queued_s, &times.sent_s),
                     3);
    return times;
}

START_TEST(a_call_that_nats_holds_up_is_logged_with_its_key_and_client)
{
    start("log:\n  slow_call: 300ms\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    struct answer *sessions = client_call(other, "daemon.sessions", "[]");
    assert_ok(sessions);
    nats_server_freeze(&server);
    uint32_t put = client_send(other, "kv.put", "['b', 'the.key', 'the-value', {'timeout': 40}]");
    wait_for_age(client, "kv.put", SLOW_MS + 100);
    nats_server_thaw(&server);
    assert_ok(client_wait(other, put));
    struct times times = times_of("kv.put of bucket b key the.key");
    ck_assert_double_ge(times.took_s, SLOW_MS / 1000.0);
    ck_assert_double_ge(times.sent_s, SLOW_MS / 1000.0);
    ck_assert_double_le(times.queued_s, times.took_s - times.sent_s + 0.01);
    daemon_wait_log(&daemon_of_test, format_text("at NATS; it was answered; session %llu of pid %d uid %u (",
                                                 (unsigned long long)number_at(&sessions->result, "own"), (int)getpid(),
                                                 (unsigned)getuid()));
    /* Values are never logged. */
    ck_assert_ptr_null(strstr(read_file(daemon_of_test.process.log_path), "the-value"));
    stop();
}
END_TEST

START_TEST(time_without_a_connection_is_time_in_a_queue)
{
    start("log:\n  slow_call: 300ms\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    nats_server_stop(&server);
    daemon_wait_log(&daemon_of_test, " lost: closed by the server");
    uint32_t get = client_send(other, "kv.get", "['b', 'k', {'timeout': 40}]");
    wait_for_age(client, "kv.get", SLOW_MS + 100);
    nats_server_run(&server);
    assert_ok(client_wait(other, get));
    struct times times = times_of("kv.get of bucket b key k");
    ck_assert_double_ge(times.queued_s, SLOW_MS / 1000.0);
    stop();
}
END_TEST

START_TEST(slow_calls_of_clients_that_left_and_that_failed_are_logged)
{
    start("log:\n  slow_call: 300ms\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    nats_server_freeze(&server);
    client_send(other, "daemon.info", "[]");
    client_send(other, "kv.history", "['b', 'k', {'timeout': 40}]");
    wait_for_age(client, "kv.history", SLOW_MS + 100);
    client_close(other); /* with an unread answer: the connection is reset */
    daemon_wait_log(&daemon_of_test, "slow call: kv.history of bucket b key k took ");
    daemon_wait_log(&daemon_of_test, "at NATS; its client has left; session ");
    assert_ok(client_call(client, "bulk.put", "['b', {'k': 1, 'l': 2}, {'timeout': 0.4}]"));
    daemon_wait_log(&daemon_of_test, "slow call: bulk.put of bucket b 2 keys took ");
    assert_code(client_call(client, "bucket.info", "['b', {'timeout': 0.4}]"), "deadline_exceeded");
    daemon_wait_log(&daemon_of_test, "at NATS; deadline_exceeded; session ");
    nats_server_thaw(&server);
    stop();
}
END_TEST

START_TEST(a_wait_whose_client_leaves_is_not_slow)
{
    start("log:\n  slow_call: 300ms\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "lock.acquire", "['b', 'job']"));
    client_send(other, "lock.acquire", "['b', 'job', {'wait': 600}]");
    wait_for_age(client, "lock.acquire", SLOW_MS + 100);
    client_close(other);
    wait_for_stat(client, "calls_in_flight", 1);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow call: lock.acquire"));
    stop();
}
END_TEST

START_TEST(slow_calls_are_logged_after_a_reload_and_some_of_many)
{
    enum { CALLS = 60 };
    uint32_t puts[CALLS];

    start(NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    for (unsigned round = 0; round < 2; round++) {
        nats_server_freeze(&server);
        for (unsigned i = 0; i < CALLS; i++)
            puts[i] = client_send(other, "kv.put", "['b', 'k%u', 'v', {'timeout': 40}]", i);
        wait_for_age(client, "kv.put", SLOW_MS + 100);
        nats_server_thaw(&server);
        for (unsigned i = 0; i < CALLS; i++)
            assert_ok(client_wait(other, puts[i]));
        if (round > 0)
            break;
        /* It is off by default. */
        ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow call"));
        daemon_configure(&daemon_of_test, nats_server_section(&server), "log:\n  slow_call: 0.3\n");
        process_signal(&daemon_of_test.process, SIGHUP);
        daemon_wait_log(&daemon_of_test, "is in effect");
    }
    unsigned lines = 0;
    for (const char *at = read_file(daemon_of_test.process.log_path); (at = strstr(at, "slow call: ")) != NULL; at++)
        lines++;
    ck_assert_uint_ge(lines, 1);
    ck_assert_uint_lt(lines, CALLS);
    stop();
}
END_TEST

Suite *slow_call_suite(void)
{
    Suite *suite = suite_create("slow_call");
    TCase *own = tcase_create("slow_call");

    tcase_add_test(own, a_call_that_nats_holds_up_is_logged_with_its_key_and_client);
    tcase_add_test(own, time_without_a_connection_is_time_in_a_queue);
    tcase_add_test(own, slow_calls_of_clients_that_left_and_that_failed_are_logged);
    tcase_add_test(own, a_wait_whose_client_leaves_is_not_slow);
    tcase_add_test(own, slow_calls_are_logged_after_a_reload_and_some_of_many);
    suite_add_tcase(suite, own);
    return suite;
}
