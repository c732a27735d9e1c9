#include "daemon/store/write/txn.h"
#include "daemon/handlers/entry.h"
#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/service.h"
#include "daemon/handlers/steps.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"

#include <stdio.h>
#include <string.h>

/* A part of the transaction, as errors name it: "operation 3". */
struct txn_part {
    const char *what;
    uint32_t number;
};

static bool txn_refuse_part(struct call *call, struct txn_part part, const char *wrong)
{
    call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s %u: %s", part.what, part.number, wrong);
    return false;
}

/* Answer the call: a member of a part has the wrong type. Return false. */
static bool txn_refuse_member(struct call *call, struct txn_part part, const char *member, const char *expected,
                              const msgpack_object *value)
{
    char what[64];

    snprintf(what, sizeof(what), "%s %u: %s", part.what, part.number, member);
    return argument_refuse(call, what, expected, value);
}

static bool txn_call_read_key(struct call *call, struct txn_part part, const msgpack_object *object, const char **key)
{
    if (!argument_is_text(object))
        return txn_refuse_member(call, part, "the key", "a text (str or bin)", object);
    const char *wrong = kv_check_key(object->via.str.ptr, object->via.str.size);
    if (wrong != NULL)
        return txn_refuse_part(call, part, wrong);
    *key = arena_strndup(&call->arena, object->via.str.ptr, object->via.str.size);
    if (*key == NULL)
        call_fail_out_of_memory(call);
    return *key != NULL;
}

static bool txn_read_revision(struct call *call, struct txn_part part, const msgpack_object *object, uint64_t *revision)
{
    return argument_to_uint64(object, revision) ||
           txn_refuse_member(call, part, "the revision", "an integer of at least 0", object);
}

static bool txn_read_check(struct call *call, const msgpack_object *pair, uint32_t number, struct txn_check *check)
{
    struct txn_part part = {"check", number};

    if (pair->type != MSGPACK_OBJECT_ARRAY || pair->via.array.size != 2)
        return txn_refuse_member(call, part, "it", "[key, revision]", pair);
    return txn_call_read_key(call, part, &pair->via.array.ptr[0], &check->key) &&
           txn_read_revision(call, part, &pair->via.array.ptr[1], &check->revision);
}

/* --- Operations ------------------------------------------------------------------------------------ */

static const struct txn_form {
    const char *name;
    enum kv_operation kind;
    enum operation_condition condition;
    uint32_t elements; /* name, key and what else is positional; a map of options may follow */
    const char *usage; /* for errors */
} txn_forms[] = {
    {"put", KV_PUT, OPERATION_ALWAYS, 3, "[\"put\", key, value, {ttl, headers}]"},
    {"create", KV_PUT, OPERATION_IF_ABSENT, 3, "[\"create\", key, value, {ttl, headers}]"},
    {"update", KV_PUT, OPERATION_IF_AT_REVISION, 4, "[\"update\", key, value, revision, {ttl, headers}]"},
    {"delete", KV_DELETE, OPERATION_ALWAYS, 2, "[\"delete\", key]"},
    {"purge", KV_PURGE, OPERATION_ALWAYS, 2, "[\"purge\", key]"},
};

static const struct txn_form *txn_find_form(const msgpack_object *name)
{
    for (size_t i = 0; i < sizeof(txn_forms) / sizeof(txn_forms[0]); i++) {
        if (argument_is_word(name, txn_forms[i].name))
            return &txn_forms[i];
    }
    return NULL;
}

/* The options of an operation have the form of a call's options: the same functions check them. */
static bool txn_read_options(struct call *call, struct txn_part part, const msgpack_object *options,
                             struct operation *operation)
{
    const msgpack_object_map *outer = call->options;
    char what[32];

    if (argument_is_nothing(options))
        return true;
    if (operation->kind != KV_PUT)
        return txn_refuse_part(call, part, "delete and purge take no options");
    if (options->type != MSGPACK_OBJECT_MAP)
        return txn_refuse_member(call, part, "the options", "a map of ttl and headers", options);
    snprintf(what, sizeof(what), "%s %u", part.what, part.number);
    if (!option_check_names(call, &options->via.map, what, "ttl headers"))
        return false;
    call->options = &options->via.map;
    bool taken = kv_option_ttl(call, &operation->ttl_s) &&
                 kv_option_headers(call, "headers", &operation->headers, &operation->header_count);
    if (taken)
        call->options = outer;
    return taken;
}

/* Return the form of an operation. NULL: the call is answered. */
static const struct txn_form *txn_read_form(struct call *call, struct txn_part part, const msgpack_object *object)
{
    const msgpack_object_array *array = &object->via.array;
    char wrong[128];

    if (object->type != MSGPACK_OBJECT_ARRAY || array->size == 0) {
        txn_refuse_member(call, part, "it", "an array that begins with the name of an operation", object);
        return NULL;
    }
    const struct txn_form *form = txn_find_form(&array->ptr[0]);
    if (form == NULL) {
        txn_refuse_member(call, part, "its first element", "\"put\", \"create\", \"update\", \"delete\" or \"purge\"",
                          &array->ptr[0]);
        return NULL;
    }
    if (array->size < form->elements || array->size > form->elements + 1) {
        snprintf(wrong, sizeof(wrong), "it must be %s, not an array of %u", form->usage, array->size);
        txn_refuse_part(call, part, wrong);
        return NULL;
    }
    return form;
}

