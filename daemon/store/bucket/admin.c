#include "daemon/store/bucket/admin.h"

#include "daemon/base/log.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/bucket/bucket_names.h"
#include "daemon/store/bucket/removed.h"
#include "daemon/store/bucket/shrink.h"
#include "daemon/store/observe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Calls that are at NATS at a time. */
#define CALLS_MAX 8u

struct admin_state {
    struct request_limit calls;
    struct turns lists;
    struct removed_bucket *removed; /* uthash */
};

/*
 * The server handles API requests one after the other, and a change of a stream takes milliseconds. So few are in
 * flight at a time, and users and sessions take turns: a client that changes thousands of buckets does not block the
 * others.
 */
static void admin_call_api(struct admin *admin, const char *verb, const char *name, json_t *body,
                           jetstream_call_fn *done)
{
    admin->call.request.limit = &admin->store->admin->calls;
    request_set_caller(&admin->call.request, admin->arena);
    jetstream_call(&admin->store->jetstream, &admin->call, verb, name, body, admin->deadline_ms, done, admin);
}

static void admin_call_stream_of(struct admin *admin, const char *bucket, const char *verb, json_t *body,
                                 jetstream_call_fn *done)
{
    char stream[KV_STREAM_BYTES];

    snprintf(stream, sizeof(stream), "KV_%s", bucket);
    admin_call_api(admin, verb, stream, body, done);
}

static void admin_call_stream(struct admin *admin, const char *verb, json_t *body, jetstream_call_fn *done)
{
    admin_call_stream_of(admin, admin->bucket_name, verb, body, done);
}

/* --- Changes that leave no messages ----------------------------------------------------------------- */

static void admin_begin_change(struct admin *admin)
{
    admin->is_changing = true;
    observe_begin_change(admin->store, admin->bucket_name);
}

/* is_known: the server has carried the change out or not, and will not do it later. */
static void admin_end_change(struct admin *admin, bool is_known)
{
    if (admin->is_changing)
        observe_end_change(admin->store, admin->bucket_name, is_known);
    admin->is_changing = false;
}

static bool admin_is_in_doubt(const struct error *error)
{
    return error != NULL && error->code == ERROR_DEADLINE_EXCEEDED;
}

/* The change may remove messages: a purge, or settings with a shorter life for messages. See outcome. */
static void admin_begin_removal(struct admin *admin)
{
    bucket_note_removal(admin->store, false);
    admin_begin_change(admin);
}

static void admin_end_removal(struct admin *admin, const struct error *error)
{
    bucket_note_removal(admin->store, admin_is_in_doubt(error));
    admin_end_change(admin, !admin_is_in_doubt(error));
}

/* --- Life ------------------------------------------------------------------------------------------- */

static void admin_end_deletion(struct admin *admin)
{
    if (admin->is_deleting)
        removed_end(&admin->store->admin->removed, admin->bucket_name);
    admin->is_deleting = false;
}

static void admin_cancel(struct arena_task *task)
{
    struct admin *admin = ARENA_TASK_OWNER(task, struct admin, task);

    jetstream_cancel(&admin->call);
    timer_stop(admin->store->timers, &admin->wait);
    admin_end_deletion(admin);
    if (admin->is_changing)
        bucket_forget(admin->store, admin->bucket_name);
    admin_end_change(admin, false);
    json_decref(admin->stream);
}

static void admin_begin(struct store *store, struct arena *arena, struct admin *admin)
{
    admin->store = store;
    admin->arena = arena;
    arena_begin_task(arena, &admin->task, admin_cancel);
}

static void admin_finish(struct admin *admin, const struct bucket_info *info, const struct error *error)
{
    arena_end_task(&admin->task);
    json_decref(admin->stream);
    admin->done(admin->arg, info, error);
}

static void admin_fail(struct admin *admin, const struct error *error)
{
    admin_finish(admin, NULL, error);
}

static void admin_fail_not_found(struct admin *admin)
{
    struct error error;

    error_set(&error, ERROR_BUCKET_NOT_FOUND, "bucket \"%s\" does not exist; bucket.create creates it",
              admin->bucket_name);
    admin_fail(admin, &error);
}

static void admin_answer_info(struct admin *admin, json_t *answer)
{
    struct bucket_info info;
    struct error error;

    if (!bucket_config_read_info(admin->arena, admin->bucket_name, answer, &info)) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        admin_fail(admin, &error);
        return;
    }
    admin_finish(admin, &info, NULL);
}

/* A change whose answer was lost may have happened. */
static void admin_fail_change(struct admin *admin, unsigned err_code, const struct error *error)
{
    struct error failure = *error;

    if (err_code == JETSTREAM_STREAM_NOT_FOUND) {
        admin_fail_not_found(admin);
        return;
    }
    if (failure.code == ERROR_DEADLINE_EXCEEDED)
        failure.outcome = ERROR_OUTCOME_UNKNOWN;
    admin_fail(admin, &failure);
}

