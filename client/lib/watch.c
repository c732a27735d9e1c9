#include "client/lib/watch.h"

#include "client/lib/call.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/loop.h"
#include "client/lib/options.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_QUEUED_BYTES (8u * 1024 * 1024)

/* --- Its memory -------------------------------------------------------------------------------- */

static size_t space_of(const char *text)
{
    return text != NULL ? strlen(text) + 1 : 0;
}

static const char *copy_text(char **place, const char *text)
{
    size_t size = space_of(text);
    char *copy = *place;

    if (size == 0)
        return NULL;
    memcpy(copy, text, size);
    *place += size;
    return copy;
}

/* One block: the watch, the array of filters, the strings. What is NULL stays so, for the request to report. */
static struct kvs_watch *make(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options)
{
    struct kvs_watch_options own;
    const char *wrong = options_copy(&own, sizeof(own), options);
    size_t text_bytes = space_of(bucket);

    if (wrong != NULL) {
        client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", wrong);
        return NULL;
    }
    for (size_t i = 0; i < own.filter_count; i++)
        text_bytes += space_of(own.filters[i]);
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
    watch->bucket = copy_text(&place, bucket);
    for (size_t i = 0; i < own.filter_count; i++)
        filters[i] = copy_text(&place, own.filters[i]);
    if (watch->options.max_queued_bytes == 0)
        watch->options.max_queued_bytes = DEFAULT_QUEUED_BYTES;
    return watch;
}

static void release(struct kvs_watch *watch)
{
    watch_queue_clear(watch);
    free(watch);
}

static void link_watch(struct kvs_watch *watch)
{
    watch->next = watch->kvs->watches;
    watch->kvs->watches = watch;
}

/* Frees what the program has stopped and the daemon has heard of. Not from inside a function, which may be a watch's.
 */
