/* Renewed passwords, keys and certificates: a reload uses them, and bad ones leave the connection as it is. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/certificate.h"
#include "tests/support/client.h"
#include "tests/support/nats_server.h"
#include "tests/support/nkey.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct daemon daemon_of_test;
static struct nats_server server;
static char directory[PATH_BYTES];

static void wait_healthy(struct client *client)
{
    wait_until(bool_at(&client_call(client, "health.check", "[]")->result, "healthy"), "the connection to NATS");
}

static void reload_daemon(void)
{
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
}

/* The server drops the connections of users whose secret has changed. */
static void configure_server(const char *lines)
{
    server.lines = lines;
    nats_server_configure_jetstream(&server, "");
    process_signal(&server.process, SIGHUP);
}

static const char *user_section(const char *user, const char *password)
{
    return format_text("  mode: external\n  servers: [%s]\n  user: %s\n  password: %s\n"
                       "  reconnect_min: 0.01\n  reconnect_max: 0.05\n",
                       server.url, user, password);
}

static struct client *start_with(const char *section)
{
    daemon_start(&daemon_of_test, section, NULL);
    struct client *client = client_open(&daemon_of_test);
    wait_healthy(client);
    daemon_mark_log(&daemon_of_test);
    return client;
}

static void stop_both(void)
{
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}

static unsigned reconnects(struct client *client)
{
    return (unsigned)number_at(&client_call(client, "health.check", "[]")->result, "nats.reconnects");
}

/* The server changes the secret, and the daemon's configuration after it: a reload connects again, and writes go on. */
static void expect_renewal(struct client *client, const char *bucket, const char *lines, const char *section)
{
    configure_server(lines);
    daemon_wait_log(&daemon_of_test, "uthorization");
    daemon_configure(&daemon_of_test, section, NULL);
    reload_daemon();
    daemon_wait_log(&daemon_of_test, "nats: connected");
    ck_assert_ptr_null(strstr(read_file(daemon_of_test.process.log_path), "needs a restart"));
    wait_healthy(client);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
}

START_TEST(a_password_that_the_server_has_changed_is_used_after_a_reload)
{
    nats_server_start(&server, "authorization { user: a, password: first }");
    struct client *client = start_with(user_section("a", "first"));
    const char *bucket = client_new_bucket(client, NULL);

    expect_renewal(client, bucket, "authorization { user: a, password: second }", user_section("a", "second"));
    stop_both();
}
END_TEST

static const char *token_section(const char *token)
{
    return format_text("  mode: external\n  servers: [%s]\n  token: %s\n"
                       "  reconnect_min: 0.01\n  reconnect_max: 0.05\n",
                       server.url, token);
}

START_TEST(a_token_that_the_server_has_changed_is_used_after_a_reload)
{
    nats_server_start(&server, "authorization { token: first }");
    struct client *client = start_with(token_section("first"));
    const char *bucket = client_new_bucket(client, NULL);

    expect_renewal(client, bucket, "authorization { token: second }", token_section("second"));
    stop_both();
}
END_TEST

#define PUTS 4000u

