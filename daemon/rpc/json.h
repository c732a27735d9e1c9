/*
 * json: values as JSON text and as MessagePack.
 *
 * Used for values that come as a map or an array, and for kv.get_json. Both directions go through the text once and
 * build no tree: a megabyte of JSON must not stop the loop. JSON is that of RFC 8259.
 */
#ifndef DAEMON_HANDLERS_JSON_H
#define DAEMON_HANDLERS_JSON_H

#include "daemon/base/arena.h"

#include <msgpack.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Write the value as JSON text into the arena. Return NULL, or a sentence that says why that is impossible.
 * *bytes is its length. A text that is longer than max_bytes is not made: *text is then NULL.
 */
const char *json_from_msgpack(struct arena *arena, const msgpack_object *value, size_t max_bytes, const char **text,
                              size_t *bytes);

/* What the reader of an answer accepts. */
struct json_limits {
    unsigned depth;    /* of arrays and maps within each other */
    uint32_t elements; /* values, both halves of a map's members counted */
};

/*
 * Parse JSON text and pack it. Arrays and maps have headers of five bytes, whatever their size. A name that an object
 * has twice is packed twice. Integers beyond 64 bits are errors. arena is for scratch memory.
 * Return NULL, or a sentence that says what is wrong, written into reason; then what was packed is of no use.
 */
#define JSON_REASON_BYTES 192
const char *json_to_msgpack(struct arena *arena, const char *text, size_t bytes, const struct json_limits *limits,
                            msgpack_sbuffer *out, char reason[JSON_REASON_BYTES]);

#endif
