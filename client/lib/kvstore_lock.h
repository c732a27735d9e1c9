/*
 * kvstore_lock: locks, for leader election and for work that must be done by one process at a time.
 *
 * A lock is a key of a bucket. At most one session holds it at a time, over all hosts of a NATS cluster. The daemon
 * vouches for a lock for a time that it renews, and the library counts that time by itself, also while the machine is
 * suspended. A holder that could not run for longer than that has lost the lock, and learns it only when it asks:
 *
 *     struct kvs_lock_options options = KVS_LOCK_OPTIONS(.wait_s = -1);
 *     struct kvs_lock *lock;
 *     if (kvs_lock_acquire(kvs, "jobs", "nightly", &options, &lock) == KVS_OK) {
 *         while (kvs_lock_valid_for(lock) > 2 && do_a_piece_that_takes_a_second())
 *             ;
 *         kvs_lock_release(lock);
 *     }
 *
 * Only the token protects data: it grows with each holder. Put it into each transaction that needs the lock, with
 * kvs_txn_check(txn, "nightly", kvs_lock_token(lock)): the commit of a former holder fails with KVS_CONFLICT.
 */
#ifndef KVSTORE_LOCK_H
#define KVSTORE_LOCK_H

#include "kvstore.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kvs_lock;

struct kvs_lock_options {
    size_t size;
    double wait_s;     /* wait so long until the lock is free. 0: do not wait; negative: no limit */
    const void *value; /* of the lock's key, up to KVS_LOCK_VALUE_MAX bytes: who holds it. NULL: the daemon writes host,
                        * pid and program as JSON */
    size_t value_size;

    /*
     * The lock survives a lost connection and a restart of the daemon. The daemon keeps it for its owner for up to
     * locks.lease_ttl (10 seconds unless configured otherwise). The library acquires it again by itself, and the token
     * stays. Needs the option reconnect of the handle. A process that dies without a release keeps the lock for that
     * time, too.
     */
    bool keep;

    /*
     * An id that nobody else uses: 8 to 36 letters, digits, - and _. As keep, but also for another process: whoever
     * acquires the lock with it as the same user within that time gets the same token. NULL: with keep a random one.
     */
    const char *owner;

    double timeout_s; /* of each call, beside wait_s */
};
#define KVS_LOCK_OPTIONS(...) KVS_SIZED_(kvs_lock_options, __VA_ARGS__)

/*
 * Acquire a lock. KVS_LOCKED if another client holds it and wait_s is over: then kvs_error.value is what the holder
 * says of itself. KVS_CONFLICT if this handle holds it. With reconnect, KVS_IO and KVS_UNAVAILABLE are tried again
 * until wait_s and the timeout are over. *lock is NULL on failure. End it with kvs_lock_release.
 */
enum kvs_code kvs_lock_acquire(struct kvs *kvs, const char *bucket, const char *name,
                               const struct kvs_lock_options *options, struct kvs_lock **lock);

/* Return the lock's token, which is the revision of its key. 0: it was not acquired yet. */
uint64_t kvs_lock_token(const struct kvs_lock *lock);

/*
 * Return for how many seconds the lock is still vouched for. 0: treat it as lost; that is final, and kvs_lock_error has
 * the reason. If less than half of the time is left, the function asks the daemon first, but waits only for a part of
 * what is left. It does not wait for a lock of kvs_async_lock_acquire, nor inside a callback.
 */
double kvs_lock_valid_for(struct kvs_lock *lock);

/*
 * Ask the daemon now whether the lock is held. KVS_OK, or why the lock is lost; or KVS_DEADLINE_EXCEEDED if there was
 * no answer in time, which says nothing about the lock.
 */
enum kvs_code kvs_lock_check(struct kvs_lock *lock);

/* Return why the lock could not be acquired, or was lost; the code is KVS_OK if it was not. Lives as long as the lock.
 */
const struct kvs_error *kvs_lock_error(const struct kvs_lock *lock);

/*
 * Release a lock and free it. Waits until the key is deleted. KVS_OK, or why the lock was lost before: then others may
 * have held it meanwhile. After any other failure it is free at the latest when the daemon's lease ends. Of a lock that
 * was acquired with kvs_async_lock_acquire this does not wait, and may be called in its callback. NULL is allowed.
 */
enum kvs_code kvs_lock_release(struct kvs_lock *lock);

/* --- Without waiting: see kvstore_async.h ----------------------------------------------------- */

/*
 * error NULL: the lock was acquired. Otherwise it could not be acquired, or it was lost, for this reason: nothing more
 * will be called. Called from inside kvs_process, a blocking call or kvs_close.
 */
typedef void kvs_lock_fn(struct kvs *kvs, struct kvs_lock *lock, const struct kvs_error *error, void *context);

/*
 * Begin to acquire a lock. KVS_OK: on_change will be called. Any other code: it was refused, as other asynchronous
 * calls are. The library asks the daemon by itself in time while the program's loop runs (kvs_timeout_ms). End the lock
 * with kvs_lock_release, in any state; lock may be NULL, because on_change gets it too.
 */
enum kvs_code kvs_async_lock_acquire(struct kvs *kvs, const char *bucket, const char *name,
                                     const struct kvs_lock_options *options, kvs_lock_fn *on_change, void *context,
                                     struct kvs_lock **lock);

/* The end of a check or a release: error NULL, or why it failed. */
typedef void kvs_lock_done_fn(struct kvs *kvs, const struct kvs_error *error, void *context);

/* Ask the daemon now; as kvs_lock_check. If the lock is lost, its on_change is called first. */
enum kvs_code kvs_async_lock_check(struct kvs_lock *lock, kvs_lock_done_fn *done, void *context);

/* Release the lock and call done (unless it is NULL) when its key is deleted. The lock must not be used afterwards. */
void kvs_async_lock_release(struct kvs_lock *lock, kvs_lock_done_fn *done, void *context);

#ifdef __cplusplus
}
#endif

#endif
