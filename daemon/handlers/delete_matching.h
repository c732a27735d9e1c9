/*
 * delete_matching: the option filter of bulk.delete and bucket.purge.
 *
 * Used by bulk and bucket.
 */
#ifndef DAEMON_HANDLERS_DELETE_MATCHING_H
#define DAEMON_HANDLERS_DELETE_MATCHING_H

#include "daemon/nats/kv.h"
#include "daemon/rpc/call.h"

/* Delete the keys that the call's option filter matches. The answer is their number. */
void delete_matching_start(struct call *call, enum kv_operation kind);

#endif
