/*
 * lease_key: reads and writes the key of one of this daemon's leases.
 *
 * Used by lease and lease_end. The memory is that of the lease's present work.
 */
#ifndef DAEMON_STORE_LEASE_KEY_H
#define DAEMON_STORE_LEASE_KEY_H

#include "daemon/store/lease/lease.h"
#include "daemon/store/read/get.h"
#include "daemon/store/write/write.h"

/*
 * Write the next renewal (KV_PUT), or purge the key (KV_PURGE). The condition is about lease->revision. done gets the
 * lease. False: out of memory.
 */
bool lease_key_write(struct lease *lease, enum kv_operation kind, enum operation_condition condition,
                     uint64_t deadline_ms, write_done_fn *done);

/* Read the key from the stream's leader. done gets the lease. False: out of memory. */
bool lease_key_read(struct lease *lease, uint64_t deadline_ms, get_done_fn *done);

/* Return whether the entry is a renewal by this process. entry NULL: the key is absent. */
bool lease_key_is_own(const struct lease *lease, const struct kv_entry *entry, struct lease_text *text);

#endif