/* The old connection ends after the new one is up, and no write is lost or done twice. */
START_TEST(a_changed_user_takes_over_at_once_and_calls_in_flight_succeed)
{
    nats_server_start(&server, "authorization { users: [ { user: a, password: a }, { user: b, password: b } ] }");
    struct client *client = start_with(user_section("a", "a"));
    const char *bucket = client_new_bucket(client, "'storage': 'memory', 'history': 1");

    daemon_configure(&daemon_of_test, user_section("b", "b"), NULL);
    for (unsigned i = 0; i < PUTS; i++) {
        client_send(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
        if (i == PUTS / 4)
            process_signal(&daemon_of_test.process, SIGHUP);
    }
    uint64_t last = 0;
    for (unsigned i = 0; i < PUTS; i++) {
        struct answer *answer = client_receive(client);
        assert_ok(answer);
        last = answer->result.via.u64 > last ? answer->result.via.u64 : last;
    }
    ck_assert_uint_eq(last, PUTS);
    daemon_wait_log(&daemon_of_test, "the credentials have changed; replacing the connection");
    daemon_wait_log(&daemon_of_test, "nats: connected");
    /* A reload that changes nothing of them leaves the connection alone. */
    unsigned before = reconnects(client);
    reload_daemon();
    reload_daemon();
    daemon_configure(&daemon_of_test, user_section("a", "a"), NULL);
    reload_daemon();
    daemon_wait_log(&daemon_of_test, "replacing the connection");
    wait_until(reconnects(client) > before, "the new connection");
    ck_assert_uint_eq(reconnects(client), before + 1);
    stop_both();
}
END_TEST

/* Reload what cannot be used. The connection stays, and the one after it is made with the former credentials. */
static void reload_refused(struct client *client, const char *bucket)
{
    reload_daemon();
    daemon_wait_log(&daemon_of_test, "cannot connect with the changed credentials: ");
    ck_assert_uint_eq(reconnects(client), 0);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    nats_server_stop(&server);
    nats_server_run(&server);
    daemon_wait_log(&daemon_of_test, "this connection has the former credentials");
    wait_healthy(client);
}

START_TEST(a_refused_password_leaves_the_connection_and_later_ones_have_the_former)
{
    nats_server_start(&server, "authorization { user: a, password: good }");
    struct client *client = start_with(user_section("a", "good"));
    const char *bucket = client_new_bucket(client, NULL);

    daemon_configure(&daemon_of_test, user_section("a", "bad"), NULL);
    reload_refused(client, bucket);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    daemon_configure(&daemon_of_test, user_section("a", "good"), NULL);
    reload_daemon();
    stop_both();
}
END_TEST

/* --- Keys in files --------------------------------------------------------------------------------- */

static const char *file_section(const char *setting, const char *path)
{
    return format_text("  mode: external\n  servers: [%s]\n  %s: %s\n  reconnect_min: 0.01\n  reconnect_max: 0.05\n",
                       server.url, setting, path);
}

/* The file has new content at the same path: first a bad one, then a good one. */
static void expect_renewal_of(const char *path, const char *content, struct client *client)
{
    const char *bucket = client_new_bucket(client, NULL);
    unsigned before = reconnects(client);

    write_file(path, "nothing of use\n");
    reload_daemon();
    daemon_wait_log(&daemon_of_test, "cannot connect with the changed credentials: ");
    unlink(path);
    reload_daemon();
    daemon_wait_log(&daemon_of_test, format_text("%s: No such file", path));
    ck_assert_uint_eq(reconnects(client), before);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));

    write_file(path, content);
    reload_daemon();
    daemon_wait_log(&daemon_of_test, "replacing the connection");
    wait_healthy(client);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    ck_assert_uint_eq(reconnects(client), before + 1);
}

START_TEST(an_nkey_in_a_file_is_renewed)
{
    char *seeds[2], *keys[2];

    test_run_make_directory(directory);
    nkey_make('U', &seeds[0], &keys[0]);
    nkey_make('U', &seeds[1], &keys[1]);
    const char *path = format_text("%s/user.nk", directory);
    write_file(path, seeds[0]);
    nats_server_start(&server,
                      format_text("authorization { users: [ { nkey: %s }, { nkey: %s } ] }", keys[0], keys[1]));
    struct client *client = start_with(file_section("nkey_seed", path));
    expect_renewal_of(path, format_text("%s\n", seeds[1]), client);
    /* The first one is not needed any more. */
    configure_server(format_text("authorization { users: [ { nkey: %s } ] }", keys[1]));
    nats_server_stop(&server);
    nats_server_run(&server);
    daemon_wait_log(&daemon_of_test, "nats: connected");
    wait_healthy(client);
    stop_both();
}
END_TEST

#define NO_LIMITS                                                                                                      \
    "\"subs\":-1,\"data\":-1,\"payload\":-1,\"imports\":-1,\"exports\":-1,\"wildcards\":true,\"conn\":-1,\"leaf\":-1"
