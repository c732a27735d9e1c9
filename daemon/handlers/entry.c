#include "daemon/handlers/entry.h"

static bool count_header(void *arg, const char *name, const char *value)
{
    (void)value;
    if (!kv_is_internal_header(name))
        ++*(size_t *)arg;
    return true;
}

static bool pack_header(void *arg, const char *name, const char *value)
{
    if (!kv_is_internal_header(name)) {
        pack_str(arg, name);
        pack_str(arg, value);
    }
    return true;
}

static void pack(const struct kv_entry *entry, bool with_value, msgpack_packer *packer)
{
    static const char *const operations[] = {[KV_PUT] = "put", [KV_DELETE] = "delete", [KV_PURGE] = "purge"};
    size_t headers = 0;

    message_each_header(entry->message, count_header, &headers);
    msgpack_pack_map(packer, headers > 0 ? 6 : 5);
    pack_str(packer, "key");
    pack_str(packer, entry->key);
    if (with_value) {
        pack_str(packer, "value");
        msgpack_pack_bin_with_body(packer, entry->value, entry->value_bytes);
    } else {
        pack_str(packer, "size");
        msgpack_pack_uint64(packer, entry->value_bytes);
    }
    pack_str(packer, "revision");
    msgpack_pack_uint64(packer, entry->revision);
    pack_str(packer, "created");
    msgpack_pack_int64(packer, entry->created_us);
    pack_str(packer, "operation");
    pack_str(packer, operations[entry->operation]);
    if (headers > 0) {
        pack_str(packer, "headers");
        msgpack_pack_map(packer, headers);
        message_each_header(entry->message, pack_header, packer);
    }
}

void entry_pack(const struct kv_entry *entry, msgpack_packer *packer)
{
    pack(entry, true, packer);
}

void entry_pack_meta(const struct kv_entry *entry, msgpack_packer *packer)
{
    pack(entry, false, packer);
}
