#include "daemon/transport/recheck.h"

#include "daemon/transport/session.h"

#include <stddef.h>

static void recheck_begin_session(struct recheck *recheck, struct session *session)
{
    recheck->session = session;
    recheck->has_done_watches = false;
    recheck->next = session != NULL ? session->resources[SESSION_WATCH] : NULL;
}

/* Continue with the next kind of resource, or with the next session. */
static void recheck_advance(struct recheck *recheck)
{
    if (recheck->has_done_watches) {
        recheck_begin_session(recheck, recheck->session->next);
        return;
    }
    recheck->has_done_watches = true;
    recheck->next = recheck->session->resources[SESSION_HOLDING];
}

static bool recheck_run(struct job *job)
{
    struct recheck *recheck = (struct recheck *)((char *)job - offsetof(struct recheck, job));

    while (recheck->session != NULL) {
        const struct session_list *list = recheck->session->list;
        struct session_resource *resource = recheck->next;
        if (resource == NULL || session_is_closing(recheck->session)) {
            recheck_advance(recheck);
        } else {
            recheck->next = resource->next;
            resource->ops->on_recheck(list->ops_arg, resource);
        }
        if (jobs_slice_is_over(list->jobs))
            return true;
    }
    return false;
}

void recheck_start(struct session_list *list)
{
    recheck_begin_session(&list->recheck, list->first);
    jobs_add_shared(list->jobs, &list->recheck.job, recheck_run);
}

void recheck_leave_resource(struct recheck *recheck, const struct session_resource *resource)
{
    if (recheck->next == resource)
        recheck->next = resource->next;
}

void recheck_leave_session(struct recheck *recheck, const struct session *session)
{
    if (recheck->session == session)
        recheck_begin_session(recheck, session->next);
}
