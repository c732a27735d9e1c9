/* Locks and ephemeral keys: what a session holds, and what becomes of it when it ends. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Short, because some tests wait for the end of a lease. */
#define LEASE_SECTION "locks:\n  lease_ttl: 2\n"

/* Any user but the one who runs the tests. */
#define OTHER_USER 4000

static struct daemon daemon_of_test, other_daemon;
static struct nats_server server;

static void locks_setup(void)
{
    daemon_start(&shared_daemon, NULL, LEASE_SECTION);
}

/* Acquire a lock without waiting, and return its token. */
static uint64_t acquire(struct client *client, const char *bucket, const char *name)
{
    const struct answer *answer = client_call(client, "lock.acquire", "['%s', '%s']", bucket, name);

    assert_ok(answer);
    ck_assert_double_gt(double_at(&answer->result, "valid_for"), 0);
    return number_at(&answer->result, "token");
}

/* Wait for the lock in a call that was sent, and return its token. */
static uint64_t wait_for_token(struct client *client, uint32_t msgid)
{
    const struct answer *answer = client_wait(client, msgid);

    assert_ok(answer);
    return number_at(&answer->result, "token");
}

/* The next notification must be that this lock is lost, with this code. NULL: any. */
static void expect_lost(struct client *client, const char *name, uint64_t token, const char *code)
{
    struct notification *lost = client_wait_notification(client, 0);

    ck_assert_str_eq(lost->method, "lock.lost");
    ck_assert_str_eq(text_at(&lost->params, "1"), name);
    ck_assert_uint_eq(number_at(&lost->params, "2"), token);
    if (code != NULL)
        ck_assert_str_eq(text_at(&lost->params, "3.code"), code);
}

/* Wait until the key does not exist. */
static void wait_until_absent(struct client *client, const char *bucket, const char *key)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (client_call(client, "kv.get", "['%s', '%s']", bucket, key)->result.type != MSGPACK_OBJECT_NIL) {
        ck_assert_msg(now_ms() < end, "%s still exists", key);
        pause_shortly();
    }
}

/* --- Holding --------------------------------------------------------------------------------------- */

START_TEST(a_lock_has_one_holder)
{
    struct client *holder = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);

    uint64_t token = acquire(holder, bucket, "job");
    const struct answer *answer = client_call(other, "lock.acquire", "['%s', 'job']", bucket);
    assert_code(answer, "locked");
    ck_assert_ptr_nonnull(strstr(text_at(&answer->error, "value"), "\"pid\""));
    ck_assert_str_eq(text_at(&answer->error, "key"), "job");
    ck_assert(!bool_at(&answer->error, "retryable"));
    assert_code(client_call(other, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token), "not_held");
    assert_code(client_call(other, "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token),
                "not_held");
    assert_ok(client_call(holder, "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    ck_assert_uint_gt(acquire(other, bucket, "job"), token);
    assert_code(client_call(holder, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token),
                "not_held");
}
END_TEST

START_TEST(a_lock_is_a_key_that_can_be_read_and_watched)
{
    struct client *holder = client_open(&shared_daemon), *reader = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);
    uint64_t watch = number_at(&client_call(reader, "watch.start", "['%s']", bucket)->result, "");

    ck_assert_str_eq(client_wait_notification(reader, watch)->method, "watch.ready");
    const struct answer *answer =
        client_call(holder, "lock.acquire", "['%s', 'leader', {'value': {'address': 'h:1'}}]", bucket);
    assert_ok(answer);
    uint64_t token = number_at(&answer->result, "token");
    answer = client_call(reader, "kv.get", "['%s', 'leader']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "value"), "{\"address\":\"h:1\"}");
    ck_assert_uint_eq(number_at(&answer->result, "revision"), token);
    const struct notification *entries = client_wait_notification(reader, watch);
    ck_assert_str_eq(text_at(&entries->params, "1.0.key"), "leader");
    ck_assert_uint_eq(number_at(&entries->params, "1.0.revision"), token);
    assert_ok(client_call(holder, "lock.release", "['%s', 'leader', %llu]", bucket, (unsigned long long)token));
    entries = client_wait_notification(reader, watch);
    ck_assert_str_eq(text_at(&entries->params, "1.0.operation"), "delete");
    /* Neither renewals nor the lease can be seen. */
    answer = client_call(reader, "kv.keys", "['%s']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
    answer = client_call(reader, "kv.keys", "['%s', {'filter': '_kvstored.>'}]", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
}
END_TEST

START_TEST(a_lease_is_renewed_without_the_watchers)
{
    struct client *holder = client_open(&shared_daemon), *watcher = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);
    uint64_t watch =
        number_at(&client_call(watcher, "watch.start", "['%s', {'updates_only': true}]", bucket)->result, "");

    ck_assert_str_eq(client_wait_notification(watcher, watch)->method, "watch.ready");
    uint64_t token = acquire(holder, bucket, "job"), renewals = stat_of(holder, "locks.renewals");
    client_wait_notification(watcher, watch);
    while (stat_of(holder, "locks.renewals") < renewals + 5)
        pause_shortly();
    ck_assert_ptr_null(client_find_notification(watcher, watch));
    const struct answer *answer =
        client_call(holder, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token);
    assert_ok(answer);
    ck_assert_double_gt(double_at(&answer->result, "valid_for"), 0);
    client_expect_nothing(watcher);
}
END_TEST

START_TEST(the_token_fences_a_former_holder)
{
    struct client *former = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(former, NULL);
    const char *commit = "['%s', [['job', %llu]], [['put', 'data', '%s']]]";

    unsigned long long first = acquire(former, bucket, "job");
    assert_ok(client_call(former, "txn.commit", commit, bucket, first, "of the first"));
    assert_ok(client_call(former, "lock.release", "['%s', 'job', %llu]", bucket, first));
    unsigned long long second = acquire(other, bucket, "job");
    assert_code(client_call(former, "txn.commit", commit, bucket, first, "too late"), "conflict");
    assert_ok(client_call(other, "txn.commit", commit, bucket, second, "of the second"));
}
END_TEST

START_TEST(acquiring_again_in_the_same_session_is_a_conflict)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    uint64_t token = acquire(client, bucket, "job");
    const struct answer *answer = client_call(client, "lock.acquire", "['%s', 'job', {'wait': 100}]", bucket);
    assert_code(answer, "conflict");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), token);
}
END_TEST

