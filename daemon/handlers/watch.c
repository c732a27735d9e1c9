#include "daemon/handlers/watch.h"

#include "daemon/handlers/entry.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/watched_bucket.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/watch.h"
#include "daemon/transport/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A notification that is larger takes no more entries: clients limit the size of a message. */
#define NOTIFICATION_BYTES (256u * 1024u)

static_assert(sizeof(((struct service *)NULL)->packed) == WATCH_FORMS * sizeof(struct service_entry),
              "one packed entry for each form");

/* An array header (array 32) whose count can be changed. */
#define ARRAY_HEADER_BYTES 5u

/* One watch of a session. */
struct session_watch {
    struct session_resource resource;
    struct session_waiter waiter;
    struct watch watch;
    struct session *session;
    struct service *service;
    struct call *call; /* of watch.start, until it is answered */
    uint64_t id;
    bool is_meta_only;
    size_t counted_filters; /* for the session's user: see filter_weight */
    struct watched_bucket *watched;
    char *bucket;
    char *filters[WATCH_FILTERS_MAX];

    /* The notification that takes more entries, as long as nothing was packed after it. */
    uint64_t flushes; /* of the outbox, when the notification was begun */
    size_t start, end;
    uint32_t count;
};

static void session_watch_free(struct session_watch *watch)
{
    if (watch->session != NULL) { /* it was counted */
        usage_subtract(&watch->session->list->usage, watch->session->user, USAGE_FILTERS, watch->counted_filters);
        watched_bucket_release(watch->service, watch->session->user, watch->watched);
        watch->service->previous_watches -= watch->watch.wants_previous;
    }
    for (size_t i = 0; i < watch->watch.filter_count; i++)
        free(watch->filters[i]);
    free(watch->bucket);
    free(watch);
}

/* --- Notifications --------------------------------------------------------------------------------- */

static void session_watch_begin_notification(struct session_watch *watch, msgpack_packer *packer, const char *method,
                                             unsigned params)
{
    msgpack_packer_init(packer, outbox_buffer(watch->session), msgpack_sbuffer_write);
    rpc_pack_notification(packer, method);
    msgpack_pack_array(packer, params);
    msgpack_pack_uint64(packer, watch->id);
}

static void session_watch_set_count(unsigned char *header, uint32_t count)
{
    header[0] = 0xdd;
    header[1] = (unsigned char)(count >> 24);
    header[2] = (unsigned char)(count >> 16);
    header[3] = (unsigned char)(count >> 8);
    header[4] = (unsigned char)count;
}

static void session_watch_add_entry(struct session_watch *watch, const char *bytes, size_t size)
{
    struct session *session = watch->session;

    if (session_is_closing(session))
        return;
    msgpack_sbuffer *out = outbox_buffer(session);
    bool continues = watch->count > 0 && watch->flushes == session->outbox.flushes && watch->end == out->size &&
                     out->size - watch->start < NOTIFICATION_BYTES;

    if (!continues) {
        msgpack_packer packer;
        unsigned char header[ARRAY_HEADER_BYTES];
        session_watch_begin_notification(watch, &packer, "watch.entries", 2);
        watch->flushes = session->outbox.flushes;
        watch->start = out->size;
        watch->count = 0;
        session_watch_set_count(header, 0);
        msgpack_sbuffer_write(out, (const char *)header, sizeof(header));
    }
    msgpack_sbuffer_write(out, bytes, size);
    session_watch_set_count((unsigned char *)out->data + watch->start, ++watch->count);
    watch->end = out->size;
    outbox_commit(session);
}

/* --- What the store calls -------------------------------------------------------------------------- */

static struct session_watch *session_watch_of(void *arg)
{
    return arg;
}

static enum watch_form session_watch_form(const struct session_watch *watch)
{
    if (watch->watch.wants_previous)
        return WATCH_WITH_PREVIOUS;
    return watch->is_meta_only ? WATCH_META : WATCH_WHOLE;
}

static size_t session_watch_limit(const struct session_watch *watch)
{
    const struct conf *conf = watch->session->list->conf;
    size_t own = conf->watches.buffer_bytes, all = conf->limits.out_buffer_bytes;

    return own < all ? own : all;
}

/* The same entry is delivered to many watches: pack it once. */
const msgpack_sbuffer *watches_pack_entry(struct service *service, const struct kv_entry *entry, uint64_t serial,
                                          enum watch_form form)
{
    struct service_entry *packed = &service->packed[form];
    msgpack_packer packer;

