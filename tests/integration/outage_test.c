/* A NATS server that is missing, goes away, or stops. */
#include "tests/integration/load.h"
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

static struct daemon daemon_of_test;
static struct nats_server server;

/* Wait until the health is as wanted. */
static void wait_for_health(struct client *client, bool wanted)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (;;) {
        struct answer *answer = client_call(client, "health.check", "[]");
        assert_ok(answer);
        if (bool_at(&answer->result, "healthy") == wanted)
            return;
        ck_assert_msg(now_ms() < end, "the health is %s", object_text(&answer->result));
        pause_shortly();
    }
}

START_TEST(the_daemon_starts_without_nats_and_connects_when_it_appears)
{
    nats_server_prepare(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "health.check", "[]");

    assert_ok(answer);
    ck_assert(!bool_at(&answer->result, "healthy"));
    ck_assert(!bool_at(&answer->result, "nats.connected"));
    ck_assert_str_ne(text_at(&answer->result, "error"), "");
    answer = client_call(client, "health.check", "['b']");
    assert_ok(answer);
    ck_assert(!bool_at(&answer->result, "healthy"));
    ck_assert_str_eq(text_at(&answer->result, "bucket"), "b");
    answer = client_call(client, "daemon.info", "[]");
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "nats.mode"), "external");
    ck_assert(!bool_at(&answer->result, "nats.connected"));
    assert_ok(client_call(client, "daemon.stats", "[]"));

    static const struct {
        const char *method, *params;
    } calls[] = {{"kv.get", "['b', 'k']"},     {"kv.put", "['b', 'k', 'v']"}, {"kv.keys", "['b']"},
                 {"kv.history", "['b', 'k']"}, {"bucket.create", "['b']"},    {"bucket.list", "[]"},
                 {"bucket.info", "['b']"},     {"kv.delete", "['b', 'k']"}};
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        uint64_t start = now_ms();
        answer = client_call(client, calls[i].method, "%s", calls[i].params);
        assert_code(answer, "unavailable");
        ck_assert(bool_at(&answer->error, "retryable"));
        assert_at_once(start);
    }
    /* Invalid calls are still answered as invalid. */
    assert_code(client_call(client, "kv.get", "['b']"), "invalid_argument");

    nats_server_run(&server);
    wait_for_health(client, true);
    const char *bucket = client_new_bucket(client, NULL);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* Make a server that accepts connections and says nothing, until the attempt times out. Return its descriptor. */
static int start_with_mute_server(const char *connect_timeout)
{
    unsigned port;
    int listener = port_listen(&port);

    daemon_start(&daemon_of_test,
                 format_text("  mode: external\n  servers: ['nats://127.0.0.1:%u']\n  connect_timeout: %s\n", port,
                             connect_timeout),
                 NULL);
    return listener;
}

/* The program that starts the daemon may leave descriptors open. */
START_TEST(an_inherited_socket_is_not_removed)
{
    unsigned port;
    int inherited = port_listen(&port);

    fcntl(inherited, F_SETFD, 0);
    int listener = start_with_mute_server("0.2");
    daemon_wait_log(&daemon_of_test, "did not complete the connection within 0.2 s");
    int connection = port_dial(port);
    ck_assert_int_ge(connection, 0);
    daemon_stop(&daemon_of_test);
    close(connection);
    close(inherited);
    close(listener);
}
END_TEST

START_TEST(an_attempt_to_connect_does_not_delay_the_shutdown)
{
    int listener = start_with_mute_server("50");

    client_call(client_open(&daemon_of_test), "health.check", "[]");
    uint64_t start = now_ms();
    daemon_stop(&daemon_of_test);
    assert_at_once(start);
    ck_assert_int_ne(access(daemon_of_test.socket_path, F_OK), 0);
    close(listener);
}
END_TEST

