/*
 * kvstore_async: the calls and watches of kvstore.h without waiting, and the functions that connect a handle to the
 * program's event loop.
 *
 * Blocking and asynchronous calls may be mixed on one handle. For libuv there is an adapter: kvstore_libuv.h. Any other
 * loop needs a few lines: see "The loop".
 */
#ifndef KVSTORE_ASYNC_H
#define KVSTORE_ASYNC_H

#include "kvstore.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- Callbacks ----------------------------------------------------------------------------- */
/*
 * A callback is called once for each call that was accepted, from inside kvs_process, a blocking call, kvs_watch_stop
 * or kvs_close. Success: error is NULL. Failure: error has the reason, and the result is NULL or 0. Error and result
 * live until the callback returns. A callback may submit further calls, but must not block or close the handle. Answers
 * arrive in any order.
 */

/* The new revision of a key. */
typedef void kvs_revision_fn(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context);

/* The new value of a number, and its revision. */
typedef void kvs_increment_fn(struct kvs *kvs, const struct kvs_error *error, int64_t value, uint64_t revision,
                              void *context);

/* An entry; NULL if the key does not exist. */
typedef void kvs_entry_fn(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entry, void *context);

/* JSON text; NULL if the key does not exist or its value is null. */
typedef void kvs_json_fn(struct kvs *kvs, const struct kvs_error *error, const char *json, void *context);

/* The entries of a key's history, oldest first; or those of a page, in key order. */
typedef void kvs_entries_fn(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entries,
                            size_t count, void *context);

/* The names of keys or buckets. */
typedef void kvs_names_fn(struct kvs *kvs, const struct kvs_error *error, const char *const *names, size_t count,
                          void *context);

/* An entry for each key of the call, in order; NULL for a key that does not exist. */
typedef void kvs_bulk_get_fn(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *const *entries,
                             size_t count, void *context);

/* A result for each key of the call, in order, and how many keys failed. */
typedef void kvs_bulk_write_fn(struct kvs *kvs, const struct kvs_error *error, const struct kvs_bulk_result *results,
                               size_t count, size_t failed_count, void *context);

/* A revision for each operation of a transaction, in order. */
typedef void kvs_commit_fn(struct kvs *kvs, const struct kvs_error *error, const uint64_t *revisions, size_t count,
                           void *context);

/* How many keys or markers were removed. */
typedef void kvs_count_fn(struct kvs *kvs, const struct kvs_error *error, uint64_t count, void *context);

/* --- Calls --------------------------------------------------------------------------------- */
/*
 * As the blocking functions of the same name. KVS_OK: the request waits to be sent, and done will be called. Any other
 * code: the call was refused (a wrong argument; KVS_IO; KVS_RESOURCE_EXHAUSTED if max_in_flight or max_queued_bytes is
 * reached), and done will not be called. done may be NULL if the result does not matter.
 */
enum kvs_code kvs_async_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                            kvs_entry_fn *done, void *context);
enum kvs_code kvs_async_get_json(struct kvs *kvs, const char *bucket, const char *key,
                                 const struct kvs_get_options *options, kvs_json_fn *done, void *context);
enum kvs_code kvs_async_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                            const struct kvs_put_options *options, kvs_revision_fn *done, void *context);
enum kvs_code kvs_async_create(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, const struct kvs_put_options *options, kvs_revision_fn *done,
                               void *context);
enum kvs_code kvs_async_update(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, uint64_t expected, const struct kvs_put_options *options,
                               kvs_revision_fn *done, void *context);
enum kvs_code kvs_async_touch(struct kvs *kvs, const char *bucket, const char *key, int64_t ttl_s,
                              const struct kvs_touch_options *options, kvs_revision_fn *done, void *context);
enum kvs_code kvs_async_increment(struct kvs *kvs, const char *bucket, const char *key, int64_t delta,
                                  const struct kvs_increment_options *options, kvs_increment_fn *done, void *context);
enum kvs_code kvs_async_delete(struct kvs *kvs, const char *bucket, const char *key,
                               const struct kvs_delete_options *options, kvs_revision_fn *done, void *context);
enum kvs_code kvs_async_purge(struct kvs *kvs, const char *bucket, const char *key,
                              const struct kvs_delete_options *options, kvs_revision_fn *done, void *context);