static void sweep(struct kvs *kvs)
{
    for (struct kvs_watch **place = &kvs->watches; *place != NULL;) {
        struct kvs_watch *watch = *place;
        if (watch->is_forgotten && watch->state == WATCH_ENDED && watch != kvs->awaited) {
            *place = watch->next;
            release(watch);
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
        release(watch);
    }
}

/* --- What it tells ------------------------------------------------------------------------------ */

void watch_deliver(struct kvs_watch *watch, const struct kvs_event *event)
{
    struct kvs *kvs = watch->kvs;
    bool before = kvs->in_callback; /* it may be told from inside the answer to a call */

    kvs->in_callback = true;
    watch->on_event(kvs, watch, event, watch->context);
    kvs->in_callback = before;
}

/* The revision up to which everything was told, or was not asked for; the bucket has had it. */
static uint64_t known_revision(const struct kvs_watch *watch)
{
    return watch->has_told ? watch->told_revision : watch->base_revision;
}

/* Whether there is something to go on from. Where not, it has to begin as the program has asked. */
static bool can_resume(const struct kvs_watch *watch)
{
    return watch->has_told || (watch->was_started && (watch->is_ready || watch->options.updates_only));
}

/* The revision with which it goes on. */
static uint64_t resume_revision(const struct kvs_watch *watch)
{
    uint64_t next = known_revision(watch) + 1;

    /* It may wait for one that is to come. */
    return !watch->has_told && watch->options.from_revision > next ? watch->options.from_revision : next;
}

static void end_untold(struct kvs_watch *watch, const struct kvs_error *reason)
{
    watch->state = WATCH_ENDED;
    watch->error = *reason;
    watch->owes_end = watch->on_event != NULL;
    if (!watch->error.has_revision && can_resume(watch)) {
        watch->error.has_revision = true;
        watch->error.revision = resume_revision(watch);
    }
}

static void tell_end(struct kvs_watch *watch)
{
    if (!watch->owes_end || watch->is_forgotten)
        return;
    watch->owes_end = false;
    watch_deliver(watch, &(struct kvs_event){.type = KVS_EVENT_ENDED, .error = &watch->error});
}

void watch_end(struct kvs_watch *watch, const struct kvs_error *reason)
{
    end_untold(watch, reason);
    tell_end(watch);
}

/* --- Starting and stopping ------------------------------------------------------------------------ */

static void wait_until(struct kvs_watch *watch, enum watch_state state, int64_t due_ms)
{
    watch->state = state;
    watch->due_ms = due_ms;
    if (due_ms < watch->kvs->watch_due_ms)
        watch->kvs->watch_due_ms = due_ms;
}

static void wait_a_pause(struct kvs_watch *watch, enum watch_state state)
{
    wait_until(watch, state, clock_now_ms() + clock_grow_pause(&watch->kvs->connection.random_state, &watch->pause_ms));
}

static void on_stopped(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                       const struct kvs_value *result)
{
    struct kvs_watch *watch = receiver->context;

    (void)kvs;
    (void)error; /* nothing can be done about it */
    (void)result;
    watch->state = WATCH_ENDED;
}

static void stop(struct kvs_watch *watch)
{
    struct kvs_request *request = call_begin(watch->kvs, "watch.stop", 1);

    kvs_request_unsigned(request, watch->id);
    if (call_submit(watch->kvs, (struct call_receiver){.deliver = on_stopped, .context = watch}) == KVS_OK)
        watch->state = WATCH_STOPPING;
    else
        wait_a_pause(watch, WATCH_UNWANTED);
}

/* Without memory the daemon goes on, and what it tells is dropped. */
void watch_stop_id(struct kvs *kvs, uint64_t id)
{
    struct kvs_watch *watch = make(kvs, NULL, NULL);

    if (watch == NULL)
        return;
    watch->id = id;
    watch->is_forgotten = true;
    link_watch(watch);
    stop(watch);
}

/* A call that was to start the watch has failed. Once it was taken it goes on whatever can heal. */
static void fail_to_start(struct kvs_watch *watch, const struct kvs_error *error)
{
    bool can_heal = watch->kvs->options.reconnect && error->retryable && (watch->was_started || error->code == KVS_IO);

    if (!watch->is_forgotten && can_heal)
        wait_a_pause(watch, WATCH_AWAY);
    else
        watch_end(watch, error);
}

static void fail_to_understand(struct kvs_watch *watch)
{
    struct kvs_error error;

    client_error_set(&error, KVS_PROTOCOL, "the daemon's answer is not what this method answers");
    watch_end(watch, &error);
}

static void on_started(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                       const struct kvs_value *result)
{
    struct kvs_watch *watch = receiver->context;

    (void)kvs;
    if (error != NULL) {
        fail_to_start(watch, error);
        return;
    }
    if (kvs_value_type(result) != KVS_INTEGER) {
        fail_to_understand(watch);
        return;
    }
    watch->id = kvs_value_unsigned(result);
    watch->was_started = true;
    watch->state = WATCH_RUNNING;
    if (watch->is_forgotten)
        stop(watch);
}

static void add_filters(struct kvs_request *request, const struct kvs_watch_options *options)
{
    if (options->filter_count == 0)
        return;
    request_option(request, "filter");
    kvs_request_array(request, options->filter_count);
    for (size_t i = 0; i < options->filter_count; i++)
        kvs_request_string(request, options->filters[i]);
}

static enum kvs_code start(struct kvs_watch *watch)
{
    const struct kvs_watch_options *options = &watch->options;
    struct kvs_request *request = call_begin(watch->kvs, "watch.start", 1);

    kvs_request_string(request, watch->bucket);
    add_filters(request, options);
    if (can_resume(watch)) {
        request_option_unsigned(request, "from_revision", resume_revision(watch));
    } else {
        request_option_boolean(request, "include_history", options->include_history);
        request_option_boolean(request, "updates_only", options->updates_only);
        request_option_unsigned(request, "from_revision", options->from_revision);
    }
    request_option_boolean(request, "ignore_deletes", options->ignore_deletes);
    request_option_boolean(request, "meta_only", options->meta_only);
    request->timeout_s = options->timeout_s;
    watch->state = WATCH_STARTING;
    return call_submit(watch->kvs, (struct call_receiver){.deliver = on_started, .context = watch});
}

/* The bucket has fewer revisions than were told: what is in it now is all new. */
static void begin_anew(struct kvs_watch *watch)
{
    watch->has_told = true;
    watch->told_revision = 0;
}

static void on_looked(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                      const struct kvs_value *result)
{
    const struct kvs_value *last = kvs_value_member(result, "last_revision");
    struct kvs_watch *watch = receiver->context;

    if (error != NULL || watch->is_forgotten) {
        if (watch->is_forgotten)
            watch->state = WATCH_ENDED;
        else
            fail_to_start(watch, error);
        return;
    }
    if (kvs_value_type(last) != KVS_INTEGER) {
        fail_to_understand(watch);
        return;
    }
    if (!watch->was_started)
        watch->base_revision = kvs_value_unsigned(last);
    else if (can_resume(watch) && kvs_value_unsigned(last) < known_revision(watch))
        begin_anew(watch);
    if (start(watch) != KVS_OK)
        fail_to_start(watch, &kvs->error);
}

static enum kvs_code look(struct kvs_watch *watch)
{
    struct kvs_request *request = call_begin(watch->kvs, "bucket.info", 1);

    kvs_request_string(request, watch->bucket);
    request->timeout_s = watch->options.timeout_s;
    watch->state = WATCH_LOOKING;
    return call_submit(watch->kvs, (struct call_receiver){.deliver = on_looked, .context = watch});
}

struct kvs_watch *watch_begin(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context)
{
    struct kvs_watch *watch = make(kvs, bucket, options);

    if (watch == NULL)
        return NULL;
    watch->on_event = on_event;
    watch->context = context;
    if (look(watch) != KVS_OK) {
        release(watch);
        return NULL;
    }
    link_watch(watch);
    return watch;
}

enum kvs_code kvs_async_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context, struct kvs_watch **watch)
{
    if (watch != NULL)
        *watch = NULL;
    if (on_event == NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "a watch needs a function for its events");
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
    watch->is_forgotten = true;
    if (was_running)
        stop(watch);
    else if (watch->state == WATCH_AWAY)
        watch->state = WATCH_ENDED;
    if (kvs->in_callback)
        return;
    /* A program without a loop may not look at the handle for long: the daemon hears of it now. */
    if (was_running && watch->on_event == NULL)
        loop_turn(kvs);
    else
        sweep(kvs);
}

