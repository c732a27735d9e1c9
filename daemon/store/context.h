/*
 * context: what all rooms of the store share.
 *
 * The facade (store) creates it. The other rooms of the store get a pointer to it, and so do their callers
 * above. It has the loop and the way to NATS. A module that has a state for the whole daemon allocates it,
 * keeps a pointer to it here, and alone reads and changes it.
 */
#ifndef DAEMON_STORE_CONTEXT_H
#define DAEMON_STORE_CONTEXT_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/base/timers.h"
#include "daemon/nats/connection.h"
#include "daemon/nats/jetstream.h"
#include "daemon/nats/request.h"
#include "daemon/store/room.h"

#include <stdint.h>
#include <uv.h>

struct store {
    uv_loop_t *loop;
    const struct conf *conf;
    struct jobs *jobs;
    struct timers *timers;
    struct connection *connection;
    struct requests requests;
    struct jetstream jetstream;
    char name[72];    /* by which NATS knows this daemon: nats.name, or its default */
    struct room room; /* of the embedded server */
    /* The connection is up, or lost. For the owner of an embedded server; NULL: there is none. */
    void (*on_connection)(void *arg, bool is_up);
    void *on_connection_arg;

    struct observer *observers; /* a list: see observe */
    struct journal *journal;    /* NULL: writes with an id are not remembered after the end of the daemon */
    uint64_t write_ids;         /* that were made */

    /* The states of the modules. */
    struct bucket_table *buckets;
    struct admin_state *admin;
    struct scan_state *scan;
    struct group_commits *group_commits;
    struct bulk_writes *bulk_writes;
    struct counters *counters;
    struct delete_state *deletions;
    struct follow_state *follow;
    struct compact_state *compact;
    struct leases *leases;
};

#endif