START_TEST(without_jetstream_every_method_is_unavailable)
{
    static const char *const calls[][2] = {{"kv.put", "['b', 'k', 'v']"},
                                           {"kv.get", "['b', 'k']"},
                                           {"kv.delete", "['b', 'k']"},
                                           {"kv.keys", "['b']"},
                                           {"kv.history", "['b', 'k']"},
                                           {"kv.get", "['b', 'k', {'consistency': 'cached'}]"},
                                           {"bulk.get", "['b', ['k']]"},
                                           {"txn.commit", "['b', [], [['put', 'k', 'v']]]"},
                                           {"watch.start", "['b']"},
                                           {"bucket.create", "['b']"},
                                           {"bucket.delete", "['b']"},
                                           {"bucket.list", "[]"},
                                           {"bucket.info", "['b']"},
                                           {"bucket.purge", "['b']"},
                                           {"bucket.update", "['b', {'history': 3}]"}};
    struct answer *answer;

    nats_server_prepare(&server, NULL);
    write_file(format_text("%s/conf", server.directory), format_text("host: 127.0.0.1\nport: %u\n", server.port));
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), "calls:\n  timeout: 1\n");
    struct client *client = client_open(&daemon_of_test);
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        answer = client_call(client, calls[i][0], "%s", calls[i][1]);
        /* If an attempt was in flight at the deadline, the outcome is unknown, and the message has the reason. */
        bool names_reason = strstr(object_text(&answer->error), "JetStream did not answer") != NULL;
        bool is_well = strcmp(answer_code(answer), "unavailable") == 0 ||
                       (strcmp(answer_code(answer), "deadline_exceeded") == 0 && names_reason);
        ck_assert_msg(is_well, "%s %s: %s", calls[i][0], calls[i][1], object_text(&answer->error));
    }
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_silent_server_times_out)
{
    int listener = start_with_mute_server("0.2");

    daemon_wait_log(&daemon_of_test, "did not complete the connection within 0.2 s");
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

static const char greeting[] = "INFO {\"server_id\":\"A\",\"version\":\"2.15.1\",\"max_payload\":1048576,"
                               "\"headers\":true,\"proto\":1}\r\n";

/* Version 3.4.1 of the NATS library waits for the answer to its CONNECT in a busy loop, forever. */
START_TEST(a_server_that_is_silent_after_its_first_line_times_out)
{
    int listener = start_with_mute_server("0.2");
    struct client *client = client_open(&daemon_of_test);

    for (unsigned i = 0; i < 3; i++) { /* attempts */
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        ck_assert_int_ge(connection, 0);
        ck_assert_int_eq(send(connection, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL), sizeof(greeting) - 1);
    }
    daemon_wait_log(&daemon_of_test, "did not complete the connection within 0.2 s");
    struct answer *health = client_call(client, "health.check", "[]");
    ck_assert_msg(strstr(object_text(&health->result), "did not complete the connection") != NULL, "%s",
                  object_text(&health->result));
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

/* The reset comes while there is still something to read, so that poll reports it. */
START_TEST(a_reset_connection_is_reported_as_reset)
{
    int listener = start_with_mute_server("50"), connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    char bytes[4096] = "";

    ck_assert_int_eq(send(connection, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL), sizeof(greeting) - 1);
    for (size_t length = 0; strstr(bytes, "PING") == NULL;) {
        ssize_t received = recv(connection, bytes + length, sizeof(bytes) - 1 - length, 0);
        ck_assert_int_gt(received, 0);
        length += (size_t)received;
    }
    ck_assert_int_eq(send(connection, "PONG\r\n", 6, MSG_NOSIGNAL), 6);
    daemon_wait_log(&daemon_of_test, "connected to");
    client_call(client_open(&daemon_of_test), "health.check", "[]");
    pid_suspend(daemon_of_test.process.pid);
    ck_assert_int_eq(send(connection, "+OK\r\n", 5, MSG_NOSIGNAL), 5);
    setsockopt(connection, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(connection);
    pid_resume(daemon_of_test.process.pid);
    daemon_wait_log(&daemon_of_test, "lost: Connection reset by peer");
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

START_TEST(a_call_that_waits_for_the_first_connection_gets_its_error)
{
    int listener = start_with_mute_server("0.5");
    struct client *client = client_open(&daemon_of_test);
    uint64_t start = now_ms();

    uint32_t watch = client_send(client, "watch.start", "['b']");
    uint32_t cached = client_send(client, "kv.get", "['b', 'k', {'consistency': 'cached'}]");
    struct answer *answer = client_call(client, "kv.put", "['b', 'k', 'v']");
    assert_code(answer, "unavailable");
    ck_assert(bool_at(&answer->error, "retryable"));
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    assert_code(client_wait(client, watch), "unavailable");
    assert_code(client_wait(client, cached), "unavailable");
    assert_at_once(start);
    start = now_ms();
    answer = client_call(client, "kv.put", "['b', 'k', 'v']");
    assert_code(answer, "unavailable");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    assert_code(client_call(client, "watch.start", "['b']"), "unavailable");
    assert_at_once(start);
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

START_TEST(a_server_without_jetstream_is_unavailable)
{
    nats_server_prepare(&server, NULL);
    write_file(format_text("%s/conf", server.directory), format_text("host: 127.0.0.1\nport: %u\n", server.port));
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_for_health(client, true);
    /* All at the same time, and with enough time for the server to report that nobody answers. */
    static const char *const methods[] = {"kv.get", "kv.put", "bucket.create"};
    static const char *const params[] = {"['b', 'k', {'timeout': 5}]", "['b', 'k', 'v', {'timeout': 5}]",
                                         "['b', {'timeout': 5}]"};
    uint32_t msgids[3];
    for (unsigned i = 0; i < 3; i++)
        msgids[i] = client_send(client, methods[i], "%s", params[i]);
    for (unsigned i = 0; i < 3; i++) {
        struct answer *answer = client_wait(client, msgids[i]);
        ck_assert_ptr_nonnull(strstr(text_at(&answer->error, "message"), "JetStream"));
        ck_assert(bool_at(&answer->error, "retryable"));
        if (i < 2) /* a bucket may have been made */
            assert_code(answer, "unavailable");
    }
    daemon_wait_log(&daemon_of_test, "JetStream does not report its API level");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_write_whose_deadline_passes_has_an_unknown_outcome)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_for_health(client, true);
    const char *bucket = client_new_bucket(client, NULL);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'old']", bucket));

    pid_suspend(server.process.pid);
    static const struct {
        const char *method, *rest;
        const char *outcome;
    } calls[] = {{"kv.get", "", "none"},
                 {"kv.history", "", "none"},
                 {"kv.put", "'new', ", "unknown"},
                 {"kv.create", "'new', ", "unknown"},
                 {"kv.update", "'new', 1, ", "unknown"},
                 {"kv.delete", "", "unknown"},
                 {"kv.purge", "", "unknown"}};
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        uint64_t start = now_ms();
        struct answer *answer =
            client_call(client, calls[i].method, "['%s', 'k%zu', %s{'timeout': 0.3}]", bucket, i, calls[i].rest);
        assert_code(answer, "deadline_exceeded");
        ck_assert(bool_at(&answer->error, "retryable"));
        bool has_outcome = find_at(&answer->error, "outcome") != NULL;
        ck_assert_msg(has_outcome ? strcmp(text_at(&answer->error, "outcome"), calls[i].outcome) == 0
                                  : strcmp(calls[i].outcome, "none") == 0,
                      "%s: %s", calls[i].method, answer_text(answer));
        ck_assert_uint_ge(now_ms() - start, 290);
        assert_at_once(start);
    }
    pid_resume(server.process.pid);
    struct answer *answer = client_call(client, "kv.get", "['%s', 'k']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "old");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_server_that_stops_for_a_while_only_delays_calls)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "calls:\n  attempt_timeout: 0.1\n");
    struct client *client = client_open(&daemon_of_test);
    wait_for_health(client, true);
    const char *bucket = client_new_bucket(client, "'history': 10");
    assert_ok(client_call(client, "kv.put", "['%s', 'first', 'v']", bucket)); /* now the bucket is looked up */

    /* Each write is sent several times: the server must store it once. */
    pid_suspend(server.process.pid);
    uint32_t msgids[9];
    for (unsigned i = 0; i < 9; i++)
        msgids[i] = client_send(client,
                                i % 3 == 0   ? "kv.put"
                                : i % 3 == 1 ? "kv.create"
                                             : "kv.update",
                                "['%s', 'k%u', 'v'%s]", bucket, i, i % 3 == 2 ? ", 0" : "");
    wait_until(stat_of(client, "retries") >= 2 * 9, "retries");
    pid_resume(server.process.pid);
    for (unsigned i = 0; i < 9; i++)
        assert_ok(client_wait(client, msgids[i]));
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), 10);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(calls_wait_for_a_server_that_comes_back)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_for_health(client, true);
    const char *bucket = client_new_bucket(client, NULL);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));

    nats_server_stop(&server);
    daemon_wait_log(&daemon_of_test, "lost:");
    uint32_t put = client_send(client, "kv.put", "['%s', 'k', 'new']", bucket);
    uint32_t get = client_send(client, "kv.get", "['%s', 'k']", bucket);
    uint32_t info = client_send(client, "bucket.info", "['%s']", bucket);
    wait_for_stat(client, "calls_in_flight", 3 + 1);
    nats_server_run(&server);
    ck_assert_uint_eq(revision_of(client_wait(client, put)), 2);
    assert_ok(client_wait(client, get));
    assert_ok(client_wait(client, info));
    struct answer *answer = client_call(client, "health.check", "[]");
    ck_assert_uint_eq(number_at(&answer->result, "nats.reconnects"), 1);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

