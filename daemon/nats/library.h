/*
 * library: a connection to NATS that the C library makes, and where it is encrypted also reads and writes.
 *
 * Used by link. The library connects and proves who we are, which blocks, so it does that on a worker thread; of a
 * plain connection the wire then reads and writes the socket, and the library only keeps it. Otherwise it runs in its
 * event-loop mode, with an adapter of ours and one synchronous subscription that is drained after each read.
 */
#ifndef DAEMON_NATS_LIBRARY_H
#define DAEMON_NATS_LIBRARY_H

#include "daemon/nats/link.h"

#include <nats/nats.h>

#define LIBRARY_TRASH_MESSAGES 2048u

struct library_events {
    /* A message. It is over after the call. */
    void (*message)(void *arg, struct message *message);
    /* The library took a 503 out of the inbox, and does not tell whose. */
    void (*no_responders)(void *arg);
    /* The socket is about to be closed: nobody may poll it any more. */
    void (*closing)(void *arg);
    /* From a thread of the library's. */
    void (*complaint)(void *arg, const char *text);
    void *arg;
};

/* Zeroed but for the events, which the caller sets. The other members are the module's; the first three may be read. */
struct library {
    struct library_events events;
    uv_os_sock_t socket; /* as the library attached it */
    bool is_tls;         /* also found out by the attempt: a server may insist on it */
    bool wants_write;    /* it has something in its buffer */

    natsOptions *options;       /* of the next attempt */
    natsConnection *connection; /* NULL: none */
    natsConnection *attached;   /* the same, from the library's point of view */
    natsSubscription *subscription;
    int low_water; /* SO_RCVLOWAT of the socket */

    natsMsg *trash[LIBRARY_TRASH_MESSAGES];
    size_t trash_count;
    size_t trash_bytes;
};

#define LIBRARY_ERROR_BYTES 256

/* Before each attempt. False with the reason. conf and target are not looked at afterwards. */
bool library_prepare(struct library *library, const struct conf *conf, const struct link_target *target,
                     char error[LIBRARY_ERROR_BYTES]);

/* Blocks, for a worker thread; meanwhile nobody else touches *library. False with the reason. */
bool library_connect(struct library *library, char error[LIBRARY_ERROR_BYTES]);

/* The same once more, because what is there is encrypted although nobody has asked for it. */
bool library_connect_tls(struct library *library, char error[LIBRARY_ERROR_BYTES]);

/* The attempt is over, on the loop again: lets go of what only it needed. */
void library_settle(struct library *library);

size_t library_max_payload(const struct library *library);

/* Of the server it is connected to, without credentials. */
void library_write_url(const struct library *library, char *url, size_t url_bytes);

/* The id that the server it is connected to has since its start; "" where it is not known. */
#define LIBRARY_SERVER_ID_BYTES 80
void library_write_server_id(const struct library *library, char id[LIBRARY_SERVER_ID_BYTES]);

/* --- Where the library reads and writes ------------------------------------------------------------ */

/* Listens on a subject. False with the reason. */
bool library_subscribe(struct library *library, const char *subject, char error[LIBRARY_ERROR_BYTES]);

/* Reads what is there and hands it over. is_broken: the poll has failed. */
void library_read(struct library *library, bool is_broken);

/* Writes what the socket takes; library->wants_write tells whether that was all. */
void library_write(struct library *library);

/* As link_publish. */
enum link_publish_result library_publish(struct library *library, const char *subject, const char *reply,
                                         const struct message_header *headers, size_t header_count, const void *payload,
                                         size_t payload_bytes);

size_t library_unwritten_bytes(const struct library *library);

/* Why the library has given the connection up; NULL: it has not. */
const char *library_lost(const struct library *library);

/* Now and then: frees what was collected. */
void library_tidy(struct library *library);

/* Lets go of the connection, if there is one. Also from within an event. */
void library_close(struct library *library);

#endif
