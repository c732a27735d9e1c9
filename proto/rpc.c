#include "proto/rpc.h"

#include "proto/decode.h"

#include <string.h>

/* Some libraries send nil or an empty map if there are no arguments. */
static bool rpc_is_params(const msgpack_object *params)
{
    return params->type == MSGPACK_OBJECT_ARRAY || params->type == MSGPACK_OBJECT_NIL ||
           (params->type == MSGPACK_OBJECT_MAP && params->via.map.size == 0);
}

static const char *rpc_decode_request(const msgpack_object_array *envelope, struct rpc_message *message)
{
    bool is_request = message->type == RPC_REQUEST;
    const msgpack_object *method = &envelope->ptr[is_request ? 2 : 1];
    const msgpack_object *params = &envelope->ptr[is_request ? 3 : 2];

    if (method->type != MSGPACK_OBJECT_STR && method->type != MSGPACK_OBJECT_BIN)
        return "the method must be a text (str or bin)";
    if (!rpc_is_params(params))
        return "params must be an array";
    message->method = method->via.str.ptr;
    message->method_length = method->via.str.size;
    if (params->type == MSGPACK_OBJECT_ARRAY)
        message->params = *params;
    else
        message->params = (msgpack_object){.type = MSGPACK_OBJECT_ARRAY};
    return NULL;
}

const char *rpc_decode(const char *bytes, size_t size, msgpack_zone *zone, struct rpc_message *message)
{
    msgpack_object root;

    memset(message, 0, sizeof(*message));
    switch (decode_value(bytes, size, zone, &root)) {
    case DECODE_DONE:
        break;
    case DECODE_MALFORMED:
        return "the message is not MessagePack";
    case DECODE_NO_MEMORY:
        return "out of memory";
    }

    if (root.type != MSGPACK_OBJECT_ARRAY || root.via.array.size == 0)
        return "a message must be an array [type, ...]";
    const msgpack_object_array *envelope = &root.via.array;
    if (envelope->ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER || envelope->ptr[0].via.u64 > RPC_NOTIFICATION)
        return "a message's type must be 0 (request), 1 (response) or 2 (notification)";
    message->type = (enum rpc_type)envelope->ptr[0].via.u64;

    if (message->type != RPC_NOTIFICATION && envelope->size > 1) {
        const msgpack_object *msgid = &envelope->ptr[1];
        if (msgid->type == MSGPACK_OBJECT_POSITIVE_INTEGER && msgid->via.u64 <= UINT32_MAX) {
            message->msgid = (uint32_t)msgid->via.u64;
            message->has_msgid = true;
        } else if (!(message->type == RPC_RESPONSE && msgid->type == MSGPACK_OBJECT_NIL)) {
            return "a msgid must be an integer from 0 to 4294967295";
        }
    }
    if (envelope->size != (message->type == RPC_NOTIFICATION ? 3u : 4u))
        return "a request has 4 elements, a notification 3";
    if (message->type != RPC_RESPONSE)
        return rpc_decode_request(envelope, message);
    message->error = envelope->ptr[2];
    message->result = envelope->ptr[3];
    return NULL;
}

bool rpc_peek_msgid(const uint8_t *bytes, size_t length, uint32_t *msgid)
{
    unsigned width;

    /* fixarray of 4, type 0, msgid: clients do not write longer forms of the first two */
    if (length < 3 || bytes[0] != 0x94 || bytes[1] != RPC_REQUEST)
        return false;
    if (bytes[2] <= 0x7f) {
        *msgid = bytes[2];
        return true;
    }
    if (bytes[2] < 0xcc || bytes[2] > 0xce)
        return false;
    width = 1u << (bytes[2] - 0xcc);
    if (length < 3 + width)
        return false;
    *msgid = 0;
    for (unsigned i = 0; i < width; i++)
        *msgid = *msgid << 8 | bytes[3 + i];
    return true;
}

void rpc_pack_request(msgpack_packer *packer, uint32_t msgid, const char *method)
{
    msgpack_pack_array(packer, 4);
    msgpack_pack_uint8(packer, RPC_REQUEST);
    msgpack_pack_uint32(packer, msgid);
    msgpack_pack_str_with_body(packer, method, strlen(method));
}

void rpc_pack_result(msgpack_packer *packer, uint32_t msgid)
{
    /* Every answer begins so: written at once. An array of 4, the type, the msgid in its shortest form, nil. */
    char bytes[8] = {(char)0x94, RPC_RESPONSE};
    size_t length = 2;
    unsigned digits = msgid < 0x80 ? 0 : msgid <= UINT8_MAX ? 1 : msgid <= UINT16_MAX ? 2 : 4;

    if (digits > 0)
        bytes[length++] = (char)(digits == 1 ? 0xcc : digits == 2 ? 0xcd : 0xce);
    for (unsigned i = digits > 0 ? digits : 1; i-- > 0;)
        bytes[length++] = (char)(msgid >> (8 * i));
    bytes[length++] = (char)0xc0;
    packer->callback(packer->data, bytes, length);
}

/* Pack [1, msgid, …: the error and the result must follow. */
static void rpc_pack_response_head(msgpack_packer *packer, const uint32_t *msgid)
{
    msgpack_pack_array(packer, 4);
    msgpack_pack_uint8(packer, RPC_RESPONSE);
    if (msgid != NULL)
        msgpack_pack_uint32(packer, *msgid);
    else
        msgpack_pack_nil(packer);
}

void rpc_pack_error(msgpack_packer *packer, const uint32_t *msgid, const struct error *error)
{
    rpc_pack_response_head(packer, msgid);
    error_pack(error, packer);
    msgpack_pack_nil(packer);
}

void rpc_pack_error_text(msgpack_packer *packer, const uint32_t *msgid, const struct error *error)
{
    rpc_pack_response_head(packer, msgid);
    error_pack_text(error, packer);
    msgpack_pack_nil(packer);
}

void rpc_pack_notification(msgpack_packer *packer, const char *method)
{
    msgpack_pack_array(packer, 3);
    msgpack_pack_uint8(packer, RPC_NOTIFICATION);
    msgpack_pack_str_with_body(packer, method, strlen(method));
}
