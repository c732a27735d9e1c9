/*
 * libnats: connect to a NATS server with the C library of NATS.
 *
 * Used by dialer. The library tries the servers, performs the TLS handshake and logs in. All of this blocks, so it runs
 * on a worker thread. Then the socket and the TLS session are taken out of the library: from then on only the wire uses
 * them.
 */
#ifndef DAEMON_NATS_LIBNATS_H
#define DAEMON_NATS_LIBNATS_H

#include "daemon/nats/connection.h"
#include "daemon/nats/secrets.h"

#include <nats/nats.h>
#include <openssl/ssl.h>

#define LIBNATS_ERROR_BYTES     256
#define LIBNATS_URL_BYTES       256
#define LIBNATS_SERVER_ID_BYTES 80

/* A connection that is logged in, without subscriptions. Its owner closes the socket and frees the session. */
struct libnats_connection {
    int socket;
    SSL *tls; /* NULL: not encrypted */
    size_t max_payload_bytes;
    char url[LIBNATS_URL_BYTES];             /* without credentials */
    char server_id[LIBNATS_SERVER_ID_BYTES]; /* changes with each start of a server; "": unknown */
};

/* The sockets of an attempt that are tracked. The addresses of a host name are tried one after the other. */
#define LIBNATS_SOCKETS_MAX 4u
#define LIBNATS_OTHERS_MAX  64u

/* Where an attempt gets its secrets from, and whether it connects with them. */
enum libnats_purpose {
    LIBNATS_CONNECT,        /* read the files of the configuration */
    LIBNATS_CONNECT_AGAIN,  /* take the secrets that the last connection was made with */
    LIBNATS_CONNECT_CHANGED /* read the files, but connect only if anything differs from those secrets */
};

enum libnats_result { LIBNATS_CONNECTED, LIBNATS_FAILED, LIBNATS_UNCHANGED };

/* One attempt to connect. Zeroed: none. All members but the first five are private. */
struct libnats_attempt {
    struct libnats_connection connection; /* after libnats_connect has returned CONNECTED */
    struct secrets secrets;               /* of the attempt, whatever its result */
    char error[LIBNATS_ERROR_BYTES];      /* after FAILED, or after libnats_prepare has returned false */
    bool has_timed_out;                   /* after FAILED: a limit of the library was reached */
    bool blames_secrets;                  /* after FAILED: other secrets might have helped */

    natsOptions *options;
    enum libnats_purpose purpose;
    const struct secrets *accepted;
    bool wants_tls;
    bool has_own_secrets; /* false: the target has a user and a password */
    /* Of the thread that connects. */
    natsConnection *attached;
    natsSock socket;
    /* Of the loop: inodes of the internet sockets that existed before the attempt: former connections, inherited ones.
     */
    uint64_t others[LIBNATS_OTHERS_MAX];
    size_t other_count; /* LIBNATS_OTHERS_MAX: there may be more, so the attempt's sockets cannot be identified */
    /* The attempt's sockets, and since when they are known. */
    struct libnats_socket {
        uint64_t inode; /* 0: free */
        uint64_t since_ms;
        bool is_seen, is_ended;
    } sockets[LIBNATS_SOCKETS_MAX];
    uint64_t now_ms, limit_ms; /* of the present check */
    bool has_ended_one;
};

/*
 * Prepare an attempt. accepted: the secrets that the last connection was made with, borrowed until the attempt is over;
 * zeroed if there was none. Afterwards target and conf are not used. Return false with an error.
 */
bool libnats_prepare(struct libnats_attempt *attempt, const struct conf *conf, const struct connection_target *target,
                     enum libnats_purpose purpose, const struct secrets *accepted);

/* Make the attempt. This blocks, so call it on a worker thread, once after libnats_prepare. */
enum libnats_result libnats_connect(struct libnats_attempt *attempt);

/*
 * Shut down each socket of the attempt that is older than limit_ms, so that the library tries the next server, or gives
 * up. Call it on the loop about ten times in limit_ms while libnats_connect runs. Before 3.11 the library has no time
 * limit for a TLS handshake, and 3.4.1 has none for the answer to its CONNECT. Return whether a socket was shut down.
 */
bool libnats_end_slow_sockets(struct libnats_attempt *attempt, uint64_t now_ms, uint64_t limit_ms);

/* Close a connection that is not wanted. */
void libnats_close(struct libnats_connection *connection);

#endif
