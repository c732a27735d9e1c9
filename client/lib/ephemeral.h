/*
 * ephemeral: the ephemeral keys of a handle that reconnects, which are written again on the next connection.
 *
 * Used by kv.c, which writes them, and by kvstore.c, which reports notifications, the passing of time and the end of
 * the connection. Without the option reconnect nothing is remembered: the keys end with the session.
 *
 * A key is written again by kv.create: what somebody else has written meanwhile is not overwritten. The daemon may
 * still have to delete the key of the former session: an attempt that finds it is repeated.
 */
#ifndef CLIENT_EPHEMERAL_H
#define CLIENT_EPHEMERAL_H

#include "client/lib/handle.h"
#include "proto/rpc.h"

struct ephemeral;

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

/* The program writes or deletes the key if it is at this revision; 0: at any. It no longer lives with the handle. */
void ephemeral_forget(struct kvs *kvs, const char *bucket, const char *key, uint64_t revision);

/* Write what is due. The connection is open. */
void ephemeral_run(struct kvs *kvs);

/* The connection was lost. */
void ephemeral_lose_all(struct kvs *kvs);

/* Receive a notification. False if it is not about an ephemeral key of this handle. */
bool ephemeral_receive(struct kvs *kvs, const struct rpc_message *message);

/* Free all of them. */
void ephemeral_free_all(struct kvs *kvs);

#endif
