#include "daemon/store/lease/lease_scan.h"

#include "daemon/base/log.h"
#include "daemon/store/lease/holding.h"
#include "daemon/store/lease/lease.h"

#include <stdlib.h>
#include <string.h>

/* A bucket of many keys takes long to read. */
#define SCAN_DEADLINE_MS 300000u

static void lease_scan_close(struct lease *lease)
{
    if (lease->scan_bucket != NULL)
        bucket_release(lease->scan_bucket);
    lease->scan_bucket = NULL;
    free(lease->scan_subject);
    lease->scan_subject = NULL;
}

static void lease_scan_end(struct lease *lease, const struct error *error)
{
    bool is_over = error == NULL || error->code == ERROR_BUCKET_NOT_FOUND;

    lease->scan = is_over ? LEASE_SCAN_NEEDLESS : LEASE_SCAN_WANTED;
    lease_scan_close(lease);
    holding_tick(lease->in);
}

static void lease_scan_restart(void *arg)
{
    (void)arg; /* what was found before is a holding already */
}

/* Return whether the holding's key waits for its owner, who may come back. */
static bool lease_scan_awaits_owner(const struct lease *lease, const struct kv_entry *entry)
{
    return lease->state == LEASE_ALIVE && lease_text_owner_of(entry) != NULL;
}

static enum consumer_verdict lease_scan_receive(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct lease *lease = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, lease->scan_bucket->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry))
        return CONSUMER_MORE;
    const char *id = lease_text_lease_of(&entry);
    if (id == NULL || strcmp(id, lease->id) != 0)
        return CONSUMER_MORE;
    const struct holding *known = holding_find(lease->in, entry.key);
    if (known == NULL || known->revision < entry.revision)
        holding_add_found(lease, &entry, lease_scan_awaits_owner(lease, &entry));
    return CONSUMER_MORE;
}

static void lease_scan_done(void *arg, const struct error *error)
{
    lease_scan_end(arg, error);
}

static const struct consumer_ops lease_scan_ops = {lease_scan_restart, lease_scan_receive, lease_scan_done};

static void on_lease_scan_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct lease *lease = arg;
    struct store *store = lease->in->store;

    if (error != NULL) {
        lease_scan_end(lease, error);
        return;
    }
    lease->scan_bucket = bucket;
    size_t bytes = strlen(bucket->prefix) + 2;
    lease->scan_subject = malloc(bytes);
    if (lease->scan_subject == NULL) {
        lease->scan = LEASE_SCAN_WANTED;
        lease_scan_close(lease);
        return;
    }
    strcpy(stpcpy(lease->scan_subject, bucket->prefix), ">");
    struct consumer_scope scope = {.stream = bucket->stream,
                                   .filters = (const char *const *)&lease->scan_subject,
                                   .filter_count = 1,
                                   .last_per_subject = true,
                                   .headers_only = true,
                                   .leaves_place = true};
    memset(&lease->scan_reading, 0, sizeof(lease->scan_reading));
    lease->scan_reading.request.limit = &store->leases->scans;
    consumer_read(&store->jetstream, &lease->scan_reading, &scope, uv_now(store->loop) + SCAN_DEADLINE_MS,
                  &lease_scan_ops, lease);
}

void lease_scan_start(struct lease *lease)
{
    struct store *store = lease->in->store;

    lease->scan = LEASE_SCAN_RUNNING;
    bucket_open(store, &lease->scan_wait, lease->in->name, NULL, uv_now(store->loop) + store->conf->calls.timeout_ms,
                on_lease_scan_bucket, lease);
}

void lease_scan_stop(struct lease *lease)
{
    if (lease->scan != LEASE_SCAN_RUNNING)
        return;
    bucket_wait_cancel(&lease->scan_wait);
    if (lease->scan_bucket != NULL)
        consumer_stop(&lease->scan_reading);
    lease_scan_close(lease);
    lease->scan = LEASE_SCAN_WANTED;
}
