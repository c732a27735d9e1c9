/*
 * former: connections to NATS that the daemon has given up, until their servers have given them up too.
 *
 * Used by link. A server reads what lies in a connection's socket even behind its end, so a message that was sent on a
 * connection which the daemon has dropped may still be stored, whenever the server comes round to it (measured: behind
 * FIN and behind RST). It cannot once the server has closed its own side. So of each dropped connection a copy of the
 * descriptor is kept, closed for writing, until the server's end comes. Whoever must send a message a second time asks
 * former_are_over first.
 */
#ifndef DAEMON_NATS_FORMER_H
#define DAEMON_NATS_FORMER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* Kept at a time; of one more it is never known that it is over. */
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

/* Whether no server reads any more from one of the connections that were kept with the number first or a higher one. */
bool former_are_over(const struct former *former, uint64_t first);

/* Lets go of all. */
void former_close_all(struct former *former);

#endif
