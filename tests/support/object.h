/*
 * object: MessagePack objects as tests write and read them.
 *
 * Used by the raw clients of tests/integration and tests/fault. Parameters are written as JSON with ' for ", as in
 * "['%s', 'color', 'blue']"; what an answer has is found by a path of names and places, as in "nats.features.ttl" or
 * "0.key".
 */
#ifndef SUPPORT_OBJECT_H
#define SUPPORT_OBJECT_H

#include <msgpack.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Packs [0, msgid, method: an array of parameters must follow. */
void pack_call_head(msgpack_packer *packer, uint32_t msgid, const char *method);

/* The same with the parameters. */
void pack_call(msgpack_packer *packer, uint32_t msgid, const char *method, const char *params, va_list args)
    __attribute__((format(printf, 4, 0)));

/* An object as text for people; lives until the test ends, as all texts here do. */
const char *object_text(const msgpack_object *object);

/* What is at a path; "" is the object itself. NULL where there is nothing. */
const msgpack_object *find_at(const msgpack_object *object, const char *path);

/* The same; the test fails where it is not there or of another type. Text may be a str or a bin. */
const char *text_at(const msgpack_object *object, const char *path);
uint64_t number_at(const msgpack_object *object, const char *path);
double double_at(const msgpack_object *object, const char *path);
bool bool_at(const msgpack_object *object, const char *path);
size_t count_at(const msgpack_object *object, const char *path);

/*
 * The test fails unless each error of a call that changes something says what became of it: its own, and those of
 * single keys. The clients look at every answer.
 */
void assert_outcome_is_told(const char *method, const msgpack_object *error, const msgpack_object *result);

#endif
