/*
 * straggler: stands in for a request that ended before its answer came.
 *
 * Used by request. The server still works on the request. So the straggler keeps its place in the limit and its share
 * of the reply budget, until the answer comes or the time of an attempt is over. Otherwise clients that start and
 * cancel calls could give the server any amount of work. A straggler frees itself.
 */
#ifndef DAEMON_NATS_STRAGGLER_H
#define DAEMON_NATS_STRAGGLER_H

#include "daemon/nats/request.h"

/*
 * Return a straggler in the state REQUEST_IDLE, with copies of the request's slot and share; NULL: out of memory. The
 * caller moves the slot, the share and the place to it.
 */
struct request *straggler_new(const struct request *request);

bool straggler_is(const struct request *request);

#endif