void watch_run(struct kvs *kvs)
{
    int64_t now_ms = clock_now_ms();

    if (now_ms >= kvs->watch_due_ms) {
        kvs->in_callback = true; /* a blocking call may be waiting: see call_begin */
        kvs->watch_due_ms = INT64_MAX;
        for (struct kvs_watch *watch = kvs->watches; watch != NULL; watch = watch->next) {
            if (watch->state != WATCH_AWAY && watch->state != WATCH_UNWANTED)
                continue;
            if (watch->due_ms > now_ms)
                wait_until(watch, watch->state, watch->due_ms);
            else if (watch->state == WATCH_UNWANTED)
                stop(watch);
            else if (look(watch) != KVS_OK)
                fail_to_start(watch, &kvs->error);
        }
        kvs->in_callback = false;
    }
    sweep(kvs);
}

void watch_lose_all(struct kvs *kvs, const struct kvs_error *reason)
{
    bool can_heal = kvs->options.reconnect && reason->retryable;

    kvs->watch_due_ms = INT64_MAX;
    for (struct kvs_watch *watch = kvs->watches; watch != NULL; watch = watch->next) {
        if (watch->state == WATCH_UNWANTED)
            watch->state = WATCH_ENDED;
        if (watch->state != WATCH_RUNNING && watch->state != WATCH_AWAY)
            continue; /* the others have a call in flight, which ends */
        if (!can_heal)
            end_untold(watch, reason);
        else if (watch->state == WATCH_AWAY)
            wait_until(watch, WATCH_AWAY, watch->due_ms);
        else if (watch->pause_ms == 0)
            wait_until(watch, WATCH_AWAY, 0);
        else
            wait_a_pause(watch, WATCH_AWAY); /* the daemon has told nothing since it took the watch again */
    }
}

void watch_deliver_ends(struct kvs *kvs)
{
    /* Functions may add watches, in front. */
    for (struct kvs_watch *watch = kvs->watches; watch != NULL; watch = watch->next)
        tell_end(watch);
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