/* Return a duplicate window that no retry of a call outlasts. */
static uint64_t admin_window_ms(const struct admin *admin)
{
    return 2u * (uint64_t)admin->store->conf->calls.max_timeout_ms;
}

static unsigned admin_level_in(json_t *answer)
{
    return (unsigned)json_integer_value(json_object_get(json_object_get(answer, "api"), "level"));
}

/* --- Asking for settings ---------------------------------------------------------------------------- */

/* Return the mirror first, then the sources, then NULL. Buckets of another domain cannot be looked up. */
static const char *admin_next_origin(struct admin *admin)
{
    const struct bucket_config *config = admin->config;

    for (; admin->origin <= config->source_count; admin->origin++) {
        const struct bucket_source *origin = admin->origin == 0 ? &config->mirror : &config->sources[admin->origin - 1];
        if (origin->bucket != NULL && origin->domain == NULL)
            return origin->bucket;
    }
    return NULL;
}

static void admin_change_stream(struct admin *admin);

static void on_admin_origin(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;
    struct error missing;

    if (answer != NULL) {
        admin->origin++;
        admin_change_stream(admin);
        return;
    }
    if (err_code == JETSTREAM_STREAM_NOT_FOUND) {
        error_set(&missing, ERROR_BUCKET_NOT_FOUND,
                  "bucket \"%s\", given as mirror or source, does not exist; create it first",
                  admin_next_origin(admin));
        error = &missing;
    }
    if (admin->is_changing) /* the update was not sent */
        admin_end_removal(admin, NULL);
    admin_fail(admin, error);
}

/* The server would accept a mirror of a missing bucket, and writes to such a mirror time out. */
static void admin_change_stream(struct admin *admin)
{
    const char *origin = admin_next_origin(admin);

    if (origin != NULL)
        admin_call_stream_of(admin, origin, "STREAM.INFO", NULL, on_admin_origin);
    else
        admin_call_stream(admin, admin->verb, json_incref(admin->stream), admin->changed);
}

/* --- For the facade ------------------------------------------------------------------------------- */

int admin_init_all(struct store *store)
{
    store->admin = calloc(1, sizeof(*store->admin));
    if (store->admin == NULL)
        return -1;
    store->admin->calls.max = CALLS_MAX;
    store->admin->calls.is_of_many_streams = true;
    store->admin->lists.jobs = store->jobs;
    store->admin->lists.max = BUCKET_NAMES_LISTS_MAX;
    return 0;
}

void admin_free_all(struct store *store)
{
    turns_end(&store->admin->lists);
    removed_forget_all(&store->admin->removed);
    free(store->admin);
    store->admin = NULL;
}

struct request_limit *admin_calls(const struct store *store)
{
    return &store->admin->calls;
}

struct turns *admin_lists(const struct store *store)
{
    return &store->admin->lists;
}

/* The default marker_ttl in embedded mode: a week. */
#define MARKER_TTL_S (7 * 24 * 3600)

/* A bucket that other clients create and delete meanwhile is looked up this number of times. */
#define CREATE_TRIES_MAX 4u

static void on_admin_update_info(void *arg, json_t *answer, unsigned err_code, const struct error *error);

/* --- Create ---------------------------------------------------------------------------------------- */

bool admin_has_deleted(const struct store *store, const char *bucket_name)
{
    return removed_is_recent(store->admin->removed, bucket_name, uv_now(store->loop));
}

static void on_admin_created_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;

    bucket_forget(admin->store, admin->bucket_name);
    observe_created(admin->store, admin->bucket_name);
    if (answer != NULL)
        admin_answer_info(admin, answer);
    else
        admin_fail_change(admin, err_code, error);
}

static void on_admin_leftovers_purged(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;

    admin_end_removal(admin, error);
    if (answer != NULL)
        admin_call_stream(admin, "STREAM.INFO", NULL, on_admin_created_info);
    else
        admin_fail_change(admin, err_code, error);
}

/*
 * Return the last message that is older than the stream; 0: there is none. nats-server 2.15.1 answers a deletion before
 * the stream's files are gone, and a stream that is recreated at once may find them. This is only checked after a
 * deletion by this daemon: a stream that the server had lost rightly comes back with older messages, and a mirror has
 * them too.
 */
static uint64_t admin_last_leftover(const struct admin *admin, json_t *answer)
{
    json_t *state = json_object_get(answer, "state");
    const char *created = json_string_value(json_object_get(answer, "created"));
    const char *last = json_string_value(json_object_get(state, "last_ts"));
    bool is_possible = admin_has_deleted(admin->store, admin->bucket_name) &&
                       !bucket_config_has_origin(json_object_get(answer, "config"));

    if (!is_possible || created == NULL || last == NULL ||
        json_integer_value(json_object_get(state, "messages")) == 0 ||
        kv_parse_time_us(last) >= kv_parse_time_us(created))
        return 0;
    return (uint64_t)json_integer_value(json_object_get(state, "last_seq"));
}