#define JETSTREAM ",\"mem_storage\":-1,\"disk_storage\":-1,\"streams\":-1,\"consumer\":-1"

/* An operator signs the accounts, and an account its users. */
struct authority {
    char *operator_seed, *operator_key;
    char *account_seed, *account_key;
};

static const char *make_account(const struct authority *authority, const char *key, const char *more)
{
    return nkey_sign_jwt(authority->operator_seed,
                         format_text("{\"jti\":\"%s\",\"iat\":1700000000,\"iss\":\"%s\",\"name\":\"A\",\"sub\":\"%s\","
                                     "\"nats\":{\"limits\":{" NO_LIMITS "%s},\"type\":\"account\",\"version\":2}}",
                                     key, authority->operator_key, key, more));
}

static const char *make_credentials(const struct authority *authority)
{
    char *seed, *key;

    nkey_make('U', &seed, &key);
    const char *jwt = nkey_sign_jwt(
        authority->account_seed,
        format_text("{\"jti\":\"%s\",\"iat\":1700000000,\"iss\":\"%s\",\"name\":\"u\",\"sub\":\"%s\",\"nats\":"
                    "{\"pub\":{},\"sub\":{},\"subs\":-1,\"data\":-1,\"payload\":-1,\"type\":\"user\",\"version\":2}}",
                    key, authority->account_key, key));
    return format_text("-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n"
                       "-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n",
                       jwt, seed);
}

START_TEST(a_credentials_file_is_renewed)
{
    struct authority authority;
    char *system_seed, *system_key;

    test_run_make_directory(directory);
    nkey_make('O', &authority.operator_seed, &authority.operator_key);
    nkey_make('A', &authority.account_seed, &authority.account_key);
    nkey_make('A', &system_seed, &system_key);
    const char *operator=
        nkey_sign_jwt(authority.operator_seed,
                      format_text("{\"jti\":\"o\",\"iat\":1700000000,\"iss\":\"%s\",\"name\":\"O\",\"sub\":\"%s\","
                                  "\"nats\":{\"type\":\"operator\",\"version\":2}}",
                                  authority.operator_key, authority.operator_key));
    const char *path = format_text("%s/user.creds", directory);
    write_file(path, make_credentials(&authority));
    nats_server_start(&server, format_text("operator: %s\nsystem_account: %s\nresolver: MEMORY\n"
                                           "resolver_preload: { %s: %s, %s: %s }",
                                           operator, system_key, authority.account_key,
                                           make_account(&authority, authority.account_key, JETSTREAM), system_key,
                                           make_account(&authority, system_key, "")));
    struct client *client = start_with(file_section("credentials", path));
    expect_renewal_of(path, make_credentials(&authority), client);
    stop_both();
}
END_TEST

/* --- Certificates ---------------------------------------------------------------------------------- */

/* Give the daemon a new key and certificate, made for it by the authority, under the old names. */
static void renew_client_certificate(void)
{
    certificate_run_openssl(directory, "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=client' "
                                       "-keyout client.key -out client.csr");
    certificate_run_openssl(directory, "x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 "
                                       "-out client.pem");
}

START_TEST(certificates_are_renewed_and_a_pair_that_does_not_match_changes_nothing)
{
    test_run_make_directory(directory);
    certificate_make_all(directory);
    nats_server_start(&server, format_text("tls { cert_file: \"%s/server.pem\", key_file: \"%s/server.key\", ca_file: "
                                           "\"%s/ca.pem\", verify: true }",
                                           directory, directory, directory));
    struct client *client = start_with(format_text(
        "  mode: external\n  servers: [tls://127.0.0.1:%u]\n  reconnect_min: 0.01\n  reconnect_max: 0.05\n  tls:\n"
        "    ca: %s/ca.pem\n    certificate: %s/client.pem\n    key: %s/client.key\n",
        server.port, directory, directory, directory));
    const char *bucket = client_new_bucket(client, NULL);
    const char *key_path = format_text("%s/client.key", directory);
    const char *old_key = read_file(key_path);

    renew_client_certificate();
    const char *new_key = read_file(key_path);
    write_file(key_path, old_key); /* the tool that renews them has written one of two files */
    reload_refused(client, bucket);

    write_file(key_path, new_key);
    reload_daemon();
    daemon_wait_log(&daemon_of_test, "replacing the connection");
    wait_healthy(client);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    stop_both();
}
END_TEST

