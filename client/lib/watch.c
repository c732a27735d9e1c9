#include "client/lib/watch.h"

#include "client/lib/call.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/loop.h"
#include "client/lib/options.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_QUEUED_BYTES (8u * 1024 * 1024)

/* --- Memory ------------------------------------------------------------------------------------ */

static size_t watch_text_space(const char *text)
{
    return text != NULL ? strlen(text) + 1 : 0;
}

static const char *watch_copy_text(char **place, const char *text)
{
    size_t size = watch_text_space(text);
    char *copy = *place;

    if (size == 0)
        return NULL;
    memcpy(copy, text, size);
    *place += size;
    return copy;
}

/* Make a watch in one block: the watch, the array of filters, the strings. NULL strings are kept: the request reports
 * them. */
static struct kvs_watch *watch_make(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options)
{
    struct kvs_watch_options own;
    const char *wrong = options_copy(&own, sizeof(own), options);
    size_t text_bytes = watch_text_space(bucket);

    if (wrong != NULL) {
        client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", wrong);
        return NULL;
    }
    for (size_t i = 0; i < own.filter_count; i++)
        text_bytes += watch_text_space(own.filters[i]);
    struct kvs_watch *watch = calloc(1, sizeof(*watch) + own.filter_count * sizeof(char *) + text_bytes);
    if (watch == NULL) {
        client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for a watch");
        return NULL;
    }
    const char **filters = (const char **)(watch + 1);
    char *place = (char *)(filters + own.filter_count);
    watch->kvs = kvs;
    watch->options = own;
    watch->options.filters = filters;
    watch->bucket = watch_copy_text(&place, bucket);
    for (size_t i = 0; i < own.filter_count; i++)
        filters[i] = watch_copy_text(&place, own.filters[i]);
    if (watch->options.max_queued_bytes == 0)
        watch->options.max_queued_bytes = DEFAULT_QUEUED_BYTES;
    return watch;
}

static void watch_release(struct kvs_watch *watch)
{
    watch_queue_clear(watch);
    free(watch);
}

static void watch_link(struct kvs_watch *watch)
{
    watch->next = watch->kvs->watches;
    watch->kvs->watches = watch;
}

/* Free the watches that the program has stopped and that the daemon has ended. Not inside a callback,
 * which may belong to such a watch.
 */
static void watch_free_released(struct kvs *kvs)
{
    for (struct kvs_watch **place = &kvs->watches; *place != NULL;) {
        struct kvs_watch *watch = *place;
        if (watch->is_released && watch->state == WATCH_ENDED && watch != kvs->awaited) {
            *place = watch->next;
            watch_release(watch);
        } else {
            place = &watch->next;
        }
    }
}

void watch_free_all(struct kvs *kvs)
{
    while (kvs->watches != NULL) {
        struct kvs_watch *watch = kvs->watches;
        kvs->watches = watch->next;
        watch_release(watch);
    }
}

/* --- Delivering events --------------------------------------------------------------------------- */

void watch_deliver(struct kvs_watch *watch, const struct kvs_event *event)
{
    struct kvs *kvs = watch->kvs;
    bool before = kvs->in_callback; /* an event may be delivered while the answer to a call is handled */

    kvs->in_callback = true;
    watch->on_event(kvs, watch, event, watch->context);
    kvs->in_callback = before;
}

/* Return the revision up to which everything was delivered or was not asked for. The bucket has reached it. */
static uint64_t watch_known_revision(const struct kvs_watch *watch)
{
    return watch->has_delivered ? watch->delivered_revision : watch->base_revision;
}

/* Whether the watch can resume. Otherwise it must begin as the program asked. */
static bool watch_can_resume(const struct kvs_watch *watch)
{
    return watch->has_delivered || (watch->was_started && (watch->is_ready || watch->options.updates_only));
}

/* Return the revision from which the watch resumes. */
static uint64_t watch_resume_revision(const struct kvs_watch *watch)
{
    uint64_t next = watch_known_revision(watch) + 1;

    /* The watch may wait for a revision that does not exist yet. */
    return !watch->has_delivered && watch->options.from_revision > next ? watch->options.from_revision : next;
}

static void watch_set_ended(struct kvs_watch *watch, const struct kvs_error *reason)
{
    /* No later watch continues this one. */
    bool is_final = reason->code == KVS_REVISION_GONE || reason->code == KVS_BUCKET_NOT_FOUND;

    watch->state = WATCH_ENDED;
    watch->error = *reason;
    watch->must_deliver_end = watch->on_event != NULL;
    if (is_final) {
        watch->error.has_revision = false;
        watch->error.revision = 0;
    } else if (!watch->error.has_revision && watch_can_resume(watch)) {
        watch->error.has_revision = true;
        watch->error.revision = watch_resume_revision(watch);
    }
}

static void watch_deliver_end(struct kvs_watch *watch)
{
    if (!watch->must_deliver_end || watch->is_released)
        return;
    watch->must_deliver_end = false;
    watch_deliver(watch, &(struct kvs_event){.type = KVS_EVENT_ENDED, .error = &watch->error});
}