static void on_admin_created(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;
    struct error exists;
    uint64_t leftover = answer != NULL ? admin_last_leftover(admin, answer) : 0;

    if (leftover > 0) {
        log_info("bucket %s: the recreated stream has messages from before the deletion; purging them",
                 admin->bucket_name);
        admin_begin_removal(admin);
        admin_call_stream(admin, "STREAM.PURGE", json_pack("{s:I}", "seq", (json_int_t)leftover + 1),
                          on_admin_leftovers_purged);
        return;
    }
    if (answer != NULL) {
        on_admin_created_info(admin, answer, 0, NULL);
        return;
    }
    if (err_code == JETSTREAM_STREAM_NAME_IN_USE && admin->updates_existing) {
        json_decref(admin->stream);
        admin->stream = NULL;
        admin_call_stream(admin, "STREAM.INFO", NULL, on_admin_update_info);
        return;
    }
    if (err_code == JETSTREAM_STREAM_NAME_IN_USE) {
        error_set(&exists, ERROR_ALREADY_EXISTS,
                  "bucket \"%s\" exists with other settings; bucket.info shows them, bucket.update changes them",
                  admin->bucket_name);
        error = &exists;
    }
    admin_fail_change(admin, err_code, error);
}

/*
 * The local copy learns from markers that values have expired. The markers live for one second: in a bucket with
 * history the server extends each TTL that is shorter than the markers' life.
 */
static void admin_add_expiry_markers(const struct admin *admin, unsigned level)
{
    bool is_chosen = admin->config->set & (BUCKET_LIMIT_MARKER_TTL | BUCKET_MIRROR);

    if (admin->store->conf->nats.mode == CONF_NATS_EMBEDDED && !is_chosen && level >= JETSTREAM_LEVEL_TTL)
        json_object_set_new(admin->stream, "subject_delete_marker_ttl", json_integer(1000000000));
}

/*
 * Add the default of marker_ttl. In embedded mode old delete markers are removed, and a watch that was away for longer
 * must start again. In external mode they stay: other NATS clients need them, and would not learn of their removal.
 */
static struct bucket_config admin_config_with_defaults(const struct admin *admin)
{
    struct bucket_config config = *admin->config;

    if (admin->store->conf->nats.mode == CONF_NATS_EMBEDDED &&
        !(config.set & (BUCKET_MARKER_TTL | BUCKET_MIRROR | BUCKET_SOURCES))) {
        config.set |= BUCKET_MARKER_TTL;
        config.marker_ttl_s = MARKER_TTL_S;
    }
    return config;
}

/* How often a creation checks whether a deletion of the bucket has ended. */
#define DELETION_CHECK_MS 5u

static void admin_create_stream(struct admin *admin);

static void on_admin_deletion_check(struct timer *timer)
{
    admin_create_stream((struct admin *)((char *)timer - offsetof(struct admin, wait)));
}

/* Create the stream, after a deletion of the bucket that is in progress: see removed. */
static void admin_create_stream(struct admin *admin)
{
    uint64_t now_ms = uv_now(admin->store->loop), at_ms = now_ms + DELETION_CHECK_MS;
    struct error late;

    if (!removed_is_in_progress(admin->store->admin->removed, admin->bucket_name)) {
        admin->verb = "STREAM.CREATE";
        admin->changed = on_admin_created;
        admin_change_stream(admin);
    } else if (now_ms < admin->deadline_ms) {
        timer_start(admin->store->timers, &admin->wait, at_ms < admin->deadline_ms ? at_ms : admin->deadline_ms,
                    on_admin_deletion_check);
    } else {
        error_set(&late, ERROR_DEADLINE_EXCEEDED, "timed out waiting for a deletion of the bucket; try again");
        admin_fail(admin, &late);
    }
}

/* The features depend on the version of the server that answers; a cluster may be in the middle of an upgrade. */
static void on_admin_create_level(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;
    struct error wrong;

    if (answer == NULL) {
        admin_fail(admin, error);
        return;
    }
    (void)err_code;
    admin->level = admin_level_in(answer);
    struct bucket_config config = admin_config_with_defaults(admin);
    admin->stream =
        bucket_config_to_stream(admin->bucket_name, &config, admin_level_in(answer), admin_window_ms(admin), &wrong);
    if (admin->stream == NULL) {
        admin_fail(admin, &wrong);
        return;
    }
    admin_add_expiry_markers(admin, admin_level_in(answer));
    admin_create_stream(admin);
}

