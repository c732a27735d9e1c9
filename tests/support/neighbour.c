#include "tests/support/neighbour.h"

#include "tests/support/command.h"

#include "client/lib/kvstore_admin.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEYS         16u
#define SAMPLES_MAX  (1u << 20)
#define TIMEOUT_S    50 /* a call that has to wait fails the measurement, not the call */
#define TIMEOUT_TEXT "50"

struct neighbour {
    struct kvs *kvs;
    char *kvctl; /* NULL: the calls are those of libkvstore */
    char *socket_path;
    double interval_ms;
    char bucket[64];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed, asked;
    /* Under lock: */
    bool must_end;
    bool has_ended;
    bool is_asked;   /* for a report: the pause ends */
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
        took_ms -= neighbour->interval_ms;
    } while (took_ms > 0);
}

/* Return whether the call has succeeded; otherwise *error says why. */
static bool check_call(struct neighbour *neighbour, enum kvs_code code, char *error)
{
    const struct kvs_error *failed = kvs_last_error(neighbour->kvs);

    if (code != KVS_OK)
        snprintf(error, NEIGHBOUR_ERROR_BYTES, "%s: %s", kvs_code_name(failed->code), failed->message);
    return code == KVS_OK;
}

/* Run a command of kvctl. Return whether it has succeeded, and set *output. */
static bool run_kvctl(struct neighbour *neighbour, const char *verb, const char *key, const char *value,
                      char output[COMMAND_OUTPUT_BYTES], char *error)
{
    const char *const arguments[] = {neighbour->kvctl,
                                     "--socket",
                                     neighbour->socket_path,
                                     "--timeout",
                                     TIMEOUT_TEXT,
                                     verb,
                                     neighbour->bucket,
                                     key,
                                     value,
                                     NULL};
    int status = command_run(arguments, output);

    if (status != 0)
        snprintf(error, NEIGHBOUR_ERROR_BYTES, "kvctl %s: status %d: %.300s", verb, status, output);
    return status == 0;
}

static bool put(struct neighbour *neighbour, const char *key, const char *value, char *error)
{
    char output[COMMAND_OUTPUT_BYTES];

    if (neighbour->kvctl != NULL)
        return run_kvctl(neighbour, "put", key, value, output, error);
    return check_call(neighbour, kvs_put(neighbour->kvs, neighbour->bucket, key, value, strlen(value), NULL, NULL),
                      error);
}

/* Set *value to the beginning of the key's value. */
static bool get(struct neighbour *neighbour, const char *key, char value[COMMAND_OUTPUT_BYTES], char *error)
{
    struct kvs_entry *entry = NULL;

    if (neighbour->kvctl != NULL) {
        if (!run_kvctl(neighbour, "get", key, NULL, value, error))
            return false;
        value[strcspn(value, "\n")] = '\0';
        return true;
    }
    if (!check_call(neighbour, kvs_get(neighbour->kvs, neighbour->bucket, key, NULL, &entry), error))
        return false;
    snprintf(value, COMMAND_OUTPUT_BYTES, "%.*s", (int)entry->value_size, (const char *)entry->value);
    kvs_free(entry);
    return true;
}

/* Return false if it has failed; *error says why. */
static bool put_and_get(struct neighbour *neighbour, uint64_t round, double took_ms[2], char *error)
{
    char key[32], value[64], found[COMMAND_OUTPUT_BYTES];

    snprintf(key, sizeof(key), "%s.%u", neighbour->kvctl != NULL ? "kvctl" : "neighbour", (unsigned)(round % KEYS));
    snprintf(value, sizeof(value), "%llu of the neighbour", (unsigned long long)round);
    double begin_ms = now_in_ms();
    bool is_put = put(neighbour, key, value, error);
    double put_ms = now_in_ms();
    bool is_got = is_put && get(neighbour, key, found, error);
    took_ms[0] = put_ms - begin_ms;
    took_ms[1] = now_in_ms() - put_ms;
    if (is_got && strcmp(found, value) != 0) {
        snprintf(error, NEIGHBOUR_ERROR_BYTES, "the key %s has another value than the one that was put", key);
        return false;
    }
    return is_got;
}

/* The caller holds the lock. A request for a report, or the end of the neighbour, ends the pause earlier. */
static void pause_until(struct neighbour *neighbour, double due_ms)
{
    const struct timespec due = {.tv_sec = (time_t)(due_ms / 1e3),
                                 .tv_nsec = (long)((due_ms - (double)(time_t)(due_ms / 1e3) * 1e3) * 1e6)};
    int outcome = 0;

    while (!neighbour->is_asked && !neighbour->must_end && outcome != ETIMEDOUT)
        outcome = pthread_cond_timedwait(&neighbour->asked, &neighbour->lock, &due);
    neighbour->is_asked = false;
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
        if (goes_on)
            pause_until(neighbour, begin_ms + neighbour->interval_ms);
        pthread_mutex_unlock(&neighbour->lock);
    }
    return NULL;
}

static struct neighbour *begin(const char *kvctl, const char *socket_path, const char *bucket, double interval_ms,
                               struct neighbour_report *report)
{
    const struct kvs_options options = KVS_OPTIONS(.timeout_s = TIMEOUT_S);
    const struct kvs_bucket_options in_memory = KVS_BUCKET_OPTIONS(.storage = KVS_STORAGE_MEMORY);
    struct neighbour *neighbour = calloc(1, sizeof(*neighbour));
    pthread_condattr_t monotonic;
    struct kvs_error error;

    memset(report, 0, sizeof(*report));
    if (neighbour == NULL || (neighbour->samples_ms = calloc(SAMPLES_MAX, sizeof(double))) == NULL ||
        (neighbour->socket_path = strdup(socket_path)) == NULL ||
        (kvctl != NULL && (neighbour->kvctl = strdup(kvctl)) == NULL))
        abort();
    snprintf(neighbour->bucket, sizeof(neighbour->bucket), "%s", bucket);
    neighbour->interval_ms = interval_ms;
    pthread_mutex_init(&neighbour->lock, NULL);
    pthread_cond_init(&neighbour->changed, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&neighbour->asked, &monotonic);
    pthread_condattr_destroy(&monotonic);
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

struct neighbour *neighbour_begin(const char *socket_path, const char *bucket, struct neighbour_report *report)
{
    return begin(NULL, socket_path, bucket, NEIGHBOUR_INTERVAL_MS, report);
}

struct neighbour *neighbour_begin_kvctl(const char *kvctl, const char *socket_path, const char *bucket,
                                        struct neighbour_report *report)
{
    return begin(kvctl, socket_path, bucket, NEIGHBOUR_KVCTL_INTERVAL_MS, report);
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
    neighbour->is_asked = true;
    pthread_cond_signal(&neighbour->asked);
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
        pthread_cond_signal(&neighbour->asked);
        pthread_mutex_unlock(&neighbour->lock);
        pthread_join(neighbour->thread, NULL);
    }
    kvs_close(neighbour->kvs);
    pthread_mutex_destroy(&neighbour->lock);
    pthread_cond_destroy(&neighbour->changed);
    pthread_cond_destroy(&neighbour->asked);
    free(neighbour->kvctl);
    free(neighbour->socket_path);
    free(neighbour->samples_ms);
    free(neighbour);
}
