/*
 * bulk_keys: the keys of bulk calls.
 *
 * Used by bulk.get, bulk.put and bulk.delete. Unless it says otherwise, a function that returns false has answered the
 * call.
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

/*
 * Begin a pair of the answer, which is a map: pack its key. The caller packs what follows, and charges the call for
 * both. False: the answer is too large already and will be refused, so the pair was packed as small as can be.
 */
bool bulk_begin_pair(struct call *call, msgpack_packer *packer, const msgpack_sbuffer *answer, const char *key);

#endif
