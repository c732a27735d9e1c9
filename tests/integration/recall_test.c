/* Reads of what was read before: the server says whether it is still so, and no answer is older than the call. */
#include "tests/integration/nats.h"
#include "tests/integration/suites.h"
#include "tests/integration/watching.h"

#include <string.h>
#include <unistd.h>

#define KEYS 32u

/* --- What the tests read, and how ------------------------------------------------------------------ */

static void setup(void)
{
    daemon_start(&shared_daemon, NULL, "buckets:\n  handle_ttl: 86400\n");
}

static struct nats *connect_nats(void)
{
    return nats_connect_embedded(shared_daemon.data_dir);
}

static void send_gets(struct client *client, const char *bucket, uint32_t msgids[KEYS])
{
    msgpack_sbuffer requests;

    msgpack_sbuffer_init(&requests);
    for (unsigned i = 0; i < KEYS; i++) {
        msgids[i] = 1000 + i;
        pack_request(&requests, msgids[i], "kv.get", "['%s', 'k.%u']", bucket, i);
    }
    client_write(client, requests.data, requests.size);
    msgpack_sbuffer_destroy(&requests);
}

/* Gets all keys with messages that arrive together: their values, or "-", with a blank between. */
static const char *get_all(struct client *client, const char *bucket)
{
    uint32_t msgids[KEYS];
    const char *all = "";

    send_gets(client, bucket, msgids);
    for (unsigned i = 0; i < KEYS; i++) {
        const struct answer *answer = client_wait(client, msgids[i]);
        assert_ok(answer);
        bool is_there = answer->result.type != MSGPACK_OBJECT_NIL;
        if (is_there)
            ck_assert_str_eq(text_at(&answer->result, "key"), format_text("k.%u", i));
        all = format_text("%s%s%s", all, i > 0 ? " " : "", is_there ? text_at(&answer->result, "value") : "-");
    }
    return all;
}

/* The same in one call, which asks for some more: "'a', 'b', ", or "". */
static const char *bulk_get_with(struct client *client, const char *bucket, const char *more)
{
    const char *keys = more, *all = "";

    for (unsigned i = 0; i < KEYS; i++)
        keys = format_text("%s%s'k.%u'", keys, i > 0 ? ", " : "", i);
    const struct answer *answer = client_call(client, "bulk.get", "['%s', [%s]]", bucket, keys);
    assert_ok(answer);
    for (unsigned i = 0; i < KEYS; i++) {
        const msgpack_object *entry = NULL;
        for (uint32_t at = 0; at < answer->result.via.map.size && entry == NULL; at++) {
            const msgpack_object_kv *pair = &answer->result.via.map.ptr[at];
            const char *key = format_text("k.%u", i);
            if (pair->key.via.str.size == strlen(key) && memcmp(pair->key.via.str.ptr, key, strlen(key)) == 0)
                entry = &pair->val;
        }
        ck_assert_ptr_nonnull(entry);
        all = format_text("%s%s%s", all, i > 0 ? " " : "",
                          entry->type != MSGPACK_OBJECT_NIL ? text_at(entry, "value") : "-");
    }
    return all;
}

static const char *bulk_get_all(struct client *client, const char *bucket)
{
    return bulk_get_with(client, bucket, "");
}

/* What get_all answers where k.0 to k.31 are values[0], values[1] … */
static const char *expected(const char *const values[KEYS])
{
    const char *all = "";

    for (unsigned i = 0; i < KEYS; i++)
        all = format_text("%s%s%s", all, i > 0 ? " " : "", values[i] != NULL ? values[i] : "-");
    return all;
}

static void put_all(struct client *client, const char *bucket, const char *values[KEYS])
{
    for (unsigned i = 0; i < KEYS; i++) {
        values[i] = format_text("v%u", i);
        put_text(client, bucket, format_text("k.%u", i), values[i]);
    }
}

/* Reads all until the answers come from what is remembered. The first read is the first meeting, the second takes note.
 */
static void remember_all(struct client *client, const char *bucket, const char *const values[KEYS])
{
    uint64_t answered;
    unsigned tries = 0;

    do {
        answered = stat_of(client, "recall.answered");
        ck_assert_str_eq(get_all(client, bucket), expected(values));
        ck_assert_uint_lt(tries++, 100);
    } while (stat_of(client, "recall.answered") < answered + KEYS);
}

