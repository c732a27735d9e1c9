#include "daemon/handlers/entry.h"

#include "proto/utf8.h"

#include <string.h>

/*
 * Most bytes that the daemon sends are entries. So the members before the value, and those after it, are assembled in a
 * buffer and written at once, not one by one through the packer. The bytes are those of the MessagePack specification.
 */
#define BEFORE_BYTES (KV_KEY_LENGTH_MAX + 32u)
#define BEHIND_BYTES 140u

#define ENTRY_PUT_LITERAL(at, text) entry_put_bytes(at, text, sizeof(text) - 1)

static char *entry_put_bytes(char *at, const char *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

static char *entry_put_big_endian(char *at, uint64_t number, unsigned bytes)
{
    while (bytes-- > 0)
        *at++ = (char)(number >> (8 * bytes));
    return at;
}

static char *entry_put_unsigned(char *at, uint64_t number)
{
    if (number < 0x80)
        return entry_put_big_endian(at, number, 1);
    if (number <= UINT8_MAX)
        return entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xcc"), number, 1);
    if (number <= UINT16_MAX)
        return entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xcd"), number, 2);
    if (number <= UINT32_MAX)
        return entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xce"), number, 4);
    return entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xcf"), number, 8);
}

static char *entry_put_key(char *at, const char *key, size_t length)
{
    if (length < 32)
        *at++ = (char)(0xa0 | length);
    else if (length <= UINT8_MAX)
        at = entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xd9"), length, 1);
    else
        at = entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xda"), length, 2);
    return entry_put_bytes(at, key, length);
}

static char *entry_put_bin_header(char *at, size_t length)
{
    if (length <= UINT8_MAX)
        return entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xc4"), length, 1);
    if (length <= UINT16_MAX)
        return entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xc5"), length, 2);
    return entry_put_big_endian(ENTRY_PUT_LITERAL(at, "\xc6"), length, 4);
}

static char *entry_put_operation(char *at, enum kv_operation operation)
{
    switch (operation) {
    case KV_PUT:
        return ENTRY_PUT_LITERAL(at, "\xa3put");
    case KV_DELETE:
        return ENTRY_PUT_LITERAL(at, "\xa6"
                                     "delete");
    case KV_PURGE:
        break;
    }
    return ENTRY_PUT_LITERAL(at, "\xa5purge");
}

static bool entry_count_header(void *arg, const char *name, const char *value)
{
    (void)value;
    if (!kv_is_internal_header(name))
        ++*(size_t *)arg;
    return true;
}

static bool entry_pack_header(void *arg, const char *name, const char *value)
{
    if (!kv_is_internal_header(name)) {
        pack_foreign_text(arg, name);
        pack_foreign_text(arg, value);
    }
    return true;
}

/* Return the id of the lease that a value lives with; NULL: it lives with none. */
static const char *entry_lease(const struct kv_entry *entry)
{
    if (entry->message->header_count == 0 || entry->operation != KV_PUT)
        return NULL;
    const char *lease = message_header(entry->message, KV_HEADER_LEASE);
    return lease != NULL && lease[0] != '\0' ? lease : NULL;
}

static void entry_pack_form(const struct kv_entry *entry, bool with_value, bool with_previous, msgpack_packer *packer)
{
    char before[BEFORE_BYTES], behind[BEHIND_BYTES];
    size_t key_length = strlen(entry->key), headers = 0;
    int64_t ttl_s = entry->message->header_count > 0 ? kv_read_ttl(entry->message) : 0;
    const char *lease = entry_lease(entry);
    char *at = before;

    message_each_header(entry->message, entry_count_header, &headers);
    with_previous = with_previous && entry->previous_value != NULL;
    *at++ = (char)(0x85 + (headers > 0) + 2 * (ttl_s > 0) + entry->has_previous + with_previous + (lease != NULL));
    at = ENTRY_PUT_LITERAL(at, "\xa3key");
    if (key_length <= KV_KEY_LENGTH_MAX && utf8_is_valid(entry->key, key_length)) {
        at = entry_put_key(at, entry->key, key_length);
    } else {
        packer->callback(packer->data, before, (size_t)(at - before));
        pack_foreign_text(packer, entry->key);
        at = before;
    }
    if (with_value) {
        at = entry_put_bin_header(ENTRY_PUT_LITERAL(at, "\xa5value"), entry->value_bytes);
        packer->callback(packer->data, before, (size_t)(at - before));
        if (entry->value_bytes > 0)
            packer->callback(packer->data, entry->value, entry->value_bytes);
    } else {
        at = entry_put_unsigned(ENTRY_PUT_LITERAL(at, "\xa4size"), entry->value_bytes);
        packer->callback(packer->data, before, (size_t)(at - before));
    }
    at = entry_put_unsigned(ENTRY_PUT_LITERAL(behind, "\xa8revision"), entry->revision);
    at = ENTRY_PUT_LITERAL(at, "\xa7"
                               "created");
    at = entry->created_us >= 0 ? ENTRY_PUT_LITERAL(at, "\xcf") : ENTRY_PUT_LITERAL(at, "\xd3");
    at = entry_put_big_endian(at, (uint64_t)entry->created_us, 8);
    at = entry_put_operation(ENTRY_PUT_LITERAL(at, "\xa9operation"), entry->operation);
    if (ttl_s > 0) {
        at = entry_put_unsigned(ENTRY_PUT_LITERAL(at, "\xa3ttl"), (uint64_t)ttl_s);
        at = entry_put_unsigned(ENTRY_PUT_LITERAL(at, "\xa7"
                                                      "expires"),
                                (uint64_t)kv_read_expiry_us(entry));
    }
    if (entry->has_previous)
        at = entry_put_unsigned(ENTRY_PUT_LITERAL(at, "\xa8previous"), entry->previous);
    packer->callback(packer->data, behind, (size_t)(at - behind));
    if (lease != NULL) {
        pack_str(packer, "lease");
        pack_foreign_text(packer, lease);
    }
    if (with_previous) {
        pack_str(packer, "previous_value");
        msgpack_pack_bin_with_body(packer, entry->previous_value, entry->previous_bytes);
    }
    if (headers > 0) {
        pack_str(packer, "headers");
        msgpack_pack_map(packer, headers);
        message_each_header(entry->message, entry_pack_header, packer);
    }
}

void entry_pack(const struct kv_entry *entry, msgpack_packer *packer)
{
    entry_pack_form(entry, true, false, packer);
}

void entry_pack_with_previous(const struct kv_entry *entry, msgpack_packer *packer)
{
    entry_pack_form(entry, true, true, packer);
}

void entry_pack_meta(const struct kv_entry *entry, msgpack_packer *packer)
{
    entry_pack_form(entry, false, false, packer);
}
