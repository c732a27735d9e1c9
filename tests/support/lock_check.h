/*
 * lock_check: checks what the holders of locks have noted.
 *
 * A holding is the time for which a client was sure to hold a lock. It begins when the client has the answer of
 * lock.acquire. It ends with the first of: the client has sent lock.release or has closed its session, it has received
 * lock.lost, the daemon was killed, and the time is over for which the daemon has vouched. Each client notes less than
 * the truth, so that two holdings that overlap prove that two clients were sure at one moment.
 */
#ifndef SUPPORT_LOCK_CHECK_H
#define SUPPORT_LOCK_CHECK_H

#include <stddef.h>
#include <stdint.h>

struct lock_held {
    unsigned lock;
    unsigned client;
    uint64_t token;
    uint64_t begin_ns, end_ns; /* not longer than 0: the client was never sure */
};

/* A transaction with the lock's token among its checks that was committed. */
struct lock_fenced {
    unsigned lock;
    unsigned client;
    uint64_t token;
    uint64_t revision; /* of what it has written */
};

/*
 * Return what is wrong, as a text that is valid until the next call, or NULL. Two holdings of a lock overlap; a later
 * one has no higher token; two have the same one; or something was written with a token after the lock had a new one.
 * Both arrays are sorted.
 */
const char *lock_check(struct lock_held *held, size_t held_count, struct lock_fenced *fenced, size_t fenced_count);

#endif
