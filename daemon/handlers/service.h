/*
 * service: what all handlers share.
 *
 * Made by main, and given to dispatch as the context of its ops. The functions below are the only way from a call to
 * the store.
 */
#ifndef DAEMON_HANDLERS_SERVICE_H
#define DAEMON_HANDLERS_SERVICE_H

#include "daemon/base/jobs.h"
#include "daemon/monitor/monitor.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/store/store.h"

#include <msgpack.h>
#include <stdint.h>

/* An entry as clients get it, packed once for all watches. */
struct service_entry {
    uint64_t serial; /* of the entry; 0: none */
    msgpack_sbuffer bytes;
};

struct service {
    struct store *store;
    struct session_list *sessions;
    struct monitor *monitor;
    uint64_t watch_ids;                     /* the last one */
    unsigned previous_watches;              /* that want the value before each change */
    struct service_entry packed[3];         /* by enum watch_form */
    struct waiting_get *waiting_gets;       /* a list */
    struct job dropping;                    /* of those, when the daemon ends */
    struct watched_bucket *watched_buckets; /* by user and name: uthash */
};

/* All pointers are borrowed. monitor is made later. */
void service_init(struct service *service, struct store *store, struct session_list *sessions, struct monitor *monitor);
void service_free(struct service *service);

static inline struct service *call_service(const struct call *call)
{
    return call->dispatcher->context;
}

static inline struct store *call_store(const struct call *call)
{
    return call_service(call)->store;
}

#endif
