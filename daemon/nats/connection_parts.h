/*
 * connection_parts: what connection.c and connection_state.c share.
 *
 * Used by these two only.
 */
#ifndef DAEMON_NATS_CONNECTION_PARTS_H
#define DAEMON_NATS_CONNECTION_PARTS_H

#include "daemon/base/log.h"
#include "daemon/nats/connection.h"
#include "daemon/nats/dialer.h"
#include "daemon/nats/former.h"
#include "daemon/nats/ping.h"
#include "daemon/nats/wire.h"

enum connection_state {
    CONNECTION_STOPPED,     /* not wanted */
    CONNECTION_CONNECTING,  /* the dialer makes an attempt */
    CONNECTION_RETARGETING, /* the same, but to a former target: it was cancelled, and the next one follows */
    CONNECTION_UP,
    CONNECTION_BACKING_OFF, /* after a failure or a loss; the timer runs */
    CONNECTION_STOPPING,    /* connection_stop was called during an attempt, which was cancelled */
    CONNECTION_ABANDONED    /* and the attempt did not end in time */
};

struct connection {
    uv_loop_t *loop;
    struct jobs *jobs;
    struct job reading; /* of the wire, if a slice was too short for what came */
    const struct conf *conf;
    struct connection_events events;
    struct connection_target target;
    enum connection_state state;
    bool is_held; /* see connection_hold */
    struct connection_status status;
    char inbox[64];
    char unique_id[32];

    struct dialer dialer;
    unsigned failures; /* attempts to connect since the last connection */
    bool has_warned;   /* that credentials are not encrypted */

    /* Of the present connection, or of the last one. */
    struct wire wire;
    uv_poll_t *poll;
    int poll_events;
    uint64_t number; /* counts from 1 */
    char server_id[LIBNATS_SERVER_ID_BYTES];
    size_t unwritten_bytes; /* published since the last write, about */
    bool is_inbox_denied;   /* the server denies the subscription of the inbox */
    struct log_limit error_log;

    struct former former; /* connections before it that the server has not closed yet */

    struct ping ping;
    uv_timer_t timer; /* of the ping while up, of the backoff */
    unsigned open_handles;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/* Warn once in the daemon's life, when a server gets credentials over a network without TLS. */
void connection_warn_unencrypted(struct connection *connection, const struct libnats_connection *opened);

#endif
