#include "daemon/handlers/kv_arguments.h"

#include "daemon/handlers/service.h"
#include "daemon/nats/connection.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/json.h"
#include "daemon/rpc/options.h"
#include "daemon/store/bucket/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Positional arguments -------------------------------------------------------------------------- */

void kv_fail(struct call *call, const struct error *error)
{
    struct error complete = *error;

    if (call->argument_count > 1) /* it was checked to be a key */
        complete.key = arena_strndup(&call->arena, call->arguments[1].via.str.ptr, call->arguments[1].via.str.size);
    call_fail(call, &complete);
}

bool kv_argument_key(struct call *call, uint32_t position, const char **key)
{
    return argument_name(call, position, "a key", kv_check_key, key);
}

/* Return the largest message that the server takes; SIZE_MAX: it has not said yet. */
static size_t kv_max_payload(const struct call *call)
{
    size_t bytes = connection_get_status(call_store(call)->connection)->max_payload_bytes;

    return bytes > 0 ? bytes : SIZE_MAX;
}

const char *kv_argument_bytes(struct call *call, const msgpack_object *value, const char **bytes, size_t *count)
{
    if (argument_is_text(value)) {
        *bytes = value->via.str.ptr;
        *count = value->via.str.size;
        return NULL;
    }
    if (value->type == MSGPACK_OBJECT_NIL)
        return "a value must be a text, a number, true or false, an array or a map, not nil";
    if (value->type == MSGPACK_OBJECT_EXT)
        return "a value must be a text, a number, true or false, an array or a map, not an ext";
    /* A value that is larger than the server takes is only measured: operation_check refuses it with its size. */
    const char *reason = json_from_msgpack(&call->arena, value, kv_max_payload(call), bytes, count);
    if (reason == NULL)
        return NULL;
    char *wrong = arena_alloc(&call->arena, JSON_REASON_BYTES);
    if (wrong == NULL)
        return "out of memory";
    snprintf(wrong, JSON_REASON_BYTES, "the value cannot be stored as JSON: %s", reason);
    return wrong;
}

bool kv_argument_value(struct call *call, uint32_t position, const char **value, size_t *bytes)
{
    const char *wrong = kv_argument_bytes(call, &call->arguments[position], value, bytes);

    if (wrong != NULL)
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s", wrong);
    return wrong == NULL;
}

/* --- Options --------------------------------------------------------------------------------------- */

bool kv_option_headers(struct call *call, const char *name, const struct message_header **headers, size_t *count)
{
    const msgpack_object *option = option_find(call, name);
    struct argument_pair *pairs;

    *headers = NULL;
    *count = 0;
    if (option == NULL)
        return true;
    if (!argument_read_pairs(call, option, name, kv_max_payload(call), &pairs, count))
        return false;
    struct message_header *checked = arena_alloc(&call->arena, (*count + 1) * sizeof(*checked));
    if (checked == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    for (size_t i = 0; i < *count; i++) {
        const char *wrong = kv_check_header(pairs[i].name, pairs[i].value);
        if (wrong != NULL) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s (\"%.64s\")", wrong, pairs[i].name);
            return false;
        }
        checked[i] = (struct message_header){pairs[i].name, pairs[i].value};
    }
    *headers = checked;
    return true;
}

bool kv_option_ttl(struct call *call, int64_t *ttl_s)
{
    return option_integer(call, "ttl", 1, BUCKET_TTL_MAX_S, 0, ttl_s);
}

bool kv_option_filter(struct call *call, const char **filter)
{
    if (!option_string(call, "filter", KV_KEY_LENGTH_MAX, filter))
        return false;
    const char *wrong = *filter != NULL ? kv_check_filter(*filter, strlen(*filter)) : NULL;
    if (wrong != NULL)
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "filter \"%.64s\": %s", *filter, wrong);
    return wrong == NULL;
}

bool kv_option_consistency(struct call *call, enum read_consistency *consistency)
{
    const msgpack_object *option = option_find(call, "consistency");

    if (option == NULL || argument_is_word(option, "direct"))
        *consistency = READ_DIRECT;
    else if (argument_is_word(option, "cached"))
        *consistency = READ_CACHED;
    else if (argument_is_word(option, "leader"))
        *consistency = READ_LEADER;
    else
        return argument_refuse(call, "consistency", "\"direct\", \"leader\" or \"cached\"", option);
    return true;
}

bool kv_option_id(struct call *call, struct journal_call *journal)
{
    const msgpack_object *id = option_find(call, "id");
    int64_t first_sent;

    if (!option_integer(call, "first_sent", 0, INT64_MAX, 0, &first_sent))
        return false;
    if (id == NULL && first_sent == 0)
        return true;
    if (id == NULL || !argument_is_text(id) || id->via.str.size < JOURNAL_ID_MIN || id->via.str.size > JOURNAL_ID_MAX) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "id must be a str or bin of %u to %u bytes", JOURNAL_ID_MIN,
                       JOURNAL_ID_MAX);
        return false;
    }
    journal->id = id->via.str.ptr;
    journal->id_bytes = id->via.str.size;
    journal->uid = call->user->uid;
    journal->first_sent_us = (uint64_t)first_sent;
    return true;
}
