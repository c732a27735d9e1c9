/*
 * arguments: the arguments of a call, checked and as C types. Their options: options.h.
 *
 * Used by dispatch and the handlers. This module knows the types of MessagePack. What a key, a bucket or a header may
 * be, the handlers know. A function that returns false has answered the call with invalid_argument, and the call is
 * gone: return at once. Every such error says what was expected and what came.
 *
 * Some libraries cannot choose the type that they send, so these are the same here:
 * - str and bin, if a text is expected. Texts are UTF-8. They are copied into the call's arena, with a NUL at the end;
 *   a text that contains a NUL is refused.
 * - 60 and 60.0, if an integer is expected: see argument_to_int64.
 * - an empty array and an empty map. If nothing need be given, nil is the same, too.
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

/* Read a name. what says in an error what it is, such as "a key". */
bool argument_name(struct call *call, uint32_t position, const char *what, argument_check_fn *check, const char **name);

bool argument_revision(struct call *call, uint32_t position, uint64_t *revision);
bool argument_integer(struct call *call, uint32_t position, int64_t *number);

/* --- Values anywhere in the arguments: these functions answer nothing --- */

/* Return whether the value is a str or a bin: both are texts. */
bool argument_is_text(const msgpack_object *value);

/* Return whether the value says that nothing is given: nil, an empty array or an empty map. */
bool argument_is_nothing(const msgpack_object *value);

/*
 * Read an integer. A float counts if it has no fraction and is below 2^53 in size: above that, other integers have the
 * same float. Return false if the value is no integer, or is out of range.
 */
bool argument_to_int64(const msgpack_object *value, int64_t *number);
bool argument_to_uint64(const msgpack_object *value, uint64_t *number);

/* Return the value as an array or a map. An empty one of the other kind counts. NULL: it is neither. */
const msgpack_object_array *argument_to_array(const msgpack_object *value);
const msgpack_object_map *argument_to_map(const msgpack_object *value);

/* Return whether a str or bin has these bytes. */
bool argument_is_word(const msgpack_object *value, const char *word);

/* Write what a value is, for an error: such as `nil`, `the integer 17`, `"abc"` or `a map of 3`. Return text. */
#define ARGUMENT_DESCRIPTION_BYTES 64
const char *argument_describe(const msgpack_object *value, char text[ARGUMENT_DESCRIPTION_BYTES]);

/* --- Values anywhere in the arguments: these answer the call if they return false --- */

/*
 * Copy a text of up to max_bytes: a limit is needed, because a message may have a text of megabytes, which is read and
 * copied in one turn of the loop. what names it in an error. A foreign text need not be UTF-8.
 */
bool argument_read_text(struct call *call, const msgpack_object *value, const char *what, size_t max_bytes,
                        const char **text);
bool argument_read_foreign_text(struct call *call, const msgpack_object *value, const char *what, size_t max_bytes,
                                const char **text);

struct argument_pair {
    const char *name;
    const char *value;
};

/*
 * Read a map of text to text, of up to 1,000 members and max_bytes in all. What is more is too_large. what names the
 * map in an error.
 */
bool argument_read_pairs(struct call *call, const msgpack_object *value, const char *what, size_t max_bytes,
                         struct argument_pair **pairs, size_t *count);

/* Answer the call: what must be expected, and is value. Return false. */
bool argument_refuse(struct call *call, const char *what, const char *expected, const msgpack_object *value);

#endif
