/*
 * stream: the state of a bucket's stream, as far as it is known.
 *
 * Used by bucket, by feed and by outcome, which compares two states of one stream: what it was when a write was sent,
 * and what it is now.
 */
#ifndef DAEMON_STORE_STREAM_H
#define DAEMON_STORE_STREAM_H

#include <jansson.h>
#include <stdint.h>

struct store;

/* A stream, as it is known at some moment. */
struct stream_state {
    uint64_t identity;      /* of its creation: another stream of the same name has another one; 0: not known */
    uint64_t last_sequence; /* the highest that it has had for certain */
    uint64_t keeper;        /* the server process that keeps its ids, and since when; 0: not known */
    uint64_t window_ms;     /* for which it keeps an id */
    uint64_t removals;      /* by this daemon, without a trace: the beginning and the end of each counts */
};

/* Read the state from an answer of STREAM.INFO. All members are 0 if the bucket is a mirror. */
void stream_read_info(const struct store *store, json_t *answer, struct stream_state *stream);

/* Return the name of the server that leads the stream, by an answer of STREAM.INFO; "": it is not in the answer. */
const char *stream_leader(json_t *info);

/*
 * Return the keeper of the ids of an unreplicated stream: the process of the server that leads it. The connection's
 * server must be the leader: a leaf node, or a server of another domain, only forwards messages. 0: not known.
 */
uint64_t stream_server_keeper(const struct store *store, const char *leader);

/*
 * Record the sequence of a stored message. With the same keeper, it can only raise the last sequence. Another keeper's
 * sequence replaces it, because a restarted server may have been set back. Until that first ack, the last keeper's
 * sequence stays: to know nothing would leave writes undecided that meet two restarts.
 */
void stream_note_sequence(struct stream_state *stream, uint64_t sequence, uint64_t keeper);

#endif
