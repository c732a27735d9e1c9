/* Turns the daemon's notifications about watches into events. */
#include "client/lib/entry.h"
#include "client/lib/error.h"
#include "client/lib/watch.h"

#include <stdlib.h>
#include <string.h>

/* Read entries into one block. NULL, with *error, if they are invalid or when out of memory. */
static struct watch_batch *watch_read_batch(const struct kvs_value *entries, struct kvs_error *error)
{
    struct entry_space space = {.of_watch = true};

    for (size_t i = 0; i < kvs_value_count(entries); i++) {
        if (!entry_measure(kvs_value_item(entries, i), &space)) {
            client_error_set(error, KVS_PROTOCOL,
                             "the daemon broke the protocol: its notification has something that is not an entry");
            return NULL;
        }
    }
    size_t size_bytes = sizeof(struct watch_batch) + entry_space_bytes(&space);
    struct watch_batch *batch = malloc(size_bytes);
    if (batch == NULL) {
        client_error_set(error, KVS_NO_MEMORY, "out of memory for the events of a watch");
        return NULL;
    }
    struct entry_places places = entry_lay_out(batch + 1, &space);
    *batch = (struct watch_batch){
        .size_bytes = size_bytes, .type = KVS_EVENT_ENTRY, .entries = places.entries, .count = space.entries};
    for (size_t i = 0; i < space.entries; i++)
        entry_read(kvs_value_item(entries, i), &places);
    return batch;
}

static void watch_note_delivered(struct kvs_watch *watch, uint64_t revision)
{
    watch->has_delivered = true;
    watch->delivered_revision = revision;
}

/* End a watch that still runs in the daemon. */
static void watch_end_and_stop(struct kvs_watch *watch, const struct kvs_error *error)
{
    uint64_t id = watch->id;

    watch_end(watch, error);
    watch_stop_id(watch->kvs, id);
}

/* The program is too slow: it gets the queued entries, then the end with the revision from which to resume. */
static void watch_end_for_full_queue(struct kvs_watch *watch)
{
    struct kvs_error error;

    client_error_set(&error, KVS_RESOURCE_EXHAUSTED,
                     "more entries wait than max_queued_bytes of the watch allows (%zu): take them in time, or "
                     "start again with from_revision",
                     watch->options.max_queued_bytes);
    watch_end_and_stop(watch, &error);
}

static void watch_receive_entries(struct kvs_watch *watch, const struct kvs_value *entries)
{
    struct kvs_error error;
    struct watch_batch *batch = watch_read_batch(entries, &error);

    if (batch == NULL) {
        watch_end_and_stop(watch, &error);
        return;
    }
    if (batch->count == 0) {
        free(batch);
    } else if (watch->on_event == NULL) {
        uint64_t last = batch->entries[batch->count - 1].revision;
        if (watch_queue_add(watch, batch)) {
            watch_note_delivered(watch, last);
        } else {
            free(batch);
            watch_end_for_full_queue(watch);
        }
    } else {
        /* The callback may stop the watch. */
        for (size_t i = 0; i < batch->count && watch->state == WATCH_RUNNING; i++) {
            watch_note_delivered(watch, batch->entries[i].revision);
            watch_deliver(watch, &(struct kvs_event){.type = KVS_EVENT_ENTRY, .entry = &batch->entries[i]});
        }
        free(batch);
    }
}

static void watch_receive_ready(struct kvs_watch *watch, uint64_t revision)
{
    if (watch->is_ready)
        return; /* delivered before the connection was lost */
    watch->is_ready = true;
    if (watch->on_event != NULL) {
        watch_deliver(watch, &(struct kvs_event){.type = KVS_EVENT_READY, .revision = revision});
        return;
    }
    struct watch_batch *batch = malloc(sizeof(*batch));
    if (batch == NULL) {
        struct kvs_error error;
        watch->is_ready = false;
        client_error_set(&error, KVS_NO_MEMORY, "out of memory for the events of a watch");
        watch_end_and_stop(watch, &error);
        return;
    }
    *batch = (struct watch_batch){.type = KVS_EVENT_READY, .revision = revision, .count = 1};
    watch_queue_add(watch, batch);
}

enum watch_notification { NOTIFICATION_ENTRIES, NOTIFICATION_READY, NOTIFICATION_ENDED, NOTIFICATION_OTHER };

static enum watch_notification watch_notification_of(const struct rpc_message *message)
{
    static const char *const names[] = {[NOTIFICATION_ENTRIES] = "watch.entries",
                                        [NOTIFICATION_READY] = "watch.ready",
                                        [NOTIFICATION_ENDED] = "watch.ended"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (message->method_length == strlen(names[i]) && memcmp(message->method, names[i], strlen(names[i])) == 0)
            return (enum watch_notification)i;
    }
    return NOTIFICATION_OTHER;
}

static void watch_receive_one(struct kvs_watch *watch, enum watch_notification notification,
                              const struct kvs_value *content, const char **wrong)
{
    struct kvs_error error;

    switch (notification) {
    case NOTIFICATION_ENTRIES:
        watch->pause_ms = 0;
        if (kvs_value_type(content) == KVS_ARRAY)
            watch_receive_entries(watch, content);
        else
            *wrong = "is a watch.entries without entries";
        break;
    case NOTIFICATION_READY:
        watch->pause_ms = 0;
        watch_receive_ready(watch, kvs_value_unsigned(content));
        break;
    default:
        if (kvs_value_error(content, &error))
            watch_end(watch, &error);
        else
            *wrong = "ends a watch without a reason";
    }
}

bool watch_receive(struct kvs *kvs, const struct rpc_message *message, const char **wrong)
{
    const struct kvs_value *params = (const struct kvs_value *)&message->params;
    enum watch_notification notification = watch_notification_of(message);

    if (notification == NOTIFICATION_OTHER)
        return false;
    if (kvs_value_type(kvs_value_item(params, 0)) != KVS_INTEGER) {
        *wrong = "is about a watch but has no id";
        return true;
    }
    uint64_t id = kvs_value_unsigned(kvs_value_item(params, 0));
    struct kvs_watch *watch = watch_find(kvs, id);
    /* An unknown watch was started by kvs_call, or its start was answered after the call had timed out. */
    if (watch == NULL && kvs->options.on_notification != NULL)
        return false;

    kvs->in_callback = true; /* a blocking call may be waiting: see call_begin */
    if (watch != NULL && watch->state == WATCH_RUNNING)
        watch_receive_one(watch, notification, kvs_value_item(params, 1), wrong);
    else if (watch == NULL && notification != NOTIFICATION_ENDED)
        watch_stop_id(kvs, id);
    kvs->in_callback = false;
    return true;
}