struct scene_of_reads {
    struct client *client;
    struct nats *nats;
    const char *bucket;
    const char *values[KEYS];
};

static struct scene_of_reads begin(const char *options)
{
    struct scene_of_reads scene = {.client = client_open_shared(), .nats = connect_nats()};

    scene.bucket = client_new_bucket(scene.client, options);
    put_all(scene.client, scene.bucket, scene.values);
    remember_all(scene.client, scene.bucket, scene.values);
    return scene;
}

/* Both ways of reading, twice: a first answer may have been read, and a second be remembered. */
static void expect_all(struct scene_of_reads *scene)
{
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_str_eq(get_all(scene->client, scene->bucket), expected(scene->values));
        ck_assert_str_eq(bulk_get_all(scene->client, scene->bucket), expected(scene->values));
    }
}

static void put_there(struct scene_of_reads *scene, unsigned number, const char *headers, const char *value)
{
    nats_request_json(scene->nats, format_text("$KV.%s.k.%u", scene->bucket, number), headers, value);
}

/* --- Answers --------------------------------------------------------------------------------------- */

START_TEST(what_was_read_before_is_answered_when_the_server_says_that_it_is_still_so)
{
    struct scene_of_reads scene = begin(NULL);
    uint64_t answered = stat_of(scene.client, "recall.answered"), checks = stat_of(scene.client, "recall.checks"),
             failed = stat_of(scene.client, "recall.failed");

    ck_assert_str_eq(bulk_get_all(scene.client, scene.bucket), expected(scene.values));
    ck_assert_uint_eq(stat_of(scene.client, "recall.answered"), answered + KEYS);
    ck_assert_uint_eq(stat_of(scene.client, "recall.checks"), checks + 1);
    ck_assert_uint_eq(stat_of(scene.client, "recall.failed"), failed);
    ck_assert_uint_ge(stat_of(scene.client, "recall.keys"), KEYS);
    const struct answer *before = client_call(scene.client, "kv.get", "['%s', 'k.3']", scene.bucket);
    uint32_t msgids[KEYS];
    send_gets(scene.client, scene.bucket, msgids);
    for (unsigned i = 0; i < KEYS; i++) {
        const struct answer *answer = client_wait(scene.client, msgids[i]);
        assert_ok(answer);
        if (i == 3)
            ck_assert_str_eq(object_text(&answer->result), object_text(&before->result));
    }
}
END_TEST

START_TEST(what_this_host_writes_is_read_at_once)
{
    struct scene_of_reads scene = begin(NULL);

    for (unsigned round = 0; round < 40; round++) {
        unsigned number = round * 7 % KEYS;
        const char *key = format_text("k.%u", number), *value = format_text("again-%u", round);
        switch (round % 4) {
        case 0:
            put_text(scene.client, scene.bucket, key, value);
            break;
        case 1:
            assert_ok(client_call(scene.client, "bulk.put", "['%s', {'%s': '%s'}]", scene.bucket, key, value));
            break;
        case 2:
            assert_ok(
                client_call(scene.client, "txn.commit", "['%s', [], [['put', '%s', '%s']]]", scene.bucket, key, value));
            break;
        default:
            delete_key(scene.client, scene.bucket, key);
            value = NULL;
        }
        scene.values[number] = value;
        ck_assert_str_eq(round % 2 ? get_all(scene.client, scene.bucket) : bulk_get_all(scene.client, scene.bucket),
                         expected(scene.values));
    }
}
END_TEST

START_TEST(what_others_write_is_read_at_once)
{
    struct scene_of_reads scene = begin(NULL);
    uint64_t failed = stat_of(scene.client, "recall.failed");

    for (unsigned round = 0; round < 20; round++) {
        unsigned number = round * 5 % KEYS;
        if (round % 4 == 3) {
            put_there(&scene, number, "KV-Operation: DEL\r\n", "");
            scene.values[number] = NULL;
        } else {
            scene.values[number] = format_text("theirs-%u", round);
            put_there(&scene, number, NULL, scene.values[number]);
        }
        if (round % 2)
            ck_assert_str_eq(bulk_get_all(scene.client, scene.bucket), expected(scene.values));
        ck_assert_str_eq(get_all(scene.client, scene.bucket), expected(scene.values));
    }
    expect_all(&scene);
    ck_assert_uint_eq(stat_of(scene.client, "recall.failed"), failed); /* the check brings what has changed */
}
END_TEST

