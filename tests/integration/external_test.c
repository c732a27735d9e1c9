/* External mode: how the daemon finds a server, logs in, and encrypts. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/certificate.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/nkey.h"

#include <sys/stat.h>
#include <unistd.h>

static struct daemon daemon_of_test;
static struct nats_server server;

/* A daemon with these members in its nats section, besides the server's, must work. */
static void expect_service(const char *members)
{
    uint64_t end = now_ms() + PATIENCE_MS;
    struct answer *answer;

    daemon_start(&daemon_of_test, members, NULL);
    struct client *client = client_open(&daemon_of_test);
    do {
        answer = client_call(client, "health.check", "[]");
        ck_assert_msg(now_ms() < end, "no connection: %s", object_text(&answer->result));
        pause_shortly();
    } while (!bool_at(&answer->result, "healthy"));
    const char *bucket = client_new_bucket(client, NULL);
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "blue");
    answer = client_call(client, "kv.keys", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    daemon_stop(&daemon_of_test);
}

/* A daemon with these members is refused, says why, and still serves its socket. */
static void expect_refusal(const char *members, const char *why)
{
    daemon_start(&daemon_of_test, members, NULL);
    struct client *client = client_open(&daemon_of_test);
    daemon_wait_log(&daemon_of_test, why);
    struct answer *answer = client_call(client, "health.check", "[]");
    assert_ok(answer);
    ck_assert(!bool_at(&answer->result, "healthy"));
    assert_code(client_call(client, "kv.get", "['b', 'k']"), "unavailable");
    daemon_stop(&daemon_of_test);
}

START_TEST(an_open_server_needs_no_credentials)
{
    nats_server_start(&server, NULL);
    expect_service(nats_server_section(&server));
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_user_and_a_password_are_sent)
{
    nats_server_start(&server, "authorization { user: \"alice\", password: \"it's a: secret\" }");
    expect_service(format_text("%s  user: alice\n  password: \"it's a: secret\"\n", nats_server_section(&server)));
    expect_refusal(format_text("%s  user: alice\n  password: wrong\n", nats_server_section(&server)), "uthorization");
    expect_refusal(nats_server_section(&server), "uthorization");
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_token_is_sent)
{
    nats_server_start(&server, "authorization { token: \"t0k3n\" }");
    expect_service(format_text("%s  token: t0k3n\n", nats_server_section(&server)));
    expect_refusal(format_text("%s  token: other\n", nats_server_section(&server)), "uthorization");
    nats_server_stop(&server);
}
END_TEST

/* Return a value as YAML text in double quotes, which is the same in nats-server's configuration. */
static const char *quote(const char *text)
{
    char *quoted = keep(calloc(2, strlen(text) + 2)), *at = quoted;

    *at++ = '"';
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            *at++ = '\\';
        *at++ = *text;
    }
    *at = '"';
    return quoted;
}

/* The NATS library puts them into JSON unchanged. */
START_TEST(users_passwords_and_tokens_may_have_any_character)
{
    static const char *const secrets[] = {"say \"x\"", "back\\slash", "\\\"}, {\"user\":\"b\"\\", "tab\there",
                                          "\u00e9t\u00e9"};

    for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
        const char *secret = quote(secrets[i]);
        nats_server_start(&server, format_text("authorization { user: %s, password: %s }", secret, secret));
        expect_service(format_text("%s  user: %s\n  password: %s\n", nats_server_section(&server), secret, secret));
        nats_server_stop(&server);
        nats_server_start(&server, format_text("authorization { token: %s }", secret));
        expect_service(format_text("%s  token: %s\n", nats_server_section(&server), secret));
        nats_server_stop(&server);
    }
}
END_TEST

/* --- NKeys ----------------------------------------------------------------------------------------- */

