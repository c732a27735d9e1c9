/*
 * watch: the watches of all sessions.
 *
 * The handlers of watch.start and watch.stop are declared in methods.h.
 */
#ifndef DAEMON_HANDLERS_WATCH_H
#define DAEMON_HANDLERS_WATCH_H

#include "daemon/rpc/dispatch.h"

/* The access rules may have changed: end the watches that they forbid now. */
void watches_reload(struct dispatcher *dispatcher, struct session_list *sessions);

/* For daemon.dump. */
struct watch_info {
    uint64_t id;
    const char *bucket;
    const char *const *filters;
    size_t filter_count;
    const char *state;
};

/* Call visit for each watch of a session, until it returns false. */
void watches_each(const struct session *session, bool (*visit)(void *arg, const struct watch_info *info), void *arg);

#endif
