/*
 * bench: the parts of the verb bench.
 *
 * bench.c has the verb and what it prints, bench_client.c the processes that ask the daemon, latency.c what
 * they have measured. Clients are processes: programs are, too, and a client that shared a processor's time with
 * all others in one loop would measure itself.
 */
#ifndef KVCTL_BENCH_H
#define KVCTL_BENCH_H

#include "client/kvctl/kvctl.h"

/* --- latency.c ------------------------------------------------------------------------------- */

#define LATENCY_BUCKETS 1920u

/* How long calls took. All zero at the beginning. */
struct latency {
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[LATENCY_BUCKETS]; /* each a thirty-second of a power of two wide */
};

void latency_add(struct latency *latency, uint64_t time_ns);
void latency_merge(struct latency *into, const struct latency *from);

/* What this share of the calls, from 0 to 1, took at most; to about 3 %. */
double latency_quantile_us(const struct latency *latency, double share);

/* How many calls took longer than from_us and at most to_us. */
uint64_t latency_count_between(const struct latency *latency, double from_us, double to_us);

/* Bounds of the histogram that people see, 1-2-5: the bound behind bound_us, the smallest behind 0. */
double latency_next_bound_us(double bound_us);

/* --- bench_client.c -------------------------------------------------------------------------- */

enum bench_operation { BENCH_PUT, BENCH_GET, BENCH_CACHED_GET };

/* What all rows have in common. */
struct bench_plan {
    const char *socket;
    const char *bucket;
    const char *prefix; /* of the keys, which are PREFIX.NUMBER */
    uint64_t keys;
    uint64_t value_size;
    char *values; /* value_size + keys bytes by chance: a key's value begins at its number */
    double timeout_s;
    uint64_t first_revision; /* all that are written here are behind it */
};

struct bench_row {
    enum bench_operation operation;
    uint64_t clients;
    uint64_t in_flight;
    double seconds;
    uint64_t operations; /* in all clients together; 0: as many as fit into seconds */
};

struct bench_result {
    struct latency latency;
    double seconds; /* from the first client's begin to the last one's end */
};

/* From now on SIGINT and SIGTERM end a row, and not kvctl, which has a bucket to remove. */
void bench_catch_signals(void);

/* Runs a row, in processes of its own. STATUS_FAILED after a message. */
enum status bench_run_row(const struct bench_plan *plan, const struct bench_row *row, struct bench_result *result);

/* Nanoseconds of a clock that only goes on. */
int64_t bench_now_ns(void);

#endif
