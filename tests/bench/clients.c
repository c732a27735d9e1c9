#include "tests/bench/bench.h"

#include "client/lib/kvstore.h"

#include <nats/nats.h>
#include <stdio.h>
#include <string.h>

#define KEYS         1000u
#define KEYS_OF_EACH 16u

/* The two sides: libkvstore with the daemon, or the NATS library with the server. */
struct side {
    struct kvs *ours;
    natsConnection *connection;
    jsCtx *js;
    kvStore *peer;
};

static void open_side(struct side *side, const struct bench_client *client)
{
    struct kvs_error error;

    memset(side, 0, sizeof(*side));
    if (client->is_ours) {
        if ((side->ours = kvs_connect(client->servers->socket_path, NULL, &error)) == NULL)
            bench_die("%s", error.message);
    } else if (natsConnection_ConnectTo(&side->connection, client->servers->url) != NATS_OK ||
               natsConnection_JetStream(&side->js, side->connection, NULL) != NATS_OK ||
               js_KeyValue(&side->peer, side->js, BENCH_BUCKET) != NATS_OK) {
        bench_die("the peer cannot connect");
    }
}

static void put(struct side *side, const char *key, unsigned number)
{
    char value[BENCH_VALUE_BYTES];
    uint64_t revision = 0;

    bench_make_value(value, key, number);
    if (side->ours != NULL) {
        if (kvs_put(side->ours, BENCH_BUCKET, key, value, sizeof(value), NULL, &revision) != KVS_OK)
            bench_die("a put failed: %s", kvs_last_error(side->ours)->message);
    } else {
        natsStatus status = kvStore_Put(&revision, side->peer, key, value, sizeof(value));
        if (status != NATS_OK)
            bench_die("the peer's put failed: %s", natsStatus_GetText(status));
    }
    bench_note_revision(revision);
}

static void get(struct side *side, const char *key, unsigned number)
{
    if (side->ours != NULL) {
        struct kvs_entry *entry = NULL;
        if (kvs_get(side->ours, BENCH_BUCKET, key, NULL, &entry) != KVS_OK)
            bench_die("a get failed: %s", kvs_last_error(side->ours)->message);
        if (entry == NULL || !bench_is_value(entry->value, entry->value_size, key, number))
            bench_die("a get of %s answered something else than was put", key);
        kvs_free(entry);
    } else {
        kvEntry *entry = NULL;
        natsStatus status = kvStore_Get(&entry, side->peer, key);
        if (status != NATS_OK)
            bench_die("the peer's get failed: %s", natsStatus_GetText(status));
        if (!bench_is_value(kvEntry_Value(entry), (size_t)kvEntry_ValueLen(entry), key, number))
            bench_die("the peer's get of %s answered something else than was put", key);
        kvEntry_Destroy(entry);
    }
}

/* --- One client, one call at a time ------------------------------------------------------------------- */

static void run_one(struct bench_client *client, bool is_put)
{
    struct side side;
    char key[32];
    unsigned calls = 0;

    open_side(&side, client);
    for (unsigned i = 0; !is_put && i < KEYS; i++) {
        snprintf(key, sizeof(key), "one.%u", i);
        put(&side, key, i);
    }
    double begin_s = bench_now_s(), end_s = begin_s + BENCH_ROUND_S, now_s;
    do {
        unsigned i = calls++ % KEYS;
        snprintf(key, sizeof(key), "one.%u", i);
        if (is_put)
            put(&side, key, i);
        else
            get(&side, key, i);
        now_s = bench_now_s();
    } while (now_s < end_s);
    client->result = (now_s - begin_s) * 1e6 / calls;
    for (unsigned i = 0; is_put && i < KEYS && i < calls; i++) {
        snprintf(key, sizeof(key), "one.%u", i);
        get(&side, key, i);
    }
}

static void run_one_put(struct bench_client *client)
{
    run_one(client, true);
}

static void run_one_get(struct bench_client *client)
{
    run_one(client, false);
}