static bool txn_read_operation(struct call *call, struct txn_part part, const msgpack_object *object,
                               struct operation *operation)
{
    const msgpack_object_array *array = &object->via.array;
    const struct txn_form *form = txn_read_form(call, part, object);

    if (form == NULL)
        return false;
    memset(operation, 0, sizeof(*operation));
    operation->kind = form->kind;
    operation->condition = form->condition;
    operation->value = "";
    if (!txn_call_read_key(call, part, &array->ptr[1], &operation->key))
        return false;
    if (form->kind == KV_PUT) {
        const char *wrong = kv_argument_bytes(call, &array->ptr[2], &operation->value, &operation->value_bytes);
        if (wrong != NULL)
            return txn_refuse_part(call, part, wrong);
    }
    if (form->condition == OPERATION_IF_AT_REVISION &&
        !txn_read_revision(call, part, &array->ptr[3], &operation->revision))
        return false;
    return array->size == form->elements || txn_read_options(call, part, &array->ptr[form->elements], operation);
}

/* --- The call -------------------------------------------------------------------------------------- */

struct txn_call {
    struct txn txn;
    struct steps steps; /* over the checks, and then the operations */
    struct txn_check *checks;
    struct operation *operations;
};

/* Make room for the checks. False: the call is answered. */
static bool txn_begin_checks(struct call *call, struct txn_call *commit)
{
    const msgpack_object_array *array = argument_to_array(&call->arguments[1]);

    if (argument_is_nothing(&call->arguments[1]))
        return true;
    if (array == NULL)
        return argument_refuse(call, "the checks", "an array of [key, revision]", &call->arguments[1]);
    if (array->size > TXN_CHECKS_MAX) {
        call_fail_with(call, ERROR_TOO_LARGE, "a transaction has up to %u checks; this one has %u", TXN_CHECKS_MAX,
                       array->size);
        return false;
    }
    commit->checks = arena_alloc(&call->arena, (array->size + 1) * sizeof(*commit->checks));
    if (commit->checks == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    commit->txn.checks = commit->checks;
    commit->txn.check_count = array->size;
    return true;
}

/* Make room for the operations. False: the call is answered. */
static bool txn_begin_operations(struct call *call, struct txn_call *commit)
{
    const msgpack_object *array = &call->arguments[2];

    if (array->type != MSGPACK_OBJECT_ARRAY || array->via.array.size == 0)
        return argument_refuse(call, "the operations", "an array of at least one operation", array);
    if (array->via.array.size > BATCH_MESSAGES_MAX) {
        call_fail_with(call, ERROR_TOO_LARGE, "a transaction has up to %u operations; this one has %u",
                       BATCH_MESSAGES_MAX, array->via.array.size);
        return false;
    }
    commit->operations = arena_alloc(&call->arena, array->via.array.size * sizeof(*commit->operations));
    if (commit->operations == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    commit->txn.operations = commit->operations;
    commit->txn.operation_count = array->via.array.size;
    return true;
}

static bool txn_read_part(struct steps *steps, size_t index)
{
    struct txn_call *commit = (struct txn_call *)((char *)steps - offsetof(struct txn_call, steps));
    const msgpack_object *arguments = steps->call->arguments;
    size_t checks = commit->txn.check_count;

    if (index < checks)
        return txn_read_check(steps->call, &arguments[1].via.array.ptr[index], (uint32_t)index + 1,
                              &commit->checks[index]);
    index -= checks;
    return txn_read_operation(steps->call, (struct txn_part){"operation", (uint32_t)index + 1},
                              &arguments[2].via.array.ptr[index], &commit->operations[index]);
}

static void txn_answer(void *arg, uint64_t first_revision, const struct error *error)
{
    struct call *call = arg;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    uint32_t count = call->arguments[2].via.array.size;
    msgpack_packer *packer = call_begin_result(call);
    msgpack_pack_array(packer, count);
    for (uint32_t i = 0; i < count; i++)
        msgpack_pack_uint64(packer, first_revision + i);
    call_end_result(call);
}

static void txn_start(struct steps *steps)
{
    struct txn_call *commit = (struct txn_call *)((char *)steps - offsetof(struct txn_call, steps));

    txn_commit(call_store(steps->call), &steps->call->arena, &commit->txn);
}

void handle_txn_commit(struct call *call)
{
    struct txn_call *commit = arena_zalloc(&call->arena, sizeof(*commit));

    if (commit == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    struct txn *txn = &commit->txn;
    if (!kv_option_id(call, &txn->journal) || !txn_begin_checks(call, commit) || !txn_begin_operations(call, commit))
        return;
    txn->bucket_name = call->bucket;
    txn->deadline_ms = call->deadline_ms;
    txn->done = txn_answer;
    txn->arg = call;
    commit->steps = (struct steps){
        .call = call, .count = txn->check_count + txn->operation_count, .step = txn_read_part, .done = txn_start};
    steps_read(&commit->steps);
}
