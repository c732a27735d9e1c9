/* Embedded mode: reads with the default consistency come from memory, and are as new as if the server had answered. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void setup(void)
{
    daemon_start(&shared_daemon, NULL, "watches:\n  reconcile_interval: 0.2\n");
}

/* --- Short ways ------------------------------------------------------------------------------------ */

/* Return the value, or NULL if there is no key. */
static const char *text_of(struct client *client, const char *bucket, const char *key)
{
    const struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);

    assert_ok(answer);
    return answer->result.type != MSGPACK_OBJECT_NIL ? text_at(&answer->result, "value") : NULL;
}

static unsigned key_count(struct client *client, const char *bucket)
{
    const struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);

    assert_ok(answer);
    return (unsigned)count_at(&answer->result, "");
}

/* Wait until a read is answered from memory. */
static void wait_until_loaded(struct client *client, const char *bucket, const char *key)
{
    uint64_t hits = stat_of(client, "cache.hits"), end = now_ms() + PATIENCE_MS;

    do {
        ck_assert_msg(now_ms() < end, "no read is answered from memory");
        text_of(client, bucket, key);
    } while (stat_of(client, "cache.hits") == hits);
}

/* --- What is read ---------------------------------------------------------------------------------- */

START_TEST(a_read_after_an_ack_sees_the_write_without_a_request)
{
    enum { WRITES = 1000 };
    struct client *writer = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(writer, NULL);

    put_text(writer, bucket, "k", "first");
    wait_until_loaded(reader, bucket, "k");
    uint64_t misses = stat_of(reader, "cache.misses");
    for (unsigned i = 0; i < WRITES; i++) {
        const char *value = format_text("%u", i);
        put_text(writer, bucket, "k", value);
        ck_assert_str_eq(text_of(reader, bucket, "k"), value);
    }
    /* If a busy machine delays the feed for too long, the daemon asks the server. */
    ck_assert_uint_lt(stat_of(reader, "cache.misses") - misses, WRITES / 10);
}
END_TEST

/* The server is stopped: a read that asked it would wait. */
START_TEST(reads_are_answered_while_the_server_does_not_answer)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    pid_t server = daemon_nats_pid(&shared_daemon);

    put_text(client, bucket, "a", "[1]");
    put_text(client, bucket, "b", "2");
    wait_until_loaded(client, bucket, "a");
    ck_assert_uint_eq(key_count(client, bucket), 2); /* the feed has delivered both */
    pid_suspend(server);
    ck_assert_str_eq(text_of(client, bucket, "a"), "[1]");
    ck_assert_ptr_null(text_of(client, bucket, "missing"));
    assert_ok(client_call(client, "kv.get_json", "['%s', 'a']", bucket));
    const struct answer *answer = client_call(client, "bulk.get", "['%s', ['a', 'b', 'missing']]", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "b.value"), "2");
    ck_assert_uint_eq(key_count(client, bucket), 2);
    assert_code(client_call(client, "kv.get", "['%s', 'a', {'consistency': 'leader', 'timeout': 0.2}]", bucket),
                "deadline_exceeded");
    pid_resume(server);
}
END_TEST

START_TEST(reads_are_answered_while_the_server_is_away)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 5; i++) {
        const char *value = format_text("%u", i);
        put_text(client, bucket, "k", value);
        wait_until_loaded(client, bucket, "k");
        pid_t server = daemon_nats_pid(&shared_daemon);
        ck_assert_int_eq(kill(server, SIGKILL), 0);
        /*
         * With each read the daemon may be in another state: still connected, disconnected, connecting, looking up the
         * bucket.
         */
        for (unsigned read = 0; read < 300; read++)
            ck_assert_str_eq(text_of(client, bucket, "k"), value);
        put_text(client, bucket, "k", "again"); /* the new server */
        ck_assert_str_eq(text_of(client, bucket, "k"), "again");
    }
}
END_TEST

