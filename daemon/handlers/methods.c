#include "daemon/handlers/methods.h"

#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"

#define METHODS_ROW(family, verb, fewest, most, flags, options)                                                        \
    {#family "." #verb, handle_##family##_##verb, fewest, most, flags, options},

static const struct method methods[METHOD_COUNT] = {METHODS(METHODS_ROW)};

static bool methods_is_available(void *context, struct error *error)
{
    return store_is_available(((struct service *)context)->store, error);
}

/* --- The bucket that a write changes ----------------------------------------------------------------- */

struct written_bucket {
    struct arena_task task;
    struct bucket_wait wait;
    struct call *call;
    void (*found)(struct call *call, const char *written);
};

static void cancel_written_bucket(struct arena_task *task)
{
    bucket_wait_cancel(&ARENA_TASK_OWNER(task, struct written_bucket, task)->wait);
}

static void on_written_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct written_bucket *written = arg;
    struct call *call = written->call;

    arena_end_task(&written->task);
    if (bucket == NULL) {
        call_fail(call, error);
        return;
    }
    written->found(call, bucket->is_mirror ? bucket->origin : call->bucket);
    bucket_release(bucket);
}

static void methods_find_written_bucket(struct call *call, void (*found)(struct call *call, const char *written))
{
    struct written_bucket *written = arena_zalloc(&call->arena, sizeof(*written));

    if (written == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    written->call = call;
    written->found = found;
    written->wait.caller = &call->arena;
    arena_begin_reading_task(&call->arena, &written->task, cancel_written_bucket);
    bucket_open(call_store(call), &written->wait, call->bucket, call->arena.owner, call->deadline_ms, on_written_bucket,
                written);
}

const struct dispatcher_ops methods_ops = {methods, kv_check_bucket, methods_is_available, methods_find_written_bucket};
