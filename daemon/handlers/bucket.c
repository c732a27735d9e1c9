#include "daemon/handlers/bucket_settings.h"
#include "daemon/handlers/delete_matching.h"
#include "daemon/handlers/entry.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/access.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/store/bucket/admin.h"
#include "daemon/store/compact/compact.h"
#include "daemon/store/lease/leases.h"

#include <stdint.h>
#include <string.h>

/* --- Methods --------------------------------------------------------------------------------------- */

static void bucket_answer_info(void *arg, const struct bucket_info *info, const struct error *error)
{
    struct call *call = arg;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    msgpack_packer *packer = call_begin_result(call);
    if (info != NULL)
        bucket_settings_pack_info(packer, info);
    else
        msgpack_pack_nil(packer);
    call_end_result(call);
}

typedef void bucket_admin_fn(struct store *store, struct arena *arena, struct admin *admin);

static void bucket_start_admin(struct call *call, bucket_admin_fn *start, const struct bucket_config *config)
{
    struct admin *admin = arena_zalloc(&call->arena, sizeof(*admin));

    if (admin == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    admin->bucket_name = call->bucket;
    admin->config = config;
    if (!option_bool(call, "force", &admin->is_forced) || /* only create and update have these options */
        !option_bool(call, "update", &admin->updates_existing))
        return;
    admin->held = leases_held_in(call_store(call), call->bucket);
    admin->deadline_ms = call->deadline_ms;
    admin->done = bucket_answer_info;
    admin->arg = call;
    start(call_store(call), &call->arena, admin);
}

void handle_bucket_create(struct call *call)
{
    const struct bucket_config *config = bucket_settings_read(call);

    if (config == NULL)
        return;
    if (option_find(call, "force") != NULL && option_find(call, "update") == NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "force needs update: a bucket that is created has no values");
        return;
    }
    bucket_start_admin(call, admin_create, config);
}

void handle_bucket_update(struct call *call)
{
    const struct bucket_config *config = bucket_settings_read(call);

    if (config != NULL)
        bucket_start_admin(call, admin_update, config);
}

void handle_bucket_delete(struct call *call)
{
    bucket_start_admin(call, admin_delete, NULL);
}

void handle_bucket_purge(struct call *call)
{
    if (option_find(call, "filter") != NULL)
        delete_matching_start(call, KV_PURGE);
    else
        bucket_start_admin(call, admin_purge, NULL);
}

static void bucket_answer_removed(void *arg, uint64_t removed, const struct error *error)
{
    struct call *call = arg;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    msgpack_pack_uint64(call_begin_result(call), removed);
    call_end_result(call);
}

void handle_bucket_compact(struct call *call)
{
    struct compact *compact = arena_zalloc(&call->arena, sizeof(*compact));

    if (compact == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!option_integer(call, "older_than", 0, BUCKET_TTL_MAX_S, -1, &compact->older_than_s))
        return;
    compact->bucket_name = call->bucket;
    compact->deadline_ms = call->deadline_ms;
    compact->is_wanted = call_is_wanted;
    compact->done = bucket_answer_removed;
    compact->arg = call;
    compact_start(call_store(call), &call->arena, compact);
}

void handle_bucket_info(struct call *call)
{
    bucket_start_admin(call, admin_info, NULL);
}
