/* The verb bench: measures rows with one client and with many, in a bucket of its own. */
#include "client/kvctl/bench.h"

#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENTS_MAX    4000u /* below the daemon's limit of sessions */
#define IN_FLIGHT_MAX  4096u
#define KEYS_MAX       1000000u
#define SECONDS_MAX    86400u
#define PAIRS_PER_CALL 1000u
#define BYTES_PER_CALL (4u * 1024 * 1024)
#define CACHE_WARM_S   0.5
#define BAR_COLUMNS    40u
#define QUANTILES      5u

static const char *const operation_names[] = {[BENCH_PUT] = "put", [BENCH_GET] = "get", [BENCH_CACHED_GET] = "cached"};
static const double quantiles[QUANTILES] = {0.5, 0.9, 0.99, 0.999, 1};

struct bench {
    struct invocation *invocation;
    struct bench_plan plan;
    struct bench_row row; /* clients: of the rows with many */
    bool chosen[3];       /* by operation */
    bool is_own_bucket;
    bool purges_with_ttl;
    bool has_blocks; /* the terminal shows bars made of blocks */
    unsigned rows;   /* number of printed rows */
};

/* --- What is measured ---------------------------------------------------------------------------- */

static bool bench_read_count(const struct invocation *invocation, const char *name, uint64_t most, uint64_t *count)
{
    if (!arguments_number(invocation, name, count))
        return false;
    if (*count >= 1 && *count <= most)
        return true;
    return report("--%s must be from 1 to %" PRIu64, name, most) == STATUS_OK;
}

static bool bench_read_operations(struct bench *bench)
{
    const struct invocation *invocation = bench->invocation;

    for (int i = 0; i < invocation->argument_count; i++) {
        size_t operation = 0;
        while (operation < 3 && strcmp(invocation->arguments[i], operation_names[operation]) != 0)
            operation++;
        if (operation == 3)
            return report("the operation must be put, get or cached, not '%.100s'", invocation->arguments[i]) ==
                   STATUS_OK;
        bench->chosen[operation] = true;
    }
    if (invocation->argument_count == 0)
        bench->chosen[BENCH_PUT] = bench->chosen[BENCH_GET] = bench->chosen[BENCH_CACHED_GET] = true;
    return true;
}

static bool bench_read_options(struct bench *bench)
{
    const struct invocation *invocation = bench->invocation;
    uint64_t seconds = 3;
    int64_t value_size = 128;

    bench->row.clients = 50;
    bench->row.in_flight = 1;
    bench->plan.keys = 1000;
    if (!bench_read_operations(bench) || !bench_read_count(invocation, "clients", CLIENTS_MAX, &bench->row.clients) ||
        !bench_read_count(invocation, "in-flight", IN_FLIGHT_MAX, &bench->row.in_flight) ||
        !bench_read_count(invocation, "keys", KEYS_MAX, &bench->plan.keys) ||
        !bench_read_count(invocation, "seconds", SECONDS_MAX, &seconds) ||
        !arguments_number(invocation, "operations", &bench->row.operations) ||
        !arguments_size(invocation, "value-size", &value_size))
        return false;
    if (value_size < 0)
        return report("--value-size must be a size such as 128 or 64K") == STATUS_OK;
    if (arguments_value(invocation, "operations") != NULL && bench->row.operations < bench->row.clients)
        return report("--operations must be at least the number of clients") == STATUS_OK;
    bench->row.seconds = (double)seconds;
    bench->plan.value_size = (uint64_t)value_size;
    bench->plan.timeout_s = invocation->timeout_s;
    bench->plan.socket = invocation->socket;
    return true;
}

/* --- The bucket ---------------------------------------------------------------------------------- */

