#include "proto/error.h"

#include "proto/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const error_names[ERROR_CODE_COUNT] = {
    [ERROR_NONE] = "none",
    [ERROR_INVALID_ARGUMENT] = "invalid_argument",
    [ERROR_BUCKET_NOT_FOUND] = "bucket_not_found",
    [ERROR_ALREADY_EXISTS] = "already_exists",
    [ERROR_CONFLICT] = "conflict",
    [ERROR_TOO_LARGE] = "too_large",
    [ERROR_PERMISSION_DENIED] = "permission_denied",
    [ERROR_UNSUPPORTED] = "unsupported",
    [ERROR_RESOURCE_EXHAUSTED] = "resource_exhausted",
    [ERROR_UNAVAILABLE] = "unavailable",
    [ERROR_DEADLINE_EXCEEDED] = "deadline_exceeded",
    [ERROR_REVISION_GONE] = "revision_gone",
    [ERROR_LOCKED] = "locked",
    [ERROR_NOT_HELD] = "not_held",
    [ERROR_NOT_AN_INTEGER] = "not_an_integer",
    [ERROR_OUT_OF_RANGE] = "out_of_range",
    [ERROR_INTERNAL] = "internal",
};

const char *error_code_name(enum error_code code)
{
    return (unsigned)code < ERROR_CODE_COUNT ? error_names[code] : "internal";
}

enum error_code error_code_from_name(const char *name, size_t length)
{
    for (unsigned code = 1; code < ERROR_CODE_COUNT; code++) {
        if (strlen(error_names[code]) == length && memcmp(error_names[code], name, length) == 0)
            return (enum error_code)code;
    }
    return ERROR_INTERNAL;
}

/*
 * Replace bytes that are no UTF-8 by '?': a str on the wire is UTF-8. A message may quote other bytes, or be cut in the
 * middle of a character.
 */
static void error_make_utf8(char *text)
{
    for (size_t length = strlen(text), at = 0, count; at < length; at += count) {
        count = utf8_character(text + at, length - at);
        if (count > 0)
            continue;
        text[at] = '?';
        count = 1;
    }
}

void error_set(struct error *error, enum error_code code, const char *format, ...)
{
    va_list args;

    memset(error, 0, sizeof(*error));
    error->code = code;
    error->retryable = code == ERROR_UNAVAILABLE || code == ERROR_DEADLINE_EXCEEDED || code == ERROR_RESOURCE_EXHAUSTED;
    va_start(args, format);
    vsnprintf(error->message, sizeof(error->message), format, args);
    va_end(args);
    error_make_utf8(error->message);
}

static void error_pack_str(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text, strlen(text));
}

void error_pack(const struct error *error, msgpack_packer *packer)
{
    size_t members = 3u + (error->bucket != NULL) + (error->key != NULL) + error->has_revision +
                     (error->value != NULL) + (error->outcome != ERROR_OUTCOME_ABSENT);

    msgpack_pack_map(packer, members);
    error_pack_str(packer, "code");
    error_pack_str(packer, error_code_name(error->code));
    error_pack_str(packer, "message");
    error_pack_str(packer, error->message);
    error_pack_str(packer, "retryable");
    if (error->retryable)
        msgpack_pack_true(packer);
    else
        msgpack_pack_false(packer);
    if (error->bucket != NULL) {
        error_pack_str(packer, "bucket");
        error_pack_str(packer, error->bucket);
    }
    if (error->key != NULL) {
        error_pack_str(packer, "key");
        error_pack_str(packer, error->key);
    }
    if (error->has_revision) {
        error_pack_str(packer, "revision");
        msgpack_pack_uint64(packer, error->revision);
    }
    if (error->value != NULL) {
        error_pack_str(packer, "value");
        msgpack_pack_bin_with_body(packer, error->value, error->value_bytes);
    }
    if (error->outcome != ERROR_OUTCOME_ABSENT) {
        error_pack_str(packer, "outcome");
        error_pack_str(packer, error->outcome == ERROR_OUTCOME_NONE ? "none" : "unknown");
    }
}

void error_pack_text(const struct error *error, msgpack_packer *packer)
{
    static const char *const endings[] = {[ERROR_OUTCOME_ABSENT] = "",
                                          [ERROR_OUTCOME_NONE] = " (outcome: none)",
                                          [ERROR_OUTCOME_UNKNOWN] = " (outcome: unknown)"};
    char text[ERROR_MESSAGE_BYTES + 64];

    snprintf(text, sizeof(text), "%s: %s%s", error_code_name(error->code), error->message, endings[error->outcome]);
    error_pack_str(packer, text);
}

static bool error_is_name(const msgpack_object *object, const char *name)
{
    return object->type == MSGPACK_OBJECT_STR && object->via.str.size == strlen(name) &&
           memcmp(object->via.str.ptr, name, object->via.str.size) == 0;
}

/* Return the bytes of a str. msgpack-c gives an empty str the pointer NULL, which would mean that there is none. */
static const char *error_str_text(const msgpack_object *object)
{
    return object->via.str.size > 0 ? object->via.str.ptr : "";
}

bool error_unpack(const msgpack_object *object, struct error *error, size_t *bucket_length, size_t *key_length)
{
    bool has_code = false;

    memset(error, 0, sizeof(*error));
    if (object->type != MSGPACK_OBJECT_MAP)
        return false;
    for (uint32_t i = 0; i < object->via.map.size; i++) {
        const msgpack_object *name = &object->via.map.ptr[i].key;
        const msgpack_object *value = &object->via.map.ptr[i].val;
        bool is_str = value->type == MSGPACK_OBJECT_STR;

        if (is_str && error_is_name(name, "code")) {
            error->code = error_code_from_name(error_str_text(value), value->via.str.size);
            has_code = true;
        } else if (is_str && error_is_name(name, "message")) {
            size_t length = value->via.str.size;
            bool is_cut = length >= sizeof(error->message);
            if (is_cut)
                length = sizeof(error->message) - 1;
            memcpy(error->message, error_str_text(value), length);
            error->message[length] = '\0';
            if (is_cut)
                error_make_utf8(error->message);
        } else if (is_str && error_is_name(name, "bucket")) {
            error->bucket = error_str_text(value);
            if (bucket_length != NULL)
                *bucket_length = value->via.str.size;
        } else if (is_str && error_is_name(name, "key")) {
            error->key = error_str_text(value);
            if (key_length != NULL)
                *key_length = value->via.str.size;
        } else if (value->type == MSGPACK_OBJECT_BIN && error_is_name(name, "value")) {
            error->value = value->via.bin.size > 0 ? value->via.bin.ptr : "";
            error->value_bytes = value->via.bin.size;
        } else if (is_str && error_is_name(name, "outcome")) {
            error->outcome = error_is_name(value, "none") ? ERROR_OUTCOME_NONE : ERROR_OUTCOME_UNKNOWN;
        } else if (value->type == MSGPACK_OBJECT_BOOLEAN && error_is_name(name, "retryable")) {
            error->retryable = value->via.boolean;
        } else if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && error_is_name(name, "revision")) {
            error->revision = value->via.u64;
            error->has_revision = true;
        }
    }
    return has_code;
}
