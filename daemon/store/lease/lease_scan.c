#include "daemon/store/lease/lease_scan.h"

#include <stdlib.h>
#include <string.h>

/* Reading a bucket with many keys takes long. */
#define SCAN_DEADLINE_MS 300000u

static void lease_scan_close(struct lease_scan *scan)
{
    if (scan->bucket != NULL)
        bucket_release(scan->bucket);
    scan->bucket = NULL;
    free(scan->subject);
    scan->subject = NULL;
    scan->is_running = false;
}

static void lease_scan_end(void *arg, const struct error *error)
{
    struct lease_scan *scan = arg;

    lease_scan_close(scan);
    scan->done(scan->arg, error);
}

static void lease_scan_restart(void *arg)
{
    (void)arg; /* entries may come twice */
}

static enum consumer_verdict lease_scan_receive(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct lease_scan *scan = arg;
    struct kv_entry entry;

    if (kv_read_entry(message, message->subject, scan->bucket->prefix, delivery->stream_sequence, delivery->created_us,
                      &entry))
        scan->found(scan->arg, &entry);
    return CONSUMER_MORE;
}

static const struct consumer_ops lease_scan_ops = {lease_scan_restart, lease_scan_receive, lease_scan_end};

static void on_lease_scan_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct lease_scan *scan = arg;
    struct store *store = scan->in->store;
    struct error memory;

    scan->bucket = bucket;
    if (error == NULL && (scan->subject = malloc(strlen(bucket->prefix) + strlen(scan->filter) + 1)) == NULL) {
        error_set(&memory, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        error = &memory;
    }
    if (error != NULL) {
        lease_scan_end(scan, error);
        return;
    }
    strcpy(stpcpy(scan->subject, bucket->prefix), scan->filter);
    struct consumer_scope scope = {.stream = bucket->stream,
                                   .filters = (const char *const *)&scan->subject,
                                   .filter_count = 1,
                                   .last_per_subject = true,
                                   .headers_only = !scan->with_values,
                                   .leaves_place = true};
    memset(&scan->reading, 0, sizeof(scan->reading));
    scan->reading.request.limit = &store->leases->scans;
    consumer_read(&store->jetstream, &scan->reading, &scope, uv_now(store->loop) + SCAN_DEADLINE_MS, &lease_scan_ops,
                  scan);
}

void lease_scan_start(struct lease_scan *scan)
{
    struct store *store = scan->in->store;

    scan->is_running = true;
    bucket_open(store, &scan->wait, scan->in->name, 0, uv_now(store->loop) + store->conf->calls.timeout_ms,
                on_lease_scan_bucket, scan);
}

void lease_scan_stop(struct lease_scan *scan)
{
    if (!scan->is_running)
        return;
    bucket_wait_cancel(&scan->wait);
    if (scan->subject != NULL)
        consumer_stop(&scan->reading);
    lease_scan_close(scan);
}
