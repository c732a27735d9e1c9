/*
 * object: MessagePack objects as tests write and read them.
 *
 * Used by the raw client. Parameters are written as JSON with ' for ", as in "['%s', 'color', 'blue']". A part of an
 * answer is found by a path of names and indexes, as in "nats.features.ttl" or "0.key".
 */
#ifndef SUPPORT_OBJECT_H
#define SUPPORT_OBJECT_H

#include <msgpack.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Pack a text that is JSON with ' for ". */
void pack_text(msgpack_packer *packer, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* Pack [0, msgid, method. An array of parameters must follow. */
void pack_call_head(msgpack_packer *packer, uint32_t msgid, const char *method);

/* Pack a whole request. */
void pack_call(msgpack_packer *packer, uint32_t msgid, const char *method, const char *params, va_list args)
    __attribute__((format(printf, 4, 0)));

/* Return an object as text for people. It lives until the test ends, as all texts here do. */
const char *object_text(const msgpack_object *object);

/* Return what is at a path, or NULL. "" is the object itself. */
const msgpack_object *find_at(const msgpack_object *object, const char *path);

/* The same; the test fails if it is missing or has another type. A text may be a str or a bin. */
const char *text_at(const msgpack_object *object, const char *path);
uint64_t number_at(const msgpack_object *object, const char *path);
double double_at(const msgpack_object *object, const char *path);
bool bool_at(const msgpack_object *object, const char *path);
size_t count_at(const msgpack_object *object, const char *path);

/*
 * The test fails unless each error of a call that changes something has an outcome: the call's error, and those of
 * single keys. The raw client checks every answer.
 */
void assert_outcome_is_told(const char *method, const msgpack_object *error, const msgpack_object *result);

#endif