static unsigned count_descriptors(pid_t pid)
{
    DIR *descriptors = opendir(format_text("/proc/%d/fd", (int)pid));
    unsigned count = 0;

    ck_assert_ptr_nonnull(descriptors);
    while (readdir(descriptors) != NULL)
        count++;
    closedir(descriptors);
    return count;
}

START_TEST(a_connection_that_is_lost_leaves_no_descriptor_behind)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_for_health(client, true);
    unsigned before = count_descriptors(daemon_of_test.process.pid);

    for (unsigned i = 0; i < 3; i++) {
        nats_server_stop(&server);
        daemon_wait_log(&daemon_of_test, "lost:");
        nats_server_run(&server);
        wait_for_health(client, true);
    }
    wait_until(count_descriptors(daemon_of_test.process.pid) <= before, "the end of descriptors");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(after_outage_wait_calls_are_refused_at_once)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, format_text("%s  outage_wait: 0.3\n", nats_server_section(&server)), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_for_health(client, true);
    const char *bucket = client_new_bucket(client, NULL);

    nats_server_stop(&server);
    daemon_wait_log(&daemon_of_test, "lost:");
    /* A waiting call keeps its own deadline. */
    struct answer *answer = client_call(client, "kv.put", "['%s', 'k', 'v', {'timeout': 0.5}]", bucket);
    assert_code(answer, "unavailable");
    uint64_t start = now_ms();
    answer = client_call(client, "kv.put", "['%s', 'k', 'v']", bucket);
    assert_code(answer, "unavailable");
    ck_assert(bool_at(&answer->error, "retryable"));
    assert_at_once(start);
    wait_for_health(client, false);
    nats_server_run(&server);
    wait_for_health(client, true);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_server_that_no_longer_answers_counts_as_lost)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, format_text("%s  ping_interval: 0.1\n", nats_server_section(&server)), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_for_health(client, true);
    pid_suspend(server.process.pid);
    daemon_wait_log(&daemon_of_test, "lost: the server does not answer");
    wait_for_health(client, false);
    pid_resume(server.process.pid);
    wait_for_health(client, true);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_restart_of_the_server_under_load_loses_and_repeats_no_write)
{
    struct load load;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    wait_for_health(client_open(&daemon_of_test), true);
    load_begin(&load, &daemon_of_test, 3000);
    for (unsigned i = 0; i < 2; i++) {
        load_wait_for_some(&load, 300);
        if (i == 0)
            process_kill(&server.process);
        else
            nats_server_stop(&server);
        nats_server_run(&server);
    }
    load_finish(&load);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

Suite *outage_suite(void)
{
    Suite *suite = suite_create("outage");
    TCase *tests = tcase_create("outage");

    tcase_add_test(tests, the_daemon_starts_without_nats_and_connects_when_it_appears);
    tcase_add_test(tests, an_inherited_socket_is_not_removed);
    tcase_add_test(tests, an_attempt_to_connect_does_not_delay_the_shutdown);
    tcase_add_test(tests, without_jetstream_every_method_is_unavailable);
    tcase_add_test(tests, a_silent_server_times_out);
    tcase_add_test(tests, a_server_that_is_silent_after_its_first_line_times_out);
    tcase_add_test(tests, a_reset_connection_is_reported_as_reset);
    tcase_add_test(tests, a_call_that_waits_for_the_first_connection_gets_its_error);
    tcase_add_test(tests, a_server_without_jetstream_is_unavailable);
    tcase_add_test(tests, a_write_whose_deadline_passes_has_an_unknown_outcome);
    tcase_add_test(tests, a_server_that_stops_for_a_while_only_delays_calls);
    tcase_add_test(tests, calls_wait_for_a_server_that_comes_back);
    tcase_add_test(tests, a_connection_that_is_lost_leaves_no_descriptor_behind);
    tcase_add_test(tests, after_outage_wait_calls_are_refused_at_once);
    tcase_add_test(tests, a_server_that_no_longer_answers_counts_as_lost);
    tcase_add_test(tests, a_restart_of_the_server_under_load_loses_and_repeats_no_write);
    suite_add_tcase(suite, tests);
    return suite;
}
