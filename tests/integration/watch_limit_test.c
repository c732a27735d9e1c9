/* Limits of watches: their number, slow readers, access, and vanished keys. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/watch_recorder.h"

#include <signal.h>
#include <string.h>

static struct daemon daemon_of_test;

START_TEST(the_number_of_watches_is_limited)
{
    daemon_start(&daemon_of_test, NULL,
                 "watches:\n  max_per_session: 3\n  max_filters: 5\n  max_buckets: 2\nlimits:\n  user_percent: 100\n");
    struct client *one = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(one, NULL), *second = client_new_bucket(one, NULL),
               *third = client_new_bucket(one, NULL);
    struct watch_recorder *recorder = NULL;

    for (unsigned i = 0; i < 3; i++)
        recorder = watch_recorder_start(one, bucket, NULL);
    assert_code_says(client_call(one, "watch.start", "['%s']", bucket), "resource_exhausted",
                     "watches.max_per_session");
    watch_recorder_start(other, second, NULL);
    assert_code_says(client_call(other, "watch.start", "['%s']", third), "resource_exhausted", "watches.max_buckets");
    assert_code_says(client_call(other, "watch.start", "['%s', {'filter': 'a.b.c.d.>'}]", bucket), "resource_exhausted",
                     "watches.max_filters");
    watch_recorder_start(other, bucket, "'filter': 'a.b.c.d.e'");
    assert_code_says(client_call(other, "watch.start", "['%s']", bucket), "resource_exhausted", "watches.max_filters");
    watch_recorder_stop(recorder);
    watch_recorder_start(other, bucket, NULL);
    client_close(other);
    wait_for_stat(one, "watches.open", 2);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_name_that_no_bucket_has_takes_no_room_of_followed_buckets)
{
    msgpack_sbuffer requests;

    daemon_start(&daemon_of_test, NULL,
                 "watches:\n  max_buckets: 2\nlimits:\n  user_percent: 100\ncache:\n  buckets: [kept]\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    assert_ok(client_call(client, "bucket.create", "['kept']"));
    wait_for_stat(client, "watches.buckets", 1);
    msgpack_sbuffer_init(&requests);
    pack_request(&requests, 0, "watch.start", "['none']");
    pack_request(&requests, 1, "watch.start", "['%s']", bucket);
    client_write(client, requests.data, requests.size);
    msgpack_sbuffer_destroy(&requests);
    assert_code(client_wait(client, 0), "bucket_not_found");
    assert_ok(client_wait(client, 1));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(one_user_watches_a_share_of_the_followed_buckets)
{
    daemon_start(&daemon_of_test, NULL, "watches:\n  max_buckets: 4\nlimits:\n  user_percent: 50\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *first = client_new_bucket(client, NULL), *second = client_new_bucket(client, NULL),
               *third = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 3; i++)
        watch_recorder_start(client, first, NULL);
    struct watch_recorder *recorder = watch_recorder_start(other, second, NULL);
    assert_code_says(client_call(client, "watch.start", "['%s']", third), "resource_exhausted",
                     "limits.user_percent of watches.max_buckets");
    assert_code_says(client_call(client, "kv.get", "['%s', 'k', {'wait_above': 1}]", third), "resource_exhausted",
                     "limits.user_percent of watches.max_buckets");
    watch_recorder_stop(recorder);
    watch_recorder_start(client, third, NULL);
    client_send(client, "kv.get", "['%s', 'k', {'wait_above': 0}]", third); /* waits in a bucket that counts already */
    assert_code(client_call(other, "watch.start", "['%s']", second), "resource_exhausted");
    client_close(client);
    wait_for_stat(other, "watches.open", 0);
    watch_recorder_start(other, second, NULL);
    watch_recorder_start(other, third, NULL);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_thousand_watches_share_one_consumer)
{
    enum { SESSIONS = 10, EACH = 100 };
    struct watch_recorder *watches[SESSIONS * EACH];

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    put_text(client, bucket, "a", "1");
    for (size_t session = 0; session < SESSIONS; session++) {
        struct client *watcher = client_open(&daemon_of_test);
        for (size_t i = 0; i < EACH; i++)
            watches[session * EACH + i] =
                watch_recorder_start(watcher, bucket, i % 2 == 0 ? "'updates_only': true" : "'filter': 'a'");
    }
    for (size_t i = 0; i < SESSIONS * EACH; i++)
        watch_recorder_expect(watches[i], i % 2 == 0 ? "ready" : "a=1@1 ready");
    put_text(client, bucket, "a", "2");
    for (size_t i = 0; i < SESSIONS * EACH; i++)
        watch_recorder_expect(watches[i], "a=2@2");
    struct nats *nats = nats_connect_embedded(daemon_of_test.data_dir);
    /* Consumers of the first readings may be about to be removed. */
    wait_until(nats_consumer_count(nats, bucket) == 1, "the one consumer");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_client_that_does_not_read_gets_the_revision_to_resume_from_and_delays_nobody)
{
    enum { PUTS = 3000, AT_ONCE = 100 };

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 64K\n");
    struct client *writer = client_open(&daemon_of_test), *slow = client_open(&daemon_of_test),
                  *fast = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, NULL);
    struct watch_recorder *sleeps = watch_recorder_start(slow, bucket, NULL),
                          *reads = watch_recorder_start(fast, bucket, NULL);
    uint64_t last = 0;

    watch_recorder_expect(sleeps, "ready");
    watch_recorder_expect(reads, "ready");
    for (unsigned i = 0; i < PUTS; i += AT_ONCE) {
        put_many(writer, bucket, "k", i, AT_ONCE, 300);
        while (last < i + AT_ONCE) {
            ck_assert_int_eq(watch_recorder_next(reads), WATCH_ENTRY);
            ck_assert_uint_eq(reads->revision, ++last);
        }
    }
    last = 0;
    enum watch_event event;
    while ((event = watch_recorder_next(sleeps)) == WATCH_ENTRY)
        ck_assert_uint_eq(sleeps->revision, ++last);
    ck_assert_int_eq(event, WATCH_ENDED);
    ck_assert_str_eq(text_at(sleeps->object, "code"), "resource_exhausted");
    ck_assert_uint_eq(number_at(sleeps->object, "revision"), last + 1);
    struct watch_recorder *again =
        watch_recorder_start(slow, bucket, format_text("'from_revision': %u", (unsigned)last + 1));
    while (last < PUTS) {
        ck_assert_int_eq(watch_recorder_next(again), WATCH_ENTRY);
        ck_assert_uint_eq(again->revision, ++last);
    }
    watch_recorder_expect(again, "ready");
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Vanished keys have no message that could be delivered again. */
START_TEST(a_client_that_does_not_read_while_keys_vanish_must_start_over)
{
    enum { KEYS = 20000, AT_ONCE = 1000 };

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 64K\n");
    struct client *writer = client_open(&daemon_of_test), *slow = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, NULL);
    for (unsigned i = 0; i < KEYS; i += AT_ONCE)
        put_many(writer, bucket, "k", i, AT_ONCE, 10);
    struct watch_recorder *sleeps = watch_recorder_start(slow, bucket, NULL);
    watch_recorder_text_to_ready(sleeps);
    assert_ok(client_call(writer, "bucket.purge", "['%s']", bucket));
    wait_until(stat_of(writer, "watches.ended") == 1, "the end of the watch");
    enum watch_event event;
    unsigned told = 0;
    while ((event = watch_recorder_next(sleeps)) == WATCH_ENTRY)
        told++;
    ck_assert_uint_lt(told, KEYS);
    ck_assert_int_eq(event, WATCH_ENDED);
    ck_assert_str_eq(text_at(sleeps->object, "code"), "revision_gone");
    ck_assert_ptr_null(find_at(sleeps->object, "revision"));

    /* Nor does any earlier revision. */
    static const unsigned revisions[] = {2, KEYS / 2, KEYS, KEYS + 1};
    for (size_t i = 0; i < sizeof(revisions) / sizeof(revisions[0]); i++) {
        struct answer *answer = client_call(slow, "watch.start", "['%s', {'from_revision': %u}]", bucket, revisions[i]);
        assert_code_says(answer, "revision_gone", "without from_revision");
    }
    put_text(writer, bucket, "new", "x");
    struct watch_recorder *anew = watch_recorder_start(slow, bucket, NULL);
    watch_recorder_expect(anew, format_text("new=x@%u ready", KEYS + 1));
    struct watch_recorder *later = watch_recorder_start(slow, bucket, format_text("'from_revision': %u", KEYS + 2));
    watch_recorder_expect(later, "ready");
    struct watch_recorder *first = watch_recorder_start(slow, bucket, "'from_revision': 1");
    watch_recorder_expect(first, format_text("new=x@%u ready", KEYS + 1));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* More than watches.buffer_bytes, while other keys are written. */
