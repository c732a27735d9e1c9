/* More and more sessions, watches, and calls in flight of one daemon, in embedded mode. */
#include "tests/scale/scale.h"

#include "tests/bench/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define ROUNDS    3u
#define CALLS     500u
#define OWN_FILES 256u /* of the daemon and of this program, besides the sessions */

/* Raise the limit of open files, which the daemon inherits. Return false if the machine does not allow so many. */
static bool raise_files(uint64_t count)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    if (limit.rlim_cur >= count)
        return true;
    limit.rlim_cur = count;
    limit.rlim_max = limit.rlim_max < count ? count : limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static bool get_some(struct scale_servers *servers, void *context)
{
    (void)context;
    for (unsigned i = 0; i < CALLS; i++) {
        struct kvs_entry *entry = NULL;
        if (kvs_get(servers->kvs, BENCH_BUCKET, "first.0", NULL, &entry) != KVS_OK)
            return scale_note_error(servers, "kv.get");
        kvs_free(entry);
    }
    return true;
}

static bool put_some(struct scale_servers *servers, void *context)
{
    (void)context;
    for (unsigned i = 0; i < CALLS; i++) {
        if (kvs_put(servers->kvs, BENCH_BUCKET, "watched.none.0", "value", 5, NULL, NULL) != KVS_OK)
            return scale_note_error(servers, "kv.put");
    }
    return true;
}

/* Put the key that others read, and read it, which loads the copy. */
static void put_first(struct scale_servers *servers)
{
    const struct load load = {
        .protocol = &load_kvstored, .where = servers->servers.socket_path, .prefix = "first", .keys = 1};

    load_fill(&load);
    if (!get_some(servers, NULL))
        bench_die("%s", servers->failure);
}

/* --- Sessions ------------------------------------------------------------------------------------------ */

enum session_row { CONNECT, MEMORY, GET_BESIDE, CLOSE, SESSION_ROWS };

static const struct growth_row session_rows[SESSION_ROWS] = {
    [CONNECT] = {"connect and get a key, one by one", "µs a session", GROWTH_TIME, GROWTH_LINEAR, .enough = 500},
    [MEMORY] = {"memory of a session", "bytes a session", GROWTH_AMOUNT, GROWTH_LINEAR, .factor = 2, .enough = 1e5},
    [GET_BESIDE] = {"kv.get beside the idle sessions", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},
    [CLOSE] = {"all closed at once, until they are gone", "µs a session", GROWTH_TIME, GROWTH_LINEAR, .enough = 500},
};

struct idle {
    const char *path;
    unsigned count;
};

static void open_sessions(const void *context)
{
    const struct idle *idle = context;

    load_open_idle(&load_kvstored, idle->path, idle->count);
}

static void measure_sessions(struct scale *scale, struct growth *growth, unsigned count)
{
    struct scale_servers servers;

    scale_start(&servers, scale, "sessions", true);
    put_first(&servers);
    struct idle idle = {servers.servers.socket_path, count};
    for (unsigned round = 0;
         scale_wants_round(growth, CONNECT, round, ROUNDS) || scale_wants_round(growth, CLOSE, round, ROUNDS);
         round++) {
        scale_print_progress("%s, %u", growth->title, count);
        double before_kb = bench_own_memory_kb(servers.servers.daemon);
        struct scale_span span = scale_begin(&servers);
        pid_t holder = bench_hold(open_sessions, &idle);
        growth_add(growth, CONNECT, scale_finish(&servers, span, count));
        if (round == 0) /* later ones find memory that earlier ones have left */
            growth_add(growth, MEMORY,
                       (struct growth_sample){
                           .units = count, .passed = (bench_own_memory_kb(servers.servers.daemon) - before_kb) * 1024});
        scale_measure(growth, GET_BESIDE, &servers, 1, CALLS, get_some, NULL);
        span = scale_begin(&servers);
        bench_end(holder);
        while (scale_stat(&servers, "sessions", "open") > 1)
            usleep(500);
        growth_add(growth, CLOSE, scale_finish(&servers, span, count));
    }
    scale_end(&servers);
}

static const uint64_t sizes[] = {100, 1000, 10000, 20000}, short_sizes[] = {200, 2000};

uint64_t scale_sessions_min(const struct scale *scale)
{
    return scale->is_short ? short_sizes[0] : sizes[0];
}

void scale_sessions(struct scale *scale)
{
    struct growth growth;
    const uint64_t *at = scale->is_short ? short_sizes : sizes;
    size_t count = scale->is_short ? 2 : 4;

    growth_init(&growth, "Sessions of a daemon, embedded mode", "sessions", session_rows, SESSION_ROWS,
                scale->is_short);
    for (size_t i = 0; i < count && at[i] <= scale->most_sessions; i++) {
        if (!raise_files(at[i] + OWN_FILES)) {
            scale_skip("%llu sessions: the limit of open files is lower (ulimit -n)", (unsigned long long)at[i]);
            continue;
        }
        growth_add_size(&growth, at[i]);
        measure_sessions(scale, &growth, (unsigned)at[i]);
    }
    scale_report(scale, &growth);
}

/* --- Watches ------------------------------------------------------------------------------------------- */

enum watch_row { START, WATCH_MEMORY, PUT_BESIDE, STOP, WATCH_ROWS };