START_TEST(when_others_write_to_all_keys_all_are_read_anew)
{
    struct scene_of_reads scene = begin(NULL);

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < KEYS; i++) {
            scene.values[i] = format_text("theirs-%u.%u", round, i);
            put_there(&scene, i, NULL, scene.values[i]);
        }
        expect_all(&scene);
    }
}
END_TEST

START_TEST(keys_that_others_purge_without_a_marker_are_not_there)
{
    struct scene_of_reads scene = begin(NULL);
    uint64_t failed = stat_of(scene.client, "recall.failed");

    nats_api(scene.nats, "STREAM.PURGE", format_text("KV_%s", scene.bucket), "{'filter': '$KV.%s.k.5'}", scene.bucket);
    scene.values[5] = NULL;
    ck_assert_str_eq(bulk_get_all(scene.client, scene.bucket), expected(scene.values));
    expect_all(&scene);
    nats_api(scene.nats, "STREAM.PURGE", format_text("KV_%s", scene.bucket), "{'filter': '$KV.%s.k.6'}", scene.bucket);
    scene.values[6] = NULL;
    ck_assert_str_eq(get_all(scene.client, scene.bucket), expected(scene.values));
    expect_all(&scene);
    nats_api(scene.nats, "STREAM.PURGE", format_text("KV_%s", scene.bucket), "{}");
    memset((void *)scene.values, 0, sizeof(scene.values));
    ck_assert_str_eq(get_all(scene.client, scene.bucket), expected(scene.values));
    expect_all(&scene);
    ck_assert_uint_ge(stat_of(scene.client, "recall.failed"), failed + 2);
}
END_TEST

/* The bucket's stream, deleted and made again. */
static void make_bucket_anew(struct scene_of_reads *scene)
{
    const char *stream = format_text("KV_%s", scene->bucket);
    json_t *info = nats_api(scene->nats, "STREAM.INFO", stream, "{}");
    char *config = json_dumps(json_object_get(info, "config"), JSON_COMPACT);

    nats_request_json(scene->nats, format_text("$JS.API.STREAM.DELETE.%s", stream), NULL, "");
    nats_request_json(scene->nats, format_text("$JS.API.STREAM.CREATE.%s", stream), NULL, config);
    free(config);
}

/* Its entries have the sequences that those of the other had, and then some. */
START_TEST(a_bucket_that_others_made_anew_under_its_name_is_another)
{
    struct scene_of_reads scene = begin(NULL);

    for (unsigned round = 0; round < 6; round++) {
        make_bucket_anew(&scene);
        for (unsigned i = 0; i < KEYS; i++) {
            /* Sometimes in another order, sometimes behind others. */
            unsigned number = round % 2 ? KEYS - 1 - i : i;
            if (round % 3 == 2)
                nats_request_json(scene.nats, format_text("$KV.%s.other.%u", scene.bucket, i), NULL, "x");
            scene.values[number] = format_text("new-%u.%u", round, number);
            put_there(&scene, number, NULL, scene.values[number]);
        }
        if (round % 2)
            ck_assert_str_eq(bulk_get_all(scene.client, scene.bucket), expected(scene.values));
        ck_assert_str_eq(get_all(scene.client, scene.bucket), expected(scene.values));
        expect_all(&scene);
    }
}
END_TEST

static void put_more(struct scene_of_reads *scene, unsigned count)
{
    while (count-- > 0)
        nats_request_json(scene->nats, format_text("$KV.%s.more", scene->bucket), NULL, "x");
}

