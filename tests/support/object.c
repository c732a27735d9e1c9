#include "tests/support/object.h"

#include "tests/support/process.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Packing --------------------------------------------------------------------------------------- */

static void pack_json(msgpack_packer *packer, json_t *value)
{
    const char *name;
    json_t *member;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        msgpack_pack_map(packer, json_object_size(value));
        json_object_foreach(value, name, member)
        {
            msgpack_pack_str_with_body(packer, name, strlen(name));
            pack_json(packer, member);
        }
        break;
    case JSON_ARRAY:
        msgpack_pack_array(packer, json_array_size(value));
        json_array_foreach(value, i, member)
        {
            pack_json(packer, member);
        }
        break;
    case JSON_STRING:
        msgpack_pack_str_with_body(packer, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        msgpack_pack_int64(packer, json_integer_value(value));
        break;
    case JSON_REAL:
        msgpack_pack_double(packer, json_real_value(value));
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

void pack_call_head(msgpack_packer *packer, uint32_t msgid, const char *method)
{
    msgpack_pack_array(packer, 4);
    msgpack_pack_int(packer, 0);
    msgpack_pack_uint32(packer, msgid);
    msgpack_pack_str_with_body(packer, method, strlen(method));
}

void pack_text(msgpack_packer *packer, const char *format, va_list args)
{
    json_error_t where;
    char *text = NULL;

    ck_assert_int_ge(vasprintf(&text, format, args), 0);
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\'')
            *c = '"';
    }
    json_t *json = json_loads(text, JSON_ALLOW_NUL | JSON_DECODE_ANY, &where);
    ck_assert_msg(json != NULL, "the test's own parameters are no JSON: %s: %s", where.text, text);
    pack_json(packer, json);
    json_decref(json);
    free(text);
}

void pack_call(msgpack_packer *packer, uint32_t msgid, const char *method, const char *params, va_list args)
{
    pack_call_head(packer, msgid, method);
    pack_text(packer, params, args);
}

/* --- Looking --------------------------------------------------------------------------------------- */

const char *object_text(const msgpack_object *object)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    msgpack_object_print(stream, *object);
    fclose(stream);
    keep(text);
    if (size > 2000)
        strcpy(text + 2000, "...");
    return text;
}

static const msgpack_object *object_find_step(const msgpack_object *object, const char *name, size_t length)
{
    if (object->type == MSGPACK_OBJECT_ARRAY) {
        size_t place = strtoul(name, NULL, 10);
        return place < object->via.array.size ? &object->via.array.ptr[place] : NULL;
    }
    if (object->type != MSGPACK_OBJECT_MAP)
        return NULL;
    for (uint32_t i = 0; i < object->via.map.size; i++) {
        const msgpack_object *key = &object->via.map.ptr[i].key;
        if (key->type == MSGPACK_OBJECT_STR && key->via.str.size == length &&
            memcmp(key->via.str.ptr, name, length) == 0)
            return &object->via.map.ptr[i].val;
    }
    return NULL;
}

const msgpack_object *find_at(const msgpack_object *object, const char *path)
{
    while (object != NULL && *path != '\0') {
        size_t length = strcspn(path, ".");
        /* Methods have dots in their names: the rest may be one name. */
        const msgpack_object *whole = object_find_step(object, path, strlen(path));
        if (whole != NULL && object->type == MSGPACK_OBJECT_MAP)
            return whole;
        object = object_find_step(object, path, length);
        path += length + (path[length] == '.');
    }
    return object;
}

static const msgpack_object *object_need_at(const msgpack_object *object, const char *path)
{
    const msgpack_object *found = find_at(object, path);

    ck_assert_msg(found != NULL, "there is no %s in %s", path, object_text(object));
    return found;
}

const char *text_at(const msgpack_object *object, const char *path)
{
    const msgpack_object *found = object_need_at(object, path);

    ck_assert_msg(found->type == MSGPACK_OBJECT_STR || found->type == MSGPACK_OBJECT_BIN, "%s is not a text in %s",
                  path, object_text(object));
    return format_text("%.*s", (int)found->via.str.size, found->via.str.size > 0 ? found->via.str.ptr : "");
}

uint64_t number_at(const msgpack_object *object, const char *path)
{
    const msgpack_object *found = object_need_at(object, path);

    ck_assert_msg(found->type == MSGPACK_OBJECT_POSITIVE_INTEGER, "%s is not a number in %s", path,
                  object_text(object));
    return found->via.u64;
}

double double_at(const msgpack_object *object, const char *path)
{
    const msgpack_object *found = object_need_at(object, path);

    ck_assert_msg(found->type == MSGPACK_OBJECT_FLOAT64, "%s is no double in %s", path, object_text(object));
    return found->via.f64;
}

bool bool_at(const msgpack_object *object, const char *path)
{
    const msgpack_object *found = object_need_at(object, path);

    ck_assert_msg(found->type == MSGPACK_OBJECT_BOOLEAN, "%s is no bool in %s", path, object_text(object));
    return found->via.boolean;
}

size_t count_at(const msgpack_object *object, const char *path)
{
    const msgpack_object *found = object_need_at(object, path);

    ck_assert_msg(found->type == MSGPACK_OBJECT_ARRAY || found->type == MSGPACK_OBJECT_MAP, "%s is not a list in %s",
                  path, object_text(object));
    return found->type == MSGPACK_OBJECT_ARRAY ? found->via.array.size : found->via.map.size;
}

/* --- Outcomes -------------------------------------------------------------------------------------- */

static bool object_changes_something(const char *method)
{
    static const char *const changing[] = {"kv.put",        "kv.create",     "kv.update",    "kv.delete",
                                           "kv.purge",      "bulk.put",      "bulk.delete",  "txn.commit",
                                           "bucket.create", "bucket.update", "bucket.purge", "bucket.delete"};

    for (size_t i = 0; i < sizeof(changing) / sizeof(changing[0]); i++) {
        if (strcmp(method, changing[i]) == 0)
            return true;
    }
    return false;
}

static void assert_has_outcome(const char *method, const msgpack_object *error)
{
    const msgpack_object *outcome = find_at(error, "outcome");

    ck_assert_msg(outcome != NULL, "%s: an error without an outcome: %s", method, text_at(error, "message"));
    const char *text = text_at(error, "outcome");
    ck_assert_msg(strcmp(text, "none") == 0 || strcmp(text, "unknown") == 0, "%s: outcome %s", method, text);
}

void assert_outcome_is_told(const char *method, const msgpack_object *error, const msgpack_object *result)
{
    if (!object_changes_something(method))
        return;
    if (error->type == MSGPACK_OBJECT_MAP) {
        assert_has_outcome(method, error);
        return;
    }
    if (strncmp(method, "bulk.", 5) != 0 || result->type != MSGPACK_OBJECT_MAP)
        return;
    for (uint32_t i = 0; i < result->via.map.size; i++) {
        const msgpack_object *of_key = find_at(&result->via.map.ptr[i].val, "error");
        if (of_key != NULL)
            assert_has_outcome(method, of_key);
    }
}
