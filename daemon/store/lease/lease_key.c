#include "daemon/store/lease/lease_key.h"

#include "daemon/base/clock.h"

#include <stdio.h>
#include <string.h>

/*
 * The marker of a lease that has ended expires after this time. The lease itself does not expire: a daemon that finds
 * it later learns that there may be keys to delete.
 */
#define MARKER_TTL_S 60

bool lease_key_write(struct lease *lease, enum kv_operation kind, enum operation_condition condition,
                     uint64_t deadline_ms, write_done_fn *done)
{
    struct store *store = lease->in->store;
    struct write *write = arena_zalloc(&lease->arena, sizeof(*write));
    struct lease_text text = {.is_alive = true, .renewal = ++lease->renewal, .ttl_ms = lease->ttl_ms};

    if (write == NULL)
        return false;
    snprintf(text.run, sizeof(text.run), "%s", connection_unique_id(store->connection));
    write->operation.value = kind == KV_PUT ? lease_text_write(&lease->arena, store, &text) : "";
    if (write->operation.value == NULL)
        return false;
    write->bucket_name = lease->in->name;
    write->operation.key = lease->key;
    write->operation.kind = kind;
    write->operation.condition = condition;
    write->operation.revision = lease->revision;
    write->operation.value_bytes = strlen(write->operation.value);
    if (lease->allows_ttl && kind != KV_PUT)
        write->operation.ttl_s = MARKER_TTL_S;
    write->deadline_ms = deadline_ms;
    write->done = done;
    write->arg = lease;
    lease->work = LEASE_WRITING;
    lease->work_doubts = lease->in->doubts;
    lease->sent_ms = clock_boot_ms();
    write_start(store, &lease->arena, write);
    return true;
}

bool lease_key_read(struct lease *lease, uint64_t deadline_ms, get_done_fn *done)
{
    lease->work = LEASE_READING;
    lease->work_doubts = lease->in->doubts;
    if (lease_bucket_read(lease->in, &lease->arena, lease->key, deadline_ms, done, lease))
        return true;
    lease->work = LEASE_IDLE;
    return false;
}

bool lease_key_is_own(const struct lease *lease, const struct kv_entry *entry, struct lease_text *text)
{
    return entry != NULL && lease_text_read(entry, text) && text->is_alive &&
           strcmp(text->run, connection_unique_id(lease->in->store->connection)) == 0;
}