static enum status bench_open_bucket(struct bench *bench)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = bench->invocation->timeout_s);
    struct kvs_bucket_options settings =
        KVS_BUCKET_OPTIONS(.description = "temporary bucket of kvctl bench", .timeout_s = bench->invocation->timeout_s);
    struct kvs *kvs = bench->invocation->kvs;
    struct kvs_bucket_info *info;

    enum kvs_code code = bench->is_own_bucket ? kvs_bucket_create(kvs, bench->plan.bucket, &settings, &info)
                                              : kvs_bucket_info(kvs, bench->plan.bucket, &options, &info);
    if (code != KVS_OK)
        return report_error(kvs_last_error(kvs));
    bench->plan.first_revision = info->last_revision;
    bench->purges_with_ttl = info->allows_ttl;
    kvs_free(info);
    return STATUS_OK;
}

static bool bench_write_keys_from(struct bench *bench, uint64_t first, uint64_t count)
{
    const struct bench_plan *plan = &bench->plan;
    struct kvs_bulk_put_options options = KVS_BULK_PUT_OPTIONS(.timeout_s = plan->timeout_s);
    struct kvs_pair pairs[PAIRS_PER_CALL];
    char keys[PAIRS_PER_CALL][64];

    for (uint64_t i = 0; i < count; i++) {
        snprintf(keys[i], sizeof(keys[i]), "%s.%" PRIu64, plan->prefix, first + i);
        pairs[i] = (struct kvs_pair){.key = keys[i], .value = plan->values + first + i, .value_size = plan->value_size};
    }
    return kvs_bulk_put(bench->invocation->kvs, plan->bucket, pairs, count, &options, NULL, NULL) == KVS_OK;
}

static enum status bench_write_keys(struct bench *bench)
{
    const struct bench_plan *plan = &bench->plan;
    uint64_t at_once = BYTES_PER_CALL / (plan->value_size + 64);

    if (at_once > PAIRS_PER_CALL)
        at_once = PAIRS_PER_CALL;
    if (at_once == 0)
        at_once = 1;
    for (uint64_t first = 0; first < plan->keys; first += at_once) {
        uint64_t left = plan->keys - first;
        if (!bench_write_keys_from(bench, first, left < at_once ? left : at_once))
            return report_error(kvs_last_error(bench->invocation->kvs));
    }
    return STATUS_OK;
}

/* Purge the keys in a bucket of the user. The markers expire if the bucket allows it. */
static enum status bench_purge_keys(struct bench *bench)
{
    struct kvs_delete_options options =
        KVS_DELETE_OPTIONS(.ttl_s = bench->purges_with_ttl ? 1 : 0, .timeout_s = bench->invocation->timeout_s);
    char key[64];

    for (uint64_t i = 0; i < bench->plan.keys; i++) {
        snprintf(key, sizeof(key), "%s.%" PRIu64, bench->plan.prefix, i);
        if (kvs_purge(bench->invocation->kvs, bench->plan.bucket, key, &options, NULL) != KVS_OK)
            return report_error(kvs_last_error(bench->invocation->kvs));
    }
    return STATUS_OK;
}

static enum status bench_close_bucket(struct bench *bench)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = bench->invocation->timeout_s);

    if (!bench->is_own_bucket)
        return bench_purge_keys(bench);
    if (kvs_bucket_delete(bench->invocation->kvs, bench->plan.bucket, &options) != KVS_OK)
        return report_error(kvs_last_error(bench->invocation->kvs));
    return STATUS_OK;
}

/* --- What is printed ----------------------------------------------------------------------------- */

static double bench_per_second(const struct bench_result *result)
{
    return result->seconds > 0 ? (double)result->latency.count / result->seconds : 0;
}

static void bench_print_row(struct bench *bench, const struct bench_row *row, const struct bench_result *result)
{
    if (bench->rows == 0)
        printf("%-7s %8s %10s %12s %9s %9s %9s %9s %9s\n", "", "CLIENTS", "IN FLIGHT", "PER SECOND", "P50", "P90",
               "P99", "P99.9", "MAX");
    printf("%-7s %8" PRIu64 " %10" PRIu64 " %12s", operation_names[row->operation], row->clients, row->in_flight,
           text_of_count((uint64_t)(bench_per_second(result) + 0.5)).text);
    for (size_t i = 0; i < QUANTILES; i++)
        printf(" %9s", text_of_microseconds(latency_quantile_us(&result->latency, quantiles[i])).text);
    putchar('\n');
    fflush(stdout);
}

