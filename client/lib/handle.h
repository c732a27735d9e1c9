/*
 * handle: a program's handle, struct kvs: the state of the connection, the calls, the watches and the locks.
 *
 * It is only data: each part belongs to the module named beside it. The modules from the lowest to the highest are
 * connection, loop, call, blocking, the methods' files, watch and lock; each uses only lower ones. kvstore.c is above
 * all of them: it makes handles, and passes what the connection reports to the calls and watches.
 */
#ifndef CLIENT_HANDLE_H
#define CLIENT_HANDLE_H

#include "client/lib/call_table.h"
#include "client/lib/connection.h"
#include "client/lib/request.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

struct kvs {
    struct kvs_options options; /* defaults filled in */
    struct kvs_error error;     /* of the last function that failed */
    bool in_callback;           /* a function of the program, or one that acts for it, is being called */

    struct connection connection;
    msgpack_zone *zone; /* memory of the message that is being handled */

    struct call_table calls;    /* call.c */
    uint64_t call_count;        /* that were submitted */
    uint64_t identity;          /* random: the ids of its calls begin with it */
    uint64_t id_count;          /* that were made */
    struct kvs_request scratch; /* the request that is being built */
    struct kvs_request inner;   /* the same inside a callback: a blocking call may still need scratch */

    struct kvs_watch *watches; /* watch.c; the newest first */
    int64_t watch_due_ms;      /* when the first watch that waits is to be started or stopped; INT64_MAX: none */
    struct kvs_watch *awaited; /* the watch that kvs_watch or kvs_watch_next waits for, or NULL */

    struct kvs_lock *locks;  /* lock.c; the newest first */
    unsigned locks_released; /* of them, by the program */
    int64_t lock_due_ms;     /* clock_boot_ms when the first of them has something to send; INT64_MAX: none */
    int64_t lock_ends_ms;    /* the same, when the time of the first of them is over */

    /* ephemeral.c */
    struct ephemeral *ephemerals;           /* that are written */
    struct ephemeral *ephemerals_away;      /* that are to be written again, in this order */
    struct ephemeral **ephemerals_away_end; /* the end of that list */
    void *ephemeral_tree;                   /* their keys, see tsearch(3) */
    uint64_t ephemeral_count;               /* calls that have written or ended them */
    unsigned ephemerals_writing;            /* in flight */
    size_t ephemeral_bytes;
    int64_t ephemeral_due_ms; /* when the first is to be written; INT64_MAX: none */
};

#endif
