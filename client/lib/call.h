/*
 * call: calls in flight, from a built request to the function that gets the answer.
 *
 * Used by the methods' files, which build and submit requests, by blocking, and by kvstore.c, which reports answers,
 * the passing of time and the end of the connection. The function of a call that was accepted is called exactly once.
 */
#ifndef CLIENT_CALL_H
#define CLIENT_CALL_H

#include "client/lib/handle.h"
#include "proto/rpc.h"

#define CALL_GRACE_MS 1000 /* the daemon keeps the deadline; its answer needs some time for the way back */

/* Begin the handle's scratch request (inside a callback: another one); see request_begin. */
struct kvs_request *call_begin(struct kvs *kvs, const char *method, unsigned positions);

/* The same for a method whose first argument is a bucket, or whose first two are a bucket and a key: these are added.
 */
struct kvs_request *call_begin_of_bucket(struct kvs *kvs, const char *method, unsigned positions, const char *bucket);
struct kvs_request *call_begin_of_key(struct kvs *kvs, const char *method, unsigned positions, const char *bucket,
                                      const char *key);

/* Return the request that call_begin began. */
struct kvs_request *call_scratch(struct kvs *kvs);

/* Add an id to a request that can be repeated with it, if the handle reconnects. Before request_end. */
void call_add_id(struct kvs *kvs, struct kvs_request *request);

/* Send the calls that were held when the connection was lost, unless they are overdue. The connection is open. */
void call_send_held(struct kvs *kvs);

/* Submit what call_begin began. As the functions kvs_async_; a refused call leaves receiver's extra to the caller. */
enum kvs_code call_submit(struct kvs *kvs, struct call_receiver receiver);

/* Submit a request that is complete, to be answered until deadline_ms. */
enum kvs_code call_submit_request(struct kvs *kvs, const struct kvs_request *request, int64_t deadline_ms,
                                  const struct call_receiver *receiver);

/* Return how long to wait for an answer. timeout_s is the timeout in the request, 0: none. */
int64_t call_wait_ms(double timeout_s);

/* Deliver an answer that has arrived. NULL, or what is wrong with it, to continue "its message ". */
const char *call_answer(struct kvs *kvs, const struct rpc_message *message);

/* End the calls whose deadline has passed. */
void call_expire(struct kvs *kvs, int64_t now_ms);

/*
 * The connection was lost; its sent_bytes tells which requests had left. Hold the calls that can be sent again, and end
 * the others.
 */
void call_end_all(struct kvs *kvs, const struct kvs_error *reason);

#endif
