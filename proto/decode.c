#include "proto/decode.h"

#include "proto/format.h"
#include "proto/frame.h"

#include <string.h>

struct decoder {
    const uint8_t *at;
    const uint8_t *end;
    msgpack_zone *zone;
};

static void decode_integer(msgpack_object *object, int64_t value)
{
    object->type = value < 0 ? MSGPACK_OBJECT_NEGATIVE_INTEGER : MSGPACK_OBJECT_POSITIVE_INTEGER;
    object->via.i64 = value;
}

/* Read a big-endian number of width bytes and extend its sign. */
static int64_t decode_signed(const uint8_t *body, unsigned width)
{
    unsigned unused = 64 - 8 * width;

    return (int64_t)(format_number(body, width) << unused) >> unused;
}

static void decode_float(msgpack_object *object, const uint8_t *body, unsigned width)
{
    uint64_t bits = format_number(body, width);

    if (width == 4) {
        uint32_t narrow_bits = (uint32_t)bits;
        float narrow;
        memcpy(&narrow, &narrow_bits, sizeof(narrow));
        object->type = MSGPACK_OBJECT_FLOAT32;
        object->via.f64 = narrow;
        return;
    }
    object->type = MSGPACK_OBJECT_FLOAT64;
    memcpy(&object->via.f64, &bits, sizeof(object->via.f64));
}

/* Set a value that contains no others. */
static void decode_leaf(msgpack_object *object, const struct format *format, const uint8_t *body)
{
    unsigned width = (unsigned)format->body_bytes;

    switch (format->kind) {
    case FORMAT_FALSE:
    case FORMAT_TRUE:
        object->type = MSGPACK_OBJECT_BOOLEAN;
        object->via.boolean = format->kind == FORMAT_TRUE;
        break;
    case FORMAT_FIXINT:
        decode_integer(object, (int8_t)body[-1]);
        break;
    case FORMAT_UINT:
        object->type = MSGPACK_OBJECT_POSITIVE_INTEGER;
        object->via.u64 = format_number(body, width);
        break;
    case FORMAT_INT:
        decode_integer(object, decode_signed(body, width));
        break;
    case FORMAT_FLOAT:
        decode_float(object, body, width);
        break;
    case FORMAT_STR:
    case FORMAT_BIN:
        object->type = format->kind == FORMAT_STR ? MSGPACK_OBJECT_STR : MSGPACK_OBJECT_BIN;
        object->via.str.ptr = (const char *)body;
        object->via.str.size = (uint32_t)format->body_bytes;
        break;
    case FORMAT_EXT:
        object->type = MSGPACK_OBJECT_EXT;
        object->via.ext.type = (int8_t)body[0];
        object->via.ext.ptr = (const char *)body + 1;
        object->via.ext.size = (uint32_t)(format->body_bytes - 1);
        break;
    case FORMAT_NIL:
    case FORMAT_RESERVED:
    case FORMAT_ARRAY:
    case FORMAT_MAP:
        object->type = MSGPACK_OBJECT_NIL;
        break;
    }
}

static enum decode_result decode_next(struct decoder *decoder, unsigned depth, msgpack_object *object);

static enum decode_result decode_array(struct decoder *decoder, unsigned depth, uint32_t count, msgpack_object *object)
{
    object->type = MSGPACK_OBJECT_ARRAY;
    object->via.array.size = count;
    object->via.array.ptr = NULL;
    if (count == 0)
        return DECODE_DONE;
    msgpack_object *elements = msgpack_zone_malloc(decoder->zone, count * sizeof(*elements));
    if (elements == NULL)
        return DECODE_NO_MEMORY;
    object->via.array.ptr = elements;
    for (uint32_t i = 0; i < count; i++) {
        enum decode_result result = decode_next(decoder, depth, &elements[i]);
        if (result != DECODE_DONE)
            return result;
    }
    return DECODE_DONE;
}

static enum decode_result decode_map(struct decoder *decoder, unsigned depth, uint32_t count, msgpack_object *object)
{
    object->type = MSGPACK_OBJECT_MAP;
    object->via.map.size = count;
    object->via.map.ptr = NULL;
    if (count == 0)
        return DECODE_DONE;
    msgpack_object_kv *members = msgpack_zone_malloc(decoder->zone, count * sizeof(*members));
    if (members == NULL)
        return DECODE_NO_MEMORY;
    object->via.map.ptr = members;
    for (uint32_t i = 0; i < count; i++) {
        enum decode_result result = decode_next(decoder, depth, &members[i].key);
        if (result == DECODE_DONE)
            result = decode_next(decoder, depth, &members[i].val);
        if (result != DECODE_DONE)
            return result;
    }
    return DECODE_DONE;
}

static enum decode_result decode_next(struct decoder *decoder, unsigned depth, msgpack_object *object)
{
    size_t left = (size_t)(decoder->end - decoder->at);
    struct format format;

    if (left == 0 || !format_read(decoder->at, left, &format) || format.kind == FORMAT_RESERVED)
        return DECODE_MALFORMED;
    left -= format.header_bytes;
    /* Each element has at least one byte, so a count above the bytes that are left is wrong. */
    if (format.body_bytes > left || format.count > left)
        return DECODE_MALFORMED;
    const uint8_t *body = decoder->at + format.header_bytes;
    decoder->at = body + format.body_bytes;
    if (format.kind != FORMAT_ARRAY && format.kind != FORMAT_MAP) {
        decode_leaf(object, &format, body);
        return DECODE_DONE;
    }
    if (depth == FRAME_DEPTH_MAX)
        return DECODE_MALFORMED;
    return format.kind == FORMAT_ARRAY ? decode_array(decoder, depth + 1, (uint32_t)format.count, object)
                                       : decode_map(decoder, depth + 1, (uint32_t)format.count, object);
}

enum decode_result decode_value(const char *bytes, size_t size, msgpack_zone *zone, msgpack_object *object)
{
    struct decoder decoder = {(const uint8_t *)bytes, (const uint8_t *)bytes + size, zone};
    enum decode_result result = decode_next(&decoder, 0, object);

    return result == DECODE_DONE && decoder.at != decoder.end ? DECODE_MALFORMED : result;
}
