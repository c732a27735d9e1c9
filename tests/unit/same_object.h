/*
 * same_object: compares two MessagePack objects bit by bit.
 *
 * Used by the tests and fuzzers that compare decode with msgpack-c. msgpack_object_equal is not enough, because it says
 * that no NaN equals another.
 */
#ifndef UNIT_SAME_OBJECT_H
#define UNIT_SAME_OBJECT_H

#include <msgpack.h>
#include <stdbool.h>
#include <string.h>

static inline bool same_bytes(const char *left, const char *right, size_t length)
{
    return length == 0 || memcmp(left, right, length) == 0;
}

static inline bool same_object(const msgpack_object *left, const msgpack_object *right)
{
    if (left->type != right->type)
        return false;
    switch (left->type) {
    case MSGPACK_OBJECT_NIL:
        return true;
    case MSGPACK_OBJECT_BOOLEAN:
        return left->via.boolean == right->via.boolean;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return left->via.u64 == right->via.u64;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return memcmp(&left->via.f64, &right->via.f64, sizeof(left->via.f64)) == 0;
    case MSGPACK_OBJECT_STR:
    case MSGPACK_OBJECT_BIN:
        return left->via.str.size == right->via.str.size &&
               same_bytes(left->via.str.ptr, right->via.str.ptr, left->via.str.size);
    case MSGPACK_OBJECT_EXT:
        return left->via.ext.type == right->via.ext.type && left->via.ext.size == right->via.ext.size &&
               same_bytes(left->via.ext.ptr, right->via.ext.ptr, left->via.ext.size);
    case MSGPACK_OBJECT_ARRAY:
        if (left->via.array.size != right->via.array.size)
            return false;
        for (uint32_t i = 0; i < left->via.array.size; i++) {
            if (!same_object(&left->via.array.ptr[i], &right->via.array.ptr[i]))
                return false;
        }
        return true;
    case MSGPACK_OBJECT_MAP:
        if (left->via.map.size != right->via.map.size)
            return false;
        for (uint32_t i = 0; i < left->via.map.size; i++) {
            const msgpack_object_kv *one = &left->via.map.ptr[i], *other = &right->via.map.ptr[i];
            if (!same_object(&one->key, &other->key) || !same_object(&one->val, &other->val))
                return false;
        }
        return true;
    }
    return false;
}

#endif