/* The authority of the server changes as well: ca.pem names the old and the new one, as in a planned change. */
START_TEST(a_new_authority_is_trusted_after_a_reload)
{
    test_run_make_directory(directory);
    certificate_make_all(directory);
    const char *authority = read_file(format_text("%s/ca.pem", directory));
    const char *trusted = format_text("%s/trusted.pem", directory);
    write_file(trusted, authority);
    nats_server_start(&server, format_text("tls { cert_file: \"%s/server.pem\", key_file: \"%s/server.key\" }",
                                           directory, directory));
    struct client *client = start_with(
        format_text("  mode: external\n  servers: [tls://127.0.0.1:%u]\n  reconnect_min: 0.01\n  reconnect_max: 0.05\n"
                    "  tls:\n    ca: %s\n",
                    server.port, trusted));

    write_file(trusted, format_text("%s%s", authority, read_file(format_text("%s/other.pem", directory))));
    reload_daemon();
    daemon_wait_log(&daemon_of_test, "replacing the connection");
    certificate_run_openssl(directory, "x509 -req -in server.csr -CA other.pem -CAkey other.key -CAcreateserial "
                                       "-days 2 -extfile extensions -out server.pem");
    nats_server_stop(&server);
    nats_server_run(&server);
    daemon_wait_log(&daemon_of_test, "nats: connected");
    wait_healthy(client);
    stop_both();
}
END_TEST

/* --- Ends ------------------------------------------------------------------------------------------ */

/* The attempt hangs in reading a file: a FIFO that nobody writes. */
START_TEST(a_file_that_cannot_be_read_in_time_delays_neither_calls_nor_the_end)
{
    char *seed, *key, *output;

    test_run_make_directory(directory);
    nkey_make('U', &seed, &key);
    const char *path = format_text("%s/user.nk", directory);
    write_file(path, seed);
    nats_server_start(&server, format_text("authorization { users: [ { nkey: %s } ] }", key));
    struct client *client = start_with(file_section("nkey_seed", path));
    const char *bucket = client_new_bucket(client, NULL);
    unlink(path);
    char *arguments[] = {"mkfifo", (char *)path, NULL};
    ck_assert_int_eq(run_program(arguments, &output), 0);
    reload_daemon();
    reload_daemon();
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    ck_assert_uint_eq(reconnects(client), 0);
    stop_both();
}
END_TEST

Suite *renewal_suite(void)
{
    Suite *suite = suite_create("renewal");
    TCase *tests = tcase_create("renewal");

    tcase_add_test(tests, a_password_that_the_server_has_changed_is_used_after_a_reload);
    tcase_add_test(tests, a_token_that_the_server_has_changed_is_used_after_a_reload);
    tcase_add_test(tests, a_changed_user_takes_over_at_once_and_calls_in_flight_succeed);
    tcase_add_test(tests, a_refused_password_leaves_the_connection_and_later_ones_have_the_former);
    tcase_add_test(tests, an_nkey_in_a_file_is_renewed);
    tcase_add_test(tests, a_credentials_file_is_renewed);
    tcase_add_test(tests, certificates_are_renewed_and_a_pair_that_does_not_match_changes_nothing);
    tcase_add_test(tests, a_new_authority_is_trusted_after_a_reload);
    tcase_add_test(tests, a_file_that_cannot_be_read_in_time_delays_neither_calls_nor_the_end);
    suite_add_tcase(suite, tests);
    return suite;
}
