/* call.cancel: end a call of the same session that nobody waits for. */
#include "daemon/rpc/call.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/arguments.h"

/* Return the call in flight that has the msgid, except the one that asks; NULL: there is none. */
static struct call *call_find_in_flight(const struct call *asking, enum session_kind kind, uint32_t msgid)
{
    for (struct session_resource *resource = asking->session->resources[kind]; resource != NULL;
         resource = resource->next) {
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