START_TEST(a_second_call_of_the_session_does_not_wait_behind_itself)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    uint32_t first = client_send(client, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    uint32_t second = client_send(client, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    const struct answer *answer = client_wait(client, first);
    assert_ok(answer);
    uint64_t token = number_at(&answer->result, "token");
    answer = client_wait(client, second);
    assert_code(answer, "conflict");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), token);
    assert_ok(client_call(client, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
}
END_TEST

/* --- Waiting --------------------------------------------------------------------------------------- */

START_TEST(those_who_wait_get_the_lock_in_their_order)
{
    enum { WAITING = 20 };
    struct client *holder = client_open(&shared_daemon), *waiting[WAITING];
    const char *bucket = client_new_bucket(holder, NULL);
    uint32_t sent[WAITING];
    uint64_t token = acquire(holder, bucket, "job");

    for (unsigned i = 0; i < WAITING; i++) {
        waiting[i] = client_open(&shared_daemon);
        sent[i] = client_send(waiting[i], "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
        wait_for_stat(holder, "locks.waiting", i + 1);
    }
    assert_ok(client_call(holder, "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    for (unsigned i = 0; i < WAITING; i++) {
        uint64_t next = wait_for_token(waiting[i], sent[i]);
        ck_assert_uint_gt(next, token);
        token = next;
        for (unsigned j = i + 1; j < WAITING; j++)
            ck_assert(!client_has(waiting[j], sent[j]));
        if (i % 2 == 0)
            client_close(waiting[i]);
        else
            assert_ok(
                client_call(waiting[i], "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    }
}
END_TEST

START_TEST(a_wait_that_is_over_is_locked)
{
    struct client *holder = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);

    acquire(holder, bucket, "job");
    uint64_t start = now_ms();
    const struct answer *answer = client_call(other, "lock.acquire", "['%s', 'job', {'wait': 0.3}]", bucket);
    assert_code(answer, "locked");
    ck_assert_ptr_nonnull(strstr(text_at(&answer->error, "value"), "host"));
    ck_assert_uint_ge(now_ms() - start, 300);
    wait_for_stat(holder, "locks.waiting", 0);
}
END_TEST

START_TEST(a_client_that_leaves_loses_its_place)
{
    struct client *holder = client_open(&shared_daemon), *leaving = client_open(&shared_daemon);
    struct client *next = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);
    uint64_t token = acquire(holder, bucket, "job");

    client_send(leaving, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_stat(holder, "locks.waiting", 1);
    uint32_t sent = client_send(next, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_stat(holder, "locks.waiting", 2);
    client_close(leaving);
    wait_for_stat(holder, "locks.waiting", 1);
    assert_ok(client_call(holder, "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    wait_for_token(next, sent);
}
END_TEST

START_TEST(a_session_that_ends_while_it_acquires_holds_nothing)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 50; i++) {
        struct client *leaving = client_open(&shared_daemon);
        client_send(leaving, "lock.acquire", "['%s', 'job', {'wait': 10}]", bucket);
        client_close(leaving);
    }
    const struct answer *answer = client_call(client, "lock.acquire", "['%s', 'job', {'wait': 100}]", bucket);
    assert_ok(answer);
    wait_for_stat(client, "locks.held", 1);
}
END_TEST

START_TEST(a_key_that_is_no_lock_keeps_others_waiting_until_it_is_deleted)
{
    struct client *client = client_open(&shared_daemon), *waiting = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "job", "by hand");
    const struct answer *answer = client_call(waiting, "lock.acquire", "['%s', 'job']", bucket);
    assert_code(answer, "locked");
    ck_assert_str_eq(text_at(&answer->error, "value"), "by hand");
    uint32_t sent = client_send(waiting, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_stat(client, "locks.waiting", 1);
    delete_key(client, bucket, "job");
    wait_for_token(waiting, sent);
}
END_TEST

/* --- The end of a session -------------------------------------------------------------------------- */

START_TEST(the_end_of_a_session_frees_its_locks_and_deletes_its_ephemeral_keys)
{
    struct client *client = client_open(&shared_daemon), *leaving = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    acquire(leaving, bucket, "job");
    assert_ok(client_call(leaving, "kv.put", "['%s', 'host.1', 'x', {'ephemeral': true}]", bucket));
    assert_ok(client_call(leaving, "kv.create", "['%s', 'host.2', 'x', {'ephemeral': true}]", bucket));
    assert_code(client_call(leaving, "kv.create", "['%s', 'host.2', 'x', {'ephemeral': true}]", bucket),
                "already_exists");
    put_text(leaving, bucket, "stays", "x");
    wait_for_stat(client, "locks.held", 3);
    client_close(leaving);
    wait_until_absent(client, bucket, "host.1");
    wait_until_absent(client, bucket, "host.2");
    acquire(client, bucket, "job");
    ck_assert_uint_eq(count_at(&client_call(client, "kv.keys", "['%s']", bucket)->result, ""), 2);
    wait_for_stat(client, "locks.held", 1);
}
END_TEST

START_TEST(an_ephemeral_key_can_be_written_again)
{
    struct client *client = client_open(&shared_daemon), *leaving = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 10; i++)
        assert_ok(client_call(leaving, "kv.put", "['%s', 'host', 'load %u', {'ephemeral': true}]", bucket, i));
    wait_for_stat(client, "locks.held", 1);
    client_expect_nothing(leaving);
    client_close(leaving);
    wait_until_absent(client, bucket, "host");
}
END_TEST

START_TEST(a_later_write_makes_an_ephemeral_key_an_ordinary_one)
{
    struct client *client = client_open(&shared_daemon), *leaving = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(leaving, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));
    assert_ok(client_call(leaving, "kv.put", "['%s', 'last', 'x', {'ephemeral': true}]", bucket));
    put_text(client, bucket, "host", "ordinary");
    wait_for_stat(client, "locks.held", 1);
    client_close(leaving);
    wait_until_absent(client, bucket, "last");
    ck_assert_str_eq(text_at(&client_call(client, "kv.get", "['%s', 'host']", bucket)->result, "value"), "ordinary");
}
END_TEST

START_TEST(an_ephemeral_key_passes_to_the_session_that_wrote_it_last)
{
    struct client *first = client_open(&shared_daemon), *second = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(first, NULL);

    assert_ok(client_call(first, "kv.put", "['%s', 'host', '1', {'ephemeral': true}]", bucket));
    assert_ok(client_call(second, "kv.put", "['%s', 'host', '2', {'ephemeral': true}]", bucket));
    assert_ok(client_call(first, "kv.put", "['%s', 'mark', 'x', {'ephemeral': true}]", bucket));
    client_close(first);
    wait_until_absent(second, bucket, "mark");
    ck_assert_str_eq(text_at(&client_call(second, "kv.get", "['%s', 'host']", bucket)->result, "value"), "2");
}
END_TEST

/* --- Loss ------------------------------------------------------------------------------------------ */

START_TEST(whoever_changes_the_key_breaks_the_lock)
{
    struct client *holder = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);

    uint64_t token = acquire(holder, bucket, "job");
    delete_key(other, bucket, "job");
    expect_lost(holder, "job", token, "conflict");
    token = acquire(holder, bucket, "job");
    put_text(other, bucket, "job", "mine");
    expect_lost(holder, "job", token, "conflict");
    assert_code(client_call(holder, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token),
                "not_held");
}
END_TEST

START_TEST(the_end_of_the_bucket_is_the_end_of_its_locks)
{
    struct client *holder = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);

    uint64_t token = acquire(holder, bucket, "job");
    assert_ok(client_call(other, "bucket.purge", "['%s']", bucket));
    expect_lost(holder, "job", token, "conflict");
    token = acquire(holder, bucket, "job");
    assert_ok(client_call(other, "bucket.delete", "['%s']", bucket));
    expect_lost(holder, "job", token, "bucket_not_found");
    assert_code(client_call(holder, "lock.acquire", "['%s', 'job', {'wait': 100}]", bucket), "bucket_not_found");
}
END_TEST

START_TEST(a_bucket_with_locks_gets_no_ttl)
{
    /* The next renewal is too late to notice it. */
    daemon_start(&daemon_of_test, NULL, "locks:\n  lease_ttl: 300\n");
    struct client *holder = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(holder, NULL);

    uint64_t token = acquire(holder, bucket, "job");
    assert_code(client_call(other, "bucket.update", "['%s', {'ttl': 600}]", bucket), "unsupported");
    assert_code(client_call(other, "bucket.create", "['%s', {'ttl': 600, 'update': true}]", bucket), "unsupported");
    assert_code(client_call(other, "bucket.create", "['%s', {'ttl': 600}]", bucket), "already_exists");
    assert_ok(client_call(holder, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    assert_ok(client_call(other, "bucket.update", "['%s', {'ttl': 600, 'force': true}]", bucket));
    expect_lost(holder, "job", token, "unsupported");
    assert_code(client_call(holder, "lock.acquire", "['%s', 'job']", bucket), "unsupported");
    assert_code(client_call(holder, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket), "unsupported");
    daemon_stop(&daemon_of_test);
}
END_TEST

/*
 * The purge takes the daemon's lease away, too. A session may hear of the loss of its lock before the daemon knows that
 * the lease is gone: what is written then must not be written with that lease.
 */
START_TEST(what_a_purge_has_removed_is_had_again_at_once)
{
    struct client *holder = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);

    for (int round = 0; round < 40; round++) {
        uint64_t token = acquire(holder, bucket, "job");
        assert_ok(client_call(other, "bucket.purge", "['%s']", bucket));
        expect_lost(holder, "job", token, "conflict");
        assert_ok(client_call(holder, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));
        assert_ok(client_call(holder, "kv.delete", "['%s', 'host']", bucket));
        client_wait_notification(holder, 0); /* of the key */
    }
}
END_TEST

START_TEST(a_lease_that_cannot_be_renewed_is_lost_in_time)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), LEASE_SECTION);
    struct client *holder = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(holder, NULL);

    uint64_t token = acquire(holder, bucket, "job");
    assert_ok(client_call(holder, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));
    const struct answer *answer =
        client_call(holder, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token);
    assert_ok(answer);
    nats_server_freeze(&server);
    struct notification *first = client_wait_notification(holder, 0), *second = client_wait_notification(holder, 0);
    ck_assert_str_eq(text_at(&first->params, "3.code"), "unavailable");
    ck_assert_str_eq(text_at(&second->params, "3.code"), "unavailable");
    ck_assert_str_ne(text_at(&first->params, "1"), text_at(&second->params, "1"));
    assert_code(client_call(holder, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token),
                "not_held");
    nats_server_thaw(&server);
    wait_until_absent(holder, bucket, "host");
    answer = client_call(holder, "lock.acquire", "['%s', 'job', {'wait': 100}]", bucket);
    assert_ok(answer);
    ck_assert_uint_gt(number_at(&answer->result, "token"), token);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

static void wait_for_renewals(struct client *client, unsigned count)
{
    uint64_t before = stat_of(client, "locks.renewals"), end_ms = now_ms() + PATIENCE_MS;

    while (stat_of(client, "locks.renewals") < before + count) {
        ck_assert_uint_lt(now_ms(), end_ms);
        pause_shortly();
    }
}

/* The daemon deletes the key of a lost lock after some time. By then the bucket may have another key of that revision.
 */
START_TEST(what_is_written_to_a_recreated_bucket_is_not_taken_for_a_lost_lock)
{
    struct client *holder = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);

    uint64_t token = acquire(holder, bucket, "job");
    ck_assert_uint_eq(token, 2);
    assert_ok(client_call(other, "bucket.delete", "['%s']", bucket));
    assert_ok(client_call(other, "bucket.create", "['%s']", bucket));
    put_text(other, bucket, "first", "x");
    put_text(other, bucket, "job", "precious");
    ck_assert_uint_eq(number_at(&client_call(other, "kv.get", "['%s', 'job']", bucket)->result, "revision"), token);
    expect_lost(holder, "job", token, NULL); /* the daemon may have looked before or after the bucket was created */
    acquire(other, bucket, "another");
    wait_for_renewals(other, 4); /* longer than the lease of the lost lock can have been vouched for */
    const struct answer *answer = client_call(other, "kv.get", "['%s', 'job']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "precious");
}
END_TEST

/* The session of the lost lock has ended, so its key is deleted before valid_for is over. */
START_TEST(a_daemon_that_ends_does_not_keep_lost_locks)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "locks:\n  lease_ttl: 3600\n");
    daemon_start(&other_daemon, nats_server_section(&server), "locks:\n  lease_ttl: 3600\n");
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);

    acquire(here, bucket, "job");
    daemon_configure(&daemon_of_test, nats_server_section(&server),
                     "locks:\n  lease_ttl: 3600\naccess:\n  - {buckets: [\"*\"], allow: read}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    ck_assert_str_eq(client_wait_notification(here, 0)->method, "lock.lost");
    assert_code(client_call(there, "lock.acquire", "['%s', 'job']", bucket), "locked");
    daemon_stop(&daemon_of_test);
    assert_ok(client_call(there, "lock.acquire", "['%s', 'job', {'wait': 100}]", bucket));
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

/* They have waited for the lease of the daemon, and now get it together. A slow turn would be in the log. */
START_TEST(thousands_of_keys_that_waited_for_the_lease_are_written_without_a_slow_turn)
{
    enum { SESSIONS = 4, KEYS = 3000 };
    struct client *clients[SESSIONS], *other;
    uint32_t sent[SESSIONS][KEYS];

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "calls:\n  timeout: 60\n");
    other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(other, NULL);
    nats_server_freeze(&server);
    for (unsigned i = 0; i < SESSIONS; i++) {
        clients[i] = client_open(&daemon_of_test);
        for (unsigned j = 0; j < KEYS; j++)
            sent[i][j] = client_send(clients[i], "kv.put", "['%s', 'k%u.%u', '', {'ephemeral': true}]", bucket, i, j);
    }
    wait_for_stat(other, "calls_in_flight", SESSIONS * KEYS + 1); /* and daemon.stats itself */
    nats_server_thaw(&server);
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned j = 0; j < KEYS; j++)
            assert_ok(client_wait(clients[i], sent[i][j]));
    }
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* All at once would be more than the server can answer in time, and the leases of others could not be renewed. */
START_TEST(the_keys_of_many_buckets_are_deleted_a_few_at_a_time)
{
    enum { BUCKETS = 40, KEYS = 40, IN_PROGRESS_MAX = 800 };
    static uint32_t sent[BUCKETS][KEYS];
    const char *buckets[BUCKETS];

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "calls:\n  timeout: 60\nlocks:\n  lease_ttl: 600\n");
    struct client *holder = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    for (unsigned i = 0; i < BUCKETS; i++) {
        buckets[i] = client_new_bucket(holder, NULL);
        for (unsigned j = 0; j < KEYS; j++)
            sent[i][j] = client_send(holder, "kv.put", "['%s', 'k%u', '', {'ephemeral': true}]", buckets[i], j);
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (unsigned j = 0; j < KEYS; j++)
            assert_ok(client_wait(holder, sent[i][j]));
    }
    nats_server_freeze(&server);
    client_close(holder);
    wait_for_stat(other, "locks.held", 0);
    const struct answer *dump = client_call(other, "daemon.dump", "[]");
    assert_ok(dump);
    ck_assert_uint_gt(number_at(&dump->result, "requests.count"), BUCKETS);
    ck_assert_uint_le(number_at(&dump->result, "requests.count"), IN_PROGRESS_MAX);
    nats_server_thaw(&server);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (unsigned j = 0; j < KEYS; j++)
            wait_until_absent(other, buckets[i], format_text("k%u", j));
    }
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* --- Owners ---------------------------------------------------------------------------------------- */

