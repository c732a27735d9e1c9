/* More and more buckets of one daemon, in embedded mode. */
#include "tests/scale/scale.h"

#include "tests/bench/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROUNDS 3u
#define CALLS  1000u
#define IDLE_S 4 /* four ticks; in embedded mode heartbeats come every two minutes */

enum row { CREATE, LIST, CALL, FOLLOW, MEMORY, IDLE_PROCESSOR, IDLE_WAITS, START_STOPPED, START_KILLED, DELETE, ROWS };

static const struct growth_row rows[ROWS] = {
    [CREATE] = {"bucket.create", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},
    [LIST] = {"bucket.list", "µs a bucket", GROWTH_TIME, GROWTH_LINEAR},
    [CALL] = {"kv.put and kv.get, all buckets in turn", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},
    [FOLLOW] = {"a watch on each, until all are ready", "µs a bucket", GROWTH_TIME, GROWTH_LINEAR},
    [MEMORY] = {"memory of a followed bucket, daemon", "bytes a bucket", GROWTH_AMOUNT, GROWTH_LINEAR, .enough = 2e5},
    [IDLE_PROCESSOR] = {"idle, all followed: processor time", "µs/s a bucket", GROWTH_AMOUNT, GROWTH_LINEAR,
                        .enough = 1000},
    [IDLE_WAITS] = {"idle, all followed: daemon's wake-ups", "1/s a bucket", GROWTH_AMOUNT, GROWTH_LINEAR, .enough = 5},
    [START_STOPPED] = {"start after a stop, until healthy", "µs a bucket", GROWTH_TIME, GROWTH_LINEAR},
    [START_KILLED] = {"start after SIGKILL, until healthy", "µs a bucket", GROWTH_TIME, GROWTH_LINEAR},
    [DELETE] = {"bucket.delete", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},
};

struct buckets {
    struct growth growth;
    struct scale_servers servers;
    unsigned count;
    struct kvs_watch **watches;
};

static void make_name(char name[32], unsigned number)
{
    snprintf(name, 32, "many-%u", number); /* as load.h has it */
}

static bool create_all(struct scale_servers *servers, void *context)
{
    const struct buckets *buckets = context;
    char name[32];

    for (unsigned i = 0; i < buckets->count; i++) {
        make_name(name, i);
        if (kvs_bucket_create(servers->kvs, name, NULL, NULL) != KVS_OK)
            return scale_note_error(servers, "bucket.create");
    }
    return true;
}

static bool delete_all(struct scale_servers *servers, void *context)
{
    const struct buckets *buckets = context;
    char name[32];

    for (unsigned i = 0; i < buckets->count; i++) {
        make_name(name, i);
        if (kvs_bucket_delete(servers->kvs, name, NULL) != KVS_OK)
            return scale_note_error(servers, "bucket.delete");
    }
    return true;
}

static bool list_all(struct scale_servers *servers, void *context)
{
    const struct buckets *buckets = context;
    char **names = NULL;
    size_t count = 0;

    if (kvs_bucket_list(servers->kvs, NULL, &names, &count) != KVS_OK)
        return scale_note_error(servers, "bucket.list");
    kvs_free(names);
    if (count != buckets->count + 1u) /* and the one that each daemon has */
        bench_die("bucket.list has %zu buckets", count);
    return true;
}

static bool follow_all(struct scale_servers *servers, void *context)
{
    struct buckets *buckets = context;
    struct kvs_event event = {.type = KVS_EVENT_NONE};
    char name[32];

    for (unsigned i = 0; i < buckets->count; i++) {
        make_name(name, i);
        if (kvs_watch(servers->kvs, name, NULL, &buckets->watches[i]) != KVS_OK)
            return scale_note_error(servers, "watch.start");
    }
    for (unsigned i = 0; i < buckets->count; i++) {
        while (kvs_watch_next(buckets->watches[i], 60, &event) == KVS_OK && event.type == KVS_EVENT_ENTRY)
            continue;
        if (event.type != KVS_EVENT_READY) {
            snprintf(servers->failure, sizeof(servers->failure), "watch %u: %.100s", i,
                     event.type == KVS_EVENT_ENDED ? event.error->message : "not ready after 60 s");
            return false;
        }
    }
    return true;
}