/* Some 1.5 MB of messages, which the feed has to deliver in many pieces. */
static void pack_transaction(msgpack_sbuffer *buffer, const char *bucket, const char *value)
{
    enum { KEYS = 500 };
    char *operations = format_text("['put', 'k0', '%s']", value);

    for (unsigned i = 1; i < KEYS; i++)
        operations = format_text("%s, ['put', 'k%u', '%s']", operations, i, value);
    pack_request(buffer, 7, "txn.commit", "['%s', [], [%s]]", bucket, operations);
}

/* Make two transactions, whose values begin with 0 and with 1, followed by padding. */
static void pack_transactions(msgpack_sbuffer transactions[2], const char *bucket, size_t padding_bytes)
{
    char *padding = keep(calloc(1, padding_bytes + 1));

    memset(padding, 'x', padding_bytes);
    for (unsigned i = 0; i < 2; i++) {
        msgpack_sbuffer_init(&transactions[i]);
        pack_transaction(&transactions[i], bucket, format_text("%u%s", i, padding));
    }
}

START_TEST(a_transaction_is_seen_as_a_whole)
{
    struct client *writer = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(writer, NULL);
    msgpack_sbuffer transactions[2], reads;

    pack_transactions(transactions, bucket, 3000);
    msgpack_sbuffer_init(&reads);
    for (unsigned i = 0; i < 20; i++) {
        pack_request(&reads, 100, "kv.get", "['%s', 'k0']", bucket);
        pack_request(&reads, 101, "kv.get", "['%s', 'k499']", bucket);
        pack_request(&reads, 102, "bulk.get", "['%s', ['k0', 'k250', 'k499']]", bucket);
    }
    client_write(writer, transactions[0].data, transactions[0].size);
    assert_ok(client_wait(writer, 7));
    wait_until_loaded(reader, bucket, "k0");
    for (unsigned round = 1; round <= 16; round++) {
        char was = (char)('0' + (round + 1) % 2), is = (char)('0' + round % 2);
        bool is_seen = false;
        client_write(writer, transactions[round % 2].data, transactions[round % 2].size);
        for (unsigned part = 0; part < 3; part++) {
            /*
             * Reads that are in flight together may be answered in any order. A read that begins after an answer may
             * not be older.
             */
            bool was_seen = is_seen;
            client_write(reader, reads.data, reads.size);
            for (unsigned i = 0; i < 60; i++) {
                const struct answer *answer = client_wait(reader, 100 + i % 3);
                assert_ok(answer);
                const char *path = i % 3 == 2 ? "k499.value" : "value";
                char seen = text_at(&answer->result, path)[0];
                if (i % 3 == 2) {
                    ck_assert_int_eq(text_at(&answer->result, "k0.value")[0], seen);
                    ck_assert_int_eq(text_at(&answer->result, "k250.value")[0], seen);
                }
                ck_assert(seen == was || seen == is);
                ck_assert_msg(!was_seen || seen == is, "round %u: what was seen is no longer there", round);
                is_seen |= seen == is;
            }
        }
        assert_ok(client_wait(writer, 7));
        ck_assert_int_eq(text_of(reader, bucket, "k0")[0], is);
    }
    for (unsigned i = 0; i < 2; i++)
        msgpack_sbuffer_destroy(&transactions[i]);
    msgpack_sbuffer_destroy(&reads);
}
END_TEST

/* A part of a transaction that the server has answered, or a watch has delivered, must not remain half of it. */
START_TEST(a_transaction_is_seen_as_a_whole_after_a_part_was_read_from_the_server)
{
    struct client *writer = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(writer, NULL);
    msgpack_sbuffer transactions[2];

    pack_transactions(transactions, bucket, 1000);
    client_write(writer, transactions[0].data, transactions[0].size);
    assert_ok(client_wait(writer, 7));
    wait_until_loaded(reader, bucket, "k0");
    for (unsigned round = 1; round <= 100; round++) {
        char is = (char)('0' + round % 2);
        client_write(writer, transactions[round % 2].data, transactions[round % 2].size);
        const struct answer *answer;
        do {
            answer = client_call(reader, "kv.get", "['%s', 'k0', {'consistency': 'leader'}]", bucket);
            assert_ok(answer);
        } while (text_at(&answer->result, "value")[0] != is);
        ck_assert_int_eq(text_of(reader, bucket, "k499")[0], is);
        assert_ok(client_wait(writer, 7));
    }
    for (unsigned i = 0; i < 2; i++)
        msgpack_sbuffer_destroy(&transactions[i]);
}
END_TEST