enum kvs_code kvs_async_history(struct kvs *kvs, const char *bucket, const char *key,
                                const struct kvs_call_options *options, kvs_entries_fn *done, void *context);
enum kvs_code kvs_async_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options,
                             kvs_names_fn *done, void *context);
enum kvs_code kvs_async_entries(struct kvs *kvs, const char *bucket, const struct kvs_entries_options *options,
                                kvs_entries_fn *done, void *context);
enum kvs_code kvs_async_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                 const struct kvs_bulk_get_options *options, kvs_bulk_get_fn *done, void *context);
enum kvs_code kvs_async_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                                 const struct kvs_bulk_put_options *options, kvs_bulk_write_fn *done, void *context);
enum kvs_code kvs_async_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                    const struct kvs_call_options *options, kvs_bulk_write_fn *done, void *context);

enum kvs_code kvs_async_delete_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                        const struct kvs_call_options *options, kvs_count_fn *done, void *context);

/*
 * The transaction may be freed as soon as the function returns, and must not be committed again. One without operations
 * is KVS_INVALID_ARGUMENT, because there would be no answer to wait for. In non-blocking programs, read with
 * kvs_async_get and pass the revisions to kvs_txn_check.
 */
enum kvs_code kvs_async_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, kvs_commit_fn *done,
                                   void *context);

/*
 * Cancel the calls in flight that were submitted with a callback and this context: the program no longer needs their
 * results. Each callback is called as for any call, later. The error is KVS_DEADLINE_EXCEEDED if the call was
 * cancelled. A call that is done already, or a write that was sent to NATS, goes on (protocol.md, "Cancelling calls").
 * The calls are not sent again after a lost connection. Locks and watches are ended with functions of their own.
 */
void kvs_cancel(struct kvs *kvs, const void *context);

/* --- Watches ------------------------------------------------------------------------------- */

/* Receives an event of a watch, from inside kvs_process, a blocking call or kvs_close. It lives until this returns. */
typedef void kvs_event_fn(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context);

/*
 * Start a watch whose events go to a callback. KVS_OK: the request waits to be sent, and on_event will be called, also
 * with the reason if the daemon refuses the watch (KVS_EVENT_ENDED). Any other code: it was refused, as other
 * asynchronous calls are. watch may be NULL, because on_event gets it too. The option max_queued_bytes is ignored:
 * nothing is queued. End the watch with kvs_watch_stop.
 */
enum kvs_code kvs_async_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context, struct kvs_watch **watch);

/* --- The loop ------------------------------------------------------------------------------ */
/*
 * Before the program's loop waits: wait for kvs_events on kvs_fd, for at most kvs_timeout_ms. After it has waited: call
 * kvs_process. Requests are sent only inside kvs_process and blocking calls, so that the requests of one turn leave in
 * one system call. Submitting a call changes what to wait for: ask again before each wait.
 */

/* Return the socket, or -1 (which poll ignores) if the connection is lost. The library closes the socket itself. */
int kvs_fd(const struct kvs *kvs);

/* Return how often the handle has connected. If it changes, kvs_fd is a new socket, even if the number is the same. */
uint64_t kvs_connection_count(const struct kvs *kvs);

/* Return POLLIN, and POLLOUT while requests wait to be sent; 0 if the connection is lost. */
short kvs_events(const struct kvs *kvs);

/* Return the milliseconds after which kvs_process is due, whatever happens on the socket; -1: never. */
int kvs_timeout_ms(const struct kvs *kvs);

/*
 * Send and receive what is possible without waiting, and call the callbacks of calls that were answered or timed out,
 * and of watches. KVS_OK, also if single calls failed. KVS_IO or KVS_PROTOCOL if the connection was lost, before or
 * now. Then the calls in flight have ended, except calls that the library will send again (option reconnect). If there
 * are such calls, or watches that resume, a later kvs_process reconnects: call it after kvs_timeout_ms.
 */
enum kvs_code kvs_process(struct kvs *kvs);

/* Return how many calls wait for their answer. */
size_t kvs_in_flight(const struct kvs *kvs);

#ifdef __cplusplus
}
#endif

#endif
