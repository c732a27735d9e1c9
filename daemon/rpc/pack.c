#include "daemon/rpc/pack.h"

#include "proto/utf8.h"

void pack_foreign_text(msgpack_packer *packer, const char *text)
{
    size_t length = strlen(text);

    if (utf8_is_valid(text, length))
        msgpack_pack_str_with_body(packer, text, length);
    else
        msgpack_pack_bin_with_body(packer, text, length);
}

void pack_named_integer(msgpack_packer *packer, const char *name, int64_t number)
{
    pack_str(packer, name);
    msgpack_pack_int64(packer, number);
}

void pack_named_unsigned(msgpack_packer *packer, const char *name, uint64_t number)
{
    pack_str(packer, name);
    msgpack_pack_uint64(packer, number);
}

void pack_named_str(msgpack_packer *packer, const char *name, const char *text)
{
    pack_str(packer, name);
    pack_str(packer, text);
}

void pack_named_bool(msgpack_packer *packer, const char *name, bool flag)
{
    pack_str(packer, name);
    if (flag)
        msgpack_pack_true(packer);
    else
        msgpack_pack_false(packer);
}