/* --- What changes a bucket without messages -------------------------------------------------------- */

START_TEST(a_purge_is_seen_by_reads_after_it_and_during_it)
{
    enum { READS = 50 };
    struct client *client = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer reads;

    msgpack_sbuffer_init(&reads);
    for (unsigned i = 0; i < READS; i++)
        pack_request(&reads, 100 + i, "kv.get", "['%s', 'a']", bucket);
    for (unsigned round = 0; round < 30; round++) {
        const char *value = format_text("%u", round);
        put_text(client, bucket, "a", value);
        put_text(client, bucket, "b", value);
        wait_until_loaded(reader, bucket, "a");
        bool is_gone = false;
        client_write(reader, reads.data, reads.size);
        uint32_t purge = client_send(client, "bucket.purge", "['%s']", bucket);
        for (unsigned part = 0; part < 4; part++) {
            bool was_gone = is_gone;
            for (unsigned i = 0; i < READS; i++) {
                const struct answer *answer = client_wait(reader, 100 + i);
                assert_ok(answer);
                bool is_nil = answer->result.type == MSGPACK_OBJECT_NIL;
                ck_assert_msg(!was_gone || is_nil, "what was purged is there again");
                is_gone |= is_nil;
            }
            if (part < 3)
                client_write(reader, reads.data, reads.size);
        }
        assert_ok(client_wait(client, purge));
        ck_assert_ptr_null(text_of(reader, bucket, "a"));
        ck_assert_uint_eq(key_count(reader, bucket), 0);
        const struct answer *answer = client_call(reader, "bulk.get", "['%s', ['a', 'b']]", bucket);
        ck_assert_int_eq(find_at(&answer->result, "b")->type, MSGPACK_OBJECT_NIL);
    }
    msgpack_sbuffer_destroy(&reads);
}
END_TEST

/*
 * The purge may still be executed as long as this connection to the server lasts. Until then nothing is answered from
 * memory.
 */
START_TEST(reads_wait_for_the_outcome_of_an_unanswered_purge)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    pid_t server = daemon_nats_pid(&shared_daemon);
    const struct answer *answer;
    unsigned tries = 0;

    /* The server stops after its answer to the question that comes before a purge, and before that to the purge. */
    do {
        put_text(client, bucket, "a", "1");
        put_text(client, bucket, "b", "1");
        wait_until_loaded(client, bucket, "a");
        uint32_t purge = client_send(client, "bucket.purge", "['%s', {'timeout': 0.2}]", bucket);
        usleep(tries % 20 * 50 * (1 + tries / 20));
        ck_assert_uint_lt(tries++, 400);
        pid_suspend(server);
        answer = client_wait(client, purge);
        pid_resume(server);
        if (answer->error.type != MSGPACK_OBJECT_NIL)
            assert_code(answer, "deadline_exceeded");
    } while (answer->error.type == MSGPACK_OBJECT_NIL || strcmp(text_at(&answer->error, "outcome"), "unknown") != 0);
    uint64_t end = now_ms() + PATIENCE_MS, hits = stat_of(client, "cache.hits");
    while (text_of(client, bucket, "a") != NULL)
        ck_assert_msg(now_ms() < end, "the purge is not done");
    ck_assert_ptr_null(text_of(client, bucket, "b"));
    ck_assert_uint_eq(stat_of(client, "cache.hits"), hits);
    ck_assert_int_eq(kill(server, SIGKILL), 0);
    wait_until_loaded(client, bucket, "a");
    ck_assert_uint_eq(key_count(client, bucket), 0);
}
END_TEST

