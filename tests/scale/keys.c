/* One bucket with more and more keys. */
#include "tests/scale/keys.h"

#include "tests/support/neighbour.h"

#include <sys/statvfs.h>

#define NEIGHBOUR_BUCKET "neighbour"
#define NEIGHBOUR_CALLS  50u
#define NEIGHBOUR_MS     100.0 /* what its calls may take */
#define NEIGHBOUR_S      0.25

/* What a key takes of the disk, and of the memory of daemon and server, during the run. */
#define KEY_DISK_BYTES    1000.0
#define KEY_MEMORY_BYTES  1000.0
#define ROOM_LEFT_BYTES   2e9
#define LONG_ROUNDS_BELOW 1000000u /* up to this number of keys, slow rows are measured more than once */

enum row {
    FILL,
    GET,
    PUT,
    UPDATE,
    TRANSACTION,
    LIST,
    LIST_PAGES,
    FIRST_PAGE,
    FIRST_PAGE_DIRECT,
    WATCH,
    WATCH_UNLOADED,
    LOAD,
    MEMORY,
    START_STOPPED,
    START_KILLED,
    NEIGHBOUR_LIST,
    NEIGHBOUR_WATCH,
    NEIGHBOUR_LOAD,
    NEIGHBOUR_MEDIAN,
    NEIGHBOUR_LONGEST,
    DELETE,
    LIST_DELETED,
    LOAD_DELETED,
    ROWS
};

/* The listing, the watch and the load of a bucket of any size. */
#define MOST_US_A_KEY 10.0

/* For rows that read only memory: a small copy fits into the processor's cache, a large one does not. */
#define CACHE_FACTOR 10.0

#define NEIGHBOUR_ROW(name, most_ms)                                                                                   \
    {                                                                                                                  \
        name, "ms", GROWTH_AMOUNT, GROWTH_SHOWN, .most = most_ms, .is_long = true                                      \
    }

/* Rows of both modes. */
#define COMMON_ROWS                                                                                                    \
    [FILL] = {"bulk.put of new keys, 1 000 a call", "µs a key", GROWTH_TIME, GROWTH_LINEAR},                           \
    [GET] = {"kv.get of any key", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},                                          \
    [PUT] = {"kv.put of any key", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},                                          \
    [UPDATE] = {"kv.update of any key", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},                                    \
    [TRANSACTION] = {"txn.commit of 10 puts", "µs a call", GROWTH_TIME, GROWTH_CONSTANT},                              \
    [LIST] = {"kv.keys of all keys",  "µs a key",           GROWTH_TIME, GROWTH_LINEAR,                                \
              .factor = CACHE_FACTOR, .most = MOST_US_A_KEY},                                                          \
    [WATCH] = {"watch from the beginning until ready",                                                                 \
               "µs a key",                                                                                             \
               GROWTH_TIME,                                                                                            \
               GROWTH_LINEAR,                                                                                          \
               .factor = CACHE_FACTOR,                                                                                 \
               .most = MOST_US_A_KEY},                                                                                 \
    [WATCH_UNLOADED] = {"… of a bucket that is not in memory", "µs a key", GROWTH_TIME, GROWTH_LINEAR,                 \
                        .most = MOST_US_A_KEY},                                                                        \
    [FIRST_PAGE] = {"kv.keys with cached, a page of 100", "µs a call", GROWTH_TIME, GROWTH_CONSTANT,                   \
                    .factor = CACHE_FACTOR},                                                                           \
    [LOAD] = {"load of the local copy", "µs a key", GROWTH_TIME, GROWTH_LINEAR, .most = MOST_US_A_KEY},                \
    [MEMORY] = {"memory of the local copy", "bytes a key", GROWTH_AMOUNT, GROWTH_LINEAR, .factor = 2, .enough = 2e6},  \
    [NEIGHBOUR_LIST] = NEIGHBOUR_ROW("another client beside the listing, p99", NEIGHBOUR_MS),                          \
    [NEIGHBOUR_WATCH] = NEIGHBOUR_ROW("another client beside the watch, p99", NEIGHBOUR_MS),                           \
    [NEIGHBOUR_LOAD] = NEIGHBOUR_ROW("another client beside the load, p99", NEIGHBOUR_MS),                             \
    [NEIGHBOUR_MEDIAN] = NEIGHBOUR_ROW("… the slowest of the three, median", 0),                                       \
    [NEIGHBOUR_LONGEST] = NEIGHBOUR_ROW("… the slowest of the three, longest call", 0),                                \
    [DELETE] = {"bulk.delete of all keys, 1 000 a call", "µs a key", GROWTH_TIME, GROWTH_LINEAR},                      \
    [LIST_DELETED] = {"kv.keys after all were deleted", "µs a marker", GROWTH_TIME, GROWTH_LINEAR,                     \
                      .factor = CACHE_FACTOR},                                                                         \
    [LOAD_DELETED] = {"load after all were deleted", "µs a marker", GROWTH_TIME, GROWTH_LINEAR}

