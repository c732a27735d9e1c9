/*
 * What a scrape of the metrics costs a client of the same daemon. The client gets keys from memory, one call after the
 * other: the calls that a delay would show in first. The peer is the same client of the same daemon without a scrape.
 */
#include "client/lib/kvstore.h"
#include "tests/bench/bench.h"
#include "tests/support/ports.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCRAPE_KEYS    1000u
#define SCRAPE_ROUND_S 3.0
#define SCRAPE_EVERY_S 1.0
#define SAMPLES_MAX    1000000u
#define PAGE_BYTES_MIN 10000u

/* The daemon of these rows, which all rounds of both sides use. */
static struct {
    struct bench_servers servers;
    unsigned port;
} scraped;

/* --- The scraper --------------------------------------------------------------------------------------- */

static atomic_bool scrape_must_end;
static atomic_uint scrape_count;

/* Read the metrics once, as Prometheus does. */
static void scrape_once(void)
{
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                  "Accept: application/openmetrics-text\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)scraped.port)};
    char buffer[65536];
    size_t bytes = 0;
    ssize_t part;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        write(connection, request, sizeof(request) - 1) != (ssize_t)sizeof(request) - 1)
        bench_die("the metrics are not served");
    while ((part = read(connection, buffer, sizeof(buffer))) > 0)
        bytes += (size_t)part;
    close(connection);
    if (bytes < PAGE_BYTES_MIN)
        bench_die("the metrics have %zu bytes", bytes);
    atomic_fetch_add(&scrape_count, 1);
}

static void *scrape_run(void *context)
{
    (void)context;
    for (double next_s = bench_now_s(); !atomic_load(&scrape_must_end);) {
        if (bench_now_s() >= next_s) {
            scrape_once();
            next_s += SCRAPE_EVERY_S;
        }
        usleep(10000);
    }
    return NULL;
}

/* --- The client ---------------------------------------------------------------------------------------- */

static int scrape_compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void scrape_get(struct kvs *kvs, const char *key)
{
    struct kvs_entry *entry = NULL;

    if (kvs_get(kvs, BENCH_BUCKET, key, NULL, &entry) != KVS_OK)
        bench_die("a get failed: %s", kvs_last_error(kvs)->message);
    if (entry == NULL || !bench_is_value(entry->value, entry->value_size, key, UINT32_MAX))
        bench_die("a get of %s answered something else than was put", key);
    kvs_free(entry);
}

static void scrape_put_all(struct kvs *kvs)
{
    char key[32], value[BENCH_VALUE_BYTES];

    for (unsigned i = 0; i < SCRAPE_KEYS; i++) {
        snprintf(key, sizeof(key), "scrape.%u", i);
        bench_make_value(value, key, i);
        if (kvs_put(kvs, BENCH_BUCKET, key, value, sizeof(value), NULL, NULL) != KVS_OK)
            bench_die("a put failed: %s", kvs_last_error(kvs)->message);
    }
}

/* The result is the percentile of the latency, in microseconds. */
static void scrape_measure(struct bench_client *client)
{
    const double *percentile = client->context;
    float *samples = malloc(SAMPLES_MAX * sizeof(*samples));
    struct kvs_error error;
    pthread_t scraper;
    size_t count = 0;
    char key[32];

    struct kvs *kvs = kvs_connect(client->servers->socket_path, NULL, &error);
    if (kvs == NULL || samples == NULL)
        bench_die("%s", kvs == NULL ? error.message : "out of memory");
    scrape_put_all(kvs);
    scrape_get(kvs, "scrape.0"); /* loads the bucket */
    if (client->is_ours && pthread_create(&scraper, NULL, scrape_run, NULL) != 0)
        bench_die("no thread");
    double begun_s = bench_now_s(), end_s = begun_s + SCRAPE_ROUND_S;
    while (begun_s < end_s && count < SAMPLES_MAX) {
        snprintf(key, sizeof(key), "scrape.%zu", count % SCRAPE_KEYS);
        scrape_get(kvs, key);
        double now_s = bench_now_s();
        samples[count++] = (float)((now_s - begun_s) * 1e6);
        begun_s = now_s;
    }
    atomic_store(&scrape_must_end, true);
    if (client->is_ours) {
        pthread_join(scraper, NULL);
        if (atomic_load(&scrape_count) < (unsigned)(SCRAPE_ROUND_S / SCRAPE_EVERY_S))
            bench_die("the metrics were scraped %u times only", atomic_load(&scrape_count));
    }
    qsort(samples, count, sizeof(*samples), scrape_compare);
    client->result = (double)samples[(size_t)((double)(count - 1) * *percentile)];
    free(samples);
    kvs_close(kvs);
}

/* --- Rows ---------------------------------------------------------------------------------------------- */

static double scrape_row(const struct bench *bench, bool is_ours, double percentile)
{
    static char sections[96];
    const struct bench_client client = {
        .bench = bench, .servers = &scraped.servers, .is_ours = is_ours, .context = &percentile};

    if (scraped.port == 0) {
        scraped.port = port_reserve();
        snprintf(sections, sizeof(sections), "metrics: {listen: '127.0.0.1:%u', buckets: [" BENCH_BUCKET "]}\n",
                 scraped.port);
        scraped.servers.sections = sections;
        bench_start_embedded(bench, &scraped.servers, "scraped", NULL);
    }
    return bench_alone(&client, scrape_measure);
}

double scrape_p50_us(const struct bench *bench, bool is_ours)
{
    return scrape_row(bench, is_ours, 0.5);
}

double scrape_p99_us(const struct bench *bench, bool is_ours)
{
    return scrape_row(bench, is_ours, 0.99);
}

double scrape_longest_us(const struct bench *bench, bool is_ours)
{
    return scrape_row(bench, is_ours, 1);
}