/* A write that the feed never delivers: its value is gone before the feed is connected again. */
START_TEST(reads_do_not_wait_forever_for_removed_entries)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "a", "1");
    wait_until_loaded(client, bucket, "a");
    for (unsigned i = 0; i < 20; i++) {
        uint32_t put = client_send(client, "kv.put", "['%s', 'b', '1']", bucket);
        uint32_t purge = client_send(client, "bucket.purge", "['%s']", bucket);
        assert_ok(client_wait(client, put));
        assert_ok(client_wait(client, purge));
        key_count(client, bucket);
    }
    uint64_t end = now_ms() + PATIENCE_MS, hits;
    do {
        ck_assert_msg(now_ms() < end, "lists no longer come from memory");
        hits = stat_of(client, "cache.hits");
        key_count(client, bucket);
    } while (stat_of(client, "cache.hits") == hits);
}
END_TEST

START_TEST(a_recreated_bucket_has_no_old_entries)
{
    struct client *client = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned round = 0; round < 20; round++) {
        put_text(client, bucket, "a", "old");
        put_text(client, bucket, "b", "old");
        wait_until_loaded(reader, bucket, "a");
        assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
        assert_code(client_call(reader, "kv.get", "['%s', 'a']", bucket), "bucket_not_found");
        assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
        ck_assert_ptr_null(text_of(reader, bucket, "a"));
        ck_assert_uint_eq(key_count(reader, bucket), 0);
        put_text(client, bucket, "a", "new");
        ck_assert_str_eq(text_of(reader, bucket, "a"), "new");
        ck_assert_uint_eq(key_count(reader, bucket), 1);
    }
}
END_TEST

/* The new bucket's revisions are below those of the old one. */
START_TEST(lists_of_a_recreated_bucket_come_from_memory)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    wait_until_loaded(client, bucket, "a");
    for (unsigned i = 0; i < 200; i++)
        put_text(client, bucket, "a", "old");
    /* Usually the feed asks after both. If it asks between them, it ends, and the log says nothing of the new bucket.
     */
    const char *noted = format_text("bucket %s was created again, after this daemon had", bucket);
    do {
        uint32_t removal = client_send(client, "bucket.delete", "['%s']", bucket);
        uint32_t creation = client_send(client, "bucket.create", "['%s']", bucket);
        assert_ok(client_wait(client, removal));
        assert_ok(client_wait(client, creation));
        put_text(client, bucket, "b", "new");
        wait_until_loaded(client, bucket, "b");
    } while (strstr(read_file(shared_daemon.process.log_path), noted) == NULL);
    uint64_t hits = stat_of(client, "cache.hits");
    for (unsigned i = 0; i < 5; i++)
        ck_assert_uint_eq(key_count(client, bucket), 1);
    ck_assert_uint_eq(stat_of(client, "cache.hits"), hits + 5);
    /* It is what the client wanted, and no reason for a warning. */
    const char *log = read_file(shared_daemon.process.log_path);
    ck_assert_ptr_null(strstr(log, format_text("bucket %s was recreated", bucket)));
}
END_TEST

/* The new settings remove older values at once. */
START_TEST(settings_that_remove_values_affect_reads)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "a", "1");
    wait_until_loaded(client, bucket, "a");
    /* Old enough for the shortest TTL. */
    uint64_t end = now_ms() + 1100;
    while (now_ms() < end)
        pause_shortly();
    assert_ok(client_call(client, "bucket.update", "['%s', {'ttl': 1, 'force': true}]", bucket));
    end = now_ms() + PATIENCE_MS;
    while (text_of(client, bucket, "a") != NULL)
        ck_assert_msg(now_ms() < end, "the value does not end");
    assert_ok(client_call(client, "kv.create", "['%s', 'a', '2', {'ttl': 100}]", bucket));
}
END_TEST

/* No marker announces it, and the daemon's next comparison with the bucket is far. */
START_TEST(values_expire_by_later_settings)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, "'limit_marker_ttl': 0");
    put_text(client, bucket, "a", "1");
    wait_until_loaded(client, bucket, "a");
    assert_ok(client_call(client, "bucket.update", "['%s', {'ttl': 1, 'force': true}]", bucket));
    wait_until_loaded(client, bucket, "missing");
    uint64_t end = now_ms() + 4000;
    while (text_of(client, bucket, "a") != NULL)
        ck_assert_msg(now_ms() < end, "the value does not end");
    ck_assert_uint_eq(key_count(client, bucket), 0);
    daemon_stop(&daemon);
}
END_TEST