static const struct growth_row external_rows[ROWS] = {
    COMMON_ROWS,
    [FIRST_PAGE_DIRECT] = {"… with direct", "µs a call", GROWTH_TIME, GROWTH_SHOWN, .is_long = true},
};
static const struct growth_row embedded_rows[ROWS] = {
    COMMON_ROWS,
    [LIST_PAGES] = {"kv.keys of all keys, pages of 1 000", "µs a key", GROWTH_TIME, GROWTH_LINEAR,
                    .factor = CACHE_FACTOR},
    [START_STOPPED] = {"start after a stop, until healthy", "µs a key", GROWTH_TIME, GROWTH_LINEAR},
    [START_KILLED] = {"start after SIGKILL, until healthy", "µs a key", GROWTH_TIME, GROWTH_LINEAR},
};

/* --- Rows ---------------------------------------------------------------------------------------------- */

struct axis {
    struct scale *scale;
    struct growth growth;
    struct scale_servers servers;
    struct keys keys;
    unsigned rounds;
    double slowest_median_ms, longest_ms;
};

static void measure(struct axis *axis, enum row row, double units, scale_operation *operation)
{
    scale_measure(&axis->growth, row, &axis->servers, axis->rounds, units, operation, &axis->keys);
}

/* The same once, because a second reading comes from memory. */
static void measure_once(struct axis *axis, enum row row, scale_operation *operation)
{
    struct scale_span span = scale_begin(&axis->servers);

    scale_print_progress("%s, %s", axis->growth.title, axis->growth.rows[row].name);
    if (operation(&axis->servers, &axis->keys))
        growth_add(&axis->growth, row, scale_finish(&axis->servers, span, (double)axis->keys.count));
    else
        growth_fail(&axis->growth, row, "%s", axis->servers.failure);
}

static void measure_load(struct axis *axis)
{
    double before_kb = bench_own_memory_kb(axis->servers.servers.daemon);

    measure_once(axis, LOAD, keys_load);
    growth_add(
        &axis->growth, MEMORY,
        (struct growth_sample){.units = (double)axis->keys.count,
                               .passed = (bench_own_memory_kb(axis->servers.servers.daemon) - before_kb) * 1024});
}

static void measure_start(struct axis *axis, enum row row, enum scale_ending ending)
{
    struct growth_sample sample;

    scale_print_progress("%s, %s", axis->growth.title, axis->growth.rows[row].name);
    scale_restart(&axis->servers, ending, (double)axis->keys.count, &sample);
    growth_add(&axis->growth, row, sample);
}

/* What another client, with a bucket of its own, notices of an operation. */
static void measure_neighbour(struct axis *axis, enum row row, scale_operation *operation)
{
    struct scale_servers *servers = &axis->servers;
    struct neighbour_report report = {.calls = 0};

    scale_print_progress("%s, %s", axis->growth.title, axis->growth.rows[row].name);
    struct neighbour *neighbour = neighbour_begin(servers->servers.socket_path, NEIGHBOUR_BUCKET, &report);
    if (neighbour == NULL)
        bench_die("%s", report.error);
    neighbour_report_calls(neighbour, NEIGHBOUR_CALLS, &report); /* the first calls look up the bucket */
    double begin_s = bench_now_s();
    do { /* the bucket is without a copy in memory only once */
        if (!operation(servers, &axis->keys)) {
            growth_fail(&axis->growth, row, "%s", servers->failure);
            break;
        }
    } while (row == NEIGHBOUR_LIST && bench_now_s() - begin_s < NEIGHBOUR_S);
    neighbour_report(neighbour, &report);
    neighbour_end(neighbour);
    if (report.error[0] != '\0') {
        growth_fail(&axis->growth, row, "%s", report.error);
        return;
    }
    growth_add(&axis->growth, row, (struct growth_sample){.units = 1, .passed = report.p99_ms});
    axis->slowest_median_ms = report.p50_ms > axis->slowest_median_ms ? report.p50_ms : axis->slowest_median_ms;
    axis->longest_ms = report.longest_ms > axis->longest_ms ? report.longest_ms : axis->longest_ms;
}

