/*
 * kv_arguments: arguments and options that the methods about keys share.
 *
 * Used by kv, bulk, txn and bucket. A function that returns false has answered the call with invalid_argument, and the
 * call is gone: return at once. What is read lives in the call's arena.
 */
#ifndef DAEMON_HANDLERS_KV_ARGUMENTS_H
#define DAEMON_HANDLERS_KV_ARGUMENTS_H

#include "daemon/nats/message.h"
#include "daemon/rpc/call.h"
#include "daemon/store/journal.h"
#include "daemon/store/read/get.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Answer with an error about the key of the call, its second argument. */
void kv_fail(struct call *call, const struct error *error);

bool kv_argument_key(struct call *call, uint32_t position, const char **key);

/* Read a value: the bytes of a str or bin as they are, or the JSON text of anything else. */
bool kv_argument_value(struct call *call, uint32_t position, const char **value, size_t *bytes);

/*
 * Read a value as kv_argument_value does. Return NULL, or a sentence that says what is wrong with the value: then the
 * call continues.
 */
const char *kv_argument_bytes(struct call *call, const msgpack_object *value, const char **bytes, size_t *count);

bool kv_option_ttl(struct call *call, int64_t *ttl_s); /* standard 0: none */

/* Read the options id and first_sent of a write that may be repeated. */
bool kv_option_id(struct call *call, struct journal_call *journal);

/* Read the option filter, and check it. standard NULL: all keys */
bool kv_option_filter(struct call *call, const char **filter);

bool kv_option_consistency(struct call *call, enum read_consistency *consistency);
bool kv_option_headers(struct call *call, const char *name, const struct message_header **headers, size_t *count);

#endif