START_TEST(an_nkey_signs_what_the_server_asks)
{
    char *seed, *public_key, *other_seed, *other_key, directory[PATH_BYTES];

    nkey_make('U', &seed, &public_key);
    nkey_make('U', &other_seed, &other_key);
    ck_assert_int_eq(strncmp(seed, "SU", 2), 0);
    ck_assert_int_eq(public_key[0], 'U');
    test_run_make_directory(directory);
    const char *path = format_text("%s/user.nk", directory), *other_path = format_text("%s/other.nk", directory);
    write_file(path, format_text("%s\n", seed));
    write_file(other_path, other_seed);
    nats_server_start(&server, format_text("authorization { users: [ { nkey: %s } ] }", public_key));
    expect_service(format_text("%s  nkey_seed: %s\n", nats_server_section(&server), path));
    expect_refusal(format_text("%s  nkey_seed: %s\n", nats_server_section(&server), other_path), "uthorization");
    nats_server_stop(&server);
}
END_TEST

/* --- TLS ------------------------------------------------------------------------------------------- */

START_TEST(tls_checks_certificates_of_both_sides)
{
    char directory[PATH_BYTES];

    test_run_make_directory(directory);
    certificate_make_all(directory);
    nats_server_start(&server, format_text("tls { cert_file: \"%s/server.pem\", key_file: \"%s/server.key\", ca_file: "
                                           "\"%s/ca.pem\", verify: true }",
                                           directory, directory, directory));
    const char *servers = format_text("  mode: external\n  servers: [tls://127.0.0.1:%u]\n", server.port);
    const char *own = format_text("    certificate: %s/client.pem\n    key: %s/client.key\n", directory, directory);
    expect_service(format_text("%s  tls:\n    ca: %s/ca.pem\n%s", servers, directory, own));
    expect_service(format_text("%s  tls:\n    ca: %s/ca.pem\n    server_name: nats.test\n%s", servers, directory, own));
    /* Another authority; a name that is not in the certificate; no client certificate. */
    expect_refusal(format_text("%s  tls:\n    ca: %s/other.pem\n%s", servers, directory, own), "nats:");
    expect_refusal(format_text("%s  tls:\n    ca: %s/ca.pem\n    server_name: other.test\n%s", servers, directory, own),
                   "nats:");
    expect_refusal(format_text("%s  tls:\n    ca: %s/ca.pem\n", servers, directory), "nats:");
    nats_server_stop(&server);
}
END_TEST

/* RFC 9525: the common name is not a host name. */
START_TEST(a_certificate_without_the_name_among_its_alternative_names_is_refused)
{
    static const char *const extensions[] = {"basicConstraints=CA:FALSE\n", "subjectAltName=IP:127.0.0.1\n",
                                             "subjectAltName=email:nats@nats.test\n"};
    char directory[PATH_BYTES];

    test_run_make_directory(directory);
    certificate_make_all(directory);
    certificate_run_openssl(directory, "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=nats.test' "
                                       "-keyout server.key -out server.csr");
    for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
        certificate_sign_server(directory, extensions[i], 2);
        nats_server_start(&server, format_text("tls { cert_file: \"%s/server.pem\", key_file: \"%s/server.key\" }",
                                               directory, directory));
        expect_refusal(format_text("  mode: external\n  servers: [tls://127.0.0.1:%u]\n  tls:\n    ca: %s/ca.pem\n"
                                   "    server_name: nats.test\n",
                                   server.port, directory),
                       "nats: cannot connect");
        nats_server_stop(&server);
    }
}
END_TEST

