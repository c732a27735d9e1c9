/* daemon.dump: what waits where. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/nats_server.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct daemon daemon_of_test;
static struct nats_server server;

/* Return the first item of a list whose member has this text; NULL: there is none. */
static const msgpack_object *find_item(const struct answer *dump, const char *list, const char *member,
                                       const char *value)
{
    const char *path = format_text("%s.list", list);

    for (size_t i = 0; i < count_at(&dump->result, path); i++) {
        const msgpack_object *item = find_at(&dump->result, format_text("%s.%zu", path, i));
        if (find_at(item, member) != NULL && strcmp(text_at(item, member), value) == 0)
            return item;
    }
    return NULL;
}

static struct answer *dump(struct client *client)
{
    struct answer *answer = client_call(client, "daemon.dump", "[]");

    assert_ok(answer);
    return answer;
}

START_TEST(a_dump_lists_sessions_calls_watches_and_followed_buckets)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "");
    struct answer *answer = client_call(client, "watch.start", "['%s', {'filter': ['a.*', 'b']}]", bucket);

    assert_ok(answer);
    uint64_t watch = answer->result.via.u64;
    while (strcmp(client_wait_notification(client, watch)->method, "watch.ready") != 0)
        ;
    answer = dump(client);
    const msgpack_object *item = find_item(answer, "calls", "method", "daemon.dump");
    ck_assert_ptr_nonnull(item);
    ck_assert_uint_eq(number_at(item, "pid"), (uint64_t)getpid());
    ck_assert_uint_eq(number_at(item, "uid"), getuid());
    ck_assert_uint_gt(number_at(item, "id"), 0);
    ck_assert_str_eq(text_at(item, "state"), "running");

    item = find_item(answer, "watches", "bucket", bucket);
    ck_assert_ptr_nonnull(item);
    ck_assert_uint_eq(number_at(item, "id"), watch);
    ck_assert_str_eq(text_at(item, "state"), "live");
    ck_assert_str_eq(text_at(item, "filters.1"), "b");

    item = find_item(answer, "followed_buckets", "bucket", bucket);
    ck_assert_ptr_nonnull(item);
    ck_assert_str_eq(text_at(item, "feed"), "live");
    ck_assert_uint_eq(number_at(item, "watches"), 1);

    item = find_item(answer, "sessions", "state", "open");
    ck_assert_ptr_nonnull(item);
    ck_assert_uint_eq(number_at(item, "calls"), 1);
    ck_assert_uint_eq(number_at(item, "watches"), 1);
    ck_assert_uint_gt(number_at(&answer->result, "requests.count"), 0);
    ck_assert_uint_gt(count_at(&answer->result, "requests.states"), 0);
}
END_TEST

START_TEST(a_list_has_at_most_limit_items_and_counts_all)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "");

    for (unsigned i = 0; i < 5; i++)
        assert_ok(client_call(client, "watch.start", "['%s']", bucket));
    for (unsigned i = 0; i < 3; i++)
        assert_ok(client_call(client_open_shared(), "daemon.info", "[]"));
    struct answer *answer = client_call(client, "daemon.dump", "[{'limit': 2}]");
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, "watches.list"), 2);
    ck_assert_uint_ge(number_at(&answer->result, "watches.count"), 5);
    /* Idle sessions are a number. */
    ck_assert_uint_ge(number_at(&answer->result, "sessions.idle"), 3);
    assert_code(client_call(client, "daemon.dump", "[{'limit': 0}]"), "invalid_argument");
    assert_code(client_call(client, "daemon.dump", "[{'limit': 1001}]"), "invalid_argument");
}
END_TEST

START_TEST(a_list_of_large_items_has_some_of_them_and_counts_all)
{
    enum { WATCHES = 50 };
    char name[901] = {0};
    const char *filters = "";

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    memset(name, 'k', sizeof(name) - 1);
    for (unsigned i = 0; i < 64; i++)
        filters = format_text("%s%s'%s.%u'", filters, i > 0 ? ", " : "", name, i);
    for (unsigned i = 0; i < WATCHES; i++)
        assert_ok(client_call(client, "watch.start", "['b', {'filter': [%s]}]", filters));
    struct answer *answer = dump(client);
    ck_assert_uint_eq(number_at(&answer->result, "watches.count"), WATCHES);
    ck_assert_uint_ge(count_at(&answer->result, "watches.list"), 2);
    ck_assert_uint_le(count_at(&answer->result, "watches.list"), 10);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Wait for a dump in which the call of a method has a state. */
static const msgpack_object *wait_for_call(struct client *client, const char *method, const char *state)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (;;) {
        const struct answer *answer = dump(client);
        const msgpack_object *item = find_item(answer, "calls", "method", method);
        if (item != NULL && strcmp(text_at(item, "state"), state) == 0)
            return item;
        ck_assert_msg(now_ms() < end, "no %s is %s: %s", method, state, object_text(&answer->result));
        pause_shortly();
    }
}

