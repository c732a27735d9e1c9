/*
 * former: connections to NATS that the daemon has dropped, until their servers have closed them too.
 *
 * Used by link. A server still reads what lies in a socket when the client has closed it (measured: after FIN and after
 * RST). Until it closes its own side, a message that was sent there may be stored. So a duplicate of the descriptor is
 * kept, shut down for writing, until then. Whoever must send a message a second time asks former_are_closed first.
 */
#ifndef DAEMON_NATS_FORMER_H
#define DAEMON_NATS_FORMER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* Connections that are kept at a time. The end of one more is never known. */
#define FORMER_MAX 16u

struct former_connection;

/* Zeroed but for loop, closed and arg: none. */
struct former {
    uv_loop_t *loop;
    void (*closed)(void *arg); /* a handle of the loop is closed: one call for each connection that was kept */
    void *arg;
    struct former_connection *first;
    unsigned count;
    uint64_t newest_unknown; /* the number of the newest connection whose end cannot be seen; 0: of none */
};

/*
 * Keeps the connection with this number, whose socket its owner is about to close. Numbers grow from 1. True: closed
 * will be called once.
 */
bool former_keep(struct former *former, int socket, uint64_t number);

/* Whether the servers have closed every dropped connection with the number first or a higher one. */
bool former_are_closed(const struct former *former, uint64_t first);

/* Lets go of all. */
void former_close_all(struct former *former);

#endif
