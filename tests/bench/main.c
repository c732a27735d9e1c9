/*
 * bench KVSTORED NATS-SERVER REDIS-SERVER DIRECTORY JSON [PATTERN…]
 *
 * All paths are absolute; DIRECTORY is empty, and the benchmark's own. With patterns (as the shell's) only the rows
 * whose names match one of them. The exit status is 1 when a row misses what it must reach.
 */
#include "tests/bench/bench.h"
#include "tests/bench/table.h"

#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NEIGHBOUR_P99_MS 30 /* what an attack may cost another client */

static const char clients[] = "One call after the other", pipelines[] = "Many calls in flight",
                  many_keys[] = "Many keys in one call", durable[] = "A server that syncs each write to its disk",
                  redis[] = "Beside Redis", scale[] = "What a call costs when there is more of everything",
                  tls[] = "Over TLS; the peer is without it", size[] = "Size", cache[] = "The near cache and watches",
                  neighbour[] = "Beside a bad neighbour; the peer is without it";

/* The figures: issue 4's and, for the near cache and watches, issue 5's. */
static const struct table_row rows[] = {
    {clients, "one client put vs libnats kvStore_Put", "us", false, false, 1.35, 1.2, 0, one_put_us},
    {clients, "one client get vs libnats kvStore_Get", "us", false, false, 1.35, 1.0, 0, one_get_us},
    {clients, "many-clients vs direct connections", "ops/s", true, false, 2.0, 2.6, 0, many_clients_per_s},
    {pipelines, "pipelined put vs raw socket", "ops/s", true, false, 0.60, 0.8, 0, pipelined_put_per_s},
    {pipelines, "pipelined get vs raw socket", "ops/s", true, false, 0.60, 0.8, 0, pipelined_get_per_s},
    {pipelines, "pipelined get, both what kvstored wrote", "ops/s", true, false, 0, 0, 0, pipelined_get_ours_per_s},
    {pipelines, "pipelined get, both what the raw socket wrote", "ops/s", true, false, 0, 0, 0,
     pipelined_get_foreign_per_s},
    {pipelines, "pipelined get, each key once vs raw socket", "ops/s", true, false, 0, 0, 0, pipelined_get_once_per_s},
    {many_keys, "bulk.get 1000 vs 1000 kvStore_Get", "keys/s", true, false, 20, 30, 0, bulk_get_per_s},
    {many_keys, "bulk.get 1000, just written vs 1000 kvStore_Get", "keys/s", true, false, 0, 0, 0, bulk_get_new_per_s},
    {many_keys, "bulk.put 1000 vs 1000 kvStore_Put", "keys/s", true, false, 20, 25, 0, bulk_put_per_s},
    {many_keys, "txn.commit 100 vs raw atomic batch", "us", false, false, 1.15, 1.1, 0, txn_us},
    {durable, "durable 64 clients vs direct connections", "ops/s", true, false, 4.0, 5, 0, durable_clients_per_s},
    {durable, "durable 1024 in flight vs direct connections", "ops/s", true, false, 12.0, 20, 0, durable_deep_per_s},
    {redis, "redis SET durable, 64 clients", "ops/s", true, false, 0, 1.0, 0, redis_set_durable_per_s},
    {redis, "redis GET, 50 clients", "ops/s", true, false, 0, 1.0, 0, redis_get_per_s},
    {cache, "cached get, 1 client vs redis GET", "us", false, true, 1.0, 1.0, 0, cached_one_us},
    {cache, "cached get, 50 clients vs redis GET", "ops/s", true, true, 1.0, 1.0, 0, cached_many_per_s},
    {cache, "cached get, 50 clients pipelined 16 vs redis GET", "ops/s", true, true, 0.8, 1.0, 0,
     cached_pipelined_per_s},
    {cache, "watch fan-out 1000, p99", "ms", false, true, 0, 0, 0, fan_out_p99_ms},
    {cache, "cache bytes per key", "bytes", false, true, 0, 0, 96, cached_key_bytes},
    {size, "idle memory", "KB", false, false, 0, 0, 8192, idle_memory_kb},
    {size, "memory per idle client", "KB", false, false, 0, 0, 4, idle_client_kb},
    {size, "start to first answer", "ms", false, false, 0, 0, 0, first_answer_ms},
    {scale, "cost of a call, 10000 idle sessions vs none", "us", false, false, 0, 1.0, 0, idle_sessions_us},
    {scale, "cost of a call, 8192 in flight vs 64", "us", false, false, 0, 1.0, 0, in_flight_us},
    {scale, "cost of a call, 1000 buckets vs 1", "us", false, false, 0, 1.0, 0, many_buckets_us},
    {tls, "cost of a put over TLS vs without", "us", false, false, 0, 1.3, 0, tls_put_us},
    {tls, "cost of a get over TLS vs without", "us", false, false, 0, 1.3, 0, tls_get_us},
    {tls, "cost of a put and a get over TLS, one in flight", "us", false, false, 1.3, 1.1, 0, tls_one_us},
    {neighbour, "neighbour of unfinished messages of 16 MB, p99", "ms", false, false, 0, 0, NEIGHBOUR_P99_MS,
     neighbour_unfinished_ms},
    {neighbour, "neighbour of unread answers, p99", "ms", false, true, 0, 0, NEIGHBOUR_P99_MS, neighbour_unread_ms},
    {neighbour, "neighbour of sessions that leave, p99", "ms", false, false, 0, 0, NEIGHBOUR_P99_MS,
     neighbour_leaving_ms},
    {neighbour, "neighbour of bulk.put to the same bucket, p99", "ms", false, false, 0, 0, NEIGHBOUR_P99_MS,
     neighbour_bulk_put_ms},
    {neighbour, "neighbour of bulk.get of 15 MB, p99", "ms", false, false, 0, 0, NEIGHBOUR_P99_MS,
     neighbour_bulk_get_ms},
    {neighbour, "neighbour of transactions of 1000, p99", "ms", false, false, 0, 0, NEIGHBOUR_P99_MS,
     neighbour_transactions_ms},
    {neighbour, "neighbour of cached JSON values of 1 MB, p99", "ms", false, true, 0, 0, NEIGHBOUR_P99_MS,
     neighbour_json_ms},
    {neighbour, "neighbour of watches that start and stop, p99", "ms", false, true, 0, 0, NEIGHBOUR_P99_MS,
     neighbour_watch_churn_ms},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static bool is_wanted(const struct table_row *row, int count, char **patterns)
{
    for (int i = 0; i < count; i++) {
        if (fnmatch(patterns[i], row->name, 0) == 0)
            return true;
    }
    return count == 0;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const struct bench *bench, const struct table_row *row, struct table_result *result)
{
    result->row = row;
    for (unsigned round = 0; round < TABLE_ROUNDS; round++) {
        table_print_progress(row, round);
        result->ours[round] = row->measure(bench, true);
        result->peer[round] = row->measure(bench, false);
    }
    qsort(result->ours, TABLE_ROUNDS, sizeof(result->ours[0]), compare);
    qsort(result->peer, TABLE_ROUNDS, sizeof(result->peer[0]), compare);
}

int main(int argc, char **argv)
{
    static struct table_result results[ROWS];
    static struct bench bench;
    const char *section = NULL;
    size_t count = 0;
    int status = 0;

    if (argc < 6) {
        fprintf(stderr, "usage: bench KVSTORED NATS-SERVER REDIS-SERVER DIRECTORY JSON [PATTERN...]\n");
        return 2;
    }
    bench.kvstored = argv[1];
    bench.nats_server = argv[2];
    bench.redis_server = argv[3];
    if (chdir(argv[4]) != 0)
        bench_die("%s is not there", argv[4]);
    signal(SIGPIPE, SIG_IGN);

    bench_start(&bench);
    table_print_head();
    for (size_t i = 0; i < ROWS; i++) {
        if (!is_wanted(&rows[i], argc - 6, argv + 6) || (rows[i].needs_watches && !bench.has_watches))
            continue;
        measure(&bench, &rows[i], &results[count]);
        if (rows[i].section != section)
            table_print_section(section = rows[i].section);
        table_print_row(&results[count]);
        if (!table_is_reached(&results[count]))
            status = 1;
        count++;
    }
    table_write_json(argv[5], results, count);
    bench_stop(&bench);
    return status;
}
