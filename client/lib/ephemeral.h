/*
 * ephemeral: the ephemeral keys of a handle. If it reconnects, they are written again on the next connection.
 *
 * Used by kv.c, which writes and ends them, and by kvstore.c, which reports notifications, the passing of time and the
 * end of the connection. Without the option reconnect the keys end with the session, and are remembered only for
 * on_ephemeral_lost.
 *
 * A key is written again by kv.create: what somebody else has written meanwhile is not overwritten. The daemon may
 * still have to delete the key of the former session: an attempt that finds it is repeated.
 *
 * The program ends a key by a call that deletes or overwrites it. The key is protected until that call has succeeded.
 * Meanwhile it is not written again, and its loss is not reported: the call may be the reason for it.
 */
#ifndef CLIENT_EPHEMERAL_H
#define CLIENT_EPHEMERAL_H

#include "client/lib/handle.h"
#include "proto/rpc.h"

struct ephemeral;
struct ephemeral_key;

/* A call in flight that ends a key. */
struct ephemeral_end {
    struct ephemeral_key *key; /* NULL: it is no ephemeral key of this handle */
    uint64_t number;
    uint64_t revision; /* it ends the key if it is at this revision; 0: at any */
};

/* Return whether the handle remembers ephemeral keys. */
bool ephemeral_is_remembered(const struct kvs *kvs);

/*
 * Remember a write of a key whose request is complete, until its answer. NULL if the limit is reached or memory ran
 * out, with the reason in kvs->error.
 */
struct ephemeral *ephemeral_make(struct kvs *kvs, const char *bucket, const char *key,
                                 const struct kvs_request *request);

/* The write has failed: forget it. */
void ephemeral_drop(struct ephemeral *ephemeral);

/* The write was acknowledged: the key is to live as long as the handle. */
void ephemeral_keep(struct ephemeral *ephemeral, uint64_t revision);

/* The program begins a call that ends a key: before the call is submitted. */
struct ephemeral_end ephemeral_end_begin(struct kvs *kvs, const char *bucket, const char *key, uint64_t revision);

/* The call was refused or has ended. NULL: it has succeeded. A key is also given up if the outcome is unknown. */
void ephemeral_end_finish(const struct ephemeral_end *end, const struct kvs_error *error);

/* Write what is due. The connection is open. */
void ephemeral_run(struct kvs *kvs);

/* The connection was lost. */
void ephemeral_lose_all(struct kvs *kvs);

/* Receive a notification. False if it is not about an ephemeral key of this handle. */
bool ephemeral_receive(struct kvs *kvs, const struct rpc_message *message);

/* Free all of them. */
void ephemeral_free_all(struct kvs *kvs);

#endif