void admin_create(struct store *store, struct arena *arena, struct admin *admin)
{
    admin_begin(store, arena, admin);
    admin_call_api(admin, "INFO", NULL, NULL, on_admin_create_level);
}

/* --- Update ---------------------------------------------------------------------------------------- */

static void on_admin_updated(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;

    if (admin_is_in_doubt(error))
        bucket_doubt(admin->store, admin->bucket_name);
    else
        bucket_forget(admin->store, admin->bucket_name);
    admin_end_removal(admin, error);
    if (answer == NULL) {
        admin_fail_change(admin, err_code, error);
        return;
    }
    admin_answer_info(admin, answer);
}

static void on_admin_update_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;
    struct error wrong;

    bool is_missing = answer == NULL && err_code == JETSTREAM_STREAM_NOT_FOUND;

    if (is_missing && admin->updates_existing && ++admin->tries < CREATE_TRIES_MAX) {
        admin_call_api(admin, "INFO", NULL, NULL, on_admin_create_level);
        return;
    }
    if (is_missing) {
        admin_fail_not_found(admin);
        return;
    }
    if (answer == NULL) {
        admin_fail(admin, error);
        return;
    }
    admin->stream = json_incref(json_object_get(answer, "config"));
    if ((!admin->is_forced && !shrink_check(answer, admin->config, admin->held, &wrong)) ||
        !bucket_config_update_stream(admin->stream, admin->config, admin->level, admin_window_ms(admin), &wrong)) {
        admin_fail(admin, &wrong);
        return;
    }
    admin->verb = "STREAM.UPDATE";
    admin->changed = on_admin_updated;
    admin_begin_removal(admin);
    admin_change_stream(admin);
}

static void on_admin_update_level(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;

    (void)err_code;
    if (answer == NULL) {
        admin_fail(admin, error);
        return;
    }
    admin->level = admin_level_in(answer);
    admin_call_stream(admin, "STREAM.INFO", NULL, on_admin_update_info);
}

void admin_update(struct store *store, struct arena *arena, struct admin *admin)
{
    admin_begin(store, arena, admin);
    admin_call_api(admin, "INFO", NULL, NULL, on_admin_update_level);
}

/* --- Delete, purge, info --------------------------------------------------------------------------- */

static void on_admin_removed(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;

    bucket_forget(admin->store, admin->bucket_name);
    admin_end_deletion(admin);
    admin_end_change(admin, !admin_is_in_doubt(error));
    /* A retry may find that the first attempt has deleted the bucket. */
    bool was_ours = err_code == JETSTREAM_STREAM_NOT_FOUND && admin->call.request.attempts > 1;
    if (answer != NULL || was_ours) {
        removed_note(&admin->store->admin->removed, admin->bucket_name, uv_now(admin->store->loop));
        admin_finish(admin, NULL, NULL);
    } else {
        admin_fail_change(admin, err_code, error);
    }
}

void admin_delete(struct store *store, struct arena *arena, struct admin *admin)
{
    admin_begin(store, arena, admin);
    admin_begin_change(admin);
    admin->is_deleting = true;
    removed_begin(&store->admin->removed, admin->bucket_name);
    admin_call_stream(admin, "STREAM.DELETE", NULL, on_admin_removed);
}

static void on_admin_purged(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;

    admin_end_removal(admin, error);
    if (answer != NULL)
        admin_finish(admin, NULL, NULL);
    else
        admin_fail_change(admin, err_code, error);
}

/*
 * The purge names the last message that it is to remove. A copy of it that arrives late, after a lost connection, then
 * removes nothing that was written after the answer.
 */
static void on_admin_purge_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;
    json_int_t last = json_integer_value(json_object_get(json_object_get(answer, "state"), "last_seq"));

    if (answer == NULL && err_code == JETSTREAM_STREAM_NOT_FOUND) {
        admin_fail_not_found(admin);
    } else if (answer == NULL) {
        admin_fail(admin, error);
    } else if (last == 0) {
        admin_finish(admin, NULL, NULL);
    } else {
        admin_begin_removal(admin);
        admin_call_stream(admin, "STREAM.PURGE", json_pack("{s:I}", "seq", last + 1), on_admin_purged);
    }
}

void admin_purge(struct store *store, struct arena *arena, struct admin *admin)
{
    admin_begin(store, arena, admin);
    admin_call_stream(admin, "STREAM.INFO", NULL, on_admin_purge_info);
}

static void on_admin_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct admin *admin = arg;

    if (answer != NULL)
        admin_answer_info(admin, answer);
    else if (err_code == JETSTREAM_STREAM_NOT_FOUND)
        admin_fail_not_found(admin);
    else
        admin_fail(admin, error);
}

void admin_info(struct store *store, struct arena *arena, struct admin *admin)
{
    admin_begin(store, arena, admin);
    admin_call_stream(admin, "STREAM.INFO", NULL, on_admin_info);
}
