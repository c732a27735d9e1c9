#include "tests/sim/world.h"

#include "tests/sim/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 2026-01-01 */
#define EPOCH_BEGIN_NS 1767225600000000000ll

struct event {
    uint64_t at_ns;
    uint64_t number; /* events of one time happen in their order */
    void (*happen)(void *arg);
    void *arg;
};

static struct {
    uint64_t seed;
    bool is_printed;
    uint64_t state[2];
    uint64_t now_ns;
    int64_t epoch_ns; /* at now_ns 0 */
    struct event *heap;
    size_t count;
    uint64_t numbers, happened;
    uint64_t trace_hash;
} world;

/* --- Chance ---------------------------------------------------------------------------------------- */

static uint64_t world_mix(uint64_t *state)
{
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15u);

    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return mixed ^ mixed >> 31;
}

static uint64_t world_rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

/* xoroshiro128+ (Blackman and Vigna, 2018), seeded by splitmix64. */
uint64_t world_random(void)
{
    uint64_t first = world.state[0], second = world.state[1], sum = first + second;

    second ^= first;
    world.state[0] = world_rotate(first, 24) ^ second ^ second << 16;
    world.state[1] = world_rotate(second, 37);
    return sum;
}

uint64_t world_below(uint64_t count)
{
    return world_random() % count;
}

uint64_t world_between(uint64_t least, uint64_t most)
{
    return least + world_below(most - least + 1);
}

bool world_chance(unsigned per_mille)
{
    return world_below(1000) < per_mille;
}

unsigned world_choose(const unsigned *weights, unsigned count)
{
    unsigned sum = 0, place = 0;

    for (unsigned i = 0; i < count; i++)
        sum += weights[i];
    if (sum == 0)
        return count;
    for (unsigned chosen = (unsigned)world_below(sum); chosen >= weights[place]; place++)
        chosen -= weights[place];
    return place;
}

/* --- Life ------------------------------------------------------------------------------------------ */

void world_begin(uint64_t seed, bool is_printed)
{
    uint64_t state = seed;

    memset(&world, 0, sizeof(world));
    world.seed = seed;
    world.is_printed = is_printed;
    world.state[0] = world_mix(&state);
    world.state[1] = world_mix(&state);
    world.now_ns = WORLD_SECOND; /* 0 means "never" in many places */
    world.epoch_ns = EPOCH_BEGIN_NS;
    world.trace_hash = 14695981039346656037u;
}

void world_end(void)
{
    free(world.heap);
    world.heap = NULL;
    world.count = 0;
}

uint64_t world_seed(void)
{
    return world.seed;
}

/* --- Time ------------------------------------------------------------------------------------------ */

uint64_t world_now_ns(void)
{
    return world.now_ns;
}

void world_spend(uint64_t ns)
{
    world.now_ns += ns;
}

int64_t world_epoch_ns(void)
{
    return world.epoch_ns + (int64_t)world.now_ns;
}

void world_step_epoch(int64_t by_ns)
{
    trace("clock is set by %" PRId64 " ms", by_ns / 1000000);
    world.epoch_ns += by_ns;
}

/* --- Events ---------------------------------------------------------------------------------------- */

static bool event_is_earlier(const struct event *one, const struct event *other)
{
    return one->at_ns != other->at_ns ? one->at_ns < other->at_ns : one->number < other->number;
}

void world_at(uint64_t at_ns, void (*happen)(void *arg), void *arg)
{
    world.heap = memory_grow(world.heap, world.count, sizeof(*world.heap));
    struct event event = {at_ns > world.now_ns ? at_ns : world.now_ns, ++world.numbers, happen, arg};
    size_t place = world.count++;
    while (place > 0 && event_is_earlier(&event, &world.heap[(place - 1) / 2])) {
        world.heap[place] = world.heap[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    world.heap[place] = event;
}

void world_after(uint64_t ns, void (*happen)(void *arg), void *arg)
{
    world_at(world.now_ns + ns, happen, arg);
}

static struct event world_take_first(void)
{
    struct event first = world.heap[0], last = world.heap[--world.count];
    size_t place = 0, below;

    while ((below = 2 * place + 1) < world.count) {
        if (below + 1 < world.count && event_is_earlier(&world.heap[below + 1], &world.heap[below]))
            below++;
        if (!event_is_earlier(&world.heap[below], &last))
            break;
        world.heap[place] = world.heap[below];
        place = below;
    }
    world.heap[place] = last;
    return first;
}

bool world_go_on(uint64_t until_ns)
{
    if (world.count == 0 || world.heap[0].at_ns >= until_ns)
        return false;
    struct event event = world_take_first();
    if (event.at_ns > world.now_ns)
        world.now_ns = event.at_ns;
    world.happened++;
    event.happen(event.arg);
    return true;
}

uint64_t world_events(void)
{
    return world.happened;
}

/* --- Trace ----------------------------------------------------------------------------------------- */

void trace(const char *format, ...)
{
    char line[1024];
    va_list args;

    int length = snprintf(line, sizeof(line), "%10.6f ", (double)world.now_ns / 1e9);
    va_start(args, format);
    vsnprintf(line + length, sizeof(line) - (size_t)length, format, args);
    va_end(args);
    for (const char *at = line; *at != '\0'; at++)
        world.trace_hash = (world.trace_hash ^ (unsigned char)*at) * 1099511628211u;
    if (world.is_printed)
        puts(line);
}

bool world_is_printed(void)
{
    return world.is_printed;
}

uint64_t world_trace_hash(void)
{
    return world.trace_hash;
}

void world_fail(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "sim: seed %" PRIu64 ", at %.6f s: ", world.seed, (double)world.now_ns / 1e9);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    exit(1);
}