/* A client that reads that a key is missing can create it, and lists agree with reads. */
START_TEST(an_expired_key_is_missing_for_reads_and_creates)
{
    static const char *const options[] = {NULL, "'limit_marker_ttl': 0", "'history': 5",
                                          "'history': 5, 'limit_marker_ttl': 0", "'limit_marker_ttl': 60"};
    enum { BUCKETS = sizeof(options) / sizeof(options[0]), KEYS = 20 };
    struct client *client = client_open_shared();
    const char *buckets[BUCKETS];
    bool is_gone[BUCKETS][KEYS] = {{false}};
    unsigned left = BUCKETS * KEYS;

    for (unsigned i = 0; i < BUCKETS; i++) {
        buckets[i] = client_new_bucket(client, options[i]);
        put_text(client, buckets[i], "stays", "1");
        wait_until_loaded(client, buckets[i], "stays");
        for (unsigned key = 0; key < KEYS; key++)
            assert_ok(client_call(client, "kv.put", "['%s', 'k%u', 'v', {'ttl': 1}]", buckets[i], key));
    }
    uint64_t end = now_ms() + PATIENCE_MS;
    for (unsigned turn = 0; left > 0; turn++) {
        unsigned i = turn % BUCKETS, key = (turn / BUCKETS) % KEYS;
        ck_assert_msg(now_ms() < end, "%u values do not expire", left);
        if (is_gone[i][key])
            continue;
        if (text_of(client, buckets[i], format_text("k%u", key)) != NULL)
            continue;
        const struct answer *listed = client_call(client, "kv.keys", "['%s', {'filter': 'k%u'}]", buckets[i], key);
        assert_ok(listed);
        ck_assert_msg(count_at(&listed->result, "") == 0, "k%u of bucket %u is listed, though it is gone", key, i);
        const struct answer *created = client_call(client, "kv.create", "['%s', 'k%u', 'new']", buckets[i], key);
        ck_assert_msg(strcmp(answer_code(created), "ok") == 0, "k%u of bucket %u is gone and not gone: %s", key, i,
                      answer_text(created));
        is_gone[i][key] = true;
        left--;
    }
    for (unsigned i = 0; i < BUCKETS; i++)
        ck_assert_uint_eq(key_count(client, buckets[i]), KEYS + 1);
}
END_TEST

/* --- What is not in memory ------------------------------------------------------------------------- */

START_TEST(a_mirror_is_read_from_the_server_and_its_writes_are_seen_in_the_origin)
{
    struct client *client = client_open_shared();
    const char *origin = client_new_bucket(client, NULL);
    const char *mirror = client_new_bucket(client, format_text("'mirror': '%s'", origin));

    put_text(client, origin, "k", "0");
    wait_until_loaded(client, origin, "k");
    uint64_t hits = stat_of(client, "cache.hits");
    uint64_t end = now_ms() + PATIENCE_MS;
    while (text_of(client, mirror, "k") == NULL)
        ck_assert_msg(now_ms() < end, "the mirror does not follow");
    text_of(client, mirror, "k");
    ck_assert_uint_eq(stat_of(client, "cache.hits"), hits);
    for (unsigned i = 0; i < 200; i++) {
        const char *value = format_text("%u", i);
        put_text(client, mirror, "k", value);
        ck_assert_str_eq(text_of(client, origin, "k"), value);
    }
}
END_TEST

