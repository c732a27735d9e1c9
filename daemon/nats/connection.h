/*
 * connection: the daemon's one connection to NATS.
 *
 * Used by requests; main starts it and the store stops it. A dialer connects on a worker thread. From then on the
 * connection belongs to the loop's thread, and nothing blocks: see wire. After a loss it reconnects, without a limit,
 * with backoff and jitter.
 */
#ifndef DAEMON_NATS_CONNECTION_H
#define DAEMON_NATS_CONNECTION_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/nats/denial.h"
#include "daemon/nats/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct connection;

/* All are called from the loop. */
struct connection_events {
    /* The connection is up. */
    void (*up)(void *arg);
    /* The connection is lost: nothing that is in flight will be answered. */
    void (*down)(void *arg);
    /* Another attempt to connect has failed; the next one follows by itself. */
    void (*unreachable)(void *arg);
    /* A message to the inbox or a consumer's delivery. It is over after the call. */
    void (*message)(void *arg, struct message *message);
    /*
     * The server denies our user a permission: it has dropped a message to subject, or delivers nothing to the inbox.
     * There is one event for each message, in the order in which they were published.
     */
    void (*denied)(void *arg, enum denial_kind kind, const char *subject);
    void *arg;
};

/* The servers to connect to. Strings are borrowed until the next call of connection_start or connection_stop. */
struct connection_target {
    const char *const *urls;
    size_t url_count;
    const char *user; /* NULL: the credentials of the configuration */
    const char *password;
    const char *name; /* of the connection, for those who look at the server; NULL: none */
};

struct connection_status {
    bool connected;
    bool was_connected;  /* since the start */
    uint64_t lost_ms;    /* loop time of the last loss or, before the first connection, of the start */
    uint64_t rtt_us;     /* of the last ping; 0 before the first */
    uint64_t rtt_min_us; /* the shortest of this connection; 0 before the first */
    unsigned reconnects;
    uint64_t reads; /* number of times that the socket was readable */
    size_t max_payload_bytes;
    char url[256];        /* of the server, without credentials; "" while not connected */
    char last_error[256]; /* why the last attempt failed; "": it did not */
    char trouble[256];    /* what is wrong with the server: see connection_set_trouble; "": nothing is known */
};

/* jobs and conf are borrowed for the connection's life. Return NULL if memory ran out. */
struct connection *connection_new(uv_loop_t *loop, struct jobs *jobs, const struct conf *conf,
                                  const struct connection_events *events);

/* Connect to target, and again whenever the connection is lost. May be called again to change the target. */
void connection_start(struct connection *connection, const struct connection_target *target);

/*
 * The server has ended, or is about to: make no attempt to connect until connection_start is called again. Whoever
 * listens at its address meanwhile would get our password. Attempts fail, as if the server refused them.
 */
void connection_hold(struct connection *connection);

/* Set what is wrong with the server, for connection_get_status; "": nothing. For the owner of an embedded server. */
void connection_set_trouble(struct connection *connection, const char *text);

/*
 * After a reload: read the credentials and certificates of the configuration again. If they have changed, connect with
 * them at once, and then close the present connection. If that fails, the present connection stays.
 */
void connection_reload_credentials(struct connection *connection);

/* Apply nats.ping_interval after a reload. */
void connection_set_ping_interval(struct connection *connection);

/*
 * Close the connection and stop connecting. stopped is called from the loop when no thread and no handle is left, or
 * the connection is abandoned. Then call connection_free.
 */
void connection_stop(struct connection *connection, void (*stopped)(void *arg), void *arg);

/*
 * After stopped was called: return whether a thread still runs an attempt to connect, which did not end in time. Then
 * nothing of the connection may be freed, and the loop would wait for it: the process has to exit as it is.
 */
bool connection_is_abandoned(const struct connection *connection);
void connection_free(struct connection *connection);

bool connection_is_up(const struct connection *connection);
const struct connection_status *connection_get_status(const struct connection *connection);

/* Return the number of the present connection, or of the last one if there is none. It counts from 1. */
uint64_t connection_number(const struct connection *connection);

/*
 * Return a clock_boot_ms: the server has sent what is being read now after that time. So a message does not look new
 * that had to wait because the process, the machine or the network was stopped. The time is that of the last ping which
 * has a reply. connection_ping sends another one, if none is in flight.
 */
uint64_t connection_sent_after_ms(const struct connection *connection);
void connection_ping(struct connection *connection);

/*
 * Return whether the server has closed all connections from the number first up to the one before the present: nothing
 * that was published on them can still arrive.
 */
bool connection_earlier_are_closed(const struct connection *connection, uint64_t first);

/* Return the id of the server process of the connection. A restart changes it. "" before the first connection. */
const char *connection_server_id(const struct connection *connection);

/* Return the inbox's subject without its last token: "_INBOX.<unique>.". All subjects that begin so are subscribed. */
const char *connection_inbox(const struct connection *connection);

/* Return an id of this run of the daemon: 22 characters. */
const char *connection_unique_id(const struct connection *connection);

enum connection_publish_result {
    CONNECTION_PUBLISHED,
    CONNECTION_NOT_UP,
    CONNECTION_CONGESTED,
    CONNECTION_NO_MEMORY,
    CONNECTION_TOO_LARGE
};

/*
 * Write a message into the connection's buffer; connection_flush sends it. reply may be NULL, and headers with a count
 * of 0. The message is copied. CONGESTED: the server reads too slowly, try again later. TOO_LARGE: headers and payload
 * exceed the server's max_payload.
 */
enum connection_publish_result connection_publish(struct connection *connection, const char *subject, const char *reply,
                                                  const struct message_header *headers, size_t header_count,
                                                  const void *payload, size_t payload_bytes);

/* Send what was published since the last call. Call it once at the end of each turn of the loop. */
void connection_flush(struct connection *connection);

#endif
