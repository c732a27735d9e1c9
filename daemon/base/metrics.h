/*
 * metrics: counters and latencies of what the daemon has done.
 *
 * Filled by call, session and main, read by monitor. Counting a call is a few additions, without an allocation.
 */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include "proto/error.h"
#include "proto/methods.h"

#include <stdint.h>

/*
 * A histogram has eight steps per doubling, so that a quantile is right to an eighth: for latencies from 1 us up to
 * over a minute.
 */
#define METRICS_STEPS   8u
#define METRICS_BUCKETS (28u * METRICS_STEPS)

struct metrics_histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t buckets[METRICS_BUCKETS];
};

struct metrics_method {
    uint64_t calls;                   /* that were begun */
    uint64_t ended[ERROR_CODE_COUNT]; /* by code; ERROR_NONE: with a result */
    struct metrics_histogram latency; /* us, from the read of the frame to the end of the turn that answered it */
};

/* Ended calls whose latency is not noted yet. Reading the clock for each of them would take 4 % of a cached get. */
#define METRICS_ENDED_MAX 64u

struct metrics_ended {
    struct metrics_method *method;
    uint64_t started_ns;
};

struct metrics {
    struct metrics_method methods[METHOD_COUNT]; /* in the order of METHODS */
    uint64_t errors[ERROR_CODE_COUNT];
    uint64_t unknown_outcomes; /* writes: calls, and keys of bulk calls */
    uint64_t sessions_total;
    uint64_t sessions_refused;
    uint64_t sessions_ended; /* by the daemon, because of a client's error or stall */
    uint64_t bytes_in, bytes_out;
    unsigned sessions;
    unsigned calls;                 /* in flight */
    struct metrics_histogram turns; /* of the loop, us */
    struct metrics_ended ended[METRICS_ENDED_MAX];
    unsigned ended_count;
};

/* Count a call that has ended. It began at started_ns (uv_hrtime). The next metrics_settle notes its latency. */
void metrics_end_call(struct metrics *metrics, struct metrics_method *method, uint64_t started_ns);

/* At the end of each turn, and before the metrics are read: note the latencies of the calls that have ended since. */
void metrics_settle(struct metrics *metrics, uint64_t now_ns);

void metrics_note(struct metrics_histogram *histogram, uint64_t value);

/* Return the number of calls of the method that have failed. */
uint64_t metrics_count_errors(const struct metrics_method *method);

/* Return how many of the noted values are below 2^exponent. The exponent is at least 3. */
uint64_t metrics_count_below(const struct metrics_histogram *histogram, unsigned exponent);

/* Return the value that the given share of the noted values does not exceed; 0 if there are none. */
uint64_t metrics_quantile(const struct metrics_histogram *histogram, double quantile);

#endif
