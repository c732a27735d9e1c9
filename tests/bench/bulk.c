#include "tests/bench/bench.h"

#include "client/lib/kvstore.h"
#include "tests/bench/raw.h"

#include <nats/nats.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define KEYS       1000u
#define OPERATIONS 100u

/* --- bulk: 1,000 keys in one call, or one after the other --------------------------------------------- */

struct keys {
    char names[KEYS][16];
    char values[KEYS][BENCH_VALUE_BYTES];
    const char *pointers[KEYS];
    struct kvs_pair pairs[KEYS];
};

static void make_keys(struct keys *keys, unsigned round)
{
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(keys->names[i], sizeof(keys->names[i]), "bulk.%u", i);
        bench_make_value(keys->values[i], keys->names[i], round);
        keys->pointers[i] = keys->names[i];
        keys->pairs[i] = (struct kvs_pair){keys->names[i], keys->values[i], BENCH_VALUE_BYTES};
    }
}

static void put_ours(struct kvs *kvs, const struct keys *keys)
{
    struct kvs_bulk_result *results = NULL;
    size_t failed = 0;

    if (kvs_bulk_put(kvs, BENCH_BUCKET, keys->pairs, KEYS, NULL, &results, &failed) != KVS_OK || failed > 0)
        bench_die("bulk.put failed: %s", kvs_last_error(kvs)->message);
    for (unsigned i = 0; i < KEYS; i++)
        bench_note_revision(results[i].revision);
    kvs_free(results);
}

static void get_ours(struct kvs *kvs, const struct keys *keys)
{
    struct kvs_entry **entries = NULL;

    if (kvs_bulk_get(kvs, BENCH_BUCKET, keys->pointers, KEYS, NULL, &entries) != KVS_OK)
        bench_die("bulk.get failed: %s", kvs_last_error(kvs)->message);
    for (unsigned i = 0; i < KEYS; i++) {
        if (entries[i] == NULL || entries[i]->value_size != BENCH_VALUE_BYTES ||
            memcmp(entries[i]->value, keys->values[i], BENCH_VALUE_BYTES) != 0)
            bench_die("bulk.get answered something else than was put");
    }
    kvs_free(entries);
}

/* The measured call, and the preparation before it. */
enum bulk_work { BULK_PUTS, BULK_GETS, BULK_GETS_OF_NEW };

static void run_ours(struct bench_client *client, enum bulk_work work)
{
    static struct keys keys;
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(client->servers->socket_path, NULL, &error);
    double begin_s, spent_s = 0;
    unsigned calls = 0;

    if (kvs == NULL)
        bench_die("%s", error.message);
    make_keys(&keys, 0);
    put_ours(kvs, &keys);
    while (spent_s < BENCH_ROUND_S) {
        if (work != BULK_GETS)
            make_keys(&keys, calls);
        if (work == BULK_GETS_OF_NEW)
            put_ours(kvs, &keys);
        begin_s = bench_now_s();
        if (work == BULK_PUTS)
            put_ours(kvs, &keys);
        else
            get_ours(kvs, &keys);
        spent_s += bench_now_s() - begin_s;
        if (work == BULK_PUTS)
            get_ours(kvs, &keys);
        calls++;
    }
    client->result = calls * KEYS / spent_s;
    kvs_close(kvs);
}

static void run_peer(struct bench_client *client, bool is_put)
{
    static struct keys keys;
    natsConnection *connection = NULL;
    jsCtx *js = NULL;
    kvStore *store = NULL;
    unsigned calls = 0;

    if (natsConnection_ConnectTo(&connection, client->servers->url) != NATS_OK ||
        natsConnection_JetStream(&js, connection, NULL) != NATS_OK || js_KeyValue(&store, js, BENCH_BUCKET) != NATS_OK)
        bench_die("the peer cannot connect");
    make_keys(&keys, 0);
    for (unsigned i = 0; i < KEYS; i++) {
        if (kvStore_Put(NULL, store, keys.names[i], keys.values[i], BENCH_VALUE_BYTES) != NATS_OK)
            bench_die("the peer's put failed");
    }
    double begin_s = bench_now_s();
    while (bench_now_s() < begin_s + BENCH_ROUND_S || calls % KEYS != 0) {
        unsigned i = calls++ % KEYS;
        if (is_put) {
            uint64_t revision = 0;
            if (kvStore_Put(&revision, store, keys.names[i], keys.values[i], BENCH_VALUE_BYTES) != NATS_OK)
                bench_die("the peer's put failed");
            bench_note_revision(revision);
        } else {
            kvEntry *entry = NULL;
            if (kvStore_Get(&entry, store, keys.names[i]) != NATS_OK ||
                kvEntry_ValueLen(entry) != (int)BENCH_VALUE_BYTES ||
                memcmp(kvEntry_Value(entry), keys.values[i], BENCH_VALUE_BYTES) != 0)
                bench_die("the peer's get failed");
            kvEntry_Destroy(entry);
        }
    }
    client->result = calls / (bench_now_s() - begin_s);
}

