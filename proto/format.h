/*
 * format: the header of one MessagePack value.
 *
 * Used by frame and decode, which read the same bytes one after the other. The formats: the MessagePack
 * specification, "Formats".
 */
#ifndef PROTO_FORMAT_H
#define PROTO_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum format_kind {
    FORMAT_RESERVED, /* 0xc1 */
    FORMAT_NIL,
    FORMAT_FALSE,
    FORMAT_TRUE,
    FORMAT_FIXINT, /* the first byte itself, as a signed one */
    FORMAT_UINT,   /* the body is the number, as of FLOAT and INT */
    FORMAT_INT,
    FORMAT_FLOAT,
    FORMAT_STR,
    FORMAT_BIN,
    FORMAT_EXT, /* the body is the type's byte and the data */
    FORMAT_ARRAY,
    FORMAT_MAP
};

struct format {
    enum format_kind kind;
    unsigned header_bytes;
    uint64_t body_bytes; /* after the header */
    uint64_t count;      /* of an array's elements, or a map's members */
};

static inline uint64_t format_number(const uint8_t *bytes, unsigned width)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | bytes[i];
    return value;
}

static inline void format_set(struct format *format, enum format_kind kind, uint64_t body_bytes, uint64_t count)
{
    format->kind = kind;
    format->header_bytes = 1;
    format->body_bytes = body_bytes;
    format->count = count;
}

/* Reads what follows the first byte: a length of width bytes. Return false if it is cut. */
static inline bool format_set_sized(struct format *format, enum format_kind kind, unsigned width, const uint8_t *bytes,
                                    size_t length)
{
    format_set(format, kind, 0, 0);
    format->header_bytes = 1 + width;
    if (length < format->header_bytes)
        return false;
    uint64_t units = format_number(bytes + 1, width);
    if (kind == FORMAT_ARRAY || kind == FORMAT_MAP)
        format->count = units;
    else
        format->body_bytes = units + (kind == FORMAT_EXT);
    return true;
}

/* Reads the header that begins at bytes, of which there is one at least. Return false if it is cut: then only kind and
 * header_bytes are set. */
static inline bool format_read(const uint8_t *bytes, size_t length, struct format *format)
{
    uint8_t first = bytes[0];

    if (first <= 0x7f || first >= 0xe0) {
        format_set(format, FORMAT_FIXINT, 0, 0);
        return true;
    }
    if (first <= 0x8f) {
        format_set(format, FORMAT_MAP, 0, first & 0x0fu);
        return true;
    }
    if (first <= 0x9f) {
        format_set(format, FORMAT_ARRAY, 0, first & 0x0fu);
        return true;
    }
    if (first <= 0xbf) {
        format_set(format, FORMAT_STR, first & 0x1fu, 0);
        return true;
    }
    switch (first) {
    case 0xc0:
        format_set(format, FORMAT_NIL, 0, 0);
        return true;
    case 0xc2:
    case 0xc3:
        format_set(format, first == 0xc2 ? FORMAT_FALSE : FORMAT_TRUE, 0, 0);
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return format_set_sized(format, FORMAT_BIN, 1u << (first - 0xc4), bytes, length);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return format_set_sized(format, FORMAT_EXT, 1u << (first - 0xc7), bytes, length);
    case 0xca:
    case 0xcb:
        format_set(format, FORMAT_FLOAT, 4u << (first - 0xca), 0);
        return true;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        format_set(format, FORMAT_UINT, 1u << (first - 0xcc), 0);
        return true;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        format_set(format, FORMAT_INT, 1u << (first - 0xd0), 0);
        return true;
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: /* fixext 1 to 16 */
        format_set(format, FORMAT_EXT, 1u + (1u << (first - 0xd4)), 0);
        return true;
    case 0xd9:
    case 0xda:
    case 0xdb:
        return format_set_sized(format, FORMAT_STR, 1u << (first - 0xd9), bytes, length);
    case 0xdc:
    case 0xdd:
        return format_set_sized(format, FORMAT_ARRAY, 2u << (first - 0xdc), bytes, length);
    case 0xde:
    case 0xdf:
        return format_set_sized(format, FORMAT_MAP, 2u << (first - 0xde), bytes, length);
    default: /* 0xc1 */
        format_set(format, FORMAT_RESERVED, 0, 0);
        return true;
    }
}

#endif
