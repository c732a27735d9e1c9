/* Watches with the option snapshot: when ready comes, their entries are what the bucket held at one revision. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/watch_recorder.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_MAX  400u
#define COMMITS   4u /* in flight */
#define PUTS      64u
#define SNAPSHOTS 30u

static struct daemon daemon_of_test;
static struct nats_server server;

/* Writes to a few keys all the time. */
struct writer {
    pthread_t thread;
    const struct daemon *daemon;
    const char *bucket;
    unsigned keys;
    bool in_transactions; /* each writes all keys, with the same number */
    atomic_bool is_over;
    atomic_uint written;
    unsigned *numbers; /* by revision: what was written */
    size_t room;
};

static void writer_commit(struct writer *writer, struct client *client, unsigned first)
{
    char *operations = malloc(writer->keys * 32);
    uint32_t ids[COMMITS];

    ck_assert_ptr_nonnull(operations);
    for (unsigned i = 0; i < COMMITS; i++) {
        char *at = operations;
        for (unsigned key = 0; key < writer->keys; key++)
            at += sprintf(at, "%s['put', 'k%u', '%u']", key > 0 ? ", " : "", key, first + i);
        ids[i] = client_send(client, "txn.commit", "['%s', [], [%s]]", writer->bucket, operations);
    }
    for (unsigned i = 0; i < COMMITS; i++)
        assert_ok(client_wait(client, ids[i]));
    free(operations);
}

static void writer_note(struct writer *writer, uint64_t revision, unsigned number)
{
    if (revision >= writer->room) {
        writer->room = revision * 2;
        writer->numbers = realloc(writer->numbers, writer->room * sizeof(*writer->numbers));
        ck_assert_ptr_nonnull(writer->numbers);
    }
    writer->numbers[revision] = number;
}

/* Number n goes to key n modulo keys. */
static void writer_put(struct writer *writer, struct client *client, unsigned first)
{
    uint32_t ids[PUTS];

    for (unsigned i = 0; i < PUTS; i++)
        ids[i] =
            client_send(client, "kv.put", "['%s', 'k%u', '%u']", writer->bucket, (first + i) % writer->keys, first + i);
    for (unsigned i = 0; i < PUTS; i++)
        writer_note(writer, revision_of(client_wait(client, ids[i])), first + i);
}

static void *writer_run(void *arg)
{
    struct writer *writer = arg;
    struct client *client = client_open(writer->daemon);

    for (unsigned number = 1; !writer->is_over; number += writer->in_transactions ? COMMITS : PUTS) {
        if (writer->in_transactions)
            writer_commit(writer, client, number);
        else
            writer_put(writer, client, number);
        writer->written = number;
        client_forget(client);
    }
    client_close(client);
    return NULL;
}

static void writer_start(struct writer *writer)
{
    ck_assert_int_eq(pthread_create(&writer->thread, NULL, writer_run, writer), 0);
    while (writer->written == 0)
        pause_shortly();
}

static void writer_stop(struct writer *writer)
{
    writer->is_over = true;
    pthread_join(writer->thread, NULL);
}

/* Read a watch to ready, and return the last number of each key. Return the revision. */
static uint64_t read_snapshot(const struct daemon *daemon, const char *bucket, unsigned numbers[KEYS_MAX])
{
    struct watch_recorder *recorder = watch_recorder_open(daemon, bucket, ">", "'snapshot': true");
    uint64_t last = 0;
    enum watch_event event;

    memset(numbers, 0, KEYS_MAX * sizeof(*numbers));
    while ((event = watch_recorder_next(recorder)) == WATCH_ENTRY) {
        ck_assert_uint_gt(recorder->revision, last);
        last = recorder->revision;
        numbers[atoi(text_at(recorder->object, "key") + 1)] =
            (unsigned)strtoul(text_at(recorder->object, "value"), NULL, 10);
    }
    ck_assert_int_eq(event, WATCH_READY);
    uint64_t revision = recorder->snapshot_revision;
    ck_assert_uint_ge(revision, last);
    watch_recorder_close(recorder);
    return revision;
}

/* Each snapshot has all of a transaction or none of it. */
static void expect_whole_transactions(const struct daemon *daemon, const char *bucket)
{
    struct writer writer = {.daemon = daemon, .bucket = bucket, .keys = KEYS_MAX, .in_transactions = true};
    unsigned numbers[KEYS_MAX];

    writer_start(&writer);
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        uint64_t revision = read_snapshot(daemon, bucket, numbers);
        for (unsigned key = 1; key < KEYS_MAX; key++)
            ck_assert_msg(numbers[key] == numbers[0], "snapshot %u at revision %lu: k0 is %u and k%u is %u", i,
                          (unsigned long)revision, numbers[0], key, numbers[key]);
        ck_assert_uint_eq(revision, (uint64_t)numbers[0] * KEYS_MAX);
    }
    writer_stop(&writer);
}

START_TEST(a_snapshot_has_all_of_a_transaction_or_none_of_it)
{
    struct client *client = client_open_shared();

    expect_whole_transactions(&shared_daemon, client_new_bucket(client, NULL));
}
END_TEST

static void start_external(void)
{
    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    daemon_wait_log(&daemon_of_test, "JetStream API level");
}

static void stop_external(void)
{
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}

START_TEST(in_external_mode_a_snapshot_has_all_of_a_transaction_or_none_of_it)
{
    start_external();
    struct client *client = client_open(&daemon_of_test);
    expect_whole_transactions(&daemon_of_test, client_new_bucket(client, NULL));
    stop_external();
}
END_TEST