START_TEST(an_owner_comes_back_to_its_lock)
{
    struct client *client = client_open(&shared_daemon), *owner = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);
    const char *acquire_it = "['%s', 'job', {'owner': '%s', 'wait': %u}]";

    uint64_t token =
        number_at(&client_call(owner, "lock.acquire", acquire_it, bucket, "owner-0001", 0)->result, "token");
    client_close(owner);
    assert_code(client_call(client, "lock.acquire", "['%s', 'job']", bucket), "locked");
    assert_code(client_call(client, "lock.acquire", acquire_it, bucket, "owner-0002", 0), "locked");
    owner = client_open(&shared_daemon);
    ck_assert_uint_eq(
        number_at(&client_call(owner, "lock.acquire", acquire_it, bucket, "owner-0001", 0)->result, "token"), token);
    /* From a new session, while the daemon does not know that the former one has ended. */
    struct client *again = client_open(&shared_daemon);
    ck_assert_uint_eq(
        number_at(&client_call(again, "lock.acquire", acquire_it, bucket, "owner-0001", 0)->result, "token"), token);
    expect_lost(owner, "job", token, "not_held");
    client_close(owner);
    assert_ok(client_call(again, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    /* An owner that does not come back is waited for, but not for longer than a lease. */
    client_close(again);
    ck_assert_uint_gt(
        number_at(&client_call(client, "lock.acquire", acquire_it, bucket, "owner-0002", 100)->result, "token"), token);
}
END_TEST

START_TEST(a_session_that_acquires_twice_for_an_owner_holds_it_once)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (uint32_t i = 0; i < 2; i++)
        pack_request(&buffer, 1000 + i, "lock.acquire", "['%s', 'job', {'owner': 'owner-0001', 'wait': 100}]", bucket);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    const struct answer *first = client_wait(client, 1000);
    assert_ok(first);
    uint64_t token = number_at(&first->result, "token");
    const struct answer *second = client_wait(client, 1001);
    assert_code(second, "conflict");
    ck_assert_uint_eq(number_at(&second->error, "revision"), token);
    assert_ok(client_call(client, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    ck_assert_ptr_null(client_find_notification(client, 0));
}
END_TEST

START_TEST(an_owner_does_not_wait_behind_others_for_its_own_lock)
{
    struct client *owner = client_open(&shared_daemon), *waiting = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(owner, NULL);
    const char *acquire_it = "['%s', 'job', {'owner': 'owner-0001', 'wait': %u}]";

    uint64_t token = number_at(&client_call(owner, "lock.acquire", acquire_it, bucket, 0)->result, "token");
    uint32_t sent = client_send(waiting, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_stat(owner, "locks.waiting", 1);
    client_close(owner);
    owner = client_open(&shared_daemon);
    ck_assert_uint_eq(number_at(&client_call(owner, "lock.acquire", acquire_it, bucket, 0)->result, "token"), token);
    ck_assert(!client_has(waiting, sent));
    assert_ok(client_call(owner, "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    wait_for_token(waiting, sent);
}
END_TEST

/* The answer of a holder's key cannot be read either. */
START_TEST(an_acquisition_ends_with_its_timeout)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "locks:\n  lease_ttl: 60\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    nats_server_freeze(&server);
    uint64_t sent_ms = now_ms();
    assert_code(client_call(client, "lock.acquire", "['%s', 'job', {'timeout': 0.5}]", bucket), "deadline_exceeded");
    assert_at_once(sent_ms);
    nats_server_thaw(&server);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* Nobody can be told what it says of itself. */
START_TEST(a_key_that_is_too_large_for_a_lock_is_locked)
{
    struct client *holder = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(holder, NULL);
    char large[1100];

    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    assert_ok(client_call(holder, "kv.put", "['%s', 'here', '%s', {'ephemeral': true}]", bucket, large));
    assert_code(client_call(other, "lock.acquire", "['%s', 'here']", bucket), "locked");
    assert_code(client_call(other, "lock.acquire", "['%s', 'here', {'wait': 0.2}]", bucket), "locked");
}
END_TEST

START_TEST(a_release_ends_with_its_timeout)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "locks:\n  lease_ttl: 60\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t token = acquire(client, bucket, "job");

    nats_server_freeze(&server);
    const struct answer *answer =
        client_call(client, "lock.release", "['%s', 'job', %llu, {'timeout': 0.5}]", bucket, (unsigned long long)token);
    assert_code(answer, "deadline_exceeded");
    ck_assert_str_eq(answer_outcome(answer), "unknown");
    nats_server_thaw(&server);
    wait_until_absent(client, bucket, "job");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(an_ephemeral_key_that_others_delete_is_lost)
{
    struct client *client = client_open(&shared_daemon), *other = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t revision = revision_of(client_call(client, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));

    delete_key(other, bucket, "host");
    expect_lost(client, "host", revision, "conflict");
}
END_TEST

START_TEST(a_killed_daemon_leaves_nothing_but_what_waits_for_its_owner)
{
    daemon_start(&daemon_of_test, NULL, "locks:\n  lease_ttl: 20\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    acquire(client, bucket, "job");
    assert_ok(client_call(client, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));
    uint64_t token = number_at(
        &client_call(client, "lock.acquire", "['%s', 'mine', {'owner': 'owner-0001'}]", bucket)->result, "token");
    put_text(client, bucket, "stays", "x");
    client_close(client);
    process_kill(&daemon_of_test.process);
    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);
    ck_assert_uint_eq(
        number_at(&client_call(client, "lock.acquire", "['%s', 'mine', {'owner': 'owner-0001', 'wait': 100}]", bucket)
                       ->result,
                  "token"),
        token);
    wait_until_absent(client, bucket, "host");
    const struct answer *answer = client_call(client, "lock.acquire", "['%s', 'job', {'wait': 10}]", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&client_call(client, "kv.get", "['%s', 'stays']", bucket)->result, "value"), "x");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_daemon_that_ends_deletes_first_what_its_sessions_held)
{
    daemon_start(&daemon_of_test, NULL, LEASE_SECTION);
    struct client *client = client_open(&daemon_of_test), *waiting = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    acquire(client, bucket, "job");
    for (unsigned i = 0; i < 300; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'host.%u', 'x', {'ephemeral': true}]", bucket, i));
    uint32_t sent = client_send(waiting, "lock.acquire", "['%s', 'job', {'wait': 1000000}]", bucket);
    wait_for_stat(client, "locks.waiting", 1);
    daemon_stop(&daemon_of_test);
    assert_code(client_wait(waiting, sent), "unavailable");
    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);
    ck_assert_uint_eq(count_at(&client_call(client, "kv.keys", "['%s']", bucket)->result, ""), 0);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Several daemons ------------------------------------------------------------------------------- */

static void start_two_daemons(void)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), LEASE_SECTION);
    daemon_start(&other_daemon, nats_server_section(&server), LEASE_SECTION);
}

START_TEST(who_does_not_wait_behind_others_hears_of_the_holder)
{
    static const char *const call = "['%s', 'job', {'wait': %u}]";

    start_two_daemons();
    struct client *holders[] = {client_open(&daemon_of_test), client_open(&other_daemon)};
    struct client *first = client_open(&daemon_of_test), *second = client_open(&daemon_of_test);
    for (size_t i = 0; i < 2; i++) {
        const char *bucket = client_new_bucket(holders[i], NULL);
        assert_ok(client_call(holders[i], "lock.acquire", "['%s', 'job', {'value': 'the holder'}]", bucket));
        uint32_t waiting = client_send(first, "lock.acquire", call, bucket, 100);
        wait_for_stat(second, "locks.waiting", 1);
        const struct answer *answer;
        do { /* the first in line may just be looking */
            answer = client_call(second, "lock.acquire", call, bucket, 0);
            assert_code(answer, "locked");
        } while (find_at(&answer->error, "value") == NULL);
        ck_assert_str_eq(text_at(&answer->error, "value"), "the holder");
        client_close(holders[i]);
        assert_ok(client_wait(first, waiting));
    }
    daemon_stop(&daemon_of_test);
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_release_is_heard_of_on_other_hosts_at_once)
{
    start_two_daemons();
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);
    uint64_t token = acquire(here, bucket, "job");

    for (unsigned i = 0; i < 10; i++) {
        struct client *holder = i % 2 == 0 ? here : there, *next = i % 2 == 0 ? there : here;
        assert_code(client_call(next, "lock.acquire", "['%s', 'job']", bucket), "locked");
        uint32_t sent = client_send(next, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
        wait_for_stat(next, "locks.waiting", 1);
        assert_ok(client_call(holder, "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
        uint64_t following = wait_for_token(next, sent);
        ck_assert_uint_gt(following, token);
        token = following;
    }
    daemon_stop(&daemon_of_test);
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

/* The other host has no lock in the bucket, and does not refuse it. Nothing is written to the bucket. */
START_TEST(a_ttl_that_another_host_has_set_ends_locks)
{
    start_two_daemons();
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);
    uint64_t token = acquire(here, bucket, "job");

    assert_ok(client_call(there, "bucket.update", "['%s', {'ttl': 600}]", bucket));
    expect_lost(here, "job", token, "unsupported");
    assert_code(client_call(here, "lock.acquire", "['%s', 'job']", bucket), "unsupported");
    daemon_stop(&daemon_of_test);
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

START_TEST(the_locks_and_keys_of_a_dead_daemon_pass_to_others)
{
    start_two_daemons();
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);
    uint64_t token = acquire(here, bucket, "job");

    assert_ok(client_call(here, "kv.put", "['%s', 'host.1', 'x', {'ephemeral': true}]", bucket));
    assert_ok(client_call(there, "kv.put", "['%s', 'host.2', 'x', {'ephemeral': true}]", bucket));
    uint32_t sent = client_send(there, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_stat(there, "locks.waiting", 1);
    process_kill(&daemon_of_test.process);
    ck_assert_uint_gt(wait_for_token(there, sent), token);
    wait_until_absent(there, bucket, "host.1");
    ck_assert_uint_eq(stat_of(there, "locks.declared_dead"), 1);
    ck_assert_str_eq(text_at(&client_call(there, "kv.get", "['%s', 'host.2']", bucket)->result, "value"), "x");
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

START_TEST(the_keys_of_a_dead_daemon_are_deleted_though_nobody_waits)
{
    start_two_daemons();
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);

    assert_ok(client_call(here, "kv.put", "['%s', 'host.1', 'x', {'ephemeral': true}]", bucket));
    assert_ok(client_call(there, "kv.put", "['%s', 'host.2', 'x', {'ephemeral': true}]", bucket));
    process_kill(&daemon_of_test.process);
    wait_until_absent(there, bucket, "host.1");
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_stopped_daemon_loses_its_locks_to_another_one)
{
    start_two_daemons();
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);
    uint64_t token = acquire(here, bucket, "job");

    process_signal(&daemon_of_test.process, SIGSTOP);
    const struct answer *answer = client_call(there, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    assert_ok(answer);
    uint64_t second = number_at(&answer->result, "token");
    ck_assert_uint_gt(second, token);
    process_signal(&daemon_of_test.process, SIGCONT);
    struct notification *lost = client_wait_notification(here, 0);
    ck_assert_str_eq(lost->method, "lock.lost");
    ck_assert_uint_eq(number_at(&lost->params, "2"), token);
    assert_ok(client_call(there, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)second));
    daemon_stop(&daemon_of_test);
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

/* The holder may not have read lock.lost when a client of another host wants the lock. */
START_TEST(a_lock_that_new_rules_take_away_is_free_when_its_time_is_over)
{
    start_two_daemons();
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);
    uint64_t token = acquire(here, bucket, "job");

    assert_ok(client_call(here, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));
    daemon_configure(&daemon_of_test, nats_server_section(&server),
                     LEASE_SECTION "access:\n  - {buckets: [\"*\"], allow: read}\n");
    uint64_t checked_ms = now_ms();
    const struct answer *answer =
        client_call(here, "lock.check", "['%s', 'job', %llu]", bucket, (unsigned long long)token);
    assert_ok(answer);
    uint64_t vouched_ms = checked_ms + (uint64_t)(double_at(&answer->result, "valid_for") * 1e3);
    process_signal(&daemon_of_test.process, SIGHUP);
    for (unsigned i = 0; i < 2; i++) {
        struct notification *lost = client_wait_notification(here, 0);
        ck_assert_str_eq(lost->method, "lock.lost");
        ck_assert_str_eq(text_at(&lost->params, "3.code"), "permission_denied");
    }
    wait_until_absent(there, bucket, "host");
    assert_ok(client_call(there, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket));
    ck_assert_uint_ge(now_ms(), vouched_ms);
    daemon_stop(&daemon_of_test);
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

/* The error locked has the holder's value. If new access rules deny the bucket, the waiting call must fail without it.
 */
START_TEST(a_wait_that_new_rules_deny_tells_nothing_of_the_holder)
{
    enum { WAIT_S = 4 };

    start_two_daemons();
    struct client *here = client_open(&daemon_of_test), *there = client_open(&other_daemon);
    const char *bucket = client_new_bucket(here, NULL);

    assert_ok(client_call(there, "lock.acquire", "['%s', 'job', {'value': 'secret'}]", bucket));
    uint64_t begin_ms = now_ms();
    uint32_t wait = client_send(here, "lock.acquire", "['%s', 'job', {'wait': %u}]", bucket, WAIT_S);
    daemon_configure(&daemon_of_test, nats_server_section(&server),
                     LEASE_SECTION "access:\n  - {buckets: [\"*\"], allow: none}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    while (strcmp(answer_code(client_call(here, "kv.get", "['%s', 'job']", bucket)), "permission_denied") != 0)
        pause_shortly();
    bool was_in_time = now_ms() - begin_ms < WAIT_S * 1000;
    const struct answer *answer = client_wait(here, wait);
    if (was_in_time) {
        assert_code(answer, "permission_denied");
        ck_assert_ptr_null(find_at(&answer->error, "value"));
    }
    daemon_stop(&daemon_of_test);
    daemon_stop(&other_daemon);
    nats_server_stop(&server);
}
END_TEST

/* The copy of an ephemeral key in a bucket with sources names a lease of the other bucket. */
START_TEST(copies_of_ephemeral_keys_are_not_those_of_a_dead_daemon)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);
    const char *all =
        client_new_bucket(client, format_text("'sources': [{'bucket': '%s', 'filter': 'services.>'}]", bucket));

    acquire(client, all, "job");
    assert_ok(client_call(client, "kv.put", "['%s', 'services.a', 'here', {'ephemeral': true}]", bucket));
    wait_until(client_call(client, "kv.get", "['%s', 'services.a']", all)->result.type != MSGPACK_OBJECT_NIL,
               "the copy of the key");
    wait_for_renewals(client, 16); /* of two leases: in more than two TTLs */
    ck_assert_int_ne(client_call(client, "kv.get", "['%s', 'services.a']", all)->result.type, MSGPACK_OBJECT_NIL);
    assert_code(client_call(client, "lock.acquire", "['%s', 'services.a']", all), "locked");
}
END_TEST

/* --- Limits ---------------------------------------------------------------------------------------- */

START_TEST(wrong_arguments_are_refused)
{
    struct client *client = client_open(&shared_daemon);
    const char *bucket = client_new_bucket(client, NULL);

    assert_code(client_call(client, "lock.acquire", "['%s', '_kvstored.lease.x']", bucket), "invalid_argument");
    assert_code(client_call(client, "lock.acquire", "['%s', 'job', {'wait': -1}]", bucket), "invalid_argument");
    assert_code(client_call(client, "lock.acquire", "['%s', 'job', {'wait': 2e9}]", bucket), "invalid_argument");
    assert_code(client_call(client, "lock.acquire", "['%s', 'job', {'owner': 'short'}]", bucket), "invalid_argument");
    assert_code(client_call(client, "lock.acquire", "['%s', 'job', {'owner': 'with a blank'}]", bucket),
                "invalid_argument");
    assert_code(client_call(client, "lock.acquire", "['%s', 'job', {'value': '%01025d'}]", bucket, 0), "too_large");
    assert_code(client_call(client, "lock.release", "['%s', 'job', 'x']", bucket), "invalid_argument");
    assert_code(client_call(client, "lock.release", "['%s', 'job', 1]", bucket), "not_held");
    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'ephemeral': true, 'ttl': 5}]", bucket),
                "invalid_argument");
    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'ephemeral': true, 'id': 'an-id-of-8'}]", bucket),
                "invalid_argument");
    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'headers': {'Kvstored-Lease': 'x'}}]", bucket),
                "invalid_argument");
    assert_code(client_call(client, "lock.acquire", "['no-such-bucket', 'job', {'wait': 100}]"), "bucket_not_found");
    wait_for_stat(client, "locks.waiting", 0);
    wait_for_stat(client, "locks.held", 0);
}
END_TEST

