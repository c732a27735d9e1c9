/*
 * reply_budget: bounds the bytes of the replies with values that may be in flight together.
 *
 * Used by request. The server buffers what a connection has not read up to a limit (max_pending, 64 MB by default) and
 * closes the connection beyond it. So a request whose reply would exceed the budget waits until others are answered.
 * The size of a reply is not known before it comes. It is expected to be the largest of recent replies, and at first,
 * and after a connection was lost, the largest possible.
 */
#ifndef DAEMON_NATS_REPLY_BUDGET_H
#define DAEMON_NATS_REPLY_BUDGET_H

#include "daemon/base/fair_queue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A number of values: as many as fit into the bytes that the reply may have. */
#define REPLY_BUDGET_ALL SIZE_MAX

struct reply_budget {
    struct fair_queue waiting; /* requests whose replies do not fit into the budget yet */

    /* private */
    size_t in_flight_bytes;   /* expected bytes of the replies in flight */
    size_t recent_bytes;      /* of the largest reply in the present period */
    size_t former_bytes;      /* and in the period before it */
    uint64_t period_began_ms; /* loop time */
    size_t assumed_bytes;     /* smallest size to expect, until assumed_replies have come */
    unsigned assumed_replies;
};

void reply_budget_init(struct reply_budget *budget, uint64_t now_ms);

/*
 * The connection was lost. If replies were in flight, the server may have closed it because they were larger than
 * expected: expect the next replies to have max_payload_bytes.
 */
void reply_budget_note_loss(struct reply_budget *budget, size_t max_payload_bytes);

/* A reply with a value of this size came. */
void reply_budget_note_reply(struct reply_budget *budget, uint64_t now_ms, size_t bytes);

/*
 * Return the bytes that a reply with this number of values is expected to take: 0 if values is 0, and at most bytes_max
 * unless that is 0.
 */
size_t reply_budget_expect(const struct reply_budget *budget, size_t values, size_t bytes_max);

/*
 * Return whether a reply of this size fits. A single one always does, however large. The budget is what the server can
 * send in the shortest round trip of the connection (0: unknown), and in some milliseconds more.
 */
bool reply_budget_fits(const struct reply_budget *budget, size_t bytes, uint64_t rtt_us);

/* Charge the bytes of a reply that is asked for; refund them when it has come or is given up. */
void reply_budget_charge(struct reply_budget *budget, size_t bytes);
void reply_budget_refund(struct reply_budget *budget, size_t bytes);

#endif
