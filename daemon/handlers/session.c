/* session.configure: how the daemon talks to one session. */
#include "daemon/transport/session.h"
#include "daemon/handlers/entry.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/options.h"

void handle_session_configure(struct call *call)
{
    const msgpack_object *errors = option_find(call, "errors");
    struct session *session = call->session;

    if (errors != NULL && !argument_is_word(errors, "map") && !argument_is_word(errors, "text")) {
        argument_refuse(call, "errors", "\"map\" or \"text\"", errors);
        return;
    }
    if (errors != NULL)
        session->errors_as_text = argument_is_word(errors, "text");
    msgpack_packer *packer = call_begin_result(call);
    msgpack_pack_map(packer, 1);
    pack_str(packer, "errors");
    pack_str(packer, session->errors_as_text ? "text" : "map");
    call_end_result(call);
}