/* The new one's entries are where the old one's last sequence is long past, and it is met by other keys first. */
START_TEST(entries_of_a_bucket_made_anew_do_not_mix_with_older_ones)
{
    struct scene_of_reads scene = begin(NULL);
    const char *others = "";

    put_more(&scene, 100);
    put_there(&scene, 0, NULL, "known to be last, by now");
    scene.values[0] = "known to be last, by now";
    remember_all(scene.client, scene.bucket, scene.values);
    make_bucket_anew(&scene);
    for (unsigned i = 0; i < KEYS; i++) {
        nats_request_json(scene.nats, format_text("$KV.%s.other.%u", scene.bucket, i), NULL, "x");
        others = format_text("%s%s'other.%u'", others, i > 0 ? ", " : "", i);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        scene.values[i] = format_text("new.%u", i);
        put_there(&scene, i, NULL, scene.values[i]);
    }
    put_more(&scene, 200);
    for (unsigned i = 0; i < 3; i++)
        assert_ok(client_call(scene.client, "bulk.get", "['%s', [%s]]", scene.bucket, others));
    others = format_text("%s, ", others);
    ck_assert_str_eq(bulk_get_with(scene.client, scene.bucket, others), expected(scene.values));
    expect_all(&scene);
}
END_TEST

START_TEST(keys_that_expire_are_gone)
{
    struct scene_of_reads scene = begin(NULL);
    uint64_t end = now_ms() + PATIENCE_MS;

    assert_ok(client_call(scene.client, "kv.put", "['%s', 'k.9', 'short', {'ttl': 1}]", scene.bucket));
    put_there(&scene, 10, "Nats-TTL: 1\r\n", "theirs");
    get_all(scene.client, scene.bucket); /* maybe before */
    scene.values[9] = scene.values[10] = NULL;
    while (strcmp(get_all(scene.client, scene.bucket), expected(scene.values)) != 0)
        ck_assert_msg(now_ms() < end, "%s", get_all(scene.client, scene.bucket));
    expect_all(&scene);
}
END_TEST

START_TEST(a_bucket_whose_entries_age_forgets_them)
{
    struct scene_of_reads scene = begin("'ttl': 8");
    uint64_t end = now_ms() + PATIENCE_MS, answered = stat_of(scene.client, "recall.answered");

    memset((void *)scene.values, 0, sizeof(scene.values));
    while (strcmp(get_all(scene.client, scene.bucket), expected(scene.values)) != 0)
        ck_assert_msg(now_ms() < end, "%s", get_all(scene.client, scene.bucket));
    ck_assert_uint_gt(stat_of(scene.client, "recall.answered"), answered);
    expect_all(&scene);
}
END_TEST

START_TEST(headers_of_entries_are_answered_however_often_they_are_read)
{
    struct scene_of_reads scene = begin(NULL);

    assert_ok(client_call(scene.client, "kv.put", "['%s', 'k.4', 'v4', {'headers': {'Color': 'blue'}}]", scene.bucket));
    for (unsigned round = 0; round < 4; round++) {
        uint32_t msgids[KEYS];
        send_gets(scene.client, scene.bucket, msgids);
        for (unsigned i = 0; i < KEYS; i++) {
            const struct answer *answer = client_wait(scene.client, msgids[i]);
            assert_ok(answer);
            if (i == 4)
                ck_assert_str_eq(text_at(&answer->result, "headers.Color"), "blue");
            else
                ck_assert_ptr_null(find_at(&answer->result, "headers"));
        }
    }
}
END_TEST

/* Writes that the server comes to between its two answers, and which are this host's, to other keys. */
START_TEST(writes_of_this_host_do_not_disturb_the_reads_of_other_keys)
{
    struct scene_of_reads scene = begin(NULL);
    struct client *writer = client_open_shared();
    uint64_t checks = stat_of(scene.client, "recall.checks"), failed = stat_of(scene.client, "recall.failed");
    msgpack_sbuffer puts;

    msgpack_sbuffer_init(&puts);
    for (unsigned round = 0; round < 100; round++) {
        msgpack_sbuffer_clear(&puts);
        for (unsigned i = 0; i < 50; i++)
            pack_put(&puts, i, scene.bucket, format_text("other.%u", i), "x", 1);
        client_write(writer, puts.data, puts.size);
        ck_assert_str_eq(get_all(scene.client, scene.bucket), expected(scene.values));
        for (unsigned i = 0; i < 50; i++)
            assert_ok(client_wait(writer, i));
    }
    msgpack_sbuffer_destroy(&puts);
    checks = stat_of(scene.client, "recall.checks") - checks;
    failed = stat_of(scene.client, "recall.failed") - failed;
    ck_assert_msg(checks >= 80 && failed <= 10, "%u of %u checks", (unsigned)failed, (unsigned)checks);
}
END_TEST

