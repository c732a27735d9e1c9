#include "tests/support/attack_runs.h"
#include "tests/support/flood.h"

#include "client/lib/kvstore_admin.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES (256u * 1024u)
#define PREPARE_S  50.0
#define OPERATIONS 1000u

/* --- Preparation ------------------------------------------------------------------------------------- */

static void check(struct attack *attack, struct kvs *kvs, enum kvs_code code)
{
    if (code != KVS_OK)
        attack_note_error(attack, kvs_last_error(kvs)->message);
}

static void put_zeros(struct attack *attack, struct kvs *kvs, size_t size)
{
    char *zeros = calloc(1, size);

    if (zeros == NULL)
        abort();
    check(attack, kvs, kvs_put(kvs, ATTACK_BUCKET, "key", zeros, size, NULL, NULL));
    free(zeros);
}

/* Put key.0, key.1, … with values of so many zeros. */
static void put_keys(struct attack *attack, struct kvs *kvs, unsigned count, size_t size)
{
    struct kvs_pair pairs[OPERATIONS];
    static char keys[OPERATIONS][64];
    char *zeros = calloc(1, size);

    if (zeros == NULL)
        abort();
    for (unsigned at = 0; at < count && attack->error[0] == '\0'; at += OPERATIONS) {
        for (unsigned i = 0; i < OPERATIONS; i++)
            pairs[i] = (struct kvs_pair){calls_numbered(keys[i], "key.", at + i), zeros, size};
        check(attack, kvs, kvs_bulk_put(kvs, ATTACK_BUCKET, pairs, OPERATIONS, NULL, NULL, NULL));
    }
    free(zeros);
}

static void put_one_key(struct attack *attack, struct kvs *kvs)
{
    put_zeros(attack, kvs, 16);
}

static void put_large_value(struct attack *attack, struct kvs *kvs)
{
    put_zeros(attack, kvs, 1000000);
}

static void put_large_keys(struct attack *attack, struct kvs *kvs)
{
    put_keys(attack, kvs, OPERATIONS, 15000);
}

static void put_many_keys(struct attack *attack, struct kvs *kvs)
{
    put_keys(attack, kvs, 100000, 8);
}

/* 600 KB of 120,000 numbers. */
static void put_json(struct attack *attack, struct kvs *kvs)
{
    enum { NUMBERS = 120000 };
    char *json = malloc(NUMBERS * 5 + 1);

    if (json == NULL)
        abort();
    for (unsigned i = 0; i < NUMBERS; i++)
        memcpy(json + i * 5, i == 0 ? "[1234" : ",1234", 5);
    json[NUMBERS * 5] = ']';
    check(attack, kvs, kvs_put(kvs, ATTACK_BUCKET, "key", json, NUMBERS * 5 + 1, NULL, NULL));
    free(json);
}

/* Names that a filter of many stars matches in very many ways, up to the last character. */
static void make_long_names(struct attack *attack, struct kvs *kvs)
{
    const struct kvs_bucket_options in_memory = KVS_BUCKET_OPTIONS(.storage = KVS_STORAGE_MEMORY);
    char name[256];

    memset(name, 'a', sizeof(name));
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name + 240, sizeof(name) - 240, "-%02u", i);
        enum kvs_code code = kvs_bucket_create(kvs, name, &in_memory, NULL);
        if (code != KVS_ALREADY_EXISTS)
            check(attack, kvs, code);
    }
}

const char *attack_why_not(const struct attack_kind *kind)
{
    return kind->why_not != NULL ? kind->why_not() : NULL;
}

void attack_prepare(const struct attack_kind *kind, struct attack *attack)
{
    const struct kvs_options options = KVS_OPTIONS(.timeout_s = PREPARE_S);
    const struct kvs_bucket_options in_memory = KVS_BUCKET_OPTIONS(.storage = KVS_STORAGE_MEMORY);
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(attack->socket_path, &options, &error);

    attack->error[0] = '\0';
    attack->done[0] = '\0';
    if (kvs == NULL) {
        attack_note_error(attack, error.message);
        return;
    }
    enum kvs_code code = kvs_bucket_delete(kvs, ATTACK_BUCKET, NULL);
    if (code != KVS_BUCKET_NOT_FOUND)
        check(attack, kvs, code);
    check(attack, kvs, kvs_bucket_create(kvs, ATTACK_BUCKET, &in_memory, NULL));
    if (kind->prepare != NULL && attack->error[0] == '\0')
        kind->prepare(attack, kvs);
    kvs_close(kvs);
}

void attack_run(const struct attack_kind *kind, struct attack *attack)
{
    kind->run(attack);
}

