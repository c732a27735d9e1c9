/*
 * horizon: the revision up to which delete markers of a bucket may have been removed.
 *
 * It is in the bucket, as the last message of KV_COMPACTED_KEY. Written by compact; read by watches and by the local
 * copy: a watch that is resumed at an earlier revision would miss deletions.
 */
#ifndef DAEMON_STORE_HORIZON_H
#define DAEMON_STORE_HORIZON_H

#include "daemon/nats/kv.h"

#include <stdint.h>

/* Return the horizon in the last message of KV_COMPACTED_KEY; 0 if there is none, or entry is NULL. */
uint64_t horizon_read(const struct kv_entry *entry);

#endif
