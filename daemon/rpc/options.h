/*
 * options: the map of options of a call, and other maps with known names.
 *
 * Used by dispatch and the handlers. As in arguments.h, a function that returns false has answered the call: return at
 * once.
 */
#ifndef DAEMON_RPC_OPTIONS_H
#define DAEMON_RPC_OPTIONS_H

#include "daemon/rpc/arguments.h"

/* --- Options of the call; the standard value is for an option that was not given --- */

/* Return NULL if the option was not given, or is nil. */
const msgpack_object *option_find(const struct call *call, const char *name);

/* Read a text of up to max_bytes. standard NULL */
bool option_string(struct call *call, const char *name, size_t max_bytes, const char **text);
/* The same for a text that need not be UTF-8, as keys of foreign clients. */
bool option_foreign_text(struct call *call, const char *name, size_t max_bytes, const char **text);
bool option_bool(struct call *call, const char *name, bool *flag); /* standard false */
bool option_number(struct call *call, const char *name, double standard, double *number);
bool option_integer(struct call *call, const char *name, int64_t min, int64_t max, int64_t standard, int64_t *number);

/* --- Any map with known names --- */

/* Return the value of a name in a map; NULL if it is not there or is nil. */
const msgpack_object *option_find_member(const msgpack_object_map *map, const char *name);

/*
 * Check that the keys of a map are among names, separated by blanks, and that none occurs twice. what names the owner
 * of the map in an error.
 */
bool option_check_names(struct call *call, const msgpack_object_map *map, const char *what, const char *names);

#endif