START_TEST(more_keys_than_one_read_takes_are_each_answered_once)
{
    enum { COUNT = 1500 };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    msgpack_sbuffer keys;

    put_many(client, bucket, "m.", 0, COUNT / 2, 16);
    put_many(client, bucket, "m.", COUNT / 2, COUNT - COUNT / 2, 16);
    msgpack_sbuffer_init(&keys);
    for (unsigned i = 0; i < COUNT; i++) {
        const char *key = format_text("%s'm.%06u'", i > 0 ? ", " : "", i);
        msgpack_sbuffer_write(&keys, key, strlen(key));
    }
    msgpack_sbuffer_write(&keys, "", 1);
    uint64_t checks = stat_of(client, "recall.checks");
    for (unsigned round = 0; round < 5; round++) {
        const struct answer *answer = client_call(client, "bulk.get", "['%s', [%s]]", bucket, keys.data);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), COUNT);
        for (uint32_t i = 0; i < answer->result.via.map.size; i++) {
            const msgpack_object_kv *member = &answer->result.via.map.ptr[i];
            ck_assert_int_eq(member->val.type, MSGPACK_OBJECT_MAP);
            const char *key = text_at(&member->val, "key");
            ck_assert_uint_eq(member->key.via.str.size, strlen(key));
            ck_assert_int_eq(memcmp(member->key.via.str.ptr, key, strlen(key)), 0);
        }
    }
    ck_assert_uint_gt(stat_of(client, "recall.checks"), checks);
    msgpack_sbuffer_destroy(&keys);
}
END_TEST

/* Another client's setting, while the bucket is trusted: what is read of it, and remembered, was of the other. */
START_TEST(a_bucket_whose_direct_reads_are_switched_off_is_read_all_the_same)
{
    struct scene_of_reads scene = begin(NULL);
    const char *stream = format_text("KV_%s", scene.bucket);
    json_t *info = nats_api(scene.nats, "STREAM.INFO", stream, "{}"), *config = json_object_get(info, "config");

    json_object_set_new(config, "allow_direct", json_false());
    char *text = json_dumps(config, JSON_COMPACT);
    nats_request_json(scene.nats, format_text("$JS.API.STREAM.UPDATE.%s", stream), NULL, text);
    free(text);
    put_there(&scene, 3, NULL, "theirs");
    scene.values[3] = "theirs";
    if (_i == 0)
        ck_assert_str_eq(bulk_get_all(scene.client, scene.bucket), expected(scene.values));
    ck_assert_str_eq(get_all(scene.client, scene.bucket), expected(scene.values));
    expect_all(&scene);
}
END_TEST

/* As a copy of an answer of NATS has it. */
START_TEST(a_header_that_names_another_key_changes_nothing)
{
    struct scene_of_reads scene = begin(NULL);

    for (unsigned i = 0; i < 2; i++) {
        put_there(&scene, 5, format_text("Nats-Subject: $KV.%s.k.6\r\nNats-Sequence: 1\r\n", scene.bucket), "copy");
        scene.values[5] = "copy";
        ck_assert_str_eq(i > 0 ? get_all(scene.client, scene.bucket) : bulk_get_all(scene.client, scene.bucket),
                         expected(scene.values));
        expect_all(&scene);
        const struct answer *answer =
            client_call(scene.client, "kv.get", "['%s', 'k.5', {'consistency': 'leader'}]", scene.bucket);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "value"), "copy");
        ck_assert_uint_gt(number_at(&answer->result, "revision"), 1);
        put_there(&scene, 5, NULL, "plain");
    }
}
END_TEST

/* A history may show what was before: its last entry going is no message. */
START_TEST(buckets_with_history_are_always_read)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5"), *values[KEYS];
    uint64_t checks = stat_of(client, "recall.checks");

    put_all(client, bucket, values);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_str_eq(get_all(client, bucket), expected(values));
        ck_assert_str_eq(bulk_get_all(client, bucket), expected(values));
    }
    ck_assert_uint_eq(stat_of(client, "recall.checks"), checks);
}
END_TEST

