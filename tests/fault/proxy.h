/*
 * proxy: a proxy between the daemon and nats-server that loses, delays and cuts what a test names.
 *
 * It knows enough of the NATS protocol to find where messages begin and end, and which message answers which publish.
 * One or two faults are armed at a time. A fault strikes at the next publish whose subject matches, at its ack, or at
 * what a consumer delivers of such a subject. Everything else passes. A thread of its own does the work; the functions
 * may be called from any thread.
 */
#ifndef FAULT_PROXY_H
#define FAULT_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#define PROXY_SERVERS_MAX 3

enum proxy_fault_kind {
    PROXY_NO_FAULT,
    PROXY_DROP_PUBLISH,        /* it never reaches the server */
    PROXY_DROP_ACK,            /* the server has stored it, and the daemon gets no answer */
    PROXY_CUT_BEFORE_PUBLISH,  /* the connection ends instead */
    PROXY_CUT_AFTER_PUBLISH,   /* the publish is passed on, and the connection ends at once */
    PROXY_CUT_BEFORE_ACK,      /* the server has stored it, and the connection ends instead of the ack */
    PROXY_CUT_AFTER_ACK,       /* the ack is passed on, and the connection ends at once */
    PROXY_HOLD_BEFORE_PUBLISH, /* nothing passes in either direction until proxy_release, this publish first */
    PROXY_HOLD_AFTER_PUBLISH,
    PROXY_HOLD_BEFORE_ACK,
    PROXY_DELAY_ACK,     /* the ack alone waits until proxy_deliver */
    PROXY_REPLACE_ACK,   /* the server has stored it, and the daemon gets fault.text instead of the ack */
    PROXY_NO_RESPONDERS, /* the daemon gets status 503 (no responders) instead of the ack */
    /* Of deliveries: */
    PROXY_DROP_DELIVERY,       /* the server counts it as delivered, and the daemon never gets it */
    PROXY_CUT_BEFORE_DELIVERY, /* the connection ends instead */
    PROXY_DROP_HEARTBEAT       /* a status 100, whatever the subject */
};

struct proxy_fault {
    enum proxy_fault_kind kind;
    const char *subject; /* with * and > as in NATS, of the publish or delivery; borrowed until the next proxy_arm */
    const char *but;     /* this publish does not match; or NULL */
    const char *reply;   /* of a delivery: its reply subject, which names the consumer; NULL: of any */
    unsigned skip;       /* so many that match pass first */
    unsigned count;      /* how often it strikes; 0: once */
    bool then_hold;      /* after the last strike nothing passes until proxy_release */
    const char *text;    /* of PROXY_REPLACE_ACK: the payload; borrowed like subject */
};

struct proxy;

/* Listen on a port of 127.0.0.1. A connection is passed on to the first of the servers' ports that accepts it. */
struct proxy *proxy_start(const unsigned *server_ports, unsigned count);
void proxy_stop(struct proxy *proxy);
unsigned proxy_port(const struct proxy *proxy);

/* Replace the armed faults by this one, and count strikes from 0. */
void proxy_arm(struct proxy *proxy, struct proxy_fault fault);

/* Arm a second fault. It replaces the second one that was armed before. */
void proxy_arm_beside(struct proxy *proxy, struct proxy_fault fault);

/* Return how often the fault of proxy_arm has struck. */
unsigned proxy_strikes(struct proxy *proxy);

/* Return how many publishes or deliveries have come since proxy_arm whose subject matches its fault. */
unsigned proxy_publishes(struct proxy *proxy);

/* Let nothing pass in either direction; let all pass again, what waited first. */
void proxy_hold(struct proxy *proxy);
void proxy_release(struct proxy *proxy);

/* Send the delayed acks to the daemon, before anything that the server sends from now on. */
void proxy_deliver(struct proxy *proxy);

/* End all connections. */
void proxy_cut(struct proxy *proxy);

/* Try this server first for the next connections. */
void proxy_prefer(struct proxy *proxy, unsigned index);

/* Return the server's port of the latest connection; 0: there was none since proxy_cut. */
unsigned proxy_server_port(struct proxy *proxy);

#endif