static const struct growth_row watch_rows[WATCH_ROWS] = {
    [START] = {"watch of one branch each, until all are ready", "µs a watch", GROWTH_TIME, GROWTH_LINEAR},
    [WATCH_MEMORY] = {"memory of a watch", "bytes a watch", GROWTH_AMOUNT, GROWTH_LINEAR, .factor = 2, .enough = 1e5},
    [PUT_BESIDE] = {"kv.put of a key that nobody watches", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},
    [STOP] = {"all ended at once with their session", "µs a watch", GROWTH_TIME, GROWTH_LINEAR, .enough = 500},
};

struct watches {
    struct kvs *kvs;
    unsigned count;
    struct kvs_watch **watches;
};

static bool watch_keys(struct scale_servers *servers, void *context)
{
    struct watches *watches = context;
    struct kvs_event event;
    char key[32];
    const char *filter = key;
    const struct kvs_watch_options options = KVS_WATCH_OPTIONS(.filters = &filter, .filter_count = 1);

    for (unsigned i = 0; i < watches->count; i++) {
        snprintf(key, sizeof(key), "watched.%u.*", i);
        if (kvs_watch(watches->kvs, BENCH_BUCKET, &options, &watches->watches[i]) != KVS_OK) {
            snprintf(servers->failure, sizeof(servers->failure), "watch.start: %.100s",
                     kvs_last_error(watches->kvs)->message);
            return false;
        }
    }
    for (unsigned i = 0; i < watches->count; i++) {
        if (kvs_watch_next(watches->watches[i], 60, &event) != KVS_OK || event.type != KVS_EVENT_READY) {
            snprintf(servers->failure, sizeof(servers->failure), "a watch is not ready after 60 s");
            return false;
        }
    }
    return true;
}

static void measure_watches(struct scale *scale, struct growth *growth, unsigned count)
{
    struct scale_servers servers;
    struct kvs_error error;

    scale_start(&servers, scale, "watches", true);
    put_first(&servers);
    struct watches watches = {.kvs = kvs_connect(servers.servers.socket_path, NULL, &error),
                              .count = count,
                              .watches = calloc(count, sizeof(struct kvs_watch *))};
    if (watches.kvs == NULL || watches.watches == NULL)
        bench_die("no session for the watches");
    scale_print_progress("%s, %u", growth->title, count);
    double before_kb = bench_own_memory_kb(servers.servers.daemon);
    struct scale_span span = scale_begin(&servers);
    if (watch_keys(&servers, &watches)) {
        growth_add(growth, START, scale_finish(&servers, span, count));
        growth_add(growth, WATCH_MEMORY,
                   (struct growth_sample){.units = count,
                                          .passed = (bench_own_memory_kb(servers.servers.daemon) - before_kb) * 1024});
        scale_measure(growth, PUT_BESIDE, &servers, GROWTH_ROUNDS_MAX, CALLS, put_some, NULL);
    } else {
        growth_fail(growth, START, "%s", servers.failure);
    }
    span = scale_begin(&servers);
    kvs_close(watches.kvs);
    while (scale_stat(&servers, "watches", "open") > 0)
        usleep(500);
    growth_add(growth, STOP, scale_finish(&servers, span, count));
    free(watches.watches);
    scale_end(&servers);
}

void scale_watches(struct scale *scale)
{
    struct growth growth;

    growth_init(&growth, "Watches of a bucket, embedded mode", "watches", watch_rows, WATCH_ROWS, scale->is_short);
    for (unsigned count = 100; count <= (scale->is_short ? 1000u : 10000u); count *= 10) {
        growth_add_size(&growth, count);
        measure_watches(scale, &growth, count);
    }
    scale_report(scale, &growth);
}

/* --- Calls in flight ------------------------------------------------------------------------------------- */

enum call_row { PUT, GET, CALL_ROWS };

static const struct growth_row call_rows[CALL_ROWS] = {
    [PUT] = {"kv.put, daemon's processor time", "µs a call", GROWTH_AMOUNT, GROWTH_CONSTANT},
    [GET] = {"kv.get, daemon's processor time", "µs a call", GROWTH_AMOUNT, GROWTH_CONSTANT},
};

void scale_in_flight(struct scale *scale)
{
    const unsigned depths[] = {4, 64, 512};
    struct growth growth;
    struct scale_servers servers;

    growth_init(&growth, "Calls in flight in 16 sessions, external mode", "calls in flight", call_rows, CALL_ROWS,
                scale->is_short);
    scale_start(&servers, scale, "calls", false);
    for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
        struct load load = {.protocol = &load_kvstored,
                            .where = servers.servers.socket_path,
                            .prefix = "scale",
                            .connections = 16,
                            .depth = depths[i],
                            .keys = 1000,
                            .has_total = true,
                            .total = 50000};
        growth_add_size(&growth, load.connections * load.depth);
        scale_print_progress("%s, %u", growth.title, load.connections * load.depth);
        load_fill(&load);
        for (enum call_row row = PUT; row <= GET; row++) {
            load.operation = row == PUT ? LOAD_PUT : LOAD_GET;
            for (unsigned round = 0; scale_wants_round(&growth, row, round, ROUNDS); round++) {
                double cost_us = load_cost_us(&load, servers.servers.daemon);
                growth_add(&growth, row, (struct growth_sample){.units = 1, .passed = cost_us, .processor = cost_us});
            }
        }
    }
    scale_end(&servers);
    scale_report(scale, &growth);
}
