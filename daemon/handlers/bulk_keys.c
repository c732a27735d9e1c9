#include "daemon/handlers/bulk_keys.h"

#include "daemon/rpc/arguments.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/pack.h"

#include <stdio.h>

/* Most keys of one call: their array, and that of their results, is made in one turn of the loop. */
#define KEYS_MAX 16384u

bool bulk_check_count(struct call *call, uint32_t count)
{
    if (count <= KEYS_MAX)
        return true;
    call_fail_with(call, ERROR_TOO_LARGE, "%s takes up to %u keys; this call has %u", call->method->name, KEYS_MAX,
                   count);
    return false;
}

bool bulk_refuse_type(struct call *call, uint32_t index, const msgpack_object *key)
{
    char what[32];

    snprintf(what, sizeof(what), "key number %u", index + 1);
    return argument_refuse(call, what, "a text (str or bin)", key);
}

bool bulk_begin_pair(struct call *call, msgpack_packer *packer, const msgpack_sbuffer *answer, const char *key)
{
    if (answer->size > call->dispatcher->conf->limits.frame_bytes) {
        msgpack_pack_nil(packer);
        msgpack_pack_nil(packer);
        return false;
    }
    pack_str(packer, key);
    return true;
}
