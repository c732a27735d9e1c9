#include "daemon/store/write/increment.h"

#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/options.h"

static void increment_answer(void *arg, int64_t value, uint64_t revision, const struct error *error)
{
    struct call *call = arg;

    if (error != NULL) {
        kv_fail(call, error);
        return;
    }
    msgpack_packer *packer = call_begin_result(call);
    msgpack_pack_array(packer, 2);
    msgpack_pack_int64(packer, value);
    msgpack_pack_uint64(packer, revision);
    call_end_result(call);
}

void handle_kv_increment(struct call *call)
{
    struct increment *increment = arena_zalloc(&call->arena, sizeof(*increment));

    if (increment == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!kv_argument_key(call, 1, &increment->modify.key) || !kv_option_id(call, &increment->modify.journal) ||
        !argument_integer(call, 2, &increment->delta) ||
        !option_integer(call, "initial", INT64_MIN, INT64_MAX, 0, &increment->initial) ||
        !kv_option_ttl(call, &increment->ttl_s) || !option_bool(call, "keep_ttl", &increment->keep_ttl))
        return;
    increment->modify.bucket_name = call->bucket;
    increment->modify.deadline_ms = call->deadline_ms;
    increment->done = increment_answer;
    increment->arg = call;
    increment_start(call_store(call), &call->arena, increment);
}