/* The bucket has no copy in memory. */
static void measure_neighbours(struct axis *axis)
{
    struct growth_sample unused;

    axis->slowest_median_ms = axis->longest_ms = 0;
    measure_neighbour(axis, NEIGHBOUR_LOAD, keys_load);
    measure_neighbour(axis, NEIGHBOUR_LIST, keys_list);
    scale_restart(&axis->servers, SCALE_STOP, 1, &unused);
    measure_neighbour(axis, NEIGHBOUR_WATCH, keys_watch);
    growth_add(&axis->growth, NEIGHBOUR_MEDIAN, (struct growth_sample){.units = 1, .passed = axis->slowest_median_ms});
    growth_add(&axis->growth, NEIGHBOUR_LONGEST, (struct growth_sample){.units = 1, .passed = axis->longest_ms});
}

/* --- Sizes ----------------------------------------------------------------------------------------------- */

static void measure_size(struct axis *axis)
{
    struct keys *keys = &axis->keys;
    struct scale_servers *servers = &axis->servers;
    unsigned long_rounds = keys->count < LONG_ROUNDS_BELOW && !axis->scale->is_short ? 3 : 1;
    double count = (double)keys->count;
    struct growth_sample unused;

    scale_start(servers, axis->scale, servers->is_embedded ? "keys-embedded" : "keys-external", servers->is_embedded);
    measure_once(axis, FILL, keys_put_all);
    if (growth_has_failed(&axis->growth, FILL)) {
        scale_end(servers);
        return;
    }
    for (unsigned round = 0; round < long_rounds; round++) {
        measure_start(axis, START_STOPPED, SCALE_STOP);
        measure_once(axis, WATCH_UNLOADED, keys_watch);
        scale_restart(servers, SCALE_STOP, count, &unused);
        measure_load(axis);
    }
    measure(axis, GET, KEYS_CALLS, keys_get_some);
    measure(axis, PUT, KEYS_CALLS, keys_put_some);
    keys_prepare_update(servers, keys);
    measure(axis, UPDATE, KEYS_CALLS, keys_update_some);
    measure(axis, TRANSACTION, KEYS_TRANSACTIONS, keys_commit_some);
    axis->rounds = long_rounds;
    measure(axis, LIST, count, keys_list);
    if (servers->is_embedded)
        measure(axis, LIST_PAGES, count, keys_list_pages);
    measure(axis, FIRST_PAGE, 1, keys_list_page);
    if (!servers->is_embedded && !axis->scale->is_short)
        measure(axis, FIRST_PAGE_DIRECT, 1, keys_list_page_direct);
    measure(axis, WATCH, count, keys_watch);
    measure_start(axis, START_KILLED, SCALE_KILL);
    if (!axis->scale->is_short)
        measure_neighbours(axis);
    if (!keys_load(servers, keys))
        bench_die("%s", servers->failure);
    measure_once(axis, DELETE, keys_delete_all);
    measure(axis, LIST_DELETED, count, keys_list);
    scale_restart(servers, SCALE_STOP, count, &unused);
    measure_once(axis, LOAD_DELETED, keys_load);
    scale_end(servers);
}

/* Return false, and say so, if the machine has no room for so many. */
static bool has_room(uint64_t count)
{
    double disk_bytes = (double)count * KEY_DISK_BYTES + ROOM_LEFT_BYTES;
    double memory_bytes = (double)count * KEY_MEMORY_BYTES + ROOM_LEFT_BYTES;
    struct statvfs disk;

    if (statvfs(".", &disk) != 0)
        bench_die("the disk cannot be asked for its room");
    if ((double)disk.f_bavail * (double)disk.f_frsize < disk_bytes) {
        scale_skip("%llu keys: the disk has less than %.0f GB free", (unsigned long long)count, disk_bytes / 1e9);
        return false;
    }
    if (bench_available_kb() * 1024 < memory_bytes) {
        scale_skip("%llu keys: less than %.0f GB of memory are available", (unsigned long long)count,
                   memory_bytes / 1e9);
        return false;
    }
    return true;
}

static void measure_mode(struct scale *scale, bool is_embedded)
{
    struct axis axis = {.scale = scale};

    growth_init(&axis.growth, is_embedded ? "Keys in a bucket, embedded mode" : "Keys in a bucket, external mode",
                "keys", is_embedded ? embedded_rows : external_rows, ROWS, scale->is_short);
    for (uint64_t count = SCALE_KEYS_MIN; count <= scale->most_keys && has_room(count); count *= 10) {
        axis.keys = (struct keys){.count = count, .live = count};
        axis.servers.is_embedded = is_embedded;
        axis.rounds = GROWTH_ROUNDS_MAX;
        growth_add_size(&axis.growth, count);
        measure_size(&axis);
    }
    scale_report(scale, &axis.growth);
}

void scale_keys(struct scale *scale)
{
    measure_mode(scale, true);
    measure_mode(scale, false);
}
