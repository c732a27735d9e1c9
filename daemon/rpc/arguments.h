/*
 * arguments: the arguments and options of a call, checked and as C types.
 *
 * Used by dispatch and the handlers. This module knows the types of MessagePack. What a key, a bucket or a header may
 * be, the handlers know. A function that returns false has answered the call with invalid_argument, and the call is
 * gone: return at once. Texts are accepted as str or bin. They are copied into the call's arena, with a NUL at the
 * end; a text that contains a NUL is refused.
 */
#ifndef DAEMON_RPC_ARGUMENTS_H
#define DAEMON_RPC_ARGUMENTS_H

#include "daemon/rpc/call.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- Positional arguments, counted from 0 --- */

/* Return NULL if text has the right form, otherwise a sentence that says what is wrong with it. */
typedef const char *argument_check_fn(const char *text, size_t length);

/* Read a name. what says in an error what it is, such as "key". */
bool argument_name(struct call *call, uint32_t position, const char *what, argument_check_fn *check, const char **name);

bool argument_revision(struct call *call, uint32_t position, uint64_t *revision);

/* --- Options; the standard value is for an option that was not given --- */

/* Return NULL if the option was not given, or is nil. */
const msgpack_object *option_find(const struct call *call, const char *name);

bool option_string(struct call *call, const char *name, const char **text); /* standard NULL */
bool option_bool(struct call *call, const char *name, bool *flag);          /* standard false */
bool option_number(struct call *call, const char *name, double standard, double *number);
bool option_integer(struct call *call, const char *name, int64_t min, int64_t max, int64_t standard, int64_t *number);

/* --- Values anywhere in the arguments --- */

/* Return whether the value is a str or a bin: both are texts. */
bool value_is_string(const msgpack_object *value);

/* Copy a str or bin. what names it in an error. */
bool value_string(struct call *call, const msgpack_object *value, const char *what, const char **text);

struct argument_pair {
    const char *name;
    const char *value;
};

/* Read a map of text to text. what names it in an error. */
bool value_pairs(struct call *call, const msgpack_object *value, const char *what, struct argument_pair **pairs,
                 size_t *count);

/*
 * Check that the keys of a map are among names (with a blank between them), each at most once. what names the map's
 * owner in an error.
 */
bool map_check_names(struct call *call, const msgpack_object_map *map, const char *what, const char *names);

/* Return the value of a name in a map; NULL if it is not there or is nil. */
const msgpack_object *map_find(const msgpack_object_map *map, const char *name);

#endif
