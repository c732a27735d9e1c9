#include "client/kvctl/bench.h"

#define PARTS_BITS 5u /* parts of each power of two */
#define PARTS      (1u << PARTS_BITS)

/* Below PARTS each nanosecond has its own bucket; above, each power of two has PARTS buckets. */
static unsigned latency_bucket_of(uint64_t time_ns)
{
    if (time_ns < PARTS)
        return (unsigned)time_ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(time_ns);
    unsigned part = (unsigned)(time_ns >> (power - PARTS_BITS)) & (PARTS - 1);
    return (power - PARTS_BITS + 1) * PARTS + part;
}

/* Return the first time after the bucket. */
static double latency_end_ns(unsigned bucket)
{
    if (bucket < PARTS)
        return bucket + 1;
    unsigned shift = bucket / PARTS - 1;
    return (double)(PARTS + bucket % PARTS + 1) * (double)(UINT64_C(1) << shift);
}

void latency_add(struct latency *latency, uint64_t time_ns)
{
    latency->buckets[latency_bucket_of(time_ns)]++;
    latency->count++;
    if (time_ns > latency->max_ns)
        latency->max_ns = time_ns;
}

void latency_merge(struct latency *into, const struct latency *from)
{
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
}

double latency_quantile_us(const struct latency *latency, double share)
{
    double wanted = share * (double)latency->count, max_us = (double)latency->max_ns / 1000;
    uint64_t seen = 0;

    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen > 0 && (double)seen >= wanted) {
            double us = latency_end_ns(i) / 1000;
            return us < max_us ? us : max_us;
        }
    }
    return max_us;
}

uint64_t latency_count_between(const struct latency *latency, double from_us, double to_us)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        double us = latency_end_ns(i) / 1000;
        if (us > from_us && us <= to_us)
            count += latency->buckets[i];
    }
    return count;
}

double latency_next_bound_us(double bound_us)
{
    double bound = 1;

    for (unsigned step = 0; bound <= bound_us; step++)
        bound *= step % 3 == 1 ? 2.5 : 2; /* 1, 2, 5, 10 */
    return bound;
}
