/*
 * bench: the parts of the verb bench.
 *
 * bench.c has the verb and its output, bench_client.c the client processes, latency.c their measurements. Each client
 * is a process, as real programs are: clients that share one loop would measure each other.
 */
#ifndef KVCTL_BENCH_H
#define KVCTL_BENCH_H

#include "client/kvctl/kvctl.h"

/* --- latency.c ------------------------------------------------------------------------------- */

#define LATENCY_BUCKETS 1920u

/* A histogram of latencies. Zero it at the beginning. */
struct latency {
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[LATENCY_BUCKETS]; /* each a thirty-second of a power of two wide */
};

void latency_add(struct latency *latency, uint64_t time_ns);
void latency_merge(struct latency *into, const struct latency *from);

/* Return the quantile of the given share, from 0 to 1, with an error of about 3 %. */
double latency_quantile_us(const struct latency *latency, double share);

/* Return how many calls took longer than from_us and at most to_us. */
uint64_t latency_count_between(const struct latency *latency, double from_us, double to_us);

/* Return the next bound of the printed histogram (1, 2, 5, 10, …) after bound_us; after 0 the smallest. */
double latency_next_bound_us(double bound_us);

/* --- bench_client.c -------------------------------------------------------------------------- */

enum bench_operation { BENCH_PUT, BENCH_GET, BENCH_CACHED_GET };

/* What is the same for all rows. */
struct bench_plan {
    const char *socket;
    const char *bucket;
    const char *prefix; /* of the keys, which are PREFIX.NUMBER */
    uint64_t keys;
    uint64_t value_size;
    char *values; /* value_size + keys pseudo-random bytes: a key's value begins at its number */
    double timeout_s;
    uint64_t first_revision; /* all revisions of this run are higher */
};

struct bench_row {
    enum bench_operation operation;
    uint64_t clients;
    uint64_t in_flight;
    double seconds;
    uint64_t operations; /* of all clients together; 0: as many as fit into seconds */
};

struct bench_result {
    struct latency latency;
    double seconds; /* from the begin of the first client to the end of the last one */
};

/* Let SIGINT and SIGTERM end a row instead of kvctl, which must delete its bucket. */
void bench_catch_signals(void);

/* Run a row in client processes. STATUS_FAILED after a message. */
enum status bench_run_row(const struct bench_plan *plan, const struct bench_row *row, struct bench_result *result);

#endif
