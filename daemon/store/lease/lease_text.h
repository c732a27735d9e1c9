/*
 * lease_text: the form of a lease in its bucket.
 *
 * Used by lease and foreign_lease. The key of a lease is KV_LEASE_PREFIX and its id. Its value is a JSON object, which
 * operators can read with any NATS client:
 *
 *     state    "alive", or "dead": then its keys are being deleted, and it is never renewed again
 *     daemon   the name of the daemon whose lease it is
 *     run      the id of the daemon's process: another process of the same daemon has another one
 *     renewal  a number that grows with each renewal
 *     ttl      milliseconds: a lease that was not renewed for this long may be declared dead
 */
#ifndef DAEMON_STORE_LEASE_TEXT_H
#define DAEMON_STORE_LEASE_TEXT_H

#include "daemon/base/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/write/operation.h"

#include <stdbool.h>
#include <stdint.h>

#define LEASE_ID_BYTES  OPERATION_ID_BYTES
#define LEASE_KEY_BYTES (sizeof(KV_LEASE_PREFIX) + LEASE_ID_BYTES)

/* The owner of a holding, as its header has it: "uid/owner". */
#define LEASE_OWNER_BYTES 52u

struct lease_text {
    bool is_alive;
    char run[OPERATION_ID_BYTES];
    uint64_t renewal;
    uint64_t ttl_ms;
};

/* Write the value for a lease of this daemon into the arena. NULL: out of memory. */
const char *lease_text_write(struct arena *arena, const struct store *store, const struct lease_text *text);

/* Read the value of a lease's key. False: it is not the value of a lease, and *text is zeroed. */
bool lease_text_read(const struct kv_entry *entry, struct lease_text *text);

/* Return the id of the lease whose key this is; NULL: it is the key of none. */
const char *lease_text_id(const char *key);

/* Return the id of the lease with which an entry lives; NULL: it lives with none. */
const char *lease_text_lease_of(const struct kv_entry *entry);

/* Return the owner of an entry, as its header has it; NULL: it has none. */
const char *lease_text_owner_of(const struct kv_entry *entry);

#endif