static void measure_once(struct buckets *buckets, enum row row, scale_operation *operation)
{
    struct scale_span span = scale_begin(&buckets->servers);

    scale_print_progress("%s, %s", buckets->growth.title, rows[row].name);
    if (operation(&buckets->servers, buckets))
        growth_add(&buckets->growth, row, scale_finish(&buckets->servers, span, buckets->count));
    else
        growth_fail(&buckets->growth, row, "%s", buckets->servers.failure);
}

static void add_amount(struct buckets *buckets, enum row row, double amount)
{
    growth_add(&buckets->growth, row, (struct growth_sample){.units = buckets->count, .passed = amount});
}

static void measure_idle(struct buckets *buckets)
{
    const pid_t daemon = buckets->servers.servers.daemon;

    scale_print_progress("%s, idle", buckets->growth.title);
    struct scale_span span = scale_begin(&buckets->servers);
    double waits = bench_waits(daemon);
    usleep(IDLE_S * 1000000);
    struct growth_sample sample = scale_finish(&buckets->servers, span, buckets->count);
    add_amount(buckets, IDLE_PROCESSOR, sample.processor / (sample.passed / 1e6));
    add_amount(buckets, IDLE_WAITS, (bench_waits(daemon) - waits) / (sample.passed / 1e6));
}

static bool call_some(struct scale_servers *servers, void *context)
{
    const struct buckets *buckets = context;
    struct load load = {.protocol = &load_kvstored,
                        .where = servers->servers.socket_path,
                        .operation = LOAD_PUT,
                        .prefix = "scale",
                        .connections = 1,
                        .depth = 1, /* else calls to few buckets would share batches */
                        .keys = buckets->count,
                        .buckets = buckets->count,
                        .has_total = true,
                        .total = CALLS > buckets->count ? CALLS : buckets->count};

    load_per_s(&load);
    load.operation = LOAD_GET;
    load_per_s(&load);
    return true;
}

static void measure_start(struct buckets *buckets, enum row row, enum scale_ending ending)
{
    struct growth_sample sample;

    scale_print_progress("%s, %s", buckets->growth.title, rows[row].name);
    scale_restart(&buckets->servers, ending, buckets->count, &sample);
    growth_add(&buckets->growth, row, sample);
}

static void measure_size(struct scale *scale, struct buckets *buckets)
{
    struct scale_servers *servers = &buckets->servers;

    scale_start(servers, scale, "buckets", true);
    buckets->watches = calloc(buckets->count, sizeof(struct kvs_watch *));
    if (buckets->watches == NULL)
        bench_die("out of memory");
    measure_once(buckets, CREATE, create_all);
    if (growth_has_failed(&buckets->growth, CREATE))
        bench_die("%s", servers->failure);
    scale_measure(&buckets->growth, LIST, servers, ROUNDS, buckets->count, list_all, buckets);

    double before_kb = bench_own_memory_kb(servers->servers.daemon);
    measure_once(buckets, FOLLOW, follow_all);
    if (!growth_has_failed(&buckets->growth, FOLLOW)) {
        add_amount(buckets, MEMORY, (bench_own_memory_kb(servers->servers.daemon) - before_kb) * 1024);
        measure_idle(buckets);
    }
    for (unsigned i = 0; i < buckets->count; i++)
        kvs_watch_stop(buckets->watches[i]);
    free(buckets->watches);

    double calls = 2.0 * (CALLS > buckets->count ? CALLS : buckets->count);
    scale_measure(&buckets->growth, CALL, servers, ROUNDS, calls, call_some, buckets);
    measure_start(buckets, START_STOPPED, SCALE_STOP);
    measure_start(buckets, START_KILLED, SCALE_KILL);
    measure_once(buckets, DELETE, delete_all);
    scale_end(servers);
}

uint64_t scale_buckets_min(const struct scale *scale)
{
    return scale->is_short ? 50 : 10;
}

void scale_buckets(struct scale *scale)
{
    struct buckets buckets = {.count = 0};

    growth_init(&buckets.growth, "Buckets of a daemon, embedded mode", "buckets", rows, ROWS, scale->is_short);
    for (uint64_t count = scale_buckets_min(scale); count <= scale->most_buckets; count *= 10) {
        buckets.count = (unsigned)count;
        growth_add_size(&buckets.growth, count);
        measure_size(scale, &buckets);
    }
    scale_report(scale, &buckets.growth);
}
