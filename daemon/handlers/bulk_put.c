#include "daemon/base/key_index.h"
#include "daemon/handlers/bulk_keys.h"
#include "daemon/handlers/delete_matching.h"
#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/service.h"
#include "daemon/handlers/steps.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/arguments.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/rpc/pack.h"
#include "daemon/store/write/bulk_write.h"
#include "proto/utf8.h"

#include <string.h>

struct bulk_write_call {
    struct bulk_write bulk;
    struct call *call;
    struct steps steps; /* over the keys: to read them, and to pack the answer */
    struct key_index index;
    struct operation *operations;
    int64_t ttl_s;
    const char *refused_why; /* of the last key that was refused, and its error */
    struct error *refused;
    struct arena_task answer_task;
    msgpack_sbuffer answer;
    msgpack_packer packer;
};

static struct bulk_write_call *bulk_write_of_steps(struct steps *steps)
{
    return (struct bulk_write_call *)((char *)steps - offsetof(struct bulk_write_call, steps));
}

/* --- The answer ------------------------------------------------------------------------------------ */

/* Every result is a map, so that typed languages can decode all of them alike. */
static void bulk_pack_result(msgpack_packer *packer, const struct call *call, const char *key,
                             const struct bulk_result *result)
{
    msgpack_pack_map(packer, 1);
    if (result->error != NULL) {
        struct error complete = *result->error;
        complete.bucket = call->bucket;
        complete.key = key;
        pack_str(packer, "error");
        error_pack(&complete, packer);
    } else {
        pack_str(packer, "revision");
        msgpack_pack_uint64(packer, result->revision);
    }
}

static bool bulk_write_pack_key(struct steps *steps, size_t index)
{
    struct bulk_write_call *write = bulk_write_of_steps(steps);
    struct call *call = write->call;
    const char *key = write->operations[index].key;
    size_t size = write->answer.size;

    if (bulk_begin_pair(call, &write->packer, &write->answer, key)) {
        bulk_pack_result(&write->packer, call, key, &write->bulk.results[index]);
        arena_charge(&call->arena, write->answer.size - size);
    }
    return true;
}

static void bulk_write_end(struct steps *steps)
{
    struct bulk_write_call *write = bulk_write_of_steps(steps);

    msgpack_pack_map(call_begin_result(write->call), write->bulk.count);
    call_end_result_with(write->call, &write->answer);
}

static void bulk_write_free_answer(struct arena_task *task)
{
    msgpack_sbuffer_destroy(&ARENA_TASK_OWNER(task, struct bulk_write_call, answer_task)->answer);
}

static void bulk_write_count_unknown(const struct bulk_write_call *write)
{
    uint64_t *count = &write->call->dispatcher->metrics->unknown_outcomes;

    for (size_t i = 0; i < write->bulk.count; i++) {
        const struct error *error = write->bulk.results[i].error;
        *count += error != NULL && error->outcome == ERROR_OUTCOME_UNKNOWN;
    }
}

/* The keys were written: until it is answered, the call is no longer one that has sent nothing. */
static void bulk_write_answer(void *arg)
{
    struct bulk_write_call *write = arg;

    bulk_write_count_unknown(write);
    if (write->call->session == NULL) { /* nobody reads it, and maybe the loop has ended */
        call_drop(write->call);
        return;
    }
    msgpack_sbuffer_init(&write->answer);
    msgpack_packer_init(&write->packer, &write->answer, msgpack_sbuffer_write);
    arena_begin_task(&write->call->arena, &write->answer_task, bulk_write_free_answer);
    write->steps = (struct steps){
        .call = write->call, .count = write->bulk.count, .step = bulk_write_pack_key, .done = bulk_write_end};
    steps_start(&write->steps);
}

/* --- Keys ------------------------------------------------------------------------------------------ */

/* If the client has left, the call goes on. */
static bool bulk_write_is_cancelled(void *arg)
{
    return ((const struct bulk_write_call *)arg)->call->is_cancelled;
}

/* Return a call with room for the keys. NULL: the call is answered. */
static struct bulk_write_call *bulk_write_new(struct call *call, size_t count)
{
    struct bulk_write_call *write = arena_zalloc(&call->arena, sizeof(*write));

    if (write != NULL) {
        write->operations = arena_zalloc(&call->arena, (count + 1) * sizeof(*write->operations));
        write->bulk.results = arena_zalloc(&call->arena, (count + 1) * sizeof(*write->bulk.results));
    }
    if (write == NULL || write->operations == NULL || write->bulk.results == NULL ||
        !key_index_init(&write->index, &call->arena, count)) {
        call_fail_out_of_memory(call);
        return NULL;
    }
    write->call = call;
    write->bulk.bucket_name = call->bucket;
    write->bulk.operations = write->operations;
    write->bulk.deadline_ms = call->deadline_ms;
    write->bulk.done = bulk_write_answer;
    write->bulk.is_cancelled = bulk_write_is_cancelled;
    write->bulk.arg = write;
    if (!kv_option_id(call, &write->bulk.journal))
        return NULL;
    return write;
}

