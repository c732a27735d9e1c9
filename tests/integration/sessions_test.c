/* daemon.sessions and daemon.kill_session: who is connected, and the end of one of them. */
#include "client/lib/kvstore_admin.h"
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/nats_server.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534u

static struct daemon daemon_of_test;
static struct nats_server server;

static struct answer *list_sessions(struct client *client, const char *options)
{
    struct answer *answer = client_call(client, "daemon.sessions", "[{%s}]", options);

    assert_ok(answer);
    return answer;
}

/* Return the item of a session; NULL: it is not listed. */
static const msgpack_object *find_session(const struct answer *sessions, uint64_t id)
{
    for (size_t i = 0; i < count_at(&sessions->result, "list"); i++) {
        const msgpack_object *item = find_at(&sessions->result, format_text("list.%zu", i));
        if (number_at(item, "id") == id)
            return item;
    }
    return NULL;
}

static uint64_t session_of(struct client *client)
{
    return number_at(&list_sessions(client, "")->result, "own");
}

/* --- The list -------------------------------------------------------------------------------------- */

START_TEST(a_list_has_each_session_with_its_program_and_its_counts)
{
    ck_assert_int_eq(prctl(PR_SET_NAME, "sessions\033test"), 0);
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, "");

    for (unsigned i = 0; i < 5; i++)
        assert_ok(client_call(other, "kv.put", "['%s', 'k', 'v']", bucket));
    assert_ok(client_call(other, "watch.start", "['%s', {'updates_only': true}]", bucket));
    uint64_t id = session_of(other);
    const msgpack_object *item = find_session(list_sessions(client, "'limit': 1000"), id);
    ck_assert_ptr_nonnull(item);
    ck_assert_uint_eq(number_at(item, "pid"), (uint64_t)getpid());
    ck_assert_uint_eq(number_at(item, "uid"), getuid());
    /* A name from a client cannot control a terminal. */
    ck_assert_str_eq(text_at(item, "program"), "sessions?test");
    ck_assert_uint_eq(number_at(item, "calls"), 7);
    ck_assert_uint_eq(number_at(item, "calls_in_flight"), 0);
    ck_assert_uint_eq(number_at(item, "watches"), 1);
    ck_assert_uint_gt(number_at(item, "bytes_in"), 100);
    ck_assert_uint_gt(number_at(item, "bytes_out"), 50);
    ck_assert_uint_ge(number_at(item, "age_ms"), number_at(item, "idle_ms"));
    /* The list is a call in flight of its own session. */
    struct answer *own = list_sessions(client, "'limit': 1000");
    ck_assert_uint_eq(number_at(find_session(own, number_at(&own->result, "own")), "calls_in_flight"), 1);
}
END_TEST

START_TEST(the_rate_of_a_session_is_that_of_the_last_second)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    uint64_t id = session_of(other), end = now_ms() + PATIENCE_MS;

    /* Call as fast as it goes: a whole second of that must be seen. */
    for (uint64_t rate = 0; rate < 10;) {
        ck_assert_uint_lt(now_ms(), end);
        assert_ok(client_call(other, "daemon.info", "[]"));
        client_forget(other);
        rate = number_at(find_session(list_sessions(client, "'limit': 1000"), id), "calls_per_second");
    }
    /* Then it ends. */
    while (number_at(find_session(list_sessions(client, "'limit': 1000"), id), "calls_per_second") > 0) {
        ck_assert_uint_lt(now_ms(), end);
        pause_shortly();
    }
}
END_TEST

START_TEST(a_list_is_sorted_and_limited_and_counts_all)
{
    enum { CLIENTS = 40 };
    struct client *clients[CLIENTS];
    uint64_t ids[CLIENTS];

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    /* Each has made more calls than the one before, in an order of ids that is no order of calls. */
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = client_open(&daemon_of_test);
        ids[i] = session_of(clients[i]);
        for (unsigned call = 0; call < 100 + (i * 17) % CLIENTS; call++)
            assert_ok(client_call(clients[i], "daemon.info", "[]"));
    }
    static const unsigned limits[] = {1, 7, CLIENTS};
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct answer *answer = list_sessions(client, format_text("'sort': 'calls', 'limit': %u", limits[i]));
        ck_assert_uint_eq(count_at(&answer->result, "list"), limits[i]);
        ck_assert_uint_ge(number_at(&answer->result, "count"), CLIENTS + 1);
        for (unsigned place = 0; place < limits[i]; place++)
            ck_assert_uint_eq(number_at(&answer->result, format_text("list.%u.calls", place)),
                              100 + CLIENTS - 1 - place + 1);
    }
    struct answer *answer = list_sessions(client, "'sort': 'age', 'limit': 1000");
    uint64_t previous = 0;
    for (size_t i = 0; i < count_at(&answer->result, "list"); i++) {
        uint64_t id = number_at(&answer->result, format_text("list.%zu.id", i));
        ck_assert_uint_gt(id, previous);
        previous = id;
    }
    ck_assert_uint_eq(previous, ids[CLIENTS - 1]);
    static const char *const orders[] = {"rate", "in_flight", "bytes", "traffic", "watches"};
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
        ck_assert_uint_eq(count_at(&list_sessions(client, format_text("'sort': '%s'", orders[i]))->result, "list"),
                          CLIENTS + 1);
    assert_code_says(client_call(client, "daemon.sessions", "[{'sort': 'size'}]"), "invalid_argument", "in_flight");
    assert_code(client_call(client, "daemon.sessions", "[{'limit': 0}]"), "invalid_argument");
    assert_code(client_call(client, "daemon.sessions", "[{'limit': 1001}]"), "invalid_argument");
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- The end of a session -------------------------------------------------------------------------- */

