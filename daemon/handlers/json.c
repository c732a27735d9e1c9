#include "daemon/handlers/json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- MessagePack into JSON ------------------------------------------------------------------------- */

static json_t *to_json(const msgpack_object *value, const char **wrong);

static json_t *array_to_json(const msgpack_object_array *array, const char **wrong)
{
    json_t *json = json_array();

    for (uint32_t i = 0; i < array->size && *wrong == NULL; i++) {
        json_t *element = to_json(&array->ptr[i], wrong);
        if (element != NULL && json_array_append_new(json, element) != 0)
            *wrong = "out of memory";
    }
    return json;
}

static json_t *map_to_json(const msgpack_object_map *map, const char **wrong)
{
    json_t *json = json_object();

    for (uint32_t i = 0; i < map->size && *wrong == NULL; i++) {
        const msgpack_object *key = &map->ptr[i].key;
        if (key->type != MSGPACK_OBJECT_STR) {
            *wrong = "a map's keys must be str";
            break;
        }
        char *name = strndup(key->via.str.ptr, key->via.str.size);
        json_t *member = to_json(&map->ptr[i].val, wrong);
        if (name == NULL || strlen(name) != key->via.str.size)
            *wrong = name == NULL ? "out of memory" : "a map's key has a NUL in it";
        if (*wrong == NULL && json_object_set(json, name, member) != 0)
            *wrong = "a map's key is not UTF-8";
        json_decref(member);
        free(name);
    }
    return json;
}

static json_t *to_json(const msgpack_object *value, const char **wrong)
{
    json_t *json = NULL;

    switch (value->type) {
    case MSGPACK_OBJECT_NIL:
        return json_null();
    case MSGPACK_OBJECT_BOOLEAN:
        return json_boolean(value->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        if (value->via.u64 > INT64_MAX) {
            *wrong = "an integer is over 2^63 - 1";
            return NULL;
        }
        return json_integer((json_int_t)value->via.u64);
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return json_integer(value->via.i64);
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        if (!isfinite(value->via.f64))
            *wrong = "JSON has no infinite numbers and no NaN";
        return json_real(value->via.f64);
    case MSGPACK_OBJECT_STR:
        json = json_stringn(value->via.str.ptr, value->via.str.size);
        if (json == NULL)
            *wrong = "a str is not UTF-8";
        return json;
    case MSGPACK_OBJECT_ARRAY:
        return array_to_json(&value->via.array, wrong);
    case MSGPACK_OBJECT_MAP:
        return map_to_json(&value->via.map, wrong);
    default:
        *wrong = "JSON has no bin and no ext";
        return NULL;
    }
}

const char *json_from_msgpack(struct arena *arena, const msgpack_object *value, const char **text, size_t *bytes)
{
    const char *wrong = NULL;
    json_t *json = to_json(value, &wrong);

    if (wrong == NULL) {
        size_t size = json_dumpb(json, NULL, 0, JSON_COMPACT);
        char *copy = arena_alloc(arena, size + 1);
        if (copy == NULL || size == 0) {
            wrong = "out of memory";
        } else {
            json_dumpb(json, copy, size, JSON_COMPACT);
            copy[size] = '\0';
            *text = copy;
            *bytes = size;
        }
    }
    json_decref(json);
    return wrong;
}

/* --- JSON into MessagePack ------------------------------------------------------------------------- */

static unsigned depth_of(const json_t *json)
{
    unsigned deepest = 0, depth;
    const char *name;
    json_t *value;
    size_t i;

    if (json_is_array(json)) {
        json_array_foreach((json_t *)json, i, value) if ((depth = depth_of(value)) > deepest) deepest = depth;
        return deepest + 1;
    }
    if (json_is_object(json)) {
        json_object_foreach((json_t *)json, name, value) if ((depth = depth_of(value)) > deepest) deepest = depth;
        return deepest + 1;
    }
    return 0;
}

static void pack(msgpack_packer *packer, const json_t *json)
{
    const char *name;
    json_t *value;
    size_t i;

    switch (json_typeof(json)) {
    case JSON_OBJECT:
        msgpack_pack_map(packer, json_object_size(json));
        json_object_foreach((json_t *)json, name, value)
        {
            msgpack_pack_str_with_body(packer, name, strlen(name));
            pack(packer, value);
        }
        break;
    case JSON_ARRAY:
        msgpack_pack_array(packer, json_array_size(json));
        json_array_foreach((json_t *)json, i, value) pack(packer, value);
        break;
    case JSON_STRING:
        msgpack_pack_str_with_body(packer, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        msgpack_pack_int64(packer, json_integer_value(json));
        break;
    case JSON_REAL:
        msgpack_pack_double(packer, json_real_value(json));
        break;
    case JSON_TRUE:
        msgpack_pack_true(packer);
        break;
    case JSON_FALSE:
        msgpack_pack_false(packer);
        break;
    case JSON_NULL:
        msgpack_pack_nil(packer);
        break;
    }
}

const char *json_to_msgpack(const char *text, size_t bytes, unsigned depth_max, msgpack_packer *(*begin)(void *arg),
                            void *arg, char reason[JSON_REASON_BYTES])
{
    json_error_t where;
    json_t *json = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);

    if (json == NULL) {
        snprintf(reason, JSON_REASON_BYTES, "line %d, column %d: %.120s", where.line, where.column, where.text);
        return reason;
    }
    /* What we send, the client must be able to read within the limits that it knows. */
    if (depth_of(json) > depth_max) {
        json_decref(json);
        snprintf(reason, JSON_REASON_BYTES, "it is nested over %u deep", depth_max);
        return reason;
    }
    pack(begin(arg), json);
    json_decref(json);
    return NULL;
}
