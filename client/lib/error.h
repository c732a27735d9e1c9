/*
 * error: makes a struct kvs_error, from the library's own sentence or from the daemon's error map.
 */
#ifndef CLIENT_ERROR_H
#define CLIENT_ERROR_H

#include "client/lib/kvstore.h"

#include <msgpack.h>
#include <stdbool.h>

/* Fills *error with a code and a printf-style sentence; all other members are cleared. Answers the code. */
enum kvs_code client_error_set(struct kvs_error *error, enum kvs_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills *error from an error map of the daemon. False when map is none. */
bool client_error_read(struct kvs_error *error, const msgpack_object *map);

#endif
