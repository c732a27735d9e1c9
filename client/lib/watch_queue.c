/* The blocking face of watches: what has come waits in a queue until kvs_watch_next takes it. */
#include "client/lib/call.h"
#include "client/lib/error.h"
#include "client/lib/watch.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

/* --- The queue ----------------------------------------------------------------------------------- */

bool watch_queue_add(struct kvs_watch *watch, struct watch_batch *batch)
{
    /* One batch is always taken, so that a small limit cannot refuse a large message for ever. */
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

static void drop_first(struct kvs_watch *watch)
{
    struct watch_batch *batch = watch->first;

    watch->first = batch->next;
    watch->queued_bytes -= batch->size_bytes;
    free(batch);
}

void watch_queue_clear(struct kvs_watch *watch)
{
    while (watch->first != NULL)
        drop_first(watch);
}

bool watch_has_event(const struct kvs_watch *watch)
{
    return watch->first != NULL || watch->state == WATCH_ENDED;
}

static void take_event(struct kvs_watch *watch, struct kvs_event *event)
{
    struct watch_batch *batch = watch->first;

    if (batch != NULL) {
        event->type = batch->type;
        event->entry = batch->type == KVS_EVENT_ENTRY ? &batch->entries[batch->given] : NULL;
        batch->given++;
    } else if (watch->state == WATCH_ENDED) {
        event->type = KVS_EVENT_ENDED;
        event->error = &watch->error;
    }
}

/* --- Waiting --------------------------------------------------------------------------------------- */

/* Lets the handle work once, waiting until until_ms at most where there is nothing to do. */
static void work(struct kvs *kvs, int64_t until_ms)
{
    int64_t left_ms = until_ms - connection_now_ms();
    int timeout_ms = kvs_timeout_ms(kvs);

    if (left_ms < 0)
        left_ms = 0;
    if (timeout_ms < 0 || timeout_ms > left_ms)
        timeout_ms = left_ms < INT_MAX ? (int)left_ms : until_ms == INT64_MAX ? -1 : INT_MAX;
    connection_wait(kvs, timeout_ms);
    connection_run(kvs);
}

enum kvs_code kvs_watch_next(struct kvs_watch *watch, double timeout_s, struct kvs_event *event)
{
    struct kvs *kvs = watch->kvs;
    enum kvs_code code = call_check_blocking(kvs);

    *event = (struct kvs_event){0};
    if (code != KVS_OK)
        return code;
    if (watch->on_event != NULL || isnan(timeout_s))
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s",
                                watch->on_event != NULL ? "this watch has a function for its events: it has no next one"
                                                        : "timeout_s must be a number of seconds");

    /* The program is done with the event that it got last. */
    if (watch->first != NULL && watch->first->given == watch->first->count)
        drop_first(watch);
    if (!watch_has_event(watch)) {
        int64_t until_ms = connection_moment_after(timeout_s);
        kvs->awaited = watch;
        connection_run(kvs);
        while (!watch_has_event(watch) && !watch->is_forgotten && connection_now_ms() < until_ms)
            work(kvs, until_ms);
        kvs->awaited = NULL;
        if (watch->is_forgotten)
            return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                    "the watch was stopped by a function that was called while it was waited for");
    }
    take_event(watch, event);
    return KVS_OK;
}

enum kvs_code kvs_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                        struct kvs_watch **watch)
{
    double timeout_s = options != NULL && options->timeout_s > 0 ? options->timeout_s : kvs->options.timeout_s;
    int64_t until_ms = connection_now_ms() + call_wait_ms(timeout_s);
    enum kvs_code code;

    *watch = NULL;
    if ((code = call_check_blocking(kvs)) != KVS_OK || (code = call_wait_for_connection(kvs, until_ms)) != KVS_OK)
        return code;
    struct kvs_watch *begun = watch_begin(kvs, bucket, options, NULL, NULL);
    if (begun == NULL)
        return kvs->error.code;
    connection_run(kvs);
    while (!begun->was_started && begun->state != WATCH_ENDED && connection_now_ms() < until_ms)
        work(kvs, until_ms);
    if (begun->was_started) {
        *watch = begun;
        return KVS_OK;
    }

    struct kvs_error reason = begun->error;
    if (begun->state != WATCH_ENDED)
        client_error_set(&reason, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it alive?");
    kvs_watch_stop(begun);
    kvs->error = reason;
    return reason.code;
}
