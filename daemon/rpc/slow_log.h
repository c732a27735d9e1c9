/*
 * slow_log: a line in the log for each call that took longer than log.slow_call.
 *
 * Used by call, when a call ends. The line names the call, its bucket and key, where the time went, and who made it. It
 * never contains a value.
 */
#ifndef DAEMON_RPC_SLOW_LOG_H
#define DAEMON_RPC_SLOW_LOG_H

#include "daemon/rpc/call.h"

/*
 * Log the call, which ends now, if it was slow. ending says how it ends, such as "it was answered". No clock is read:
 * the loop's time is exact enough.
 */
void slow_log_check(const struct call *call, const char *ending);

#endif
