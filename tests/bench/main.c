/*
 * bench [--strict] KVSTORED NATS-SERVER REDIS-SERVER DIRECTORY JSON [PATTERN…]
 *
 * All paths are absolute; DIRECTORY is empty, and the benchmark's own. With patterns (as the shell's) only the rows
 * whose names match one of them. The exit status is 0 when all was measured and each answer was right; with --strict it
 * is 1 when a row misses what it must reach.
 */
#include "tests/bench/bench.h"
#include "tests/bench/table.h"
#include "tests/support/attack.h"

#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEIGHBOUR_P99_MS 30   /* what an attack may cost another client */
#define KVCTL_MS         250  /* a command of kvctl during an attack */
#define RESTART_PAUSE_MS 1000 /* what a restart may cost a program */

static const char embedded[] = "Embedded mode, the default", external[] = "External mode",
                  neighbour[] = "Beside a bad neighbour, embedded mode; the peer is without it", size[] = "Size",
                  kvctl[] = "The longest command of kvctl beside a bad neighbour; the peer is without it",
                  python[] = "Python's asyncio, embedded mode", tls[] = "Over TLS; the peer is without it",
                  restart[] = "A restart of the daemon, embedded mode",
                  scrape[] = "Beside a scrape of the metrics; the peer is without it";

static const struct table_row rows_of_peers[] = {
    {embedded, "put, 64 clients vs libnats, durable server", "ops/s", true, 1.6, 2.5, 0, embedded_put_per_s},
    {embedded, "put, 1 client: auto vs better of on, off", "ops/s", true, 0.9, 1.0, 0, auto_1_per_s},
    {embedded, "put, 4 clients: auto vs better of on, off", "ops/s", true, 0.9, 1.0, 0, auto_4_per_s},
    {embedded, "put, 16 clients: auto vs better of on, off", "ops/s", true, 0.9, 1.0, 0, auto_16_per_s},
    {embedded, "put, 64 clients: auto vs better of on, off", "ops/s", true, 0.9, 1.0, 0, auto_64_per_s},
    {embedded, "put, 256 clients: auto vs better of on, off", "ops/s", true, 0.9, 1.0, 0, auto_256_per_s},
    {embedded, "put, 1024 in flight vs 64 libnats, durable", "ops/s", true, 8.0, 10, 0, embedded_deep_per_s},
    {embedded, "put and get, 64 clients vs libnats, durable", "ops/s", true, 1.8, 3.0, 0, embedded_both_per_s},
    {embedded, "put, 64 clients vs Redis SET, AOF always", "ops/s", true, 0, 1.0, 0, redis_set_durable_per_s},
    {embedded, "increment, 64 clients vs CAS with libnats", "ops/s", true, 20, 40, 0, embedded_increment_per_s},
    {embedded, "get, 1 client vs libnats kvStore_Get", "us", false, 0.35, 0.2, 0, embedded_get_us},
    {embedded, "get, 50 clients vs Redis GET", "ops/s", true, 0.7, 0.95, 0, embedded_redis_per_s},
    {embedded, "get, 50 clients x 16 in flight vs Redis GET", "ops/s", true, 0.7, 0.95, 0,
     embedded_redis_pipelined_per_s},
    {embedded, "bulk.get 1000 vs 1000 kvStore_Get", "keys/s", true, 40, 80, 0, embedded_bulk_get_per_s},
    {embedded, "100000 kv.keys, pages of 1000 vs Redis SCAN", "keys/s", true, 0.5, 1.0, 0, embedded_keys_per_s},
    {python, "Python get, 64 in flight vs redis-py GET", "ops/s", true, 0.5, 1.0, 0, python_get_per_s},
    {python, "Python put, 64 in flight vs redis-py SET", "ops/s", true, 0.5, 1.0, 0, python_put_per_s},
    {python, "Python put vs redis-py SET, AOF always", "ops/s", true, 0, 0.5, 0, python_put_durable_per_s},
    {external, "one client put vs libnats kvStore_Put", "us", false, 1.2, 1.0, 0, one_put_us},
    {external, "one client get vs libnats kvStore_Get", "us", false, 1.05, 0.9, 0, one_get_us},
    {external, "64 clients put and get vs direct connections", "ops/s", true, 1.3, 2.0, 0, many_clients_per_s},
    {external, "increment, 64 clients vs CAS with libnats", "ops/s", true, 20, 40, 0, increment_per_s},
    {external, "put, 1024 in flight vs raw socket with ids", "ops/s", true, 0.8, 0.95, 0, pipelined_put_per_s},
    {external, "get, 1024 in flight vs raw socket", "ops/s", true, 0, 0.8, 0, pipelined_get_per_s},
    {external, "get, each key once, the same entries", "ops/s", true, 0.75, 0.95, 0, pipelined_get_once_per_s},
    {external, "bulk.put 1000 vs 1000 kvStore_Put", "keys/s", true, 5, 12, 0, bulk_put_per_s},
    {external, "bulk.get 1000 vs 1000 kvStore_Get", "keys/s", true, 7, 15, 0, bulk_get_per_s},
    {external, "bulk.get 1000, just written", "keys/s", true, 0, 0, 0, bulk_get_new_per_s},
    {external, "txn.commit 100 vs raw atomic batch", "us", false, 1.15, 1.0, 0, txn_us},
    {external, "cached get, 50 clients vs Redis GET", "ops/s", true, 0, 1.0, 0, cached_many_per_s},
    {external, "watch fan-out 1000, p99", "ms", false, 0, 0, 0, fan_out_p99_ms},
    {restart, "pause by a restart vs nats-server alone", "ms", false, 0, 0, RESTART_PAUSE_MS, restart_pause_ms},
    {restart, "pause by a kill vs nats-server alone", "ms", false, 0, 0, RESTART_PAUSE_MS, kill_pause_ms},
    {scrape, "get beside a scrape a second, p50", "us", false, 1.1, 1.0, 0, scrape_p50_us},
    {scrape, "get beside a scrape a second, p99", "us", false, 0, 1.0, 0, scrape_p99_us},
    {scrape, "get beside a scrape a second, longest", "us", false, 0, 0, 0, scrape_longest_us},
    {size, "idle memory", "KB", false, 0, 0, 8192, idle_memory_kb},
    {size, "memory per idle client", "KB", false, 0, 0, 1, idle_client_kb},
    {size, "memory per key beside key and value", "bytes", false, 0, 0, 128, cached_key_bytes},
    {size, "start to first answer", "ms", false, 0, 0, 0, first_answer_ms},
    {tls, "cost of a put over TLS vs without", "us", false, 0, 1.3, 0, tls_put_us},
    {tls, "cost of a get over TLS vs without", "us", false, 0, 1.3, 0, tls_get_us},
    {tls, "cost of a put and a get over TLS, one in flight", "us", false, 1.3, 1.1, 0, tls_one_us},
};
#define ROWS_OF_PEERS (sizeof(rows_of_peers) / sizeof(rows_of_peers[0]))

