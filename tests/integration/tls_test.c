/* Connections to NATS over TLS: the same answers and limits as without, and failing handshakes. */
#include "tests/integration/suites.h"
#include "tests/support/certificate.h"
#include "tests/support/client.h"
#include "tests/support/machine.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/ports.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const versions[] = {"1.2", "1.3"};

static struct daemon daemon_of_test;
static struct nats_server server;

static void wait_healthy(struct client *client)
{
    wait_until(bool_at(&client_call(client, "health.check", "[]")->result, "healthy"), "the connection to NATS");
}

static void wait_unhealthy(struct client *client)
{
    wait_until(!bool_at(&client_call(client, "health.check", "[]")->result, "healthy"), "the loss of the connection");
}

/* --- The same answers ------------------------------------------------------------------------------ */

static const char *many_headers(unsigned count)
{
    char *lines = keep(malloc(count * 24 + 1)), *at = lines;

    for (unsigned i = 0; i < count; i++)
        at += sprintf(at, "Name-%u: value\r\n", i);
    return lines;
}

/* Headers that other programs may store. A NATS library takes some of them for the server's own status. */
static const char *header_lines(unsigned i)
{
    static const char *const lines[] = {
        NULL,
        "Color: blue\r\n",
        "Empty:\r\n",
        "Empty:\r\nKV-Operation: DEL\r\n",
        "Status: 503\r\n",
        "Status: 404\r\nDescription: Message Not Found\r\n",
        "Status: 408\r\n",
        "Status: 204\r\n",
        "Status: 100\r\n",
        "No colon in this line\r\nColor: blue\r\n",
        "Folded: one\r\n two\r\n\tthree\r\nColor: blue\r\n",
        "Folded: one\r\n two: three\r\nColor: blue\r\n",
        ": no name\r\nColor: blue\r\n",
        "Twice: first\r\nTwice: second\r\n",
        "Blanks:   within it \t\r\n",
    };
    unsigned count = sizeof(lines) / sizeof(lines[0]);

    if (i < count)
        return lines[i];
    return i == count ? many_headers(1000) : i == count + 1 ? many_headers(3000) : NULL;
}
#define HEADER_CASES 17u

/* Put two messages with each kind of headers, one of them without a body. */
static void put_foreign(struct nats *nats, const char *bucket)
{
    for (unsigned i = 0; i < HEADER_CASES; i++) {
        nats_request_json(nats, format_text("$KV.%s.k%u", bucket, i), header_lines(i), "value");
        nats_request_json(nats, format_text("$KV.%s.e%u", bucket, i), header_lines(i), "");
    }
}

/* Return everything that a client can read of a key as text, one line for each way to read it. */
static char *read_in_all_ways(struct client *client, const char *bucket, const char *key)
{
    struct answer *direct = client_call(client, "kv.get", "['%s', '%s']", bucket, key);
    struct answer *leader = client_call(client, "kv.get", "['%s', '%s', {'consistency': 'leader'}]", bucket, key);
    struct answer *cached = client_call(client, "kv.get", "['%s', '%s', {'consistency': 'cached'}]", bucket, key);
    struct answer *bulk = client_call(client, "bulk.get", "['%s', ['%s']]", bucket, key);
    struct answer *history = client_call(client, "kv.history", "['%s', '%s']", bucket, key);

    assert_ok(direct);
    ck_assert_str_eq(object_text(&direct->result), object_text(&leader->result));
    ck_assert_str_eq(object_text(&direct->result), object_text(&cached->result));
    return format_text("%s\n%s\n%s", object_text(&direct->result), object_text(&bulk->result),
                       object_text(&history->result));
}

static const char *read_all(struct client *client, const char *bucket)
{
    char *text = "";

    for (unsigned i = 0; i < HEADER_CASES; i++)
        text = format_text("%s\n%s\n%s", text, read_in_all_ways(client, bucket, format_text("k%u", i)),
                           read_in_all_ways(client, bucket, format_text("e%u", i)));
    return format_text("%s\n%s", text, object_text(&client_call(client, "kv.keys", "['%s']", bucket)->result));
}

