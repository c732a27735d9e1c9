/*
 * request_parts: what request.c and requests.c share.
 *
 * Used by these two only.
 */
#ifndef DAEMON_NATS_REQUEST_PARTS_H
#define DAEMON_NATS_REQUEST_PARTS_H

#include "daemon/nats/requests.h"

/* Send the next attempt, or wait for what it needs: the connection, its owner, a place, the budget. */
void request_send_attempt(struct request *request);

void request_wait_for_connection(struct request *request);

/* Return whether its reply fits into the budget. */
bool request_fits_budget(const struct request *request);

/* Return the request whose turn it is; NULL: none waits. */
struct request *request_first_waiting(const struct fair_queue *queue);

/* Nobody listens on the subject of this attempt, so it had no effect. */
void request_on_unserved(struct request *request, unsigned attempt);

/* Deliver a message of the reply to this attempt. The request may be gone afterwards. */
void request_on_reply(struct request *request, unsigned attempt, struct message *message);

#endif