/* Make the result of one key an error: its mistake fails no other key. Neighbours often make the same mistake. */
static void bulk_write_refuse_key(struct bulk_write_call *write, struct bulk_result *result, const char *wrong)
{
    struct error error;

    if (write->refused == NULL || write->refused_why != wrong) {
        error_set(&error, ERROR_INVALID_ARGUMENT, "%s", wrong);
        error.outcome = ERROR_OUTCOME_NONE;
        write->refused = bulk_copy_error(&write->call->arena, &error);
        write->refused_why = wrong;
    }
    result->error = write->refused;
}

/*
 * Add an operation for the key number index. If the key is wrong, its result is already set. Return NULL if the call is
 * answered.
 */
static struct operation *bulk_write_add_operation(struct bulk_write_call *write, uint32_t index,
                                                  const msgpack_object *key)
{
    struct call *call = write->call;
    struct operation *operation = &write->operations[write->bulk.count];

    if (!argument_is_text(key)) {
        bulk_refuse_type(call, index, key);
        return NULL;
    }
    /* Such a key could not be a key of the answer's map, or would look like a shorter one. */
    if (memchr(key->via.str.ptr, '\0', key->via.str.size) != NULL ||
        !utf8_is_valid(key->via.str.ptr, key->via.str.size)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "key number %u must be UTF-8 without a NUL", index + 1);
        return NULL;
    }
    operation->key = arena_strndup(&call->arena, key->via.str.ptr, key->via.str.size);
    operation->value = "";
    if (operation->key == NULL) {
        call_fail_out_of_memory(call);
        return NULL;
    }
    const char *wrong = kv_check_key(key->via.str.ptr, key->via.str.size);
    if (wrong != NULL)
        bulk_write_refuse_key(write, &write->bulk.results[write->bulk.count], wrong);
    write->bulk.count++;
    return operation;
}

static void bulk_write_start(struct steps *steps)
{
    struct bulk_write_call *write = bulk_write_of_steps(steps);

    bulk_write(call_store(write->call), &write->call->arena, &write->bulk);
}

/* --- bulk.put -------------------------------------------------------------------------------------- */

static bool bulk_put_read_pair(struct steps *steps, size_t index)
{
    struct bulk_write_call *write = bulk_write_of_steps(steps);
    struct call *call = write->call;
    const msgpack_object_kv *pair = &argument_to_map(&call->arguments[1])->ptr[index];
    uint32_t number = (uint32_t)index;
    struct operation *operation = bulk_write_add_operation(write, number, &pair->key);

    if (operation == NULL)
        return false;
    if (key_index_add(&write->index, operation->key, number) != number) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "the key \"%.64s\" is there twice", operation->key);
        return false;
    }
    operation->kind = KV_PUT;
    operation->ttl_s = write->ttl_s;
    const char *wrong = kv_argument_bytes(call, &pair->val, &operation->value, &operation->value_bytes);
    if (wrong != NULL)
        bulk_write_refuse_key(write, &write->bulk.results[index], wrong);
    return true;
}

void handle_bulk_put(struct call *call)
{
    const msgpack_object_map *map = argument_to_map(&call->arguments[1]);

    if (map == NULL) {
        argument_refuse(call, "argument 2", "a map of keys to values", &call->arguments[1]);
        return;
    }
    if (!bulk_check_count(call, map->size))
        return;
    struct bulk_write_call *write = bulk_write_new(call, map->size);
    if (write == NULL || !kv_option_ttl(call, &write->ttl_s))
        return;
    write->steps =
        (struct steps){.call = call, .count = map->size, .step = bulk_put_read_pair, .done = bulk_write_start};
    steps_read(&write->steps);
}

/* --- bulk.delete ----------------------------------------------------------------------------------- */

/* Return the keys of bulk.delete. If there are none, an empty array was taken for empty options. NULL: wrong. */
static const msgpack_object_array *bulk_delete_keys(const struct call *call)
{
    static const msgpack_object_array none;

    if (call->argument_count > 1)
        return argument_to_array(&call->arguments[1]);
    return call->options != NULL && call->options->size == 0 ? &none : NULL;
}

static bool bulk_delete_read_key(struct steps *steps, size_t index)
{
    struct bulk_write_call *write = bulk_write_of_steps(steps);
    uint32_t number = (uint32_t)index;
    struct operation *operation = bulk_write_add_operation(write, number, &bulk_delete_keys(write->call)->ptr[index]);

    if (operation == NULL)
        return false;
    operation->kind = KV_DELETE;
    /* A key that is named twice is deleted once. */
    if (key_index_add(&write->index, operation->key, number) != number) {
        write->bulk.count--;
        write->bulk.results[write->bulk.count].error = NULL;
    }
    return true;
}

void handle_bulk_delete(struct call *call)
{
    if (option_find(call, "filter") != NULL) {
        delete_matching_start(call, KV_DELETE);
        return;
    }
    const msgpack_object_array *array = bulk_delete_keys(call);

    if (array == NULL && call->argument_count > 1) {
        argument_refuse(call, "argument 2", "an array of keys", &call->arguments[1]);
        return;
    }
    if (array == NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "bulk.delete takes an array of keys, or the option filter");
        return;
    }
    if (!bulk_check_count(call, array->size))
        return;
    struct bulk_write_call *write = bulk_write_new(call, array->size);
    if (write == NULL)
        return;
    write->steps =
        (struct steps){.call = call, .count = array->size, .step = bulk_delete_read_key, .done = bulk_write_start};
    steps_read(&write->steps);
}
