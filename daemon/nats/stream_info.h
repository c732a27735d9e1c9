/*
 * stream_info: what an answer of STREAM.INFO says about a stream, and about the server that keeps it.
 *
 * Used by consumer, and by the store for the outcome of writes. Nothing is sent or kept here.
 */
#ifndef DAEMON_NATS_STREAM_INFO_H
#define DAEMON_NATS_STREAM_INFO_H

#include "daemon/nats/jetstream.h"

struct stream_info {
    uint64_t identity; /* hash of the creation time: another stream of the same name has another one; 0: unknown */
    /*
     * Changes whenever the stream may have lost messages, and may have others at their sequences: with another stream,
     * another leader, or another process of the server to which the daemon is connected.
     */
    uint64_t incarnation;
    uint64_t keeper; /* hash of who keeps the ids of the stream's messages: see stream_info_keeper; 0: unknown */
    uint64_t first_sequence; /* earlier messages no longer exist */
    uint64_t last_sequence;
    uint64_t messages;
    uint64_t bytes; /* of them, as they are stored */
    uint64_t duplicate_window_ms;
    unsigned max_messages_per_subject; /* 0: no limit */
    bool is_mirror;
    const char *only_subject; /* NULL: none, or several. Borrowed from the answer */
};

void stream_info_read(const struct jetstream *jetstream, json_t *answer, struct stream_info *info);

/*
 * Return the keeper of the message ids of a stream that is not replicated, and which leader keeps: a hash of that
 * server's process. It is known only of the server to which the daemon is connected: a leaf node, or a server of
 * another domain, only forwards what it is sent. 0: unknown.
 */
uint64_t stream_info_keeper(const struct jetstream *jetstream, const char *leader);

#endif