/* A mirror answers direct gets of its origin, with its own lag. Memory does not hold a value with so many headers. */
START_TEST(a_mirror_does_not_answer_for_its_origin)
{
    struct client *client = client_open_shared();
    const char *origin = client_new_bucket(client, NULL), *headers = "'h': 'v'";
    const char *mirror = client_new_bucket(client, format_text("'mirror': '%s'", origin));
    uint64_t end = now_ms() + PATIENCE_MS;

    for (unsigned i = 0; i < 17; i++)
        headers = format_text("%s, 'h%u': 'v'", headers, i);
    put_text(client, origin, "k", "0");
    wait_until_loaded(client, origin, "k");
    while (text_of(client, mirror, "k") == NULL)
        ck_assert_msg(now_ms() < end, "the mirror does not follow");
    for (unsigned i = 0; i < 3000; i++) {
        assert_ok(client_call(client, "kv.create", "['%s', 'n%u', '1', {'headers': {%s}}]", origin, i, headers));
        ck_assert_ptr_nonnull(text_of(client, origin, format_text("n%u", i)));
    }
    for (unsigned i = 0; i < 300; i++) {
        const struct answer *answer =
            client_call(client, "txn.commit",
                        "['%s', [], [['put', 'a', '%u', {'headers': {%s}}], ['put', 'b', '%u', {'headers': {%s}}]]]",
                        origin, i, headers, i, headers);
        assert_ok(answer);
        answer = client_call(client, "bulk.get", "['%s', ['a', 'b']]", origin);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "a.value"), format_text("%u", i));
        ck_assert_str_eq(text_at(&answer->result, "b.value"), format_text("%u", i));
    }
}
END_TEST

START_TEST(values_beyond_the_limit_of_memory_are_read_through)
{
    enum { KEYS = 40 };
    struct daemon daemon = {0};
    char value[4001];

    daemon_start(&daemon, NULL, "cache:\n  max_bytes: 65536\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    memset(value, 'v', sizeof(value));
    for (unsigned i = 0; i < KEYS; i++)
        assert_ok(client_put(client, bucket, format_text("k%02u", i), value, 4000 - i));
    wait_until_loaded(client, bucket, "missing");
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < KEYS; i++)
            ck_assert_uint_eq(strlen(text_of(client, bucket, format_text("k%02u", i))), 4000 - i);
    }
    const struct answer *answer = client_call(client, "bulk.get", "['%s', ['k00', 'k10', 'k20', 'k39']]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(strlen(text_at(&answer->result, "k39.value")), 4000 - 39);
    ck_assert_uint_eq(key_count(client, bucket), KEYS);
    ck_assert_uint_gt(stat_of(client, "cache.evicted"), 0);
    ck_assert_uint_le(stat_of(client, "cache.bytes"), 65536);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(a_bucket_with_too_many_keys_leaves_memory_to_others)
{
    enum { LARGE = 1900, SMALL = 1200 };
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "cache:\n  max_bytes: 262144\n");
    struct client *client = client_open(&daemon);
    const char *large = client_new_bucket(client, NULL), *small = client_new_bucket(client, NULL);
    put_many(client, large, "k.", 0, LARGE, 8);
    put_many(client, small, "k.", 0, 10, 8);
    wait_until_loaded(client, large, "k.000000");
    wait_until_loaded(client, small, "k.000000");
    /* There is room for both until the small one grows. It is still the smaller one then. */
    put_many(client, small, "k.", 0, SMALL, 8);
    daemon_wait_log(&daemon, format_text("bucket %s: caching disabled", large));
    ck_assert_uint_eq(key_count(client, small), SMALL);
    uint64_t hits = stat_of(client, "cache.hits");
    ck_assert_ptr_null(text_of(client, small, "missing"));
    ck_assert_uint_eq(stat_of(client, "cache.hits"), hits + 1);
    daemon_stop(&daemon);
}
END_TEST

/* Each of the many small buckets is smaller than the one bucket of the other user. */
START_TEST(a_user_with_many_small_buckets_leaves_memory_to_other_users)
{
    enum { BUCKETS = 12, KEYS = 250, VICTIM_KEYS = 500 };
    struct daemon daemon = {0};
    struct sockaddr_un address;
    socklen_t length;

    if (geteuid() != 0) {
        test_run_skip("a_user_with_many_small_buckets_leaves_memory_to_other_users",
                      "only root can become another user");
        return;
    }
    daemon_prepare(&daemon);
    daemon_configure(&daemon, NULL, "cache:\n  max_bytes: 262144\n");
    int listener = daemon_listen_without_file(&address, &length);
    daemon_spawn(&daemon, NULL, listener);
    daemon_wait_ready(&daemon);
    struct client *victim = client_open_address(&address, length);
    ck_assert_int_eq(seteuid(4000), 0);
    struct client *other = client_open_address(&address, length);
    ck_assert_int_eq(seteuid(0), 0);

    const char *bucket = client_new_bucket(victim, NULL);
    put_many(victim, bucket, "k.", 0, VICTIM_KEYS, 8);
    wait_until_loaded(victim, bucket, "k.000000");
    for (unsigned i = 0; i < BUCKETS; i++) {
        const char *small = client_new_bucket(other, NULL);
        put_many(other, small, "k.", 0, KEYS, 8);
        text_of(other, small, "k.000000"); /* this begins its copy */
    }
    daemon_wait_log(&daemon, "caching disabled");
    uint64_t hits = stat_of(victim, "cache.hits");
    for (unsigned i = 0; i < VICTIM_KEYS; i += 50)
        ck_assert_ptr_nonnull(text_of(victim, bucket, format_text("k.%06u", i)));
    ck_assert_uint_eq(stat_of(victim, "cache.hits"), hits + VICTIM_KEYS / 50);
    daemon_stop(&daemon);
    close(listener);
}
END_TEST