/* Several ask for one key at a time, and twice. */
START_TEST(many_who_ask_for_one_key_are_all_answered)
{
    struct scene_of_reads scene = begin(NULL);
    msgpack_sbuffer requests;

    for (unsigned round = 0; round < 4; round++) {
        const char *value = format_text("round-%u", round);
        msgpack_sbuffer_init(&requests);
        if (round > 0)
            put_there(&scene, 7, NULL, value);
        for (unsigned i = 0; i < 200; i++)
            pack_request(&requests, i, "kv.get", "['%s', 'k.%u']", scene.bucket, i % 2 ? 7 : i / 2 % KEYS);
        client_write(scene.client, requests.data, requests.size);
        msgpack_sbuffer_destroy(&requests);
        for (unsigned i = 0; i < 200; i++) {
            const struct answer *answer = client_wait(scene.client, i);
            assert_ok(answer);
            if (i % 2)
                ck_assert_str_eq(text_at(&answer->result, "value"), round > 0 ? value : "v7");
        }
    }
}
END_TEST

/* Another client counts up one key after the other; no reader may see less than was acknowledged when it asked. */
START_TEST(no_read_is_older_than_what_was_acknowledged_before_it)
{
    struct scene_of_reads scene = begin(NULL);
    unsigned counts[KEYS] = {0}, round = 0;
    uint64_t end = now_ms() + 2000;

    for (; now_ms() < end; round++) {
        uint32_t msgids[KEYS];
        unsigned number = round * 11 % KEYS;
        put_there(&scene, number, NULL, format_text("%u", ++counts[number]));
        send_gets(scene.client, scene.bucket, msgids);
        /* While they are read. */
        unsigned floor = counts[(number + 1) % KEYS];
        put_there(&scene, (number + 1) % KEYS, NULL, format_text("%u", ++counts[(number + 1) % KEYS]));
        for (unsigned i = 0; i < KEYS; i++) {
            const struct answer *answer = client_wait(scene.client, msgids[i]);
            assert_ok(answer);
            const char *value = text_at(&answer->result, "value");
            unsigned seen = value[0] == 'v' ? 0 : (unsigned)atoi(value);
            unsigned least = i == (number + 1) % KEYS ? floor : counts[i];
            ck_assert_msg(seen >= least && seen <= counts[i], "round %u, key %u: %u of %u to %u", round, i, seen, least,
                          counts[i]);
        }
    }
    ck_assert_uint_gt(round, 20);
    ck_assert_uint_gt(stat_of(scene.client, "recall.answered"), round * KEYS / 2);
}
END_TEST

/* --- Limits ---------------------------------------------------------------------------------------- */

START_TEST(what_is_remembered_stays_within_its_limit)
{
    struct daemon daemon;

    daemon_start(&daemon, NULL, "cache:\n  recall_bytes: 65536\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL), *keys = "";
    put_many(client, bucket, "big.", 0, 200, 1000);
    for (unsigned i = 0; i < 200; i++)
        keys = format_text("%s%s'big.%06u'", keys, i > 0 ? ", " : "", i);
    for (unsigned i = 0; i < 4; i++) {
        const struct answer *answer = client_call(client, "bulk.get", "['%s', [%s]]", bucket, keys);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), 200);
    }
    ck_assert_uint_gt(stat_of(client, "recall.keys"), 20);
    ck_assert_uint_le(stat_of(client, "recall.bytes"), 65536);
    daemon_stop(&daemon);
}
END_TEST

