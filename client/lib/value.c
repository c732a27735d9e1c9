/* The tree of values of kvstore_raw.h. A struct kvs_value is a msgpack_object by another name: nothing is converted. */
#include "client/lib/value.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

static const msgpack_object *value_object(const struct kvs_value *value)
{
    return (const msgpack_object *)value;
}

enum kvs_type kvs_value_type(const struct kvs_value *value)
{
    if (value == NULL)
        return KVS_NIL;
    switch (value_object(value)->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        return KVS_BOOLEAN;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return KVS_INTEGER;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return KVS_DOUBLE;
    case MSGPACK_OBJECT_STR:
        return KVS_STRING;
    case MSGPACK_OBJECT_BIN:
    case MSGPACK_OBJECT_EXT:
        return KVS_BINARY;
    case MSGPACK_OBJECT_ARRAY:
        return KVS_ARRAY;
    case MSGPACK_OBJECT_MAP:
        return KVS_MAP;
    default:
        return KVS_NIL;
    }
}

bool kvs_value_boolean(const struct kvs_value *value)
{
    return kvs_value_type(value) == KVS_BOOLEAN && value_object(value)->via.boolean;
}

int64_t kvs_value_integer(const struct kvs_value *value)
{
    if (kvs_value_type(value) != KVS_INTEGER)
        return 0;
    const msgpack_object *object = value_object(value);
    if (object->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return object->via.i64;
    return object->via.u64 <= INT64_MAX ? (int64_t)object->via.u64 : 0;
}

uint64_t kvs_value_unsigned(const struct kvs_value *value)
{
    if (value == NULL || value_object(value)->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return 0;
    return value_object(value)->via.u64;
}

double kvs_value_double(const struct kvs_value *value)
{
    if (value == NULL)
        return 0;
    switch (value_object(value)->type) {
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return value_object(value)->via.f64;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return (double)value_object(value)->via.u64;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return (double)value_object(value)->via.i64;
    default:
        return 0;
    }
}

const char *kvs_value_bytes(const struct kvs_value *value, size_t *size)
{
    const char *bytes = NULL;
    size_t length = 0;

    if (value != NULL) {
        const msgpack_object *object = value_object(value);
        if (object->type == MSGPACK_OBJECT_STR) {
            bytes = object->via.str.ptr;
            length = object->via.str.size;
        } else if (object->type == MSGPACK_OBJECT_BIN) {
            bytes = object->via.bin.ptr;
            length = object->via.bin.size;
        } else if (object->type == MSGPACK_OBJECT_EXT) {
            bytes = object->via.ext.ptr;
            length = object->via.ext.size;
        }
    }
    if (size != NULL)
        *size = length;
    return bytes;
}

size_t kvs_value_count(const struct kvs_value *value)
{
    switch (kvs_value_type(value)) {
    case KVS_ARRAY:
        return value_object(value)->via.array.size;
    case KVS_MAP:
        return value_object(value)->via.map.size;
    default:
        return 0;
    }
}

const struct kvs_value *kvs_value_item(const struct kvs_value *value, size_t place)
{
    if (place >= kvs_value_count(value))
        return NULL;
    const msgpack_object *object = value_object(value);
    return (const struct kvs_value *)(object->type == MSGPACK_OBJECT_ARRAY ? &object->via.array.ptr[place]
                                                                           : &object->via.map.ptr[place].val);
}

const struct kvs_value *kvs_value_key(const struct kvs_value *value, size_t place)
{
    if (kvs_value_type(value) != KVS_MAP || place >= kvs_value_count(value))
        return NULL;
    return (const struct kvs_value *)&value_object(value)->via.map.ptr[place].key;
}

const struct kvs_value *kvs_value_member(const struct kvs_value *value, const char *name)
{
    size_t length = strlen(name);

    if (kvs_value_type(value) != KVS_MAP)
        return NULL;
    for (size_t i = 0; i < kvs_value_count(value); i++) {
        size_t size;
        const char *key = kvs_value_bytes(kvs_value_key(value, i), &size);
        if (key != NULL && size == length && memcmp(key, name, length) == 0)
            return kvs_value_item(value, i);
    }
    return NULL;
}

/* --- Copying: the whole tree in one block, objects first, then their bytes --------------------- */

struct value_space {
    size_t objects;
    size_t bytes;
};

struct value_places {
    char *objects;
    char *bytes;
};

/* The recursion is as deep as a message may be nested. */
static void value_measure(const msgpack_object *object, struct value_space *space)
{
    size_t size;

    switch (object->type) {
    case MSGPACK_OBJECT_ARRAY:
        space->objects += object->via.array.size * sizeof(msgpack_object);
        for (uint32_t i = 0; i < object->via.array.size; i++)
            value_measure(&object->via.array.ptr[i], space);
        break;
    case MSGPACK_OBJECT_MAP:
        space->objects += object->via.map.size * sizeof(msgpack_object_kv);
        for (uint32_t i = 0; i < object->via.map.size; i++) {
            value_measure(&object->via.map.ptr[i].key, space);
            value_measure(&object->via.map.ptr[i].val, space);
        }
        break;
    default:
        if (kvs_value_bytes((const struct kvs_value *)object, &size) != NULL)
            space->bytes += size;
        break;
    }
}

static void *value_take(char **place, size_t size)
{
    void *taken = *place;

    *place += size;
    return taken;
}

static const char *value_copy_text(struct value_places *places, const char *bytes, size_t size)
{
    char *copy = value_take(&places->bytes, size);

    if (size > 0)
        memcpy(copy, bytes, size);
    return copy;
}

static void value_copy_object(msgpack_object *copy, const msgpack_object *object, struct value_places *places)
{
    *copy = *object;
    switch (object->type) {
    case MSGPACK_OBJECT_STR:
        copy->via.str.ptr = value_copy_text(places, object->via.str.ptr, object->via.str.size);
        break;
    case MSGPACK_OBJECT_BIN:
        copy->via.bin.ptr = value_copy_text(places, object->via.bin.ptr, object->via.bin.size);
        break;
    case MSGPACK_OBJECT_EXT:
        copy->via.ext.ptr = value_copy_text(places, object->via.ext.ptr, object->via.ext.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
        copy->via.array.ptr = value_take(&places->objects, object->via.array.size * sizeof(msgpack_object));
        for (uint32_t i = 0; i < object->via.array.size; i++)
            value_copy_object(&copy->via.array.ptr[i], &object->via.array.ptr[i], places);
        break;
    case MSGPACK_OBJECT_MAP:
        copy->via.map.ptr = value_take(&places->objects, object->via.map.size * sizeof(msgpack_object_kv));
        for (uint32_t i = 0; i < object->via.map.size; i++) {
            value_copy_object(&copy->via.map.ptr[i].key, &object->via.map.ptr[i].key, places);
            value_copy_object(&copy->via.map.ptr[i].val, &object->via.map.ptr[i].val, places);
        }
        break;
    default:
        break;
    }
}

static const msgpack_object *value_object_or_nil(const struct kvs_value *value)
{
    static const msgpack_object nil = {.type = MSGPACK_OBJECT_NIL};

    return value != NULL ? value_object(value) : &nil;
}

static struct value_space value_measure_all(const msgpack_object *object)
{
    struct value_space space = {.objects = sizeof(*object)};

    value_measure(object, &space);
    return space;
}

size_t value_copy_bytes(const struct kvs_value *value)
{
    struct value_space space = value_measure_all(value_object_or_nil(value));

    return space.objects + space.bytes;
}

struct kvs_value *value_copy_to(void *block, const struct kvs_value *value)
{
    const msgpack_object *object = value_object_or_nil(value);
    struct value_places places = {.objects = (char *)block + sizeof(*object),
                                  .bytes = (char *)block + value_measure_all(object).objects};

    value_copy_object(block, object, &places);
    return block;
}

struct kvs_value *kvs_value_copy(const struct kvs_value *value)
{
    void *block = malloc(value_copy_bytes(value));

    return block != NULL ? value_copy_to(block, value) : NULL;
}

void kvs_free(void *block)
{
    free(block);
}
