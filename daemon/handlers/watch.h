/*
 * watch: the watches of all sessions.
 *
 * The handlers of watch.start and watch.stop are declared in methods.h.
 */
#ifndef DAEMON_HANDLERS_WATCH_H
#define DAEMON_HANDLERS_WATCH_H

#include "daemon/handlers/service.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/store/follow/backlog.h"

/*
 * Return an entry as clients get it. serial: see watch_ops. The bytes are valid until the next entry is packed. The
 * second function returns all forms of it.
 */
const msgpack_sbuffer *watches_pack_entry(struct service *service, const struct kv_entry *entry, uint64_t serial,
                                          enum watch_form form);
void watches_pack_forms(struct service *service, const struct kv_entry *entry, uint64_t serial,
                        struct watch_packed packed[WATCH_FORMS]);

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