/* Beside the keys that are asked for, one more is, which tells whether it is still the same stream. */
START_TEST(a_read_that_fills_a_message_does_not_become_too_large)
{
    struct nats_server server;
    struct daemon daemon;
    const char *remembered = "", *keys = "";

    nats_server_start(&server, "max_payload: 65536\n");
    daemon_start(&daemon, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    for (unsigned i = 0; i < 10; i++) {
        put_text(client, bucket, format_text("known.%0900u", i), "v");
        remembered = format_text("%s%s'known.%0900u'", remembered, i > 0 ? ", " : "", i);
    }
    for (unsigned round = 0; round < 3; round++)
        assert_ok(client_call(client, "bulk.get", "['%s', [%s]]", bucket, remembered));
    ck_assert_uint_eq(stat_of(client, "recall.keys"), 10);
    for (unsigned i = 0; i < 700; i++)
        keys = format_text("%s%s'long.%0*u'", keys, i > 0 ? ", " : "", (int)(160 + i % 61), i);
    for (unsigned round = 0; round < 2; round++) {
        const struct answer *answer = client_call(client, "bulk.get", "['%s', [%s]]", bucket, keys);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), 700);
    }
    daemon_stop(&daemon);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_limit_of_nothing_remembers_nothing)
{
    struct daemon daemon;
    const char *values[KEYS];

    daemon_start(&daemon, NULL, "cache:\n  recall_bytes: 0\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    put_all(client, bucket, values);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_str_eq(get_all(client, bucket), expected(values));
        ck_assert_str_eq(bulk_get_all(client, bucket), expected(values));
    }
    ck_assert_uint_eq(stat_of(client, "recall.keys"), 0);
    ck_assert_uint_eq(stat_of(client, "recall.checks"), 0);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(a_deleted_bucket_is_not_remembered)
{
    struct scene_of_reads scene = begin(NULL);
    uint32_t msgids[KEYS];

    assert_ok(client_call(scene.client, "bucket.delete", "['%s']", scene.bucket));
    send_gets(scene.client, scene.bucket, msgids);
    for (unsigned i = 0; i < KEYS; i++)
        assert_code(client_wait(scene.client, msgids[i]), "bucket_not_found");
    assert_ok(client_call(scene.client, "bucket.create", "['%s']", scene.bucket));
    put_all(scene.client, scene.bucket, scene.values);
    remember_all(scene.client, scene.bucket, scene.values);
    /* Deleted by somebody else, while it is trusted. */
    nats_request_json(scene.nats, format_text("$JS.API.STREAM.DELETE.KV_%s", scene.bucket), NULL, "");
    send_gets(scene.client, scene.bucket, msgids);
    for (unsigned i = 0; i < KEYS; i++)
        assert_code(client_wait(scene.client, msgids[i]), "bucket_not_found");
}
END_TEST

Suite *recall_suite(void)
{
    Suite *suite = suite_create("recall");
    TCase *answers = shared_daemon_case_with(suite, "answers", setup, shared_daemon_teardown);

    tcase_add_test(answers, what_was_read_before_is_answered_when_the_server_says_that_it_is_still_so);
    tcase_add_test(answers, what_this_host_writes_is_read_at_once);
    tcase_add_test(answers, what_others_write_is_read_at_once);
    tcase_add_test(answers, when_others_write_to_all_keys_all_are_read_anew);
    tcase_add_test(answers, keys_that_others_purge_without_a_marker_are_not_there);
    tcase_add_test(answers, a_bucket_that_others_made_anew_under_its_name_is_another);
    tcase_add_test(answers, entries_of_a_bucket_made_anew_do_not_mix_with_older_ones);
    tcase_add_test(answers, keys_that_expire_are_gone);
    tcase_add_test(answers, a_bucket_whose_entries_age_forgets_them);
    tcase_add_test(answers, headers_of_entries_are_answered_however_often_they_are_read);
    tcase_add_test(answers, writes_of_this_host_do_not_disturb_the_reads_of_other_keys);
    tcase_add_test(answers, more_keys_than_one_read_takes_are_each_answered_once);
    tcase_add_loop_test(answers, a_bucket_whose_direct_reads_are_switched_off_is_read_all_the_same, 0, 2);
    tcase_add_test(answers, a_header_that_names_another_key_changes_nothing);
    tcase_add_test(answers, buckets_with_history_are_always_read);
    tcase_add_test(answers, many_who_ask_for_one_key_are_all_answered);
    tcase_add_test(answers, no_read_is_older_than_what_was_acknowledged_before_it);
    tcase_add_test(answers, a_deleted_bucket_is_not_remembered);

    TCase *limits = tcase_create("limits");
    tcase_set_timeout(limits, 60);
    tcase_add_test(limits, what_is_remembered_stays_within_its_limit);
    tcase_add_test(limits, a_read_that_fills_a_message_does_not_become_too_large);
    tcase_add_test(limits, a_limit_of_nothing_remembers_nothing);
    suite_add_tcase(suite, limits);
    return suite;
}
