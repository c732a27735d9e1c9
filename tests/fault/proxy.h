/*
 * proxy: stands between the daemon and nats-server, and spoils what the test tells it to.
 *
 * It speaks enough of the NATS protocol to find where messages begin and end, and which
 * message answers which publish. One fault is armed at a time, or two; it strikes at the
 * next publish whose subject matches, at its ack, or at what a consumer delivers of such a subject,
 * and everything else passes. A thread of its own does the work; the functions may be called from any thread.
 */
#ifndef FAULT_PROXY_H
#define FAULT_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#define PROXY_SERVERS_MAX 3

enum proxy_fault_kind {
    PROXY_NO_FAULT,
    PROXY_DROP_PUBLISH,        /* it never reaches the server */
    PROXY_DROP_ACK,            /* the server has done it, and the daemon is not told */
    PROXY_CUT_BEFORE_PUBLISH,  /* the connection ends instead */
    PROXY_CUT_AFTER_PUBLISH,   /* the publish is passed on, and the connection ends at once */
    PROXY_CUT_BEFORE_ACK,      /* the server has done it, and the connection ends instead of the ack */
    PROXY_CUT_AFTER_ACK,       /* the ack is passed on, and the connection ends at once */
    PROXY_HOLD_BEFORE_PUBLISH, /* nothing passes in either direction until proxy_release, this publish first */
    PROXY_HOLD_AFTER_PUBLISH,
    PROXY_HOLD_BEFORE_ACK,
    PROXY_DELAY_ACK,     /* the ack alone waits until proxy_deliver */
    PROXY_REPLACE_ACK,   /* the server has done it, and the daemon is told fault.text instead */
    PROXY_NO_RESPONDERS, /* the daemon is told that nobody listens (503), instead of the ack */
    /* Of what consumers bring: */
    PROXY_DROP_DELIVERY,       /* the server counts it as told, and the daemon never sees it */
    PROXY_CUT_BEFORE_DELIVERY, /* the connection ends instead */
    PROXY_DROP_HEARTBEAT       /* a status 100, whatever the subject */
};

struct proxy_fault {
    enum proxy_fault_kind kind;
    const char *subject; /* with * and > as in NATS, of the publish or delivery; borrowed until the next proxy_arm */
    const char *but;     /* not this one, of a publish; or NULL */
    unsigned skip;       /* so many that match pass before */
    unsigned count;      /* how often it strikes; 0: once */
    bool then_hold;      /* after the last strike nothing passes until proxy_release */
    const char *text;    /* of PROXY_REPLACE_ACK: the payload; borrowed like subject */
};

struct proxy;

/* Listens on a port of 127.0.0.1. A connection goes on to the first of the servers' ports that accepts it. */
struct proxy *proxy_start(const unsigned *server_ports, unsigned count);
void proxy_stop(struct proxy *proxy);
unsigned proxy_port(const struct proxy *proxy);

/* Replaces the armed faults by this one. Strikes are counted anew. */
void proxy_arm(struct proxy *proxy, struct proxy_fault fault);

/* Arms another one beside it, in place of the one that was beside it before. */
void proxy_arm_beside(struct proxy *proxy, struct proxy_fault fault);

/* How often the fault of proxy_arm has struck. */
unsigned proxy_strikes(struct proxy *proxy);

/* How many publishes, or deliveries, have come whose subject is that of the fault of proxy_arm, since then. */
unsigned proxy_publishes(struct proxy *proxy);

/* Nothing passes in either direction; and all passes again, what waited first. */
void proxy_hold(struct proxy *proxy);
void proxy_release(struct proxy *proxy);

/* The acks that were delayed go to the daemon, before anything that the server sends from now on. */
void proxy_deliver(struct proxy *proxy);

/* Ends all connections that there are. */
void proxy_cut(struct proxy *proxy);

/* The next connections go to this server first. */
void proxy_prefer(struct proxy *proxy, unsigned index);

/* Where the latest connection goes to; 0: none was made since proxy_cut. */
unsigned proxy_server_port(struct proxy *proxy);

#endif
