/*
 * ports: TCP ports of 127.0.0.1.
 *
 * Used by all programs of tests and by the benchmarks. It needs no Check: without a socket the program aborts.
 */
#ifndef SUPPORT_PORTS_H
#define SUPPORT_PORTS_H

/*
 * Return a port that is reserved until this process ends. A server with SO_REUSEADDR can listen on it, end and come
 * back; no other program gets it. Connections are refused while nobody listens.
 */
unsigned port_reserve(void);

/* Connect to a port. Return the socket, or -1 if nobody listens. */
int port_dial(unsigned port);

/* Return a socket that listens on a free port, and set *port. */
int port_listen(unsigned *port);

/* Return the port of a daemon's embedded nats-server, which writes it into its data directory; 0: it has none yet. */
unsigned port_of_embedded_server(const char *data_dir);

#endif
