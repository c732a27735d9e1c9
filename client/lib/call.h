/*
 * call: the calls in flight, from a built request to the function that gets the answer.
 *
 * Used by the methods' files, which submit or run a request, and by connection,
 * which reports answers, the passing of time and the end of the connection.
 * Promises that the function of a call that was accepted is called exactly once.
 */
#ifndef CLIENT_CALL_H
#define CLIENT_CALL_H

#include "client/lib/connection.h"
#include "client/lib/kvstore.h"
#include "proto/rpc.h"

/* Turns a result into what a blocking function hands out. KVS_PROTOCOL where it is not what the method answers. */
typedef enum kvs_code call_reader(const struct kvs_value *result, void *out);

/* The timeout among the options of a call, of whatever type; a caller without options has the default. */
#define CALL_TIMEOUT(options) ((options) != NULL ? (options)->timeout_s : 0)

/* Begins the handle's scratch request (from inside a function another one): see request_begin. */
struct kvs_request *call_begin(struct kvs *kvs, const char *method, unsigned positions);

/* Submits what call_begin began; timeout_s is the caller's option. As the functions kvs_async_. */
enum kvs_code call_submit(struct kvs *kvs, double timeout_s, kvs_done_fn *done, void *context);

/* Sends what call_begin began, waits for the answer and has it read into *out (reader may be NULL). */
enum kvs_code call_run(struct kvs *kvs, double timeout_s, call_reader *reader, void *out);

/* KVS_OK, or KVS_INVALID_ARGUMENT with the reason in kvs->error: here nothing may block. */
enum kvs_code call_check_blocking(struct kvs *kvs);

/* How long an answer is waited for. timeout_s is what the daemon was told, 0: nothing. */
int64_t call_wait_ms(double timeout_s);

/* Opens a lost connection, with pauses, until give_up_ms. As connection_ensure. */
enum kvs_code call_wait_for_connection(struct kvs *kvs, int64_t give_up_ms);

/* Lets pause_ms pass, while the asynchronous calls make progress. */
void call_pause(struct kvs *kvs, uint32_t pause_ms);

/* An answer has arrived. NULL, or what is wrong with it, to follow on "its message ". */
const char *call_answer(struct kvs *kvs, const struct rpc_message *message);

/* Ends the calls whose deadline has passed. */
void call_expire(struct kvs *kvs, int64_t now_ms);

/* Ends all calls for the reason that the connection was lost. sent_bytes: how far the old connection came. */
void call_end_all(struct kvs *kvs, const struct kvs_error *reason);

#endif
