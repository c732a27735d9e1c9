/*
 * entry: the entries of a bucket in answers and notifications.
 *
 * Used by the handlers. The form: proto/protocol.md, "Values and entries".
 */
#ifndef DAEMON_HANDLERS_ENTRY_H
#define DAEMON_HANDLERS_ENTRY_H

#include "daemon/nats/kv.h"

#include "daemon/rpc/pack.h"

#include <msgpack.h>

/* Pack the map of the protocol: key, value, revision, created, operation, and if there are any ttl, lease and headers.
 */
void entry_pack(const struct kv_entry *entry, msgpack_packer *packer);

/* The same with previous_value, if it is known. */
void entry_pack_with_previous(const struct kv_entry *entry, msgpack_packer *packer);

/* The same with size, the value's bytes, instead of value. */
void entry_pack_meta(const struct kv_entry *entry, msgpack_packer *packer);

#endif