START_TEST(large_and_many_messages_pass_over_tls)
{
    char directory[PATH_BYTES];
    size_t size = 900000;
    char *value = keep(malloc(size));

    test_run_make_directory(directory);
    certificate_make_all(directory);
    nats_server_start(&server, format_text("tls { cert_file: \"%s/server.pem\", key_file: \"%s/server.key\" }",
                                           directory, directory));
    daemon_start(&daemon_of_test,
                 format_text("  mode: external\n  servers: [tls://127.0.0.1:%u]\n  tls:\n    ca: %s/ca.pem\n",
                             server.port, directory),
                 NULL);
    daemon_wait_log(&daemon_of_test, "JetStream API level");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    for (size_t i = 0; i < size; i++)
        value[i] = (char)(i * i >> 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_ok(client_put(client, bucket, "large", value, size));
        struct answer *answer = client_call(client, "kv.get", "['%s', 'large']", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(find_at(&answer->result, "value")->via.bin.size, size);
        ck_assert_mem_eq(find_at(&answer->result, "value")->via.bin.ptr, value, size);
    }
    for (unsigned i = 0; i < 2000; i++)
        client_send(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
    for (unsigned i = 0; i < 2000; i++)
        assert_ok(client_receive(client));
    struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2001);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* --- Domains and several servers ------------------------------------------------------------------- */

START_TEST(a_missing_file_is_named_in_the_log_only)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, format_text("%s  nkey_seed: /no/such/user.nk\n", nats_server_section(&server)), NULL);
    daemon_wait_log(&daemon_of_test, "/no/such/user.nk");
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "kv.get", "['b', 'k']");
    assert_code_says(answer, "unavailable", "(path)");
    ck_assert_ptr_null(strstr(text_at(&answer->error, "message"), "/no/such"));
    answer = client_call(client, "health.check", "[]");
    ck_assert_ptr_nonnull(strstr(text_at(&answer->result, "error"), "(path)"));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_domain_can_be_named)
{
    nats_server_prepare(&server, NULL);
    nats_server_configure_jetstream(&server, "domain: hub");
    nats_server_run(&server);
    expect_service(format_text("%s  domain: hub\n", nats_server_section(&server)));
    expect_service(nats_server_section(&server));

    daemon_start(&daemon_of_test, format_text("%s  domain: elsewhere\n", nats_server_section(&server)), NULL);
    daemon_wait_log(&daemon_of_test, "nats: connected");
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "bucket.create", "['b', {'timeout': 5}]");
    ck_assert_ptr_nonnull(strstr(text_at(&answer->error, "message"), "JetStream"));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* The test answers instead of JetStream. */
static struct nats *begin_deletions(void)
{
    nats_server_start(&server, NULL);
    struct nats *jetstream = nats_connect(server.port, NULL, NULL);
    nats_subscribe(jetstream, "$JS.elsewhere.API.STREAM.DELETE.*");
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, format_text("%s  domain: elsewhere\n", nats_server_section(&server)), NULL);
    return jetstream;
}

static void answer_deletions(struct nats *jetstream, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        nats_next(jetstream);
        nats_reply(jetstream, "{\"success\":true}");
    }
}

/* A client that removes many buckets has a few requests at the server at a time. Others take turns with it. */
START_TEST(changes_of_many_buckets_leave_room_for_those_of_others)
{
    struct nats *jetstream = begin_deletions();
    daemon_restart(&daemon_of_test);
    daemon_wait_log(&daemon_of_test, "nats: connected");
    struct client *greedy = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    for (unsigned i = 0; i < 50; i++)
        client_send(greedy, "bucket.delete", "['b%u']", i);
    wait_until(stat_of(other, "calls_in_flight") >= 50, "all calls");
    ck_assert_uint_le(stat_of(other, "requests_in_flight"), 12); /* some requests ask for the server's version */
    uint32_t id = client_send(other, "bucket.delete", "['theirs']");
    wait_until(stat_of(other, "calls_in_flight") >= 51, "the other's call");

    answer_deletions(jetstream, 10);
    assert_ok(client_wait(other, id));
    answer_deletions(jetstream, 41);
    for (unsigned i = 0; i < 50; i++)
        assert_ok(client_receive(greedy));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_user_with_many_sessions_leaves_as_much_room_as_with_one)
{
    enum { SESSIONS = 50, OTHER_USER = 4000 };
    struct client *greedy[SESSIONS];
    struct sockaddr_un address;
    socklen_t length;

    if (geteuid() != 0) {
        test_run_skip("a_user_with_many_sessions_leaves_as_much_room_as_with_one", "only root can be several users");
        return;
    }
    struct nats *jetstream = begin_deletions();
    int listener = daemon_listen_without_file(&address, &length);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_log(&daemon_of_test, "nats: connected");
    for (unsigned i = 0; i < SESSIONS; i++) {
        greedy[i] = client_open_address(&address, length);
        client_send(greedy[i], "bucket.delete", "['b%u']", i);
    }
    struct client *other = client_open_as(OTHER_USER, &address, length);
    /* The call that asks is one of them. */
    wait_until(stat_of(other, "calls_in_flight") >= SESSIONS + 1, "all calls");
    uint32_t id = client_send(other, "bucket.delete", "['theirs']");
    wait_until(stat_of(greedy[0], "calls_in_flight") >= SESSIONS + 2, "the other's call");

    answer_deletions(jetstream, 10);
    assert_ok(client_wait(other, id));
    answer_deletions(jetstream, SESSIONS + 1 - 10);
    for (unsigned i = 0; i < SESSIONS; i++)
        assert_ok(client_receive(greedy[i]));
    daemon_stop(&daemon_of_test);
    close(listener);
    nats_server_stop(&server);
}
END_TEST

