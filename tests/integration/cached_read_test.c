/* Reads with consistency cached. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/watch_recorder.h"

#include <stdio.h>
#include <string.h>

static struct daemon daemon_of_test;

static void setup(void)
{
    daemon_start(&shared_daemon, NULL, "watches:\n  reconcile_interval: 0.2\n");
}

START_TEST(cached_reads_are_answered_from_memory_and_counted)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "a", "[1]");
    put_text(client, bucket, "b", "2");
    delete_key(client, bucket, "gone");
    wait_until_cached(client, bucket, "a");
    uint64_t hits = stat_of(client, "cache.hits"), misses = stat_of(client, "cache.misses");
    ck_assert_str_eq(cached_text(client, bucket, "a"), "[1]");
    ck_assert_ptr_null(cached_text(client, bucket, "gone"));
    ck_assert_ptr_null(cached_text(client, bucket, "missing")); /* known to be missing */
    const struct answer *answer = client_call(client, "kv.get_json", "['%s', 'a', {'consistency': 'cached'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "0"), 1);
    ck_assert_uint_eq(stat_of(client, "cache.hits"), hits + 4);
    answer =
        client_call(client, "bulk.get", "['%s', ['a', 'gone', 'missing', 'b'], {'consistency': 'cached'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 4);
    ck_assert_str_eq(text_at(&answer->result, "b.value"), "2");
    ck_assert_int_eq(find_at(&answer->result, "missing")->type, MSGPACK_OBJECT_NIL);
    ck_assert_int_eq(find_at(&answer->result, "gone")->type, MSGPACK_OBJECT_NIL);
    answer = client_call(client, "kv.keys", "['%s', {'consistency': 'cached'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
    ck_assert_str_eq(text_at(&answer->result, "0"), "a");
    ck_assert_str_eq(text_at(&answer->result, "1"), "b");
    ck_assert_uint_eq(stat_of(client, "cache.misses"), misses);
}
END_TEST

/* Each kind of write in turn, read by another session right after its ack. */
START_TEST(a_cached_read_is_never_older_than_what_was_acknowledged)
{
    struct client *writer = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(writer, NULL);
    unsigned long long revision = put_text(writer, bucket, "k", "begin");

    wait_until_cached(reader, bucket, "k");
    for (unsigned i = 0; i < 600; i++) {
        const char *value = format_text("v%u", i), *seen;
        const struct answer *answer;
        switch (i % 5) {
        case 0:
            revision = put_text(writer, bucket, "k", value);
            break;
        case 1:
            revision =
                revision_of(client_call(writer, "kv.update", "['%s', 'k', '%s', %llu]", bucket, value, revision));
            break;
        case 2:
            answer = client_call(writer, "bulk.put", "['%s', {'k': '%s', 'other': 'x'}]", bucket, value);
            assert_ok(answer);
            break;
        case 3:
            answer = client_call(writer, "txn.commit", "['%s', [], [['put', 'other', 'y'], ['put', 'k', '%s']]]",
                                 bucket, value);
            assert_ok(answer);
            break;
        default:
            delete_key(writer, bucket, "k");
            value = NULL;
        }
        seen = cached_text(reader, bucket, "k");
        ck_assert_msg((seen == NULL) == (value == NULL) && (value == NULL || strcmp(seen, value) == 0),
                      "round %u: %s was written, %s is read", i, value != NULL ? value : "nothing",
                      seen != NULL ? seen : "nothing");
        answer = client_call(reader, "kv.keys", "['%s', {'consistency': 'cached', 'filter': 'k'}]", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), value != NULL);
    }
}
END_TEST

/* Write both keys in a transaction, without waiting. Return the msgid. */
static uint32_t send_pair(struct client *client, const char *bucket, const char *first, const char *last,
                          unsigned number)
{
    return client_send(client, "txn.commit", "['%s', [], [['put', '%s', '%u'], ['put', '%s', '%u']]]", bucket, first,
                       number, last, number);
}

/*
 * Transactions change the first and the last key of 12 MB together, while all keys are read. Return how many answers
 * were of a later moment than the call.
 */
static unsigned read_beside_transactions(struct client *reader, struct client *writer, const char *bucket)
{
    enum { KEYS = 600, ROUNDS = 15, WRITES = 8 };
    const char *first = "k000000", *last = "k000599", *keys = "";
    msgpack_sbuffer request;
    unsigned later = 0;

    put_many(writer, bucket, "k", 0, KEYS, 20000);
    assert_ok(client_wait(writer, send_pair(writer, bucket, first, last, 0)));
    for (unsigned i = 0; i < KEYS; i++)
        keys = format_text("%s%s'k%06u'", keys, i > 0 ? ", " : "", i);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t writes[WRITES];
        msgpack_sbuffer_init(&request);
        pack_request(&request, 1000000 + round, "bulk.get", "['%s', [%s]]", bucket, keys);
        client_write(reader, request.data, request.size);
        msgpack_sbuffer_destroy(&request);
        for (unsigned i = 0; i < WRITES; i++)
            writes[i] = send_pair(writer, bucket, first, last, round * WRITES + i + 1);
        const struct answer *answer = client_wait(reader, 1000000 + round);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), KEYS);
        const char *one = text_at(&answer->result, "k000000.value"), *other = text_at(&answer->result, "k000599.value");
        ck_assert_str_eq(one, other);
        later += strcmp(one, format_text("%u", round * WRITES)) != 0;
        for (unsigned i = 0; i < WRITES; i++)
            assert_ok(client_wait(writer, writes[i]));
        client_forget(reader);
    }
    return later;
}

