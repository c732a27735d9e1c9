#include "tests/support/neighbour.h"

#include "client/lib/kvstore_admin.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEYS        16u
#define SAMPLES_MAX (1u << 20)
#define TIMEOUT_S   50 /* a call that has to wait fails the measurement, not the call */

struct neighbour {
    struct kvs *kvs;
    char bucket[64];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under lock: */
    bool must_end;
    bool has_ended;
    uint64_t rounds; /* a put and a get each */
    size_t calls, sample_count;
    double *samples_ms;
    char error[NEIGHBOUR_ERROR_BYTES];
};

static double now_in_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/*
 * While a call waits, those that would have followed it are not made. Count them too, with the time that they would
 * have waited: otherwise a standstill of a second is one slow call among hundreds, and no p99 shows it.
 */
static void note_call(struct neighbour *neighbour, double took_ms)
{
    neighbour->calls++;
    do {
        if (neighbour->sample_count < SAMPLES_MAX)
            neighbour->samples_ms[neighbour->sample_count++] = took_ms;
        took_ms -= NEIGHBOUR_INTERVAL_MS;
    } while (took_ms > 0);
}

/* Return false if it has failed; *error says why. */
static bool put_and_get(struct neighbour *neighbour, uint64_t round, double took_ms[2], char *error)
{
    struct kvs_entry *entry = NULL;
    char key[32], value[64];
    int size = snprintf(value, sizeof(value), "%llu of the neighbour", (unsigned long long)round);
    bool is_right = false;

    snprintf(key, sizeof(key), "neighbour.%u", (unsigned)(round % KEYS));
    double begin_ms = now_in_ms();
    enum kvs_code code = kvs_put(neighbour->kvs, neighbour->bucket, key, value, (size_t)size, NULL, NULL);
    double put_ms = now_in_ms();
    if (code == KVS_OK)
        code = kvs_get(neighbour->kvs, neighbour->bucket, key, NULL, &entry);
    took_ms[0] = put_ms - begin_ms;
    took_ms[1] = now_in_ms() - put_ms;
    if (code != KVS_OK) {
        const struct kvs_error *failed = kvs_last_error(neighbour->kvs);
        snprintf(error, NEIGHBOUR_ERROR_BYTES, "%s: %s", kvs_code_name(failed->code), failed->message);
        return false;
    }
    is_right = entry != NULL && entry->value_size == (size_t)size && memcmp(entry->value, value, (size_t)size) == 0;
    if (!is_right)
        snprintf(error, NEIGHBOUR_ERROR_BYTES, "the key %s has another value than the one that was put", key);
    kvs_free(entry);
    return is_right;
}

static void pause_until(double due_ms)
{
    double left_ms = due_ms - now_in_ms();

    if (left_ms > 0)
        usleep((unsigned)(left_ms * 1e3));
}

static void *run(void *context)
{
    struct neighbour *neighbour = context;
    char error[NEIGHBOUR_ERROR_BYTES] = "";
    bool goes_on = true;

    for (uint64_t round = 0; goes_on; round++) {
        double begin_ms = now_in_ms(), took_ms[2];
        goes_on = put_and_get(neighbour, round, took_ms, error);
        pthread_mutex_lock(&neighbour->lock);
        note_call(neighbour, took_ms[0]);
        note_call(neighbour, took_ms[1]);
        neighbour->rounds++;
        goes_on = goes_on && !neighbour->must_end;
        if (!goes_on) {
            memcpy(neighbour->error, error, sizeof(error));
            neighbour->has_ended = true;
        }
        pthread_cond_broadcast(&neighbour->changed);
        pthread_mutex_unlock(&neighbour->lock);
        if (goes_on)
            pause_until(begin_ms + NEIGHBOUR_INTERVAL_MS);
    }
    return NULL;
}

struct neighbour *neighbour_begin(const char *socket_path, const char *bucket, struct neighbour_report *report)
{
    const struct kvs_options options = KVS_OPTIONS(.timeout_s = TIMEOUT_S);
    const struct kvs_bucket_options in_memory = KVS_BUCKET_OPTIONS(.storage = KVS_STORAGE_MEMORY);
    struct neighbour *neighbour = calloc(1, sizeof(*neighbour));
    struct kvs_error error;

    memset(report, 0, sizeof(*report));
    if (neighbour == NULL || (neighbour->samples_ms = calloc(SAMPLES_MAX, sizeof(double))) == NULL)
        abort();
    snprintf(neighbour->bucket, sizeof(neighbour->bucket), "%s", bucket);
    pthread_mutex_init(&neighbour->lock, NULL);
    pthread_cond_init(&neighbour->changed, NULL);
    neighbour->has_ended = true;
    if ((neighbour->kvs = kvs_connect(socket_path, &options, &error)) == NULL) {
        snprintf(report->error, sizeof(report->error), "%s", error.message);
    } else if (kvs_bucket_create(neighbour->kvs, bucket, &in_memory, NULL) != KVS_OK) {
        snprintf(report->error, sizeof(report->error), "%s", kvs_last_error(neighbour->kvs)->message);
    } else {
        neighbour->has_ended = false;
        if (pthread_create(&neighbour->thread, NULL, run, neighbour) != 0)
            abort();
        return neighbour;
    }
    neighbour_end(neighbour);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Under lock. */
static void report_and_reset(struct neighbour *neighbour, struct neighbour_report *report)
{
    size_t count = neighbour->sample_count;

    memset(report, 0, sizeof(*report));
    qsort(neighbour->samples_ms, count, sizeof(double), compare);
    report->calls = neighbour->calls;
    if (count > 0) {
        report->p50_ms = neighbour->samples_ms[count / 2];
        report->p99_ms = neighbour->samples_ms[(count - 1) * 99 / 100];
        report->longest_ms = neighbour->samples_ms[count - 1];
    }
    memcpy(report->error, neighbour->error, sizeof(report->error));
    neighbour->calls = 0;
    neighbour->sample_count = 0;
}

void neighbour_report(struct neighbour *neighbour, struct neighbour_report *report)
{
    pthread_mutex_lock(&neighbour->lock);
    for (uint64_t round = neighbour->rounds; neighbour->rounds == round && !neighbour->has_ended;)
        pthread_cond_wait(&neighbour->changed, &neighbour->lock);
    report_and_reset(neighbour, report);
    pthread_mutex_unlock(&neighbour->lock);
}

void neighbour_report_calls(struct neighbour *neighbour, size_t calls, struct neighbour_report *report)
{
    pthread_mutex_lock(&neighbour->lock);
    while (neighbour->calls < calls && !neighbour->has_ended)
        pthread_cond_wait(&neighbour->changed, &neighbour->lock);
    report_and_reset(neighbour, report);
    pthread_mutex_unlock(&neighbour->lock);
}

void neighbour_end(struct neighbour *neighbour)
{
    if (neighbour->thread != 0) {
        pthread_mutex_lock(&neighbour->lock);
        neighbour->must_end = true;
        pthread_mutex_unlock(&neighbour->lock);
        pthread_join(neighbour->thread, NULL);
    }
    kvs_close(neighbour->kvs);
    pthread_mutex_destroy(&neighbour->lock);
    pthread_cond_destroy(&neighbour->changed);
    free(neighbour->samples_ms);
    free(neighbour);
}
