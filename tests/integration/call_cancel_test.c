/* call.cancel: a call that nobody waits for leaves nothing behind. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static struct daemon daemon_of_test;
static struct nats_server server;

/* Cancel a call, and return whether the daemon says that it has. */
static bool cancel(struct client *client, uint32_t msgid)
{
    const struct answer *answer = client_call(client, "call.cancel", "[%u]", msgid);

    assert_ok(answer);
    return bool_at(&answer->result, "");
}

/* The answer to a call that was cancelled comes before that of call.cancel. */
static void expect_cancelled(struct client *client, uint32_t msgid, const char *outcome)
{
    ck_assert(cancel(client, msgid));
    ck_assert(client_has(client, msgid));
    const struct answer *answer = client_wait(client, msgid);
    assert_code_says(answer, "deadline_exceeded", "cancelled");
    ck_assert_str_eq(answer_outcome(answer), outcome);
    ck_assert(bool_at(&answer->error, "retryable"));
}

/* Wait for the lock L, for much longer than a test takes. */
static uint32_t wait_for_lock(struct client *client, const char *bucket)
{
    return client_send(client, "lock.acquire", "['%s', 'L', {'wait': 100000}]", bucket);
}

static const char *state_of_call(struct client *client, const char *method)
{
    const struct answer *answer = client_call(client, "daemon.dump", "[]");

    assert_ok(answer);
    for (size_t i = 0; i < count_at(&answer->result, "calls.list"); i++) {
        const msgpack_object *item = find_at(&answer->result, format_text("calls.list.%zu", i));
        if (strcmp(text_at(item, "method"), method) == 0)
            return text_at(item, "state");
    }
    return "none";
}

static void wait_for_state(struct client *client, const char *method, const char *state)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (strcmp(state_of_call(client, method), state) != 0) {
        ck_assert_msg(now_ms() < end, "no %s is %s: %s", method, state,
                      object_text(&client_call(client, "daemon.dump", "[]")->result));
        pause_shortly();
    }
}

START_TEST(gets_that_wait_are_cancelled_and_take_no_place)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    /* More than a session may have at a time. */
    for (unsigned i = 0; i < 1100; i++) {
        expect_cancelled(client, client_send(client, "kv.get", "['%s', 'k', {'wait_above': 0, 'timeout': 60}]", bucket),
                         "");
    }
    wait_for_stat(client, "watches.open", 0);
}
END_TEST

START_TEST(a_wait_for_a_lock_leaves_its_line)
{
    struct client *holder = client_open_shared(), *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(holder, NULL);
    const struct answer *held = client_call(holder, "lock.acquire", "['%s', 'L']", bucket);

    assert_ok(held);
    uint64_t token = number_at(&held->result, "token");
    uint32_t head = wait_for_lock(client, bucket);
    uint32_t second = wait_for_lock(client, bucket);
    uint32_t third = wait_for_lock(client, bucket);
    wait_for_stat(holder, "locks.waiting", 3);
    uint32_t last = wait_for_lock(other, bucket);
    wait_for_stat(holder, "locks.waiting", 4);
    expect_cancelled(client, second, "none");
    expect_cancelled(client, head, "none");
    expect_cancelled(client, third, "none");
    wait_for_stat(holder, "locks.waiting", 1);
    assert_ok(client_call(holder, "lock.release", "['%s', 'L', %llu]", bucket, (unsigned long long)token));
    const struct answer *acquired = client_wait(other, last);
    assert_ok(acquired);
    /* One revision is that of the marker. */
    ck_assert_uint_eq(number_at(&acquired->result, "token"), token + 2);
}
END_TEST

START_TEST(only_a_call_in_flight_of_the_same_session_is_cancelled)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t waiting = client_send(client, "kv.get", "['%s', 'k', {'wait_above': 0, 'timeout': 60}]", bucket);

    wait_for_stat(other, "watches.open", 1);
    ck_assert(!cancel(other, waiting));
    ck_assert(!cancel(client, waiting + 1000));
    ck_assert(!cancel(client, 4294967295));
    uint32_t last = client_send(client, "daemon.info", "[]");
    ck_assert(!cancel(client, last + 1)); /* its own */
    assert_ok(client_wait(client, last));
    ck_assert(!cancel(client, last)); /* it was answered */
    assert_code(client_call(client, "call.cancel", "['x']"), "invalid_argument");
    assert_code(client_call(client, "call.cancel", "[-1]"), "invalid_argument");
    assert_code(client_call(client, "call.cancel", "[4294967296]"), "invalid_argument");
    assert_code(client_call(client, "call.cancel", "[]"), "invalid_argument");
    put_text(other, bucket, "k", "v");
    const struct answer *answer = client_wait(client, waiting);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "v");
}
END_TEST