START_TEST(a_large_answer_from_memory_is_of_one_moment)
{
    struct client *reader = client_open_shared(), *writer = client_open_shared();
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");

    put_text(writer, bucket, "a", "1");
    wait_until_cached(reader, bucket, "a");
    printf("from memory: %u answers of a later moment\n", read_beside_transactions(reader, writer, bucket));
}
END_TEST

/* NATS is asked for pages of 1 MB, and has no former values: a page may lack what an earlier one would have had. */
START_TEST(a_large_answer_from_nats_is_of_one_moment)
{
    struct nats_server server = {0};

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *reader = client_open(&daemon_of_test), *writer = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");

    printf("from NATS: %u answers of a later moment\n", read_beside_transactions(reader, writer, bucket));
    ck_assert_uint_eq(stat_of(reader, "cache.hits"), 0);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

/* A bucket with history is read by its list of keys. The server loses entries of it if a pull ends by its size. */
static void expect_all_keys_in_memory(unsigned small_count, unsigned large_count, size_t large_bytes)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory', 'history': 5");
    char *value = keep(calloc(1, large_bytes));

    put_many(client, bucket, "k", 0, small_count, 10);
    for (unsigned i = 0; i < large_count; i++)
        assert_ok(client_put(client, bucket, format_text("large%u", i), value, large_bytes));
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, "'meta_only': true");
    unsigned count = 0;
    while (watch_recorder_next(recorder) == WATCH_ENTRY)
        count++;
    ck_assert_uint_eq(count, small_count + large_count);
}

START_TEST(all_keys_of_a_bucket_with_history_are_read)
{
    expect_all_keys_in_memory(0, 150, 100000);
}
END_TEST

/* The pulls that fit small values are much too large for those after them. */
START_TEST(all_keys_of_a_bucket_with_history_are_read_if_large_values_follow_small_ones)
{
    expect_all_keys_in_memory(5000, 80, 900000);
}
END_TEST

START_TEST(what_is_purged_is_never_read_again)
{
    struct client *client = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 20; i++) {
        put_text(client, bucket, "a", "1");
        put_text(client, bucket, "b", "1");
        /* Both were delivered to the cache, so that the purge removes nothing that the cache still waits for. */
        wait_until_cached(reader, bucket, "a");
        wait_until_cached(reader, bucket, "b");
        assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
        ck_assert_ptr_null(cached_text(reader, bucket, "a"));
        const struct answer *answer = client_call(reader, "kv.keys", "['%s', {'consistency': 'cached'}]", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), 0);
        put_text(client, bucket, "b", "2");
        ck_assert_str_eq(cached_text(reader, bucket, "b"), "2");
    }
    assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    assert_code(client_call(reader, "kv.get", "['%s', 'b', {'consistency': 'cached'}]", bucket), "bucket_not_found");
    assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
    ck_assert_ptr_null(cached_text(reader, bucket, "b"));
}
END_TEST

/* Read until the key is gone. */
static void wait_until_gone(struct client *client, const char *bucket, const char *key)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (cached_text(client, bucket, key) != NULL) {
        ck_assert_msg(now_ms() < end, "%s is still read", key);
        pause_shortly();
    }
}

