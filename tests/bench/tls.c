/* What one call costs the daemon if its connection to the server is encrypted; the peer's is not. */
#include "tests/bench/bench.h"

#include "tests/bench/load.h"

static double operation_us(const struct bench *bench, bool is_encrypted, struct load *load,
                           enum load_operation operation)
{
    const struct bench_servers *encrypted = bench_start_encrypted(bench);
    const struct bench_servers *servers = is_encrypted ? encrypted : &bench->ordinary;

    load->protocol = &load_kvstored;
    load->where = servers->socket_path;
    load->prefix = "tls";
    load->keys = 1000;
    load->operation = operation;
    load_fill(load);
    return load_cost_us(load, servers->daemon);
}

double tls_put_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 16, .depth = 16};

    return operation_us(bench, is_ours, &load, LOAD_PUT);
}

double tls_get_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 16, .depth = 16};

    return operation_us(bench, is_ours, &load, LOAD_GET);
}

double tls_one_us(const struct bench *bench, bool is_ours)
{
    struct load load = {.connections = 1, .depth = 1};
    double put_us = operation_us(bench, is_ours, &load, LOAD_PUT);

    return (put_us + operation_us(bench, is_ours, &load, LOAD_GET)) / 2;
}
