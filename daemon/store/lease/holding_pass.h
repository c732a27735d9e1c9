/*
 * holding_pass: goes through all holdings of a bucket, a slice at a time: there can be a hundred thousand.
 *
 * Used by the files of the room. A pass puts holdings in line for a look at their keys, and takes away those of leases
 * that are lost. Holdings that are added meanwhile may be visited or not. What is asked for during a pass is done for
 * the rest of it, and for the others in the next one.
 */
#ifndef DAEMON_STORE_HOLDING_PASS_H
#define DAEMON_STORE_HOLDING_PASS_H

#include "daemon/store/lease/holding.h"

/* Which holdings a pass puts in line. Only holdings that a session or an owner has are meant. */
enum holding_pass_kind {
    HOLDING_PASS_LOSE = 1,     /* none: it only takes away those whose lease is_losing, as each pass does */
    HOLDING_PASS_OUTDATED = 2, /* holdings not looked at since the bucket's last doubt */
    HOLDING_PASS_LOCKS = 4,    /* all locks */
    /*
     * All changes of the bucket were delivered. A holding of which nothing was delivered is looked at: a server that
     * has lost its write may have lost nothing else.
     */
    HOLDING_PASS_UNSEEN = 8
};

void holding_pass_start(struct lease_bucket *in, enum holding_pass_kind kind);

static inline bool holding_pass_is_running(const struct lease_bucket *in)
{
    return in->pass_kinds != 0;
}

/* The holding leaves the table. */
static inline void holding_pass_leave(struct lease_bucket *in, const struct holding *holding)
{
    if (in->next_passed == holding)
        in->next_passed = holding->hh.next;
}

#endif