/* Keys that are overwritten all the time, alone and in batches of group commit: the server skips most of the values. */
static void expect_last_values(const struct daemon *daemon, unsigned keys)
{
    static unsigned numbers[SNAPSHOTS][KEYS_MAX];
    struct client *client = client_open(daemon);
    struct writer writer = {.daemon = daemon, .bucket = client_new_bucket(client, NULL), .keys = keys};
    uint64_t revisions[SNAPSHOTS], revision = 0;
    unsigned wanted[KEYS_MAX] = {0};

    writer_start(&writer);
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        revisions[i] = read_snapshot(daemon, writer.bucket, numbers[i]);
    writer_stop(&writer);
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        while (revision < revisions[i]) {
            revision++;
            wanted[writer.numbers[revision] % keys] = writer.numbers[revision];
        }
        for (unsigned key = 0; key < keys; key++)
            ck_assert_msg(numbers[i][key] == wanted[key], "snapshot %u at revision %lu: k%u is %u and not %u", i,
                          (unsigned long)revision, key, numbers[i][key], wanted[key]);
    }
    free(writer.numbers);
    client_close(client);
}

START_TEST(a_snapshot_has_the_last_value_of_each_key_at_its_revision)
{
    expect_last_values(&shared_daemon, 1);
    expect_last_values(&shared_daemon, 7);
    expect_last_values(&shared_daemon, KEYS_MAX);
}
END_TEST

START_TEST(in_external_mode_a_snapshot_has_the_last_value_of_each_key_at_its_revision)
{
    start_external();
    expect_last_values(&daemon_of_test, 1);
    expect_last_values(&daemon_of_test, 7);
    expect_last_values(&daemon_of_test, KEYS_MAX);
    stop_external();
}
END_TEST

START_TEST(a_snapshot_of_a_quiet_bucket_is_at_its_last_revision)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "a", "1");
    put_text(client, bucket, "b", "1");
    delete_key(client, bucket, "a");
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, "'snapshot': true, 'filter': 'b'");
    watch_recorder_expect(recorder, "b=1@2 ready");
    ck_assert_uint_eq(recorder->snapshot_revision, 3);
    put_text(client, bucket, "b", "2");
    watch_recorder_expect(recorder, "b=2@4"); /* it goes on like any other watch */
    recorder = watch_recorder_start(client, bucket, "'snapshot': true, 'from_revision': 3");
    watch_recorder_expect(recorder, "-a@3 b=2@4 ready");
    ck_assert_uint_eq(recorder->snapshot_revision, 4);
}
END_TEST

START_TEST(a_snapshot_of_an_empty_bucket_is_at_revision_0)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const struct answer *answer = client_call(client, "watch.start", "['%s', {'snapshot': true}]", bucket);

    assert_ok(answer);
    const struct notification *ready = client_wait_notification(client, answer->result.via.u64);
    ck_assert_str_eq(ready->method, "watch.ready");
    ck_assert_uint_eq(count_at(&ready->params, ""), 2);
    ck_assert_uint_eq(number_at(&ready->params, "1"), 0);
}
END_TEST

START_TEST(a_snapshot_of_a_bucket_whose_last_messages_are_gone_is_ready)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "a", "1");
    assert_ok(client_call(client, "txn.commit", "['%s', [], [['put', 'a', '2'], ['put', 'b', '2']]]", bucket));
    assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, "'snapshot': true");
    watch_recorder_expect(recorder, "ready");
    ck_assert_uint_eq(recorder->snapshot_revision, 3);
    put_text(client, bucket, "c", "1");
    struct watch_recorder *other = watch_recorder_start(client, bucket, "'snapshot': true");
    assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
    while (watch_recorder_next(other) == WATCH_ENTRY)
        continue;
    ck_assert_uint_eq(other->snapshot_revision, 4);
}
END_TEST

START_TEST(an_entry_has_the_ttl_of_its_value)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'a', 'v', {'ttl': 3600, 'headers': {'x': 'y'}}]", bucket));
    put_text(client, bucket, "b", "v");
    for (unsigned i = 0; i < 3; i++) {
        struct answer *answer =
            client_call(client, "kv.get", "['%s', 'a'%s]", bucket, i == 0 ? ", {'consistency': 'leader'}" : "");
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "ttl"), 3600);
        ck_assert_str_eq(text_at(&answer->result, "headers.x"), "y");
        ck_assert_uint_eq(count_at(&answer->result, "headers"), 1);
        answer = client_call(client, "kv.get", "['%s', 'b']", bucket);
        assert_ok(answer);
        ck_assert_ptr_null(find_at(&answer->result, "ttl"));
        wait_until_cached(client, bucket, "a");
    }
}
END_TEST

Suite *snapshot_suite(void)
{
    Suite *suite = suite_create("snapshot");
    TCase *tests = shared_daemon_case(suite, "snapshot");

    tcase_add_test(tests, a_snapshot_has_all_of_a_transaction_or_none_of_it);
    tcase_add_test(tests, a_snapshot_has_the_last_value_of_each_key_at_its_revision);
    tcase_add_test(tests, a_snapshot_of_a_quiet_bucket_is_at_its_last_revision);
    tcase_add_test(tests, a_snapshot_of_an_empty_bucket_is_at_revision_0);
    tcase_add_test(tests, a_snapshot_of_a_bucket_whose_last_messages_are_gone_is_ready);
    tcase_add_test(tests, an_entry_has_the_ttl_of_its_value);
    tests = tcase_create("snapshot in external mode");
    tcase_add_test(tests, in_external_mode_a_snapshot_has_the_last_value_of_each_key_at_its_revision);
    tcase_add_test(tests, in_external_mode_a_snapshot_has_all_of_a_transaction_or_none_of_it);
    suite_add_tcase(suite, tests);
    return suite;
}
