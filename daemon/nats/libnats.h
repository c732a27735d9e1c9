/*
 * libnats: connect to a NATS server with the C library of NATS.
 *
 * Used by link. The library tries the servers, performs the TLS handshake and logs in. All of this blocks, so it runs
 * on a worker thread. Then the connection is taken out of the library, which is left with nothing: the wire reads and
 * writes the socket, whether it is encrypted or not.
 */
#ifndef DAEMON_NATS_LIBNATS_H
#define DAEMON_NATS_LIBNATS_H

#include "daemon/nats/connection.h"

#include <nats/nats.h>
#include <openssl/ssl.h>

#define LIBNATS_ERROR_BYTES     256
#define LIBNATS_URL_BYTES       256
#define LIBNATS_SERVER_ID_BYTES 80

/* A connection that is logged in, with no subscription. Whoever holds it closes the socket and frees the session. */
struct libnats_connection {
    int socket;
    SSL *tls; /* NULL: not encrypted */
    size_t max_payload_bytes;
    char url[LIBNATS_URL_BYTES];             /* without credentials */
    char server_id[LIBNATS_SERVER_ID_BYTES]; /* changes with each start of a server; "": not known */
};

/* Sockets that may be at an attempt at a time: a host name's addresses are tried one after the other. */
#define LIBNATS_SOCKETS_MAX 4u
#define LIBNATS_OTHERS_MAX  64u

/* One attempt to connect. Zeroed: none. All members but the first three are the module's own. */
struct libnats_attempt {
    struct libnats_connection connection; /* after libnats_connect has returned true */
    char error[LIBNATS_ERROR_BYTES];      /* after it, or libnats_prepare, has returned false */
    bool has_timed_out;                   /* after it has returned false: a limit of the library's own was reached */

    natsOptions *options;
    const struct conf *tls_conf; /* whose TLS settings the thread loads; NULL: the connection is not to be encrypted */
    /* of the thread that connects */
    natsConnection *attached;
    natsSock socket;
    /* of the loop: the internet sockets that were there before the attempt, by inode: former connections, inherited
     * ones */
    uint64_t others[LIBNATS_OTHERS_MAX];
    size_t other_count; /* LIBNATS_OTHERS_MAX: there may be more, so no socket is known to be the attempt's */
    /* the attempt's sockets, and since when they are known */
    struct libnats_socket {
        uint64_t inode; /* 0: free */
        uint64_t since_ms;
        bool is_seen, is_ended;
    } sockets[LIBNATS_SOCKETS_MAX];
    uint64_t now_ms, limit_ms; /* of the present check */
    bool has_ended_one;
};

/* Prepares an attempt. False with the reason. Afterwards target is not used, and of conf only the settings of TLS. */
bool libnats_prepare(struct libnats_attempt *attempt, const struct conf *conf, const struct connection_target *target);

/* Connects; blocks, so call it on a worker thread, once after libnats_prepare. False with the reason. */
bool libnats_connect(struct libnats_attempt *attempt);

/*
 * Ends what takes too long. Call it on the loop about ten times in limit_ms while libnats_connect runs: before 3.11 the
 * library has no limit for a TLS handshake, and that of 3.4.1 none for the answer to its CONNECT, for which it waits in
 * a loop. Each socket of the attempt that is older than limit_ms is shut down, so that the library goes on to the next
 * server, or gives up. True: it was so.
 */
bool libnats_end_slow_sockets(struct libnats_attempt *attempt, uint64_t now_ms, uint64_t limit_ms);

/* Close a connection that is not wanted. */
void libnats_close(struct libnats_connection *connection);

#endif
