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
#include "daemon/nats/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct link;

enum link_denied { LINK_DENIED_PUBLISH, LINK_DENIED_INBOX };

/* What the link tells its one user, always from the loop. */
struct link_events {
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
    void (*denied)(void *arg, enum link_denied what, const char *subject);
    void *arg;
};

/* Where to connect to. Strings are borrowed until the next call of link_start or link_stop. */
struct link_target {
    const char *const *urls;
    size_t url_count;
    const char *user; /* NULL: as the configuration says */
    const char *password;
};

struct link_status {
    bool connected;
    bool was_connected; /* since the start */
    uint64_t lost_ms;   /* loop time of the last loss or, before the first connection, of the start */
    uint64_t rtt_us;    /* of the last round-trip check; 0 before the first */
    unsigned reconnects;
    uint64_t reads; /* how often the connection had something to read */
    size_t max_payload_bytes;
    char url[256];        /* of the server, without credentials; "" while not connected */
    char last_error[256]; /* why the last attempt failed; "" where none did */
    char trouble[256];    /* of the server itself, as link_set_trouble has it; "" if none is known */
};

/* NULL when memory ran out. jobs and conf are borrowed for the link's life. */
struct link *link_new(uv_loop_t *loop, struct jobs *jobs, const struct conf *conf, const struct link_events *events);

/* Connects to target, and again whenever the connection is lost. May be called again to change the target. */
void link_start(struct link *link, const struct link_target *target);

/* Notes what whoever runs the server knows to be wrong with it, for link_get_status; "" when it is well. */
void link_set_trouble(struct link *link, const char *text);

/* Takes nats.ping_interval from the configuration again, after a reload. */
void link_set_ping_interval(struct link *link);

/*
 * Lets go of the connection and stops connecting; stopped is called from the loop when no
 * thread and no handle of the link is left. Then link_free.
 */
void link_stop(struct link *link, void (*stopped)(void *arg), void *arg);

/*
 * After stopped was called: whether a thread is still at an attempt to connect, which would have taken too long to wait
 * for. Then nothing of the link may be freed, and the loop would wait for it: the process has to end as it is.
 */
bool link_is_abandoned(const struct link *link);
void link_free(struct link *link);

bool link_is_up(const struct link *link);
const struct link_status *link_get_status(const struct link *link);

/* The number of the connection, or while there is none of the last one: counts from 1. */
uint64_t link_number(const struct link *link);

/*
 * Whether all connections with the number first or a higher one but the present one are over at the server too: nothing
 * of what was published on them can arrive any more.
 */
bool link_earlier_are_closed(const struct link *link, uint64_t first);

/* The id of the server process that the connection was made to. A restart changes it. "" before the first connection.
 */
const char *link_server_id(const struct link *link);

/* The inbox's subject without its last token: "_INBOX.<unique>.". The link listens on all tokens behind it. */
const char *link_inbox(const struct link *link);

/* What is unique about this daemon's run: 22 characters. */
const char *link_unique_id(const struct link *link);

enum link_publish_result { LINK_PUBLISHED, LINK_NOT_UP, LINK_CONGESTED, LINK_NO_MEMORY, LINK_TOO_LARGE };

/*
 * Puts a message into the connection's buffer; link_flush sends it. reply may be
 * NULL, headers NULL with a count of 0. Nothing is kept of what the arguments point
 * to. CONGESTED: the server reads too slowly, try again later. TOO_LARGE: headers and
 * payload are over the server's max_payload.
 */
enum link_publish_result link_publish(struct link *link, const char *subject, const char *reply,
                                      const struct message_header *headers, size_t header_count, const void *payload,
                                      size_t payload_bytes);

/* Writes what was published since the last call; once at the end of each turn of the loop. */
void link_flush(struct link *link);

#endif
