/*
 * consumer_removal: removes consumers from the server when their readings are over.
 *
 * Used by consumer. A removal lives until the server has answered, or for the time of one attempt: the server removes a
 * consumer that nobody uses by itself.
 */
#ifndef DAEMON_NATS_CONSUMER_REMOVAL_H
#define DAEMON_NATS_CONSUMER_REMOVAL_H

#include "daemon/nats/jetstream.h"

/*
 * Remove consumer from stream on behalf of request, which created it. is_over: the request is about to end, and the
 * removal takes over its place in limit, or waits for one. So a client that starts and stops readings as fast as it can
 * gives the server no more work than one that reads. limit NULL: the removal needs no place.
 */
void consumer_removal_start(struct jetstream *jetstream, const char *stream, const char *consumer,
                            struct request *request, struct request_limit *limit, bool is_over);

/* Cancel the removals in progress, when the daemon ends. */
void consumer_removal_cancel_all(struct jetstream *jetstream);

#endif
