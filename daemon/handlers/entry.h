/*
 * entry: how an entry goes over the wire to a client.
 */
#ifndef DAEMON_HANDLERS_ENTRY_H
#define DAEMON_HANDLERS_ENTRY_H

#include "daemon/nats/kv.h"

#include <msgpack.h>
#include <string.h>

/* Packs the map of the protocol: key, value, revision, created, operation, and headers where there are any. */
void entry_pack(const struct kv_entry *entry, msgpack_packer *packer);

/* The same with size, the value's bytes, in place of value. */
void entry_pack_meta(const struct kv_entry *entry, msgpack_packer *packer);

static inline void pack_str(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text, strlen(text));
}

/* What another client of NATS has written as a text: a str if it is UTF-8, else a bin. */
void pack_foreign_text(msgpack_packer *packer, const char *text);

#endif
