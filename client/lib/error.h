/*
 * error: makes a struct kvs_error from the library's own sentence or from the daemon's error map.
 *
 * Its functions begin with client_error_, because those of proto/error.h begin with error_.
 */
#ifndef CLIENT_ERROR_H
#define CLIENT_ERROR_H

#include "client/lib/kvstore_raw.h"

#include <msgpack.h>
#include <stdbool.h>

/* Fill *error with a code and a printf-style sentence, and clear all other members. Returns the code. */
enum kvs_code client_error_set(struct kvs_error *error, enum kvs_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fill *error from an error map of the daemon. False if map is not one. */
bool client_error_read(struct kvs_error *error, const msgpack_object *map);

#endif