/* For a filter, or for each key's last message, the server counts keys while the bucket accepts no writes. */
START_TEST(reading_a_whole_bucket_needs_no_count_of_its_keys)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    daemon_wait_log(&daemon_of_test, "JetStream API level");
    struct client *client = client_open(&daemon_of_test);
    struct nats *requests = nats_connect(server.port, NULL, NULL);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "bucket.create", "['deep', {'history': 2}]"));
    assert_ok(client_call(client, "kv.put", "['b', 'a.k', 'v']"));
    assert_ok(client_call(client, "kv.put", "['deep', 'a.k', 'v']"));
    nats_subscribe(requests, "$JS.API.CONSUMER.CREATE.>");

    assert_ok(client_call(client, "kv.keys", "['b']"));
    const char *asked = nats_next(requests);
    ck_assert_msg(strstr(asked, "\"all\"") != NULL && strstr(asked, "filter") == NULL, "%s", asked);
    assert_ok(client_call(client, "kv.keys", "['b', {'filter': 'a.*'}]"));
    asked = nats_next(requests);
    ck_assert_msg(strstr(asked, "\"$KV.b.a.*\"") != NULL, "%s", asked);
    assert_ok(client_call(client, "kv.keys", "['deep']"));
    asked = nats_next(requests);
    ck_assert_msg(strstr(asked, "\"last_per_subject\"") != NULL, "%s", asked);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(the_first_server_may_be_down)
{
    unsigned nobody = port_reserve();

    nats_server_start(&server, NULL);
    expect_service(format_text("  mode: external\n  servers: [nats://127.0.0.1:%u, %s]\n", nobody, server.url));
    nats_server_stop(&server);
}
END_TEST

START_TEST(the_daemon_fails_over_to_another_server)
{
    struct nats_server other;

    nats_server_start(&server, NULL);
    nats_server_start(&other, NULL);
    daemon_start(&daemon_of_test, format_text("  mode: external\n  servers: [%s, %s]\n", server.url, other.url), NULL);
    daemon_wait_log(&daemon_of_test, "nats: connected to nats://127.0.0.1:");
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "health.check", "[]");
    bool first = strcmp(text_at(&answer->result, "nats.url"), server.url) == 0;
    process_kill(first ? &server.process : &other.process);
    daemon_wait_log(&daemon_of_test, "lost:");
    daemon_wait_log(&daemon_of_test, "nats: connected to");
    answer = client_call(client, "health.check", "[]");
    ck_assert_str_eq(text_at(&answer->result, "nats.url"), first ? other.url : server.url);
    /* The servers are no cluster: the other one has other buckets, which the daemon must notice. */
    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    daemon_stop(&daemon_of_test);
    nats_server_stop(first ? &other : &server);
}
END_TEST

START_TEST(a_user_who_may_not_ask_for_the_servers_version_is_served)
{
    nats_server_start(&server,
                      "accounts { A { jetstream: enabled, users: [ { user: a, password: a, permissions { publish: "
                      "[\"$JS.>\", \"$KV.>\", \"_INBOX.>\"], subscribe: [\"_INBOX.>\"] } } ] } }");
    expect_service(format_text("%s  user: a\n  password: a\n", nats_server_section(&server)));
    nats_server_stop(&server);
}
END_TEST

