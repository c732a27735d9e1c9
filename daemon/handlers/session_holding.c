#include "daemon/handlers/session_holding.h"

#include "daemon/handlers/service.h"
#include "daemon/handlers/watched_bucket.h"
#include "daemon/rpc/pack.h"
#include "daemon/transport/session.h"

#include <stdlib.h>

struct session_holding {
    struct session_resource resource;
    struct session *session;
    struct holding *holding;
    struct service *service;
    struct session_holding_bucket bucket;
};

static struct session_holding *session_holding_of(struct session_resource *resource)
{
    return (struct session_holding *)((char *)resource - offsetof(struct session_holding, resource));
}

/* --- Places ---------------------------------------------------------------------------------------- */

static void session_holding_count_bucket(struct call *call, struct session_holding_bucket *bucket)
{
    struct lease_bucket *in = lease_bucket_obtain(call_store(call), call->bucket);
    struct error ignored;

    if (in != NULL)
        bucket->watched = watched_bucket_hold(call_service(call), call->user, call->bucket, &ignored);
    if (bucket->watched == NULL)
        return;
    bucket->in = in;
    lease_bucket_claim(in);
}

static void session_holding_release_bucket(struct service *service, struct user *user,
                                           struct session_holding_bucket *bucket)
{
    if (bucket->watched == NULL)
        return;
    lease_bucket_unclaim(bucket->in);
    watched_bucket_release(service, user, bucket->watched);
}

static void session_holding_give_back(struct arena_task *task)
{
    struct session_holding_place *place = ARENA_TASK_OWNER(task, struct session_holding_place, task);
    struct call *call = place->call;

    session_holding_release_bucket(call_service(call), call->user, &place->bucket);
    if (call->session != NULL)
        call->session->holding_places--;
    usage_subtract(call->dispatcher->usage, call->user, USAGE_LOCKS, 1);
}

bool session_holding_take_place(struct call *call, struct session_holding_place *place)
{
    unsigned count = session_count(call->session, SESSION_HOLDING) + call->session->holding_places;
    unsigned max = call->dispatcher->conf->locks.max_per_session;
    struct error error;

    if (count >= max) {
        call_fail_with(call, ERROR_RESOURCE_EXHAUSTED,
                       "this session has %u locks, ephemeral keys and waits for locks, which is the limit "
                       "(locks.max_per_session)",
                       count);
        return false;
    }
    if (!usage_check(call->dispatcher->usage, call->user, USAGE_LOCKS, 1, &error)) {
        call_fail(call, &error);
        return false;
    }
    usage_add(call->dispatcher->usage, call->user, USAGE_LOCKS, 1);
    call->session->holding_places++;
    place->call = call;
    session_holding_count_bucket(call, &place->bucket);
    arena_begin_reading_task(&call->arena, &place->task, session_holding_give_back);
    return true;
}

/* --- The end --------------------------------------------------------------------------------------- */

/* The session is another's business from now on. */
static void session_holding_free(struct session_holding *held)
{
    session_holding_release_bucket(held->service, held->session->user, &held->bucket);
    usage_subtract(&held->session->list->usage, held->session->user, USAGE_LOCKS, 1);
    free(held);
}

static void session_holding_on_close(struct session_resource *resource)
{
    (void)resource; /* nothing of it is packed without a look at the session's state */
}

static void session_holding_on_release(struct session_resource *resource)
{
    struct session_holding *held = session_holding_of(resource);

    holding_leave(held->holding);
    session_holding_free(held);
}

static void session_holding_on_recheck(void *dispatcher, struct session_resource *resource)
{
    const struct session_holding *held = session_holding_of(resource);
    struct error error;

    if (dispatcher_session_access(dispatcher, held->session, held->holding->lease->in->name) >= CONF_ACCESS_WRITE)
        return;
    error_set(&error, ERROR_PERMISSION_DENIED, SESSION_HOLDING_DENIED);
    holding_take_away(held->holding, &error);
}

static const struct session_resource_ops session_holding_ops = {session_holding_on_close, session_holding_on_release,
                                                                session_holding_on_recheck};

static void session_holding_notify(const struct session_holding *held, const struct error *error)
{
    const struct holding *holding = held->holding;
    struct error complete = *error;
    msgpack_packer packer;

    complete.bucket = holding->lease->in->name;
    complete.key = holding->key;
    msgpack_packer_init(&packer, outbox_buffer(held->session), msgpack_sbuffer_write);
    rpc_pack_notification(&packer, "lock.lost");
    msgpack_pack_array(&packer, 4);
    pack_str(&packer, complete.bucket);
    pack_str(&packer, holding->key);
    msgpack_pack_uint64(&packer, holding->revision);
    error_pack(&complete, &packer);
    outbox_commit(held->session);
}

/* An ephemeral key that somebody has written is an ordinary one: its session is not told. */
static void session_holding_on_lost(void *arg, const struct error *error)
{
    struct session_holding *held = arg;
    bool is_ordinary_now = held->holding->kind == HOLDING_EPHEMERAL && held->holding->is_overwritten;

    if (!session_is_closing(held->session)) {
        if (!is_ordinary_now)
            session_holding_notify(held, error);
    }
    session_remove_resource(held->session, &held->resource);
    session_holding_free(held);
}

/* --- Holdings of a session ------------------------------------------------------------------------- */

bool session_holding_give(struct call *call, struct session_holding_place *place, struct holding *holding)
{
    struct session_holding *held = call->session != NULL ? calloc(1, sizeof(*held)) : NULL;

    if (held == NULL) {
        if (holding->lost == NULL) /* otherwise another session of the owner has it */
            holding_leave(holding);
        if (call->session == NULL)
            call_drop(call);
        else
            call_fail_out_of_memory(call);
        return false;
    }
    arena_end_task(&place->task);
    call->session->holding_places--;
    held->session = call->session;
    held->holding = holding;
    held->service = call_service(call);
    held->bucket = place->bucket;
    held->resource.ops = &session_holding_ops;
    held->resource.kind = SESSION_HOLDING;
    session_add_resource(call->session, &held->resource);
    holding_attach(holding, session_holding_on_lost, held);
    return true;
}

struct holding *session_holding_find(struct call *call, const char *key)
{
    struct lease_bucket *in = lease_bucket_find(call_store(call), call->bucket);
    struct holding *holding = in != NULL ? holding_find(in, key) : NULL;
    bool is_held = holding != NULL && holding->state == HOLDING_HELD && holding->lost == session_holding_on_lost;

    return is_held && ((struct session_holding *)holding->arg)->session == call->session ? holding : NULL;
}

void session_holding_remove(struct holding *holding)
{
    struct session_holding *held = holding->arg;

    session_remove_resource(held->session, &held->resource);
    session_holding_free(held);
}

bool session_holding_is_allowed(const struct call *call)
{
    return call->session == NULL ||
           dispatcher_session_access(call->dispatcher, call->session, call->bucket) >= CONF_ACCESS_WRITE;
}