static void run_bulk(struct bench_client *client, enum bulk_work work)
{
    if (client->is_ours)
        run_ours(client, work);
    else
        run_peer(client, work == BULK_PUTS);
}

static void run_bulk_put(struct bench_client *client)
{
    run_bulk(client, BULK_PUTS);
}

static void run_bulk_get(struct bench_client *client)
{
    run_bulk(client, BULK_GETS);
}

static void run_bulk_get_new(struct bench_client *client)
{
    run_bulk(client, BULK_GETS_OF_NEW);
}

static double bulk_per_s(const struct bench *bench, bool is_ours, void (*run)(struct bench_client *client))
{
    const struct bench_client client = {.bench = bench, .servers = &bench->ordinary, .is_ours = is_ours};

    return bench_alone(&client, run);
}

double bulk_put_per_s(const struct bench *bench, bool is_ours)
{
    return bulk_per_s(bench, is_ours, run_bulk_put);
}

double bulk_get_per_s(const struct bench *bench, bool is_ours)
{
    return bulk_per_s(bench, is_ours, run_bulk_get);
}

double embedded_bulk_get_per_s(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.servers = is_ours ? &bench->embedded : &bench->ordinary, .is_ours = is_ours};

    return bench_alone(&client, run_bulk_get);
}

double bulk_get_new_per_s(const struct bench *bench, bool is_ours)
{
    return bulk_per_s(bench, is_ours, run_bulk_get_new);
}

/* --- Transactions: 100 puts, or a plain socket that writes an atomic batch ------------------------------ */

static void commit(struct kvs *kvs, unsigned round)
{
    char key[32], value[BENCH_VALUE_BYTES];
    struct kvs_txn *txn = kvs_txn_begin(kvs, BENCH_BUCKET);
    uint64_t *revisions = NULL;
    size_t count = 0;

    for (unsigned i = 1; i <= OPERATIONS; i++) {
        snprintf(key, sizeof(key), "txn.%u", i);
        bench_make_value(value, key, round);
        kvs_txn_put(txn, key, value, sizeof(value), NULL);
    }
    if (kvs_txn_commit(txn, NULL, &revisions, &count) != KVS_OK || count != OPERATIONS)
        bench_die("a transaction failed: %s", kvs_last_error(kvs)->message);
    for (size_t i = 0; i < count; i++)
        bench_note_revision(revisions[i]);
    kvs_free(revisions);
    kvs_txn_free(txn);
}

static void check_committed(struct kvs *kvs, unsigned round)
{
    struct kvs_entry *entry = NULL;
    char key[32];

    for (unsigned i = 1; i <= OPERATIONS; i++) {
        snprintf(key, sizeof(key), "txn.%u", i);
        if (kvs_get(kvs, BENCH_BUCKET, key, NULL, &entry) != KVS_OK || entry == NULL ||
            !bench_is_value(entry->value, entry->value_size, key, round))
            bench_die("a transaction's value is not there");
        kvs_free(entry);
    }
}

static void run_txn(struct bench_client *client)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(client->servers->socket_path, NULL, &error);
    struct raw_batch *batch = client->is_ours ? NULL : raw_batch_open(client->servers->port, OPERATIONS);
    double begin_s = bench_now_s();
    unsigned calls = 0;

    if (kvs == NULL)
        bench_die("%s", error.message);
    while (bench_now_s() < begin_s + BENCH_ROUND_S) {
        if (client->is_ours)
            commit(kvs, calls++);
        else
            bench_note_revision(raw_batch_commit(batch, calls++));
    }
    client->result = (bench_now_s() - begin_s) * 1e6 / calls;
    check_committed(kvs, calls - 1);
    kvs_close(kvs);
}

double txn_us(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.bench = bench, .servers = &bench->ordinary, .is_ours = is_ours};

    return bench_alone(&client, run_txn);
}
