#include "client/lib/request.h"

#include "client/lib/options.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAP_16          0xdeu /* MessagePack's map with a count of two bytes, which can be filled in later */
#define UINT_64         0xcfu /* an integer of eight bytes */
#define FIXED_ARRAY     0x90u /* and its array of up to 15, with the count in the same byte */
#define MAP_HEADER_SIZE 3u

static int request_append(void *request, const char *bytes, size_t size)
{
    struct kvs_request *self = request;

    if (!buffer_append(&self->params, bytes, size)) {
        self->no_memory = true;
        return -1;
    }
    return 0;
}

static void request_reset(struct kvs_request *request, const char *method)
{
    buffer_clear(&request->params);
    msgpack_packer_init(&request->packer, request, request_append);
    request->method = method;
    request->timeout_s = 0;
    request->no_memory = false;
    request->wrong = NULL;
    request->options_at = 0;
    request->positions = 0;
    request->options = 0;
    request->takes_no_id = false;
    request->may_repeat = false;
    request->first_sent_at = 0;
}

void request_begin(struct kvs_request *request, const char *method, unsigned positions)
{
    request_reset(request, method);
    request->positions = positions;
    msgpack_pack_array(&request->packer, positions);
}

void request_begin_part(struct kvs_request *part)
{
    request_reset(part, NULL);
}

void request_add_part(struct kvs_request *request, const struct kvs_request *part)
{
    request_append(request, part->params.bytes + part->params.begin, buffer_size(&part->params));
    if (part->wrong != NULL)
        request->wrong = part->wrong;
    request->no_memory = request->no_memory || part->no_memory;
}

void request_option(struct kvs_request *request, const char *name)
{
    if (request->options++ == 0) {
        request->options_at = buffer_size(&request->params);
        request_append(request, (const char[MAP_HEADER_SIZE]){(char)MAP_16, 0, 0}, MAP_HEADER_SIZE);
    }
    kvs_request_string(request, name);
}

void request_option_boolean(struct kvs_request *request, const char *name, bool value)
{
    if (!value)
        return;
    request_option(request, name);
    kvs_request_boolean(request, true);
}

void request_option_integer(struct kvs_request *request, const char *name, int64_t value)
{
    if (value == 0)
        return;
    request_option(request, name);
    kvs_request_integer(request, value);
}

void request_option_unsigned(struct kvs_request *request, const char *name, uint64_t value)
{
    if (value == 0)
        return;
    request_option(request, name);
    kvs_request_unsigned(request, value);
}

void request_option_string(struct kvs_request *request, const char *name, const char *text)
{
    if (text == NULL)
        return;
    request_option(request, name);
    kvs_request_string(request, text);
}

void request_headers(struct kvs_request *request, const struct kvs_header *headers, size_t count)
{
    kvs_request_map(request, count);
    for (size_t i = 0; i < count; i++) {
        kvs_request_string(request, headers[i].name);
        kvs_request_string(request, headers[i].value);
    }
}

void request_option_headers(struct kvs_request *request, const char *name, const struct kvs_header *headers,
                            size_t count)
{
    if (count == 0)
        return;
    request_option(request, name);
    request_headers(request, headers, count);
}

void request_option_consistency(struct kvs_request *request, enum kvs_consistency consistency)
{
    switch (consistency) {
    case KVS_CONSISTENCY_DIRECT:
        break;
    case KVS_CONSISTENCY_LEADER:
        request_option_string(request, "consistency", "leader");
        break;
    case KVS_CONSISTENCY_CACHED:
        request_option_string(request, "consistency", "cached");
        break;
    default:
        request->wrong = "consistency is not a value of enum kvs_consistency";
    }
}

void request_option_page(struct kvs_request *request, const char *filter, uint64_t limit, const char *after,
                         enum kvs_consistency consistency)
{
    request_option_string(request, "filter", filter);
    request_option_unsigned(request, "limit", limit);
    request_option_string(request, "after", after);
    request_option_consistency(request, consistency);
}

void request_copy_options(struct kvs_request *request, void *own, size_t own_size, const void *options)
{
    const char *wrong = options_copy(own, own_size, options);

    if (wrong != NULL)
        request->wrong = wrong;
}

void request_copy_call_options(struct kvs_request *request, const struct kvs_call_options *options)
{
    struct kvs_call_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request->timeout_s = own.timeout_s;
}