static void bench_print_bar(const struct bench *bench, double share)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    unsigned length = (unsigned)(share * BAR_COLUMNS * 8 + 0.5);

    for (unsigned i = 0; i < length / 8; i++)
        fputs(bench->has_blocks ? "█" : "#", stdout);
    if (bench->has_blocks)
        fputs(eighths[length % 8], stdout);
    else if (length < 8)
        putchar('.'); /* above zero */
}

/* Format a bound, which is a round number. */
static struct short_text bench_text_of_bound(double us)
{
    struct short_text text;

    if (us < 1000)
        snprintf(text.text, sizeof(text.text), "%.0f us", us);
    else if (us < 1000000)
        snprintf(text.text, sizeof(text.text), "%.0f ms", us / 1000);
    else
        snprintf(text.text, sizeof(text.text), "%.0f s", us / 1000000);
    return text;
}

/* Print the distribution of the latencies of one row. */
static void bench_print_histogram(const struct bench *bench, const struct bench_row *row, const struct latency *latency)
{
    double last_us = latency_quantile_us(latency, 1), from_us = 0, to_us, most = 0;
    uint64_t seen = 0;

    for (to_us = latency_next_bound_us(0); from_us < last_us; from_us = to_us, to_us = latency_next_bound_us(to_us)) {
        double count = (double)latency_count_between(latency, from_us, to_us);
        most = count > most ? count : most;
    }
    printf("\n%s, %" PRIu64 " client%s\n", operation_names[row->operation], row->clients, row->clients > 1 ? "s" : "");
    for (from_us = 0, to_us = latency_next_bound_us(0); seen < latency->count && most > 0;
         from_us = to_us, to_us = latency_next_bound_us(to_us)) {
        uint64_t count = latency_count_between(latency, from_us, to_us);
        seen += count;
        if (seen == 0)
            continue;
        double percent = 100.0 * (double)count / (double)latency->count;
        printf("  up to %6s %7.*f %%  ", bench_text_of_bound(to_us).text, percent > 0 && percent < 0.1 ? 3 : 1,
               percent);
        if (count > 0)
            bench_print_bar(bench, (double)count / most);
        putchar('\n');
    }
}

static void bench_print_row_json(struct bench *bench, const struct bench_row *row, const struct bench_result *result)
{
    static const char *const names[QUANTILES] = {"p50_us", "p90_us", "p99_us", "p999_us", "max_us"};
    const struct latency *latency = &result->latency;
    uint64_t seen = 0;

    if (bench->rows == 0)
        printf("{\"value_size\":%" PRIu64 ",\"keys\":%" PRIu64 ",\"rows\":[", bench->plan.value_size, bench->plan.keys);
    printf("%s{\"operation\":\"%s\",\"clients\":%" PRIu64 ",\"in_flight\":%" PRIu64 ",\"operations\":%" PRIu64
           ",\"seconds\":%.3f,\"per_second\":%.1f",
           bench->rows > 0 ? "," : "", operation_names[row->operation], row->clients, row->in_flight, latency->count,
           result->seconds, bench_per_second(result));
    for (size_t i = 0; i < QUANTILES; i++)
        printf(",\"%s\":%.1f", names[i], latency_quantile_us(latency, quantiles[i]));
    fputs(",\"histogram\":[", stdout);
    for (double from_us = 0, to_us = latency_next_bound_us(0); seen < latency->count;
         from_us = to_us, to_us = latency_next_bound_us(to_us)) {
        uint64_t count = latency_count_between(latency, from_us, to_us);
        if (seen + count > 0)
            printf("%s{\"up_to_us\":%.0f,\"count\":%" PRIu64 "}", seen > 0 ? "," : "", to_us, count);
        seen += count;
    }
    fputs("]}", stdout);
}