double one_put_us(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.bench = bench, .servers = &bench->ordinary, .is_ours = is_ours};

    return bench_alone(&client, run_one_put);
}

double one_get_us(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.bench = bench, .servers = &bench->ordinary, .is_ours = is_ours};

    return bench_alone(&client, run_one_get);
}

/* --- Many clients, each a process with one call at a time --------------------------------------------- */

static void run_many(struct bench_client *client, bool only_puts)
{
    struct side side;
    char key[32];

    open_side(&side, client);
    bench_wait_for_all();
    double end_s = bench_now_s() + BENCH_ROUND_S;
    for (unsigned i = 0; bench_now_s() < end_s; i++) {
        unsigned number = only_puts ? i : i / 2;
        snprintf(key, sizeof(key), "many.%u.%u", client->number, number % KEYS_OF_EACH);
        if (only_puts || i % 2 == 0)
            put(&side, key, number);
        else
            get(&side, key, number);
        client->operations++;
    }
    snprintf(key, sizeof(key), "many.%u.0", client->number);
    get(&side, key, UINT32_MAX);
}

static void run_many_both(struct bench_client *client)
{
    run_many(client, false);
}

static void run_many_puts(struct bench_client *client)
{
    run_many(client, true);
}

static double together_per_s(const struct bench_servers *servers, bool is_ours, unsigned count,
                             void (*run)(struct bench_client *client))
{
    const struct bench_client client = {.servers = servers, .is_ours = is_ours};

    return bench_together(&client, count, run);
}

double many_clients_per_s(const struct bench *bench, bool is_ours)
{
    return together_per_s(&bench->ordinary, is_ours, BENCH_PROCESSES, run_many_both);
}

double durable_clients_per_s(const struct bench *bench, bool is_ours)
{
    return together_per_s(&bench->durable, is_ours, BENCH_PROCESSES, run_many_puts);
}

/* --- Embedded mode ------------------------------------------------------------------------------------ */

double embedded_get_us(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.servers = is_ours ? &bench->embedded : &bench->ordinary, .is_ours = is_ours};

    return bench_alone(&client, run_one_get);
}

double embedded_put_per_s(const struct bench *bench, bool is_ours)
{
    return together_per_s(is_ours ? &bench->embedded : &bench->durable, is_ours, BENCH_PROCESSES, run_many_puts);
}

double embedded_both_per_s(const struct bench *bench, bool is_ours)
{
    return together_per_s(is_ours ? &bench->embedded : &bench->durable, is_ours, BENCH_PROCESSES, run_many_both);
}

/* Two more daemons, which differ from bench->embedded in this setting. */
static const struct bench_servers *place_with(const struct bench *bench, bool is_on)
{
    static struct bench_servers on, off;
    struct bench_servers *servers = is_on ? &on : &off;

    if (servers->daemon == 0)
        bench_start_embedded(bench, servers, is_on ? "embedded-on" : "embedded-off", is_on ? "on" : "off");
    return servers;
}

static double auto_per_s(const struct bench *bench, bool is_ours, unsigned count)
{
    if (is_ours)
        return together_per_s(&bench->embedded, true, count, run_many_puts);
    double on = together_per_s(place_with(bench, true), true, count, run_many_puts);
    double off = together_per_s(place_with(bench, false), true, count, run_many_puts);
    return on > off ? on : off;
}

double auto_1_per_s(const struct bench *bench, bool is_ours)
{
    return auto_per_s(bench, is_ours, 1);
}

double auto_4_per_s(const struct bench *bench, bool is_ours)
{
    return auto_per_s(bench, is_ours, 4);
}

double auto_16_per_s(const struct bench *bench, bool is_ours)
{
    return auto_per_s(bench, is_ours, 16);
}

double auto_64_per_s(const struct bench *bench, bool is_ours)
{
    return auto_per_s(bench, is_ours, 64);
}

double auto_256_per_s(const struct bench *bench, bool is_ours)
{
    return auto_per_s(bench, is_ours, BENCH_PROCESSES_MAX);
}