    if (packed->serial == serial)
        return &packed->bytes;
    if (packed->bytes.alloc > NOTIFICATION_BYTES) { /* do not keep the memory of one large value */
        msgpack_sbuffer_destroy(&packed->bytes);
        msgpack_sbuffer_init(&packed->bytes);
    }
    msgpack_sbuffer_clear(&packed->bytes);
    msgpack_packer_init(&packer, &packed->bytes, msgpack_sbuffer_write);
    if (form == WATCH_META)
        entry_pack_meta(entry, &packer);
    else if (form == WATCH_WITH_PREVIOUS)
        entry_pack_with_previous(entry, &packer);
    else
        entry_pack(entry, &packer);
    packed->serial = serial;
    return &packed->bytes;
}

void watches_pack_forms(struct service *service, const struct kv_entry *entry, uint64_t serial,
                        struct watch_packed packed[WATCH_FORMS])
{
    for (enum watch_form form = 0; form < WATCH_FORMS; form++) {
        packed[form] = (struct watch_packed){NULL, 0};
        if (form == WATCH_WITH_PREVIOUS && service->previous_watches == 0)
            continue;
        const msgpack_sbuffer *bytes = watches_pack_entry(service, entry, serial, form);
        packed[form] = (struct watch_packed){bytes->data, bytes->size};
    }
}

static bool session_watch_on_entry(void *arg, const struct kv_entry *entry, uint64_t serial, bool must_fit,
                                   bool is_unrecorded)
{
    struct session_watch *watch = session_watch_of(arg);
    const msgpack_sbuffer *packed = watches_pack_entry(watch->service, entry, serial, session_watch_form(watch));
    size_t unread = outbox_unread_bytes(watch->session);
    struct error full;

    (void)is_unrecorded;
    if (must_fit && unread > 0 &&
        (unread + packed->size > session_watch_limit(watch) ||
         !outbox_check_limits(watch->session, packed->size, unread + packed->size, &full)))
        return false;
    session_watch_add_entry(watch, packed->data, packed->size);
    return true;
}

static void session_watch_on_pack(void *arg, const struct kv_entry *entry, uint64_t serial,
                                  struct watch_packed packed[WATCH_FORMS])
{
    struct session_watch *watch = session_watch_of(arg);

    watches_pack_forms(watch->service, entry, serial, packed);
}

static void session_watch_on_packed(void *arg, const struct watch_packed packed[WATCH_FORMS], bool is_unrecorded)
{
    struct session_watch *watch = session_watch_of(arg);
    enum watch_form form = session_watch_form(watch);

    (void)is_unrecorded;
    session_watch_add_entry(watch, packed[form].bytes, packed[form].size);
}

static bool session_watch_has_room(void *arg)
{
    return outbox_has_room(session_watch_of(arg)->session);
}

static void session_watch_await_room(void *arg)
{
    struct session_watch *watch = session_watch_of(arg);

    session_await_room(watch->session, &watch->waiter);
}

static void session_watch_on_ready(void *arg, const uint64_t *revision)
{
    struct session_watch *watch = session_watch_of(arg);
    msgpack_packer packer;

    if (session_is_closing(watch->session))
        return;
    session_watch_begin_notification(watch, &packer, "watch.ready", revision != NULL ? 2 : 1);
    if (revision != NULL)
        msgpack_pack_uint64(&packer, *revision);
    outbox_commit(watch->session);
}

static void session_watch_leave_session(struct session_watch *watch)
{
    session_stop_waiting(watch->session, &watch->waiter);
    session_remove_resource(watch->session, &watch->resource);
}

static void session_watch_on_started(void *arg)
{
    struct session_watch *watch = session_watch_of(arg);
    struct call *call = watch->call;

    if (call == NULL) /* the session closes */
        return;
    watch->call = NULL;
    msgpack_pack_uint64(call_begin_result(call), watch->id);
    call_end_result(call);
}

static void session_watch_on_ended(void *arg, const struct error *error)
{
    struct session_watch *watch = session_watch_of(arg);
    struct error complete = *error;
    msgpack_packer packer;

    session_watch_leave_session(watch);
    if (watch->call != NULL) {
        call_fail(watch->call, error);
    } else if (!session_is_closing(watch->session)) {
        complete.bucket = watch->bucket;
        session_watch_begin_notification(watch, &packer, "watch.ended", 2);
        error_pack(&complete, &packer);
        outbox_commit(watch->session);
    }
    session_watch_free(watch);
}

