/* Many programs that increment one key. The peer reads it, and writes it on the condition that it is unchanged. */
#include "tests/bench/bench.h"

#include "client/lib/kvstore.h"

#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY "counter"

/* Each value that is returned must differ from all others, as revisions do. */
static void run_ours(struct bench_client *client)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(client->servers->socket_path, NULL, &error);

    if (kvs == NULL)
        bench_die("%s", error.message);
    bench_wait_for_all();
    double end_s = bench_now_s() + BENCH_ROUND_S;
    do {
        int64_t value;
        if (kvs_increment(kvs, BENCH_BUCKET, KEY, 1, NULL, &value, NULL) != KVS_OK)
            bench_die("an increment failed: %s", kvs_last_error(kvs)->message);
        bench_note_revision((uint64_t)value);
        client->operations++;
    } while (bench_now_s() < end_s);
    kvs_close(kvs);
}

/* Return whether the value was written; false: somebody else was first. */
static bool try_to_count(kvStore *store)
{
    kvEntry *entry = NULL;
    uint64_t revision = 0, value = 0;
    char text[24];
    natsStatus status = kvStore_Get(&entry, store, KEY);

    if (status == NATS_OK) {
        snprintf(text, sizeof(text), "%.*s", kvEntry_ValueLen(entry), (const char *)kvEntry_Value(entry));
        value = strtoull(text, NULL, 10);
        revision = kvEntry_Revision(entry);
        kvEntry_Destroy(entry);
    } else if (status != NATS_NOT_FOUND) {
        bench_die("the peer's get failed: %s", natsStatus_GetText(status));
    }
    int length = snprintf(text, sizeof(text), "%llu", (unsigned long long)++value);
    if (kvStore_Update(&revision, store, KEY, text, length, revision) != NATS_OK)
        return false;
    bench_note_revision(value);
    return true;
}

static void run_peer(struct bench_client *client)
{
    natsConnection *connection = NULL;
    jsCtx *js = NULL;
    kvStore *store = NULL;

    if (natsConnection_ConnectTo(&connection, client->servers->url) != NATS_OK ||
        natsConnection_JetStream(&js, connection, NULL) != NATS_OK || js_KeyValue(&store, js, BENCH_BUCKET) != NATS_OK)
        bench_die("the peer cannot connect");
    bench_wait_for_all();
    double end_s = bench_now_s() + BENCH_ROUND_S;
    do {
        client->operations += try_to_count(store);
    } while (bench_now_s() < end_s);
    kvStore_Destroy(store);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
}

double embedded_increment_per_s(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.servers = is_ours ? &bench->embedded : &bench->durable, .is_ours = is_ours};

    return bench_together(&client, BENCH_PROCESSES, is_ours ? run_ours : run_peer);
}

double increment_per_s(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.servers = &bench->ordinary, .is_ours = is_ours};

    return bench_together(&client, BENCH_PROCESSES, is_ours ? run_ours : run_peer);
}