/* In a missing domain anybody can subscribe to the daemon's subjects. */
START_TEST(an_unreadable_answer_of_jetstream_is_not_an_internal_error)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, format_text("%s  domain: elsewhere\n", nats_server_section(&server)), NULL);
    daemon_wait_log(&daemon_of_test, "nats: connected");
    struct nats *nats = nats_connect(server.port, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);

    nats_subscribe(nats, "$JS.elsewhere.API.STREAM.INFO.*");
    uint32_t msgid = client_send(client, "bucket.info", "['b']");
    nats_next(nats);
    nats_reply(nats, "this is no JSON");
    nats_reply(nats, "{\"error\":{\"code\":500,\"err_code\":10049,\"description\":\"could not create: open "
                     "/secret/place/KV_b: no space\"}}");
    struct answer *answer = client_wait(client, msgid);
    assert_code_says(answer, "unavailable", "could not create: open (path): no space");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* --- Permissions ----------------------------------------------------------------------------------- */

/* User a may not publish to these subjects; user b may do everything. */
static const char *denying(const char *publish)
{
    return format_text("accounts { A { jetstream: enabled, users: [ { user: b, password: b }, { user: a, password: a, "
                       "permissions { publish { deny: [%s] } } } ] } }",
                       publish);
}

static struct client *open_as_a(const char *more, const char *sections)
{
    daemon_start(&daemon_of_test, format_text("%s  user: a\n  password: a\n", more), sections);
    daemon_wait_log(&daemon_of_test, "JetStream API level");
    return client_open(&daemon_of_test);
}

/* The answer comes at once and names the subject. */
#define assert_denied(start_ms, answer, subject)                                                                       \
    do {                                                                                                               \
        assert_code_says(answer, "permission_denied", "\"" subject "\"");                                              \
        assert_at_once(start_ms);                                                                                      \
    } while (0)

static void expect_denied_keys(struct client *client)
{
    uint64_t start_ms = now_ms();
    struct answer *answer;

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'open', 'v']"));
    answer = client_call(client, "kv.put", "['b', 'secret', 'v']");
    assert_denied(start_ms, answer, "$KV.b.secret");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    ck_assert(!bool_at(&answer->error, "retryable"));
    assert_denied(start_ms, client_call(client, "kv.create", "['b', 'secret', 'v']"), "$KV.b.secret");
    assert_denied(start_ms, client_call(client, "kv.get", "['b', 'hidden']"), "$JS.API.DIRECT.GET.KV_b.$KV.b.hidden");
    answer = client_call(client, "kv.get", "['b', 'open']");
    assert_ok(answer);
    assert_denied(start_ms,
                  client_call(client, "txn.commit",
                              "['b', [], [['put', 'open', 'x'], ['put', 'secret', 'x'], "
                              "['put', 'open', 'y']]]"),
                  "$KV.b.secret");
    answer = client_call(client, "kv.get", "['b', 'open']");
    ck_assert_str_eq(text_at(&answer->result, "value"), "v");
}

