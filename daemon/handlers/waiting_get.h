/*
 * waiting_get: a kv.get that waits until its key has a higher revision.
 *
 * Used by kv, and by main at the end of the daemon. It is a watch of one key, and counts as one. The time for which it
 * waits is not part of the latency of the call.
 */
#ifndef DAEMON_HANDLERS_WAITING_GET_H
#define DAEMON_HANDLERS_WAITING_GET_H

#include "daemon/handlers/service.h"
#include "daemon/rpc/call.h"

/*
 * Wait until the key has a revision above this one, and answer the call with its entry or marker. Shortly before the
 * deadline, call give_up instead, which answers the call.
 */
void waiting_get_start(struct call *call, const char *key, uint64_t above, void (*give_up)(struct call *call));

/*
 * The daemon ends: drop all calls that wait, in slices of turns. They have not done anything, and their clients may
 * repeat them. Sessions wait for that before they end.
 */
void waiting_get_drop_all(struct service *service);

#endif
