/*
 * ping: the round-trip check of a connection.
 *
 * Used by connection, which publishes a message to itself now and then. Its way is that of any reply, through the
 * subscription of the inbox.
 */
#ifndef DAEMON_NATS_PING_H
#define DAEMON_NATS_PING_H

#include <stdbool.h>
#include <stdint.h>

struct ping {
    char subject[72];
    uint64_t sent_ns; /* 0: none is in flight */
    unsigned missed;  /* intervals without a reply, in a row */
};

/* A new connection: no ping is in flight. */
void ping_reset(struct ping *ping);

/* The interval is over: return whether a ping may be sent. False: there was no reply for two intervals. */
bool ping_begin(struct ping *ping);

/*
 * A reply came. If a ping was in flight, set *rtt_us to the time of the round trip in microseconds, and *min_us to the
 * shortest so far; 0: there was none.
 */
void ping_end(struct ping *ping, uint64_t *rtt_us, uint64_t *min_us);

bool ping_is_subject(const struct ping *ping, const char *subject);

#endif