START_TEST(a_killed_session_is_told_why_and_closed)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    uint64_t id = session_of(other);

    assert_ok(client_call(client, "daemon.kill_session", "[%llu]", (unsigned long long)id));
    struct answer *reason = client_receive(other);
    ck_assert(!reason->has_msgid);
    assert_code_says(reason, "unavailable", "daemon.kill_session");
    ck_assert_str_eq(answer_outcome(reason), "unknown");
    client_expect_end(other);
    daemon_wait_log(&daemon_of_test, format_text("session %llu of pid %d uid %u ended: ended by session %llu (pid %d",
                                                 (unsigned long long)id, (int)getpid(), (unsigned)getuid(),
                                                 (unsigned long long)session_of(client), (int)getpid()));

    /* It is gone, at once, and its id is never used again. */
    ck_assert_ptr_null(find_session(list_sessions(client, ""), id));
    assert_code_says(client_call(client, "daemon.kill_session", "[%llu]", (unsigned long long)id), "invalid_argument",
                     "there is no session");
    ck_assert_uint_gt(session_of(client_open(&daemon_of_test)), id);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_session_cannot_kill_itself_or_none)
{
    struct client *client = client_open_shared();
    unsigned long long id = session_of(client);

    assert_code_says(client_call(client, "daemon.kill_session", "[%llu]", id), "invalid_argument",
                     "close its connection");
    assert_code_says(client_call(client, "daemon.kill_session", "[0]"), "invalid_argument", "there is no session 0");
    assert_code_says(client_call(client, "daemon.kill_session", "[9223372036854775807]"), "invalid_argument",
                     "there is no session");
    assert_code_says(client_call(client, "daemon.kill_session", "['%llu']", id), "invalid_argument", "integer");
    assert_code(client_call(client, "daemon.kill_session", "[]"), "invalid_argument");
    ck_assert_uint_eq(session_of(client), id);
}
END_TEST