START_TEST(a_purge_by_another_client_is_noticed)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "a", "1");
    put_text(client, bucket, "b", "1");
    wait_until_cached(client, bucket, "a");
    nats_api(nats, "STREAM.PURGE", format_text("KV_%s", bucket), "{}");
    wait_until_gone(client, bucket, "a");
    wait_until_gone(client, bucket, "b");
}
END_TEST

START_TEST(a_value_is_not_returned_after_its_ttl)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "stays", "1");
    wait_until_cached(client, bucket, "stays");
    uint64_t start = now_ms();
    assert_ok(client_call(client, "kv.put", "['%s', 'a', 'v', {'ttl': 1}]", bucket));
    uint64_t acked = now_ms();
    const char *seen = cached_text(client, bucket, "a");
    if (now_ms() - start < 1000)
        ck_assert_str_eq(seen, "v");
    wait_until_gone(client, bucket, "a");
    ck_assert_uint_lt(now_ms() - acked, 20000);
    ck_assert_str_eq(cached_text(client, bucket, "stays"), "1");
}
END_TEST

START_TEST(cached_reads_see_what_other_clients_write)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    const char *bucket = client_new_bucket(client, NULL), *seen;
    uint64_t end = now_ms() + PATIENCE_MS;

    put_text(client, bucket, "a", "ours");
    wait_until_cached(client, bucket, "a");
    nats_request_json(nats, format_text("$KV.%s.a", bucket), NULL, "theirs");
    while (strcmp(seen = cached_text(client, bucket, "a"), "theirs") != 0) {
        ck_assert_str_eq(seen, "ours");
        ck_assert_uint_lt(now_ms(), end);
    }
}
END_TEST

