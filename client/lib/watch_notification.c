/* What the daemon tells of watches: its notifications become events. */
#include "client/lib/entry.h"
#include "client/lib/error.h"
#include "client/lib/watch.h"

#include <stdlib.h>
#include <string.h>

/* Reads entries into one block; NULL, with *error, when they are none or out of memory. */
static struct watch_batch *read_batch(const struct kvs_value *entries, struct kvs_error *error)
{
    struct entry_space space = {.of_watch = true};

    for (size_t i = 0; i < kvs_value_count(entries); i++) {
        if (!entry_measure(kvs_value_item(entries, i), &space)) {
            client_error_set(error, KVS_PROTOCOL, "what the daemon tells of a watch is no entry");
            return NULL;
        }
    }
    size_t size_bytes = sizeof(struct watch_batch) + entry_space_bytes(&space);
    struct watch_batch *batch = malloc(size_bytes);
    if (batch == NULL) {
        client_error_set(error, KVS_NO_MEMORY, "out of memory for what the daemon tells of a watch");
        return NULL;
    }
    struct entry_places places = entry_lay_out(batch + 1, &space);
    *batch = (struct watch_batch){
        .size_bytes = size_bytes, .type = KVS_EVENT_ENTRY, .entries = places.entries, .count = space.entries};
    for (size_t i = 0; i < space.entries; i++)
        entry_read(kvs_value_item(entries, i), &places);
    return batch;
}

static void note_told(struct kvs_watch *watch, uint64_t revision)
{
    watch->has_told = true;
    watch->told_revision = revision;
}

/* Ends a watch that the daemon would go on with. */
static void end_and_stop(struct kvs_watch *watch, const struct kvs_error *error)
{
    uint64_t id = watch->id;

    watch_end(watch, error);
    watch_stop_id(watch->kvs, id);
}

/* The program takes less than comes. What waits is told, then the end, with where to go on. */
static void end_for_queue(struct kvs_watch *watch)
{
    struct kvs_error error;

    client_error_set(&error, KVS_RESOURCE_EXHAUSTED,
                     "more entries came than max_queued_bytes of the watch allows to wait (%zu): take them in time, or "
                     "begin again with from_revision",
                     watch->options.max_queued_bytes);
    end_and_stop(watch, &error);
}

static void take_entries(struct kvs_watch *watch, const struct kvs_value *entries)
{
    struct kvs_error error;
    struct watch_batch *batch = read_batch(entries, &error);

    if (batch == NULL) {
        end_and_stop(watch, &error);
        return;
    }
    if (batch->count == 0) {
        free(batch);
    } else if (watch->on_event == NULL) {
        uint64_t last = batch->entries[batch->count - 1].revision;
        if (watch_queue_add(watch, batch)) {
            note_told(watch, last);
        } else {
            free(batch);
            end_for_queue(watch);
        }
    } else {
        /* Its function may stop it. */
        for (size_t i = 0; i < batch->count && watch->state == WATCH_RUNNING; i++) {
            note_told(watch, batch->entries[i].revision);
            watch_deliver(watch, &(struct kvs_event){.type = KVS_EVENT_ENTRY, .entry = &batch->entries[i]});
        }
        free(batch);
    }
}

static void take_ready(struct kvs_watch *watch)
{
    if (watch->is_ready)
        return; /* it has told so before the connection was lost */
    watch->is_ready = true;
    if (watch->on_event != NULL) {
        watch_deliver(watch, &(struct kvs_event){.type = KVS_EVENT_READY});
        return;
    }
    struct watch_batch *batch = malloc(sizeof(*batch));
    if (batch == NULL) {
        struct kvs_error error;
        watch->is_ready = false;
        client_error_set(&error, KVS_NO_MEMORY, "out of memory for what the daemon tells of a watch");
        end_and_stop(watch, &error);
        return;
    }
    *batch = (struct watch_batch){.type = KVS_EVENT_READY, .count = 1};
    watch_queue_add(watch, batch);
}

enum notification { NOTIFICATION_ENTRIES, NOTIFICATION_READY, NOTIFICATION_ENDED, NOTIFICATION_OTHER };

static enum notification notification_of(const struct rpc_message *message)
{
    static const char *const names[] = {[NOTIFICATION_ENTRIES] = "watch.entries",
                                        [NOTIFICATION_READY] = "watch.ready",
                                        [NOTIFICATION_ENDED] = "watch.ended"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (message->method_length == strlen(names[i]) && memcmp(message->method, names[i], strlen(names[i])) == 0)
            return (enum notification)i;
    }
    return NOTIFICATION_OTHER;
}

static void take(struct kvs_watch *watch, enum notification notification, const struct kvs_value *content,
                 const char **wrong)
{
    struct kvs_error error;

    switch (notification) {
    case NOTIFICATION_ENTRIES:
        watch->pause_ms = 0;
        if (kvs_value_type(content) == KVS_ARRAY)
            take_entries(watch, content);
        else
            *wrong = "is about a watch's entries and has none";
        break;
    case NOTIFICATION_READY:
        watch->pause_ms = 0;
        take_ready(watch);
        break;
    default:
        if (kvs_value_error(content, &error))
            watch_end(watch, &error);
        else
            *wrong = "ends a watch and does not say why";
    }
}

bool watch_receive(struct kvs *kvs, const struct rpc_message *message, const char **wrong)
{
    const struct kvs_value *params = (const struct kvs_value *)&message->params;
    enum notification notification = notification_of(message);

    if (notification == NOTIFICATION_OTHER)
        return false;
    if (kvs_value_type(kvs_value_item(params, 0)) != KVS_INTEGER) {
        *wrong = "is about a watch without an id";
        return true;
    }
    uint64_t id = kvs_value_unsigned(kvs_value_item(params, 0));
    struct kvs_watch *watch = watch_find(kvs, id);
    /* Not ours: of a watch.start by kvs_call; or of one that was answered when nobody waited for it any more. */
    if (watch == NULL && kvs->options.on_notification != NULL)
        return false;

    kvs->in_callback = true; /* a blocking call may be waiting: see call_begin */
    if (watch != NULL && watch->state == WATCH_RUNNING)
        take(watch, notification, kvs_value_item(params, 1), wrong);
    else if (watch == NULL && notification != NOTIFICATION_ENDED)
        watch_stop_id(kvs, id);
    kvs->in_callback = false;
    return true;
}
