/*
 * lock: the locks of a handle, from the call that acquires one to its release.
 *
 * Used by kvstore.c, which reports notifications, the passing of time and the end of the connection. lock.c has the
 * states of a lock, lock_call.c its calls, and lock_blocking.c the functions of kvstore_lock.h.
 *
 * A lock has two sides. The state says what the daemon is asked for, the standing what the program knows. A lock with
 * an owner whose connection is lost is acquired again (LOCK_IDLE, LOCK_ACQUIRING), while the program still holds it
 * (LOCK_STANDS) until the time is over for which it is vouched for. A lock that the program no longer has (LOCK_OVER)
 * is released as soon as an answer says that this session holds it.
 */
#ifndef CLIENT_LOCK_H
#define CLIENT_LOCK_H

#include "client/lib/handle.h"
#include "client/lib/kvstore_lock.h"
#include "proto/rpc.h"

enum lock_state {
    LOCK_IDLE,       /* will be acquired (again) at due_ms */
    LOCK_ACQUIRING,  /* lock.acquire is in flight */
    LOCK_CONFIRMING, /* it waited for so long that lock.check must say first how long it is vouched for */
    LOCK_HELD,       /* by this session; lock.check may be in flight */
    LOCK_UNWANTED,   /* held by this session, and to be released at due_ms */
    LOCK_RELEASING,  /* lock.release is in flight */
    LOCK_GONE
};

enum lock_standing {
    LOCK_ASKED_FOR, /* until wait_ends_ms and a timeout later */
    LOCK_STANDS,    /* until valid_until_ms */
    LOCK_OVER       /* released by the program, lost, or not acquired: see error */
};

struct kvs_lock {
    struct kvs *kvs;
    struct kvs_lock *next;
    enum lock_state state;
    enum lock_standing standing;
    unsigned calls;     /* in flight: their answers need the lock */
    unsigned checks;    /* of them */
    bool is_released;   /* the program no longer has it: it is freed when it is gone and no call is in flight */
    bool is_awaited;    /* a blocking function waits for it */
    bool must_announce; /* on_change is still to be called with the end */

    /* All of clock_boot_ms. */
    int64_t wait_ends_ms;
    int64_t gives_up_ms;
    int64_t acquire_sent_ms; /* before the last lock.acquire was sent */
    int64_t valid_until_ms;
    int64_t due_ms;

    int64_t longest_ms; /* that the daemon has vouched for; when half of it is left, it is asked again */
    unsigned pause_ms;  /* after the last attempt; 0: it succeeded */
    uint64_t token;
    struct kvs_error error;
    kvs_lock_fn *on_change; /* NULL: of kvs_lock_acquire */
    void *context;
    kvs_lock_done_fn *released; /* of kvs_async_lock_release, until it was called */
    void *released_context;

    struct kvs_lock_options options; /* the timeout filled in */
    const char *bucket, *name;
    char owner[37]; /* empty: none */
};

/* Make a lock that is to be acquired. NULL, with the reason in kvs->error. */
struct kvs_lock *lock_make(struct kvs *kvs, const char *bucket, const char *name,
                           const struct kvs_lock_options *options);
void lock_free(struct kvs_lock *lock);

/* Add it to the handle's. */
void lock_link(struct kvs_lock *lock);

/* The program gives the lock up. */
void lock_give_up(struct kvs_lock *lock);

/* Return for how long the program may regard the lock as held. */
int64_t lock_left_ms(const struct kvs_lock *lock);

/* Free the locks that are released and gone. Not inside a callback. */
void lock_free_gone(struct kvs *kvs);

/* --- What kvstore.c reports ------------------------------------------------------------------------- */

/* Send what is due. The connection is open. */
void lock_run(struct kvs *kvs);

/* End the locks whose time is over. */
void lock_expire(struct kvs *kvs);

/* Return whether a lost connection is needed now. */
bool lock_needs_connection(const struct kvs *kvs);

/*
 * The connection was lost: first call lock_lose_all, and after the calls in flight have ended lock_announce_ends, which
 * calls the callbacks.
 */
void lock_lose_all(struct kvs *kvs, const struct kvs_error *reason);
void lock_announce_ends(struct kvs *kvs);

/* Free all locks without calling a callback. */
void lock_free_all(struct kvs *kvs);

/*
 * Receive a notification. False if it is not about a lock of this handle. Otherwise *wrong is NULL, or what is wrong
 * with it, to continue "its message ".
 */
bool lock_receive(struct kvs *kvs, const struct rpc_message *message, const char **wrong);

/* --- For lock_call.c: what the answers say ------------------------------------------------------------ */

void lock_on_held(struct kvs_lock *lock, uint64_t token, double valid_for_s);
void lock_on_not_acquired(struct kvs_lock *lock, const struct kvs_error *error);
void lock_on_checked(struct kvs_lock *lock, int64_t sent_ms, double valid_for_s);
void lock_on_check_failed(struct kvs_lock *lock, const struct kvs_error *error);
void lock_on_released(struct kvs_lock *lock, const struct kvs_error *error);

/* --- lock_call.c ------------------------------------------------------------------------------------ */

/* Send lock.acquire, lock.check or lock.release. Not KVS_OK: it was refused. The state is the caller's business. */
enum kvs_code lock_send_acquire(struct kvs_lock *lock);
enum kvs_code lock_send_check(struct kvs_lock *lock, kvs_lock_done_fn *done, void *context); /* done may be NULL */
enum kvs_code lock_send_release(struct kvs_lock *lock);

#endif
