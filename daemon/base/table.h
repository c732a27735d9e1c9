/*
 * table: uthash with the daemon's seeded hash function.
 *
 * Include this instead of <uthash.h>, whose own function has no seed.
 */
#ifndef DAEMON_TABLE_H
#define DAEMON_TABLE_H

#include "daemon/base/hash.h"

#define HASH_FUNCTION(key, length, hash) ((hash) = (unsigned)hash_bytes((key), (length)))
#include <uthash.h>

#endif
