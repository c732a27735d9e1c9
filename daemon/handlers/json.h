/*
 * json: values as JSON text and as MessagePack.
 *
 * Used for values that come as a map or an array, and for kv.get_json.
 */
#ifndef DAEMON_HANDLERS_JSON_H
#define DAEMON_HANDLERS_JSON_H

#include "daemon/arena.h"

#include <msgpack.h>
#include <stddef.h>

/* Writes the value as JSON text into the arena. NULL, or a sentence that says why it cannot be. */
const char *json_from_msgpack(struct arena *arena, const msgpack_object *value, const char **text, size_t *bytes);

/*
 * Parses JSON text and packs it; nothing is packed where it is none. NULL, or a sentence that says
 * what is wrong, written into reason.
 */
#define JSON_REASON_BYTES 192
const char *json_to_msgpack(const char *text, size_t bytes, unsigned depth_max, msgpack_packer *(*begin)(void *arg),
                            void *arg, char reason[JSON_REASON_BYTES]);

#endif