void watch_end(struct kvs_watch *watch, const struct kvs_error *reason)
{
    watch_set_ended(watch, reason);
    watch_deliver_end(watch);
}

/* --- Starting and stopping ------------------------------------------------------------------------ */

static void watch_schedule(struct kvs_watch *watch, enum watch_state state, int64_t due_ms)
{
    watch->state = state;
    watch->due_ms = due_ms;
    if (due_ms < watch->kvs->watch_due_ms)
        watch->kvs->watch_due_ms = due_ms;
}

static void watch_schedule_retry(struct kvs_watch *watch, enum watch_state state)
{
    watch_schedule(watch, state,
                   clock_now_ms() + clock_grow_pause(&watch->kvs->connection.random_state, &watch->pause_ms));
}

static void watch_on_stopped(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                             const struct kvs_value *result)
{
    struct kvs_watch *watch = receiver->context;

    (void)kvs;
    (void)error; /* nothing can be done about a failure */
    (void)result;
    watch->state = WATCH_ENDED;
}

static void watch_send_stop(struct kvs_watch *watch)
{
    struct kvs_request *request = call_begin(watch->kvs, "watch.stop", 1);

    kvs_request_unsigned(request, watch->id);
    if (call_submit(watch->kvs, (struct call_receiver){.deliver = watch_on_stopped, .context = watch}) == KVS_OK)
        watch->state = WATCH_STOPPING;
    else
        watch_schedule_retry(watch, WATCH_UNWANTED);
}

/* When out of memory, the watch goes on in the daemon, and its notifications are dropped. */
void watch_stop_id(struct kvs *kvs, uint64_t id)
{
    struct kvs_watch *watch = watch_make(kvs, NULL, NULL);

    if (watch == NULL)
        return;
    watch->id = id;
    watch->is_released = true;
    watch_link(watch);
    watch_send_stop(watch);
}

/* A call that was to start the watch has failed. A watch that was accepted before retries if the error may heal. */
static void watch_on_start_failed(struct kvs_watch *watch, const struct kvs_error *error)
{
    bool can_heal = watch->kvs->options.reconnect && error->retryable && (watch->was_started || error->code == KVS_IO);

    if (!watch->is_released && can_heal)
        watch_schedule_retry(watch, WATCH_WAITING);
    else
        watch_end(watch, error);
}

static void watch_on_wrong_answer(struct kvs_watch *watch)
{
    struct kvs_error error;

    client_error_set(&error, KVS_PROTOCOL, "the daemon broke the protocol: its answer is not a result of this method");
    watch_end(watch, &error);
}

static void watch_on_started(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                             const struct kvs_value *result)
{
    struct kvs_watch *watch = receiver->context;

    (void)kvs;
    if (error != NULL) {
        watch_on_start_failed(watch, error);
        return;
    }
    if (kvs_value_type(result) != KVS_INTEGER) {
        watch_on_wrong_answer(watch);
        return;
    }
    watch->id = kvs_value_unsigned(result);
    watch->was_started = true;
    watch->state = WATCH_RUNNING;
    if (watch->is_released)
        watch_send_stop(watch);
}

static void watch_add_filters(struct kvs_request *request, const struct kvs_watch_options *options)
{
    if (options->filter_count == 0)
        return;
    request_option(request, "filter");
    kvs_request_array(request, options->filter_count);
    for (size_t i = 0; i < options->filter_count; i++)
        kvs_request_string(request, options->filters[i]);
}

static enum kvs_code watch_send_start(struct kvs_watch *watch)
{
    const struct kvs_watch_options *options = &watch->options;
    struct kvs_request *request = call_begin_of_bucket(watch->kvs, "watch.start", 1, watch->bucket);

    watch_add_filters(request, options);
    if (watch_can_resume(watch)) {
        request_option_unsigned(request, "from_revision", watch_resume_revision(watch));
    } else {
        request_option_boolean(request, "include_history", options->include_history);
        request_option_boolean(request, "updates_only", options->updates_only);
        request_option_unsigned(request, "from_revision", options->from_revision);
    }
    request_option_boolean(request, "ignore_deletes", options->ignore_deletes);
    request_option_boolean(request, "meta_only", options->meta_only);
    request_option_boolean(request, "previous", options->previous);
    request_option_boolean(request, "snapshot", options->snapshot);
    request->timeout_s = options->timeout_s;
    watch->state = WATCH_STARTING;
    return call_submit(watch->kvs, (struct call_receiver){.deliver = watch_on_started, .context = watch});
}

/* The bucket was recreated: it has fewer revisions than were delivered, so all its entries are new. */
static void watch_restart_from_first(struct kvs_watch *watch)
{
    watch->has_delivered = true;
    watch->delivered_revision = 0;
}