START_TEST(a_large_bucket_is_delivered_completely_during_writes)
{
    enum { KEYS = 20000, AT_ONCE = 1000 };

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 256K\n");
    struct client *writer = client_open(&daemon_of_test), *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, NULL);
    for (unsigned i = 0; i < KEYS; i += AT_ONCE)
        put_many(writer, bucket, "k", i, AT_ONCE, 100);
    for (unsigned round = 0; round < 2; round++) {
        struct watch_recorder *recorder = watch_recorder_start(client, bucket, NULL);
        uint64_t last = 0, entries = 0, wanted = 0;
        enum watch_event event;
        while ((event = watch_recorder_next(recorder)) == WATCH_ENTRY) {
            ck_assert_uint_gt(recorder->revision, last);
            last = recorder->revision;
            if (++entries % 1000 == 0 && entries <= KEYS)
                wanted = put_text(writer, bucket, format_text("new%u", (unsigned)entries), "v");
        }
        ck_assert_msg(event == WATCH_READY, "%s", object_text(recorder->object));
        ck_assert_uint_ge(entries, KEYS);
        while (last < wanted) {
            ck_assert_int_eq(watch_recorder_next(recorder), WATCH_ENTRY);
            ck_assert_uint_gt(recorder->revision, last);
            last = recorder->revision;
        }
        watch_recorder_stop(recorder);
        wait_until_cached(writer, bucket, "k000001");
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_watch_needs_read_access_and_ends_with_it)
{
    static const char open[] = "access:\n  - {buckets: [\"hidden\"], allow: none}\n"
                               "  - {buckets: [\"*\"], allow: admin}\n";

    daemon_start(&daemon_of_test, NULL, open);
    struct client *client = client_open(&daemon_of_test);
    assert_code(client_call(client, "watch.start", "['hidden']"), "permission_denied");
    assert_ok(client_call(client, "bucket.create", "['stays']"));
    assert_ok(client_call(client, "bucket.create", "['goes']"));
    struct watch_recorder *stays = watch_recorder_start(client, "stays", NULL),
                          *goes = watch_recorder_start(client, "goes", NULL);
    watch_recorder_expect(stays, "ready");
    watch_recorder_expect(goes, "ready");
    daemon_configure(&daemon_of_test, NULL, "access:\n  - {buckets: [stays], allow: admin}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    watch_recorder_expect_end(goes, "permission_denied");
    put_text(client, "stays", "a", "1");
    watch_recorder_expect(stays, "a=1@1");
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The keys a and b must be delivered as deleted, in any order. */
static void expect_both_deleted(struct watch_recorder *recorder)
{
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(watch_recorder_next(recorder), WATCH_ENTRY);
        ck_assert_str_eq(text_at(recorder->object, "operation"), "delete");
        ck_assert_str_eq(text_at(recorder->object, "value"), "");
        ck_assert_uint_eq(strlen(text_at(recorder->object, "key")), 1);
    }
}

START_TEST(keys_that_vanish_are_delivered_as_deleted)
{
    daemon_start(&daemon_of_test, NULL, "watches:\n  reconcile_interval: 0.2\n");
    struct client *client = client_open(&daemon_of_test);
    struct nats *nats = nats_connect_embedded(daemon_of_test.data_dir);
    const char *bucket = client_new_bucket(client, "'limit_marker_ttl': 0");
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, NULL);

    watch_recorder_expect(recorder, "ready");
    put_text(client, bucket, "a", "1");
    put_text(client, bucket, "b", "1");
    watch_recorder_expect(recorder, "a=1@1 b=1@2");
    assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
    expect_both_deleted(recorder);
    put_text(client, bucket, "a", "2");
    put_text(client, bucket, "b", "2");
    watch_recorder_expect(recorder, "a=2@3 b=2@4");
    nats_api(nats, "STREAM.PURGE", format_text("KV_%s", bucket), "{}");
    expect_both_deleted(recorder);
    /* And by its TTL, in a bucket without markers; with markers the server says so. An expired value is not delivered.
     */
    const char *marking = client_new_bucket(client, "'limit_marker_ttl': 60");
    struct watch_recorder *marked = watch_recorder_start(client, marking, NULL);
    watch_recorder_expect(marked, "ready");
    assert_ok(client_call(client, "kv.put", "['%s', 'c', 'v', {'ttl': 5}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'c', 'v', {'ttl': 5}]", marking));
    watch_recorder_expect(recorder, "c=v@5 -c@5");
    watch_recorder_expect(marked, "c=v@1 !c@2");
    assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    watch_recorder_expect_end(recorder, "bucket_not_found");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_watch_that_is_not_read_does_not_keep_vanished_keys_from_others)
{
    enum { KEYS = 2000, AT_ONCE = 100 };
    enum watch_event event;

    daemon_start(&daemon_of_test, NULL,
                 "watches:\n  reconcile_interval: 0.2\n  buffer_bytes: 64K\nlimits:\n  stall_timeout: 3600\n");
    struct client *client = client_open(&daemon_of_test), *slow = client_open(&daemon_of_test);
    struct nats *nats = nats_connect_embedded(daemon_of_test.data_dir);
    const char *bucket = client_new_bucket(client, "'storage': 'memory', 'limit_marker_ttl': 0");

    put_text(client, bucket, "a", "1");
    for (unsigned i = 0; i < KEYS; i += AT_ONCE)
        put_many(client, bucket, "k", i, AT_ONCE, 1000);
    struct watch_recorder *sleeps = watch_recorder_start(slow, bucket, NULL),
                          *reads = watch_recorder_start(client, bucket, "'filter': 'a'");
    watch_recorder_expect(reads, "a=1@1 ready");
    nats_api(nats, "STREAM.PURGE", format_text("KV_%s", bucket), "{'filter': '$KV.%s.a'}", bucket);
    watch_recorder_expect(reads, format_text("-a@%u", KEYS + 1));
    do
        event = watch_recorder_next(sleeps);
    while (event == WATCH_ENTRY);
    ck_assert_int_eq(event, WATCH_ENDED);
    ck_assert_str_eq(text_at(sleeps->object, "code"), "revision_gone");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_transaction_is_delivered_in_the_order_of_its_operations)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    struct nats *nats = nats_connect_embedded(daemon_of_test.data_dir);
    const char *bucket = client_new_bucket(client, "'history': 5"); /* or what is overwritten may be left out */
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, NULL);

    watch_recorder_expect(recorder, "ready");
    assert_ok(client_call(client, "txn.commit", "['%s', [], [['put', 'b', '1'], ['put', 'a', '1'], ['delete', 'c']]]",
                          bucket));
    nats_request_json(nats, format_text("$KV.%s.a", bucket), NULL, "theirs");
    nats_request_json(nats, format_text("$KV.%s.a", bucket), "KV-Operation: DEL\r\n", "");
    put_text(client, bucket, "end", "1");
    watch_recorder_expect(recorder, "b=1@1 a=1@2 -c@3 a=theirs@4 -a@5 end=1@6");
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *watch_limit_suite(void)
{
    Suite *suite = suite_create("watch_limit");
    TCase *tests = tcase_create("own daemon");

    tcase_add_test(tests, the_number_of_watches_is_limited);
    tcase_add_test(tests, a_name_that_no_bucket_has_takes_no_room_of_followed_buckets);
    tcase_add_test(tests, one_user_watches_a_share_of_the_followed_buckets);
    tcase_add_test(tests, a_thousand_watches_share_one_consumer);
    tcase_add_test(tests, a_client_that_does_not_read_gets_the_revision_to_resume_from_and_delays_nobody);
    tcase_add_test(tests, a_client_that_does_not_read_while_keys_vanish_must_start_over);
    tcase_add_test(tests, a_large_bucket_is_delivered_completely_during_writes);
    tcase_add_test(tests, a_watch_needs_read_access_and_ends_with_it);
    tcase_add_test(tests, keys_that_vanish_are_delivered_as_deleted);
    tcase_add_test(tests, a_watch_that_is_not_read_does_not_keep_vanished_keys_from_others);
    tcase_add_test(tests, a_transaction_is_delivered_in_the_order_of_its_operations);
    suite_add_tcase(suite, tests);
    return suite;
}
