#include "daemon/handlers/delete_matching.h"

#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/service.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/store/write/delete_matching.h"

#include <string.h>

static void delete_matching_answer(void *arg, uint64_t count, const struct error *error)
{
    struct call *call = arg;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    msgpack_pack_uint64(call_begin_result(call), count);
    call_end_result(call);
}

/* False: the call is answered. */
static bool delete_matching_read_filter(struct call *call, const char **filter)
{
    if (call->argument_count > 1) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "keys and filter exclude each other");
        return false;
    }
    if (option_find(call, "id") != NULL || option_find(call, "first_sent") != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT,
                       "id and filter exclude each other: a second call deletes what matches then");
        return false;
    }
    return kv_option_filter(call, filter);
}

void delete_matching_start(struct call *call, enum kv_operation kind)
{
    struct delete_matching *deletion = arena_zalloc(&call->arena, sizeof(*deletion));

    if (deletion == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!delete_matching_read_filter(call, &deletion->filter))
        return;
    deletion->bucket_name = call->bucket;
    deletion->kind = kind;
    deletion->deadline_ms = call->deadline_ms;
    deletion->take_memory = call_charge_memory;
    deletion->is_wanted = call_is_wanted;
    deletion->done = delete_matching_answer;
    deletion->arg = call;
    call_begin_waiting(call);
    delete_matching(call_store(call), &call->arena, deletion);
}
