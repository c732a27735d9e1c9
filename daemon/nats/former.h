/*
 * former: half-closed connections to NATS: the daemon has dropped them, and their servers have not closed them yet.
 *
 * Used by connection. A server still reads the bytes in a socket after the client has closed it (measured: after FIN
 * and after RST). Until it closes its own side, a message that was sent there may be stored. So a duplicate of the
 * descriptor, shut down for writing, is kept until then. Before a message is sent a second time, former_are_closed must
 * be true.
 */
#ifndef DAEMON_NATS_FORMER_H
#define DAEMON_NATS_FORMER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* The number of connections that are kept. The end of further ones is never known. */
#define FORMER_MAX 16u

struct former_connection;

/* Zeroed but for loop, closed and arg: none. */
struct former {
    uv_loop_t *loop;
    void (*closed)(void *arg); /* called once for each connection that was kept, when its handle is closed */
    void *arg;
    struct former_connection *first;
    unsigned count;
    uint64_t newest_unknown; /* the number of the newest connection whose end cannot be observed; 0: none */
};

/*
 * Keep the connection with this number, whose socket its owner is about to close. Numbers grow from 1. Return whether
 * closed will be called.
 */
bool former_keep(struct former *former, int socket, uint64_t number);

/* Return whether the servers have closed each dropped connection with the number first or a higher one. */
bool former_are_closed(const struct former *former, uint64_t first);

/* Release all. closed is called for each. */
void former_close_all(struct former *former);

#endif
