#include "daemon/base/metrics.h"

#include <uv.h>

/* Bucket number: values below METRICS_STEPS have one each, then METRICS_STEPS per doubling. */
static unsigned bucket_of(uint64_t value)
{
    if (value < METRICS_STEPS)
        return (unsigned)value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value); /* at least 3 */
    unsigned step = (unsigned)(value >> (exponent - 3)) & (METRICS_STEPS - 1);
    unsigned bucket = (exponent - 2) * METRICS_STEPS + step;

    return bucket < METRICS_BUCKETS ? bucket : METRICS_BUCKETS - 1;
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_top(unsigned bucket)
{
    if (bucket < METRICS_STEPS)
        return bucket;
    unsigned exponent = bucket / METRICS_STEPS + 2;
    uint64_t step = bucket % METRICS_STEPS;

    return ((METRICS_STEPS + step + 1) << (exponent - 3)) - 1;
}

void metrics_note(struct metrics_histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->sum += value;
    histogram->buckets[bucket_of(value)]++;
    if (value > histogram->max)
        histogram->max = value;
}

void metrics_settle(struct metrics *metrics, uint64_t now_ns)
{
    for (unsigned i = 0; i < metrics->ended_count; i++)
        metrics_note(&metrics->ended[i].method->latency, (now_ns - metrics->ended[i].started_ns) / 1000);
    metrics->ended_count = 0;
}

void metrics_end_call(struct metrics *metrics, struct metrics_method *method, uint64_t started_ns)
{
    if (metrics->ended_count == METRICS_ENDED_MAX)
        metrics_settle(metrics, uv_hrtime());
    metrics->ended[metrics->ended_count++] = (struct metrics_ended){method, started_ns};
}

uint64_t metrics_count_errors(const struct metrics_method *method)
{
    uint64_t errors = 0;

    for (unsigned code = ERROR_NONE + 1; code < ERROR_CODE_COUNT; code++)
        errors += method->ended[code];
    return errors;
}

uint64_t metrics_count_below(const struct metrics_histogram *histogram, unsigned exponent)
{
    unsigned end = bucket_of((uint64_t)1 << exponent);
    uint64_t below = 0;

    for (unsigned bucket = 0; bucket < end; bucket++)
        below += histogram->buckets[bucket];
    return below;
}

uint64_t metrics_quantile(const struct metrics_histogram *histogram, double quantile)
{
    uint64_t wanted = (uint64_t)(quantile * (double)histogram->count);
    uint64_t seen = 0;

    if (histogram->count == 0)
        return 0;
    for (unsigned bucket = 0; bucket < METRICS_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen > wanted || seen == histogram->count) {
            uint64_t top = bucket_top(bucket);
            return top < histogram->max ? top : histogram->max;
        }
    }
    return histogram->max;
}