START_TEST(a_notification_cancels_too)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t waiting = client_send(client, "kv.get", "['%s', 'k', {'wait_above': 0, 'timeout': 60}]", bucket);
    msgpack_sbuffer message;
    msgpack_packer packer;

    msgpack_sbuffer_init(&message);
    msgpack_packer_init(&packer, &message, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, 3);
    msgpack_pack_uint8(&packer, 2);
    msgpack_pack_str_with_body(&packer, "call.cancel", strlen("call.cancel"));
    msgpack_pack_array(&packer, 1);
    msgpack_pack_uint32(&packer, waiting);
    client_write(client, message.data, message.size);
    msgpack_sbuffer_destroy(&message);
    assert_code(client_wait(client, waiting), "deadline_exceeded");
}
END_TEST

START_TEST(a_call_that_was_sent_is_answered_as_usual)
{
    nats_server_prepare(&server, NULL);
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    uint64_t revision = put_text(client, "b", "k", "v");
    nats_server_freeze(&server);
    uint32_t put = client_send(client, "kv.put", "['b', 'k', 'new', {'timeout': 60}]");
    uint32_t get = client_send(client, "kv.history", "['b', 'k', {'timeout': 60}]");
    wait_for_state(other, "kv.put", "running");
    wait_for_state(other, "kv.history", "running");
    ck_assert(!cancel(client, put));
    expect_cancelled(client, get, "");
    nats_server_thaw(&server);
    ck_assert_uint_eq(revision_of(client_wait(client, put)), revision + 1);
    ck_assert_str_eq(text_at(&client_call(client, "kv.get", "['b', 'k']")->result, "value"), "new");
    client_expect_nothing(client);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* The first attempt of a wait that is at the head of its line is sent at that moment. It does not wait any longer. */
START_TEST(a_wait_for_a_lock_whose_attempt_was_sent_ends_with_it)
{
    nats_server_prepare(&server, NULL);
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), "locks:\n  lease_ttl: 60\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    put_text(client, "b", "L", "an ordinary key");
    assert_ok(client_call(client, "lock.acquire", "['b', 'other']")); /* there is a lease */
    nats_server_freeze(&server);
    uint32_t waiting = wait_for_lock(client, "b");
    wait_for_state(other, "lock.acquire", "running");
    bool is_cancelled = cancel(client, waiting);
    nats_server_thaw(&server);
    ck_assert(!is_cancelled);
    const struct answer *answer = client_wait(client, waiting);
    assert_code(answer, "locked");
    ck_assert_str_eq(answer_outcome(answer), "none");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* The attempt ends after 2 s without an answer. If the test is late, the call is cancelled in the pause after that. */
START_TEST(a_cancelled_wait_for_a_lock_that_nobody_holds_is_not_locked)
{
    nats_server_prepare(&server, NULL);
    nats_server_run(&server);
    daemon_start(&daemon_of_test, nats_server_section(&server), "locks:\n  lease_ttl: 60\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "lock.acquire", "['b', 'other']")); /* there is a lease */
    nats_server_freeze(&server);
    uint32_t waiting = client_send(client, "lock.acquire", "['b', 'L', {'wait': 100000, 'timeout': 2}]");
    wait_for_state(other, "lock.acquire", "running");
    cancel(client, waiting);
    const struct answer *answer = client_wait(client, waiting);
    ck_assert_str_ne(answer_code(answer), "locked");
    nats_server_thaw(&server);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* With the embedded server, two writes with an id to one key are not in flight at the same time. */
START_TEST(a_write_that_was_not_sent_writes_nothing)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    pid_t nats_server = daemon_nats_pid(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    uint64_t revision = put_text(client, "b", "k", "v");
    pid_suspend(nats_server);
    uint32_t first = client_send(client, "kv.put", "['b', 'k', 'first', {'id': 'first-id', 'timeout': 60}]");
    wait_for_state(other, "kv.put", "running");
    uint32_t second = client_send(client, "kv.update", "['b', 'k', 'second', 1, {'id': 'second-id', 'timeout': 60}]");
    uint32_t third =
        client_send(client, "kv.create", "['b', 'k', 'third', {'id': 'third-id', 'first_sent': %llu, 'timeout': 60}]",
                    (unsigned long long)(uv_hrtime() / 1000));
    wait_for_state(other, "kv.update", "queued");
    wait_for_state(other, "kv.create", "queued");
    ck_assert(!cancel(client, first));
    expect_cancelled(client, second, "none");
    expect_cancelled(client, third, "unknown"); /* the first call may have written */
    pid_resume(nats_server);
    ck_assert_uint_eq(revision_of(client_wait(client, first)), revision + 1);
    ck_assert_uint_eq(put_text(client, "b", "k", "v"), revision + 2);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The server stands still, so that more keys wait than may be in flight. */
START_TEST(bulk_writes_begin_no_further_key)
{
    enum { KEYS = 5000 };
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    pid_t nats_server = daemon_nats_pid(&daemon_of_test);
    char *pairs = NULL;
    size_t length = 0, failed = 0;
    FILE *stream = open_memstream(&pairs, &length);

    for (unsigned i = 0; i < KEYS; i++)
        fprintf(stream, "%s'k%u': 'v'", i > 0 ? ", " : "", i);
    fclose(stream);
    assert_ok(client_call(client, "bucket.create", "['b', {'storage': 'memory'}]"));
    put_text(client, "b", "k0", "v"); /* the bucket is known */
    pid_suspend(nats_server);
    uint32_t put = client_send(client, "bulk.put", "['b', {%s}, {'timeout': 60}]", pairs);
    free(pairs);
    wait_for_state(other, "bulk.put", "running");
    ck_assert(!cancel(client, put));
    pid_resume(nats_server);
    const struct answer *answer = client_wait(client, put);
    assert_ok(answer);
    for (uint32_t i = 0; i < answer->result.via.map.size; i++) {
        const msgpack_object *result = &answer->result.via.map.ptr[i].val;
        if (find_at(result, "revision") != NULL)
            continue;
        ck_assert_str_eq(text_at(result, "error.code"), "unavailable");
        ck_assert_str_eq(text_at(result, "error.outcome"), "none");
        failed++;
    }
    ck_assert_uint_gt(failed, 0);
    ck_assert_uint_lt(failed, KEYS);
    ck_assert_uint_eq(count_at(&client_call(client, "kv.keys", "['b']")->result, ""), KEYS - failed);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Cancel a deletion that has begun. Return its answer, which is a result if the test came too late. */
static const struct answer *cancel_deletion(struct client *client, const char *bucket)
{
    enum { KEYS = 60000 };
    struct client *watcher = client_open(&daemon_of_test);
    pid_t nats_server = daemon_nats_pid(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['%s', {'storage': 'memory'}]", bucket));
    for (unsigned i = 0; i < KEYS; i += 10000)
        put_many(client, bucket, "k", i, 10000, 1);
    const struct answer *started = client_call(watcher, "watch.start", "['%s', {'updates_only': true}]", bucket);
    assert_ok(started);
    uint64_t watch = started->result.via.u64;
    uint32_t deletion = client_send(client, "bulk.delete", "['%s', {'filter': '>', 'timeout': 60}]", bucket);
    while (strcmp(client_wait_notification(watcher, watch)->method, "watch.entries") != 0)
        ;
    pid_suspend(nats_server);
    ck_assert(!cancel(client, deletion));
    pid_resume(nats_server);
    return client_wait(client, deletion);
}

START_TEST(deletions_by_a_filter_stop)
{
    const struct answer *answer;
    const char *bucket;
    unsigned tries = 0;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    do {
        bucket = format_text("b%u", ++tries);
        answer = cancel_deletion(client, bucket);
    } while (answer->error.type == MSGPACK_OBJECT_NIL && tries < 10);
    assert_code_says(answer, "unavailable", "cancelled");
    ck_assert_str_eq(answer_outcome(answer), "unknown");
    ck_assert_uint_gt(count_at(&client_call(client, "kv.keys", "['%s', {'limit': 1}]", bucket)->result, ""), 0);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *call_cancel_suite(void)
{
    Suite *suite = suite_create("call cancel");
    TCase *shared = shared_daemon_case(suite, "cancelled calls");
    TCase *own = tcase_create("a daemon of its own");

    tcase_add_test(shared, gets_that_wait_are_cancelled_and_take_no_place);
    tcase_add_test(shared, a_wait_for_a_lock_leaves_its_line);
    tcase_add_test(shared, only_a_call_in_flight_of_the_same_session_is_cancelled);
    tcase_add_test(shared, a_notification_cancels_too);
    tcase_add_test(own, a_call_that_was_sent_is_answered_as_usual);
    tcase_add_test(own, a_wait_for_a_lock_whose_attempt_was_sent_ends_with_it);
    tcase_add_test(own, a_cancelled_wait_for_a_lock_that_nobody_holds_is_not_locked);
    tcase_add_test(own, a_write_that_was_not_sent_writes_nothing);
    tcase_add_test(own, bulk_writes_begin_no_further_key);
    tcase_add_test(own, deletions_by_a_filter_stop);
    suite_add_tcase(suite, own);
    return suite;
}