static void watch_on_info(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                          const struct kvs_value *result)
{
    const struct kvs_value *last = kvs_value_member(result, "last_revision");
    struct kvs_watch *watch = receiver->context;

    if (error != NULL || watch->is_released) {
        if (watch->is_released)
            watch->state = WATCH_ENDED;
        else
            watch_on_start_failed(watch, error);
        return;
    }
    if (kvs_value_type(last) != KVS_INTEGER) {
        watch_on_wrong_answer(watch);
        return;
    }
    if (!watch->was_started)
        watch->base_revision = kvs_value_unsigned(last);
    else if (watch_can_resume(watch) && kvs_value_unsigned(last) < watch_known_revision(watch))
        watch_restart_from_first(watch);
    if (watch_send_start(watch) != KVS_OK)
        watch_on_start_failed(watch, &kvs->error);
}

static enum kvs_code watch_send_info(struct kvs_watch *watch)
{
    struct kvs_request *request = call_begin_of_bucket(watch->kvs, "bucket.info", 1, watch->bucket);

    request->timeout_s = watch->options.timeout_s;
    watch->state = WATCH_ASKING;
    return call_submit(watch->kvs, (struct call_receiver){.deliver = watch_on_info, .context = watch});
}

struct kvs_watch *watch_begin(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context)
{
    struct kvs_watch *watch = watch_make(kvs, bucket, options);

    if (watch == NULL)
        return NULL;
    watch->on_event = on_event;
    watch->context = context;
    if (watch_send_info(watch) != KVS_OK) {
        watch_release(watch);
        return NULL;
    }
    watch_link(watch);
    return watch;
}

enum kvs_code kvs_async_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context, struct kvs_watch **watch)
{
    if (watch != NULL)
        *watch = NULL;
    if (on_event == NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                "on_event is NULL: a watch needs a callback for its events");
    struct kvs_watch *begun = watch_begin(kvs, bucket, options, on_event, context);
    if (begun == NULL)
        return kvs->error.code;
    if (watch != NULL)
        *watch = begun;
    return KVS_OK;
}

void kvs_watch_stop(struct kvs_watch *watch)
{
    if (watch == NULL)
        return;
    struct kvs *kvs = watch->kvs;
    bool was_running = watch->state == WATCH_RUNNING;
    watch->is_released = true;
    if (was_running)
        watch_send_stop(watch);
    else if (watch->state == WATCH_WAITING)
        watch->state = WATCH_ENDED;
    if (kvs->in_callback)
        return;
    /* A program without a loop may not use the handle for long: tell the daemon now. */
    if (was_running && watch->on_event == NULL)
        loop_turn(kvs);
    else
        watch_free_released(kvs);
}

void watch_run(struct kvs *kvs)
{
    int64_t now_ms = clock_now_ms();

    if (now_ms >= kvs->watch_due_ms) {
        kvs->in_callback = true; /* a blocking call may be waiting: see call_scratch */
        kvs->watch_due_ms = INT64_MAX;
        for (struct kvs_watch *watch = kvs->watches; watch != NULL; watch = watch->next) {
            if (watch->state != WATCH_WAITING && watch->state != WATCH_UNWANTED)
                continue;
            if (watch->due_ms > now_ms)
                watch_schedule(watch, watch->state, watch->due_ms);
            else if (watch->state == WATCH_UNWANTED)
                watch_send_stop(watch);
            else if (watch_send_info(watch) != KVS_OK)
                watch_on_start_failed(watch, &kvs->error);
        }
        kvs->in_callback = false;
    }
    watch_free_released(kvs);
}

void watch_lose_all(struct kvs *kvs, const struct kvs_error *reason)
{
    bool can_heal = kvs->options.reconnect && reason->retryable;

    kvs->watch_due_ms = INT64_MAX;
    for (struct kvs_watch *watch = kvs->watches; watch != NULL; watch = watch->next) {
        if (watch->state == WATCH_UNWANTED)
            watch->state = WATCH_ENDED;
        if (watch->state != WATCH_RUNNING && watch->state != WATCH_WAITING)
            continue; /* the others have a call in flight, which fails */
        if (!can_heal)
            watch_set_ended(watch, reason);
        else if (watch->state == WATCH_WAITING)
            watch_schedule(watch, WATCH_WAITING, watch->due_ms);
        else if (watch->pause_ms == 0)
            watch_schedule(watch, WATCH_WAITING, 0);
        else
            watch_schedule_retry(watch,
                                 WATCH_WAITING); /* the daemon has sent nothing since it accepted the watch again */
    }
}

void watch_deliver_ends(struct kvs *kvs)
{
    /* Callbacks may add watches, at the front. */
    for (struct kvs_watch *watch = kvs->watches; watch != NULL; watch = watch->next)
        watch_deliver_end(watch);
}

struct kvs_watch *watch_find(struct kvs *kvs, uint64_t id)
{
    for (struct kvs_watch *watch = kvs->watches; watch != NULL; watch = watch->next) {
        if (watch->id == id &&
            (watch->state == WATCH_RUNNING || watch->state == WATCH_UNWANTED || watch->state == WATCH_STOPPING))
            return watch;
    }
    return NULL;
}
