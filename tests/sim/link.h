/*
 * link: one connection between a daemon and a NATS server, as the network and the kernels of both sides have it.
 *
 * Packets come in order, each after a time. What was sent is not lost while the connection is well. When it is cut, a
 * part of what was sent still comes: the server reads what its kernel had received, however late, and sees the end only
 * after that. While the way between the two is blocked, neither packets nor an end arrive.
 */
#ifndef SIM_LINK_H
#define SIM_LINK_H

#include "tests/sim/packet.h"

#include <stdbool.h>
#include <stdint.h>

struct link;
struct server;
struct connection;

/* How the network behaves in this world. */
struct network {
    uint64_t least_ns, most_ns; /* how long a packet takes */
    unsigned slow_per_mille;    /* packets that take up to slow_ns */
    uint64_t slow_ns;
};
extern struct network network;

/* The network between a host and all servers. */
struct way {
    uint64_t blocked_until_ns; /* nothing passes until then */
};

/* The way must live until the world ends. */
struct link *link_new(struct connection *connection, struct server *server, const struct way *way, uint64_t number);
void link_forget_all(void);

/* --- The daemon's end ------------------------------------------------------------------------------ */

void link_send_to_server(struct link *link, struct packet *packet);

/* The daemon closes its end; what it has sent still comes, apart from what is lost if the connection is cut. */
void link_leave(struct link *link);

/* Return whether the daemon knows that the server has closed its end. */
bool link_is_known_closed(const struct link *link);

uint64_t link_number(const struct link *link);

/* In a turn of the daemon: take the next packet that has come; NULL: there is none. */
struct packet *link_take(struct link *link);

/* --- The server's end ------------------------------------------------------------------------------ */

void link_send_to_daemon(struct link *link, struct packet *packet);
bool link_is_served(const struct link *link);

/* --- Faults ---------------------------------------------------------------------------------------- */

/* Cut the connections on a way (NULL: all): both sides notice, and a part of what is under way is lost. */
void link_cut_all(const struct way *way);

/* The server's process has ended: what it has not read is lost, and the daemons see the end. */
void link_end_all(struct server *server);

/* The daemon's process has ended. */
void link_abandon(struct connection *connection);

/* --- Implemented by connection --------------------------------------------------------------------- */

/* For host: the daemon's process has ended. */
void connection_die(struct connection *connection);

/* At the world's end: free all connections. */
void connection_forget_all(void);

/* Packets have come: link_take returns them. */
void connection_on_arrival(struct connection *connection, struct link *link);

/* The link has ended, or was cut. */
void connection_on_end(struct connection *connection, struct link *link, const char *why);

#endif
