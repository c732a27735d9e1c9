/* The HTTP endpoint of the metrics. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/http.h"
#include "tests/support/openmetrics.h"

#include <grp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_CONNECTIONS 100

static struct daemon daemon_of_test;
static const char *address;

/* Return the section of an address on a port of this test's own, and keep the address. */
static const char *new_section(void)
{
    address = format_text("127.0.0.1:%u", port_reserve());
    return format_text("metrics:\n  listen: %s\n", address);
}

static void start(void)
{
    daemon_start(&daemon_of_test, NULL, new_section());
}

static void reload(const char *sections)
{
    daemon_configure(&daemon_of_test, NULL, sections);
    daemon_mark_log(&daemon_of_test);
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
}

/* Fetch the metrics, which must be valid. */
static const char *fetch(const char *from)
{
    struct http_answer answer = http_get(from, "/metrics", "");

    ck_assert_uint_eq(answer.status, 200);
    openmetrics_check(answer.body);
    return answer.body;
}

/* --- HTTP ------------------------------------------------------------------------------------------- */

START_TEST(the_metrics_are_served_over_http)
{
    start();
    struct client *client = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    put_text(client, "b", "k", "v");
    /* A text may be a fraction of a second old. */
    wait_until(openmetrics_has(fetch(address), "kvstored_calls_total{method=\"kv.put\",code=\"ok\"}"), "the call");

    struct http_answer plain = http_get(address, "/metrics?x=1", "");
    ck_assert_ptr_nonnull(strstr(plain.header, "Content-Type: text/plain; version=0.0.4"));
    struct http_answer wanted =
        http_get(address, "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    ck_assert_ptr_nonnull(strstr(wanted.header, "Content-Type: application/openmetrics-text; version=1.0.0"));
    openmetrics_check(wanted.body);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(other_requests_are_refused)
{
    start();
    ck_assert_uint_eq(http_get(address, "/", "").status, 404);
    ck_assert_uint_eq(http_get(address, "/metricsx", "").status, 404);
    ck_assert_uint_eq(http_get(address, "/../etc/passwd", "").status, 404);

    int post = http_connect(address);
    http_send(post, "POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
    ck_assert_uint_eq(http_receive(post).status, 405);
    int head = http_connect(address);
    http_send(head, "HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    struct http_answer answer = http_receive(head);
    ck_assert_uint_eq(answer.status, 200);
    ck_assert_str_eq(answer.body, "");
    fetch(address);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(nothing_is_served_without_the_setting)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "metrics: listening"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Bad clients ------------------------------------------------------------------------------------ */

START_TEST(garbage_ends_only_its_own_connection)
{
    static const char *const garbage[] = {
        "\r\n\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET\r\n\r\n",
        "GET /metrics\r\n\r\n",
        "GET /metrics HTTP/9.9\r\n\r\n",
        "GET /metrics HTTP/1.1\r\n: :\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n",
        "GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "BREW /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
    };
    char *long_header = keep(malloc(100001));

    start();
    struct client *client = client_open(&daemon_of_test);
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        int made = http_connect(address);
        http_send(made, garbage[i]);
        shutdown(made, SHUT_WR);
        http_expect_end(made);
    }
    memset(long_header, 'a', 100000);
    long_header[100000] = '\0';
    int made = http_connect(address);
    http_send(made, format_text("GET /metrics HTTP/1.1\r\nHost: h\r\nX: %s\r\n\r\n", long_header));
    http_expect_end(made);
    made = http_connect(address);
    http_send(made, format_text("GET /%s HTTP/1.1\r\nHost: h\r\n\r\n", long_header));
    http_expect_end(made);
    assert_ok(client_call(client, "health.check", "[]"));
    fetch(address);
    daemon_stop(&daemon_of_test);
}
END_TEST

/*
 * The oldest connections must give way. If the client had to wait for them to time out, 16 or 32 at a time, it would
 * take 15 seconds or more.
 */
START_TEST(many_silent_connections_keep_nobody_out)
{
    int silent[BUSY_CONNECTIONS];
    unsigned ended = 0;

    start();
    struct client *client = client_open(&daemon_of_test);
    uint64_t begin = now_ms();
    for (unsigned i = 0; i < BUSY_CONNECTIONS; i++) {
        silent[i] = http_connect(address);
        if (i % 2 == 1)
            http_send(silent[i], "GET /metrics HTTP/1.1\r\nHost: h\r\nX-Begin: ");
    }
    fetch(address);
    assert_at_once(begin);
    assert_ok(client_call(client, "health.check", "[]"));
    for (unsigned i = 0; i < BUSY_CONNECTIONS; i++)
        ended += http_has_ended(silent[i]);
    ck_assert_uint_ge(ended, BUSY_CONNECTIONS - 32);
    for (unsigned i = 0; i < BUSY_CONNECTIONS; i++)
        http_expect_end(silent[i]);
    fetch(address);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* A client that sends a byte now and then is neither silent nor too large, and must be cut all the same. */
START_TEST(a_request_that_never_ends_is_cut)
{
    start();
    int made = http_connect(address);
    uint64_t begin = now_ms(), sent = begin;

    http_send(made, "GET /metrics HTTP/1.1\r\nHost: h\r\nX: ");
    while (!http_has_ended(made)) {
        ck_assert_uint_lt(now_ms() - begin, PATIENCE_MS);
        if (now_ms() - sent > 200) {
            http_send(made, "a");
            sent = now_ms();
        }
        pause_shortly();
    }
    close(made);
    fetch(address);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Clients that ask and do not read: the text is larger than what sockets hold. */
START_TEST(clients_that_do_not_read_keep_nobody_waiting)
{
    enum { BUCKETS = 1000, SLOW = 40 };
    const char *names = "";
    int slow[SLOW];

    /* Long names make a large text. */
    for (unsigned i = 0; i < BUCKETS; i++)
        names = format_text("%s%s%0200u", names, i > 0 ? ", " : "", i);
    daemon_start(&daemon_of_test, NULL, format_text("%s  buckets: [%s]\n", new_section(), names));
    struct client *client = client_open(&daemon_of_test);
    ck_assert_uint_gt(strlen(fetch(address)), 1000000);
    uint64_t before_kb = resident_kb(daemon_of_test.process.pid);
    for (unsigned i = 0; i < SLOW; i++) {
        slow[i] = http_connect(address);
        setsockopt(slow[i], SOL_SOCKET, SO_RCVBUF, &(int){4096}, sizeof(int));
        http_send(slow[i], "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_ok(client_call(client, "health.check", "[]"));
    }
    fetch(address);
#ifndef __SANITIZE_ADDRESS__
    ck_assert_uint_lt(resident_kb(daemon_of_test.process.pid) - before_kb, 64 * 1024);
#else
    (void)before_kb;
#endif
    for (unsigned i = 0; i < SLOW; i++)
        close(slow[i]);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Addresses -------------------------------------------------------------------------------------- */

START_TEST(a_unix_socket_has_its_mode_and_group)
{
    struct stat status;

    daemon_prepare(&daemon_of_test);
    const char *path = format_text("%s/metrics.sock", daemon_of_test.directory);
    const char *section =
        format_text("metrics:\n  listen: 'unix:%s'\n  mode: '0600'\n  group: %u\n", path, (unsigned)getgid());
    address = format_text("unix:%s", path);
    daemon_configure(&daemon_of_test, NULL, section);
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    fetch(address);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0600);

    /* The same socket with another mode. */
    reload(format_text("metrics:\n  listen: 'unix:%s'\n  mode: '0666'\n", path));
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0666);
    fetch(address);

    /* A socket that is left behind is replaced, and one that the daemon closes is removed. */
    process_kill(&daemon_of_test.process);
    ck_assert_int_eq(stat(path, &status), 0);
    daemon_restart(&daemon_of_test);
    fetch(address);
    daemon_stop(&daemon_of_test);
    ck_assert_int_ne(stat(path, &status), 0);
}
END_TEST

START_TEST(a_reload_opens_moves_and_closes_the_endpoint)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    reload(new_section());
    fetch(address);

    const char *old = address;
    reload(new_section());
    fetch(address);
    ck_assert_int_eq(http_connect(old), -1);

    /* A reload that does not touch the address keeps its connections. */
    int open = http_connect(address);
    http_send(open, "GET /metrics HTTP/1.1\r\n");
    reload(format_text("metrics:\n  listen: %s\n  buckets: [b1]\n", address));
    http_send(open, "Host: h\r\n\r\n");
    struct http_answer answer = http_receive(open);
    ck_assert_uint_eq(answer.status, 200);

    reload("");
    ck_assert_int_eq(http_connect(address), -1);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(an_address_in_use_does_not_stop_the_daemon_and_is_tried_again)
{
    unsigned port;
    int other = port_listen(&port);

    address = format_text("127.0.0.1:%u", port);
    daemon_start(&daemon_of_test, NULL, format_text("metrics:\n  listen: %s\n", address));
    assert_ok(client_call(client_open(&daemon_of_test), "health.check", "[]"));
    ck_assert_ptr_nonnull(strstr(read_file(daemon_of_test.process.log_path), "Address already in use"));
    close(other);
    daemon_wait_log(&daemon_of_test, format_text("metrics: listening on %s", address));
    fetch(address);

    /* A reload with an address that cannot be used keeps the present one. */
    other = port_listen(&port);
    reload(format_text("metrics:\n  listen: 127.0.0.1:%u\n", port));
    fetch(address);
    close(other);
    daemon_wait_log(&daemon_of_test, format_text("metrics: listening on 127.0.0.1:%u", port));
    ck_assert_int_eq(http_connect(address), -1);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Requests that wait for the text when the endpoint closes are ended, and harm nothing. */
START_TEST(requests_in_flight_end_with_the_endpoint)
{
    const char *section = format_text("%s  buckets: [b1]\n", new_section());
    daemon_start(&daemon_of_test, DAEMON_SYNCS_SELDOM "  hang_timeout: 3600\n", section);
    struct client *client = client_open(&daemon_of_test);
    pid_t server = daemon_nats_pid(&daemon_of_test);
    const char *old = address;
    int waiting[3];

    assert_ok(client_call(client, "bucket.create", "['b1']"));
    pid_suspend(server);
    for (unsigned i = 0; i < 3; i++) {
        waiting[i] = http_connect(old);
        http_send(waiting[i], "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    /* One whose client has gone. */
    int gone = http_connect(old);
    http_send(gone, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    close(gone);
    wait_until(number_at(&client_call(client, "daemon.stats", "[]")->result, "requests_in_flight") > 0, "the question");
    daemon_configure(&daemon_of_test, DAEMON_SYNCS_SELDOM "  hang_timeout: 3600\n", new_section());
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    for (unsigned i = 0; i < 3; i++)
        http_expect_end(waiting[i]);
    pid_resume(server);
    fetch(address);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *endpoint_suite(void)
{
    Suite *suite = suite_create("endpoint");
    TCase *tests = tcase_create("endpoint");

    tcase_add_test(tests, the_metrics_are_served_over_http);
    tcase_add_test(tests, other_requests_are_refused);
    tcase_add_test(tests, nothing_is_served_without_the_setting);
    tcase_add_test(tests, garbage_ends_only_its_own_connection);
    tcase_add_test(tests, many_silent_connections_keep_nobody_out);
    tcase_add_test(tests, a_request_that_never_ends_is_cut);
    tcase_add_test(tests, clients_that_do_not_read_keep_nobody_waiting);
    tcase_add_test(tests, a_unix_socket_has_its_mode_and_group);
    tcase_add_test(tests, a_reload_opens_moves_and_closes_the_endpoint);
    tcase_add_test(tests, an_address_in_use_does_not_stop_the_daemon_and_is_tried_again);
    tcase_add_test(tests, requests_in_flight_end_with_the_endpoint);
    suite_add_tcase(suite, tests);
    return suite;
}
