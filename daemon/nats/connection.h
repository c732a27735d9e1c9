/*
 * link: the daemon's one connection to NATS.
 *
 * Used by request, which puts replies to their requests; main starts and stops it.
 * Connecting blocks, so the C library of NATS does it on one of libuv's worker threads; from then on the connection
 * belongs to the loop's thread alone, and nothing blocks (see wire). After a loss the link connects again for ever,
 * with backoff and jitter. There is one way to come up, from the start or after a loss.
 */
#ifndef DAEMON_NATS_LINK_H
#define DAEMON_NATS_LINK_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/nats/denial.h"
#include "daemon/nats/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct connection;

/* What the link tells its one user, always from the loop. */
struct connection_events {
    /* The link is up: publish again. */
    void (*up)(void *arg);
    /* The link is lost: nothing that is in flight will be answered. */
    void (*down)(void *arg);
    /* One more attempt to connect was in vain; the next one follows by itself. */
    void (*unreachable)(void *arg);
    /* A message to the inbox or a consumer's delivery. It is over after the call. */
    void (*message)(void *arg, struct message *message);
    /*
     * The server says that our user lacks a permission: a message to subject was dropped, or what is sent to the inbox
     * will not come. One such event comes for each message, in the order in which they were published.
     */
    void (*denied)(void *arg, enum denial_kind kind, const char *subject);
    void *arg;
};

/* Where to connect to. Strings are borrowed until the next call of connection_start or connection_stop. */
struct connection_target {
    const char *const *urls;
    size_t url_count;
    const char *user; /* NULL: as the configuration says */
    const char *password;
};

struct connection_status {
    bool connected;
    bool was_connected; /* since the start */
    uint64_t lost_ms;   /* loop time of the last loss or, before the first connection, of the start */
    uint64_t rtt_us;    /* of the last round-trip check; 0 before the first */
    unsigned reconnects;
    uint64_t reads; /* how often the connection had something to read */
    size_t max_payload_bytes;
    char url[256];        /* of the server, without credentials; "" while not connected */
    char last_error[256]; /* why the last attempt failed; "" where none did */
    char trouble[256];    /* of the server itself, as connection_set_trouble has it; "" if none is known */
};

/* NULL when memory ran out. jobs and conf are borrowed for the link's life. */
struct connection *connection_new(uv_loop_t *loop, struct jobs *jobs, const struct conf *conf,
                                  const struct connection_events *events);

/* Connects to target, and again whenever the connection is lost. May be called again to change the target. */
void connection_start(struct connection *connection, const struct connection_target *target);

/* Notes what whoever runs the server knows to be wrong with it, for connection_get_status; "" when it is well. */
void connection_set_trouble(struct connection *connection, const char *text);

/* Takes nats.ping_interval from the configuration again, after a reload. */
void connection_set_ping_interval(struct connection *connection);

/*
 * Lets go of the connection and stops connecting; stopped is called from the loop when no
 * thread and no handle of the link is left. Then connection_free.
 */
void connection_stop(struct connection *connection, void (*stopped)(void *arg), void *arg);

/*
 * After stopped was called: whether a thread is still at an attempt to connect, which would have taken too long to wait
 * for. Then nothing of the link may be freed, and the loop would wait for it: the process has to end as it is.
 */
bool connection_is_abandoned(const struct connection *connection);
void connection_free(struct connection *connection);

bool connection_is_up(const struct connection *connection);
const struct connection_status *connection_get_status(const struct connection *connection);

/* The number of the connection, or while there is none of the last one: counts from 1. */
uint64_t connection_number(const struct connection *connection);

/*
 * Whether all connections with the number first or a higher one but the present one are over at the server too: nothing
 * of what was published on them can arrive any more.
 */
bool connection_earlier_are_closed(const struct connection *connection, uint64_t first);

/* The id of the server process that the connection was made to. A restart changes it. "" before the first connection.
 */
const char *connection_server_id(const struct connection *connection);

/* The inbox's subject without its last token: "_INBOX.<unique>.". The link listens on all tokens behind it. */
const char *connection_inbox(const struct connection *connection);

/* What is unique about this daemon's run: 22 characters. */
const char *connection_unique_id(const struct connection *connection);

enum connection_publish_result { LINK_PUBLISHED, LINK_NOT_UP, LINK_CONGESTED, LINK_NO_MEMORY, LINK_TOO_LARGE };

/*
 * Puts a message into the connection's buffer; connection_flush sends it. reply may be
 * NULL, headers NULL with a count of 0. Nothing is kept of what the arguments point
 * to. CONGESTED: the server reads too slowly, try again later. TOO_LARGE: headers and
 * payload are over the server's max_payload.
 */
enum connection_publish_result connection_publish(struct connection *connection, const char *subject, const char *reply,
                                                  const struct message_header *headers, size_t header_count,
                                                  const void *payload, size_t payload_bytes);

/* Writes what was published since the last call; once at the end of each turn of the loop. */
void connection_flush(struct connection *connection);

#endif
