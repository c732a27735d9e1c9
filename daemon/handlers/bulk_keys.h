/*
 * bulk_keys: the keys of bulk calls.
 *
 * Used by bulk.get, bulk.put and bulk.delete. A function that returns false has answered the call.
 */
#ifndef DAEMON_HANDLERS_BULK_KEYS_H
#define DAEMON_HANDLERS_BULK_KEYS_H

#include "daemon/rpc/call.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

bool bulk_check_count(struct call *call, uint32_t count);

/* Answer the call: a key, counted from 0, is not text. Return false. */
bool bulk_refuse_type(struct call *call, uint32_t index, const msgpack_object *key);

#endif