START_TEST(calls_in_flight_of_a_killed_session_end_as_when_it_disconnects)
{
    nats_server_prepare(&server, NULL);
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    uint64_t id = session_of(other), end = now_ms() + PATIENCE_MS;

    assert_ok(client_call(client, "bucket.create", "['b', {'history': 5}]"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    assert_ok(client_call(other, "watch.start", "['b']"));
    nats_server_freeze(&server);
    client_send(other, "kv.put", "['b', 'k', 'w', {'timeout': 30}]");
    client_send(other, "kv.history", "['b', 'k', {'timeout': 30}]");
    while (number_at(find_session(list_sessions(client, ""), id), "calls_in_flight") < 2) {
        ck_assert_uint_lt(now_ms(), end);
        pause_shortly();
    }
    assert_ok(client_call(client, "daemon.kill_session", "[%llu]", (unsigned long long)id));
    /* The read is dropped with its watch. The write was sent, and goes on without its session. */
    struct answer *dump = client_call(client, "daemon.dump", "[]");
    assert_ok(dump);
    ck_assert_uint_eq(number_at(&dump->result, "calls.count"), 2);
    ck_assert_str_eq(text_at(&dump->result, "calls.list.0.method"), "kv.put");
    ck_assert_str_eq(text_at(&dump->result, "calls.list.0.state"), "abandoned");
    nats_server_thaw(&server);
    while (strcmp(text_at(&client_call(client, "kv.get", "['b', 'k']")->result, "value"), "w") != 0)
        ck_assert_uint_lt(now_ms(), end);
    struct answer *stats = client_call(client, "daemon.stats", "[]");
    assert_ok(stats);
    ck_assert_uint_eq(number_at(&stats->result, "watches.open"), 0);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(the_library_says_that_the_outcome_of_a_killed_write_is_unknown)
{
    struct kvs_options options = KVS_OPTIONS(.connect_timeout_s = 30);
    struct kvs_error error;
    uint64_t end = now_ms() + PATIENCE_MS;

    nats_server_prepare(&server, NULL);
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    nats_server_freeze(&server);
    pid_t child = fork();
    if (child == 0) {
        struct kvs *kvs = kvs_connect(daemon_of_test.socket_path, &options, &error);
        struct kvs_put_options put = KVS_PUT_OPTIONS(.timeout_s = 30);
        enum kvs_code code = kvs_put(kvs, "b", "k", "w", 1, &put, NULL);
        _exit(code != KVS_OK && kvs_last_error(kvs)->outcome == KVS_OUTCOME_UNKNOWN &&
                      strstr(kvs_last_error(kvs)->message, "daemon.kill_session") != NULL
                  ? 0
                  : 1);
    }
    for (uint64_t id = 0; id == 0;) {
        struct answer *sessions = list_sessions(client, "'sort': 'in_flight'");
        for (size_t i = 0; i < count_at(&sessions->result, "list"); i++) {
            const msgpack_object *item = find_at(&sessions->result, format_text("list.%zu", i));
            if (number_at(item, "pid") == (uint64_t)child && number_at(item, "calls_in_flight") == 1)
                id = number_at(item, "id");
        }
        ck_assert_uint_lt(now_ms(), end);
        if (id != 0)
            assert_ok(client_call(client, "daemon.kill_session", "[%llu]", (unsigned long long)id));
        else
            pause_shortly();
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    nats_server_thaw(&server);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* --- Users ----------------------------------------------------------------------------------------- */

static void try_users(const char *access, size_t seen, const char *kill_code)
{
    struct sockaddr_un address;
    socklen_t length;

    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, access);
    int listener = daemon_listen_without_file(&address, &length);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_ready(&daemon_of_test);
    struct client *root = client_open_address(&address, length), *victim = client_open_address(&address, length);
    struct client *user = client_open_as(NOBODY, &address, length), *peer = client_open_as(NOBODY, &address, length);
    unsigned long long root_id = session_of(victim), peer_id = session_of(peer), user_id = session_of(user);

    struct answer *sessions = list_sessions(user, "");
    ck_assert_uint_eq(count_at(&sessions->result, "list"), seen);
    ck_assert_uint_eq(number_at(&sessions->result, "count"), seen);
    ck_assert_ptr_nonnull(find_session(sessions, peer_id));
    assert_code(client_call(user, "daemon.kill_session", "[%llu]", root_id), kill_code);
    /* Its own user's, and as root anybody's. */
    assert_ok(client_call(user, "daemon.kill_session", "[%llu]", peer_id));
    ck_assert_uint_ge(count_at(&list_sessions(root, "")->result, "list"), 2);
    assert_ok(client_call(root, "daemon.kill_session", "[%llu]", user_id));
    client_receive(user);
    client_expect_end(user);
    daemon_stop(&daemon_of_test);
    close(listener);
}

START_TEST(users_see_and_kill_what_the_rules_allow)
{
    if (geteuid() != 0) {
        test_run_skip("users_see_and_kill_what_the_rules_allow", "only root can become another user");
        return;
    }
    try_users(NULL, 4, "permission_denied");
    try_users("access:\n  - {users: [root], buckets: [\"*\"], allow: admin}\n"
              "  - {buckets: [\"*\"], allow: write}\n",
              2, "invalid_argument");
    try_users("access:\n  - {buckets: [\"*\"], allow: admin}\n", 4, "ok");
}
END_TEST

Suite *sessions_suite(void)
{
    Suite *suite = suite_create("sessions");
    TCase *shared = shared_daemon_case(suite, "sessions"), *own = tcase_create("sessions_own");

    tcase_add_test(shared, a_list_has_each_session_with_its_program_and_its_counts);
    tcase_add_test(shared, the_rate_of_a_session_is_that_of_the_last_second);
    tcase_add_test(shared, a_session_cannot_kill_itself_or_none);
    tcase_add_test(own, a_list_is_sorted_and_limited_and_counts_all);
    tcase_add_test(own, a_killed_session_is_told_why_and_closed);
    tcase_add_test(own, calls_in_flight_of_a_killed_session_end_as_when_it_disconnects);
    tcase_add_test(own, the_library_says_that_the_outcome_of_a_killed_write_is_unknown);
    tcase_add_test(own, users_see_and_kill_what_the_rules_allow);
    suite_add_tcase(suite, own);
    return suite;
}
