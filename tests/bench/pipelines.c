#include "tests/bench/load.h"

#define KEYS      1000u
#define ONCE_KEYS 100000u

static struct load pipeline_of(const struct bench *bench, bool is_ours, enum load_operation operation)
{
    const struct bench_servers *servers = &bench->ordinary;
    struct load load = {.operation = operation, .prefix = "deep", .connections = 1, .depth = 1024, .keys = KEYS};

    load.protocol = is_ours ? &load_kvstored : &load_nats;
    load.where = is_ours ? (const void *)servers->socket_path : &servers->port;
    return load;
}

double pipelined_put_per_s(const struct bench *bench, bool is_ours)
{
    const struct load load = pipeline_of(bench, is_ours, LOAD_PUT);

    return load_per_s(&load);
}

double pipelined_get_per_s(const struct bench *bench, bool is_ours)
{
    const struct load written = pipeline_of(bench, true, LOAD_PUT), load = pipeline_of(bench, is_ours, LOAD_GET);

    load_fill(&written);
    return load_per_s(&load);
}

/* Each key is new, and read for the first time. */
double pipelined_get_once_per_s(const struct bench *bench, bool is_ours)
{
    struct load written = pipeline_of(bench, true, LOAD_PUT), load = pipeline_of(bench, is_ours, LOAD_GET);

    written.prefix = load.prefix = "once";
    written.keys = load.keys = ONCE_KEYS;
    load.has_total = true;
    load.total = ONCE_KEYS;
    load_fill(&written);
    return load_per_s(&load);
}

double embedded_deep_per_s(const struct bench *bench, bool is_ours)
{
    const struct load load = {.protocol = &load_kvstored,
                              .where = bench->embedded.socket_path,
                              .operation = LOAD_PUT,
                              .prefix = "deep",
                              .connections = 16,
                              .depth = 64,
                              .keys = 4096};

    return is_ours ? load_per_s(&load) : durable_clients_per_s(bench, false);
}

/* --- Beside Redis: the same client on both sides -------------------------------------------------------- */

double redis_set_durable_per_s(const struct bench *bench, bool is_ours)
{
    const struct load load = {.protocol = is_ours ? &load_kvstored : &load_redis,
                              .where = is_ours ? bench->embedded.socket_path : bench->redis_durable.socket_path,
                              .operation = LOAD_PUT,
                              .prefix = "set",
                              .connections = 64,
                              .depth = 1,
                              .keys = KEYS};

    return load_per_s(&load);
}
