/*
 * json: JSON text (RFC 8259) from MessagePack, and MessagePack from JSON text.
 *
 * Used for values that are no text, and for kv.get_json. Both directions read their input once and build no tree: a
 * megabyte of JSON must not stop the loop.
 */
#ifndef DAEMON_RPC_JSON_H
#define DAEMON_RPC_JSON_H

#include "daemon/base/arena.h"

#include <msgpack.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Write the value as JSON text into the arena. Return NULL, or a sentence that says why that is impossible. *bytes is
 * the text's length. If that is above max_bytes, *text is NULL, and *bytes is a lower bound above max_bytes.
 */
const char *json_from_msgpack(struct arena *arena, const msgpack_object *value, size_t max_bytes, const char **text,
                              size_t *bytes);

/* Limits of an answer. */
struct json_limits {
    unsigned depth;    /* of arrays and maps within each other */
    uint32_t elements; /* values, both halves of a map's members counted */
};

/*
 * Parse JSON text and pack it into out. The headers of arrays and maps have five bytes, whatever their size. A name
 * that an object has twice is packed twice. Integers beyond 64 bits are errors. arena is for scratch memory. Return
 * NULL, or a sentence in reason that says what is wrong: then discard what was packed.
 */
#define JSON_REASON_BYTES 192
const char *json_to_msgpack(struct arena *arena, const char *text, size_t bytes, const struct json_limits *limits,
                            msgpack_sbuffer *out, char reason[JSON_REASON_BYTES]);

#endif
