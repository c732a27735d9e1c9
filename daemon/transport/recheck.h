/*
 * recheck: after a change of the access rules, asks all watches, locks and ephemeral keys whether they may stay.
 *
 * Used by session_list. All sessions together can have a hundred thousand of them, and each may be matched against many
 * patterns: so this is done a slice at a time.
 */
#ifndef DAEMON_TRANSPORT_RECHECK_H
#define DAEMON_TRANSPORT_RECHECK_H

#include "daemon/base/jobs.h"

struct session;
struct session_list;
struct session_resource;

/* Zeroed: not running. */
struct recheck {
    struct job job;
    struct session *session; /* whose resources are asked; NULL: all are */
    bool has_done_watches;
    struct session_resource *next; /* of the session; NULL: the last of its kind was asked */
};

/* Ask all resources of the sessions that are there now; those that come later obey the new rules already. */
void recheck_start(struct session_list *list);

/* The resource leaves its session, or the session its list. */
void recheck_leave_resource(struct recheck *recheck, const struct session_resource *resource);
void recheck_leave_session(struct recheck *recheck, const struct session *session);

#endif