START_TEST(a_publish_without_permission_is_denied_at_once)
{
    nats_server_start(&server, denying("\"$KV.b.secret\", \"$JS.API.DIRECT.GET.KV_b.$KV.b.hidden\", "
                                       "\"$JS.API.CONSUMER.CREATE.>\", \"$JS.API.STREAM.CREATE.KV_no\""));
    struct client *client = open_as_a(nats_server_section(&server), NULL);
    uint64_t start_ms = now_ms();

    expect_denied_keys(client);
    assert_denied(start_ms, client_call(client, "bucket.create", "['no']"), "$JS.API.STREAM.CREATE.KV_no");
    assert_code_says(client_call(client, "kv.keys", "['b']"), "permission_denied", "\"$JS.API.CONSUMER.CREATE.KV_b.");
    assert_code_says(client_call(client, "kv.history", "['b', 'open']"), "permission_denied",
                     "\"$JS.API.CONSUMER.CREATE.KV_b.");
    assert_at_once(start_ms);
    /* A watch needs a consumer, too. The daemon keeps asking for others. */
    struct answer *answer = client_call(client, "watch.start", "['b']");
    if (answer->error.type == MSGPACK_OBJECT_NIL) {
        struct notification *ended = client_wait_notification(client, answer->result.via.u64);
        ck_assert_str_eq(ended->method, "watch.ended");
        ck_assert_str_eq(text_at(&ended->params, "1.code"), "permission_denied");
    } else {
        assert_code(answer, "permission_denied");
    }
    assert_at_once(start_ms);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* The watch ends with the error, whether it has begun or not. */
static void expect_denied_watch(struct client *client, const char *subject)
{
    struct answer *answer = client_call(client, "watch.start", "['b', {'timeout': 40}]");

    if (answer->error.type != MSGPACK_OBJECT_NIL) {
        assert_code_says(answer, "permission_denied", subject);
        return;
    }
    struct notification *next;
    while (strcmp((next = client_wait_notification(client, answer->result.via.u64))->method, "watch.ended") != 0)
        ck_assert_str_eq(next->method, "watch.entries");
    ck_assert_str_eq(text_at(&next->params, "1.code"), "permission_denied");
    ck_assert_ptr_nonnull(strstr(text_at(&next->params, "1.message"), subject));
}

START_TEST(a_watch_that_is_denied_a_subject_ends_and_names_it)
{
    static const struct {
        const char *denied, *named;
    } subjects[] = {{"\"$JS.API.STREAM.MSG.>\"", "\"$JS.API.STREAM.MSG.GET.KV_b\""},
                    {"\"$JS.API.CONSUMER.>\"", "\"$JS.API.CONSUMER."}};

    for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++) {
        nats_server_start(&server, denying(subjects[i].denied));
        struct client *client = open_as_a(nats_server_section(&server), NULL);
        uint64_t start_ms = now_ms();
        assert_ok(client_call(client, "bucket.create", "['b']"));
        assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
        expect_denied_watch(client, subjects[i].named);
        /* These have the bucket followed. */
        for (unsigned read = 0; read < 3; read++)
            assert_ok(client_call(client, "kv.get", "['b', 'k', {'consistency': 'cached'}]"));
        expect_denied_watch(client, subjects[i].named);
        assert_at_once(start_ms);
        daemon_stop(&daemon_of_test);
        nats_server_stop(&server);
    }
}
END_TEST

/* Many at a time, also in one batch: each write has its own answer. */
START_TEST(a_denied_key_denies_no_other)
{
    enum { WRITES = 600 };
    static const char *const commits[] = {"on", "off"};

    nats_server_start(&server, denying("\"$KV.b.secret.*\""));
    for (unsigned run = 0; run < 2; run++) {
        uint32_t msgids[WRITES];
        struct client *client =
            open_as_a(nats_server_section(&server), format_text("buckets:\n  group_commit: %s\n", commits[run]));
        assert_ok(client_call(client, "bucket.create", "['b']"));
        uint64_t start_ms = now_ms();
        for (unsigned i = 0; i < WRITES; i++)
            msgids[i] = client_send(client, "kv.put", "['b', '%s.%u', 'v']", i % 7 == 3 ? "secret" : "open", i);
        for (unsigned i = 0; i < WRITES; i++) {
            struct answer *answer = client_wait(client, msgids[i]);
            if (i % 7 != 3) {
                assert_ok(answer);
                continue;
            }
            assert_code_says(answer, "permission_denied", format_text("\"$KV.b.secret.%u\"", i));
            ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
        }
        assert_at_once(start_ms);
        daemon_stop(&daemon_of_test);
    }
    nats_server_stop(&server);
}
END_TEST

