/*
 * watch_command: runs the command of the verb watch for an entry.
 *
 * Used by watch.
 */
#ifndef KVCTL_WATCH_COMMAND_H
#define KVCTL_WATCH_COMMAND_H

#include "client/kvctl/kvctl.h"

enum watch_command_end {
    WATCH_COMMAND_DONE,
    WATCH_COMMAND_FAILED,     /* after a message; *status is that of the command */
    WATCH_COMMAND_INTERRUPTED /* by a signal for kvctl */
};

/*
 * Run the invocation's command for an entry, and wait for it. The entry is in its environment, and the value in its
 * standard input, with --json the whole entry.
 */
enum watch_command_end watch_command_run(const struct invocation *invocation, const struct kvs_entry *entry,
                                         enum status *status);

#endif
