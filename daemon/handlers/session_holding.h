/*
 * session_holding: the locks and ephemeral keys of sessions.
 *
 * Used by the handlers lock and kv, and by reload. A holding is a resource of its session: it ends with it. If it is
 * lost before that, the session is notified.
 */
#ifndef DAEMON_HANDLERS_SESSION_HOLDING_H
#define DAEMON_HANDLERS_SESSION_HOLDING_H

#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/store/lease/holding.h"

/*
 * A bucket in which a session holds locks or ephemeral keys counts as one that its user watches. watched is NULL if the
 * user watches the maximum already. Then the daemon follows the bucket only while no other bucket needs the place.
 */
struct session_holding_bucket {
    struct watched_bucket *watched;
    struct lease_bucket *in;
};

/* A place among the locks of the call's user, while the call is in flight. In the call's arena, zeroed. */
struct session_holding_place {
    struct arena_task task;
    struct call *call;
    struct session_holding_bucket bucket;
};

/* Take a place for one more holding. False: the call is answered. */
bool session_holding_take_place(struct call *call, struct session_holding_place *place);

/*
 * Give the holding to the call's session, together with the place. If the session has ended, or memory runs out, the
 * key is deleted, or left to its owner. Return false if so: the call is answered.
 */
bool session_holding_give(struct call *call, struct session_holding_place *place, struct holding *holding);

/* Return the holding of a key if the call's session has it; otherwise NULL. */
struct holding *session_holding_find(struct call *call, const char *key);

/* The session gives up the holding, which the caller ends. */
void session_holding_remove(struct holding *holding);

/* Why a lock or an ephemeral key is denied or taken away. */
#define SESSION_HOLDING_DENIED "the access rules have changed and no longer allow to write to this bucket"

/* Return whether the session of the call may hold a key of the call's bucket. The rules may change during a call. */
bool session_holding_is_allowed(const struct call *call);

#endif