START_TEST(a_bucket_that_was_given_up_comes_back_when_there_is_room)
{
    enum { KEYS = 1000 };
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "cache:\n  max_bytes: 65536\n  idle_timeout: 0.5\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    put_many(client, bucket, "k.", 0, KEYS, 8);
    text_of(client, bucket, "k.000000");
    daemon_wait_log(&daemon, format_text("bucket %s: caching disabled", bucket));
    daemon_configure(&daemon, NULL, "cache:\n  max_bytes: 1M\n  idle_timeout: 0.5\n");
    process_signal(&daemon.process, SIGHUP);
    daemon_wait_log(&daemon, "is in effect");
    wait_until_loaded(client, bucket, "k.000000"); /* which reads it all the time */
    daemon_stop(&daemon);
}
END_TEST

START_TEST(a_bucket_that_grows_too_large_is_reported_with_its_keys)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "cache:\n  max_bytes: 65536\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    put_many(client, bucket, "k.", 0, 10, 8);
    wait_until_loaded(client, bucket, "k.000000");
    put_many(client, bucket, "k.", 10, 2000, 8);
    daemon_wait_log(&daemon, format_text("bucket %s: caching disabled: its ", bucket));
    ck_assert_int_gt(atoi(daemon_log(&daemon)), 100);
    daemon_stop(&daemon);
}
END_TEST

/* Copies for reads take no room that a watch needs. */
START_TEST(watched_buckets_evict_buckets_that_are_only_read)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "watches:\n  max_buckets: 3\nlimits:\n  user_percent: 100\n");
    struct client *client = client_open(&daemon);
    const char *buckets[6];
    for (unsigned i = 0; i < 6; i++) {
        buckets[i] = client_new_bucket(client, NULL);
        put_text(client, buckets[i], "k", "v");
        ck_assert_str_eq(text_of(client, buckets[i], "k"), "v");
        ck_assert_str_eq(text_of(client, buckets[i], "k"), "v");
    }
    wait_until(stat_of(client, "cache.buckets") == 3, "three copies");
    for (unsigned i = 3; i < 6; i++)
        assert_ok(client_call(client, "watch.start", "['%s']", buckets[i]));
    for (unsigned i = 0; i < 6; i++)
        ck_assert_str_eq(text_of(client, buckets[i], "k"), "v");
    assert_code(client_call(client, "watch.start", "['%s']", buckets[0]), "resource_exhausted");
    daemon_stop(&daemon);
}
END_TEST

/* --- Lists ----------------------------------------------------------------------------------------- */

/* The list does not read the bucket a second time, besides the copy that is loading. */
START_TEST(the_first_list_waits_for_the_copy)
{
    enum { KEYS = 10000 };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_many(client, bucket, "k.", 0, KEYS, 8);
    uint64_t misses = stat_of(client, "cache.misses"), hits = stat_of(client, "cache.hits");
    ck_assert_uint_eq(key_count(client, bucket), KEYS);
    ck_assert_uint_eq(stat_of(client, "cache.misses"), misses);
    ck_assert_uint_eq(stat_of(client, "cache.hits"), hits + 1);
    assert_code(client_call(client, "kv.keys", "['there-is-none']"), "bucket_not_found");
}
END_TEST