START_TEST(beyond_max_bytes_values_are_read_through_and_stay_right)
{
    enum { KEYS = 400, LIMIT = 262144 };

    daemon_start(&daemon_of_test, NULL, "cache:\n  max_bytes: 256K\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    put_many(client, bucket, "k", 0, KEYS, 2000);
    put_text(client, bucket, "probe", "p");
    wait_until_cached(client, bucket, "missing");
    for (unsigned i = 0; i < KEYS; i++) {
        const char *value = cached_text(client, bucket, format_text("k%06u", i));
        ck_assert_ptr_nonnull(value);
        ck_assert_uint_eq(strlen(value), 2000);
        if (i % 50 == 0)
            ck_assert_uint_le(stat_of(client, "cache.bytes"), LIMIT);
    }
    ck_assert_uint_gt(stat_of(client, "cache.evicted"), 0);
    put_text(client, bucket, "k000001", "new");
    ck_assert_str_eq(cached_text(client, bucket, "k000001"), "new");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(without_nats_cached_reads_are_answered_up_to_max_staleness)
{
    enum { STALENESS_MS = 4000 };
    struct nats_server server;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server),
                 "cache:\n  max_staleness: 4\n  buckets: [\"test-*\"]\nwatches:\n  heartbeat: 0.1\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = "test-external";
    const struct answer *answer;
    /* The daemon is ready before it is connected. */
    uint64_t end = now_ms() + PATIENCE_MS;
    while ((answer = client_call(client, "bucket.create", "['%s']", bucket))->error.type != MSGPACK_OBJECT_NIL)
        ck_assert_msg(now_ms() < end, "%s", answer_text(answer));
    put_text(client, bucket, "a", "1");
    /* The bucket is loaded without a cached read. */
    wait_for_stat(client, "cache.keys", 1);
    wait_until_cached(client, bucket, "a");
    uint64_t killed = now_ms(), begun;
    process_kill(&server.process);
    daemon_wait_log(&daemon_of_test, "lost:");
    uint64_t lost = now_ms(); /* the last message came before this, at the latest */
    bool is_soon = lost - killed < STALENESS_MS / 2;
    do {
        begun = now_ms();
        answer = client_call(client, "kv.get", "['%s', 'a', {'consistency': 'cached', 'timeout': 0.2}]", bucket);
        if (is_soon)
            assert_ok(answer);
        is_soon = false;
    } while (answer->error.type == MSGPACK_OBJECT_NIL && begun <= lost + STALENESS_MS + 1000);
    assert_code(answer, "unavailable");
    nats_server_run(&server);
    wait_until_cached(client, bucket, "a");
    ck_assert_str_eq(cached_text(client, bucket, "a"), "1");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_bucket_with_too_many_keys_for_the_cache_is_read_through)
{
    enum { KEYS = 3000 };

    daemon_start(&daemon_of_test, NULL, "cache:\n  max_bytes: 64K\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    put_many(client, bucket, "k", 0, KEYS, 10);
    cached_text(client, bucket, "k000000");
    daemon_wait_log(&daemon_of_test, "caching disabled");
    for (unsigned i = 0; i < KEYS; i += 300)
        ck_assert_str_eq(cached_text(client, bucket, format_text("k%06u", i)), "vvvvvvvvvv");
    ck_assert_ptr_null(cached_text(client, bucket, "missing"));
    const struct answer *answer = client_call(client, "kv.keys", "['%s', {'consistency': 'cached'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), KEYS);
    ck_assert_uint_le(stat_of(client, "cache.bytes"), 65536);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_bucket_that_is_not_read_leaves_memory)
{
    daemon_start(&daemon_of_test, NULL, "cache:\n  idle_timeout: 0.5\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    put_text(client, bucket, "a", "1");
    wait_until_cached(client, bucket, "a");
    wait_for_stat(client, "cache.buckets", 0);
    ck_assert_uint_eq(stat_of(client, "cache.bytes"), 0);
    ck_assert_str_eq(cached_text(client, bucket, "a"), "1");
    daemon_stop(&daemon_of_test);
}
END_TEST

static void assert_is_ok_or_gone(const struct answer *answer)
{
    if (answer->error.type != MSGPACK_OBJECT_NIL)
        assert_code(answer, "bucket_not_found");
}

/* Each step of a copy's beginning can meet the deletion: its questions, its consumer, its load. */
START_TEST(a_bucket_that_is_deleted_while_it_is_loaded_is_not_followed)
{
    enum { ROUNDS = 20 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *admin = client_open(&daemon_of_test), *reader = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(admin, NULL);

    assert_ok(client_call(admin, "bucket.delete", "['%s']", bucket));
    for (unsigned round = 0; round < ROUNDS; round++) {
        assert_ok(client_call(admin, "bucket.create", "['%s']", bucket));
        uint32_t keys = client_send(reader, "kv.keys", "['%s']", bucket);
        if (round % 2 == 0)
            assert_ok(client_call(admin, "kv.put", "['%s', 'k', 'v']", bucket));
        uint32_t watch = client_send(reader, "watch.start", "['%s']", bucket);
        assert_ok(client_call(admin, "bucket.delete", "['%s']", bucket));
        assert_is_ok_or_gone(client_wait(reader, keys));
        assert_is_ok_or_gone(client_wait(reader, watch));
    }
    wait_for_stat(reader, "cache.buckets", 0);
    assert_code(client_call(reader, "watch.start", "['%s']", bucket), "bucket_not_found");
    assert_code(client_call(reader, "kv.keys", "['%s']", bucket), "bucket_not_found");
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *cached_read_suite(void)
{
    Suite *suite = suite_create("cached_read");
    TCase *tests = shared_daemon_case_with(suite, "reads", setup, shared_daemon_teardown);
    TCase *own = tcase_create("own daemon");

    tcase_add_test(tests, cached_reads_are_answered_from_memory_and_counted);
    tcase_add_test(tests, a_cached_read_is_never_older_than_what_was_acknowledged);
    tcase_add_test(tests, a_large_answer_from_memory_is_of_one_moment);
    tcase_add_test(tests, all_keys_of_a_bucket_with_history_are_read);
    tcase_add_test(tests, all_keys_of_a_bucket_with_history_are_read_if_large_values_follow_small_ones);
    tcase_add_test(tests, what_is_purged_is_never_read_again);
    tcase_add_test(tests, a_purge_by_another_client_is_noticed);
    tcase_add_test(tests, a_value_is_not_returned_after_its_ttl);
    tcase_add_test(tests, cached_reads_see_what_other_clients_write);
    tcase_add_test(own, a_large_answer_from_nats_is_of_one_moment);
    tcase_add_test(own, beyond_max_bytes_values_are_read_through_and_stay_right);
    tcase_add_test(own, without_nats_cached_reads_are_answered_up_to_max_staleness);
    tcase_add_test(own, a_bucket_with_too_many_keys_for_the_cache_is_read_through);
    tcase_add_test(own, a_bucket_that_is_not_read_leaves_memory);
    tcase_add_test(own, a_bucket_that_is_deleted_while_it_is_loaded_is_not_followed);
    suite_add_tcase(suite, own);
    return suite;
}
