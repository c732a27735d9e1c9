/* The blocking form of watches: events wait in a queue until kvs_watch_next returns them. */
#include "client/lib/blocking.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/loop.h"
#include "client/lib/options.h"
#include "client/lib/watch.h"

#include <math.h>
#include <stdlib.h>

/* --- The queue ----------------------------------------------------------------------------------- */

bool watch_queue_add(struct kvs_watch *watch, struct watch_batch *batch)
{
    /* An empty queue accepts any batch: otherwise a small limit could refuse a large message for ever. */
    if (watch->first != NULL && batch->type == KVS_EVENT_ENTRY &&
        watch->queued_bytes + batch->size_bytes > watch->options.max_queued_bytes)
        return false;
    watch->queued_bytes += batch->size_bytes;
    batch->next = NULL;
    if (watch->first == NULL)
        watch->first = batch;
    else
        watch->last->next = batch;
    watch->last = batch;
    return true;
}

static void watch_queue_drop_first(struct kvs_watch *watch)
{
    struct watch_batch *batch = watch->first;

    watch->first = batch->next;
    watch->queued_bytes -= batch->size_bytes;
    free(batch);
}

void watch_queue_clear(struct kvs_watch *watch)
{
    while (watch->first != NULL)
        watch_queue_drop_first(watch);
}

bool watch_has_event(const struct kvs_watch *watch)
{
    return watch->first != NULL || watch->state == WATCH_ENDED;
}

static void watch_queue_take(struct kvs_watch *watch, struct kvs_event *event)
{
    struct watch_batch *batch = watch->first;

    if (batch != NULL) {
        event->type = batch->type;
        event->entry = batch->type == KVS_EVENT_ENTRY ? &batch->entries[batch->taken] : NULL;
        event->revision = batch->revision;
        batch->taken++;
    } else if (watch->state == WATCH_ENDED) {
        event->type = KVS_EVENT_ENDED;
        event->error = &watch->error;
    }
}

/* --- Waiting --------------------------------------------------------------------------------------- */

enum kvs_code kvs_watch_next(struct kvs_watch *watch, double timeout_s, struct kvs_event *event)
{
    struct kvs *kvs = watch->kvs;
    enum kvs_code code = blocking_check(kvs);

    *event = (struct kvs_event){0};
    if (code != KVS_OK)
        return code;
    if (watch->on_event != NULL || isnan(timeout_s))
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s",
                                watch->on_event != NULL
                                    ? "this watch has a callback for its events: use kvs_watch for one without"
                                    : "timeout_s must be a number of seconds");

    /* The program no longer uses the last event. */
    if (watch->first != NULL && watch->first->taken == watch->first->count)
        watch_queue_drop_first(watch);
    if (!watch_has_event(watch)) {
        int64_t until_ms = clock_moment_after(timeout_s);
        kvs->awaited = watch;
        loop_turn(kvs);
        while (!watch_has_event(watch) && !watch->is_released && clock_now_ms() < until_ms)
            loop_wait_and_turn(kvs, until_ms);
        kvs->awaited = NULL;
        if (watch->is_released)
            return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                    "the watch was stopped by a callback during the wait");
    }
    watch_queue_take(watch, event);
    return KVS_OK;
}

enum kvs_code kvs_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                        struct kvs_watch **watch)
{
    struct kvs_watch_options own;
    const char *wrong = options_copy(&own, sizeof(own), options);
    double timeout_s = own.timeout_s > 0 ? own.timeout_s : kvs->options.timeout_s;
    int64_t until_ms = clock_now_ms() + call_wait_ms(timeout_s);
    enum kvs_code code;

    *watch = NULL;
    if (wrong != NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", wrong);
    if ((code = blocking_check(kvs)) != KVS_OK || (code = blocking_connect(kvs, until_ms)) != KVS_OK)
        return code;
    struct kvs_watch *begun = watch_begin(kvs, bucket, options, NULL, NULL);
    if (begun == NULL)
        return kvs->error.code;
    kvs->awaited = begun; /* what comes with the answer waits as it does in kvs_watch_next */
    loop_turn(kvs);
    while (!begun->was_started && begun->state != WATCH_ENDED && clock_now_ms() < until_ms)
        loop_wait_and_turn(kvs, until_ms);
    kvs->awaited = NULL;
    if (begun->was_started) {
        *watch = begun;
        return KVS_OK;
    }

    struct kvs_error reason = begun->error;
    if (begun->state != WATCH_ENDED)
        client_error_set(&reason, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it running?");
    kvs_watch_stop(begun);
    kvs->error = reason;
    return reason.code;
}