START_TEST(locks_and_waits_are_limited)
{
    daemon_start(&daemon_of_test, NULL, "locks:\n  max: 10\n  max_per_session: 4\nlimits:\n  user_percent: 100\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    struct client *third = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 4; i++)
        assert_ok(client_call(client, "lock.acquire", "['%s', 'job.%u']", bucket, i));
    assert_code(client_call(client, "lock.acquire", "['%s', 'job.4']", bucket), "resource_exhausted");
    assert_code(client_call(client, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket),
                "resource_exhausted");
    for (unsigned i = 0; i < 4; i++)
        client_send(other, "lock.acquire", "['%s', 'job.0', {'wait': 1000}]", bucket);
    assert_code(client_call(other, "lock.acquire", "['%s', 'job.0', {'wait': 1000}]", bucket), "resource_exhausted");
    for (unsigned i = 0; i < 2; i++)
        client_send(third, "lock.acquire", "['%s', 'job.0', {'wait': 1000}]", bucket);
    wait_for_stat(client, "locks.waiting", 6);
    assert_code(client_call(third, "lock.acquire", "['%s', 'job.0', {'wait': 1000}]", bucket), "resource_exhausted");
    client_close(other);
    client_close(third);
    wait_for_stat(client, "locks.waiting", 0);
    other = client_open(&daemon_of_test);
    assert_ok(client_call(other, "lock.acquire", "['%s', 'job.4']", bucket));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(one_user_cannot_hold_all_locks)
{
    struct sockaddr_un address;
    socklen_t length;

    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, "locks:\n  max: 8\nlimits:\n  user_percent: 50\n");
    int listener = daemon_listen_without_file(&address, &length);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_ready(&daemon_of_test);
    struct client *client = client_open_address(&address, length), *same = client_open_address(&address, length);
    const char *bucket = client_new_bucket(client, NULL);
    const char *says =
        format_text("uid %u has 4 locks, ephemeral keys and waits for locks, and the limit of one user is "
                    "4 (limits.user_percent of locks.max)",
                    (unsigned)getuid());

    acquire(client, bucket, "job.0");
    uint64_t token = acquire(client, bucket, "job.1");
    assert_ok(client_call(client, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", bucket));
    client_send(same, "lock.acquire", "['%s', 'job.0', {'wait': 1000}]", bucket);
    wait_for_stat(client, "locks.waiting", 1);
    assert_code_says(client_call(client, "lock.acquire", "['%s', 'job.2']", bucket), "resource_exhausted", says);
    assert_code_says(client_call(same, "lock.acquire", "['%s', 'job.1', {'wait': 1000}]", bucket), "resource_exhausted",
                     says);
    assert_code_says(client_call(same, "kv.create", "['%s', 'host.2', 'x', {'ephemeral': true}]", bucket),
                     "resource_exhausted", says);
    if (geteuid() == 0) {
        struct client *other = client_open_as(OTHER_USER, &address, length);
        for (unsigned i = 0; i < 4; i++)
            acquire(other, bucket, format_text("other.%u", i));
        assert_code_says(client_call(other, "lock.acquire", "['%s', 'other.4']", bucket), "resource_exhausted",
                         "the daemon has 8 locks");
    }
    assert_ok(client_call(client, "lock.release", "['%s', 'job.1', %llu]", bucket, (unsigned long long)token));
    acquire(client, bucket, "job.2");
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

static void release(struct client *client, const char *bucket, const char *name, uint64_t token)
{
    assert_ok(client_call(client, "lock.release", "['%s', '%s', %llu]", bucket, name, (unsigned long long)token));
}

START_TEST(a_bucket_in_which_a_user_has_locks_is_one_that_the_user_watches)
{
    daemon_start(&daemon_of_test, NULL, "watches:\n  max_buckets: 4\nlimits:\n  user_percent: 50\n");
    struct client *client = client_open(&daemon_of_test);
    const char *first = client_new_bucket(client, NULL), *second = client_new_bucket(client, NULL),
               *third = client_new_bucket(client, NULL);

    uint64_t token = acquire(client, first, "job");
    acquire(client, first, "job.2");
    assert_ok(client_call(client, "kv.put", "['%s', 'host', 'x', {'ephemeral': true}]", second));
    acquire(client, third, "job"); /* does not count, and may not be followed */
    assert_code_says(client_call(client, "watch.start", "['%s']", third), "resource_exhausted",
                     "limits.user_percent of watches.max_buckets");
    release(client, first, "job", token);
    assert_code(client_call(client, "watch.start", "['%s']", third), "resource_exhausted");
    client_close(client);
    client = client_open(&daemon_of_test);
    wait_for_stat(client, "locks.held", 0);
    assert_ok(client_call(client, "watch.start", "['%s']", second));
    assert_ok(client_call(client, "watch.start", "['%s']", third));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_bucket_whose_last_lock_was_released_makes_room_for_a_watch)
{
    daemon_start(&daemon_of_test, NULL, "watches:\n  max_buckets: 2\nlimits:\n  user_percent: 100\n");
    struct client *client = client_open(&daemon_of_test);
    const char *first = client_new_bucket(client, NULL), *second = client_new_bucket(client, NULL),
               *third = client_new_bucket(client, NULL);
    uint64_t tokens[2] = {acquire(client, first, "job"), acquire(client, second, "job")};

    assert_code(client_call(client, "watch.start", "['%s']", third), "resource_exhausted");
    release(client, first, "job", tokens[0]);
    release(client, second, "job", tokens[1]);
    assert_ok(client_call(client, "watch.start", "['%s']", third));
    acquire(client, first, "job");
    acquire(client, second, "job");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_wait_for_a_lock_may_be_longer_than_any_timeout)
{
    daemon_start(&daemon_of_test, NULL, "calls:\n  timeout: 3\n  max_timeout: 3\n");
    struct client *holder = client_open(&daemon_of_test), *waiting = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(holder, NULL);
    uint64_t token = acquire(holder, bucket, "job"), start = now_ms();

    uint32_t sent = client_send(waiting, "lock.acquire", "['%s', 'job', {'wait': 1000, 'timeout': 3}]", bucket);
    assert_code(client_call(client_open(&daemon_of_test), "lock.acquire", "['%s', 'job', {'wait': 4.5}]", bucket),
                "locked");
    ck_assert_uint_ge(now_ms() - start, 4500);
    ck_assert(!client_has(waiting, sent));
    assert_ok(client_call(holder, "lock.release", "['%s', 'job', %llu]", bucket, (unsigned long long)token));
    ck_assert_uint_gt(wait_for_token(waiting, sent), token);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The end comes before calls.drain_timeout, and that before the daemon would look at the lock again by itself. */
START_TEST(waits_for_a_lock_do_not_delay_the_end_of_the_daemon)
{
    daemon_start(&daemon_of_test, NULL, "calls:\n  drain_timeout: 20\nlocks:\n  lease_ttl: 300\n");
    struct client *other = client_open(&daemon_of_test), *waiting[3];
    const char *bucket = client_new_bucket(other, NULL);
    uint32_t sent[3];

    put_text(other, bucket, "job", "no lock"); /* nothing that the daemon does when it ends frees it */
    for (unsigned i = 0; i < 3; i++) {
        waiting[i] = client_open(&daemon_of_test);
        sent[i] = client_send(waiting[i], "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    }
    wait_for_stat(other, "locks.waiting", 3);
    process_signal(&daemon_of_test.process, SIGTERM);
    for (unsigned i = 0; i < 3; i++) {
        assert_code(client_wait(waiting[i], sent[i]), "unavailable");
        client_expect_dismissal(waiting[i]);
    }
    daemon_expect_good_end(&daemon_of_test);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "not answered"));
}
END_TEST

Suite *lock_suite(void)
{
    Suite *suite = suite_create("lock");
    TCase *shared = shared_daemon_case_with(suite, "lock", locks_setup, shared_daemon_teardown);
    TCase *own = tcase_create("daemons");

    tcase_add_test(shared, a_lock_has_one_holder);
    tcase_add_test(shared, a_lock_is_a_key_that_can_be_read_and_watched);
    tcase_add_test(shared, a_lease_is_renewed_without_the_watchers);
    tcase_add_test(shared, the_token_fences_a_former_holder);
    tcase_add_test(shared, acquiring_again_in_the_same_session_is_a_conflict);
    tcase_add_test(shared, a_second_call_of_the_session_does_not_wait_behind_itself);
    tcase_add_test(shared, those_who_wait_get_the_lock_in_their_order);
    tcase_add_test(shared, a_wait_that_is_over_is_locked);
    tcase_add_test(shared, a_client_that_leaves_loses_its_place);
    tcase_add_test(shared, a_session_that_ends_while_it_acquires_holds_nothing);
    tcase_add_test(shared, a_key_that_is_no_lock_keeps_others_waiting_until_it_is_deleted);
    tcase_add_test(shared, the_end_of_a_session_frees_its_locks_and_deletes_its_ephemeral_keys);
    tcase_add_test(shared, an_ephemeral_key_can_be_written_again);
    tcase_add_test(shared, a_later_write_makes_an_ephemeral_key_an_ordinary_one);
    tcase_add_test(shared, an_ephemeral_key_passes_to_the_session_that_wrote_it_last);
    tcase_add_test(shared, whoever_changes_the_key_breaks_the_lock);
    tcase_add_test(shared, the_end_of_the_bucket_is_the_end_of_its_locks);
    tcase_add_test(shared, what_a_purge_has_removed_is_had_again_at_once);
    tcase_add_test(shared, an_owner_comes_back_to_its_lock);
    tcase_add_test(shared, an_owner_does_not_wait_behind_others_for_its_own_lock);
    tcase_add_test(shared, an_ephemeral_key_that_others_delete_is_lost);
    tcase_add_test(shared, a_key_that_is_too_large_for_a_lock_is_locked);
    tcase_add_test(shared, what_is_written_to_a_recreated_bucket_is_not_taken_for_a_lost_lock);
    tcase_add_test(shared, a_session_that_acquires_twice_for_an_owner_holds_it_once);
    tcase_add_test(own, who_does_not_wait_behind_others_hears_of_the_holder);
    tcase_add_test(own, a_daemon_that_ends_does_not_keep_lost_locks);
    tcase_add_test(own, thousands_of_keys_that_waited_for_the_lease_are_written_without_a_slow_turn);
    tcase_add_test(own, the_keys_of_many_buckets_are_deleted_a_few_at_a_time);
    tcase_add_test(own, an_acquisition_ends_with_its_timeout);
    tcase_add_test(own, a_release_ends_with_its_timeout);
    tcase_add_test(shared, wrong_arguments_are_refused);
    tcase_add_test(own, a_lease_that_cannot_be_renewed_is_lost_in_time);
    tcase_add_test(own, a_killed_daemon_leaves_nothing_but_what_waits_for_its_owner);
    tcase_add_test(own, a_daemon_that_ends_deletes_first_what_its_sessions_held);
    tcase_add_test(own, a_release_is_heard_of_on_other_hosts_at_once);
    tcase_add_test(own, a_bucket_with_locks_gets_no_ttl);
    tcase_add_test(own, a_ttl_that_another_host_has_set_ends_locks);
    tcase_add_test(own, the_locks_and_keys_of_a_dead_daemon_pass_to_others);
    tcase_add_test(own, the_keys_of_a_dead_daemon_are_deleted_though_nobody_waits);
    tcase_add_test(own, a_stopped_daemon_loses_its_locks_to_another_one);
    tcase_add_test(own, a_lock_that_new_rules_take_away_is_free_when_its_time_is_over);
    tcase_add_test(own, a_wait_that_new_rules_deny_tells_nothing_of_the_holder);
    tcase_add_test(shared, copies_of_ephemeral_keys_are_not_those_of_a_dead_daemon);
    tcase_add_test(own, locks_and_waits_are_limited);
    tcase_add_test(own, one_user_cannot_hold_all_locks);
    tcase_add_test(own, a_bucket_in_which_a_user_has_locks_is_one_that_the_user_watches);
    tcase_add_test(own, a_bucket_whose_last_lock_was_released_makes_room_for_a_watch);
    tcase_add_test(own, a_wait_for_a_lock_may_be_longer_than_any_timeout);
    tcase_add_test(own, waits_for_a_lock_do_not_delay_the_end_of_the_daemon);
    suite_add_tcase(suite, own);
    return suite;
}
