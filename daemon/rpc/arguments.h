/*
 * arguments: a call's arguments and options, checked and as C has them.
 *
 * Used by the handlers and dispatch. Each function answers false after it has
 * answered the call with invalid_argument: then the call is gone. Strings may come as
 * str or bin and are copied into the call's arena with a NUL behind them; one with a
 * NUL inside is refused.
 */
#ifndef DAEMON_HANDLERS_ARGUMENTS_H
#define DAEMON_HANDLERS_ARGUMENTS_H

#include "daemon/nats/message.h"
#include "daemon/rpc/call.h"
#include "daemon/store/bucket/settings.h"
#include "daemon/store/read/get.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A TTL far below what overflows the server's nanoseconds. */
#define TTL_MAX_S BUCKET_TTL_MAX_S

/* --- Positional arguments, counted from 0 --- */

bool argument_bucket(struct call *call, uint32_t position, const char **name);
bool argument_key(struct call *call, uint32_t position, const char **key);
bool argument_revision(struct call *call, uint32_t position, uint64_t *revision);

/* A value: the bytes of a str or bin as they came, or the JSON text of a map or an array. */
bool argument_value(struct call *call, uint32_t position, const char **value, size_t *bytes);

/* --- Options; the default is for one that was not given --- */

/* NULL where the option was not given, or is nil. */
const msgpack_object *option_find(const struct call *call, const char *name);

bool option_string(struct call *call, const char *name, const char **text); /* default NULL */
bool option_bool(struct call *call, const char *name, bool *flag);          /* default false */
bool option_number(struct call *call, const char *name, double standard, double *number);
bool option_integer(struct call *call, const char *name, int64_t min, int64_t max, int64_t standard, int64_t *number);
bool option_headers(struct call *call, const char *name, const struct message_header **headers, size_t *count);

bool option_ttl(struct call *call, int64_t *ttl_s); /* default 0: none */
bool option_consistency(struct call *call, enum read_consistency *consistency);

/* --- Values anywhere in the arguments --- */

/*
 * A value: the bytes of a str or bin as they came, or the JSON text of a map or an array. NULL, or what is
 * wrong with it: then the call goes on.
 */
const char *value_bytes(struct call *call, const msgpack_object *value, const char **bytes, size_t *count);

/* Whether the value is a str or a bin: both are strings of bytes. */
bool value_is_string(const msgpack_object *value);

/* A copy of a str or bin; what names it in the error. */
bool value_string(struct call *call, const msgpack_object *value, const char *what, const char **text);

/* A map of str to str; what names it in the error. */
bool value_pairs(struct call *call, const msgpack_object *value, const char *what, struct bucket_pair **pairs,
                 size_t *count);

/*
 * Whether the keys of a map are among names (with a blank between them), and none is there twice. what has them, for
 * the error. False: the call is answered.
 */
bool map_check_names(struct call *call, const msgpack_object_map *map, const char *what, const char *names);

/* The value of a name in a map, NULL where it is not there or is nil. */
const msgpack_object *map_find(const msgpack_object_map *map, const char *name);

#endif