void request_add_id(struct kvs_request *request, const char id[REQUEST_ID_BYTES])
{
    static const char zero[1 + sizeof(uint64_t)] = {(char)UINT_64};

    request_option(request, "id");
    kvs_request_binary(request, id, REQUEST_ID_BYTES);
    request_option(request, "first_sent");
    request->first_sent_at = buffer_size(&request->params) + 1;
    request_append(request, zero, sizeof(zero));
}

void request_end(struct kvs_request *request, double default_s)
{
    if (!(request->timeout_s >= 0) || !isfinite(request->timeout_s))
        request->wrong = "timeout_s must be a number of seconds, or 0 for the default";
    if (!(request->timeout_s > 0))
        request->timeout_s = default_s;
    if (request->timeout_s > 0) {
        request_option(request, "timeout");
        kvs_request_double(request, request->timeout_s);
    }
    if (request->options == 0 || request->no_memory)
        return;

    /* The counts are known now. */
    char *params = request->params.bytes + request->params.begin;
    assert(request->positions + 1 <= 15 && request->options <= UINT16_MAX);
    params[0] = (char)(FIXED_ARRAY | (request->positions + 1));
    params[request->options_at + 1] = (char)(request->options >> 8);
    params[request->options_at + 2] = (char)(request->options & 0xff);
}

void request_release(struct kvs_request *request)
{
    buffer_free(&request->params);
    free(request->method_copy);
    request->method_copy = NULL;
}

struct kvs_request *kvs_request_new(const char *method, size_t parameter_count)
{
    struct kvs_request *request = calloc(1, sizeof(*request));

    if (request == NULL)
        return NULL;
    request->method_copy = strdup(method != NULL ? method : "");
    request_reset(request, request->method_copy);
    request->no_memory = request->method_copy == NULL;
    kvs_request_array(request, parameter_count);
    return request;
}

void kvs_request_free(struct kvs_request *request)
{
    if (request == NULL)
        return;
    request_release(request);
    free(request);
}

/* All of these accept the NULL of a failed kvs_request_new, so that a program needs only the last check. */

void kvs_request_nil(struct kvs_request *request)
{
    if (request != NULL)
        msgpack_pack_nil(&request->packer);
}

void kvs_request_boolean(struct kvs_request *request, bool value)
{
    if (request == NULL)
        return;
    if (value)
        msgpack_pack_true(&request->packer);
    else
        msgpack_pack_false(&request->packer);
}

void kvs_request_integer(struct kvs_request *request, int64_t value)
{
    if (request != NULL)
        msgpack_pack_int64(&request->packer, value);
}

void kvs_request_unsigned(struct kvs_request *request, uint64_t value)
{
    if (request != NULL)
        msgpack_pack_uint64(&request->packer, value);
}

void kvs_request_double(struct kvs_request *request, double value)
{
    if (request == NULL)
        return;
    /* A whole number takes one byte instead of nine. */
    if (value >= 0 && value <= INT32_MAX && (double)(int64_t)value >= value)
        msgpack_pack_int64(&request->packer, (int64_t)value);
    else
        msgpack_pack_double(&request->packer, value);
}

void kvs_request_string(struct kvs_request *request, const char *text)
{
    if (request == NULL)
        return;
    if (text == NULL) {
        request->wrong = "an argument that must be a string is NULL";
        return;
    }
    size_t length = strlen(text);
    if (length > UINT32_MAX)
        request->wrong = "a string is longer than 4 GiB";
    else
        msgpack_pack_str_with_body(&request->packer, text, length);
}

void kvs_request_binary(struct kvs_request *request, const void *bytes, size_t size)
{
    if (request == NULL)
        return;
    if (bytes == NULL && size > 0)
        request->wrong = "a value is NULL but its size is not 0";
    else if (size > UINT32_MAX)
        request->wrong = "a value is longer than 4 GiB";
    else
        msgpack_pack_bin_with_body(&request->packer, bytes != NULL ? bytes : "", size);
}

void kvs_request_array(struct kvs_request *request, size_t count)
{
    if (request == NULL)
        return;
    if (count > UINT32_MAX)
        request->wrong = "an array has more than 4294967295 items";
    else
        msgpack_pack_array(&request->packer, count);
}

void kvs_request_map(struct kvs_request *request, size_t count)
{
    if (request == NULL)
        return;
    if (count > UINT32_MAX)
        request->wrong = "a map has more than 4294967295 members";
    else
        msgpack_pack_map(&request->packer, count);
}
