/*
 * blocking: calls that wait for their answer.
 *
 * Used by the blocking functions of kvstore.h. While they wait, the handle's asynchronous calls and watches make
 * progress.
 */
#ifndef CLIENT_BLOCKING_H
#define CLIENT_BLOCKING_H

#include "client/lib/call.h"
#include "client/lib/reply.h"

/* KVS_OK, or KVS_INVALID_ARGUMENT with the reason in kvs->error inside a callback, where nothing may block. */
enum kvs_code blocking_check(struct kvs *kvs);

/* Send what call_begin began, wait for the answer and read it into *out (reader may be NULL). */
enum kvs_code blocking_run(struct kvs *kvs, reply_reader *reader, void *out);

/* The same with a request that is complete; timeout_s is the timeout in the request, 0: none. */
enum kvs_code blocking_run_request(struct kvs *kvs, const struct kvs_request *request, double timeout_s,
                                   reply_reader *reader, void *out);

/*
 * Open a lost connection, with pauses between attempts, until give_up_ms. The handle makes progress meanwhile: calls
 * and locks end in time. As connection_ensure.
 */
enum kvs_code blocking_connect(struct kvs *kvs, int64_t give_up_ms);

/* Wait for pause_ms, while the handle makes progress. */
void blocking_pause(struct kvs *kvs, uint32_t pause_ms);

#endif
