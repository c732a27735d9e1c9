/*
 * request_time: how long the requests of a call are at NATS.
 *
 * Used by request, at each change of a state. The arena of the call has the sum, for log.slow_call.
 */
#ifndef DAEMON_NATS_REQUEST_TIME_H
#define DAEMON_NATS_REQUEST_TIME_H

#include "daemon/nats/requests.h"

static inline bool request_time_counts(enum request_state state)
{
    return state == REQUEST_SENT || state == REQUEST_UNSERVED || state == REQUEST_LISTENING;
}

/* The request is about to enter a state. */
static inline void request_time_note(const struct request *request, enum request_state state)
{
    if (request->caller == NULL || request_time_counts(request->state) == request_time_counts(state))
        return;
    if (request_time_counts(state))
        arena_note_sent(request->caller, uv_now(request->requests->loop));
    else
        arena_note_answered(request->caller, uv_now(request->requests->loop));
}

#endif