/* Return what a watch delivers that begins with the existing entries. */
static const char *watch_all(struct client *client, const char *bucket)
{
    struct answer *started = client_call(client, "watch.start", "['%s']", bucket);
    const struct notification *told;
    char *text = "";

    assert_ok(started);
    uint64_t watch = started->result.via.u64;
    do {
        told = client_wait_notification(client, watch);
        const msgpack_object *entries = find_at(&told->params, "1");
        for (uint32_t i = 0; entries != NULL && i < entries->via.array.size; i++)
            text = format_text("%s\n%s", text, object_text(&entries->via.array.ptr[i]));
    } while (strcmp(told->method, "watch.entries") == 0); /* their number does not matter */
    return format_text("%s\n%s", text, told->method);
}

/* Check ends a test program without a word if it is to print a longer message. */
static void expect_same(const char *plain, const char *encrypted)
{
    size_t at = 0;

    while (plain[at] != '\0' && plain[at] == encrypted[at])
        at++;
    ck_assert_msg(plain[at] == encrypted[at], "without TLS \"%.200s\", with TLS \"%.200s\"", plain + at,
                  encrypted + at);
}

START_TEST(entries_of_other_clients_are_the_same_with_and_without_tls)
{
    struct daemon plain;

    nats_server_start(&server, NULL);
    struct tls_front *front = tls_front_start(server.port, versions[_i]);
    daemon_start(&plain, format_text("  mode: external\n  servers: [%s]\n", server.url), NULL);
    daemon_start(&daemon_of_test, tls_front_section(front), NULL);
    struct client *client = client_open(&plain), *encrypted = client_open(&daemon_of_test);
    wait_healthy(client);
    wait_healthy(encrypted);
    const char *bucket = client_new_bucket(client, "'history': 5, 'storage': 'memory'");
    put_foreign(nats_connect(server.port, NULL, NULL), bucket);

    expect_same(read_all(client, bucket), read_all(encrypted, bucket));
    expect_same(watch_all(client, bucket), watch_all(encrypted, bucket));
    daemon_stop(&plain);
    daemon_stop(&daemon_of_test);
    tls_front_stop(front);
    nats_server_stop(&server);
}
END_TEST

/* --- A server that stands still -------------------------------------------------------------------- */

#define LARGE_BYTES 900000u
#define LARGE_PUTS  60u

