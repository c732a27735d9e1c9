#include "daemon/handlers/entry.h"

#include "proto/utf8.h"

/*
 * Entries are most of what the daemon sends: what surrounds the value is written in one stroke each, before it and
 * behind it, and not value by value through the packer. The bytes are those of the MessagePack specification.
 */
#define BEFORE_BYTES (KV_KEY_LENGTH_MAX + 32u)
#define BEHIND_BYTES 64u

#define PUT_LITERAL(at, text) put_bytes(at, text, sizeof(text) - 1)

static char *put_bytes(char *at, const char *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

static char *put_big_endian(char *at, uint64_t number, unsigned bytes)
{
    while (bytes-- > 0)
        *at++ = (char)(number >> (8 * bytes));
    return at;
}

static char *put_unsigned(char *at, uint64_t number)
{
    if (number < 0x80)
        return put_big_endian(at, number, 1);
    if (number <= UINT8_MAX)
        return put_big_endian(PUT_LITERAL(at, "\xcc"), number, 1);
    if (number <= UINT16_MAX)
        return put_big_endian(PUT_LITERAL(at, "\xcd"), number, 2);
    if (number <= UINT32_MAX)
        return put_big_endian(PUT_LITERAL(at, "\xce"), number, 4);
    return put_big_endian(PUT_LITERAL(at, "\xcf"), number, 8);
}

static char *put_key(char *at, const char *key, size_t length)
{
    if (length < 32)
        *at++ = (char)(0xa0 | length);
    else if (length <= UINT8_MAX)
        at = put_big_endian(PUT_LITERAL(at, "\xd9"), length, 1);
    else
        at = put_big_endian(PUT_LITERAL(at, "\xda"), length, 2);
    return put_bytes(at, key, length);
}

static char *put_bin_header(char *at, size_t length)
{
    if (length <= UINT8_MAX)
        return put_big_endian(PUT_LITERAL(at, "\xc4"), length, 1);
    if (length <= UINT16_MAX)
        return put_big_endian(PUT_LITERAL(at, "\xc5"), length, 2);
    return put_big_endian(PUT_LITERAL(at, "\xc6"), length, 4);
}

static char *put_operation(char *at, enum kv_operation operation)
{
    switch (operation) {
    case KV_PUT:
        return PUT_LITERAL(at, "\xa3put");
    case KV_DELETE:
        return PUT_LITERAL(at, "\xa6"
                               "delete");
    case KV_PURGE:
        break;
    }
    return PUT_LITERAL(at, "\xa5purge");
}

void pack_foreign_text(msgpack_packer *packer, const char *text)
{
    size_t length = strlen(text);

    if (utf8_is_valid(text, length))
        msgpack_pack_str_with_body(packer, text, length);
    else
        msgpack_pack_bin_with_body(packer, text, length);
}

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
        pack_foreign_text(arg, name);
        pack_foreign_text(arg, value);
    }
    return true;
}

static void pack(const struct kv_entry *entry, bool with_value, msgpack_packer *packer)
{
    char before[BEFORE_BYTES], behind[BEHIND_BYTES];
    size_t key_length = strlen(entry->key), headers = 0;
    char *at = before;

    message_each_header(entry->message, count_header, &headers);
    at = headers > 0 ? PUT_LITERAL(at, "\x86\xa3key") : PUT_LITERAL(at, "\x85\xa3key");
    if (key_length <= KV_KEY_LENGTH_MAX && utf8_is_valid(entry->key, key_length)) {
        at = put_key(at, entry->key, key_length);
    } else {
        packer->callback(packer->data, before, (size_t)(at - before));
        pack_foreign_text(packer, entry->key);
        at = before;
    }
    if (with_value) {
        at = put_bin_header(PUT_LITERAL(at, "\xa5value"), entry->value_bytes);
        packer->callback(packer->data, before, (size_t)(at - before));
        if (entry->value_bytes > 0)
            packer->callback(packer->data, entry->value, entry->value_bytes);
    } else {
        at = put_unsigned(PUT_LITERAL(at, "\xa4size"), entry->value_bytes);
        packer->callback(packer->data, before, (size_t)(at - before));
    }
    at = put_unsigned(PUT_LITERAL(behind, "\xa8revision"), entry->revision);
    at = PUT_LITERAL(at, "\xa7"
                         "created");
    at = entry->created_us >= 0 ? PUT_LITERAL(at, "\xcf") : PUT_LITERAL(at, "\xd3");
    at = put_big_endian(at, (uint64_t)entry->created_us, 8);
    at = put_operation(PUT_LITERAL(at, "\xa9operation"), entry->operation);
    packer->callback(packer->data, behind, (size_t)(at - behind));
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