/* Long enough for many turns of the loop, while keys come and go. */
START_TEST(pages_and_filters_agree_with_one_list_of_all_keys)
{
    enum { KEYS = 30000, PAGE = 700 };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL), *after = "";
    unsigned seen = 0;

    put_many(client, bucket, "a.b.", 0, KEYS / 2, 8);
    put_many(client, bucket, "a.b.", KEYS / 2, KEYS / 2, 8);
    put_text(client, bucket, "a", "1");
    put_text(client, bucket, "a.c", "1");
    put_text(client, bucket, "z.z", "1");
    delete_key(client, bucket, "a.b.000007");
    wait_until_loaded(client, bucket, "a");
    ck_assert_uint_eq(key_count(client, bucket), KEYS + 2);
    for (;;) {
        const struct answer *page = client_call(
            client, "kv.keys", "['%s', {'filter': 'a.b.*', 'limit': %u, 'after': '%s'}]", bucket, PAGE, after);
        assert_ok(page);
        size_t count = count_at(&page->result, "");
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++, seen++) {
            unsigned number = seen + (seen >= 7);
            ck_assert_str_eq(text_at(&page->result, format_text("%zu", i)), format_text("a.b.%06u", number));
        }
        after = text_at(&page->result, format_text("%zu", count - 1));
    }
    ck_assert_uint_eq(seen, KEYS - 1);
    const struct answer *answer = client_call(client, "kv.keys", "['%s', {'filter': '*.c'}]", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    answer = client_call(client, "kv.keys", "['%s', {'filter': 'a'}]", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    answer = client_call(client, "kv.keys", "['%s', {'filter': 'a.>', 'after': 'a.b.999999'}]", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    answer = client_call(client, "kv.keys", "['%s', {'filter': 'a.b.*', 'after': 'b'}]", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
}
END_TEST

Suite *memory_suite(void)
{
    Suite *suite = suite_create("memory");
    TCase *tests = shared_daemon_case_with(suite, "reads from memory", setup, shared_daemon_teardown);
    TCase *own = tcase_create("own daemon");

    tcase_add_test(tests, a_read_after_an_ack_sees_the_write_without_a_request);
    tcase_add_test(tests, reads_are_answered_while_the_server_does_not_answer);
    tcase_add_test(tests, reads_are_answered_while_the_server_is_away);
    tcase_add_test(tests, a_transaction_is_seen_as_a_whole);
    tcase_add_test(tests, a_transaction_is_seen_as_a_whole_after_a_part_was_read_from_the_server);
    tcase_add_test(tests, a_purge_is_seen_by_reads_after_it_and_during_it);
    tcase_add_test(tests, reads_wait_for_the_outcome_of_an_unanswered_purge);
    tcase_add_test(tests, reads_do_not_wait_forever_for_removed_entries);
    tcase_add_test(tests, a_recreated_bucket_has_no_old_entries);
    tcase_add_test(tests, lists_of_a_recreated_bucket_come_from_memory);
    tcase_add_test(tests, settings_that_remove_values_affect_reads);
    tcase_add_test(tests, an_expired_key_is_missing_for_reads_and_creates);
    tcase_add_test(tests, a_mirror_is_read_from_the_server_and_its_writes_are_seen_in_the_origin);
    tcase_add_test(tests, a_mirror_does_not_answer_for_its_origin);
    tcase_add_test(tests, the_first_list_waits_for_the_copy);
    tcase_add_test(tests, pages_and_filters_agree_with_one_list_of_all_keys);
    tcase_add_test(own, values_expire_by_later_settings);
    tcase_add_test(own, values_beyond_the_limit_of_memory_are_read_through);
    tcase_add_test(own, a_bucket_with_too_many_keys_leaves_memory_to_others);
    tcase_add_test(own, a_user_with_many_small_buckets_leaves_memory_to_other_users);
    tcase_add_test(own, a_bucket_that_was_given_up_comes_back_when_there_is_room);
    tcase_add_test(own, a_bucket_that_grows_too_large_is_reported_with_its_keys);
    tcase_add_test(own, watched_buckets_evict_buckets_that_are_only_read);
    suite_add_tcase(suite, own);
    return suite;
}
