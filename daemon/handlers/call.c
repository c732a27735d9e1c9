/* call.cancel: end a call of the same session that nobody waits for. */
#include "daemon/rpc/call.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/arguments.h"

/*
 * Return the call in flight that has the msgid, except the one that asks; NULL: there is none. The list is searched
 * from its end, where the oldest calls are: a client that cancels many calls usually begins with the oldest.
 */
static struct call *call_find_in_flight(const struct call *asking, enum session_kind kind, uint32_t msgid)
{
    struct session_resource *first = asking->session->resources[kind];
    struct session_resource *resource = first != NULL ? first->previous : NULL; /* utlist: the head's is the tail */

    for (; resource != NULL; resource = resource != first ? resource->previous : NULL) {
        struct call *call = call_of_resource(resource);
        if (call->msgid == msgid && call != asking && !call->is_notification)
            return call;
    }
    return NULL;
}

void handle_call_cancel(struct call *call)
{
    uint64_t msgid;

    if (!argument_to_uint64(&call->arguments[0], &msgid) || msgid > UINT32_MAX) {
        argument_refuse(call, "argument 1", "the msgid of a call", &call->arguments[0]);
        return;
    }
    struct call *found = call_find_in_flight(call, SESSION_WAITING, (uint32_t)msgid);
    if (found == NULL)
        found = call_find_in_flight(call, SESSION_PENDING, (uint32_t)msgid);
    bool is_cancelled = found != NULL && call_cancel(found);
    msgpack_packer *packer = call_begin_result(call);
    if (is_cancelled)
        msgpack_pack_true(packer);
    else
        msgpack_pack_false(packer);
    call_end_result(call);
}