static const struct watch_ops watch_ops = {session_watch_on_started, session_watch_on_entry, session_watch_on_pack,
                                           session_watch_on_packed,  session_watch_has_room, session_watch_await_room,
                                           session_watch_on_ready,   session_watch_on_ended};

/* --- The session and the watch --------------------------------------------------------------------- */

static struct session_watch *session_watch_of_resource(struct session_resource *resource)
{
    return (struct session_watch *)((char *)resource - offsetof(struct session_watch, resource));
}

static void session_watch_on_room(struct session_waiter *waiter)
{
    watch_continue(&((struct session_watch *)((char *)waiter - offsetof(struct session_watch, waiter)))->watch);
}

static void session_watch_on_session_close(struct session_resource *resource)
{
    struct session_watch *watch = session_watch_of_resource(resource);

    session_stop_waiting(watch->session, &watch->waiter);
    if (watch->call != NULL)
        call_drop(watch->call);
    watch->call = NULL;
}

/* The session has removed the resource already. */
static void session_watch_on_session_release(struct session_resource *resource)
{
    struct session_watch *watch = session_watch_of_resource(resource);

    session_stop_waiting(watch->session, &watch->waiter);
    watch_stop(&watch->watch);
    session_watch_free(watch);
}

static void session_watch_on_recheck(void *dispatcher, struct session_resource *resource)
{
    struct session_watch *watch = session_watch_of_resource(resource);
    struct error error;

    if (dispatcher_session_access(dispatcher, watch->session, watch->bucket) >= CONF_ACCESS_READ)
        return;
    error_set(&error, ERROR_PERMISSION_DENIED, "the access rules have changed and no longer allow to read this bucket");
    watch_end(&watch->watch, &error);
}

static const struct session_resource_ops watch_resource_ops = {
    session_watch_on_session_close, session_watch_on_session_release, session_watch_on_recheck};

/* --- watch.start ----------------------------------------------------------------------------------- */

/* False: the call is answered. */
static bool session_watch_add_filter(struct call *call, struct session_watch *watch, const msgpack_object *text)
{
    const char *wrong = kv_check_filter(text->via.str.ptr, text->via.str.size);
    char description[ARGUMENT_DESCRIPTION_BYTES];

    if (wrong != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "filter %s: %s", argument_describe(text, description), wrong);
        return false;
    }
    char *filter = strndup(text->via.str.ptr, text->via.str.size);
    if (filter == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    watch->filters[watch->watch.filter_count++] = filter;
    return true;
}

/* The same of a text or an array of texts. */
static bool session_watch_read_filters(struct call *call, struct session_watch *watch)
{
    static const msgpack_object all_keys = {.type = MSGPACK_OBJECT_STR, .via.str = {.size = 1, .ptr = ">"}};
    const msgpack_object *option = option_find(call, "filter");

    if (option == NULL)
        option = &all_keys;
    if (argument_is_text(option))
        return session_watch_add_filter(call, watch, option);
    if (option->type != MSGPACK_OBJECT_ARRAY || option->via.array.size == 0 ||
        option->via.array.size > WATCH_FILTERS_MAX)
        return argument_refuse(call, "filter", "a text, or an array of 1 to 64 texts", option);
    for (uint32_t i = 0; i < option->via.array.size; i++) {
        const msgpack_object *item = &option->via.array.ptr[i];
        if (!argument_is_text(item))
            return argument_refuse(call, "each filter", "a text", item);
        if (!session_watch_add_filter(call, watch, item))
            return false;
    }
    return true;
}

/* False: the call is answered. */
static bool session_watch_read_options(struct call *call, struct session_watch *watch)
{
    bool with_history, updates_only;
    int64_t revision;

    if (!option_bool(call, "include_history", &with_history) || !option_bool(call, "updates_only", &updates_only) ||
        !option_bool(call, "ignore_deletes", &watch->watch.ignores_deletes) ||
        !option_bool(call, "meta_only", &watch->is_meta_only) ||
        !option_bool(call, "snapshot", &watch->watch.is_snapshot) ||
        !option_bool(call, "previous", &watch->watch.wants_previous) ||
        !option_integer(call, "from_revision", 1, INT64_MAX, 0, &revision))
        return false;
    if (with_history + updates_only + (revision > 0) > 1) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT,
                       "at most one of include_history, updates_only and from_revision can be given");
        return false;
    }
    if (watch->is_meta_only && watch->watch.wants_previous) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "previous and meta_only exclude each other");
        return false;
    }
    if (!session_watch_read_filters(call, watch))
        return false;
    watch->watch.from = with_history   ? WATCH_HISTORY
                        : updates_only ? WATCH_UPDATES
                        : revision > 0 ? WATCH_REVISION
                                       : WATCH_LAST;
    watch->watch.from_revision = (uint64_t)revision;
    return true;
}