struct row {
    struct table_row shown;
    bench_attack_fn *measure_attack; /* of a row about an attack, which has no shown.measure */
    const struct attack_kind *attack;
};

/* Make a row for each attack of tests/support/attack.h, with the name "FIRST ATTACK LAST". */
static void make_rows_of_attacks(struct row *rows, const struct row *common, const char *first, const char *last)
{
    for (size_t i = 0; i < attack_count; i++) {
        char *name = NULL;
        if (asprintf(&name, "%s%s%s", first, attack_kinds[i].name, last) < 0)
            bench_die("out of memory");
        rows[i] = *common;
        rows[i].shown.name = name;
        rows[i].attack = &attack_kinds[i];
    }
}

/* Return all rows, and set *count. They live until the program ends. */
static const struct row *make_rows(size_t *count)
{
    static const struct row neighbours = {
        .shown = {.section = neighbour, .unit = "ms", .must_absolute = NEIGHBOUR_P99_MS},
        .measure_attack = neighbour_ms};
    static const struct row kvctls = {.shown = {.section = kvctl, .unit = "ms", .must_absolute = KVCTL_MS},
                                      .measure_attack = neighbour_kvctl_ms};
    struct row *rows = calloc(ROWS_OF_PEERS + 2 * attack_count, sizeof(*rows));

    if (rows == NULL)
        bench_die("out of memory");
    for (size_t i = 0; i < ROWS_OF_PEERS; i++)
        rows[i].shown = rows_of_peers[i];
    make_rows_of_attacks(rows + ROWS_OF_PEERS, &neighbours, "neighbour of ", ", p99");
    make_rows_of_attacks(rows + ROWS_OF_PEERS + attack_count, &kvctls, "kvctl beside ", "");
    *count = ROWS_OF_PEERS + 2 * attack_count;
    return rows;
}

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

static double measure_side(const struct bench *bench, const struct row *row, bool is_ours)
{
    return row->attack != NULL ? row->measure_attack(bench, is_ours, row->attack) : row->shown.measure(bench, is_ours);
}

static void measure(const struct bench *bench, const struct row *row, struct table_result *result)
{
    result->row = &row->shown;
    for (unsigned round = 0; round < TABLE_ROUNDS; round++) {
        table_print_progress(&row->shown, round);
        result->ours[round] = measure_side(bench, row, true);
        result->peer[round] = measure_side(bench, row, false);
    }
    qsort(result->ours, TABLE_ROUNDS, sizeof(result->ours[0]), compare);
    qsort(result->peer, TABLE_ROUNDS, sizeof(result->peer[0]), compare);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    const char *section = NULL;
    bool is_strict = argc > 1 && strcmp(argv[1], "--strict") == 0;
    size_t row_count, count = 0;
    const struct row *rows = make_rows(&row_count);
    struct table_result *results;
    int status = 0;

    argc -= is_strict;
    argv += is_strict;
    if (argc < 6) {
        fprintf(stderr, "usage: bench [--strict] KVSTORED NATS-SERVER REDIS-SERVER DIRECTORY JSON [PATTERN...]\n");
        return 2;
    }
    bench.kvstored = argv[1];
    bench.nats_server = argv[2];
    bench.redis_server = argv[3];
    if (chdir(argv[4]) != 0)
        bench_die("%s is not there", argv[4]);
    signal(SIGPIPE, SIG_IGN);

    if ((results = calloc(row_count, sizeof(*results))) == NULL)
        bench_die("out of memory");
    bench_start(&bench);
    table_print_head();
    for (size_t i = 0; i < row_count; i++) {
        if (!is_wanted(&rows[i].shown, argc - 6, argv + 6))
            continue;
        if (rows[i].shown.section == python && !python_is_installed()) {
            fprintf(stderr, "skipped, because something is not installed: %s\n", rows[i].shown.name);
            continue;
        }
        const char *why_not = rows[i].attack != NULL ? attack_why_not(rows[i].attack) : NULL;
        if (why_not != NULL) {
            fprintf(stderr, "skipped: %s: %s\n", rows[i].shown.name, why_not);
            continue;
        }
        measure(&bench, &rows[i], &results[count]);
        if (rows[i].shown.section != section)
            table_print_section(section = rows[i].shown.section);
        table_print_row(&results[count]);
        if (is_strict && !table_is_reached(&results[count]))
            status = 1;
        count++;
    }
    table_print_missed(results, count);
    table_write_json(argv[5], results, count);
    free(results);
    bench_stop(&bench);
    return status;
}