/* --- The rows ------------------------------------------------------------------------------------ */

/* Load the bucket into the daemon's cache, so that the row does not measure it. */
static enum status bench_warm_cache(struct bench *bench)
{
    struct bench_row row = {.operation = BENCH_CACHED_GET, .clients = 1, .in_flight = 16, .seconds = CACHE_WARM_S};
    struct bench_result *result = malloc(sizeof(*result));
    enum status status = result != NULL ? bench_run_row(&bench->plan, &row, result) : report("out of memory");

    free(result);
    return status;
}

static enum status bench_measure_row(struct bench *bench, const struct bench_row *row, struct bench_result *result)
{
    enum status status = bench_run_row(&bench->plan, row, result);

    if (status != STATUS_OK)
        return status;
    if (bench->invocation->json)
        bench_print_row_json(bench, row, result);
    else
        bench_print_row(bench, row, result);
    bench->rows++;
    return STATUS_OK;
}

static enum status bench_run_rows(struct bench *bench, struct bench_result results[3][2])
{
    enum status status = bench_write_keys(bench);

    for (int operation = BENCH_PUT; operation <= BENCH_CACHED_GET; operation++) {
        struct bench_row row = bench->row;
        if (!bench->chosen[operation])
            continue;
        row.operation = (enum bench_operation)operation;
        if (status == STATUS_OK && operation == BENCH_CACHED_GET)
            status = bench_warm_cache(bench);
        if (status == STATUS_OK && bench->row.clients > 1) {
            row.clients = 1;
            status = bench_measure_row(bench, &row, &results[operation][0]);
        }
        row.clients = bench->row.clients;
        if (status == STATUS_OK)
            status = bench_measure_row(bench, &row, &results[operation][1]);
    }
    for (int operation = BENCH_PUT; operation <= BENCH_CACHED_GET && status == STATUS_OK; operation++) {
        struct bench_row row = bench->row;
        row.operation = (enum bench_operation)operation;
        if (bench->chosen[operation] && !bench->invocation->json)
            bench_print_histogram(bench, &row, &results[operation][1].latency);
    }
    if (bench->invocation->json && bench->rows > 0)
        puts("]}");
    return status;
}

/* Make values that cannot be compressed and differ from key to key. */
static bool bench_make_values(struct bench_plan *plan)
{
    uint64_t size = plan->value_size + plan->keys, chance = UINT64_C(0x9e3779b97f4a7c15);

    plan->values = malloc(size);
    if (plan->values == NULL)
        return report("out of memory for the values") == STATUS_OK;
    for (uint64_t i = 0; i < size; i++) {
        chance = chance * UINT64_C(6364136223846793005) + 1;
        plan->values[i] = (char)(chance >> 56);
    }
    return true;
}

enum status bench_run(struct invocation *invocation)
{
    struct bench bench = {.invocation = invocation};
    struct bench_result(*results)[2] = calloc(3, sizeof(*results));
    char name[64];

    if (results == NULL)
        return report("out of memory");
    snprintf(name, sizeof(name), "kvctl-bench-%d", (int)getpid());
    bench.plan.prefix = name;
    bench.plan.bucket = arguments_value(invocation, "bucket");
    bench.is_own_bucket = bench.plan.bucket == NULL;
    if (bench.is_own_bucket)
        bench.plan.bucket = name;
    setlocale(LC_CTYPE, "");
    bench.has_blocks = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;

    enum status status = STATUS_FAILED;
    if (bench_read_options(&bench) && bench_make_values(&bench.plan)) {
        bench_catch_signals();
        status = bench_open_bucket(&bench);
        if (status == STATUS_OK) {
            status = bench_run_rows(&bench, results);
            enum status closed = bench_close_bucket(&bench);
            if (status == STATUS_OK)
                status = closed;
        }
    }
    free(bench.plan.values);
    free(results);
    return status;
}