/* False: the call is answered. */
static bool session_watch_check_count(struct call *call)
{
    const struct conf *conf = call->dispatcher->conf;

    unsigned count = session_count(call->session, SESSION_WATCH);

    if (count >= conf->watches.max_per_session) {
        call_fail_with(call, ERROR_RESOURCE_EXHAUSTED,
                       "this session has %u watches, which is the limit (watches.max_per_session)", count);
        return false;
    }
    return true;
}

/* Count the filters, which are what a watch costs, and the bucket. False: the call is answered. */
static bool session_watch_count(struct call *call, struct session_watch *watch)
{
    struct usage *usage = &call->session->list->usage;
    struct error error;
    size_t weight = 0;

    for (size_t i = 0; i < watch->watch.filter_count; i++)
        weight += filter_weight(watch->filters[i]);
    if (!usage_check(usage, call->user, USAGE_FILTERS, weight, &error) ||
        (watch->watched = watched_bucket_hold(call_service(call), call->user, call->bucket, &error)) == NULL) {
        call_fail(call, &error);
        return false;
    }
    watch->session = call->session;
    watch->service = call_service(call);
    watch->service->previous_watches += watch->watch.wants_previous;
    usage_add(usage, call->user, USAGE_FILTERS, weight);
    watch->counted_filters = weight;
    return true;
}

void handle_watch_start(struct call *call)
{
    if (call->is_notification) {
        call_drop(call); /* the client would not learn the id */
        return;
    }
    if (!session_watch_check_count(call))
        return;
    struct session_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL || (watch->bucket = strdup(call->bucket)) == NULL) {
        free(watch);
        call_fail_out_of_memory(call);
        return;
    }
    if (!session_watch_read_options(call, watch) || !session_watch_count(call, watch)) {
        session_watch_free(watch);
        return;
    }
    watch->call = call;
    watch->id = ++watch->service->watch_ids;
    watch->watch.filters = (const char *const *)watch->filters;
    watch->watch.ops = &watch_ops;
    watch->watch.arg = watch;
    watch->watch.owner = call->arena.owner;
    watch->resource.ops = &watch_resource_ops;
    watch->resource.kind = SESSION_WATCH;
    watch->waiter.on_room = session_watch_on_room;
    session_add_resource(call->session, &watch->resource);
    watch_start(call_store(call), &watch->watch, call->bucket, call->deadline_ms);
}

/* --- watch.stop ------------------------------------------------------------------------------------ */

void handle_watch_stop(struct call *call)
{
    uint64_t id;
    struct session_resource *resource = call->session != NULL ? call->session->resources[SESSION_WATCH] : NULL;

    if (!argument_to_uint64(&call->arguments[0], &id)) {
        argument_refuse(call, "argument 1", "a watch id, as watch.start returned it", &call->arguments[0]);
        return;
    }
    for (; resource != NULL; resource = resource->next) {
        struct session_watch *watch = session_watch_of_resource(resource);
        if (watch->id != id)
            continue;
        watch_stop(&watch->watch);
        session_watch_leave_session(watch);
        if (watch->call != NULL)
            call_fail_with(watch->call, ERROR_UNAVAILABLE, "the watch was stopped before it had begun");
        session_watch_free(watch);
        break;
    }
    msgpack_pack_nil(call_begin_result(call));
    call_end_result(call);
}

/* --- Seeing inside --------------------------------------------------------------------------------- */

static const char *session_watch_state_text(const struct session_watch *watch)
{
    if (watch->call != NULL)
        return "starting";
    return watch->waiter.is_waiting ? "waiting for its client" : "live";
}

void watches_each(const struct session *session, bool (*visit)(void *arg, const struct watch_info *info), void *arg)
{
    for (struct session_resource *resource = session->resources[SESSION_WATCH]; resource != NULL;
         resource = resource->next) {
        const struct session_watch *watch = session_watch_of_resource(resource);
        const struct watch_info info = {watch->id, watch->bucket, watch->watch.filters, watch->watch.filter_count,
                                        session_watch_state_text(watch)};
        if (!visit(arg, &info))
            return;
    }
}
