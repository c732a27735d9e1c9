#include "proto/frame.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

/* The header of one value: its own bytes, the bytes of body that follow, the values it contains. */
struct header {
    size_t header_bytes;
    uint64_t body_bytes;
    uint64_t children;
    bool is_container;
};

enum header_status { HEADER_WHOLE, HEADER_CUT, HEADER_RESERVED };

static uint64_t read_big_endian(const uint8_t *bytes, unsigned width)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | bytes[i];
    return value;
}

/*
 * Reads the header that begins at bytes; of one that is cut, only header_bytes.
 * The formats: the MessagePack specification, "Formats".
 */
static enum header_status read_header(const uint8_t *bytes, size_t length, struct header *header)
{
    uint8_t first = bytes[0];
    unsigned length_width = 0;   /* bytes of the length field behind the first byte */
    unsigned fixed_body = 0;     /* bytes of the body, or of the type behind a length field */
    uint64_t per_unit_bytes = 0; /* what one unit of the length field stands for */
    uint64_t per_unit_children = 0;

    memset(header, 0, sizeof(*header));
    if (first <= 0x7f || first >= 0xe0) { /* fixint */
    } else if (first <= 0x8f) {           /* fixmap */
        header->is_container = true;
        header->children = 2u * (first & 0x0fu);
    } else if (first <= 0x9f) { /* fixarray */
        header->is_container = true;
        header->children = first & 0x0fu;
    } else if (first <= 0xbf) { /* fixstr */
        fixed_body = first & 0x1fu;
    } else {
        switch (first) {
        case 0xc0:
        case 0xc2:
        case 0xc3: /* nil, false, true */
            break;
        case 0xc1:
            return HEADER_RESERVED;
        case 0xc4:
        case 0xc5:
        case 0xc6: /* bin 8, 16, 32 */
            length_width = 1u << (first - 0xc4);
            per_unit_bytes = 1;
            break;
        case 0xc7:
        case 0xc8:
        case 0xc9: /* ext 8, 16, 32: a type byte more */
            length_width = 1u << (first - 0xc7);
            fixed_body = 1;
            per_unit_bytes = 1;
            break;
        case 0xca:
        case 0xcb: /* float 32, 64 */
            fixed_body = 4u << (first - 0xca);
            break;
        case 0xcc:
        case 0xcd:
        case 0xce:
        case 0xcf: /* uint */
            fixed_body = 1u << (first - 0xcc);
            break;
        case 0xd0:
        case 0xd1:
        case 0xd2:
        case 0xd3: /* int */
            fixed_body = 1u << (first - 0xd0);
            break;
        case 0xd4:
        case 0xd5:
        case 0xd6:
        case 0xd7:
        case 0xd8: /* fixext 1 to 16 */
            fixed_body = 1u + (1u << (first - 0xd4));
            break;
        case 0xd9:
        case 0xda:
        case 0xdb: /* str 8, 16, 32 */
            length_width = 1u << (first - 0xd9);
            per_unit_bytes = 1;
            break;
        case 0xdc:
        case 0xdd: /* array 16, 32 */
            header->is_container = true;
            length_width = 2u << (first - 0xdc);
            per_unit_children = 1;
            break;
        default: /* 0xde, 0xdf: map 16, 32 */
            header->is_container = true;
            length_width = 2u << (first - 0xde);
            per_unit_children = 2;
            break;
        }
    }

    header->header_bytes = 1u + length_width;
    if (length < header->header_bytes)
        return HEADER_CUT;
    uint64_t units = read_big_endian(bytes + 1, length_width);
    header->body_bytes = fixed_body + units * per_unit_bytes;
    header->children += units * per_unit_children;
    return HEADER_WHOLE;
}

void frame_init(struct frame *frame, const struct frame_limits *limits)
{
    assert(limits->depth <= FRAME_DEPTH_MAX);
    frame->limits = limits;
    frame->base = 0;
    frame->offset = 0;
    frame->elements = 0;
    frame->depth = 0;
    frame->headers_done = false;
}

/* Accounts for one value that is over, and for every container that it completes. True when that was the message. */
static bool value_ends(struct frame *frame)
{
    while (frame->depth > 0) {
        if (--frame->pending[frame->depth - 1] > 0)
            return false;
        frame->depth--;
    }
    return true;
}

enum frame_status frame_scan(struct frame *frame, const uint8_t *bytes, size_t length)
{
    const struct frame_limits *limits = frame->limits;
    size_t available = frame->base + length;

    while (!frame->headers_done) {
        struct header header;

        /* Every value that is still to come takes a byte at least. */
        if (frame->offset >= limits->size_bytes)
            return FRAME_TOO_LARGE;
        if (frame->offset >= available)
            return FRAME_PARTIAL;

        switch (read_header(bytes + (frame->offset - frame->base), available - frame->offset, &header)) {
        case HEADER_WHOLE:
            break;
        case HEADER_CUT:
            return header.header_bytes > limits->size_bytes - frame->offset ? FRAME_TOO_LARGE : FRAME_PARTIAL;
        case HEADER_RESERVED:
            return FRAME_MALFORMED;
        }

        /* Believe no count before it is known to fit. */
        size_t room_bytes = limits->size_bytes - frame->offset;
        if (header.header_bytes > room_bytes || header.body_bytes > room_bytes - header.header_bytes)
            return FRAME_TOO_LARGE;
        if (frame->elements + 1 + header.children > limits->elements)
            return FRAME_TOO_MANY_ELEMENTS;
        if (header.children > room_bytes - header.header_bytes)
            return FRAME_TOO_LARGE;
        if (header.is_container && frame->depth >= limits->depth)
            return FRAME_TOO_DEEP;

        frame->offset += header.header_bytes + (size_t)header.body_bytes;
        frame->elements++;
        if (header.is_container && header.children > 0)
            frame->pending[frame->depth++] = header.children;
        else
            frame->headers_done = value_ends(frame);
    }
    return frame->offset <= available ? FRAME_COMPLETE : FRAME_PARTIAL;
}

const char *frame_status_text(enum frame_status status)
{
    switch (status) {
    case FRAME_COMPLETE:
        return "is complete";
    case FRAME_PARTIAL:
        return "is not complete yet";
    case FRAME_MALFORMED:
        return "is not MessagePack";
    case FRAME_TOO_LARGE:
        return "has too many bytes";
    case FRAME_TOO_MANY_ELEMENTS:
        return "has too many elements";
    case FRAME_TOO_DEEP:
        return "is nested too deeply";
    }
    return "is wrong";
}
