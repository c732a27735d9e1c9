#include "tests/bench/bench.h"

#include "client/kvstore.h"
#include "tests/bench/load.h"

#include <stdio.h>
#include <sys/resource.h>

#define IDLE_SESSIONS 10000u
#define BUCKETS       1000u
#define KEYS          1000u

/* The daemon's processor time for one call of the load: what more of everything costs, whatever the server does. */
static void run_counted(struct bench_client *client)
{
    uint64_t answered = 0;
    double before_us = bench_cpu_us(client->place->daemon);

    load_run(client->context, &answered);
    client->result = (bench_cpu_us(client->place->daemon) - before_us) / (double)answered;
}

static double operation_us(const struct bench *bench, const struct bench_place *place, struct load *load,
                           enum load_operation operation)
{
    struct bench_client client = {.bench = bench, .place = place, .context = load};

    load->protocol = &load_kvstored;
    load->where = place->socket_path;
    load->prefix = "scale";
    load->keys = KEYS;
    load->operation = operation;
    return bench_alone(&client, run_counted);
}

static double call_us(const struct bench *bench, struct load *load)
{
    double put_us = operation_us(bench, &bench->ordinary, load, LOAD_PUT);

    return (put_us + operation_us(bench, &bench->ordinary, load, LOAD_GET)) / 2;
}

/* --- Idle sessions ----------------------------------------------------------------------------------------- */

static void open_sessions(const void *context)
{
    const struct rlimit limit = {IDLE_SESSIONS + 64, IDLE_SESSIONS + 64};

    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        bench_die("this row needs %u open files: raise the limit (ulimit -n)", IDLE_SESSIONS + 64);
    for (unsigned i = 0; i < IDLE_SESSIONS; i++)
        load_connect_unix(context);
}

double idle_sessions_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 16, .depth = 16};
    pid_t holder = is_ours ? bench_hold(open_sessions, bench->ordinary.socket_path) : 0;
    double us = call_us(bench, &load);

    bench_end(holder);
    return us;
}

/* --- Buckets ----------------------------------------------------------------------------------------------- */

static void make_buckets(struct bench_client *client)
{
    const struct kvs_bucket_options options = {.storage = KVS_STORAGE_MEMORY};
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(client->place->socket_path, NULL, &error);
    char name[32];

    for (unsigned i = 0; i < BUCKETS; i++) {
        snprintf(name, sizeof(name), "many-%u", i);
        if (kvs == NULL || kvs_bucket_create(kvs, name, &options, NULL) != KVS_OK)
            bench_die("a bucket could not be made");
    }
    kvs_close(kvs);
}

/* All of them are there and known on both sides; what differs is how many are used. */
double many_buckets_us(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.bench = bench, .place = &bench->ordinary};
    const struct load once = {.protocol = &load_kvstored,
                              .where = bench->ordinary.socket_path,
                              .prefix = "scale",
                              .keys = KEYS,
                              .buckets = BUCKETS};
    struct load load = {.connections = 16, .depth = 16, .buckets = is_ours ? BUCKETS : 1};
    static bool is_made;

    if (!is_made)
        bench_alone(&client, make_buckets);
    is_made = true;
    load_fill(&once);
    return call_us(bench, &load);
}

/* --- Calls in flight ----------------------------------------------------------------------------------------- */

double in_flight_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 16, .depth = is_ours ? 512 : 4};

    return call_us(bench, &load);
}

/* --- TLS ----------------------------------------------------------------------------------------------------- */

static double over_tls_us(const struct bench *bench, bool is_encrypted, struct load *load,
                          enum load_operation operation)
{
    const struct bench_place *encrypted = bench_start_encrypted(bench);
    const struct bench_place *place = is_encrypted ? encrypted : &bench->ordinary;
    const struct load once = {.protocol = &load_kvstored, .where = place->socket_path, .prefix = "scale", .keys = KEYS};

    load_fill(&once);
    return operation_us(bench, place, load, operation);
}

double tls_put_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 16, .depth = 16};

    return over_tls_us(bench, is_ours, &load, LOAD_PUT);
}

double tls_get_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 16, .depth = 16};

    return over_tls_us(bench, is_ours, &load, LOAD_GET);
}

double tls_one_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 1, .depth = 1};
    double put_us = over_tls_us(bench, is_ours, &load, LOAD_PUT);

    return (put_us + over_tls_us(bench, is_ours, &load, LOAD_GET)) / 2;
}
