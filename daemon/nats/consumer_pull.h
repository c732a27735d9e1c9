/*
 * consumer_pull: how much a reading asks for with one pull.
 *
 * Used by consumer. A pull has a number of messages and max_bytes. If a message does not fit into max_bytes, a
 * last_per_subject consumer loses its place in its list, and never delivers it (nats-server 2.15, loopAndGatherMsgs: it
 * sets back only the sequence of other consumers). So the pulls of a list ask for as many messages as have about 2 MiB.
 * That number is estimated from the messages that have come; max_bytes only protects memory. If a pull ends by
 * max_bytes, the reading begins a new list.
 */
#ifndef DAEMON_NATS_CONSUMER_PULL_H
#define DAEMON_NATS_CONSUMER_PULL_H

#include "daemon/nats/connection.h"

struct consumer_pull {
    uint64_t delivered; /* messages that the present pull has brought */
    uint64_t delivered_bytes;
    uint64_t message_bytes; /* how large the next messages are, about */
    unsigned most;          /* messages in a pull of a list; 0: the reading has not begun */
    bool headers_only;
};

/* A reading begins, or starts over. messages and bytes: what the stream has. */
void consumer_pull_begin(struct consumer_pull *pull, bool headers_only, uint64_t messages, uint64_t bytes);

/* Return the number of messages to ask for, and set *max_bytes. */
unsigned consumer_pull_size(const struct consumer_pull *pull, const struct connection *connection, bool is_list,
                            size_t *max_bytes);

/* The pull is complete. Messages are soon believed to be large, and slowly to be small. */
void consumer_pull_end(struct consumer_pull *pull);

/* The pull of a list has ended by its size: ask for less from now on. */
void consumer_pull_shrink(struct consumer_pull *pull, const struct connection *connection);

/* Return max_bytes of a pull that is not of a list: room for at least two of the largest messages. */
size_t consumer_pull_bytes(const struct connection *connection);

#endif