START_TEST(over_tls_a_publish_without_permission_is_denied_too)
{
    char directory[PATH_BYTES];

    test_run_make_directory(directory);
    certificate_make_all(directory);
    nats_server_start(&server,
                      format_text("tls { cert_file: \"%s/server.pem\", key_file: \"%s/server.key\" }\n%s", directory,
                                  directory, denying("\"$KV.b.secret\", \"$JS.API.DIRECT.GET.KV_b.$KV.b.hidden\"")));
    expect_denied_keys(open_as_a(format_text("  mode: external\n  servers: [tls://127.0.0.1:%u]\n  tls:\n"
                                             "    ca: %s/ca.pem\n",
                                             server.port, directory),
                                 NULL));
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* The check is a message from the daemon to itself. A refusal by the server proves as much as its delivery. */
START_TEST(a_user_without_permission_for_the_inbox_keeps_the_connection)
{
    nats_server_start(&server, denying("\"_INBOX.>\""));
    struct client *client = open_as_a(format_text("%s  ping_interval: 0.1\n", nats_server_section(&server)), NULL);

    for (unsigned i = 0; i < 5; i++)
        daemon_wait_log(&daemon_of_test, "Permissions Violation for Publish to \"_INBOX.");
    struct answer *answer = client_call(client, "health.check", "[]");
    ck_assert(bool_at(&answer->result, "healthy"));
    ck_assert_uint_eq(number_at(&answer->result, "nats.reconnects"), 0);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_user_without_permission_for_answers_gets_an_error_that_says_so)
{
    nats_server_start(&server, "authorization { users: [ { user: a, password: a, permissions { subscribe { deny: "
                               "[\"_INBOX.>\"] } } } ] }");
    daemon_start(&daemon_of_test, format_text("%s  user: a\n  password: a\n", nats_server_section(&server)), NULL);
    struct client *client = client_open(&daemon_of_test);
    uint64_t start_ms = now_ms();

    for (unsigned i = 0; i < 3; i++) {
        struct answer *answer = client_call(client, "kv.put", "['b', 'k', 'v']");
        assert_code_says(answer, "permission_denied", "subscribe to \"_INBOX.");
    }
    assert_at_once(start_ms);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

Suite *external_suite(void)
{
    Suite *suite = suite_create("external");
    TCase *tests = tcase_create("external");

    tcase_add_test(tests, an_open_server_needs_no_credentials);
    tcase_add_test(tests, a_user_and_a_password_are_sent);
    tcase_add_test(tests, a_token_is_sent);
    tcase_add_test(tests, users_passwords_and_tokens_may_have_any_character);
    tcase_add_test(tests, an_nkey_signs_what_the_server_asks);
    tcase_add_test(tests, tls_checks_certificates_of_both_sides);
    tcase_add_test(tests, a_certificate_without_the_name_among_its_alternative_names_is_refused);
    tcase_add_test(tests, large_and_many_messages_pass_over_tls);
    tcase_add_test(tests, a_missing_file_is_named_in_the_log_only);
    tcase_add_test(tests, a_domain_can_be_named);
    tcase_add_test(tests, reading_a_whole_bucket_needs_no_count_of_its_keys);
    tcase_add_test(tests, changes_of_many_buckets_leave_room_for_those_of_others);
    tcase_add_test(tests, a_user_with_many_sessions_leaves_as_much_room_as_with_one);
    tcase_add_test(tests, the_first_server_may_be_down);
    tcase_add_test(tests, the_daemon_fails_over_to_another_server);
    tcase_add_test(tests, a_user_who_may_not_ask_for_the_servers_version_is_served);
    tcase_add_test(tests, an_unreadable_answer_of_jetstream_is_not_an_internal_error);
    tcase_add_test(tests, a_publish_without_permission_is_denied_at_once);
    tcase_add_test(tests, a_watch_that_is_denied_a_subject_ends_and_names_it);
    tcase_add_test(tests, a_denied_key_denies_no_other);
    tcase_add_test(tests, over_tls_a_publish_without_permission_is_denied_too);
    tcase_add_test(tests, a_user_without_permission_for_the_inbox_keeps_the_connection);
    tcase_add_test(tests, a_user_without_permission_for_answers_gets_an_error_that_says_so);
    suite_add_tcase(suite, tests);
    return suite;
}
