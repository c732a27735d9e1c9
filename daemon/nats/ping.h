/*
 * ping: the round-trip check of a connection.
 *
 * Used by connection, which publishes a message to itself now and then. Its way is that of any reply, through the
 * subscription of the inbox. A server sends what it has for a connection in one order: what is read after the reply was
 * sent after the ping had come to the server.
 */
#ifndef DAEMON_NATS_PING_H
#define DAEMON_NATS_PING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* When a ping was sent: its payload. */
struct ping_times {
    uint64_t hr_ns;   /* uv_hrtime */
    uint64_t boot_ms; /* clock_boot_ms */
};

struct ping {
    char subject[72];
    struct ping_times oldest;  /* ping without a reply; hr_ns 0: there is none */
    unsigned missed;           /* intervals that have ended without a reply, in a row */
    uint64_t last_sent_ns;     /* uv_hrtime */
    uint64_t answered_sent_ms; /* clock_boot_ms when the last ping that has a reply was sent, or of the connection */
};

/* A new connection: no ping is in flight. */
void ping_reset(struct ping *ping);

/* An interval is over: return whether there was no reply for two of them, about. */
bool ping_is_missed(struct ping *ping, uint64_t interval_ms);

/* Return whether no ping is in flight, and the last one was not just sent. */
bool ping_may_begin(const struct ping *ping);

struct ping_times ping_times_now(void);

/* A ping was sent now. */
void ping_begin(struct ping *ping);

/*
 * A reply came. Set *rtt_us to the time of the round trip in microseconds, and *min_us to the shortest so far; 0: there
 * was none. payload NULL: the reply is an error, and answers the oldest ping.
 */
void ping_end(struct ping *ping, const void *payload, size_t bytes, uint64_t *rtt_us, uint64_t *min_us);

bool ping_is_subject(const struct ping *ping, const char *subject);

#endif