START_TEST(calls_that_a_silent_server_holds_up_are_listed_with_their_clients)
{
    nats_server_prepare(&server, NULL);
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    nats_server_freeze(&server);
    client_send(other, "daemon.info", "[]");
    client_send(other, "kv.put", "['b', 'k', 'w', {'timeout': 30}]");
    const msgpack_object *item = wait_for_call(client, "kv.put", "running");
    ck_assert_str_eq(text_at(item, "bucket"), "b");
    ck_assert_uint_eq(number_at(item, "pid"), (uint64_t)getpid());
    uint64_t id = number_at(item, "id");
    struct answer *answer = dump(client);
    ck_assert_ptr_nonnull(find_item(answer, "group_commits", "bucket", "b"));
    item = find_item(answer, "requests", "state", "sent");
    ck_assert_ptr_nonnull(item);
    ck_assert_uint_eq(number_at(item, "call"), id);

    /* A client that leaves an answer unread resets the connection. A write goes on without its session. */
    client_close(other);
    ck_assert_uint_eq(number_at(wait_for_call(client, "kv.put", "abandoned"), "id"), id);
    nats_server_thaw(&server);
    uint64_t end = now_ms() + PATIENCE_MS;
    while (find_item(dump(client), "calls", "method", "kv.put") != NULL)
        ck_assert_uint_lt(now_ms(), end);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_dump_takes_admin_for_all_buckets)
{
    daemon_start(&daemon_of_test, NULL, "access:\n  - {buckets: [\"a*\", \"[b-z]*\"], allow: admin}\n");
    struct client *client = client_open(&daemon_of_test);

    assert_code_says(client_call(client, "daemon.dump", "[]"), "permission_denied", "all buckets");
    daemon_configure(&daemon_of_test, NULL,
                     "access:\n  - {buckets: [secret], allow: write}\n"
                     "  - {buckets: [\"*\"], allow: admin}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    assert_code(client_call(client, "daemon.dump", "[]"), "permission_denied");
    daemon_configure(&daemon_of_test, NULL,
                     "access:\n  - {buckets: [\"*\"], allow: admin}\n"
                     "  - {buckets: [secret], allow: write}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    uint64_t end = now_ms() + PATIENCE_MS;
    while (strcmp(answer_code(client_call(client, "daemon.dump", "[]")), "ok") != 0) {
        ck_assert_uint_lt(now_ms(), end);
        pause_shortly();
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(the_debug_log_names_each_call_with_its_client)
{
    daemon_start(&daemon_of_test, NULL, "log:\n  level: debug\n");
    struct client *client = client_open(&daemon_of_test);
    const char *whose = format_text("of pid %d uid %u: kv.get of bucket nowhere", (int)getpid(), (unsigned)getuid());

    assert_code(client_call(client, "kv.get", "['nowhere', 'k']"), "bucket_not_found");
    daemon_wait_log(&daemon_of_test, format_text("%s: begins", whose));
    daemon_wait_log(&daemon_of_test, format_text("%s: failed after", whose));
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *dump_suite(void)
{
    Suite *suite = suite_create("dump");
    TCase *shared = shared_daemon_case(suite, "dump"), *own = tcase_create("dump_own");

    tcase_add_test(shared, a_dump_lists_sessions_calls_watches_and_followed_buckets);
    tcase_add_test(shared, a_list_has_at_most_limit_items_and_counts_all);
    tcase_add_test(own, calls_that_a_silent_server_holds_up_are_listed_with_their_clients);
    tcase_add_test(own, a_list_of_large_items_has_some_of_them_and_counts_all);
    tcase_add_test(own, a_dump_takes_admin_for_all_buckets);
    tcase_add_test(own, the_debug_log_names_each_call_with_its_client);
    suite_add_tcase(suite, own);
    return suite;
}