/* --- Attacks on the memory --------------------------------------------------------------------------- */

static void run_unfinished_messages(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    calls_add(&calls, "kv.put", 3, ATTACK_BUCKET);
    calls_add_text(&calls, "key");
    calls_add_zeros(&calls, 16u * 1024 * 1024 - 1024);
    calls.buffer.size -= 1024;
    flood_run(attack, 36, FLOOD_IGNORE, &calls);
}

static void run_unread_answers(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 20; i++) {
        calls_add(&calls, "kv.get", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add_cached(&calls);
    }
    flood_run(attack, 32, FLOOD_IGNORE, &calls);
}

static void run_decoded_arrays(struct attack *attack)
{
    enum { CALLS = 100, NUMBERS = 60000 };
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < CALLS; i++) {
        calls_add(&calls, "kv.put", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        msgpack_pack_array(&calls.packer, NUMBERS);
        for (unsigned n = 0; n < NUMBERS; n++)
            msgpack_pack_int(&calls.packer, 0);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_leaving(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 2000; i++) {
        calls_add(&calls, "kv.get", 2, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add(&calls, "kv.put", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add_zeros(&calls, 16);
    }
    flood_run(attack, 4, FLOOD_LEAVE, &calls);
}

/* --- Attacks with many keys -------------------------------------------------------------------------- */

static void run_bulk_put(struct attack *attack, const char *bucket)
{
    enum { SESSIONS = 4, CALLS = 128 / SESSIONS };
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < CALLS; i++) {
        calls_add(&calls, "bulk.put", 2, bucket);
        msgpack_pack_map(&calls.packer, OPERATIONS);
        for (unsigned n = 0; n < OPERATIONS; n++) {
            calls_add_text(&calls, calls_numbered(key, "attack.", n));
            calls_add_zeros(&calls, 100);
        }
    }
    flood_run(attack, SESSIONS, FLOOD_REPEAT, &calls);
}

static void run_bulk_put_same_bucket(struct attack *attack)
{
    run_bulk_put(attack, attack->neighbour_bucket);
}

static void run_bulk_put_other_bucket(struct attack *attack)
{
    run_bulk_put(attack, ATTACK_BUCKET);
}

/* All that a session may have in flight, on each of eight. The neighbour, who is the same user, still has room. */
static void run_puts(struct attack *attack)
{
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 4000; i++) {
        calls_add(&calls, "kv.put", 3, attack->neighbour_bucket);
        calls_add_text(&calls, calls_numbered(key, "attack.", i));
        calls_add_zeros(&calls, 4000);
    }
    flood_run(attack, 8, FLOOD_REPEAT, &calls);
}

/* All answers together fit into the share of one user, who is the neighbour, too: limits.user_percent. */
static void run_bulk_get(struct attack *attack)
{
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 6; i++) {
        calls_add(&calls, "bulk.get", 2, ATTACK_BUCKET);
        msgpack_pack_array(&calls.packer, OPERATIONS);
        for (unsigned n = 0; n < OPERATIONS; n++)
            calls_add_text(&calls, calls_numbered(key, "key.", n));
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

static void add_put(struct calls *calls, const char *key)
{
    msgpack_pack_array(&calls->packer, 3);
    calls_add_text(calls, "put");
    calls_add_text(calls, key);
    calls_add_zeros(calls, 16);
}

static void run_transactions(struct attack *attack)
{
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 32; i++) {
        calls_add(&calls, "txn.commit", 3, ATTACK_BUCKET);
        msgpack_pack_array(&calls.packer, 0);
        msgpack_pack_array(&calls.packer, OPERATIONS);
        for (unsigned n = 0; n < OPERATIONS; n++)
            add_put(&calls, calls_numbered(key, "key.", n));
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

static void run_checks(struct attack *attack)
{
    enum { CHECKS = 4096 };
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 16; i++) {
        calls_add(&calls, "txn.commit", 3, ATTACK_BUCKET);
        msgpack_pack_array(&calls.packer, CHECKS);
        for (unsigned n = 0; n < CHECKS; n++) {
            msgpack_pack_array(&calls.packer, 2);
            calls_add_text(&calls, calls_numbered(key, "missing.", n));
            msgpack_pack_int(&calls.packer, 0);
        }
        msgpack_pack_array(&calls.packer, 1);
        add_put(&calls, "key");
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

/* --- Attacks with many calls ------------------------------------------------------------------------- */

static void run_missing_buckets(struct attack *attack)
{
    struct calls calls;
    char bucket[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 2000; i++) {
        calls_add(&calls, "kv.get", 3, calls_numbered(bucket, "missing-", i));
        calls_add_text(&calls, "key");
        calls_add_cached(&calls);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_json_values(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 1500; i++) {
        calls_add(&calls, "kv.get_json", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add_cached(&calls);
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

static void run_keys_limit_one(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 100; i++) {
        calls_add(&calls, "kv.keys", 2, ATTACK_BUCKET);
        msgpack_pack_map(&calls.packer, 2);
        calls_add_text(&calls, "limit");
        msgpack_pack_int(&calls.packer, 1);
        calls_add_text(&calls, "consistency");
        calls_add_text(&calls, "cached");
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_bucket_filters(struct attack *attack)
{
    char filter[256];
    struct calls calls;

    for (unsigned i = 0; i < 254; i++)
        filter[i] = i % 2 == 0 ? '*' : 'a';
    strcpy(filter + 254, "b");
    calls_begin(&calls);
    for (unsigned i = 0; i < 500; i++) {
        msgpack_pack_array(&calls.packer, 4);
        msgpack_pack_int(&calls.packer, 0);
        msgpack_pack_uint32(&calls.packer, calls.count++);
        calls_add_text(&calls, "bucket.list");
        msgpack_pack_array(&calls.packer, 1);
        msgpack_pack_map(&calls.packer, 1);
        calls_add_text(&calls, "filter");
        calls_add_text(&calls, filter);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

/* The same call many times. */
static void run_calls(struct attack *attack, const char *method, const char *key, unsigned count)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < count; i++) {
        calls_add(&calls, method, 2, ATTACK_BUCKET);
        calls_add_text(&calls, key);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_missing_keys(struct attack *attack)
{
    run_calls(attack, "kv.get", "missing", 10000);
}

static void run_histories(struct attack *attack)
{
    run_calls(attack, "kv.history", "key", 5000);
}

/* --- Attacks with watches ---------------------------------------------------------------------------- */

static void run_watch_filters(struct attack *attack)
{
    struct calls calls;
    char filter[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 1000; i++) {
        calls_add(&calls, "watch.start", 2, attack->neighbour_bucket);
        msgpack_pack_map(&calls.packer, 1);
        calls_add_text(&calls, "filter");
        msgpack_pack_array(&calls.packer, 64);
        for (unsigned n = 0; n < 64; n++)
            calls_add_text(&calls, calls_numbered(filter, "*.filter", i * 64 + n));
    }
    flood_run(attack, 1, FLOOD_STAY, &calls);
}

/* Block until the socket has taken all, or has failed. */
static bool write_all(int socket, const msgpack_sbuffer *bytes)
{
    struct pollfd writable = {.fd = socket, .events = POLLOUT};

    for (size_t sent = 0; sent < bytes->size;) {
        ssize_t more = send(socket, bytes->data + sent, bytes->size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (more < 0 && (errno != EAGAIN || poll(&writable, 1, 1000) != 1))
            return false;
        sent += more > 0 ? (size_t)more : 0;
    }
    return true;
}

/* Wait for count answers and keep their results, which are watches' ids. Return false if time or session has ended. */
static bool read_ids(int socket, msgpack_unpacker *unpacker, unsigned count, uint64_t *ids, double end_s)
{
    struct pollfd readable = {.fd = socket, .events = POLLIN};
    msgpack_unpacked message;
    unsigned answers = 0;

    msgpack_unpacked_init(&message);
    while (answers < count && attack_now_s() < end_s) {
        if (msgpack_unpacker_next(unpacker, &message) == MSGPACK_UNPACK_SUCCESS) {
            const msgpack_object *parts = message.data.via.array.ptr;
            if (message.data.via.array.size == 4)
                ids[answers++] = parts[3].type == MSGPACK_OBJECT_POSITIVE_INTEGER ? parts[3].via.u64 : 0;
            continue;
        }
        if (!msgpack_unpacker_reserve_buffer(unpacker, READ_BYTES))
            abort();
        if (poll(&readable, 1, 20) != 1)
            continue;
        ssize_t received = recv(socket, msgpack_unpacker_buffer(unpacker), READ_BYTES, MSG_DONTWAIT);
        if (received == 0 || (received < 0 && errno != EAGAIN))
            break;
        if (received > 0)
            msgpack_unpacker_buffer_consumed(unpacker, (size_t)received);
    }
    msgpack_unpacked_destroy(&message);
    return answers == count;
}

static void run_watch_churn(struct attack *attack)
{
    enum { WATCHES = 50 };
    double end_s = attack_now_s() + attack->seconds;
    uint64_t ids[WATCHES] = {0};
    bool are_started = false;
    msgpack_unpacker unpacker;
    struct calls calls;
    int socket = flood_dial(attack->socket_path);

    msgpack_unpacker_init(&unpacker, READ_BYTES);
    do {
        calls_begin(&calls);
        for (unsigned i = 0; i < WATCHES; i++) {
            if (!are_started) {
                calls_add(&calls, "watch.start", 1, ATTACK_BUCKET);
                continue;
            }
            msgpack_pack_array(&calls.packer, 4);
            msgpack_pack_int(&calls.packer, 0);
            msgpack_pack_uint32(&calls.packer, i);
            calls_add_text(&calls, "watch.stop");
            msgpack_pack_array(&calls.packer, 1);
            msgpack_pack_uint64(&calls.packer, ids[i]);
        }
        are_started = !are_started;
        bool is_sent = write_all(socket, &calls.buffer);
        msgpack_sbuffer_destroy(&calls.buffer);
        if (!is_sent)
            break;
    } while (read_ids(socket, &unpacker, WATCHES, ids, end_s));
    msgpack_unpacker_destroy(&unpacker);
    close(socket);
}

/* --- The list ---------------------------------------------------------------------------------------- */

const struct attack_kind attack_kinds[] = {
    /* Many sessions, each with a message whose end never comes. */
    {"unfinished messages of 16 MB", NULL, run_unfinished_messages, NULL},
    /* Many sessions that ask for 20 MB each and read nothing of it. */
    {"unread answers", put_large_value, run_unread_answers, NULL},
    /* Arrays whose values take many times as much memory as they take in the message. */
    {"arrays of 60000 numbers", NULL, run_decoded_arrays, NULL},
    /* Sessions that close with thousands of calls in flight. */
    {"sessions that leave", put_one_key, run_leaving, NULL},
    /* 128 calls of bulk.put with 1,000 keys each, in the neighbour's bucket and in another one. */
    {"bulk.put to the same bucket", NULL, run_bulk_put_same_bucket, NULL},
    {"bulk.put to another bucket", NULL, run_bulk_put_other_bucket, NULL},
    {"bulk.get of 15 MB", put_large_keys, run_bulk_get, NULL},
    {"transactions of 1000 puts", NULL, run_transactions, NULL},
    {"transactions of 4096 checks", NULL, run_checks, NULL},
    /* 4,000 puts of 4 KB in flight on each of eight sessions. */
    {"puts to the same bucket", NULL, run_puts, NULL},
    /* 1,500 times the value from each of four sessions. */
    {"cached JSON values of 600 KB", put_json, run_json_values, NULL},
    /* The first key of 100,000 in memory. */
    {"listings of one key", put_many_keys, run_keys_limit_one, NULL},
    /* Pages of 1,000 entries, and pages without any, of 100,000 keys in memory. */
    {"pages of entries", put_many_keys, attack_run_entries, NULL},
    /* Eight sessions that delete all keys of a bucket, and write some again. */
    {"deletions of all keys", put_many_keys, attack_run_deletions, NULL},
    /* bucket.list with a filter that has a star for every other character. */
    {"filters of many stars", make_long_names, run_bucket_filters, NULL},
    /* Metadata of 4 MB for a bucket, from each of four sessions. */
    {"metadata of megabytes", NULL, attack_run_long_metadata, NULL},
    /* 10,000 gets in one write. */
    {"gets of a missing key", NULL, run_missing_keys, NULL},
    {"cached gets in missing buckets", NULL, run_missing_buckets, NULL},
    {"histories of a key", put_one_key, run_histories, NULL},
    /* Watches on another bucket, 50 at a time. */
    {"watches that start and stop", put_one_key, run_watch_churn, NULL},
    /* 1,000 watches with 64 filters each on the neighbour's bucket. */
    {"watches with 64000 filters", NULL, run_watch_filters, NULL},
    /* 8 sessions that acquire the same 300 locks, leave, and come back. */
    {"locks that change hands", NULL, attack_run_lock_churn, NULL},
    {"10000 waits for a lock", NULL, attack_run_lock_waiters, NULL},
    {"waiters for a lock that leave", NULL, attack_run_leaving_waiters, NULL},
    /* Connections that are closed as soon as they are made. */
    {"connections that close", NULL, attack_run_connections, NULL},
    /* At the port of the embedded server. */
    {"4000 wrong logins a second", NULL, attack_run_wrong_logins, NULL},
    {"10000 half-open connections", NULL, attack_run_half_open, attack_why_no_half_open},
};
const size_t attack_count = sizeof(attack_kinds) / sizeof(attack_kinds[0]);
