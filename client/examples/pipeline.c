/*
 * Writes 1,000 keys without waiting for an answer before the next request: submits all of them, then waits with poll()
 * while the answers arrive in any order. Before: kvctl add demo
 */
#include <kvstore_async.h>

#include <poll.h>
#include <stdio.h>
#include <time.h>

#define PUTS 1000

struct tally {
    unsigned written;
    unsigned failed;
};

static void on_put(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    struct tally *tally = context;

    (void)kvs;
    (void)revision;
    if (error == NULL) {
        tally->written++;
    } else if (tally->failed++ == 0) {
        fprintf(stderr, "%s\n", error->message);
    }
}

int main(void)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, NULL, &error);
    struct tally tally = {0};
    struct timespec begin, end;

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);

    for (int i = 0; i < PUTS; i++) {
        char key[32];
        int length = snprintf(key, sizeof(key), "pipeline.%d", i);
        if (kvs_async_put(kvs, "demo", key, key, (size_t)length, NULL, on_put, &tally) != KVS_OK) {
            fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
            break;
        }
    }
    while (kvs_in_flight(kvs) > 0) {
        struct pollfd waited = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
        poll(&waited, 1, kvs_timeout_ms(kvs));
        kvs_process(kvs);
    }

    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%u of %d keys written in %.1f ms\n", tally.written, PUTS,
           (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6);
    kvs_close(kvs);
    return tally.written == PUTS ? 0 : 1;
}
