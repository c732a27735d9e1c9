#include "daemon/store/bucket/bucket_request.h"

static void on_bucket_request_opened(void *arg, struct bucket *bucket, const struct error *error)
{
    struct bucket_request *request = arg;

    request->bucket = bucket;
    if (error != NULL)
        request->ops->failed(request, error);
    else
        request->ops->opened(request);
}

static void bucket_request_prepare(struct bucket_request *request, struct store *store, const char *bucket_name,
                                   uint64_t deadline_ms, const struct bucket_request_ops *ops)
{
    request->store = store;
    request->bucket_name = bucket_name;
    request->deadline_ms = deadline_ms;
    request->ops = ops;
}

void bucket_request_open(struct bucket_request *request, struct store *store, const char *bucket_name,
                         struct arena *arena, uint64_t deadline_ms, const struct bucket_request_ops *ops)
{
    bucket_request_prepare(request, store, bucket_name, deadline_ms, ops);
    request_set_caller(&request->base, arena);
    request->wait.caller = arena;
    bucket_open(store, &request->wait, bucket_name, arena->owner, deadline_ms, on_bucket_request_opened, request);
}

void bucket_request_use(struct bucket_request *request, struct store *store, struct bucket *bucket, uint64_t owner,
                        uint64_t deadline_ms, const struct bucket_request_ops *ops)
{
    bucket_request_prepare(request, store, bucket->name, deadline_ms, ops);
    request->base.owner = owner;
    request->bucket = bucket_retain(bucket);
}

void bucket_request_start(struct bucket_request *request, const struct request_ops *ops)
{
    request_start(&request->store->requests, &request->base, ops, request->deadline_ms);
}

static void on_bucket_request_refreshed(void *arg, struct bucket *bucket, const struct error *error)
{
    struct bucket_request *request = arg;
    struct bucket *former = request->bucket;

    if (error != NULL) {
        request->ops->failed(request, error);
        return;
    }
    request->bucket = bucket;
    bool goes_on = request->ops->refreshed == NULL || request->ops->refreshed(request);
    bucket_release(former);
    if (goes_on)
        request_resume(&request->base);
}

/*
 * Return whether to ask again at once, after a direct get had no responders for the nth time in a row. To look the
 * bucket up, its stream needs a leader; after the loss of a server, the other replicas answer in a moment.
 */
static bool bucket_request_may_have_responders(const struct bucket *bucket, unsigned times)
{
    return bucket->replicas > 1 && times % 4 != 0;
}

bool bucket_request_on_no_responders(struct request *base)
{
    struct bucket_request *request = (struct bucket_request *)((char *)base - offsetof(struct bucket_request, base));

    if (request->is_direct && bucket_request_may_have_responders(request->bucket, ++request->unserved))
        return true;
    bucket_forget(request->store, request->bucket_name);
    bucket_open(request->store, &request->wait, request->bucket_name, base->owner, request->deadline_ms,
                on_bucket_request_refreshed, request);
    return false;
}

void bucket_request_stop(struct bucket_request *request)
{
    request_end(&request->base);
    bucket_wait_cancel(&request->wait);
}

struct bucket *bucket_request_end(struct bucket_request *request)
{
    struct bucket *bucket = request->bucket;

    bucket_request_stop(request);
    request->bucket = NULL;
    return bucket;
}

void bucket_request_cancel(struct bucket_request *request)
{
    struct bucket *bucket = bucket_request_end(request);

    if (bucket != NULL)
        bucket_release(bucket);
}