START_TEST(the_daemon_answers_while_the_server_reads_nothing)
{
    char *value = keep(calloc(1, LARGE_BYTES));

    nats_server_start(&server, NULL);
    struct tls_front *front = tls_front_start(server.port, versions[_i]);
    daemon_start(&daemon_of_test, format_text("%s  ping_interval: 60\n", tls_front_section(front)), NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    wait_healthy(client);
    const char *bucket = client_new_bucket(client, "'storage': 'memory', 'history': 1");

    pid_suspend(server.process.pid);
    msgpack_sbuffer puts;
    msgpack_sbuffer_init(&puts);
    for (unsigned i = 0; i < LARGE_PUTS; i++)
        pack_put(&puts, i + 1, bucket, "large", value, LARGE_BYTES);
    for (size_t written = 0, some = 1; some > 0; written += some) {
        some = written < puts.size ? client_write_some(client, puts.data + written, puts.size - written) : 0;
        /* While the server is stopped, an answer proves that the loop does not wait for it. */
        assert_ok(client_call(other, "daemon.info", "[]"));
    }
    for (unsigned i = 0; i < 20; i++)
        assert_ok(client_call(other, "health.check", "[]"));
    pid_resume(server.process.pid);
    msgpack_sbuffer_destroy(&puts);
    daemon_stop(&daemon_of_test); /* and no turn was long: daemon.c reads the log */
    tls_front_stop(front);
    nats_server_stop(&server);
}
END_TEST

/* --- Handshakes that stop ---------------------------------------------------------------------------- */

/* Return the number of bytes to the client of a new connection. */
static size_t measure_connection(const char *version)
{
    struct tls_front *front = tls_front_start(server.port, version);

    daemon_start(&daemon_of_test, format_text("%s  ping_interval: 60\n", tls_front_section(front)), NULL);
    wait_healthy(client_open(&daemon_of_test));
    size_t bytes = tls_front_bytes(front);
    daemon_stop(&daemon_of_test);
    tls_front_stop(front);
    return bytes;
}

/* From nothing to about the end of the handshake, which login and first requests follow. */
static size_t stop_at(unsigned step, size_t whole)
{
    static const unsigned percent[] = {0, 8, 20, 30, 40, 50, 55};

    return whole * percent[step] / 100;
}
#define STEPS 7

START_TEST(a_silent_handshake_times_out_and_is_retried)
{
    nats_server_start(&server, NULL);
    size_t whole = measure_connection(versions[_i / STEPS]);
    struct tls_front *silent = tls_front_start(server.port, versions[_i / STEPS]);
    tls_front_fall_silent_after(silent, stop_at((unsigned)_i % STEPS, whole));
    daemon_start(&daemon_of_test,
                 format_text("%s  connect_timeout: 0.3\n  reconnect_min: 0.01\n  reconnect_max: 0.1\n",
                             tls_front_section(silent)),
                 NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_until(tls_front_connections(silent) >= 3, "another attempt");
    struct answer *health = client_call(client, "health.check", "[]");
    ck_assert(!bool_at(&health->result, "healthy"));

    /* The server answers again. */
    tls_front_fall_silent_after(silent, SIZE_MAX);
    wait_healthy(client);
    assert_ok(client_call(client, "bucket.create", "['b%d']", _i));
    daemon_stop(&daemon_of_test);
    tls_front_stop(silent);
    nats_server_stop(&server);
}
END_TEST

/* One of the two is tried first: a silent server must not keep the daemon from the other one. */
START_TEST(the_daemon_connects_to_another_server_if_one_is_silent)
{
    nats_server_start(&server, NULL);
    struct tls_front *silent = tls_front_start(server.port, "1.3"), *good = tls_front_start(server.port, "1.3");
    write_file(format_text("%s/both.pem", server.directory),
               format_text("%s%s", read_file(tls_front_authority(silent)), read_file(tls_front_authority(good))));
    tls_front_fall_silent_after(silent, 1000);
    for (unsigned i = 0; i < 4; i++) { /* the library tries them in an order of its own */
        daemon_start(&daemon_of_test,
                     format_text("  mode: external\n  servers: [tls://127.0.0.1:%u, tls://127.0.0.1:%u]\n"
                                 "  connect_timeout: 0.3\n  tls:\n    ca: %s/both.pem\n",
                                 tls_front_port(silent), tls_front_port(good), server.directory),
                     NULL);
        wait_healthy(client_open(&daemon_of_test));
        daemon_stop(&daemon_of_test);
    }
    tls_front_stop(silent);
    tls_front_stop(good);
    nats_server_stop(&server);
}
END_TEST

/* In the middle of a record: the daemon needs no ping to notice it. */
START_TEST(a_connection_that_ends_in_the_middle_of_a_record_is_lost_at_once)
{
    char *value = keep(calloc(1, LARGE_BYTES));

    nats_server_start(&server, NULL);
    size_t whole = measure_connection(versions[_i]);
    struct tls_front *front = tls_front_start(server.port, versions[_i]);
    tls_front_end_after(front, whole + LARGE_BYTES / 2);
    daemon_start(&daemon_of_test, format_text("%s  ping_interval: 600\n", tls_front_section(front)), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_healthy(client);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    assert_ok(client_put(client, bucket, "large", value, LARGE_BYTES));

    uint32_t get = client_send(client, "kv.get", "['%s', 'large']", bucket);
    daemon_wait_log(&daemon_of_test, "lost: closed by the server");
    tls_front_end_after(front, SIZE_MAX);
    assert_ok(client_wait(client, get));
    daemon_stop(&daemon_of_test);
    tls_front_stop(front);
    nats_server_stop(&server);
}
END_TEST

/* --- Certificates ---------------------------------------------------------------------------------- */

static char directory[PATH_BYTES];

/* Start a nats-server with the certificates of the directory. more: further members of its tls section. */
static void start_encrypted_server(const char *more)
{
    nats_server_start(&server, format_text("tls { cert_file: \"%s/server.pem\", key_file: \"%s/server.key\"%s }",
                                           directory, directory, more));
}

static const char *encrypted_section(const char *more)
{
    return format_text(
        "  mode: external\n  servers: [tls://127.0.0.1:%u]\n  reconnect_min: 0.01\n  reconnect_max: 0.05\n"
        "  tls:\n    ca: %s/ca.pem\n%s",
        server.port, directory, more);
}

static void restart_server(void)
{
    nats_server_stop(&server);
    nats_server_run(&server);
}

#define GOOD_NAMES "subjectAltName=DNS:nats.test,IP:127.0.0.1\n"

START_TEST(a_replaced_certificate_is_checked_at_the_next_connection)
{
    static const struct {
        const char *extensions;
        int days;
        const char *why;
    } bad[] = {{GOOD_NAMES, -1, "expired"}, {"subjectAltName=DNS:other.test\n", 2, "mismatch"}};

    test_run_make_directory(directory);
    certificate_make_all(directory);
    start_encrypted_server("");
    daemon_start(&daemon_of_test, encrypted_section(""), NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_healthy(client);
    for (unsigned i = 0; i < 2; i++) {
        certificate_sign_server(directory, bad[i].extensions, bad[i].days);
        restart_server();
        daemon_wait_log(&daemon_of_test, bad[i].why);
        wait_unhealthy(client);
        certificate_sign_server(directory, GOOD_NAMES, 2);
        restart_server();
        wait_healthy(client);
    }
    /* A renewed certificate changes nothing for a connection that is up. */
    certificate_sign_server(directory, GOOD_NAMES, 2);
    process_signal(&server.process, SIGHUP);
    assert_ok(client_call(client, "bucket.create", "['renewed']"));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* Creating the context alone takes 20 ms, and several times as long with sanitizers. */
#ifdef __SANITIZE_ADDRESS__
#define TURN_MS_TLS TURN_MS
#else
#define TURN_MS_TLS (TURN_MS / 2)
#endif

/* Several times as many authorities as a system has. A slow turn would be in the log. */
START_TEST(loading_many_authorities_does_not_block_the_loop)
{
    test_run_make_directory(directory);
    certificate_make_all(directory);
    const char *authority = read_file(format_text("%s/ca.pem", directory));
    FILE *many = fopen(format_text("%s/many.pem", directory), "w");

    ck_assert_ptr_nonnull(many);
    for (unsigned i = 0; i < 600; i++)
        fputs(authority, many);
    fclose(many);
    unsigned port, attempts = 0;
    struct pollfd listener = {.fd = port_listen(&port), .events = POLLIN};
    daemon_start(&daemon_of_test,
                 format_text("  mode: external\n  servers: ['tls://127.0.0.1:%u']\n  tls:\n    ca: %s/many.pem\n"
                             "  reconnect_min: 0.01\n  reconnect_max: 0.01\n",
                             port, directory),
                 machine_log_section(TURN_MS_TLS));
    /* Only turns with calls are measured. */
    struct client *client = client_open(&daemon_of_test);
    while (attempts < 10) {
        if (poll(&listener, 1, 0) > 0) {
            close(accept(listener.fd, NULL, NULL));
            attempts++;
        }
        assert_ok(client_call(client, "health.check", "[]"));
    }
    close(listener.fd);
    daemon_stop(&daemon_of_test);
}
END_TEST

static unsigned count_lines(const char *text, const char *with)
{
    unsigned count = 0;

    for (const char *at = text; (at = strstr(at, with)) != NULL; at++)
        count++;
    return count;
}

/* With TLS 1.3 the server reports it after the handshake, when the library waits for its PONG. */
START_TEST(the_error_of_a_server_that_wants_a_certificate_is_logged_once)
{
    test_run_make_directory(directory);
    certificate_make_all(directory);
    start_encrypted_server(format_text(", ca_file: \"%s/ca.pem\", verify: true", directory));
    daemon_start(&daemon_of_test, encrypted_section(""), NULL);
    daemon_wait_log(&daemon_of_test, "the server ended the TLS handshake: ");
    struct client *client = client_open(&daemon_of_test);
    struct answer *health = client_call(client, "health.check", "[]");
    ck_assert_msg(strstr(object_text(&health->result), "certificate") != NULL, "%s", object_text(&health->result));
    wait_until(count_lines(read_file(server.process.log_path), "TLS handshake error") >= 10, "ten attempts");
    unsigned lines = count_lines(read_file(daemon_of_test.process.log_path), "cannot connect");
    ck_assert_msg(lines <= 2, "%s", read_file(daemon_of_test.process.log_path));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* Its INFO says that TLS is required. Without an authority the library trusts those of the system. */
START_TEST(a_server_that_requires_tls_gets_nothing_in_plain_text)
{
    test_run_make_directory(directory);
    certificate_make_all(directory);
    start_encrypted_server("");
    daemon_start(
        &daemon_of_test,
        format_text("  mode: external\n  servers: [nats://127.0.0.1:%u]\n  user: u\n  password: secret\n", server.port),
        NULL);
    daemon_wait_log(&daemon_of_test, "unable to get local issuer certificate");
    assert_code(client_call(client_open(&daemon_of_test), "kv.get", "['b', 'k']"), "unavailable");
    daemon_stop(&daemon_of_test);

    daemon_start(&daemon_of_test,
                 format_text("  mode: external\n  servers: [nats://127.0.0.1:%u]\n  tls:\n    ca: %s/ca.pem\n",
                             server.port, directory),
                 NULL);
    daemon_wait_log(&daemon_of_test, "(encrypted)");
    wait_healthy(client_open(&daemon_of_test));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* If TLS is configured, the plain server is no choice. */
START_TEST(an_encrypted_server_is_preferred_to_a_plain_one)
{
    struct nats_server plain;

    test_run_make_directory(directory);
    certificate_make_all(directory);
    start_encrypted_server("");
    nats_server_start(&plain, NULL);
    for (unsigned i = 0; i < 4; i++) { /* the library tries them in an order of its own */
        daemon_start(&daemon_of_test,
                     format_text("  mode: external\n  servers: [tls://127.0.0.1:%u, nats://127.0.0.1:%u]\n"
                                 "  tls:\n    ca: %s/ca.pem\n",
                                 server.port, plain.port, directory),
                     NULL);
        daemon_wait_log(&daemon_of_test, format_text("connected to tls://127.0.0.1:%u (encrypted)", server.port));
        daemon_stop(&daemon_of_test);
    }
    nats_server_stop(&plain);
    nats_server_stop(&server);
}
END_TEST

Suite *tls_suite(void)
{
    Suite *suite = suite_create("tls");
    TCase *tests = tcase_create("tls");

    tcase_add_loop_test(tests, entries_of_other_clients_are_the_same_with_and_without_tls, 0, 2);
    tcase_add_loop_test(tests, the_daemon_answers_while_the_server_reads_nothing, 0, 2);
    tcase_add_loop_test(tests, a_silent_handshake_times_out_and_is_retried, 0, 2 * STEPS);
    tcase_add_test(tests, the_daemon_connects_to_another_server_if_one_is_silent);
    tcase_add_loop_test(tests, a_connection_that_ends_in_the_middle_of_a_record_is_lost_at_once, 0, 2);
    tcase_add_test(tests, a_replaced_certificate_is_checked_at_the_next_connection);
    tcase_add_test(tests, loading_many_authorities_does_not_block_the_loop);
    tcase_add_test(tests, the_error_of_a_server_that_wants_a_certificate_is_logged_once);
    tcase_add_test(tests, a_server_that_requires_tls_gets_nothing_in_plain_text);
    tcase_add_test(tests, an_encrypted_server_is_preferred_to_a_plain_one);
    suite_add_tcase(suite, tests);
    return suite;
}
